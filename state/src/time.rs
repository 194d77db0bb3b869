//! The store's two clocks: real time for what people read, boot time (it counts suspend) for leases.
//!
//! The engine's own clock is a port of its own and never decides who owns a run.

use jiff::Timestamp;
use std::sync::mpsc;
use std::time::Duration;

/// Real time, for `recorded_at` and its like.
#[expect(
    clippy::disallowed_methods,
    reason = "the store stamps rows with the time of their commit; nothing is decided by it"
)]
pub(crate) fn wall_now() -> Timestamp {
    Timestamp::now()
}

/// Milliseconds since boot, suspend included. Two processes of one boot read the same clock.
pub(crate) fn boot_now_ms() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec.saturating_mul(1_000).saturating_add(now.tv_nsec / 1_000_000)
}

/// Returns after `duration` of real time without blocking the caller's executor and without needing its timer.
pub(crate) async fn pause(duration: Duration) {
    let (done, waits) = tokio::sync::oneshot::channel();
    let spawned = std::thread::Builder::new().name("platflow-pause".to_owned()).spawn(move || {
        let (held, never) = mpsc::channel::<()>();
        let _ = never.recv_timeout(duration);
        drop(held);
        let _ = done.send(());
    });
    if spawned.is_ok() {
        let _ = waits.await;
    }
}

/// Blocks a background thread of the store for a moment before it asks a busy file again.
pub(crate) fn back_off(attempt: u32) {
    let (held, never) = mpsc::channel::<()>();
    let _ = never.recv_timeout(Duration::from_millis(u64::from(attempt.min(20)) * 5));
    drop(held);
}
