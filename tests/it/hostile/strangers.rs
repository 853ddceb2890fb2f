//! What strangers write comes out as rows that everybody can read.

use leadpipe::sandbox::Edit;
use leadpipe::sandbox::Fault;
use leadpipe::sandbox::Provider;
use serde_json::Map;
use serde_json::json;

use super::witness::Watched;
use crate::support::key;

/// Every CSV file of the lake, read: all its rows.
fn csv_rows(watched: &Watched) -> Vec<csv::StringRecord> {
    let mut rows = Vec::new();
    for source in watched.world.head().sources.values() {
        for part in &source.parts {
            let file = part.csv.as_ref().unwrap();
            let bytes = std::fs::read(watched.world.folder.path().join("lake").join(&file.path));
            let bytes = bytes.unwrap();
            assert!(!bytes.contains(&0), "a NUL in {}", file.path);
            let mut reader = csv::Reader::from_reader(bytes.as_slice());
            rows.extend(reader.records().map(Result::unwrap));
        }
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn text_of_any_kind_is_read_back_from_parquet_and_csv() {
    let mut watched = Watched::begin(Provider::WhatConverts, 4, "").await;
    watched.world.job.push_str("format = \"both\"\n");
    let ids: Vec<u64> = watched.world.sandbox.lead_ids().into_iter().map(|(_, id)| id).collect();
    let texts = [
        "a\u{0}b",
        "\u{1b}[2J\u{7}",
        "line\r\nline",
        "\"quoted\", and; more",
        "=1+1",
        "\u{202e}sdrawkcab",
        "\u{fffd}",
        "\u{10ffff}",
        "', --",
    ];
    for (id, text) in ids.iter().zip(texts) {
        let set = Map::from_iter([("contact_name".to_owned(), json!(text))]);
        watched.world.sandbox.edit(*id, Edit::Set(set)).unwrap();
    }
    let member = r#""strange\ud800":["\udfff",1e999,-0.10,{"a":{"a":{"a":1}}}]"#;
    let fault = Fault::Member { json: member.to_owned() };
    let mut fail_next = vec![fault; 100];
    fail_next.insert(0, Fault::Stall { ms: 0 });
    watched.behave(|behaviour| behaviour.fail_next = fail_next);
    let ran = watched.sync("strangers").await;
    assert_eq!((ran.exit, ran.source.rejects), (0, 0), "{:?}", ran.source);
    let names = watched.world.column("full_name");
    for (id, text) in ids.iter().zip(texts) {
        assert_eq!(names[&key(*id)].as_deref(), Some(text.trim()), "{text:?}");
    }
    assert_eq!(csv_rows(&watched).len(), watched.world.rows().len());
    let extra = watched.world.column("extra");
    let told = extra.values().flatten().filter(|text| text.contains("strange\u{fffd}"));
    let told: Vec<_> = told.collect();
    assert!(told.iter().all(|text| text.contains("[\"\u{fffd}\",1e999,-0.10,")), "{told:?}");
    assert!(!told.is_empty());
}
