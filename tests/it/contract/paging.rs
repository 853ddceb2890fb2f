//! Page numbers, sizes, totals and ends.

use chrono::TimeDelta;
use leadpipe::run::State;
use leadpipe::sandbox::Behaviour;
use leadpipe::sandbox::EmptyPages;
use leadpipe::sandbox::OverPageSize;
use leadpipe::sandbox::PageNumber;
use leadpipe::sandbox::PastEnd;
use leadpipe::sandbox::SizeEcho;
use leadpipe::sandbox::Totals;

use crate::support::World;
use crate::support::acme;

async fn whole(behaviour: Behaviour) -> World {
    let said = format!("{behaviour:?}");
    let world = World::still(behaviour).await;
    let summary = world.sync().await;
    assert_eq!(summary.exit_code(), 0, "{said}: {summary:#?}");
    world.assert_whole().await;
    // The days of every run once more: still whole.
    world.pass(TimeDelta::days(1));
    let summary = world.sync().await;
    assert_eq!(summary.exit_code(), 0, "{said}: {summary:#?}");
    world.assert_whole().await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ignored_page_number_is_an_error_whatever_is_echoed() {
    for page_number in [PageNumber::IgnoredEchoAsked, PageNumber::IgnoredEchoOne] {
        let world = World::still(Behaviour { page_number, ..Behaviour::default() }).await;
        let summary = world.sync().await;
        let source = acme(&summary);
        assert_eq!(source.state, State::Failed, "{page_number:?}: {summary:#?}");
        assert!(source.why.as_ref().unwrap().contains("page number"), "{summary:#?}");
        let truth = world.truth().await;
        assert!(world.rows().iter().all(|(id, hash)| truth.get(id) == Some(hash)));

        world.sandbox.behave(Behaviour::default());
        world.pass(TimeDelta::minutes(5));
        let summary = world.sync().await;
        assert_eq!(summary.exit_code(), 0, "{page_number:?}: {summary:#?}");
        world.assert_whole().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_number_that_is_obeyed_but_echoed_as_one_is_not_taken_on_trust() {
    let page_number = PageNumber::ObeyedEchoOne;
    let world = World::still(Behaviour { page_number, ..Behaviour::default() }).await;
    let summary = world.sync().await;
    // The echo says that another page came: the run stops rather than believe either.
    assert_eq!(acme(&summary).state, State::Failed, "{summary:#?}");
    let truth = world.truth().await;
    assert!(world.rows().iter().all(|(id, hash)| truth.get(id) == Some(hash)));
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_that_are_clamped_are_gone_on_with() {
    for over_page_size in [OverPageSize::Clamp, OverPageSize::ClampEchoAsked, OverPageSize::Default]
    {
        let behaviour = Behaviour { over_page_size, max_page_size: 30, ..Behaviour::default() };
        whole(behaviour).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_size_that_is_refused_is_an_error_with_the_providers_words() {
    let over_page_size = OverPageSize::Refuse;
    let behaviour = Behaviour { over_page_size, max_page_size: 30, ..Behaviour::default() };
    let world = World::still(behaviour).await;
    let summary = world.sync().await;
    assert_eq!(acme(&summary).state, State::Failed, "{summary:#?}");
    assert!(acme(&summary).why.as_ref().unwrap().contains("leads_per_page"), "{summary:#?}");
    let mut world = world;
    world.job = world.job.replace("page_size = 50", "page_size = 30");
    let summary = world.sync().await;
    assert_eq!(summary.exit_code(), 0, "{summary:#?}");
    world.assert_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_echo_of_the_rows_returned_is_no_clamping() {
    whole(Behaviour { size_echo: SizeEcho::Returned, ..Behaviour::default() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_listing_may_look_in_any_way() {
    for past_end in [PastEnd::Empty, PastEnd::NotFound, PastEnd::LastPage] {
        for totals in [Totals::Numbers, Totals::Omitted] {
            whole(Behaviour { past_end, totals, ..Behaviour::default() }).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_result_may_look_in_any_way() {
    for empty_pages in [EmptyPages::Zero, EmptyPages::One, EmptyPages::Null] {
        for empty_rows_missing in [false, true] {
            let behaviour = Behaviour { empty_pages, empty_rows_missing, ..Behaviour::default() };
            let world = World::still(behaviour.clone()).await;
            // Every profile is empty for the first night, and full afterwards.
            world.sandbox.behave(Behaviour { empty: true, ..behaviour.clone() });
            let summary = world.sync().await;
            assert_eq!(summary.exit_code(), 0, "{behaviour:?}: {summary:#?}");
            assert!(world.rows().is_empty());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn totals_may_be_text_or_missing() {
    for totals in [Totals::Strings, Totals::Omitted] {
        for size_echo in [SizeEcho::PageSize, SizeEcho::Returned] {
            whole(Behaviour { totals, size_echo, ..Behaviour::default() }).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_totals_with_a_clamped_size_lose_nothing() {
    for over_page_size in [OverPageSize::Clamp, OverPageSize::ClampEchoAsked] {
        let behaviour = Behaviour {
            totals: Totals::Omitted,
            over_page_size,
            max_page_size: 30,
            ..Behaviour::default()
        };
        whole(behaviour).await;
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
