//! The law of the day over the requests that a provider has seen, by a calendar of its own.
//!
//! Shares nothing with `src/quota`: a provider's day is found by walking along the zone's wall clock.

use chrono::DateTime;
use chrono::DurationRound;
use chrono::NaiveDateTime;
use chrono::NaiveTime;
use chrono::Offset;
use chrono::TimeDelta;
use chrono::TimeZone;
use chrono::Utc;
use chrono_tz::Tz;

/// How a provider counts its day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Day {
    /// Any 24 hours.
    Rolling,
    /// From a time of a wall clock to the next.
    ResetsAt(NaiveTime, Tz),
}

/// A span in which no more than the allowance may be sent, and when it was broken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) from: DateTime<Utc>,
    pub(super) until: DateTime<Utc>,
    pub(super) sent: usize,
    /// The allowance, and one for each leap of the clock.
    pub(super) lawful: usize,
}

/// All zones change their clocks at such minutes, and the days tried here begin at them.
const STEP: TimeDelta = TimeDelta::minutes(15);

/// Finds a day with more requests than it has. `leaps` are the moments at which the clock was put
/// forward: each may cost one request that a day does not have.
pub(super) fn broken(
    sent: &[DateTime<Utc>],
    allowance: usize,
    day: Day,
    leaps: &[DateTime<Utc>],
) -> Option<Broken> {
    let mut sent = sent.to_vec();
    sent.sort_unstable();
    let (first, last) = (*sent.first()?, *sent.last()?);
    let spans: Vec<(DateTime<Utc>, DateTime<Utc>)> = match day {
        Day::Rolling => sent.iter().map(|at| (*at, *at + TimeDelta::hours(24))).collect(),
        Day::ResetsAt(time, zone) => {
            let around = TimeDelta::days(3);
            let resets = resets(first - around, last + around, time, zone);
            resets.windows(2).map(|pair| (pair[0].0, pair[1].1)).collect()
        }
    };
    let within = |(from, until): (DateTime<Utc>, DateTime<Utc>)| {
        let count = |moments: &[DateTime<Utc>]| {
            moments.iter().filter(|at| from <= **at && **at < until).count()
        };
        let (sent, lawful) = (count(&sent), allowance + count(leaps));
        Broken { from, until, sent, lawful }
    };
    spans.into_iter().map(within).find(|span| span.sent > span.lawful)
}

/// Returns when a day may begin, from the earliest moment to the latest: they differ where the wall
/// clock shows the time twice or never, as nobody says what a provider makes of that.
fn resets(
    from: DateTime<Utc>,
    until: DateTime<Utc>,
    time: NaiveTime,
    zone: Tz,
) -> Vec<(DateTime<Utc>, DateTime<Utc>)> {
    let local = |at: DateTime<Utc>| at.with_timezone(&zone).naive_local();
    let mut resets: Vec<(NaiveDateTime, DateTime<Utc>, DateTime<Utc>)> = Vec::new();
    let mut at = from.duration_trunc(STEP).unwrap();
    while at < until {
        let (now, before) = (local(at), local(at - STEP));
        let due = now.date().and_time(time);
        let known = resets.last().is_some_and(|(of, ..)| *of == due);
        if now == due {
            match resets.last_mut().filter(|_| known) {
                Some((_, _, latest)) => *latest = at,
                None => resets.push((due, at, at)),
            }
        } else if now > due && !known && (before < due && now - before > STEP) {
            // It leapt over the time: it stands for the moments it would be by either offset.
            let by = |moment| {
                let offset = zone.offset_from_utc_datetime(&moment).fix().local_minus_utc();
                due.and_utc() - TimeDelta::seconds(offset.into())
            };
            let (old, new) = (by((at - STEP).naive_utc()), by(at.naive_utc()));
            resets.push((due, at.min(old).min(new), at.max(old).max(new)));
        }
        at += STEP;
    }
    resets.into_iter().map(|(_, earliest, latest)| (earliest, latest)).collect()
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

#[test]
fn a_reset_is_found_on_every_day_and_twice_or_never_where_the_clocks_change() {
    let found = |time: &str, zone, from: &str, until: &str| {
        resets(at(from), at(until), time.parse().unwrap(), zone)
    };
    let once = |text| (at(text), at(text));
    let (spring, autumn) = ("2026-03-07T12:00:00Z", "2026-10-31T12:00:00Z");
    let new_york = Tz::America__New_York;
    assert_eq!(
        found("00:00:00", new_york, spring, "2026-03-09T12:00:00Z"),
        [once("2026-03-08T05:00:00Z"), once("2026-03-09T04:00:00Z")]
    );
    assert_eq!(
        found("02:30:00", new_york, spring, "2026-03-09T12:00:00Z"),
        [(at("2026-03-08T06:30:00Z"), at("2026-03-08T07:30:00Z")), once("2026-03-09T06:30:00Z")]
    );
    assert_eq!(
        found("01:30:00", new_york, autumn, "2026-11-02T12:00:00Z"),
        [(at("2026-11-01T05:30:00Z"), at("2026-11-01T06:30:00Z")), once("2026-11-02T06:30:00Z")]
    );
    // Half an hour back, from 02:00 to 01:30.
    assert_eq!(
        found("01:45:00", Tz::Australia__Lord_Howe, "2026-04-04T02:00:00Z", "2026-04-05T02:00:00Z"),
        [(at("2026-04-04T14:45:00Z"), at("2026-04-04T15:15:00Z"))]
    );
    // The thirtieth of December 2011 never was.
    assert_eq!(
        found("12:00:00", Tz::Pacific__Apia, "2011-12-29T00:00:00Z", "2011-12-31T00:00:00Z"),
        [once("2011-12-29T22:00:00Z"), once("2011-12-30T22:00:00Z")]
    );
}

#[test]
fn one_request_too_many_is_found_in_24_hours_and_in_a_day_of_25() {
    let sent = |texts: &[&str]| texts.iter().map(|text| at(text)).collect::<Vec<_>>();
    let few = sent(&["2026-11-01T04:10:00Z", "2026-11-01T20:00:00Z", "2026-11-02T04:30:00Z"]);
    let found = broken(&few, 1, Day::Rolling, &[]).unwrap();
    assert_eq!((found.from, found.sent), (few[0], 2));
    assert_eq!(broken(&few, 2, Day::Rolling, &[]), None);
    let midnight = Day::ResetsAt(NaiveTime::MIN, Tz::America__New_York);
    let found = broken(&few, 2, midnight, &[]).unwrap();
    assert_eq!((found.sent, found.lawful, found.until - found.from), (3, 2, TimeDelta::hours(25)));
    let leap = [at("2026-11-01T12:00:00Z")];
    assert_eq!(broken(&few, 2, midnight, &leap), None);
}
