//! Maps the archive again: the leads of the last commit, without a request.
//!
//! Every archived record is mapped; of each lead the last commit holds, the newest takes the place
//! of the row, which keeps its lineage. What is not held stays away: deleted is deleted. A row
//! whose record is no longer archived stays as it is, and is counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Error;
use super::Observer;
use super::Options;
use super::Result;
use super::Run;
use super::State;
use super::Stop;
use super::Summary;
use super::event::Event;
use super::loader::HeldPage;
use super::loader::Loaded;
use super::settings;
use super::summary::Leads;
use super::summary::SourceSummary;
use crate::archive;
use crate::archive::Record;
use crate::clock::SharedClock;
use crate::commit;
use crate::commit::Commit;
use crate::commit::SourceCommit;
use crate::config::Job;
use crate::config::SourceSettings;
use crate::ids::Seq;
use crate::ids::SourceName;
use crate::load;
use crate::load::ChangeWriter;
use crate::load::Staging;
use crate::record::Walk;
use crate::schema::lead;

/// Maps the archive of all sources of a job again.
pub async fn replay(
    job: Job,
    options: Options,
    clock: SharedClock,
    observer: Arc<dyn Observer>,
) -> Result<Summary> {
    let mut run = Run::open(job, "replay", options, clock, observer).await?;
    let sources: Vec<SourceName> = run.job.sources.iter().map(|s| s.name.clone()).collect();
    let replayed = run.replay_sources(sources).await;
    if let Err(error) = &replayed {
        super::record_failure(&run.lake.store, &run.lake.holder, error, run.clock.now());
    }
    let (committed, summaries) = replayed?;
    let head = run.lake.head.clone();
    run.close(Loaded { head, committed, sources: summaries })
}

type Replayed = (Option<Seq>, BTreeMap<SourceName, SourceSummary>);

impl Run {
    /// One schema and one mapping a snapshot: where a setting of the mapping has changed, what is
    /// held is mapped again before anything is read.
    pub(super) async fn replay_where_the_mapping_changed(&mut self) -> Result<()> {
        let Some(head) = &self.lake.head else { return Ok(()) };
        let changed = |source: &&SourceSettings| {
            let held = head.sources.get(&source.name);
            held.is_some_and(|held| held.mapping != self.mapping_of(source))
        };
        let sources: Vec<SourceName> =
            self.job.sources.iter().filter(changed).map(|source| source.name.clone()).collect();
        if sources.is_empty() {
            return Ok(());
        }
        let (_, replayed) = self.replay_sources(sources.clone()).await?;
        match sources.iter().all(|source| replayed.contains_key(source)) {
            true => Ok(()),
            // The others must not be read under a mapping that their rows do not have.
            false => self.options.stop.check(),
        }
    }

    async fn replay_sources(&mut self, sources: Vec<SourceName>) -> Result<Replayed> {
        let Some(mut head) = self.lake.head.clone() else { return Ok((None, BTreeMap::new())) };
        head.checkpoint.adopt(self.lake.orphans()?);
        for source in &sources {
            self.observer.observe(&Event::Replaying { source: source.clone() });
        }
        let replaying = Replaying {
            job: Arc::clone(&self.job),
            store: self.lake.store.clone(),
            run: self.lake.holder.run.clone(),
            command: self.lake.holder.command.clone(),
            key: self.lake.key.clone(),
            now: self.clock.now(),
            stop: self.options.stop.clone(),
            observer: Arc::clone(&self.observer),
            head,
        };
        let replayed = tokio::task::spawn_blocking(move || replaying.make(&sources)).await;
        let (commit, summaries) = replayed.map_err(|_| Error::Bug("the replay panicked"))??;
        let seq = commit.seq;
        self.lake.head = Some(commit);
        Ok((Some(seq), summaries))
    }
}

struct Replaying {
    job: Arc<Job>,
    store: crate::store::Store,
    run: crate::ids::RunId,
    command: String,
    key: commit::Key,
    now: chrono::DateTime<chrono::Utc>,
    stop: Stop,
    observer: Arc<dyn Observer>,
    head: Commit,
}

impl Replaying {
    fn make(self, sources: &[SourceName]) -> Result<(Commit, BTreeMap<SourceName, SourceSummary>)> {
        let seq = self.head.seq.next();
        let schema = lead::arrow_schema();
        let (output, limits) = (settings::output(&self.job), settings::limits(&self.job)?);
        let mut changes =
            ChangeWriter::create(&self.store, &self.run, seq, &schema, output.compression, limits)?;
        let mut replayed = self.head.sources.clone();
        let mut summaries = BTreeMap::new();
        for settings in self.job.sources.iter().filter(|source| sources.contains(&source.name)) {
            let Some(held) = self.head.sources.get(&settings.name) else { continue };
            let (source, summary) = match self.replay_source(settings, held, seq, &mut changes) {
                // What is done of the others stays done.
                Err(Error::Stopped(_)) if !summaries.is_empty() => break,
                replayed => replayed?,
            };
            replayed.insert(settings.name.clone(), source);
            summaries.insert(settings.name.clone(), summary);
        }
        let changes = changes.finish()?;
        let same = replayed.iter().all(|(name, source)| {
            let held = self.head.sources.get(name);
            held.is_some_and(|held| held.parts == source.parts && held.format == source.format)
        });
        let commit = Commit {
            seq,
            parent: Some(self.head.seq),
            run: self.run.clone(),
            job: self.job.name.clone(),
            command: self.command.clone(),
            created_at: self.now,
            leadpipe: env!("CARGO_PKG_VERSION").to_owned(),
            schema_version: lead::LEAD_SCHEMA_VERSION,
            snapshot: if same { self.head.snapshot } else { seq },
            sources: replayed,
            changes,
            changes_from: None,
            rejects: Vec::new(),
            ..self.head.clone()
        };
        commit::write_or_discard(&self.store, &commit)?;
        if commit::is_held(&self.store, &self.run)? {
            commit::derive(&self.store, &commit)?;
        }
        self.observer.observe(&Event::Committed {
            seq,
            rows: commit.sources.values().map(|source| source.rows).sum(),
            changes: commit.changes.rows,
        });
        self.store.remove_scratch(&self.run)?;
        Ok((commit, summaries))
    }

    fn replay_source(
        &self,
        settings: &SourceSettings,
        held: &SourceCommit,
        seq: Seq,
        changes: &mut ChangeWriter,
    ) -> Result<(SourceCommit, SourceSummary)> {
        let mut summary = SourceSummary { state: State::Complete, ..SourceSummary::default() };
        let staging = self.stage(settings, held, &mut summary)?;
        let published = load::publish(
            staging,
            &load::Publish {
                store: &self.store,
                run: &self.run,
                seq,
                source: &settings.name,
                parts: &held.parts,
                gone: &std::collections::BTreeSet::new(),
                gone_at: self.now,
                output: &settings::output(&self.job),
                mode: load::Mode::Replay,
                rewrite: false,
                limits: settings::limits(&self.job)?,
                readings: &load::Readings::default(),
            },
            changes,
        )?;
        let counts = published.counts;
        summary.leads = Leads {
            changed: counts.changed,
            moved: counts.moved,
            unchanged: counts.unchanged,
            ..Leads::default()
        };
        summary.rows = published.rows;
        let source = SourceCommit {
            job: self.job.name.clone(),
            mapping: settings::transform(settings, &self.key).fingerprint(settings.provider_id()),
            settings: settings::fingerprint(&self.job),
            format: self.job.load.format,
            rows: published.rows,
            parts: published.parts,
            ..held.clone()
        };
        Ok((source, summary))
    }

    /// Maps all archived pages of a source.
    fn stage(
        &self,
        source: &SourceSettings,
        held: &SourceCommit,
        summary: &mut SourceSummary,
    ) -> Result<Staging> {
        let scratch = self.store.scratch(&self.run);
        // One source after the other: each may take all there is.
        let merged = settings::room(&self.job)?.merged;
        let room = load::Room { staged: merged, merged };
        let mut staging = Staging::new(scratch, lead::arrow_schema(), held.partition, room)?;
        let mappings = settings::mappings(source)?;
        let transform = settings::transform(source, &self.key);
        for segment in archive::segments(&self.store, &source.name)? {
            let mut walk: Option<Arc<Walk>> = None;
            archive::read_segment(&self.store, &segment.path, |record| {
                self.stop.check()?;
                match (record, &walk) {
                    (Record::Opened(opened, _), _) => walk = Some(Arc::new(*opened)),
                    (Record::Page(page), Some(walk)) => {
                        let Some(mapping) = mappings.get(walk.scope.stream.as_str()) else {
                            return Ok(());
                        };
                        let page = HeldPage::from_archive(Arc::clone(walk), *page, 0, None);
                        let mapped = page.map(&**mapping, &transform)?;
                        summary.pages_from_archive += 1;
                        summary.records += mapped.places.len() as u64;
                        let recency = page.recency(&mapped.places);
                        staging.add(mapped.leads, &recency)?;
                    }
                    _ => {}
                }
                Ok::<(), Error>(())
            })?;
        }
        Ok(staging)
    }
}
