//! Looks at what is written, row by row, for telling whether it is what a commit says.
//!
//! Nothing here judges bytes: the caller has compared their hash, or wants to know what is left.

use arrow::array::Array;
use arrow::array::RecordBatch;

use super::Result;
use super::column;
use super::cursor::Batches;
use super::part::HeldPart;
use super::part::refuse_damaged;
use super::rows;
use super::staging::partition_of;
use crate::config::Partitioning;
use crate::schema::ChangeFile;
use crate::schema::PartFile;
use crate::schema::StoredFile;
use crate::store::Store;

/// A row of a part, as far as it tells whether a lake is sound.
#[derive(Debug, Clone, Copy)]
pub struct HeldRow<'a> {
    /// Its key.
    pub lead_id: &'a str,
    /// The hash of its content.
    pub content_hash: &'a str,
    /// Whether it stays in spite of being gone.
    pub is_deleted: bool,
    /// Where its raw record lies.
    pub archive: Option<&'a str>,
}

/// What a part holds, counted anew.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inspected {
    /// Rows.
    pub rows: u64,
    /// Rows of them with `_deleted_at`.
    pub deleted_rows: u64,
    /// The first key.
    pub first_lead_id: String,
    /// The last key.
    pub last_lead_id: String,
    /// Whether each key is greater than the one before it.
    pub is_sorted: bool,
    /// Rows that belong into another partition.
    pub misplaced: u64,
}

impl Inspected {
    /// Returns in what a part differs from what a commit says of it; nothing where it does not.
    pub fn contradiction(&self, part: &PartFile) -> Option<&'static str> {
        if self.rows != part.rows || self.deleted_rows != part.deleted_rows {
            Some("it has another number of rows than the commit says")
        } else if !self.is_sorted {
            Some("its keys are not sorted, or one is there twice")
        } else if self.first_lead_id != part.first_lead_id || self.last_lead_id != part.last_lead_id
        {
            Some("its first or last key is another than the commit says")
        } else if self.misplaced > 0 {
            Some("it has rows of another partition")
        } else {
            None
        }
    }
}

/// Reads the keys of a part and hands each row to `take`. Holds one batch of five columns.
pub fn inspect(
    store: &Store,
    part: &PartFile,
    partition_by: Partitioning,
    mut take: impl FnMut(HeldRow<'_>),
) -> Result<Inspected> {
    let names = [
        column::LEAD_ID,
        column::CREATED_AT,
        column::CONTENT_HASH,
        column::DELETED_AT,
        column::ARCHIVE,
    ];
    let mut seen = Inspected { is_sorted: true, ..Inspected::default() };
    for batch in HeldPart::open_whatever(store, &part.file)?.batches(Some(&names))? {
        inspect_batch(&batch?, part, partition_by, &mut seen, &mut take)?;
    }
    Ok(seen)
}

fn inspect_batch(
    batch: &RecordBatch,
    part: &PartFile,
    partition_by: Partitioning,
    seen: &mut Inspected,
    take: &mut impl FnMut(HeldRow<'_>),
) -> Result<()> {
    let lead_ids = rows::text(batch, column::LEAD_ID)?;
    let hashes = rows::text(batch, column::CONTENT_HASH)?;
    let created = rows::instants(batch, column::CREATED_AT)?;
    let deleted = rows::instants(batch, column::DELETED_AT)?;
    let archives = rows::text(batch, column::ARCHIVE)?;
    for row in 0..batch.num_rows() {
        let lead_id = lead_ids.value(row);
        let at = created.is_valid(row).then(|| created.value(row));
        if seen.rows == 0 {
            lead_id.clone_into(&mut seen.first_lead_id);
        }
        seen.is_sorted &= seen.rows == 0 || lead_id > seen.last_lead_id.as_str();
        seen.rows += 1;
        seen.deleted_rows += u64::from(deleted.is_valid(row));
        seen.misplaced += u64::from(partition_of(partition_by, at) != part.partition);
        lead_id.clone_into(&mut seen.last_lead_id);
        take(HeldRow {
            lead_id,
            content_hash: hashes.value(row),
            is_deleted: deleted.is_valid(row),
            archive: archives.is_valid(row).then(|| archives.value(row)),
        });
    }
    Ok(())
}

/// A row of a change file.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    /// The source.
    pub source: &'a str,
    /// The key.
    pub lead_id: &'a str,
    /// The hash of its content.
    pub content_hash: &'a str,
    /// Whether it goes.
    pub is_delete: bool,
}

/// Reads a change file and hands each row to `take`; returns upserts and deletes.
pub fn changes_in(
    store: &Store,
    changes: &ChangeFile,
    mut take: impl FnMut(Change<'_>),
) -> Result<(u64, u64)> {
    let names = ["_op", "source", column::LEAD_ID, column::CONTENT_HASH];
    let (mut upserts, mut deletes) = (0, 0);
    for batch in HeldPart::open_whatever(store, &changes.file)?.batches(Some(&names))? {
        let batch = batch?;
        let [ops, sources, lead_ids, hashes] = [
            rows::text(&batch, "_op")?,
            rows::text(&batch, "source")?,
            rows::text(&batch, column::LEAD_ID)?,
            rows::text(&batch, column::CONTENT_HASH)?,
        ];
        for row in 0..batch.num_rows() {
            let is_delete = ops.value(row) == super::Op::Delete.as_str();
            upserts += u64::from(!is_delete);
            deletes += u64::from(is_delete);
            take(Change {
                source: sources.value(row),
                lead_id: lead_ids.value(row),
                content_hash: hashes.value(row),
                is_delete,
            });
        }
    }
    Ok((upserts, deletes))
}

/// Returns the whole rows of a Parquet file of the lake. Fails where it is not as it was written.
pub(super) fn undamaged_rows(store: &Store, file: &StoredFile) -> Result<Batches> {
    refuse_damaged(store, file)?;
    HeldPart::open_whatever(store, file)?.batches(None)
}
