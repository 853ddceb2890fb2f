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

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
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
use super::forecast;
use super::forecast::Demand;
use super::forecast::Forecast;
use super::forecast::Position;
use super::pace;
use super::pace::Pace;
use super::pace::Places;
use super::rule::Day;
use super::rule::Rule;
use crate::calendar;
use crate::seal;
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
/// A ledger that nobody wrote for longer may be asked under another clock than before.
const ASLEEP: TimeDelta = TimeDelta::minutes(2);
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

/// What is left of a day, and what comes back when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlook {
    /// What is left now.
    pub budget: Budget,
    /// Why nothing may be sent before `blocked_until`, where that is known.
    pub blocked_by: Option<BlockedBy>,
    /// Those of the requests used that [`Ledger::set_used`] told of.
    pub set_by_hand: u32,
    /// The hours in which permits come free, in order; empty where there is no limit.
    pub frees: Vec<Freed>,
}

/// Permits that come free within an hour, or at the reset of a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freed {
    /// The hour's start, or the reset.
    pub from: DateTime<Utc>,
    /// How many come free.
    pub permits: u32,
    /// How many are left at its end, if none is used.
    pub left: u32,
}

/// What tells when a provider that said "used up" may be asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockedBy {
    /// The provider said when.
    Provider,
    /// The day's reset.
    Reset,
    /// Our oldest request, 24 hours after it.
    OldestRequest,
    /// Nothing: it is tried once an hour.
    HourlyTry,
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
    /// Whether the next request is the first since a block ended, or since the ledger was left alone with
    /// something counted: it goes alone, and its answer tells whether the quota is free again, and
    /// whether the clock is right.
    pub is_try: bool,
    counted_in: DateTime<Utc>,
    /// Their places in the rate, where that lies in the ledger.
    places: Option<Places>,
}

impl Lease {
    /// Returns ledger time as of when it was leased.
    pub(super) fn leased_at(&self) -> DateTime<Utc> {
        self.usable_until - USABLE
    }

    /// Returns when the rate lets the next request go: `now` where it does not lie in the ledger;
    /// `None` where its place has lapsed, and the lease must be exchanged for another.
    pub(super) fn due(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.places.as_ref().map_or(Some(now), |places| places.next(now))
    }

    /// Uses up a permit, with its place.
    pub(super) fn advance(&mut self) {
        self.permits = self.permits.saturating_sub(1);
        self.is_try = false;
        if let Some(places) = &mut self.places {
            places.advance();
        }
    }
}

/// What a process had of the ledger when it asked last.
#[derive(Debug, Default)]
pub(super) struct Before {
    /// Its lease.
    pub(super) lease: Option<Lease>,
    /// Its turn in the rate.
    pub(super) ticket: Option<u64>,
}

/// No permit was leased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotNow {
    /// Why.
    pub(super) shortage: Shortage,
    /// What to say the next time, to keep the turn.
    pub(super) ticket: Option<u64>,
}

impl From<Shortage> for NotNow {
    fn from(shortage: Shortage) -> Self {
        Self { shortage, ticket: None }
    }
}

/// Why no permit was leased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortage {
    /// When to ask again, or `None` where it is of no use.
    /// For the rate, this is an instant of the clock of whoever asked; else of ledger time.
    pub until: Option<DateTime<Utc>>,
    /// What stands in the way.
    pub cause: Cause,
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
        serde_json::to_vec(&Stored::V1 { group: self.group.clone(), count }).map_err(Error::Encode)
    }

    fn file_name(&self) -> String {
        format!("{}.json", self.file)
    }

    fn encode(&self, count: Count) -> Result<Vec<u8>> {
        let stored = Stored::V1 { group: self.group.clone(), count };
        Ok(seal::seal(&serde_json::to_vec(&stored).map_err(Error::Encode)?))
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

    fn decode(&self, bytes: &[u8]) -> Result<Count> {
        let damaged = |source| Error::Damaged { path: self.path(), source };
        if seal::is_broken(bytes) {
            return Err(damaged(serde::de::Error::custom("its seal is broken")));
        }
        let Tag { version } = serde_json::from_slice(bytes).map_err(damaged)?;
        if version != "1" {
            return Err(Error::NewerVersion { path: self.path(), version });
        }
        let Stored::V1 { count, .. } = calendar::read(bytes).map_err(damaged)?;
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
    /// Those of them that we were told of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    elsewhere: Option<Elsewhere>,
    /// What is taken of the rate, where processes share it. An older version drops it, and with it no
    /// more than the rate of a moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pace: Option<Pace>,
    /// By how much the clock was ahead of the provider's, where that is far.
    #[serde(default, skip_serializing_if = "is_zero")]
    clock_ahead_seconds: u64,
    /// The clock of whoever asks, which ledger time may be ahead of.
    #[serde(skip)]
    now: DateTime<Utc>,
    /// Ledger time before it was moved to the clock of whoever asks.
    #[serde(skip)]
    before: DateTime<Utc>,
    /// Whether nobody wrote it for a while.
    #[serde(skip)]
    slept: bool,
}

/// The last time the provider said that the day is used up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Blocked {
    until: DateTime<Utc>,
    /// Permits leased since the block ended.
    leased_since: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by: Option<BlockedBy>,
}

/// Requests of others that we were told of. An older version drops this, and they count all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Elsewhere {
    counted_in: DateTime<Utc>,
    requests: u32,
}

impl Count {
    fn new(now: DateTime<Utc>) -> Self {
        Self {
            latest: now,
            blocked: None,
            minutes: BTreeMap::new(),
            elsewhere: None,
            pace: None,
            clock_ahead_seconds: 0,
            now,
            before: now,
            slept: false,
        }
    }

    /// Moves ledger time to `now`, never back, and drops the minutes that no day can count.
    fn advance_to(&mut self, now: DateTime<Utc>) {
        self.before = self.latest;
        self.slept = now - self.latest > ASLEEP && !self.minutes.is_empty();
        self.latest = self.latest.max(now);
        let kept_from = self.latest - KEPT;
        self.minutes.retain(|minute, counted| *minute + BUCKET > kept_from && *counted > 0);
        self.elsewhere = self.elsewhere.filter(|told| self.minutes.contains_key(&told.counted_in));
        self.now = now;
        if let Some(pace) = &mut self.pace {
            pace.advance_to(now);
        }
    }

    fn lease(
        &mut self,
        rule: &Rule,
        permits: u32,
        ticket: Option<u64>,
    ) -> std::result::Result<Lease, NotNow> {
        let budget = self.budget(rule);
        if !budget.is_open() {
            let blocked = budget.blocked_until.is_some();
            let cause = if blocked { Cause::Blocked } else { Cause::DayQuota };
            return Err(Shortage { until: budget.next_free, cause }.into());
        }
        let is_unblocked = self.blocked.as_ref().is_some_and(|blocked| blocked.leased_since == 0);
        let is_try = is_unblocked || self.slept;
        let most = if is_unblocked { 1 } else { budget.left.unwrap_or(u32::MAX) };
        let permits = permits.max(1).min(most);
        let places = self.take_places(rule, permits, ticket)?;
        let places_left = |places: &Places| u32::try_from(places.left()).unwrap_or(u32::MAX);
        let permits = places.as_ref().map_or(permits, places_left);
        let counted_in = minute_of(self.latest + EXPIRY);
        let counted = self.minutes.entry(counted_in).or_default();
        *counted = counted.saturating_add(permits);
        if let Some(blocked) = &mut self.blocked {
            blocked.leased_since = blocked.leased_since.saturating_add(permits);
        }
        Ok(Lease { permits, usable_until: self.latest + USABLE, is_try, counted_in, places })
    }

    /// Takes places for up to `permits` requests, where the rate lies in the ledger.
    fn take_places(
        &mut self,
        rule: &Rule,
        permits: u32,
        ticket: Option<u64>,
    ) -> std::result::Result<Option<Places>, NotNow> {
        if !pace::is_shared(rule.rate) {
            return Ok(None);
        }
        let now = self.now;
        let pace = self.pace.get_or_insert_with(|| Pace::new(now));
        let taken = pace.take(rule.rate, permits, ticket);
        taken.map(Some).map_err(|later| NotNow {
            shortage: Shortage { until: Some(now + later.wait), cause: Cause::Rate },
            ticket: Some(later.ticket),
        })
    }

    fn correct(&mut self, now: DateTime<Utc>) {
        let ahead = self.latest - now;
        if ahead > TimeDelta::zero() {
            self.latest = now;
            self.count_as_sent_now(minute_of(now + EXPIRY));
            if let Some(blocked) = &mut self.blocked {
                blocked.until -= ahead;
            }
        } else if self.slept {
            // It was behind: what was leased in its last minute was sent just now.
            self.count_as_sent_now(minute_of(self.before));
        }
    }

    /// Counts in the newest minute what is counted in minutes from `from` on.
    fn count_as_sent_now(&mut self, from: DateTime<Utc>) {
        let newest = minute_of(self.latest + EXPIRY);
        let moved = self.minutes.split_off(&from);
        if !moved.is_empty() {
            let counted = moved.values().fold(0, |sum: u32, counted| sum.saturating_add(*counted));
            self.minutes.insert(newest, counted);
        }
        if let Some(told) = self.elsewhere.as_mut().filter(|told| told.counted_in >= from) {
            told.counted_in = newest;
        }
    }

    /// Notes that nothing more will be sent by this lease.
    fn settle(&mut self, rule: &Rule, lease: &Lease) {
        if let (Some(pace), Some(places)) = (&mut self.pace, &lease.places) {
            pace.settle(rule.rate, places);
        }
    }

    fn release(&mut self, rule: &Rule, lease: &Lease) {
        self.settle(rule, lease);
        if let Some(counted) = self.minutes.get_mut(&lease.counted_in) {
            *counted = counted.saturating_sub(lease.permits);
        }
        if let Some(blocked) = &mut self.blocked {
            blocked.leased_since = blocked.leased_since.saturating_sub(lease.permits);
        }
    }

    fn set_used(&mut self, requests: u32) {
        if let Some(told) = self.elsewhere.take()
            && let Some(counted) = self.minutes.get_mut(&told.counted_in)
        {
            *counted = counted.saturating_sub(told.requests);
        }
        if requests > 0 {
            let counted_in = minute_of(self.latest + EXPIRY);
            let counted = self.minutes.entry(counted_in).or_default();
            *counted = counted.saturating_add(requests);
            self.elsewhere = Some(Elsewhere { counted_in, requests });
        }
    }

    fn block(&mut self, until: DateTime<Utc>, by: BlockedBy) -> DateTime<Utc> {
        let longer = self.blocked.as_ref().filter(|blocked| blocked.until > until);
        let longer = longer.map(|blocked| (blocked.until, blocked.by));
        let (until, by) = longer.unwrap_or((until, Some(by)));
        self.blocked = Some(Blocked { until, leased_since: 0, by });
        until
    }

    fn blocked_until(&self) -> Option<DateTime<Utc>> {
        self.blocked.as_ref().map(|blocked| blocked.until).filter(|until| *until > self.latest)
    }

    fn next_chance(&self, rule: &Rule) -> (DateTime<Utc>, BlockedBy) {
        if let Some(reset) = rule.day.next_reset(self.latest) {
            return (reset, BlockedBy::Reset);
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
            Some(minute) if !refused_again => (minute + BUCKET + ROLLING, BlockedBy::OldestRequest),
            _ => (self.latest + TRY_EVERY, BlockedBy::HourlyTry),
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

    fn outlook(&self, rule: &Rule) -> Outlook {
        let budget = self.budget(rule);
        let blocked = self.blocked.as_ref().filter(|_| budget.blocked_until.is_some());
        let counts_from = rule.day.counts_from(self.latest);
        let told = self.elsewhere.filter(|told| told.counted_in + BUCKET > counts_from);
        Outlook {
            blocked_by: blocked.and_then(|blocked| blocked.by),
            set_by_hand: told.map_or(0, |told| told.requests),
            frees: budget.left.map_or_else(Vec::new, |left| self.frees(rule, left)),
            budget,
        }
    }

    /// Returns the hours in which permits come free, of which `left` are left now.
    fn frees(&self, rule: &Rule, left: u32) -> Vec<Freed> {
        if let Some(reset) = rule.day.next_reset(self.latest) {
            let mut then = self.clone();
            then.latest = reset;
            let left_then = then.budget(rule).left.unwrap_or_default();
            let permits = left_then.saturating_sub(left);
            let freed = Freed { from: reset, permits, left: left_then };
            return if permits > 0 { vec![freed] } else { Vec::new() };
        }
        let allowance = u64::from(rule.allowance().unwrap_or_default());
        let (mut used, mut left) = (self.used(rule.day), left);
        let mut hours: Vec<Freed> = Vec::new();
        for (minute, counted) in self.counted(rule.day) {
            used -= u64::from(counted);
            let left_then = u32::try_from(allowance.saturating_sub(used)).unwrap_or(u32::MAX);
            let permits = left_then.saturating_sub(left);
            left = left.max(left_then);
            let from = hour_of(minute + BUCKET + ROLLING);
            match hours.last_mut().filter(|hour| hour.from == from) {
                Some(hour) => (hour.permits, hour.left) = (hour.permits + permits, left),
                None if permits > 0 => hours.push(Freed { from, permits, left }),
                None => {}
            }
        }
        hours
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

fn hour_of(instant: DateTime<Utc>) -> DateTime<Utc> {
    instant.duration_trunc(TimeDelta::hours(1)).unwrap_or(instant)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Returns from when on a request leased at `instant` counts no more against a rolling day.
pub(super) fn counts_until(instant: DateTime<Utc>) -> DateTime<Utc> {
    minute_of(instant + EXPIRY) + BUCKET + ROLLING
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

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use chrono::NaiveTime;
    use proptest::prelude::*;

    use super::*;
    use crate::quota::Rate;
    use crate::quota::Reserve;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn rule(per_day: u32) -> Rule {
        Rule {
            rate: Rate { permits: NonZeroU32::MIN, per: TimeDelta::milliseconds(1) },
            per_day: Some(per_day),
            at_once: NonZeroU32::new(2).unwrap(),
            reserve: Reserve::Requests(0),
            day: Day::Rolling,
        }
    }

    fn ledger(rule: Rule) -> (tempfile::TempDir, Ledger) {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(Store::open(folder.path().join("ledger")), "acme", rule);
        (folder, ledger)
    }

    #[test]
    fn a_request_counts_until_its_minute_lies_a_day_back() {
        let (_folder, ledger) = ledger(rule(1));
        let start = at("2026-03-01T02:00:30Z");
        let lease = ledger.lease(start, 5).unwrap().unwrap();
        assert_eq!(lease.permits, 1);
        // Counted at 02:01:30, so until the end of that minute a day later.
        let free = at("2026-03-02T02:02:00Z");
        let short = Shortage { until: Some(free), cause: Cause::DayQuota };
        let just_before = free - TimeDelta::milliseconds(1);
        assert_eq!(ledger.lease(just_before, 1).unwrap(), Err(short));
        assert!(ledger.lease(free, 1).unwrap().is_ok());
    }

    #[test]
    fn a_clock_that_is_put_back_frees_nothing_and_stops_ledger_time() {
        let (_folder, ledger) = ledger(rule(2));
        let start = at("2026-03-01T02:00:00Z");
        assert!(ledger.lease(start, 1).unwrap().is_ok());
        let back = start - TimeDelta::days(3);
        let lease = ledger.lease(back, 1).unwrap().unwrap();
        assert_eq!(lease.usable_until, start + USABLE);
        assert_eq!(ledger.state(back).unwrap().left, Some(0));
    }

    #[test]
    fn a_clock_that_jumped_ahead_is_put_right_without_losing_a_count() {
        let (_folder, ledger) = ledger(rule(10));
        let start = at("2026-03-01T02:00:00Z");
        let _ = ledger.lease(start, 4).unwrap().unwrap();
        let ahead = start + TimeDelta::hours(30);
        let _ = ledger.lease(ahead, 5).unwrap().unwrap();
        ledger.block(ahead, ahead + TimeDelta::hours(1)).unwrap();
        let now = start + TimeDelta::minutes(10);
        ledger.correct(now).unwrap();
        let budget = ledger.state(now).unwrap();
        assert_eq!((budget.used, budget.left), (9, Some(1)));
        assert_eq!(budget.blocked_until, Some(now + TimeDelta::hours(1)));
        // A ledger that is not off stays as it is.
        ledger.correct(now + TimeDelta::minutes(1)).unwrap();
        assert_eq!(ledger.state(now).unwrap(), budget);
    }

    #[test]
    fn what_was_sent_under_a_clock_that_was_behind_counts_from_when_it_really_was() {
        let (_folder, ledger) = ledger(rule(10));
        let start = at("2026-03-01T02:00:00Z");
        let _ = ledger.lease(start, 4).unwrap().unwrap();
        // Ten minutes later by our clock are five hours by the provider's.
        let _ = ledger.lease(start + TimeDelta::minutes(10), 3).unwrap().unwrap();
        let now = start + TimeDelta::hours(5);
        ledger.correct(now).unwrap();
        let used = |after| ledger.state(now + after).unwrap().used;
        assert_eq!(used(TimeDelta::zero()), 7);
        assert_eq!(used(TimeDelta::hours(20)), 3);
        assert_eq!(used(TimeDelta::hours(24)), 3);
        assert_eq!(used(TimeDelta::hours(24) + TimeDelta::minutes(2)), 0);
    }

    #[test]
    fn the_first_request_after_a_pause_goes_alone() {
        let (_folder, ledger) = ledger(rule(10));
        let start = at("2026-03-01T02:00:00Z");
        let lease =
            |minutes| ledger.lease(start + TimeDelta::minutes(minutes), 2).unwrap().unwrap();
        for (minutes, alone) in [(0, false), (1, false), (9, true), (10, false)] {
            let mut leased = lease(minutes);
            assert_eq!((leased.is_try, leased.permits), (alone, 2), "{minutes}");
            leased.advance();
            assert!(!leased.is_try);
        }
    }

    #[test]
    fn what_is_given_back_may_be_leased_again() {
        let (_folder, ledger) = ledger(rule(5));
        let start = at("2026-03-01T02:00:00Z");
        let lease = ledger.lease(start, 5).unwrap().unwrap();
        ledger.release(start, Lease { permits: 3, ..lease }).unwrap();
        let budget = ledger.state(start).unwrap();
        assert_eq!((budget.used, budget.left), (2, Some(3)));
    }

    #[test]
    fn handles_share_a_group_and_groups_share_nothing() {
        let (_folder, ledger) = ledger(rule(3));
        let start = at("2026-03-01T02:00:00Z");
        let same = Ledger::open(ledger.store.clone(), "acme", rule(3));
        let other = Ledger::open(ledger.store.clone(), "Acme", rule(3));
        let _ = ledger.lease(start, 1).unwrap().unwrap();
        let _ = same.lease(start, 1).unwrap().unwrap();
        assert_eq!(ledger.state(start).unwrap().left, Some(1));
        assert_eq!(other.state(start).unwrap().left, Some(3));
    }

    #[test]
    fn handles_that_lease_at_the_same_time_lease_no_more_than_there_is() {
        let (_folder, ledger) = ledger(rule(10));
        let start = at("2026-03-01T02:00:00Z");
        let lease = || (0..10).filter(|_| ledger.lease(start, 1).unwrap().is_ok()).count();
        let leased: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..3).map(|_| scope.spawn(lease)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(leased, 10);
    }

    #[test]
    fn a_fixed_day_counts_from_its_reset_over_a_change_of_the_clocks() {
        let time = NaiveTime::from_hms_opt(0, 0, 0).unwrap();
        let day = Day::ResetsAt { time, zone: "America/New_York".parse().unwrap() };
        for (spend, reset) in [
            ("2026-03-08T05:10:00Z", "2026-03-09T04:00:00Z"),
            ("2026-11-01T04:10:00Z", "2026-11-02T05:00:00Z"),
        ] {
            let (_folder, ledger) = ledger(Rule { day, ..rule(1) });
            let reset = at(reset);
            let _ = ledger.lease(at(spend), 1).unwrap().unwrap();
            let short = Shortage { until: Some(reset), cause: Cause::DayQuota };
            assert_eq!(ledger.lease(reset - TimeDelta::seconds(1), 1).unwrap(), Err(short));
            assert!(ledger.lease(reset, 1).unwrap().is_ok());
        }
    }

    #[test]
    fn a_request_leased_just_before_the_reset_counts_in_both_days() {
        let day = Day::ResetsAt { time: NaiveTime::MIN, zone: "UTC".parse().unwrap() };
        let (_folder, ledger) = ledger(Rule { day, ..rule(1) });
        let _ = ledger.lease(at("2026-03-01T23:59:30Z"), 1).unwrap().unwrap();
        assert_eq!(ledger.state(at("2026-03-02T00:00:00Z")).unwrap().left, Some(0));
    }

    #[test]
    fn used_up_is_believed_for_as_long_as_can_be_known() {
        let start = at("2026-03-01T02:00:00Z");
        let later = start + TimeDelta::hours(3);
        let (_folder, rolling) = ledger(rule(100));
        let _ = rolling.lease(start, 1).unwrap().unwrap();
        let oldest = at("2026-03-02T02:02:00Z");
        assert_eq!(rolling.used_up(later, None).unwrap(), oldest);
        // A block is never made shorter, but may become longer.
        let told = oldest + TimeDelta::hours(1);
        assert_eq!(rolling.used_up(later, Some(told)).unwrap(), told);
        assert_eq!(rolling.used_up(later, Some(later)).unwrap(), told);
        assert_eq!(rolling.state(later).unwrap().next_free, Some(told));
        let short = Shortage { until: Some(told), cause: Cause::Blocked };
        assert_eq!(rolling.lease(later, 1).unwrap(), Err(short));

        let day = Day::ResetsAt { time: NaiveTime::MIN, zone: "UTC".parse().unwrap() };
        let (_folder, fixed) = ledger(Rule { day, ..rule(100) });
        let _ = fixed.lease(start, 1).unwrap().unwrap();
        assert_eq!(fixed.used_up(later, None).unwrap(), at("2026-03-02T00:00:00Z"));
    }

    #[test]
    fn what_others_sent_counts_for_a_day_from_when_it_is_told_and_can_be_told_anew() {
        let (_folder, ledger) = ledger(rule(100));
        let start = at("2026-03-01T02:00:00Z");
        let _ = ledger.lease(start, 5).unwrap().unwrap();
        let later = start + TimeDelta::hours(3);
        ledger.set_used(later, 90).unwrap();
        assert_eq!(ledger.state(later).unwrap().left, Some(5));
        ledger.set_used(later + TimeDelta::hours(1), 40).unwrap();
        let outlook = ledger.outlook(later + TimeDelta::hours(1)).unwrap();
        assert_eq!((outlook.budget.used, outlook.set_by_hand), (45, 40));
        let freed = |from, permits, left| Freed { from: at(from), permits, left };
        let expected =
            [freed("2026-03-02T02:00:00Z", 5, 60), freed("2026-03-02T06:00:00Z", 40, 100)];
        assert_eq!(outlook.frees, expected);
        ledger.set_used(later, 0).unwrap();
        assert_eq!(ledger.state(later).unwrap().used, 5);
    }

    #[test]
    fn what_others_sent_is_taken_back_also_after_the_clock_was_put_right() {
        let (_folder, ledger) = ledger(rule(100));
        let start = at("2026-03-01T02:00:00Z");
        ledger.set_used(start + TimeDelta::hours(30), 40).unwrap();
        ledger.correct(start).unwrap();
        assert_eq!(ledger.outlook(start).unwrap().set_by_hand, 40);
        ledger.set_used(start, 0).unwrap();
        assert_eq!(ledger.state(start).unwrap().used, 0);
    }

    #[test]
    fn an_hour_holds_all_that_comes_free_in_it_and_a_reset_everything() {
        let spend = |rule| {
            let (folder, ledger) = ledger(rule);
            for minutes in [0, 10, 20, 70] {
                let at = at("2026-03-01T02:30:00Z") + TimeDelta::minutes(minutes);
                let _ = ledger.lease(at, 4).unwrap();
            }
            (folder, ledger.outlook(at("2026-03-01T05:00:00Z")).unwrap())
        };
        let (_folder, rolling) = spend(rule(14));
        let freed = |from, permits, left| Freed { from: at(from), permits, left };
        let expected =
            [freed("2026-03-02T02:00:00Z", 12, 12), freed("2026-03-02T03:00:00Z", 2, 14)];
        assert_eq!(rolling.frees, expected);
        let day = Day::ResetsAt { time: NaiveTime::MIN, zone: "Asia/Kolkata".parse().unwrap() };
        let (_folder, fixed) = spend(Rule { day, ..rule(14) });
        assert_eq!(fixed.frees, [freed("2026-03-01T18:30:00Z", 14, 14)]);
        let unlimited = Rule { per_day: None, ..rule(14) };
        assert_eq!(spend(unlimited).1.frees, []);
    }

    #[test]
    fn a_block_says_what_it_goes_by() {
        let start = at("2026-03-01T02:00:00Z");
        let later = start + TimeDelta::hours(3);
        let by = |day, retry_after| {
            let (_folder, ledger) = ledger(Rule { day, ..rule(100) });
            let _ = ledger.lease(start, 50).unwrap().unwrap();
            ledger.used_up(later, retry_after).unwrap();
            ledger.outlook(later).unwrap().blocked_by
        };
        let fixed = Day::ResetsAt { time: NaiveTime::MIN, zone: "UTC".parse().unwrap() };
        assert_eq!(by(Day::Rolling, None), Some(BlockedBy::OldestRequest));
        assert_eq!(by(fixed, None), Some(BlockedBy::Reset));
        assert_eq!(by(fixed, Some(later + TimeDelta::hours(1))), Some(BlockedBy::Provider));
    }

    #[test]
    fn a_quota_that_others_used_up_is_tried_once_an_hour() {
        let (_folder, ledger) = ledger(rule(100));
        let mut now = at("2026-03-01T02:00:00Z");
        for _ in 0..5 {
            let _ = ledger.lease(now, 1).unwrap().unwrap();
            let until = ledger.used_up(now, None).unwrap();
            assert_eq!(until, now + TRY_EVERY);
            now = until;
        }
    }

    #[test]
    fn a_ledger_that_cannot_be_understood_is_an_error_that_names_the_file() {
        let (_folder, ledger) = ledger(rule(100));
        let now = at("2026-03-01T02:00:00Z");
        ledger.store.write("acme.json", b"{\"version\": \"2\"}").unwrap();
        let error = ledger.lease(now, 1).unwrap_err();
        assert!(matches!(&error, Error::NewerVersion { version, .. } if version == "2"));
        ledger.store.write("acme.json", b"{\"version\": \"1\", \"latest\": 5}").unwrap();
        let error = ledger.state(now).unwrap_err();
        assert!(matches!(&error, Error::Damaged { path, .. } if *path == ledger.path()));
        assert!(error.hint().unwrap().contains("acme.json"));
    }

    #[test]
    fn a_count_that_was_lost_begins_anew_and_lets_nothing_go_before_all_has_lapsed() {
        let now = at("2026-11-02T10:00:30Z");
        let (_folder, lost) = ledger(rule(100));
        assert_eq!(lost.lease(now, 40).unwrap().unwrap().permits, 40);
        std::fs::remove_file(lost.path()).unwrap();
        assert!(!lost.exists().unwrap());
        let until = lost.begin_anew(now).unwrap().unwrap();
        assert!(lost.exists().unwrap() && until >= now + ROLLING);
        assert!(lost.lease(until - TimeDelta::seconds(1), 1).unwrap().is_err());
        assert!(lost.lease(until, 1).unwrap().is_ok());
    }

    #[test]
    fn a_flipped_digit_is_damage() {
        let now = at("2026-11-02T10:00:30Z");
        let (_folder, ledger) = ledger(rule(100));
        assert_eq!(ledger.lease(now, 40).unwrap().unwrap().permits, 40);
        let text = std::fs::read_to_string(ledger.path()).unwrap();
        assert!(text.contains(":40"));
        std::fs::write(ledger.path(), text.replace(":40", ":00")).unwrap();
        assert!(matches!(ledger.state(now), Err(Error::Damaged { .. })));
    }

    #[test]
    fn version_1_is_read() {
        let (_folder, ledger) = ledger(rule(100));
        let stored = br#"{
            "version": "1", "group": "acme", "latest": "2026-03-01T02:00:10Z",
            "blocked": {"until": "2026-03-01T03:00:00Z", "leased_since": 0},
            "minutes": {"2026-03-01T01:07:00Z": 7, "2026-03-01T02:01:00Z": 2}
        }"#;
        ledger.store.write("acme.json", stored).unwrap();
        let budget = ledger.state(at("2026-03-01T02:00:20Z")).unwrap();
        assert_eq!((budget.used, budget.left), (9, Some(91)));
        assert_eq!(budget.blocked_until, Some(at("2026-03-01T03:00:00Z")));
    }

    #[test]
    fn no_two_groups_share_a_file() {
        let long = "x".repeat(300);
        let groups = ["", "%", "a", "A", "a/b", "a%2fb", "../a", ".", long.as_str()];
        let mut names: Vec<String> = groups.iter().map(|group| file_name(group)).collect();
        assert!(names.iter().all(|name| !name.contains(['/', '.']) && name.len() <= 128));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), groups.len());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Lease(u32),
        Use(u32),
        Wait(i64),
        WaitUntilFree(i64),
        PutBack(i64),
        Crash,
        Release,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (1_u32..9).prop_map(Step::Lease),
            6 => (1_u32..9).prop_map(Step::Use),
            4 => (1_i64..90).prop_map(Step::Wait),
            3 => (600_i64..40_000).prop_map(Step::Wait),
            4 => (-90_i64..5).prop_map(Step::WaitUntilFree),
            1 => (1_i64..100_000).prop_map(Step::PutBack),
            1 => Just(Step::Crash),
            1 => Just(Step::Release),
        ]
    }

    fn through_the_disk(count: &Count) -> Count {
        let stored = Stored::V1 { group: String::new(), count: count.clone() };
        let bytes = serde_json::to_vec(&stored).unwrap();
        let Stored::V1 { count, .. } = serde_json::from_slice(&bytes).unwrap();
        count
    }

    proptest! {
        /// Time is real time; the ledger sees a clock that is put back now and then.
        #[test]
        fn no_24_hours_hold_more_than_the_allowance(
            allowance in 1_u32..40,
            steps in proptest::collection::vec(step(), 1..400),
        ) {
            let rule = rule(allowance);
            let mut real = at("2026-03-01T02:00:17Z");
            let mut behind = TimeDelta::zero();
            let mut count = Count::new(real);
            let mut lease: Option<Lease> = None;
            let mut sent: Vec<DateTime<Utc>> = Vec::new();
            for step in steps {
                count.advance_to(real - behind);
                match step {
                    Step::Lease(permits) => lease = count.lease(&rule, permits, None).ok(),
                    Step::Use(permits) => {
                        let held = lease.as_mut().filter(|held| count.latest <= held.usable_until);
                        if let Some(held) = held {
                            let used = held.permits.min(permits);
                            held.permits -= used;
                            sent.extend((0..used).map(|_| real));
                        }
                    }
                    Step::Wait(seconds) => real += TimeDelta::seconds(seconds),
                    Step::WaitUntilFree(seconds) => {
                        let free = count.budget(&rule).next_free.unwrap_or(count.latest);
                        let wait = free - (real - behind) + TimeDelta::seconds(seconds);
                        real += wait.max(TimeDelta::zero());
                    }
                    Step::PutBack(seconds) => behind += TimeDelta::seconds(seconds),
                    Step::Crash => {
                        lease = None;
                        count = through_the_disk(&count);
                    }
                    Step::Release => {
                        if let Some(lease) = lease.take() {
                            count.release(&rule, &lease);
                        }
                    }
                }
            }
            let too_many = allowance as usize;
            for (index, first) in sent.iter().enumerate() {
                if let Some(last) = sent.get(index + too_many) {
                    prop_assert!(*last - *first > ROLLING, "{first} to {last}");
                }
            }
        }

        #[test]
        fn what_comes_free_can_be_leased_then_and_not_a_moment_before(
            allowance in 1_u32..20,
            gaps in proptest::collection::vec(0_i64..7_200, 20..60),
        ) {
            let rule = rule(allowance);
            let mut count = Count::new(at("2026-03-01T02:00:17Z"));
            for gap in gaps {
                count.advance_to(count.latest + TimeDelta::seconds(gap));
                if let Err(NotNow { shortage: Shortage { until, .. }, .. }) = count.lease(&rule, 1, None) {
                    let until = until.unwrap();
                    count.advance_to(until - TimeDelta::nanoseconds(1));
                    prop_assert!(count.lease(&rule, 1, None).is_err());
                    count.advance_to(until);
                    prop_assert!(count.lease(&rule, 1, None).is_ok());
                }
            }
        }
    }
}
