//! Reads a walk: all pages of one listing, several in flight, until they agree with each other.
//!
//! The rule: a page that is held is not asked for again. What breaks it is counted by name: probes
//! and re-reads after rows have shifted. Memory: as many pages as there are slots, and what the book
//! has of each page held (`book`).

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;

use super::Caller;
use super::Error;
use super::PageFacts;
use super::PageSizes;
use super::Result;
use super::Source;
use super::book::Book;
use super::book::smallest_factor;
use super::checks;
use super::shown::IdRoom;
use crate::record::PageHeader;
use crate::record::RawPage;
use crate::record::Walk;
use crate::spill::Log;

/// Room in memory for one page, from the request until its rows are in columns.
pub type Slot = OwnedSemaphorePermit;

/// Where pages go.
#[async_trait]
pub trait PageSink: Send + Sync {
    /// Holds a page: when this returns, it is durable. The slot goes along with the page.
    async fn hold(&self, walk: &Walk, page: RawPage, slot: Slot) -> Result<()>;

    /// Records that `rows` rows from `offset` (from 0) never came right.
    async fn hole(&self, walk: &Walk, offset: u64, rows: u32, why: &Error) -> Result<()>;
}

/// What is held of a walk from earlier runs: where its pages stand and which ids they show.
#[derive(Debug)]
pub struct Held {
    book: Book,
    /// How it ended, where it was read to its end: then nothing is asked for any more, unless pages of it
    /// were lost since.
    pub closed: Option<Closed>,
}

impl Held {
    /// Returns nothing yet of `walk`; there is `room` for the ids it will show.
    pub fn new(walk: &Walk, room: IdRoom) -> Self {
        Self { book: Book::new(walk, room), closed: None }
    }

    /// Adds a page, in the order they were received.
    ///
    /// # Errors
    ///
    /// Where the scratch disk fails.
    pub fn add_page(&mut self, header: &PageHeader, facts: &PageFacts) -> Result<()> {
        Ok(self.book.add(header, facts)?)
    }

    /// Adds `rows` rows from `offset` (from 0) that never came right.
    pub fn add_hole(&mut self, offset: u64, rows: u32) {
        self.book.holes.insert(offset, rows);
    }

    /// Returns how many pages were added.
    pub fn pages(&self) -> usize {
        self.book.pages.len()
    }
}

/// What the pages of a walk that was read to its end do not tell by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed {
    /// As of [`Outcome::proven`].
    pub proven: bool,
    /// As of [`Outcome::whole`].
    pub whole: bool,
    /// As of [`Outcome::settled`].
    pub settled: bool,
    /// As of [`Outcome::distinct`].
    pub distinct: u64,
    /// As of [`Outcome::rejects`].
    pub rejects: u64,
    /// As of [`Outcome::holes`].
    pub holes: u64,
}

/// Limits of reading a walk.
#[derive(Debug, Clone)]
pub struct Options {
    /// Pages asked for at the same time, at least 1.
    pub in_flight: usize,
    /// How often what has shifted is read again.
    pub reread_limit: u32,
    /// Rows that the last whole reading of the same listing showed; where there is no total, an end
    /// that comes well before them is asked for once more.
    pub expected_rows: Option<u64>,
    /// Whether earlier readings showed rows of what is read: where it has none now, it is asked for once
    /// more.
    pub had_rows: bool,
    /// Pages of a listing without a total beyond which it is taken for one that never ends.
    pub most_pages: u32,
}

/// How a walk ended.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The total the provider stated first.
    pub first_total: Option<u64>,
    /// The total the provider stated last.
    pub last_total: Option<u64>,
    /// Distinct records on the pages as last read.
    pub distinct: u64,
    /// Rows without a usable id on the pages as last read.
    pub rejects: u64,
    /// Rows that never came right.
    pub holes: u64,
    /// Whether the pages are known to be different pages of one listing that stood still.
    pub proven: bool,
    /// The places, in rows from 0, of the first page that showed just what an earlier one did, and of the first
    /// that showed nothing where the total says that there are rows.
    pub in_vain: BTreeSet<u64>,
    /// Hashes of all ids that any page showed, in their order; one may come again.
    pub shown: Log,
    /// Pages the listing has, an empty last one included.
    pub pages: u32,
    /// Whether the end of the listing was reached: a reading from the top may end before.
    pub whole: bool,
    /// Whether no row is known to have been hidden by others that moved.
    pub settled: bool,
    /// Whether the rows came with the newest created first. Only listings without a total tell.
    pub newest_created_first: bool,
    /// Whether the rows came with the newest changed first. Only listings without a total tell.
    pub newest_updated_first: bool,
    /// Rows created outside the window asked for.
    pub outside: u64,
    /// Rows without a creation time that can be read.
    pub undated: u64,
    /// Whether an earlier run closed the walk already, and nothing was left to do.
    pub was_closed: bool,
}

impl Outcome {
    /// Returns the stated total minus what was seen; `None` where no total was stated.
    pub fn difference(&self) -> Option<i64> {
        let seen = i64::try_from(self.distinct + self.rejects + self.holes).ok()?;
        Some(i64::try_from(self.last_total?).ok()? - seen)
    }

    /// Tells whether the provider's totals, first and last, agree with the distinct records seen.
    pub fn is_reconciled(&self) -> bool {
        self.proven
            && self.holes == 0
            && self.first_total == self.last_total
            && self.difference() == Some(0)
    }
}

/// Reads walks of one source.
#[derive(Clone)]
pub struct Reader<'a> {
    /// The provider.
    pub source: &'a Arc<dyn Source>,
    /// Permits and retries.
    pub caller: &'a Caller,
    /// Where pages go.
    pub sink: &'a dyn PageSink,
    /// Room for pages.
    pub slots: Arc<Semaphore>,
    /// Limits.
    pub options: Options,
    /// Which size of pages the walk's stream gives.
    pub sizes: &'a PageSizes,
}

impl Reader<'_> {
    /// Reads what is missing of `walk`, of which `held` is held already.
    ///
    /// On an error, what was held until then stays held; read the same walk again to go on. What was
    /// asked for again is counted with the caller, however it ends.
    pub async fn read_walk(&self, walk: &Walk, held: Held) -> Result<Outcome> {
        let Held { mut book, closed } = held;
        let read = self.read_into(walk, closed, &mut book).await;
        self.caller.counts().note_again(book.probes, book.rereads, book.checks);
        read?;
        Ok(book.close()?)
    }

    async fn read_into(&self, walk: &Walk, closed: Option<Closed>, book: &mut Book) -> Result<()> {
        // An earlier run may have died before it could tell.
        if let (Some(rows), Some(at)) = (book.came_in_pieces_of(), book.received_at()) {
            self.sizes.note_broken(rows, book.size, at);
        }
        // Pages may have been lost after it was closed.
        if let Some(closed) = closed
            && (closed.distinct, closed.rejects, closed.holes) == book.counts()?
        {
            (book.proven, book.whole, book.settled) = (closed.proven, closed.whole, closed.settled);
            book.was_closed = true;
            return Ok(());
        }
        let goes_on = !book.entries.is_empty() || !book.holes.is_empty();
        if !goes_on {
            match self.read_place(walk, 1, walk.page_size, book).await {
                Err(error) if self.may_be_empty(walk, &error) => book.proven = false,
                // Where rows are known, an end that comes as an error is asked for once more.
                Err(error) if walk.window.is_none() && error.says_not_found() => {
                    book.probes += 1;
                    self.read_place(walk, 1, walk.page_size, book).await?;
                }
                read => read?,
            }
        }
        // A scan asks for an end that comes early once more itself.
        let is_counted = walk.window.is_some() || book.total_pages.is_some();
        if is_counted && self.options.had_rows && book.is_empty() && book.round_of(1) == 0 {
            self.reread(walk, 0, book).await?;
            book.probes += 1;
        }
        if book.total_pages.is_none() {
            self.scan(walk, book, goes_on).await?;
        }
        // A total may have come to light on the way.
        if book.total_pages.is_none() {
            return Ok(());
        }
        self.read_missing(walk, book).await?;
        self.settle_shifts(walk, book).await?;
        self.settle_repeats(walk, book).await?;
        self.settle_short(walk, book).await?;
        self.settle_doubles(walk, book).await
    }

    async fn read_missing(&self, walk: &Walk, book: &mut Book) -> Result<()> {
        loop {
            if let Some(rows) = self.sizes.limit() {
                book.shrink_to(rows);
            }
            let missing = book.missing();
            if missing.is_empty() || book.repeats().is_some() {
                return Ok(());
            }
            self.read_many(walk, missing, book).await?;
        }
    }

    /// Reads pages, several at a time. After an error no new one is asked for, but those in flight
    /// are awaited: their permits are spent. One that breaks is tried in pieces first, and where that
    /// tells that pages of this size do not fit, the rest is left to be asked for in smaller ones.
    async fn read_many(&self, walk: &Walk, pages: Vec<u32>, book: &mut Book) -> Result<()> {
        let size = book.size;
        let mut waiting = pages.into_iter();
        let mut flying = FuturesUnordered::new();
        let mut failed = Vec::new();
        let mut stop = None;
        loop {
            while stop.is_none()
                && failed.is_empty()
                && flying.len() < self.options.in_flight.max(1)
            {
                let Some(page) = waiting.next() else { break };
                let reading = self.read_page(walk, page, size, 0);
                flying.push(async move { (page, reading.await) });
            }
            match flying.next().await {
                None => break,
                Some((_, Ok((header, facts)))) => {
                    stop = stop.or(book.add(&header, &facts).map_err(Error::from).err());
                }
                Some((page, Err(error))) if error.may_be_size() => failed.push((page, error)),
                Some((page, Err(error))) if self.is_past_end(page, &error) => {
                    failed.push((page, error))
                }
                Some((_, Err(error))) => stop = Some(error),
            }
            if book.repeats().is_some() || book.has_ended() {
                waiting = Vec::new().into_iter();
            }
        }
        drop(flying);
        if let Some(error) = stop {
            return Err(error);
        }
        for (page, error) in failed {
            self.recover(walk, page, size, error, book).await?;
            if book.size < size {
                break;
            }
        }
        Ok(())
    }

    /// Reads a page, in pieces where it never comes right whole.
    async fn read_place(&self, walk: &Walk, page: u32, size: u32, book: &mut Book) -> Result<()> {
        match self.read_page(walk, page, size, 0).await {
            Ok((header, facts)) => Ok(book.add(&header, &facts)?),
            Err(error) => self.recover(walk, page, size, error, book).await,
        }
    }

    pub(super) async fn recover(
        &self,
        walk: &Walk,
        page: u32,
        size: u32,
        error: Error,
        book: &mut Book,
    ) -> Result<()> {
        if self.is_past_end(page, &error) {
            return self.reread_first(walk, page, error, book).await;
        }
        let sized_pages = self.source.abilities().sized_pages;
        let may_be = if sized_pages { error.may_be_size() } else { error.may_be_one_row() };
        if !may_be || !self.answers_at_all(walk).await? {
            return Err(error);
        }
        if !sized_pages {
            return self.leave_out(walk, page, error, book).await;
        }
        self.read_in_pieces(walk, page, size, error, book).await
    }

    /// A provider that never answered in this run may be down, or stumble over one row of the very
    /// first page: pages of one row tell. Their answers are not kept.
    pub(super) async fn answers_at_all(&self, walk: &Walk) -> Result<bool> {
        for page in [1, 2] {
            if self.caller.has_answered() {
                break;
            }
            // A sound status proves nothing: a page of HTML has one too.
            let probe = || async {
                let answer = self.source.fetch_page(walk, page, 1).await?;
                self.facts_of(&answer.body).await
            };
            match self.caller.attempt_with(0, probe).await {
                Err(error) if !error.may_be_one_row() => return Err(error),
                _ => {}
            }
        }
        Ok(self.caller.has_answered())
    }

    fn is_past_end(&self, page: u32, error: &Error) -> bool {
        page > 1 && matches!(error, Error::Refused { .. })
    }

    /// Past the end of a listing may begin at its first page. Where rows are known of it, or dates bound
    /// it, such an answer is no listing; else it is taken for an empty one, and proves nothing.
    fn may_be_empty(&self, walk: &Walk, error: &Error) -> bool {
        walk.window.is_none() && !self.options.had_rows && error.says_not_found()
    }

    /// A page that exists by the total, but is refused: the listing may have become shorter.
    async fn reread_first(
        &self,
        walk: &Walk,
        page: u32,
        error: Error,
        book: &mut Book,
    ) -> Result<()> {
        let round = book.round_of(1) + 1;
        // In the size it is held in: one of another size would take its place in part only.
        let size = book.entries.get(&0).map_or(book.size, |first| first.size);
        let (header, facts) = self.read_page(walk, 1, size, round).await?;
        book.probes += 1;
        book.add(&header, &facts)?;
        match book.total_pages {
            Some(pages) if pages < page => Ok(()),
            _ => Err(error),
        }
    }

    /// Asks for a page in smaller and smaller pieces, down to the row that the provider breaks on.
    /// What was cornered is a hole only once the rest of the page came right, or, where the run ends
    /// before that, something behind it: the next run goes on from there. Where all of it came right, it
    /// was the size.
    async fn read_in_pieces(
        &self,
        walk: &Walk,
        page: u32,
        size: u32,
        error: Error,
        book: &mut Book,
    ) -> Result<()> {
        let whole = size;
        let mut pieces = pieces_of(page, size);
        // Those before `sure` stand before a piece that came right.
        let (mut cornered, mut sure) = (Vec::new(), 0);
        let has_holes = book.has_holes(page, size);
        // Of a page past the stated total no piece is asked for: then this is all there is to say.
        let mut unsaid = Some(error);
        if pieces.is_empty() {
            cornered.extend(unsaid.take().map(|error| (page, size, error)));
        }
        // The largest piece that came right.
        let mut right = pieces.is_empty().then_some(size);
        let (mut failures, mut failures_in_a_row) = (1, 0);
        while let Some((page, size)) = pieces.pop() {
            if book.needs_no_piece(u64::from(page - 1) * u64::from(size), size) {
                continue;
            }
            // One of this size was got round without a hole: so will this be.
            let is_size = cornered.is_empty() && !has_holes;
            if is_size && right.is_some_and(|right| size > right) {
                pieces.extend(pieces_of(page, size));
                continue;
            }
            unsaid = None;
            match self.read_page_with(walk, page, size, 0, PIECE_RETRIES).await {
                Ok((header, facts)) => {
                    (failures_in_a_row, right) = (0, right.max(Some(size)));
                    sure = cornered.len();
                    book.add(&header, &facts)?;
                }
                Err(error) if error.may_be_size() => {
                    (failures, failures_in_a_row) = (failures + 1, failures_in_a_row + 1);
                    let smaller = pieces_of(page, size);
                    if means_down(&error, failures_in_a_row, smaller.is_empty()) {
                        return Err(error);
                    }
                    if failures > FAILURES_OF_A_PAGE {
                        self.record_holes(walk, &cornered[..sure], book).await?;
                        return Err(error);
                    }
                    if smaller.is_empty() {
                        cornered.push((page, size, error));
                    }
                    pieces.extend(smaller);
                }
                Err(error) => {
                    if matches!(error, Error::Spent { .. }) {
                        self.record_holes(walk, &cornered[..sure], book).await?;
                    }
                    return Err(error);
                }
            }
        }
        if let Some(error) = unsaid {
            return Err(error);
        }
        if let Some(right) = right.filter(|_| cornered.is_empty() && !has_holes) {
            self.note_size(right, whole, failures, book);
        }
        if right.is_none() && !self.comes_right(walk, page, whole, book).await? {
            return cornered.into_iter().next().map_or(Ok(()), |(.., error)| Err(error));
        }
        self.record_holes(walk, &cornered, book).await
    }

    /// Tells whether a piece of the page that an earlier run read still comes right, where there is one.
    async fn comes_right(
        &self,
        walk: &Walk,
        page: u32,
        size: u32,
        book: &mut Book,
    ) -> Result<bool> {
        let Some(offset) = book.piece_of(page, size) else { return Ok(false) };
        book.probes += 1;
        self.reread(walk, offset, book).await.map(|_| true)
    }

    /// Goes on with pages of the size that came right, where a larger one was got round for so many
    /// requests that failed, retries apart.
    fn note_size(&self, right: u32, too_large: u32, failures: u64, book: &mut Book) {
        let Some(at) = book.received_at() else { return };
        book.probes += failures;
        self.sizes.note_broken(right, too_large, at);
        book.shrink_to(right);
    }

    /// Records places, each with its size and why it never came right.
    async fn record_holes(
        &self,
        walk: &Walk,
        places: &[(u32, u32, Error)],
        book: &mut Book,
    ) -> Result<()> {
        for (page, size, why) in places {
            let offset = u64::from(page - 1) * u64::from(*size);
            self.sink.hole(walk, offset, *size, why).await?;
            book.holes.insert(offset, *size);
        }
        Ok(())
    }

    /// Finds by bisecting which pages rows have shifted on, and reads those again, at most
    /// `reread_limit` times. Bisecting takes it that all rows behind one point have shifted: where
    /// the total moved more than once, or the rows do not add up afterwards, all pages that were
    /// read before are read again.
    async fn settle_shifts(&self, walk: &Walk, book: &mut Book) -> Result<()> {
        let mut settled_moves = 0;
        let mut unsure = Vec::new();
        for _ in 0..self.options.reread_limit {
            let mut stale = book.stale();
            if stale.is_empty() && book.disagrees()? {
                stale = std::mem::take(&mut unsure);
            }
            if stale.is_empty() {
                break;
            }
            let moved_once = book.moves == settled_moves + 1;
            settled_moves = book.moves;
            if moved_once {
                unsure = self.reread_shifted(walk, &stale, book).await?;
            } else {
                self.reread_all(walk, &stale, book).await?;
            }
            self.read_missing(walk, book).await?;
        }
        Ok(())
    }

    async fn reread_all(&self, walk: &Walk, places: &[u64], book: &mut Book) -> Result<()> {
        for offset in places {
            self.reread(walk, *offset, book).await?;
            book.rereads += 1;
        }
        Ok(())
    }

    /// Returns the places that were taken for unchanged without being read again.
    async fn reread_shifted(
        &self,
        walk: &Walk,
        stale: &[u64],
        book: &mut Book,
    ) -> Result<Vec<u64>> {
        let mut read = Vec::new();
        let (mut low, mut high) = (0, stale.len());
        while low < high {
            let middle = (low + high) / 2;
            read.push(stale[middle]);
            let is_other = self.reread(walk, stale[middle], book).await?;
            book.probes += 1;
            if is_other {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        book.trust(&stale[..low]);
        let mut shifted = stale[low..].to_vec();
        shifted.retain(|offset| !read.contains(offset));
        self.reread_all(walk, &shifted, book).await?;
        let mut trusted = stale[..low].to_vec();
        trusted.retain(|offset| !read.contains(offset));
        Ok(trusted)
    }

    /// Reads a held place again; tells whether its rows are others now.
    pub(super) async fn reread(&self, walk: &Walk, offset: u64, book: &mut Book) -> Result<bool> {
        let Some(entry) = book.entries.get(&offset) else { return Ok(false) };
        let (page, size, round, before) = (entry.page, entry.size, entry.round, entry.digest);
        let end = book.total_pages.map(|pages| u64::from(pages) * u64::from(book.size));
        if end.is_some_and(|end| offset >= end) {
            book.entries.remove(&offset);
            return Ok(true);
        }
        let (header, facts) = self.read_page(walk, page, size, round + 1).await?;
        book.add(&header, &facts)?;
        Ok(book.entries.get(&offset).is_some_and(|entry| entry.digest != before))
    }

    /// A page that equals an earlier one is asked once more, and then page 2 at half the size tells
    /// whether the page number is ignored. Where it cannot be told, the walk is not proven.
    async fn settle_repeats(&self, walk: &Walk, book: &mut Book) -> Result<()> {
        let Some(mut offset) = book.repeats() else { return Ok(()) };
        loop {
            self.reread(walk, offset, book).await?;
            book.probes += 1;
            match book.repeats() {
                None => return self.read_missing(walk, book).await,
                // That page is another one now; the next may be as well.
                Some(next) if next > offset => offset = next,
                Some(_) => break,
            }
        }
        book.proven = false;
        self.refuse_ignored_numbers(walk, book).await?;
        Ok(())
    }

    /// Asks for page 2 at half the size: where it is the first half of page 1, the number is
    /// ignored. Returns whether it could be told that it is not.
    pub(super) async fn refuse_ignored_numbers(
        &self,
        walk: &Walk,
        book: &mut Book,
    ) -> Result<bool> {
        let half = book.size / 2;
        let can_tell = self.source.abilities().sized_pages && half > 0;
        if !can_tell || !book.first_page_is_full() {
            return Ok(false);
        }
        let first = book.entries.values().next().map(|entry| book.shown.ids(entry.shown.clone()));
        let first = first.transpose()?.unwrap_or_default();
        let (_, facts) = self.read_page(walk, 2, half, 0).await?;
        book.probes += 1;
        let ids: Vec<u64> = facts.rows.iter().filter_map(|row| row.id).collect();
        if first.get(..half as usize) == Some(ids.as_slice()) {
            let provider = self.source.provider();
            return Err(Error::PageIgnored { provider, asked: 2, got: 1 });
        }
        Ok(true)
    }

    /// Pages that show fewer rows than the total says they have are asked for once more, as long as that
    /// brings anything: first those that show none, also where the total has moved. What stays missing
    /// is a difference to the total, which the run tells; where pages without rows stay before others,
    /// or keep others from being asked for, nothing is proven.
    async fn settle_short(&self, walk: &Walk, book: &mut Book) -> Result<()> {
        let mut asked = BTreeSet::new();
        loop {
            let empty = book.empty()?;
            let mut has_changed = self.ask_once_more(walk, empty, &mut asked, book).await?;
            self.read_missing(walk, book).await?;
            let short = book.short()?;
            has_changed |= self.ask_once_more(walk, short, &mut asked, book).await?;
            self.read_missing(walk, book).await?;
            if !has_changed {
                break;
            }
        }
        book.proven &= !book.is_cut_short()?;
        Ok(())
    }

    /// Asks once more for places that were not `asked` for so yet; tells whether any is another now.
    async fn ask_once_more(
        &self,
        walk: &Walk,
        places: Vec<u64>,
        asked: &mut BTreeSet<u64>,
        book: &mut Book,
    ) -> Result<bool> {
        let (mut in_vain, mut has_changed) = (0, false);
        for offset in places {
            if in_vain == TRIES_IN_VAIN {
                break;
            }
            if !asked.insert(offset) {
                continue;
            }
            let is_other = self.reread(walk, offset, book).await?;
            book.probes += 1;
            in_vain += u32::from(!is_other);
            has_changed |= is_other;
        }
        Ok(has_changed)
    }

    /// Rows on two pages under a total that stood still say that as many were on none: rows with
    /// the same time come in no fixed order. Their pages are read again until all have been shown,
    /// at most `reread_limit` times.
    async fn settle_doubles(&self, walk: &Walk, book: &mut Book) -> Result<()> {
        for _ in 0..self.options.reread_limit {
            if !book.proven || !book.hides_rows()? {
                return Ok(());
            }
            self.reread_all(walk, &book.doubled()?, book).await?;
        }
        book.proven &= !book.hides_rows()?;
        Ok(())
    }

    pub(super) async fn read_page(
        &self,
        walk: &Walk,
        page: u32,
        size: u32,
        round: u32,
    ) -> Result<(PageHeader, PageFacts)> {
        self.read_page_with(walk, page, size, round, usize::MAX).await
    }

    /// Reads what paging needs of a body, off the threads that serve the network: a page of some megabytes
    /// takes as long as they need for many answers.
    async fn facts_of(&self, body: &Bytes) -> Result<PageFacts> {
        let (source, body) = (Arc::clone(self.source), body.clone());
        let read = tokio::task::spawn_blocking(move || source.read_page(&body)).await;
        read.unwrap_or_else(|error| match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::Stopped),
        })
    }

    /// Asks for a page, checks it, and holds it.
    async fn read_page_with(
        &self,
        walk: &Walk,
        page: u32,
        size: u32,
        round: u32,
        retries: usize,
    ) -> Result<(PageHeader, PageFacts)> {
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(|_| Error::Stopped)?;
        let send = || async {
            let answer = self.source.fetch_page(walk, page, size).await?;
            let facts = self.facts_of(&answer.body).await?;
            Ok((answer, facts))
        };
        let (answer, mut facts) = match retries {
            usize::MAX => self.caller.attempt(send).await?,
            retries => self.caller.attempt_with(retries, send).await?,
        };
        checks::check_page(self.source.provider(), walk, page, &facts)?;
        let header = PageHeader {
            page,
            size,
            round,
            request: answer.request,
            status: answer.status,
            received_at: answer.received_at,
        };
        let (body, stated_rows) = (answer.body, facts.total);
        let (is_json, places) = (facts.is_json, facts.places.take());
        let raw = RawPage { header: header.clone(), body, stated_rows, is_json, places };
        self.sink.hold(walk, raw, slot).await?;
        self.sizes.note_page(size, facts.rows.len(), header.received_at);
        Ok((header, facts))
    }
}

/// Short pages that show as little the second time: the total counts rows that no page shows.
const TRIES_IN_VAIN: u32 = 2;

/// Retries for a piece of a page that has had all its retries already.
const PIECE_RETRIES: usize = 1;

/// A page of 2,500 rows with one bad row takes at most six failures in a row to corner it; this
/// leaves room for some bad rows side by side.
const FAILURES_THAT_MEAN_DOWN: u32 = 12;

/// Ten bad rows of a page of 2,500, wherever they stand, are cornered within it; with more of them the
/// provider would have a page cost what a whole listing does. It ends the run's reading of the page: those
/// cornered so far are holes, and the next run goes on behind them.
const FAILURES_OF_A_PAGE: u64 = 64;

/// A connection that breaks for its answer's size holds for one that is an eighth as long.
const LOSSES_THAT_MEAN_DOWN: u32 = 3;

/// Tells whether no piece comes right any more: the provider is down, or the way to it, and this is
/// no hole.
fn means_down(error: &Error, failures_in_a_row: u32, is_one_row: bool) -> bool {
    match error.may_be_one_row() {
        true => failures_in_a_row >= FAILURES_THAT_MEAN_DOWN,
        false => is_one_row || failures_in_a_row >= LOSSES_THAT_MEAN_DOWN,
    }
}

/// Cuts page `page` of `size` rows into pages of a smaller size that cover exactly its rows, the
/// first of them last; none for a single row.
fn pieces_of(page: u32, size: u32) -> Vec<(u32, u32)> {
    let Some(factor) = smallest_factor(size) else { return Vec::new() };
    let first = (page - 1) * factor + 1;
    (first..first + factor).rev().map(|page| (page, size / factor)).collect()
}

#[cfg(test)]
mod tests {
    use crate::extract::memory;
    use crate::extract::memory::Edit;
    use crate::extract::memory::End;
    use crate::extract::memory::MemorySource;
    use crate::extract::memory::Sorting;
    use crate::extract::memory::Trouble;

    /// Forty pages of ten rows, of which those asked for from the 18th request on come empty, so many of
    /// them. The total moves before that, where it `moves`.
    fn hiccup(empty: u64, moves: bool) -> MemorySource {
        let mut source = MemorySource::new(395, Sorting::OldestCreated);
        source.states_total = true;
        source.edits = moves.then_some((3, Edit::Insert)).into_iter().collect();
        source.troubles = (17..17 + empty).map(|at| (at, Trouble::Ends(End::Empty))).collect();
        source
    }

    #[test]
    fn pages_that_come_empty_once_are_no_end_whether_the_total_moves_or_not() {
        for moves in [false, true] {
            for empty in [1, 2, 3, 4] {
                let source = hiccup(empty, moves);
                let outcome = memory::read(&source, &memory::whole(10), None, |_| {}).unwrap();
                let mut ids: Vec<u64> = source.rows().iter().map(|row| row.id).collect();
                ids.sort_unstable();
                assert_eq!(outcome.shown, ids, "{empty} empty, moves: {moves}");
                assert!(outcome.proven, "{empty} empty, moves: {moves}");
            }
        }
    }

    #[test]
    fn where_pages_stay_empty_that_the_total_counts_nothing_is_proven() {
        for moves in [false, true] {
            let source = hiccup(1_000, moves);
            let outcome = memory::read(&source, &memory::whole(10), None, |_| {}).unwrap();
            assert!(!outcome.proven && outcome.difference() > Some(200), "{outcome:?}");
            assert!(source.requests() < 40, "{}", source.requests());
        }
    }
}
