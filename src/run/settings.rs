//! Turns a job's settings into what each stage takes. Pure.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use chrono::TimeDelta;

use super::Error;
use crate::commit::Key;
use crate::config;
use crate::config::Job;
use crate::config::ReadableBy;
use crate::config::SourceSettings;
use crate::config::Tree;
use crate::extract::RetryPolicy;
use crate::extract::providers;
use crate::load;
use crate::quota;
use crate::quota::Quota;
use crate::record::Scope;
use crate::store;
use crate::store::Readers;
use crate::store::Store;
use crate::transform;
use crate::transform::Mapping;

/// Returns the mappings of the streams of a source, by stream.
pub(super) fn mappings(
    source: &SourceSettings,
) -> Result<BTreeMap<String, Box<dyn Mapping>>, Error> {
    let mapping = |scope: Scope| {
        let mapping = transform::mapping(source.provider_id(), &scope.stream);
        Ok((scope.stream, mapping.ok_or(Error::Bug("a stream has no mapping"))?))
    };
    providers::scopes(source, None).into_iter().map(mapping).collect()
}

/// Returns what the mapping needs of a source's settings.
pub(super) fn transform(source: &SourceSettings, key: &Key) -> transform::Settings {
    let region = |country: &Option<celes::Country>| country.map(|c| c.alpha2.to_owned());
    let profiles = source.profiles.iter().map(|(id, profile)| {
        let settings = transform::ProfileSettings {
            currency: profile.currency.clone(),
            default_region: region(&profile.default_region),
        };
        (format!("profile:{id}"), settings)
    });
    transform::Settings {
        account_id: source.account_id().map(str::to_owned),
        currency: source.currency.clone(),
        default_region: region(&source.default_region),
        profiles: profiles.collect(),
        identity_key: transform::IdentityKey::new(key.expose()),
    }
}

/// Returns how many pages may be in memory at once.
pub(super) fn page_slots(job: &Job) -> Result<usize, Error> {
    Ok(shares(job)?.pages)
}

/// Returns how much memory staged leads may take: of each source a part, and all of it for the one that is
/// merged.
pub(super) fn room(job: &Job) -> Result<load::Room, Error> {
    let merged = shares(job)?.staged_bytes;
    Ok(load::Room { staged: merged / job.sources.len().max(1), merged })
}

/// Returns how much is written at once and into one file.
pub(super) fn limits(job: &Job) -> Result<load::Limits, Error> {
    Ok(load::Limits::of_memory(shares(job)?.row_group_bytes))
}

fn shares(job: &Job) -> Result<config::Shares, Error> {
    Ok(job.memory_shares().map_err(config::Error::from)?)
}

/// Returns what the loader writes, and how.
pub(super) fn output(job: &Job) -> load::Output {
    load::Output {
        format: job.load.format,
        compression: job.load.parquet_compression,
        csv_compression: job.load.csv_compression,
        raw_csv: !job.csv.formula_guard,
        nested: job.load.nested,
        on_delete: job.load.on_delete,
    }
}

/// Returns 32 hex digits that differ whenever a job would write a source's files in another way.
pub(super) fn fingerprint(job: &Job) -> String {
    let load = &job.load;
    let covered = [
        load.format.as_str(),
        load.parquet_compression.as_str(),
        load.csv_compression.as_str(),
        load.partition.as_str(),
        load.nested.as_str(),
        load.on_delete.as_str(),
        if job.csv.formula_guard { "guarded" } else { "raw" },
        if job.privacy.key.is_some() { "given key" } else { "own key" },
    ];
    blake3::hash(covered.join(" ").as_bytes()).to_hex()[..32].to_owned()
}

/// Returns the lake of a job, without touching it.
pub(super) fn lake(job: &Job) -> store::Result<Store> {
    let readers = match job.load.readable_by {
        ReadableBy::Owner => Readers::Owner,
        ReadableBy::Group => Readers::Group,
        ReadableBy::All => Readers::All,
    };
    let lake = Store::at(&job.lake)?.readable_by(readers);
    Ok(lake.with_copies(job.load.tree == Tree::Copy))
}

/// Returns how often and how patiently a source's requests are sent again.
pub(super) fn retry_policy(job: &Job, source: &SourceSettings, quota: &Quota) -> RetryPolicy {
    RetryPolicy {
        retries: source.retries as usize,
        first_wait: Duration::from_millis(500),
        longest_wait: Duration::from_secs(60),
        patience: job.run.patience.max(TimeDelta::minutes(1)),
        rate_span: quota.ledger().rule().rate.per,
    }
}

/// Returns the rule of a source's key: the preset of its plan, and what the job sets over it.
pub fn rule(source: &SourceSettings) -> Option<quota::Rule> {
    let mut rule = quota::preset(source.provider_id(), source.plan())?;
    let quota = &source.quota;
    if let Some(per_day) = quota.per_day {
        rule.per_day = Some(u32::try_from(per_day).unwrap_or(u32::MAX));
    }
    if let Some(rate) = quota.rate {
        let permits = NonZeroU32::new(rate.requests)?;
        rule.rate = quota::Rate { permits, per: rate.per };
    }
    if let Some(at_once) = quota.at_once.and_then(NonZeroU32::new) {
        rule.at_once = at_once;
    }
    match quota.reserve {
        None => {}
        Some(config::Reserve::Ratio(ratio)) => {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100")]
            let percent = (ratio.get() * 100.0).ceil() as u32;
            rule.reserve = quota::Reserve::Percent(percent);
        }
        Some(config::Reserve::Requests(requests)) => {
            let requests = u32::try_from(requests).unwrap_or(u32::MAX);
            rule.reserve = quota::Reserve::Requests(requests);
        }
    }
    if let config::QuotaDay::Fixed { resets_at, zone } = quota.day {
        rule.day = quota::Day::ResetsAt { time: resets_at, zone };
    }
    Some(rule)
}
