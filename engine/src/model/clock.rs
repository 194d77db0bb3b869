//! A clock that jumps to the next deadline once nothing else can happen. It needs a single-threaded runtime.

use crate::clock::Clock;
use async_trait::async_trait;
use jiff::Timestamp;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};

/// How many turns of the scheduler in a row must pass without a call before time may jump.
const QUIET: usize = 6;
/// How many turns without any progress mean that nothing will ever happen again.
const STUCK: usize = 20_000;

/// Simulated time.
#[derive(Debug)]
pub struct SimulatedClock {
    now_ms: AtomicI64,
    busy: AtomicUsize,
    progress: AtomicU64,
}

/// A call is in flight while this lives.
#[derive(Debug)]
pub struct InFlight<'a>(&'a SimulatedClock);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Default for SimulatedClock {
    fn default() -> Self {
        Self { now_ms: AtomicI64::new(1_800_000_000_000), busy: AtomicUsize::new(0), progress: AtomicU64::new(0) }
    }
}

impl SimulatedClock {
    /// Keeps time from jumping while a call is in flight.
    pub fn in_flight(&self) -> InFlight<'_> {
        self.busy.fetch_add(1, Ordering::SeqCst);
        self.tick();
        InFlight(self)
    }

    /// Something happened.
    pub fn tick(&self) {
        self.progress.fetch_add(1, Ordering::SeqCst);
    }

    /// Returns when nothing has happened for so long that nothing ever will, or when too much has.
    pub async fn stuck(&self, limit: u64) {
        let first = self.progress.load(Ordering::SeqCst);
        let (mut seen, mut turns) = (first, 0);
        while turns < STUCK && seen - first < limit {
            tokio::task::yield_now().await;
            let now = self.progress.load(Ordering::SeqCst);
            turns = if now == seen { turns + 1 } else { 0 };
            seen = now;
        }
    }
}

#[async_trait]
impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.now_ms.load(Ordering::SeqCst)).unwrap_or(Timestamp::MAX)
    }

    async fn sleep_until(&self, deadline: Timestamp) {
        let mut quiet = 0;
        while self.now() < deadline {
            tokio::task::yield_now().await;
            quiet = if self.busy.load(Ordering::SeqCst) == 0 { quiet + 1 } else { 0 };
            if quiet >= QUIET {
                // Deadlines are finer than this clock: round up.
                self.now_ms.fetch_max(deadline.as_millisecond() + 1, Ordering::SeqCst);
                self.tick();
            }
        }
    }
}
