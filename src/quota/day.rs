//! Where a provider's day begins and ends.
//!
//! A local time that a change of the clocks makes happen twice, or never, stands for two possible
//! instants, and nobody documents which of them a provider takes. Here a day *begins* at the later
//! one, and *counts* from the earlier one: whichever is right, nothing is left out of a count.

use chrono::DateTime;
use chrono::Days;
use chrono::NaiveTime;
use chrono::TimeDelta;
use chrono::Utc;

use super::rule::Day;
use crate::zone::Zone;

/// The length of a rolling day.
pub(super) const ROLLING: TimeDelta = TimeDelta::hours(24);

impl Day {
    /// Returns the instant from which requests count against the day of `now`.
    pub fn counts_from(self, now: DateTime<Utc>) -> DateTime<Utc> {
        match self {
            Self::Rolling => now - ROLLING,
            Self::ResetsAt { time, zone } => {
                let begun = resets_around(now, time, zone).rfind(|reset| reset.latest <= now);
                begun.map_or(now - ROLLING, |reset| reset.earliest)
            }
        }
    }

    /// Returns when the next day begins, where days begin at a fixed time.
    pub(super) fn next_reset(self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self {
            Self::Rolling => None,
            Self::ResetsAt { time, zone } => {
                let mut resets = resets_around(now, time, zone).map(|reset| reset.latest);
                resets.find(|reset| *reset > now)
            }
        }
    }
}

/// The instants a reset may happen at; nearly always they are the same.
#[derive(Debug, Clone, Copy)]
struct Reset {
    earliest: DateTime<Utc>,
    latest: DateTime<Utc>,
}

/// Returns the resets of the days about `now`, in order.
fn resets_around(
    now: DateTime<Utc>,
    time: NaiveTime,
    zone: Zone,
) -> impl DoubleEndedIterator<Item = Reset> {
    let today = zone.date_at(now);
    (0..5_u64).filter_map(move |day| {
        let date = today.checked_sub_days(Days::new(2))?.checked_add_days(Days::new(day))?;
        let [earliest, latest] = zone.instants(date.and_time(time))?;
        Some(Reset { earliest, latest })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn resets_at(hour: u32, minute: u32) -> Day {
        let time = NaiveTime::from_hms_opt(hour, minute, 0).unwrap();
        Day::ResetsAt { time, zone: "America/New_York".parse().unwrap() }
    }

    #[test]
    fn a_day_counts_from_its_reset_in_the_zone() {
        let day = resets_at(0, 0);
        assert_eq!(day.counts_from(at("2026-07-02T03:59:59Z")), at("2026-07-01T04:00:00Z"));
        assert_eq!(day.counts_from(at("2026-07-02T04:00:00Z")), at("2026-07-02T04:00:00Z"));
        assert_eq!(day.next_reset(at("2026-07-02T04:00:00Z")), Some(at("2026-07-03T04:00:00Z")));
    }

    #[test]
    fn days_are_23_and_25_hours_long_when_the_clocks_change() {
        let day = resets_at(0, 0);
        // Spring: 8 March 2026; autumn: 1 November 2026.
        assert_eq!(day.counts_from(at("2026-03-08T12:00:00Z")), at("2026-03-08T05:00:00Z"));
        assert_eq!(day.next_reset(at("2026-03-08T12:00:00Z")), Some(at("2026-03-09T04:00:00Z")));
        assert_eq!(day.counts_from(at("2026-11-02T04:59:59Z")), at("2026-11-01T04:00:00Z"));
        assert_eq!(day.next_reset(at("2026-11-01T12:00:00Z")), Some(at("2026-11-02T05:00:00Z")));
    }

    #[test]
    fn a_reset_that_happens_twice_begins_at_the_second_and_counts_from_the_first() {
        let day = resets_at(1, 30);
        let (first, second) = (at("2026-11-01T05:30:00Z"), at("2026-11-01T06:30:00Z"));
        assert_eq!(day.counts_from(first), at("2026-10-31T05:30:00Z"));
        assert_eq!(day.next_reset(first), Some(second));
        assert_eq!(day.counts_from(second), first);
    }

    #[test]
    fn a_reset_that_never_happens_stands_for_both_sides_of_the_gap() {
        let day = resets_at(2, 30);
        let (early, late) = (at("2026-03-08T06:30:00Z"), at("2026-03-08T07:30:00Z"));
        assert_eq!(day.counts_from(early), at("2026-03-07T07:30:00Z"));
        assert_eq!(day.next_reset(early), Some(late));
        assert_eq!(day.counts_from(late), early);
        assert_eq!(day.next_reset(late), Some(at("2026-03-09T06:30:00Z")));
    }
}
