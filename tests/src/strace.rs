//! The real binary under faults of real system calls, by `strace -e inject`: counts calls, and strikes at one of them.
//!
//! strace counts per thread: the n-th call of a family strikes in whichever thread comes to its own n-th first. So the
//! sweeps count the calls of each thread of an undisturbed run and strike at every n up to the longest count.

use crate::TestEnvironment;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

/// What happens at a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strike {
    /// SIGKILL at its entry: the call is not made.
    Kill,
    /// It fails with EIO; later ones work.
    InputOutputError,
    /// It fails with ENOSPC; later ones work.
    NoSpace,
    /// It and all later ones of the family in that thread fail with ENOSPC.
    NoSpaceFromThereOn,
}

impl Strike {
    fn injection(self, call: &str, at: u64) -> String {
        match self {
            Self::Kill => format!("inject={call}:signal=SIGKILL:when={at}"),
            Self::InputOutputError => format!("inject={call}:error=EIO:when={at}"),
            Self::NoSpace => format!("inject={call}:error=ENOSPC:when={at}"),
            Self::NoSpaceFromThereOn => format!("inject={call}:error=ENOSPC:when={at}+"),
        }
    }
}

/// Whether strace is there and may trace. Says loudly when it is not; where `CI` is set, that fails the test.
///
/// # Panics
/// In CI without strace.
#[must_use]
#[track_caller]
#[expect(clippy::disallowed_methods, reason = "the harness owns the processes it starts")]
pub fn permitted(test: &str) -> bool {
    let tried = Command::new("strace")
        .args(["-f", "-qq", "-e", "trace=fsync", "-o", "/dev/null", "true"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let permitted = tried.is_ok_and(|status| status.success());
    if !permitted {
        platflow_report::skipped_for_want_of("strace", test, "it is not installed here, or may not trace");
    }
    permitted
}

/// The binary under strace, its arguments to follow those of strace.
#[expect(clippy::disallowed_methods, reason = "the harness owns the processes it starts")]
fn under_strace(place: &TestEnvironment, options: &[&str], arguments: &[&str]) -> Command {
    let plain = place.command(arguments);
    let mut command = Command::new("strace");
    // Not with --seccomp-bpf: strace 6.1 then passes over strikes of threads other than the first.
    command.args(["-f", "-qq"]).args(options).arg("--").arg(plain.get_program()).args(plain.get_args());
    command.env_clear();
    for (name, value) in plain.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    if let Some(directory) = plain.get_current_dir() {
        command.current_dir(directory);
    }
    command.stdin(Stdio::null());
    command
}

/// The command with one strike: at the `at`-th `call` of any thread.
#[must_use]
pub fn struck(place: &TestEnvironment, strike: Strike, call: &str, at: u64, arguments: &[&str]) -> Command {
    let (trace, inject) = (format!("trace={call}"), strike.injection(call, at));
    under_strace(place, &["-o", "/dev/null", "-e", &trace, "-e", &inject], arguments)
}

/// How often the busiest thread makes each of these calls in an undisturbed run; calls that do not occur are left out.
///
/// # Panics
/// When the command does not end with `code`.
#[must_use]
pub fn count(place: &TestEnvironment, calls: &[&str], arguments: &[&str], code: i32) -> BTreeMap<String, u64> {
    let log = place.path().join("strace.log");
    let (trace, file) = (format!("trace={}", calls.join(",")), log.display().to_string());
    place.finish(under_strace(place, &["-o", &file, "-e", &trace], arguments), arguments).expect_code(code);
    busiest(&log, calls)
}

/// Lines read `<thread> <call>(…`; a call that was interrupted by another thread's is resumed in a line of its own, which
/// begins with `<...`.
fn busiest(log: &Path, calls: &[&str]) -> BTreeMap<String, u64> {
    let text = String::from_utf8_lossy(&std::fs::read(log).expect("strace's log")).into_owned();
    let mut threads: BTreeMap<(String, String), u64> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some(thread), Some(rest)) = (words.next(), words.next()) else { continue };
        let call = rest.split('(').next().unwrap_or_default();
        if calls.contains(&call) {
            *threads.entry((thread.to_owned(), call.to_owned())).or_insert(0) += 1;
        }
    }
    let mut busiest = BTreeMap::new();
    for ((_, call), count) in threads {
        let most = busiest.entry(call).or_insert(0);
        *most = count.max(*most);
    }
    busiest
}

/// All points `1..=count` of every call, or `limit` of them spread evenly over each call by its share (at least two).
#[must_use]
pub fn points(counts: &BTreeMap<String, u64>, limit: usize) -> Vec<(String, u64)> {
    let total: u64 = counts.values().sum();
    let mut points = Vec::new();
    for (call, count) in counts {
        let share = count.saturating_mul(limit as u64).checked_div(total).unwrap_or(0).max(2).min(*count);
        points.extend((0..share).map(|index| (call.clone(), 1 + index * count / share)));
    }
    points
}
