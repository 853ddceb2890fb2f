//! Whautomate's REST API, version 1: the listings of contacts and clients, one record of them.
//!
//! Facts about it, with how sure they are, stand with the code that relies on them: documented by
//! the vendor (help.whautomate.com, "Whautomate REST API"), documented for a sibling product with
//! the same paths and header (WhautoChat, WhautoMail), seen in a client that is known to run
//! (Pipedream's components), or inferred. Nothing was tried against the live API.

mod page;

use std::sync::Arc;

use async_trait::async_trait;
use reqwest::header::ACCEPT;
use reqwest::header::HeaderMap;
use reqwest::header::HeaderName;
use secrecy::ExposeSecret;
use secrecy::SecretString;

use super::Account;
use super::credential;
use super::scopes;
use super::scopes::ALL;
use crate::checkpoint::Partition;
use crate::clock::SharedClock;
use crate::config::WhautomateSettings;
use crate::extract::Abilities;
use crate::extract::Answer;
use crate::extract::Call;
use crate::extract::Caller;
use crate::extract::Error;
use crate::extract::Found;
use crate::extract::HttpClient;
use crate::extract::HttpSettings;
use crate::extract::Lookup;
use crate::extract::PageFacts;
use crate::extract::Result;
use crate::extract::Source;
use crate::extract::http::JSON;
use crate::ids::ProviderId;
use crate::ids::SourceName;
use crate::record::Scope;
use crate::record::Walk;

const PROVIDER: ProviderId = ProviderId::Whautomate;

/// The header that carries the key (documented). A client that sends another vendor's header beside
/// it is not to be followed.
const KEY_HEADER: HeaderName = HeaderName::from_static("x-api-key");

/// What is needed to read a Whautomate account.
#[derive(Debug)]
pub(super) struct Settings {
    /// Connection.
    pub(super) http: HttpSettings,
    /// The key of the account.
    pub(super) api_key: SecretString,
    /// A stream that the key may be tried with where the account itself cannot be asked for.
    pub(super) stream: &'static str,
    /// Whether a page shorter than a full first one is the end. The vendor does not say how a
    /// listing ends, nor whether a size that is too large is cut in silence.
    pub(super) short_page_ends: bool,
}

/// A Whautomate account.
#[derive(Debug)]
pub(super) struct Whautomate {
    http: HttpClient,
    api_key: SecretString,
    stream: &'static str,
    short_page_ends: bool,
}

impl Whautomate {
    /// Makes the client. Fails where the key cannot stand in a header.
    pub(super) fn new(settings: Settings, clock: SharedClock) -> Result<Self> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, JSON);
        headers.insert(KEY_HEADER, credential(PROVIDER, settings.api_key.expose_secret())?);
        let http = HttpClient::new(PROVIDER, settings.http, headers, clock)?;
        let Settings { api_key, stream, short_page_ends, .. } = settings;
        Ok(Self { http, api_key, stream, short_page_ends })
    }

    async fn send(&self, call: Call<'_>) -> Result<Answer> {
        let answer = self.http.send(call).await?;
        page::refuse_bad_status(&answer).map_err(|error| self.blot(error))?;
        Ok(answer)
    }

    /// Both parameters are documented, as texts. The first page is 1: so a client counts that runs.
    async fn list(&self, stream: &str, page: u32, size: u32) -> Result<Answer> {
        let query = [("page", page.to_string()), ("limit", size.to_string())];
        self.send(Call::get(&format!("v1/{stream}")).query(&query)).await
    }

    fn blot(&self, error: Error) -> Error {
        error.without(&[self.api_key.expose_secret()])
    }
}

impl Account for WhautomateSettings {
    fn connect(&self, http: HttpSettings, clock: SharedClock) -> Result<Arc<dyn Source>> {
        let settings = Settings {
            http,
            api_key: self.api_key.read()?,
            stream: self.streams.first().map_or("contacts", |stream| stream.as_str()),
            short_page_ends: self.short_page_ends,
        };
        Ok(Arc::new(Whautomate::new(settings, clock)?))
    }

    fn scopes(&self, source: &SourceName, _: Option<&[Partition]>) -> Vec<Scope> {
        let streams = self.streams.iter().map(|stream| stream.as_str());
        streams.flat_map(|stream| scopes::listings(source, stream, ALL, &[""])).collect()
    }

    fn credentials(&self, source: &SourceName) -> String {
        let api_key = self.api_key.describe();
        format!(
            "`api_key` of source `{source}` comes from {api_key}; a key may be good for the host of \
             its region only, so look at `base_url` as well; `leadpipe check` tries both"
        )
    }
}

#[async_trait]
impl Source for Whautomate {
    fn provider(&self) -> ProviderId {
        PROVIDER
    }

    async fn fetch_page(&self, walk: &Walk, page: u32, size: u32) -> Result<Answer> {
        self.list(&walk.scope.stream, page, size).await
    }

    /// One contact is asked for like this by a client that runs, one client by the vendor's
    /// documents; that it then shows what the listing shows is inferred. What stands under a name of
    /// its own is no page, and only tells that the record is there.
    async fn fetch_record(&self, walk: &Walk, native_id: &str, _in_scope: bool) -> Result<Lookup> {
        let path = format!("v1/{}", walk.scope.stream);
        let asked = self.send(Call::get(&path).segment(native_id)).await;
        let read = asked.and_then(|answer| {
            let single = page::read_single(&answer.body, native_id);
            Ok((single.map_err(|error| self.blot(error))?, answer))
        });
        match read {
            Ok((page::Single::Record { is_page }, answer)) => {
                Ok(Lookup::Found(Found { answer, is_whole: is_page }))
            }
            Ok((page::Single::None, _)) => Ok(Lookup::Nothing),
            Err(error) if page::says_unknown_record(&error, &walk.scope.stream) => {
                Ok(Lookup::Unknown)
            }
            Err(error) => Err(error),
        }
    }

    /// The account is the cheapest to ask for, but only a sibling's documents have it; where it is
    /// an unknown path, a page of one row is asked for instead.
    async fn check(&self, caller: &Caller) -> Result<&'static str> {
        let account = || async {
            let answer = self.send(Call::get("v1/account-info")).await?;
            page::read_account(&answer.body).map_err(|error| self.blot(error))
        };
        match caller.attempt_once(account).await {
            Err(Error::Refused { .. }) => {}
            asked => return asked.map(|()| "the key of an account"),
        }
        let rows = || async {
            let answer = self.list(self.stream, 1, 1).await?;
            self.read_page(&answer.body).map(drop)
        };
        caller.attempt_once(rows).await.map(|()| "a key that may list")
    }

    async fn list_partitions(&self, _caller: &Caller) -> Result<Option<Vec<Partition>>> {
        Ok(None)
    }

    fn read_page(&self, body: &[u8]) -> Result<PageFacts> {
        page::read_rows(body).map_err(|error| self.blot(error))
    }

    fn abilities(&self) -> Abilities {
        Abilities { sized_pages: true, short_page_ends: self.short_page_ends, finds_records: true }
    }
}

/// See [`super::read_in_every_way`].
#[cfg(any(test, fuzzing))]
pub(super) fn read_in_every_way(answer: &Answer) -> (Result<PageFacts>, Vec<Error>) {
    if let Err(error) = page::refuse_bad_status(answer) {
        let _ = page::says_unknown_record(&error, "contacts");
        return (Err(error), Vec::new());
    }
    let others = [page::read_single(&answer.body, "5").map(drop), page::read_account(&answer.body)];
    let errors: Vec<Error> = others.into_iter().filter_map(Result::err).collect();
    for error in &errors {
        let _ = page::says_unknown_record(error, "contacts");
    }
    (page::read_rows(&answer.body), errors)
}

#[cfg(test)]
mod tests;
