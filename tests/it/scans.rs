//! Listings without dates: Whautomate and Convertalk, night after night.

use chrono::TimeDelta;
use leadpipe::ids::Seq;
use leadpipe::sandbox::Fault;
use leadpipe::sandbox::Settings;

use crate::support::World;
use crate::support::records::of;
use crate::support::records::small_bots;
use crate::support::records::small_clinic;

#[tokio::test(flavor = "multi_thread")]
async fn a_first_sync_brings_contacts_and_clients_for_a_request_a_page_and_one_for_each_end() {
    let world = World::clinic(small_clinic(), "page_size = 50").await;
    let summary = world.sync().await;
    assert_eq!(summary.exit_code(), 0, "{summary:#?}");
    world.assert_all_whole().await;
    let (contacts, clients) = (world.rows().len() as u64, 0);
    assert!(contacts > 200 && clients == 0);
    let summaries = world.nights(1).await;
    assert_eq!(of(&summaries[0], "clinic").leads.changed, 0, "{summaries:#?}");
    world.assert_all_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_sync_brings_the_chats_of_all_bots_and_users_where_they_are_asked_for() {
    let world = World::bots(small_bots(), "streams = [\"chats\", \"users\"]").await;
    let summary = world.sync().await;
    assert_eq!(summary.exit_code(), 0, "{summary:#?}");
    world.assert_all_whole().await;
    assert!(of(&summary, "bots").shared_ids > 20, "{summary:#?}");
    world.pass(TimeDelta::days(1));
    let summary = world.sync().await;
    assert_eq!(of(&summary, "bots").leads.changed, 0, "{summary:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_ends_early_once_loses_nothing() {
    let world = World::clinic(small_clinic(), "page_size = 50").await;
    world.sync().await;
    for status in [200, 404] {
        world.behave(|behaviour| behaviour.fail_next = vec![Fault::EndOfList { status }]);
        let summaries = world.nights(1).await;
        assert_eq!(of(&summaries[0], "clinic").leads.gone, 0, "{summaries:#?}");
        world.assert_all_whole().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn listings_read_to_their_end_by_a_run_that_died_are_not_asked_for_again() {
    let clinic = World::clinic(small_clinic(), "page_size = 50").await;
    let bots = World::bots(small_bots(), "").await;
    for world in [clinic, bots] {
        world.sync().await;
        let rows = world.rows();
        // As if the run had died after all was held and before its commit was written.
        world.lose_commits_after(Seq(world.head().seq.0 - 1));
        world.sandbox.clear_requests();
        let summary = world.sync().await;
        assert_eq!(summary.exit_code(), 0, "{summary:#?}");
        assert_eq!(world.sandbox.requests().len(), 0);
        assert_eq!(world.rows(), rows);
        world.assert_all_whole().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_of_more_rows_than_memory_has_room_for_ids_is_read_and_gone_on_with_like_any() {
    let large = Settings { contacts: 12_000, clients: 1, ..small_clinic() };
    let world = World::clinic(large, "[run]\nmemory_limit = \"80MB\"").await;
    assert_eq!(world.sync().await.exit_code(), 0);
    world.assert_all_whole().await;
    let rows = world.rows();
    assert!(rows.len() > 11_000, "{}", rows.len());
    // As if the run had died before its commit: all is read back, and nothing asked for.
    world.lose_commits_after(Seq(world.head().seq.0 - 1));
    world.sandbox.clear_requests();
    assert_eq!(world.sync().await.exit_code(), 0);
    assert_eq!((world.sandbox.requests().len(), world.rows()), (0, rows));
}
