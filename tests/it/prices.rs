//! What a plan says beforehand, held against what runs then cost: prices, days, tiers, and what a
//! backfill leaves to the nightly.
//!
//! `LEADPIPE_AGENCY` sets the profiles of the agency whose nights are counted, over eight years.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use leadpipe::clock::Clock;
use leadpipe::clock::SharedClock;
use leadpipe::plan::Basis;
use leadpipe::plan::Requests;
use leadpipe::run;
use leadpipe::run::Options;
use leadpipe::run::Preview;
use leadpipe::run::PreviewedSource;
use leadpipe::run::Range;
use leadpipe::run::Summary;
use leadpipe::run::Unobserved;
use leadpipe::sandbox::Behaviour;
use leadpipe::sandbox::Order;
use leadpipe::sandbox::Settings;
use leadpipe::sandbox::Times;

use crate::support::World;
use crate::support::acme;
use crate::support::number_from;
use crate::support::parameter;
use crate::support::records::CLINIC;
use crate::support::records::HEAD;
use crate::support::small;

/// Three profiles over three years in which nothing happens, under so many requests a day.
async fn still(per_day: u32) -> World {
    let world = World::still(Behaviour { times: Times::Zulu, ..Behaviour::default() }).await;
    let quota = format!("[sources.quota]\nper_day = {per_day}\nreserve = 0");
    world.with(&quota)
}

async fn preview(world: &World, range: Option<Range>, options: Options) -> Preview {
    let clock: SharedClock = world.clock.clone();
    run::preview(world.job(), range, options, clock).await.unwrap()
}

async fn plan(world: &World, probe: bool) -> PreviewedSource {
    let options = Options { probe, ..Options::default() };
    preview(world, None, options).await.sources.remove(0)
}

fn range(again: bool) -> Range {
    let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
    Range { from: at("2023-11-01T00:00:00Z"), to: at("2026-09-01T00:00:00Z"), again }
}

async fn backfill(world: &World, range: &Range) -> Summary {
    let clock: SharedClock = world.clock.clone();
    let observer = Arc::new(Unobserved);
    run::backfill(world.job(), range.clone(), Options::default(), clock, observer).await.unwrap()
}

fn sent(summary: &Summary) -> u64 {
    summary.sources.values().map(|source| source.requests.sent).sum()
}

/// Runs as `--wait` does; returns the runs' requests, and when the last ended.
async fn until_done(world: &World, range: Option<&Range>) -> (Vec<u64>, DateTime<Utc>) {
    let mut requests = Vec::new();
    for _ in 0..200 {
        let summary = match range {
            Some(range) => backfill(world, range).await,
            None => world.sync().await,
        };
        requests.push(sent(&summary));
        match summary.exit_code() {
            0 => return (requests, summary.ended_at),
            8 => world.clock.sleep_until(summary.resume_at.unwrap()).await,
            _ => panic!("{summary:#?}"),
        }
    }
    panic!("it does not end: {requests:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_makes_a_price_exact_and_is_not_asked_twice() {
    let world = still(1_000).await;
    let unknown = plan(&world, false).await;
    let walks = unknown.plan.walks.len() as u64;
    assert_eq!((unknown.requests, unknown.spent), (Requests::AtLeast(1 + walks), 1));
    let probed = plan(&world, true).await;
    assert_eq!((probed.spent, probed.unstated), (1 + walks, 0));
    assert!(probed.plan.walks.iter().all(|walk| walk.basis == Basis::Counted), "{probed:#?}");
    let sizes = world.sandbox.requests().len();
    let kept = plan(&world, true).await;
    assert_eq!(kept.requests, probed.requests);
    assert_eq!(world.sandbox.requests().len(), sizes + 1, "but for the list of accounts");
    let summary = world.sync().await;
    assert_eq!(Requests::Known(sent(&summary)), probed.requests);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_of_many_days_ends_when_its_plan_said() {
    for per_day in [9, 11, 17] {
        let world = still(1_000).await;
        let probed = plan(&world, true).await;
        world.pass(TimeDelta::days(2));
        let world = world.with(&format!("[sources.quota]\nper_day = {per_day}\nreserve = 0"));
        let foretold = plan(&world, false).await.forecast.unwrap();
        let (runs, ended_at) = until_done(&world, None).await;
        let said: Vec<u64> = foretold.runs.iter().map(|run| run.requests).collect();
        assert_eq!(
            foretold.done_at.unwrap().date_naive(),
            ended_at.date_naive(),
            "{said:?}, {runs:?}"
        );
        assert!(runs.len().abs_diff(said.len()) <= 1, "said {said:?}, were {runs:?}");
        assert!(probed.requests.count() <= runs.iter().sum::<u64>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_counted_once_tells_the_day_when_it_is_read_again() {
    let world = still(1_000).await;
    world.sync().await;
    world.pass(TimeDelta::days(2));
    let world = world.with("[sources.quota]\nper_day = 14\nreserve = 0");
    let again = range(true);
    let foretold = preview(&world, Some(again.clone()), Options::default()).await.sources.remove(0);
    assert!(matches!(foretold.requests, Requests::About(_)), "{:?}", foretold.requests);
    let (runs, ended_at) = until_done(&world, Some(&again)).await;
    let forecast = foretold.forecast.unwrap();
    assert_eq!(forecast.done_at.unwrap().date_naive(), ended_at.date_naive(), "{runs:?}");
    let total = runs.iter().sum::<u64>();
    assert!(forecast.requests.abs_diff(total) <= 3, "said {}, were {total}", forecast.requests);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_without_dates_ends_when_its_plan_said() {
    let mut behaviour = Behaviour::default();
    behaviour.whautomate.order = Order::Id;
    let settings =
        Settings { still: true, behaviour, leads: 0, accounts: 1, profiles: 1, ..small() };
    let mut world =
        World::new(Settings { whautomate_accounts: 1, contacts: 600, ..settings }).await;
    world.job = format!(
        "{HEAD}{CLINIC}streams = [\"contacts\"]\npage_size = 10\n[sources.quota]\nper_day = 500\n\
         reserve = 0\nrate = \"300/min\"\n"
    );
    world.sync().await;
    world.pass(TimeDelta::days(2));
    world.job = world.job.replace("per_day = 500", "per_day = 25");
    let foretold = plan(&world, false).await.forecast.unwrap();
    let (runs, ended_at) = until_done(&world, None).await;
    assert_eq!(foretold.done_at.unwrap().date_naive(), ended_at.date_naive(), "{runs:?}");
    assert!(runs.len() > 2, "{runs:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_leaves_to_the_nightly_what_it_needs() {
    let under = |per_day| {
        let tiers = "[refresh]\nweekly = \"0d\"\nmonthly = \"0d\"";
        format!("[sources.quota]\nper_day = {per_day}\nreserve = 0\n{tiers}")
    };
    let world = still(1_000).await.with(&under(1_000));
    world.sync().await;
    world.pass(TimeDelta::days(2));
    let world = world.with(&under(14));
    // A night costs the list of accounts and a page of each of three profiles.
    let again = range(true);
    let planned = preview(&world, Some(again.clone()), Options::default()).await.sources.remove(0);
    let quota = planned.quota.unwrap();
    assert_eq!((quota.kept_back, quota.allowance), (4, Some(10)));
    let summary = backfill(&world, &again).await;
    assert_eq!((summary.exit_code(), sent(&summary)), (8, 10), "{summary:#?}");
    assert_eq!(acme(&summary).kept_back, 4);
    let night = world.sync().await;
    assert_eq!((night.exit_code(), sent(&night)), (0, 4), "{night:#?}");
    // Day after day, the nightly at its minute and the backfill in what is left.
    let mut nights = 0;
    loop {
        world.pass(TimeDelta::hours(24));
        let night = world.sync().await;
        assert_eq!(night.exit_code(), 0, "{night:#?}");
        nights += 1;
        let summary = backfill(&world, &again).await;
        if summary.exit_code() == 0 {
            break;
        }
        assert!(sent(&summary) > 0 && nights < 60, "{summary:#?}");
    }
    assert!(nights > 0, "{nights}");
}

/// Hourly syncs that use more than half of the day: what is due, and a backfill, get on in the rest.
#[tokio::test(flavor = "multi_thread")]
async fn hourly_syncs_leave_what_they_do_not_need_to_what_is_due_and_to_a_backfill() {
    let world = still(1_000).await;
    world.sync().await;
    world.pass(TimeDelta::days(8));
    // A sync costs 4, those of a day 96 of 160.
    let world = world.with("[sources.quota]\nper_day = 160\nreserve = 0");
    let again = range(true);
    let (mut backfilled, mut read_again) = (0, 0);
    for hour in 0..48 {
        world.pass(TimeDelta::hours(1));
        let planned = plan(&world, false).await;
        let is_due = |reason| reason == leadpipe::record::Reason::Weekly;
        let due = planned.plan.walks.iter().filter(|walk| is_due(walk.reason)).count() as u64;
        let summary = world.sync().await;
        assert!(acme(&summary).walks >= 3, "new time in hour {hour}: {summary:#?}");
        read_again += if summary.exit_code() == 0 { due } else { 0 };
        if hour >= 24 {
            backfilled += acme(&backfill(&world, &again).await).pages;
        }
    }
    assert!(read_again >= 3, "{read_again}");
    assert!(backfilled >= 10, "{backfilled}");
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_asked_for_from_its_start_on_where_that_is_wanted() {
    for oldest_first in [false, true] {
        let world = still(1_000).await;
        let options = Options { oldest_first, ..Options::default() };
        world.sync_with(options).await;
        let listings = world.listings();
        let starts = listings.iter().filter_map(|request| parameter(request, "start_date"));
        let starts: Vec<DateTime<Utc>> = starts.map(|at| at.parse().unwrap()).collect();
        let newest = starts.iter().max().unwrap();
        let first_of_history = starts.iter().find(|start| *start < newest).unwrap();
        let oldest = starts.iter().min().unwrap();
        assert_eq!(first_of_history == oldest, oldest_first, "{starts:?}");
    }
}

/// Requests of nights by what was due on them: of plain nights, weekly and monthly ones.
async fn nights(world: &World, days: u64) -> BTreeMap<&'static str, Vec<u64>> {
    let mut by_kind: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for _ in 0..days {
        world.pass(TimeDelta::hours(24));
        let planned = plan(world, false).await;
        let is_due = |reason| planned.plan.walks.iter().any(|walk| walk.reason == reason);
        let kind = if is_due(leadpipe::record::Reason::Monthly) {
            "monthly"
        } else if is_due(leadpipe::record::Reason::Weekly) {
            "weekly"
        } else {
            "plain"
        };
        let summary = world.sync().await;
        assert_eq!(summary.exit_code(), 0, "{summary:#?}");
        by_kind.entry(kind).or_default().push(sent(&summary) - acme(&summary).requests.lookups);
    }
    by_kind
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nights_of_an_agency_cost_a_listing_a_profile_and_its_windows_when_they_are_due() {
    let profiles = number_from("LEADPIPE_AGENCY", 4);
    let is_large = profiles > 4;
    let (years, leads) = if is_large { (8, profiles * 2_500) } else { (4, 400) };
    let behaviour = Behaviour { times: Times::Zulu, ..Behaviour::default() };
    let count = u32::try_from(profiles).unwrap();
    let accounts = count.div_ceil(4);
    let settings = Settings { leads, years, accounts, profiles: count, behaviour, ..small() };
    let world = World::new(settings).await;
    let start = format!("{}-11-01", 2026 - years);
    let mut world = world.with("");
    world.job = world.job.replace("2023-10-01", &start).replace("page_size = 50\n", "");
    let first = world.sync().await;
    assert_eq!(first.exit_code(), 0, "{first:#?}");
    let by_kind = nights(&world, 31).await;
    let windows = u64::from(years) * 365 / 400 + 1;
    let (plain, weekly, monthly) = (&by_kind["plain"], &by_kind["weekly"], &by_kind["monthly"]);
    if is_large {
        #[expect(clippy::print_stdout, reason = "the figures of a long run")]
        {
            println!(
                "first {}, plain {plain:?}, weekly {weekly:?}, monthly {monthly:?}",
                sent(&first)
            );
        }
    }
    assert!(plain.iter().all(|night| *night == 1 + profiles), "{plain:?}");
    // Small profiles: their 400 days fit the page of their new days.
    let most = 1 + 2 * profiles;
    assert!(weekly.iter().all(|night| (1 + profiles..=most).contains(night)), "{weekly:?}");
    assert_eq!((plain.len(), weekly.len(), monthly.len()), (26, 4, 1));
    assert!(monthly[0] <= 1 + profiles * (windows + 1), "{monthly:?}");
    assert!(monthly[0] > profiles * (windows - 1), "{monthly:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ways_to_cut_the_listings_are_priced_side_by_side() {
    let world = still(1_000).await;
    world.sync().await;
    world.pass(TimeDelta::days(1));
    let planned = plan(&world, false).await;
    let said: BTreeMap<_, _> = planned
        .choices
        .iter()
        .map(|choice| (choice.partition_by.as_str(), (choice.scopes, choice.is_set, choice.night)))
        .collect();
    assert_eq!(said["profile"], (3, true, Requests::About(4)));
    assert_eq!(said["account"], (2, false, Requests::About(3)));
    assert_eq!(said["none"], (1, false, Requests::About(1)));
    // What it says of another way is what that way then costs.
    for way in ["account", "none"] {
        let other = still(1_000).await;
        let more = "[sources.quota]\nper_day = 1000\nreserve = 0";
        let other = other.with(&format!("partition_by = \"{way}\"\n{more}"));
        let first = sent(&other.sync().await);
        let choice =
            planned.choices.iter().find(|choice| choice.partition_by.as_str() == way).unwrap();
        assert!(choice.all.count().abs_diff(first) <= 1, "{way}: {choice:?}, was {first}");
    }
}
