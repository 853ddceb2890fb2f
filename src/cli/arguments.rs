//! What can be typed.

use std::path::PathBuf;
use std::time::Duration;

use chrono::DateTime;
use chrono::NaiveDate;
use chrono::NaiveTime;
use chrono::TimeDelta;
use chrono::Utc;

use super::backfill;
use super::demo;
use super::exit;
use super::files;
use super::plan;
use super::quota;
use super::rehearse;
use super::sandbox;
use super::schema;
use super::status;
use super::verify;
use crate::calendar;
use crate::config::MemoryLimit;
use crate::ids::SourceName;
#[cfg(debug_assertions)]
use crate::point::Plan;

/// Brings every lead of your lead platforms into Parquet or CSV that you own
///
/// leadpipe reads call, form and chat leads from platforms with small daily request quotas, maps
/// them to one schema, and keeps a folder of Parquet or CSV current, night after night. A job file
/// says what to read and where to put it; `leadpipe demo` shows all of it without credentials.
#[derive(Debug, clap::Parser)]
#[command(name = "leadpipe", version, max_term_width = 100, after_help = exit::HELP)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// What every command takes.
#[derive(Debug, clap::Args)]
pub(super) struct Global {
    /// Write one JSON document to stdout in place of text; its form is stable
    #[arg(long, global = true, help_heading = COMMON)]
    pub(super) json: bool,
    /// Say nothing on stderr but errors
    #[arg(long, short, global = true, help_heading = COMMON)]
    pub(super) quiet: bool,
    /// Log more to stderr; twice for even more
    #[arg(long, short, global = true, help_heading = COMMON, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    pub(super) verbose: u8,
    /// Log to stderr as JSON lines, with all that happens in a run
    #[arg(long, global = true, help_heading = COMMON)]
    pub(super) log_json: bool,
    /// Shifts the clock, for tests of a later day
    #[arg(
        long,
        hide = true,
        global = true, help_heading = COMMON,
        env = "LEADPIPE_CLOCK_OFFSET",
        value_parser = offset,
        default_value = "0s"
    )]
    pub(super) clock_offset: TimeDelta,
    /// What happens at which points, for tests: only builds with debug assertions have them
    #[cfg(debug_assertions)]
    #[arg(long, hide = true, global = true, help_heading = COMMON, env = "LEADPIPE_POINTS")]
    pub(super) points: Option<Plan>,
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Bring the lake of a job up to date
    ///
    /// Reads what was never read and what may have changed, as far as the quota goes, and commits
    /// it. Run it every night; stopped at any moment, the next run goes on.
    #[command(after_help = SYNC_HELP)]
    Sync(RunArguments),
    /// Read what is not covered in a range of creation dates
    ///
    /// The request is kept in the lake until it is done, over as many days as the quota needs: the
    /// same command goes on with it.
    #[command(after_help = backfill::HELP)]
    Backfill(backfill::BackfillArguments),
    /// Show what a run would read, and what it would cost
    ///
    /// Writes nothing. Where the profiles of a master key are not known yet, they are asked for,
    /// which counts like any request.
    #[command(after_help = plan::HELP)]
    Plan(plan::PlanArguments),
    /// Rehearse a job against invented leads: how many days, what is there after each
    ///
    /// The job's own plan, code and quota, against a platform played on this machine, on a clock that
    /// runs fast. No credentials, no request to a real platform, and nothing is written to the lake.
    #[command(after_help = rehearse::HELP)]
    Rehearse(rehearse::RehearseArguments),
    /// Prove settings and credentials, with one or two requests a source
    #[command(after_help = CHECK_HELP)]
    Check(SourceArguments),
    /// Show what is left of each quota, and when the next requests come free
    ///
    /// Sends no request and takes no lock of the lake. Secrets are only read to find the ledger.
    #[command(after_help = quota::HELP)]
    Quota(quota::QuotaArguments),
    /// Show what a lake holds: coverage, freshness, quota, last runs
    #[command(after_help = status::HELP)]
    Status(status::StatusArguments),
    /// List the files a loader should read, one path a line
    #[command(after_help = files::HELP)]
    Files(files::FilesArguments),
    /// Map the archive again, without a request
    ///
    /// Maps the newest archived record of every lead the lake holds, and every reject. A run does
    /// this by itself where the mapping has changed.
    #[command(after_help = REPLAY_HELP)]
    Replay(ReplayArguments),
    /// Prove a lake sound, or say what is damaged; mend it with --repair
    ///
    /// Reads every file that commits name, the archive and the state of the lake, and compares. Sends no
    /// request without --remote.
    #[command(after_help = verify::HELP)]
    Verify(verify::VerifyArguments),
    /// Print the JSON Schema of a contract: a lead, a job file, a commit
    #[command(after_help = schema::HELP)]
    Schema(schema::SchemaArguments),
    /// Serve a lead platform on this machine, with invented leads
    ///
    /// Listens on 127.0.0.1 until Ctrl-C, and prints a job file that reads from it.
    #[command(after_help = sandbox::HELP)]
    Sandbox(sandbox::SandboxArguments),
    /// Show it all: a first sync, a day later a nightly, without credentials
    #[command(after_help = demo::HELP)]
    Demo(demo::DemoArguments),
}

/// A job and which sources of it.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct SourceArguments {
    /// The job file
    #[arg(value_name = "JOB")]
    pub(super) job: PathBuf,
    /// Only these sources: a comma between names, or the flag again
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(super) source: Vec<SourceName>,
}

/// How a run that reads behaves.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct RunArguments {
    #[command(flatten)]
    pub(super) sources: SourceArguments,
    /// Send at most so many requests, all sources together
    #[arg(long, value_name = "N")]
    pub(super) max_requests: Option<u64>,
    /// Stop, and commit, after this time, e.g. 45m
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) max_duration: Option<TimeDelta>,
    /// Wait so long for another run that holds the lake, e.g. 30m
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) lock_wait: Option<TimeDelta>,
    #[command(flatten)]
    pub(super) memory: MemoryArguments,
    /// Let deletes of these sources through that the guard would hold back
    #[arg(long, value_name = "SOURCE", value_delimiter = ',')]
    pub(super) accept_deletes: Vec<SourceName>,
    /// Where the quota is spent, wait for the next day and go on
    #[arg(long)]
    pub(super) wait: bool,
    /// Read history from its start on, instead of from the newest days back
    #[arg(long)]
    pub(super) oldest_first: bool,
    /// Only show what would be read, as `leadpipe plan` does
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// How much memory a run may take.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct MemoryArguments {
    /// Take no more memory than this, e.g. 200MB, in place of the job's `run.memory_limit`
    #[arg(long, value_name = "SIZE", env = "LEADPIPE_MEMORY_LIMIT", hide_env_values = true)]
    pub(super) memory_limit: Option<MemoryLimit>,
}

/// What `replay` takes.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ReplayArguments {
    #[command(flatten)]
    pub(super) sources: SourceArguments,
    /// Wait so long for another run that holds the lake, e.g. 30m
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) lock_wait: Option<TimeDelta>,
    #[command(flatten)]
    pub(super) memory: MemoryArguments,
}

/// Where options stand that every command has.
const COMMON: &str = "Common options";

const SYNC_HELP: &str = "\
Examples:
  leadpipe sync jobs/nightly.toml
  leadpipe sync jobs/nightly.toml --source agency --max-duration 45m
  leadpipe sync jobs/nightly.toml --json --quiet > summary.json

JSON: the summary of the run: run, job, command, started_at, ended_at, commit, snapshot, endings,
resume_at, and sources by name with state, requests, walks, pages, leads, rows and what needs a look.

Exit codes: 0 all done, 1 failed, 2 bad usage or job file, 3 a source failed, 8 quota spent,
10 --max-duration reached, 11 another run holds the lake, 12 credentials refused for every source,
13 needs a look, 130 / 143 interrupted. Except with 1, 2 and 11, what there is, is committed.";

const CHECK_HELP: &str = "\
Example:
  leadpipe check jobs/nightly.toml

JSON: an array with, by source: source, state (complete, failed, refused), found, hint, requests.

Exit codes: 0 all well, 2 bad usage or job file, 3 some sources failed, 12 credentials refused for
every source.";

const REPLAY_HELP: &str = "\
Example:
  leadpipe replay jobs/nightly.toml

JSON: the summary of the run, as of `sync`.

Exit codes: as of `sync`.";

/// Reads a duration such as `45m` or `1h 30m`.
pub(super) fn duration(text: &str) -> Result<TimeDelta, String> {
    let duration: Duration = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write e.g. `45m` or `1h 30m`"))?;
    let duration = TimeDelta::from_std(duration).map_err(|error| error.to_string())?;
    // Beyond a lifetime, instants run out of the calendar.
    match duration > TimeDelta::days(36_500) {
        true => Err("that is more than a hundred years".to_owned()),
        false => Ok(duration),
    }
}

/// Reads a duration that may be negative.
fn offset(text: &str) -> Result<TimeDelta, String> {
    match text.strip_prefix('-') {
        Some(back) => duration(back).map(|back| -back),
        None => duration(text),
    }
}

/// Reads a date (its midnight in UTC) or an instant of RFC 3339.
pub(super) fn instant(text: &str) -> Result<DateTime<Utc>, String> {
    let midnight = |date: NaiveDate| date.and_time(NaiveTime::MIN).and_utc();
    let instant = text
        .parse()
        .map(midnight)
        .or_else(|_| DateTime::parse_from_rfc3339(text).map(|instant| instant.to_utc()));
    let instant = instant.ok().filter(|instant| calendar::holds(*instant));
    instant.ok_or_else(|| "write a date such as `2026-01-31`, or `2026-01-31T18:00:00Z`".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_date_is_its_midnight_in_utc() {
        let midnight = instant("2026-01-31").unwrap();
        assert_eq!(midnight, instant("2026-01-31T01:00:00+01:00").unwrap());
        assert!(instant("31.01.2026").unwrap_err().contains("2026-01-31"));
        for none in ["2026-02-30", "+262142-12-31", "-262143-01-01T00:00:00Z", "tomorrow"] {
            assert!(instant(none).is_err(), "{none}");
        }
    }

    #[test]
    fn durations_carry_their_unit() {
        assert_eq!(offset("-90m"), Ok(-TimeDelta::minutes(90)));
        assert_eq!(duration("1h 30m"), Ok(TimeDelta::minutes(90)));
        assert!(duration("90").unwrap_err().contains("45m"));
    }
}
