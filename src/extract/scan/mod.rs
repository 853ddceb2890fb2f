//! Reads a listing that states no total: page by page, until it shows nothing more.
//!
//! Nobody says where such a listing ends, how it is ordered, or that rows moved from one page to
//! another meanwhile. So an end that may be a mistake is asked for once more; a walk that goes on
//! asks for its last held page again, which shows whether what follows still joins it; and what may
//! have moved meanwhile is looked for afterwards (`moved.rs`). Where it ends is told in [`end`].

mod end;

use std::collections::HashSet;

use super::Error;
use super::Reader;
use super::Result;
use super::book::Added;
use super::book::Book;
use crate::record::Walk;

/// What is known of a scan beside its book.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// How many distinct rows were shown by the pages that were taken: those with a place before it.
    pub(super) known: u64,
    /// How many of the book's pages were taken.
    taken: usize,
    /// Records that a page showed of which it is not known that it joins those before it.
    apart: HashSet<u64>,
    /// The page taken last, and whether it joins those before it.
    last: (u32, bool),
    /// Up to which place pages without a new row have come.
    passed: u64,
    /// Rows that were shown again on a later page, among new ones: as many have moved down.
    pub(super) doubles: u64,
    /// What earlier runs have done about them.
    pub(super) before: Before,
}

/// What earlier runs of the same walk have done, as far as what is held of it tells.
#[derive(Debug, Default)]
pub(super) struct Before {
    /// The page furthest down that had rows, and these.
    furthest: (u32, Vec<u64>),
    /// Whether a page showed the end of the listing.
    ended: bool,
    /// Pages that were looked at again after that, for rows that had moved.
    pub(super) looked: u64,
    /// Rows that this has found.
    pub(super) found: u64,
}

/// What a page of a scan says about the end.
#[derive(Debug)]
enum Said {
    /// It shows rows that were not shown before.
    More,
    /// It has rows, and all were shown before, but rows may have moved down by more than a page: they
    /// stand further down than those of the page before it, or there are rows enough before it.
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
    fn of(book: &Book) -> Result<Self> {
        let (mut scan, mut start) = (Self::default(), 0);
        for added in &book.pages {
            if added.size == book.size {
                scan.recall(added, book.shown.ids(start..added.shown)?, book)?;
            }
            scan.take_page(added, start, book)?;
            start = added.shown;
        }
        scan.taken = book.pages.len();
        Ok(scan)
    }

    /// Counts what a page of an earlier run has told beside its rows: that run may have died, or run
    /// out of permits, before anything came of it.
    fn recall(&mut self, added: &Added, ids: Vec<u64>, book: &Book) -> Result<()> {
        let (page, known) = (added.page, added.known);
        let (furthest, rows) = &self.before.furthest;
        if ids.is_empty() || (page > *furthest && ids == *rows) {
            self.before.ended = true;
        } else if page > *furthest {
            self.doubles += known;
            self.before.furthest = (page, ids);
            self.before.ended = false;
        } else if page == *furthest {
            self.doubles += self.moved_down(&ids, rows, book)?;
        } else if self.before.ended {
            self.before.looked += 1;
            self.before.found += ids.len() as u64 - known;
        }
        Ok(())
    }

    /// Returns where a row was first shown, from 0, if by a page that was taken.
    pub(super) fn place_of(&self, id: u64, book: &Book) -> Result<Option<u64>> {
        Ok(book.shown.place_of(id)?.filter(|place| *place < self.known))
    }

    /// Returns the places of those rows that were shown before.
    fn places_of(&self, ids: &[u64], book: &Book) -> Result<Vec<u64>> {
        ids.iter().filter_map(|id| self.place_of(*id, book).transpose()).collect()
    }

    /// Returns how many of the rows were shown before.
    fn count_known(&self, ids: &[u64], book: &Book) -> Result<u64> {
        Ok(self.places_of(ids, book)?.len() as u64)
    }

    /// Returns how many rows of a page that was asked for again stood on pages before it.
    fn moved_down(&self, now: &[u64], before: &[u64], book: &Book) -> Result<u64> {
        let first = self.places_of(before, book)?.into_iter().min().unwrap_or(0);
        let now = self.places_of(now, book)?;
        Ok(now.iter().filter(|place| **place < first).count() as u64)
    }

    /// Takes note of what was shown since the last time; returns how many of it were new.
    pub(super) fn take(&mut self, book: &Book) -> Result<u64> {
        let before = self.known;
        let mut start = self.taken.checked_sub(1).map_or(0, |last| book.pages[last].shown);
        for added in &book.pages[self.taken..] {
            self.take_page(added, start, book)?;
            start = added.shown;
        }
        self.taken = book.pages.len();
        Ok(self.known - before)
    }

    /// A page that is read for the first time is asked for after the one before it. One that is read
    /// again may stand anywhere: it joins the others where it shows one of their rows, or comes right
    /// after a page that does.
    fn take_page(&mut self, added: &Added, start: usize, book: &Book) -> Result<()> {
        let follows = self.last == (added.page.saturating_sub(1), true);
        let mut joins = added.round == 0 || added.page == 1 || follows;
        // As long as all pages join, nobody asks for their ids.
        if !joins || !self.apart.is_empty() {
            let ids = book.shown.ids(start..added.shown)?;
            joins = joins || self.joins(&ids, book)?;
            for id in ids {
                match joins {
                    true => drop(self.apart.remove(&id)),
                    false if self.place_of(id, book)?.is_none() => drop(self.apart.insert(id)),
                    false => {}
                }
            }
        }
        self.last = (added.page, joins);
        self.known = added.places;
        Ok(())
    }

    /// Tells whether one of the rows stands among those that were read without a gap.
    fn joins(&self, ids: &[u64], book: &Book) -> Result<bool> {
        for id in ids {
            if !self.apart.contains(id) && self.place_of(*id, book)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the furthest place of the rows of a page.
    fn furthest(&self, ids: &[u64], book: &Book) -> Result<u64> {
        Ok(self.places_of(ids, book)?.into_iter().max().unwrap_or(0))
    }
}

impl Reader<'_> {
    /// Reads what is missing of a listing without a total, of which the first page, or all that
    /// earlier runs held, is in the book.
    pub(super) async fn scan(&self, walk: &Walk, book: &mut Book, goes_on: bool) -> Result<()> {
        let mut scan = Scan::of(book)?;
        scan.passed = scan.known.saturating_sub(1);
        if book.pages.is_empty() && book.holes.is_empty() {
            return Ok(());
        }
        let mut page = book.last_page();
        let mut said = self.last_said(walk, page, book);
        if goes_on {
            page = self.check_seam(walk, book, &mut scan).await?;
            said = match self.last_said(walk, page, book) {
                end @ (Said::Nothing | Said::Short) => end,
                // It may show just what the page before it did when that was read: no end.
                _ => Said::More,
            };
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
                None => {
                    // An end right behind a page that showed nothing new: that page may have hidden some.
                    book.settled &= old_news == 0;
                    break;
                }
            };
            old_news = match said {
                Said::OldNews | Said::Same => old_news + 1,
                _ => 0,
            };
            page += 1;
            if page > self.options.most_pages {
                let provider = self.source.provider();
                let detail = format!("its list has no end: page {page} shows new rows still");
                return Err(Error::Broken { provider, detail });
            }
            // An end that an earlier run was shown may have moved since.
            let is_known = book.page(page).is_some() && page == book.last_page();
            (page, said) = self.next(walk, page, book, &mut scan).await?;
            book.rereads += u64::from(is_known);
        }
        // An earlier run may have been shown it, and ended before it could ask again.
        if book.hides_a_page() {
            (book.proven, book.settled) = (false, false);
        }
        // A reading from the top that came to the end is one of the whole listing.
        if walk.window.is_none() && book.whole {
            match self.look_for_moved(walk, goes_on, book, &mut scan).await {
                // All was read once: a page that breaks now only keeps what has moved from sight.
                Err(error) if error.may_be_one_row() => book.settled = false,
                looked => looked?,
            }
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
        let before = before.filter(|before| !before.shown.is_empty());
        if before.is_some_and(|before| before.digest == entry.digest) {
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
        let is_reread = is_held && page < book.last_page();
        let round = book.round_of(page) + u32::from(is_held);
        match self.read_page(walk, page, book.size, round).await {
            Ok((header, facts)) => {
                book.rereads += u64::from(is_reread);
                book.add(&header, &facts)?;
                Ok((page, self.said(walk, page, book, scan)?))
            }
            Err(error) if is_end(page, &error) => Ok((page, Said::Refused(error))),
            Err(error) => {
                let (size, shown) = (self.size_for_pieces(page, book), book.shown.len());
                self.recover(walk, page, size, error, book).await?;
                let told = if book.page(page + 1).is_some() { page + 1 } else { page };
                if told == page {
                    // Pieces that show rows of other pages may hide their own.
                    let ids = book.shown.ids(shown..book.shown.len())?;
                    scan.doubles += scan.count_known(&ids, book)?;
                }
                let said = self.said(walk, told, book, scan)?;
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
    fn said(&self, walk: &Walk, page: u32, book: &Book, scan: &mut Scan) -> Result<Said> {
        let ids = book.ids_on(page)?;
        let known = scan.count_known(&ids, book)?;
        let (new, furthest) = (scan.take(book)?, scan.furthest(&ids, book)?);
        let said = self.last_said(walk, page, book);
        if matches!(said, Said::Same | Said::Nothing) {
            return Ok(said);
        }
        scan.doubles += known;
        // The rows known may all stand before this page, or have moved down to it.
        let offset = u64::from(page.saturating_sub(1)) * u64::from(book.size);
        let passes = furthest > scan.passed || offset < scan.known;
        scan.passed = furthest;
        Ok(match said {
            said if new > 0 => said,
            _ if passes => Said::Passing,
            _ => Said::OldNews,
        })
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
            Err(next) if is_end(page + 1, &next) => None,
            Err(next) if next.may_be_one_row() => return Err(error),
            Err(next) => return Err(next),
        };
        // How many rows it had nobody knows; most pages have as many as the first.
        let rows = u32::try_from(book.first_rows()).unwrap_or(u32::MAX).clamp(1, book.size);
        let offset = u64::from(page - 1) * u64::from(book.size);
        self.sink.hole(walk, offset, rows, &error).await?;
        book.holes.insert(offset, rows);
        if let Some((header, facts)) = next {
            book.add(&header, &facts)?;
        }
        Ok(())
    }

    /// Asks for the last held page with rows again. Where it shares a row with what was held of it, what
    /// follows joins; what moved up to it meanwhile it shows itself. Where all its rows are others,
    /// and none was shown before, more than a page has gone: then pages before it are read again
    /// until one joins. Returns the page to go on from.
    async fn check_seam(&self, walk: &Walk, book: &mut Book, scan: &mut Scan) -> Result<u32> {
        let last = book.last_page_with_rows();
        let mut back = 0;
        loop {
            let page = last.saturating_sub(back).max(1);
            let Some(entry) = book.page(page) else { return Ok(page) };
            let offset = u64::from(page - 1) * u64::from(book.size);
            let before = book.shown.ids(entry.shown.clone())?;
            let now = match self.reread(walk, offset, book).await {
                Ok(_) => book.ids_on(page)?,
                Err(error) if is_end(page, &error) => Vec::new(),
                // It has come to break since it was held: the pages before it tell as well.
                Err(error) if error.may_be_one_row() && self.answers_at_all(walk).await? => {
                    book.settled &= page > 1;
                    Vec::new()
                }
                Err(error) => return Err(error),
            };
            *(if back == 0 { &mut book.checks } else { &mut book.rereads }) += 1;
            scan.doubles += scan.moved_down(&now, &before, book)?;
            let joins = scan.joins(&now, book)?;
            scan.take(book)?;
            scan.passed = scan.furthest(&now, book)?;
            if joins || page == 1 {
                return Ok(page);
            }
            back = (back * 2).max(1);
        }
    }
}

/// Tells whether a refusal may say that the listing has ended before that page.
pub(super) fn is_end(page: u32, error: &Error) -> bool {
    match page {
        1 => error.says_not_found(),
        _ => matches!(error, Error::Refused { .. }),
    }
}

#[cfg(test)]
mod tests;
