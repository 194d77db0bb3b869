//! The main job through the real binary: from nothing to a verified platform in the sandbox, then again without a change.
//!
//! It proves the shape of the world afterwards and that a second run mutates nothing. Crashes are in `crashes.rs`.

use platflow_tests::TestEnvironment;
use platflow_tests::asking::{self, Kubernetes};
use platflow_tests::world::World;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What the platform has in the account, but for what AWS and controllers made by themselves, and in the cluster where
/// the numbers are the platform's own.
const PLATFORM: [(&str, usize); 24] = [
    ("ec2:vpc", 1),
    ("ec2:subnet", 6),
    ("ec2:internet-gateway", 1),
    ("ec2:nat-gateway", 1),
    ("ec2:elastic-ip", 1),
    ("ec2:route-table", 4),
    ("ec2:security-group", 1),
    ("ec2:launch-template", 3),
    ("eks:cluster", 1),
    ("eks:nodegroup", 3),
    ("eks:addon", 4),
    ("eks:access-entry", 1),
    ("kms:key", 1),
    ("kms:alias", 1),
    ("iam:role", 4),
    ("iam:oidc-provider", 1),
    ("logs:log-group", 2),
    ("vault:cluster", 1),
    ("kubernetes:Namespace", 4),
    ("kubernetes:ResourceQuota", 4),
    ("kubernetes:LimitRange", 4),
    ("kubernetes:StorageClass", 1),
    ("kubernetes:ClusterSecretStore", 1),
    ("kubernetes:PersistentVolumeClaim", 3),
];

/// The namespaces, and the Pod Security level of each.
const NAMESPACES: [(&str, &str); 4] = [
    ("platform-system", "baseline"),
    ("platform-apps", "restricted"),
    ("platform-data", "baseline"),
    ("platform-monitoring", "privileged"),
];

fn assert_platform(world: &World) {
    let mut found = BTreeMap::new();
    for resource in world.made() {
        *found.entry(resource.kind.as_str()).or_insert(0) += 1;
    }
    let wanted: BTreeMap<&str, usize> = PLATFORM.into_iter().collect();
    found.retain(|kind, _| wanted.contains_key(kind) || !kind.starts_with("kubernetes:"));
    assert_eq!(found, wanted, "{:#?}", world.shape());
    let vault = world.made().find(|resource| resource.kind == "vault:cluster").expect("one Vault");
    assert_eq!(vault.state, "unsealed, 3 voters");
}

/// Everything that can carry tags or labels carries whose and which step's it is; what has an API of its own in AWS, one
/// resource for a step.
fn assert_tagged(world: &World) {
    let (mut steps, mut uids) = (BTreeMap::new(), BTreeSet::new());
    for resource in world.made() {
        let (uid, step) = match resource.kind.as_str() {
            // KMS takes no tags for an alias, and the servers of Vault are not the account's.
            "kms:alias" | "vault:cluster" => continue,
            kind if kind.starts_with("kubernetes:") => ("platflow.io/environment-uid", "platflow.io/step"),
            _ => ("platflow:environment-uid", "platflow:step"),
        };
        let tag = |key: &str| resource.tags.get(key).unwrap_or_else(|| panic!("no {key}: {resource:?}")).clone();
        uids.insert(tag(uid));
        let step = tag(step);
        if !resource.kind.starts_with("kubernetes:") {
            let twice = steps.insert(step.clone(), resource.id.clone());
            assert!(twice.is_none(), "{step} made two resources: {twice:?} and {}", resource.id);
        }
    }
    let machines = world.resources.iter().filter(|one| one.kind == "ec2:instance");
    for machine in machines {
        // AWS launches them, with the tags that the launch template asks for.
        uids.insert(machine.tags.get("platflow:environment-uid").expect("a tagged machine").clone());
    }
    assert_eq!(uids.len(), 1, "of one environment: {uids:?}");
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// Each namespace has exactly one quota with limits, one limit range, a policy that denies everything, and its level of Pod
/// Security in all three modes; asked of the API server by another client.
fn assert_namespaces(kubernetes: &Kubernetes) {
    for (namespace, level) in NAMESPACES {
        let labels = &kubernetes.get(&format!("/api/v1/namespaces/{namespace}"))["metadata"]["labels"];
        for mode in ["enforce", "audit", "warn"] {
            assert_eq!(labels[format!("pod-security.kubernetes.io/{mode}")], level, "{namespace}: {labels}");
        }
        let quotas = kubernetes.list(&format!("/api/v1/namespaces/{namespace}/resourcequotas"));
        assert_eq!(quotas.len(), 1, "{namespace}: {quotas:#?}");
        for resource in ["requests.cpu", "requests.memory", "limits.cpu", "limits.memory"] {
            assert!(quotas[0]["spec"]["hard"][resource].is_string(), "{namespace}: {}", quotas[0]);
        }
        let limits = kubernetes.list(&format!("/api/v1/namespaces/{namespace}/limitranges"));
        assert_eq!(limits.len(), 1, "{namespace}: {limits:#?}");
        let policies = kubernetes.list(&format!("/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies"));
        let deny = policies.iter().filter(|policy| name(policy) == "default-deny").collect::<Vec<_>>();
        assert_eq!(deny.len(), 1, "{namespace}: {policies:#?}");
        let spec = &deny[0]["spec"];
        assert_eq!(spec["policyTypes"], json!(["Ingress", "Egress"]), "{spec}");
        let empty = |field: &str| spec[field].as_array().is_none_or(Vec::is_empty);
        assert!(empty("ingress") && empty("egress"), "it lets something through: {spec}");
        let everything = spec["podSelector"].as_object().is_some_and(serde_json::Map::is_empty);
        assert!(everything, "it is not for every pod: {spec}");
    }
}

/// All that Argo CD consists of is as many pods as it should be, all of them ready.
fn assert_argocd_is_ready(kubernetes: &Kubernetes) {
    let mut names = BTreeSet::new();
    for kind in ["deployments", "statefulsets"] {
        for workload in kubernetes.list(&format!("/apis/apps/v1/namespaces/platform-system/{kind}")) {
            if !name(&workload).starts_with("argocd-") {
                continue;
            }
            let (wanted, ready) = (&workload["spec"]["replicas"], &workload["status"]["readyReplicas"]);
            assert!(wanted.as_u64() > Some(0) && wanted == ready, "{}: {ready} of {wanted} are ready", name(&workload));
            names.insert(name(&workload).to_owned());
        }
    }
    for part in ["argocd-server", "argocd-repo-server", "argocd-application-controller", "argocd-redis-ha-server"] {
        assert!(names.contains(part), "{part} is not among {names:?}");
    }
}

/// The cluster's version is one that EKS says is in standard support.
fn assert_supported(place: &TestEnvironment) {
    let version = asking::eks(place, "/clusters/platflow-aws-dev")["cluster"]["version"].clone();
    let versions = asking::eks(place, "/cluster-versions")["clusterVersions"].clone();
    let standard: Vec<&Value> = versions
        .as_array()
        .expect("versions")
        .iter()
        .filter(|one| one["versionStatus"] == "STANDARD_SUPPORT" || one["status"] == "standard-support")
        .map(|one| &one["clusterVersion"])
        .collect();
    assert!(standard.contains(&&version), "{version} is not in standard support: {standard:?}");
    assert!(standard.len() < versions.as_array().map_or(0, Vec::len), "EKS tells of older ones, too: {versions}");
}

/// Proves exit 0, every step verified with outputs, exactly the platform's resources, each tagged and
/// none twice; and that a second run makes no mutating call outside smoke and leaves the world as it was.
#[test]
fn the_platform_comes_up_and_a_second_run_changes_nothing() {
    let place = TestEnvironment::new();
    let first = place.run(&["run", "deploy-aws-dev", "--sandbox", "--speed", "150"]).expect_code(0);
    assert!(first.stdout.contains("kubeconfig"), "the operator is told what they got:\n{}", first.stdout);
    let run = place.newest_run().expect("a run");
    let status = place.run(&["status", &run, "--output", "json"]).expect_code(0).json();
    assert_eq!(status["status"], "done");
    let steps = status["steps"].as_array().expect("steps");
    assert!(steps.len() > 60, "{} steps", steps.len());
    for step in steps {
        assert!(step["state"] == "verified" || step["state"] == "skipped", "{step}");
        assert!(step["state"] == "skipped" || step["outputs"].is_object(), "{step}");
    }
    let world = place.world();
    assert_platform(&world);
    assert_tagged(&world);
    let kubernetes = Kubernetes::of(&place, "aws-dev");
    assert_namespaces(&kubernetes);
    assert_argocd_is_ready(&kubernetes);
    assert_supported(&place);

    let before = place.counters();
    place.run(&["run", "deploy-aws-dev", "--sandbox"]).expect_code(0);
    let after = place.counters();
    assert_eq!(before["mutating"]["outside_smoke"], after["mutating"]["outside_smoke"], "{after:#}");
    assert_eq!(world.shape(), place.world().shape());
    assert_secrets_are_sealed(&place);
}

/// Nothing secret lies in clear in the state directory or the second key store.
fn assert_secrets_are_sealed(place: &TestEnvironment) {
    let mut secrets = Vec::new();
    for name in
        ["vault/share-1", "vault/share-2", "vault/share-3", "vault/share-4", "vault/share-5", "argocd/admin-password"]
    {
        let shown = place.run(&["secret", "show", "aws-dev", name]).expect_code(0);
        let secret = shown.stdout.trim().to_owned();
        assert!(secret.len() >= 8, "{name}: {secret:?}");
        secrets.push((name, secret));
    }
    let mut files = vec![place.state(), place.path().join("config")];
    while let Some(path) = files.pop() {
        if path.is_dir() {
            // The sandbox is the cloud: what it knows is not on our side of the line.
            if path.file_name().is_some_and(|name| name == "sandbox") {
                continue;
            }
            files.extend(std::fs::read_dir(&path).expect("readable").flatten().map(|entry| entry.path()));
        } else if let Ok(bytes) = std::fs::read(&path) {
            for (name, secret) in &secrets {
                let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!found, "{name} lies in clear in {}", path.display());
            }
        }
    }
}
