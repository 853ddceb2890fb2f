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
        None => scope.coverage.spans().iter().map(|span| span.as_of).min(),
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
