//! The rate where processes share it: how it lies in the ledger.
//!
//! A [`Pace`] is the debt of a [`Bucket`]: the time until it is full again. A process takes *places*,
//! a few at a time, each with the moment from which its request may go; a place adds one interval to
//! the debt, and time pays it off. Whoever took places says so when it asks again; until then, or
//! until they lapse, the debt does not sink below what they are worth.
//!
//! That keeps the law: in any span go at most the places that were in somebody's hands when it began,
//! and those that were taken since and fell due in it. The first are no more than the debt of that
//! moment, and the second no more than what a bucket with that debt gives in a span: together, no
//! more than the rate. (Where there are only the first, they are no more either, since nobody takes
//! places further ahead than a span.) So it does not matter when a place is used, how long a process
//! was held up, or how many there are, and one process alone goes as fast as the rate allows.
//!
//! Whoever finds no place in reach stands in line for one, and nobody takes places past those who
//! wait.
//!
//! All instants are of the clock of whoever asks. A clock that is put back pays nothing off and makes
//! no debt longer.

use std::collections::VecDeque;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use serde::Deserialize;
use serde::Serialize;

use super::rate::Bucket;
use super::rule::Rate;

/// How far ahead places are given, or a span of the rate where that is shorter: longer, and one process
/// keeps others waiting; shorter, and it asks more often.
const AHEAD: TimeDelta = TimeDelta::seconds(2);
/// The least time to wait before asking again: what others hold does not pass with time alone.
const ASK_AGAIN: TimeDelta = TimeDelta::milliseconds(100);
/// How late a process may come back and keep its turn. If it died, the others wait for so long.
const LATE: TimeDelta = TimeDelta::seconds(1);
/// For how long a place may be used, once the last of those taken with it is due.
const HELD: TimeDelta = TimeDelta::seconds(3);
/// How much longer a place counts as held: a process may be slow, or its clock put back by as much
/// before it notices.
const MARGIN: TimeDelta = TimeDelta::seconds(5);
/// A rate over a shorter span stays in the process: a file cannot keep up with it, and neither can
/// the network between a process and its provider.
const SHORTEST: TimeDelta = TimeDelta::seconds(1);

/// Tells whether processes share a rate by the ledger.
pub(super) fn is_shared(rate: Rate) -> bool {
    rate.per >= SHORTEST
}

/// What is taken of a rate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pace {
    /// The clock of whoever asked last.
    at: DateTime<Utc>,
    /// Nanoseconds until the bucket is full.
    debt: u64,
    /// Places taken of which nobody has said yet that they are used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    held: Vec<Held>,
    /// Processes that were sent away, in the order in which they may come back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    line: Vec<Waiting>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    id: u64,
    /// Nanoseconds of debt they are worth.
    worth: u64,
    /// When they have lapsed for certain.
    until: DateTime<Utc>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Waiting {
    ticket: u64,
    /// Until when the others wait for it.
    until: DateTime<Utc>,
}

/// No place is to be had yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Later {
    /// How long to wait before asking again,
    pub(super) wait: TimeDelta,
    /// and what to say then, to keep the turn.
    pub(super) ticket: u64,
}

/// Places for requests, in the order they fall due.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Places {
    id: u64,
    taken_at: DateTime<Utc>,
    until: DateTime<Utc>,
    due: VecDeque<DateTime<Utc>>,
}

impl Places {
    /// Returns when the next request may go; `None` where its place has lapsed, or the clock does not
    /// stand where it stood: then others must be taken.
    pub(super) fn next(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let is_held = self.taken_at <= now && now <= self.until;
        self.due.front().copied().filter(|_| is_held)
    }

    /// Uses up the next place.
    pub(super) fn advance(&mut self) {
        self.due.pop_front();
    }

    /// Returns how many are left.
    pub(super) fn left(&self) -> usize {
        self.due.len()
    }
}

impl Pace {
    /// Returns a rate of which nothing is taken.
    pub(super) fn new(now: DateTime<Utc>) -> Self {
        Self { at: now, debt: 0, held: Vec::new(), line: Vec::new() }
    }

    /// Moves to `now`; a clock that was put back takes what it has to come along with it.
    pub(super) fn advance_to(&mut self, now: DateTime<Utc>) {
        let back = self.at - now;
        if back > TimeDelta::zero() {
            self.held.iter_mut().for_each(|held| held.until -= back);
            self.line.iter_mut().for_each(|waiting| waiting.until -= back);
        }
        self.line.retain(|waiting| waiting.until >= now);
        self.at = self.at.min(now);
        self.held.sort_by_key(|held| held.until);
        while let Some(first) = self.held.first().copied().filter(|first| first.until < now) {
            self.pay_until(first.until);
            self.held.remove(0);
        }
        self.pay_until(now);
    }

    /// Takes up to `most` places, as many as fall due soon; at least one, unless others came first or
    /// none is in reach. `ticket` is that of the time before, where there was none.
    pub(super) fn take(
        &mut self,
        rate: Rate,
        most: u32,
        ticket: Option<u64>,
    ) -> Result<Places, Later> {
        let bucket = Bucket::of(rate);
        let interval = nanos_of(bucket.interval);
        let at_once = interval.saturating_mul(bucket.burst.get().into());
        let ahead = AHEAD.min(rate.per);
        let before = self.line.iter().position(|waiting| Some(waiting.ticket) == ticket);
        let before = before.unwrap_or(self.line.len());
        let most = if before > 0 { 0 } else { most.min(self.share(ahead, interval)) };
        let mut due = VecDeque::new();
        let mut worth = 0;
        while due.len() < most as usize {
            let debt = self.debt.saturating_add(interval);
            let wait = delta_of(debt.saturating_sub(at_once));
            if wait > ahead {
                break;
            }
            self.debt = debt;
            worth += interval;
            due.push_back(self.at + wait);
        }
        let Some(last) = due.back() else {
            // Until its place comes into reach, and not until it is due: others would be there first.
            let places = interval.saturating_mul(before as u64 + 1);
            let wait = delta_of(self.debt.saturating_add(places).saturating_sub(at_once)) - ahead;
            return Err(self.wait(wait.max(ASK_AGAIN.min(delta_of(interval))), ticket));
        };
        self.line.retain(|waiting| Some(waiting.ticket) != ticket);
        let (taken_at, until) = (self.at, *last + HELD);
        let id = self.next_id();
        self.held.push(Held { id, worth, until: until + MARGIN });
        Ok(Places { id, taken_at, until, due })
    }

    /// Stands in line for so long, behind those who do already.
    fn wait(&mut self, wait: TimeDelta, ticket: Option<u64>) -> Later {
        let until = self.at + wait + LATE;
        let known = self.line.iter_mut().find(|waiting| Some(waiting.ticket) == ticket);
        let ticket = match known {
            Some(waiting) => {
                waiting.until = until;
                waiting.ticket
            }
            None => {
                let ticket = self.next_id();
                self.line.push(Waiting { ticket, until });
                ticket
            }
        };
        Later { wait, ticket }
    }

    /// Returns how many places one process takes at a time: all in reach where no other holds any, else
    /// its share of them, since the others may be waiting for theirs.
    fn share(&self, ahead: TimeDelta, interval: u64) -> u32 {
        if self.held.is_empty() {
            return u32::MAX;
        }
        let in_reach = ahead.to_std().map_or(0, nanos_of) / interval.max(1);
        let share = in_reach / (self.held.len() as u64 + 1);
        u32::try_from(share.max(1)).unwrap_or(u32::MAX)
    }

    /// Notes that these places will not be used any more; those that are left are nobody's again.
    pub(super) fn settle(&mut self, rate: Rate, places: &Places) {
        let Some(index) = self.held.iter().position(|held| held.id == places.id) else { return };
        let held = self.held.swap_remove(index);
        let left = nanos_of(Bucket::of(rate).interval).saturating_mul(places.left() as u64);
        self.debt = self.debt.saturating_sub(left.min(held.worth)).max(self.worth_held());
    }

    fn pay_until(&mut self, until: DateTime<Utc>) {
        let passed = (until - self.at).to_std().map_or(0, nanos_of);
        self.debt = self.debt.saturating_sub(passed).max(self.worth_held().min(self.debt));
        self.at = self.at.max(until);
    }

    fn worth_held(&self) -> u64 {
        self.held.iter().fold(0, |sum: u64, held| sum.saturating_add(held.worth))
    }

    /// Ids differ also from those of a process that took places before an older version, which does
    /// not know them, wrote the file.
    fn next_id(&self) -> u64 {
        let held = self.held.iter().map(|held| held.id);
        let newest = held.chain(self.line.iter().map(|waiting| waiting.ticket)).max();
        let newest = newest.unwrap_or_default();
        let now = self.at.timestamp_nanos_opt().and_then(|nanos| u64::try_from(nanos).ok());
        now.unwrap_or_default().max(newest.saturating_add(1))
    }
}

fn nanos_of(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn delta_of(nanos: u64) -> TimeDelta {
    TimeDelta::nanoseconds(i64::try_from(nanos).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use proptest::prelude::*;

    use super::*;

    fn rate(permits: u32, per: TimeDelta) -> Rate {
        Rate { permits: NonZeroU32::new(permits).unwrap(), per }
    }

    /// Sends requests as a process does, and returns when they went and how often it had to ask.
    fn send(requests: usize, rate: Rate, pause: TimeDelta) -> (Vec<DateTime<Utc>>, u32) {
        let mut now = DateTime::UNIX_EPOCH;
        let mut pace = Pace::new(now);
        let (mut sent, mut asked) = (Vec::new(), 0);
        let (mut places, mut ticket): (Option<Places>, _) = (None, None);
        while sent.len() < requests {
            if let Some(held) = &mut places
                && let Some(due) = held.next(now)
            {
                now = now.max(due);
                held.advance();
                sent.push(now);
                now += pause;
                continue;
            }
            asked += 1;
            pace.advance_to(now);
            let old = places.take();
            if let Some(held) = &old {
                pace.settle(rate, held);
            }
            match pace.take(rate, 20, ticket.take()) {
                Ok(taken) => places = Some(taken),
                Err(later) => {
                    ticket = Some(later.ticket);
                    now += later.wait;
                }
            }
        }
        (sent, asked)
    }

    #[test]
    fn a_process_asks_every_second_or_two_whether_it_is_fast_or_slow() {
        let whautomate = rate(300, TimeDelta::minutes(1));
        let convertalk = rate(5, TimeDelta::seconds(1));
        for (rate, pause) in
            [(whautomate, 0), (whautomate, 700), (convertalk, 0), (convertalk, 900)]
        {
            let (sent, asked) = send(1_000, rate, TimeDelta::milliseconds(pause));
            let seconds = (sent[999] - sent[0]).num_seconds();
            // A place of two may be just out of reach.
            let most = seconds * 5 / 4 / rate.per.num_seconds().min(2) + 3;
            assert!(i64::from(asked) <= most, "{rate:?} {pause}: {asked} in {seconds} s");
        }
    }

    #[test]
    fn a_request_that_is_slower_than_the_rate_never_waits() {
        let (sent, _) = send(200, rate(300, TimeDelta::minutes(1)), TimeDelta::milliseconds(230));
        assert_eq!(sent[199] - sent[0], TimeDelta::milliseconds(230 * 199));
    }

    /// A process that sends as fast as it may.
    #[derive(Default)]
    struct Greedy {
        places: Option<Places>,
        ticket: Option<u64>,
        sent: u32,
    }

    impl Greedy {
        /// Does what is to be done now, and returns how long nothing is.
        fn step(&mut self, now: DateTime<Utc>, pace: &mut Pace, rate: Rate) -> TimeDelta {
            if let Some(held) = &mut self.places
                && let Some(due) = held.next(now)
            {
                if due <= now {
                    held.advance();
                    self.sent += 1;
                }
                return (due - now).max(TimeDelta::zero());
            }
            pace.advance_to(now);
            let old = self.places.take();
            if let Some(held) = &old {
                pace.settle(rate, held);
            }
            match pace.take(rate, 20, self.ticket.take()) {
                Ok(places) => self.places = Some(places),
                Err(later) => {
                    self.ticket = Some(later.ticket);
                    return later.wait;
                }
            }
            TimeDelta::zero()
        }
    }

    #[test]
    fn no_process_is_kept_waiting_by_one_that_came_first() {
        for rate in [
            rate(300, TimeDelta::minutes(1)),
            rate(60, TimeDelta::minutes(1)),
            rate(5, TimeDelta::seconds(1)),
            rate(1, TimeDelta::seconds(1)),
        ] {
            let start = DateTime::UNIX_EPOCH;
            let mut pace = Pace::new(start);
            let mut processes: [(DateTime<Utc>, Greedy); 3] = Default::default();
            for (index, (next, _)) in processes.iter_mut().enumerate() {
                *next = start + TimeDelta::milliseconds(70) * i32::try_from(index).unwrap();
            }
            for _ in 0..6_000 {
                let (next, greedy) = processes.iter_mut().min_by_key(|(next, _)| *next).unwrap();
                *next += greedy.step(*next, &mut pace, rate);
            }
            let sent = processes.map(|(_, greedy)| greedy.sent);
            let all: u32 = sent.iter().sum();
            assert!(sent.iter().all(|sent| *sent * 6 >= all), "{rate:?}: {sent:?}");
        }
    }

    #[test]
    fn places_that_are_given_back_are_taken_by_others_at_once() {
        let rate = rate(100, TimeDelta::minutes(1));
        let now = DateTime::UNIX_EPOCH;
        let mut pace = Pace::new(now);
        let taken = pace.take(rate, 10, None).unwrap();
        assert!(pace.take(rate, 10, None).is_ok_and(|places| places.due[0] > now));
        pace.settle(rate, &taken);
        assert_eq!(pace.take(rate, 1, None).unwrap().due[0], now);
        // A second time says nothing new.
        let before = pace.clone();
        pace.settle(rate, &taken);
        assert_eq!(pace, before);
    }

    #[test]
    fn a_rate_under_a_second_stays_in_the_process() {
        assert!(!is_shared(rate(1, TimeDelta::milliseconds(1))));
        assert!(is_shared(rate(5, TimeDelta::seconds(1))));
    }

    #[test]
    fn places_in_somebodys_hands_are_not_given_to_others_while_they_may_be_used() {
        let rate = rate(5, TimeDelta::seconds(1));
        let start = DateTime::UNIX_EPOCH;
        let mut pace = Pace::new(start);
        let held = pace.take(rate, 5, None).unwrap();
        let last = *held.due.back().unwrap();
        let mut at = |at: DateTime<Utc>| {
            pace.advance_to(at);
            pace.clone().take(rate, 1, None).is_ok_and(|places| places.due[0] <= at)
        };
        let end = last + HELD;
        assert_eq!(held.next(end), Some(held.due[0]));
        assert!(!at(end), "all of the second may still go at once");
        assert_eq!(held.next(end + TimeDelta::nanoseconds(1)), None);
        assert!(at(end + MARGIN + TimeDelta::seconds(2)));
    }

    #[test]
    fn nobody_takes_a_place_past_one_that_waits() {
        let rate = rate(5, TimeDelta::seconds(1));
        let mut pace = Pace::new(DateTime::UNIX_EPOCH);
        let first = pace.take(rate, 5, None).unwrap();
        let later = pace.take(rate, 5, None).unwrap_err();
        pace.settle(rate, &first);
        pace.advance_to(pace.at + later.wait);
        assert!(pace.take(rate, 1, None).unwrap_err().wait >= ASK_AGAIN);
        assert!(pace.take(rate, 1, Some(later.ticket)).is_ok());
        // One that does not come back is not waited for.
        pace.advance_to(pace.at + TimeDelta::seconds(3));
        assert!(pace.take(rate, 1, None).is_ok());
    }

    #[test]
    fn a_process_that_is_held_up_sends_no_more_at_once_than_the_rate() {
        for (permits, per) in [(6, 1), (5, 1), (60, 60), (1, 1)] {
            let rate = rate(permits, TimeDelta::seconds(per));
            let mut pace = Pace::new(DateTime::UNIX_EPOCH);
            let places = pace.take(rate, 1_000, None).unwrap();
            assert!(places.left() <= permits as usize, "{rate:?}: {}", places.left());
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Ask(usize, u32),
        Use(usize, usize),
        Wait(u32),
        Crash(usize),
        PutBack(i64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_usize..3, 1_u32..21).prop_map(|(process, most)| Step::Ask(process, most)),
            6 => (0_usize..3, 1_usize..21).prop_map(|(process, most)| Step::Use(process, most)),
            4 => (0_u32..30).prop_map(Step::Wait),
            2 => (30_u32..300).prop_map(Step::Wait),
            1 => (0_usize..3).prop_map(Step::Crash),
            1 => (10_i64..90_000).prop_map(Step::PutBack),
        ]
    }

    proptest! {
        /// Time is real time; the processes share a clock that is put back now and then, which each of
        /// them notices while it holds places.
        #[test]
        fn no_span_holds_more_than_the_rate_over_all_processes(
            permits in prop_oneof![1_u32..12, 1_u32..60],
            // Short spans are those in which held places weigh most.
            per in prop_oneof![3 => 1_000_i64..5_000, 1 => 1_000_i64..90_000],
            steps in proptest::collection::vec(step(), 1..400),
        ) {
            let rate = rate(permits, TimeDelta::milliseconds(per));
            let mut real = DateTime::UNIX_EPOCH + TimeDelta::days(20_000);
            let mut behind = TimeDelta::zero();
            let mut pace = Pace::new(real);
            let mut processes: [Option<Places>; 3] = [None, None, None];
            let mut tickets: [Option<u64>; 3] = [None; 3];
            let mut sent = Vec::new();
            for step in steps {
                let now = real - behind;
                match step {
                    Step::Ask(process, most) => {
                        pace.advance_to(now);
                        let old = processes[process].take();
                        if let Some(held) = &old {
                            pace.settle(rate, held);
                        }
                        match pace.take(rate, most, tickets[process].take()) {
                            Ok(places) => processes[process] = Some(places),
                            Err(later) => tickets[process] = Some(later.ticket),
                        }
                    }
                    Step::Use(process, most) => {
                        let Some(held) = &mut processes[process] else { continue };
                        for _ in 0..most {
                            if held.next(now).is_some_and(|due| due <= now) {
                                held.advance();
                                sent.push(real);
                            }
                        }
                    }
                    Step::Wait(hundredths) => {
                        let part = rate.per / 100 * i32::try_from(hundredths).unwrap();
                        real += part;
                    }
                    Step::Crash(process) => processes[process] = None,
                    Step::PutBack(seconds) => {
                        behind += TimeDelta::seconds(seconds);
                        let now = real - behind;
                        for held in &mut processes {
                            *held = held.take().filter(|held| held.next(now).is_some());
                        }
                    }
                }
            }
            for some in sent.windows(permits as usize + 1) {
                prop_assert!(some[permits as usize] - some[0] > rate.per, "{some:?}");
            }
        }
    }
}
