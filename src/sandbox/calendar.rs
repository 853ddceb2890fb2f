//! When things happen in the invented world: more over the years, and by day rather than by night.
//!
//! A [`Calendar`] bends the even numbers of records into weeks. It is a function, and knows nothing
//! of what comes.

pub(super) const HOUR: u32 = 3_600;
pub(super) const DAY: u32 = 86_400;
/// A year of history, in seconds.
pub(super) const YEAR: f64 = 31_557_600.0;
const WEEK: f64 = 604_800.0;
/// The first Monday of the epoch.
const MONDAY: f64 = 345_600.0;

/// When the records of a platform come.
#[derive(Debug)]
pub(super) struct Calendar {
    count: f64,
    start: f64,
    span: f64,
    /// Share of the week's records before each hour, in seconds of a week.
    hours: Vec<f64>,
}

impl Calendar {
    /// Returns the calendar of `count` records over the `years` up to `now`, in seconds.
    pub(super) fn new(count: u64, years: u32, now: i64) -> Self {
        let weights = (0..168).map(|hour| {
            // Hours are UTC; the customers live about five hours behind.
            let day = if hour / 24 < 5 { 1.0 } else { 0.4 };
            if (13..23).contains(&(hour % 24)) { day } else { day * 0.15 }
        });
        let mut hours = vec![0.0];
        let mut sum = 0.0;
        for weight in weights {
            sum += weight;
            hours.push(sum);
        }
        hours.iter_mut().for_each(|hour| *hour *= WEEK / sum);
        let span = f64::from(years.max(1)) * YEAR;
        let mut calendar = Self { count: count as f64, start: 0.0, span, hours };
        calendar.start = calendar.even(now as f64) - span;
        calendar
    }

    /// Returns where the history begins, in even time.
    pub(super) fn start(&self) -> i64 {
        self.start as i64
    }

    /// Returns when record number `index`, plus a fraction, comes, in seconds since the epoch.
    pub(super) fn arrival(&self, index: f64) -> f64 {
        let share = index / self.count;
        // The rate doubles over the history, and stays as it was at its end.
        let position =
            if share < 1.0 { (1.0 + 3.0 * share).sqrt() - 1.0 } else { 1.0 + (share - 1.0) * 0.75 };
        self.uneven(self.start + position * self.span)
    }

    /// Bends even time into weeks with days and nights.
    fn uneven(&self, time: f64) -> f64 {
        let week = ((time - MONDAY) / WEEK).floor();
        let rest = time - MONDAY - week * WEEK;
        let hour = self.hours.partition_point(|start| *start <= rest).clamp(1, 168) - 1;
        let length = self.hours[hour + 1] - self.hours[hour];
        let inside = (rest - self.hours[hour]) / length;
        MONDAY + week * WEEK + (hour as f64 + inside) * f64::from(HOUR)
    }

    /// The way back of [`Self::uneven`].
    fn even(&self, time: f64) -> f64 {
        let week = ((time - MONDAY) / WEEK).floor();
        let rest = (time - MONDAY - week * WEEK) / f64::from(HOUR);
        let hour = (rest.floor() as usize).min(167);
        let length = self.hours[hour + 1] - self.hours[hour];
        MONDAY + week * WEEK + self.hours[hour] + (rest - hour as f64) * length
    }
}
