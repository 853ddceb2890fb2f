//! Parts that are lost, made again from what else holds their rows.
//!
//! Three things do: the change files, in which every row stands as it was written, whole parts of older
//! commits, and the archive, of which the records are mapped again. For a key that the change files tell
//! of, they are right: they hold the last that became of it. Where all changes since an older commit are
//! there, so are its rows for any other key, and no more is needed. Else the newest version of a lead
//! stands, wherever it is from. What comes out is compared with what the commit says of the part; whether
//! that proves it is for the caller to say.

use std::collections::HashMap;
use std::collections::HashSet;
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
use super::Room;
use super::Staging;
use super::column;
use super::incoming::Shelf;
use super::inspect;
use super::part::PartFactory;
use super::part::held_batches;
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

/// What was made of a lost part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebuilt {
    /// The part; none where no row was found.
    pub part: Option<PartFile>,
    /// Rows of it that the changes do not tell of: they are as the newest version that was found.
    pub untold: u64,
    /// Rows that only the archive knows and that were left out, since there are more than the lost part
    /// held: leads that were deleted long ago are still archived.
    pub left_out: u64,
}

/// Collects the rows that lost parts of a source held.
///
/// Memory: the staging's budget, and 16 bytes a key that changes or older parts tell of.
#[derive(Debug)]
pub struct Rebuild {
    staging: Staging,
    lost: Vec<PartFile>,
    /// Of each key that changes tell of, whether it is there after the last of them.
    told: HashMap<u64, bool>,
    /// Keys that a part or change file tells of which is not followed up to the last commit.
    seen: HashSet<u64>,
    seq: Seq,
}

impl Rebuild {
    /// Begins with nothing; `seq` is the commit to be.
    pub fn new(
        scratch: PathBuf,
        partition_by: Partitioning,
        room: Room,
        lost: Vec<PartFile>,
        seq: Seq,
    ) -> Result<Self> {
        let staging = Staging::new(scratch, lead::arrow_schema(), partition_by, room)?;
        Ok(Self { staging, lost, told: HashMap::new(), seen: HashSet::new(), seq })
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
        for batch in inspect::undamaged_rows(store, &changes.file)? {
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
                } else if is_wanted {
                    self.seen.insert(id_hash(lead_id));
                }
                wanted.push(is_wanted);
            }
            let batch = filter_record_batch(&batch, &BooleanArray::from(wanted))?;
            let recency = recency_of(&batch, seq, is_followed)?;
            self.staging.add(batch, &recency)?;
        }
        Ok(())
    }

    /// Takes the rows of a part of an older commit of the same source; before any leads, and where
    /// `is_followed` before the changes. That says that all changes since that commit are there and are
    /// taken: what the part holds is then the last word on what they do not tell of, else only a
    /// version. Fails where the file is not as it was written.
    pub fn take_part(
        &mut self,
        store: &Store,
        part: &PartFile,
        seq: Seq,
        is_followed: bool,
    ) -> Result<()> {
        for batch in inspect::undamaged_rows(store, &part.file)? {
            let batch = batch?;
            let lead_ids = rows::text(&batch, column::LEAD_ID)?;
            let wanted = mask(&lead_ids, |lead_id| self.may_hold(lead_id));
            let batch = filter_record_batch(&batch, &wanted)?;
            for lead_id in rows::text(&batch, column::LEAD_ID)?.iter().flatten() {
                let key = id_hash(lead_id);
                match is_followed {
                    true => drop(self.told.insert(key, true)),
                    false => drop(self.seen.insert(key)),
                }
            }
            let recency = recency_of(&batch, seq, is_followed)?;
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

    /// Writes what was found of each lost part, in their order. Keys that `is_held` says are in other
    /// parts are left out.
    pub fn write(
        self,
        target: &Target<'_>,
        is_held: impl Fn(&str) -> bool,
    ) -> Result<Vec<Rebuilt>> {
        let mut factory = target.factory();
        let incoming = self.staging.finish()?;
        let found = Found { told: self.told, seen: self.seen, is_held };
        let mut made = Vec::with_capacity(self.lost.len());
        for lost in &self.lost {
            let shelf = incoming.partitions.get(&lost.partition);
            let rebuilt = shelf.map(|shelf| found.write(lost, shelf, &mut factory)).transpose()?;
            made.push(rebuilt.unwrap_or(Rebuilt { part: None, untold: 0, left_out: 0 }));
        }
        Ok(made)
    }
}

/// What is known of the keys of the rows that were found.
struct Found<F> {
    told: HashMap<u64, bool>,
    seen: HashSet<u64>,
    is_held: F,
}

impl<F: Fn(&str) -> bool> Found<F> {
    fn write(
        &self,
        lost: &PartFile,
        shelf: &Shelf,
        factory: &mut PartFactory<'_>,
    ) -> Result<Rebuilt> {
        let (found, archived) = self.count(lost, shelf)?;
        let is_left_out = |lead_id: &str| found > lost.rows && self.is_archived_only(lead_id);
        let left_out = if found > lost.rows { archived } else { 0 };
        let (mut part, mut untold) = (None, 0);
        for batch in shelf.batches(None)? {
            let batch = rows::conform(&batch?, &factory.schema)?;
            let lead_ids = rows::text(&batch, column::LEAD_ID)?;
            let is_wanted = |lead_id: &str| self.is_of(lost, lead_id) && !is_left_out(lead_id);
            let rows = filter_record_batch(&batch, &mask(&lead_ids, is_wanted))?;
            let lead_ids = rows::text(&rows, column::LEAD_ID)?;
            let is_untold = |lead_id: &str| !self.told.contains_key(&id_hash(lead_id));
            untold += lead_ids.iter().flatten().filter(|lead_id| is_untold(lead_id)).count();
            if rows.num_rows() > 0 {
                let part = match &mut part {
                    Some(part) => part,
                    none => none.insert(factory.begin(&lost.partition, false)?),
                };
                part.write(&rows)?;
            }
        }
        let part = part.map(|part| factory.finish(part)).transpose()?;
        Ok(Rebuilt { part, untold: untold as u64, left_out })
    }

    /// Counts the rows of a lost part, and those of them that only the archive knows.
    fn count(&self, lost: &PartFile, shelf: &Shelf) -> Result<(u64, u64)> {
        let (mut found, mut archived) = (0, 0);
        for batch in shelf.batches(Some(&[column::LEAD_ID]))? {
            let lead_ids = rows::text(&batch?, column::LEAD_ID)?;
            for lead_id in lead_ids.iter().flatten().filter(|lead_id| self.is_of(lost, lead_id)) {
                found += 1;
                archived += u64::from(self.is_archived_only(lead_id));
            }
        }
        Ok((found, archived))
    }

    fn is_of(&self, lost: &PartFile, lead_id: &str) -> bool {
        let is_told_gone = || self.told.get(&id_hash(lead_id)) == Some(&false);
        is_within(lost, lead_id) && !is_told_gone() && !(self.is_held)(lead_id)
    }

    fn is_archived_only(&self, lead_id: &str) -> bool {
        let key = id_hash(lead_id);
        !self.told.contains_key(&key) && !self.seen.contains(&key)
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

/// Returns how recent rows of a commit's file are: of one that is the last word more than any record of the
/// archive, the later ones more than the earlier; of another one as when the version was received, just
/// more than the record that it was made of.
fn recency_of(batch: &RecordBatch, seq: Seq, is_last_word: bool) -> Result<Vec<Recency>> {
    let received = rows::instants(batch, column::EXTRACTED_AT)?;
    let seq = i64::try_from(seq.0).unwrap_or(i64::MAX / 2);
    let recency = |row| match is_last_word {
        true => Recency { received_us: i64::MAX / 2 + seq, walk_us: 0, place: 0 },
        false => Recency { received_us: received.value(row), walk_us: i64::MAX, place: seq },
    };
    Ok((0..batch.num_rows()).map(recency).collect())
}

fn is_within(part: &PartFile, lead_id: &str) -> bool {
    part.first_lead_id.as_str() <= lead_id && lead_id <= part.last_lead_id.as_str()
}

fn mask(lead_ids: &StringArray, is_wanted: impl Fn(&str) -> bool) -> BooleanArray {
    lead_ids.iter().map(|lead_id| Some(lead_id.is_some_and(&is_wanted))).collect()
}
