//! WhatConverts' REST API, version 1: the listing of leads, the accounts, one lead.
//!
//! Facts about it, with how sure they are, stand with the code that relies on them. The sources
//! are the vendor's pages under `https://www.whatconverts.com/api/` and what public clients saw.

mod page;

use std::collections::BTreeSet;
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
use crate::config::PartitionBy;
use crate::config::Selection;
use crate::config::WhatConvertsPlan;
use crate::config::WhatConvertsSettings;
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
use crate::ids::ProviderId;
use crate::ids::SourceName;
use crate::record::Scope;
use crate::record::Walk;

const PROVIDER: ProviderId = ProviderId::WhatConverts;

/// The largest page of accounts (documented under `/api/accounts/`).
const ACCOUNTS_PER_PAGE: u32 = 250;

/// What the names of partitions begin with.
const PROFILE: &str = "profile:";
const ACCOUNT: &str = "account:";

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
    /// What one listing of a master key shows.
    pub(super) partition_by: PartitionBy,
    /// The names of the parameters that bound creation time: the reference says `start_date` and
    /// `end_date`, the vendor's FAQ `date_start` and `date_end`.
    pub(super) date_parameters: [String; 2],
}

/// A WhatConverts key.
#[derive(Debug)]
pub(super) struct WhatConverts {
    http: HttpClient,
    is_master: bool,
    partition_by: PartitionBy,
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
        let Settings { is_master, partition_by, date_parameters, .. } = settings;
        let secrets = [settings.token, settings.secret, credentials];
        Ok(Self { http, is_master, partition_by, date_parameters, secrets })
    }

    async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Answer> {
        self.send(Call::get(path).query(query)).await
    }

    async fn send(&self, call: Call<'_>) -> Result<Answer> {
        let answer = self.http.send(call).await?;
        page::refuse_bad_status(&answer).map_err(|error| self.blot(error))?;
        Ok(answer)
    }

    fn blot(&self, error: Error) -> Error {
        error.without(&self.secrets.each_ref().map(|secret| secret.expose_secret()))
    }

    fn leads_query(&self, walk: &Walk, page: u32, size: u32) -> Vec<(&str, String)> {
        let mut query = Vec::with_capacity(8);
        // Either is enough by itself, and without both a master key shows all (seen by public clients).
        if let Some(id) = profile_of(walk) {
            query.push(("profile_id", id.to_owned()));
        } else if let Some(id) = walk.scope.partition.strip_prefix(ACCOUNT) {
            query.push(("account_id", id.to_owned()));
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
            partition_by: self.partition_by,
            date_parameters: self.date_parameters.clone(),
        };
        Ok(Arc::new(WhatConverts::new(settings, clock)?))
    }

    fn scopes(&self, source: &SourceName, partitions: Option<&[Partition]>) -> Vec<Scope> {
        scopes_of(self, source, partitions, self.partition_by)
    }

    fn scopes_by(
        &self,
        source: &SourceName,
        partitions: Option<&[Partition]>,
        by: PartitionBy,
    ) -> Option<Vec<Scope>> {
        let selects_profiles = self.profiles != Selection::default();
        let selects_accounts = self.accounts != Selection::default();
        let is_told = match by {
            PartitionBy::Profile => partitions.is_some_and(lists_profiles),
            PartitionBy::Account => partitions.is_some() && !selects_profiles,
            PartitionBy::None => !selects_profiles && !selects_accounts,
        };
        let has_choice = self.plan == WhatConvertsPlan::Master;
        (has_choice && is_told).then(|| scopes_of(self, source, partitions, by))
    }

    fn is_told_by(&self, partitions: &[Partition]) -> bool {
        match (self.plan, self.partition_by) {
            (WhatConvertsPlan::Profile, _) | (_, PartitionBy::None) => false,
            (_, PartitionBy::Account) => true,
            (_, PartitionBy::Profile) => lists_profiles(partitions),
        }
    }

    fn credentials(&self, source: &SourceName) -> String {
        let (token, secret) = (self.token.describe(), self.secret.describe());
        format!(
            "`token` and `secret` of source `{source}` come from {token} and {secret}; \
             `leadpipe check` tries them"
        )
    }
}

/// Returns the scopes of a source whose listings are cut `by` something. Without partitions there is
/// one, of all.
fn scopes_of(
    settings: &WhatConvertsSettings,
    source: &SourceName,
    partitions: Option<&[Partition]>,
    by: PartitionBy,
) -> Vec<Scope> {
    let filters = Filters { spam: settings.spam, duplicate: settings.duplicate };
    let in_account = |id: &u64| settings.accounts.selects(*id);
    let names = match (partitions, by) {
        (None, _) | (_, PartitionBy::None) => vec![scopes::ALL.to_owned()],
        (Some(listed), PartitionBy::Profile) => {
            let selects = |partition: &&Partition| {
                let profile = partition.name.strip_prefix(PROFILE).and_then(|id| id.parse().ok());
                profile.is_some_and(|id| settings.profiles.selects(id))
                    && partition.account.as_ref().is_none_or(in_account)
            };
            listed.iter().filter(selects).map(|partition| partition.name.clone()).collect()
        }
        (Some(listed), PartitionBy::Account) => {
            let mut accounts: Vec<u64> = Vec::new();
            for id in listed.iter().filter_map(|partition| partition.account).filter(in_account) {
                if !accounts.contains(&id) {
                    accounts.push(id);
                }
            }
            accounts.iter().map(|id| format!("{ACCOUNT}{id}")).collect()
        }
    };
    scopes::partitioned(source, "leads", &names, filters)
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

    async fn fetch_record(&self, walk: &Walk, native_id: &str, in_scope: bool) -> Result<Lookup> {
        // A master key is shown custom fields only where a profile is named; but a lead that has
        // moved to another profile may then be "unknown".
        let profile = profile_of(walk).filter(|_| in_scope).map(|id| ("profile_id", id.to_owned()));
        let query: Vec<(&str, String)> = profile.into_iter().collect();
        // An id is the provider's, and may be any text: as a part of the path it stays one.
        let call = Call::get("api/v1/leads").segment(native_id).query(&query);
        let answer = match self.send(call).await {
            Ok(answer) => answer,
            Err(error) if page::says_unknown_lead(&error) => return Ok(Lookup::Unknown),
            Err(error) => return Err(error),
        };
        match page::read_single(&answer.body, native_id) {
            Ok(page::Single::None) => Ok(Lookup::Nothing),
            Ok(page::Single::Lead { has_custom_fields }) => {
                // A listing that names no profile shows no custom fields either.
                let is_whole = !self.is_master || has_custom_fields || profile_of(walk).is_none();
                Ok(Lookup::Found(Found { answer, is_whole }))
            }
            Err(error) if page::says_unknown_lead(&error) => Ok(Lookup::Unknown),
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
        if !self.is_master || self.partition_by == PartitionBy::None {
            return Ok(None);
        }
        let (mut partitions, mut known) = (Vec::new(), BTreeSet::new());
        let mut number = 1;
        loop {
            let accounts = caller
                .attempt(|| async {
                    let size = ("accounts_per_page", ACCOUNTS_PER_PAGE.to_string());
                    let query = [size, ("page_number", number.to_string())];
                    let answer = self.get("api/v1/accounts", &query).await?;
                    page::read_accounts(&answer).map_err(|error| self.blot(error))
                })
                .await?;
            let last = accounts.is_last(number, ACCOUNTS_PER_PAGE);
            let before = known.len();
            for account in accounts.accounts {
                let id = account.account_id;
                if !known.insert(id) {
                    continue;
                }
                let listed = |name| Partition { name, account: Some(id) };
                let profiles = match account.profiles {
                    Some(profiles) => profiles,
                    // The account is read as a whole: its profiles are not worth a request.
                    None if self.partition_by == PartitionBy::Account => {
                        partitions.push(listed(format!("{ACCOUNT}{id}")));
                        continue;
                    }
                    None => self.list_profiles(caller, id).await?,
                };
                let profiles = profiles.into_iter();
                partitions.extend(
                    profiles.map(|profile| listed(format!("{PROFILE}{}", profile.profile_id))),
                );
            }
            if last {
                break;
            }
            refuse_endless(number, known.len() - before)?;
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
        let (mut profiles, mut known) = (Vec::new(), BTreeSet::new());
        let mut number = 1;
        loop {
            let path = format!("api/v1/accounts/{account}/profiles");
            let page = caller
                .attempt(|| async {
                    let size = ("profiles_per_page", ACCOUNTS_PER_PAGE.to_string());
                    let query = [size, ("page_number", number.to_string())];
                    let answer = self.get(&path, &query).await?;
                    page::read_profiles(&answer).map_err(|error| self.blot(error))
                })
                .await?;
            let last = page.is_last(number, ACCOUNTS_PER_PAGE);
            let before = profiles.len();
            profiles.extend(page.profiles.into_iter().filter(|one| known.insert(one.profile_id)));
            if last {
                return Ok(profiles);
            }
            refuse_endless(number, profiles.len() - before)?;
            number += 1;
        }
    }
}

/// Pages of accounts, or of the profiles of one, beyond which a list is taken for one that never ends.
const MOST_LIST_PAGES: u32 = 400;

/// Fails where a list of accounts or profiles goes on after a page that showed nothing new, or for ever:
/// one that ignores the page number would else be asked for until the quota is spent.
fn refuse_endless(number: u32, new: usize) -> Result<()> {
    let detail = match (new, number) {
        (0, _) => format!("page {number} of its accounts shows none that were not on those before"),
        (_, MOST_LIST_PAGES..) => {
            format!("its list of accounts has no end: page {number} has more")
        }
        _ => return Ok(()),
    };
    Err(Error::Broken { provider: PROVIDER, detail })
}

/// See [`super::read_in_every_way`].
#[cfg(any(test, fuzzing))]
pub(super) fn read_in_every_way(answer: &Answer) -> (Result<PageFacts>, Vec<Error>) {
    if let Err(error) = page::refuse_bad_status(answer) {
        let _ = page::says_unknown_lead(&error);
        return (Err(error), Vec::new());
    }
    let others = [
        page::read_single(&answer.body, "5").map(drop),
        page::read_accounts(answer).map(drop),
        page::read_profiles(answer).map(drop),
    ];
    let errors: Vec<Error> = others.into_iter().filter_map(Result::err).collect();
    for error in &errors {
        let _ = page::says_unknown_lead(error);
    }
    (page::read_leads(&answer.body), errors)
}

fn profile_of(walk: &Walk) -> Option<&str> {
    walk.scope.partition.strip_prefix(PROFILE)
}

/// Tells whether profiles were listed, and not only the accounts they belong to.
fn lists_profiles(partitions: &[Partition]) -> bool {
    partitions.iter().all(|partition| partition.name.starts_with(PROFILE))
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Job;
    use crate::config::ProviderSettings;
    use crate::extract::providers::testing::SECRET;
    use crate::extract::providers::testing::Server;
    use crate::extract::providers::testing::caller;
    use crate::extract::providers::testing::clock;
    use crate::extract::providers::testing::walk;

    /// The settings of a source with a key of that kind.
    fn settings(plan: &str, more: &str) -> WhatConvertsSettings {
        let text = format!(
            "name = \"test\"\nlake = \"lake\"\n[[sources]]\nname = \"acme\"\nprovider = \
             \"whatconverts\"\ntoken = {{ env = \"T\" }}\nsecret = {{ env = \"S\" }}\nstart = \
             2024-01-01\nplan = \"{plan}\"\n{more}\n"
        );
        let mut job = Job::parse(&text, Path::new("job.toml")).unwrap();
        match job.sources.remove(0).provider {
            ProviderSettings::WhatConverts(settings) => settings,
            other => panic!("{other:?}"),
        }
    }

    fn labels(scopes: Vec<Scope>) -> Vec<String> {
        scopes.iter().map(Scope::label).collect()
    }

    /// Profiles 1 and 2 of account 45, and 3 of account 46.
    fn profiles() -> Vec<Partition> {
        let listed = |(id, account)| Partition { name: format!("profile:{id}"), account };
        [(1, Some(45)), (2, Some(45)), (3, Some(46))].map(listed).into()
    }

    #[test]
    fn a_master_key_has_a_scope_for_each_selected_profile_or_account_or_one_of_all() {
        let source = "acme".parse().unwrap();
        let of = |more| labels(settings("master", more).scopes(&source, Some(&profiles())));
        assert_eq!(of("exclude_profiles = [2]"), ["profile:1", "profile:3"]);
        assert_eq!(of("include_accounts = [46]"), ["profile:3"]);
        assert_eq!(of("partition_by = \"account\""), ["account:45", "account:46"]);
        let left_out = "partition_by = \"account\"\nexclude_accounts = [45]";
        assert_eq!(of(left_out), ["account:46"]);
        assert_eq!(of("partition_by = \"none\""), ["all"]);
    }

    async fn saying(answers: &[(u16, &str)]) -> (Server, WhatConverts) {
        let server = Server::saying(answers).await;
        let settings = Settings {
            http: server.http(),
            token: "token".into(),
            secret: SECRET.into(),
            is_master: true,
            partition_by: PartitionBy::Profile,
            date_parameters: ["start_date".to_owned(), "end_date".to_owned()],
        };
        let source = WhatConverts::new(settings, clock()).unwrap();
        (server, source)
    }

    #[tokio::test]
    async fn an_id_stays_one_part_of_the_path_whatever_it_is() {
        let unknown = r#"{"error_message":"Invalid lead ID."}"#;
        let (server, source) = saying(&[(404, unknown), (404, unknown)]).await;
        let walk = walk("leads", "profile:1", "");
        for id in ["7", "7/../../accounts?x=1#y"] {
            let asked = source.fetch_record(&walk, id, true).await.unwrap();
            assert!(matches!(asked, Lookup::Unknown));
        }
        // Where a part of a path means a folder, nothing is asked.
        assert!(matches!(source.fetch_record(&walk, "..", true).await, Err(Error::Setup { .. })));
        let leads = "GET /base/api/v1/leads";
        assert_eq!(
            server.lines(),
            [
                format!("{leads}/7?profile_id=1"),
                format!("{leads}/7%2F..%2F..%2Faccounts%3Fx=1%23y?profile_id=1")
            ]
        );
    }

    #[tokio::test]
    async fn a_list_of_accounts_that_repeats_the_secret_is_blotted() {
        let echo = format!(r#"{{"error_message":"no {SECRET}"}}"#);
        let (_server, source) = saying(&[(200, &echo)]).await;
        let (_folder, caller) = caller(PROVIDER, Some("master"));
        let error = source.list_partitions(&caller).await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains(SECRET), "{error:?}");
        assert!(error.to_string().contains("no ***"), "{error}");
    }

    #[tokio::test]
    async fn a_list_of_accounts_whose_pages_repeat_is_an_error_and_each_account_counts_once() {
        let page = |account: u64, pages: u64| {
            let profile = format!(r#"{{"profile_id":{account}1,"profile_name":"p"}}"#);
            format!(
                r#"{{"accounts":[{{"account_id":{account},"profiles":[{profile}]}}],"total_pages":{pages}}}"#
            )
        };
        let (server, source) = saying(&[(200, &page(45, 3)), (200, &page(45, 3))]).await;
        let (_folder, caller) = caller(PROVIDER, Some("master"));
        let error = source.list_partitions(&caller).await.unwrap_err();
        assert!(error.to_string().contains("page 2 of its accounts shows none"), "{error}");
        assert_eq!(server.lines().len(), 2);

        // The last page may repeat what has moved down meanwhile.
        let pages = [page(45, 3), page(46, 3), page(46, 3)];
        let answers: Vec<(u16, &str)> = pages.iter().map(|page| (200, page.as_str())).collect();
        let (_server, source) = saying(&answers).await;
        let listed = source.list_partitions(&caller).await.unwrap().unwrap();
        let names: Vec<&str> = listed.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["profile:451", "profile:461"]);
        assert!(refuse_endless(MOST_LIST_PAGES, 1).is_err());
    }

    #[test]
    fn what_another_partitioning_would_read_is_told_where_it_is_known() {
        let source = "acme".parse().unwrap();
        let count = |settings: &WhatConvertsSettings, listed: Option<&[Partition]>| {
            let by = [PartitionBy::Profile, PartitionBy::Account, PartitionBy::None];
            by.map(|by| settings.scopes_by(&source, listed, by).map(|scopes| scopes.len()))
        };
        let all = settings("master", "");
        assert_eq!(count(&all, Some(&profiles())), [Some(3), Some(2), Some(1)]);
        assert_eq!(count(&all, None), [None, None, Some(1)]);
        let accounts = [Partition { name: "account:45".to_owned(), account: Some(45) }];
        assert_eq!(count(&all, Some(&accounts)), [None, Some(1), Some(1)]);
        assert!(!all.is_told_by(&accounts) && all.is_told_by(&profiles()));
        let some = settings("master", "exclude_accounts = [46]");
        assert_eq!(count(&some, Some(&profiles())), [Some(2), Some(1), None]);
        let some = settings("master", "exclude_profiles = [1]");
        assert_eq!(count(&some, Some(&profiles())), [Some(2), None, None]);
        assert_eq!(count(&settings("profile", ""), None), [None; 3]);
    }
}
