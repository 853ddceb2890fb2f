//! The HTTP side of the sandbox: request log, clock, quota, accidents.
//!
//! A request for a platform passes log, key, quota and accident in this order and is then answered
//! by the platform's module. Nothing here knows what a lead looks like.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::io;
use std::io::Write;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::RwLockReadGuard;
use std::sync::RwLockWriteGuard;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::body::Bytes;
use axum::extract::ConnectInfo;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::Request;
use axum::http::StatusCode;
use axum::http::header;
use axum::http::request::Parts;
use axum::response::IntoResponse;
use axum::response::Response;
use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::StreamExt;
use futures::stream;
use serde::Deserialize;
use serde::Serialize;
use tokio::net::TcpListener;

use super::Error;
use super::Settings;
use super::behaviour::Behaviour;
use super::behaviour::Edit;
use super::behaviour::RecordEdit;
use super::convertalk;
use super::convertalk::Convertalk;
use super::dice::Dice;
use super::dice::Purpose;
use super::faults;
use super::faults::Fault;
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
use wire::Listen;
use wire::Raw;
use wire::Wire;

mod administration;
mod wire;

/// How long a request is remembered, in milliseconds: the longest window of a quota.
const DAY_MS: i64 = 86_400_000;
/// The largest body that is read.
const LARGEST_BODY: usize = 1 << 20;

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

    /// Tells whether it is no sound answer already.
    fn is_refusal(&self) -> bool {
        self.status != 200
    }

    /// Returns the body as JSON.
    #[cfg(test)]
    pub(super) fn read(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Adds a header.
    pub(super) fn with(mut self, name: header::HeaderName, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    /// Changes the body.
    pub(super) fn edited(self, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Self {
        Self { body: change(self.body), ..self }
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
    let router = administration::routes().fallback(provider).with_state(shared);
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
    let provider = Provider::of(head.uri.path());
    let key = provider.map_or(KeyKind::None, |provider| {
        let platform = shared.platform(provider);
        platform.identify(&shared.behaviour(), head.uri.path(), &head.headers)
    });
    // Released when the answer is made, or when the client gives up.
    let in_flight = Arc::clone(&shared.in_flight);
    // Noted before it is answered: a client that gives up has still sent it.
    shared.note(LoggedRequest {
        number,
        at: shared.now(),
        provider,
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        body: String::from_utf8_lossy(&body).into_owned(),
        key,
        status: 0,
        fault: None,
        at_once: Arc::strong_count(&in_flight) - 1,
    });
    let arrived = Arrived { number, provider, key, head, body };
    if let Some(refusal) = refusal(&shared, &arrived) {
        shared.note_answer(number, refusal.status, None);
        return respond(&shared, refusal, false);
    }
    answered(&shared, &arrived, &wire).await
}

/// A request that has been noted.
struct Arrived {
    number: u64,
    provider: Option<Provider>,
    key: KeyKind,
    head: Parts,
    body: Bytes,
}

/// Answers a request that key and quota let through, unless an accident happens to it.
async fn answered(shared: &Shared, arrived: &Arrived, wire: &Wire) -> Response {
    let &Arrived { number, key, ref head, ref body, .. } = arrived;
    let Some(provider) = arrived.provider else {
        return respond(shared, Answer::not_found(), false);
    };
    let platform = shared.platform(provider);
    let (behaviour, fault) = shared.arm(number, provider);
    pause(behaviour.delay_ms).await;
    if let Some(Fault::Stall { ms }) = fault {
        pause(ms).await;
    }
    let query = head.uri.query().unwrap_or_default();
    let query: Vec<(String, String)> =
        url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let asked_page = faults::page_asked(&query).map(str::to_owned);
    let query = fault.as_ref().map_or(query.clone(), |fault| fault.heard(query));
    let asked = Asked {
        path: head.uri.path(),
        query: &query,
        body,
        key,
        number,
        now: shared.world_now(),
        ended: fault == Some(Fault::EndOfList { status: 200 }),
    };
    let answer = platform.answer(shared, &behaviour, &asked);
    let answer = worded(platform, &behaviour, answer, fault.as_ref());
    let gzip = behaviour.gzip && accepts_gzip(&head.headers);
    let answer = match &fault {
        Some(fault) if !answer.is_refusal() => fault.applied(answer, asked_page.as_deref()),
        _ => answer,
    };
    let (status, response) = meet(shared, answer, fault.as_ref(), gzip, wire);
    shared.note_answer(number, status, fault);
    response
}

/// Returns why a request is not answered at all: unknown path, bad key, or quota.
fn refusal(shared: &Shared, arrived: &Arrived) -> Option<Answer> {
    let Some(provider) = arrived.provider else {
        return Some(Answer::not_found());
    };
    let (platform, behaviour) = (shared.platform(provider), shared.behaviour());
    if !platform.knows(&arrived.head.method, arrived.head.uri.path()) {
        return Some(platform.lost(&behaviour));
    }
    platform.refuse_key(&behaviour, arrived.key).or_else(|| {
        let spent = shared.spend(platform, arrived.key).err()?;
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
        Some(Fault::RetryAfter { value }) => {
            platform.accident(behaviour, Accident::TooFast).with(header::RETRY_AFTER, value)
        }
        Some(Fault::ErrorInside) => platform.accident(behaviour, Accident::ErrorInside),
        Some(Fault::EndOfList { status }) if *status != 200 => {
            platform.accident(behaviour, Accident::End(*status))
        }
        _ => answer,
    }
}

/// Returns what becomes of an answer on its way, and the status to log.
fn meet(
    shared: &Shared,
    answer: Answer,
    fault: Option<&Fault>,
    gzip: bool,
    wire: &Wire,
) -> (u16, Response) {
    let status = answer.status;
    let response = match fault {
        Some(Fault::Reset | Fault::Close) => {
            wire.cut(fault == Some(&Fault::Reset));
            return (0, respond(shared, answer, false));
        }
        Some(Fault::CutBody) => cut_short(shared, answer, End::Broken),
        Some(Fault::Freeze) => cut_short(shared, answer, End::Never),
        Some(Fault::Drip { ms }) => drip(shared, answer, *ms),
        Some(Fault::GzipBomb { .. }) => respond(shared, answer, false),
        Some(fault) => {
            if let Some(raw) = Raw::of(fault, &answer.body) {
                wire.say(raw);
            }
            respond(shared, answer, gzip)
        }
        None => respond(shared, answer, gzip),
    };
    (status, response)
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

/// How half a body ends.
enum End {
    /// With the connection.
    Broken,
    /// Not at all.
    Never,
}

/// Returns an answer whose body is half as long as it says.
fn cut_short(shared: &Shared, mut answer: Answer, end: End) -> Response {
    let whole = std::mem::take(&mut answer.body);
    let half = Bytes::copy_from_slice(&whole[..whole.len() / 2]);
    let answer = answer.with(header::CONTENT_LENGTH, whole.len());
    let first = stream::iter([Ok(half)]);
    let body = match end {
        End::Broken => {
            let error = io::Error::from(io::ErrorKind::ConnectionAborted);
            Body::from_stream(first.chain(stream::iter([Err(error)])))
        }
        End::Never => Body::from_stream(first.chain(stream::pending::<io::Result<Bytes>>())),
    };
    head(shared, answer, body)
}

/// Returns an answer whose body comes byte by byte.
fn drip(shared: &Shared, mut answer: Answer, ms: u64) -> Response {
    let whole = Bytes::from(std::mem::take(&mut answer.body));
    let answer = answer.with(header::CONTENT_LENGTH, whole.len());
    let bytes = stream::iter(0..whole.len()).then(move |at| {
        let byte = whole.slice(at..=at);
        async move {
            pause(ms).await;
            Ok::<_, io::Error>(byte)
        }
    });
    head(shared, answer, Body::from_stream(bytes))
}

fn head(shared: &Shared, answer: Answer, body: Body) -> Response {
    // The clock of the world, not of the machine: a client may set its own by it.
    let date = shared.now().format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let mut response =
        Response::builder().status(answer.status).header(header::CONTENT_TYPE, answer.kind);
    if !answer.headers.iter().any(|(name, _)| *name == header::DATE) {
        response = response.header(header::DATE, date);
    }
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
