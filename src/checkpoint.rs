//! What was read so far: the state that a commit carries from run to run.
//!
//! These are the domain types. How they are stored, and under which version, is `commit`'s matter.

use std::collections::BTreeMap;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::ids::Seq;
use crate::ids::SourceName;
use crate::record::Order;
use crate::record::ScopeKey;
use crate::record::Walk;
use crate::window::Coverage;
use crate::window::Window;

/// What was read of every source of a lake.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Checkpoint {
    /// By source.
    pub sources: BTreeMap<SourceName, SourceProgress>,
    /// Backfills that were asked for and are not done, by their fingerprint.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub backfills: BTreeMap<String, Backfill>,
}

impl Checkpoint {
    /// Takes in walks that a run which died has left, so that they are gone on with.
    pub fn adopt(&mut self, walks: BTreeMap<SourceName, Vec<OpenWalk>>) {
        for (source, walks) in walks {
            self.sources.entry(source).or_default().open_walks.extend(walks);
        }
    }
}

/// How far a clock may be off before what it said is not believed.
const CLOCK_TOLERANCE: TimeDelta = TimeDelta::hours(1);

impl SourceProgress {
    /// Forgets readings that lie in the future of `now`: they were made under a clock that ran
    /// ahead, and time they claim may not have been there to read.
    pub fn forget_the_future(&mut self, now: DateTime<Utc>) {
        let latest = now + CLOCK_TOLERANCE;
        for scope in self.scopes.values_mut() {
            scope.coverage.forget_read_after(latest);
            scope.scan = scope.scan.take().filter(|scan| scan.read_at() <= latest);
        }
        self.open_walks.retain(|open| {
            open.walk.opened_at <= latest && open.advanced_at.is_none_or(|at| at <= latest)
        });
        self.smaller_pages.retain(|_, smaller| smaller.as_of <= latest);
        // Else no reading would miss a row again, or what was found would be trusted, until then.
        self.absent.retain(|absent| {
            absent.since <= latest && absent.found_at.is_none_or(|found| found <= latest)
        });
    }
}

/// What was read of one source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SourceProgress {
    /// By scope.
    pub scopes: BTreeMap<ScopeKey, ScopeProgress>,
    /// Walks that are not finished, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open_walks: Vec<OpenWalk>,
    /// The partitions the provider listed last, where it lists them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<Partitions>,
    /// Rows that a whole reading of their scope did not show, and that are not proven gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<Absent>,
    /// The size of pages that is asked for instead of the job's, by stream.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub smaller_pages: BTreeMap<String, SmallerPages>,
    /// The fields of its records seen so far, by stream.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, Vec<String>>,
    /// Pages of the last 24 hours that spare permits paid for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spare: Vec<SparePages>,
}

/// Pages that spare permits paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SparePages {
    /// When the run began to read them.
    pub at: DateTime<Utc>,
    /// How many.
    pub pages: u64,
}

/// A size of pages that fits where the one the job asks for does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SmallerPages {
    /// The rows of a page that came.
    pub rows: u32,
    /// The rows of a page that did not.
    pub too_large: u32,
    /// Whether the provider refused that one; else it broke on it, and gave it in pieces.
    pub refused: bool,
    /// When this was found out.
    pub as_of: DateTime<Utc>,
}

/// After so long a larger size is tried again: one bad night must not make every run dearer for ever.
const TRIED_AGAIN_AFTER: TimeDelta = TimeDelta::days(30);

impl SmallerPages {
    /// Returns the rows to ask for in one request, where the job asks for `page_size`.
    pub fn to_ask(&self, page_size: u32, now: DateTime<Utc>) -> u32 {
        let is_due = now >= self.tried_again_at();
        let rows = if is_due { self.rows.saturating_mul(2) } else { self.rows };
        rows.clamp(1, page_size.max(1))
    }

    /// Returns when a larger size is tried again.
    pub fn tried_again_at(&self) -> DateTime<Utc> {
        self.as_of + TRIED_AGAIN_AFTER
    }
}

/// What was read of one scope.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ScopeProgress {
    /// The spans read whole.
    pub coverage: Coverage,
    /// The longest window the provider takes, in days, where it refused the one asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_days: Option<u32>,
    /// What is known of a listing without dates, once it was read whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scan: Option<Scanned>,
    /// The last reading whose pages could not be told apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unproven: Option<Unproven>,
    /// The last difference between the provider's total and what was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub difference: Option<Difference>,
}

/// What is known of a listing without dates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Scanned {
    /// When its last whole reading began.
    pub as_of: DateTime<Utc>,
    /// Distinct records that reading showed.
    pub rows: u64,
    /// Pages it took, an empty last one included.
    pub pages: u64,
    /// Rows of it that never came right.
    #[serde(default)]
    pub holes: u64,
    /// When it was last read from the top, where that was since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_as_of: Option<DateTime<Utc>>,
    /// Pages that took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_pages: Option<u64>,
    /// Whole readings one after the other that showed the newest created first.
    #[serde(default)]
    pub newest_created_first: u32,
    /// Whole readings one after the other that showed the newest changed first.
    #[serde(default)]
    pub newest_updated_first: u32,
}

/// So many whole readings one after the other show the order of a listing.
const READINGS_THAT_SHOW: u32 = 2;

impl Scanned {
    /// Returns the order of the listing, where it is known. Where both fit, the one by creation: a
    /// reading from the top goes further down by it.
    pub fn order(&self) -> Option<Order> {
        if self.newest_created_first >= READINGS_THAT_SHOW {
            return Some(Order::Created);
        }
        (self.newest_updated_first >= READINGS_THAT_SHOW).then_some(Order::Updated)
    }

    /// Returns when it was last read, whole or from the top.
    pub fn read_at(&self) -> DateTime<Utc> {
        self.top_as_of.map_or(self.as_of, |top| top.max(self.as_of))
    }
}

/// A difference between a stated total and the distinct leads seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    /// Stated total minus distinct leads seen.
    pub rows: i64,
    /// In how many readings one after the other it was the same. From 2 on it is the provider's own
    /// habit.
    pub seen: u32,
}

/// A reading whose pages could not be told apart, or kept shifting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unproven {
    /// Stated total minus distinct leads seen; 0 where no total was stated. The same in two runs is
    /// taken for the provider's own habit. Of a listing without a total that was suddenly empty, the
    /// rows known.
    pub missing: i64,
    /// The commit under which the walk was opened, which tells runs apart.
    pub under: Seq,
}

/// The partitions a provider listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Partitions {
    /// When they were listed.
    pub as_of: DateTime<Utc>,
    /// The partitions, in the provider's order.
    pub listed: Vec<Partition>,
}

/// One partition as listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Partition {
    /// The name in scopes, e.g. `profile:123`.
    pub name: String,
    /// The account it belongs to, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<u64>,
}

/// A walk that is not finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OpenWalk {
    /// The walk.
    pub walk: Walk,
    /// How many of its held pages, in the order of its archive, are loaded.
    pub loaded_pages: u64,
    /// Rows of its listing, as the provider stated last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stated_rows: Option<u64>,
    /// When its last page was received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advanced_at: Option<DateTime<Utc>>,
}

/// A row that a whole reading of its scope did not show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Absent {
    /// The lead.
    pub lead_id: String,
    /// When the reading that first missed it began.
    pub since: DateTime<Utc>,
    /// Whether totals, distinct ids and rejects of that reading agreed.
    pub reconciled: bool,
    /// When the provider, asked for it by id, showed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found_at: Option<DateTime<Utc>>,
}

/// A range that `backfill` was asked to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Backfill {
    /// The sources.
    pub sources: Vec<SourceName>,
    /// The range of creation times.
    pub range: Window,
    /// When it was first asked for.
    pub asked_at: DateTime<Utc>,
    /// Whether what was read before `asked_at` is to be read again.
    pub again: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absences_of_a_clock_that_ran_ahead_are_forgotten() {
        let day = |day| DateTime::UNIX_EPOCH + TimeDelta::days(day);
        let absent = |since, found_at| Absent {
            lead_id: "lead".into(),
            since: day(since),
            reconciled: false,
            found_at,
        };
        let known = vec![absent(1, None), absent(400, None), absent(1, Some(day(400)))];
        let mut progress = SourceProgress { absent: known, ..SourceProgress::default() };
        progress.forget_the_future(day(2));
        assert_eq!(progress.absent, [absent(1, None)]);
    }
}
