//! HTTP as all providers need it: one attempt, bounded in time and size, credentials only to the
//! origin they belong to.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use bytes::BytesMut;
use chrono::DateTime;
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
use url::Url;

use super::Error;
use super::Result;
use crate::clock::SharedClock;
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
    /// The longest that no byte may come.
    pub stall: Duration,
    /// The largest body taken, in bytes, decompressed.
    pub max_body_bytes: u64,
    /// Where the provider's time is noted.
    pub heard: HeardTime,
}

/// What the provider's last answer, a refusal too, told of its clock: a client notes it, and whoever
/// shares this takes it.
#[derive(Debug, Clone, Default)]
pub struct HeardTime {
    ahead: Arc<Mutex<Option<TimeDelta>>>,
}

impl HeardTime {
    /// Takes by how much the provider's clock is ahead of ours, where it told since this was asked
    /// last.
    pub fn take(&self) -> Option<TimeDelta> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn note(&self, ahead: TimeDelta) {
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) = Some(ahead);
    }
}

/// An answer that took longer to begin says too little of the time: its date is that of some moment
/// on the way.
const PROMPT: TimeDelta = TimeDelta::seconds(20);

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
            .connect_timeout(Duration::from_secs(15))
            .redirect(redirect::Policy::custom(stay_at_origin))
            .build()
            .map_err(|source| Error::Setup { provider, source: source.into() })?;
        Ok(Self { provider, http, settings, clock })
    }

    /// Sends one GET of `path` below the base address.
    pub async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Answer> {
        self.send(Call::get(path).query(query)).await
    }

    /// Sends one request. Fails where its path cannot be written, with nothing sent.
    pub async fn send(&self, call: Call<'_>) -> Result<Answer> {
        let url = call.url(&self.settings.base_url).ok_or_else(|| self.unwritable(call))?;
        let request = call.describe(&url);
        let method = if call.json.is_some() { Method::POST } else { Method::GET };
        let mut sending = self.http.request(method, url);
        if let Some(headers) = call.headers {
            sending = sending.headers(headers.clone());
        }
        if let Some(json) = call.json {
            sending = sending.header(CONTENT_TYPE, JSON).body(json.to_owned());
        }
        let steps = Steps::new(|| format!("network/{}", self.provider));
        steps.reach("before");
        let sent_at = self.clock.now();
        let sent = sending.send().await;
        let mut response = sent.map_err(|error| self.transport(error))?;
        steps.reach("answered");
        let (status, begun_at) = (response.status().as_u16(), self.clock.now());
        let date = date(response.headers());
        let is_prompt = (TimeDelta::zero()..=PROMPT).contains(&(begun_at - sent_at));
        if let Some(date) = date.filter(|_| is_prompt) {
            self.settings.heard.note(date - begun_at);
        }
        let retry_after = retry_after(response.headers(), date.unwrap_or(begun_at));
        let media_type = media_type(response.headers());
        let body = self.body(&mut response).await?;
        steps.reach("received");
        let received_at = self.clock.now();
        Ok(Answer { status, request, retry_after, media_type, body, received_at })
    }

    fn unwritable(&self, call: Call<'_>) -> Error {
        let what = format!("below `{}`, an id of this form has no path of its own", call.path);
        Error::Setup { provider: self.provider, source: what.into() }
    }

    async fn body(&self, response: &mut reqwest::Response) -> Result<Bytes> {
        let limit_bytes = self.settings.max_body_bytes;
        let expected = response.content_length().unwrap_or(0).min(limit_bytes);
        let mut body = BytesMut::with_capacity(usize::try_from(expected).unwrap_or(0));
        while let Some(chunk) = response.chunk().await.map_err(|error| self.transport(error))? {
            if body.len() as u64 + chunk.len() as u64 > limit_bytes {
                return Err(Error::TooLarge { provider: self.provider, limit_bytes });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    fn transport(&self, error: reqwest::Error) -> Error {
        let provider = self.provider;
        if let Some(away) = find_away(&error) {
            return Error::Redirected { provider, origin: away.0.clone() };
        }
        if error.is_body() || error.is_decode() {
            let detail = "the body ended early or could not be decompressed".to_owned();
            return Error::Broken { provider, detail };
        }
        Error::Connect { provider, source: error.without_url() }
    }
}

/// A redirect to another origin.
#[derive(Debug, thiserror::Error)]
#[error("redirect to another origin, `{0}`")]
struct Away(String);

fn stay_at_origin(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let here = attempt.previous().first().map(Url::origin);
    if here.as_ref() != Some(&attempt.url().origin()) {
        let origin = attempt.url().origin().ascii_serialization();
        return attempt.error(Away(origin));
    }
    if attempt.previous().len() > 5 {
        return attempt.stop();
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

/// Reads `Retry-After`: seconds or a date. What is absurd (negative, or over two days) is nothing.
fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<TimeDelta> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<i64>() {
        Ok(seconds) => TimeDelta::try_seconds(seconds)?,
        Err(_) => DateTime::parse_from_rfc2822(text).ok()?.to_utc() - now,
    };
    (wait >= TimeDelta::zero() && wait <= TimeDelta::days(2)).then_some(wait)
}

/// Reads `Date`; an answer that lay in a cache (it has an `Age`) tells when it was made, which is
/// nothing.
fn date(headers: &HeaderMap) -> Option<DateTime<Utc>> {
    let date = headers.get(DATE).filter(|_| !headers.contains_key(AGE))?;
    Some(DateTime::parse_from_rfc2822(date.to_str().ok()?.trim()).ok()?.to_utc())
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
        for absurd in ["-5", "soon", "99999999999999999", "Thu, 01 Jan 1960 00:00:00 GMT"] {
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
        headers.insert(DATE, HeaderValue::from_static("yesterday"));
        assert_eq!(date(&headers), None);
    }

    #[test]
    fn a_providers_words_are_one_harmless_line() {
        assert_eq!(one_line("a\x1b[31m\n b\t\u{7}c"), "a [31m b c");
        assert_eq!(one_line("a\u{9b}b\u{202e}c\u{2066}d\u{200b}e\u{2028}f"), "a b c d e f");
        assert_eq!(one_line(&"x".repeat(999)).chars().count(), 301);
    }

    #[test]
    fn a_providers_words_name_nobody_by_address_or_number() {
        let text =
            "lead 179000001 of 2026-11-27 (jo@example.com, +1-312-555-0187 or 3125550187) broke";
        let harmless = "lead 179000001 of 2026-11-27 [address] [number] or [number] broke";
        assert_eq!(one_line(text), harmless);
    }
}
