//! The program in a process of its own, which can be killed, in another time if need be.

use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use chrono::TimeDelta;

/// Draws numbers from a seed; good enough to choose moments.
pub(crate) struct Draw(pub(crate) u64);

impl Draw {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// Ends its process when a test fails.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a sync of a job, `ahead` of the machine's clock and with its secrets in the environment.
pub(crate) fn start_sync(job: &Path, ahead: TimeDelta, secrets: &[(&str, &str)]) -> Running {
    start("sync", job, &[], ahead, secrets, Stdio::piped())
}

/// Starts a command on a job, with what it has to say going to `told`.
pub(crate) fn start(
    command: &str,
    job: &Path,
    arguments: &[&str],
    ahead: TimeDelta,
    secrets: &[(&str, &str)],
    told: Stdio,
) -> Running {
    let child = Command::new(env!("CARGO_BIN_EXE_leadpipe"))
        .arg(command)
        .arg(job)
        .args(arguments)
        .env("LEADPIPE_CLOCK_OFFSET", format!("{}s", ahead.num_seconds()))
        .envs(secrets.iter().copied())
        .stdout(Stdio::null())
        .stderr(told)
        .spawn()
        .unwrap();
    Running(child)
}
