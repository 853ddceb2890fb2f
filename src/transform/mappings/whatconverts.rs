//! WhatConverts `leads`: calls, forms, chats and the rest, all in one flat record.
//!
//! No field but the id can be relied on: a field may be absent, null, empty, or `[]` where a map is
//! meant. Nothing moves without the lead changing, so no field is volatile.

use crate::ids::ProviderId;
use crate::schema::lead::Lead;
use crate::schema::lead::Text;
use crate::transform::ProfileSettings;
use crate::transform::envelope::Form;
use crate::transform::mapper::Kept;
use crate::transform::mapper::Mapper;
use crate::transform::reader::Reader;
use crate::transform::record::Fields;
use crate::transform::terms;

fields! { Field:
    lead_id
    account account_id profile profile_id user_id
    date_created last_updated
    lead_type lead_status lead_state lead_score quotable spam duplicate
    contact_name caller_name sender_name contact_company_name
    contact_email_address email_address
    contact_phone_number phone_number caller_number
    city state zip country caller_city caller_state caller_zip caller_country
    lead_source lead_medium lead_campaign lead_content lead_keyword
    lead_url landing_url
    gclid msclkid facebook_click_id facebook_visitor_id facebook_browser_id
    google_analytics_client_id
    ip_address device_type device_make operating_system browser
    quote_value sales_value
    message email_subject email_message notes spotted_keywords form_name
    call_status answer_status call_duration_seconds
    recording voicemail call_transcription voicemail_transcription
    tracking_number destination_number
    custom_fields additional_fields
}

use Field as F;

/// Fields WhatConverts is known to send that have no column: they go to `extra`.
const WITHOUT_COLUMN: &[&str] = &[
    "field_mappings",
    "mapped_fields",
    "lead_analysis",
    "customer_journey",
    "call_duration",
    "phone_name",
    "line_type",
    "play_recording",
    "play_voicemail",
    "chat_status",
    "event_category",
    "event_action",
    "event_label",
    "category",
    "action",
    "transaction_id",
    "transaction_tax",
    "transaction_shipping",
    "unbounce_page_id",
    "unbounce_variant_id",
    "unbounce_visitor_id",
    "roistat_visit_id",
    "hubspot_visitor_id",
    "salesforce_user_id",
    "vwo_account_id",
    "vwo_experiment_id",
    "vwo_variant_id",
    "vwo_user_id",
];

/// Returns the mapping of the stream `leads`.
pub(in crate::transform) fn leads() -> Mapper {
    Mapper {
        provider: ProviderId::WhatConverts,
        form: Form {
            id: "lead_id",
            names: &["leads"],
            marks: &["page_number", "total_pages", "total_leads"],
            may_be_array: false,
        },
        id_place: F::lead_id as usize,
        fields: Fields::new(&[F::NAMES, WITHOUT_COLUMN], &[]),
        kept: Kept::default(),
        read: |reader, lead| {
            read_account(reader, lead);
            read_kind(reader, lead);
            read_person(reader, lead);
            read_origin(reader, lead);
            read_worth(reader, lead);
            read_words(reader, lead);
        },
    }
}

fn read_account<'a>(reader: &mut Reader<'_, 'a>, lead: &mut Lead<'a>) {
    lead.account_id = reader.text(F::account_id, "account_id");
    lead.account_name = reader.text(F::account, "account_name");
    lead.profile_id = reader.text(F::profile_id, "profile_id");
    lead.profile_name = reader.text(F::profile, "profile_name");
    lead.visitor_id = reader.text(F::user_id, "visitor_id");
    lead.created_at = reader.time(F::date_created, "created_at");
    lead.updated_at = reader.time(F::last_updated, "updated_at");
}

fn read_kind<'a>(reader: &mut Reader<'_, 'a>, lead: &mut Lead<'a>) {
    lead.channel_native = reader.text(F::lead_type, "channel_native");
    if let Some(native) = &lead.channel_native {
        lead.channel = terms::channel(native).into();
    }
    lead.status_native = reader.text(F::lead_state, "status_native");
    lead.status = lead.status_native.as_deref().map(|native| terms::status(native).into());
    lead.qualification_native = reader.text(F::quotable, "qualification_native");
    lead.is_qualified = lead.qualification_native.as_deref().and_then(qualified);
    lead.is_repeat = reader.flag(F::lead_status, "is_repeat", repeated);
    lead.is_spam = reader.bool(F::spam, "is_spam");
    lead.is_duplicate = reader.bool(F::duplicate, "is_duplicate");
    lead.score = reader.float(F::lead_score, "score");
}

/// Reads `quotable`; `Pending` and `Not Set` say that nobody has judged yet.
fn qualified(native: &str) -> Option<bool> {
    match terms::folded(native).as_str() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

/// Reads `lead_status`.
fn repeated(native: &str) -> Option<bool> {
    match terms::folded(native).as_str() {
        "repeat" => Some(true),
        "unique" => Some(false),
        _ => None,
    }
}

fn read_person<'a>(reader: &mut Reader<'_, 'a>, lead: &mut Lead<'a>) {
    lead.full_name =
        reader.first_text(&[F::contact_name, F::caller_name, F::sender_name], "full_name");
    lead.company_name = reader.text(F::contact_company_name, "company_name");
    lead.city = reader.first_text(&[F::city, F::caller_city], "city");
    lead.region = reader.first_text(&[F::state, F::caller_state], "region");
    lead.postal_code = reader.first_text(&[F::zip, F::caller_zip], "postal_code");
    lead.country = reader.country(&[F::country, F::caller_country]);

    let emails = [F::contact_email_address, F::email_address];
    lead.email_raw = reader.first_text(&emails, "email_raw");
    (lead.email, lead.email_key) = reader.email(lead.email_raw.as_deref());

    let phones = [F::contact_phone_number, F::phone_number, F::caller_number];
    lead.phone_raw = reader.first_text(&phones, "phone_raw");
    let settings = reader.settings;
    let region = profile(reader, lead)
        .and_then(|profile| profile.default_region.as_deref())
        .or(settings.default_region.as_deref());
    let phone = reader.phone(lead.phone_raw.as_deref(), lead.country.as_deref(), region);
    (lead.phone, lead.phone_key) = phone;
}

/// Returns what the settings say of the lead's profile; where it names none, of the one asked for.
fn profile<'a>(reader: &Reader<'_, 'a>, lead: &Lead<'_>) -> Option<&'a ProfileSettings> {
    let settings = reader.settings;
    if settings.profiles.is_empty() {
        return None;
    }
    match lead.profile_id.as_deref() {
        Some(id) => settings.profile(&format!("profile:{id}")),
        None => settings.profile(reader.page.scope_label.split('?').next()?),
    }
}

fn read_origin<'a>(reader: &mut Reader<'_, 'a>, lead: &mut Lead<'a>) {
    lead.marketing_source = reader.text(F::lead_source, "marketing_source");
    lead.marketing_medium = reader.text(F::lead_medium, "marketing_medium");
    lead.marketing_campaign = reader.text(F::lead_campaign, "marketing_campaign");
    lead.marketing_content = reader.text(F::lead_content, "marketing_content");
    lead.marketing_keyword = reader.text(F::lead_keyword, "marketing_keyword");
    lead.lead_url = reader.text(F::lead_url, "lead_url");
    lead.landing_url = reader.text(F::landing_url, "landing_url");
    lead.gclid = reader.text(F::gclid, "gclid");
    lead.msclkid = reader.text(F::msclkid, "msclkid");
    let facebook = [F::facebook_click_id, F::facebook_visitor_id];
    lead.facebook_click_id = reader.first_text(&facebook, "facebook_click_id");
    lead.facebook_browser_id = reader.text(F::facebook_browser_id, "facebook_browser_id");
    lead.ga_client_id = reader.text(F::google_analytics_client_id, "ga_client_id");
    lead.ip_address = reader.text(F::ip_address, "ip_address");
    lead.device_type = reader.text(F::device_type, "device_type");
    lead.device_make = reader.text(F::device_make, "device_make");
    lead.operating_system = reader.text(F::operating_system, "operating_system");
    lead.browser = reader.text(F::browser, "browser");
}

fn read_worth<'a>(reader: &mut Reader<'_, 'a>, lead: &mut Lead<'a>) {
    lead.quote_value = reader.money(F::quote_value, "quote_value");
    lead.sales_value = reader.money(F::sales_value, "sales_value");
    if lead.quote_value.is_none() && lead.sales_value.is_none() {
        return;
    }
    let settings = reader.settings;
    lead.currency = profile(reader, lead)
        .and_then(|profile| profile.currency.as_deref())
        .or(settings.currency.as_deref())
        .map(Text::Borrowed);
}

fn read_words<'a>(reader: &mut Reader<'_, 'a>, lead: &mut Lead<'a>) {
    lead.message = read_message(reader);
    lead.notes = reader.text(F::notes, "notes");
    lead.keywords = reader.list(F::spotted_keywords, "keywords");
    lead.form_name = reader.text(F::form_name, "form_name");
    lead.call_status = reader.text(F::call_status, "call_status");
    lead.answer_status = reader.text(F::answer_status, "answer_status");
    lead.call_duration_s = reader.int(F::call_duration_seconds, "call_duration_s");
    lead.recording_url = reader.first_text(&[F::recording, F::voicemail], "recording_url");
    let transcripts = [F::call_transcription, F::voicemail_transcription];
    lead.transcript = reader.first_text(&transcripts, "transcript");
    lead.tracking_number = reader.text(F::tracking_number, "tracking_number");
    lead.destination_number = reader.text(F::destination_number, "destination_number");
    lead.custom_fields = reader.map(F::custom_fields, "custom_fields");
    lead.form_fields = reader.map(F::additional_fields, "form_fields");
}

/// Returns the message, or else subject and text of the e-mail with a blank line between them.
fn read_message<'a>(reader: &mut Reader<'_, 'a>) -> Option<Text<'a>> {
    let message = reader.text(F::message, "message");
    if message.is_some() {
        return message;
    }
    let subject = reader.text(F::email_subject, "message");
    let text = reader.text(F::email_message, "message");
    match (subject, text) {
        (Some(subject), Some(text)) => Some(format!("{subject}\n\n{text}").into()),
        (subject, text) => subject.or(text),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::Value as Json;
    use serde_json::json;

    use super::*;
    use crate::schema::lead::Kind;
    use crate::schema::lead::column;
    use crate::transform::Mapped;
    use crate::transform::Mapping;
    use crate::transform::Page;
    use crate::transform::Settings;
    use crate::transform::testing;
    use crate::transform::testing::Columns;
    use crate::transform::testing::cell;
    use crate::transform::testing::rendered;
    use crate::transform::testing::row;

    fn settings() -> Settings {
        let british = ProfileSettings {
            currency: Some("GBP".to_owned()),
            default_region: Some("GB".to_owned()),
        };
        Settings {
            currency: Some("USD".to_owned()),
            default_region: Some("US".to_owned()),
            profiles: [("profile:123".to_owned(), british)].into(),
            ..testing::settings()
        }
    }

    fn page(body: &[u8]) -> Page<'_> {
        Page {
            scope_label: "profile:9?spam=true",
            partition: "profile:9",
            ..testing::page("leads", body)
        }
    }

    fn map(body: &[u8]) -> Mapped {
        leads().map(&page(body), &settings()).unwrap()
    }

    /// Maps records that are written here, and returns the columns of the first that are not null.
    fn columns(record: &Json) -> Columns {
        let body = serde_json::to_vec(&json!({ "leads": [record] })).unwrap();
        testing::columns_of(&leads(), &page(&body), &settings())
    }

    macro_rules! fixture {
        ($name:literal) => {
            include_bytes!(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/fixtures/whatconverts/leads/",
                $name
            ))
        };
    }

    #[test]
    fn a_page_of_leads() {
        insta::assert_snapshot!(rendered(&map(fixture!("leads-page.json"))));
    }

    #[test]
    fn a_single_lead_in_an_envelope() {
        insta::assert_snapshot!(rendered(&map(fixture!("lead-single-envelope.json"))));
    }

    #[test]
    fn a_call_as_a_bare_record() {
        insta::assert_snapshot!(rendered(&map(fixture!("lead-call.json"))));
    }

    #[test]
    fn a_new_lead_as_sent_by_a_webhook() {
        insta::assert_snapshot!(rendered(&map(fixture!("webhook-lead-new.json"))));
    }

    #[test]
    fn a_call_in_progress_as_sent_by_a_webhook() {
        insta::assert_snapshot!(rendered(&map(fixture!("webhook-call-in-progress.partial.json"))));
    }

    #[test]
    fn a_text_message_as_sent_by_a_webhook() {
        insta::assert_snapshot!(rendered(&map(fixture!("webhook-text-message.partial.json"))));
    }

    #[test]
    fn values_that_do_not_fit_stay_in_extra_and_are_counted() {
        let record = json!({
            "lead_id": "abc-1",
            "date_created": "yesterday",
            "last_updated": "2026-06-05 16:15:12",
            "lead_type": "Carrier Pigeon",
            "lead_status": "Neither",
            "spam": "maybe",
            "lead_score": "high",
            "quote_value": "$1,200",
            "sales_value": "1200.50",
            "contact_email_address": "not an address",
            "contact_phone_number": "12",
            "caller_number": "+17045550177",
            "country": "Narnia",
            "call_duration_seconds": "13 seconds",
            "additional_fields": "free text",
            "custom_fields": [],
            "city": {"name": "Reno"},
            "surprise": [1, 2],
            "surprise_without_value": null,
        });
        let body = serde_json::to_vec(&json!({ "leads": [record] })).unwrap();
        insta::assert_snapshot!(rendered(&map(&body)));
    }

    #[test]
    fn a_record_without_an_id_is_a_reject_and_leaves_a_hole() {
        let mapped = map(
            br#"{"leads":[{"lead_id":1},[2],{"lead_id":null},{"lead_id":4},{"city":"x"},{"lead_id":{}},{"lead_id":1.5},null]}"#,
        );
        assert_eq!(mapped.places, [0, 3]);
        let rejects: Vec<_> = mapped
            .rejects
            .iter()
            .map(|reject| format!("{} {}: {}", reject.index, reject.record, reject.reason))
            .collect();
        insta::assert_snapshot!(rejects.join("\n"));
    }

    #[test]
    fn leads_come_in_the_order_of_their_ids() {
        let indexes = |mapped: &Mapped| mapped.rejects.iter().map(|r| r.index).collect::<Vec<_>>();
        let ids = |mapped: &Mapped| mapped.leads.column(column::LEAD_ID).clone();
        let sorted = map(br#"{"leads":[{"lead_id":1},[2],{"lead_id":3},{"lead_id":5},7]}"#);
        assert_eq!((&*sorted.places, indexes(&sorted)), (&[0, 2, 3][..], vec![1, 4]));
        for (page, places) in [
            (r#"{"leads":[{"lead_id":5},[2],{"lead_id":3},[4],{"lead_id":1}]}"#, [4, 2, 0]),
            (r#"{"leads":[{"lead_id":3},[2],{"lead_id":1},[4],{"lead_id":5}]}"#, [2, 0, 4]),
        ] {
            let mapped = map(page.as_bytes());
            assert_eq!((&*mapped.places, indexes(&mapped)), (&places[..], vec![1, 3]));
            assert_eq!(&ids(&mapped), &ids(&sorted));
        }
    }

    #[test]
    fn the_leads_own_country_and_profile_come_first() {
        let record = |profile: u32, country: &str, phone: &str| {
            let lead = columns(&json!({
                "lead_id": 1,
                "profile_id": profile,
                "country": country,
                "phone_number": phone,
                "quote_value": 0,
            }));
            (lead.get("phone").cloned().unwrap_or_default(), lead["currency"].clone())
        };
        let pair = |phone: &str, currency: &str| (phone.to_owned(), currency.to_owned());
        assert_eq!(record(123, "", "020 7946 0018"), pair("+442079460018", "GBP"));
        assert_eq!(record(123, "US", "704-555-0155"), pair("+17045550155", "GBP"));
        assert_eq!(record(7, "", "704-555-0155"), pair("+17045550155", "USD"));
        assert_eq!(record(7, "", "020 7946 0018"), pair("", "USD"));
    }

    #[test]
    fn an_email_is_a_message_of_subject_and_text() {
        let lead = columns(&json!({
            "lead_id": 1,
            "sender_name": "Ann",
            "email_subject": "Hello",
            "email_message": "Call me.",
        }));
        assert_eq!(lead["message"], "Hello\n\nCall me.");
        assert_eq!(lead["full_name"], "Ann");
        assert!(!lead.contains_key("extra"));
    }

    #[test]
    fn of_several_names_for_a_thing_the_others_stay_in_extra_unless_they_say_the_same() {
        let lead = columns(&json!({
            "lead_id": 1,
            "phone_number": "+17045550155",
            "caller_number": "+17045550155",
            "contact_name": "Ann",
            "caller_name": "WIRELESS CALLER",
            "voicemail": "https://example.com/v",
            "message": "Hi",
            "email_subject": "Hello",
        }));
        assert_eq!(lead["recording_url"], "https://example.com/v");
        assert_eq!(lead["extra"], r#"{"caller_name":"WIRELESS CALLER","email_subject":"Hello"}"#);
    }

    #[test]
    fn a_form_may_be_a_list_of_pairs_with_repeated_labels() {
        let lead = columns(&json!({
            "lead_id": 1,
            "additional_fields": [
                {"field_name": "*", "field_value": "a"},
                {"field_name": "Name:", "field_value": "Ann"},
                {"field_name": "*", "field_value": "b"},
            ],
        }));
        assert_eq!(lead["form_fields"], r#"{"Name:":"Ann","*":"b"}"#);
        assert_eq!(lead["extra"], r#"{"additional_fields":[{"name":"*","value":"a"}]}"#);
    }

    #[test]
    fn an_empty_field_and_an_absent_one_are_the_same_lead() {
        let empty = json!({
            "lead_id": 1, "city": "", "notes": " ", "quote_value": null, "additional_fields": [],
            "lead_analysis": [], "spotted_keywords": "", "gclid": null, "unheard_of": {},
        });
        let absent = columns(&json!({ "lead_id": 1 }));
        assert_eq!(columns(&empty), absent);
    }

    #[test]
    fn every_field_of_every_example_is_in_a_column_or_in_extra() {
        for body in [
            fixture!("leads-page.json").as_slice(),
            fixture!("lead-single-envelope.json"),
            fixture!("lead-call.json"),
            fixture!("webhook-lead-new.json"),
            fixture!("webhook-call-in-progress.partial.json"),
            fixture!("webhook-text-message.partial.json"),
        ] {
            let page: Json = serde_json::from_slice(body).unwrap();
            let records = page["leads"].as_array().cloned().unwrap_or_else(|| vec![page]);
            for record in records {
                let lead = columns(&record);
                for (name, value) in record.as_object().unwrap() {
                    assert!(value.is_null() || holds(&lead, name, value), "{name}");
                }
            }
        }
    }

    /// Tells whether the columns of a lead tell what one field of its record does.
    fn holds(lead: &Columns, name: &str, value: &Json) -> bool {
        let json = |column: &str| {
            let text = lead.get(column).map_or("null", String::as_str);
            serde_json::from_str::<Json>(text).unwrap()
        };
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        json("extra")[name] == *value
            || match name {
                "lead_status" => {
                    lead["is_repeat"] == text.eq_ignore_ascii_case("repeat").to_string()
                }
                "spotted_keywords" => {
                    json("keywords") == json!(text.split(',').collect::<Vec<_>>())
                }
                "additional_fields" => json("form_fields") == *value,
                _ => lead.iter().any(|(column, cell)| *column != "extra" && *cell == text),
            }
    }

    #[test]
    fn a_text_cut_inside_an_emoji_is_no_reject() {
        let mapped = map(br#"{"leads":[{"lead_id":1,"notes":"Hi \ud83d","od\udd00d":"x\ude00"}]}"#);
        let lead: Columns = row(&mapped.leads, 0).into_iter().collect();
        assert_eq!(lead["notes"], "Hi \u{fffd}");
        assert_eq!(lead["extra"], "{\"od\u{fffd}d\":\"x\u{fffd}\"}");
    }

    #[test]
    fn a_value_nested_a_hundred_thousand_levels_deep_is_a_value() {
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        let body = format!(
            r#"{{"leads":[{{"lead_id":1,"city":{deep},"x":{deep},"custom_fields":{{"a":{deep}}}}}]}}"#
        );
        assert_eq!(map(body.as_bytes()).places, [0]);
    }

    proptest! {
        #[test]
        fn the_order_of_a_forms_labels_is_no_change(
            form in prop::collection::vec(("[a-z]{1,3}", "[a-z]{0,3}"), 0..6),
        ) {
            let form: BTreeMap<String, String> = form.into_iter().collect();
            let body = |pairs: Vec<String>| {
                format!(r#"{{"lead_id":1,"additional_fields":{{{}}}}}"#, pairs.join(","))
            };
            let pairs: Vec<String> =
                form.iter().map(|(name, value)| format!("{name:?}:{value:?}")).collect();
            let reversed: Vec<String> = pairs.iter().rev().cloned().collect();
            let hash = |body: String| {
                let mapped = map(body.as_bytes());
                cell(Kind::Text, mapped.leads.column(column::CONTENT_HASH), 0)
            };
            prop_assert_eq!(hash(body(pairs)), hash(body(reversed)));
        }
    }
}
