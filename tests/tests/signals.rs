//! SIGTERM and SIGINT in each state of a run, and a standard output that is gone or full.

use platflow_report::Sweep;
use platflow_tests::durable::{assert_nothing_told_is_lost, verified_events};
use platflow_tests::scale::scale;
use platflow_tests::{Running, TestEnvironment, wait_for};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::process::Stdio;
use std::time::{Duration, Instant};

const RUNBOOK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/small-cluster.yaml");
/// Slow enough that a signal finds the state it was meant for.
const SPEED: &str = "200";
const RUN: &[&str] = &["run", RUNBOOK, "--sandbox", "--speed", SPEED, "--output", "jsonl"];
const LIMIT: Duration = Duration::from_secs(60);
/// How much later than its effect the reply to a slow call comes.
const LATE: Duration = Duration::from_secs(120);

fn undisturbed() -> (TestEnvironment, BTreeMap<String, usize>, u64) {
    let place = TestEnvironment::new();
    place.run(RUN).expect_code(0);
    let run = place.newest_run().expect("a run");
    let (shape, events) = (place.world().shape(), verified_events(&place, &run));
    (place, shape, events)
}

/// Signals after that many events; which event came last and how it ended.
fn signalled(mut running: Running, signal: &str, lines: u64) -> (String, platflow_tests::Finished) {
    assert!(running.read_lines(lines, LIMIT), "it ended before line {lines}");
    running.signal(signal);
    let finished = running.wait();
    let last = finished.stdout.lines().nth(usize::try_from(lines).unwrap_or_default() - 1).unwrap_or_default();
    let last: serde_json::Value = serde_json::from_str(last).unwrap_or_default();
    (last["event"].as_str().unwrap_or_default().to_owned(), finished)
}

/// Proves that both signals, after any kind of event of a run (a step begins, notes, waits, ends), end it with exit 130,
/// and that `resume` ends in the undisturbed world.
#[test]
fn a_signal_in_each_state_of_a_run() {
    let sweep = Sweep::begin("SIGTERM and SIGINT in a run");
    let (_, wanted, events) = undisturbed();
    let mut states = BTreeSet::new();
    let signals = scale().of(10, 60) as u64;
    let last = events - 4;
    for index in 0..signals {
        let (signal, lines) = (if index % 2 == 0 { "TERM" } else { "INT" }, 1 + index * (last - 1) / signals);
        let place = TestEnvironment::new();
        let (state, ended) = signalled(place.start(RUN), signal, lines);
        let when = format!("SIG{signal} after {state}, event {lines}");
        assert_eq!(ended.code, 130, "{when}\n{}", ended.stderr);
        let run = place.newest_run().expect("a run");
        let resumed = place.run(&["resume", &run]);
        assert_eq!(resumed.code, 0, "{when}\n{}", resumed.stderr);
        assert_nothing_told_is_lost(&place, &run, &ended.stdout, &when);
        assert_eq!(place.world().shape(), wanted, "{when}");
        states.insert(state);
    }
    assert!(states.len() >= 4, "too few states were hit: {states:?}");
    sweep.end(signals, "none, spread evenly", format_args!("states signalled: {states:?}"));
}

/// Proves that a signal to a rollback ends it with exit 130, and that `resume` ends in an empty world.
#[test]
fn a_signal_in_a_rollback() {
    let sweep = Sweep::begin("SIGTERM and SIGINT in a rollback");
    let signals = scale().of(4, 20);
    for (index, signal) in ["TERM", "INT"].into_iter().cycle().take(signals).enumerate() {
        let (place, _, _) = undisturbed();
        let run = place.newest_run().expect("a run");
        let running = place.start(&["rollback", &run, "--confirm", "small", "--output", "jsonl"]);
        let (state, ended) = signalled(running, signal, 1 + index as u64 % 12);
        let when = format!("SIG{signal} in a rollback after {state}");
        assert_eq!(ended.code, 130, "{when}\n{}", ended.stderr);
        place.run(&["resume", &run]).expect_code(0);
        assert_nothing_told_is_lost(&place, &run, &ended.stdout, &when);
        assert_eq!(place.world().shape(), BTreeMap::new(), "{when}");
    }
    sweep.end(signals, "none", "all resumed to an empty world");
}

/// Proves that a second Ctrl-C while a call is under way ends the process at once, with exit 130 and long before the reply
/// comes, and that `resume` ends in the undisturbed world without making again what that call made.
#[test]
fn a_second_interrupt_stops_at_once() {
    let (_, wanted, _) = undisturbed();
    // A call must not outlast the lease; this one is answered long after the test.
    let place = TestEnvironment::new().with("PLATFLOW_LEASE_MS", "600000");
    let late = format!("eks:CreateCluster=delay:{}*1", LATE.as_millis());
    let mut running = place.start(&[RUN, &["--sandbox-fault", late.as_str()]].concat());
    let created = |place: &TestEnvironment| {
        place.counters()["mutating"]["by_operation"]["eks:CreateCluster"].as_u64().unwrap_or_default()
    };
    assert!(running.read_lines(1, LIMIT), "the sandbox is there, and the run begun");
    wait_for("the call", LIMIT, || created(&place) == 1);
    let asked = Instant::now();
    running.signal("INT");
    assert!(running.read_error_until("stopping at the next safe point"), "the first one is acknowledged");
    assert!(running.ended().is_none(), "the first one waits for the call");
    running.signal("INT");
    let ended = running.wait();
    assert_eq!(ended.code, 130, "{}", ended.stderr);
    assert!(ended.stderr.contains("platflow resume"), "{}", ended.stderr);
    assert!(asked.elapsed() < LATE / 2, "it waited for the reply: {:?}", asked.elapsed());
    let run = place.newest_run().expect("a run");
    place.run(&["resume", &run]).expect_code(0);
    assert_nothing_told_is_lost(&place, &run, &ended.stdout, "two interrupts");
    assert_eq!(place.world().shape(), wanted);
    assert_eq!(created(&place), 1, "the cluster was made once");
}

/// Proves that a reader of standard output that goes away, at the start or on the way, neither stops the run nor changes
/// its exit code.
#[test]
fn a_closed_standard_output_does_not_stop_the_run() {
    let (_, wanted, events) = undisturbed();
    for (format, lines) in [("text", 0), ("json", 0), ("jsonl", 0), ("jsonl", 1), ("jsonl", 9)] {
        let place = TestEnvironment::new();
        let mut running = place.start(&["run", RUNBOOK, "--sandbox", "--speed", "600", "--output", format]);
        if lines == 0 {
            running.close_stdout();
        } else {
            assert!(running.read_lines(lines, LIMIT));
            running.close_lines();
        }
        let ended = running.wait();
        let when = format!("{format}, closed after {lines} lines");
        assert_eq!(ended.code, 0, "{when}\n{}", ended.stderr);
        let run = place.newest_run().expect("a run");
        // How often it waits differs from run to run; what it began and ended does not.
        assert!(verified_events(&place, &run) >= events / 2, "{when}");
        assert_eq!(place.world().shape(), wanted, "{when}");
    }
}

/// Proves that a standard output which can take nothing (`/dev/full`) loses no fact: the run ends in the undisturbed world
/// with a documented exit code, and is on record as done.
#[test]
fn a_full_standard_output_loses_no_fact() {
    let (_, wanted, _) = undisturbed();
    for format in ["text", "json", "jsonl"] {
        let place = TestEnvironment::new();
        let arguments = ["run", RUNBOOK, "--sandbox", "--speed", "600", "--output", format];
        let mut command = place.command(&arguments);
        let full = OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
        command.stdout(Stdio::from(full));
        let ended = place.finish_as_prepared(command, &arguments);
        assert!([0, 1].contains(&ended.code), "{format}: {}\n{}", ended.code, ended.stderr);
        assert!(!ended.stderr.contains("panicked"), "{format}: {}", ended.stderr);
        let list = place.run(&["list", "--output", "json"]).expect_code(0).json();
        assert_eq!(list["runs"][0]["status"], "done", "{format}: {list}");
        assert_eq!(place.world().shape(), wanted, "{format}");
    }
}
