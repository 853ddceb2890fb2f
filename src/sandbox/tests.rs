//! The sandbox over loopback, as its clients meet it.

use std::collections::BTreeMap;
use std::collections::HashSet;

use serde_json::Value;
use serde_json::json;

use super::*;
use crate::clock::ManualClock;

mod convertalk;
mod everywhere;
mod whautomate;

/// A sandbox whose clock stands where the history ends, and a client of it.
struct Stand {
    sandbox: Sandbox,
    clock: Arc<ManualClock>,
    client: reqwest::Client,
}

/// What came back: status, headers, body.
struct Got {
    status: u16,
    headers: reqwest::header::HeaderMap,
    body: Vec<u8>,
}

impl Got {
    async fn read(request: reqwest::RequestBuilder) -> reqwest::Result<Self> {
        let answer = request.send().await?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Ok(Self { status, headers, body: answer.bytes().await?.to_vec() })
    }

    /// Returns the rows of a page, bare or in `data`.
    fn rows(&self) -> Vec<Value> {
        let page = self.json();
        page.as_array().or(page["data"].as_array()).unwrap().clone()
    }

    /// Returns a text of each row.
    fn texts(&self, name: &str) -> Vec<String> {
        self.rows().iter().map(|row| row[name].as_str().unwrap().to_owned()).collect()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn ids(&self) -> Vec<u64> {
        let page = self.json();
        page["leads"].as_array().unwrap().iter().map(|l| l["lead_id"].as_u64().unwrap()).collect()
    }
}

impl Stand {
    async fn new(settings: Settings) -> Self {
        // Another test may have installed it.
        rustls::crypto::ring::default_provider().install_default().ok();
        let clock = Arc::new(ManualClock::new(settings.now));
        let sandbox = Sandbox::start(settings, 0, clock.clone()).await.unwrap();
        let redirects = reqwest::redirect::Policy::none();
        let client = reqwest::Client::builder().redirect(redirects).no_proxy().build().unwrap();
        Self { sandbox, clock, client }
    }

    async fn small() -> Self {
        Self::new(Settings { leads: 600, ..Settings::default() }).await
    }

    async fn try_get(&self, path: &str, key: (String, String)) -> reqwest::Result<Got> {
        let url = format!("{}{path}", self.sandbox.url());
        Got::read(self.client.get(url).basic_auth(key.0, Some(key.1))).await
    }

    async fn get(&self, path: &str) -> Got {
        self.try_get(path, self.sandbox.master_key()).await.unwrap()
    }

    async fn leads(&self, query: &str) -> Got {
        self.get(&format!("/api/v1/leads?{query}")).await
    }

    fn behave(&self, behaviour: Value) {
        self.sandbox.behave(serde_json::from_value(behaviour).unwrap());
    }
}

#[tokio::test]
async fn the_pages_show_each_lead_once_in_either_order() {
    let stand = Stand::small().await;
    let truth: HashSet<u64> = stand.sandbox.lead_ids().into_iter().map(|(_, id)| id).collect();
    for order in ["asc", "desc"] {
        let mut seen = Vec::new();
        let mut page = 1;
        loop {
            let query = format!("leads_per_page=70&page_number={page}&order={order}");
            let got = stand.leads(&query).await;
            seen.extend(got.ids());
            if page >= got.json()["total_pages"].as_u64().unwrap() {
                break;
            }
            page += 1;
        }
        assert_eq!(seen.len(), truth.len());
        assert_eq!(seen.iter().copied().collect::<HashSet<_>>(), truth);
    }
}

#[tokio::test]
async fn the_same_settings_give_the_same_world() {
    let (one, other) = (Stand::small().await, Stand::small().await);
    assert_eq!(one.sandbox.leads(), other.sandbox.leads());
    assert_eq!(one.sandbox.master_key(), other.sandbox.master_key());
    let settings = Settings { seed: 2, leads: 600, ..Settings::default() };
    assert_ne!(Stand::new(settings).await.sandbox.leads(), one.sandbox.leads());
}

#[tokio::test]
async fn as_time_passes_leads_come_and_change_unless_the_world_is_still() {
    let stand = Stand::new(Settings { leads: 5_000, ..Settings::default() }).await;
    let before = stand.sandbox.leads();
    stand.clock.advance(TimeDelta::days(2));
    let after = stand.sandbox.leads();
    let held = |lead: &&Value| before.iter().any(|old| old["lead_id"] == lead["lead_id"]);
    assert!(after.iter().filter(|lead| !held(lead)).count() > 3);
    assert!(after.iter().filter(held).any(|lead| !before.contains(lead)));

    let still = Stand::new(Settings { leads: 600, still: true, ..Settings::default() }).await;
    let before = still.sandbox.leads();
    still.sandbox.advance(TimeDelta::days(30));
    assert_eq!(still.sandbox.leads(), before);
}

#[tokio::test]
async fn a_range_holds_both_its_ends_and_no_more_than_four_hundred_days() {
    let stand = Stand::small().await;
    let leads = stand.sandbox.leads();
    let dated = leads.iter().map(|lead| lead["date_created"].as_str().unwrap());
    let at = dated.rev().find(|at| at.ends_with('Z')).unwrap();
    let got = stand.leads(&format!("start_date={at}&end_date={at}")).await;
    assert!(got.ids().len() == 1 || got.ids().len() == 2);
    let over = "start_date=2025-01-01T00:00:00Z&end_date=2026-02-05T00:00:01Z";
    assert_eq!(stand.leads(over).await.status, 410);
    stand.behave(json!({ "over_range": "cut" }));
    assert_eq!(stand.leads(over).await.status, 200);
    stand.behave(json!({ "max_range_days": 399, "over_range": { "refuse": { "status": 400 } } }));
    let exact = "start_date=2025-01-01T00:00:00Z&end_date=2026-02-05T00:00:00Z";
    assert_eq!(stand.leads(exact).await.status, 400);
}

#[tokio::test]
async fn a_profile_key_sees_its_profile_only_and_no_accounts() {
    let stand = Stand::small().await;
    let ids = stand.sandbox.profile_ids();
    let key = stand.sandbox.profile_key(ids[1]).unwrap();
    let path = format!("/api/v1/leads?profile_id={}&leads_per_page=2500", ids[0]);
    let got = stand.try_get(&path, key.clone()).await.unwrap().json();
    let leads = got["leads"].as_array().unwrap();
    assert!(!leads.is_empty());
    assert!(leads.iter().all(|lead| lead["profile_id"] == ids[1]));
    assert!(leads.iter().all(|lead| lead.get("custom_fields").is_some()));
    assert_eq!(stand.try_get("/api/v1/accounts", key).await.unwrap().status, 401);
}

#[tokio::test]
async fn custom_fields_come_with_one_profile_only() {
    let stand = Stand::small().await;
    let lead = stand.leads("leads_per_page=1").await.json()["leads"][0].clone();
    assert!(lead.get("custom_fields").is_none() && lead.get("field_mappings").is_none());
    let profile = stand.sandbox.profile_ids()[0];
    let query = format!("leads_per_page=2500&profile_id={profile}");
    let page = stand.leads(&query).await.json();
    let truth = stand.sandbox.leads();
    for lead in page["leads"].as_array().unwrap() {
        assert!(truth.contains(lead));
    }
}

#[tokio::test]
async fn accounts_nest_their_profiles() {
    let stand = Stand::small().await;
    let page = stand.get("/api/v1/accounts?accounts_per_page=250").await.json();
    assert_eq!(page["total_accounts"], 4);
    let accounts = page["accounts"].as_array().unwrap();
    let nested: usize = accounts.iter().map(|a| a["profiles"].as_array().unwrap().len()).sum();
    assert_eq!(nested, 9);
    let id = accounts[0]["account_id"].as_u64().unwrap();
    let profiles = stand.get(&format!("/api/v1/accounts/{id}/profiles")).await.json();
    assert_eq!(profiles["total_profiles"], accounts[0]["profiles"].as_array().unwrap().len());
    let one = stand.get(&format!("/api/v1/accounts/{id}")).await.json();
    assert_eq!(one["accounts"][0], accounts[0]);
    stand.behave(json!({ "nested_profiles": false }));
    let flat = stand.get("/api/v1/accounts").await.json();
    assert!(flat["accounts"][0].get("profiles").is_none());
}

#[tokio::test]
async fn errors_are_those_of_the_samples() {
    let stand = Stand::small().await;
    let url = format!("{}/api/v1/leads", stand.sandbox.url());
    let got = stand.client.get(&url).send().await.unwrap();
    assert_eq!(got.status(), 401);
    assert_eq!(got.text().await.unwrap(), r#"{"error_message":"Authentication not provided."}"#);
    let wrong = ("1-0".to_owned(), "0".to_owned());
    let got = stand.try_get("/api/v1/leads", wrong).await.unwrap();
    assert_eq!(got.json(), json!({ "error_message": "Authentication failed." }));
    let got = stand.get("/api/v1/leads/5").await;
    assert_eq!((got.status, got.json()), (400, json!({ "error_message": "Invalid lead ID." })));
    let got = stand.get("/api/v1/profiles").await;
    assert_eq!(got.status, 404);
    assert!(got.body.starts_with(b"<!DOCTYPE html>"));
    let got = stand.leads("account_id=1,2").await;
    let text = "Invalid account_id parameter, please use a numeric value";
    assert_eq!((got.status, got.json()), (410, json!({ "error_message": text })));
}

#[tokio::test]
async fn a_single_lead_comes_in_a_list_or_bare() {
    let stand = Stand::small().await;
    let (_, id) = stand.sandbox.lead_ids()[7];
    let path = format!("/api/v1/leads/{id}");
    assert_eq!(stand.get(&path).await.ids(), [id]);
    stand.behave(json!({ "bare_single_lead": true }));
    assert_eq!(stand.get(&path).await.json()["lead_id"], id);
}

#[tokio::test]
async fn filters_divide_the_leads() {
    let stand = Stand::new(Settings { leads: 5_000, ..Settings::default() }).await;
    let total =
        async |query: &str| stand.leads(query).await.json()["total_leads"].as_u64().unwrap();
    let all = total("").await;
    for (name, values) in [
        ("spam", ["true", "false"]),
        ("duplicate", ["true", "false"]),
        ("lead_status", ["unique", "repeat"]),
    ] {
        let one = total(&format!("{name}={}", values[0])).await;
        let other = total(&format!("{name}={}", values[1])).await;
        assert!(one + other == all && one > 0 && other > 0, "{name}: {one} + {other} = {all}");
    }
    let spam = total("spam=true").await;
    stand.behave(json!({ "spam_by_default": false }));
    assert_eq!(total("").await, all - spam);
    assert!(total("lead_type=phone_call").await > all / 4);
}

#[tokio::test]
async fn the_quota_counts_every_request_of_a_key_over_a_rolling_day() {
    let stand = Stand::new(Settings { leads: 50, per_day: Some(3), ..Settings::default() }).await;
    stand.behave(
        json!({ "over_quota": "retry_after", "fail_next": [{ "status": { "status": 500 } }] }),
    );
    assert_eq!(stand.leads("").await.status, 500);
    stand.clock.advance(TimeDelta::hours(1));
    assert_eq!(stand.leads("").await.status, 200);
    assert_eq!(stand.leads("").await.status, 200);
    let over = stand.leads("").await;
    assert_eq!((over.status, over.headers["retry-after"].to_str().unwrap()), (429, "82800"));
    let profile = stand.sandbox.profile_ids()[0];
    let key = stand.sandbox.profile_key(profile).unwrap();
    assert_eq!(stand.try_get("/api/v1/leads", key).await.unwrap().status, 200);
    stand.clock.advance(TimeDelta::hours(23));
    assert_eq!(stand.leads("").await.status, 200);
    stand.behave(json!({ "over_quota": { "status": { "status": 200 } } }));
    assert!(stand.leads("").await.json()["error_message"].is_string());
}

#[tokio::test]
async fn every_request_is_logged() {
    let stand = Stand::small().await;
    stand.leads("leads_per_page=5").await;
    stand.leads("lead_type=fax").await;
    let log = stand.sandbox.requests();
    assert_eq!(stand.leads("").await.headers["date"], "Sun, 01 Nov 2026 00:00:00 GMT");
    let seen: Vec<_> = log.iter().map(|r| (r.number, r.query.as_str(), r.status)).collect();
    assert_eq!(seen, [(1, "leads_per_page=5", 200), (2, "lead_type=fax", 410)]);
    assert!(log.iter().all(|r| r.key == KeyKind::Master && r.path == "/api/v1/leads"));
    assert!(log.iter().all(|r| r.at_once == 1 && r.at == stand.sandbox.now()));
    stand.sandbox.clear_requests();
    assert!(stand.sandbox.requests().is_empty());
}

#[tokio::test]
async fn each_switch_of_the_envelope_shows() {
    let stand = Stand::small().await;
    let first = stand.leads("leads_per_page=10").await.ids();
    let page = async |behaviour: Value, query: &str| {
        stand.behave(behaviour);
        stand.leads(query).await
    };
    let two = "leads_per_page=10&page_number=2";
    let got = page(json!({ "page_number": "ignored_echo_asked" }), two).await;
    assert_eq!((got.ids(), got.json()["page_number"].as_u64()), (first.clone(), Some(2)));
    let got = page(json!({ "page_number": "ignored_echo_one" }), two).await;
    assert_eq!((got.ids(), got.json()["page_number"].as_u64()), (first, Some(1)));
    let got = page(json!({ "max_page_size": 4 }), two).await.json();
    assert_eq!(got["leads_per_page"], 4);
    let got = page(json!({ "max_page_size": 4, "over_page_size": "clamp_echo_asked" }), two).await;
    assert_eq!((got.ids().len(), got.json()["leads_per_page"].as_u64()), (4, Some(10)));
    let got = page(json!({ "max_page_size": 4, "over_page_size": "refuse" }), two).await;
    assert_eq!(got.status, 410);
    let got = page(json!({ "totals": "strings" }), two).await.json();
    assert!(got["total_leads"].is_string() && got["total_pages"].is_string());
    let got = page(json!({ "totals": "omitted" }), two).await.json();
    assert!(got.get("total_leads").is_none() && got.get("total_pages").is_none());
    let far = "leads_per_page=10&page_number=1000";
    assert!(page(json!({}), far).await.ids().is_empty());
    assert_eq!(page(json!({ "past_end": "not_found" }), far).await.status, 404);
    assert!(!page(json!({ "past_end": "last_page" }), far).await.ids().is_empty());
    let got = page(json!({ "empty": true, "empty_pages": "null" }), two).await.json();
    assert_eq!((&got["total_pages"], &got["leads"]), (&Value::Null, &json!([])));
    let got = page(json!({ "empty": true, "empty_rows_missing": true }), "").await.json();
    assert!(got.get("leads").is_none());
    let range = "start_date=2026-10-01T00:00:00Z&end_date=2026-10-02T00:00:00Z";
    let few = page(json!({}), range).await.json()["total_leads"].as_u64();
    let all = page(json!({ "date_parameters": "date_start_end" }), range).await.json();
    assert!(all["total_leads"].as_u64() > few);
    let off = page(json!({ "total_offset": 3 }), range).await.json()["total_leads"].as_u64();
    assert_eq!(off, few.map(|few| few + 3));
}

#[tokio::test]
async fn accidents_come_in_the_order_asked_for_and_then_stop() {
    let stand = Stand::small().await;
    stand.behave(json!({ "fail_next": [
        "reset", "close", "cut_body", "cut_json", "html", "error_inside",
        { "status": { "status": 503 } }, { "slow_down": { "retry_after": 7 } },
        { "redirect": { "to": "http://127.0.0.1:9/" } }, { "stall": { "ms": 1 } },
    ] }));
    let key = stand.sandbox.master_key();
    for _ in 0..3 {
        assert!(stand.try_get("/api/v1/leads", key.clone()).await.is_err());
    }
    let cut = stand.leads("").await;
    assert!(cut.status == 200 && serde_json::from_slice::<Value>(&cut.body).is_err());
    assert!(stand.leads("").await.body.starts_with(b"<!DOCTYPE html>"));
    assert!(stand.leads("").await.json()["error_message"].is_string());
    assert_eq!(stand.leads("").await.status, 503);
    assert_eq!(stand.leads("").await.headers["retry-after"], "7");
    assert_eq!(stand.leads("").await.headers["location"], "http://127.0.0.1:9/");
    for _ in 0..2 {
        assert_eq!(stand.leads("").await.ids().len(), 25);
    }
    let log = stand.sandbox.requests();
    assert_eq!((log.len(), log[0].status, &log[0].fault), (11, 0, &Some(Fault::Reset)));
}

#[tokio::test]
async fn accidents_by_chance_are_the_same_for_the_same_seed() {
    let rate =
        json!({ "faults": [{ "fault": { "status": { "status": 502 } }, "per_mille": 300 }] });
    let mut runs = Vec::new();
    for _ in 0..2 {
        let stand = Stand::new(Settings { leads: 10, ..Settings::default() }).await;
        stand.behave(rate.clone());
        let mut statuses = Vec::new();
        for _ in 0..40 {
            statuses.push(stand.leads("").await.status);
        }
        runs.push(statuses);
    }
    assert_eq!(runs[0], runs[1]);
    assert!((4..25).contains(&runs[0].iter().filter(|status| **status == 502).count()));
}

#[tokio::test]
async fn a_poisoned_lead_breaks_what_contains_it() {
    let stand = Stand::small().await;
    let ids = stand.leads("leads_per_page=10").await.ids();
    stand.behave(json!({ "poison": [ids[3]] }));
    assert_eq!(stand.leads("leads_per_page=10").await.status, 500);
    assert_eq!(stand.leads("leads_per_page=1&page_number=4").await.status, 500);
    assert_eq!(stand.leads("leads_per_page=1&page_number=3").await.ids(), [ids[2]]);
    assert_eq!(stand.leads("leads_per_page=3").await.ids(), ids[..3]);
}

#[tokio::test]
async fn answers_are_compressed_when_both_sides_want_it() {
    let stand = Stand::small().await;
    let plain = stand.leads("leads_per_page=50").await;
    stand.behave(json!({ "gzip": true }));
    // The client undoes the compression, and takes the header off with it.
    let packed = stand.leads("leads_per_page=50").await;
    assert_eq!(packed.body, plain.body);
    assert!(plain.headers.contains_key("content-length"));
    assert!(!packed.headers.contains_key("content-length"));
}

#[tokio::test]
async fn leads_can_be_edited_and_moved_and_added_also_between_two_requests() {
    let stand = Stand::small().await;
    let (_, id) = stand.sandbox.lead_ids()[100];
    let to = stand.sandbox.profile_ids()[8];
    let path = format!("/api/v1/leads/{id}");
    let fields = json!({ "notes": "changed", "custom_fields": { "a": "b" } });
    stand.sandbox.edit(id, Edit::Set(fields.as_object().unwrap().clone())).unwrap();
    stand.sandbox.edit(id, Edit::Profile(to)).unwrap();
    stand.sandbox.edit(id, Edit::Undated).unwrap();
    let lead = stand.get(&path).await.json()["leads"][0].clone();
    assert_eq!((&lead["notes"], &lead["profile_id"]), (&json!("changed"), &json!(to)));
    assert_eq!(lead["last_updated"], "2026-11-01T00:00:00Z");
    assert!(lead.get("date_created").is_none() && lead.get("custom_fields").is_none());

    let now = stand.sandbox.now();
    let added = stand.sandbox.insert(to, now - TimeDelta::days(900)).unwrap();
    assert_eq!(stand.get(&format!("/api/v1/leads/{added}")).await.ids(), [added]);

    let first = stand.leads("leads_per_page=2").await.ids();
    stand.behave(json!({ "script": [
        { "after_requests": 1, "lead_id": first[0], "edit": "vanish" },
        { "after_requests": 1, "lead_id": 500_000_000, "edit":
            { "insert": { "profile_id": to, "created_at": now - TimeDelta::days(1_000) } } },
    ] }));
    assert_eq!(stand.leads("leads_per_page=2").await.ids(), first);
    assert_eq!(stand.leads("leads_per_page=2").await.ids()[0], first[1]);
    assert_eq!(stand.get("/api/v1/leads/500000000").await.ids(), [500_000_000]);
}

#[tokio::test]
async fn other_processes_steer_it_through_the_administration() {
    let stand = Stand::small().await;
    let keys = stand.get("/sandbox/keys").await.json();
    assert_eq!(keys["master"]["token"], stand.sandbox.master_key().0);
    assert_eq!(keys["profiles"].as_array().unwrap().len(), 9);
    let truth = stand.get("/sandbox/leads").await.json();
    assert_eq!(truth.as_array().unwrap(), &stand.sandbox.leads());
    let pairs = stand.get("/sandbox/leads?ids=1").await.json();
    let pairs: Vec<(u64, u64)> = serde_json::from_value(pairs).unwrap();
    assert_eq!(pairs, stand.sandbox.lead_ids());
    let post = async |path: &str, body: Value| {
        let url = format!("{}{path}", stand.sandbox.url());
        let post = stand.client.post(url).header("content-type", "application/json");
        post.body(body.to_string()).send().await.unwrap().status().as_u16()
    };
    let before = stand.sandbox.now();
    assert_eq!(post("/sandbox/clock", json!({ "advance_seconds": 60 })).await, 200);
    assert_eq!(stand.sandbox.now() - before, TimeDelta::seconds(60));
    assert_eq!(post("/sandbox/behaviour", json!({ "past_end": "not_found" })).await, 204);
    assert_eq!(stand.leads("page_number=900").await.status, 404);
    let edit = json!({ "lead_id": pairs[0].1, "edit": "vanish" });
    assert_eq!(post("/sandbox/edit", edit).await, 204);
    assert!(!stand.sandbox.lead_ids().contains(&pairs[0]));
    assert_eq!(post("/sandbox/edit", json!({ "lead_id": 1, "edit": "vanish" })).await, 400);
    let log = stand.get("/sandbox/requests").await.json();
    assert_eq!(log.as_array().unwrap().len(), 1);
    stand.sandbox.stop().await;
}

#[tokio::test]
async fn a_deleted_profile_takes_its_leads_along() {
    let stand = Stand::small().await;
    let ids = stand.sandbox.profile_ids();
    stand.behave(json!({ "without_profiles": [ids[0]] }));
    assert!(stand.sandbox.lead_ids().iter().all(|(profile, _)| *profile != ids[0]));
    let accounts = stand.get("/api/v1/accounts").await.json().to_string();
    assert!(!accounts.contains(&ids[0].to_string()) && accounts.contains(&ids[1].to_string()));
    assert_eq!(stand.leads(&format!("profile_id={}", ids[0])).await.json()["total_leads"], 0);
    let key = stand.sandbox.profile_key(ids[0]).unwrap();
    assert_eq!(stand.try_get("/api/v1/leads", key).await.unwrap().status, 401);
}

#[tokio::test]
async fn the_way_of_the_customer_is_ignored_refused_or_served() {
    let stand = Stand::small().await;
    let asked = "leads_per_page=1&customer_journey=true";
    assert!(stand.leads(asked).await.json()["leads"][0].get("customer_journey").is_none());
    stand.behave(json!({ "journey": "refused" }));
    assert_eq!(stand.leads(asked).await.status, 410);
    stand.behave(json!({ "journey": "served" }));
    assert_eq!(stand.leads(asked).await.json()["leads"][0]["customer_journey"][1]["type"], "lead");
}

#[tokio::test]
async fn a_sandbox_of_no_leads_answers_with_none() {
    let stand = Stand::new(Settings { leads: 0, ..Settings::default() }).await;
    let page = stand.leads("").await.json();
    assert_eq!((&page["total_pages"], &page["leads"]), (&json!(0), &json!([])));
    assert_eq!(stand.get("/sandbox/leads").await.json(), json!([]));
}

#[tokio::test]
async fn equal_creation_times_keep_their_order_unless_told_otherwise() {
    let stand = Stand::small().await;
    let profile = stand.sandbox.profile_ids()[0];
    let at = stand.sandbox.now() - TimeDelta::days(2_500);
    for _ in 0..8 {
        stand.sandbox.insert(profile, at).unwrap();
    }
    let mut orders = BTreeMap::new();
    for unstable in [false, true] {
        stand.behave(json!({ "unstable_ties": unstable }));
        let mut seen = HashSet::new();
        for _ in 0..6 {
            seen.insert(stand.leads("order=asc&leads_per_page=8").await.ids());
        }
        orders.insert(unstable, seen.len());
    }
    assert!(orders[&false] == 1 && orders[&true] > 1, "{orders:?}");
}
