//! How fast requests may follow each other.
//!
//! A tenth of the rate (at least 1) may go at once, and the rest refills evenly, slowly enough that
//! a full burst and all that refills within a span are no more than the rate: no span of
//! [`Rate::per`], wherever it begins, holds more than [`Rate::permits`].

use std::num::NonZeroU32;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use chrono::DateTime;
use chrono::Utc;
use governor::Quota as Refill;
use governor::RateLimiter;
use governor::clock::Clock as _;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::InMemoryState;
use governor::state::NotKeyed;

use super::rule::Rate;
use crate::clock::SharedClock;

/// Gives leave for one request after another.
#[derive(Debug)]
pub(super) struct Limiter {
    limiter: RateLimiter<NotKeyed, InMemoryState, Elapsed, NoOpMiddleware<Nanos>>,
}

impl Limiter {
    /// Returns a limiter that may let a burst go now.
    pub(super) fn new(rate: Rate, clock: SharedClock) -> Self {
        let limiter = RateLimiter::direct_with_clock(refill(rate), Elapsed::new(clock));
        Self { limiter }
    }

    /// Takes leave for a request to be sent now, or tells how long to wait before asking again.
    pub(super) fn take(&self) -> Result<(), Duration> {
        self.limiter.check().map_err(|not_until| {
            // Never zero, so that a caller's loop always moves on.
            not_until.wait_time_from(self.limiter.clock().now()).max(Duration::from_nanos(1))
        })
    }
}

fn refill(rate: Rate) -> Refill {
    let permits = rate.permits.get();
    let burst = (permits / 10).max(1);
    let per = rate.per.to_std().unwrap_or_default().max(Duration::from_nanos(1));
    // In a span, both ends included, go at most `burst + span / interval`.
    let interval = match permits - burst {
        0 => per + Duration::from_nanos(1),
        // Rounded up to a whole nanosecond.
        refilled => per / refilled + Duration::from_nanos(1),
    };
    let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
    let refill = Refill::with_period(interval);
    refill.unwrap_or(Refill::per_second(NonZeroU32::MIN)).allow_burst(burst)
}

/// The time that has passed on a clock since it was first asked; a clock that is put back stands
/// still for that moment, and then goes on.
#[derive(Debug)]
struct Elapsed {
    clock: SharedClock,
    seen: Mutex<(DateTime<Utc>, Duration)>,
}

impl Elapsed {
    fn new(clock: SharedClock) -> Self {
        let seen = Mutex::new((clock.now(), Duration::ZERO));
        Self { clock, seen }
    }
}

impl governor::clock::Clock for Elapsed {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        let passed = (now - seen.0).to_std().unwrap_or_default();
        *seen = (now, seen.1.saturating_add(passed));
        // 584 years: more than any clock of ours will pass.
        Nanos::new(u64::try_from(seen.1.as_nanos()).unwrap_or(u64::MAX))
    }
}
