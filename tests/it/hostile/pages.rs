//! What is read of a page is what is mapped of it: a page that the one takes and the other does not
//! would be held and never loaded, and rows that the one sees and the other does not would be lost.

use std::collections::BTreeSet;
use std::collections::HashSet;

use leadpipe::clock::SharedClock;
use leadpipe::extract;
use leadpipe::extract::Heard;
use leadpipe::extract::Source;
use leadpipe::ids::ProviderId;
use leadpipe::record::id_hash;
use leadpipe::sandbox::Listing;
use leadpipe::sandbox::Provider;
use leadpipe::transform;
use proptest::prelude::*;
use serde_json::json;

use super::witness::Watched;
use super::witness::source_of;
use crate::support::process::Draw;

/// A provider's side of reading and its side of mapping.
struct Sides {
    source: std::sync::Arc<dyn Source>,
    mapping: Box<dyn transform::Mapping>,
    settings: transform::Settings,
    stream: &'static str,
    body: Vec<u8>,
}

/// What a page shows: the hashes of ids that can be told, and how many rows have none.
type Shown = (BTreeSet<u64>, usize);

impl Sides {
    async fn of(provider: Provider) -> Self {
        let watched = Watched::begin(provider, 3, "").await;
        let job = watched.world.job();
        let source = job.sources.iter().find(|s| s.name.as_str() == source_of(provider)).unwrap();
        let clock: SharedClock = watched.world.clock.clone();
        let sandbox = &watched.world.sandbox;
        let records = |listing| sandbox.records(listing).unwrap().into_iter().take(3);
        let (id, stream, body) = match provider {
            Provider::WhatConverts => {
                let leads: Vec<_> = sandbox.leads().into_iter().take(3).collect();
                let page = json!({
                    "page_number": 1, "leads_per_page": 3, "total_pages": 1, "total_leads": 3,
                    "leads": leads,
                });
                (ProviderId::WhatConverts, "leads", page)
            }
            Provider::Whautomate => {
                let rows: Vec<_> = records(Listing::Clients { account: 0 }).collect();
                (ProviderId::Whautomate, "clients", json!(rows))
            }
            Provider::Convertalk => {
                let rows: Vec<_> = records(Listing::Chats { bot: 0, lead: true }).collect();
                let page = json!({ "success": true, "message": "ok", "data": rows, "code": 200 });
                (ProviderId::Convertalk, "chats", page)
            }
        };
        let body = body.to_string().into_bytes();
        Self {
            source: extract::providers::connect(source, Heard::default(), clock).unwrap(),
            mapping: transform::mapping(id, stream).unwrap(),
            settings: transform::Settings {
                account_id: None,
                currency: Some("USD".to_owned()),
                default_region: Some("US".to_owned()),
                profiles: Default::default(),
                identity_key: transform::IdentityKey::new(b"key"),
            },
            stream,
            body,
        }
    }

    fn read(&self, body: &[u8]) -> Option<Shown> {
        let facts = self.source.read_page(body).ok()?;
        let ids: Vec<u64> = facts.rows.iter().filter_map(|row| row.id).collect();
        Some((ids.iter().copied().collect(), facts.rows.len() - ids.len()))
    }

    fn map(&self, body: &[u8]) -> Option<Shown> {
        let page = transform::Page {
            source: "any",
            stream: self.stream,
            scope_label: "all",
            partition: "all",
            list: "lead",
            run: "0",
            received_at: chrono::DateTime::UNIX_EPOCH,
            location: "nowhere#1",
            body,
            records: None,
        };
        let mapped = self.mapping.map(&page, &self.settings).ok()?;
        let ids = mapped.leads.column_by_name("native_id").unwrap();
        let ids = arrow::array::AsArray::as_string::<i32>(ids).iter().flatten();
        let ids: HashSet<u64> = ids.map(id_hash).collect();
        Some((ids.into_iter().collect(), mapped.rejects.len()))
    }

    /// A page that is read shows the same when it is mapped.
    fn assert_agree(&self, body: &[u8]) {
        let text = String::from_utf8_lossy(body);
        if let Some(read) = self.read(text.as_bytes()) {
            assert_eq!(Some(read), self.map(text.as_bytes()), "{}: {text}", self.stream);
        }
    }
}

/// What may stand anywhere in JSON.
const PIECES: [&str; 34] = [
    "null",
    "[]",
    "{}",
    "\"\"",
    "0",
    "-1",
    "1e999",
    "1.5",
    "123456789012345678901234567890",
    "true",
    "\"\\ud800\"",
    "\"\\u0000\"",
    "\"\u{fffd}\"",
    "[[[[1]]]]",
    "{\"id\":1}",
    "{\"_id\":\"x\"}",
    "{\"lead_id\":1}",
    "[{\"id\":1}]",
    "[{\"_id\":\"y\"}]",
    "[{\"lead_id\":2}]",
    "\"id\":1,",
    "\"_id\":2,",
    "\"lead_id\":3,",
    "\"data\":[],",
    "\"leads\":[],",
    "\"data\":{},",
    "\"data\":null,",
    "\"chats\":[],",
    "\"clients\":[1],",
    ",",
    "{",
    "}",
    "[",
    "]",
];

/// Returns `body` with a few pieces put in, taken out or doubled.
fn mutated(body: &[u8], draw: &mut Draw) -> Vec<u8> {
    let mut body = body.to_vec();
    // Most pieces say more at the ends of a value than within one.
    let is_end = |byte: &u8| b"{}[],:\"".contains(byte);
    for _ in 0..1 + draw.below(3) {
        let ends: Vec<usize> = (0..body.len()).filter(|at| is_end(&body[*at])).collect();
        if ends.len() < 2 {
            break;
        }
        let mut end = || ends[draw.below(ends.len().min(60) as u64) as usize];
        let (mut from, mut to) = (end(), end());
        if from > to {
            std::mem::swap(&mut from, &mut to);
        }
        let from = from + usize::from(draw.below(2) == 0);
        let to = to.max(from);
        let piece = PIECES[draw.below(PIECES.len() as u64) as usize].as_bytes();
        match draw.below(4) {
            0 => drop(body.splice(from..to, piece.iter().copied())),
            1 => drop(body.splice(from..from, piece.iter().copied())),
            2 => drop(body.drain(from..to)),
            _ => {
                let again = body[from..to].to_vec();
                drop(body.splice(from..from, again));
            }
        }
    }
    body
}

fn sides() -> Vec<Sides> {
    let providers = [Provider::WhatConverts, Provider::Whautomate, Provider::Convertalk];
    let runtime = tokio::runtime::Runtime::new().unwrap();
    providers.into_iter().map(|provider| runtime.block_on(Sides::of(provider))).collect()
}

#[test]
fn what_is_read_of_a_page_is_what_is_mapped_of_it() {
    let sides = sides();
    for sides in &sides {
        let (read, mapped) = (sides.read(&sides.body), sides.map(&sides.body));
        assert!(read.as_ref().is_some_and(|(ids, _)| !ids.is_empty()), "{}", sides.stream);
        assert_eq!(read, mapped);
    }
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: u32::try_from(crate::support::number_from("LEADPIPE_PAGES", 400)).unwrap(),
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let ran = runner.run(&any::<u64>(), |seed| {
        for sides in &sides {
            let mut draw = Draw(seed);
            sides.assert_agree(&mutated(&sides.body, &mut draw));
        }
        Ok(())
    });
    ran.unwrap();
}

#[test]
fn pages_of_no_known_form_are_read_as_they_are_mapped() {
    for sides in sides() {
        for body in [
            "",
            "null",
            "[]",
            "{}",
            "1",
            "\"x\"",
            "[null]",
            "[[]]",
            "[{}]",
            "{\"data\":[]}",
            "{\"data\":{}}",
            "{\"data\":{\"data\":[]}}",
            "{\"data\":{\"data\":{\"data\":[]}}}",
            "{\"data\":{\"rows\":[{\"_id\":\"x\",\"id\":1}]}}",
            "{\"leads\":null,\"total_leads\":0}",
            "{\"success\":true}",
            "{\"success\":true,\"data\":null}",
            "{\"success\":true,\"data\":\"\"}",
            "{\"success\":true,\"data\":{\"_id\":\"x\"}}",
            "{\"data\":\"\"}",
            "{\"data\":7}",
            "{\"data\":{\"id\":1}}",
            "{\"id\":1,\"data\":[{\"id\":2}]}",
            "{\"id\":1}",
            "{\"lead_id\":1}",
            "{\"clients\":[{\"id\":1}],\"data\":[{\"id\":2}]}",
            "{\"data\":{\"a\":[1],\"b\":[2]}}",
            "[null,1,25,1,0,[]]",
            "[true,200,null,\"\",[{\"_id\":\"x\"}]]",
            "{\"lead_id\":1,\"leads\":[{\"lead_id\":2}]}",
            "[{\"id\":\"a\\ud800\"},{\"id\":\"a\\udfff\"},{\"id\":1e999},{\"id\":1.5}]",
        ] {
            sides.assert_agree(body.as_bytes());
        }
    }
}
