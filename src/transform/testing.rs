//! What the tests of the mappings share: pages, rows as text, and arbitrary records.

use std::collections::BTreeMap;

use arrow::array::Array;
use arrow::array::AsArray;
use arrow::array::RecordBatch;
use arrow::datatypes::Decimal128Type;
use arrow::datatypes::Float64Type;
use arrow::datatypes::Int64Type;
use arrow::datatypes::TimestampMicrosecondType;
use chrono::DateTime;
use proptest::prelude::*;
use serde_json::Value as Json;
use serde_json::json;

use crate::schema::lead;
use crate::schema::lead::Kind;
use crate::schema::lead::Micros;
use crate::schema::lead::Money;
use crate::schema::lead::Value;
use crate::transform::IdentityKey;
use crate::transform::Mapped;
use crate::transform::Mapping;
use crate::transform::Page;
use crate::transform::Settings;

/// The columns of a lead that are not null.
pub(super) type Columns = BTreeMap<&'static str, String>;

/// Returns settings in which only the key is set.
pub(super) fn settings() -> Settings {
    Settings {
        account_id: None,
        currency: None,
        default_region: None,
        profiles: BTreeMap::new(),
        identity_key: IdentityKey::new(b"a key for tests"),
    }
}

/// Returns a page of a stream that has no partitions.
pub(super) fn page<'a>(stream: &'a str, body: &'a [u8]) -> Page<'a> {
    Page {
        source: "acme",
        stream,
        scope_label: "all",
        partition: "all",
        list: "",
        run: "run",
        received_at: DateTime::from_timestamp(1_763_000_000, 0).unwrap(),
        location: "archive/acme/1.seg#4",
        body,
        records: None,
    }
}

/// Maps a page of one record, which must not be a reject, and returns its columns.
pub(super) fn columns_of(mapping: &dyn Mapping, page: &Page<'_>, settings: &Settings) -> Columns {
    let mapped = mapping.map(page, settings).unwrap();
    assert_eq!(mapped.rejects, []);
    assert_eq!(mapped.places, [0]);
    row(&mapped.leads, 0).into_iter().collect()
}

/// Returns the columns of a row that are not null, in their order, as CSV has them.
pub(super) fn row(batch: &RecordBatch, row: usize) -> Vec<(&'static str, String)> {
    let cells = lead::COLUMNS.iter().zip(batch.columns());
    cells
        .filter(|(_, array)| array.is_valid(row))
        .map(|(column, array)| (column.name, cell(column.kind, array, row)))
        .collect()
}

/// Returns a cell that is not null, as CSV has it.
pub(super) fn cell(kind: Kind, array: &dyn Array, row: usize) -> String {
    let value = match kind {
        Kind::Text | Kind::JsonArray | Kind::JsonObject => {
            Value::Text(array.as_string::<i32>().value(row))
        }
        Kind::Bool => Value::Bool(array.as_boolean().value(row)),
        Kind::Int => Value::Int(array.as_primitive::<Int64Type>().value(row)),
        Kind::Float => Value::Float(array.as_primitive::<Float64Type>().value(row)),
        Kind::Money => Value::Money(Money(array.as_primitive::<Decimal128Type>().value(row))),
        Kind::Time => {
            Value::Time(Micros(array.as_primitive::<TimestampMicrosecondType>().value(row)))
        }
    };
    let mut text = String::new();
    lead::push_csv_text(value, &mut text);
    text
}

/// Renders what a page gave: a line for each column that is not null.
pub(super) fn rendered(mapped: &Mapped) -> String {
    let mut out = String::new();
    for index in 0..mapped.leads.num_rows() {
        out += &format!("lead at {}\n", mapped.places[index]);
        for (name, text) in row(&mapped.leads, index) {
            out += &format!("  {name}: {text}\n");
        }
    }
    out += &format!("warnings: {:?}\n", mapped.warnings);
    out += &format!("unknown fields: {:?}\n", mapped.unknown_fields);
    out + &format!("rejects: {:?}\n", mapped.rejects)
}

/// Returns any JSON value, nested a little.
pub(super) fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        any::<String>().prop_map(Json::from),
        "[-+0-9 :TZ.]{0,25}".prop_map(Json::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::btree_map(any::<String>(), inner, 0..4)
                .prop_map(|map| Json::Object(map.into_iter().collect())),
        ]
    })
}

/// Returns the record that has `leaves` at their paths (`location.id`); a leaf that would stand
/// within another one is left out, of `leaves`, too.
pub(super) fn nested(leaves: &mut BTreeMap<String, Json>) -> Json {
    let paths: Vec<String> = leaves.keys().cloned().collect();
    leaves.retain(|path, _| paths.iter().all(|other| !path.starts_with(&format!("{other}."))));
    let mut record = json!({});
    for (path, leaf) in leaves.iter() {
        let place = path.split('.').fold(&mut record, |object, name| &mut object[name]);
        *place = leaf.clone();
    }
    record
}
