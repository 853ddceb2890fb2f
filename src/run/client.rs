//! Makes the client of a source: secrets, connection, and the quota of its key.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use secrecy::ExposeSecret;
use secrecy::SecretString;
use tokio::sync::watch;

use super::Error;
use super::Result;
use super::settings;
use crate::clock::SharedClock;
use crate::config::Job;
use crate::config::SourceSettings;
use crate::extract;
use crate::extract::Caller;
use crate::extract::Halt;
use crate::extract::Heard;
use crate::extract::Source;
use crate::extract::providers;
use crate::ids::ProviderId;
use crate::quota;
use crate::quota::Ledger;
use crate::quota::Options;
use crate::quota::Quota;
use crate::quota::RequestCap;
use crate::store::Store;

/// The quotas of a run, by group: sources of one group share one.
#[derive(Debug)]
pub(super) struct Quotas {
    ledgers: Store,
    clock: SharedClock,
    options: Options,
    /// Permits of a day that are left to others, beside the reserve.
    kept_back: BTreeMap<String, u32>,
    groups: Mutex<BTreeMap<String, Quota>>,
}

/// A source that can be asked.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) source: Arc<dyn Source>,
    pub(super) caller: Caller,
    pub(super) quota: Quota,
    /// Requests that may be under way at once.
    pub(super) at_once: usize,
}

impl Quotas {
    /// Leaves so many permits of each group to others, beside its reserve.
    pub(super) fn keeping_back(self, kept_back: BTreeMap<String, u32>) -> Self {
        Self { kept_back, ..self }
    }

    /// Returns the quotas of a run of `job`, of which all sources together may send `max_requests`.
    pub(super) fn new(job: &Job, max_requests: Option<u64>, clock: SharedClock) -> Result<Self> {
        let max_requests = max_requests.map(|requests| Arc::new(RequestCap::new(requests)));
        let options = Options { patience: job.run.patience, max_requests };
        let ledgers = match &job.quota_dir {
            Some(place) => Store::at(place)?,
            None => settings::lake(job)?.folder("state/ledger"),
        };
        let (kept_back, groups) = (BTreeMap::new(), Mutex::default());
        Ok(Self { ledgers, clock, options, kept_back, groups })
    }

    /// Returns the quota of a source. Fails where the key, by which the ledger is found, cannot be
    /// read.
    pub(super) fn of(&self, source: &SourceSettings) -> Result<Quota> {
        let mut rule = settings::rule(source).ok_or(Error::NoRule(source.name.clone()))?;
        let group = group_of(source)?;
        if let Some(kept_back) = self.kept_back.get(&group) {
            rule.reserve = quota::Reserve::Requests(rule.reserved().saturating_add(*kept_back));
        }
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let quota = groups.entry(group.clone()).or_insert_with(|| {
            let ledger = Ledger::open(self.ledgers.clone(), &group, rule);
            Quota::new(ledger, self.clock.clone(), self.options.clone())
        });
        Ok(quota.clone())
    }

    /// Returns all quotas in use.
    pub(super) fn all(&self) -> Vec<Quota> {
        let groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        groups.values().cloned().collect()
    }
}

/// Returns the name of a source's quota group. Fails where it is that of a key that cannot be read.
pub(super) fn group_of(source: &SourceSettings) -> Result<String> {
    match &source.quota.group {
        Some(group) => Ok(group.clone()),
        // A rotated secret keeps its token, and two sources of one key share what it may.
        None => Ok(fingerprint(source.provider_id(), &source.key().read()?)),
    }
}

/// Returns the name of a key's quota group. Keys of two providers have two rules, even where somebody
/// gave both the same text.
fn fingerprint(provider: ProviderId, key: &SecretString) -> String {
    let context = match provider {
        // Ledgers of the first version go by this.
        ProviderId::WhatConverts => "leadpipe quota group".to_owned(),
        other => format!("leadpipe quota group of {other}"),
    };
    let hash = blake3::derive_key(&context, key.expose_secret().as_bytes());
    hash[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads the secrets of a source and makes its client.
pub(super) fn connect(
    job: &Job,
    source: &SourceSettings,
    quotas: &Quotas,
    halt: watch::Receiver<Halt>,
    clock: SharedClock,
) -> Result<Client> {
    let quota = quotas.of(source)?;
    let heard = Heard::default();
    let wire =
        providers::connect(source, heard.clone(), clock.clone()).map_err(|error| match error {
            extract::Error::Secret(error) => Error::Config(error),
            error => error.into(),
        })?;
    let policy = settings::retry_policy(job, source, &quota);
    let shared = Arc::new(quota.clone());
    let caller = Caller::new(source.provider_id(), shared, clock, policy, halt).hearing(heard);
    let at_once = settings::rule(source).map_or(1, |rule| rule.at_once.get() as usize);
    Ok(Client { source: wire, caller, quota, at_once })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::clock::ManualClock;
    use crate::config::ProviderSettings;
    use crate::config::SecretRef;

    /// The job of the design, with `secret` as the key of all its sources and no named quota group.
    fn job(secret: &str) -> Job {
        let text = include_str!("../../tests/fixtures/job/design.toml");
        let mut job = Job::parse(text, Path::new("job.toml")).unwrap();
        for source in &mut job.sources {
            source.quota.group = None;
            let given = || SecretRef::Given(secret.into());
            match &mut source.provider {
                ProviderSettings::WhatConverts(settings) => settings.token = given(),
                ProviderSettings::Whautomate(settings) => settings.api_key = given(),
                ProviderSettings::Convertalk(settings) => settings.token = given(),
            }
        }
        job
    }

    fn ledger_of(quotas: &Quotas, source: &SourceSettings) -> std::path::PathBuf {
        quotas.of(source).unwrap().ledger().path().to_owned()
    }

    #[test]
    fn a_key_has_one_ledger_and_another_key_has_another() {
        let clock: SharedClock = Arc::new(ManualClock::new(chrono::DateTime::UNIX_EPOCH));
        let quotas = Quotas::new(&job("one"), None, clock).unwrap();
        let of = |secret| {
            let sources = job(secret).sources;
            sources.iter().map(|source| ledger_of(&quotas, source)).collect::<Vec<_>>()
        };
        assert_eq!(of("one"), of("one"));
        let all = of("one").into_iter().chain(of("two")).collect::<BTreeSet<_>>();
        assert_eq!(all.len(), 6);
    }
}
