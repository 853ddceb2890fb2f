//! Looks at rows: whether parts hold what their commit says, each key once, and what the changes make.
//!
//! Memory: 16 bytes a row of the newest commit for its keys, and, where changes can be followed, 16
//! more for their contents.

use std::collections::BTreeMap;
use std::collections::HashMap;

use super::finding::Kind;
use super::scan::CONTRADICTION;
use super::scan::Scan;
use crate::commit::Commit;
use crate::commit::path_of;
use crate::ids::Seq;
use crate::ids::SourceName;
use crate::load;
use crate::record::id_hash;
use crate::run::Result;
use crate::run::chain;

/// Contents by key, both as hashes.
type Contents = HashMap<u64, u64>;

/// The last page of each segment that rows come from.
pub(super) type NeededPages = BTreeMap<String, u32>;

fn key_of(source: &str, lead_id: &str) -> u64 {
    id_hash(&format!("{source}\0{lead_id}"))
}

impl Scan<'_> {
    /// Looks at the rows of the newest commit.
    pub(super) fn look_at_rows(&mut self) -> Result<()> {
        let Some(head) = self.head().cloned() else { return Ok(()) };
        let base = self.base_of_changes(&head);
        let mut expected = match &base {
            None => None,
            Some(base) => self.contents_by_changes(base.as_ref(), &head),
        };
        let (mut differ, mut needed) = (0, NeededPages::new());
        for (name, source) in &head.sources {
            let mut keys: Vec<u64> = Vec::new();
            for part in &source.parts {
                self.stop.check()?;
                let path = part.file.path.as_str();
                if self.bad.contains_key(path) {
                    expected = None;
                    continue;
                }
                let looked = load::inspect(self.store, part, source.partition, |row| {
                    let key = key_of(name.as_str(), row.lead_id);
                    keys.push(key);
                    row.archive.into_iter().for_each(|place| need(&mut needed, place));
                    if let Some(expected) = expected.as_mut().filter(|_| !row.is_deleted) {
                        let same = expected.remove(&key) == Some(id_hash(row.content_hash));
                        differ += u64::from(!same);
                    }
                });
                if is_gone(&looked) && !self.is_still_named(path)? {
                    // It was let go of meanwhile.
                    expected = None;
                    continue;
                }
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
                    self.bad.insert(path.to_owned(), CONTRADICTION);
                    let way_out = "--repair makes it again from the changes and the archive";
                    let way_out = self.way_out_of(name, way_out);
                    self.note(Kind::PartContradiction, path, what, &way_out);
                }
            }
            self.note_doubles(name, keys);
        }
        self.needed = needed;
        let left = expected.map_or(0, |expected| expected.len() as u64 + differ);
        if left > 0 {
            let what = format!("applied in order, changes give other rows: {left} differ");
            let way_out = "--repair has loaders take the whole snapshot";
            self.note(Kind::ChangesContradiction, &path_of(head.seq), what, way_out);
        }
        Ok(())
    }

    fn note_doubles(&mut self, source: &SourceName, mut keys: Vec<u64>) {
        let rows = keys.len();
        keys.sort_unstable();
        keys.dedup();
        if keys.len() < rows {
            let what =
                format!("{} of {rows} rows are of a lead that is there twice", rows - keys.len());
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

    /// Returns what the changes after `base` make of its rows; `None` where something cannot be read,
    /// which is told elsewhere.
    fn contents_by_changes(&self, base: Option<&Commit>, head: &Commit) -> Option<Contents> {
        let mut contents = Contents::new();
        for (name, source) in base.iter().flat_map(|base| &base.sources) {
            for part in &source.parts {
                let taken = load::inspect(self.store, part, source.partition, |row| {
                    if !row.is_deleted {
                        let key = key_of(name.as_str(), row.lead_id);
                        contents.insert(key, id_hash(row.content_hash));
                    }
                });
                taken.ok()?;
            }
        }
        let after = base.map_or(Seq(0), |base| base.seq);
        let followed = self.commits.range(after.next()..=head.seq);
        for (_, commit) in followed {
            let taken = load::changes_in(self.store, &commit.changes, |change| {
                let key = key_of(change.source, change.lead_id);
                match change.is_delete {
                    true => contents.remove(&key),
                    false => contents.insert(key, id_hash(change.content_hash)),
                };
            });
            taken.ok()?;
        }
        Some(contents)
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
