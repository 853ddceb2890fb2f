//! Leads as they come, kept on the scratch disk as sorted runs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::Array;
use arrow::array::ArrayRef;
use arrow::array::Int64Array;
use arrow::array::RecordBatch;
use arrow::array::StringArray;
use arrow::compute::concat_batches;
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
use super::incoming::Incoming;
use super::incoming::Newest;
use super::incoming::RECENCY;
use super::incoming::Recencies;
use super::incoming::Shelf;
use super::rows;
use super::rows::Picks;
use super::rows::Place;
use super::runs::Run;
use super::runs::RunWriter;
use super::superseded;
use super::superseded::KeyWriter;
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

/// Tells partitions apart, as their names do.
fn slot_of(partition_by: Partitioning, created_us: Option<i64>) -> Option<(i32, u32)> {
    let created = created_us.and_then(DateTime::from_timestamp_micros)?;
    match partition_by {
        Partitioning::None => None,
        Partitioning::Year => Some((created.year(), 0)),
        Partitioning::Month => Some((created.year(), created.month())),
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
}

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
    /// Those that came last and are not yet in `batches`.
    small: Small,
    bytes: usize,
    /// By partition, in the order in which they were written.
    runs: BTreeMap<String, Vec<Run>>,
    /// The keys of each spill, with the number of the partition they stand in.
    keys: Vec<Run>,
    /// The partitions by their number.
    partitions: Vec<String>,
    runs_made: u64,
    rows: u64,
}

/// Batches that become one: to pick rows from many looks at each column of each.
#[derive(Debug, Default)]
struct Small {
    batches: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
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
            small: Small::default(),
            bytes: 0,
            runs: BTreeMap::new(),
            keys: Vec::new(),
            partitions: Vec::new(),
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
        let bytes = batch.get_array_memory_size();
        self.bytes += bytes;
        self.small.rows += batch.num_rows();
        self.small.bytes += bytes;
        self.small.batches.push(batch);
        if self.small.rows >= rows::BATCH_ROWS || self.small.bytes >= rows::BATCH_BYTES {
            self.join_small()?;
        }
        if self.bytes > self.room.staged { self.spill(false) } else { Ok(()) }
    }

    fn join_small(&mut self) -> Result<()> {
        let small = std::mem::take(&mut self.small).batches;
        match small.as_slice() {
            [] => {}
            [whole] => self.batches.push(whole.clone()),
            small => self.batches.push(concat_batches(&self.run_schema, small)?),
        }
        Ok(())
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

    /// Writes what is in memory as runs, one for each partition, sorted, of each lead the newest version.
    /// `is_all` says that nothing came before nor comes after it.
    fn spill(&mut self, is_all: bool) -> Result<()> {
        self.join_small()?;
        let batches = std::mem::take(&mut self.batches);
        self.bytes = 0;
        if batches.iter().all(|batch| batch.num_rows() == 0) {
            return Ok(());
        }
        let picks = newest_sorted(&batches)?;
        let numbers = self.numbers(&batches, &picks)?;
        if !is_all {
            let mut keys = KeyWriter::new(self.new_run(&superseded::schema())?, self.keys.len());
            keys.write(&batches, &picks, &numbers)?;
            self.keys.push(keys.finish()?);
        }
        let mut of_partition: BTreeMap<usize, Vec<Place>> = BTreeMap::new();
        for (place, number) in picks.into_iter().zip(numbers) {
            of_partition.entry(number).or_default().push(place);
        }
        let run_schema = self.run_schema.clone();
        let total: usize = batches.iter().map(RecordBatch::num_rows).sum();
        let bytes: usize = batches.iter().map(RecordBatch::get_array_memory_size).sum();
        let step = (RUN_BATCH_BYTES / (bytes / total.max(1)).max(1)).clamp(1, rows::BATCH_ROWS);
        for (number, picks) in of_partition {
            let mut writer = self.new_run(&run_schema)?;
            for chunk in picks.chunks(step) {
                writer.write(&Picks::new(chunk.to_vec()).gather_rows(&batches)?)?;
            }
            let partition = self.partitions[number].clone();
            self.runs.entry(partition).or_default().push(writer.finish()?);
        }
        Ok(())
    }

    /// Returns of each row that is picked the number of its partition.
    fn numbers(&mut self, batches: &[RecordBatch], picks: &[Place]) -> Result<Vec<usize>> {
        let created = batches.iter().map(|batch| rows::instants(batch, column::CREATED_AT));
        let created = created.collect::<Result<Vec<_>>>()?;
        let partition_by = self.partition_by;
        let mut known: BTreeMap<Option<(i32, u32)>, usize> = BTreeMap::new();
        let mut number_of = |&(batch, row): &Place| {
            let created = &created[batch];
            let created_us = created.is_valid(row).then(|| created.value(row));
            *known.entry(slot_of(partition_by, created_us)).or_insert_with(|| {
                let name = partition_of(partition_by, created_us);
                let at = self.partitions.iter().position(|partition| *partition == name);
                at.unwrap_or_else(|| {
                    self.partitions.push(name);
                    self.partitions.len() - 1
                })
            })
        };
        Ok(picks.iter().map(&mut number_of).collect())
    }

    /// Merges neighbouring runs of a partition, no more than need be, until all can be read at once. Their
    /// order stays.
    fn narrow(&mut self, mut runs: Vec<Run>) -> Result<Vec<Run>> {
        let width = self.room.merge_width();
        let mut at = 0;
        while runs.len() > width {
            if at + 2 > runs.len() {
                at = 0;
            }
            let too_many = runs.len() - width;
            let end = at + (too_many + 1).min(width).min(runs.len() - at);
            let inputs: Vec<Run> = runs.drain(at..end).collect();
            let run_schema = self.run_schema.clone();
            let mut writer = self.new_run(&run_schema)?;
            let mut merge = Newest::open(&inputs, None, None, RUN_BATCH_BYTES)?;
            while let Some(batch) = merge.next_batch()? {
                writer.write(&batch)?;
            }
            runs.insert(at, writer.finish()?);
            inputs.into_iter().for_each(Run::remove);
            at += 1;
        }
        Ok(runs)
    }

    /// Ends the staging: of each lead the newest version, by partition.
    pub(super) fn finish(mut self) -> Result<Incoming> {
        let is_all = self.runs.is_empty();
        self.spill(is_all)?;
        let keys = std::mem::take(&mut self.keys);
        let mut found = superseded::find(keys, &self.partitions, self.folder.path())?;
        let mut partitions = BTreeMap::new();
        for (partition, runs) in std::mem::take(&mut self.runs) {
            // Of one spill each lead is there once.
            let of_runs = || (runs.iter().map(Run::rows).sum(), None);
            let (rows, superseded) = found.remove(&partition).unwrap_or_else(of_runs);
            let runs = self.narrow(runs)?;
            partitions.insert(partition, Shelf { runs, superseded, rows });
        }
        Ok(Incoming { partitions, schema: self.schema, folder: self.folder })
    }
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
    // Most pages come in the order of their ids: such stretches are found as they are.
    picks.sort_by(|a, b| {
        // Of two with the same recency the one that came last stands first.
        key(a).cmp(key(b)).then_with(|| recency(b).cmp(&recency(a))).then_with(|| b.cmp(a))
    });
    picks.dedup_by(|later, first| key(later) == key(first));
    Ok(picks)
}

#[cfg(test)]
mod tests {
    use super::super::testing::TestLead;
    use super::super::testing::batch;
    use super::super::testing::schema;
    use super::*;

    fn room(merged: usize) -> Room {
        Room { staged: 0, merged }
    }

    #[test]
    fn as_many_runs_are_read_at_once_as_there_is_room_for() {
        assert_eq!([0, 24 << 20, 1 << 30].map(|merged| room(merged).merge_width()), [4, 32, 64]);
    }

    #[test]
    fn small_batches_become_one_before_rows_are_picked_from_them() {
        let place = tempfile::tempdir().unwrap();
        let room = Room { staged: 1 << 30, merged: 1 << 30 };
        let scratch = place.path().to_owned();
        let mut staging = Staging::new(scratch, schema(), Partitioning::Year, room).unwrap();
        for page in 0..300 {
            let leads: Vec<TestLead> = (page * 10..page * 10 + 10)
                .map(|id| TestLead::new(id, 2026, "Robin", i64::from(id)))
                .collect();
            let recency: Vec<Recency> = leads.iter().map(TestLead::recency).collect();
            staging.add(batch(&leads), &recency).unwrap();
        }
        let rows: usize = staging.batches.iter().map(RecordBatch::num_rows).sum();
        assert!(staging.batches.len() < 4, "{}", staging.batches.len());
        assert_eq!((rows + staging.small.rows, staging.rows()), (3_000, 3_000));
        let incoming = staging.finish().unwrap();
        assert_eq!(incoming.partitions["2026"].rows, 3_000);
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
