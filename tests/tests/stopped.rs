//! A process that is stopped for longer than its lease, taken over from, and woken again; and one that is dead.
//!
//! The stopped process is the real binary under SIGSTOP: it keeps its locks, its sockets and its belief that it owns the
//! run. What it does after SIGCONT is counted in the journal and in the sandbox.

use platflow_report::Sweep;
use platflow_tests::durable::{assert_nothing_told_is_lost, journal, verified_events};
use platflow_tests::scale::scale;
use platflow_tests::{Finished, TestEnvironment, wait_for};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const RUNBOOK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/small-cluster.yaml");
const RUN: &[&str] = &["run", RUNBOOK, "--sandbox", "--speed", "600", "--output", "jsonl"];
const LIMIT: Duration = Duration::from_secs(60);
/// Short enough to wait for, longer than a call takes on a busy machine.
const LEASE: Duration = Duration::from_millis(2_000);
/// So often an owner is stopped until it is at a moment when it can be taken over from.
const TRIES: usize = 6;
/// The lease may be this old when its owner is stopped: it is renewed four times while it lasts.
const RENEWAL: Duration = Duration::from_millis(500);

fn place() -> TestEnvironment {
    let place = TestEnvironment::new().with("PLATFLOW_LEASE_MS", &LEASE.as_millis().to_string());
    place.run(&["sandbox", "start", "--speed", "600"]).expect_code(0);
    place
}

fn undisturbed() -> (BTreeMap<String, usize>, u64) {
    let place = place();
    place.run(RUN).expect_code(0);
    let run = place.newest_run().expect("a run");
    (place.world().shape(), verified_events(&place, &run))
}

fn mutating(place: &TestEnvironment) -> u64 {
    place.counters()["mutating"]["outside_smoke"].as_u64().expect("a number")
}

/// Steps whose intent is in the journal and whose outcome is not.
fn open_intents(place: &TestEnvironment, run: &str) -> u64 {
    let mut open = BTreeMap::new();
    for event in journal(place, run) {
        let (Some(kind), Some(step)) = (event["event"].as_str(), event["step"].as_str()) else { continue };
        match kind {
            "step-intended" => drop(open.insert(step.to_owned(), ())),
            "step-verified" | "step-failed" => drop(open.remove(step)),
            _ => {}
        }
    }
    open.len() as u64
}

/// How long the machine takes at the moment to start a process and let it look into the state file.
fn start_up(place: &TestEnvironment) -> Duration {
    let begun = Instant::now();
    place.run(&["list"]).expect_code(0);
    begun.elapsed()
}

/// A run that somebody else got.
struct Taken {
    ended: Finished,
    /// From the stop to the first event of the new owner.
    after: Duration,
}

/// Resumes the run until it is no longer refused: not before the lease is over, and within a second of that and of the
/// time that a process takes to start. None if its owner was stopped while it held the file's write lock.
fn take_over(place: &TestEnvironment, run: &str, stopped: Instant, when: &str) -> Option<Taken> {
    let mut refused = None;
    loop {
        let begun = stopped.elapsed();
        let mut taker = place.start(&["resume", run, "--output", "jsonl"]);
        let told = taker.read_lines(1, LIMIT);
        let first = stopped.elapsed();
        let taken = taker.wait();
        match taken.code {
            0 => {
                assert!(told && first > LEASE - RENEWAL, "{when}: a live owner's lease was not respected: {first:?}");
                // A try that came too soon was not refused after the end of the lease; a machine that was too busy to try
                // before that can only be held to the time from its first try on.
                let due = if refused.is_some() { LEASE } else { LEASE.max(begun) };
                let most = due + Duration::from_secs(1) + start_up(place).max(refused.unwrap_or_default());
                assert!(first < most, "{when}: taken over after {first:?}; lease, a second and start-up are {most:?}");
                return Some(Taken { ended: taken, after: first });
            }
            7 if taken.stderr.contains("busy") => return None,
            7 => {
                assert!(begun < LEASE + Duration::from_secs(1), "{when}: no takeover within the lease and a second");
                refused = refused.max(Some(stopped.elapsed() - begun));
            }
            code => panic!("{when}: the takeover failed: {code}\n{}", taken.stderr),
        }
    }
}

/// Stopped after the n-th event, taken over, woken; how long the takeover took. None if it was stopped after its last
/// event, or while it held the file's write lock, in which case nobody can write before it goes on: it is woken and ends
/// the run itself.
fn stopped_at(line: u64, wanted: &BTreeMap<String, usize>) -> Option<Duration> {
    let place = place();
    let mut stale = place.start(RUN);
    assert!(stale.read_lines(line, LIMIT), "it ended before line {line}");
    stale.signal("STOP");
    let stopped = Instant::now();
    let run = place.newest_run().expect("a run");
    if journal(&place, &run).iter().any(|event| event["event"] == "run-finished") {
        // A busy machine stopped it too late: there is nothing left to take over.
        stale.signal("CONT");
        stale.wait().expect_code(0);
        return None;
    }
    let intents = open_intents(&place, &run);
    let told = verified_events(&place, &run);
    let Some(taken) = take_over(&place, &run, stopped, &format!("stopped at line {line}")) else {
        stale.signal("CONT");
        // Nobody could take it over, but its lease may have ended: it goes on, or says so and leaves it to be resumed.
        let woken = stale.wait();
        if woken.code == 7 {
            place.run(&["resume", &run]).expect_code(0);
        } else {
            woken.expect_code(0);
        }
        assert_eq!(&place.world().shape(), wanted, "stopped in the midst of a write at line {line}");
        return None;
    };
    let (events, calls) = (verified_events(&place, &run), mutating(&place));
    assert!(events > told, "the takeover wrote something");
    assert_eq!(&place.world().shape(), wanted, "taken over at line {line}");
    stale.signal("CONT");
    let stale = stale.wait();
    // Everything was journaled by the other one: the stale process says that it lost the run, and that is all it does.
    assert_eq!(stale.code, 7, "woken at line {line}: {}\n{}", stale.code, stale.stderr);
    assert_eq!(verified_events(&place, &run), events, "the stale process added facts at line {line}");
    // A call whose intent was durable and whose permit was given before the stop may still go out; no other.
    let late = mutating(&place) - calls;
    assert!(late <= intents, "{late} mutating calls of the stale process for {intents} open intents at line {line}");
    assert_eq!(&place.world().shape(), wanted, "after the stale process of line {line} woke");
    assert_nothing_told_is_lost(&place, &run, &stale.stdout, "the stale process");
    assert_nothing_told_is_lost(&place, &run, &taken.ended.stdout, "the takeover");
    Some(taken.after)
}

/// Proves that a process that is stopped for longer than its lease is taken over from within lease plus one second, and
/// that, woken again, it adds no fact, makes no call without an intent of its own, and ends with exit 7.
#[test]
fn a_stopped_owner_that_wakes_does_nothing_more() {
    let sweep = Sweep::begin("stopped owners that are taken over from");
    let (wanted, events) = undisturbed();
    let takeovers = scale().of(10, 100) as u64;
    // The last events are too near to the end to be stopped before it.
    let last = events - 6;
    let (mut longest, mut again) = (Duration::ZERO, 0);
    for index in 0..takeovers {
        let line = 2 + index * (last - 2) / takeovers;
        // Stopped in the midst of a write, or too late: that says nothing about takeovers, so it is stopped once more.
        let taken = (0..TRIES).find_map(|_| {
            stopped_at(line, &wanted).or_else(|| {
                again += 1;
                None
            })
        });
        longest =
            longest.max(taken.unwrap_or_else(|| panic!("stopped at line {line} {TRIES} times, never taken over")));
    }
    let counted =
        format!("all taken over, at most {longest:?} after the stop; {again} stopped while they wrote, again");
    sweep.end(takeovers, "none, spread evenly", counted);
}

/// Proves that a dead owner of the same host is taken over at once, however long its lease would last.
#[test]
fn a_dead_owner_is_taken_over_at_once() {
    let place = TestEnvironment::new().with("PLATFLOW_LEASE_MS", "600000");
    place.run(&["sandbox", "start", "--speed", "600"]).expect_code(0);
    let mut running = place.start(RUN);
    assert!(running.kill_after_lines(8, LIMIT), "it ended before it was killed");
    let run = place.newest_run().expect("a run");
    place.run(&["resume", &run]).expect_code(0);
}

/// Proves that the length of a lease is settable within bounds, and that nonsense is refused with the way out.
#[test]
fn the_lease_is_settable_within_bounds() {
    for nonsense in ["0", "499", "600001", "soon", "-1"] {
        let place = TestEnvironment::new().with("PLATFLOW_LEASE_MS", nonsense);
        let refused = place.run(&["list"]).expect_code(2);
        assert!(refused.stderr.contains("PLATFLOW_LEASE_MS"), "{}", refused.stderr);
    }
}

/// Proves that a stopped owner is shown as what it is and that its cancellation waits for it: SIGINT is kept until
/// SIGCONT, then the run is interrupted, resumable.
#[test]
fn a_cancelled_stopped_owner_parks_when_it_wakes() {
    let place = TestEnvironment::new();
    place.run(&["sandbox", "start", "--speed", "60"]).expect_code(0);
    let mut running = place.start(&["run", RUNBOOK, "--sandbox", "--speed", "60", "--output", "jsonl"]);
    assert!(running.read_lines(8, LIMIT));
    let run = place.newest_run().expect("a run");
    running.signal("STOP");
    place.run(&["cancel", &run]).expect_code(0);
    assert!(running.ended().is_none());
    running.signal("CONT");
    wait_for("the end", LIMIT, || running.ended().is_some());
    running.wait().expect_code(130);
    place.run(&["resume", &run]).expect_code(0);
}
