//! A page split into its records, which stay as they were sent, wherever a provider puts them.

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
/// Where the body is known to be JSON, the usual page is walked and not parsed once more.
///
/// # Errors
///
/// Fails where the page is none of these. An envelope without anything under the names is an empty
/// page.
pub(super) fn rows<'a>(body: &'a str, is_json: bool, form: &Form) -> Result<Vec<&'a str>, Error> {
    if is_json && let Some(rows) = listed(body, form) {
        return Ok(rows);
    }
    let mut reader = serde_json::Deserializer::from_str(body);
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
    // An envelope may have an id of its own, of the request or the account: that makes no lead of it.
    if page.is_record && !page.has_mark {
        return Ok(vec![body.trim_ascii()]);
    }
    match page.object {
        Some(name) => rows_within(member(body.trim_ascii(), name)?, form),
        None if page.is_envelope => Ok(Vec::new()),
        None => Err(Error::NoRows),
    }
}

/// Returns the records of the usual page: those of an array under one of the names, beside nothing else
/// that stands under one. The body is known to be JSON.
fn listed<'a>(body: &'a str, form: &Form) -> Option<Vec<&'a str>> {
    let mut found = None;
    let mut members = json::Members::of(body.trim_ascii());
    while let Some(name) = members.name() {
        if !form.names.contains(&&*json::string_text(name)) {
            members.value();
        } else if found.is_some() {
            return None;
        } else {
            found = Some(members.elements()?);
        }
    }
    found
}

/// Returns the records of an object that stands in an envelope: itself, where it is one, else those
/// of the array in it; of several arrays that under a name of `form`.
fn rows_within<'a>(object: &'a str, form: &Form) -> Result<Vec<&'a str>, Error> {
    let (mut is_record, mut arrays) = (false, Vec::new());
    for (name, value) in json::members(object) {
        let name = json::string_text(name);
        is_record |= name == form.id;
        if value.starts_with('[') {
            arrays.push((name, value));
        }
    }
    if is_record {
        return Ok(vec![object]);
    }
    let named = |name: &&str| arrays.iter().find(|(found, _)| found == name);
    match (form.names.iter().find_map(named), arrays.as_slice()) {
        (Some((_, array)), _) | (None, [(_, array)]) => Ok(json::elements(array).collect()),
        _ => Err(Error::NoRows),
    }
}

/// Returns the last member of `object` that is called `name`.
fn member<'a>(object: &'a str, name: &str) -> Result<&'a str, Error> {
    let named = json::members(object).filter(|(member, _)| json::string_text(member) == name);
    named.last().map(|(_, value)| value).ok_or(Error::NoRows)
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
    /// Whether it has what only an envelope has.
    has_mark: bool,
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
            seen.has_mark |= self.form.marks.contains(&&*name);
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
        seen.is_envelope |= seen.has_mark;
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
        let parsed = rows(body, false, &FORM);
        if serde_json::from_str::<IgnoredAny>(body).is_ok() {
            assert_eq!(rows(body, true, &FORM).ok(), parsed.as_ref().ok().cloned(), "{body}");
        }
        parsed
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
            (
                r#" {"le\u0061ds" : [ {"leads":[1]} , 2 ], "lead_id":3} "#,
                vec![r#"{"leads":[1]}"#, "2"],
            ),
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
        assert_eq!(rows(" [1, {}] ", true, &array).unwrap(), ["1", "{}"]);
    }

    #[test]
    fn a_page_without_records_may_say_so_in_many_ways() {
        for body in [
            r#"{"leads":[]}"#,
            r#"{"leads":null}"#,
            r#"{"leads":""}"#,
            r#"{"page_number":1,"total_pages":0}"#,
            r#"{"page_number":1,"lead_id":"of the request"}"#,
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
}
