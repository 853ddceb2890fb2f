//! What is held, by key: for the search for leads that are gone.

use arrow::array::Array;
use arrow::array::RecordBatch;
use arrow::array::TimestampMicrosecondArray;
use chrono::DateTime;
use chrono::Datelike;
use chrono::NaiveDate;
use chrono::TimeDelta;
use chrono::Utc;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::statistics::Statistics;

use super::Result;
use super::column;
use super::cursor::Batches;
use super::part::HeldPart;
use super::part::project;
use super::pieces::Pieces;
use super::rows;
use crate::schema::PartFile;
use crate::schema::lead;
use crate::store::Store;
use crate::window::Window;

/// A held lead, as far as the search for absent leads needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeadKey {
    /// Its key.
    pub lead_id: String,
    /// When it was created, where that is known.
    pub created_at: Option<DateTime<Utc>>,
    /// The label of the scope it was last read in.
    pub scope: String,
    /// When it was found gone, where its row stayed.
    pub deleted_at: Option<DateTime<Utc>>,
}

/// Returns the keys held in `parts`, by part, within a part sorted; with a window those of parts
/// whose partition can hold leads created in it, which may also hold others.
///
/// Reads the hashed columns and no other, of a window those of row groups with leads created in it; of
/// parts of older versions all. Holds these columns of one row group.
pub fn lead_keys<'a>(
    store: &'a Store,
    parts: &'a [PartFile],
    window: Option<Window>,
) -> impl Iterator<Item = Result<LeadKey>> + 'a {
    let wanted = move |part: &&PartFile| {
        window.as_ref().is_none_or(|window| can_intersect(&part.partition, window))
    };
    let parts = parts.iter().filter(wanted);
    parts.flat_map(move |part| in_rows(key_batches(store, part, window), keys_in))
}

/// Returns where the raw records of the rows in `parts` lie. Reads all of each part; holds one batch.
pub fn archive_places<'a>(
    store: &'a Store,
    parts: &'a [PartFile],
) -> impl Iterator<Item = Result<String>> + 'a {
    let places = |batch: &RecordBatch| -> Result<Vec<String>> {
        let archives = rows::text(batch, column::ARCHIVE)?;
        Ok(archives.iter().flatten().map(str::to_owned).collect())
    };
    parts.iter().flat_map(move |part| {
        let held = HeldPart::open_as_written(store, part);
        in_rows(held.and_then(|held| held.batches(Some(&[column::ARCHIVE]))), places)
    })
}

/// Returns what `read` finds in each batch, one after the other, or the error in its place.
fn in_rows<T: 'static>(
    batches: Result<Batches>,
    read: impl Fn(&RecordBatch) -> Result<Vec<T>> + 'static,
) -> Box<dyn Iterator<Item = Result<T>>> {
    let failed = |error| vec![Err(error)];
    let rows = move |batch: Result<RecordBatch>| match batch.and_then(|batch| read(&batch)) {
        Ok(rows) => rows.into_iter().map(Ok).collect(),
        Err(error) => failed(error),
    };
    match batches {
        Ok(batches) => Box::new(batches.flat_map(rows)),
        Err(error) => Box::new(std::iter::once(Err(error))),
    }
}

fn key_batches(store: &Store, part: &PartFile, window: Option<Window>) -> Result<Batches> {
    let names = [column::LEAD_ID, column::CREATED_AT, column::SCOPE, column::DELETED_AT];
    let Some(mut pieces) = Pieces::open(store, part, &project(&lead::arrow_schema(), &names))?
    else {
        return HeldPart::open_as_written(store, part)?.batches(Some(&names));
    };
    if let Some(window) = window {
        pieces.retain(|group| holds_some_of(group, &window));
    }
    Ok(Box::new(pieces))
}

/// Tells whether a row group can hold leads created in the window.
fn holds_some_of(group: &RowGroupMetaData, window: &Window) -> bool {
    let mut chunks = group.columns().iter();
    let created = chunks.find(|chunk| chunk.column_descr().name() == column::CREATED_AT);
    let Some(Statistics::Int64(created)) = created.and_then(|chunk| chunk.statistics()) else {
        return true;
    };
    let (start, end) = (window.start().timestamp_micros(), window.end().timestamp_micros());
    created.max_opt().is_none_or(|last| *last >= start)
        && created.min_opt().is_none_or(|first| *first < end)
}

fn keys_in(batch: &RecordBatch) -> Result<Vec<LeadKey>> {
    let lead_ids = rows::text(batch, column::LEAD_ID)?;
    let created = rows::instants(batch, column::CREATED_AT)?;
    let scopes = rows::text(batch, column::SCOPE)?;
    let deleted = rows::instants(batch, column::DELETED_AT)?;
    let at = |column: &TimestampMicrosecondArray, row: usize| {
        let value = column.is_valid(row).then(|| column.value(row));
        value.and_then(DateTime::from_timestamp_micros)
    };
    let key = |row: usize| LeadKey {
        lead_id: lead_ids.value(row).to_owned(),
        created_at: at(&created, row),
        scope: scopes.value(row).to_owned(),
        deleted_at: at(&deleted, row),
    };
    Ok((0..batch.num_rows()).map(key).collect())
}

/// Tells whether a partition can hold leads created in the window.
fn can_intersect(partition: &str, window: &Window) -> bool {
    match span(partition) {
        Some(span) => span.intersect(window).is_some(),
        // `all` holds every lead, `unknown` those without a date.
        None => partition != "unknown",
    }
}

/// Returns the creation times of the leads of a partition; `None` for `all` and `unknown`.
pub fn span(partition: &str) -> Option<Window> {
    let (year, month) = match partition.split_once('-') {
        Some((year, month)) => (year.parse().ok()?, Some(month.parse().ok()?)),
        None => (partition.parse().ok()?, None),
    };
    // A name of other digits is no year of ours; beyond the calendar there is no month after it.
    let year = Some(year).filter(|year| (0..=9_999).contains(year))?;
    let first = NaiveDate::from_ymd_opt(year, month.unwrap_or(1), 1)?;
    let after = match month {
        Some(_) => (first + TimeDelta::days(31)).with_day(1)?,
        None => NaiveDate::from_ymd_opt(year + 1, 1, 1)?,
    };
    let midnight = |date: NaiveDate| date.and_time(chrono::NaiveTime::MIN).and_utc();
    Window::new(midnight(first), midnight(after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(from: &str, to: &str) -> Window {
        Window::new(from.parse().unwrap(), to.parse().unwrap()).unwrap()
    }

    #[test]
    fn only_partitions_that_touch_the_window_are_read() {
        let window = window("2025-12-31T23:59:59Z", "2026-02-01T00:00:00Z");
        for partition in ["2025", "2025-12", "2026", "2026-01", "all"] {
            assert!(can_intersect(partition, &window), "{partition}");
        }
        // What is no partition of ours may hold anything.
        for partition in ["262142", "262142-12", "2147483647", "-1", "2026-13"] {
            assert!(can_intersect(partition, &window), "{partition}");
        }
        for partition in ["2024", "2025-11", "2026-02", "2027", "unknown"] {
            assert!(!can_intersect(partition, &window), "{partition}");
        }
    }
}
