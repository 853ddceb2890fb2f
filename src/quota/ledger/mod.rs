//! The count of requests sent with a key, on disk, so that runs and crashes share it.
//!
//! A ledger is one small file a quota group. Requests are counted before they are sent: permits
//! are leased in blocks, and a block counts at once, in the minute in which it expires. So what a
//! crash loses, or a slow request delays, is counted too much and never too little. A minute counts
//! until all of it lies more than 24 hours back. Every change reads, changes and writes the file
//! under an OS lock on a file beside it, which dies with its process.
//!
//! Ledger time is the clock's, but does not go back with it: it is the later of the clock and the
//! latest time in the file. Only [`Ledger::correct`] puts it right, by the provider's own time.
//! Where a rate is counted over a second or more, it lies in the file too ([`super::pace`]): a block
//! is leased with its places in the rate. Calls block: make them from threads that may.
//!
//! [`stored`] is the form of the file, [`count`] what is counted in it, [`lease`] the permits that it gives
//! away, and [`budget`] what is left and when more comes back.

mod budget;
mod count;
mod lease;
mod stored;

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use chrono::DateTime;
use chrono::DurationRound;
use chrono::TimeDelta;
use chrono::Utc;

pub use self::budget::BlockedBy;
pub use self::budget::Budget;
pub use self::budget::Freed;
pub use self::budget::Outlook;
pub(super) use self::lease::Before;
pub use self::lease::Lease;
pub(super) use self::lease::NotNow;
pub use self::lease::Shortage;
use self::stored::Count;
use self::stored::file_name;
use super::Result;
use super::day::ROLLING;
use super::forecast;
use super::forecast::Demand;
use super::forecast::Forecast;
use super::forecast::Position;
use super::rule::Rule;
use crate::store::Store;

/// A block's permits count from this long after it was leased.
const EXPIRY: TimeDelta = TimeDelta::seconds(60);
/// A block's permits may be used for this long; the rest of the minute until they count is for
/// requests that are slow to leave.
pub(super) const USABLE: TimeDelta = TimeDelta::seconds(30);
const BUCKET: TimeDelta = TimeDelta::minutes(1);
/// How long minutes are kept: longer than any day a rule may count, clock changes included,
/// and long enough to be there still when a clock that jumped a day ahead is put right.
pub(super) const KEPT: TimeDelta = TimeDelta::hours(48);

/// The requests counted for a quota group, and the rule they are held against.
#[derive(Debug, Clone)]
pub struct Ledger {
    store: Store,
    group: String,
    file: String,
    rule: Rule,
}

impl Ledger {
    /// Returns the ledger of `group`, a file in the folder `store`. Touches no disk: a file that
    /// does not exist counts nothing.
    pub fn open(store: Store, group: &str, rule: Rule) -> Self {
        // It lies with the lake or in a folder that lakes share.
        let store = store.labelled("state/ledger");
        Self { store, group: group.to_owned(), file: file_name(group), rule }
    }

    /// Returns the rule that requests are held against.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// Returns where the ledger lies.
    pub fn path(&self) -> PathBuf {
        self.store.path(&self.file_name())
    }

    /// Returns what is left at `now`.
    pub fn state(&self, now: DateTime<Utc>) -> Result<Budget> {
        Ok(self.load(now)?.budget(&self.rule))
    }

    /// Returns what is left at `now`, and what comes back when.
    pub fn outlook(&self, now: DateTime<Utc>) -> Result<Outlook> {
        Ok(self.load(now)?.outlook(&self.rule))
    }

    /// Returns when the requests of `demand` will have been sent, if nothing else is.
    pub fn forecast(&self, now: DateTime<Utc>, demand: Demand) -> Result<Forecast> {
        Ok(self.forecast_by(&self.load(now)?, demand))
    }

    fn forecast_by(&self, count: &Count, demand: Demand) -> Forecast {
        let budget = count.budget(&self.rule);
        let mut frees: BTreeMap<DateTime<Utc>, u64> = BTreeMap::new();
        // What was used beyond the allowance, as when a rule was made smaller, frees nothing.
        let mut over = budget.used.saturating_sub(budget.allowance.unwrap_or_default().into());
        for (minute, counted) in count.counted(self.rule.day) {
            let counted = u64::from(counted);
            if counted > over {
                frees.insert(minute + BUCKET + ROLLING, counted - over);
            }
            over = over.saturating_sub(counted);
        }
        let position = Position {
            now: count.latest,
            left: budget.left.map(u64::from),
            blocked_until: budget.blocked_until,
            frees,
        };
        forecast::forecast(&self.rule, position, demand)
    }

    /// Notes that others have sent so many requests in the last 24 hours, in place of what was noted
    /// before. Nobody knows when they were sent: they count as sent now.
    pub fn set_used(&self, now: DateTime<Utc>, requests: u32) -> Result<()> {
        self.change(now, |count| count.set_used(requests))
    }

    /// Leases up to `permits` permits, as many as are left and may soon go. They are on disk,
    /// counted, when this returns.
    pub fn lease(
        &self,
        now: DateTime<Utc>,
        permits: u32,
    ) -> Result<std::result::Result<Lease, Shortage>> {
        let leased = self.change(now, |count| count.lease(&self.rule, permits, None))?;
        Ok(leased.map_err(|not_now| not_now.shortage))
    }

    /// The same for a process that has asked before. What is left of its lease counts no more, unless
    /// it is too late to be sure.
    pub(super) fn lease_next(
        &self,
        now: DateTime<Utc>,
        before: Before,
        permits: u32,
    ) -> Result<std::result::Result<Lease, NotNow>> {
        // In a bucket this is done again where the answer was lost: what is given back twice would count
        // too little.
        let mut is_first = true;
        self.change(now, |count| {
            match &before.lease {
                Some(old) if old.permits > 0 && count.latest <= old.usable_until => {
                    match std::mem::take(&mut is_first) {
                        true => count.release(&self.rule, old),
                        false => count.settle(&self.rule, old),
                    }
                }
                Some(old) => count.settle(&self.rule, old),
                None => {}
            }
            count.lease(&self.rule, permits, before.ticket)
        })
    }

    /// Gives back permits that were never used. Call it at a clean end only, when it is certain.
    pub fn release(&self, now: DateTime<Utc>, lease: Lease) -> Result<()> {
        let mut is_first = true;
        self.change(now, |count| match std::mem::take(&mut is_first) {
            true => count.release(&self.rule, &lease),
            false => count.settle(&self.rule, &lease),
        })
    }

    /// Leases no permit before `until`. A block that lasts longer stays.
    pub fn block(&self, now: DateTime<Utc>, until: DateTime<Utc>) -> Result<()> {
        self.change(now, |count| count.block(until, BlockedBy::Provider)).map(|_| ())
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
            let told = told.map(|until| (until, BlockedBy::Provider));
            let (until, by) = told.unwrap_or_else(|| count.next_chance(&self.rule));
            count.block(until, by)
        })
    }

    /// Puts a ledger right that was written under a wrong clock; `now` is the time as the provider
    /// tells it. What it counted in minutes to come counts as sent now; where it was far behind, so
    /// does what it counted last.
    pub fn correct(&self, now: DateTime<Utc>) -> Result<()> {
        self.change(now, |count| count.correct(now))
    }

    /// The same, and remembers by how much the clock is ahead of the provider's, so that the next
    /// process does not begin by its wrong time.
    pub(super) fn correct_clock(&self, now: DateTime<Utc>, ahead: TimeDelta) -> Result<()> {
        self.change(now, |count| {
            count.correct(now);
            count.clock_ahead_seconds = u64::try_from(ahead.num_seconds()).unwrap_or(0);
        })
    }

    /// Returns by how much the clock was ahead when a provider last told its time.
    pub(super) fn clock_ahead(&self) -> Result<TimeDelta> {
        let Some(bytes) = self.store.read_if_exists(&self.file_name())? else {
            return Ok(TimeDelta::zero());
        };
        let seconds = i64::try_from(self.decode(&bytes)?.clock_ahead_seconds).unwrap_or(0);
        Ok(TimeDelta::try_seconds(seconds).filter(|ahead| *ahead <= KEPT).unwrap_or_default())
    }

    /// Tells whether the file is there. One that is not was never written, or is lost with its count.
    pub fn exists(&self) -> Result<bool> {
        Ok(self.store.exists(&self.file_name())?)
    }

    /// Keeps a copy of a file that is damaged beside it, where there is one. At no moment may there be no
    /// ledger, which would be one of nothing sent.
    pub fn keep_damaged(&self) -> Result<()> {
        if let Some(bytes) = self.store.read_if_exists(&self.file_name())? {
            self.store.write(&format!("{}.damaged", self.file_name()), &bytes)?;
        }
        Ok(())
    }

    /// Begins a new count in place of one that is lost: until then nothing may be sent, since all that
    /// counts now was perhaps sent already. Returns until when, and `None` where no day is counted.
    pub fn begin_anew(&self, now: DateTime<Utc>) -> Result<Option<DateTime<Utc>>> {
        let mut count = Count::new(now);
        let until = self.rule.allowance().map(|_| {
            let all_lapsed = now + EXPIRY + BUCKET + ROLLING;
            match self.rule.day.next_reset(now) {
                Some(reset) => count.block(reset, BlockedBy::Reset),
                None => count.block(all_lapsed, BlockedBy::OldestRequest),
            }
        });
        let bytes = self.encode(count)?;
        self.store.update(&self.file_name(), |_| Ok((Some(bytes.clone()), until)))
    }

    /// Reads `bytes` as this ledger, asks and tells it at `now` all that a run does, and returns what
    /// would be stored then. Touches no disk.
    #[cfg(any(test, fuzzing))]
    pub fn try_out(&self, bytes: &[u8], now: DateTime<Utc>, demand: Demand) -> Result<Vec<u8>> {
        let mut count = self.decode(bytes)?;
        count.advance_to(now);
        let _ = (count.outlook(&self.rule), self.forecast_by(&count, demand));
        for permits in [1, 3] {
            match count.lease(&self.rule, permits, None) {
                Ok(lease) => count.release(&self.rule, &lease),
                Err(not_now) => drop(count.lease(&self.rule, permits, not_now.ticket)),
            }
        }
        count.set_used(5);
        let (until, by) = count.next_chance(&self.rule);
        count.block(until, by);
        count.correct(now - BUCKET);
        let _ = count.budget(&self.rule);
        serde_json::to_vec(&stored::Stored::V1 { group: self.group.clone(), count })
            .map_err(super::Error::Encode)
    }

    fn file_name(&self) -> String {
        format!("{}.json", self.file)
    }

    fn change<T>(&self, now: DateTime<Utc>, mut change: impl FnMut(&mut Count) -> T) -> Result<T> {
        self.store.update(&self.file_name(), |bytes| {
            let before = self.count(bytes, now)?;
            let mut count = before.clone();
            let outcome = change(&mut count);
            let after = (count != before).then(|| self.encode(count)).transpose()?;
            Ok((after, outcome))
        })
    }

    fn load(&self, now: DateTime<Utc>) -> Result<Count> {
        self.count(self.store.read_if_exists(&self.file_name())?, now)
    }

    /// Returns what a file counts at `now`; one that is not there counts nothing.
    fn count(&self, bytes: Option<Bytes>, now: DateTime<Utc>) -> Result<Count> {
        let mut count = match bytes {
            Some(bytes) => self.decode(&bytes)?,
            None => Count::new(now),
        };
        count.advance_to(now);
        Ok(count)
    }
}

/// Returns from when on a request leased at `instant` counts no more against a rolling day.
pub(super) fn counts_until(instant: DateTime<Utc>) -> DateTime<Utc> {
    minute_of(instant + EXPIRY) + BUCKET + ROLLING
}

fn minute_of(instant: DateTime<Utc>) -> DateTime<Utc> {
    // Only an instant far outside of any calendar cannot be rounded.
    instant.duration_trunc(BUCKET).unwrap_or(instant)
}

#[cfg(test)]
mod tests;
