//! The names of things, each a type of its own, so that none is taken for another.
//!
//! Every id is plain text on disk. Those that come from a user or a provider are checked or escaped
//! before they become part of a path.

use std::fmt;
use std::str::FromStr;

use chrono::DateTime;
use chrono::Utc;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::de::Error as _;

/// A text that is not a valid name; `reason` says which rule it breaks.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{text}` is not a valid {what}: {reason}")]
pub struct InvalidId {
    /// What the text was meant to name.
    pub what: &'static str,
    /// The text as given.
    pub text: String,
    /// The rule it breaks.
    pub reason: &'static str,
}

/// A source's name as in the job file: lower-case letters, digits, `-` and `_`, first a letter, at
/// most 64 characters. It stands in every row and in paths.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct SourceName(String);

impl SourceName {
    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SourceName {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let fail = |reason| Err(InvalidId { what: "source name", text: text.to_owned(), reason });
        if !text.starts_with(|c: char| c.is_ascii_lowercase()) {
            return fail("it must begin with a lower-case letter");
        }
        if text.len() > 64 {
            return fail("it must have at most 64 characters");
        }
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
        if !text.chars().all(allowed) {
            return fail("only lower-case letters, digits, `-` and `_` are allowed");
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for SourceName {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<SourceName> for String {
    fn from(name: SourceName) -> Self {
        name.0
    }
}

impl fmt::Display for SourceName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The platforms leadpipe reads: a closed list.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
    clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum ProviderId {
    /// WhatConverts: calls, forms, chats.
    WhatConverts,
    /// Whautomate: contacts and clients.
    Whautomate,
    /// Convertalk, BotPenguin and its other white labels: chatbot leads.
    Convertalk,
}

impl ProviderId {
    /// Returns the provider's name as it stands in rows and job files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WhatConverts => "whatconverts",
            Self::Whautomate => "whautomate",
            Self::Convertalk => "convertalk",
        }
    }
}

impl fmt::Display for ProviderId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// The number of a commit: the parent's plus one, the first is 1.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// Returns the number after this one. The last there is has none: it is taken, and a commit under
    /// it fails.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Seq {
    /// Writes nine digits, so that names sort as numbers do.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:09}", self.0)
    }
}

/// One run of a command that writes: a version 7 UUID, so that runs sort by their start.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct RunId(#[serde(deserialize_with = "one_name")] String);

impl RunId {
    /// Returns a new id for a run that starts at `now`.
    pub fn new(now: DateTime<Utc>) -> Self {
        let context = uuid::NoContext;
        let seconds = u64::try_from(now.timestamp()).unwrap_or_default();
        let time = uuid::Timestamp::from_unix(context, seconds, now.timestamp_subsec_nanos());
        Self(uuid::Uuid::new_v7(time).simple().to_string())
    }

    /// Returns when the run of an id began, to the millisecond, where the id tells it.
    pub fn began_at(id: &str) -> Option<DateTime<Utc>> {
        let (seconds, nanos) = uuid::Uuid::parse_str(id).ok()?.get_timestamp()?.to_unix();
        DateTime::from_timestamp(i64::try_from(seconds).ok()?, nanos)
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// One reading of a scope: the number of the commit under which it was opened, and a random part.
///
/// The number tells, without any clock, which walks were opened since the last commit.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct WalkId(#[serde(deserialize_with = "one_name")] String);

impl WalkId {
    /// Returns a new id for a walk opened under commit `seq`.
    pub fn new(seq: Seq) -> Self {
        let random = uuid::Uuid::new_v4().simple().to_string();
        Self(format!("{seq}-{}", &random[20..]))
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the number of the commit under which the walk was opened, where the id tells it.
    pub fn opened_under(&self) -> Option<Seq> {
        self.0.split_once('-')?.0.parse().ok().map(Seq)
    }
}

impl From<&str> for WalkId {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for WalkId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The longest that a name made by us is, with room to spare.
const LONGEST: usize = 128;

/// Reads a name that was made by us and becomes part of a path: letters, digits, `-` and `_`.
pub fn one_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    let is_name = (1..=LONGEST).contains(&text.len()) && text.chars().all(allowed);
    is_name.then_some(text).ok_or_else(|| D::Error::custom("a name has no form that we give one"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_name_begins_with_a_lower_case_letter() {
        assert!("acme-2".parse::<SourceName>().is_ok());
        for text in ["", "2acme", "-acme", "Acme", "a/b", "a b", "ä"] {
            assert!(text.parse::<SourceName>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_that_is_read_cannot_lead_out_of_its_folder() {
        fn read<T: serde::de::DeserializeOwned>(text: &str) -> bool {
            serde_json::from_value::<T>(text.into()).is_ok()
        }
        let run = RunId::new(DateTime::UNIX_EPOCH);
        assert!(read::<RunId>(run.as_str()) && read::<WalkId>(WalkId::new(Seq(41)).as_str()));
        for text in ["", ".", "..", "a/b", "../../key", "/etc/passwd", "a\0", "a\n", "ä", "a.b"] {
            assert!(!read::<RunId>(text) && !read::<WalkId>(text), "{text:?}");
        }
        assert!(!read::<RunId>(&"a".repeat(129)));
    }

    #[test]
    fn a_walk_tells_the_commit_it_was_opened_under() {
        assert_eq!(WalkId::new(Seq(41)).opened_under(), Some(Seq(41)));
        assert_eq!(WalkId::from("odd").opened_under(), None);
    }
}
