//! Takes held pages, maps and stages them, and commits: the one place that writes the lake.
//!
//! It runs on a thread of its own, fed through a bounded channel, so that mapping, sorting and
//! writing never hold up requests. Messages of one walk come in order: opened, pages, closed.
//! Memory: one page being mapped, and each source's staging budget.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

use super::Error;
use super::Result;
use super::event::Event;
use super::event::Observer;
use super::gone::Absences;
use super::gone::Candidate;
use super::gone::Decision;
use super::settings;
use super::summary::SourceSummary;
use super::summary::State;
use crate::archive::ArchivedPage;
use crate::checkpoint::Absent;
use crate::checkpoint::Checkpoint;
use crate::checkpoint::Difference;
use crate::checkpoint::OpenWalk;
use crate::checkpoint::Partitions;
use crate::checkpoint::ScopeProgress;
use crate::checkpoint::SourceProgress;
use crate::clock::SharedClock;
use crate::commit;
use crate::commit::Commit;
use crate::commit::Key;
use crate::commit::SourceCommit;
use crate::commit::SourceState;
use crate::config::Job;
use crate::config::Partitioning;
use crate::config::SourceSettings;
use crate::extract::Outcome;
use crate::extract::Slot;
use crate::ids::RunId;
use crate::ids::Seq;
use crate::ids::SourceName;
use crate::ids::WalkId;
use crate::load;
use crate::load::ChangeWriter;
use crate::load::Staging;
use crate::record::PageHeader;
use crate::record::Reason;
use crate::record::Recency;
use crate::record::Scope;
use crate::record::ScopeKey;
use crate::record::Walk;
use crate::record::id_hash;
use crate::schema::PartFile;
use crate::schema::RejectFile;
use crate::schema::lead;
use crate::store::NewFile;
use crate::store::Store;
use crate::transform;
use crate::window::Covered;
use crate::window::Window;

/// A page on its way to the leads.
#[derive(Debug)]
pub(super) struct HeldPage {
    pub(super) walk: Arc<Walk>,
    pub(super) header: PageHeader,
    pub(super) run: String,
    /// `<segment path>#<page>`.
    pub(super) location: String,
    /// Its place among the walk's held pages, in the order of the archive, from 0.
    pub(super) index: u64,
    pub(super) body: bytes::Bytes,
    /// Whether it came from the archive rather than from the provider.
    pub(super) from_archive: bool,
    pub(super) slot: Option<Slot>,
}

impl HeldPage {
    /// Returns a page of `walk` as the archive has it.
    pub(super) fn from_archive(
        walk: Arc<Walk>,
        page: ArchivedPage,
        index: u64,
        slot: Option<Slot>,
    ) -> Self {
        Self {
            walk,
            header: page.header,
            run: page.run.to_string(),
            location: page.location,
            index,
            body: page.body,
            from_archive: true,
            slot,
        }
    }

    /// Maps its records.
    pub(super) fn map(
        &self,
        mapping: &dyn transform::Mapping,
        settings: &transform::Settings,
    ) -> Result<transform::Mapped> {
        let scope = &self.walk.scope;
        let page = transform::Page {
            source: scope.source.as_str(),
            stream: &scope.stream,
            scope_label: &scope.label(),
            run: &self.run,
            received_at: self.header.received_at,
            location: &self.location,
            body: &self.body,
        };
        Ok(mapping.map(&page, settings)?)
    }

    /// Returns how recent its rows are, of which `places` are the places in the page.
    pub(super) fn recency(&self, places: &[u32]) -> Vec<Recency> {
        let received_us = self.header.received_at.timestamp_micros();
        let walk_us = self.walk.opened_at.timestamp_micros();
        let offset = i64::try_from(self.header.offset()).unwrap_or(i64::MAX);
        let place = |place: &u32| offset.saturating_add(i64::from(*place));
        places.iter().map(|p| Recency { received_us, walk_us, place: place(p) }).collect()
    }
}

/// What the loader is told.
#[derive(Debug)]
pub(super) enum Message {
    Listed(SourceName, Partitions),
    /// The scopes the source has now.
    Planned(SourceName, BTreeSet<ScopeKey>),
    /// A walk is to be opened: it gets its id here, so that every commit from now on lists it.
    NewWalk {
        draft: Box<Walk>,
        answer: oneshot::Sender<Arc<Walk>>,
    },
    /// A walk that an earlier run began goes on.
    Resumed {
        walk: Arc<Walk>,
        loaded: u64,
    },
    Dropped(SourceName, WalkId),
    Page(Box<HeldPage>),
    Closed {
        walk: Arc<Walk>,
        outcome: Box<Outcome>,
        resumed: bool,
    },
    WindowDays(Scope, u32),
    /// A range is asked for.
    Backfill {
        key: String,
        backfill: crate::checkpoint::Backfill,
    },
    /// All sources of a range have ended; where all are complete, so is it.
    BackfillDone {
        key: String,
    },
    /// Which rows did the closed walks not show?
    FindAbsent(SourceName, oneshot::Sender<Absences>),
    Decided(SourceName, Box<Decision>),
    /// A source is done; what its task knows of it.
    Done(SourceName, Box<SourceSummary>),
}

/// What a run has, when it begins to load.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) store: Store,
    pub(super) run: RunId,
    pub(super) command: String,
    pub(super) head: Option<Commit>,
    pub(super) key: Key,
    pub(super) orphans: BTreeMap<SourceName, Vec<OpenWalk>>,
    /// Bytes of staged leads kept in memory, over all sources.
    pub(super) staging_bytes: usize,
}

/// What a run has, when all is loaded.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) head: Option<Commit>,
    pub(super) committed: Option<Seq>,
    pub(super) sources: BTreeMap<SourceName, SourceSummary>,
}

/// The loader of one run.
pub(super) struct Loader {
    store: Store,
    run: RunId,
    command: String,
    job: Arc<Job>,
    key: Key,
    clock: SharedClock,
    observer: Arc<dyn Observer>,
    head: Option<Commit>,
    checkpoint: Checkpoint,
    sources: BTreeMap<SourceName, Loading>,
    committed: Option<Seq>,
    last_commit_at: DateTime<Utc>,
}

/// What is being loaded of one source.
struct Loading {
    settings: SourceSettings,
    transform: transform::Settings,
    mapping: Box<dyn transform::Mapping>,
    staging: Staging,
    scratch: std::path::PathBuf,
    budget: usize,
    rejects: Option<(NewFile, u64)>,
    /// The scopes it has now; none before it is planned.
    scopes: BTreeSet<ScopeKey>,
    open: HashMap<WalkId, Opened>,
    closed: Vec<ClosedWalk>,
    shown: Vec<u64>,
    collects_shown: bool,
    gone: BTreeSet<String>,
    /// The parts held when the run began.
    parts_before: Vec<PartFile>,
    /// Values received, by column.
    filled: Vec<u64>,
    new_fields: BTreeSet<String>,
    summary: SourceSummary,
    dirty: bool,
}

#[derive(Default)]
struct Opened {
    /// Pages loaded without a gap from the first.
    loaded: u64,
    /// Pages loaded beyond a gap.
    beyond: BTreeSet<u64>,
}

struct ClosedWalk {
    scope: Scope,
    window: Option<Window>,
    opened_at: DateTime<Utc>,
    reconciled: bool,
}

impl Loader {
    pub(super) fn new(
        start: Start,
        job: Arc<Job>,
        clock: SharedClock,
        observer: Arc<dyn Observer>,
    ) -> Result<Self> {
        let mut checkpoint =
            start.head.as_ref().map(|head| head.checkpoint.clone()).unwrap_or_default();
        for (source, orphans) in start.orphans {
            let progress = checkpoint.sources.entry(source).or_default();
            progress.open_walks.extend(orphans);
        }
        let last_commit_at = clock.now();
        let mut loader = Self {
            store: start.store,
            run: start.run,
            command: start.command,
            job,
            key: start.key,
            clock,
            observer,
            head: start.head,
            checkpoint,
            sources: BTreeMap::new(),
            committed: None,
            last_commit_at,
        };
        let budget = start.staging_bytes / loader.job.sources.len().max(1);
        for settings in loader.job.sources.clone() {
            if let Some(loading) = loader.loading(settings.clone(), budget)? {
                loader.sources.insert(settings.name, loading);
            }
        }
        Ok(loader)
    }

    fn loading(&self, settings: SourceSettings, budget: usize) -> Result<Option<Loading>> {
        let provider = settings.provider_id();
        let Some(mapping) = transform::mapping(provider, settings::stream(provider)) else {
            return Ok(None);
        };
        let scratch = self.store.path(&format!("state/scratch/{}", self.run));
        let held = self.held(&settings.name);
        let partition_by = held.map_or(self.job.load.partition, |held| held.partition);
        let staging = Staging::new(scratch.clone(), lead::arrow_schema(), partition_by, budget)?;
        let collects_shown = held.is_some_and(|held| held.rows > 0);
        let parts_before = held.map(|held| held.parts.clone()).unwrap_or_default();
        Ok(Some(Loading {
            transform: settings::transform(&settings, &self.key),
            settings,
            mapping,
            staging,
            scratch,
            budget,
            rejects: None,
            scopes: BTreeSet::new(),
            open: HashMap::new(),
            closed: Vec::new(),
            shown: Vec::new(),
            collects_shown,
            gone: BTreeSet::new(),
            parts_before,
            filled: vec![0; lead::COLUMNS.len()],
            new_fields: BTreeSet::new(),
            summary: SourceSummary::default(),
            dirty: false,
        }))
    }

    fn held(&self, source: &SourceName) -> Option<&SourceCommit> {
        self.head.as_ref()?.sources.get(source)
    }

    /// Returns what was read of a source, with walks that no commit lists.
    pub(super) fn progress(&self, source: &SourceName) -> SourceProgress {
        self.checkpoint.sources.get(source).cloned().unwrap_or_default()
    }

    /// Loads until all senders are gone, commits, and says what was done.
    pub(super) fn run(mut self, mut messages: mpsc::Receiver<Message>) -> Result<Loaded> {
        while let Some(message) = messages.blocking_recv() {
            self.take(message)?;
            if self.clock.now() - self.last_commit_at >= self.job.run.publish_every {
                self.commit()?;
            }
        }
        self.commit()?;
        self.finish()
    }

    fn take(&mut self, message: Message) -> Result<()> {
        match message {
            Message::Listed(source, partitions) => {
                self.progress_mut(&source).partitions = Some(partitions);
            }
            Message::Planned(source, scopes) => {
                if let Some(loading) = self.sources.get_mut(&source) {
                    loading.scopes = scopes;
                }
            }
            Message::NewWalk { draft, answer } => {
                let id = WalkId::new(self.head.as_ref().map_or(Seq(0), |head| head.seq));
                let walk = Arc::new(Walk { id, ..*draft });
                self.open(Arc::clone(&walk), 0);
                // A task that has ended meanwhile needs no answer.
                let _ = answer.send(walk);
            }
            Message::Resumed { walk, loaded } => self.open(walk, loaded),
            Message::Dropped(source, walk) => {
                self.progress_mut(&source).open_walks.retain(|open| open.walk.id != walk);
            }
            Message::Page(page) => self.load(*page)?,
            Message::Closed { walk, outcome, resumed } => self.close(&walk, *outcome, resumed),
            Message::WindowDays(scope, days) => {
                let progress = self.progress_mut(&scope.source);
                progress.scopes.entry(scope.key()).or_default().window_days = Some(days);
            }
            Message::Backfill { key, backfill } => {
                self.checkpoint.backfills.insert(key, backfill);
            }
            Message::BackfillDone { key } => {
                let complete = |loading: &Loading| loading.summary.state == State::Complete;
                if self.sources.values().all(complete) {
                    self.checkpoint.backfills.remove(&key);
                }
            }
            Message::FindAbsent(source, answer) => {
                // A task that has ended meanwhile needs no answer.
                let _ = answer.send(self.find_absent(&source)?);
            }
            Message::Decided(source, decision) => self.decide(&source, *decision),
            Message::Done(source, summary) => self.done(&source, *summary),
        }
        Ok(())
    }

    fn progress_mut(&mut self, source: &SourceName) -> &mut SourceProgress {
        self.checkpoint.sources.entry(source.clone()).or_default()
    }

    fn open(&mut self, walk: Arc<Walk>, loaded: u64) {
        let progress = self.progress_mut(&walk.scope.source);
        if !progress.open_walks.iter().any(|open| open.walk.id == walk.id) {
            let open = OpenWalk { walk: (*walk).clone(), loaded_pages: loaded };
            progress.open_walks.push(open);
        }
        if let Some(loading) = self.sources.get_mut(&walk.scope.source) {
            let opened = Opened { loaded, beyond: BTreeSet::new() };
            loading.open.insert(walk.id.clone(), opened);
        }
    }

    fn load(&mut self, page: HeldPage) -> Result<()> {
        let source = page.walk.scope.source.clone();
        let seq = self.next_seq();
        let known = known_fields(&self.checkpoint, &page.walk.scope);
        let is_first = known.is_none();
        let Some(loading) = self.sources.get_mut(&source) else { return Ok(()) };
        let mapped = page.map(&*loading.mapping, &loading.transform)?;
        loading.reject(&self.store, &self.run, seq, &source, &page, &mapped.rejects)?;
        loading.count(&page, &mapped);
        let recency = page.recency(&mapped.places);
        loading.staging.add(mapped.leads, &recency)?;
        loading.dirty = true;
        if let Some(opened) = loading.open.get_mut(&page.walk.id) {
            opened.note_loaded(page.index);
        }
        let fresh: Vec<String> = mapped
            .unknown_fields
            .into_iter()
            .filter(|field| known.is_none_or(|known| !known.contains(field)))
            .collect();
        if !fresh.is_empty() || is_first {
            // What the very first pages of a source show is no news.
            if self.head.is_some() && !is_first {
                loading.new_fields.extend(fresh.iter().cloned());
            }
            let stream = page.walk.scope.stream.clone();
            let fields = self.progress_mut(&source).fields.entry(stream).or_default();
            fields.extend(fresh);
            fields.sort_unstable();
        }
        drop(page.slot);
        Ok(())
    }

    fn close(&mut self, walk: &Walk, outcome: Outcome, resumed: bool) {
        let source = walk.scope.source.clone();
        let reconciled = outcome.is_reconciled();
        let note = self.cover(walk, &outcome);
        let Some(loading) = self.sources.get_mut(&source) else { return };
        loading.open.remove(&walk.id);
        loading.dirty = true;
        let summary = &mut loading.summary;
        summary.walks += u64::from(walk.reason != Reason::Lookup);
        summary.resumed += u64::from(resumed);
        summary.reconciled += u64::from(reconciled);
        summary.holes += outcome.holes;
        summary.outside += outcome.outside;
        summary.requests.probes += outcome.probes;
        summary.requests.rereads += outcome.rereads;
        let key = walk.scope.key().0;
        match note {
            Note::Fine => {}
            Note::Difference(rows) => drop(summary.differences.insert(key.clone(), rows)),
            Note::Unproven => summary.unproven.push(key.clone()),
        }
        if loading.collects_shown {
            loading.shown.extend(&outcome.shown);
        }
        // What a hole or a repeated page kept from sight is not absent.
        if walk.reason != Reason::Lookup && outcome.proven && outcome.holes == 0 {
            loading.closed.push(ClosedWalk {
                scope: walk.scope.clone(),
                window: walk.window,
                opened_at: walk.opened_at,
                reconciled,
            });
        }
        if walk.reason != Reason::Lookup {
            self.observer.observe(&Event::WalkClosed {
                source,
                scope: key,
                records: outcome.distinct,
                total: outcome.last_total,
                reconciled,
            });
        }
    }

    /// Records what a closed walk covers, and what is new about its totals.
    fn cover(&mut self, walk: &Walk, outcome: &Outcome) -> Note {
        let progress = self.progress_mut(&walk.scope.source);
        progress.open_walks.retain(|open| open.walk.id != walk.id);
        let Some(window) = walk.window else { return Note::Fine };
        let scope = progress.scopes.entry(walk.scope.key()).or_default();
        scope.coverage.insert(Covered {
            window,
            as_of: walk.opened_at,
            rows: Some(outcome.distinct),
            reconciled: outcome.is_reconciled(),
            holes: outcome.holes,
        });
        scope.coverage.coalesce(TimeDelta::days(7), TimeDelta::days(400));
        if !outcome.proven {
            return Note::Unproven;
        }
        match outcome.difference().filter(|rows| *rows != 0) {
            None => {
                scope.difference = None;
                Note::Fine
            }
            Some(rows) => {
                let before = scope.difference.filter(|before| before.rows == rows);
                let seen = before.map_or(0, |before| before.seen) + 1;
                scope.difference = Some(Difference { rows, seen });
                if seen == 1 { Note::Difference(rows) } else { Note::Fine }
            }
        }
    }

    /// Finds the held rows that lie in what was read whole and that no page of the run showed.
    fn find_absent(&mut self, source: &SourceName) -> Result<Absences> {
        let parts = self.held(source).map(|held| held.parts.clone()).unwrap_or_default();
        let known = self.progress(source).absent;
        let store = self.store.clone();
        let Some(loading) = self.sources.get_mut(source) else { return Ok(Absences::default()) };
        let Some(span) = span_of(&loading.closed) else { return Ok(Absences::default()) };
        loading.shown.sort_unstable();
        loading.shown.dedup();
        let mut absences = Absences::default();
        for key in load::lead_keys(&store, &parts, span) {
            let key = key?;
            if key.deleted_at.is_some() {
                continue;
            }
            let Some(walk) = loading.closed_over(&key.scope, key.created_at) else { continue };
            *absences.held.entry(key.scope.clone()).or_default() += 1;
            if loading.was_shown(&key.lead_id) {
                continue;
            }
            absences.candidates.push(Candidate {
                missed_at: walk.opened_at,
                reconciled: walk.reconciled,
                lead_id: key.lead_id,
                scope: key.scope,
            });
        }
        let shown_again = known.iter().filter(|absent| loading.was_shown(&absent.lead_id));
        absences.shown_again = shown_again.map(|absent| absent.lead_id.clone()).collect();
        absences.read_since = self.read_since(source);
        Ok(absences)
    }

    /// Returns when the stalest reading of all the source's scopes began; `None` where one of them
    /// has a gap.
    fn read_since(&self, source: &SourceName) -> Option<DateTime<Utc>> {
        let start = self.sources.get(source)?.settings.start()?;
        self.least_of_scopes(source, |scope| {
            let whole = Window::new(start, scope.coverage.end()?)?;
            scope.coverage.as_of(&whole)
        })
    }

    /// Returns up to when everything the source has is read: the least of its scopes' ends.
    fn as_of(&self, source: &SourceName) -> Option<DateTime<Utc>> {
        self.least_of_scopes(source, |scope| scope.coverage.end())
    }

    /// Returns the least instant of the scopes the source has now; `None` where one has none.
    fn least_of_scopes(
        &self,
        source: &SourceName,
        instant: impl Fn(&ScopeProgress) -> Option<DateTime<Utc>>,
    ) -> Option<DateTime<Utc>> {
        let scopes = &self.sources.get(source)?.scopes;
        let progress = self.checkpoint.sources.get(source)?;
        let instants = scopes.iter().map(|key| instant(progress.scopes.get(key)?));
        instants.min().flatten()
    }

    fn decide(&mut self, source: &SourceName, decision: Decision) {
        let gone: Vec<Absent> = decision.absent;
        if let Some(loading) = self.sources.get_mut(source) {
            loading.summary.deletes_held_back = decision.held_back;
            loading.summary.absent = gone.iter().filter(|a| a.found_at.is_none()).count() as u64;
            loading.dirty |= !decision.gone.is_empty();
            loading.gone = decision.gone;
        }
        self.progress_mut(source).absent = gone;
    }

    /// Joins what the source's task counted with what was counted here.
    fn done(&mut self, source: &SourceName, task: SourceSummary) {
        let Some(loading) = self.sources.get_mut(source) else { return };
        let here = std::mem::take(&mut loading.summary);
        let requests = super::summary::Requests {
            probes: here.requests.probes,
            rereads: here.requests.rereads,
            ..task.requests
        };
        loading.summary = SourceSummary {
            state: task.state,
            why: task.why,
            hint: task.hint,
            resume_at: task.resume_at,
            requests,
            walks_left: task.walks_left,
            retired: task.retired,
            ..here
        };
        loading.dirty = true;
    }

    fn next_seq(&self) -> Seq {
        self.head.as_ref().map_or(Seq(0), |head| head.seq).next()
    }

    /// Writes parts, changes and rejects of all sources, and the commit that makes them visible.
    fn commit(&mut self) -> Result<()> {
        self.last_commit_at = self.clock.now();
        let is_first = self.head.is_none();
        let matters = |loading: &Loading| loading.dirty && !(is_first && loading.has_nothing());
        if !self.sources.values().any(matters) {
            return Ok(());
        }
        let (seq, now) = (self.next_seq(), self.clock.now());
        let output = settings::output(&self.job);
        let schema = lead::arrow_schema();
        let mut changes =
            ChangeWriter::create(&self.store, &self.run, seq, &schema, output.compression)?;
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
            archive_checked_at: parent.and_then(|head| head.archive_checked_at),
            sources,
            checkpoint: self.checkpoint.clone(),
            changes,
            rejects,
        };
        self.make_visible(commit)
    }

    fn make_visible(&mut self, commit: Commit) -> Result<()> {
        if let Err(error) = commit::write(&self.store, &commit) {
            commit::discard(&self.store, &self.run)?;
            return Err(error.into());
        }
        commit::derive(&self.store, &commit)?;
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
            if self.job.sources.iter().any(|settings| settings.name == *name) {
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
                limits: load::Limits::default(),
            },
            changes,
        )?;
        loading.gone.clear();
        loading.dirty = false;
        loading.collects_shown |= published.rows > 0 && !parts.is_empty();
        loading.note_published(&published);
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
            state: commit_state(loading.summary.state),
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

    fn finish(mut self) -> Result<Loaded> {
        for (name, loading) in &mut self.sources {
            let held = self.head.as_ref().and_then(|head| head.sources.get(name));
            loading.summary.rows = held.map_or(0, |held| held.rows);
            loading.summary.new_fields = loading.new_fields.iter().cloned().collect();
            loading.summary.emptied_columns = loading.emptied_columns(&self.store)?;
        }
        if let Some(head) = &self.head {
            self.keep(head)?;
        }
        self.store.remove_all(&format!("state/scratch/{}", self.run))?;
        let sources = self.sources.into_iter().map(|(name, loading)| (name, loading.summary));
        Ok(Loaded { head: self.head, committed: self.committed, sources: sources.collect() })
    }

    /// Lets go of what is no longer kept. What cannot be let go of does not make the run fail.
    fn keep(&self, head: &Commit) -> Result<()> {
        let keep = &self.job.keep;
        let settings = commit::Keep {
            snapshots: keep.snapshots,
            snapshot_age: keep.snapshot_age,
            changes: keep.changes,
        };
        if let Err(error) = commit::keep(&self.store, &settings, self.clock.now(), head) {
            tracing::warn!(%error, "failed to remove what is no longer kept");
        }
        Ok(())
    }
}

/// What is new about a walk's totals.
enum Note {
    Fine,
    Difference(i64),
    Unproven,
}

impl Loading {
    fn count(&mut self, page: &HeldPage, mapped: &transform::Mapped) {
        let summary = &mut self.summary;
        summary.pages += u64::from(!page.from_archive);
        summary.pages_from_archive += u64::from(page.from_archive);
        summary.rejects += mapped.rejects.len() as u64;
        summary.records += (mapped.places.len() + mapped.rejects.len()) as u64;
        for (column, count) in &mapped.warnings {
            *summary.warnings.entry((*column).to_owned()).or_default() += count;
        }
        for (index, column) in mapped.leads.columns().iter().enumerate() {
            self.filled[index] += (column.len() - column.null_count()) as u64;
        }
    }

    /// Keeps records that could not be mapped, whole, with reason and place.
    fn reject(
        &mut self,
        store: &Store,
        run: &RunId,
        seq: Seq,
        source: &SourceName,
        page: &HeldPage,
        rejects: &[transform::Reject],
    ) -> Result<()> {
        for reject in rejects {
            if self.rejects.is_none() {
                let path = format!("rejects/{seq}-{run}-{source}.jsonl");
                self.rejects = Some((store.new_file(&path)?, 0));
            }
            let Some((file, rows)) = &mut self.rejects else { continue };
            let line = serde_json::json!({
                "source": source,
                "reason": reject.reason,
                "place": format!("{}:{}", page.location, reject.index),
                "record": reject.record,
            });
            writeln!(file, "{line}").map_err(Error::Rejects)?;
            *rows += 1;
        }
        Ok(())
    }

    fn take_staging(&mut self, partitioning: Partitioning) -> Result<Staging> {
        let fresh =
            Staging::new(self.scratch.clone(), lead::arrow_schema(), partitioning, self.budget)?;
        Ok(std::mem::replace(&mut self.staging, fresh))
    }

    /// Tells whether nothing at all was read: no reason to make a lake's first commit.
    fn has_nothing(&self) -> bool {
        self.staging.rows() == 0 && self.open.is_empty() && self.summary.walks == 0
    }

    fn note_published(&mut self, published: &load::Published) {
        let (leads, counts) = (&mut self.summary.leads, published.counts);
        leads.new += counts.new;
        leads.changed += counts.changed;
        leads.moved += counts.moved;
        leads.gone += counts.gone;
        leads.unchanged += counts.unchanged;
        self.summary.guarded_cells += published.guarded_cells;
        self.summary.rows = published.rows;
    }

    /// Returns the walk of this run that read the place of a row whole.
    fn closed_over(&self, label: &str, created_at: Option<DateTime<Utc>>) -> Option<&ClosedWalk> {
        self.closed.iter().find(|closed| {
            let inside = match (closed.window, created_at) {
                (Some(window), Some(at)) => window.contains(at),
                (None, _) => true,
                (Some(_), None) => false,
            };
            inside && closed.scope.label() == label
        })
    }

    fn was_shown(&self, lead_id: &str) -> bool {
        let native = lead_id.splitn(3, ':').nth(2).unwrap_or(lead_id);
        self.shown.binary_search(&id_hash(native)).is_ok()
    }

    /// Returns the columns that at least a fifth of the held rows fill and nothing received does,
    /// where at least 200 rows came.
    fn emptied_columns(&self, store: &Store) -> Result<Vec<String>> {
        let parts = &self.parts_before;
        if self.summary.records < ROWS_THAT_TELL || self.filled.iter().all(|filled| *filled > 0) {
            return Ok(Vec::new());
        }
        let held = load::filled(store, parts)?;
        let rows: u64 = parts.iter().map(|part| part.rows).sum();
        let emptied = lead::COLUMNS.iter().enumerate().filter(|(index, column)| {
            let filled = held.get(column.name).copied().unwrap_or(0);
            self.filled[*index] == 0 && !column.lineage && filled * 5 >= rows.max(1)
        });
        Ok(emptied.map(|(_, column)| column.name.to_owned()).collect())
    }
}

/// Fewer rows than this say nothing about a column that none of them fills.
const ROWS_THAT_TELL: u64 = 200;

impl Opened {
    fn note_loaded(&mut self, index: u64) {
        self.beyond.insert(index);
        while self.beyond.remove(&self.loaded) {
            self.loaded += 1;
        }
    }
}

fn known_fields<'a>(checkpoint: &'a Checkpoint, scope: &Scope) -> Option<&'a Vec<String>> {
    checkpoint.sources.get(&scope.source)?.fields.get(&scope.stream)
}

/// Returns the least window around all closed walks: `None` where none was closed, `Some(None)`
/// where one of them was of a whole listing.
fn span_of(closed: &[ClosedWalk]) -> Option<Option<Window>> {
    let mut windows = closed.iter().map(|closed| closed.window);
    let first = windows.next()?;
    Some(windows.fold(first, |span, window| {
        let (span, window) = (span?, window?);
        Window::new(span.start().min(window.start()), span.end().max(window.end()))
    }))
}

fn parts_of(sources: &BTreeMap<SourceName, SourceCommit>) -> Vec<(&SourceName, &str, bool)> {
    let parts = sources.iter().flat_map(|(name, source)| {
        source.parts.iter().map(move |part| (name, part.file.path.as_str(), part.csv.is_some()))
    });
    parts.collect()
}

fn commit_state(state: State) -> SourceState {
    match state {
        State::Complete => SourceState::Complete,
        State::Partial => SourceState::Partial,
        State::Failed | State::Refused => SourceState::Failed,
    }
}
