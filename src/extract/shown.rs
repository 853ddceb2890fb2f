//! The ids that the pages of a walk showed: all of them in their order, and of a listing without a total
//! where each was first shown.
//!
//! Memory: what there is room for; the rest lies on the scratch disk, 8 bytes a row, and 25 to 50 more of a
//! listing without a total, which are written several times over.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::OnceLock;

use crate::spill::Log;
use crate::spill::Result;
use crate::spill::Table;

/// How many ids of a walk are in memory, and where the others lie.
#[derive(Debug, Clone)]
pub struct IdRoom {
    scratch: PathBuf,
    most: usize,
}

/// What an id takes in memory, about: in their order, and where it was first shown.
const BYTES_OF_ID: usize = 30;

impl IdRoom {
    /// Returns room for ids of so many bytes; the folder `scratch` must be there once there are more.
    pub fn new(scratch: PathBuf, bytes: usize) -> Self {
        Self { scratch, most: (bytes / BYTES_OF_ID).max(1) }
    }

    /// Returns room for hardly any.
    #[cfg(test)]
    pub(super) fn tiny() -> Self {
        Self { scratch: std::env::temp_dir(), most: 7 }
    }
}

/// Hashes of the ids that were shown.
#[derive(Debug)]
pub(super) struct Shown {
    ids: Log,
    /// The place of each among the distinct ones, in the order in which they were first shown, from 0.
    places: Table,
    /// How many of `ids` have been given a place.
    placed: usize,
    /// How many are compared at once.
    at_once: usize,
    /// How many distinct ones there are, where they were counted since the last came.
    counted: OnceLock<u64>,
}

/// Ids that stand one behind the other among those shown, and a number that tells where they come from.
pub(super) type Stretch = (Range<usize>, u64);

impl Shown {
    pub(super) fn new(room: IdRoom) -> Self {
        let IdRoom { scratch, most } = room;
        let (ids, places) = (Log::new(scratch.clone(), most), Table::new(scratch, most));
        Self { ids, places, placed: 0, at_once: 2 * most, counted: OnceLock::new() }
    }

    /// Takes the ids of a page. Returns where they stand.
    pub(super) fn push(&mut self, ids: impl IntoIterator<Item = u64>) -> Result<Range<usize>> {
        self.counted = OnceLock::new();
        let start = self.ids.len();
        ids.into_iter().try_for_each(|id| self.ids.push(id))?;
        Ok(start..self.ids.len())
    }

    /// Gives those that stand in a stretch places, unless they have them; returns the places.
    pub(super) fn place(&mut self, stretch: Range<usize>) -> Result<Vec<u64>> {
        self.placed += stretch.len();
        let ids = self.ids.read(stretch)?;
        ids.into_iter().map(|id| self.places.insert(id, self.places.len())).collect()
    }

    /// Returns how many distinct ids have places.
    pub(super) fn places(&self) -> u64 {
        self.places.len()
    }

    /// Returns the place of an id, where it has one.
    pub(super) fn place_of(&self, id: u64) -> Result<Option<u64>> {
        self.places.get(id)
    }

    /// Returns how many ids were shown, those that came again counted each time.
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Returns the ids of a stretch.
    pub(super) fn ids(&self, stretch: Range<usize>) -> Result<Vec<u64>> {
        self.ids.read(stretch)
    }

    /// Returns how many distinct ids were shown.
    pub(super) fn distinct(&self) -> Result<u64> {
        if self.placed == self.ids.len() {
            return Ok(self.places.len());
        }
        if let Some(distinct) = self.counted.get() {
            return Ok(*distinct);
        }
        let distinct = self.distinct_in(&[(0..self.ids.len(), 0)])?;
        Ok(*self.counted.get_or_init(|| distinct))
    }

    /// Returns how many distinct ids stand in some stretches.
    pub(super) fn distinct_in(&self, stretches: &[Stretch]) -> Result<u64> {
        let mut distinct = 0;
        self.compare(stretches, |sorted| {
            distinct += sorted.chunk_by(|a, b| a.0 == b.0).count() as u64;
        })?;
        Ok(distinct)
    }

    /// Hands the ids of some stretches to a function, each with its stretch's number: sorted, those of one id
    /// together, and as many ids at a time as there is room for.
    pub(super) fn compare(
        &self,
        stretches: &[Stretch],
        mut take: impl FnMut(&[(u64, u64)]),
    ) -> Result<()> {
        let count: usize = stretches.iter().map(|(stretch, _)| stretch.len()).sum();
        let groups = count.div_ceil(self.at_once).max(1) as u64;
        let mut ids = Vec::with_capacity(count.min(self.at_once));
        for group in 0..groups {
            ids.clear();
            for (stretch, number) in stretches {
                for start in stretch.clone().step_by(self.at_once) {
                    let end = stretch.end.min(start + self.at_once);
                    let of_group = |id: &u64| id % groups == group;
                    let read = self.ids.read(start..end)?.into_iter().filter(of_group);
                    ids.extend(read.map(|id| (id, *number)));
                }
            }
            ids.sort_unstable();
            take(&ids);
        }
        Ok(())
    }

    /// Returns all of them in their order.
    pub(super) fn into_ids(self) -> Log {
        self.ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn whatever_the_room_ids_are_placed_and_compared_as_if_all_were_in_memory(
            pages in prop::collection::vec(prop::collection::vec(0_u64..120, 0..40), 1..20),
            most in 1_usize..60,
            unplaced in 0_usize..20,
        ) {
            let scratch = std::env::temp_dir();
            let mut shown = Shown::new(IdRoom { scratch, most });
            let (mut stretches, mut firsts, mut pages_of) =
                (Vec::new(), Vec::new(), BTreeMap::<u64, Vec<u64>>::new());
            for (page, number) in pages.iter().zip(0_u64..) {
                let stretch = shown.push(page.iter().copied()).unwrap();
                prop_assert_eq!(&shown.ids(stretch.clone()).unwrap(), page);
                if number != unplaced as u64 {
                    for id in page {
                        if !firsts.contains(id) {
                            firsts.push(*id);
                        }
                    }
                    let place = |id: &u64| firsts.iter().position(|first| first == id).unwrap() as u64;
                    let places: Vec<u64> = page.iter().map(place).collect();
                    prop_assert_eq!(shown.place(stretch.clone()).unwrap(), places);
                }
                page.iter().for_each(|id| pages_of.entry(*id).or_default().push(number));
                stretches.push((stretch, number));
            }
            prop_assert_eq!(shown.places(), firsts.len() as u64);
            prop_assert_eq!(shown.distinct().unwrap(), pages_of.len() as u64);
            let behind = &stretches[1..];
            let distinct: BTreeSet<&u64> = pages[1..].iter().flatten().collect();
            prop_assert_eq!(shown.distinct_in(behind).unwrap(), distinct.len() as u64);
            let mut compared = BTreeMap::<u64, Vec<u64>>::new();
            shown
                .compare(&stretches, |sorted| {
                    for of_id in sorted.chunk_by(|a, b| a.0 == b.0) {
                        let pages = of_id.iter().map(|(_, number)| *number).collect();
                        assert!(compared.insert(of_id[0].0, pages).is_none());
                    }
                })
                .unwrap();
            prop_assert_eq!(compared, pages_of);
        }
    }
}
