//! The unified lead: one row is one record of a provider, as the provider last showed it.
//!
//! [`Lead`] is the one description. The column table, the Arrow schema, the JSON schema, the content
//! hash and the batch builder are made from it, so they cannot disagree. Inside a version a column
//! is never removed, renamed or retyped; a new one is nullable and goes to the end.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::LazyLock;

use arrow::datatypes::DataType;
use arrow::datatypes::Field;
use arrow::datatypes::Schema;
use arrow::datatypes::SchemaRef;
use arrow::datatypes::TimeUnit;
use chrono::DateTime;
use chrono::Utc;

use crate::schema::json;
use crate::schema::text;

/// The version of the lead schema, as in `schemas/lead.v1.json`.
pub const LEAD_SCHEMA_VERSION: u32 = 1;

/// Decimal digits of a money column, before and after the point together.
pub const MONEY_PRECISION: u8 = 18;

/// A column of the lead schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Whether it may be null.
    pub nullable: bool,
    /// What it means.
    pub doc: &'static str,
    /// Whether it tells where the row comes from, not what the lead is; such columns begin with `_`.
    pub lineage: bool,
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Text.
    Text,
    /// Text with a JSON array; the empty one is `[]`.
    JsonArray,
    /// Text with a JSON object; the empty one is `{}`.
    JsonObject,
    /// True or false.
    Bool,
    /// A whole number of 64 bits.
    Int,
    /// A number of 64 bits.
    Float,
    /// An exact amount: 18 digits, 4 of them after the point.
    Money,
    /// A time in UTC, to the microsecond.
    Time,
}

impl Kind {
    /// Returns the Arrow type.
    pub fn data_type(self) -> DataType {
        match self {
            Self::Text | Self::JsonArray | Self::JsonObject => DataType::Utf8,
            Self::Bool => DataType::Boolean,
            Self::Int => DataType::Int64,
            Self::Float => DataType::Float64,
            Self::Money => DataType::Decimal128(MONEY_PRECISION, text::MONEY_SCALE as i8),
            Self::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        }
    }

    /// Returns the text of an empty value in a column that cannot be null.
    pub(super) fn empty_text(self) -> &'static str {
        match self {
            Self::JsonArray => "[]",
            Self::JsonObject => "{}",
            _ => "",
        }
    }
}

/// A value in a cell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'v> {
    /// Text, or JSON text.
    Text(&'v str),
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// An amount.
    Money(Money),
    /// A time.
    Time(Micros),
}

/// An exact amount in ten-thousandths: `Money(2_515_000)` is 251.50.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money(pub i128);

/// A time in microseconds since 1970, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(pub i64);

impl From<DateTime<Utc>> for Micros {
    fn from(time: DateTime<Utc>) -> Self {
        Self(time.timestamp_micros())
    }
}

/// Text, borrowed from the page where it stands there unescaped.
pub type Text<'a> = Cow<'a, str>;

/// JSON text with an array; no text means `[]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JsonArray<'a>(pub Text<'a>);

/// JSON text with an object; no text means `{}`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JsonObject<'a>(pub Text<'a>);

/// The type of a field of [`Lead`], and so of a column.
trait Cell {
    const KIND: Kind;
    const NULLABLE: bool = true;

    fn value(&self) -> Option<Value<'_>>;
}

/// Says which Rust type stands for which kind of column.
macro_rules! cells {
    ($($cell:ty => $kind:ident, $nullable:literal, |$value:ident| $read:expr;)*) => {$(
        impl Cell for $cell {
            const KIND: Kind = Kind::$kind;
            const NULLABLE: bool = $nullable;

            fn value(&self) -> Option<Value<'_>> {
                let $value = self;
                $read
            }
        }
    )*};
}

cells! {
    Text<'_> => Text, false, |text| Some(Value::Text(text));
    Option<Text<'_>> => Text, true, |text| text.as_deref().map(Value::Text);
    JsonArray<'_> => JsonArray, false, |json| Some(Value::Text(&json.0));
    JsonObject<'_> => JsonObject, false, |json| Some(Value::Text(&json.0));
    Option<JsonObject<'_>> => JsonObject, true, |json| json.as_ref().map(|json| Value::Text(&json.0));
    Option<bool> => Bool, true, |value| value.map(Value::Bool);
    Option<i64> => Int, true, |value| value.map(Value::Int);
    Option<f64> => Float, true, |value| value.map(Value::Float);
    Option<Money> => Money, true, |value| value.map(Value::Money);
    Option<Micros> => Time, true, |value| value.map(Value::Time);
}

/// Declares [`Lead`] and, from the same lines, its part of the column table.
macro_rules! lead {
    (
        $(#[$attribute:meta])*
        pub struct Lead<$a:lifetime> {
            $($(#[doc = $doc:literal])+ pub $name:ident: $cell:ty,)*
        }
    ) => {
        $(#[$attribute])*
        pub struct Lead<$a> {
            $($(#[doc = $doc])+ pub $name: $cell,)*
        }

        impl<$a> Lead<$a> {
            pub(super) const COLUMNS: &'static [Column] = &[$(Column {
                name: stringify!($name),
                kind: <$cell as Cell>::KIND,
                nullable: <$cell as Cell>::NULLABLE,
                doc: concat!($($doc),+).trim_ascii(),
                lineage: false,
            }),*];

            /// Returns the values in the order of the columns; JSON columns may be empty text.
            pub(super) fn values(&self) -> [Option<Value<'_>>; LEAD_WIDTH] {
                [$(self.$name.value()),*]
            }
        }

        /// The columns that tell what the lead is.
        pub(super) const LEAD_WIDTH: usize = [$(stringify!($name)),*].len();
    };
}

lead! {
    /// A record of a provider in the words of the unified schema: the columns above `_scope`.
    #[derive(Debug, Clone, Default, PartialEq)]
    pub struct Lead<'a> {
        /// Name of the source in the job file.
        pub source: Text<'a>,
        /// Name of the provider: `whatconverts`, `whautomate` or `convertalk`.
        pub provider: Text<'a>,
        /// Kind of record: `leads`, `contacts`, `clients`, `chats` or `users`.
        pub stream: Text<'a>,
        /// Key of the row within its source: `<provider>:<stream>:<native_id>`.
        pub lead_id: Text<'a>,
        /// The provider's id of the record, as text.
        pub native_id: Text<'a>,
        /// The provider's id of the account.
        pub account_id: Option<Text<'a>>,
        /// Name of the account.
        pub account_name: Option<Text<'a>>,
        /// The provider's id of the part of the account: profile, location or bot.
        pub profile_id: Option<Text<'a>>,
        /// Name of the part of the account.
        pub profile_name: Option<Text<'a>>,
        /// The provider's id of the person or browser.
        pub visitor_id: Option<Text<'a>>,
        /// When the lead came to be.
        pub created_at: Option<Micros>,
        /// When the provider last changed the record; may lie before its creation.
        pub updated_at: Option<Micros>,
        /// When the person was last active.
        pub last_activity_at: Option<Micros>,
        /// How the lead came: `phone_call`, `web_form`, `chat`, `text_message`, `email`, `event`,
        /// `transaction`, `appointment`, `whatsapp`, `instagram`, `messenger`, `telegram`, `sms`,
        /// `website`, `manual` or `other`.
        pub channel: Text<'a>,
        /// The channel as given.
        pub channel_native: Option<Text<'a>>,
        /// How far it is handled: `open`, `in_progress`, `review`, `on_hold`, `blocked`,
        /// `completed`, `closed` or `other`.
        pub status: Option<Text<'a>>,
        /// The status as given.
        pub status_native: Option<Text<'a>>,
        /// Place in the funnel: `subscriber`, `lead`, `marketing_qualified`, `sales_qualified`,
        /// `opportunity`, `customer`, `evangelist`, `lost` or `other`.
        pub stage: Option<Text<'a>>,
        /// The stage as given.
        pub stage_native: Option<Text<'a>>,
        /// Whether somebody judged it worth a quote; null while nobody did.
        pub is_qualified: Option<bool>,
        /// The judgement as given.
        pub qualification_native: Option<Text<'a>>,
        /// Whether the person was a lead before.
        pub is_repeat: Option<bool>,
        /// Whether it is marked as spam.
        pub is_spam: Option<bool>,
        /// Whether it is marked as a duplicate.
        pub is_duplicate: Option<bool>,
        /// The provider's score.
        pub score: Option<f64>,
        /// Name of the person, as given; never split by guess.
        pub full_name: Option<Text<'a>>,
        /// Name of the person's company.
        pub company_name: Option<Text<'a>>,
        /// E-mail address as given.
        pub email_raw: Option<Text<'a>>,
        /// E-mail address, trimmed and in lower case; null where it is not valid.
        pub email: Option<Text<'a>>,
        /// Telephone number as given.
        pub phone_raw: Option<Text<'a>>,
        /// Telephone number in E.164; null where it is not valid.
        pub phone: Option<Text<'a>>,
        /// The same for the same `email` across providers: 32 hex digits of a keyed hash.
        pub email_key: Option<Text<'a>>,
        /// The same for the same `phone` across providers: 32 hex digits of a keyed hash.
        pub phone_key: Option<Text<'a>>,
        /// Street and house number.
        pub street: Option<Text<'a>>,
        /// City.
        pub city: Option<Text<'a>>,
        /// State or region.
        pub region: Option<Text<'a>>,
        /// Postal code.
        pub postal_code: Option<Text<'a>>,
        /// Country as ISO 3166-1 alpha-2.
        pub country: Option<Text<'a>>,
        /// Language the person prefers.
        pub language: Option<Text<'a>>,
        /// Where the visit came from, e.g. `google`.
        pub marketing_source: Option<Text<'a>>,
        /// Kind of traffic, e.g. `cpc`.
        pub marketing_medium: Option<Text<'a>>,
        /// Campaign.
        pub marketing_campaign: Option<Text<'a>>,
        /// Advertisement.
        pub marketing_content: Option<Text<'a>>,
        /// Search keyword.
        pub marketing_keyword: Option<Text<'a>>,
        /// Page on which the lead came to be.
        pub lead_url: Option<Text<'a>>,
        /// Page on which the visit began.
        pub landing_url: Option<Text<'a>>,
        /// Google click id.
        pub gclid: Option<Text<'a>>,
        /// Microsoft click id.
        pub msclkid: Option<Text<'a>>,
        /// Facebook click id.
        pub facebook_click_id: Option<Text<'a>>,
        /// Facebook browser id.
        pub facebook_browser_id: Option<Text<'a>>,
        /// Google Analytics client id; text, though it looks like a number.
        pub ga_client_id: Option<Text<'a>>,
        /// IP address of the visitor.
        pub ip_address: Option<Text<'a>>,
        /// Kind of device.
        pub device_type: Option<Text<'a>>,
        /// Make of the device.
        pub device_make: Option<Text<'a>>,
        /// Operating system of the device.
        pub operating_system: Option<Text<'a>>,
        /// Browser.
        pub browser: Option<Text<'a>>,
        /// Amount quoted, in `currency`.
        pub quote_value: Option<Money>,
        /// Amount sold, in `currency`.
        pub sales_value: Option<Money>,
        /// ISO 4217 code from the settings; null where both values are null.
        pub currency: Option<Text<'a>>,
        /// What the person wrote.
        pub message: Option<Text<'a>>,
        /// What the staff wrote.
        pub notes: Option<Text<'a>>,
        /// Keywords spotted in what was said.
        pub keywords: JsonArray<'a>,
        /// Name of the form.
        pub form_name: Option<Text<'a>>,
        /// State of the call, as given.
        pub call_status: Option<Text<'a>>,
        /// Whether the call was answered, as given.
        pub answer_status: Option<Text<'a>>,
        /// Length of the call in seconds.
        pub call_duration_s: Option<i64>,
        /// Where the recording or voicemail can be fetched.
        pub recording_url: Option<Text<'a>>,
        /// What was said on the telephone.
        pub transcript: Option<Text<'a>>,
        /// Number that was called.
        pub tracking_number: Option<Text<'a>>,
        /// Number the call was led to.
        pub destination_number: Option<Text<'a>>,
        /// Who takes care of it.
        pub assigned_to: Option<Text<'a>>,
        /// Tags.
        pub tags: JsonArray<'a>,
        /// Fields the account defined, by name.
        pub custom_fields: JsonObject<'a>,
        /// What was filled into a form, by label.
        pub form_fields: JsonObject<'a>,
        /// Every field of the record that no column above took in full.
        pub extra: Option<JsonObject<'a>>,
    }
}

/// Where a row comes from: the columns from `_scope` on, but for the content hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineage<'a> {
    /// The scope's label: partition, and query where there is one.
    pub scope: &'a str,
    /// When a page first showed this lead.
    pub first_seen_at: DateTime<Utc>,
    /// When the page that first showed this version was received.
    pub extracted_at: DateTime<Utc>,
    /// The run that received it.
    pub run_id: &'a str,
    /// The number of the commit in which this version first appeared; 0 before there is one.
    pub seq: i64,
    /// Where the raw record lies: `<segment path>#<page>:<index>`.
    pub archive: Option<&'a str>,
    /// When the lead was found gone.
    pub deleted_at: Option<DateTime<Utc>>,
}

const LINEAGE_COLUMNS: &[Column] = &[
    lineage(
        "_scope",
        Kind::Text,
        false,
        "The partition it was last read in, and the query where that is not the provider's default: \
         `profile:123`, `profile:123?spam=true`.",
    ),
    lineage(
        "_content_hash",
        Kind::Text,
        false,
        "32 hex digits of BLAKE3 over the columns above `_scope`; another hash is another version.",
    ),
    lineage("_first_seen_at", Kind::Time, false, "When a page first showed this lead."),
    lineage(
        "_extracted_at",
        Kind::Time,
        false,
        "When the page that first showed this version was received.",
    ),
    lineage("_run_id", Kind::Text, false, "Run that received it."),
    lineage(
        "_seq",
        Kind::Int,
        false,
        "Number of the commit in which this version first appeared: the column for incremental models.",
    ),
    lineage(
        "_archive",
        Kind::Text,
        true,
        "Where the raw record lies: `<segment path>#<page>:<index>`; may outlive its segment.",
    ),
    lineage(
        "_deleted_at",
        Kind::Time,
        true,
        "When the lead was found gone; only with `on_delete = \"keep\"`.",
    ),
];

const fn lineage(name: &'static str, kind: Kind, nullable: bool, doc: &'static str) -> Column {
    Column { name, kind, nullable, doc, lineage: true }
}

const ALL_COLUMNS: [Column; LEAD_WIDTH + LINEAGE_COLUMNS.len()] = {
    let mut all = [LINEAGE_COLUMNS[0]; LEAD_WIDTH + LINEAGE_COLUMNS.len()];
    let mut index = 0;
    while index < all.len() {
        all[index] = if index < LEAD_WIDTH {
            Lead::<'static>::COLUMNS[index]
        } else {
            LINEAGE_COLUMNS[index - LEAD_WIDTH]
        };
        index += 1;
    }
    all
};

/// All columns, in the order of every file.
pub const COLUMNS: &[Column] = &ALL_COLUMNS;

/// Places of columns in [`COLUMNS`] and in every batch.
pub mod column {
    use super::LEAD_WIDTH;

    /// `source`, the first half of the key.
    pub const SOURCE: usize = 0;
    /// `provider`.
    pub const PROVIDER: usize = 1;
    /// `stream`.
    pub const STREAM: usize = 2;
    /// `lead_id`, the second half of the key.
    pub const LEAD_ID: usize = 3;
    /// `native_id`.
    pub const NATIVE_ID: usize = 4;
    /// `created_at`.
    pub const CREATED_AT: usize = 10;
    /// `updated_at`.
    pub const UPDATED_AT: usize = 11;
    /// `_scope`, the first lineage column.
    pub const SCOPE: usize = LEAD_WIDTH;
    /// `_content_hash`.
    pub const CONTENT_HASH: usize = LEAD_WIDTH + 1;
    /// `_first_seen_at`.
    pub const FIRST_SEEN_AT: usize = LEAD_WIDTH + 2;
    /// `_extracted_at`.
    pub const EXTRACTED_AT: usize = LEAD_WIDTH + 3;
    /// `_run_id`.
    pub const RUN_ID: usize = LEAD_WIDTH + 4;
    /// `_seq`.
    pub const SEQ: usize = LEAD_WIDTH + 5;
    /// `_archive`.
    pub const ARCHIVE: usize = LEAD_WIDTH + 6;
    /// `_deleted_at`.
    pub const DELETED_AT: usize = LEAD_WIDTH + 7;
}

/// Returns the Arrow schema of a batch of leads: all columns, in order, without metadata.
pub fn arrow_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let field =
            |column: &Column| Field::new(column.name, column.kind.data_type(), column.nullable);
        Arc::new(Schema::new(COLUMNS.iter().map(field).collect::<Vec<_>>()))
    });
    Arc::clone(&SCHEMA)
}

impl Lead<'_> {
    /// Returns what tells versions of the lead apart: 32 hex digits.
    ///
    /// BLAKE3 over name and value of every column that is neither null nor empty, each with its
    /// length before it. Values are their CSV text before the formula guard, the keys of JSON
    /// objects sorted. A column that is added later changes the hash only of rows that have it.
    pub fn content_hash(&self) -> String {
        let cells = Self::COLUMNS.iter().zip(self.values());
        hash_text(HashInput::default().hash(cells).to_hex().as_str()).to_owned()
    }
}

/// The bytes a content hash is taken over; kept, so that no row allocates.
#[derive(Debug, Default)]
pub(super) struct HashInput {
    bytes: Vec<u8>,
    text: String,
}

/// Bytes of each buffer that are kept from batch to batch.
const MOST_KEPT: usize = 64 << 10;

impl HashInput {
    pub(super) fn hash<'v>(
        &mut self,
        cells: impl Iterator<Item = (&'v Column, Option<Value<'v>>)>,
    ) -> blake3::Hash {
        self.bytes.clear();
        for (column, value) in cells {
            if let Some(value) = value {
                self.push(column, value);
            }
        }
        blake3::hash(&self.bytes)
    }

    /// Gives back what an unusually large row took.
    pub(super) fn shrink(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(MOST_KEPT);
        self.text.clear();
        self.text.shrink_to(MOST_KEPT);
    }

    fn push(&mut self, column: &Column, value: Value<'_>) {
        self.text.clear();
        let text = match value {
            Value::Text(text) if matches!(column.kind, Kind::JsonArray | Kind::JsonObject) => {
                json::canonical(text, &mut self.text);
                if matches!(self.text.as_str(), "[]" | "{}") { "" } else { &self.text }
            }
            Value::Text(text) => text,
            value => {
                push_csv_text(value, &mut self.text);
                &self.text
            }
        };
        if text.is_empty() {
            return;
        }
        for part in [column.name, text] {
            self.bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
            self.bytes.extend_from_slice(part.as_bytes());
        }
    }
}

/// Appends the value as it stands in CSV, before quotes and the formula guard.
pub fn push_csv_text(value: Value<'_>, out: &mut String) {
    match value {
        Value::Text(text) => out.push_str(text),
        Value::Bool(value) => out.push_str(text::bool(value)),
        Value::Int(number) => text::int(number, out),
        Value::Float(number) => text::float(number, out),
        Value::Money(amount) => text::money(amount.0, out),
        Value::Time(time) => text::time(time.0, out),
    }
}

/// Returns the first 16 bytes of a hash, given in hex.
pub(super) fn hash_text(hex: &str) -> &str {
    &hex[..32]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contracts;
    use serde_json::Map;
    use serde_json::Value as Json;
    use serde_json::json;

    fn lead() -> Lead<'static> {
        Lead {
            source: "acme".into(),
            provider: "whatconverts".into(),
            stream: "leads".into(),
            lead_id: "whatconverts:leads:7".into(),
            native_id: "7".into(),
            channel: "other".into(),
            ..Lead::default()
        }
    }

    fn with_form(fields: &'static str) -> Lead<'static> {
        Lead { form_fields: JsonObject(fields.into()), ..lead() }
    }

    #[test]
    fn the_constants_name_their_columns() {
        for (index, name) in [
            (column::SOURCE, "source"),
            (column::PROVIDER, "provider"),
            (column::STREAM, "stream"),
            (column::LEAD_ID, "lead_id"),
            (column::NATIVE_ID, "native_id"),
            (column::CREATED_AT, "created_at"),
            (column::UPDATED_AT, "updated_at"),
            (column::SCOPE, "_scope"),
            (column::CONTENT_HASH, "_content_hash"),
            (column::FIRST_SEEN_AT, "_first_seen_at"),
            (column::EXTRACTED_AT, "_extracted_at"),
            (column::RUN_ID, "_run_id"),
            (column::SEQ, "_seq"),
            (column::ARCHIVE, "_archive"),
            (column::DELETED_AT, "_deleted_at"),
        ] {
            assert_eq!(COLUMNS[index].name, name);
        }
    }

    #[test]
    fn lineage_columns_come_last_and_begin_with_an_underscore() {
        for (index, column) in COLUMNS.iter().enumerate() {
            assert_eq!(column.lineage, index >= column::SCOPE, "{}", column.name);
            assert_eq!(column.lineage, column.name.starts_with('_'), "{}", column.name);
        }
    }

    #[test]
    fn the_column_table_is_the_contract() {
        let table: String = COLUMNS
            .iter()
            .map(|column| {
                let null = if column.nullable { "null" } else { "not null" };
                format!("{}: {}, {null}\n", column.name, column.kind.data_type())
            })
            .collect();
        insta::assert_snapshot!(table);
    }

    fn json_schema() -> Json {
        let properties: Map<String, Json> = COLUMNS
            .iter()
            .enumerate()
            .map(|(index, column)| (column.name.to_owned(), json_property(index + 1, column)))
            .collect();
        let required: Vec<&str> = COLUMNS.iter().map(|column| column.name).collect();
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": format!("lead.v{LEAD_SCHEMA_VERSION}.json"),
            "title": "lead",
            "description": "One record of a provider, as the provider last showed it. The key is \
                            (`source`, `lead_id`).",
            "x-version": LEAD_SCHEMA_VERSION,
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": false,
        })
    }

    fn json_property(position: usize, column: &Column) -> Json {
        let kind = match column.kind {
            Kind::Text | Kind::JsonArray | Kind::JsonObject | Kind::Time => "string",
            Kind::Bool => "boolean",
            Kind::Int => "integer",
            Kind::Float | Kind::Money => "number",
        };
        let mut property = json!({
            "title": column.name,
            "description": column.doc,
            "type": if column.nullable { json!([kind, "null"]) } else { json!(kind) },
            "x-position": position,
            "x-arrow-type": column.kind.data_type().to_string(),
        });
        match column.kind {
            Kind::Time => property["format"] = json!("date-time"),
            Kind::JsonArray | Kind::JsonObject => {
                property["contentMediaType"] = json!("application/json");
            }
            _ => {}
        }
        property
    }

    #[test]
    fn the_json_schema_is_the_one_of_the_columns() {
        contracts::assert_is_made("lead", contracts::LEAD, &json_schema());
    }

    #[test]
    fn the_json_schema_accepts_no_row_without_its_key() {
        let schema = json_schema();
        assert!(jsonschema::meta::is_valid(&schema));
        assert_eq!(schema["properties"]["lead_id"]["type"], "string");
        assert_eq!(schema["properties"]["created_at"]["format"], "date-time");
        assert!(!jsonschema::is_valid(&schema, &json!({ "source": "acme" })));
    }

    #[test]
    fn a_row_is_valid_by_the_json_schema() {
        let lead = Lead { score: Some(1.5), is_spam: Some(true), ..lead() };
        let cell = |value| match value {
            Value::Bool(value) => json!(value),
            Value::Float(number) => json!(number),
            Value::Text(text) => json!(text),
            value => panic!("{value:?} is not in this row"),
        };
        let cells = Lead::COLUMNS.iter().zip(lead.values());
        let mut row: Map<String, Json> = cells
            .map(|(column, value)| (column.name.to_owned(), value.map_or(Json::Null, cell)))
            .collect();
        for column in LINEAGE_COLUMNS {
            let time = json!("2026-01-01T00:00:00Z");
            let value = match column.kind {
                Kind::Int => json!(7),
                Kind::Time => time,
                _ => json!("text"),
            };
            row.insert(column.name.to_owned(), value);
        }
        let schema = json_schema();
        assert!(jsonschema::is_valid(&schema, &Json::Object(row.clone())));
        row.insert("lead_id".to_owned(), Json::Null);
        assert!(!jsonschema::is_valid(&schema, &Json::Object(row)));
    }

    #[test]
    fn the_hash_does_not_see_key_order_and_empty_values() {
        assert_eq!(
            with_form(r#"{"a":"1","b":{"d":1,"c":2}}"#).content_hash(),
            with_form(r#"{"b":{"c":2,"d":1},"a":"1"}"#).content_hash()
        );
        let empty = Lead {
            city: Some("".into()),
            tags: JsonArray("[]".into()),
            extra: Some(JsonObject("{}".into())),
            ..lead()
        };
        assert_eq!(empty.content_hash(), lead().content_hash());
    }

    #[test]
    fn a_new_column_that_is_null_does_not_change_the_hash() {
        let lead = with_form(r#"{"a":"1"}"#);
        let new = Column { name: "new", ..Lead::COLUMNS[column::UPDATED_AT] };
        let hash = |added: Option<Value<'_>>| {
            let cells = Lead::COLUMNS.iter().zip(lead.values()).chain([(&new, added)]);
            HashInput::default().hash(cells).to_hex()[..32].to_owned()
        };
        assert_eq!(hash(None), lead.content_hash());
        assert_ne!(hash(Some(Value::Time(Micros(0)))), lead.content_hash());
    }

    #[test]
    fn the_hash_sees_in_which_column_a_value_stands() {
        let city = Lead { city: Some("Reno".into()), ..lead() };
        let region = Lead { region: Some("Reno".into()), ..lead() };
        assert_ne!(city.content_hash(), region.content_hash());
    }

    #[test]
    fn the_hash_of_a_lead_stays_what_it_is() {
        // Written once; another hash would make every row of every lake a change.
        let lead = Lead {
            created_at: Some(Micros(1_500_000)),
            is_spam: Some(false),
            score: Some(50.0),
            quote_value: Some(Money(2_515_000)),
            call_duration_s: Some(13),
            ..with_form(r#"{"b":"2","a":"1"}"#)
        };
        insta::assert_snapshot!(lead.content_hash());
    }
}
