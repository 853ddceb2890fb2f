//! JSON text in columns: one spelling, with or without the order of its keys.
//!
//! All functions take valid JSON and work on the text itself, so that numbers keep every digit and
//! a deeply nested value costs no stack. Of what is not valid they make something, and never panic.

use std::borrow::Cow;
use std::fmt::Write;

use memchr::memchr;
use memchr::memchr2;
use wide::u8x32;

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
                let (end, is_plain) = string_end(json.as_bytes(), start);
                at = end;
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

/// Among so many members a repeated name is found by comparing, faster than by a set of them.
pub const FEW_MEMBERS: usize = 16;

/// Tells whether an object is a flat one as [`compact`] would have it, of which no two names are the same:
/// most are. One with many members is not told to be, nor one with escapes.
pub fn is_flat(object: &str) -> bool {
    let mut names = [""; FEW_MEMBERS];
    let mut length = 1;
    for (at, (name, value)) in members(object).enumerate() {
        if at == FEW_MEMBERS || names[..at].contains(&name) || !is_scalar(value) {
            return false;
        }
        names[at] = name;
        // A colon stands in it as well, and a comma or the last brace.
        length += name.len() + value.len() + 2;
    }
    length > 1 && length == object.len() && !has_backslash(object)
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
    let mut walk = Members::of(object);
    std::iter::from_fn(move || {
        let name = walk.name()?;
        Some((name, walk.value()))
    })
}

/// A walk over the members of an object: a name, and then its value as a whole or element by element.
#[derive(Debug)]
pub struct Members<'a> {
    object: &'a str,
    at: usize,
    is_plain: bool,
}

impl<'a> Members<'a> {
    /// Returns the walk from the first member on; of another value than an object there is none.
    pub fn of(object: &'a str) -> Self {
        let at = if object.starts_with('{') { 1 } else { object.len() };
        Self { object, at, is_plain: true }
    }

    /// Goes on to the next member and returns its name as JSON text. Its value has to be taken.
    pub fn name(&mut self) -> Option<&'a str> {
        let bytes = self.object.as_bytes();
        let start = after_blanks(bytes, self.at);
        if bytes.get(start) != Some(&b'"') {
            return None;
        }
        let (end, is_plain) = string_end(bytes, start);
        let colon = after_blanks(bytes, end);
        if bytes.get(colon) != Some(&b':') {
            return None;
        }
        (self.at, self.is_plain) = (after_blanks(bytes, colon + 1), is_plain);
        Some(&self.object[start..end])
    }

    /// Takes the value as JSON text.
    pub fn value(&mut self) -> &'a str {
        let (bytes, start) = (self.object.as_bytes(), self.at);
        let end = match bytes.get(start) {
            Some(b'"') => {
                let (end, is_plain) = string_end(bytes, start);
                self.is_plain = is_plain;
                end
            }
            _ => {
                self.is_plain = false;
                value_end(bytes, start)
            }
        };
        self.at = after_comma(bytes, end);
        &self.object[start..end]
    }

    /// Returns what is left of the object, from the member on that comes next.
    pub fn rest(&self) -> &'a str {
        &self.object[self.at..]
    }

    /// Tells whether what [`Members::name`] or [`Members::value`] returned last is text that stands there as it
    /// reads, but for its quotes.
    pub fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// Takes the value where it is an array, as the pieces of JSON text of its elements.
    pub fn elements(&mut self) -> Option<Vec<&'a str>> {
        let array = self.object.get(self.at..)?;
        if !array.starts_with('[') {
            return None;
        }
        let mut at = 1;
        let found = std::iter::from_fn(|| next_element(array, &mut at)).collect();
        let end = after_blanks(array.as_bytes(), at);
        let is_closed = array.as_bytes().get(end) == Some(&b']');
        self.at = after_comma(self.object.as_bytes(), self.at + end + usize::from(is_closed));
        Some(found)
    }
}

/// Returns the elements of an array as pieces of JSON text; of another value none.
pub fn elements(array: &str) -> impl Iterator<Item = &str> {
    let mut at = if array.starts_with('[') { 1 } else { array.len() };
    std::iter::from_fn(move || next_element(array, &mut at))
}

/// Returns the element that begins at `at`, or behind blanks, and goes on to the next one.
fn next_element<'a>(array: &'a str, at: &mut usize) -> Option<&'a str> {
    let start = after_blanks(array.as_bytes(), *at);
    let end = value_end(array.as_bytes(), start);
    *at = after_comma(array.as_bytes(), end);
    (end > start).then(|| &array[start..end])
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

/// Returns the place of the first byte from `at` on that is no blank between parts.
fn after_blanks(json: &[u8], mut at: usize) -> usize {
    while json.get(at).is_some_and(|byte| is_blank(*byte)) {
        at += 1;
    }
    at
}

/// Returns the place after the comma that follows a value, or where there is none.
fn after_comma(json: &[u8], at: usize) -> usize {
    let at = after_blanks(json, at);
    at + usize::from(json.get(at) == Some(&b','))
}

/// Returns the place after the value that begins at `start`; where none does, `start`.
fn value_end(json: &[u8], start: usize) -> usize {
    let is_end = |byte: &u8| is_blank(*byte) || matches!(byte, b',' | b'}' | b']' | b':');
    match json.get(start) {
        Some(b'"') => string_end(json, start).0,
        Some(b'{' | b'[') => nested_end(json, start),
        _ => {
            let rest = json.get(start..).unwrap_or_default();
            start + rest.iter().position(is_end).unwrap_or(rest.len())
        }
    }
}

/// Returns the place after the array or object that begins at `start`.
fn nested_end(json: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0_usize);
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => {
                at = string_end(json, at).0;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth <= 1 => return at + 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    json.len()
}

/// Returns the place after the string that begins at `start`, and whether it has an end and no escapes.
fn string_end(json: &[u8], start: usize) -> (usize, bool) {
    let (mut at, mut is_plain) = (start + 1, true);
    while let Some(found) = find_mark(json.get(at..).unwrap_or_default()) {
        at += found;
        if json[at] == b'"' {
            return (at + 1, is_plain);
        }
        is_plain = false;
        at += 2;
    }
    (json.len(), false)
}

/// So many bytes are looked at at once.
const LANES: usize = 32;

/// Returns the place of the first quote or backslash. Most strings are shorter than what is looked at at once,
/// so that the same way is taken for each.
fn find_mark(bytes: &[u8]) -> Option<usize> {
    let (quote, backslash) = (u8x32::splat(b'"'), u8x32::splat(b'\\'));
    let mut at = 0;
    while let Some(chunk) = bytes[at..].first_chunk::<LANES>() {
        let chunk = u8x32::from(*chunk);
        let marks = (chunk.simd_eq(quote) | chunk.simd_eq(backslash)).to_bitmask();
        if marks != 0 {
            return Some(at + marks.trailing_zeros() as usize);
        }
        at += LANES;
    }
    memchr2(b'"', b'\\', &bytes[at..]).map(|found| at + found)
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr(b'\\', rest.as_bytes()) {
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

/// In so many bytes a search is done in place, eight at a time: a call costs as much as they do.
const SHORT_BYTES: usize = 32;

fn has_backslash(text: &str) -> bool {
    let all = |byte: u8| u64::from_le_bytes([byte; 8]);
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < SHORT_BYTES
        && let Some(word) = bytes[at..].first_chunk()
    {
        let word = u64::from_le_bytes(*word) ^ all(b'\\');
        if word.wrapping_sub(all(1)) & !word & all(0x80) != 0 {
            return true;
        }
        at += 8;
    }
    memchr(b'\\', &bytes[at..]).is_some()
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
    let (mut few, mut count) = ([("", "", false); FEW_MEMBERS], 0);
    // Many are flat and their keys sorted: without blanks and escapes such a one stays as it is.
    let (mut is_sorted, mut length) = (true, 1);
    let mut walk = Members::of(json);
    while let Some(name) = walk.name() {
        if count == FEW_MEMBERS || !walk.is_plain() {
            return sort_many(json, depth, out);
        }
        let value = walk.value();
        is_sorted &= is_scalar(value) && (count == 0 || few[count - 1].0 < name);
        length += name.len() + value.len() + 2;
        few[count] = (name, value, walk.is_plain());
        count += 1;
    }
    if is_sorted && length == json.len() && !has_backslash(json) {
        return out.push_str(json);
    }
    few[..count].sort_by(|a, b| a.0.cmp(b.0));
    push_members(few[..count].iter().copied(), depth, out);
}

/// Sorts an object as [`sort_object`] does, however many members it has and however they are spelled.
fn sort_many(json: &str, depth: usize, out: &mut String) {
    let mut sorted: Vec<(Cow<'_, str>, &str)> =
        members(json).map(|(name, value)| (shortest(name), value)).collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    push_members(sorted.iter().map(|(name, value)| (&**name, *value, false)), depth, out);
}

/// Appends an object of members that are sorted: the name, the value, and whether that is text which stands
/// there as it reads.
fn push_members<'m>(
    members: impl Iterator<Item = (&'m str, &'m str, bool)>,
    depth: usize,
    out: &mut String,
) {
    out.push('{');
    for (index, (name, value, is_plain)) in members.enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push_str(name);
        out.push(':');
        match is_plain {
            true => out.push_str(value),
            false => sort(value, depth + 1, out),
        }
    }
    out.push('}');
}

/// Tells whether a value is neither an object nor an array.
fn is_scalar(value: &str) -> bool {
    !value.starts_with(['{', '['])
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
    fn a_flat_object_has_texts_and_numbers_each_under_a_name_of_its_own() {
        for flat in [r#"{"a":1}"#, r#"{"b":"x y","a":null,"c":-1.50}"#] {
            assert!(is_flat(flat), "{flat}");
            assert_eq!(compacted(flat), flat);
        }
        let long: Vec<String> = (0..=FEW_MEMBERS).map(|at| format!("\"{at}\":1")).collect();
        for other in [
            r#"{"a":1,"a":2}"#,
            r#"{"a": 1}"#,
            r#"{"a":1 }"#,
            r#"{"a":"\/"}"#,
            r#"{"\u0061":1}"#,
            r#"{"a":[]}"#,
            r#"{"a":{}}"#,
            "{}",
            "[]",
            "1",
            &format!("{{{}}}", long.join(",")),
        ] {
            assert!(!is_flat(other), "{other}");
        }
    }

    #[test]
    fn a_walk_takes_arrays_by_their_elements() {
        let object = r#"{ "a" : 1 , "b" : [ 1 , [2] ] , "c":[],"d":{"e":[3]} , "f":[4]}"#;
        let mut walk = Members::of(object);
        let mut found = Vec::new();
        while let Some(name) = walk.name() {
            match walk.elements() {
                Some(elements) => found.push((name, elements)),
                None => found.push((name, vec![walk.value()])),
            }
        }
        let expected = [
            (r#""a""#, vec!["1"]),
            (r#""b""#, vec!["1", "[2]"]),
            (r#""c""#, vec![]),
            (r#""d""#, vec![r#"{"e":[3]}"#]),
            (r#""f""#, vec!["4"]),
        ];
        assert_eq!(found, expected);
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
        fn quotes_and_backslashes_are_found(
            before in r"[!#\[\]a\x01\u{7f}ä\u{122}]{0,100}",
            mark in r#"["\\]?"#,
            behind in r#"[!-#\[-\]a]{0,40}"#,
        ) {
            let text = [before, mark, behind].concat();
            let place = text.bytes().position(|byte| b"\"\\".contains(&byte));
            prop_assert_eq!(find_mark(text.as_bytes()), place);
            prop_assert_eq!(has_backslash(&text), text.contains('\\'));
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
        fn the_short_ways_lead_where_the_long_one_does(
            members in prop::collection::vec(("[a-c\"\\\\é]{0,2}", any_json()), 0..40),
            blank in "[ \n]?",
        ) {
            // Names may come twice, which a value of the library cannot have.
            let member = |(name, value): &(String, Value)| format!("{}:{blank}{value}", Value::from(name.as_str()));
            let all: Vec<String> = members.iter().map(member).collect();
            for count in [0, 1, 3, FEW_MEMBERS, FEW_MEMBERS + 1, all.len()] {
                let text = format!("{{{}}}", all[..count.min(all.len())].join(","));
                let mut long = String::new();
                sort_many(&text, 0, &mut long);
                prop_assert_eq!(&sorted(&text), &long);
                prop_assert_eq!(&sorted(&long), &long);
                prop_assert!(!is_flat(&text) || compacted(&text) == text);
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
