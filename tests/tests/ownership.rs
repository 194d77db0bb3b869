//! Who owns a run, an environment, a target: two resumes at once, a killed owner, another state file, another account.

use platflow_tests::{TestEnvironment, wait_for};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);

fn start_and_kill(place: &TestEnvironment) -> String {
    let mut running = place.start(&["run", "deploy-aws-dev", "--sandbox", "--speed", "60"]);
    wait_for("the run to journal events", LIMIT, || {
        let list = place.run(&["list", "--output", "json"]);
        list.code == 0 && list.json()["runs"][0]["events"].as_u64().unwrap_or(0) > 10
    });
    running.kill();
    place.newest_run().expect("a run")
}

/// Proves that of two resumes one works, the other exits 7 and names host, pid and since; a killed owner is taken
/// over at once, without any flag.
#[test]
fn one_owner_at_a_time_and_a_dead_one_is_taken_over_at_once() {
    let place = TestEnvironment::new();
    let run = start_and_kill(&place);
    let first = place.start(&["resume", &run]);
    wait_for("the takeover", LIMIT, || {
        let list = place.run(&["list", "--output", "json"]).json();
        list["runs"][0]["owner"]["pid"] == first.pid() && list["runs"][0]["owner_live"] == true
    });
    let second = place.run(&["resume", &run]).expect_code(7);
    assert!(second.stderr.contains(&first.pid().to_string()), "{}", second.stderr);
    assert!(second.stderr.contains("since"), "{}", second.stderr);
    first.wait().expect_code(0);
}

/// Proves that a stopped environment is refused to another `run`, which exits 6 and names the run and the ways out.
#[test]
fn a_parked_run_holds_its_environment() {
    let place = TestEnvironment::new();
    let run = start_and_kill(&place);
    let refused = place.run(&["run", "deploy-aws-dev", "--sandbox"]).expect_code(6);
    assert!(refused.stderr.contains(&run), "{}", refused.stderr);
    assert!(refused.stderr.contains("resume"), "{}", refused.stderr);
}

/// Proves that the same environment from another state file is refused, its owner named, and nothing is changed.
#[test]
fn another_state_file_is_refused_and_the_owner_named() {
    let place = TestEnvironment::new();
    place.run(&["run", "deploy-aws-dev", "--sandbox", "--speed", "150"]).expect_code(0);
    let uid = place.run(&["list", "--output", "json"]).json()["runs"][0]["environment_uid"].to_string();
    let before = place.world();
    // A second state file beside the same world: the sandbox directory is shared by a link.
    let other = place.path().join("other");
    std::fs::create_dir(&other).expect("a directory");
    std::os::unix::fs::symlink(place.state().join("sandbox"), other.join("sandbox")).expect("a link");
    let other = other.display().to_string();
    let refused = place.run(&["--state", &other, "run", "deploy-aws-dev", "--sandbox"]);
    assert!([5, 6].contains(&refused.code), "{}: {}", refused.code, refused.stderr);
    let text = format!("{}{}", refused.stdout, refused.stderr);
    assert!(text.contains(uid.trim_matches('"')), "the owner's uid {uid} is named: {text}");
    assert_eq!(before.shape(), place.world().shape());
}

/// Proves that another target than the environment's is exit 2 with nothing called.
#[test]
fn another_target_is_refused_before_any_call() {
    let place = TestEnvironment::new();
    place.run(&["run", "deploy-aws-dev", "--sandbox", "--speed", "150"]).expect_code(0);
    let before = place.counters();
    let refused = place.run(&["run", "deploy-aws-dev", "--sandbox", "--region", "eu-central-1"]).expect_code(2);
    assert!(refused.stderr.contains("eu-central-1"), "{}", refused.stderr);
    let refused = place.run(&["run", "deploy-aws-dev", "--sandbox", "--account", "999999999999"]).expect_code(2);
    assert!(refused.stderr.contains("999999999999"), "{}", refused.stderr);
    let after = place.counters();
    assert_eq!(before["mutating"], after["mutating"]);
}
