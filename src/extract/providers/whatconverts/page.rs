//! WhatConverts' wire form, as far as paging and refusals need it.
//!
//! One shape of error, a text `error_message`, under any status, 200 included. Numbers may come as
//! text. Everything but the rows may be missing.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::PROVIDER;
use crate::extract::Answer;
use crate::extract::Error;
use crate::extract::PageFacts;
use crate::extract::Result;
use crate::extract::http::one_line;
use crate::extract::providers::json;
use crate::extract::providers::refusal::NO_WORDS;
use crate::extract::providers::refusal::Refusal;
use crate::extract::providers::refusal::describe;
use crate::extract::providers::rows::Names;
use crate::extract::providers::rows::RowList;

/// Where the vendor puts the reason of a refusal.
const WORDS: [&str; 1] = ["/error_message"];

/// Refuses an answer whose status says that it is none.
pub(super) fn refuse_bad_status(answer: &Answer) -> Result<()> {
    if answer.is_success() {
        return Ok(());
    }
    Err(refusal(answer, json::words(&answer.body, &WORDS).as_deref()))
}

/// Refuses an answer that carries an error although its status is 200.
pub(super) fn refuse_error_text(answer: &Answer) -> Result<()> {
    match json::words(&answer.body, &WORDS) {
        Some(words) => Err(refusal(answer, Some(&words))),
        None => Ok(()),
    }
}

fn refusal(answer: &Answer, words: Option<&str>) -> Error {
    Refusal::of(PROVIDER, answer).judge(words, &describe(answer))
}

/// Tells whether a refusal says that the lead asked for does not exist. The text is a client's
/// record; its status is not known, so 400, 404, 410 and 200 are all taken.
pub(super) fn says_unknown_lead(error: &Error) -> bool {
    match error {
        // A 404 without the vendor's own words is that of a path that does not exist.
        Error::Refused { status: 404, text, .. } => !text.starts_with(NO_WORDS),
        Error::Refused { text, .. } => text.to_ascii_lowercase().contains("invalid lead id"),
        _ => false,
    }
}

/// Reads a page of the listing.
pub(super) fn read_leads(body: &[u8]) -> Result<PageFacts> {
    json::refuse_other_than_object(PROVIDER, body)?;
    let envelope = parse::<Envelope<'_>>(body)?;
    if let Some(error) = error_in(envelope.error_message.as_deref()) {
        return Err(error);
    }
    let total = json::number(envelope.total_leads);
    let places = envelope.leads.as_ref().map(|leads| leads.places(body));
    let rows = match envelope.leads {
        Some(leads) => leads.rows,
        // The vendor does not say whether a listing without leads still has `leads`.
        None if total == Some(0) => Vec::new(),
        None => return Err(broken("there is no `leads` in it")),
    };
    let small = |raw| json::number(raw).and_then(|number| u32::try_from(number).ok());
    Ok(PageFacts {
        rows,
        total,
        // No leads at all may come as 0 pages.
        total_pages: small(envelope.total_pages).map(|pages| pages.max(1)),
        page: small(envelope.page_number),
        size: small(envelope.leads_per_page),
        is_json: true,
        places,
    })
}

/// What the answer for one lead holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Single {
    /// No lead.
    None,
    /// A lead.
    Lead {
        /// Whether it has `custom_fields` or `field_mappings`, which a master key is not always
        /// shown.
        has_custom_fields: bool,
    },
}

/// Reads the answer for one lead: the listing's envelope with one row, or the lead itself.
/// Fails where it is something else, or another lead than `asked`.
pub(super) fn read_single(body: &[u8], asked: &str) -> Result<Single> {
    #[derive(Deserialize)]
    struct One<'a> {
        #[serde(borrow, default)]
        lead_id: Option<&'a RawValue>,
        custom_fields: Option<IgnoredAny>,
        field_mappings: Option<IgnoredAny>,
    }
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(borrow, default)]
        error_message: Option<Cow<'a, str>>,
        #[serde(borrow, default)]
        leads: Option<Vec<One<'a>>>,
    }
    let envelope = parse::<Body<'_>>(body)?;
    if let Some(error) = error_in(envelope.error_message.as_deref()) {
        return Err(error);
    }
    let lead = match envelope.leads {
        Some(leads) => leads.into_iter().next(),
        None => Some(parse::<One<'_>>(body)?),
    };
    let Some(lead) = lead else { return Ok(Single::None) };
    match lead.lead_id.and_then(|id| json::native_id(id.get())) {
        Some(id) if id == asked => Ok(Single::Lead {
            has_custom_fields: lead.custom_fields.is_some() || lead.field_mappings.is_some(),
        }),
        Some(_) => Err(broken("it is another lead than the one asked for")),
        None => Err(broken("it is neither a lead nor a list of leads")),
    }
}

/// A page of accounts.
#[derive(Debug, Deserialize)]
pub(super) struct Accounts {
    /// The accounts.
    pub(super) accounts: Vec<Account>,
    #[serde(default, deserialize_with = "json::lenient_number")]
    total_pages: Option<u64>,
}

/// An account, with its profiles where they are nested.
#[derive(Debug, Deserialize)]
pub(super) struct Account {
    /// Its id.
    #[serde(deserialize_with = "json::id_number")]
    pub(super) account_id: u64,
    /// Its profiles; `None` where they must be asked for.
    #[serde(default)]
    pub(super) profiles: Option<Vec<Profile>>,
}

/// A page of an account's profiles.
#[derive(Debug, Deserialize)]
pub(super) struct Profiles {
    /// The profiles.
    pub(super) profiles: Vec<Profile>,
    #[serde(default, deserialize_with = "json::lenient_number")]
    total_pages: Option<u64>,
}

/// A profile.
#[derive(Debug, Deserialize)]
pub(super) struct Profile {
    /// Its id.
    #[serde(deserialize_with = "json::id_number")]
    pub(super) profile_id: u64,
}

impl Accounts {
    /// Tells whether page `number` of `size` rows is the last.
    pub(super) fn is_last(&self, number: u32, size: u32) -> bool {
        is_last(self.total_pages, self.accounts.len(), number, size)
    }
}

impl Profiles {
    /// Tells whether page `number` of `size` rows is the last.
    pub(super) fn is_last(&self, number: u32, size: u32) -> bool {
        is_last(self.total_pages, self.profiles.len(), number, size)
    }
}

fn is_last(total_pages: Option<u64>, rows: usize, number: u32, size: u32) -> bool {
    match total_pages {
        Some(pages) => u64::from(number) >= pages || rows == 0,
        None => rows < size as usize,
    }
}

/// Reads a page of accounts.
pub(super) fn read_accounts(answer: &Answer) -> Result<Accounts> {
    refuse_error_text(answer)?;
    parse(&answer.body)
}

/// Reads a page of profiles.
pub(super) fn read_profiles(answer: &Answer) -> Result<Profiles> {
    refuse_error_text(answer)?;
    parse(&answer.body)
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T> {
    json::parse(PROVIDER, body)
}

fn broken(detail: &str) -> Error {
    json::broken(PROVIDER, detail)
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    error_message: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    page_number: Option<&'a RawValue>,
    #[serde(borrow, default)]
    leads_per_page: Option<&'a RawValue>,
    #[serde(borrow, default)]
    total_pages: Option<&'a RawValue>,
    #[serde(borrow, default)]
    total_leads: Option<&'a RawValue>,
    #[serde(borrow, default)]
    leads: Option<RowList<'a, Lead>>,
}

/// Returns the refusal that a body with status 200 may carry.
fn error_in(error_message: Option<&str>) -> Option<Error> {
    let words = one_line(error_message?);
    let refusal = Refusal::in_page(PROVIDER, 200);
    (!words.is_empty()).then(|| refusal.judge(Some(&words), NO_WORDS))
}

/// The fields of a lead.
struct Lead;

impl Names for Lead {
    const ID: &'static str = "lead_id";
    const CREATED_AT: &'static str = "date_created";
    // Its listings state a total.
    const UPDATED_AT: Option<&'static str> = None;
    const LISTS: &'static [&'static str] = &["leads"];
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::id_hash;

    fn answer(status: u16, body: &'static str) -> Answer {
        Answer::of_test(status, "application/json", body)
    }

    #[test]
    fn a_page_tells_its_rows_and_totals_whatever_their_form() {
        let body = br#"{"page_number":"2","leads_per_page":25,"total_pages":3,"total_leads":"61",
            "leads":[{"lead_id":1,"date_created":"2025-01-01T00:00:00Z","x":{"lead_id":9}},
                     {"date_created":"2025-01-01 01:00:00","lead_id":"2"},
                     {"lead_id":null,"date_created":"2025-01-01T00:00:00-05:00"}, 7, null, "x", [1]]}"#;
        let facts = read_leads(body).unwrap();
        assert_eq!(
            (facts.page, facts.size, facts.total_pages, facts.total),
            (Some(2), Some(25), Some(3), Some(61))
        );
        let ids: Vec<_> = facts.rows.iter().map(|row| row.id).collect();
        assert_eq!(ids, [Some(id_hash("1")), Some(id_hash("2")), None, None, None, None, None]);
        let hours: Vec<_> = facts
            .rows
            .iter()
            .filter_map(|row| Some(row.created_at?.format("%H").to_string()))
            .collect();
        assert_eq!(hours, ["00", "01", "05"]);
    }

    #[test]
    fn no_leads_at_all_is_one_page() {
        for body in [
            r#"{"total_pages":0,"total_leads":0,"leads":[]}"#,
            r#"{"total_pages":1,"total_leads":0}"#,
            r#"{"total_pages":null,"total_leads":0,"leads":null}"#,
        ] {
            let facts = read_leads(body.as_bytes()).unwrap();
            assert_eq!((facts.rows.len(), facts.total), (0, Some(0)), "{body}");
        }
    }

    #[test]
    fn an_error_is_an_error_whatever_the_status() {
        let body = br#"{"error_message":"Invalid account ID."}"#;
        assert!(
            matches!(read_leads(body), Err(Error::Refused { text, .. }) if text == "Invalid account ID.")
        );
        let refused = refuse_bad_status(&answer(410, r#"{"error_message":"Bad range"}"#));
        assert!(matches!(refused, Err(Error::Refused { status: 410, .. })));
        let wrong =
            refuse_bad_status(&answer(401, r#"{"error_message":"Authentication failed."}"#));
        assert!(
            matches!(wrong, Err(Error::Unauthorized { text, .. }) if text == "Authentication failed.")
        );
        let html = refuse_bad_status(&answer(404, "<html>"));
        assert!(matches!(html, Err(Error::Refused { status: 404, .. })));
        let day = refuse_bad_status(&answer(403, r#"{"error_message":"Daily limit exceeded"}"#));
        assert!(matches!(day, Err(Error::UsedUp { .. })));
        assert!(
            matches!(read_leads(b"<html>"), Err(Error::Broken { detail, .. }) if detail.contains("HTML"))
        );
        assert!(matches!(read_leads(br#"{"leads":["#), Err(Error::Broken { .. })));
    }

    #[test]
    fn an_unknown_lead_is_told_under_any_status() {
        for status in [400, 404, 410] {
            let error =
                refuse_bad_status(&answer(status, r#"{"error_message":"Invalid lead ID."}"#));
            assert!(says_unknown_lead(&error.unwrap_err()));
        }
        assert!(says_unknown_lead(
            &read_single(br#"{"error_message":"Invalid lead ID."}"#, "5").unwrap_err()
        ));
        assert_eq!(read_single(br#"{"leads":[]}"#, "5").unwrap(), Single::None);
        let bare = Single::Lead { has_custom_fields: false };
        assert_eq!(read_single(br#"{"leads":[{"lead_id":5}]}"#, "5").unwrap(), bare);
        assert!(read_single(br#"{"status":"maintenance"}"#, "5").is_err());
        assert!(read_single(br#"{"lead_id":6}"#, "5").is_err());
        let html = refuse_bad_status(&answer(404, "<html>")).unwrap_err();
        assert!(!says_unknown_lead(&html));
        let whole = br#"{"lead_id":5,"custom_fields":[]}"#;
        assert_eq!(read_single(whole, "5").unwrap(), Single::Lead { has_custom_fields: true });
    }
}
