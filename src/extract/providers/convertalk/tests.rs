//! What Convertalk is asked, in which form, and what its answers are taken for.

use serde_json::Value;

use super::*;
use crate::extract::providers::testing::Asked;
use crate::extract::providers::testing::SECRET;
use crate::extract::providers::testing::Server;
use crate::extract::providers::testing::caller;
use crate::extract::providers::testing::clock;
use crate::extract::providers::testing::walk;

const BOT: &str = "631aa793bcfa100487d13d0d";
const CUSTOMER: &str = "631aa793bcfa100487d13d0c";
const EMPTY: &str = r#"{"success":true,"message":"ok","data":[],"code":200}"#;

fn bearer(header: &str) -> Carrier {
    Carrier {
        header: header.to_owned(),
        prefix: "Bearer ".to_owned(),
        authtype: Some("Key".to_owned()),
    }
}

async fn saying(answers: &[(u16, &str)], chats: &str, users: Carrier) -> (Server, Convertalk) {
    let server = Server::saying(answers).await;
    let settings = Settings {
        http: server.http(),
        token: SECRET.into(),
        customer_id: CUSTOMER.to_owned(),
        first_bot: Some(BOT.to_owned()),
        chats: Carrier::by_header(chats),
        users,
    };
    let source = Convertalk::new(settings, clock()).unwrap();
    (server, source)
}

async fn asked_for_chats(header: &str) -> Asked {
    let (server, source) = saying(&[(200, EMPTY)], header, bearer("Authorization")).await;
    let answer =
        source.fetch_page(&walk("chats", &format!("bot:{BOT}"), "non-lead"), 2, 1_000).await;
    let answer = answer.unwrap();
    let facts = source.read_page(&answer.body).unwrap();
    assert_eq!(facts, PageFacts { is_json: true, ..PageFacts::default() });
    let asked = server.asked().remove(0);
    assert_eq!(asked.line, format!("GET {}", answer.request));
    asked
}

async fn asked_for_users(carrier: Carrier) -> (Asked, Answer) {
    let (server, source) = saying(&[(200, EMPTY)], "x-bot-token", carrier).await;
    let answer = source.fetch_page(&walk("users", "all", ""), 7, 1_000).await.unwrap();
    (server.asked().remove(0), answer)
}

#[tokio::test]
async fn chats_are_asked_for_by_bot_customer_page_and_type() {
    let asked = asked_for_chats("x-bot-token").await;
    let query = format!("botId={BOT}&customerId={CUSTOMER}&page=2&type=non-lead");
    assert_eq!(asked.line, format!("GET /base/inbox/direct/chats?{query}"));
    assert_eq!(asked.header("x-bot-token"), SECRET);
    assert_eq!(asked.header("content-type"), "application/json");
    assert!(
        !asked.headers.contains_key("authorization") && !asked.headers.contains_key("authtype")
    );
}

#[tokio::test]
async fn a_token_of_chats_in_authorization_has_its_prefix_and_kind() {
    for header in ["Authorization", "authorization"] {
        let asked = asked_for_chats(header).await;
        assert_eq!(asked.header("authorization"), format!("Bearer {SECRET}"));
        assert_eq!(asked.header("authtype"), "Key");
        assert!(!asked.headers.contains_key("x-bot-token"));
    }
}

#[tokio::test]
async fn users_are_asked_for_with_a_body_that_filters_nothing() {
    let (asked, answer) = asked_for_users(bearer("Authorization")).await;
    assert_eq!(asked.line, "POST /base/inbox/users");
    assert_eq!(asked.header("authorization"), format!("Bearer {SECRET}"));
    assert_eq!(
        (asked.header("authtype"), asked.header("content-type")),
        ("Key", "application/json")
    );
    assert!(!asked.headers.contains_key("x-bot-token"));
    let body: Value = serde_json::from_str(&asked.body).unwrap();
    assert_eq!(body["page"], 7);
    let filters = body.as_object().unwrap().iter().filter(|(name, value)| {
        let is_set = match value {
            Value::Array(items) => !items.is_empty(),
            Value::Object(fields) => fields.values().any(|field| *field != "" && *field != false),
            other => *other != "" && *other != false,
        };
        is_set && !["page", "isSubscriber", "isExport"].contains(&name.as_str())
    });
    assert_eq!(filters.count(), 0);
    assert_eq!(body["isExport"], "none");
    assert_eq!(answer.request, format!("POST /base/inbox/users {}", asked.body));
    assert!(!answer.request.contains(SECRET));
}

#[tokio::test]
async fn users_go_by_a_header_of_their_own() {
    let carrier =
        Carrier { header: "x-bp-token".to_owned(), prefix: String::new(), authtype: None };
    let (asked, _) = asked_for_users(carrier).await;
    assert_eq!(asked.header("x-bp-token"), SECRET);
    assert!(
        !asked.headers.contains_key("authorization") && !asked.headers.contains_key("authtype")
    );
}

#[tokio::test]
async fn one_request_proves_the_token() {
    let check = async |answers: &[(u16, &str)], first_bot: Option<&str>| {
        let (server, mut source) = saying(answers, "x-bot-token", bearer("Authorization")).await;
        source.first_bot = first_bot.map(str::to_owned);
        let (_folder, caller) = caller(PROVIDER, None);
        let answer = source.check(&caller).await;
        (server.lines().join(" "), answer)
    };
    let (asked, answer) = check(&[(200, EMPTY)], Some(BOT)).await;
    assert!(asked.ends_with("&page=1&type=lead"), "{asked}");
    assert_eq!(answer.unwrap(), "a token that may list chats");
    let (asked, answer) = check(&[(200, EMPTY)], None).await;
    assert_eq!(
        (asked.as_str(), answer.unwrap()),
        ("POST /base/inbox/users", "a token that may list users")
    );
    for (status, body) in [
        (401, "Unauthorized"),
        (403, ""),
        (200, r#"{"success":false,"message":["Unauthorized"],"code":401}"#),
    ] {
        let (asked, answer) = check(&[(status, body)], None).await;
        assert_eq!(asked, "POST /base/inbox/users");
        assert!(matches!(answer, Err(Error::Unauthorized { .. })), "{status} {body}: {answer:?}");
    }
}

#[tokio::test]
async fn a_page_past_the_end_may_be_refused_and_says_for_what() {
    let refusal = r#"{"success":false,"message":"No users found"}"#;
    let (_server, source) = saying(&[(404, refusal)], "x-bot-token", bearer("Authorization")).await;
    let error = source.fetch_page(&walk("users", "all", ""), 7, 1_000).await.unwrap_err();
    let text =
        "provider `convertalk` refused `POST /base/inbox/users` with status 404: No users found";
    assert_eq!(error.to_string(), text);
    assert!(matches!(source.read_page(refusal.as_bytes()), Err(Error::Refused { .. })));
}

#[tokio::test]
async fn no_record_is_taken_for_gone_because_it_cannot_be_asked_for() {
    let (server, source) = saying(&[], "x-bot-token", bearer("Authorization")).await;
    let asked =
        source.fetch_record(&walk("chats", &format!("bot:{BOT}"), "lead"), "1", false).await;
    assert!(matches!(asked, Err(Error::Setup { .. })));
    assert!(server.asked().is_empty() && !source.abilities().finds_records);
}

#[tokio::test]
async fn the_token_is_repeated_by_nobody() {
    let echo = format!(r#"{{"success":false,"message":["Bearer {SECRET}"]}}"#);
    let answers = [(401, echo.as_str()), (400, &echo), (429, &echo)];
    let (_server, source) = saying(&answers, "Authorization", bearer("Authorization")).await;
    assert!(!format!("{source:?}").contains(SECRET));
    for _ in 0..3 {
        let error = source.fetch_page(&walk("users", "all", ""), 1, 1_000).await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains(SECRET), "{error:?}");
    }
    let error = source.read_page(echo.as_bytes()).unwrap_err();
    assert!(error.to_string().ends_with("status 200: Bearer ***"), "{error}");
}

#[test]
fn a_token_that_cannot_stand_in_a_header_is_not_shown() {
    let error = bearer("Authorization").headers(&format!("{SECRET}\n").into()).unwrap_err();
    assert!(!format!("{error:?}").contains(SECRET));
    let authtype = Some("a\nb".to_owned());
    let carrier = Carrier { authtype, ..bearer("Authorization") };
    assert!(matches!(carrier.headers(&SECRET.into()), Err(Error::Setup { .. })));
}
