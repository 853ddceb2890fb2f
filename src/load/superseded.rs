//! Leads that came with several dates, and so into several partitions: of each only the newest version
//! counts, wherever it lies.
//!
//! Each spill of a staging writes its keys beside its rows, sorted, with their recency and partition. Merged,
//! they tell what no partition can know by itself. Memory: a batch of each run of keys.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::array::Int64Array;
use arrow::array::RecordBatch;
use arrow::array::StringArray;
use arrow::array::StringBuilder;
use arrow::datatypes::DataType;
use arrow::datatypes::Field;
use arrow::datatypes::Schema;
use arrow::datatypes::SchemaRef;

use super::Result;
use super::column;
use super::cursor::Cursor;
use super::cursor::SideBySide;
use super::incoming::RECENCY;
use super::incoming::Recencies;
use super::rows;
use super::rows::Place;
use super::runs::Run;
use super::runs::RunWriter;

/// The number of the spill a key was in, and of its partition.
const SPILL: &str = "_spill";
const PARTITION: &str = "_partition";

/// Runs of keys that are merged at once; a batch of one has some tens of kilobytes.
const WIDTH: usize = 64;

/// Returns the schema of runs of keys.
pub(super) fn schema() -> SchemaRef {
    let number = |name: &str| Field::new(name, DataType::Int64, false);
    let mut fields = vec![Field::new(column::LEAD_ID, DataType::Utf8, false)];
    fields.extend(RECENCY.into_iter().chain([SPILL, PARTITION]).map(number));
    Arc::new(Schema::new(fields))
}

/// What is known of a version by its key: recency, spill, and partition.
type Version = ([i64; 3], i64, i64);

/// Writes the keys of a spill.
pub(super) struct KeyWriter {
    writer: RunWriter,
    spill: i64,
    lead_ids: StringBuilder,
    versions: Vec<Version>,
}

impl KeyWriter {
    /// Returns the writer of the keys of the spill with this number.
    pub(super) fn new(writer: RunWriter, spill: usize) -> Self {
        let spill = i64::try_from(spill).unwrap_or(i64::MAX);
        Self { writer, spill, lead_ids: StringBuilder::new(), versions: Vec::new() }
    }

    /// Writes the keys of the rows picked, which are sorted; `partitions` has the number of each one's.
    pub(super) fn write(
        &mut self,
        batches: &[RecordBatch],
        picks: &[Place],
        partitions: &[usize],
    ) -> Result<()> {
        let lead_ids: Vec<StringArray> = batches
            .iter()
            .map(|batch| rows::text(batch, column::LEAD_ID))
            .collect::<Result<_>>()?;
        let recencies: Vec<Recencies> = batches.iter().map(Recencies::of).collect::<Result<_>>()?;
        for (&(batch, row), partition) in picks.iter().zip(partitions) {
            let partition = i64::try_from(*partition).unwrap_or(i64::MAX);
            let version = (recencies[batch].get(row), self.spill, partition);
            self.push(lead_ids[batch].value(row), version)?;
        }
        Ok(())
    }

    fn push(&mut self, lead_id: &str, version: Version) -> Result<()> {
        self.lead_ids.append_value(lead_id);
        self.versions.push(version);
        if self.versions.len() == rows::BATCH_ROWS { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let versions = std::mem::take(&mut self.versions);
        let lead_ids = self.lead_ids.finish();
        let parts: [fn(&Version) -> i64; 5] =
            [|v| v.0[0], |v| v.0[1], |v| v.0[2], |v| v.1, |v| v.2];
        let numbers = parts
            .map(|part| Arc::new(versions.iter().map(part).collect::<Int64Array>()) as ArrayRef);
        let columns = std::iter::once(Arc::new(lead_ids) as ArrayRef).chain(numbers).collect();
        self.writer.write(&RecordBatch::try_new(schema(), columns)?)
    }

    /// Ends the run.
    pub(super) fn finish(mut self) -> Result<Run> {
        if !self.versions.is_empty() {
            self.flush()?;
        }
        self.writer.finish()
    }
}

/// Leads of which a partition has the newest version, and a run of those of which it has an older one.
pub(super) type Found = (u64, Option<Run>);

/// Finds the keys that stand in several of the `partitions`; where there were several spills, all partitions
/// are told. The runs of keys are removed.
pub(super) fn find(
    mut keys: Vec<Run>,
    partitions: &[String],
    folder: &Path,
) -> Result<BTreeMap<String, Found>> {
    let mut found = BTreeMap::new();
    if keys.len() > 1 {
        narrow(&mut keys, folder)?;
        let mut search = Search {
            folder,
            lead_id: String::new(),
            newest: None,
            losing: Vec::new(),
            lost: BTreeMap::new(),
            rows: BTreeMap::new(),
        };
        for_each(&keys, |lead_id, version| search.see(lead_id, version))?;
        search.settle()?;
        for (number, partition) in (0..).zip(partitions) {
            let lost = search.lost.remove(&number).map(KeyWriter::finish).transpose()?;
            let rows = search.rows.get(&number).copied().unwrap_or(0);
            found.insert(partition.clone(), (rows, lost));
        }
    }
    keys.into_iter().for_each(Run::remove);
    Ok(found)
}

/// Merges the first runs into one until all can be read at once; of a key all versions stay.
fn narrow(keys: &mut Vec<Run>, folder: &Path) -> Result<()> {
    let mut made = 0;
    while keys.len() > WIDTH {
        made += 1;
        let inputs: Vec<Run> = keys.drain(..WIDTH).collect();
        let writer = RunWriter::create(Run::beside(folder, &format!("keys-{made}")), &schema())?;
        let mut merged = KeyWriter::new(writer, 0);
        for_each(&inputs, |lead_id, version| merged.push(lead_id, version))?;
        keys.push(merged.finish()?);
        inputs.into_iter().for_each(Run::remove);
    }
    Ok(())
}

/// Calls a function with the versions in the order of their keys; those of one key in any order.
fn for_each(runs: &[Run], mut take: impl FnMut(&str, Version) -> Result<()>) -> Result<()> {
    let cursors: Vec<Cursor> = runs.iter().map(|run| run.cursor(None)).collect::<Result<_>>()?;
    let mut read: Vec<Option<(u64, Columns)>> = cursors.iter().map(|_| None).collect();
    let mut beside = SideBySide::new(cursors);
    let mut ties = Vec::new();
    loop {
        beside.smallest(&mut ties);
        if ties.is_empty() {
            return Ok(());
        }
        for &tag in &ties {
            let cursor = beside.cursor(tag);
            let (Some((batch, row)), Some(key)) = (cursor.place(), cursor.key()) else { continue };
            if read[tag].as_ref().is_none_or(|(serial, _)| *serial != cursor.serial()) {
                read[tag] = Some((cursor.serial(), Columns::of(batch)?));
            }
            if let Some((_, columns)) = &read[tag] {
                take(key, columns.get(row))?;
            }
        }
        beside.advance(&ties)?;
    }
}

/// The columns of a batch of keys.
struct Columns {
    recencies: Recencies,
    spill: Int64Array,
    partition: Int64Array,
}

impl Columns {
    fn of(batch: &RecordBatch) -> Result<Self> {
        Ok(Self {
            recencies: Recencies::of(batch)?,
            spill: rows::numbers(batch, SPILL)?,
            partition: rows::numbers(batch, PARTITION)?,
        })
    }

    fn get(&self, row: usize) -> Version {
        (self.recencies.get(row), self.spill.value(row), self.partition.value(row))
    }
}

/// What is known of the key that is looked at, and the keys found before it.
struct Search<'f> {
    folder: &'f Path,
    lead_id: String,
    newest: Option<Version>,
    /// Partitions with an older version of it.
    losing: Vec<i64>,
    lost: BTreeMap<i64, KeyWriter>,
    /// By partition, keys of which it has the newest version.
    rows: BTreeMap<i64, u64>,
}

impl Search<'_> {
    fn see(&mut self, lead_id: &str, version: Version) -> Result<()> {
        if lead_id != self.lead_id {
            self.settle()?;
            lead_id.clone_into(&mut self.lead_id);
        }
        let (newer, older) = match self.newest {
            Some(newest) if newest > version => (newest, Some(version)),
            newest => (version, newest),
        };
        self.newest = Some(newer);
        self.losing.extend(older.map(|(.., partition)| partition));
        Ok(())
    }

    /// Notes in which partitions the key is lost.
    fn settle(&mut self) -> Result<()> {
        let Some(newest) = self.newest.take() else { return Ok(()) };
        *self.rows.entry(newest.2).or_default() += 1;
        self.losing.sort_unstable();
        self.losing.dedup();
        for partition in self.losing.drain(..).filter(|partition| *partition != newest.2) {
            let lost = match self.lost.entry(partition) {
                std::collections::btree_map::Entry::Occupied(lost) => lost.into_mut(),
                std::collections::btree_map::Entry::Vacant(new) => {
                    let at = Run::beside(self.folder, &format!("superseded-{partition}"));
                    new.insert(KeyWriter::new(RunWriter::create(at, &schema())?, 0))
                }
            };
            lost.push(&self.lead_id, newest)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::testing::Lake;
    use super::super::testing::TestLead;

    /// Leads of which each batch is spilled by itself: id, year and time received.
    fn any_batches() -> impl Strategy<Value = Vec<Vec<(u32, i32, i64)>>> {
        let lead = (1..12_u32, 2020..2024_i32, 0..9_i64);
        prop::collection::vec(prop::collection::vec(lead, 0..6), 1..90)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn of_a_lead_with_many_dates_the_newest_version_is_loaded_and_no_other(batches in any_batches()) {
            let mut newest = BTreeMap::new();
            let mut next = 0;
            let batches: Vec<Vec<TestLead>> = batches
                .into_iter()
                .map(|leads| {
                    let lead = |(id, year, received_us): (u32, i32, i64)| {
                        next += 1;
                        let lead = TestLead::new(id, year, &format!("{next}"), received_us);
                        let known: &mut TestLead = newest.entry(lead.id.clone()).or_insert_with(|| lead.clone());
                        // Of two that were received at once, the one that came last.
                        if known.extracted_us <= received_us {
                            *known = lead.clone();
                        }
                        lead
                    };
                    leads.into_iter().map(lead).collect()
                })
                .collect();
            let mut lake = Lake::new();
            lake.budget_bytes = 0;
            lake.publish_batches(&batches, &BTreeSet::new()).unwrap();
            let seq = lake.seq.0;
            let expected: BTreeMap<String, TestLead> = newest
                .into_iter()
                .map(|(id, lead)| (id, TestLead { seq: i64::try_from(seq).unwrap(), ..lead }))
                .collect();
            prop_assert_eq!(lake.parts.iter().map(|part| part.rows).sum::<u64>(), expected.len() as u64);
            prop_assert_eq!(lake.rows(), expected);
        }
    }
}
