//! What is staged, as a publish reads it: of each lead the newest version, by partition, sorted.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::thread::JoinHandle;

use arrow::array::Int64Array;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tempfile::TempDir;

use super::Error;
use super::Result;
use super::cursor::Batches;
use super::cursor::Cursor;
use super::cursor::Gather;
use super::cursor::SideBySide;
use super::rows;
use super::runs::Run;

/// The names of the columns a run has beside the lead's, the greatest first.
pub(super) const RECENCY: [&str; 3] = ["_recency_received", "_recency_walk", "_recency_place"];

/// What is staged; each lead stands in one partition.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) partitions: BTreeMap<String, Shelf>,
    pub(super) schema: SchemaRef,
    pub(super) folder: TempDir,
}

/// The runs of a partition, which are merged as they are read.
#[derive(Debug)]
pub(super) struct Shelf {
    pub(super) runs: Vec<Run>,
    /// The keys of which there is a newer version in another partition.
    pub(super) superseded: Option<Run>,
    /// Leads, each once.
    pub(super) rows: u64,
}

impl Shelf {
    /// Returns the leads, with the columns named, or all, and their recency; of all, a thread of its own reads
    /// and merges ahead.
    pub(super) fn batches(&self, columns: Option<&[&str]>) -> Result<Batches> {
        if let ([run], None) = (self.runs.as_slice(), &self.superseded) {
            return run.batches(columns);
        }
        let wanted = columns.map(|columns| [columns, &RECENCY].concat());
        let superseded = self.superseded.as_ref();
        let mut newest =
            Newest::open(&self.runs, wanted.as_deref(), superseded, rows::BATCH_BYTES)?;
        Ok(match columns {
            None => ahead(newest)?,
            Some(_) => Box::new(std::iter::from_fn(move || newest.next_batch().transpose())),
        })
    }

    /// Returns a cursor over the leads, with the columns named, or all.
    pub(super) fn cursor(&self, columns: Option<&[&str]>) -> Result<Cursor> {
        Cursor::new(self.batches(columns)?)
    }
}

/// Runs merged into one sorted stream, of each lead the newest version.
pub(super) struct Newest {
    runs: SideBySide,
    recencies: Vec<Option<(u64, Recencies)>>,
    superseded: Cursor,
    gather: Gather,
}

impl Newest {
    /// Opens runs, without the keys that are superseded, to be put together to batches of about so many
    /// bytes; `columns`, where not all are wanted, must have the recency among them.
    pub(super) fn open(
        runs: &[Run],
        columns: Option<&[&str]>,
        superseded: Option<&Run>,
        batch_bytes: usize,
    ) -> Result<Self> {
        let cursors: Vec<Cursor> =
            runs.iter().map(|run| run.cursor(columns)).collect::<Result<_>>()?;
        let recencies = cursors.iter().map(|_| None).collect();
        let gather = Gather::new(2 * cursors.len(), batch_bytes);
        let superseded = match superseded {
            Some(run) => run.cursor(None)?,
            None => Cursor::empty(),
        };
        Ok(Self { runs: SideBySide::new(cursors), recencies, superseded, gather })
    }

    pub(super) fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        let mut ties = Vec::with_capacity(self.recencies.len());
        while !self.gather.is_full() {
            self.runs.smallest(&mut ties);
            let Some(&first) = ties.first() else { break };
            let key = self.runs.cursor(first).key().unwrap_or_default();
            let is_superseded = self.superseded.seek(key)?;
            if self.gather.is_empty()
                && let Some(batch) = self.runs.take_lone_batch(self.superseded.key())?
            {
                return Ok(Some(batch));
            }
            if !is_superseded {
                let newest = self.newest(&ties)?;
                self.gather.pick(newest, self.runs.cursor(newest));
            }
            self.runs.advance(&ties)?;
        }
        self.gather.take()
    }

    /// Returns the one of some cursors at the same key that stands at its newest version.
    fn newest(&mut self, ties: &[usize]) -> Result<usize> {
        if let [only] = ties {
            return Ok(*only);
        }
        let mut newest = ([i64::MIN; 3], 0);
        for &tie in ties {
            // The later run wins where recency does not tell.
            newest = newest.max((self.recency(tie)?, tie));
        }
        Ok(newest.1)
    }

    fn recency(&mut self, tag: usize) -> Result<[i64; 3]> {
        let cursor = self.runs.cursor(tag);
        let Some((batch, row)) = cursor.place() else { return Ok([i64::MIN; 3]) };
        let slot = &mut self.recencies[tag];
        match slot {
            Some((serial, recencies)) if *serial == cursor.serial() => Ok(recencies.get(row)),
            _ => {
                let recencies = Recencies::of(batch)?;
                let recency = recencies.get(row);
                *slot = Some((cursor.serial(), recencies));
                Ok(recency)
            }
        }
    }
}

/// The recency of the rows of a batch.
pub(super) struct Recencies([Int64Array; 3]);

impl Recencies {
    pub(super) fn of(batch: &RecordBatch) -> Result<Self> {
        let [received, walk, place] = RECENCY.map(|name| rows::numbers(batch, name));
        Ok(Self([received?, walk?, place?]))
    }

    pub(super) fn get(&self, row: usize) -> [i64; 3] {
        [self.0[0].value(row), self.0[1].value(row), self.0[2].value(row)]
    }
}

/// Merges on a thread of its own, a batch ahead of who asks for it.
fn ahead(mut newest: Newest) -> Result<Batches> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let merge = move || {
        while let Some(batch) = newest.next_batch().transpose() {
            let is_last = batch.is_err();
            if sender.send(batch).is_err() || is_last {
                break;
            }
        }
    };
    let thread = std::thread::Builder::new().name("merge".to_owned()).spawn(merge);
    Ok(Box::new(Ahead { receiver: Some(receiver), thread: Some(thread.map_err(Error::Thread)?) }))
}

struct Ahead {
    /// Nothing once nobody asks any more.
    receiver: Option<mpsc::Receiver<Result<RecordBatch>>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Ahead {
    /// Ends the merge, which holds files of the scratch folder.
    fn drop(&mut self) {
        self.receiver = None;
        // Of a death nobody needs to hear who wants no more.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Iterator for Ahead {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Ok(batch) = self.receiver.as_ref()?.recv() {
            return Some(batch);
        }
        // An end is told from a death: rows after it would be lost.
        let died = self.thread.take()?.join().is_err();
        died.then_some(Err(Error::Bug("the thread that merges leads has died")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_that_dies_is_no_end() {
        let (sender, receiver) = mpsc::sync_channel(1);
        let thread = std::thread::spawn(move || {
            let _sender: mpsc::SyncSender<Result<RecordBatch>> = sender;
            std::panic::resume_unwind(Box::new("as a test wants it"));
        });
        let mut batches = Ahead { receiver: Some(receiver), thread: Some(thread) };
        assert!(matches!(batches.next(), Some(Err(Error::Bug(_)))));
        assert!(batches.next().is_none());
    }
}
