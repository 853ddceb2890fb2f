//! Finds rows that moved while a listing without a total was read.
//!
//! A row that goes from where it was not read yet to where it was read already is shown by neither;
//! one that leaves lets those behind it move up, past the page that was being read. The first shows
//! in rows that come twice, since others moved down in its stead; what that says is looked for: at
//! the top, where most listings put what is new, then where rows stand at another distance from
//! where they stood than on the page before. Between two pages with the same distance nothing is
//! looked for.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;

use chrono::TimeDelta;

use super::Reader;
use super::Result;
use super::book::Book;
use super::book::Entry;
use super::scan::Scan;
use super::scan::is_end;
use super::shown::Stretch;
use crate::record::Walk;

/// A reading that took longer is looked at again from its top.
const QUICK: TimeDelta = TimeDelta::minutes(2);

/// Pages with rows in common that are looked at, at most: those of a few moves show where they were.
const MARKS: usize = 16;

/// Pages at the top, one after the other, that show nothing new though their rows were mixed: in a
/// listing without any order all are.
const IDLE: u32 = 4;

/// By how many places rows stand further down than when they were read.
type Distance = i64;

/// How far the first and the last row of a page have moved.
#[derive(Debug, Clone, Copy)]
struct Shift {
    first: Distance,
    last: Distance,
}

/// How many rows are looked for, and at how many pages at most.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    rows: u64,
    steps: u32,
}

/// Where pages stood when they were last read, before it is looked for what has moved.
struct Positions(Vec<Stretch>);

impl Positions {
    fn of(book: &Book) -> Self {
        let first = |offset: u64, entry: &Entry| match entry.size == book.size {
            true => first_place(book, entry.page),
            false => offset,
        };
        let stretch =
            |(offset, entry): (&u64, &Entry)| (entry.shown.clone(), first(*offset, entry));
        Self(book.entries.iter().map(stretch).collect())
    }

    /// Returns how far the rows of a page have moved whose first place is `first`.
    fn shift(&self, ids: &[u64], first: u64, book: &Book) -> Result<Shift> {
        let before = self.places_of(ids, book)?;
        let moved = |(id, place): (&u64, u64)| Some(distance(place) - (*before.get(id)?)?);
        let mut moved = ids.iter().zip(first..).filter_map(moved);
        // A page of which no row is known has moved by more than can be told.
        let first = moved.next().unwrap_or(Distance::MAX);
        Ok(Shift { first, last: moved.last().unwrap_or(first) })
    }

    /// Returns where those of the rows stood that were there, and nothing for those that came twice. All ids
    /// are gone through for it: few pages are looked at, and where each row stands would be as many again.
    fn places_of(&self, ids: &[u64], book: &Book) -> Result<HashMap<u64, Option<Distance>>> {
        let ids: HashSet<u64> = ids.iter().copied().collect();
        let mut places = HashMap::new();
        if ids.is_empty() {
            return Ok(places);
        }
        for (stretch, first) in &self.0 {
            let shown = book.shown.ids(stretch.clone())?;
            for (id, place) in shown.iter().zip(*first..).filter(|(id, _)| ids.contains(id)) {
                let again = |place: &mut Option<Distance>| *place = None;
                places.entry(*id).and_modify(again).or_insert(Some(distance(place)));
            }
        }
        Ok(places)
    }
}

/// Returns the place of the first row of a page: where the server alone cuts the pages, or cuts them
/// in silence, they have fewer rows than they are asked for.
fn first_place(book: &Book, page: u32) -> u64 {
    let rows = match book.first_rows() {
        0 => u64::from(book.size),
        rows => rows.min(book.size.into()),
    };
    u64::from(page.saturating_sub(1)) * rows
}

fn distance(place: u64) -> Distance {
    Distance::try_from(place).unwrap_or(Distance::MAX)
}

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
        // What runs before this one have looked at is not looked at for ever: each would begin anew.
        let steps = self.options.reread_limit * 4 * (book.last_page().max(1).ilog2() + 1);
        let mut found = scan.before.found;
        if scan.before.looked >= u64::from(steps) + MARKS as u64 {
            book.settled &= found >= scan.doubles;
            return Ok(());
        }
        let positions = Positions::of(book);
        let mut marks = marks(book)?;
        let mut shifts = BTreeMap::new();
        found += self.reread_top(walk, book, scan, &positions, &mut shifts).await?;
        marks.retain(|page| !shifts.contains_key(page));
        for page in marks {
            if found >= scan.doubles {
                break;
            }
            let shift = self.shift_of(walk, page, book, &positions).await?;
            shifts.insert(page, shift);
            found += scan.take(book)?;
        }
        let wanted = Wanted { rows: scan.doubles.saturating_sub(found), steps };
        found += self.look_between(walk, wanted, shifts, book, scan, &positions).await?;
        book.settled &= found >= scan.doubles;
        Ok(())
    }

    /// Reads the top again, until a page shows nothing new, and its rows stand together as they did;
    /// returns how many rows were new. What goes to the top there joins others that were read before.
    async fn reread_top(
        &self,
        walk: &Walk,
        book: &mut Book,
        scan: &mut Scan,
        positions: &Positions,
        shifts: &mut BTreeMap<u32, Shift>,
    ) -> Result<u64> {
        let (mut found, mut page, mut idle) = (0, 1, 0);
        while book.page(page).is_some() {
            let shift = self.shift_of(walk, page, book, positions).await?;
            shifts.insert(page, shift);
            let new = scan.take(book)?;
            idle = if new == 0 { idle + 1 } else { 0 };
            if new == 0 && (shift.first == shift.last || idle == IDLE) {
                break;
            }
            found += new;
            page += 1;
        }
        Ok(found)
    }

    /// Bisects between pages whose rows have moved differently, until what is `wanted` is found. The
    /// pages on both sides of such a step show what is there now.
    async fn look_between(
        &self,
        walk: &Walk,
        wanted: Wanted,
        shifts: BTreeMap<u32, Shift>,
        book: &mut Book,
        scan: &mut Scan,
        positions: &Positions,
    ) -> Result<u64> {
        let known: Vec<(u32, Shift)> = shifts.into_iter().collect();
        let mut spans: Vec<_> = known.windows(2).map(|pair| (pair[0], pair[1])).collect();
        let (mut left, mut found) = (wanted.steps, 0);
        while let Some((low, high)) = spans.pop() {
            let is_step = low.1.last != high.1.first && high.0 - low.0 > 1;
            if !is_step || left == 0 || found >= wanted.rows {
                continue;
            }
            let middle = low.0 + (high.0 - low.0) / 2;
            if book.page(middle).is_none() {
                continue;
            }
            left -= 1;
            let shift = self.shift_of(walk, middle, book, positions).await?;
            found += scan.take(book)?;
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
        positions: &Positions,
    ) -> Result<Shift> {
        let offset = u64::from(page.saturating_sub(1)) * u64::from(book.size);
        match self.reread(walk, offset, book).await {
            Ok(_) => book.probes += 1,
            // The listing has become shorter.
            Err(error) if is_end(page, &error) => {
                book.probes += 1;
                return positions.shift(&[], first_place(book, page), book);
            }
            Err(error) => return Err(error),
        }
        positions.shift(&book.ids_on(page)?, first_place(book, page), book)
    }
}

/// Returns the pages to look at first: those that have rows in common, and the last.
fn marks(book: &Book) -> Result<Vec<u32>> {
    let page = |offset: &u64| u32::try_from(offset / u64::from(book.size) + 1).ok();
    let mut marks: Vec<u32> = book.doubled()?.iter().filter_map(page).take(MARKS).collect();
    marks.push(book.last_page_with_rows());
    marks.dedup();
    Ok(marks)
}
