//! Asks a run to stop: it finishes the requests under way, commits, and ends.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use tokio::sync::watch;

use super::Ending;

/// A handle by which a run can be asked to stop. Clones ask the same run.
#[derive(Debug, Clone)]
pub struct Stop {
    flag: Arc<watch::Sender<bool>>,
    cause: Arc<Mutex<Option<Ending>>>,
}

impl Default for Stop {
    fn default() -> Self {
        Self { flag: Arc::new(watch::Sender::new(false)), cause: Arc::default() }
    }
}

impl Stop {
    /// Asks the run to stop; the first cause counts.
    pub fn request(&self, cause: Ending) {
        let mut held = self.cause.lock().unwrap_or_else(PoisonError::into_inner);
        held.get_or_insert(cause);
        self.flag.send_replace(true);
    }

    /// Returns why the run was asked to stop, if it was.
    pub fn cause(&self) -> Option<Ending> {
        *self.cause.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the run was asked to stop.
    pub async fn requested(&self) {
        let mut flag = self.watch();
        // The sender lives as long as `self`.
        let _ = flag.wait_for(|asked| *asked).await;
    }

    pub(super) fn watch(&self) -> watch::Receiver<bool> {
        self.flag.subscribe()
    }
}
