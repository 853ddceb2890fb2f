//! The count of requests sent with a key, on disk, so that runs and crashes share it.
//!
//! A ledger is one small file a quota group. Requests are counted before they are sent: permits
//! are leased in blocks, and a block counts at once, in the minute in which it expires. So what a
//! crash loses, or a slow request delays, is counted too much and never too little. A minute counts
//! until all of it lies more than 24 hours back. Every change reads, changes and writes the file
//! under an OS lock on a file beside it, which dies with its process.
//!
//! Ledger time is the clock's, but never goes back: it is the later of the clock and the latest
//! time in the file. Calls block: make them from threads that may.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;

use chrono::DateTime;
use chrono::DurationRound;
use chrono::TimeDelta;
use chrono::Utc;
use serde::Deserialize;
use serde::Serialize;

use super::Cause;
use super::Error;
use super::Result;
use super::day::ROLLING;
use super::rule::Day;
use super::rule::Rule;
use crate::store;
use crate::store::Store;

/// A block's permits count from this long after it was leased.
const EXPIRY: TimeDelta = TimeDelta::seconds(60);
/// A block's permits may be used for this long; the rest of the minute until they count is for
/// requests that are slow to leave.
const USABLE: TimeDelta = TimeDelta::seconds(30);
const BUCKET: TimeDelta = TimeDelta::minutes(1);
/// How long minutes are kept: longer than any day a rule may count, clock changes included.
const KEPT: TimeDelta = TimeDelta::hours(48);
/// How often a provider that says "used up" is tried where nothing tells when its day begins.
const TRY_EVERY: TimeDelta = TimeDelta::hours(1);

/// The requests counted for a quota group, and the rule they are held against.
#[derive(Debug, Clone)]
pub struct Ledger {
    store: Store,
    group: String,
    file: String,
    rule: Rule,
}

/// What is left of a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// Requests a day that we may send, or `None` where there is no limit.
    pub allowance: Option<u32>,
    /// Requests that count against the day, those leased and not yet sent among them.
    pub used: u64,
    /// Requests a day left for others on the same key.
    pub reserved: u32,
    /// Requests that may still be sent, or `None` where there is no limit. What is left cannot be
    /// used before `blocked_until`.
    pub left: Option<u32>,
    /// When the next request may be sent, where none may now; `None` also where none ever may.
    pub next_free: Option<DateTime<Utc>>,
    /// Until when the provider is believed to refuse everything.
    pub blocked_until: Option<DateTime<Utc>>,
}

impl Budget {
    /// Tells whether a request may be sent now.
    pub fn is_open(&self) -> bool {
        self.left != Some(0) && self.blocked_until.is_none()
    }
}

/// Permits that were counted and may be used.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "leased permits count whether they are used or not"]
pub struct Lease {
    /// How many permits are left.
    pub permits: u32,
    /// Until when they may be used, in ledger time.
    pub usable_until: DateTime<Utc>,
    /// Whether this is the first request since a block ended, which goes alone.
    pub is_try: bool,
    counted_in: DateTime<Utc>,
}

/// Why no permit was leased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortage {
    /// When to ask again, or `None` where it is of no use.
    pub until: Option<DateTime<Utc>>,
    /// What stands in the way.
    pub cause: Cause,
}

impl Ledger {
    /// Returns the ledger of `group`, a file in the folder `store`. Touches no disk: a file that
    /// does not exist counts nothing.
    pub fn open(store: Store, group: &str, rule: Rule) -> Self {
        Self { store, group: group.to_owned(), file: file_name(group), rule }
    }

    /// Returns the rule that requests are held against.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// Returns where the ledger lies.
    pub fn path(&self) -> PathBuf {
        self.store.path(&self.path_of("json"))
    }

    /// Returns what is left at `now`.
    pub fn state(&self, now: DateTime<Utc>) -> Result<Budget> {
        Ok(self.load(now)?.budget(&self.rule))
    }

    /// Leases up to `permits` permits, as many as are left. They are on disk, counted, when this
    /// returns.
    pub fn lease(
        &self,
        now: DateTime<Utc>,
        permits: u32,
    ) -> Result<std::result::Result<Lease, Shortage>> {
        self.change(now, |count| count.lease(&self.rule, permits))
    }

    /// Gives back permits that were never used. Call it at a clean end only, when it is certain.
    pub fn release(&self, now: DateTime<Utc>, lease: Lease) -> Result<()> {
        self.change(now, |count| {
            if let Some(counted) = count.minutes.get_mut(&lease.counted_in) {
                *counted = counted.saturating_sub(lease.permits);
            }
        })
    }

    /// Leases no permit before `until`. A block that lasts longer stays.
    pub fn block(&self, now: DateTime<Utc>, until: DateTime<Utc>) -> Result<()> {
        self.change(now, |count| count.block(until)).map(|_| ())
    }

    /// Notes that the provider says that the day is used up, and returns until when to leave it
    /// alone: until `retry_after` where the provider tells it, else the fixed reset, else 24 hours
    /// after our oldest request. Where that says nothing, as nearly nothing was sent, an hour.
    pub fn used_up(
        &self,
        now: DateTime<Utc>,
        retry_after: Option<DateTime<Utc>>,
    ) -> Result<DateTime<Utc>> {
        self.change(now, |count| {
            let told = retry_after.filter(|until| *until > count.latest);
            let until = told.unwrap_or_else(|| count.next_chance(&self.rule));
            count.block(until)
        })
    }

    fn path_of(&self, extension: &str) -> String {
        format!("{}.{extension}", self.file)
    }

    fn change<T>(&self, now: DateTime<Utc>, change: impl FnOnce(&mut Count) -> T) -> Result<T> {
        let _lock = self.lock()?;
        let before = self.load(now)?;
        let mut count = before.clone();
        let outcome = change(&mut count);
        if count != before {
            let stored = Stored::V1 { group: self.group.clone(), count };
            let bytes = serde_json::to_vec(&stored).map_err(Error::Encode)?;
            self.store.write(&self.path_of("json"), &bytes)?;
        }
        Ok(outcome)
    }

    fn lock(&self) -> Result<File> {
        Store::create(self.store.root())?;
        let path = self.store.path(&self.path_of("lock"));
        let opened = File::options().create(true).truncate(false).write(true).open(&path);
        let locked = opened.and_then(|file| file.lock().map(|()| file));
        locked.map_err(|source| store::Error { action: "lock", path, source }.into())
    }

    fn load(&self, now: DateTime<Utc>) -> Result<Count> {
        let mut count = match self.store.read_if_exists(&self.path_of("json"))? {
            Some(bytes) => self.decode(&bytes)?,
            None => Count::new(now),
        };
        count.latest = count.latest.max(now);
        let kept_from = count.latest - KEPT;
        count.minutes.retain(|minute, counted| *minute + BUCKET > kept_from && *counted > 0);
        Ok(count)
    }

    fn decode(&self, bytes: &[u8]) -> Result<Count> {
        let damaged = |source| Error::Damaged { path: self.path(), source };
        let Tag { version } = serde_json::from_slice(bytes).map_err(damaged)?;
        if version != "1" {
            return Err(Error::NewerVersion { path: self.path(), version });
        }
        let Stored::V1 { count, .. } = serde_json::from_slice(bytes).map_err(damaged)?;
        Ok(count)
    }
}

/// The on-disk form of a ledger. Each incompatible change adds a variant and a test that reads a
/// file written by the variant before it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "version")]
enum Stored {
    #[serde(rename = "1")]
    V1 {
        /// For the human reader: the file's name has it escaped.
        group: String,
        #[serde(flatten)]
        count: Count,
    },
}

#[derive(Debug, Deserialize)]
struct Tag {
    version: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Count {
    /// Ledger time.
    latest: DateTime<Utc>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    blocked: Option<Blocked>,
    /// Requests by the minute they count in, which is named by its start.
    minutes: BTreeMap<DateTime<Utc>, u32>,
}

/// The last time the provider said that the day is used up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Blocked {
    until: DateTime<Utc>,
    /// Permits leased since the block ended.
    leased_since: u32,
}

impl Count {
    fn new(now: DateTime<Utc>) -> Self {
        Self { latest: now, blocked: None, minutes: BTreeMap::new() }
    }

    fn lease(&mut self, rule: &Rule, permits: u32) -> std::result::Result<Lease, Shortage> {
        let budget = self.budget(rule);
        if !budget.is_open() {
            let blocked = budget.blocked_until.is_some();
            let cause = if blocked { Cause::Blocked } else { Cause::DayQuota };
            return Err(Shortage { until: budget.next_free, cause });
        }
        let is_try = self.blocked.as_ref().is_some_and(|blocked| blocked.leased_since == 0);
        let most = if is_try { 1 } else { budget.left.unwrap_or(u32::MAX) };
        let permits = permits.max(1).min(most);
        let counted_in = minute_of(self.latest + EXPIRY);
        let counted = self.minutes.entry(counted_in).or_default();
        *counted = counted.saturating_add(permits);
        if let Some(blocked) = &mut self.blocked {
            blocked.leased_since = blocked.leased_since.saturating_add(permits);
        }
        Ok(Lease { permits, usable_until: self.latest + USABLE, is_try, counted_in })
    }

    fn block(&mut self, until: DateTime<Utc>) -> DateTime<Utc> {
        let until = self.blocked_until().map_or(until, |blocked| blocked.max(until));
        self.blocked = Some(Blocked { until, leased_since: 0 });
        until
    }

    fn blocked_until(&self) -> Option<DateTime<Utc>> {
        self.blocked.as_ref().map(|blocked| blocked.until).filter(|until| *until > self.latest)
    }

    fn next_chance(&self, rule: &Rule) -> DateTime<Utc> {
        if let Some(reset) = rule.day.next_reset(self.latest) {
            return reset;
        }
        // Requests that were on their way together say nothing of when the day began: where no
        // more than those were sent, since the last block or at all, others spent the quota.
        let in_flight = u64::from(rule.at_once.get());
        let refused_again =
            self.blocked.as_ref().is_some_and(|last| u64::from(last.leased_since) <= in_flight);
        let oldest = self.counted(rule.day).next().map(|(minute, _)| minute);
        let is_ours = |minute: &DateTime<Utc>| {
            *minute + BUCKET <= self.latest || self.used(rule.day) > in_flight
        };
        match oldest.filter(is_ours) {
            Some(minute) if !refused_again => minute + BUCKET + ROLLING,
            _ => self.latest + TRY_EVERY,
        }
    }

    fn budget(&self, rule: &Rule) -> Budget {
        let used = self.used(rule.day);
        let allowance = rule.allowance();
        let left = allowance.map(|allowance| {
            u32::try_from(u64::from(allowance).saturating_sub(used)).unwrap_or(u32::MAX)
        });
        let blocked_until = self.blocked_until();
        let next_free = match allowance {
            Some(0) => None,
            Some(allowance) if left == Some(0) => {
                self.frees_at(rule.day, used, allowance).max(blocked_until)
            }
            _ => blocked_until,
        };
        let reserved = rule.reserved();
        Budget { allowance, used, reserved, left, next_free, blocked_until }
    }

    fn used(&self, day: Day) -> u64 {
        self.counted(day).map(|(_, counted)| u64::from(counted)).sum()
    }

    /// Returns the minutes that count, the oldest first; those to come count already.
    fn counted(&self, day: Day) -> impl Iterator<Item = (DateTime<Utc>, u32)> {
        let from = day.counts_from(self.latest);
        let minutes = self.minutes.iter().map(|(minute, counted)| (*minute, *counted));
        minutes.filter(move |(minute, _)| *minute + BUCKET > from)
    }

    /// Returns when the first permit comes free, where all are used.
    fn frees_at(&self, day: Day, used: u64, allowance: u32) -> Option<DateTime<Utc>> {
        if let Some(reset) = day.next_reset(self.latest) {
            return Some(reset);
        }
        let mut used = used;
        let mut minutes = self.counted(day);
        let (minute, _) = minutes.find(|(_, counted)| {
            used -= u64::from(*counted);
            used < u64::from(allowance)
        })?;
        Some(minute + BUCKET + ROLLING)
    }
}

fn minute_of(instant: DateTime<Utc>) -> DateTime<Utc> {
    // Only an instant far outside of any calendar cannot be rounded.
    instant.duration_trunc(BUCKET).unwrap_or(instant)
}

/// Returns a file name that no two groups share, whatever the file system makes of capitals.
fn file_name(group: &str) -> String {
    let is_plain =
        |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(byte);
    let escape = |byte: u8| match is_plain(&byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02x}"),
    };
    let name: String = group.bytes().map(escape).collect();
    match name.len() {
        0 => "%".to_owned(),
        1..=128 => name,
        // `%%` stands in no escaped name.
        _ => format!("%%{}", blake3::hash(group.as_bytes()).to_hex()),
    }
}
