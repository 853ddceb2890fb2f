//! A small allowance: every day buys lasting progress, and no day costs more than it has.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::FixedOffset;
use chrono::TimeDelta;
use leadpipe::clock::SharedClock;
use leadpipe::report::summary_text;
use leadpipe::run;
use leadpipe::run::Options;
use leadpipe::run::Summary;
use leadpipe::run::Unobserved;
use leadpipe::sandbox::Behaviour;
use leadpipe::sandbox::Settings;

use crate::support::World;
use crate::support::acme;
use crate::support::most_a_day;
use crate::support::records::small_clinic;
use crate::support::small;

/// Seconds that are read, over all scopes, and a second more for each page of an open walk.
fn progress(world: &World) -> i64 {
    let head = world.head();
    let source = head.checkpoint.sources.values().next().unwrap();
    let spans = source.scopes.values().flat_map(|scope| scope.coverage.spans());
    let loaded: u64 = source.open_walks.iter().map(|open| open.loaded_pages).sum();
    spans.map(|span| span.window.length().num_seconds()).sum::<i64>() + loaded as i64
}

fn per_day(requests: u32) -> String {
    format!("[sources.quota]\nper_day = {requests}\nreserve = 0")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_sync_over_many_days_goes_on_every_day_and_asks_no_page_twice() {
    for allowance in [9, 12] {
        let world = World::still(Behaviour::default()).await.with(&per_day(allowance));
        let mut done = 0;
        let mut days = 0;
        loop {
            let summary = world.sync().await;
            days += 1;
            if summary.exit_code() == 0 {
                break;
            }
            assert_eq!(summary.exit_code(), 8, "{allowance}: {summary:#?}");
            assert!(summary.resume_at.unwrap() > summary.ended_at, "{allowance}: {summary:#?}");
            let before = std::mem::replace(&mut done, progress(&world));
            assert!(done > before, "{allowance}: day {days} bought nothing: {summary:#?}");
            assert!(days < 30, "{allowance}: it never ends");
            world.pass(summary.resume_at.unwrap() - summary.ended_at);
        }
        world.assert_whole().await;
        assert!(days > 1);
        assert!(
            most_a_day(&world.sandbox.requests()) <= allowance as usize,
            "{allowance}: {}",
            most_a_day(&world.sandbox.requests())
        );
        let queries: Vec<String> = world.listings().into_iter().map(|r| r.query).collect();
        let distinct: BTreeSet<&String> = queries.iter().collect();
        assert_eq!(distinct.len(), queries.len(), "{allowance}: a page was asked for twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_without_permits_asks_nothing_and_keeps_what_there_is() {
    let world = World::still(Behaviour::default()).await.with(&per_day(6));
    let summary = world.sync().await;
    assert_eq!((summary.exit_code(), acme(&summary).requests.sent), (8, 6));
    let (rows, sent) = (world.rows(), world.sandbox.requests().len());
    assert_eq!(sent, 6);
    for _ in 0..3 {
        world.pass(TimeDelta::minutes(7));
        let again = world.sync().await;
        assert_eq!((again.exit_code(), acme(&again).requests.sent), (8, 0), "{again:#?}");
        assert!(again.resume_at.unwrap() - again.ended_at > TimeDelta::hours(20));
        assert_eq!(world.sandbox.requests().len(), sent);
        assert_eq!(world.rows(), rows);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn max_requests_is_a_limit_and_the_next_run_goes_on() {
    let world = World::still(Behaviour::default()).await;
    let mut runs = 0;
    loop {
        let before = world.sandbox.requests().len();
        let options = Options { max_requests: Some(8), ..Options::default() };
        let summary = world.sync_with(options).await;
        let sent = world.sandbox.requests().len() - before;
        assert!(sent <= 8);
        assert_eq!(acme(&summary).requests.sent as usize, sent, "{summary:#?}");
        if summary.exit_code() == 0 {
            break;
        }
        assert_eq!(summary.exit_code(), 8, "{summary:#?}");
        world.pass(TimeDelta::minutes(1));
        runs += 1;
        assert!(runs < 60, "it never ends: {summary:#?}");
    }
    world.assert_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sources_of_one_key_share_what_it_may() {
    let mut world = World::still(Behaviour::default()).await;
    let profiles = world.sandbox.profile_ids();
    let first = format!("include_profiles = [{}]\n{}", profiles[0], per_day(7));
    let world_job = crate::support::small_job(&first);
    let rest = world_job.split("[[sources]]").nth(1).unwrap().replace("\"acme\"", "\"beta\"");
    let rest = rest.replace(
        &format!("include_profiles = [{}]", profiles[0]),
        &format!("exclude_profiles = [{}]", profiles[0]),
    );
    world.job = format!("{world_job}\n[[sources]]{rest}");
    for _ in 0..10 {
        let summary = world.sync().await;
        assert!(
            most_a_day(&world.sandbox.requests()) <= 7,
            "{}",
            most_a_day(&world.sandbox.requests())
        );
        if summary.exit_code() == 0 {
            break;
        }
        world.pass(TimeDelta::hours(25));
    }
    let truth = world.truth().await;
    assert_eq!(world.rows().len(), truth.len());
    let ledgers = world.store().list("state/ledger").unwrap();
    let groups = ledgers.iter().filter(|path| path.ends_with(".json"));
    assert_eq!(groups.count(), 1, "{ledgers:?}");
}

/// Syncs into a lake of its own, with a ledger that all such lakes share.
async fn sync_into(world: &World, lake: &str) -> Summary {
    let mut job = world.job();
    job.lake = world.folder.path().join(lake).into();
    job.quota_dir = Some(world.folder.path().join("quota").into());
    let clock: SharedClock = world.clock.clone();
    run::sync(job, Options::default(), clock, Arc::new(Unobserved)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn lakes_with_one_quota_dir_never_go_faster_together_than_the_key_may() {
    // A little more than the job says: on a manual clock a request is as late as others sleep.
    let settings = Settings { contacts: 1_500, whautomate_per_minute: Some(60), ..small_clinic() };
    let more = "page_size = 20\nquota = { rate = \"45/min\" }";
    let world = World::clinic(settings, more).await;
    let both = tokio::join!(sync_into(&world, "one"), sync_into(&world, "two"));
    for summary in [both.0, both.1] {
        assert_eq!(summary.exit_code(), 0, "{summary:#?}");
    }
    let sent = world.sandbox.requests();
    assert!(sent.len() > 150, "{} requests do not try the rate", sent.len());
    assert!(sent.iter().all(|request| request.status == 200), "{sent:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_ahead_while_nothing_runs_costs_at_most_one_request_too_many() {
    let world = World::still(Behaviour::default()).await.with(&per_day(9));
    assert_eq!(world.sync().await.exit_code(), 8);
    let (all, started) = (world.sandbox.requests().len(), world.sandbox.now());
    assert_eq!(all, 9);
    // 25 hours by our clock are a minute by the provider's.
    world.pass(TimeDelta::hours(25));
    world.sandbox.advance(TimeDelta::minutes(1) - TimeDelta::hours(25));
    for _ in 0..2 {
        let summary = world.sync().await;
        assert_eq!(summary.exit_code(), 8, "{summary:#?}");
        assert!(
            most_a_day(&world.sandbox.requests()) <= 10,
            "{}",
            most_a_day(&world.sandbox.requests())
        );
        // By the clock of the run, which is still ahead.
        assert!(summary.resume_at.unwrap() - summary.ended_at > TimeDelta::hours(23));
    }
    // A day later by the provider's clock all of it goes on.
    world.pass(TimeDelta::hours(25));
    let summary = world.sync().await;
    assert!(acme(&summary).requests.sent >= 8, "{summary:#?}");
    assert!(
        most_a_day(&world.sandbox.requests()) <= 10,
        "{}",
        most_a_day(&world.sandbox.requests())
    );
    assert!(world.sandbox.now() - started > TimeDelta::hours(24));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_somebody_else_spends_is_told_with_our_count_and_what_we_may() {
    // The provider gives 12: of the 8,000 of a master key others have sent the rest; with 13 of our
    // own, the count explains it.
    for (more, expected) in [(String::new(), Some(8_000)), (per_day(13), None)] {
        let settings = Settings { per_day: Some(12), still: true, ..small() };
        let world = World::new(settings).await.with(&more);
        let summary = world.sync().await;
        assert_eq!(summary.exit_code(), 8, "{summary:#?}");
        let refused = world.sandbox.requests().iter().any(|request| request.status == 429);
        assert!(refused, "the provider never called it used up");
        let found = acme(&summary).spent_elsewhere;
        assert_eq!(found.map(|found| found.allowance), expected, "{summary:#?}");
        let told =
            summary_text(&summary, &world.folder.path().into(), FixedOffset::east_opt(0).unwrap());
        assert_eq!(told.contains("somebody else spends on this key"), expected.is_some(), "{told}");
        let Some(found) = found else { continue };
        // As many as the provider answered, and no more than were under way and leased ahead.
        assert!((12..=40).contains(&found.counted), "{found:?}");
        let json = serde_json::to_value(&summary).unwrap();
        let counted = &json["sources"]["acme"]["spent_elsewhere"]["counted"];
        assert_eq!(counted, found.counted);
    }
}
