//! Small texts: numbers, instants, lists.

use std::fmt::Display;

use chrono::DateTime;
use chrono::FixedOffset;
use chrono::Utc;

/// Returns a number with its thousands apart, e.g. `20,031`.
pub fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Returns an instant in local time, and in UTC where that is another.
pub fn instant(at: DateTime<Utc>, zone: FixedOffset) -> String {
    let utc = at.format("%F %R UTC");
    if zone.local_minus_utc() == 0 {
        return utc.to_string();
    }
    format!("{} ({utc})", at.with_timezone(&zone).format("%F %R %:z"))
}

/// Returns the first `most` items, and how many more there are.
pub fn list<T: Display>(items: impl IntoIterator<Item = T>, most: usize) -> String {
    let mut items = items.into_iter();
    let shown: Vec<String> = items.by_ref().take(most).map(|item| item.to_string()).collect();
    match items.count() {
        0 => shown.join(", "),
        rest => format!("{} and {} more", shown.join(", "), number(rest as u64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_thousands_apart() {
        let texts = [0, 999, 1_000, 20_031, 1_000_000].map(number);
        assert_eq!(texts, ["0", "999", "1,000", "20,031", "1,000,000"]);
    }

    #[test]
    fn an_instant_is_told_in_local_time_and_in_utc() {
        let at = "2026-11-02T01:10:00Z".parse().unwrap();
        let zone = |hours| FixedOffset::east_opt(hours * 3600).unwrap();
        assert_eq!(instant(at, zone(0)), "2026-11-02 01:10 UTC");
        assert_eq!(instant(at, zone(2)), "2026-11-02 03:10 +02:00 (2026-11-02 01:10 UTC)");
    }

    #[test]
    fn long_lists_are_cut_and_say_so() {
        assert_eq!(list(["a", "b"], 2), "a, b");
        assert_eq!(list(["a", "b", "c"], 2), "a, b and 1 more");
    }
}
