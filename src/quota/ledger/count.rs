//! Counts requests by the minute: leased, given back, told of, and put right where a clock was wrong.

use std::collections::BTreeMap;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;

use super::BUCKET;
use super::EXPIRY;
use super::KEPT;
use super::USABLE;
use super::budget::BlockedBy;
use super::lease::Lease;
use super::lease::NotNow;
use super::lease::Shortage;
use super::minute_of;
use super::stored::Blocked;
use super::stored::Count;
use super::stored::Elsewhere;
use crate::quota::Cause;
use crate::quota::pace;
use crate::quota::pace::Pace;
use crate::quota::pace::Places;
use crate::quota::rule::Rule;

/// A ledger that nobody wrote for longer may be asked under another clock than before.
const ASLEEP: TimeDelta = TimeDelta::minutes(2);

impl Count {
    pub(super) fn new(now: DateTime<Utc>) -> Self {
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
    pub(super) fn advance_to(&mut self, now: DateTime<Utc>) {
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

    pub(super) fn lease(
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

    pub(super) fn correct(&mut self, now: DateTime<Utc>) {
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
    pub(super) fn settle(&mut self, rule: &Rule, lease: &Lease) {
        if let (Some(pace), Some(places)) = (&mut self.pace, &lease.places) {
            pace.settle(rule.rate, places);
        }
    }

    pub(super) fn release(&mut self, rule: &Rule, lease: &Lease) {
        self.settle(rule, lease);
        if let Some(counted) = self.minutes.get_mut(&lease.counted_in) {
            *counted = counted.saturating_sub(lease.permits);
        }
        if let Some(blocked) = &mut self.blocked {
            blocked.leased_since = blocked.leased_since.saturating_sub(lease.permits);
        }
    }

    pub(super) fn set_used(&mut self, requests: u32) {
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

    pub(super) fn block(&mut self, until: DateTime<Utc>, by: BlockedBy) -> DateTime<Utc> {
        let longer = self.blocked.as_ref().filter(|blocked| blocked.until > until);
        let longer = longer.map(|blocked| (blocked.until, blocked.by));
        let (until, by) = longer.unwrap_or((until, Some(by)));
        self.blocked = Some(Blocked { until, leased_since: 0, by });
        until
    }
}
