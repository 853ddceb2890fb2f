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
use super::Publish;
use super::Result;
use super::column;
use super::cursor::Batches;
use super::cursor::Cursor;
use super::cursor::Gather;
use super::cursor::SideBySide;
use super::cursor::Version;
use super::incoming::Incoming;
use super::part::HeldPart;
use super::part::compared_cursor;
use super::part::project;
use super::publish::by_partition;
use super::rows;
use super::runs::Run;
use super::runs::RunWriter;
use crate::config::OnDelete;
use crate::schema::PartFile;

/// What is to be done, by partition.
pub(super) struct Comparison {
    pub(super) partitions: BTreeMap<String, Partitioning>,
    /// Of the keys given as gone, those that were not staged.
    pub(super) gone: BTreeSet<String>,
    /// Only `unchanged`, `older` and `dropped`: the rest is counted as it is written.
    pub(super) counts: Counts,
}

/// A partition's parts, and what happens to them.
///
/// Keys fall into *slots*: slot `i` is what lies above part `i - 1` up to the last key of part `i`;
/// behind the last part lies one more, unless that part has room.
pub(super) struct Partitioning {
    pub(super) parts: Vec<PartFile>,
    /// By slot: whether its rows change.
    pub(super) is_dirty: Vec<bool>,
    /// By slot: rows that come, less those that go.
    pub(super) delta: Vec<i64>,
    strangers: Option<Run>,
    departures: Option<Run>,
    tail: usize,
}

impl Partitioning {
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

impl Verdict {
    fn rewrites(self) -> bool {
        match self {
            Self::Older => false,
            Self::Same { rewrites } => rewrites,
            Self::Changed => true,
        }
    }
}

/// Compares an incoming version of a lead with the held one.
pub(super) fn judge(mode: Mode, held: Version<'_>, incoming: Version<'_>) -> Verdict {
    let is_same = held.content_hash == incoming.content_hash;
    match mode {
        Mode::Replay if is_same => Verdict::Same { rewrites: false },
        // The record of the held version is no longer archived, only one from before it.
        Mode::Replay if incoming.extracted_at < held.extracted_at => Verdict::Older,
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
            let partition = Partitioning::new(parts, publish.limits.part_rows, publish.rewrite);
            partitions.insert(name, partition);
        }
        for name in incoming.partitions.keys() {
            let empty = || Partitioning::new(Vec::new(), publish.limits.part_rows, false);
            partitions.entry(name.clone()).or_insert_with(empty);
        }
        if publish.parts.is_empty() && publish.mode == Mode::Merge {
            return Ok(Self::with_nothing(partitions, incoming));
        }
        let gone = still_gone(incoming, publish.gone)?;
        let mut comparison = Self { partitions, gone, counts: Counts::default() };
        let stage = Stage { incoming, publish };
        for (name, partition) in &mut comparison.partitions {
            stage.meet(name, partition, &comparison.gone, &mut comparison.counts)?;
        }
        let Some(strangers) = comparison.gather_strangers(incoming)? else {
            return Ok(comparison);
        };
        for (name, partition) in &mut comparison.partitions {
            if !partition.parts.is_empty() {
                partition.departures = stage.seek(name, partition, &strangers)?;
            }
        }
        comparison.settle(&strangers, publish.mode)?;
        strangers.remove();
        Ok(comparison)
    }

    /// Compares what came with nothing: all of it is new.
    fn with_nothing(mut partitions: BTreeMap<String, Partitioning>, incoming: &Incoming) -> Self {
        for (name, partition) in &mut partitions {
            let rows = incoming.partitions.get(name).map_or(0, |shelf| shelf.rows);
            partition.touch(0, i64::try_from(rows).unwrap_or(i64::MAX));
        }
        Self { partitions, gone: BTreeSet::new(), counts: Counts::default() }
    }

    /// Tells whether a lead goes from one partition to another.
    pub(super) fn has_moves(&self) -> bool {
        self.partitions.values().any(|partition| partition.departures.is_some())
    }

    /// Merges the strangers of all partitions into one run, each with the partition it belongs to.
    fn gather_strangers(&mut self, incoming: &Incoming) -> Result<Option<Run>> {
        let mut names = Vec::new();
        let mut runs = Vec::new();
        for (name, partition) in &mut self.partitions {
            if let Some(run) = partition.strangers.take() {
                names.push(name.clone());
                runs.push(run);
            }
        }
        let cursors = runs.iter().map(|run| run.cursor(None)).collect::<Result<_>>()?;
        let mut cursors = SideBySide::new(cursors);
        let at = Run::beside(incoming.folder.path(), "strangers");
        let mut strangers = Travellers::new(&incoming.schema, &column::COMPARED, at);
        let mut ties = Vec::new();
        loop {
            cursors.smallest(&mut ties);
            // An incoming key is in one partition only, so there are no ties.
            let Some(&tag) = ties.first() else { break };
            strangers.pick(tag, cursors.cursor(tag), &names[tag], true)?;
            cursors.advance(&ties)?;
        }
        runs.into_iter().for_each(Run::remove);
        strangers.finish()
    }

    /// Finds the slots of the strangers, now that it is known where they come from.
    fn settle(&mut self, strangers: &Run, mode: Mode) -> Result<()> {
        let departures = self.partitions.values().filter_map(|held| held.departures.as_ref());
        let cursors = departures.map(|run| run.cursor(None)).collect::<Result<_>>()?;
        let mut arrivals = Arrivals { cursors };
        let mut strangers = strangers.cursor(None)?;
        while let Some(key) = strangers.key() {
            match (arrivals.find(key)?, mode) {
                (Some(arrival), _) if !arrival.is_accepted => self.counts.older += 1,
                (None, Mode::Replay) => self.counts.dropped += 1,
                (Some(_), _) | (None, Mode::Merge) => {
                    let home = destination(&strangers).and_then(|to| self.partitions.get_mut(to));
                    if let Some(partition) = home {
                        let slot = partition.slot(key);
                        partition.touch(slot, 1);
                    }
                }
            }
            strangers.advance()?;
        }
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

/// What every step of a comparison looks at.
#[derive(Clone, Copy)]
struct Stage<'a> {
    incoming: &'a Incoming,
    publish: &'a Publish<'a>,
}

impl Stage<'_> {
    /// Compares the incoming keys of a partition, and the keys that are gone, with its parts.
    fn meet(
        self,
        name: &str,
        partition: &mut Partitioning,
        gone: &BTreeSet<String>,
        counts: &mut Counts,
    ) -> Result<()> {
        let mut arriving = match self.incoming.partitions.get(name) {
            Some(shelf) => shelf.cursor(Some(&column::COMPARED))?,
            None => Cursor::empty(),
        };
        let schema = project(&self.incoming.schema, &column::COMPARED);
        let at = Run::beside(self.incoming.folder.path(), &format!("strangers-{name}"));
        let mut strangers = Picked::new(schema, at);
        for slot in 0..partition.parts.len() {
            let part = &partition.parts[slot];
            let (first, last) = (part.first_lead_id.clone(), part.last_lead_id.clone());
            strangers.pick_while(&mut arriving, |key| *key < *first)?;
            let mut lost = gone.range(first..=last.clone()).map(String::as_str).peekable();
            let is_met = arriving.key().is_some_and(|key| *key <= *last);
            let from =
                arriving.key().filter(|_| is_met).into_iter().chain(lost.peek().copied()).min();
            let Some(from) = from else { continue };
            let mut held = compared_cursor(self.publish.store, part, &self.incoming.schema, from)?;
            loop {
                let key = arriving.key().filter(|key| **key <= *last);
                match (key, lost.peek()) {
                    (None, None) => break,
                    (key, Some(gone)) if key.is_none_or(|key| *gone < key) => {
                        if held.seek(gone)? {
                            lose(partition, slot, &held, self.publish.output.on_delete);
                        }
                        lost.next();
                        continue;
                    }
                    (Some(key), _) if held.seek(key)? => {
                        let verdict = self.judge(&held, &arriving);
                        match verdict {
                            Verdict::Older => counts.older += 1,
                            Verdict::Same { .. } => counts.unchanged += 1,
                            Verdict::Changed => {}
                        }
                        partition.is_dirty[slot] |= verdict.rewrites();
                    }
                    _ => strangers.pick(0, &arriving)?,
                }
                arriving.advance()?;
            }
        }
        strangers.pick_while(&mut arriving, |_| true)?;
        partition.strangers = strangers.finish()?;
        Ok(())
    }

    fn judge(self, held: &Cursor, arriving: &Cursor) -> Verdict {
        match (held.version(), arriving.version()) {
            (Some(before), Some(after)) => judge(self.publish.mode, before, after),
            // Both cursors stand at a row whose lineage was read.
            _ => Verdict::Same { rewrites: false },
        }
    }

    /// Looks in a partition for the strangers of all others.
    fn seek(
        self,
        name: &str,
        partition: &mut Partitioning,
        strangers: &Run,
    ) -> Result<Option<Run>> {
        let mut strangers = strangers.cursor(None)?;
        let at = Run::beside(self.incoming.folder.path(), &format!("departures-{name}"));
        let mut departures = Travellers::new(&self.incoming.schema, &column::LINEAGE, at);
        for slot in 0..partition.parts.len() {
            let part = partition.parts[slot].clone();
            strangers.seek(&part.first_lead_id)?;
            let mut lookup = Lookup { stage: self, part: &part, open: None };
            while let (Some(key), Some(to)) = (strangers.key(), destination(&strangers)) {
                if *key > *part.last_lead_id {
                    break;
                }
                let found = if to == name { None } else { lookup.find(key)? };
                if let (Some(held), Some(after)) = (found, strangers.version()) {
                    let is_newer = held
                        .version()
                        .is_some_and(|before| after.extracted_at >= before.extracted_at);
                    departures.pick(slot, held, to, is_newer)?;
                    if is_newer {
                        partition.touch(slot, -1);
                    }
                }
                strangers.advance()?;
            }
        }
        departures.finish()
    }
}

/// Returns the partition a stranger belongs to.
fn destination(strangers: &Cursor) -> Option<&str> {
    let (batch, row) = strangers.place()?;
    Some(batch.column_by_name(TO)?.as_string_opt::<i32>()?.value(row))
}

fn lose(partition: &mut Partitioning, slot: usize, held: &Cursor, on_delete: OnDelete) {
    let is_deleted = held.version().is_some_and(|version| version.is_deleted);
    match on_delete {
        OnDelete::Remove => partition.touch(slot, -1),
        OnDelete::Keep if is_deleted => {}
        OnDelete::Keep => partition.touch(slot, 0),
    }
}

/// Returns the keys that are gone and were not staged: an upsert beats a delete.
fn still_gone(incoming: &Incoming, gone: &BTreeSet<String>) -> Result<BTreeSet<String>> {
    let mut gone = gone.clone();
    if gone.is_empty() {
        return Ok(gone);
    }
    for shelf in incoming.partitions.values() {
        let mut cursor = shelf.cursor(Some(&[column::LEAD_ID]))?;
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

    /// Picks rows as long as their keys are wanted.
    fn pick_while(&mut self, cursor: &mut Cursor, wanted: impl Fn(&str) -> bool) -> Result<()> {
        while cursor.key().is_some_and(&wanted) {
            self.pick(0, cursor)?;
            cursor.advance()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let Some(batch) = self.gather.take()? else { return Ok(()) };
        // What is staged brings its recency.
        let batch = rows::conform(&batch, &self.schema)?;
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

/// Rows that go to another partition than they were looked for in: columns they are compared by,
/// where to, and whether they do, since the version that came may be older than the one held.
struct Travellers {
    schema: SchemaRef,
    at: std::path::PathBuf,
    gather: Gather,
    to: Vec<String>,
    accepted: Vec<bool>,
    writer: Option<RunWriter>,
}

impl Travellers {
    fn new(schema: &SchemaRef, columns: &[&str], at: std::path::PathBuf) -> Self {
        let mut fields = project(schema, columns).fields().to_vec();
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
    stage: Stage<'a>,
    part: &'a PartFile,
    open: Option<Opened>,
}

struct Opened {
    filters: Option<Vec<Sbbf>>,
    held: Option<Cursor>,
}

impl Lookup<'_> {
    fn find(&mut self, key: &str) -> Result<Option<&Cursor>> {
        let Stage { incoming, publish } = self.stage;
        if self.open.is_none() {
            let held = HeldPart::open(publish.store, self.part, &incoming.schema)?;
            self.open = Some(Opened { filters: held.filters()?, held: None });
        }
        let Some(open) = &mut self.open else { return Ok(None) };
        if open.filters.as_ref().is_some_and(|filters| !filters.iter().any(|f| f.check(&key))) {
            return Ok(None);
        }
        if open.held.is_none() {
            let held = HeldPart::open_intact(publish.store, self.part, &incoming.schema)?;
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
