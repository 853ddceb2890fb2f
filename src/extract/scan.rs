//! Reads a listing that states no total: page by page, until it shows nothing more.
//!
//! Nobody says where such a listing ends, how it is ordered, or that rows moved from one page to
//! another meanwhile. So an end that may be a mistake is asked for once more; a walk that goes on
//! asks for its last held page again, which shows whether what follows still joins it; and what may
//! have moved meanwhile is looked for afterwards (`moved.rs`).
//!
//! Memory: about 24 bytes a row, for where each was first shown.

use std::collections::HashMap;

use chrono::DateTime;
use chrono::Utc;

use super::Error;
use super::PageFacts;
use super::Reader;
use super::Result;
use super::book::Book;
use crate::record::DownTo;
use crate::record::Order;
use crate::record::Walk;

/// An end before this share of the rows expected is asked for once more, in hundredths.
const EARLY_BELOW: u64 = 98;

/// What is known of a scan beside its book.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Where each record was first shown, from 0.
    pub(super) places: HashMap<u64, u32>,
    /// How many of the book's shown rows are in `places`.
    taken: usize,
    /// Up to which place pages without a new row have come.
    passed: u32,
    /// Rows that were shown again on a later page, among new ones: as many have moved down.
    pub(super) doubles: u64,
}

/// What a page of a scan says about the end.
#[derive(Debug)]
enum Said {
    /// It shows rows that were not shown before.
    More,
    /// It has rows, and all were shown before, further down than by the page before it: rows have
    /// moved down by more than a page.
    Passing,
    /// It is empty.
    Nothing,
    /// It is shorter than the first page, which was full.
    Short,
    /// It shows just what the page before it does.
    Same,
    /// It has rows, and all were shown before.
    OldNews,
    /// It was refused.
    Refused(Error),
    /// Its rows are older than what is asked for.
    Reached,
}

impl Scan {
    fn of(book: &Book) -> Self {
        let mut scan = Self::default();
        scan.take(book);
        scan
    }

    /// Takes note of what was shown since the last time; returns how many of it were new.
    pub(super) fn take(&mut self, book: &Book) -> u64 {
        let before = self.places.len();
        for id in &book.shown[self.taken..] {
            let place = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
            self.places.entry(*id).or_insert(place);
        }
        self.taken = book.shown.len();
        (self.places.len() - before) as u64
    }

    /// Returns the furthest place of the rows of a page.
    fn furthest(&self, ids: &[u64]) -> u32 {
        ids.iter().filter_map(|id| self.places.get(id)).copied().max().unwrap_or(0)
    }

    fn knows_any(&self, ids: &[u64]) -> bool {
        ids.iter().any(|id| self.places.contains_key(id))
    }
}

impl Reader<'_> {
    /// Reads what is missing of a listing without a total, of which the first page, or all that
    /// earlier runs held, is in the book.
    pub(super) async fn scan(&self, walk: &Walk, book: &mut Book, goes_on: bool) -> Result<()> {
        let mut scan = Scan::of(book);
        scan.passed = u32::try_from(scan.places.len()).unwrap_or(u32::MAX).saturating_sub(1);
        let mut page = book.last_page();
        let mut said = self.last_said(walk, page, book);
        if goes_on && matches!(said, Said::More) {
            page = self.check_seam(walk, page, book, &mut scan).await?;
        }
        let mut old_news = 0;
        while book.total_pages.is_none() {
            said = match self.believe(walk, page, said, book, &mut scan).await? {
                Some(Said::OldNews | Said::Same) if old_news > 0 => {
                    // It shows no more, and less than it did: nothing is gone by that.
                    book.settled &= !self.is_early(book, &scan);
                    break;
                }
                Some(said) => said,
                None => break,
            };
            old_news = match said {
                Said::OldNews | Said::Same => old_news + 1,
                _ => 0,
            };
            page += 1;
            (page, said) = self.next(walk, page, book, &mut scan).await?;
        }
        if walk.window.is_none() && walk.down_to.is_none() {
            self.look_for_moved(walk, goes_on, book, &mut scan).await?;
        }
        Ok(())
    }

    /// Returns what the last page held says, by itself.
    fn last_said(&self, walk: &Walk, page: u32, book: &Book) -> Said {
        let Some(entry) = book.page(page) else { return Said::More };
        if entry.rows() == 0 {
            return Said::Nothing;
        }
        let before =
            Some(page - 1).filter(|before| *before > 0).and_then(|before| book.page(before));
        let before = before.filter(|before| !before.ids.is_empty());
        if before.is_some_and(|before| before.ids == entry.ids) {
            return Said::Same;
        }
        if book.descent.has_reached(walk.down_to) {
            return Said::Reached;
        }
        let is_short = book.first_page_is_full() && entry.rows() < u64::from(entry.size);
        match is_short && self.source.abilities().short_page_ends {
            true => Said::Short,
            false => Said::More,
        }
    }

    /// Decides what follows from a page: `None` where the listing has ended, else what to go on
    /// with. An end that is an error, or that comes early, is asked for once more.
    async fn believe(
        &self,
        walk: &Walk,
        page: u32,
        said: Said,
        book: &mut Book,
        scan: &mut Scan,
    ) -> Result<Option<Said>> {
        let is_early = self.is_early(book, scan);
        match said {
            Said::More | Said::Passing => Ok(Some(Said::More)),
            Said::Reached => {
                book.whole = false;
                Ok(None)
            }
            Said::Short if is_early => Ok(Some(Said::More)),
            Said::Short => Ok(None),
            Said::Nothing if !is_early || book.round_of(page) > 0 => Ok(None),
            Said::Nothing | Said::Refused(_) => {
                book.probes += 1;
                match self.next(walk, page, book, scan).await?.1 {
                    Said::Refused(error) if self.is_early(book, scan) => {
                        self.believe_refusal(walk, page, error, book, scan).await.map(|()| None)
                    }
                    Said::Nothing | Said::Refused(_) => Ok(None),
                    _ => Ok(Some(Said::More)),
                }
            }
            Said::Same if page == 2 => self.believe_second(walk, book).await.map(|()| None),
            Said::Same if !is_early => Ok(None),
            Said::Same | Said::OldNews => Ok(Some(Said::OldNews)),
        }
    }

    /// A second page like the first is the end of a listing of one page, or says that the number is
    /// ignored.
    async fn believe_second(&self, walk: &Walk, book: &mut Book) -> Result<()> {
        let sized = self.source.abilities().sized_pages;
        if sized && !book.first_page_is_full() {
            return Ok(());
        }
        // Where it cannot be told, what was shown is loaded and proves nothing.
        book.proven &= self.refuse_ignored_numbers(walk, book).await?;
        Ok(())
    }

    /// A page that was refused twice, although more is expected, is the end only where the one after it
    /// is refused as well; nothing is gone by that.
    async fn believe_refusal(
        &self,
        walk: &Walk,
        page: u32,
        refused: Error,
        book: &mut Book,
        scan: &mut Scan,
    ) -> Result<()> {
        book.probes += 1;
        match self.next(walk, page + 1, book, scan).await?.1 {
            Said::Refused(_) | Said::Nothing => {
                book.settled = false;
                Ok(())
            }
            _ => Err(refused),
        }
    }

    fn is_early(&self, book: &Book, scan: &Scan) -> bool {
        let rejects: u64 = book.entries.values().map(|entry| entry.rejects).sum();
        let holes: u64 = book.holes.values().map(|rows| u64::from(*rows)).sum();
        let seen = scan.places.len() as u64 + rejects + holes;
        self.options.expected_rows.is_some_and(|expected| seen * 100 < expected * EARLY_BELOW)
    }

    /// Asks for a page and says what it tells about the end; where it never comes right, gets round
    /// it. Returns the number of the page that tells.
    async fn next(
        &self,
        walk: &Walk,
        page: u32,
        book: &mut Book,
        scan: &mut Scan,
    ) -> Result<(u32, Said)> {
        let is_held = book.page(page).is_some();
        book.rereads += u64::from(is_held && page < book.last_page());
        let round = book.round_of(page) + u32::from(is_held);
        match self.read_page(walk, page, book.size, round).await {
            Ok((header, facts)) => {
                book.add(&header, &facts);
                Ok((page, self.said(walk, page, book, scan)))
            }
            Err(error) if self.is_past_end(page, &error) => Ok((page, Said::Refused(error))),
            Err(error) => {
                let size = self.size_for_pieces(page, book);
                self.recover(walk, page, size, error, book).await?;
                let told = if book.page(page + 1).is_some() { page + 1 } else { page };
                let said = self.said(walk, told, book, scan);
                let is_end = matches!(said, Said::Nothing);
                Ok((told, if is_end { said } else { Said::More }))
            }
        }
    }

    /// A server that cuts its pages in silence counts in pages of its own size.
    fn size_for_pieces(&self, page: u32, book: &Book) -> u32 {
        let rows = u32::try_from(book.first_rows()).unwrap_or(book.size);
        if page > 1 && rows > 0 { book.size.min(rows) } else { book.size }
    }

    /// Says what the page added last tells.
    fn said(&self, walk: &Walk, page: u32, book: &Book, scan: &mut Scan) -> Said {
        let ids = book.page(page).map(|entry| entry.ids.as_slice()).unwrap_or_default();
        let known = ids.iter().filter(|id| scan.places.contains_key(*id)).count() as u64;
        if scan.take(book) > 0 {
            scan.doubles += known;
            scan.passed = scan.furthest(ids);
            return self.last_said(walk, page, book);
        }
        match self.last_said(walk, page, book) {
            Said::More | Said::Short | Said::Reached => {
                let furthest = scan.furthest(ids);
                let passes = furthest > scan.passed;
                scan.passed = furthest;
                if passes { Said::Passing } else { Said::OldNews }
            }
            said => said,
        }
    }

    /// Leaves out a page that never comes right, where the server alone cuts the pages, once the page
    /// after it has come right.
    pub(super) async fn leave_out(
        &self,
        walk: &Walk,
        page: u32,
        error: Error,
        book: &mut Book,
    ) -> Result<()> {
        let next = match self.read_page(walk, page + 1, book.size, 0).await {
            Ok(read) => Some(read),
            Err(next) if self.is_past_end(page + 1, &next) => None,
            Err(next) if next.may_be_one_row() => return Err(error),
            Err(next) => return Err(next),
        };
        // How many rows it had nobody knows; most pages have as many as the first.
        let rows = u32::try_from(book.first_rows()).unwrap_or(u32::MAX).clamp(1, book.size);
        let offset = u64::from(page - 1) * u64::from(book.size);
        self.sink.hole(walk, offset, rows, &error).await?;
        book.holes.insert(offset, rows);
        if let Some((header, facts)) = next {
            book.add(&header, &facts);
        }
        Ok(())
    }

    /// Asks for the last held page again. Where it shares a row with what was held of it, what
    /// follows joins; what moved up to it meanwhile it shows itself. Where all its rows are others,
    /// and none was shown before, more than a page has gone: then pages before it are read again
    /// until one joins. Returns the page to go on from.
    async fn check_seam(
        &self,
        walk: &Walk,
        last: u32,
        book: &mut Book,
        scan: &mut Scan,
    ) -> Result<u32> {
        let mut back = 0;
        loop {
            let page = last.saturating_sub(back).max(1);
            let Some(entry) = book.page(page) else { return Ok(page) };
            let (offset, before) = (u64::from(page - 1) * u64::from(book.size), entry.ids.clone());
            *(if back == 0 { &mut book.checks } else { &mut book.rereads }) += 1;
            let now = match self.reread(walk, offset, book).await {
                Ok(_) => book.page(page).map(|entry| entry.ids.clone()).unwrap_or_default(),
                Err(error) if self.is_past_end(page, &error) => Vec::new(),
                Err(error) => return Err(error),
            };
            let moved_down = now.iter().any(|id| !before.contains(id) && scan.knows_any(&[*id]));
            scan.doubles = scan.doubles.max(u64::from(moved_down));
            let joins = before.is_empty() || scan.knows_any(&now);
            scan.take(book);
            scan.passed = scan.furthest(&now);
            if joins || page == 1 {
                return Ok(page);
            }
            back = (back * 2).max(1);
        }
    }
}

/// How the rows of a listing stand, as far as they were read one page after the other.
#[derive(Debug, Default)]
pub(super) struct Descent {
    pub(super) created: Course,
    pub(super) updated: Course,
    /// The page followed last.
    page: u32,
}

/// One kind of time, from row to row.
#[derive(Debug, Default)]
pub(super) struct Course {
    last: Option<DateTime<Utc>>,
    /// Rows older than the one before.
    steps: u64,
    /// Rows newer than the one before.
    breaks: u64,
    /// Rows without this time.
    missing: u64,
}

/// Fewer steps down show no order.
const STEPS_THAT_SHOW: u64 = 20;

impl Course {
    fn follow(&mut self, at: Option<DateTime<Utc>>) {
        let Some(at) = at else {
            self.missing += 1;
            return;
        };
        if let Some(last) = self.last {
            self.steps += u64::from(at < last);
            self.breaks += u64::from(at > last);
        }
        self.last = Some(at);
    }

    /// Tells whether the newest stand first.
    pub(super) fn is_shown(&self) -> bool {
        self.breaks == 0 && self.steps >= STEPS_THAT_SHOW && self.missing * 50 <= self.steps
    }
}

impl Descent {
    /// Follows a page that comes after those before it.
    pub(super) fn follow(&mut self, facts: &PageFacts, page: u32) {
        if page <= self.page {
            return;
        }
        self.page = page;
        for row in &facts.rows {
            self.created.follow(row.created_at);
            self.updated.follow(row.updated_at);
        }
    }

    /// Tells whether the rows have come down to what is asked for; never where they do not stand in
    /// the order that was expected.
    fn has_reached(&self, down_to: Option<DownTo>) -> bool {
        let Some(down_to) = down_to else { return false };
        let course = match down_to.order {
            Order::Created => &self.created,
            Order::Updated => &self.updated,
        };
        course.breaks == 0 && course.last.is_some_and(|last| last < down_to.at)
    }
}
