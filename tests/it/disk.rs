//! Lakes that cannot be written, and lakes that another run holds.

use std::fs;

use chrono::TimeDelta;
use leadpipe::commit;
use leadpipe::run::Error;
use leadpipe::run::Options;
use leadpipe::sandbox::Behaviour;

use crate::support::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_that_is_a_file_is_an_error_and_asks_nothing() {
    let world = World::still(Behaviour::default()).await;
    fs::write(world.folder.path().join("lake"), "a file").unwrap();
    let error = world.try_sync(Options::default()).await.unwrap_err();
    assert!(leadpipe::run::chain(&error).contains("lake"), "{error}");
    assert!(world.sandbox.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn wherever_writing_fails_nothing_is_lost_and_no_held_page_is_asked_for_again() {
    for folder in ["archive", "parts", "changes", "commits", "state/ledger", "snapshots"] {
        let world = World::still(Behaviour::default()).await;
        let blocked = world.folder.path().join("lake").join(folder);
        fs::create_dir_all(blocked.parent().unwrap()).unwrap();
        fs::write(&blocked, "in the way").unwrap();
        let error = world.try_sync(Options::default()).await;
        assert!(error.is_err(), "{folder}: {error:#?}");
        fs::remove_file(&blocked).unwrap();

        let held = archived_pages(&world);
        let answered = world.listings().iter().filter(|r| r.status == 200).count();
        world.sandbox.clear_requests();
        world.pass(TimeDelta::minutes(5));
        let summary = world.sync().await;
        assert_eq!(summary.exit_code(), 0, "{folder}: {summary:#?}");
        world.assert_whole().await;
        if folder != "archive" {
            assert_eq!(held, answered, "{folder}: what was answered was held");
        }
    }
}

fn archived_pages(world: &World) -> usize {
    let source = "acme".parse().unwrap();
    let mut pages = 0;
    for segment in leadpipe::archive::segments(&world.store(), &source).unwrap_or_default() {
        let count = |record| {
            pages += usize::from(matches!(record, leadpipe::archive::Record::Page(_)));
            Ok::<(), leadpipe::archive::Error>(())
        };
        leadpipe::archive::read_segment(&world.store(), &segment.path, count).unwrap();
    }
    pages
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_in_the_middle_of_history_keeps_the_snapshot_there_was() {
    let world = World::still(Behaviour::default()).await;
    world.sync().await;
    let parts = world.folder.path().join("lake/changes");
    let aside = world.folder.path().join("lake/aside");
    fs::rename(&parts, &aside).unwrap();
    fs::write(&parts, "in the way").unwrap();
    world.pass(TimeDelta::days(1));
    world.try_sync(Options::default()).await.unwrap_err();
    world.assert_whole().await;
    fs::remove_file(&parts).unwrap();
    fs::rename(&aside, &parts).unwrap();
    assert_eq!(world.sync().await.exit_code(), 0);
    world.assert_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_that_another_run_holds_is_left_alone_and_the_holder_is_named() {
    let world = World::still(Behaviour::default()).await;
    world.sync().await;
    world.sandbox.clear_requests();
    let holder = commit::Holder {
        pid: 4_242,
        host: "elsewhere.example.com".into(),
        run: leadpipe::ids::RunId::new(world.sandbox.now()),
        command: "sync".into(),
        job: "other".into(),
        since: world.sandbox.now(),
    };
    let held =
        commit::Lock::acquire(&world.store(), &holder, None, world.clock.clone()).await.unwrap();
    let error = world.try_sync(Options::default()).await.unwrap_err();
    assert!(matches!(error, Error::Commit(commit::Error::Held { .. })), "{error}");
    assert!(leadpipe::run::chain(&error).contains("4242"), "{error}");
    assert!(world.sandbox.requests().is_empty());
    drop(held);
    assert_eq!(world.sync().await.exit_code(), 0);
}
