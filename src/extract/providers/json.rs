//! JSON as providers write it: numbers as text, texts in lists, pages of HTML in its place.
//!
//! What cannot be read is told by its place, never by what stands there.

use std::borrow::Cow;

use chrono::DateTime;
use chrono::NaiveDateTime;
use chrono::Utc;
use serde::Deserialize;
use serde::Deserializer;
use serde::de;
use serde_json::Value;
use serde_json::value::RawValue;

use super::rows::MOST_ROWS;
use super::rows::TOO_MANY_ROWS;
use crate::extract::Error;
use crate::extract::Result;
use crate::extract::http::one_line;
use crate::ids::ProviderId;
use crate::record::is_usable_id;
use crate::schema::json::string_text;

/// Reads a body of `provider`.
pub(super) fn parse<'a, T: Deserialize<'a>>(provider: ProviderId, body: &'a [u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|error| {
        if error.is_data() && error.to_string().starts_with(TOO_MANY_ROWS) {
            return Error::TooManyRows { provider, limit: MOST_ROWS };
        }
        let what = if is_html(body) { "it is HTML, not JSON".to_owned() } else { place(&error) };
        broken(provider, &what)
    })
}

/// Returns the error of an answer that is not as documented; `detail` shows nothing of it.
pub(super) fn broken(provider: ProviderId, detail: &str) -> Error {
    Error::Broken { provider, detail: detail.to_owned() }
}

/// Tells whether a body looks like a page for people.
pub(super) fn is_html(body: &[u8]) -> bool {
    body.trim_ascii_start().first() == Some(&b'<')
}

/// Names where the parser stopped, without the text it stopped at.
fn place(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Eof => "the JSON ends early",
        serde_json::error::Category::Data => "the JSON has another form than documented",
        _ => "it is not JSON",
    };
    format!("{what}, at line {} column {}", error.line(), error.column())
}

/// Refuses a body that is no object, where a provider documents one: a list may be read as one whose
/// members stand in a row.
pub(super) fn refuse_other_than_object(provider: ProviderId, body: &[u8]) -> Result<()> {
    match body.trim_ascii_start().first() {
        // What is nothing at all, or a page for people, is told by its parser.
        Some(b'{' | b'<') | None => Ok(()),
        Some(_) => Err(broken(provider, "it is no JSON object")),
    }
}

/// The longest body in which words are looked for, in bytes: as a value it takes many times as much.
const WORDY_BYTES: usize = 64 << 10;

/// Returns the first words in a body, of those at `pointers`: a text, or a list of texts. A body so long
/// that it is no refusal has none.
pub(super) fn words(body: &[u8], pointers: &[&str]) -> Option<String> {
    if body.len() > WORDY_BYTES {
        return None;
    }
    let body: Value = serde_json::from_slice(body).ok()?;
    pointers.iter().find_map(|pointer| words_in(body.pointer(pointer)?))
}

/// Returns the words of a value, as one line; `None` where there are none.
pub(super) fn words_in(value: &Value) -> Option<String> {
    let words = match value {
        Value::String(text) => one_line(text),
        Value::Array(items) => {
            one_line(&items.iter().filter_map(words_in).collect::<Vec<_>>().join("; "))
        }
        _ => return None,
    };
    (!words.is_empty()).then_some(words)
}

/// Reads a number that may come as text.
pub(super) fn number(raw: Option<&RawValue>) -> Option<u64> {
    raw?.get().trim_matches('"').trim().parse().ok()
}

/// Reads a field that [`number`] reads; anything else is nothing.
pub(super) fn lenient_number<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Option<u64>, D::Error> {
    let raw = Option::<Box<RawValue>>::deserialize(deserializer)?;
    Ok(number(raw.as_deref()))
}

/// Reads an id that is a number, or a number as text.
pub(super) fn id_number<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<u64, D::Error> {
    let raw = Box::<RawValue>::deserialize(deserializer)?;
    number(Some(&raw)).ok_or_else(|| de::Error::custom("an id is not a number"))
}

/// Reads an id, a whole number or a text; the same text as the mapping uses.
pub(super) fn native_id(raw: &str) -> Option<Cow<'_, str>> {
    let text = match raw.starts_with('"') {
        true => trimmed(string_text(raw)),
        false => Cow::Borrowed(raw.trim()),
    };
    let digits = text.strip_prefix('-').unwrap_or(&text);
    let is_whole = raw.starts_with('"') || digits.bytes().all(|byte| byte.is_ascii_digit());
    (is_whole && is_usable_id(&text)).then_some(text)
}

fn trimmed(text: Cow<'_, str>) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
        Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
    }
}

/// Reads a time in the three forms seen: `Z`, an offset, and no zone (then UTC).
pub(super) fn time(raw: &str) -> Option<DateTime<Utc>> {
    let text = raw.trim_matches('"');
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.to_utc());
    }
    let forms = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"];
    let parsed = forms.iter().find_map(|form| NaiveDateTime::parse_from_str(text, form).ok());
    parsed.map(|time| time.and_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_in_the_order_asked_for_as_text_or_list() {
        let order = ["/error", "/error/message", "/message"];
        let said = |body: &str| words(body.as_bytes(), &order);
        assert_eq!(said(r#"{"message":"c","error":"a"}"#).as_deref(), Some("a"));
        assert_eq!(said(r#"{"message":"c","error":{"message":"b"}}"#).as_deref(), Some("b"));
        assert_eq!(said(r#"{"message":["c"," ","d\n"],"error":7}"#).as_deref(), Some("c; d"));
        for nothing in [r#"{"message":" "}"#, r#"{"message":[]}"#, "[]", "", "down", "\"down\""] {
            assert_eq!(said(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_repeated() {
        for body in ["<html>secret", "secret", "{\"a\":\"secret", "{\"a\":secret}"] {
            let read = parse::<Vec<u8>>(ProviderId::Whautomate, body.as_bytes());
            let Err(Error::Broken { detail, .. }) = read else { panic!("{body}") };
            assert!(!detail.contains("secret"), "{detail}");
            assert_eq!(detail.contains("HTML"), body.starts_with('<'), "{detail}");
        }
    }

    #[test]
    fn an_id_is_a_text_or_a_number() {
        let id = |raw: &'static str| native_id(raw).map(Cow::into_owned);
        assert_eq!(id("12").as_deref(), Some("12"));
        assert_eq!(id(r#"" a\u0062 ""#).as_deref(), Some("ab"));
        let long = "7".repeat(40);
        assert_eq!(native_id(&long).as_deref(), Some(long.as_str()));
        let half = r#""a\ud800""#;
        for none in [
            "null",
            "true",
            "false",
            "{}",
            "[1]",
            r#"" ""#,
            "",
            "1e999",
            "1.5",
            half,
            "\"\u{fffd}\"",
        ] {
            assert_eq!(id(none), None, "{none}");
        }
    }
}
