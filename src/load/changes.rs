//! The change file of a commit: what was done, row by row.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::array::Int64Array;
use arrow::array::RecordBatch;
use arrow::array::StringArray;
use arrow::datatypes::DataType;
use arrow::datatypes::Field;
use arrow::datatypes::Schema;
use arrow::datatypes::SchemaRef;

use super::Limits;
use super::Result;
use super::column;
use super::groups::EncodedGroup;
use super::part::ParquetFile;
use super::part::ParquetForm;
use super::rows;
use crate::config::ParquetCompression;
use crate::ids::RunId;
use crate::ids::Seq;
use crate::schema::ChangeFile;
use crate::store::Store;

/// What a consumer does with a row of a change file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    /// Put the row in place of the one with its key, or beside the others.
    Upsert,
    /// Remove the row with its key.
    Delete,
}

/// Why a row is in a change file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// A lead not held before.
    New,
    /// A lead whose content differs from what was held, or that is back after it was gone.
    Changed,
    /// A lead that is in another partition now.
    Moved,
    /// A lead the provider no longer lists.
    Gone,
    /// A lead of a source that has another name now.
    Renamed,
}

impl Reason {
    /// Returns the reason as it stands in `_reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Changed => "changed",
            Self::Moved => "moved",
            Self::Gone => "gone",
            Self::Renamed => "renamed",
        }
    }

    /// Returns what a consumer does with such a row.
    pub fn op(self) -> Op {
        match self {
            Self::New | Self::Changed | Self::Moved | Self::Renamed => Op::Upsert,
            Self::Gone => Op::Delete,
        }
    }
}

impl Op {
    /// Returns the operation as it stands in `_op`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Upsert => "upsert",
            Self::Delete => "delete",
        }
    }
}

/// The change file of a commit being written; costs one row group of memory.
///
/// Columns: `_seq`, `_op`, `_reason`, then the lead's without its own `_seq`, which for an upsert is
/// the same. There is a file for every commit, if need be without rows.
pub struct ChangeWriter {
    file: ParquetFile,
    schema: SchemaRef,
    seq: Seq,
    upserts: u64,
    deletes: u64,
}

impl ChangeWriter {
    /// Begins the change file of commit `seq`; `schema` is that of the leads.
    pub fn create(
        store: &Store,
        run: &RunId,
        seq: Seq,
        schema: &SchemaRef,
        compression: ParquetCompression,
        limits: Limits,
    ) -> Result<Self> {
        let schema = change_schema(schema);
        let form = ParquetForm {
            compression,
            row_group_rows: limits.row_group_rows,
            row_group_bytes: limits.row_group_bytes,
            is_sorted: false,
        };
        let path = format!("changes/{seq}-{run}.parquet");
        let file = ParquetFile::create(store, path, &schema, form, false)?;
        Ok(Self { file, schema, seq, upserts: 0, deletes: 0 })
    }

    /// Appends rows of leads, each with its reason; one operation a key is the caller's duty.
    pub fn write(&mut self, leads: &RecordBatch, reasons: &[Reason]) -> Result<()> {
        self.file.write(&mark(leads, reasons, self.seq, &self.schema)?)?;
        let deletes = reasons.iter().filter(|reason| reason.op() == Op::Delete).count() as u64;
        self.upserts += reasons.len() as u64 - deletes;
        self.deletes += deletes;
        Ok(())
    }

    /// Appends a row group of a part as it is encoded: its leads are all new.
    pub(super) fn write_new(&mut self, encoded: &EncodedGroup) -> Result<()> {
        let reasons = vec![Reason::New; encoded.rows()];
        let fields = self.schema.fields().iter().take(OPERATION_COLUMNS).cloned();
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let front = RecordBatch::try_new(schema, operations(&reasons, self.seq).into())?;
        self.file.append_encoded(&front, encoded)?;
        self.upserts += reasons.len() as u64;
        Ok(())
    }

    /// Returns the schema of the file.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Ends the file and makes it durable.
    pub fn finish(self) -> Result<ChangeFile> {
        let (file, _) = self.file.finish()?;
        let (upserts, deletes) = (self.upserts, self.deletes);
        Ok(ChangeFile { file, rows: upserts + deletes, upserts, deletes })
    }
}

impl std::fmt::Debug for ChangeWriter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = formatter.debug_struct("ChangeWriter");
        debug.field("seq", &self.seq).field("upserts", &self.upserts);
        debug.field("deletes", &self.deletes).finish_non_exhaustive()
    }
}

/// Returns the schema of a change file of leads of `schema`.
pub(super) fn change_schema(schema: &SchemaRef) -> SchemaRef {
    let mut fields = vec![
        Arc::new(Field::new(column::SEQ, DataType::Int64, false)),
        Arc::new(Field::new("_op", DataType::Utf8, false)),
        Arc::new(Field::new("_reason", DataType::Utf8, false)),
    ];
    let leads = schema.fields().iter().filter(|field| field.name() != column::SEQ);
    fields.extend(leads.cloned());
    Arc::new(Schema::new(fields))
}

/// Returns the leads with their operations in front.
fn mark(
    leads: &RecordBatch,
    reasons: &[Reason],
    seq: Seq,
    schema: &SchemaRef,
) -> Result<RecordBatch> {
    let mut columns = rows::spread(leads, schema)?;
    columns.splice(..OPERATION_COLUMNS, operations(reasons, seq));
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}

/// The columns in front of the leads'.
const OPERATION_COLUMNS: usize = 3;

/// Returns `_seq`, `_op` and `_reason`.
fn operations(reasons: &[Reason], seq: Seq) -> [ArrayRef; OPERATION_COLUMNS] {
    let seq = i64::try_from(seq.0).unwrap_or(i64::MAX);
    let ops = reasons.iter().map(|reason| reason.op().as_str());
    let reasons_text = reasons.iter().map(|reason| reason.as_str());
    [
        Arc::new(Int64Array::from(vec![seq; reasons.len()])),
        Arc::new(StringArray::from_iter_values(ops)),
        Arc::new(StringArray::from_iter_values(reasons_text)),
    ]
}
