//! What Whautomate is asked, in which form, and what its answers are taken for.

use super::*;
use crate::error::Hint;
use crate::extract::providers::testing::SECRET;
use crate::extract::providers::testing::Server;
use crate::extract::providers::testing::caller;
use crate::extract::providers::testing::clock;
use crate::extract::providers::testing::walk;

const FORBIDDEN: &str = r#"{"message":"Forbidden"}"#;
const NO_SUCH_PATH: &str = r#"{"message":"Missing Authentication Token"}"#;

async fn saying(answers: &[(u16, &str)]) -> (Server, Whautomate) {
    let server = Server::saying(answers).await;
    let settings = Settings {
        http: server.http(),
        api_key: SECRET.into(),
        stream: "contacts",
        short_page_ends: false,
    };
    let source = Whautomate::new(settings, clock()).unwrap();
    (server, source)
}

async fn check(answers: &[(u16, &str)]) -> (Vec<String>, Result<&'static str>) {
    let (server, source) = saying(answers).await;
    let (_folder, caller) = caller(PROVIDER, Some("subscribed"));
    let answer = source.check(&caller).await;
    (server.lines(), answer)
}

#[tokio::test]
async fn a_page_is_asked_for_by_number_and_limit_with_the_key_in_its_header() {
    let (server, source) = saying(&[(200, r#"[{"id":"a"}]"#)]).await;
    let answer = source.fetch_page(&walk("clients", "all", ""), 3, 50).await.unwrap();
    assert_eq!(source.read_page(&answer.body).unwrap().rows.len(), 1);
    assert_eq!(answer.request, "/base/v1/clients?page=3&limit=50");
    let asked = &server.asked()[0];
    assert_eq!(asked.line, "GET /base/v1/clients?page=3&limit=50");
    assert_eq!((asked.header("x-api-key"), asked.header("accept")), (SECRET, "application/json"));
    assert!(!asked.headers.contains_key("content-type"));
}

#[tokio::test]
async fn an_id_is_one_segment_whatever_its_characters() {
    let (server, source) = saying(&[(404, ""), (404, ""), (200, r#"{"id":"nmgGHJrt6RTG"}"#)]).await;
    let contacts = walk("contacts", "all", "");
    for id in ["a/b?c=d#e f%2Fü", "..x"] {
        let asked = source.fetch_record(&contacts, id, false).await.unwrap();
        assert!(matches!(asked, Lookup::Unknown));
    }
    let asked = source.fetch_record(&contacts, "nmgGHJrt6RTG", true).await.unwrap();
    assert!(matches!(asked, Lookup::Found(Found { is_whole: true, .. })));
    assert_eq!(
        server.lines(),
        [
            "GET /base/v1/contacts/a%2Fb%3Fc=d%23e%20f%252F%C3%BC",
            "GET /base/v1/contacts/..x",
            "GET /base/v1/contacts/nmgGHJrt6RTG",
        ]
    );
}

#[tokio::test]
async fn an_id_that_would_be_another_path_is_not_asked_for() {
    let (server, source) = saying(&[]).await;
    for id in [".", "..", ""] {
        let asked = source.fetch_record(&walk("contacts", "all", ""), id, false).await;
        assert!(matches!(asked, Err(Error::Setup { .. })), "{id}: {asked:?}");
    }
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn only_a_clear_answer_says_that_a_record_is_unknown() {
    let ask = async |status, body| {
        let (_server, source) = saying(&[(status, body)]).await;
        source.fetch_record(&walk("clients", "all", ""), "5", false).await
    };
    for (status, body) in [(404, ""), (400, r#"{"message":"Client not found"}"#)] {
        assert!(matches!(ask(status, body).await, Ok(Lookup::Unknown)), "{status} {body}");
    }
    for body in ["[]", "null"] {
        assert!(matches!(ask(200, body).await, Ok(Lookup::Nothing)), "{body}");
    }
    assert!(matches!(ask(403, NO_SUCH_PATH).await, Err(Error::Refused { .. })));
    assert!(matches!(ask(403, FORBIDDEN).await, Err(Error::Unauthorized { .. })));
    assert!(matches!(ask(200, r#"{"id":"6"}"#).await, Err(Error::Broken { .. })));
    let bare = ask(200, r#"{"data":{"id":"5"}}"#).await;
    assert!(matches!(bare, Ok(Lookup::Found(Found { is_whole: false, .. }))));
}

#[tokio::test]
async fn the_account_proves_the_key_in_one_request() {
    let (asked, answer) = check(&[(200, r#"{"name":"Example"}"#)]).await;
    assert_eq!(
        (asked, answer.unwrap()),
        (vec!["GET /base/v1/account-info".to_owned()], "the key of an account")
    );
    let (asked, answer) = check(&[(403, FORBIDDEN)]).await;
    assert_eq!(asked.len(), 1);
    assert!(matches!(answer, Err(Error::Unauthorized { .. })));
}

#[tokio::test]
async fn where_the_account_is_an_unknown_path_a_row_proves_the_key() {
    let (asked, answer) = check(&[(403, NO_SUCH_PATH), (200, "[]")]).await;
    assert_eq!(asked[1..], ["GET /base/v1/contacts?page=1&limit=1"]);
    assert_eq!(answer.unwrap(), "a key that may list");
    let (_, answer) = check(&[(404, "<html>"), (403, FORBIDDEN)]).await;
    assert!(matches!(answer, Err(Error::Unauthorized { .. })));
    let (asked, answer) = check(&[(403, NO_SUCH_PATH), (403, NO_SUCH_PATH)]).await;
    assert_eq!(asked.len(), 2);
    assert!(answer.unwrap_err().hint().unwrap().contains("`base_url`"));
}

#[tokio::test]
async fn the_key_is_repeated_by_nobody() {
    let echo = format!(r#"{{"message":"no {SECRET}"}}"#);
    let (_server, source) = saying(&[(403, &echo), (400, &echo), (429, &echo)]).await;
    assert!(!format!("{source:?}").contains(SECRET));
    for _ in 0..3 {
        let error = source.fetch_page(&walk("contacts", "all", ""), 1, 100).await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains(SECRET), "{error:?}");
    }
    let error = source.read_page(echo.as_bytes()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "provider `whautomate` refused `the page` with status 200: no ***"
    );
}

#[test]
fn a_key_that_cannot_stand_in_a_header_is_not_shown() {
    let http = HttpSettings {
        base_url: "https://api.example.com".parse().unwrap(),
        timeout: std::time::Duration::from_secs(1),
        stall: std::time::Duration::from_secs(1),
        max_body_bytes: 1,
        heard: crate::extract::Heard::default(),
    };
    let api_key = format!("{SECRET}\n").into();
    let settings = Settings { http, api_key, stream: "contacts", short_page_ends: true };
    let error = Whautomate::new(settings, clock()).unwrap_err();
    assert!(!format!("{error:?}").contains(SECRET));
}
