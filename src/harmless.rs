//! What others wrote, made fit to be shown: names, words of providers, texts of leads.
//!
//! A terminal obeys some characters, an editor turns or hides text at others. Such a character is
//! written out where a text is shown; what is stored keeps it.

use std::fmt::Write;

/// Returns a text in which no character moves a cursor, turns the direction of writing or hides
/// another: such characters are written out, e.g. `\u{1b}`.
pub fn harmless(text: &str) -> String {
    written_out(text, |_| false, |character, out| out.extend(character.escape_unicode()))
}

/// Returns the same of a text of several lines, which stay lines.
pub fn harmless_lines(text: &str) -> String {
    let is_break = |character| character == '\n';
    written_out(text, is_break, |character, out| out.extend(character.escape_unicode()))
}

/// Returns a JSON text that says the same, in which such characters are escaped as JSON does. Outside
/// of its texts, JSON has none but line breaks.
pub fn harmless_json(json: &str) -> String {
    let is_break = |character| character == '\n';
    written_out(json, is_break, |character, out| {
        for unit in character.encode_utf16(&mut [0; 2]) {
            // Writing to a string cannot fail.
            let _ = write!(out, "\\u{unit:04x}");
        }
    })
}

/// Tells whether a character does something else than to be seen: it controls a terminal, turns the
/// direction of writing, breaks a line, or is not seen at all.
pub fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            // Soft hyphen, fillers, and what joins, parts or turns the letters of some scripts.
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
                | '\u{180b}'..='\u{180f}' | '\u{3164}' | '\u{ffa0}'
                // Marks of direction, of zero width, line and paragraph.
                | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
                | '\u{feff}' | '\u{fff0}'..='\u{fffb}'
                // Tags, which spell a second text that nobody sees.
                | '\u{e0000}'..='\u{e007f}'
        )
}

fn written_out(
    text: &str,
    stays: impl Fn(char) -> bool,
    write_out: impl Fn(char, &mut String),
) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match is_harmful(character) && !stays(character) {
            true => write_out(character, &mut out),
            false => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_controls_turns_or_hides_is_written_out() {
        for (text, shown) in [
            ("a\u{1b}[2Jb", "a\\u{1b}[2Jb"),
            ("a\u{9b}2Jb\u{7f}", "a\\u{9b}2Jb\\u{7f}"),
            ("a\u{202e}b\u{2066}c\u{200f}", "a\\u{202e}b\\u{2066}c\\u{200f}"),
            ("pay\u{200b}pal\u{feff}", "pay\\u{200b}pal\\u{feff}"),
            ("a\u{2028}b\nc", "a\\u{2028}b\\u{a}c"),
            ("a\u{e0041}", "a\\u{e0041}"),
            ("José 李明 +1 212 555-0100", "José 李明 +1 212 555-0100"),
        ] {
            assert_eq!(harmless(text), shown);
        }
        assert_eq!(harmless_lines("a\r\nb\u{7}\n"), "a\\u{d}\nb\\u{7}\n");
    }

    proptest! {
        #[test]
        fn harmless_text_has_nothing_harmful_and_stays_so(text in any::<String>()) {
            let once = harmless(&text);
            prop_assert!(!once.chars().any(is_harmful));
            prop_assert_eq!(harmless(&once), once);
            let lines = harmless_lines(&text);
            prop_assert!(!lines.chars().any(|c| is_harmful(c) && c != '\n'));
            prop_assert_eq!(lines.matches('\n').count(), text.matches('\n').count());
        }

        #[test]
        fn harmless_json_says_the_same(texts in prop::collection::vec(any::<String>(), 0..4)) {
            let texts = [texts, vec!["\u{9b}\u{202e}\u{e0001}\u{7f}\n".to_owned()]].concat();
            let json = harmless_json(&serde_json::to_string_pretty(&texts).unwrap());
            prop_assert!(!json.chars().any(|c| is_harmful(c) && c != '\n'));
            prop_assert_eq!(serde_json::from_str::<Vec<String>>(&json).unwrap(), texts);
        }
    }
}
