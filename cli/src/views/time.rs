//! Times and durations as people read them, always UTC.

use jiff::Timestamp;
use std::time::Duration;

/// `2026-11-23 05:17Z`.
#[must_use]
pub(crate) fn short(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%MZ").to_string()
}

/// `2026-11-23T05:17:03Z`.
#[must_use]
pub(crate) fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `3s`, `4m10s`, `1h02m`.
#[must_use]
pub(crate) fn duration(length: Duration) -> String {
    let seconds = length.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60),
    }
}

/// Time between two moments, nothing if they are in the wrong order.
#[must_use]
pub(crate) fn between(earlier: Timestamp, later: Timestamp) -> Duration {
    Duration::try_from(later.duration_since(earlier)).unwrap_or_default()
}
