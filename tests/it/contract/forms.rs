//! Forms of times, maps, envelopes and encodings, none of which may change a lead.

use leadpipe::sandbox::Behaviour;
use leadpipe::sandbox::Edit;
use leadpipe::sandbox::EmptyMaps;
use leadpipe::sandbox::Times;

use crate::support::World;
use crate::support::acme;
use crate::support::key;

#[tokio::test(flavor = "multi_thread")]
async fn times_and_empty_maps_in_any_form_give_the_same_leads() {
    let mut first = None;
    for (times, empty_maps) in [
        (Times::Zulu, EmptyMaps::List),
        (Times::Mixed, EmptyMaps::Object),
        (Times::Offset, EmptyMaps::Null),
        (Times::Bare, EmptyMaps::Absent),
        (Times::Fractional, EmptyMaps::List),
    ] {
        let world = World::still(Behaviour { times, empty_maps, ..Behaviour::default() }).await;
        let summary = world.sync().await;
        assert_eq!(summary.exit_code(), 0, "{times:?} {empty_maps:?}: {summary:#?}");
        world.assert_whole().await;
        let numbers = world.column("native_id");
        assert_eq!(numbers, *first.get_or_insert_with(|| numbers.clone()), "{times:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_answers_and_profiles_beside_accounts_give_the_same_leads() {
    let behaviour = Behaviour { gzip: true, nested_profiles: false, ..Behaviour::default() };
    let world = World::still(behaviour).await;
    let summary = world.sync().await;
    assert_eq!(summary.exit_code(), 0, "{summary:#?}");
    world.assert_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lead_asked_for_by_id_may_come_bare_or_in_a_list() {
    for bare_single_lead in [false, true] {
        let world = World::still(Behaviour { bare_single_lead, ..Behaviour::default() }).await;
        world.sync().await;
        let before = world.rows();
        let (_, lead) = *world.sandbox.lead_ids().last().unwrap();
        // Out of the days that are read again: only its id finds it.
        let long_ago = world.sandbox.now() - chrono::TimeDelta::days(200);
        world.sandbox.edit(lead, Edit::Created(long_ago)).unwrap();
        world.pass(chrono::TimeDelta::days(1));
        let summary = world.sync().await;
        assert_eq!(summary.exit_code(), 0, "{summary:#?}");
        // Once to know whether it is there, once more for its custom fields.
        assert_eq!(world.lookups().len(), 2);
        assert_eq!(world.rows().len(), before.len());
        world.assert_whole().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lead_that_is_unknown_may_be_told_with_any_status() {
    for unknown_lead_status in [200, 400, 404, 410] {
        let world = World::still(Behaviour { unknown_lead_status, ..Behaviour::default() }).await;
        world.sync().await;
        let (_, lead) = *world.sandbox.lead_ids().last().unwrap();
        world.sandbox.edit(lead, Edit::Vanish).unwrap();
        world.pass(chrono::TimeDelta::days(1));
        let summary = world.sync().await;
        assert_eq!(summary.exit_code(), 0, "{unknown_lead_status}: {summary:#?}");
        assert_eq!((world.lookups().len(), acme(&summary).leads.gone), (1, 1));
        assert!(!world.rows().contains_key(&key(lead)));
        world.assert_whole().await;
    }
}
