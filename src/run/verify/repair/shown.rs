//! Makes what readers see again.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Repairer;
use crate::commit;
use crate::commit::Commit;
use crate::run::Result;
use crate::run::verify::scan::Scan;

impl Repairer {
    /// Makes what readers see again, of all snapshots that live.
    pub(super) fn show_again(&mut self, head: &Commit, left: &BTreeSet<String>) -> Result<()> {
        let is_left = |commit: &Commit| commit.part_paths().any(|path| left.contains(path));
        let (store, job, clock) = (self.store.clone(), Arc::clone(&self.job), self.clock.clone());
        let run = self.holder.run.clone();
        let scan = Scan::of_commits(&store, &job, &clock, Some(&run))?;
        let mut shown = BTreeSet::new();
        for commit in scan.living().rev().filter(|commit| !is_left(commit)) {
            let files = commit::shown_files(&store, commit);
            let is_new = shown.insert(commit.snapshot);
            if is_new && files.iter().any(|file| scan.shown_difference(file).is_some()) {
                commit::show_anew(&store, commit)?;
                self.did(&format!("snapshots/{}", commit.snapshot), "made again from its commit");
            }
        }
        if is_left(head) {
            return Ok(());
        }
        let differ = commit::derived_that_differ(&store, head)?;
        commit::derive(&store, head)?;
        for path in differ {
            self.did(path, "made again from the newest commit");
        }
        Ok(())
    }
}
