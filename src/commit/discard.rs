//! Cleaning up after a run that ended without committing all it wrote.
//!
//! Names of new files carry the run that wrote them, so what is removed is found by that, and only
//! where no commit names it.

use std::collections::BTreeSet;

use crate::commit::Result;
use crate::commit::list;
use crate::commit::read;
use crate::ids::RunId;
use crate::store::Store;

/// Where a run writes files that a commit may come to name.
const WRITTEN: [&str; 4] = ["parts", "csv", "changes", "rejects"];

/// Removes what `run` wrote and no commit names, and its scratch folder; returns the paths of the
/// former.
///
/// The run has ended, or is the caller's own and writes no more. Reads all commits where there is
/// something to remove.
pub fn discard(store: &Store, run: &RunId) -> Result<Vec<String>> {
    // The id becomes part of a path below; one that no run of ours can have owns nothing.
    if run.as_str().is_empty() || !run.as_str().chars().all(|c| c.is_ascii_alphanumeric()) {
        return Ok(Vec::new());
    }
    store.remove_scratch(run)?;
    store.abort_uploads(|path| carries(path, run))?;
    let mut written = Vec::new();
    for folder in WRITTEN {
        written.extend(store.list_all(folder)?.into_iter().filter(|path| carries(path, run)));
    }
    if !written.is_empty() {
        let named = named_by_commits(store)?;
        written.retain(|path| !named.contains(path));
    }
    for path in &written {
        store.remove(path)?;
    }
    Ok(written)
}

/// Removes files that were never finished, whoever began them.
///
/// The caller holds the lake and writes nothing yet, so all of them are from processes that died.
pub fn sweep(store: &Store) -> Result<()> {
    // Not `state/ledger`, which runs of other lakes may share and write to at this moment, nor
    // `state/probes`, to which a plan writes that holds nothing.
    for folder in WRITTEN.iter().chain(&["commits", "snapshots", "state/runs"]) {
        store.remove_unfinished(folder)?;
    }
    store.remove_unfinished_beside("state")?;
    Ok(store.remove_unfinished_beside("")?)
}

/// Names are `<seq>-<run>`, then an ending or `-` and more.
fn carries(path: &str, run: &RunId) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.split(['-', '.']).nth(1) == Some(run.as_str())
}

fn named_by_commits(store: &Store) -> Result<BTreeSet<String>> {
    let mut named = BTreeSet::new();
    for seq in list(store)? {
        let commit = read(store, seq)?;
        named.extend(commit.part_paths().chain(commit.log_paths()).map(str::to_owned));
    }
    Ok(named)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::testing::lake;
    use crate::commit::testing::part;
    use crate::commit::testing::run;
    use crate::commit::testing::seq_commit;
    use crate::commit::write;

    #[test]
    fn what_a_dead_run_did_not_commit_goes_and_all_else_stays() {
        let (_folder, store) = lake();
        let commit = seq_commit(&store, 1);
        write(&store, &commit).unwrap();
        // The run that wrote commit 1 began on the next one and died.
        let dead = [
            part(&store, "acme", "2026", 2, 1, 0).file.path,
            format!("csv/part_source=acme/part_created=2026/000000002-{}-0.csv", run(1)),
            format!("changes/000000002-{}.parquet", run(1)),
            format!("rejects/000000002-{}-acme.jsonl", run(1)),
        ];
        let other = format!("rejects/000000002-{}-acme.jsonl", run(2));
        for path in dead.iter().chain([&other]) {
            store.write(path, b"left behind").unwrap();
        }
        store.write(&format!("state/scratch/{}/rows", run(1)), b"rows").unwrap();

        let mut removed = discard(&store, &run(1)).unwrap();
        removed.sort();
        let mut expected = dead.to_vec();
        expected.sort();
        assert_eq!(removed, expected);
        assert!(dead.iter().all(|path| !store.exists(path).unwrap()));
        assert!(
            store.exists(&other).unwrap()
                && !store.exists(&format!("state/scratch/{}", run(1))).unwrap()
        );
        assert!(
            commit.part_paths().chain(commit.log_paths()).all(|path| store.exists(path).unwrap())
        );
        assert_eq!(discard(&store, &run(1)).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_part_of_a_run_whose_commit_file_is_gone_stays_while_a_later_commit_names_it() {
        let (_folder, store) = lake();
        let first = seq_commit(&store, 1);
        write(&store, &first).unwrap();
        let mut second = seq_commit(&store, 2);
        second.sources = first.sources.clone();
        write(&store, &second).unwrap();
        store.remove("commits/000000001.json").unwrap();
        discard(&store, &run(1)).unwrap();
        assert!(second.part_paths().all(|path| store.exists(path).unwrap()));
    }

    #[test]
    fn an_id_that_is_no_name_owns_nothing() {
        let (_folder, store) = lake();
        store.write("state/key", b"key").unwrap();
        store.write("state/scratch/x/y", b"rows").unwrap();
        // Those that would lead elsewhere cannot even be read.
        for text in ["", "..", "../../state"] {
            assert!(serde_json::from_value::<RunId>(text.into()).is_err(), "{text}");
        }
        store.write("state/scratch/x_y/z", b"rows").unwrap();
        let run: RunId = serde_json::from_value("x_y".into()).unwrap();
        discard(&store, &run).unwrap();
        assert!(store.exists("state/scratch/x_y/z").unwrap());
        assert!(store.exists("state/key").unwrap() && store.exists("state/scratch/x/y").unwrap());
    }

    #[test]
    fn files_that_were_never_finished_are_swept() {
        let (_folder, store) = lake();
        let commit = seq_commit(&store, 1);
        write(&store, &commit).unwrap();
        let folder = "parts/part_source=acme/part_created=2026";
        std::fs::write(store.path(&Store::unfinished(folder, "x7Gq")), b"half").unwrap();
        store.create_folder(&Store::unfinished("snapshots", "000000001")).unwrap();
        let beside = [".tmp-checkpoint", "state/.tmp-ended"];
        for path in beside {
            store.write("state/ended.json", b"{}").unwrap();
            std::fs::write(store.path(path), b"half").unwrap();
        }
        sweep(&store).unwrap();
        assert!(beside.iter().all(|path| !store.exists(path).unwrap()));
        let is_left = |folder: &str| std::fs::read_dir(store.path(folder)).unwrap().count();
        assert_eq!((is_left(folder), is_left("snapshots")), (1, 0));
        assert!(commit.part_paths().all(|path| store.exists(path).unwrap()));
    }
}
