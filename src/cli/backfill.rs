//! `leadpipe backfill`.

use chrono::DateTime;
use chrono::Utc;

use super::Context;
use super::arguments::RunArguments;
use super::arguments::instant;
use super::sync;
use crate::commit;
use crate::config::Job;
use crate::ids::SourceName;
use crate::run::Range;
use crate::store::Store;

/// What `backfill` takes.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct BackfillArguments {
    #[command(flatten)]
    run: RunArguments,
    /// Leads created from here on: a date (midnight UTC) or an instant of RFC 3339
    #[arg(long, value_name = "DATE", value_parser = instant)]
    from: DateTime<Utc>,
    /// Leads created before here; now where it is left out
    #[arg(long, value_name = "DATE", value_parser = instant)]
    to: Option<DateTime<Utc>>,
    /// Read once more what was read before this was first asked for
    #[arg(long)]
    again: bool,
}

pub(super) const HELP: &str = "\
Examples:
  leadpipe backfill jobs/nightly.toml --from 2019-01-01 --to 2021-01-01
  leadpipe backfill jobs/nightly.toml --from 2026-03-01 --to 2026-04-01 --again --source agency
  leadpipe backfill jobs/backfill.toml --from 2016-01-01 --wait

JSON and exit codes: as of `leadpipe sync`.";

pub(super) async fn run(context: &Context, arguments: BackfillArguments) -> anyhow::Result<u8> {
    let to = match arguments.to {
        Some(to) => to,
        None => end_under_way(&arguments)?.unwrap_or_else(|| context.clock.now()),
    };
    let range = Range { from: arguments.from, to, again: arguments.again };
    sync::read(context, arguments.run, Some(range)).await
}

/// Returns the end of the request that these arguments began earlier. Each "now" is another, and
/// what is asked for anew each time would never be done.
fn end_under_way(arguments: &BackfillArguments) -> anyhow::Result<Option<DateTime<Utc>>> {
    let job = Job::load(&arguments.run.sources.job)?;
    let named = &arguments.run.sources.source;
    let sources = job.sources.iter().map(|source| source.name.clone());
    let sources: Vec<SourceName> =
        sources.filter(|name| named.is_empty() || named.contains(name)).collect();
    let head = commit::latest(&Store::at(&job.lake)?)?;
    let under_way = head.iter().flat_map(|head| head.checkpoint.backfills.values());
    let ours = under_way.filter(|backfill| {
        backfill.range.start() == arguments.from
            && backfill.again == arguments.again
            && backfill.sources == sources
    });
    Ok(ours.map(|backfill| backfill.range.end()).max())
}
