//! The commit: one file that makes parts, changes and checkpoint visible together.
//!
//! A lake's truth is `commits/<seq>.json`, written put-if-absent: whoever loses the race for a
//! number changes nothing. What else a reader sees (`snapshots/`, `latest`, `checkpoint.json`) is
//! made from the newest commit by [`derive()`] and made again where it lags. [`keep()`] ends old
//! snapshots and removes what only ended ones name; [`Lock`] lets one run at a time hold the lake.
//! Everything here blocks, except waiting for the lock; nothing here reads the clock.

mod derive;
mod discard;
mod error;
mod files;
mod keep;
mod key;
mod lease;
mod lock;
mod losses;
mod runs;
mod segments;
mod stored;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::BTreeMap;

use chrono::DateTime;
use chrono::Utc;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::checkpoint::Checkpoint;
use crate::config::Format;
use crate::config::Partitioning;
use crate::ids::ProviderId;
use crate::ids::RunId;
use crate::ids::Seq;
use crate::ids::SourceName;
use crate::schema::ChangeFile;
use crate::schema::PartFile;
use crate::schema::RejectFile;
use crate::store::Store;

pub use derive::ShownFile;
pub use derive::derive;
pub use derive::derived_that_differ;
pub use derive::newer_shown;
pub use derive::refuse_losses;
pub use derive::show_anew;
pub use derive::shown_files;
pub use derive::shown_folder;
pub use discard::discard;
pub use discard::sweep;
pub use error::Error;
pub use error::Result;
pub use files::FilesAnswer;
pub use files::LivingFile;
pub use files::SeqChanges;
pub use files::files;
pub use keep::Keep;
pub use keep::Removed;
pub use keep::end_up_to;
pub use keep::ended;
pub use keep::keep;
pub use keep::mend_ended;
pub use keep::parts_are_there;
pub use key::Key;
pub use key::identity_key;
pub use lock::Holder;
pub use lock::Lock;
pub use lock::holder;
pub use lock::is_held;
pub use losses::Loss;
pub use losses::Losses;
pub use runs::RunRecord;
pub use runs::RunState;
pub use runs::begin_run;
pub use runs::bury_run;
pub use runs::dead_runs;
pub use runs::end_run;
pub use runs::prune_runs;
pub use runs::runs;
pub use runs::runs_since;
pub use runs::unreadable_runs;
pub use segments::Segment;
pub use segments::segments_to_drop;
#[cfg(any(test, fuzzing))]
pub use stored::read_as_any;

/// What a lake holds as of one moment, and how it came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Its number: the parent's plus one, the first is 1.
    pub seq: Seq,
    /// The commit it builds on; `None` for a lake's first.
    pub parent: Option<Seq>,
    /// The run that wrote it; the names of its new files carry this id.
    pub run: RunId,
    /// The name of the job that run did.
    pub job: String,
    /// The command that run was, e.g. `sync`.
    pub command: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// The version of leadpipe that wrote it, e.g. `0.1.0`.
    pub leadpipe: String,
    /// The version of the lead schema of all its parts.
    pub schema_version: u32,
    /// The fingerprint of the key behind `email_key` and `phone_key`; see [`identity_key`].
    pub key_fingerprint: String,
    /// What it holds, by source.
    pub sources: BTreeMap<SourceName, SourceCommit>,
    /// What was read to get here.
    pub checkpoint: Checkpoint,
    /// What it changed; without rows where it changed nothing.
    pub changes: ChangeFile,
    /// Where set, changes cannot be followed over this commit by a loader that has an older one than
    /// the one named: it takes the whole snapshot.
    pub changes_from: Option<Seq>,
    /// What could not be mapped since the parent.
    pub rejects: Vec<RejectFile>,
    /// The commit whose snapshot folder shows these parts: its own number, or an older one where
    /// nothing changed since.
    pub snapshot: Seq,
    /// When the archive was last searched for segments that may go.
    pub archive_checked_at: Option<DateTime<Utc>>,
}

/// What a commit holds of one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceCommit {
    /// The platform.
    pub provider: ProviderId,
    /// The job that last wrote the source.
    pub job: String,
    /// The fingerprint of schema version and mapping settings of all its rows.
    pub mapping: String,
    /// The fingerprint of the job's `[load]` and `[privacy]`.
    pub settings: String,
    /// How its parts are cut; fixed at its first write.
    pub partition: Partitioning,
    /// The forms in which readers see it.
    pub format: Format,
    /// Rows in all its parts.
    pub rows: u64,
    /// Its living parts.
    pub parts: Vec<PartFile>,
    /// Up to when all that its job asks for is in it; `None` where some was never read.
    pub as_of: Option<DateTime<Utc>>,
    /// How far its reading got.
    pub state: SourceState,
    /// Why it is not complete, for people.
    pub why: Option<String>,
    /// Its earlier names, under which its archive may still lie.
    pub was: Vec<SourceName>,
}

/// How far the reading of a source got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SourceState {
    /// All that its job asks for was read.
    Complete,
    /// Some of it is still to be read.
    Partial,
    /// Its reading failed; its rows stay as they were.
    Failed,
    /// Only other jobs name it; this commit left it as it was.
    Kept,
    /// The job that last wrote it no longer names it; its rows stay.
    Retired,
}

impl Commit {
    /// Returns the paths of all its parts, Parquet and CSV.
    pub fn part_paths(&self) -> impl Iterator<Item = &str> {
        let parts = self.sources.values().flat_map(|source| &source.parts);
        parts.flat_map(|part| {
            let csv = part.csv.iter().map(|csv| csv.path.as_str());
            std::iter::once(part.file.path.as_str()).chain(csv)
        })
    }

    /// Returns the paths of what goes together with its commit file: changes and rejects.
    pub fn log_paths(&self) -> impl Iterator<Item = &str> {
        let rejects = self.rejects.iter().map(|rejects| rejects.file.path.as_str());
        std::iter::once(self.changes.file.path.as_str()).chain(rejects)
    }

    /// Returns why the commit must not be written, where it must not.
    fn fault(&self) -> Option<&'static str> {
        let first = self.parent.map_or(Seq(1), Seq::next);
        let wants_csv = |source: &&SourceCommit| source.format.shows_csv();
        let mut parts = self.sources.values().filter(wants_csv).flat_map(|source| &source.parts);
        if self.seq != first {
            Some("its number is not the parent's plus one")
        } else if self.snapshot > self.seq {
            Some("it names a snapshot that is newer than itself")
        } else if self.snapshot < self.seq && self.changes.rows > 0 {
            Some("it changes rows, yet names an older snapshot")
        } else if parts.any(|part| part.csv.is_none()) {
            Some("a source that readers see as CSV has a part without CSV")
        } else {
            None
        }
    }
}

/// Where the commit files lie.
const COMMITS: &str = "commits";

/// Returns where the file of a commit lies.
pub fn path_of(seq: Seq) -> String {
    format!("{COMMITS}/{seq}.json")
}

/// Returns the numbers of all commit files, ascending.
pub fn list(store: &Store) -> Result<Vec<Seq>> {
    let names = store.list(COMMITS)?;
    let mut numbers: Vec<Seq> = names.iter().filter_map(|name| seq_of(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Only names as we write them count: `1.json` would read a file that is not there.
fn seq_of(name: &str) -> Option<Seq> {
    let seq = Seq(name.strip_suffix(".json")?.parse().ok()?);
    (format!("{seq}.json") == name).then_some(seq)
}

/// Reads the newest commit, or returns `None` for a lake without one.
///
/// A newest file that cannot be read is an error, never passed over: the one before it names parts
/// that may be gone.
pub fn latest(store: &Store) -> Result<Option<Commit>> {
    list(store)?.last().map(|seq| read(store, *seq)).transpose()
}

/// Reads one commit.
pub fn read(store: &Store, seq: Seq) -> Result<Commit> {
    let path = path_of(seq);
    let bytes = store.read_if_exists(&path)?.ok_or(Error::NoCommit { seq })?;
    let commit = stored::decode(&path, &bytes)?;
    if commit.seq != seq {
        return Err(Error::Misnamed { path, seq: commit.seq });
    }
    Ok(commit)
}

/// Writes a commit, and with it makes all that it names visible.
///
/// The files it names must be durable. Returns [`Error::Taken`], and changes nothing, where another
/// run has written this number; in a bucket [`Error::LeaseLost`], where another has taken
/// the lake.
pub fn write(store: &Store, commit: &Commit) -> Result<()> {
    let seq = commit.seq;
    if let Some(reason) = commit.fault() {
        return Err(Error::Invalid { seq, reason });
    }
    let bytes = stored::encode(commit)?;
    if store.is_bucket() {
        lease::refuse_lost(store, &commit.run)?;
    }
    match store.write_if_absent(&path_of(seq), &bytes) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::Taken { seq }),
        Err(source) if store.is_bucket() => Err(Error::Uncertain { seq, source }),
        Err(error) => Err(error.into()),
    }
}

/// Writes a commit, and where that cannot be, removes what its run has written for it.
///
/// # Errors
///
/// Those of [`write()`].
pub fn write_or_discard(store: &Store, commit: &Commit) -> Result<()> {
    let written = write(store, commit);
    if let Err(error) = &written
        && (error.is_superseded() || !store.is_bucket())
    {
        discard(store, &commit.run)?;
    }
    written
}

#[cfg(test)]
mod tests {
    use super::testing::lake;
    use super::testing::seq_commit;
    use super::testing::source;
    use super::*;
    use crate::error::Hint;

    #[test]
    fn the_newest_commit_is_the_one_with_the_highest_number() {
        let (_folder, store) = lake();
        assert_eq!(latest(&store).unwrap(), None);
        for seq in 1..=3 {
            write(&store, &seq_commit(&store, seq)).unwrap();
        }
        for name in ["commits/notes.txt", "commits/000000009.json.bak", "commits/9.json"] {
            store.write(name, b"not a commit").unwrap();
        }
        assert_eq!(list(&store).unwrap(), [Seq(1), Seq(2), Seq(3)]);
        assert_eq!(latest(&store).unwrap().unwrap(), read(&store, Seq(3)).unwrap());
        assert!(matches!(read(&store, Seq(4)), Err(Error::NoCommit { seq: Seq(4) })));
    }

    #[test]
    fn the_loser_of_a_race_for_a_number_changes_nothing() {
        let (_folder, store) = lake();
        let winner = seq_commit(&store, 1);
        let loser = Commit { command: "backfill".to_owned(), ..seq_commit(&store, 1) };
        write(&store, &winner).unwrap();
        assert!(matches!(write(&store, &loser), Err(Error::Taken { seq: Seq(1) })));
        assert_eq!(latest(&store).unwrap().unwrap(), winner);
        assert_eq!(store.list(COMMITS).unwrap(), ["000000001.json"]);
    }

    #[test]
    fn of_many_that_write_a_number_at_once_one_wins() {
        let (_folder, store) = lake();
        let commits: Vec<Commit> = ["a", "b", "c", "d", "e", "f", "g", "h"]
            .map(|command| Commit { command: command.to_owned(), ..seq_commit(&store, 1) })
            .into();
        let store = &store;
        let written: Vec<bool> = std::thread::scope(|scope| {
            let writers: Vec<_> =
                commits.iter().map(|commit| scope.spawn(move || write(store, commit))).collect();
            writers.into_iter().map(|writer| writer.join().unwrap().is_ok()).collect()
        });
        let winner = written.iter().position(|written| *written).unwrap();
        assert_eq!(written.iter().filter(|written| **written).count(), 1);
        assert_eq!(latest(store).unwrap().as_ref(), Some(&commits[winner]));
    }

    #[test]
    fn a_damaged_newest_commit_is_an_error_that_names_it() {
        let (_folder, store) = lake();
        write(&store, &seq_commit(&store, 1)).unwrap();
        for damage in [&b"{\"version\":\"1\",\"seq\":2"[..], b"", b"{}"] {
            store.write("commits/000000002.json", damage).unwrap();
            let error = latest(&store).unwrap_err();
            assert!(matches!(error, Error::Damaged { .. }), "{error}");
            assert!(error.to_string().contains("commits/000000002.json"));
            assert!(error.hint().unwrap().contains("backup"));
        }
    }

    #[test]
    fn a_commit_under_another_number_is_refused() {
        let (_folder, store) = lake();
        write(&store, &seq_commit(&store, 1)).unwrap();
        let bytes = store.read("commits/000000001.json").unwrap();
        store.write("commits/000000002.json", &bytes).unwrap();
        assert!(matches!(latest(&store), Err(Error::Misnamed { seq: Seq(1), .. })));
    }

    #[test]
    fn a_commit_that_contradicts_itself_is_not_written() {
        let (_folder, store) = lake();
        let sound = seq_commit(&store, 2);
        let mut without_csv = sound.clone();
        without_csv.sources.get_mut(&source("acme")).unwrap().format = Format::Csv;
        let mut stale = Commit { snapshot: Seq(1), ..sound.clone() };
        stale.changes.rows = 1;
        let commits = [
            Commit { parent: None, ..sound.clone() },
            Commit { parent: Some(Seq(2)), ..sound.clone() },
            Commit { snapshot: Seq(3), ..sound },
            without_csv,
            stale,
        ];
        for commit in commits {
            assert!(matches!(write(&store, &commit), Err(Error::Invalid { .. })));
        }
        assert_eq!(list(&store).unwrap(), []);
    }
}
