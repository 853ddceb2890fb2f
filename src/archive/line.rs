//! The stored form of the archive: one JSON line a record.
//!
//! `record` is always the first field and `body` always the last, so that a reader can tell the
//! kind of a line without parsing a page of some megabytes.

use std::borrow::Cow;

use chrono::DateTime;
use chrono::Utc;
use memchr::memchr2;
use serde::Deserialize;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::ids::RunId;
use crate::record::PageHeader;
use crate::record::RawPage;
use crate::record::Walk;

/// The version of the form written here.
pub(super) const VERSION: &str = "1";

/// How a walk ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closing {
    /// The total the provider stated first.
    pub first_total: Option<u64>,
    /// The total the provider stated last.
    pub last_total: Option<u64>,
    /// Distinct records on the pages as last read.
    pub distinct: u64,
    /// Rows without a usable id.
    pub rejects: u64,
    /// Rows that never came right.
    pub holes: u64,
    /// Whether the pages are known to be different pages of one listing.
    pub proven: bool,
    /// Whether the end of the listing was reached. Older versions do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<bool>,
    /// Whether no row is known to have been hidden by others that moved. Older versions do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<bool>,
}

/// Rows of the listing that never came right, after retries and halving.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hole {
    /// The place of the first of them in the listing, from 0.
    pub offset: u64,
    /// How many.
    pub rows: u32,
    /// What the last attempt ended with.
    pub why: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "record", rename = "walk_opened")]
pub(super) struct OpenedLine {
    pub(super) version: String,
    pub(super) run: RunId,
    /// Pages held of the walk before this segment. Older versions do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) held_before: Option<u64>,
    #[serde(flatten)]
    pub(super) walk: Walk,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "record", rename = "walk_closed")]
pub(super) struct ClosedLine {
    pub(super) closed_at: DateTime<Utc>,
    #[serde(flatten)]
    pub(super) closing: Closing,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "record", rename = "hole")]
pub(super) struct HoleLine {
    #[serde(flatten)]
    pub(super) hole: Hole,
}

/// A page; not `#[serde(tag)]`, since a raw body cannot be read through one.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PageLine<'a> {
    #[serde(borrow)]
    record: Cow<'a, str>,
    pub(super) run: RunId,
    pub(super) header: PageHeader,
    /// The body where it is JSON on one line.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    body: Option<&'a RawValue>,
    /// The body where it is not.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    body_text: Option<Cow<'a, str>>,
}

impl<'a> PageLine<'a> {
    /// Returns the line for a page that `run` received, in pieces one behind the other: a body that is
    /// JSON on one line is a piece as it is.
    pub(super) fn pieces(run: RunId, page: &'a RawPage) -> serde_json::Result<[Cow<'a, [u8]>; 3]> {
        let (record, header) = (Cow::Borrowed("page"), page.header.clone());
        let mut line = Self { record, run, header, body: None, body_text: None };
        if is_json_on_one_line(page) {
            let mut head = serde_json::to_vec(&line)?;
            head.pop();
            head.extend_from_slice(br#","body":"#);
            return Ok([head.into(), page.body.trim_ascii().into(), b"}\n".into()]);
        }
        line.body_text = Some(String::from_utf8_lossy(&page.body));
        Ok([serde_json::to_vec(&line)?.into(), Cow::default(), b"\n".into()])
    }

    /// Returns the body as it was received.
    pub(super) fn body(&self) -> &[u8] {
        let text = self.body_text.as_deref();
        text.or(self.body.map(RawValue::get)).unwrap_or_default().as_bytes()
    }
}

/// Tells whether a body is JSON without a line break outside its texts.
fn is_json_on_one_line(page: &RawPage) -> bool {
    memchr2(b'\n', b'\r', &page.body).is_none()
        && (page.is_json || serde_json::from_slice::<&RawValue>(&page.body).is_ok())
}

/// Tells which kind of record a line is, from its first bytes.
pub(super) fn kind_of(line: &[u8]) -> Option<&str> {
    let rest = line.strip_prefix(br#"{"record":""#)?;
    let end = rest.iter().take(32).position(|byte| *byte == b'"')?;
    std::str::from_utf8(&rest[..end]).ok()
}
