//! A job file as it is typed: its keys, their types, and nothing of what they mean.
//!
//! These types are deserialized from the job file laid over `default.toml`, so a key with a default
//! is not an `Option` here. The JSON Schema of the job file is made from them; their docs are what
//! an editor shows. Texts with a form of their own (times, percentages, URLs) stay texts: what they
//! mean is decided in `resolve`, which can say where a problem stands.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Deserializer;
use serde::de::Error as _;

use super::secret::SecretFile;
use super::settings::ConvertalkStream;
use super::settings::Format;
use super::settings::MarkFilter;
use super::settings::Nested;
use super::settings::OnDelete;
use super::settings::PartitionBy;
use super::settings::Partitioning;
use super::settings::ReadableBy;
use super::settings::Tree;
use super::settings::WhatConvertsPlan;
use super::settings::WhautomatePlan;
use super::settings::WhautomateStream;

/// What to sync: the sources, the lake they go to, and how.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "leadpipe job file, version 1")]
pub struct JobFile {
    /// The job's name: lower-case letters, digits, `-` and `_`, first a letter.
    pub name: String,
    /// Where the lake lies: a folder, relative to the job file, or a bucket with a prefix, as
    /// `s3://bucket/prefix`, `gs://` or `az://`.
    pub lake: String,
    /// Where the quota ledgers lie, a folder or a bucket as for `lake`; by default in the lake. Jobs of
    /// different lakes that share a key should share this place.
    pub quota_dir: Option<String>,
    /// The accounts to read.
    #[schemars(length(min = 1))]
    pub sources: Vec<SourceFile>,
    /// How a run behaves.
    pub run: RunFile,
    /// How far back, and how often, leads are read again for late changes.
    pub refresh: RefreshFile,
    /// What is written.
    pub load: LoadFile,
    /// How long snapshots and changes stay.
    pub keep: KeepFile,
    /// How long pages as received stay.
    pub archive: ArchiveFile,
    /// How CSV is written.
    pub csv: CsvFile,
    /// How persons are made recognisable across sources without naming them.
    pub privacy: PrivacyFile,
}

/// An account at a provider.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(tag = "provider", rename_all = "lowercase")]
pub enum SourceFile {
    /// WhatConverts: calls, forms, chats.
    WhatConverts(WhatConvertsFile),
    /// Whautomate: contacts and clients.
    Whautomate(WhautomateFile),
    /// Convertalk, BotPenguin and its other white labels: chatbot leads.
    Convertalk(ConvertalkFile),
}

/// What every source has.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct CommonFile {
    /// The source's name, which stands in every row: lower-case letters, digits, `-` and `_`, first
    /// a letter, at most 64 characters.
    #[schemars(regex(pattern = r"^[a-z][a-z0-9_-]{0,63}$"))]
    pub name: String,
    /// Earlier names of this source: rows, coverage and archive move along, without a request.
    #[serde(default)]
    pub was: Vec<String>,
    /// The provider's server: https, or http to this machine.
    pub base_url: String,
    /// The currency of amounts, as in ISO 4217, where the provider sends none.
    pub currency: Option<String>,
    /// The country telephone numbers are read in where a lead names none, as in ISO 3166-1 alpha-2.
    pub default_region: Option<String>,
    /// How long one request may take, e.g. `60s`.
    pub timeout: DurationText,
    /// How long no byte may come, e.g. `30s`; making a connection may take half of it.
    pub stall: DurationText,
    /// How often a request that failed in passing is sent again.
    #[schemars(range(max = 20))]
    pub retries: u32,
    /// The longest answer that is read, in megabytes.
    #[schemars(range(min = 1, max = 2048))]
    pub max_body_megabytes: u32,
    /// What differs from the quota preset.
    #[serde(default)]
    pub quota: QuotaFile,
}

/// A WhatConverts account (a master key) or profile (a profile key).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct WhatConvertsFile {
    /// What every source has.
    #[serde(flatten)]
    pub common: CommonFile,
    /// The key's token.
    pub token: SecretFile,
    /// The key's secret.
    pub secret: SecretFile,
    /// Which kind of key it is; it decides the quota. `leadpipe check` tells which a key is.
    pub plan: WhatConvertsPlan,
    /// How far back the history goes (UTC midnight).
    pub start: LocalDate,
    /// The longest span of one request in days, overlaps included.
    #[schemars(range(min = 1, max = 400))]
    pub window_days: u32,
    /// Rows asked for in one request.
    #[schemars(range(min = 1, max = 2500))]
    pub page_size: u32,
    /// The names of the two parameters that bound a window, its start first.
    pub date_parameters: [String; 2],
    /// What one listing of a master key shows. Each listing costs at least one request a window, and
    /// only that of a profile shows custom fields.
    pub partition_by: PartitionBy,
    /// Leads marked as spam.
    pub spam: MarkFilter,
    /// Leads marked as duplicate.
    pub duplicate: MarkFilter,
    /// Read only these accounts of a master key.
    #[serde(default)]
    pub include_accounts: Vec<u64>,
    /// Leave these accounts of a master key out.
    #[serde(default)]
    pub exclude_accounts: Vec<u64>,
    /// Read only these profiles of a master key.
    #[serde(default)]
    pub include_profiles: Vec<u64>,
    /// Leave these profiles of a master key out.
    #[serde(default)]
    pub exclude_profiles: Vec<u64>,
    /// What differs for single profiles, by profile id.
    #[serde(default)]
    pub profiles: BTreeMap<String, ProfileFile>,
}

/// What differs for one profile.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProfileFile {
    /// The currency of the profile's amounts, as in ISO 4217.
    pub currency: Option<String>,
    /// The country the profile's telephone numbers are read in, as in ISO 3166-1 alpha-2.
    pub default_region: Option<String>,
}

/// A Whautomate account.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct WhautomateFile {
    /// What every source has.
    #[serde(flatten)]
    pub common: CommonFile,
    /// The key of the account.
    pub api_key: SecretFile,
    /// Whether the account is a trial; it decides the quota.
    pub plan: WhautomatePlan,
    /// What is read of the account.
    #[schemars(length(min = 1))]
    pub streams: Vec<WhautomateStream>,
    /// Rows asked for in one request.
    #[schemars(range(min = 1, max = 1000))]
    pub page_size: u32,
    /// Whether a page shorter than a full first one is taken for the end of a listing, which saves
    /// the request for an empty page after it; only where that is proven.
    pub short_page_ends: bool,
}

/// Bots of a Convertalk customer, or of a sister brand.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct ConvertalkFile {
    /// What every source has.
    #[serde(flatten)]
    pub common: CommonFile,
    /// The bots to read; needed by the stream `chats`.
    #[serde(default)]
    pub bot_ids: Vec<String>,
    /// The customer the bots belong to.
    pub customer_id: String,
    /// The token.
    pub token: SecretFile,
    /// The header that carries the token of the stream `chats`.
    pub auth_header: String,
    /// What is read; `users` lists the whole account, so at most one source of a customer has it.
    #[schemars(length(min = 1))]
    pub streams: Vec<ConvertalkStream>,
    /// How the token of the stream `users` is carried.
    pub users_auth: UsersAuthFile,
}

/// How the token of Convertalk's stream `users` is carried.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UsersAuthFile {
    /// The header.
    pub header: String,
    /// What stands before the token.
    pub prefix: String,
    /// The value of the header `authtype`; empty to send none.
    pub authtype: String,
}

/// What differs from the quota preset of the provider's plan.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QuotaFile {
    /// Requests a day.
    #[schemars(range(min = 1))]
    pub per_day: Option<u64>,
    /// Requests in a time: a number and `ms`, `s`, `min` or `h`, e.g. `300/min`.
    #[schemars(regex(pattern = r"^[1-9][0-9]*/(ms|s|min|h)$"))]
    pub rate: Option<String>,
    /// Requests in flight.
    #[schemars(range(min = 1))]
    pub at_once: Option<u32>,
    /// What is left to others on the same key: a percentage of the day, e.g. `10%`, or a number of
    /// requests.
    pub reserve: Option<ReserveFile>,
    /// One ledger for all sources of this group; by default one for each key.
    pub group: Option<String>,
    /// When a day begins.
    pub day: Option<DayFile>,
}

/// A part of the day's requests.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ReserveFile {
    /// As a percentage, e.g. `10%`.
    Percent(PercentText),
    /// As a number of requests.
    Requests(u64),
}

/// When a day of the quota begins.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum DayFile {
    /// Any 24 hours count as a day.
    Named(DayName),
    /// At this time of a zone, e.g. `{ resets_at = "00:00", zone = "America/New_York" }`.
    Fixed(FixedDayFile),
}

/// A way to count a day.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DayName {
    /// Any 24 hours count as a day.
    Rolling,
}

/// A day that begins at a time of a zone.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FixedDayFile {
    /// The time, as `HH:MM`.
    #[schemars(regex(pattern = r"^[0-2][0-9]:[0-5][0-9]$"))]
    pub resets_at: String,
    /// The zone, as in the IANA database, e.g. `America/New_York`.
    pub zone: String,
}

/// How a run behaves.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunFile {
    /// How often a long run commits what it has.
    pub publish_every: DurationText,
    /// How long a run waits for permits that come free.
    pub patience: DurationText,
    /// How long before the run's start the newest window ends.
    pub settle: DurationText,
    /// How long an open walk is gone on with.
    pub walk_max_age: WalkMaxAgeFile,
    /// How often shifted pages are read again.
    pub reread_limit: u32,
    /// Leads asked for by id before they count as gone, a source and run.
    pub lookups: u32,
    /// The memory the process may take, e.g. `150MB`: pages in flight, staged leads and row groups follow
    /// from it. Answers of more than 8 MB come on top.
    pub memory_limit: String,
}

/// How long an open walk is gone on with before it is begun again.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WalkMaxAgeFile {
    /// Of a window.
    pub windows: DurationText,
    /// Of a listing without dates.
    pub scans: DurationText,
}

/// How far back, and how often, leads are read again for late changes.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RefreshFile {
    /// Every run.
    pub every_run: ReachText,
    /// Weekly.
    pub weekly: ReachText,
    /// Monthly.
    pub monthly: ReachText,
    /// The part of a day's allowance that goes to windows older than their tier's age.
    pub spare: PercentText,
}

/// What is written.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoadFile {
    /// The form of the snapshot; what a lake keeps is always Parquet.
    pub format: Format,
    /// For Parquet `zstd`, `snappy` or `none`; for CSV `none`, `gzip` or `zstd`. By default zstd
    /// for Parquet and none for CSV.
    pub compression: Option<CompressionFile>,
    /// How parts are cut by the creation of their leads.
    pub partition: Partitioning,
    /// How lists and maps are written.
    pub nested: Nested,
    /// Whether a bucket gets snapshot folders.
    pub tree: Tree,
    /// What becomes of leads that are gone at the provider.
    pub on_delete: OnDelete,
    /// Who may read what is new of parts, CSV, changes, snapshots and commits, as far as the umask
    /// lets them. Pages as received, rejects and state are for the owner alone.
    pub readable_by: ReadableBy,
    /// The part of the rows read that may be gone at once before deletes are held back.
    pub max_delete_ratio: PercentText,
    /// The part of a source's rows in a run that may be rejects before the run needs a look.
    pub max_reject_ratio: PercentText,
}

/// How files are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CompressionFile {
    /// Small and fast to read; Parquet and CSV.
    Zstd,
    /// Larger and widely known; Parquet only.
    Snappy,
    /// Widely known; CSV only.
    Gzip,
    /// Not at all; Parquet and CSV.
    None,
}

/// How long snapshots and changes stay.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeepFile {
    /// So many of the newest snapshots stay.
    #[schemars(range(min = 1))]
    pub snapshots: u32,
    /// Snapshots younger than this stay.
    pub snapshot_age: DurationText,
    /// Commit files, change files and rejects younger than this stay.
    pub changes: DurationText,
}

/// How long pages as received stay.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ArchiveFile {
    /// Pages younger than this stay; older ones only while they are needed.
    pub keep: DurationText,
}

/// How CSV is written.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CsvFile {
    /// Whether text that a spreadsheet would run as a formula is made harmless.
    pub formula_guard: bool,
}

/// How persons are made recognisable across sources without naming them.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrivacyFile {
    /// The key of `email_key` and `phone_key`; by default one made with the lake.
    pub key: Option<SecretFile>,
}

/// A length of time such as `30m`, `48h` or `90d`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct DurationText(
    #[schemars(regex(pattern = r"^[0-9]+ ?[a-zA-Z]+( ?[0-9]+ ?[a-zA-Z]+)*$"))] pub String,
);

/// A length of time such as `400d`, or `all`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct ReachText(
    #[schemars(regex(pattern = r"^(all|[0-9]+ ?[a-zA-Z]+( ?[0-9]+ ?[a-zA-Z]+)*)$"))] pub String,
);

/// A percentage such as `10%`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct PercentText(#[schemars(regex(pattern = r"^[0-9]+(\.[0-9]+)?%$"))] pub String);

/// A date as TOML writes it, without quotes: `2019-01-01`.
#[derive(Debug, Clone, Copy, JsonSchema)]
pub struct LocalDate(pub NaiveDate);

impl<'de> Deserialize<'de> for LocalDate {
    // By the time a date comes here it has passed through an untyped table, as text. That it was
    // typed as a date, without quotes, is seen by `check`.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(D::Error::custom)
    }
}
