//! Maps pages as received to leads: pure, so that the same archive gives the same leads anywhere.
//!
//! A [`Mapping`] knows one stream of one provider and nothing of HTTP or files. What a provider
//! sends is never trusted to have the documented shape: a value that does not fit costs its column,
//! a record without an id is a [`Reject`], and only a page that is no envelope is an error. Nothing
//! a record says is lost: what no column takes goes to `extra`.

mod envelope;
mod mapper;
mod mappings;
mod person;
mod phone;
mod reader;
mod record;
#[cfg(test)]
mod reference;
mod terms;
#[cfg(test)]
mod testing;
mod value;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use chrono::DateTime;
use chrono::Utc;
use serde::Serialize;

pub use self::person::IdentityKey;
use crate::ids::ProviderId;
use crate::schema::lead::LEAD_SCHEMA_VERSION;

/// Raised whenever the same page would give other rows: a changed mapping, another version of the
/// telephone, country or e-mail library. The next run then maps the archive again.
pub const MAPPING_VERSION: u32 = 3;

/// A page that cannot be mapped at all. No variant shows anything of its body.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The page is no JSON, or not of the form the provider documents.
    #[error("failed to decode a page: {problem} at line {line}, column {column}")]
    Decode {
        /// What is wrong.
        problem: &'static str,
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
    },
    /// The page is an object, but neither a list of records nor a record.
    #[error("a page has neither records nor the form of one")]
    NoRows,
    /// The rows could not be made a batch, which is a bug.
    #[error("failed to build a batch of leads")]
    Batch(#[from] ArrowError),
}

impl Error {
    /// Returns the error for a page that could not be read, without the text `error` may quote.
    fn undecodable(error: &serde_json::Error) -> Self {
        let problem = match error.classify() {
            serde_json::error::Category::Eof => "it ends too early",
            serde_json::error::Category::Data => "it is not of the documented form",
            serde_json::error::Category::Syntax | serde_json::error::Category::Io => {
                "it is not valid JSON"
            }
        };
        Self::Decode { problem, line: error.line(), column: error.column() }
    }

    /// Returns the error for a page that is no text from byte `at` on.
    fn no_text(body: &[u8], at: usize) -> Self {
        let before = body.get(..at).unwrap_or_default();
        let line_at = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        Self::Decode { problem: "it is not valid JSON", line, column: at - line_at + 1 }
    }
}

/// Returns the text of a page.
fn text_of(body: &[u8]) -> Result<&str, Error> {
    std::str::from_utf8(body).map_err(|error| Error::no_text(body, error.valid_up_to()))
}

/// Where the records of a page stand in its body, in its order; 16 bytes for each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Records(Vec<Range<usize>>);

impl Records {
    /// Returns the records that stand at `places` of a body.
    pub fn at(places: Vec<Range<usize>>) -> Self {
        Self(places)
    }

    /// Returns the places of `rows`, which are pieces of `body`.
    fn of(body: &str, rows: &[&str]) -> Self {
        let start = |row: &str| row.as_ptr().addr() - body.as_ptr().addr();
        Self(rows.iter().map(|row| start(row)..start(row) + row.len()).collect())
    }
}

/// A page to be mapped: its body, and what its archive header and walk say of it.
#[derive(Clone, Copy)]
pub struct Page<'a> {
    /// Name of the source in the job file.
    pub source: &'a str,
    /// The stream, e.g. `leads`.
    pub stream: &'a str,
    /// The label of the scope it was read in, which goes to `_scope`.
    pub scope_label: &'a str,
    /// The part of the account it was asked of: `profile:123`, `bot:631a…`, or `all`.
    pub partition: &'a str,
    /// Which listing of that part it is, where there are several: `lead` or `non-lead`.
    pub list: &'a str,
    /// The run that received it.
    pub run: &'a str,
    /// When it was received.
    pub received_at: DateTime<Utc>,
    /// Where it lies: `<segment path>#<page>`.
    pub location: &'a str,
    /// The body as received.
    pub body: &'a [u8],
    /// What [`Mapping::records`] has found in the body, where it was asked.
    pub records: Option<&'a Records>,
}

impl fmt::Debug for Page<'_> {
    /// Writes all but the body, which never reaches a log.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Page")
            .field("source", &self.source)
            .field("stream", &self.stream)
            .field("scope_label", &self.scope_label)
            .field("location", &self.location)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// What the job says of a source's records; `config` has checked it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The account, where the job names it and the records do not.
    pub account_id: Option<String>,
    /// ISO 4217 code of the amounts.
    pub currency: Option<String>,
    /// ISO 3166-1 alpha-2 code of the country whose telephone numbers come without a country code.
    pub default_region: Option<String>,
    /// What differs for a part of the account, by partition: `profile:123`.
    pub profiles: BTreeMap<String, ProfileSettings>,
    /// The secret for `email_key` and `phone_key`.
    pub identity_key: IdentityKey,
}

/// Settings of one part of an account, over those of its source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ProfileSettings {
    /// ISO 4217 code of the amounts.
    pub currency: Option<String>,
    /// ISO 3166-1 alpha-2 code of the country whose telephone numbers come without a country code.
    pub default_region: Option<String>,
}

impl Settings {
    /// Returns 32 hex digits that differ whenever the same page could give other rows: they cover
    /// the schema's version, the mapping's, and these settings, of the key its fingerprint.
    pub fn fingerprint(&self, provider: ProviderId) -> String {
        let covered = serde_json::json!({
            "schema": LEAD_SCHEMA_VERSION,
            "provider": provider.as_str(),
            "mapping": MAPPING_VERSION,
            "account_id": self.account_id,
            "currency": self.currency,
            "default_region": self.default_region,
            "profiles": self.profiles,
            "identity_key": self.identity_key.fingerprint(),
        });
        blake3::hash(covered.to_string().as_bytes()).to_hex()[..32].to_owned()
    }

    fn profile(&self, partition: &str) -> Option<&ProfileSettings> {
        self.profiles.get(partition)
    }
}

/// Maps the pages of one stream of one provider.
pub trait Mapping: fmt::Debug + Send + Sync {
    /// Finds the records of a page. `is_json` says that the body is known to be one JSON value; where it
    /// was not, it is known where this is well.
    ///
    /// # Errors
    ///
    /// Fails just where [`Mapping::map`] does.
    fn records(&self, body: &[u8], is_json: bool) -> Result<Records, Error>;

    /// Maps a page: every record becomes a lead or a reject.
    ///
    /// # Errors
    ///
    /// Fails where the page as a whole cannot be read, never because of a record.
    fn map(&self, page: &Page<'_>, settings: &Settings) -> Result<Mapped, Error>;
}

/// Returns the mapping of a stream, where there is one.
pub fn mapping(provider: ProviderId, stream: &str) -> Option<Box<dyn Mapping>> {
    match (provider, stream) {
        (ProviderId::WhatConverts, "leads") => Some(Box::new(mappings::whatconverts::leads())),
        (ProviderId::Whautomate, "contacts") => Some(Box::new(mappings::whautomate::contacts())),
        (ProviderId::Whautomate, "clients") => Some(Box::new(mappings::whautomate::clients())),
        (ProviderId::Convertalk, "chats") => Some(Box::new(mappings::convertalk::chats())),
        (ProviderId::Convertalk, "users") => Some(Box::new(mappings::convertalk::users())),
        _ => None,
    }
}

/// Values that did not fit, by column.
pub type Warnings = BTreeMap<&'static str, u64>;

/// What a page gave.
#[derive(Debug, Clone)]
pub struct Mapped {
    /// The leads, in the order of their ids as far as those are found at once. Both times of receipt are the
    /// page's, `_seq` is 0.
    pub leads: RecordBatch,
    /// For each lead the place of its record in the page, from 0; rejects leave holes.
    pub places: Vec<u32>,
    /// Records that could not be mapped.
    pub rejects: Vec<Reject>,
    /// Values that did not fit their column, by column.
    pub warnings: Warnings,
    /// Names of fields the mapping does not know; their values are in `extra`.
    pub unknown_fields: BTreeSet<String>,
}

/// A record that could not be mapped.
#[derive(Clone, PartialEq, Eq)]
pub struct Reject {
    /// Its place in the page, from 0.
    pub index: u32,
    /// Why; without any value of the record.
    pub reason: String,
    /// The record as received, whole.
    pub record: String,
}

impl fmt::Debug for Reject {
    /// Writes all but the record, which never reaches a log.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Reject")
            .field("index", &self.index)
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            account_id: None,
            currency: Some("USD".to_owned()),
            default_region: None,
            profiles: BTreeMap::new(),
            identity_key: IdentityKey::new(b"secret"),
        }
    }

    #[test]
    fn every_setting_is_in_the_fingerprint() {
        let print = |settings: &Settings| settings.fingerprint(ProviderId::WhatConverts);
        let profile = ("profile:1".to_owned(), ProfileSettings::default());
        let others = [
            Settings { account_id: Some("1".to_owned()), ..settings() },
            Settings { currency: None, ..settings() },
            Settings { default_region: Some("USD".to_owned()), ..settings() },
            Settings { profiles: [profile].into(), ..settings() },
            Settings { identity_key: IdentityKey::new(b"another"), ..settings() },
        ];

        assert_eq!(print(&settings()), print(&settings()));
        assert!(others.iter().all(|other| print(other) != print(&settings())));
        assert_ne!(print(&settings()), settings().fingerprint(ProviderId::Convertalk));
    }

    #[test]
    fn only_known_streams_have_a_mapping() {
        assert!(mapping(ProviderId::WhatConverts, "leads").is_some());
        assert!(mapping(ProviderId::Whautomate, "contacts").is_some());
        assert!(mapping(ProviderId::Whautomate, "clients").is_some());
        assert!(mapping(ProviderId::Convertalk, "chats").is_some());
        assert!(mapping(ProviderId::Convertalk, "users").is_some());
        assert!(mapping(ProviderId::WhatConverts, "users").is_none());
        assert!(mapping(ProviderId::Whautomate, "appointments").is_none());
    }
}
