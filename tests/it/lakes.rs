//! Several jobs on one key: three processes with a lake each and one `quota_dir`, and a nightly that
//! shares its lake with a backfill which waits for the next day.
//!
//! `LEADPIPE_MINUTES` sets how many minutes the three are to take at the rate of a subscription of
//! Whautomate, which the sandbox keeps to itself; without it, a few seconds at a rate of twenty a second.

use std::fs::File;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use leadpipe::clock::SharedClock;
use leadpipe::clock::SystemClock;
use leadpipe::run;
use leadpipe::run::Options;
use leadpipe::run::Range;
use leadpipe::run::Summary;
use leadpipe::run::Unobserved;
use leadpipe::sandbox::Behaviour;
use leadpipe::sandbox::LoggedRequest;
use leadpipe::sandbox::Sandbox;
use leadpipe::sandbox::Settings;
use leadpipe::sandbox::Times;

use crate::support::MASTER;
use crate::support::World;
use crate::support::assert_same;
use crate::support::most_a_day;
use crate::support::number_from;
use crate::support::process::Running;
use crate::support::process::start;
use crate::support::records::CLINIC;
use crate::support::records::HEAD;
use crate::support::small;

/// A sandbox on the machine's clock, and the jobs that read from it.
struct Machine {
    sandbox: Sandbox,
    folder: tempfile::TempDir,
}

impl Machine {
    async fn new(settings: Settings) -> Self {
        let clock: SharedClock = Arc::new(SystemClock::default());
        let now = DateTime::from_timestamp(clock.now().timestamp() - 3_600, 0).unwrap();
        let settings = Settings { now, still: true, ..settings };
        let sandbox = Sandbox::start(settings, 0, clock).await.unwrap();
        Self { sandbox, folder: tempfile::tempdir().unwrap() }
    }

    /// Writes a job file and starts the program with it.
    fn start(&self, name: &str, job: &str, command: &str, arguments: &[&str]) -> Running {
        let (token, secret) = self.sandbox.master_key();
        let clinic = self.sandbox.whautomate_keys().first().cloned().unwrap_or_default();
        let secrets =
            [("LAKES_TOKEN", &*token), ("LAKES_SECRET", &*secret), ("LAKES_KEY", &*clinic)];
        let path = self.path(&format!("{name}.toml"));
        std::fs::write(&path, job).unwrap();
        let told = File::create(self.path(&format!("{name}.log"))).unwrap();
        start(command, &path, arguments, TimeDelta::zero(), &secrets, told.into())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Waits until a process has ended; fails where it has not ended well.
    async fn wait_for(&self, name: &str, running: &mut Running) {
        let status = until(|| running.0.try_wait().unwrap()).await;
        let told = || std::fs::read_to_string(self.path(&format!("{name}.log"))).unwrap();
        assert_eq!(status.code(), Some(0), "{name}: {}", told());
    }
}

/// Looks again and again, as other processes run in real time.
async fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(found) = look() {
            return found;
        }
        #[expect(clippy::disallowed_methods, reason = "another process runs in real time")]
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A source of the agency's master key, of profiles that `more` selects.
fn agency(sandbox: &Sandbox, lake: &str, more: &str) -> String {
    let job = MASTER
        .replace("lake = \"lake\"", &format!("lake = \"{lake}\"\nquota_dir = \"quota\""))
        .replacen("\"UNUSED\"", "\"LAKES_TOKEN\"", 1)
        .replacen("\"UNUSED\"", "\"LAKES_SECRET\"", 1)
        .replace("2021-01-01", "2023-01-01");
    format!("{job}base_url = \"{}\"\npage_size = 10\n{more}\n", sandbox.url())
}

/// The most requests in any span of such a length.
fn most_within(requests: &[LoggedRequest], span: TimeDelta) -> usize {
    let mut times: Vec<DateTime<Utc>> = requests.iter().map(|request| request.at).collect();
    times.sort_unstable();
    let until = |from: DateTime<Utc>| times.partition_point(|at| *at < from + span);
    times.iter().enumerate().map(|(at, from)| until(*from) - at).max().unwrap_or(0)
}

/// Requests a second that the provider allows, and that the jobs are told of: a request takes its way,
/// and those that left a little apart may come a little nearer.
const A_SECOND: usize = 25;
const TOLD: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn three_processes_with_three_lakes_and_one_key_are_never_refused_and_all_end() {
    let minutes = number_from("LEADPIPE_MINUTES", 0);
    if minutes > 0 {
        return three_clinics(minutes).await;
    }
    let per_day = 260;
    let settings = Settings { leads: 1_200, per_day: Some(per_day), ..small() };
    let machine = Machine::new(settings).await;
    let profiles = machine.sandbox.profile_ids();
    let quota = format!("[sources.quota]\nper_day = {per_day}\nreserve = 0\nrate = \"{TOLD}/s\"\n");
    let of = |profile: u64| format!("include_profiles = [{profile}]\n{quota}");
    let job = |lake, more: String| agency(&machine.sandbox, lake, &more);
    let mut one = machine.start("one", &job("one", of(profiles[0])), "sync", &[]);
    let mut two = machine.start("two", &job("two", of(profiles[1])), "sync", &[]);
    let history = ["--from", "2023-01-01"];
    let mut three = machine.start("three", &job("three", of(profiles[2])), "backfill", &history);
    machine.wait_for("one", &mut one).await;
    machine.wait_for("two", &mut two).await;
    machine.wait_for("three", &mut three).await;
    let requests = machine.sandbox.requests();
    assert!(requests.iter().all(|request| request.status == 200), "{requests:#?}");
    assert!((120..=per_day as usize).contains(&requests.len()), "{}", requests.len());
    let most = most_within(&requests, TimeDelta::seconds(1));
    assert!(most <= A_SECOND, "{most} requests in a second");
    let took = requests[requests.len() - 1].at - requests[0].at;
    let least = TimeDelta::seconds(requests.len() as i64) / TOLD as i32;
    assert!(took >= least * 3 / 4, "{took} for {} requests does not try the rate", requests.len());
    say(&requests);
}

/// The same at the minute's rate of a subscription, for some minutes; the sandbox refuses what is more.
async fn three_clinics(minutes: u64) {
    let settings = Settings {
        leads: 0,
        accounts: 1,
        profiles: 1,
        whautomate_accounts: 1,
        // Three read all of it, with pages of ten.
        contacts: minutes * 300 * 10 / 3,
        whautomate_per_minute: Some(300),
        whautomate_per_day: Some(432_000),
        ..Settings::default()
    };
    let machine = Machine::new(settings).await;
    let job = |lake| {
        let head = HEAD.replace("\"lake\"", &format!("\"{lake}\"\nquota_dir = \"quota\""));
        let clinic = CLINIC.replace("UNUSED", "LAKES_KEY");
        let url = machine.sandbox.url();
        let more = format!("base_url = \"{url}\"\nstreams = [\"contacts\"]\npage_size = 10\n");
        format!("{head}{clinic}{more}")
    };
    let mut one = machine.start("one", &job("one"), "sync", &[]);
    let mut two = machine.start("two", &job("two"), "sync", &[]);
    let history = ["--from", "2020-01-01"];
    let mut three = machine.start("three", &job("three"), "backfill", &history);
    machine.wait_for("one", &mut one).await;
    machine.wait_for("two", &mut two).await;
    machine.wait_for("three", &mut three).await;
    let requests = machine.sandbox.requests();
    assert!(requests.iter().all(|request| request.status == 200));
    assert!(requests.len() as u64 >= minutes * 290, "{}", requests.len());
    say(&requests);
}

#[expect(clippy::print_stdout, reason = "the figures of a long run")]
fn say(requests: &[LoggedRequest]) {
    let took = requests[requests.len() - 1].at - requests[0].at;
    println!(
        "{} requests of three processes in {} s, none refused; at most {} a second, {} a minute",
        requests.len(),
        took.num_seconds(),
        most_within(requests, TimeDelta::seconds(1)),
        most_within(requests, TimeDelta::minutes(1)),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nightly_gets_through_while_a_backfill_of_its_lake_waits_for_the_next_day() {
    let (per_day, reserve) = (44, 20);
    let machine = Machine::new(Settings { leads: 1_200, per_day: Some(per_day), ..small() }).await;
    let profile = machine.sandbox.profile_ids()[0];
    // The backfill leaves some of the day to the nightly. Windows are short, as a sync goes on with those
    // that a backfill has left open before it reads what is new.
    let job = |reserve: u32| {
        let more = format!(
            "include_profiles = [{profile}]\nwindow_days = 60\n[sources.quota]\n\
             per_day = {per_day}\nreserve = {reserve}\n"
        );
        agency(&machine.sandbox, "lake", &more).replace("2023-01-01", &a_while_ago())
    };
    let history = ["--from", "2023-01-01", "--wait"];
    let mut backfill = machine.start("backfill", &job(reserve), "backfill", &history);
    until(|| (!machine.sandbox.requests().is_empty()).then_some(())).await;
    let mut nightly = machine.start("nightly", &job(0), "sync", &["--lock-wait", "60s"]);
    machine.wait_for("nightly", &mut nightly).await;
    let waits: Option<ExitStatus> = backfill.0.try_wait().unwrap();
    assert_eq!(waits, None, "the backfill has ended");
    let requests = machine.sandbox.requests();
    assert!(requests.iter().all(|request| request.status == 200), "{requests:#?}");
    assert!(requests.len() > (per_day - reserve) as usize, "{}", requests.len());
    assert!(requests.len() <= per_day as usize, "{}", requests.len());
}

/// A date some weeks before now: what lies before it is for a backfill.
fn a_while_ago() -> String {
    let now = leadpipe::clock::Clock::now(&SystemClock::default());
    (now - TimeDelta::days(40)).date_naive().to_string()
}

/// Syncs or backfills a lake of its own, with a ledger that all such lakes share.
async fn run_into(world: &World, lake: &str, range: Option<Range>) -> Summary {
    let mut job = world.job();
    job.lake = world.folder.path().join(lake).into();
    job.quota_dir = Some(world.folder.path().join("quota").into());
    let (clock, observer): (SharedClock, _) = (world.clock.clone(), Arc::new(Unobserved));
    match range {
        None => run::sync(job, Options::default(), clock, observer).await.unwrap(),
        Some(range) => {
            run::backfill(job, range, Options::default(), clock, observer).await.unwrap()
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_lakes_share_the_day_of_a_key_over_many_days_and_all_come_to_an_end() {
    let per_day = 25;
    let behaviour = Behaviour { times: Times::Zulu, ..Behaviour::default() };
    let settings = Settings { per_day: Some(per_day), still: true, behaviour, ..small() };
    let quota = format!("[sources.quota]\nper_day = {per_day}\nreserve = 0\nat_once = 2");
    let world = World::new(settings).await.with(&quota);
    let range = Range {
        from: "2023-10-01T00:00:00Z".parse().unwrap(),
        to: world.sandbox.now(),
        again: false,
    };
    let mut done = [false; 3];
    let mut days = 0;
    while done.contains(&false) {
        let (one, two, three) = tokio::join!(
            run_into(&world, "lake", None),
            run_into(&world, "two", None),
            run_into(&world, "three", Some(range.clone())),
        );
        for (done, summary) in done.iter_mut().zip([one, two, three]) {
            assert!([0, 8].contains(&summary.exit_code()), "{summary:#?}");
            *done |= summary.exit_code() == 0;
        }
        days += 1;
        assert!(days < 30, "{done:?}: they never end");
        world.pass(TimeDelta::hours(24) + TimeDelta::minutes(3));
    }
    let requests = world.sandbox.requests();
    assert!(requests.iter().all(|request| request.status == 200), "{requests:#?}");
    assert!(most_a_day(&requests) <= per_day as usize, "{}", most_a_day(&requests));
    assert!(days > 2, "{days} days do not try the day");
    assert_same(&world.rows(), &world.truth().await);
}
