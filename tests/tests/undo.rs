//! Rollback and destroy through the real binary: shown before, proven after, stopped by strangers, and complete from every
//! half-built world, whatever controllers left behind.

use platflow_report::Sweep;
use platflow_tests::TestEnvironment;
use platflow_tests::durable;
use platflow_tests::scale::scale;
use platflow_tests::world::{Resource, World};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const FAST: &str = "150";
/// As fast as it goes, where the worlds are many.
const FASTEST: &str = "600";
/// Half-built worlds of every day.
const CI_WORLDS: usize = 40;
const LIMIT: Duration = Duration::from_secs(240);

/// Every kind of somebody else's resource that the sandbox can make.
const FOREIGN: [&str; 11] = [
    "vpc",
    "iam_role",
    "log_group",
    "kms_alias",
    "eks_cluster",
    "elastic_ip",
    "security_group",
    "network_interface",
    "load_balancer",
    "volume",
    "namespace",
];

/// Every kind of leftover that the sandbox can make.
const LEAKS: [&str; 14] = [
    "service_load_balancer",
    "ingress_load_balancer",
    "target_group",
    "controller_security_group",
    "cni_interface",
    "cluster_security_group",
    "remote_access_security_group",
    "csi_volume",
    "csi_snapshot",
    "log_group",
    "oidc_provider",
    "elastic_ip",
    "node_group_remains",
    "kms_alias",
];

/// What is left but for keys that wait for their deletion.
fn left(world: &World) -> Vec<String> {
    let waits = |kind: &str, state: &str| kind == "kms:key" && state == "PendingDeletion";
    let left = world.resources.iter().filter(|resource| !waits(&resource.kind, &resource.state));
    left.map(|resource| format!("{} {} {}", resource.kind, resource.id, resource.name)).collect()
}

fn deployed() -> (TestEnvironment, String) {
    let place = TestEnvironment::new();
    place.run(&["run", "deploy-aws-dev", "--sandbox", "--speed", FAST]).expect_code(0);
    let run = place.newest_run().expect("a run");
    (place, run)
}

fn certificate(place: &TestEnvironment, run: &str) -> Value {
    place.run(&["status", run, "--output", "json"]).expect_code(0).json()["residue_certificate"].clone()
}

/// Proves that the run ended with a certificate of many searches on which nothing of ours is left.
fn assert_certified(place: &TestEnvironment, run: &str, when: &str) {
    let certificate = certificate(place, run);
    assert!(certificate["searches"].as_array().is_some_and(|all| all.len() > 5), "{when}: {certificate}");
    assert_eq!(certificate["clean"], true, "{when}: {certificate}");
}

/// Proves that a rollback is shown before it is done and changes nothing until then, that going back to a step keeps that
/// step and what it stands on and can be gone forward from again, and that the whole one ends with a certificate.
#[test]
fn a_rollback_is_shown_first_goes_to_a_step_and_is_certified() {
    let (place, run) = deployed();
    let before = place.world().shape();
    let shown = place.run(&["rollback", &run, "--plan", "--output", "json"]).expect_code(3).json();
    let steps = shown["steps"].as_array().expect("steps");
    let removed = steps.iter().filter(|step| step["action"] == "remove" || step["action"] == "gone-with").count();
    assert!(removed > 70, "{removed} of {} would go", steps.len());
    assert!(steps.iter().any(|step| step["step"] == "vault.init" && step["destroys_data"] == true), "{shown}");
    assert_eq!(before, place.world().shape(), "showing it changes nothing");

    place.run(&["rollback", &run, "--to", "no-such-step"]).expect_code(2);
    let back = ["rollback", &run, "--to", "cluster.cluster", "--confirm", "aws-dev"];
    place.run(&back).expect_code(0);
    let half = place.world();
    assert_eq!((half.count("eks:cluster"), half.count("ec2:vpc"), half.count("eks:nodegroup")), (1, 1, 0));
    place.run(&["resume", &run]).expect_code(0);
    // All but Vault's storage, which is another one: what it held went with the rollback, as was agreed to.
    let but_vault = |mut shape: BTreeMap<String, usize>| {
        shape.retain(|resource, _| !resource.starts_with("vault:cluster"));
        shape
    };
    let after = place.world();
    assert_eq!(after.count("vault:cluster"), 1);
    assert_eq!(but_vault(before), but_vault(after.shape()), "and forward again");

    place.run(&["rollback", &run, "--confirm", "aws-dev"]).expect_code(0);
    assert_eq!(left(&place.world()), Vec::<String>::new());
    assert_certified(&place, &run, "the whole rollback");
    let forgotten = place.run(&["forget", "aws-dev"]).expect_code(0);
    assert!(
        forgotten.stderr.contains("nothing is on record"),
        "what was only looked at is off the record: {}",
        forgotten.stderr
    );
    let text = place.run(&["status", &run]).expect_code(0).stdout;
    assert!(text.contains("residue certificate") && text.contains("ec2:DescribeNetworkInterfaces"), "{text}");
}

/// Proves that each resource of somebody else inside of what is to go stops the rollback with exit 6 and its name, is not
/// touched, and that keeping what it stands in, or forgetting it, is a way out that leaves theirs alone.
#[test]
fn a_strangers_resource_stops_a_rollback_and_there_are_ways_out() {
    let (place, run) = deployed();
    let planted = place.run(&["sandbox", "foreign", "network_interface", "their-lambda"]).expect_code(0).json();
    let interface = planted["planted"][0].as_str().or(planted[0].as_str()).unwrap_or_default().to_owned();
    let stopped = place.run(&["rollback", &run, "--confirm", "aws-dev"]).expect_code(6);
    let told = format!("{}{}", stopped.stdout, stopped.stderr);
    assert!(told.contains("eni-") && told.contains("team-blue"), "it is named, with its owner: {told}");
    assert!(told.contains("--keep") && told.contains("platflow forget"), "so are the ways out: {told}");
    let stands =
        |place: &TestEnvironment| left(&place.world()).into_iter().any(|line| line.contains("network-interface"));
    assert!(stands(&place), "{interface} is left alone");
    let blocked = place.run(&["status", &run, "--output", "json"]).json();
    let stuck: Vec<String> = blocked["steps"]
        .as_array()
        .expect("steps")
        .iter()
        .filter(|step| step["state"] == "undo-failed")
        .filter_map(|step| step["name"].as_str().map(str::to_owned))
        .collect();
    assert!(!stuck.is_empty(), "{blocked}");
    let mut keep = vec!["rollback", &run, "--confirm", "aws-dev"];
    for step in &stuck {
        keep.extend(["--keep", step]);
    }
    place.run(&keep).expect_code(0);
    assert!(stands(&place), "{interface} is still there");
    let world = place.world();
    assert_eq!((world.count("ec2:vpc"), world.count("eks:cluster"), world.count("ec2:nat-gateway")), (1, 0, 0));
    assert_certified(&place, &run, "what was kept is no residue");

    place.run(&["forget", "aws-dev"]).expect_code(6);
    place.run(&["forget", "aws-dev", "--confirm", "aws-dev"]).expect_code(0);
    assert_eq!(place.world().count("ec2:vpc"), 1, "forgetting touches nothing");
    let nothing = place.run(&["forget", "aws-dev"]).expect_code(0);
    assert!(nothing.stderr.contains("nothing is on record"), "{}", nothing.stderr);
}

/// Proves that destroy takes along every kind of leftover that controllers, drivers and EKS are known for, and ends with a
/// certificate.
#[test]
fn every_kind_of_leftover_goes_along() {
    let (place, _) = deployed();
    for kind in LEAKS {
        place.run(&["sandbox", "leak", kind]).expect_code(0);
    }
    let end = place.run(&["destroy", "aws-dev", "--confirm", "aws-dev"]);
    assert_eq!((end.code, left(&place.world())), (0, Vec::new()), "{}{}", end.stdout, end.stderr);
    assert_certified(&place, &place.newest_run().expect("a run"), "destroy");
}

/// How many events a whole run has at the least: how often it waits differs.
fn events_of_a_whole_run() -> usize {
    let (place, run) = deployed();
    let journal = durable::journal(&place, &run);
    journal.iter().filter(|event| event["event"] != "step-waiting").count()
}

/// Proves that rollback or destroy of worlds that were cut off half-way by SIGKILL, at moments spread over the whole run,
/// with leftovers planted wherever there is already something to hang them on, leaves nothing and writes a certificate;
/// every other one is killed once more on the way back.
#[test]
fn half_built_worlds_are_taken_down_to_nothing() {
    let sweep = Sweep::begin("rollbacks from half-built worlds");
    let worlds = scale().of(CI_WORLDS, 80);
    let events = events_of_a_whole_run();
    // Before that hardly anything stands.
    let begun = 20;
    assert!(events > begun + worlds * 2, "{events} events: no two worlds are cut off at the same one");
    let (mut kinds, mut standing) = (BTreeSet::new(), BTreeSet::new());
    for number in 0..worlds {
        let place = TestEnvironment::new();
        let cut = u64::try_from(begun + (number * 2 + 1) * (events - begun) / (worlds * 2)).expect("a count");
        let mut running = place.start(&["run", "deploy-aws-dev", "--sandbox", "--speed", FASTEST, "--output", "jsonl"]);
        assert!(running.kill_after_lines(cut, LIMIT), "cut after {cut} of {events} events: it had ended before");
        let run = place.newest_run().expect("a run");
        let mut planted = Vec::new();
        for offset in 0..4 {
            // Another four for each world, so that no two of them are the same.
            let kind = LEAKS[(number + offset * (1 + number / LEAKS.len())) % LEAKS.len()];
            if place.run(&["sandbox", "leak", kind]).code == 0 {
                planted.push(kind);
            }
        }
        kinds.extend(planted.iter().copied());
        standing.insert(place.world().shape());
        let when = format!("cut after {cut} events, with {planted:?}");
        let mut back = vec!["rollback", run.as_str(), "--confirm", "aws-dev"];
        if number % 2 == 0 {
            back.extend(["--output", "jsonl"]);
            let mut running = place.start(&back);
            running.kill_after_lines(20 + cut / 4, LIMIT);
            back = vec!["resume", run.as_str()];
            if place.run(&["status", &run, "--output", "json"]).json()["status"] == "rolled-back" {
                back = vec!["status", run.as_str()];
            }
        }
        let end = place.run(&back);
        let state = place.run(&["status", &run, "--output", "json"]).json()["status"].clone();
        assert_eq!((end.code, left(&place.world())), (0, Vec::new()), "{when} ({state}): {}{}", end.stdout, end.stderr);
        assert_certified(&place, &run, &when);
    }
    let counted = format!("{} distinct worlds, with {} kinds of leftovers: {kinds:?}", standing.len(), kinds.len());
    sweep.end(worlds, "none, spread evenly", counted);
    assert!(standing.len() >= scale().of(CI_WORLDS * 3 / 4, 60), "only {} of {worlds} differ", standing.len());
    let least = scale().of(8, LEAKS.len());
    assert!(kinds.len() >= least, "leftovers of {} kinds only: {kinds:?}", kinds.len());
}

/// Proves that each other way in which a run ends early leads back to nothing: a wait that took too long, a cancellation,
/// and a rollback that itself failed and is gone on from.
#[test]
fn whatever_ended_a_run_early_it_is_taken_back_to_nothing() {
    let place = TestEnvironment::new();
    let fault = "eks:CreateAddon:coredns=addon_degraded:86400";
    let arguments =
        ["run", "deploy-aws-dev", "--sandbox", "--speed", "600", "--sandbox-fault", fault, "--on-failure", "rollback"];
    let end = place.run(&arguments).expect_code(4);
    assert!(end.stderr.contains("WaitExhausted"), "{}", end.stderr);
    assert_eq!(left(&place.world()), Vec::<String>::new(), "after a wait that took too long");
    assert_certified(&place, &place.newest_run().expect("a run"), "too long");

    let place = TestEnvironment::new();
    let mut running = place.start(&["run", "deploy-aws-dev", "--sandbox", "--speed", FAST, "--output", "jsonl"]);
    assert!(running.read_lines(90, LIMIT), "the run ended before");
    let run = place.newest_run().expect("a run");
    place.run(&["cancel", &run]).expect_code(0);
    running.close_lines();
    assert_ne!(running.wait().code, 0, "a cancelled run is not done");
    assert_ne!(left(&place.world()), Vec::<String>::new(), "something was made until then");
    place.run(&["sandbox", "fault", "eks:DeleteCluster=error:InvalidParameterException*1"]).expect_code(0);
    let failed = place.run(&["rollback", &run, "--confirm", "aws-dev"]).expect_code(5);
    assert!(failed.stderr.contains("InvalidParameterException"), "{}", failed.stderr);
    assert_eq!(place.world().count("eks:cluster"), 1, "it could not be deleted");
    place.run(&["resume", &run]).expect_code(0);
    assert_eq!(left(&place.world()), Vec::<String>::new(), "after a cancellation and a failed rollback");
    assert_certified(&place, &run, "cancelled");
}

/// Proves that of every kind of somebody else's resource, beside what is to go, under its names or inside of it, none is
/// touched by a rollback, which stops for those that are in its way.
#[test]
fn no_kind_of_a_strangers_resource_is_touched() {
    let (place, run) = deployed();
    let before = place.world();
    for kind in FOREIGN {
        let planted = place.run(&["sandbox", "foreign", kind, &format!("blue-{kind}")]).expect_code(0).json();
        assert!(planted["planted"].as_array().is_some_and(|ids| !ids.is_empty()), "{kind}: {planted}");
    }
    let known: BTreeSet<&str> = before.resources.iter().map(|resource| resource.id.as_str()).collect();
    let theirs: Vec<Resource> =
        place.world().resources.into_iter().filter(|resource| !known.contains(resource.id.as_str())).collect();
    assert!(theirs.len() >= FOREIGN.len(), "{theirs:?}");
    let shape = place.world().shape();
    for command in [["rollback", &run, "--confirm", "aws-dev"], ["destroy", "aws-dev", "--confirm", "aws-dev"]] {
        let refused = place.run(&command).expect_code(6);
        assert!(refused.stderr.contains("blue-namespace"), "it would go with the cluster: {}", refused.stderr);
    }
    assert_eq!(shape, place.world().shape(), "nothing was touched");
    place.run(&["rollback", &run, "--to", "cluster.cluster", "--confirm", "aws-dev"]).expect_code(0);
    let back = ["rollback", &run, "--confirm", "aws-dev", "--keep", "cluster.cluster"];
    let stopped = place.run(&back).expect_code(6);
    assert!(stopped.stderr.contains("team-blue"), "{}", stopped.stderr);
    let after = place.world();
    for one in theirs {
        assert!(after.resources.contains(&one), "{one:?} is still there as it was");
    }
    assert!(after.resources.len() < before.resources.len(), "what is ours and free of them is gone");
}
