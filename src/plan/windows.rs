//! Decides which spans of time are read, of listings that can be asked for by date of creation.
//!
//! New time and the days that every run reads again are one span; what was never read comes next.
//! Behind them lie the tiers: each takes the days that the tiers before it do not reach, whole
//! windows at a time, once the stalest day of a window is due. Days that no tier reaches are read
//! with spare permits.

use std::cmp::Reverse;

use chrono::DateTime;
use chrono::SubsecRound;
use chrono::TimeDelta;
use chrono::Utc;

use super::PlannedWalk;
use super::Request;
use super::Requests;
use super::Task;
use super::Tier;
use super::price::Price;
use super::price::Prices;
use crate::checkpoint::OpenWalk;
use crate::checkpoint::ScopeProgress;
use crate::record::Reason;
use crate::record::Scope;
use crate::window::Coverage;
use crate::window::Covered;
use crate::window::Window;

/// What crosses from one tier to the next within its time, at least.
const FEW_DAYS: TimeDelta = TimeDelta::days(8);

/// A span to be read, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    window: Window,
    reason: Reason,
    /// When the stalest of it was read last.
    as_of: Option<DateTime<Utc>>,
}

impl Span {
    fn new(window: Window, reason: Reason) -> Self {
        Self { window, reason, as_of: None }
    }
}

/// One scope being planned.
struct ScopePlan<'a> {
    request: &'a Request<'a>,
    scope: &'a Scope,
    coverage: &'a Coverage,
    /// The spans that open walks read.
    open: Vec<Window>,
    prices: &'a Prices,
    /// The longest span of one request.
    longest: TimeDelta,
    /// Where the newest window ends.
    horizon: DateTime<Utc>,
}

/// Returns the walks of all scopes that no open walk reads, in the order they are read in.
pub(super) fn plan_windows(
    request: &Request<'_>,
    prices: &Prices,
    open: &[OpenWalk],
) -> Vec<PlannedWalk> {
    let none = ScopeProgress::default();
    let settings = &request.settings;
    let horizon = (request.now - settings.settle).trunc_subsecs(0);
    let mut walks: Vec<PlannedWalk> = Vec::new();
    for scope in request.scopes {
        let progress = request.progress.scopes.get(&scope.key()).unwrap_or(&none);
        let of_scope = open.iter().filter(|open| open.walk.scope == *scope);
        let plan = ScopePlan {
            request,
            scope,
            coverage: &progress.coverage,
            open: of_scope.filter_map(|open| open.walk.window).collect(),
            prices,
            longest: longest_window(progress.window_days, settings.window_days),
            horizon,
        };
        walks.extend(plan.walks());
    }
    sort(&mut walks, settings.oldest_first);
    keep_to_spare(&mut walks, settings.spare);
    walks
}

/// Returns what the new time of a run a day later costs, when all is read: what each run needs again.
pub(super) fn each_run(request: &Request<'_>) -> u64 {
    let Some(start) = request.settings.start else { return 0 };
    let prices = Prices::new(request);
    let horizon = request.now - request.settings.settle;
    let from = request.settings.every_run.map_or(start, |back| horizon - back);
    let Some(window) = Window::new(from.max(start), horizon) else { return 0 };
    let price = |scope: &Scope| {
        let windows = window.split_from_end(longest_window(None, request.settings.window_days));
        windows.iter().map(|window| prices.of(&scope.key(), window).requests.count()).sum::<u64>()
    };
    request.scopes.iter().map(price).sum()
}

/// New time, then what was never read, then what is due, the stalest first, then what is not.
fn rank(walk: &PlannedWalk) -> u8 {
    match walk.reason {
        _ if walk.is_newest => 0,
        Reason::NewTime => 0,
        Reason::Weekly | Reason::Monthly => 2,
        Reason::Spare => 3,
        _ => 1,
    }
}

/// Puts walks into the order they are read in: by rank, and in each rank the newest first.
fn sort(walks: &mut [PlannedWalk], oldest_first: bool) {
    walks.sort_by_key(|walk| {
        let rank = rank(walk);
        let end = walk.window.map(|window| window.end());
        let before_all = match rank {
            1 if oldest_first => end,
            2 | 3 => walk.as_of,
            _ => None,
        };
        (rank, before_all, Reverse(end))
    });
}

/// Leaves of the walks for spare permits those that are paid by them.
fn keep_to_spare(walks: &mut Vec<PlannedWalk>, spare: u64) {
    let mut left = spare;
    walks.retain(|walk| {
        let price = walk.requests.count().max(1);
        let is_known = !matches!(walk.requests, Requests::AtLeast(_));
        let is_kept = walk.reason != Reason::Spare || (is_known && price <= left);
        if is_kept && walk.reason == Reason::Spare {
            left -= price;
        }
        is_kept
    });
}

impl ScopePlan<'_> {
    fn walks(&self) -> Vec<PlannedWalk> {
        let spans = self.spans().into_iter();
        let pieces = spans.flat_map(|span| {
            let pieces = span.window.split_from_end(self.longest).into_iter();
            pieces.map(move |window| Span { window, ..span })
        });
        pieces.map(|piece| self.walk(piece)).collect()
    }

    fn walk(&self, span: Span) -> PlannedWalk {
        let Price { requests, basis } = self.prices.of(&self.scope.key(), &span.window);
        PlannedWalk {
            scope: self.scope.clone(),
            window: Some(span.window),
            page_size: self.request.settings.page_size,
            reason: span.reason,
            is_newest: span.window.end() == self.horizon,
            down_to: None,
            resume: None,
            requests,
            basis,
            as_of: span.as_of.or_else(|| self.coverage.as_of(&span.window)),
        }
    }

    /// Returns the spans that must be read, with the reason of each.
    fn spans(&self) -> Vec<Span> {
        let Some(start) = self.request.settings.start else { return Vec::new() };
        match &self.request.task {
            Task::Sync => self.spans_of_sync(start),
            Task::Backfill { range, again_before } => self.spans_of_range(range, *again_before),
        }
    }

    fn spans_of_sync(&self, start: DateTime<Utc>) -> Vec<Span> {
        let settings = &self.request.settings;
        let Some(whole) = Window::new(start, self.horizon) else { return Vec::new() };
        let Some(covered_to) = self.coverage.end() else {
            let mut spans = self.not_open(vec![whole]);
            spans.retain(|span| !self.is_sliver(span));
            return self.first_reading(spans);
        };
        let again = settings.every_run.map_or(start, |back| self.horizon - back);
        let from = again.min(covered_to).max(start);
        let fresh = self.not_open(Window::new(from, self.horizon).into_iter().collect());
        let fresh = self.not_left_to_backfills(fresh);
        let fresh = fresh.into_iter().filter(|window| !self.is_sliver(window));
        let mut spans: Vec<Span> = fresh.map(|new| Span::new(new, Reason::NewTime)).collect();
        let Some(before) = Window::new(start, from) else { return spans };
        let gaps = self.not_open(self.coverage.gaps(&before));
        let gaps = self.not_left_to_backfills(gaps).into_iter().rev();
        spans.extend(gaps.map(|gap| Span::new(gap, Reason::History)));
        let stale = self.stale(&before);
        spans.extend(stale);
        self.join_first(spans, from)
    }

    fn spans_of_range(&self, range: &Window, again_before: Option<DateTime<Utc>>) -> Vec<Span> {
        let end = range.end().min(self.horizon);
        let Some(range) = Window::new(range.start(), end) else { return Vec::new() };
        let read_since = |at| again_before.is_none_or(|before| at >= before);
        let mut recent = Coverage::default();
        for span in self.coverage.spans().iter().filter(|span| read_since(span.as_of)) {
            recent.insert(span.clone());
        }
        let gaps = self.not_open(recent.gaps(&range));
        gaps.into_iter().rev().map(|gap| Span::new(gap, Reason::Backfill)).collect()
    }

    /// Returns what of `before`, the days that the run does not read anyway, is to be read again: the
    /// days of each tier that are due, and those that no tier reaches.
    fn stale(&self, before: &Window) -> Vec<Span> {
        let (mut spans, mut end) = (Vec::new(), before.end());
        for tier in &self.request.settings.tiers {
            let start = self.start_of(tier, before);
            if let Some(range) = Window::new(start, end) {
                spans.extend(self.due(&range, tier));
                end = start;
            }
        }
        if let Some(beyond) = Window::new(before.start(), end) {
            let tier = Tier { reason: Reason::Spare, ..Tier::monthly(None) };
            spans.extend(self.due(&beyond, &tier));
        }
        spans
    }

    /// Returns where a tier begins. One that reaches just about as far as a request may is as long
    /// as that: the seconds beyond would cost a request of their own.
    fn start_of(&self, tier: &Tier, before: &Window) -> DateTime<Utc> {
        let Some(reach) = tier.reach else { return before.start() };
        let is_longest = (reach - self.longest).abs() < TimeDelta::hours(1);
        let reach = if is_longest { self.longest } else { reach };
        (self.horizon - reach).max(before.start())
    }

    /// Returns what was read of `range`, window by window, where enough of one is as old as the tier
    /// allows. A window is read whole then, so that its days are due together again.
    fn due(&self, range: &Window, tier: &Tier) -> Vec<Span> {
        let mut spans = Vec::new();
        for window in range.split_from_end(self.longest) {
            let gaps = self.coverage.gaps(&window);
            for part in self.not_open(without(vec![window], &gaps)) {
                if self.is_due(&part, tier) {
                    let as_of = self.coverage.as_of(&part);
                    spans.push(Span { window: part, reason: tier.reason, as_of });
                }
            }
        }
        spans
    }

    /// Tells whether enough of a window is as old as a tier allows. Days that came over from the tier
    /// before were read at another time: a few of them wait for the rest.
    fn is_due(&self, window: &Window, tier: &Tier) -> bool {
        let is_old = |span: &&Covered| self.request.now - span.as_of >= tier.every;
        let old = self.coverage.spans().iter().filter(is_old);
        let old = old.filter_map(|span| Some(span.window.intersect(window)?.length()));
        old.sum::<TimeDelta>() >= FEW_DAYS.min(window.length() / 2)
    }

    /// Joins what is new, from `from` on, with what is due just before it, where both fit one page:
    /// one request answers for both.
    fn join_first(&self, mut spans: Vec<Span>, from: DateTime<Utc>) -> Vec<Span> {
        let is_new = |span: &Span| span.window.start() == from && span.reason == Reason::NewTime;
        let is_due = |span: &Span| span.window.end() == from && span.reason == Reason::Weekly;
        let new = spans.iter().position(is_new).zip(spans.iter().position(is_due));
        let Some((new, due)) = new else { return spans };
        let joined = Window::new(spans[due].window.start(), spans[new].window.end());
        let fits = |joined: &Window| {
            let price = self.prices.of(&self.scope.key(), joined).requests;
            joined.length() <= self.longest
                && matches!(price, Requests::Known(1) | Requests::About(1))
        };
        if let Some(window) = joined.filter(fits) {
            spans[new] = Span { window, ..spans[due] };
            spans.remove(due);
        }
        spans
    }

    /// Where nothing was read yet, the newest window is new time and all before it is history, of which
    /// backfills under way may read some.
    fn first_reading(&self, spans: Vec<Window>) -> Vec<Span> {
        let longest = longest_window(None, self.request.settings.window_days);
        let spans = self.not_left_to_backfills(spans);
        let pieces = spans.into_iter().rev().flat_map(|span| span.split_from_end(longest));
        let reason = |piece: &Window| match piece.end() == self.horizon {
            true => Reason::NewTime,
            false => Reason::History,
        };
        pieces.map(|piece| Span::new(piece, reason(&piece))).collect()
    }

    /// What backfills under way read is left to them, but for the days of every run.
    fn not_left_to_backfills(&self, spans: Vec<Window>) -> Vec<Window> {
        let every_run = self.request.settings.every_run;
        let until = every_run.map_or(self.horizon, |back| self.horizon - back);
        let left = self.request.left_to_backfills.iter();
        let left = left.filter_map(|range| Window::new(range.start(), range.end().min(until)));
        without(spans, &left.collect::<Vec<_>>())
    }

    fn not_open(&self, spans: Vec<Window>) -> Vec<Window> {
        without(spans, &self.open)
    }

    /// The minutes since an open walk's horizon are left to the next run: a request a scope is too
    /// much for them when a run goes on soon after it was stopped.
    fn is_sliver(&self, span: &Window) -> bool {
        let follows = self.open.iter().any(|open| open.end() == span.start());
        span.length() < TimeDelta::hours(1) && follows
    }
}

fn without(spans: Vec<Window>, taken: &[Window]) -> Vec<Window> {
    taken
        .iter()
        .fold(spans, |spans, taken| spans.iter().flat_map(|span| span.without(taken)).collect())
}

/// A request reaches a second beyond its window on both sides, inside the days allowed.
pub(super) fn longest_window(refused_above: Option<u32>, window_days: u32) -> TimeDelta {
    let days = refused_above.map_or(window_days, |days| days.min(window_days)).max(1);
    TimeDelta::days(i64::from(days)) - TimeDelta::seconds(2)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::checkpoint::SourceProgress;
    use crate::plan::Basis;
    use crate::plan::Probed;
    use crate::plan::Settings;
    use crate::plan::plan;
    use proptest::prelude::*;

    fn day(day: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::days(day)
    }

    fn span(start: i64, end: i64) -> Window {
        Window::new(day(start), day(end)).unwrap()
    }

    fn scope(profile: u32) -> Scope {
        Scope {
            source: "acme".parse().unwrap(),
            stream: "leads".into(),
            partition: format!("profile:{profile}"),
            query: String::new(),
            list: String::new(),
        }
    }

    fn settings() -> Settings {
        Settings {
            start: Some(day(0)),
            window_days: 400,
            page_size: 100,
            settle: TimeDelta::zero(),
            every_run: Some(TimeDelta::days(30)),
            tiers: vec![Tier::weekly(Some(TimeDelta::days(400))), Tier::monthly(None)],
            spare: 0,
            walk_max_age: TimeDelta::hours(48),
            oldest_first: false,
        }
    }

    /// A history of which each span was read on a day, with so many rows a day.
    struct History {
        progress: SourceProgress,
        probed: BTreeMap<crate::record::ScopeKey, Vec<Probed>>,
        rows_a_day: u64,
    }

    impl History {
        fn new(rows_a_day: u64) -> Self {
            let probed = BTreeMap::new();
            Self { progress: SourceProgress::default(), probed, rows_a_day }
        }

        fn read(&mut self, profile: u32, window: Window, on: i64) {
            let days = u64::try_from(window.length().num_days()).unwrap();
            let rows = Some((days + 1) * self.rows_a_day);
            let as_of = day(on);
            let read = Covered { window, as_of, rows, share: None, reconciled: true, holes: 0 };
            let scope = self.progress.scopes.entry(scope(profile).key()).or_default();
            scope.coverage.insert(read);
            scope.coverage.coalesce(TimeDelta::days(400), None, as_of);
        }

        fn plan(&self, now: i64, settings: Settings) -> Vec<PlannedWalk> {
            self.plan_of(&[scope(1)], now, settings)
        }

        fn plan_of(&self, scopes: &[Scope], now: i64, settings: Settings) -> Vec<PlannedWalk> {
            let (progress, probed, task) = (&self.progress, &self.probed, Task::Sync);
            let now = day(now);
            let left_to_backfills = &[];
            let request =
                Request { scopes, progress, probed, left_to_backfills, now, settings, task };
            plan(&request).walks
        }

        /// Reads all that a plan says, as a run of that day would.
        fn carry_out(&mut self, now: i64, settings: Settings) -> Vec<PlannedWalk> {
            let walks = self.plan(now, settings);
            walks.iter().for_each(|walk| self.read(1, walk.window.unwrap(), now));
            walks
        }
    }

    fn said(walks: &[PlannedWalk]) -> Vec<(Reason, i64, i64)> {
        let days = |at: DateTime<Utc>| (at - DateTime::UNIX_EPOCH).num_days();
        let said = |walk: &PlannedWalk| {
            let window = walk.window.unwrap();
            (walk.reason, days(window.start()), days(window.end()))
        };
        walks.iter().map(said).collect()
    }

    #[test]
    fn a_tier_is_read_once_it_is_due_and_then_as_a_whole() {
        let mut history = History::new(50);
        history.read(1, span(0, 2_000), 2_000);
        for now in 2_001..2_007 {
            assert_eq!(
                said(&history.carry_out(now, settings())),
                [(Reason::NewTime, now - 30, now)]
            );
        }
        let weekly = history.carry_out(2_007, settings());
        assert_eq!(
            said(&weekly),
            [(Reason::NewTime, 1_977, 2_007), (Reason::Weekly, 1_607, 1_977)]
        );
        assert_eq!(weekly[1].as_of, Some(day(2_000)));
        for now in 2_008..2_014 {
            assert_eq!(history.carry_out(now, settings()).len(), 1, "on day {now}");
        }
    }

    #[test]
    fn what_lies_beyond_the_weekly_days_comes_round_every_month() {
        let mut history = History::new(50);
        history.read(1, span(0, 1_000), 1_000);
        let mut by_reason: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
        for now in 1_001..1_100 {
            for walk in history.carry_out(now, settings()) {
                by_reason.entry(walk.reason.describe()).or_default().push(now);
            }
        }
        assert_eq!(
            by_reason[Reason::Monthly.describe()],
            [1_030, 1_030, 1_060, 1_060, 1_090, 1_090]
        );
        let weekly: Vec<i64> = (1_007..1_100).step_by(7).collect();
        assert_eq!(by_reason[Reason::Weekly.describe()], weekly);
    }

    #[test]
    fn the_week_costs_nothing_where_it_fits_the_page_of_the_new_days() {
        let mut history = History::new(0);
        history.read(1, span(0, 2_000), 2_000);
        let walks = history.plan(2_007, settings());
        assert_eq!(said(&walks), [(Reason::Weekly, 1_607, 2_007)]);
        assert!(walks[0].window.unwrap().length() <= TimeDelta::days(400) - TimeDelta::seconds(2));
    }

    #[test]
    fn the_stalest_comes_first_among_what_is_due_and_never_before_history() {
        let mut history = History::new(50);
        history.read(1, span(500, 2_000), 1_990);
        history.read(2, span(0, 2_000), 1_980);
        let walks = history.plan_of(&[scope(1), scope(2)], 2_000, settings());
        let order: Vec<_> =
            walks.iter().map(|walk| (walk.reason, walk.scope.partition.as_str())).collect();
        assert_eq!(
            order,
            [
                (Reason::NewTime, "profile:1"),
                (Reason::NewTime, "profile:2"),
                (Reason::History, "profile:1"),
                (Reason::History, "profile:1"),
                (Reason::Weekly, "profile:2"),
                (Reason::Weekly, "profile:1"),
            ]
        );
    }

    #[test]
    fn spare_permits_go_to_the_stalest_of_what_no_tier_reaches_and_no_further() {
        let mut history = History::new(1);
        history.read(1, span(10, 450), 1_800);
        history.read(1, span(450, 790), 1_900);
        history.read(1, span(790, 2_000), 1_999);
        let year = Some(TimeDelta::days(400));
        let tiers = vec![Tier::weekly(year), Tier::monthly(year)];
        let stalest = |spare| {
            let settings =
                Settings { start: Some(day(10)), tiers: tiers.clone(), spare, ..settings() };
            let walks = history.plan(2_000, settings);
            assert_eq!(walks[0].reason, Reason::NewTime);
            let stale = walks[1..].iter();
            stale.map(|walk| (walk.reason, walk.as_of, walk.requests.count())).collect::<Vec<_>>()
        };
        // Windows of 400 days from 1,600 back; the newest two are fresh, but for a few days.
        let newer = (Reason::Spare, Some(day(1_800)), 5);
        let older = (Reason::Spare, Some(day(1_800)), 4);
        assert_eq!(stalest(3), []);
        assert_eq!(stalest(8), [newer]);
        assert_eq!(stalest(100), [newer, older]);
    }

    #[test]
    fn history_is_read_from_its_start_on_where_that_is_asked_for() {
        let history = History::new(1);
        let walks = history.plan(1_000, Settings { oldest_first: true, ..settings() });
        let ends: Vec<_> = said(&walks).iter().map(|(_, _, end)| *end).collect();
        assert_eq!((ends[0], ends.len()), (1_000, 3));
        assert!(ends[1] < ends[2], "{ends:?}");
    }

    #[test]
    fn a_price_says_what_it_rests_on() {
        let mut history = History::new(10);
        history.read(1, span(500, 900), 900);
        let window = span(100, 500);
        let probe = Probed { window, rows: 1_234, at: day(900) };
        history.probed.insert(scope(1).key(), vec![probe]);
        let price = |profile, window| {
            let scopes = [scope(1), scope(2)];
            let (progress, probed, task) = (&history.progress, &history.probed, Task::Sync);
            let (now, settings) = (day(900), settings());
            let (scopes, left_to_backfills) = (&scopes, &[]);
            let request =
                Request { scopes, progress, probed, left_to_backfills, now, settings, task };
            let price = Prices::new(&request).of(&scope(profile).key(), &window);
            (price.requests, price.basis)
        };
        assert_eq!(price(1, span(500, 900)), (Requests::Known(41), Basis::Counted));
        assert_eq!(price(1, span(100, 500)), (Requests::Known(13), Basis::Counted));
        assert_eq!(price(1, span(100, 900)), (Requests::About(53), Basis::Held));
        assert_eq!(price(1, span(700, 900)), (Requests::About(21), Basis::Held));
        assert_eq!(price(1, span(900, 1_000)), (Requests::About(11), Basis::Nearby));
        let (requests, basis) = price(2, span(0, 100));
        assert!((6..=8).contains(&requests.count()), "{requests:?}");
        assert_eq!(basis, Basis::OtherScopes);
    }

    #[test]
    fn nothing_counted_is_priced_by_the_least_it_can_be() {
        let history = History::new(1);
        let walks = history.plan(100, settings());
        assert_eq!((walks[0].requests, walks[0].basis), (Requests::AtLeast(1), Basis::Nothing));
    }

    proptest! {
        /// Whatever was read when: with permits enough, no day is older than its tier allows after a
        /// run, no day is read twice in it, and what is read again is within its tier.
        #[test]
        fn after_a_run_nothing_is_older_than_its_tier_allows(
            reads in prop::collection::vec((0_i64..1_400, 1_i64..900, 0_i64..200), 0..8),
            now in 1_400_i64..1_600,
        ) {
            let mut history = History::new(3);
            for (start, length, ago) in reads {
                let read_on = now - ago;
                if let Some(window) = Window::new(day(start), day((start + length).min(read_on))) {
                    history.read(1, window, read_on);
                }
            }
            let walks = history.carry_out(now, settings());
            for (index, walk) in walks.iter().enumerate() {
                let window = walk.window.unwrap();
                let again = walks[..index].iter().filter_map(|walk| walk.window);
                prop_assert!(again.into_iter().all(|other| other.intersect(&window).is_none()));
            }
            let coverage = &history.progress.scopes[&scope(1).key()].coverage;
            prop_assert_eq!(coverage.as_of(&span(now - 30, now)), Some(day(now)));
            let older_than = |days: i64, from: i64, to: i64| {
                let old = coverage.spans().iter().filter(|span| span.as_of < day(now - days));
                let old = old.filter_map(|old| old.window.intersect(&span(from, to)));
                old.map(|window| window.length()).sum::<TimeDelta>()
            };
            let few = FEW_DAYS + TimeDelta::seconds(9);
            prop_assert!(older_than(7, now - 399, now - 30) < few);
            let windows = i32::try_from(now / 400).unwrap();
            prop_assert!(older_than(30, 0, now - 400) < few * windows);
        }
    }
}
