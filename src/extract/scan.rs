//! Reads a listing that states no total: page by page, until it shows nothing more.
//!
//! Nobody says where such a listing ends, how it is ordered, or that rows moved from one page to
//! another meanwhile. So an end that may be a mistake is asked for once more; a walk that goes on
//! asks for its last held page again, which shows whether what follows still joins it; and what may
//! have moved meanwhile is looked for afterwards (`moved.rs`).
//!
//! Memory: about 24 bytes a row, for where each was first shown.

use std::collections::HashMap;
use std::collections::HashSet;

use chrono::DateTime;
use chrono::Utc;

use super::Error;
use super::PageFacts;
use super::Reader;
use super::Result;
use super::RowFacts;
use super::book::Added;
use super::book::Book;
use super::book::Entry;
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
    /// How many of the book's pages are in `places`.
    taken: usize,
    /// Records that a page showed of which it is not known that it joins those before it.
    apart: HashSet<u64>,
    /// The page taken last, and whether it joins those before it.
    last: (u32, bool),
    /// Up to which place pages without a new row have come.
    passed: u32,
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
    fn of(book: &Book) -> Self {
        let (mut scan, mut start) = (Self::default(), 0);
        for added in &book.pages {
            let ids = &book.shown[start..added.shown];
            if added.size == book.size {
                scan.recall(added.page, ids);
            }
            scan.take_page(added, ids);
            start = added.shown;
        }
        scan.taken = book.pages.len();
        scan
    }

    /// Counts what a page of an earlier run has told beside its rows: that run may have died, or run
    /// out of permits, before anything came of it.
    fn recall(&mut self, page: u32, ids: &[u64]) {
        let known = self.known(ids);
        let (furthest, rows) = &self.before.furthest;
        if ids.is_empty() || (page > *furthest && ids == rows) {
            self.before.ended = true;
        } else if page > *furthest {
            self.doubles += known;
            self.before.furthest = (page, ids.to_vec());
            self.before.ended = false;
        } else if page == *furthest {
            self.doubles += self.moved_down(ids, rows);
        } else if self.before.ended {
            self.before.looked += 1;
            self.before.found += ids.len() as u64 - known;
        }
    }

    /// Returns how many of the rows were shown before.
    fn known(&self, ids: &[u64]) -> u64 {
        ids.iter().filter(|id| self.places.contains_key(*id)).count() as u64
    }

    /// Returns how many rows of a page that was asked for again stood on pages before it.
    fn moved_down(&self, now: &[u64], before: &[u64]) -> u64 {
        let place = |id: &u64| self.places.get(id).copied();
        let first = before.iter().filter_map(place).min().unwrap_or(0);
        now.iter().filter_map(place).filter(|place| *place < first).count() as u64
    }

    /// Takes note of what was shown since the last time; returns how many of it were new.
    pub(super) fn take(&mut self, book: &Book) -> u64 {
        let before = self.places.len();
        let mut start = self.taken.checked_sub(1).map_or(0, |last| book.pages[last].shown);
        for added in &book.pages[self.taken..] {
            self.take_page(added, &book.shown[start..added.shown]);
            start = added.shown;
        }
        self.taken = book.pages.len();
        (self.places.len() - before) as u64
    }

    /// A page that is read for the first time is asked for after the one before it. One that is read
    /// again may stand anywhere: it joins the others where it shows one of their rows, or comes right
    /// after a page that does.
    fn take_page(&mut self, added: &Added, ids: &[u64]) {
        let follows = self.last == (added.page.saturating_sub(1), true);
        let joins = added.round == 0 || added.page == 1 || follows || self.joins(ids);
        for id in ids {
            let place = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
            let is_new = *self.places.entry(*id).or_insert(place) == place;
            match joins {
                true => drop(self.apart.remove(id)),
                false => drop(is_new && self.apart.insert(*id)),
            }
        }
        self.last = (added.page, joins);
    }

    /// Tells whether one of the rows stands among those that were read without a gap.
    fn joins(&self, ids: &[u64]) -> bool {
        ids.iter().any(|id| self.places.contains_key(id) && !self.apart.contains(id))
    }

    /// Returns the furthest place of the rows of a page.
    fn furthest(&self, ids: &[u64]) -> u32 {
        ids.iter().filter_map(|id| self.places.get(id)).copied().max().unwrap_or(0)
    }
}

impl Reader<'_> {
    /// Reads what is missing of a listing without a total, of which the first page, or all that
    /// earlier runs held, is in the book.
    pub(super) async fn scan(&self, walk: &Walk, book: &mut Book, goes_on: bool) -> Result<()> {
        let mut scan = Scan::of(book);
        scan.passed = u32::try_from(scan.places.len()).unwrap_or(u32::MAX).saturating_sub(1);
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
        let before = before.map(|before| book.ids(before)).filter(|before| !before.is_empty());
        if before.is_some_and(|before| before == book.ids(entry)) {
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
                let (_, again) = self.next(walk, page, book, scan).await?;
                book.probes += 1;
                match again {
                    Said::Refused(error) if self.is_early(book, scan) => {
                        self.believe_refusal(walk, page, error, book, scan).await.map(|()| None)
                    }
                    Said::Nothing | Said::Refused(_) => Ok(None),
                    _ => Ok(Some(Said::More)),
                }
            }
            Said::Same | Said::OldNews => {
                match self.ask_again(walk, page, said, book, scan).await? {
                    Said::Same if page == 2 => self.believe_second(walk, book, scan).await,
                    Said::Same if !self.is_early(book, scan) => Ok(None),
                    Said::Same | Said::OldNews => Ok(Some(Said::OldNews)),
                    said => Ok(Some(said)),
                }
            }
        }
    }

    /// A page that shows nothing new, where it is not known that nothing more is to come, may be
    /// another one than was asked for: it is asked for once more.
    async fn ask_again(
        &self,
        walk: &Walk,
        page: u32,
        said: Said,
        book: &mut Book,
        scan: &mut Scan,
    ) -> Result<Said> {
        if self.is_known_end(page, &said, book, scan) || self.is_one_page(page, book) {
            return Ok(said);
        }
        let has_repeated = book.round_of(page) > 0;
        // A second page like the first may also say that the number is ignored: see `believe_second`.
        if page > 2 && matches!(said, Said::Same) {
            // It may have been asked for once as the page after another, and shown other rows then.
            let ids = |page| book.page(page).map(|entry| book.ids(entry));
            return match has_repeated && ids(page - 2) == ids(page) {
                true => Ok(said),
                false => self.ask_beyond(walk, page, book, scan).await,
            };
        }
        if has_repeated {
            return Ok(said);
        }
        let (_, again) = self.next(walk, page, book, scan).await?;
        book.probes += 1;
        Ok(match again {
            // What it says the second time is for the page after it to confirm.
            Said::Refused(_) | Said::Nothing => said,
            again => again,
        })
    }

    /// A page like the one before it is the end where the page after it is like them, too: what came in
    /// the place of another page is not followed by the same. Else it is asked for once more.
    async fn ask_beyond(
        &self,
        walk: &Walk,
        page: u32,
        book: &mut Book,
        scan: &mut Scan,
    ) -> Result<Said> {
        let (_, beyond) = self.next(walk, page + 1, book, scan).await?;
        book.probes += 1;
        if matches!(beyond, Said::Same) {
            return Ok(beyond);
        }
        let (_, again) = self.next(walk, page, book, scan).await?;
        book.probes += 1;
        if !matches!(again, Said::Same) {
            return Ok(again);
        }
        if matches!(beyond, Said::Nothing | Said::Refused(_)) {
            // The listing ends otherwise than by its last page again.
            book.settled = false;
            return Ok(again);
        }
        // There is more, and what this page has of it was not shown.
        (book.proven, book.settled) = (false, false);
        Ok(Said::More)
    }

    /// Tells whether a page that shows nothing new comes where the last whole reading has ended, behind a
    /// page that is not full: one more row would have stood there.
    fn is_known_end(&self, page: u32, said: &Said, book: &Book, scan: &Scan) -> bool {
        let is_expected = self.options.expected_rows.is_some() && !self.is_early(book, scan);
        let before = book.page(page - 1).map_or(0, Entry::rows);
        let may_be_full = page > 2 && matches!(said, Said::Same) && before >= book.first_rows();
        is_expected && !may_be_full
    }

    /// Tells whether the first page alone says that there is no second one.
    fn is_one_page(&self, page: u32, book: &Book) -> bool {
        page == 2 && self.source.abilities().sized_pages && !book.first_page_is_full()
    }

    /// A second page like the first is the end of a listing of one page, or says that the number is
    /// ignored, or came in the place of another one.
    async fn believe_second(
        &self,
        walk: &Walk,
        book: &mut Book,
        scan: &mut Scan,
    ) -> Result<Option<Said>> {
        if self.is_one_page(2, book) {
            return Ok(None);
        }
        // Where it cannot be told, what was shown is loaded and proves nothing.
        book.proven &= self.refuse_ignored_numbers(walk, book).await?;
        if self.is_known_end(2, &Said::Same, book, scan) {
            return Ok(None);
        }
        if !self.is_more_behind(walk, book, scan).await? {
            return Ok(None);
        }
        // What the second page has of it was not shown.
        (book.proven, book.settled) = (false, false);
        Ok(Some(Said::OldNews))
    }

    /// Asks for what stands behind the second page, in halves where the size can be told: the first one is
    /// the first half of the second page, under another number, and the next one what that would show if
    /// the page before were shown for each.
    async fn is_more_behind(&self, walk: &Walk, book: &mut Book, scan: &mut Scan) -> Result<bool> {
        let half = book.size / 2;
        if !self.source.abilities().sized_pages || half == 0 {
            let (_, third) = self.next(walk, 3, book, scan).await?;
            book.probes += 1;
            return Ok(matches!(third, Said::More));
        }
        for page in [3, 4] {
            book.probes += 1;
            match self.read_page(walk, page, half, 0).await {
                Ok((_, facts)) => {
                    let mut ids = facts.rows.iter().filter_map(|row| row.id);
                    if ids.any(|id| !scan.places.contains_key(&id)) {
                        return Ok(true);
                    }
                }
                Err(error) if is_end(page, &error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
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
        let (_, after) = self.next(walk, page + 1, book, scan).await?;
        book.probes += 1;
        match after {
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
        let is_reread = is_held && page < book.last_page();
        let round = book.round_of(page) + u32::from(is_held);
        match self.read_page(walk, page, book.size, round).await {
            Ok((header, facts)) => {
                book.rereads += u64::from(is_reread);
                book.add(&header, &facts);
                Ok((page, self.said(walk, page, book, scan)))
            }
            Err(error) if is_end(page, &error) => Ok((page, Said::Refused(error))),
            Err(error) => {
                let (size, shown) = (self.size_for_pieces(page, book), book.shown.len());
                self.recover(walk, page, size, error, book).await?;
                let told = if book.page(page + 1).is_some() { page + 1 } else { page };
                if told == page {
                    // Pieces that show rows of other pages may hide their own.
                    scan.doubles += scan.known(&book.shown[shown..]);
                }
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
        let ids = book.ids_on(page);
        let known = scan.known(ids);
        let (new, furthest) = (scan.take(book), scan.furthest(ids));
        let said = self.last_said(walk, page, book);
        if matches!(said, Said::Same | Said::Nothing) {
            return said;
        }
        scan.doubles += known;
        // The rows known may all stand before this page, or have moved down to it.
        let offset = u64::from(page.saturating_sub(1)) * u64::from(book.size);
        let passes = furthest > scan.passed || offset < scan.places.len() as u64;
        scan.passed = furthest;
        match said {
            said if new > 0 => said,
            _ if passes => Said::Passing,
            _ => Said::OldNews,
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
            book.add(&header, &facts);
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
            let before = book.ids(entry).to_vec();
            let now = match self.reread(walk, offset, book).await {
                Ok(_) => book.ids_on(page).to_vec(),
                Err(error) if is_end(page, &error) => Vec::new(),
                // It has come to break since it was held: the pages before it tell as well.
                Err(error) if error.may_be_one_row() && self.answers_at_all(walk).await? => {
                    book.settled &= page > 1;
                    Vec::new()
                }
                Err(error) => return Err(error),
            };
            *(if back == 0 { &mut book.checks } else { &mut book.rereads }) += 1;
            scan.doubles += scan.moved_down(&now, &before);
            let joins = scan.joins(&now);
            scan.take(book);
            scan.passed = scan.furthest(&now);
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
    /// Follows a page that comes after those before it. Rows `seen` on these have moved down to it,
    /// below others that came meanwhile, and say nothing of the order.
    pub(super) fn follow(&mut self, facts: &PageFacts, page: u32, seen: &HashSet<u64>) {
        if page <= self.page {
            return;
        }
        self.page = page;
        let is_new = |row: &&RowFacts| row.id.is_none_or(|id| !seen.contains(&id));
        for row in facts.rows.iter().filter(is_new) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extract::memory;
    use crate::extract::memory::Edit;
    use crate::extract::memory::End;
    use crate::extract::memory::MemorySource;
    use crate::extract::memory::Sorting;
    use crate::extract::memory::Trouble;
    use proptest::prelude::*;

    const SORTINGS: [Sorting; 4] = [
        Sorting::NewestCreated,
        Sorting::OldestCreated,
        Sorting::NewestUpdated,
        Sorting::OldestUpdated,
    ];

    fn ids(source: &MemorySource) -> Vec<u64> {
        let mut ids: Vec<u64> = source.rows().iter().map(|row| row.id).collect();
        ids.sort_unstable();
        ids
    }

    fn read(source: &MemorySource, size: u32) -> crate::extract::Outcome {
        memory::read(source, &memory::whole(size), None, |_| {}).unwrap()
    }

    #[test]
    fn a_listing_at_rest_takes_a_request_a_page_and_one_for_the_end() {
        for (rows, requests) in [(0, 1), (9, 2), (10, 2), (11, 3), (100, 11)] {
            let source = MemorySource::new(rows, Sorting::NewestCreated);
            let outcome = read(&source, 10);
            assert_eq!(outcome.shown, ids(&source));
            assert_eq!(source.requests(), requests, "{rows} rows");
        }
    }

    #[test]
    fn where_a_short_page_is_the_end_the_last_request_is_saved() {
        for (rows, requests) in [(9, 1 + 1), (95, 10), (100, 11)] {
            let mut source = MemorySource::new(rows, Sorting::NewestCreated);
            source.abilities.short_page_ends = true;
            assert_eq!(read(&source, 10).shown, ids(&source));
            assert_eq!(source.requests(), requests, "{rows} rows");
        }
    }

    #[test]
    fn a_short_page_is_the_end_for_a_run_that_goes_on_behind_it_too() {
        let mut source = MemorySource::new(95, Sorting::NewestCreated);
        (source.abilities.short_page_ends, source.end) = (true, End::Refused);
        // After four pages, and after the last one, when it is looked for rows that moved.
        source.troubles = vec![(4, Trouble::Dies), (12, Trouble::Dies)];
        assert_eq!(read(&source, 10).shown, ids(&source));
        let (deaths, checks, looks) = (2, 2, 1);
        assert_eq!(source.requests(), 10 + deaths + checks + looks);
    }

    #[test]
    fn pages_cut_by_the_server_in_silence_are_no_end() {
        let mut source = MemorySource::new(95, Sorting::NewestCreated);
        (source.abilities.short_page_ends, source.own_size) = (true, Some(7));
        assert_eq!(read(&source, 10).shown, ids(&source));
    }

    #[test]
    fn the_same_page_for_ever_is_an_error_or_proves_nothing() {
        let mut source = MemorySource::new(95, Sorting::NewestCreated);
        source.same_page = true;
        let error = memory::read(&source, &memory::whole(10), None, |_| {}).unwrap_err();
        assert!(matches!(error, Error::PageIgnored { asked: 2, got: 1, .. }), "{error}");
        (source.abilities.sized_pages, source.own_size) = (false, Some(10));
        let outcome = read(&source, 1_000);
        assert!(!outcome.proven);
        assert_eq!(outcome.shown.len(), 10);
    }

    #[test]
    fn an_end_that_comes_early_once_is_not_believed() {
        for end in [End::Empty, End::Refused, End::LastPage] {
            for at in [4, 0] {
                // The last page for the first one shows rows, and is no end.
                if (at, end) == (0, End::LastPage) {
                    continue;
                }
                let mut source = MemorySource::new(95, Sorting::NewestCreated);
                source.troubles = vec![(at, Trouble::Ends(end))];
                let outcome = memory::read(&source, &memory::whole(10), Some(95), |_| {}).unwrap();
                assert_eq!(outcome.shown, ids(&source), "{end:?} at {at}");
            }
        }
    }

    #[test]
    fn a_window_without_a_total_that_had_rows_and_shows_none_is_asked_for_once_more() {
        let mut source = MemorySource::new(7, Sorting::OldestCreated);
        source.troubles = vec![(0, Trouble::Ends(End::Empty))];
        let window = crate::window::Window::new(memory::minute(-1), memory::minute(9_999));
        let walk = Walk { window, ..memory::whole(10) };
        let outcome = memory::read(&source, &walk, Some(7), |_| {}).unwrap();
        assert_eq!(outcome.shown, ids(&source));
    }

    #[test]
    fn a_second_page_that_comes_as_the_first_twice_proves_nothing() {
        for rows in [11, 15, 35] {
            for own_size in [None, Some(10)] {
                let mut source = MemorySource::new(rows, Sorting::NewestCreated);
                (source.abilities.sized_pages, source.own_size) = (own_size.is_none(), own_size);
                source.troubles = vec![(1, Trouble::Shows(0)), (2, Trouble::Shows(0))];
                let outcome = read(&source, 10);
                assert!(!outcome.proven, "{rows} rows, {own_size:?}");
                let shows_more_behind = own_size.is_none() || rows > 20;
                assert_eq!(outcome.settled, !shows_more_behind, "{rows} rows, {own_size:?}");
            }
        }
    }

    #[test]
    fn a_page_that_came_as_another_is_remembered_by_the_run_that_goes_on() {
        for troubles in [
            // It comes so twice; and it dies before it could ask again.
            [(2, Trouble::Shows(1)), (4, Trouble::Shows(1)), (6, Trouble::Dies)].as_slice(),
            &[(2, Trouble::Shows(1)), (4, Trouble::Dies)],
        ] {
            let mut source = MemorySource::new(72, Sorting::OldestCreated);
            source.troubles = troubles.to_vec();
            let outcome = read(&source, 10);
            assert!(!outcome.settled || outcome.shown == ids(&source), "{troubles:?}");
        }
    }

    #[test]
    fn pieces_that_come_as_others_settle_nothing() {
        let mut source = MemorySource::new(35, Sorting::OldestCreated);
        // The third page breaks; of its two pieces the first comes as one of the second page.
        source.troubles = vec![(2, Trouble::Breaks), (3, Trouble::Shows(3))];
        let outcome = memory::read(&source, &memory::whole(10), None, |_| {}).unwrap();
        assert!(!outcome.settled || outcome.shown == ids(&source));
    }

    #[test]
    fn a_last_page_that_comes_as_the_one_before_it_twice_settles_nothing() {
        let mut source = MemorySource::new(32, Sorting::OldestCreated);
        source.troubles = vec![(3, Trouble::Shows(2)), (5, Trouble::Shows(2))];
        let outcome = read(&source, 10);
        assert!(!outcome.settled && outcome.shown.len() == 30);
    }

    #[test]
    fn a_page_that_was_asked_for_as_the_one_after_another_is_no_end_for_coming_as_that_one() {
        let mut source = MemorySource::new(42, Sorting::OldestCreated);
        // The third page comes as the second, and the fourth as the third, twice.
        let troubles = [(2, 1), (3, 2), (5, 2)];
        source.troubles = troubles.map(|(at, page)| (at, Trouble::Shows(page))).to_vec();
        assert_eq!(read(&source, 10).shown, ids(&source));
    }

    #[test]
    fn a_full_last_page_in_the_place_of_one_with_a_new_row_is_no_end() {
        let mut source = MemorySource::new(31, Sorting::OldestCreated);
        source.troubles = vec![(3, Trouble::Shows(2))];
        let outcome = memory::read(&source, &memory::whole(10), Some(30), |_| {}).unwrap();
        assert_eq!(outcome.shown, ids(&source));
        assert!(outcome.proven && outcome.settled);
    }

    #[test]
    fn an_end_behind_another_page_than_was_asked_for_settles_nothing() {
        let mut source = MemorySource::new(101, Sorting::OldestCreated);
        source.troubles = vec![(10, Trouble::Shows(0))];
        let outcome = memory::read(&source, &memory::whole(10), Some(100), |_| {}).unwrap();
        // What it hid was looked for as for rows that moved, or the reading says that it is not all.
        assert!(!outcome.settled || outcome.shown == ids(&source));
    }

    #[test]
    fn a_listing_that_has_become_shorter_ends_all_the_same() {
        for end in [End::Empty, End::Refused, End::LastPage] {
            let mut source = MemorySource::new(50, Sorting::NewestCreated);
            source.end = end;
            let outcome = memory::read(&source, &memory::whole(10), Some(95), |_| {}).unwrap();
            assert_eq!(outcome.shown, ids(&source), "{end:?}");
            assert!(source.requests() <= 9, "{end:?}: {}", source.requests());
        }
    }

    fn assert_order_is_shown(sorting: Sorting, end: End) {
        let mut source = MemorySource::new(95, sorting);
        source.end = end;
        source.edit(Edit::Touch(3));
        let outcome = read(&source, 10);
        assert_eq!(outcome.newest_created_first, sorting == Sorting::NewestCreated, "{end:?}");
        assert_eq!(outcome.newest_updated_first, sorting == Sorting::NewestUpdated, "{end:?}");
    }

    #[test]
    fn the_order_is_shown_by_a_whole_reading() {
        for sorting in SORTINGS {
            // The last page again is no row that stands where it should not.
            for end in [End::Empty, End::Refused, End::LastPage] {
                assert_order_is_shown(sorting, end);
            }
        }
    }

    #[test]
    fn a_reading_from_the_top_ends_below_what_is_asked_for() {
        let source = MemorySource::new(100, Sorting::NewestUpdated);
        source.edit(Edit::Touch(7));
        let down_to = DownTo { order: Order::Updated, at: memory::minute(88) };
        let outcome = memory::read(&source, &memory::top(10, down_to), None, |_| {}).unwrap();
        assert!(!outcome.whole);
        assert!(outcome.shown.contains(&7) && outcome.shown.contains(&88));
        assert_eq!(source.requests(), 2);
    }

    #[test]
    fn a_reading_from_the_top_that_finds_another_order_reads_all() {
        let source = MemorySource::new(100, Sorting::OldestCreated);
        let down_to = DownTo { order: Order::Created, at: memory::minute(88) };
        let outcome = memory::read(&source, &memory::top(10, down_to), None, |_| {}).unwrap();
        assert!(outcome.whole);
        assert_eq!(outcome.shown, ids(&source));
    }

    #[test]
    fn the_order_is_shown_by_a_reading_that_others_come_before_while_it_goes_on() {
        let mut source = MemorySource::new(95, Sorting::NewestCreated);
        source.edits = (3..6).chain(3..6).map(|at| (at, Edit::Insert)).collect();
        assert!(read(&source, 10).newest_created_first);
        let mut source = MemorySource::new(95, Sorting::NewestUpdated);
        source.troubles = vec![(5, Trouble::Dies)];
        let outcome = memory::read(&source, &memory::whole(10), None, |source| {
            (0..25).for_each(|at| source.edit(Edit::Touch(at)));
        });
        assert!(outcome.unwrap().newest_updated_first);
    }

    #[test]
    fn a_list_without_an_end_is_an_error() {
        let mut source = MemorySource::new(20, Sorting::OldestCreated);
        source.edits = (0..200).flat_map(|at| [(at, Edit::Insert); 10]).collect();
        let error = memory::read(&source, &memory::whole(10), None, |_| {}).unwrap_err();
        assert!(matches!(error, Error::Broken { .. }), "{error}");
        assert_eq!(source.requests(), u64::from(memory::MOST_PAGES));
    }

    #[test]
    fn a_reading_from_the_top_that_comes_to_the_end_finds_what_moved_as_a_whole_one_does() {
        for sorting in [Sorting::NewestUpdated, Sorting::OldestUpdated] {
            for touched in 0..40 {
                let mut source = MemorySource::new(40, sorting);
                source.edits = vec![(2, Edit::Touch(touched))];
                let down_to = DownTo { order: Order::Updated, at: memory::minute(-1) };
                let outcome = memory::read(&source, &memory::top(10, down_to), None, |_| {});
                let outcome = outcome.unwrap();
                assert!(outcome.whole);
                let is_all = outcome.shown == ids(&source);
                assert!(is_all || !outcome.settled, "{sorting:?}, {touched}");
            }
        }
    }

    #[test]
    fn what_goes_to_the_top_or_the_end_while_it_is_read_is_found() {
        for sorting in [Sorting::NewestUpdated, Sorting::OldestUpdated] {
            for touched in 0..100 {
                let mut source = MemorySource::new(100, sorting);
                source.edits = vec![(5, Edit::Touch(touched))];
                let outcome = read(&source, 10);
                assert_eq!(outcome.shown, ids(&source), "{sorting:?}, {touched}");
                assert!(outcome.settled);
                assert!(source.requests() <= 11 + 10, "{}", source.requests());
            }
        }
    }

    #[test]
    fn what_appears_in_the_midst_while_it_is_read_is_found() {
        for at in 0..100 {
            let mut source = MemorySource::new(100, Sorting::OldestCreated);
            source.edits = vec![(5, Edit::InsertOld(at))];
            let outcome = read(&source, 10);
            assert_eq!(outcome.shown, ids(&source), "{at}");
            assert!(source.requests() <= 11 + 10, "{}", source.requests());
        }
    }

    #[test]
    fn where_the_server_alone_cuts_the_pages_a_newcomer_does_not_have_half_of_them_read_again() {
        let mut source = MemorySource::new(400, Sorting::NewestCreated);
        (source.abilities.sized_pages, source.own_size) = (false, Some(10));
        source.edits = vec![(30, Edit::Insert)];
        let outcome = read(&source, 1_000);
        assert_eq!(outcome.shown, ids(&source));
        assert!(source.requests() <= 41 + 4, "{}", source.requests());
    }

    #[test]
    fn a_top_of_mixed_rows_that_are_all_known_is_not_read_down_to_its_end() {
        let mut source = MemorySource::new(200, Sorting::NewestUpdated);
        // Known rows go to the top, none next to one that it stood next to.
        source.edits = (0..90).map(|row| (38, Edit::Touch(20 + row * 37 % 180))).collect();
        source.troubles = vec![(39, Trouble::Dies)];
        let outcome = read(&source, 5);
        assert_eq!(outcome.shown, ids(&source));
        assert!(source.requests() <= 41 + 2 + 4, "{}", source.requests());
    }

    /// Reads a hundred rows that move before three requests, and dies after the last of them.
    fn read_over_deaths(
        sorting: Sorting,
        moved: [usize; 3],
        dies_at: &[u64],
    ) -> (MemorySource, crate::extract::Outcome) {
        let mut source = MemorySource::new(100, sorting);
        source.edits = (3..).zip(moved.map(Edit::Touch)).collect();
        source.troubles = dies_at.iter().map(|at| (*at, Trouble::Dies)).collect();
        let outcome = read(&source, 10);
        (source, outcome)
    }

    #[test]
    fn what_moved_before_a_run_died_is_found_by_the_one_that_goes_on() {
        for sorting in [Sorting::NewestUpdated, Sorting::OldestUpdated] {
            for moved in (0..100).step_by(9) {
                let touched = [moved, (moved + 31) % 100, (moved + 62) % 100];
                // While it is read, and while what has moved is looked for, once and again.
                for dies_at in [&[7][..], &[12], &[14], &[13, 16]] {
                    let (source, outcome) = read_over_deaths(sorting, touched, dies_at);
                    let context = format!("{sorting:?}, {touched:?}, {dies_at:?}");
                    let is_all = outcome.shown == ids(&source);
                    assert!(is_all || !outcome.settled, "{context}: {outcome:?}");
                }
            }
        }
    }

    proptest! {
        /// Whatever leaves, comes or changes while no run is on, in any order, is accounted for by
        /// the page that is asked for again; deaths cost that page, and the one in flight.
        #[test]
        fn a_scan_over_many_runs_shows_all_that_is_there_at_its_end(
            rows in 1_u64..80,
            size in 2_u32..12,
            sorting in proptest::sample::select(&SORTINGS[..2]),
            end in proptest::sample::select(&[End::Empty, End::Refused, End::LastPage][..]),
            deaths in proptest::collection::btree_set(1_u64..20, 0..4),
            removed in proptest::collection::vec(any::<usize>(), 0..3),
            inserted in 0_usize..3,
        ) {
            let mut source = MemorySource::new(rows, sorting);
            source.end = end;
            source.troubles = deaths.iter().map(|at| (*at, Trouble::Dies)).collect();
            let walk = memory::whole(size);
            let outcome = memory::read(&source, &walk, None, |source| {
                removed.iter().for_each(|at| source.edit(Edit::Remove(*at)));
                (0..inserted).for_each(|_| source.edit(Edit::Insert));
            });
            let outcome = outcome.unwrap();
            let is_shown = |id: &u64| outcome.shown.binary_search(id).is_ok();
            prop_assert!(ids(&source).iter().all(is_shown), "{:?}", outcome);
        }

        /// Rows that come and change while it is read are found, or the reading says that it has not
        /// accounted for all.
        #[test]
        fn a_scan_over_a_moving_listing_shows_all_or_says_so(
            rows in 1_u64..80,
            size in 2_u32..12,
            sorting in proptest::sample::select(&SORTINGS[..]),
            at in 1_u64..9,
            edit in prop_oneof![
                any::<usize>().prop_map(Edit::Touch),
                any::<usize>().prop_map(Edit::InsertOld),
            ],
        ) {
            let mut source = MemorySource::new(rows, sorting);
            source.edits = vec![(at, edit)];
            let outcome = read(&source, size);
            let is_shown = |id: &u64| outcome.shown.binary_search(id).is_ok();
            let was_there = |id: &u64| *id < 10_000;
            let all = ids(&source).into_iter().filter(was_there).all(|id| is_shown(&id));
            prop_assert!(all || !outcome.settled, "{:?}", outcome);
        }
    }
}
