//! When the demo is to end: Ctrl-C, SIGTERM, or the terminal went away.

use tokio::signal::unix::{SignalKind, signal};

/// Resolves at the first SIGINT, SIGTERM or SIGHUP.
///
/// # Errors
/// The signals cannot be heard.
pub(crate) fn told_to_stop() -> std::io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
        }
    })
}
