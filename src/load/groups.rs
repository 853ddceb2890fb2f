//! Row groups as they were encoded, so that a second file takes them without encoding them again.
//!
//! All rows of a first load stand in a part and in the change file, and to encode and compress them is
//! most of what writing costs.

use bytes::Buf;
use bytes::Bytes;
use bytes::buf::Reader;
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::errors::Result;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::ChunkReader;
use parquet::file::reader::Length;

/// A row group that was written, as it is encoded.
pub(super) struct EncodedGroup {
    metadata: RowGroupMetaData,
    /// What was written from `start` of the file on.
    bytes: Bytes,
    start: u64,
}

impl EncodedGroup {
    pub(super) fn new(metadata: RowGroupMetaData, bytes: Vec<u8>, start: u64) -> Self {
        Self { metadata, bytes: bytes.into(), start }
    }

    /// Returns how many rows it has.
    pub(super) fn rows(&self) -> usize {
        usize::try_from(self.metadata.num_rows()).unwrap_or_default()
    }

    /// Returns the chunk of a column, and what its writer said of it, for `append_column`. What only helps to
    /// find rows is left out: of a first load that is long, there are thousands of row groups, and the file
    /// keeps what is said of each until its end.
    pub(super) fn chunk(&self, column: &str) -> Result<(Chunk, ColumnCloseResult)> {
        let is_named = |chunk: &&ColumnChunkMetaData| chunk.column_path().parts() == [column];
        let missing = || ParquetError::General(format!("column `{column}` was not written"));
        let metadata = self.metadata.columns().iter().find(is_named).ok_or_else(missing)?.clone();
        let (from, length) = metadata.byte_range();
        let place = from.checked_sub(self.start).and_then(|from| {
            let from = usize::try_from(from).ok()?;
            Some(from..from.checked_add(usize::try_from(length).ok()?)?)
        });
        let place = place.filter(|place| place.end <= self.bytes.len()).ok_or_else(missing)?;
        let metadata = metadata.into_builder().clear_statistics().clear_page_encoding_stats();
        let metadata = metadata.set_definition_level_histogram(None).build()?;
        let close = ColumnCloseResult {
            bytes_written: length,
            rows_written: u64::try_from(self.metadata.num_rows()).unwrap_or_default(),
            metadata,
            bloom_filter: None,
            column_index: None,
            offset_index: None,
        };
        Ok((Chunk(self.bytes.slice(place)), close))
    }
}

/// The bytes of a column chunk, wherever the chunk stood.
pub(super) struct Chunk(Bytes);

impl Length for Chunk {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }
}

impl ChunkReader for Chunk {
    type T = Reader<Bytes>;

    /// Reads the chunk from its beginning, which is all that it is asked for.
    fn get_read(&self, _start: u64) -> Result<Self::T> {
        Ok(self.0.clone().reader())
    }

    fn get_bytes(&self, _start: u64, _length: usize) -> Result<Bytes> {
        Err(ParquetError::NYI("a chunk is read as a whole".to_owned()))
    }
}
