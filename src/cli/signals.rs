//! Signals ask a run to stop; a second one ends it at once.

use super::exit;
use super::terminal;
use crate::run::Ending;
use crate::run::Stop;

/// Makes SIGINT and SIGTERM ask for `stop` from now on.
pub(super) fn watch(stop: Stop) {
    tokio::spawn(async move {
        stop.request(next().await);
        terminal::say(
            "stopping: what is under way is finished and committed; again to end at once",
        );
        let code = match next().await {
            Ending::Terminated => exit::TERMINATED,
            _ => exit::INTERRUPTED,
        };
        std::process::exit(code.into());
    });
}

/// Waits for a signal that ends programs.
#[cfg(unix)]
pub(super) async fn next() -> Ending {
    use tokio::signal::unix::SignalKind;
    use tokio::signal::unix::signal;

    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => signal.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = interrupt() => Ending::Interrupted,
        _ = terminated => Ending::Terminated,
    }
}

/// Waits for a signal that ends programs.
#[cfg(not(unix))]
pub(super) async fn next() -> Ending {
    interrupt().await;
    Ending::Interrupted
}

async fn interrupt() {
    // Where signals cannot be heard, the operating system ends the program.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
