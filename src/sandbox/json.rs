//! A writer of JSON that goes straight into a byte buffer.
//!
//! Half a million leads are rendered on demand, so there is no tree of values in between. Strings
//! are escaped as PHP's `json_encode` does: `/` always, and beyond ASCII either as `\uXXXX` (its
//! default) or as it stands.

use std::io::Write;

/// JSON in the making.
#[derive(Debug)]
pub(super) struct Json<'a> {
    out: &'a mut Vec<u8>,
    ascii: bool,
    without: &'a [String],
}

impl<'a> Json<'a> {
    /// Returns a writer that appends to `out`; `ascii` escapes all that is beyond ASCII, and
    /// fields named in `without` are left out.
    pub(super) fn new(out: &'a mut Vec<u8>, ascii: bool, without: &'a [String]) -> Self {
        Self { out, ascii, without }
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
                b'"' | b'\\' | b'/' | 0..b' ' => false,
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

    proptest! {
        #[test]
        fn any_text_reads_back_as_it_was(text in "\\PC*|[\\x00-\\x7f]*", ascii: bool) {
            let read: serde_json::Value = serde_json::from_slice(&written(ascii, &text)).unwrap();
            prop_assert_eq!(read["text"].as_str().unwrap(), text);
        }
    }
}
