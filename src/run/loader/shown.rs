//! The ids that the pages of a run showed, as hashes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::load::Room;
use crate::record::id_hash;
use crate::run::Result;
use crate::spill::Log;
use crate::spill::Shards;
use crate::spill::Spill;

/// Streams that list the same persons under the same ids, as Convertalk documents them.
pub(super) const SHARED: [&str; 2] = ["chats", "users"];

/// The native ids that pages showed, by stream.
#[derive(Debug)]
pub(super) struct ShownIds {
    scratch: PathBuf,
    room: Room,
    streams: BTreeMap<String, Spill<1>>,
}

impl ShownIds {
    /// Returns none yet; more than there is `room` for will lie in the folder `scratch`.
    pub(super) fn new(scratch: PathBuf, room: Room) -> Self {
        Self { scratch, room, streams: BTreeMap::new() }
    }

    /// Takes the ids that pages of a stream showed.
    pub(super) fn add(&mut self, stream: &str, ids: &Log) -> Result<()> {
        let new = || Spill::new(self.scratch.clone(), self.room.staged / 8);
        let spill = self.streams.entry(stream.to_owned()).or_insert_with(new);
        Ok(ids.each(|id| spill.push([id]))?)
    }

    /// Returns all of them, in parts that there is room for. Whoever looks for something among them goes
    /// through it as often as there are parts.
    pub(super) fn parts(&self) -> impl Iterator<Item = Result<PartOfIds>> {
        let count = self.streams.values().map(Spill::count).sum();
        let most = self.room.merged / size_of::<u64>();
        Shards::groups(count, most as u64).map(|shards| self.part(shards))
    }

    fn part(&self, shards: Shards) -> Result<PartOfIds> {
        let mut streams = BTreeMap::new();
        for (stream, spill) in &self.streams {
            let mut ids = spill.read(&shards)?;
            ids.sort_unstable();
            ids.dedup();
            streams.insert(stream.clone(), ids);
        }
        Ok(PartOfIds { shards, streams })
    }

    /// Returns how many ids there are in both of the streams that share them.
    pub(super) fn shared(&self) -> Result<u64> {
        if SHARED.iter().any(|stream| !self.streams.contains_key(*stream)) {
            return Ok(0);
        }
        self.parts().try_fold(0, |sum, part| Ok(sum + part?.shared()))
    }
}

/// Ids of some shards.
#[derive(Debug)]
pub(super) struct PartOfIds {
    shards: Shards,
    /// By stream, sorted, each once.
    streams: BTreeMap<String, Vec<[u64; 1]>>,
}

impl PartOfIds {
    /// Tells whether a lead was shown; `None` where it belongs to another part.
    pub(super) fn has(&self, lead_id: &str) -> Option<bool> {
        let (stream, native) = parts_of_id(lead_id);
        let id = id_hash(native);
        let has = || self.ids(stream).binary_search(&[id]).is_ok();
        self.shards.has(id).then(has)
    }

    fn shared(&self) -> u64 {
        let [chats, users] = SHARED.map(|stream| self.ids(stream));
        users.iter().filter(|id| chats.binary_search(id).is_ok()).count() as u64
    }

    fn ids(&self, stream: &str) -> &[[u64; 1]] {
        self.streams.get(stream).map_or(&[], Vec::as_slice)
    }
}

/// Returns stream and native id of a `lead_id`.
pub(super) fn parts_of_id(lead_id: &str) -> (&str, &str) {
    let mut parts = lead_id.splitn(3, ':').skip(1);
    (parts.next().unwrap_or_default(), parts.next().unwrap_or(lead_id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn each_lead_is_told_of_by_one_part_whatever_the_room(
            pages in prop::collection::vec(
                (0_usize..2, prop::collection::vec(0_u32..300, 0..40)),
                0..12,
            ),
            room in 1_usize..2_000,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let room = Room { staged: room, merged: room };
            let mut shown = ShownIds::new(folder.path().to_owned(), room);
            let mut truth: [BTreeSet<u32>; 2] = Default::default();
            for (stream, numbers) in &pages {
                let mut ids = Log::default();
                for number in numbers {
                    ids.push(id_hash(&number.to_string())).unwrap();
                }
                shown.add(SHARED[*stream], &ids).unwrap();
                truth[*stream].extend(numbers);
            }
            let parts: Vec<PartOfIds> = shown.parts().collect::<Result<_>>().unwrap();
            for number in 0..300 {
                for (stream, truth) in SHARED.iter().zip(&truth) {
                    let lead_id = format!("convertalk:{stream}:{number}");
                    let said: Vec<bool> =
                        parts.iter().filter_map(|part| part.has(&lead_id)).collect();
                    prop_assert_eq!(said, [truth.contains(&number)]);
                }
            }
            let both = truth[0].intersection(&truth[1]).count() as u64;
            prop_assert_eq!(shown.shared().unwrap(), both);
        }
    }
}
