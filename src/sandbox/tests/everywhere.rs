//! What holds for every platform: clock, log, quota, accidents, edits, administration.

use std::time::Instant;

use super::*;

const CONTACTS: Listing = Listing::Contacts { account: 0 };
const LEADS: Listing = Listing::Chats { bot: 0, lead: true };

impl Stand {
    /// A sandbox with a little of everything.
    async fn everything() -> Self {
        Self::new(Settings {
            leads: 600,
            whautomate_accounts: 1,
            contacts: 300,
            clients: 40,
            convertalk_bots: 1,
            chats: 200,
            users: 20,
            whautomate_per_day: Some(1_000),
            whautomate_per_minute: Some(1_000),
            ..Settings::default()
        })
        .await
    }

    async fn contacts_page(&self, query: &str) -> reqwest::Result<Got> {
        let request = self.client.get(format!("{}/v1/contacts?{query}", self.sandbox.url()));
        Got::read(request.header("x-api-key", &self.sandbox.whautomate_keys()[0])).await
    }

    async fn chats_page(&self, page: u32) -> reqwest::Result<Got> {
        let (customer, bot) = (self.sandbox.customer_id(), &self.sandbox.bot_ids()[0]);
        let query = format!("customerId={customer}&botId={bot}&type=lead&page={page}");
        let request = self.client.get(format!("{}/inbox/direct/chats?{query}", self.sandbox.url()));
        Got::read(request.header("x-bot-token", self.sandbox.convertalk_token())).await
    }

    async fn post(&self, path: &str, body: Value) -> u16 {
        let post = self.client.post(format!("{}{path}", self.sandbox.url()));
        let post = post.header("content-type", "application/json").body(body.to_string());
        Got::read(post).await.unwrap().status
    }
}

#[tokio::test]
async fn accidents_are_worded_as_each_platform_words_them() {
    let stand = Stand::everything().await;
    let faults = json!([
        { "status": { "status": 502 } }, { "status": { "status": 504 } }, "error_inside",
        { "slow_down": { "retry_after": 7 } }, "html", "cut_json",
        { "end_of_list": { "status": 200 } }, { "end_of_list": { "status": 404 } },
        "cut_body", "reset", "close",
    ]);
    stand.behave(json!({ "fail_next": faults }));
    let mut got = Vec::new();
    for _ in 0..8 {
        got.push(stand.contacts_page("limit=10").await.unwrap());
    }
    let statuses: Vec<u16> = got.iter().map(|got| got.status).collect();
    assert_eq!(statuses, [502, 504, 200, 429, 200, 200, 200, 404]);
    assert_eq!(got[0].json(), json!({ "message": "Internal server error" }));
    assert_eq!(got[1].json(), json!({ "message": "Endpoint request timed out" }));
    assert_eq!(got[2].json(), json!({ "message": "Internal server error" }));
    assert_eq!(got[3].json(), json!({ "message": "Too Many Requests" }));
    assert_eq!((&got[3].headers["retry-after"], got[6].json()), (&"7".parse().unwrap(), json!([])));
    assert!(serde_json::from_slice::<Value>(&got[5].body).is_err());
    for _ in 0..3 {
        assert!(stand.contacts_page("limit=10").await.is_err());
    }

    stand.behave(json!({ "fail_next": faults }));
    let mut got = Vec::new();
    for _ in 0..8 {
        got.push(stand.chats_page(1).await.unwrap());
    }
    let statuses: Vec<u16> = got.iter().map(|got| got.status).collect();
    assert_eq!(statuses, [502, 504, 200, 429, 200, 200, 200, 404]);
    assert_eq!((&got[2].json()["success"], &got[2].json()["code"]), (&json!(false), &json!(500)));
    assert_eq!((&got[6].json()["success"], &got[6].json()["data"]), (&json!(true), &json!([])));
    for _ in 0..3 {
        assert!(stand.chats_page(1).await.is_err());
    }
    assert_eq!(stand.chats_page(1).await.unwrap().rows().len(), 20);

    stand.behave(json!({ "fail_next": faults.as_array().unwrap()[6..8] }));
    assert_eq!(stand.leads("").await.ids(), [0; 0]);
    let end = stand.leads("").await;
    assert_eq!((end.status, end.json()["error_message"].is_string()), (404, true));
}

#[tokio::test]
async fn accidents_can_be_aimed_at_one_platform() {
    let stand = Stand::everything().await;
    let fault = json!({ "fault": { "status": { "status": 500 } }, "per_mille": 1_000 });
    stand.behave(json!({ "faults_for": "convertalk", "faults": [fault],
        "fail_next": [{ "status": { "status": 503 } }] }));
    assert_eq!(stand.leads("").await.status, 200);
    assert_eq!(stand.contacts_page("").await.unwrap().status, 200);
    assert_eq!(stand.chats_page(1).await.unwrap().status, 503);
    assert_eq!(stand.contacts_page("").await.unwrap().status, 200);
    assert_eq!(stand.chats_page(1).await.unwrap().status, 500);
}

#[tokio::test]
async fn a_poisoned_record_breaks_the_page_that_contains_it() {
    let stand = Stand::everything().await;
    let contact = stand.contacts_page("limit=10").await.unwrap().texts("id")[4].clone();
    let chat = stand.chats_page(1).await.unwrap().texts("_id")[4].clone();
    stand.behave(json!({ "poison_records": [contact, chat] }));
    assert_eq!(stand.contacts_page("limit=10").await.unwrap().status, 502);
    assert_eq!(stand.contacts_page("limit=4").await.unwrap().status, 200);
    assert_eq!(stand.chats_page(1).await.unwrap().status, 500);
    assert_eq!(stand.chats_page(2).await.unwrap().status, 200);
    stand.behave(json!({ "poison_records": [contact, chat], "poison_as": "broken_json" }));
    for got in [stand.contacts_page("").await.unwrap(), stand.chats_page(1).await.unwrap()] {
        assert!(got.status == 200 && serde_json::from_slice::<Value>(&got.body).is_err());
    }
}

#[tokio::test]
async fn the_log_tells_platform_and_key() {
    let stand = Stand::everything().await;
    stand.contacts_page("limit=1").await.unwrap();
    stand.chats_page(3).await.unwrap();
    let body = json!({ "page": 2 });
    assert_eq!(stand.post("/inbox/users", body.clone()).await, 401);
    assert_eq!(stand.post("/elsewhere", body.clone()).await, 404);
    let log = stand.sandbox.requests();
    let seen: Vec<_> = log.iter().map(|logged| (logged.provider, logged.key)).collect();
    assert_eq!(
        seen,
        [
            (Some(Provider::Whautomate), KeyKind::Whautomate { account: 0 }),
            (Some(Provider::Convertalk), KeyKind::Convertalk),
            (Some(Provider::Convertalk), KeyKind::None),
            (None, KeyKind::None),
        ]
    );
    assert_eq!((log[2].method.as_str(), &log[2].body), ("POST", &body.to_string()));
    assert_eq!(json!(log[0].key), json!({ "whautomate": { "account": 0 } }));
    assert_eq!(json!(log[0].provider), "whautomate");
}

#[tokio::test]
async fn records_come_and_change_and_go_as_time_passes_unless_the_world_is_still() {
    let stand = Stand::everything().await;
    for listing in [CONTACTS, Listing::Clients { account: 0 }, LEADS, Listing::Users] {
        let id = |record: &Value| record.get("id").or(record.get("_id")).cloned().unwrap();
        let before = stand.sandbox.records(listing).unwrap();
        stand.clock.advance(TimeDelta::days(120));
        let after = stand.sandbox.records(listing).unwrap();
        let known: HashSet<String> = before.iter().map(|record| id(record).to_string()).collect();
        let is_new = |record: &&Value| !known.contains(&id(record).to_string());
        assert!(after.iter().any(|record| is_new(&record)));
        assert!(after.iter().any(|record| !is_new(&record) && !before.contains(record)));
    }

    let settings = Settings {
        leads: 0,
        still: true,
        whautomate_accounts: 1,
        contacts: 400,
        ..Settings::default()
    };
    let still = Stand::new(settings).await;
    let before = still.sandbox.record_page(CONTACTS).unwrap();
    still.sandbox.advance(TimeDelta::days(30));
    assert_eq!(still.sandbox.record_page(CONTACTS).unwrap(), before);
}

#[tokio::test]
async fn some_people_are_known_to_several_platforms() {
    let settings = Settings {
        leads: 600,
        whautomate_accounts: 1,
        clients: 400,
        convertalk_bots: 1,
        chats: 400,
        ..Settings::default()
    };
    let stand = Stand::new(settings).await;
    let leads: HashSet<String> = stand
        .sandbox
        .leads()
        .iter()
        .filter_map(|lead| lead["contact_email_address"].as_str().map(str::to_owned))
        .collect();
    let clients = stand.sandbox.records(Listing::Clients { account: 0 }).unwrap();
    let chats = stand.sandbox.records(LEADS).unwrap();
    let mails = clients.iter().map(|client| &client["email"]);
    let mails = mails.chain(chats.iter().map(|c| &c["profile"]["userDetails"]["contact"]["email"]));
    let known = |mail: &&str| !mail.is_empty() && leads.contains(*mail);
    let shared = mails.filter_map(Value::as_str).filter(known).count();
    assert!((10..80).contains(&shared), "{shared}");
}

#[tokio::test]
async fn records_are_edited_by_hand_and_move_in_a_listing_by_change() {
    let stand = Stand::everything().await;
    stand.behave(json!({ "whautomate": { "order": "updated_descending" } }));
    let first = async || stand.contacts_page("limit=3").await.unwrap().texts("id");
    let find = |id: &str| {
        let records = stand.sandbox.records(CONTACTS).unwrap();
        records.into_iter().find(|record| record["id"] == id).unwrap()
    };
    let id = stand.sandbox.record_ids(CONTACTS).unwrap()[7].clone();
    let edit = |edit| stand.sandbox.edit_record(Stream::Contacts, &id, edit).unwrap();
    let fields = |value: Value| value.as_object().unwrap().clone();
    let before = find(&id);
    edit(RecordEdit::SetQuietly(fields(json!({ "notes": "quiet", "location.title": "Annex" }))));
    assert_eq!(
        (&find(&id)["notes"], &find(&id)["location"]["title"]),
        (&json!("quiet"), &json!("Annex"))
    );
    assert_eq!(
        (find(&id)["updatedAt"] == before["updatedAt"], first().await[0] == id),
        (true, false)
    );
    edit(RecordEdit::Set(fields(json!({ "notes": "loud" }))));
    assert_eq!(find(&id)["updatedAt"], "2026-11-01T00:00:00.000Z");
    assert_eq!(first().await[0], id);
    edit(RecordEdit::Set(fields(json!({ "updatedAt": "2001-01-01T00:00:00.000Z" }))));
    assert_eq!(find(&id)["updatedAt"], "2001-01-01T00:00:00.000Z");
    assert!(!first().await.contains(&id));
    stand.clock.advance(TimeDelta::seconds(1));
    edit(RecordEdit::Touch);
    assert_eq!(find(&id)["updatedAt"], "2026-11-01T00:00:01.000Z");
    stand.clock.advance(TimeDelta::seconds(1));
    edit(RecordEdit::Activity);
    assert_eq!(find(&id)["lastActivity"], "2026-11-01T00:00:02.000Z");
    assert_eq!(find(&id)["updatedAt"], "2026-11-01T00:00:01.000Z");
    edit(RecordEdit::Remove(vec!["stage".to_owned()]));
    assert!(find(&id).get("stage").is_none());

    let unknown = stand.sandbox.edit_record(Stream::Clients, &id, RecordEdit::Touch);
    assert!(matches!(unknown, Err(Error::UnknownRecord { .. })));
    let old = stand.sandbox.now() - TimeDelta::days(3_000);
    let added = stand.sandbox.insert_record(CONTACTS, old).unwrap();
    assert_eq!(stand.sandbox.record_ids(CONTACTS).unwrap()[0], added);
    let chat = stand.sandbox.insert_record(LEADS, stand.sandbox.now()).unwrap();
    assert_eq!(stand.chats_page(1).await.unwrap().texts("_id")[0], chat);
    assert!(stand.sandbox.record_ids(Listing::Users).unwrap().contains(&chat));
}

#[tokio::test]
async fn a_script_edits_records_between_two_requests() {
    let stand = Stand::everything().await;
    let before = stand.contacts_page("limit=5").await.unwrap().texts("id");
    let insert = json!({ "insert": { "created_at": stand.sandbox.now() } });
    let script = json!([
        { "after_requests": 1, "stream": "contacts", "id": before[1], "edit": "vanish" },
        { "after_requests": 1, "stream": "contacts", "id": "a/b c%d", "edit": insert },
        { "after_requests": 1, "stream": "contacts", "id": "nobody", "edit": "touch" },
        { "after_requests": 2, "stream": "contacts", "id": before[1], "edit": "reappear" },
    ]);
    stand.behave(json!({ "record_script": script }));
    assert_eq!(stand.contacts_page("limit=5").await.unwrap().texts("id"), before);
    let between = stand.contacts_page("limit=5").await.unwrap().texts("id");
    let expected = ["a/b c%d", &before[0], &before[2], &before[3], &before[4]];
    assert_eq!(between, expected);
    let after = stand.contacts_page("limit=6").await.unwrap().texts("id");
    assert_eq!(after[1..], before);
    let taken = RecordEdit::Insert { part: 0, created_at: stand.sandbox.now(), lead: false };
    let taken = stand.sandbox.edit_record(Stream::Contacts, "a/b c%d", taken);
    assert!(matches!(taken, Err(Error::TakenRecordId { .. })));
}

#[tokio::test]
async fn other_processes_see_and_edit_records_through_the_administration() {
    let stand = Stand::everything().await;
    let keys = stand.get("/sandbox/keys").await.json();
    assert_eq!(keys["whautomate"], json!(stand.sandbox.whautomate_keys()));
    assert_eq!(keys["convertalk"]["token"], stand.sandbox.convertalk_token());
    assert_eq!(keys["convertalk"]["bot_ids"], json!(stand.sandbox.bot_ids()));
    assert_eq!(keys["convertalk"]["customer_id"], stand.sandbox.customer_id());
    for (query, listing) in [
        ("stream=contacts&part=0", CONTACTS),
        ("stream=chats&list=lead", LEADS),
        ("stream=chats&list=non-lead", Listing::Chats { bot: 0, lead: false }),
        ("stream=users", Listing::Users),
    ] {
        let body = stand.get(&format!("/sandbox/records?{query}")).await.body;
        assert_eq!(body, stand.sandbox.record_page(listing).unwrap());
        let ids = stand.get(&format!("/sandbox/records?{query}&ids=1")).await.json();
        assert_eq!(ids, json!(stand.sandbox.record_ids(listing).unwrap()));
    }
    assert_eq!(stand.get("/sandbox/records?stream=clients&part=1").await.status, 400);
    assert_eq!(stand.get("/sandbox/records?stream=clients&part=first").await.status, 400);
    let bot = format!("/sandbox/records?stream=chats&part={}", stand.sandbox.bot_ids()[0]);
    assert_eq!(stand.get(&bot).await.body, stand.sandbox.record_page(LEADS).unwrap());
    let id = stand.sandbox.record_ids(LEADS).unwrap()[0].clone();
    let edit = json!({ "stream": "chats", "id": id, "edit": "vanish" });
    assert_eq!(stand.post("/sandbox/edit", edit).await, 204);
    assert!(!stand.sandbox.record_ids(LEADS).unwrap().contains(&id));
    let edit = json!({ "stream": "chats", "id": "0", "edit": "vanish" });
    assert_eq!(stand.post("/sandbox/edit", edit).await, 400);
}

#[tokio::test]
async fn a_page_of_a_hundred_thousand_records_costs_what_a_page_of_few_does() {
    let settings = Settings {
        leads: 0,
        whautomate_accounts: 1,
        contacts: 100_000,
        whautomate_per_day: Some(10_000),
        whautomate_per_minute: Some(10_000),
        still: true,
        ..Settings::default()
    };
    let stand = Stand::new(settings).await;
    stand.behave(json!({ "whautomate": { "order": "updated_descending" } }));
    stand.contacts_page("limit=100").await.unwrap();
    let start = Instant::now();
    for page in 400..440 {
        let got = stand.contacts_page(&format!("limit=100&page={page}")).await.unwrap();
        assert_eq!(got.rows().len(), 100);
    }
    // Rendering all of them, or sorting them anew, would take half a minute.
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
}

#[tokio::test]
async fn settings_that_no_world_can_be_made_of_are_refused() {
    for settings in [
        Settings { contacts: 1, ..Settings::default() },
        Settings { chats: 1, ..Settings::default() },
        Settings { convertalk_bots: 10_001, ..Settings::default() },
        Settings { users: 50_000_001, ..Settings::default() },
    ] {
        let clock = Arc::new(ManualClock::new(settings.now));
        let refused = Sandbox::start(settings, 0, clock).await;
        assert!(matches!(refused, Err(Error::Settings { .. })));
    }
}
