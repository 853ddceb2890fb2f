//! Whautomate's wire form, as far as paging and refusals need it.
//!
//! The vendor documents bare lists, and only good answers. That the API stands behind Amazon's API
//! gateway is inferred (the documents are that gateway's export); its answers are told from others
//! by status and text. Texts of other errors may be JSON of several forms, plain, or missing.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::PROVIDER;
use crate::extract::Answer;
use crate::extract::Error;
use crate::extract::PageFacts;
use crate::extract::Result;
use crate::extract::providers::json;
use crate::extract::providers::refusal;
use crate::extract::providers::refusal::NO_WORDS;
use crate::extract::providers::refusal::Refusal;
use crate::extract::providers::rows::Listing;
use crate::extract::providers::rows::Names;
use crate::extract::providers::rows::Rows;

/// Where the reason of a refusal may stand, in a client's order.
const WORDS: [&str; 3] = ["/error", "/error/message", "/message"];

/// The gateway's words for a path it does not know; its status is that of a refused key.
const UNKNOWN_PATH: &str = "missing authentication token";

/// Refuses an answer whose status says that it is none.
pub(super) fn refuse_bad_status(answer: &Answer) -> Result<()> {
    refusal::refuse_bad_status(PROVIDER, answer, &WORDS, judge)
}

fn judge(refusal: Refusal<'_>, words: Option<&str>, otherwise: &str) -> Error {
    let lower = words.unwrap_or_default().to_ascii_lowercase();
    match (refusal.status, lower.trim_end_matches(['.', '!'])) {
        // The gateway's two texts for a limit: the day's, and (any other) the minute's.
        (429, "limit exceeded") => refusal.used_up(words.unwrap_or_default()),
        (403, UNKNOWN_PATH) => refusal.refused(words.unwrap_or_default()),
        // Under a sound status the gateway's word for a refused key is one all the same.
        (200..=299, "forbidden" | "unauthorized") => refusal.unauthorized(&lower),
        _ => refusal.judge(words, otherwise),
    }
}

/// Reads a page of a listing. Totals in envelopes are not taken: those who describe envelopes
/// contradict each other, and the vendor.
pub(super) fn read_rows(body: &[u8]) -> Result<PageFacts> {
    let listing: Listing<Record> = json::parse(PROVIDER, body)?;
    match listing.rows {
        Rows::Listed(rows) => Ok(PageFacts { rows, is_json: true, ..PageFacts::default() }),
        Rows::Nothing => Ok(PageFacts { is_json: true, ..PageFacts::default() }),
        Rows::Other => Err(error_in(body, "there is no list of records in it")),
    }
}

/// Returns the error that a body with a sound status is, which `otherwise` describes.
fn error_in(body: &[u8], otherwise: &str) -> Error {
    match json::words(body, &WORDS) {
        Some(words) => judge(Refusal::in_page(PROVIDER, 200), Some(&words), NO_WORDS),
        None => json::broken(PROVIDER, otherwise),
    }
}

/// What the answer for one record holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Single {
    /// No record.
    None,
    /// The record.
    Record {
        /// Whether it stands bare or in a list, as the rows of a page do.
        is_page: bool,
    },
}

/// Reads the answer for one record: documented is the record itself; it is also taken out of a list
/// and from under a name. Fails where it is something else, or another record than `asked`.
pub(super) fn read_single(body: &[u8], asked: &str) -> Result<Single> {
    let whole: Value = json::parse(PROVIDER, body)?;
    let (held, is_page) = match unwrapped(&whole) {
        Some(inner) => (inner, inner.is_array()),
        None => (&whole, true),
    };
    let record = match held {
        Value::Null => None,
        Value::Array(rows) if rows.is_empty() => None,
        Value::Array(rows) => rows.first().filter(|_| rows.len() == 1),
        one => Some(one),
    };
    match record.map(|record| &record[Record::ID]) {
        None if held.as_array().is_none_or(Vec::is_empty) => Ok(Single::None),
        None => Err(json::broken(PROVIDER, "it is a list, not the record asked for")),
        Some(Value::String(id)) if id.trim() == asked => Ok(Single::Record { is_page }),
        Some(Value::Number(id)) if id.to_string() == asked => Ok(Single::Record { is_page }),
        Some(Value::String(_) | Value::Number(_)) => {
            Err(json::broken(PROVIDER, "it is another record than the one asked for"))
        }
        Some(_) => Err(error_in(body, "it is neither a record nor a list of records")),
    }
}

/// Returns what stands under a name in an answer that is no record itself.
fn unwrapped(whole: &Value) -> Option<&Value> {
    let envelope = whole.as_object().filter(|object| !object.contains_key(Record::ID))?;
    let names = Record::LISTS.iter().chain(&["contact", "client"]);
    names.filter_map(|name| envelope.get(*name)).next()
}

/// Tells whether a refusal says that the record of `stream` asked for does not exist. No such answer
/// is documented. A 404 is one, but for a path that is missing, which the servers in use tell by
/// their words or in HTML; other statuses only where the words are about the id.
pub(super) fn says_unknown_record(error: &Error, stream: &str) -> bool {
    let (status, text) = match error {
        Error::Refused { status, text, .. } | Error::Unauthorized { status, text, .. } => {
            (*status, text.to_ascii_lowercase())
        }
        _ => return false,
    };
    let names_path = text.contains("cannot get") || text.contains("text/html");
    let names_id = [stream.trim_end_matches('s'), "record", "id"]
        .iter()
        .any(|name| text.split(|c: char| !c.is_alphanumeric()).any(|word| word == *name));
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let says_unknown = says(&["not found", "not exist", "no such", "unknown", "invalid"])
        && !says(&["key", "token", "auth", "credential"]);
    match status {
        404 | 410 => !names_path,
        200 | 400 | 403 | 422 => names_id && says_unknown,
        _ => false,
    }
}

/// Reads the answer for the account, of which nothing is needed but that it is one.
pub(super) fn read_account(body: &[u8]) -> Result<()> {
    #[derive(Deserialize)]
    struct Account {
        name: Option<IgnoredAny>,
        #[serde(rename = "ownerEmail")]
        owner_email: Option<IgnoredAny>,
        data: Option<IgnoredAny>,
    }
    let account: Account = json::parse(PROVIDER, body)?;
    match account {
        Account { name: None, owner_email: None, data: None } => {
            Err(error_in(body, "it is not an account"))
        }
        _ => Ok(()),
    }
}

/// The fields of a contact and of a client: documented for both, and seen in bodies of webhooks,
/// which carry the same records.
struct Record;

impl Names for Record {
    const ID: &'static str = "id";
    const CREATED_AT: &'static str = "createdAt";
    const UPDATED_AT: Option<&'static str> = Some("updatedAt");
    const LISTS: &'static [&'static str] = &["data", "contacts", "clients"];
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Hint;
    use crate::record::id_hash;

    fn refused(status: u16, media_type: &str, body: &'static str) -> Error {
        refuse_bad_status(&Answer::of_test(status, media_type, body)).unwrap_err()
    }

    fn refused_json(status: u16, body: &'static str) -> Error {
        refused(status, "application/json", body)
    }

    #[test]
    fn a_page_is_a_bare_list_or_in_an_envelope() {
        let bare = r#"[{"id":"bXcgZ2xXbCU","name":"Alice Johnson","channel":"Whatsapp",
            "phoneNumber":"+15550100002","tags":"[\"Prospect\"]","location":{"id":"LXhX3x8QYI"},
            "createdAt":"2024-03-15T10:00:00Z","updatedAt":"2024-03-17T11:45:00Z"},
            {"id":"nCVBNhfgYU","clientId":"C2","createdAt":"2024-08-05T19:32:15.046Z"}]"#;
        let facts = read_rows(bare.as_bytes()).unwrap();
        assert_eq!((facts.total, facts.total_pages, facts.page, facts.size), Default::default());
        assert_eq!(facts.rows[0].id, Some(id_hash("bXcgZ2xXbCU")));
        let times = (facts.rows[0].created_at.unwrap(), facts.rows[0].updated_at.unwrap());
        assert_eq!((times.1 - times.0).num_minutes(), 2 * 24 * 60 + 105);
        assert_eq!(facts.rows[1].updated_at, None);
        for envelope in [
            format!(r#"{{"data":{bare},"total":77,"pagination":{{"page":9,"total":3}}}}"#),
            format!(r#"{{"success":true,"contacts":{bare}}}"#),
            format!(r#"{{"clients":{bare}}}"#),
            format!(r#"{{"data":{{"clients":{bare},"total":5}}}}"#),
        ] {
            assert_eq!(read_rows(envelope.as_bytes()).unwrap(), facts, "{envelope}");
        }
    }

    #[test]
    fn a_page_past_the_end_is_empty_and_one_without_a_list_is_an_error() {
        for empty in ["[]", r#"{"data":[]}"#, r#"{"contacts":null}"#] {
            let facts = read_rows(empty.as_bytes()).unwrap();
            assert_eq!(facts, PageFacts { is_json: true, ..PageFacts::default() }, "{empty}");
        }
        for broken in ["{}", "null", "", "<html>", "[{", r#"{"data":"none"}"#] {
            let read = read_rows(broken.as_bytes());
            assert!(matches!(read, Err(Error::Broken { .. })), "{broken}");
        }
        let refused = read_rows(br#"{"error":{"message":"limit must be at most 50"}}"#);
        assert!(matches!(refused, Err(Error::Refused { text, .. }) if text.contains("50")));
        let forbidden = read_rows(br#"{"message":"Forbidden"}"#);
        assert!(matches!(forbidden, Err(Error::Unauthorized { .. })));
    }

    #[test]
    fn the_gateways_refusals_are_told_by_status_and_text() {
        let wrong_key = refused_json(403, r#"{"message":"Forbidden"}"#);
        assert!(matches!(wrong_key, Error::Unauthorized { status: 403, .. }));
        let no_key = refused_json(401, r#"{"error":"Invalid key"}"#);
        assert!(matches!(no_key, Error::Unauthorized { text, .. } if text == "Invalid key"));
        let no_path = refused_json(403, r#"{"message":"Missing Authentication Token"}"#);
        assert!(matches!(no_path, Error::Refused { .. }));
        assert!(no_path.hint().unwrap().contains("`base_url`"));
        let day = refused_json(429, r#"{"message":"Limit Exceeded"}"#);
        assert!(matches!(day, Error::UsedUp { .. }));
        for minute in [r#"{"message":"Too Many Requests"}"#, "", "slow down", r#"{"message":null}"#]
        {
            assert!(matches!(refused_json(429, minute), Error::RateLimited { .. }), "{minute}");
        }
        for (status, body) in [
            (502, r#"{"message":"Internal server error"}"#),
            (504, r#"{"message":"Endpoint request timed out"}"#),
            (500, ""),
            (503, "<html>"),
        ] {
            assert!(matches!(refused_json(status, body), Error::Unavailable { .. }), "{body}");
        }
    }

    #[test]
    fn a_refusal_is_told_in_the_words_there_are() {
        let words = |media_type, body| match refused(400, media_type, body) {
            Error::Refused { text, .. } => text,
            other => panic!("{other}"),
        };
        let json = "application/json";
        assert_eq!(words(json, r#"{"message":"c","error":{"message":"b"}}"#), "b");
        assert_eq!(words("text/plain", "page\nmissing"), "page missing");
        assert_eq!(words(json, r#""page missing""#), "page missing");
        for (media_type, body) in [("text/html", "<html>"), (json, "{}"), ("", "")] {
            assert!(words(media_type, body).starts_with(NO_WORDS), "{body}");
        }
    }

    #[test]
    fn one_record_stands_bare_in_a_list_or_under_a_name() {
        let read = |body: &str| read_single(body.as_bytes(), "5");
        for page in [r#"{"id":"5"}"#, r#"{"id":5}"#, r#"[{"id":"5"}]"#, r#"{"data":[{"id":"5"}]}"#]
        {
            assert_eq!(read(page).unwrap(), Single::Record { is_page: true }, "{page}");
        }
        for named in [r#"{"data":{"id":"5"}}"#, r#"{"contact":{"id":"5"}}"#] {
            assert_eq!(read(named).unwrap(), Single::Record { is_page: false }, "{named}");
        }
        for none in ["null", "[]", r#"{"data":null}"#, r#"{"data":[]}"#] {
            assert_eq!(read(none).unwrap(), Single::None, "{none}");
        }
        for wrong in [
            r#"{"id":"6"}"#,
            r#"[{"id":"5"},{"id":"6"}]"#,
            r#"[{"id":"6"}]"#,
            "{}",
            "[7]",
            r#"{"data":{}}"#,
            "<html>",
        ] {
            assert!(matches!(read(wrong), Err(Error::Broken { .. })), "{wrong}");
        }
    }

    #[test]
    fn an_unknown_record_is_told_from_an_unknown_path_and_a_refused_key() {
        let unknown = |status, media_type, body| {
            says_unknown_record(&refused(status, media_type, body), "contacts")
        };
        let json = "application/json";
        assert!(unknown(404, json, ""));
        assert!(unknown(404, "text/plain", "nothing here"));
        assert!(unknown(400, json, r#"{"message":"Invalid contact id"}"#));
        assert!(unknown(400, json, r#"{"error":"Contact not found."}"#));
        assert!(unknown(403, json, r#"{"message":"No such record"}"#));
        for (status, media_type, body) in [
            (404, "text/html", "<html>Cannot GET /v1/contacts/x"),
            (404, json, r#"{"message":"Cannot GET /v1/contacts/x","statusCode":404}"#),
            (403, json, r#"{"message":"Missing Authentication Token"}"#),
            (403, json, r#"{"message":"Forbidden"}"#),
            (400, json, r#"{"message":"Invalid API key id"}"#),
            (400, json, ""),
            (401, json, r#"{"message":"Contact not found"}"#),
            (429, json, r#"{"message":"Limit Exceeded"}"#),
            (502, json, r#"{"message":"contact not found"}"#),
        ] {
            assert!(!unknown(status, media_type, body), "{status} {body}");
        }
        let in_page = read_single(br#"{"message":"Contact does not exist"}"#, "5").unwrap_err();
        assert!(says_unknown_record(&in_page, "contacts"));
    }

    #[test]
    fn an_account_is_an_account_and_nothing_else() {
        assert!(read_account(br#"{"name":"Example","ownerEmail":"owner@example.com"}"#).is_ok());
        assert!(matches!(read_account(b"<html>"), Err(Error::Broken { .. })));
        assert!(matches!(read_account(b"{}"), Err(Error::Broken { .. })));
        let refused = read_account(br#"{"message":"Forbidden"}"#);
        assert!(matches!(refused, Err(Error::Unauthorized { .. })));
    }
}
