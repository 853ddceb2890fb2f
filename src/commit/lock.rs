//! One run at a time holds the lake.
//!
//! In a folder the lock is the operating system's, on `state/lock`, so that it dies with its process.
//! What stands in the file names the holder, for people; it decides nothing, and what a dead holder left
//! there blocks nobody. In a bucket it is a lease (see [`super::lease`]).

use std::fmt;
use std::fs::File;
use std::fs::TryLockError;
use std::io;
use std::io::Write;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use serde::Deserialize;
use serde::Serialize;

use crate::clock::SharedClock;
use crate::commit::Error;
use crate::commit::Result;
use crate::commit::lease;
use crate::commit::lease::Lease;
use crate::ids::RunId;
use crate::point::Steps;
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
    is_left: bool,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    File(#[expect(dead_code, reason = "it is held, and freed when it is dropped")] Locked),
    Lease(Lease),
}

/// A file under the operating system's lock.
#[derive(Debug)]
struct Locked(File);

impl Lock {
    /// Takes the lake for `holder`; where another run has it, tries again for up to `wait`.
    ///
    /// Returns [`Error::Held`], which names the other, after `wait`, or after a tenth of a second
    /// without one.
    pub async fn acquire(
        store: &Store,
        holder: &Holder,
        wait: Option<TimeDelta>,
        clock: SharedClock,
    ) -> Result<Self> {
        let mut attempt = Attempt::new(store)?;
        let wait_at_most = wait.unwrap_or_default().max(GRACE);
        // Longer than the calendar reaches is for ever.
        let deadline = clock.now().checked_add_signed(wait_at_most);
        let deadline = deadline.unwrap_or(DateTime::<Utc>::MAX_UTC);
        let mut told = false;
        loop {
            if let Some(lock) = attempt.take(store, holder, &clock)? {
                return Ok(lock);
            }
            let left = deadline - clock.now();
            if left <= TimeDelta::zero() {
                return Err(Error::Held { holder: read_holder(store).map(Box::new) });
            }
            if wait.is_some() && !told {
                told = true;
                let holder = read_holder(store).map(|holder| holder.to_string());
                tracing::warn!(holder, "waiting for another run, which holds the lake");
            }
            let pause = if wait.is_some() { PAUSE } else { GRACE / 4 };
            clock.sleep_until(clock.now() + pause.min(left)).await;
        }
    }

    /// Returns what ends once another run has taken the lake, which only happens in a bucket.
    pub fn lost(&self) -> impl Future<Output = ()> + Send + use<> {
        let lost = match &self.kind {
            Kind::File(_) => None,
            Kind::Lease(lease) => Some(lease.lost()),
        };
        async move {
            if let Some(mut lost) = lost
                && lost.wait_for(|is_lost| *is_lost).await.is_ok()
            {
                return;
            }
            std::future::pending().await
        }
    }

    /// Tells whether the holder before has died: it may have left files that it did not finish.
    pub fn is_left(&self) -> bool {
        self.is_left
    }
}

impl Drop for Locked {
    /// Releases the lake. That the name stays where it cannot be cleared does no harm.
    fn drop(&mut self) {
        steps().reach("released");
        let _ = self.0.set_len(0);
        let _ = self.0.unlock();
    }
}

/// How the lake is tried for.
enum Attempt {
    File(File),
    Lease(lease::Attempt),
}

impl Attempt {
    fn new(store: &Store) -> Result<Self> {
        match store.is_bucket() {
            true => {
                store.refuse_unconditional()?;
                Ok(Self::Lease(lease::Attempt::default()))
            }
            false => open(store).map(Self::File),
        }
    }

    fn take(
        &mut self,
        store: &Store,
        holder: &Holder,
        clock: &SharedClock,
    ) -> Result<Option<Lock>> {
        let file = match self {
            Self::Lease(attempt) => {
                let taken = attempt.take(store, holder, clock)?;
                return Ok(taken.map(|(lease, is_left)| Lock { is_left, kind: Kind::Lease(lease) }));
            }
            Self::File(file) => file,
        };
        if !try_lock(store, file)? {
            return Ok(None);
        }
        let fail = |source| fail(store, source);
        let locked = Locked(file.try_clone().map_err(fail)?);
        // A holder that ends clears its name.
        let is_left = file.metadata().map_err(fail)?.len() > 0;
        write_holder(file, holder).map_err(fail)?;
        Ok(Some(Lock { is_left, kind: Kind::File(locked) }))
    }
}

/// Tells whether a run holds the lake still, having taken it.
pub fn is_held(store: &Store, run: &RunId) -> Result<bool> {
    if store.is_bucket() { lease::is_held(store, run) } else { Ok(true) }
}

/// Returns who holds the lake at this moment, where somebody does and the lock tells.
pub fn holder(store: &Store, now: DateTime<Utc>) -> Result<Option<Holder>> {
    if store.is_bucket() {
        return lease::holder(store, now);
    }
    let opened = steps().read("looked-at").and_then(|()| File::open(store.path(LOCK)));
    let Ok(file) = opened else { return Ok(None) };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => Ok(read_holder(store)),
        Err(TryLockError::Error(source)) => Err(fail(store, source)),
    }
}

/// Where the lock lies.
pub(super) const LOCK: &str = "state/lock";

/// `holder` holds a shared lock for an instant; nobody is turned away for that.
const GRACE: TimeDelta = TimeDelta::milliseconds(100);

/// How often a run that waits looks again.
const PAUSE: TimeDelta = TimeDelta::seconds(1);

/// Other files of the lake are replaced; this one must stay the same file for as long as the lake
/// lives, or two runs could each lock their own.
fn open(store: &Store) -> Result<File> {
    store.create_folder("state")?;
    store.open_to_lock(LOCK, &steps()).map_err(|source| fail(store, source))
}

fn try_lock(store: &Store, file: &File) -> Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(source)) => Err(fail(store, source)),
    }
}

fn write_holder(mut file: &File, holder: &Holder) -> io::Result<()> {
    let steps = steps();
    steps.change("taken")?;
    file.set_len(0)?;
    let mut bytes = serde_json::to_vec(holder)?;
    bytes.push(b'\n');
    steps.write("bytes", &bytes, |bytes| file.write_all(bytes))?;
    steps.reach("done");
    Ok(())
}

fn steps() -> Steps {
    Steps::new(|| LOCK.to_owned())
}

/// Whatever cannot be read as a holder (empty, half written, from another version) names nobody.
fn read_holder(store: &Store) -> Option<Holder> {
    serde_json::from_slice(&store.read(LOCK).ok()?).ok()
}

fn fail(store: &Store, source: io::Error) -> Error {
    Error::Lock { path: store.path(LOCK), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::clock::ManualClock;
    use crate::commit::testing::at;
    use crate::commit::testing::lake;
    use crate::commit::testing::run;
    use crate::error::Hint;
    use std::io::BufRead;
    use std::io::BufReader;

    fn by(number: u64, command: &str) -> Holder {
        Holder {
            pid: 4711,
            host: "etl-1".to_owned(),
            run: run(number),
            command: command.to_owned(),
            job: "agency-nightly".to_owned(),
            since: at(0),
        }
    }

    #[tokio::test]
    async fn a_second_run_is_refused_and_told_who_holds_the_lake() {
        let (_folder, store) = lake();
        let clock = std::sync::Arc::new(ManualClock::new(at(0)));
        let _lock = Lock::acquire(&store, &by(1, "sync"), None, clock.clone()).await.unwrap();
        let error =
            Lock::acquire(&store, &by(2, "backfill"), None, clock.clone()).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "another run holds the lake: `sync` of job `agency-nightly`, process 4711 on etl-1, \
             since 2026-03-01 02:00:00 UTC"
        );
        assert!(error.hint().unwrap().contains("--lock-wait"));
        assert_eq!(holder(&store, at(0)).unwrap(), Some(by(1, "sync")));
    }

    #[tokio::test]
    async fn the_lake_is_free_again_when_the_lock_is_dropped() {
        let (_folder, store) = lake();
        let clock = std::sync::Arc::new(ManualClock::new(at(0)));
        assert_eq!(holder(&store, at(0)).unwrap(), None);
        drop(Lock::acquire(&store, &by(1, "sync"), None, clock.clone()).await.unwrap());
        assert_eq!(holder(&store, at(0)).unwrap(), None);
        let lock = Lock::acquire(&store, &by(2, "sync"), None, clock.clone()).await.unwrap();
        assert!(!lock.is_left());
        assert_eq!(holder(&store, at(0)).unwrap(), Some(by(2, "sync")));
    }

    #[tokio::test]
    async fn what_a_dead_holder_left_in_the_file_blocks_nobody() {
        let (_folder, store) = lake();
        let clock = std::sync::Arc::new(ManualClock::new(at(0)));
        let stale = serde_json::to_vec(&by(1, "a command with a very long name")).unwrap();
        for stale in [&stale[..], b"{\"pid\":", b""] {
            store.write(LOCK, stale).unwrap();
            assert_eq!(holder(&store, at(0)).unwrap(), None);
            let lock = Lock::acquire(&store, &by(2, "sync"), None, clock.clone()).await.unwrap();
            assert_eq!(holder(&store, at(0)).unwrap(), Some(by(2, "sync")));
            assert_eq!(lock.is_left(), !stale.is_empty());
        }
    }

    #[tokio::test]
    async fn a_run_that_waits_gets_the_lake_when_it_comes_free_or_gives_up_in_time() {
        let (_folder, store) = lake();
        let clock = std::sync::Arc::new(ManualClock::new(at(0)));
        let lock = Lock::acquire(&store, &by(1, "sync"), None, clock.clone()).await.unwrap();
        let wait = Some(TimeDelta::minutes(30));
        let second = by(2, "sync");
        let refused = Lock::acquire(&store, &second, wait, clock.clone()).await;
        assert!(matches!(refused, Err(Error::Held { .. })));
        assert_eq!(clock.now() - at(0), TimeDelta::minutes(30));

        let release = async {
            clock.sleep_until(clock.now() + TimeDelta::seconds(5)).await;
            drop(lock);
        };
        let (acquired, ()) =
            tokio::join!(Lock::acquire(&store, &second, wait, clock.clone()), release);
        assert!(acquired.is_ok());
    }

    #[tokio::test]
    async fn somebody_looking_who_holds_the_lake_turns_nobody_away() {
        let (_folder, store) = lake();
        let clock = std::sync::Arc::new(ManualClock::new(at(0)));
        store.write(LOCK, b"").unwrap();
        let looking = File::open(store.path(LOCK)).unwrap();
        looking.try_lock_shared().unwrap();
        let look_away = async {
            tokio::task::yield_now().await;
            drop(looking);
        };
        let first = by(1, "sync");
        let (acquired, ()) =
            tokio::join!(Lock::acquire(&store, &first, None, clock.clone()), look_away);
        assert!(acquired.is_ok());
    }

    #[tokio::test]
    async fn the_lock_of_a_process_that_is_killed_dies_with_it() {
        let (_folder, store) = lake();
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--nocapture", "--exact"])
            .arg("commit::lock::tests::holds_the_lake_in_the_working_folder")
            .current_dir(store.root())
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines().map_while(io::Result::ok);
        assert!(said.into_iter().any(|line| line.contains(HOLDS)), "the child took no lock");

        let clock = std::sync::Arc::new(ManualClock::new(at(0)));
        let refused = Lock::acquire(&store, &by(2, "sync"), None, clock.clone()).await;
        assert!(matches!(refused, Err(Error::Held { holder: Some(_) })));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(store.read(LOCK).unwrap().starts_with(b"{"), "a dead holder's name is left");
        Lock::acquire(&store, &by(2, "sync"), None, clock.clone()).await.unwrap();
    }

    const HOLDS: &str = "holds the lake";

    #[tokio::test]
    #[ignore = "the other process of the test above"]
    async fn holds_the_lake_in_the_working_folder() {
        let store = Store::open(".");
        if store.exists("Cargo.toml").unwrap() {
            return;
        }
        let clock = std::sync::Arc::new(ManualClock::new(at(0)));
        let _lock = Lock::acquire(&store, &by(1, "sync"), None, clock.clone()).await.unwrap();
        writeln!(io::stdout(), "{HOLDS}").unwrap();
        // Until killed: nobody writes there.
        io::stdin().lines().for_each(drop);
    }
}
