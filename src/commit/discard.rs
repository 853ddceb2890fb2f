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
/// The caller holds the lake, and `run` has ended (or is the caller's own and writes no more): files
/// that were never finished go too. Reads all commits where there is something to remove.
pub fn discard(store: &Store, run: &RunId) -> Result<Vec<String>> {
    // The id becomes part of a path below; one that no run of ours can have owns nothing.
    if run.as_str().is_empty() || !run.as_str().chars().all(|c| c.is_ascii_alphanumeric()) {
        return Ok(Vec::new());
    }
    store.remove_all(&format!("state/scratch/{run}"))?;
    let mut written = Vec::new();
    for folder in WRITTEN {
        store.remove_unfinished(folder)?;
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
