//! How large the sweeps are: a share of the hour in CI, the whole under `nightly`.

/// Which size was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Sized for an hour on two cores.
    Ci,
    /// Everything.
    Nightly,
}

/// `PLATFLOW_TEST_SCALE`, `ci` unless it says `nightly`.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one switch of the test suite")]
pub fn scale() -> Scale {
    match std::env::var("PLATFLOW_TEST_SCALE").as_deref() {
        Ok("nightly") => Scale::Nightly,
        _ => Scale::Ci,
    }
}

impl Scale {
    /// `ci` or `nightly`, whichever applies.
    #[must_use]
    pub fn of(self, ci: usize, nightly: usize) -> usize {
        match self {
            Self::Ci => ci,
            Self::Nightly => nightly,
        }
    }
}
