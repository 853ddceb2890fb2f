//! What the tests of this module share: a small lead, and a lake to publish it to.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::Array;
use arrow::array::ArrayRef;
use arrow::array::AsArray;
use arrow::array::BooleanArray;
use arrow::array::Decimal128Array;
use arrow::array::Int64Array;
use arrow::array::RecordBatch;
use arrow::array::StringArray;
use arrow::array::TimestampMicrosecondArray;
use arrow::datatypes::DataType;
use arrow::datatypes::Field;
use arrow::datatypes::Int64Type;
use arrow::datatypes::Schema;
use arrow::datatypes::SchemaRef;
use arrow::datatypes::TimeUnit;
use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::ChangeWriter;
use super::Limits;
use super::Mode;
use super::Output;
use super::Publish;
use super::Published;
use super::Readings;
use super::Result;
use super::Room;
use super::Staging;
use super::cursor::Batches;
use super::part::held_batches;
use super::publish;
use super::rows;
use crate::config::ParquetCompression;
use crate::config::Partitioning;
use crate::ids::RunId;
use crate::ids::Seq;
use crate::ids::SourceName;
use crate::record::Recency;
use crate::schema::ChangeFile;
use crate::schema::PartFile;
use crate::store::Store;

/// A lead, as far as these tests need one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TestLead {
    pub(super) id: String,
    pub(super) year: Option<i32>,
    pub(super) name: String,
    pub(super) scope: String,
    pub(super) first_seen_us: i64,
    pub(super) extracted_us: i64,
    pub(super) run: String,
    pub(super) seq: i64,
    pub(super) archive: String,
    pub(super) deleted_us: Option<i64>,
}

impl TestLead {
    pub(super) fn new(id: u32, year: i32, name: &str, received_us: i64) -> Self {
        Self {
            id: format!("whatconverts:leads:{id:04}"),
            year: Some(year),
            name: name.to_owned(),
            scope: "all".to_owned(),
            first_seen_us: received_us,
            extracted_us: received_us,
            run: "run".to_owned(),
            seq: 0,
            archive: format!("archive#{received_us}"),
            deleted_us: None,
        }
    }

    pub(super) fn created_us(&self) -> Option<i64> {
        let created = format!("{}-06-01T00:00:00Z", self.year?);
        Some(created.parse::<DateTime<Utc>>().unwrap().timestamp_micros())
    }

    pub(super) fn hash(&self) -> String {
        format!("{:?}/{}", self.year, self.name)
    }

    pub(super) fn recency(&self) -> Recency {
        Recency { received_us: self.extracted_us, walk_us: 0, place: 0 }
    }
}

pub(super) fn schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let text = DataType::Utf8;
    let fields = [
        ("source", &text, false),
        ("lead_id", &text, false),
        ("created_at", &time, true),
        ("full_name", &text, true),
        ("is_spam", &DataType::Boolean, true),
        ("sales_value", &DataType::Decimal128(18, 4), true),
        ("extra", &text, true),
        ("_scope", &text, false),
        ("_content_hash", &text, false),
        ("_first_seen_at", &time, false),
        ("_extracted_at", &time, false),
        ("_run_id", &text, false),
        ("_seq", &DataType::Int64, false),
        ("_archive", &text, true),
        ("_deleted_at", &time, true),
    ];
    let field =
        |(name, kind, nullable): (&str, &DataType, bool)| Field::new(name, kind.clone(), nullable);
    Arc::new(Schema::new(fields.map(field).to_vec()))
}

pub(super) fn batch(leads: &[TestLead]) -> RecordBatch {
    fn texts(leads: &[TestLead], text: impl Fn(&TestLead) -> String) -> ArrayRef {
        Arc::new(leads.iter().map(|lead| Some(text(lead))).collect::<StringArray>())
    }
    fn times(leads: &[TestLead], time: impl Fn(&TestLead) -> Option<i64>) -> ArrayRef {
        let times: TimestampMicrosecondArray = leads.iter().map(time).collect();
        Arc::new(times.with_timezone("UTC"))
    }
    let spam: BooleanArray = leads.iter().map(|lead| Some(lead.name == "spam")).collect();
    let values: Decimal128Array =
        leads.iter().map(|lead| Some(lead.name.len() as i128 * 12_500)).collect();
    let columns: Vec<ArrayRef> = vec![
        texts(leads, |_| "acme".to_owned()),
        texts(leads, |lead| lead.id.clone()),
        times(leads, TestLead::created_us),
        texts(leads, |lead| lead.name.clone()),
        Arc::new(spam),
        Arc::new(values.with_precision_and_scale(18, 4).unwrap()),
        texts(leads, |lead| format!("={}", lead.name)),
        texts(leads, |lead| lead.scope.clone()),
        texts(leads, TestLead::hash),
        times(leads, |lead| Some(lead.first_seen_us)),
        times(leads, |lead| Some(lead.extracted_us)),
        texts(leads, |lead| lead.run.clone()),
        Arc::new(leads.iter().map(|lead| lead.seq).collect::<Int64Array>()),
        texts(leads, |lead| lead.archive.clone()),
        times(leads, |lead| lead.deleted_us),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

pub(super) fn leads_of(batch: &RecordBatch) -> Vec<TestLead> {
    let text = |name: &str| rows::text(batch, name).unwrap();
    let time = |name: &str| rows::instants(batch, name).unwrap();
    let (ids, names, scopes) = (text("lead_id"), text("full_name"), text("_scope"));
    let (runs, archives, hashes) = (text("_run_id"), text("_archive"), text("_content_hash"));
    let (created, deleted) = (time("created_at"), time("_deleted_at"));
    let (first_seen, extracted) = (time("_first_seen_at"), time("_extracted_at"));
    let seqs = batch.column_by_name("_seq").unwrap().as_primitive::<Int64Type>();
    let lead = |row: usize| {
        let year = created.is_valid(row).then(|| {
            let time = DateTime::from_timestamp_micros(created.value(row)).unwrap();
            time.format("%Y").to_string().parse().unwrap()
        });
        let lead = TestLead {
            id: ids.value(row).to_owned(),
            year,
            name: names.value(row).to_owned(),
            scope: scopes.value(row).to_owned(),
            first_seen_us: first_seen.value(row),
            extracted_us: extracted.value(row),
            run: runs.value(row).to_owned(),
            seq: seqs.value(row),
            archive: archives.value(row).to_owned(),
            deleted_us: deleted.is_valid(row).then(|| deleted.value(row)),
        };
        assert_eq!(lead.hash(), hashes.value(row), "a row is of one piece");
        lead
    };
    (0..batch.num_rows()).map(lead).collect()
}

/// A lake with one source.
pub(super) struct Lake {
    folder: tempfile::TempDir,
    pub(super) store: Store,
    pub(super) parts: Vec<PartFile>,
    pub(super) seq: Seq,
    pub(super) output: Output,
    pub(super) limits: Limits,
    pub(super) mode: Mode,
    pub(super) rewrite: bool,
    pub(super) readings: Readings,
    pub(super) schema: SchemaRef,
    pub(super) budget_bytes: usize,
    pub(super) partition_by: Partitioning,
}

impl Lake {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(folder.path().join("lake")).unwrap();
        Self {
            folder,
            store,
            parts: Vec::new(),
            seq: Seq(0),
            output: Output { compression: ParquetCompression::Snappy, ..Output::default() },
            limits: Limits {
                part_rows: 4,
                row_group_rows: 2,
                row_group_bytes: 1 << 20,
                copied_rows: 3,
            },
            mode: Mode::Merge,
            rewrite: false,
            readings: Readings::default(),
            schema: schema(),
            budget_bytes: 0,
            partition_by: Partitioning::Year,
        }
    }

    /// When the leads of the next publish are found gone.
    pub(super) fn gone_at(&self) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::days(self.seq.0 as i64)
    }

    pub(super) fn publish(&mut self, leads: &[TestLead]) -> (Published, ChangeFile) {
        self.publish_batches(&[leads.to_vec()], &BTreeSet::new()).unwrap()
    }

    pub(super) fn publish_gone(&mut self, gone: &[TestLead]) -> (Published, ChangeFile) {
        let gone = gone.iter().map(|lead| lead.id.clone()).collect();
        self.publish_batches(&[], &gone).unwrap()
    }

    pub(super) fn publish_batches(
        &mut self,
        batches: &[Vec<TestLead>],
        gone: &BTreeSet<String>,
    ) -> Result<(Published, ChangeFile)> {
        self.seq = self.seq.next();
        let scratch = self.folder.path().join("scratch");
        let mut staging = Staging::new(
            scratch.clone(),
            self.schema.clone(),
            self.partition_by,
            Room { staged: self.budget_bytes, merged: self.budget_bytes },
        )?;
        for leads in batches {
            let recency: Vec<Recency> = leads.iter().map(TestLead::recency).collect();
            staging.add(batch(leads), &recency)?;
        }
        let run = RunId::new(DateTime::UNIX_EPOCH);
        let source: SourceName = "acme".parse().unwrap();
        let mut changes = ChangeWriter::create(
            &self.store,
            &run,
            self.seq,
            &self.schema,
            ParquetCompression::None,
            self.limits,
        )?;
        let made = publish(
            staging,
            &Publish {
                store: &self.store,
                run: &run,
                seq: self.seq,
                source: &source,
                parts: &self.parts,
                gone,
                gone_at: self.gone_at(),
                output: &self.output,
                mode: self.mode,
                rewrite: self.rewrite,
                limits: self.limits,
                readings: &self.readings,
            },
            &mut changes,
        );
        // Whatever became of it, a publish leaves nothing on the scratch disk.
        assert_eq!(std::fs::read_dir(scratch).unwrap().count(), 0);
        let changes = changes.finish()?;
        if made.is_err() {
            assert_eq!(changes.rows, 0, "what failed is no change");
        }
        let published = made?;
        self.parts.clone_from(&published.parts);
        Ok((published, changes))
    }

    pub(super) fn leads_in(&self, part: &PartFile) -> Vec<TestLead> {
        let batches: Batches = held_batches(&self.store, part, &schema(), None).unwrap();
        batches.flat_map(|batch| leads_of(&batch.unwrap())).collect()
    }

    /// Returns all rows by key; no key stands in two.
    pub(super) fn rows(&self) -> BTreeMap<String, TestLead> {
        let mut rows = BTreeMap::new();
        for lead in self.parts.iter().flat_map(|part| self.leads_in(part)) {
            assert!(rows.insert(lead.id.clone(), lead).is_none(), "one row a key");
        }
        rows
    }

    /// Returns the rows of a change file: operation, reason, lead.
    pub(super) fn changes(&self, file: &ChangeFile) -> Vec<(String, String, TestLead)> {
        let opened = self.store.open_file(&file.file.path).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(opened).unwrap().build().unwrap();
        let mut changes = Vec::new();
        for batch in reader {
            let batch = batch.unwrap();
            let (ops, reasons) =
                (rows::text(&batch, "_op").unwrap(), rows::text(&batch, "_reason").unwrap());
            for (row, lead) in leads_of(&batch).into_iter().enumerate() {
                changes.push((ops.value(row).to_owned(), reasons.value(row).to_owned(), lead));
            }
        }
        changes
    }

    /// Returns operation and reason of each change, by key.
    pub(super) fn reasons(&self, file: &ChangeFile) -> Vec<(String, String)> {
        let changes = self.changes(file).into_iter();
        changes.map(|(_, reason, lead)| (lead.id[19..].to_owned(), reason)).collect()
    }
}
