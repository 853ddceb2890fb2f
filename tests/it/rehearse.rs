//! Rehearsals: the job's own plan, code and quota, against sandboxes of its shape.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use chrono::DateTime;
use chrono::Utc;
use leadpipe::config::Job;
use leadpipe::rehearse;
use leadpipe::rehearse::Request;
use leadpipe::rehearse::Said;
use leadpipe::report::Basis;
use leadpipe::report::Outcome;
use leadpipe::report::Rehearsal;
use leadpipe::run::Ending;
use leadpipe::run::Range;
use leadpipe::run::Stop;
use leadpipe::run::Unobserved;
use leadpipe::sandbox::Behaviour;

use crate::support::World;

/// Sources of the three providers, each with little a day.
const THREE: &str = r#"
name = "three"
lake = "lake"
quota_dir = "ledgers"

[[sources]]
name = "agency"
provider = "whatconverts"
token = { env = "LEADPIPE_TEST_NEVER_SET" }
secret = { env = "LEADPIPE_TEST_NEVER_SET" }
plan = "master"
start = 2024-01-01
page_size = 50
currency = "USD"
include_profiles = [7, 8, 9]
[sources.quota]
per_day = 20
reserve = "10%"

[[sources]]
name = "clinic"
provider = "whautomate"
api_key = { file = "nowhere/key" }
plan = "trial"
page_size = 50
[sources.quota]
per_day = 12

[[sources]]
name = "bots"
provider = "convertalk"
token = { env = "LEADPIPE_TEST_NEVER_SET" }
customer_id = "631aa793bcfa100487d13d0c"
bot_ids = ["631aa793bcfa100487d13d0d"]
auth_header = "x-of-our-own"
[sources.quota]
per_day = 20
"#;

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn request() -> Request {
    let leads_per_day = [("agency", 1.5), ("clinic", 0.8), ("bots", 0.4)];
    let of = leads_per_day.map(|(name, leads)| (name.parse().unwrap(), leads));
    Request {
        range: None,
        first: at("2026-11-28T02:10:00Z"),
        most_days: 60,
        profiles: Said::default(),
        leads_per_day: Said { of: of.into(), otherwise: Some(3.0) },
        leads: rehearse::LEADS,
        nights: 3,
        seed: 1,
        stop: Stop::default(),
    }
}

async fn rehearse(text: &str, folder: &Path, request: &Request) -> Rehearsal {
    let job = Job::parse(text, &folder.join("job.toml")).unwrap();
    rehearse::rehearse(job, request, Arc::new(Unobserved), &|_| {}).await.unwrap()
}

/// Asserts what holds for every rehearsal that was played to its end.
fn assert_sound(rehearsal: &Rehearsal) {
    for quota in &rehearsal.quotas {
        let allowance = u64::from(quota.allowance.unwrap());
        assert!(quota.most_in_24_hours <= allowance, "{quota:?}");
        assert_eq!(quota.refused, 0, "{quota:?}");
    }
    // What the runs say they sent is what the other side saw.
    let nights: u64 = rehearsal.nights.iter().flat_map(|nights| &nights.requests).sum();
    let told: u64 = rehearsal.days.iter().map(|day| day.requests).sum();
    let came: u64 = rehearsal.quotas.iter().map(|quota| quota.requests).sum();
    assert_eq!((told, told + nights), (rehearsal.requests, came));
    assert!(rehearsal.days.is_sorted_by(|one, next| one.started_at < next.started_at));
    assert!(rehearsal.days.is_sorted_by(|one, next| one.ended_at < next.started_at));
}

#[tokio::test(flavor = "multi_thread")]
async fn three_providers_are_rehearsed_over_days_and_nothing_of_the_job_is_touched() {
    let folder = tempfile::tempdir().unwrap();
    let rehearsal = rehearse(THREE, folder.path(), &request()).await;
    assert_sound(&rehearsal);
    assert_eq!(rehearsal.outcome, Outcome::Done);
    assert!(rehearsal.days.len() >= 3, "{rehearsal:#?}");
    let (last, before) = rehearsal.days.split_last().unwrap();
    assert!(last.sources.values().all(|source| source.is_whole), "{last:#?}");
    for day in before {
        assert!(day.sources.values().any(|source| !source.is_whole), "{day:#?}");
        assert_eq!(day.endings, [Ending::QuotaSpent], "{day:#?}");
        assert!(day.resume_at.unwrap() > day.started_at, "{day:#?}");
    }
    assert_eq!(last.complete_back_to, Some(at("2024-01-01T00:00:00Z")));
    assert_eq!((last.listings_whole, last.listings), (4, 4));
    let leads: u64 = rehearsal.sources.iter().map(|source| source.leads).sum();
    assert!(last.leads.abs_diff(leads) <= leads / 8, "{} of {leads}", last.leads);
    let parts = rehearsal.sources[0].parts.unwrap();
    assert_eq!((parts.value, parts.basis), (3, Basis::Job));
    assert_eq!(rehearsal.nights.as_ref().unwrap().requests.len(), 3);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_takes_the_days_its_quota_needs_with_the_nightly_in_between() {
    let folder = tempfile::tempdir().unwrap();
    let from = at("2018-01-01T00:00:00Z");
    let first = request().first;
    let range = Some(Range { from, to: first, again: false });
    let request = Request { range, nights: 1, ..request() };
    let only_agency = THREE.split("[[sources]]\nname = \"clinic\"").next().unwrap();
    let rehearsal = rehearse(only_agency, folder.path(), &request).await;
    assert_sound(&rehearsal);
    assert_eq!(rehearsal.outcome, Outcome::Done);
    assert!(rehearsal.days.len() >= 3, "{rehearsal:#?}");
    let back_to: Vec<_> = rehearsal.days.iter().map(|day| day.complete_back_to).collect();
    assert_eq!(back_to.last(), Some(&Some(from)), "{back_to:?}");
    // The nightly has its turn every day, and the backfill what is left of it.
    assert!(rehearsal.days.iter().all(|day| day.requests > day.backfill_requests));
    assert!(rehearsal.days.iter().any(|day| day.backfill_requests > 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn fewer_leads_on_smaller_pages_cost_the_same_requests() {
    let folder = tempfile::tempdir().unwrap();
    let only_agency = THREE.split("[[sources]]\nname = \"clinic\"").next().unwrap();
    let plenty = only_agency.replace("per_day = 20", "per_day = 500");
    let many = |leads| {
        let leads_per_day = Said { of: BTreeMap::new(), otherwise: Some(8.0) };
        Request { leads, leads_per_day, ..request() }
    };
    let whole = rehearse(&plenty, folder.path(), &many(100_000)).await;
    let shrunk = rehearse(&plenty, folder.path(), &many(1_000)).await;
    assert!((whole.sources[0].stands_for - 1.0).abs() < f64::EPSILON);
    assert!(shrunk.sources[0].stands_for > 8.0, "{:?}", shrunk.sources);
    let last = |rehearsal: &Rehearsal| rehearsal.days.last().unwrap().leads;
    assert!(last(&whole).abs_diff(last(&shrunk)) <= last(&whole) / 20);
    assert!(whole.requests > 150, "{}", whole.requests);
    let difference = whole.requests.abs_diff(shrunk.requests);
    assert!(difference <= whole.requests / 20, "{} and {}", whole.requests, shrunk.requests);
    assert_eq!(whole.days.len(), shrunk.days.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shape_is_that_of_the_lake_which_stays_as_it_is() {
    let world = World::still(Behaviour::default()).await;
    world.sync().await;
    let (head, files) = (world.head(), files(world.folder.path()));
    let request = Request { leads_per_day: Said::default(), nights: 0, ..request() };
    let rehearsal = rehearse(&world.job, world.folder.path(), &request).await;
    let shape = &rehearsal.sources[0];
    let listed = head.checkpoint.sources.values().next().unwrap().partitions.clone().unwrap();
    assert_eq!(shape.parts.unwrap().basis, Basis::Listed(listed.as_of));
    assert_eq!(shape.parts.unwrap().value as usize, listed.listed.len());
    assert_eq!(shape.leads_per_day.basis, Basis::Held(head.created_at));
    let held = world.rows().len() as u64;
    assert!(shape.leads.abs_diff(held) <= held / 20, "{} of {held}", shape.leads);
    assert_eq!(self::files(world.folder.path()), files);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rehearsal_ends_when_its_days_are_over_or_it_is_asked_to() {
    let folder = tempfile::tempdir().unwrap();
    let few = Request { most_days: 2, ..request() };
    let rehearsal = rehearse(THREE, folder.path(), &few).await;
    assert_eq!((rehearsal.outcome, rehearsal.days.len()), (Outcome::DaysOver, 2));
    assert_eq!(rehearsal.nights, None);
    let stopped = request();
    stopped.stop.request(Ending::Interrupted);
    let rehearsal = rehearse(THREE, folder.path(), &stopped).await;
    assert_eq!(rehearsal.outcome, Outcome::Stopped);
}

/// Every file below a folder, and when it was last written.
fn files(folder: &Path) -> BTreeMap<std::path::PathBuf, std::time::SystemTime> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let metadata = entry.path().symlink_metadata().unwrap();
            found.insert(entry.path(), metadata.modified().unwrap());
            if metadata.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    found
}
