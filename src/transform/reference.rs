//! Single values through the mappings, against what programs that are not ours make of them.
//!
//! The cases lie in `tests/fixtures/values`, beside the scripts that made them.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use serde_json::json;

use crate::ids::ProviderId;
use crate::transform::Settings;
use crate::transform::mapping;
use crate::transform::testing;
use crate::transform::testing::Columns;
use crate::transform::testing::page;

/// Maps a page of one record of a stream.
fn mapped(provider: ProviderId, stream: &str, record: &Json, region: &str) -> Columns {
    let name = if provider == ProviderId::WhatConverts { "leads" } else { "data" };
    let body = json!({ name: [record] }).to_string();
    let region = Some(region.to_owned()).filter(|region| !region.is_empty());
    let settings = Settings { default_region: region, ..testing::settings() };
    let mapping = mapping(provider, stream).unwrap();
    testing::columns_of(&*mapping, &page(stream, body.as_bytes()), &settings)
}

fn lead(record: &Json) -> Columns {
    mapped(ProviderId::WhatConverts, "leads", record, "")
}

fn client(record: &Json) -> Columns {
    mapped(ProviderId::Whautomate, "clients", record, "")
}

fn chat(record: &Json) -> Columns {
    mapped(ProviderId::Convertalk, "chats", record, "")
}

fn text(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/values");
    std::fs::read_to_string(folder.join(name)).unwrap()
}

/// Returns the cases of a file, of which there must be at least `count`.
fn cases<T: DeserializeOwned>(name: &str, count: usize) -> Vec<T> {
    let text = text(name);
    let read = csv::Reader::from_reader(text.as_bytes()).into_deserialize().collect();
    let cases: Vec<T> = Result::unwrap(read);
    assert!(cases.len() >= count, "{name}: {}", cases.len());
    cases
}

/// Fails with a list of all cases in which `given` is not `expected`.
fn check<C: std::fmt::Debug>(cases: &[C], is_right: impl Fn(&C) -> Option<String>) {
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|case| is_right(case).map(|given| format!("{given:?} from {case:?}")))
        .collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// Returns what a column holds, where that is not `expected`; blank is null.
fn differs(lead: &Columns, column: &str, expected: &str) -> Option<String> {
    let held = lead.get(column).map_or("", String::as_str);
    (held != expected).then(|| held.to_owned())
}

#[derive(Debug, Deserialize)]
struct Phone {
    form: String,
    code: String,
    number: String,
    country: String,
    region: String,
    e164: String,
    why: String,
}

impl Phone {
    /// Returns the leads of all records that give a number in this form.
    fn leads(&self) -> Vec<Columns> {
        let (region, number) = (&*self.region, &*self.number);
        let map = |provider, stream, record| mapped(provider, stream, &record, region);
        let details = |phone: Json| {
            let user = json!({"country": self.country, "contact": {"phone": phone}});
            json!({"_id": "7", "profile": {"userDetails": user}})
        };
        match self.form.as_str() {
            "written" => {
                let record = json!({"lead_id": 7, "country": self.country, "phone_number": number});
                vec![map(ProviderId::WhatConverts, "leads", record)]
            }
            "kept" => {
                let contact = json!({"id": "7", "phoneNumber": number});
                let user = details(json!({"number": number}));
                vec![
                    map(ProviderId::Whautomate, "contacts", contact),
                    map(ProviderId::Convertalk, "users", user),
                ]
            }
            "parts" => {
                let chat = details(json!({"prefix": self.code, "number": number}));
                let mut leads = vec![map(ProviderId::Convertalk, "chats", chat)];
                // A client has no country.
                if self.country.is_empty() {
                    let client = json!({"id": "7", "countryCode": self.code, "phone": number});
                    leads.push(map(ProviderId::Whautomate, "clients", client));
                }
                leads
            }
            other => panic!("no such form: {other}"),
        }
    }
}

#[test]
fn telephone_numbers_are_what_the_reference_says() {
    let cases: Vec<Phone> = cases("phones.csv", 700);
    assert!(cases.iter().all(|case| !case.why.is_empty()));
    check(&cases, |case| case.leads().iter().find_map(|lead| differs(lead, "phone", &case.e164)));
}

#[derive(Debug, Deserialize)]
struct Email {
    text: String,
    email: String,
}

#[test]
fn addresses_are_what_the_reference_says() {
    let cases: Vec<Email> = cases("emails.csv", 50);
    check(&cases, |case| {
        let details = json!({"contact": {"email": case.text}});
        let record = json!({"_id": "7", "profile": {"userDetails": details}});
        differs(&chat(&record), "email", &case.email)
    });
    check(&cases, |case| {
        differs(&client(&json!({"id": "7", "email": case.text})), "email", &case.email)
    });
}

#[derive(Debug, Deserialize)]
struct Country {
    text: String,
    country: String,
}

#[test]
fn countries_are_what_the_reference_says() {
    let cases: Vec<Country> = cases("countries.csv", 1_000);
    check(&cases, |case| {
        let record = json!({"_id": "7", "profile": {"userDetails": {"country": case.text}}});
        differs(&chat(&record), "country", &case.country)
    });
    check(&cases, |case| {
        differs(&lead(&json!({"lead_id": 7, "country": case.text})), "country", &case.country)
    });
}

#[derive(Debug, Deserialize)]
struct Time {
    text: String,
    time: String,
}

#[test]
fn times_are_what_the_reference_says() {
    let cases: Vec<Time> = cases("times.csv", 40);
    check(&cases, |case| {
        let record = json!({"id": "7", "updatedAt": case.text, "startTime": case.text});
        let lead = client(&record);
        // A local time that claims to be in UTC goes to no column: it stays as it is.
        let extra: BTreeMap<String, Json> =
            lead.get("extra").map(|text| serde_json::from_str(text).unwrap()).unwrap_or_default();
        let kept = extra.get("startTime").and_then(Json::as_str).unwrap_or_default();
        assert_eq!(kept, case.text);
        differs(&lead, "updated_at", &case.time)
    });
    check(&cases, |case| {
        differs(
            &chat(&json!({"_id": "7", "lastSeenAt": case.text})),
            "last_activity_at",
            &case.time,
        )
    });
}

#[derive(Debug, Deserialize)]
struct Amount {
    text: String,
    amount: String,
}

#[test]
fn amounts_are_what_the_reference_says() {
    let cases: Vec<Amount> = cases("amounts.csv", 35);
    check(&cases, |case| {
        differs(
            &lead(&json!({"lead_id": 7, "sales_value": case.text})),
            "sales_value",
            &case.amount,
        )
    });
}

#[derive(Debug, Deserialize)]
struct Nested {
    field: String,
    given: Json,
    says: Json,
}

#[test]
fn lists_and_maps_as_text_are_what_the_reference_says() {
    let cases: Vec<Nested> = serde_json::from_str(&text("nested.json")).unwrap();
    assert!(cases.len() >= 60, "{}", cases.len());
    check(&cases, |case| {
        let column = if case.field == "tags" { "tags" } else { "custom_fields" };
        let streams = [(ProviderId::Whautomate, "contacts"), (ProviderId::Whautomate, "clients")];
        streams.iter().find_map(|(provider, stream)| {
            let record = json!({"id": "7", &case.field: case.given});
            let lead = mapped(*provider, stream, &record, "");
            let held: Json = serde_json::from_str(&lead[column]).unwrap();
            (held != case.says || lead.contains_key("extra")).then(|| lead[column].clone())
        })
    });
}
