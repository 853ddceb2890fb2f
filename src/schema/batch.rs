//! Leads become batches of columns.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::array::BooleanBuilder;
use arrow::array::Decimal128Builder;
use arrow::array::Float64Builder;
use arrow::array::Int64Builder;
use arrow::array::RecordBatch;
use arrow::array::StringBuilder;
use arrow::array::TimestampMicrosecondBuilder;
use arrow::array::new_null_array;
use arrow::error::ArrowError;
use chrono::DateTime;
use chrono::Utc;

use super::lead::COLUMNS;
use super::lead::Column;
use super::lead::HashInput;
use super::lead::Kind;
use super::lead::Lead;
use super::lead::Lineage;
use super::lead::Value;
use super::lead::arrow_schema;
use super::lead::hash_text;

/// Builds batches of leads, column by column. What a batch took tells how much room the next one gets.
///
/// Memory: what the rows of one batch hold as text, and about 600 bytes a row beside it.
#[derive(Debug)]
pub struct LeadBatchBuilder {
    columns: Vec<ColumnBuilder>,
    rows: usize,
    expected: Expected,
    hash_input: HashInput,
}

/// How large a batch will be, about: its rows, and their bytes, which no column has more of.
#[derive(Debug, Clone, Copy)]
struct Expected {
    rows: usize,
    bytes: usize,
}

impl Default for LeadBatchBuilder {
    fn default() -> Self {
        Self::with_capacity(0)
    }
}

impl LeadBatchBuilder {
    /// Returns a builder with room for `rows` rows; it grows when there are more.
    pub fn with_capacity(rows: usize) -> Self {
        let columns = COLUMNS.iter().map(ColumnBuilder::new).collect();
        let expected = Expected { rows, bytes: 0 };
        Self { columns, rows: 0, expected, hash_input: HashInput::default() }
    }

    /// Says how many rows the batch that begins will have, about, and how many bytes they have as received.
    pub fn expect(&mut self, rows: usize, bytes: usize) {
        self.expected = Expected { rows, bytes };
    }

    /// Returns the rows pushed since the last batch.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Tells whether no row was pushed since the last batch.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Appends a row; the content hash is taken here.
    pub fn push(&mut self, lead: &Lead<'_>, lineage: &Lineage<'_>) {
        let values = lead.values();
        let hash = self.hash_input.hash(Lead::COLUMNS.iter().zip(values)).to_hex();
        let time = |time: DateTime<Utc>| Value::Time(time.into());
        let lineage = [
            Some(Value::Text(lineage.scope)),
            Some(Value::Text(hash_text(hash.as_str()))),
            Some(time(lineage.first_seen_at)),
            Some(time(lineage.extracted_at)),
            Some(Value::Text(lineage.run_id)),
            Some(Value::Int(lineage.seq)),
            lineage.archive.map(Value::Text),
            lineage.deleted_at.map(time),
        ];
        let cells = values.into_iter().chain(lineage);
        for (column, value) in self.columns.iter_mut().zip(cells) {
            // Most columns of most rows are null: those are told when a value comes, or at the end.
            if let Some(value) = value {
                column.push(value, self.rows, self.expected);
            }
        }
        self.rows += 1;
    }

    /// Returns the rows pushed since the last batch, in the schema of [`arrow_schema`].
    ///
    /// # Errors
    ///
    /// Fails only where table and builders disagree, which would be a bug.
    pub fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        let rows = std::mem::take(&mut self.rows);
        self.hash_input.shrink();
        let columns = self.columns.iter_mut().map(|column| column.finish(rows)).collect();
        RecordBatch::try_new(arrow_schema(), columns)
    }
}

/// A column being built.
#[derive(Debug)]
struct ColumnBuilder {
    kind: Kind,
    /// Nothing before the first value of a batch.
    cells: Option<Cells>,
    /// Rows told so far, from the first of the batch.
    rows: usize,
    /// Bytes of text, and rows, of the last batch.
    last: (usize, usize),
}

#[derive(Debug)]
enum Cells {
    Text(StringBuilder),
    Bool(BooleanBuilder),
    Int(Int64Builder),
    Float(Float64Builder),
    Money(Decimal128Builder),
    Time(TimestampMicrosecondBuilder),
}

impl ColumnBuilder {
    fn new(column: &Column) -> Self {
        Self { kind: column.kind, cells: None, rows: 0, last: (0, 0) }
    }

    /// Appends the value of the row `row`, and nulls for those before it that had none. A value of another
    /// type than the column's is null.
    fn push(&mut self, value: Value<'_>, row: usize, expected: Expected) {
        let (kind, last) = (self.kind, self.last);
        let room = || Cells::with_room(kind, expected.rows, room_for(expected, last));
        let cells = self.cells.get_or_insert_with(room);
        if row > self.rows {
            cells.append_nulls(row - self.rows);
        }
        cells.append(kind, value);
        self.rows = row + 1;
    }

    fn finish(&mut self, rows: usize) -> ArrayRef {
        let told = std::mem::take(&mut self.rows);
        let Some(mut cells) = self.cells.take() else {
            return new_null_array(&self.kind.data_type(), rows);
        };
        cells.append_nulls(rows - told);
        self.last = (cells.text_bytes(), rows);
        cells.finish()
    }
}

/// Returns room for about as much text in each row as the batch before had, but not for more than there will
/// be. A batch with few rows tells nothing: one long text would make room for thousands.
fn room_for(expected: Expected, (bytes, of_rows): (usize, usize)) -> usize {
    if of_rows.saturating_mul(8) < expected.rows {
        return 0;
    }
    let scaled = bytes.saturating_mul(expected.rows) / of_rows.max(1);
    scaled.saturating_add(scaled / 16).min(expected.bytes)
}

impl Cells {
    fn with_room(kind: Kind, rows: usize, bytes: usize) -> Self {
        let data_type = kind.data_type();
        match kind {
            Kind::Text | Kind::JsonArray | Kind::JsonObject => {
                Self::Text(StringBuilder::with_capacity(rows, bytes))
            }
            Kind::Bool => Self::Bool(BooleanBuilder::with_capacity(rows)),
            Kind::Int => Self::Int(Int64Builder::with_capacity(rows)),
            Kind::Float => Self::Float(Float64Builder::with_capacity(rows)),
            Kind::Money => {
                Self::Money(Decimal128Builder::with_capacity(rows).with_data_type(data_type))
            }
            Kind::Time => {
                let builder = TimestampMicrosecondBuilder::with_capacity(rows);
                Self::Time(builder.with_data_type(data_type))
            }
        }
    }

    fn append(&mut self, kind: Kind, value: Value<'_>) {
        match (self, value) {
            (Self::Text(builder), Value::Text("")) => builder.append_value(kind.empty_text()),
            (Self::Text(builder), Value::Text(text)) => builder.append_value(text),
            (Self::Bool(builder), Value::Bool(value)) => builder.append_value(value),
            (Self::Int(builder), Value::Int(number)) => builder.append_value(number),
            (Self::Float(builder), Value::Float(number)) => builder.append_value(number),
            (Self::Money(builder), Value::Money(amount)) => builder.append_value(amount.0),
            (Self::Time(builder), Value::Time(time)) => builder.append_value(time.0),
            (cells, _) => cells.append_nulls(1),
        }
    }

    fn append_nulls(&mut self, count: usize) {
        match self {
            Self::Text(builder) => builder.append_nulls(count),
            Self::Bool(builder) => builder.append_nulls(count),
            Self::Int(builder) => builder.append_nulls(count),
            Self::Float(builder) => builder.append_nulls(count),
            Self::Money(builder) => builder.append_nulls(count),
            Self::Time(builder) => builder.append_nulls(count),
        }
    }

    fn text_bytes(&self) -> usize {
        match self {
            Self::Text(builder) => builder.values_slice().len(),
            _ => 0,
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Text(builder) => Arc::new(builder.finish()),
            Self::Bool(builder) => Arc::new(builder.finish()),
            Self::Int(builder) => Arc::new(builder.finish()),
            Self::Float(builder) => Arc::new(builder.finish()),
            Self::Money(builder) => Arc::new(builder.finish()),
            Self::Time(builder) => Arc::new(builder.finish()),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;

    use super::*;

    fn lead() -> Lead<'static> {
        Lead {
            source: "acme".into(),
            provider: "whatconverts".into(),
            stream: "leads".into(),
            lead_id: "whatconverts:leads:7".into(),
            native_id: "7".into(),
            channel: "other".into(),
            ..Lead::default()
        }
    }

    fn lineage() -> Lineage<'static> {
        Lineage {
            scope: "profile:1",
            first_seen_at: DateTime::UNIX_EPOCH,
            extracted_at: DateTime::UNIX_EPOCH,
            run_id: "run",
            seq: 0,
            archive: None,
            deleted_at: None,
        }
    }

    #[test]
    fn a_batch_has_every_column_and_empty_maps_are_not_null() {
        let mut builder = LeadBatchBuilder::with_capacity(2);
        builder.push(&lead(), &lineage());
        let batch = builder.finish().unwrap();
        let text =
            |name: &str| batch.column_by_name(name).unwrap().as_string::<i32>().value(0).to_owned();

        assert_eq!(batch.num_columns(), COLUMNS.len());
        assert_eq!(text("tags"), "[]");
        assert_eq!(text("form_fields"), "{}");
        assert_eq!(text("_content_hash"), lead().content_hash());
        assert!(batch.column_by_name("extra").unwrap().is_null(0));
        assert!(builder.is_empty());
    }

    #[test]
    fn a_column_gets_the_room_of_the_batch_before_but_not_more_than_there_is() {
        let expected = |rows, bytes| Expected { rows, bytes };
        assert_eq!(room_for(expected(1_000, 1 << 20), (16_000, 2_000)), 8_500);
        assert_eq!(room_for(expected(2_500, 1 << 20), (50_000, 1)), 0);
        assert_eq!(room_for(expected(8, 4_096), (1 << 20, 1)), 4_096);
        assert_eq!(room_for(expected(0, 0), (0, 0)), 0);
    }
}
