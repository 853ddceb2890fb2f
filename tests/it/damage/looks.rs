//! Looks at lakes that change meanwhile, or that a later leadpipe wrote.

use std::fs;

use chrono::TimeDelta;
use leadpipe::clock::SharedClock;
use leadpipe::error::Hint;
use leadpipe::run;
use leadpipe::run::Kind;
use leadpipe::run::Options;
use leadpipe::run::Verify;
use leadpipe::sandbox::Edit;
use leadpipe::sandbox::Settings;

use super::Nights;
use super::files;
use super::kinds;
use super::lake_of;
use super::pick;
use crate::support::World;
use crate::support::small;
use crate::support::small_job;

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_of_a_later_version_is_told_and_left_alone() {
    let nights = Nights::new().await;
    let at = pick(&nights, "commits", true);
    fs::write(&at, br#"{"version":"2","seq":"a form not known yet"}"#).unwrap();
    let before = files(&lake_of(&nights.world));
    let verified = nights.verify(false).await;
    assert!(kinds(&verified).contains(&Kind::CommitNewer), "{verified:#?}");
    let clock: SharedClock = nights.world.clock.clone();
    let asked = Verify { repair: true, ..Verify::default() };
    let refused = run::verify(nights.world.job(), asked, clock).await.unwrap_err();
    assert!(refused.hint().unwrap().contains("newer leadpipe"), "{refused}");
    let mut after = files(&lake_of(&nights.world));
    after.retain(|path| !path.starts_with("state/runs"));
    assert!(after.iter().all(|path| before.contains(path)));
    let error = nights.world.try_sync(Options::default()).await.unwrap_err();
    assert!(error.hint().unwrap().contains("newer leadpipe"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_that_changes_while_it_is_looked_at_is_sound() {
    let mut world = World::new(Settings { leads: 90, still: true, ..small() }).await;
    let keep = "[keep]\nsnapshots = 1\nsnapshot_age = \"0s\"\nchanges = \"1h\"\n";
    world.job = small_job(keep);
    world.sync().await;
    let done = std::sync::atomic::AtomicBool::new(false);
    let order = std::sync::atomic::Ordering::Relaxed;
    let nights = async {
        for night in 0..4_usize {
            let lead = world.sandbox.lead_ids()[80 - night].1;
            let name = serde_json::json!({ "contact_name": format!("Night {night}") });
            world.sandbox.edit(lead, Edit::Set(name.as_object().unwrap().clone())).unwrap();
            world.pass(TimeDelta::days(8));
            assert_eq!(world.sync().await.exit_code(), 0);
        }
        done.store(true, order);
    };
    let looks = async {
        let mut looks = 0;
        while !done.load(order) {
            let clock: SharedClock = world.clock.clone();
            let verified = run::verify(world.job(), Verify::default(), clock).await.unwrap();
            assert!(verified.is_sound, "{verified:#?}");
            looks += 1;
        }
        looks
    };
    let ((), looks) = tokio::join!(nights, looks);
    assert!(looks > 1, "nothing was looked at meanwhile");
}
