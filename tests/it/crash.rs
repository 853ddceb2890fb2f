//! The program killed at seeded moments of a sync, and run again until it is done.
//!
//! `LEADPIPE_KILLS` sets how many kills there are in all; some reruns come a day later.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use leadpipe::archive;
use leadpipe::archive::Record;
use leadpipe::clock::SharedClock;
use leadpipe::clock::SystemClock;
use leadpipe::sandbox::Behaviour;
use leadpipe::sandbox::Sandbox;
use leadpipe::sandbox::Settings;
use leadpipe::store::Store;

use crate::support::World;
use crate::support::assert_same;
use crate::support::number_from;
use crate::support::process::Draw;
use crate::support::process::start_sync;
use crate::support::small_job;

const LEADS: u64 = 2_000;
const KILLS_A_SYNC: u64 = 3;

/// Path and query of every page that is held; whatever a kill has cut off is not.
fn held(lake: &Path) -> BTreeSet<String> {
    let store = Store::open(lake);
    let mut held = BTreeSet::new();
    for segment in archive::segments(&store, &"acme".parse().unwrap()).unwrap_or_default() {
        let take = |record| {
            if let Record::Page(page) = record {
                held.insert(page.header.request);
            }
            Ok::<(), archive::Error>(())
        };
        archive::read_segment(&store, &segment.path, take).unwrap();
    }
    held
}

fn asked(sandbox: &Sandbox) -> Vec<String> {
    let listings = sandbox.requests().into_iter().filter(|r| r.path == "/api/v1/leads");
    listings.map(|request| format!("{}?{}", request.path, request.query)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_the_next_run_goes_on_and_asks_for_no_page_that_is_held() {
    let kills = number_from("LEADPIPE_KILLS", 6);
    let (mut done, mut wasted, mut syncs, mut draw) = (0, 0, 0, Draw(7));
    while done < kills {
        let clock: SharedClock = Arc::new(SystemClock::default());
        let now = chrono::DateTime::from_timestamp(clock.now().timestamp() - 3_600, 0).unwrap();
        let behaviour = Behaviour { delay_ms: 15, ..Behaviour::default() };
        let settings = Settings {
            seed: 1 + syncs,
            leads: LEADS,
            years: 3,
            accounts: 2,
            profiles: 3,
            now,
            still: true,
            behaviour,
            ..Settings::default()
        };
        let sandbox = Sandbox::start(settings.clone(), 0, clock).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let job = folder.path().join("job.toml");
        let text = small_job(&format!("base_url = \"{}\"", sandbox.url()));
        let text = text.replacen("\"UNUSED\"", "\"CRASH_TOKEN\"", 1);
        std::fs::write(&job, text.replacen("\"UNUSED\"", "\"CRASH_SECRET\"", 1)).unwrap();
        let lake = folder.path().join("lake");
        let keys = sandbox.master_key();

        let mut offset = 0;
        let mut held_before: BTreeSet<String> = BTreeSet::new();
        let mut expected_total = BTreeMap::<String, usize>::new();
        for kill in 0..=KILLS_A_SYNC {
            let seen = sandbox.requests().len();
            let secrets = [("CRASH_TOKEN", &*keys.0), ("CRASH_SECRET", &*keys.1)];
            let mut child = start_sync(&job, TimeDelta::hours(offset), &secrets);
            let last = kill == KILLS_A_SYNC;
            let after = seen + 1 + draw.below(22) as usize;
            // Most die among requests; some once a commit is being written, or has been.
            let written = match draw.below(5) {
                0 => Some(lake.join("parts")),
                1 => Some(lake.join("commits")),
                _ => None,
            };
            let status = loop {
                if let Some(status) = child.0.try_wait().unwrap() {
                    break Some(status);
                }
                let is_time = match &written {
                    Some(folder) => sandbox.requests().len() > seen && folder.exists(),
                    None => sandbox.requests().len() >= after,
                };
                if !last && is_time {
                    child.0.kill().unwrap();
                    child.0.wait().unwrap();
                    break None;
                }
                #[expect(clippy::disallowed_methods, reason = "another process runs in real time")]
                tokio::time::sleep(Duration::from_millis(1)).await;
            };
            match status {
                None => done += 1,
                Some(status) => assert_eq!(status.code(), Some(0), "seed {} run {kill}", 1 + syncs),
            }
            // No page that was held before this run was asked for in it. Walks of this sync keep
            // their bounds, so that equal requests are the same page.
            let this_run = asked(&sandbox);
            for request in this_run.iter().skip(expected_total.values().sum()) {
                assert!(!held_before.contains(request), "asked for again: {request}");
            }
            expected_total = BTreeMap::new();
            for request in this_run {
                *expected_total.entry(request).or_default() += 1;
            }
            held_before = held(&lake);
            if draw.below(3) == 0 {
                offset += 23;
            }
            if status.is_some() {
                break;
            }
        }
        wasted += expected_total.values().map(|times| times - 1).sum::<usize>();
        let mut world = World::around(sandbox, folder);
        world.job = small_job("");
        world.assert_whole().await;
        assert_same(&world.replayed_changes(), &world.rows());
        syncs += 1;
    }
    #[expect(clippy::print_stdout, reason = "the figures of a long run")]
    {
        println!("{done} kills in {syncs} syncs, {wasted} requests wasted");
    }
    // Those in flight when a run died are all that may be asked for again.
    assert!(wasted as u64 <= done * 20, "{wasted} requests wasted by {done} kills");
}
