//! Convertalk's REST API, that of BotPenguin under its name: the chats of a bot, the users of an
//! account.
//!
//! Facts about it, with how sure they are, stand with the code that relies on them: documented on
//! Convertalk's pages (help.convertalk.com), on those of BotPenguin or another of its white labels
//! (help.botpenguin.com, BotBuddy AI), seen in clients that run against BotPenguin (Pipedream's and
//! n8n's components, scripts in Python), or inferred. Nothing was tried against the live API.

mod page;

use std::sync::Arc;

use async_trait::async_trait;
use reqwest::header::ACCEPT;
use reqwest::header::CONTENT_TYPE;
use reqwest::header::HeaderMap;
use reqwest::header::HeaderName;
use secrecy::ExposeSecret;
use secrecy::SecretString;
use serde_json::json;

use super::Account;
use super::credential;
use super::scopes;
use super::scopes::ALL;
use crate::checkpoint::Partition;
use crate::clock::SharedClock;
use crate::config::ConvertalkSettings;
use crate::config::ConvertalkStream;
use crate::extract::Abilities;
use crate::extract::Answer;
use crate::extract::Call;
use crate::extract::Caller;
use crate::extract::Error;
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

const PROVIDER: ProviderId = ProviderId::Convertalk;

/// The path of a bot's chats.
const CHATS: &str = "inbox/direct/chats";

/// The path of an account's users.
const USERS: &str = "inbox/users";

/// What is needed to read a Convertalk customer.
#[derive(Debug)]
pub(super) struct Settings {
    /// Connection.
    pub(super) http: HttpSettings,
    /// The token.
    pub(super) token: SecretString,
    /// The customer the bots belong to.
    pub(super) customer_id: String,
    /// The bot that the token is tried with; `None` where no chats are read, but users.
    pub(super) first_bot: Option<String>,
    /// How the token of chats is carried.
    pub(super) chats: Carrier,
    /// How the token of users is carried.
    pub(super) users: Carrier,
}

/// How a token is carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Carrier {
    /// The header.
    pub(super) header: String,
    /// What stands before the token, blanks included.
    pub(super) prefix: String,
    /// The value of the header `authtype`; `None` to send none.
    pub(super) authtype: Option<String>,
}

impl Carrier {
    /// Returns how the token of chats is carried in `header`. Convertalk documents `x-bot-token` and
    /// the bare token; BotPenguin's newest page has all tokens in `Authorization`, with a prefix and
    /// an `authtype` beside it.
    pub(super) fn by_header(header: &str) -> Self {
        let is_bearer = header.eq_ignore_ascii_case("authorization");
        let (prefix, authtype) = if is_bearer { ("Bearer ", Some("Key")) } else { ("", None) };
        Self {
            header: header.to_owned(),
            prefix: prefix.to_owned(),
            authtype: authtype.map(str::to_owned),
        }
    }

    fn headers(&self, token: &SecretString) -> Result<HeaderMap> {
        let fail = |source| Error::Setup { provider: PROVIDER, source };
        let name = HeaderName::from_bytes(self.header.as_bytes());
        let name = name.map_err(|source| fail(Box::new(source)))?;
        let text = format!("{}{}", self.prefix, token.expose_secret());
        let mut headers = HeaderMap::new();
        headers.insert(name, credential(PROVIDER, &text)?);
        if let Some(authtype) = &self.authtype {
            let value = authtype.parse().map_err(|source| fail(Box::new(source)))?;
            headers.insert(HeaderName::from_static("authtype"), value);
        }
        Ok(headers)
    }
}

/// Bots of a Convertalk customer, and its users.
#[derive(Debug)]
pub(super) struct Convertalk {
    http: HttpClient,
    token: SecretString,
    customer_id: String,
    first_bot: Option<String>,
    chats: HeaderMap,
    users: HeaderMap,
}

impl Convertalk {
    /// Makes the client. Fails where the token cannot stand in a header.
    pub(super) fn new(settings: Settings, clock: SharedClock) -> Result<Self> {
        let chats = settings.chats.headers(&settings.token)?;
        let users = settings.users.headers(&settings.token)?;
        // The type of the content is documented as required, of a GET as well.
        let headers = HeaderMap::from_iter([(ACCEPT, JSON), (CONTENT_TYPE, JSON)]);
        let http = HttpClient::new(PROVIDER, settings.http, headers, clock)?;
        let Settings { token, customer_id, first_bot, .. } = settings;
        Ok(Self { http, token, customer_id, first_bot, chats, users })
    }

    async fn send(&self, call: Call<'_>) -> Result<Answer> {
        let answer = self.http.send(call).await?;
        page::refuse_bad_status(&answer).map_err(|error| self.blot(error))?;
        Ok(answer)
    }

    /// All four parameters are documented, and no other. The first page is 1 (BotPenguin's page).
    async fn list_chats(&self, bot: &str, list: &str, page: u32) -> Result<Answer> {
        let query = [
            ("botId", bot.to_owned()),
            ("customerId", self.customer_id.clone()),
            ("page", page.to_string()),
            ("type", list.to_owned()),
        ];
        self.send(Call::get(CHATS).query(&query).headers(&self.chats)).await
    }

    async fn list_users(&self, page: u32) -> Result<Answer> {
        let body = users_body(page);
        self.send(Call::post(USERS, &body).headers(&self.users)).await
    }

    fn blot(&self, error: Error) -> Error {
        error.without(&[self.token.expose_secret()])
    }
}

/// The two listings of a bot. A chat becomes a lead, so what is no lead is read first: one that moves
/// meanwhile is then on one of them.
const LISTS: [&str; 2] = ["non-lead", "lead"];

impl Account for ConvertalkSettings {
    fn connect(&self, http: HttpSettings, clock: SharedClock) -> Result<Arc<dyn Source>> {
        let reads_chats = self.streams.contains(&ConvertalkStream::Chats);
        let users = &self.users_auth;
        let settings = Settings {
            http,
            token: self.token.read()?,
            customer_id: self.customer_id.clone(),
            first_bot: self.bot_ids.first().filter(|_| reads_chats).cloned(),
            chats: Carrier::by_header(&self.auth_header),
            users: Carrier {
                header: users.header.clone(),
                prefix: users.prefix.clone(),
                authtype: users.authtype.clone(),
            },
        };
        Ok(Arc::new(Convertalk::new(settings, clock)?))
    }

    fn scopes(&self, source: &SourceName, _: Option<&[Partition]>) -> Vec<Scope> {
        let listings = |stream: &ConvertalkStream| match stream {
            ConvertalkStream::Users => scopes::listings(source, stream.as_str(), ALL, &[""]),
            ConvertalkStream::Chats => {
                let bots = self.bot_ids.iter().map(|bot| format!("bot:{bot}"));
                let of_bot = |bot: String| scopes::listings(source, stream.as_str(), &bot, &LISTS);
                bots.flat_map(of_bot).collect()
            }
        };
        self.streams.iter().flat_map(listings).collect()
    }

    fn credentials(&self, source: &SourceName) -> String {
        let token = self.token.describe();
        format!(
            "`token` of source `{source}` comes from {token}; the brands' documents disagree on the \
             header that carries it, so look at `auth_header` and `users_auth` as well; \
             `leadpipe check` tries them"
        )
    }
}

#[async_trait]
impl Source for Convertalk {
    fn provider(&self) -> ProviderId {
        PROVIDER
    }

    /// The server alone decides how many rows a page has.
    async fn fetch_page(&self, walk: &Walk, page: u32, _size: u32) -> Result<Answer> {
        match walk.scope.partition.strip_prefix("bot:") {
            Some(bot) => self.list_chats(bot, &walk.scope.list, page).await,
            None => self.list_users(page).await,
        }
    }

    /// No call for one record is documented, nor seen: a client finds one by reading all pages.
    async fn fetch_record(&self, walk: &Walk, _native_id: &str, _in_scope: bool) -> Result<Lookup> {
        let what = format!("there is no call for one of the {}", walk.scope.stream);
        Err(Error::Setup { provider: PROVIDER, source: what.into() })
    }

    async fn check(&self, caller: &Caller) -> Result<&'static str> {
        let page = || async {
            let answer = match &self.first_bot {
                Some(bot) => self.list_chats(bot, "lead", 1).await?,
                None => self.list_users(1).await?,
            };
            self.read_page(&answer.body).map(drop)
        };
        caller.attempt_once(page).await?;
        Ok(match self.first_bot {
            Some(_) => "a token that may list chats",
            None => "a token that may list users",
        })
    }

    async fn list_partitions(&self, _caller: &Caller) -> Result<Option<Vec<Partition>>> {
        Ok(None)
    }

    fn read_page(&self, body: &[u8]) -> Result<PageFacts> {
        page::read_rows(body).map_err(|error| self.blot(error))
    }

    fn abilities(&self) -> Abilities {
        Abilities { sized_pages: false, short_page_ends: false, finds_records: false }
    }
}

/// Returns what lists all users of the account. The vendor's page requires every field, and has
/// `""`, `[]` and `false` for those that filter nothing; `page`, `isSubscriber`, `isContact` and
/// `isExport` stand in no list of it, and are as clients send them that read all contacts.
fn users_body(page: u32) -> String {
    let any_time = json!({ "startAt": "", "endsAt": "" });
    json!({
        "page": page,
        "searchText": "",
        "createdAt": any_time,
        "lastSeenAt": any_time,
        "status": [],
        "tags": [],
        "tagsV2": [],
        "segments": [],
        "lastMessageBy": [],
        "applicableFilters": [],
        "_agentAssigned": [],
        "_botWebsite": [],
        "_botWhatsapp": [],
        "_botTelegram": [],
        "_botFacebook": [],
        "_botAutomation": [],
        "isOnline": false,
        "isLiveChatActive": false,
        "userInteracted": false,
        "ctwaNewUsers": false,
        "ctwaOldUsers": false,
        "hasOrdered": { "status": false, "lastAt": "" },
        "isSubscriber": true,
        "isContact": false,
        // Another value might begin an export.
        "isExport": "none",
    })
    .to_string()
}

/// See [`super::read_in_every_way`].
#[cfg(any(test, fuzzing))]
pub(super) fn read_in_every_way(answer: &Answer) -> (Result<PageFacts>, Vec<Error>) {
    (page::refuse_bad_status(answer).and_then(|()| page::read_rows(&answer.body)), Vec::new())
}

#[cfg(test)]
mod tests;
