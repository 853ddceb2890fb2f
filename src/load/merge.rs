//! The merge itself: held and incoming rows, side by side, become new parts and changes.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::Array;
use arrow::array::ArrayRef;
use arrow::array::BooleanArray;
use arrow::array::Int64Array;
use arrow::array::RecordBatch;
use arrow::array::TimestampMicrosecondArray;
use arrow::array::new_null_array;
use arrow::compute::filter_record_batch;
use arrow::datatypes::DataType;
use arrow::datatypes::SchemaRef;

use super::ChangeWriter;
use super::Counts;
use super::Mode;
use super::Publish;
use super::Published;
use super::Reason;
use super::Result;
use super::column;
use super::compare::Arrivals;
use super::compare::Comparison;
use super::compare::Partitioning;
use super::compare::Verdict;
use super::compare::judge;
use super::cursor::Cursor;
use super::cursor::MOST_BATCHES;
use super::incoming::Incoming;
use super::part::PartFactory;
use super::part::PartWriter;
use super::part::held_cursor;
use super::rows;
use super::rows::Picks;
use super::rows::Place;
use crate::checkpoint::Caught;
use crate::config::OnDelete;
use crate::schema::PartFile;

/// Writes what a [`Comparison`] found to be done.
pub(super) struct Merger<'a> {
    incoming: &'a Incoming,
    publish: &'a Publish<'a>,
    factory: PartFactory<'a>,
    assembly: Assembly,
    changes: &'a mut ChangeWriter,
    counts: Counts,
    caught: Caught,
    parts: Vec<PartFile>,
}

impl<'a> Merger<'a> {
    pub(super) fn new(
        incoming: &'a Incoming,
        publish: &'a Publish<'a>,
        changes: &'a mut ChangeWriter,
    ) -> Result<Self> {
        let factory = PartFactory {
            store: publish.store,
            schema: incoming.schema.clone(),
            source: publish.source,
            run: publish.run,
            seq: publish.seq,
            output: publish.output,
            limits: publish.limits,
            made: 0,
            guarded_cells: 0,
        };
        Ok(Self {
            incoming,
            publish,
            factory,
            assembly: Assembly::new(&incoming.schema, publish)?,
            changes,
            counts: Counts::default(),
            caught: Caught::default(),
            parts: Vec::new(),
        })
    }

    /// Writes the parts and appends the changes.
    pub(super) fn run(mut self, comparison: Comparison) -> Result<Published> {
        self.counts = comparison.counts;
        for (name, partition) in &comparison.partitions {
            self.merge_partition(name, partition, &comparison)?;
        }
        let rows = self.parts.iter().map(|part| part.rows).sum();
        let guarded_cells = self.factory.guarded_cells;
        let (parts, counts, caught) = (self.parts, self.counts, self.caught);
        Ok(Published { parts, rows, counts, caught, guarded_cells })
    }

    fn merge_partition(
        &mut self,
        name: &str,
        partition: &Partitioning,
        comparison: &Comparison,
    ) -> Result<()> {
        let mut streams = Streams {
            held: Cursor::empty(),
            incoming: match self.incoming.partitions.get(name) {
                Some(shelf) if partition.is_dirty.contains(&true) => shelf.cursor(None)?,
                _ => Cursor::empty(),
            },
            arrivals: comparison.arrivals(name)?,
            departures: comparison.departures(name)?,
        };
        let mut slot = 0;
        while slot < partition.is_dirty.len() {
            if !partition.is_dirty[slot] {
                if let Some(part) = partition.parts.get(slot) {
                    self.parts.push(self.factory.carry_over(part)?);
                }
                slot += 1;
                continue;
            }
            let clean = partition.is_dirty[slot..].iter().position(|is_dirty| !is_dirty);
            let end = clean.map_or(partition.is_dirty.len(), |clean| slot + clean);
            self.merge_slots(name, partition, slot..end, &mut streams, comparison)?;
            slot = end;
        }
        Ok(())
    }

    /// Merges neighbouring slots, all of which change, into new parts of about equal size.
    fn merge_slots(
        &mut self,
        name: &str,
        partition: &Partitioning,
        slots: Range<usize>,
        streams: &mut Streams,
        comparison: &Comparison,
    ) -> Result<()> {
        let held = &partition.parts[slots.start..slots.end.min(partition.parts.len())];
        let delta: i64 = partition.delta[slots.clone()].iter().sum();
        let rows = held.iter().map(|part| part.rows).sum::<u64>().saturating_add_signed(delta);
        let limit = self.publish.limits.part_rows.max(1);
        let part_rows = rows.div_ceil(rows.div_ceil(limit).max(1)).max(1);
        streams.held = held_cursor(self.publish.store, held, &self.incoming.schema)?;
        if let Some(before) = slots.start.checked_sub(1).map(|last| &partition.parts[last])
            && streams.incoming.seek(&before.last_lead_id)?
        {
            streams.incoming.advance()?;
        }
        let upper = partition.upper(slots.end - 1);
        // Nothing is held that what comes could meet.
        let is_new = held.is_empty() && self.publish.mode == Mode::Merge && !comparison.has_moves();
        let is_all_new = is_new && rows >= self.publish.limits.copied_rows;
        let mut parts = Parts { partition: name, part_rows, is_all_new, open: None };
        // Where nothing is held, the slot is the last, which takes all that follows.
        while is_new && let Some(batch) = streams.incoming.take_batch()? {
            self.write(&mut parts, self.assembly.of_new(&batch)?)?;
        }
        while self.merge_row(streams, upper, comparison)? {
            if self.assembly.is_full() {
                self.flush(&mut parts)?;
            }
        }
        self.flush(&mut parts)?;
        match parts.open.take() {
            Some(part) => self.finish_part(part),
            None => Ok(()),
        }
    }

    fn finish_part(&mut self, mut part: PartWriter) -> Result<()> {
        self.copy_to_changes(&mut part, true)?;
        self.parts.push(self.factory.finish(part)?);
        Ok(())
    }

    /// Puts the row groups of a part whose leads are all new into the changes, as they are encoded.
    fn copy_to_changes(&mut self, part: &mut PartWriter, is_end: bool) -> Result<()> {
        for encoded in part.take_encoded(is_end)? {
            self.counts.new += encoded.rows() as u64;
            self.changes.write_new(&encoded)?;
        }
        Ok(())
    }

    /// Takes the smallest key of held and incoming rows; returns `false` where there is none.
    fn merge_row(
        &mut self,
        streams: &mut Streams,
        upper: Option<&str>,
        comparison: &Comparison,
    ) -> Result<bool> {
        let incoming = streams.incoming.key();
        let incoming = incoming.filter(|key| upper.is_none_or(|upper| *key <= upper));
        match (streams.held.key(), incoming) {
            (None, None) => return Ok(false),
            (Some(held), Some(incoming)) if held == incoming => {
                self.both(streams);
                streams.held.advance()?;
                streams.incoming.advance()?;
            }
            (Some(held), incoming) if incoming.is_none_or(|incoming| held < incoming) => {
                if !streams.departures.seek(held)? {
                    self.held_only(&streams.held, comparison.gone.contains(held));
                }
                streams.held.advance()?;
            }
            (_, Some(key)) => {
                self.incoming_only(key, &streams.incoming, &mut streams.arrivals)?;
                streams.incoming.advance()?;
            }
            (Some(_), None) => return Ok(false),
        }
        Ok(true)
    }

    fn held_only(&mut self, held: &Cursor, is_gone: bool) {
        let at = self.assembly.place(Tag::Held, held);
        let is_deleted = held.version().is_some_and(|version| version.is_deleted);
        let row = Row::of(at);
        let row = match self.publish.output.on_delete {
            OnDelete::Remove if is_gone => {
                Row { is_kept: false, reason: Some(Reason::Gone), ..row }
            }
            OnDelete::Keep if is_gone && !is_deleted => {
                Row { deleted_at: DELETED_NOW, reason: Some(Reason::Gone), ..row }
            }
            OnDelete::Remove | OnDelete::Keep => row,
        };
        self.assembly.push(row, held.row_bytes());
    }

    fn incoming_only(
        &mut self,
        key: &str,
        incoming: &Cursor,
        arrivals: &mut Arrivals,
    ) -> Result<()> {
        let arrival = arrivals.find(key)?;
        let Some(arrival) = arrival else {
            if self.publish.mode == Mode::Merge {
                let row = Row::of(self.assembly.place(Tag::Incoming, incoming));
                let row = Row { seq: THIS_SEQ, deleted_at: NOT_DELETED, ..row };
                let row = Row { reason: Some(Reason::New), ..row };
                self.assembly.push(row, incoming.row_bytes());
            }
            return Ok(());
        };
        if arrival.is_accepted {
            let held = self.assembly.place(Tag::Arrival(arrival.tag), arrival.held);
            self.replace(arrival.held, held, incoming, Reason::Moved);
        }
        Ok(())
    }

    fn both(&mut self, streams: &Streams) {
        let (held, incoming) = (&streams.held, &streams.incoming);
        let (Some(before), Some(after)) = (held.version(), incoming.version()) else { return };
        let at = self.assembly.place(Tag::Held, held);
        match judge(self.publish.mode, before, after) {
            Verdict::Older | Verdict::Same { rewrites: false } => {
                self.assembly.push(Row::of(at), held.row_bytes());
            }
            Verdict::Same { rewrites: true } => {
                let new = self.assembly.place(Tag::Incoming, incoming);
                let is_earlier = after.first_seen_at < before.first_seen_at;
                let first_seen_at = if is_earlier { new } else { at };
                let row = Row { scope: new, first_seen_at, ..Row::of(at) };
                self.assembly.push(row, held.row_bytes());
            }
            Verdict::Changed => self.replace(held, at, incoming, Reason::Changed),
        }
    }

    /// Puts an incoming row in place of a held one, which lies at `at`.
    fn replace(&mut self, held: &Cursor, at: Place, incoming: &Cursor, reason: Reason) {
        let (Some(before), Some(after)) = (held.version(), incoming.version()) else { return };
        let new = self.assembly.place(Tag::Incoming, incoming);
        let row = match self.publish.mode {
            Mode::Merge => {
                let is_earlier = after.first_seen_at < before.first_seen_at;
                // A lead that is back as it was keeps when this version was first received.
                let is_same = after.content_hash == before.content_hash;
                Row {
                    first_seen_at: if is_earlier { new } else { at },
                    version: if is_same { at } else { new },
                    seq: THIS_SEQ,
                    deleted_at: NOT_DELETED,
                    reason: Some(reason),
                    is_edited: !is_same && !before.is_deleted,
                    ..Row::of(new)
                }
            }
            // Whoever follows the changes has removed a deleted lead: nothing to tell.
            Mode::Replay => Row {
                content: new,
                seq: THIS_SEQ,
                reason: Some(reason).filter(|_| !before.is_deleted),
                ..Row::of(at)
            },
        };
        self.assembly.push(row, incoming.row_bytes());
    }

    /// Writes the rows put together so far to the open part, and to the changes.
    fn flush(&mut self, parts: &mut Parts<'_>) -> Result<()> {
        match self.assembly.take()? {
            Some(assembled) => self.write(parts, assembled),
            None => Ok(()),
        }
    }

    fn write(&mut self, parts: &mut Parts<'_>, assembled: Assembled) -> Result<()> {
        self.publish.readings.count(&assembled.rows, &assembled.edited, &mut self.caught)?;
        if !parts.is_all_new {
            self.flush_changes(&assembled)?;
        }
        let kept = assembled.kept()?;
        let mut written = 0;
        while written < kept.num_rows() {
            let mut part = match parts.open.take() {
                Some(part) => part,
                None => self.factory.begin(parts.partition, parts.is_all_new)?,
            };
            let room = parts.part_rows.saturating_sub(part.rows()).max(1);
            let room = usize::try_from(room).unwrap_or(usize::MAX);
            let taken = room.min(kept.num_rows() - written);
            part.write(&kept.slice(written, taken))?;
            self.copy_to_changes(&mut part, false)?;
            written += taken;
            if part.rows() >= parts.part_rows {
                self.finish_part(part)?;
            } else {
                parts.open = Some(part);
            }
        }
        Ok(())
    }

    fn flush_changes(&mut self, assembled: &Assembled) -> Result<()> {
        let reasons: Vec<Reason> = assembled.reasons.iter().copied().flatten().collect();
        if reasons.is_empty() {
            return Ok(());
        }
        for reason in &reasons {
            match reason {
                Reason::New => self.counts.new += 1,
                Reason::Changed | Reason::Renamed => self.counts.changed += 1,
                Reason::Moved => self.counts.moved += 1,
                Reason::Gone => self.counts.gone += 1,
            }
        }
        let is_change: BooleanArray =
            assembled.reasons.iter().map(|reason| Some(reason.is_some())).collect();
        let leads = filter_record_batch(&assembled.rows, &is_change)?;
        self.changes.write(&leads, &reasons)
    }
}

/// What a partition is merged from; each moves forward only.
struct Streams {
    held: Cursor,
    incoming: Cursor,
    arrivals: Arrivals,
    departures: Cursor,
}

/// Parts being written, one at a time.
struct Parts<'a> {
    partition: &'a str,
    part_rows: u64,
    /// Whether all their leads are new: the changes then take row groups as they are.
    is_all_new: bool,
    open: Option<PartWriter>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Tag {
    Held,
    Incoming,
    Arrival(usize),
}

/// Where the pieces of a row to be written lie.
#[derive(Debug, Clone, Copy)]
struct Row {
    content: Place,
    scope: Place,
    first_seen_at: Place,
    /// `_extracted_at`, `_run_id`, `_archive`.
    version: Place,
    seq: Place,
    deleted_at: Place,
    is_kept: bool,
    reason: Option<Reason>,
    /// Whether it was held with other content.
    is_edited: bool,
}

impl Row {
    /// Returns a row as it lies, which stays and is no change.
    fn of(at: Place) -> Self {
        Self {
            content: at,
            scope: at,
            first_seen_at: at,
            version: at,
            seq: at,
            deleted_at: at,
            is_kept: true,
            reason: None,
            is_edited: false,
        }
    }
}

/// The first batch of an [`Assembly`] holds what rows of this commit have in common.
const THIS_SEQ: Place = (0, 0);
const NOT_DELETED: Place = (0, 0);
const DELETED_NOW: Place = (0, 1);

/// Rows put together from pieces of others; refers to the batches these lie in.
struct Assembly {
    schema: SchemaRef,
    common: Vec<ArrayRef>,
    batches: Vec<Vec<ArrayRef>>,
    /// Placed, but not yet among `batches`: pending `i` becomes batch `i + 1`.
    pending: Vec<RecordBatch>,
    placed: HashMap<(Tag, u64), usize>,
    latest: [(Option<(Tag, u64)>, usize); 2],
    rows: Vec<Row>,
    bytes: usize,
}

/// Rows put together.
struct Assembled {
    rows: RecordBatch,
    is_kept: Vec<bool>,
    reasons: Vec<Option<Reason>>,
    /// The rows that were held with other content.
    edited: Vec<usize>,
}

impl Assembled {
    fn kept(&self) -> Result<RecordBatch> {
        if self.is_kept.iter().all(|is_kept| *is_kept) {
            return Ok(self.rows.clone());
        }
        Ok(filter_record_batch(&self.rows, &BooleanArray::from(self.is_kept.clone()))?)
    }
}

impl Assembly {
    fn new(schema: &SchemaRef, publish: &Publish<'_>) -> Result<Self> {
        let seq = i64::try_from(publish.seq.0).unwrap_or(i64::MAX);
        let gone_at = publish.gone_at.timestamp_micros();
        let common = |name: &str, data_type: &DataType| -> Result<ArrayRef> {
            let column: ArrayRef = match name {
                column::SEQ => Arc::new(Int64Array::from(vec![seq; 2])),
                column::DELETED_AT => {
                    Arc::new(TimestampMicrosecondArray::from(vec![None, Some(gone_at)]))
                }
                _ => new_null_array(data_type, 2),
            };
            rows::retype(&column, data_type)
        };
        let fields = schema.fields().iter();
        let common: Vec<ArrayRef> =
            fields.map(|field| common(field.name(), field.data_type())).collect::<Result<_>>()?;
        Ok(Self {
            schema: schema.clone(),
            batches: vec![common.clone()],
            common,
            pending: Vec::new(),
            placed: HashMap::new(),
            latest: [(None, 0); 2],
            rows: Vec::new(),
            bytes: 0,
        })
    }

    /// Returns where the row lies at which the cursor stands.
    fn place(&mut self, tag: Tag, cursor: &Cursor) -> Place {
        let Some((batch, row)) = cursor.place() else { return NOT_DELETED };
        let key = (tag, cursor.serial());
        // Most rows lie in the batch of one of the two before.
        if let Some((_, place)) = self.latest.iter().find(|(latest, _)| *latest == Some(key)) {
            return (*place, row);
        }
        let place = *self.placed.entry(key).or_insert_with(|| {
            self.pending.push(batch.clone());
            self.pending.len()
        });
        self.latest = [(Some(key), place), self.latest[0]];
        (place, row)
    }

    fn push(&mut self, row: Row, bytes: usize) {
        self.rows.push(row);
        self.bytes += bytes;
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= rows::BATCH_ROWS
            || self.bytes >= 2 * rows::BATCH_BYTES
            || self.pending.len() >= MOST_BATCHES
    }

    /// Puts the rows together and begins anew; `None` where there is none.
    fn take(&mut self) -> Result<Option<Assembled>> {
        let rows = std::mem::take(&mut self.rows);
        for batch in self.pending.drain(..) {
            self.batches.push(rows::spread(&batch, &self.schema)?);
        }
        let assembled = if rows.is_empty() { None } else { Some(self.assemble(&rows)?) };
        self.batches = vec![self.common.clone()];
        self.placed.clear();
        self.latest = [(None, 0); 2];
        self.bytes = 0;
        Ok(assembled)
    }

    /// Returns the rows of a batch as new ones, as they lie but for what rows of this commit have in common.
    fn of_new(&self, batch: &RecordBatch) -> Result<Assembled> {
        let count = batch.num_rows();
        let mut columns = rows::spread(batch, &self.schema)?;
        for (name, at) in [(column::SEQ, THIS_SEQ), (column::DELETED_AT, NOT_DELETED)] {
            let index = self.schema.index_of(name)?;
            columns[index] = Picks::new(vec![at; count]).gather(&[self.common[index].as_ref()])?;
        }
        Ok(Assembled {
            rows: RecordBatch::try_new(self.schema.clone(), columns)?,
            is_kept: vec![true; count],
            reasons: vec![Some(Reason::New); count],
            edited: Vec::new(),
        })
    }

    fn assemble(&self, rows: &[Row]) -> Result<Assembled> {
        let picks = |piece: fn(&Row) -> Place| Picks::new(rows.iter().map(piece).collect());
        let (content, scope) = (picks(|row| row.content), picks(|row| row.scope));
        let (first_seen_at, version) = (picks(|row| row.first_seen_at), picks(|row| row.version));
        let (seq, deleted_at) = (picks(|row| row.seq), picks(|row| row.deleted_at));
        let mut columns = Vec::with_capacity(self.schema.fields().len());
        for (index, field) in self.schema.fields().iter().enumerate() {
            let arrays: Vec<&dyn Array> =
                self.batches.iter().map(|batch| batch[index].as_ref()).collect();
            let picks = match field.name().as_str() {
                column::SCOPE => &scope,
                column::FIRST_SEEN_AT => &first_seen_at,
                column::EXTRACTED_AT | column::RUN_ID | column::ARCHIVE => &version,
                column::SEQ => &seq,
                column::DELETED_AT => &deleted_at,
                _ => &content,
            };
            columns.push(picks.gather(&arrays)?);
        }
        Ok(Assembled {
            rows: RecordBatch::try_new(self.schema.clone(), columns)?,
            is_kept: rows.iter().map(|row| row.is_kept).collect(),
            reasons: rows.iter().map(|row| row.reason).collect(),
            edited: (0..rows.len()).filter(|row| rows[*row].is_edited).collect(),
        })
    }
}
