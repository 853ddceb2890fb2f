//! `leadpipe quota`.

use super::Context;
use super::arguments::SourceArguments;
use super::exit;
use super::exit::Usage;
use super::local_offset;
use super::refuse_unknown;
use super::terminal;
use crate::config::Job;
use crate::ids::SourceName;
use crate::report;
use crate::report::QuotaReport;
use crate::run;
use crate::run::QuotaGroup;

/// What `quota` takes.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct QuotaArguments {
    #[command(flatten)]
    sources: SourceArguments,
    /// Tell the ledger that others sent so many requests with this key in the last 24 hours
    ///
    /// They count for 24 hours from now, or to the end of the day where it ends at a fixed time, since
    /// nobody knows when they were sent. A number replaces the one told before; 0 takes it back.
    #[arg(long, value_name = "N")]
    set_used: Option<u32>,
}

pub(super) const HELP: &str = "\
Examples:
  leadpipe quota jobs/nightly.toml
  leadpipe quota jobs/nightly.toml --source agency --set-used 400

JSON: job, now, groups (an array: group, sources, ledger, per_day, reserved, day (kind `rolling`, or
`fixed` with resets_at and zone), rate_requests in rate_ms, at_once, used, set_by_hand, left,
blocked_until, blocked_by (provider, reset, oldest_request, hourly_try), next_free, frees (an array:
from, permits, left)), unknown (why, by source). What has no limit is null.

Exit codes: 0 shown, 2 bad usage or job file, 3 the quota of a source is not known.";

pub(super) fn run(context: &Context, arguments: QuotaArguments) -> anyhow::Result<u8> {
    let job = Job::load(&arguments.sources.job)?;
    let named = &arguments.sources.source;
    refuse_unknown(&job, named)?;
    if let Some(requests) = arguments.set_used {
        set_used(context, &job, named, requests)?;
    }
    let report = look(context, &job, named)?;
    if context.json {
        terminal::json(&report)?;
    } else {
        terminal::text(&report::quota_text(&report, local_offset(report.now)))?;
    }
    Ok(if report.unknown.is_empty() { exit::DONE } else { exit::SOURCE_FAILED })
}

/// Looks at the quotas of the sources named, whoever else shares them; at all where none is.
fn look(context: &Context, job: &Job, named: &[SourceName]) -> run::Result<QuotaReport> {
    let (mut groups, mut unknown) = run::quota_groups(job, &context.clock)?;
    let is_named = |source: &SourceName| named.is_empty() || named.contains(source);
    groups.retain(|group| group.sources.iter().any(is_named));
    unknown.retain(|source, _| is_named(source));
    Ok(QuotaReport {
        job: job.name.clone(),
        now: context.clock.now(),
        groups: groups.into_iter().map(Into::into).collect(),
        unknown: unknown.into_iter().map(|(name, error)| (name, run::chain(&error))).collect(),
    })
}

fn set_used(
    context: &Context,
    job: &Job,
    named: &[SourceName],
    requests: u32,
) -> anyhow::Result<()> {
    let (mut groups, mut unknown) = run::quota_groups(job, &context.clock)?;
    let is_named = |source: &SourceName| named.is_empty() || named.contains(source);
    unknown.retain(|source, _| is_named(source));
    if let Some((_, error)) = unknown.pop_first() {
        return Err(error.into());
    }
    groups.retain(|group| group.sources.iter().any(is_named));
    let [group] = groups.as_slice() else { return Err(several(&groups).into()) };
    refuse_senseless(group, requests)?;
    Ok(run::set_used(job, &group.sources[0], requests, &context.clock)?)
}

fn several(groups: &[QuotaGroup]) -> Usage {
    let names = |group: &QuotaGroup| {
        let names: Vec<String> = group.sources.iter().map(|name| format!("`{name}`")).collect();
        names.join(" and ")
    };
    let names: Vec<String> = groups.iter().map(names).collect();
    Usage {
        message: format!("--set-used tells of one quota, and these are {}", groups.len()),
        hint: Some(format!(
            "name one source by --source; each of these has one: {}",
            names.join(", ")
        )),
    }
}

fn refuse_senseless(group: &QuotaGroup, requests: u32) -> Result<(), Usage> {
    let name = &group.sources[0];
    match group.rule.per_day {
        None => Err(Usage {
            message: format!(
                "source `{name}` has no limit a day that requests could count against"
            ),
            hint: Some("`per_day` in `[sources.quota]` sets one".to_owned()),
        }),
        Some(per_day) if requests > per_day => Err(Usage {
            message: format!(
                "{requests} requests are more than the {per_day} that `{name}` has a day"
            ),
            hint: Some(
                "`plan` or `per_day` in the job file may be another than the key's".to_owned(),
            ),
        }),
        Some(_) => Ok(()),
    }
}
