//! A record split into its fields; values stay as they were sent.
//!
//! Nothing is read into a generic JSON value: a field is the piece of the page it stands in, so that
//! numbers keep every digit and texts without escapes are never copied. Objects in which a mapping
//! knows fields are split like the record itself. A field leaves the record only by being taken;
//! what is left at the end goes to `extra`, under the objects it stood in. That nothing is lost is
//! so by construction, not by a list.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::schema::json;
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
    /// What followed each known field in an earlier record, the first what none came before: most
    /// records have the same fields in the same order, and comparing with one name is cheaper than
    /// looking among all of them.
    expected: Vec<Option<Expected<'a>>>,
    /// The place in `expected` of what comes next.
    next: usize,
    /// What is left of a record is put together here, so that it need not grow for each.
    rest: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Expected<'a> {
    raw_name: &'a str,
    parent: Option<usize>,
    field: Option<usize>,
}

#[derive(Debug)]
struct Entry<'a> {
    raw_name: &'a str,
    value: &'a str,
    /// Whether the value is text that stands there as it reads, but for its quotes.
    is_plain: bool,
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

impl<'a> Entry<'a> {
    fn name(&self) -> Cow<'a, str> {
        json::string_text(self.raw_name)
    }
}

impl<'a> Record<'a> {
    /// Splits `record`, valid JSON, into its fields; of a repeated name the last one counts. Returns
    /// whether it was an object.
    pub(super) fn read(&mut self, fields: &Fields, record: &'a str) -> bool {
        self.entries.clear();
        self.slots.clear();
        self.slots.resize(fields.has_members.len(), None);
        self.expected.resize(fields.has_members.len() + 1, None);
        self.next = 0;
        let is_object = self.split(fields, None, record);
        self.drop_repeated();
        is_object
    }

    fn split(&mut self, fields: &Fields, parent: Option<usize>, object: &'a str) -> bool {
        let mut members = json::Members::of(object);
        while let Some(name) = members.name() {
            let value = members.value();
            self.push(fields, parent, name, value, members.is_plain());
        }
        object.starts_with('{')
    }

    fn push(
        &mut self,
        fields: &Fields,
        parent: Option<usize>,
        raw_name: &'a str,
        value: &'a str,
        is_plain: bool,
    ) {
        let at = self.entries.len();
        let field = self.find(fields, parent, raw_name);
        let has_members = field.is_some_and(|field| fields.has_members[field]);
        let is_object = has_members && value.starts_with('{');
        let is_volatile = field.is_some_and(|field| fields.is_volatile(field));
        self.entries.push(Entry {
            raw_name,
            value,
            is_plain,
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
        let parent = parent.and_then(|parent| self.entries[parent].field);
        let place = self.next;
        let field = match self.expected[place] {
            Some(expected) if (expected.raw_name, expected.parent) == (raw_name, parent) => {
                expected.field
            }
            _ => {
                let field = fields.find(parent, &json::string_text(raw_name));
                self.expected[place] = Some(Expected { raw_name, parent, field });
                field
            }
        };
        // Behind a field that nobody knows the same is expected as in its place.
        self.next = field.map_or(place, |field| field + 1);
        field
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
        let key = |at: &usize| (self.entries[*at].parent, self.entries[*at].name());
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

    /// Returns what a known field says, where that is text that stands in the record as it reads.
    pub(super) fn plain_text(&self, field: usize) -> Option<&'a str> {
        let entry = &self.entries[self.slots[field]?];
        entry.is_plain.then(|| &entry.value[1..entry.value.len() - 1])
    }

    /// Says what of a known field no column took.
    pub(super) fn leave(&mut self, field: usize, rest: Rest) {
        if let Some(at) = self.slots[field] {
            self.entries[at].rest = rest;
        }
    }

    /// Returns the names of the fields the mapping does not know, with those of the objects they
    /// stand in: `location.city`.
    pub(super) fn unknown(&self) -> impl Iterator<Item = Cow<'a, str>> {
        self.entries.iter().filter(|entry| !entry.is_known).map(|entry| self.path(entry))
    }

    fn path(&self, entry: &Entry<'a>) -> Cow<'a, str> {
        match entry.parent {
            None => entry.name(),
            Some(at) => format!("{}.{}", self.path(&self.entries[at]), entry.name()).into(),
        }
    }

    /// Returns what no column took as a JSON object, or `None` where nothing is left.
    ///
    /// Null, blank and empty values say nothing and are left out: providers send the same record
    /// with a field empty today and absent tomorrow.
    pub(super) fn extra(&mut self) -> Option<String> {
        let mut out = std::mem::take(&mut self.rest);
        out.clear();
        self.push_rest(0, self.entries.len(), &mut out);
        let extra = (!out.is_empty()).then(|| out.clone());
        self.rest = out;
        extra
    }

    /// Appends what is left of the entries from `at` to `end` as an object, if anything is.
    fn push_rest(&self, mut at: usize, end: usize, out: &mut String) {
        let start = out.len();
        while at < end {
            let entry = &self.entries[at];
            let before = out.len();
            let name = |out: &mut String| {
                out.push(if before == start { '{' } else { ',' });
                match entry.name() {
                    // Without escapes it stands as it is.
                    Cow::Borrowed(_) => out.push_str(entry.raw_name),
                    Cow::Owned(name) => json::push_string(&name, out),
                }
                out.push(':');
            };
            match &entry.rest {
                Rest::Nothing => {}
                Rest::Whole if value::is_blank(entry.value) => {}
                Rest::Whole => {
                    name(out);
                    match entry.is_plain {
                        true => out.push_str(entry.value),
                        false => json::compact(entry.value, out),
                    }
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

#[cfg(test)]
mod tests {
    use super::*;

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
