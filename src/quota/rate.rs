//! How fast requests may follow each other.
//!
//! A tenth of the rate (at least 1) may go at once, and the rest refills evenly, slowly enough that
//! a full burst and all that refills within a span are no more than the rate: no span of
//! [`Rate::per`], wherever it begins, holds more than [`Rate::permits`]. [`Bucket`] is that
//! arithmetic; the [`Limiter`] keeps to it within a process, the ledger between processes.

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

/// A century: the limiter counts nanoseconds in 64 bits.
const LONGEST: Duration = Duration::from_hours(24 * 36_525);

/// How a rate is cut into what may go at once and what comes after it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    /// Requests that may go at once.
    pub(super) burst: NonZeroU32,
    /// The time in which leave for one more comes.
    pub(super) interval: Duration,
}

impl Bucket {
    /// Returns the bucket of a rate. In a span, both ends included, go at most
    /// `burst + per / interval` requests.
    pub(super) fn of(rate: Rate) -> Self {
        let permits = rate.permits.get();
        let burst = (permits / 10).max(1);
        let per = rate.per.to_std().unwrap_or_default().clamp(Duration::from_nanos(1), LONGEST);
        let interval = match permits - burst {
            0 => per + Duration::from_nanos(1),
            refilled => {
                let nanos = per.as_nanos().div_ceil(u128::from(refilled));
                Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
            }
        };
        Self { burst: NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN), interval }
    }
}

fn refill(rate: Rate) -> Refill {
    let Bucket { burst, interval } = Bucket::of(rate);
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chrono::TimeDelta;
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Clock;
    use crate::clock::ManualClock;

    fn limiter(permits: u32, per: TimeDelta) -> (Arc<ManualClock>, Limiter) {
        let clock = Arc::new(ManualClock::new(DateTime::UNIX_EPOCH));
        let rate = Rate { permits: NonZeroU32::new(permits).unwrap(), per };
        let limiter = Limiter::new(rate, clock.clone());
        (clock, limiter)
    }

    /// Sends a request as soon as it may go, and returns when that was.
    fn send(clock: &ManualClock, limiter: &Limiter) -> DateTime<Utc> {
        while let Err(wait) = limiter.take() {
            clock.advance(TimeDelta::from_std(wait).unwrap());
        }
        clock.now()
    }

    #[test]
    fn a_tenth_goes_at_once_and_a_minute_takes_the_whole_rate() {
        let (clock, limiter) = limiter(300, TimeDelta::minutes(1));
        let sent: Vec<_> = (0..301).map(|_| send(&clock, &limiter)).collect();
        assert_eq!(sent[29], sent[0]);
        assert!(sent[30] > sent[0]);
        // The last of the rate goes at the very end of the minute, the next one after it.
        assert!(sent[299] - sent[0] <= TimeDelta::minutes(1) + TimeDelta::microseconds(1));
        assert!(sent[300] - sent[0] > TimeDelta::minutes(1));
    }

    #[test]
    fn a_clock_put_back_delays_nobody() {
        let (clock, limiter) = limiter(1, TimeDelta::seconds(1));
        send(&clock, &limiter);
        clock.advance(TimeDelta::hours(-5));
        let before = clock.now();
        assert!(send(&clock, &limiter) - before <= TimeDelta::milliseconds(1_001));
    }

    proptest! {
        #[test]
        fn no_span_holds_more_than_the_rate(
            permits in 1_u32..60,
            per in prop_oneof![Just(1_000_000_i64), Just(1_000_000_000), 1_i64..100_000_000_000],
            pauses in
                proptest::collection::vec(prop_oneof![3 => Just(0_u32), 1 => 0_u32..150], 1..300),
        ) {
            let per = TimeDelta::nanoseconds(per);
            let (clock, limiter) = limiter(permits, per);
            let mut sent = Vec::new();
            for hundredths in pauses {
                clock.advance(per / 100 * i32::try_from(hundredths).unwrap());
                sent.push(send(&clock, &limiter));
            }
            for pair in sent.windows(permits as usize + 1) {
                prop_assert!(pair[permits as usize] - pair[0] > per);
            }
        }
    }
}
