//! Half-open spans of time, and the spans already read.
//!
//! A [`Window`] is `[start, end)`: neighbouring windows share no instant, so every record belongs
//! to exactly one of them. [`Coverage`] is what was read of one scope, as ranges that do not
//! overlap. Nothing here does I/O or reads the clock; the caller passes `now`.

use std::fmt;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::de::Error as _;

/// A half-open span of time `[start, end)`, never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
pub struct Window {
    start: DateTime<Utc>,
    end: DateTime<Utc>,
}

impl<'de> Deserialize<'de> for Window {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Bounds {
            start: DateTime<Utc>,
            end: DateTime<Utc>,
        }
        let Bounds { start, end } = Bounds::deserialize(deserializer)?;
        Self::new(start, end).ok_or_else(|| D::Error::custom("a window ends before it has begun"))
    }
}

impl Window {
    /// Returns the window, or `None` where `end` is not after `start`.
    pub fn new(start: DateTime<Utc>, end: DateTime<Utc>) -> Option<Self> {
        (start < end).then_some(Self { start, end })
    }

    /// Returns the first instant inside.
    pub fn start(&self) -> DateTime<Utc> {
        self.start
    }

    /// Returns the first instant after the window.
    pub fn end(&self) -> DateTime<Utc> {
        self.end
    }

    /// Returns how long the window is.
    pub fn length(&self) -> TimeDelta {
        self.end - self.start
    }

    /// Tells whether `instant` lies inside.
    pub fn contains(&self, instant: DateTime<Utc>) -> bool {
        self.start <= instant && instant < self.end
    }

    /// Tells whether all of `other` lies inside.
    pub fn covers(&self, other: &Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// Returns what both windows share.
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        Self::new(self.start.max(other.start), self.end.min(other.end))
    }

    /// Returns what lies in `self` but not in `other`: nothing, one window, or two.
    pub fn without(&self, other: &Self) -> Vec<Self> {
        let before = Self::new(self.start, self.end.min(other.start));
        let after = Self::new(self.start.max(other.end), self.end);
        before.into_iter().chain(after).collect()
    }

    /// Cuts the window into pieces of `length` from its end towards its start, newest first; the
    /// oldest piece may be shorter.
    ///
    /// A `length` that is not positive gives the window whole.
    pub fn split_from_end(&self, length: TimeDelta) -> Vec<Self> {
        if length <= TimeDelta::zero() {
            return vec![*self];
        }
        let mut pieces = Vec::new();
        let mut end = self.end;
        while end > self.start {
            // A calendar that runs out of range counts as reaching the start.
            let start = end.checked_sub_signed(length).map_or(self.start, |at| at.max(self.start));
            pieces.push(Self { start, end });
            end = start;
        }
        pieces
    }
}

impl fmt::Display for Window {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} to {}", self.start.format("%F %T"), self.end.format("%F %T"))
    }
}

/// A span that was read whole, and what is known of that reading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Covered {
    /// The span.
    pub window: Window,
    /// When its reading began; of spans that were joined, the oldest.
    pub as_of: DateTime<Utc>,
    /// Distinct leads seen in it, where the span is still as it was read.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rows: Option<u64>,
    /// Its share of the leads of the spans it was cut from, where it is a piece of what was counted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub share: Option<u64>,
    /// Whether the provider's own total agreed with what was seen.
    pub reconciled: bool,
    /// Rows of the listing that never came right, over all readings joined here.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub holes: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Covered {
    /// Returns the leads seen in it, or its share of those seen in what it was cut from.
    pub fn rows_about(&self) -> Option<u64> {
        self.rows.or(self.share)
    }

    /// Returns the leads seen in it that fall to `part`, a part of it, if they are spread evenly.
    pub fn rows_in(&self, part: &Window) -> Option<u64> {
        Some(share_of(self.rows_about()?, part, &self.window))
    }

    /// Returns the same reading of a part of the span.
    fn cut_to(&self, window: Window) -> Self {
        if window == self.window {
            return self.clone();
        }
        // A count says nothing about a piece of what was counted; a share says enough for a price.
        let share = self.rows_in(&window);
        Self { window, rows: None, share, ..self.clone() }
    }
}

/// Returns the share that `part` has of `rows` spread evenly over `whole`.
fn share_of(rows: u64, part: &Window, whole: &Window) -> u64 {
    let seconds = |window: &Window| u128::try_from(window.length().num_seconds()).unwrap_or(0);
    let share = u128::from(rows) * seconds(part) / seconds(whole).max(1);
    u64::try_from(share).unwrap_or(rows)
}

/// What was read of one scope: spans in ascending order that do not overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Coverage {
    spans: Vec<Covered>,
}

impl Coverage {
    /// Returns the spans in ascending order.
    pub fn spans(&self) -> &[Covered] {
        &self.spans
    }

    /// Tells whether nothing was read yet.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Returns the end of the newest span.
    pub fn end(&self) -> Option<DateTime<Utc>> {
        self.spans.last().map(|span| span.window.end())
    }

    /// Returns the parts of `window` that were never read, oldest first.
    pub fn gaps(&self, window: &Window) -> Vec<Window> {
        let mut gaps = vec![*window];
        for span in &self.spans {
            gaps = gaps.iter().flat_map(|gap| gap.without(&span.window)).collect();
        }
        gaps
    }

    /// Returns when the stalest part of `window` was read, or `None` where some of it never was.
    pub fn as_of(&self, window: &Window) -> Option<DateTime<Utc>> {
        if !self.gaps(window).is_empty() {
            return None;
        }
        let read = self.spans.iter().filter(|span| span.window.intersect(window).is_some());
        read.map(|span| span.as_of).min()
    }

    /// Records that `read` was read whole. It takes the place of what it overlaps.
    pub fn insert(&mut self, read: Covered) {
        let mut spans: Vec<Covered> = Vec::with_capacity(self.spans.len() + 2);
        for span in self.spans.drain(..) {
            let rest = span.window.without(&read.window);
            spans.extend(rest.into_iter().map(|window| span.cut_to(window)));
        }
        spans.push(read);
        spans.sort_by_key(|span| span.window);
        self.spans = spans;
    }

    /// Forgets what was read after `now`: a clock that ran ahead claimed time that had not come.
    pub fn forget_read_after(&mut self, now: DateTime<Utc>) {
        self.spans.retain(|span| span.as_of <= now);
    }

    /// Forgets that anything of `window` was read.
    pub fn forget(&mut self, window: &Window) {
        let spans = std::mem::take(&mut self.spans).into_iter();
        let cut = spans.flat_map(|span| {
            let rest = span.window.without(window).into_iter();
            rest.map(|rest| span.cut_to(rest)).collect::<Vec<_>>()
        });
        self.spans = cut.collect();
    }

    /// Joins neighbours that were read about the same time, as long as the joined span is no longer
    /// than `longest`, so that nightly slivers do not add up for ever: within an hour of each other, a
    /// day where both were read over a week before `now`, and a week where that was over two months,
    /// since the joined span is as stale as the stalest of it. What was read before `fence` is not
    /// joined with what was read since.
    pub fn coalesce(
        &mut self,
        longest: TimeDelta,
        fence: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) {
        let mut joined: Vec<Covered> = Vec::with_capacity(self.spans.len());
        for span in self.spans.drain(..) {
            match joined.last_mut() {
                Some(last)
                    if can_join(last, &span, longest, now)
                        && fence.is_none_or(|at| (last.as_of < at) == (span.as_of < at)) =>
                {
                    join(last, &span);
                }
                _ => joined.push(span),
            }
        }
        self.spans = joined;
    }
}

fn can_join(left: &Covered, right: &Covered, longest: TimeDelta, now: DateTime<Utc>) -> bool {
    let tolerance = match (now - left.as_of.max(right.as_of)).num_days() {
        ..8 => TimeDelta::hours(1),
        8..60 => TimeDelta::days(1),
        _ => TimeDelta::days(7),
    };
    left.window.end() == right.window.start()
        && (left.as_of - right.as_of).abs() <= tolerance
        && right.window.end() - left.window.start() <= longest
        && left.reconciled == right.reconciled
}

fn join(left: &mut Covered, right: &Covered) {
    left.window = Window { start: left.window.start, end: right.window.end };
    left.as_of = left.as_of.min(right.as_of);
    let about = left.rows_about().zip(right.rows_about()).map(sum);
    left.rows = left.rows.zip(right.rows).map(sum);
    left.share = about.filter(|_| left.rows.is_none());
    left.holes = sum((left.holes, right.holes));
}

/// Adds two counts. Those of a file that somebody else wrote may be any.
fn sum((left, right): (u64, u64)) -> u64 {
    left.saturating_add(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forgotten_is_a_gap_and_the_rest_stays() {
        let at = |days| DateTime::UNIX_EPOCH + TimeDelta::days(days);
        let window = |from, to| Window::new(at(from), at(to)).unwrap();
        let mut coverage = Coverage::default();
        let (rows, share, holes) = (Some(100), None, 0);
        let read =
            Covered { window: window(0, 10), as_of: at(10), rows, share, reconciled: true, holes };
        coverage.insert(read);
        coverage.forget(&window(4, 6));
        assert_eq!(coverage.gaps(&window(0, 10)), [window(4, 6)]);
        assert_eq!(coverage.as_of(&window(0, 4)), Some(at(10)));
        assert_eq!(coverage.spans()[1].rows_about(), Some(40));
    }
    use proptest::prelude::*;

    fn at(hours: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::hours(hours)
    }

    fn covered(start: i64, end: i64, as_of: i64) -> Covered {
        Covered {
            window: Window::new(at(start), at(end)).unwrap(),
            as_of: at(as_of),
            rows: Some(1),
            share: None,
            reconciled: true,
            holes: 0,
        }
    }

    #[test]
    fn a_window_that_is_read_is_never_empty() {
        let read = |start: &str, end: &str| {
            serde_json::from_value::<Window>(serde_json::json!({"start": start, "end": end}))
        };
        let (first, last) = ("2026-03-01T02:00:00Z", "2026-03-01T02:00:01Z");
        assert_eq!(read(first, last).unwrap().length(), TimeDelta::seconds(1));
        assert!(read(first, first).is_err() && read(last, first).is_err());
    }

    #[test]
    fn a_newer_reading_takes_the_place_of_what_it_overlaps() {
        let mut coverage = Coverage::default();
        coverage.insert(covered(0, 100, 100));
        coverage.insert(covered(70, 120, 120));
        let windows: Vec<_> = coverage.spans().iter().map(|span| span.window).collect();
        assert_eq!(windows, [covered(0, 70, 0).window, covered(70, 120, 0).window]);
        assert_eq!(coverage.spans()[0].rows, None);
        assert_eq!(coverage.as_of(&covered(0, 120, 0).window), Some(at(100)));
        assert_eq!(coverage.as_of(&covered(0, 121, 0).window), None);
    }

    #[test]
    fn a_piece_of_what_was_counted_has_its_share() {
        let mut coverage = Coverage::default();
        coverage.insert(Covered { rows: Some(1_000), ..covered(0, 100, 100) });
        coverage.insert(Covered { rows: Some(300), ..covered(70, 100, 120) });
        let known: Vec<_> = coverage.spans().iter().map(|span| (span.rows, span.share)).collect();
        assert_eq!(known, [(None, Some(700)), (Some(300), None)]);
        coverage.coalesce(TimeDelta::days(400), None, at(1000));
        assert_eq!(coverage.spans()[0].rows_about(), Some(1_000));
        assert_eq!(coverage.spans()[0].rows, None);
    }

    #[test]
    fn what_a_clock_that_ran_ahead_has_claimed_is_forgotten() {
        let mut coverage = Coverage::default();
        coverage.insert(covered(0, 24, 24));
        coverage.insert(covered(24, 900, 900));
        coverage.forget_read_after(at(100));
        assert_eq!(coverage.end(), Some(at(24)));
    }

    #[test]
    fn neighbours_read_about_the_same_time_are_joined() {
        let mut coverage = Coverage::default();
        coverage.insert(covered(0, 24, 100));
        coverage.insert(covered(24, 48, 124));
        coverage.insert(covered(48, 72, 1000));
        let mut fenced = coverage.clone();
        fenced.coalesce(TimeDelta::days(400), Some(at(110)), at(1000));
        assert_eq!(fenced.spans().len(), 3);
        coverage.coalesce(TimeDelta::days(400), None, at(1000));
        assert_eq!(coverage.spans().len(), 2);
        assert_eq!(coverage.spans()[0].as_of, at(100));
        assert_eq!(coverage.spans()[0].rows, Some(2));
    }

    proptest! {
        #[test]
        fn pieces_cover_the_window_exactly_once(length in 1_i64..100_000, step in 1_i64..5_000) {
            let whole = Window::new(at(0), at(0) + TimeDelta::seconds(length)).unwrap();
            let pieces = whole.split_from_end(TimeDelta::seconds(step));

            prop_assert_eq!(pieces.first().unwrap().end(), whole.end());
            prop_assert_eq!(pieces.last().unwrap().start(), whole.start());
            prop_assert!(pieces.windows(2).all(|pair| pair[0].start() == pair[1].end()));
        }

        #[test]
        fn spans_never_overlap_and_gaps_are_what_is_left(
            reads in prop::collection::vec((0_i64..200, 1_i64..80), 0..12),
        ) {
            let mut coverage = Coverage::default();
            for (index, (start, length)) in reads.iter().enumerate() {
                coverage.insert(covered(*start, start + length, index as i64));
            }
            let spans = coverage.spans();
            prop_assert!(spans.windows(2).all(|pair| pair[0].window.end() <= pair[1].window.start()));

            let whole = Window::new(at(0), at(300)).unwrap();
            let gaps = coverage.gaps(&whole);
            for hour in 0..300 {
                let read = reads.iter().any(|(start, length)| (*start..start + length).contains(&hour));
                let open = gaps.iter().any(|gap| gap.contains(at(hour)));
                prop_assert_eq!(read, !open);
            }
        }
    }
}
