//! A ledger day by day: leases, clocks that are wrong, days that end, files that are damaged.

use std::num::NonZeroU32;

use chrono::NaiveTime;
use proptest::prelude::*;

use super::budget::TRY_EVERY;
use super::stored::Stored;
use super::*;
use crate::quota::Cause;
use crate::quota::Day;
use crate::quota::Error;
use crate::quota::Rate;
use crate::quota::Reserve;

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn rule(per_day: u32) -> Rule {
    Rule {
        rate: Rate { permits: NonZeroU32::MIN, per: TimeDelta::milliseconds(1) },
        per_day: Some(per_day),
        at_once: NonZeroU32::new(2).unwrap(),
        reserve: Reserve::Requests(0),
        day: Day::Rolling,
    }
}

fn ledger(rule: Rule) -> (tempfile::TempDir, Ledger) {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(Store::open(folder.path().join("ledger")), "acme", rule);
    (folder, ledger)
}

#[test]
fn a_request_counts_until_its_minute_lies_a_day_back() {
    let (_folder, ledger) = ledger(rule(1));
    let start = at("2026-03-01T02:00:30Z");
    let lease = ledger.lease(start, 5).unwrap().unwrap();
    assert_eq!(lease.permits, 1);
    // Counted at 02:01:30, so until the end of that minute a day later.
    let free = at("2026-03-02T02:02:00Z");
    let short = Shortage { until: Some(free), cause: Cause::DayQuota };
    let just_before = free - TimeDelta::milliseconds(1);
    assert_eq!(ledger.lease(just_before, 1).unwrap(), Err(short));
    assert!(ledger.lease(free, 1).unwrap().is_ok());
}

#[test]
fn a_clock_that_is_put_back_frees_nothing_and_stops_ledger_time() {
    let (_folder, ledger) = ledger(rule(2));
    let start = at("2026-03-01T02:00:00Z");
    assert!(ledger.lease(start, 1).unwrap().is_ok());
    let back = start - TimeDelta::days(3);
    let lease = ledger.lease(back, 1).unwrap().unwrap();
    assert_eq!(lease.usable_until, start + USABLE);
    assert_eq!(ledger.state(back).unwrap().left, Some(0));
}

#[test]
fn a_clock_that_jumped_ahead_is_put_right_without_losing_a_count() {
    let (_folder, ledger) = ledger(rule(10));
    let start = at("2026-03-01T02:00:00Z");
    let _ = ledger.lease(start, 4).unwrap().unwrap();
    let ahead = start + TimeDelta::hours(30);
    let _ = ledger.lease(ahead, 5).unwrap().unwrap();
    ledger.block(ahead, ahead + TimeDelta::hours(1)).unwrap();
    let now = start + TimeDelta::minutes(10);
    ledger.correct(now).unwrap();
    let budget = ledger.state(now).unwrap();
    assert_eq!((budget.used, budget.left), (9, Some(1)));
    assert_eq!(budget.blocked_until, Some(now + TimeDelta::hours(1)));
    // A ledger that is not off stays as it is.
    ledger.correct(now + TimeDelta::minutes(1)).unwrap();
    assert_eq!(ledger.state(now).unwrap(), budget);
}

#[test]
fn what_was_sent_under_a_clock_that_was_behind_counts_from_when_it_really_was() {
    let (_folder, ledger) = ledger(rule(10));
    let start = at("2026-03-01T02:00:00Z");
    let _ = ledger.lease(start, 4).unwrap().unwrap();
    // Ten minutes later by our clock are five hours by the provider's.
    let _ = ledger.lease(start + TimeDelta::minutes(10), 3).unwrap().unwrap();
    let now = start + TimeDelta::hours(5);
    ledger.correct(now).unwrap();
    let used = |after| ledger.state(now + after).unwrap().used;
    assert_eq!(used(TimeDelta::zero()), 7);
    assert_eq!(used(TimeDelta::hours(20)), 3);
    assert_eq!(used(TimeDelta::hours(24)), 3);
    assert_eq!(used(TimeDelta::hours(24) + TimeDelta::minutes(2)), 0);
}

#[test]
fn the_first_request_after_a_pause_goes_alone() {
    let (_folder, ledger) = ledger(rule(10));
    let start = at("2026-03-01T02:00:00Z");
    let lease = |minutes| ledger.lease(start + TimeDelta::minutes(minutes), 2).unwrap().unwrap();
    for (minutes, alone) in [(0, false), (1, false), (9, true), (10, false)] {
        let mut leased = lease(minutes);
        assert_eq!((leased.is_try, leased.permits), (alone, 2), "{minutes}");
        leased.advance();
        assert!(!leased.is_try);
    }
}

#[test]
fn what_is_given_back_may_be_leased_again() {
    let (_folder, ledger) = ledger(rule(5));
    let start = at("2026-03-01T02:00:00Z");
    let lease = ledger.lease(start, 5).unwrap().unwrap();
    ledger.release(start, Lease { permits: 3, ..lease }).unwrap();
    let budget = ledger.state(start).unwrap();
    assert_eq!((budget.used, budget.left), (2, Some(3)));
}

#[test]
fn handles_share_a_group_and_groups_share_nothing() {
    let (_folder, ledger) = ledger(rule(3));
    let start = at("2026-03-01T02:00:00Z");
    let same = Ledger::open(ledger.store.clone(), "acme", rule(3));
    let other = Ledger::open(ledger.store.clone(), "Acme", rule(3));
    let _ = ledger.lease(start, 1).unwrap().unwrap();
    let _ = same.lease(start, 1).unwrap().unwrap();
    assert_eq!(ledger.state(start).unwrap().left, Some(1));
    assert_eq!(other.state(start).unwrap().left, Some(3));
}

#[test]
fn handles_that_lease_at_the_same_time_lease_no_more_than_there_is() {
    let (_folder, ledger) = ledger(rule(10));
    let start = at("2026-03-01T02:00:00Z");
    let lease = || (0..10).filter(|_| ledger.lease(start, 1).unwrap().is_ok()).count();
    let leased: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(lease)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(leased, 10);
}

#[test]
fn a_fixed_day_counts_from_its_reset_over_a_change_of_the_clocks() {
    let time = NaiveTime::from_hms_opt(0, 0, 0).unwrap();
    let day = Day::ResetsAt { time, zone: "America/New_York".parse().unwrap() };
    for (spend, reset) in [
        ("2026-03-08T05:10:00Z", "2026-03-09T04:00:00Z"),
        ("2026-11-01T04:10:00Z", "2026-11-02T05:00:00Z"),
    ] {
        let (_folder, ledger) = ledger(Rule { day, ..rule(1) });
        let reset = at(reset);
        let _ = ledger.lease(at(spend), 1).unwrap().unwrap();
        let short = Shortage { until: Some(reset), cause: Cause::DayQuota };
        assert_eq!(ledger.lease(reset - TimeDelta::seconds(1), 1).unwrap(), Err(short));
        assert!(ledger.lease(reset, 1).unwrap().is_ok());
    }
}

#[test]
fn a_request_leased_just_before_the_reset_counts_in_both_days() {
    let day = Day::ResetsAt { time: NaiveTime::MIN, zone: "UTC".parse().unwrap() };
    let (_folder, ledger) = ledger(Rule { day, ..rule(1) });
    let _ = ledger.lease(at("2026-03-01T23:59:30Z"), 1).unwrap().unwrap();
    assert_eq!(ledger.state(at("2026-03-02T00:00:00Z")).unwrap().left, Some(0));
}

#[test]
fn used_up_is_believed_for_as_long_as_can_be_known() {
    let start = at("2026-03-01T02:00:00Z");
    let later = start + TimeDelta::hours(3);
    let (_folder, rolling) = ledger(rule(100));
    let _ = rolling.lease(start, 1).unwrap().unwrap();
    let oldest = at("2026-03-02T02:02:00Z");
    assert_eq!(rolling.used_up(later, None).unwrap(), oldest);
    // A block is never made shorter, but may become longer.
    let told = oldest + TimeDelta::hours(1);
    assert_eq!(rolling.used_up(later, Some(told)).unwrap(), told);
    assert_eq!(rolling.used_up(later, Some(later)).unwrap(), told);
    assert_eq!(rolling.state(later).unwrap().next_free, Some(told));
    let short = Shortage { until: Some(told), cause: Cause::Blocked };
    assert_eq!(rolling.lease(later, 1).unwrap(), Err(short));

    let day = Day::ResetsAt { time: NaiveTime::MIN, zone: "UTC".parse().unwrap() };
    let (_folder, fixed) = ledger(Rule { day, ..rule(100) });
    let _ = fixed.lease(start, 1).unwrap().unwrap();
    assert_eq!(fixed.used_up(later, None).unwrap(), at("2026-03-02T00:00:00Z"));
}

#[test]
fn what_others_sent_counts_for_a_day_from_when_it_is_told_and_can_be_told_anew() {
    let (_folder, ledger) = ledger(rule(100));
    let start = at("2026-03-01T02:00:00Z");
    let _ = ledger.lease(start, 5).unwrap().unwrap();
    let later = start + TimeDelta::hours(3);
    ledger.set_used(later, 90).unwrap();
    assert_eq!(ledger.state(later).unwrap().left, Some(5));
    ledger.set_used(later + TimeDelta::hours(1), 40).unwrap();
    let outlook = ledger.outlook(later + TimeDelta::hours(1)).unwrap();
    assert_eq!((outlook.budget.used, outlook.set_by_hand), (45, 40));
    let freed = |from, permits, left| Freed { from: at(from), permits, left };
    let expected = [freed("2026-03-02T02:00:00Z", 5, 60), freed("2026-03-02T06:00:00Z", 40, 100)];
    assert_eq!(outlook.frees, expected);
    ledger.set_used(later, 0).unwrap();
    assert_eq!(ledger.state(later).unwrap().used, 5);
}

#[test]
fn what_others_sent_is_taken_back_also_after_the_clock_was_put_right() {
    let (_folder, ledger) = ledger(rule(100));
    let start = at("2026-03-01T02:00:00Z");
    ledger.set_used(start + TimeDelta::hours(30), 40).unwrap();
    ledger.correct(start).unwrap();
    assert_eq!(ledger.outlook(start).unwrap().set_by_hand, 40);
    ledger.set_used(start, 0).unwrap();
    assert_eq!(ledger.state(start).unwrap().used, 0);
}

#[test]
fn an_hour_holds_all_that_comes_free_in_it_and_a_reset_everything() {
    let spend = |rule| {
        let (folder, ledger) = ledger(rule);
        for minutes in [0, 10, 20, 70] {
            let at = at("2026-03-01T02:30:00Z") + TimeDelta::minutes(minutes);
            let _ = ledger.lease(at, 4).unwrap();
        }
        (folder, ledger.outlook(at("2026-03-01T05:00:00Z")).unwrap())
    };
    let (_folder, rolling) = spend(rule(14));
    let freed = |from, permits, left| Freed { from: at(from), permits, left };
    let expected = [freed("2026-03-02T02:00:00Z", 12, 12), freed("2026-03-02T03:00:00Z", 2, 14)];
    assert_eq!(rolling.frees, expected);
    let day = Day::ResetsAt { time: NaiveTime::MIN, zone: "Asia/Kolkata".parse().unwrap() };
    let (_folder, fixed) = spend(Rule { day, ..rule(14) });
    assert_eq!(fixed.frees, [freed("2026-03-01T18:30:00Z", 14, 14)]);
    let unlimited = Rule { per_day: None, ..rule(14) };
    assert_eq!(spend(unlimited).1.frees, []);
}

#[test]
fn a_block_says_what_it_goes_by() {
    let start = at("2026-03-01T02:00:00Z");
    let later = start + TimeDelta::hours(3);
    let by = |day, retry_after| {
        let (_folder, ledger) = ledger(Rule { day, ..rule(100) });
        let _ = ledger.lease(start, 50).unwrap().unwrap();
        ledger.used_up(later, retry_after).unwrap();
        ledger.outlook(later).unwrap().blocked_by
    };
    let fixed = Day::ResetsAt { time: NaiveTime::MIN, zone: "UTC".parse().unwrap() };
    assert_eq!(by(Day::Rolling, None), Some(BlockedBy::OldestRequest));
    assert_eq!(by(fixed, None), Some(BlockedBy::Reset));
    assert_eq!(by(fixed, Some(later + TimeDelta::hours(1))), Some(BlockedBy::Provider));
}

#[test]
fn a_quota_that_others_used_up_is_tried_once_an_hour() {
    let (_folder, ledger) = ledger(rule(100));
    let mut now = at("2026-03-01T02:00:00Z");
    for _ in 0..5 {
        let _ = ledger.lease(now, 1).unwrap().unwrap();
        let until = ledger.used_up(now, None).unwrap();
        assert_eq!(until, now + TRY_EVERY);
        now = until;
    }
}

#[test]
fn a_ledger_that_cannot_be_understood_is_an_error_that_names_the_file() {
    let (_folder, ledger) = ledger(rule(100));
    let now = at("2026-03-01T02:00:00Z");
    ledger.store.write("acme.json", b"{\"version\": \"2\"}").unwrap();
    let error = ledger.lease(now, 1).unwrap_err();
    assert!(matches!(&error, Error::NewerVersion { version, .. } if version == "2"));
    ledger.store.write("acme.json", b"{\"version\": \"1\", \"latest\": 5}").unwrap();
    let error = ledger.state(now).unwrap_err();
    assert!(matches!(&error, Error::Damaged { path, .. } if *path == ledger.path()));
    assert!(error.hint().unwrap().contains("acme.json"));
}

#[test]
fn a_count_that_was_lost_begins_anew_and_lets_nothing_go_before_all_has_lapsed() {
    let now = at("2026-11-02T10:00:30Z");
    let (_folder, lost) = ledger(rule(100));
    assert_eq!(lost.lease(now, 40).unwrap().unwrap().permits, 40);
    std::fs::remove_file(lost.path()).unwrap();
    assert!(!lost.exists().unwrap());
    let until = lost.begin_anew(now).unwrap().unwrap();
    assert!(lost.exists().unwrap() && until >= now + ROLLING);
    assert!(lost.lease(until - TimeDelta::seconds(1), 1).unwrap().is_err());
    assert!(lost.lease(until, 1).unwrap().is_ok());
}

#[test]
fn a_flipped_digit_is_damage() {
    let now = at("2026-11-02T10:00:30Z");
    let (_folder, ledger) = ledger(rule(100));
    assert_eq!(ledger.lease(now, 40).unwrap().unwrap().permits, 40);
    let text = std::fs::read_to_string(ledger.path()).unwrap();
    assert!(text.contains(":40"));
    std::fs::write(ledger.path(), text.replace(":40", ":00")).unwrap();
    assert!(matches!(ledger.state(now), Err(Error::Damaged { .. })));
}

#[test]
fn version_1_is_read() {
    let (_folder, ledger) = ledger(rule(100));
    let stored = br#"{
        "version": "1", "group": "acme", "latest": "2026-03-01T02:00:10Z",
        "blocked": {"until": "2026-03-01T03:00:00Z", "leased_since": 0},
        "minutes": {"2026-03-01T01:07:00Z": 7, "2026-03-01T02:01:00Z": 2}
    }"#;
    ledger.store.write("acme.json", stored).unwrap();
    let budget = ledger.state(at("2026-03-01T02:00:20Z")).unwrap();
    assert_eq!((budget.used, budget.left), (9, Some(91)));
    assert_eq!(budget.blocked_until, Some(at("2026-03-01T03:00:00Z")));
}

#[test]
fn no_two_groups_share_a_file() {
    let long = "x".repeat(300);
    let groups = ["", "%", "a", "A", "a/b", "a%2fb", "../a", ".", long.as_str()];
    let mut names: Vec<String> = groups.iter().map(|group| file_name(group)).collect();
    assert!(names.iter().all(|name| !name.contains(['/', '.']) && name.len() <= 128));
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), groups.len());
}

#[derive(Debug, Clone)]
enum Step {
    Lease(u32),
    Use(u32),
    Wait(i64),
    WaitUntilFree(i64),
    PutBack(i64),
    Crash,
    Release,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1_u32..9).prop_map(Step::Lease),
        6 => (1_u32..9).prop_map(Step::Use),
        4 => (1_i64..90).prop_map(Step::Wait),
        3 => (600_i64..40_000).prop_map(Step::Wait),
        4 => (-90_i64..5).prop_map(Step::WaitUntilFree),
        1 => (1_i64..100_000).prop_map(Step::PutBack),
        1 => Just(Step::Crash),
        1 => Just(Step::Release),
    ]
}

fn through_the_disk(count: &Count) -> Count {
    let stored = Stored::V1 { group: String::new(), count: count.clone() };
    let bytes = serde_json::to_vec(&stored).unwrap();
    let Stored::V1 { count, .. } = serde_json::from_slice(&bytes).unwrap();
    count
}

proptest! {
    /// Time is real time; the ledger sees a clock that is put back now and then.
    #[test]
    fn no_24_hours_hold_more_than_the_allowance(
        allowance in 1_u32..40,
        steps in proptest::collection::vec(step(), 1..400),
    ) {
        let rule = rule(allowance);
        let mut real = at("2026-03-01T02:00:17Z");
        let mut behind = TimeDelta::zero();
        let mut count = Count::new(real);
        let mut lease: Option<Lease> = None;
        let mut sent: Vec<DateTime<Utc>> = Vec::new();
        for step in steps {
            count.advance_to(real - behind);
            match step {
                Step::Lease(permits) => lease = count.lease(&rule, permits, None).ok(),
                Step::Use(permits) => {
                    let held = lease.as_mut().filter(|held| count.latest <= held.usable_until);
                    if let Some(held) = held {
                        let used = held.permits.min(permits);
                        held.permits -= used;
                        sent.extend((0..used).map(|_| real));
                    }
                }
                Step::Wait(seconds) => real += TimeDelta::seconds(seconds),
                Step::WaitUntilFree(seconds) => {
                    let free = count.budget(&rule).next_free.unwrap_or(count.latest);
                    let wait = free - (real - behind) + TimeDelta::seconds(seconds);
                    real += wait.max(TimeDelta::zero());
                }
                Step::PutBack(seconds) => behind += TimeDelta::seconds(seconds),
                Step::Crash => {
                    lease = None;
                    count = through_the_disk(&count);
                }
                Step::Release => {
                    if let Some(lease) = lease.take() {
                        count.release(&rule, &lease);
                    }
                }
            }
        }
        let too_many = allowance as usize;
        for (index, first) in sent.iter().enumerate() {
            if let Some(last) = sent.get(index + too_many) {
                prop_assert!(*last - *first > ROLLING, "{first} to {last}");
            }
        }
    }

    #[test]
    fn what_comes_free_can_be_leased_then_and_not_a_moment_before(
        allowance in 1_u32..20,
        gaps in proptest::collection::vec(0_i64..7_200, 20..60),
    ) {
        let rule = rule(allowance);
        let mut count = Count::new(at("2026-03-01T02:00:17Z"));
        for gap in gaps {
            count.advance_to(count.latest + TimeDelta::seconds(gap));
            if let Err(NotNow { shortage: Shortage { until, .. }, .. }) = count.lease(&rule, 1, None) {
                let until = until.unwrap();
                count.advance_to(until - TimeDelta::nanoseconds(1));
                prop_assert!(count.lease(&rule, 1, None).is_err());
                count.advance_to(until);
                prop_assert!(count.lease(&rule, 1, None).is_ok());
            }
        }
    }
}
