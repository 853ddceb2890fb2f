//! Looks at the archive: whether every segment can be read as far as rows and open walks need it.

use std::collections::BTreeMap;

use super::finding::Kind;
use super::rows::NeededPages;
use super::scan::Scan;
use super::scan::is_of_disk;
use crate::archive;
use crate::archive::Record;
use crate::archive::SegmentEnd;
use crate::ids::SourceName;
use crate::ids::WalkId;
use crate::load;
use crate::run::Error;
use crate::run::Result;
use crate::run::chain;

const KEPT: &str = "its rows are whole in the parts; --repair notes the loss: a replay leaves these \
                    rows as they are, `backfill --again` reads them again";

impl Scan<'_> {
    /// Reads all segments.
    pub(super) fn look_at_archive(&mut self) -> Result<()> {
        let mut needed = std::mem::take(&mut self.needed);
        let mut held: BTreeMap<WalkId, u64> = BTreeMap::new();
        for name in self.store.list("archive")? {
            let Ok(source) = name.parse::<SourceName>() else { continue };
            for segment in archive::segments(self.store, &source)? {
                let pages = self.look_at_segment(&segment.path, &mut needed)?;
                *held.entry(segment.walk).or_default() += u64::from(pages);
            }
        }
        for path in needed.into_keys() {
            self.note(Kind::SegmentMissing, &path, load::MISSING, KEPT);
        }
        let progress = self.head().into_iter().flat_map(|head| head.checkpoint.sources.values());
        let short: Vec<WalkId> = progress
            .flat_map(|progress| &progress.open_walks)
            .filter(|open| held.get(&open.walk.id).copied().unwrap_or(0) < open.loaded_pages)
            .map(|open| open.walk.id.clone())
            .collect();
        for walk in short {
            let what = format!("the open walk `{walk}` has fewer pages than were loaded");
            let way_out = "the next run asks for them again";
            self.note(Kind::SegmentTorn, &format!("archive/{walk}"), what, way_out);
        }
        Ok(())
    }

    /// Reads a segment to its end and returns the pages that it holds.
    fn look_at_segment(&mut self, path: &str, needed: &mut NeededPages) -> Result<u32> {
        let needed = needed.remove(path).unwrap_or(0);
        let (mut pages, mut is_opened) = (0, false);
        let stop = self.stop.clone();
        let read = archive::read_segment(self.store, path, |record| {
            stop.check()?;
            match record {
                Record::Opened(..) => is_opened = true,
                Record::Page(_) => pages += 1,
                _ => {}
            }
            Ok::<(), Error>(())
        });
        self.checked.segments += 1;
        let length = self.store.open_file(path).ok().and_then(|file| file.size().ok()).unwrap_or(0);
        self.checked.bytes += length;
        let short = || format!("it ends after page {pages}, rows come from page {needed}");
        match read {
            // It was let go of meanwhile.
            Err(Error::Archive(archive::Error::Store(error))) if error.is_not_found() => {}
            Err(error @ Error::Archive(archive::Error::Version { .. })) => {
                let way_out = "use the leadpipe that wrote it, or a later one";
                self.note(Kind::SegmentNewer, path, chain(&error), way_out);
            }
            Err(Error::Archive(error)) if self.own_run.is_some() && is_of_disk(&error) => {
                return Err(error.into());
            }
            Err(error @ Error::Stopped(_)) => return Err(error),
            Err(error) => self.note(Kind::SegmentDamaged, path, chain(&error), KEPT),
            Ok(SegmentEnd::Damaged) => {
                let what = format!("what comes after page {pages} is not as it was written");
                self.note(Kind::SegmentDamaged, path, what, KEPT);
            }
            Ok(_) if pages < needed => self.note(Kind::SegmentDamaged, path, short(), KEPT),
            Ok(SegmentEnd::Torn) => {
                let what = format!("it ends in the middle of a line after page {pages}");
                let way_out = "a run that died leaves this; nothing needs what is missing";
                self.note(Kind::SegmentTorn, path, what, way_out);
            }
            Ok(SegmentEnd::Whole) if !is_opened && length > 0 => {
                self.note(Kind::SegmentDamaged, path, "its first line is no walk's opening", KEPT);
            }
            Ok(SegmentEnd::Whole) => {}
        }
        Ok(pages)
    }
}
