//! `platflow approve` and `platflow reject`: production waits for a human, goes on when one agreed, and never when one
//! refused.

use platflow_tests::TestEnvironment;
use serde_json::Value;

const FAST: &str = "400";

/// Production names who reaches the API; the sandbox's machine is in no range that could be known beforehand.
const PRODUCTION: [&str; 7] =
    ["run", "deploy-aws-production", "--sandbox", "--speed", FAST, "--set", "public_access_cidrs=[0.0.0.0/0]"];

fn status(place: &TestEnvironment, run: &str) -> Value {
    place.run(&["status", run, "--output", "json"]).expect_code(0).json()
}

fn step<'a>(status: &'a Value, name: &str) -> &'a Value {
    let steps = status["steps"].as_array().expect("steps");
    steps.iter().find(|step| step["name"] == name).unwrap_or_else(|| panic!("no step {name}"))
}

/// A production run that waits for its approval, with nothing built.
fn waiting() -> (TestEnvironment, String) {
    let place = TestEnvironment::new();
    let parked = place.run(&PRODUCTION).expect_code(5);
    let run = place.newest_run().expect("a run");
    assert!(parked.stderr.contains(&format!("next: platflow approve {run} approval")), "{}", parked.stderr);
    assert!(place.world().made().next().is_none(), "nothing changes before somebody agreed");
    (place, run)
}

/// Proves that production waits before any change (exit 5) and says with which command to agree; that resuming without
/// one waits again; that who agreed, when and why is journaled as the step's outputs; that a decision stands; and that the
/// run then goes on to its end, and its protected cluster can be taken down by name.
#[test]
fn production_waits_for_an_approval_and_goes_on_from_there() {
    let (place, run) = waiting();
    let shown = status(&place, &run);
    assert_eq!(shown["parked"]["why"], "waiting", "{}", shown["parked"]);
    assert_eq!(shown["next"][0], format!("platflow approve {run} approval"));
    assert!(place.run(&["status", &run]).expect_code(0).stdout.contains(&format!("platflow approve {run} approval")));
    place.run(&["resume", &run]).expect_code(5);

    place.run(&["approve", "nosuchrun"]).expect_code(2);
    let none = place.run(&["approve", &run, "network.vpc"]).expect_code(2);
    assert!(none.stderr.contains("it has: approval"), "{}", none.stderr);
    let agreed = place.run(&["approve", &run, "--reason", "change 4711", "--output", "json"]).expect_code(0).json();
    assert_eq!((&agreed["approved"], &agreed["step"]), (&true.into(), &"approval".into()));
    let by = agreed["by"].as_str().expect("a name").to_owned();
    let again = place.run(&["reject", &run, "approval", "--reason", "too late"]).expect_code(6);
    assert!(again.stderr.contains(&by) && again.stderr.contains("change 4711"), "{}", again.stderr);
    assert!(again.stderr.contains(&format!("platflow resume {run}")), "{}", again.stderr);

    place.run(&["resume", &run]).expect_code(0);
    let done = status(&place, &run);
    assert_eq!(done["status"], "done");
    let outputs = &step(&done, "approval")["outputs"];
    assert_eq!((&outputs["approved_by"], &outputs["reason"]), (&by.into(), &"change 4711".into()), "{outputs}");
    assert!(outputs["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{outputs}");
    assert_eq!(place.world().count("ec2:nat-gateway"), 3, "a NAT gateway per zone");
    let over = place.run(&["approve", &run]).expect_code(2);
    assert!(over.stderr.contains("nothing in it waits"), "{}", over.stderr);

    let unconfirmed = place.run(&["destroy", "aws-production"]).expect_code(6);
    assert!(unconfirmed.stderr.contains("--confirm aws-production"), "{}", unconfirmed.stderr);
    place.run(&["destroy", "aws-production", "--confirm", "aws-production"]).expect_code(0);
    let world = place.world();
    let left: Vec<_> = world.made().filter(|one| one.state != "PendingDeletion").collect();
    assert!(left.is_empty(), "{left:#?}");
}

/// Proves that a refused run stays refused: resuming stops with exit 6 and who refused it and why, nothing was built, the
/// way out that is printed works, and a new run asks anew.
#[test]
fn a_rejected_run_changes_nothing_and_can_only_be_ended() {
    let (place, run) = waiting();
    place.run(&["reject", &run]).expect_code(2);
    let refused = place.run(&["reject", &run, "--reason", "freeze until Monday"]).expect_code(0);
    assert!(refused.stderr.contains(&format!("platflow rollback {run}")), "{}", refused.stderr);
    let stuck = place.run(&["resume", &run]).expect_code(6);
    assert!(stuck.stderr.contains("freeze until Monday"), "{}", stuck.stderr);
    assert!(place.world().made().next().is_none());
    place.run(&["rollback", &run]).expect_code(0);
    place.run(&PRODUCTION).expect_code(5);
    assert_ne!(place.newest_run().as_deref(), Some(run.as_str()));
}

/// Proves that somebody who is not among the approvers decides nothing, and is told who can; and that waiting is no failure
/// which `--on-failure rollback` would turn the run back for.
#[test]
fn only_an_approver_decides() {
    let place = TestEnvironment::new();
    let mut arguments = PRODUCTION.to_vec();
    arguments.extend(["--set", "approvers=[ada-of-the-board]", "--on-failure", "rollback"]);
    place.run(&arguments).expect_code(5);
    let run = place.newest_run().expect("a run");
    let refused = place.run(&["approve", &run]).expect_code(6);
    assert!(refused.stderr.contains("ada-of-the-board"), "{}", refused.stderr);
    place.run(&["resume", &run]).expect_code(5);
}

/// Proves that staging goes from nothing to its end without an approval.
#[test]
fn staging_needs_none() {
    let place = TestEnvironment::new();
    place.run(&["run", "deploy-aws-staging", "--sandbox", "--speed", FAST]).expect_code(0);
    let run = place.newest_run().expect("a run");
    assert_eq!(status(&place, &run)["status"], "done");
    assert_eq!(place.world().count("eks:nodegroup"), 3);
}
