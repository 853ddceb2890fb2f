//! Lets go of what is no longer kept: snapshots, parts, commit files, and segments of the archive.
//!
//! What cannot be let go of does not make a run fail; it is tried again by the next.

use std::collections::BTreeSet;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;

use super::Loader;
use crate::archive;
use crate::archive::SegmentName;
use crate::commit;
use crate::commit::Commit;
use crate::ids::SourceName;
use crate::load;
use crate::run::Result;
use crate::store::Store;

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
        let mut old = archive::segments(&self.store, source)?;
        old.retain(|name| name.date < cutoff.date_naive());
        if old.is_empty() {
            return Ok(());
        }
        let needed = self.needed_segments(head, source)?;
        remove_superseded(&self.store, head, old, &needed, cutoff)
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

/// Removes those of the old segments that may go. One that rows need stays, maybe for ever, and is not
/// opened.
fn remove_superseded(
    store: &Store,
    head: &Commit,
    old: Vec<SegmentName>,
    needed: &BTreeSet<String>,
    cutoff: DateTime<Utc>,
) -> Result<()> {
    for name in old.into_iter().filter(|name| !needed.contains(&name.path)) {
        let walks = archive::opening_of(store, &name.path)?.into_iter().collect();
        let segment = commit::Segment { path: name.path, date: name.date, walks };
        for path in commit::segments_to_drop(&[segment], head, needed, cutoff) {
            store.remove(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::Closing;
    use crate::archive::Writer;
    use crate::commit::testing::lake;
    use crate::commit::testing::seq_commit;
    use crate::ids::RunId;
    use crate::ids::Seq;
    use crate::ids::WalkId;
    use crate::record::Reason;
    use crate::record::Scope;
    use crate::record::Walk;
    use crate::window::Covered;
    use crate::window::Window;

    /// A walk over the first ten hours of 1970, opened after them.
    fn walk() -> Walk {
        let hours = |count| DateTime::UNIX_EPOCH + TimeDelta::hours(count);
        Walk {
            id: WalkId::new(Seq(1)),
            scope: Scope {
                source: "acme".parse().unwrap(),
                stream: "leads".to_owned(),
                partition: "profile:1".to_owned(),
                query: String::new(),
                list: String::new(),
            },
            window: Some(Window::new(hours(0), hours(10)).unwrap()),
            page_size: 10,
            opened_at: hours(12),
            reason: Reason::NewTime,
            down_to: None,
        }
    }

    /// A commit in which the span of that walk was read again later.
    fn superseding(store: &Store, walk: &Walk) -> Commit {
        let mut head = seq_commit(store, 1);
        let progress = head.checkpoint.sources.entry(walk.scope.source.clone()).or_default();
        let scope = progress.scopes.entry(walk.scope.key()).or_default();
        scope.coverage.insert(Covered {
            window: walk.window.unwrap(),
            as_of: walk.opened_at + TimeDelta::hours(1),
            rows: None,
            share: None,
            reconciled: true,
            holes: 0,
        });
        head
    }

    #[tokio::test]
    async fn segments_that_rows_need_are_not_even_opened() {
        let (_folder, store) = lake();
        let writer = Writer::start(store.clone(), RunId::new(DateTime::UNIX_EPOCH));
        for walk in [walk(), walk(), walk()] {
            writer.open(&walk, 0, 0).await.unwrap();
            writer.close(&walk.id, Closing::default(), walk.opened_at).await.unwrap();
        }
        let old = archive::segments(&store, &walk().scope.source).unwrap();
        let paths: Vec<String> = old.iter().map(|name| name.path.clone()).collect();
        let head = superseding(&store, &walk());
        // The first could not be opened.
        let needed: BTreeSet<String> = paths[..2].iter().cloned().collect();
        store.remove(&paths[0]).unwrap();
        let cutoff = DateTime::UNIX_EPOCH + TimeDelta::days(2);
        remove_superseded(&store, &head, old.clone(), &needed, cutoff).unwrap();
        assert_eq!(store.list_all("archive").unwrap(), paths[1..2]);
        assert!(remove_superseded(&store, &head, old, &BTreeSet::new(), cutoff).is_err());
    }
}
