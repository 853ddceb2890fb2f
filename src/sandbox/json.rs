//! A writer of JSON that goes straight into a byte buffer.
//!
//! Half a million leads are rendered on demand, so there is no tree of values in between. Strings
//! are escaped as the platform's language does: PHP's `json_encode` escapes `/` always, and beyond
//! ASCII writes either `\uXXXX` (its default) or what stands there; `JSON.stringify` escapes
//! neither.

use std::collections::HashMap;
use std::io::Write;

use serde_json::Map;
use serde_json::Value;

/// Fields set by hand, by name; `None` takes a field off.
pub(super) type Fields = HashMap<String, Option<Value>>;

/// JSON in the making.
#[derive(Debug)]
pub(super) struct Json<'a> {
    out: &'a mut Vec<u8>,
    ascii: bool,
    slashes: bool,
    without: &'a [String],
}

impl<'a> Json<'a> {
    /// Returns a writer that appends to `out`; `ascii` escapes all that is beyond ASCII, and
    /// fields named in `without` are left out.
    pub(super) fn new(out: &'a mut Vec<u8>, ascii: bool, without: &'a [String]) -> Self {
        Self { out, ascii, slashes: true, without }
    }

    /// Returns a writer that appends to `out` as JavaScript does.
    pub(super) fn script(out: &'a mut Vec<u8>, without: &'a [String]) -> Self {
        Self { out, ascii: false, slashes: false, without }
    }

    /// Opens an object or array, with its name where it has one.
    pub(super) fn open(&mut self, name: Option<&str>, bracket: u8) {
        self.separate();
        if let Some(name) = name {
            self.name(name);
        }
        self.out.push(bracket);
    }

    /// Closes what [`Self::open`] opened.
    pub(super) fn close(&mut self, bracket: u8) {
        self.out.push(bracket);
    }

    /// Writes an object with what `fill` puts into it.
    pub(super) fn object(&mut self, name: &str, fill: impl FnOnce(&mut Json<'_>)) {
        if !self.skips(name) {
            self.open(Some(name), b'{');
            fill(self);
            self.close(b'}');
        }
    }

    /// Writes an array with what `fill` puts into it.
    pub(super) fn list(&mut self, name: &str, fill: impl FnOnce(&mut Json<'_>)) {
        if !self.skips(name) {
            self.open(Some(name), b'[');
            fill(self);
            self.close(b']');
        }
    }

    /// Writes a string as an element of an array.
    pub(super) fn item(&mut self, value: &str) {
        self.separate();
        self.out.push(b'"');
        self.escape(value);
        self.out.push(b'"');
    }

    /// Writes a string field.
    pub(super) fn text(&mut self, name: &str, value: &str) {
        self.texts(name, &[value]);
    }

    /// Writes a string field made of several pieces.
    pub(super) fn texts(&mut self, name: &str, pieces: &[&str]) {
        if !self.begin(name) {
            return;
        }
        self.out.push(b'"');
        for piece in pieces {
            self.escape(piece);
        }
        self.out.push(b'"');
    }

    /// Writes a whole number.
    pub(super) fn number(&mut self, name: &str, value: u64) {
        self.raw(name, value);
    }

    /// Writes a field whose value is JSON already.
    pub(super) fn raw(&mut self, name: &str, value: impl std::fmt::Display) {
        if self.begin(name) {
            // Writing to a vector cannot fail.
            let _ = write!(self.out, "{value}");
        }
    }

    /// Says whether a field is to be left out.
    pub(super) fn skips(&self, name: &str) -> bool {
        !self.without.is_empty() && self.without.iter().any(|without| without == name)
    }

    fn begin(&mut self, name: &str) -> bool {
        if self.skips(name) {
            return false;
        }
        self.separate();
        self.name(name);
        true
    }

    fn separate(&mut self) {
        if !matches!(self.out.last(), None | Some(b'{' | b'[' | b',')) {
            self.out.push(b',');
        }
    }

    fn name(&mut self, name: &str) {
        self.out.push(b'"');
        self.escape(name);
        self.out.extend_from_slice(b"\":");
    }

    fn escape(&mut self, text: &str) {
        let bytes = text.as_bytes();
        let (mut done, mut at) = (0, 0);
        // Byte by byte, since nearly all of them go through as they are; a byte that does not
        // begins a character.
        while at < bytes.len() {
            let plain = match bytes[at] {
                b'"' | b'\\' | 0..b' ' => false,
                b'/' => !self.slashes,
                0x80.. => !self.ascii,
                _ => true,
            };
            if plain {
                at += 1;
                continue;
            }
            self.out.extend_from_slice(&bytes[done..at]);
            if let Some(character) = text[at..].chars().next() {
                self.escape_one(character);
                at += character.len_utf8();
            }
            done = at;
        }
        self.out.extend_from_slice(&bytes[done..]);
    }

    fn escape_one(&mut self, character: char) {
        match character {
            '"' => self.out.extend_from_slice(b"\\\""),
            '\\' => self.out.extend_from_slice(b"\\\\"),
            '/' => self.out.extend_from_slice(b"\\/"),
            '\n' => self.out.extend_from_slice(b"\\n"),
            '\r' => self.out.extend_from_slice(b"\\r"),
            '\t' => self.out.extend_from_slice(b"\\t"),
            _ => {
                let mut units = [0_u16; 2];
                for unit in character.encode_utf16(&mut units) {
                    let _ = write!(self.out, "\\u{unit:04x}");
                }
            }
        }
    }
}

/// Writes the object that begins at `start` again, with the fields set by hand.
///
/// A name with dots leads into objects: `profile.notes`.
pub(super) fn patch(out: &mut Vec<u8>, start: usize, fields: &Fields) {
    let Ok(mut object) = serde_json::from_slice::<Map<String, Value>>(&out[start..]) else {
        return;
    };
    for (name, value) in fields {
        set(&mut object, name, value.as_ref());
    }
    out.truncate(start);
    // Writing a map of values to memory cannot fail.
    let _ = serde_json::to_writer(out, &object);
}

fn set(object: &mut Map<String, Value>, name: &str, value: Option<&Value>) {
    let Some((outer, inner)) = name.split_once('.') else {
        match value {
            Some(value) => object.insert(name.to_owned(), value.clone()),
            None => object.remove(name),
        };
        return;
    };
    let next = object.entry(outer).or_insert(Value::Null);
    if !next.is_object() {
        *next = Value::Object(Map::new());
    }
    if let Some(next) = next.as_object_mut() {
        set(next, inner, value);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(ascii: bool, text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let mut json = Json::new(&mut out, ascii, &[]);
        json.open(None, b'{');
        json.text("text", text);
        json.number("number", 7);
        json.close(b'}');
        out
    }

    #[test]
    fn slashes_are_escaped_as_php_does() {
        assert_eq!(written(true, "a/é"), br#"{"text":"a\/\u00e9","number":7}"#);
    }

    #[test]
    fn a_script_escapes_neither_slashes_nor_letters() {
        let mut out = Vec::new();
        let mut json = Json::script(&mut out, &[]);
        json.open(None, b'{');
        json.text("text", "a/é\n");
        json.list("tags", |json| {
            json.item("x");
            json.item("\"y\"");
        });
        json.close(b'}');
        assert_eq!(String::from_utf8(out).unwrap(), r#"{"text":"a/é\n","tags":["x","\"y\""]}"#);
    }

    #[test]
    fn a_patch_leads_into_objects_and_takes_fields_off() {
        let mut out = br#"[{"a":{"b":1,"c":2},"d":3}"#.to_vec();
        let fields = [
            ("a.b".to_owned(), Some(Value::from(7))),
            ("d".to_owned(), None),
            ("e.f".to_owned(), Some(Value::from("new"))),
        ];
        patch(&mut out, 1, &fields.into_iter().collect());
        assert_eq!(out, br#"[{"a":{"b":7,"c":2},"e":{"f":"new"}}"#);
    }

    proptest! {
        #[test]
        fn any_text_reads_back_as_it_was(text in "\\PC*|[\\x00-\\x7f]*", ascii: bool) {
            let read: serde_json::Value = serde_json::from_slice(&written(ascii, &text)).unwrap();
            prop_assert_eq!(read["text"].as_str().unwrap(), text);
        }
    }
}
