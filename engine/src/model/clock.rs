//! A clock that jumps to the next deadline once nothing else can happen. It needs a single-threaded runtime.
//!
//! The world lives by it; an engine may be given one that is set wrong.

use crate::clock::Clock;
use async_trait::async_trait;
use jiff::Timestamp;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

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

    /// Time passes while nobody runs: a machine sleeps, an operator comes back tomorrow.
    pub fn pass(&self, time: Duration) {
        self.now_ms.fetch_add(i64::try_from(time.as_millis()).unwrap_or(i64::MAX / 4), Ordering::SeqCst);
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

/// The same time as an engine sees it whose wall clock is wrong: ahead or behind by a constant that each process finds
/// anew. It runs no faster and no slower.
#[derive(Debug)]
pub struct WrongClock {
    world: Arc<SimulatedClock>,
    ahead_ms: AtomicI64,
}

impl WrongClock {
    /// One that is right until it is [`WrongClock::set`].
    #[must_use]
    pub fn of(world: Arc<SimulatedClock>) -> Self {
        Self { world, ahead_ms: AtomicI64::new(0) }
    }

    /// From now on it is so far ahead of the world, or behind if negative. A process never sees this happen: it keeps the
    /// time that it found when it started.
    pub fn set(&self, ahead_ms: i64) {
        self.ahead_ms.store(ahead_ms, Ordering::SeqCst);
    }

    fn moved(at: Timestamp, by_ms: i64) -> Timestamp {
        Timestamp::from_millisecond(at.as_millisecond().saturating_add(by_ms)).unwrap_or(Timestamp::MAX)
    }
}

#[async_trait]
impl Clock for WrongClock {
    fn now(&self) -> Timestamp {
        Self::moved(self.world.now(), self.ahead_ms.load(Ordering::SeqCst))
    }

    async fn sleep_until(&self, deadline: Timestamp) {
        // Rounded up: deadlines are finer than a millisecond.
        let back = self.ahead_ms.load(Ordering::SeqCst).saturating_neg().saturating_add(1);
        self.world.sleep_until(Self::moved(deadline, back)).await;
    }
}
