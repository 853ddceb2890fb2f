//! The job file: read, checked, and turned into settings.
//!
//! A job file is TOML. What was typed ([`JobFile`], laid over the embedded `default.toml`) and what
//! it means ([`Job`]) are two types, joined by one pure function. The keys are checked against the
//! JSON Schema made from the types, so that editors and this program agree; everything that is wrong
//! is reported at once, with its place. Secrets are only pointed at here ([`SecretRef`]); each is
//! read when its source needs it, so that one that is missing fails its source and not the job.
//!
//! This is the one place that reads the environment.

mod check;
mod currency;
mod error;
mod file;
mod memory;
mod resolve;
mod schema;
mod secret;
mod settings;

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use secrecy::SecretString;
use toml::Table;
use toml::Value;
use url::Url;

pub use error::Error;
pub use error::Problem;
pub use error::ProblemKind;
pub use file::JobFile;
pub use memory::MemoryLimit;
pub use memory::Shares;
pub use memory::TooLittle;
pub use secret::SecretRef;
pub use settings::ArchiveSettings;
pub use settings::ConvertalkSettings;
pub use settings::ConvertalkStream;
pub use settings::CsvCompression;
pub use settings::CsvSettings;
pub use settings::Format;
pub use settings::Job;
pub use settings::KeepSettings;
pub use settings::LoadSettings;
pub use settings::MarkFilter;
pub use settings::Nested;
pub use settings::OnDelete;
pub use settings::ParquetCompression;
pub use settings::PartitionBy;
pub use settings::Partitioning;
pub use settings::PrivacySettings;
pub use settings::ProfileSettings;
pub use settings::ProviderSettings;
pub use settings::QuotaDay;
pub use settings::QuotaSettings;
pub use settings::Rate;
pub use settings::Ratio;
pub use settings::Reach;
pub use settings::ReadableBy;
pub use settings::RefreshSettings;
pub use settings::Reserve;
pub use settings::RunSettings;
pub use settings::Selection;
pub use settings::SourceSettings;
pub use settings::Tree;
pub use settings::UsersAuth;
pub use settings::WhatConvertsPlan;
pub use settings::WhatConvertsSettings;
pub use settings::WhautomatePlan;
pub use settings::WhautomateSettings;
pub use settings::WhautomateStream;

use crate::store::Place;

/// The defaults of a job file, commented: the reference of what a job file may leave out.
pub const DEFAULTS: &str = include_str!("default.toml");

/// What takes the place of a job's own lake, servers and credentials, where one server plays them all.
#[derive(Debug, Clone)]
pub struct StandIn {
    /// The folder of the lake.
    pub lake: PathBuf,
    /// The server of every source.
    pub base_url: Url,
    /// Token and secret of every WhatConverts source.
    pub whatconverts: (SecretString, SecretString),
    /// The keys of the Whautomate sources, in their order; the last one also of all that follow.
    pub whautomate: Vec<SecretString>,
    /// The token of every Convertalk source.
    pub convertalk: SecretString,
}

/// Rows of a page where the server alone decides.
const USUAL_PAGE_ROWS: u32 = 100;

impl Job {
    /// Returns the same job, whose runs take no more memory than `limit`, where one is given.
    ///
    /// # Errors
    ///
    /// Where that is too little for the job's pages.
    pub fn within_memory(mut self, limit: Option<MemoryLimit>) -> Result<Self, Error> {
        self.run.memory_limit = limit.unwrap_or(self.run.memory_limit);
        self.memory_shares()?;
        Ok(self)
    }

    /// Returns what a run may hold in memory of what.
    ///
    /// # Errors
    ///
    /// Where the limit is too little for the job's pages.
    pub fn memory_shares(&self) -> Result<Shares, TooLittle> {
        let page_rows = self.sources.iter().filter_map(SourceSettings::page_size).max();
        self.run.memory_limit.share(page_rows.unwrap_or(USUAL_PAGE_ROWS))
    }

    /// Reads the job file at `path`.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read, or with all that is wrong with it.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let read = fs::read_to_string(path);
        let text = read.map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Turns the text of a job file into a job; `path` says where the text stands, and the paths in
    /// it are taken from that folder. Reads no file, no environment and no secret.
    ///
    /// # Errors
    ///
    /// With all that is wrong with the text.
    pub fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        let invalid = |mut problems: Vec<Problem>| {
            problems.sort_by_key(|problem| problem.line.unwrap_or_default());
            Err(Error::Invalid { path: path.to_owned(), problems })
        };
        let (lines, mut problems) = match check::check(text) {
            Ok(checked) => checked,
            Err(problem) => return invalid(vec![problem]),
        };
        match over_defaults(text).and_then(Table::try_into::<JobFile>) {
            Ok(file) => match resolve::resolve(file, path, &lines) {
                Ok(job) if problems.is_empty() => return Ok(job),
                Ok(_) => {}
                Err(found) => problems.extend(found),
            },
            // What the check has found is also what stands in the way here.
            Err(error) if problems.is_empty() => {
                return Err(Error::Mismatch { message: error.message().to_owned() });
            }
            Err(_) => {}
        }
        invalid(problems)
    }

    /// Returns the same job on another lake, server and credentials. Nothing of the job's own is
    /// touched then: its ledgers and its privacy key give way to those of the other lake.
    pub fn with_stand_in(self, stand_in: &StandIn) -> Self {
        let mut job = self.on_another_lake(stand_in.lake.clone());
        let mut keys = stand_in.whautomate.iter();
        let mut last_key = None;
        for source in &mut job.sources {
            let (token, secret) = match source.provider {
                ProviderSettings::WhatConverts(_) => stand_in.whatconverts.clone(),
                ProviderSettings::Whautomate(_) => {
                    last_key = keys.next().or(last_key);
                    (last_key.cloned().unwrap_or_default(), SecretString::default())
                }
                ProviderSettings::Convertalk(_) => {
                    (stand_in.convertalk.clone(), SecretString::default())
                }
            };
            source.stand_in(stand_in.base_url.clone(), token, secret);
        }
        job
    }

    /// Returns the same job on another lake, which keeps the ledgers and makes the privacy key.
    #[must_use]
    pub fn on_another_lake(mut self, lake: PathBuf) -> Self {
        self.lake = Place::Folder(lake);
        self.quota_dir = None;
        self.privacy.key = None;
        self
    }
}

/// Returns the tables of `text` laid over the defaults: those of the job, and for each source those
/// of its provider.
fn over_defaults(text: &str) -> Result<Table, toml::de::Error> {
    let mut merged: Table = DEFAULTS.parse()?;
    let mut providers = Table::new();
    for (provider, _) in schema::PROVIDERS {
        providers.extend(merged.remove_entry(provider));
    }
    lay_over(&mut merged, text.parse()?);
    let sources = merged.get_mut("sources").and_then(Value::as_array_mut);
    for source in sources.into_iter().flatten().filter_map(Value::as_table_mut) {
        let provider = source.get("provider").and_then(Value::as_str);
        let defaults = provider.and_then(|name| providers.get(name)?.as_table());
        let mut whole = defaults.cloned().unwrap_or_default();
        lay_over(&mut whole, std::mem::take(source));
        *source = whole;
    }
    Ok(merged)
}

/// Lays `over` on `under`: tables are joined key by key, anything else takes the other's place.
fn lay_over(under: &mut Table, over: Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => lay_over(below, above),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests;
