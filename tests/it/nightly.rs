//! The nightly run, from an empty folder on.

use chrono::TimeDelta;
use leadpipe::sandbox::Settings;

use crate::support::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_first_sync_brings_every_lead_once() {
    let world = World::new(Settings { leads: 3_000, ..Settings::default() }).await;
    let summary = world.sync().await;
    let mut expected: Vec<String> =
        world.sandbox.lead_ids().iter().map(|(_, id)| format!("whatconverts:leads:{id}")).collect();
    expected.sort_unstable();
    let rows: Vec<String> = world.rows().into_keys().collect();
    assert_eq!(rows.len(), expected.len());
    assert_eq!(rows, expected);
    assert_eq!(summary.exit_code(), 0);

    world.pass(TimeDelta::days(1));
    let summary = world.sync().await;
}
