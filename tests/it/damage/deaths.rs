//! Repairs that are asked to stop, or die at a point.

use std::fs;

use leadpipe::clock::SharedClock;
use leadpipe::run;
use leadpipe::run::Verify;

use super::Nights;
use super::files;
use super::flip;
use super::lake_of;
use super::living;
use super::pick;
use super::recover;
use crate::support::number_from;
use crate::support::process::Draw;
use crate::support::process::start;

#[tokio::test(flavor = "multi_thread")]
async fn a_look_and_a_repair_that_are_asked_to_stop_do_and_change_nothing() {
    let nights = Nights::new().await;
    flip(&living(&nights, false), 4_001);
    let before = files(&lake_of(&nights.world));
    for repair in [false, true] {
        let asked = Verify { repair, ..Verify::default() };
        asked.stop.request(run::Ending::Terminated);
        let clock: SharedClock = nights.world.clock.clone();
        let stopped = run::verify(nights.world.job(), asked, clock).await.unwrap_err();
        assert!(matches!(stopped, run::Error::Stopped(run::Ending::Terminated)), "{stopped}");
    }
    let mut after = files(&lake_of(&nights.world));
    after.retain(|path| !path.starts_with("state/runs") && !path.ends_with("lock"));
    assert!(after.iter().all(|path| before.contains(path)), "{after:#?}");
    assert_eq!(recover(&nights).await, Ok(()));
}

/// Repairs with the program in a process of its own, at the time of the world's clock; returns whether it
/// ended by itself.
fn repair_apart(nights: &Nights, plan: &str) -> bool {
    let folder = nights.world.folder.path();
    let job = folder.join("job.toml");
    fs::write(&job, &nights.world.job).unwrap();
    let clock: SharedClock = nights.world.clock.clone();
    let system = leadpipe::clock::SystemClock::default();
    let ahead = clock.now() - leadpipe::clock::Clock::now(&system);
    let (points, told) =
        ([("LEADPIPE_POINTS", plan)], fs::File::create(folder.join("told")).unwrap());
    let mut running = start("verify", &job, &["--repair"], ahead, &points, told.into());
    running.0.wait().unwrap().code().is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_that_dies_anywhere_is_followed_by_one_that_ends_sound() {
    let nights = Nights::new().await;
    let deaths = number_from("LEADPIPE_DEATHS", 5);
    let mut draw = Draw(number_from("LEADPIPE_DAMAGES_SEED", 11));
    let damage = |nights: &Nights| {
        nights.restore();
        flip(&living(nights, false), 4_001);
        flip(&living(nights, true), 900);
        fs::remove_file(nights.at(&nights.changes_of(2))).unwrap();
        flip(&pick(nights, "archive", false), 8 * 3_000);
    };
    damage(&nights);
    let record = nights.world.folder.path().join("points");
    assert!(repair_apart(&nights, &format!("record {}", record.display())));
    let passed = fs::read_to_string(record).unwrap();
    let lines: Vec<(&str, &str)> =
        passed.lines().map(|line| line.split_once(' ').unwrap()).collect();
    let points: Vec<&str> = lines.iter().map(|(_, name)| *name).collect();
    // Between two reads nothing is other than before the first.
    let writing: Vec<usize> = (0..lines.len()).filter(|at| lines[*at].0 != "read").collect();
    for _ in 0..deaths {
        let at = writing[draw.below(writing.len() as u64) as usize];
        let times = points[..=at].iter().filter(|name| **name == points[at]).count();
        damage(&nights);
        let plan = format!("die {}#{times}", points[at]);
        assert!(!repair_apart(&nights, &plan), "{plan} was not passed");
        assert_eq!(recover(&nights).await, Ok(()), "{plan}");
    }
}
