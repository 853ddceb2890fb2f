//! Parquet files of leads: written, and read back in pieces.

use std::sync::Arc;

use arrow::array::Array;
use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use arrow::datatypes::Schema;
use arrow::datatypes::SchemaRef;
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::arrow_writer::ArrowColumnWriter;
use parquet::arrow::arrow_writer::ArrowRowGroupWriterFactory;
use parquet::arrow::arrow_writer::compute_leaves;
use parquet::basic::Compression as Codec;
use parquet::basic::ZstdLevel;
use parquet::bloom_filter::Sbbf;
use parquet::errors::ParquetError;
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::EnabledStatistics;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;

use super::Error;
use super::Limits;
use super::Output;
use super::Result;
use super::column;
use super::csv_suffix;
use super::cursor::Batches;
use super::cursor::Cursor;
use super::filled::Filled;
use super::groups::EncodedGroup;
use super::pieces;
use super::pieces::Pieces;
use super::pieces::Remembering;
use super::render::CsvWriter;
use super::rows;
use crate::config::ParquetCompression;
use crate::ids::RunId;
use crate::ids::Seq;
use crate::ids::SourceName;
use crate::schema::KeyHashes;
use crate::schema::PartFile;
use crate::schema::StoredFile;
use crate::store;
use crate::store::OpenFile;
use crate::store::Store;

/// A Parquet file being written; costs one row group of memory, bounded by [`Limits`].
pub(super) struct ParquetFile {
    writer: SerializedFileWriter<Remembering>,
    factory: ArrowRowGroupWriterFactory,
    schema: SchemaRef,
    path: String,
    form: ParquetForm,
    /// The one being encoded.
    group: Option<RowGroup>,
    /// By row group that is written, the hash of the columns that rows are compared by.
    groups: Vec<String>,
    /// Of a sorted one, what its footer tells of its columns.
    filled: Filled,
    /// Row groups that wait to be taken as they are encoded; nothing where none is wanted.
    encoded: Option<Vec<EncodedGroup>>,
}

/// A row group being encoded.
struct RowGroup {
    columns: Vec<ArrowColumnWriter>,
    rows: usize,
}

type ParquetResult<T> = std::result::Result<T, ParquetError>;

impl ParquetFile {
    /// Begins a file. `is_taken` says that the row groups of a sorted one are taken as they are encoded.
    pub(super) fn create(
        store: &Store,
        path: String,
        schema: &SchemaRef,
        form: ParquetForm,
        is_taken: bool,
    ) -> Result<Self> {
        let file = Remembering::new(store.new_file(&path)?, form.is_sorted);
        // Whoever is told that a disk fails must know which.
        let path = store.path(&path).display().to_string();
        let begin = || -> ParquetResult<_> {
            let properties = Arc::new(properties(schema, form)?);
            // No embedded Arrow schema, so that every reader sees the same types.
            let root = ArrowSchemaConverter::new().convert(schema)?.root_schema_ptr();
            let writer = SerializedFileWriter::new(file, root, properties)?;
            let factory = ArrowRowGroupWriterFactory::new(&writer, schema.clone());
            Ok((writer, factory))
        };
        let (writer, factory) = begin().map_err(|error| Error::parquet("write", &path, error))?;
        let (schema, groups, encoded) = (schema.clone(), Vec::new(), is_taken.then(Vec::new));
        let filled = Filled::default();
        Ok(Self { writer, factory, schema, path, form, group: None, groups, filled, encoded })
    }

    /// Appends a batch.
    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        if self.form.is_sorted {
            self.filled.count(batch);
        }
        self.append(batch).map_err(|error| Error::parquet("write", &self.path, error))
    }

    fn append(&mut self, batch: &RecordBatch) -> ParquetResult<()> {
        let mut written = 0;
        while written < batch.num_rows() {
            let mut group = match self.group.take() {
                Some(group) => group,
                None => self.new_group()?,
            };
            let rows = (batch.num_rows() - written).min(self.form.row_group_rows - group.rows);
            group.write(&self.schema, &batch.slice(written, rows))?;
            written += rows;
            let bytes = group.columns.iter().map(ArrowColumnWriter::memory_size).sum::<usize>();
            let is_full =
                group.rows >= self.form.row_group_rows || bytes > self.form.row_group_bytes;
            self.group = Some(group);
            if is_full {
                self.end_group()?;
            }
        }
        Ok(())
    }

    fn new_group(&self) -> ParquetResult<RowGroup> {
        let columns = self.factory.create_column_writers(self.writer.flushed_row_groups().len())?;
        Ok(RowGroup { columns, rows: 0 })
    }

    fn end_group(&mut self) -> ParquetResult<()> {
        let Some(group) = self.group.take() else { return Ok(()) };
        let mut writer = self.writer.next_row_group()?;
        for column in group.columns {
            column.close()?.append_to_row_group(&mut writer)?;
        }
        writer.close()?;
        self.hash_group()
    }

    /// Hashes the row group that was written last, and keeps it where it is taken.
    fn hash_group(&mut self) -> ParquetResult<()> {
        self.writer.flush()?;
        let Some(metadata) = self.writer.flushed_row_groups().last().cloned() else {
            return Ok(());
        };
        let file = self.writer.inner_mut();
        self.groups.extend(file.hash(&pieces::ranges(&metadata)));
        let (start, bytes) = file.forget();
        if let Some(encoded) = &mut self.encoded {
            encoded.push(EncodedGroup::new(metadata, bytes, start));
        }
        Ok(())
    }

    /// Returns the row groups written since it was last asked, where they are taken; `is_end` says that
    /// the one begun is to be ended.
    pub(super) fn take_encoded(&mut self, is_end: bool) -> Result<Vec<EncodedGroup>> {
        if is_end {
            self.end_group().map_err(|error| Error::parquet("write", &self.path, error))?;
        }
        Ok(self.encoded.as_mut().map(std::mem::take).unwrap_or_default())
    }

    /// Appends a row group of another file as it is encoded, behind the columns of `front`, which are the
    /// first of this file; the rest are found by name.
    pub(super) fn append_encoded(
        &mut self,
        front: &RecordBatch,
        encoded: &EncodedGroup,
    ) -> Result<()> {
        let mut append = || -> ParquetResult<()> {
            self.end_group()?;
            let mut group = self.new_group()?;
            group.write(&front.schema(), front)?;
            let mut writer = self.writer.next_row_group()?;
            for column in group.columns.into_iter().take(front.num_columns()) {
                column.close()?.append_to_row_group(&mut writer)?;
            }
            for field in self.schema.fields().iter().skip(front.num_columns()) {
                let (chunk, close) = encoded.chunk(field.name())?;
                writer.append_column(&chunk, close)?;
            }
            writer.close().map(drop)
        };
        append().map_err(|error| Error::parquet("write", &self.path, error))
    }

    /// Ends the file and makes it durable; returns it with the hashes of a sorted one.
    pub(super) fn finish(mut self) -> Result<(StoredFile, Option<KeyHashes>)> {
        let ended = self.end_group();
        if self.form.is_sorted {
            self.writer.append_key_value_metadata(self.filled.into_metadata());
        }
        let ended = ended.and_then(|()| self.writer.into_inner());
        let file = ended.map_err(|error| Error::parquet("write", &self.path, error))?;
        let (file, hashes) = file.end(self.groups);
        Ok((file.finish()?, hashes))
    }
}

impl RowGroup {
    /// Appends a batch with the first columns of the file; none of them has columns within it.
    fn write(&mut self, schema: &Schema, batch: &RecordBatch) -> ParquetResult<()> {
        let fields = schema.fields().iter().zip(batch.columns());
        for ((field, array), column) in fields.zip(&mut self.columns) {
            for leaf in compute_leaves(field, array)? {
                column.write(&leaf)?;
            }
        }
        self.rows += batch.num_rows();
        Ok(())
    }
}

/// How a Parquet file is laid out.
#[derive(Debug, Clone, Copy)]
pub(super) struct ParquetForm {
    pub(super) compression: ParquetCompression,
    pub(super) row_group_rows: usize,
    pub(super) row_group_bytes: usize,
    /// Rows come sorted by `lead_id` and are looked up by it.
    pub(super) is_sorted: bool,
}

fn properties(
    schema: &SchemaRef,
    form: ParquetForm,
) -> std::result::Result<WriterProperties, parquet::errors::ParquetError> {
    let codec = match form.compression {
        ParquetCompression::Zstd => Codec::ZSTD(ZstdLevel::try_new(1)?),
        ParquetCompression::Snappy => Codec::SNAPPY,
        ParquetCompression::None => Codec::UNCOMPRESSED,
    };
    // Small pages: a reader holds one page of every column, and there are a hundred columns.
    let mut properties = WriterProperties::builder()
        .set_compression(codec)
        .set_statistics_enabled(match form.is_sorted {
            true => EnabledStatistics::Chunk,
            // Changes are read as a whole.
            false => EnabledStatistics::None,
        })
        .set_dictionary_enabled(false)
        .set_data_page_size_limit(64 << 10)
        .set_data_page_row_count_limit(8192)
        // Either all chunks of a file have one or none, and those that are copied have none.
        .set_offset_index_disabled(!form.is_sorted)
        .set_created_by(concat!("leadpipe ", env!("CARGO_PKG_VERSION")).to_owned());
    for name in column::LOW_CARDINALITY {
        properties = properties.set_column_dictionary_enabled(ColumnPath::from(name), true);
    }
    for field in schema.fields().iter().filter(|field| *field.data_type() == DataType::Utf8) {
        if field.name() != column::LEAD_ID {
            // Rows are not sorted by it: each row group has all there is, and none can be passed over.
            let path = ColumnPath::from(field.name().as_str());
            properties = properties.set_column_statistics_enabled(path, EnabledStatistics::None);
        }
    }
    let lead_id = schema.index_of(column::LEAD_ID)?;
    if form.is_sorted {
        let path = || ColumnPath::from(column::LEAD_ID);
        properties = properties
            .set_column_bloom_filter_enabled(path(), true)
            .set_column_bloom_filter_fpp(path(), 0.01)
            .set_column_bloom_filter_max_ndv(path(), form.row_group_rows as u64)
            .set_sorting_columns(Some(vec![SortingColumn {
                column_idx: i32::try_from(lead_id).unwrap_or_default(),
                descending: false,
                nulls_first: false,
            }]));
    }
    Ok(properties.build())
}

/// Where the parts of a publish go, and how they look.
pub(super) struct PartFactory<'a> {
    pub(super) store: &'a Store,
    pub(super) schema: SchemaRef,
    pub(super) source: &'a SourceName,
    pub(super) run: &'a RunId,
    pub(super) seq: Seq,
    pub(super) output: &'a Output,
    pub(super) limits: Limits,
    /// Files begun so far, also part of their names.
    pub(super) made: u64,
    /// Cells guarded against being run as formulas.
    pub(super) guarded_cells: u64,
}

impl PartFactory<'_> {
    /// Begins a part of `partition`; `is_taken` says that its row groups are taken as they are encoded.
    pub(super) fn begin(&mut self, partition: &str, is_taken: bool) -> Result<PartWriter> {
        let stem = self.next_stem(partition);
        let form = ParquetForm {
            compression: self.output.compression,
            row_group_rows: self.limits.row_group_rows,
            row_group_bytes: self.limits.row_group_bytes,
            is_sorted: true,
        };
        let path = format!("parts/{stem}.parquet");
        let parquet = ParquetFile::create(self.store, path, &self.schema, form, is_taken)?;
        let csv = if self.output.wants_csv() { Some(self.begin_csv(&stem)?) } else { None };
        let partition = partition.to_owned();
        Ok(PartWriter { parquet, csv, partition, rows: 0, deleted_rows: 0, keys: None })
    }

    fn next_stem(&mut self, partition: &str) -> String {
        self.made += 1;
        let (source, seq, run, number) = (self.source, self.seq, self.run, self.made);
        format!("part_source={source}/part_created={partition}/{seq}-{run}-{number}")
    }

    fn begin_csv(&self, stem: &str) -> Result<CsvWriter> {
        let path = format!("csv/{stem}{}", csv_suffix(self.output.csv_compression));
        CsvWriter::create(self.store, path, &self.schema, self.output)
    }

    /// Ends a part.
    pub(super) fn finish(&mut self, part: PartWriter) -> Result<PartFile> {
        let csv = match part.csv {
            None => None,
            Some(csv) => {
                let (file, guarded_cells) = csv.finish()?;
                self.guarded_cells += guarded_cells;
                Some(file)
            }
        };
        let (first_lead_id, last_lead_id) = part.keys.unwrap_or_default();
        let (file, key_hashes) = part.parquet.finish()?;
        Ok(PartFile {
            file,
            partition: part.partition,
            rows: part.rows,
            deleted_rows: part.deleted_rows,
            first_lead_id,
            last_lead_id,
            seq: self.seq,
            csv,
            key_hashes,
        })
    }

    /// Returns a part that stays, with the CSV the job wants: rendered where there is none of the
    /// wanted compression, left out where none is wanted.
    ///
    /// Such a CSV file is named by this run, not by the part's: a run that loses the race for its
    /// commit removes what carries its own name.
    pub(super) fn carry_over(&mut self, part: &PartFile) -> Result<PartFile> {
        let mut part = part.clone();
        if !self.output.wants_csv() {
            part.csv = None;
            return Ok(part);
        }
        let suffix = csv_suffix(self.output.csv_compression);
        if part.csv.as_ref().is_some_and(|csv| csv.path.ends_with(suffix)) {
            return Ok(part);
        }
        let stem = self.next_stem(&part.partition);
        let mut csv = self.begin_csv(&stem)?;
        for batch in held_batches(self.store, &part, &self.schema, None)? {
            csv.write(&batch?)?;
        }
        let (file, guarded_cells) = csv.finish()?;
        self.guarded_cells += guarded_cells;
        part.csv = Some(file);
        Ok(part)
    }
}

/// A part being written, and its CSV where the job wants it.
pub(super) struct PartWriter {
    parquet: ParquetFile,
    csv: Option<CsvWriter>,
    partition: String,
    rows: u64,
    deleted_rows: u64,
    keys: Option<(String, String)>,
}

impl PartWriter {
    /// Returns the rows written so far.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Returns the row groups written since it was last asked, where they are taken; `is_end` says that
    /// no rows follow.
    pub(super) fn take_encoded(&mut self, is_end: bool) -> Result<Vec<EncodedGroup>> {
        self.parquet.take_encoded(is_end)
    }

    /// Appends rows, whose keys are greater than those before.
    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(());
        }
        let lead_ids = rows::text(batch, column::LEAD_ID)?;
        let deleted_at = rows::instants(batch, column::DELETED_AT)?;
        self.rows += rows as u64;
        self.deleted_rows += (rows - deleted_at.null_count()) as u64;
        let last = lead_ids.value(rows - 1).to_owned();
        match &mut self.keys {
            Some(keys) => keys.1 = last,
            None => self.keys = Some((lead_ids.value(0).to_owned(), last)),
        }
        if let Some(csv) = &mut self.csv {
            csv.write(batch)?;
        }
        self.parquet.write(batch)
    }
}

/// A part opened for reading.
pub(super) struct HeldPart {
    builder: ParquetRecordBatchReaderBuilder<OpenFile>,
    path: String,
    schema: SchemaRef,
}

impl HeldPart {
    /// Opens a part for its filters; whether its bytes are as they were written is not looked at.
    pub(super) fn open(store: &Store, part: &PartFile, schema: &SchemaRef) -> Result<Self> {
        let path = part.file.path.clone();
        let file = store.open_file(&path)?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file)
            .map_err(|error| Error::parquet("read", &path, error))?;
        Ok(Self { builder, path, schema: schema.clone() })
    }

    /// Opens a part whose bytes are those that were written.
    ///
    /// Parquet pages carry no checksum here, and a flipped bit can give another value without an error.
    /// The file is read twice, at the speed of the disk.
    pub(super) fn open_intact(store: &Store, part: &PartFile, schema: &SchemaRef) -> Result<Self> {
        refuse_damaged(store, &part.file)?;
        Self::open(store, part, schema)
    }

    /// Opens a part with the columns it was written with; its bytes are those that were written.
    pub(super) fn open_as_written(store: &Store, part: &PartFile) -> Result<Self> {
        let mut held = Self::open_intact(store, part, &Arc::new(Schema::empty()))?;
        held.schema = held.builder.schema().clone();
        Ok(held)
    }

    /// Opens a Parquet file with the columns it was written with, whether its bytes are as they were
    /// written or not.
    pub(super) fn open_whatever(store: &Store, file: &StoredFile) -> Result<Self> {
        let path = file.path.clone();
        let builder = ParquetRecordBatchReaderBuilder::try_new(store.open_file(&path)?)
            .map_err(|error| Error::parquet("read", &path, error))?;
        let schema = builder.schema().clone();
        Ok(Self { builder, path, schema })
    }

    /// Returns the filters that tell that a key is not in the part; `None` where a row group has
    /// none and can hold any key.
    pub(super) fn filters(&self) -> Result<Option<Vec<Sbbf>>> {
        let leaves = self.builder.parquet_schema().columns();
        let found = leaves.iter().position(|leaf| leaf.name() == column::LEAD_ID);
        let Some(leaf) = found else { return Ok(None) };
        let mut filters = Vec::new();
        for group in 0..self.builder.metadata().num_row_groups() {
            let filter = self.builder.get_row_group_column_bloom_filter(group, leaf);
            match filter.map_err(|error| Error::parquet("read", &self.path, error))? {
                Some(filter) => filters.push(filter),
                None => return Ok(None),
            }
        }
        Ok(Some(filters))
    }

    /// Returns the part's batches, of the columns named, or all.
    pub(super) fn batches(self, columns: Option<&[&str]>) -> Result<Batches> {
        let Self { builder, path, schema } = self;
        let (builder, schema, batch_rows) = match columns {
            None => {
                let batch_rows = rows_at_once(&builder);
                (builder, schema, batch_rows)
            }
            Some(names) => {
                let mask = ProjectionMask::columns(builder.parquet_schema(), names.iter().copied());
                (builder.with_projection(mask), project(&schema, names), 4 * rows::BATCH_ROWS)
            }
        };
        let reader = builder.with_batch_size(batch_rows).build();
        let reader = reader.map_err(|error| Error::parquet("read", &path, error))?;
        Ok(Box::new(reader.map(move |batch| {
            let batch = batch.map_err(|error| Error::parquet("read", &path, error))?;
            rows::conform(&batch, &schema)
        })))
    }
}

/// Fails where a file is not as it was written. Reads all of it; in a bucket, which has checksums of its
/// own for what it keeps, only its length: else each part that is merged with would be fetched twice.
pub(super) fn refuse_damaged(store: &Store, file: &StoredFile) -> Result<()> {
    match difference_in(store, file, !store.is_bucket())? {
        None => Ok(()),
        Some(what) => Err(Error::Damaged { path: file.path.clone(), what }),
    }
}

/// Returns in what a file differs from how it was written. Reads all of it, unless its length tells.
pub fn difference(store: &Store, file: &StoredFile) -> Result<Option<&'static str>> {
    difference_in(store, file, true)
}

fn difference_in(
    store: &Store,
    file: &StoredFile,
    reads_all: bool,
) -> Result<Option<&'static str>> {
    let opened = match store.open_file(&file.path) {
        Err(error) if error.is_not_found() => return Ok(Some(MISSING)),
        opened => opened?,
    };
    let fail = |source| store::Error { action: "read", path: store.path(&file.path), source };
    if opened.size().map_err(fail)? != file.bytes {
        return Ok(Some("its length is another"));
    }
    if !reads_all {
        return Ok(None);
    }
    let (_, blake3) = store::digest(opened).map_err(fail)?;
    Ok((blake3 != file.blake3).then_some(pieces::ANOTHER_HASH))
}

/// What differs where there is no file.
pub const MISSING: &str = "it is missing";

/// Returns the batches of a part, of the columns named, or all.
pub(super) fn held_batches(
    store: &Store,
    part: &PartFile,
    schema: &SchemaRef,
    columns: Option<&[&str]>,
) -> Result<Batches> {
    HeldPart::open_intact(store, part, schema)?.batches(columns)
}

/// Returns a cursor over the columns of a part that rows are compared by, from a row group on that may hold
/// the key `from` or a greater one. Reads these alone, or where an older version wrote the part, all of it.
pub(super) fn compared_cursor(
    store: &Store,
    part: &PartFile,
    schema: &SchemaRef,
    from: &str,
) -> Result<Cursor> {
    let names = &column::COMPARED;
    match Pieces::open(store, part, &project(schema, names))? {
        Some(pieces) => Cursor::over(Box::new(pieces), from),
        None => Cursor::new(held_batches(store, part, schema, Some(names))?),
    }
}

/// Returns a cursor over parts, one after the other, each opened when it is reached.
pub(super) fn held_cursor(store: &Store, parts: &[PartFile], schema: &SchemaRef) -> Result<Cursor> {
    let (store, schema, parts) = (store.clone(), schema.clone(), parts.to_vec());
    let batches = parts.into_iter().flat_map(move |part| -> Batches {
        match held_batches(&store, &part, &schema, None) {
            Ok(batches) => batches,
            Err(error) => Box::new(std::iter::once(Err(error))),
        }
    });
    Cursor::new(Box::new(batches))
}

/// Returns the schema of the columns named, in the order of `schema`.
pub(super) fn project(schema: &SchemaRef, names: &[&str]) -> SchemaRef {
    let fields = schema.fields().iter();
    let named = fields.filter(|field| names.contains(&field.name().as_str())).cloned();
    Arc::new(Schema::new(named.collect::<Vec<_>>()))
}

/// Returns how many rows of a part are read at once: fewer where rows are long.
fn rows_at_once(builder: &ParquetRecordBatchReaderBuilder<OpenFile>) -> usize {
    let groups = builder.metadata().row_groups();
    let largest = groups.iter().map(|group| {
        usize::try_from(group.total_byte_size() / group.num_rows().max(1)).unwrap_or_default()
    });
    let row_bytes = largest.max().unwrap_or_default().max(1);
    (2 * rows::BATCH_BYTES / row_bytes).clamp(16, rows::BATCH_ROWS)
}
