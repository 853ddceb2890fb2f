//! Permits that a ledger has leased, and why it leases none.

use chrono::DateTime;
use chrono::Utc;

use super::USABLE;
use crate::quota::Cause;
use crate::quota::pace::Places;

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
    pub(super) counted_in: DateTime<Utc>,
    /// Their places in the rate, where that lies in the ledger.
    pub(super) places: Option<Places>,
}

impl Lease {
    /// Returns ledger time as of when it was leased.
    pub(in crate::quota) fn leased_at(&self) -> DateTime<Utc> {
        self.usable_until - USABLE
    }

    /// Returns when the rate lets the next request go: `now` where it does not lie in the ledger;
    /// `None` where its place has lapsed, and the lease must be exchanged for another.
    pub(in crate::quota) fn due(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.places.as_ref().map_or(Some(now), |places| places.next(now))
    }

    /// Uses up a permit, with its place.
    pub(in crate::quota) fn advance(&mut self) {
        self.permits = self.permits.saturating_sub(1);
        self.is_try = false;
        if let Some(places) = &mut self.places {
            places.advance();
        }
    }
}

/// What a process had of the ledger when it asked last.
#[derive(Debug, Default)]
pub(in crate::quota) struct Before {
    /// Its lease.
    pub(in crate::quota) lease: Option<Lease>,
    /// Its turn in the rate.
    pub(in crate::quota) ticket: Option<u64>,
}

/// No permit was leased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::quota) struct NotNow {
    /// Why.
    pub(in crate::quota) shortage: Shortage,
    /// What to say the next time, to keep the turn.
    pub(in crate::quota) ticket: Option<u64>,
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
