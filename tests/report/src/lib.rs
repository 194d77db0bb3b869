//! What a test reports even when it passes: the figures of a sweep, and what was skipped. It goes to the standard error of
//! the process itself: what a test prints with `println!` is kept from every log as long as the test passes.

use std::fmt::Display;
use std::io::Write;
use std::time::Instant;

/// One line on the standard error of the process, in one write, so that tests that run side by side do not mix.
pub fn told(line: impl Display) {
    // A log that nobody takes is no reason to fail.
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// A sweep under way: what it is about, and since when.
#[derive(Debug)]
pub struct Sweep {
    what: String,
    begun: Instant,
}

impl Sweep {
    /// Starts its clock.
    #[must_use]
    pub fn begin(what: impl Into<String>) -> Self {
        Self { what: what.into(), begun: Instant::now() }
    }

    /// Tells how many cases there were, from which seeds, in which time, and what else was counted.
    pub fn end(self, cases: impl Display, seeds: impl Display, counted: impl Display) {
        let seconds = self.begun.elapsed().as_secs_f64();
        told(format_args!("FIGURES: {}: {cases} cases in {seconds:.1} s; seeds: {seeds}; {counted}", self.what));
    }
}

/// `ci` or, when `PLATFLOW_TEST_SCALE` says so, `nightly`: how large a sweep is.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the switch of the test suite")]
pub fn scaled(ci: usize, nightly: usize) -> usize {
    match std::env::var("PLATFLOW_TEST_SCALE").as_deref() {
        Ok("nightly") => nightly,
        _ => ci,
    }
}

/// A range of seeds, or the one that is replayed.
#[must_use]
pub fn seeds(all: &[u64]) -> String {
    match all {
        [] => "none".to_owned(),
        [only] => only.to_string(),
        [first, .., last] => format!("{first} to {last}"),
    }
}

/// Says that something was left out, and why.
pub fn skipped(what: &str, why: &str) {
    told(format_args!("SKIPPED: {what}: {why}"));
}

/// Says that something was left out for want of a tool that the build server has to have.
///
/// # Panics
/// Where `CI` is set: there it is no skip but a failure.
#[track_caller]
pub fn skipped_for_want_of(tool: &str, what: &str, why: &str) {
    assert!(!in_ci(), "{what} needs {tool}, and in CI that is no reason to skip it: {why}");
    skipped(what, &format!("{tool}: {why}"));
}

#[expect(clippy::disallowed_methods, reason = "the build server's own switch")]
fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| !value.is_empty() && value != "false" && value != "0")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    const CHILD: &str = "tests::a_passing_test_that_reports";

    /// Not a proof by itself: the test below runs it in a process of its own.
    #[test]
    #[ignore = "run by the test below"]
    fn a_passing_test_that_reports() {
        told("told past the capture");
        Sweep::begin("a sweep").end(3, seeds(&[7, 8, 9]), "nothing else");
        skipped_for_want_of("a tool", "a test", "it is not here");
    }

    #[expect(clippy::disallowed_methods, reason = "this test runs its own binary")]
    fn run(ci: &str) -> (bool, String) {
        let this = std::env::current_exe().expect("a path of this test");
        let child = Command::new(this)
            .args(["--exact", CHILD, "--ignored"])
            .env("CI", ci)
            .stdin(Stdio::null())
            .output()
            .expect("it starts");
        (child.status.success(), String::from_utf8_lossy(&child.stderr).into_owned())
    }

    /// Proves that figures and skips of a test that passes are on the standard error of its process, and that under `CI`
    /// a tool that is missing fails the test.
    #[test]
    fn figures_and_skips_are_seen_although_the_test_passes() {
        let (passed, told) = run("");
        assert!(passed, "{told}");
        assert!(told.contains("told past the capture"), "{told}");
        assert!(told.contains("FIGURES: a sweep: 3 cases in 0.0 s; seeds: 7 to 9; nothing else"), "{told}");
        assert!(told.contains("SKIPPED: a test: a tool: it is not here"), "{told}");
        let (passed, _) = run("true");
        assert!(!passed, "in CI that is a failure");
    }
}
