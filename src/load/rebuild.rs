//! Parts that are lost, made again from what else holds their rows.
//!
//! Two things do: the change files, in which every row stands as it was written, and the archive, of
//! which the records are mapped again. For a key that the change files tell of, they are right: they
//! hold the last that became of it. For any other the newest archived record is its row, with the
//! lineage of that record. What comes out is compared with what the commit says of the part; whether
//! that proves it is for the caller to say.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::Array;
use arrow::array::ArrayRef;
use arrow::array::BooleanArray;
use arrow::array::Int64Array;
use arrow::array::RecordBatch;
use arrow::array::StringArray;
use arrow::compute::filter_record_batch;

use super::Limits;
use super::Output;
use super::Result;
use super::Staging;
use super::column;
use super::inspect;
use super::part::PartFactory;
use super::part::held_batches;
use super::part::refuse_damaged;
use super::render::CsvWriter;
use super::rows;
use crate::config::Partitioning;
use crate::ids::RunId;
use crate::ids::Seq;
use crate::ids::SourceName;
use crate::record::Recency;
use crate::record::id_hash;
use crate::schema::ChangeFile;
use crate::schema::PartFile;
use crate::schema::StoredFile;
use crate::schema::lead;
use crate::store::Store;

/// Where the parts that are made again go.
#[derive(Debug)]
pub struct Target<'a> {
    /// The lake.
    pub store: &'a Store,
    /// The run, which stands in the names of all new files.
    pub run: &'a RunId,
    /// The commit to be.
    pub seq: Seq,
    /// The source.
    pub source: &'a SourceName,
    /// How they are written.
    pub output: &'a Output,
}

/// A part that was made again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebuilt {
    /// The part.
    pub part: PartFile,
    /// Rows of it that the changes do not tell of: they are as the newest record that is still archived.
    pub untold: u64,
}

/// Collects the rows that lost parts of a source held.
///
/// Memory: the staging's budget, and 16 bytes a key that changes tell of.
#[derive(Debug)]
pub struct Rebuild {
    staging: Staging,
    lost: Vec<PartFile>,
    /// Of each key that changes tell of, whether it is there after the last of them.
    told: HashMap<u64, bool>,
    seq: Seq,
}

impl Rebuild {
    /// Begins with nothing; `seq` is the commit to be.
    pub fn new(
        scratch: PathBuf,
        partition_by: Partitioning,
        budget_bytes: usize,
        lost: Vec<PartFile>,
        seq: Seq,
    ) -> Result<Self> {
        let staging = Staging::new(scratch, lead::arrow_schema(), partition_by, budget_bytes)?;
        Ok(Self { staging, lost, told: HashMap::new(), seq })
    }

    /// Takes what a change file tells of `source`; the files must come in their order, and before any
    /// leads. `is_followed` says that all later ones are there too: what it tells is then the last word,
    /// else only a version of the lead. Fails where the file is not as it was written.
    pub fn take_changes(
        &mut self,
        store: &Store,
        changes: &ChangeFile,
        source: &SourceName,
        seq: Seq,
        is_followed: bool,
    ) -> Result<()> {
        refuse_damaged(store, &changes.file)?;
        for batch in inspect::whole_rows(store, &changes.file)? {
            let batch = batch?;
            let (ops, sources) = (rows::text(&batch, "_op")?, rows::text(&batch, "source")?);
            let lead_ids = rows::text(&batch, column::LEAD_ID)?;
            let deleted = rows::instants(&batch, column::DELETED_AT)?;
            let mut wanted = Vec::with_capacity(batch.num_rows());
            for row in 0..batch.num_rows() {
                let (lead_id, is_ours) =
                    (lead_ids.value(row), sources.value(row) == source.as_str());
                // A lead that is gone may stay with its `_deleted_at`.
                let stays = ops.value(row) == super::Op::Upsert.as_str() || deleted.is_valid(row);
                let is_wanted = is_ours && self.may_hold(lead_id) && (stays || is_followed);
                if is_wanted && is_followed {
                    self.told.insert(id_hash(lead_id), stays);
                }
                wanted.push(is_wanted);
            }
            let batch = filter_record_batch(&batch, &BooleanArray::from(wanted))?;
            let recency = recency_of(&batch, is_followed.then_some(seq))?;
            self.staging.add(batch, &recency)?;
        }
        Ok(())
    }

    /// Takes leads of archived pages, with the recency of each.
    pub fn take_leads(&mut self, leads: &RecordBatch, recency: &[Recency]) -> Result<()> {
        let lead_ids = rows::text(leads, column::LEAD_ID)?;
        let is_wanted = |row: usize| {
            let lead_id = lead_ids.value(row);
            self.may_hold(lead_id) && !self.told.contains_key(&id_hash(lead_id))
        };
        let wanted: Vec<bool> = (0..leads.num_rows()).map(is_wanted).collect();
        let recency: Vec<Recency> = recency
            .iter()
            .zip(&wanted)
            .filter_map(|(recency, wanted)| wanted.then_some(*recency))
            .collect();
        let leads = filter_record_batch(leads, &BooleanArray::from(wanted))?;
        let seq = i64::try_from(self.seq.0).unwrap_or(i64::MAX);
        let mut columns = leads.columns().to_vec();
        columns[lead::column::SEQ] =
            Arc::new(Int64Array::from(vec![seq; leads.num_rows()])) as ArrayRef;
        let leads = RecordBatch::try_new(leads.schema(), columns)?;
        self.staging.add(leads, &recency)
    }

    fn may_hold(&self, lead_id: &str) -> bool {
        self.lost.iter().any(|part| is_within(part, lead_id))
    }

    /// Writes what was found of each lost part, in their order: nothing where nothing was. Keys that
    /// `is_held` says are in other parts are left out.
    pub fn write(
        self,
        target: &Target<'_>,
        is_held: impl Fn(&str) -> bool,
    ) -> Result<Vec<Option<Rebuilt>>> {
        let mut factory = target.factory();
        let incoming = self.staging.distribute()?;
        let mut made = Vec::with_capacity(self.lost.len());
        for lost in &self.lost {
            let Some(run) = incoming.partitions.get(&lost.partition) else {
                made.push(None);
                continue;
            };
            let (mut part, mut untold) = (None, 0);
            for batch in run.batches(None)? {
                let batch = batch?;
                let lead_ids = rows::text(&batch, column::LEAD_ID)?;
                let is_wanted = |lead_id: &str| {
                    let is_told_gone = self.told.get(&id_hash(lead_id)) == Some(&false);
                    is_within(lost, lead_id) && !is_told_gone && !is_held(lead_id)
                };
                let rows = filter_record_batch(&batch, &mask(&lead_ids, is_wanted))?;
                let lead_ids = rows::text(&rows, column::LEAD_ID)?;
                let is_untold = |lead_id: &str| !self.told.contains_key(&id_hash(lead_id));
                untold += lead_ids.iter().flatten().filter(|lead_id| is_untold(lead_id)).count();
                if rows.num_rows() > 0 {
                    let part = match &mut part {
                        Some(part) => part,
                        none => none.insert(factory.begin(&lost.partition)?),
                    };
                    part.write(&rows)?;
                }
            }
            let part = part.map(|part| factory.finish(part)).transpose()?;
            made.push(part.map(|part| Rebuilt { part, untold: untold as u64 }));
        }
        Ok(made)
    }
}

impl Target<'_> {
    fn factory(&self) -> PartFactory<'_> {
        PartFactory {
            store: self.store,
            schema: lead::arrow_schema(),
            source: self.source,
            run: self.run,
            seq: self.seq,
            output: self.output,
            limits: Limits::default(),
            made: 0,
            guarded_cells: 0,
        }
    }

    /// Renders the CSV of a sound part anew, under `stem`, which no other file has. Its compression is
    /// that of the output.
    pub fn render(&self, part: &PartFile, stem: &str) -> Result<StoredFile> {
        let schema = lead::arrow_schema();
        let suffix = super::csv_suffix(self.output.csv_compression);
        let folder = format!("part_source={}/part_created={}", self.source, part.partition);
        let path = format!("csv/{folder}/{stem}{suffix}");
        let mut csv = CsvWriter::create(self.store, path, &schema, self.output)?;
        for batch in held_batches(self.store, part, &schema, None)? {
            csv.write(&batch?)?;
        }
        Ok(csv.finish()?.0)
    }
}

/// Returns how recent rows of a change file are: of one that is the last word more than any record of the
/// archive, the later ones more than the earlier; of another one as when the version was received.
fn recency_of(batch: &RecordBatch, last_word: Option<Seq>) -> Result<Vec<Recency>> {
    let received = rows::instants(batch, column::EXTRACTED_AT)?;
    let received_us = |row: usize| match last_word {
        Some(seq) => i64::MAX / 2 + i64::try_from(seq.0).unwrap_or_default(),
        None => received.value(row),
    };
    let recency = |row| Recency { received_us: received_us(row), walk_us: 0, place: 0 };
    Ok((0..batch.num_rows()).map(recency).collect())
}

fn is_within(part: &PartFile, lead_id: &str) -> bool {
    part.first_lead_id.as_str() <= lead_id && lead_id <= part.last_lead_id.as_str()
}

fn mask(lead_ids: &StringArray, is_wanted: impl Fn(&str) -> bool) -> BooleanArray {
    lead_ids.iter().map(|lead_id| Some(lead_id.is_some_and(&is_wanted))).collect()
}
