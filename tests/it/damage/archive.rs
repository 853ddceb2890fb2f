//! Segments that are torn or gone, and walks whose pages they held.

use std::fs;
use std::path::PathBuf;

use leadpipe::archive;
use leadpipe::checkpoint::OpenWalk;
use leadpipe::ids::RunId;
use leadpipe::ids::WalkId;
use leadpipe::record::PageHeader;
use leadpipe::record::RawPage;
use leadpipe::run::Options;
use leadpipe::sandbox::Settings;

use super::cut;
use super::files;
use super::lake_of;
use crate::support::World;
use crate::support::acme;
use crate::support::small;
use crate::support::small_job;

#[tokio::test(flavor = "multi_thread")]
async fn pages_behind_a_torn_segment_of_an_open_walk_are_loaded() {
    let settings = Settings { leads: 150, profiles: 1, accounts: 1, still: true, ..small() };
    let mut world = World::new(settings).await;
    world.job = small_job("").replace("page_size = 50", "page_size = 1");
    let some = || Options { max_requests: Some(60), ..Options::default() };
    world.sync_with(some()).await;
    let head = world.head();
    world.sync_with(some()).await;
    // As if the second run had died before its commit: its pages are held and not loaded.
    world.lose_commits_after(head.seq);
    let open = &head.checkpoint.sources.values().next().unwrap().open_walks;
    assert!(open.iter().any(|open| open.loaded_pages > 10), "{open:#?}");
    let lake = lake_of(&world);
    for path in files(&lake).iter().filter(|path| path.ends_with("-0.jsonl.zst")) {
        let length = fs::metadata(lake.join(path)).unwrap().len();
        cut(&lake.join(path), length / 2);
    }
    assert_eq!(world.sync().await.exit_code(), 0);
    world.assert_whole().await;
}

/// A world of one profile whose pages have a row each.
async fn row_by_row() -> World {
    let settings =
        Settings { leads: 60, years: 1, profiles: 1, accounts: 1, still: true, ..small() };
    let mut world = World::new(settings).await;
    let job = small_job("").replace("2023-10-01", "2025-10-20");
    world.job = job.replace("page_size = 50", "page_size = 1");
    world
}

fn at_most(requests: u64) -> Options {
    Options { max_requests: Some(requests), ..Options::default() }
}

/// Returns the walk that the newest commit lists as open, of which pages are loaded.
fn open_walk(world: &World) -> OpenWalk {
    let sources = world.head().checkpoint.sources;
    let mut open = sources.into_values().flat_map(|source| source.open_walks);
    open.find(|open| open.loaded_pages > 0).unwrap()
}

fn segments_of(world: &World, walk: &WalkId) -> Vec<PathBuf> {
    let segments = archive::segments(&world.store(), &"acme".parse().unwrap()).unwrap();
    let ours = segments.iter().filter(|segment| segment.walk == *walk);
    ours.map(|segment| world.store().path(&segment.path)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_that_was_closed_is_not_believed_where_pages_of_it_are_lost() {
    for is_gone in [true, false] {
        let world = row_by_row().await;
        world.sync_with(at_most(6)).await;
        let head = world.head().seq;
        let walk = open_walk(&world).walk.id;
        world.sync_with(at_most(20)).await;
        world.sync().await;
        // As if both had died before they could commit.
        world.lose_commits_after(head);
        let segments = segments_of(&world, &walk);
        assert_eq!(segments.len(), 3);
        match is_gone {
            true => fs::remove_file(&segments[1]).unwrap(),
            false => cut(&segments[1], fs::metadata(&segments[1]).unwrap().len() / 2),
        }
        assert_eq!(world.sync().await.exit_code(), 0);
        world.assert_whole().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_loaded_is_not_loaded_again_for_a_tear_in_the_middle_of_its_walk() {
    for lost in [0, 1] {
        let world = row_by_row().await;
        world.sync_with(at_most(8)).await;
        let open = open_walk(&world);
        let segment = segments_of(&world, &open.walk.id).remove(0);
        let whole = fs::read(&segment).unwrap();
        // Half of a record that never came to be held.
        fs::write(&segment, [&whole[..], &whole[..40]].concat()).unwrap();
        world.sync_with(at_most(5)).await;
        assert!(open_walk(&world).loaded_pages > open.loaded_pages);
        if lost > 0 {
            cut(&segment, whole.len() as u64 - 10);
        }
        for more in [5, 1_000] {
            let summary = world.sync_with(at_most(more)).await;
            assert_eq!(acme(&summary).pages_from_archive, 0, "{lost} lost: {summary:#?}");
        }
        world.assert_whole().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_page_that_cannot_be_read_is_asked_for_again() {
    let world = row_by_row().await;
    world.sync_with(at_most(8)).await;
    let OpenWalk { walk, loaded_pages, .. } = open_walk(&world);
    let writer = archive::Writer::start(world.store(), RunId::new(world.clock_now()));
    writer.open(&walk, 1, loaded_pages).await.unwrap();
    for page in [1, 30] {
        let received_at = world.clock_now();
        let request = String::new();
        let header = PageHeader { page, size: 1, round: 5, request, status: 200, received_at };
        let body = "{\"leads\": 7}".into();
        writer
            .page(
                &walk.id,
                RawPage { header, body, stated_rows: None, is_json: false, places: None },
            )
            .await
            .unwrap();
    }
    drop(writer);
    let summary = world.sync_with(at_most(5)).await;
    assert_eq!(acme(&summary).pages_from_archive, 0, "{summary:#?}");
    let after = open_walk(&world);
    assert_eq!(after.loaded_pages, loaded_pages + 2 + acme(&summary).pages);
    let summary = world.sync().await;
    assert_eq!((summary.exit_code(), acme(&summary).pages_from_archive), (0, 0), "{summary:#?}");
    world.assert_whole().await;
}
