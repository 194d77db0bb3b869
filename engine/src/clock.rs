//! The clock port: polls, settle windows, deadlines and retry budgets run on it.
//!
//! Leases, HTTP timeouts and request signatures do *not*: they stay on real time. With `--sandbox` the implementation
//! runs at the sandbox's speed; in simulation it jumps.

use async_trait::async_trait;
use jiff::Timestamp;
use std::time::Duration;

/// Time as the engine sees it.
#[async_trait]
pub trait Clock: Send + Sync + 'static {
    /// The present moment on this clock.
    fn now(&self) -> Timestamp;

    /// Returns when `deadline` has passed on this clock; cancel-safe.
    async fn sleep_until(&self, deadline: Timestamp);

    /// How many seconds of this clock pass in one real second; 1.0 for real time. HTTP clients never use it.
    fn speed(&self) -> f64 {
        1.0
    }

    /// How long to be patient with something that is given this budget. Where time runs faster than the work is done, a
    /// budget lasts [`LEAST_PATIENCE`] of real time at least: a busy machine must not look like a cloud that hangs.
    fn patience(&self, budget: Duration) -> Duration {
        let speed = self.speed();
        if speed > 1.0 { budget.max(LEAST_PATIENCE.mul_f64(speed)) } else { budget }
    }
}

/// The real time that any wait or series of tries lasts at least on a clock that runs fast.
pub const LEAST_PATIENCE: Duration = Duration::from_secs(15);

/// `at + duration`, saturating at the end of representable time.
#[must_use]
pub fn after(at: Timestamp, duration: Duration) -> Timestamp {
    at.checked_add(duration).unwrap_or(Timestamp::MAX)
}

/// Real time at a constant multiple: `speed` 1.0 is the system's own clock.
#[derive(Debug, Clone)]
pub struct ScaledClock {
    origin: Timestamp,
    started: std::time::Instant,
    speed: f64,
}

impl ScaledClock {
    /// The system's own clock.
    #[must_use]
    pub fn real() -> Self {
        Self::scaled(system_now(), 1.0)
    }

    /// A clock that shows `origin` now and runs `speed` times as fast as real time. A speed that is not a positive
    /// number counts as 1.
    #[must_use]
    pub fn scaled(origin: Timestamp, speed: f64) -> Self {
        let speed = if speed.is_finite() && speed > 0.0 { speed } else { 1.0 };
        Self { origin, started: std::time::Instant::now(), speed }
    }
}

#[expect(clippy::disallowed_methods, reason = "the clock port owns the wall clock")]
fn system_now() -> Timestamp {
    Timestamp::now()
}

#[async_trait]
impl Clock for ScaledClock {
    fn now(&self) -> Timestamp {
        after(self.origin, self.started.elapsed().mul_f64(self.speed))
    }

    #[expect(clippy::disallowed_methods, reason = "the clock port owns sleeping")]
    async fn sleep_until(&self, deadline: Timestamp) {
        loop {
            let left = deadline.duration_since(self.now());
            let Ok(left) = Duration::try_from(left) else { return };
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.div_f64(self.speed).max(Duration::from_micros(200))).await;
        }
    }

    fn speed(&self) -> f64 {
        self.speed
    }
}
