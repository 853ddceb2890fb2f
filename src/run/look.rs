//! Looks at what a job may ask and would read, without asking.

use std::collections::BTreeMap;

use super::Result;
use super::client::Quotas;
use crate::checkpoint::SourceProgress;
use crate::clock::SharedClock;
use crate::config::Job;
use crate::config::SourceSettings;
use crate::extract::providers;
use crate::ids::SourceName;
use crate::quota::Budget;
use crate::record::Scope;
use crate::record::ScopeKey;

/// Returns what is left of each source's quota; an error where its secret, by which the ledger is
/// found, cannot be read.
pub fn budgets(job: &Job, clock: &SharedClock) -> BTreeMap<SourceName, Result<Budget>> {
    let quotas = Quotas::new(job, None, clock.clone());
    let budget = |source: &SourceSettings| Ok(quotas.of(source)?.budget()?);
    job.sources.iter().map(|source| (source.name.clone(), budget(source))).collect()
}

/// Returns the scopes of a source that a run would read, as far as `progress` knows them.
pub fn scopes(source: &SourceSettings, progress: &SourceProgress) -> Vec<ScopeKey> {
    let partitions = progress.partitions.as_ref().map(|known| known.listed.as_slice());
    providers::scopes(source, partitions).iter().map(Scope::key).collect()
}
