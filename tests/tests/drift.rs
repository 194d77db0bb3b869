//! `platflow drift` and runs over chosen steps, by the real binary on the sandbox. What boto3 and kubectl can change is
//! found one by one in the conformance suite `drift`; here are exit codes, reports, refusals and crashes.

use platflow_tests::TestEnvironment;
use platflow_tests::asking::eks;
use platflow_tests::cluster::Cluster;
use serde_json::{Value, json};
use std::time::Duration;

const RUNBOOK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/small-cluster.yaml");
const LIMITS: &str = "/api/v1/namespaces/small/limitranges/small";

fn built() -> TestEnvironment {
    let place = TestEnvironment::new();
    place.run(&["run", RUNBOOK, "--sandbox", "--speed", "600"]).expect_code(0);
    place
}

/// Raises the default limit of a namespace's containers, as somebody with kubectl would.
fn relax(place: &TestEnvironment) {
    let relaxed =
        json!({"spec": {"limits": [{"type": "Container", "default": {"cpu": "7"}, "defaultRequest": {"cpu": "1"}}]}});
    Cluster::of(place, "small").change(LIMITS, &relaxed);
}

fn limit(place: &TestEnvironment) -> String {
    let limits = Cluster::of(place, "small").get(LIMITS);
    limits["spec"]["limits"][0]["default"]["cpu"].as_str().unwrap_or_default().to_owned()
}

fn mutating(place: &TestEnvironment) -> Value {
    place.counters()["mutating"]["total"].clone()
}

/// Proves that an untouched environment has no drift (exit 0) and a changed one has (exit 3, by field), that a check changes
/// nothing, and that every format says the same.
#[test]
fn a_check_tells_what_changed_in_every_format() {
    let place = built();
    let before = mutating(&place);
    let clean = place.run(&["drift", "small"]).expect_code(0);
    assert!(clean.stdout.contains("small: no drift; "), "{}", clean.stdout);
    place.run(&["drift", RUNBOOK]).expect_code(0);
    assert_eq!(mutating(&place), before, "a check changes nothing");
    let wanted = limit(&place);
    relax(&place);
    let before = mutating(&place);
    let json = place.run(&["drift", "small", "--output", "json"]).expect_code(3).json();
    let finding = &json["findings"][0];
    assert_eq!((&json["findings"][1], &finding["what"]), (&Value::Null, &json!("changed")), "{json}");
    assert_eq!((&finding["step"], &finding["found"]), (&json!("limits"), &json!("7")), "{json}");
    assert_eq!(finding["recorded"], json!(wanted), "{json}");
    let id = finding["id"].as_str().expect("an id");
    for (format, word) in
        [("text", "changed"), ("markdown", "| changed |"), ("junit", "failures=\"1\""), ("sarif", "\"ruleId\"")]
    {
        let report = place.run(&["drift", "small", "--output", format]).expect_code(3);
        assert!(report.stdout.contains(id) && report.stdout.contains(word), "{format}: {}", report.stdout);
    }
    assert_eq!(mutating(&place), before, "a check changes nothing");
}

/// Proves that a repair sets right what drifted, that nothing else is touched, that a killed one is resumed to the same end,
/// and that the extras of others stay and stay reported.
#[test]
fn a_repair_touches_what_drifted_alone_and_survives_a_kill() {
    let place = built();
    let wanted = limit(&place);
    Cluster::of(&place, "small").create(
        "/api/v1/namespaces",
        &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "theirs"}}),
    );
    relax(&place);
    let before = mutating(&place).as_u64().expect("a count");
    let repair = place.run(&["drift", "small", "--fix"]).expect_code(3);
    assert!(repair.stderr.contains("repairing 1 steps"), "{}", repair.stderr);
    assert_eq!(limit(&place), wanted);
    assert_eq!(mutating(&place).as_u64(), Some(before + 1), "one call sets one object right");
    let left = place.run(&["drift", "small", "--output", "json"]).expect_code(3).json();
    assert_eq!((&left["findings"][0]["resource_id"], &left["findings"][1]), (&json!("theirs"), &Value::Null), "{left}");

    relax(&place);
    let mut killed = place.start(&["drift", "small", "--fix", "--output", "json"]);
    // The repair's first events go out when they are durable; the check is on stdout by then.
    assert!(killed.read_lines(3, Duration::from_secs(60)), "the check was printed");
    killed.kill();
    let run = place.newest_run().expect("a run");
    assert_ne!(place.run(&["resume", &run]).code, 1);
    place.run(&["drift", "small", "--fix"]).expect_code(3);
    assert_eq!(limit(&place), wanted);
}

/// Proves that what nothing is known of, and a format that a command does not write, are refused before anything is called.
#[test]
fn what_cannot_be_compared_is_refused() {
    let place = TestEnvironment::new();
    let unknown = place.run(&["drift", "nowhere"]).expect_code(2);
    assert!(unknown.stderr.contains("no environment on record and no runbook"), "{}", unknown.stderr);
    let unbuilt = place.run(&["drift", RUNBOOK, "--sandbox"]).expect_code(2);
    assert!(unbuilt.stderr.contains("nothing to compare with"), "{}", unbuilt.stderr);
    let format = place.run(&["list", "--output", "sarif"]).expect_code(2);
    assert!(format.stderr.contains("markdown, junit and sarif"), "{}", format.stderr);
}

/// Proves that a run over chosen steps looks at what they need, passes over the rest, tells so, and refuses a choice that
/// stands on nothing.
#[test]
fn a_run_over_chosen_steps_leaves_the_rest() {
    let place = TestEnvironment::new();
    let early = place.run(&["run", RUNBOOK, "--sandbox", "--speed", "600", "--only", "subnet"]).expect_code(2);
    assert!(early.stderr.contains("neither chosen nor built: hold, lookups, vpc"), "{}", early.stderr);
    let wrong = place.run(&["run", RUNBOOK, "--sandbox", "--only", "subnets"]).expect_code(2);
    assert!(wrong.stderr.contains("neither a step nor a module subnets"), "{}", wrong.stderr);
    place.run(&["run", RUNBOOK, "--sandbox"]).expect_code(0);
    relax(&place);
    let before = mutating(&place);
    let run = place.run(&["run", RUNBOOK, "--sandbox", "--only", "subnet"]).expect_code(0);
    assert!(run.stderr.contains("acting on 2 steps; looking at 3 that they need; passing over "), "{}", run.stderr);
    assert_eq!(mutating(&place), before, "what was not chosen is left, drifted as it is");
    assert_eq!(limit(&place), "7");
    let cluster = eks(&place, "/clusters/small");
    assert_eq!(cluster["cluster"]["status"], "ACTIVE");
    place.run(&["run", RUNBOOK, "--sandbox", "--except", "subnet"]).expect_code(0);
    assert_ne!(limit(&place), "7");
}
