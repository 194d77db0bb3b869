//! Where secrets may end up: the second place of Vault's key shares, and core dumps of a process that holds some.

use platflow_tests::{TestEnvironment, wait_for};
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
/// A public key of age, as its documentation has it.
const RECIPIENT: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
const PLACE: &str = "PLATFLOW_SECOND_KEY_STORE";
const RECIPIENTS: &str = "PLATFLOW_RECIPIENTS";

/// A run without `--sandbox`, on the sandbox's endpoint, that has every reason to think it is real.
struct Real {
    place: TestEnvironment,
    account: String,
    url: String,
}

impl Real {
    fn new() -> Self {
        let place = TestEnvironment::new();
        let sandbox = place.run(&["sandbox", "start", "--speed", "600", "--output", "json"]).expect_code(0).json();
        let text = |name: &str| sandbox[name].as_str().expect("text").to_owned();
        let (account, url) = (text("account"), text("aws_url"));
        Self { place, account, url }
    }

    fn arguments<'a>(&'a self, workflow: &'a str) -> Vec<&'a str> {
        let open = "public_access_cidrs=[0.0.0.0/0]";
        vec!["run", workflow, "--account", &self.account, "--region", "us-east-1", "--set", open]
    }

    fn command(&self, workflow: &str, named: &[(&str, &str)]) -> Command {
        let mut command = self.place.command(&self.arguments(workflow));
        command
            .env("AWS_ENDPOINT_URL", &self.url)
            .env("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", "example")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .envs(named.iter().copied());
        command
    }

    /// Starts, and ends it once its run is on record; what it said on stderr.
    fn begin(&self, workflow: &str, named: &[(&str, &str)]) -> String {
        let mut going = self.place.start_prepared(self.command(workflow, named), &self.arguments(workflow));
        wait_for("a run on record", LIMIT, || going.ended().is_some() || self.place.newest_run().is_some());
        assert!(self.place.newest_run().is_some(), "{}", going.wait().stderr);
        going.kill();
        going.wait().stderr
    }
}

/// Proves that production on a real target says what it wants named, both or the one that is missing, before anything is
/// called or made; and that it begins once both are named.
#[test]
fn production_names_the_places_of_its_keys() {
    let real = Real::new();
    let workflow = "deploy-aws-production";
    let folder = real.place.path().join("elsewhere").display().to_string();
    for (named, wanted) in [
        (vec![], vec![PLACE, RECIPIENTS]),
        (vec![(RECIPIENTS, RECIPIENT)], vec![PLACE]),
        (vec![(PLACE, folder.as_str())], vec![RECIPIENTS]),
    ] {
        let refused = real.place.finish(real.command(workflow, &named), &real.arguments(workflow)).expect_code(2);
        for name in [PLACE, RECIPIENTS] {
            assert_eq!(refused.stderr.contains(name), wanted.contains(&name), "{name}: {}", refused.stderr);
        }
        assert!(refused.stderr.contains("nothing was done"), "{}", refused.stderr);
    }
    assert!(real.place.newest_run().is_none(), "no run was made");
    assert!(!real.place.path().join("config/platflow/identity.txt").exists(), "no identity was made");
    assert_eq!(real.place.counters()["mutating"]["total"], 0, "nothing was called");
    let said = real.begin(workflow, &[(PLACE, &folder), (RECIPIENTS, RECIPIENT)]);
    assert!(!said.contains(PLACE) && !said.contains(RECIPIENTS), "{said}");
}

/// Proves that another environment is warned and goes on, and that the sandbox is left in peace.
#[test]
fn other_environments_are_warned() {
    let real = Real::new();
    let said = real.begin("deploy-aws-dev", &[]);
    assert!(said.contains("warning") && said.contains(PLACE) && said.contains(RECIPIENTS), "{said}");
    let place = TestEnvironment::new();
    for workflow in ["deploy-aws-dev", "deploy-aws-production"] {
        let open = "public_access_cidrs=[0.0.0.0/0]";
        let arguments = ["run", workflow, "--sandbox", "--speed", "600", "--set", open];
        let mut going = place.start(&arguments);
        let runs = || place.run(&["list", "--output", "json"]).stdout.matches(workflow).count();
        wait_for("a run on record", LIMIT, || going.ended().is_some() || runs() > 0);
        going.kill();
        let said = going.wait().stderr;
        assert!(!said.contains(PLACE) && !said.contains(RECIPIENTS), "{workflow}: {said}");
    }
}

/// The limit for core dumps of a process: soft.
fn core_limit(pid: u32) -> String {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
    let line = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap_or_default();
    line.split_whitespace().nth(4).unwrap_or_default().to_owned()
}

/// Proves that a process that may hold secrets leaves no core dump though its surroundings allow one of any size: its limit
/// is 0, as long as it runs, and one that is made to crash leaves none.
#[test]
#[expect(clippy::disallowed_methods, reason = "the harness owns the processes it starts")]
fn a_crash_leaves_no_core_dump() {
    let place = TestEnvironment::new();
    let arguments = ["run", "deploy-aws-dev", "--sandbox", "--output", "jsonl"];
    let plain = place.command(&arguments);
    let mut command = Command::new("sh");
    command.arg("-c").arg("ulimit -c unlimited || ulimit -c \"$(ulimit -Hc)\"; exec \"$0\" \"$@\"");
    command.arg(plain.get_program()).args(plain.get_args()).env_clear().current_dir(place.path());
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut going = place.start_prepared(command, &arguments);
    assert!(going.read_lines(5, LIMIT), "it runs");
    assert_eq!(core_limit(going.pid()), "0");
    going.signal("ABRT");
    wait_for("the crash", LIMIT, || going.ended().is_some());
    let left = std::fs::read_dir(place.path()).expect("a folder");
    let left: Vec<String> =
        left.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    assert!(left.iter().all(|name| !name.starts_with("core")), "{left:?}");
    // Its death is proven in spite of it: the next one takes over at once.
    place.run(&["resume", &place.newest_run().expect("a run")]).expect_code(0);
}
