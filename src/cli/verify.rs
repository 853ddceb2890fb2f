//! `leadpipe verify`.

use std::path::PathBuf;

use chrono::TimeDelta;

use super::Context;
use super::arguments::duration;
use super::exit;
use super::signals;
use super::terminal;
use crate::config::Job;
use crate::report;
use crate::run;
use crate::run::Stop;
use crate::run::Verify;

/// What `verify` takes.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct VerifyArguments {
    /// The job file
    #[arg(value_name = "JOB")]
    job: PathBuf,
    /// Mend what the changes, the archive and other copies can mend; holds the lake meanwhile
    #[arg(long)]
    repair: bool,
    /// Ask the providers for totals, and compare them with the rows held
    #[arg(long)]
    remote: bool,
    /// Send at most so many requests a source with --remote
    #[arg(long, value_name = "N", default_value_t = 20, requires = "remote")]
    max_requests: u64,
    /// Wait so long for another run that holds the lake, e.g. 30m
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "repair")]
    lock_wait: Option<TimeDelta>,
}

pub(super) const HELP: &str = "\
Without --repair it changes nothing and takes no lock: it goes by the commits there are at its start.
A repair puts back what it can make again to the byte; what it can only make again with the same
rows gets a commit of its own. Of what is lost it withdraws what was read, so that the next sync
reads it again. It sets damaged files aside in the lake's `damaged/`.

Examples:
  leadpipe verify jobs/nightly.toml
  leadpipe verify jobs/nightly.toml --repair && leadpipe sync jobs/nightly.toml
  leadpipe verify jobs/nightly.toml --remote --max-requests 5

JSON: job, lake, commit, is_sound, checked (commits, files, segments, bytes, rows), findings (an
array: kind, path, what, way_out, matters; after a repair what is left), repairs (path, how),
committed (the commit of a repair), totals (source, scope, window, held, stated, verdict: agreed,
differs, not_checked, not_stated, and why).

Exit codes: 0 sound, 1 failed, 2 bad usage or job file, 11 another run holds the lake, 13 not sound,
or a total differs.";

pub(super) async fn run(context: &Context, arguments: VerifyArguments) -> anyhow::Result<u8> {
    let job = Job::load(&arguments.job)?;
    let asked = Verify {
        repair: arguments.repair,
        remote: arguments.remote.then_some(arguments.max_requests),
        lock_wait: arguments.lock_wait,
        stop: Stop::default(),
    };
    signals::watch(asked.stop.clone(), context.clock.clone())?;
    let verified = run::verify(job, asked, context.clock.clone()).await?;
    if context.json {
        terminal::json(&verified)?;
    } else {
        terminal::text(&report::verified_text(&verified))?;
    }
    Ok(if verified.is_sound { exit::DONE } else { exit::NEEDS_LOOK })
}
