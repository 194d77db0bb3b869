//! Every command through the real binary at least once: those that no other test needs on its way are here. Which ones
//! there are is asked of the binary, so that a new one is not forgotten.

use platflow_tests::TestEnvironment;
use platflow_tests::asking::Kubernetes;
use std::collections::BTreeSet;
use std::path::Path;

const SMALL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/small-cluster.yaml");

/// Proves that what `sandbox env` prints is enough for a shell and any program in it: a child that has nothing else finds
/// the sandbox by the usual variables, and works there.
#[test]
#[expect(clippy::disallowed_methods, reason = "a shell stands for whatever an operator feeds with it")]
fn the_printed_environment_is_enough_for_a_child() {
    let place = TestEnvironment::new();
    let account = place.run(&["sandbox", "start", "--output", "json"]).expect_code(0).json()["account"].clone();
    let plain = place.command(&["sandbox", "env"]);
    let program = plain.get_program().to_string_lossy().into_owned();
    let script = r#"eval "$("$0" sandbox env)" && exec "$0" plan "$1" --account "$2" --region "$AWS_REGION" --set 'public_access_cidrs=[0.0.0.0/0]'"#;
    let account = account.as_str().expect("an account").to_owned();
    let mut shell = std::process::Command::new("/bin/sh");
    shell.args(["-c", script, &program, SMALL, &account]).env_clear();
    shell.env("HOME", place.path()).env("PLATFLOW_STATE", place.state()).env("PATH", "/usr/bin:/bin");
    let plan = place.finish(shell, &["plan", "in a shell"]).expect_code(3);
    assert!(plan.stdout.contains("create   vpc"), "{}", plan.stdout);
    let text = place.run(&["sandbox", "env"]).expect_code(0).stdout;
    assert!(text.lines().all(|line| line.starts_with("export AWS_") && line.contains('=')), "{text}");
}

/// Proves that the kubeconfig and the token of its plugin open the cluster's API server to another client, that the token
/// ends, and that neither is given for an environment without a cluster.
#[test]
fn the_token_opens_the_cluster() {
    let place = TestEnvironment::new();
    place.run(&["run", SMALL, "--sandbox", "--speed", "600"]).expect_code(0);
    let namespace = Kubernetes::of(&place, "small").get("/api/v1/namespaces/small");
    assert_eq!(namespace["metadata"]["name"], "small");
    let token = place.run(&["k8s-token", "--environment", "small"]).expect_code(0).json();
    assert!(token["status"]["token"].as_str().is_some_and(|token| token.starts_with("k8s-aws-v1.")), "{token}");
    assert!(token["status"]["expirationTimestamp"].is_string(), "{token}");
    for refused in [&["k8s-token", "--environment", "nowhere"][..], &["kubeconfig", "nowhere"]] {
        let refused = place.run(refused).expect_code(2);
        assert!(refused.stderr.contains("nowhere"), "{}", refused.stderr);
    }
}

/// Proves that `sandbox reset` leaves an empty world, of whose former content nothing is on record: the same command builds
/// everything again, once.
#[test]
fn a_reset_sandbox_is_empty_and_nothing_of_it_is_on_record() {
    let place = TestEnvironment::new();
    place.run(&["run", SMALL, "--sandbox", "--speed", "600"]).expect_code(0);
    let shape = place.world().shape();
    let told = place.run(&["sandbox", "reset"]).expect_code(0);
    assert!(told.stderr.contains("1 environment"), "{}", told.stderr);
    assert_eq!(place.world().resources, []);
    assert_eq!(place.counters()["mutating"]["total"], 0);
    place.run(&["kubeconfig", "small"]).expect_code(2);
    place.run(&["run", SMALL, "--sandbox"]).expect_code(0);
    assert_eq!(place.world().shape(), shape);
}

/// Proves that the graph of a runbook is printed in levels, each step after those that it needs.
#[test]
fn the_graph_is_printed_in_levels() {
    let place = TestEnvironment::new();
    let graph = place.run(&["graph", SMALL]).expect_code(0).stdout;
    let at = |step: &str| graph.find(&format!("  {step} ")).unwrap_or_else(|| panic!("no {step}: {graph}"));
    let order = ["lookups", "hold", "vpc", "subnet.0", "cluster", "access", "reachable", "namespace", "limits"].map(at);
    assert!(order.is_sorted(), "{graph}");
}

/// Proves that faults drawn from a seed are felt and gone on from, and that `calm` ends them.
#[test]
fn faults_from_a_seed_are_felt_and_end() {
    let place = TestEnvironment::new();
    place.run(&["sandbox", "start", "--speed", "600"]).expect_code(0);
    place.run(&["sandbox", "faults", "throttled:3"]).expect_code(0);
    let run = place.run(&["run", SMALL, "--sandbox"]);
    assert!([0, 5].contains(&run.code), "{}: {}", run.code, run.stderr);
    place.run(&["sandbox", "faults", "calm"]).expect_code(0);
    if run.code == 5 {
        place.run(&["resume", &place.newest_run().expect("a run")]).expect_code(0);
    }
    assert_eq!(place.world().count("eks:cluster"), 1);
    place.run(&["sandbox", "faults", "stormy"]).expect_code(2);
}

/// Proves that there is a completion script for each shell that is offered, that bash takes its own, and that it knows the
/// commands.
#[test]
#[expect(clippy::disallowed_methods, reason = "bash itself says whether it reads the script")]
fn completions_are_scripts() {
    let place = TestEnvironment::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = place.run(&["completions", shell]).expect_code(0).stdout;
        for command in ["rollback", "rehearse", "kubeconfig"] {
            assert!(script.contains(command), "{shell} does not complete {command}");
        }
    }
    let file = place.path().join("completions");
    std::fs::write(&file, place.run(&["completions", "bash"]).expect_code(0).stdout).expect("a file");
    let read = std::process::Command::new("bash").arg("-n").arg(&file).status().expect("bash");
    assert!(read.success(), "bash does not read it");
    place.run(&["completions", "cmd"]).expect_code(2);
}

/// Proves that every command which the binary offers is called by a test of this crate.
#[test]
fn no_command_is_forgotten() {
    let place = TestEnvironment::new();
    let names = |help: &str| -> Vec<String> {
        let lines = help.lines().skip_while(|line| !line.starts_with("Commands:")).skip(1);
        let commands = lines.take_while(|line| !line.is_empty());
        // A line that goes on with the one before is indented further.
        let named = commands.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
        named.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
    };
    let called = called();
    let mut forgotten = Vec::new();
    let all = names(&place.run(&["--help"]).expect_code(0).stdout);
    assert!(all.len() > 15, "the help has another form: {all:?}");
    for command in all.iter().filter(|command| *command != "help") {
        if !called.contains(&format!("[\"{command}\"")) {
            forgotten.push(command.clone());
        }
    }
    for command in names(&place.run(&["sandbox", "--help"]).expect_code(0).stdout) {
        if command != "help" && !called.contains(&format!("[\"sandbox\", \"{command}\"")) {
            forgotten.push(format!("sandbox {command}"));
        }
    }
    assert!(forgotten.is_empty(), "no test calls {forgotten:?}");
}

/// The beginnings of all lists of arguments in the tests of this crate.
fn called() -> BTreeSet<String> {
    let mut called = BTreeSet::new();
    for folder in ["src", "tests"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            // Arguments that stand on lines of their own count as those on one.
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ").replace("[ \"", "[\"");
            for (at, _) in text.match_indices("[\"") {
                let list = text.get(at..).unwrap_or_default();
                let mut words = list.split('"');
                let first = words.nth(1).unwrap_or_default();
                let second = words.nth(1).unwrap_or_default();
                called.insert(format!("[\"{first}\""));
                called.insert(format!("[\"{first}\", \"{second}\""));
            }
        }
    }
    called
}
