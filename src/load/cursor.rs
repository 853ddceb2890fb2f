//! A place in a stream of batches sorted by `lead_id`.

use arrow::array::Array;
use arrow::array::RecordBatch;
use arrow::array::StringArray;
use arrow::array::TimestampMicrosecondArray;
use arrow::compute::interleave_record_batch;

use super::Result;
use super::column;
use super::rows;

/// Batches one after the other, each read when it is needed.
pub(super) type Batches = Box<dyn Iterator<Item = Result<RecordBatch>> + Send>;

/// A place in a stream of batches sorted by `lead_id`; holds one batch.
pub(super) struct Cursor {
    batches: Batches,
    current: Option<Current>,
    serial: u64,
}

struct Current {
    batch: RecordBatch,
    lead_ids: StringArray,
    lineage: Option<Lineage>,
    row: usize,
    row_bytes: usize,
}

struct Lineage {
    scope: StringArray,
    content_hash: StringArray,
    first_seen_at: TimestampMicrosecondArray,
    extracted_at: TimestampMicrosecondArray,
    deleted_at: TimestampMicrosecondArray,
}

/// What tells whether one version of a lead replaces another. Times are microseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Version<'a> {
    pub(super) scope: &'a str,
    pub(super) content_hash: &'a str,
    pub(super) first_seen_at: i64,
    pub(super) extracted_at: i64,
    pub(super) is_deleted: bool,
}

impl Cursor {
    /// Returns the cursor at the first row.
    pub(super) fn new(batches: Batches) -> Result<Self> {
        let mut cursor = Self { batches, current: None, serial: 0 };
        cursor.load()?;
        Ok(cursor)
    }

    /// Returns a cursor over nothing.
    pub(super) fn empty() -> Self {
        Self { batches: Box::new(std::iter::empty()), current: None, serial: 0 }
    }

    fn load(&mut self) -> Result<()> {
        self.current = None;
        for batch in self.batches.by_ref() {
            let batch = batch?;
            if batch.num_rows() > 0 {
                self.serial += 1;
                self.current = Some(Current::new(batch)?);
                break;
            }
        }
        Ok(())
    }

    /// Returns the key of the row, `None` past the end.
    pub(super) fn key(&self) -> Option<&str> {
        self.current.as_ref().map(|current| current.lead_ids.value(current.row))
    }

    /// Returns the batch and the row in it.
    pub(super) fn place(&self) -> Option<(&RecordBatch, usize)> {
        self.current.as_ref().map(|current| (&current.batch, current.row))
    }

    /// Returns the number of the batch, another one for each.
    pub(super) fn serial(&self) -> u64 {
        self.serial
    }

    /// Returns the bytes of a row of the batch, about.
    pub(super) fn row_bytes(&self) -> usize {
        self.current.as_ref().map_or(0, |current| current.row_bytes)
    }

    /// Returns what the row is compared by, where its columns were read.
    pub(super) fn version(&self) -> Option<Version<'_>> {
        let current = self.current.as_ref()?;
        let (lineage, row) = (current.lineage.as_ref()?, current.row);
        Some(Version {
            scope: lineage.scope.value(row),
            content_hash: lineage.content_hash.value(row),
            first_seen_at: lineage.first_seen_at.value(row),
            extracted_at: lineage.extracted_at.value(row),
            is_deleted: lineage.deleted_at.is_valid(row),
        })
    }

    /// Goes to the next row.
    pub(super) fn advance(&mut self) -> Result<()> {
        let Some(current) = &mut self.current else { return Ok(()) };
        current.row += 1;
        if current.row == current.batch.num_rows() {
            self.load()?;
        }
        Ok(())
    }

    /// Goes forward to the first row whose key is `key` or greater, and tells whether it is `key`.
    pub(super) fn seek(&mut self, key: &str) -> Result<bool> {
        while let Some(current) = &mut self.current {
            if current.last() < key {
                self.load()?;
                continue;
            }
            while current.lead_ids.value(current.row) < key {
                current.row += 1;
            }
            return Ok(current.lead_ids.value(current.row) == key);
        }
        Ok(false)
    }
}

impl Current {
    fn new(batch: RecordBatch) -> Result<Self> {
        let lead_ids = rows::text(&batch, column::LEAD_ID)?;
        let has_lineage = column::COMPARED.iter().all(|name| batch.column_by_name(name).is_some());
        let lineage = if has_lineage { Some(Lineage::new(&batch)?) } else { None };
        let row_bytes = rows::row_bytes(&batch);
        Ok(Self { batch, lead_ids, lineage, row: 0, row_bytes })
    }

    fn last(&self) -> &str {
        self.lead_ids.value(self.lead_ids.len() - 1)
    }
}

impl Lineage {
    fn new(batch: &RecordBatch) -> Result<Self> {
        Ok(Self {
            scope: rows::text(batch, column::SCOPE)?,
            content_hash: rows::text(batch, column::CONTENT_HASH)?,
            first_seen_at: rows::instants(batch, column::FIRST_SEEN_AT)?,
            extracted_at: rows::instants(batch, column::EXTRACTED_AT)?,
            deleted_at: rows::instants(batch, column::DELETED_AT)?,
        })
    }
}

/// Rows picked from cursors, to be put together as one batch; refers to the batches they lie in.
#[derive(Default)]
pub(super) struct Gather {
    batches: Vec<RecordBatch>,
    /// By tag: the number of the batch it was in last, from 1, and its place in `batches`.
    latest: Vec<(u64, usize)>,
    picks: Vec<(usize, usize)>,
    bytes: usize,
}

impl Gather {
    /// Picks the row the cursor stands at; `tag` tells the cursors apart.
    pub(super) fn pick(&mut self, tag: usize, cursor: &Cursor) {
        let Some((batch, row)) = cursor.place() else { return };
        let latest = self.latest.get(tag).filter(|(serial, _)| *serial == cursor.serial());
        let place = match latest {
            Some((_, place)) => *place,
            None => {
                self.batches.push(batch.clone());
                let place = self.batches.len() - 1;
                let known = self.latest.len().max(tag + 1);
                self.latest.resize(known, (0, 0));
                self.latest[tag] = (cursor.serial(), place);
                place
            }
        };
        self.picks.push((place, row));
        self.bytes += cursor.row_bytes();
    }

    /// Tells whether as much is picked as should be put together at once.
    pub(super) fn is_full(&self) -> bool {
        self.picks.len() >= rows::BATCH_ROWS
            || self.bytes >= rows::BATCH_BYTES
            || self.batches.len() >= MOST_BATCHES
    }

    /// Puts the rows together and begins anew; `None` where none was picked.
    pub(super) fn take(&mut self) -> Result<Option<RecordBatch>> {
        if self.picks.is_empty() {
            return Ok(None);
        }
        let batches: Vec<&RecordBatch> = self.batches.iter().collect();
        let batch = interleave_record_batch(&batches, &self.picks)?;
        *self = Self::default();
        Ok(Some(batch))
    }
}

/// Batches that may be held for the rows picked from them.
pub(super) const MOST_BATCHES: usize = 24;
