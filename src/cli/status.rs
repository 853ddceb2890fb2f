//! `leadpipe status`.

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;

use super::Context;
use super::arguments::SourceArguments;
use super::arguments::duration;
use super::exit;
use super::local_offset;
use super::refuse_unknown;
use super::terminal;
use crate::checkpoint::Scanned;
use crate::checkpoint::SourceProgress;
use crate::commit;
use crate::commit::Commit;
use crate::config::Job;
use crate::config::SourceSettings;
use crate::report;
use crate::report::CaughtStatus;
use crate::report::Listings;
use crate::report::RunLine;
use crate::report::ScopeStatus;
use crate::report::SourceStatus;
use crate::report::Status;
use crate::run;
use crate::store::Store;

/// What `status` takes.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct StatusArguments {
    #[command(flatten)]
    sources: SourceArguments,
    /// Exit with 13 where what is held is older, e.g. 26h
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    max_age: Option<TimeDelta>,
}

pub(super) const HELP: &str = "\
Sends no request and takes no lock. Secrets are only read to find the quota's ledger.

Examples:
  leadpipe status jobs/nightly.toml
  leadpipe status jobs/nightly.toml --max-age 26h --quiet > /dev/null || tell-somebody

JSON: job, lake, now, commit, committed_at, as_of, is_stale, holder, sources (state, rows, as_of,
stalest, reconciled, quota, smaller_pages, caught: changed leads by refresh tier and age, scopes
with their spans), backfills, runs.

Exit codes: 0 shown, 1 failed, 2 bad usage or job file, 13 older than --max-age or never read whole.";

/// So many of the last runs are shown.
const RUNS: usize = 5;

pub(super) fn run(context: &Context, arguments: StatusArguments) -> anyhow::Result<u8> {
    let mut job = Job::load(&arguments.sources.job)?;
    let named = &arguments.sources.source;
    refuse_unknown(&job, named)?;
    job.sources.retain(|source| named.is_empty() || named.contains(&source.name));
    let status = look(context, &job, arguments.max_age)?;
    if context.json {
        terminal::json(&status)?;
    } else {
        terminal::text(&report::status_text(&status, local_offset(status.now)))?;
    }
    Ok(if status.is_stale { exit::NEEDS_LOOK } else { exit::DONE })
}

fn look(context: &Context, job: &Job, max_age: Option<TimeDelta>) -> anyhow::Result<Status> {
    let lake = job.lake.absolute();
    let store = Store::at(&lake)?;
    let now = context.clock.now();
    let head = commit::latest(&store)?;
    let mut budgets = run::budgets(job, &context.clock)?;
    let mut status = Status {
        job: job.name.clone(),
        lake: lake.to_string(),
        now,
        commit: head.as_ref().map(|head| head.seq),
        committed_at: head.as_ref().map(|head| head.created_at),
        as_of: None,
        is_stale: false,
        holder: commit::holder(&store, now)?,
        sources: Default::default(),
        backfills: head
            .iter()
            .flat_map(|head| head.checkpoint.backfills.values())
            .cloned()
            .collect(),
        runs: last_runs(&store)?,
    };
    for settings in &job.sources {
        let mut source = source(settings, head.as_ref());
        source.caught = caught(job, settings, &source, head.as_ref(), now);
        match budgets.remove(&settings.name) {
            Some(Ok(budget)) => source.quota = Some(budget.into()),
            Some(Err(error)) => source.quota_unknown = Some(run::chain(&error)),
            None => {}
        }
        status.sources.insert(settings.name.clone(), source);
    }
    status.as_of = as_of(&status);
    // What lies in the future was read under a clock that ran ahead, and says nothing.
    let ahead = TimeDelta::hours(1);
    let is_old =
        |max_age| status.as_of.is_none_or(|as_of| now - as_of > max_age || as_of - now > ahead);
    status.is_stale = max_age.is_some_and(is_old);
    Ok(status)
}

/// Returns the least of the sources; `None` where one has none.
fn as_of(status: &Status) -> Option<DateTime<Utc>> {
    status.sources.values().map(|source| source.as_of).min().flatten()
}

fn last_runs(store: &Store) -> anyhow::Result<Vec<RunLine>> {
    Ok(commit::runs(store)?.into_iter().take(RUNS).map(RunLine::from).collect())
}

fn source(settings: &SourceSettings, head: Option<&Commit>) -> SourceStatus {
    let mut status = SourceStatus { start: settings.start(), ..SourceStatus::default() };
    let Some(head) = head else { return status };
    if let Some(held) = head.sources.get(&settings.name) {
        status.state = Some(held.state);
        status.why.clone_from(&held.why);
        status.rows = held.rows;
        status.as_of = held.as_of;
    }
    if let Some(progress) = head.checkpoint.sources.get(&settings.name) {
        status.absent = progress.absent.len() as u64;
        status.open_walks = progress.open_walks.len() as u64;
        status.smaller_pages = run::smaller_pages(settings, progress);
        status.scopes = scopes(settings, progress);
    }
    let read = |scope: &ScopeStatus| {
        let spans = scope.spans.iter().map(|span| span.as_of);
        spans.chain(scope.scan.as_ref().map(|scan| scan.as_of)).min()
    };
    status.stalest = status.scopes.iter().filter_map(read).min();
    status.reconciled = reconciled(&status);
    status
}

/// Changes are counted over the months that so many days reach into.
const CAUGHT_DAYS: TimeDelta = TimeDelta::days(90);

/// Returns which tier caught what; `None` where it was not counted yet.
fn caught(
    job: &Job,
    settings: &SourceSettings,
    status: &SourceStatus,
    head: Option<&Commit>,
    now: DateTime<Utc>,
) -> Option<CaughtStatus> {
    let progress = head?.checkpoint.sources.get(&settings.name)?;
    let (since, caught) = progress.caught.as_ref()?.from(now - CAUGHT_DAYS);
    let order = |scope: &ScopeStatus| scope.scan.as_ref().and_then(Scanned::order);
    let listings = match settings.start() {
        Some(_) => Listings::Dated,
        None => Listings::Undated(status.scopes.iter().map(order).collect()),
    };
    Some(report::caught_status(since, &caught, &job.refresh, &listings))
}

/// Returns what was read of the scopes the source has now.
fn scopes(settings: &SourceSettings, progress: &SourceProgress) -> Vec<ScopeStatus> {
    let scopes = run::scopes(settings, progress).into_iter();
    let status = scopes.map(|key| {
        let known = progress.scopes.get(&key);
        ScopeStatus {
            spans: known.map(|known| known.coverage.spans().to_vec()).unwrap_or_default(),
            scan: known.and_then(|known| known.scan.clone()),
            difference: known.and_then(|known| known.difference).map(|difference| difference.rows),
            scope: key.0,
        }
    });
    status.collect()
}

fn reconciled(status: &SourceStatus) -> Option<f64> {
    let (mut all, mut agreed) = (0, 0);
    for span in status.scopes.iter().flat_map(|scope| &scope.spans) {
        let seconds = span.window.length().num_seconds();
        all += seconds;
        agreed += if span.reconciled { seconds } else { 0 };
    }
    #[expect(clippy::cast_precision_loss, reason = "a share needs no exact number")]
    (all > 0).then(|| agreed as f64 / all as f64)
}
