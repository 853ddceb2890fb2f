//! What changes and rows tell of each key, to be compared.
//!
//! Keys and contents are hashes. Memory: some megabytes; what exceeds them lies in a file without a name in
//! the system's folder for such files (`TMPDIR`): 24 bytes for each row, and for each row and change that
//! it is compared with. Where that folder is in memory, so are they.

use std::collections::HashMap;

use crate::record::id_hash;
use crate::spill;
use crate::spill::Shards;
use crate::spill::Spill;

/// Bytes of something that is told.
const WIDTH: usize = size_of::<[u64; 3]>();

/// Bytes of what is told that are in memory; about three times as much when it is compared.
const MOST_BYTES: usize = WIDTH << 19;

/// What is told of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tells<'a> {
    /// The changes so far make such a row of it.
    Made(&'a str),
    /// The changes so far leave no row of it.
    Removed,
    /// There is a row, with that content.
    Row(&'a str),
    /// There is a row, which is marked as deleted.
    DeletedRow,
}

/// What was told so far, in order.
pub(super) struct Told {
    /// Key, content, and what it tells of which source.
    records: Spill<3>,
    /// So many of them are compared at once, about.
    most: u64,
    failed: Option<spill::Error>,
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Compared {
    /// Rows that the changes make otherwise, or do not make, and those they make that are not there.
    pub(super) differ: u64,
    /// Rows of keys that were there before, by the number of the source.
    pub(super) doubles: Vec<u64>,
}

impl Told {
    /// Returns nothing yet.
    pub(super) fn new() -> Self {
        Self::with_room(MOST_BYTES)
    }

    fn with_room(most_bytes: usize) -> Self {
        let records = Spill::new(std::env::temp_dir(), most_bytes);
        Self { records, most: (most_bytes / WIDTH) as u64, failed: None }
    }

    /// Notes what is told of a lead of the source with a number, here and nowhere else known as that.
    pub(super) fn note(&mut self, source: usize, lead_id: &str, tells: Tells<'_>) {
        let (kind, content) = match tells {
            Tells::Made(content) => (0, content),
            Tells::Removed => (1, ""),
            Tells::Row(content) => (2, content),
            Tells::DeletedRow => (3, ""),
        };
        let source = source as u64;
        // Sources may have leads of the same id.
        let key = id_hash(lead_id) ^ source.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        if self.failed.is_none() {
            self.failed = self.records.push([key, id_hash(content), source << 2 | kind]).err();
        }
    }

    /// Compares all that was told of so many sources.
    ///
    /// # Errors
    ///
    /// Where what had no room in memory could not be written or read.
    pub(super) fn compare(self, sources: usize) -> spill::Result<Compared> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let mut compared = Compared { differ: 0, doubles: vec![0; sources] };
        for shards in Shards::groups(self.records.count(), self.most) {
            compare(self.records.read(&shards)?, &mut compared);
        }
        Ok(compared)
    }
}

/// Compares what was told of some keys.
fn compare(records: Vec<[u64; 3]>, compared: &mut Compared) {
    let mut made: HashMap<u64, u64> = HashMap::new();
    let mut rows: Vec<(u64, u64)> = Vec::new();
    for [key, content, of] in records {
        let (source, kind) = (of >> 2, of & 3);
        match kind {
            0 => drop(made.insert(key, content)),
            1 => drop(made.remove(&key)),
            2 => compared.differ += u64::from(made.remove(&key) != Some(content)),
            _ => {}
        }
        if kind >= 2 {
            rows.push((key, source));
        }
    }
    compared.differ += made.len() as u64;
    rows.sort_unstable();
    for pair in rows.windows(2).filter(|pair| pair[0] == pair[1]) {
        let source = usize::try_from(pair[0].1).unwrap_or(usize::MAX);
        if let Some(doubles) = compared.doubles.get_mut(source) {
            *doubles += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const CONTENTS: [&str; 3] = ["a", "b", "c"];

    proptest! {
        #[test]
        fn what_differs_and_what_is_double_is_told_whatever_the_room(
            changes in prop::collection::vec((0_usize..2, 0_u32..40, 0_usize..4), 0..200),
            rows in prop::collection::vec((0_usize..2, 0_u32..40, 0_usize..4), 0..60),
            room in 1_usize..4_000,
        ) {
            let mut told = Told::with_room(room);
            let (mut made, mut seen) = (BTreeMap::new(), BTreeMap::new());
            for (source, lead, content) in changes {
                let tells = match CONTENTS.get(content) {
                    Some(content) => Tells::Made(content),
                    None => Tells::Removed,
                };
                told.note(source, &lead.to_string(), tells);
                match tells {
                    Tells::Made(content) => drop(made.insert((source, lead), content)),
                    _ => drop(made.remove(&(source, lead))),
                }
            }
            let mut truth = Compared { differ: 0, doubles: vec![0; 2] };
            for (source, lead, content) in rows {
                let tells = match CONTENTS.get(content) {
                    Some(content) => Tells::Row(content),
                    None => Tells::DeletedRow,
                };
                told.note(source, &lead.to_string(), tells);
                if let Tells::Row(content) = tells {
                    truth.differ += u64::from(made.remove(&(source, lead)) != Some(content));
                }
                truth.doubles[source] += u64::from(seen.insert((source, lead), ()).is_some());
            }
            truth.differ += made.len() as u64;
            prop_assert_eq!(told.compare(2).unwrap(), truth);
        }
    }
}
