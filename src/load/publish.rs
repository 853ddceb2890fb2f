//! What is staged and what is held become the new parts of a source.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use chrono::DateTime;
use chrono::Utc;

use super::ChangeWriter;
use super::Error;
use super::Output;
use super::Readings;
use super::Result;
use super::Staging;
use super::compare::Comparison;
use super::merge::Merger;
use crate::checkpoint::Caught;
use crate::config::Nested;
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
    /// What changed leads are counted for, by the segment that brought them.
    pub readings: &'a Readings,
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
    /// Bytes of a row group in memory, about: of a part, and of the change file that is open beside it.
    pub row_group_bytes: usize,
    /// From so many rows on, all of them new, the change file takes the row groups of their parts as they
    /// are encoded: of few it would be given many small ones.
    pub copied_rows: u64,
}

impl Limits {
    /// Returns those of files whose row groups take so much memory.
    pub fn of_memory(row_group_bytes: usize) -> Self {
        Self { part_rows: 500_000, row_group_rows: 64 << 10, row_group_bytes, copied_rows: 8 << 10 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::of_memory(6 << 20)
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
    /// Of the changed and moved, those held with other content: what they are counted for.
    pub caught: Caught,
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
/// to `changes`. Where it fails, what was written is for nothing, `changes` too.
pub fn publish(
    staging: Staging,
    publish: &Publish<'_>,
    changes: &mut ChangeWriter,
) -> Result<Published> {
    if publish.output.nested == Nested::Native {
        return Err(Error::Unsupported { setting: "`load.nested = \"native\"`" });
    }
    let incoming = staging.finish()?;
    let comparison = Comparison::make(&incoming, publish)?;
    Merger::new(&incoming, publish, changes)?.run(comparison)
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

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::super::LeadKey;
    use super::super::lead_keys;
    use super::super::testing::Lake;
    use super::super::testing::TestLead;
    use super::super::testing::schema;
    use super::*;
    use crate::config::CsvCompression;
    use crate::config::Format;
    use crate::config::OnDelete;
    use crate::config::ParquetCompression;
    use crate::config::Partitioning;
    use crate::error::Hint;

    fn lead(id: u32, name: &str, received_us: i64) -> TestLead {
        TestLead::new(id, 2024, name, received_us)
    }

    fn pairs(reasons: &[(&str, &str)]) -> Vec<(String, String)> {
        reasons.iter().map(|(id, reason)| ((*id).to_owned(), (*reason).to_owned())).collect()
    }

    #[test]
    fn nothing_staged_and_nothing_held_is_no_part_and_an_empty_change_file() {
        let mut lake = Lake::new();
        let (published, changes) = lake.publish(&[]);
        assert_eq!((published.parts.len(), changes.rows), (0, 0));
        assert!(lake.changes(&changes).is_empty());
    }

    #[test]
    fn the_changes_of_a_first_load_are_the_rows_of_its_parts() {
        let mut lake = Lake::new();
        let leads: Vec<TestLead> = (1..=11).map(|id| lead(id, &format!("Ann {id}"), 1)).collect();
        let elsewhere = TestLead { year: Some(2025), ..lead(50, "Dee", 1) };
        let (published, changes) = lake.publish(&[leads, vec![elsewhere]].concat());
        assert_eq!(published.counts, Counts { new: 12, ..Counts::default() });
        assert_eq!((changes.rows, changes.upserts, lake.parts.len()), (12, 12, 4));
        let told = lake.changes(&changes);
        assert!(
            told.iter().all(|(op, reason, _)| (op.as_str(), reason.as_str()) == ("upsert", "new"))
        );
        let told: Vec<TestLead> = told.into_iter().map(|(_, _, lead)| lead).collect();
        assert_eq!(told, lake.rows().into_values().collect::<Vec<_>>());
    }

    #[test]
    fn a_lead_staged_with_two_dates_stands_only_where_the_newest_version_belongs() {
        let mut lake = Lake::new();
        let old = lead(1, "Ann", 1);
        let new = TestLead { year: Some(2025), ..lead(1, "Ann", 2) };
        let (published, changes) = lake.publish(&[new.clone(), old]);
        assert_eq!(published.counts, Counts { new: 1, ..Counts::default() });
        assert_eq!(lake.rows().into_values().next(), Some(TestLead { seq: 1, ..new }));
        assert_eq!(lake.parts[0].partition, "2025");
        assert_eq!(changes.upserts, 1);
    }

    #[test]
    fn more_runs_than_are_read_at_once_are_merged_in_passes() {
        let mut lake = Lake::new();
        let versions = (1..=40).map(|version| vec![lead(1, "Ann", version), lead(7, "Bea", 50)]);
        let batches: Vec<Vec<TestLead>> = versions.rev().collect();
        lake.publish_batches(&batches, &BTreeSet::new()).unwrap();
        let rows = lake.rows();
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[&lead(1, "", 0).id].extracted_us, 40);
    }

    #[test]
    fn the_same_leads_again_write_nothing_and_keep_their_lineage() {
        let mut lake = Lake::new();
        lake.publish(&[lead(1, "Ann", 1), lead(2, "Bea", 1)]);
        let (parts, rows) = (lake.parts.clone(), lake.rows());
        let (published, changes) = lake.publish(&[lead(1, "Ann", 9), lead(2, "Bea", 9)]);
        assert_eq!(published.counts, Counts { unchanged: 2, ..Counts::default() });
        assert_eq!((lake.parts.clone(), lake.rows(), changes.rows), (parts, rows, 0));
    }

    #[test]
    fn another_scope_rewrites_the_row_and_is_no_change() {
        let mut lake = Lake::new();
        lake.publish(&[lead(1, "Ann", 1)]);
        let before = lake.rows();
        let (published, changes) =
            lake.publish(&[TestLead { scope: "profile:2".to_owned(), ..lead(1, "Ann", 9) }]);
        assert_eq!((published.counts.unchanged, changes.rows), (1, 0));
        let mut after = lake.rows();
        let row = after.values_mut().next().unwrap();
        assert_eq!(std::mem::replace(&mut row.scope, "all".to_owned()), "profile:2");
        assert_eq!(after, before);
    }

    #[test]
    fn a_changed_lead_keeps_when_it_was_first_seen() {
        let mut lake = Lake::new();
        lake.publish(&[lead(1, "Ann", 1)]);
        let (_, changes) = lake.publish(&[lead(1, "Anna", 9)]);
        assert_eq!(lake.reasons(&changes), pairs(&[("0001", "changed")]));
        let row = lake.rows().into_values().next().unwrap();
        assert_eq!(row, TestLead { first_seen_us: 1, seq: 2, ..lead(1, "Anna", 9) });
        assert_eq!(lake.changes(&changes)[0].2, row);
    }

    #[test]
    fn a_version_received_earlier_does_not_replace_the_one_held() {
        let mut lake = Lake::new();
        lake.publish(&[lead(1, "Anna", 9)]);
        let before = (lake.rows(), lake.parts.clone());
        let moved = TestLead { year: Some(2025), ..lead(1, "Ann", 2) };
        for older in [lead(1, "Ann", 1), moved] {
            let (published, changes) = lake.publish(&[older]);
            assert_eq!(published.counts, Counts { older: 1, ..Counts::default() });
            assert_eq!(changes.rows, 0);
        }
        assert_eq!((lake.rows(), lake.parts.clone()), before);
    }

    #[test]
    fn a_lead_with_another_date_moves_in_one_operation() {
        let mut lake = Lake::new();
        lake.publish(&[lead(1, "Ann", 1), lead(2, "Bea", 1)]);
        let moved = TestLead { year: Some(2025), ..lead(1, "Ann", 9) };
        let (published, changes) = lake.publish(std::slice::from_ref(&moved));
        assert_eq!(published.counts, Counts { moved: 1, ..Counts::default() });
        assert_eq!(lake.reasons(&changes), pairs(&[("0001", "moved")]));
        let row = TestLead { first_seen_us: 1, seq: 2, ..moved };
        assert_eq!(lake.rows().get(&row.id), Some(&row));
        assert_eq!(lake.rows().len(), 2);
    }

    #[test]
    fn a_lead_that_is_gone_goes_and_leaves_its_whole_last_row() {
        let mut lake = Lake::new();
        lake.publish(&[lead(1, "Ann", 1), lead(2, "Bea", 1)]);
        let last = lake.rows()[&lead(1, "", 0).id].clone();
        let (published, changes) = lake.publish_gone(&[lead(1, "", 0), lead(9, "", 0)]);
        assert_eq!(published.counts, Counts { gone: 1, ..Counts::default() });
        assert_eq!((published.rows, changes.deletes), (1, 1));
        let (op, reason, row) = lake.changes(&changes).remove(0);
        assert_eq!((op.as_str(), reason.as_str()), ("delete", "gone"));
        // The file has one `_seq`, that of the commit.
        assert_eq!(row, TestLead { seq: 2, ..last });
    }

    #[test]
    fn a_lead_that_was_staged_is_not_gone() {
        let mut lake = Lake::new();
        lake.publish(&[lead(1, "Ann", 1)]);
        let gone = BTreeSet::from([lead(1, "", 0).id]);
        let (published, changes) = lake.publish_batches(&[vec![lead(1, "Ann", 9)]], &gone).unwrap();
        assert_eq!((published.counts.unchanged, published.rows, changes.rows), (1, 1, 0));
    }

    #[test]
    fn a_lead_kept_when_gone_comes_back_as_changed() {
        let mut lake = Lake::new();
        lake.output.on_delete = OnDelete::Keep;
        lake.publish(&[lead(1, "Ann", 1)]);
        let (_, changes) = lake.publish_gone(&[lead(1, "", 0)]);
        assert_eq!(lake.reasons(&changes), pairs(&[("0001", "gone")]));
        let gone_us = lake.gone_at().timestamp_micros();
        let row = lake.rows().into_values().next().unwrap();
        assert_eq!((row.deleted_us, row.seq), (Some(gone_us), 1));
        assert_eq!(lake.parts[0].deleted_rows, 1);

        let (_, changes) = lake.publish_gone(&[lead(1, "", 0)]);
        assert_eq!(changes.rows, 0, "it is gone once");
        let (_, changes) = lake.publish(&[lead(1, "Ann", 9)]);
        assert_eq!(lake.reasons(&changes), pairs(&[("0001", "changed")]));
        let row = lake.rows().into_values().next().unwrap();
        assert_eq!((row.deleted_us, row.seq, row.extracted_us), (None, 4, 1));
    }

    #[test]
    fn a_part_that_no_key_touches_is_not_even_opened() {
        let mut lake = Lake::new();
        let leads: Vec<TestLead> = (1..=8).map(|id| lead(id, "Ann", 1)).collect();
        lake.publish(&leads);
        assert_eq!(lake.parts.len(), 2);
        let untouched = lake.parts[0].clone();
        lake.store.remove(&untouched.file.path).unwrap();
        let elsewhere = TestLead { year: Some(2025), ..lead(99, "Dee", 9) };
        lake.publish(&[lead(6, "Bea", 9), lead(12, "Cy", 9), elsewhere]);
        assert_eq!(lake.parts[0], untouched);
        assert_eq!(lake.parts.iter().map(|part| part.rows).sum::<u64>(), 10);
    }

    #[test]
    fn new_leads_fill_the_last_part_before_there_is_another() {
        let mut lake = Lake::new();
        lake.publish(&[lead(1, "Ann", 1), lead(2, "Ann", 1)]);
        lake.publish(&[lead(3, "Ann", 1), lead(4, "Ann", 1)]);
        assert_eq!(lake.parts.len(), 1);
        let full = lake.parts[0].clone();
        lake.publish(&[lead(5, "Ann", 1)]);
        assert_eq!(lake.parts.len(), 2);
        assert_eq!(lake.parts[0], full);
    }

    #[test]
    fn a_missing_part_fails_the_publish_and_changes_nothing() {
        let mut lake = Lake::new();
        lake.publish(&[lead(1, "Ann", 1)]);
        lake.store.remove(&lake.parts[0].file.path).unwrap();
        let staged = [vec![lead(1, "Bea", 9), lead(2, "Cy", 9)]];
        let error = lake.publish_batches(&staged, &BTreeSet::new()).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error:?}");
    }

    #[test]
    fn a_part_with_a_flipped_bit_fails_the_publish_and_changes_nothing() {
        let mut lake = Lake::new();
        lake.publish(&[lead(1, "Ann", 1)]);
        let path = lake.parts[0].file.path.clone();
        let whole = lake.store.read(&path).unwrap();
        let staged = [vec![lead(1, "Bea", 9), lead(2, "Cy", 9)]];
        for bit in (0..whole.len() * 8).step_by(1_009) {
            let mut flipped = whole.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            lake.store.write(&path, &flipped).unwrap();
            let error = lake.publish_batches(&staged, &BTreeSet::new()).unwrap_err();
            assert!(matches!(&error, Error::Damaged { path: named, .. } if *named == path));
            assert!(error.hint().unwrap().contains("verify JOB"));
        }
        lake.store.write(&path, &whole).unwrap();
        let (published, _) = lake.publish_batches(&staged, &BTreeSet::new()).unwrap();
        assert_eq!(published.counts, Counts { new: 1, changed: 1, ..Counts::default() });
    }

    #[test]
    fn a_replay_of_a_record_from_before_the_held_version_changes_nothing() {
        let mut lake = Lake::new();
        lake.publish(&[lead(1, "Ann", 1), lead(2, "Bea", 1)]);
        let moved = TestLead { year: Some(2025), ..lead(2, "Bea", 5) };
        lake.publish(&[lead(1, "Anna", 5), moved]);
        let before = (lake.rows(), lake.parts.clone());
        // The segment of the second receipt is lost.
        lake.mode = Mode::Replay;
        let (published, changes) = lake.publish(&[lead(1, "Ann", 1), lead(2, "Bea", 1)]);
        assert_eq!(published.counts, Counts { older: 2, ..Counts::default() });
        assert_eq!((lake.rows(), lake.parts.clone(), changes.rows), (before.0, before.1, 0));
    }

    #[test]
    fn parts_that_overlap_are_refused() {
        let mut lake = Lake::new();
        lake.publish(&[lead(1, "Ann", 1)]);
        lake.parts.push(lake.parts[0].clone());
        let error = lake.publish_batches(&[], &BTreeSet::new()).unwrap_err();
        assert!(matches!(error, Error::Overlap { .. }), "{error:?}");
    }

    #[test]
    fn nested_columns_are_refused() {
        let mut lake = Lake::new();
        lake.output.nested = Nested::Native;
        let error = lake.publish_batches(&[], &BTreeSet::new()).unwrap_err();
        assert_eq!(error.to_string(), "`load.nested = \"native\"` is not supported");
    }

    #[test]
    fn a_replay_replaces_content_and_keeps_the_rest() {
        let mut lake = Lake::new();
        lake.publish(&[lead(1, "Ann", 5), lead(2, "Bea", 5), lead(3, "Cy", 5)]);
        lake.mode = Mode::Replay;
        let (published, changes) =
            lake.publish(&[lead(1, "Anna", 5), lead(2, "Bea", 5), lead(4, "Dee", 5)]);
        let counts = Counts { changed: 1, unchanged: 1, dropped: 1, ..Counts::default() };
        assert_eq!(published.counts, counts);
        assert_eq!(lake.reasons(&changes), pairs(&[("0001", "changed")]));
        let rows: Vec<TestLead> = lake.rows().into_values().collect();
        let seq = 1;
        let mapped = TestLead { name: "Anna".to_owned(), seq: 2, ..lead(1, "Ann", 5) };
        let (second, third) =
            (TestLead { seq, ..lead(2, "Bea", 5) }, TestLead { seq, ..lead(3, "Cy", 5) });
        assert_eq!(rows, [mapped, second, third]);
    }

    #[test]
    fn a_rewrite_gives_every_part_the_new_column_without_an_operation() {
        use arrow::datatypes::DataType;
        use arrow::datatypes::Field;
        use arrow::datatypes::Schema;

        let mut lake = Lake::new();
        lake.publish(&(1..=8).map(|id| lead(id, "Ann", 1)).collect::<Vec<_>>());
        let (before, rows) = (lake.parts.clone(), lake.rows());
        let mut fields = schema().fields().to_vec();
        fields.push(std::sync::Arc::new(Field::new("new_column", DataType::Utf8, true)));
        lake.schema = std::sync::Arc::new(Schema::new(fields));
        lake.rewrite = true;
        let (published, changes) = lake.publish(&[lead(2, "Ann", 9)]);
        assert_eq!((published.counts.unchanged, changes.rows), (1, 0));
        assert!(lake.parts.iter().all(|part| !before.contains(part)));
        assert_eq!(lake.rows(), rows);
    }

    #[test]
    fn parts_are_plain_sorted_parquet_with_a_filter_on_the_key() {
        use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
        use parquet::basic::Type as ParquetType;

        let mut lake = Lake::new();
        lake.output.compression = ParquetCompression::Zstd;
        lake.publish(&[lead(1, "Ann", 1), lead(2, "Bea", 1), lead(3, "Cy", 1)]);
        let path = &lake.parts[0].file.path;
        assert!(path.starts_with("parts/part_source=acme/part_created=2024/000000001-"), "{path}");
        let file = lake.store.open_file(path).unwrap();
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        let metadata = builder.metadata();
        let told = metadata.file_metadata().key_value_metadata().unwrap();
        assert_eq!(
            told.iter().map(|told| told.key.as_str()).collect::<Vec<_>>(),
            ["leadpipe.filled.v1"]
        );
        assert_eq!(builder.schema().fields(), schema().fields());
        assert_eq!(metadata.num_row_groups(), 2);
        let group = metadata.row_group(0);
        assert_eq!(group.sorting_columns().unwrap()[0].column_idx, 1);
        for (index, column) in group.columns().iter().enumerate() {
            assert_eq!(column.bloom_filter_offset().is_some(), index == 1);
            let is_compared = index == 1 || column.column_type() != ParquetType::BYTE_ARRAY;
            assert_eq!(column.statistics().is_some(), is_compared);
        }
        let filter = builder.get_row_group_column_bloom_filter(0, 1).unwrap().unwrap();
        assert!(filter.check(&lead(1, "", 0).id.as_str()));
        assert!(!filter.check(&lead(3, "", 0).id.as_str()));
    }

    #[test]
    fn csv_is_the_part_as_text() {
        let mut lake = Lake::new();
        lake.output.format = Format::Csv;
        let (published, _) = lake.publish(&[lead(1, "+Ann, \"A\"", 1), lead(2, "spam", 1)]);
        // The name of the one; `extra` begins with `=`, but is JSON.
        assert_eq!(published.guarded_cells, 1);
        let csv = lake.parts[0].csv.clone().unwrap();
        assert_eq!(
            csv.path.replace("csv/", "parts/").replace(".csv", ".parquet"),
            lake.parts[0].file.path
        );
        let text = String::from_utf8(lake.store.read(&csv.path).unwrap().to_vec()).unwrap();
        let lines: Vec<&str> = text.split("\r\n").collect();
        assert!(
            lines[0].starts_with("source,lead_id,created_at,full_name,is_spam,sales_value,extra,")
        );
        assert!(
            lines[1].starts_with(
                "acme,whatconverts:leads:0001,2024-06-01T00:00:00Z,\"'+Ann, \"\"A\"\"\",false,11.25,"
            ),
            "{}",
            lines[1]
        );
        assert!(lines[2].contains(",spam,true,5,=spam,all,"), "{}", lines[2]);
        assert!(lines[2].ends_with(",1,archive#1,"), "{}", lines[2]);
        assert_eq!(lines[3..], [""]);
    }

    #[test]
    fn csv_follows_the_setting_also_for_parts_that_stay() {
        let mut lake = Lake::new();
        lake.publish(&[lead(1, "Ann", 1)]);
        assert_eq!(lake.parts[0].csv, None);
        let part = lake.parts[0].file.clone();
        let mut texts = BTreeSet::new();
        for compression in [CsvCompression::None, CsvCompression::Gzip, CsvCompression::Zstd] {
            lake.output.format = Format::Both;
            lake.output.csv_compression = compression;
            lake.publish(&[]);
            let csv = lake.parts[0].csv.clone().unwrap();
            let bytes = lake.store.read(&csv.path).unwrap();
            let mut text = String::new();
            match compression {
                CsvCompression::None => (&bytes[..]).read_to_string(&mut text).unwrap(),
                CsvCompression::Gzip => {
                    flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap()
                }
                CsvCompression::Zstd => {
                    zstd::Decoder::new(&bytes[..]).unwrap().read_to_string(&mut text).unwrap()
                }
            };
            texts.insert(text);
            lake.publish(&[]);
            assert_eq!(lake.parts[0].csv, Some(csv), "what is there is not made again");
        }
        assert_eq!(texts.len(), 1);
        assert_eq!(lake.parts[0].file, part);
        lake.output.format = Format::Parquet;
        lake.publish(&[]);
        assert_eq!(lake.parts[0].csv, None);
    }

    #[test]
    fn months_and_leads_without_a_date_have_partitions_of_their_own() {
        let mut lake = Lake::new();
        lake.partition_by = Partitioning::Month;
        let undated = TestLead { year: None, ..lead(2, "Bea", 1) };
        lake.publish(&[lead(1, "Ann", 1), undated]);
        let partitions: Vec<&str> = lake.parts.iter().map(|part| part.partition.as_str()).collect();
        assert_eq!(partitions, ["2024-06", "unknown"]);
    }

    #[test]
    fn held_keys_can_be_listed() {
        let mut lake = Lake::new();
        lake.publish(&[lead(1, "Ann", 1), TestLead { year: Some(2025), ..lead(2, "Bea", 1) }]);
        let window = crate::window::Window::new(
            "2025-01-01T00:00:00Z".parse().unwrap(),
            "2026-01-01T00:00:00Z".parse().unwrap(),
        );
        let keys: Vec<LeadKey> =
            lead_keys(&lake.store, &lake.parts, window).collect::<Result<_>>().unwrap();
        assert_eq!(keys.len(), 1);
        assert_eq!(keys[0].lead_id, lead(2, "", 0).id);
        assert_eq!(keys[0].created_at, Some("2025-06-01T00:00:00Z".parse().unwrap()));
        assert_eq!((keys[0].scope.as_str(), keys[0].deleted_at), ("all", None));
        assert_eq!(lead_keys(&lake.store, &lake.parts, None).count(), 2);
    }
}
