//! The one home of "now" and of waiting.
//!
//! Everything that needs the time is handed a [`Clock`], so that a test or a rehearsal can live
//! through days in milliseconds. Nothing else in the crate calls `Utc::now` or sleeps.

use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

use async_trait::async_trait;
use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;

/// A source of the current time, and a way to wait.
#[async_trait]
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Returns the current instant.
    fn now(&self) -> DateTime<Utc>;

    /// Waits until `deadline`; returns at once where it has passed.
    async fn sleep_until(&self, deadline: DateTime<Utc>);
}

/// Measures real time, which the timeouts of a connection run in whatever the clock says.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Begins to measure.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Returns the time since the start.
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// A clock that can be shared between tasks.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock, shifted by a constant.
#[derive(Debug, Default)]
pub struct SystemClock {
    offset: TimeDelta,
}

impl SystemClock {
    /// Returns a clock that runs `offset` ahead of the machine's.
    pub fn with_offset(offset: TimeDelta) -> Self {
        Self { offset }
    }
}

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        #[expect(clippy::disallowed_methods, reason = "this is the one home of the clock")]
        let now = Utc::now();
        now + self.offset
    }

    async fn sleep_until(&self, deadline: DateTime<Utc>) {
        let left = (deadline - self.now()).to_std().unwrap_or_default();
        #[expect(clippy::disallowed_methods, reason = "this is the one home of waiting")]
        tokio::time::sleep(left).await;
    }
}

/// A clock that moves only when told to, or when somebody waits on it.
#[derive(Debug)]
pub struct ManualClock {
    now: Mutex<DateTime<Utc>>,
}

impl ManualClock {
    /// Returns a clock that stands at `now`.
    pub fn new(now: DateTime<Utc>) -> Self {
        Self { now: Mutex::new(now) }
    }

    /// Moves the clock by `by`, which may be negative.
    pub fn advance(&self, by: TimeDelta) {
        *self.lock() += by;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, DateTime<Utc>> {
        self.now.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> DateTime<Utc> {
        *self.lock()
    }

    /// Moves the clock forward to `deadline`: nobody waits in manual time.
    async fn sleep_until(&self, deadline: DateTime<Utc>) {
        {
            let mut now = self.lock();
            *now = (*now).max(deadline);
        }
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_manual_clock_moves_when_somebody_waits_and_never_back() {
        let start = DateTime::UNIX_EPOCH;
        let clock = ManualClock::new(start);
        clock.sleep_until(start + TimeDelta::hours(2)).await;
        clock.sleep_until(start + TimeDelta::hours(1)).await;
        assert_eq!(clock.now(), start + TimeDelta::hours(2));
    }
}
