//! Records of a few numbers, divided into shards by how their first number begins, which should be a hash.
//! Whoever compares them does so for some shards at a time, as many as memory has room for.

use std::ops::Range;
use std::path::PathBuf;

use super::Records;
use super::Result;

/// Shards: what begins with the same eight bits.
const SHARDS: usize = 256;

fn shard_of(first: u64) -> usize {
    (first >> 56) as usize
}

/// Some shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shards(Range<usize>);

impl Shards {
    /// Returns all shards in groups, each of which has about `most` of `records` or, where that is more, one
    /// shard.
    pub fn groups(records: u64, most: u64) -> impl Iterator<Item = Self> {
        let groups = records.div_ceil(most.max(1)).max(1).next_power_of_two();
        let width = SHARDS / usize::try_from(groups).unwrap_or(SHARDS).min(SHARDS);
        (0..SHARDS).step_by(width).map(move |start| Self(start..start + width))
    }

    /// Tells whether records that begin with this number belong to them.
    pub fn has(&self, first: u64) -> bool {
        self.0.contains(&shard_of(first))
    }
}

/// Records of `N` numbers, in the order in which they came.
#[derive(Debug)]
pub struct Spill<const N: usize> {
    scratch: PathBuf,
    /// Records in memory, at most.
    most: usize,
    latest: Vec<[u64; N]>,
    file: Option<Records<N>>,
    /// Where each shard begins in what was written at once, in records from the beginning of the file, and
    /// where the last one ends.
    blocks: Vec<Vec<u64>>,
}

impl<const N: usize> Spill<N> {
    /// Returns none yet; what exceeds `most_bytes` will lie in the folder `scratch`, which must be there by
    /// then.
    pub fn new(scratch: PathBuf, most_bytes: usize) -> Self {
        let most = (most_bytes / size_of::<[u64; N]>()).max(1);
        Self { scratch, most, latest: Vec::new(), file: None, blocks: Vec::new() }
    }

    /// Takes a record.
    ///
    /// # Errors
    ///
    /// Where the scratch disk fails.
    pub fn push(&mut self, record: [u64; N]) -> Result<()> {
        if self.latest.len() == self.most {
            self.write()?;
        }
        self.latest.push(record);
        Ok(())
    }

    /// Returns the records of some shards; those of one in the order in which they came.
    ///
    /// # Errors
    ///
    /// Where the scratch disk fails.
    pub fn read(&self, shards: &Shards) -> Result<Vec<[u64; N]>> {
        let mut records = Vec::with_capacity(self.count_of(shards));
        if let Some(file) = &self.file {
            for block in &self.blocks {
                file.read(block[shards.0.start]..block[shards.0.end], &mut records)?;
            }
        }
        let latest = self.latest.iter().filter(|record| shards.has(record[0]));
        records.extend(latest);
        Ok(records)
    }

    fn count_of(&self, shards: &Shards) -> usize {
        let written = |block: &Vec<u64>| block[shards.0.end] - block[shards.0.start];
        let written: u64 = self.blocks.iter().map(written).sum();
        let latest = self.latest.iter().filter(|record| shards.has(record[0])).count();
        usize::try_from(written).unwrap_or(0) + latest
    }

    /// Returns how many there are.
    pub fn count(&self) -> u64 {
        let written = self.blocks.last().and_then(|block| block.last()).copied().unwrap_or(0);
        written + self.latest.len() as u64
    }

    /// Writes what is in memory, by shard.
    fn write(&mut self) -> Result<()> {
        self.latest.sort_by_key(|record| shard_of(record[0]));
        let written = self.count() - self.latest.len() as u64;
        let before = |shard| self.latest.partition_point(|record| shard_of(record[0]) < shard);
        let block = (0..=SHARDS).map(|shard| written + before(shard) as u64).collect();
        let file = match self.file.take() {
            Some(file) => file,
            None => Records::create(&self.scratch)?,
        };
        self.file.insert(file).write(written, &self.latest)?;
        self.blocks.push(block);
        self.latest.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A number all over the range.
    fn spread(number: u64) -> u64 {
        number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    proptest! {
        #[test]
        fn each_record_is_in_one_group_and_keeps_its_place_there(
            numbers in prop::collection::vec(0_u64..300, 0..600),
            most in 1_usize..400,
            at_once in 0_u64..400,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let mut spill = Spill::<2>::new(folder.path().to_owned(), most * 16);
            let records: Vec<[u64; 2]> =
                numbers.iter().zip(0..).map(|(number, at)| [spread(*number), at]).collect();
            for record in &records {
                spill.push(*record).unwrap();
                prop_assert!(spill.latest.len() <= most);
            }
            let mut of_groups = 0;
            for shards in Shards::groups(spill.count(), at_once) {
                let mut read = spill.read(&shards).unwrap();
                of_groups += read.len();
                let has = |record: &&[u64; 2]| shards.has(record[0]);
                let mut truth: Vec<[u64; 2]> = records.iter().filter(has).copied().collect();
                // Stable: those of one shard stay in order.
                read.sort_by_key(|record| record[0]);
                truth.sort_by_key(|record| record[0]);
                prop_assert_eq!(read, truth);
            }
            prop_assert_eq!(of_groups, records.len());
        }
    }

    #[test]
    fn what_memory_has_no_room_for_lies_on_the_scratch_disk() {
        let folder = tempfile::tempdir().unwrap();
        let mut spill = Spill::<1>::new(folder.path().to_owned(), 8 << 10);
        (0..100_000).for_each(|number| spill.push([spread(number)]).unwrap());
        assert!(spill.latest.capacity() <= 1 << 10);
        let groups: Vec<Shards> = Shards::groups(spill.count(), 1_000).collect();
        assert_eq!(groups.len(), 128);
        let largest = groups.iter().map(|shards| spill.read(shards).unwrap().len()).max();
        assert!(largest < Some(1 << 10), "{largest:?}");
        drop(spill);
        // It has no name that could be left behind.
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_scratch_disk_that_fails_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let mut spill = Spill::<1>::new(folder.path().join("gone"), 8);
        spill.push([1]).unwrap();
        let failed = spill.push([2]).unwrap_err();
        assert!(failed.to_string().starts_with("failed to create scratch file"), "{failed}");
    }
}
