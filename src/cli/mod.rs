//! The terminal's side: arguments, one file a command, exit codes.
//!
//! Data goes to stdout, everything else to stderr. What a command finds out is turned into text by
//! `report`, which knows no terminal; what it does is done by `run`, which knows none either.

mod arguments;
mod backfill;
mod check;
mod demo;
pub mod exit;
mod files;
mod plan;
mod progress;
mod quota;
mod rehearse;
mod replay;
mod sandbox;
mod schema;
mod signals;
mod status;
mod sync;
mod terminal;
mod verify;

use std::process::ExitCode;
use std::sync::Arc;

use chrono::DateTime;
use chrono::FixedOffset;
use chrono::Local;
use chrono::Offset;
use chrono::Utc;
use clap::Parser;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::clock::SharedClock;
use crate::clock::SystemClock;
use crate::config::Job;
use crate::ids::SourceName;
#[cfg(debug_assertions)]
use crate::point;
use crate::run;
use crate::run::Observer;
use crate::run::Unobserved;
use arguments::Arguments;
use arguments::Command;
use arguments::Global;
use progress::Logged;
use progress::Progress;

/// Runs the command that was typed and returns its exit code.
///
/// Usage errors, `--help` and `--version` end the process here, with 2 or 0. All of the program is called
/// from within the library, so that the binary is compiled from next to nothing, and holds no second copy.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(run(arguments)),
        Err(error) => {
            terminal::tell(&anyhow::Error::new(error).context("failed to start"));
            ExitCode::from(exit::FAILED)
        }
    }
}

async fn run(arguments: Arguments) -> ExitCode {
    terminal::tell_of_panics_by_place();
    start_log(&arguments.global, &arguments.command);
    #[cfg(debug_assertions)]
    if let Err(error) = arguments.global.points.clone().map_or(Ok(()), point::set) {
        terminal::tell(&anyhow::Error::new(error).context("failed to record points"));
        return ExitCode::from(exit::FAILED);
    }
    let clock: SharedClock = Arc::new(SystemClock::with_offset(arguments.global.clock_offset));
    let Global { json, quiet, log_json, .. } = arguments.global;
    let context = Context { clock, json, quiet, log_json };
    let ended = match arguments.command {
        Command::Sync(arguments) => sync::run(&context, arguments).await,
        Command::Backfill(arguments) => backfill::run(&context, arguments).await,
        Command::Plan(arguments) => plan::run(&context, arguments).await,
        Command::Check(arguments) => check::run(&context, arguments).await,
        Command::Quota(arguments) => quota::run(&context, arguments),
        Command::Rehearse(arguments) => rehearse::run(&context, arguments).await,
        Command::Status(arguments) => status::run(&context, arguments),
        Command::Files(arguments) => files::run(&context, arguments),
        Command::Replay(arguments) => replay::run(&context, arguments).await,
        Command::Verify(arguments) => verify::run(&context, arguments).await,
        Command::Schema(arguments) => schema::run(arguments),
        Command::Sandbox(arguments) => sandbox::run(&context, arguments).await,
        Command::Demo(arguments) => demo::run(&context, arguments).await,
    };
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let code = exit::of_error(&error);
            terminal::tell(&error);
            if context.json {
                // The text is on stderr; where stdout is gone too, there is nobody to tell.
                let _ = terminal::json(&terminal::failure(&error, code));
            }
            ExitCode::from(code)
        }
    }
}

/// What every command has at hand.
#[derive(Debug)]
struct Context {
    clock: SharedClock,
    json: bool,
    quiet: bool,
    log_json: bool,
}

impl Context {
    /// Returns who tells how a run is getting on: the log with `--log-json`, else nobody with
    /// `--quiet` or `--json`.
    fn observer(&self) -> Arc<dyn Observer> {
        if self.log_json || self.quiet || self.json {
            return self.log_observer();
        }
        Arc::new(Progress::new(self.clock.clone()))
    }

    /// Returns the log with `--log-json`, else nobody.
    fn log_observer(&self) -> Arc<dyn Observer> {
        match self.log_json {
            true => Arc::new(Logged),
            false => Arc::new(Unobserved),
        }
    }

    /// Says something beside the data, unless asked to be quiet.
    fn say(&self, line: &str) {
        if !self.quiet {
            terminal::say(line);
        }
    }
}

/// Returns an error that names the sources of a job where one of `names` is not among them.
fn refuse_unknown(job: &Job, names: &[SourceName]) -> run::Result<()> {
    let is_unknown = |name: &&SourceName| job.sources.iter().all(|source| source.name != **name);
    let Some(name) = names.iter().find(is_unknown) else { return Ok(()) };
    let known: Vec<String> = job.sources.iter().map(|one| format!("`{}`", one.name)).collect();
    Err(run::Error::NoSource { name: name.to_string(), known: known.join(", ") })
}

/// Returns this machine's offset to UTC at an instant.
fn local_offset(at: DateTime<Utc>) -> FixedOffset {
    at.with_timezone(&Local).offset().fix()
}

fn start_log(global: &Global, command: &Command) {
    // Nobody has to act on what is warned of in a rehearsal.
    let is_rehearsal = matches!(command, Command::Rehearse(_)) && !global.log_json;
    let (others, own) = match (global.quiet, global.verbose) {
        (true, _) => (Level::ERROR, Level::ERROR),
        (_, 0) if is_rehearsal => (Level::ERROR, Level::ERROR),
        (_, 0) if global.log_json => (Level::WARN, Level::INFO),
        (_, 0) => (Level::WARN, Level::WARN),
        (_, 1) => (Level::WARN, Level::INFO),
        (_, 2) => (Level::INFO, Level::DEBUG),
        _ => (Level::DEBUG, Level::TRACE),
    };
    let targets = Targets::new().with_default(others).with_target("leadpipe", own);
    let log = tracing_subscriber::fmt()
        .with_max_level(Level::TRACE)
        .with_writer(terminal::Log { json: global.log_json })
        // Telling of a stderr that nobody reads any more would panic, and end the run.
        .log_internal_errors(false);
    // A log that was set up before stays as it is.
    let _ = match global.log_json {
        true => log.json().finish().with(targets).try_init(),
        false => log.finish().with(targets).try_init(),
    };
}
