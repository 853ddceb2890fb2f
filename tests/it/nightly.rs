//! The nightly run, from an empty folder on: what it costs, and what becomes of leads.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::DateTime;
use chrono::SubsecRound;
use chrono::TimeDelta;
use chrono::Utc;
use leadpipe::clock::SharedClock;
use leadpipe::ids::Seq;
use leadpipe::run;
use leadpipe::run::Options;
use leadpipe::run::Unobserved;
use leadpipe::sandbox::Behaviour;
use leadpipe::sandbox::Edit;
use leadpipe::sandbox::Fault;
use leadpipe::sandbox::LoggedRequest;
use leadpipe::sandbox::Settings;
use leadpipe::sandbox::Times;

use crate::support::World;
use crate::support::acme;
use crate::support::assert_same;
use crate::support::key;
use crate::support::parameter;
use crate::support::small;
use crate::support::small_job;

fn zulu() -> Behaviour {
    Behaviour { times: Times::Zulu, ..Behaviour::default() }
}

/// Requests by profile and bounds.
fn by_window(world: &World) -> BTreeMap<(u64, DateTime<Utc>, DateTime<Utc>), Vec<LoggedRequest>> {
    let mut walks: BTreeMap<_, Vec<LoggedRequest>> = BTreeMap::new();
    for request in world.listings() {
        let get = |name: &str| parameter(&request, name).unwrap();
        let profile = get("profile_id").parse().unwrap();
        let (from, to) = (get("start_date").parse().unwrap(), get("end_date").parse().unwrap());
        walks.entry((profile, from, to)).or_default().push(request);
    }
    walks
}

/// Asserts that each window cost as many requests as its leads fill pages, and at least one.
fn assert_price(world: &World, page_size: u64) -> usize {
    let leads = world.sandbox.leads();
    let created = |lead: &serde_json::Value| -> Option<DateTime<Utc>> {
        lead["date_created"].as_str()?.parse().ok()
    };
    let mut requests = 0;
    for ((profile, from, to), asked) in by_window(world) {
        let mine = leads.iter().filter(|lead| lead["profile_id"].as_u64() == Some(profile));
        let inside = mine.filter(|l| created(l).is_some_and(|at| from <= at && at <= to));
        let pages = (inside.count() as u64).div_ceil(page_size).max(1);
        assert_eq!(asked.len() as u64, pages, "profile {profile} from {from} to {to}");
        assert!(to - from <= TimeDelta::days(400));
        requests += asked.len();
    }
    requests
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_sync_brings_every_lead_once_for_a_request_a_page_and_the_second_changes_nothing() {
    let settings = Settings { leads: 3_000, still: true, behaviour: zulu(), ..Settings::default() };
    let mut world = World::new(settings).await;
    world.job = format!("{}page_size = 200\n", world.job);
    let horizon = (world.sandbox.now() - TimeDelta::minutes(2)).trunc_subsecs(0);
    let summary = world.sync().await;
    assert_eq!(summary.exit_code(), 0, "{summary:#?}");
    world.assert_whole().await;
    assert_same(&world.replayed_changes(), &world.rows());

    let listings = assert_price(&world, 200);
    let all = world.sandbox.requests().len();
    assert_eq!(all, listings + 1, "and one for the accounts");
    assert_eq!(acme(&summary).requests.sent as usize, all);
    let windows: BTreeSet<_> =
        by_window(&world).into_keys().map(|(_, from, to)| (from, to)).collect();
    let start: DateTime<Utc> = "2021-01-01T00:00:00Z".parse().unwrap();
    let second = TimeDelta::seconds(1);
    assert_eq!(windows.first().unwrap().0, start - second);
    assert_eq!(windows.last().unwrap().1, horizon + second);
    let windows: Vec<_> = windows.into_iter().collect();
    assert!(windows.windows(2).all(|pair| pair[0].1 - pair[1].0 == second * 2), "{windows:?}");

    let first = world.head();
    world.sandbox.clear_requests();
    world.pass(TimeDelta::minutes(1));
    let summary = world.sync().await;
    assert_eq!(summary.exit_code(), 0, "{summary:#?}");
    let listings = assert_price(&world, 200);
    assert_eq!(world.sandbox.requests().len(), listings + 1);
    let days = TimeDelta::days(30) + second * 2;
    assert!(by_window(&world).keys().all(|(_, from, to)| *to - *from == days));
    assert_eq!(by_window(&world).len(), world.sandbox.profile_ids().len());
    let second = world.head();
    assert_eq!((second.seq, second.snapshot), (Seq(2), first.snapshot));
    assert_eq!(second.changes.rows, 0);
    assert!(world.changes(second.seq).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_sync_that_commits_on_its_way_takes_nothing_for_absent() {
    let world = World::still(Behaviour::default()).await;
    let world = world.with("[run]\npublish_every = \"5m\"");
    let summary = world.sync_slowly(TimeDelta::minutes(2)).await;
    assert!(summary.commit.unwrap().0 > 2, "{summary:#?}");
    assert_eq!(acme(&summary).requests.lookups, 0, "{summary:#?}");
    assert_eq!(summary.exit_code(), 0, "{summary:#?}");
    world.assert_whole().await;
    assert_same(&world.replayed_changes(), &world.rows());
}

#[tokio::test(flavor = "multi_thread")]
async fn little_memory_gives_the_same_snapshot() {
    for limit in ["95MB", "1GB"] {
        let world = World::new(Settings { leads: 9_000, ..small() }).await;
        let world = world.with(&format!("[run]\nmemory_limit = \"{limit}\""));
        let summary = world.sync().await;
        assert_eq!(summary.exit_code(), 0, "{summary:#?}");
        world.assert_whole().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn change_files_applied_in_order_give_the_snapshot() {
    let mut world = World::new(Settings { churn_per_day: 0.05, ..small() }).await;
    world.job = small_job("");
    for _ in 0..5 {
        let summary = world.sync().await;
        assert_eq!(summary.exit_code(), 0, "{summary:#?}");
        assert_same(&world.replayed_changes(), &world.rows());
        world.pass(TimeDelta::days(1));
    }
}

/// Syncs, edits one of the newest leads, syncs a day later; returns the change of that lead.
async fn after_edit(world: &World, edit: impl FnOnce(u64) -> Edit) -> (u64, Vec<(String, String)>) {
    assert_eq!(world.sync().await.exit_code(), 0);
    let (profile, lead) = *world.sandbox.lead_ids().last().unwrap();
    world.sandbox.edit(lead, edit(profile)).unwrap();
    world.pass(TimeDelta::days(1));
    world.sandbox.clear_requests();
    let summary = world.sync().await;
    assert_eq!(summary.exit_code(), 0, "{summary:#?}");
    assert!(acme(&summary).unsettled.is_empty(), "{summary:#?}");
    world.assert_whole().await;
    assert_same(&world.replayed_changes(), &world.rows());
    let changes = world.changes(world.head().seq);
    assert!(changes.iter().all(|(_, _, id, _)| *id == key(lead)), "{changes:?}");
    (lead, changes.into_iter().map(|(op, reason, _, _)| (op, reason)).collect())
}

fn change(op: &str, reason: &str) -> Vec<(String, String)> {
    vec![(op.to_owned(), reason.to_owned())]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lead_that_moves_across_a_year_inside_what_is_read_is_one_upsert() {
    let mut world = World::still(zulu()).await;
    world.job = small_job("[refresh]\nevery_run = \"380d\"");
    let into_2025 = world.sandbox.now() - TimeDelta::days(320);
    let (lead, changes) = after_edit(&world, |_| Edit::Created(into_2025)).await;
    assert_eq!(changes, change("upsert", "moved"));
    assert!(world.lookups().is_empty());
    assert_eq!(world.partition_of(lead), "2025");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lead_that_moves_to_a_time_that_is_not_read_is_found_by_its_id() {
    let world = World::still(zulu()).await;
    let long_ago = world.sandbox.now() - TimeDelta::days(500);
    let (lead, changes) = after_edit(&world, |_| Edit::Created(long_ago)).await;
    assert_eq!(changes, change("upsert", "moved"));
    assert!((1..=2).contains(&world.lookups().len()));
    assert_eq!(world.partition_of(lead), "2025");
}

/// Makes an answer one without leads, after so many that are sound.
fn empty_after(sound: usize) -> Behaviour {
    let mut fail_next = vec![Fault::Stall { ms: 0 }; sound];
    fail_next.push(nothing());
    Behaviour { fail_next, ..zulu() }
}

fn nothing() -> Fault {
    Fault::Body { text: r#"{"leads":[],"total_leads":0}"#.to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_by_id_that_shows_nothing_is_asked_for_once_more() {
    let world = World::still(zulu()).await;
    world.sync().await;
    world.pass(TimeDelta::days(1));
    world.sandbox.clear_requests();
    world.sync().await;
    let night = world.sandbox.requests().len();
    let (_, lead) = *world.sandbox.lead_ids().last().unwrap();
    let long_ago = world.sandbox.now() - TimeDelta::days(500);
    world.sandbox.edit(lead, Edit::Created(long_ago)).unwrap();
    world.pass(TimeDelta::days(1));
    world.sandbox.behave(empty_after(night));
    world.sandbox.clear_requests();
    let summary = world.sync().await;
    let lookups = world.lookups();
    assert_eq!(lookups[0].fault, Some(nothing()), "{lookups:?}");
    assert_eq!((summary.exit_code(), acme(&summary).leads.gone), (0, 0), "{summary:#?}");
    world.assert_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_is_suddenly_empty_is_asked_for_once_more() {
    let mut world = World::still(zulu()).await;
    world.job = small_job("[refresh]\nevery_run = \"380d\"");
    world.sync().await;
    world.pass(TimeDelta::days(1));
    world.sandbox.behave(empty_after(1));
    world.sandbox.clear_requests();
    let summary = world.sync().await;
    assert!(world.listings().iter().any(|request| request.fault == Some(nothing())));
    let requests = &acme(&summary).requests;
    assert_eq!((summary.exit_code(), requests.probes, requests.lookups), (0, 1, 0), "{summary:#?}");
    world.assert_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lead_that_loses_its_date_is_kept_among_the_unknown() {
    let world = World::still(zulu()).await;
    let (lead, changes) = after_edit(&world, |_| Edit::Undated).await;
    assert_eq!(changes, change("upsert", "moved"));
    assert_eq!(world.partition_of(lead), "unknown");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lead_that_moves_to_another_profile_is_changed_and_not_gone() {
    let world = World::still(zulu()).await;
    let profiles = world.sandbox.profile_ids();
    let other = |profile| *profiles.iter().find(|other| **other != profile).unwrap();
    let (lead, changes) = after_edit(&world, |profile| Edit::Profile(other(profile))).await;
    assert_eq!(changes, change("upsert", "changed"));
    assert!(world.lookups().is_empty());
    let (profile, _) = *world.sandbox.lead_ids().iter().find(|(_, id)| *id == lead).unwrap();
    let scope = world.column("_scope")[&key(lead)].clone();
    assert_eq!(scope, Some(format!("profile:{profile}")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lead_that_vanishes_is_asked_for_once_and_gone() {
    let world = World::still(zulu()).await;
    let (_, changes) = after_edit(&world, |_| Edit::Vanish).await;
    assert_eq!(changes, change("delete", "gone"));
    assert_eq!(world.lookups().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lead_that_turns_to_spam_stays_and_says_so() {
    let world = World::still(zulu()).await;
    let (_, changes) = after_edit(&world, |_| Edit::Spam(true)).await;
    assert_eq!(changes, change("upsert", "changed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lead_that_turns_to_spam_where_spam_is_not_listed_is_found_by_its_id_and_stays() {
    let world = World::still(Behaviour { spam_by_default: false, ..zulu() }).await;
    assert_eq!(world.sync().await.exit_code(), 0);
    let (_, lead) = *world
        .sandbox
        .lead_ids()
        .iter()
        .rev()
        .find(|(_, id)| world.rows().contains_key(&key(*id)))
        .unwrap();
    world.sandbox.edit(lead, Edit::Spam(true)).unwrap();
    for day in 0..3 {
        world.pass(TimeDelta::days(1));
        world.sandbox.clear_requests();
        assert_eq!(world.sync().await.exit_code(), 0);
        assert!(world.rows().contains_key(&key(lead)), "day {day}");
        assert!(day == 0 || world.lookups().is_empty(), "it is asked for once a week");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_night_on_which_all_is_empty_deletes_nothing_until_it_is_accepted() {
    let mut world = World::still(Behaviour::default()).await;
    world.job = small_job("[refresh]\nevery_run = \"380d\"");
    world.sync().await;
    let held = world.rows();
    world.sandbox.behave(Behaviour { empty: true, ..Behaviour::default() });
    for _ in 0..3 {
        world.pass(TimeDelta::days(1));
        let summary = world.sync().await;
        assert_eq!(summary.exit_code(), 13, "{summary:#?}");
        assert!(acme(&summary).deletes_held_back > 50, "{summary:#?}");
        assert_eq!(acme(&summary).leads.gone, 0);
        assert_same(&world.rows(), &held);
    }
    let accept_deletes = vec!["acme".parse().unwrap()];
    let summary = world.sync_with(Options { accept_deletes, ..Options::default() }).await;
    assert_eq!(summary.exit_code(), 0, "{summary:#?}");
    assert!(acme(&summary).leads.gone > 50, "{summary:#?}");
    // A bad night that was taken for true heals by itself.
    world.sandbox.behave(Behaviour::default());
    world.pass(TimeDelta::days(1));
    world.sync().await;
    world.assert_whole().await;
    assert_same(&world.replayed_changes(), &world.rows());
}

#[tokio::test(flavor = "multi_thread")]
async fn more_leads_than_may_be_asked_for_wait_for_proof_and_then_go() {
    let mut world = World::still(Behaviour::default()).await;
    world.job = small_job("[refresh]\nevery_run = \"380d\"");
    world.sync().await;
    let ids = world.sandbox.lead_ids();
    let gone: Vec<u64> = ids.iter().rev().take(26).map(|(_, id)| *id).collect();
    for lead in &gone {
        world.sandbox.edit(*lead, Edit::Vanish).unwrap();
    }
    world.pass(TimeDelta::days(1));
    world.sandbox.clear_requests();
    let summary = world.sync().await;
    assert_eq!(world.lookups().len(), 20);
    assert_eq!((acme(&summary).leads.gone, acme(&summary).absent), (20, 6), "{summary:#?}");
    world.pass(TimeDelta::days(1));
    let summary = world.sync().await;
    assert_eq!((acme(&summary).leads.gone, acme(&summary).absent), (6, 0), "{summary:#?}");
    world.assert_whole().await;
    assert_same(&world.replayed_changes(), &world.rows());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_selected_profiles_are_read_and_rows_of_others_stay_as_retired() {
    let world = World::still(Behaviour::default()).await;
    let profiles = world.sandbox.profile_ids();
    let world = world.with(&format!("exclude_profiles = [{}]", profiles[0]));
    assert_eq!(world.sync().await.exit_code(), 0);
    let others = world.truth_where(|lead| lead["profile_id"].as_u64() != Some(profiles[0])).await;
    assert_same(&world.rows(), &others);
    assert!(by_window(&world).keys().all(|(profile, _, _)| *profile != profiles[0]));

    let world = world.with("");
    assert_eq!(world.sync().await.exit_code(), 0);
    world.assert_whole().await;
    let world = world.with(&format!("include_profiles = [{}]", profiles[1]));
    world.sandbox.clear_requests();
    let summary = world.sync().await;
    assert_eq!(summary.exit_code(), 0, "{summary:#?}");
    assert_eq!(acme(&summary).retired.len(), 2);
    assert!(by_window(&world).keys().all(|(profile, _, _)| *profile == profiles[1]));
    world.assert_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_that_is_no_longer_listed_keeps_its_rows() {
    let world = World::still(Behaviour::default()).await;
    world.sync().await;
    let held = world.rows();
    let without_profiles = vec![world.sandbox.profile_ids()[1]];
    world.sandbox.behave(Behaviour { without_profiles, ..Behaviour::default() });
    world.pass(TimeDelta::days(1));
    let summary = world.sync().await;
    assert_eq!(summary.exit_code(), 0, "{summary:#?}");
    assert_eq!(acme(&summary).retired.len(), 1);
    assert_same(&world.rows(), &held);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_may_have_its_own_currency_and_region() {
    let world = World::still(Behaviour::default()).await;
    let profile = world.sandbox.profile_ids()[0];
    let own = format!("[sources.profiles.{profile}]\ncurrency = \"GBP\"\ndefault_region = \"GB\"");
    let plain = world.with("");
    let world = plain.with(&own);
    assert_eq!(world.sync().await.exit_code(), 0);
    world.assert_whole().await;
    let scopes = world.column("_scope");
    for (lead, currency) in world.column("currency") {
        let own = scopes[&lead] == Some(format!("profile:{profile}"));
        let expected = if own { "GBP" } else { "USD" };
        assert!(currency.is_none_or(|currency| currency == expected), "{lead}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_key_reads_its_profile_without_a_listing() {
    let mut world = World::still(zulu()).await;
    world.job = small_job("").replace("\"master\"", "\"profile\"");
    let profile = world.sandbox.profile_ids()[1];
    let (token, secret) = world.sandbox.profile_key(profile).unwrap();
    let clock: SharedClock = world.clock.clone();
    let job = world.job_with_key(token, secret);
    let summary = run::sync(job, Options::default(), clock, Arc::new(Unobserved)).await.unwrap();
    assert_eq!(summary.exit_code(), 0, "{summary:#?}");
    let mine = world.truth_where(|lead| lead["profile_id"].as_u64() == Some(profile)).await;
    assert_same(&world.rows(), &mine);
    let requests = world.sandbox.requests();
    assert!(requests.iter().all(|request| request.path == "/api/v1/leads"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_a_run_leaves_out_is_not_retired() {
    let mut world = World::still(Behaviour::default()).await;
    let source = world.job[world.job.find("[[sources]]").unwrap()..].to_owned();
    world.job = format!("{}\n{}", world.job, source.replace("\"acme\"", "\"other\""));
    world.sync().await;
    let only_acme = Options { sources: vec!["acme".parse().unwrap()], ..Options::default() };
    assert!(world.sync_with(only_acme).await.retired.is_empty());
    for source in world.head().sources.values() {
        assert_eq!(source.state, leadpipe::commit::SourceState::Complete);
    }
    // One that left the job is told, and keeps its rows.
    let rows = world.head().sources[&"other".parse().unwrap()].rows;
    world.job = world.job[..world.job.rfind("[[sources]]").unwrap()].to_owned();
    assert_eq!(world.sync().await.retired, ["other".parse().unwrap()]);
    assert_eq!(world.head().sources[&"other".parse().unwrap()].rows, rows);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_under_a_clock_that_ran_ahead_is_read_again() {
    let world = World::still(Behaviour::default()).await;
    world.pass(TimeDelta::days(365));
    world.sync().await;
    world.pass(-TimeDelta::days(365));
    let (profile, _) = world.sandbox.lead_ids()[0];
    world.sandbox.insert(profile, world.sandbox.now() - TimeDelta::days(60)).unwrap();
    let summary = world.sync().await;
    assert_eq!(summary.exit_code(), 0, "{summary:#?}");
    world.assert_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_format_makes_another_snapshot() {
    let mut world = World::still(Behaviour::default()).await;
    world.job = format!("{}\n[load]\nformat = \"both\"\n", world.job);
    world.sync().await;
    let first = world.head().snapshot;
    world.job = world.job.replace("\"both\"", "\"csv\"");
    world.sync().await;
    assert_ne!(world.head().snapshot, first);
    let kept = world.store().list_all(&format!("snapshots/{first}/leads")).unwrap();
    assert!(!kept.is_empty(), "readers of the older snapshot keep their files");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_selects_nothing_fails_and_says_so() {
    let world = World::still(Behaviour::default()).await.with("include_profiles = [5]");
    let summary = world.sync().await;
    assert_eq!(summary.exit_code(), 3, "{summary:#?}");
    assert!(acme(&summary).why.as_ref().unwrap().contains("selects none"), "{summary:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_are_cut_as_at_the_first_write_or_not_at_all() {
    let mut world = World::still(Behaviour::default()).await;
    world.sync().await;
    world.job = format!("{}\n[load]\npartition = \"month\"\n", world.job);
    let refused = world.try_sync(Options::default()).await;
    assert!(matches!(refused, Err(run::Error::PartitionFixed { .. })), "{refused:?}");
}
