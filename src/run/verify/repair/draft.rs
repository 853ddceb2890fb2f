//! What the commit of a repair changes, and that commit.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use super::Repairer;
use crate::archive;
use crate::checkpoint::Checkpoint;
use crate::checkpoint::OpenWalk;
use crate::commit;
use crate::commit::Commit;
use crate::commit::SourceCommit;
use crate::config::ParquetCompression;
use crate::ids::Seq;
use crate::ids::SourceName;
use crate::ids::WalkId;
use crate::load;
use crate::load::ChangeWriter;
use crate::run::Result;
use crate::run::settings;
use crate::schema::lead;

/// What the commit of a repair changes.
#[derive(Default)]
pub(super) struct Draft {
    /// Sources whose parts are others now.
    pub(super) sources: BTreeMap<SourceName, SourceCommit>,
    /// Loaders that have an older commit take the whole snapshot.
    pub(super) cut: Option<Seq>,
    /// Partitions of which rows may be missing, or too many.
    pub(super) withdrawn: Vec<(SourceName, String)>,
    /// Snapshots up to here cannot be shown any more.
    pub(super) ends: Option<Seq>,
    /// Files that stay as they are, since something is missing that they could be made again with.
    pub(super) left: BTreeSet<String>,
}

impl Draft {
    pub(super) fn cut_at(&mut self, seq: Seq) {
        self.cut = self.cut.max(Some(seq));
    }
}

impl Repairer {
    pub(super) fn commit(
        &mut self,
        base: Option<Commit>,
        seq: Seq,
        draft: &mut Draft,
    ) -> Result<Seq> {
        let now = self.clock.now();
        let key = match &base {
            Some(_) => None,
            None => Some(self.key(None)?),
        };
        let (store, run) = (&self.store, &self.holder.run);
        let compression = ParquetCompression::Zstd;
        let (schema, limits) = (lead::arrow_schema(), settings::limits(&self.job)?);
        let changes = ChangeWriter::create(store, run, seq, &schema, compression, limits)?;
        let changes = changes.finish()?;
        let base_seq = base.as_ref().map_or(Seq(0), |base| base.seq);
        let mut commit = Commit {
            seq,
            parent: Some(Seq(seq.0 - 1)).filter(|parent| parent.0 > 0),
            run: run.clone(),
            job: self.job.name.clone(),
            command: self.holder.command.clone(),
            created_at: now,
            leadpipe: env!("CARGO_PKG_VERSION").to_owned(),
            schema_version: lead::LEAD_SCHEMA_VERSION,
            key_fingerprint: key.map(|key| key.fingerprint().to_owned()).unwrap_or_default(),
            sources: BTreeMap::new(),
            checkpoint: Checkpoint::default(),
            changes,
            changes_from: draft.cut,
            rejects: Vec::new(),
            snapshot: seq,
            archive_checked_at: None,
        };
        if let Some(base) = base {
            commit.schema_version = base.schema_version;
            commit.key_fingerprint = base.key_fingerprint;
            commit.archive_checked_at = base.archive_checked_at;
            commit.checkpoint = base.checkpoint;
            commit.sources = base.sources;
            if draft.sources.is_empty() && base.seq.next() == seq {
                commit.snapshot = base.snapshot;
            }
        }
        commit.sources.append(&mut draft.sources);
        for (source, partition) in &draft.withdrawn {
            if let Some(progress) = commit.checkpoint.sources.get_mut(source) {
                progress.withdraw(load::span(partition).as_ref());
                // What is held of them may be what is missing: it is loaded once more.
                progress.open_walks.iter_mut().for_each(|open| open.loaded_pages = 0);
            }
        }
        commit.checkpoint.adopt(self.walks_since(base_seq, &commit.checkpoint)?);
        commit::write(&self.store, &commit)?;
        Ok(seq)
    }

    /// Returns the walks that were opened under a commit or a later one and that it does not list.
    fn walks_since(
        &self,
        base: Seq,
        checkpoint: &Checkpoint,
    ) -> Result<BTreeMap<SourceName, Vec<OpenWalk>>> {
        let listed: BTreeSet<&WalkId> = checkpoint
            .sources
            .values()
            .flat_map(|progress| &progress.open_walks)
            .map(|open| &open.walk.id)
            .collect();
        let mut walks: BTreeMap<SourceName, Vec<OpenWalk>> = BTreeMap::new();
        for name in self.store.list("archive")? {
            let Ok(source) = name.parse::<SourceName>() else { continue };
            let mut found: Vec<OpenWalk> = Vec::new();
            for segment in archive::segments(&self.store, &source)? {
                let is_since = segment.walk.opened_under().is_some_and(|under| under >= base);
                let is_known = found.iter().any(|open| open.walk.id == segment.walk);
                if !is_since || is_known || listed.contains(&segment.walk) {
                    continue;
                }
                if let Ok(Some(walk)) = archive::opening_of(&self.store, &segment.path) {
                    // One that is old by now is dropped and its time read again: leads of it may be
                    // gone since, and what it shows would be believed.
                    let (stated_rows, advanced_at) = (None, None);
                    found.push(OpenWalk { walk, loaded_pages: 0, stated_rows, advanced_at });
                }
            }
            found.sort_by_key(|open| open.walk.opened_at);
            if !found.is_empty() {
                walks.insert(source, found);
            }
        }
        Ok(walks)
    }
}
