//! The HTTP side of the sandbox: connections, request log, clock, quota, accidents, administration.
//!
//! A request for a platform passes log, key, quota and accident in this order and is then answered
//! by the platform's module. Nothing here knows what a lead looks like.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::io;
use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::RwLockReadGuard;
use std::sync::RwLockWriteGuard;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::extract::Query;
use axum::extract::State;
use axum::extract::connect_info::Connected;
use axum::http::HeaderMap;
use axum::http::Method;
use axum::http::Request;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::get;
use axum::routing::post;
use axum::serve::IncomingStream;
use axum::serve::Listener;
use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::stream;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::net::TcpListener;
use tokio::net::TcpStream;

use super::Error;
use super::Settings;
use super::behaviour::Behaviour;
use super::behaviour::Edit;
use super::behaviour::Fault;
use super::behaviour::RecordEdit;
use super::convertalk;
use super::convertalk::Convertalk;
use super::dice::Dice;
use super::dice::Purpose;
use super::platform::Accident;
use super::platform::Platform;
use super::platform::Provider;
use super::platform::Request as Asked;
use super::platform::Spent;
use super::records::Listing;
use super::records::Place;
use super::records::Records;
use super::records::Stream;
use super::whatconverts;
use super::whatconverts::WhatConverts;
use super::whautomate;
use super::whautomate::Whautomate;
use super::world::Row;
use super::world::World;
use crate::clock::SharedClock;

/// How long a request is remembered, in milliseconds: the longest window of a quota.
const DAY_MS: i64 = 86_400_000;
/// The largest body that is read.
const LARGEST_BODY: usize = 1 << 20;
/// Leads rendered at once where the whole truth is streamed.
const CHUNK: usize = 1_000;

/// Whose key a request carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyKind {
    /// No credentials.
    None,
    /// Credentials that nobody has.
    Unknown,
    /// The agency's.
    Master,
    /// A profile's.
    Profile {
        /// The profile.
        profile_id: u64,
    },
    /// A Whautomate account's.
    Whautomate {
        /// Number of the account.
        account: u32,
    },
    /// The Convertalk customer's.
    Convertalk,
}

/// A request as the sandbox saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedRequest {
    /// 1 for the first since the start.
    pub number: u64,
    /// When it came, by the world's clock.
    pub at: DateTime<Utc>,
    /// Whom it was meant for; `None` for a path that nobody has.
    pub provider: Option<Provider>,
    /// Such as `GET`.
    pub method: String,
    /// Such as `/api/v1/leads`.
    pub path: String,
    /// What follows the `?`, as sent.
    pub query: String,
    /// The body, as far as it is text.
    pub body: String,
    /// Whose key it carried.
    pub key: KeyKind,
    /// What was answered; 0 as long as nothing was, and after a reset.
    pub status: u16,
    /// The accident it met with.
    pub fault: Option<Fault>,
    /// Requests in flight when it came, itself included.
    pub at_once: usize,
}

/// An answer, before accidents and compression.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    kind: &'static str,
    headers: Vec<(header::HeaderName, String)>,
    body: Vec<u8>,
}

impl Answer {
    /// Returns a JSON answer.
    pub(super) fn json(status: u16, body: Vec<u8>) -> Self {
        Self { status, kind: "application/json", headers: Vec::new(), body }
    }

    /// Returns an answer in plain text.
    pub(super) fn text(status: u16, text: &str) -> Self {
        let kind = "text/plain; charset=utf-8";
        Self { status, kind, headers: Vec::new(), body: text.as_bytes().to_vec() }
    }

    /// Returns a page of the web application.
    pub(super) fn html(status: u16, title: &str) -> Self {
        let body = format!("<!DOCTYPE html>\n<html><head><title>{title}</title></head></html>\n");
        let kind = "text/html; charset=UTF-8";
        Self { status, kind, headers: Vec::new(), body: body.into_bytes() }
    }

    /// Returns the answer to a path that does not exist.
    pub(super) fn not_found() -> Self {
        Self::html(404, "404 Not Found")
    }

    /// Returns the body as JSON.
    #[cfg(test)]
    pub(super) fn read(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Adds a header.
    pub(super) fn with(mut self, name: header::HeaderName, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }
}

/// A behaviour in force, and what of it is used up.
#[derive(Debug, Default)]
struct Armed {
    behaviour: Arc<Behaviour>,
    fail_next: VecDeque<Fault>,
    /// Requests since the behaviour was set.
    requests: u64,
    /// Scripted edits that have happened.
    done: Vec<bool>,
}

impl Armed {
    fn new(behaviour: Behaviour) -> Self {
        Self {
            fail_next: behaviour.fail_next.clone().into(),
            requests: 0,
            done: vec![false; behaviour.script.len() + behaviour.record_script.len()],
            behaviour: Arc::new(behaviour),
        }
    }
}

/// What the sandbox's handle and its requests share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) seed: u64,
    pub(super) whatconverts: WhatConverts,
    pub(super) whautomate: Whautomate,
    pub(super) convertalk: Convertalk,
    clock: SharedClock,
    /// Seconds by which the world is ahead of the clock.
    ahead: AtomicI64,
    /// Where the world stands still.
    still: Option<DateTime<Utc>>,
    world: RwLock<World>,
    records: RwLock<Records>,
    armed: Mutex<Armed>,
    log: Mutex<Vec<LoggedRequest>>,
    /// When the requests of the last day came, by key, in milliseconds.
    spent: Mutex<HashMap<KeyKind, VecDeque<i64>>>,
    requests: AtomicU64,
    /// Held once by each request in flight.
    in_flight: Arc<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Returns the state of a sandbox that has answered nothing yet.
    pub(super) fn new(settings: &Settings, clock: SharedClock) -> Result<Self, Error> {
        let world = World::new(settings)?;
        Ok(Self {
            seed: settings.seed,
            whatconverts: WhatConverts::new(settings, &world.profiles),
            whautomate: Whautomate::new(settings),
            convertalk: Convertalk::new(settings),
            clock,
            ahead: AtomicI64::new(0),
            still: settings.still.then_some(settings.now),
            world: RwLock::new(world),
            records: RwLock::new(Records::new(settings)?),
            armed: Mutex::new(Armed::new(settings.behaviour.clone())),
            log: Mutex::default(),
            spent: Mutex::default(),
            requests: AtomicU64::new(0),
            in_flight: Arc::new(()),
        })
    }

    /// Returns the side of a platform.
    fn platform(&self, provider: Provider) -> &dyn Platform {
        match provider {
            Provider::WhatConverts => &self.whatconverts,
            Provider::Whautomate => &self.whautomate,
            Provider::Convertalk => &self.convertalk,
        }
    }

    /// Returns the time of requests and quotas.
    pub(super) fn now(&self) -> DateTime<Utc> {
        self.clock.now() + TimeDelta::seconds(self.ahead.load(Ordering::Relaxed))
    }

    /// Moves the world ahead of its clock.
    pub(super) fn advance(&self, seconds: i64) {
        self.ahead.fetch_add(seconds, Ordering::Relaxed);
    }

    /// Returns the time of the leads, in seconds: the same, unless the world stands still.
    pub(super) fn world_now(&self) -> i64 {
        self.world_time().timestamp()
    }

    /// Returns the time of the records of the other platforms, in milliseconds.
    pub(super) fn world_now_ms(&self) -> i64 {
        self.world_time().timestamp_millis()
    }

    fn world_time(&self) -> DateTime<Utc> {
        let now = self.now();
        self.still.map_or(now, |still| now.min(still))
    }

    /// Returns the world as of now.
    pub(super) fn world(&self) -> RwLockReadGuard<'_, World> {
        let now = self.world_now();
        let world = self.world.read().unwrap_or_else(PoisonError::into_inner);
        if !world.is_due(now) {
            return world;
        }
        drop(world);
        self.world_mut().refresh(now);
        self.world.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn world_mut(&self) -> RwLockWriteGuard<'_, World> {
        self.world.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the records of the other platforms as of now.
    pub(super) fn records(&self) -> RwLockReadGuard<'_, Records> {
        let now = self.world_now_ms();
        let records = self.records.read().unwrap_or_else(PoisonError::into_inner);
        if !records.is_due(now) {
            return records;
        }
        drop(records);
        drop(self.records_mut(now));
        self.records.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn records_mut(&self, now: i64) -> RwLockWriteGuard<'_, Records> {
        let mut records = self.records.write().unwrap_or_else(PoisonError::into_inner);
        records.refresh(now);
        records
    }

    pub(super) fn behaviour(&self) -> Arc<Behaviour> {
        Arc::clone(&lock(&self.armed).behaviour)
    }

    pub(super) fn behave(&self, behaviour: Behaviour) {
        *lock(&self.armed) = Armed::new(behaviour);
    }

    pub(super) fn edit(&self, lead_id: u64, edit: &Edit) -> Result<(), Error> {
        let now = self.world_now();
        let mut world = self.world_mut();
        world.refresh(now);
        world.edit(lead_id, edit, now)
    }

    pub(super) fn insert(&self, profile_id: u64, created_at: DateTime<Utc>) -> Result<u64, Error> {
        let id = self.world_mut().free_id();
        self.edit(id, &Edit::Insert { profile_id, created_at })?;
        Ok(id)
    }

    pub(super) fn edit_record(
        &self,
        stream: Stream,
        id: &str,
        edit: &RecordEdit,
    ) -> Result<(), Error> {
        let now = self.world_now_ms();
        let mut records = self.records_mut(now);
        match records.edit(stream, id, edit, now) {
            Err(Error::UnknownRecord { .. }) => {
                let plain = whautomate::plain_id(id);
                records.edit(stream, &plain, edit, now)
            }
            done => done,
        }
    }

    pub(super) fn insert_record(
        &self,
        listing: Listing,
        created_at: DateTime<Utc>,
    ) -> Result<String, Error> {
        let now = self.world_now_ms();
        self.records_mut(now).insert(listing, created_at.timestamp_millis(), now)
    }

    /// Returns the records that a listing has now, the oldest first.
    pub(super) fn listed_records(&self, listing: Listing) -> Result<Vec<Place>, Error> {
        let behaviour = self.behaviour();
        let show = match listing.stream() {
            Stream::Contacts | Stream::Clients => behaviour.whautomate.truth(),
            Stream::Chats | Stream::Users => behaviour.convertalk.truth(),
        };
        let (now, records) = (self.world_now_ms(), self.records());
        records.check(listing)?;
        Ok(records.listed(listing, show, now, 0).as_ref().clone())
    }

    /// Returns records as the body of one page.
    pub(super) fn record_page(&self, stream: Stream, places: &[Place]) -> Vec<u8> {
        let behaviour = self.behaviour();
        let (now, records) = (self.world_now_ms(), self.records());
        match stream {
            Stream::Contacts | Stream::Clients => {
                whautomate::page_of(&records, &behaviour, stream, places, now)
            }
            Stream::Chats | Stream::Users => {
                convertalk::page_of(&records, &behaviour, stream, places, now)
            }
        }
    }

    /// Returns a record as it stands in a page.
    pub(super) fn record_body(&self, stream: Stream, place: Place) -> Vec<u8> {
        let behaviour = self.behaviour();
        let (now, records) = (self.world_now_ms(), self.records());
        let (mut out, subject) = (Vec::new(), records.subject(place));
        match stream {
            Stream::Contacts | Stream::Clients => {
                whautomate::write(&mut out, &subject, &behaviour, now);
            }
            Stream::Chats | Stream::Users => {
                convertalk::write(&mut out, &subject, stream, &behaviour, now);
            }
        }
        out
    }

    /// Returns the ids of records as they are shown.
    pub(super) fn record_ids(&self, places: &[Place]) -> Vec<String> {
        let behaviour = self.behaviour();
        let records = self.records();
        let id = |place: &Place| {
            let subject = records.subject(*place);
            match subject.stream() {
                Stream::Contacts | Stream::Clients => whautomate::shown_id(&subject, &behaviour),
                Stream::Chats | Stream::Users => subject.id(),
            }
        };
        places.iter().map(id).collect()
    }

    pub(super) fn requests(&self) -> Vec<LoggedRequest> {
        lock(&self.log).clone()
    }

    pub(super) fn clear_requests(&self) {
        lock(&self.log).clear();
    }

    /// Returns the leads that are there now, of all profiles, by creation.
    pub(super) fn listed(&self) -> Vec<Row> {
        let now = self.world_now();
        let behaviour = self.behaviour();
        let world = self.world();
        let listed = |row: &&Row| {
            let profile = world.profiles[usize::from(row.profile)].id;
            row.is_listed(now) && !behaviour.without_profiles.contains(&profile)
        };
        world.created_in(i64::MIN, i64::MAX).iter().filter(listed).copied().collect()
    }

    /// Appends leads, with commas in between.
    pub(super) fn write_leads(&self, rows: &[Row], out: &mut Vec<u8>) {
        let now = self.world_now();
        let behaviour = self.behaviour();
        let world = self.world();
        for (at, row) in rows.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            whatconverts::write_truth(out, &world, row, now, &behaviour);
        }
    }

    /// Counts a request, unless an allowance is spent.
    fn spend(&self, platform: &dyn Platform, key: KeyKind) -> Result<(), Spent> {
        let now = self.now().timestamp_millis();
        let mut spent = lock(&self.spent);
        let spent = spent.entry(key).or_default();
        while spent.front().is_some_and(|at| at + DAY_MS <= now) {
            spent.pop_front();
        }
        for allowance in platform.allowances(key) {
            let length = allowance.per.length();
            let first = spent.partition_point(|at| at + length <= now);
            if spent.len() - first >= allowance.requests {
                // Without an allowance at all there is nothing to wait for.
                let free = spent.get(first).map_or(now, |at| at + length);
                return Err(Spent { per: allowance.per, wait: (free - now + 999) / 1_000 });
            }
        }
        spent.push_back(now);
        Ok(())
    }

    /// Counts a request against the behaviour: what is scripted happens, and an accident is drawn.
    fn arm(&self, number: u64, provider: Provider) -> (Arc<Behaviour>, Option<Fault>) {
        let mut armed = lock(&self.armed);
        let behaviour = Arc::clone(&armed.behaviour);
        let mut due = Vec::new();
        for (at, scripted) in behaviour.script.iter().enumerate() {
            if scripted.after_requests <= armed.requests && !armed.done[at] {
                armed.done[at] = true;
                due.push(scripted);
            }
        }
        let mut records_due = Vec::new();
        let leads = behaviour.script.len();
        for (at, scripted) in behaviour.record_script.iter().enumerate() {
            if scripted.after_requests <= armed.requests && !armed.done[leads + at] {
                armed.done[leads + at] = true;
                records_due.push(scripted);
            }
        }
        armed.requests += 1;
        let is_meant = behaviour.faults_for.is_none_or(|one| one == provider);
        let fault = if is_meant { armed.fail_next.pop_front() } else { None };
        drop(armed);
        // A script that names a lead of another world does nothing.
        for scripted in due {
            let _ = self.edit(scripted.lead_id, &scripted.edit);
        }
        for scripted in records_due {
            let _ = self.edit_record(scripted.stream, &scripted.id, &scripted.edit);
        }
        if !is_meant {
            return (behaviour, None);
        }
        let fault = fault.or_else(|| self.accident(&behaviour, number));
        (behaviour, fault)
    }

    fn accident(&self, behaviour: &Behaviour, number: u64) -> Option<Fault> {
        if behaviour.faults.is_empty() {
            return None;
        }
        let dice = Dice::new(self.seed, Purpose::Fault, number);
        let mut drawn = dice.below(0, 1_000);
        for rate in &behaviour.faults {
            if drawn < rate.per_mille {
                return Some(rate.fault.clone());
            }
            drawn -= rate.per_mille;
        }
        None
    }

    fn note(&self, request: LoggedRequest) {
        lock(&self.log).push(request);
    }

    fn note_answer(&self, number: u64, status: u16, fault: Option<Fault>) {
        let mut log = lock(&self.log);
        if let Some(logged) = log.iter_mut().rev().find(|logged| logged.number == number) {
            logged.status = status;
            logged.fault = fault;
        }
    }
}

/// Serves until `stop` is ready or its sender is gone.
pub(super) async fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    stop: tokio::sync::oneshot::Receiver<()>,
) {
    let router = Router::new()
        .route("/sandbox/leads", get(truth))
        .route("/sandbox/records", get(records))
        .route("/sandbox/requests", get(requests).delete(clear_requests))
        .route("/sandbox/clock", get(now).post(advance))
        .route("/sandbox/behaviour", get(behaviour).post(behave))
        .route("/sandbox/edit", post(edit))
        .route("/sandbox/keys", get(keys))
        .fallback(provider)
        .with_state(shared);
    let service = router.into_make_service_with_connect_info::<Wire>();
    let stopped = async {
        // An error means that the handle was dropped, which ends the sandbox as well.
        let _ = stop.await;
    };
    // The listener never fails: it goes on after an error of one connection.
    let _ = axum::serve(Listen(listener), service).with_graceful_shutdown(stopped).await;
}

/// Takes a request for a platform through log, key, quota and accident.
async fn provider(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(wire): ConnectInfo<Wire>,
    request: Request<Body>,
) -> Response {
    let number = shared.requests.fetch_add(1, Ordering::Relaxed) + 1;
    let (head, body) = request.into_parts();
    // A body that breaks off is as good as none.
    let body = axum::body::to_bytes(body, LARGEST_BODY).await.unwrap_or_default();
    let (path, query) = (head.uri.path(), head.uri.query().unwrap_or_default());
    let provider = Provider::of(path);
    let behaviour = shared.behaviour();
    let key = provider.map_or(KeyKind::None, |provider| {
        shared.platform(provider).identify(&behaviour, path, &head.headers)
    });
    // Released when the answer is made, or when the client gives up.
    let in_flight = Arc::clone(&shared.in_flight);
    // Noted before it is answered: a client that gives up has still sent it.
    shared.note(LoggedRequest {
        number,
        at: shared.now(),
        provider,
        method: head.method.to_string(),
        path: path.to_owned(),
        query: query.to_owned(),
        body: String::from_utf8_lossy(&body).into_owned(),
        key,
        status: 0,
        fault: None,
        at_once: Arc::strong_count(&in_flight) - 1,
    });
    let refused = |refusal: Answer| {
        shared.note_answer(number, refusal.status, None);
        respond(&shared, refusal, false)
    };
    let Some(provider) = provider else {
        return refused(Answer::not_found());
    };
    let platform = shared.platform(provider);
    if let Some(refusal) = refusal(&shared, platform, &head.method, path, key) {
        return refused(refusal);
    }
    let (behaviour, fault) = shared.arm(number, provider);
    pause(behaviour.delay_ms).await;
    if let Some(Fault::Stall { ms }) = fault {
        pause(ms).await;
    }
    let query: Vec<(String, String)> =
        url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let now = shared.world_now();
    let ended = fault == Some(Fault::EndOfList { status: 200 });
    let asked = Asked { path, query: &query, body: &body, key, number, now, ended };
    let answer = platform.answer(&shared, &behaviour, &asked);
    let answer = worded(platform, &behaviour, answer, fault.as_ref());
    let gzip = behaviour.gzip && accepts_gzip(&head.headers);
    let (status, response) = meet(&shared, answer, fault.as_ref(), gzip, &wire);
    shared.note_answer(number, status, fault);
    response
}

/// Returns why a request is not answered at all: unknown path, bad key, or quota.
fn refusal(
    shared: &Shared,
    platform: &dyn Platform,
    method: &Method,
    path: &str,
    key: KeyKind,
) -> Option<Answer> {
    let behaviour = shared.behaviour();
    if !platform.knows(method, path) {
        return Some(platform.lost(&behaviour));
    }
    platform.refuse_key(&behaviour, key).or_else(|| {
        let spent = shared.spend(platform, key).err()?;
        Some(platform.refuse_quota(&behaviour, spent))
    })
}

/// Returns what a platform says in an accident that it words itself.
fn worded(
    platform: &dyn Platform,
    behaviour: &Behaviour,
    answer: Answer,
    fault: Option<&Fault>,
) -> Answer {
    match fault {
        Some(Fault::Status { status }) => platform.accident(behaviour, Accident::Status(*status)),
        Some(Fault::SlowDown { retry_after }) => {
            platform.accident(behaviour, Accident::TooFast).with(header::RETRY_AFTER, retry_after)
        }
        Some(Fault::ErrorInside) => platform.accident(behaviour, Accident::ErrorInside),
        Some(Fault::EndOfList { status }) if *status != 200 => {
            platform.accident(behaviour, Accident::End(*status))
        }
        _ => answer,
    }
}

/// Returns what becomes of an answer in an accident, and the status to log.
fn meet(
    shared: &Shared,
    answer: Answer,
    fault: Option<&Fault>,
    gzip: bool,
    wire: &Wire,
) -> (u16, Response) {
    let answer = match fault {
        None
        | Some(
            Fault::Stall { .. }
            | Fault::Status { .. }
            | Fault::SlowDown { .. }
            | Fault::ErrorInside
            | Fault::EndOfList { .. },
        ) => answer,
        Some(Fault::Html) => Answer::html(200, "Maintenance"),
        Some(Fault::Redirect { to }) => {
            Answer::html(302, "302 Found").with(header::LOCATION, to.clone())
        }
        Some(Fault::CutJson) => {
            let half = answer.body.len() / 2;
            Answer { body: answer.body[..half].to_vec(), ..answer }
        }
        Some(Fault::CutBody) => return (answer.status, cut_short(shared, answer)),
        Some(Fault::Reset | Fault::Close) => {
            wire.reset.store(fault == Some(&Fault::Reset), Ordering::Relaxed);
            wire.broken.store(true, Ordering::Relaxed);
            return (0, respond(shared, answer, false));
        }
    };
    (answer.status, respond(shared, answer, gzip))
}

fn respond(shared: &Shared, answer: Answer, gzip: bool) -> Response {
    let mut answer = answer;
    if gzip {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        // Compressing into memory cannot fail.
        let packed = encoder.write_all(&answer.body).and_then(|()| encoder.finish());
        answer.body = packed.unwrap_or_default();
        answer.headers.push((header::CONTENT_ENCODING, "gzip".to_owned()));
    }
    let body = Body::from(std::mem::take(&mut answer.body));
    head(shared, answer, body)
}

/// Returns an answer whose body is half as long as it says.
fn cut_short(shared: &Shared, mut answer: Answer) -> Response {
    let whole = std::mem::take(&mut answer.body);
    let half = axum::body::Bytes::copy_from_slice(&whole[..whole.len() / 2]);
    let pieces = [Ok(half), Err(io::Error::from(io::ErrorKind::ConnectionAborted))];
    let answer = answer.with(header::CONTENT_LENGTH, whole.len());
    head(shared, answer, Body::from_stream(stream::iter(pieces)))
}

fn head(shared: &Shared, answer: Answer, body: Body) -> Response {
    // The clock of the world, not of the machine: a client may set its own by it.
    let date = shared.now().format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let mut response = Response::builder()
        .status(answer.status)
        .header(header::CONTENT_TYPE, answer.kind)
        .header(header::DATE, date);
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    response.body(body).unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
    accepted.is_some_and(|accepted| accepted.contains("gzip"))
}

async fn pause(ms: u64) {
    if ms > 0 {
        #[expect(clippy::disallowed_methods, reason = "this is the slowness of a network")]
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
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
    /// Number of the account or bot.
    #[serde(default)]
    part: u32,
    /// `lead` or `non-lead`, for chats.
    list: Option<String>,
    ids: Option<u8>,
}

impl RecordsQuery {
    fn listing(&self) -> Listing {
        match self.stream {
            Stream::Contacts => Listing::Contacts { account: self.part },
            Stream::Clients => Listing::Clients { account: self.part },
            Stream::Chats => {
                let lead = self.list.as_deref() != Some("non-lead");
                Listing::Chats { bot: self.part, lead }
            }
            Stream::Users => Listing::Users,
        }
    }
}

async fn records(State(shared): State<Arc<Shared>>, Query(query): Query<RecordsQuery>) -> Response {
    let places = match shared.listed_records(query.listing()) {
        Ok(places) => places,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
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
        Err(error) => (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    }
}

async fn keys(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let keys = &shared.whatconverts.keys;
    let (token, secret) = &keys.master;
    let world = shared.world();
    let profile = |profile: &super::world::Profile| {
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

/// Accepts connections that can be broken from inside a request.
struct Listen(TcpListener);

impl Listener for Listen {
    type Io = WireIo;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, address) = Listener::accept(&mut self.0).await;
        // Without it, a small answer may wait for an acknowledgement. A failure only costs time.
        let _ = stream.set_nodelay(true);
        (WireIo { stream, wire: Wire::default() }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

/// The handle by which a request breaks its connection.
#[derive(Debug, Clone, Default)]
struct Wire {
    broken: Arc<AtomicBool>,
    /// Whether it ends with a reset, not a plain close.
    reset: Arc<AtomicBool>,
}

impl Connected<IncomingStream<'_, Listen>> for Wire {
    fn connect_info(stream: IncomingStream<'_, Listen>) -> Self {
        stream.io().wire.clone()
    }
}

/// A connection that ends instead of sending once its wire is broken.
struct WireIo {
    stream: TcpStream,
    wire: Wire,
}

impl WireIo {
    fn check(&self) -> io::Result<()> {
        if !self.wire.broken.load(Ordering::Relaxed) {
            return Ok(());
        }
        if self.wire.reset.load(Ordering::Relaxed) {
            // Closing now discards what is unsent and resets. A failure leaves a plain close.
            let _ = self.stream.set_zero_linger();
        }
        Err(io::Error::from(io::ErrorKind::ConnectionReset))
    }
}

impl AsyncRead for WireIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for WireIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
