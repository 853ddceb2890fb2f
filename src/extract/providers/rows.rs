//! Finds the rows of a page and reads of each what paging needs, in one light pass.
//!
//! Providers put the same list bare, under one name or another, or a level deeper; a row may be of
//! any JSON kind, and only an object has an id.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

use chrono::DateTime;
use chrono::Utc;
use memchr::memmem::Finder;
use serde::Deserialize;
use serde::Deserializer;
use serde::de;
use serde::de::DeserializeSeed;
use serde::de::IgnoredAny;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;
use serde_json::value::RawValue;

use super::json;
use crate::extract::RowFacts;
use crate::record::id_hash;
use crate::schema::json::Members;
use crate::schema::json::string_text;

/// How a provider names what paging needs.
pub(super) trait Names {
    /// The field of a row with its id.
    const ID: &'static str;
    /// The field of a row with the time of its creation.
    const CREATED_AT: &'static str;
    /// The field of a row with the time of its last change, where paging needs it.
    const UPDATED_AT: Option<&'static str>;
    /// The names under which a list of rows stands.
    const LISTS: &'static [&'static str];

    /// Returns the time of creation that an id carries, for a row that says none.
    fn created_in(_id: &str) -> Option<DateTime<Utc>> {
        None
    }
}

/// The most rows a page may have, however short they are: no listing of a provider has more than some
/// thousand, and of rows without anything in them a page would take many times its size.
pub(super) const MOST_ROWS: usize = 100_000;

/// How the error of a page with more begins.
pub(super) const TOO_MANY_ROWS: &str = "too many rows";

/// A list of rows, and nothing else.
#[derive(Debug)]
pub(super) struct RowList<'a, N> {
    pub(super) rows: Vec<RowFacts>,
    /// The rows as they stand in the body.
    pieces: Vec<&'a str>,
    names: PhantomData<N>,
}

impl<N> RowList<'_, N> {
    /// Returns where the rows stand in `body`, of which they are pieces.
    pub(super) fn places(&self, body: &[u8]) -> Vec<Range<usize>> {
        let start = |piece: &str| piece.as_ptr().addr() - body.as_ptr().addr();
        self.pieces.iter().map(|piece| start(piece)..start(piece) + piece.len()).collect()
    }
}

impl<'de: 'a, 'a, N: Names> Deserialize<'de> for RowList<'a, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ListVisitor::<N>(PhantomData))
    }
}

struct ListVisitor<N>(PhantomData<N>);

impl<'de, N: Names> Visitor<'de> for ListVisitor<N> {
    type Value = RowList<'de, N>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of records")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<RowList<'de, N>, A::Error> {
        let mut pieces = Vec::new();
        let rows = read_rows::<N, A>(&mut seq, |piece| pieces.push(piece))?;
        Ok(RowList { rows, pieces, names: PhantomData })
    }
}

/// Reads the rows of a list, and hands each as it stands there to a function.
fn read_rows<'de, N: Names, A: SeqAccess<'de>>(
    seq: &mut A,
    mut piece: impl FnMut(&'de str),
) -> Result<Vec<RowFacts>, A::Error> {
    let (mut rows, mut finders) = (Vec::new(), None);
    while let Some(row) = seq.next_element::<&RawValue>()? {
        if rows.len() == MOST_ROWS {
            return Err(de::Error::custom(TOO_MANY_ROWS));
        }
        rows.push(facts_of::<N>(row.get(), finders.get_or_insert_with(Finders::new::<N>)));
        piece(row.get());
    }
    Ok(rows)
}

/// Finds the names of a provider's fields in the text of a row.
struct Finders {
    /// By field: the id, the time of creation and that of the last change, where one is read.
    names: Vec<Finder<'static>>,
    /// How a letter of a name begins that is written as an escape.
    escaped: Finder<'static>,
    /// How often a rest was looked through.
    #[cfg(test)]
    looks: std::cell::Cell<u32>,
}

impl Finders {
    fn new<N: Names>() -> Self {
        let names = [Some(N::ID), Some(N::CREATED_AT), N::UPDATED_AT].into_iter().flatten();
        let names = names.map(|name| Finder::new(&format!("\"{name}\"")).into_owned()).collect();
        Self {
            names,
            escaped: Finder::new(r"\u00"),
            #[cfg(test)]
            looks: std::cell::Cell::default(),
        }
    }

    /// Tells whether one of the names stands in `rest` again, or may: of two members with one name the
    /// last counts.
    fn finds_again(&self, rest: &str) -> bool {
        #[cfg(test)]
        self.looks.update(|looks| looks + 1);
        let rest = rest.as_bytes();
        // Letters and digits of ASCII, of which names are made, are 30 to 7A.
        let is_letter =
            |at: usize| rest.get(at + 4).is_some_and(|digit| (b'3'..=b'7').contains(digit));
        self.names.iter().any(|name| name.find(rest).is_some())
            || self.escaped.find_iter(rest).any(is_letter)
    }
}

/// Returns what paging needs of a row, which is valid JSON.
fn facts_of<N: Names>(row: &str, finders: &Finders) -> RowFacts {
    let mut facts = RowFacts::default();
    let mut in_id = None;
    let mut members = Members::of(row);
    // How many of the fields are still to come; nothing once the row is walked to its end.
    let mut missing = Some(finders.names.len());
    while let Some(name) = members.name() {
        let key = Key::<N>::of(name, members.is_plain());
        let value = members.value();
        match key {
            Key::Id => {
                let id = json::native_id(value);
                facts.id = id.as_deref().map(id_hash);
                in_id = id.as_deref().and_then(N::created_in);
            }
            Key::CreatedAt => facts.created_at = json::time(value),
            Key::UpdatedAt => facts.updated_at = json::time(value),
            Key::Other(_) => continue,
        }
        missing = missing.map(|missing| missing.saturating_sub(1));
        // What is wanted stands at the beginning of most rows. A row in which it may come again is looked
        // through once, however often it does.
        if missing == Some(0) {
            if !finders.finds_again(members.rest()) {
                break;
            }
            missing = None;
        }
    }
    facts.created_at = facts.created_at.or(in_id);
    facts
}

/// What a visitor makes of truth, numbers and texts: always the same.
macro_rules! scalars_give {
    ($value:expr) => {
        fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
            $value
        }

        fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
            $value
        }

        fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
            $value
        }

        fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
            $value
        }

        fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
            $value
        }
    };
}

/// A field of a row.
enum Key<N> {
    Id,
    CreatedAt,
    UpdatedAt,
    Other(PhantomData<N>),
}

impl<N: Names> Key<N> {
    /// Returns the field of a name, as it stands in the JSON: one in which something cannot be read, as
    /// half a surrogate pair, is a name all the same.
    fn of(raw_name: &str, is_plain: bool) -> Self {
        let text = match is_plain {
            true => Cow::Borrowed(&raw_name[1..raw_name.len() - 1]),
            false => string_text(raw_name),
        };
        match &*text {
            name if name == N::ID => Self::Id,
            name if name == N::CREATED_AT => Self::CreatedAt,
            name if Some(name) == N::UPDATED_AT => Self::UpdatedAt,
            _ => Self::Other(PhantomData),
        }
    }
}

/// What stands where a page has its rows.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Rows {
    /// A list.
    Listed(Vec<RowFacts>),
    /// Nothing: there is no such field, or a `null`.
    #[default]
    Nothing,
    /// Something in which no list is found.
    Other,
}

/// The rows of a page, wherever they stand: in a list, or in an object that holds it under one of
/// [`Names::LISTS`]. What stands there may be an object again; in that one, a list of another name
/// is taken as well where it is the only one.
#[derive(Debug)]
pub(super) struct Listing<N> {
    pub(super) rows: Rows,
    names: PhantomData<N>,
}

impl<'de, N: Names> Deserialize<'de> for Listing<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let rows = Look::<N>::at(0).deserialize(deserializer)?;
        Ok(Self { rows, names: PhantomData })
    }
}

/// Reads what stands under one of [`Names::LISTS`].
pub(super) fn under_name<'de, N: Names, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Rows, D::Error> {
    Look::<N>::at(1).deserialize(deserializer)
}

/// Looks for rows in a value: the body, what stands in it under a name, or in that.
struct Look<N> {
    depth: u8,
    names: PhantomData<N>,
}

/// How deep a list may stand.
const DEEPEST: u8 = 2;

impl<N> Look<N> {
    fn at(depth: u8) -> Self {
        Self { depth, names: PhantomData }
    }
}

impl<'de, N: Names> DeserializeSeed<'de> for Look<N> {
    type Value = Rows;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Rows, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, N: Names> Visitor<'de> for Look<N> {
    type Value = Rows;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of records, or an object that holds one")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Rows, A::Error> {
        read_rows::<N, A>(&mut seq, |_| ()).map(Rows::Listed)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Rows, A::Error> {
        let (mut named, mut others) = (Rows::Other, Vec::new());
        let (mut is_row, mut lists) = (false, Vec::new());
        while let Some(name) = map.next_key::<&RawValue>()? {
            let name = string_text(name.get());
            let is_list = N::LISTS.contains(&name.as_ref());
            // Of two lists of one name nobody could say which is the page.
            if is_list && self.depth < DEEPEST {
                if lists.contains(&name) {
                    return Err(de::Error::custom("a list of records is there twice"));
                }
                lists.push(name.clone());
            }
            is_row |= name == N::ID;
            if self.depth == DEEPEST || (self.depth == 0 && !is_list) {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let below = if is_list { self.depth + 1 } else { DEEPEST };
            match (map.next_value_seed(Self::at(below))?, is_list) {
                (rows, true) => named = named.or(rows),
                (rows @ Rows::Listed(_), false) => others.push(rows),
                (_, false) => {}
            }
        }
        // Of several lists nobody could say which are the rows; those in a row are its own.
        let only = others.pop().filter(|_| others.is_empty() && !is_row);
        match named.or(only.unwrap_or(Rows::Other)) {
            // What has an id is a row and no listing, but for an envelope that has one of its own.
            Rows::Nothing if is_row => Ok(Rows::Other),
            Rows::Listed(_) if is_row && self.depth > 0 => Ok(Rows::Other),
            rows => Ok(rows),
        }
    }

    fn visit_unit<E>(self) -> Result<Rows, E> {
        Ok(if self.depth == 0 { Rows::Other } else { Rows::Nothing })
    }

    scalars_give!(Ok(Rows::Other));
}

impl Rows {
    /// Returns what says more: a list, nothing, something else.
    fn or(self, other: Self) -> Self {
        match (&self, &other) {
            (Self::Listed(_), _) | (_, Self::Other) => self,
            (_, Self::Listed(_)) | (Self::Other, Self::Nothing) => other,
            (Self::Nothing, Self::Nothing) => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::extract::Error;
    use crate::ids::ProviderId;

    struct Person;

    impl Names for Person {
        const ID: &'static str = "id";
        const CREATED_AT: &'static str = "createdAt";
        const UPDATED_AT: Option<&'static str> = Some("updatedAt");
        const LISTS: &'static [&'static str] = &["data", "persons"];
    }

    /// Who states no change, and whose ids tell when they were made.
    struct Robot;

    impl Names for Robot {
        const ID: &'static str = "id";
        const CREATED_AT: &'static str = "createdAt";
        const UPDATED_AT: Option<&'static str> = None;
        const LISTS: &'static [&'static str] = &[];

        fn created_in(id: &str) -> Option<DateTime<Utc>> {
            DateTime::from_timestamp(id.parse().ok()?, 0)
        }
    }

    fn rows(body: &str) -> Rows {
        json::parse::<Listing<Person>>(ProviderId::Whautomate, body.as_bytes()).unwrap().rows
    }

    fn count(body: &str) -> Option<usize> {
        match rows(body) {
            Rows::Listed(rows) => Some(rows.len()),
            Rows::Nothing | Rows::Other => None,
        }
    }

    proptest! {
        /// A look at a row may end early, but sees what it would see at its end.
        #[test]
        fn of_a_name_that_comes_twice_the_last_counts(
            members in prop::collection::vec((0_usize..8, 0_usize..6), 0..12)
        ) {
            let names = ["id", "createdAt", "updatedAt", r"\u0069d", r"created\u0041t", "x", "\u{e9}", r"\u00e9"];
            let values = ["7", r#""a1""#, r#""2026-01-02T03:04:05Z""#, r#"{"id":3}"#, r#""\"id\"""#, "null"];
            let text = |(name, value): &(usize, usize)| format!("\"{}\":{}", names[*name], values[*value]);
            let row = format!("{{{}}}", members.iter().map(text).collect::<Vec<_>>().join(","));
            let last: BTreeMap<String, &RawValue> = serde_json::from_str(&row).unwrap();
            let raw = |name: &str| last.get(name).map(|raw| raw.get());
            let id = raw("id").and_then(json::native_id);
            let created_at = raw("createdAt").and_then(json::time);

            let found = facts_of::<Person>(&row, &Finders::new::<Person>());
            prop_assert_eq!((found.id, found.created_at), (id.as_deref().map(id_hash), created_at));
            prop_assert_eq!(found.updated_at, raw("updatedAt").and_then(json::time));
            let found = facts_of::<Robot>(&row, &Finders::new::<Robot>());
            let created_at = created_at.or(id.as_deref().and_then(Robot::created_in));
            prop_assert_eq!((found.id, found.created_at), (id.as_deref().map(id_hash), created_at));
            prop_assert_eq!(found.updated_at, None);
        }
    }

    #[test]
    fn a_row_in_which_a_name_comes_again_and_again_is_looked_through_once() {
        let again = r#""updatedAt":1,"#.repeat(100);
        let row = format!(r#"{{"id":1,"createdAt":1,{again}"updatedAt":"2026-01-02T03:04:05Z"}}"#);
        let finders = Finders::new::<Person>();
        let found = facts_of::<Person>(&row, &finders);
        assert_eq!((found.id, found.created_at), (Some(id_hash("1")), None));
        assert!(found.updated_at.is_some());
        assert_eq!(finders.looks.get(), 1);
    }

    #[test]
    fn a_list_is_found_wherever_a_provider_puts_it() {
        for two in [
            r#"[{"id":1},{"id":2}]"#,
            r#"{"data":[{"id":1},{"id":2}],"total":9}"#,
            r#"{"pagination":{"data":[1]},"persons":[{"id":1},{"id":2}]}"#,
            r#"{"data":{"persons":[{"id":1},{"id":2}],"tags":["a"]}}"#,
            r#"{"data":{"docs":[{"id":1},{"id":2}],"page":1}}"#,
        ] {
            assert_eq!(count(two), Some(2), "{two}");
        }
        for empty in ["[]", r#"{"data":[]}"#, r#"{"data":{"docs":[]}}"#] {
            assert_eq!(count(empty), Some(0), "{empty}");
        }
    }

    #[test]
    fn a_name_that_cannot_be_read_costs_nothing_and_a_list_that_is_there_twice_the_page() {
        assert_eq!(count(r#"{"\ud800":1,"data":[{"\udfff":1,"i\u0064":7}]}"#), Some(1));
        let read = |body: &str| {
            json::parse::<Listing<Person>>(ProviderId::Whautomate, body.as_bytes()).map(|_| ())
        };
        for twice in [r#"{"data":[],"data":[{"id":1}]}"#, r#"{"data":{"persons":[],"persons":[]}}"#]
        {
            assert!(matches!(read(twice), Err(Error::Broken { .. })), "{twice}");
        }
        assert_eq!(count(r#"{"x":[],"x":[],"data":[{"id":1,"id":2}]}"#), Some(1));
    }

    #[test]
    fn a_page_of_a_million_rows_without_anything_in_them_is_refused() {
        for rows in [MOST_ROWS, MOST_ROWS + 1] {
            let body = format!("[{}0]", "0,".repeat(rows - 1));
            let read = json::parse::<Listing<Person>>(ProviderId::Whautomate, body.as_bytes());
            match read {
                Ok(_) => assert_eq!(rows, MOST_ROWS),
                Err(error) => {
                    assert!(
                        matches!(error, Error::TooManyRows { limit: MOST_ROWS, .. }),
                        "{error}"
                    );
                    assert_eq!(rows, MOST_ROWS + 1);
                }
            }
        }
    }

    #[test]
    fn what_is_no_list_of_rows_is_not_taken_for_one() {
        for none in [
            "{}",
            "null",
            "7",
            r#""[]""#,
            r#"{"data":{}}"#,
            r#"{"data":"[]"}"#,
            r#"{"errors":[{"id":1}]}"#,
            r#"{"message":["a","b"]}"#,
            r#"{"data":{"tags":["a"],"docs":[{"id":1}]}}"#,
            r#"{"data":{"tags":["a"],"id":1}}"#,
            r#"{"data":{"persons":[{"id":2}],"id":1}}"#,
            r#"{"id":"of the request","data":null}"#,
            r#"{"data":{"data":{"data":[{"id":1}]}}}"#,
        ] {
            assert_eq!(rows(none), Rows::Other, "{none}");
        }
        for nothing in [r#"{"data":null}"#, r#"{"data":null,"persons":{}}"#] {
            assert_eq!(rows(nothing), Rows::Nothing, "{nothing}");
        }
    }

    #[test]
    fn a_row_tells_its_id_and_times_and_may_be_of_any_kind() {
        let body = r#"[{"updatedAt":"2025-01-02T00:00:00.5Z","id":"a","createdAt":"2025-01-01T00:00:00Z",
            "inner":{"id":"b"}}, {"id":7,"createdAt":"text","updatedAt":null}, 1, null, true, "x", 0.5, []]"#;
        let Rows::Listed(rows) = rows(body) else { panic!() };
        assert_eq!(rows.len(), 8);
        assert_eq!(rows[0].id, Some(id_hash("a")));
        assert_eq!(rows[0].created_at.unwrap().to_rfc3339(), "2025-01-01T00:00:00+00:00");
        assert_eq!(rows[0].updated_at.unwrap().to_rfc3339(), "2025-01-02T00:00:00.500+00:00");
        assert_eq!(rows[1], RowFacts { id: Some(id_hash("7")), ..RowFacts::default() });
        assert!(rows[2..].iter().all(|row| *row == RowFacts::default()));
    }
}
