//! Whautomate, as its clients meet it.

use super::*;

const CONTACTS: Listing = Listing::Contacts { account: 0 };
const CLIENTS: Listing = Listing::Clients { account: 0 };

impl Stand {
    /// A sandbox with two accounts of 250 contacts and 130 clients, and time for many requests.
    async fn contacts() -> Self {
        Self::new(Settings {
            leads: 100,
            whautomate_accounts: 2,
            contacts: 250,
            clients: 130,
            whautomate_per_day: Some(10_000),
            whautomate_per_minute: Some(10_000),
            ..Settings::default()
        })
        .await
    }

    async fn api(&self, path: &str) -> Got {
        self.api_with(path, &self.sandbox.whautomate_keys()[0]).await
    }

    async fn api_with(&self, path: &str, key: &str) -> Got {
        let request = self.client.get(format!("{}/v1/{path}", self.sandbox.url()));
        Got::read(request.header("x-api-key", key)).await.unwrap()
    }

    fn switch(&self, switches: Value) {
        self.behave(json!({ "whautomate": switches }));
    }

    /// Returns the ids of all pages, page by page.
    async fn pages(&self, stream: &str, limit: u32) -> Vec<Vec<String>> {
        let mut pages = Vec::new();
        loop {
            let path = format!("{stream}?page={}&limit={limit}", pages.len() + 1);
            let ids = self.api(&path).await.texts("id");
            if ids.is_empty() {
                return pages;
            }
            pages.push(ids);
        }
    }
}

#[tokio::test]
async fn the_pages_show_each_record_once() {
    let stand = Stand::contacts().await;
    for (name, listing, limit) in [("contacts", CONTACTS, 70), ("clients", CLIENTS, 100)] {
        let truth: HashSet<String> =
            stand.sandbox.record_ids(listing).unwrap().into_iter().collect();
        let seen = stand.pages(name, limit).await.concat();
        assert!(truth.len() > 120 && seen.len() == truth.len(), "{name}: {}", seen.len());
        assert_eq!(seen.into_iter().collect::<HashSet<_>>(), truth);
    }
}

#[tokio::test]
async fn the_same_settings_give_the_same_records_and_accounts_differ() {
    let (one, other) = (Stand::contacts().await, Stand::contacts().await);
    for listing in [CONTACTS, CLIENTS, Listing::Contacts { account: 1 }] {
        let page = one.sandbox.record_page(listing).unwrap();
        assert_eq!(page, other.sandbox.record_page(listing).unwrap());
        let records: Vec<Value> = serde_json::from_slice(&page).unwrap();
        assert_eq!(records, one.sandbox.records(listing).unwrap());
    }
    let other_account = Listing::Contacts { account: 1 };
    let ids = |listing| one.sandbox.record_ids(listing).unwrap();
    assert!(ids(CONTACTS).iter().all(|id| !ids(other_account).contains(id)));
    let key = &one.sandbox.whautomate_keys()[1];
    let got = one.api_with("contacts?limit=5", key).await.texts("id");
    assert!(got.iter().all(|id| ids(other_account).contains(id)));
    assert!(one.sandbox.records(Listing::Clients { account: 2 }).is_err());
}

#[tokio::test]
async fn records_have_the_fields_of_the_samples() {
    let stand = Stand::contacts().await;
    let contacts = stand.sandbox.records(CONTACTS).unwrap();
    let phone = |contact: &Value| contact["phoneNumber"].as_str().map(str::to_owned);
    assert!(contacts.iter().filter_map(phone).all(|phone| phone.starts_with("+1")));
    assert!(contacts.iter().any(|contact| phone(contact).is_none()));
    let contact = contacts.iter().find(|contact| contact["tags"] != json!([])).unwrap();
    for field in ["id", "name", "channel", "lastActivity", "notes", "stage", "createdAt"] {
        assert!(contact[field].is_string(), "{field}");
    }
    assert!(contact["tags"].is_array() && contact["location"]["title"].is_string());
    let updated = contact["updatedAt"].as_str().unwrap();
    assert!(updated.len() == 24 && updated.ends_with('Z'), "{updated}");
    assert!(contacts.iter().any(|contact| contact["customFields"]["membership"].is_string()));

    let sample = r#"id clientId fullName preferredName contactType countryCode phone email
        registrationDate dob addressType address identificationNumber gender preferredLanguage
        maritalStatus tags notes referralSource primaryLocation emergencyRelationType emergencyName
        emergencyCountryCode emergencyPhone createdAt updatedAt"#;
    for client in stand.sandbox.records(CLIENTS).unwrap() {
        let missing = sample.split_whitespace().find(|field| client.get(field).is_none());
        assert_eq!(missing, None);
    }
}

#[tokio::test]
async fn each_envelope_holds_the_rows() {
    let stand = Stand::contacts().await;
    let bare = stand.api("clients?limit=3").await.json();
    stand.switch(json!({ "envelope": "data" }));
    assert_eq!(stand.api("clients?limit=3").await.json(), json!({ "data": bare }));
    stand.switch(json!({ "envelope": "resource" }));
    assert_eq!(stand.api("clients?limit=3").await.json(), json!({ "clients": bare }));
    assert!(stand.api("contacts").await.json()["contacts"].is_array());
}

#[tokio::test]
async fn a_page_has_the_size_that_the_switches_leave_it() {
    let stand = Stand::contacts().await;
    let size = async |switches: Value, query: &str| {
        stand.switch(switches);
        let got = stand.api(&format!("contacts?{query}")).await;
        if got.status == 200 { Ok(got.rows().len()) } else { Err(got.status) }
    };
    assert_eq!(size(json!({}), "").await, Ok(100));
    assert_eq!(size(json!({ "default_limit": 10 }), "").await, Ok(10));
    assert_eq!(size(json!({}), "limit=7").await, Ok(7));
    assert_eq!(size(json!({}), "limit=500").await, Ok(100));
    assert_eq!(size(json!({ "over_limit": "refuse" }), "limit=500").await, Err(400));
    assert_eq!(size(json!({ "max_page_size": 200 }), "limit=500").await, Ok(200));
    assert_eq!(size(json!({ "own_page_size": 30 }), "limit=90").await, Ok(30));
    assert_eq!(size(json!({}), "page=0&limit=5").await, Ok(5));
    assert_eq!(size(json!({ "page_zero": "refused" }), "page=0").await, Err(400));
    assert_eq!(size(json!({ "page_zero": "refused" }), "limit=-1").await, Err(400));
    assert_eq!(size(json!({}), "page=two").await, Err(400));
}

#[tokio::test]
async fn what_has_gone_may_leave_gaps_in_the_middle() {
    let stand = Stand::contacts().await;
    for id in stand.sandbox.record_ids(CONTACTS).unwrap().iter().step_by(4) {
        stand.sandbox.edit_record(Stream::Contacts, id, RecordEdit::Vanish).unwrap();
    }
    let whole = stand.pages("contacts", 50).await;
    assert!(whole.iter().rev().skip(1).all(|page| page.len() == 50));
    stand.switch(json!({ "gone_take_their_place": true }));
    let gaps = stand.pages("contacts", 50).await;
    assert!(gaps[0].len() < 50 && gaps.len() > whole.len());
    assert_eq!(gaps.concat(), whole.concat());
}

#[tokio::test]
async fn past_the_end_there_is_nothing_or_an_error_or_the_last_page() {
    let stand = Stand::contacts().await;
    let last = stand.pages("clients", 50).await.pop().unwrap();
    let far = "clients?limit=50&page=9";
    assert_eq!(stand.api(far).await.json(), json!([]));
    stand.switch(json!({ "past_end": "not_found" }));
    assert_eq!(stand.api(far).await.status, 404);
    stand.switch(json!({ "past_end": "last_page" }));
    assert_eq!(stand.api(far).await.texts("id"), last);
    stand.switch(json!({ "page_ignored": true }));
    let first = stand.api("clients?limit=50").await.texts("id");
    assert_eq!(stand.api(far).await.texts("id"), first);
    stand.behave(json!({ "empty": true, "whautomate": { "past_end": "not_found" } }));
    assert_eq!(stand.api("clients").await.json(), json!([]));
    let switches = json!({ "past_end": "not_found", "empty_is_past_end": true });
    stand.behave(json!({ "empty": true, "whautomate": switches }));
    assert_eq!(stand.api("clients").await.status, 404);
}

#[tokio::test]
async fn listings_come_in_each_order() {
    let stand = Stand::contacts().await;
    let column = async |order: &str, name: &str| {
        stand.switch(json!({ "order": order, "max_page_size": 1_000 }));
        stand.api("contacts?limit=1000").await.texts(name)
    };
    assert!(column("created_ascending", "createdAt").await.is_sorted());
    assert!(column("created_descending", "createdAt").await.iter().rev().is_sorted());
    assert!(column("updated_ascending", "updatedAt").await.is_sorted());
    assert!(column("updated_descending", "updatedAt").await.iter().rev().is_sorted());
    assert!(column("id", "id").await.is_sorted());
    assert!(!column("updated_ascending", "createdAt").await.is_sorted());
    let (one, mut other) = (column("random", "id").await, column("random", "id").await);
    assert_ne!(one, other);
    other.sort();
    assert_eq!(other, column("id", "id").await);
}

#[tokio::test]
async fn a_wrong_key_and_a_wrong_path_hear_what_the_gateway_says() {
    let stand = Stand::contacts().await;
    let got = stand.api_with("contacts", "wrong").await;
    assert_eq!((got.status, got.json()), (403, json!({ "message": "Forbidden" })));
    let bare = stand.client.get(format!("{}/v1/clients", stand.sandbox.url()));
    assert_eq!(Got::read(bare).await.unwrap().status, 403);
    let got = stand.api("account").await;
    let text = json!({ "message": "Missing Authentication Token" });
    assert_eq!((got.status, got.json()), (403, text));
    stand.switch(json!({ "wrong_key": "unauthorized" }));
    assert_eq!(stand.api_with("contacts", "wrong").await.status, 401);
    let account = stand.api("account-info").await;
    assert_eq!((account.status, account.json()["name"].is_string()), (200, true));
}

#[tokio::test]
async fn an_error_is_written_in_each_form() {
    let stand = Stand::contacts().await;
    let body = async |form: &str| {
        stand.switch(json!({ "error_body": form }));
        String::from_utf8(stand.api_with("contacts", "wrong").await.body).unwrap()
    };
    assert_eq!(body("message").await, r#"{"message":"Forbidden"}"#);
    assert_eq!(body("error").await, r#"{"error":"Forbidden"}"#);
    assert_eq!(body("text").await, "Forbidden");
    assert_eq!(body("empty").await, "");
}

#[tokio::test]
async fn day_and_minute_are_counted_by_key_on_the_clock_of_the_world() {
    let stand = Stand::new(Settings {
        leads: 0,
        whautomate_accounts: 2,
        contacts: 10,
        whautomate_per_day: Some(5),
        whautomate_per_minute: Some(3),
        ..Settings::default()
    })
    .await;
    for path in ["contacts", "account-info", "contacts/unknown"] {
        stand.api(path).await;
    }
    let over = stand.api("contacts").await;
    assert_eq!((over.status, over.json()), (429, json!({ "message": "Too Many Requests" })));
    assert!(!over.headers.contains_key("retry-after"));
    let other = stand.sandbox.whautomate_keys()[1].clone();
    assert_eq!(stand.api_with("contacts", &other).await.status, 200);
    stand.clock.advance(TimeDelta::milliseconds(59_999));
    stand.switch(json!({ "retry_after": true }));
    assert_eq!(stand.api("contacts").await.headers["retry-after"], "1");
    stand.clock.advance(TimeDelta::milliseconds(1));
    for _ in 0..2 {
        assert_eq!(stand.api("contacts").await.status, 200);
    }
    let over = stand.api("contacts").await;
    assert_eq!((over.status, over.json()), (429, json!({ "message": "Limit Exceeded" })));
    assert_eq!(over.headers["retry-after"], "86340");
    stand.switch(json!({ "day_told_apart": false }));
    assert_eq!(stand.api("contacts").await.json(), json!({ "message": "Too Many Requests" }));
    stand.clock.advance(TimeDelta::minutes(1_439));
    assert_eq!(stand.api("contacts").await.status, 200);
}

#[tokio::test]
async fn fields_are_written_in_each_form() {
    let stand = Stand::contacts().await;
    let all = |switches: Value, listing| {
        stand.switch(switches);
        stand.sandbox.records(listing).unwrap()
    };
    let native = all(json!({}), CONTACTS);
    for (written, contact) in
        all(json!({ "collections": "json_text" }), CONTACTS).iter().zip(&native)
    {
        let tags: Value = serde_json::from_str(written["tags"].as_str().unwrap()).unwrap();
        assert_eq!(tags, contact["tags"]);
    }
    let mixed = all(json!({ "custom_values": "mixed" }), CONTACTS);
    let custom = |name: &str, is: fn(&Value) -> bool| {
        mixed.iter().any(|contact| contact.get("customFields").is_some_and(|map| is(&map[name])))
    };
    assert!(custom("visits", Value::is_number) && custom("newsletter", Value::is_boolean));
    assert!(custom("insurer", Value::is_null));
    for (form, value) in [
        ("empty_text", Some(json!(""))),
        ("null", Some(Value::Null)),
        ("empty_list", Some(json!([]))),
        ("absent", None),
    ] {
        let clients = all(json!({ "missing": form }), CLIENTS);
        let unset = |client: &&Value| client.get("maritalStatus").cloned() == value;
        assert_eq!(clients.iter().filter(unset).count(), clients.len(), "{form}");
    }
    let contact = &all(json!({ "place": "workspace", "stage": false }), CONTACTS)[0];
    assert!(contact["workspace"]["id"].is_string());
    assert!(contact.get("location").is_none() && contact.get("stage").is_none());
    let digits = all(json!({ "phone": "digits" }), CONTACTS);
    let phones = digits.iter().filter_map(|contact| contact["phoneNumber"].as_str());
    assert!(phones.clone().count() > 0 && phones.clone().all(|phone| phone.starts_with("1")));
    for (times, ending) in [("seconds", "Z"), ("offset", "-05:00")] {
        let contact = &all(json!({ "times": times }), CONTACTS)[0];
        let (at, before) = (&contact["createdAt"], &native[0]["createdAt"]);
        assert!(at.as_str().unwrap().ends_with(ending) && at != before);
        let read = |at: &Value| DateTime::parse_from_rfc3339(at.as_str().unwrap()).unwrap();
        assert_eq!(read(at).timestamp(), read(before).timestamp());
    }
    stand.behave(json!({ "without_fields": ["notes"], "extra_field": "surprise" }));
    let contact = &stand.sandbox.records(CONTACTS).unwrap()[0];
    assert!(contact.get("notes").is_none() && contact["surprise"] == "new");
}

#[tokio::test]
async fn messages_and_edits_move_the_time_of_change_where_they_are_said_to() {
    let stand = Stand::contacts().await;
    let updated = |switches: Value| {
        stand.switch(switches);
        let records = stand.sandbox.records(CONTACTS).unwrap();
        let text = |record: &Value, name: &str| record[name].as_str().unwrap().to_owned();
        let rows = records.iter().map(|record| {
            ["createdAt", "lastActivity", "updatedAt"].map(|name| text(record, name))
        });
        rows.collect::<Vec<_>>()
    };
    let edited = updated(json!({}));
    assert!(edited.iter().any(|[created, _, updated]| updated > created));
    assert!(edited.iter().any(|[_, active, updated]| active > updated));
    let active = updated(json!({ "activity_moves_updated": true }));
    assert!(active.iter().all(|[_, active, updated]| updated >= active));
    let none = updated(json!({ "edits_move_updated": false }));
    assert!(none.iter().all(|[created, _, updated]| updated == created));
}

#[tokio::test]
async fn one_record_is_found_by_its_id_also_by_an_odd_one() {
    let stand = Stand::contacts().await;
    let records = stand.sandbox.records(CONTACTS).unwrap();
    let id = records[3]["id"].as_str().unwrap();
    assert_eq!(stand.api(&format!("contacts/{id}")).await.json(), records[3]);
    // Another account, another stream.
    let other = stand.sandbox.whautomate_keys()[1].clone();
    assert_eq!(stand.api_with(&format!("contacts/{id}"), &other).await.status, 404);
    assert_eq!(stand.api(&format!("clients/{id}")).await.status, 404);
    for status in [400, 403] {
        stand.switch(json!({ "unknown_record": { "status": { "status": status } } }));
        assert_eq!(stand.api("contacts/nobody").await.status, status);
    }
    stand.switch(json!({ "unknown_record": "empty_object" }));
    assert_eq!(stand.api("contacts/nobody").await.json(), json!({}));
    stand.switch(json!({ "unknown_record": "null" }));
    assert_eq!(stand.api("contacts/nobody").await.json(), Value::Null);

    stand.switch(json!({ "odd_ids": true }));
    let ids = stand.sandbox.record_ids(CONTACTS).unwrap();
    let odd = ids.iter().find(|id| id.contains('/')).unwrap();
    let escaped = odd.replace('%', "%25").replace('/', "%2F").replace(' ', "%20");
    assert_eq!(stand.api(&format!("contacts/{escaped}")).await.json()["id"], odd.as_str());
    stand.sandbox.edit_record(Stream::Contacts, odd, RecordEdit::Vanish).unwrap();
    assert_eq!(stand.api(&format!("contacts/{escaped}")).await.status, 404);
}

#[tokio::test]
async fn what_was_deleted_vanishes_or_is_marked() {
    let stand = Stand::contacts().await;
    let id = stand.sandbox.record_ids(CLIENTS).unwrap()[5].clone();
    stand.sandbox.edit_record(Stream::Clients, &id, RecordEdit::Vanish).unwrap();
    assert!(!stand.sandbox.record_ids(CLIENTS).unwrap().contains(&id));
    assert!(!stand.pages("clients", 100).await.concat().contains(&id));
    stand.switch(json!({ "deleted": "marked" }));
    assert!(stand.pages("clients", 100).await.concat().contains(&id));
    assert_eq!(stand.api(&format!("clients/{id}")).await.json()["isDeleted"], true);
    stand.sandbox.edit_record(Stream::Clients, &id, RecordEdit::Reappear).unwrap();
    assert!(stand.api(&format!("clients/{id}")).await.json().get("isDeleted").is_none());
}

#[tokio::test]
async fn dates_limit_clients_as_the_switches_say() {
    let stand = Stand::contacts().await;
    let range = "clients?limit=100&startDate=2025-01-01&endDate=2025-12-31";
    let within = |rows: &[Value], name: &str| {
        rows.iter().all(|row| row[name].as_str().unwrap().starts_with("2025-"))
    };
    let registered = stand.api(range).await.rows();
    assert!(!registered.is_empty() && within(&registered, "registrationDate"));
    stand.switch(json!({ "client_dates": "update" }));
    let updated = stand.api(range).await.rows();
    assert!(!updated.is_empty() && within(&updated, "updatedAt"));
    stand.switch(json!({ "client_dates": "ignored" }));
    assert!(!within(&stand.api(range).await.rows(), "registrationDate"));
    stand.switch(json!({}));
    assert_eq!(stand.api("clients?startDate=soon").await.status, 400);
    let contacts = stand.api("contacts?limit=100&startDate=2025-01-01").await.rows();
    assert_eq!(contacts.len(), 100);
}
