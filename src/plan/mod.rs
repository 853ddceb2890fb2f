//! Decides what a run would read: walks, why each is there, and what it costs.
//!
//! Pure: settings, what was read so far, and an instant go in; the same input gives the same plan.
//! Open walks come first, with their own bounds and page size; then new time, together with the
//! days that every run reads again; then history, newest first. Only time that is not covered is
//! asked for. Listings without dates are the matter of `scans`.

mod scans;

use chrono::DateTime;
use chrono::SubsecRound;
use chrono::TimeDelta;
use chrono::Utc;
use serde::Serialize;

use crate::checkpoint::OpenWalk;
use crate::checkpoint::ScopeProgress;
use crate::checkpoint::SourceProgress;
use crate::record::DownTo;
use crate::record::Reason;
use crate::record::Scope;
use crate::record::ScopeKey;
use crate::window::Coverage;
use crate::window::Window;

/// What to plan for one source.
#[derive(Debug)]
pub struct Request<'a> {
    /// The scopes of the source as the job and the provider have them now.
    pub scopes: &'a [Scope],
    /// What was read so far.
    pub progress: &'a SourceProgress,
    /// The instant of planning.
    pub now: DateTime<Utc>,
    /// Limits and settings.
    pub settings: Settings,
    /// What the run is for.
    pub task: Task,
}

/// Settings of a source that a plan follows.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The start of its history; `None` where its listings have no dates.
    pub start: Option<DateTime<Utc>>,
    /// The longest span of one request, in days, overlaps included.
    pub window_days: u32,
    /// Rows asked for in one request.
    pub page_size: u32,
    /// How long before now the newest window ends, so that nothing arrives inside it.
    pub settle: TimeDelta,
    /// How far back every run reads again for late changes; `None` for all.
    pub every_run: Option<TimeDelta>,
    /// How long an open walk is gone on with.
    pub walk_max_age: TimeDelta,
}

/// What a run is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// To be complete and current.
    Sync,
    /// To read a range.
    Backfill {
        /// The range of creation times.
        range: Window,
        /// What was read before this instant is read again.
        again_before: Option<DateTime<Utc>>,
    },
}

/// The walks of one source, in the order they would be read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SourcePlan {
    /// The walks.
    pub walks: Vec<PlannedWalk>,
    /// Open walks that are not gone on with, and why.
    pub dropped: Vec<DroppedWalk>,
    /// What is left out of a range, since it has no dates and was read whole before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<ScopeKey>,
}

/// A walk that would be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedWalk {
    /// What it reads.
    pub scope: Scope,
    /// The span of creation times.
    pub window: Option<Window>,
    /// Rows asked for in one request.
    pub page_size: u32,
    /// Why it is there.
    pub reason: Reason,
    /// Where it ends before the end of the listing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub down_to: Option<DownTo>,
    /// The walk it goes on with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume: Option<OpenWalk>,
    /// What it costs.
    pub requests: Requests,
}

/// An open walk that is not gone on with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DroppedWalk {
    /// The walk.
    pub walk: OpenWalk,
    /// Why not.
    pub why: &'static str,
}

/// A number of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", content = "requests", rename_all = "snake_case")]
pub enum Requests {
    /// As many as the rows held of just this span need.
    Known(u64),
    /// At least so many: how many rows there are is not known.
    AtLeast(u64),
}

impl Requests {
    /// Returns the number.
    pub fn count(self) -> u64 {
        match self {
            Self::Known(count) | Self::AtLeast(count) => count,
        }
    }

    /// Adds two numbers; the sum is known where both are.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let sum = self.count() + other.count();
        match (self, other) {
            (Self::Known(_), Self::Known(_)) => Self::Known(sum),
            _ => Self::AtLeast(sum),
        }
    }
}

impl SourcePlan {
    /// Returns what all walks cost together.
    pub fn requests(&self) -> Requests {
        let walks = self.walks.iter().map(|walk| walk.requests);
        walks.fold(Requests::Known(0), Requests::plus)
    }
}

/// Plans one source.
pub fn plan(request: &Request<'_>) -> SourcePlan {
    let mut plan = SourcePlan::default();
    let open = go_on_or_drop(request, &mut plan);
    if request.settings.start.is_none() {
        let (walks, left_out) = scans::plan_scans(request, &open);
        plan.walks.extend(walks);
        plan.left_out = left_out;
        return plan;
    }
    let mut fresh: Vec<PlannedWalk> =
        request.scopes.iter().flat_map(|scope| plan_scope(request, scope, &open)).collect();
    fresh.sort_by_key(|walk| {
        let newest = walk.window.map(|window| std::cmp::Reverse(window.end()));
        (walk.reason != Reason::NewTime, newest)
    });
    plan.walks.extend(fresh);
    plan
}

/// Puts the open walks first that still fit, and returns them.
fn go_on_or_drop(request: &Request<'_>, plan: &mut SourcePlan) -> Vec<OpenWalk> {
    let mut open = Vec::new();
    for walk in &request.progress.open_walks {
        let why = if walk.walk.reason == Reason::Lookup {
            Some("leads asked for by id are asked for anew")
        } else if !request.scopes.contains(&walk.walk.scope) {
            Some("its scope is no longer in the job or no longer listed")
        } else if request.now - walk.walk.opened_at > request.settings.walk_max_age {
            Some("it was begun too long ago")
        } else {
            None
        };
        match why {
            Some(why) => plan.dropped.push(DroppedWalk { walk: walk.clone(), why }),
            None => open.push(walk.clone()),
        }
    }
    plan.walks.extend(open.iter().map(|open| PlannedWalk {
        scope: open.walk.scope.clone(),
        window: open.walk.window,
        page_size: open.walk.page_size,
        reason: Reason::Resume,
        down_to: open.walk.down_to,
        resume: Some(open.clone()),
        requests: Requests::AtLeast(0),
    }));
    open
}

fn plan_scope(request: &Request<'_>, scope: &Scope, open: &[OpenWalk]) -> Vec<PlannedWalk> {
    let none = ScopeProgress::default();
    let progress = request.progress.scopes.get(&scope.key()).unwrap_or(&none);
    let longest = longest_window(progress.window_days, request.settings.window_days);
    let walks = spans(request, &progress.coverage, scope, open).into_iter();
    let pieces = walks.flat_map(|(span, reason)| {
        span.split_from_end(longest).into_iter().map(move |piece| (piece, reason))
    });
    pieces
        .map(|(window, reason)| PlannedWalk {
            scope: scope.clone(),
            window: Some(window),
            page_size: request.settings.page_size,
            reason,
            down_to: None,
            resume: None,
            requests: price(&progress.coverage, &window, request.settings.page_size),
        })
        .collect()
}

/// Returns the spans of a scope that must be read, with the reason of each.
fn spans(
    request: &Request<'_>,
    coverage: &Coverage,
    scope: &Scope,
    open: &[OpenWalk],
) -> Vec<(Window, Reason)> {
    let settings = &request.settings;
    let Some(start) = settings.start else { return Vec::new() };
    let horizon = (request.now - settings.settle).trunc_subsecs(0);
    let open = open.iter().filter(|open| open.walk.scope == *scope);
    let open: Vec<Window> = open.filter_map(|open| open.walk.window).collect();
    let not_open = |spans: Vec<Window>| without(spans, &open);
    match &request.task {
        Task::Sync => {
            let Some(whole) = Window::new(start, horizon) else { return Vec::new() };
            let Some(covered_to) = coverage.end() else {
                let mut spans = not_open(vec![whole]);
                spans.retain(|span| !is_sliver(span, &open));
                return first_reading(spans, horizon, settings);
            };
            let again = settings.every_run.map_or(start, |back| horizon - back);
            let from = again.min(covered_to).max(start);
            let fresh = not_open(Window::new(from, horizon).into_iter().collect());
            let fresh = fresh.into_iter().filter(|window| !is_sliver(window, &open));
            let fresh = fresh.map(|window| (window, Reason::NewTime));
            let before = Window::new(start, from);
            let gaps = before.map(|before| coverage.gaps(&before)).unwrap_or_default();
            let gaps = not_open(gaps).into_iter().rev().map(|gap| (gap, Reason::History));
            fresh.chain(gaps).collect()
        }
        Task::Backfill { range, again_before } => {
            let end = range.end().min(horizon);
            let Some(range) = Window::new(range.start(), end) else { return Vec::new() };
            let read_since = |at| again_before.is_none_or(|before| at >= before);
            let mut recent = Coverage::default();
            for span in coverage.spans().iter().filter(|span| read_since(span.as_of)) {
                recent.insert(span.clone());
            }
            let gaps = not_open(recent.gaps(&range));
            gaps.into_iter().rev().map(|gap| (gap, Reason::Backfill)).collect()
        }
    }
}

/// The minutes since an open walk's horizon are left to the next run: a request a scope is too much
/// for them when a run goes on soon after it was stopped.
fn is_sliver(span: &Window, open: &[Window]) -> bool {
    span.length() < TimeDelta::hours(1) && open.iter().any(|open| open.end() == span.start())
}

/// Where nothing was read yet, the newest window is new time and all before it is history.
fn first_reading(
    spans: Vec<Window>,
    horizon: DateTime<Utc>,
    settings: &Settings,
) -> Vec<(Window, Reason)> {
    let longest = longest_window(None, settings.window_days);
    let pieces = spans.into_iter().rev().flat_map(|span| span.split_from_end(longest));
    let reason = |piece: &Window| match piece.end() == horizon {
        true => Reason::NewTime,
        false => Reason::History,
    };
    pieces.map(|piece| (piece, reason(&piece))).collect()
}

fn without(spans: Vec<Window>, taken: &[Window]) -> Vec<Window> {
    taken
        .iter()
        .fold(spans, |spans, taken| spans.iter().flat_map(|span| span.without(taken)).collect())
}

/// A request reaches a second beyond its window on both sides, inside the days allowed.
fn longest_window(refused_above: Option<u32>, window_days: u32) -> TimeDelta {
    let days = refused_above.map_or(window_days, |days| days.min(window_days)).max(1);
    TimeDelta::days(i64::from(days)) - TimeDelta::seconds(2)
}

/// A span costs a request a page, and one where it is empty.
fn price(coverage: &Coverage, window: &Window, page_size: u32) -> Requests {
    let same = coverage.spans().iter().find(|span| span.window == *window);
    match same.and_then(|span| span.rows) {
        Some(rows) => Requests::Known(rows.div_ceil(u64::from(page_size.max(1))).max(1)),
        None => Requests::AtLeast(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Seq;
    use crate::ids::WalkId;
    use crate::record::Walk;
    use crate::window::Covered;
    use proptest::prelude::*;

    fn day(day: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::days(day)
    }

    fn span(start: i64, end: i64) -> Window {
        Window::new(day(start), day(end)).unwrap()
    }

    fn scope() -> Scope {
        Scope {
            source: "acme".parse().unwrap(),
            stream: "leads".into(),
            partition: "all".into(),
            query: String::new(),
            list: String::new(),
        }
    }

    fn settings() -> Settings {
        Settings {
            start: Some(day(0)),
            window_days: 400,
            page_size: 2500,
            settle: TimeDelta::zero(),
            every_run: Some(TimeDelta::days(30)),
            walk_max_age: TimeDelta::hours(48),
        }
    }

    fn covered(window: Window) -> Covered {
        Covered { window, as_of: window.end(), rows: Some(6_000), reconciled: true, holes: 0 }
    }

    fn progress(windows: &[Window]) -> SourceProgress {
        let mut progress = SourceProgress::default();
        let state = progress.scopes.entry(scope().key()).or_default();
        windows.iter().for_each(|window| state.coverage.insert(covered(*window)));
        progress
    }

    fn plan_at(now: i64, progress: &SourceProgress, task: Task) -> SourcePlan {
        let scopes = [scope()];
        plan(&Request { scopes: &scopes, progress, now: day(now), settings: settings(), task })
    }

    fn windows(plan: &SourcePlan) -> Vec<(Reason, Window)> {
        plan.walks.iter().map(|walk| (walk.reason, walk.window.unwrap())).collect()
    }

    #[test]
    fn a_first_run_reads_everything_in_long_windows_newest_first() {
        let plan = plan_at(1000, &SourceProgress::default(), Task::Sync);
        let reasons: Vec<_> = plan.walks.iter().map(|walk| walk.reason).collect();
        assert_eq!(reasons, [Reason::NewTime, Reason::History, Reason::History]);
        let longest = TimeDelta::days(400) - TimeDelta::seconds(2);
        assert_eq!(plan.walks[0].window.unwrap().length(), longest);
        assert_eq!(plan.requests(), Requests::AtLeast(3));
    }

    #[test]
    fn a_second_run_reads_the_last_days_again_and_nothing_else() {
        let plan = plan_at(1001, &progress(&[span(0, 1000)]), Task::Sync);
        assert_eq!(windows(&plan), [(Reason::NewTime, span(971, 1001))]);
    }

    #[test]
    fn after_a_long_rest_new_time_begins_where_reading_ended() {
        let plan = plan_at(1100, &progress(&[span(0, 1000)]), Task::Sync);
        assert_eq!(windows(&plan), [(Reason::NewTime, span(1000, 1100))]);
    }

    #[test]
    fn gaps_in_history_come_after_new_time_newest_first() {
        let plan = plan_at(500, &progress(&[span(100, 200), span(250, 500)]), Task::Sync);
        let expected = [
            (Reason::NewTime, span(470, 500)),
            (Reason::History, span(200, 250)),
            (Reason::History, span(0, 100)),
        ];
        assert_eq!(windows(&plan), expected);
    }

    #[test]
    fn an_open_walk_comes_first_and_the_rest_begins_at_its_horizon() {
        let mut progress = progress(&[]);
        let walk = Walk {
            id: WalkId::new(Seq(1)),
            scope: scope(),
            window: Some(span(100, 499)),
            page_size: 100,
            opened_at: day(499),
            reason: Reason::NewTime,
            down_to: None,
        };
        progress.open_walks.push(OpenWalk { walk, loaded_pages: 0 });
        let plan = plan_at(500, &progress, Task::Sync);
        let expected = [
            (Reason::Resume, span(100, 499)),
            (Reason::NewTime, span(499, 500)),
            (Reason::History, span(0, 100)),
        ];
        assert_eq!(windows(&plan), expected);

        let later = plan_at(502, &progress, Task::Sync);
        assert_eq!((later.dropped.len(), later.walks[0].reason), (1, Reason::NewTime));
    }

    #[test]
    fn a_run_that_goes_on_soon_leaves_the_minutes_between_to_the_next() {
        let mut progress = progress(&[]);
        let walk = Walk {
            id: WalkId::new(Seq(1)),
            scope: scope(),
            window: Window::new(day(100), day(500) - TimeDelta::minutes(20)),
            page_size: 100,
            opened_at: day(500) - TimeDelta::minutes(18),
            reason: Reason::NewTime,
            down_to: None,
        };
        progress.open_walks.push(OpenWalk { walk, loaded_pages: 0 });
        let reasons: Vec<_> =
            plan_at(500, &progress, Task::Sync).walks.iter().map(|walk| walk.reason).collect();
        assert_eq!(reasons, [Reason::Resume, Reason::History]);
    }

    #[test]
    fn a_backfill_reads_what_is_not_covered_in_its_range() {
        let held = progress(&[span(100, 500)]);
        let task = Task::Backfill { range: span(50, 300), again_before: None };
        assert_eq!(windows(&plan_at(500, &held, task)), [(Reason::Backfill, span(50, 100))]);

        let task = Task::Backfill { range: span(50, 300), again_before: Some(day(501)) };
        assert_eq!(windows(&plan_at(502, &held, task)), [(Reason::Backfill, span(50, 300))]);
    }

    #[test]
    fn rows_held_of_a_span_tell_its_price() {
        let held = progress(&[span(100, 500)]);
        let task = Task::Backfill { range: span(100, 500), again_before: Some(day(501)) };
        let walks = plan_at(502, &held, task).walks;
        assert_eq!(walks.len(), 2, "400 days do not fit with the overlaps");
        assert_eq!(
            price(&held.scopes[&scope().key()].coverage, &span(100, 500), 2500),
            Requests::Known(3)
        );
    }

    proptest! {
        #[test]
        fn what_is_planned_and_what_is_covered_is_all_of_the_time(
            reads in prop::collection::vec((0_i64..900, 1_i64..300), 0..6),
            now in 1_i64..1200,
        ) {
            let held: Vec<_> = reads.iter().filter_map(|(start, length)| {
                Window::new(day(*start), day((start + length).min(now)))
            }).collect();
            let progress = progress(&held);
            let plan = plan_at(now, &progress, Task::Sync);
            let mut coverage = progress.scopes[&scope().key()].coverage.clone();
            for walk in &plan.walks {
                let window = walk.window.unwrap();
                prop_assert!(window.length() <= TimeDelta::days(400) - TimeDelta::seconds(2));
                coverage.insert(covered(window));
            }
            prop_assert_eq!(coverage.gaps(&span(0, now)), Vec::new());
        }
    }
}
