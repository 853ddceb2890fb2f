//! `leadpipe backfill`.

use chrono::DateTime;
use chrono::Utc;

use super::Context;
use super::arguments::RunArguments;
use super::arguments::instant;
use super::sync;
use crate::run::Range;

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
    let to = arguments.to.unwrap_or_else(|| context.clock.now());
    let range = Range { from: arguments.from, to, again: arguments.again };
    sync::read(context, arguments.run, Some(range)).await
}
