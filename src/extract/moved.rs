//! Finds rows that moved while a listing without a total was read.
//!
//! A row that goes from where it was not read yet to where it was read already is shown by neither;
//! one that leaves lets those behind it move up, past the page that was being read. The first shows
//! in rows that come twice, since others moved down in its stead; what that says is looked for: at
//! the top, where most listings put what is new, then where rows stand at another distance from
//! where they stood than on the page before. Between two pages with the same distance nothing is
//! looked for.

use std::collections::BTreeMap;

use chrono::TimeDelta;

use super::Reader;
use super::Result;
use super::book::Book;
use super::scan::Scan;
use crate::record::Walk;

/// A reading that took longer is looked at again from its top.
const QUICK: TimeDelta = TimeDelta::minutes(2);

/// Pages with rows in common that are looked at, at most: those of a few moves show where they were.
const MARKS: usize = 16;

/// By how many places the rows of a page stand further down than when they were first shown.
type Shift = i64;

impl Reader<'_> {
    /// Looks for rows that the reading has missed, and records whether all are accounted for.
    pub(super) async fn look_for_moved(
        &self,
        walk: &Walk,
        goes_on: bool,
        book: &mut Book,
        scan: &mut Scan,
    ) -> Result<()> {
        let is_quiet = !goes_on && scan.doubles == 0 && book.lasted() < QUICK;
        if is_quiet || book.page(1).is_none() {
            return Ok(());
        }
        let mut marks = self.marks(book);
        let mut shifts = BTreeMap::new();
        let mut found = self.reread_top(walk, book, scan, &mut shifts).await?;
        marks.retain(|page| !shifts.contains_key(page));
        for page in marks {
            if found >= scan.doubles {
                break;
            }
            let shift = self.shift_of(walk, page, book, scan).await?;
            shifts.insert(page, shift);
            found += scan.take(book);
        }
        found += self.look_between(walk, found, shifts, book, scan).await?;
        book.settled &= found >= scan.doubles;
        Ok(())
    }

    /// Returns the pages to look at first: those that have rows in common, and the last.
    fn marks(&self, book: &Book) -> Vec<u32> {
        let page = |offset: &u64| u32::try_from(offset / u64::from(book.size) + 1).ok();
        let mut marks: Vec<u32> = book.doubled().iter().filter_map(page).take(MARKS).collect();
        marks.push(book.last_page());
        marks.dedup();
        marks
    }

    /// Reads the top again, until a page shows nothing new; returns how many rows were new.
    async fn reread_top(
        &self,
        walk: &Walk,
        book: &mut Book,
        scan: &mut Scan,
        shifts: &mut BTreeMap<u32, Shift>,
    ) -> Result<u64> {
        let (mut found, mut page) = (0, 1);
        while book.page(page).is_some() {
            let shift = self.shift_of(walk, page, book, scan).await?;
            shifts.insert(page, shift);
            match scan.take(book) {
                0 => break,
                more => found += more,
            }
            page += 1;
        }
        Ok(found)
    }

    /// Bisects between pages whose rows stand at different distances from where they stood, until as
    /// many rows are found as came twice. What the pages on both sides of such a step show, is all.
    async fn look_between(
        &self,
        walk: &Walk,
        already_found: u64,
        shifts: BTreeMap<u32, Shift>,
        book: &mut Book,
        scan: &mut Scan,
    ) -> Result<u64> {
        let known: Vec<(u32, Shift)> = shifts.into_iter().collect();
        let mut spans: Vec<_> = known.windows(2).map(|pair| (pair[0], pair[1])).collect();
        let mut left = self.options.reread_limit * 4 * (book.last_page().max(1).ilog2() + 1);
        let mut found = 0;
        while let Some((low, high)) = spans.pop() {
            let is_step = low.1 != high.1 && high.0 - low.0 > 1;
            if !is_step || left == 0 || already_found + found >= scan.doubles {
                continue;
            }
            let middle = low.0 + (high.0 - low.0) / 2;
            if book.page(middle).is_none() {
                continue;
            }
            left -= 1;
            let shift = self.shift_of(walk, middle, book, scan).await?;
            found += scan.take(book);
            spans.push((low, (middle, shift)));
            spans.push(((middle, shift), high));
        }
        Ok(found)
    }

    /// Asks for a held page again and tells how far its rows have moved.
    async fn shift_of(
        &self,
        walk: &Walk,
        page: u32,
        book: &mut Book,
        scan: &Scan,
    ) -> Result<Shift> {
        let Some(entry) = book.page(page) else { return Ok(Shift::MAX) };
        let before = entry.ids.clone();
        let offset = u64::from(page - 1) * u64::from(book.size);
        book.probes += 1;
        match self.reread(walk, offset, book).await {
            Ok(_) => {}
            // It has become shorter.
            Err(error) if self.is_past_end(page, &error) => return Ok(Shift::MIN),
            Err(error) => return Err(error),
        }
        let now = book.page(page).map(|entry| entry.ids.as_slice()).unwrap_or_default();
        Ok(shift(&before, now, offset, scan))
    }
}

/// Returns by how many places rows have moved: by the first that stood on the page before, else by
/// where the first known one was first shown.
fn shift(before: &[u64], now: &[u64], offset: u64, scan: &Scan) -> Shift {
    let place = |at: usize| Shift::try_from(at).unwrap_or(Shift::MAX);
    for (at, id) in now.iter().enumerate() {
        if let Some(was) = before.iter().position(|other| other == id) {
            return place(at) - place(was);
        }
    }
    let known = now.iter().enumerate().find_map(|(at, id)| Some((at, *scan.places.get(id)?)));
    known.map_or(Shift::MAX, |(at, was)| {
        let offset = Shift::try_from(offset).unwrap_or(Shift::MAX);
        offset.saturating_add(place(at)) - Shift::from(was)
    })
}
