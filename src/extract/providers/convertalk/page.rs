//! Convertalk's wire form, as far as paging and refusals need it.
//!
//! One envelope: `success`, `message`, `code`, `data` (documented by a white label, the only one
//! with bodies). Refusals are named by their status alone; that they may come under a sound status,
//! with `success: false` or another `code`, is inferred from the envelope and from a client that
//! checks both.

use chrono::DateTime;
use chrono::Utc;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::PROVIDER;
use crate::extract::Answer;
use crate::extract::Error;
use crate::extract::PageFacts;
use crate::extract::Result;
use crate::extract::providers::json;
use crate::extract::providers::refusal;
use crate::extract::providers::refusal::NO_WORDS;
use crate::extract::providers::refusal::Refusal;
use crate::extract::providers::rows::Names;
use crate::extract::providers::rows::Rows;
use crate::extract::providers::rows::under_name;

/// Where the reason of a refusal may stand.
const WORDS: [&str; 3] = ["/message", "/error", "/error/message"];

/// Refuses an answer whose status says that it is none.
pub(super) fn refuse_bad_status(answer: &Answer) -> Result<()> {
    refusal::refuse_bad_status(PROVIDER, answer, &WORDS, judge)
}

/// Tells what a refusal means. A wrong token may come with any status that blames the request.
fn judge(refusal: Refusal<'_>, words: Option<&str>, otherwise: &str) -> Error {
    let lower = words.unwrap_or_default().to_ascii_lowercase();
    match refusal.status {
        200..=299 | 400 if speaks_of_credentials(&lower) => {
            refusal.unauthorized(words.unwrap_or_default())
        }
        _ => refusal.judge(words, otherwise),
    }
}

fn speaks_of_credentials(text: &str) -> bool {
    let credentials = ["token", "credential", "api key", "jwt", "authtype"];
    let refused = ["invalid", "expired", "missing", "wrong", "malformed", "required", "not valid"];
    let is_any = |words: &[&str]| words.iter().any(|word| text.contains(word));
    is_any(&["unauthorized", "unauthorised", "forbidden", "not authorized", "authentication"])
        || (is_any(&credentials) && is_any(&refused))
}

/// The envelope of a page.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    success: Option<&'a RawValue>,
    #[serde(borrow, default)]
    code: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "statusCode")]
    status_code: Option<&'a RawValue>,
    #[serde(default)]
    message: Option<Value>,
    #[serde(default, deserialize_with = "under_name::<Record, _>")]
    data: Rows,
}

impl Envelope<'_> {
    fn is_success(&self) -> Option<bool> {
        self.success?.get().trim_matches('"').parse().ok()
    }

    /// Returns the status that stands in the body.
    fn code(&self) -> Option<u16> {
        let code = json::number(self.code).or_else(|| json::number(self.status_code))?;
        u16::try_from(code).ok()
    }

    /// Returns the refusal that the envelope is, by what it says of itself.
    fn refusal(&self) -> Option<Error> {
        let code = self.code();
        let is_bad = code.is_some_and(|code| !(200..300).contains(&code));
        if self.is_success() != Some(false) && !is_bad {
            return None;
        }
        let status = code.filter(|code| (400..600).contains(code)).unwrap_or(200);
        Some(
            self.judged(status)
                .unwrap_or_else(|| judge(Refusal::in_page(PROVIDER, status), None, NO_WORDS)),
        )
    }

    /// Returns what its words mean as a refusal; `None` where it has none.
    fn judged(&self, status: u16) -> Option<Error> {
        let words = json::words_in(self.message.as_ref()?)?;
        Some(judge(Refusal::in_page(PROVIDER, status), Some(&words), NO_WORDS))
    }
}

/// Reads a page of a listing. Where it has nothing to show, and says that this is well, it is past
/// the end of the listing.
pub(super) fn read_rows(body: &[u8]) -> Result<PageFacts> {
    json::refuse_other_than_object(PROVIDER, body)?;
    let envelope: Envelope<'_> = json::parse(PROVIDER, body)?;
    if let Some(refusal) = envelope.refusal() {
        return Err(refusal);
    }
    let says_well = envelope.is_success().is_some() || envelope.code().is_some();
    let broken = |detail| json::broken(PROVIDER, detail);
    match envelope.data {
        Rows::Listed(rows) => Ok(PageFacts { rows, is_json: true, ..PageFacts::default() }),
        Rows::Nothing if says_well => Ok(PageFacts { is_json: true, ..PageFacts::default() }),
        Rows::Nothing => Err(envelope.judged(200).unwrap_or_else(|| broken("it has no `data`"))),
        Rows::Other => Err(broken("there is no list of records in its `data`")),
    }
}

/// The fields of a chat and of a user: documented for chats, seen in a captured user.
struct Record;

impl Names for Record {
    const ID: &'static str = "_id";
    const CREATED_AT: &'static str = "createdAt";
    const UPDATED_AT: Option<&'static str> = Some("updatedAt");
    const LISTS: &'static [&'static str] = &["data", "chats", "users"];

    /// Ids are those of MongoDB, which begin with the seconds since 1970 in 8 hexadecimal digits
    /// (inferred; in the documented body they agree with `createdAt`).
    fn created_in(id: &str) -> Option<DateTime<Utc>> {
        let is_such = id.len() == 24 && id.bytes().all(|digit| digit.is_ascii_hexdigit());
        let seconds = i64::from_str_radix(id.get(..8).filter(|_| is_such)?, 16).ok()?;
        DateTime::from_timestamp(seconds, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extract::RowFacts;
    use crate::record::id_hash;

    /// A row of the documented answer, shortened.
    const CHAT: &str = r#"{"_id":"63d9ffa77a8d152facbe2f2f",
        "uuid":"7e88d192-9b20-4035-9b68-d4ac3d58a34f","createdAt":"2023-02-01T05:59:03.533Z",
        "profile":{"notes":[{"title":"Sample title","_id":"63db5c4abcbc3be2e95b20ae"}]},
        "status":"INPROGRESS","updatedAt":"2023-02-02T06:46:34.119Z","websiteVisits":1}"#;

    fn read(body: &str) -> Result<PageFacts> {
        read_rows(body.as_bytes())
    }

    fn refused(status: u16, media_type: &str, body: &'static str) -> Error {
        refuse_bad_status(&Answer::of_test(status, media_type, body)).unwrap_err()
    }

    #[test]
    fn a_page_is_a_list_under_data_or_in_it() {
        let page = |data: &str| {
            read(&format!(r#"{{"success":true,"message":"ok","data":{data},"code":200}}"#)).unwrap()
        };
        let facts = page(&format!("[{CHAT}]"));
        let row = RowFacts {
            id: Some(id_hash("63d9ffa77a8d152facbe2f2f")),
            created_at: Some("2023-02-01T05:59:03.533Z".parse().unwrap()),
            updated_at: Some("2023-02-02T06:46:34.119Z".parse().unwrap()),
        };
        assert_eq!(facts, PageFacts { rows: vec![row], is_json: true, ..PageFacts::default() });
        for data in ["chats", "users", "data", "docs"] {
            assert_eq!(page(&format!(r#"{{"{data}":[{CHAT}],"totalPages":3}}"#)), facts, "{data}");
        }
    }

    #[test]
    fn an_id_tells_the_time_where_the_row_does_not() {
        let created = |row: &str| {
            let facts = read(&format!(r#"{{"success":true,"data":[{row}]}}"#)).unwrap();
            facts.rows[0].created_at.map(|at| at.to_rfc3339())
        };
        let in_id = created(r#"{"_id":"63d9ffa77a8d152facbe2f2f","createdAt":null}"#);
        assert_eq!(in_id.as_deref(), Some("2023-02-01T05:59:03+00:00"));
        let own = r#"{"createdAt":"2024-01-01T00:00:00Z","_id":"63d9ffa77a8d152facbe2f2f"}"#;
        assert_eq!(created(own).as_deref(), Some("2024-01-01T00:00:00+00:00"));
        for id in ["63d9ffa7", "63d9ffa77a8d152facbe2f2z", "7e88d192-9b20-4035-9b68-", "é63d9ff"] {
            assert_eq!(created(&format!(r#"{{"_id":"{id}"}}"#)), None, "{id}");
        }
    }

    #[test]
    fn a_page_with_nothing_to_show_is_the_end_where_it_says_that_all_is_well() {
        for end in [
            r#"{"success":true,"message":"ok","data":[],"code":200}"#,
            r#"{"success":true,"data":null}"#,
            r#"{"success":"true"}"#,
            r#"{"code":"200","message":""}"#,
        ] {
            assert_eq!(
                read(end).unwrap(),
                PageFacts { is_json: true, ..PageFacts::default() },
                "{end}"
            );
        }
        for broken in [
            "{}",
            "[]",
            "",
            "<html>",
            r#"{"message":""}"#,
            r#"{"success":true,"data":"none"}"#,
            r#"{"success":true,"data":{"tags":[],"docs":[{"_id":"1"}]}}"#,
        ] {
            assert!(matches!(read(broken), Err(Error::Broken { .. })), "{broken}");
        }
    }

    #[test]
    fn a_refusal_under_a_sound_status_is_one_all_the_same() {
        let refusal = |body: &str| read(body).unwrap_err();
        for credentials in [
            r#"{"success":false,"message":"Unauthorized","code":401}"#,
            r#"{"success":false,"code":403}"#,
            r#"{"success":false,"message":"Invalid token"}"#,
            r#"{"success":false,"message":["Token has expired"],"code":400,"data":null}"#,
            r#"{"message":"Unauthorized"}"#,
            r#"{"statusCode":401,"message":["Unauthorized"]}"#,
        ] {
            let error = refusal(credentials);
            assert!(matches!(error, Error::Unauthorized { .. }), "{credentials}: {error}");
        }
        for rate in [
            r#"{"success":false,"message":"Too many requests","code":429}"#,
            r#"{"success":false,"message":"Too Many Requests"}"#,
        ] {
            assert!(matches!(refusal(rate), Error::RateLimited { .. }), "{rate}");
        }
        for request in [
            r#"{"success":false,"message":"No data found"}"#,
            r#"{"success":true,"code":404,"message":"No more","data":[]}"#,
            r#"{"success":false,"message":["page must be a number"],"code":400}"#,
            r#"{"success":false}"#,
            r#"{"message":"No bot of this name"}"#,
        ] {
            assert!(matches!(refusal(request), Error::Refused { .. }), "{request}");
        }
        let down = refusal(r#"{"success":false,"code":503,"message":"token service is down"}"#);
        assert!(matches!(down, Error::Unavailable { .. }), "{down}");
        let day = refusal(r#"{"success":false,"message":"Daily limit exceeded"}"#);
        assert!(matches!(day, Error::UsedUp { .. }), "{day}");
    }

    #[test]
    fn a_status_is_judged_with_the_words_there_are() {
        let json = "application/json";
        let words = |error: Error| match error {
            Error::Unauthorized { text, .. } | Error::Refused { text, .. } => text,
            other => panic!("{other}"),
        };
        for wrong in [
            refused(401, json, r#"{"message":["Unauthorized"],"error":"none"}"#),
            refused(401, "text/plain", "Unauthorized"),
            refused(400, json, r#"{"message":"Unauthorized"}"#),
        ] {
            assert!(matches!(wrong, Error::Unauthorized { .. }), "{wrong}");
            assert_eq!(words(wrong), "Unauthorized");
        }
        assert!(matches!(refused(403, json, ""), Error::Unauthorized { .. }));
        assert!(matches!(refused(429, json, "slow down"), Error::RateLimited { .. }));
        assert!(matches!(refused(500, "text/html", "<html>"), Error::Unavailable { .. }));
        let past_end = refused(404, json, r#"{"success":false,"message":"Invalid token page"}"#);
        assert!(matches!(past_end, Error::Refused { status: 404, .. }), "{past_end}");
        assert_eq!(words(refused(400, json, r#"{"error":"Bad Request"}"#)), "Bad Request");
    }
}
