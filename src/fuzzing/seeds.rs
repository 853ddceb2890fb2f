//! What the mutations of each law begin with: payloads of providers as the fixtures have them, job
//! files, and files of a lake.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// A name for a file, and what is in it.
type Seed = (String, Vec<u8>);

/// Returns the seeds of a law, in the order of their names.
pub(super) fn of(law: &str) -> Vec<Seed> {
    match law {
        "pages" | "mappings" | "files" => payloads(),
        "job" => [files_of("jobs", "toml"), files_of("tests/fixtures/job", "toml")].concat(),
        "stored" => [files_of("tests/fixtures/commit", "json"), named(&STORED)].concat(),
        "ledger" => named(&LEDGERS),
        "archive" => segments(),
        other => panic!("no such law: {other}"),
    }
}

fn payloads() -> Vec<Seed> {
    let providers = ["whatconverts", "whautomate", "convertalk"];
    let files = providers.map(|name| files_of(&format!("tests/fixtures/{name}"), "json"));
    [files.concat(), named(&ANSWERS)].concat()
}

/// Returns the files in a folder of the repository and those below it.
fn files_of(folder: &str, extension: &str) -> Vec<Seed> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    let mut paths: Vec<PathBuf> = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => paths.push(path),
            }
        }
    }
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths.sort();
    assert!(!paths.is_empty(), "{folder}");
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    paths.iter().map(|path| (name(path), fs::read(path).unwrap())).collect()
}

fn named(texts: &[(&str, &str)]) -> Vec<Seed> {
    texts.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect()
}

fn segments() -> Vec<Seed> {
    let lines = named(&[("segment.jsonl", SEGMENT)]);
    let compressed = zstd::encode_all(SEGMENT.as_bytes(), 1).unwrap();
    [lines, vec![("segment.jsonl.zst".to_owned(), compressed)]].concat()
}

/// Answers that no fixture has: refusals, lists in envelopes, values of all kinds.
const ANSWERS: [(&str, &str); 9] = [
    (
        "refusal-texts.json",
        r#"{"message":["Unauthorized","no key"],"error":"none","statusCode":401}"#,
    ),
    (
        "refusal-limit.json",
        r#"{"error":{"message":"Daily limit exceeded"},"success":false,"code":429}"#,
    ),
    (
        "page-empty.json",
        r#"{"page_number":1,"leads_per_page":2500,"total_pages":0,"total_leads":0,"leads":[]}"#,
    ),
    (
        "page-contacts.json",
        r#"[{"id":"bXcgZ2xXbCU","name":"Ann Example","phoneNumber":"12125550100","channel":"Whatsapp",
        "createdAt":"2026-03-01T02:00:00.123Z","updatedAt":"2026-03-02T02:00:00Z","tags":["a","b"],
        "stage":"Lead","customFields":[{"name":"size","value":"4"}],"location":{"id":"1","title":"x"}},
        {"id":2},{"id":null},7,null,"x",[1]]"#,
    ),
    (
        "page-in-data.json",
        r#"{"success":true,"message":"ok","code":200,"data":{"users":[{"_id":"63d9ffa77a8d152facbe2f2f",
        "profile":{"userDetails":{"contact":{"phone":{"prefix":"+1","number":"2125550100"},
        "email":"ann@example.com"},"country":"US"},"notes":[{"title":"a","description":"b"}],
        "attributes":[{"key":"a","value":"b"}]},"lastSeenAt":"2026-03-01T02:00:00Z"}],"total":1}}"#,
    ),
    (
        "page-values.json",
        r#"{"total_leads":"2","page_number":"1","leads":[{"lead_id":"7","sales_value":"251.50",
        "quote_value":"1e3","phone_number":"+1 212 555 0100","date_created":"2026-03-01 02:00:00",
        "additional_fields":"{\"a\":\"b\"}","spam":"no","lead_score":4.5,"country":"United States"},
        {"lead_id":8,"contact_name":"=HYPERLINK(\"x\")","message":"\t-1\r\n@a,\"b\""}]}"#,
    ),
    ("envelope-with-id.json", r#"{"success":true,"code":200,"message":"ok","_id":"63d9ffa77a8d"}"#),
    ("list-in-row.json", r#"{"data":{"id":"7","contacts":[{"id":"8"}]},"page":1}"#),
    ("page-for-people.html", "<html><body>502 Bad Gateway</body></html>"),
];

/// Files of `state/`.
const STORED: [(&str, &str); 4] = [
    (
        "run.json",
        r#"{"version":"1","run":"0199a1b2c3d4e5f60718293a4b5c6d7e","state":"ended","command":"sync",
        "job":"nightly","pid":4711,"host":"etl-1","started_at":"2026-03-01T02:00:00Z",
        "ended_at":"2026-03-01T02:10:00Z","exit_code":0,"summary":{"sources":{"acme":{"rows":7}}}}"#,
    ),
    (
        "probes.json",
        r#"{"version":"1","scopes":{"leads/profile:123":[{"window":{"start":"2025-01-01T00:00:00Z",
        "end":"2026-01-01T00:00:00Z"},"rows":1243,"at":"2026-03-01T02:00:00Z"}]}}"#,
    ),
    (
        "lock",
        r#"{"pid":4711,"host":"etl-1","run":"0199a1b2c3d4e5f60718293a4b5c6d7e","command":"sync",
        "job":"nightly","since":"2026-03-01T02:00:00Z"}"#,
    ),
    ("key", "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n"),
];

const LEDGERS: [(&str, &str); 2] = [
    ("counted.json", super::LEDGER),
    (
        "blocked.json",
        r#"{"version":"1","group":"acme","latest":"2026-03-01T02:00:00Z","blocked":
        {"until":"2026-03-01T03:00:00Z","leased_since":2,"by":"provider"},"minutes":
        {"2026-02-28T23:10:00Z":40,"2026-03-01T01:00:00Z":3},"elsewhere":
        {"counted_in":"2026-03-01T01:00:00Z","requests":2},"pace":{"at":"2026-03-01T01:59:59Z",
        "debt":4000000000,"held":[{"id":5,"worth":200000000,"until":"2026-03-01T02:00:05Z"}],
        "line":[{"ticket":6,"until":"2026-03-01T02:00:02Z"}]},"clock_ahead_seconds":7}"#,
    ),
];

const SEGMENT: &str = concat!(
    r#"{"record":"walk_opened","version":"1","run":"0199a1b2","id":"000000003-0a1b2c3d4e5f","scope":"#,
    r#"{"source":"acme","stream":"leads","partition":"profile:1"},"window":{"start":"#,
    r#""2026-01-01T00:00:00Z","end":"2026-02-01T00:00:00Z"},"page_size":10,"opened_at":"#,
    r#""2026-03-01T02:00:00Z","reason":"new_time"}"#,
    "\n",
    r#"{"record":"page","run":"0199a1b2","header":{"page":1,"size":10,"round":0,"request":"/leads","#,
    r#""status":200,"received_at":"2026-03-01T02:00:01Z"},"body":{"leads":[{"lead_id":1}]}}"#,
    "\n",
    r#"{"record":"page","run":"0199a1b2","header":{"page":2,"size":5,"round":1,"request":"/leads","#,
    r#""status":200,"received_at":"2026-03-01T02:00:02Z"},"body_text":"{\n\"leads\":[]}"}"#,
    "\n",
    r#"{"record":"hole","offset":5,"rows":1,"why":"status 500"}"#,
    "\n",
    r#"{"record":"walk_closed","closed_at":"2026-03-01T02:00:03Z","first_total":1,"last_total":1,"#,
    r#""distinct":1,"rejects":0,"holes":1,"proven":true}"#,
    "\n",
);

#[test]
fn the_seeds_are_what_they_stand_for() {
    let read = |law: &str, name: &str| {
        of(law).into_iter().find(|(seed, _)| seed == name).map(|(_, bytes)| bytes).unwrap()
    };
    let mapped = |provider, stream, name: &str| {
        let mapped = super::mapped(provider, stream, &read("mappings", name)).unwrap();
        mapped.leads.num_rows()
    };
    use crate::ids::ProviderId;
    assert_eq!(mapped(ProviderId::WhatConverts, "leads", "page-values.json"), 2);
    assert_eq!(mapped(ProviderId::Whautomate, "contacts", "page-contacts.json"), 2);
    assert_eq!(mapped(ProviderId::Convertalk, "users", "page-in-data.json"), 1);
    assert_eq!(crate::archive::records_in(&read("archive", "segment.jsonl.zst")).unwrap().len(), 5);
    assert!(crate::run::probes_in(&read("stored", "probes.json")).is_ok());
    assert!(serde_json::from_slice::<crate::commit::Holder>(&read("stored", "lock")).is_ok());
    assert!(crate::commit::read_as_any(&read("stored", "v1.json")).is_ok());
}
