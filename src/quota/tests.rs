//! Permits of one run and of many, on a clock that is moved by hand.

use std::num::NonZeroU32;

use futures::FutureExt;
use proptest::prelude::*;

use super::*;
use crate::clock::Clock;
use crate::clock::ManualClock;
use crate::store::Store;

struct Setting {
    folder: tempfile::TempDir,
    clock: Arc<ManualClock>,
    rule: Rule,
}

impl Setting {
    fn new(per_day: u32) -> Self {
        let rule = Rule {
            rate: Rate { permits: NonZeroU32::new(1_000).unwrap(), per: TimeDelta::seconds(1) },
            per_day: Some(per_day),
            at_once: NonZeroU32::new(3).unwrap(),
            reserve: Reserve::Requests(0),
            day: Day::Rolling,
        };
        let start = "2026-03-01T02:00:00Z".parse().unwrap();
        let clock = Arc::new(ManualClock::new(start));
        Self { folder: tempfile::tempdir().unwrap(), clock, rule }
    }

    /// A quota as of a new process.
    fn quota(&self, options: Options) -> Quota {
        let ledger = Ledger::open(Store::open(self.folder.path()), "acme", self.rule);
        Quota::new(ledger, self.clock.clone(), options)
    }
}

async fn exhausted(quota: &Quota) -> Exhausted {
    *quota.acquire().await.unwrap_err().exhausted().unwrap()
}

#[tokio::test]
async fn a_count_outlives_the_run_and_the_crash() {
    let setting = Setting::new(3);
    let first = setting.quota(Options::default());
    drop(first.acquire().await.unwrap());
    drop(first.acquire().await.unwrap());
    drop(first);
    let second = setting.quota(Options::default());
    drop(second.acquire().await.unwrap());
    assert_eq!(exhausted(&second).await.cause, Cause::DayQuota);
    assert_eq!((second.spent(), second.budget().unwrap().used), (1, 3));
}

#[tokio::test]
async fn a_run_waits_for_permits_within_its_patience_and_no_longer() {
    let setting = Setting::new(2);
    let first = setting.quota(Options::default());
    drop(first.acquire().await.unwrap());
    setting.clock.advance(TimeDelta::minutes(50));
    drop(first.acquire().await.unwrap());

    setting.clock.advance(TimeDelta::hours(22) + TimeDelta::minutes(40));
    let second = setting.quota(Options::default());
    // The first is free in 32 minutes, the second 50 minutes after it: too long together.
    drop(second.acquire().await.unwrap());
    let stopped = exhausted(&second).await;
    assert_eq!(stopped.resume_at, Some("2026-03-02T02:52:00Z".parse().unwrap()));
    setting.clock.sleep_until(stopped.resume_at.unwrap()).await;
    drop(second.acquire().await.unwrap());
}

#[tokio::test]
async fn used_up_stops_everyone_who_shares_the_ledger_until_then() {
    let setting = Setting::new(50_000);
    let (one, two) = (setting.quota(Options::default()), setting.quota(Options::default()));
    drop(one.acquire().await.unwrap());
    let until = setting.clock.now() + TimeDelta::hours(5);
    assert_eq!(one.used_up(Some(until)).unwrap(), until);
    for quota in [&one, &two] {
        let expected = Exhausted { resume_at: Some(until), cause: Cause::Blocked };
        assert_eq!(exhausted(quota).await, expected);
    }
    setting.clock.sleep_until(until).await;
    drop(two.acquire().await.unwrap());
}

#[tokio::test]
async fn used_up_is_explained_by_a_count_near_the_allowance_and_by_no_other() {
    for (per_day, sent, expected) in [
        (20, 18, Some(Unexplained { counted: 18, allowance: 20 })),
        (20, 19, None),
        (50, 45, Some(Unexplained { counted: 45, allowance: 50 })),
        (50, 46, None),
    ] {
        let setting = Setting::new(per_day);
        let quota = setting.quota(Options::default());
        for _ in 0..sent {
            drop(quota.acquire().await.unwrap());
        }
        quota.used_up(None).unwrap();
        assert_eq!(quota.unexplained(), expected, "{sent} of {per_day}");
    }
}

#[tokio::test]
async fn several_runs_and_crashes_stay_within_every_24_hours() {
    let mut setting = Setting::new(7);
    setting.rule.rate = Rate { permits: NonZeroU32::MIN, per: TimeDelta::minutes(17) };
    let options = Options { patience: TimeDelta::days(30), max_requests: None };
    let mut runs = [setting.quota(options.clone()), setting.quota(options.clone())];
    let mut sent = Vec::new();
    let mut behind = TimeDelta::zero();
    for attempt in 0..60 {
        drop(runs[attempt % 2].acquire().await.unwrap());
        sent.push(setting.clock.now() + behind);
        if attempt % 11 == 0 {
            runs[attempt % 2] = setting.quota(options.clone());
        }
        if attempt % 13 == 0 {
            setting.clock.advance(TimeDelta::hours(-2));
            behind += TimeDelta::hours(2);
        }
    }
    assert!(sent.windows(8).all(|some| some[7] - some[0] > TimeDelta::hours(24)));
}

#[tokio::test]
async fn a_slow_rate_costs_no_permit() {
    let mut setting = Setting::new(10);
    setting.rule.rate = Rate { permits: NonZeroU32::MIN, per: TimeDelta::minutes(17) };
    let quota = setting.quota(Options::default());
    for _ in 0..10 {
        drop(quota.acquire().await.unwrap());
    }
    assert_eq!(quota.budget().unwrap().used, 10);
}

#[tokio::test]
async fn one_process_alone_goes_as_fast_as_its_rate() {
    let mut setting = Setting::new(50_000);
    setting.rule.rate = Rate { permits: NonZeroU32::new(300).unwrap(), per: TimeDelta::minutes(1) };
    let quota = setting.quota(Options::default());
    let mut sent = Vec::new();
    for _ in 0..301 {
        drop(quota.acquire().await.unwrap());
        sent.push(setting.clock.now());
    }
    assert_eq!(sent[29], sent[0]);
    assert!(sent[30] > sent[0]);
    assert!(sent[299] - sent[0] <= TimeDelta::minutes(1) + TimeDelta::microseconds(1));
    assert!(sent[300] - sent[0] > TimeDelta::minutes(1));
}

#[tokio::test]
async fn a_clock_put_back_before_the_first_request_does_not_hold_it_up() {
    let setting = Setting::new(10);
    let quota = setting.quota(Options::default());
    setting.clock.advance(TimeDelta::hours(-7));
    let start = setting.clock.now();
    drop(quota.acquire().await.unwrap());
    setting.clock.advance(TimeDelta::minutes(-5));
    drop(quota.acquire().await.unwrap());
    assert_eq!(setting.clock.now(), start - TimeDelta::minutes(5));
    assert_eq!(quota.budget().unwrap().used, 2);
}

#[tokio::test]
async fn a_clock_put_back_holds_up_requests_for_seconds_only() {
    let mut setting = Setting::new(50_000);
    setting.rule.rate = Rate { permits: NonZeroU32::MIN, per: TimeDelta::seconds(1) };
    let quota = setting.quota(Options::default());
    for _ in 0..3 {
        drop(quota.acquire().await.unwrap());
        setting.clock.advance(TimeDelta::hours(-5));
        let before = setting.clock.now();
        drop(quota.acquire().await.unwrap());
        assert!(setting.clock.now() - before <= TimeDelta::milliseconds(3_001));
    }
}

#[tokio::test]
async fn what_a_crash_held_of_the_rate_comes_back_soon() {
    let mut setting = Setting::new(50_000);
    setting.rule.rate = Rate { permits: NonZeroU32::new(5).unwrap(), per: TimeDelta::seconds(1) };
    let before = setting.clock.now();
    for _ in 0..5 {
        drop(setting.quota(Options::default()).acquire().await.unwrap());
    }
    assert!(setting.clock.now() - before < TimeDelta::seconds(50));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    /// Processes take turns, are held up with permits in their hands, and die.
    #[test]
    fn processes_that_share_a_key_share_its_rate(
        permits in 1_u32..40,
        seconds in 1_i64..90,
        turns in proptest::collection::vec((0_usize..3, 1_usize..9, 0_u32..40, 0_u8..24), 5..24),
    ) {
        let rate = Rate {
            permits: NonZeroU32::new(permits).unwrap(),
            per: TimeDelta::seconds(seconds),
        };
        let mut setting = Setting::new(432_000);
        setting.rule.rate = rate;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut runs = [(); 3].map(|()| setting.quota(Options::default()));
        let mut sent = Vec::new();
        for (run, requests, hundredths, fate) in turns {
            for _ in 0..requests {
                drop(runtime.block_on(runs[run].acquire()).unwrap());
                sent.push(setting.clock.now());
            }
            if fate == 0 {
                runs[run] = setting.quota(Options::default());
            }
            setting.clock.advance(rate.per / 100 * i32::try_from(hundredths).unwrap());
        }
        for some in sent.windows(permits as usize + 1) {
            prop_assert!(some[permits as usize] - some[0] > rate.per, "{some:?}");
        }
    }
}

#[tokio::test]
async fn used_up_with_a_ledger_ahead_of_the_clock_neither_hangs_nor_burns_permits() {
    let setting = Setting::new(50_000);
    let quota = setting.quota(Options::default());
    drop(quota.acquire().await.unwrap());
    quota.ledger().release(setting.clock.now(), other_lease(&setting, 3)).unwrap();
    let told = setting.clock.now() + TimeDelta::minutes(90);
    // The provider's moment has passed by the ledger, not by the clock.
    assert!(quota.used_up(Some(told)).unwrap() > told);
    let before = quota.budget().unwrap().used;
    assert_eq!(exhausted(&quota).await.cause, Cause::Blocked);
    assert_eq!(quota.budget().unwrap().used, before);
}

/// Leases a permit some hours from now, as another process under another clock would.
fn other_lease(setting: &Setting, hours: i64) -> Lease {
    let ledger = Ledger::open(Store::open(setting.folder.path()), "acme", setting.rule);
    ledger.lease(setting.clock.now() + TimeDelta::hours(hours), 1).unwrap().unwrap()
}

#[tokio::test]
async fn the_first_request_after_a_block_goes_alone() {
    let setting = Setting::new(50_000);
    let quota = setting.quota(Options::default());
    quota.used_up(Some(setting.clock.now() + TimeDelta::minutes(5))).unwrap();
    let attempt = quota.acquire().await.unwrap();
    assert!(quota.shared.turn.try_lock().is_err());
    drop(attempt);
    let _second = quota.acquire().await.unwrap();
    let _third = quota.acquire().await.unwrap();
}

#[tokio::test]
async fn the_provider_s_date_puts_a_clock_right_that_jumped() {
    let setting = Setting::new(2);
    let quota = setting.quota(Options::default());
    drop(quota.acquire().await.unwrap());
    drop(quota.acquire().await.unwrap());
    let date = setting.clock.now();
    setting.clock.advance(TimeDelta::hours(25));
    drop(quota.acquire().await.unwrap());
    quota.observe_date(date + TimeDelta::seconds(2)).unwrap();
    // By the clock of the run, which is 25 hours ahead.
    let resume_at = "2026-03-03T03:01:58Z".parse().unwrap();
    assert_eq!(exhausted(&quota).await.cause, Cause::DayQuota);
    assert_eq!(quota.budget().unwrap().next_free, Some(resume_at));
}

#[tokio::test]
async fn an_absurd_date_changes_nothing() {
    let setting = Setting::new(2);
    let quota = setting.quota(Options::default());
    drop(quota.acquire().await.unwrap());
    let before = quota.budget().unwrap();
    for days in [-20_000, -3, 3, 400] {
        quota.observe_date(setting.clock.now() + TimeDelta::days(days)).unwrap();
        assert_eq!(quota.shared.correction(), TimeDelta::zero());
    }
    assert_eq!(quota.budget().unwrap(), before);
}

#[tokio::test]
async fn a_ledger_written_under_a_wrong_clock_is_put_right_once_the_clock_is() {
    let setting = Setting::new(3);
    // Somebody's clock was a year ahead; without a word from the provider, the second and third
    // request would count until then.
    drop(other_lease(&setting, 24 * 365));
    let quota = setting.quota(Options::default());
    drop(quota.acquire().await.unwrap());
    quota.observe_date(setting.clock.now()).unwrap();
    drop(quota.acquire().await.unwrap());
    let stopped = exhausted(&quota).await;
    let day = TimeDelta::hours(24) + TimeDelta::minutes(2);
    assert_eq!(stopped.resume_at, Some(setting.clock.now() + day));
}

#[tokio::test]
async fn no_more_requests_go_at_once_than_the_rule_says() {
    let setting = Setting::new(50_000);
    let quota = setting.quota(Options::default());
    let mut permits = Vec::new();
    for _ in 0..3 {
        permits.push(quota.acquire().await.unwrap());
    }
    assert!(quota.acquire().now_or_never().is_none());
    permits.pop();
    permits.push(quota.acquire().await.unwrap());
}

#[tokio::test]
async fn the_cap_is_shared_by_the_sources_of_a_run() {
    let (acme, clinic) = (Setting::new(50_000), Setting::new(50_000));
    let cap = Arc::new(RequestCap::new(2));
    let options = Options { max_requests: Some(cap.clone()), ..Options::default() };
    let (acme, clinic) = (acme.quota(options.clone()), clinic.quota(options));
    drop(acme.acquire().await.unwrap());
    drop(clinic.acquire().await.unwrap());
    assert_eq!(exhausted(&acme).await, MAX_REQUESTS);
    assert_eq!((acme.spent(), clinic.spent(), cap.left()), (1, 1, 0));
}

#[tokio::test]
async fn a_clean_end_gives_back_what_was_leased_ahead() {
    let setting = Setting::new(5_000);
    let quota = setting.quota(Options::default());
    drop(quota.acquire().await.unwrap());
    assert_eq!(quota.budget().unwrap().used, 5);
    quota.release().await.unwrap();
    assert_eq!(quota.budget().unwrap().used, 1);
}

#[tokio::test]
async fn a_block_that_was_not_used_in_time_is_lost() {
    let setting = Setting::new(5_000);
    let quota = setting.quota(Options::default());
    drop(quota.acquire().await.unwrap());
    setting.clock.advance(TimeDelta::seconds(31));
    drop(quota.acquire().await.unwrap());
    assert_eq!(quota.budget().unwrap().used, 10);
}

#[tokio::test]
async fn requests_without_a_daily_limit_are_counted_all_the_same() {
    let mut setting = Setting::new(0);
    setting.rule.per_day = None;
    let quota = setting.quota(Options::default());
    for _ in 0..25 {
        drop(quota.acquire().await.unwrap());
    }
    quota.release().await.unwrap();
    let budget = quota.budget().unwrap();
    assert_eq!((budget.used, budget.left), (25, None));
}

#[tokio::test]
async fn an_allowance_of_nothing_never_comes_free() {
    let mut setting = Setting::new(10);
    setting.rule.reserve = Reserve::Percent(100);
    let quota = setting.quota(Options::default());
    let expected = Exhausted { resume_at: None, cause: Cause::DayQuota };
    assert_eq!(exhausted(&quota).await, expected);
}
