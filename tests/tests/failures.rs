//! A step that fails for good, through the real binary: park, rollback, restore, destroy.

use platflow_tests::TestEnvironment;
use platflow_tests::world::World;

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

/// Proves that a second run which changes one step and then fails leaves the world as it was before it.
#[test]
fn a_failing_second_run_restores_what_it_changed() {
    let place = TestEnvironment::new();
    place.run(&["run", "deploy-aws-dev", "--sandbox", "--speed", FAST]).expect_code(0);
    let before = place.world().shape();
    let arguments = [
        "run",
        "deploy-aws-dev",
        "--sandbox",
        "--set",
        "log_retention_days=90",
        "--set",
        "public_access_cidrs=[127.0.0.0/8]",
        "--sandbox-fault",
        "eks:UpdateClusterConfig=error:InvalidParameterException",
        "--on-failure",
        "rollback",
    ];
    place.run(&arguments).expect_code(4);
    assert_eq!(before, place.world().shape());
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

/// Proves that what came up broken is named when the run parks, and that `resume` removes it and builds it again: nobody
/// has to take a run of half an hour back because one gateway failed.
#[test]
fn what_came_up_broken_is_built_again_by_resume() {
    let place = TestEnvironment::new();
    let arguments = [
        "run",
        "deploy-aws-dev",
        "--sandbox",
        "--speed",
        FAST,
        "--sandbox-fault",
        "ec2:CreateNatGateway=nat_gateway_fails*1",
    ];
    let parked = place.run(&arguments).expect_code(5);
    assert!(parked.stderr.contains("removed and built again"), "{}", parked.stderr);
    let run = place.newest_run().expect("a run");
    place.run(&["resume", &run]).expect_code(0);
    let world = place.world();
    let gateways: Vec<_> = world.made().filter(|one| one.kind == "ec2:nat-gateway").collect();
    assert_eq!(gateways.len(), 1, "{gateways:#?}");
    assert_eq!(gateways[0].state, "available");
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
