//! What the exit codes mean, in the habit of restic and rclone, and which error is which.

use crate::commit;
use crate::config;
use crate::run;

/// All done.
pub const DONE: u8 = 0;

/// Failed.
pub const FAILED: u8 = 1;

/// Bad usage or job file.
pub const USAGE: u8 = 2;

/// Committed, but a source failed.
pub const SOURCE_FAILED: u8 = 3;

/// A quota is spent; of a rehearsal: the days allowed are over.
pub const QUOTA_SPENT: u8 = 8;

/// Another run holds the lake.
pub const HELD: u8 = 11;

/// The credentials of every source were refused.
pub const REFUSED: u8 = 12;

/// Something needs a look.
pub const NEEDS_LOOK: u8 = 13;

/// Stopped by SIGINT.
pub const INTERRUPTED: u8 = 130;

/// Stopped by SIGTERM.
pub const TERMINATED: u8 = 143;

/// The codes as they stand at the end of `--help`.
pub(super) const HELP: &str = "\
Exit codes:
    0  all done
    1  failed
    2  bad usage or job file
    3  committed, but a source failed
    8  quota (or --max-requests) spent, committed; run again after the time printed
   10  --max-duration reached, committed
   11  another run holds the lake
   12  credentials refused for every source
   13  committed, but needs a look; also: `status --max-age` found the lake stale, or `verify` found
       it unsound
  130  interrupted, committed (143: terminated)";

/// Something the user typed that cannot be done.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct Usage {
    /// What is wrong with it.
    pub(super) message: String,
    /// What to do about it.
    pub(super) hint: Option<String>,
}

/// Returns the exit code of an error that ended a command.
pub(super) fn of_error(error: &anyhow::Error) -> u8 {
    let codes = error.chain().filter_map(|cause| {
        if cause.is::<Usage>() {
            return Some(USAGE);
        }
        let run = cause.downcast_ref::<run::Error>().and_then(of_run_error);
        let config = || cause.downcast_ref::<config::Error>().and_then(of_config_error);
        let commit = || cause.downcast_ref::<commit::Error>().and_then(of_commit_error);
        run.or_else(config).or_else(commit)
    });
    codes.into_iter().next().unwrap_or(FAILED)
}

fn of_run_error(error: &run::Error) -> Option<u8> {
    match error {
        run::Error::Config(error) => of_config_error(error),
        run::Error::Commit(error) => of_commit_error(error),
        run::Error::Stopped(ending) => u8::try_from(ending.exit_code()).ok(),
        run::Error::OtherJob { .. }
        | run::Error::Renamed { .. }
        | run::Error::PartitionFixed { .. }
        | run::Error::NoSource { .. }
        | run::Error::Unsupported(_)
        | run::Error::EmptyRange { .. }
        | run::Error::Id(_) => Some(USAGE),
        _ => None,
    }
}

fn of_config_error(error: &config::Error) -> Option<u8> {
    let is_usage = matches!(
        error,
        config::Error::Invalid { .. }
            | config::Error::Read { .. }
            | config::Error::TooLittleMemory(_)
    );
    is_usage.then_some(USAGE)
}

fn of_commit_error(error: &commit::Error) -> Option<u8> {
    match error {
        commit::Error::Held { .. }
        | commit::Error::LeaseLost { .. }
        | commit::Error::Taken { .. } => Some(HELD),
        commit::Error::SinceAhead { .. } => Some(USAGE),
        _ => None,
    }
}
