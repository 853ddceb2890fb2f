//! JSON text in columns: one spelling, with or without the order of its keys.
//!
//! All functions take valid JSON and work on the text itself, so that numbers keep every digit and
//! a deeply nested value costs no stack. Of what is not valid they make something, and never panic.

use std::borrow::Cow;
use std::fmt::Write;

use memchr::memchr2;

/// Below this depth the members of an object stay in the order given, so that a value nested
/// thousands of levels deep costs neither the stack nor quadratic time.
const MAX_SORTED_DEPTH: usize = 32;

/// Appends `json` without blanks between its parts and with every string in its shortest spelling.
pub fn compact(json: &str, out: &mut String) {
    // What needs no change is copied in one piece, from `copied` on.
    let (mut copied, mut at) = (0, 0);
    while let Some(byte) = json.as_bytes().get(at) {
        match byte {
            b'"' => {
                let start = at;
                let (length, is_plain) = measure_string(&json[start..]);
                at += length;
                if !is_plain {
                    out.push_str(&json[copied..start]);
                    push_string(&string_text(&json[start..at]), out);
                    copied = at;
                }
            }
            b' ' | b'\n' | b'\r' | b'\t' => {
                out.push_str(&json[copied..at]);
                at += 1;
                copied = at;
            }
            _ => at += 1,
        }
    }
    out.push_str(&json[copied..]);
}

/// Appends `json` as [`compact`] does, the members of every object sorted by key.
pub fn canonical(json: &str, out: &mut String) {
    sort(json.trim_ascii_start(), 0, out);
}

/// Appends `text` as a JSON string, quoted and escaped.
pub fn push_string(text: &str, out: &mut String) {
    let is_special = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
    out.push('"');
    // Most texts have nothing to escape; to look at all of one is faster than to stop at the first.
    let mut rest = text;
    if !text.bytes().fold(false, |found, byte| found | is_special(byte)) {
        out.push_str(text);
        rest = "";
    }
    while let Some(at) = rest.bytes().position(is_special) {
        out.push_str(&rest[..at]);
        match rest.as_bytes()[at] {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            control => {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{control:04x}");
            }
        }
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
    out.push('"');
}

/// Returns what the JSON string `raw` says, its quotes included in `raw`.
///
/// Half of a surrogate pair, as left behind where a text was cut inside an emoji, reads as U+FFFD.
pub fn string_text(raw: &str) -> Cow<'_, str> {
    let inner = raw.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(raw);
    if has_backslash(inner) { Cow::Owned(unescape(inner)) } else { Cow::Borrowed(inner) }
}

/// Returns the members of an object, each as the pieces of JSON text of name and value; of another
/// value none.
pub fn members(object: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut at = if object.starts_with('{') { 1 } else { object.len() };
    std::iter::from_fn(move || {
        let start = after_blanks(object, at);
        if object.as_bytes().get(start) != Some(&b'"') {
            return None;
        }
        let name_end = start + measure_string(&object[start..]).0;
        let colon = after_blanks(object, name_end);
        if object.as_bytes().get(colon) != Some(&b':') {
            return None;
        }
        let value_at = after_blanks(object, colon + 1);
        at = value_end(object, value_at);
        let member = (&object[start..name_end], &object[value_at..at]);
        at = after_comma(object, at);
        Some(member)
    })
}

/// Returns the elements of an array as pieces of JSON text; of another value none.
pub fn elements(array: &str) -> impl Iterator<Item = &str> {
    let mut at = if array.starts_with('[') { 1 } else { array.len() };
    std::iter::from_fn(move || {
        let start = after_blanks(array, at);
        let end = value_end(array, start);
        at = after_comma(array, end);
        (end > start).then(|| &array[start..end])
    })
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

/// Returns the place of the first byte from `at` on that is no blank between parts.
fn after_blanks(json: &str, at: usize) -> usize {
    let rest = json.as_bytes().get(at..).unwrap_or_default();
    at + rest.iter().take_while(|byte| is_blank(**byte)).count()
}

/// Returns the place after the comma that follows a value, or where there is none.
fn after_comma(json: &str, at: usize) -> usize {
    let at = after_blanks(json, at);
    at + usize::from(json.as_bytes().get(at) == Some(&b','))
}

/// Returns the place after the value that begins at `start`; where none does, `start`.
fn value_end(json: &str, start: usize) -> usize {
    let rest = json.get(start..).unwrap_or_default();
    let is_end = |byte: &u8| is_blank(*byte) || matches!(byte, b',' | b'}' | b']' | b':');
    start
        + match rest.as_bytes().first() {
            Some(b'"') => measure_string(rest).0,
            Some(b'{' | b'[') => measure_nested(rest),
            _ => rest.bytes().position(|byte| is_end(&byte)).unwrap_or(rest.len()),
        }
}

/// Returns the length of the array or object at the beginning of `text`.
fn measure_nested(text: &str) -> usize {
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(byte) = text.as_bytes().get(at) {
        match byte {
            b'"' => {
                at += measure_string(&text[at..]).0;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth <= 1 => return at + 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    text.len()
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let escape = rest.as_bytes().get(at + 1).copied().unwrap_or(b'\\');
        if escape == b'u' {
            let (character, length) = unicode_escape(&rest[at..]);
            out.push(character);
            rest = &rest[at + length..];
            continue;
        }
        out.push(match escape {
            b'n' => '\n',
            b't' => '\t',
            b'r' => '\r',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            // `"`, `\` and `/` stand for themselves; valid JSON has no other escape.
            other => char::from(other),
        });
        rest = rest.get(at + 2..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

/// Reads `\uXXXX`, or a pair of them, at the beginning of `text`; returns the bytes read, too.
fn unicode_escape(text: &str) -> (char, usize) {
    let unit = |at: usize| {
        let digits = text.get(at..)?.strip_prefix("\\u")?.get(..4)?;
        u32::from_str_radix(digits, 16).ok()
    };
    match (unit(0), unit(6)) {
        (Some(high @ 0xD800..=0xDBFF), Some(low @ 0xDC00..=0xDFFF)) => {
            let code = 0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00);
            (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 12)
        }
        (Some(code), _) => (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 6),
        (None, _) => (char::REPLACEMENT_CHARACTER, text.len().min(2)),
    }
}

/// In so many bytes a search is done in place: most texts end there, and the call of what is faster for
/// long ones costs as much as they do.
const SHORT_BYTES: usize = 32;

/// Returns the place of the first byte that is one of two.
fn find(one: u8, other: u8, bytes: &[u8]) -> Option<usize> {
    let all = |byte: u8| u64::from_le_bytes([byte; 8]);
    // The lowest of the marked bytes is zero; those above it may be marked for its sake alone.
    let mark_zeros = |word: u64| word.wrapping_sub(all(1)) & !word & all(0x80);
    let mut at = 0;
    while at < SHORT_BYTES
        && let Some(word) = bytes[at..].first_chunk()
    {
        let word = u64::from_le_bytes(*word);
        let found = mark_zeros(word ^ all(one)) | mark_zeros(word ^ all(other));
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    memchr2(one, other, &bytes[at..]).map(|found| at + found)
}

fn has_backslash(text: &str) -> bool {
    find(b'\\', b'\\', text.as_bytes()).is_some()
}

/// Returns the length of the string at the beginning of `text`, its quotes included, and whether it
/// has no escapes.
fn measure_string(text: &str) -> (usize, bool) {
    let bytes = text.as_bytes();
    let (mut at, mut is_plain) = (1, true);
    while let Some(found) = find(b'"', b'\\', bytes.get(at..).unwrap_or_default()) {
        at += found;
        if bytes[at] == b'"' {
            return (at + 1, is_plain);
        }
        is_plain = false;
        at += 2;
    }
    (text.len(), is_plain)
}

fn sort(json: &str, depth: usize, out: &mut String) {
    match json.as_bytes().first() {
        Some(b'{') if depth < MAX_SORTED_DEPTH => sort_object(json, depth, out),
        Some(b'[') if depth < MAX_SORTED_DEPTH => {
            out.push('[');
            for (index, element) in elements(json).enumerate() {
                if index > 0 {
                    out.push(',');
                }
                sort(element, depth + 1, out);
            }
            out.push(']');
        }
        _ => compact(json, out),
    }
}

fn sort_object(json: &str, depth: usize, out: &mut String) {
    let mut sorted: Vec<(Cow<'_, str>, &str)> =
        members(json).map(|(name, value)| (shortest(name), value)).collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    out.push('{');
    for (index, (name, value)) in sorted.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push_str(&name);
        out.push(':');
        sort(value, depth + 1, out);
    }
    out.push('}');
}

/// Returns a JSON string in its shortest spelling.
fn shortest(raw: &str) -> Cow<'_, str> {
    if !has_backslash(raw) {
        return Cow::Borrowed(raw);
    }
    let mut out = String::with_capacity(raw.len());
    push_string(&string_text(raw), &mut out);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn compacted(json: &str) -> String {
        let mut out = String::new();
        compact(json, &mut out);
        out
    }

    fn sorted(json: &str) -> String {
        let mut out = String::new();
        canonical(json, &mut out);
        out
    }

    #[test]
    fn blanks_and_spellings_go_and_numbers_stay() {
        assert_eq!(
            compacted(r#" { "b" : [ 1.50 , "x\/y", "\u0041 b" ] , "a" : { } } "#),
            r#"{"b":[1.50,"x/y","A b"],"a":{}}"#
        );
    }

    #[test]
    fn keys_are_sorted_at_every_level() {
        assert_eq!(
            sorted(r#"{"b":[{"d":1,"c":2},3],"a":"}\",{"}"#),
            r#"{"a":"}\",{","b":[{"c":2,"d":1},3]}"#
        );
        assert_eq!(sorted("[]"), "[]");
        assert_eq!(sorted("{}"), "{}");
        assert_eq!(sorted("7"), "7");
    }

    #[test]
    fn half_a_surrogate_pair_reads_as_a_replacement() {
        assert_eq!(string_text(r#""\ud83d\ude00""#), "😀");
        assert_eq!(string_text(r#""a\ud83d b""#), "a\u{fffd} b");
        assert_eq!(string_text(r#""\ud83d\u0041""#), "\u{fffd}A");
    }

    #[test]
    fn a_value_nested_a_hundred_thousand_levels_deep_costs_no_stack() {
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        assert_eq!(sorted(&deep), deep);
    }

    /// Returns any JSON value, nested a few levels.
    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    #[test]
    fn members_and_elements_are_the_pieces_they_stand_in() {
        let object = r#" { "a" :1.50 , "b\"":[ "]", {} ] ,"c":{"d":"}"},"e":" \\"} "#.trim();
        let pieces = [("\"a\"", "1.50"), (r#""b\"""#, r#"[ "]", {} ]"#)];
        let nested = [("\"c\"", r#"{"d":"}"}"#), ("\"e\"", r#"" \\""#)];
        assert_eq!(members(object).collect::<Vec<_>>(), [pieces, nested].concat());
        assert_eq!(elements("[ 1 ,[2,3],\"x\" ]").collect::<Vec<_>>(), ["1", "[2,3]", "\"x\""]);
        assert_eq!((members("{ }").count(), elements("[ ]").count()), (0, 0));
        assert_eq!((members("[1]").count(), elements("{\"a\":1}").count()), (0, 0));
    }

    proptest! {
        #[test]
        fn the_first_of_two_bytes_is_found(text in r#"[!-#\[-\]a\x01\u{7f}ä\u{122}]{0,48}"#) {
            let bytes = text.as_bytes();
            for (one, other) in [(b'"', b'\\'), (b'\\', b'\\'), (b'\\', b'"')] {
                let expected = bytes.iter().position(|byte| [one, other].contains(byte));
                prop_assert_eq!(find(one, other, bytes), expected);
            }
        }

        #[test]
        fn no_text_makes_a_walk_panic_or_go_on_for_ever(text in r#"[\[{]?[\[\]{}:," \\1aä]{0,24}"#) {
            prop_assert!(members(&text).count() <= text.len());
            prop_assert!(elements(&text).count() <= text.len());
            canonical(&text, &mut String::new());
        }

        #[test]
        fn every_spelling_reads_back_equal(value in any_json()) {
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            for text in [compacted(&pretty), sorted(&pretty)] {
                prop_assert_eq!(&serde_json::from_str::<Value>(&text).unwrap(), &value);
            }
        }

        #[test]
        fn compacting_twice_is_compacting_once(value in any_json()) {
            let once = sorted(&value.to_string());
            prop_assert_eq!(&sorted(&once), &once);
        }

        #[test]
        fn a_text_reads_back_equal(text in any::<String>()) {
            let mut quoted = String::new();
            push_string(&text, &mut quoted);
            prop_assert_eq!(&serde_json::from_str::<String>(&quoted).unwrap(), &text);
            prop_assert_eq!(string_text(&quoted), text);
        }
    }
}
