//! Reads back what is held of a walk: for paging, all of it; for the leads, what is not loaded yet.

use std::sync::Arc;

use super::Error;
use super::Result;
use super::loader::HeldPage;
use super::loader::Message;
use super::source::Shared;
use crate::archive;
use crate::archive::Record;
use crate::archive::SegmentEnd;
use crate::archive::SegmentName;
use crate::extract;
use crate::extract::Closed;
use crate::extract::Held;
use crate::extract::Source;
use crate::record::Walk;

/// What is held of a walk.
#[derive(Debug, Default)]
pub(super) struct HeldWalk {
    /// Its pages, in the order of the archive, and its holes.
    pub(super) held: Held,
    /// How many segments it has.
    pub(super) segments: u32,
}

/// Reads the pages of `walk` from the archive and sends those after the first `loaded` to the
/// loader. Fails where the run is asked to stop meanwhile: nothing of it is lost.
pub(super) async fn read(
    shared: &Shared,
    source: &Arc<dyn Source>,
    walk: &Arc<Walk>,
    loaded: u64,
) -> Result<HeldWalk> {
    let (shared, source, walk) = (shared.clone(), Arc::clone(source), Arc::clone(walk));
    let runtime = tokio::runtime::Handle::current();
    let reading = tokio::task::spawn_blocking(move || {
        let (mut walked, mut loaded) = (HeldWalk::default(), loaded);
        for segment in segments_of(&shared, &walk)? {
            if segment.number != walked.segments {
                // One before it is gone.
                loaded = tell_lost(&shared, &walk, &walked, loaded)?;
            }
            walked.segments = segment.number + 1;
            let end = archive::read_segment(&shared.store, &segment.path, |record| {
                let page = match record {
                    Record::Page(page) => page,
                    Record::Hole(hole) => {
                        walked.held.holes.push((hole.offset, hole.rows));
                        return Ok::<(), Error>(());
                    }
                    Record::Closed(closing, _) => {
                        walked.held.closed = closed(&closing);
                        return Ok(());
                    }
                    Record::Opened(_) => return Ok(()),
                };
                if shared.stop.cause().is_some() {
                    return Err(extract::Error::Stopped.into());
                }
                let facts = source.read_page(&page.body)?;
                let stated_rows = facts.total;
                walked.held.pages.push((page.header.clone(), facts));
                let index = walked.held.pages.len() as u64 - 1;
                if index >= loaded {
                    let slot = runtime.block_on(Arc::clone(&shared.slots).acquire_owned());
                    let page = HeldPage::from_archive(Arc::clone(&walk), *page, index, slot.ok());
                    let page = HeldPage { stated_rows, ..page };
                    let sent = shared.messages.blocking_send(Message::Page(Box::new(page)));
                    sent.map_err(|_| Error::LoaderStopped)?;
                }
                Ok(())
            })?;
            if end != SegmentEnd::Whole {
                loaded = tell_lost(&shared, &walk, &walked, loaded)?;
            }
        }
        tell_lost(&shared, &walk, &walked, loaded)?;
        Ok(walked)
    });
    reading.await.map_err(|_| Error::Bug("the task that reads the archive has ended"))?
}

/// Pages are counted in the order of the archive. Where some that were loaded are no longer there, what
/// comes behind them has moved up, and is loaded once more rather than taken for loaded. Returns how
/// many of the pages to come are loaded.
fn tell_lost(shared: &Shared, walk: &Arc<Walk>, walked: &HeldWalk, loaded: u64) -> Result<u64> {
    let held = walked.held.pages.len() as u64;
    if held >= loaded {
        return Ok(loaded);
    }
    tracing::warn!(walk = %walk.id, held, loaded, "pages that were loaded are no longer archived");
    let resumed = Message::Resumed { walk: Arc::clone(walk), loaded: held };
    shared.messages.blocking_send(resumed).map_err(|_| Error::LoaderStopped)?;
    Ok(held)
}

/// Returns how a walk ended that was closed by a run that died before it could commit that; nothing
/// where an older version closed it, which did not tell.
fn closed(closing: &archive::Closing) -> Option<Closed> {
    let (whole, settled) = closing.whole.zip(closing.settled)?;
    Some(Closed { proven: closing.proven, whole, settled })
}

fn segments_of(shared: &Shared, walk: &Walk) -> Result<Vec<SegmentName>> {
    let mut segments = archive::segments(&shared.store, &walk.scope.source)?;
    segments.retain(|segment| segment.walk == walk.id);
    Ok(segments)
}
