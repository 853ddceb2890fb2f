//! A page split into records, and a record split into its fields; values stay as they were sent.
//!
//! Nothing is read into a generic JSON value: a field is the piece of the page it stands in, so that
//! numbers keep every digit and texts without escapes are never copied. A field leaves the record
//! only by being taken; what is left at the end goes to `extra`. That nothing is lost is so by
//! construction, not by a list.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer;
use serde::de::DeserializeSeed;
use serde::de::IgnoredAny;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;
use serde_json::value::RawValue;

use crate::schema::json;
use crate::transform::Error;
use crate::transform::value;

/// The fields a mapping knows, found by name.
#[derive(Debug)]
pub(super) struct Fields {
    /// Names with their places in the mapping's list, shorter names first.
    sorted: Vec<(&'static str, usize)>,
}

impl Fields {
    /// Returns the lookup of `names`; a field's number is its place in the lists one after the other.
    pub(super) fn new(names: &[&[&'static str]]) -> Self {
        let mut sorted: Vec<_> = names.concat().into_iter().zip(0..).collect();
        sorted.sort_by_key(|(name, _)| (name.len(), *name));
        Self { sorted }
    }

    fn find(&self, name: &str) -> Option<usize> {
        let key = (name.len(), name);
        let at = self.sorted.binary_search_by_key(&key, |(known, _)| (known.len(), *known)).ok()?;
        Some(self.sorted[at].1)
    }
}

/// A record's fields in the provider's order. One value serves all records of a page.
#[derive(Debug, Default)]
pub(super) struct Record<'a> {
    entries: Vec<Entry<'a>>,
    /// For each known field its place in `entries`.
    slots: Vec<Option<usize>>,
    /// Names and fields of earlier records by place: most records have the same fields in the same
    /// order, and comparing with one name is cheaper than looking among all of them.
    expected: Vec<(&'a str, Option<usize>)>,
}

#[derive(Debug)]
struct Entry<'a> {
    name: Cow<'a, str>,
    value: &'a str,
    known: bool,
    rest: Rest,
}

/// What of a field no column has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rest {
    /// All of it.
    Whole,
    /// This, as JSON text.
    Part(String),
    /// Nothing.
    Nothing,
}

impl<'a> Record<'a> {
    /// Splits `record`, the text of a JSON object, into its fields; of a repeated name the last one
    /// counts. Returns whether it was an object.
    pub(super) fn read(&mut self, fields: &Fields, record: &'a str) -> bool {
        self.entries.clear();
        self.slots.clear();
        self.slots.resize(fields.sorted.len(), None);
        let split = SplitObject(|name: &'a str, value: &'a str| {
            self.push(fields, name, value);
        });
        let read = serde_json::Deserializer::from_str(record).deserialize_any(split).is_ok();
        self.drop_repeated();
        read
    }

    fn push(&mut self, fields: &Fields, raw_name: &'a str, value: &'a str) {
        let name = json::string_text(raw_name);
        let at = self.entries.len();
        let field = match self.expected.get(at) {
            Some((expected, field)) if *expected == raw_name => *field,
            _ => fields.find(&name),
        };
        match self.expected.get_mut(at) {
            Some(expected) => *expected = (raw_name, field),
            None => self.expected.push((raw_name, field)),
        }
        if let Some(field) = field
            && let Some(earlier) = self.slots[field].replace(at)
        {
            self.entries[earlier].rest = Rest::Nothing;
        }
        self.entries.push(Entry { name, value, known: field.is_some(), rest: Rest::Whole });
    }

    /// Of unknown fields with the same name leaves the last.
    fn drop_repeated(&mut self) {
        let mut unknown: Vec<usize> =
            (0..self.entries.len()).filter(|at| !self.entries[*at].known).collect();
        unknown.sort_by(|a, b| self.entries[*a].name.cmp(&self.entries[*b].name));
        for pair in unknown.windows(2) {
            if self.entries[pair[0]].name == self.entries[pair[1]].name {
                self.entries[pair[0]].rest = Rest::Nothing;
            }
        }
    }

    /// Returns the JSON text of a known field, where the record has it.
    pub(super) fn get(&self, field: usize) -> Option<&'a str> {
        self.slots[field].map(|at| self.entries[at].value)
    }

    /// Says what of a known field no column took.
    pub(super) fn leave(&mut self, field: usize, rest: Rest) {
        if let Some(at) = self.slots[field] {
            self.entries[at].rest = rest;
        }
    }

    /// Returns the names of the fields the mapping does not know.
    pub(super) fn unknown(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().filter(|entry| !entry.known).map(|entry| &*entry.name)
    }

    /// Returns what no column took as a JSON object, or `None` where nothing is left.
    ///
    /// Null, blank and empty values say nothing and are left out: providers send the same record
    /// with a field empty today and absent tomorrow.
    pub(super) fn extra(&self) -> Option<String> {
        let mut out = String::new();
        for entry in &self.entries {
            let rest = match &entry.rest {
                Rest::Nothing => continue,
                Rest::Part(text) => text,
                Rest::Whole if value::is_blank(entry.value) => continue,
                Rest::Whole => entry.value,
            };
            out.push(if out.is_empty() { '{' } else { ',' });
            json::push_string(&entry.name, &mut out);
            out.push(':');
            json::compact(rest, &mut out);
        }
        if out.is_empty() {
            return None;
        }
        out.push('}');
        Some(out)
    }
}

/// Returns the records of a page, as JSON text: those of the array `key`, or the whole page where it
/// is itself a record with the field `id`.
///
/// # Errors
///
/// Fails where the page is no JSON object, has neither of the two, or something else than an array
/// stands under `key`. An envelope with counts but without `key` is an empty page.
pub(super) fn rows<'a>(body: &'a [u8], key: &str, id: &str) -> Result<Vec<&'a str>, Error> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let envelope = reader
        .deserialize_map(EnvelopeVisitor { key, id })
        .and_then(|envelope| reader.end().map(|()| envelope))
        .map_err(|error| Error::undecodable(&error))?;
    match envelope {
        Envelope { rows: Some(rows), .. } => Ok(rows),
        Envelope { is_record: true, .. } => {
            let whole: &RawValue =
                serde_json::from_slice(body).map_err(|error| Error::undecodable(&error))?;
            Ok(vec![whole.get()])
        }
        Envelope { has_counts: true, .. } => Ok(Vec::new()),
        _ => Err(Error::NoRows),
    }
}

/// What was seen of a page's outermost object.
#[derive(Default)]
struct Envelope<'a> {
    rows: Option<Vec<&'a str>>,
    is_record: bool,
    has_counts: bool,
}

struct EnvelopeVisitor<'k> {
    key: &'k str,
    id: &'k str,
}

impl<'de> Visitor<'de> for EnvelopeVisitor<'_> {
    type Value = Envelope<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a page of records")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut envelope = Envelope::default();
        while let Some(name) = map.next_key::<&RawValue>()? {
            let name = json::string_text(name.get());
            if name == self.key {
                envelope.rows = Some(map.next_value_seed(Rows)?);
                continue;
            }
            envelope.is_record |= name == self.id;
            envelope.has_counts |= name == "page_number" || name.starts_with("total_");
            map.next_value::<IgnoredAny>()?;
        }
        Ok(envelope)
    }
}

/// Reads an array without reading what is in it; null and blank text are the empty one.
struct Rows;

impl<'de> DeserializeSeed<'de> for Rows {
    type Value = Vec<&'de str>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Rows {
    type Value = Vec<&'de str>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array of records")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let mut rows = Vec::new();
        while let Some(row) = sequence.next_element::<&RawValue>()? {
            rows.push(row.get());
        }
        Ok(rows)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
        if text.trim().is_empty() {
            return Ok(Vec::new());
        }
        Err(E::custom("text instead of an array of records"))
    }
}

/// Hands the members of an object to a function, each as the pieces of JSON text of name and value.
pub(super) struct SplitObject<F>(pub(super) F);

impl<'de, F: FnMut(&'de str, &'de str)> Visitor<'de> for SplitObject<F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some((name, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            self.0(name.get(), value.get());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(body: &str) -> Result<Vec<&str>, Error> {
        rows(body.as_bytes(), "leads", "lead_id")
    }

    #[test]
    fn an_envelope_gives_its_rows_whatever_they_are() {
        assert_eq!(
            split(r#"{"total_pages":1,"leads":[{"a": 1}, 7, null]}"#).unwrap(),
            [r#"{"a": 1}"#, "7", "null"]
        );
    }

    #[test]
    fn a_bare_record_is_a_page_of_one() {
        assert_eq!(split(r#" {"lead_id":null} "#).unwrap(), [r#"{"lead_id":null}"#]);
    }

    #[test]
    fn a_page_without_records_may_say_so_in_many_ways() {
        for body in [
            r#"{"leads":[]}"#,
            r#"{"leads":null}"#,
            r#"{"leads":""}"#,
            r#"{"page_number":1,"total_pages":0}"#,
        ] {
            assert_eq!(split(body).unwrap(), [""; 0], "{body}");
        }
    }

    #[test]
    fn a_page_that_is_no_envelope_is_an_error_that_shows_nothing_of_it() {
        for body in [
            "",
            "[]",
            "<html>secret",
            r#""secret""#,
            r#"{"secret":1}"#,
            r#"{"leads":{"secret":1}}"#,
            r#"{"leads":"secret"}"#,
            r#"{"leads":[{"a":"secret"}"#,
            r#"{"leads":[]} secret"#,
        ] {
            let error = split(body).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn of_a_repeated_field_the_last_counts() {
        let fields = Fields::new(&[&["id", "name"]]);
        let mut record = Record::default();
        let text = r#"{"id":1,"x":1,"id":2,"x":2,"y":[],"na\u006de":"a\/b","z":" "}"#;

        assert!(record.read(&fields, text));
        assert_eq!(record.get(0), Some("2"));
        record.leave(0, Rest::Nothing);
        assert_eq!(record.extra().unwrap(), r#"{"x":2,"name":"a/b"}"#);
        for _ in 0..2 {
            assert!(record.read(&fields, r#"{"name":1,"id":2}"#));
            assert_eq!((record.get(0), record.get(1)), (Some("2"), Some("1")));
        }
        assert!(!record.read(&fields, "[1]"));
        assert!(!record.read(&fields, "7"));
    }
}
