//! The stages of a rehearsal, one a quota: a sandbox a source, of its shape and with its allowance, a
//! folder that goes with it, and the job as it is but for what leads out into the world.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use secrecy::SecretString;
use tempfile::TempDir;

use super::Error;
use super::PAGE_TAKES;
use super::Request;
use super::Result;
use super::calendar;
use super::shape::Shape;
use super::shape::count;
use super::shape::days;
use crate::clock::Clock;
use crate::clock::ManualClock;
use crate::commit;
use crate::config::ConvertalkStream;
use crate::config::Job;
use crate::config::ProviderSettings;
use crate::config::Selection;
use crate::config::SourceSettings;
use crate::config::UsersAuth;
use crate::config::WhatConvertsPlan;
use crate::ids::SourceName;
use crate::quota::Day;
use crate::quota::Rule;
use crate::report::QuotaSeen;
use crate::report::SourceDay;
use crate::run;
use crate::run::Event;
use crate::run::Observer;
use crate::run::Options;
use crate::run::Range;
use crate::run::Stop;
use crate::run::Summary;
use crate::sandbox;
use crate::sandbox::Behaviour;
use crate::sandbox::ConvertalkBehaviour;
use crate::sandbox::Sandbox;
use crate::sandbox::WhautomateBehaviour;
use crate::store::Store;

/// Rows of a page of Whautomate at most, as its sandbox has it.
const WHAUTOMATE_PAGE: u32 = 100;
/// The part of chats that become leads, who are users then.
const USERS_OF_CHATS: f64 = 0.6;

/// The sources that share a quota: sandboxes, a folder, and a job that reads from the one into the
/// other.
#[derive(Debug)]
pub(super) struct Stage {
    job: Job,
    shapes: Vec<Shape>,
    rule: Rule,
    clock: Arc<ManualClock>,
    sandboxes: Vec<Sandbox>,
    takes: TimeDelta,
    observer: Told,
    /// Whether all was read once.
    is_whole: bool,
    /// Whether the backfill is done.
    is_filled: bool,
    /// When requests came.
    times: Vec<DateTime<Utc>>,
    refused: u64,
    /// Removed when it is dropped.
    folder: TempDir,
}

/// Who is told the facts of a run.
#[derive(Clone)]
struct Told(Arc<dyn Observer>);

impl fmt::Debug for Told {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Told")
    }
}

/// What was played on a stage on one day.
#[derive(Debug)]
pub(super) struct Played {
    /// Its runs: the nightly, and after it the backfill where it is not done; none where one of a day
    /// before was still going on.
    pub(super) runs: Vec<Summary>,
    /// What is there after it.
    pub(super) sources: BTreeMap<SourceName, SourceDay>,
}

/// Sets the stages of a job, one a quota. `rules` and `shapes` are those of its sources, in their
/// order.
pub(super) async fn set(
    job: Job,
    rules: &[Rule],
    shapes: &[Shape],
    request: &Request,
    observer: &Arc<dyn Observer>,
) -> Result<Vec<Stage>> {
    let groups = groups(&job);
    let mut firsts = groups.clone();
    firsts.sort_unstable();
    firsts.dedup();
    let mut stages = Vec::new();
    for first in firsts {
        let members = |at: &usize| groups[*at] == first;
        let members: Vec<usize> = (0..groups.len()).filter(members).collect();
        let mut part = job.clone();
        part.sources = members.iter().map(|at| job.sources[*at].clone()).collect();
        let shapes = members.iter().map(|at| shapes[*at].clone()).collect();
        stages.push(Stage::set(part, rules[first], shapes, request, observer).await?);
    }
    Ok(stages)
}

impl Stage {
    async fn set(
        job: Job,
        rule: Rule,
        shapes: Vec<Shape>,
        request: &Request,
        observer: &Arc<dyn Observer>,
    ) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("leadpipe-rehearsal-").tempdir();
        let folder = folder.map_err(Error::Folder)?;
        let clock = Arc::new(ManualClock::new(request.first));
        let mut job = job.on_another_lake(folder.path().join("lake"));
        let mut sandboxes = Vec::new();
        for (source, shape) in job.sources.iter_mut().zip(&shapes) {
            let world = world(source, shape, &rule, request.first);
            let world = sandbox::Settings { seed: seed(request.seed, &source.name), ..world };
            let sandbox = Sandbox::start(world, 0, clock.clone()).await?;
            open(source, shape);
            stand_in(source, &sandbox)?;
            sandboxes.push(sandbox);
        }
        let at_once = i32::try_from(rule.at_once.get()).unwrap_or(i32::MAX);
        Ok(Self {
            job,
            shapes,
            rule,
            clock,
            sandboxes,
            takes: PAGE_TAKES / at_once,
            observer: Told(Arc::clone(observer)),
            is_whole: false,
            is_filled: false,
            times: Vec::new(),
            refused: 0,
            folder,
        })
    }

    /// Tells whether all was read once, and the backfill of `range` is done.
    pub(super) fn is_done(&self, range: Option<&Range>) -> bool {
        self.is_whole && (range.is_none() || self.is_filled)
    }

    /// Plays the day whose nightly begins `at`.
    pub(super) async fn play(
        &mut self,
        at: DateTime<Utc>,
        range: Option<&Range>,
        stop: &Stop,
    ) -> Result<Played> {
        let mut runs = Vec::new();
        if self.clock.now() <= at {
            self.clock.advance(at - self.clock.now());
            runs.push(self.run(None, stop).await?);
            if range.is_some() && !self.is_filled && stop.cause().is_none() {
                let backfill = self.run(range, stop).await?;
                self.is_filled = calendar::is_complete(&backfill);
                runs.push(backfill);
            }
        }
        self.note_requests();
        let head = commit::latest(&Store::at(&self.job.lake).map_err(commit::Error::from)?)?;
        let sources = calendar::sources(&self.job, &self.shapes, &runs, head.as_ref());
        self.is_whole = sources.values().all(|source| source.is_whole);
        Ok(Played { runs, sources })
    }

    /// Does the nightly, or the backfill of a range.
    async fn run(&self, range: Option<&Range>, stop: &Stop) -> run::Result<Summary> {
        let options = Options { stop: stop.clone(), ..Options::default() };
        let (job, clock) = (self.job.clone(), self.clock.clone());
        let next = Arc::clone(&self.observer.0);
        let paced = Arc::new(Paced { clock: clock.clone(), takes: self.takes, next });
        match range {
            None => run::sync(job, options, clock, paced).await,
            Some(range) => run::backfill(job, range.clone(), options, clock, paced).await,
        }
    }

    /// Notes when requests came since the last time, and lets the sandboxes forget them.
    fn note_requests(&mut self) {
        for sandbox in &self.sandboxes {
            let requests = sandbox.requests();
            sandbox.clear_requests();
            self.refused += requests.iter().filter(|sent| sent.status == 429).count() as u64;
            self.times.extend(requests.iter().map(|sent| sent.at));
        }
    }

    /// Ends the sandboxes, and returns what they saw.
    pub(super) async fn strike(mut self) -> QuotaSeen {
        self.times.sort_unstable();
        let seen = QuotaSeen {
            sources: self.job.sources.iter().map(|source| source.name.clone()).collect(),
            allowance: self.rule.allowance(),
            is_rolling: self.rule.day == Day::Rolling,
            requests: self.times.len() as u64,
            most_in_24_hours: most_in_24_hours(&self.times),
            refused: self.refused,
        };
        let sandboxes = self.sandboxes.into_iter().map(Sandbox::stop);
        futures::future::join_all(sandboxes).await;
        // What cannot be removed is left to whoever tidies up temporary files.
        let _ = self.folder.close();
        seen
    }
}

/// Moves the clock with every page, and hands on what it is told.
struct Paced {
    clock: Arc<ManualClock>,
    takes: TimeDelta,
    next: Arc<dyn Observer>,
}

impl Observer for Paced {
    fn observe(&self, event: &Event) {
        if matches!(event, Event::PageHeld { .. }) {
            self.clock.advance(self.takes);
        }
        self.next.observe(event);
    }
}

/// Returns the seed of a source's world: the same however many others there are.
fn seed(seed: u64, source: &SourceName) -> u64 {
    let hash = blake3::hash(format!("{seed} {source}").as_bytes());
    hash.as_bytes()[..8].iter().fold(0, |seed, byte| seed << 8 | u64::from(*byte))
}

/// Returns the most of `times`, which ascend, in any 24 hours.
fn most_in_24_hours(times: &[DateTime<Utc>]) -> u64 {
    let mut first = 0;
    let mut most = 0;
    for (last, at) in times.iter().enumerate() {
        while *at - times[first] >= TimeDelta::hours(24) {
            first += 1;
        }
        most = most.max(last + 1 - first);
    }
    most as u64
}

/// Returns, for each source, the number of the first that shares its quota. Sources share one that are in one group, or have their
/// key from one place: secrets are not read for a rehearsal, so a key under two names is two.
fn groups(job: &Job) -> Vec<usize> {
    let name = |source: &SourceSettings| match &source.quota.group {
        Some(group) => format!("group {group}"),
        None => format!("{} {}", source.provider_id(), source.key().describe()),
    };
    let names: Vec<String> = job.sources.iter().map(name).collect();
    names.iter().map(|name| names.iter().take_while(|other| *other != name).count()).collect()
}

/// Puts a sandbox in the place of a source's server, account and credentials. Of a WhatConverts
/// sandbox, a profile's key opens the oldest profile.
///
/// # Errors
///
/// Fails where the sandbox has no such profile or account.
pub fn stand_in(source: &mut SourceSettings, sandbox: &Sandbox) -> Result<()> {
    let (key, secret) = match &mut source.provider {
        ProviderSettings::WhatConverts(settings) => match settings.plan {
            WhatConvertsPlan::Master => sandbox.master_key(),
            WhatConvertsPlan::Profile => {
                sandbox.profile_key(sandbox.profile_ids().first().copied().unwrap_or_default())?
            }
        },
        ProviderSettings::Whautomate(_) => {
            let key = sandbox.whautomate_keys().into_iter().next();
            (key.ok_or(sandbox::Error::UnknownPart { part: 0 })?, String::new())
        }
        ProviderSettings::Convertalk(settings) => {
            settings.customer_id = sandbox.customer_id();
            settings.bot_ids = sandbox.bot_ids();
            (sandbox.convertalk_token(), String::new())
        }
    };
    let base_url = sandbox.url().parse().map_err(Error::Address)?;
    source.stand_in(base_url, SecretString::from(key), SecretString::from(secret));
    Ok(())
}

/// Sets what a source asks with to what its sandbox knows: smaller pages, profiles that are all there
/// is, and the documented names. Its requests go one at a time, and into one quota.
fn open(source: &mut SourceSettings, shape: &Shape) {
    source.quota.at_once = Some(1);
    source.quota.group = Some("rehearsed".to_owned());
    let page_size = shape.told.rehearsed_page_size;
    match &mut source.provider {
        ProviderSettings::WhatConverts(settings) => {
            settings.page_size = page_size;
            settings.date_parameters = ["start_date".to_owned(), "end_date".to_owned()];
            settings.accounts = Selection::default();
            settings.profiles = Selection::default();
        }
        ProviderSettings::Whautomate(settings) => settings.page_size = page_size,
        ProviderSettings::Convertalk(settings) => {
            "x-bot-token".clone_into(&mut settings.auth_header);
            settings.users_auth = UsersAuth {
                header: "Authorization".to_owned(),
                prefix: "Bearer ".to_owned(),
                authtype: Some("Key".to_owned()),
            };
        }
    }
}

/// Returns the world of a source: of its shape, and refusing what its rule does not allow.
fn world(
    source: &SourceSettings,
    shape: &Shape,
    rule: &Rule,
    now: DateTime<Utc>,
) -> sandbox::Settings {
    let history = days(shape.told.since.value, now);
    let years = count((history / YEAR).ceil()).max(1);
    // The history of a world is whole years, of which a job reads the last.
    let in_years = years as f64 * YEAR / history;
    let leads = shape.told.leads as f64 / shape.told.stands_for;
    let per_day = rule.per_day.map(|per_day| match rule.day {
        Day::Rolling => per_day,
        // The sandbox counts any 24 hours, which touch two of these days.
        Day::ResetsAt { .. } => per_day.saturating_mul(2),
    });
    let most = Some(per_day.unwrap_or(u32::MAX));
    let parts = shape.told.parts.map_or(1, |parts| parts.value);
    let (first, second) = (leads * (1.0 - shape.second), leads * shape.second);
    let settings = sandbox::Settings {
        leads: 0,
        years: u32::try_from(years).unwrap_or(u32::MAX),
        now,
        profiles: 1,
        accounts: 1,
        per_day: most,
        profile_per_day: most,
        whautomate_per_day: most,
        whautomate_per_minute: Some(per_minute(rule)),
        convertalk_per_day: per_day,
        behaviour: behaviour(shape),
        ..sandbox::Settings::default()
    };
    match &source.provider {
        ProviderSettings::WhatConverts(_) => sandbox::Settings {
            leads: count(leads * in_years),
            profiles: parts,
            accounts: shape.accounts,
            ..settings
        },
        ProviderSettings::Whautomate(_) => sandbox::Settings {
            whautomate_accounts: 1,
            contacts: count(first),
            clients: count(second),
            ..settings
        },
        ProviderSettings::Convertalk(convertalk) => {
            let chats = first / f64::from(parts);
            let has_users = convertalk.streams.contains(&ConvertalkStream::Users);
            let other_users = if has_users { second - first * USERS_OF_CHATS } else { 0.0 };
            sandbox::Settings {
                convertalk_bots: parts,
                chats: count(chats),
                users: count(other_users),
                ..settings
            }
        }
    }
}

/// Days of a year.
const YEAR: f64 = 365.25;

/// Returns the requests that a rule allows in a minute, one more for what is left of it.
fn per_minute(rule: &Rule) -> u32 {
    let in_a_minute = 60_000 * i64::from(rule.rate.permits.get());
    let requests = in_a_minute / rule.rate.per.num_milliseconds().max(1);
    u32::try_from(requests).unwrap_or(u32::MAX).max(1)
}

/// Returns how the sandbox answers: as documented, on pages as small as the rehearsal's.
fn behaviour(shape: &Shape) -> Behaviour {
    let told = &shape.told;
    let page = WHAUTOMATE_PAGE * told.rehearsed_page_size / told.page_size.max(1);
    Behaviour {
        whautomate: WhautomateBehaviour {
            max_page_size: page.max(1),
            ..WhautomateBehaviour::default()
        },
        convertalk: ConvertalkBehaviour {
            page_size: told.rehearsed_page_size,
            ..ConvertalkBehaviour::default()
        },
        ..Behaviour::default()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn job(more: &str) -> Job {
        let text = format!("{}{more}", include_str!("../../tests/fixtures/job/design.toml"));
        Job::parse(&text, Path::new("jobs/job.toml")).unwrap()
    }

    #[test]
    fn sources_of_one_group_or_one_key_share_a_quota() {
        let source = |name: &str, key: &str, more: &str| {
            format!(
                "[[sources]]\nname = \"{name}\"\nprovider = \"whatconverts\"\nplan = \"profile\"\n\
                 token = {{ env = \"{key}\" }}\nsecret = {{ env = \"S\" }}\nstart = 2020-01-01\n\
                 currency = \"USD\"\n{more}\n"
            )
        };
        let one = "[sources.quota]\ngroup = \"acme\"";
        let text = source("a", "K", "")
            + &source("b", "L", "")
            + &source("c", "K", "")
            + &source("d", "M", one)
            + &source("e", "N", one);
        let text = format!("name = \"x\"\nlake = \"lake\"\n{text}");
        let job = Job::parse(&text, Path::new("job.toml")).unwrap();
        assert_eq!(groups(&job), [0, 1, 0, 3, 3]);
    }

    #[test]
    fn any_24_hours_are_half_open() {
        let hours = |hours: &[i64]| {
            let at = |hour: &i64| DateTime::UNIX_EPOCH + TimeDelta::hours(*hour);
            most_in_24_hours(&hours.iter().map(at).collect::<Vec<_>>())
        };
        assert_eq!(hours(&[]), 0);
        assert_eq!(hours(&[0, 1, 24, 25, 26]), 3);
        assert_eq!(hours(&[0, 0, 23, 24, 60]), 3);
    }

    #[tokio::test]
    async fn nothing_of_the_stage_leads_out_into_the_world() {
        let job = job("[privacy]\nkey = { env = \"K\" }\n");
        let rules: Vec<Rule> = job.sources.iter().map(|s| run::rule(s).unwrap()).collect();
        let request = super::super::shape::tests::request();
        let sources: Vec<_> = job.sources.iter().cloned().zip(rules.iter().copied()).collect();
        let shapes = super::super::shape::shapes(&sources, None, &request, request.first);
        let observer: Arc<dyn Observer> = Arc::new(run::Unobserved);
        let stages = set(job, &rules, &shapes, &request, &observer).await.unwrap();
        assert_eq!(stages.len(), 3);
        for stage in &stages {
            assert!(stage.job.lake.as_folder().unwrap().starts_with(stage.folder.path()));
            assert!(stage.job.quota_dir.is_none() && stage.job.privacy.key.is_none());
        }
        for source in stages.iter().flat_map(|stage| &stage.job.sources) {
            assert_eq!(source.base_url.host_str(), Some("127.0.0.1"));
            let mut secrets = vec![source.key()];
            if let ProviderSettings::WhatConverts(settings) = &source.provider {
                secrets.push(&settings.secret);
            }
            for secret in secrets {
                assert_eq!(secret.describe(), "a secret made by the program");
            }
        }
    }
}
