//! Parts that are lost: where their rows come from, and who is told where they come from nowhere.

use std::fs;

use chrono::TimeDelta;
use leadpipe::clock::SharedClock;
use leadpipe::run;
use leadpipe::run::Kind;
use leadpipe::run::Verify;
use leadpipe::sandbox::Settings;

use super::Nights;
use super::files;
use super::flip;
use super::kinds;
use super::lake_of;
use super::living;
use super::recover;
use crate::support::World;
use crate::support::difference;
use crate::support::small;
use crate::support::small_job;

#[tokio::test(flavor = "multi_thread")]
async fn a_part_and_one_of_its_change_files_that_are_lost_leave_no_older_version_behind() {
    let nights = Nights::new().await;
    let newest = nights.world.head().seq;
    for seq in 1..=newest.0 {
        nights.restore();
        let changes = nights.at(&nights.changes_of(seq));
        flip(&living(&nights, false), 4_001);
        flip(&changes, 900);
        assert_eq!(recover(&nights).await, Ok(()), "changes of commit {seq}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_every_provider_that_nothing_else_holds_are_read_again() {
    let settings = Settings {
        leads: 30,
        whautomate_accounts: 1,
        contacts: 30,
        convertalk_bots: 1,
        chats: 20,
        still: true,
        ..small()
    };
    let world = World::three(settings).await;
    world.sync().await;
    world.pass(TimeDelta::days(1));
    world.sync().await;
    let (before, head) = (world.rows(), world.head());
    let lake = lake_of(&world);
    for source in head.sources.values() {
        flip(&lake.join(&source.parts[0].file.path), 4_001);
    }
    fs::remove_dir_all(lake.join("changes")).unwrap();
    fs::remove_dir_all(lake.join("archive")).unwrap();
    let clock: SharedClock = world.clock.clone();
    let asked = Verify { repair: true, ..Verify::default() };
    let repaired = run::verify(world.job(), asked, clock).await.unwrap();
    assert!(repaired.is_sound, "{repaired:#?}");
    assert!(world.rows().len() < before.len());
    world.sync().await;
    assert_eq!(difference(&world.rows(), &before), None, "{:#?}", repaired.repairs);
}

/// Damages all parts of a lake, so that no older commit holds a whole one.
fn flip_all_parts(nights: &Nights) {
    for path in files(&lake_of(&nights.world)) {
        if path.starts_with("parts/") {
            flip(&nights.at(&path), 4_001);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_need_the_key_or_another_job_stay_as_they_are_and_the_way_out_is_told() {
    let mut nights = Nights::new().await;
    let job = nights.world.job.clone();
    let other_source = job.replace("\"acme\"", "\"other\"");
    assert_ne!(other_source, job);
    for (other, way_out) in [(job.clone(), "key"), (other_source, "source `acme`")] {
        nights.restore();
        let (part, key) = (living(&nights, false), nights.at("state/key"));
        flip_all_parts(&nights);
        fs::remove_dir_all(nights.at("changes")).unwrap();
        let (damaged, secret) = (fs::read(&part).unwrap(), fs::read(&key).unwrap());
        if other == job {
            fs::remove_file(&key).unwrap();
        }
        nights.world.job = other;
        for _ in 0..2 {
            let repaired = nights.verify(true).await;
            assert!(!repaired.is_sound, "{repaired:#?}");
            let told: Vec<&run::Finding> =
                repaired.findings.iter().filter(|found| found.kind == Kind::PartDamaged).collect();
            assert!(!told.is_empty(), "{repaired:#?}");
            assert!(told.iter().all(|found| found.way_out.contains(way_out)), "{told:#?}");
            assert_eq!(living(&nights, false), part, "{repaired:#?}");
            assert_eq!(fs::read(&part).unwrap(), damaged);
        }
        nights.world.job = job.clone();
        fs::write(&key, secret).unwrap();
        assert_eq!(recover(&nights).await, Ok(()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_part_of_an_older_commit_and_the_changes_since_prove_a_part() {
    let nights = Nights::new().await;
    fs::remove_file(nights.at(&nights.changes_of(1))).unwrap();
    fs::remove_dir_all(nights.at("archive")).unwrap();
    flip(&living(&nights, false), 4_001);
    let before = files(&lake_of(&nights.world));
    let repaired = nights.verify(true).await;
    assert!(repaired.is_sound, "{repaired:#?}");
    assert_eq!(nights.unlike_truth(), None, "{repaired:#?}");
    assert!(
        repaired.repairs.iter().all(|done| !done.how.contains("the next sync")),
        "{repaired:#?}"
    );
    // Whole parts that are not shown any more are set aside, never removed.
    let after = files(&lake_of(&nights.world));
    for part in before.iter().filter(|path| path.starts_with("parts/")) {
        assert!(after.iter().any(|path| path.ends_with(part.as_str())), "{part} is gone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_snapshots_up_to_a_damaged_part_end() {
    let nights = Nights::new().await;
    let head = nights.world.head();
    let store = nights.world.store();
    let second = leadpipe::commit::read(&store, leadpipe::ids::Seq(2)).unwrap();
    let third = leadpipe::commit::read(&store, leadpipe::ids::Seq(3)).unwrap();
    let is_own = |path: &&str| third.part_paths().all(|later| later != *path);
    flip(&nights.at(second.part_paths().find(is_own).unwrap()), 77);
    let repaired = nights.verify(true).await;
    assert!(repaired.is_sound, "{repaired:#?}");
    assert_eq!(leadpipe::commit::ended(&store).unwrap(), second.seq);
    assert_eq!(nights.world.head(), head);
    assert!(third.part_paths().all(|path| store.exists(path).unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn leads_that_only_the_archive_knows_are_not_published_where_there_are_too_many() {
    let nights = Nights::new().await;
    flip_all_parts(&nights);
    fs::remove_dir_all(nights.at("changes")).unwrap();
    let repaired = nights.verify(true).await;
    assert!(repaired.is_sound, "{repaired:#?}");
    assert!(repaired.repairs.iter().any(|done| done.how.contains("left out")), "{repaired:#?}");
    let ghosts: Vec<String> =
        nights.world.rows().into_keys().filter(|key| !nights.truth.contains_key(key)).collect();
    assert_eq!(ghosts, Vec::<String>::new());
    nights.world.sync().await;
    assert_eq!(nights.unlike_truth(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_no_sync_reads_again_are_told_until_a_backfill_has() {
    let mut nights = Nights::new().await;
    flip_all_parts(&nights);
    fs::remove_dir_all(nights.at("changes")).unwrap();
    fs::remove_dir_all(nights.at("archive")).unwrap();
    nights.world.job = nights.world.job.replace("2023-10-01", "2025-10-01");
    nights.verify(true).await;
    let verified = nights.verify(false).await;
    assert!(verified.is_sound, "{verified:#?}");
    let mut told = verified.findings.iter().filter(|found| found.kind == Kind::KnownLoss);
    assert!(told.any(|found| found.way_out.contains("backfill JOB --from")), "{verified:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_repair_makes_may_be_read_by_whom_the_job_says() {
    use std::os::unix::fs::PermissionsExt;
    let settings = Settings { leads: 40, still: true, ..small() };
    let mut world = World::new(settings).await;
    world.job = small_job("[load]\nreadable_by = \"group\"\n");
    world.sync().await;
    let mode =
        |path: &str| fs::metadata(lake_of(&world).join(path)).unwrap().permissions().mode() & 0o777;
    let part = world.head().part_paths().next().unwrap().to_owned();
    let before = mode(&part);
    assert_eq!(before & 0o040, 0o040);
    fs::remove_dir_all(lake_of(&world).join("snapshots")).unwrap();
    flip(&lake_of(&world).join(&part), 4_001);
    let clock: SharedClock = world.clock.clone();
    let asked = Verify { repair: true, ..Verify::default() };
    assert!(run::verify(world.job(), asked, clock).await.unwrap().is_sound);
    let head = world.head();
    for path in head.part_paths() {
        assert_eq!(mode(path), before, "{path}");
    }
    assert_eq!(mode(&format!("commits/{}.json", head.seq)) & 0o040, 0o040);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_with_other_rows_than_its_commit_says_is_mended_once() {
    let nights = Nights::new().await;
    let mut head = nights.world.head();
    let source = head.sources.values_mut().next().unwrap();
    source.parts.last_mut().unwrap().last_lead_id.push('z');
    fs::remove_file(nights.at(&format!("commits/{}.json", head.seq))).unwrap();
    leadpipe::commit::write(&nights.world.store(), &head).unwrap();
    let found = kinds(&nights.verify(false).await);
    assert!(found.contains(&Kind::PartContradiction), "{found:?}");
    let repaired = nights.verify(true).await;
    assert!(repaired.is_sound, "{repaired:#?}");
    assert_eq!(nights.verify(true).await.repairs, []);
    nights.world.sync().await;
    assert_eq!(nights.unlike_truth(), None);
}
