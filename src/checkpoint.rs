//! What was read so far: the state that a commit carries from run to run.
//!
//! These are the domain types. How they are stored, and under which version, is `commit`'s matter.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt;

use chrono::DateTime;
use chrono::Datelike;
use chrono::NaiveTime;
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
        self.spare.retain(|paid| paid.at <= latest);
        // Else no reading would miss a row again, or what was found would be trusted, until then.
        self.absent.retain(|absent| {
            absent.since <= latest && absent.found_at.is_none_or(|found| found <= latest)
        });
        if let Some(caught) = &mut self.caught {
            caught.forget_the_future(now);
        }
    }
}

impl SourceProgress {
    /// Forgets that anything was read of leads created in `window`, or of any without one: it is read
    /// again.
    pub fn withdraw(&mut self, window: Option<&Window>) {
        for scope in self.scopes.values_mut() {
            match window {
                Some(window) => scope.coverage.forget(window),
                None => scope.coverage = Coverage::default(),
            }
            scope.scan = None;
        }
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
    /// The changed leads that its readings brought; `None` before any was looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caught: Option<CaughtByMonth>,
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
    /// The fewest rows without a usable id that a whole reading showed: those are no leads that were ever
    /// held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub least_rejects: Option<u64>,
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

const fn once() -> u32 {
    1
}

/// A reading whose pages could not be told apart, or kept shifting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unproven {
    /// Stated total minus distinct leads seen; 0 where no total was stated. Of a listing without a total
    /// that was suddenly empty, the rows known.
    pub missing: i64,
    /// The places, in rows from 0, of the first page that showed just what an earlier one did, and of the
    /// first that showed nothing.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub places: BTreeSet<u64>,
    /// The commit under which the walk was opened, which tells runs apart.
    pub under: Seq,
    /// In how many runs one after the other all of this was the same. What is so in several is taken
    /// for the provider's own habit.
    #[serde(default = "once")]
    pub seen: u32,
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

/// What a change in a lead is counted for: the most frequent reading that would have shown it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum RefreshTier {
    /// What every run reads.
    EveryRun,
    /// What is read once a week.
    Weekly,
    /// What is read once a month.
    Monthly,
    /// What no tier reads, with spare permits.
    Spare,
    /// What `backfill` was asked to read.
    AskedFor,
}

impl fmt::Display for RefreshTier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::EveryRun => "every run",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Spare => "spare",
            Self::AskedFor => "asked for",
        })
    }
}

/// How old a lead was when a change in it was received: the receipt of its page less `created_at`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum AgeClass {
    /// Less than a day.
    #[serde(rename = "under_1_day")]
    UnderOneDay,
    /// 1 to 7 days.
    #[serde(rename = "under_7_days")]
    UnderSevenDays,
    /// 7 to 30 days.
    #[serde(rename = "under_30_days")]
    UnderThirtyDays,
    /// 30 to 90 days.
    #[serde(rename = "under_90_days")]
    UnderNinetyDays,
    /// 90 to 400 days.
    #[serde(rename = "under_400_days")]
    UnderFourHundredDays,
    /// 400 days or more.
    Older,
    /// The lead has no `created_at`.
    Unknown,
}

impl AgeClass {
    /// All of them, the youngest first.
    pub const ALL: [Self; 7] = [
        Self::UnderOneDay,
        Self::UnderSevenDays,
        Self::UnderThirtyDays,
        Self::UnderNinetyDays,
        Self::UnderFourHundredDays,
        Self::Older,
        Self::Unknown,
    ];

    /// Returns the class of an age; `None` where it is not known. An age below zero is that of a
    /// clock that is not ours, and young.
    pub fn of(age: Option<TimeDelta>) -> Self {
        let Some(age) = age else { return Self::Unknown };
        let is_under =
            |class: &Self| class.under_days().is_none_or(|days| age < TimeDelta::days(days));
        Self::ALL.into_iter().find(is_under).unwrap_or(Self::Older)
    }

    /// Returns the days that all ages of the class are below; `None` where there is no such bound.
    pub fn under_days(self) -> Option<i64> {
        match self {
            Self::UnderOneDay => Some(1),
            Self::UnderSevenDays => Some(7),
            Self::UnderThirtyDays => Some(30),
            Self::UnderNinetyDays => Some(90),
            Self::UnderFourHundredDays => Some(400),
            Self::Older | Self::Unknown => None,
        }
    }
}

/// How many changed leads were caught: by tier, and by the age of the lead.
///
/// Changed is a lead that was held with other content: none that is new, gone, or back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Caught(BTreeMap<RefreshTier, BTreeMap<AgeClass, u64>>);

impl Caught {
    /// Counts a change.
    pub fn count(&mut self, tier: RefreshTier, age: AgeClass) {
        *self.0.entry(tier).or_default().entry(age).or_default() += 1;
    }

    /// Adds what was counted elsewhere.
    pub fn add(&mut self, other: &Self) {
        for (tier, ages) in &other.0 {
            let here = self.0.entry(*tier).or_default();
            ages.iter().for_each(|(age, count)| *here.entry(*age).or_default() += count);
        }
    }

    /// Tells whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns how many a tier has caught, by age; none of the classes is zero.
    pub fn ages(&self, tier: RefreshTier) -> BTreeMap<AgeClass, u64> {
        self.0.get(&tier).cloned().unwrap_or_default()
    }

    /// Returns how many a tier has caught.
    pub fn of(&self, tier: RefreshTier) -> u64 {
        self.0.get(&tier).map_or(0, |ages| ages.values().sum())
    }

    /// Returns the tiers that have caught any, the most frequent first.
    pub fn tiers(&self) -> impl Iterator<Item = RefreshTier> {
        self.0.keys().copied()
    }
}

/// What was caught, by calendar month in UTC; at most the last 13 months.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CaughtByMonth {
    /// Since when it is counted.
    pub since: DateTime<Utc>,
    /// By month, e.g. `2026-11`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub months: BTreeMap<String, Caught>,
}

/// So many months are kept: a year, and the month that is not over.
const MONTHS_KEPT: usize = 13;

impl CaughtByMonth {
    /// Returns a count that begins at `now`.
    pub fn new(now: DateTime<Utc>) -> Self {
        Self { since: now, months: BTreeMap::new() }
    }

    /// Adds what a commit of `now` has caught.
    pub fn add(&mut self, caught: &Caught, now: DateTime<Utc>) {
        if !caught.is_empty() {
            self.months.entry(month(now)).or_default().add(caught);
        }
        while self.months.len() > MONTHS_KEPT {
            self.months.pop_first();
        }
    }

    /// Returns what was caught in the month of `start` and later, and since when that is.
    pub fn from(&self, start: DateTime<Utc>) -> (DateTime<Utc>, Caught) {
        let first = start.date_naive().with_day(1).unwrap_or(start.date_naive());
        let mut caught = Caught::default();
        self.months.range(month(start)..).for_each(|(_, month)| caught.add(month));
        (self.since.max(first.and_time(NaiveTime::MIN).and_utc()), caught)
    }

    fn forget_the_future(&mut self, now: DateTime<Utc>) {
        self.since = self.since.min(now);
        let latest = month(now);
        self.months.retain(|month, _| *month <= latest);
    }
}

fn month(at: DateTime<Utc>) -> String {
    at.format("%Y-%m").to_string()
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
    #[test]
    fn an_age_is_of_the_first_class_that_it_is_under() {
        let classes = |hours: &[i64]| -> Vec<AgeClass> {
            hours.iter().map(|hours| AgeClass::of(Some(TimeDelta::hours(*hours)))).collect()
        };
        let day = |days: i64| days * 24;
        let below = classes(&[-5, 23, day(7) - 1, day(30) - 1, day(90) - 1, day(400) - 1]);
        assert_eq!(below[..2], [AgeClass::UnderOneDay; 2]);
        assert_eq!(below[1..], AgeClass::ALL[..5]);
        assert_eq!(classes(&[day(1), day(7), day(30), day(90), day(400)]), AgeClass::ALL[1..6]);
        assert_eq!(AgeClass::of(None), AgeClass::Unknown);
    }

    fn one(tier: RefreshTier) -> Caught {
        let mut caught = Caught::default();
        caught.count(tier, AgeClass::Older);
        caught
    }

    #[test]
    fn what_was_caught_is_kept_by_month_for_a_year_and_no_longer() {
        let day = |day| DateTime::UNIX_EPOCH + TimeDelta::days(day);
        let mut caught = CaughtByMonth::new(day(3));
        for days in 3..3_000 {
            caught.add(&one(RefreshTier::Weekly), day(days));
        }
        assert_eq!(caught.months.len(), 13);
        let (since, last) = caught.from(day(2_999) - TimeDelta::days(90));
        // Day 2,909 is the 19th of December 1977.
        assert_eq!(since, day(2_909 - 18));
        assert_eq!(last.of(RefreshTier::Weekly), 2_999 - (2_909 - 18) + 1);
        assert_eq!(last.of(RefreshTier::Monthly), 0);
        let (since, _) = CaughtByMonth::new(day(2_950)).from(day(2_909));
        assert_eq!(since, day(2_950), "not from before it was counted");
    }

    #[test]
    fn months_of_a_clock_that_ran_ahead_are_forgotten() {
        let day = |day| DateTime::UNIX_EPOCH + TimeDelta::days(day);
        let mut ahead = CaughtByMonth::new(day(400));
        ahead.add(&one(RefreshTier::Weekly), day(400));
        let caught = Some(ahead);
        let mut progress = SourceProgress { caught, ..SourceProgress::default() };
        progress.forget_the_future(day(2));
        assert_eq!(progress.caught, Some(CaughtByMonth::new(day(2))));
    }
}
