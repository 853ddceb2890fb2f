//! What the cases do not say of leads that are asked for by id.

use chrono::TimeDelta;
use leadpipe::sandbox::Behaviour;
use leadpipe::sandbox::Edit;

use crate::support::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_lead_asked_for_by_id_may_come_bare_or_in_a_list() {
    for bare_single_lead in [false, true] {
        let world = World::still(Behaviour { bare_single_lead, ..Behaviour::default() }).await;
        world.sync().await;
        let before = world.rows();
        let (_, lead) = *world.sandbox.lead_ids().last().unwrap();
        // Out of the days that are read again: only its id finds it.
        let long_ago = world.sandbox.now() - TimeDelta::days(200);
        world.sandbox.edit(lead, Edit::Created(long_ago)).unwrap();
        world.pass(TimeDelta::days(1));
        let summary = world.sync().await;
        assert_eq!(summary.exit_code(), 0, "{summary:#?}");
        // Once to know whether it is there, once more for its custom fields.
        assert_eq!(world.lookups().len(), 2);
        assert_eq!(world.rows().len(), before.len());
        world.assert_whole().await;
    }
}
