//! Change files that are lost, and what loaders and later repairs make of it.

use std::fs;

use super::Nights;
use super::flip;
use super::living;
use super::recover;

#[tokio::test(flavor = "multi_thread")]
async fn a_loader_takes_the_whole_snapshot_where_a_repair_has_cut_the_changes() {
    use leadpipe::commit::FilesAnswer;
    use leadpipe::commit::files as listed;
    use leadpipe::ids::Seq;
    let nights = Nights::new().await;
    fs::remove_file(nights.at(&nights.changes_of(2))).unwrap();
    assert!(nights.verify(true).await.is_sound);
    let store = nights.world.store();
    let answer = |since| listed(&store, Some(Seq(since))).unwrap();
    assert!(matches!(answer(1), FilesAnswer::Snapshot { too_old: Some(Seq(1)), .. }));
    assert!(matches!(answer(2), FilesAnswer::Changes { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_file_before_a_cut_hinders_no_later_repair() {
    let nights = Nights::new().await;
    fs::remove_file(nights.at(&nights.changes_of(2))).unwrap();
    assert!(nights.verify(true).await.is_sound);
    flip(&nights.at(&nights.changes_of(1)), 900);
    assert!(nights.verify(false).await.is_sound, "nobody needs it");
    flip(&living(&nights, false), 4_001);
    assert_eq!(recover(&nights).await, Ok(()));
}
