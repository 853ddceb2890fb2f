//! The providers, each in a folder of its own: a closed list.
//!
//! A provider's folder holds its [`Source`], which speaks its wire form, and what makes one of a job's
//! settings. What providers have in common on the wire stands in the private modules beside them.

mod convertalk;
mod json;
pub(super) mod refusal;
mod rows;
mod scopes;
#[cfg(test)]
mod testing;
mod whatconverts;
mod whautomate;

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderValue;

use super::Error;
use super::Heard;
use super::HttpSettings;
#[cfg(any(test, fuzzing))]
use super::PageFacts;
use super::Result;
use super::Source;
use crate::checkpoint::Partition;
use crate::checkpoint::Partitions;
use crate::clock::SharedClock;
use crate::config::PartitionBy;
use crate::config::ProviderSettings;
use crate::config::SourceSettings;
use crate::ids::ProviderId;
use crate::ids::SourceName;
use crate::record::Scope;

/// An account at a provider as the job describes it: what is known of it before anything is sent.
trait Account {
    /// Reads the secrets and makes the client.
    fn connect(&self, http: HttpSettings, clock: SharedClock) -> Result<Arc<dyn Source>>;

    /// Returns what is read of it, scope by scope, where the provider listed `partitions`. The lists
    /// of one partition stand together, in the order they are to be read in.
    fn scopes(&self, source: &SourceName, partitions: Option<&[Partition]>) -> Vec<Scope>;

    /// Returns what would be read of it with its listings cut another way; `None` where it has no
    /// choice, or `partitions` do not tell.
    fn scopes_by(
        &self,
        _source: &SourceName,
        _partitions: Option<&[Partition]>,
        _by: PartitionBy,
    ) -> Option<Vec<Scope>> {
        None
    }

    /// Tells whether `partitions`, as listed by an earlier run, tell its scopes. Where not, they are to
    /// be listed; where nothing is listed, no listing tells anything.
    fn is_told_by(&self, _partitions: &[Partition]) -> bool {
        true
    }

    /// Says where its credentials come from, and what else they depend on.
    fn credentials(&self, source: &SourceName) -> String;
}

/// The closed list.
fn account(source: &SourceSettings) -> &dyn Account {
    match &source.provider {
        ProviderSettings::WhatConverts(settings) => settings,
        ProviderSettings::Whautomate(settings) => settings,
        ProviderSettings::Convertalk(settings) => settings,
    }
}

/// Reads the secrets of a source and makes its client, which notes in `heard` what answers tell beside
/// their bodies. Nothing is sent.
pub fn connect(
    source: &SourceSettings,
    heard: Heard,
    clock: SharedClock,
) -> Result<Arc<dyn Source>> {
    let http = HttpSettings {
        base_url: source.base_url.clone(),
        timeout: source.timeout.to_std().unwrap_or(Duration::from_secs(60)),
        stall: source.stall.to_std().unwrap_or(Duration::from_secs(30)),
        max_body_bytes: source.max_body_bytes,
        heard,
    };
    account(source).connect(http, clock)
}

/// Returns the scopes of a source, of which the provider listed `partitions`.
pub fn scopes(source: &SourceSettings, partitions: Option<&[Partition]>) -> Vec<Scope> {
    account(source).scopes(&source.name, partitions)
}

/// Returns the scopes of a source as they would be if its listings were cut `by` something else than
/// the job says: as many walks a window. `None` where the source has no choice (a profile key,
/// another provider), where the job leaves out what such a listing would show, or where `partitions`,
/// as an earlier run listed them, do not tell.
pub fn scopes_by(
    source: &SourceSettings,
    partitions: Option<&[Partition]>,
    by: PartitionBy,
) -> Option<Vec<Scope>> {
    account(source).scopes_by(&source.name, partitions, by)
}

/// Returns the partitions that an earlier run listed, where they tell the scopes of the source as the
/// job has it now: under another `partition_by` fewer may have been listed, or none are needed.
pub fn known_partitions<'a>(
    source: &SourceSettings,
    known: Option<&'a Partitions>,
) -> Option<&'a Partitions> {
    known.filter(|known| account(source).is_told_by(&known.listed))
}

/// Returns where the credentials of a source come from, for one whose credentials are refused.
pub fn credentials_hint(source: &SourceSettings) -> String {
    account(source).credentials(&source.name)
}

/// Reads `body` in every way in which an answer of a provider with that status is read. Returns what it
/// is as a page, and what is wrong with it as all else.
#[cfg(any(test, fuzzing))]
pub fn read_in_every_way(
    provider: ProviderId,
    status: u16,
    body: &[u8],
) -> (Result<PageFacts>, Vec<Error>) {
    let answer = super::Answer {
        status,
        request: "/the/path?page=1".to_owned(),
        retry_after: None,
        media_type: "application/json".to_owned(),
        body: bytes::Bytes::copy_from_slice(body),
        received_at: chrono::DateTime::UNIX_EPOCH,
    };
    match provider {
        ProviderId::WhatConverts => whatconverts::read_in_every_way(&answer),
        ProviderId::Whautomate => whautomate::read_in_every_way(&answer),
        ProviderId::Convertalk => convertalk::read_in_every_way(&answer),
    }
}

/// Returns `text` as the value of a header that is not printed. Fails where it cannot stand in one.
fn credential(provider: ProviderId, text: &str) -> Result<HeaderValue> {
    let made = HeaderValue::from_str(text);
    let mut value = made.map_err(|source| Error::Setup { provider, source: Box::new(source) })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Job;
    use crate::config::SecretRef;
    use crate::error::Hint;

    fn job() -> Job {
        let text = include_str!("../../../tests/fixtures/job/design.toml");
        let mut job = Job::parse(text, Path::new("job.toml")).unwrap();
        let given = || SecretRef::Given(testing::SECRET.into());
        for source in &mut job.sources {
            match &mut source.provider {
                ProviderSettings::WhatConverts(settings) => {
                    (settings.token, settings.secret) = (given(), given());
                }
                ProviderSettings::Whautomate(settings) => settings.api_key = given(),
                ProviderSettings::Convertalk(settings) => settings.token = given(),
            }
        }
        job
    }

    #[test]
    fn a_source_of_every_provider_is_connected() {
        for source in &job().sources {
            let connected = connect(source, Heard::default(), testing::clock()).unwrap();
            assert_eq!(connected.provider(), source.provider_id());
            assert!(!format!("{connected:?}").contains(testing::SECRET), "{connected:?}");
        }
    }

    #[test]
    fn a_secret_that_cannot_be_read_is_named_and_not_tried_again() {
        let mut job = job();
        let missing = || SecretRef::Env("LEADPIPE_TEST_NEVER_SET".to_owned());
        for source in &mut job.sources {
            match &mut source.provider {
                ProviderSettings::WhatConverts(settings) => settings.secret = missing(),
                ProviderSettings::Whautomate(settings) => settings.api_key = missing(),
                ProviderSettings::Convertalk(settings) => settings.token = missing(),
            }
            let error = connect(source, Heard::default(), testing::clock()).unwrap_err();
            assert!(matches!(error, Error::Secret(_)) && !error.is_retryable(), "{error}");
            assert!(error.to_string().contains("LEADPIPE_TEST_NEVER_SET"));
            assert!(error.hint().is_some());
        }
    }

    #[test]
    fn a_source_whose_credentials_are_refused_says_where_they_come_from() {
        let text = include_str!("../../../tests/fixtures/job/design.toml");
        let job = Job::parse(text, Path::new("job.toml")).unwrap();
        let hints: Vec<String> = job.sources.iter().map(credentials_hint).collect();
        insta::assert_snapshot!(hints.join("\n"));
    }
}
