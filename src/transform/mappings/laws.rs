//! What holds for the mapping of every stream, whatever a record has in it.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::Value as Json;
use serde_json::json;

use crate::transform::Mapping;
use crate::transform::Settings;
use crate::transform::mapper::Mapper;
use crate::transform::mappings::convertalk;
use crate::transform::mappings::whatconverts;
use crate::transform::mappings::whautomate;
use crate::transform::testing;
use crate::transform::testing::any_json;
use crate::transform::testing::page;
use crate::transform::testing::rendered;

/// Leaves of a record by their paths.
type Leaves = BTreeMap<String, Json>;

fn settings() -> Settings {
    Settings { default_region: Some("US".to_owned()), ..testing::settings() }
}

/// Returns a path: mostly one of `paths`, else one beside it or within it.
fn any_path(paths: Vec<&'static str>) -> impl Strategy<Value = String> {
    let known = || prop::sample::select(paths.clone());
    prop_oneof![
        12 => known().prop_map(str::to_owned),
        1 => known().prop_map(|path| format!("{path}.unheard")),
        1 => known().prop_map(|path| match path.rsplit_once('.') {
            Some((object, _)) => format!("{object}.of"),
            None => format!("{path}of"),
        }),
    ]
}

/// Returns a word that is no code, number or boolean, and that no other word holds by chance.
fn word() -> impl Strategy<Value = Json> {
    "[q-z]{9,12}".prop_map(Json::from)
}

/// Returns words in the ways in which providers send lists and maps.
fn any_leaf() -> impl Strategy<Value = Json> {
    let pair = (word(), word()).prop_map(|(key, value)| json!({"key": key, "value": value}));
    let note = (word(), word(), word()).prop_map(
        |(title, description, id)| json!({"title": title, "description": description, "_id": id}),
    );
    let tag = (word(), word()).prop_map(|(name, id)| json!({"name": name, "id": id}));
    prop_oneof![
        6 => word(),
        1 => prop::collection::vec(word(), 1..4).prop_map(Json::from),
        1 => prop::collection::vec(pair, 1..3).prop_map(Json::from),
        1 => prop::collection::vec(note, 1..3).prop_map(Json::from),
        1 => prop::collection::vec(tag, 1..3).prop_map(Json::from),
        1 => prop::collection::btree_map("[q-z]{9}", word(), 1..3).prop_map(|map| json!(map)),
    ]
}

/// Returns the words of a leaf, keys that are words, too.
fn words(leaf: &Json) -> Vec<String> {
    let text = leaf.to_string();
    let words = text.split(|c: char| !('q'..='z').contains(&c));
    words.filter(|word| word.len() >= 9).map(str::to_owned).collect()
}

fn body_of(mapper: &Mapper, leaves: &mut Leaves) -> Vec<u8> {
    leaves.insert(mapper.form.id.to_owned(), json!("7"));
    let record = testing::nested(leaves);
    serde_json::to_vec(&json!({ mapper.form.names[0]: [record] })).unwrap()
}

fn nothing_is_lost(mapper: &Mapper, mut leaves: Leaves) {
    let body = body_of(mapper, &mut leaves);
    let lead = testing::columns_of(mapper, &page("stream", &body), &settings());
    let extra: Json =
        lead.get("extra").map_or(Json::Null, |text| serde_json::from_str(text).unwrap());
    let in_column = |word: &str| {
        let mut cells =
            lead.iter().filter(|(column, _)| !column.starts_with('_') && **column != "extra");
        cells.any(|(_, cell)| cell.contains(word))
    };
    for (path, leaf) in &leaves {
        let rest = extra.pointer(&format!("/{}", path.replace('.', "/")));
        let in_extra = |word: &str| rest.is_some_and(|rest| rest.to_string().contains(word));
        let is_volatile = mapper
            .fields
            .volatile()
            .any(|name| *path == name || path.starts_with(&format!("{name}.")));
        for word in words(leaf) {
            assert_eq!(in_column(&word) || in_extra(&word), !is_volatile, "{path}: {word}");
        }
    }
}

fn mapping_twice_is_mapping_once(mapper: &Mapper, mut leaves: Leaves) {
    let body = body_of(mapper, &mut leaves);
    let map = || mapper.map(&page("stream", &body), &settings()).unwrap();
    let (once, twice) = (map(), map());
    assert_eq!(rendered(&once), rendered(&twice));
    assert_eq!(once.leads, twice.leads);
}

fn no_record_stops_a_page(mapper: &Mapper, mut leaves: Leaves, other: &Json) {
    let record = testing::nested(&mut leaves);
    let body = json!({ mapper.form.names[0]: [record, other] }).to_string();
    let mapped = mapper.map(&page("stream", body.as_bytes()), &settings()).unwrap();
    assert_eq!(mapped.places.len() + mapped.rejects.len(), 2);
    assert_eq!(mapped.places.len(), mapped.leads.num_rows());
}

macro_rules! laws {
    ($stream:ident, $mapper:expr) => {
        mod $stream {
            use super::*;

            fn leaves(leaf: impl Strategy<Value = Json>) -> impl Strategy<Value = Leaves> {
                prop::collection::btree_map(any_path($mapper.fields.paths()), leaf, 0..25)
            }

            proptest! {
                #[test]
                fn every_field_is_in_a_column_or_in_extra_or_volatile(
                    leaves in leaves(any_leaf()),
                ) {
                    nothing_is_lost(&$mapper, leaves);
                }

                #[test]
                fn mapping_twice_is_mapping_once(leaves in leaves(any_json())) {
                    super::mapping_twice_is_mapping_once(&$mapper, leaves);
                }

                #[test]
                fn no_record_stops_a_page(leaves in leaves(any_json()), other in any_json()) {
                    super::no_record_stops_a_page(&$mapper, leaves, &other);
                }
            }
        }
    };
}

laws!(leads, whatconverts::leads());
laws!(contacts, whautomate::contacts());
laws!(clients, whautomate::clients());
laws!(chats, convertalk::chats());
laws!(users, convertalk::users());
