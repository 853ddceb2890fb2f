//! Joins the stages into runs: `sync`, `backfill`, `replay`, and what only looks.
//!
//! A run takes the lake, cleans up after runs that died, and then lets three things go on at once:
//! the sources ask for pages, the archive holds them, and the loader turns them into leads and
//! commits. Whatever ends the run but a failure of the disk, the loader commits what it was handed;
//! after that one, the archive has it.

mod check;
mod choices;
mod client;
mod event;
mod fitting;
mod gone;
mod held;
mod lake;
mod loader;
mod look;
mod planning;
mod preview;
mod probes;
mod replay;
mod settings;
mod sink;
mod source;
mod stop;
mod summary;
mod verify;

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;

pub use check::CheckedSource;
pub use check::check;
pub use choices::Choice;
pub use event::Event;
pub use event::Observer;
pub use event::Unobserved;
pub use look::QuotaGroup;
pub use look::budgets;
pub use look::quota_groups;
pub use look::scopes;
pub use look::set_used;
pub use look::smaller_pages;
pub use preview::Preview;
pub use preview::PreviewedQuota;
pub use preview::PreviewedSource;
pub use preview::Today;
pub use preview::preview;
#[cfg(any(test, fuzzing))]
pub(crate) use probes::decode as probes_in;
pub use replay::replay;
pub use settings::rule;
pub use stop::Stop;
pub use summary::Ending;
pub use summary::Leads;
pub use summary::Requests;
pub use summary::SourceSummary;
pub use summary::State;
pub use summary::Summary;
pub use verify::Checked;
pub use verify::Finding;
pub use verify::Kind;
pub use verify::Repaired;
pub use verify::Totals;
pub use verify::Verdict;
pub use verify::Verified;
pub use verify::Verify;
pub use verify::verify;

use crate::archive;
use crate::checkpoint::Backfill;
use crate::clock::SharedClock;
use crate::commit;
use crate::commit::Holder;
use crate::config;
use crate::config::Job;
use crate::config::SourceSettings;
use crate::error::Hint;
use crate::extract;
use crate::ids::InvalidId;
use crate::ids::SourceName;
use crate::load;
use crate::plan::Task;
use crate::quota;
use crate::spill;
use crate::store;
use crate::store::Store;
use crate::transform;
use crate::window::Window;
use client::Quotas;
use fitting::Sizes;
use lake::Lake;
use loader::Loader;
use loader::Message;
use planning::Planner;
use source::Shared;
use source::SourceTask;

/// An error that ends a run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The job's settings or secrets are wrong.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// A provider could not be read.
    #[error(transparent)]
    Extract(#[from] extract::Error),
    /// The archive could not be written or read.
    #[error(transparent)]
    Archive(#[from] archive::Error),
    /// Pages could not be mapped.
    #[error(transparent)]
    Transform(#[from] transform::Error),
    /// Parts could not be written or read.
    #[error(transparent)]
    Load(#[from] load::Error),
    /// What memory had no room for could not be written or read.
    #[error(transparent)]
    Spill(#[from] spill::Error),
    /// The lake's state could not be written or read.
    #[error(transparent)]
    Commit(#[from] commit::Error),
    /// The ledger could not be written or read.
    #[error(transparent)]
    Quota(#[from] quota::Error),
    /// A file could not be written or read.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Records that could not be mapped could not be kept either.
    #[error("failed to write rejects")]
    Rejects(#[source] std::io::Error),
    /// A name is not valid.
    #[error(transparent)]
    Id(#[from] InvalidId),
    /// The job has no such source.
    #[error("the job has no source `{name}`; it has {known}")]
    NoSource {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// Another job wrote this source in another way.
    #[error("source `{source_name}` was last written by job `{job}` with another {what}")]
    OtherJob {
        /// The source.
        source_name: SourceName,
        /// The job.
        job: String,
        /// What differs.
        what: &'static str,
    },
    /// The parts of a source are cut in another way, which is fixed at its first write.
    #[error(
        "the parts of source `{source_name}` are cut by `{}`, which cannot be changed",
        held.as_str()
    )]
    PartitionFixed {
        /// The source.
        source_name: SourceName,
        /// How they are cut.
        held: config::Partitioning,
    },
    /// A source carries rows of another name, which this version cannot move.
    #[error(
        "source `{to}` was `{from}`, of which the lake holds rows; this version cannot move them"
    )]
    Renamed {
        /// The name now.
        to: SourceName,
        /// The name then.
        from: SourceName,
    },
    /// A setting that this version does not know how to follow.
    #[error("{0} is not supported by this version")]
    Unsupported(&'static str),
    /// There is no quota rule for a source's plan.
    #[error("there is no quota rule for source `{0}`")]
    NoRule(SourceName),
    /// The range of a backfill is empty.
    #[error("the range from {from} to {to} is empty")]
    EmptyRange {
        /// Its start.
        from: DateTime<Utc>,
        /// Its end.
        to: DateTime<Utc>,
    },
    /// The run was asked to stop before it had anything to commit.
    #[error("stopped before anything was changed")]
    Stopped(Ending),
    /// The loader has ended; its own error says why.
    #[error("the loader has ended")]
    LoaderStopped,
    /// Something that cannot be.
    #[error("internal error: {0}")]
    Bug(&'static str),
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Config(error) => error.hint(),
            Self::Extract(error) => error.hint(),
            // What the disk says of itself is closer than what may be wrong with its locks.
            Self::Commit(error @ commit::Error::Lock { .. }) => {
                disk_hint(error).or_else(|| error.hint())
            }
            Self::Commit(error) => error.hint(),
            Self::Load(error) => error.hint(),
            Self::Spill(error) => error.hint(),
            Self::Archive(error) => error.hint(),
            Self::Quota(error) => error.hint(),
            Self::OtherJob { .. } => Some(
                "give both jobs the same settings for this source, `[load]` and `[privacy]`, or let \
                 only one of them write it"
                    .to_owned(),
            ),
            Self::PartitionFixed { held, .. } => Some(format!(
                "set `partition = \"{}\"` in `[load]` again, or sync into a new lake",
                held.as_str()
            )),
            Self::Renamed { to, from } => {
                Some(format!("name the source `{from}` again instead of `{to}`"))
            }
            _ => None,
        }
        .or_else(|| disk_hint(self))
    }
}

/// What an operating system calls a disk that fails by itself; Rust has no name for it yet.
const EIO: i32 = 5;

/// Returns what to do where the disk is at the root of an error, whichever stage met it.
fn disk_hint(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let error = causes.filter_map(|cause| cause.downcast_ref::<std::io::Error>()).last()?;
    if let Some(refusal) = store::Refusal::of(error) {
        return refusal.hint();
    }
    let text = match error.kind() {
        _ if error.raw_os_error() == Some(EIO) => {
            "the disk fails; once it is sound again, run the same: what is held stays held"
        }
        std::io::ErrorKind::StorageFull => {
            "make room on the disk of the lake and run the same again: what is held stays held"
        }
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
            "the lake must be writable by the user of the run"
        }
        std::io::ErrorKind::NotADirectory | std::io::ErrorKind::AlreadyExists => {
            "something that is no folder lies in the way; move it, or set another `lake`"
        }
        _ => return None,
    };
    Some(text.to_owned())
}

/// The result of a run.
pub type Result<T> = std::result::Result<T, Error>;

/// Returns an error and its causes in one line.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// How a run behaves; what the data is stands in the job.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Only these sources; all where empty.
    pub sources: Vec<SourceName>,
    /// Sources whose deletes the guard lets through.
    pub accept_deletes: Vec<SourceName>,
    /// Requests all sources together may send.
    pub max_requests: Option<u64>,
    /// How long the run may take.
    pub max_duration: Option<TimeDelta>,
    /// How long to wait for another run that holds the lake.
    pub lock_wait: Option<TimeDelta>,
    /// Whether history is read from its start on.
    pub oldest_first: bool,
    /// Whether a plan asks the provider for totals that are not known.
    pub probe: bool,
    /// Asks the run to stop.
    pub stop: Stop,
}

/// A range to be read, as asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// Creation times from here,
    pub from: DateTime<Utc>,
    /// to before here.
    pub to: DateTime<Utc>,
    /// Whether what was read before is read once more.
    pub again: bool,
}

/// Brings the lake of `job` up to date.
pub async fn sync(
    job: Job,
    options: Options,
    clock: SharedClock,
    observer: Arc<dyn Observer>,
) -> Result<Summary> {
    let run = Run::open(job, "sync", options, clock, observer).await?;
    run.read_and_record(None).await
}

/// Reads what is not covered in a range.
pub async fn backfill(
    job: Job,
    range: Range,
    options: Options,
    clock: SharedClock,
    observer: Arc<dyn Observer>,
) -> Result<Summary> {
    if range.from >= range.to {
        return Err(Error::EmptyRange { from: range.from, to: range.to });
    }
    let run = Run::open(job, "backfill", options, clock, observer).await?;
    run.read_and_record(Some(range)).await
}

/// A run that holds its lake.
pub(crate) struct Run {
    job: Arc<Job>,
    /// The job with all sources it names; the run may read fewer.
    whole: Arc<Job>,
    lake: Lake,
    options: Options,
    clock: SharedClock,
    observer: Arc<dyn Observer>,
    deadline: Deadline,
    _lost: Deadline,
}

/// Asks a run to stop when its time is up, or its lake another's; no longer once it has ended.
struct Deadline(tokio::task::JoinHandle<()>);

impl Deadline {
    /// Watches the time of a run that begins now.
    fn watch(options: &Options, clock: &SharedClock) -> Self {
        let (clock, stop) = (clock.clone(), options.stop.clone());
        let deadline = options.max_duration.map(|duration| clock.now() + duration);
        Self(tokio::spawn(async move {
            if let Some(deadline) = deadline {
                clock.sleep_until(deadline).await;
                stop.request(Ending::DurationReached);
                stop.let_go_in_time(&*clock).await;
            }
        }))
    }
}

impl Deadline {
    /// Watches a lake in a bucket: of what a run receives after it has lost it, none could be committed.
    fn watch_lake(lake: &Lake, options: &Options, clock: &SharedClock) -> Self {
        let (clock, stop, lost) = (clock.clone(), options.stop.clone(), lake.lock.lost());
        Self(tokio::spawn(async move {
            lost.await;
            tracing::warn!("another run has taken the lake: this one ends");
            stop.request(Ending::Interrupted);
            stop.let_go_in_time(&*clock).await;
        }))
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Run {
    async fn open(
        job: Job,
        command: &str,
        options: Options,
        clock: SharedClock,
        observer: Arc<dyn Observer>,
    ) -> Result<Self> {
        let whole = Arc::new(job.clone());
        let job = only(job, &options.sources)?;
        if job.load.nested == config::Nested::Native {
            return Err(Error::Unsupported("`load.nested = \"native\"`"));
        }
        for source in &job.sources {
            settings::mappings(source)?;
        }
        let deadline = Deadline::watch(&options, &clock);
        let opening = Lake::open(&job, command, options.lock_wait, &clock, &*observer);
        let lake = tokio::select! {
            biased;
            lake = opening => lake?,
            cause = options.stop.requested() => return Err(Error::Stopped(cause)),
        };
        let job = Arc::new(job);
        let _lost = Deadline::watch_lake(&lake, &options, &clock);
        let mut run = Self { job, whole, lake, options, clock, observer, deadline, _lost };
        run.refuse_conflicts()?;
        // `replay` itself maps everything again.
        if command != "replay"
            && let Err(error) = run.replay_where_the_mapping_changed().await
        {
            record_failure(&run.lake.store, &run.lake.holder, &error, run.clock.now());
            return Err(error);
        }
        Ok(run)
    }

    /// A lake's source is written in one way: by the job that last wrote it, or by one that writes
    /// it just so.
    fn refuse_conflicts(&self) -> Result<()> {
        let Some(head) = &self.lake.head else { return Ok(()) };
        for source in &self.job.sources {
            if let Some(from) = source.was.iter().find(|was| head.sources.contains_key(was)) {
                return Err(Error::Renamed { to: source.name.clone(), from: from.clone() });
            }
            let Some(held) = head.sources.get(&source.name) else { continue };
            if held.partition != self.job.load.partition {
                return Err(Error::PartitionFixed {
                    source_name: source.name.clone(),
                    held: held.partition,
                });
            }
            if held.job == self.job.name {
                continue;
            }
            let what = if held.mapping != self.mapping_of(source) {
                "mapping (currency, regions, key)"
            } else if held.settings != settings::fingerprint(&self.job) {
                "`[load]`, `[csv]` or `[privacy]`"
            } else {
                continue;
            };
            let (source_name, job) = (source.name.clone(), held.job.clone());
            return Err(Error::OtherJob { source_name, job, what });
        }
        Ok(())
    }

    fn mapping_of(&self, source: &SourceSettings) -> String {
        settings::transform(source, &self.lake.key).fingerprint(source.provider_id())
    }

    /// Reads; where that fails, removes what no commit names and records the end all the same.
    async fn read_and_record(self, range: Option<Range>) -> Result<Summary> {
        let (store, holder) = (self.lake.store.clone(), self.lake.holder.clone());
        let clock = self.clock.clone();
        let read = self.read(range).await;
        if let Err(error) = &read {
            record_failure(&store, &holder, error, clock.now());
        }
        read
    }

    async fn read(self, range: Option<Range>) -> Result<Summary> {
        let (messages, queue) = mpsc::channel(QUEUE);
        let loader = self.loader()?;
        let shared = self.shared(messages.clone())?;
        let backfill = range.map(|range| self.backfill(&range)).transpose()?;
        let task = backfill.as_ref().map_or(Task::Sync, |(_, backfill)| task_of(backfill));
        let checkpoint = loader.checkpoint().clone();
        let (store, now) = (&self.lake.store, self.clock.now());
        let planner = Planner::new(&self.whole, &checkpoint, store, &self.options, now)?;
        let kept_back = planner.kept_back_of_range(&task);
        let quotas = Quotas::new(&self.job, self.options.max_requests, self.clock.clone())?;
        let quotas = quotas.keeping_back(kept_back);
        let (tasks, refused) = self.tasks(&quotas, &shared, &planner, &task)?;
        // Of an agency with thousands of profiles the checkpoint is megabytes.
        drop(planner);
        drop((checkpoint, shared));
        let mut loading = tokio::task::spawn_blocking(move || loader.run(queue));
        // Where the loader has ended, its own error below says why.
        if let Some((key, backfill)) = &backfill {
            let message = Message::Backfill { key: key.clone(), backfill: backfill.clone() };
            let _ = messages.send(message).await;
        }
        for (source, summary) in refused {
            let _ = messages.send(Message::Done(source, Box::new(summary))).await;
        }
        let mut reading = futures::future::join_all(tasks.into_iter().map(SourceTask::run));
        let mut loaded = None;
        let ended = tokio::select! {
            ended = &mut reading => ended,
            // It ends before its senders only where it has failed: nobody needs to wait for more.
            failed = &mut loading => {
                loaded = Some(failed);
                self.options.stop.request(Ending::Interrupted);
                let (stop, clock) = (self.options.stop.clone(), self.clock.clone());
                tokio::spawn(async move { stop.let_go_in_time(&*clock).await });
                reading.await
            }
        };
        self.deadline.0.abort();
        let done = ended.into_iter().collect::<Result<Vec<()>>>();
        if let (Ok(_), Some((key, _))) = (&done, &backfill) {
            // The loader keeps the request where a source is not complete.
            let message = Message::BackfillDone { key: key.clone() };
            let _ = messages.send(message).await;
        }
        drop(messages);
        let loaded = match loaded {
            Some(loaded) => loaded,
            None => loading.await,
        };
        let loaded = loaded.map_err(|_| Error::Bug("the loader panicked"))?;
        let mut released = Ok(());
        for quota in quotas.all() {
            released = released.and(quota.release().await);
        }
        // An error of the loader is why a source could not hand in its pages, and says what became of the
        // commit; that permits could not be given back counts too much, and comes last.
        let mut loaded = loaded?;
        done?;
        released?;
        self.note_spent_elsewhere(&mut loaded.sources, &quotas);
        self.close(loaded)
    }

    fn loader(&self) -> Result<Loader> {
        let start = loader::Start {
            store: self.lake.store.clone(),
            run: self.lake.holder.run.clone(),
            command: self.lake.holder.command.clone(),
            head: self.lake.head.clone(),
            key: self.lake.key.clone(),
            orphans: self.lake.orphans()?,
            named: self.whole.sources.iter().map(|source| source.name.clone()).collect(),
        };
        Loader::new(start, Arc::clone(&self.job), self.clock.clone(), Arc::clone(&self.observer))
    }

    fn shared(&self, messages: mpsc::Sender<Message>) -> Result<Shared> {
        let (store, run) = (self.lake.store.clone(), self.lake.holder.run.clone());
        let bytes = settings::room(&self.job)?.staged / OF_STAGED_FOR_IDS;
        let ids = extract::IdRoom::new(store.scratch(&run), bytes);
        Ok(Shared {
            job: Arc::clone(&self.job),
            stop: self.options.stop.clone(),
            archive: archive::Writer::start(store.clone(), run.clone()),
            store,
            run,
            clock: self.clock.clone(),
            observer: Arc::clone(&self.observer),
            messages,
            slots: Arc::new(Semaphore::new(settings::page_slots(&self.job)?)),
            ids,
        })
    }

    /// Returns a task for each source that can be asked, and a summary for each that cannot.
    fn tasks(
        &self,
        quotas: &Quotas,
        shared: &Shared,
        planner: &Planner<'_>,
        task: &Task,
    ) -> Result<(Vec<SourceTask>, Refused)> {
        let (mut tasks, mut refused) = (Vec::new(), Vec::new());
        for settings in &self.job.sources {
            let halt = self.options.stop.watch();
            let progress = planner.progress(&settings.name);
            match client::connect(&self.job, settings, quotas, halt, self.clock.clone()) {
                Ok(client) => tasks.push(SourceTask {
                    shared: shared.clone(),
                    sizes: Sizes::new(settings, &progress, self.clock.now()),
                    progress,
                    accept_deletes: self.options.accept_deletes.contains(&settings.name),
                    mappings: settings::mappings(settings)?,
                    settings: settings.clone(),
                    planning: planner.planning(settings, task.clone())?,
                    client,
                }),
                Err(error) => {
                    // A secret that cannot be read fails its source like a refused one.
                    let state = match &error {
                        Error::Config(_) => State::Refused,
                        _ => State::Failed,
                    };
                    let (why, hint) = (Some(chain(&error)), error.hint());
                    let (source, text) = (settings.name.clone(), chain(&error));
                    self.observer.observe(&Event::SourceStopped { source, why: text });
                    let summary = SourceSummary { state, why, hint, ..SourceSummary::default() };
                    refused.push((settings.name.clone(), summary));
                }
            }
        }
        Ok((tasks, refused))
    }

    /// Returns the request that a range is: one of the same sources, range and kind goes on.
    fn backfill(&self, range: &Range) -> Result<(String, Backfill)> {
        let sources: Vec<SourceName> =
            self.job.sources.iter().map(|source| source.name.clone()).collect();
        let names: Vec<&str> = sources.iter().map(SourceName::as_str).collect();
        let Range { from, to, again } = range;
        let covered = format!("{} {from} {to} {again}", names.join(" "));
        let key = blake3::hash(covered.as_bytes()).to_hex()[..16].to_owned();
        let known = self.lake.head.as_ref().and_then(|head| head.checkpoint.backfills.get(&key));
        if let Some(known) = known {
            return Ok((key, known.clone()));
        }
        let range = Window::new(*from, *to).ok_or(Error::EmptyRange { from: *from, to: *to })?;
        let asked_at = self.clock.now();
        Ok((key, Backfill { sources, range, asked_at, again: *again }))
    }

    /// Notes, for the sources that could not go on, that their quota was spent by somebody else.
    fn note_spent_elsewhere(
        &self,
        sources: &mut BTreeMap<SourceName, SourceSummary>,
        quotas: &Quotas,
    ) {
        for settings in &self.job.sources {
            let summary = sources.get_mut(&settings.name);
            let partial = summary.filter(|summary| summary.state == State::Partial);
            // A source whose key cannot be read was not asked.
            if let (Some(summary), Ok(quota)) = (partial, quotas.of(settings)) {
                summary.spent_elsewhere = quota.unexplained();
            }
        }
    }

    /// Says what was done, and records it with the lake.
    fn close(self, loaded: loader::Loaded) -> Result<Summary> {
        let ended_at = self.clock.now();
        let holder = &self.lake.holder;
        let mut summary = Summary {
            run: holder.run.clone(),
            job: self.job.name.clone(),
            command: holder.command.clone(),
            started_at: holder.since,
            ended_at,
            commit: loaded.committed,
            snapshot: loaded
                .head
                .as_ref()
                .and_then(|head| commit::shown_folder(&self.lake.store, head)),
            endings: Vec::new(),
            retired: retired(loaded.head.as_ref()),
            resume_at: loaded.sources.values().filter_map(|source| source.resume_at).min(),
            sources: loaded.sources,
        };
        summary.endings = self.endings(&summary);
        self.sweep_probes(ended_at);
        let stored = serde_json::to_value(&summary).unwrap_or_default();
        self.lake.close(summary.exit_code(), stored, ended_at)?;
        Ok(summary)
    }

    /// Forgets totals that are of no more use. They are hints: that it fails is no reason to fail.
    fn sweep_probes(&self, now: DateTime<Utc>) {
        let held = self.lake.head.as_ref().map(|head| &head.sources);
        let is_known = |source: &SourceName| {
            self.whole.sources.iter().any(|named| named.name == *source)
                || held.is_some_and(|held| held.contains_key(source))
        };
        if let Err(error) = probes::sweep(&self.lake.store, is_known, now) {
            tracing::warn!(%error, "failed to remove totals that were asked for long ago");
        }
    }

    fn endings(&self, summary: &Summary) -> Vec<Ending> {
        let sources = || summary.sources.values();
        let is_done = sources().all(|source| source.state == State::Complete);
        let mut endings: Vec<Ending> = self.options.stop.cause().into_iter().collect();
        // Time that ran out after the last page kept nothing from being done.
        endings.retain(|ending| *ending != Ending::DurationReached || !is_done);
        let spent = |source: &SourceSummary| {
            source.state == State::Partial && self.options.stop.cause().is_none()
        };
        if sources().any(spent) {
            endings.push(Ending::QuotaSpent);
        }
        if !summary.sources.is_empty() && sources().all(|source| source.state == State::Refused) {
            endings.push(Ending::CredentialsRefused);
        } else if sources().any(|s| matches!(s.state, State::Refused | State::Failed)) {
            endings.push(Ending::SourceFailed);
        }
        if sources().any(|source| source.needs_look(self.job.load.max_reject_ratio.get())) {
            endings.push(Ending::NeedsLook);
        }
        endings
    }
}

/// Removes what no commit names of a run that failed, and records its end. A run for which that
/// cannot be done is cleaned up after by the next.
fn record_failure(store: &Store, holder: &Holder, error: &Error, now: DateTime<Utc>) {
    let exit_code = match error {
        Error::Stopped(ending) => ending.exit_code(),
        _ => 1,
    };
    // What it may have committed stays, and the run is cleaned up after as one that died.
    if matches!(error, Error::Commit(error) if error.is_uncertain()) {
        return tracing::warn!("the end of this run is left to the next one");
    }
    let why = serde_json::json!({ "error": chain(error) });
    let recorded = commit::discard(store, &holder.run)
        .and_then(|_| commit::end_run(store, holder, exit_code, why, now));
    if let Err(error) = recorded {
        tracing::warn!(%error, "the end of a failed run is left to the next one");
    }
}

fn retired(head: Option<&commit::Commit>) -> Vec<SourceName> {
    let sources = head.iter().flat_map(|head| &head.sources);
    let retired = sources.filter(|(_, source)| source.state == commit::SourceState::Retired);
    retired.map(|(name, _)| name.clone()).collect()
}

/// Sources that cannot be asked, and what there is to say of each.
type Refused = Vec<(SourceName, SourceSummary)>;

/// Messages that may wait for the loader; the pages among them are bounded by their slots.
const QUEUE: usize = 64;

/// The part of a source's staged leads that the ids of each of its walks may take beside them.
const OF_STAGED_FOR_IDS: usize = 16;

fn task_of(backfill: &Backfill) -> Task {
    let again_before = backfill.again.then_some(backfill.asked_at);
    Task::Backfill { range: backfill.range, again_before }
}

/// Returns the job with only the sources asked for.
fn only(mut job: Job, sources: &[SourceName]) -> Result<Job> {
    let known = || {
        let names: Vec<String> = job.sources.iter().map(|s| format!("`{}`", s.name)).collect();
        names.join(", ")
    };
    for name in sources {
        if !job.sources.iter().any(|source| source.name == *name) {
            return Err(Error::NoSource { name: name.to_string(), known: known() });
        }
    }
    if !sources.is_empty() {
        job.sources.retain(|source| sources.contains(&source.name));
    }
    Ok(job)
}
