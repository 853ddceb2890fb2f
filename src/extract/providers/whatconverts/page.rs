//! WhatConverts' wire form, as far as paging and refusals need it.
//!
//! One shape of error, a text `error_message`, under any status, 200 included. Numbers may come as
//! text. Everything but the rows may be missing.

use std::borrow::Cow;
use std::fmt;

use chrono::DateTime;
use chrono::NaiveDateTime;
use chrono::Utc;
use serde::Deserialize;
use serde::Deserializer;
use serde::de;
use serde::de::IgnoredAny;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;
use serde_json::value::RawValue;

use super::PROVIDER;
use crate::extract::Answer;
use crate::extract::Error;
use crate::extract::PageFacts;
use crate::extract::Result;
use crate::extract::RowFacts;
use crate::extract::http::one_line;
use crate::record::id_hash;

/// Refuses an answer whose status says that it is none.
pub(super) fn refuse_bad_status(answer: &Answer) -> Result<()> {
    if (200..300).contains(&answer.status) {
        return Ok(());
    }
    let text = error_text(&answer.body);
    Err(refusal(answer, text.as_deref()))
}

/// Refuses an answer that carries an error although its status is 200.
pub(super) fn refuse_error_text(answer: &Answer) -> Result<()> {
    match error_text(&answer.body) {
        Some(text) => Err(refusal(answer, Some(&text))),
        None => Ok(()),
    }
}

fn error_text(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(borrow, default)]
        error_message: Option<Cow<'a, str>>,
    }
    let body: Body<'_> = serde_json::from_slice(body).ok()?;
    body.error_message.filter(|text| !text.trim().is_empty()).map(|text| one_line(&text))
}

/// Tells what a refusal means. The vendor documents neither what comes beyond the allowance nor
/// any code beside the text, so the text decides where it speaks of a limit.
fn refusal(answer: &Answer, text: Option<&str>) -> Error {
    let (status, retry_after) = (answer.status, answer.retry_after);
    let lower = text.unwrap_or_default().to_ascii_lowercase();
    if speaks_of_the_day(&lower) {
        let text = text.unwrap_or_default().to_owned();
        return Error::UsedUp { provider: PROVIDER, status, text, retry_after };
    }
    if status == 429 || speaks_of_the_rate(&lower) {
        return Error::RateLimited { provider: PROVIDER, status, retry_after };
    }
    match (status, text) {
        (401 | 403, text) => {
            let text = text.unwrap_or("no reason given").to_owned();
            Error::Unauthorized { provider: PROVIDER, status, text }
        }
        (408 | 500..=599, _) => Error::Unavailable { provider: PROVIDER, status, retry_after },
        (status, text) => {
            let text = text.map_or_else(|| describe(answer), str::to_owned);
            let request = answer.request.clone();
            Error::Refused { provider: PROVIDER, request, status, text }
        }
    }
}

fn speaks_of_the_day(text: &str) -> bool {
    let day = ["daily", "per day", "quota", "today"].iter().any(|word| text.contains(word));
    day && ["limit", "quota", "exceed", "used up"].iter().any(|word| text.contains(word))
}

fn speaks_of_the_rate(text: &str) -> bool {
    text.contains("rate limit") || text.contains("too many requests")
}

fn describe(answer: &Answer) -> String {
    let kind = match answer.media_type.as_str() {
        "" => "without a type",
        kind => kind,
    };
    format!("{NO_WORDS}, but {} bytes {kind}", answer.body.len())
}

/// How the description of an answer begins that carries no error of the vendor's.
const NO_WORDS: &str = "no `error_message`";

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
    let envelope = parse::<Envelope<'_>>(body)?;
    if let Some(error) = error_in(envelope.error_message.as_deref()) {
        return Err(error);
    }
    let total = number(envelope.total_leads);
    let rows = match envelope.leads {
        Some(rows) => rows,
        // The vendor does not say whether a listing without leads still has `leads`.
        None if total == Some(0) => Vec::new(),
        None => return Err(broken("there is no `leads` in it")),
    };
    let small = |raw| number(raw).and_then(|number| u32::try_from(number).ok());
    Ok(PageFacts {
        rows: rows.into_iter().map(|row| row.0).collect(),
        total,
        // No leads at all may come as 0 pages.
        total_pages: small(envelope.total_pages).map(|pages| pages.max(1)),
        page: small(envelope.page_number),
        size: small(envelope.leads_per_page),
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
    struct Lead<'a> {
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
        leads: Option<Vec<Lead<'a>>>,
    }
    let envelope = parse::<Body<'_>>(body)?;
    if let Some(error) = error_in(envelope.error_message.as_deref()) {
        return Err(error);
    }
    let lead = match envelope.leads {
        Some(leads) => leads.into_iter().next(),
        None => Some(parse::<Lead<'_>>(body)?),
    };
    let Some(lead) = lead else { return Ok(Single::None) };
    match lead.lead_id.and_then(|id| native_id(id.get())) {
        Some(id) if id == id_hash(asked) => Ok(Single::Lead {
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
    #[serde(default, deserialize_with = "lenient_number")]
    total_pages: Option<u64>,
}

/// An account, with its profiles where they are nested.
#[derive(Debug, Deserialize)]
pub(super) struct Account {
    /// Its id.
    #[serde(deserialize_with = "id_number")]
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
    #[serde(default, deserialize_with = "lenient_number")]
    total_pages: Option<u64>,
}

/// A profile.
#[derive(Debug, Deserialize)]
pub(super) struct Profile {
    /// Its id.
    #[serde(deserialize_with = "id_number")]
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
    serde_json::from_slice(body).map_err(|error| {
        let looks_like_html = body.trim_ascii_start().first() == Some(&b'<');
        let what = if looks_like_html { "it is HTML, not JSON".to_owned() } else { place(&error) };
        broken(&what)
    })
}

/// Names where the parser stopped, without the text it stopped at.
fn place(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Eof => "the JSON ends early",
        serde_json::error::Category::Data => "the JSON has another form than documented",
        _ => "it is not JSON",
    };
    format!("{what}, at line {} column {}", error.line(), error.column())
}

fn broken(detail: &str) -> Error {
    Error::Broken { provider: PROVIDER, detail: detail.to_owned() }
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
    #[serde(default)]
    leads: Option<Vec<Row>>,
}

/// Returns the refusal that a body with status 200 may carry.
fn error_in(error_message: Option<&str>) -> Option<Error> {
    let text = error_message.filter(|text| !text.trim().is_empty())?;
    let answer = Answer {
        status: 200,
        request: "the page".to_owned(),
        retry_after: None,
        media_type: "application/json".to_owned(),
        body: bytes::Bytes::new(),
        received_at: DateTime::UNIX_EPOCH,
    };
    Some(refusal(&answer, Some(&one_line(text))))
}

/// Reads a number that may come as text.
fn number(raw: Option<&RawValue>) -> Option<u64> {
    raw?.get().trim_matches('"').trim().parse().ok()
}

fn lenient_number<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Option<u64>, D::Error> {
    let raw = Option::<Box<RawValue>>::deserialize(deserializer)?;
    Ok(number(raw.as_deref()))
}

fn id_number<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<u64, D::Error> {
    let raw = Box::<RawValue>::deserialize(deserializer)?;
    number(Some(&raw)).ok_or_else(|| de::Error::custom("an id is not a number"))
}

/// A row of any JSON kind; only an object has an id.
struct Row(RowFacts);

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(RowVisitor).map(Row)
    }
}

struct RowVisitor;

impl<'de> Visitor<'de> for RowVisitor {
    type Value = RowFacts;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a lead")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<RowFacts, A::Error> {
        let mut facts = RowFacts::default();
        while let Some(key) = map.next_key::<Key>()? {
            match key {
                Key::LeadId => facts.id = native_id(map.next_value::<&RawValue>()?.get()),
                Key::DateCreated => facts.created_at = time(map.next_value::<&RawValue>()?.get()),
                Key::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(facts)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<RowFacts, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(RowFacts::default())
    }

    fn visit_unit<E>(self) -> std::result::Result<RowFacts, E> {
        Ok(RowFacts::default())
    }

    fn visit_bool<E>(self, _: bool) -> std::result::Result<RowFacts, E> {
        Ok(RowFacts::default())
    }

    fn visit_i64<E>(self, _: i64) -> std::result::Result<RowFacts, E> {
        Ok(RowFacts::default())
    }

    fn visit_u64<E>(self, _: u64) -> std::result::Result<RowFacts, E> {
        Ok(RowFacts::default())
    }

    fn visit_f64<E>(self, _: f64) -> std::result::Result<RowFacts, E> {
        Ok(RowFacts::default())
    }

    fn visit_str<E>(self, _: &str) -> std::result::Result<RowFacts, E> {
        Ok(RowFacts::default())
    }
}

/// The keys of a row that paging needs.
#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Key {
    LeadId,
    DateCreated,
    #[serde(other)]
    Other,
}

/// Reads an id, a number or a text; the same text as the mapping uses.
fn native_id(raw: &str) -> Option<u64> {
    let text = match raw.strip_prefix('"') {
        Some(_) => Cow::Owned(serde_json::from_str::<String>(raw).ok()?),
        None => Cow::Borrowed(raw),
    };
    let is_scalar = !matches!(raw.as_bytes().first()?, b'{' | b'[' | b'n' | b't' | b'f');
    let text = text.trim();
    (is_scalar && !text.is_empty()).then(|| id_hash(text))
}

/// Reads a creation time in the three forms seen: `Z`, an offset, and no zone (then UTC).
fn time(raw: &str) -> Option<DateTime<Utc>> {
    let text = raw.trim_matches('"');
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.to_utc());
    }
    let forms = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"];
    let parsed = forms.iter().find_map(|form| NaiveDateTime::parse_from_str(text, form).ok());
    parsed.map(|time| time.and_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &'static str) -> Answer {
        Answer {
            status,
            request: "/api/v1/leads".into(),
            retry_after: None,
            media_type: "application/json".into(),
            body: bytes::Bytes::from_static(body.as_bytes()),
            received_at: DateTime::UNIX_EPOCH,
        }
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
