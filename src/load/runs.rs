//! Runs: batches sorted by `lead_id` on the scratch disk, as Arrow IPC streams; each key once, but for runs
//! of keys alone.
//!
//! They are not compressed: that took a seventh of a first sync's processor time, for files that are gone
//! before most of them have left the page cache.

use std::fs::File;
use std::io::BufReader;
use std::io::BufWriter;
use std::path::Path;
use std::path::PathBuf;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;

use super::Error;
use super::Result;
use super::cursor::Batches;
use super::cursor::Cursor;
use crate::point::Stepped;
use crate::point::Steps;

/// A run being written.
pub(super) struct RunWriter {
    writer: StreamWriter<BufWriter<Stepped<File>>>,
    at: PathBuf,
    rows: u64,
}

impl RunWriter {
    /// Begins a run at `at`.
    pub(super) fn create(at: PathBuf, schema: &SchemaRef) -> Result<Self> {
        let steps = Steps::new(|| "state/scratch/run".to_owned());
        let created = steps.change("begun").and_then(|()| File::create(&at));
        let file = created.map_err(|source| Error::scratch("create", &at, source))?;
        let file = BufWriter::with_capacity(1 << 16, Stepped { inner: file, steps });
        let writer = StreamWriter::try_new(file, schema)
            .map_err(|source| Error::scratch("create", &at, source))?;
        Ok(Self { writer, at, rows: 0 })
    }

    /// Appends a batch.
    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.rows += batch.num_rows() as u64;
        self.writer.write(batch).map_err(|source| Error::scratch("write", &self.at, source))
    }

    /// Ends the run.
    pub(super) fn finish(mut self) -> Result<Run> {
        // `into_inner` gives the file back only after the buffer was written.
        let ended = self.writer.finish().and_then(|()| self.writer.flush());
        ended.map_err(|source| Error::scratch("write", &self.at, source))?;
        Ok(Run { at: self.at, rows: self.rows })
    }
}

/// A finished run.
#[derive(Debug)]
pub(super) struct Run {
    at: PathBuf,
    rows: u64,
}

impl Run {
    /// Returns how many rows it has.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Returns the run's batches, of the columns named, or all.
    pub(super) fn batches(&self, columns: Option<&[&str]>) -> Result<Batches> {
        let at = self.at.clone();
        let open = |projection: Option<Vec<usize>>| -> Result<StreamReader<BufReader<File>>> {
            let steps = Steps::new(|| "state/scratch/run".to_owned());
            let opened = steps.read("open").and_then(|()| File::open(&at));
            let file = opened.map_err(|source| Error::scratch("open", &at, source))?;
            let file = BufReader::with_capacity(1 << 16, file);
            StreamReader::try_new(file, projection)
                .map_err(|source| Error::scratch("read", &at, source))
        };
        let reader = match columns {
            None => open(None)?,
            Some(names) => {
                let schema = open(None)?.schema();
                let all = schema.fields().iter().enumerate();
                let named = all.filter(|(_, field)| names.contains(&field.name().as_str()));
                open(Some(named.map(|(index, _)| index).collect()))?
            }
        };
        Ok(Box::new(
            reader.map(move |batch| batch.map_err(|source| Error::scratch("read", &at, source))),
        ))
    }

    /// Returns a cursor over the run.
    pub(super) fn cursor(&self, columns: Option<&[&str]>) -> Result<Cursor> {
        Cursor::new(self.batches(columns)?)
    }

    /// Removes the file; what remains goes with the scratch folder.
    pub(super) fn remove(self) {
        let steps = Steps::new(|| "state/scratch/run".to_owned());
        drop(steps.change("remove").and_then(|()| std::fs::remove_file(&self.at)));
    }

    /// Returns the folder the run lies in, joined with `name`.
    pub(super) fn beside(folder: &Path, name: &str) -> PathBuf {
        folder.join(format!("{name}.arrow"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows;
    use super::super::testing::TestLead;
    use super::super::testing::batch;
    use super::super::testing::schema;
    use super::*;

    /// A batch that is read lies in one buffer with all its columns.
    #[test]
    fn rows_of_a_run_are_as_large_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let leads: Vec<TestLead> = (0..500).map(|id| TestLead::new(id, 2024, "Ann", 1)).collect();
        let batch = batch(&leads);
        let mut writer = RunWriter::create(Run::beside(folder.path(), "run"), &schema()).unwrap();
        writer.write(&batch).unwrap();
        let read = writer.finish().unwrap().batches(None).unwrap().next().unwrap().unwrap();
        assert_eq!(read.num_rows(), 500);
        let (read, written) = (rows::bytes(&read), rows::bytes(&batch));
        assert!(read < 2 * written, "{read} against {written}");
    }
}
