//! Ctrl-C and SIGTERM: once stops at the next safe point, twice stops at once. Both are equally resumable.

use crate::failure::ExitCode;
use std::io::Write;
use tokio_util::sync::CancellationToken;

/// A token that is cancelled by the first signal; the second ends the process.
#[must_use]
pub(crate) fn cancel_on_signal() -> CancellationToken {
    let token = CancellationToken::new();
    let signalled = token.clone();
    tokio::spawn(async move {
        if next_signal().await.is_none() {
            return;
        }
        let _ = writeln!(
            std::io::stderr(),
            "stopping at the next safe point; calls under way are finished first (again: stop at once)"
        );
        signalled.cancel();
        if next_signal().await.is_some() {
            stop_at_once();
        }
    });
    token
}

/// The next Ctrl-C or SIGTERM; nothing when the system gives no signals.
pub(crate) async fn next_signal() -> Option<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).ok()?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result.ok(),
        received = terminate.recv() => received,
    }
}

#[expect(clippy::disallowed_methods, reason = "the second signal means now: the journal already holds every intent")]
fn stop_at_once() {
    let _ = writeln!(std::io::stderr(), "stopped at once; go on with platflow resume");
    std::process::exit(i32::from(ExitCode::Interrupted as u8));
}
