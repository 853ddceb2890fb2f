//! What a job means: checked values in the types the stages work with.
//!
//! Everything here is valid by construction of [`Job`]: paths are joined to the job file's folder,
//! times are lengths, percentages are ratios, and defaults are filled in.

use std::collections::BTreeMap;
use std::path::PathBuf;

use celes::Country;
use chrono::DateTime;
use chrono::NaiveTime;
use chrono::TimeDelta;
use chrono::Utc;
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::Deserialize;
use serde::Serialize;
use url::Url;

use super::memory::MemoryLimit;
use super::secret::SecretRef;
use crate::ids::ProviderId;
use crate::ids::SourceName;
use crate::store::Place;
use crate::zone::Zone;

/// A job: what to sync, into which lake, and how.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Job {
    /// The job file it came from.
    pub path: PathBuf,
    /// Its name.
    pub name: String,
    /// Where the lake lies.
    pub lake: Place,
    /// Where the quota ledgers lie; `None` for the lake's own place.
    pub quota_dir: Option<Place>,
    /// The accounts to read, at least one, their names (earlier ones too) all different.
    pub sources: Vec<SourceSettings>,
    /// How a run behaves.
    pub run: RunSettings,
    /// How far back, and how often, leads are read again for late changes.
    pub refresh: RefreshSettings,
    /// What is written.
    pub load: LoadSettings,
    /// How long snapshots and changes stay.
    pub keep: KeepSettings,
    /// How long pages as received stay.
    pub archive: ArchiveSettings,
    /// How CSV is written.
    pub csv: CsvSettings,
    /// How persons are made recognisable across sources.
    pub privacy: PrivacySettings,
}

/// An account to read.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SourceSettings {
    /// Its name, which stands in every row.
    pub name: SourceName,
    /// Earlier names.
    pub was: Vec<SourceName>,
    /// The provider's server; https, or http to this machine.
    pub base_url: Url,
    /// The currency of amounts where the provider sends none: three capital letters of ISO 4217.
    pub currency: Option<String>,
    /// The country telephone numbers are read in where a lead names none.
    pub default_region: Option<Country>,
    /// What differs for single profiles, by profile id.
    pub profiles: BTreeMap<u64, ProfileSettings>,
    /// How long one request may take.
    pub timeout: TimeDelta,
    /// How long no byte may come; making a connection may take half of it.
    pub stall: TimeDelta,
    /// How often a request that failed in passing is sent again.
    pub retries: u32,
    /// The longest answer that is read, in bytes.
    pub max_body_bytes: u64,
    /// What differs from the quota preset.
    pub quota: QuotaSettings,
    /// What only this provider has.
    pub provider: ProviderSettings,
}

/// What differs for one profile; `None` for what is as in the source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProfileSettings {
    /// The currency of its amounts.
    pub currency: Option<String>,
    /// The country its telephone numbers are read in.
    pub default_region: Option<Country>,
}

/// What only one provider has.
#[derive(Debug, Clone)]
pub enum ProviderSettings {
    /// A WhatConverts key.
    WhatConverts(WhatConvertsSettings),
    /// A Whautomate account.
    Whautomate(WhautomateSettings),
    /// Bots of a Convertalk customer.
    Convertalk(ConvertalkSettings),
}

/// A WhatConverts key and what is read with it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WhatConvertsSettings {
    /// The key's token.
    pub token: SecretRef,
    /// The key's secret.
    pub secret: SecretRef,
    /// Which kind of key it is.
    pub plan: WhatConvertsPlan,
    /// How far back the history goes.
    pub start: DateTime<Utc>,
    /// The longest span of one request in days, overlaps included: 1 to 400.
    pub window_days: u32,
    /// Rows asked for in one request: 1 to 2,500.
    pub page_size: u32,
    /// The names of the two parameters that bound a window, its start first.
    pub date_parameters: [String; 2],
    /// What one listing of a master key shows; a profile key has but one.
    pub partition_by: PartitionBy,
    /// Leads marked as spam.
    pub spam: MarkFilter,
    /// Leads marked as duplicate.
    pub duplicate: MarkFilter,
    /// The accounts to read.
    pub accounts: Selection,
    /// The profiles to read.
    pub profiles: Selection,
}

/// Which accounts or profiles of a master key are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only these, unless empty.
    pub include: Vec<u64>,
    /// Not these.
    pub exclude: Vec<u64>,
}

impl Selection {
    /// Tells whether `id` is read.
    pub fn selects(&self, id: u64) -> bool {
        (self.include.is_empty() || self.include.contains(&id)) && !self.exclude.contains(&id)
    }
}

/// A Whautomate account and what is read of it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WhautomateSettings {
    /// The key of the account.
    pub api_key: SecretRef,
    /// Whether the account is a trial.
    pub plan: WhautomatePlan,
    /// What is read, at least one, each once.
    pub streams: Vec<WhautomateStream>,
    /// Rows asked for in one request.
    pub page_size: u32,
    /// Whether a page shorter than a full first one is the end of a listing.
    pub short_page_ends: bool,
}

/// Bots of a Convertalk customer and what is read of them.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConvertalkSettings {
    /// The bots to read; at least one where `streams` has chats.
    pub bot_ids: Vec<String>,
    /// The customer the bots belong to.
    pub customer_id: String,
    /// The token.
    pub token: SecretRef,
    /// The header that carries the token of the stream `chats`.
    pub auth_header: String,
    /// What is read, at least one, each once.
    pub streams: Vec<ConvertalkStream>,
    /// How the token of the stream `users` is carried.
    pub users_auth: UsersAuth,
}

/// How the token of Convertalk's stream `users` is carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsersAuth {
    /// The header.
    pub header: String,
    /// What stands before the token, blanks included.
    pub prefix: String,
    /// The value of the header `authtype`; `None` to send none.
    pub authtype: Option<String>,
}

/// What differs from the quota preset of a plan; `None` for what is as in the preset.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct QuotaSettings {
    /// Requests a day, at least 1.
    pub per_day: Option<u64>,
    /// Requests in a time.
    pub rate: Option<Rate>,
    /// Requests in flight, at least 1.
    pub at_once: Option<u32>,
    /// What is left to others on the same key.
    pub reserve: Option<Reserve>,
    /// One ledger for all sources of this group.
    pub group: Option<String>,
    /// When a day begins.
    pub day: QuotaDay,
}

/// Requests in a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many, at least 1.
    pub requests: u32,
    /// In which time, longer than none.
    pub per: TimeDelta,
}

/// What is left to others on the same key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reserve {
    /// This part of the day's requests.
    Ratio(Ratio),
    /// So many requests a day.
    Requests(u64),
}

/// When a day of the quota begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum QuotaDay {
    /// Any 24 hours count as a day.
    #[default]
    Rolling,
    /// At a time of a zone.
    Fixed {
        /// The time of day.
        resets_at: NaiveTime,
        /// The zone.
        zone: Zone,
    },
}

/// How a run behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunSettings {
    /// How often a long run commits what it has.
    pub publish_every: TimeDelta,
    /// How long a run waits for permits that come free; zero for not at all.
    pub patience: TimeDelta,
    /// How long before the run's start the newest window ends.
    pub settle: TimeDelta,
    /// How long an open walk of a window is gone on with.
    pub window_max_age: TimeDelta,
    /// How long an open walk of a listing without dates is gone on with.
    pub scan_max_age: TimeDelta,
    /// How often shifted pages are read again.
    pub reread_limit: u32,
    /// Leads asked for by id before they count as gone, a source and run.
    pub lookups: u32,
    /// The memory the process may take.
    pub memory_limit: MemoryLimit,
}

/// How far back, and how often, leads are read again for late changes.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RefreshSettings {
    /// Every run.
    pub every_run: Reach,
    /// Weekly.
    pub weekly: Reach,
    /// Monthly.
    pub monthly: Reach,
    /// The part of a day's allowance that goes to windows older than their tier's age.
    pub spare: Ratio,
}

/// How far back something goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// This long before now.
    Back(TimeDelta),
    /// To the start of the history.
    All,
}

/// What is written.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LoadSettings {
    /// The form of the snapshot.
    pub format: Format,
    /// How Parquet is compressed, whatever the form: what a lake keeps is Parquet.
    pub parquet_compression: ParquetCompression,
    /// How CSV is compressed, where it is written.
    pub csv_compression: CsvCompression,
    /// How parts are cut by the creation of their leads.
    pub partition: Partitioning,
    /// How lists and maps are written.
    pub nested: Nested,
    /// Whether a bucket gets snapshot folders.
    pub tree: Tree,
    /// What becomes of leads that are gone.
    pub on_delete: OnDelete,
    /// Who may read what is made for readers.
    pub readable_by: ReadableBy,
    /// The part of the rows read that may be gone at once before deletes are held back.
    pub max_delete_ratio: Ratio,
    /// The part of a source's rows in a run that may be rejects before the run needs a look.
    pub max_reject_ratio: Ratio,
}

/// How long snapshots and changes stay.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeepSettings {
    /// So many of the newest snapshots, at least 1.
    pub snapshots: u32,
    /// Snapshots younger than this.
    pub snapshot_age: TimeDelta,
    /// Commit files, change files and rejects younger than this.
    pub changes: TimeDelta,
}

/// How long pages as received stay.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArchiveSettings {
    /// Pages younger than this; older ones only while they are needed.
    pub keep: TimeDelta,
}

/// How CSV is written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CsvSettings {
    /// Whether text that a spreadsheet would run as a formula is made harmless.
    pub formula_guard: bool,
}

/// How persons are made recognisable across sources.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct PrivacySettings {
    /// The key of `email_key` and `phone_key`; `None` for the one made with the lake.
    pub key: Option<SecretRef>,
}

/// A part of a whole, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Ratio(f64);

impl Ratio {
    /// Returns the ratio, or `None` where `value` is not from 0 to 1.
    pub fn new(value: f64) -> Option<Self> {
        (0.0..=1.0).contains(&value).then_some(Self(value))
    }

    /// Returns it as a number from 0 to 1.
    pub fn get(self) -> f64 {
        self.0
    }
}

/// Declares an enum of words as they stand in a job file.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
        )]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $text)] $variant,)+
        }

        impl $name {
            /// Returns the word as it stands in a job file.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }
    };
}

words! {
    /// Which kind of WhatConverts key it is.
    WhatConvertsPlan {
        /// A key of one profile: 1,000 requests a day.
        Profile = "profile",
        /// A key of an agency, over all its accounts: 10,000 requests a day.
        Master = "master",
    }
}

words! {
    /// What one listing of a master key shows.
    PartitionBy {
        /// One profile: the only listing that shows custom fields.
        Profile = "profile",
        /// One account with all its profiles, without custom fields.
        Account = "account",
        /// All accounts, without custom fields.
        None = "none",
    }
}

words! {
    /// Whether leads with a mark are read.
    MarkFilter {
        /// As the provider does where it is not asked.
        Default = "default",
        /// Without them.
        Without = "without",
        /// All of them, as two listings: those without the mark, and those with it.
        Both = "both",
    }
}

words! {
    /// Whether a Whautomate account is a trial.
    WhautomatePlan {
        /// A trial: 100 requests a day.
        Trial = "trial",
        /// Subscribed: 432,000 requests a day.
        Subscribed = "subscribed",
    }
}

words! {
    /// What is read of a Whautomate account.
    WhautomateStream {
        /// Persons who wrote.
        Contacts = "contacts",
        /// Persons who booked.
        Clients = "clients",
    }
}

words! {
    /// What is read of a Convertalk customer.
    ConvertalkStream {
        /// The chats of each bot.
        Chats = "chats",
        /// The users of the whole account.
        Users = "users",
    }
}

words! {
    /// The form of a snapshot.
    Format {
        /// Parquet.
        Parquet = "parquet",
        /// CSV.
        Csv = "csv",
        /// Parquet, and CSV beside it.
        Both = "both",
    }
}

words! {
    /// How Parquet is compressed.
    ParquetCompression {
        /// Small and fast to read.
        Zstd = "zstd",
        /// Larger, widely known.
        Snappy = "snappy",
        /// Not at all.
        None = "none",
    }
}

words! {
    /// How CSV is compressed.
    CsvCompression {
        /// Not at all.
        None = "none",
        /// Widely known.
        Gzip = "gzip",
        /// Smaller and faster.
        Zstd = "zstd",
    }
}

words! {
    /// How parts are cut by the creation of their leads.
    Partitioning {
        /// One for each year.
        Year = "year",
        /// One for each month.
        Month = "month",
        /// Not at all.
        None = "none",
    }
}

words! {
    /// Who may read parts, CSV, changes, snapshots and commits, as far as the umask lets them. Pages as
    /// received, rejects and state are for the owner alone.
    ReadableBy {
        /// The user of the run.
        Owner = "owner",
        /// That user's group, too.
        Group = "group",
        /// Everybody on the machine.
        All = "all",
    }
}

words! {
    /// How lists and maps are written.
    Nested {
        /// As JSON text.
        Json = "json",
        /// As Parquet lists and maps.
        Native = "native",
    }
}

words! {
    /// Whether a bucket gets snapshot folders.
    Tree {
        /// A folder of links on a disk, none in a bucket.
        Auto = "auto",
        /// A copy of every part, in a bucket too.
        Copy = "copy",
    }
}

words! {
    /// What becomes of leads that are gone at the provider.
    OnDelete {
        /// They leave the snapshot.
        Remove = "remove",
        /// They stay, with `_deleted_at`.
        Keep = "keep",
    }
}

impl Format {
    /// Tells whether readers see Parquet.
    pub fn shows_parquet(self) -> bool {
        matches!(self, Self::Parquet | Self::Both)
    }

    /// Tells whether readers see CSV.
    pub fn shows_csv(self) -> bool {
        matches!(self, Self::Csv | Self::Both)
    }
}

impl SourceSettings {
    /// Returns which provider it is.
    pub fn provider_id(&self) -> ProviderId {
        match self.provider {
            ProviderSettings::WhatConverts(_) => ProviderId::WhatConverts,
            ProviderSettings::Whautomate(_) => ProviderId::Whautomate,
            ProviderSettings::Convertalk(_) => ProviderId::Convertalk,
        }
    }

    /// Returns the secret that stands for the account: a new one, or one of another account, has
    /// another quota.
    pub fn key(&self) -> &SecretRef {
        match &self.provider {
            ProviderSettings::WhatConverts(settings) => &settings.token,
            ProviderSettings::Whautomate(settings) => &settings.api_key,
            ProviderSettings::Convertalk(settings) => &settings.token,
        }
    }

    /// Puts another server and key in the place of its own; of the providers, only WhatConverts has a
    /// `secret` beside the key.
    pub fn stand_in(&mut self, base_url: Url, key: SecretString, secret: SecretString) {
        self.base_url = base_url;
        match &mut self.provider {
            ProviderSettings::WhatConverts(settings) => {
                settings.token = SecretRef::Given(key);
                settings.secret = SecretRef::Given(secret);
            }
            ProviderSettings::Whautomate(settings) => settings.api_key = SecretRef::Given(key),
            ProviderSettings::Convertalk(settings) => settings.token = SecretRef::Given(key),
        }
    }

    /// Returns the name of its quota preset; `None` where the provider has but one.
    pub fn plan(&self) -> Option<&'static str> {
        match &self.provider {
            ProviderSettings::WhatConverts(settings) => Some(settings.plan.as_str()),
            ProviderSettings::Whautomate(settings) => Some(settings.plan.as_str()),
            ProviderSettings::Convertalk(_) => None,
        }
    }

    /// Returns the account, where the job names it and the records may not.
    pub fn account_id(&self) -> Option<&str> {
        match &self.provider {
            ProviderSettings::Convertalk(settings) => Some(&settings.customer_id),
            ProviderSettings::WhatConverts(_) | ProviderSettings::Whautomate(_) => None,
        }
    }

    /// Returns how far back the history goes; `None` where the listings have no dates.
    pub fn start(&self) -> Option<DateTime<Utc>> {
        match &self.provider {
            ProviderSettings::WhatConverts(settings) => Some(settings.start),
            ProviderSettings::Whautomate(_) | ProviderSettings::Convertalk(_) => None,
        }
    }

    /// Returns the longest span of one request; `None` where the listings have no dates.
    pub fn window_length(&self) -> Option<TimeDelta> {
        match &self.provider {
            ProviderSettings::WhatConverts(settings) => {
                Some(TimeDelta::days(settings.window_days.into()))
            }
            ProviderSettings::Whautomate(_) | ProviderSettings::Convertalk(_) => None,
        }
    }

    /// Returns the rows asked for in one request; `None` where the server alone decides.
    pub fn page_size(&self) -> Option<u32> {
        match &self.provider {
            ProviderSettings::WhatConverts(settings) => Some(settings.page_size),
            ProviderSettings::Whautomate(settings) => Some(settings.page_size),
            ProviderSettings::Convertalk(_) => None,
        }
    }

    /// Returns the currency of amounts of `profile`.
    pub fn currency_of(&self, profile: Option<u64>) -> Option<&str> {
        let own = profile.and_then(|id| self.profiles.get(&id)?.currency.as_deref());
        own.or(self.currency.as_deref())
    }

    /// Returns the country telephone numbers of `profile` are read in.
    pub fn region_of(&self, profile: Option<u64>) -> Option<Country> {
        let own = profile.and_then(|id| self.profiles.get(&id)?.default_region);
        own.or(self.default_region)
    }
}
