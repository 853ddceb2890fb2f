//! How values that are no text are written as text: in CSV, and in the content hash.
//!
//! One form for each type, the same on every machine. Everything appends to a buffer of the caller,
//! who clears it.

use std::fmt::Write;

use chrono::DateTime;
use chrono::Datelike;
use chrono::Timelike;

/// Decimal digits after the point in a money column.
pub const MONEY_SCALE: u32 = 4;

/// Appends a time in RFC 3339 with `Z`; `micros` counts microseconds since 1970 in UTC.
///
/// Fractions stand there only where there are any, then with six digits.
pub fn time(micros: i64, out: &mut String) {
    let Some(time) = DateTime::from_timestamp_micros(micros) else {
        // Beyond what the calendar covers; no reader of ours makes such a time.
        return int(micros, out);
    };
    // The calendar's own formatting by a pattern takes several times as long, and each row has times.
    let (date, clock) = (time.date_naive(), time.time());
    let year = date.year();
    if !(0..=9999).contains(&year) {
        append(out, format_args!("{year:+05}"));
    } else {
        append(out, format_args!("{year:04}"));
    }
    for (mark, number) in [
        ('-', date.month()),
        ('-', date.day()),
        ('T', clock.hour()),
        (':', clock.minute()),
        (':', clock.second()),
    ] {
        out.push(mark);
        out.extend([number / 10, number % 10].map(|digit| char::from(b'0' + digit as u8)));
    }
    match time.nanosecond() / 1_000 {
        0 => {}
        fraction => append(out, format_args!(".{fraction:06}")),
    }
    out.push('Z');
}

/// Appends an amount, given in ten-thousandths: no exponent, no zeros at the end, e.g. `251.5`.
pub fn money(scaled: i128, out: &mut String) {
    let unit = 10_u128.pow(MONEY_SCALE);
    let size = scaled.unsigned_abs();
    if scaled < 0 {
        out.push('-');
    }
    append(out, format_args!("{}", size / unit));
    if !size.is_multiple_of(unit) {
        append(out, format_args!(".{:04}", size % unit));
        out.truncate(out.trim_end_matches('0').len());
    }
}

/// Appends a number in the shortest form that reads back equal, without an exponent.
pub fn float(number: f64, out: &mut String) {
    append(out, format_args!("{number}"));
}

/// Appends a whole number.
pub fn int(number: i64, out: &mut String) {
    append(out, format_args!("{number}"));
}

/// Returns `true` or `false`.
pub fn bool(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

fn append(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(write: impl FnOnce(&mut String)) -> String {
        let mut out = String::new();
        write(&mut out);
        out
    }

    #[test]
    fn times_show_a_fraction_only_where_there_is_one() {
        assert_eq!(written(|out| time(0, out)), "1970-01-01T00:00:00Z");
        assert_eq!(written(|out| time(1_500_000, out)), "1970-01-01T00:00:01.500000Z");
        assert_eq!(written(|out| time(-1, out)), "1969-12-31T23:59:59.999999Z");
    }

    #[test]
    fn amounts_are_plain_and_end_without_zeros() {
        for (scaled, text) in [
            (0, "0"),
            (2_510_000, "251"),
            (2_515_000, "251.5"),
            (1, "0.0001"),
            (-2_500, "-0.25"),
            (1_000_000, "100"),
        ] {
            assert_eq!(written(|out| money(scaled, out)), text);
        }
    }

    proptest! {
        #[test]
        fn a_time_is_written_as_the_calendar_writes_it(seconds in -99_999_999_999_i64..999_999_999_999) {
            let expected = DateTime::from_timestamp(seconds, 0).unwrap();
            let expected = expected.format("%Y-%m-%dT%H:%M:%SZ").to_string();
            prop_assert_eq!(written(|out| time(seconds * 1_000_000, out)), expected);
        }

        #[test]
        fn a_number_reads_back_equal(number in any::<f64>().prop_filter("finite", |n| n.is_finite())) {
            prop_assert_eq!(written(|out| float(number, out)).parse::<f64>().unwrap(), number);
        }
    }
}
