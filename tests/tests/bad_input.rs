//! Bad input through the real binary: each gets a clear message with place and remedy, its exit code, and changes nothing.

use platflow_tests::TestEnvironment;
use std::time::Duration;

/// The access key that every sandbox knows.
const SANDBOX_KEY: &str = "AKIAPLATFLOWSANDBOX0";
const LIMIT: Duration = Duration::from_secs(60);

fn runbook(place: &TestEnvironment, name: &str, text: &str) -> String {
    let path = place.path().join(name);
    std::fs::write(&path, text).expect("a file");
    path.display().to_string()
}

/// Proves that every broken runbook is refused with exit 2, the file, the line, and words that help; and that all findings
/// of one file come at once.
#[test]
fn broken_runbooks_are_refused_with_place_and_remedy() {
    let place = TestEnvironment::new();
    let cases = [
        (
            "field.yaml",
            "workflow: w\nenvironment: e\nsteps:\n  a:\n    kind: core.wait\n    spec: {seconds: 1}\n    colour: red\n",
            "colour",
            ":7",
        ),
        (
            "type.yaml",
            "workflow: w\nenvironment: e\nsteps:\n  a:\n    kind: core.wait\n    spec:\n      seconds: soon\n",
            "seconds",
            ":7",
        ),
        (
            "kind.yaml",
            "workflow: w\nenvironment: e\nsteps:\n  a:\n    kind: core.wiat\n    spec: {seconds: 1}\n",
            "core.wait",
            ":5",
        ),
        (
            "output.yaml",
            "workflow: w\nenvironment: e\nsteps:\n  a:\n    kind: core.wait\n    spec: {seconds: 1}\n  b:\n    kind: core.wait\n    spec:\n      seconds: ${steps.a.outputs.nothing}\n",
            "nothing",
            ":10",
        ),
        (
            "cycle.yaml",
            "workflow: w\nenvironment: e\nsteps:\n  a:\n    kind: core.wait\n    needs: [b]\n    spec: {seconds: 1}\n  b:\n    kind: core.wait\n    needs: [a]\n    spec: {seconds: 1}\n",
            "a → b → a",
            ":4",
        ),
        (
            "longer-cycle.yaml",
            "workflow: w\nenvironment: e\nsteps:\n  a:\n    kind: core.wait\n    needs: [c]\n    spec: {seconds: 1}\n  b:\n    kind: core.wait\n    needs: [a]\n    spec: {seconds: 1}\n  c:\n    kind: core.wait\n    needs: [b]\n    spec: {seconds: 1}\n",
            "a → c → b → a",
            ":4",
        ),
        ("yaml.yaml", "workflow: [\n", "yaml.yaml", ":"),
    ];
    for (name, text, word, position) in cases {
        let path = runbook(&place, name, text);
        let refused = place.run(&["run", &path, "--sandbox"]).expect_code(2);
        assert!(refused.stderr.contains(name), "{name}: {}", refused.stderr);
        assert!(refused.stderr.contains(word) && refused.stderr.contains(position), "{name}: {}", refused.stderr);
    }
    assert!(place.newest_run().is_none(), "no run was made");
}

/// Proves that unknown names come with near matches and bad parameters with what was expected.
#[test]
fn unknown_names_and_bad_parameters_are_explained() {
    let place = TestEnvironment::new();
    let refused = place.run(&["run", "deploy-aws-dve", "--sandbox"]).expect_code(2);
    assert!(refused.stderr.contains("deploy-aws-dev"), "{}", refused.stderr);
    let refused = place.run(&["run", "deploy-aws-dev", "--sandbox", "--set", "log_retention_days=many"]).expect_code(2);
    assert!(refused.stderr.contains("log_retention_days"), "{}", refused.stderr);
    let refused = place.run(&["run", "deploy-aws-dev", "--sandbox", "--set", "log_retention_day=3"]).expect_code(2);
    assert!(refused.stderr.contains("log_retention_days"), "{}", refused.stderr);
    let refused = place.run(&["status", "zzzz"]).expect_code(2);
    assert!(refused.stderr.contains("zzzz"), "{}", refused.stderr);
    place.run(&["frobnicate"]).expect_code(2);
}

/// Proves that an unreadable state file and one from a newer version are refused and left as they are.
#[test]
fn a_foreign_or_newer_state_file_is_refused_untouched() {
    let place = TestEnvironment::new();
    std::fs::create_dir_all(place.state()).expect("a directory");
    let file = place.state().join("state.db");
    std::fs::write(
        &file,
        b"this is no database, and it is longer than a header of one hundred bytes ...............................",
    )
    .expect("a file");
    let before = std::fs::read(&file).expect("readable");
    let refused = place.run(&["list"]);
    assert!([1, 2].contains(&refused.code), "{}: {}", refused.code, refused.stderr);
    assert!(refused.stderr.contains("state.db"), "{}", refused.stderr);
    assert_eq!(before, std::fs::read(&file).expect("readable"));
}

/// Proves that a state file that a newer version wrote is refused by name, and that not a byte of it changes.
#[test]
fn a_state_file_of_a_newer_version_is_refused_untouched() {
    let place = TestEnvironment::new();
    place.run(&["run", "deploy-aws-dev", "--sandbox", "--speed", "600", "--on-failure", "park"]).expect_code(0);
    let file = place.state().join("state.db");
    let connection = rusqlite::Connection::open(&file).expect("a state file");
    connection.pragma_update(None, "user_version", 999).expect("writable");
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("a checkpoint");
    drop(connection);
    let before = std::fs::read(&file).expect("readable");
    let counted = place.counters();
    for arguments in [
        &["list"][..],
        &["status"],
        &["run", "deploy-aws-dev", "--sandbox"],
        &["rollback", "latest", "--confirm", "aws-dev"],
        &["destroy", "aws-dev", "--confirm", "aws-dev"],
    ] {
        let refused = place.run(arguments).expect_code(2);
        assert!(refused.stderr.contains("999") && refused.stderr.contains("state.db"), "{}", refused.stderr);
        assert!(refused.stderr.contains("newer"), "it says what to do: {}", refused.stderr);
    }
    assert!(before == std::fs::read(&file).expect("readable"), "the file was changed");
    assert_eq!(counted, place.counters(), "nothing was called");
}

/// Proves that expired credentials are named as such, with what to do, by every command that would need them, and that
/// nothing is changed: at the first call, and in the middle of a run, which is resumed with fresh ones.
#[test]
fn expired_credentials_are_named_and_nothing_is_lost() {
    let place = TestEnvironment::new();
    let sandbox = place.run(&["sandbox", "start", "--speed", "600", "--output", "json"]).expect_code(0).json();
    let account = sandbox["account"].as_str().expect("an account").to_owned();
    let url = sandbox["aws_url"].as_str().expect("an address").to_owned();
    let with_key = |arguments: &[&str], key: &str| {
        let mut command = place.command(arguments);
        command
            .env("AWS_ENDPOINT_URL", &url)
            .env("AWS_ACCESS_KEY_ID", key)
            .env("AWS_SECRET_ACCESS_KEY", "example")
            .env("AWS_SESSION_TOKEN", "example")
            .env("AWS_EC2_METADATA_DISABLED", "true");
        command
    };
    let run = ["run", "deploy-aws-dev", "--account", &account, "--region", "us-east-1", "--output", "jsonl"];
    let run = [&run[..], &["--set", "public_access_cidrs=[0.0.0.0/0]"]].concat();
    place.refuse_key("AKIAEXPIRED", Some("expired"));
    let refused = place.finish(with_key(&run, "AKIAEXPIRED"), &run).expect_code(2);
    assert!(refused.stderr.contains("expired"), "{}", refused.stderr);
    assert_eq!(place.counters()["mutating"]["total"], 0, "nothing was called");
    assert!(place.newest_run().is_none(), "no run was made");

    // In the sandbox the same happens in simulated time, so that the run can be seen to its end.
    let arguments = ["run", "deploy-aws-dev", "--sandbox", "--output", "jsonl"];
    let mut going = place.start(&arguments);
    going.read_lines(60, LIMIT);
    place.refuse_key(SANDBOX_KEY, Some("expired"));
    let stopped = going.wait();
    assert!([5, 6].contains(&stopped.code), "{}: {}", stopped.code, stopped.stderr);
    let said = format!("{}{}", stopped.stdout, stopped.stderr);
    assert!(said.contains("expired"), "{said}");
    place.refuse_key(SANDBOX_KEY, None);
    place.run(&["resume", &place.newest_run().expect("a run")]).expect_code(0);
}

/// Proves that without credentials the first real run says so before it does anything, and that it wants account and
/// region.
#[test]
fn a_real_run_wants_account_region_and_credentials() {
    let place = TestEnvironment::new();
    let refused = place.run(&["run", "deploy-aws-dev"]).expect_code(2);
    assert!(refused.stderr.contains("--account") && refused.stderr.contains("--region"), "{}", refused.stderr);
    let arguments = ["run", "deploy-aws-dev", "--account", "123456789012", "--region", "us-east-1"];
    let mut command = place.command(&arguments);
    // Neither profiles nor instance metadata: the chain ends without credentials, on this machine and any other.
    command.env("AWS_EC2_METADATA_DISABLED", "true");
    let refused = place.finish(command, &arguments);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(refused.stderr.contains("credentials"), "{}", refused.stderr);
    assert!(place.newest_run().is_none(), "no run was made");
}

/// Proves that an endpoint where nobody answers, and another account than the one named, end the command before anything
/// is done, each with what to do; and that without `--sandbox` the binary follows the credential chain and
/// `AWS_ENDPOINT_URL`: pointed at the sandbox by them alone, `plan` sees the whole platform as still to be created.
#[test]
fn the_credential_chain_and_the_endpoint_are_followed() {
    let place = TestEnvironment::new();
    let sandbox = place.run(&["sandbox", "start", "--output", "json"]).expect_code(0).json();
    let account = sandbox["account"].as_str().expect("an account").to_owned();
    let url = sandbox["aws_url"].as_str().expect("an address").to_owned();
    let open = "public_access_cidrs=[0.0.0.0/0]";
    let plan = |endpoint: &str, account: &str| {
        let arguments = ["plan", "deploy-aws-dev", "--account", account, "--region", "us-east-1", "--set", open];
        let mut command = place.command(&arguments);
        command
            .env("AWS_ENDPOINT_URL", endpoint)
            .env("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", "example")
            .env("AWS_EC2_METADATA_DISABLED", "true");
        place.finish(command, &arguments)
    };
    let unreachable = plan("http://127.0.0.1:9", &account).expect_code(2);
    assert!(unreachable.stderr.contains("127.0.0.1:9"), "{}", unreachable.stderr);
    let other = plan(&url, "999999999999").expect_code(2);
    assert!(other.stderr.contains("999999999999") && other.stderr.contains(&account), "{}", other.stderr);
    let seen = plan(&url, &account).expect_code(3);
    assert!(seen.stdout.contains("create   network.vpc"), "{}", seen.stdout);
    assert_eq!(place.counters()["mutating"]["total"], 0, "a plan changes nothing");
}
