//! Leads as they come, kept on the scratch disk as sorted runs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::Array;
use arrow::array::ArrayRef;
use arrow::array::Int64Array;
use arrow::array::RecordBatch;
use arrow::array::StringArray;
use arrow::array::UInt32Array;
use arrow::compute::concat_batches;
use arrow::compute::interleave_record_batch;
use arrow::compute::take_record_batch;
use arrow::datatypes::DataType;
use arrow::datatypes::Field;
use arrow::datatypes::Schema;
use arrow::datatypes::SchemaRef;
use chrono::DateTime;
use chrono::Datelike;
use tempfile::TempDir;

use super::Error;
use super::Result;
use super::column;
use super::cursor::Cursor;
use super::cursor::Gather;
use super::cursor::SideBySide;
use super::rows;
use super::runs::Run;
use super::runs::RunWriter;
use crate::config::Partitioning;
use crate::point::Steps;
use crate::record::Recency;

/// Returns the value of `part_created` for a lead created at `created_us`, in microseconds since
/// 1970: `2026`, `2026-11` or `all`; `unknown` without a date, or with one that no calendar has.
pub(super) fn partition_of(partition_by: Partitioning, created_us: Option<i64>) -> String {
    let created = created_us.and_then(DateTime::from_timestamp_micros);
    match (partition_by, created.filter(|created| (1..=9999).contains(&created.year()))) {
        (Partitioning::None, _) => "all".to_owned(),
        (_, None) => "unknown".to_owned(),
        (Partitioning::Year, Some(created)) => format!("{:04}", created.year()),
        (Partitioning::Month, Some(created)) => {
            format!("{:04}-{:02}", created.year(), created.month())
        }
    }
}

/// Bytes of a batch of a run, about: many runs are read at once, a batch of each.
const RUN_BATCH_BYTES: usize = 256 << 10;

/// How much memory leads may take on their way into parts, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// For those of one source that wait to be written as a run; twice that for a moment.
    pub staged: usize,
    /// For those that are read back and merged.
    pub merged: usize,
}

impl Room {
    /// Returns how many runs are read at once; more are merged in passes. Of each there is a batch, and
    /// another one that rows were picked from.
    fn merge_width(self) -> usize {
        (self.merged / 3 / RUN_BATCH_BYTES).clamp(4, 64)
    }

    /// Returns the bytes of rows that wait for their partition's run, over all partitions.
    fn distributed(self) -> usize {
        self.merged / 3
    }
}

/// The names of the columns a run has beside the lead's, the greatest first.
const RECENCY: [&str; 3] = ["_recency_received", "_recency_walk", "_recency_place"];

/// Leads of one source that wait for a publish.
///
/// Holds as many batches in memory as there is [`Room`] for; the rest lies in a folder of its own on the scratch disk, which goes when this is dropped.
#[derive(Debug)]
pub struct Staging {
    folder: TempDir,
    schema: SchemaRef,
    run_schema: SchemaRef,
    partition_by: Partitioning,
    room: Room,
    batches: Vec<RecordBatch>,
    bytes: usize,
    runs: Vec<Run>,
    runs_made: u64,
    rows: u64,
}

impl Staging {
    /// Returns an empty staging for leads of `schema`, with a new folder below `scratch`.
    pub fn new(
        scratch: PathBuf,
        schema: SchemaRef,
        partition_by: Partitioning,
        room: Room,
    ) -> Result<Self> {
        let steps = Steps::new(|| "state/scratch".to_owned());
        let (mut folder, mut own) = (std::fs::DirBuilder::new(), tempfile::Builder::new());
        limit_to_owner(folder.recursive(true), own.prefix("load-"));
        let begun = steps.change("folder").and_then(|()| folder.create(&scratch));
        begun.map_err(|source| Error::scratch("create", &scratch, source))?;
        let made = steps.change("folder-of-source").and_then(|()| own.tempdir_in(&scratch));
        let folder = made.map_err(|source| Error::scratch("create", &scratch, source))?;
        let run_schema = with_recency(&schema);
        Ok(Self {
            folder,
            schema,
            run_schema,
            partition_by,
            room,
            batches: Vec::new(),
            bytes: 0,
            runs: Vec::new(),
            runs_made: 0,
            rows: 0,
        })
    }

    /// Takes a batch of leads, with the recency of each.
    pub fn add(&mut self, batch: RecordBatch, recency: &[Recency]) -> Result<()> {
        if batch.num_rows() != recency.len() {
            let (rows, recencies) = (batch.num_rows(), recency.len());
            return Err(Error::Recency { rows, recencies });
        }
        let mut columns = rows::spread(&batch, &self.schema)?;
        let parts: [fn(&Recency) -> i64; 3] =
            [|recency| recency.received_us, |recency| recency.walk_us, |recency| recency.place];
        for part in parts {
            columns.push(Arc::new(recency.iter().map(part).collect::<Int64Array>()) as ArrayRef);
        }
        let batch = RecordBatch::try_new(self.run_schema.clone(), columns)?;
        self.rows += batch.num_rows() as u64;
        self.bytes += batch.get_array_memory_size();
        self.batches.push(batch);
        if self.bytes > self.room.staged { self.spill() } else { Ok(()) }
    }

    /// Returns the rows taken so far, a lead as often as it came.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Returns the schema of the leads.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn new_run(&mut self, schema: &SchemaRef) -> Result<RunWriter> {
        self.runs_made += 1;
        let name = format!("run-{}", self.runs_made);
        RunWriter::create(Run::beside(self.folder.path(), &name), schema)
    }

    /// Writes what is in memory as a run, sorted, of each lead the newest version.
    fn spill(&mut self) -> Result<()> {
        let batches = std::mem::take(&mut self.batches);
        self.bytes = 0;
        if batches.iter().all(|batch| batch.num_rows() == 0) {
            return Ok(());
        }
        let picks = newest_sorted(&batches)?;
        let run_schema = self.run_schema.clone();
        let mut writer = self.new_run(&run_schema)?;
        let references: Vec<&RecordBatch> = batches.iter().collect();
        let total: usize = batches.iter().map(RecordBatch::num_rows).sum();
        let bytes: usize = batches.iter().map(RecordBatch::get_array_memory_size).sum();
        let step = (RUN_BATCH_BYTES / (bytes / total.max(1)).max(1)).clamp(1, rows::BATCH_ROWS);
        for chunk in picks.chunks(step) {
            writer.write(&interleave_record_batch(&references, chunk)?)?;
        }
        self.runs.push(writer.finish()?);
        Ok(())
    }

    /// Merges neighbouring runs, no more than need be, until all can be read at once. Their order stays.
    fn narrow(&mut self) -> Result<()> {
        let width = self.room.merge_width();
        let mut at = 0;
        while self.runs.len() > width {
            if at + 2 > self.runs.len() {
                at = 0;
            }
            let too_many = self.runs.len() - width;
            let end = at + (too_many + 1).min(width).min(self.runs.len() - at);
            let inputs: Vec<Run> = self.runs.drain(at..end).collect();
            let run_schema = self.run_schema.clone();
            let mut writer = self.new_run(&run_schema)?;
            let mut merge = Newest::open(&inputs, RUN_BATCH_BYTES)?;
            while let Some(batch) = merge.next_batch()? {
                writer.write(&batch)?;
            }
            self.runs.insert(at, writer.finish()?);
            inputs.into_iter().for_each(Run::remove);
            at += 1;
        }
        Ok(())
    }

    /// Ends the staging: of each lead the newest version, in one sorted run for each partition.
    pub(super) fn distribute(mut self) -> Result<Incoming> {
        self.spill()?;
        self.narrow()?;
        let mut distributor = Distributor {
            folder: self.folder.path().to_owned(),
            schema: self.schema.clone(),
            partition_by: self.partition_by,
            partitions: BTreeMap::new(),
            bytes: 0,
            most_bytes: self.room.distributed(),
        };
        let mut merge = Newest::open(&self.runs, rows::BATCH_BYTES)?;
        while let Some(batch) = merge.next_batch()? {
            distributor.add(&rows::conform(&batch, &self.schema)?)?;
        }
        drop(merge);
        self.runs.drain(..).for_each(Run::remove);
        let partitions = distributor.finish()?;
        Ok(Incoming { partitions, schema: self.schema, folder: self.folder })
    }
}

/// Of each lead of a staging the newest version, by partition, each sorted by `lead_id`.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) partitions: BTreeMap<String, Run>,
    pub(super) schema: SchemaRef,
    pub(super) folder: TempDir,
}

/// Makes folders their owner's alone; on Windows, what is new inherits that from its folder.
fn limit_to_owner(folder: &mut std::fs::DirBuilder, own: &mut tempfile::Builder<'_, '_>) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        use std::os::unix::fs::PermissionsExt;
        folder.mode(0o700);
        own.permissions(std::fs::Permissions::from_mode(0o700));
    }
    #[cfg(not(unix))]
    let _ = (folder, own);
}

fn with_recency(schema: &SchemaRef) -> SchemaRef {
    let mut fields = schema.fields().to_vec();
    fields.extend(RECENCY.map(|name| Arc::new(Field::new(name, DataType::Int64, false))));
    Arc::new(Schema::new(fields))
}

/// Returns the places of the newest version of each lead, sorted by `lead_id`.
fn newest_sorted(batches: &[RecordBatch]) -> Result<Vec<(usize, usize)>> {
    let lead_ids: Vec<StringArray> =
        batches.iter().map(|batch| rows::text(batch, column::LEAD_ID)).collect::<Result<_>>()?;
    let recencies: Vec<Recencies> = batches.iter().map(Recencies::of).collect::<Result<_>>()?;
    let mut picks: Vec<(usize, usize)> = Vec::new();
    for (place, batch) in batches.iter().enumerate() {
        picks.extend((0..batch.num_rows()).map(|row| (place, row)));
    }
    let key = |&(place, row): &(usize, usize)| lead_ids[place].value(row);
    let recency = |&(place, row): &(usize, usize)| recencies[place].get(row);
    picks.sort_unstable_by(|a, b| {
        // Of two with the same recency the one that came last stands first.
        key(a).cmp(key(b)).then_with(|| recency(b).cmp(&recency(a))).then_with(|| b.cmp(a))
    });
    picks.dedup_by(|later, first| key(later) == key(first));
    Ok(picks)
}

struct Recencies([Int64Array; 3]);

impl Recencies {
    fn of(batch: &RecordBatch) -> Result<Self> {
        let column = |name: &str| -> Result<Int64Array> {
            let found = batch.column_by_name(name).and_then(|found| found.as_any().downcast_ref());
            let error = || Error::Column { column: name.to_owned(), expected: "64-bit number" };
            found.cloned().ok_or_else(error)
        };
        Ok(Self([column(RECENCY[0])?, column(RECENCY[1])?, column(RECENCY[2])?]))
    }

    fn get(&self, row: usize) -> [i64; 3] {
        [self.0[0].value(row), self.0[1].value(row), self.0[2].value(row)]
    }
}

/// Runs merged into one sorted stream, of each lead the newest version.
struct Newest {
    runs: SideBySide,
    recencies: Vec<Option<(u64, Recencies)>>,
    gather: Gather,
}

impl Newest {
    /// Opens runs, to be put together to batches of about so many bytes.
    fn open(runs: &[Run], batch_bytes: usize) -> Result<Self> {
        let cursors: Vec<Cursor> =
            runs.iter().map(|run| run.cursor(None)).collect::<Result<_>>()?;
        let recencies = cursors.iter().map(|_| None).collect();
        let gather = Gather::new(2 * cursors.len(), batch_bytes);
        Ok(Self { runs: SideBySide::new(cursors), recencies, gather })
    }

    fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        let mut ties = Vec::with_capacity(self.recencies.len());
        while !self.gather.is_full() {
            self.runs.smallest(&mut ties);
            let Some(&first) = ties.first() else { break };
            let mut newest = (self.recency(first)?, first);
            for &tie in &ties[1..] {
                // The later run wins where recency does not tell.
                newest = newest.max((self.recency(tie)?, tie));
            }
            self.gather.pick(newest.1, self.runs.cursor(newest.1));
            self.runs.advance(&ties)?;
        }
        self.gather.take()
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

/// Splits a sorted stream into one sorted run for each partition.
struct Distributor {
    folder: PathBuf,
    schema: SchemaRef,
    partition_by: Partitioning,
    partitions: BTreeMap<String, Pending>,
    bytes: usize,
    most_bytes: usize,
}

struct Pending {
    writer: RunWriter,
    batches: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
}

impl Distributor {
    fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let created = rows::instants(batch, column::CREATED_AT)?;
        let mut rows_of: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for row in 0..batch.num_rows() {
            let created_us = created.is_valid(row).then(|| created.value(row));
            let partition = partition_of(self.partition_by, created_us);
            rows_of.entry(partition).or_default().push(u32::try_from(row).unwrap_or(u32::MAX));
        }
        let whole = rows_of.len() == 1;
        for (partition, rows) in rows_of {
            let rows = if whole {
                batch.clone()
            } else {
                take_record_batch(batch, &UInt32Array::from(rows))?
            };
            self.wait(partition, rows)?;
        }
        if self.bytes > self.most_bytes {
            let schema = &self.schema;
            self.partitions.values_mut().try_for_each(|pending| pending.flush(schema))?;
            self.bytes = 0;
        }
        Ok(())
    }

    fn wait(&mut self, partition: String, rows: RecordBatch) -> Result<()> {
        let pending = match self.partitions.entry(partition) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                let at = Run::beside(&self.folder, &format!("part-{}", entry.key()));
                let writer = RunWriter::create(at, &self.schema)?;
                entry.insert(Pending { writer, batches: Vec::new(), rows: 0, bytes: 0 })
            }
        };
        let bytes = rows::bytes(&rows);
        pending.rows += rows.num_rows();
        pending.bytes += bytes;
        pending.batches.push(rows);
        self.bytes += bytes;
        if pending.rows >= rows::BATCH_ROWS || pending.bytes >= rows::BATCH_BYTES {
            self.bytes = self.bytes.saturating_sub(pending.bytes);
            pending.flush(&self.schema)?;
        }
        Ok(())
    }

    fn finish(self) -> Result<BTreeMap<String, Run>> {
        let finish = |(partition, mut pending): (String, Pending)| {
            pending.flush(&self.schema)?;
            Ok((partition, pending.writer.finish()?))
        };
        self.partitions.into_iter().map(finish).collect()
    }
}

impl Pending {
    fn flush(&mut self, schema: &SchemaRef) -> Result<()> {
        let batches = std::mem::take(&mut self.batches);
        (self.rows, self.bytes) = (0, 0);
        match batches.as_slice() {
            [] => Ok(()),
            [batch] => self.writer.write(batch),
            batches => self.writer.write(&concat_batches(schema, batches)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::schema;
    use super::*;

    fn room(merged: usize) -> Room {
        Room { staged: 0, merged }
    }

    #[test]
    fn as_many_runs_are_read_at_once_as_there_is_room_for() {
        assert_eq!([0, 24 << 20, 1 << 30].map(|merged| room(merged).merge_width()), [4, 32, 64]);
    }

    #[cfg(unix)]
    #[test]
    fn scratch_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::tempdir().unwrap();
        let scratch = place.path().join("state/scratch/run");
        let staging = Staging::new(scratch.clone(), schema(), Partitioning::Year, room(0)).unwrap();
        for folder in [scratch.as_path(), scratch.parent().unwrap(), staging.folder.path()] {
            let mode = std::fs::metadata(folder).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{}", folder.display());
        }
    }
}
