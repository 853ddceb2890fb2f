//! The program asked to end by its surroundings, in the midst of a page that does not come.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use chrono::TimeDelta;
use leadpipe::clock::SharedClock;
use leadpipe::clock::SystemClock;
use leadpipe::commit;
use leadpipe::sandbox::Behaviour;
use leadpipe::sandbox::Sandbox;
use leadpipe::sandbox::Settings;

use crate::support::World;
use crate::support::process::Running;
use crate::support::process::start;
use crate::support::small;
use crate::support::small_job;

/// Answers take longer than any test: what ended, ended without them.
const FOR_EVER_MS: u64 = 600_000;

/// A sandbox in real time, and a job on its 6,000 leads in pages of 2,500.
struct Stand {
    sandbox: Sandbox,
    folder: tempfile::TempDir,
}

impl Stand {
    async fn new() -> Self {
        let clock: SharedClock = Arc::new(SystemClock::default());
        let now = chrono::DateTime::from_timestamp(clock.now().timestamp() - 3_600, 0).unwrap();
        let settings = Settings { leads: 6_000, profiles: 1, accounts: 1, years: 1, ..small() };
        let settings = Settings { now, still: true, ..settings };
        let sandbox = Sandbox::start(settings, 0, clock).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let job = small_job(&format!("base_url = \"{}\"", sandbox.url()));
        let job = job.replace("page_size = 50", "page_size = 2500");
        let job = job.replacen("\"UNUSED\"", "\"SIGNALS_TOKEN\"", 1);
        let job = job.replacen("\"UNUSED\"", "\"SIGNALS_SECRET\"", 1);
        std::fs::write(folder.path().join("job.toml"), job).unwrap();
        Self { sandbox, folder }
    }

    fn start(&self, arguments: &[&str]) -> Running {
        let (token, secret) = self.sandbox.master_key();
        let secrets = [("SIGNALS_TOKEN", &*token), ("SIGNALS_SECRET", &*secret)];
        let told = File::create(self.told()).unwrap();
        let job = self.folder.path().join("job.toml");
        start("sync", &job, arguments, TimeDelta::zero(), &secrets, told.into())
    }

    fn told(&self) -> PathBuf {
        self.folder.path().join("told")
    }

    /// Lets a page come and no other, and waits until the next one is asked for.
    async fn come_to_a_stand(&self) -> Running {
        let running = self.start(&[]);
        until(|| self.listings() >= 1).await;
        self.sandbox.behave(Behaviour { delay_ms: FOR_EVER_MS, ..Behaviour::default() });
        until(|| self.listings() >= 2).await;
        running
    }

    fn listings(&self) -> usize {
        self.sandbox.requests().iter().filter(|request| request.path == "/api/v1/leads").count()
    }

    /// Runs again, without trouble: all is there, and no page that was held was asked for twice.
    async fn assert_nothing_lost(self, under_way: usize) {
        self.sandbox.behave(Behaviour::default());
        let mut running = self.start(&[]);
        assert_eq!(ended(&mut running).await, 0, "{:?}", std::fs::read_to_string(self.told()));
        let mut asked: Vec<String> =
            self.sandbox.requests().into_iter().map(|request| request.query).collect();
        asked.retain(|query| query.contains("profile_id"));
        let all = asked.len();
        asked.sort_unstable();
        asked.dedup();
        let twice = all - asked.len();
        assert!(twice <= under_way, "{twice} of {all} twice, {under_way} under way: {asked:#?}");
        let mut world = World::around(self.sandbox, self.folder);
        world.job = small_job("").replace("page_size = 50", "page_size = 2500");
        world.assert_whole().await;
    }
}

/// Looks again and again, as other processes run in real time.
async fn until(mut look: impl FnMut() -> bool) {
    while !look() {
        #[expect(clippy::disallowed_methods, reason = "another process runs in real time")]
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn ended(running: &mut Running) -> i32 {
    until(|| running.0.try_wait().unwrap().is_some()).await;
    running.0.wait().unwrap().code().unwrap()
}

fn signal(running: &Running, name: &str) {
    let id = running.0.id().to_string();
    assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_asked_to_end_commits_what_it_has_and_waits_for_no_page_that_does_not_come() {
    for (name, code) in [("-TERM", 143), ("-INT", 130)] {
        let stand = Stand::new().await;
        let mut running = stand.come_to_a_stand().await;
        let since = Instant::now();
        signal(&running, name);
        assert_eq!(ended(&mut running).await, code, "{name}");
        #[expect(clippy::print_stdout, reason = "the figures of a run")]
        {
            println!("{name}: ended after {:.1} s", since.elapsed().as_secs_f64());
        }
        let under_way = stand.listings() - 1;
        let store = leadpipe::store::Store::open(stand.folder.path().join("lake"));
        let rows = |head: commit::Commit| head.sources.values().map(|source| source.rows).sum();
        let committed: u64 = commit::latest(&store).unwrap().map_or(0, rows);
        assert!(committed >= 1_000, "{committed} rows");
        stand.assert_nothing_lost(under_way).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_at_once_and_loses_nothing() {
    let stand = Stand::new().await;
    let mut running = stand.come_to_a_stand().await;
    signal(&running, "-TERM");
    let told = || std::fs::read_to_string(stand.told()).unwrap();
    until(|| told().contains("stopping")).await;
    signal(&running, "-INT");
    assert_eq!(ended(&mut running).await, 130, "{}", told());
    let under_way = stand.listings() - 1;
    stand.assert_nothing_lost(under_way).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_waits_for_the_lake_ends_when_it_is_asked_to() {
    let stand = Stand::new().await;
    let clock = Arc::new(SystemClock::default());
    let store = leadpipe::store::Store::create(stand.folder.path().join("lake")).unwrap();
    let holder = commit::Holder {
        pid: 4_242,
        host: "elsewhere.example.com".into(),
        run: leadpipe::ids::RunId::new(stand.sandbox.now()),
        command: "sync".into(),
        job: "other".into(),
        since: stand.sandbox.now(),
    };
    let held = commit::Lock::acquire(&store, &holder, None, clock).await.unwrap();
    let mut running = stand.start(&["--lock-wait", "1h"]);
    let told = || std::fs::read_to_string(stand.told()).unwrap();
    until(|| told().contains("waiting")).await;
    signal(&running, "-TERM");
    assert_eq!(ended(&mut running).await, 143, "{}", told());
    assert!(told().contains("stopped before anything was changed"), "{}", told());
    assert!(stand.sandbox.requests().is_empty());
    drop(held);
    stand.assert_nothing_lost(0).await;
}
