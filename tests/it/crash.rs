//! The program killed at seeded moments of a sync of all three providers, and run again until it is
//! done.
//!
//! `LEADPIPE_KILLS` sets how many kills there are in all; some reruns come a day later.

use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use leadpipe::archive;
use leadpipe::archive::Record;
use leadpipe::clock::SharedClock;
use leadpipe::clock::SystemClock;
use leadpipe::commit;
use leadpipe::ids::SourceName;
use leadpipe::sandbox::Behaviour;
use leadpipe::sandbox::LoggedRequest;
use leadpipe::sandbox::Sandbox;
use leadpipe::sandbox::Settings;
use leadpipe::store::Store;

use crate::support::World;
use crate::support::assert_same;
use crate::support::number_from;
use crate::support::process::Draw;
use crate::support::process::start_sync;
use crate::support::records::CLINIC;
use crate::support::records::bots;
use crate::support::small_job;

const KILLS_A_SYNC: u64 = 3;

/// A walk that got no further for longer than two days is begun anew, within the bounds it had where others
/// go on beside it: reruns stay within that.
const LONGEST: TimeDelta = TimeDelta::hours(47);

/// A sync that is killed and begun again.
struct Killed {
    sandbox: Sandbox,
    folder: tempfile::TempDir,
    job: PathBuf,
    lake: PathBuf,
    /// How far the next run is ahead of the first.
    ahead: TimeDelta,
    /// What was asked for by the runs so far.
    asked: BTreeSet<String>,
    /// Path and query of every page that is held.
    held: BTreeSet<String>,
}

/// When a run is killed.
enum Moment {
    /// After so many of its requests.
    After(usize),
    /// Once this is there and it has asked for something.
    Once(PathBuf),
    Never,
}

fn settings(seed: u64, clock: &SharedClock) -> Settings {
    let now = chrono::DateTime::from_timestamp(clock.now().timestamp() - 3_600, 0).unwrap();
    let mut behaviour = Behaviour { delay_ms: 10, ..Behaviour::default() };
    behaviour.convertalk.page_size = 20;
    Settings {
        seed,
        leads: 800,
        years: 3,
        accounts: 2,
        profiles: 3,
        now,
        still: true,
        whautomate_accounts: 1,
        contacts: 130,
        clients: 30,
        whautomate_per_day: Some(1_000_000),
        whautomate_per_minute: Some(1_000_000),
        convertalk_bots: 1,
        chats: 90,
        behaviour,
        ..Settings::default()
    }
}

/// The job, whose only rate is that of the sandbox: it runs in real time.
fn job_text(sandbox: &Sandbox) -> String {
    let (url, rate) = (sandbox.url(), "[sources.quota]\nrate = \"600000/min\"\n");
    let from = format!("page_size = 30\nbase_url = \"{url}\"\n{rate}");
    let bots = bots(sandbox).replace("https://chat.example.com", &url);
    let agency = small_job(&format!("base_url = \"{url}\"\n{rate}"));
    let text = format!("{agency}{CLINIC}{from}{bots}{rate}");
    let names = ["CRASH_TOKEN", "CRASH_SECRET", "CRASH_CLINIC", "CRASH_BOTS"];
    names.iter().fold(text, |text, name| text.replacen("UNUSED", name, 1))
}

impl Killed {
    async fn begin(seed: u64) -> Self {
        let clock: SharedClock = Arc::new(SystemClock::default());
        let sandbox = Sandbox::start(settings(seed, &clock), 0, clock).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (job, lake) = (folder.path().join("job.toml"), folder.path().join("lake"));
        std::fs::write(&job, job_text(&sandbox)).unwrap();
        let (asked, held) = (BTreeSet::new(), BTreeSet::new());
        Self { sandbox, folder, job, lake, ahead: TimeDelta::zero(), asked, held }
    }

    fn draw(&self, draw: &mut Draw) -> Moment {
        // Most die among requests; some once a commit is being written, or has been.
        match draw.below(5) {
            0 => Moment::Once(self.lake.join("parts")),
            1 => Moment::Once(self.lake.join("commits")),
            _ => Moment::After(1 + draw.below(36) as usize),
        }
    }

    /// Runs the program until a moment; returns how it ended, where it did before.
    async fn run(&self, moment: &Moment) -> Option<ExitStatus> {
        self.sandbox.clear_requests();
        let keys = self.sandbox.master_key();
        let clinic = self.sandbox.whautomate_keys().remove(0);
        let bots = self.sandbox.convertalk_token();
        let secrets = [
            ("CRASH_TOKEN", &*keys.0),
            ("CRASH_SECRET", &*keys.1),
            ("CRASH_CLINIC", &*clinic),
            ("CRASH_BOTS", &*bots),
        ];
        let mut child = start_sync(&self.job, self.ahead, &secrets);
        loop {
            if let Some(status) = child.0.try_wait().unwrap() {
                return Some(status);
            }
            let asked = self.sandbox.requests().len();
            let is_time = match moment {
                Moment::After(requests) => asked >= *requests,
                Moment::Once(path) => asked > 0 && path.exists(),
                Moment::Never => false,
            };
            if is_time {
                child.0.kill().unwrap();
                child.0.wait().unwrap();
                return None;
            }
            #[expect(clippy::disallowed_methods, reason = "another process runs in real time")]
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Looks at what a run has asked for; returns how much of it runs before it had asked for too.
    fn look_at_requests(&mut self) -> usize {
        let (mut again, mut asked) = (0, Vec::new());
        for request in self.sandbox.requests() {
            let LoggedRequest { path, query, .. } = request;
            let request = format!("{path}?{query}");
            // Walks of this sync keep their bounds, so that equal requests for leads are the same page.
            let is_held = path == "/api/v1/leads" && self.held.contains(&request);
            assert!(!is_held, "asked for again: {request}");
            again += usize::from(self.asked.contains(&request));
            asked.push(request);
        }
        self.asked.extend(asked);
        self.held = held(&self.lake);
        again
    }

    /// Asserts that the snapshot is what the sandbox has, as are the change files in their order.
    async fn assert_whole(self) {
        let mut world = World::around(self.sandbox, self.folder);
        world.job = job_text(&world.sandbox);
        world.assert_all_whole().await;
        assert_same(&world.replayed_changes(), &world.rows());
    }
}

/// Path and query of every page of leads that is held; whatever a kill has cut off is not.
fn held(lake: &Path) -> BTreeSet<String> {
    let store = Store::open(lake);
    let acme: SourceName = "acme".parse().unwrap();
    let mut held = BTreeSet::new();
    for segment in archive::segments(&store, &acme).unwrap_or_default() {
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

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_the_next_run_goes_on_and_asks_for_no_page_that_is_held() {
    let kills = number_from("LEADPIPE_KILLS", 6);
    let (mut done, mut seed, mut draw) = (0, 0, Draw(7));
    // How many requests each kill has wasted, where the next run had to go on at once.
    let mut wasted = Vec::new();
    while done < kills {
        seed += 1;
        let mut killed = Killed::begin(seed).await;
        let mut goes_on_at_once = false;
        for kill in 0..=KILLS_A_SYNC {
            let last = kill == KILLS_A_SYNC;
            let moment = if last { Moment::Never } else { killed.draw(&mut draw) };
            let ended = killed.run(&moment).await;
            let again = killed.look_at_requests();
            wasted.extend(goes_on_at_once.then_some(again));
            if let Some(status) = ended {
                assert_eq!(status.code(), Some(0), "seed {seed} run {kill}");
                break;
            }
            done += 1;
            let is_later = draw.below(3) == 0 && killed.ahead + TimeDelta::hours(23) < LONGEST;
            killed.ahead += TimeDelta::hours(if is_later { 23 } else { 0 });
            // After a commit or a day, the next run reads again what every run does.
            goes_on_at_once =
                !is_later && commit::list(&Store::open(&killed.lake)).unwrap().is_empty();
        }
        killed.assert_whole().await;
    }
    let (sum, worst) = (wasted.iter().sum::<usize>(), wasted.iter().max().copied().unwrap_or(0));
    #[expect(clippy::print_stdout, reason = "the figures of a long run")]
    {
        let mean = sum as f64 / wasted.len().max(1) as f64;
        println!(
            "{done} kills in {seed} syncs; of {} before the first commit, requests wasted: mean \
             {mean:.2}, worst {worst}",
            wasted.len(),
        );
    }
    // Those in flight when a run died, the list of profiles, and of each of four listings a page that
    // shows whether the rest still joins, and the top.
    assert!(worst <= 20, "{wasted:?}");
}
