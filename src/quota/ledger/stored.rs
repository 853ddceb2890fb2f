//! What is stored of a ledger: its file's name, its form, and the versions of that.

use std::collections::BTreeMap;

use chrono::DateTime;
use chrono::Utc;
use serde::Deserialize;
use serde::Serialize;

use super::Ledger;
use super::budget::BlockedBy;
use crate::calendar;
use crate::quota::Error;
use crate::quota::Result;
use crate::quota::pace::Pace;
use crate::seal;

/// The on-disk form of a ledger. Each incompatible change adds a variant and a test that reads a
/// file written by the variant before it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "version")]
pub(super) enum Stored {
    #[serde(rename = "1")]
    V1 {
        /// For the human reader: the file's name has it escaped.
        group: String,
        #[serde(flatten)]
        count: Count,
    },
}

#[derive(Debug, Deserialize)]
struct Tag {
    version: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Count {
    /// Ledger time.
    pub(super) latest: DateTime<Utc>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) blocked: Option<Blocked>,
    /// Requests by the minute they count in, which is named by its start.
    pub(super) minutes: BTreeMap<DateTime<Utc>, u32>,
    /// Those of them that we were told of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) elsewhere: Option<Elsewhere>,
    /// What is taken of the rate, where processes share it. An older version drops it, and with it no
    /// more than the rate of a moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pace: Option<Pace>,
    /// By how much the clock was ahead of the provider's, where that is far.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) clock_ahead_seconds: u64,
    /// The clock of whoever asks, which ledger time may be ahead of.
    #[serde(skip)]
    pub(super) now: DateTime<Utc>,
    /// Ledger time before it was moved to the clock of whoever asks.
    #[serde(skip)]
    pub(super) before: DateTime<Utc>,
    /// Whether nobody wrote it for a while.
    #[serde(skip)]
    pub(super) slept: bool,
}

/// The last time the provider said that the day is used up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Blocked {
    pub(super) until: DateTime<Utc>,
    /// Permits leased since the block ended.
    pub(super) leased_since: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) by: Option<BlockedBy>,
}

/// Requests of others that we were told of. An older version drops this, and they count all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Elsewhere {
    pub(super) counted_in: DateTime<Utc>,
    pub(super) requests: u32,
}

impl Ledger {
    pub(super) fn encode(&self, count: Count) -> Result<Vec<u8>> {
        let stored = Stored::V1 { group: self.group.clone(), count };
        Ok(seal::seal(&serde_json::to_vec(&stored).map_err(Error::Encode)?))
    }

    pub(super) fn decode(&self, bytes: &[u8]) -> Result<Count> {
        let damaged = |source| Error::Damaged { path: self.path(), source };
        if seal::is_broken(bytes) {
            return Err(damaged(serde::de::Error::custom("its seal is broken")));
        }
        let Tag { version } = serde_json::from_slice(bytes).map_err(damaged)?;
        if version != "1" {
            return Err(Error::NewerVersion { path: self.path(), version });
        }
        let Stored::V1 { count, .. } = calendar::read(bytes).map_err(damaged)?;
        Ok(count)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Returns a file name that no two groups share, whatever the file system makes of capitals.
pub(super) fn file_name(group: &str) -> String {
    let is_plain =
        |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(byte);
    let escape = |byte: u8| match is_plain(&byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02x}"),
    };
    let name: String = group.bytes().map(escape).collect();
    match name.len() {
        0 => "%".to_owned(),
        1..=128 => name,
        // `%%` stands in no escaped name.
        _ => format!("%%{}", blake3::hash(group.as_bytes()).to_hex()),
    }
}
