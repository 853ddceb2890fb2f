//! A page split into records, and a record split into its fields; values stay as they were sent.
//!
//! Nothing is read into a generic JSON value: a field is the piece of the page it stands in, so that
//! numbers keep every digit and texts without escapes are never copied. Objects in which a mapping
//! knows fields are split like the record itself. A field leaves the record only by being taken;
//! what is left at the end goes to `extra`, under the objects it stood in. That nothing is lost is
//! so by construction, not by a list.

use std::borrow::Cow;
use std::collections::BTreeMap;
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
///
/// A field within objects is named by its path, `location.id`. Objects on such a way that are no
/// fields themselves have numbers, too, after those of the fields.
#[derive(Debug)]
pub(super) struct Fields {
    sorted: Vec<Known>,
    /// By number, whether fields are known within it.
    has_members: Vec<bool>,
    /// The paths of the fields by number.
    paths: Vec<&'static str>,
    /// How many of them are read; those after them are volatile.
    read: usize,
}

/// A name within an object, and what it names.
#[derive(Debug)]
struct Known {
    name: &'static str,
    parent: Option<usize>,
    number: usize,
}

impl Fields {
    /// Returns the lookup of `names`; a field's number is its place in the lists one after the
    /// other. Those of `volatile`, which follow, are left out of every row.
    pub(super) fn new(names: &[&[&'static str]], volatile: &[&'static str]) -> Self {
        let names = names.concat();
        let paths = [&names, volatile].concat();
        let mut numbers: BTreeMap<&'static str, usize> = paths.iter().copied().zip(0..).collect();
        for path in &paths {
            for (at, _) in path.match_indices('.') {
                let next = numbers.len();
                numbers.entry(&path[..at]).or_insert(next);
            }
        }
        let mut has_members = vec![false; numbers.len()];
        let mut sorted = Vec::with_capacity(numbers.len());
        for (path, number) in &numbers {
            let (parent, name) = match path.rsplit_once('.') {
                Some((parent, name)) => (numbers.get(parent).copied(), name),
                None => (None, *path),
            };
            if let Some(parent) = parent {
                has_members[parent] = true;
            }
            sorted.push(Known { name, parent, number: *number });
        }
        // Shorter names first: most names differ in their length already.
        sorted.sort_by(|a, b| a.key().cmp(&b.key()));
        Self { sorted, has_members, paths, read: names.len() }
    }

    fn find(&self, parent: Option<usize>, name: &str) -> Option<usize> {
        let key = (name.len(), name, parent);
        let at = self.sorted.binary_search_by(|known| known.key().cmp(&key)).ok()?;
        Some(self.sorted[at].number)
    }

    fn is_volatile(&self, number: usize) -> bool {
        (self.read..self.paths.len()).contains(&number)
    }

    /// Returns the paths of all fields.
    #[cfg(test)]
    pub(super) fn paths(&self) -> Vec<&'static str> {
        self.paths.clone()
    }

    /// Returns the paths of the fields that are left out of every row.
    #[cfg(test)]
    pub(super) fn volatile(&self) -> impl Iterator<Item = &'static str> {
        self.paths[self.read..].iter().copied()
    }
}

impl Known {
    fn key(&self) -> (usize, &str, Option<usize>) {
        (self.name.len(), self.name, self.parent)
    }
}

/// A record's fields in the provider's order, those within an object after it. One value serves all
/// records of a page.
#[derive(Debug, Default)]
pub(super) struct Record<'a> {
    entries: Vec<Entry<'a>>,
    /// For each known field its place in `entries`.
    slots: Vec<Option<usize>>,
    /// Names and fields of earlier records by place: most records have the same fields in the same
    /// order, and comparing with one name is cheaper than looking among all of them.
    expected: Vec<Expected<'a>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Expected<'a> {
    raw_name: &'a str,
    parent: Option<usize>,
    field: Option<usize>,
}

#[derive(Debug)]
struct Entry<'a> {
    name: Cow<'a, str>,
    value: &'a str,
    field: Option<usize>,
    /// The place of the object it stands in, where that is not the record itself.
    parent: Option<usize>,
    /// The place after its last member.
    end: usize,
    is_known: bool,
    rest: Rest,
}

/// What of a field no column has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rest {
    /// All of it.
    Whole,
    /// This, as JSON text.
    Part(String),
    /// What is left of its members, which are entries of their own.
    Members,
    /// Nothing.
    Nothing,
}

impl<'a> Record<'a> {
    /// Splits `record`, the text of a JSON object, into its fields; of a repeated name the last one
    /// counts. Returns whether it was an object.
    pub(super) fn read(&mut self, fields: &Fields, record: &'a str) -> bool {
        self.entries.clear();
        self.slots.clear();
        self.slots.resize(fields.has_members.len(), None);
        let is_object = self.split(fields, None, record);
        self.drop_repeated();
        is_object
    }

    fn split(&mut self, fields: &Fields, parent: Option<usize>, object: &'a str) -> bool {
        let split = SplitObject(|name: &'a str, value: &'a str| {
            self.push(fields, parent, name, value);
        });
        serde_json::Deserializer::from_str(object).deserialize_any(split).is_ok()
    }

    fn push(&mut self, fields: &Fields, parent: Option<usize>, raw_name: &'a str, value: &'a str) {
        let at = self.entries.len();
        let field = self.find(fields, parent, raw_name);
        let has_members = field.is_some_and(|field| fields.has_members[field]);
        let is_object = has_members && value.starts_with('{');
        let is_volatile = field.is_some_and(|field| fields.is_volatile(field));
        self.entries.push(Entry {
            name: json::string_text(raw_name),
            value,
            field,
            parent,
            end: at + 1,
            // An object on the way to fields is known as an object only.
            is_known: field.is_some_and(|field| field < fields.paths.len())
                || (has_members && (is_object || value::is_blank(value))),
            rest: match (is_object, is_volatile) {
                (true, _) => Rest::Members,
                (_, true) => Rest::Nothing,
                _ => Rest::Whole,
            },
        });
        if let Some(field) = field
            && let Some(earlier) = self.slots[field].replace(at)
        {
            self.drop_entry(earlier);
        }
        if is_object {
            self.split(fields, Some(at), value);
            self.entries[at].end = self.entries.len();
        }
    }

    fn find(&mut self, fields: &Fields, parent: Option<usize>, raw_name: &'a str) -> Option<usize> {
        let at = self.entries.len();
        let parent = parent.and_then(|parent| self.entries[parent].field);
        match self.expected.get(at) {
            Some(expected) if (expected.raw_name, expected.parent) == (raw_name, parent) => {
                expected.field
            }
            _ => {
                let field = fields.find(parent, &json::string_text(raw_name));
                let expected = Expected { raw_name, parent, field };
                match self.expected.get_mut(at) {
                    Some(earlier) => *earlier = expected,
                    None => self.expected.push(expected),
                }
                field
            }
        }
    }

    /// Takes an entry out of the record, with all that stands in it.
    fn drop_entry(&mut self, at: usize) {
        let end = self.entries[at].end;
        self.entries[at].rest = Rest::Nothing;
        for slot in &mut self.slots {
            slot.take_if(|place| (at..end).contains(place));
        }
    }

    /// Of unknown fields with the same name in the same object leaves the last.
    fn drop_repeated(&mut self) {
        let key = |at: &usize| (self.entries[*at].parent, &self.entries[*at].name);
        let mut unknown: Vec<usize> =
            (0..self.entries.len()).filter(|at| self.entries[*at].field.is_none()).collect();
        unknown.sort_by(|a, b| key(a).cmp(&key(b)));
        let repeated: Vec<usize> = unknown
            .windows(2)
            .filter(|pair| key(&pair[0]) == key(&pair[1]))
            .map(|p| p[0])
            .collect();
        for at in repeated {
            self.entries[at].rest = Rest::Nothing;
        }
    }

    /// Returns the JSON text of a known field, where the record has it. An object that was split
    /// has none.
    pub(super) fn get(&self, field: usize) -> Option<&'a str> {
        let entry = &self.entries[self.slots[field]?];
        (entry.rest != Rest::Members).then_some(entry.value)
    }

    /// Says what of a known field no column took.
    pub(super) fn leave(&mut self, field: usize, rest: Rest) {
        if let Some(at) = self.slots[field] {
            self.entries[at].rest = rest;
        }
    }

    /// Returns the names of the fields the mapping does not know, with those of the objects they
    /// stand in: `location.city`.
    pub(super) fn unknown(&self) -> impl Iterator<Item = Cow<'_, str>> {
        self.entries.iter().filter(|entry| !entry.is_known).map(|entry| self.path(entry))
    }

    fn path<'r>(&'r self, entry: &'r Entry<'a>) -> Cow<'r, str> {
        match entry.parent {
            None => Cow::Borrowed(&*entry.name),
            Some(at) => format!("{}.{}", self.path(&self.entries[at]), entry.name).into(),
        }
    }

    /// Returns what no column took as a JSON object, or `None` where nothing is left.
    ///
    /// Null, blank and empty values say nothing and are left out: providers send the same record
    /// with a field empty today and absent tomorrow.
    pub(super) fn extra(&self) -> Option<String> {
        let mut out = String::new();
        self.push_rest(0, self.entries.len(), &mut out);
        (!out.is_empty()).then_some(out)
    }

    /// Appends what is left of the entries from `at` to `end` as an object, if anything is.
    fn push_rest(&self, mut at: usize, end: usize, out: &mut String) {
        let start = out.len();
        while at < end {
            let entry = &self.entries[at];
            let before = out.len();
            let name = |out: &mut String| {
                out.push(if before == start { '{' } else { ',' });
                json::push_string(&entry.name, out);
                out.push(':');
            };
            match &entry.rest {
                Rest::Nothing => {}
                Rest::Whole if value::is_blank(entry.value) => {}
                Rest::Whole => {
                    name(out);
                    json::compact(entry.value, out);
                }
                Rest::Part(text) => {
                    name(out);
                    json::compact(text, out);
                }
                Rest::Members => {
                    name(out);
                    let value_at = out.len();
                    self.push_rest(at + 1, entry.end, out);
                    if out.len() == value_at {
                        out.truncate(before);
                    }
                }
            }
            at = entry.end;
        }
        if out.len() > start {
            out.push('}');
        }
    }
}

/// How the pages of a stream are built.
#[derive(Debug)]
pub(super) struct Form {
    /// The name of the field with a record's id.
    pub(super) id: &'static str,
    /// Names under which an envelope holds its records, the likeliest first.
    pub(super) names: &'static [&'static str],
    /// Names of which an envelope has one, even where it holds no records.
    pub(super) marks: &'static [&'static str],
    /// Whether a page may be the array itself.
    pub(super) may_be_array: bool,
}

/// Returns the records of a page, as JSON text: those of the page itself where it is an array;
/// those of the array under one of the names of `form`, or in an object there; or else the one
/// record that the page, or the object under one of the names, is itself: it has an id.
///
/// # Errors
///
/// Fails where the page is none of these. An envelope without anything under the names is an empty
/// page.
pub(super) fn rows<'a>(body: &'a [u8], form: &Form) -> Result<Vec<&'a str>, Error> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let visitor = PageVisitor { form };
    let page = match form.may_be_array {
        true => reader.deserialize_any(visitor),
        false => reader.deserialize_map(visitor),
    };
    let page = page
        .and_then(|page| reader.end().map(|()| page))
        .map_err(|error| Error::undecodable(&error))?;
    if let Some(rows) = page.rows {
        return Ok(rows);
    }
    if page.is_record {
        return Ok(vec![whole(body)?]);
    }
    match page.object {
        Some(name) => rows_within(member(whole(body)?, name)?, form),
        None if page.is_envelope => Ok(Vec::new()),
        None => Err(Error::NoRows),
    }
}

/// Returns the records of an object that stands in an envelope: itself, where it is one, else those
/// of the array in it; of several arrays that under a name of `form`.
fn rows_within<'a>(object: &'a str, form: &Form) -> Result<Vec<&'a str>, Error> {
    let (mut is_record, mut arrays) = (false, Vec::new());
    split(object, |name, value| {
        is_record |= name == form.id;
        if value.starts_with('[') {
            arrays.push((name, value));
        }
    })?;
    if is_record {
        return Ok(vec![object]);
    }
    let named = |name: &&str| arrays.iter().find(|(found, _)| found == name);
    match (form.names.iter().find_map(named), arrays.as_slice()) {
        (Some((_, array)), _) | (None, [(_, array)]) => {
            let rows: Vec<&RawValue> =
                serde_json::from_str(array).map_err(|error| Error::undecodable(&error))?;
            Ok(rows.into_iter().map(RawValue::get).collect())
        }
        _ => Err(Error::NoRows),
    }
}

fn whole(body: &[u8]) -> Result<&str, Error> {
    let whole: &RawValue =
        serde_json::from_slice(body).map_err(|error| Error::undecodable(&error))?;
    Ok(whole.get())
}

/// Returns the last member of `object` that is called `name`.
fn member<'a>(object: &'a str, name: &str) -> Result<&'a str, Error> {
    let mut found = None;
    split(object, |member, value| {
        if member == name {
            found = Some(value);
        }
    })?;
    found.ok_or(Error::NoRows)
}

fn split<'a>(object: &'a str, mut member: impl FnMut(Cow<'a, str>, &'a str)) -> Result<(), Error> {
    let split = SplitObject(|name, value| member(json::string_text(name), value));
    let mut reader = serde_json::Deserializer::from_str(object);
    reader.deserialize_any(split).map_err(|error| Error::undecodable(&error))
}

/// What was seen of a page.
#[derive(Default)]
struct Seen<'a> {
    /// The records, where there is an array of them.
    rows: Option<Vec<&'a str>>,
    /// How good a name they stand under: its place among the names.
    rank: usize,
    /// The name under which an object stands where records are looked for.
    object: Option<&'static str>,
    is_record: bool,
    is_envelope: bool,
}

struct PageVisitor<'f> {
    form: &'f Form,
}

impl<'de> Visitor<'de> for PageVisitor<'_> {
    type Value = Seen<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a page of records")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, sequence: A) -> Result<Self::Value, A::Error> {
        Ok(Seen { rows: Some(elements(sequence)?), ..Seen::default() })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut seen = Seen { rank: usize::MAX, ..Seen::default() };
        while let Some(name) = map.next_key::<&RawValue>()? {
            let name = json::string_text(name.get());
            seen.is_record |= name == self.form.id;
            seen.is_envelope |= self.form.marks.contains(&&*name);
            let Some(rank) = self.form.names.iter().position(|known| *known == name) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            seen.is_envelope = true;
            match map.next_value_seed(Rows)? {
                Held::Rows(rows) if rank <= seen.rank => {
                    (seen.rows, seen.rank) = (Some(rows), rank);
                }
                Held::Object => seen.object = Some(self.form.names[rank]),
                Held::Rows(_) | Held::Nothing => {}
            }
        }
        Ok(seen)
    }
}

/// What stands where records are looked for.
enum Held<'a> {
    Rows(Vec<&'a str>),
    Object,
    Nothing,
}

/// Reads an array without reading what is in it; null, blank text and an empty object are nothing.
struct Rows;

impl<'de> DeserializeSeed<'de> for Rows {
    type Value = Held<'de>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Rows {
    type Value = Held<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array of records")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, sequence: A) -> Result<Self::Value, A::Error> {
        elements(sequence).map(Held::Rows)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut held = Held::Nothing;
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            held = Held::Object;
        }
        Ok(held)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Held::Nothing)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
        if text.trim().is_empty() {
            return Ok(Held::Nothing);
        }
        Err(E::custom("text instead of an array of records"))
    }
}

fn elements<'de, A: SeqAccess<'de>>(mut sequence: A) -> Result<Vec<&'de str>, A::Error> {
    let mut rows = Vec::new();
    while let Some(row) = sequence.next_element::<&RawValue>()? {
        rows.push(row.get());
    }
    Ok(rows)
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

    const FORM: Form = Form {
        id: "lead_id",
        names: &["leads", "data", "lead"],
        marks: &["page_number"],
        may_be_array: false,
    };

    fn split(body: &str) -> Result<Vec<&str>, Error> {
        rows(body.as_bytes(), &FORM)
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
    fn records_stand_under_the_likeliest_of_several_names_or_in_an_object() {
        for (body, rows) in [
            (r#"{"data":[1],"leads":[2]}"#, vec!["2"]),
            (r#"{"leads":[2],"data":[1]}"#, vec!["2"]),
            (r#"{"leads":null,"data":[1]}"#, vec!["1"]),
            (r#"{"data":{"leads":[1],"others":[2]}}"#, vec!["1"]),
            (r#"{"data":{"rows":[1],"count":1}}"#, vec!["1"]),
            (r#"{"lead":{"lead_id": 7}}"#, vec![r#"{"lead_id": 7}"#]),
            (
                r#"{"lead_id":7,"lead":{"lead_id":8}}"#,
                vec![r#"{"lead_id":7,"lead":{"lead_id":8}}"#],
            ),
        ] {
            assert_eq!(split(body).unwrap(), rows, "{body}");
        }
        let array = Form { may_be_array: true, ..FORM };
        assert_eq!(rows(b" [1, {}] ", &array).unwrap(), ["1", "{}"]);
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
            r#"{"data":{"secrets":[1],"more":[2]}}"#,
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
        let fields = Fields::new(&[&["id", "name"]], &[]);
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

    #[test]
    fn a_field_within_objects_is_taken_and_left_by_its_path() {
        let fields = Fields::new(&[&["id", "a.b.c", "a.d", "e", "e.f"]], &["now", "a.now"]);
        let mut record = Record::default();
        let text =
            r#"{"id":1,"a":{"now":1,"x":1,"b":{"c":2,"y":[3.50]},"d":4},"e":{"f":5},"now":6}"#;
        for _ in 0..2 {
            assert!(record.read(&fields, text));
            let values: Vec<_> = (0..5).map(|field| record.get(field)).collect();
            assert_eq!(values, [Some("1"), Some("2"), Some("4"), None, Some("5")]);
            for field in [0, 1, 2, 4] {
                record.leave(field, Rest::Nothing);
            }
            assert_eq!(record.extra().unwrap(), r#"{"a":{"x":1,"b":{"y":[3.50]}}}"#);
            assert_eq!(record.unknown().collect::<Vec<_>>(), ["a.x", "a.b.y"]);
            // The same names in another place are other fields.
            assert!(record.read(&fields, r#"{"d":1,"c":2,"a":{"id":3},"b":{"c":4}}"#));
            assert!((0..5).all(|field| record.get(field).is_none()));
        }
    }

    #[test]
    fn what_should_be_an_object_and_is_none_stays_whole() {
        let fields = Fields::new(&[&["id", "a.b", "e", "e.f"]], &[]);
        let mut record = Record::default();
        assert!(record.read(&fields, r#"{"a":"text","e":"text"}"#));
        assert_eq!(record.get(2), Some("\"text\""));
        assert_eq!(record.unknown().collect::<Vec<_>>(), ["a"]);
        assert_eq!(record.extra().unwrap(), r#"{"a":"text","e":"text"}"#);
        assert!(record.read(&fields, r#"{"a":null,"e":[]}"#));
        assert_eq!((record.unknown().count(), record.extra()), (0, None));
    }

    #[test]
    fn of_a_repeated_object_the_last_counts() {
        let fields = Fields::new(&[&["a.b", "a.c"]], &[]);
        let mut record = Record::default();
        assert!(record.read(&fields, r#"{"a":{"b":1,"x":1},"a":{"c":2,"y":1,"y":2}}"#));
        assert_eq!((record.get(0), record.get(1)), (None, Some("2")));
        assert_eq!(record.extra().unwrap(), r#"{"a":{"c":2,"y":2}}"#);
        assert!(record.read(&fields, r#"{"a":{"b":1},"a":7}"#));
        assert_eq!(record.get(0), None);
        assert_eq!(record.extra().unwrap(), r#"{"a":7}"#);
    }
}
