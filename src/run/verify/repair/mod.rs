//! Mends what a scan has found, holding the lake.
//!
//! Nothing that a commit names is written over, unless the bytes that come out are those it names.
//! What is mended otherwise is a commit of its own. Where it cannot be proven that a part made again
//! holds what the lost one did, what was read of its time is withdrawn, so that the next run reads it
//! again, and loaders take the whole snapshot. Damaged files are set aside in `damaged/`.
//!
//! [`state`] mends what stands beside the truth, [`losses`] notes what is lost for good, [`parts`] puts back
//! parts and CSV files, of rows that [`rebuild`] makes again, [`draft`] is the commit of all that, and
//! [`shown`] what readers see of it.

mod draft;
mod losses;
mod parts;
mod rebuild;
mod shown;
mod state;

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::TimeDelta;

use super::finding::Kind;
use super::finding::Repaired;
use super::scan::Scan;
use crate::clock::SharedClock;
use crate::commit;
use crate::commit::Commit;
use crate::commit::Holder;
use crate::commit::Key;
use crate::commit::Lock;
use crate::commit::Losses;
use crate::config::Job;
use crate::config::SourceSettings;
use crate::ids::Seq;
use crate::ids::SourceName;
use crate::run::Error;
use crate::run::Result;
use crate::run::chain;
use crate::run::lake;
use crate::run::settings;
use crate::run::stop::Stop;
use crate::store::Store;
use draft::Draft;

/// What was done, and the commit that was written.
pub(super) type Mended = (Vec<Repaired>, Option<Seq>);

/// A repair that holds its lake.
pub(super) struct Repairer {
    job: Arc<Job>,
    store: Store,
    clock: SharedClock,
    holder: Holder,
    stop: Stop,
    done: Vec<Repaired>,
    _lock: Lock,
}

impl Repairer {
    /// Takes the lake of `job`.
    pub(super) async fn open(
        job: Arc<Job>,
        lock_wait: Option<TimeDelta>,
        stop: Stop,
        clock: SharedClock,
    ) -> Result<Self> {
        let store = settings::lake(&job)?;
        store.create_folder("")?;
        let holder = lake::holder(&job, "verify", clock.now());
        let lock = Lock::acquire(&store, &holder, lock_wait, clock.clone()).await?;
        commit::begin_run(&store, &holder)?;
        Ok(Self { job, store, clock, holder, stop, done: Vec::new(), _lock: lock })
    }

    /// Mends what can be mended, and records the run. Stops where it is asked to before it has begun to
    /// mend; what it has begun it ends.
    pub(super) fn mend(mut self) -> Result<Mended> {
        let mended = self.mend_all();
        let now = self.clock.now();
        self.store.remove_scratch(&self.holder.run)?;
        if matches!(&mended, Err(Error::Commit(error)) if error.is_uncertain()) {
            return mended.map(|_| Mended::default());
        }
        let (code, summary) = match &mended {
            Ok(committed) => (0, serde_json::json!({ "repairs": self.done, "commit": committed })),
            Err(error) => {
                // Where that cannot be done, the next run does it; the first error says more.
                let _ = commit::discard(&self.store, &self.holder.run);
                let code = match error {
                    Error::Stopped(ending) => ending.exit_code(),
                    _ => 1,
                };
                (code, serde_json::json!({ "error": chain(error) }))
            }
        };
        commit::end_run(&self.store, &self.holder, code, summary, now)?;
        Ok((self.done, mended?))
    }

    fn mend_all(&mut self) -> Result<Option<Seq>> {
        let (store, job, clock) = (self.store.clone(), Arc::clone(&self.job), self.clock.clone());
        let run = self.holder.run.clone();
        let stop = self.stop.clone();
        let scan = Scan::make(&store, &job, &clock, Some(&run), &stop)?;
        if let Some(newer) = scan.findings.iter().find(|found| found.kind == Kind::CommitNewer) {
            // Says which version it takes; nothing of such a lake is ours to judge.
            return Err(self.refusal_of(&newer.path));
        }
        self.refuse_newer_state()?;
        stop.check()?;
        self.mend_state(&scan)?;
        let mut draft = Draft::default();
        self.note_losses(&scan, &mut draft)?;
        let base = scan.head().cloned();
        let next = scan.newest.next();
        if let Some(base) = &base {
            self.mend_parts(&scan, base, next, &mut draft)?;
        }
        let is_stepped_back = base.as_ref().map_or(Seq(0), |base| base.seq) < scan.newest;
        if is_stepped_back {
            draft.cut_at(next);
            self.set_aside_beyond(&scan)?;
        }
        let changes = !draft.sources.is_empty() || draft.cut.is_some();
        let committed = changes.then(|| self.commit(base.clone(), next, &mut draft)).transpose()?;
        let Some(head) = commit::latest(&store)? else { return Ok(None) };
        if let Some(last) = draft.ends {
            commit::end_up_to(&store, last, &head, &format!("damaged/{run}"))?;
        }
        self.show_again(&head, &draft.left)?;
        Ok(committed)
    }

    /// What a later leadpipe keeps beside its commits is not begun anew.
    fn refuse_newer_state(&self) -> Result<()> {
        let read = [commit::ended(&self.store).err(), Losses::read(&self.store).err()];
        let is_newer = |error: &commit::Error| matches!(error, commit::Error::NewerVersion { .. });
        match read.into_iter().flatten().find(is_newer) {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    fn refusal_of(&self, path: &str) -> Error {
        let seq = path.rsplit('/').next().and_then(|name| name.strip_suffix(".json")?.parse().ok());
        match commit::read(&self.store, Seq(seq.unwrap_or_default())) {
            Err(error) => error.into(),
            Ok(_) => Error::Bug("a commit of a later version was read"),
        }
    }

    fn did(&mut self, path: &str, how: impl Into<String>) {
        self.done.push(Repaired { path: path.to_owned(), how: how.into() });
    }

    /// Moves a file out of the way, where it is there.
    fn set_aside(&self, path: &str) -> Result<()> {
        if self.store.exists(path)? {
            let aside = format!("damaged/{}/{path}", self.holder.run);
            self.store.rename(path, &aside)?;
        }
        Ok(())
    }

    fn settings_of(&self, name: &SourceName) -> Option<&SourceSettings> {
        self.job.sources.iter().find(|settings| settings.name == *name)
    }

    fn key(&self, base: Option<&Commit>) -> Result<Key> {
        let given = lake::given_key(&self.job)?;
        let known = base.map(|base| base.key_fingerprint.as_str());
        Ok(commit::identity_key(&self.store, given.as_deref(), known)?)
    }

    /// Sets aside what commits wrote that are lost: it is read from the archive again.
    fn set_aside_beyond(&mut self, scan: &Scan<'_>) -> Result<()> {
        let base = scan.head().map_or(Seq(0), |head| head.seq);
        let path = commit::path_of(scan.newest);
        self.set_aside(&path)?;
        let mut named = BTreeSet::new();
        for commit in scan.commits.values() {
            named.extend(commit.part_paths().chain(commit.log_paths()).map(str::to_owned));
        }
        for folder in ["parts", "csv", "changes", "rejects"] {
            for path in self.store.list_all(folder)? {
                if seq_in(&path) > base && !named.contains(&path) {
                    self.set_aside(&path)?;
                }
            }
        }
        let how = match base.0 {
            0 => "no commit can be read: what was archived of late is loaded by the next sync, the rest is \
                  read again".to_owned(),
            _ => format!("gone back to commit {base}; what it lacks is loaded by the next sync"),
        };
        self.did(&path, how);
        Ok(())
    }
}

/// Returns the number of the commit that a file's name begins with.
fn seq_in(path: &str) -> Seq {
    let name = path.rsplit('/').next().unwrap_or(path);
    let digits = name.split(['-', '.']).next().unwrap_or_default();
    Seq(digits.parse().unwrap_or_default())
}
