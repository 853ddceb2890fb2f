//! Whautomate `contacts`, the people of its messaging channels, and `clients`, those of its bookings.
//!
//! No field but the id can be relied on. Lists and maps come as such or as JSON text, and what one
//! account calls a location is a workspace to another. Nothing moves without the record changing,
//! so no field is volatile. Appointments are no leads: their `startTime` and `endTime`, which are
//! local in spite of their `Z`, are read nowhere.

use crate::ids::ProviderId;
use crate::schema::lead::Lead;
use crate::schema::lead::Text;
use crate::transform::envelope::Form;
use crate::transform::mapper::Kept;
use crate::transform::mapper::Mapper;
use crate::transform::reader::Reader;
use crate::transform::record::Fields;
use crate::transform::terms;

fields! { Contact:
    id
    location location_id = "location.id" location_title = "location.title"
    workspace workspace_id = "workspace.id" workspace_title = "workspace.title"
    createdAt updatedAt lastActivity
    channel stage
    name phoneNumber
    notes tags customFields
}

fields! { Client:
    id clientId
    primaryLocation
    primaryLocation_id = "primaryLocation.id"
    primaryLocation_title = "primaryLocation.title"
    createdAt updatedAt
    fullName company company_name = "company.name"
    email countryCode phone
    address preferredLanguage
    referralSource
    primaryStaff primaryStaff_id = "primaryStaff.id"
    notes tags customFields
}

/// Fields of contacts that have no column: they go to `extra`. The first are one for each channel.
const CONTACT_WITHOUT_COLUMN: &[&str] =
    &["username", "messengerId", "telegramChatId", "instagramId"];

/// Fields of clients that have no column: they go to `extra`.
const CLIENT_WITHOUT_COLUMN: &[&str] = &[
    "preferredName",
    "contactType",
    "registrationDate",
    "dob",
    "addressType",
    "identificationNumber",
    "gender",
    "maritalStatus",
    "photo",
    "primaryStaff.name",
    "emergencyRelationType",
    "emergencyName",
    "emergencyCountryCode",
    "emergencyPhone",
    "taxIdNumber",
    "taxIdType",
];

/// Returns the mapping of the stream `contacts`.
pub(in crate::transform) fn contacts() -> Mapper {
    Mapper {
        provider: ProviderId::Whautomate,
        form: form(&["contacts", "data", "contact"]),
        id_place: Contact::id as usize,
        fields: Fields::new(&[Contact::NAMES, CONTACT_WITHOUT_COLUMN], &[]),
        kept: Kept::default(),
        read: |reader, lead| {
            read_contact(reader, lead);
            read_contact_person(reader, lead);
        },
    }
}

/// Returns the mapping of the stream `clients`.
pub(in crate::transform) fn clients() -> Mapper {
    Mapper {
        provider: ProviderId::Whautomate,
        form: form(&["clients", "data", "client"]),
        id_place: Client::id as usize,
        fields: Fields::new(&[Client::NAMES, CLIENT_WITHOUT_COLUMN], &[]),
        kept: Kept::default(),
        read: |reader, lead| {
            read_client(reader, lead);
            read_client_person(reader, lead);
        },
    }
}

/// Pages are documented as arrays, and seen in envelopes that name the resource or say `data`.
fn form(names: &'static [&'static str]) -> Form {
    Form { id: "id", names, marks: &[], may_be_array: true }
}

fn read_contact<'a>(reader: &mut Reader<'_, 'a>, lead: &mut Lead<'a>) {
    use Contact as F;
    lead.account_id = reader.settings.account_id.as_deref().map(Text::Borrowed);
    let ids = [F::location_id, F::location, F::workspace_id, F::workspace];
    lead.profile_id = reader.first_text(&ids, "profile_id");
    let titles = [F::location_title, F::workspace_title];
    lead.profile_name = reader.first_text(&titles, "profile_name");
    lead.created_at = reader.time(F::createdAt, "created_at");
    lead.updated_at = reader.time(F::updatedAt, "updated_at");
    lead.last_activity_at = reader.time(F::lastActivity, "last_activity_at");

    lead.channel_native = reader.text(F::channel, "channel_native");
    if let Some(native) = &lead.channel_native {
        lead.channel = terms::channel(native).into();
    }
    lead.stage_native = reader.text(F::stage, "stage_native");
    let stage = lead.stage_native.as_deref().map(terms::stage);
    lead.stage = stage.map(Text::Borrowed);
    lead.is_qualified = stage.and_then(terms::is_qualified);
}

fn read_contact_person<'a>(reader: &mut Reader<'_, 'a>, lead: &mut Lead<'a>) {
    use Contact as F;
    lead.full_name = reader.text(F::name, "full_name");
    (lead.phone_raw, lead.phone, lead.phone_key) = reader.telephone(None, F::phoneNumber, None);
    lead.notes = reader.text(F::notes, "notes");
    lead.tags = reader.tags(F::tags);
    lead.custom_fields = reader.map(F::customFields, "custom_fields");
}

fn read_client<'a>(reader: &mut Reader<'_, 'a>, lead: &mut Lead<'a>) {
    use Client as F;
    lead.account_id = reader.settings.account_id.as_deref().map(Text::Borrowed);
    let ids = [F::primaryLocation_id, F::primaryLocation];
    lead.profile_id = reader.first_text(&ids, "profile_id");
    lead.profile_name = reader.text(F::primaryLocation_title, "profile_name");
    lead.visitor_id = reader.text(F::clientId, "visitor_id");
    lead.created_at = reader.time(F::createdAt, "created_at");
    lead.updated_at = reader.time(F::updatedAt, "updated_at");
    // Who books is a customer; how they came is not said.
    lead.stage = Some("customer".into());
    lead.marketing_source = reader.text(F::referralSource, "marketing_source");
    lead.assigned_to = reader.first_text(&[F::primaryStaff_id, F::primaryStaff], "assigned_to");
}

fn read_client_person<'a>(reader: &mut Reader<'_, 'a>, lead: &mut Lead<'a>) {
    use Client as F;
    lead.full_name = reader.text(F::fullName, "full_name");
    lead.company_name = reader.first_text(&[F::company_name, F::company], "company_name");
    lead.email_raw = reader.text(F::email, "email_raw");
    (lead.email, lead.email_key) = reader.email(lead.email_raw.as_deref());
    (lead.phone_raw, lead.phone, lead.phone_key) =
        reader.telephone(Some(F::countryCode), F::phone, None);
    lead.street = reader.text(F::address, "street");
    lead.language = reader.text(F::preferredLanguage, "language");
    lead.notes = reader.text(F::notes, "notes");
    lead.tags = reader.tags(F::tags);
    lead.custom_fields = reader.map(F::customFields, "custom_fields");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value as Json;
    use serde_json::json;

    use super::*;
    use crate::transform::Error;
    use crate::transform::Mapped;
    use crate::transform::Mapping;
    use crate::transform::Settings;
    use crate::transform::testing;
    use crate::transform::testing::Columns;
    use crate::transform::testing::page;
    use crate::transform::testing::rendered;
    use crate::transform::testing::row;

    fn settings() -> Settings {
        Settings { default_region: Some("IN".to_owned()), ..testing::settings() }
    }

    fn map_contacts(body: &[u8]) -> Result<Mapped, Error> {
        contacts().map(&page("contacts", body), &settings())
    }

    fn map_clients(body: &[u8]) -> Result<Mapped, Error> {
        clients().map(&page("clients", body), &settings())
    }

    fn contact(record: &Json) -> Columns {
        let body = json!([record]).to_string();
        testing::columns_of(&contacts(), &page("contacts", body.as_bytes()), &settings())
    }

    fn client(record: &Json) -> Columns {
        let body = json!([record]).to_string();
        testing::columns_of(&clients(), &page("clients", body.as_bytes()), &settings())
    }

    macro_rules! fixture {
        ($name:literal) => {
            include_bytes!(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/fixtures/whautomate/",
                $name
            ))
        };
    }

    #[test]
    fn a_contact_as_sent_by_a_webhook() {
        let mapped = map_contacts(fixture!("contacts/contact_created_event_documented.json"));
        insta::assert_snapshot!(rendered(&mapped.unwrap()));
    }

    #[test]
    fn a_client_as_sent_by_a_webhook() {
        let mapped = map_clients(fixture!("clients/client_created_event.json"));
        insta::assert_snapshot!(rendered(&mapped.unwrap()));
    }

    #[test]
    fn events_of_other_resources_are_no_pages() {
        let contact = fixture!("contacts/contact_created_event_documented.json");
        let client = fixture!("clients/client_created_event.json");
        let appointment = fixture!("appointments/appointment_scheduled_event.json");
        assert!(matches!(map_clients(contact), Err(Error::NoRows)));
        assert!(matches!(map_contacts(client), Err(Error::NoRows)));
        // The client within an appointment is no answer about clients either.
        for page in [map_contacts(appointment), map_clients(appointment)] {
            assert!(matches!(page, Err(Error::NoRows)));
        }
    }

    #[test]
    fn records_of_other_resources_give_rows_whose_fields_are_named_as_unknown() {
        let bodies = [
            &fixture!("appointments/appointments_list_documented_truncated.json")[..],
            fixture!("broadcasts/broadcasts_list_documented.json"),
            fixture!("services/service_categories_list_documented.json"),
            fixture!("tags/client_tags_list_documented.json"),
            fixture!("webhooks/webhook_subscription_documented.json"),
        ];
        let unknown = bodies.map(|body| {
            let mapped = map_contacts(body).unwrap();
            assert_eq!(mapped.places, [0]);
            Vec::from_iter(mapped.unknown_fields).join(" ")
        });
        insta::assert_snapshot!(unknown.join("\n"));
    }

    #[test]
    fn pages_come_bare_and_in_envelopes() {
        let record = r#"{"id":"a","name":"Ann"}"#;
        for (body, count) in [
            (format!("[{record},{record}]"), 2),
            (format!(r#"{{"data":[{record},{record}]}}"#), 2),
            (format!(r#"{{"total":2,"contacts":[{record},{record}]}}"#), 2),
            (format!(r#"{{"data":{{"contacts":[{record}],"tags":[]}}}}"#), 1),
            (format!(r#"{{"data":{{"items":[{record}],"total":1}}}}"#), 1),
            (record.to_owned(), 1),
            (format!(r#"{{"contact":{record}}}"#), 1),
            (format!(r#"{{"data":{record}}}"#), 1),
            ("[]".to_owned(), 0),
            (r#"{"data":[]}"#.to_owned(), 0),
            (r#"{"data":null}"#.to_owned(), 0),
            (r#"{"data":{}}"#.to_owned(), 0),
            (r#"{"contacts":[],"data":null}"#.to_owned(), 0),
        ] {
            let mapped = map_contacts(body.as_bytes()).unwrap();
            assert_eq!(mapped.places.len(), count, "{body}");
            assert_eq!(mapped.rejects, [], "{body}");
        }
        for body in [
            "",
            "7",
            "null",
            r#""secret""#,
            "{}",
            r#"{"message":"secret"}"#,
            r#"{"data":"secret"}"#,
            r#"{"data":7}"#,
            r#"{"data":{"secret":1}}"#,
            r#"{"data":{"secret":[],"others":[]}}"#,
            r#"{"clients":[{"id":1}]}"#,
            r#"[{"id":1}"#,
        ] {
            let error = map_contacts(body.as_bytes()).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{body}: {error}");
        }
    }

    #[test]
    fn lists_and_maps_come_as_such_or_as_text() {
        let plain = contact(&json!({
            "id": 7, "tags": ["a", "b"], "customFields": {"Member": true, "Age": 7, "None": null},
        }));
        assert_eq!(plain["tags"], r#"["a","b"]"#);
        assert_eq!(plain["custom_fields"], r#"{"Age":7,"Member":true,"None":null}"#);
        assert!(!plain.contains_key("extra"));
        let text = contact(&json!({
            "id": "7",
            "tags": "[\"a\", \"b\"]",
            "customFields": "{\"Age\": 7, \"Member\": true, \"None\": null}",
        }));
        assert_eq!(text, plain);
        let objects = contact(&json!({
            "id": 7,
            "tags": [{"name": "a"}, {"name": "b", "id": ""}],
            "customFields": plain["custom_fields"],
        }));
        assert_eq!(objects, plain);
        let with_ids = contact(&json!({"id": 7, "tags": [{"id": "t1", "name": "a"}, "b"]}));
        assert_eq!(with_ids["tags"], r#"["a","b"]"#);
        assert_eq!(with_ids["extra"], r#"{"tags":[{"id":"t1","name":"a"},"b"]}"#);
    }

    #[test]
    fn text_that_is_no_json_stays_in_extra() {
        let given = json!({"id": 7, "customFields": "{\"membership\":", "tags": [["a"]]});
        let mapped = map_contacts(json!([given]).to_string().as_bytes()).unwrap();
        let lead: Columns = row(&mapped.leads, 0).into_iter().collect();
        assert_eq!((&*lead["custom_fields"], &*lead["tags"]), ("{}", "[]"));
        assert_eq!(lead["extra"], r#"{"customFields":"{\"membership\":","tags":[["a"]]}"#);
        assert_eq!(mapped.warnings, [("custom_fields", 1), ("tags", 1)].into());
    }

    #[test]
    fn an_absent_value_is_the_same_in_all_its_forms() {
        let contacts = json!({
            "id": "7", "name": "", "channel": null, "phoneNumber": " ", "tags": "[]",
            "customFields": "{}", "location": {"id": "", "title": null}, "workspace": {},
            "notes": [], "stage": {}, "lastActivity": "", "createdAt": null, "username": "",
        });
        assert_eq!(contact(&contacts), contact(&json!({"id": "7"})));
        let clients = json!({
            "id": "7", "company": {}, "primaryStaff": null, "primaryLocation": [], "email": "",
            "phone": "", "countryCode": " ", "dob": null, "tags": [], "customFields": "",
        });
        assert_eq!(client(&clients), client(&json!({"id": "7"})));
    }

    #[test]
    fn a_workspace_is_a_location() {
        let place = json!({"id": "L1", "title": "Main Office"});
        let located = contact(&json!({"id": "7", "location": place}));
        assert_eq!(located["profile_id"], "L1");
        assert_eq!(located["profile_name"], "Main Office");
        assert_eq!(contact(&json!({"id": "7", "workspace": place})), located);
        assert_eq!(contact(&json!({"id": "7", "workspace": place, "location": place})), located);
        let both = json!({"id": "7", "location": place, "workspace": {"id": "W", "city": "Reno"}});
        assert_eq!(contact(&both)["extra"], r#"{"workspace":{"city":"Reno","id":"W"}}"#);
        assert_eq!(contact(&json!({"id": "7", "location": "L1"}))["profile_id"], "L1");
    }

    #[test]
    fn stages_say_who_is_qualified() {
        for (native, stage, qualified) in [
            ("Subscriber", "subscriber", Some("false")),
            ("lead", "lead", Some("false")),
            ("Marketing qualified lead (MQL)", "marketing_qualified", Some("false")),
            ("Sales qualified lead (SQL)", "sales_qualified", Some("true")),
            ("Opportunity", "opportunity", Some("true")),
            ("CUSTOMER", "customer", Some("true")),
            ("Evangelist", "evangelist", Some("true")),
            ("Lost", "lost", None),
            ("Follow-up Required", "other", None),
        ] {
            let lead = contact(&json!({"id": "7", "stage": native}));
            assert_eq!((&*lead["stage"], &*lead["stage_native"]), (stage, native));
            assert_eq!(lead.get("is_qualified").map(String::as_str), qualified, "{native}");
        }
        let client = client(&json!({"id": "7"}));
        assert_eq!(client["stage"], "customer");
        assert!(!client.contains_key("is_qualified"));
    }

    #[test]
    fn channels_are_known_in_any_case() {
        for (native, channel) in [
            ("Whatsapp", "whatsapp"),
            ("WHATSAPP", "whatsapp"),
            ("instagram", "instagram"),
            ("Messenger", "messenger"),
            ("telegram", "telegram"),
            ("Website", "website"),
            ("Pigeon", "other"),
        ] {
            let lead = contact(&json!({"id": "7", "channel": native}));
            assert_eq!((&*lead["channel"], &*lead["channel_native"]), (channel, native));
        }
        assert_eq!(contact(&json!({"id": "7"}))["channel"], "other");
        assert_eq!(client(&json!({"id": "7"}))["channel"], "other");
    }

    #[test]
    fn a_client_has_what_its_objects_hold_and_the_rest_under_their_names() {
        let lead = client(&json!({
            "id": "7",
            "clientId": 12,
            "fullName": "Ann Example",
            "preferredName": "Annie",
            "company": {"name": "Example & Co", "size": 3},
            "primaryLocation": {"id": "L1", "title": "Main Office", "phone": null},
            "primaryStaff": {"id": "S1", "name": "Bea"},
            "address": "1 Example Street",
            "preferredLanguage": "English",
            "referralSource": "Google",
            "gender": "Female",
            "emergencyCountryCode": "+52",
        }));
        for (column, value) in [
            ("visitor_id", "12"),
            ("company_name", "Example & Co"),
            ("profile_id", "L1"),
            ("profile_name", "Main Office"),
            ("assigned_to", "S1"),
            ("street", "1 Example Street"),
            ("language", "English"),
            ("marketing_source", "Google"),
        ] {
            assert_eq!(lead[column], value, "{column}");
        }
        let extra: Json = serde_json::from_str(&lead["extra"]).unwrap();
        let expected = json!({
            "preferredName": "Annie",
            "company": {"size": 3},
            "primaryStaff": {"name": "Bea"},
            "gender": "Female",
            "emergencyCountryCode": "+52",
        });
        assert_eq!(extra, expected);
        assert_eq!(client(&json!({"id": "7", "company": "Acme"}))["company_name"], "Acme");
    }

    #[test]
    fn telephone_numbers_come_with_and_without_plus_and_code() {
        for number in ["+919812345678", "919812345678", "9812345678", "09812345678"] {
            let lead = contact(&json!({"id": "7", "phoneNumber": number}));
            assert_eq!(lead["phone"], "+919812345678", "{number}");
            assert_eq!(lead["phone_raw"], number);
        }
        let as_number = contact(&json!({"id": "7", "phoneNumber": 447_400_123_456_u64}));
        assert_eq!(as_number["phone"], "+447400123456");
        for (code, number) in [
            ("+44", "7400123456"),
            ("44", "07400123456"),
            ("0044", "7400 123456"),
            ("+44", "447400123456"),
            ("+1", "+447400123456"),
        ] {
            let lead = client(&json!({"id": "7", "countryCode": code, "phone": number}));
            assert_eq!(lead["phone"], "+447400123456", "{code} {number}");
            assert_eq!(lead["phone_raw"], format!("{code} {number}"));
            assert!(!lead.contains_key("extra"));
        }
        let alone = client(&json!({"id": "7", "countryCode": "+1", "phone": ""}));
        assert!(!alone.contains_key("phone_raw"));
        assert_eq!(alone["extra"], r#"{"countryCode":"+1"}"#);
    }

    #[test]
    fn values_that_do_not_fit_stay_in_extra_and_are_counted() {
        let record = json!({
            "id": "7",
            "createdAt": "yesterday",
            "updatedAt": "2024-08-05 19:32:15",
            "phone": "12",
            "countryCode": true,
            "email": "nobody",
            "address": {"street": "Example Street"},
            "notes": ["a"],
            "primaryLocation": ["L1"],
            "surprise": {"a": [1.50]},
        });
        let mapped = map_clients(json!([record, 7, {"id": {}}]).to_string().as_bytes());
        insta::assert_snapshot!(rendered(&mapped.unwrap()));
    }

    proptest! {
        #[test]
        fn the_false_z_of_an_appointment_is_read_by_no_mapping(
            hour in 0..24_u8, minute in 0..60_u8, is_client in any::<bool>(),
        ) {
            let sample = fixture!("appointments/appointment_scheduled_event.json");
            let event: Json = serde_json::from_slice(sample).unwrap();
            let mut record = event["appointment"].clone();
            let map = if is_client { client } else { contact };
            for name in ["startTime", "endTime", "startTimeUTC", "endTimeUTC"] {
                record[name] = json!(format!("2024-08-05T{hour:02}:{minute:02}:33.000Z"));
            }
            let lead = map(&record);
            let extra: Json = serde_json::from_str(&lead["extra"]).unwrap();
            for name in ["startTime", "endTime"] {
                prop_assert_eq!(&extra[name], &record[name]);
            }
            let times = lead.iter().filter(|(column, _)| column.ends_with("_at"));
            prop_assert!(times.into_iter().all(|(_, time)| !time.contains(":33")));
        }
    }
}
