//! When so many requests will have been sent, if nothing else happens.
//!
//! Runs spend what is left, wait for what comes free within their patience, end, and are begun again
//! when the next permit comes free, as `--wait` does. What a run spends comes free again by the rule
//! of the day.

use std::collections::BTreeMap;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use schemars::JsonSchema;
use serde::Serialize;

use super::ledger;
use super::rule::Rule;

/// Requests to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// Requests of the run that begins now and of those that go on with it.
    pub requests: u64,
    /// Requests that each further run needs before it goes on.
    pub each_run: u64,
    /// Requests that a further run needs where none has sent them for 24 hours.
    pub each_day: u64,
    /// When those were sent last; `None` where they are among `requests`.
    pub sent_daily_at: Option<DateTime<Utc>>,
    /// How long a run waits, all in all, for permits to come free.
    pub patience: TimeDelta,
}

/// When requests are sent, and the last of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Forecast {
    /// Requests in all, those that each further run needs anew among them.
    pub requests: u64,
    /// When the last is sent; `None` where that is never.
    pub done_at: Option<DateTime<Utc>>,
    /// The runs, the first of which begins now.
    pub runs: Vec<ForecastRun>,
}

/// A run that spends what it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ForecastRun {
    /// When it begins.
    pub from: DateTime<Utc>,
    /// Requests it sends.
    pub requests: u64,
}

/// Permits at the moment of a forecast.
#[derive(Debug, Clone)]
pub(super) struct Position {
    pub(super) now: DateTime<Utc>,
    /// Requests that may be sent; `None` where there is no limit.
    pub(super) left: Option<u64>,
    /// Until when none of them may.
    pub(super) blocked_until: Option<DateTime<Utc>>,
    /// Requests counted against a rolling day, by the instant when they count no more.
    pub(super) frees: BTreeMap<DateTime<Utc>, u64>,
}

/// More runs than this nobody waits for.
const MOST_RUNS: usize = 4_000;

/// How long a request takes about, if the provider is quick.
const LATENCY: TimeDelta = TimeDelta::milliseconds(400);

/// Returns when the requests of `demand` are sent.
pub(super) fn forecast(rule: &Rule, position: Position, demand: Demand) -> Forecast {
    let now = position.now;
    let mut course = Course {
        rule,
        demand,
        now,
        free: i64_of(position.left.unwrap_or(u64::MAX)),
        frees: position.frees,
        daily_at: demand.sent_daily_at,
        resets_at: rule.day.next_reset(now),
        owed: demand.requests,
        waited: TimeDelta::zero(),
        runs: vec![ForecastRun { from: now, requests: 0 }],
        requests: demand.requests,
    };
    if let Some(until) = position.blocked_until.filter(|until| *until > now && demand.requests > 0)
    {
        course.wait(until);
    }
    course.come_free();
    let done_at = course.run_to_the_end();
    Forecast { requests: course.requests, done_at, runs: course.runs }
}

fn i64_of(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

struct Course<'a> {
    rule: &'a Rule,
    demand: Demand,
    now: DateTime<Utc>,
    /// Permits that may go.
    free: i64,
    frees: BTreeMap<DateTime<Utc>, u64>,
    /// When what is needed every day was sent last.
    daily_at: Option<DateTime<Utc>>,
    /// When a fixed day ends.
    resets_at: Option<DateTime<Utc>>,
    /// Requests not sent yet.
    owed: u64,
    /// How long the run has waited.
    waited: TimeDelta,
    runs: Vec<ForecastRun>,
    requests: u64,
}

impl Course<'_> {
    fn run_to_the_end(&mut self) -> Option<DateTime<Utc>> {
        loop {
            self.spend();
            if self.owed == 0 {
                return Some(self.now);
            }
            let next = self.next_free()?;
            self.wait(next);
            if self.runs.len() > MOST_RUNS {
                return None;
            }
            self.come_free();
        }
    }

    fn spend(&mut self) {
        let spent = self.owed.min(u64::try_from(self.free).unwrap_or(0));
        if spent == 0 {
            return;
        }
        self.owed -= spent;
        self.daily_at.get_or_insert(self.now);
        self.free -= i64_of(spent);
        self.now += self.takes(spent);
        if let Some(run) = self.runs.last_mut() {
            run.requests += spent;
        }
        if self.resets_at.is_none() {
            *self.frees.entry(ledger::counts_until(self.now)).or_default() += spent;
        }
    }

    /// Returns how long so many requests take, by the rate and by their latency.
    fn takes(&self, requests: u64) -> TimeDelta {
        let times = |length: TimeDelta, count: u64, by: u64| {
            let millis = length.num_milliseconds().saturating_mul(i64_of(count));
            TimeDelta::try_milliseconds(millis / i64_of(by.max(1))).unwrap_or_default()
        };
        let rate = self.rule.rate;
        let by_rate = times(rate.per, requests, u64::from(rate.permits.get()));
        by_rate.max(times(LATENCY, requests, u64::from(self.rule.at_once.get())))
    }

    fn next_free(&self) -> Option<DateTime<Utc>> {
        // A day without any permit never ends.
        self.rule.allowance().filter(|allowance| *allowance > 0)?;
        self.resets_at.or_else(|| self.frees.keys().next().copied())
    }

    /// Waits, in the run where its patience lasts, else in none.
    fn wait(&mut self, until: DateTime<Utc>) {
        let gap = (until - self.now).max(TimeDelta::zero());
        self.now = self.now.max(until);
        if self.waited + gap <= self.demand.patience {
            self.waited += gap;
            return;
        }
        self.waited = TimeDelta::zero();
        // A run that could send nothing leaves all to the next.
        let each_run = match self.runs.last() {
            Some(ForecastRun { requests: 0, .. }) => 0,
            _ => self.demand.each_run,
        } + self.each_day();
        self.owed += each_run;
        self.requests += each_run;
        self.runs.push(ForecastRun { from: self.now, requests: 0 });
    }

    /// Returns what is needed again since it was sent a day ago.
    fn each_day(&mut self) -> u64 {
        let is_due = self.daily_at.is_some_and(|at| self.now - at >= TimeDelta::hours(24));
        if is_due {
            self.daily_at = None;
        }
        if is_due { self.demand.each_day } else { 0 }
    }

    /// Lets all that comes free by now come free.
    fn come_free(&mut self) {
        match self.resets_at {
            Some(reset) if reset <= self.now => {
                self.free = i64::from(self.rule.allowance().unwrap_or(u32::MAX));
                self.resets_at = self.rule.day.next_reset(self.now);
            }
            Some(_) => {}
            None => {
                let later = self.frees.split_off(&(self.now + TimeDelta::nanoseconds(1)));
                let freed: u64 = std::mem::replace(&mut self.frees, later).values().sum();
                self.free = self.free.saturating_add(i64_of(freed));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use chrono::NaiveTime;
    use proptest::prelude::*;

    use super::*;
    use crate::quota::Day;
    use crate::quota::Rate;
    use crate::quota::Reserve;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn rule(per_day: u32, day: Day) -> Rule {
        Rule {
            rate: Rate { permits: NonZeroU32::MIN, per: TimeDelta::seconds(1) },
            per_day: Some(per_day),
            at_once: NonZeroU32::MIN,
            reserve: Reserve::Requests(0),
            day,
        }
    }

    fn from(left: u64) -> Position {
        let now = at("2026-03-01T02:00:00Z");
        Position { now, left: Some(left), blocked_until: None, frees: BTreeMap::new() }
    }

    fn demand(requests: u64, each_run: u64) -> Demand {
        let patience = TimeDelta::hours(1);
        Demand { requests, each_run, each_day: 0, sent_daily_at: None, patience }
    }

    #[test]
    fn what_is_left_today_is_enough() {
        let forecast = forecast(&rule(100, Day::Rolling), from(100), demand(60, 5));
        assert_eq!(forecast.done_at, Some(at("2026-03-01T02:01:00Z")));
        assert_eq!((forecast.requests, forecast.runs.len()), (60, 1));
    }

    #[test]
    fn each_further_day_pays_what_its_run_needs_anew() {
        let forecast = forecast(&rule(100, Day::Rolling), from(100), demand(280, 10));
        let requests: Vec<_> = forecast.runs.iter().map(|run| run.requests).collect();
        assert_eq!(requests, [100, 100, 100]);
        assert_eq!(forecast.requests, 300);
        assert_eq!(forecast.done_at.unwrap().date_naive(), at("2026-03-03T00:00:00Z").date_naive());
    }

    #[test]
    fn permits_that_come_free_within_the_patience_are_waited_for() {
        let mut position = from(0);
        position.frees =
            [(at("2026-03-01T02:30:00Z"), 10), (at("2026-03-01T04:00:00Z"), 90)].into();
        let forecast = forecast(&rule(100, Day::Rolling), position, demand(50, 10));
        let requests: Vec<_> = forecast.runs.iter().map(|run| run.requests).collect();
        assert_eq!(requests, [10, 50]);
        assert_eq!(forecast.runs[1].from, at("2026-03-01T04:00:00Z"));
    }

    #[test]
    fn what_is_needed_once_a_day_is_not_paid_by_every_run() {
        let mut position = from(0);
        let frees = |hour| (at("2026-03-01T00:00:00Z") + TimeDelta::hours(hour), 1);
        position.frees = [5, 9, 13, 17, 21].map(frees).into();
        let demand = Demand { each_day: 1, ..demand(9, 0) };
        let forecast = forecast(&rule(5, Day::Rolling), position, demand);
        assert_eq!(forecast.requests, 10);
        assert!(forecast.runs.len() > 9);
    }

    #[test]
    fn nothing_is_sent_while_the_provider_refuses_everything() {
        let blocked = |until: &str| {
            let position = Position { blocked_until: Some(at(until)), ..from(100) };
            let forecast = forecast(&rule(100, Day::Rolling), position, demand(50, 10));
            forecast.runs.iter().map(|run| (run.from, run.requests)).collect::<Vec<_>>()
        };
        let now = at("2026-03-01T02:00:00Z");
        assert_eq!(blocked("2026-03-01T02:30:00Z"), [(now, 50)]);
        let later = "2026-03-01T22:00:00Z";
        assert_eq!(blocked(later), [(now, 0), (at(later), 50)]);
    }

    #[test]
    fn a_fixed_day_gives_all_at_its_reset() {
        let day = Day::ResetsAt { time: NaiveTime::MIN, zone: "America/New_York".parse().unwrap() };
        let forecast = forecast(&rule(100, day), from(40), demand(700, 0));
        assert_eq!(forecast.runs.len(), 8);
        assert_eq!(forecast.runs[1].from, at("2026-03-01T05:00:00Z"));
        // The clocks are put forward on 8 March.
        assert_eq!(forecast.runs.last().unwrap().from, at("2026-03-07T05:00:00Z"));
    }

    #[test]
    fn runs_that_need_all_there_is_never_end() {
        let endless = forecast(&rule(10, Day::Rolling), from(10), demand(100, 10));
        assert_eq!(endless.done_at, None);
        let none = forecast(&rule(0, Day::Rolling), from(0), demand(1, 0));
        assert_eq!(none.done_at, None);
    }

    proptest! {
        #[test]
        fn no_24_hours_hold_more_than_the_allowance_and_all_is_sent(
            per_day in 2_u32..200,
            requests in 0_u64..2_000,
            left in 0_u64..200,
        ) {
            let mut position = from(left.min(per_day.into()));
            let used = u64::from(per_day) - position.left.unwrap();
            position.frees = [(at("2026-03-01T20:00:00Z"), used)].into();
            let forecast = forecast(&rule(per_day, Day::Rolling), position, demand(requests, 1));
            let sent: u64 = forecast.runs.iter().map(|run| run.requests).sum();
            prop_assert_eq!(sent, forecast.requests);
            for run in &forecast.runs {
                let within = |other: &&ForecastRun| {
                    other.from >= run.from && other.from < run.from + TimeDelta::hours(23)
                };
                let sent: u64 =
                    forecast.runs.iter().filter(within).map(|run| run.requests).sum();
                prop_assert!(sent <= u64::from(per_day));
            }
        }
    }
}
