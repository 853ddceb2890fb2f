//! Asks providers for pages, under permits, and checks every answer against what was asked.
//!
//! A [`Source`] speaks the wire form of one provider. Around it, written once for all: [`Caller`]
//! (permits, retries, what a refusal means), [`Reader`] (a walk: paging, several pages in flight,
//! shifted rows, pages that never come right) and the checks of each page. Nothing here knows what
//! a lead is beyond its id and its creation time.

mod book;
mod caller;
mod checks;
mod descent;
mod engine;
mod error;
mod http;
#[cfg(test)]
mod memory;
mod moved;
pub mod providers;
mod scan;
mod shown;
mod sizes;

use std::fmt;
use std::ops::Range;

use async_trait::async_trait;
use chrono::DateTime;
use chrono::Utc;

pub use caller::Caller;
pub use caller::Counts;
pub use caller::Halt;
pub use caller::RetryPolicy;
pub use checks::MOST_PAGES;
pub use engine::Closed;
pub use engine::Held;
pub use engine::Options;
pub use engine::Outcome;
pub use engine::PageSink;
pub use engine::Reader;
pub use engine::Slot;
pub use error::Error;
pub use error::NoPermit;
pub use http::Answer;
pub use http::Call;
pub use http::Heard;
pub use http::HttpClient;
pub use http::HttpSettings;
pub use http::Phase;
pub use shown::IdRoom;
pub use sizes::PageSizes;

use crate::checkpoint::Partition;
use crate::ids::ProviderId;
use crate::record::Walk;

/// The result of a call on a provider.
pub type Result<T> = std::result::Result<T, Error>;

/// A provider account from which records are read.
///
/// An implementation speaks the wire format of its provider and nothing more. Paging, retries and
/// quota wrap around it, so that they are written and tested once. Every `fetch_…` is one request.
#[async_trait]
pub trait Source: fmt::Debug + Send + Sync + 'static {
    /// Returns which provider this is.
    fn provider(&self) -> ProviderId;

    /// Asks once for a page of a walk. `page` counts from 1 in pages of `size` rows.
    async fn fetch_page(&self, walk: &Walk, page: u32, size: u32) -> Result<Answer>;

    /// Asks once for one record by its id, anywhere in the account or, `in_scope`, as the walk's
    /// partition shows it.
    async fn fetch_record(&self, walk: &Walk, native_id: &str, in_scope: bool) -> Result<Lookup>;

    /// Asks for as little as proves the credentials, each request through `caller`, and returns
    /// which kind of key it is. Fails where the job says another kind.
    async fn check(&self, caller: &Caller) -> Result<&'static str>;

    /// Lists the partitions of the account, page by page, each request through `caller`; `None`
    /// where this account is read as a whole.
    async fn list_partitions(&self, caller: &Caller) -> Result<Option<Vec<Partition>>>;

    /// Reads from a body what paging needs, in one light pass.
    fn read_page(&self, body: &[u8]) -> Result<PageFacts>;

    /// Returns what the provider's listings and lookups can do.
    fn abilities(&self) -> Abilities;
}

/// What a provider's listings and lookups can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abilities {
    /// Whether the rows of a page are ours to choose; else the server alone decides, and the `size`
    /// of [`Source::fetch_page`] is no more than a name for the page.
    pub sized_pages: bool,
    /// Whether a page shorter than a first one that was full is the end of a listing without a
    /// total; else only an empty page is.
    pub short_page_ends: bool,
    /// Whether single records can be asked for by id.
    pub finds_records: bool,
}

/// What a provider says of a record that is asked for by its id.
#[derive(Debug, Clone)]
pub enum Lookup {
    /// It shows it.
    Found(Found),
    /// It shows none, in an answer that does not say why: one that has gone wrong may look the same.
    Nothing,
    /// It says that there is none.
    Unknown,
}

/// A record that was asked for by its id.
#[derive(Debug, Clone)]
pub struct Found {
    /// The answer, a page of one row.
    pub answer: Answer,
    /// Whether it shows all that a page of the listing would: only then may it take the place of
    /// what is held.
    pub is_whole: bool,
}

/// What a page tells of itself and of its rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageFacts {
    /// Its rows, in their order.
    pub rows: Vec<RowFacts>,
    /// Rows in the whole listing, as stated.
    pub total: Option<u64>,
    /// Pages in the whole listing, as stated.
    pub total_pages: Option<u32>,
    /// The page's number, as echoed.
    pub page: Option<u32>,
    /// The page's size, as echoed: as asked, as returned, or clamped.
    pub size: Option<u32>,
    /// Whether all of the body was read as one JSON value.
    pub is_json: bool,
    /// Where the rows stand in the body, where that was told while they were read; else nothing. Whoever
    /// trusts it need not look whether the body is UTF-8: all that is received is made so.
    pub places: Option<Vec<Range<usize>>>,
}

/// What paging needs to know of a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RowFacts {
    /// [`crate::record::id_hash`] of its id; `None` where it has no usable one.
    pub id: Option<u64>,
    /// When it was created, where that can be read.
    pub created_at: Option<DateTime<Utc>>,
    /// When it was last changed, where that can be read and the listing has no total: a total says
    /// more about shifted rows than the order does.
    pub updated_at: Option<DateTime<Utc>>,
}
