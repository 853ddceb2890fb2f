//! The columns that rows are compared by, read without the rest of a part, and yet never trusted unseen.
//!
//! While a part is written, the bytes of these columns are hashed by row group, and so is the file's end,
//! which says where they lie. The commit carries the hashes. A reader that has them reads these pieces alone,
//! and decodes from the very bytes that it has compared; row groups that cannot hold what is looked for are
//! not read at all.
//!
//! Memory: of a part being written a row group as it is compressed, of one being read these columns of one.

use std::collections::VecDeque;
use std::io;
use std::io::Write;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Buf;
use bytes::Bytes;
use bytes::buf::Reader;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaDataReader;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::ChunkReader;
use parquet::file::reader::Length;

use super::Error;
use super::Result;
use super::column;
use super::cursor::SortedBatches;
use super::part::MISSING;
use super::rows;
use crate::schema::KeyHashes;
use crate::schema::PartFile;
use crate::store;
use crate::store::NewFile;
use crate::store::OpenFile;
use crate::store::Store;

/// The length of the end's own length and the magic number behind it, in bytes.
const TAIL: u64 = 8;

/// Returns where the hashed columns of a row group lie: start and length in bytes, in the order of the file.
pub(super) fn ranges(group: &RowGroupMetaData) -> Vec<(u64, u64)> {
    let hashed = group.columns().iter().filter(|chunk| {
        let name = chunk.column_descr().name();
        column::HASHED.contains(&name)
    });
    let mut ranges: Vec<(u64, u64)> = hashed.map(|chunk| chunk.byte_range()).collect();
    ranges.sort_unstable();
    ranges
}

/// A file being written that remembers its last bytes, for whoever wants to hash some of them.
pub(super) struct Remembering {
    file: NewFile,
    /// What was written from `start` on; nothing where it is not asked to remember.
    recent: Option<Vec<u8>>,
    start: u64,
}

impl Remembering {
    pub(super) fn new(file: NewFile, remembers: bool) -> Self {
        Self { file, recent: remembers.then(Vec::new), start: 0 }
    }

    fn piece(&self, start: u64, length: u64) -> Option<&[u8]> {
        let from = usize::try_from(start.checked_sub(self.start)?).ok()?;
        self.recent.as_ref()?.get(from..from.checked_add(usize::try_from(length).ok()?)?)
    }

    /// Returns the hash of the bytes at `ranges`; `None` where they are not remembered.
    pub(super) fn hash(&self, ranges: &[(u64, u64)]) -> Option<String> {
        let mut hasher = blake3::Hasher::new();
        for (start, length) in ranges {
            hasher.update(self.piece(*start, *length)?);
        }
        Some(hasher.finalize().to_hex().to_string())
    }

    /// Begins to remember anew; returns what it has remembered, and where that begins in the file.
    pub(super) fn forget(&mut self) -> (u64, Vec<u8>) {
        let recent = self.recent.as_mut().map(std::mem::take).unwrap_or_default();
        let start = self.start;
        self.start += recent.len() as u64;
        (start, recent)
    }

    /// Returns the file, and the hashes of the whole of it; `None` where it does not remember.
    pub(super) fn end(self, groups: Vec<String>) -> (NewFile, Option<KeyHashes>) {
        let hashes =
            self.footer().map(|(footer_bytes, footer)| KeyHashes { footer_bytes, footer, groups });
        (self.file, hashes)
    }

    fn footer(&self) -> Option<(u64, String)> {
        let recent = self.recent.as_ref()?;
        let end = self.start + recent.len() as u64;
        let length = footer_bytes(recent)?;
        Some((length, self.hash(&[(end.checked_sub(length)?, length)])?))
    }
}

/// Returns how long the end of a file is, `bytes` being the last of it.
fn footer_bytes(bytes: &[u8]) -> Option<u64> {
    let tail = bytes.get(bytes.len().checked_sub(8)?..)?;
    let length = tail.first_chunk::<4>().map(|length| u32::from_le_bytes(*length))?;
    Some(u64::from(length) + TAIL)
}

impl Write for Remembering {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        if let Some(recent) = &mut self.recent {
            recent.extend_from_slice(&bytes[..written]);
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The hashed columns of a part.
pub(super) struct Pieces {
    file: OpenFile,
    path: String,
    store: Store,
    schema: SchemaRef,
    metadata: ArrowReaderMetadata,
    mask: ProjectionMask,
    /// Row groups to be read, with the hash of each.
    groups: VecDeque<(usize, String)>,
    reader: Option<ParquetRecordBatchReader>,
}

impl Pieces {
    /// Opens a part for the columns of `schema`, all of which are hashed; `None` where the commit carries
    /// no hashes of it. Fails where its end is not as it was written.
    pub(super) fn open(store: &Store, part: &PartFile, schema: &SchemaRef) -> Result<Option<Self>> {
        let Some(hashes) = &part.key_hashes else { return Ok(None) };
        let path = part.file.path.clone();
        let damaged = |what| Error::Damaged { path: part.file.path.clone(), what };
        let file = match store.open_file(&path) {
            Err(error) if error.is_not_found() => return Err(damaged(MISSING)),
            opened => opened?,
        };
        let fail = |source| store::Error { action: "read", path: store.path(&path), source };
        let length = file.size().map_err(fail)?;
        let start = length.checked_sub(hashes.footer_bytes).filter(|_| length == part.file.bytes);
        let start = start.ok_or_else(|| damaged("its length is another"))?;
        let footer = file.read_at(start, hashes.footer_bytes).map_err(fail)?;
        if *blake3::hash(&footer).to_hex() != *hashes.footer {
            return Err(damaged(ANOTHER_HASH));
        }
        let unreadable = |error| Error::parquet("read", &path, error);
        let metadata = &footer[..footer.len().saturating_sub(8)];
        let metadata = ParquetMetaDataReader::decode_metadata(metadata).map_err(unreadable)?;
        if metadata.num_row_groups() != hashes.groups.len() {
            return Err(damaged(ANOTHER_HASH));
        }
        let metadata = ArrowReaderMetadata::try_new(Arc::new(metadata), Default::default());
        let metadata = metadata.map_err(unreadable)?;
        let names = schema.fields().iter().map(|field| field.name().as_str());
        let mask = ProjectionMask::columns(metadata.parquet_schema(), names);
        let groups = hashes.groups.iter().cloned().enumerate().collect();
        let (store, schema) = (store.clone(), schema.clone());
        Ok(Some(Self { file, path, store, schema, metadata, mask, groups, reader: None }))
    }

    /// Leaves out row groups that are not wanted, as their statistics tell.
    pub(super) fn retain(&mut self, is_wanted: impl Fn(&RowGroupMetaData) -> bool) {
        let metadata = self.metadata.metadata();
        self.groups.retain(|(group, _)| is_wanted(metadata.row_group(*group)));
    }

    /// Reads the hashed columns of a row group, and compares.
    fn open_group(&mut self, group: usize, hash: &str) -> Result<ParquetRecordBatchReader> {
        let path = self.store.path(&self.path);
        let fail = |source| store::Error { action: "read", path: path.clone(), source };
        let (mut hasher, mut pieces) = (blake3::Hasher::new(), Vec::new());
        for (start, length) in ranges(self.metadata.metadata().row_group(group)) {
            let piece = self.file.read_at(start, length).map_err(fail)?;
            hasher.update(&piece);
            pieces.push((start, piece));
        }
        if *hasher.finalize().to_hex() != *hash {
            let path = self.path.clone();
            return Err(Error::Damaged { path, what: ANOTHER_HASH });
        }
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(
            InMemory(pieces),
            self.metadata.clone(),
        );
        let reader = reader
            .with_row_groups(vec![group])
            .with_projection(self.mask.clone())
            .with_batch_size(4 * rows::BATCH_ROWS)
            .build();
        reader.map_err(|error| Error::parquet("read", &self.path, error))
    }

    fn read_from(&mut self, from: &str) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.reader.as_mut().and_then(Iterator::next) {
                let batch = batch.map_err(|error| Error::parquet("read", &self.path, error))?;
                return rows::conform(&batch, &self.schema).map(Some);
            }
            self.reader = None;
            let Some((group, hash)) = self.groups.pop_front() else { return Ok(None) };
            if !ends_before(self.metadata.metadata().row_group(group), from) {
                self.reader = Some(self.open_group(group, &hash)?);
            }
        }
    }
}

impl SortedBatches for Pieces {
    fn next_from(&mut self, from: &str) -> Option<Result<RecordBatch>> {
        self.read_from(from).transpose()
    }
}

impl Iterator for Pieces {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_from("")
    }
}

/// What differs where bytes are others.
pub(super) const ANOTHER_HASH: &str = "its hash is another";

/// Tells whether all keys of a row group are known to be smaller than `key`.
fn ends_before(group: &RowGroupMetaData, key: &str) -> bool {
    let keys = group.columns().iter().find(|chunk| chunk.column_descr().name() == column::LEAD_ID);
    let greatest = keys.and_then(|chunk| chunk.statistics()?.max_bytes_opt());
    greatest.is_some_and(|greatest| greatest < key.as_bytes())
}

/// Pieces of a file, by where they begin. What is not there cannot be read.
struct InMemory(Vec<(u64, Bytes)>);

impl InMemory {
    fn from(&self, start: u64) -> std::result::Result<Bytes, ParquetError> {
        let found = self.0.iter().find_map(|(from, bytes)| {
            let at = usize::try_from(start.checked_sub(*from)?).ok()?;
            (at < bytes.len()).then(|| bytes.slice(at..))
        });
        found.ok_or_else(|| ParquetError::EOF(format!("no piece holds byte {start}")))
    }
}

impl Length for InMemory {
    fn len(&self) -> u64 {
        self.0.last().map_or(0, |(start, bytes)| start + bytes.len() as u64)
    }
}

impl ChunkReader for InMemory {
    type T = Reader<Bytes>;

    fn get_read(&self, start: u64) -> std::result::Result<Self::T, ParquetError> {
        Ok(self.from(start)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> std::result::Result<Bytes, ParquetError> {
        let bytes = self.from(start)?;
        match bytes.len() >= length {
            true => Ok(bytes.slice(..length)),
            false => Err(ParquetError::EOF(format!("no piece holds {length} bytes at {start}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::lead_keys;
    use super::super::testing::Lake;
    use super::super::testing::TestLead;
    use super::*;
    use crate::config::Partitioning;
    use crate::window::Window;

    fn lead(id: u32, year: i32) -> TestLead {
        TestLead::new(id, year, "Ann", 1)
    }

    /// A lake whose one part has three row groups, of two leads each, of three years.
    fn lake() -> (Lake, Vec<TestLead>) {
        let mut lake = Lake::new();
        (lake.partition_by, lake.limits.part_rows) = (Partitioning::None, 100);
        let leads: Vec<TestLead> = (0..6).map(|id| lead(id, 2023 + id as i32 / 2)).collect();
        lake.publish(&leads);
        assert_eq!(lake.parts.len(), 1);
        (lake, leads)
    }

    fn groups(whole: &Bytes) -> Vec<Vec<(u64, u64)>> {
        let metadata = ParquetMetaDataReader::new().parse_and_finish(whole).unwrap();
        metadata.row_groups().iter().map(ranges).collect::<Vec<_>>()
    }

    fn flip(lake: &Lake, whole: &[u8], at: usize) {
        let mut flipped = whole.to_vec();
        flipped[at] ^= 1 << (at % 8);
        lake.store.write(&lake.parts[0].file.path, &flipped).unwrap();
    }

    #[test]
    fn what_rows_are_compared_by_is_never_trusted_unseen_and_nothing_else_is_read() {
        let (mut lake, leads) = lake();
        let whole = lake.store.read(&lake.parts[0].file.path).unwrap();
        let footer = whole.len() as u64 - footer_bytes(&whole).unwrap();
        let groups = groups(&whole).concat();
        assert_eq!(groups.len(), 3 * column::HASHED.len());
        let is_hashed = |at: u64| {
            at >= footer
                || groups.iter().any(|(start, length)| (*start..start + length).contains(&at))
        };
        let mut seen = [0, 0];
        for at in (0..whole.len()).step_by(11) {
            flip(&lake, &whole, at);
            let same = [leads.clone()];
            let published = lake.publish_batches(&same, &Default::default());
            let is_refused = matches!(published, Err(Error::Damaged { .. }));
            assert_eq!(is_refused, is_hashed(at as u64), "{at}: {published:?}");
            seen[usize::from(is_refused)] += 1;
        }
        assert!(seen.iter().all(|times| *times > 20), "{seen:?}");
    }

    #[test]
    fn of_a_part_without_hashes_all_is_read() {
        let (mut lake, leads) = lake();
        let whole = lake.store.read(&lake.parts[0].file.path).unwrap();
        lake.parts[0].key_hashes = None;
        for at in (0..whole.len()).step_by(101) {
            flip(&lake, &whole, at);
            let same = [leads.clone()];
            let published = lake.publish_batches(&same, &Default::default());
            assert!(matches!(published, Err(Error::Damaged { .. })), "{at}");
        }
    }

    #[test]
    fn row_groups_that_cannot_hold_what_is_looked_for_are_not_read() {
        let (mut lake, leads) = lake();
        let whole = lake.store.read(&lake.parts[0].file.path).unwrap();
        let (start, _) = groups(&whole)[0][0];
        flip(&lake, &whole, start as usize + 3);
        let year = Window::new(
            "2025-01-01T00:00:00Z".parse().unwrap(),
            "2026-01-01T00:00:00Z".parse().unwrap(),
        );
        let keys = |lake: &Lake, window| -> Result<Vec<String>> {
            lead_keys(&lake.store, &lake.parts, window).map(|key| Ok(key?.lead_id)).collect()
        };
        assert_eq!(keys(&lake, year).unwrap(), [leads[4].id.clone(), leads[5].id.clone()]);
        assert!(matches!(keys(&lake, None), Err(Error::Damaged { .. })));
        let (published, _) = lake.publish(&leads[2..4]);
        assert_eq!(published.counts.unchanged, 2);
        assert!(lake.publish_batches(&[leads[..1].to_vec()], &Default::default()).is_err());
    }

    #[test]
    fn commits_of_older_versions_have_no_hashes() {
        let (lake, _) = lake();
        let json = serde_json::to_value(&lake.parts[0]).unwrap();
        assert_eq!(json["key_hashes"]["groups"].as_array().unwrap().len(), 3);
        let mut older = json.clone();
        older.as_object_mut().unwrap().remove("key_hashes");
        let read: PartFile = serde_json::from_value(older.clone()).unwrap();
        assert_eq!(read.key_hashes, None);
        assert_eq!(serde_json::to_value(&read).unwrap(), older);
    }
}
