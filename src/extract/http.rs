//! HTTP as all providers need it: one attempt, bounded in time and size, credentials only to the
//! origin they belong to.
//!
//! Two things bound the time: no byte for `stall`, and `timeout` for the whole, which also ends an
//! answer that drips. Both run in real time, whatever the clock, and their errors name the phase. The
//! body of a refusal is read as far as its words may reach. Of answers that are far larger than pages are
//! only a few are in memory at once, however many are under way. Text that is not UTF-8 becomes U+FFFD here,
//! so that the archive holds what is mapped.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use bytes::BytesMut;
use chrono::DateTime;
use chrono::Datelike;
use chrono::TimeDelta;
use chrono::Utc;
use reqwest::Method;
use reqwest::header::AGE;
use reqwest::header::CONTENT_TYPE;
use reqwest::header::DATE;
use reqwest::header::HeaderMap;
use reqwest::header::HeaderValue;
use reqwest::header::RETRY_AFTER;
use reqwest::redirect;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use url::Url;

use super::Error;
use super::Result;
use crate::clock::SharedClock;
use crate::clock::Stopwatch;
use crate::harmless::is_harmful;
use crate::ids::ProviderId;
use crate::point::Steps;

/// The media type of what is sent and expected.
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// How a client behaves.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// The origin and path all requests go to.
    pub base_url: Url,
    /// The longest a whole request may take.
    pub timeout: Duration,
    /// The longest that no byte may come; making a connection may take half of it.
    pub stall: Duration,
    /// The largest body taken, in bytes, decompressed.
    pub max_body_bytes: u64,
    /// Where what answers tell beside their bodies is noted.
    pub heard: Heard,
}

/// What the provider's last answer, a refusal too, told of its clock, and how many requests it sent on:
/// a client notes it, and whoever shares this takes it.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    ahead: Arc<Mutex<Option<TimeDelta>>>,
    redirects: Arc<AtomicU32>,
}

impl Heard {
    /// Takes by how much the provider's clock is ahead of ours, where it told since this was asked
    /// last.
    pub fn take(&self) -> Option<TimeDelta> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Takes how many requests went on to another address since this was asked last, each of which the
    /// provider counts as one more.
    pub fn take_redirects(&self) -> u32 {
        self.redirects.swap(0, Ordering::Relaxed)
    }

    fn note(&self, ahead: TimeDelta) {
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) = Some(ahead);
    }
}

/// An answer that took longer to begin says too little of the time: its date is that of some moment
/// on the way.
const PROMPT: TimeDelta = TimeDelta::seconds(20);

/// What of the body of a refusal is read, in bytes: no provider has so much to say.
const REFUSAL_BYTES: u64 = 64 << 10;

/// A body up to here needs no more room than any page has.
const PAGE_BYTES: usize = 8 << 20;

/// Larger bodies of a source that may be in memory at once: the others wait, unread.
const LARGE_AT_ONCE: usize = 2;

/// A large body, and its room: both are given back when the last that looks at it is done.
struct Large {
    body: Bytes,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Large {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

/// What of a request takes its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Making the connection, TLS included.
    Connecting,
    /// From the request to the head of the answer.
    Waiting,
    /// From the head of the answer to its end.
    Reading,
}

impl fmt::Display for Phase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Connecting => "connecting",
            Self::Waiting => "waiting for the answer",
            Self::Reading => "reading the answer",
        })
    }
}

/// One request below the base address.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    path: &'a str,
    segment: Option<&'a str>,
    query: &'a [(&'a str, String)],
    headers: Option<&'a HeaderMap>,
    json: Option<&'a str>,
}

impl<'a> Call<'a> {
    /// Returns a GET of `path`.
    pub fn get(path: &'a str) -> Self {
        Self { path, segment: None, query: &[], headers: None, json: None }
    }

    /// Returns a POST of `json` to `path`. The body is kept with the request's name: no secrets.
    pub fn post(path: &'a str, json: &'a str) -> Self {
        Self { json: Some(json), ..Self::get(path) }
    }

    /// Adds one more segment to the path, whatever its characters: an id that the provider made up.
    #[must_use]
    pub fn segment(self, segment: &'a str) -> Self {
        Self { segment: Some(segment), ..self }
    }

    /// Sets the query, which is no place for secrets.
    #[must_use]
    pub fn query(self, query: &'a [(&'a str, String)]) -> Self {
        Self { query, ..self }
    }

    /// Adds headers to those of the client.
    #[must_use]
    pub fn headers(self, headers: &'a HeaderMap) -> Self {
        Self { headers: Some(headers), ..self }
    }

    fn url(&self, base_url: &Url) -> Option<Url> {
        let mut url = base_url.clone();
        url.set_path(&format!("{}/{}", url.path().trim_end_matches('/'), self.path));
        if let Some(segment) = self.segment {
            // Where a segment means a folder, it cannot be told from a path without it.
            if matches!(segment, "" | "." | "..") {
                return None;
            }
            url.path_segments_mut().ok()?.push(segment);
        }
        if !self.query.is_empty() {
            url.query_pairs_mut().extend_pairs(self.query);
        }
        Some(url)
    }

    /// Returns what the archive says of it: path and query, and what a POST sends.
    fn describe(&self, url: &Url) -> String {
        let address = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        match self.json {
            Some(json) => format!("POST {address} {json}"),
            None => address,
        }
    }
}

/// An answer, whatever its status.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Path and query as sent; with `POST` before it and the body after it where there was one.
    pub request: String,
    /// How long the provider asks to wait.
    pub retry_after: Option<TimeDelta>,
    /// The media type, without parameters.
    pub media_type: String,
    /// The body, decompressed.
    pub body: Bytes,
    /// When the whole answer was there.
    pub received_at: DateTime<Utc>,
}

impl Answer {
    /// Tells whether the status is one of success.
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Returns an answer as a test needs it.
    #[cfg(test)]
    pub(super) fn of_test(status: u16, media_type: &str, body: &'static str) -> Self {
        Self {
            status,
            request: "/the/path?page=1".to_owned(),
            retry_after: None,
            media_type: media_type.to_owned(),
            body: Bytes::from_static(body.as_bytes()),
            received_at: DateTime::UNIX_EPOCH,
        }
    }
}

/// A connection to one provider.
#[derive(Debug, Clone)]
pub struct HttpClient {
    provider: ProviderId,
    http: reqwest::Client,
    settings: HttpSettings,
    clock: SharedClock,
    /// For bodies beyond [`PAGE_BYTES`].
    room: Arc<Semaphore>,
}

impl HttpClient {
    /// Makes a client that sends `headers` (the credentials among them) with each request.
    pub fn new(
        provider: ProviderId,
        settings: HttpSettings,
        headers: HeaderMap,
        clock: SharedClock,
    ) -> Result<Self> {
        // The provider of cryptography is process-wide; that somebody set it already is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .user_agent(concat!("leadpipe/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .timeout(settings.timeout)
            .read_timeout(settings.stall)
            .connect_timeout(connect_timeout(&settings))
            .redirect(redirect::Policy::custom(stay_at_origin))
            .build()
            .map_err(|source| Error::Setup { provider, source: source.into() })?;
        let room = Arc::new(Semaphore::new(LARGE_AT_ONCE));
        Ok(Self { provider, http, settings, clock, room })
    }

    /// Sends one request. Fails where its path cannot be written, with nothing sent.
    pub async fn send(&self, call: Call<'_>) -> Result<Answer> {
        let url = call.url(&self.settings.base_url).ok_or_else(|| self.unwritable(call))?;
        let request = call.describe(&url);
        let method = if call.json.is_some() { Method::POST } else { Method::GET };
        let mut sending = self.http.request(method, url.clone());
        if let Some(headers) = call.headers {
            sending = sending.headers(headers.clone());
        }
        if let Some(json) = call.json {
            sending = sending.header(CONTENT_TYPE, JSON).body(json.to_owned());
        }
        let steps = Steps::new(|| format!("network/{}", self.provider));
        steps.reach("before");
        let (sent_at, watch) = (self.clock.now(), Stopwatch::start());
        let sent = sending.send().await;
        let mut response = sent.map_err(|error| self.transport(error, Phase::Waiting, watch))?;
        steps.reach("answered");
        self.look_at_way(&call, &url, response.url())?;
        let (status, begun_at) = (response.status().as_u16(), self.clock.now());
        let date = date(response.headers());
        let is_prompt = (TimeDelta::zero()..=PROMPT).contains(&(begun_at - sent_at));
        if let Some(date) = date.filter(|_| is_prompt) {
            self.settings.heard.note(date - begun_at);
        }
        let retry_after = retry_after(response.headers(), date.unwrap_or(begun_at));
        let media_type = media_type(response.headers());
        let body = match response.status().is_success() {
            true => self.body(&mut response, watch).await?,
            false => self.words(&mut response, watch).await?,
        };
        steps.reach("received");
        let received_at = self.clock.now();
        Ok(Answer { status, request, retry_after, media_type, body, received_at })
    }

    /// Notes that an answer comes from another address than was asked. Of a POST, most redirects make a
    /// GET without its body, whose answer is one to another question.
    fn look_at_way(&self, call: &Call<'_>, asked: &Url, answered: &Url) -> Result<()> {
        if asked == answered {
            return Ok(());
        }
        self.settings.heard.redirects.fetch_add(1, Ordering::Relaxed);
        let path = one_line(answered.path());
        match call.json {
            Some(_) => Err(Error::Misdirected { provider: self.provider, path }),
            None => Ok(()),
        }
    }

    fn unwritable(&self, call: Call<'_>) -> Error {
        let what = format!("below `{}`, an id of this form has no path of its own", call.path);
        Error::Setup { provider: self.provider, source: what.into() }
    }

    async fn body(&self, response: &mut reqwest::Response, watch: Stopwatch) -> Result<Bytes> {
        let limit_bytes = self.settings.max_body_bytes;
        let expected = response.content_length().unwrap_or(0).min(limit_bytes);
        let mut body = BytesMut::with_capacity(usize::try_from(expected).unwrap_or(0));
        let mut room = None;
        while let Some(chunk) = self.chunk(response, watch).await? {
            let length = body.len() + chunk.len();
            if length as u64 > limit_bytes {
                return Err(Error::TooLarge { provider: self.provider, limit_bytes });
            }
            if length > PAGE_BYTES && room.is_none() {
                let free = Arc::clone(&self.room).acquire_owned().await;
                room = Some(free.map_err(|_| Error::Stopped)?);
            }
            body.extend_from_slice(&chunk);
        }
        let body = as_utf8(body.freeze());
        Ok(match room {
            None => body,
            Some(room) => Bytes::from_owner(Large { body, _room: room }),
        })
    }

    /// Reads what a refusal says: its beginning, and less where it breaks off, since the status alone
    /// says what matters.
    async fn words(&self, response: &mut reqwest::Response, watch: Stopwatch) -> Result<Bytes> {
        let mut body = BytesMut::new();
        while let Ok(Some(chunk)) = self.chunk(response, watch).await {
            body.extend_from_slice(&chunk);
            if body.len() as u64 >= REFUSAL_BYTES {
                body.truncate(usize::try_from(REFUSAL_BYTES).unwrap_or(usize::MAX));
                break;
            }
        }
        Ok(as_utf8(body.freeze()))
    }

    async fn chunk(
        &self,
        response: &mut reqwest::Response,
        watch: Stopwatch,
    ) -> Result<Option<Bytes>> {
        let chunk = response.chunk().await;
        chunk.map_err(|error| self.transport(error, Phase::Reading, watch))
    }

    fn transport(&self, error: reqwest::Error, phase: Phase, watch: Stopwatch) -> Error {
        let provider = self.provider;
        match find_away(&error) {
            Some(Away::Origin(origin)) => {
                return Error::Redirected { provider, origin: origin.clone() };
            }
            Some(Away::Circle) => return Error::Circling { provider },
            Some(Away::Query(path)) => return Error::Misdirected { provider, path: path.clone() },
            None => {}
        }
        if let Some(reason) = find_certificate(&error) {
            return Error::Certificate { provider, reason };
        }
        let phase = if error.is_connect() { Phase::Connecting } else { phase };
        if error.is_timeout() {
            let HttpSettings { timeout, stall, .. } = self.settings;
            let limit = match phase {
                Phase::Connecting => connect_timeout(&self.settings),
                Phase::Waiting | Phase::Reading => stall,
            };
            return match watch.elapsed() < timeout {
                true => Error::Stalled { provider, phase, limit },
                false => Error::TooSlow { provider, phase, limit: timeout },
            };
        }
        if error.is_body() || error.is_decode() {
            let detail = "the body ended early or could not be decompressed".to_owned();
            return Error::Broken { provider, detail };
        }
        Error::Connect { provider, source: error.without_url() }
    }
}

/// The silence of a connection that is being made counts as any other; it must end before that does, to
/// be told from it.
fn connect_timeout(settings: &HttpSettings) -> Duration {
    settings.stall / 2
}

/// Returns a body as it is where it is UTF-8, else with U+FFFD for what is not.
fn as_utf8(body: Bytes) -> Bytes {
    // That alone is much faster than to look for what is not.
    if std::str::from_utf8(&body).is_ok() {
        return body;
    }
    Bytes::from(String::from_utf8_lossy(&body).into_owned())
}

/// A redirect that is not followed.
#[derive(Debug, thiserror::Error)]
enum Away {
    /// To another origin.
    #[error("redirect to another origin, `{0}`")]
    Origin(String),
    /// To this path, without what was asked for: its answer would be one to another question.
    #[error("redirect to `{0}` without the query")]
    Query(String),
    /// Again and again.
    #[error("redirects without an end")]
    Circle,
}

/// Redirects of one request that are followed. The provider may count each as a request, so the next
/// one waits for a permit more.
const MOST_REDIRECTS: usize = 1;

fn stay_at_origin(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let asked = attempt.previous().first();
    if asked.map(Url::origin) != Some(attempt.url().origin()) {
        let origin = attempt.url().origin().ascii_serialization();
        return attempt.error(Away::Origin(origin));
    }
    if asked.map(Url::query) != Some(attempt.url().query()) {
        let path = one_line(attempt.url().path());
        return attempt.error(Away::Query(path));
    }
    if attempt.previous().len() > MOST_REDIRECTS {
        return attempt.error(Away::Circle);
    }
    attempt.follow()
}

fn find_away<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Away> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(away) = error.downcast_ref::<Away>() {
            return Some(away);
        }
        next = error.source();
    }
    None
}

/// Returns what is wrong with the certificate, where that is why there is no connection.
fn find_certificate(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        // An error of TLS travels inside one of input and output, which does not show it as its source.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let told = match inner {
            Some(inner) => inner.downcast_ref::<rustls::Error>(),
            None => error.downcast_ref::<rustls::Error>(),
        };
        if let Some(rustls::Error::InvalidCertificate(reason)) = told {
            return Some(in_words(reason));
        }
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

fn in_words(reason: &rustls::CertificateError) -> String {
    use rustls::CertificateError as Reason;
    let words = match reason {
        Reason::UnknownIssuer => "nobody whom this machine trusts has signed it",
        Reason::NotValidForName | Reason::NotValidForNameContext { .. } => {
            "it is that of another host"
        }
        Reason::Expired | Reason::ExpiredContext { .. } => "it has expired",
        Reason::NotValidYet | Reason::NotValidYetContext { .. } => "it is not valid yet",
        Reason::Revoked => "it has been revoked",
        other => return one_line(&other.to_string()),
    };
    words.to_owned()
}

/// Reads `Retry-After`: seconds or a date. What is absurd (negative, or over two days) is nothing.
fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<TimeDelta> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<i64>() {
        Ok(seconds) => TimeDelta::try_seconds(seconds)?,
        Err(_) => instant(text)? - now,
    };
    (wait >= TimeDelta::zero() && wait <= TimeDelta::days(2)).then_some(wait)
}

/// Reads `Date`; an answer that lay in a cache (it has an `Age`) tells when it was made, which is
/// nothing.
fn date(headers: &HeaderMap) -> Option<DateTime<Utc>> {
    let date = headers.get(DATE).filter(|_| !headers.contains_key(AGE))?;
    instant(date.to_str().ok()?.trim())
}

/// Reads a date of HTTP, of the years that can be reckoned with.
fn instant(text: &str) -> Option<DateTime<Utc>> {
    let instant = DateTime::parse_from_rfc2822(text).ok()?.to_utc();
    (1900..=9999).contains(&instant.year()).then_some(instant)
}

fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    value.split(';').next().unwrap_or("").trim().to_ascii_lowercase()
}

/// Returns a provider's own words, fit to be shown and logged: one line, nothing that controls, turns or
/// hides text, at most 300 characters, and no addresses or telephone numbers, since a provider may name
/// the lead it stumbles over.
pub(super) fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || is_harmful(c)).filter(|w| !w.is_empty());
    let line = words.map(discreet).collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Returns a word, or what kind of word it is where somebody could be reached by it.
fn discreet(word: &str) -> &str {
    let digits = word.bytes().filter(u8::is_ascii_digit).count();
    let is_number = word.chars().all(|c| c.is_ascii_digit() || c.is_ascii_punctuation());
    // Ids of leads, dates and times have fewer, or letters between them.
    let least = if word.contains('+') { 7 } else { 10 };
    match word.contains('@') {
        true => "[address]",
        false if is_number && digits >= least => "[number]",
        false => word,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(value: &'static str) -> Option<TimeDelta> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_static(value));
        retry_after(&headers, DateTime::UNIX_EPOCH)
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_nothing_absurd() {
        assert_eq!(wait("120"), Some(TimeDelta::seconds(120)));
        assert_eq!(wait("Thu, 01 Jan 1970 00:01:00 GMT"), Some(TimeDelta::seconds(60)));
        for absurd in [
            "",
            "-5",
            "soon",
            "1.5",
            "99999999999999999",
            "1000000000000000000",
            "999999999999999999999999",
            "Thu, 01 Jan 1960 00:00:00 GMT",
            "Fri, 31 Dec 9999 23:59:59 GMT",
            "Wed, 31 Dec 262142 23:59:59 GMT",
        ] {
            assert_eq!(wait(absurd), None, "{absurd}");
        }
    }

    #[test]
    fn a_date_is_one_of_http_and_no_memory_of_a_cache() {
        let mut headers = HeaderMap::new();
        assert_eq!(date(&headers), None);
        headers.insert(DATE, HeaderValue::from_static("Thu, 01 Jan 1970 00:01:00 GMT"));
        assert_eq!(date(&headers), Some(DateTime::UNIX_EPOCH + TimeDelta::minutes(1)));
        headers.insert(AGE, HeaderValue::from_static("3600"));
        assert_eq!(date(&headers), None);
        headers.remove(AGE);
        for none in ["yesterday", "", "Wed, 31 Dec 262142 23:59:59 GMT"] {
            headers.insert(DATE, HeaderValue::from_static(none));
            assert_eq!(date(&headers), None, "{none}");
        }
    }

    #[test]
    fn a_providers_words_are_one_harmless_line() {
        assert_eq!(one_line("a\x1b[31m\n b\t\u{7}c"), "a [31m b c");
        assert_eq!(one_line("a\u{9b}b\u{202e}c\u{2066}d\u{200b}e\u{2028}f"), "a b c d e f");
        assert_eq!(one_line(&"x".repeat(999)).chars().count(), 301);
    }

    #[tokio::test]
    async fn a_redirect_is_followed_once_counted_and_never_answers_a_post() {
        use axum::http::Uri;
        let on = |uri: Uri| async move {
            let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
            let to = match uri.path() {
                "/first" => Some(format!("/second{query}")),
                "/before" => Some(format!("/first{query}")),
                _ => None,
            };
            let status = axum::http::StatusCode::from_u16(if to.is_some() { 302 } else { 200 });
            (status.unwrap(), [("location", to.unwrap_or_default())], "{}")
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(on)).await });
        let heard = Heard::default();
        let settings = HttpSettings {
            base_url,
            timeout: Duration::from_secs(5),
            stall: Duration::from_secs(5),
            max_body_bytes: 1_000,
            heard: heard.clone(),
        };
        let clock = Arc::new(crate::clock::ManualClock::new(DateTime::UNIX_EPOCH));
        let client =
            HttpClient::new(ProviderId::Convertalk, settings, HeaderMap::new(), clock).unwrap();

        let query = [("page", "2".to_owned())];
        assert_eq!(client.send(Call::get("first").query(&query)).await.unwrap().body, "{}");
        assert_eq!((heard.take_redirects(), heard.take_redirects()), (1, 0));
        let circling = client.send(Call::get("before")).await.unwrap_err();
        assert!(matches!(circling, Error::Circling { .. }), "{circling}");
        let posted = client.send(Call::post("first", "{}")).await.unwrap_err();
        assert!(matches!(posted, Error::Misdirected { .. }), "{posted}");
        assert_eq!(client.send(Call::post("second", "{}")).await.unwrap().body, "{}");
    }

    #[test]
    fn a_providers_words_name_nobody_by_address_or_number() {
        let text =
            "lead 179000001 of 2026-11-27 (jo@example.com, +1-312-555-0187 or 3125550187) broke";
        let harmless = "lead 179000001 of 2026-11-27 [address] [number] or [number] broke";
        assert_eq!(one_line(text), harmless);
    }
}
