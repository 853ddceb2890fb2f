//! `leadpipe plan`.

use chrono::DateTime;
use chrono::Utc;

use super::Context;
use super::arguments::SourceArguments;
use super::arguments::instant;
use super::exit;
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
    /// Show every walk, however many there are
    #[arg(long)]
    all: bool,
}

pub(super) const HELP: &str = "\
Examples:
  leadpipe plan jobs/nightly.toml
  leadpipe plan jobs/nightly.toml --from 2019-01-01 --to 2021-01-01

JSON: an array with, by source: source, plan (walks and dropped), listing_requests, listed_as_of,
permits_left, error.

Exit codes: 0 planned, 2 bad usage or job file, 3 a source could not be planned.";

pub(super) async fn run(context: &Context, arguments: PlanArguments) -> anyhow::Result<u8> {
    let job = Job::load(&arguments.sources.job)?;
    let (to, again) = (arguments.to, arguments.again);
    let range = arguments.from.map(|from| {
        let to = to.unwrap_or_else(|| context.clock.now());
        Range { from, to, again }
    });
    let options = Options { sources: arguments.sources.source, ..Options::default() };
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
    let previewed = run::preview(job, range, options, context.clock.clone()).await?;
    if context.json {
        terminal::json(&previewed)?;
    } else {
        terminal::data(&report::plan_text(&previewed, all))?;
    }
    let failed = previewed.iter().any(|source| source.error.is_some());
    Ok(if failed { exit::SOURCE_FAILED } else { exit::DONE })
}
