//! The archive mapped again: without a request, and with the same leads.

use std::sync::Arc;

use chrono::TimeDelta;
use leadpipe::clock::SharedClock;
use leadpipe::ids::Seq;
use leadpipe::run;
use leadpipe::run::Options;
use leadpipe::run::Summary;
use leadpipe::run::Unobserved;
use leadpipe::sandbox::Behaviour;
use leadpipe::sandbox::Edit;
use leadpipe::sandbox::Settings;

use crate::support::World;
use crate::support::assert_same;
use crate::support::key;
use crate::support::small;
use crate::support::small_job;

async fn replay(world: &World) -> Summary {
    let clock: SharedClock = world.clock.clone();
    let observer = Arc::new(Unobserved);
    run::replay(world.job(), Options::default(), clock, observer).await.unwrap()
}

fn abroad(job: &str) -> String {
    job.replace("\"USD\"", "\"GBP\"").replace("\"US\"", "\"GB\"")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_mapping_and_back_gives_the_first_snapshot_without_a_request() {
    let mut world = World::still(Behaviour::default()).await;
    world.sync().await;
    let (first, home) = (world.rows(), world.job.clone());
    world.sandbox.clear_requests();

    world.job = abroad(&home);
    assert_eq!(replay(&world).await.exit_code(), 0);
    let other = world.rows();
    assert_same(&other, &world.truth().await);
    assert_ne!(other, first);
    assert_same(&world.replayed_changes(), &other);

    world.job = home;
    assert_eq!(replay(&world).await.exit_code(), 0);
    assert_same(&world.rows(), &first);
    assert_same(&world.replayed_changes(), &first);
    assert!(world.sandbox.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_of_an_unchanged_mapping_changes_nothing() {
    let mut world = World::new(Settings { churn_per_day: 0.05, ..small() }).await;
    world.job = small_job("");
    for _ in 0..4 {
        world.sync().await;
        world.pass(TimeDelta::days(1));
    }
    let (before, head) = (world.rows(), world.head());
    let summary = replay(&world).await;
    assert_eq!(summary.exit_code(), 0, "{summary:#?}");
    assert_same(&world.rows(), &before);
    assert_eq!(world.head().snapshot, head.snapshot);
    assert!(world.changes(world.head().seq).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_stays_deleted() {
    let mut world = World::still(Behaviour::default()).await;
    world.sync().await;
    let (_, lead) = *world.sandbox.lead_ids().last().unwrap();
    world.sandbox.edit(lead, Edit::Vanish).unwrap();
    world.pass(TimeDelta::days(1));
    world.sync().await;
    assert!(!world.rows().contains_key(&key(lead)));
    world.job = abroad(&world.job);
    replay(&world).await;
    world.assert_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_after_a_changed_mapping_maps_everything_again_first() {
    let mut world = World::still(Behaviour::default()).await;
    world.sync().await;
    world.job = abroad(&world.job);
    world.pass(TimeDelta::days(1));
    let summary = world.sync().await;
    assert_eq!(summary.exit_code(), 0, "{summary:#?}");
    // Also the leads that this run did not read.
    world.assert_whole().await;
    assert_same(&world.replayed_changes(), &world.rows());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mapping_that_changes_in_the_middle_of_a_first_sync_gives_one_mapping() {
    let mut world = World::still(Behaviour::default()).await;
    let options = Options { max_requests: Some(9), ..Options::default() };
    assert_eq!(world.sync_with(options).await.exit_code(), 8);
    world.job = abroad(&world.job);
    world.pass(TimeDelta::minutes(5));
    let summary = world.sync().await;
    assert_eq!(summary.exit_code(), 0, "{summary:#?}");
    world.assert_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_held_by_a_run_that_died_are_not_asked_for_again() {
    let world = World::still(Behaviour::default()).await;
    world.sync().await;
    world.pass(TimeDelta::days(1));
    world.sync().await;
    let before = world.rows();
    world.lose_commits_after(Seq(world.head().seq.0 - 1));
    world.sandbox.clear_requests();
    let summary = world.sync().await;
    assert_eq!(summary.exit_code(), 0, "{summary:#?}");
    assert_eq!(world.listings().len(), 0);
    assert_same(&world.rows(), &before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_does_not_lose_sight_of_walks_that_a_dead_run_has_left() {
    let mut world = World::still(Behaviour::default()).await;
    world.sync().await;
    world.pass(TimeDelta::days(1));
    world.sync().await;
    world.lose_commits_after(Seq(world.head().seq.0 - 1));
    world.sandbox.clear_requests();
    world.job = abroad(&world.job);
    replay(&world).await;
    let summary = world.sync().await;
    assert_eq!(summary.exit_code(), 0, "{summary:#?}");
    assert_eq!(world.listings().len(), 0, "held pages were asked for again");
    world.assert_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_another_job_does_not_lose_sight_of_them_either() {
    let mut world = World::still(Behaviour::default()).await;
    world.sync().await;
    world.pass(TimeDelta::days(1));
    world.sync().await;
    world.lose_commits_after(Seq(world.head().seq.0 - 1));
    let own = world.job.clone();
    world.job = own.replace("name = \"test\"", "name = \"other\"").replace("\"acme\"", "\"bcme\"");
    world.sync().await;
    world.sandbox.clear_requests();
    world.job = own;
    let summary = world.sync().await;
    assert_eq!(summary.exit_code(), 0, "{summary:#?}");
    assert_eq!(world.listings().len(), 0, "held pages were asked for again");
}
