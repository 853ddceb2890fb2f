//! Signals ask a run to stop; a second one ends it at once.

use std::io;

use super::exit;
use super::terminal;
use crate::clock::SharedClock;
use crate::run::Ending;
use crate::run::Stop;

/// Makes SIGINT and SIGTERM ask for `stop` from now on.
pub(super) fn watch(stop: Stop, clock: SharedClock) -> io::Result<()> {
    let mut signals = Signals::listen()?;
    tokio::spawn(async move {
        stop.request(signals.next().await);
        terminal::say(
            "stopping: what is under way is finished and committed; again to end at once",
        );
        tokio::spawn(async move { stop.let_go_in_time(&*clock).await });
        let code = match signals.next().await {
            Ending::Terminated => exit::TERMINATED,
            _ => exit::INTERRUPTED,
        };
        std::process::exit(code.into());
    });
    Ok(())
}

/// The signals that end programs, heard from [`Signals::listen`] on.
#[cfg(unix)]
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    pub(super) fn listen() -> io::Result<Self> {
        use tokio::signal::unix::SignalKind;
        use tokio::signal::unix::signal;

        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for one.
    pub(super) async fn next(&mut self) -> Ending {
        tokio::select! {
            _ = self.interrupt.recv() => Ending::Interrupted,
            _ = self.terminate.recv() => Ending::Terminated,
        }
    }
}

/// The signals that end programs, heard from [`Signals::listen`] on.
#[cfg(windows)]
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: tokio::signal::windows::CtrlC,
}

#[cfg(windows)]
impl Signals {
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: tokio::signal::windows::ctrl_c()? })
    }

    /// Waits for one.
    pub(super) async fn next(&mut self) -> Ending {
        let _ = self.interrupt.recv().await;
        Ending::Interrupted
    }
}
