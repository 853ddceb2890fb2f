//! JSON text in columns: one spelling, with or without the order of its keys.
//!
//! Both functions take valid JSON and work on the text itself, so that numbers keep every digit and
//! a deeply nested value costs no stack.

use std::borrow::Cow;
use std::fmt::Write;

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
    let mut text = String::with_capacity(json.len());
    compact(json, &mut text);
    sort(&text, 0, out);
}

/// Appends `text` as a JSON string, quoted and escaped.
pub fn push_string(text: &str, out: &mut String) {
    out.push('"');
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|b| b < b' ' || b == b'"' || b == b'\\') {
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
    if inner.contains('\\') { Cow::Owned(unescape(inner)) } else { Cow::Borrowed(inner) }
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

/// Returns the length of the string at the beginning of `text`, its quotes included, and whether it
/// has no escapes.
fn measure_string(text: &str) -> (usize, bool) {
    let bytes = text.as_bytes();
    let (mut at, mut is_plain) = (1, true);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return (at + 1, is_plain),
            b'\\' => {
                is_plain = false;
                at += 2;
            }
            _ => at += 1,
        }
    }
    (text.len(), is_plain)
}

fn sort(json: &str, depth: usize, out: &mut String) {
    let open = json.chars().next().unwrap_or(' ');
    if depth == MAX_SORTED_DEPTH || !matches!(open, '{' | '[') {
        return out.push_str(json);
    }
    let mut parts = parts(&json[1..json.len() - 1]);
    if open == '{' {
        parts.sort_by_key(|part| &part[..measure_string(part).0]);
    }
    out.push(open);
    for (index, part) in parts.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        let value_at = if open == '{' { measure_string(part).0 + 1 } else { 0 };
        out.push_str(&part[..value_at]);
        sort(&part[value_at..], depth + 1, out);
    }
    out.push(if open == '{' { '}' } else { ']' });
}

/// Splits what stands between the brackets of a compact array or object at its commas.
fn parts(inner: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut at, mut depth) = (0, 0, 0_usize);
    while let Some(byte) = inner.as_bytes().get(at) {
        match byte {
            b'"' => {
                at += measure_string(&inner[at..]).0;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                parts.push(&inner[start..at]);
                start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    if start < inner.len() {
        parts.push(&inner[start..]);
    }
    parts
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

    proptest! {
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
