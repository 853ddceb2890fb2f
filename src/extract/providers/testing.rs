//! A server on this machine that says what a test told it to, and tells what it was asked.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::Request;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::StatusCode;
use chrono::DateTime;
use chrono::TimeDelta;
use tokio::sync::watch;
use url::Url;

use crate::clock::ManualClock;
use crate::clock::SharedClock;
use crate::extract::Caller;
use crate::extract::Halt;
use crate::extract::HttpSettings;
use crate::extract::RetryPolicy;
use crate::ids::ProviderId;
use crate::ids::Seq;
use crate::ids::WalkId;
use crate::quota;
use crate::quota::Ledger;
use crate::quota::Quota;
use crate::record::Reason;
use crate::record::Scope;
use crate::record::Walk;
use crate::store::Store;

/// The secret of tests, which nothing may repeat.
pub(super) const SECRET: &str = "s3cr3t-t0ken";

/// A request as it came.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// Method, path and query.
    pub(super) line: String,
    /// The headers.
    pub(super) headers: HeaderMap,
    /// The body.
    pub(super) body: String,
}

impl Asked {
    /// Returns a header, or an empty text.
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

type Shared = Arc<Mutex<(VecDeque<(u16, String)>, Vec<Asked>)>>;

/// A provider that answers what it was told to, one answer a request.
#[derive(Debug)]
pub(super) struct Server {
    base_url: Url,
    shared: Shared,
}

impl Server {
    /// Starts a server with these answers: status and JSON.
    pub(super) async fn saying(answers: &[(u16, &str)]) -> Self {
        let answers = answers.iter().map(|(status, body)| (*status, (*body).to_owned())).collect();
        let shared: Shared = Arc::new(Mutex::new((answers, Vec::new())));
        let app = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        let base_url = Url::parse(&format!("http://{address}/base/")).unwrap();
        Self { base_url, shared }
    }

    /// Returns how it is talked to.
    pub(super) fn http(&self) -> HttpSettings {
        HttpSettings {
            base_url: self.base_url.clone(),
            timeout: Duration::from_secs(5),
            stall: Duration::from_secs(5),
            max_body_bytes: 1_000_000,
            heard: crate::extract::Heard::default(),
        }
    }

    /// Returns what it was asked.
    pub(super) fn asked(&self) -> Vec<Asked> {
        self.shared.lock().unwrap().1.clone()
    }

    /// Returns the lines of what it was asked.
    pub(super) fn lines(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.line).collect()
    }
}

async fn answer(State(shared): State<Shared>, request: Request) -> (StatusCode, String) {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 100_000).await.unwrap();
    let mut shared = shared.lock().unwrap();
    shared.1.push(Asked {
        line: format!("{} {}", parts.method, parts.uri),
        headers: parts.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    });
    let (status, body) = shared.0.pop_front().unwrap_or((500, String::new()));
    (StatusCode::from_u16(status).unwrap(), body)
}

/// Returns a clock that stands still.
pub(super) fn clock() -> SharedClock {
    Arc::new(ManualClock::new("2026-03-01T02:00:00Z".parse().unwrap()))
}

/// Returns a caller with permits enough, and the folder of its ledger.
pub(super) fn caller(provider: ProviderId, plan: Option<&str>) -> (tempfile::TempDir, Caller) {
    let folder = tempfile::tempdir().unwrap();
    let rule = quota::preset(provider, plan).unwrap();
    let ledger = Ledger::open(Store::open(folder.path()), "group", rule);
    let quota = Quota::new(ledger, clock(), quota::Options::default());
    let policy = RetryPolicy {
        retries: 2,
        first_wait: Duration::from_millis(1),
        longest_wait: Duration::from_millis(1),
        patience: TimeDelta::minutes(1),
        rate_span: rule.rate.per,
    };
    let (_, halt) = watch::channel(Halt::GoOn);
    (folder, Caller::new(provider, Arc::new(quota), clock(), policy, halt))
}

/// Returns a walk over a whole listing.
pub(super) fn walk(stream: &str, partition: &str, list: &str) -> Walk {
    Walk {
        id: WalkId::new(Seq(1)),
        scope: Scope {
            source: "source".parse().unwrap(),
            stream: stream.to_owned(),
            partition: partition.to_owned(),
            query: String::new(),
            list: list.to_owned(),
        },
        window: None,
        page_size: 100,
        opened_at: DateTime::UNIX_EPOCH,
        reason: Reason::History,
        down_to: None,
    }
}
