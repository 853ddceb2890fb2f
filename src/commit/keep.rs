//! Which snapshots live on, and what goes with those that end.
//!
//! A commit's snapshot lives while the commit is among the newest or young. Once it ends, what only
//! ended commits name is removed: found in their commit files, never by listing, so that a file of
//! a run that is under way cannot be hit. `state/ended.json` holds the number up to which this is
//! done; it is written after the files are gone, so that a crash only makes the work be done again.
//! Commit file, changes and rejects stay longer, for readers that go by changes.

use std::collections::BTreeSet;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use serde::Deserialize;
use serde::Serialize;

use crate::commit::Commit;
use crate::commit::Error;
use crate::commit::Result;
use crate::commit::derive::LATEST;
use crate::commit::derive::SNAPSHOTS;
use crate::commit::derive::folder_of;
use crate::commit::derive::remove_folder;
use crate::commit::list;
use crate::commit::path_of;
use crate::commit::read;
use crate::commit::stored::decode_versioned;
use crate::ids::Seq;
use crate::store::Store;

/// How long things are kept: the job's `[keep]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// How many of the newest commits keep their snapshot; the newest one always does.
    pub snapshots: u32,
    /// The age up to which every commit keeps its snapshot.
    pub snapshot_age: TimeDelta,
    /// The age up to which commit files, changes and rejects stay.
    pub changes: TimeDelta,
}

/// What [`keep()`] removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Snapshot folders.
    pub snapshots: Vec<Seq>,
    /// Parts, Parquet and CSV, relative to the lake.
    pub parts: Vec<String>,
    /// Commit files, with their changes and rejects.
    pub commits: Vec<Seq>,
}

/// Ends snapshots that are neither among the newest nor young, and removes what only they hold.
///
/// `latest` is the newest commit, with what readers see of it already derived; the caller holds the
/// lake. Reads the living commits and those that end now; holds their part paths in memory.
pub fn keep(
    store: &Store,
    settings: &Keep,
    now: DateTime<Utc>,
    latest: &Commit,
) -> Result<Removed> {
    let ended_before = ended(store)?;
    let numbers: Vec<Seq> = list(store)?.into_iter().filter(|seq| *seq <= latest.seq).collect();
    let mut open = Vec::new();
    for seq in numbers.iter().filter(|seq| **seq > ended_before && **seq < latest.seq) {
        open.push(Held::of(&read(store, *seq)?));
    }
    open.push(Held::of(latest));
    let (ending, living) = split(open, settings, now);

    let mut removed = Removed {
        snapshots: remove_snapshots(store, latest.seq, &living)?,
        parts: remove_parts(store, &ending, &living)?,
        commits: Vec::new(),
    };
    let ended_now = ending.last().map_or(ended_before, |commit| commit.seq);
    if ended_now > ended_before {
        write_ended(store, ended_now)?;
    }
    let oldest_living = living.first().map_or(latest.created_at, |commit| commit.created_at);
    let cutoff = before(now, settings.changes);
    for seq in numbers.into_iter().take_while(|seq| *seq <= ended_now) {
        let commit = read(store, seq)?;
        // A commit cannot be younger than one that came after it, whatever its clock said.
        if commit.created_at.min(oldest_living) > cutoff {
            break;
        }
        remove_commit(store, &commit)?;
        removed.commits.push(seq);
    }
    Ok(removed)
}

/// Returns the number up to which snapshots have ended: parts of those commits may be gone. 0 where
/// none has.
pub fn ended(store: &Store) -> Result<Seq> {
    let Some(bytes) = store.read_if_exists(ENDED)? else { return Ok(Seq(0)) };
    match decode_versioned(ENDED, &bytes, &["1"])? {
        StoredEnded::V1 { ended } => Ok(ended),
    }
}

const ENDED: &str = "state/ended.json";

#[derive(Serialize, Deserialize)]
#[serde(tag = "version")]
enum StoredEnded {
    #[serde(rename = "1")]
    V1 { ended: Seq },
}

fn write_ended(store: &Store, ended: Seq) -> Result<()> {
    let encoded = serde_json::to_vec(&StoredEnded::V1 { ended });
    let bytes = encoded.map_err(|source| Error::Encode { what: "ended", source })?;
    Ok(store.write(ENDED, &bytes)?)
}

/// What a commit holds on to; a few bytes a part instead of the whole commit.
struct Held {
    seq: Seq,
    created_at: DateTime<Utc>,
    snapshot: Seq,
    parts: Vec<String>,
}

impl Held {
    fn of(commit: &Commit) -> Self {
        Self {
            seq: commit.seq,
            created_at: commit.created_at,
            snapshot: commit.snapshot,
            parts: commit.part_paths().map(str::to_owned).collect(),
        }
    }
}

/// Cuts commits, oldest first, into those that end and those that live.
fn split(mut open: Vec<Held>, settings: &Keep, now: DateTime<Utc>) -> (Vec<Held>, Vec<Held>) {
    let newest = usize::try_from(settings.snapshots.max(1)).unwrap_or(usize::MAX);
    let newest = open.len().saturating_sub(newest);
    let cutoff = before(now, settings.snapshot_age);
    // With clocks that jump, a commit is as old as the oldest that came after it: what ends is
    // always the older end of the list, and a date in the future holds nothing for ever.
    for index in (1..open.len()).rev() {
        open[index - 1].created_at = open[index - 1].created_at.min(open[index].created_at);
    }
    let old = open.iter().take_while(|commit| commit.created_at <= cutoff).count();
    let living = open.split_off(old.min(newest));
    (open, living)
}

/// A span longer than the calendar reaches keeps everything.
fn before(now: DateTime<Utc>, span: TimeDelta) -> DateTime<Utc> {
    now.checked_sub_signed(span).unwrap_or(DateTime::<Utc>::MIN_UTC)
}

/// Folders are derived, so listing them is safe; of commits after `latest` none is touched.
fn remove_snapshots(store: &Store, latest: Seq, living: &[Held]) -> Result<Vec<Seq>> {
    store.remove_unfinished(SNAPSHOTS)?;
    let needed: BTreeSet<Seq> = living.iter().map(|commit| commit.snapshot).collect();
    let shown = store.pointee(LATEST);
    let mut removed = Vec::new();
    for name in store.list(SNAPSHOTS)? {
        let Some(seq) = name.parse().ok().map(Seq) else { continue };
        let folder = folder_of(seq);
        let is_ours = folder == format!("{SNAPSHOTS}/{name}");
        let is_shown = shown.as_deref() == Some(folder.as_str());
        if is_ours && seq <= latest && !needed.contains(&seq) && !is_shown {
            remove_folder(store, &folder)?;
            removed.push(seq);
        }
    }
    Ok(removed)
}

fn remove_parts(store: &Store, ending: &[Held], living: &[Held]) -> Result<Vec<String>> {
    let parts = |commits: &[Held]| -> BTreeSet<String> {
        commits.iter().flat_map(|commit| commit.parts.iter().cloned()).collect()
    };
    let removed: Vec<String> = parts(ending).difference(&parts(living)).cloned().collect();
    for path in &removed {
        store.remove(path)?;
    }
    Ok(removed)
}

/// The commit file goes last: until then it names what is to go with it.
fn remove_commit(store: &Store, commit: &Commit) -> Result<()> {
    for path in commit.log_paths() {
        store.remove(path)?;
    }
    Ok(store.remove(&path_of(commit.seq))?)
}
