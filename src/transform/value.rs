//! Lenient reading of single values: what a provider meant, from the many ways it may say it.
//!
//! A reader gets a value as JSON text and returns what it says, `None` where it says nothing (null,
//! blank text, an empty list or map), or [`Misfit`] where it does not fit; it never guesses.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

use chrono::NaiveDate;
use rust_decimal::Decimal;
use serde_json::value::RawValue;

use crate::record::is_usable_id;
use crate::schema::json;
use crate::schema::lead::MONEY_PRECISION;
use crate::schema::lead::Micros;
use crate::schema::lead::Money;
use crate::schema::text::MONEY_SCALE;
use crate::transform::record::Rest;

/// The years 1 to 9999, in seconds since 1970: what every warehouse holds. An offset may lead out.
const SECONDS: Range<i64> = -62_135_596_800..253_402_300_800;

/// A value that does not fit its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Misfit;

/// What a value says.
pub(super) type Read<T> = Result<Option<T>, Misfit>;

/// Tells whether the value says nothing: null, blank text, `[]` or `{}`.
pub(super) fn is_blank(raw: &str) -> bool {
    match raw.as_bytes().first() {
        // Most begin with what is neither white nor an escape.
        Some(b'"') if raw.as_bytes().get(1).is_some_and(u8::is_ascii_alphanumeric) => false,
        Some(b'"') => is_white(&json::string_text(raw)),
        Some(b'[' | b'{') => raw[1..raw.len() - 1].trim_ascii().is_empty(),
        _ => raw == "null",
    }
}

/// Reads text as given, blanks around it included; numbers and booleans are text, too.
pub(super) fn text(raw: &str) -> Read<Cow<'_, str>> {
    match raw.as_bytes().first() {
        Some(b'"') => Ok(Some(json::string_text(raw)).filter(|text| !is_white(text))),
        _ if is_blank(raw) => Ok(None),
        Some(b'[' | b'{') => Err(Misfit),
        _ => Ok(Some(Cow::Borrowed(raw))),
    }
}

/// Tells whether nothing but white space is in `text`.
pub(super) fn is_white(text: &str) -> bool {
    text.chars().all(char::is_whitespace)
}

/// Reads a record's id: text, trimmed, or a whole number, however long; one that [`is_usable_id`].
pub(super) fn id(raw: &str) -> Read<Cow<'_, str>> {
    let Some(text) = text(raw)? else { return Ok(None) };
    let text = match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
        Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
    };
    let digits = text.strip_prefix('-').unwrap_or(&text);
    let is_whole = raw.starts_with('"') || digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_whole && is_usable_id(&text) { Ok(Some(text)) } else { Err(Misfit) }
}

/// Reads true and false, quoted or not, also as yes and no and as 1 and 0.
pub(super) fn bool(raw: &str) -> Read<bool> {
    let Some(text) = text(raw)? else { return Ok(None) };
    let text = text.trim();
    let is = |words: [&str; 3]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    match (is(["true", "yes", "1"]), is(["false", "no", "0"])) {
        (true, _) => Ok(Some(true)),
        (_, true) => Ok(Some(false)),
        _ => Err(Misfit),
    }
}

/// Reads a whole number, also as text or with zeros after the point.
pub(super) fn int(raw: &str) -> Read<i64> {
    let Some(text) = text(raw)? else { return Ok(None) };
    let number = decimal(text.trim()).ok_or(Misfit)?;
    if !number.is_integer() {
        return Err(Misfit);
    }
    i64::try_from(number.trunc().mantissa()).map(Some).map_err(|_| Misfit)
}

/// Reads a number, also as text.
pub(super) fn float(raw: &str) -> Read<f64> {
    let Some(text) = text(raw)? else { return Ok(None) };
    let text = text.trim();
    if !is_numeric(text) {
        return Err(Misfit);
    }
    match text.parse::<f64>() {
        // Minus zero becomes zero: two spellings of one number must not be two versions of a lead.
        Ok(number) if number.is_finite() => Ok(Some(number + 0.0)),
        _ => Err(Misfit),
    }
}

/// Reads an exact amount, also as text; one that the column cannot hold exactly does not fit.
pub(super) fn money(raw: &str) -> Read<Money> {
    let Some(text) = text(raw)? else { return Ok(None) };
    let amount = decimal(text.trim()).ok_or(Misfit)?.normalize();
    let zeros = MONEY_SCALE.checked_sub(amount.scale()).ok_or(Misfit)?;
    let scaled = amount.mantissa() * 10_i128.pow(zeros);
    if scaled.unsigned_abs() >= 10_u128.pow(MONEY_PRECISION.into()) {
        return Err(Misfit);
    }
    Ok(Some(Money(scaled)))
}

fn decimal(text: &str) -> Option<Decimal> {
    if !is_numeric(text) {
        return None;
    }
    if text.contains(['e', 'E']) {
        return Decimal::from_scientific(text).ok();
    }
    Decimal::from_str_exact(text).ok()
}

/// Tells whether only digits, signs, a point and an exponent stand in `text`: number parsers take
/// more, such as `inf` and `1_000`.
fn is_numeric(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte))
}

/// A time, and how it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Time {
    /// The instant.
    pub(super) micros: Micros,
    /// Whether it stood there in UTC with `Z` and lost no digit: then the instant says it all.
    pub(super) is_plain: bool,
    /// Whether it named its zone; without one it is read as UTC.
    pub(super) has_zone: bool,
}

/// Reads a date and time in ISO 8601: with `Z`, an offset or no zone, `T` or a blank between date
/// and time, and any fraction of a second, of which microseconds are kept.
pub(super) fn time(raw: &str) -> Read<Time> {
    let Some(text) = text(raw)? else { return Ok(None) };
    parse_time(text.trim()).map(Some).ok_or(Misfit)
}

fn parse_time(text: &str) -> Option<Time> {
    let digits = |at: usize, length: usize| number(text.get(at..at + length)?);
    let is = |at: usize, marks: &[u8]| text.as_bytes().get(at).is_some_and(|b| marks.contains(b));
    if ![(4, "-"), (7, "-"), (10, "Tt "), (13, ":"), (16, ":")]
        .iter()
        .all(|(at, marks)| is(*at, marks.as_bytes()))
    {
        return None;
    }
    let date = NaiveDate::from_ymd_opt(
        i32::try_from(digits(0, 4)?).ok().filter(|year| *year > 0)?,
        digits(5, 2)?,
        digits(8, 2)?,
    )?;
    let local = date.and_hms_opt(digits(11, 2)?, digits(14, 2)?, digits(17, 2)?)?;
    let (fraction, is_exact, zone) = fraction(text.get(19..)?)?;
    let offset_s = offset_s(zone.trim_start())?;

    let seconds = local.and_utc().timestamp() - offset_s.unwrap_or(0);
    if !SECONDS.contains(&seconds) {
        return None;
    }
    Some(Time {
        micros: Micros(seconds * 1_000_000 + i64::from(fraction)),
        is_plain: zone == "Z" && is_exact && is(10, b"T"),
        has_zone: offset_s.is_some(),
    })
}

/// Splits off a fraction of a second; returns its microseconds, whether these are all of it, and
/// what follows.
fn fraction(text: &str) -> Option<(u32, bool, &str)> {
    let Some(rest) = text.strip_prefix(['.', ',']) else { return Some((0, true, text)) };
    let length = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, zone) = rest.split_at(length);
    let (kept, lost) = digits.split_at(length.min(6));
    let micros = number(kept)? * 10_u32.pow(6 - u32::try_from(kept.len()).ok()?);
    Some((micros, lost.bytes().all(|digit| digit == b'0'), zone))
}

/// Returns seconds east of UTC, `Some(None)` where no zone is named, `None` where it is none.
fn offset_s(zone: &str) -> Option<Option<i64>> {
    if zone.is_empty() {
        return Some(None);
    }
    if matches!(zone, "Z" | "z" | "UTC") {
        return Some(Some(0));
    }
    let (sign, rest) = match zone.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = match rest.len() {
        2 => (rest, "00"),
        4 => rest.split_at_checked(2)?,
        5 => rest.split_once(':')?,
        _ => return None,
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let fits = hours < 24 && minutes < 60;
    fits.then(|| Some(sign * i64::from(hours * 3_600 + minutes * 60)))
}

/// Reads up to nine digits and nothing else.
fn number(digits: &str) -> Option<u32> {
    let fits = (1..=9).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    fits.then(|| digits.parse().ok()).flatten()
}

/// What a column takes of a list or map, and what of it it cannot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Nested {
    /// The text of the column.
    pub(super) text: String,
    /// What goes to `extra`.
    pub(super) rest: Rest,
}

/// How an array of objects spells a map: the members with a name and with its value, those first by
/// which what is left is written.
#[derive(Debug, Clone, Copy)]
struct Spelling {
    name: &'static [&'static str],
    value: &'static [&'static str],
}

const FIELDS: Spelling =
    Spelling { name: &["name", "field_name"], value: &["value", "field_value"] };
const ATTRIBUTES: Spelling = Spelling { name: &["key"], value: &["value"] };

/// Reads a map: an object, an array of names with values, or text with either of them.
///
/// Of a repeated name the last value counts, and the others are the rest.
pub(super) fn map(raw: &str) -> Read<Nested> {
    unquoted(raw, |raw| map_of_json(raw, FIELDS))
}

/// Reads a map as [`map`] does, one of whose names is called `key`.
pub(super) fn attributes(raw: &str) -> Read<Nested> {
    unquoted(raw, |raw| map_of_json(raw, ATTRIBUTES))
}

fn map_of_json(raw: &str, spelling: Spelling) -> Read<Nested> {
    if is_blank(raw) {
        return Ok(None);
    }
    if json::is_flat(raw) {
        return Ok(Some(Nested { text: raw.to_owned(), rest: Rest::Nothing }));
    }
    let mut pairs = Vec::new();
    let mut rest = Rest::Nothing;
    if raw.starts_with('{') {
        split(raw, |name, value| pairs.push((json::string_text(name), value)))?;
    } else {
        for element in elements(raw)? {
            let (pair, is_whole) = pair(element, spelling)?;
            pairs.push(pair);
            if !is_whole {
                rest = Rest::Whole;
            }
        }
    }
    let (mut kept, mut lost) = (Vec::with_capacity(pairs.len()), Vec::new());
    let mut seen = HashSet::new();
    let is_short = pairs.len() <= json::FEW_MEMBERS;
    for (at, (name, value)) in pairs.iter().enumerate().rev() {
        let is_last = match is_short {
            true => pairs[at + 1..].iter().all(|(later, _)| later != name),
            false => seen.insert(name),
        };
        if is_last { &mut kept } else { &mut lost }.push((&**name, *value));
    }
    if rest == Rest::Nothing && !lost.is_empty() {
        rest = Rest::Part(pairs_json(&lost, spelling));
    }
    Ok(Some(Nested { text: object_json(&kept), rest }))
}

/// Reads a list of texts: an array, text with an array, or text with commas between its parts.
pub(super) fn list(raw: &str) -> Read<String> {
    texts(raw, text)
}

/// Reads tags: a list of texts as [`list`] does, or of objects of which each has a name. Where there
/// is more in an object than its name, the list is the rest, too.
pub(super) fn tags(raw: &str) -> Read<Nested> {
    let mut rest = Rest::Nothing;
    let read = texts(raw, |element| {
        if !element.starts_with('{') {
            return text(element);
        }
        let (name, is_whole) = tag_name(element)?;
        if !is_whole {
            rest = Rest::Whole;
        }
        Ok(Some(name))
    })?;
    Ok(read.map(|text| Nested { text, rest }))
}

/// Reads the first text of a list; where there are more, all of it is the rest, too.
pub(super) fn first_of_list(raw: &str) -> Read<Nested> {
    let Some(list) = list(raw)? else { return Ok(None) };
    let texts = elements(&list)?;
    let first = texts.first().map(|first| json::string_text(first).into_owned());
    let rest = if texts.len() > 1 { Rest::Whole } else { Rest::Nothing };
    Ok(first.map(|text| Nested { text, rest }))
}

/// Returns what a tag is called, and whether the object says nothing else.
fn tag_name(raw: &str) -> Result<(Cow<'_, str>, bool), Misfit> {
    let (mut name, mut is_whole) = (None, true);
    split(raw, |member, found| match &*json::string_text(member) {
        "name" => name = Some(found),
        _ => is_whole &= is_blank(found),
    })?;
    let name = text(name.ok_or(Misfit)?)?.ok_or(Misfit)?;
    Ok((name, is_whole))
}

fn texts(raw: &str, element: impl for<'e> FnMut(&'e str) -> Read<Cow<'e, str>>) -> Read<String> {
    if raw.starts_with('"') {
        let text = json::string_text(raw);
        let text = text.trim();
        if !text.starts_with('[') || serde_json::from_str::<&RawValue>(text).is_err() {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            return Ok(array_json(parts));
        }
    }
    unquoted(raw, |raw| {
        if is_blank(raw) {
            return Ok(None);
        }
        let texts: Result<Vec<_>, Misfit> = elements(raw)?.into_iter().map(element).collect();
        Ok(array_json(texts?.iter().flatten().map(|text| &**text)))
    })
}

/// Reads notes: text, or an array of texts and of objects with `title` and `description`, of which
/// each becomes `title: description`, with a line break between them. What else is in the objects
/// is the rest, an object for each note.
pub(super) fn notes(raw: &str) -> Read<Nested> {
    if !raw.starts_with('[') {
        let text = text(raw)?;
        return Ok(text.map(|text| Nested { text: text.into_owned(), rest: Rest::Nothing }));
    }
    let (mut lines, mut rests) = (Vec::new(), Vec::new());
    for element in elements(raw)? {
        let (line, rest) = note(element)?;
        lines.extend(line);
        rests.push(rest);
    }
    let rest = match rests.iter().any(|rest| rest != "{}") {
        true => Rest::Part(format!("[{}]", rests.join(","))),
        false => Rest::Nothing,
    };
    let text = lines.join("\n");
    if text.is_empty() && rest != Rest::Nothing {
        return Err(Misfit);
    }
    Ok((!text.is_empty()).then_some(Nested { text, rest }))
}

/// Returns the line of a note, and an object of what is not in it.
fn note(raw: &str) -> Result<(Option<String>, String), Misfit> {
    if !raw.starts_with('{') {
        return Ok((text(raw)?.map(Cow::into_owned), "{}".to_owned()));
    }
    let (mut title, mut description, mut others) = ("null", "null", Vec::new());
    split(raw, |name, value| match json::string_text(name) {
        name if name == "title" => title = value,
        name if name == "description" => description = value,
        name if !is_blank(value) => others.push((name, value)),
        _ => {}
    })?;
    others.reverse();
    let others: Vec<_> = others.iter().map(|(name, value)| (&**name, *value)).collect();
    let line = match (text(title)?, text(description)?) {
        (Some(title), Some(description)) => Some(format!("{title}: {description}")),
        (title, description) => title.or(description).map(Cow::into_owned),
    };
    Ok((line, object_json(&others)))
}

/// Calls `read` with the value, or with the JSON that stands in it as text.
fn unquoted<T>(raw: &str, read: impl FnOnce(&str) -> Read<T>) -> Read<T> {
    if !raw.starts_with('"') {
        return read(raw);
    }
    let inner = json::string_text(raw);
    if inner.trim().is_empty() {
        return Ok(None);
    }
    let value: &RawValue = serde_json::from_str(&inner).map_err(|_| Misfit)?;
    if value.get().starts_with('"') { Err(Misfit) } else { read(value.get()) }
}

/// Hands the members of an object to a function; another value is a misfit.
fn split<'a>(raw: &'a str, mut member: impl FnMut(&'a str, &'a str)) -> Result<(), Misfit> {
    if !raw.starts_with('{') {
        return Err(Misfit);
    }
    json::members(raw).for_each(|(name, value)| member(name, value));
    Ok(())
}

fn elements(raw: &str) -> Result<Vec<&str>, Misfit> {
    if raw.starts_with('[') { Ok(json::elements(raw).collect()) } else { Err(Misfit) }
}

type Pair<'a> = (Cow<'a, str>, &'a str);

/// Reads an object with a name and its value; also tells whether there was nothing else in it.
fn pair(raw: &str, spelling: Spelling) -> Result<(Pair<'_>, bool), Misfit> {
    let (mut name, mut value, mut is_whole) = (None, None, true);
    split(raw, |member, found| match &*json::string_text(member) {
        member if spelling.name.contains(&member) => name = Some(found),
        member if spelling.value.contains(&member) => value = Some(found),
        _ => is_whole = false,
    })?;
    let name = text(name.ok_or(Misfit)?)?.ok_or(Misfit)?;
    Ok(((name, value.unwrap_or("null")), is_whole))
}

/// Returns an object of `members`, which are given from the last to the first.
fn object_json(members: &[(&str, &str)]) -> String {
    let length = members.iter().map(|(name, value)| name.len() + value.len() + 4).sum::<usize>();
    let mut out = String::with_capacity(length + 2);
    out.push('{');
    for (name, value) in members.iter().rev() {
        if out.len() > 1 {
            out.push(',');
        }
        json::push_string(name, &mut out);
        out.push(':');
        json::compact(value, &mut out);
    }
    out.push('}');
    out
}

/// Returns an array of names with values, which are given from the last to the first.
fn pairs_json(members: &[(&str, &str)], spelling: Spelling) -> String {
    let objects = members.iter().rev().map(|(name, value)| {
        let mut quoted = String::new();
        json::push_string(name, &mut quoted);
        // Given from the last to the first.
        object_json(&[(spelling.value[0], *value), (spelling.name[0], &*quoted)])
    });
    format!("[{}]", objects.collect::<Vec<_>>().join(","))
}

fn array_json<'t>(texts: impl Iterator<Item = &'t str>) -> Option<String> {
    let mut out = String::new();
    for text in texts {
        out.push(if out.is_empty() { '[' } else { ',' });
        json::push_string(text, &mut out);
    }
    if out.is_empty() {
        return None;
    }
    out.push(']');
    Some(out)
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_says_nothing_is_nothing_to_every_reader() {
        for raw in ["null", r#""""#, r#"" \t""#, "[]", "{ }"] {
            assert_eq!(text(raw), Ok(None), "{raw}");
            assert_eq!(id(raw), Ok(None), "{raw}");
            assert_eq!(bool(raw), Ok(None), "{raw}");
            assert_eq!(int(raw), Ok(None), "{raw}");
            assert_eq!(money(raw), Ok(None), "{raw}");
            assert_eq!(time(raw), Ok(None), "{raw}");
            assert_eq!(map(raw), Ok(None), "{raw}");
            assert_eq!(list(raw), Ok(None), "{raw}");
            assert_eq!(attributes(raw), Ok(None), "{raw}");
            assert_eq!(tags(raw), Ok(None), "{raw}");
            assert_eq!(notes(raw), Ok(None), "{raw}");
            assert_eq!(first_of_list(raw), Ok(None), "{raw}");
        }
    }

    #[test]
    fn ids_are_whole_numbers_or_text() {
        assert_eq!(id("179000001"), Ok(Some("179000001".into())));
        assert_eq!(id(r#"" 00a\/7 ""#), Ok(Some("00a/7".into())));
        for raw in ["1.5", "1e3", "true", "{\"a\":1}", "[1]"] {
            assert_eq!(id(raw), Err(Misfit), "{raw}");
        }
    }

    #[test]
    fn booleans_come_quoted_and_as_words() {
        assert_eq!(bool("true"), Ok(Some(true)));
        assert_eq!(bool(r#""FALSE""#), Ok(Some(false)));
        assert_eq!(bool("1"), Ok(Some(true)));
        assert_eq!(bool(r#""maybe""#), Err(Misfit));
    }

    #[test]
    fn amounts_are_exact_or_do_not_fit() {
        for (raw, scaled) in [
            ("251", 2_510_000),
            (r#""251.50""#, 2_515_000),
            ("-0.0001", -1),
            ("1.5e3", 15_000_000),
            ("0", 0),
            ("99999999999999.9999", 999_999_999_999_999_999),
        ] {
            assert_eq!(money(raw), Ok(Some(Money(scaled))), "{raw}");
        }
        for raw in ["0.00001", "100000000000000", r#""$5""#, r#""1,000""#, "1e99", "true"] {
            assert_eq!(money(raw), Err(Misfit), "{raw}");
        }
    }

    #[test]
    fn whole_numbers_may_be_text_or_end_in_zeros() {
        assert_eq!(int("175"), Ok(Some(175)));
        assert_eq!(int(r#""13.0""#), Ok(Some(13)));
        assert_eq!(int("-9223372036854775808"), Ok(Some(i64::MIN)));
        for raw in ["1.5", r#""13 seconds""#, "9223372036854775808"] {
            assert_eq!(int(raw), Err(Misfit), "{raw}");
        }
        assert_eq!(float(r#""-0""#).unwrap().unwrap().to_string(), "0");
        assert_eq!(float(r#""NaN""#), Err(Misfit));
    }

    fn instant(text: &str) -> Option<String> {
        let time = parse_time(text)?;
        let mut out = String::new();
        crate::schema::text::time(time.micros.0, &mut out);
        Some(format!("{out} plain={} zone={}", time.is_plain, time.has_zone))
    }

    #[test]
    fn times_come_in_many_forms() {
        for (text, read) in [
            ("2025-05-28T19:19:51Z", "2025-05-28T19:19:51Z plain=true zone=true"),
            ("2025-05-28T19:19:51.25Z", "2025-05-28T19:19:51.250000Z plain=true zone=true"),
            ("2025-05-28T19:19:51.1234567Z", "2025-05-28T19:19:51.123456Z plain=false zone=true"),
            ("2025-05-28T19:19:51-05:00", "2025-05-29T00:19:51Z plain=false zone=true"),
            ("2025-05-28T19:19:51+0530", "2025-05-28T13:49:51Z plain=false zone=true"),
            ("2026-06-05 16:15:12", "2026-06-05T16:15:12Z plain=false zone=false"),
            ("2026-06-05 16:15:12 UTC", "2026-06-05T16:15:12Z plain=false zone=true"),
        ] {
            assert_eq!(instant(text).as_deref(), Some(read), "{text}");
        }
        for text in [
            "2025-05-28",
            "2025-02-30T00:00:00Z",
            "0000-00-00 00:00:00",
            "9999-12-31T23:59:59-01:00",
            "2025-05-28T24:00:00Z",
            "2025-05-28T19:19:51.Z",
            "2025-05-28T19:19:51 EST",
            "1748459991",
            "soon",
            "2025-05-28T19:19:5éZ",
        ] {
            assert_eq!(instant(text), None, "{text}");
        }
    }

    #[test]
    fn maps_come_as_objects_pairs_and_text() {
        for raw in [
            r#"{"a b": "1", "c":[2]}"#,
            r#"[{"field_name":"a b","field_value":"1"},{"name":"c","value":[2]}]"#,
            r#""{\"a b\":\"1\",\"c\":[2]}""#,
        ] {
            let read = map(raw).unwrap().unwrap();
            assert_eq!(read.text, r#"{"a b":"1","c":[2]}"#);
            assert_eq!(read.rest, Rest::Nothing);
        }
        for raw in ["7", r#""text""#, "[1]", r#"[{"value":1}]"#] {
            assert_eq!(map(raw), Err(Misfit), "{raw}");
        }
    }

    #[test]
    fn of_a_repeated_name_the_last_value_counts_and_the_others_are_the_rest() {
        let read = map(r#"{"a":1,"b":2,"a":3,"a":4}"#).unwrap().unwrap();
        assert_eq!(read.text, r#"{"b":2,"a":4}"#);
        let lost = r#"[{"name":"a","value":1},{"name":"a","value":3}]"#;
        assert_eq!(read.rest, Rest::Part(lost.to_owned()));

        let read = map(r#"[{"name":"a","value":1,"id":9}]"#).unwrap().unwrap();
        assert_eq!((read.text.as_str(), read.rest), (r#"{"a":1}"#, Rest::Whole));
    }

    #[test]
    fn lists_come_as_arrays_json_text_and_commas() {
        for raw in
            [r#"["buy","get quote"]"#, r#""buy, get quote,""#, r#""[\"buy\",\"get quote\"]""#]
        {
            assert_eq!(list(raw), Ok(Some(r#"["buy","get quote"]"#.to_owned())), "{raw}");
        }
        assert_eq!(list(r#""[buy], now""#), Ok(Some(r#"["[buy]","now"]"#.to_owned())));
        assert_eq!(list(r#"[["a"]]"#), Err(Misfit));
        assert_eq!(list(r#"{"a":1}"#), Err(Misfit));
    }

    #[test]
    fn an_attribute_has_a_key() {
        let read = attributes(r#"[{"key":"a","value":1},{"key":"a","value":[2]}]"#);
        let read = read.unwrap().unwrap();
        assert_eq!(read.text, r#"{"a":[2]}"#);
        assert_eq!(read.rest, Rest::Part(r#"[{"key":"a","value":1}]"#.to_owned()));
        assert_eq!(attributes(r#"{"a":1}"#).unwrap().unwrap().text, r#"{"a":1}"#);
        // What is called a name is not what is called a key.
        assert_eq!(attributes(r#"[{"name":"a","value":1}]"#), Err(Misfit));
        assert_eq!(map(r#"[{"key":"a","value":1}]"#), Err(Misfit));
    }

    #[test]
    fn tags_are_texts_or_have_a_name() {
        let tags = |raw: &str| tags(raw).unwrap().map(|read| (read.text, read.rest));
        let both = r#"["a","b"]"#.to_owned();
        let plain = Some((both.clone(), Rest::Nothing));
        assert_eq!(tags(r#"["a",null,"b"]"#), plain);
        assert_eq!(tags(r#""a, b""#), plain);
        assert_eq!(tags(r#""[\"a\",{\"name\":\"b\"}]""#), plain);
        assert_eq!(tags(r#"[{"name":"a","id":1},"b"]"#), Some((both, Rest::Whole)));
        assert_eq!(tags("[]"), None);
        for raw in [r#"[{"id":1}]"#, r#"[["a"]]"#, r#"{"name":"a"}"#, "7"] {
            assert_eq!(super::tags(raw), Err(Misfit), "{raw}");
        }
    }

    #[test]
    fn notes_are_lines_and_what_else_they_have_is_the_rest() {
        let read = notes(r#"[{"title":"a","description":"b","_id":1},"c",{"description":"d"},{}]"#);
        let read = read.unwrap().unwrap();
        assert_eq!(read.text, "a: b\nc\nd");
        assert_eq!(read.rest, Rest::Part(r#"[{"_id":1},{},{},{}]"#.to_owned()));
        assert_eq!(notes(r#""a""#).unwrap().unwrap().text, "a");
        assert_eq!(notes(r#"[{"title":"","_id":null}]"#), Ok(None));
        for raw in [r#"[{"_id":1}]"#, r#"[["a"]]"#, r#"{"title":"a"}"#] {
            assert_eq!(notes(raw), Err(Misfit), "{raw}");
        }
    }

    proptest! {
        #[test]
        fn a_written_time_reads_back_equal(micros in -62_135_596_800_000_000_i64..253_402_300_800_000_000) {
            let mut text = String::new();
            crate::schema::text::time(micros, &mut text);
            let read = parse_time(&text).unwrap();
            prop_assert_eq!(read.micros.0, micros);
            prop_assert!(read.is_plain);
            let time = DateTime::parse_from_rfc3339(&text).unwrap();
            prop_assert_eq!(time.timestamp_micros(), micros);
        }

        #[test]
        fn no_text_makes_a_reader_panic(given in any::<String>()) {
            let raw = serde_json::to_string(&given).unwrap();
            let _ = (text(&raw), id(&raw), bool(&raw), int(&raw), float(&raw), money(&raw));
            let _ = (time(&raw), map(&raw), list(&raw));
            let _ = (attributes(&raw), tags(&raw), notes(&raw), first_of_list(&raw));
        }

        #[test]
        fn nothing_that_looks_like_a_number_makes_a_reader_panic(given in "[-+0-9.eE]{1,40}") {
            let raw = format!("\"{given}\"");
            let _ = (int(&raw), float(&raw), money(&raw));
        }
    }
}
