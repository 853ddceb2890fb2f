//! What the loader is told: pages on their way to the leads, and what is known of walks and sources.

use crate::archive::ArchivedPage;
use crate::checkpoint::Partitions;
use crate::checkpoint::SmallerPages;
use crate::extract::Outcome;
use crate::extract::Slot;
use crate::ids::SourceName;
use crate::ids::WalkId;
use crate::record::PageHeader;
use crate::record::Recency;
use crate::record::Scope;
use crate::record::Walk;
use crate::run::Result;
use crate::run::gone::Absences;
use crate::run::gone::Decision;
use crate::run::summary::SourceSummary;
use crate::transform;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::oneshot;

/// A page on its way to the leads.
#[derive(Debug)]
pub(in crate::run) struct HeldPage {
    pub(in crate::run) walk: Arc<Walk>,
    pub(in crate::run) header: PageHeader,
    pub(in crate::run) run: String,
    /// `<segment path>#<page>`.
    pub(in crate::run) location: String,
    /// Its place among the walk's held pages, in the order of the archive, from 0.
    pub(in crate::run) index: u64,
    /// Empty once it is mapped.
    pub(in crate::run) body: bytes::Bytes,
    /// Where its records stand in the body, where they were looked for.
    pub(in crate::run) records: Option<transform::Records>,
    /// Its leads, on the way from the thread that maps to the loader.
    pub(in crate::run) mapped: Option<Result<transform::Mapped>>,
    /// Rows of the listing, where the provider stated them with it.
    pub(in crate::run) stated_rows: Option<u64>,
    /// Whether it came from the archive rather than from the provider.
    pub(in crate::run) from_archive: bool,
    pub(in crate::run) slot: Option<Slot>,
}

impl HeldPage {
    /// Returns a page of `walk` as the archive has it.
    pub(in crate::run) fn from_archive(
        walk: Arc<Walk>,
        page: ArchivedPage,
        index: u64,
        slot: Option<Slot>,
    ) -> Self {
        Self {
            walk,
            header: page.header,
            run: page.run.to_string(),
            location: page.location,
            index,
            body: page.body,
            records: None,
            mapped: None,
            stated_rows: None,
            from_archive: true,
            slot,
        }
    }

    /// Maps its records.
    pub(in crate::run) fn map(
        &self,
        mapping: &dyn transform::Mapping,
        settings: &transform::Settings,
    ) -> Result<transform::Mapped> {
        let scope = &self.walk.scope;
        let page = transform::Page {
            source: scope.source.as_str(),
            stream: &scope.stream,
            scope_label: &scope.label(),
            partition: &scope.partition,
            list: &scope.list,
            run: &self.run,
            received_at: self.header.received_at,
            location: &self.location,
            body: &self.body,
            records: self.records.as_ref(),
        };
        Ok(mapping.map(&page, settings)?)
    }

    /// Returns how recent its rows are, of which `places` are the places in the page.
    pub(in crate::run) fn recency(&self, places: &[u32]) -> Vec<Recency> {
        let received_us = self.header.received_at.timestamp_micros();
        let walk_us = self.walk.opened_at.timestamp_micros();
        let offset = i64::try_from(self.header.offset()).unwrap_or(i64::MAX);
        let place = |place: &u32| offset.saturating_add(i64::from(*place));
        places.iter().map(|p| Recency { received_us, walk_us, place: place(p) }).collect()
    }
}

/// What the loader is told.
#[derive(Debug)]
pub(in crate::run) enum Message {
    Listed(SourceName, Partitions),
    /// The scopes the source has now.
    Planned(SourceName, BTreeSet<Scope>),
    /// A walk is to be opened: it gets its id here, so that every commit from now on lists it.
    NewWalk {
        draft: Box<Walk>,
        answer: oneshot::Sender<Arc<Walk>>,
    },
    /// A walk that an earlier run began goes on.
    Resumed {
        walk: Arc<Walk>,
        loaded: u64,
    },
    /// From `from` to before `to`, the places of a walk's pages hold none that could be loaded.
    Passed {
        walk: Arc<Walk>,
        from: u64,
        to: u64,
    },
    Dropped(SourceName, WalkId),
    Page(Box<HeldPage>),
    Closed {
        walk: Arc<Walk>,
        outcome: Box<Outcome>,
        resumed: bool,
    },
    WindowDays(Scope, u32),
    /// Which size of pages of a stream fits, where the job's does not.
    SmallerPages {
        source: SourceName,
        stream: String,
        known: Option<SmallerPages>,
    },
    /// A range is asked for.
    Backfill {
        key: String,
        backfill: crate::checkpoint::Backfill,
    },
    /// All sources of a range have ended; where all are complete, so is it.
    BackfillDone {
        key: String,
    },
    /// Which rows did the closed walks not show?
    FindAbsent(SourceName, oneshot::Sender<Absences>),
    Decided(SourceName, Box<Decision>),
    /// A source is done; what its task knows of it.
    Done(SourceName, Box<SourceSummary>),
}
