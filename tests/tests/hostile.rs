//! A cloud that lags, fails and leaks, through the real binary: the same world in the end, and nothing left of it.

use platflow_tests::TestEnvironment;
use platflow_tests::scale::scale;
use platflow_tests::world::World;

const FAST: &str = "150";
/// So often a parked run is resumed before the test gives up on it.
const RESUMES: usize = 10;

fn left(world: &World) -> Vec<String> {
    let waits = |kind: &str, state: &str| kind == "kms:key" && state == "PendingDeletion";
    let left = world.resources.iter().filter(|resource| !waits(&resource.kind, &resource.state));
    left.map(|resource| format!("{} {} {}", resource.kind, resource.id, resource.name)).collect()
}

fn calm_world() -> World {
    let place = TestEnvironment::new();
    place.run(&["run", "deploy-aws-dev", "--sandbox", "--speed", FAST]).expect_code(0);
    place.world()
}

/// Proves that a deployment under each profile and several seeds ends with exit 0, or parked so that `resume` finishes it,
/// in the world of an undisturbed one, nothing missing and nothing twice; and that it is taken down to nothing.
#[test]
fn every_profile_ends_in_the_same_world() {
    let undisturbed = calm_world().shape();
    for seed in 1..=scale().of(1, 8) {
        for profile in ["eventual", "flaky", "throttled"] {
            let place = TestEnvironment::new();
            let seeded = format!("{profile}:{seed}");
            let mut last =
                place.run(&["run", "deploy-aws-dev", "--sandbox", "--speed", FAST, "--sandbox-faults", &seeded]);
            let run = place.newest_run().expect("a run");
            for _ in 0..RESUMES {
                if last.code != 5 {
                    break;
                }
                last = place.run(&["resume", &run]);
            }
            last.expect_code(0);
            assert_eq!(undisturbed, place.world().shape(), "{seeded}");
            place.run(&["sandbox", "fault"]).expect_code(0);
            place.run(&["destroy", "aws-dev", "--confirm", "aws-dev"]).expect_code(0);
            assert_eq!(left(&place.world()), Vec::<String>::new(), "{seeded}");
        }
    }
}

/// Proves that destroy takes along what controllers and EKS leave in our VPC or make again: interfaces of the network
/// add-on, security groups with rules that tie them together, the cluster's own group, a log group that comes again.
#[test]
fn destroy_takes_leftovers_of_controllers_along() {
    let place = TestEnvironment::new();
    place.run(&["run", "deploy-aws-dev", "--sandbox", "--speed", FAST]).expect_code(0);
    for kind in [
        "cni_interface",
        "controller_security_group",
        "cluster_security_group",
        "remote_access_security_group",
        "log_group",
    ] {
        place.run(&["sandbox", "leak", kind]).expect_code(0);
    }
    place.run(&["destroy", "aws-dev", "--confirm", "aws-dev"]).expect_code(0);
    // The last events of the cluster arrive minutes after its end.
    assert_eq!(left(&place.world()), Vec::<String>::new());
}

/// Proves that a clashing resource of somebody else stops the run with its name, and is still there afterwards.
#[test]
fn resources_of_others_are_named_and_left_alone() {
    for (kind, name, check) in [
        ("iam_role", "platflow-aws-dev-cluster", "name.role"),
        ("log_group", "/aws/eks/platflow-aws-dev/cluster", "name.log-group"),
    ] {
        let place = TestEnvironment::new();
        place.run(&["sandbox", "foreign", kind, name]).expect_code(0);
        let run = place.run(&["run", "deploy-aws-dev", "--sandbox", "--speed", FAST, "--skip-preflight", check]);
        let text = format!("{}{}", run.stdout, run.stderr);
        assert!([5, 6].contains(&run.code), "{kind}: {text}");
        assert!(text.contains("team-blue"), "{kind}: its owner is named: {text}");
        let id = place.newest_run().expect("a run");
        place.run(&["rollback", &id, "--confirm", "aws-dev"]).expect_code(0);
        let theirs: Vec<_> = left(&place.world()).into_iter().filter(|line| line.contains(name)).collect();
        assert_eq!(theirs.len(), 1, "{kind}: {theirs:?}");
        assert_eq!(left(&place.world()).len(), 1, "{kind}: only theirs is left");
    }
}
