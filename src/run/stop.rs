//! Asks a run to stop: it finishes the requests under way, commits, and ends.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use chrono::TimeDelta;
use tokio::sync::watch;

use super::Ending;
use super::Error;
use super::Result;
use crate::clock::Clock;
use crate::extract::Halt;

/// How long requests under way are awaited. What manages a process gives it ten seconds or more from
/// asking it to end; a run that is asked should have ended after five.
const AWAITED: TimeDelta = TimeDelta::seconds(3);

/// A handle by which a run can be asked to stop. Clones ask the same run.
#[derive(Debug, Clone)]
pub struct Stop {
    halt: Arc<watch::Sender<Halt>>,
    cause: Arc<Mutex<Option<Ending>>>,
}

impl Default for Stop {
    fn default() -> Self {
        Self { halt: Arc::new(watch::Sender::new(Halt::GoOn)), cause: Arc::default() }
    }
}

impl Stop {
    /// Asks the run to stop; the first cause counts. Requests under way are awaited.
    pub fn request(&self, cause: Ending) {
        let mut held = self.cause.lock().unwrap_or_else(PoisonError::into_inner);
        held.get_or_insert(cause);
        self.halt_at_least(Halt::Finish);
    }

    /// Returns three seconds after the run was asked to stop, having told it to let go of the
    /// requests that are still under way.
    pub async fn let_go_in_time(&self, clock: &dyn Clock) {
        self.requested().await;
        clock.sleep_until(clock.now() + AWAITED).await;
        self.halt_at_least(Halt::LetGo);
    }

    /// Returns why the run was asked to stop, if it was.
    pub fn cause(&self) -> Option<Ending> {
        *self.cause.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails where the run was asked to stop.
    pub(super) fn check(&self) -> Result<()> {
        self.cause().map_or(Ok(()), |cause| Err(Error::Stopped(cause)))
    }

    /// Waits until the run was asked to stop, and returns why.
    pub async fn requested(&self) -> Ending {
        let mut halt = self.watch();
        // The sender lives as long as `self`, and says so after the cause is noted.
        let _ = halt.wait_for(|halt| *halt >= Halt::Finish).await;
        self.cause().unwrap_or(Ending::Interrupted)
    }

    pub(super) fn watch(&self) -> watch::Receiver<Halt> {
        self.halt.subscribe()
    }

    fn halt_at_least(&self, asked: Halt) {
        self.halt.send_modify(|halt| *halt = (*halt).max(asked));
    }
}
