//! Columns of a batch by name.

use std::sync::Arc;

use arrow::array::Array;
use arrow::array::ArrayRef;
use arrow::array::RecordBatch;
use arrow::array::StringArray;
use arrow::array::TimestampMicrosecondArray;
use arrow::array::new_null_array;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::datatypes::SchemaRef;
use arrow::datatypes::TimeUnit;

use super::Error;
use super::Result;

/// Rows merged or written at once, at most.
pub(super) const BATCH_ROWS: usize = 1024;
/// Bytes of rows merged or written at once, about.
pub(super) const BATCH_BYTES: usize = 1 << 20;

/// Returns a text column.
pub(super) fn text(batch: &RecordBatch, name: &str) -> Result<StringArray> {
    let found = batch.column_by_name(name).and_then(|column| column.as_any().downcast_ref());
    found.cloned().ok_or_else(|| wrong(name, "text"))
}

/// Returns a column of instants.
pub(super) fn instants(batch: &RecordBatch, name: &str) -> Result<TimestampMicrosecondArray> {
    let found = batch.column_by_name(name).and_then(|column| column.as_any().downcast_ref());
    found.cloned().ok_or_else(|| wrong(name, "timestamp in microseconds"))
}

fn wrong(name: &str, expected: &'static str) -> Error {
    Error::Column { column: name.to_owned(), expected }
}

/// Returns a batch with exactly the columns of `schema`: of columns the batch lacks, nulls.
///
/// Parquet files carry no Arrow schema, and a part may be older than a column.
pub(super) fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    if batch.schema_ref() == schema {
        return Ok(batch.clone());
    }
    let columns = spread(batch, schema)?;
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}

/// Returns the columns of `schema`, of those the batch lacks nulls, whether they may be null or not.
pub(super) fn spread(batch: &RecordBatch, schema: &SchemaRef) -> Result<Vec<ArrayRef>> {
    let column = |field: &arrow::datatypes::FieldRef| -> Result<ArrayRef> {
        match batch.column_by_name(field.name()) {
            None => Ok(new_null_array(field.data_type(), batch.num_rows())),
            Some(held) if held.data_type() == field.data_type() => Ok(held.clone()),
            Some(held) => retype(held, field.data_type()),
        }
    };
    schema.fields().iter().map(column).collect()
}

/// Returns a column as another type. An instant in UTC is the same whatever its zone is called, and
/// Arrow itself knows no zone by name.
pub(super) fn retype(column: &ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    let instants = column.as_any().downcast_ref::<TimestampMicrosecondArray>();
    match (instants, data_type) {
        (Some(instants), DataType::Timestamp(TimeUnit::Microsecond, zone)) => {
            Ok(Arc::new(instants.clone().with_timezone_opt(zone.clone())))
        }
        _ => Ok(cast(column, data_type)?),
    }
}

/// Returns the bytes of a row of the batch, about.
pub(super) fn row_bytes(batch: &RecordBatch) -> usize {
    batch.get_array_memory_size() / batch.num_rows().max(1)
}
