//! The HTTP side of the sandbox: connections, request log, clock, quota, accidents, administration.
//!
//! A request of the provider's passes log, key, quota and accident in this order and is then
//! answered by the provider's module. Nothing here knows what a lead looks like.

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
use super::dice::Dice;
use super::dice::Purpose;
use super::whatconverts;
use super::whatconverts::Keys;
use super::world::Row;
use super::world::World;
use crate::clock::SharedClock;

/// The window of the quota, in milliseconds.
const DAY_MS: i64 = 86_400_000;
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
}

/// A request as the sandbox saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedRequest {
    /// 1 for the first since the start.
    pub number: u64,
    /// When it came, by the world's clock.
    pub at: DateTime<Utc>,
    /// Such as `GET`.
    pub method: String,
    /// Such as `/api/v1/leads`.
    pub path: String,
    /// What follows the `?`, as sent.
    pub query: String,
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

    /// Returns the provider's form of an error.
    pub(super) fn error(status: u16, text: &str) -> Self {
        let body = serde_json::json!({ "error_message": text });
        Self::json(status, body.to_string().into_bytes())
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
            done: vec![false; behaviour.script.len()],
            behaviour: Arc::new(behaviour),
        }
    }
}

/// What the sandbox's handle and its requests share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) seed: u64,
    pub(super) keys: Keys,
    clock: SharedClock,
    /// Seconds by which the world is ahead of the clock.
    ahead: AtomicI64,
    /// Where the world stands still.
    still: Option<DateTime<Utc>>,
    master_per_day: usize,
    profile_per_day: usize,
    world: RwLock<World>,
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
            keys: Keys::new(settings.seed, &world.profiles),
            clock,
            ahead: AtomicI64::new(0),
            still: settings.still.then_some(settings.now),
            master_per_day: settings.per_day.unwrap_or(10_000) as usize,
            profile_per_day: settings.profile_per_day.unwrap_or(1_000) as usize,
            world: RwLock::new(world),
            armed: Mutex::new(Armed::new(settings.behaviour.clone())),
            log: Mutex::default(),
            spent: Mutex::default(),
            requests: AtomicU64::new(0),
            in_flight: Arc::new(()),
        })
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
        let now = self.now();
        self.still.map_or(now, |still| now.min(still)).timestamp()
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

    /// Counts a request; where the day's allowance is spent, returns the wait in seconds.
    fn spend(&self, key: KeyKind) -> Result<(), i64> {
        let allowance = match key {
            KeyKind::Profile { .. } => self.profile_per_day,
            _ => self.master_per_day,
        };
        let now = self.now().timestamp_millis();
        let mut spent = lock(&self.spent);
        let spent = spent.entry(key).or_default();
        while spent.front().is_some_and(|at| at + DAY_MS <= now) {
            spent.pop_front();
        }
        if spent.len() >= allowance {
            let free = spent.front().map_or(now, |at| at + DAY_MS);
            return Err((free - now + 999) / 1_000);
        }
        spent.push_back(now);
        Ok(())
    }

    /// Counts a request against the behaviour: what is scripted happens, and an accident is drawn.
    fn arm(&self, number: u64) -> (Arc<Behaviour>, Option<Fault>) {
        let mut armed = lock(&self.armed);
        let behaviour = Arc::clone(&armed.behaviour);
        let mut due = Vec::new();
        for (at, scripted) in behaviour.script.iter().enumerate() {
            if scripted.after_requests <= armed.requests && !armed.done[at] {
                armed.done[at] = true;
                due.push(scripted);
            }
        }
        armed.requests += 1;
        let fault = armed.fail_next.pop_front();
        drop(armed);
        for scripted in due {
            // A script that names a lead of another world does nothing.
            let _ = self.edit(scripted.lead_id, &scripted.edit);
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

/// Takes a request of the provider's through log, key, quota and accident.
async fn provider(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(wire): ConnectInfo<Wire>,
    request: Request<Body>,
) -> Response {
    let number = shared.requests.fetch_add(1, Ordering::Relaxed) + 1;
    let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
    let authorization = request.headers().get(header::AUTHORIZATION);
    let key = shared.keys.identify(authorization.and_then(|value| value.to_str().ok()));
    // Released when the answer is made, or when the client gives up.
    let in_flight = Arc::clone(&shared.in_flight);
    // Noted before it is answered: a client that gives up has still sent it.
    shared.note(LoggedRequest {
        number,
        at: shared.now(),
        method: request.method().to_string(),
        path: path.to_owned(),
        query: query.to_owned(),
        key,
        status: 0,
        fault: None,
        at_once: Arc::strong_count(&in_flight) - 1,
    });
    if let Some(refusal) = refusal(&shared, request.method(), path, key) {
        shared.note_answer(number, refusal.status, None);
        return respond(&shared, refusal, false);
    }
    let (behaviour, fault) = shared.arm(number);
    pause(behaviour.delay_ms).await;
    if let Some(Fault::Stall { ms }) = fault {
        pause(ms).await;
    }
    let query: Vec<(String, String)> =
        url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let now = shared.world_now();
    let asked = whatconverts::Request { path, query: &query, key, number, now };
    let answer = whatconverts::answer(&shared.world(), &behaviour, &asked);
    let gzip = behaviour.gzip && accepts_gzip(request.headers());
    let (status, response) = meet(&shared, answer, fault.as_ref(), gzip, &wire);
    shared.note_answer(number, status, fault);
    response
}

/// Returns why a request is not answered at all: unknown path, bad key, or quota.
fn refusal(shared: &Shared, method: &Method, path: &str, key: KeyKind) -> Option<Answer> {
    if method != Method::GET || !whatconverts::knows(path) {
        return Some(Answer::not_found());
    }
    let behaviour = shared.behaviour();
    whatconverts::refuse_key(&behaviour, key).or_else(|| {
        let wait = shared.spend(key).err()?;
        Some(whatconverts::refuse_quota(&behaviour, wait))
    })
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
        None | Some(Fault::Stall { .. }) => answer,
        Some(Fault::Status { status }) => Answer::html(*status, &format!("{status} Error")),
        Some(Fault::SlowDown { retry_after }) => {
            Answer::error(429, "Too many requests.").with(header::RETRY_AFTER, retry_after)
        }
        Some(Fault::Html) => Answer::html(200, "Maintenance"),
        Some(Fault::ErrorInside) => Answer::error(200, "Something went wrong, please try again."),
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
#[serde(deny_unknown_fields)]
struct EditBody {
    lead_id: u64,
    edit: Edit,
}

async fn edit(State(shared): State<Arc<Shared>>, Json(body): Json<EditBody>) -> Response {
    match shared.edit(body.lead_id, &body.edit) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    }
}

async fn keys(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let (token, secret) = &shared.keys.master;
    let world = shared.world();
    let profile = |profile: &super::world::Profile| {
        let (token, secret) = shared.keys.profiles.get(&profile.id)?;
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
