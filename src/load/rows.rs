//! Columns of a batch by name.

use std::sync::Arc;

use arrow::array::Array;
use arrow::array::ArrayRef;
use arrow::array::Int64Array;
use arrow::array::RecordBatch;
use arrow::array::StringArray;
use arrow::array::TimestampMicrosecondArray;
use arrow::array::new_null_array;
use arrow::compute::concat;
use arrow::compute::interleave;
use arrow::datatypes::DataType;
use arrow::datatypes::Schema;
use arrow::datatypes::SchemaRef;
use arrow::datatypes::TimeUnit;
use arrow::error::ArrowError;

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

/// Returns a column of whole numbers.
pub(super) fn numbers(batch: &RecordBatch, name: &str) -> Result<Int64Array> {
    let found = batch.column_by_name(name).and_then(|column| column.as_any().downcast_ref());
    found.cloned().ok_or_else(|| wrong(name, "64-bit number"))
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
            Some(held) => retype(held, field.data_type()),
        }
    };
    schema.fields().iter().map(column).collect()
}

/// Returns a column under the type of its schema. An instant in UTC is the same whatever its zone is
/// called; other types never change, and Arrow's casts from each to each would be a tenth of the program.
pub(super) fn retype(column: &ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    let instants = column.as_any().downcast_ref::<TimestampMicrosecondArray>();
    match (instants, data_type) {
        (Some(instants), DataType::Timestamp(TimeUnit::Microsecond, zone)) => {
            Ok(Arc::new(instants.clone().with_timezone_opt(zone.clone())))
        }
        _ if column.data_type() == data_type => Ok(column.clone()),
        _ => {
            let detail = format!("a column of type {} is none of {data_type}", column.data_type());
            Err(ArrowError::CastError(detail).into())
        }
    }
}

/// A row of one of several arrays: which, and where in it.
pub(super) type Place = (usize, usize);

/// An array, the first row taken from it, and how many follow one behind the other.
type Stretch = (usize, usize, usize);

/// Stretches are copied as such where they are as long as this on the average.
const STRETCH_ROWS: usize = 8;

/// Rows picked from several arrays.
pub(super) struct Picks {
    places: Vec<Place>,
    /// The same as stretches; `None` where most rows stand alone.
    stretches: Option<Vec<Stretch>>,
}

impl Picks {
    /// Returns the rows at `places`.
    pub(super) fn new(places: Vec<Place>) -> Self {
        let stretches = stretches(&places);
        Self { places, stretches }
    }

    /// Returns the rows as one array.
    pub(super) fn gather(&self, arrays: &[&dyn Array]) -> Result<ArrayRef> {
        // Many columns hold nothing.
        if let [first, ..] = arrays
            && arrays.iter().all(|array| array.null_count() == array.len())
        {
            return Ok(new_null_array(first.data_type(), self.places.len()));
        }
        let Some(stretches) = &self.stretches else {
            return Ok(interleave(arrays, &self.places)?);
        };
        let slice = |(array, first, rows): &Stretch| arrays[*array].slice(*first, *rows);
        let slices: Vec<ArrayRef> = stretches.iter().map(slice).collect();
        match slices.as_slice() {
            [whole] => Ok(whole.clone()),
            slices => Ok(concat(&slices.iter().map(AsRef::as_ref).collect::<Vec<_>>())?),
        }
    }
}

impl Picks {
    /// Returns the rows, picked from batches of one schema, as one batch.
    pub(super) fn gather_rows(&self, batches: &[RecordBatch]) -> Result<RecordBatch> {
        let schema = batches.first().map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema);
        let gather = |column: usize| {
            let arrays: Vec<&dyn Array> =
                batches.iter().map(|batch| batch.column(column).as_ref()).collect();
            self.gather(&arrays)
        };
        let columns = (0..schema.fields().len()).map(gather).collect::<Result<_>>()?;
        Ok(RecordBatch::try_new(schema, columns)?)
    }
}

fn stretches(places: &[Place]) -> Option<Vec<Stretch>> {
    let mut stretches: Vec<Stretch> = Vec::new();
    for (array, row) in places {
        match stretches.last_mut() {
            Some((last, first, rows)) if last == array && *first + *rows == *row => *rows += 1,
            _ => stretches.push((*array, *row, 1)),
        }
        if stretches.len() * STRETCH_ROWS > places.len().max(STRETCH_ROWS) {
            return None;
        }
    }
    Some(stretches)
}

/// Returns the bytes of the rows of a batch, about. Of arrays that share a buffer each counts what is its
/// own: those that are read from a run lie in one.
pub(super) fn bytes(batch: &RecordBatch) -> usize {
    let columns = batch.columns().iter();
    columns.map(|column| column.to_data().get_slice_memory_size().unwrap_or(0)).sum()
}

/// Returns the bytes of a row of the batch, about.
pub(super) fn row_bytes(batch: &RecordBatch) -> usize {
    bytes(batch) / batch.num_rows().max(1)
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Copied in stretches or row by row, the rows are the same.
        #[test]
        fn stretches_are_the_rows(runs in proptest::collection::vec((0_usize..3, 0_usize..40, 1_usize..40), 1..9)) {
            let names = |array: usize| (0..80).map(move |row| (row % 7 != 0).then(|| format!("{array}-{row}")));
            let arrays: Vec<StringArray> = (0..3).map(|array| names(array).collect()).collect();
            let arrays: Vec<&dyn Array> = arrays.iter().map(|array| array as &dyn Array).collect();
            let places: Vec<Place> =
                runs.iter().flat_map(|(array, first, rows)| (*first..first + rows).map(|row| (*array, row))).collect();
            let expected = interleave(&arrays, &places).unwrap();
            let found = Picks::new(places).gather(&arrays).unwrap();
            prop_assert_eq!(found.as_string::<i32>(), expected.as_string::<i32>());
        }
    }

    #[test]
    fn a_column_of_another_type_is_refused_and_an_instant_takes_the_name_of_its_zone() {
        let times: ArrayRef =
            Arc::new(TimestampMicrosecondArray::from(vec![7]).with_timezone("+00:00"));
        let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        assert_eq!(retype(&times, &utc).unwrap().data_type(), &utc);
        let refused = retype(&times, &DataType::Int64).unwrap_err();
        assert!(matches!(refused, Error::Batch(ArrowError::CastError(_))), "{refused:?}");
    }

    #[test]
    fn rows_that_stand_alone_are_no_stretches() {
        let alone: Vec<Place> = (0..64).map(|row| (row % 2, row)).collect();
        assert_eq!(stretches(&alone), None);
        let whole: Vec<Place> = (3..64).map(|row| (1, row)).collect();
        assert_eq!(stretches(&whole), Some(vec![(1, 3, 61)]));
    }
}
