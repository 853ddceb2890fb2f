//! Looks at rows: whether parts hold what their commit says, each key once, and what the changes make.
//!
//! What they tell of each key is compared at the end (`told.rs`).

use std::collections::BTreeMap;

use super::finding::Kind;
use super::scan::CONTRADICTION;
use super::scan::Scan;
use super::told::Tells;
use super::told::Told;
use crate::commit::Commit;
use crate::commit::path_of;
use crate::ids::Seq;
use crate::ids::SourceName;
use crate::load;
use crate::run::Result;
use crate::run::chain;
use crate::schema::PartFile;

/// The last page of each segment that rows come from.
pub(super) type NeededPages = BTreeMap<String, u32>;

impl Scan<'_> {
    /// Looks at the rows of the newest commit.
    pub(super) fn look_at_rows(&mut self) -> Result<()> {
        let Some(head) = self.head().cloned() else { return Ok(()) };
        let (base, mut told) = (self.base_of_changes(&head), Told::new());
        let mut is_followed =
            base.is_some_and(|base| self.note_changes(base.as_ref(), &head, &mut told));
        let mut needed = NeededPages::new();
        for (number, (name, source)) in head.sources.iter().enumerate() {
            for part in &source.parts {
                self.stop.check()?;
                let path = part.file.path.as_str();
                if self.bad.contains_key(path) {
                    is_followed = false;
                    continue;
                }
                let looked = load::inspect(self.store, part, source.partition, |row| {
                    let tells = match row.is_deleted {
                        true => Tells::DeletedRow,
                        false => Tells::Row(row.content_hash),
                    };
                    told.note(number, row.lead_id, tells);
                    row.archive.into_iter().for_each(|place| need(&mut needed, place));
                });
                if is_gone(&looked) && self.own_run.is_none() {
                    // Its bytes were there: in the end it is told whether it was let go of since.
                    is_followed = false;
                    self.note_missing(name, path);
                    continue;
                }
                self.note_part(name, part, looked)?;
            }
        }
        self.needed = needed;
        let compared = told.compare(head.sources.len())?;
        for (source, doubles) in head.sources.keys().zip(compared.doubles) {
            self.note_doubles(source, doubles);
        }
        if is_followed && compared.differ > 0 {
            let what =
                format!("applied in order, changes give other rows: {} differ", compared.differ);
            let way_out = "--repair has loaders take the whole snapshot";
            self.note(Kind::ChangesContradiction, &path_of(head.seq), what, way_out);
        }
        Ok(())
    }

    /// Notes what a look at a part has shown.
    fn note_part(
        &mut self,
        source: &SourceName,
        part: &PartFile,
        looked: load::Result<load::Inspected>,
    ) -> Result<()> {
        let what = match looked {
            Ok(seen) => {
                self.checked.rows += seen.rows;
                seen.contradiction(part).map(str::to_owned)
            }
            Err(error @ load::Error::Store(_)) if self.own_run.is_some() => {
                return Err(error.into());
            }
            Err(error) => Some(chain(&error)),
        };
        if let Some(what) = what {
            let path = part.file.path.as_str();
            self.bad.insert(path.to_owned(), CONTRADICTION);
            let way_out = "--repair makes it again from the changes and the archive";
            let way_out = self.way_out_of(source, way_out);
            self.note(Kind::PartContradiction, path, what, &way_out);
        }
        Ok(())
    }

    fn note_doubles(&mut self, source: &SourceName, doubles: u64) {
        if doubles > 0 {
            let what = format!("{doubles} rows are of a lead that is there twice");
            let way_out =
                "restore the lake from a backup, or sync into a new one; please report it";
            self.note(Kind::KeyTwice, &format!("parts/part_source={source}"), what, way_out);
        }
    }

    /// Returns from where changes can be followed to `head`: `Some(None)` is from the very first, `None`
    /// from nowhere before it.
    fn base_of_changes(&self, head: &Commit) -> Option<Option<Commit>> {
        let is_followed = |seq: Seq| {
            let commit = self.commits.get(&seq);
            commit.is_some_and(|commit| !self.bad.contains_key(&commit.changes.file.path))
        };
        let mut from = head.seq;
        while from.0 > 0 && from > self.changes_from() && is_followed(from) {
            from = Seq(from.0 - 1);
        }
        if from.0 == 0 {
            return Some(None);
        }
        let is_whole = |commit: &&Commit| {
            commit.seq >= from && commit.part_paths().all(|path| !self.bad.contains_key(path))
        };
        let base = self.living().find(is_whole)?;
        (base.seq < head.seq).then(|| Some(base.clone()))
    }

    /// Notes the rows of `base` and what the changes after it make of them; tells whether all of it could
    /// be read: what cannot is told elsewhere.
    fn note_changes(&self, base: Option<&Commit>, head: &Commit, told: &mut Told) -> bool {
        let names = head.sources.keys().map(|name| name.as_str().to_owned());
        let mut numbers: BTreeMap<String, usize> = names.zip(0..).collect();
        // One that the newest commit does not have any more gets a number behind those that it has.
        let mut number_of = |name: &str| match numbers.get(name) {
            Some(number) => *number,
            None => {
                let number = numbers.len();
                numbers.insert(name.to_owned(), number);
                number
            }
        };
        for (name, source) in base.iter().flat_map(|base| &base.sources) {
            let number = number_of(name.as_str());
            for part in &source.parts {
                let taken = load::inspect(self.store, part, source.partition, |row| {
                    if !row.is_deleted {
                        told.note(number, row.lead_id, Tells::Made(row.content_hash));
                    }
                });
                if taken.is_err() {
                    return false;
                }
            }
        }
        let after = base.map_or(Seq(0), |base| base.seq);
        self.commits.range(after.next()..=head.seq).all(|(_, commit)| {
            let taken = load::changes_in(self.store, &commit.changes, |change| {
                let tells = match change.is_delete {
                    true => Tells::Removed,
                    false => Tells::Made(change.content_hash),
                };
                told.note(number_of(change.source), change.lead_id, tells);
            });
            taken.is_ok()
        })
    }
}

fn is_gone(looked: &load::Result<load::Inspected>) -> bool {
    matches!(looked, Err(load::Error::Store(error)) if error.is_not_found())
}

/// Notes that a row comes from a place of the archive.
fn need(needed: &mut NeededPages, place: &str) {
    let Some((segment, page)) = place.split_once('#') else { return };
    let page = page.split(':').next().and_then(|page| page.parse().ok()).unwrap_or(0);
    match needed.get_mut(segment) {
        Some(last) => *last = page.max(*last),
        None => drop(needed.insert(segment.to_owned(), page)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::clock::SharedClock;
    use crate::commit;
    use crate::commit::Lock;
    use crate::commit::testing::lake as new_lake;
    use crate::commit::testing::seq_commit;
    use crate::config::Job;
    use crate::run::lake;
    use std::sync::Arc;

    const JOB: &str = r#"
name = "nights"
lake = "lake"

[[sources]]
name = "acme"
provider = "whatconverts"
token = { env = "T" }
secret = { env = "S" }
plan = "profile"
start = 2024-01-01
"#;

    /// What a look finds where a part goes after its bytes were looked at.
    async fn found_without_a_part(is_let_go_of: bool) -> Vec<Kind> {
        let (_folder, store) = new_lake();
        let job = Job::parse(JOB, std::path::Path::new("job.toml")).unwrap();
        let first = seq_commit(&store, 1);
        commit::write(&store, &first).unwrap();
        let clock: SharedClock = Arc::new(ManualClock::new(first.created_at));
        let mut scan = Scan::of_commits(&store, &job, &clock, None).unwrap();
        let holder = lake::holder(&job, "sync", clock.now());
        let mut lock = None;
        if is_let_go_of {
            // The run has committed, and has not yet written that the commit before has ended.
            lock = Some(Lock::acquire(&store, &holder, None, clock.clone()).await.unwrap());
            commit::write(&store, &seq_commit(&store, 2)).unwrap();
        }
        first.part_paths().for_each(|path| store.remove(path).unwrap());
        scan.look_at_rows().unwrap();
        scan.settle().unwrap();
        drop(lock);
        scan.findings.iter().map(|finding| finding.kind).collect()
    }

    #[tokio::test]
    async fn a_part_that_is_let_go_of_meanwhile_is_no_damage() {
        assert_eq!(found_without_a_part(true).await, []);
        assert_eq!(found_without_a_part(false).await, [Kind::PartMissing]);
    }
}
