//! How one run at a time holds a lake in a bucket: by a lease that it renews.
//!
//! `state/lock` names the holder and until when it holds; only who read it last can replace it. A lease
//! that is not renewed lapses, by the clock of whoever wants the lake, or by watching that nothing moves
//! for as long as a lease lasts. A run that slept past its lease finds another's name there before it
//! commits, or, at the last, its number taken.

use std::sync::mpsc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use serde::Deserialize;
use serde::Serialize;
use tokio::sync::watch;
use tracing::warn;

use crate::clock::Clock;
use crate::clock::SharedClock;
use crate::commit::Error;
use crate::commit::Holder;
use crate::commit::Result;
use crate::commit::lock::LOCK;
use crate::ids::RunId;
use crate::store::Store;

/// How long a lease lasts that is not renewed.
const LASTS: TimeDelta = TimeDelta::seconds(60);

/// How often it is renewed.
const BEAT: Duration = Duration::from_secs(15);

/// By how much two clocks may differ before one takes the other's lease for lapsed.
const MARGIN: TimeDelta = TimeDelta::seconds(60);

/// A lease, renewed until this is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    store: Store,
    run: RunId,
    /// Dropped, it ends the thread that renews.
    renewing: Option<mpsc::Sender<()>>,
    /// Turns true where another run has taken the lake.
    is_lost: watch::Receiver<bool>,
}

/// What stands in `state/lock`; without a holder the lake is free.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Stored {
    #[serde(flatten)]
    holder: Option<Holder>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<DateTime<Utc>>,
}

/// Tries to take a lake, time and again, and watches it meanwhile.
#[derive(Debug, Default)]
pub(super) struct Attempt {
    /// What stood there, and since when nothing else did.
    seen: Option<(Bytes, DateTime<Utc>)>,
}

impl Attempt {
    /// Takes the lake for `holder` where it is free or its lease has lapsed, and tells whether it had;
    /// `None` where another run holds it.
    pub(super) fn take(
        &mut self,
        store: &Store,
        holder: &Holder,
        clock: &SharedClock,
    ) -> Result<Option<(Lease, bool)>> {
        let now = clock.now();
        let was_left = store.update(LOCK, |bytes| {
            let bytes = bytes.unwrap_or_default();
            let stored = read(&bytes);
            // Where the answer to a write was lost, it is this very run that holds the lake.
            let other = stored.holder.as_ref().filter(|held| held.run != holder.run);
            if other.is_some() && !stored.has_lapsed(now) && !self.is_still(&bytes, now) {
                return Ok::<_, Error>((None, None));
            }
            Ok((Some(encode(Some(holder), now)?), Some(other.is_some())))
        })?;
        Ok(was_left.map(|was_left| (Lease::begin(store, holder, clock, BEAT), was_left)))
    }

    /// Tells whether nothing else has stood there for as long as a lease lasts.
    fn is_still(&mut self, bytes: &Bytes, now: DateTime<Utc>) -> bool {
        match &self.seen {
            Some((seen, since)) if seen == bytes => now - *since > LASTS,
            _ => {
                self.seen = Some((bytes.clone(), now));
                false
            }
        }
    }
}

impl Lease {
    fn begin(store: &Store, holder: &Holder, clock: &SharedClock, beat: Duration) -> Self {
        let (renewing, ended) = mpsc::channel();
        let (lost, is_lost) = watch::channel(false);
        let (kept, held_by, clock) = (store.clone(), holder.clone(), clock.clone());
        thread::spawn(move || {
            while ended.recv_timeout(beat) == Err(RecvTimeoutError::Timeout) {
                match renew(&kept, &held_by, &*clock) {
                    Ok(true) => {}
                    Ok(false) => {
                        // Nobody may be interested any more.
                        let _ = lost.send(true);
                        return;
                    }
                    Err(error) => warn!(%error, "failed to renew the lease of the lake"),
                }
            }
        });
        let (store, run) = (store.clone(), holder.run.clone());
        Self { store, run, renewing: Some(renewing), is_lost }
    }

    /// Returns what waits until another run has taken the lake.
    pub(super) fn lost(&self) -> watch::Receiver<bool> {
        self.is_lost.clone()
    }
}

impl Drop for Lease {
    /// Frees the lake. Where that fails, the lease lapses.
    fn drop(&mut self) {
        drop(self.renewing.take());
        let freed = self.store.update(LOCK, |bytes| {
            let is_ours = is_by(&bytes.unwrap_or_default(), &self.run);
            Ok::<_, Error>((is_ours.then(|| encode(None, DateTime::UNIX_EPOCH)).transpose()?, ()))
        });
        if let Err(error) = freed {
            warn!(%error, "failed to free the lake: its lease lapses in a minute or two");
        }
    }
}

fn renew(store: &Store, holder: &Holder, clock: &dyn Clock) -> Result<bool> {
    store.update(LOCK, |bytes| {
        let is_ours = is_by(&bytes.unwrap_or_default(), &holder.run);
        // It may be long since the last try.
        Ok((is_ours.then(|| encode(Some(holder), clock.now())).transpose()?, is_ours))
    })
}

/// Fails where another run than `run` has taken the lake, whether or not it has let go of it since. A lake
/// that nobody ever took is no reason.
pub(super) fn refuse_lost(store: &Store, run: &RunId) -> Result<()> {
    let Some(bytes) = store.read_if_exists(LOCK)? else { return Ok(()) };
    match read(&bytes).holder {
        Some(holder) if holder.run == *run => Ok(()),
        holder => Err(Error::LeaseLost { holder: holder.map(Box::new) }),
    }
}

/// Tells whether a run holds the lake still.
pub(super) fn is_held(store: &Store, run: &RunId) -> Result<bool> {
    Ok(is_by(&store.read_if_exists(LOCK)?.unwrap_or_default(), run))
}

/// Returns who holds the lake at `now`.
pub(super) fn holder(store: &Store, now: DateTime<Utc>) -> Result<Option<Holder>> {
    let stored = read(&store.read_if_exists(LOCK)?.unwrap_or_default());
    let has_lapsed = stored.has_lapsed(now);
    Ok(stored.holder.filter(|_| !has_lapsed))
}

impl Stored {
    fn has_lapsed(&self, now: DateTime<Utc>) -> bool {
        self.until.is_none_or(|until| now - until > MARGIN)
    }
}

fn is_by(bytes: &[u8], run: &RunId) -> bool {
    read(bytes).holder.is_some_and(|holder| holder.run == *run)
}

/// Whatever cannot be read as a lease holds nobody up, as a lock of a disk does not.
fn read(bytes: &[u8]) -> Stored {
    serde_json::from_slice(bytes).unwrap_or_default()
}

fn encode(holder: Option<&Holder>, now: DateTime<Utc>) -> Result<Vec<u8>> {
    let stored = Stored { holder: holder.cloned(), until: holder.map(|_| now + LASTS) };
    serde_json::to_vec(&stored).map_err(|source| Error::Encode { what: "lock", source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::commit::Lock;
    use crate::commit::testing::at;
    use crate::commit::testing::run;
    use crate::commit::testing::seq_commit;
    use std::sync::Arc;

    fn by(number: u64) -> Holder {
        Holder {
            pid: 1,
            host: "etl-1".to_owned(),
            run: run(number),
            command: "sync".to_owned(),
            job: "nightly".to_owned(),
            since: at(0),
        }
    }

    async fn acquire(
        store: &Store,
        number: u64,
        wait: Option<TimeDelta>,
        clock: &Arc<ManualClock>,
    ) -> Result<Lock> {
        Lock::acquire(store, &by(number), wait, clock.clone()).await
    }

    #[tokio::test]
    async fn one_run_holds_a_bucket_until_it_lets_go() {
        let (store, clock) = (Store::in_memory(), Arc::new(ManualClock::new(at(0))));
        let lock = acquire(&store, 1, None, &clock).await.unwrap();
        assert!(!lock.is_left());
        assert_eq!(holder(&store, at(0)).unwrap(), Some(by(1)));
        let refused = acquire(&store, 2, None, &clock).await;
        assert!(matches!(refused, Err(Error::Held { holder: Some(held) }) if *held == by(1)));
        drop(lock);
        assert_eq!(holder(&store, at(0)).unwrap(), None);
        assert!(!acquire(&store, 2, None, &clock).await.unwrap().is_left());
    }

    #[tokio::test]
    async fn a_lease_that_is_not_renewed_lapses() {
        let (store, clock) = (Store::in_memory(), Arc::new(ManualClock::new(at(0))));
        let asleep = acquire(&store, 1, None, &clock).await.unwrap();
        clock.advance(LASTS + MARGIN - TimeDelta::seconds(1));
        assert!(acquire(&store, 2, None, &clock).await.is_err());
        clock.advance(TimeDelta::seconds(2));
        assert_eq!(holder(&store, clock.now()).unwrap(), None);
        let lock = acquire(&store, 2, None, &clock).await.unwrap();
        assert!(lock.is_left());
        // The one that slept neither renews nor frees what is another's now, and commits nothing.
        assert!(!renew(&store, &by(1), &*clock).unwrap());
        assert!(!is_held(&store, &run(1)).unwrap() && is_held(&store, &run(2)).unwrap());
        assert!(refuse_lost(&store, &run(1)).is_err() && refuse_lost(&store, &run(2)).is_ok());
        let refused = crate::commit::write(&store, &seq_commit(&store, 1));
        assert!(matches!(refused, Err(Error::LeaseLost { holder: Some(_) })), "{refused:?}");
        assert_eq!(store.list("commits").unwrap(), [""; 0]);
        drop(asleep);
        assert_eq!(holder(&store, clock.now()).unwrap(), Some(by(2)));
        drop(lock);
        assert!(matches!(refuse_lost(&store, &run(1)), Err(Error::LeaseLost { holder: None })));
    }

    #[tokio::test]
    async fn one_whose_lease_another_has_taken_is_told() {
        let (store, clock) = (Store::in_memory(), Arc::new(ManualClock::new(at(0))));
        let shared: SharedClock = clock.clone();
        store.write(LOCK, &encode(Some(&by(1)), at(0)).unwrap()).unwrap();
        let lease = Lease::begin(&store, &by(1), &shared, Duration::from_millis(1));
        let mut lost = lease.lost();
        assert!(!*lost.borrow());
        store.write(LOCK, &encode(Some(&by(2)), at(0)).unwrap()).unwrap();
        assert!(*lost.wait_for(|is_lost| *is_lost).await.unwrap());
        drop(lease);
        assert_eq!(holder(&store, at(0)).unwrap(), Some(by(2)));
    }

    #[tokio::test]
    async fn one_that_waits_takes_a_lease_that_does_not_move_whatever_its_clock_says() {
        let (store, clock) = (Store::in_memory(), Arc::new(ManualClock::new(at(0))));
        // Its clock is hours ahead.
        store.write(LOCK, &encode(Some(&by(1)), at(5)).unwrap()).unwrap();
        let lock = acquire(&store, 2, Some(TimeDelta::minutes(5)), &clock).await.unwrap();
        assert!(lock.is_left() && clock.now() - at(0) <= LASTS + TimeDelta::seconds(2));
    }

    #[tokio::test]
    async fn a_run_is_not_kept_out_by_its_own_lease_of_which_the_answer_was_lost() {
        let (store, clock) = (Store::in_memory(), Arc::new(ManualClock::new(at(0))));
        store.write(LOCK, &encode(Some(&by(1)), at(0)).unwrap()).unwrap();
        assert!(acquire(&store, 2, None, &clock).await.is_err());
        assert!(!acquire(&store, 1, None, &clock).await.unwrap().is_left());
    }

    #[tokio::test]
    async fn what_is_no_lease_holds_nobody_up() {
        let (store, clock) = (Store::in_memory(), Arc::new(ManualClock::new(at(0))));
        for bytes in [&b""[..], b"{}", b"{\"pid\":", b"{\"pid\":1}"] {
            store.write(LOCK, bytes).unwrap();
            assert_eq!(holder(&store, at(0)).unwrap(), None);
            drop(acquire(&store, 1, None, &clock).await.unwrap());
        }
    }
}
