//! Convertalk, as its clients meet it.

use super::*;

const LEADS: Listing = Listing::Chats { bot: 0, lead: true };
const OTHERS: Listing = Listing::Chats { bot: 0, lead: false };

impl Stand {
    /// A sandbox with two bots of 150 chats, and 50 users of other channels.
    async fn chats() -> Self {
        Self::new(Settings {
            leads: 100,
            convertalk_bots: 2,
            chats: 150,
            users: 50,
            ..Settings::default()
        })
        .await
    }

    async fn bot(&self, query: &str) -> Got {
        self.bot_with(query, &[("x-bot-token", &self.sandbox.convertalk_token())]).await
    }

    async fn bot_with(&self, query: &str, headers: &[(&str, &str)]) -> Got {
        let (customer, bot) = (self.sandbox.customer_id(), &self.sandbox.bot_ids()[0]);
        let url = format!(
            "{}/inbox/direct/chats?customerId={customer}&botId={bot}&{query}",
            self.sandbox.url()
        );
        let request = self.client.get(url);
        let with = |request: reqwest::RequestBuilder, header: &(&str, &str)| {
            request.header(header.0, header.1)
        };
        Got::read(headers.iter().fold(request, with)).await.unwrap()
    }

    async fn users(&self, body: Value) -> Got {
        let bearer = format!("Bearer {}", self.sandbox.convertalk_token());
        self.users_with(body, &[("authorization", &bearer), ("authtype", "Key")]).await
    }

    async fn users_with(&self, body: Value, headers: &[(&str, &str)]) -> Got {
        let request = self.client.post(format!("{}/inbox/users", self.sandbox.url()));
        let request = request.header("content-type", "application/json").body(body.to_string());
        let with = |request: reqwest::RequestBuilder, header: &(&str, &str)| {
            request.header(header.0, header.1)
        };
        Got::read(headers.iter().fold(request, with)).await.unwrap()
    }

    fn switch_chats(&self, switches: Value) {
        self.behave(json!({ "convertalk": switches }));
    }

    async fn all_chats(&self, kind: &str) -> Vec<String> {
        let mut seen = Vec::new();
        for page in 1.. {
            let ids = self.bot(&format!("type={kind}&page={page}")).await.texts("_id");
            if ids.is_empty() {
                break;
            }
            seen.extend(ids);
        }
        seen
    }

    async fn all_users(&self) -> Vec<String> {
        let mut seen = Vec::new();
        for page in 1.. {
            let ids = self.users(json!({ "page": page })).await.texts("_id");
            if ids.is_empty() {
                break;
            }
            seen.extend(ids);
        }
        seen
    }
}

#[tokio::test]
async fn the_two_lists_and_the_users_show_each_record_once() {
    let stand = Stand::chats().await;
    for (kind, listing) in [("lead", LEADS), ("non-lead", OTHERS)] {
        let truth: HashSet<String> =
            stand.sandbox.record_ids(listing).unwrap().into_iter().collect();
        let seen = stand.all_chats(kind).await;
        assert!(truth.len() > 40 && seen.len() == truth.len(), "{kind}: {}", seen.len());
        assert_eq!(seen.into_iter().collect::<HashSet<_>>(), truth);
    }
    let truth = stand.sandbox.record_ids(Listing::Users).unwrap();
    let seen = stand.all_users().await;
    assert_eq!(seen.len(), truth.len());
    let seen: HashSet<String> = seen.into_iter().collect();
    // Who became a lead in a chat is a user under the same id.
    assert!(stand.sandbox.record_ids(LEADS).unwrap().iter().all(|id| seen.contains(id)));
    assert!(stand.sandbox.record_ids(OTHERS).unwrap().iter().all(|id| !seen.contains(id)));
}

#[tokio::test]
async fn the_same_settings_give_the_same_chats_and_bots_differ() {
    let (one, other) = (Stand::chats().await, Stand::chats().await);
    for listing in [LEADS, OTHERS, Listing::Chats { bot: 1, lead: true }, Listing::Users] {
        let page = one.sandbox.record_page(listing).unwrap();
        assert_eq!(page, other.sandbox.record_page(listing).unwrap());
        let page: Value = serde_json::from_slice(&page).unwrap();
        assert_eq!((&page["success"], &page["code"]), (&json!(true), &json!(200)));
        assert_eq!(page["data"], json!(one.sandbox.records(listing).unwrap()));
    }
    let other_bot = one.sandbox.record_ids(Listing::Chats { bot: 1, lead: true }).unwrap();
    assert!(one.sandbox.record_ids(LEADS).unwrap().iter().all(|id| !other_bot.contains(id)));
    assert!(one.sandbox.records(Listing::Chats { bot: 2, lead: true }).is_err());
    let ids = [one.sandbox.bot_ids(), vec![one.sandbox.customer_id()]].concat();
    assert!(ids.iter().all(|id| id.len() == 24 && id.bytes().all(|b| b.is_ascii_hexdigit())));
}

#[tokio::test]
async fn chats_and_users_have_the_fields_of_the_samples() {
    let stand = Stand::chats().await;
    let chats = stand.sandbox.records(LEADS).unwrap();
    let seconds =
        |at: &Value| DateTime::parse_from_rfc3339(at.as_str().unwrap()).unwrap().timestamp();
    for chat in &chats {
        let id = chat["_id"].as_str().unwrap();
        assert_eq!(i64::from_str_radix(&id[..8], 16).unwrap(), seconds(&chat["createdAt"]));
        for field in ["uuid", "updatedAt", "lastSeenAt", "status"] {
            assert!(chat[field].is_string(), "{field}");
        }
        let details = &chat["profile"]["userDetails"];
        assert!(details["name"].is_string() && details["contact"]["phone"]["prefix"].is_string());
        assert!(details["tags"].is_array() && details["attributes"].is_array());
        assert!(chat["lastMessage"]["by"].is_string() && chat["websiteVisits"].is_u64());
    }
    let prefixes: HashSet<&str> = chats
        .iter()
        .map(|chat| &chat["profile"]["userDetails"]["contact"]["phone"]["prefix"])
        .filter_map(Value::as_str)
        .collect();
    assert!(["1", "+1", "+44"].iter().all(|prefix| prefixes.contains(prefix)), "{prefixes:?}");
    assert!(chats.iter().any(|chat| chat["_agentAssigned"].is_string()));
    assert!(chats.iter().any(|chat| chat.get("_agentAssigned").is_none()));
    let others = stand.sandbox.records(OTHERS).unwrap();
    assert!(others.iter().all(|chat| chat["profile"]["userDetails"]["name"] == ""));

    let users = stand.sandbox.records(Listing::Users).unwrap();
    let platforms: HashSet<&str> =
        users.iter().map(|user| user["platform"][0].as_str().unwrap()).collect();
    assert!(platforms.contains("WEBSITE") && platforms.contains("WHATSAPP"));
    let user = users.iter().find(|user| user["_id"] == chats[0]["_id"]).unwrap();
    assert_eq!(user["_customer"], stand.sandbox.customer_id());
    assert!(user.get("uuid").is_none() && user["profile"]["userDetails"].get("name").is_none());
    let name = &user["profile"]["userDetails"]["userProvidedName"];
    assert_eq!(name, &chats[0]["profile"]["userDetails"]["name"]);
}

#[tokio::test]
async fn the_token_is_looked_for_in_one_header() {
    let stand = Stand::chats().await;
    let token = stand.sandbox.convertalk_token();
    let bearer = format!("Bearer {token}");
    let ways: [(&str, Vec<(&str, &str)>); 4] = [
        ("bot_token", vec![("x-bot-token", &token)]),
        ("bp_token", vec![("x-bp-token", &token)]),
        ("bearer", vec![("authorization", &bearer), ("authtype", "Key")]),
        ("none", vec![]),
    ];
    for accepted in ["bot_token", "bp_token", "bearer", "any"] {
        stand.switch_chats(json!({ "chats_header": accepted, "users_header": accepted }));
        for (way, headers) in &ways {
            let expected =
                if *way == accepted || (accepted == "any" && *way != "none") { 200 } else { 401 };
            assert_eq!(stand.bot_with("page=1&type=lead", headers).await.status, expected);
            assert_eq!(stand.users_with(json!({ "page": 1 }), headers).await.status, expected);
        }
    }
    let alone = [("authorization", bearer.as_str())];
    stand.switch_chats(json!({}));
    assert_eq!(stand.users_with(json!({ "page": 1 }), &alone).await.status, 401);
    stand.switch_chats(json!({ "authtype_needed": false }));
    assert_eq!(stand.users_with(json!({ "page": 1 }), &alone).await.status, 200);
}

#[tokio::test]
async fn a_wrong_token_is_refused_in_each_form() {
    let stand = Stand::chats().await;
    let refused = async |switches: Value| {
        stand.switch_chats(switches);
        stand.bot_with("page=1&type=lead", &[("x-bot-token", "wrong")]).await
    };
    let got = refused(json!({})).await;
    let body = json!({ "success": false, "message": "Unauthorized", "code": 401 });
    assert_eq!((got.status, got.json()), (401, body.clone()));
    let got = refused(json!({ "wrong_token": { "status": { "status": 403 } } })).await;
    assert_eq!(got.status, 403);
    let got = refused(json!({ "wrong_token": "inside", "error_body": "text" })).await;
    assert_eq!((got.status, got.json()), (200, body));
    let got = refused(json!({ "error_body": "messages" })).await;
    assert_eq!(got.json()["message"], json!(["Unauthorized"]));
    assert_eq!(refused(json!({ "error_body": "text" })).await.body, b"Unauthorized");
    assert_eq!(refused(json!({ "error_body": "empty" })).await.body, b"");
}

#[tokio::test]
async fn what_is_asked_for_is_checked() {
    let stand = Stand::chats().await;
    let status = async |switches: Value, query: &str| {
        stand.switch_chats(switches);
        stand.bot(query).await.status
    };
    assert_eq!(status(json!({}), "type=lead").await, 200);
    assert_eq!(status(json!({ "page_missing": "refused" }), "type=lead").await, 400);
    assert_eq!(status(json!({}), "type=lead&page=0").await, 200);
    assert_eq!(status(json!({ "page_zero": "refused" }), "type=lead&page=0").await, 400);
    assert_eq!(status(json!({}), "type=lead&page=one").await, 400);
    assert_eq!(status(json!({}), "page=1").await, 400);
    assert_eq!(status(json!({}), "page=1&type=all").await, 400);
    let leads = stand.bot("page=1&type=lead").await.rows();
    stand.switch_chats(json!({ "other_type": "leads" }));
    assert_eq!(stand.bot("page=1").await.rows(), leads);
    assert_ne!(stand.bot("page=1&type=non-lead").await.rows(), leads, "it is no other type");
    stand.switch_chats(json!({ "other_type": "everything", "page_size": 500 }));
    let both = [LEADS, OTHERS].map(|listing| stand.sandbox.record_ids(listing).unwrap().len());
    assert_eq!(stand.bot("page=1").await.rows().len(), both[0] + both[1]);
    stand.switch_chats(json!({ "other_type": "nothing" }));
    assert_eq!(stand.bot("page=1&type=all").await.rows(), [] as [Value; 0]);
    let token = stand.sandbox.convertalk_token();
    let url = format!("{}/inbox/direct/chats?page=1&type=lead&botId=0", stand.sandbox.url());
    let got = Got::read(stand.client.get(url).header("x-bot-token", token)).await.unwrap();
    assert_eq!((got.status, got.json()["success"].as_bool()), (400, Some(false)));
    assert_eq!(stand.users(json!({ "createdAt": { "startAt": "soon" } })).await.status, 400);
}

#[tokio::test]
async fn users_are_limited_by_the_times_that_are_given() {
    let stand = Stand::chats().await;
    let mut created: Vec<String> = stand
        .sandbox
        .records(Listing::Users)
        .unwrap()
        .iter()
        .map(|user| user["createdAt"].as_str().unwrap().to_owned())
        .collect();
    created.sort();
    let start = &created[created.len() - 7];
    let body = json!({ "page": 1, "createdAt": { "startAt": start, "endsAt": "" } });
    assert_eq!(stand.users(body).await.rows().len(), 7);
    let body = json!({ "createdAt": { "startAt": start, "endsAt": created.last() } });
    assert_eq!(stand.users(body).await.rows().len(), 7);
    let body = json!({ "lastSeenAt": { "startAt": "2999-01-01T00:00:00Z" } });
    assert_eq!(stand.users(body).await.rows().len(), 0);
}

#[tokio::test]
async fn the_end_of_the_chats_comes_in_each_form() {
    let stand = Stand::chats().await;
    let end = async |form: &str| {
        stand.switch_chats(json!({ "past_end": form, "page_size": 50 }));
        stand.bot("type=lead&page=90").await
    };
    assert_eq!(end("empty").await.json()["data"], json!([]));
    assert_eq!(
        end("missing").await.json(),
        json!({ "success": true, "message": "ok", "code": 200 })
    );
    let null = end("null").await.json();
    assert!(null["data"].is_null() && null.get("data").is_some());
    assert_eq!(end("not_found").await.status, 404);
    let failure = end("failure").await;
    assert_eq!((failure.status, failure.json()["code"].as_u64()), (200, Some(404)));
    let last = end("last_page").await.texts("_id");
    assert!(!last.is_empty() && stand.all_leads_end_with(&last).await);
    for (is_past_end, status) in [(false, 200), (true, 404)] {
        let switches = json!({ "past_end": "not_found", "empty_is_past_end": is_past_end });
        stand.behave(json!({ "empty": true, "convertalk": switches }));
        assert_eq!(stand.bot("type=lead&page=1").await.status, status);
    }
    stand.switch_chats(json!({ "page_ignored": true }));
    let first = stand.bot("type=lead&page=1").await.texts("_id");
    assert_eq!(stand.bot("type=lead&page=2").await.texts("_id"), first);
    assert_eq!(first.len(), 20);
}

impl Stand {
    /// Says whether the oldest leads, the last of the listing, are these.
    async fn all_leads_end_with(&self, ids: &[String]) -> bool {
        let mut truth = self.sandbox.record_ids(LEADS).unwrap();
        truth.reverse();
        truth.ends_with(ids)
    }
}

#[tokio::test]
async fn chats_come_in_each_order_and_envelope() {
    let stand = Stand::chats().await;
    let column = async |order: &str, name: &str| {
        stand.switch_chats(json!({ "order": order, "page_size": 1_000 }));
        stand.bot("type=lead&page=1").await.texts(name)
    };
    assert!(column("created_ascending", "createdAt").await.is_sorted());
    assert!(column("created_descending", "createdAt").await.iter().rev().is_sorted());
    assert!(column("updated_ascending", "updatedAt").await.is_sorted());
    assert!(column("updated_descending", "updatedAt").await.iter().rev().is_sorted());
    assert!(column("id", "_id").await.is_sorted());
    assert_ne!(column("random", "_id").await, column("random", "_id").await);
    stand.switch_chats(json!({ "data": "object" }));
    let page = stand.bot("type=lead&page=1").await.json();
    assert_eq!(page["data"]["docs"].as_array().unwrap().len(), 20);
}

#[tokio::test]
async fn fields_are_written_in_each_form() {
    let stand = Stand::chats().await;
    let all = |switches: Value| {
        stand.switch_chats(switches);
        stand.sandbox.records(LEADS).unwrap()
    };
    fn details(chat: &Value) -> &Value {
        &chat["profile"]["userDetails"]
    }
    let chats = all(json!({ "name": "user_provided_name", "tags": "objects" }));
    assert!(chats.iter().all(|chat| details(chat)["userProvidedName"].is_string()));
    assert!(chats.iter().all(|chat| details(chat).get("name").is_none()));
    assert!(chats.iter().any(|chat| details(chat)["tags"][0]["name"].is_string()));
    let chats = all(json!({ "attribute_values": "mixed" }));
    let values: Vec<&Value> = chats
        .iter()
        .flat_map(|chat| details(chat)["attributes"].as_array().unwrap())
        .map(|attribute| &attribute["value"])
        .collect();
    for is in [Value::is_string, Value::is_number, Value::is_boolean, Value::is_null] {
        assert!(values.iter().any(|value| is(value)));
    }
    let chats = all(json!({ "agent": "object" }));
    assert!(chats.iter().any(|chat| chat["_agentAssigned"]["_id"].is_string()));
    let chats = all(json!({ "agent": "missing" }));
    assert!(chats.iter().all(|chat| chat.get("_agentAssigned").is_none()));
    for (form, value) in
        [("empty_text", Some(json!(""))), ("null", Some(Value::Null)), ("absent", None)]
    {
        let chats = all(json!({ "missing": form }));
        assert!(chats.iter().all(|chat| details(chat).get("picture").cloned() == value), "{form}");
    }
    for (parts, value) in [("some_missing", None), ("some_null", Some(Value::Null))] {
        let chats = all(json!({ "parts": parts }));
        let lacks = |place: &str, name: &str| {
            let lacks = |chat: &Value| {
                chat.pointer(place)
                    .is_some_and(|outer| outer.is_object() && outer.get(name) == value.as_ref())
            };
            chats.iter().any(lacks)
        };
        assert!(
            lacks("", "profile") && lacks("", "lastMessage") && lacks("/profile", "userDetails")
        );
        assert!(lacks("/profile/userDetails", "contact"));
        assert!(lacks("/profile/userDetails/contact", "phone"));
    }
    let (plain, changed) = (all(json!({})), all(json!({ "uuid_changes": true })));
    assert!(plain.iter().zip(&changed).all(|(one, other)| one["_id"] == other["_id"]));
    assert!(plain.iter().zip(&changed).any(|(one, other)| one["uuid"] != other["uuid"]));
    let chats = all(json!({ "activity_moves_updated": true }));
    assert!(chats.iter().all(|c| c["updatedAt"].as_str() >= c["lastSeenAt"].as_str()));
    assert!(plain.iter().any(|c| c["updatedAt"].as_str() < c["lastSeenAt"].as_str()));
}

#[tokio::test]
async fn chats_become_leads_as_time_passes_and_may_go_back() {
    let settings = Settings { leads: 0, convertalk_bots: 1, chats: 3_000, ..Settings::default() };
    let stand = Stand::new(settings).await;
    let ids = |listing| stand.sandbox.record_ids(listing).unwrap();
    let (leads, others) = (ids(LEADS), ids(OTHERS));
    stand.switch_chats(json!({ "leads_return": true }));
    assert!(ids(LEADS).len() < leads.len() && ids(OTHERS).len() > others.len());
    stand.switch_chats(json!({}));
    stand.clock.advance(TimeDelta::days(60));
    assert!(ids(LEADS).iter().any(|id| others.contains(id)));
    assert!(ids(LEADS).iter().any(|id| !leads.contains(id) && !others.contains(id)));

    let (lead, other) = (ids(LEADS)[3].clone(), ids(OTHERS)[3].clone());
    stand.sandbox.edit_record(Stream::Chats, &lead, RecordEdit::NonLead).unwrap();
    stand.sandbox.edit_record(Stream::Chats, &other, RecordEdit::Lead).unwrap();
    assert!(ids(OTHERS).contains(&lead) && ids(LEADS).contains(&other));
    assert!(ids(Listing::Users).contains(&other) && !ids(Listing::Users).contains(&lead));
}

#[tokio::test]
async fn the_day_of_a_token_is_counted_where_it_has_one() {
    let settings = Settings {
        leads: 0,
        convertalk_bots: 1,
        chats: 5,
        convertalk_per_day: Some(1),
        ..Settings::default()
    };
    let stand = Stand::new(settings).await;
    assert_eq!(stand.bot("type=lead&page=1").await.status, 200);
    let over = stand.users(json!({ "page": 1 })).await;
    assert_eq!((over.status, over.json()["success"].as_bool()), (429, Some(false)));
    assert!(!over.headers.contains_key("retry-after"));
    stand.switch_chats(json!({ "retry_after": 9 }));
    assert_eq!(stand.bot("type=lead&page=1").await.headers["retry-after"], "86400");
    stand.behave(json!({ "convertalk": { "retry_after": 9 },
        "fail_next": [{ "status": { "status": 503 } }] }));
    stand.clock.advance(TimeDelta::days(1));
    let broken = stand.bot("type=lead&page=1").await;
    assert_eq!((broken.status, &broken.headers["retry-after"]), (503, &"9".parse().unwrap()));
}
