//! Numbers that were seen, each with another that stands for it.

use std::collections::HashMap;
use std::path::PathBuf;

use super::Records;
use super::Result;

/// Keys, each with a value that stays what it was first.
///
/// What has no room in memory lies in buckets by the first bits of the key's hash, of which there are twice
/// as many whenever they are two thirds full: 25 to 50 bytes a key on the scratch disk. To look for a key
/// that is not in memory reads one bucket.
#[derive(Debug)]
pub struct Table {
    scratch: PathBuf,
    /// Keys in memory, at most.
    most: usize,
    latest: HashMap<u64, u64>,
    buckets: Option<Buckets>,
    /// How many keys lie in the buckets.
    written: u64,
}

impl Table {
    /// Returns an empty one; what exceeds `most` keys will lie in the folder `scratch`, which must be there by
    /// then.
    pub fn new(scratch: PathBuf, most: usize) -> Self {
        Self { scratch, most: most.max(1), latest: HashMap::new(), buckets: None, written: 0 }
    }

    /// Returns how many keys there are.
    pub fn len(&self) -> u64 {
        self.written + self.latest.len() as u64
    }

    /// Tells whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the value of a key.
    ///
    /// # Errors
    ///
    /// Where the scratch disk fails.
    pub fn get(&self, key: u64) -> Result<Option<u64>> {
        match (self.latest.get(&key), &self.buckets) {
            (Some(value), _) => Ok(Some(*value)),
            (None, Some(buckets)) => buckets.get(key),
            (None, None) => Ok(None),
        }
    }

    /// Gives a key a value, unless it has one; returns the one it has now.
    ///
    /// # Errors
    ///
    /// Where the scratch disk fails; what it says from then on is not to be trusted.
    pub fn insert(&mut self, key: u64, value: u64) -> Result<u64> {
        if let Some(value) = self.get(key)? {
            return Ok(value);
        }
        if self.latest.len() == self.most {
            self.write()?;
        }
        self.latest.insert(key, value);
        Ok(value)
    }

    /// Moves what is in memory to the buckets.
    fn write(&mut self) -> Result<()> {
        let mut entries: Vec<[u64; 2]> =
            self.latest.iter().map(|(key, value)| [*key, *value]).collect();
        entries.sort_unstable_by_key(|[key, _]| spread(*key));
        let mut buckets = match self.buckets.take() {
            Some(buckets) => buckets,
            None => Buckets::create(&self.scratch, 0)?,
        };
        while buckets.room() < self.len() {
            buckets = buckets.doubled()?;
        }
        let mut taken = 0;
        loop {
            taken += buckets.take(&entries[taken..])?;
            if taken == entries.len() {
                break;
            }
            // One of them is full by chance.
            buckets = buckets.doubled()?;
        }
        self.buckets = Some(buckets);
        self.written = self.len();
        self.latest.clear();
        Ok(())
    }
}

/// Spreads keys over all 64 bits, no two on one (the finalizer of SplitMix64).
fn spread(key: u64) -> u64 {
    let mixed = (key ^ (key >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Entries of a bucket: 4 KiB of them.
const ENTRIES: usize = 256;

/// What stands in the place of an entry that is none: values are stored as one more.
const NONE: [u64; 2] = [0, 0];

/// Buckets of entries, as many as a number of so many bits tells apart; in each, those there are stand first.
#[derive(Debug)]
struct Buckets {
    records: Records<2>,
    bits: u32,
}

impl Buckets {
    fn create(folder: &std::path::Path, bits: u32) -> Result<Self> {
        let buckets = Self { records: Records::create(folder)?, bits };
        for bucket in 0..buckets.count() {
            buckets.write(bucket, &[])?;
        }
        Ok(buckets)
    }

    fn count(&self) -> u64 {
        1 << self.bits
    }

    /// Returns how many keys there may be before there should be more buckets.
    fn room(&self) -> u64 {
        self.count() * (ENTRIES as u64 * 2 / 3)
    }

    fn bucket_of(&self, key: u64) -> u64 {
        spread(key).checked_shr(u64::BITS - self.bits).unwrap_or(0)
    }

    fn read(&self, bucket: u64) -> Result<Vec<[u64; 2]>> {
        let mut entries = Vec::with_capacity(ENTRIES);
        let at = bucket * ENTRIES as u64;
        self.records.read(at..at + ENTRIES as u64, &mut entries)?;
        entries.truncate(entries.partition_point(|entry| *entry != NONE));
        Ok(entries)
    }

    fn write(&self, bucket: u64, entries: &[[u64; 2]]) -> Result<()> {
        let mut filled = [NONE; ENTRIES];
        filled[..entries.len()].copy_from_slice(entries);
        self.records.write(bucket * ENTRIES as u64, &filled)
    }

    fn get(&self, key: u64) -> Result<Option<u64>> {
        let mut bytes = [0; ENTRIES * size_of::<[u64; 2]>()];
        self.records.read_bytes(self.bucket_of(key) * ENTRIES as u64, &mut bytes)?;
        let (numbers, _) = bytes.as_chunks();
        let entries = numbers.as_chunks().0.iter().take_while(|[_, value]| *value != [0; 8]);
        let key = key.to_le_bytes();
        let found = entries.copied().find(|entry: &[[u8; 8]; 2]| entry[0] == key);
        Ok(found.map(|[_, value]| u64::from_le_bytes(value) - 1))
    }

    /// Takes new entries, sorted by bucket; returns how many it took until a bucket was full.
    fn take(&self, entries: &[[u64; 2]]) -> Result<usize> {
        let mut taken = 0;
        for of_bucket in entries.chunk_by(|a, b| self.bucket_of(a[0]) == self.bucket_of(b[0])) {
            let bucket = self.bucket_of(of_bucket[0][0]);
            let mut held = self.read(bucket)?;
            held.extend(of_bucket.iter().map(|[key, value]| [*key, value + 1]));
            if held.len() > ENTRIES {
                break;
            }
            self.write(bucket, &held)?;
            taken += of_bucket.len();
        }
        Ok(taken)
    }

    /// Returns twice as many with the same entries.
    fn doubled(&self) -> Result<Self> {
        let doubled = Self { records: Records::create(&self.records.folder)?, bits: self.bits + 1 };
        for bucket in 0..self.count() {
            let (low, high): (Vec<_>, Vec<_>) = self
                .read(bucket)?
                .into_iter()
                .partition(|entry| doubled.bucket_of(entry[0]) == 2 * bucket);
            doubled.write(2 * bucket, &low)?;
            doubled.write(2 * bucket + 1, &high)?;
        }
        Ok(doubled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_says_what_a_map_says(
            keys in prop::collection::vec(prop_oneof![0_u64..40, any::<u64>()], 0..1_500),
            most in 1_usize..200,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let mut table = Table::new(folder.path().to_owned(), most);
            let mut truth = HashMap::new();
            for (key, value) in keys.iter().zip(0..) {
                prop_assert_eq!(table.get(*key).unwrap(), truth.get(key).copied());
                let held = *truth.entry(*key).or_insert(value);
                prop_assert_eq!(table.insert(*key, value).unwrap(), held);
                prop_assert!(table.latest.len() <= most);
            }
            prop_assert_eq!(table.len(), truth.len() as u64);
            for key in keys.iter().copied().chain(0..50) {
                prop_assert_eq!(table.get(key).unwrap(), truth.get(&key).copied());
            }
        }
    }

    #[test]
    fn neighbours_and_multiples_fill_the_buckets_evenly() {
        let folder = tempfile::tempdir().unwrap();
        for step in [1, 256, 1 << 48] {
            let mut table = Table::new(folder.path().to_owned(), 1_000);
            for key in 0..20_000_u64 {
                table.insert(key.wrapping_mul(step), key).unwrap();
            }
            let buckets = table.buckets.as_ref().unwrap();
            assert_eq!(buckets.bits, 7, "two thirds of them, at most: {step}");
            assert_eq!(table.get(19_999_u64.wrapping_mul(step)).unwrap(), Some(19_999));
            assert_eq!(table.get(20_000_u64.wrapping_mul(step)).unwrap(), None);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_bucket_that_is_full_by_chance_makes_more_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let mut table = Table::new(folder.path().to_owned(), 100);
        // Of one bucket in four all.
        let keys: Vec<u64> = (0..).filter(|key| spread(*key) >> 62 == 0).take(600).collect();
        for (key, value) in keys.iter().zip(0..) {
            table.insert(*key, value).unwrap();
        }
        for (key, value) in keys.iter().zip(0..) {
            assert_eq!(table.get(*key).unwrap(), Some(value));
        }
    }

    #[test]
    fn a_scratch_disk_that_fails_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let mut table = Table::new(folder.path().join("gone"), 1);
        table.insert(1, 0).unwrap();
        let failed = table.insert(2, 1).unwrap_err();
        assert!(failed.to_string().starts_with("failed to create scratch file"), "{failed}");
        assert_eq!(table.get(1).unwrap(), Some(0));
    }
}
