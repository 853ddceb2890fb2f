//! What is staged and what is held become the new parts of a source.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use chrono::DateTime;
use chrono::Utc;

use super::ChangeWriter;
use super::Error;
use super::Nested;
use super::Output;
use super::Result;
use super::Staging;
use super::compare::Comparison;
use super::merge::Merger;
use crate::ids::RunId;
use crate::ids::Seq;
use crate::ids::SourceName;
use crate::schema::PartFile;
use crate::store::Store;

/// What a publish merges with, and how it writes.
#[derive(Debug)]
pub struct Publish<'a> {
    /// The lake.
    pub store: &'a Store,
    /// The run, which stands in the names of all new files.
    pub run: &'a RunId,
    /// The commit to be.
    pub seq: Seq,
    /// The source whose leads are staged.
    pub source: &'a SourceName,
    /// The source's living parts.
    pub parts: &'a [PartFile],
    /// Keys proven gone; one that is staged too is not.
    pub gone: &'a BTreeSet<String>,
    /// When they were found gone.
    pub gone_at: DateTime<Utc>,
    /// What is written, and how.
    pub output: &'a Output,
    /// Whether versions or mappings are compared.
    pub mode: Mode,
    /// Writes every part anew, as when the schema has a new column.
    pub rewrite: bool,
    /// How much is written at once and into one file.
    pub limits: Limits,
}

/// What the staged rows are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Leads as received: the newer version of a lead wins.
    #[default]
    Merge,
    /// The held leads, mapped again: content is replaced, lineage and absences stay, and keys that
    /// are not held are dropped.
    Replay,
}

/// How much is written at once and into one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Rows of a part, at most.
    pub part_rows: u64,
    /// Rows of a row group, at most.
    pub row_group_rows: usize,
    /// Bytes of a row group in memory, about.
    pub row_group_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { part_rows: 500_000, row_group_rows: 64 << 10, row_group_bytes: 24 << 20 }
    }
}

/// What a publish made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The source's living parts from now on, by partition and key; those no change touched are
    /// carried over.
    pub parts: Vec<PartFile>,
    /// Rows in them.
    pub rows: u64,
    /// What became of the leads.
    pub counts: Counts,
    /// CSV cells guarded against being run as formulas.
    pub guarded_cells: u64,
}

/// What became of the leads of a publish.
///
/// Every staged lead is counted once, by its newest version, in all but `gone`; except that replayed
/// content of a lead with `_deleted_at` is written without an operation, and not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Not held before.
    pub new: u64,
    /// Held with other content, or held as gone.
    pub changed: u64,
    /// Held in another partition.
    pub moved: u64,
    /// Held, and gone now.
    pub gone: u64,
    /// Held with the same content.
    pub unchanged: u64,
    /// Held in a version received later.
    pub older: u64,
    /// Replayed, but not held.
    pub dropped: u64,
}

impl Counts {
    /// Returns the rows this publish adds to the change file.
    pub fn operations(&self) -> u64 {
        self.new + self.changed + self.moved + self.gone
    }
}

/// Merges what is staged with what is held, writes the parts that change, and appends what was done
/// to `changes` once all parts are written: where it fails, `changes` is as before, unless it is the
/// change file itself that cannot be written.
pub fn publish(
    staging: Staging,
    publish: &Publish<'_>,
    changes: &mut ChangeWriter,
) -> Result<Published> {
    if publish.output.nested == Nested::Native {
        return Err(Error::Unsupported { setting: "`load.nested = \"native\"`" });
    }
    let incoming = staging.distribute()?;
    let comparison = Comparison::make(&incoming, publish)?;
    Merger::new(&incoming, publish)?.run(comparison, changes)
}

/// Returns the parts by partition, each sorted by key, or an error where two overlap.
pub(super) fn by_partition(parts: &[PartFile]) -> Result<BTreeMap<String, Vec<PartFile>>> {
    let mut partitions: BTreeMap<String, Vec<PartFile>> = BTreeMap::new();
    for part in parts {
        partitions.entry(part.partition.clone()).or_default().push(part.clone());
    }
    for parts in partitions.values_mut() {
        parts.sort_by(|a, b| a.first_lead_id.cmp(&b.first_lead_id));
        for pair in parts.windows(2) {
            if pair[0].last_lead_id >= pair[1].first_lead_id {
                let [first, second] = [&pair[0], &pair[1]].map(|part| part.file.path.clone());
                return Err(Error::Overlap { first, second });
            }
        }
    }
    Ok(partitions)
}
