//! A provider in memory whose listing states no total and moves while it is read, and a sink that
//! remembers: what the laws of reading are tried against.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::Mutex;

use async_trait::async_trait;
use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use tokio::sync::Semaphore;
use tokio::sync::watch;

use super::Abilities;
use super::Answer;
use super::Caller;
use super::Error;
use super::Halt;
use super::Held;
use super::IdRoom;
use super::Lookup;
use super::Options;
use super::Outcome;
use super::PageFacts;
use super::PageSink;
use super::PageSizes;
use super::Reader;
use super::Result;
use super::RetryPolicy;
use super::RowFacts;
use super::Slot;
use super::Source;
use crate::checkpoint::Partition;
use crate::clock::ManualClock;
use crate::clock::SharedClock;
use crate::ids::ProviderId;
use crate::ids::Seq;
use crate::ids::WalkId;
use crate::quota::Ledger;
use crate::quota::Quota;
use crate::record::DownTo;
use crate::record::PageHeader;
use crate::record::RawPage;
use crate::record::Reason;
use crate::record::Scope;
use crate::record::Walk;
use crate::store::Store;

/// A row: its id, and when it was created and changed, in minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) id: u64,
    pub(super) created: i64,
    pub(super) updated: i64,
}

/// In which order rows are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sorting {
    NewestCreated,
    OldestCreated,
    NewestUpdated,
    OldestUpdated,
}

/// What comes after the last row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Empty,
    Refused,
    LastPage,
}

/// What happens to the listing, before its `at`-th request.
#[derive(Debug, Clone, Copy)]
pub(super) enum Edit {
    Insert,
    /// Created long ago, so that it appears in the midst.
    InsertOld(usize),
    Touch(usize),
    Remove(usize),
}

/// What a request meets with, other than an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The run dies: what was in flight is lost.
    Dies,
    /// It is answered as if the listing ended here.
    Ends(End),
    /// Its answer cannot be read.
    Breaks,
    /// It is answered with another page than was asked for, counted from 0.
    Shows(usize),
}

#[derive(Debug)]
struct World {
    rows: Vec<Row>,
    requests: u64,
    next: i64,
}

std::thread_local! {
    /// Whether this thread serves the network.
    static SERVES: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// A clone is the same source.
#[derive(Debug, Clone)]
pub(super) struct MemorySource {
    world: Arc<Mutex<World>>,
    pub(super) sorting: Sorting,
    pub(super) end: End,
    pub(super) abilities: Abilities,
    /// Rows of a page, where the server alone decides.
    pub(super) own_size: Option<usize>,
    /// Whether page numbers are not looked at.
    pub(super) same_page: bool,
    /// Whether every page states the total, also one that is answered as if the listing had ended.
    pub(super) states_total: bool,
    pub(super) edits: Vec<(u64, Edit)>,
    pub(super) troubles: Vec<(u64, Trouble)>,
}

impl MemorySource {
    pub(super) fn new(rows: u64, sorting: Sorting) -> Self {
        let row = |id| Row { id, created: id as i64, updated: id as i64 };
        let world = World { rows: (0..rows).map(row).collect(), requests: 0, next: rows as i64 };
        Self {
            world: Arc::new(Mutex::new(world)),
            sorting,
            end: End::Empty,
            abilities: Abilities {
                sized_pages: true,
                short_page_ends: false,
                finds_records: false,
            },
            own_size: None,
            same_page: false,
            states_total: false,
            edits: Vec::new(),
            troubles: Vec::new(),
        }
    }

    /// The rows as they are now.
    pub(super) fn rows(&self) -> Vec<Row> {
        self.world.lock().unwrap().rows.clone()
    }

    pub(super) fn requests(&self) -> u64 {
        self.world.lock().unwrap().requests
    }

    pub(super) fn edit(&self, edit: Edit) {
        let mut world = self.world.lock().unwrap();
        apply(&mut world, edit);
    }

    fn listed(&self, world: &World) -> Vec<Row> {
        let mut rows = world.rows.clone();
        rows.sort_by_key(|row| match self.sorting {
            Sorting::NewestCreated => (-row.created, row.id),
            Sorting::OldestCreated => (row.created, row.id),
            Sorting::NewestUpdated => (-row.updated, row.id),
            Sorting::OldestUpdated => (row.updated, row.id),
        });
        rows
    }
}

fn apply(world: &mut World, edit: Edit) {
    let next = world.next;
    let count = world.rows.len();
    let id = 10_000 + next as u64;
    world.next += 1;
    match edit {
        Edit::Insert => world.rows.push(Row { id, created: next, updated: next }),
        Edit::InsertOld(at) => {
            let created = world.rows.get(at % count.max(1)).map_or(0, |row| row.created);
            world.rows.push(Row { id, created, updated: next });
        }
        Edit::Touch(at) if count > 0 => world.rows[at % count].updated = next,
        Edit::Remove(at) if count > 0 => drop(world.rows.remove(at % count)),
        Edit::Touch(_) | Edit::Remove(_) => {}
    }
}

#[async_trait]
impl Source for MemorySource {
    fn provider(&self) -> ProviderId {
        ProviderId::Whautomate
    }

    async fn fetch_page(&self, _walk: &Walk, page: u32, size: u32) -> Result<Answer> {
        let mut world = self.world.lock().unwrap();
        let number = world.requests;
        world.requests += 1;
        for (_, edit) in self.edits.iter().filter(|(at, _)| *at == number) {
            apply(&mut world, *edit);
        }
        let trouble = self.troubles.iter().find(|(at, _)| *at == number);
        let (mut end, mut other) = (None, None);
        match trouble.map(|(_, trouble)| *trouble) {
            None => {}
            Some(Trouble::Dies) => return Err(Error::Stopped),
            Some(Trouble::Breaks) => {
                let (provider, detail) = (self.provider(), "cut short".to_owned());
                return Err(Error::Broken { provider, detail });
            }
            Some(Trouble::Ends(as_end)) => end = Some(as_end),
            Some(Trouble::Shows(page)) => other = Some(page),
        }
        let size = self.own_size.unwrap_or(size as usize);
        let rows = self.listed(&world);
        let pages: Vec<&[Row]> = rows.chunks(size).collect();
        let asked = if self.same_page { 0 } else { page as usize - 1 };
        let asked = other.unwrap_or(asked);
        let shown = match (pages.get(asked).filter(|_| end.is_none()), end.unwrap_or(self.end)) {
            (Some(rows), _) => *rows,
            (None, End::Empty) => &[],
            (None, End::LastPage) => pages.last().copied().unwrap_or_default(),
            (None, End::Refused) => {
                let (request, text) = (format!("page {page}"), "no such page".to_owned());
                return Err(Error::Refused {
                    provider: self.provider(),
                    request,
                    status: 404,
                    text,
                });
            }
        };
        let line = |row: &Row| format!("{} {} {}\n", row.id, row.created, row.updated);
        let total = self.states_total.then(|| format!("total {}\n", rows.len()));
        let lines = total.into_iter().chain(shown.iter().map(line));
        Ok(Answer {
            status: 200,
            request: String::new(),
            retry_after: None,
            media_type: String::new(),
            body: lines.collect::<String>().into(),
            received_at: DateTime::UNIX_EPOCH,
        })
    }

    async fn fetch_record(&self, _: &Walk, _: &str, _: bool) -> Result<Lookup> {
        Ok(Lookup::Unknown)
    }

    async fn check(&self, _: &Caller) -> Result<&'static str> {
        Ok("a key")
    }

    async fn list_partitions(&self, _: &Caller) -> Result<Option<Vec<Partition>>> {
        Ok(None)
    }

    fn read_page(&self, body: &[u8]) -> Result<PageFacts> {
        assert!(!SERVES.get(), "a page is looked at where the network is served");
        Ok(facts_in(body))
    }

    fn abilities(&self) -> Abilities {
        self.abilities
    }
}

/// Reads a page as [`MemorySource`] writes it.
fn facts_in(body: &[u8]) -> PageFacts {
    let row = |line: &str| {
        let mut numbers = line.split(' ').map(|number| number.parse::<i64>().unwrap());
        let id = numbers.next().map(|id| id as u64);
        let mut time = || numbers.next().map(minute);
        RowFacts { id, created_at: time(), updated_at: time() }
    };
    let mut lines = std::str::from_utf8(body).unwrap().lines().peekable();
    let stated = lines.next_if(|line| line.starts_with("total "));
    let total = stated.map(|line| line["total ".len()..].parse().unwrap());
    PageFacts { total, rows: lines.map(row).collect(), ..PageFacts::default() }
}

/// Returns the instant that many minutes after the first.
pub(super) fn minute(minutes: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::minutes(minutes)
}

/// What is held of one walk, over all runs.
#[derive(Debug, Default)]
struct MemorySink {
    pages: Mutex<Vec<(PageHeader, PageFacts)>>,
    holes: Mutex<Vec<(u64, u32)>>,
}

impl MemorySink {
    fn held(&self, walk: &Walk) -> Held {
        let mut held = Held::new(walk, IdRoom::tiny());
        for (header, facts) in &*self.pages.lock().unwrap() {
            held.add_page(header, facts).unwrap();
        }
        self.holes.lock().unwrap().iter().for_each(|(offset, rows)| held.add_hole(*offset, *rows));
        held
    }
}

#[async_trait]
impl PageSink for MemorySink {
    async fn hold(&self, _: &Walk, page: RawPage, _: Slot) -> Result<()> {
        self.pages.lock().unwrap().push((page.header, facts_in(&page.body)));
        Ok(())
    }

    async fn hole(&self, _: &Walk, offset: u64, rows: u32, _: &Error) -> Result<()> {
        self.holes.lock().unwrap().push((offset, rows));
        Ok(())
    }
}

/// A whole listing to be read in pages of `page_size`.
pub(super) fn whole(page_size: u32) -> Walk {
    Walk {
        id: WalkId::new(Seq(0)),
        scope: Scope {
            source: "memory".parse().unwrap(),
            stream: "contacts".into(),
            partition: "all".into(),
            query: String::new(),
            list: String::new(),
        },
        window: None,
        page_size,
        opened_at: DateTime::UNIX_EPOCH,
        reason: Reason::NewTime,
        down_to: None,
    }
}

/// The same, from the top down to `down_to`.
pub(super) fn top(page_size: u32, down_to: DownTo) -> Walk {
    Walk { down_to: Some(down_to), ..whole(page_size) }
}

/// How a reading ended.
#[derive(Debug)]
pub(super) struct Reading {
    outcome: Outcome,
    /// All ids that were shown, sorted, each once.
    pub(super) shown: Vec<u64>,
}

impl Reading {
    fn of(outcome: Outcome) -> Self {
        let mut shown = outcome.shown.read(0..outcome.shown.len()).unwrap();
        shown.sort_unstable();
        shown.dedup();
        Self { outcome, shown }
    }
}

impl Deref for Reading {
    type Target = Outcome;

    fn deref(&self) -> &Outcome {
        &self.outcome
    }
}

/// More pages than any of its listings has.
pub(super) const MOST_PAGES: u32 = 150;

/// Reads a walk, again and again where the run dies, and tells how it ended. `between` happens
/// after each death.
pub(super) fn read(
    source: &MemorySource,
    walk: &Walk,
    expected_rows: Option<u64>,
    between: impl Fn(&MemorySource),
) -> Result<Reading> {
    // What serves the network looks at no page.
    SERVES.set(true);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let clock: SharedClock = Arc::new(ManualClock::new(DateTime::UNIX_EPOCH));
    let rule = crate::quota::preset(ProviderId::Convertalk, None).unwrap();
    let ledger = Ledger::open(Store::create(folder.path()).unwrap(), "memory", rule);
    let quota = Arc::new(Quota::new(ledger, clock.clone(), crate::quota::Options::default()));
    let policy = RetryPolicy {
        retries: 0,
        first_wait: std::time::Duration::from_millis(1),
        longest_wait: std::time::Duration::from_millis(1),
        patience: TimeDelta::hours(1),
        rate_span: TimeDelta::seconds(1),
    };
    let (_go_on, halt) = watch::channel(Halt::GoOn);
    let caller = Caller::new(ProviderId::Convertalk, quota, clock.clone(), policy, halt);
    let sink = MemorySink::default();
    let sizes = PageSizes::new(walk.page_size, None, clock.now());
    let shared: Arc<dyn Source> = Arc::new(source.clone());
    let reader = Reader {
        source: &shared,
        caller: &caller,
        sink: &sink,
        slots: Arc::new(Semaphore::new(2)),
        options: Options {
            in_flight: 2,
            reread_limit: 2,
            // As of a run: a window is told only whether it had rows.
            expected_rows: expected_rows.filter(|_| walk.window.is_none()),
            had_rows: expected_rows.is_some_and(|rows| rows > 0),
            most_pages: MOST_PAGES,
        },
        sizes: &sizes,
    };
    loop {
        match runtime.block_on(reader.read_walk(walk, sink.held(walk))) {
            Err(Error::Stopped) => between(source),
            ended => return ended.map(Reading::of),
        }
    }
}
