//! Fields that come and go, and leads on which the provider breaks.

use chrono::TimeDelta;
use leadpipe::sandbox::Behaviour;
use leadpipe::sandbox::Poison;

use crate::support::World;
use crate::support::acme;
use crate::support::assert_same;
use crate::support::key;
use crate::support::small_job;

#[tokio::test(flavor = "multi_thread")]
async fn a_field_never_seen_before_is_named_and_kept() {
    let world = World::still(Behaviour::default()).await;
    world.sync().await;
    let extra_field = Some("sentiment_of_the_moon".to_owned());
    world.sandbox.behave(Behaviour { extra_field, ..Behaviour::default() });
    world.pass(TimeDelta::days(1));
    let summary = world.sync().await;
    assert_eq!(summary.exit_code(), 0, "{summary:#?}");
    assert_eq!(acme(&summary).new_fields, ["sentiment_of_the_moon"]);
    let kept = world.column("extra").into_values().flatten();
    assert!(kept.filter(|extra| extra.contains("sentiment_of_the_moon")).count() > 0);
    world.pass(TimeDelta::days(1));
    let summary = world.sync().await;
    assert!(acme(&summary).new_fields.is_empty(), "it is news once: {summary:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_is_suddenly_empty_needs_a_look() {
    let mut world = World::still(Behaviour::default()).await;
    world.job = small_job("[refresh]\nevery_run = \"all\"");
    world.sync().await;
    let without_fields = vec!["lead_source".to_owned()];
    world.sandbox.behave(Behaviour { without_fields, ..Behaviour::default() });
    world.pass(TimeDelta::days(1));
    let summary = world.sync().await;
    assert_eq!(summary.exit_code(), 13, "{summary:#?}");
    assert!(!acme(&summary).emptied_columns.is_empty(), "{summary:#?}");
    world.assert_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lead_on_which_the_provider_breaks_costs_only_itself() {
    for poison_as in [Poison::ServerError, Poison::BrokenJson] {
        let world = World::still(Behaviour::default()).await;
        let ids = world.sandbox.lead_ids();
        // The first of all, one in the middle, two side by side.
        let middle = ids.len() / 2;
        let poison = vec![ids[0].1, ids[middle].1];
        world.sandbox.behave(Behaviour {
            poison: poison.clone(),
            poison_as,
            ..Behaviour::default()
        });
        let summary = world.sync().await;
        assert_eq!(summary.exit_code(), 13, "{poison_as:?}: {summary:#?}");
        assert_eq!(acme(&summary).holes, 2, "{poison_as:?}");
        let mut truth = world.truth().await;
        poison.iter().for_each(|lead| drop(truth.remove(&key(*lead))));
        assert_same(&world.rows(), &truth);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_lead_on_which_the_provider_breaks_later_is_not_deleted() {
    for poison_as in [Poison::ServerError, Poison::BrokenJson] {
        let world = World::still(Behaviour::default()).await;
        world.sync().await;
        let ids = world.sandbox.lead_ids();
        let poison = vec![ids[ids.len() - 3].1];
        world.sandbox.behave(Behaviour { poison, poison_as, ..Behaviour::default() });
        for _ in 0..4 {
            world.pass(TimeDelta::days(1));
            let summary = world.sync().await;
            assert_eq!(summary.exit_code(), 13, "{poison_as:?}: {summary:#?}");
            assert_eq!(acme(&summary).leads.gone, 0);
            world.assert_whole().await;
        }
    }
}
