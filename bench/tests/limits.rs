//! Limits of what a step costs that a busy machine cannot bend: syncs, CPU, bytes written, bytes of the file, memory. Not how
//! long anything takes: that is for the tables of this program, and for somebody who looks at them.
//!
//! The real engine on the real store in a process of its own, as the tables measure it; test builds pass too.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Output, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_platflow-bench");
const BOUND: usize = 256;

fn task(shape: &str, steps: usize, runs: usize, place: &Path) -> String {
    json!({
        "who": "engine", "shape": shape, "steps": steps, "runs": runs, "in_flight": BOUND, "place": place, "started": 0
    })
    .to_string()
}

fn fresh() -> tempfile::TempDir {
    // Beside the program and not in a memory file system, where nothing is ever written.
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "the harness owns the processes it starts")]
fn finished(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// What one load came to.
struct Cost(Value);

impl Cost {
    fn of(shape: &str, steps: usize, runs: usize) -> Self {
        let place = fresh();
        let output = finished(PROGRAM, &["__one", &task(shape, steps, runs, place.path())]);
        Self(serde_json::from_slice(&output.stdout).unwrap())
    }

    fn figure(&self, name: &str) -> f64 {
        self.0.get(name).and_then(Value::as_f64).unwrap()
    }

    #[track_caller]
    fn assert_at_most(&self, what: &str, name: &str, most: f64) {
        let found = self.figure(name);
        platflow_report::told(format_args!("FIGURES: {what}: {name} {found:.1} of {most} at most"));
        assert!(found <= most, "{what}: {name} is {found:.1}, at most {most} was agreed");
    }
}

/// Proves that a step of a chain costs no more CPU, bytes written and bytes of the file than was agreed, the CPU with room for
/// a test build on a slow machine.
#[test]
fn a_chain_keeps_to_its_limits() {
    let cost = Cost::of("chain", 1_000, 1);
    let what = "a chain of 1,000";
    cost.assert_at_most(what, "cpu_us", 1_500.0);
    cost.assert_at_most(what, "written", 20_000.0);
    cost.assert_at_most(what, "file", 3_000.0);
}

/// Proves the same of a wide run, whose steps share their commits, and that its memory grows by no more than was agreed.
#[test]
fn a_wide_run_keeps_to_its_limits() {
    let (small, large) = (Cost::of("wide", 1_000, 1), Cost::of("wide", 10_000, 1));
    let what = "a wide run of 10,000";
    large.assert_at_most(what, "cpu_us", 400.0);
    large.assert_at_most(what, "written", 1_600.0);
    large.assert_at_most(what, "file", 800.0);
    let grown = (large.figure("peak") - small.figure("peak")) / 9_000.0;
    platflow_report::told(format_args!("FIGURES: {what}: {grown:.0} bytes of memory per step of 6000 at most"));
    assert!(grown <= 6_000.0, "{grown:.0} bytes of memory per step");
}

/// How many intents each append of a state file carries: the hash of the chain stands under the last event of each.
fn intents(file: &Path) -> Vec<usize> {
    let connection = rusqlite::Connection::open(file).unwrap();
    let mut statement =
        connection.prepare("SELECT kind = 'step-intended', hash IS NOT NULL FROM events ORDER BY id").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get::<_, bool>(0)?, row.get::<_, bool>(1)?))).unwrap();
    let (mut appends, mut here) = (Vec::new(), 0);
    for row in rows {
        let (intended, ends) = row.unwrap();
        here += usize::from(intended);
        if ends {
            appends.push(std::mem::take(&mut here));
        }
    }
    appends
}

/// Proves that loop and disk may overlap: no append of a wide run carries more intents than half of what may be in flight.
#[test]
fn an_append_carries_half_of_what_may_be_in_flight() {
    let place = fresh();
    finished(PROGRAM, &["__one", &task("wide", 5_000, 1, place.path())]);
    let appends = intents(&place.path().join("state.db"));
    assert_eq!(appends.iter().sum::<usize>(), 5_000);
    assert!(appends.iter().all(|intents| *intents <= BOUND / 2), "{appends:?}");
}

/// Sync calls of a whole process, as strace counts them.
fn syncs(shape: &str, steps: usize, runs: usize) -> usize {
    let place = fresh();
    let log = place.path().join("strace.log");
    let (task, log_name) = (task(shape, steps, runs, place.path()), log.display().to_string());
    finished("strace", &["-f", "-qq", "-e", "trace=fsync,fdatasync", "-o", &log_name, "--", PROGRAM, "__one", &task]);
    let text = std::fs::read_to_string(log).unwrap();
    text.lines().filter(|line| line.contains("sync(") && !line.contains("resumed>")).count()
}

#[expect(clippy::disallowed_methods, reason = "the harness owns the processes it starts")]
fn may_trace() -> bool {
    let tried = Command::new("strace").args(["-f", "-qq", "-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}

/// Proves that a chain syncs once per step, and neither a wide run nor a fleet of chains more often than their commits: the
/// slope between two sizes, which leaves out what opening and closing cost.
#[test]
fn commits_are_shared() {
    if !may_trace() {
        return platflow_report::skipped_for_want_of(
            "strace",
            "syncs per step",
            "not installed here, or may not trace",
        );
    }
    let slope = |shape: &str, (few, many): (usize, usize), runs: usize| {
        let more = syncs(shape, many, runs).saturating_sub(syncs(shape, few, runs));
        more as f64 / ((many - few) * runs) as f64
    };
    for (what, found, most) in [
        ("a chain", slope("chain", (100, 500), 1), 1.05),
        ("a wide run", slope("wide", (1_000, 5_000), 1), 0.05),
        ("a fleet of 100 chains", slope("chain", (5, 25), 100), 0.5),
    ] {
        platflow_report::told(format_args!("FIGURES: {what}: {found:.3} syncs per step of {most} at most"));
        assert!(found <= most, "{what} syncs {found:.3} times per step, at most {most} was agreed");
    }
}
