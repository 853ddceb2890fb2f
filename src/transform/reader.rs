//! Takes the fields of one record, one after the other, into columns.
//!
//! One rule for all of them: what says nothing is null; what fits goes to its column; what does not
//! leaves the column null, stays for `extra`, and is counted as a warning of that column.

use std::borrow::Cow;

use crate::schema::lead::JsonArray;
use crate::schema::lead::JsonObject;
use crate::schema::lead::Micros;
use crate::schema::lead::Money;
use crate::schema::lead::Text;
use crate::transform::Page;
use crate::transform::Settings;
use crate::transform::Warnings;
use crate::transform::person;
use crate::transform::phone::Number;
use crate::transform::phone::Phones;
use crate::transform::record::Record;
use crate::transform::record::Rest;
use crate::transform::value;
use crate::transform::value::Nested;
use crate::transform::value::Read;

/// A record being read. A field is named by its place in the mapping's list.
#[derive(Debug)]
pub(super) struct Reader<'r, 'a> {
    pub(super) record: &'r mut Record<'a>,
    pub(super) warnings: &'r mut Warnings,
    pub(super) phones: &'r mut Phones,
    pub(super) page: &'r Page<'a>,
    pub(super) settings: &'a Settings,
}

/// A telephone number in the forms in which a lead has it: as given, with a country code that came
/// apart before it; in E.164, where it is valid; and the key of that.
type Telephone<'a> = (Option<Text<'a>>, Option<Text<'a>>, Option<Text<'a>>);

impl<'a> Reader<'_, 'a> {
    /// Counts a value that did not fit `column`.
    pub(super) fn warn(&mut self, column: &'static str) {
        *self.warnings.entry(column).or_default() += 1;
    }

    /// Reads a field and settles what is left of it.
    fn take<T>(
        &mut self,
        field: impl Into<usize>,
        column: &'static str,
        read: impl FnOnce(&'a str) -> Read<T>,
    ) -> Option<T> {
        let field = field.into();
        match read(self.record.get(field)?) {
            Ok(value) => {
                self.record.leave(field, Rest::Nothing);
                value
            }
            Err(value::Misfit) => {
                self.warn(column);
                None
            }
        }
    }

    /// Takes text as given.
    pub(super) fn text(
        &mut self,
        field: impl Into<usize>,
        column: &'static str,
    ) -> Option<Text<'a>> {
        let field = field.into();
        // What most fields are needs no reading.
        match self.record.plain_text(field) {
            Some(text) => {
                self.record.leave(field, Rest::Nothing);
                (!value::is_white(text)).then_some(Cow::Borrowed(text))
            }
            None => self.take(field, column, value::text),
        }
    }

    /// Takes the first of several fields that says something; another one stays for `extra`, unless
    /// it says the same.
    pub(super) fn first_text<F: Into<usize> + Copy>(
        &mut self,
        fields: &[F],
        column: &'static str,
    ) -> Option<Text<'a>> {
        let mut taken = None;
        for field in fields {
            match &taken {
                None => taken = self.text(*field, column),
                Some(taken) => self.drop_equal((*field).into(), taken),
            }
        }
        taken
    }

    fn drop_equal(&mut self, field: usize, taken: &str) {
        let read = self.record.get(field).map(value::text);
        if matches!(read, Some(Ok(Some(text))) if text == taken) {
            self.record.leave(field, Rest::Nothing);
        }
    }

    /// Takes true or false.
    pub(super) fn bool(&mut self, field: impl Into<usize>, column: &'static str) -> Option<bool> {
        self.take(field, column, value::bool)
    }

    /// Takes text that stands for true or for false, as `read` has it.
    pub(super) fn flag(
        &mut self,
        field: impl Into<usize>,
        column: &'static str,
        read: impl FnOnce(&str) -> Option<bool>,
    ) -> Option<bool> {
        self.take(field, column, |raw| {
            let Some(text) = value::text(raw)? else { return Ok(None) };
            read(&text).map(Some).ok_or(value::Misfit)
        })
    }

    /// Takes a whole number.
    pub(super) fn int(&mut self, field: impl Into<usize>, column: &'static str) -> Option<i64> {
        self.take(field, column, value::int)
    }

    /// Takes a number.
    pub(super) fn float(&mut self, field: impl Into<usize>, column: &'static str) -> Option<f64> {
        self.take(field, column, value::float)
    }

    /// Takes an amount.
    pub(super) fn money(&mut self, field: impl Into<usize>, column: &'static str) -> Option<Money> {
        self.take(field, column, value::money)
    }

    /// Takes a time; the text stays for `extra` where it says more than the instant, and one
    /// without a zone is a warning, too.
    pub(super) fn time(&mut self, field: impl Into<usize>, column: &'static str) -> Option<Micros> {
        let field = field.into();
        let time = self.take(field, column, value::time)?;
        if !time.is_plain {
            self.record.leave(field, Rest::Whole);
        }
        if !time.has_zone {
            self.warn(column);
        }
        Some(time.micros)
    }

    /// Takes a list of texts.
    pub(super) fn list(&mut self, field: impl Into<usize>, column: &'static str) -> JsonArray<'a> {
        JsonArray(self.take(field, column, value::list).unwrap_or_default().into())
    }

    /// Takes a map.
    pub(super) fn map(&mut self, field: impl Into<usize>, column: &'static str) -> JsonObject<'a> {
        JsonObject(self.nested(field, column, value::map).unwrap_or_default().into())
    }

    /// Takes tags: a list of texts, or of objects that have a name.
    pub(super) fn tags(&mut self, field: impl Into<usize>) -> JsonArray<'a> {
        JsonArray(self.nested(field, "tags", value::tags).unwrap_or_default().into())
    }

    /// Takes the first text of a list; where there are more, the list stays for `extra`.
    pub(super) fn first_of_list(
        &mut self,
        field: impl Into<usize>,
        column: &'static str,
    ) -> Option<Text<'a>> {
        self.nested(field, column, value::first_of_list).map(Cow::Owned)
    }

    /// Takes a map that may come as an array of objects with `key` and `value`.
    pub(super) fn attributes(
        &mut self,
        field: impl Into<usize>,
        column: &'static str,
    ) -> JsonObject<'a> {
        JsonObject(self.nested(field, column, value::attributes).unwrap_or_default().into())
    }

    /// Takes notes, each of which may have a title, as lines.
    pub(super) fn notes(&mut self, field: impl Into<usize>) -> Option<Text<'a>> {
        self.nested(field, "notes", value::notes).map(Cow::Owned)
    }

    fn nested(
        &mut self,
        field: impl Into<usize>,
        column: &'static str,
        read: impl FnOnce(&'a str) -> Read<Nested>,
    ) -> Option<String> {
        let field = field.into();
        let nested = self.take(field, column, read)?;
        self.record.leave(field, nested.rest);
        Some(nested.text)
    }

    /// Takes a country; a name stays for `extra`, since it may say more (`England`) than its code.
    pub(super) fn country<F: Into<usize> + Copy>(&mut self, fields: &[F]) -> Option<Text<'a>> {
        let mut taken = None;
        for field in fields {
            let text = match self.record.get((*field).into()).map(value::text) {
                Some(Ok(Some(text))) => text,
                Some(Err(value::Misfit)) => Cow::Borrowed(""),
                _ => continue,
            };
            match (taken, person::country(&text)) {
                (None, None) => self.warn("country"),
                (None, code) => taken = code,
                // A second country that differs is the record's business, not a misfit.
                (Some(_), code) if code != taken => continue,
                _ => {}
            }
            if taken.is_some() && person::is_country_code(&text) {
                self.record.leave((*field).into(), Rest::Nothing);
            }
        }
        taken.map(Cow::Borrowed)
    }

    /// Returns the address in its one form, and its key; not valid, it is a warning.
    pub(super) fn email(&mut self, raw: Option<&str>) -> (Option<Text<'a>>, Option<Text<'a>>) {
        let Some(raw) = raw else { return (None, None) };
        self.keyed("email", person::email(raw))
    }

    /// Returns the number in E.164, and its key; not valid, it is a warning. It is read with the
    /// lead's own country first, then with the region of the settings.
    pub(super) fn phone(
        &mut self,
        raw: Option<&str>,
        country: Option<&str>,
        region: Option<&str>,
    ) -> (Option<Text<'a>>, Option<Text<'a>>) {
        let Some(raw) = raw else { return (None, None) };
        let phone = self.phones.read(Number::Written(raw), [country, region]);
        self.keyed("phone", phone)
    }

    /// Takes a telephone number that a platform keeps with its country code, which may have a field
    /// of its own.
    ///
    /// It is read with the lead's own country first, then with the region of the settings. A country
    /// code without a number says nothing, and stays for `extra`.
    pub(super) fn telephone<F: Into<usize> + Copy>(
        &mut self,
        code: Option<F>,
        number: F,
        country: Option<&str>,
    ) -> Telephone<'a> {
        let Some(number) = self.text(number, "phone_raw") else { return Telephone::default() };
        let code = code.and_then(|code| self.text(code, "phone_raw"));
        let regions = [country, self.region()];
        let (raw, e164) = match code {
            Some(code) => {
                let given = Number::Parts { code: &code, number: &number };
                let e164 = self.phones.read(given, regions);
                (format!("{code} {number}").into(), e164)
            }
            None => {
                let e164 = self.phones.read(Number::Kept(&number), regions);
                (number, e164)
            }
        };
        let (e164, key) = self.keyed("phone", e164);
        (Some(raw), e164, key)
    }

    /// Returns the region of the part of the account that was asked, or else of the source.
    fn region(&self) -> Option<&'a str> {
        let settings = self.settings;
        settings
            .profile(self.page.partition)
            .and_then(|profile| profile.default_region.as_deref())
            .or(settings.default_region.as_deref())
    }

    fn keyed(
        &mut self,
        column: &'static str,
        value: Option<String>,
    ) -> (Option<Text<'a>>, Option<Text<'a>>) {
        let Some(value) = value else {
            self.warn(column);
            return (None, None);
        };
        let key = self.settings.identity_key.key_of(&value);
        (Some(value.into()), Some(key.into()))
    }
}
