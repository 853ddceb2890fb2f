//! Looks at what a job may ask and would read, without asking.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Error;
use super::Result;
use super::client::Quotas;
use super::client::group_of;
use crate::checkpoint::SmallerPages;
use crate::checkpoint::SourceProgress;
use crate::clock::SharedClock;
use crate::config::Job;
use crate::config::SourceSettings;
use crate::extract::providers;
use crate::ids::SourceName;
use crate::quota::Budget;
use crate::quota::Outlook;
use crate::quota::Rule;
use crate::record::Scope;
use crate::record::ScopeKey;

/// Returns what is left of each source's quota; an error where its secret, by which the ledger is
/// found, cannot be read.
pub fn budgets(job: &Job, clock: &SharedClock) -> Result<BTreeMap<SourceName, Result<Budget>>> {
    let quotas = Quotas::new(job, None, clock.clone())?;
    let budget = |source: &SourceSettings| Ok(quotas.of(source)?.budget()?);
    Ok(job.sources.iter().map(|source| (source.name.clone(), budget(source))).collect())
}

/// A quota and the sources that share it.
#[derive(Debug, Clone)]
pub struct QuotaGroup {
    /// Its name.
    pub group: String,
    /// The sources of the job that share it.
    pub sources: Vec<SourceName>,
    /// What the provider allows.
    pub rule: Rule,
    /// Where its ledger lies.
    pub ledger: PathBuf,
    /// What is left, and what comes back when.
    pub outlook: Outlook,
}

/// Returns the quotas of a job in the order of its sources, and the sources of which the quota is not
/// known, with the reason.
///
/// # Errors
///
/// Where the lake lies in a bucket that cannot be opened.
pub fn quota_groups(
    job: &Job,
    clock: &SharedClock,
) -> Result<(Vec<QuotaGroup>, BTreeMap<SourceName, Error>)> {
    let quotas = Quotas::new(job, None, clock.clone())?;
    let (mut groups, mut unknown): (Vec<QuotaGroup>, _) = (Vec::new(), BTreeMap::new());
    for source in &job.sources {
        match quota_group(source, &quotas) {
            Err(error) => drop(unknown.insert(source.name.clone(), error)),
            Ok(group) => match groups.iter_mut().find(|known| known.group == group.group) {
                Some(known) => known.sources.push(source.name.clone()),
                None => groups.push(group),
            },
        }
    }
    Ok((groups, unknown))
}

fn quota_group(source: &SourceSettings, quotas: &Quotas) -> Result<QuotaGroup> {
    let quota = quotas.of(source)?;
    Ok(QuotaGroup {
        group: group_of(source)?,
        sources: vec![source.name.clone()],
        rule: *quota.ledger().rule(),
        ledger: quota.ledger().path(),
        outlook: quota.outlook()?,
    })
}

/// Tells the ledger of a source how many requests others have sent with its key in the last 24 hours;
/// they count as sent now, in place of what it was told before.
pub fn set_used(job: &Job, source: &SourceName, requests: u32, clock: &SharedClock) -> Result<()> {
    let quotas = Quotas::new(job, None, clock.clone())?;
    let settings = job.sources.iter().find(|settings| settings.name == *source);
    match settings {
        Some(settings) => Ok(quotas.of(settings)?.set_used(requests)?),
        None => Ok(()),
    }
}

/// Returns the scopes of a source that a run would read, as far as `progress` knows them.
pub fn scopes(source: &SourceSettings, progress: &SourceProgress) -> Vec<ScopeKey> {
    let known = providers::known_partitions(source, progress.partitions.as_ref());
    providers::scopes(source, known.map(|known| known.listed.as_slice()))
        .iter()
        .map(Scope::key)
        .collect()
}

/// Returns the sizes of pages that are asked for instead of the job's, by stream.
pub fn smaller_pages(
    source: &SourceSettings,
    progress: &SourceProgress,
) -> BTreeMap<String, SmallerPages> {
    let asked = source.page_size().unwrap_or(0);
    let mut smaller = progress.smaller_pages.clone();
    smaller.retain(|_, smaller| smaller.rows < asked);
    smaller
}
