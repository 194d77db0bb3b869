//! Simulated time: where it stands, how fast it runs, and how it goes on after a restart. The world itself never asks for
//! the time; it is told.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::virtual_time::VirtualTime;

/// Simulated seconds per real second, unless told otherwise: a whole deployment takes about half a minute.
pub const DEFAULT_SPEED: f64 = 40.0;

/// The longest stretch of real time, in milliseconds, that a restart makes up for: the heartbeat of persistence.
const HEARTBEAT_MS: i64 = 2_000;

/// What is kept of a clock.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ClockDocument {
    /// Simulated time, Unix milliseconds.
    pub now_ms: i64,
    /// Real time at which it was so, Unix milliseconds.
    pub wall_ms: i64,
    /// Simulated seconds per real second; 0 is a clock that only moves when it is told to.
    pub speed: f64,
}

/// A clock that runs `speed` times as fast as real time from its origin, or that shows time which jumps.
#[derive(Debug)]
pub struct Clock {
    origin_ms: i64,
    started: Instant,
    speed: f64,
    jumping: Option<Arc<VirtualTime>>,
}

impl Clock {
    /// A clock that starts at a time.
    #[must_use]
    pub fn starting_at(origin_ms: i64, speed: f64) -> Self {
        Self { origin_ms, started: Instant::now(), speed, jumping: None }
    }

    /// A clock that shows time which jumps; its speed is 0.
    #[must_use]
    pub fn jumping(time: Arc<VirtualTime>) -> Self {
        Self { jumping: Some(time), ..Self::starting_at(0, 0.0) }
    }

    /// The time behind it, if it jumps.
    #[must_use]
    pub fn virtual_time(&self) -> Option<Arc<VirtualTime>> {
        self.jumping.clone()
    }

    /// Goes on from a document. Time stood still while no server ran, but for the moment between the last heartbeat
    /// and its end, so that nobody sees time go backwards.
    #[must_use]
    pub fn resume(document: ClockDocument, speed: Option<f64>) -> Self {
        let lost_ms = (wall_ms() - document.wall_ms).clamp(0, HEARTBEAT_MS);
        let origin_ms = document.now_ms + scaled(lost_ms, document.speed);
        Self::starting_at(origin_ms, speed.unwrap_or(document.speed))
    }

    /// Simulated time, Unix milliseconds.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        if let Some(time) = &self.jumping {
            return time.now_ms();
        }
        let elapsed_ms = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.origin_ms.saturating_add(scaled(elapsed_ms, self.speed))
    }

    /// Simulated seconds per real second.
    #[must_use]
    pub fn speed(&self) -> f64 {
        self.speed
    }

    /// Runs on at another speed; 0 stops it. Time that jumps has no speed.
    pub fn set_speed(&mut self, speed: f64) {
        if self.jumping.is_some() {
            return;
        }
        *self = Self::starting_at(self.now_ms(), speed);
    }

    /// Jumps forward.
    pub fn advance(&mut self, by_ms: i64) {
        if let Some(time) = &self.jumping {
            return time.advance(by_ms);
        }
        self.origin_ms = self.origin_ms.saturating_add(by_ms.max(0));
    }

    /// What to keep.
    #[must_use]
    pub fn document(&self) -> ClockDocument {
        ClockDocument { now_ms: self.now_ms(), wall_ms: wall_ms(), speed: self.speed }
    }
}

/// Real time, Unix milliseconds.
#[expect(clippy::disallowed_methods, reason = "the sandbox's one look at the wall clock")]
#[must_use]
pub fn wall_ms() -> i64 {
    Timestamp::now().as_millisecond()
}

/// A timestamp of simulated time.
#[must_use]
pub fn timestamp(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "milliseconds of a simulation: far from the limits of either type"
)]
fn scaled(ms: i64, speed: f64) -> i64 {
    (ms as f64 * speed) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock at speed 0 moves only when told, and a restart goes on where it stood, at most a heartbeat later.
    #[test]
    fn manual_time_and_restarts() {
        let mut clock = Clock::starting_at(1_000, 0.0);
        assert_eq!(clock.now_ms(), 1_000);
        clock.advance(500);
        clock.advance(-9_000);
        assert_eq!(clock.now_ms(), 1_500);
        let long_ago = ClockDocument { now_ms: 5_000, wall_ms: 0, speed: 60.0 };
        let resumed = Clock::resume(long_ago, Some(0.0));
        assert_eq!(resumed.now_ms(), 5_000 + 60 * HEARTBEAT_MS);
    }
}
