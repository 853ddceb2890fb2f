//! Parts as CSV: RFC 4180, with a header, and without surprises in a spreadsheet.

use std::borrow::Cow;
use std::io;
use std::io::Write;

use arrow::array::Array;
use arrow::array::BooleanArray;
use arrow::array::Decimal128Array;
use arrow::array::Float64Array;
use arrow::array::Int64Array;
use arrow::array::RecordBatch;
use arrow::array::StringArray;
use arrow::array::TimestampMicrosecondArray;
use arrow::datatypes::SchemaRef;
use flate2::write::GzEncoder;

use super::Error;
use super::Output;
use super::Result;
use super::column;
use crate::config::CsvCompression;
use crate::harmless::is_harmful;
use crate::schema::StoredFile;
use crate::schema::lead::Micros;
use crate::schema::lead::Money;
use crate::schema::lead::Value;
use crate::schema::lead::push_csv_text;
use crate::store::NewFile;
use crate::store::Store;

/// A CSV file being written.
pub(super) struct CsvWriter {
    rows: CsvRows<Sink>,
    path: String,
}

/// Rows on their way to CSV, wherever that goes.
pub(crate) struct CsvRows<W: Write> {
    writer: csv::Writer<W>,
    guards: Vec<bool>,
    cell: String,
    guarded_cells: u64,
}

enum Sink {
    Plain(NewFile),
    Gzip(GzEncoder<NewFile>),
    Zstd(zstd::Encoder<'static, NewFile>),
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.write(bytes),
            Self::Gzip(encoder) => encoder.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
        }
    }

    /// Flushes nothing: a flush in the middle of a compressed file costs size, and the file is
    /// made durable as a whole.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink {
    fn finish(self) -> io::Result<NewFile> {
        match self {
            Self::Plain(file) => Ok(file),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl CsvWriter {
    /// Begins a file and writes its header.
    pub(super) fn create(
        store: &Store,
        path: String,
        schema: &SchemaRef,
        output: &Output,
    ) -> Result<Self> {
        let file = store.new_file(&path)?;
        let path = store.path(&path).display().to_string();
        let sink = match output.csv_compression {
            CsvCompression::None => Sink::Plain(file),
            CsvCompression::Gzip => {
                Sink::Gzip(GzEncoder::new(file, flate2::Compression::default()))
            }
            CsvCompression::Zstd => Sink::Zstd(
                zstd::Encoder::new(file, 1).map_err(|source| fail(&path, source.into()))?,
            ),
        };
        let rows = CsvRows::new(sink, schema, !output.raw_csv);
        Ok(Self { rows: rows.map_err(|source| fail(&path, source))?, path })
    }

    /// Appends rows.
    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let cells = cells_of(batch)?;
        self.rows.write(&cells, batch.num_rows()).map_err(|source| fail(&self.path, source))
    }

    /// Ends the file, and says how many cells were guarded.
    pub(super) fn finish(self) -> Result<(StoredFile, u64)> {
        let Self { rows, path } = self;
        let (sink, guarded_cells) = rows.finish().map_err(|source| fail(&path, source))?;
        let file = sink.finish().map_err(|source| fail(&path, source.into()))?;
        Ok((file.finish()?, guarded_cells))
    }
}

/// Returns the columns of a batch, as their cells are written.
pub(crate) fn cells_of(batch: &RecordBatch) -> Result<Vec<Cells<'_>>> {
    let columns = batch.schema_ref().fields().iter().zip(batch.columns());
    columns.map(|(field, column)| Cells::of(field.name(), column.as_ref())).collect()
}

impl<W: Write> CsvRows<W> {
    /// Writes the header. With `is_guarded`, no text of a record begins as a formula does.
    pub(crate) fn new(to: W, schema: &SchemaRef, is_guarded: bool) -> csv::Result<Self> {
        let terminator = csv::Terminator::CRLF;
        let mut writer = csv::WriterBuilder::new().terminator(terminator).from_writer(to);
        let names = schema.fields().iter().map(|field| field.name());
        writer.write_record(names)?;
        let guards = schema
            .fields()
            .iter()
            .map(|field| is_guarded && !column::JSON.contains(&field.name().as_str()));
        let guards = guards.collect();
        Ok(Self { writer, guards, cell: String::new(), guarded_cells: 0 })
    }

    /// Appends so many rows.
    pub(crate) fn write(&mut self, cells: &[Cells<'_>], rows: usize) -> csv::Result<()> {
        (0..rows).try_for_each(|row| self.write_row(cells, row))
    }

    fn write_row(&mut self, cells: &[Cells<'_>], row: usize) -> csv::Result<()> {
        for (cells, guard) in cells.iter().zip(&self.guards) {
            match cells {
                // Only text is guarded; it is not copied where it need not be.
                Cells::Text(texts) if texts.is_valid(row) => {
                    let text = &*readable(texts.value(row));
                    if *guard && is_formula(text) {
                        self.guarded_cells += 1;
                        self.cell.clear();
                        self.cell.push('\'');
                        self.cell.push_str(text);
                        self.writer.write_field(&self.cell)?;
                    } else {
                        self.writer.write_field(text)?;
                    }
                }
                cells => {
                    self.cell.clear();
                    cells.push_text(row, &mut self.cell);
                    self.writer.write_field(&self.cell)?;
                }
            }
        }
        self.writer.write_record(None::<&[u8]>)
    }

    /// Returns what was written to, and how many cells were guarded.
    pub(crate) fn finish(self) -> csv::Result<(W, u64)> {
        let written = self.writer.into_inner().map_err(csv::IntoInnerError::into_error)?;
        Ok((written, self.guarded_cells))
    }
}

fn fail(path: &str, source: csv::Error) -> Error {
    Error::Csv { path: path.to_owned(), source }
}

/// A column, as its cells are written.
pub(crate) enum Cells<'a> {
    Text(&'a StringArray),
    Boolean(&'a BooleanArray),
    Integer(&'a Int64Array),
    Float(&'a Float64Array),
    /// In ten-thousandths.
    Money(&'a Decimal128Array),
    Instant(&'a TimestampMicrosecondArray),
}

impl<'a> Cells<'a> {
    fn of(name: &str, column: &'a dyn Array) -> Result<Self> {
        let any = column.as_any();
        None.or_else(|| any.downcast_ref().map(Cells::Text))
            .or_else(|| any.downcast_ref().map(Cells::Boolean))
            .or_else(|| any.downcast_ref().map(Cells::Integer))
            .or_else(|| any.downcast_ref().map(Cells::Float))
            .or_else(|| any.downcast_ref().map(Cells::Money))
            .or_else(|| any.downcast_ref().map(Cells::Instant))
            .ok_or_else(|| Error::Column {
                column: name.to_owned(),
                expected: "text, boolean, 64-bit number, decimal or timestamp in microseconds",
            })
    }

    /// Appends the text of a cell, nothing where it is null.
    fn push_text(&self, row: usize, out: &mut String) {
        let value = match self {
            Self::Text(values) => values.is_valid(row).then(|| Value::Text(values.value(row))),
            Self::Boolean(values) => values.is_valid(row).then(|| Value::Bool(values.value(row))),
            Self::Integer(values) => values.is_valid(row).then(|| Value::Int(values.value(row))),
            Self::Float(values) => values.is_valid(row).then(|| Value::Float(values.value(row))),
            Self::Money(values) => {
                values.is_valid(row).then(|| Value::Money(Money(values.value(row))))
            }
            Self::Instant(values) => {
                values.is_valid(row).then(|| Value::Time(Micros(values.value(row))))
            }
        };
        if let Some(value) = value {
            push_csv_text(value, out);
        }
    }
}

/// Returns text as readers of CSV can take it: many stop at a NUL.
fn readable(text: &str) -> Cow<'_, str> {
    match text.contains('\0') {
        true => Cow::Owned(text.replace('\0', "\u{fffd}")),
        false => Cow::Borrowed(text),
    }
}

/// What a formula begins with, in a spreadsheet of any language; some take the wide signs for the
/// narrow ones, and the minus of typographers for that of the keyboard.
const SIGNS: [char; 9] = ['=', '+', '-', '@', '＝', '＋', '－', '＠', '−'];

/// Tells whether a spreadsheet may run the text. One that is a telephone number, or another row of
/// digits, it runs at most as a sum, and such texts must stay joinable.
pub(crate) fn is_formula(text: &str) -> bool {
    // A tab or line break in front moves what follows to another cell, or is dropped like blanks and
    // marks that are not seen; what is left begins the cell.
    let is_passed_over = |c: char| c.is_whitespace() || is_harmful(c);
    let is_moved = text.starts_with(char::is_control);
    let is_run = text.trim_start_matches(is_passed_over).starts_with(SIGNS);
    let is_number = || text.chars().all(|c| c.is_ascii_digit() || "+ ()-.".contains(c));
    (is_moved || is_run) && !is_number()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nul_does_not_reach_a_reader_of_csv() {
        assert_eq!(readable("a\0b"), "a\u{fffd}b");
        assert!(matches!(readable("a\u{1}\n"), Cow::Borrowed(_)));
    }

    #[test]
    fn formulas_are_told_from_telephone_numbers() {
        for text in [
            "=1+1",
            "+SUM(A1)",
            "-x",
            "@cmd",
            "\t=1",
            "\r=1",
            "\n=1",
            "=1",
            "-1,5",
            "＝1+1",
            "＋x",
            "－x",
            "＠x",
            "−x",
            " =1+1",
            " \t@x",
            "\u{a0}=1",
            "\u{feff}=1",
            "\u{200b}-x",
            "\0=1",
            "\tx",
            "\rx",
            "\nx",
        ] {
            assert!(is_formula(text), "{text:?}");
        }
        for text in ["", " ", " x", "+1 (212) 555-0100", "-12.5", "a=1", "'=1", "555", "\"=1"] {
            assert!(!is_formula(text), "{text:?}");
        }
    }
}
