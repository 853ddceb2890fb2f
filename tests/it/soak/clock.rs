//! A machine's clock that somebody puts back and forward, beside the time that passes.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use leadpipe::clock::Clock;
use leadpipe::clock::ManualClock;

/// Where time leaps by more, requests on their way would be later than a ledger allows for.
const LEAP: TimeDelta = TimeDelta::seconds(5);
/// How long they take to arrive.
const ARRIVAL: Duration = Duration::from_millis(5);

/// What a machine takes for the time.
#[derive(Debug)]
pub(super) struct MachineClock {
    /// The time that passes, which is the provider's.
    time: Arc<ManualClock>,
    ahead: Mutex<TimeDelta>,
}

impl MachineClock {
    /// Returns a clock that is right.
    pub(super) fn new(time: Arc<ManualClock>) -> Self {
        Self { time, ahead: Mutex::default() }
    }

    /// Returns by how much it is ahead of the time.
    pub(super) fn ahead(&self) -> TimeDelta {
        *self.ahead.lock().unwrap()
    }

    /// Puts the clock to so much ahead of the time.
    pub(super) fn put(&self, ahead: TimeDelta) {
        *self.ahead.lock().unwrap() = ahead;
    }

    /// Lets time pass.
    pub(super) fn pass(&self, by: TimeDelta) {
        self.time.advance(by);
    }

    /// Returns the time that it really is.
    pub(super) fn truth(&self) -> DateTime<Utc> {
        self.time.now()
    }
}

#[async_trait]
impl Clock for MachineClock {
    fn now(&self) -> DateTime<Utc> {
        self.truth() + self.ahead()
    }

    async fn sleep_until(&self, deadline: DateTime<Utc>) {
        if deadline - self.now() > LEAP {
            #[expect(
                clippy::disallowed_methods,
                reason = "requests are on their way in real time"
            )]
            tokio::time::sleep(ARRIVAL).await;
        }
        self.time.sleep_until(deadline - self.ahead()).await;
    }
}
