//! Commits: parts, changes and rejects of all sources, and the one file that makes them visible.

use super::Loaded;
use super::Loader;
use super::loading::Loading;
use super::shown::ShownIds;
use crate::checkpoint::CaughtByMonth;
use crate::commit;
use crate::commit::Commit;
use crate::commit::SourceCommit;
use crate::commit::SourceState;
use crate::ids::Seq;
use crate::ids::SourceName;
use crate::load;
use crate::load::ChangeWriter;
use crate::run::Error;
use crate::run::Result;
use crate::run::event::Event;
use crate::run::look;
use crate::run::settings;
use crate::run::summary::State;
use crate::schema::RejectFile;
use crate::schema::lead;
use std::collections::BTreeMap;

impl Loader {
    pub(super) fn next_seq(&self) -> Seq {
        self.head.as_ref().map_or(Seq(0), |head| head.seq).next()
    }

    /// Writes parts, changes and rejects of all sources, and the commit that makes them visible.
    pub(super) fn commit(&mut self, is_last: bool) -> Result<()> {
        self.last_commit_at = self.clock.now();
        let is_first = self.head.is_none();
        let matters = |loading: &Loading| loading.dirty && !(is_first && loading.has_nothing());
        if !self.sources.values().any(matters) {
            return Ok(());
        }
        let (seq, now) = (self.next_seq(), self.clock.now());
        let (output, limits) = (settings::output(&self.job), settings::limits(&self.job)?);
        let schema = lead::arrow_schema();
        let mut changes =
            ChangeWriter::create(&self.store, &self.run, seq, &schema, output.compression, limits)?;
        let mut sources = self.carried_over();
        let mut rejects = Vec::new();
        for name in self.sources.keys().cloned().collect::<Vec<_>>() {
            let published = self.publish(&name, seq, &mut changes)?;
            sources.insert(name.clone(), published);
            rejects.extend(self.finish_rejects(&name)?);
        }
        let changes = changes.finish()?;
        self.note_loaded();
        let parts_differ =
            self.head.as_ref().is_none_or(|head| parts_of(&head.sources) != parts_of(&sources));
        let parent = self.head.as_ref();
        let commit = Commit {
            seq,
            parent: parent.map(|head| head.seq),
            run: self.run.clone(),
            job: self.job.name.clone(),
            command: self.command.clone(),
            created_at: now,
            leadpipe: env!("CARGO_PKG_VERSION").to_owned(),
            schema_version: lead::LEAD_SCHEMA_VERSION,
            key_fingerprint: self.key.fingerprint().to_owned(),
            snapshot: parent.filter(|_| !parts_differ).map_or(seq, |head| head.snapshot),
            archive_checked_at: self.archive_checked_at(now, is_last),
            sources,
            checkpoint: self.checkpoint.clone(),
            changes,
            changes_from: None,
            rejects,
        };
        self.make_visible(commit)
    }

    fn make_visible(&mut self, commit: Commit) -> Result<()> {
        commit::write_or_discard(&self.store, &commit)?;
        // Whoever has taken the lake meanwhile shows what is newer.
        if commit::is_held(&self.store, &self.run)? {
            commit::derive(&self.store, &commit)?;
        }
        self.observer.observe(&Event::Committed {
            seq: commit.seq,
            rows: commit.sources.values().map(|source| source.rows).sum(),
            changes: commit.changes.rows,
        });
        self.committed = Some(commit.seq);
        self.head = Some(commit);
        Ok(())
    }

    /// Sources this run does not read: other jobs', and those their own job no longer names.
    fn carried_over(&self) -> BTreeMap<SourceName, SourceCommit> {
        let mut sources = self.head.as_ref().map(|head| head.sources.clone()).unwrap_or_default();
        for (name, source) in &mut sources {
            if self.sources.contains_key(name) {
                continue;
            }
            if self.named.contains(name) {
                continue;
            }
            source.state = match source.job == self.job.name {
                true => SourceState::Retired,
                false => SourceState::Kept,
            };
        }
        sources
    }

    fn publish(
        &mut self,
        name: &SourceName,
        seq: Seq,
        changes: &mut ChangeWriter,
    ) -> Result<SourceCommit> {
        let held = self.held(name).cloned();
        let output = settings::output(&self.job);
        let as_of = self.as_of(name).or_else(|| held.as_ref()?.as_of);
        let has_gaps = self.read_since(name).is_none();
        let now = self.clock.now();
        let partitioning = held.as_ref().map_or(self.job.load.partition, |held| held.partition);
        let Some(loading) = self.sources.get_mut(name) else {
            return Err(Error::Bug("a source that is not loaded was to be published"));
        };
        let parts = held.as_ref().map(|held| held.parts.clone()).unwrap_or_default();
        let staging = loading.take_staging(partitioning)?;
        let published = load::publish(
            staging,
            &load::Publish {
                store: &self.store,
                run: &self.run,
                seq,
                source: name,
                parts: &parts,
                gone: &loading.gone,
                gone_at: now,
                output: &output,
                mode: load::Mode::Merge,
                rewrite: false,
                limits: settings::limits(&self.job)?,
                readings: &loading.readings,
            },
            changes,
        )?;
        loading.gone.clear();
        loading.readings = load::Readings::default();
        loading.dirty = false;
        loading.note_published(&published);
        let progress = self.checkpoint.sources.entry(name.clone()).or_default();
        let caught = progress.caught.get_or_insert_with(|| CaughtByMonth::new(now));
        caught.add(&published.caught, now);
        Ok(SourceCommit {
            provider: loading.settings.provider_id(),
            job: self.job.name.clone(),
            mapping: loading.transform.fingerprint(loading.settings.provider_id()),
            settings: settings::fingerprint(&self.job),
            partition: partitioning,
            format: self.job.load.format,
            rows: published.rows,
            parts: published.parts,
            as_of,
            state: commit_state(loading.summary.state, has_gaps),
            why: loading.summary.why.clone(),
            was: held.map(|held| held.was).unwrap_or_default(),
        })
    }

    fn finish_rejects(&mut self, name: &SourceName) -> Result<Option<RejectFile>> {
        let Some(loading) = self.sources.get_mut(name) else { return Ok(None) };
        let Some((file, rows)) = loading.rejects.take() else { return Ok(None) };
        Ok(Some(RejectFile { file: file.finish()?, rows }))
    }

    /// Puts into the checkpoint how many pages of each open walk are loaded.
    fn note_loaded(&mut self) {
        for (name, loading) in &self.sources {
            let Some(progress) = self.checkpoint.sources.get_mut(name) else { continue };
            for open in &mut progress.open_walks {
                if let Some(opened) = loading.open.get(&open.walk.id) {
                    open.loaded_pages = opened.loaded;
                }
            }
        }
    }

    pub(super) fn finish(mut self) -> Result<Loaded> {
        for (name, loading) in &mut self.sources {
            let held = self.head.as_ref().and_then(|head| head.sources.get(name));
            loading.summary.rows = held.map_or(0, |held| held.rows);
            if let Some(progress) = self.checkpoint.sources.get(name) {
                loading.summary.smaller_pages = look::smaller_pages(&loading.settings, progress);
            }
            // What it has spilled is let go of before its folder goes.
            let shown = loading.shown.take();
            let shared_ids = shown.as_ref().map(ShownIds::shared).transpose()?;
            loading.summary.shared_ids = shared_ids.unwrap_or(0);
            loading.summary.new_fields = loading.new_fields.iter().cloned().collect();
            loading.summary.emptied_columns = loading.emptied_columns(&self.store)?;
        }
        let is_held = commit::is_held(&self.store, &self.run)?;
        if let Some(head) = self.head.as_ref().filter(|_| is_held) {
            self.let_go(head);
        }
        self.store.remove_scratch(&self.run)?;
        let sources = self.sources.into_iter().map(|(name, loading)| (name, loading.summary));
        Ok(Loaded { head: self.head, committed: self.committed, sources: sources.collect() })
    }
}

/// What readers see of each part: its files, in the forms the job wants.
fn parts_of(sources: &BTreeMap<SourceName, SourceCommit>) -> Vec<(Option<&str>, Option<&str>)> {
    let parts = sources.values().flat_map(|source| {
        source.parts.iter().map(|part| {
            let parquet = source.format.shows_parquet().then_some(part.file.path.as_str());
            let csv = part.csv.as_ref().filter(|_| source.format.shows_csv());
            (parquet, csv.map(|csv| csv.path.as_str()))
        })
    });
    parts.collect()
}

/// A run can do all that it planned and leave time unread: a backfill of a part of the history.
fn commit_state(state: State, has_gaps: bool) -> SourceState {
    match state {
        State::Complete if !has_gaps => SourceState::Complete,
        State::Complete | State::Partial => SourceState::Partial,
        State::Failed | State::Refused => SourceState::Failed,
    }
}
