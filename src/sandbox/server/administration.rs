//! The administration of the sandbox, for other processes: the truth, the log, the clock, the
//! behaviour, edits and keys. It wants no key, and nothing of it counts as a request.

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::body::Bytes;
use axum::extract::FromRequest;
use axum::extract::FromRequestParts;
use axum::extract::Request;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header;
use axum::http::request::Parts;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::get;
use axum::routing::post;
use futures::stream;
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::LoggedRequest;
use super::Shared;
use crate::sandbox::Error;
use crate::sandbox::behaviour::Behaviour;
use crate::sandbox::behaviour::Edit;
use crate::sandbox::behaviour::RecordEdit;
use crate::sandbox::records::Listing;
use crate::sandbox::records::Stream;
use crate::sandbox::world::Profile;
use crate::sandbox::world::Row;

/// Leads rendered at once where the whole truth is streamed.
const CHUNK: usize = 1_000;

/// Returns the paths below `/sandbox`.
pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/sandbox/leads", get(truth))
        .route("/sandbox/records", get(records))
        .route("/sandbox/requests", get(requests).delete(clear_requests))
        .route("/sandbox/clock", get(now).post(advance))
        .route("/sandbox/behaviour", get(behaviour).post(behave))
        .route("/sandbox/edit", post(edit))
        .route("/sandbox/keys", get(keys))
}

/// A body of JSON. With the extractor of `axum`, which follows the path to what is wrong, the program is a
/// quarter of a megabyte larger.
struct Json<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let body =
            Bytes::from_request(request, state).await.map_err(IntoResponse::into_response)?;
        serde_json::from_slice(&body).map(Self).map_err(refused)
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        }
    }
}

/// The parameters of a request.
struct Query<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        let query = parts.uri.query().unwrap_or_default();
        serde_urlencoded::from_str(query).map(Self).map_err(refused)
    }
}

fn refused(error: impl ToString) -> Response {
    (StatusCode::BAD_REQUEST, error.to_string()).into_response()
}

/// Parameters of `GET /sandbox/leads`.
#[derive(Debug, Deserialize)]
struct TruthQuery {
    ids: Option<u8>,
}

async fn truth(State(shared): State<Arc<Shared>>, Query(query): Query<TruthQuery>) -> Response {
    let rows = shared.listed();
    if query.ids.is_some_and(|ids| ids > 0) {
        let world = shared.world();
        let profile = |row: &Row| world.profiles[usize::from(row.profile)].id;
        let pairs: Vec<(u64, u64)> = rows.iter().map(|row| (profile(row), row.id)).collect();
        return Json(pairs).into_response();
    }
    let chunks = stream::unfold(Some(0), move |from| {
        let chunk = from.map(|from: usize| {
            let to = (from + CHUNK).min(rows.len());
            let mut out = Vec::new();
            out.push(if from == 0 { b'[' } else { b',' });
            shared.write_leads(&rows[from..to], &mut out);
            if to == rows.len() {
                out.push(b']');
            }
            (Ok::<_, io::Error>(out), (to < rows.len()).then_some(to))
        });
        std::future::ready(chunk)
    });
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(chunks)).into_response()
}

/// Parameters of `GET /sandbox/records`.
#[derive(Debug, Deserialize)]
struct RecordsQuery {
    stream: Stream,
    /// Number of the account or bot, from 0; or the id of the bot.
    part: Option<String>,
    /// `lead` or `non-lead`, for chats.
    list: Option<List>,
    ids: Option<u8>,
}

/// A list of chats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum List {
    Lead,
    NonLead,
}

impl RecordsQuery {
    fn listing(&self, bots: &[String]) -> Result<Listing, Error> {
        let text = self.part.as_deref().unwrap_or("0");
        let bot = bots.iter().position(|bot| bot == text).map(|bot| bot as u32);
        let part = bot.or_else(|| text.parse().ok());
        let part = part.ok_or(Error::UnknownPart { part: u32::MAX })?;
        Ok(match self.stream {
            Stream::Contacts => Listing::Contacts { account: part },
            Stream::Clients => Listing::Clients { account: part },
            Stream::Chats => Listing::Chats { bot: part, lead: self.list != Some(List::NonLead) },
            Stream::Users => Listing::Users,
        })
    }
}

async fn records(State(shared): State<Arc<Shared>>, Query(query): Query<RecordsQuery>) -> Response {
    let listing = query.listing(&shared.convertalk.bots);
    let places = match listing.and_then(|listing| shared.listed_records(listing)) {
        Ok(places) => places,
        Err(error) => return refused(error),
    };
    if query.ids.is_some_and(|ids| ids > 0) {
        return Json(shared.record_ids(&places)).into_response();
    }
    let body = shared.record_page(query.stream, &places);
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

async fn requests(State(shared): State<Arc<Shared>>) -> Json<Vec<LoggedRequest>> {
    Json(shared.requests())
}

async fn clear_requests(State(shared): State<Arc<Shared>>) -> StatusCode {
    shared.clear_requests();
    StatusCode::NO_CONTENT
}

async fn now(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(serde_json::json!({ "now": shared.now() }))
}

/// Body of `POST /sandbox/clock`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Advance {
    advance_seconds: i64,
}

async fn advance(State(shared): State<Arc<Shared>>, Json(body): Json<Advance>) -> Json<Value> {
    shared.advance(body.advance_seconds);
    now(State(shared)).await
}

async fn behaviour(State(shared): State<Arc<Shared>>) -> Json<Behaviour> {
    Json(shared.behaviour().as_ref().clone())
}

async fn behave(State(shared): State<Arc<Shared>>, Json(body): Json<Behaviour>) -> StatusCode {
    shared.behave(body);
    StatusCode::NO_CONTENT
}

/// Body of `POST /sandbox/edit`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum EditBody {
    Lead { lead_id: u64, edit: Edit },
    Record { stream: Stream, id: String, edit: RecordEdit },
}

async fn edit(State(shared): State<Arc<Shared>>, Json(body): Json<EditBody>) -> Response {
    let done = match &body {
        EditBody::Lead { lead_id, edit } => shared.edit(*lead_id, edit),
        EditBody::Record { stream, id, edit } => shared.edit_record(*stream, id, edit),
    };
    match done {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => refused(error),
    }
}

async fn keys(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let keys = &shared.whatconverts.keys;
    let (token, secret) = &keys.master;
    let world = shared.world();
    let profile = |profile: &Profile| {
        let (token, secret) = keys.profiles.get(&profile.id)?;
        Some(serde_json::json!({
            "profile_id": profile.id,
            "account_id": world.accounts[profile.account].id,
            "token": token,
            "secret": secret,
        }))
    };
    Json(serde_json::json!({
        "master": { "token": token, "secret": secret },
        "profiles": world.profiles.iter().filter_map(profile).collect::<Vec<_>>(),
        "whautomate": shared.whautomate.keys,
        "convertalk": {
            "token": shared.convertalk.token,
            "customer_id": shared.convertalk.customer,
            "bot_ids": shared.convertalk.bots,
        },
    }))
}
