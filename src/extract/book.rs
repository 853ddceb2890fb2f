//! Keeps the books of a walk: which places of the listing are held, under which total, and whether
//! the pages agree.
//!
//! Memory: about 200 bytes a page; the ids of its rows spill (`shown`).

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::collections::HashSet;
use std::hash::DefaultHasher;
use std::hash::Hash;
use std::hash::Hasher;
use std::ops::Range;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;

use super::Outcome;
use super::PageFacts;
use super::RowFacts;
use super::descent::Descent;
use super::shown::IdRoom;
use super::shown::Shown;
use super::shown::Stretch;
use crate::record::PageHeader;
use crate::record::Walk;
use crate::spill::Result;
use crate::window::Window;

/// What is held of a walk, by place in the listing.
#[derive(Debug)]
pub(super) struct Book {
    /// The rows of the pages that are asked for.
    pub(super) size: u32,
    /// How many rows the pages added have, each size once.
    sizes: BTreeSet<u32>,
    pub(super) entries: BTreeMap<u64, Entry>,
    pub(super) holes: BTreeMap<u64, u32>,
    pub(super) first_total: Option<(DateTime<Utc>, u64)>,
    pub(super) last_total: Option<(DateTime<Utc>, u64)>,
    /// The total of the page added last.
    latest_total: Option<u64>,
    /// How often a page came with another total than the page added before it.
    pub(super) moves: u32,
    /// The number of the page that showed the last such move.
    moved_at: u64,
    /// Pages added so far.
    added: u64,
    pub(super) total_pages: Option<u32>,
    /// Every id shown, in the order of `pages`; those of pages without a total have places.
    pub(super) shown: Shown,
    /// Every page added, in order.
    pub(super) pages: Vec<Added>,
    pub(super) proven: bool,
    pub(super) probes: u64,
    pub(super) rereads: u64,
    pub(super) checks: u64,
    /// The size of each page added, and its first id.
    firsts: HashSet<(u32, u64)>,
    /// Whether a page began as an earlier one of its size did: only then may it show the same.
    may_repeat: bool,
    /// When the first and the last page were received.
    received: Option<(DateTime<Utc>, DateTime<Utc>)>,
    /// Whether the end of the listing was reached.
    pub(super) whole: bool,
    /// Whether no row is known to have been hidden by others that moved.
    pub(super) settled: bool,
    /// How the rows of a listing without a total were ordered.
    pub(super) descent: Descent,
    pub(super) window: Option<Window>,
    pub(super) outside: u64,
    pub(super) undated: u64,
    /// The first of the pages that show nothing although the total says that there is more.
    ends_before: Option<u32>,
    /// Whether an earlier run closed it, and nothing of what it closed is lost.
    pub(super) was_closed: bool,
}

/// Pages that show nothing, and none behind them that shows anything, end a listing whatever its total
/// says: it may name any number, and each page of it would cost a request.
const EMPTY_PAGES_THAT_END: usize = 3;

/// A page as it was added.
#[derive(Debug, Clone, Copy)]
pub(super) struct Added {
    pub(super) page: u32,
    pub(super) size: u32,
    pub(super) round: u32,
    /// How many ids were shown up to its end.
    pub(super) shown: usize,
    /// How many of these have places, each id counted once.
    pub(super) places: u64,
    /// How many of its own had them before it came.
    pub(super) known: u64,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) page: u32,
    pub(super) size: u32,
    pub(super) round: u32,
    pub(super) total: Option<u64>,
    /// How many pages had been added when it was read, or found unchanged.
    added: u64,
    /// Where its ids stand among all that were shown.
    pub(super) shown: Range<usize>,
    /// The first of them.
    first: Option<u64>,
    /// What tells pages with other ids, or with the same in another order, from this one.
    pub(super) digest: u64,
    pub(super) rejects: u64,
}

impl Entry {
    /// Returns how many rows it showed.
    pub(super) fn rows(&self) -> u64 {
        self.shown.len() as u64 + self.rejects
    }
}

impl Book {
    pub(super) fn new(walk: &Walk, room: IdRoom) -> Self {
        Self {
            size: walk.page_size,
            sizes: BTreeSet::from([walk.page_size]),
            entries: BTreeMap::new(),
            holes: BTreeMap::new(),
            first_total: None,
            last_total: None,
            latest_total: None,
            moves: 0,
            moved_at: 0,
            added: 0,
            total_pages: None,
            shown: Shown::new(room),
            pages: Vec::new(),
            proven: true,
            probes: 0,
            rereads: 0,
            checks: 0,
            firsts: HashSet::new(),
            may_repeat: false,
            received: None,
            whole: true,
            settled: true,
            descent: Descent::default(),
            window: walk.window,
            outside: 0,
            undated: 0,
            ends_before: None,
            was_closed: false,
        }
    }

    pub(super) fn add(&mut self, header: &PageHeader, facts: &PageFacts) -> Result<()> {
        let mut size = header.size;
        if let Some(clamped) = clamped_size(header, facts) {
            size = clamped;
            self.size = clamped;
        }
        self.sizes.insert(size);
        let ids: Vec<u64> = facts.rows.iter().filter_map(|row| row.id).collect();
        let own = self.shown.push(ids.iter().copied())?;
        let is_placed = facts.total.is_none() || self.shown.places() > 0;
        let known = if is_placed { self.place(header, facts, own.clone())? } else { 0 };
        self.may_repeat |= ids.first().is_some_and(|first| !self.firsts.insert((size, *first)));
        let (page, round) = (header.page, header.round);
        let places = self.shown.places();
        self.pages.push(Added { page, size, round, shown: own.end, places, known });
        let at = header.received_at;
        let (first, last) = self.received.unwrap_or((at, at));
        self.received = Some((first.min(at), last.max(at)));
        self.note_totals(header, size, facts);
        self.note_dates(facts);
        let offset = u64::from(page - 1) * u64::from(size);
        let entry = Entry {
            page,
            size,
            round,
            total: facts.total,
            added: self.added,
            rejects: (facts.rows.len() - own.len()) as u64,
            shown: own,
            first: ids.first().copied(),
            digest: digest_of(&ids),
        };
        let held = self.entries.get(&offset).filter(|held| held.size == size);
        if held.is_none_or(|held| held.round <= round) {
            self.entries.insert(offset, entry);
        }
        self.ends_before = self.find_end();
        Ok(())
    }

    /// Gives the ids of a page without a total places, and follows the order of its rows; returns how many
    /// had been shown before.
    fn place(&mut self, header: &PageHeader, facts: &PageFacts, own: Range<usize>) -> Result<u64> {
        let before = self.shown.places();
        let places = self.shown.place(own)?;
        if facts.total.is_none() && header.round == 0 && header.size == self.size {
            let mut of_rows = places.iter();
            let mut is_new = |row: &&RowFacts| {
                row.id.and_then(|_| of_rows.next()).is_none_or(|place| *place >= before)
            };
            self.descent.follow(facts.rows.iter().filter(|row| is_new(row)), header.page);
        }
        Ok(places.iter().filter(|place| **place < before).count() as u64)
    }

    fn find_end(&self) -> Option<u32> {
        let is_whole = |entry: &&Entry| entry.size == self.size;
        let behind = self.entries.values().rev().filter(is_whole);
        let empty: Vec<&Entry> = behind.take_while(|entry| entry.rows() == 0).collect();
        let first = empty.last().filter(|_| empty.len() >= EMPTY_PAGES_THAT_END)?;
        Some(first.page).filter(|page| *page > 1)
    }

    /// Tells whether nothing was shown so far.
    pub(super) fn is_empty(&self) -> bool {
        self.holes.is_empty() && self.entries.values().all(|entry| entry.rows() == 0)
    }

    /// Tells whether the rest of the listing is taken for empty, whatever its total says.
    pub(super) fn has_ended(&self) -> bool {
        self.ends_before.is_some()
    }

    /// Returns the places of pages that show nothing where the total says that there are rows, unless all
    /// that it counts were seen.
    pub(super) fn empty(&self) -> Result<Vec<u64>> {
        let Some((_, last)) = self.last_total else { return Ok(Vec::new()) };
        if !self.disagrees()? {
            return Ok(Vec::new());
        }
        let inside = self.entries.range(..last);
        let empty = inside.filter(|(_, entry)| entry.size == self.size && entry.rows() == 0);
        Ok(empty.map(|(offset, _)| *offset).collect())
    }

    /// Tells whether pages that show nothing may keep rows from sight: others show some behind them, or
    /// were never asked for on their account.
    pub(super) fn is_cut_short(&self) -> Result<bool> {
        let Some(first) = self.empty()?.first().copied() else { return Ok(false) };
        let end = self.last_total.map_or(u64::MAX, |(_, last)| last);
        let shows_more = self.entries.range(first..end).any(|(_, entry)| entry.rows() > 0);
        let is_asked_for = self.total_pages.is_none_or(|pages| pages <= self.last_page());
        Ok(shows_more || self.has_ended() && !is_asked_for)
    }

    /// Returns the places of pages that show fewer rows than the total, which stood still, says they
    /// have; the last page, where it shows any, is not among them.
    pub(super) fn short(&self) -> Result<Vec<u64>> {
        let total = |at: Option<(DateTime<Utc>, u64)>| at.map(|(_, total)| total);
        let Some(last) = total(self.last_total) else { return Ok(Vec::new()) };
        if total(self.first_total) != Some(last) || !self.disagrees()? {
            return Ok(Vec::new());
        }
        let is_short = |(offset, entry): &(&u64, &Entry)| {
            let size = u64::from(entry.size);
            let is_last = *offset + size >= last;
            entry.size == self.size
                && **offset < last
                && entry.rows() < size
                && (!is_last || entry.rows() == 0)
        };
        Ok(self.entries.iter().filter(is_short).map(|(offset, _)| *offset).collect())
    }

    pub(super) fn note_totals(&mut self, header: &PageHeader, size: u32, facts: &PageFacts) {
        let at = header.received_at;
        self.added += 1;
        if let Some(total) = facts.total {
            if self.latest_total.is_some_and(|latest| latest != total) {
                self.moves += 1;
                self.moved_at = self.added;
            }
            self.latest_total = Some(total);
            if self.first_total.is_none_or(|(first, _)| at < first) {
                self.first_total = Some((at, total));
            }
            if self.last_total.is_none_or(|(last, _)| at >= last) {
                self.last_total = Some((at, total));
            }
        }
        // Pieces of a page state pages of another size; their total tells the number all the same.
        let stated = facts.total_pages.filter(|_| size == self.size);
        let by_total = facts.total.map(|total| total.div_ceil(u64::from(self.size)).max(1));
        let by_total = by_total.and_then(|pages| u32::try_from(pages).ok());
        self.total_pages = stated.or(by_total).or(self.total_pages);
    }

    pub(super) fn note_dates(&mut self, facts: &PageFacts) {
        let Some(window) = self.window else { return };
        for row in &facts.rows {
            match row.created_at {
                // A request overlaps its neighbours by a second; that is not the provider's doing.
                Some(at) => {
                    let second = TimeDelta::seconds(1);
                    let inside = window.start() - second <= at && at <= window.end() + second;
                    self.outside += u64::from(!inside);
                }
                None => self.undated += 1,
            }
        }
    }

    /// Counts in smaller pages from now on, of which a whole number make one of those before: what is
    /// held stays held. Only where it is known how many pages there are.
    pub(super) fn shrink_to(&mut self, most_rows: u32) {
        let (Some(pages), before) = (self.total_pages, self.size) else { return };
        while self.size > most_rows.max(1) {
            let Some(factor) = smallest_factor(self.size) else { break };
            self.size /= factor;
        }
        if self.size < before {
            let rows = self.last_total.map_or(u64::from(pages) * u64::from(before), |(_, t)| t);
            let pages = rows.div_ceil(u64::from(self.size)).max(1);
            self.total_pages = Some(u32::try_from(pages).unwrap_or(u32::MAX));
        }
    }

    /// Returns the rows of the pieces that a page came right in, whole and without a hole, where one
    /// did: the larger page is known not to fit.
    pub(super) fn came_in_pieces_of(&self) -> Option<u32> {
        let of_page = |entry: &Entry| {
            let offset = u64::from(entry.page - 1) * u64::from(entry.size);
            let start = offset - offset % u64::from(self.size);
            let end = start + u64::from(self.size);
            let largest = self.entries.range(start..end).map(|(_, piece)| piece.size).max();
            let has_hole = self.holes.range(start..end).next().is_some();
            let is_whole = !has_hole && self.covers(start, self.clip(start, end), u32::MAX);
            largest.filter(|largest| is_whole && *largest < self.size)
        };
        self.entries.values().filter(|entry| entry.size < self.size).filter_map(of_page).min()
    }

    /// Returns the pages of the whole listing of which not all rows are held or known as holes.
    pub(super) fn missing(&self) -> Vec<u32> {
        let pages = self.total_pages.unwrap_or(1).max(1);
        let pages = self.ends_before.map_or(pages, |end| pages.min(end));
        (1..=pages).filter(|page| !self.is_held(*page)).collect()
    }

    pub(super) fn is_held(&self, page: u32) -> bool {
        let size = u64::from(self.size);
        let start = u64::from(page - 1) * size;
        self.covers(start, self.clip(start, start + size), u32::MAX)
    }

    /// Tells whether rows of such a page are known as holes.
    pub(super) fn has_holes(&self, page: u32, size: u32) -> bool {
        self.holes.range(span_of(page, size)).next().is_some()
    }

    /// Returns the place of a piece of such a page that is held and shows rows.
    pub(super) fn piece_of(&self, page: u32, size: u32) -> Option<u64> {
        let mut held = self.entries.range(span_of(page, size));
        let piece = held.find(|(_, entry)| entry.size < size && entry.rows() > 0);
        piece.map(|(offset, _)| *offset)
    }

    /// Tells whether `size` rows from `offset` need not be asked for as a piece: they are held in pieces
    /// no larger, known as holes, or past the end of the listing.
    pub(super) fn needs_no_piece(&self, offset: u64, size: u32) -> bool {
        let is_past = self.last_total.is_some_and(|(_, total)| offset >= total.max(1));
        is_past || self.covers(offset, self.clip(offset, offset + u64::from(size)), size)
    }

    /// Returns where a span of the listing ends that has at least one row: no row is past the total.
    fn clip(&self, start: u64, end: u64) -> u64 {
        self.last_total.map_or(end, |(_, total)| end.min(total).max(start + 1))
    }

    /// Tells whether all rows from `start` to before `end` are held on pages of at most so many rows, or
    /// known as holes.
    fn covers(&self, start: u64, end: u64, most_rows: u32) -> bool {
        let mut reached = start;
        let largest = self.sizes.last().copied().unwrap_or(self.size);
        while reached < end {
            let from = (reached + 1).saturating_sub(u64::from(largest));
            let held = self.entries.range(from..=reached).filter(|(_, e)| e.size <= most_rows);
            let held = held.map(|(at, e)| at + u64::from(e.size));
            let holes = self.holes.range(from..=reached).map(|(at, rows)| at + u64::from(*rows));
            match held.chain(holes).max() {
                Some(next) if next > reached => reached = next,
                _ => return false,
            }
        }
        true
    }

    /// Returns the number of the last page that is held, or known as a hole; 0 where there is none.
    pub(super) fn last_page(&self) -> u32 {
        let size = u64::from(self.size.max(1));
        let held = self.entries.values().rev().find(|e| e.size == self.size).map(|e| e.page);
        let holes = self.holes.iter().map(|(offset, rows)| offset + u64::from(*rows).max(1) - 1);
        let hole = holes.max().and_then(|last| u32::try_from(last / size + 1).ok());
        held.max(hole).unwrap_or(0)
    }

    /// Returns the number of the last page that shows rows, or is known as a hole; 0 where there is
    /// none.
    pub(super) fn last_page_with_rows(&self) -> u32 {
        let last = self.last_page();
        let is_empty = |page: &u32| self.page(*page).is_some_and(|entry| entry.rows() == 0);
        (1..=last).rev().find(|page| !is_empty(page)).unwrap_or(last)
    }

    /// Returns what is held of a page in one piece.
    pub(super) fn page(&self, page: u32) -> Option<&Entry> {
        let offset = u64::from(page.saturating_sub(1)) * u64::from(self.size);
        self.entries.get(&offset).filter(|entry| entry.size == self.size)
    }

    /// Returns the time from the first page received to the last.
    pub(super) fn lasted(&self) -> TimeDelta {
        self.received.map_or(TimeDelta::zero(), |(first, last)| last - first)
    }

    /// Returns when the last page was received.
    pub(super) fn received_at(&self) -> Option<DateTime<Utc>> {
        self.received.map(|(_, last)| last)
    }

    /// Returns how many rows the first page showed.
    pub(super) fn first_rows(&self) -> u64 {
        self.page(1).map_or(0, Entry::rows)
    }

    /// Returns the places whose page was read before the total last moved: also where the total is
    /// the same again, rows may have come and gone in between.
    pub(super) fn stale(&self) -> Vec<u64> {
        let Some((_, last)) = self.last_total else { return Vec::new() };
        let other = |entry: &Entry| {
            entry.total.is_some_and(|total| total != last || entry.added < self.moved_at)
        };
        self.entries.iter().filter(|(_, entry)| other(entry)).map(|(offset, _)| *offset).collect()
    }

    /// Records that the pages at `offsets` were found unchanged under the last total.
    pub(super) fn trust(&mut self, offsets: &[u64]) {
        let last = self.last_total.map(|(_, total)| total);
        for offset in offsets {
            if let Some(entry) = self.entries.get_mut(offset) {
                entry.total = last;
                entry.added = self.added;
            }
        }
    }

    /// Tells whether the pages as last read show other rows than the last total says.
    pub(super) fn disagrees(&self) -> Result<bool> {
        let Some((_, last)) = self.last_total else { return Ok(false) };
        let inside = self.entries.iter().filter(|(offset, _)| **offset < last.max(1));
        let rejects: u64 = inside.map(|(_, entry)| entry.rejects).sum();
        let holes: u64 = self.holes.values().map(|rows| u64::from(*rows)).sum();
        Ok(self.distinct()? + rejects + holes != last)
    }

    /// Returns the distinct ids of the pages as last read.
    fn distinct(&self) -> Result<u64> {
        let held: usize = self.entries.values().map(|entry| entry.shown.len()).sum();
        match held == self.shown.len() {
            // Nothing was read again.
            true => self.shown.distinct(),
            false => self.shown.distinct_in(&self.stretches(u64::MAX)),
        }
    }

    /// Returns where the ids of the pages as last read stand, each with the page's place in the listing, of
    /// those before `end`.
    pub(super) fn stretches(&self, end: u64) -> Vec<Stretch> {
        let entries = self.entries.range(..end);
        entries.map(|(offset, entry)| (entry.shown.clone(), *offset)).collect()
    }

    /// Returns how often a page of this number was asked for again, of whichever size.
    pub(super) fn round_of(&self, page: u32) -> u32 {
        let offset = |size: &u32| u64::from(page.saturating_sub(1)) * u64::from(*size);
        let entries = self.sizes.iter().filter_map(|size| self.entries.get(&offset(size)));
        let of_page = entries.filter(|entry| entry.page == page);
        of_page.map(|entry| entry.round).max().unwrap_or(0)
    }

    /// Returns the place of the first page that shows the same rows as an earlier one.
    pub(super) fn repeats(&self) -> Option<u64> {
        if !self.may_repeat {
            return None;
        }
        let pages = u64::from(self.total_pages.unwrap_or(u32::MAX));
        let end = pages * u64::from(self.size);
        // Pieces of a page are no pages of their own.
        let whole = self.entries.range(..end).filter(|(_, entry)| entry.size >= self.size);
        let mut by_first_row: HashMap<(u32, u64), &Entry> = HashMap::new();
        for (offset, entry) in whole {
            let Some(first) = entry.first else { continue };
            match by_first_row.get(&(entry.size, first)) {
                Some(earlier) if earlier.digest == entry.digest => return Some(*offset),
                Some(_) => {}
                None => drop(by_first_row.insert((entry.size, first), entry)),
            }
        }
        None
    }

    /// Tells whether a page shows just what the one before it does, although others behind it show more:
    /// what it has itself was not shown.
    pub(super) fn hides_a_page(&self) -> bool {
        let whole = |entry: &&Entry| entry.size == self.size && !entry.shown.is_empty();
        let pages: Vec<&Entry> = self.entries.values().filter(whole).collect();
        pages.windows(2).enumerate().any(|(at, pair)| {
            let is_same = pair[0].page + 1 == pair[1].page && pair[0].digest == pair[1].digest;
            is_same && pages[at + 2..].iter().any(|behind| behind.digest != pair[1].digest)
        })
    }

    /// Tells whether the first page has as many rows as were asked for.
    pub(super) fn first_page_is_full(&self) -> bool {
        self.entries.values().next().is_some_and(|first| first.rows() >= u64::from(first.size))
    }

    /// Tells whether rows are known to be on no page: some are on two, and fewer were shown than the
    /// total, which stood still, says.
    pub(super) fn hides_rows(&self) -> Result<bool> {
        let total = |at: Option<(DateTime<Utc>, u64)>| at.map(|(_, total)| total);
        let Some(last) = total(self.last_total) else { return Ok(false) };
        if total(self.first_total) != Some(last) {
            return Ok(false);
        }
        let rejects: u64 = self.entries.values().map(|entry| entry.rejects).sum();
        let holes: u64 = self.holes.values().map(|rows| u64::from(*rows)).sum();
        Ok(self.shown.distinct()? + rejects + holes < last && !self.doubled()?.is_empty())
    }

    /// Returns the places of the pages that have a row in common with another one.
    pub(super) fn doubled(&self) -> Result<Vec<u64>> {
        let mut places = BTreeSet::new();
        self.shown.compare(&self.stretches(u64::MAX), |sorted| {
            let twice = sorted.windows(2).filter(|pair| pair[0].0 == pair[1].0);
            places.extend(twice.flat_map(|pair| [pair[0].1, pair[1].1]));
        })?;
        Ok(places.into_iter().collect())
    }

    /// Returns the ids of the rows of a page, none where it is not held.
    pub(super) fn ids_on(&self, page: u32) -> Result<Vec<u64>> {
        self.page(page).map_or(Ok(Vec::new()), |entry| self.shown.ids(entry.shown.clone()))
    }

    /// Returns the distinct records, the rows without a usable id, and those that never came right.
    ///
    /// Where the listing stood still, what any page showed is in it; and where it states no total,
    /// nothing is known of what has left it meanwhile.
    pub(super) fn counts(&self) -> Result<(u64, u64, u64)> {
        let total = |at: Option<(DateTime<Utc>, u64)>| at.map(|(_, total)| total);
        let end = total(self.last_total).map_or(u64::MAX, |total| total.max(1));
        let distinct = match total(self.first_total) == total(self.last_total) {
            true => self.shown.distinct()?,
            false => self.shown.distinct_in(&self.stretches(end))?,
        };
        let rejects = self.entries.range(..end).map(|(_, entry)| entry.rejects).sum();
        let holes = self.holes.values().map(|rows| u64::from(*rows)).sum();
        Ok((distinct, rejects, holes))
    }

    pub(super) fn close(mut self) -> Result<Outcome> {
        let (distinct, rejects, holes) = self.counts()?;
        let pages = self.last_page();
        let in_vain = self.repeats().into_iter().chain(self.empty()?.first().copied()).collect();
        // What lies past the end of the listing as it stands now belonged to an earlier one.
        if let Some((_, total)) = self.last_total {
            self.entries.retain(|offset, _| *offset < total.max(1));
        }
        let moved = !self.stale().is_empty();
        let first_total = self.first_total.map(|(_, total)| total);
        let last_total = self.last_total.map(|(_, total)| total);
        Ok(Outcome {
            first_total,
            last_total,
            distinct,
            rejects,
            holes,
            proven: self.proven && !moved,
            in_vain,
            shown: self.shown.into_ids(),
            pages,
            whole: self.whole,
            settled: self.settled,
            newest_created_first: self.descent.created.is_shown(),
            newest_updated_first: self.descent.updated.is_shown(),
            outside: self.outside,
            undated: self.undated,
            was_closed: self.was_closed,
        })
    }
}

/// Returns a number that stands for ids in their order; it is never stored.
fn digest_of(ids: &[u64]) -> u64 {
    let mut hasher = DefaultHasher::new();
    ids.hash(&mut hasher);
    hasher.finish()
}

/// Returns the places of the rows of a page.
fn span_of(page: u32, size: u32) -> Range<u64> {
    let (page, size) = (u64::from(page), u64::from(size));
    (page - 1) * size..page * size
}

/// Returns the least number of pieces of the same size that a page of `size` rows can be cut into;
/// `None` for a single row.
pub(super) fn smallest_factor(size: u32) -> Option<u32> {
    (2..=size).find(|factor| size.is_multiple_of(*factor))
}

/// Returns the size the provider cut its pages to, where it did: an echo below what was asked, or
/// fewer rows on a page that is not the last, and a number of pages that only that size explains.
fn clamped_size(header: &PageHeader, facts: &PageFacts) -> Option<u32> {
    let (total, pages) = (facts.total?, facts.total_pages?);
    let returned = u32::try_from(facts.rows.len()).ok().filter(|_| header.page < pages);
    let smaller = |size: &u32| *size > 0 && *size < header.size;
    let echoed = facts.size.filter(smaller).or(returned.filter(smaller))?;
    let needed = |size: u32| total.div_ceil(u64::from(size)).max(1);
    let pages = u64::from(pages.max(1));
    (pages == needed(echoed) && pages != needed(header.size)).then_some(echoed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Seq;
    use crate::ids::WalkId;
    use crate::record::Reason;
    use crate::record::Scope;
    use proptest::prelude::*;

    fn walk(page_size: u32) -> Walk {
        Walk {
            id: WalkId::new(Seq(0)),
            scope: Scope {
                source: "acme".parse().unwrap(),
                stream: "leads".into(),
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

    fn header(page: u32, size: u32, second: i64) -> PageHeader {
        let received_at = DateTime::UNIX_EPOCH + TimeDelta::seconds(second);
        PageHeader { page, size, round: 0, request: String::new(), status: 200, received_at }
    }

    /// The page of a listing of ids `from..to`, as the provider would serve it.
    fn page(ids: std::ops::Range<u64>, total: u64, size: u32) -> PageFacts {
        let rows = ids.map(|id| RowFacts { id: Some(id), ..RowFacts::default() }).collect();
        let pages = u32::try_from(total.div_ceil(u64::from(size))).unwrap().max(1);
        PageFacts {
            rows,
            total: Some(total),
            total_pages: Some(pages),
            page: None,
            size: Some(size),
            is_json: true,
            places: None,
        }
    }

    #[test]
    fn ids_that_cannot_be_kept_end_the_reading() {
        let folder = tempfile::tempdir().unwrap();
        let room_for_one = IdRoom::new(folder.path().join("gone"), 30);
        for total in [Some(4), None] {
            let mut book = Book::new(&walk(1), room_for_one.clone());
            let mut add = |row: u64| {
                let facts = PageFacts { total, ..page(row..row + 1, 4, 1) };
                book.add(&header(u32::try_from(row).unwrap() + 1, 1, 0), &facts)
            };
            assert!(add(0).is_ok());
            let failed = add(1).unwrap_err().to_string();
            assert!(failed.starts_with("failed to create scratch file"), "{failed}");
        }
    }

    #[test]
    fn a_provider_that_cuts_its_pages_is_asked_for_pages_of_that_size() {
        let mut book = Book::new(&walk(2500), IdRoom::tiny());
        book.add(&header(1, 2500, 0), &page(0..250, 700, 250)).unwrap();
        assert_eq!((book.size, book.missing()), (250, vec![2, 3]));
    }

    #[test]
    fn a_provider_that_cuts_its_pages_in_silence_is_found_out_by_a_short_page_that_is_not_the_last()
    {
        let mut book = Book::new(&walk(50), IdRoom::tiny());
        let mut first = page(0..30, 70, 30);
        first.size = Some(50);
        book.add(&header(1, 50, 0), &first).unwrap();
        assert_eq!((book.size, book.missing()), (30, vec![2, 3]));
    }

    #[test]
    fn rows_on_two_pages_hide_others_until_all_were_shown() {
        let mut book = Book::new(&walk(10), IdRoom::tiny());
        book.add(&header(1, 10, 0), &page(0..10, 20, 10)).unwrap();
        book.add(&header(2, 10, 1), &page(9..19, 20, 10)).unwrap();
        assert!(book.hides_rows().unwrap());
        assert_eq!(book.doubled().unwrap(), [0, 10]);
        let again = PageHeader { round: 1, ..header(2, 10, 2) };
        book.add(&again, &page(10..20, 20, 10)).unwrap();
        assert!(!book.hides_rows().unwrap());
        assert!(book.close().unwrap().is_reconciled());
    }

    #[test]
    fn an_empty_page_before_others_cuts_a_listing_short_and_one_at_its_end_does_not() {
        for (empty, is_cut_short) in [(2, true), (4, false)] {
            let mut book = Book::new(&walk(10), IdRoom::tiny());
            for number in 1..=4 {
                let rows = if number == empty { 0 } else { 10 };
                let start = u64::from(number) * 10;
                let shown = page(start..start + rows, 35, 10);
                book.add(&header(number, 10, i64::from(number)), &shown).unwrap();
            }
            assert_eq!(book.empty().unwrap(), [u64::from(empty - 1) * 10]);
            assert_eq!(book.is_cut_short().unwrap(), is_cut_short, "{empty}");
        }
    }

    #[test]
    fn an_echo_of_the_rows_returned_is_no_smaller_page() {
        let mut book = Book::new(&walk(2500), IdRoom::tiny());
        let mut last = page(0..4, 4, 2500);
        last.size = Some(4);
        book.add(&header(1, 2500, 0), &last).unwrap();
        assert_eq!((book.size, book.missing()), (2500, vec![]));
    }

    #[test]
    fn a_page_is_held_once_its_pieces_and_holes_make_it_whole() {
        let mut book = Book::new(&walk(10), IdRoom::tiny());
        book.add(&header(1, 10, 0), &page(0..10, 20, 10)).unwrap();
        book.add(&header(3, 5, 1), &page(10..15, 20, 5)).unwrap();
        assert_eq!(book.missing(), [2]);
        book.holes.insert(15, 1);
        for row in 17..=20 {
            book.add(&header(row, 1, 2), &page(u64::from(row - 1)..u64::from(row), 20, 1)).unwrap();
        }
        assert_eq!(book.missing(), Vec::<u32>::new());
        let outcome = book.close().unwrap();
        assert_eq!((outcome.distinct, outcome.holes, outcome.difference()), (19, 1, Some(0)));
        assert!(!outcome.is_reconciled());
    }

    #[test]
    fn pieces_without_a_hole_tell_that_the_page_was_too_large() {
        let mut book = Book::new(&walk(20), IdRoom::tiny());
        book.add(&header(1, 10, 0), &page(0..10, 35, 10)).unwrap();
        assert_eq!(book.came_in_pieces_of(), None, "half of a page tells nothing");
        book.add(&header(2, 10, 1), &page(10..20, 35, 10)).unwrap();
        assert_eq!(book.came_in_pieces_of(), Some(10));
        book.holes.insert(15, 1);
        assert_eq!(book.came_in_pieces_of(), None);
        let mut book = Book::new(&walk(20), IdRoom::tiny());
        book.add(&header(1, 20, 0), &page(0..20, 35, 20)).unwrap();
        // A page of half the size may have been asked for to tell whether the number is ignored.
        book.add(&header(2, 10, 1), &page(10..20, 35, 10)).unwrap();
        assert_eq!(book.came_in_pieces_of(), None);
        book.add(&header(3, 10, 2), &page(20..30, 35, 10)).unwrap();
        book.add(&header(4, 10, 3), &page(30..35, 35, 10)).unwrap();
        assert_eq!(book.came_in_pieces_of(), Some(10), "the last page is a short one");
    }

    #[test]
    fn pages_read_under_an_earlier_total_are_stale_until_trusted_or_read_again() {
        let mut book = Book::new(&walk(10), IdRoom::tiny());
        book.add(&header(1, 10, 0), &page(0..10, 20, 10)).unwrap();
        book.add(&header(2, 10, 1), &page(11..20, 19, 10)).unwrap();
        assert_eq!(book.stale(), [0]);
        let again = PageHeader { round: 1, ..header(1, 10, 2) };
        book.add(&again, &page(0..10, 19, 10)).unwrap();
        assert_eq!(book.stale(), Vec::<u64>::new());
        let outcome = book.close().unwrap();
        assert_eq!((outcome.distinct, outcome.proven), (19, true));
        assert_eq!(outcome.shown.len(), 10 + 9 + 10, "each as often as it was shown");
        assert!(!outcome.is_reconciled(), "the totals differ from first to last");
    }

    #[test]
    fn a_page_like_an_earlier_one_is_found_but_not_past_the_end() {
        let mut book = Book::new(&walk(10), IdRoom::tiny());
        book.add(&header(1, 10, 0), &page(0..10, 20, 10)).unwrap();
        book.add(&header(2, 10, 1), &page(0..10, 20, 10)).unwrap();
        assert_eq!(book.repeats(), Some(10));
        let mut book = Book::new(&walk(10), IdRoom::tiny());
        book.add(&header(1, 10, 0), &page(0..10, 20, 10)).unwrap();
        book.add(&header(2, 10, 1), &page(0..10, 10, 10)).unwrap();
        assert_eq!(book.repeats(), None);
    }

    proptest! {
        #[test]
        fn pages_that_shrink_on_the_way_ask_for_every_row_once(
            total in 0_u64..300, size in 1_u32..80, most in prop::collection::vec((1_u32..80, 0_usize..6), 0..4),
        ) {
            let mut book = Book::new(&walk(size), IdRoom::tiny());
            let (mut clock, mut asked) = (0, vec![0_u32; usize::try_from(total).unwrap()]);
            let mut read = |book: &mut Book, number: u32| {
                let start = (u64::from(number - 1) * u64::from(book.size)).min(total);
                let end = (start + u64::from(book.size)).min(total);
                (start..end).for_each(|row| asked[usize::try_from(row).unwrap()] += 1);
                clock += 1;
                book.add(&header(number, book.size, clock), &page(start..end, total, book.size)).unwrap();
            };
            read(&mut book, 1);
            for (most, pages) in most {
                book.shrink_to(most);
                // From the end, so that what is held is not simply what comes first.
                book.missing().into_iter().rev().take(pages).for_each(|p| read(&mut book, p));
            }
            book.missing().into_iter().for_each(|number| read(&mut book, number));
            prop_assert_eq!(book.missing(), Vec::<u32>::new());
            prop_assert_eq!(book.repeats(), None);
            prop_assert!(asked.iter().all(|times| *times == 1), "{asked:?}");
            let outcome = book.close().unwrap();
            prop_assert!(outcome.is_reconciled());
            prop_assert_eq!(outcome.distinct, total);
        }

        #[test]
        fn whatever_the_size_and_order_of_pages_all_rows_are_counted_once(
            total in 1_u64..300, size in 1_u32..40, seed in any::<u64>(),
        ) {
            let mut book = Book::new(&walk(size), IdRoom::tiny());
            let pages = u32::try_from(total.div_ceil(u64::from(size))).unwrap();
            let mut order: Vec<u32> = (1..=pages).collect();
            order.sort_by_key(|page| u64::from(*page).wrapping_mul(seed | 1));
            for number in order {
                let start = u64::from(number - 1) * u64::from(size);
                let end = (start + u64::from(size)).min(total);
                book.add(&header(number, size, i64::from(number)), &page(start..end, total, size)).unwrap();
            }
            prop_assert_eq!(book.missing(), Vec::<u32>::new());
            let outcome = book.close().unwrap();
            prop_assert!(outcome.is_reconciled());
            prop_assert_eq!(outcome.distinct, total);
        }
    }
}
