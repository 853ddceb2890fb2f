//! Late changes: which refresh tier shows them, what is counted of that, and how long it takes.
//!
//! `LEADPIPE_FRESHNESS` sets for how many leads the time from an edit to its commit is measured.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::DateTime;
use chrono::Days;
use chrono::FixedOffset;
use chrono::NaiveTime;
use chrono::TimeDelta;
use chrono::Utc;
use leadpipe::checkpoint::AgeClass;
use leadpipe::checkpoint::Caught;
use leadpipe::checkpoint::RefreshTier;
use leadpipe::clock::SharedClock;
use leadpipe::report;
use leadpipe::report::Listings;
use leadpipe::report::SourceStatus;
use leadpipe::report::Status;
use leadpipe::run;
use leadpipe::run::Options;
use leadpipe::run::Range;
use leadpipe::run::Unobserved;
use leadpipe::sandbox::Behaviour;
use leadpipe::sandbox::Edit;
use leadpipe::sandbox::Listing;
use leadpipe::sandbox::Order;
use leadpipe::sandbox::RecordEdit;
use leadpipe::sandbox::Settings;
use leadpipe::sandbox::Stream;
use leadpipe::sandbox::Times;
use serde_json::json;

use crate::support::World;
use crate::support::acme;
use crate::support::key;
use crate::support::number_from;
use crate::support::records::of;
use crate::support::records::small_clinic;
use crate::support::small_job;

fn zulu() -> Behaviour {
    Behaviour { times: Times::Zulu, ..Behaviour::default() }
}

fn fields(name: &str, value: &str) -> serde_json::Map<String, serde_json::Value> {
    [(name.to_owned(), json!(value))].into_iter().collect()
}

fn named(name: &str) -> Edit {
    Edit::Set(fields("contact_name", name))
}

/// What the lake has counted of a source, over all months.
fn caught(world: &World, source: &str) -> Caught {
    let progress = world.head().checkpoint.sources[&source.parse().unwrap()].clone();
    progress.caught.unwrap().from(DateTime::UNIX_EPOCH).1
}

fn one(tier: RefreshTier, age: AgeClass) -> Caught {
    counted(&[(tier, age, 1)])
}

fn counted(counts: &[(RefreshTier, AgeClass, u64)]) -> Caught {
    let mut caught = Caught::default();
    for (tier, age, count) in counts {
        (0..*count).for_each(|_| caught.count(*tier, *age));
    }
    caught
}

/// What `status` says of the one source of a lake.
fn status_text(world: &World) -> String {
    let head = world.head();
    let progress = &head.checkpoint.sources[&"acme".parse().unwrap()];
    let (since, caught) =
        progress.caught.as_ref().unwrap().from(world.clock_now() - TimeDelta::days(90));
    let caught = report::caught_status(since, &caught, &world.job().refresh, &Listings::Dated);
    let source = SourceStatus { caught: Some(caught), ..SourceStatus::default() };
    let status = Status {
        job: "test".to_owned(),
        lake: "lake".into(),
        now: world.clock_now(),
        commit: Some(head.seq),
        committed_at: Some(head.created_at),
        as_of: None,
        is_stale: false,
        holder: None,
        sources: [("acme".parse().unwrap(), source)].into(),
        backfills: Vec::new(),
        runs: Vec::new(),
    };
    report::status_text(&status, FixedOffset::east_opt(0).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_late_change_is_counted_once_by_the_tier_that_would_show_it_first() {
    let world = World::still(zulu()).await;
    let start = world.sandbox.now();
    let profile = world.sandbox.profile_ids()[0];
    let edit_days = [1, 12, 23];
    // An hour before, so that it lies before the horizon of the run of its day.
    let hour = TimeDelta::hours(1);
    let insert = |created: DateTime<Utc>| world.sandbox.insert(profile, created - hour).unwrap();
    let mut edited: BTreeMap<i64, Vec<u64>> = BTreeMap::new();
    for day in edit_days {
        let aged = |age: i64| start + TimeDelta::days(day - age);
        edited.insert(day, [100, 1_000].map(|age| insert(aged(age))).into());
    }
    let mut run = Caught::default();
    let mut changed = 0;
    for day in 0..40 {
        for (on, leads) in &mut edited {
            if *on == day + 10 || (*on < 10 && day == 0) {
                leads.push(insert(start + TimeDelta::days(on - 10)));
            }
            if *on == day + 1 {
                leads.push(insert(start + TimeDelta::days(day)));
            }
            if *on == day {
                assert_eq!(leads.len(), 4);
                leads.iter().for_each(|id| world.sandbox.edit(*id, named("Robin Late")).unwrap());
            }
        }
        let summary = world.sync().await;
        assert_eq!(summary.exit_code(), 0, "{summary:#?}");
        run.add(&acme(&summary).caught);
        changed += acme(&summary).leads.changed;
        world.pass(TimeDelta::days(1));
    }
    world.assert_whole().await;
    assert_eq!(changed, 12);
    let expected = counted(&[
        (RefreshTier::EveryRun, AgeClass::UnderSevenDays, 3),
        (RefreshTier::EveryRun, AgeClass::UnderThirtyDays, 3),
        (RefreshTier::Weekly, AgeClass::UnderFourHundredDays, 3),
        (RefreshTier::Monthly, AgeClass::Older, 3),
    ]);
    assert_eq!(run, expected);
    assert_eq!(caught(&world, "acme"), expected);
    let text = status_text(&world);
    assert!(text.contains("weekly     400 d    seen up to 30 days later"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_weekly_walk_that_is_gone_on_with_counts_for_its_week_once() {
    let mut world = World::still(zulu()).await;
    world.job = world.job.replace("page_size = 50", "page_size = 20");
    assert_eq!(world.sync().await.exit_code(), 0);
    let day = TimeDelta::days(1);
    let now = world.sandbox.now();
    let is_weeks_old = |lead: &&serde_json::Value| {
        let created: DateTime<Utc> = lead["date_created"].as_str().unwrap().parse().unwrap();
        (now - day * 380..now - day * 60).contains(&created)
    };
    let leads = world.sandbox.leads();
    let leads: Vec<u64> =
        leads.iter().filter(is_weeks_old).map(|lead| lead["lead_id"].as_u64().unwrap()).collect();
    assert!(leads.len() > 100);
    leads.iter().for_each(|lead| world.sandbox.edit(*lead, named("Kim Late")).unwrap());
    world.pass(day * 7);
    let mut run = Caught::default();
    let mut runs = 0;
    let mut resumed = 0;
    loop {
        // Enough for the accounts and the new days, and less than the week's largest walk.
        let few = Options { max_requests: Some(14), ..Options::default() };
        let summary = world.sync_with(few).await;
        run.add(&acme(&summary).caught);
        (runs, resumed) = (runs + 1, resumed + acme(&summary).resumed);
        assert!(runs < 20, "{summary:#?}");
        if summary.exit_code() == 0 {
            break;
        }
        world.pass(TimeDelta::hours(1));
    }
    assert!(resumed > 0, "a walk was gone on with");
    assert_eq!(run.of(RefreshTier::Weekly), leads.len() as u64, "{run:?} in {runs} runs");
    assert_eq!(run.tiers().collect::<Vec<_>>(), [RefreshTier::Weekly]);
    assert_eq!(caught(&world, "acme"), run);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_backfill_was_asked_for_counts_apart_unless_every_run_would_show_it() {
    let world = World::still(zulu()).await;
    let profile = world.sandbox.profile_ids()[0];
    let aged = |age: i64| world.sandbox.now() - TimeDelta::days(age);
    let leads = [3, 700].map(|age| world.sandbox.insert(profile, aged(age)).unwrap());
    world.sync().await;
    leads.iter().for_each(|lead| world.sandbox.edit(*lead, named("Kim Late")).unwrap());
    world.pass(TimeDelta::hours(1));
    let range = Range { from: aged(800), to: world.sandbox.now(), again: true };
    let clock: SharedClock = world.clock.clone();
    let options = Options::default();
    let summary =
        run::backfill(world.job(), range, options, clock, Arc::new(Unobserved)).await.unwrap();
    assert_eq!(summary.exit_code(), 0, "{summary:#?}");
    let mut expected = one(RefreshTier::EveryRun, AgeClass::UnderSevenDays);
    expected.add(&one(RefreshTier::AskedFor, AgeClass::Older));
    assert_eq!(acme(&summary).caught, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn first_readings_and_new_leads_count_for_nothing() {
    let mut world =
        World::new(Settings { still: true, behaviour: zulu(), ..crate::support::small() }).await;
    world.job = small_job("").replace("2023-10-01", "2025-10-01");
    world.sync().await;
    // What was outside is history now.
    world.job = small_job("");
    let profile = world.sandbox.profile_ids()[0];
    world.sandbox.insert(profile, world.sandbox.now() - TimeDelta::hours(1)).unwrap();
    world.pass(TimeDelta::days(1));
    let summary = world.sync().await;
    assert!(acme(&summary).leads.new > 100, "{summary:#?}");
    assert!(acme(&summary).caught.is_empty(), "{summary:#?}");
}

/// A listing without dates, by its order: edits an old contact so that `updatedAt` tells it, and
/// another so that it does not; returns what the nights of a week have caught.
async fn caught_of_clinic(order: Order) -> (Caught, Vec<Caught>) {
    let world = World::clinic(small_clinic(), "page_size = 50").await;
    world.behave(|behaviour| behaviour.whautomate.order = order);
    world.sync().await;
    world.nights(1).await;
    let old = world.sandbox.record_ids(Listing::Contacts { account: 0 }).unwrap();
    let edit = |id: &str, edit| world.sandbox.edit_record(Stream::Contacts, id, edit).unwrap();
    edit(&old[3], RecordEdit::Set(fields("name", "Kim Told")));
    edit(&old[4], RecordEdit::SetQuietly(fields("name", "Kim Untold")));
    let summaries = world.nights(8).await;
    world.assert_all_whole().await;
    let nights = summaries.iter().map(|summary| of(summary, "clinic").caught.clone()).collect();
    (caught(&world, "clinic"), nights)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_listings_without_dates_the_order_says_what_every_run_shows() {
    let counts =
        |caught: &Caught| [RefreshTier::EveryRun, RefreshTier::Weekly].map(|tier| caught.of(tier));
    let (all, nights) = caught_of_clinic(Order::UpdatedDescending).await;
    assert_eq!(counts(&all), [1, 1], "only what moved up is shown every run");
    assert_eq!(counts(&nights[0]), [1, 0]);
    let (all, nights) = caught_of_clinic(Order::CreatedDescending).await;
    assert_eq!(counts(&all), [0, 2], "both are older than what every run reads");
    assert!(nights[..5].iter().all(Caught::is_empty), "{nights:?}");
    let (all, nights) = caught_of_clinic(Order::Id).await;
    assert_eq!(counts(&all), [2, 0], "every run reads all of it");
    assert_eq!(counts(&nights[0]), [2, 0]);
}

/// An edit that is waited for.
struct Waiting {
    lead: u64,
    mark: String,
    /// The age of the lead in days, about.
    age: i64,
    at: DateTime<Utc>,
}

const AGES: [i64; 4] = [1, 10, 100, 1_000];

/// How much is edited, and when.
#[derive(Debug, Clone, Copy)]
struct Plan {
    leads: u64,
    /// Days with edits. Thirty meet each phase of a month.
    edit_days: u64,
    /// Edits of leads of each age on such a day.
    edits_a_day: u64,
}

/// Nights before the first edit.
const WARM_UP: u64 = 5;
/// Nights after the last edit, until it must have been seen.
const COOL_DOWN: u64 = 31;

/// Leads by creation, without those that are waited for.
fn free_leads(world: &World, waiting: &[Waiting]) -> BTreeMap<DateTime<Utc>, u64> {
    let of = |lead: &serde_json::Value| {
        let created = lead["date_created"].as_str()?.parse().ok()?;
        Some((created, lead["lead_id"].as_u64()?))
    };
    let mut leads: BTreeMap<_, _> = world.sandbox.leads().iter().filter_map(of).collect();
    leads.retain(|_, id| waiting.iter().all(|edit| edit.lead != *id));
    leads
}

/// Edits leads of every age at moments spread over the day that begins now.
fn edit_on_a_day(world: &World, day: u64, edits_a_day: u64, waiting: &mut Vec<Waiting>) {
    let begin = world.clock_now();
    let count = edits_a_day * AGES.len() as u64;
    let moment = |edit: u64| {
        // Steps of the golden ratio spread evenly, whatever their number.
        let second = ((day * count + edit) * 53_398 + 1_234) % 86_400;
        (second as i64, AGES[(edit % 4) as usize])
    };
    let mut moments: Vec<(i64, i64)> = (0..count).map(moment).collect();
    moments.sort_unstable();
    let mut leads = free_leads(world, waiting);
    for (second, age) in moments {
        world.pass(begin + TimeDelta::seconds(second) - world.clock_now());
        let at = world.clock_now();
        let (created, lead) = leads.range(..at - TimeDelta::days(age)).next_back().unwrap();
        let (created, lead) = (*created, *lead);
        assert!(at - created < TimeDelta::days(age + age / 2 + 4), "none is about as old");
        leads.remove(&created);
        let mark = format!("Late {day} {second}");
        world.sandbox.edit(lead, named(&mark)).unwrap();
        waiting.push(Waiting { lead, mark, age, at });
    }
}

/// Nights of a profile key at ten past two, with edits in between; returns how long each took to be
/// seen, by age.
async fn lags(plan: Plan) -> (World, BTreeMap<i64, Vec<TimeDelta>>) {
    let one = Settings { accounts: 1, profiles: 1, behaviour: zulu(), ..Settings::default() };
    let mut world = World::new(Settings { leads: plan.leads, years: 4, ..one }).await;
    world.job = crate::support::MASTER.replace("\"master\"", "\"profile\"");
    world.job = world.job.replace("2021-01-01", "2022-10-01");
    let profile = world.sandbox.profile_ids()[0];
    let (token, secret) = world.sandbox.profile_key(profile).unwrap();
    let mut waiting = Vec::new();
    let mut lags: BTreeMap<i64, Vec<TimeDelta>> = BTreeMap::new();
    let at_ten_past_two = NaiveTime::from_hms_opt(2, 10, 0).unwrap();
    for night in 0..WARM_UP + plan.edit_days + COOL_DOWN {
        let now = world.clock_now();
        let next = now.date_naive().checked_add_days(Days::new(1)).unwrap();
        if (WARM_UP..WARM_UP + plan.edit_days).contains(&night) {
            edit_on_a_day(&world, night, plan.edits_a_day, &mut waiting);
        }
        world.pass(next.and_time(at_ten_past_two).and_utc() - world.clock_now());
        let job = world.job_with_key(token.clone(), secret.clone());
        let clock: SharedClock = world.clock.clone();
        let options = Options::default();
        let summary = run::sync(job, options, clock, Arc::new(Unobserved)).await.unwrap();
        assert_eq!(summary.exit_code(), 0, "{summary:#?}");
        let committed = world.head().created_at;
        let names = world.column("full_name");
        waiting.retain(|edit| {
            let name = names.get(&key(edit.lead)).cloned().flatten();
            let is_seen = name.as_ref() == Some(&edit.mark);
            if is_seen {
                lags.entry(edit.age).or_default().push(committed - edit.at);
            }
            !is_seen
        });
    }
    let left: Vec<_> = waiting.iter().map(|edit| (edit.lead, edit.age, edit.at)).collect();
    assert!(left.is_empty(), "never seen: {left:?}");
    lags.values_mut().for_each(|lags| lags.sort_unstable());
    (world, lags)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_seen_within_a_day_a_week_or_a_month_by_its_age() {
    let leads = number_from("LEADPIPE_FRESHNESS", 0);
    let plan = match leads {
        0 => Plan { leads: 1_200, edit_days: 4, edits_a_day: 1 },
        leads => Plan { leads, edit_days: 30, edits_a_day: 3 },
    };
    let (world, lags) = lags(plan).await;
    let mut table = report::Table::new(&["age", "edits", "median", "95 %", "longest"], 0);
    for (age, lags) in &lags {
        let at = |percent: usize| lags[(lags.len() * percent).div_ceil(100).max(1) - 1];
        #[expect(clippy::cast_precision_loss, reason = "days for people")]
        let days = |lag: TimeDelta| format!("{:.1} d", lag.num_minutes() as f64 / 1_440.0);
        table.row([
            format!("{age} d"),
            lags.len().to_string(),
            days(at(50)),
            days(at(95)),
            days(at(100)),
        ]);
        let bound = match age {
            1 | 10 => TimeDelta::days(1),
            100 => TimeDelta::days(7),
            _ => TimeDelta::days(30),
        };
        assert!(at(100) <= bound, "{age}: {:?}", at(100));
    }
    let edits: usize = lags.values().map(Vec::len).sum();
    assert_eq!(lags.len(), AGES.len());
    let counted = caught(&world, "acme");
    let all: u64 = counted.tiers().map(|tier| counted.of(tier)).sum();
    assert!(all >= edits as u64, "{all} of {edits} and what changes by itself: {counted:?}");
    // The week's walk is read together with the new days: one request for both.
    let young = [AgeClass::UnderOneDay, AgeClass::UnderSevenDays, AgeClass::UnderThirtyDays];
    let weekly = counted.ages(RefreshTier::Weekly);
    assert!(young.iter().all(|class| !weekly.contains_key(class)), "{counted:?}");
    #[expect(clippy::print_stdout, reason = "the figures of a long run")]
    if leads > 0 {
        println!("{leads} leads, from an edit to its commit:\n{table}\n{}", status_text(&world));
    }
}
