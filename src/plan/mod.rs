//! Decides what a run would read: walks, why each is there, and what it costs.
//!
//! Pure: settings, what was read so far, and an instant go in; the same input gives the same plan.
//! Open walks come first, with their own bounds and page size; then new time, together with the
//! days that every run reads again; then history, newest first; then what is to be read again, the
//! stalest first. Spans of time are the matter of `windows`, listings without dates of `scans`, and
//! what each costs of `price`.

mod price;
mod scans;
mod windows;

use std::collections::BTreeMap;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use schemars::JsonSchema;
use serde::Serialize;

pub use self::price::Basis;
use self::price::Price;
pub use self::price::Prices;
pub use self::price::Probed;
pub use self::price::Requests;
pub use self::scans::OVERLAP;
use crate::checkpoint::OpenWalk;
use crate::checkpoint::SourceProgress;
use crate::record::DownTo;
use crate::record::Reason;
use crate::record::Scope;
use crate::record::ScopeKey;
use crate::window::Window;

/// What to plan for one source.
#[derive(Debug)]
pub struct Request<'a> {
    /// The scopes of the source as the job and the provider have them now.
    pub scopes: &'a [Scope],
    /// What was read so far.
    pub progress: &'a SourceProgress,
    /// Totals that the provider was asked for, by scope.
    pub probed: &'a BTreeMap<ScopeKey, Vec<Probed>>,
    /// Ranges that backfills under way are reading: a sync leaves to them what was never read of these,
    /// and the walks they have begun.
    pub left_to_backfills: &'a [Window],
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
    /// What is read again less often, the most often first.
    pub tiers: Vec<Tier>,
    /// Permits that may go to what no tier reaches; 0 for none.
    pub spare: u64,
    /// How long an open walk is gone on with after its last page.
    pub walk_max_age: TimeDelta,
    /// Whether history is read from its start on, instead of back to it.
    pub oldest_first: bool,
}

impl Settings {
    /// Returns the longest window of one request, if the provider takes what the job asks for.
    pub fn longest_window(&self) -> TimeDelta {
        windows::longest_window(None, self.window_days)
    }
}

/// How far back is read again, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tier {
    /// What its walks are called.
    pub reason: Reason,
    /// How far back it reaches; `None` for all. What a tier before it reaches is left to that one.
    pub reach: Option<TimeDelta>,
    /// How old a reading must be to be due.
    pub every: TimeDelta,
}

/// Half a day less than the week or the month of a tier, so that a nightly run that begins a little
/// earlier does not put it off by a day.
const EARLIER: TimeDelta = TimeDelta::hours(12);

impl Tier {
    /// Returns what is read again every week, back to `reach`; `None` for all.
    pub fn weekly(reach: Option<TimeDelta>) -> Self {
        Self { reason: Reason::Weekly, reach, every: TimeDelta::days(7) - EARLIER }
    }

    /// Returns what is read again every thirty days, back to `reach`; `None` for all.
    pub fn monthly(reach: Option<TimeDelta>) -> Self {
        Self { reason: Reason::Monthly, reach, every: TimeDelta::days(30) - EARLIER }
    }

    /// Tells whether it reads anything at all.
    fn reaches(&self) -> bool {
        self.reach.is_none_or(|reach| reach > TimeDelta::zero())
    }
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PlannedWalk {
    /// What it reads.
    pub scope: Scope,
    /// The span of creation times.
    pub window: Option<Window>,
    /// Rows asked for in one request.
    pub page_size: u32,
    /// Why it is there.
    pub reason: Reason,
    /// Whether it reads the newest there is, whatever else it is for.
    pub is_newest: bool,
    /// Where it ends before the end of the listing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub down_to: Option<DownTo>,
    /// The walk it goes on with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume: Option<OpenWalk>,
    /// What it costs.
    pub requests: Requests,
    /// What that rests on.
    pub basis: Basis,
    /// When the stalest of what it reads was read last; `None` where some of it never was.
    pub as_of: Option<DateTime<Utc>>,
}

/// An open walk that is not gone on with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct DroppedWalk {
    /// The walk.
    pub walk: OpenWalk,
    /// Why not.
    pub why: &'static str,
}

impl SourcePlan {
    /// Returns what all walks cost together.
    pub fn requests(&self) -> Requests {
        self.requests_for(|_| true)
    }

    /// Returns what the walks with such a reason cost together.
    pub fn requests_for(&self, is_meant: impl Fn(Reason) -> bool) -> Requests {
        let walks = self.walks.iter().filter(|walk| is_meant(walk.reason));
        walks.map(|walk| walk.requests).fold(Requests::Known(0), Requests::plus)
    }
}

/// Plans one source.
pub fn plan(request: &Request<'_>) -> SourcePlan {
    let mut plan = SourcePlan::default();
    let prices = Prices::new(request);
    let open = go_on_or_drop(request, &prices, &mut plan);
    if request.settings.start.is_none() {
        let (walks, left_out) = scans::plan_scans(request, &open);
        plan.walks.extend(walks);
        plan.left_out = left_out;
    } else {
        plan.walks.extend(windows::plan_windows(request, &prices, &open));
    }
    plan
}

/// Returns what each run that goes on with such a plan on another day costs, before it goes on: the
/// time since, or the page that tells whether a listing still stands.
pub fn each_run(request: &Request<'_>) -> u64 {
    match request.settings.start {
        Some(_) if request.task == Task::Sync => windows::each_run(request),
        Some(_) => 0,
        None => 1,
    }
}

/// Puts the open walks first that still fit, and returns them.
fn go_on_or_drop(request: &Request<'_>, prices: &Prices, plan: &mut SourcePlan) -> Vec<OpenWalk> {
    let mut open = Vec::new();
    for walk in &request.progress.open_walks {
        let why = if walk.walk.reason == Reason::Lookup {
            Some("leads asked for by id are asked for anew")
        } else if !request.scopes.contains(&walk.walk.scope) {
            Some("its scope is no longer in the job or no longer listed")
        } else if request.now - last_advance(walk) > request.settings.walk_max_age {
            Some("it got no further for too long")
        } else {
            None
        };
        match why {
            Some(why) => plan.dropped.push(DroppedWalk { walk: walk.clone(), why }),
            None => open.push(walk.clone()),
        }
    }
    let ours = open.iter().filter(|open| !is_left_to_backfill(request, open));
    plan.walks.extend(ours.map(|open| {
        let Price { requests, basis } = price_of_rest(request, prices, open);
        PlannedWalk {
            scope: open.walk.scope.clone(),
            window: open.walk.window,
            page_size: open.walk.page_size,
            reason: Reason::Resume,
            is_newest: false,
            down_to: open.walk.down_to,
            resume: Some(open.clone()),
            requests,
            basis,
            as_of: None,
        }
    }));
    open
}

/// A listing that takes longer than the age of a walk, page by page as the days' permits allow, is no
/// older for it: begun again and again, it would never end.
fn last_advance(open: &OpenWalk) -> DateTime<Utc> {
    open.advanced_at.map_or(open.walk.opened_at, |at| at.max(open.walk.opened_at))
}

/// Tells whether a sync leaves an open walk to the backfill that has begun it.
fn is_left_to_backfill(request: &Request<'_>, open: &OpenWalk) -> bool {
    let is_in_range = |window: Window| {
        request.left_to_backfills.iter().any(|range| range.intersect(&window).is_some())
    };
    request.task == Task::Sync
        && open.walk.reason == Reason::Backfill
        && open.walk.window.is_some_and(is_in_range)
}

/// Returns what is left to pay of an open walk.
fn price_of_rest(request: &Request<'_>, prices: &Prices, open: &OpenWalk) -> Price {
    let left = |pages: u64| pages.saturating_sub(open.loaded_pages);
    if let Some(rows) = open.stated_rows {
        let pages = left(price::pages(rows, open.walk.page_size));
        return Price { requests: Requests::Known(pages), basis: Basis::Counted };
    }
    if let Some(window) = open.walk.window {
        return prices.of_rest(&open.walk.scope.key(), &window, open.loaded_pages);
    }
    let scope = request.progress.scopes.get(&open.walk.scope.key());
    match (scope.and_then(|scope| scope.scan.as_ref()), open.walk.down_to) {
        // The last page held is asked for once more.
        (Some(scan), None) => Price {
            requests: Requests::About(left(scan.pages).saturating_add(1)),
            basis: Basis::Held,
        },
        _ => Price { requests: Requests::AtLeast(0), basis: Basis::Nothing },
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
            tiers: Vec::new(),
            spare: 0,
            walk_max_age: TimeDelta::hours(48),
            oldest_first: false,
        }
    }

    fn covered(window: Window) -> Covered {
        let as_of = window.end();
        Covered { window, as_of, rows: Some(6_000), share: None, reconciled: true, holes: 0 }
    }

    fn progress(windows: &[Window]) -> SourceProgress {
        let mut progress = SourceProgress::default();
        let state = progress.scopes.entry(scope().key()).or_default();
        windows.iter().for_each(|window| state.coverage.insert(covered(*window)));
        progress
    }

    fn plan_at(now: i64, progress: &SourceProgress, task: Task) -> SourcePlan {
        plan_with(settings(), now, progress, task)
    }

    fn plan_with(
        settings: Settings,
        now: i64,
        progress: &SourceProgress,
        task: Task,
    ) -> SourcePlan {
        let (scopes, probed, now) = ([scope()], BTreeMap::new(), day(now));
        let left_to_backfills = &[];
        let (scopes, probed) = (&scopes, &probed);
        plan(&Request { scopes, progress, probed, left_to_backfills, now, settings, task })
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
        progress.open_walks.push(OpenWalk {
            walk,
            loaded_pages: 0,
            stated_rows: None,
            advanced_at: None,
        });
        let plan = plan_at(500, &progress, Task::Sync);
        let expected = [
            (Reason::Resume, span(100, 499)),
            (Reason::NewTime, span(499, 500)),
            (Reason::History, span(0, 100)),
        ];
        assert_eq!(windows(&plan), expected);

        let later = plan_at(502, &progress, Task::Sync);
        assert_eq!((later.dropped.len(), later.walks[0].reason), (1, Reason::NewTime));
        progress.open_walks[0].advanced_at = Some(day(501));
        let later = plan_at(502, &progress, Task::Sync);
        assert_eq!((later.dropped.len(), later.walks[0].reason), (0, Reason::Resume));
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
        progress.open_walks.push(OpenWalk {
            walk,
            loaded_pages: 0,
            stated_rows: None,
            advanced_at: None,
        });
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
        let prices: Vec<_> = walks.iter().map(|walk| (walk.requests, walk.basis)).collect();
        assert_eq!(prices, [(Requests::About(3), Basis::Held), (Requests::About(1), Basis::Held)]);
        let held = progress(&[span(200, 500)]);
        let task = Task::Backfill { range: span(200, 500), again_before: Some(day(501)) };
        assert_eq!(plan_at(502, &held, task).requests(), Requests::Known(3));
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
