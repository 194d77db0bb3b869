//! Retry schedules: how long to wait after a failure of a class, and when to stop and ask a human.
//!
//! Bounded by time per class, never by luck: when the budget is spent the run parks, it does not guess.

use crate::clock::{Clock, after};
use crate::failure::{ErrorClass, StepError};
use backon::{BackoffBuilder, ExponentialBuilder};
use jiff::Timestamp;
use std::time::Duration;

/// How long tries of one class go on, from the first failure of the series.
#[must_use]
pub fn budget(class: ErrorClass) -> Option<Duration> {
    match class {
        ErrorClass::Transient => Some(Duration::from_secs(10 * 60)),
        ErrorClass::Throttled => Some(Duration::from_secs(15 * 60)),
        // IAM roles and new ids are visible everywhere within two minutes, or something else is wrong.
        ErrorClass::Propagation => Some(Duration::from_secs(120)),
        // Another mutation of the same cluster may take as long as an upgrade.
        ErrorClass::Conflict => Some(Duration::from_secs(30 * 60)),
        ErrorClass::Quota | ErrorClass::Permission | ErrorClass::Permanent | ErrorClass::NeedsHuman => None,
    }
}

fn schedule(class: ErrorClass) -> ExponentialBuilder {
    let (shortest, longest) = match class {
        ErrorClass::Transient => (Duration::from_secs(1), Duration::from_secs(30)),
        ErrorClass::Throttled => (Duration::from_secs(3), Duration::from_secs(60)),
        ErrorClass::Propagation => (Duration::from_secs(2), Duration::from_secs(10)),
        ErrorClass::Conflict
        | ErrorClass::Quota
        | ErrorClass::Permission
        | ErrorClass::Permanent
        | ErrorClass::NeedsHuman => (Duration::from_secs(5), Duration::from_secs(30)),
    };
    ExponentialBuilder::default().with_min_delay(shortest).with_max_delay(longest).with_factor(2.0).without_max_times()
}

/// When to try again after the `failures`-th failure (from 1) of a series that began at `since`; none when the class is
/// not worth another try or its budget (`retry_for` overrides it), as long as `clock` lets it last, is spent.
#[must_use]
pub fn next(
    error: &StepError,
    failures: u32,
    since: Timestamp,
    now: Timestamp,
    retry_for: Option<Duration>,
    clock: &dyn Clock,
) -> Option<Timestamp> {
    let class_budget = budget(error.class)?;
    let end = after(since, clock.patience(retry_for.unwrap_or(class_budget)));
    if now >= end {
        return None;
    }
    let nth = failures.saturating_sub(1).min(10) as usize;
    let delay = schedule(error.class).build().nth(nth).unwrap_or(Duration::from_secs(30));
    Some(after(now, delay).min(end))
}
