//! `platflow doctor`: what it finds without any runbook, in the state file, the keys and the account, and that it changes
//! nothing.

use platflow_tests::TestEnvironment;
use serde_json::Value;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;

const SMALL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/small-cluster.yaml");
const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/checks.md");

fn found(place: &TestEnvironment, code: i32) -> Vec<String> {
    let told = place.run(&["doctor", "--output", "json"]).expect_code(code).json();
    let findings = told["preflight"]["findings"].as_array().expect("findings");
    findings.iter().map(|one| format!("{} {}", text(&one["severity"]), text(&one["check"]))).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Proves that a machine without anything is healthy, that an account that was built in is, too, and that looking at it
/// changes nothing: not the world, and not one byte of the state file.
#[test]
fn what_is_healthy_is_told_so() {
    let place = TestEnvironment::new();
    assert_eq!(found(&place, 0), Vec::<String>::new());
    assert!(!place.state().join("state.db").exists(), "a doctor makes no state file");
    place.run(&["run", SMALL, "--sandbox", "--speed", "600"]).expect_code(0);
    let before = (place.counters()["mutating"]["total"].clone(), std::fs::read(place.state().join("state.db")).ok());
    let told = place.run(&["doctor", "--sandbox"]).expect_code(0);
    assert!(told.stdout.contains("0 blocker(s), 0 warning(s)"), "{}", told.stdout);
    let after = (place.counters()["mutating"]["total"].clone(), std::fs::read(place.state().join("state.db")).ok());
    assert!(before == after, "a doctor changes nothing");
    place.run(&["doctor", "--account", "123456789012"]).expect_code(2);
}

/// Proves that an altered event and an altered fold are each told, with the run, and end in exit 6.
#[test]
fn a_state_file_that_was_tampered_with_is_told() {
    for (sql, check) in [
        ("UPDATE events SET payload = x'7b7d' WHERE sequence = 3", "state.chains"),
        (
            "UPDATE run_states SET payload = CAST(replace(CAST(payload AS TEXT), 'small', 'large') AS BLOB)",
            "state.folds",
        ),
    ] {
        let place = TestEnvironment::new();
        place.run(&["run", SMALL, "--sandbox", "--speed", "600"]).expect_code(0);
        let run = place.newest_run().expect("a run");
        let file = rusqlite::Connection::open(place.state().join("state.db")).expect("a database");
        file.execute_batch(sql).expect("an alteration");
        drop(file);
        let told = place.run(&["doctor"]).expect_code(6);
        assert!(told.stdout.contains(&format!("blocker  {check}: run {run}")), "{sql}: {}", told.stdout);
    }
}

/// Proves that a directory that others can read, an identity that others can read, one that is none, and a run that waits
/// are told.
#[test]
fn what_others_could_read_and_who_waits_is_told() {
    let place = TestEnvironment::new();
    place.run(&["sandbox", "start", "--speed", "600"]).expect_code(0);
    let fault = "eks:CreateCluster=error:InvalidParameterException";
    place.run(&["run", SMALL, "--sandbox", "--sandbox-fault", fault]).expect_code(5);
    assert_eq!(found(&place, 0), ["warning lock.unfinished"]);
    let mode = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("ours");
    };
    mode(&place.state(), 0o755);
    let identity = place.path().join("config/platflow/identity.txt");
    mode(&identity, 0o644);
    assert_eq!(found(&place, 6), ["blocker key.identity-mode", "warning state.permissions", "warning lock.unfinished"]);
    mode(&identity, 0o600);
    std::fs::write(&identity, "no identity\n").expect("ours");
    assert!(found(&place, 6).contains(&"blocker key.identity".to_owned()));
}

/// Proves that an account that is wrong is told without a runbook.
#[test]
fn an_account_that_is_wrong_is_told() {
    let place = TestEnvironment::new();
    place.run(&["sandbox", "start", "--speed", "600"]).expect_code(0);
    place.run(&["sandbox", "account", r#"{"caller": "arn:aws:iam::1:root", "ahead_seconds": 1000}"#]).expect_code(0);
    let told = place.run(&["doctor", "--sandbox"]).expect_code(6).stdout;
    assert!(told.contains("warning  identity.root-user:") && told.contains("blocker  identity.clock:"), "{told}");
    let refused = place.run(&["sandbox", "account", r#"{"moons": 1}"#]).expect_code(2);
    assert!(refused.stderr.contains("quotas"), "{}", refused.stderr);
    assert_eq!(place.counters()["mutating"]["total"], 0);
}

/// Proves that the list has every check once, at least sixty, each of the family that its id begins with (permissions to
/// look and drivers of volumes are asked of endpoints and add-ons), and that the reference in the documentation is this list.
#[test]
fn every_check_is_listed_and_documented() {
    let place = TestEnvironment::new();
    let told = place.run(&["doctor", "--list-checks", "--output", "json"]).expect_code(0).json();
    let checks = told["checks"].as_array().expect("checks");
    let ids: BTreeSet<&str> = checks.iter().map(|check| text(&check["id"])).collect();
    assert_eq!(ids.len(), checks.len(), "an id is there twice");
    assert!(ids.len() >= 60, "{}", ids.len());
    for check in checks {
        assert!(text(&check["id"]).starts_with(&format!("{}.", text(&check["family"]))), "{check}");
        assert!(!text(&check["title"]).is_empty(), "{check}");
    }
    let list = place.run(&["doctor", "--list-checks"]).expect_code(0).stdout;
    let documented = std::fs::read_to_string(REFERENCE).expect("the reference");
    for line in list.lines() {
        let (id, title) = line.split_once(' ').expect("an id and a title");
        let row = format!("| `{id}` | {} |", title.trim());
        assert!(documented.contains(&row), "docs/reference/checks.md lacks: {row}");
    }
    assert_eq!(
        documented.lines().filter(|line| line.starts_with("| `")).count(),
        checks.len(),
        "the reference has more"
    );
}
