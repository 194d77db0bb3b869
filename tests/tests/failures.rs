//! A step that fails for good, through the real binary: park, rollback, restore, destroy.

use platflow_tests::world::World;
use platflow_tests::{TestEnvironment, durable};
use serde_json::Value;

const FAST: &str = "150";
const RULE: &str = "eks:CreateNodegroup:data=error:InvalidParameterException";

fn assert_empty(world: &World, when: &str) {
    let left: Vec<_> = world
        .resources
        .iter()
        .filter(|resource| !(resource.kind == "kms:key" && resource.state == "PendingDeletion"))
        .collect();
    assert!(left.is_empty(), "{when} left {left:#?}");
}

/// Proves that a parked run exits 5 and names the step, what is left and the next command; and that once the fault is
/// gone, that command finishes the run.
#[test]
fn a_failure_parks_and_the_named_command_goes_on() {
    let place = TestEnvironment::new();
    let run =
        place.run(&["run", "deploy-aws-dev", "--sandbox", "--speed", FAST, "--sandbox-fault", RULE]).expect_code(5);
    let id = place.newest_run().expect("a run");
    let text = format!("{}{}", run.stdout, run.stderr);
    assert!(text.contains("InvalidParameterException"), "{text}");
    assert!(text.contains(&format!("platflow resume {id}")), "{text}");
    assert!(text.contains(&format!("platflow rollback {id}")), "{text}");
    assert!(
        text.contains("ec2:vpc") || text.contains("aws.vpc") || text.contains("network.vpc"),
        "what is left: {text}"
    );
    place.run(&["sandbox", "fault"]).expect_code(0);
    place.run(&["resume", &id]).expect_code(0);
    assert_eq!(place.world().count("eks:nodegroup"), 3);
}

/// Proves that `--on-failure rollback` of the first run exits 4 and leaves an empty world.
#[test]
fn a_failing_first_run_rolls_back_to_nothing() {
    let place = TestEnvironment::new();
    let arguments =
        ["run", "deploy-aws-dev", "--sandbox", "--speed", FAST, "--sandbox-fault", RULE, "--on-failure", "rollback"];
    place.run(&arguments).expect_code(4);
    assert_empty(&place.world(), "the rollback");
}

/// The journal's place of the first event of that kind, of that step if one is named.
fn at(journal: &[Value], event: &str, step: &str) -> Option<usize> {
    journal.iter().position(|one| one["event"] == event && (step.is_empty() || one["step"] == step))
}

/// A deployment, then one that changes `changed` (which `step` does, and is proven to have done), and fails for good by
/// `fault`: what was changed is restored in every field that the runbook sets, and nothing came or went.
fn assert_restored(changed: &[&str], step: &str, fault: &str) {
    let place = TestEnvironment::new();
    place.run(&["run", "deploy-aws-dev", "--sandbox", "--speed", FAST]).expect_code(0);
    let before = place.world().shape();
    let set: Vec<&str> = changed.iter().flat_map(|changed| ["--set", *changed]).collect();
    let run = ["run", "deploy-aws-dev", "--sandbox", "--sandbox-fault", fault, "--on-failure", "rollback"];
    place.run(&[&run[..], &set[..]].concat()).expect_code(4);
    let journal = durable::journal(&place, &place.newest_run().expect("a run"));
    let verified = at(&journal, "step-verified", step).unwrap_or_else(|| panic!("{step} was not changed"));
    assert_eq!(journal[verified]["effect"], "changed", "{}", journal[verified]);
    assert!(Some(verified) < at(&journal, "direction-set", ""), "{step} was changed before the rollback");
    assert_eq!(before, place.world().shape());
    let plan = place.run(&["plan", "deploy-aws-dev", "--sandbox"]);
    assert_eq!(plan.code, 0, "it is not as it was:\n{}", plan.stdout);
    // That a plan sees such a change at all.
    let plan = ["plan", "deploy-aws-dev", "--sandbox"];
    let seen = place.run(&[&plan[..], &set[..]].concat()).expect_code(3);
    assert!(seen.stdout.contains(&format!("change   {step}")), "{}", seen.stdout);
}

/// Proves that a second run which changes one step and then fails leaves the world as it was before it: a log group and
/// what was looked up for it.
#[test]
fn a_failing_second_run_restores_what_it_changed() {
    assert_restored(
        &["log_retention_days=90", "public_access_cidrs=[127.0.0.0/8]"],
        "cluster.logs",
        "eks:UpdateClusterConfig=error:InvalidParameterException",
    );
}

/// Proves the same of a template for machines, which only ever gets new versions: the former one is in force again.
#[test]
fn a_failing_change_of_a_pool_puts_its_template_back() {
    let system = "{instance_types: [t3.large], architecture: x86_64, capacity: ON_DEMAND, disk_gib: 120, min: 3, desired: 3, max: 7, labels: {platform/pool: system}, taints: []}";
    let apps = "{instance_types: [t3.xlarge, t3a.xlarge, m5.xlarge, m5a.xlarge, m6i.xlarge], architecture: x86_64, capacity: SPOT, disk_gib: 150, min: 3, desired: 3, max: 10, labels: {platform/pool: apps}, taints: []}";
    let data = "{instance_types: [r6g.large], architecture: arm64, capacity: ON_DEMAND, disk_gib: 300, min: 2, desired: 2, max: 4, labels: {platform/pool: data}, taints: [{key: platform/pool, value: data, effect: NO_SCHEDULE}]}";
    assert_restored(
        &[&format!("pools={{system: {system}, apps: {apps}, data: {data}}}")],
        "pools.system.template",
        "eks:UpdateNodegroupVersion=error:InvalidParameterException",
    );
}

/// Proves that the run that built everything rolls back to nothing, but only after the environment's name was typed.
#[test]
fn rollback_of_a_finished_run_wants_confirmation_and_leaves_nothing() {
    let place = TestEnvironment::new();
    place.run(&["run", "deploy-aws-dev", "--sandbox", "--speed", FAST]).expect_code(0);
    let run = place.newest_run().expect("a run");
    let before = place.world().shape();
    let refused = place.run(&["rollback", &run]).expect_code(6);
    assert!(refused.stderr.contains("--confirm aws-dev"), "{}", refused.stderr);
    assert_eq!(before, place.world().shape(), "nothing was touched without confirmation");
    place.run(&["rollback", &run, "--confirm", "aws-dev"]).expect_code(0);
    assert_empty(&place.world(), "the rollback");
}

/// Proves that `destroy` takes down what several runs built.
#[test]
fn destroy_empties_the_world_after_several_runs() {
    let place = TestEnvironment::new();
    place.run(&["run", "deploy-aws-dev", "--sandbox", "--speed", FAST]).expect_code(0);
    place.run(&["run", "deploy-aws-dev", "--sandbox", "--set", "log_retention_days=90"]).expect_code(0);
    place.run(&["destroy", "aws-dev"]).expect_code(6);
    place.run(&["destroy", "aws-dev", "--confirm", "aws-dev"]).expect_code(0);
    assert_empty(&place.world(), "destroy");
}

/// Proves that Argo CD gets the credentials of a private repository, that they are nowhere in what platflow writes, and
/// that a second run finds nothing to do.
#[test]
fn a_private_repository_is_read_with_credentials_that_are_never_written_down() {
    let place = TestEnvironment::new();
    let file = place.path().join("token");
    std::fs::write(&file, "glpat-never-written-down\n").expect("a file");
    let credentials = format!("gitops_credentials={{username: deploy, password_file: {}}}", file.display());
    let repo = "gitops_repo=https://git.example.com/platform/root.git";
    let arguments = ["run", "deploy-aws-dev", "--sandbox", "--speed", FAST, "--set", repo, "--set", &credentials];
    let run = place.run(&arguments).expect_code(0);
    assert!(!run.stdout.contains("glpat") && !run.stderr.contains("glpat"));
    let world = place.world();
    let named = |kind: &str, name: &str| world.made().any(|one| one.kind == kind && one.name.ends_with(name));
    assert!(named("kubernetes:Secret", "/platflow-root-repository"), "the repository's Secret");
    assert!(named("kubernetes:Application", "/root"), "the root application");
    for entry in std::fs::read_dir(place.state()).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            let content = std::fs::read(&path).expect("readable");
            let found = content.windows(5).any(|window| window == b"glpat");
            assert!(!found, "{} holds the token", path.display());
        }
    }
    let before = place.counters()["mutating"]["outside_smoke"].clone();
    place.run(&arguments).expect_code(0);
    assert_eq!(before, place.counters()["mutating"]["outside_smoke"], "the second run changed something");
}
