//! `platflow plan` and the look-ups that every run begins with: what does not fit is said before anything is made.

use platflow_tests::TestEnvironment;

const FAST: &str = "400";
const TOO_MANY: &str = "pools={system: {instance_types: [t3.large], architecture: x86_64, capacity: ON_DEMAND, disk_gib: 100, \
    min: 3, desired: 3, max: 6, labels: {platform/pool: system}, taints: []}, \
    apps: {instance_types: [t3.xlarge], architecture: x86_64, capacity: ON_DEMAND, disk_gib: 150, \
    min: 3, desired: 20, max: 20, labels: {platform/pool: apps}, taints: []}, \
    data: {instance_types: [r6g.large], architecture: arm64, capacity: ON_DEMAND, disk_gib: 300, \
    min: 2, desired: 2, max: 4, labels: {platform/pool: data}, taints: []}}";

fn mutations(place: &TestEnvironment) -> u64 {
    place.counters()["mutating"]["total"].as_u64().expect("a count")
}

/// Proves that a quota of machines that does not suffice stops a run before its first mutation, with the numbers and the
/// command that asks for more, and that a plan says the same.
#[test]
fn a_quota_of_machines_that_does_not_suffice_is_told_before_anything_is_made() {
    let place = TestEnvironment::new();
    let run = place.run(&["run", "deploy-aws-dev", "--sandbox", "--speed", FAST, "--set", TOO_MANY]).expect_code(6);
    for word in ["64 vCPU", "90 are needed", "L-1216C47A", "request-service-quota-increase", "--desired-value 90"] {
        assert!(run.stderr.contains(word), "{word}: {}", run.stderr);
    }
    assert_eq!(mutations(&place), 0);
    assert_eq!(place.newest_run(), None, "nothing was begun");
    let plan = place.run(&["plan", "deploy-aws-dev", "--sandbox", "--set", TOO_MANY]).expect_code(3);
    assert!(plan.stdout.contains("90 are needed"), "{}", plan.stdout);
    assert_eq!(mutations(&place), 0);
}

/// Proves that VPCs and addresses of others count: with all of them taken, the run stops before its first mutation.
#[test]
fn what_others_use_of_a_quota_counts() {
    for (kind, code) in [("vpc", "L-F678F1CE"), ("elastic_ip", "L-0263D0A3")] {
        let place = TestEnvironment::new();
        place.run(&["sandbox", "start", "--speed", FAST]).expect_code(0);
        for number in 0..5 {
            place.run(&["sandbox", "foreign", kind, &format!("theirs-{number}")]).expect_code(0);
        }
        let before = mutations(&place);
        let run = place.run(&["run", "deploy-aws-dev", "--sandbox"]).expect_code(6);
        assert!(run.stderr.contains(code) && run.stderr.contains("5 are in use"), "{kind}: {}", run.stderr);
        assert_eq!(mutations(&place), before, "{kind}");
    }
}

/// Proves that quotas of namespaces beyond what the nodes have are told by a plan and at the start of a run, and stop
/// neither.
#[test]
fn quotas_beyond_the_nodes_are_told_by_plan_and_run() {
    let place = TestEnvironment::new();
    let wanted = "may request 68 CPU and 136 Gi in all, the nodes have 22 CPU and 104 Gi";
    let plan = place.run(&["plan", "deploy-aws-dev", "--sandbox", "--speed", FAST]).expect_code(3);
    assert!(plan.stdout.contains(wanted), "{}", plan.stdout);
    let plan = place.run(&["plan", "deploy-aws-dev", "--sandbox", "--output", "json"]).expect_code(3).json();
    assert!(plan["warnings"][0].as_str().is_some_and(|told| told.contains(wanted)), "{}", plan["warnings"]);
    assert_eq!(mutations(&place), 0, "a plan changes nothing");
    let fault = "logs:CreateLogGroup=error:AccessDeniedException";
    let run = place.run(&["run", "deploy-aws-dev", "--sandbox", "--sandbox-fault", fault]).expect_code(5);
    assert!(run.stderr.contains(wanted), "{}", run.stderr);
}

/// Proves that the Kubernetes version stays pinned when the parameter that named it is gone, that a plan told to ask anew
/// shows what would follow and changes nothing, and that a run told so moves there once: the next one changes nothing.
#[test]
fn a_pinned_version_moves_only_when_it_is_asked_anew() {
    let place = TestEnvironment::new();
    let old = ["run", "deploy-aws-dev", "--sandbox", "--speed", FAST, "--set", "kubernetes_version=1.35"];
    place.run(&old).expect_code(0);
    let before = mutations(&place);
    let pinned = place.run(&["plan", "deploy-aws-dev", "--sandbox"]).stdout;
    assert!(!pinned.contains("/version"), "{pinned}");
    let refresh = ["--refresh", "kubernetes_version"];
    let mut arguments = vec!["plan", "deploy-aws-dev", "--sandbox"];
    arguments.extend(refresh);
    let moved = place.run(&arguments).expect_code(3).stdout;
    assert!(moved.contains("/version: \"1.35\" -> \"1.36\""), "{moved}");
    assert_eq!(mutations(&place), before, "a plan changes nothing");
    arguments[0] = "run";
    let run = place.run(&arguments).expect_code(0);
    assert!(run.stdout.contains("Kubernetes 1.36"), "{}", run.stdout);
    let outside_smoke = || place.counters()["mutating"]["outside_smoke"].clone();
    let before = outside_smoke();
    place.run(&["run", "deploy-aws-dev", "--sandbox"]).expect_code(0);
    assert_eq!(outside_smoke(), before, "pinned again");
}
