//! Convertalk `chats`, the visitors of a website bot, and `users`, the contacts of all channels: the
//! same records, by two doors.
//!
//! No field but the id can be relied on, and whole objects may be missing. The records of `users`
//! name their customer and their channels and have no `uuid`; of a chat the page says which bot it
//! is of, and whether it is listed as a lead. [`VOLATILE`] fields move without the lead changing.

use crate::ids::ProviderId;
use crate::schema::lead::Lead;
use crate::schema::lead::Micros;
use crate::schema::lead::Text;
use crate::transform::envelope::Form;
use crate::transform::mapper::Kept;
use crate::transform::mapper::Mapper;
use crate::transform::reader::Reader;
use crate::transform::record::Fields;
use crate::transform::terms;

fields! { Field:
    _id uuid _customer
    createdAt updatedAt lastSeenAt
    platform status
    name = "profile.userDetails.name"
    userProvidedName = "profile.userDetails.userProvidedName"
    email = "profile.userDetails.contact.email"
    prefix = "profile.userDetails.contact.phone.prefix"
    number = "profile.userDetails.contact.phone.number"
    city = "profile.userDetails.city"
    country = "profile.userDetails.country"
    text = "lastMessage.text"
    notes = "profile.notes"
    _agentAssigned _agentAssigned_id = "_agentAssigned._id"
    tags = "profile.userDetails.tags"
    attributes = "profile.userDetails.attributes"
}

use Field as F;

/// Fields Convertalk is known to send that have no column: they go to `extra`.
const WITHOUT_COLUMN: &[&str] = &[
    "_agency",
    "secondaryPlatform",
    "isSubscriber",
    "isContact",
    "isImported",
    "isMigrated",
    "isPaid",
    "isLiveChatActive",
    "userInteracted",
    "hasOrdered",
    "segments",
    "websiteVisits",
    "lastMessage.at",
    "lastMessage.by",
    "profile.marketing",
    "profile.userDetails.picture",
    "profile.userDetails.gender",
    "profile.userDetails.whatsAppNumber",
];

/// Fields that move while nothing about the lead changes: in a row they would make versions of it
/// every night. They are in the archive.
const VOLATILE: &[&str] = &["isOnline", "unreadMessages", "unreadMessage", "__v"];

/// Returns the mapping of the stream `chats`.
pub(in crate::transform) fn chats() -> Mapper {
    mapper(|reader, lead| {
        read_account(reader, lead);
        lead.profile_id = reader.page.partition.strip_prefix("bot:").map(Text::Borrowed);
        lead.stage = (reader.page.list == "lead").then_some("lead".into());
        read_kind(reader, lead);
        read_person(reader, lead);
        read_words(reader, lead);
    })
}

/// Returns the mapping of the stream `users`.
pub(in crate::transform) fn users() -> Mapper {
    mapper(|reader, lead| {
        read_account(reader, lead);
        read_kind(reader, lead);
        read_person(reader, lead);
        read_words(reader, lead);
    })
}

fn mapper(read: for<'r, 'a> fn(&mut Reader<'r, 'a>, &mut Lead<'a>)) -> Mapper {
    Mapper {
        provider: ProviderId::Convertalk,
        form: Form {
            id: "_id",
            names: &["data"],
            // What every answer has, even one past the end, of which `data` may be missing.
            marks: &["success", "code"],
            may_be_array: false,
        },
        id_place: F::_id as usize,
        fields: Fields::new(&[F::NAMES, WITHOUT_COLUMN], VOLATILE),
        kept: Kept::default(),
        read,
    }
}

fn read_account<'a>(reader: &mut Reader<'_, 'a>, lead: &mut Lead<'a>) {
    let settings = reader.settings;
    lead.account_id = reader
        .text(F::_customer, "account_id")
        .or(settings.account_id.as_deref().map(Text::Borrowed));
    lead.visitor_id = reader.text(F::uuid, "visitor_id");
    lead.created_at =
        reader.time(F::createdAt, "created_at").or_else(|| created_at(&lead.native_id));
    lead.updated_at = reader.time(F::updatedAt, "updated_at");
    lead.last_activity_at = reader.time(F::lastSeenAt, "last_activity_at");
}

/// Returns the time inside an id of 24 hexadecimal digits: the first eight of them are the seconds
/// since 1970 at which it was made.
fn created_at(id: &str) -> Option<Micros> {
    let is_object_id = id.len() == 24 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let seconds = u32::from_str_radix(id.get(..8).filter(|_| is_object_id)?, 16).ok()?;
    Some(Micros(i64::from(seconds) * 1_000_000))
}

fn read_kind<'a>(reader: &mut Reader<'_, 'a>, lead: &mut Lead<'a>) {
    lead.channel_native = reader.first_of_list(F::platform, "channel_native");
    lead.channel = lead.channel_native.as_deref().map_or("chat", channel).into();
    lead.status_native = reader.text(F::status, "status_native");
    lead.status = lead.status_native.as_deref().map(|native| terms::status(native).into());
}

/// Returns the channel of a platform: on a website the bot chats, on Facebook it uses Messenger.
fn channel(platform: &str) -> &'static str {
    match terms::folded(platform).as_str() {
        "website" => "chat",
        "facebook" => "messenger",
        _ => terms::channel(platform),
    }
}

fn read_person<'a>(reader: &mut Reader<'_, 'a>, lead: &mut Lead<'a>) {
    lead.full_name = reader.first_text(&[F::name, F::userProvidedName], "full_name");
    lead.email_raw = reader.text(F::email, "email_raw");
    (lead.email, lead.email_key) = reader.email(lead.email_raw.as_deref());
    lead.city = reader.text(F::city, "city");
    lead.country = reader.country(&[F::country]);
    (lead.phone_raw, lead.phone, lead.phone_key) =
        reader.telephone(Some(F::prefix), F::number, lead.country.as_deref());
}

fn read_words<'a>(reader: &mut Reader<'_, 'a>, lead: &mut Lead<'a>) {
    lead.message = reader.text(F::text, "message");
    lead.notes = reader.notes(F::notes);
    let agents = [F::_agentAssigned, F::_agentAssigned_id];
    lead.assigned_to = reader.first_text(&agents, "assigned_to");
    lead.tags = reader.tags(F::tags);
    lead.custom_fields = reader.attributes(F::attributes, "custom_fields");
}

#[cfg(test)]
mod tests {
    use serde_json::Value as Json;
    use serde_json::json;

    use super::*;
    use crate::transform::Error;
    use crate::transform::Mapped;
    use crate::transform::Mapping;
    use crate::transform::Page;
    use crate::transform::Settings;
    use crate::transform::testing;
    use crate::transform::testing::Columns;
    use crate::transform::testing::rendered;

    fn settings() -> Settings {
        Settings {
            account_id: Some("631aa793bcfa100487d13d0c".to_owned()),
            default_region: Some("GB".to_owned()),
            ..testing::settings()
        }
    }

    fn chats_page<'a>(list: &'a str, body: &'a [u8]) -> Page<'a> {
        let partition = "bot:631aa793bcfa100487d13d0e";
        Page { scope_label: partition, partition, list, ..testing::page("chats", body) }
    }

    fn map(list: &str, body: &[u8]) -> Result<Mapped, Error> {
        chats().map(&chats_page(list, body), &settings())
    }

    fn chat(record: &Json) -> Columns {
        let body = json!({"success": true, "data": [record], "code": 200}).to_string();
        testing::columns_of(&chats(), &chats_page("lead", body.as_bytes()), &settings())
    }

    fn user(record: &Json) -> Columns {
        let body = json!({"success": true, "data": [record], "code": 200}).to_string();
        testing::columns_of(&users(), &testing::page("users", body.as_bytes()), &settings())
    }

    /// Returns a record with these details of its user.
    fn with_details(details: &Json) -> Json {
        json!({"_id": "7", "profile": {"userDetails": details}})
    }

    macro_rules! fixture {
        ($name:literal) => {
            include_bytes!(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/fixtures/convertalk/",
                $name
            ))
        };
    }

    #[test]
    fn a_page_of_chats() {
        let mapped = map("lead", fixture!("chats/chats_listing_documented.json"));
        insta::assert_snapshot!(rendered(&mapped.unwrap()));
    }

    #[test]
    fn a_page_of_users() {
        let mut page: Json =
            serde_json::from_slice(fixture!("chats/chats_listing_documented.json")).unwrap();
        // What is known to differ in `users`; the rest is the same record.
        let record = page["data"][0].as_object_mut().unwrap();
        record.remove("uuid");
        record.remove("_agentAssigned");
        let fields = json!({
            "_agency": "5fed38e56fb193dcc6c933f4",
            "_customer": "5fed38e56fb193dcc6c933f5",
            "platform": ["WHATSAPP"],
            "secondaryPlatform": ["whatsapp"],
            "isSubscriber": true,
            "isContact": true,
            "hasOrdered": {"status": false},
            "segments": [],
            "unreadMessages": 2,
            "unreadMessage": [{"text": "Hi"}],
            "__v": 3,
            "profile": {
                "userDetails": {
                    "userProvidedName": "Ann Example",
                    "contact": {
                        "email": "Ann@Example.com",
                        "phone": {"prefix": "+44", "number": "07400123456"},
                    },
                    "country": "United Kingdom",
                    "whatsAppNumber": "447400123456",
                    "tags": [],
                    "attributes": [],
                },
                "marketing": {"urlsVisited": ["https://example.com/"]},
                "notes": [],
            },
        });
        record.extend(fields.as_object().cloned().unwrap());
        let body = page.to_string();
        let mapped = users().map(&testing::page("users", body.as_bytes()), &settings());
        insta::assert_snapshot!(rendered(&mapped.unwrap()));
    }

    #[test]
    fn answers_of_other_calls_have_no_records_of_ours() {
        let updated = map("lead", fixture!("lead/lead_update_ok_documented.json")).unwrap();
        assert_eq!((updated.places.len(), updated.rejects.len()), (0, 0));
        let segments = map("lead", fixture!("segments/segments_documented_truncated.json"));
        insta::assert_snapshot!(rendered(&segments.unwrap()));
    }

    #[test]
    fn pages_hold_their_records_in_many_ways_or_none() {
        let record = r#"{"_id":"7"}"#;
        for (body, count) in [
            (format!(r#"{{"success":true,"message":"ok","code":200,"data":[{record}]}}"#), 1),
            (format!(r#"{{"data":[{record},{record}]}}"#), 2),
            (format!(r#"{{"success":true,"data":{{"users":[{record}],"total":1}}}}"#), 1),
            (format!(r#"{{"success":true,"data":{{"data":[{record}],"tags":[]}}}}"#), 1),
            (format!(r#"{{"botId":"b","platform":"website","data":{record}}}"#), 1),
            (record.to_owned(), 1),
            (r#"{"success":true,"message":"","code":200,"data":[]}"#.to_owned(), 0),
            (r#"{"success":true,"message":"","code":200,"data":null}"#.to_owned(), 0),
            (r#"{"success":true,"data":{}}"#.to_owned(), 0),
            (r#"{"success":true,"message":"ok","code":200}"#.to_owned(), 0),
        ] {
            let mapped = map("lead", body.as_bytes()).unwrap();
            assert_eq!(mapped.places.len(), count, "{body}");
            assert_eq!(mapped.rejects, [], "{body}");
        }
        for body in [
            "",
            "[]",
            "{}",
            "true",
            r#"{"message":"secret"}"#,
            r#"{"success":true,"data":"secret"}"#,
            r#"{"success":true,"data":{"secret":7}}"#,
        ] {
            let error = map("lead", body.as_bytes()).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{body}: {error}");
        }
    }

    #[test]
    fn the_page_says_which_bot_a_chat_is_of_and_whether_it_is_a_lead() {
        let body = json!({"data": [{"_id": "7"}]}).to_string();
        for (list, stage) in [("lead", Some("lead")), ("non-lead", None)] {
            let page = chats_page(list, body.as_bytes());
            let lead = testing::columns_of(&chats(), &page, &settings());
            assert_eq!(lead["profile_id"], "631aa793bcfa100487d13d0e");
            assert_eq!(lead["account_id"], "631aa793bcfa100487d13d0c");
            assert_eq!(lead.get("stage").map(String::as_str), stage);
            assert_eq!(lead["_scope"], "bot:631aa793bcfa100487d13d0e");
            assert_eq!(lead["channel"], "chat");
        }
    }

    #[test]
    fn a_user_names_its_customer_and_its_platforms() {
        let bare = user(&json!({"_id": "7"}));
        assert_eq!(bare["account_id"], "631aa793bcfa100487d13d0c");
        for absent in ["profile_id", "stage", "channel_native", "visitor_id"] {
            assert!(!bare.contains_key(absent), "{absent}");
        }
        assert_eq!(user(&json!({"_id": "7", "_customer": "c2"}))["account_id"], "c2");
        for (platform, channel) in [
            (json!(["WHATSAPP"]), "whatsapp"),
            (json!(["WEBSITE"]), "chat"),
            (json!("website"), "chat"),
            (json!(["FACEBOOK"]), "messenger"),
            (json!(["INSTAGRAM"]), "instagram"),
            (json!(["TELEGRAM"]), "telegram"),
            (json!(["SMS"]), "sms"),
            (json!(["FAX"]), "other"),
            (json!([]), "chat"),
            (json!(null), "chat"),
        ] {
            let lead = user(&json!({"_id": "7", "platform": platform}));
            assert_eq!(lead["channel"], channel, "{platform}");
            assert!(!lead.contains_key("extra"), "{platform}");
        }
        let both = user(&json!({"_id": "7", "platform": ["TELEGRAM", "WEBSITE"]}));
        assert_eq!((&*both["channel"], &*both["channel_native"]), ("telegram", "TELEGRAM"));
        assert_eq!(both["extra"], r#"{"platform":["TELEGRAM","WEBSITE"]}"#);
    }

    #[test]
    fn the_time_inside_an_id_stands_in_for_a_missing_one() {
        let id = "63d9ffa77a8d152facbe2f2f";
        for record in [json!({"_id": id}), json!({"_id": id, "createdAt": "soon"})] {
            assert_eq!(chat(&record)["created_at"], "2023-02-01T05:59:03Z");
        }
        let given = json!({"_id": id, "createdAt": "2024-01-01T00:00:00.250Z"});
        assert_eq!(chat(&given)["created_at"], "2024-01-01T00:00:00.250000Z");
        for other in [
            "63d9ffa7",
            "63d9ffa77a8d152facbe2f2",
            "zzd9ffa77a8d152facbe2f2f",
            "+3d9ffa77a8d152facbe2f2f",
        ] {
            assert!(!chat(&json!({"_id": other})).contains_key("created_at"), "{other}");
        }
    }

    #[test]
    fn states_are_known_in_the_vendors_spelling() {
        for (native, status) in [
            ("OPEN", "open"),
            ("INPROGRESS", "in_progress"),
            ("REVIEW", "review"),
            ("ONHOLD", "on_hold"),
            ("DEPENDANCY", "blocked"),
            ("CLOSED", "closed"),
            ("ELSE", "other"),
        ] {
            let lead = chat(&json!({"_id": "7", "status": native}));
            assert_eq!((&*lead["status"], &*lead["status_native"]), (status, native));
        }
    }

    #[test]
    fn what_moves_by_itself_is_in_no_row() {
        let quiet = json!({"_id": "7", "status": "OPEN"});
        let busy = json!({
            "_id": "7", "isOnline": true, "unreadMessages": 3, "unreadMessage": [{"text": "Hi"}],
            "__v": 9, "status": "OPEN",
        });
        assert_eq!(chat(&busy), chat(&quiet));
        assert_eq!(user(&busy), user(&quiet));
    }

    #[test]
    fn whole_objects_may_be_missing_or_something_else() {
        let bare = chat(&json!({"_id": "7"}));
        for record in [
            json!({"_id": "7", "profile": null, "lastMessage": {}}),
            json!({"_id": "7", "profile": {"userDetails": null, "notes": []}}),
            json!({"_id": "7", "profile": {"userDetails": {"contact": {"phone": {}}}}}),
            json!({"_id": "7", "profile": {"userDetails": {"contact": "", "tags": ""}}}),
        ] {
            assert_eq!(chat(&record), bare, "{record}");
        }
        let record = json!({"_id": "7", "profile": {"userDetails": ["a"]}, "lastMessage": "Hi"});
        let body = json!({ "data": [record] }).to_string();
        let mapped = map("lead", body.as_bytes()).unwrap();
        insta::assert_snapshot!(rendered(&mapped));
    }

    #[test]
    fn a_person_has_a_name_under_either_name() {
        let named = |details: Json| chat(&with_details(&details));
        assert_eq!(named(json!({"name": "Ann"}))["full_name"], "Ann");
        assert_eq!(named(json!({"userProvidedName": "Ann"}))["full_name"], "Ann");
        assert_eq!(named(json!({"name": "", "userProvidedName": "Ann"}))["full_name"], "Ann");
        let both = named(json!({"name": "Ann", "userProvidedName": "Annie", "gender": "FEMALE"}));
        assert_eq!(both["full_name"], "Ann");
        let expected =
            r#"{"profile":{"userDetails":{"gender":"FEMALE","userProvidedName":"Annie"}}}"#;
        assert_eq!(both["extra"], expected);
    }

    #[test]
    fn attributes_may_hold_any_value_and_repeat_a_key() {
        let lead = chat(&with_details(&json!({"attributes": [
            {"key": "ID", "value": "BP001"},
            {"key": "Size", "value": 7.50},
            {"key": "Member", "value": true},
            {"key": "ID", "value": "BP002"},
            {"key": "Nothing", "value": null},
        ]})));
        let expected = r#"{"Size":7.5,"Member":true,"ID":"BP002","Nothing":null}"#;
        assert_eq!(lead["custom_fields"], expected);
        let expected =
            r#"{"profile":{"userDetails":{"attributes":[{"key":"ID","value":"BP001"}]}}}"#;
        assert_eq!(lead["extra"], expected);
        let object = chat(&with_details(&json!({"attributes": {"ID": "BP001"}})));
        assert_eq!(object["custom_fields"], r#"{"ID":"BP001"}"#);
    }

    #[test]
    fn tags_come_as_texts_and_objects() {
        let texts = chat(&with_details(&json!({"tags": ["a", "b"]})));
        assert_eq!(texts["tags"], r#"["a","b"]"#);
        assert!(!texts.contains_key("extra"));
        let objects =
            chat(&with_details(&json!({"tags": [{"name": "a", "_id": 1}, {"name": "b"}]})));
        assert_eq!(objects["tags"], texts["tags"]);
        let expected =
            r#"{"profile":{"userDetails":{"tags":[{"_id":1,"name":"a"},{"name":"b"}]}}}"#;
        assert_eq!(objects["extra"], expected);
    }

    #[test]
    fn notes_are_lines_of_title_and_description() {
        let noted = |notes: Json| chat(&json!({"_id": "7", "profile": {"notes": notes}}));
        let lead = noted(json!([
            {"title": "Call", "description": "Wants an offer"},
            {"title": "", "description": "Ask Bea"},
            {"title": "Done", "_id": "63db5c4abcbc3be2e95b20ae"},
            "Bye",
        ]));
        assert_eq!(lead["notes"], "Call: Wants an offer\nAsk Bea\nDone\nBye");
        let expected = r#"{"profile":{"notes":[{},{},{"_id":"63db5c4abcbc3be2e95b20ae"},{}]}}"#;
        assert_eq!(lead["extra"], expected);
        assert_eq!(noted(json!("Ask Bea"))["notes"], "Ask Bea");
        assert!(!noted(json!([{"title": "a", "description": "b"}])).contains_key("extra"));
        let odd = noted(json!([{"title": {"a": 1}}]));
        assert_eq!(odd["extra"], r#"{"profile":{"notes":[{"title":{"a":1}}]}}"#);
    }

    #[test]
    fn an_agent_is_an_id_or_an_object() {
        let assigned = |agent: Json| chat(&json!({"_id": "7", "_agentAssigned": agent}));
        assert_eq!(assigned(json!("a1"))["assigned_to"], "a1");
        let object = assigned(json!({"_id": "a1", "name": "Bea"}));
        assert_eq!(object["assigned_to"], "a1");
        assert_eq!(object["extra"], r#"{"_agentAssigned":{"name":"Bea"}}"#);
        assert!(!assigned(json!("")).contains_key("assigned_to"));
    }

    #[test]
    fn telephone_numbers_are_put_together_of_prefix_and_number() {
        let called = |phone: Json, country: &str| {
            let details = json!({"contact": {"phone": phone}, "country": country});
            let lead = chat(&with_details(&details));
            (lead.get("phone").cloned(), lead.get("phone_raw").cloned())
        };
        let pair = |e164: &str, raw: &str| (Some(e164.to_owned()), Some(raw.to_owned()));
        for (prefix, number) in [
            ("91", "9812345678"),
            ("+91", "09812345678"),
            ("91", "919812345678"),
            ("+1", "+91 98123 45678"),
        ] {
            let phone = json!({"prefix": prefix, "number": number});
            assert_eq!(called(phone, ""), pair("+919812345678", &format!("{prefix} {number}")));
        }
        let as_numbers = json!({"prefix": 44, "number": 7_400_123_456_u64});
        assert_eq!(called(as_numbers, ""), pair("+447400123456", "44 7400123456"));
        // Without a prefix the lead's own country comes first, then the region of the settings.
        let national = json!({"prefix": "", "number": "(541) 555-0123"});
        assert_eq!(called(national.clone(), "US"), pair("+15415550123", "(541) 555-0123"));
        assert_eq!(called(national, "").0, None);
        let british = json!({"number": "07400 123456"});
        assert_eq!(called(british, ""), pair("+447400123456", "07400 123456"));
        assert_eq!(called(json!({"prefix": "91"}), ""), (None, None));
    }

    #[test]
    fn of_a_repeated_object_the_last_counts() {
        let body =
            br#"{"data":[{"_id":"7","profile":{"userDetails":{"name":"Ann","city":"Reno"},"x":1},
            "profile":{"userDetails":{"name":"Bea"}}}]}"#;
        let page = chats_page("lead", body);
        let lead = testing::columns_of(&chats(), &page, &settings());
        assert_eq!(lead["full_name"], "Bea");
        assert!(!lead.contains_key("city"));
        assert!(!lead.contains_key("extra"));
    }
}
