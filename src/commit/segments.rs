//! Which segments of the archive may go. Pure: the archive lists, the caller removes.

use std::collections::BTreeSet;

use chrono::DateTime;
use chrono::Days;
use chrono::NaiveDate;
use chrono::NaiveTime;
use chrono::Utc;

use crate::checkpoint::SourceProgress;
use crate::commit::Commit;
use crate::ids::SourceName;
use crate::record::Walk;

/// A file of the archive, as far as keeping it is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Where it lies, relative to the lake.
    pub path: String,
    /// The UTC day in its path.
    pub date: NaiveDate,
    /// The walks of which it holds pages.
    pub walks: Vec<Walk>,
}

/// Returns the paths of the segments that may go.
///
/// Those are older than `cutoff` in full, every walk in them was superseded by a later whole
/// reading of its scope and is not open, and no path in `needed` (the segments that the newest
/// commit's rows come from) names them.
pub fn segments_to_drop(
    segments: &[Segment],
    latest: &Commit,
    needed: &BTreeSet<String>,
    cutoff: DateTime<Utc>,
) -> Vec<String> {
    let may_go = |segment: &&Segment| {
        is_older(segment.date, cutoff)
            && !needed.contains(&segment.path)
            && !segment.walks.is_empty()
            && segment.walks.iter().all(|walk| is_superseded(walk, latest))
    };
    segments.iter().filter(may_go).map(|segment| segment.path.clone()).collect()
}

fn is_older(date: NaiveDate, cutoff: DateTime<Utc>) -> bool {
    let end = date.checked_add_days(Days::new(1));
    end.is_some_and(|end| end.and_time(NaiveTime::MIN).and_utc() <= cutoff)
}

fn is_superseded(walk: &Walk, latest: &Commit) -> bool {
    let Some(progress) = progress_of(&walk.scope.source, latest) else { return false };
    let Some(scope) = progress.scopes.get(&walk.scope.key()) else { return false };
    let is_open = progress.open_walks.iter().any(|open| open.walk.id == walk.id);
    let as_of = match &walk.window {
        Some(window) => scope.coverage.as_of(window),
        // A scan reads all there is, so all that was ever read of its scope must be newer.
        None => match &scope.scan {
            Some(scan) => Some(scan.as_of),
            None => scope.coverage.spans().iter().map(|span| span.as_of).min(),
        },
    };
    // The walk's own reading has its own start as `as_of`.
    !is_open && as_of.is_some_and(|as_of| as_of > walk.opened_at)
}

/// Segments keep the name their source had when they were written.
fn progress_of<'a>(name: &SourceName, latest: &'a Commit) -> Option<&'a SourceProgress> {
    let mut sources = latest.sources.iter();
    let (now, _) = sources.find(|(now, source)| *now == name || source.was.contains(name))?;
    latest.checkpoint.sources.get(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::OpenWalk;
    use crate::commit::testing::at;
    use crate::commit::testing::lake;
    use crate::commit::testing::seq_commit;
    use crate::commit::testing::source;
    use crate::ids::WalkId;
    use crate::record::Reason;
    use crate::record::Scope;
    use crate::window::Covered;
    use crate::window::Window;

    const PATH: &str = "archive/acme/leads/2026-03-01/w-0.jsonl.zst";

    fn scope(name: &str) -> Scope {
        let (stream, partition) = ("leads".to_owned(), "profile:1".to_owned());
        Scope { source: source(name), stream, partition, query: String::new(), list: String::new() }
    }

    /// A segment of 2026-03-01 with one walk over hours 0 to 10, opened at hour 12.
    fn segment(window: Option<Window>) -> Segment {
        let walk = Walk {
            id: WalkId::from("w"),
            scope: scope("acme"),
            window,
            page_size: 100,
            opened_at: at(12),
            reason: Reason::History,
            down_to: None,
        };
        Segment { path: PATH.to_owned(), date: at(12).date_naive(), walks: vec![walk] }
    }

    fn hours(start: i64, end: i64) -> Window {
        Window::new(at(start), at(end)).unwrap()
    }

    /// A commit in which these spans were read, each at the hour that comes with it.
    fn read_at(spans: &[(Window, i64)]) -> Commit {
        let (_folder, store) = lake();
        let mut commit = seq_commit(&store, 1);
        let progress = commit.checkpoint.sources.entry(source("acme")).or_default();
        let scope = progress.scopes.entry(scope("acme").key()).or_default();
        for (window, hour) in spans {
            let (window, as_of) = (*window, at(*hour));
            scope.coverage.insert(Covered {
                window,
                as_of,
                rows: None,
                share: None,
                reconciled: true,
                holes: 0,
            });
        }
        commit
    }

    fn goes(segment: &Segment, latest: &Commit, cutoff: DateTime<Utc>) -> bool {
        let dropped =
            segments_to_drop(std::slice::from_ref(segment), latest, &BTreeSet::new(), cutoff);
        dropped == [PATH]
    }

    #[test]
    fn a_segment_goes_once_it_is_old_superseded_and_not_needed() {
        let segment = segment(Some(hours(0, 10)));
        let latest = read_at(&[(hours(-5, 4), 30), (hours(4, 20), 40)]);
        assert!(goes(&segment, &latest, at(22)));
        // The day of the segment ends at hour 22.
        assert!(!goes(&segment, &latest, at(21)));
        let needed = BTreeSet::from([PATH.to_owned()]);
        assert_eq!(segments_to_drop(&[segment], &latest, &needed, at(22)), Vec::<String>::new());
    }

    #[test]
    fn a_walk_is_not_superseded_by_itself_nor_by_a_reading_of_a_part() {
        let segment = segment(Some(hours(0, 10)));
        assert!(!goes(&segment, &read_at(&[(hours(0, 10), 12)]), at(900)));
        assert!(!goes(&segment, &read_at(&[(hours(0, 9), 30)]), at(900)));
        assert!(!goes(&segment, &read_at(&[(hours(0, 10), 12), (hours(0, 9), 30)]), at(900)));
        assert!(!goes(&segment, &read_at(&[]), at(900)));
    }

    #[test]
    fn a_scan_is_superseded_when_all_of_its_scope_was_read_later() {
        let segment = segment(None);
        assert!(!goes(&segment, &read_at(&[]), at(900)));
        assert!(!goes(&segment, &read_at(&[(hours(0, 12), 12), (hours(12, 30), 30)]), at(900)));
        assert!(goes(&segment, &read_at(&[(hours(0, 30), 30)]), at(900)));
    }

    #[test]
    fn all_walks_of_a_segment_must_be_superseded_and_known() {
        let latest = read_at(&[(hours(0, 10), 30)]);
        let mut segment = segment(Some(hours(0, 10)));
        let mut other = segment.walks[0].clone();
        other.scope.partition = "profile:2".to_owned();
        segment.walks.push(other);
        assert!(!goes(&segment, &latest, at(900)));
        segment.walks.clear();
        assert!(!goes(&segment, &latest, at(900)));
    }

    #[test]
    fn the_segments_of_an_open_walk_stay() {
        let segment = segment(Some(hours(0, 10)));
        let mut latest = read_at(&[(hours(0, 10), 30)]);
        let walk = segment.walks[0].clone();
        let progress = latest.checkpoint.sources.get_mut(&source("acme")).unwrap();
        progress.open_walks.push(OpenWalk {
            walk,
            loaded_pages: 3,
            stated_rows: None,
            advanced_at: None,
        });
        assert!(!goes(&segment, &latest, at(900)));
    }

    #[test]
    fn a_segment_from_before_its_source_was_renamed_is_judged_by_the_new_name() {
        let mut segment = segment(Some(hours(0, 10)));
        segment.walks[0].scope = scope("acme-old");
        let mut latest = read_at(&[(hours(0, 10), 30)]);
        assert!(!goes(&segment, &latest, at(900)));
        latest.sources.get_mut(&source("acme")).unwrap().was = vec![source("acme-old")];
        assert!(goes(&segment, &latest, at(900)));
    }
}
