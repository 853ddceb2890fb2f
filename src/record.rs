//! What is read and in which order: scopes, walks, and pages as received.
//!
//! A [`Scope`] is what is read as a whole; a [`Walk`] is one reading of it, or of a window of it; a
//! [`RawPage`] is one answer. These words are shared by plan, extract, archive and run; none of
//! them knows a provider's wire form or a lead's columns.

use std::fmt;
use std::num::NonZeroU32;
use std::ops::Range;

use bytes::Bytes;
use chrono::DateTime;
use chrono::Utc;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;

use crate::calendar;
use crate::ids::SourceName;
use crate::ids::WalkId;
use crate::window::Window;

/// What is read as a whole: a stream of a source, a partition of it, and the query it is asked with.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub struct Scope {
    /// The source in the job file.
    pub source: SourceName,
    /// The kind of record, e.g. `leads`.
    pub stream: String,
    /// The part of the account: `profile:123`, `bot:631a…`, or `all`.
    pub partition: String,
    /// Filters sent beside window and page, as `name=value` joined by `&`; empty for the provider's
    /// defaults. Another query is another scope.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub query: String,
    /// Which of the listings that together show the partition, where there is more than one:
    /// `non-lead` and `lead` of a Convertalk bot. Each is walked by itself; what is gone is judged
    /// over all of them.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub list: String,
}

impl Scope {
    /// Returns what stands in the column `_scope`: the partition, and the query where there is one.
    ///
    /// With the query in it, rows that only an older query showed are told from rows that are gone.
    pub fn label(&self) -> String {
        match self.query.as_str() {
            "" => self.partition.clone(),
            query => format!("{}?{query}", self.partition),
        }
    }

    /// Returns the scope's name within its source, e.g. `leads/profile:123?spam=true` or
    /// `chats/bot:631a/lead`.
    pub fn key(&self) -> ScopeKey {
        let mut key = self.judged_as();
        if !self.list.is_empty() {
            key.0.push('/');
            key.0.push_str(&self.list);
        }
        key
    }

    /// Returns the name of what is judged as a whole when rows are absent: the scope's own, but the
    /// same for all listings of a partition.
    pub fn judged_as(&self) -> ScopeKey {
        ScopeKey(format!("{}/{}", self.stream, self.label()))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.source, self.key())
    }
}

/// A scope's name within its source.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct ScopeKey(pub String);

impl fmt::Display for ScopeKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Why a walk is in the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// An earlier run began it; its held pages still fit.
    Resume,
    /// Time since the last run, and the days that are read every run.
    NewTime,
    /// Time that was never read.
    History,
    /// Asked for by `backfill`.
    Backfill,
    /// What is read once a week, beside what every run reads.
    #[serde(alias = "refresh")]
    Weekly,
    /// What is read once a month.
    Monthly,
    /// What no tier reads, and spare permits go to: the stalest.
    Spare,
    /// Single leads asked for by id, since a whole reading did not show them.
    Lookup,
}

impl Reason {
    /// Returns the reason in words, for people.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Resume => "begun by an earlier run",
            Self::NewTime => "new time and late changes",
            Self::History => "history not read yet",
            Self::Backfill => "asked for by backfill",
            Self::Weekly => "weekly refresh, due",
            Self::Monthly => "monthly refresh, due",
            Self::Spare => "spare permits, the stalest",
            Self::Lookup => "leads that a whole reading did not show",
        }
    }
}

/// One reading of a scope: of a window of it, or of all of it where there are no dates (a scan).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Walk {
    /// Its id, also the name of its segments in the archive.
    pub id: WalkId,
    /// What it reads.
    pub scope: Scope,
    /// The span of creation times it answers for; `None` for a scan.
    pub window: Option<Window>,
    /// Rows asked for in one request.
    #[serde(deserialize_with = "at_least_one")]
    pub page_size: u32,
    /// When it was opened.
    pub opened_at: DateTime<Utc>,
    /// Why it was planned.
    pub reason: Reason,
    /// Where it ends before the end of the listing; `None` for all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down_to: Option<DownTo>,
}

/// How far a listing whose order is known is read from its top.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DownTo {
    /// The order of the listing.
    pub order: Order,
    /// Rows older than this, by that order, need not be read.
    pub at: DateTime<Utc>,
}

/// The order of a listing, as whole readings of it have shown: the newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// By creation.
    Created,
    /// By the last change.
    Updated,
}

/// Where a page stands in its walk, and how it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PageHeader {
    /// The page's number as asked for, from 1.
    #[serde(deserialize_with = "at_least_one")]
    pub page: u32,
    /// The rows asked for; smaller than the walk's where a page had to be halved.
    #[serde(deserialize_with = "at_least_one")]
    pub size: u32,
    /// How often this place was read before in the walk: 0, and more after rows have shifted.
    pub round: u32,
    /// What was asked, without credentials: path and query; for a POST, `POST`, path and body.
    pub request: String,
    /// The HTTP status of the answer.
    pub status: u16,
    /// When the whole answer was there.
    #[serde(deserialize_with = "calendar::time")]
    pub received_at: DateTime<Utc>,
}

impl PageHeader {
    /// Returns the place of the page's first row in the listing, from 0.
    pub fn offset(&self) -> u64 {
        u64::from(self.page.saturating_sub(1)) * u64::from(self.size)
    }
}

/// Reads a number that the books of a walk count from 1 by, or divide by.
fn at_least_one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    NonZeroU32::deserialize(deserializer).map(NonZeroU32::get)
}

/// An answer of a provider, as received.
#[derive(Debug, Clone)]
pub struct RawPage {
    /// Where it stands.
    pub header: PageHeader,
    /// The body, decompressed, otherwise untouched.
    pub body: Bytes,
    /// Rows in the whole listing, where the provider stated them with it.
    pub stated_rows: Option<u64>,
    /// Whether the body is known to be one JSON value; where it is not, whoever must know looks again.
    pub is_json: bool,
    /// Where its records stand in the body, where that is known.
    pub places: Option<Vec<Range<usize>>>,
}

/// Which of two versions of a lead is the newer: the one received last.
///
/// Sorted as a tuple: receipt, then the walk's start, then place in the listing and in the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Recency {
    /// When the page was received, in microseconds since 1970.
    pub received_us: i64,
    /// When the walk was opened, in microseconds since 1970.
    pub walk_us: i64,
    /// The place of the row in the listing, from 0.
    pub place: i64,
}

/// The longest id that is one, in bytes: those of providers have some dozens.
const LONGEST_ID: usize = 512;

/// Tells whether a text can be a record's id. Not one in which something could not be read (U+FFFD):
/// two different ids may look the same then, and one of two leads would be lost.
pub fn is_usable_id(text: &str) -> bool {
    !text.is_empty() && text.len() <= LONGEST_ID && !text.contains(char::REPLACEMENT_CHARACTER)
}

/// Returns a number that stands for a record's id while a run counts and compares ids. It is never
/// stored; two of a million ids share one with a chance of one in thirty million.
pub fn id_hash(native_id: &str) -> u64 {
    use std::hash::Hasher;
    #[expect(deprecated, reason = "its keys are fixed, unlike those of a random state")]
    let mut hasher = std::hash::SipHasher::new();
    hasher.write(native_id.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_counts_from_one_and_has_rows() {
        let header = |page: u32, size: u32| {
            let json = serde_json::json!({"page": page, "size": size, "round": 0, "request": "/leads",
                "status": 200, "received_at": "2026-03-01T02:00:00Z"});
            serde_json::from_value::<PageHeader>(json)
        };
        assert_eq!(header(1, 100).unwrap().offset(), 0);
        assert!(header(0, 100).is_err() && header(1, 0).is_err());
    }
}
