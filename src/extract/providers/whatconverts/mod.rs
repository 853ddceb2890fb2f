//! WhatConverts' REST API, version 1: the listing of leads, the accounts, one lead.
//!
//! Facts about it, with how sure they are, stand with the code that relies on them. The sources
//! are the vendor's pages under `https://www.whatconverts.com/api/` and what public clients saw.

mod page;

use std::sync::Arc;

use async_trait::async_trait;
use chrono::DateTime;
use chrono::SecondsFormat;
use chrono::TimeDelta;
use chrono::Utc;
use reqwest::header::AUTHORIZATION;
use reqwest::header::HeaderMap;
use secrecy::ExposeSecret;
use secrecy::SecretString;

use super::Account;
use super::credential;
use super::scopes;
use super::scopes::Filters;
use crate::checkpoint::Partition;
use crate::clock::SharedClock;
use crate::config::WhatConvertsPlan;
use crate::config::WhatConvertsSettings;
use crate::extract::Abilities;
use crate::extract::Answer;
use crate::extract::Caller;
use crate::extract::Error;
use crate::extract::Found;
use crate::extract::HttpClient;
use crate::extract::HttpSettings;
use crate::extract::PageFacts;
use crate::extract::Result;
use crate::extract::Source;
use crate::ids::ProviderId;
use crate::ids::SourceName;
use crate::record::Scope;
use crate::record::Walk;

const PROVIDER: ProviderId = ProviderId::WhatConverts;

/// The largest page of accounts (documented under `/api/accounts/`).
const ACCOUNTS_PER_PAGE: u32 = 250;

/// How far a request reaches beyond its window on each side, since nobody documents whether the
/// ends are included.
const OVERLAP: TimeDelta = TimeDelta::seconds(1);

/// What is needed to read a WhatConverts account.
#[derive(Debug)]
pub(super) struct Settings {
    /// Connection.
    pub(super) http: HttpSettings,
    /// The API token, the user name of Basic authentication.
    pub(super) token: SecretString,
    /// The API secret, its password.
    pub(super) secret: SecretString,
    /// Whether the key is a master key, which spans all accounts of an agency.
    pub(super) is_master: bool,
    /// The names of the parameters that bound creation time: the reference says `start_date` and
    /// `end_date`, the vendor's FAQ `date_start` and `date_end`.
    pub(super) date_parameters: [String; 2],
}

/// A WhatConverts key.
#[derive(Debug)]
pub(super) struct WhatConverts {
    http: HttpClient,
    is_master: bool,
    date_parameters: [String; 2],
    /// Token, secret, and both as they travel: never to be repeated, even by the provider.
    secrets: [SecretString; 3],
}

impl WhatConverts {
    /// Makes the client. Fails where the credentials cannot stand in a header.
    pub(super) fn new(settings: Settings, clock: SharedClock) -> Result<Self> {
        let credentials = credentials(&settings.token, &settings.secret);
        let headers = basic_auth(&credentials)?;
        let http = HttpClient::new(PROVIDER, settings.http, headers, clock)?;
        let date_parameters = settings.date_parameters;
        let secrets = [settings.token, settings.secret, credentials];
        Ok(Self { http, is_master: settings.is_master, date_parameters, secrets })
    }

    async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Answer> {
        let answer = self.http.get(path, query).await?;
        page::refuse_bad_status(&answer).map_err(|error| self.blot(error))?;
        Ok(answer)
    }

    fn blot(&self, error: Error) -> Error {
        error.without(&self.secrets.each_ref().map(|secret| secret.expose_secret()))
    }

    fn leads_query(&self, walk: &Walk, page: u32, size: u32) -> Vec<(&str, String)> {
        let mut query = Vec::with_capacity(8);
        if let Some(id) = profile_of(walk) {
            query.push(("profile_id", id.to_owned()));
        }
        if let Some(window) = walk.window {
            let [start, end] = &self.date_parameters;
            query.push((start, wire_time(window.start() - OVERLAP)));
            query.push((end, wire_time(window.end() + OVERLAP)));
        }
        query.push(("order", "asc".to_owned()));
        query.push(("leads_per_page", size.to_string()));
        query.push(("page_number", page.to_string()));
        query
    }
}

impl Account for WhatConvertsSettings {
    fn connect(&self, http: HttpSettings, clock: SharedClock) -> Result<Arc<dyn Source>> {
        let settings = Settings {
            http,
            token: self.token.read()?,
            secret: self.secret.read()?,
            is_master: self.plan == WhatConvertsPlan::Master,
            date_parameters: self.date_parameters.clone(),
        };
        Ok(Arc::new(WhatConverts::new(settings, clock)?))
    }

    fn scopes(&self, source: &SourceName, partitions: Option<&[Partition]>) -> Vec<Scope> {
        let filters = Filters { spam: self.spam, duplicate: self.duplicate };
        let selects = |listed: &Partition| {
            let profile = listed.name.strip_prefix("profile:").and_then(|id| id.parse().ok());
            profile.is_none_or(|id| self.profiles.selects(id))
                && listed.account.is_none_or(|id| self.accounts.selects(id))
        };
        scopes::partitioned(source, "leads", partitions, selects, filters)
    }

    fn credentials(&self, source: &SourceName) -> String {
        let (token, secret) = (self.token.describe(), self.secret.describe());
        format!(
            "`token` and `secret` of source `{source}` come from {token} and {secret}; \
             `leadpipe check` tries them"
        )
    }
}

#[async_trait]
impl Source for WhatConverts {
    fn provider(&self) -> ProviderId {
        PROVIDER
    }

    async fn fetch_page(&self, walk: &Walk, page: u32, size: u32) -> Result<Answer> {
        let mut query = self.leads_query(walk, page, size);
        let filters = url::form_urlencoded::parse(walk.scope.query.as_bytes());
        let filters: Vec<(String, String)> = filters.into_owned().collect();
        query.extend(filters.iter().map(|(name, value)| (name.as_str(), value.clone())));
        self.get("api/v1/leads", &query).await
    }

    async fn fetch_record(
        &self,
        walk: &Walk,
        native_id: &str,
        in_scope: bool,
    ) -> Result<Option<Found>> {
        let path = format!("api/v1/leads/{native_id}");
        // A master key is shown custom fields only where a profile is named; but a lead that has
        // moved to another profile may then be "unknown".
        let profile = profile_of(walk).filter(|_| in_scope).map(|id| ("profile_id", id.to_owned()));
        let query: Vec<(&str, String)> = profile.into_iter().collect();
        let answer = match self.get(&path, &query).await {
            Ok(answer) => answer,
            Err(error) if page::says_unknown_lead(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        match page::read_single(&answer.body, native_id) {
            Ok(page::Single::None) => Ok(None),
            Ok(page::Single::Lead { has_custom_fields }) => {
                let is_whole = !self.is_master || has_custom_fields;
                Ok(Some(Found { answer, is_whole }))
            }
            Err(error) if page::says_unknown_lead(&error) => Ok(None),
            Err(error) => Err(self.blot(error)),
        }
    }

    /// Only a master key reaches the accounts, which tells the kind of the key; nothing else does.
    async fn check(&self, caller: &Caller) -> Result<&'static str> {
        let one = |name| [(name, "1".to_owned())];
        let accounts = || async {
            let answer = self.get("api/v1/accounts", &one("accounts_per_page")).await?;
            page::read_accounts(&answer).map(drop).map_err(|error| self.blot(error))
        };
        let asked = caller.attempt_once(accounts).await;
        match asked {
            Ok(()) if self.is_master => return Ok("a master key"),
            Ok(()) => {
                return Err(Error::OtherKind { provider: PROVIDER, is: "master", set: "profile" });
            }
            Err(Error::Unauthorized { .. }) => {}
            Err(error) => return Err(error),
        }
        let leads = || async {
            let answer = self.get("api/v1/leads", &one("leads_per_page")).await?;
            self.read_page(&answer.body).map(drop)
        };
        caller.attempt(leads).await?;
        match self.is_master {
            false => Ok("a profile key"),
            true => Err(Error::OtherKind { provider: PROVIDER, is: "profile", set: "master" }),
        }
    }

    async fn list_partitions(&self, caller: &Caller) -> Result<Option<Vec<Partition>>> {
        if !self.is_master {
            return Ok(None);
        }
        let mut partitions = Vec::new();
        let mut number = 1;
        loop {
            let accounts = caller
                .attempt(|| async {
                    let size = ("accounts_per_page", ACCOUNTS_PER_PAGE.to_string());
                    let query = [size, ("page_number", number.to_string())];
                    page::read_accounts(&self.get("api/v1/accounts", &query).await?)
                })
                .await?;
            let last = accounts.is_last(number, ACCOUNTS_PER_PAGE);
            for account in accounts.accounts {
                let profiles = match account.profiles {
                    Some(profiles) => profiles,
                    None => self.list_profiles(caller, account.account_id).await?,
                };
                partitions.extend(profiles.into_iter().map(|profile| Partition {
                    name: format!("profile:{}", profile.profile_id),
                    account: Some(account.account_id),
                }));
            }
            if last {
                break;
            }
            number += 1;
        }
        Ok(Some(partitions))
    }

    fn read_page(&self, body: &[u8]) -> Result<PageFacts> {
        page::read_leads(body).map_err(|error| self.blot(error))
    }

    fn abilities(&self) -> Abilities {
        Abilities { sized_pages: true, short_page_ends: true, finds_records: true }
    }
}

impl WhatConverts {
    /// The profiles of one account, for answers in which they are not nested.
    async fn list_profiles(&self, caller: &Caller, account: u64) -> Result<Vec<page::Profile>> {
        let mut profiles = Vec::new();
        let mut number = 1;
        loop {
            let path = format!("api/v1/accounts/{account}/profiles");
            let page = caller
                .attempt(|| async {
                    let size = ("profiles_per_page", ACCOUNTS_PER_PAGE.to_string());
                    let query = [size, ("page_number", number.to_string())];
                    page::read_profiles(&self.get(&path, &query).await?)
                })
                .await?;
            let last = page.is_last(number, ACCOUNTS_PER_PAGE);
            profiles.extend(page.profiles);
            if last {
                return Ok(profiles);
            }
            number += 1;
        }
    }
}

fn profile_of(walk: &Walk) -> Option<&str> {
    walk.scope.partition.strip_prefix("profile:")
}

fn wire_time(instant: DateTime<Utc>) -> String {
    instant.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn credentials(token: &SecretString, secret: &SecretString) -> SecretString {
    let pair = format!("{}:{}", token.expose_secret(), secret.expose_secret());
    base64(pair.as_bytes()).into()
}

fn basic_auth(credentials: &SecretString) -> Result<HeaderMap> {
    let encoded = format!("Basic {}", credentials.expose_secret());
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, credential(PROVIDER, &encoded)?);
    Ok(headers)
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
