//! Opens a lake for a run that writes: takes it, cleans up after runs that died, and reads where
//! the last commit left off.

use std::collections::BTreeMap;
use std::path::Path;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;

use super::Error;
use super::Result;
use super::event::Event;
use super::event::Observer;
use super::settings;
use crate::archive;
use crate::archive::SegmentName;
use crate::checkpoint::OpenWalk;
use crate::clock::SharedClock;
use crate::commit;
use crate::commit::Commit;
use crate::commit::Holder;
use crate::commit::Key;
use crate::commit::Lock;
use crate::commit::RunState;
use crate::config::Job;
use crate::ids::RunId;
use crate::ids::Seq;
use crate::ids::SourceName;
use crate::store::Store;

/// By how much a clock may be set back between two runs before what one of them began is no longer found.
const CLOCK_MARGIN: TimeDelta = TimeDelta::days(7);

/// A lake that a run holds.
#[derive(Debug)]
pub(super) struct Lake {
    pub(super) store: Store,
    pub(super) holder: Holder,
    /// The newest commit.
    pub(super) head: Option<Commit>,
    /// The key behind `email_key` and `phone_key`.
    pub(super) key: Key,
    pub(super) lock: Lock,
}

impl Lake {
    /// Takes the lake of `job` for a run of `command`.
    pub(super) async fn open(
        job: &Job,
        command: &str,
        lock_wait: Option<TimeDelta>,
        clock: &SharedClock,
        observer: &dyn Observer,
    ) -> Result<Self> {
        let store = settings::lake(job)?;
        store.create_folder("")?;
        let now = clock.now();
        let holder = holder(job, command, now);
        let lock = Lock::acquire(&store, &holder, lock_wait, clock.clone()).await?;
        clean_up(&store, &holder.run, lock.is_left(), now, observer)?;
        commit::begin_run(&store, &holder)?;
        let head = commit::latest(&store)?;
        commit::refuse_losses(&store, head.as_ref())?;
        if let Some(head) = &head {
            commit::derive(&store, head)?;
        }
        let known = head.as_ref().map(|head| head.key_fingerprint.as_str());
        let key = commit::identity_key(&store, given_key(job)?.as_deref(), known)?;
        Ok(Self { store, holder, head, key, lock })
    }

    /// Returns the number of the newest commit, 0 where there is none.
    pub(super) fn seq(&self) -> Seq {
        self.head.as_ref().map_or(Seq(0), |head| head.seq)
    }

    /// Returns the walks of all sources, other jobs' too, that were opened since the last commit: a
    /// run that died left them, and no commit lists them. The next commit must.
    pub(super) fn orphans(&self) -> Result<BTreeMap<SourceName, Vec<OpenWalk>>> {
        let mut orphans = BTreeMap::new();
        for name in self.store.list("archive")? {
            let Ok(source) = name.parse::<SourceName>() else { continue };
            let walks = self.orphans_of(&source)?;
            if !walks.is_empty() {
                orphans.insert(source, walks);
            }
        }
        Ok(orphans)
    }

    fn orphans_of(&self, source: &SourceName) -> Result<Vec<OpenWalk>> {
        let mut orphans: Vec<OpenWalk> = Vec::new();
        for segment in self.segments_since_the_head(source)? {
            let is_new = segment.walk.opened_under() == Some(self.seq());
            if !is_new || orphans.iter().any(|orphan| orphan.walk.id == segment.walk) {
                continue;
            }
            if let Some(walk) = archive::opening_of(&self.store, &segment.path)? {
                orphans.push(OpenWalk {
                    walk,
                    loaded_pages: 0,
                    stated_rows: None,
                    advanced_at: None,
                });
            }
        }
        orphans.sort_by_key(|orphan| orphan.walk.opened_at);
        Ok(orphans)
    }

    /// Lists the segments among which those of walks opened since the head are: a walk lies under the day on
    /// which it was opened, which no clock that was right puts before the commit.
    ///
    /// What was opened under a clock set back by more than the margin is not found. No commit lists it then,
    /// as none lists a walk that grew too old: what it read is not covered, and is read again. Its
    /// pages are asked for once more, and nothing is lost.
    fn segments_since_the_head(&self, source: &SourceName) -> Result<Vec<SegmentName>> {
        let Some(head) = &self.head else { return Ok(archive::segments(&self.store, source)?) };
        // A head from the future, of a clock that ran ahead, would hide what was opened today.
        let since = head.created_at.min(self.holder.since) - CLOCK_MARGIN;
        Ok(archive::segments_since(&self.store, source, since.date_naive())?)
    }

    /// Records how the run ended, and forgets runs of long ago.
    pub(super) fn close(
        self,
        exit_code: i32,
        summary: serde_json::Value,
        now: DateTime<Utc>,
    ) -> Result<()> {
        commit::end_run(&self.store, &self.holder, exit_code, summary, now)?;
        commit::prune_runs(&self.store, now)?;
        Ok(())
    }
}

/// Returns who a new run is, for the lock and its record.
pub(super) fn holder(job: &Job, command: &str, now: DateTime<Utc>) -> Holder {
    Holder {
        pid: std::process::id(),
        host: host(),
        run: RunId::new(now),
        command: command.to_owned(),
        job: job.name.clone(),
        since: now,
    }
}

/// Removes what runs left behind that ended without a word. One that died may have no record yet: that
/// the lock names it still tells of it.
fn clean_up(
    store: &Store,
    run: &RunId,
    is_left: bool,
    now: DateTime<Utc>,
    observer: &dyn Observer,
) -> Result<()> {
    let dead = commit::dead_runs(store, run, now)?;
    let found = is_left || !dead.is_empty();
    for record in dead {
        commit::discard(store, &record.run)?;
        observer.observe(&Event::CleanedUp { run: record.run.to_string() });
        commit::bury_run(store, record, now)?;
    }
    if found {
        commit::sweep(store)?;
    }
    if store.is_bucket() {
        remove_scratch_of_dead(store)?;
    }
    Ok(())
}

/// Removes what killed processes of this machine have on its scratch disk. Their objects may be named by a
/// commit that is still to arrive, and are given a day; staged leads are nobody's any more.
fn remove_scratch_of_dead(store: &Store) -> Result<()> {
    let host = host();
    let is_gone = |pid: u32| {
        let processes = Path::new("/proc");
        processes.join("self").exists() && !processes.join(pid.to_string()).exists()
    };
    for record in commit::runs(store)? {
        let is_running = record.state == RunState::Running && record.host == host;
        if is_running && is_gone(record.pid) {
            store.remove_scratch(&record.run)?;
        }
    }
    Ok(())
}

/// Returns the key that the job gives, where it does.
pub(super) fn given_key(job: &Job) -> Result<Option<Vec<u8>>> {
    use secrecy::ExposeSecret;
    let Some(reference) = &job.privacy.key else { return Ok(None) };
    let key = reference.read().map_err(Error::Config)?;
    Ok(Some(key.expose_secret().as_bytes().to_vec()))
}

fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "this machine".to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::Closing;
    use crate::archive::Writer;
    use crate::clock::ManualClock;
    use crate::commit::testing::lake;
    use crate::commit::testing::seq_commit;
    use crate::ids::WalkId;
    use crate::record::Reason;
    use crate::record::Scope;
    use crate::record::Walk;
    use std::sync::Arc;

    /// A lake that a run holds which began at `now`.
    async fn held(store: &Store, head: Option<Commit>, now: DateTime<Utc>) -> Lake {
        let holder = Holder {
            pid: 1,
            host: "here".to_owned(),
            run: RunId::new(now),
            command: "sync".to_owned(),
            job: "nightly".to_owned(),
            since: now,
        };
        let clock: SharedClock = Arc::new(ManualClock::new(now));
        let lock = Lock::acquire(store, &holder, None, clock).await.unwrap();
        let key = commit::identity_key(store, None, None).unwrap();
        Lake { store: store.clone(), holder, head, key, lock }
    }

    /// Leaves a walk behind that was opened under a commit, as a run that died does.
    async fn leave(store: &Store, source: &str, under: Seq, opened_at: DateTime<Utc>) -> WalkId {
        let walk = Walk {
            id: WalkId::new(under),
            scope: Scope {
                source: source.parse().unwrap(),
                stream: "leads".to_owned(),
                partition: "profile:1".to_owned(),
                query: String::new(),
                list: String::new(),
            },
            window: None,
            page_size: 10,
            opened_at,
            reason: Reason::NewTime,
            down_to: None,
        };
        let writer = Writer::start(store.clone(), RunId::new(opened_at));
        writer.open(&walk, 0, 0).await.unwrap();
        writer.close(&walk.id, Closing::default(), opened_at).await.unwrap();
        walk.id
    }

    fn found(lake: &Lake) -> Vec<WalkId> {
        lake.orphans().unwrap().into_values().flatten().map(|open| open.walk.id).collect()
    }

    #[tokio::test]
    async fn walks_opened_since_the_last_commit_are_found_though_a_clock_was_days_off() {
        let (_folder, store) = lake();
        let head = seq_commit(&store, 4);
        let day = |days| head.created_at + TimeDelta::days(days);
        leave(&store, "acme", Seq(3), day(1)).await;
        let late = leave(&store, "acme", Seq(4), day(40)).await;
        let early = leave(&store, "acme", Seq(4), day(-7)).await;
        let other = leave(&store, "other", Seq(4), day(0)).await;
        let forgotten = leave(&store, "acme", Seq(4), day(-8)).await;
        let lake = held(&store, Some(head.clone()), day(60)).await;
        assert_eq!(found(&lake), [early.clone(), late.clone(), other.clone()]);
        // The commit was made under a clock that ran ahead.
        let head = Commit { created_at: day(90), ..head.clone() };
        let holder = Holder { since: day(45), ..lake.holder.clone() };
        let lake = Lake { head: Some(head), holder, ..lake };
        assert_eq!(found(&lake), std::slice::from_ref(&late));
        let holder = Holder { since: day(-1), ..lake.holder.clone() };
        let lake = Lake { holder, ..lake };
        assert_eq!(found(&lake), [forgotten, early, late, other]);
    }

    #[tokio::test]
    async fn without_a_commit_all_walks_are_found() {
        let (_folder, store) = lake();
        let now = DateTime::UNIX_EPOCH + TimeDelta::days(9_000);
        let opened = leave(&store, "acme", Seq(0), DateTime::UNIX_EPOCH).await;
        assert_eq!(found(&held(&store, None, now).await), [opened]);
    }
}
