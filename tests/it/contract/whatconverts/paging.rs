//! What the cases do not say of totals, sizes and ties.

use chrono::TimeDelta;
use leadpipe::sandbox::Behaviour;
use leadpipe::sandbox::EmptyPages;

use crate::support::World;

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_account_may_look_in_any_way() {
    for empty_pages in [EmptyPages::Zero, EmptyPages::One, EmptyPages::Null] {
        for empty_rows_missing in [false, true] {
            let behaviour =
                Behaviour { empty: true, empty_pages, empty_rows_missing, ..Behaviour::default() };
            let world = World::still(behaviour.clone()).await;
            let summary = world.sync().await;
            assert_eq!(summary.exit_code(), 0, "{behaviour:?}: {summary:#?}");
            assert!(world.rows().is_empty());
        }
    }
}
#[tokio::test(flavor = "multi_thread")]
async fn a_total_off_by_a_constant_is_a_difference_once_and_then_a_habit() {
    for total_offset in [-2, -1, 1, 3, 49] {
        let world = World::still(Behaviour { total_offset, ..Behaviour::default() }).await;
        let summary = world.sync().await;
        assert_eq!(summary.exit_code(), 13, "{total_offset}: {summary:#?}");
        world.assert_whole().await;
        world.pass(TimeDelta::days(1));
        world.sync().await;
        world.pass(TimeDelta::days(1));
        let summary = world.sync().await;
        assert_eq!(summary.exit_code(), 0, "{total_offset}: {summary:#?}");
        world.assert_whole().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_times_in_another_order_on_every_request_lose_nothing() {
    let world = World::still(Behaviour { unstable_ties: true, ..Behaviour::default() }).await;
    let at = world.sandbox.now() - TimeDelta::days(3);
    let profile = world.sandbox.profile_ids()[0];
    for _ in 0..120 {
        world.sandbox.insert(profile, at).unwrap();
    }
    let summary = world.sync().await;
    let (rows, truth) = (world.rows(), world.truth().await);
    // Rows that swap between two pages can be missed; then the total tells.
    if rows != truth {
        assert_eq!(summary.exit_code(), 13, "{} of {}: {summary:#?}", rows.len(), truth.len());
    }
    let before = rows.len();
    for _ in 0..6 {
        world.pass(TimeDelta::days(1));
        world.sync().await;
    }
    assert!(world.rows().len() >= before, "a lead was deleted that is there");
}
