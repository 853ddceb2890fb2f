//! Says what a run would read, what that costs, and when all of it would be there.

use std::collections::BTreeMap;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use schemars::JsonSchema;
use serde::Serialize;

use super::Options;
use super::Range;
use super::Result;
use super::chain;
use super::choices::Choice;
use super::client;
use super::client::Client;
use super::client::Quotas;
use super::only;
use super::planning::Planner;
use super::planning::Planning;
use super::probes;
use super::settings;
use crate::checkpoint::Backfill;
use crate::checkpoint::Checkpoint;
use crate::checkpoint::Partition;
use crate::checkpoint::SourceProgress;
use crate::clock::SharedClock;
use crate::commit;
use crate::config::Job;
use crate::config::SourceSettings;
use crate::extract::providers;
use crate::ids::SourceName;
use crate::plan::PlannedWalk;
use crate::plan::Requests;
use crate::plan::SourcePlan;
use crate::plan::Task;
use crate::quota::Demand;
use crate::quota::Forecast;
use crate::quota::Quota;
use crate::record::Scope;
use crate::store::Store;
use crate::window::Coverage;
use crate::window::Covered;
use crate::window::Window;

/// What a run of a job would read.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Preview {
    /// The version of this form: 1.
    pub version: u32,
    /// The job's name.
    pub job: String,
    /// When it was planned.
    pub planned_at: DateTime<Utc>,
    /// Its sources, in the order of the job.
    pub sources: Vec<PreviewedSource>,
}

/// What a run would read of a source.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct PreviewedSource {
    /// The source.
    pub source: SourceName,
    /// Its walks, in the order they are begun, and what each costs.
    pub plan: SourcePlan,
    /// All requests: those of the walks, and those for listing the account.
    pub requests: Requests,
    /// Requests for listing the account, which come before the walks.
    pub listing_requests: u64,
    /// When the partitions were listed, where the provider lists them.
    pub listed_as_of: Option<DateTime<Utc>>,
    /// Requests that this plan itself has cost: a first listing of the account, and probes.
    pub spent: u64,
    /// Walks whose total the provider did not state when it was probed.
    pub unstated: u64,
    /// What the key may send; `None` where that is not known.
    pub quota: Option<PreviewedQuota>,
    /// What a run that begins now would do before its permits are used; `None` as above.
    pub today: Option<Today>,
    /// When all is there, if runs go on as soon as permits come free, as with `--wait`. Sources that
    /// share a quota are there together. Where requests are at least so many, so is this.
    pub forecast: Option<Forecast>,
    /// What would be read with the listings of its key cut in another way, as far as there is a choice.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<Choice>,
    /// Why it could not be planned, or not probed to the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What a key may send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PreviewedQuota {
    /// Requests a day that we may send, reserve and what is kept back apart; `None` without a limit.
    pub allowance: Option<u32>,
    /// Requests of these that are left now.
    pub left: Option<u32>,
    /// Requests a day that this run leaves to what the syncs of a day need.
    pub kept_back: u32,
    /// The other sources of the job that share it.
    pub shared_with: Vec<SourceName>,
}

/// What a run would do with the permits of today.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Today {
    /// Requests it would send.
    pub requests: u64,
    /// Walks it would finish.
    pub walks: u64,
    /// The history would then be whole, in every scope, from here on; `None` where some scope would
    /// lack its newest days, and where listings have no dates.
    pub history_from: Option<DateTime<Utc>>,
}

/// Plans each source of a job. Takes no lock, and writes nothing but the answers of probes. What the
/// provider must be asked is counted like any request: its partitions, where it lists them and none
/// are known yet, and with [`Options::probe`] the totals of spans that were not counted.
pub async fn preview(
    job: Job,
    range: Option<Range>,
    options: Options,
    clock: SharedClock,
) -> Result<Preview> {
    let whole = job.clone();
    let job = only(job, &options.sources)?;
    let store = settings::lake(&job)?;
    let head = commit::latest(&store)?;
    let planned_at = clock.now();
    let mut checkpoint = head.map(|head| head.checkpoint).unwrap_or_default();
    checkpoint.sources.values_mut().for_each(|progress| progress.forget_the_future(planned_at));
    let planner = Planner::new(&whole, &checkpoint, &store, &options, planned_at)?;
    let task = task_of(range, &job, &checkpoint, planned_at);
    let kept_back = planner.kept_back_of_range(&task);
    let quotas = Quotas::new(&job, options.max_requests, clock.clone())?;
    let quotas = quotas.keeping_back(kept_back.clone());
    let mut drafts = Vec::new();
    for settings in &job.sources {
        let one = One { job: &job, settings, planner: &planner, quotas: &quotas, store: &store };
        drafts.push(one.draft(&task, &options, &clock).await);
    }
    foretell(&mut drafts, job.run.patience, &kept_back)?;
    let sources = drafts.into_iter().map(|draft| draft.previewed).collect();
    Ok(Preview { version: 1, job: job.name, planned_at, sources })
}

fn task_of(range: Option<Range>, job: &Job, checkpoint: &Checkpoint, now: DateTime<Utc>) -> Task {
    let Some((range, window)) = range.and_then(|range| {
        let window = Window::new(range.from, range.to)?;
        Some((range, window))
    }) else {
        return Task::Sync;
    };
    let is_same = |known: &&Backfill| {
        let sources = job.sources.iter().map(|source| &source.name);
        known.range == window && known.again == range.again && known.sources.iter().eq(sources)
    };
    let known = checkpoint.backfills.values().find(is_same);
    let asked_at = known.map_or(now, |known| known.asked_at);
    Task::Backfill { range: window, again_before: range.again.then_some(asked_at) }
}

/// A source while it is planned.
struct Draft {
    previewed: PreviewedSource,
    /// What it is asked under, and the name of the group that this belongs to.
    quota: Option<(String, Quota)>,
    scopes: Vec<Scope>,
    progress: SourceProgress,
    start: Option<DateTime<Utc>>,
    /// Requests that each further run needs.
    each_run: u64,
    /// Requests that a run needs where the account was not listed for a day.
    each_day: u64,
    /// When the account was listed, where that is recent enough.
    listed_lately: Option<DateTime<Utc>>,
}

struct One<'a> {
    job: &'a Job,
    settings: &'a SourceSettings,
    planner: &'a Planner<'a>,
    quotas: &'a Quotas,
    store: &'a Store,
}

impl One<'_> {
    async fn draft(&self, task: &Task, options: &Options, clock: &SharedClock) -> Draft {
        let previewed = PreviewedSource {
            source: self.settings.name.clone(),
            plan: SourcePlan::default(),
            requests: Requests::Known(0),
            listing_requests: 0,
            listed_as_of: None,
            spent: 0,
            unstated: 0,
            quota: None,
            today: None,
            forecast: None,
            choices: Vec::new(),
            error: None,
        };
        let mut draft = Draft {
            previewed,
            quota: None,
            scopes: Vec::new(),
            progress: self.planner.progress(&self.settings.name),
            start: self.settings.start(),
            each_run: 0,
            each_day: 0,
            listed_lately: None,
        };
        if let Err(error) = self.fill(&mut draft, task, options, clock).await {
            draft.previewed.error = Some(chain(&error));
        }
        draft
    }

    async fn fill(
        &self,
        draft: &mut Draft,
        task: &Task,
        options: &Options,
        clock: &SharedClock,
    ) -> Result<()> {
        let halt = options.stop.watch();
        let client = client::connect(self.job, self.settings, self.quotas, halt, clock.clone())?;
        let group = client::group_of(self.settings)?;
        // Sources of one group share a count.
        let before = client.quota.spent();
        draft.quota = Some((group, client.quota.clone()));
        let listed = self.partitions(draft, &client, clock).await?;
        draft.scopes = providers::scopes(self.settings, listed.as_deref());
        let mut planning = self.planner.planning(self.settings, task.clone())?;
        let lately = planning.listed_lately(self.settings, &draft.progress);
        draft.listed_lately = lately.map(|known| known.as_of);
        if *task != Task::Sync {
            draft.each_day = draft.previewed.listing_requests;
        }
        if draft.listed_lately.is_some() {
            draft.previewed.listing_requests = 0;
        }
        self.plan(draft, &planning, clock);
        if options.probe {
            let (plan, name) = (&draft.previewed.plan, &self.settings.name);
            let probing = probes::probe(&client, plan, self.store, name, clock).await?;
            draft.previewed.unstated = probing.without_total;
            draft.previewed.error = probing.error.map(|error| chain(&error));
            planning.probed = probing.scopes;
            self.plan(draft, &planning, clock);
        }
        draft.previewed.choices = planning.choices(self.settings, &draft.progress, clock.now());
        draft.previewed.spent = client.quota.spent() - before;
        Ok(client.quota.release().await?)
    }

    fn plan(&self, draft: &mut Draft, planning: &Planning, clock: &SharedClock) {
        let (scopes, progress, now) = (&draft.scopes, &draft.progress, clock.now());
        let plan = planning.plan(scopes, progress, now);
        let listing = Requests::Known(draft.previewed.listing_requests);
        let listing_of_each = match planning.task {
            Task::Sync => draft.previewed.listing_requests,
            Task::Backfill { .. } => 0,
        };
        draft.each_run = listing_of_each + planning.each_run(scopes, progress, now);
        draft.previewed.requests = listing.plus(plan.requests());
        draft.previewed.plan = plan;
    }

    async fn partitions(
        &self,
        draft: &mut Draft,
        client: &Client,
        clock: &SharedClock,
    ) -> Result<Option<Vec<Partition>>> {
        let before = client.quota.spent();
        let known = providers::known_partitions(self.settings, draft.progress.partitions.as_ref());
        let listed = match known {
            Some(known) => {
                draft.previewed.listed_as_of = Some(known.as_of);
                Some(known.listed.clone())
            }
            None => {
                let listed = client.source.list_partitions(&client.caller).await?;
                draft.previewed.listed_as_of = listed.as_ref().map(|_| clock.now());
                listed
            }
        };
        // The run itself lists them anew.
        draft.previewed.listing_requests = match client.quota.spent() - before {
            0 => u64::from(listed.is_some()),
            asked => asked,
        };
        Ok(listed)
    }
}

/// Says for each quota when its sources are read, and what a run does today.
fn foretell(
    drafts: &mut [Draft],
    patience: TimeDelta,
    kept_back: &BTreeMap<String, u32>,
) -> Result<()> {
    let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (index, draft) in drafts.iter().enumerate() {
        if let Some((group, _)) = &draft.quota {
            groups.entry(group.clone()).or_default().push(index);
        }
    }
    for (group, members) in groups {
        let Some((_, quota)) = drafts[members[0]].quota.clone() else { continue };
        let needs: Vec<u64> =
            members.iter().map(|member| drafts[*member].previewed.requests.count()).collect();
        let each_run = members.iter().map(|member| drafts[*member].each_run).sum();
        let each_day = members.iter().map(|member| drafts[*member].each_day).sum();
        let sent_daily_at = members.iter().filter_map(|member| drafts[*member].listed_lately).min();
        let forecast = quota.forecast(Demand {
            requests: needs.iter().sum(),
            each_run,
            each_day,
            sent_daily_at,
            patience,
        })?;
        let now = forecast.runs.first().map_or(0, |run| run.requests);
        let names: Vec<SourceName> =
            members.iter().map(|member| drafts[*member].previewed.source.clone()).collect();
        for (member, share) in members.iter().zip(fair_shares(&needs, now)) {
            let draft = &mut drafts[*member];
            let others = names.iter().filter(|name| **name != draft.previewed.source);
            let others = others.cloned().collect();
            let kept_back = kept_back.get(&group).copied().unwrap_or_default();
            draft.previewed.quota = Some(quota_of(&quota, kept_back, others)?);
            draft.previewed.today = Some(draft.today(share));
            draft.previewed.forecast = Some(forecast.clone());
        }
    }
    Ok(())
}

fn quota_of(quota: &Quota, kept_back: u32, shared_with: Vec<SourceName>) -> Result<PreviewedQuota> {
    let budget = quota.budget()?;
    Ok(PreviewedQuota { allowance: budget.allowance, left: budget.left, kept_back, shared_with })
}

/// Shares permits among needs: all get the same, but none more than it needs.
fn fair_shares(needs: &[u64], permits: u64) -> Vec<u64> {
    let mut shares = vec![0; needs.len()];
    let mut left = permits;
    while left > 0 {
        let hungry: Vec<usize> =
            (0..needs.len()).filter(|index| shares[*index] < needs[*index]).collect();
        if hungry.is_empty() {
            break;
        }
        let each = (left / hungry.len() as u64).max(1);
        for index in hungry {
            let more = each.min(needs[index] - shares[index]).min(left);
            shares[index] += more;
            left -= more;
        }
    }
    shares
}

impl Draft {
    /// Returns what a run does with so many permits.
    fn today(&self, permits: u64) -> Today {
        let mut left = permits.saturating_sub(self.previewed.listing_requests);
        let is_paid = |walk: &&PlannedWalk| {
            let rest = left.checked_sub(walk.requests.count());
            left = rest.unwrap_or_default();
            rest.is_some()
        };
        let walks = &self.previewed.plan.walks;
        let done: Vec<&PlannedWalk> = walks.iter().take_while(is_paid).collect();
        Today {
            requests: permits,
            walks: done.len() as u64,
            history_from: self.history_from(&done),
        }
    }

    /// Returns from when on every scope is whole once these walks are done.
    fn history_from(&self, done: &[&PlannedWalk]) -> Option<DateTime<Utc>> {
        let start = self.start?;
        let from = |scope: &Scope| {
            let known = self.progress.scopes.get(&scope.key());
            let mut coverage = known.map(|known| known.coverage.clone()).unwrap_or_default();
            for walk in done.iter().filter(|walk| walk.scope == *scope) {
                walk.window.into_iter().for_each(|window| coverage.insert(as_read(window)));
            }
            whole_from(&coverage, start)
        };
        let from: Option<Vec<DateTime<Utc>>> = self.scopes.iter().map(from).collect();
        from?.into_iter().max()
    }
}

fn as_read(window: Window) -> Covered {
    let as_of = window.end();
    Covered { window, as_of, rows: None, share: None, reconciled: false, holes: 0 }
}

/// Returns from when on all was read, up to the newest that was.
fn whole_from(coverage: &Coverage, start: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let whole = Window::new(start, coverage.end()?)?;
    Some(coverage.gaps(&whole).last().map_or(start, |gap| gap.end()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contracts;
    use proptest::prelude::*;

    #[test]
    fn the_schema_is_the_one_of_the_types() {
        let mut schema = schemars::schema_for!(Preview);
        schema.insert("title".to_owned(), "leadpipe plan, version 1".into());
        contracts::assert_is_made("plan", contracts::PLAN, &schema.to_value());
    }

    #[test]
    fn permits_are_shared_evenly_and_nobody_gets_more_than_it_needs() {
        assert_eq!(fair_shares(&[10, 2, 30], 24), [10, 2, 12]);
        assert_eq!(fair_shares(&[10, 2], 100), [10, 2]);
        assert_eq!(fair_shares(&[10, 10, 10], 2), [1, 1, 0]);
    }

    proptest! {
        #[test]
        fn all_permits_are_shared_as_far_as_they_are_needed(
            needs in prop::collection::vec(0_u64..50, 0..6),
            permits in 0_u64..200,
        ) {
            let shares = fair_shares(&needs, permits);
            let sum: u64 = shares.iter().sum();
            prop_assert_eq!(sum, permits.min(needs.iter().sum()));
            prop_assert!(shares.iter().zip(&needs).all(|(share, need)| share <= need));
        }
    }
}
