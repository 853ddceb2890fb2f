//! What a backfill of ten years costs, against the fewest requests it can take: by the key of an agency,
//! by that of a profile with a hundred requests a day, and killed a hundred times on its way.
//!
//! `LEADPIPE_BACKFILL_SCALE` sets by how much leads and pages are smaller than they are in earnest, where
//! there are 2,400,000 leads and 400,000 on pages of 2,500: that leaves the requests as they are. 1 is in
//! earnest. `LEADPIPE_BACKFILL_KILLS` sets how often one is killed.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use chrono::NaiveTime;
use chrono::TimeDelta;
use chrono::Utc;
use leadpipe::archive;
use leadpipe::archive::Record;
use leadpipe::clock::Clock;
use leadpipe::clock::SharedClock;
use leadpipe::clock::SystemClock;
use leadpipe::commit;
use leadpipe::config::Job;
use leadpipe::run;
use leadpipe::run::Options;
use leadpipe::run::Range;
use leadpipe::run::Unobserved;
use leadpipe::sandbox::Behaviour;
use leadpipe::sandbox::LoggedRequest;
use leadpipe::sandbox::Sandbox;
use leadpipe::sandbox::Settings;
use leadpipe::sandbox::Times;
use leadpipe::store::Store;

use crate::support::MASTER;
use crate::support::World;
use crate::support::most_a_day;
use crate::support::number_from;
use crate::support::parameter;
use crate::support::process::Draw;
use crate::support::process::start;

/// Years that are read.
const YEARS: u32 = 10;
/// What a page holds in earnest.
const PAGE: u64 = 2_500;
/// How many requests of an agency's key are on their way at once.
const AT_ONCE: usize = 20;

/// By how much everything is smaller.
fn scale() -> u64 {
    number_from("LEADPIPE_BACKFILL_SCALE", 250)
}

/// A history that is to be read.
struct History {
    leads: u64,
    profiles: u32,
    /// Requests a day, without any for others.
    per_day: u32,
}

/// An agency with forty clients, whose key has 10,000 requests a day; with a fifth of them where no
/// scale is set.
fn agency() -> History {
    let (leads, profiles) = match number_from("LEADPIPE_BACKFILL_SCALE", 0) {
        0 => (480_000, 8),
        _ => (2_400_000, 40),
    };
    History { leads, profiles, per_day: 10_000 }
}

/// One client, whose key has a hundred.
const CLIENT: History = History { leads: 400_000, profiles: 1, per_day: 100 };

impl History {
    /// Returns its world; one in which `now` is no matter stands where others do.
    fn settings(&self, now: Option<DateTime<Utc>>) -> Settings {
        let settings = Settings {
            leads: self.leads / scale(),
            years: YEARS,
            accounts: 4.min(self.profiles),
            profiles: self.profiles,
            per_day: Some(self.per_day),
            profile_per_day: Some(self.per_day),
            still: true,
            behaviour: Behaviour { times: Times::Zulu, ..Behaviour::default() },
            ..Settings::default()
        };
        Settings { now: now.unwrap_or(settings.now), ..settings }
    }

    fn job(&self, from: DateTime<Utc>) -> String {
        let plan = if self.profiles == 1 { "\"profile\"" } else { "\"master\"" };
        let start = from.date_naive().to_string();
        let source = MASTER.replace("2021-01-01", &start).replace("\"master\"", plan);
        let (page_size, per_day) = (PAGE / scale(), self.per_day);
        format!(
            "{source}page_size = {page_size}\n[sources.quota]\nper_day = {per_day}\nreserve = 0\n\
             at_once = {AT_ONCE}\n"
        )
    }
}

/// The ten years up to the day of `now`.
fn ten_years(now: DateTime<Utc>) -> Range {
    let midnight = |at: DateTime<Utc>| at.date_naive().and_time(NaiveTime::MIN).and_utc();
    let from = midnight(now - TimeDelta::days(366 * i64::from(YEARS)));
    Range { from, to: midnight(now), again: false }
}

/// Profile and creation of all leads in a range.
fn leads_in(sandbox: &Sandbox, range: &Range) -> Vec<(String, DateTime<Utc>)> {
    let leads = sandbox.leads().into_iter().map(|lead| {
        let at = lead["date_created"].as_str().unwrap().parse().unwrap();
        (lead["profile_id"].to_string(), at)
    });
    leads.filter(|(_, at)| range.from <= *at && *at < range.to).collect()
}

/// A request of a listing: profile and span.
type Asked = (String, DateTime<Utc>, DateTime<Utc>);

fn listings(requests: &[LoggedRequest]) -> Vec<Asked> {
    let listings = requests.iter().filter(|request| request.path == "/api/v1/leads");
    let asked = |request| {
        let get = |name| parameter(request, name).unwrap_or_default();
        let bound = |name| get(name).parse().unwrap();
        (get("profile_id"), bound("start_date"), bound("end_date"))
    };
    listings.map(asked).collect()
}

/// The fewest requests: the pages of the leads of each profile in the fewest windows there are, one for
/// a window without any, and one for the accounts of each run, where they are asked for.
fn fewest(
    leads: &[(String, DateTime<Utc>)],
    windows: &BTreeSet<Asked>,
    runs: u64,
    range: &Range,
) -> u64 {
    let profiles: BTreeSet<&String> = windows.iter().map(|(profile, ..)| profile).collect();
    let span = TimeDelta::days(400) - TimeDelta::seconds(2);
    let seconds = (range.to - range.from).num_seconds() as usize;
    let fewest_windows = seconds.div_ceil(span.num_seconds() as usize) * profiles.len();
    assert_eq!(windows.len(), fewest_windows, "more windows than are needed");
    let pages = |(profile, from, to): &Asked| {
        // The key of a profile does not name it.
        let inside = leads
            .iter()
            .filter(|(of, at)| (profile.is_empty() || of == profile) && from <= at && at <= to);
        (inside.count() as u64).div_ceil(PAGE / scale()).max(1)
    };
    let accounts = if windows.iter().any(|(profile, ..)| !profile.is_empty()) { runs } else { 0 };
    accounts + windows.iter().map(pages).sum::<u64>()
}

/// Reads a history undisturbed, a day after the other; returns what there is to say.
async fn read(history: &History) -> String {
    let mut world = World::new(history.settings(None)).await;
    let range = ten_years(world.sandbox.now());
    world.job = history.job(range.from);
    let job = || -> Job {
        let profile = world.sandbox.profile_ids()[0];
        match history.profiles {
            1 => {
                let (token, secret) = world.sandbox.profile_key(profile).unwrap();
                world.job_with_key(token, secret)
            }
            _ => world.job(),
        }
    };
    let (began, mut runs) = (world.sandbox.now(), 0);
    loop {
        let clock: SharedClock = world.clock.clone();
        let observer = Arc::new(Unobserved);
        let read = run::backfill(job(), range.clone(), Options::default(), clock, observer);
        let summary = read.await.unwrap();
        runs += 1;
        if summary.exit_code() == 0 {
            break;
        }
        assert_eq!(summary.exit_code(), 8, "{summary:#?}");
        assert!(runs < 60, "it never ends");
        world.clock.sleep_until(summary.resume_at.unwrap()).await;
    }
    let requests = world.sandbox.requests();
    let windows: BTreeSet<Asked> = listings(&requests).into_iter().collect();
    let leads = leads_in(&world.sandbox, &range);
    let fewest = fewest(&leads, &windows, runs, &range);
    let rows: u64 = world.head().sources.values().map(|source| source.rows).sum();
    assert_eq!(rows, leads.len() as u64);
    assert!(requests.iter().all(|request| request.status == 200));
    assert!(most_a_day(&requests) <= history.per_day as usize, "{}", most_a_day(&requests));
    let ratio = requests.len() as f64 / fewest as f64;
    assert!(ratio <= 1.02, "{} requests, where {fewest} are the fewest", requests.len());
    let days = (world.sandbox.now() - began).num_days() + 1;
    format!(
        "{rows} leads of {} profiles, pages of {}, {} requests a day: {days} days, {runs} runs, {} \
         requests, the fewest are {fewest}: {ratio:.4}",
        history.profiles,
        PAGE / scale(),
        history.per_day,
        requests.len(),
    )
}

#[expect(clippy::print_stdout, reason = "the figures of a long run")]
fn say(figures: &str) {
    println!("{figures}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_years_of_an_agency_take_the_fewest_requests() {
    say(&read(&agency()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_years_of_a_client_with_a_hundred_requests_a_day_take_the_fewest_requests() {
    say(&read(&CLIENT).await);
}

/// Path and query of every page that is held.
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

/// Kills of a backfill, and what they cost.
#[derive(Debug, Default)]
struct Killed {
    kills: u64,
    /// Pages that were asked for and not held when a run died.
    wasted: usize,
    /// Requests that were on their way then, as the provider saw it.
    in_flight: usize,
}

/// Runs a backfill again and again until it is done, each time but the last killed after some requests.
async fn killed(sandbox: &Sandbox, folder: &Path, range: &Range, kills: u64) -> Killed {
    let (job, lake) = (folder.join("job.toml"), folder.join("lake"));
    let (token, secret) = sandbox.master_key();
    let secrets = [("BACKFILL_TOKEN", &*token), ("BACKFILL_SECRET", &*secret)];
    let (from, to) = (range.from.date_naive().to_string(), range.to.date_naive().to_string());
    let (mut killed, mut draw) = (Killed::default(), Draw(17));
    let agency = agency();
    let pages = agency.leads / PAGE + u64::from(agency.profiles) * 6;
    loop {
        let seen = sandbox.requests().len();
        let told = std::fs::File::create(folder.join("told.log")).unwrap().into();
        let arguments = ["--from", &*from, "--to", &*to];
        let mut running = start("backfill", &job, &arguments, TimeDelta::zero(), &secrets, told);
        let after = 2 + draw.below(2 * pages / (kills + 1)) as usize;
        let status = loop {
            if let Some(status) = running.0.try_wait().unwrap() {
                break status.code();
            }
            if killed.kills < kills && sandbox.requests().len() >= seen + after {
                running.0.kill().unwrap();
                running.0.wait().unwrap();
                break None;
            }
            #[expect(clippy::disallowed_methods, reason = "another process runs in real time")]
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        let requests = sandbox.requests().split_off(seen);
        let held = held(&lake);
        let is_lost = |request: &&LoggedRequest| {
            request.path == "/api/v1/leads"
                && !held.contains(&format!("{}?{}", request.path, request.query))
        };
        let lost = requests.iter().filter(is_lost).count();
        let Some(code) = status else {
            killed.kills += 1;
            killed.wasted += lost;
            killed.in_flight += requests.last().map_or(0, |request| request.at_once);
            assert!(lost <= AT_ONCE, "{lost} requests were lost by kill {}", killed.kills);
            continue;
        };
        assert_eq!((code, lost), (0, 0));
        return killed;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_that_is_killed_again_and_again_wastes_no_more_than_was_on_its_way() {
    let kills = number_from("LEADPIPE_BACKFILL_KILLS", 5);
    let clock: SharedClock = Arc::new(SystemClock::default());
    let now = DateTime::from_timestamp(clock.now().timestamp() - 3_600, 0).unwrap();
    let mut settings = agency().settings(Some(now));
    settings.behaviour.delay_ms = 5;
    let sandbox = Sandbox::start(settings, 0, clock).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let range = ten_years(now);
    let text = agency().job(range.from).replacen("\"UNUSED\"", "\"BACKFILL_TOKEN\"", 1);
    let text = text.replacen("\"UNUSED\"", "\"BACKFILL_SECRET\"", 1);
    let text =
        text.replacen("page_size", &format!("base_url = \"{}\"\npage_size", sandbox.url()), 1);
    // A run that is killed lives for seconds here: what would be half an hour of it is two of them.
    let text = format!("{text}[run]\npublish_every = \"2s\"\n");
    std::fs::write(folder.path().join("job.toml"), text).unwrap();
    let killed = killed(&sandbox, folder.path(), &range, kills).await;

    let requests = sandbox.requests();
    assert!(requests.iter().all(|request| request.status == 200 || request.status == 0));
    let asked = listings(&requests).len();
    let lists = requests.len() - asked;
    // All that was asked for twice is what was lost: nothing that was held.
    let distinct: BTreeSet<&String> = requests
        .iter()
        .filter(|request| request.path == "/api/v1/leads")
        .map(|request| &request.query)
        .collect();
    assert_eq!(asked - distinct.len(), killed.wasted, "{killed:?}");
    let head = commit::latest(&Store::open(folder.path().join("lake"))).unwrap().unwrap();
    let rows: u64 = head.sources.values().map(|source| source.rows).sum();
    assert_eq!(rows, leads_in(&sandbox, &range).len() as u64);
    say(&format!(
        "{rows} leads, killed {} times: {} pages asked for, {} of them wasted, where {} were on their \
         way; {lists} lists of accounts, one a day",
        killed.kills, asked, killed.wasted, killed.in_flight
    ));
}
