//! Turns a job's settings into the plan of a source, and tells what must be left to the runs to come.

use std::collections::BTreeMap;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;

use super::Options;
use super::Result;
use super::client;
use super::probes;
use super::settings;
use crate::checkpoint::Checkpoint;
use crate::checkpoint::Partitions;
use crate::checkpoint::SourceProgress;
use crate::commit;
use crate::commit::RunRecord;
use crate::commit::RunState;
use crate::config;
use crate::config::Job;
use crate::config::SourceSettings;
use crate::extract::providers;
use crate::ids::SourceName;
use crate::plan;
use crate::plan::PlannedWalk;
use crate::plan::Probed;
use crate::plan::SourcePlan;
use crate::plan::Task;
use crate::plan::Tier;
use crate::record::Reason;
use crate::record::Scope;
use crate::record::ScopeKey;
use crate::store::Store;
use crate::window::Window;

/// What a page is called that the server alone cuts: more rows than any of them has.
const UNSIZED_PAGE: u32 = 1_000;

/// What the plan of a source goes by, beside its scopes and what was read of them.
#[derive(Debug, Clone)]
pub(super) struct Planning {
    pub(super) settings: plan::Settings,
    pub(super) probed: BTreeMap<ScopeKey, Vec<Probed>>,
    pub(super) task: Task,
    /// Ranges that backfills under way are reading of the source.
    pub(super) left_to_backfills: Vec<Window>,
    /// Permits that the plan leaves to the runs to come, before what is due is read again.
    pub(super) left_to_others: u64,
    /// Requests of a run of the source that reads new time alone.
    pub(super) need_of_run: u64,
    pub(super) planned_at: DateTime<Utc>,
}

/// A range is read by a listing of the account that is no older.
const LATELY: TimeDelta = TimeDelta::hours(24);

impl Planning {
    /// Returns the partitions as they were listed lately, where that is enough: a backfill that goes on
    /// several times a day, by a permit each, would else spend them on its lists. A sync wants to know
    /// of new ones.
    pub(super) fn listed_lately<'a>(
        &self,
        source: &SourceSettings,
        progress: &'a SourceProgress,
    ) -> Option<&'a Partitions> {
        let known = providers::known_partitions(source, progress.partitions.as_ref());
        known.filter(|known| self.task != Task::Sync && known.as_of > self.planned_at - LATELY)
    }

    /// Returns what each run that goes on with the plan on another day costs.
    pub(super) fn each_run(
        &self,
        scopes: &[Scope],
        progress: &SourceProgress,
        now: DateTime<Utc>,
    ) -> u64 {
        plan::each_run(&self.request(scopes, progress, now))
    }

    pub(super) fn plan(
        &self,
        scopes: &[Scope],
        progress: &SourceProgress,
        now: DateTime<Utc>,
    ) -> SourcePlan {
        plan::plan(&self.request(scopes, progress, now))
    }

    pub(super) fn request<'a>(
        &'a self,
        scopes: &'a [Scope],
        progress: &'a SourceProgress,
        now: DateTime<Utc>,
    ) -> plan::Request<'a> {
        plan::Request {
            scopes,
            progress,
            probed: &self.probed,
            left_to_backfills: &self.left_to_backfills,
            now,
            settings: self.settings.clone(),
            task: self.task.clone(),
        }
    }
}

/// What a run of a job is planned by.
pub(super) struct Planner<'a> {
    job: &'a Job,
    checkpoint: &'a Checkpoint,
    store: &'a Store,
    oldest_first: bool,
    now: DateTime<Utc>,
    /// What there is on record of the last days, newest first, clocks that ran ahead apart.
    runs: Vec<PastRun>,
}

/// What planning needs of a run that is over: its summary may have hundreds of times as much.
struct PastRun {
    command: String,
    started_at: DateTime<Utc>,
    has_died: bool,
    /// The requests that it sent, by source, where it tells.
    sent: Option<BTreeMap<String, u64>>,
}

impl PastRun {
    fn of(run: RunRecord) -> Self {
        let sent_for = |(source, told): (&String, &serde_json::Value)| {
            Some((source.clone(), told["requests"]["sent"].as_u64()?))
        };
        let sources = |summary: &serde_json::Value| {
            let told = summary["sources"].as_object();
            told.map(|told| told.iter().filter_map(sent_for).collect()).unwrap_or_default()
        };
        let sent = run.summary.as_ref().map(sources);
        let (command, started_at) = (run.command, run.started_at);
        Self { command, started_at, has_died: run.state == RunState::Died, sent }
    }

    /// Returns the requests sent for a source it read; of one that died nobody knows, and it counts as one.
    fn sent_for(&self, source: &SourceName) -> Option<u64> {
        match &self.sent {
            Some(sent) => sent.get(source.as_str()).copied(),
            None => self.has_died.then_some(1),
        }
    }
}

/// Returns the requests of a day that a source may send; `None` where there is no limit.
fn allowance_of(source: &SourceSettings) -> Option<u64> {
    settings::rule(source).and_then(|rule| rule.allowance()).map(u64::from)
}

/// A job that runs every week at least is taken to go on.
const RECENT: TimeDelta = TimeDelta::days(7);

/// A backfill of many days runs on each of them.
const ALIVE: TimeDelta = TimeDelta::hours(48);

/// What the syncs of a day are to a quota, in requests.
#[derive(Debug, Default)]
struct DayOfSyncs {
    /// Those they have yet to send.
    need: u64,
    /// Those of one of them.
    once: u64,
    /// Those they have sent.
    sent: u64,
}

impl<'a> Planner<'a> {
    pub(super) fn new(
        job: &'a Job,
        checkpoint: &'a Checkpoint,
        store: &'a Store,
        options: &Options,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        let mut runs = commit::runs_since(store, now - RECENT, PastRun::of)?;
        runs.retain(|run| run.started_at <= now + TimeDelta::hours(1));
        Ok(Self { job, checkpoint, store, oldest_first: options.oldest_first, now, runs })
    }

    /// Returns what the plan of a source goes by.
    pub(super) fn planning(&self, source: &SourceSettings, task: Task) -> Result<Planning> {
        let allowance = settings::rule(source).and_then(|rule| rule.allowance());
        let progress = self.checkpoint.sources.get(&source.name);
        let spare = match (&task, allowance) {
            (Task::Sync, Some(allowance)) => self.spare(source, progress, allowance),
            _ => 0,
        };
        let left_to_others = match task {
            Task::Sync => self.left_to_syncs(source),
            Task::Backfill { .. } => self.kept_back(source),
        };
        let planned_at = self.now;
        let need_of_run = self.need_of_sync(source, false);
        let settings = self.settings(source, spare, self.oldest_first);
        let probed = probes::read(self.store, &source.name)?;
        let left_to_backfills = self.ranges_under_way(&source.name);
        Ok(Planning {
            settings,
            probed,
            task,
            left_to_backfills,
            left_to_others,
            need_of_run,
            planned_at,
        })
    }

    /// Returns what was read of a source.
    pub(super) fn progress(&self, source: &SourceName) -> SourceProgress {
        self.checkpoint.sources.get(source).cloned().unwrap_or_default()
    }

    /// Returns the ranges that backfills are reading of a source; none where no backfill ran for so long
    /// that nobody may mean to go on with them.
    fn ranges_under_way(&self, source: &SourceName) -> Vec<Window> {
        if self.runs_of(source, "backfill", self.now - ALIVE).all(|(_, sent)| sent == 0) {
            return Vec::new();
        }
        let backfills = self.checkpoint.backfills.values();
        let ours = backfills.filter(|backfill| backfill.sources.contains(source));
        ours.map(|backfill| backfill.range).collect()
    }

    /// Returns what a backfill leaves of each quota group to the syncs of a day; nothing for a sync.
    pub(super) fn kept_back_of_range(&self, task: &Task) -> BTreeMap<String, u32> {
        if *task == Task::Sync {
            return BTreeMap::new();
        }
        let kept_back = |source: &SourceSettings| {
            let kept = u32::try_from(self.kept_back(source)).unwrap_or(u32::MAX);
            Some((client::group_of(source).ok()?, kept))
        };
        self.job.sources.iter().filter_map(kept_back).collect()
    }

    /// Returns what a sync leaves of its day to others like it, before it reads again what is due: what
    /// they have not sent yet of the new time of as many as there were in a day, but never so much that
    /// nothing of the day is left.
    fn left_to_syncs(&self, source: &SourceSettings) -> u64 {
        let day = self.day_of_syncs(source, 0, false);
        let rest = allowance_of(source).map_or(0, |allowance| allowance.saturating_sub(day.once));
        u64::min(day.need, rest / 2)
    }

    /// Returns what a backfill leaves of each day to what the syncs of a day need of the same quota: at
    /// most half of what these have not sent, since it must get on too.
    fn kept_back(&self, source: &SourceSettings) -> u64 {
        let sources = self.sharing(source);
        let is_synced = |source: &&SourceSettings| {
            self.runs_of(&source.name, "sync", self.now - RECENT).next().is_some()
        };
        // Where no sync runs, nothing is kept back for any.
        if !sources.iter().any(is_synced) {
            return 0;
        }
        let day = self.day_of_syncs(source, 1, true);
        u64::min(day.need, allowance_of(source).unwrap_or_default().saturating_sub(day.sent) / 2)
    }

    /// Returns what the syncs of a day are to the quota of a source. What those of the day before have
    /// sent comes free again as the next go, or is to come on a day that begins anew.
    fn day_of_syncs(&self, source: &SourceSettings, at_least: u64, with_due: bool) -> DayOfSyncs {
        let day = settings::rule(source).map(|rule| rule.day.counts_from(self.now));
        // A nightly that begins a little earlier than the last is one a day.
        let since = self.now - TimeDelta::hours(23);
        let mut of_all = DayOfSyncs::default();
        for source in self.sharing(source) {
            let syncs = self.runs_of(&source.name, "sync", since).count() as u64;
            let sent: u64 = self
                .runs_of(&source.name, "sync", day.unwrap_or(since))
                .map(|(_, sent)| sent)
                .sum();
            let once = self.need_of_sync(source, false);
            let due = self.need_of_sync(source, with_due) - once;
            let rest = (once * syncs.max(at_least)).saturating_sub(sent);
            of_all.need += rest.max(once * u64::from(syncs.max(at_least) > 0)) + due;
            of_all.once += once;
            of_all.sent += sent;
        }
        of_all
    }

    /// Returns the runs of a command since then that are over and read a source, with the requests they
    /// sent.
    fn runs_of(
        &self,
        source: &SourceName,
        command: &'static str,
        since: DateTime<Utc>,
    ) -> impl Iterator<Item = (&PastRun, u64)> {
        let is_meant = move |run: &&PastRun| run.command == command && run.started_at > since;
        let runs = self.runs.iter().filter(is_meant);
        runs.filter_map(move |run| Some((run, run.sent_for(source)?)))
    }

    /// Returns the sources that share the quota of `source`, it among them.
    fn sharing(&self, source: &SourceSettings) -> Vec<&SourceSettings> {
        let Ok(group) = client::group_of(source) else { return Vec::new() };
        let shares = |other: &&SourceSettings| client::group_of(other).is_ok_and(|of| of == group);
        self.job.sources.iter().filter(shares).collect()
    }

    /// Returns what a sync a day later needs of a source: the account, new time, and what is due.
    fn need_of_sync(&self, source: &SourceSettings, with_due: bool) -> u64 {
        let Some(progress) = self.checkpoint.sources.get(&source.name) else { return 0 };
        let known = providers::known_partitions(source, progress.partitions.as_ref());
        let listed = known.map(|known| known.listed.as_slice());
        let scopes = providers::scopes(source, listed);
        let tomorrow = self.now + TimeDelta::hours(24);
        let settings = self.settings(source, 0, false);
        let planning = Planning {
            settings,
            probed: BTreeMap::new(),
            task: Task::Sync,
            left_to_backfills: Vec::new(),
            left_to_others: 0,
            need_of_run: 0,
            planned_at: self.now,
        };
        let plan = planning.plan(&scopes, progress, tomorrow);
        let is_new = |walk: &&PlannedWalk| {
            walk.reason == Reason::NewTime || (walk.is_newest && walk.window.is_some())
        };
        let is_due = |walk: &&PlannedWalk| {
            matches!(walk.reason, Reason::Weekly | Reason::Monthly) && !is_new(walk)
        };
        let price = |walk: &PlannedWalk| walk.requests.count();
        let every_run =
            u64::from(listed.is_some()) + plan.walks.iter().filter(is_new).map(price).sum::<u64>();
        let due: u64 = plan.walks.iter().filter(is_due).map(price).sum();
        let due = if with_due { due } else { 0 };
        every_run + due
    }

    /// Returns how many permits of a day may still go to what no tier reaches.
    fn spare(
        &self,
        source: &SourceSettings,
        progress: Option<&SourceProgress>,
        allowance: u32,
    ) -> u64 {
        let sharing = self.sharing(source).len().max(1) as u64;
        let share = self.job.refresh.spare.get() * f64::from(allowance);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100 %")]
        let share = share as u64 / sharing;
        let since = self.now - TimeDelta::hours(24);
        let paid = progress.into_iter().flat_map(|progress| &progress.spare);
        let paid: u64 = paid.filter(|paid| paid.at > since).map(|paid| paid.pages).sum();
        share.saturating_sub(paid)
    }

    fn settings(&self, source: &SourceSettings, spare: u64, oldest_first: bool) -> plan::Settings {
        let job = self.job;
        let window_days = source.window_length().map_or(1, |length| length.num_days());
        let back = |reach| match reach {
            config::Reach::Back(back) => Some(back),
            config::Reach::All => None,
        };
        plan::Settings {
            start: source.start(),
            window_days: u32::try_from(window_days).unwrap_or(1),
            page_size: self.page_size(source),
            settle: job.run.settle,
            every_run: back(job.refresh.every_run),
            tiers: vec![
                Tier::weekly(back(job.refresh.weekly)),
                Tier::monthly(back(job.refresh.monthly)),
            ],
            spare,
            walk_max_age: match source.start() {
                Some(_) => job.run.window_max_age,
                None => job.run.scan_max_age,
            },
            oldest_first,
        }
    }

    /// Returns the rows of a page of a source, as far as they are known to fit; of several streams the
    /// fewest.
    fn page_size(&self, source: &SourceSettings) -> u32 {
        let Some(asked) = source.page_size() else { return UNSIZED_PAGE };
        let progress = self.checkpoint.sources.get(&source.name);
        let smaller = progress.into_iter().flat_map(|progress| progress.smaller_pages.values());
        smaller.map(|known| known.to_ask(asked, self.now)).min().unwrap_or(asked)
    }
}
