//! What is held, by key: for the search for leads that are gone.

use arrow::array::Array;
use chrono::DateTime;
use chrono::Datelike;
use chrono::NaiveDate;
use chrono::TimeDelta;
use chrono::Utc;

use super::Result;
use super::column;
use super::part::HeldPart;
use super::rows;
use crate::schema::PartFile;
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
    /// Where its raw record lies, for a replay.
    pub archive: Option<String>,
}

/// Returns the keys held in `parts`, by part, within a part sorted; with a window those of parts
/// whose partition can hold leads created in it, which may also hold others.
///
/// Reads the columns named in [`LeadKey`] and no other; holds one batch of them.
pub fn lead_keys<'a>(
    store: &'a Store,
    parts: &'a [PartFile],
    window: Option<Window>,
) -> impl Iterator<Item = Result<LeadKey>> + 'a {
    let wanted = move |part: &&PartFile| {
        window.as_ref().is_none_or(|window| can_intersect(&part.partition, window))
    };
    parts.iter().filter(wanted).flat_map(move |part| match keys_of(store, part) {
        Ok(keys) => keys,
        Err(error) => Box::new(std::iter::once(Err(error))),
    })
}

type Keys = Box<dyn Iterator<Item = Result<LeadKey>>>;

fn keys_of(store: &Store, part: &PartFile) -> Result<Keys> {
    let names =
        [column::LEAD_ID, column::CREATED_AT, column::SCOPE, column::DELETED_AT, column::ARCHIVE];
    let batches = HeldPart::open_as_written(store, part)?.batches(Some(&names))?;
    Ok(Box::new(batches.flat_map(|batch| -> Keys {
        match batch.and_then(|batch| keys_in(&batch)) {
            Ok(keys) => Box::new(keys.into_iter().map(Ok)),
            Err(error) => Box::new(std::iter::once(Err(error))),
        }
    })))
}

fn keys_in(batch: &arrow::array::RecordBatch) -> Result<Vec<LeadKey>> {
    let lead_ids = rows::text(batch, column::LEAD_ID)?;
    let created = rows::instants(batch, column::CREATED_AT)?;
    let scopes = rows::text(batch, column::SCOPE)?;
    let deleted = rows::instants(batch, column::DELETED_AT)?;
    let archives = rows::text(batch, column::ARCHIVE)?;
    let at = |column: &arrow::array::TimestampMicrosecondArray, row: usize| {
        let value = column.is_valid(row).then(|| column.value(row));
        value.and_then(DateTime::from_timestamp_micros)
    };
    let key = |row: usize| LeadKey {
        lead_id: lead_ids.value(row).to_owned(),
        created_at: at(&created, row),
        scope: scopes.value(row).to_owned(),
        deleted_at: at(&deleted, row),
        archive: archives.is_valid(row).then(|| archives.value(row).to_owned()),
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
