//! Begins walks whose first page is refused with a smaller page, or a shorter window.
//!
//! Nobody documents what is said of a page that is too large, nor of a range that is too long. So the
//! words decide what is tried first where they speak of either, and the cheaper question else. What
//! fits is remembered for all walks of the stream; the requests that found it are counted as probes.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;

use super::Result;
use super::loader::Message;
use super::source::SourceTask;
use crate::checkpoint::SmallerPages;
use crate::checkpoint::SourceProgress;
use crate::config::SourceSettings;
use crate::extract;
use crate::extract::PageSizes;
use crate::record::ScopeKey;
use crate::record::Walk;
use crate::window::Window;

/// The sizes of the pages of a source, by stream.
pub(super) struct Sizes {
    /// The rows that the job asks for; `None` where the server alone decides.
    asked: Option<u32>,
    has_dates: bool,
    /// What was found to fit before, by stream.
    known: BTreeMap<String, SmallerPages>,
    /// The streams of which anything was read before: a size that was never asked for may be one that does
    /// not fit.
    read: BTreeSet<String>,
    now: DateTime<Utc>,
    streams: Mutex<BTreeMap<String, Arc<PageSizes>>>,
}

impl Sizes {
    /// Returns the sizes of a source of which `progress` is known.
    pub(super) fn new(
        source: &SourceSettings,
        progress: &SourceProgress,
        now: DateTime<Utc>,
    ) -> Self {
        let (asked, has_dates) = (source.page_size(), source.start().is_some());
        let known = progress.smaller_pages.clone();
        let read = progress.scopes.iter().filter(|(_, scope)| scope.coverage.end().is_some());
        let stream = |key: &ScopeKey| Some(key.0.split('/').next()?.to_owned());
        let read = read.filter_map(|(key, _)| stream(key)).collect();
        Self { asked, has_dates, known, read, now, streams: Mutex::default() }
    }

    /// Returns those of a stream, which is asked for pages of `otherwise` where the job says nothing.
    pub(super) fn of(&self, stream: &str, otherwise: u32) -> Arc<PageSizes> {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let sizes = streams.entry(stream.to_owned()).or_insert_with(|| {
            let known = self.known.get(stream).cloned();
            let sizes = PageSizes::new(self.asked.unwrap_or(otherwise), known, self.now);
            let may_not_fit = sizes.is_enlarged() || !self.read.contains(stream);
            let waits = self.has_dates && may_not_fit;
            Arc::new(if waits { sizes.unsettled() } else { sizes })
        });
        Arc::clone(sizes)
    }
}

impl SourceTask {
    /// Reads a window, in smaller pages or in pieces a day shorter where the provider refuses it.
    pub(super) async fn read_window(&self, draft: Walk) -> Result<()> {
        let draft = self.fitted(draft);
        let Some(refused) = self.begin(draft.clone()).await? else { return Ok(()) };
        let is_read = match refused.speaks_of_size() {
            true => {
                self.read_in_smaller_pages(&draft, true).await?
                    || self.read_a_day_shorter(&draft).await?
            }
            false => {
                self.read_a_day_shorter(&draft).await?
                    || (may_mean_size(&refused)
                        && self.read_in_smaller_pages(&draft, false).await?)
            }
        };
        if is_read { Ok(()) } else { Err(refused.into()) }
    }

    /// Reads a listing without dates, in smaller pages where the provider says that they are too large.
    /// In other words a refusal may be its end.
    pub(super) async fn read_scan(&self, draft: Walk) -> Result<()> {
        let draft = self.fitted(draft);
        let Some(refused) = self.begin(draft.clone()).await? else { return Ok(()) };
        let says_so = refused.speaks_of_size();
        if says_so && self.read_in_smaller_pages(&draft, true).await? {
            return Ok(());
        }
        Err(refused.into())
    }

    /// Returns the draft with pages of a size that is known to fit.
    fn fitted(&self, draft: Walk) -> Walk {
        let page_size = self.sizes.of(&draft.scope.stream, draft.page_size).size();
        Walk { page_size, ..draft }
    }

    /// Reads a window in pieces that are a day shorter; tells whether the provider takes them.
    async fn read_a_day_shorter(&self, draft: &Walk) -> Result<bool> {
        // The vendor documents 400 days, but not what it says beyond them, nor how it counts.
        let Some((window, shorter)) = draft.window.and_then(a_day_shorter) else {
            return Ok(false);
        };
        let piece = |window| Walk { window: Some(window), ..draft.clone() };
        let mut pieces = window.split_from_end(shorter).into_iter().map(piece);
        if let Some(newest) = pieces.next()
            && let Some(refused) = self.begin(newest.clone()).await?
        {
            let is_size = refused.speaks_of_size();
            if !is_size || !self.read_in_smaller_pages(&newest, true).await? {
                return Ok(false);
            }
        }
        let days = u32::try_from((shorter + TimeDelta::seconds(2)).num_days()).unwrap_or(1);
        self.tell(Message::WindowDays(draft.scope.clone(), days)).await?;
        for piece in pieces {
            if let Some(refused) = self.begin(self.fitted(piece)).await? {
                return Err(refused.into());
            }
        }
        Ok(true)
    }

    /// Reads what was refused in pages of half the rows, a quarter and so on; tells whether the provider
    /// takes one of these sizes. Where it has not said that it is the size, a page of one row tells.
    async fn read_in_smaller_pages(&self, draft: &Walk, says_so: bool) -> Result<bool> {
        let sizes = self.sizes.of(&draft.scope.stream, draft.page_size);
        if !self.client.source.abilities().sized_pages || draft.page_size < 2 {
            return Ok(false);
        }
        sizes.begin_search().await;
        if sizes.size() < draft.page_size {
            // Another walk has found one meanwhile.
            sizes.end_search();
            self.note_probe();
            return Ok(self.begin(self.fitted(draft.clone())).await?.is_none());
        }
        let is_read = self.search(draft, says_so, &sizes).await;
        sizes.end_search();
        is_read
    }

    async fn search(&self, draft: &Walk, says_so: bool, sizes: &PageSizes) -> Result<bool> {
        if !says_so && !self.is_one_row_taken(draft).await? {
            return Ok(false);
        }
        self.note_probe();
        if !says_so {
            // A window that was not tried a day shorter was refused but once, perhaps in passing.
            let was_refused_twice = draft.window.and_then(a_day_shorter).is_some();
            if !was_refused_twice && !self.is_refused_again(draft, sizes).await? {
                return Ok(true);
            }
            self.note_probe();
        }
        let mut rows = draft.page_size;
        while rows > 1 {
            let too_large = rows;
            rows /= 2;
            sizes.try_smaller(rows, too_large, self.shared.clock.now());
            if self.begin(Walk { page_size: rows, ..draft.clone() }).await?.is_none() {
                return Ok(true);
            }
            self.note_probe();
            // The words may be meant for something else.
            let is_eighth = rows == draft.page_size / 8;
            if says_so && is_eighth && !self.is_one_row_taken(draft).await? {
                return Ok(false);
            }
        }
        Ok(false)
    }

    /// Begins a walk again; tells whether its first page is refused again. Else it is read.
    async fn is_refused_again(&self, draft: &Walk, sizes: &PageSizes) -> Result<bool> {
        // Nobody else has to wait until all of it is read.
        sizes.end_search();
        let refused = self.begin(draft.clone()).await?;
        sizes.begin_search().await;
        Ok(refused.is_some())
    }

    /// Asks for a page of one row, which is not kept; tells whether the provider takes it.
    async fn is_one_row_taken(&self, draft: &Walk) -> Result<bool> {
        let source = &self.client.source;
        self.note_probe();
        let probe = || async {
            let answer = source.fetch_page(draft, 1, 1).await?;
            source.read_page(&answer.body)
        };
        match self.client.caller.attempt(probe).await {
            Ok(_) => Ok(true),
            Err(extract::Error::Refused { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn note_probe(&self) {
        self.client.caller.counts().probes.fetch_add(1, Ordering::Relaxed);
    }
}

/// Tells whether a refusal that does not say so may be meant for the size of the page: one with such a
/// status is meant for the address.
fn may_mean_size(refused: &extract::Error) -> bool {
    !matches!(refused, extract::Error::Refused { status: 403..=405, .. })
}

/// Returns the window, and a length that is a day under what it asks for with its overlaps; `None` where
/// it is short already.
fn a_day_shorter(window: Window) -> Option<(Window, TimeDelta)> {
    let shorter = window.length() - TimeDelta::days(1);
    (shorter > TimeDelta::days(300)).then_some((window, shorter))
}
