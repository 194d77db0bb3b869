//! Runs through a TCP proxy that spoils connections: between the steps and AWS, and between the steps and the Kubernetes
//! API with the Vault servers behind it. Whatever connection breaks, the run ends as if none had.

use platflow_tests::TestEnvironment;
use platflow_tests::fault_proxy::{Fault, FaultProxy};
use platflow_tests::scale::scale;
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;

const NETWORK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/network.yaml");
const VAULT: &str = include_str!("../fixtures/vault-only.yaml");
/// Long enough for a client to notice, short enough for a test.
const A_MOMENT: Duration = Duration::from_millis(200);

/// Faults in turn; a cut answer is cut in its head, in its body, and before its first byte.
const FAULTS: [Fault; 6] =
    [Fault::Cut(0), Fault::Reset, Fault::Delay(A_MOMENT), Fault::Cut(200), Fault::Refuse(A_MOMENT), Fault::Cut(2_000)];

/// So many places of `count` connections, evenly, each with the next fault.
fn places(count: usize, cases: usize) -> Vec<(usize, Fault)> {
    (0..cases).map(|case| (case * count / cases, FAULTS[case % FAULTS.len()])).collect()
}

fn address(url: &str) -> SocketAddr {
    url.trim_start_matches("https://").trim_start_matches("http://").parse().expect("an address")
}

/// Proves that a network is built whole, each thing once, when any connection to AWS is slow, cut, reset or refused.
#[test]
fn any_connection_to_aws_may_break() {
    let world = TestEnvironment::new();
    world.run(&["sandbox", "start", "--speed", "600"]).expect_code(0);
    let status = world.run(&["sandbox", "status", "--output", "json"]).expect_code(0).json();
    let proxy = FaultProxy::new();
    proxy.lead_to(address(status["aws_url"].as_str().expect("a URL")));
    let account = status["account"].as_str().expect("an account");
    let url = format!("http://{}", proxy.address());
    let build = |name: &str| {
        let place = TestEnvironment::new()
            .with("AWS_ENDPOINT_URL", &url)
            .with("AWS_ACCESS_KEY_ID", "test")
            .with("AWS_SECRET_ACCESS_KEY", "test");
        let target = ["--account", account, "--region", "us-east-1", "--environment", name];
        place.run(&[&["run", NETWORK], target.as_slice()].concat())
    };
    proxy.spoil([]);
    build("calm").expect_code(0);
    let connections = proxy.connections();
    let calm = shape(&world.world(), "calm");
    assert!(connections >= 1 && !calm.is_empty(), "{connections} connections, {calm:?}");
    let mut hits = 0;
    for (case, place) in places(connections, scale().of(6, 60)).into_iter().enumerate() {
        // An account has room for five of these.
        world.run(&["sandbox", "reset"]).expect_code(0);
        proxy.spoil([place]);
        let name = format!("spoilt-{case:03}");
        build(&name).expect_code(0);
        hits += proxy.hits();
        assert_eq!(shape(&world.world(), &name), calm, "{place:?}");
    }
    platflow_report::told(format_args!("{connections} connections to AWS, {hits} spoilt"));
    assert!(hits >= 4, "only {hits} connections were spoilt");
}

/// What is there of an environment, by type.
fn shape(world: &platflow_tests::world::World, name: &str) -> Vec<String> {
    let mut found: Vec<String> = world
        .made()
        .filter(|resource| resource.tags.values().any(|tag| tag == name) || resource.name.contains(name))
        .map(|resource| format!("{} {}", resource.kind, resource.state))
        .collect();
    found.sort();
    found
}

/// Proves that Vault is installed, initialised once, unsealed and kept with its keys when any connection to the API
/// server is slow, cut, reset or refused: apply, watch, port-forward and everything in it.
#[test]
fn any_connection_to_kubernetes_and_vault_may_break() {
    let proxy = FaultProxy::new();
    let template = TestEnvironment::new();
    let runbook = template.path().join("proxied.yaml");
    std::fs::write(&runbook, through(&proxy)).expect("a runbook");
    template.run(&["run", "./proxied.yaml", "--sandbox", "--speed", "600"]).expect_code(5);
    let run = template.newest_run().expect("a run");
    let config = template.run(&["kubeconfig", "vault-only"]).expect_code(0).json();
    proxy.lead_to(address(config["clusters"][0]["cluster"]["server"].as_str().expect("an endpoint")));
    template.run(&["sandbox", "stop"]).expect_code(0);
    for gate in ["base-gate", "gate"] {
        std::fs::write(template.path().join(gate), "").expect("a gate");
    }
    let resume = || {
        let place = template.copy();
        place.run(&["sandbox", "start", "--speed", "600"]).expect_code(0);
        let finished = place.run(&["resume", &run]);
        (place, finished)
    };
    proxy.spoil([]);
    let (place, finished) = resume();
    finished.expect_code(0);
    drop(place);
    let connections = proxy.connections();
    assert!(connections >= 10, "{connections} connections");
    let mut hits = 0;
    for spoilt in places(connections, scale().of(8, 80)) {
        proxy.spoil([spoilt]);
        let (place, finished) = resume();
        assert_eq!(finished.code, 0, "{spoilt:?}\n{}\n{}", finished.stdout, finished.stderr);
        hits += proxy.hits();
        let world = place.world();
        let vaults: Vec<_> = world.made().filter(|resource| resource.kind == "vault:cluster").collect();
        assert!(vaults.len() == 1 && vaults[0].state.contains("unsealed"), "{spoilt:?}: {vaults:?}");
        let secrets = place.run(&["secret", "list", "vault-only", "--output", "json"]).expect_code(0);
        for share in 1..=5 {
            assert!(secrets.stdout.contains(&format!("vault/share-{share}")), "{spoilt:?}: {}", secrets.stdout);
        }
        // A call that Vault saw and nobody heard the answer of is not made twice on the same storage.
        let counters = place.counters();
        let inits = find(&counters, "vault:POST sys/init").unwrap_or(0);
        assert!((1..=2).contains(&inits), "{spoilt:?}: {inits} inits");
    }
    platflow_report::told(format_args!("{connections} connections to the API server, {hits} spoilt"));
    assert!(hits >= 6, "only {hits} connections were spoilt");
}

/// The fixture with a gate before `install`, whose Vault steps reach the cluster through the proxy.
fn through(proxy: &FaultProxy) -> String {
    let (before, after) = VAULT.split_once("\n  install:\n").expect("the step install");
    let gate = "\n  base:\n    kind: core.exec\n    needs: [namespaces, coredns, storage_class]\n    spec: {protocol: plain, \
                command: [test, -f, base-gate], idempotent: true, undo_command: [\"true\"]}\n";
    let access = format!(
        "{{name: \"${{steps.cluster.outputs.access.name}}\", endpoint: \"https://{}\", certificate_authority_data: \
         \"${{steps.cluster.outputs.access.certificate_authority_data}}\"}}",
        proxy.address()
    );
    let after = after
        .replace("needs: [namespaces, coredns]", "needs: [base]")
        .replace("${steps.cluster.outputs.access}", &access);
    format!("{before}{gate}\n  install:\n{after}")
}

/// The first number of that name, wherever it is.
fn find(value: &Value, name: &str) -> Option<u64> {
    match value {
        Value::Object(members) => {
            members.get(name).and_then(Value::as_u64).or_else(|| members.values().find_map(|member| find(member, name)))
        }
        Value::Array(items) => items.iter().find_map(|item| find(item, name)),
        _ => None,
    }
}
