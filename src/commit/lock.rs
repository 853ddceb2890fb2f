//! One run at a time holds the lake.
//!
//! The lock is the operating system's, on `state/lock`, so that it dies with its process. What
//! stands in the file names the holder, for people; it decides nothing, and what a dead holder left
//! there blocks nobody.

use std::fmt;
use std::fs::File;
use std::fs::OpenOptions;
use std::fs::TryLockError;
use std::io;
use std::io::Write;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use serde::Deserialize;
use serde::Serialize;

use crate::clock::Clock;
use crate::commit::Error;
use crate::commit::Result;
use crate::ids::RunId;
use crate::store::Store;

/// Who holds a lake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The process.
    pub pid: u32,
    /// The machine it runs on.
    pub host: String,
    /// The run.
    pub run: RunId,
    /// The command, e.g. `sync`.
    pub command: String,
    /// The name of the job.
    pub job: String,
    /// When it began.
    pub since: DateTime<Utc>,
}

impl fmt::Display for Holder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, host, command, job, since, .. } = self;
        let since = since.format("%F %T");
        write!(formatter, "`{command}` of job `{job}`, process {pid} on {host}, since {since} UTC")
    }
}

/// The lake, held until this is dropped or the process ends.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lake for `holder`; where another run has it, tries again for up to `wait`.
    ///
    /// Returns [`Error::Held`], which names the other, after `wait`, or after a tenth of a second
    /// without one.
    pub async fn acquire(
        store: &Store,
        holder: &Holder,
        wait: Option<TimeDelta>,
        clock: &dyn Clock,
    ) -> Result<Self> {
        let file = open(store)?;
        let deadline = clock.now() + wait.unwrap_or_default().max(GRACE);
        while !try_lock(&file)? {
            let left = deadline - clock.now();
            if left <= TimeDelta::zero() {
                return Err(Error::Held { holder: read_holder(store).map(Box::new) });
            }
            let pause = if wait.is_some() { PAUSE } else { GRACE / 4 };
            clock.sleep_until(clock.now() + pause.min(left)).await;
        }
        write_holder(&file, holder).map_err(fail)?;
        Ok(Self { file })
    }
}

impl Drop for Lock {
    /// Releases the lake. That the name stays where it cannot be cleared does no harm.
    fn drop(&mut self) {
        let _ = self.file.set_len(0);
        let _ = self.file.unlock();
    }
}

/// Returns who holds the lake at this moment, where somebody does and the lock tells.
pub fn holder(store: &Store) -> Result<Option<Holder>> {
    let Ok(file) = File::open(store.path(LOCK)) else { return Ok(None) };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => Ok(read_holder(store)),
        Err(TryLockError::Error(source)) => Err(fail(source)),
    }
}

const LOCK: &str = "state/lock";

/// `holder` holds a shared lock for an instant; nobody is turned away for that.
const GRACE: TimeDelta = TimeDelta::milliseconds(100);

/// How often a run that waits looks again.
const PAUSE: TimeDelta = TimeDelta::seconds(1);

/// Other files of the lake are replaced; this one must stay the same file for as long as the lake
/// lives, or two runs could each lock their own.
fn open(store: &Store) -> Result<File> {
    store.create_folder("state")?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.open(store.path(LOCK)).map_err(fail)
}

fn try_lock(file: &File) -> Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(source)) => Err(fail(source)),
    }
}

fn write_holder(mut file: &File, holder: &Holder) -> io::Result<()> {
    file.set_len(0)?;
    serde_json::to_writer(file, holder)?;
    file.write_all(b"\n")
}

/// Whatever cannot be read as a holder (empty, half written, from another version) names nobody.
fn read_holder(store: &Store) -> Option<Holder> {
    serde_json::from_slice(&store.read(LOCK).ok()?).ok()
}

fn fail(source: io::Error) -> Error {
    Error::Lock { path: LOCK, source }
}
