//! Lets go of what is no longer kept: snapshots, parts, commit files, and segments of the archive.
//!
//! What cannot be let go of does not make a run fail; it is tried again by the next.

use std::collections::BTreeSet;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;

use super::Loader;
use crate::archive;
use crate::commit;
use crate::commit::Commit;
use crate::ids::SourceName;
use crate::load;
use crate::run::Result;

/// How often the archive is looked through: that reads a column of every row held.
const ARCHIVE_EVERY: TimeDelta = TimeDelta::days(7);

impl Loader {
    /// Returns when the archive was last looked through, as the next commit is to say: now, where
    /// that is due and the commit is the run's last.
    pub(super) fn archive_checked_at(
        &self,
        now: DateTime<Utc>,
        is_last: bool,
    ) -> Option<DateTime<Utc>> {
        let last = self.head.as_ref().and_then(|head| head.archive_checked_at);
        let is_due = last.is_none_or(|last| now - last >= ARCHIVE_EVERY);
        if is_due && is_last { Some(now) } else { last }
    }

    /// Lets go of what `head` and the job's settings no longer keep.
    pub(super) fn let_go(&self, head: &Commit) {
        let keep = &self.job.keep;
        let settings = commit::Keep {
            snapshots: keep.snapshots,
            snapshot_age: keep.snapshot_age,
            changes: keep.changes,
        };
        if let Err(error) = commit::keep(&self.store, &settings, self.clock.now(), head) {
            tracing::warn!(%error, "failed to remove what is no longer kept");
        }
        if head.archive_checked_at != Some(head.created_at) {
            return;
        }
        for source in self.sources.keys() {
            if let Err(error) = self.let_go_of_segments(head, source) {
                tracing::warn!(%source, %error, "failed to remove old segments of the archive");
            }
        }
    }

    fn let_go_of_segments(&self, head: &Commit, source: &SourceName) -> Result<()> {
        let cutoff = self.clock.now() - self.job.archive.keep;
        let mut old = Vec::new();
        for name in archive::segments(&self.store, source)? {
            if name.date >= cutoff.date_naive() {
                continue;
            }
            let walks = archive::opening_of(&self.store, &name.path)?.into_iter().collect();
            old.push(commit::Segment { path: name.path, date: name.date, walks });
        }
        let superseded = commit::segments_to_drop(&old, head, &BTreeSet::new(), cutoff);
        if superseded.is_empty() {
            return Ok(());
        }
        let needed = self.needed_segments(head, source)?;
        for path in commit::segments_to_drop(&old, head, &needed, cutoff) {
            self.store.remove(&path)?;
        }
        Ok(())
    }

    /// Returns the segments that living rows need for a replay.
    fn needed_segments(&self, head: &Commit, source: &SourceName) -> Result<BTreeSet<String>> {
        let Some(held) = head.sources.get(source) else { return Ok(BTreeSet::new()) };
        let mut needed = BTreeSet::new();
        for place in load::archive_places(&self.store, &held.parts) {
            needed.extend(place?.split_once('#').map(|(segment, _)| segment.to_owned()));
        }
        Ok(needed)
    }
}
