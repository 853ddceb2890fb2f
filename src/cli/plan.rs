//! `leadpipe plan`.

use chrono::DateTime;
use chrono::Utc;

use super::Context;
use super::arguments::SourceArguments;
use super::arguments::instant;
use super::exit;
use super::local_offset;
use super::signals;
use super::terminal;
use crate::config::Job;
use crate::report;
use crate::run;
use crate::run::Options;
use crate::run::Range;

/// What `plan` takes.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct PlanArguments {
    #[command(flatten)]
    sources: SourceArguments,
    /// Plan a backfill from here on: a date (midnight UTC) or an instant of RFC 3339
    #[arg(long, value_name = "DATE", value_parser = instant)]
    from: Option<DateTime<Utc>>,
    /// Plan a backfill to before here; now where it is left out
    #[arg(long, value_name = "DATE", value_parser = instant, requires = "from")]
    to: Option<DateTime<Utc>>,
    /// Plan to read once more what was read already
    #[arg(long, requires = "from")]
    again: bool,
    /// Plan to read history from its start on
    #[arg(long)]
    oldest_first: bool,
    /// Ask for the totals that are not known: one request of the smallest page a window
    #[arg(long)]
    probe: bool,
    /// Show every walk, however many there are
    #[arg(long)]
    all: bool,
}

pub(super) const HELP: &str = "\
Examples:
  leadpipe plan jobs/nightly.toml
  leadpipe plan jobs/nightly.toml --probe
  leadpipe plan jobs/nightly.toml --from 2019-01-01 --to 2021-01-01

A price is exact where the span was counted, by an earlier reading or by --probe; else it is an
estimate from the days beside it, or says the least that it can be. The time when all is there holds
for runs that go on as soon as permits come free, as with --wait.

JSON: an object as `leadpipe schema plan` describes it.

Exit codes: 0 planned, 2 bad usage or job file, 3 a source could not be planned.";

pub(super) async fn run(context: &Context, arguments: PlanArguments) -> anyhow::Result<u8> {
    let job = Job::load(&arguments.sources.job)?;
    let (to, again) = (arguments.to, arguments.again);
    let range = arguments.from.map(|from| {
        let to = to.unwrap_or_else(|| context.clock.now());
        Range { from, to, again }
    });
    let options = Options {
        sources: arguments.sources.source,
        oldest_first: arguments.oldest_first,
        probe: arguments.probe,
        ..Options::default()
    };
    show(context, job, range, options, arguments.all).await
}

/// Plans and shows it; writes nothing.
pub(super) async fn show(
    context: &Context,
    job: Job,
    range: Option<Range>,
    options: Options,
    all: bool,
) -> anyhow::Result<u8> {
    if let Some(Range { from, to, .. }) = range
        && from >= to
    {
        return Err(run::Error::EmptyRange { from, to }.into());
    }
    signals::watch(options.stop.clone(), context.clock.clone())?;
    let previewed = run::preview(job, range, options, context.clock.clone()).await?;
    if context.json {
        terminal::json(&previewed)?;
    } else {
        terminal::text(&report::plan_text(&previewed, all, local_offset(previewed.planned_at)))?;
    }
    let failed = previewed.sources.iter().any(|source| source.error.is_some());
    Ok(if failed { exit::SOURCE_FAILED } else { exit::DONE })
}
