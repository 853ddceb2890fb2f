//! Reads back what is held of a walk: for paging, all of it; for the leads, what is not loaded yet.
//!
//! Pages have places, counted in the order of the archive. What is lost of a segment keeps its places
//! where the one behind it tells how many came before; a page that cannot be read is not held.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::Error;
use super::Result;
use super::loader::HeldPage;
use super::loader::Message;
use super::source::Shared;
use crate::archive;
use crate::archive::ArchivedPage;
use crate::archive::Record;
use crate::archive::SegmentEnd;
use crate::archive::SegmentName;
use crate::extract;
use crate::extract::Closed;
use crate::extract::Held;
use crate::extract::PageFacts;
use crate::extract::Source;
use crate::record::Walk;
use crate::transform::Mapping;

/// What is held of a walk.
#[derive(Debug)]
pub(super) struct HeldWalk {
    /// Where its pages stand, and its holes.
    pub(super) held: Held,
    /// How many segments it has.
    pub(super) segments: u32,
    /// How many places they have, also of pages that are lost or cannot be read.
    pub(super) places: u64,
}

/// A walk that is being read back.
pub(super) struct Reading {
    shared: Shared,
    source: Arc<dyn Source>,
    mapping: Option<Box<dyn Mapping>>,
    walk: Arc<Walk>,
    walked: HeldWalk,
    /// How many places are loaded.
    loaded: u64,
    /// Whether pages may be lost of the segments before this one.
    is_torn: bool,
}

impl Reading {
    pub(super) fn new(
        shared: &Shared,
        source: &Arc<dyn Source>,
        mapping: Option<Box<dyn Mapping>>,
        walk: &Arc<Walk>,
    ) -> Self {
        let (shared, source, walk) = (shared.clone(), Arc::clone(source), Arc::clone(walk));
        let held = Held::new(&walk, shared.ids.clone());
        let walked = HeldWalk { held, segments: 0, places: 0 };
        let (loaded, is_torn) = (0, false);
        Self { shared, source, mapping, walk, walked, loaded, is_torn }
    }

    /// Reads the pages of the walk from the archive and sends those after the first `loaded` to the
    /// loader. Fails where the run is asked to stop meanwhile: nothing of it is lost.
    pub(super) async fn read(mut self, loaded: u64) -> Result<HeldWalk> {
        self.loaded = loaded;
        let runtime = Handle::current();
        let reading = tokio::task::spawn_blocking(move || {
            for segment in archive::segments_of_walk(&self.shared.store, &self.walk)? {
                self.read_segment(&segment, &runtime)?;
            }
            self.tell_lost()?;
            Ok(self.walked)
        });
        reading.await.map_err(|_| Error::Bug("the task that reads the archive has ended"))?
    }

    fn read_segment(&mut self, segment: &SegmentName, runtime: &Handle) -> Result<()> {
        // One before it is gone.
        self.is_torn |= segment.number != self.walked.segments;
        self.walked.segments = segment.number + 1;
        let store = self.shared.store.clone();
        let end = archive::read_segment(&store, &segment.path, |record| {
            let held = &mut self.walked.held;
            match record {
                Record::Opened(_, before) => return self.begin(before),
                Record::Closed(closing, _) => held.closed = closed(&closing),
                Record::Hole(hole) => {
                    held.add_hole(hole.offset, hole.rows);
                    held.closed = None;
                }
                Record::Page(page) => return self.take(*page, runtime),
            }
            Ok::<(), Error>(())
        })?;
        self.is_torn |= end != SegmentEnd::Whole;
        Ok(())
    }

    /// Begins a segment before which so many pages were held, where it tells.
    fn begin(&mut self, before: Option<u64>) -> Result<()> {
        let is_torn = std::mem::take(&mut self.is_torn);
        match before {
            Some(before) if before > self.walked.places => {
                let (walk, held) = (&self.walk.id, self.walked.places);
                tracing::warn!(%walk, held, before, "pages that were held are no longer archived");
                let from = std::mem::replace(&mut self.walked.places, before);
                self.pass(from)
            }
            None if is_torn => self.tell_lost(),
            _ => Ok(()),
        }
    }

    /// Takes a page, and sends it to the loader where it is not loaded yet.
    fn take(&mut self, page: ArchivedPage, runtime: &Handle) -> Result<()> {
        if self.shared.stop.cause().is_some() {
            return Err(extract::Error::Stopped.into());
        }
        let index = self.walked.places;
        self.walked.places += 1;
        // A run went on where it was closed.
        self.walked.held.closed = None;
        let facts = match self.facts_of(&page, index) {
            Ok(facts) => facts,
            Err(error) => {
                let page = page.location;
                tracing::warn!(page, error, "a held page cannot be read, and is asked for again");
                return self.pass(index);
            }
        };
        let stated_rows = facts.total;
        self.walked.held.add_page(&page.header, &facts)?;
        if index < self.loaded {
            return Ok(());
        }
        let slot = runtime.block_on(Arc::clone(&self.shared.slots).acquire_owned());
        let page = HeldPage::from_archive(Arc::clone(&self.walk), page, index, slot.ok());
        self.tell(Message::Page(Box::new(HeldPage { stated_rows, ..page })))
    }

    /// Reads a page, as it was when it came to be held: an earlier version may have been less strict.
    fn facts_of(&self, page: &ArchivedPage, index: u64) -> std::result::Result<PageFacts, String> {
        let facts = self.source.read_page(&page.body).map_err(|error| error.to_string())?;
        if let Some(mapping) = self.mapping.as_ref().filter(|_| index >= self.loaded) {
            mapping.records(&page.body, facts.is_json).map_err(|error| error.to_string())?;
        }
        Ok(facts)
    }

    /// Tells that there is nothing to load at the places from `from` on, up to the next.
    fn pass(&self, from: u64) -> Result<()> {
        let (from, to) = (from.max(self.loaded), self.walked.places);
        if from >= to {
            return Ok(());
        }
        self.tell(Message::Passed { walk: Arc::clone(&self.walk), from, to })
    }

    /// Where pages that were loaded are no longer there, what comes behind them has moved up, and is
    /// loaded once more rather than taken for loaded.
    fn tell_lost(&mut self) -> Result<()> {
        let (held, loaded) = (self.walked.places, self.loaded);
        if held >= loaded {
            return Ok(());
        }
        let walk = &self.walk.id;
        tracing::warn!(%walk, held, loaded, "pages that were loaded are no longer archived");
        self.loaded = held;
        self.tell(Message::Resumed { walk: Arc::clone(&self.walk), loaded: held })
    }

    fn tell(&self, message: Message) -> Result<()> {
        self.shared.messages.blocking_send(message).map_err(|_| Error::LoaderStopped)
    }
}

/// Returns how a walk ended that was closed by a run that died before it could commit that; nothing
/// where an older version closed it, which did not tell.
fn closed(closing: &archive::Closing) -> Option<Closed> {
    let (whole, settled) = closing.whole.zip(closing.settled)?;
    let archive::Closing { proven, distinct, rejects, holes, .. } = *closing;
    Some(Closed { proven, whole, settled, distinct, rejects, holes })
}
