//! What is being loaded of one source: its staging, its walks, and what they showed.

use super::message::HeldPage;
use super::shown::ShownIds;
use super::shown::parts_of_id;
use crate::config::Partitioning;
use crate::config::SourceSettings;
use crate::ids::RunId;
use crate::ids::Seq;
use crate::ids::SourceName;
use crate::ids::WalkId;
use crate::load;
use crate::load::LeadKey;
use crate::load::Staging;
use crate::record::Scope;
use crate::record::ScopeKey;
use crate::run::Error;
use crate::run::Result;
use crate::run::summary::SourceSummary;
use crate::schema::PartFile;
use crate::schema::lead;
use crate::schema::lead::column;
use crate::store::NewFile;
use crate::store::Store;
use crate::transform;
use crate::window::Window;
use arrow::array::AsArray;
use arrow::array::RecordBatch;
use chrono::DateTime;
use chrono::Utc;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::io::Write;

/// Returns how many rows of a page show a lead that the page shows with other content too: pages of two
/// moments may differ, one page may not.
fn contradictions(leads: &RecordBatch) -> u64 {
    let text = |index: usize| leads.column(index).as_string_opt::<i32>();
    let (ids, hashes) = (text(column::LEAD_ID), text(column::CONTENT_HASH));
    let (Some(ids), Some(hashes)) = (ids, hashes) else { return 0 };
    let mut seen: HashMap<&str, &str> = HashMap::with_capacity(leads.num_rows());
    let mut contradictions = 0;
    for (id, hash) in ids.iter().flatten().zip(hashes.iter().flatten()) {
        contradictions += u64::from(seen.insert(id, hash).is_some_and(|before| before != hash));
    }
    contradictions
}

/// What is being loaded of one source.
pub(super) struct Loading {
    pub(super) settings: SourceSettings,
    pub(super) transform: transform::Settings,
    /// By stream.
    pub(super) mappings: BTreeMap<String, Box<dyn transform::Mapping>>,
    pub(super) staging: Staging,
    pub(super) scratch: std::path::PathBuf,
    pub(super) room: load::Room,
    pub(super) rejects: Option<(NewFile, u64)>,
    /// The scopes it has now; none before it is planned.
    pub(super) scopes: BTreeSet<Scope>,
    pub(super) open: HashMap<WalkId, Opened>,
    pub(super) closed: Vec<ClosedWalk>,
    /// The native ids that pages showed; nothing where nobody looks for any.
    pub(super) shown: Option<ShownIds>,
    pub(super) gone: BTreeSet<String>,
    /// The parts held when the run began.
    pub(super) parts_before: Vec<PartFile>,
    /// Values received, by column.
    pub(super) filled: Vec<u64>,
    /// Records received, by stream.
    pub(super) received: BTreeMap<String, u64>,
    pub(super) new_fields: BTreeSet<String>,
    /// What changed leads are counted for, of the pages that are staged.
    pub(super) readings: load::Readings,
    pub(super) summary: SourceSummary,
    pub(super) dirty: bool,
}

#[derive(Default)]
pub(super) struct Opened {
    /// Pages loaded without a gap from the first.
    pub(super) loaded: u64,
    /// Pages loaded beyond a gap.
    pub(super) beyond: BTreeSet<u64>,
}

pub(super) struct ClosedWalk {
    pub(super) scope: Scope,
    pub(super) window: Option<Window>,
    pub(super) opened_at: DateTime<Utc>,
    pub(super) reconciled: bool,
    /// Whether it showed rows without a usable id, more than its listing has always had.
    pub(super) has_rejects: bool,
}

impl Loading {
    pub(super) fn count(&mut self, page: &HeldPage, mapped: &transform::Mapped) {
        let summary = &mut self.summary;
        summary.pages += u64::from(!page.from_archive);
        summary.pages_from_archive += u64::from(page.from_archive);
        summary.rejects += mapped.rejects.len() as u64;
        summary.contradictions += contradictions(&mapped.leads);
        let records = (mapped.places.len() + mapped.rejects.len()) as u64;
        summary.records += records;
        *self.received.entry(page.walk.scope.stream.clone()).or_default() += records;
        for (column, count) in &mapped.warnings {
            *summary.warnings.entry((*column).to_owned()).or_default() += count;
        }
        for (index, column) in mapped.leads.columns().iter().enumerate() {
            self.filled[index] += (column.len() - column.null_count()) as u64;
        }
    }

    /// Keeps records that could not be mapped, whole, with reason and place.
    pub(super) fn reject(
        &mut self,
        store: &Store,
        run: &RunId,
        seq: Seq,
        source: &SourceName,
        page: &HeldPage,
        rejects: &[transform::Reject],
    ) -> Result<()> {
        for reject in rejects {
            if self.rejects.is_none() {
                let path = format!("rejects/{seq}-{run}-{source}.jsonl");
                self.rejects = Some((store.new_file(&path)?, 0));
            }
            let Some((file, rows)) = &mut self.rejects else { continue };
            let line = serde_json::json!({
                "source": source,
                "reason": reject.reason,
                "place": format!("{}:{}", page.location, reject.index),
                "record": reject.record,
            });
            writeln!(file, "{line}").map_err(Error::Rejects)?;
            *rows += 1;
        }
        Ok(())
    }

    pub(super) fn take_staging(&mut self, partitioning: Partitioning) -> Result<Staging> {
        let fresh =
            Staging::new(self.scratch.clone(), lead::arrow_schema(), partitioning, self.room)?;
        Ok(std::mem::replace(&mut self.staging, fresh))
    }

    /// Tells whether nothing at all was read: no reason to make a lake's first commit.
    pub(super) fn has_nothing(&self) -> bool {
        self.staging.rows() == 0 && self.open.is_empty() && self.summary.walks == 0
    }

    pub(super) fn note_published(&mut self, published: &load::Published) {
        let (leads, counts) = (&mut self.summary.leads, published.counts);
        leads.new += counts.new;
        leads.changed += counts.changed;
        leads.moved += counts.moved;
        leads.gone += counts.gone;
        leads.unchanged += counts.unchanged;
        self.summary.guarded_cells += published.guarded_cells;
        self.summary.rows = published.rows;
        self.summary.caught.add(&published.caught);
    }

    /// Returns what this run has read whole, for finding out what it did not show.
    pub(super) fn read_whole(&self) -> ReadWhole<'_> {
        let mut read = ReadWhole::default();
        for closed in &self.closed {
            let judged = closed.scope.judged_as();
            if closed.window.is_some() || self.has_all_lists(&judged) {
                read.0.entry(judged).or_default().push(closed);
            }
        }
        read
    }

    /// Tells whether all listings of a partition are read whole, as far as one of them was.
    fn has_all_lists(&self, judged: &ScopeKey) -> bool {
        let is_read = |scope: &Scope| self.closed.iter().any(|closed| closed.scope == *scope);
        self.scopes.iter().filter(|scope| scope.judged_as() == *judged).all(is_read)
    }

    /// Returns the columns that at least a fifth of the held rows fill and nothing received does,
    /// where at least 200 rows came. Of a large lake the newest rows tell.
    pub(super) fn emptied_columns(&self, store: &Store) -> Result<Vec<String>> {
        let parts = &self.parts_before[self.parts_before.len().saturating_sub(PARTS_THAT_TELL)..];
        // What is held is counted over all streams, so enough of each must have come.
        let received = |stream: &str| self.received.get(stream).copied().unwrap_or(0);
        let tells = self.mappings.keys().all(|stream| received(stream) >= ROWS_THAT_TELL);
        if !tells || self.filled.iter().all(|filled| *filled > 0) {
            return Ok(Vec::new());
        }
        let held = load::filled(store, parts)?;
        let rows: u64 = parts.iter().map(|part| part.rows).sum();
        let emptied = lead::COLUMNS.iter().enumerate().filter(|(index, column)| {
            let filled = held.get(column.name).copied().unwrap_or(0);
            self.filled[*index] == 0 && !column.lineage && filled * 5 >= rows.max(1)
        });
        Ok(emptied.map(|(_, column)| column.name.to_owned()).collect())
    }
}

/// Closed walks by what they are judged as.
#[derive(Default)]
pub(super) struct ReadWhole<'a>(BTreeMap<ScopeKey, Vec<&'a ClosedWalk>>);

impl ReadWhole<'_> {
    /// Returns what read the place of a row whole, and as what it is judged; of several listings
    /// the one that was begun first.
    pub(super) fn over(&self, key: &LeadKey) -> Option<(&ScopeKey, &ClosedWalk)> {
        let (stream, _) = parts_of_id(&key.lead_id);
        let judged = ScopeKey(format!("{stream}/{}", key.scope));
        let (judged, walks) = self.0.get_key_value(&judged)?;
        let is_over = |closed: &&&ClosedWalk| match (closed.window, key.created_at) {
            (Some(window), Some(at)) => window.contains(at),
            (None, _) => true,
            (Some(_), None) => false,
        };
        let first = walks.iter().filter(is_over).min_by_key(|closed| closed.opened_at)?;
        Some((judged, first))
    }
}

/// So many parts tell what is filled, the last ones by their time: looking at each of thousands would cost a
/// night more than its leads.
const PARTS_THAT_TELL: usize = 24;

/// Fewer rows than this say nothing about a column that none of them fills.
const ROWS_THAT_TELL: u64 = 200;

impl Opened {
    pub(super) fn note_loaded(&mut self, index: u64) {
        self.beyond.insert(index);
        while self.beyond.remove(&self.loaded) {
            self.loaded += 1;
        }
    }
}

/// Returns the least window around all closed walks: `None` where none was closed, `Some(None)`
/// where one of them was of a whole listing.
pub(super) fn span_of(closed: &[ClosedWalk]) -> Option<Option<Window>> {
    let mut windows = closed.iter().map(|closed| closed.window);
    let first = windows.next()?;
    Some(windows.fold(first, |span, window| {
        let (span, window) = (span?, window?);
        Window::new(span.start().min(window.start()), span.end().max(window.end()))
    }))
}
