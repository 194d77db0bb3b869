//! The shipped runbooks compile and say what the platform is.

#![expect(clippy::expect_used, clippy::panic, reason = "helpers of tests fail the test by panicking")]

mod fixture;

use fixture::catalog;
use platflow_engine::plan::{Plan, PlannedStep};
use platflow_engine::step::UndoPlan;
use platflow_workflows::{CompileOptions, Compiled, Library, ParameterValues, compile};

fn compiled(name: &str, set: &[&str]) -> Compiled {
    let library = Library::new();
    let mut values = ParameterValues::default();
    if name == "deploy-aws-production" {
        // Production has no default for who may reach its API.
        values.set("public_access_cidrs=[198.51.100.0/24]").expect("an assignment");
    }
    for assignment in set {
        values.set(assignment).expect("an assignment");
    }
    let source = library.find(name).expect("a shipped runbook");
    match compile(&library, &source, &catalog(), &values, &CompileOptions::default()) {
        Ok(compiled) => compiled,
        Err(findings) => panic!("{}", findings.plain()),
    }
}

fn step<'a>(plan: &'a Plan, name: &str) -> &'a PlannedStep {
    plan.steps.iter().find(|step| step.name.as_str() == name).unwrap_or_else(|| panic!("no step {name}"))
}

fn count(plan: &Plan, kind: &str) -> usize {
    plan.steps.iter().filter(|step| step.kind.as_str() == kind).count()
}

fn depends(plan: &Plan, from: &str, on: &str) -> bool {
    let mut open = vec![from.to_owned()];
    let mut seen = std::collections::BTreeSet::new();
    while let Some(name) = open.pop() {
        for need in &step(plan, &name).needs {
            if need.as_str() == on {
                return true;
            }
            if seen.insert(need.to_string()) {
                open.push(need.to_string());
            }
        }
    }
    false
}

/// Proves that the development platform has exactly the resources it should, counted by kind.
#[test]
fn development_builds_the_platform() {
    let compiled = compiled("deploy-aws-dev", &[]);
    let plan = &compiled.plan;
    for (kind, wanted) in [
        ("aws.environment_hold", 1),
        ("aws.vpc", 1),
        ("aws.subnet", 6),
        ("aws.internet_gateway", 1),
        ("aws.elastic_ip", 1),
        ("aws.nat_gateway", 1),
        ("aws.route_table", 4),
        ("aws.kms_key", 1),
        ("aws.log_group", 1),
        ("aws.eks_cluster", 1),
        ("aws.oidc_provider", 1),
        ("aws.addon", 4),
        ("aws.launch_template", 3),
        ("aws.node_group", 3),
        ("kubernetes.namespace", 4),
        ("kubernetes.resource_quota", 4),
        ("kubernetes.limit_range", 4),
        ("kubernetes.storage_class", 1),
        ("core.approval", 0),
    ] {
        assert_eq!(count(plan, kind), wanted, "{kind}");
    }
    assert_eq!(
        step(plan, "namespaces.quota.platform-apps").undo,
        UndoPlan::With { step: "namespaces.namespace.platform-apps".parse().expect("a name") }
    );
    assert!(compiled.warnings.list.is_empty(), "{}", compiled.warnings.plain());
    assert!(compiled.groups.contains_key("pools.system") && compiled.groups.contains_key("network"));
    assert_eq!(step(plan, "pools.data.nodes").spec["ami_type"], "AL2023_ARM_64_STANDARD");
    assert_eq!(step(plan, "pools.apps.nodes").spec["capacity"], "SPOT");
    assert!(step(plan, "pools.apps.nodes").spec["instance_types"].as_array().expect("a list").len() >= 4);
    assert_eq!(step(plan, "argocd.root_app").when.as_deref(), Some("false"));
}

/// Proves the edges that time and safety hang on: the cluster does not wait for NAT, namespaces need no nodes, nodes
/// need NAT and the early add-ons, Vault needs a storage class.
#[test]
fn dependencies_are_those_of_the_platform() {
    let plan = compiled("deploy-aws-dev", &[]).plan;
    for (from, on, wanted) in [
        ("cluster.cluster", "network.nat.0", false),
        ("cluster.cluster", "network.private.0", true),
        ("pools.system.nodes", "network.nat.0", true),
        ("pools.system.nodes", "cluster.vpc_cni", true),
        ("namespaces.quota.platform-apps", "pools.system.nodes", false),
        ("namespaces.quota.platform-apps", "cluster.api_reachable", true),
        ("vault.install", "storage_class", true),
        ("vault.install", "argocd.install", false),
        ("external_secrets.install", "vault.init", false),
        ("external_secrets.store", "vault.own_access", true),
        ("network.vpc", "hold", true),
        ("cluster.key", "hold", true),
        ("smoke.dns", "coredns", true),
    ] {
        assert_eq!(depends(&plan, from, on), wanted, "{from} on {on}");
    }
}

/// Proves that production differs where it must: approval before any change, three NAT gateways, on demand, protected.
#[test]
fn production_is_approved_and_protected() {
    let plan = compiled("deploy-aws-production", &[]).plan;
    assert_eq!(count(&plan, "aws.nat_gateway"), 3);
    assert_eq!(count(&plan, "core.approval"), 1);
    assert_eq!(step(&plan, "cluster.cluster").spec["deletion_protection"], true);
    for pool in ["system", "apps", "data"] {
        assert_eq!(step(&plan, &format!("pools.{pool}.nodes")).spec["capacity"], "ON_DEMAND");
    }
    for step in plan.steps.iter().filter(|step| !["lookups", "approval"].contains(&step.name.as_str())) {
        assert!(depends(&plan, step.name.as_str(), "approval"), "{} changes something without approval", step.name);
    }
}

/// Proves that staging compiles and that a repository brings the root application.
#[test]
fn staging_and_parameters() {
    let plan = compiled("deploy-aws-staging", &["gitops_repo=https://git.example.org/platform.git"]).plan;
    assert_eq!(plan.environment.as_str(), "aws-staging");
    assert_eq!(step(&plan, "argocd.root_app").when.as_deref(), Some("true"));
    assert_eq!(plan.digest().expect("JSON").len(), 64);
}

/// Proves that compiling is deterministic: the same parameters give the same digest, whatever the hash seeds.
#[test]
fn digests_are_stable() {
    let first = compiled("deploy-aws-dev", &[]).plan.digest().expect("JSON");
    for _ in 0..5 {
        assert_eq!(compiled("deploy-aws-dev", &[]).plan.digest().expect("JSON"), first);
    }
}
