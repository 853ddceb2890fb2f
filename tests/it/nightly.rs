//! The nightly run, from an empty folder on.

use chrono::TimeDelta;
use leadpipe::sandbox::Behaviour;
use leadpipe::sandbox::Settings;

use crate::support::World;
use crate::support::acme;
use crate::support::assert_same;
use crate::support::small;
use crate::support::small_job;

#[tokio::test(flavor = "multi_thread")]
async fn a_first_sync_brings_every_lead_once() {
    let mut world = World::new(Settings { leads: 3_000, still: true, ..Settings::default() }).await;
    world.job = format!("{}page_size = 200\n", world.job);
    let summary = world.sync().await;
    assert_eq!(summary.exit_code(), 0, "{summary:#?}");
    world.assert_whole().await;
    assert_same(&world.replayed_changes(), &world.rows());
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
