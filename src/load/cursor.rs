//! A place in a stream of batches sorted by `lead_id`.

use arrow::array::Array;
use arrow::array::RecordBatch;
use arrow::array::StringArray;
use arrow::array::TimestampMicrosecondArray;

use super::Result;
use super::column;
use super::rows;
use super::rows::Picks;

/// Batches one after the other, each read when it is needed.
pub(super) type Batches = Box<dyn Iterator<Item = Result<RecordBatch>> + Send>;

/// Batches that are sorted by `lead_id`, of which some may be passed over.
pub(super) trait SortedBatches: Send {
    /// Returns the next batch; those of which all keys are smaller than `from` may be left out.
    fn next_from(&mut self, from: &str) -> Option<Result<RecordBatch>>;
}

impl SortedBatches for Batches {
    fn next_from(&mut self, _: &str) -> Option<Result<RecordBatch>> {
        self.next()
    }
}

/// A place in a stream of batches sorted by `lead_id`; holds one batch.
pub(super) struct Cursor {
    batches: Box<dyn SortedBatches>,
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
        Self::over(Box::new(batches), "")
    }

    /// Returns the cursor at the first row of the first batch that may hold the key `from` or a greater one.
    pub(super) fn over(batches: Box<dyn SortedBatches>, from: &str) -> Result<Self> {
        let mut cursor = Self { batches, current: None, serial: 0 };
        cursor.load(from)?;
        Ok(cursor)
    }

    /// Returns a cursor over nothing.
    pub(super) fn empty() -> Self {
        let none: Batches = Box::new(std::iter::empty());
        Self { batches: Box::new(none), current: None, serial: 0 }
    }

    /// Reads the next batch that has rows, and may have keys from `from` on.
    fn load(&mut self, from: &str) -> Result<()> {
        self.current = None;
        while let Some(batch) = self.batches.next_from(from) {
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
            self.load("")?;
        }
        Ok(())
    }

    /// Returns the last key of the batch, and how many rows are left of it; `None` past the end.
    fn rest_of_batch(&self) -> Option<(&str, usize)> {
        let current = self.current.as_ref()?;
        Some((current.last(), current.batch.num_rows() - current.row))
    }

    /// Takes what is left of the batch, as it lies, and goes to the next one; `None` past the end.
    pub(super) fn take_batch(&mut self) -> Result<Option<RecordBatch>> {
        let Some(Current { batch, row, .. }) = self.current.take() else { return Ok(None) };
        self.load("")?;
        Ok(Some(batch.slice(row, batch.num_rows() - row)))
    }

    /// Goes forward to the first row whose key is `key` or greater, and tells whether it is `key`.
    pub(super) fn seek(&mut self, key: &str) -> Result<bool> {
        while let Some(current) = &mut self.current {
            if current.last() < key {
                self.load(key)?;
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

/// So many rows that stand alone are taken as they lie; in tests, whose batches are small, fewer.
const LONE_ROWS: usize = if cfg!(test) { 2 } else { 64 };

/// Cursors side by side, kept in the order of the keys they stand at.
pub(super) struct SideBySide {
    cursors: Vec<Cursor>,
    /// Those that are not past their end, the smallest key last, of equal ones the first cursor.
    order: Vec<usize>,
}

impl SideBySide {
    pub(super) fn new(cursors: Vec<Cursor>) -> Self {
        let mut beside = Self { order: Vec::with_capacity(cursors.len()), cursors };
        (0..beside.cursors.len()).for_each(|tag| beside.place(tag));
        beside
    }

    /// Returns the cursor with that place among those given.
    pub(super) fn cursor(&self, tag: usize) -> &Cursor {
        &self.cursors[tag]
    }

    /// Finds the cursors that stand at the smallest key; none where all are past their end.
    pub(super) fn smallest(&self, ties: &mut Vec<usize>) {
        let key = |tag: &usize| self.cursors[*tag].key();
        let least = self.order.last().and_then(key);
        ties.clear();
        ties.extend(self.order.iter().rev().take_while(|tag| key(tag) == least));
    }

    /// Takes what is left of the batch with the smallest key, where it is worth it and no other cursor, nor
    /// `other`, stands at one of its keys.
    pub(super) fn take_lone_batch(&mut self, other: Option<&str>) -> Result<Option<RecordBatch>> {
        let Some((&tag, others)) = self.order.split_last() else { return Ok(None) };
        let Some((last, rows)) = self.cursors[tag].rest_of_batch() else { return Ok(None) };
        let next = others.last().and_then(|next| self.cursors[*next].key());
        if rows < LONE_ROWS || [next, other].into_iter().flatten().any(|key| key <= last) {
            return Ok(None);
        }
        self.order.pop();
        let batch = self.cursors[tag].take_batch()?;
        self.place(tag);
        Ok(batch)
    }

    /// Moves on those that [`SideBySide::smallest`] has found.
    pub(super) fn advance(&mut self, ties: &[usize]) -> Result<()> {
        self.order.truncate(self.order.len() - ties.len());
        for tag in ties {
            self.cursors[*tag].advance()?;
            self.place(*tag);
        }
        Ok(())
    }

    fn place(&mut self, tag: usize) {
        let Some(key) = self.cursors[tag].key() else { return };
        let is_greater = |other: &usize| (self.cursors[*other].key(), *other) > (Some(key), tag);
        // Runs are stretches of the listing: most often the next key is of the same cursor.
        let at = match self.order.last() {
            Some(least) if !is_greater(least) => self.order.partition_point(is_greater),
            _ => self.order.len(),
        };
        self.order.insert(at, tag);
    }
}

/// Rows picked from cursors, to be put together as one batch; refers to the batches they lie in.
pub(super) struct Gather {
    /// Batches that may be held, and bytes of the rows put together, at most.
    limits: (usize, usize),
    batches: Vec<RecordBatch>,
    /// By tag: the number of the batch it was in last, from 1, and its place in `batches`.
    latest: Vec<(u64, usize)>,
    picks: Vec<(usize, usize)>,
    bytes: usize,
}

impl Default for Gather {
    fn default() -> Self {
        Self::new(MOST_BATCHES, rows::BATCH_BYTES)
    }
}

impl Gather {
    /// Returns one that holds up to so many batches, for rows of up to so many bytes.
    pub(super) fn new(most_batches: usize, most_bytes: usize) -> Self {
        let limits = (most_batches.max(MOST_BATCHES), most_bytes);
        Self { limits, batches: Vec::new(), latest: Vec::new(), picks: Vec::new(), bytes: 0 }
    }

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

    /// Tells whether nothing is picked.
    pub(super) fn is_empty(&self) -> bool {
        self.picks.is_empty()
    }

    /// Tells whether as much is picked as should be put together at once.
    pub(super) fn is_full(&self) -> bool {
        let (most_batches, most_bytes) = self.limits;
        self.picks.len() >= rows::BATCH_ROWS
            || self.bytes >= most_bytes
            || self.batches.len() >= most_batches
    }

    /// Puts the rows together and begins anew; `None` where none was picked.
    pub(super) fn take(&mut self) -> Result<Option<RecordBatch>> {
        if self.picks.is_empty() {
            return Ok(None);
        }
        let (batches, picks) = (std::mem::take(&mut self.batches), std::mem::take(&mut self.picks));
        *self = Self::new(self.limits.0, self.limits.1);
        Picks::new(picks).gather_rows(&batches).map(Some)
    }
}

/// Batches that may be held for the rows picked from them.
pub(super) const MOST_BATCHES: usize = 24;
