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
use crate::commit::derive::shown_numbers;
use crate::commit::list;
use crate::commit::path_of;
use crate::commit::read;
use crate::commit::stored::decode_versioned;
use crate::ids::Seq;
use crate::seal;
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

    let snapshots = remove_snapshots(store, latest.seq, &living)?;
    let parts = remove_parts(store, &ending, &living)?;
    let ended_now = ending.last().map_or(ended_before, |commit| commit.seq);
    if ended_now > ended_before {
        write_ended(store, ended_now)?;
    }
    let ended = numbers.into_iter().take_while(|seq| *seq <= ended_now);
    let oldest_living = living.first().map_or(latest.created_at, |commit| commit.created_at);
    let commits = remove_commits(store, ended, oldest_living, before(now, settings.changes))?;
    Ok(Removed { snapshots, parts, commits })
}

/// Ends all commits up to `last`, whatever the settings: a repair could not make again all that they
/// hold. What only they name is moved below `aside`, since it may be the only copy of something. The
/// caller holds the lake, `head` is its newest commit.
pub fn end_up_to(store: &Store, last: Seq, head: &Commit, aside: &str) -> Result<Removed> {
    let ended_before = ended(store).unwrap_or_default();
    let (mut ending, mut living) = (Vec::new(), vec![Held::of(head)]);
    for seq in list(store)?.into_iter().filter(|seq| *seq > ended_before && *seq < head.seq) {
        // Of a commit that cannot be read nobody knows what it names; that stays where it is.
        let Ok(commit) = read(store, seq) else { continue };
        let to = if seq <= last { &mut ending } else { &mut living };
        to.push(Held::of(&commit));
    }
    let snapshots = remove_snapshots(store, head.seq, &living)?;
    let parts = only_in(&ending, &living);
    for path in &parts {
        if store.exists(path)? {
            store.rename(path, &format!("{aside}/{path}"))?;
        }
    }
    if last > ended_before && last < head.seq {
        write_ended(store, last)?;
    }
    Ok(Removed { snapshots, parts, commits: Vec::new() })
}

/// Writes anew up to where snapshots have ended, where that file cannot be read: up to before the
/// oldest of the commits from which on all parts are there. Where no commit is left, all have ended of
/// which a snapshot folder tells.
pub fn mend_ended(store: &Store) -> Result<Seq> {
    let mut oldest = None;
    let numbers = list(store)?;
    for seq in numbers.iter().rev() {
        let Ok(commit) = read(store, *seq) else { break };
        if !parts_are_there(store, &commit)? {
            break;
        }
        oldest = Some(*seq);
    }
    let shown = shown_numbers(store)?.into_iter().max().unwrap_or_default();
    let ended = match oldest {
        None if numbers.is_empty() => shown,
        oldest => Seq(oldest.map_or(0, |seq| seq.0.saturating_sub(1))),
    };
    write_ended(store, ended)?;
    Ok(ended)
}

/// Tells whether all parts that a commit names are there, whatever they hold.
pub fn parts_are_there(store: &Store, commit: &Commit) -> Result<bool> {
    let paths: Vec<&str> = commit.part_paths().collect();
    Ok(store.sizes(&paths)?.iter().all(Option::is_some))
}

/// Returns the number up to which snapshots have ended: parts of those commits may be gone. 0 where
/// none has.
pub fn ended(store: &Store) -> Result<Seq> {
    let Some(bytes) = store.read_if_exists(ENDED)? else { return Ok(Seq(0)) };
    match decode_versioned(ENDED, &bytes, &["1"])? {
        StoredEnded::V1 { ended } => Ok(ended),
    }
}

/// Where that number stands.
pub(super) const ENDED: &str = "state/ended.json";

#[derive(Serialize, Deserialize)]
#[serde(tag = "version")]
enum StoredEnded {
    #[serde(rename = "1")]
    V1 { ended: Seq },
}

fn write_ended(store: &Store, ended: Seq) -> Result<()> {
    let encoded = serde_json::to_vec(&StoredEnded::V1 { ended });
    let bytes = encoded.map_err(|source| Error::Encode { what: "ended", source })?;
    Ok(store.write(ENDED, &seal::seal(&bytes))?)
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
    store.remove_unfinished_beside(SNAPSHOTS)?;
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

/// Returns the parts that `ending` name and none of `living`.
fn only_in(ending: &[Held], living: &[Held]) -> Vec<String> {
    let parts = |commits: &[Held]| -> BTreeSet<String> {
        commits.iter().flat_map(|commit| commit.parts.iter().cloned()).collect()
    };
    parts(ending).difference(&parts(living)).cloned().collect()
}

fn remove_parts(store: &Store, ending: &[Held], living: &[Held]) -> Result<Vec<String>> {
    let removed = only_in(ending, living);
    for path in &removed {
        store.remove(path)?;
    }
    Ok(removed)
}

/// Removes commit files up to the first that is younger than `cutoff`, so that what is left has no
/// holes.
fn remove_commits(
    store: &Store,
    ended: impl Iterator<Item = Seq>,
    oldest_living: DateTime<Utc>,
    cutoff: DateTime<Utc>,
) -> Result<Vec<Seq>> {
    let mut removed = Vec::new();
    for seq in ended {
        let commit = read(store, seq)?;
        // A commit cannot be younger than one that came after it, whatever its clock said.
        if commit.created_at.min(oldest_living) > cutoff {
            break;
        }
        // The commit file goes last: until then it names what is to go with it.
        for path in commit.log_paths() {
            store.remove(path)?;
        }
        store.remove(&path_of(seq))?;
        removed.push(seq);
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::derive;
    use crate::commit::latest;
    use crate::commit::testing::at;
    use crate::commit::testing::lake;
    use crate::commit::testing::part;
    use crate::commit::testing::seq_commit;
    use crate::commit::testing::source;
    use crate::commit::write;
    use proptest::prelude::*;

    const SETTINGS: Keep =
        Keep { snapshots: 2, snapshot_age: TimeDelta::hours(48), changes: TimeDelta::days(90) };

    fn publish(store: &Store, commit: &Commit) {
        write(store, commit).unwrap();
        derive(store, commit).unwrap();
    }

    /// Commits `count` times, an hour apart, each with a part of its own.
    fn nights(store: &Store, count: u64) -> Vec<Commit> {
        let commits: Vec<Commit> = (1..=count).map(|seq| seq_commit(store, seq)).collect();
        commits.iter().for_each(|commit| publish(store, commit));
        commits
    }

    fn snapshots(store: &Store) -> Vec<String> {
        store.list(SNAPSHOTS).unwrap()
    }

    #[test]
    fn a_snapshot_ends_when_it_is_neither_among_the_newest_nor_young() {
        let (_folder, store) = lake();
        let commits = nights(&store, 4);
        let young = keep(&store, &SETTINGS, at(48), &commits[3]).unwrap();
        assert_eq!(young, Removed::default());

        let removed = keep(&store, &SETTINGS, at(49), &commits[3]).unwrap();
        assert_eq!(removed.snapshots, [Seq(1)]);
        assert_eq!(removed.parts, commits[0].part_paths().collect::<Vec<_>>());
        assert_eq!(removed.commits, []);

        keep(&store, &SETTINGS, at(500), &commits[3]).unwrap();
        assert_eq!(snapshots(&store), ["000000003", "000000004"]);
        assert_eq!(store.list_all("parts").unwrap().len(), 2);
        assert_eq!(ended(&store).unwrap(), Seq(2));
        assert_eq!(list(&store).unwrap().len(), 4);
    }

    #[test]
    fn commit_files_and_what_goes_with_them_stay_as_long_as_changes() {
        let (_folder, store) = lake();
        let commits = nights(&store, 4);
        let later = at(2) + SETTINGS.changes;
        let removed = keep(&store, &SETTINGS, later, &commits[3]).unwrap();
        assert_eq!(removed.commits, [Seq(1), Seq(2)]);
        assert_eq!(store.list("changes").unwrap().len(), 2);
        // Those that still live keep their commit file, however old they are.
        let removed = keep(&store, &SETTINGS, later + SETTINGS.changes, &commits[3]).unwrap();
        assert_eq!(removed, Removed::default());
    }

    #[test]
    fn the_newest_commit_lives_whatever_the_settings() {
        let (_folder, store) = lake();
        let commits = nights(&store, 3);
        let nothing = TimeDelta::zero();
        let settings = Keep { snapshots: 0, snapshot_age: nothing, changes: nothing };
        keep(&store, &settings, at(100_000), &commits[2]).unwrap();
        assert_eq!(snapshots(&store), ["000000003"]);
        assert_eq!(latest(&store).unwrap().as_ref(), Some(&commits[2]));
        assert!(commits[2].part_paths().all(|path| store.exists(path).unwrap()));
    }

    #[test]
    fn a_crash_anywhere_leaves_work_that_the_next_run_does() {
        let (_folder, store) = lake();
        let commits = nights(&store, 5);
        // Folders and some parts are gone, `ended` was not written; a folder was being removed.
        remove_folder(&store, "snapshots/000000001").unwrap();
        store.remove(commits[0].part_paths().next().unwrap()).unwrap();
        let hidden = Store::unfinished(SNAPSHOTS, "ended-000000002");
        store.rename("snapshots/000000002", &hidden).unwrap();
        keep(&store, &SETTINGS, at(500), &commits[4]).unwrap();
        assert_eq!(store.list_all("parts").unwrap().len(), 2);
        assert_eq!(std::fs::read_dir(store.path(SNAPSHOTS)).unwrap().count(), 2);
    }

    #[test]
    fn what_has_ended_does_not_live_again_when_settings_grow() {
        let (_folder, store) = lake();
        let commits = nights(&store, 5);
        keep(&store, &SETTINGS, at(500), &commits[4]).unwrap();
        let settings = Keep { snapshots: 50, ..SETTINGS };
        keep(&store, &settings, at(500), &commits[4]).unwrap();
        assert_eq!(ended(&store).unwrap(), Seq(3));
    }

    #[test]
    fn a_commit_dated_in_the_future_holds_nothing_for_ever() {
        let (_folder, store) = lake();
        let mut commits: Vec<Commit> = (1..=5).map(|seq| seq_commit(&store, seq)).collect();
        commits[1].created_at = at(100_000);
        commits.iter().for_each(|commit| publish(&store, commit));
        keep(&store, &SETTINGS, at(500), &commits[4]).unwrap();
        assert_eq!(snapshots(&store), ["000000004", "000000005"]);
    }

    #[test]
    fn a_folder_that_is_shown_or_not_ours_stays() {
        let (_folder, store) = lake();
        let commits = nights(&store, 4);
        store.point(LATEST, "snapshots/000000001").unwrap();
        store.create_folder("snapshots/mine").unwrap();
        store.create_folder("snapshots/000000009").unwrap();
        keep(&store, &SETTINGS, at(500), &commits[3]).unwrap();
        let left = ["000000001", "000000003", "000000004", "000000009", "mine"];
        assert_eq!(snapshots(&store), left);
    }

    /// One run: hours since the one before, which partitions it rewrites, whether it keeps house,
    /// and whether it dies before it has noted what it did.
    type Night = (i64, Vec<bool>, bool, bool);

    fn night() -> impl Strategy<Value = Night> {
        let partitions = prop::collection::vec(prop::bool::weighted(0.4), 3);
        (0_i64..60, partitions, prop::bool::weighted(0.7), prop::bool::weighted(0.2))
    }

    /// Makes the commit after `parent`, with new parts where `rewritten` says so.
    fn follow(store: &Store, parent: Option<&Commit>, hour: i64, rewritten: &[bool]) -> Commit {
        let seq = parent.map_or(1, |parent| parent.seq.0 + 1);
        let mut commit = seq_commit(store, seq);
        let own = commit.part_paths().next().unwrap().to_owned();
        store.remove(&own).unwrap();
        commit.created_at = at(hour);
        let acme = commit.sources.get_mut(&source("acme")).unwrap();
        let held = parent.map(|parent| parent.sources[&source("acme")].parts.clone());
        acme.parts = held.unwrap_or_default();
        for (year, _) in rewritten.iter().enumerate().filter(|(_, rewritten)| **rewritten) {
            let year = format!("{}", 2024 + year);
            acme.parts.retain(|part| part.partition != year);
            acme.parts.push(part(store, "acme", &year, seq, seq, 0));
        }
        if let Some(parent) = parent.filter(|_| !rewritten.contains(&true)) {
            commit.snapshot = parent.snapshot;
            commit.changes.rows = 0;
        }
        commit
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn living_commits_lose_nothing_and_ended_ones_leave_nothing(
            nights in prop::collection::vec(night(), 1..12),
            snapshots in 0_u32..4,
            age in 0_i64..80,
            changes in 0_i64..300,
        ) {
            let (_folder, store) = lake();
            let (snapshot_age, changes) = (TimeDelta::hours(age), TimeDelta::hours(changes));
            let settings = Keep { snapshots, snapshot_age, changes };
            let mut hour = 0;
            let mut made: Vec<Commit> = Vec::new();
            for (gap, rewritten, keeps, dies) in nights {
                hour += gap;
                let commit = follow(&store, made.last(), hour, &rewritten);
                publish(&store, &commit);
                made.push(commit);
                let newest = made.last().unwrap();
                if keeps {
                    let noted = store.read_if_exists(ENDED).unwrap();
                    keep(&store, &settings, at(hour), newest).unwrap();
                    if let Some(noted) = noted.filter(|_| dies) {
                        store.write(ENDED, &noted).unwrap();
                    }
                }

                let count = made.len();
                for (index, commit) in made.iter().enumerate() {
                    let age = at(hour) - commit.created_at;
                    let is_among_newest = count - index <= snapshots.max(1) as usize;
                    if is_among_newest || age < snapshot_age {
                        prop_assert!(commit.part_paths().all(|path| store.exists(path).unwrap()));
                        prop_assert!(store.exists(&folder_of(commit.snapshot)).unwrap());
                    }
                    if is_among_newest || age < changes {
                        prop_assert!(store.exists(&path_of(commit.seq)).unwrap());
                        prop_assert!(commit.log_paths().all(|path| store.exists(path).unwrap()));
                    }
                }
            }

            let newest = made.last().unwrap();
            let last = Keep { snapshots: 1, ..settings };
            keep(&store, &last, at(hour + 1000), newest).unwrap();
            let mut named: Vec<&str> = newest.part_paths().collect();
            named.sort_unstable();
            prop_assert_eq!(store.list_all("parts").unwrap(), named);
            prop_assert_eq!(list(&store).unwrap(), [newest.seq]);
            prop_assert_eq!(store.list("changes").unwrap().len(), 1);
            prop_assert_eq!(store.list(SNAPSHOTS).unwrap().len(), 1);
        }
    }
}
