//! Which refresh tier a changed lead is counted for.
//!
//! The lead's `_archive` names the segment of its page, and thereby the walk that brought it. What
//! every run reads may come with a slower walk; so the rules of a walk are tried in turn, those of
//! the more frequent tiers first.

use std::collections::HashMap;

use arrow::array::Array;
use arrow::array::RecordBatch;
use arrow::array::TimestampMicrosecondArray;
use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;

use super::Result;
use super::column;
use super::rows;
use crate::checkpoint::AgeClass;
use crate::checkpoint::Caught;
use crate::checkpoint::RefreshTier;

/// What changed leads are counted for, by the segment of the archive that brought them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Readings(HashMap<String, Vec<Rule>>);

/// A tier, and which leads it would have shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// The tier.
    pub tier: RefreshTier,
    /// The leads.
    pub shown: Shown,
}

/// Which leads a reading shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// All of them.
    All,
    /// Those created less than this before they were received.
    Younger(TimeDelta),
    /// Those whose `updated_at` is not before this.
    UpdatedSince(DateTime<Utc>),
}

/// When a lead was received, created and updated, in microseconds since 1970.
#[derive(Debug, Clone, Copy)]
struct Times {
    received: i64,
    created: Option<i64>,
    updated: Option<i64>,
}

impl Times {
    fn age(self) -> Option<TimeDelta> {
        Some(TimeDelta::microseconds(self.received.saturating_sub(self.created?)))
    }
}

impl Shown {
    fn shows(self, times: Times) -> bool {
        match self {
            Self::All => true,
            Self::Younger(reach) => times.age().is_some_and(|age| age < reach),
            Self::UpdatedSince(at) => {
                times.updated.is_some_and(|updated| updated >= at.timestamp_micros())
            }
        }
    }
}

impl Readings {
    /// Notes what the leads of a page are counted for: the first rule that shows one. `location` is
    /// that of the page, `<segment>#<page>`.
    pub fn note(&mut self, location: &str, rules: &[Rule]) {
        let segment = segment(location);
        if !self.0.contains_key(segment) {
            self.0.insert(segment.to_owned(), rules.to_vec());
        }
    }

    /// Counts the leads of `batch` that stand at `edited`; those of segments that are not noted, or
    /// that no rule shows, count for nothing.
    pub(super) fn count(
        &self,
        batch: &RecordBatch,
        edited: &[usize],
        caught: &mut Caught,
    ) -> Result<()> {
        if edited.is_empty() || self.0.is_empty() {
            return Ok(());
        }
        let archive = rows::text(batch, column::ARCHIVE)?;
        let received = rows::instants(batch, column::EXTRACTED_AT)?;
        let created = rows::instants(batch, column::CREATED_AT)?;
        let updated = rows::instants(batch, column::UPDATED_AT).ok();
        let at = |column: &TimestampMicrosecondArray, row| {
            column.is_valid(row).then(|| column.value(row))
        };
        for row in edited.iter().copied().filter(|row| archive.is_valid(*row)) {
            let times = Times {
                received: received.value(row),
                created: at(&created, row),
                updated: updated.as_ref().and_then(|updated| at(updated, row)),
            };
            if let Some(tier) = self.tier(archive.value(row), times) {
                caught.count(tier, AgeClass::of(times.age()));
            }
        }
        Ok(())
    }

    fn tier(&self, location: &str, times: Times) -> Option<RefreshTier> {
        let rules = self.0.get(segment(location))?;
        Some(rules.iter().find(|rule| rule.shown.shows(times))?.tier)
    }
}

fn segment(location: &str) -> &str {
    location.split_once('#').map_or(location, |(segment, _)| segment)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::testing::Lake;
    use crate::load::testing::TestLead;

    const DAY_US: i64 = 86_400_000_000;

    fn aged(days: i64) -> Times {
        Times { received: 0, created: Some(-days * DAY_US), updated: None }
    }

    fn weekly() -> Readings {
        let days = TimeDelta::days(30);
        let mut readings = Readings::default();
        let every_run = Rule { tier: RefreshTier::EveryRun, shown: Shown::Younger(days) };
        let weekly = Rule { tier: RefreshTier::Weekly, shown: Shown::All };
        readings.note("archive/acme/leads/1.zst#1", &[every_run, weekly]);
        readings
    }

    #[test]
    fn a_change_counts_for_the_most_frequent_tier_that_would_have_shown_it() {
        let tier = |times| weekly().tier("archive/acme/leads/1.zst#7:3", times);
        assert_eq!(tier(aged(29)), Some(RefreshTier::EveryRun));
        assert_eq!(tier(aged(30)), Some(RefreshTier::Weekly));
        assert_eq!(tier(Times { created: None, ..aged(0) }), Some(RefreshTier::Weekly));
        assert_eq!(weekly().tier("archive/acme/leads/2.zst#7:3", aged(1)), None);
    }

    #[test]
    fn where_the_last_changed_stand_first_their_change_tells_what_every_run_would_show() {
        let since = DateTime::UNIX_EPOCH - TimeDelta::days(2);
        let shown = Shown::UpdatedSince(since);
        let updated = |days: i64| Times { updated: Some(-days * DAY_US), ..aged(900) };
        assert!(shown.shows(updated(2)));
        assert!(!shown.shows(updated(3)));
        assert!(!shown.shows(aged(1)), "nothing says when it changed");
    }

    fn lead(id: u32, name: &str, received_us: i64) -> TestLead {
        let archive = format!("archive/{received_us}.zst#1:0");
        TestLead { archive, ..TestLead::new(id, 2024, name, received_us) }
    }

    #[test]
    fn only_leads_that_were_held_with_other_content_are_caught() {
        let mut lake = Lake::new();
        let all = [Rule { tier: RefreshTier::Monthly, shown: Shown::All }];
        lake.readings.note("archive/1.zst#1", &all);
        lake.readings.note("archive/2.zst#1", &all);
        let published = |lake: &mut Lake, leads: &[TestLead]| {
            let caught = lake.publish(leads).0.caught;
            caught.of(RefreshTier::Monthly)
        };
        let first = [lead(1, "Ann", 1), lead(2, "Bea", 1), lead(3, "Cy", 1)];
        assert_eq!(published(&mut lake, &first), 0, "new");
        let second = [lead(1, "Ann", 2), lead(2, "Bob", 2), lead(4, "Di", 2)];
        assert_eq!(published(&mut lake, &second), 1, "one of three has other content");
        let moved = TestLead { year: Some(2025), ..lead(3, "Cy", 2) };
        assert_eq!(published(&mut lake, &[moved]), 1, "another time of creation is a change too");
        assert_eq!(published(&mut lake, &[lead(1, "Al", 3)]), 0, "of a segment nobody noted");
    }

    #[test]
    fn a_lead_that_is_back_is_no_change() {
        let mut lake = Lake::new();
        lake.output.on_delete = crate::config::OnDelete::Keep;
        let all = [Rule { tier: RefreshTier::Weekly, shown: Shown::All }];
        (1..5).for_each(|at| lake.readings.note(&format!("archive/{at}.zst#1"), &all));
        lake.publish(&[lead(1, "Ann", 1)]);
        lake.publish_gone(&[lead(1, "Ann", 1)]);
        assert!(lake.publish(&[lead(1, "Al", 3)]).0.caught.is_empty());
        assert_eq!(lake.publish(&[lead(1, "Ada", 4)]).0.caught.of(RefreshTier::Weekly), 1);
    }
}
