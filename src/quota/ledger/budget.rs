//! What is left of a day by a ledger's count, and what comes back when.

use chrono::DateTime;
use chrono::DurationRound;
use chrono::TimeDelta;
use chrono::Utc;
use serde::Deserialize;
use serde::Serialize;

use super::BUCKET;
use super::stored::Count;
use crate::quota::day::ROLLING;
use crate::quota::rule::Day;
use crate::quota::rule::Rule;

/// How often a provider that says "used up" is tried where nothing tells when its day begins.
pub(super) const TRY_EVERY: TimeDelta = TimeDelta::hours(1);

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
    /// Those of the requests used that [`Ledger::set_used`](super::Ledger::set_used) told of.
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

impl Count {
    fn blocked_until(&self) -> Option<DateTime<Utc>> {
        self.blocked.as_ref().map(|blocked| blocked.until).filter(|until| *until > self.latest)
    }

    pub(super) fn next_chance(&self, rule: &Rule) -> (DateTime<Utc>, BlockedBy) {
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

    pub(super) fn budget(&self, rule: &Rule) -> Budget {
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

    pub(super) fn outlook(&self, rule: &Rule) -> Outlook {
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
    pub(super) fn counted(&self, day: Day) -> impl Iterator<Item = (DateTime<Utc>, u32)> {
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
