//! Takes held pages, maps and stages them, and commits: the one place that writes the lake.
//!
//! It runs on a thread of its own, fed through a bounded channel, so that sorting and writing never hold up
//! requests; another one, ahead of it, maps. Messages of one walk come in order: opened, pages, closed.
//! Memory: one page being mapped, and of each source what is staged, and the ids shown (`shown.rs`).

mod absent;
mod keeping;
mod loading;
mod mapping;
mod message;
mod publish;
mod shown;
mod tiers;

use crate::checkpoint::Checkpoint;
use crate::checkpoint::Difference;
use crate::checkpoint::OpenWalk;
use crate::checkpoint::Scanned;
use crate::checkpoint::ScopeProgress;
use crate::checkpoint::SourceProgress;
use crate::checkpoint::SparePages;
use crate::checkpoint::Unproven;
use crate::clock::SharedClock;
use crate::commit::Commit;
use crate::commit::Key;
use crate::commit::SourceCommit;
use crate::config::Job;
use crate::config::SourceSettings;
use crate::extract::Outcome;
use crate::ids::RunId;
use crate::ids::Seq;
use crate::ids::SourceName;
use crate::ids::WalkId;
use crate::load::Readings;
use crate::load::Room;
use crate::load::Staging;
use crate::point::Steps;
use crate::record::Reason;
use crate::record::Scope;
use crate::record::Walk;
use crate::run::Result;
use crate::run::event::Event;
use crate::run::event::Observer;
use crate::run::settings;
use crate::run::summary::SourceSummary;
use crate::run::summary::State;
use crate::schema::lead;
use crate::store::Store;
use crate::window::Covered;
use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use loading::ClosedWalk;
use loading::Loading;
use loading::Opened;
use mapping::Mapper;
pub(super) use message::HeldPage;
pub(super) use message::Message;
use shown::ShownIds;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::mpsc;

/// What a run has, when it begins to load.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) store: Store,
    pub(super) run: RunId,
    pub(super) command: String,
    pub(super) head: Option<Commit>,
    pub(super) key: Key,
    pub(super) orphans: BTreeMap<SourceName, Vec<OpenWalk>>,
    /// All sources the job names, whether this run reads them or not.
    pub(super) named: BTreeSet<SourceName>,
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
    named: BTreeSet<SourceName>,
    checkpoint: Checkpoint,
    sources: BTreeMap<SourceName, Loading>,
    committed: Option<Seq>,
    began_at: DateTime<Utc>,
    last_commit_at: DateTime<Utc>,
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
        checkpoint.adopt(start.orphans);
        for source in &job.sources {
            if let Some(progress) = checkpoint.sources.get_mut(&source.name) {
                progress.forget_the_future(clock.now());
            }
        }
        let began_at = clock.now();
        let mut loader = Self {
            store: start.store,
            run: start.run,
            command: start.command,
            job,
            key: start.key,
            clock,
            observer,
            head: start.head,
            named: start.named,
            checkpoint,
            sources: BTreeMap::new(),
            committed: None,
            began_at,
            last_commit_at: began_at,
        };
        let room = settings::room(&loader.job)?;
        for settings in loader.job.sources.clone() {
            let loading = loader.loading(settings.clone(), room)?;
            loader.sources.insert(settings.name, loading);
        }
        Ok(loader)
    }

    fn loading(&self, settings: SourceSettings, room: Room) -> Result<Loading> {
        let mappings = settings::mappings(&settings)?;
        let scratch = self.store.scratch(&self.run);
        let held = self.held(&settings.name);
        let partition_by = held.map_or(self.job.load.partition, |held| held.partition);
        let staging = Staging::new(scratch.clone(), lead::arrow_schema(), partition_by, room)?;
        let counts_shared = shown::SHARED.iter().all(|stream| mappings.contains_key(*stream));
        let collects_shown = counts_shared || held.is_some_and(|held| held.rows > 0);
        let parts_before = held.map(|held| held.parts.clone()).unwrap_or_default();
        Ok(Loading {
            transform: settings::transform(&settings, &self.key),
            mappings,
            settings,
            staging,
            scratch,
            room,
            rejects: None,
            scopes: BTreeSet::new(),
            open: HashMap::new(),
            closed: Vec::new(),
            shown: collects_shown.then(|| ShownIds::new(self.store.scratch(&self.run), room)),
            gone: BTreeSet::new(),
            parts_before,
            filled: vec![0; lead::COLUMNS.len()],
            received: BTreeMap::new(),
            new_fields: BTreeSet::new(),
            readings: Readings::default(),
            summary: SourceSummary::default(),
            dirty: false,
        })
    }

    fn held(&self, source: &SourceName) -> Option<&SourceCommit> {
        self.head.as_ref()?.sources.get(source)
    }

    /// Returns what was read so far, with walks that no commit lists.
    pub(super) fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Loads until all senders are gone, commits, and says what was done.
    pub(super) fn run(mut self, messages: mpsc::Receiver<Message>) -> Result<Loaded> {
        let sources = self.sources.values().map(|source| (&source.settings, &source.transform));
        let (mut mapped, thread) = Mapper::new(sources)?.start(messages);
        while let Some(message) = mapped.blocking_recv() {
            self.take(message)?;
            if self.clock.now() - self.last_commit_at >= self.job.run.publish_every {
                self.commit(false)?;
            }
        }
        mapping::join(thread)?;
        self.commit(true)?;
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
            Message::Passed { walk, from, to } => {
                let loading = self.sources.get_mut(&walk.scope.source);
                if let Some(opened) = loading.and_then(|loading| loading.open.get_mut(&walk.id)) {
                    (from..to).for_each(|index| opened.note_loaded(index));
                }
            }
            Message::Dropped(source, walk) => {
                self.progress_mut(&source).open_walks.retain(|open| open.walk.id != walk);
            }
            Message::Page(page) => self.load(*page)?,
            Message::Closed { walk, outcome, resumed } => self.close(&walk, *outcome, resumed)?,
            Message::WindowDays(scope, days) => {
                let progress = self.progress_mut(&scope.source);
                progress.scopes.entry(scope.key()).or_default().window_days = Some(days);
            }
            Message::SmallerPages { source, stream, known } => {
                let smaller = &mut self.progress_mut(&source).smaller_pages;
                match known {
                    Some(known) => drop(smaller.insert(stream, known)),
                    None => drop(smaller.remove(&stream)),
                }
            }
            Message::Backfill { key, backfill } => {
                self.checkpoint.backfills.insert(key, backfill);
            }
            Message::BackfillDone { key } => {
                let complete = |loading: &Loading| loading.summary.state == State::Complete;
                if self.sources.values().all(complete) {
                    self.checkpoint.backfills.remove(&key);
                    self.sources.values_mut().for_each(|loading| loading.dirty = true);
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
            let open = OpenWalk {
                walk: (*walk).clone(),
                loaded_pages: loaded,
                stated_rows: None,
                advanced_at: None,
            };
            progress.open_walks.push(open);
        }
        if let Some(loading) = self.sources.get_mut(&walk.scope.source) {
            let opened = Opened { loaded, beyond: BTreeSet::new() };
            loading.open.insert(walk.id.clone(), opened);
        }
    }

    fn load(&mut self, mut page: HeldPage) -> Result<()> {
        let Some(mapped) = page.mapped.take().transpose()? else { return Ok(()) };
        let source = page.walk.scope.source.clone();
        let seq = self.next_seq();
        let known = known_fields(&self.checkpoint, &page.walk.scope);
        let scan = tiers::scan_before(&self.checkpoint, &page.walk.scope);
        let is_first = known.is_none();
        let Some(loading) = self.sources.get_mut(&source) else { return Ok(()) };
        loading.reject(&self.store, &self.run, seq, &source, &page, &mapped.rejects)?;
        loading.count(&page, &mapped);
        let recency = page.recency(&mapped.places);
        loading.staging.add(mapped.leads, &recency)?;
        let rules = tiers::rules(&page.walk, &self.job.refresh, &loading.settings, scan);
        loading.readings.note(&page.location, &rules);
        loading.dirty = true;
        Steps::new(|| "page".to_owned()).reach("staged");
        if let Some(opened) = loading.open.get_mut(&page.walk.id) {
            opened.note_loaded(page.index);
        }
        let room = MOST_FIELDS.saturating_sub(known.map_or(0, Vec::len));
        let fresh: Vec<String> = mapped
            .unknown_fields
            .into_iter()
            .filter(|field| known.is_none_or(|known| !known.contains(field)))
            .take(room)
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
        let mut open = self.progress_mut(&source).open_walks.iter_mut();
        if let Some(open) = open.find(|open| open.walk.id == page.walk.id) {
            open.stated_rows = page.stated_rows.or(open.stated_rows);
            open.advanced_at = open.advanced_at.max(Some(page.header.received_at));
        }
        if page.walk.reason == Reason::Spare && !page.from_archive {
            self.note_spare(&source);
        }
        drop(page.slot);
        Ok(())
    }

    fn note_spare(&mut self, source: &SourceName) {
        let (now, began) = (self.clock.now(), self.began_at);
        let spare = &mut self.progress_mut(source).spare;
        spare.retain(|paid| now - paid.at < TimeDelta::hours(24));
        match spare.last_mut().filter(|paid| paid.at == began) {
            Some(paid) => paid.pages += 1,
            None => spare.push(SparePages { at: began, pages: 1 }),
        }
    }

    fn close(&mut self, walk: &Walk, outcome: Outcome, resumed: bool) -> Result<()> {
        let source = walk.scope.source.clone();
        let reconciled = outcome.is_reconciled();
        let note = self.cover(walk, &outcome);
        let usual_rejects = self.usual_rejects(walk);
        let Some(loading) = self.sources.get_mut(&source) else { return Ok(()) };
        loading.open.remove(&walk.id);
        loading.dirty = true;
        let summary = &mut loading.summary;
        summary.walks += u64::from(walk.reason != Reason::Lookup);
        summary.resumed += u64::from(resumed);
        summary.reconciled += u64::from(reconciled);
        summary.holes += outcome.holes;
        summary.outside += outcome.outside;
        let key = walk.scope.key().0;
        match note {
            Note::Fine => {}
            Note::Difference(rows) => drop(summary.differences.insert(key.clone(), rows)),
            Note::Unproven => summary.unproven.push(key.clone()),
        }
        if !outcome.settled {
            summary.unsettled.push(walk.scope.key().0);
        }
        if let Some(shown) = &mut loading.shown {
            shown.add(&walk.scope.stream, &outcome.shown)?;
        }
        // What a hole, a repeated page or rows that moved kept from sight is not absent.
        let is_whole = outcome.proven && outcome.holes == 0 && outcome.whole && outcome.settled;
        if walk.reason != Reason::Lookup && is_whole {
            loading.closed.push(ClosedWalk {
                scope: walk.scope.clone(),
                window: walk.window,
                opened_at: walk.opened_at,
                reconciled,
                has_rejects: outcome.rejects > usual_rejects,
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
        Ok(())
    }

    /// Returns how many rows without a usable id a listing has always had.
    fn usual_rejects(&self, walk: &Walk) -> u64 {
        let source = self.checkpoint.sources.get(&walk.scope.source);
        let scope = source.and_then(|source| source.scopes.get(&walk.scope.key()));
        let scan = scope.and_then(|scope| scope.scan.as_ref()).filter(|_| walk.window.is_none());
        scan.and_then(|scan| scan.least_rejects).unwrap_or(0)
    }

    /// Records what a closed walk covers, and what is new about its totals.
    ///
    /// A reading whose pages could not be told apart, or stayed empty, covers nothing, so that the next run
    /// reads the same again, until it is taken for the provider's habit.
    fn cover(&mut self, walk: &Walk, outcome: &Outcome) -> Note {
        let fence = self.checkpoint.backfills.values().map(|backfill| backfill.asked_at).min();
        let progress = self.progress_mut(&walk.scope.source);
        progress.open_walks.retain(|open| open.walk.id != walk.id);
        if walk.reason == Reason::Lookup {
            return Note::Fine;
        }
        let scope = progress.scopes.entry(walk.scope.key()).or_default();
        if !outcome.proven {
            let under = walk.id.opened_under().unwrap_or_default();
            let missing = outcome.difference().unwrap_or_default();
            let places = outcome.in_vain.clone();
            let enough = if missing == 0 { RUNS_THAT_SHOW } else { RUNS_THAT_SHOW_A_LACK };
            if note_unproven(scope, Unproven { missing, places, under, seen: 1 }) < enough {
                return Note::Unproven;
            }
        }
        let Some(window) = walk.window else {
            note_scan(scope, walk, outcome);
            return Note::Fine;
        };
        scope.coverage.insert(Covered {
            window,
            as_of: walk.opened_at,
            rows: Some(outcome.distinct),
            share: None,
            reconciled: outcome.is_reconciled(),
            holes: outcome.holes,
        });
        scope.coverage.coalesce(TimeDelta::days(400), fence, walk.opened_at);
        note_difference(scope, outcome)
    }

    /// Joins what the source's task counted with what was counted here.
    fn done(&mut self, source: &SourceName, task: SourceSummary) {
        let Some(loading) = self.sources.get_mut(source) else { return };
        let here = std::mem::take(&mut loading.summary);
        loading.summary = SourceSummary {
            state: task.state,
            why: task.why,
            hint: task.hint,
            resume_at: task.resume_at,
            kept_back: task.kept_back,
            requests: task.requests,
            walks_left: task.walks_left,
            retired: task.retired,
            left_out: task.left_out,
            ..here
        };
        loading.dirty = true;
    }
}

/// Fields remembered of a stream: every commit carries them, and their names are the provider's.
const MOST_FIELDS: usize = 2_000;

/// In how many runs a reading that proves nothing is the same, until it is the provider's habit.
const RUNS_THAT_SHOW: u32 = 2;

/// As many where the total says that rows are missing: pages that come wrong by chance may come so in two
/// nights at the same places.
const RUNS_THAT_SHOW_A_LACK: u32 = 3;

/// What is new about a walk's totals.
enum Note {
    Fine,
    Difference(i64),
    Unproven,
}

/// A difference to the total is news once: seen twice the same, it is the provider's habit.
fn note_difference(scope: &mut ScopeProgress, outcome: &Outcome) -> Note {
    let Some(rows) = outcome.difference().filter(|rows| *rows != 0 && outcome.proven) else {
        scope.difference = None;
        return Note::Fine;
    };
    let before = scope.difference.filter(|before| before.rows == rows);
    let seen = before.map_or(0, |before| before.seen) + 1;
    scope.difference = Some(Difference { rows, seen });
    if seen == 1 { Note::Difference(rows) } else { Note::Fine }
}

/// Records a reading of a listing without dates. One that may have had rows hidden from it leaves
/// the next whole reading due when it was.
fn note_scan(scope: &mut ScopeProgress, walk: &Walk, outcome: &Outcome) {
    let before = scope.scan.take();
    let mut as_of = walk.opened_at;
    if outcome.distinct > 0 {
        scope.unproven.take_if(|empty| empty.missing > 0);
    }
    if let Some(before) = &before {
        // A listing that is suddenly empty may be a bad night: it is read whole again.
        if outcome.distinct == 0 && before.rows > 0 && !is_empty_again(scope, before, walk) {
            scope.scan = Some(before.clone());
            return;
        }
        if !outcome.whole {
            scope.scan = Some(Scanned {
                top_as_of: Some(walk.opened_at),
                top_pages: Some(outcome.pages.into()),
                ..before.clone()
            });
            return;
        }
        if !outcome.settled {
            as_of = before.as_of;
        }
    }
    let again = |was_shown: fn(&Scanned) -> u32, is_shown: bool| match is_shown {
        true => before.as_ref().map_or(0, was_shown).saturating_add(u32::from(outcome.settled)),
        false => 0,
    };
    scope.scan = Some(Scanned {
        as_of,
        rows: outcome.distinct,
        pages: outcome.pages.into(),
        holes: outcome.holes,
        least_rejects: Some(match &before {
            None => outcome.rejects,
            Some(before) => before.least_rejects.unwrap_or(0).min(outcome.rejects),
        }),
        top_as_of: (as_of < walk.opened_at).then_some(walk.opened_at),
        top_pages: before.as_ref().and_then(|scan| scan.top_pages),
        newest_created_first: again(|scan| scan.newest_created_first, outcome.newest_created_first),
        newest_updated_first: again(|scan| scan.newest_updated_first, outcome.newest_updated_first),
    });
}

/// Tells whether the run before has found a listing empty as well, of which as many rows were known.
fn is_empty_again(scope: &mut ScopeProgress, known: &Scanned, walk: &Walk) -> bool {
    let under = walk.id.opened_under().unwrap_or_default();
    let missing = i64::try_from(known.rows).unwrap_or(i64::MAX);
    let empty = Unproven { missing, places: BTreeSet::new(), under, seen: 1 };
    note_unproven(scope, empty) >= RUNS_THAT_SHOW
}

/// Takes note of a reading that proves nothing; returns in how many runs it was just so.
fn note_unproven(scope: &mut ScopeProgress, mut now: Unproven) -> u32 {
    let is_alike =
        |before: &&Unproven| before.missing == now.missing && before.places == now.places;
    if let Some(before) = scope.unproven.as_ref().filter(is_alike) {
        now.seen = before.seen + u32::from(before.under != now.under);
    }
    scope.unproven.insert(now).seen
}

fn known_fields<'a>(checkpoint: &'a Checkpoint, scope: &Scope) -> Option<&'a Vec<String>> {
    checkpoint.sources.get(&scope.source)?.fields.get(&scope.stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Order;

    fn walk(day: i64) -> Walk {
        Walk {
            id: WalkId::new(Seq(u64::try_from(day).unwrap())),
            scope: Scope {
                source: "clinic".parse().unwrap(),
                stream: "contacts".into(),
                partition: "all".into(),
                query: String::new(),
                list: String::new(),
            },
            window: None,
            page_size: 100,
            opened_at: DateTime::UNIX_EPOCH + TimeDelta::days(day),
            reason: Reason::NewTime,
            down_to: None,
        }
    }

    fn outcome(distinct: u64, newest_updated_first: bool) -> Outcome {
        let read = Outcome { distinct, pages: 3, whole: true, settled: true, ..Outcome::default() };
        Outcome { proven: true, newest_updated_first, ..read }
    }

    #[test]
    fn rows_without_an_id_that_were_always_there_are_told_from_new_ones() {
        let with = |rejects| Outcome { rejects, whole: true, settled: true, ..Outcome::default() };
        let least = |readings: &[u64]| {
            let readings: Vec<Outcome> = readings.iter().map(|rejects| with(*rejects)).collect();
            noted(&readings).least_rejects
        };
        assert_eq!(least(&[2]), Some(2));
        assert_eq!((least(&[2, 3, 3]), least(&[2, 1, 4])), (Some(2), Some(1)));
    }

    fn noted(readings: &[Outcome]) -> Scanned {
        let mut scope = ScopeProgress::default();
        for (day, outcome) in (0..).zip(readings) {
            note_scan(&mut scope, &walk(day), outcome);
        }
        scope.scan.unwrap()
    }

    #[test]
    fn an_order_is_known_once_two_whole_readings_one_after_the_other_have_shown_it() {
        assert_eq!(noted(&[outcome(9, true)]).order(), None);
        assert_eq!(noted(&[outcome(9, true), outcome(9, true)]).order(), Some(Order::Updated));
        let broken = [outcome(9, true), outcome(9, false), outcome(9, true)];
        assert_eq!(noted(&broken).order(), None);
    }

    #[test]
    fn a_reading_from_the_top_leaves_what_the_whole_one_has_shown() {
        let top = Outcome { whole: false, ..outcome(2, false) };
        let scan = noted(&[outcome(9, true), outcome(9, true), top]);
        assert_eq!((scan.rows, scan.order()), (9, Some(Order::Updated)));
        assert_eq!((scan.as_of, scan.read_at()), (walk(1).opened_at, walk(2).opened_at));
    }

    #[test]
    fn what_proves_nothing_is_the_same_in_other_runs_at_the_same_places_alone() {
        let mut scope = ScopeProgress::default();
        let mut seen = |missing, place, under| {
            let places = BTreeSet::from([place]);
            note_unproven(&mut scope, Unproven { missing, places, under: Seq(under), seen: 1 })
        };
        assert_eq!([seen(10, 40, 1), seen(10, 40, 1), seen(10, 60, 2)], [1, 1, 1]);
        assert_eq!([seen(9, 60, 3), seen(9, 60, 4), seen(9, 60, 4), seen(9, 60, 5)], [1, 2, 2, 3]);
    }

    #[test]
    fn a_listing_that_is_suddenly_empty_is_not_taken_for_a_reading() {
        let scan = noted(&[outcome(9, true), outcome(0, false)]);
        assert_eq!((scan.rows, scan.as_of), (9, walk(0).opened_at));
    }

    #[test]
    fn a_listing_that_is_empty_in_two_runs_is_taken_for_it() {
        let scan = noted(&[outcome(9, true), outcome(0, false), outcome(0, false)]);
        assert_eq!((scan.rows, scan.as_of), (0, walk(2).opened_at));
        let not_in_a_row = [9, 0, 9, 0].map(|rows| outcome(rows, false));
        assert_eq!(noted(&not_in_a_row).rows, 9);
    }

    #[test]
    fn a_reading_that_rows_may_have_been_hidden_from_leaves_the_next_whole_one_due() {
        let hidden = || Outcome { settled: false, ..outcome(8, true) };
        let scan = noted(&[outcome(9, true), outcome(9, true), hidden()]);
        assert_eq!((scan.rows, scan.order()), (8, Some(Order::Updated)));
        assert_eq!((scan.as_of, scan.read_at()), (walk(1).opened_at, walk(2).opened_at));
        assert_eq!(noted(&[outcome(9, true), hidden()]).order(), None);
    }
}
