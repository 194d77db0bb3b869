//! What a cloud fails to deliver, through the real binary: gateways that fail, machines that never join, capacity that is
//! not there, namespaces that a finalizer holds. Each is named while it lasts and when the run stops for it, and `resume`
//! builds what is broken again.

use platflow_tests::world::World;
use platflow_tests::{TestEnvironment, durable};
use serde_json::Value;

const FAST: &str = "150";
/// Waits of a quarter of an hour in a second and a half.
const FASTEST: &str = "600";
const SMALL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/small-cluster.yaml");

/// Deploys under a fault until it stops for it; the run, and what it said.
fn parked(place: &TestEnvironment, speed: &str, fault: &str) -> (String, String) {
    let arguments = ["run", "deploy-aws-dev", "--sandbox", "--speed", speed, "--sandbox-fault", fault];
    let parked = place.run(&arguments).expect_code(5);
    (place.newest_run().expect("a run"), parked.stderr)
}

/// When, in the order of the journal, a step first told something that contains `words` in an event of that kind.
fn told(journal: &[Value], kind: &str, step: &str, words: &str) -> Option<usize> {
    journal
        .iter()
        .position(|event| event["event"] == kind && event["step"] == step && event.to_string().contains(words))
}

/// Resumes to the end; every node group is there once, and works.
fn assert_resumes(place: &TestEnvironment, run: &str) -> World {
    place.run(&["resume", run]).expect_code(0);
    let world = place.world();
    let groups: Vec<_> = world.made().filter(|one| one.kind == "eks:nodegroup").collect();
    assert_eq!(groups.len(), 3, "{groups:#?}");
    assert!(groups.iter().all(|group| group.state == "ACTIVE"), "{groups:#?}");
    world
}

/// Proves that what came up broken is named when the run parks, and that `resume` removes it and builds it again: nobody
/// has to take a run of half an hour back because one gateway failed.
#[test]
fn what_came_up_broken_is_built_again_by_resume() {
    let place = TestEnvironment::new();
    let (run, said) = parked(&place, FAST, "ec2:CreateNatGateway=nat_gateway_fails*1");
    assert!(said.contains("removed and built again"), "{said}");
    let world = assert_resumes(&place, &run);
    let gateways: Vec<_> = world.made().filter(|one| one.kind == "ec2:nat-gateway").collect();
    assert_eq!(gateways.len(), 1, "{gateways:#?}");
    assert_eq!(gateways[0].state, "available");
}

/// Proves that machines which run and do not join are told of, by their ids and with what to look at, long before EKS
/// gives up on them; that the run then stops with EKS's own words as well; and that `resume` builds the group again.
#[test]
fn nodes_that_never_join_are_diagnosed_early_and_built_again() {
    let place = TestEnvironment::new();
    let (run, said) = parked(&place, FAST, "eks:CreateNodegroup:ARM_64=node_group_never_joins*1");
    assert!(said.contains("NodeCreationFailure") && said.contains("removed and built again"), "{said}");
    assert!(said.contains("2 machine(s) run and have not joined the cluster (i-"), "{said}");
    assert!(said.contains("get-console-output") && said.contains("pools.data.nodes"), "{said}");
    let journal = durable::journal(&place, &run);
    let early = told(&journal, "step-waiting", "pools.data.nodes", "have not joined the cluster (i-");
    let failed = told(&journal, "step-failed", "pools.data.nodes", "CREATE_FAILED");
    assert!(early.is_some() && early < failed, "diagnosed at {early:?}, failed at {failed:?}");
    // The group had not failed yet: that was told from what the machines and their network showed.
    assert!(!journal[early.expect("a diagnosis")].to_string().contains("NodeCreationFailure"));
    assert_resumes(&place, &run);
}

/// Proves that a lack of spot capacity is told of while EKS still tries, and when it gave up, and that `resume` gets the
/// group once there is capacity again.
#[test]
fn spot_capacity_that_is_not_there_is_named_and_waited_for_by_resume() {
    let place = TestEnvironment::new();
    let (run, said) = parked(&place, FAST, "eks:CreateNodegroup:SPOT=no_capacity*1");
    assert!(said.contains("InsufficientInstanceCapacity") && said.contains("pools.apps.nodes"), "{said}");
    assert!(said.contains("Spot") && said.contains("removed and built again"), "{said}");
    let journal = durable::journal(&place, &run);
    let early = told(&journal, "step-waiting", "pools.apps.nodes", "InsufficientInstanceCapacity");
    let failed = told(&journal, "step-failed", "pools.apps.nodes", "CREATE_FAILED");
    assert!(early.is_some() && early < failed, "told at {early:?}, failed at {failed:?}");
    assert_resumes(&place, &run);
}

/// Proves that a rollback which a finalizer holds up tells the object and the finalizer, while it waits and when it stops
/// for it, has lost nothing by then, and is gone on from to an empty world once the finalizer is off.
#[test]
fn a_finalizer_that_holds_a_rollback_up_is_named_with_its_object() {
    let place = TestEnvironment::new();
    place.run(&["run", SMALL, "--sandbox", "--speed", FASTEST]).expect_code(0);
    let run = place.newest_run().expect("a run");
    // Longer than a namespace is waited for, at this speed.
    place.run(&["sandbox", "fault", "kubernetes:DELETE:namespaces/small=stuck_finalizer:12000"]).expect_code(0);
    let stuck = place.run(&["rollback", &run, "--confirm", "small"]).expect_code(5);
    let holder = "configmaps small/left-by-a-controller is held by finalizer sandbox.platflow/stuck";
    assert!(stuck.stderr.contains(holder), "{}", stuck.stderr);
    assert!(stuck.stderr.contains(&format!("platflow resume {run}")), "{}", stuck.stderr);
    let journal = durable::journal(&place, &run);
    let waited = told(&journal, "undo-waiting", "namespace", holder);
    let failed = told(&journal, "undo-failed", "namespace", holder);
    assert!(waited.is_some() && waited < failed, "told at {waited:?}, failed at {failed:?}");
    assert_eq!(place.world().count("eks:cluster"), 1, "the cluster is still there for whoever looks into it");
    place.run(&["resume", &run]).expect_code(0);
    assert_eq!(place.world().shape(), std::collections::BTreeMap::new());
}
