//! Ctrl-C and SIGTERM: once stops at the next safe point, twice stops at once. Both are equally resumable.

use crate::failure::ExitCode;
use std::io::Write;
use tokio::signal::unix::{Signal, SignalKind};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled by the first signal; the second ends the process.
#[must_use]
pub(crate) fn cancel_on_signal() -> CancellationToken {
    let token = CancellationToken::new();
    let signalled = token.clone();
    tokio::spawn(async move {
        // One listener for both: a second signal right after the first is not lost between two of them.
        let Some(mut signals) = Signals::listen() else { return };
        if signals.next().await.is_none() {
            return;
        }
        let _ = writeln!(
            std::io::stderr(),
            "stopping at the next safe point; calls under way are finished first (again: stop at once)"
        );
        signalled.cancel();
        if signals.next().await.is_some() {
            stop_at_once();
        }
    });
    token
}

/// Ctrl-C and SIGTERM from the moment on that this was made: neither ends the process by itself any more.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Begins to listen; nothing when the system gives no signals.
    pub(crate) fn listen() -> Option<Self> {
        let of = |kind| tokio::signal::unix::signal(kind).ok();
        Some(Self { interrupt: of(SignalKind::interrupt())?, terminate: of(SignalKind::terminate())? })
    }

    /// The next one.
    pub(crate) async fn next(&mut self) -> Option<()> {
        tokio::select! {
            received = self.interrupt.recv() => received,
            received = self.terminate.recv() => received,
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the second signal means now: the journal already holds every intent")]
fn stop_at_once() {
    let _ = writeln!(std::io::stderr(), "stopped at once; go on with platflow resume");
    std::process::exit(i32::from(ExitCode::Interrupted as u8));
}
