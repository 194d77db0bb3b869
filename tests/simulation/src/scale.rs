//! How large the simulations are: a share of the hour in CI, the whole under `nightly`; and which single seed to replay.

/// `ci` or, when `PLATFLOW_TEST_SCALE` says so, `nightly`.
#[must_use]
pub fn of(ci: usize, nightly: usize) -> usize {
    platflow_report::scaled(ci, nightly)
}

/// The one seed to run instead of all: `PLATFLOW_SEED`.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the switch of the test suite")]
pub fn replay() -> Option<u64> {
    std::env::var("PLATFLOW_SEED").ok().map(|seed| seed.parse().expect("PLATFLOW_SEED is a number"))
}
