//! The times that may be reckoned with: those of the years 0 to 9999.
//!
//! Adding a length to an instant fails beyond the calendar of the library, which ends 260,000 years
//! from here. Nothing of ours is that old; a stored file or a provider may say so all the same. It
//! is turned away where it comes in, so that no sum inside need be afraid of it: a length is checked
//! to be at most a hundred years where it is read.

use std::fmt;
use std::ops::RangeInclusive;

use chrono::DateTime;
use chrono::Datelike;
use chrono::Utc;
use serde::Deserialize;
use serde::Deserializer;
use serde::de;
use serde::de::DeserializeOwned;
use serde::de::DeserializeSeed;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;

/// The years that four digits can write.
const YEARS: RangeInclusive<i32> = 0..=9_999;

/// Tells whether an instant may be reckoned with.
pub fn holds(at: DateTime<Utc>) -> bool {
    YEARS.contains(&at.year())
}

/// Reads stored JSON.
///
/// # Errors
///
/// Where it is not what it should be, or has a time that may not be reckoned with.
pub fn read<T: DeserializeOwned>(json: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice::<Checked>(json)?;
    serde_json::from_slice(json)
}

/// Reads a time as [`read`] does all of them, for a field of what is too large to be read twice.
pub fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DateTime<Utc>, D::Error> {
    let at = DateTime::deserialize(deserializer)?;
    holds(at).then_some(at).ok_or_else(|| de::Error::custom(BEYOND))
}

const BEYOND: &str = "a time lies outside the years 0 to 9999";

/// A JSON value without such times.
struct Checked;

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Check).map(|()| Self)
    }
}

#[derive(Clone, Copy)]
struct Check;

impl<'de> DeserializeSeed<'de> for Check {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Check {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON with times of the years 0 to 9999")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        match is_beyond(text) {
            true => Err(E::custom(BEYOND)),
            false => Ok(()),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_entry_seed(self, self)?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Tells whether a text is such a time. Most are told by their first character: a year of more than
/// four digits, or before the first, has a sign.
fn is_beyond(text: &str) -> bool {
    let is_odd = text.trim_start().starts_with(['+', '-']) || text.starts_with("0000-");
    is_odd && text.parse::<DateTime<Utc>>().is_ok_and(|at| !holds(at))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_time_that_no_sum_may_begin_with_is_refused_wherever_it_stands() {
        type Times = BTreeMap<DateTime<Utc>, Vec<DateTime<Utc>>>;
        let sound = "2026-03-01T02:00:00Z";
        let read_two = |key: &str, value: &str| {
            read::<Times>(format!(r#"{{"{key}":["{sound}","{value}"]}}"#).as_bytes())
        };
        assert_eq!(read_two(sound, "9999-12-31T23:59:59Z").unwrap().len(), 1);
        assert_eq!(read_two("0000-01-01T00:00:00Z", sound).unwrap().len(), 1);
        for beyond in [
            "+262142-12-31T23:59:59Z",
            "-262143-01-01T00:00:00Z",
            "+10000-01-01T00:00:00Z",
            "-0001-12-31T23:59:59Z",
            "0000-01-01T00:00:00+01:00",
        ] {
            for read in [read_two(sound, beyond), read_two(beyond, sound)] {
                assert!(read.unwrap_err().to_string().contains("years 0 to 9999"), "{beyond}");
            }
        }
    }

    #[test]
    fn other_texts_are_none_of_its_business() {
        let texts = r#"["+1 212 555-0100", "-5", "0000-", "+262142-12-31", ""]"#;
        assert_eq!(read::<Vec<String>>(texts.as_bytes()).unwrap().len(), 5);
    }
}
