//! All of `deploy-aws-dev` through TCP proxies that spoil connections: between the steps and AWS, and between the steps
//! and the API server with the Vault servers behind it. The runbook is the shipped one; the command runs as on the real
//! cloud, without its sandbox and on real time. Each kind of step meets each fault as long as it has connections for it.

use platflow_report::told;
use platflow_tests::fault_proxy::{Fault, FaultProxy};
use platflow_tests::{Running, TestEnvironment, copy_folder};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Long enough for a client to notice, short enough for a test.
const A_MOMENT: Duration = Duration::from_millis(200);
/// A cluster takes a quarter of a minute, and tokens of minutes live as long as a step that uses them.
const SPEED: &str = "40";

/// Faults in turn; a cut answer is cut before its first byte, in its head and in its body.
const FAULTS: [Fault; 6] =
    [Fault::Cut(0), Fault::Reset, Fault::Delay(A_MOMENT), Fault::Cut(200), Fault::Refuse(A_MOMENT), Fault::Cut(2_000)];

/// What a request says that only this kind of step asks, as far as a request tells whose it is.
const ASKS: [(&str, &[&str]); 18] = [
    ("aws.lookups", &["Action=DescribeAvailabilityZones", "/cluster-versions", "/addons/supported-versions"]),
    ("aws.environment_hold", &["/platflow/environments/"]),
    ("aws.log_group", &["Logs_20140328"]),
    ("aws.kms_key", &["TrentService"]),
    ("aws.vpc", &["Vpc&", "VpcAttribute&", "DescribeVpcs&"]),
    ("aws.subnet", &["Subnet&", "SubnetAttribute&", "DescribeSubnets&"]),
    ("aws.internet_gateway", &["InternetGateway"]),
    ("aws.elastic_ip", &["Address&", "Addresses&"]),
    ("aws.nat_gateway", &["NatGateway"]),
    ("aws.route_table", &["RouteTable", "CreateRoute&"]),
    ("aws.security_group", &["SecurityGroup"]),
    ("aws.launch_template", &["LaunchTemplate"]),
    ("aws.oidc_provider", &["OpenIDConnect"]),
    ("aws.iam_role", &["RoleName="]),
    ("aws.node_group", &["/node-groups"]),
    ("aws.addon", &["/addons"]),
    ("aws.access_entry", &["/access-entries"]),
    ("aws.eks_cluster", &["/clusters"]),
];

/// Which faults the connections of each kind of step have met.
type Met = Arc<Mutex<BTreeMap<String, Vec<Fault>>>>;

fn note(met: &Met, kind: &str, fault: Fault) {
    met.lock().unwrap_or_else(PoisonError::into_inner).entry(kind.to_owned()).or_default().push(fault);
}

/// When a kind's turns are spoilt: the second, and then ever more seldom, so that what takes many turns comes through.
#[derive(Debug)]
struct Rhythm {
    turns: usize,
    next: usize,
    fault: usize,
}

impl Rhythm {
    fn beginning_with(fault: usize) -> Self {
        Self { turns: 0, next: 1, fault }
    }

    fn beat(&mut self) -> Option<Fault> {
        let now = self.turns;
        self.turns += 1;
        if now != self.next {
            return None;
        }
        self.next = 2 * self.next + 4;
        self.fault += 1;
        FAULTS.get((self.fault - 1) % FAULTS.len()).copied()
    }
}

/// Spoils requests to AWS, each kind of step in a rhythm of its own.
fn spoil_aws(proxy: &FaultProxy, met: &Met) {
    let mut rhythms: BTreeMap<&str, Rhythm> =
        ASKS.iter().enumerate().map(|(place, (kind, _))| (*kind, Rhythm::beginning_with(place))).collect();
    let met = Arc::clone(met);
    proxy.choose(move |said| {
        let said = String::from_utf8_lossy(said).replace("%2F", "/");
        let (kind, _) = ASKS.iter().find(|(_, words)| words.iter().any(|word| said.contains(word)))?;
        let fault = rhythms.get_mut(kind)?.beat()?;
        note(&met, kind, fault);
        Some(fault)
    });
}

/// A proxy for each kind of step that goes to the API server; where it leads is known when there is one.
fn proxies(kinds: &BTreeSet<String>, met: &Met) -> BTreeMap<String, FaultProxy> {
    let to_cluster = kinds.iter().filter(|kind| !kind.starts_with("aws."));
    to_cluster
        .enumerate()
        .map(|(place, kind)| {
            let proxy = FaultProxy::new();
            let (mut rhythm, met, name) = (Rhythm::beginning_with(place), Arc::clone(met), kind.clone());
            proxy.choose(move |_| rhythm.beat().inspect(|fault| note(&met, &name, *fault)));
            (kind.clone(), proxy)
        })
        .collect()
}

fn sources() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../workflows"))
}

/// Every file of a folder, at any depth.
fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// The kind of step that a line declares.
fn declared(line: &str) -> Option<&str> {
    line.trim_start().strip_prefix("kind: ").map(str::trim).filter(|kind| kind.contains('.'))
}

/// The kinds of step of the shipped runbook and its modules.
fn kinds() -> BTreeSet<String> {
    let modules = files(&sources().join("modules"));
    let texts = modules.iter().map(|path| std::fs::read_to_string(path).expect("a module"));
    let runbook = std::fs::read_to_string(sources().join("runbooks/deploy-aws-dev.yaml")).expect("the runbook");
    texts
        .chain([runbook])
        .flat_map(|text| text.lines().filter_map(declared).map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

/// The shipped runbook and modules in a library of the operator's own, with the proxy of its kind in the place of the
/// cluster's endpoint in every step.
fn lead_through(proxies: &BTreeMap<String, FaultProxy>, library: &Path) -> usize {
    for part in ["modules", "runbooks"] {
        copy_folder(&sources().join(part), &library.join(part));
    }
    let mut led = 0;
    for path in files(library) {
        let text = std::fs::read_to_string(&path).expect("a module");
        let mut kind = "";
        let mut lines: Vec<String> = Vec::new();
        for line in text.lines() {
            kind = declared(line).unwrap_or(kind);
            let access = line.trim_start().strip_prefix("cluster: ${").and_then(|rest| rest.strip_suffix('}'));
            match (access.filter(|access| access.ends_with("access")), proxies.get(kind)) {
                (Some(access), Some(proxy)) => {
                    let margin = &line[..line.len() - line.trim_start().len()];
                    lines.push(format!(
                        "{margin}cluster: {{name: \"${{{access}.name}}\", endpoint: \"https://{}\", \
                         certificate_authority_data: \"${{{access}.certificate_authority_data}}\"}}",
                        proxy.address()
                    ));
                    led += 1;
                }
                _ => lines.push(line.to_owned()),
            }
        }
        std::fs::write(&path, lines.join("\n") + "\n").expect("a module");
    }
    led
}

fn address(url: &str) -> SocketAddr {
    url.trim_start_matches("https://").trim_start_matches("http://").parse().expect("an address")
}

/// Reads what the run says until its cluster is there.
fn until_cluster(running: &mut Running, limit: Duration) {
    let there = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap_or_default();
        event["event"] == "step-verified" && event["step"] == "cluster.cluster"
    };
    assert!(running.read_until(there, limit), "the run ended before there was a cluster");
}

/// Proves that a whole platform is built, each thing once, when the connections of every kind of step to its server are
/// slow, cut, reset and refused.
#[test]
fn any_connection_of_any_step_may_break() {
    let calm = TestEnvironment::new();
    calm.run(&["run", "deploy-aws-dev", "--sandbox", "--speed", "600", "--set", "public_access_cidrs=[\"0.0.0.0/0\"]"])
        .expect_code(0);
    let undisturbed = calm.world().shape();

    let cloud = TestEnvironment::new();
    cloud.run(&["sandbox", "start", "--speed", SPEED]).expect_code(0);
    let status = cloud.run(&["sandbox", "status", "--output", "json"]).expect_code(0).json();
    let met = Met::default();
    let aws = FaultProxy::new();
    aws.lead_to(address(status["aws_url"].as_str().expect("a URL")));
    spoil_aws(&aws, &met);
    let kinds = kinds();
    let proxies = proxies(&kinds, &met);
    let place = TestEnvironment::new()
        .with("AWS_ENDPOINT_URL", &format!("http://{}", aws.address()))
        .with("AWS_ACCESS_KEY_ID", "test")
        .with("AWS_SECRET_ACCESS_KEY", "test");
    let led = lead_through(&proxies, &place.path().join("config/platflow"));
    assert!(led >= 30, "only {led} steps were led through a proxy");

    let account = status["account"].as_str().expect("an account");
    let target = ["--account", account, "--region", "us-east-1", "--set", "public_access_cidrs=[\"0.0.0.0/0\"]"];
    let command = [&["run", "deploy-aws-dev", "--output", "jsonl"], target.as_slice()].concat();
    let mut running = place.start(&command);
    until_cluster(&mut running, Duration::from_secs(300));
    let config = place.run(&["kubeconfig", "aws-dev"]).expect_code(0).json();
    let server = address(config["clusters"][0]["cluster"]["server"].as_str().expect("an endpoint"));
    for proxy in proxies.values() {
        proxy.lead_to(server);
    }
    running.wait().expect_code(0);

    let run = place.newest_run().expect("a run");
    let steps = place.run(&["status", &run, "--output", "json"]).expect_code(0).json();
    let steps = steps["steps"].as_array().cloned().unwrap_or_default();
    let ran: BTreeSet<String> = steps
        .iter()
        .filter(|step| step["state"] == "verified")
        .filter_map(|step| step["kind"].as_str().map(str::to_owned))
        .collect();
    let met = met.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let spared: Vec<&String> = ran.iter().filter(|kind| !met.contains_key(*kind)).collect();
    for (kind, faults) in &met {
        told(format_args!("{kind}: {} connections spoilt: {faults:?}", faults.len()));
    }
    let spoilt: usize = met.values().map(Vec::len).sum();
    told(format_args!("{} kinds of step, {spoilt} connections spoilt, {} steps", ran.len(), steps.len()));
    assert!(ran.len() >= 30, "{ran:?}");
    assert!(spared.is_empty(), "no connection of these was spoilt: {spared:?}");
    for fault in FAULTS {
        assert!(met.values().flatten().any(|one| *one == fault), "{fault:?} was never met");
    }
    // Pods of the last steps may still be on their way.
    let (until, mut found) = (Instant::now() + Duration::from_secs(60), cloud.world().shape());
    while found != undisturbed && Instant::now() < until {
        found = cloud.world().shape();
    }
    assert_eq!(found, undisturbed);
}
