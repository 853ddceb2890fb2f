//! Makes the rows of lost parts again, from older parts, the changes and the archive.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::sync::Arc;

use super::Repairer;
use crate::archive;
use crate::archive::Record;
use crate::commit::Commit;
use crate::commit::Key;
use crate::commit::SourceCommit;
use crate::config::SourceSettings;
use crate::ids::Seq;
use crate::ids::SourceName;
use crate::ids::WalkId;
use crate::load;
use crate::load::Rebuild;
use crate::load::Rebuilt;
use crate::load::Target;
use crate::record::Walk;
use crate::record::id_hash;
use crate::run::Error;
use crate::run::Result;
use crate::run::chain;
use crate::run::loader::HeldPage;
use crate::run::settings;
use crate::run::verify::scan::Scan;
use crate::run::verify::scan::is_of_disk;
use crate::schema::PartFile;
use crate::store::Store;

/// What the lost parts of a source were made of.
pub(super) struct Remade {
    /// In their order.
    pub(super) rebuilt: Vec<Rebuilt>,
    /// Whether changes, from a whole older commit on or from the very first, tell of every row.
    pub(super) is_followed: bool,
    /// Why the archive was not taken in, or not all of it.
    pub(super) lack: Option<String>,
}

impl Repairer {
    pub(super) fn rebuild(
        &self,
        scan: &Scan<'_>,
        base: &Commit,
        name: &SourceName,
        source: &SourceCommit,
        lost: &[PartFile],
        target: &Target<'_>,
    ) -> Result<Remade> {
        let scratch = self.store.scratch(&self.holder.run);
        let partition = source.partition;
        let room = settings::room(&self.job)?;
        let mut rebuild = Rebuild::new(scratch, partition, room, lost.to_vec(), target.seq)?;
        let mut kept = BTreeMap::new();
        for commit in scan.commits.values().filter(|commit| commit.seq <= base.seq) {
            if self.has_changes(scan, commit)? {
                kept.insert(commit.seq, commit);
            }
        }
        // Behind the last change file that is missing, the changes say what became of a lead.
        let gap = (1..=base.seq.0).rev().map(Seq).find(|seq| !kept.contains_key(seq));
        let gap = gap.unwrap_or_default();
        let older = older_parts(scan, base, name, lost);
        let (is_followed, from) = self.followed_from(scan, &older, gap);
        for (seq, parts) in &older {
            let is_last_word = is_followed && *seq == from;
            // The oldest versions are of no use where a later commit is whole.
            if is_followed && !is_last_word {
                continue;
            }
            for part in parts.iter().filter(|part| !scan.bad.contains_key(&part.file.path)) {
                rebuild.take_part(&self.store, part, *seq, is_last_word)?;
            }
        }
        for (seq, commit) in kept.iter().filter(|(seq, _)| !is_followed || **seq > from) {
            rebuild.take_changes(&self.store, &commit.changes, name, *seq, *seq > gap)?;
        }
        let mut lack = scan.lack_of(name).map(|lack| lack.what);
        if let (Some(settings), None, false) = (self.settings_of(name), &lack, is_followed) {
            let key = self.key(Some(base))?;
            lack = self.take_archived(settings, source, base, &key, &mut rebuild)?;
        }
        let mut held: HashSet<u64> = HashSet::new();
        for part in source.parts.iter().filter(|part| !lost.contains(part)) {
            let take = |row: load::HeldRow<'_>| {
                held.insert(id_hash(row.lead_id));
            };
            load::inspect(&self.store, part, partition, take)?;
        }
        let rebuilt = rebuild.write(target, |lead_id| held.contains(&id_hash(lead_id)))?;
        Ok(Remade { rebuilt, is_followed, lack })
    }

    /// Tells whether the change file of a commit is as it was written; those before a cut nobody has
    /// looked at yet.
    fn has_changes(&self, scan: &Scan<'_>, commit: &Commit) -> Result<bool> {
        let file = &commit.changes.file;
        if scan.bad.contains_key(&file.path) {
            return Ok(false);
        }
        match commit.seq > scan.changes_from() {
            true => Ok(self.store.exists(&file.path)?),
            false => Ok(load::difference(&self.store, file)?.is_none()),
        }
    }

    /// Tells whether all that became of the lost rows since an older commit is told by the changes, and
    /// since which: the newest of which all parts of their time are whole, or the very first.
    fn followed_from(
        &self,
        scan: &Scan<'_>,
        older: &BTreeMap<Seq, Vec<PartFile>>,
        gap: Seq,
    ) -> (bool, Seq) {
        let from = gap.max(scan.changes_from());
        let is_whole =
            |parts: &[PartFile]| parts.iter().all(|part| !scan.bad.contains_key(&part.file.path));
        let whole = older.range(from..).rev().find(|(_, parts)| is_whole(parts));
        match whole {
            Some((seq, _)) => (true, *seq),
            None => (from == Seq(0), Seq(0)),
        }
    }

    /// Maps the archived pages that the commit has loaded. Returns why some were not: what a later
    /// leadpipe wrote is not guessed at.
    fn take_archived(
        &self,
        settings: &SourceSettings,
        source: &SourceCommit,
        base: &Commit,
        key: &Key,
        rebuild: &mut Rebuild,
    ) -> Result<Option<String>> {
        let mappings = settings::mappings(settings)?;
        let transform = settings::transform(settings, key);
        let names = std::iter::once(&settings.name).chain(&source.was);
        let mut seen: BTreeMap<WalkId, u64> = BTreeMap::new();
        for segment in segments_of(&self.store, names)? {
            let loaded = loaded_of(&segment.walk, base);
            let pages = seen.entry(segment.walk.clone()).or_default();
            let mut walk: Option<Arc<Walk>> = None;
            let read = archive::read_segment(&self.store, &segment.path, |record| {
                match (record, &walk) {
                    (Record::Opened(opened, before), _) => {
                        // What is lost of those before keeps its places.
                        *pages = (*pages).max(before.unwrap_or(0));
                        walk = Some(Arc::new(*opened));
                    }
                    (Record::Page(page), Some(walk)) => {
                        *pages += 1;
                        let mapping = mappings.get(walk.scope.stream.as_str());
                        let Some(mapping) = mapping.filter(|_| *pages <= loaded) else {
                            return Ok(());
                        };
                        let page = HeldPage::from_archive(Arc::clone(walk), *page, 0, None);
                        let mapped = match page.map(&**mapping, &transform) {
                            Ok(mapped) => mapped,
                            Err(error @ Error::Transform(_)) => {
                                let path = &segment.path;
                                tracing::warn!(path, page = *pages, %error, "passed over a page");
                                return Ok(());
                            }
                            Err(error) => return Err(error),
                        };
                        rebuild.take_leads(&mapped.leads, &page.recency(&mapped.places))?;
                    }
                    _ => {}
                }
                Ok::<(), Error>(())
            });
            match read {
                Ok(_) => {}
                Err(Error::Archive(error @ archive::Error::Version { .. })) => {
                    return Ok(Some(chain(&error)));
                }
                // What cannot be read tells nothing; a disk that fails is another matter.
                Err(Error::Archive(error)) if !is_of_disk(&error) => {
                    tracing::warn!(%error, "passed over a segment");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

/// Returns the parts that older living commits have of the time of lost ones, by commit.
fn older_parts(
    scan: &Scan<'_>,
    base: &Commit,
    name: &SourceName,
    lost: &[PartFile],
) -> BTreeMap<Seq, Vec<PartFile>> {
    let overlaps = |part: &PartFile| {
        lost.iter().any(|lost| {
            part.partition == lost.partition
                && part.first_lead_id <= lost.last_lead_id
                && lost.first_lead_id <= part.last_lead_id
        })
    };
    let older = scan.living().filter(|commit| commit.seq < base.seq);
    let of_source = older.filter_map(|commit| Some((commit.seq, commit.sources.get(name)?)));
    of_source
        .map(|(seq, source)| {
            (seq, source.parts.iter().filter(|part| overlaps(part)).cloned().collect())
        })
        .collect()
}

fn segments_of<'a>(
    store: &Store,
    names: impl Iterator<Item = &'a SourceName>,
) -> Result<Vec<archive::SegmentName>> {
    let mut segments = Vec::new();
    for name in names {
        segments.extend(archive::segments(store, name)?);
    }
    Ok(segments)
}

/// Returns how many pages of a walk are loaded in a commit: all of one that it does not list as open,
/// unless it was opened since.
fn loaded_of(walk: &WalkId, base: &Commit) -> u64 {
    let mut open = base.checkpoint.sources.values().flat_map(|progress| &progress.open_walks);
    match open.find(|open| open.walk.id == *walk) {
        Some(open) => open.loaded_pages,
        None if walk.opened_under().is_some_and(|under| under >= base.seq) => 0,
        None => u64::MAX,
    }
}
