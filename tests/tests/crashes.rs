//! SIGKILL of the real binary at moments spread over the whole run, and what `resume` makes of it.
//!
//! The moments are spread over the journal, not over the clock: the run is killed when it has written its n-th event, so
//! every phase is hit however fast the machine is.

use platflow_report::Sweep;
use platflow_tests::TestEnvironment;
use platflow_tests::scale::scale;
use platflow_tests::world::World;
use std::collections::BTreeMap;
use std::time::Duration;

/// The highest speed there is: the more happens at once, the more a kill cuts off.
const FAST: &str = "600";
/// Longer than any step is silent, on a machine that is busy with other tests.
const LIMIT: Duration = Duration::from_secs(120);

/// Events in the journal of the newest run, as far as `list` can tell.
fn events(place: &TestEnvironment) -> u64 {
    let list = place.run(&["list", "--output", "json"]);
    if list.code != 0 {
        return 0;
    }
    list.json()["runs"][0]["events"].as_u64().unwrap_or(0)
}

fn undisturbed() -> (BTreeMap<String, usize>, u64) {
    let place = TestEnvironment::new();
    place.run(&["run", "deploy-aws-dev", "--sandbox", "--speed", FAST]).expect_code(0);
    (place.world().shape(), events(&place))
}

fn assert_same(wanted: &BTreeMap<String, usize>, found: &World, when: &str) {
    let found = found.shape();
    let missing: Vec<_> = wanted.iter().filter(|(line, count)| found.get(*line) != Some(*count)).collect();
    let extra: Vec<_> = found.iter().filter(|(line, count)| wanted.get(*line) != Some(*count)).collect();
    assert!(missing.is_empty() && extra.is_empty(), "{when}: wanted {missing:#?}\nfound {extra:#?}");
}

/// Proves that, killed at moments spread over the run, each followed by one `resume`, every run ends with exit 0 in
/// the same world as an undisturbed one, nothing twice.
#[test]
fn killed_anywhere_it_resumes_to_the_same_world() {
    let sweep = Sweep::begin("the shipped platform killed at events");
    let (wanted, total) = undisturbed();
    let kills = scale().of(40, 120) as u64;
    let mut hit = 0;
    for kill in 0..kills {
        let at = 1 + total * kill / kills;
        let place = TestEnvironment::new();
        let when = format!("killed at event {at} of {total}");
        let arguments = ["run", "deploy-aws-dev", "--sandbox", "--speed", FAST, "--output", "jsonl"];
        hit += u64::from(place.start(&arguments).kill_after_lines(at, LIMIT));
        let run = place.newest_run().expect("an event was durable, so the run is on record");
        let resumed = place.run(&["resume", &run]);
        assert_eq!(resumed.code, 0, "{when}\n{}\n{}", resumed.stdout, resumed.stderr);
        assert_same(&wanted, &place.world(), &when);
    }
    assert!(hit * 10 >= kills * 9, "only {hit} of {kills} kills hit a running process");
    sweep.end(kills, "none, spread evenly", format_args!("{hit} hit; events in an undisturbed run: {total}"));
}

/// Proves that a rollback and a destroy that are killed go on with `resume` and leave nothing.
#[test]
fn a_killed_rollback_and_a_killed_destroy_go_on_to_an_empty_world() {
    for (verb, fraction) in [("rollback", 4), ("destroy", 2)] {
        let place = TestEnvironment::new();
        place.run(&["run", "deploy-aws-dev", "--sandbox", "--speed", FAST]).expect_code(0);
        let run = place.newest_run().expect("a run");
        let built = events(&place);
        let subject = if verb == "rollback" { run.as_str() } else { "aws-dev" };
        let arguments = [verb, subject, "--confirm", "aws-dev", "--output", "jsonl"];
        assert!(place.start(&arguments).kill_after_lines(built / fraction, LIMIT), "{verb} ended before it was killed");
        let newest = place.newest_run().expect("a run");
        place.run(&["resume", &newest]).expect_code(0);
        assert_empty(&place.world(), verb);
    }
}

/// Empty but for a KMS key whose deletion is scheduled.
fn assert_empty(world: &World, when: &str) {
    let left: Vec<_> = world
        .resources
        .iter()
        .filter(|resource| !(resource.kind == "kms:key" && resource.state == "PendingDeletion"))
        .collect();
    assert!(left.is_empty(), "{when} left {left:#?}");
}
