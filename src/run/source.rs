//! Reads one source: lists its scopes, plans, walks, and looks into what was not shown.
//!
//! Several walks of a source go at once, so that many small profiles do not wait for each other;
//! the quota's concurrency and the slots for pages bound them all together.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use chrono::TimeDelta;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

use super::Error;
use super::Result;
use super::client::Client;
use super::event::Event;
use super::event::Observer;
use super::fitting::Sizes;
use super::gone;
use super::gone::Absences;
use super::gone::Guard;
use super::gone::Lookups;
use super::held;
use super::loader::Message;
use super::planning::Planning;
use super::settings;
use super::sink::Sink;
use super::stop::Stop;
use super::summary::SourceSummary;
use super::summary::State;
use crate::archive;
use crate::checkpoint::OpenWalk;
use crate::checkpoint::Partition;
use crate::checkpoint::Partitions;
use crate::checkpoint::SourceProgress;
use crate::clock::SharedClock;
use crate::config::Job;
use crate::config::SourceSettings;
use crate::error::Hint;
use crate::extract;
use crate::extract::Found;
use crate::extract::Held;
use crate::extract::IdRoom;
use crate::extract::Lookup;
use crate::extract::Outcome;
use crate::extract::Reader;
use crate::extract::providers;
use crate::ids::RunId;
use crate::ids::WalkId;
use crate::plan::PlannedWalk;
use crate::plan::SourcePlan;
use crate::plan::Task;
use crate::quota;
use crate::quota::Cause;
use crate::quota::Demand;
use crate::quota::Exhausted;
use crate::record::PageHeader;
use crate::record::RawPage;
use crate::record::Reason;
use crate::record::Scope;
use crate::record::ScopeKey;
use crate::record::Walk;
use crate::store::Store;
use crate::transform::Mapping;
use crate::window::Covered;
use crate::window::Window;

/// Walks of a source that go at once.
const WALKS_AT_ONCE: usize = 4;

/// What all sources of a run share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) job: Arc<Job>,
    pub(super) store: Store,
    pub(super) run: RunId,
    pub(super) clock: SharedClock,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) stop: Stop,
    pub(super) archive: archive::Writer,
    pub(super) messages: mpsc::Sender<Message>,
    pub(super) slots: Arc<Semaphore>,
    /// Room for the ids of a walk.
    pub(super) ids: IdRoom,
}

/// One source being read.
pub(super) struct SourceTask {
    pub(super) shared: Shared,
    pub(super) settings: SourceSettings,
    pub(super) client: Client,
    pub(super) progress: SourceProgress,
    pub(super) planning: Planning,
    pub(super) accept_deletes: bool,
    pub(super) sizes: Sizes,
    /// By stream; the same that the loader has.
    pub(super) mappings: BTreeMap<String, Box<dyn Mapping>>,
}

impl SourceTask {
    /// Reads the source and tells the loader how it ended.
    pub(super) async fn run(self) -> Result<()> {
        let kept_back = match self.planning.task {
            Task::Sync => 0,
            Task::Backfill { .. } => self.planning.left_to_others,
        };
        let mut summary =
            SourceSummary { state: State::Complete, kept_back, ..SourceSummary::default() };
        let read = self.read(&mut summary).await;
        if let Err(error) = read {
            note_end(&mut summary, error, &self.settings)?;
        } else if summary.walks_left > 0 {
            summary.state = State::Partial;
        }
        if let Some(why) = &summary.why {
            let (source, why) = (self.settings.name.clone(), why.clone());
            self.shared.observer.observe(&Event::SourceStopped { source, why });
        }
        let counts = self.client.caller.counts();
        summary.requests.sent = counts.attempts.load(Ordering::Relaxed);
        summary.requests.retries = counts.retries.load(Ordering::Relaxed);
        summary.requests.probes = counts.probes.load(Ordering::Relaxed);
        summary.requests.rereads = counts.rereads.load(Ordering::Relaxed);
        summary.requests.checks = counts.checks.load(Ordering::Relaxed);
        let done = Message::Done(self.settings.name.clone(), Box::new(summary));
        self.tell(done).await
    }

    async fn read(&self, summary: &mut SourceSummary) -> Result<()> {
        let partitions = self.list().await?;
        let scopes = providers::scopes(&self.settings, partitions.as_deref());
        let plan = self.plan(&scopes, summary).await?;
        summary.walks_left = plan.walks.len() as u64;
        let walked = self.walk_all(plan, summary).await;
        // What is read whole is judged even where the rest could not be read.
        let judged = self.judge_absent(&scopes, summary).await;
        walked.and(judged)
    }

    pub(super) async fn tell(&self, message: Message) -> Result<()> {
        self.shared.messages.send(message).await.map_err(|_| Error::LoaderStopped)
    }

    async fn list(&self) -> Result<Option<Vec<Partition>>> {
        if let Some(known) = self.planning.listed_lately(&self.settings, &self.progress) {
            return Ok(Some(known.listed.clone()));
        }
        let listed = self.client.source.list_partitions(&self.client.caller).await?;
        let known = self.progress.partitions.as_ref().map_or(0, |known| known.listed.len());
        if known > 0 && listed.as_ref().is_some_and(Vec::is_empty) {
            let detail =
                format!("it lists no accounts any more, of which there were {known} profiles");
            let provider = self.client.source.provider();
            return Err(extract::Error::Broken { provider, detail }.into());
        }
        if let Some(listed) = &listed {
            let as_of = self.shared.clock.now();
            let partitions = Partitions { as_of, listed: listed.clone() };
            let source = self.settings.name.clone();
            self.tell(Message::Listed(source.clone(), partitions)).await?;
            let selected = providers::scopes(&self.settings, Some(listed)).len();
            let event = Event::Listed { source, partitions: listed.len(), selected };
            self.shared.observer.observe(&event);
            if selected == 0 {
                let provider = self.client.source.provider();
                return Err(extract::Error::Nothing { provider, listed: listed.len() }.into());
            }
        }
        Ok(listed)
    }

    async fn plan(&self, scopes: &[Scope], summary: &mut SourceSummary) -> Result<SourcePlan> {
        let now = self.shared.clock.now();
        let plan = self.planning.plan(scopes, &self.progress, now);
        for dropped in &plan.dropped {
            let walk = dropped.walk.walk.id.clone();
            self.tell(Message::Dropped(self.settings.name.clone(), walk)).await?;
        }
        let listed: BTreeSet<ScopeKey> = scopes.iter().map(Scope::key).collect();
        let retired = self.progress.scopes.keys().filter(|key| !listed.contains(*key));
        summary.retired = retired.map(|key| key.0.clone()).collect();
        summary.left_out = plan.left_out.iter().map(|key| key.0.clone()).collect();
        let current = scopes.iter().cloned().collect();
        self.tell(Message::Planned(self.settings.name.clone(), current)).await?;
        self.shared.observer.observe(&Event::Planned {
            source: self.settings.name.clone(),
            walks: plan.walks.len(),
            requests: plan.requests(),
        });
        Ok(plan)
    }

    /// Reads all walks, some at once. One that fails by itself (a profile the provider refuses, say)
    /// does not keep the others back; after an error that speaks for all, none is begun. Those that go on
    /// are finished first: the last permits of a day must not go to others while they grow too old.
    async fn walk_all(&self, plan: SourcePlan, summary: &mut SourceSummary) -> Result<()> {
        let first =
            plan.walks.first().map(|walk| self.sizes.of(&walk.scope.stream, walk.page_size));
        let mut waiting = in_turns(plan.walks).into_iter().peekable();
        let mut walking = FuturesUnordered::new();
        let mut goes_on = true;
        let (mut failed, mut local, mut failures_in_a_row) = (None, None, 0);
        loop {
            let unsettled = first.as_ref().filter(|sizes| !sizes.is_settled());
            let at_once = unsettled.map_or(WALKS_AT_ONCE.min(self.client.at_once), |_| 1);
            while failed.is_none() && walking.len() < at_once {
                let may_begin = |next: &Vec<PlannedWalk>| {
                    // Spare permits are what all others have left.
                    let waits = goes_on || next[0].reason == Reason::Spare;
                    next[0].resume.is_some() || !waits || walking.is_empty()
                };
                let Some(turns) = waiting.next_if(may_begin) else { break };
                goes_on = turns[0].resume.is_some();
                walking.push(self.walk_in_turn(turns));
            }
            let ended = match unsettled {
                None => walking.next().await,
                Some(sizes) => tokio::select! {
                    biased;
                    ended = walking.next() => {
                        sizes.settle();
                        ended
                    }
                    () = sizes.settled() => continue,
                },
            };
            let Some((done, walked)) = ended else { break };
            summary.walks_left -= done;
            match walked {
                Ok(()) => failures_in_a_row = 0,
                Err(error) if is_local(&error) && failures_in_a_row < LOCAL_FAILURES => {
                    failures_in_a_row += 1;
                    tracing::warn!(source = %self.settings.name, %error, "a walk has failed");
                    local = local.or(Some(error));
                }
                Err(error) => failed = Some(first_or_longest(failed, error)),
            }
        }
        failed.or(local).map_or(Ok(()), Err)
    }

    /// Reads walks one after the other; also returns how many were finished.
    async fn walk_in_turn(&self, turns: Vec<PlannedWalk>) -> (u64, Result<()>) {
        let mut done = 0;
        for planned in turns {
            if let Err(error) = self.walk(planned).await {
                return (done, Err(error));
            }
            done += 1;
        }
        (done, Ok(()))
    }

    /// Reads a walk. One that spare permits are for may be left out, and ends nothing.
    async fn walk(&self, planned: PlannedWalk) -> Result<()> {
        let begun_as = planned.resume.as_ref().map(|open| open.walk.reason);
        let is_spare = begun_as.unwrap_or(planned.reason) == Reason::Spare;
        match self.walk_if_permitted(planned).await {
            Err(Error::Extract(extract::Error::Spent { .. })) if is_spare => Ok(()),
            walked => walked,
        }
    }

    async fn walk_if_permitted(&self, planned: PlannedWalk) -> Result<()> {
        if let Some(open) = planned.resume {
            return self.go_on(open).await;
        }
        match planned.reason {
            _ if planned.is_newest => {}
            // One that costs more than that begins all the same: it is gone on with for days.
            Reason::Weekly | Reason::Monthly => {
                self.leave_to_others(planned.requests.count(), true)?;
            }
            Reason::Spare => self.leave_to_others(planned.requests.count(), false)?,
            _ => {}
        }
        let draft = self.draft(&planned.scope, planned.window, planned.page_size, planned.reason);
        let draft = Walk { down_to: planned.down_to, ..draft };
        self.read_anew(draft).await
    }

    /// Fails where what the runs to come need would not be left of the day if `requests` were sent; of
    /// a walk that may take days, no more of them count than half of what is not left to others.
    fn leave_to_others(&self, requests: u64, may_take_days: bool) -> Result<()> {
        let left_to_others = self.planning.left_to_others;
        let budget = self.client.quota.budget()?;
        let (Some(left), Some(allowance)) = (budget.left, budget.allowance) else { return Ok(()) };
        let half = u64::from(allowance).saturating_sub(left_to_others).div_ceil(2);
        let counted = if may_take_days { requests.min(half) } else { requests };
        if u64::from(left) >= left_to_others + counted.max(1) {
            return Ok(());
        }
        // The run that goes on then reads new time first.
        let needed = left_to_others + counted.max(1);
        let requests = needed + self.planning.need_of_run;
        let demand = Demand {
            requests,
            each_run: 0,
            each_day: 0,
            sent_daily_at: None,
            patience: TimeDelta::MAX,
        };
        let resume_at = self.client.quota.forecast(demand)?.done_at;
        let provider = self.client.source.provider();
        let source = Exhausted { resume_at, cause: Cause::KeptBack }.into();
        Err(extract::Error::Spent { provider, resume_at, source }.into())
    }

    /// Reads what `draft` says in a new walk.
    async fn read_anew(&self, draft: Walk) -> Result<()> {
        match draft.window {
            Some(_) => self.read_window(draft).await,
            None => self.read_scan(draft).await,
        }
    }

    fn draft(&self, scope: &Scope, window: Option<Window>, page_size: u32, reason: Reason) -> Walk {
        Walk {
            id: WalkId::from(""),
            scope: scope.clone(),
            window,
            page_size,
            opened_at: self.shared.clock.now(),
            reason,
            down_to: None,
        }
    }

    /// Opens a new walk and reads it. Returns the refusal where the provider refused its very first
    /// page: nothing is held of it then, and it is dropped.
    pub(super) async fn begin(&self, draft: Walk) -> Result<Option<extract::Error>> {
        let walk = self.open(Walk { opened_at: self.shared.clock.now(), ..draft }).await?;
        self.observe_opened(&walk, walk.reason, 0);
        let held = Held::new(&walk, self.shared.ids.clone());
        let (outcome, held) = self.read_walk(&walk, held, 0).await;
        match outcome {
            Ok(outcome) => self.close(&walk, outcome, false).await.map(|()| None),
            Err(error @ extract::Error::Refused { .. }) if held == 0 => {
                let source = walk.scope.source.clone();
                self.tell(Message::Dropped(source, walk.id.clone())).await?;
                Ok(Some(error))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn open(&self, draft: Walk) -> Result<Arc<Walk>> {
        let (answer, opened) = oneshot::channel();
        self.tell(Message::NewWalk { draft: Box::new(draft), answer }).await?;
        let walk = opened.await.map_err(|_| Error::LoaderStopped)?;
        self.shared.archive.open(&walk, 0, 0).await?;
        Ok(walk)
    }

    /// Goes on with a walk of an earlier run: what is held is loaded from the archive, and not asked
    /// for again. One of which nothing is held is begun anew, with the settings of today.
    async fn go_on(&self, open: OpenWalk) -> Result<()> {
        let walk = Arc::new(open.walk.clone());
        let resumed = Message::Resumed { walk: Arc::clone(&walk), loaded: open.loaded_pages };
        self.tell(resumed).await?;
        let mapping = settings::mappings(&self.settings)?.remove(&walk.scope.stream);
        let reading = held::Reading::new(&self.shared, &self.client.source, mapping, &walk);
        let found = reading.read(open.loaded_pages).await?;
        let pages = found.held.pages();
        if pages == 0 {
            self.tell(Message::Dropped(walk.scope.source.clone(), walk.id.clone())).await?;
            if self.is_begun_anew(&walk) {
                return Ok(());
            }
            let page_size = self.settings.page_size().unwrap_or(walk.page_size);
            let draft = self.draft(&walk.scope, walk.window, page_size, walk.reason);
            return self.read_anew(Walk { down_to: walk.down_to, ..draft }).await;
        }
        self.observe_opened(&walk, Reason::Resume, pages);
        self.shared.archive.open(&walk, found.segments, found.places).await?;
        let (outcome, _) = self.read_walk(&walk, found.held, found.places).await;
        let outcome = outcome?;
        if outcome.was_closed {
            return self.tell_closed(&walk, outcome, true).await;
        }
        self.close(&walk, outcome, true).await
    }

    /// Tells whether a later walk that goes on too reads the same: a run that began this one anew
    /// may have died before it could commit that.
    fn is_begun_anew(&self, walk: &Walk) -> bool {
        let open = self.progress.open_walks.iter().map(|open| &open.walk);
        let mut later = open.skip_while(|other| other.id != walk.id).skip(1);
        later.any(|other| {
            let same = (&other.scope, other.window, other.down_to);
            same == (&walk.scope, walk.window, walk.down_to)
        })
    }

    fn observe_opened(&self, walk: &Walk, reason: Reason, held: usize) {
        self.shared.observer.observe(&Event::WalkOpened {
            source: walk.scope.source.clone(),
            scope: walk.scope.key().0,
            window: walk.window.map(|window| window.to_string()),
            reason,
            held,
        });
    }

    /// Reads what is missing of a walk; also returns how many pages came to be held.
    async fn read_walk(
        &self,
        walk: &Arc<Walk>,
        held: Held,
        archived: u64,
    ) -> (extract::Result<Outcome>, u64) {
        let sizes = self.sizes.of(&walk.scope.stream, walk.page_size);
        let held_now = AtomicU64::new(0);
        let sink = Sink { held: held_now, sizes: Some(&sizes), ..self.sink(walk, archived) };
        let reader = Reader {
            source: &self.client.source,
            caller: &self.client.caller,
            sink: &sink,
            slots: Arc::clone(&self.shared.slots),
            options: extract::Options {
                in_flight: self.client.at_once,
                reread_limit: self.shared.job.run.reread_limit,
                expected_rows: self.expected_rows(walk),
                had_rows: self.had_rows(walk),
                most_pages: extract::MOST_PAGES,
            },
            sizes: &sizes,
        };
        let outcome = reader.read_walk(walk, held).await;
        // Where the loader has ended, its own error says why.
        let _ = sink.tell_sizes().await;
        (outcome, sink.held.load(Ordering::Relaxed))
    }

    /// Returns how many rows the last whole reading of the same listing showed.
    fn expected_rows(&self, walk: &Walk) -> Option<u64> {
        let scope = self.progress.scopes.get(&walk.scope.key())?;
        Some(scope.scan.as_ref()?.rows).filter(|_| walk.window.is_none())
    }

    /// Tells whether earlier readings of what a walk reads showed rows.
    fn had_rows(&self, walk: &Walk) -> bool {
        let Some(window) = &walk.window else {
            return self.expected_rows(walk).is_some_and(|rows| rows > 0);
        };
        let scope = self.progress.scopes.get(&walk.scope.key());
        let spans = scope.map(|scope| scope.coverage.spans()).unwrap_or_default();
        let were_seen = |span: &Covered| window.covers(&span.window) && span.rows > Some(0);
        let rows_in = |span: &Covered| span.rows_in(&span.window.intersect(window)?);
        let about: u64 = spans.iter().filter_map(rows_in).sum();
        spans.iter().any(were_seen) || about >= SURELY_SOME
    }

    fn sink<'a>(&'a self, walk: &'a Arc<Walk>, archived: u64) -> Sink<'a> {
        Sink {
            shared: &self.shared,
            walk,
            archived,
            held: AtomicU64::new(0),
            sizes: None,
            mapping: self.mappings.get(&walk.scope.stream).map(|mapping| &**mapping),
            provider: self.client.source.provider(),
        }
    }

    async fn close(&self, walk: &Arc<Walk>, outcome: Outcome, resumed: bool) -> Result<()> {
        let closing = archive::Closing {
            first_total: outcome.first_total,
            last_total: outcome.last_total,
            distinct: outcome.distinct,
            rejects: outcome.rejects,
            holes: outcome.holes,
            proven: outcome.proven,
            whole: Some(outcome.whole),
            settled: Some(outcome.settled),
        };
        self.shared.archive.close(&walk.id, closing, self.shared.clock.now()).await?;
        self.tell_closed(walk, outcome, resumed).await
    }

    async fn tell_closed(&self, walk: &Arc<Walk>, outcome: Outcome, resumed: bool) -> Result<()> {
        let (walk, outcome) = (Arc::clone(walk), Box::new(outcome));
        self.tell(Message::Closed { walk, outcome, resumed }).await
    }

    /// Looks into the rows that the walks should have shown and did not.
    async fn judge_absent(&self, scopes: &[Scope], summary: &mut SourceSummary) -> Result<()> {
        let (answer, found) = oneshot::channel();
        self.tell(Message::FindAbsent(self.settings.name.clone(), answer)).await?;
        let absences = found.await.map_err(|_| Error::LoaderStopped)?;
        let lookups = self.look_up(&absences, scopes, summary).await?;
        let guard = Guard {
            max_ratio: self.shared.job.load.max_delete_ratio.get(),
            accepted: self.accept_deletes,
        };
        let now = self.shared.clock.now();
        let decision = gone::decide(&absences, &lookups, &self.progress.absent, guard, now);
        self.tell(Message::Decided(self.settings.name.clone(), Box::new(decision))).await
    }

    /// Asks for absent leads by id. One that the provider shows is loaded, under the scope that held
    /// it. A request that fails ends the asking, and the rest waits for the next run; one that is
    /// refused says nothing of the others.
    async fn look_up(
        &self,
        absences: &Absences,
        scopes: &[Scope],
        summary: &mut SourceSummary,
    ) -> Result<Lookups> {
        let mut lookups = Lookups::default();
        if !self.client.source.abilities().finds_records {
            return Ok(lookups);
        }
        let limit = self.shared.job.run.lookups as usize;
        let now = self.shared.clock.now();
        let ask = gone::to_look_up(absences, &self.progress.absent, limit, now);
        let mut walk: Option<Arc<Walk>> = None;
        let mut pages = 0;
        for (asked, candidate) in ask.iter().enumerate() {
            let Some(scope) = scopes.iter().find(|scope| scope.judged_as().0 == candidate.scope)
            else {
                continue;
            };
            if walk.as_ref().is_none_or(|walk| walk.scope != *scope) {
                self.close_lookup(walk.take()).await?;
                walk = Some(self.open(self.draft(scope, None, 1, Reason::Lookup)).await?);
                pages = 0;
            }
            let Some(walk) = &walk else { continue };
            let native = candidate.lead_id.splitn(3, ':').nth(2).unwrap_or(&candidate.lead_id);
            match self.ask_for(walk, native, summary).await {
                Ok(None) => drop(lookups.unknown.insert(candidate.lead_id.clone())),
                Ok(Some(found)) => {
                    if found.is_whole {
                        pages += 1;
                        self.hold_found(walk, found.answer, pages).await?;
                    }
                    lookups.found.insert(candidate.lead_id.clone());
                }
                Err(error @ extract::Error::Refused { .. }) => {
                    tracing::warn!(%error, "an absent lead cannot be asked for by id");
                }
                Err(error) => {
                    tracing::warn!(%error, "stopped asking for absent leads by id");
                    let rest = ask[asked..].iter().map(|candidate| candidate.lead_id.clone());
                    lookups.unanswered.extend(rest);
                    break;
                }
            }
        }
        self.close_lookup(walk).await?;
        Ok(lookups)
    }

    /// Asks for a lead, and once more where the answer shows nothing, or not all of it.
    async fn ask_for(
        &self,
        walk: &Walk,
        native: &str,
        summary: &mut SourceSummary,
    ) -> extract::Result<Option<Found>> {
        let Client { source, caller, .. } = &self.client;
        summary.requests.lookups += 1;
        let mut asked = caller.attempt(|| source.fetch_record(walk, native, false)).await?;
        if matches!(asked, Lookup::Nothing) {
            summary.requests.lookups += 1;
            asked = caller.attempt(|| source.fetch_record(walk, native, false)).await?;
        }
        let Lookup::Found(partial) = asked else { return Ok(None) };
        if partial.is_whole {
            return Ok(Some(partial));
        }
        summary.requests.lookups += 1;
        match caller.attempt(|| source.fetch_record(walk, native, true)).await? {
            Lookup::Found(whole) => Ok(Some(whole)),
            Lookup::Nothing | Lookup::Unknown => Ok(Some(partial)),
        }
    }

    async fn hold_found(&self, walk: &Arc<Walk>, answer: extract::Answer, page: u32) -> Result<()> {
        let header = PageHeader {
            page,
            size: 1,
            round: 0,
            request: answer.request,
            status: answer.status,
            received_at: answer.received_at,
        };
        let archived = u64::from(page - 1);
        let sink = self.sink(walk, archived);
        let page =
            RawPage { header, body: answer.body, stated_rows: None, is_json: false, places: None };
        Ok(sink.keep(page, None, Some(archived)).await?)
    }

    async fn close_lookup(&self, walk: Option<Arc<Walk>>) -> Result<()> {
        match walk {
            Some(walk) => {
                // Each of its pages stands for itself: nothing can have moved between them.
                let outcome = Outcome { proven: true, settled: true, ..Outcome::default() };
                self.close(&walk, outcome, false).await
            }
            None => Ok(()),
        }
    }
}

/// Puts walks that read the listings of one partition into one turn after the other: a record that
/// moves to a later list must not be read there first.
fn in_turns(walks: Vec<PlannedWalk>) -> Vec<Vec<PlannedWalk>> {
    let mut turns: Vec<Vec<PlannedWalk>> = Vec::new();
    let mut of_partitions: BTreeMap<ScopeKey, Vec<usize>> = BTreeMap::new();
    for walk in walks {
        let list = walk.scope.list.as_str();
        let of_partition = of_partitions.entry(walk.scope.judged_as()).or_default();
        let is_before =
            |turn: &usize| turns[*turn].last().is_some_and(|last| last.scope.list != list);
        let before = match list {
            "" => None,
            _ => of_partition.iter().copied().find(is_before),
        };
        match before {
            Some(turn) => turns[turn].push(walk),
            None => {
                of_partition.push(turns.len());
                turns.push(vec![walk]);
            }
        }
    }
    turns
}

/// Returns the error that tells more: the first, but of two that say when to come back the later.
fn first_or_longest(first: Option<Error>, next: Error) -> Error {
    let resume_at = |error: &Error| match error {
        Error::Extract(extract::Error::Spent { resume_at, .. }) => *resume_at,
        _ => None,
    };
    match first {
        None => next,
        Some(first) => match (resume_at(&first), resume_at(&next)) {
            (Some(at), Some(later)) if later > at => next,
            _ => first,
        },
    }
}

/// So many rows that fall to a window if they are spread evenly, and some are in it.
const SURELY_SOME: u64 = 20;

/// Walks that may fail one after the other before that is taken for the provider's state.
const LOCAL_FAILURES: usize = 5;

/// Tells whether an error says something of one walk only.
fn is_local(error: &Error) -> bool {
    let Error::Extract(error) = error else { return false };
    matches!(
        error,
        extract::Error::Refused { .. }
            | extract::Error::Broken { .. }
            | extract::Error::TooLarge { .. }
            | extract::Error::TooManyRows { .. }
            | extract::Error::Unavailable { .. }
    )
}

/// Turns the error that ended a source's reading into what the run says of it; errors of the run
/// itself go on.
fn note_end(summary: &mut SourceSummary, error: Error, settings: &SourceSettings) -> Result<()> {
    let Error::Extract(error) = error else { return Err(error) };
    summary.hint = error.hint();
    summary.state = match &error {
        extract::Error::Spent { resume_at, .. } => {
            summary.resume_at = *resume_at;
            State::Partial
        }
        extract::Error::Stopped => State::Partial,
        extract::Error::Unauthorized { .. } => {
            summary.hint = Some(providers::credentials_hint(settings));
            State::Refused
        }
        // A page that cannot be kept is the disk's fault: no source can go on.
        extract::Error::Keep(_)
        | extract::Error::Spill(_)
        | extract::Error::Ledger(quota::Error::Store(_)) => return Err(error.into()),
        _ => State::Failed,
    };
    summary.why = Some(super::chain(&error));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Basis;
    use crate::plan::Requests;

    fn walk(partition: &str, list: &str) -> PlannedWalk {
        let scope = Scope {
            source: "acme".parse().unwrap(),
            stream: "chats".to_owned(),
            partition: partition.to_owned(),
            query: String::new(),
            list: list.to_owned(),
        };
        PlannedWalk {
            scope,
            window: None,
            page_size: 100,
            reason: Reason::NewTime,
            is_newest: false,
            down_to: None,
            resume: None,
            requests: Requests::AtLeast(1),
            basis: Basis::Nothing,
            as_of: None,
        }
    }

    fn lists_in_turns(walks: &[(&str, &str)]) -> Vec<Vec<String>> {
        let walks = walks.iter().map(|(partition, list)| walk(partition, list)).collect();
        let lists = |turn: Vec<PlannedWalk>| turn.into_iter().map(|walk| walk.scope.key().0);
        in_turns(walks).into_iter().map(|turn| lists(turn).collect()).collect()
    }

    #[test]
    fn the_lists_of_a_partition_are_read_one_after_the_other_and_all_else_at_once() {
        let lists = [("a", "lead"), ("b", "lead"), ("a", "other"), ("c", ""), ("c", "")];
        let turns = lists_in_turns(&lists);
        let expected = [
            vec!["chats/a/lead", "chats/a/other"],
            vec!["chats/b/lead"],
            vec!["chats/c"],
            vec!["chats/c"],
        ];
        assert_eq!(turns, expected);
    }

    #[test]
    fn a_list_read_twice_is_in_two_turns_and_the_next_one_goes_into_the_first() {
        let lists = [("a", "lead"), ("a", "lead"), ("a", ""), ("a", "other"), ("a", "lead")];
        let turns = lists_in_turns(&lists);
        let expected = [
            vec!["chats/a/lead", "chats/a/other", "chats/a/lead"],
            vec!["chats/a/lead"],
            vec!["chats/a"],
        ];
        assert_eq!(turns, expected);
    }
}
