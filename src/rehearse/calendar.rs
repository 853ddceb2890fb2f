//! What is there after a day: its runs and the last commit, folded into a line of the calendar. Pure.

use std::collections::BTreeMap;

use chrono::DateTime;
use chrono::Utc;

use super::shape::Shape;
use super::shape::count;
use super::stage::Played;
use crate::checkpoint::SourceProgress;
use crate::commit::Commit;
use crate::config::Job;
use crate::config::SourceSettings;
use crate::ids::SourceName;
use crate::record::ScopeKey;
use crate::report::RehearsedDay;
use crate::report::SourceDay;
use crate::run;
use crate::run::Ending;
use crate::run::State;
use crate::run::Summary;
use crate::window::Coverage;

/// Returns the day numbered `day` of what was `played`; `None` where nothing began on it.
pub(super) fn day(day: u64, played: &[Played]) -> Option<RehearsedDay> {
    let runs = || played.iter().flat_map(|played| &played.runs);
    let sources: BTreeMap<_, _> = played.iter().flat_map(|played| played.sources.clone()).collect();
    let sent = |run: &Summary| run.sources.values().map(|s| s.requests.sent).sum::<u64>();
    let backfills = played.iter().flat_map(|played| played.runs.iter().skip(1));
    // The worst of them; none where one has nothing.
    let dated = || sources.values().filter(|source| source.listings == 0);
    let back_to: Option<Vec<_>> = dated().map(|source| source.complete_back_to).collect();
    let mut endings: Vec<Ending> = played.iter().filter_map(Played::last).flatten().collect();
    endings.sort_unstable();
    endings.dedup();
    Some(RehearsedDay {
        day,
        started_at: runs().map(|run| run.started_at).min()?,
        ended_at: runs().map(|run| run.ended_at).max()?,
        requests: runs().map(sent).sum(),
        backfill_requests: backfills.map(sent).sum(),
        leads: sources.values().map(|source| source.leads).sum(),
        complete_back_to: back_to.and_then(|at| at.into_iter().max()),
        listings_whole: sources.values().map(|source| source.listings_whole).sum(),
        listings: sources.values().map(|source| source.listings).sum(),
        endings,
        resume_at: runs().filter_map(|run| run.resume_at).min(),
        sources,
    })
}

impl Played {
    /// Returns what its last run ended with that was not done, else its last.
    fn last(&self) -> Option<Vec<Ending>> {
        let open = self.runs.iter().rev().find(|run| !is_complete(run));
        open.or(self.runs.last()).map(|run| run.endings.clone())
    }
}

/// Returns what is there of each source of a job after some `runs`, which left `head`. The `shapes` are
/// those of the sources, in their order.
pub(super) fn sources(
    job: &Job,
    shapes: &[Shape],
    runs: &[Summary],
    head: Option<&Commit>,
) -> BTreeMap<SourceName, SourceDay> {
    let pairs = job.sources.iter().zip(shapes);
    pairs
        .map(|(source, shape)| (source.name.clone(), source_day(source, shape, runs, head)))
        .collect()
}

/// Tells whether a run read all that it planned.
pub(super) fn is_complete(run: &Summary) -> bool {
    run.sources.values().all(|source| source.state == State::Complete)
}

fn source_day(
    source: &SourceSettings,
    shape: &Shape,
    runs: &[Summary],
    head: Option<&Commit>,
) -> SourceDay {
    let mut day = SourceDay { state: State::Complete, ..SourceDay::default() };
    for run in runs.iter().filter_map(|run| run.sources.get(&source.name)) {
        day.requests += run.requests.sent;
        // What failed stays so, whatever came after it.
        if run.state != State::Complete && !matches!(day.state, State::Failed | State::Refused) {
            day.state = run.state;
            day.why.clone_from(&run.why);
        }
    }
    let Some(head) = head else { return day };
    let rows = head.sources.get(&source.name).map_or(0, |held| held.rows);
    day.leads = scaled(rows, shape.told.stands_for);
    let none = SourceProgress::default();
    let progress = head.checkpoint.sources.get(&source.name).unwrap_or(&none);
    let scopes = run::scopes(source, progress);
    if let Some(start) = source.start() {
        day.complete_back_to = complete_back_to(&scopes, progress);
        day.is_whole = day.complete_back_to.is_some_and(|back_to| back_to <= start);
    } else {
        let is_whole =
            |key: &&ScopeKey| progress.scopes.get(*key).is_some_and(|scope| scope.scan.is_some());
        day.listings = scopes.len() as u64;
        day.listings_whole = scopes.iter().filter(is_whole).count() as u64;
        day.is_whole = day.listings > 0 && day.listings_whole == day.listings;
    }
    day
}

#[expect(clippy::cast_precision_loss, reason = "a count of leads needs no more than 52 bits")]
fn scaled(rows: u64, stands_for: f64) -> u64 {
    count(rows as f64 * stands_for)
}

/// Returns from where on all scopes are read without a gap.
fn complete_back_to(scopes: &[ScopeKey], progress: &SourceProgress) -> Option<DateTime<Utc>> {
    let reach = |key| reach(&progress.scopes.get(key)?.coverage);
    scopes.iter().map(reach).collect::<Option<Vec<_>>>()?.into_iter().max()
}

/// Returns how far back from its end a coverage has no gap.
fn reach(coverage: &Coverage) -> Option<DateTime<Utc>> {
    let mut windows = coverage.spans().iter().rev().map(|span| span.window);
    let newest = windows.next()?.start();
    Some(windows.fold(newest, |start, window| {
        // Spans ascend: after a gap none ends there any more.
        if window.end() == start { window.start() } else { start }
    }))
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::checkpoint::ScopeProgress;
    use crate::window::Covered;
    use crate::window::Window;

    fn at(day: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::days(day)
    }

    fn progress(scopes: &[(&str, &[(i64, i64)])]) -> SourceProgress {
        let mut progress = SourceProgress::default();
        for (key, spans) in scopes {
            let mut scope = ScopeProgress::default();
            for (start, end) in *spans {
                let window = Window::new(at(*start), at(*end)).unwrap();
                let as_of = at(*end);
                let read =
                    Covered { window, as_of, rows: None, share: None, reconciled: true, holes: 0 };
                scope.coverage.insert(read);
            }
            progress.scopes.insert(ScopeKey((*key).to_owned()), scope);
        }
        progress
    }

    #[test]
    fn history_is_complete_back_to_the_first_gap_of_the_worst_scope() {
        let read = progress(&[
            ("a", &[(0, 10), (20, 30), (30, 40)]),
            ("b", &[(0, 40)]),
            ("c", &[(35, 40)]),
        ]);
        let back_to = |keys: &[&str]| {
            let keys: Vec<_> = keys.iter().map(|key| ScopeKey((*key).to_owned())).collect();
            complete_back_to(&keys, &read)
        };
        assert_eq!(back_to(&["a"]), Some(at(20)));
        assert_eq!(back_to(&["a", "b"]), Some(at(20)));
        assert_eq!(back_to(&["a", "b", "c"]), Some(at(35)));
        assert_eq!(back_to(&["b", "never read"]), None);
        assert_eq!(back_to(&[]), None);
    }
}
