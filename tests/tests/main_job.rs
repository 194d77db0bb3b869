//! The main job through the real binary: from nothing to a verified platform in the sandbox, then again without a change.
//!
//! It proves the shape of the world afterwards and that a second run mutates nothing. Crashes are in `crashes.rs`.

use platflow_tests::TestEnvironment;
use platflow_tests::world::World;
use std::collections::BTreeMap;

fn assert_platform(world: &World) {
    for (kind, wanted) in [
        ("ec2:vpc", 1),
        ("ec2:subnet", 6),
        ("ec2:internet-gateway", 1),
        ("ec2:nat-gateway", 1),
        ("ec2:elastic-ip", 1),
        ("eks:cluster", 1),
        ("eks:nodegroup", 3),
        ("kms:key", 1),
        ("kms:alias", 1),
        ("iam:oidc-provider", 1),
        ("vault:cluster", 1),
    ] {
        assert_eq!(world.count(kind), wanted, "{kind}: {:#?}", world.shape());
    }
    let cluster = world.made().find(|resource| resource.kind == "eks:cluster").expect("one cluster");
    assert_eq!(cluster.state, "ACTIVE");
    for namespace in ["platform-system", "platform-apps", "platform-data", "platform-monitoring"] {
        let found = world.made().find(|one| one.kind == "kubernetes:Namespace" && one.name == namespace);
        let labels = &found.unwrap_or_else(|| panic!("no namespace {namespace}")).tags;
        assert!(labels.contains_key("pod-security.kubernetes.io/enforce"), "{namespace}: {labels:?}");
    }
    for kind in ["kubernetes:ResourceQuota", "kubernetes:LimitRange", "kubernetes:NetworkPolicy"] {
        assert!(world.count(kind) >= 4, "{kind}: {}", world.count(kind));
    }
    let vault = world.made().find(|resource| resource.kind == "vault:cluster").expect("one Vault");
    assert!(vault.state.contains("unsealed") && vault.state.contains('3'), "{}", vault.state);
    let tagged = [
        "ec2:vpc",
        "ec2:subnet",
        "ec2:nat-gateway",
        "ec2:elastic-ip",
        "eks:cluster",
        "eks:nodegroup",
        "iam:role",
        "kms:key",
    ];
    let mut steps = BTreeMap::new();
    for resource in world.made().filter(|resource| tagged.contains(&resource.kind.as_str())) {
        let uid = resource.tags.get("platflow:environment-uid");
        assert!(uid.is_some_and(|uid| !uid.is_empty()), "untagged: {resource:?}");
        let step = resource.tags.get("platflow:step").unwrap_or_else(|| panic!("no step tag: {resource:?}"));
        let twice = steps.insert(step.clone(), resource.id.clone());
        assert!(twice.is_none(), "{step} made two resources: {twice:?} and {}", resource.id);
    }
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
