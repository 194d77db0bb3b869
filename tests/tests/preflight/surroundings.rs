//! What is wrong around a run and cannot be made wrong by a parameter: another run, another state file, and a machine that
//! has every reason to think that the account is real.

use platflow_tests::{Finished, TestEnvironment};
use serde_json::Value;

const SMALL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/small-cluster.yaml");

/// `severity check` of everything that a plan told.
fn told(plan: &Finished) -> Vec<String> {
    let plan: Value = serde_json::from_str(&plan.stdout).unwrap_or_else(|_| panic!("{} {}", plan.stdout, plan.stderr));
    let findings = plan["preflight"]["findings"].as_array().expect("findings");
    let word = |one: &Value, name: &str| one[name].as_str().unwrap_or_default().to_owned();
    findings.iter().map(|one| format!("{} {}", word(one, "severity"), word(one, "check"))).collect()
}

#[track_caller]
fn expect(told: &[String], wanted: &[&str]) {
    for finding in wanted {
        assert!(told.iter().any(|one| one == finding), "{finding}: {told:?}");
    }
}

/// Proves that a plan tells of a run that holds the environment, and that another state file is told whose everything is.
#[test]
fn other_runs_and_other_state_files_are_told() {
    let place = TestEnvironment::new();
    let fault = "eks:CreateCluster=error:InvalidParameterException";
    place.run(&["run", SMALL, "--sandbox", "--speed", "600", "--sandbox-fault", fault]).expect_code(5);
    let before = place.counters()["mutating"]["total"].clone();
    expect(&told(&place.run(&["plan", SMALL, "--sandbox", "--output", "json"])), &["blocker lock.environment"]);

    let fresh = place.path().join("fresh");
    std::fs::create_dir(&fresh).expect("a directory");
    std::os::unix::fs::symlink(place.state().join("sandbox"), fresh.join("sandbox")).expect("a link");
    let fresh = fresh.display().to_string();
    let plan = place.run(&["--state", &fresh, "plan", SMALL, "--sandbox", "--output", "json"]);
    expect(
        &told(&plan),
        &["blocker lock.account", "blocker name.role", "warning leftover.other-record", "warning network.vpc-overlap"],
    );
    assert!(plan.stdout.contains("platflow adopt small --from"), "{}", plan.stdout);
    assert_eq!(place.counters()["mutating"]["total"], before);
}

/// A plan without `--sandbox`, on the sandbox's endpoint.
fn real(place: &TestEnvironment, workflow: &str, more: &[&str], variables: &[(&str, &str)]) -> Vec<String> {
    let sandbox = place.run(&["sandbox", "start", "--speed", "600", "--output", "json"]).expect_code(0).json();
    let text = |name: &str| sandbox[name].as_str().expect("text").to_owned();
    let account = text("account");
    let mut arguments = vec!["plan", workflow, "--account", &account, "--region", "us-east-1", "--output", "json"];
    arguments.extend(more);
    let mut command = place.command(&arguments);
    command.env("AWS_ENDPOINT_URL", text("aws_url")).env("AWS_EC2_METADATA_DISABLED", "true");
    command.envs(variables.iter().copied());
    told(&place.finish(command, &arguments))
}

const OPEN: &str = "public_access_cidrs=[0.0.0.0/0]";
const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE"), ("AWS_SECRET_ACCESS_KEY", "example")];

/// Proves that against a real account bundles of the sandbox, private ranges let in from outside, and key shares without a
/// second place are told, and that production is stopped for the latter.
#[test]
fn what_matters_for_real_is_told() {
    let place = TestEnvironment::new();
    let found = real(&place, "deploy-aws-dev", &["--set", OPEN], &KEYS);
    expect(&found, &["warning manifest.embedded", "warning key.explicit", "warning key.second-store-disk"]);
    let found = real(&place, "deploy-aws-production", &["--set", "public_access_cidrs=[10.0.0.0/8, 0.0.0.0/0]"], &KEYS);
    expect(&found, &["blocker endpoint.reserved", "blocker key.explicit"]);
    assert_eq!(place.counters()["mutating"]["total"], 0);
}

/// Proves that services that do not answer or whose names do not resolve are told, and credentials that end before the run.
#[test]
fn services_that_are_away_and_credentials_that_end_are_told() {
    let place = TestEnvironment::new();
    let away = |url| real(&place, SMALL, &["--set", OPEN], &[KEYS[0], KEYS[1], ("AWS_ENDPOINT_URL_KMS", url)]);
    expect(&away("http://127.0.0.1:9"), &["blocker endpoint.services"]);
    expect(&away("http://kms.invalid"), &["blocker endpoint.dns"]);
    let config = place.path().join(".aws");
    std::fs::create_dir(&config).expect("a directory");
    let answer = config.join("answer.sh");
    let script = "printf '{\"Version\": 1, \"AccessKeyId\": \"AKIAEXAMPLE\", \"SecretAccessKey\": \"example\", \"Expiration\": \"%s\"}' \"$(date -u -d '+6 minutes' +%Y-%m-%dT%H:%M:%SZ)\"\n";
    std::fs::write(&answer, script).expect("a file");
    let profile = format!("[default]\ncredential_process = /bin/sh {}\n", answer.display());
    std::fs::write(config.join("config"), profile).expect("a file");
    expect(&real(&place, SMALL, &["--set", OPEN], &[]), &["warning identity.expiry"]);
}
