//! The part of mapping that is the same for all providers: from a page to batch, rejects and counts.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::mem;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::PoisonError;

use crate::ids::ProviderId;
use crate::schema::batch::LeadBatchBuilder;
use crate::schema::json;
use crate::schema::lead::JsonObject;
use crate::schema::lead::Lead;
use crate::schema::lead::Lineage;
use crate::transform::Error;
use crate::transform::Mapped;
use crate::transform::Mapping;
use crate::transform::Page;
use crate::transform::Records;
use crate::transform::Reject;
use crate::transform::Settings;
use crate::transform::Warnings;
use crate::transform::envelope;
use crate::transform::envelope::Form;
use crate::transform::phone::Phones;
use crate::transform::reader::Reader;
use crate::transform::record;
use crate::transform::record::Fields;
use crate::transform::record::Record;
use crate::transform::text_of;
use crate::transform::value;

/// What a mapping has of its own: the names of a stream's fields, and where they go.
#[derive(Debug)]
pub(super) struct Mapper {
    /// The provider.
    pub(super) provider: ProviderId,
    /// How its pages are built.
    pub(super) form: Form,
    /// The place in `fields` of the field with a record's id.
    pub(super) id_place: usize,
    /// The fields the provider is known to send.
    pub(super) fields: Fields,
    /// Takes the fields of a record into the columns of a lead, all but its id and `extra`.
    pub(super) read: for<'r, 'a> fn(&mut Reader<'r, 'a>, &mut Lead<'a>),
    /// What is remembered from page to page.
    pub(super) kept: Kept,
}

impl Mapping for Mapper {
    fn records(&self, body: &[u8], is_json: bool) -> Result<Records, Error> {
        let body = text_of(body)?;
        Ok(Records::of(body, &envelope::rows(body, is_json, &self.form)?))
    }

    fn map(&self, page: &Page<'_>, settings: &Settings) -> Result<Mapped, Error> {
        let body = text_of(page.body)?;
        let found = match page.records {
            Some(_) => Records::default(),
            None => self.records(page.body, false)?,
        };
        let records = &page.records.unwrap_or(&found).0;
        let Remembered { builder, phones } = self.kept.lend();
        let mut state = State {
            builder,
            places: Vec::with_capacity(records.len()),
            rejects: Vec::new(),
            warnings: Warnings::new(),
            unknown_fields: BTreeSet::new(),
            phones,
            archive: String::new(),
        };
        state.builder.expect(records.len(), body.len());
        let mut record = Record::default();
        for (index, row) in self.sorted_by_id(body, records) {
            if let Err(reason) = self.map_row(page, settings, &mut state, &mut record, index, row) {
                state.rejects.push(Reject { index, reason, record: row.to_owned() });
            }
        }
        state.rejects.sort_by_key(|reject| reject.index);
        let leads = state.builder.finish()?;
        self.kept.take_back(Remembered { builder: state.builder, phones: state.phones });
        Ok(Mapped {
            leads,
            places: state.places,
            rejects: state.rejects,
            warnings: state.warnings,
            unknown_fields: state.unknown_fields,
        })
    }
}

/// What is remembered between two pages; a page that finds it lent begins with nothing.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<Remembered>);

/// What one page leaves to the next: how much room its columns took, and telephone numbers.
#[derive(Debug, Default)]
struct Remembered {
    builder: LeadBatchBuilder,
    phones: Phones,
}

impl Kept {
    fn lend(&self) -> Remembered {
        mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn take_back(&self, remembered: Remembered) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = remembered;
    }
}

/// Names of unknown fields that a page tells, and how much of each, in bytes: they are remembered, and
/// a provider may send any.
const MOST_NAMES: usize = 1_000;
const LONGEST_NAME: usize = 120;

/// Returns as much of a name as is told.
fn cut(name: &str) -> &str {
    &name[..name.floor_char_boundary(LONGEST_NAME)]
}

/// What grows while a page is mapped.
struct State {
    builder: LeadBatchBuilder,
    places: Vec<u32>,
    rejects: Vec<Reject>,
    warnings: Warnings,
    unknown_fields: BTreeSet<String>,
    phones: Phones,
    archive: String,
}

impl Mapper {
    /// Maps one record, or returns why it is a reject.
    fn map_row<'a>(
        &self,
        page: &Page<'a>,
        settings: &'a Settings,
        state: &mut State,
        record: &mut Record<'a>,
        index: u32,
        row: &'a str,
    ) -> Result<(), String> {
        if !record.read(&self.fields, row) {
            return Err("the record is no JSON object".to_owned());
        }
        let native_id = self.take_id(record)?;
        for name in record.unknown() {
            let name = cut(&name);
            if !state.unknown_fields.contains(name) && state.unknown_fields.len() < MOST_NAMES {
                state.unknown_fields.insert(name.to_owned());
            }
        }
        let (warnings, phones) = (&mut state.warnings, &mut state.phones);
        let mut lead = self.lead(page, native_id);
        (self.read)(&mut Reader { record, warnings, phones, page, settings }, &mut lead);
        lead.extra = record.extra().map(|extra| JsonObject(extra.into()));

        state.archive.clear();
        // Writing to a string cannot fail.
        let _ = write!(state.archive, "{}:{index}", page.location);
        state.builder.push(&lead, &lineage(page, &state.archive));
        state.places.push(index);
        Ok(())
    }

    /// Returns the records with their places on the page, in the order of their ids: leads are sorted by them
    /// wherever they are stored, and are told apart by their place where an id comes twice. A record whose id
    /// is not found at once stands wherever it does.
    fn sorted_by_id<'a>(&self, body: &'a str, records: &[Range<usize>]) -> Vec<(u32, &'a str)> {
        let id_of = |row: &'a str| {
            let mut members = json::members(row);
            let found = members.find(|(name, _)| json::string_text(name) == self.form.id);
            found.map_or("", |(_, value)| value)
        };
        let row_at = |place: &Range<usize>| body.get(place.clone()).unwrap_or_default();
        let mut rows: Vec<(&str, u32, &str)> = (0..)
            .zip(records)
            .map(|(index, place)| (index, row_at(place)))
            .map(|(index, row)| (id_of(row), index, row))
            .collect();
        rows.sort_unstable();
        rows.into_iter().map(|(_, index, row)| (index, row)).collect()
    }

    fn take_id<'a>(&self, record: &mut Record<'a>) -> Result<Cow<'a, str>, String> {
        let refuse = |problem| Err(format!("the field `{}` {problem}", self.form.id));
        match record.get(self.id_place).map(value::id) {
            None => refuse("is missing"),
            Some(Ok(None)) => refuse("is empty"),
            Some(Err(value::Misfit)) => {
                refuse("is neither a whole number nor a text that can be one")
            }
            Some(Ok(Some(id))) => {
                record.leave(self.id_place, record::Rest::Nothing);
                Ok(id)
            }
        }
    }

    fn lead<'a>(&self, page: &Page<'a>, native_id: Cow<'a, str>) -> Lead<'a> {
        Lead {
            source: page.source.into(),
            provider: self.provider.as_str().into(),
            stream: page.stream.into(),
            lead_id: [self.provider.as_str(), page.stream, &native_id].join(":").into(),
            native_id,
            channel: "other".into(),
            ..Lead::default()
        }
    }
}

fn lineage<'p>(page: &Page<'p>, archive: &'p str) -> Lineage<'p> {
    Lineage {
        scope: page.scope_label,
        first_seen_at: page.received_at,
        extracted_at: page.received_at,
        run_id: page.run,
        seq: 0,
        archive: Some(archive),
        deleted_at: None,
    }
}
