//! Worlds of Whautomate and Convertalk: what the sandbox lists, as the snapshot should hold it.

use chrono::TimeDelta;
use leadpipe::config::ConvertalkStream;
use leadpipe::config::ProviderSettings;
use leadpipe::config::SourceSettings;
use leadpipe::config::WhautomateStream;
use leadpipe::ids::ProviderId;
use leadpipe::ids::SourceName;
use leadpipe::run::SourceSummary;
use leadpipe::run::Summary;
use leadpipe::sandbox::Behaviour;
use leadpipe::sandbox::Listing;
use leadpipe::sandbox::LoggedRequest;
use leadpipe::sandbox::Provider;
use leadpipe::sandbox::Settings;
use leadpipe::transform;

use super::MASTER;
use super::ROW;
use super::Rows;
use super::World;
use super::assert_same;
use super::text;

/// A Whautomate source; each one in a job has an account of its own.
pub(crate) const CLINIC: &str = r#"
[[sources]]
name = "clinic"
provider = "whautomate"
api_key = { env = "UNUSED" }
plan = "subscribed"
default_region = "US"
"#;

/// Returns a Convertalk source of all bots of the sandbox.
pub(crate) fn bots(sandbox: &leadpipe::sandbox::Sandbox) -> String {
    let (customer, bots) = (sandbox.customer_id(), sandbox.bot_ids());
    format!(
        r#"
[[sources]]
name = "bots"
provider = "convertalk"
base_url = "https://chat.example.com"
token = {{ env = "UNUSED" }}
customer_id = "{customer}"
bot_ids = {bots:?}
default_region = "US"
"#
    )
}

/// One account with 230 contacts and 40 clients: five pages of 50, and one.
pub(crate) fn small_clinic() -> Settings {
    let none = Settings { leads: 0, accounts: 1, profiles: 1, ..Settings::default() };
    Settings { years: 3, whautomate_accounts: 1, contacts: 230, clients: 40, ..none }
}

/// Two bots with 130 chats each, and a few users from elsewhere.
pub(crate) fn small_bots() -> Settings {
    let none = Settings { leads: 0, accounts: 1, profiles: 1, ..Settings::default() };
    Settings { years: 3, convertalk_bots: 2, chats: 130, users: 40, ..none }
}

pub(crate) const HEAD: &str = "name = \"test\"\nlake = \"lake\"\n";

impl World {
    /// A Whautomate account in which nothing happens by itself; `more` are keys of its source.
    pub(crate) async fn clinic(settings: Settings, more: &str) -> Self {
        let generous = settings.whautomate_per_day.unwrap_or(432_000);
        let per_minute = settings.whautomate_per_minute.unwrap_or(300);
        let settings = Settings {
            whautomate_per_day: Some(generous),
            whautomate_per_minute: Some(per_minute),
            still: true,
            ..settings
        };
        let mut world = Self::new(settings).await;
        world.job = format!("{HEAD}{CLINIC}{more}\n");
        world
    }

    /// Bots in which nothing happens by itself; `more` are keys of their source.
    pub(crate) async fn bots(settings: Settings, more: &str) -> Self {
        let mut world = Self::new(Settings { still: true, ..settings }).await;
        world.job = format!("{HEAD}{}{more}\n", bots(&world.sandbox));
        world
    }

    /// All three providers in one job, with as many Whautomate sources as there are accounts.
    pub(crate) async fn three(settings: Settings) -> Self {
        let accounts = settings.whautomate_accounts;
        let mut world = Self::new(settings).await;
        let clinics = (0..accounts)
            .map(|number| CLINIC.replace("\"clinic\"", &format!("\"clinic-{number}\"")));
        let clinics: String = clinics.collect();
        world.job = format!("{MASTER}{clinics}{}", bots(&world.sandbox));
        world
    }

    /// Adds switches to those in force.
    pub(crate) fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        let mut behaviour = Behaviour::default();
        change(&mut behaviour);
        self.sandbox.behave(behaviour);
    }

    /// The rows of the snapshot that are of one source.
    pub(crate) fn rows_of(&self, source: &SourceName) -> Rows {
        let mut rows = Rows::new();
        for part in &self.head().sources[source].parts {
            for batch in self.batches(&part.file.path, &ROW) {
                for row in 0..batch.num_rows() {
                    let (id, hash) =
                        (text(&batch, "lead_id", row), text(&batch, "_content_hash", row));
                    assert!(rows.insert(id.clone(), hash).is_none(), "{id} is there twice");
                }
            }
        }
        rows
    }

    /// The listings of a source, each with its stream, partition and list.
    pub(crate) fn listings_of(&self, source: &SourceSettings) -> Vec<(Listing, Place)> {
        match &source.provider {
            ProviderSettings::WhatConverts(_) => Vec::new(),
            ProviderSettings::Whautomate(settings) => {
                let account = self.account_of(&source.name);
                let listing = |stream: &WhautomateStream| match stream {
                    WhautomateStream::Contacts => {
                        (Listing::Contacts { account }, Place::new("contacts", "all", ""))
                    }
                    WhautomateStream::Clients => {
                        (Listing::Clients { account }, Place::new("clients", "all", ""))
                    }
                };
                settings.streams.iter().map(listing).collect()
            }
            ProviderSettings::Convertalk(settings) => {
                let mut listings = Vec::new();
                if settings.streams.contains(&ConvertalkStream::Chats) {
                    for (bot, id) in (0..).zip(&settings.bot_ids) {
                        let place = |list| Place::new("chats", &format!("bot:{id}"), list);
                        listings.push((Listing::Chats { bot, lead: false }, place("non-lead")));
                        listings.push((Listing::Chats { bot, lead: true }, place("lead")));
                    }
                }
                if settings.streams.contains(&ConvertalkStream::Users) {
                    listings.push((Listing::Users, Place::new("users", "all", "")));
                }
                listings
            }
        }
    }

    /// The number of a Whautomate source among those of its kind: that of its account.
    fn account_of(&self, name: &SourceName) -> u32 {
        let job = self.job();
        let is_clinic = |source: &&SourceSettings| source.provider_id() == ProviderId::Whautomate;
        let before = job.sources.iter().filter(is_clinic).position(|source| source.name == *name);
        before.unwrap() as u32
    }

    /// What the snapshot should hold of a source: what the sandbox lists, through the mapping.
    pub(crate) async fn truth_of(&self, name: &SourceName) -> Rows {
        let job = self.job();
        let source = job.sources.iter().find(|source| source.name == *name).unwrap();
        if source.provider_id() == ProviderId::WhatConverts {
            return self.truth().await;
        }
        let settings = self.mapping_settings(source);
        let mut rows = Rows::new();
        for (listing, place) in self.listings_of(source) {
            let mapping = transform::mapping(source.provider_id(), &place.stream).unwrap();
            let body = self.sandbox.record_page(listing).unwrap();
            let page = transform::Page {
                source: name.as_str(),
                stream: &place.stream,
                scope_label: &place.partition,
                partition: &place.partition,
                list: &place.list,
                run: "0",
                received_at: self.sandbox.now(),
                location: "nowhere#1",
                body: &body,
                records: None,
            };
            let batch = mapping.map(&page, &settings).unwrap().leads;
            for row in 0..batch.num_rows() {
                rows.insert(text(&batch, "lead_id", row), text(&batch, "_content_hash", row));
            }
        }
        rows
    }

    /// Asserts that the snapshot is what the sandbox lists, of every source of the job.
    pub(crate) async fn assert_all_whole(&self) {
        for source in &self.job().sources {
            assert_same(&self.rows_of(&source.name), &self.truth_of(&source.name).await);
        }
    }

    /// Syncs a day later, and so many times.
    pub(crate) async fn nights(&self, nights: u32) -> Vec<Summary> {
        let mut summaries = Vec::new();
        for _ in 0..nights {
            self.pass(TimeDelta::days(1));
            summaries.push(self.sync().await);
        }
        summaries
    }

    /// Requests to one provider.
    pub(crate) fn requests_to_provider(&self, provider: Provider) -> Vec<LoggedRequest> {
        let prefix = match provider {
            Provider::WhatConverts => "/api/v1/",
            Provider::Whautomate => "/v1/",
            Provider::Convertalk => "/inbox/",
        };
        let mut requests = self.sandbox.requests();
        requests.retain(|request| request.path.starts_with(prefix));
        requests
    }
}

/// Where a listing stands in the lake.
pub(crate) struct Place {
    pub(crate) stream: String,
    pub(crate) partition: String,
    pub(crate) list: String,
}

impl Place {
    fn new(stream: &str, partition: &str, list: &str) -> Self {
        Self { stream: stream.into(), partition: partition.into(), list: list.into() }
    }
}

/// The summary of a source of a run.
pub(crate) fn of<'a>(summary: &'a Summary, source: &str) -> &'a SourceSummary {
    &summary.sources[&source.parse().unwrap()]
}
