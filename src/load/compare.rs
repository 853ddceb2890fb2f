//! Which parts a publish must write anew, told from keys and hashes alone.
//!
//! First the incoming keys of each partition meet the held keys of the parts they fall into. Those
//! not found there, the *strangers*, are then looked for in the other partitions: by the key range
//! of each part, its bloom filters, and only then its keys. What is found there *departs* from
//! there. Strangers and departures lie on the scratch disk, so that a move of every lead costs no
//! memory.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use arrow::array::Array;
use arrow::array::ArrayRef;
use arrow::array::AsArray;
use arrow::array::BooleanArray;
use arrow::array::RecordBatch;
use arrow::array::StringArray;
use arrow::compute::filter_record_batch;
use arrow::datatypes::DataType;
use arrow::datatypes::Field;
use arrow::datatypes::Schema;
use arrow::datatypes::SchemaRef;
use parquet::bloom_filter::Sbbf;

use super::Counts;
use super::Mode;
use super::OnDelete;
use super::Publish;
use super::Result;
use super::column;
use super::cursor::Batches;
use super::cursor::Cursor;
use super::cursor::Gather;
use super::cursor::Version;
use super::part::HeldPart;
use super::part::project;
use super::publish::by_partition;
use super::runs::Run;
use super::runs::RunWriter;
use super::staging::Incoming;
use super::staging::smallest;
use crate::schema::PartFile;

/// What is to be done, by partition.
pub(super) struct Comparison {
    pub(super) partitions: BTreeMap<String, Partition>,
    /// Of the keys given as gone, those that were not staged.
    pub(super) gone: BTreeSet<String>,
    /// Only `unchanged`, `older` and `dropped`: the rest is counted as it is written.
    pub(super) counts: Counts,
}

/// A partition's parts, and what happens to them.
///
/// Keys fall into *slots*: slot `i` is what lies above part `i - 1` up to the last key of part `i`;
/// behind the last part lies one more, unless that part has room.
pub(super) struct Partition {
    pub(super) parts: Vec<PartFile>,
    /// By slot: whether its rows change.
    pub(super) is_dirty: Vec<bool>,
    /// By slot: rows that come, less those that go.
    pub(super) delta: Vec<i64>,
    strangers: Option<Run>,
    departures: Option<Run>,
    tail: usize,
}

impl Partition {
    fn new(parts: Vec<PartFile>, part_rows: u64, rewrite: bool) -> Self {
        let count = parts.len();
        let has_room = parts.last().is_some_and(|part| part.rows < part_rows);
        let mut is_dirty = vec![rewrite; count];
        is_dirty.push(false);
        let tail = if has_room { count - 1 } else { count };
        let delta = vec![0; count + 1];
        Self { parts, is_dirty, delta, strangers: None, departures: None, tail }
    }

    fn slot(&self, key: &str) -> usize {
        self.parts.partition_point(|part| part.last_lead_id.as_str() < key).min(self.tail)
    }

    /// Returns the greatest key a slot takes, `None` where it takes all that follow.
    pub(super) fn upper(&self, slot: usize) -> Option<&str> {
        if slot >= self.tail { None } else { Some(&self.parts[slot].last_lead_id) }
    }

    fn touch(&mut self, slot: usize, delta: i64) {
        self.is_dirty[slot] = true;
        self.delta[slot] += delta;
    }
}

/// What an incoming row does to the held row of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing: the held version was received later.
    Older,
    /// Nothing that is an operation; `rewrites` where lineage changes.
    Same { rewrites: bool },
    /// It replaces it.
    Changed,
}

/// Compares an incoming version of a lead with the held one.
pub(super) fn judge(mode: Mode, held: Version<'_>, incoming: Version<'_>) -> Verdict {
    let is_same = held.content_hash == incoming.content_hash;
    match mode {
        Mode::Replay if is_same => Verdict::Same { rewrites: false },
        Mode::Replay => Verdict::Changed,
        Mode::Merge if incoming.extracted_at < held.extracted_at => Verdict::Older,
        Mode::Merge if is_same && !held.is_deleted => Verdict::Same {
            rewrites: held.scope != incoming.scope || incoming.first_seen_at < held.first_seen_at,
        },
        Mode::Merge => Verdict::Changed,
    }
}

impl Comparison {
    /// Compares what came with what is held.
    pub(super) fn make(incoming: &Incoming, publish: &Publish<'_>) -> Result<Self> {
        let mut partitions = BTreeMap::new();
        for (name, parts) in by_partition(publish.parts)? {
            let partition = Partition::new(parts, publish.limits.part_rows, publish.rewrite);
            partitions.insert(name, partition);
        }
        for name in incoming.partitions.keys() {
            let empty = || Partition::new(Vec::new(), publish.limits.part_rows, false);
            partitions.entry(name.clone()).or_insert_with(empty);
        }
        let gone = still_gone(incoming, publish.gone)?;
        let mut comparison = Self { partitions, gone, counts: Counts::default() };
        let names: Vec<String> = comparison.partitions.keys().cloned().collect();
        for name in &names {
            comparison.meet(name, incoming, publish)?;
        }
        for name in &names {
            comparison.seek_strangers(name, incoming, publish)?;
        }
        for name in &names {
            comparison.settle_strangers(name, publish.mode)?;
        }
        Ok(comparison)
    }

    /// Compares the incoming keys of a partition, and the keys that are gone, with its parts.
    fn meet(&mut self, name: &str, incoming: &Incoming, publish: &Publish<'_>) -> Result<()> {
        let Some(partition) = self.partitions.get_mut(name) else { return Ok(()) };
        let mut arriving = match incoming.partitions.get(name) {
            Some(run) => run.cursor(Some(&column::COMPARED))?,
            None => Cursor::empty(),
        };
        let schema = project(&incoming.schema, &column::COMPARED);
        let at = Run::beside(incoming.folder.path(), &format!("strangers-{name}"));
        let mut strangers = Picked::new(schema, at);
        for slot in 0..partition.parts.len() {
            let part = partition.parts[slot].clone();
            while arriving.key().is_some_and(|key| key < part.first_lead_id.as_str()) {
                strangers.pick(0, &arriving)?;
                arriving.advance()?;
            }
            let range = part.first_lead_id.clone()..=part.last_lead_id.clone();
            let mut gone = self.gone.range(range).map(String::as_str).peekable();
            let is_met = arriving.key().is_some_and(|key| key <= part.last_lead_id.as_str());
            if !is_met && gone.peek().is_none() {
                continue;
            }
            let held = HeldPart::open(publish.store, &part, &incoming.schema)?;
            let mut held = Cursor::new(held.batches(Some(&column::COMPARED))?)?;
            loop {
                let key = arriving.key().filter(|key| *key <= part.last_lead_id.as_str());
                match (key, gone.peek()) {
                    (None, None) => break,
                    (key, Some(lost)) if key.is_none_or(|key| *lost < key) => {
                        let is_held = held.seek(lost)?;
                        lose(partition, slot, is_held, &held, publish.output.on_delete);
                        gone.next();
                    }
                    (Some(key), _) if held.seek(key)? => {
                        let (Some(before), Some(after)) = (held.version(), arriving.version())
                        else {
                            break;
                        };
                        match judge(publish.mode, before, after) {
                            Verdict::Older => self.counts.older += 1,
                            Verdict::Same { rewrites } => {
                                self.counts.unchanged += 1;
                                partition.is_dirty[slot] |= rewrites;
                            }
                            Verdict::Changed => partition.touch(slot, 0),
                        }
                        arriving.advance()?;
                    }
                    _ => {
                        strangers.pick(0, &arriving)?;
                        arriving.advance()?;
                    }
                }
            }
        }
        while arriving.key().is_some() {
            strangers.pick(0, &arriving)?;
            arriving.advance()?;
        }
        partition.strangers = strangers.finish()?;
        Ok(())
    }

    /// Looks in a partition for the strangers of all others.
    fn seek_strangers(
        &mut self,
        name: &str,
        incoming: &Incoming,
        publish: &Publish<'_>,
    ) -> Result<()> {
        let mut names = Vec::new();
        let mut strangers = Vec::new();
        for (other, partition) in &self.partitions {
            if let (true, Some(run)) = (other != name, &partition.strangers) {
                names.push(other.clone());
                strangers.push(run.cursor(None)?);
            }
        }
        let Some(partition) = self.partitions.get_mut(name) else { return Ok(()) };
        let at = Run::beside(incoming.folder.path(), &format!("departures-{name}"));
        let mut departures = Departures::new(&incoming.schema, at);
        let mut ties = Vec::new();
        for slot in 0..partition.parts.len() {
            let part = partition.parts[slot].clone();
            for cursor in &mut strangers {
                cursor.seek(&part.first_lead_id)?;
            }
            let mut lookup = Lookup { publish, part: &part, schema: &incoming.schema, open: None };
            loop {
                smallest(&strangers, &mut ties);
                // The incoming keys are each in one partition only, so there are no ties.
                let Some(&tag) = ties.first() else { break };
                let (Some(key), Some(after)) = (strangers[tag].key(), strangers[tag].version())
                else {
                    break;
                };
                if key > part.last_lead_id.as_str() {
                    break;
                }
                if let Some(held) = lookup.find(key)? {
                    let is_newer = held
                        .version()
                        .is_some_and(|before| after.extracted_at >= before.extracted_at);
                    let is_accepted = publish.mode == Mode::Replay || is_newer;
                    departures.pick(slot, held, &names[tag], is_accepted)?;
                    if is_accepted {
                        partition.touch(slot, -1);
                    }
                }
                strangers[tag].advance()?;
            }
        }
        partition.departures = departures.finish()?;
        Ok(())
    }

    /// Finds the slots of a partition's strangers, now that it is known where they come from.
    fn settle_strangers(&mut self, name: &str, mode: Mode) -> Result<()> {
        let mut arrivals = self.arrivals(name)?;
        let Some(partition) = self.partitions.get_mut(name) else { return Ok(()) };
        let Some(run) = partition.strangers.take() else { return Ok(()) };
        let mut strangers = run.cursor(None)?;
        while let Some(key) = strangers.key() {
            match (arrivals.find(key)?, mode) {
                (Some(arrival), _) if !arrival.is_accepted => self.counts.older += 1,
                (None, Mode::Replay) => self.counts.dropped += 1,
                (Some(_), _) | (None, Mode::Merge) => {
                    let slot = partition.slot(key);
                    partition.touch(slot, 1);
                }
            }
            strangers.advance()?;
        }
        drop(strangers);
        run.remove();
        Ok(())
    }

    /// Returns the leads that come to a partition from others.
    pub(super) fn arrivals(&self, name: &str) -> Result<Arrivals> {
        let others = self.partitions.iter().filter(|(other, _)| *other != name);
        let runs = others.filter_map(|(_, partition)| partition.departures.as_ref());
        let cursors = runs.map(|run| {
            let to = name.to_owned();
            filtered(run, move |batch| {
                let found = batch.column_by_name(TO);
                let texts = found.and_then(|column| column.as_string_opt::<i32>());
                texts.map(|texts| texts.iter().map(|text| Some(text == Some(&to))).collect())
            })
        });
        Ok(Arrivals { cursors: cursors.collect::<Result<_>>()? })
    }

    /// Returns the leads that go from a partition to others.
    pub(super) fn departures(&self, name: &str) -> Result<Cursor> {
        match self.partitions.get(name).and_then(|partition| partition.departures.as_ref()) {
            None => Ok(Cursor::empty()),
            Some(run) => filtered(run, |batch| is_accepted(batch).cloned()),
        }
    }
}

fn lose(partition: &mut Partition, slot: usize, is_held: bool, held: &Cursor, then: OnDelete) {
    let is_deleted = held.version().is_some_and(|version| version.is_deleted);
    match then {
        OnDelete::Remove if is_held => partition.touch(slot, -1),
        OnDelete::Keep if is_held && !is_deleted => partition.touch(slot, 0),
        OnDelete::Remove | OnDelete::Keep => {}
    }
}

/// Returns the keys that are gone and were not staged: an upsert beats a delete.
fn still_gone(incoming: &Incoming, gone: &BTreeSet<String>) -> Result<BTreeSet<String>> {
    let mut gone = gone.clone();
    if gone.is_empty() {
        return Ok(gone);
    }
    for run in incoming.partitions.values() {
        let mut cursor = run.cursor(Some(&[column::LEAD_ID]))?;
        while let Some(key) = cursor.key() {
            gone.remove(key);
            cursor.advance()?;
        }
    }
    Ok(gone)
}

/// Rows picked from cursors, written as a run; no file where none is picked.
struct Picked {
    schema: SchemaRef,
    at: std::path::PathBuf,
    gather: Gather,
    writer: Option<RunWriter>,
}

impl Picked {
    fn new(schema: SchemaRef, at: std::path::PathBuf) -> Self {
        Self { schema, at, gather: Gather::default(), writer: None }
    }

    fn pick(&mut self, tag: usize, cursor: &Cursor) -> Result<()> {
        self.gather.pick(tag, cursor);
        if self.gather.is_full() { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let Some(batch) = self.gather.take()? else { return Ok(()) };
        write_to(&mut self.writer, &self.at, &self.schema, &batch)
    }

    fn finish(mut self) -> Result<Option<Run>> {
        self.flush()?;
        self.writer.map(RunWriter::finish).transpose()
    }
}

fn write_to(
    writer: &mut Option<RunWriter>,
    at: &Path,
    schema: &SchemaRef,
    batch: &RecordBatch,
) -> Result<()> {
    let writer = match writer {
        Some(writer) => writer,
        None => writer.insert(RunWriter::create(at.to_owned(), schema)?),
    };
    writer.write(batch)
}

const TO: &str = "_to";
const ACCEPTED: &str = "_accepted";

/// Held rows that go to another partition: their lineage, where to, and whether they do, since the
/// version that came may be older than the one held.
struct Departures {
    schema: SchemaRef,
    at: std::path::PathBuf,
    gather: Gather,
    to: Vec<String>,
    accepted: Vec<bool>,
    writer: Option<RunWriter>,
}

impl Departures {
    fn new(schema: &SchemaRef, at: std::path::PathBuf) -> Self {
        let mut fields = project(schema, &column::LINEAGE).fields().to_vec();
        fields.push(Arc::new(Field::new(TO, DataType::Utf8, false)));
        fields.push(Arc::new(Field::new(ACCEPTED, DataType::Boolean, false)));
        let schema = Arc::new(Schema::new(fields));
        let (to, accepted) = (Vec::new(), Vec::new());
        Self { schema, at, gather: Gather::default(), to, accepted, writer: None }
    }

    fn pick(&mut self, tag: usize, held: &Cursor, to: &str, is_accepted: bool) -> Result<()> {
        self.gather.pick(tag, held);
        self.to.push(to.to_owned());
        self.accepted.push(is_accepted);
        if self.gather.is_full() { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let Some(batch) = self.gather.take()? else { return Ok(()) };
        let mut columns = batch.columns().to_vec();
        let to = StringArray::from(std::mem::take(&mut self.to));
        columns.push(Arc::new(to) as ArrayRef);
        columns.push(Arc::new(BooleanArray::from(std::mem::take(&mut self.accepted))));
        let batch = RecordBatch::try_new(self.schema.clone(), columns)?;
        write_to(&mut self.writer, &self.at, &self.schema, &batch)
    }

    fn finish(mut self) -> Result<Option<Run>> {
        self.flush()?;
        self.writer.map(RunWriter::finish).transpose()
    }
}

/// A search for ascending keys in one part, opened only when its filters do not rule a key out.
struct Lookup<'a> {
    publish: &'a Publish<'a>,
    part: &'a PartFile,
    schema: &'a SchemaRef,
    open: Option<Opened>,
}

struct Opened {
    filters: Option<Vec<Sbbf>>,
    held: Option<Cursor>,
}

impl Lookup<'_> {
    fn find(&mut self, key: &str) -> Result<Option<&Cursor>> {
        if self.open.is_none() {
            let held = HeldPart::open(self.publish.store, self.part, self.schema)?;
            self.open = Some(Opened { filters: held.filters()?, held: None });
        }
        let Some(open) = &mut self.open else { return Ok(None) };
        if open.filters.as_ref().is_some_and(|filters| !filters.iter().any(|f| f.check(&key))) {
            return Ok(None);
        }
        if open.held.is_none() {
            let held = HeldPart::open(self.publish.store, self.part, self.schema)?;
            open.held = Some(Cursor::new(held.batches(Some(&column::LINEAGE))?)?);
        }
        match &mut open.held {
            Some(held) => Ok(if held.seek(key)? { Some(held) } else { None }),
            None => Ok(None),
        }
    }
}

/// Leads that come to a partition from others.
pub(super) struct Arrivals {
    cursors: Vec<Cursor>,
}

/// A lead that comes from another partition.
pub(super) struct Arrival<'a> {
    /// Tells the streams of arrivals apart.
    pub(super) tag: usize,
    /// Stands at what was held there.
    pub(super) held: &'a Cursor,
    /// Whether the version that came replaces the one held.
    pub(super) is_accepted: bool,
}

impl Arrivals {
    /// Looks for a key; keys must come ascending.
    pub(super) fn find(&mut self, key: &str) -> Result<Option<Arrival<'_>>> {
        for (tag, cursor) in self.cursors.iter_mut().enumerate() {
            if cursor.seek(key)? {
                let held = &*cursor;
                let accepted = held.place().map(|(batch, row)| {
                    is_accepted(batch).is_some_and(|accepted| accepted.value(row))
                });
                let is_accepted = accepted.unwrap_or_default();
                return Ok(Some(Arrival { tag, held, is_accepted }));
            }
        }
        Ok(None)
    }
}

fn is_accepted(batch: &RecordBatch) -> Option<&BooleanArray> {
    batch.column_by_name(ACCEPTED)?.as_any().downcast_ref()
}

fn filtered(
    run: &Run,
    wanted: impl Fn(&RecordBatch) -> Option<BooleanArray> + Send + 'static,
) -> Result<Cursor> {
    let batches: Batches = run.batches(None)?;
    Cursor::new(Box::new(batches.map(move |batch| {
        let batch = batch?;
        match wanted(&batch) {
            Some(wanted) => Ok(filter_record_batch(&batch, &wanted)?),
            None => Ok(batch),
        }
    })))
}
