//! Every `aws.*` kind against the sandbox over loopback, with the real SDK clients: observe, apply, observe, undo.
//!
//! The engine is stood in for by a loop of a few lines; clocks are scaled, nothing sleeps for its own sake.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends where something unexpected happens"
)]

mod aws_harness;

use aws_harness::{Build, World};
use platflow_engine::failure::{ErrorClass, Residue};
use platflow_engine::step::Observation;
use serde_json::{Value, json};

fn text<'a>(outputs: &'a Value, pointer: &str) -> &'a str {
    outputs.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("{pointer} is missing in {outputs}"))
}

fn role(name: &str, service: &str, policies: &[&str]) -> Value {
    json!({
        "name": name,
        "description": "for a test",
        "trust_policy": {"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Principal": {"Service": service}, "Action": ["sts:AssumeRole"]}]},
        "managed_policies": policies,
        "inline_policies": {"zones": {"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Action": ["ec2:DescribeAvailabilityZones"], "Resource": "*"}]}},
    })
}

/// The network: hold, VPC, two public and two private subnets, gateway, address, NAT, routes, group.
async fn network(build: &mut Build<'_>) -> Value {
    build.make("aws.environment_hold", "hold", json!({})).await;
    let found = build.make("aws.lookups", "lookups", json!({"zone_count": 2, "instance_types": ["t3.large"]})).await;
    let zone = |index: usize| text(&found, &format!("/zones/{index}/id")).to_owned();
    let vpc = build.make("aws.vpc", "network.vpc", json!({"name": "test", "cidr": "10.0.0.0/16"})).await;
    let vpc = text(&vpc, "/vpc_id").to_owned();
    let mut subnets = Vec::new();
    for (index, (kind, public)) in [("public", true), ("private", false)].iter().enumerate() {
        for zone_index in 0..2 {
            let spec = json!({
                "name": format!("test-{kind}-{zone_index}"), "vpc_id": vpc, "public": public, "cluster_name": "test",
                "cidr": format!("10.0.{}.0/24", index * 2 + zone_index), "zone_id": zone(zone_index),
            });
            let made = build.make("aws.subnet", &format!("network.{kind}.{zone_index}"), spec).await;
            subnets.push(text(&made, "/subnet_id").to_owned());
        }
    }
    let gateway = json!({"name": "test", "vpc_id": vpc});
    let gateway = build.make("aws.internet_gateway", "network.internet_gateway", gateway).await;
    let address = build.make("aws.elastic_ip", "network.nat_address", json!({"name": "test"})).await;
    let nat = json!({"name": "test", "subnet_id": subnets[0], "allocation_id": text(&address, "/allocation_id")});
    let nat = build.make("aws.nat_gateway", "network.nat", nat).await;
    let routes = json!({
        "name": "test-public", "vpc_id": vpc, "subnet_ids": subnets[..2],
        "routes": [{"destination": "0.0.0.0/0", "internet_gateway_id": text(&gateway, "/internet_gateway_id")}],
    });
    build.make("aws.route_table", "network.public_routes", routes).await;
    let routes = json!({
        "name": "test-private", "vpc_id": vpc, "subnet_ids": subnets[2..],
        "routes": [{"destination": "0.0.0.0/0", "nat_gateway_id": text(&nat, "/nat_gateway_id")}],
    });
    build.make("aws.route_table", "network.private_routes", routes).await;
    let group = json!({
        "name": "test-control-plane", "description": "for a test", "vpc_id": vpc,
        "rules": [
            {"direction": "ingress", "protocol": "tcp", "from_port": 443, "to_port": 443, "cidr": "10.0.0.0/16"},
            {"direction": "ingress", "protocol": "-1", "self": true},
            {"direction": "egress", "protocol": "tcp", "from_port": 1025, "to_port": 65535, "cidr": "10.0.0.0/16"},
        ],
    });
    let group = build.make("aws.security_group", "cluster.security_group", group).await;
    json!({"vpc": vpc, "subnets": subnets[2..], "group": text(&group, "/security_group_id"), "lookups": found})
}

/// Key, log group and roles: what a cluster needs beside its network.
async fn identity(build: &mut Build<'_>) -> Value {
    let key = json!({"alias": "alias/platflow/test", "description": "for a test"});
    let key = build.make("aws.kms_key", "cluster.key", key).await;
    let logs = json!({"name": "/aws/eks/test/cluster", "retention_days": 30});
    build.make("aws.log_group", "cluster.logs", logs).await;
    let policies = ["arn:aws:iam::aws:policy/AmazonEKSClusterPolicy"];
    let cluster = role("test-cluster", "eks.amazonaws.com", &policies);
    let cluster = build.make("aws.iam_role", "cluster.cluster_role", cluster).await;
    let policies = [
        "arn:aws:iam::aws:policy/AmazonEKSWorkerNodePolicy",
        "arn:aws:iam::aws:policy/AmazonEC2ContainerRegistryReadOnly",
    ];
    let node = build.make("aws.iam_role", "cluster.node_role", role("test-node", "ec2.amazonaws.com", &policies)).await;
    json!({"key": text(&key, "/arn"), "cluster_role": text(&cluster, "/arn"), "node_role": text(&node, "/arn")})
}

fn cluster_spec(network: &Value, identity: &Value) -> Value {
    json!({
        "name": "test", "version": text(network, "/lookups/kubernetes_version"),
        "role_arn": text(identity, "/cluster_role"), "subnet_ids": network["subnets"],
        "security_group_ids": [network["group"]], "public_access": true, "private_access": true,
        "public_access_cidrs": ["192.0.2.0/24"], "kms_key_arn": identity["key"],
        "log_types": ["api", "audit"], "service_cidr": "172.20.0.0/16",
    })
}

fn template_spec() -> Value {
    json!({"name": "test-system", "disk_gib": 100, "cluster_name": "test", "tags_for_instances": {"pool": "system"}})
}

fn pool_spec(network: &Value, identity: &Value, template: &Value) -> Value {
    json!({
        "cluster_name": "test", "name": "system", "node_role_arn": identity["node_role"],
        "subnet_ids": network["subnets"], "launch_template_id": text(template, "/launch_template_id"),
        "launch_template_version": text(template, "/version"), "ami_type": "AL2023_x86_64_STANDARD",
        "capacity": "ON_DEMAND", "instance_types": ["t3.large"], "min": 1, "desired": 2, "max": 3,
        "labels": {"pool": "system"}, "taints": [{"key": "only", "value": "system", "effect": "NO_SCHEDULE"}],
        "version": text(network, "/lookups/kubernetes_version"),
    })
}

async fn platform(build: &mut Build<'_>) -> (Value, Value) {
    let network = network(build).await;
    let identity = identity(build).await;
    let cluster = build.make("aws.eks_cluster", "cluster.cluster", cluster_spec(&network, &identity)).await;
    build.make("aws.oidc_provider", "cluster.oidc", json!({"issuer": text(&cluster, "/oidc_issuer")})).await;
    let access = json!({
        "cluster_name": "test", "principal_arn": "arn:aws:iam::123456789012:role/admins/Admin",
        "policies": [{"arn": "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"}],
    });
    build.make("aws.access_entry", "cluster.admin", access).await;
    let caller = json!({
        "cluster_name": "test", "principal_arn": "caller", "kubernetes_groups": ["operators"],
        "policies": [{"arn": "arn:aws:eks::aws:cluster-access-policy/AmazonEKSViewPolicy", "namespaces": ["apps"]}],
    });
    build.make("aws.access_entry", "cluster.caller", caller).await;
    let version = json!({"zone_count": 2, "addons": ["vpc-cni"], "public_access_cidrs": ["127.0.0.0/8"]});
    let versions = build.make("aws.lookups", "versions", version).await;
    let addon = json!({
        "cluster_name": "test", "name": "vpc-cni", "version": versions["addon_versions"]["vpc-cni"],
        "configuration": {"enableNetworkPolicy": "true"},
    });
    build.make("aws.addon", "cluster.vpc_cni", addon).await;
    let template = build.make("aws.launch_template", "system.template", template_spec()).await;
    build.make("aws.node_group", "system.nodes", pool_spec(&network, &identity, &template)).await;
    (network, identity)
}

/// Proves that every kind builds what its spec says, sees it without differences, makes no call the second time, and is
/// undone until a look shows it gone.
#[tokio::test]
async fn every_kind_is_made_seen_repeated_and_undone() {
    let world = World::start().await;
    let mut build = world.build("uid1", "run1");
    platform(&mut build).await;

    let before = build.mutations();
    build.repeat_all().await;
    assert_eq!(build.mutations(), before, "a second run made mutating calls");

    build.undo_all().await;
    for step in build.steps() {
        let seen = build.look(&step).await;
        let pinned = build.kind(&step) == "aws.lookups";
        assert!(pinned || seen == Observation::Absent, "{step} is still there: {seen:?}");
    }
}

/// Proves that a resource whose creating reply was lost is found again by its tags or its name, not made twice: the
/// record is empty, the intent uncertain.
#[tokio::test]
async fn what_was_made_in_silence_is_adopted() {
    let world = World::start().await;
    let mut build = world.build("uid1", "run1");
    platform(&mut build).await;
    let before = build.mutations();
    for step in build.steps() {
        if build.kind(&step) == "aws.lookups" {
            continue;
        }
        let outputs = build.outputs(&step).clone();
        build.forget(&step);
        let again = build.remake(&step).await;
        assert_eq!(again, outputs, "{step} was not adopted");
    }
    assert_eq!(build.mutations(), before, "adoption needs no mutating call");
}

/// Proves that another environment's resources under the same names are refused with their owner named, and left alone.
#[tokio::test]
async fn a_stranger_is_refused_by_name() {
    let world = World::start().await;
    let mut build = world.build("uid1", "run1");
    let network = network(&mut build).await;
    identity(&mut build).await;

    let mut other = world.build("uid2", "run2");
    let hold = other.refused("aws.environment_hold", "hold", json!({})).await;
    assert_eq!(hold.class, ErrorClass::NeedsHuman);
    assert!(hold.message.contains("uid1"), "{hold}");
    let group = json!({"name": "test-control-plane", "description": "for a test", "vpc_id": network["vpc"]});
    let subnet = json!({
        "name": "x", "vpc_id": network["vpc"], "cidr": "10.0.0.0/24",
        "zone_id": text(&network, "/lookups/zones/0/id"),
    });
    for (kind, step, spec) in [
        ("aws.security_group", "cluster.security_group", group),
        ("aws.subnet", "network.public.0", subnet),
        ("aws.iam_role", "cluster.node_role", role("test-node", "ec2.amazonaws.com", &[])),
        ("aws.log_group", "cluster.logs", json!({"name": "/aws/eks/test/cluster", "retention_days": 1})),
        ("aws.kms_key", "cluster.key", json!({"alias": "alias/platflow/test", "description": "x"})),
    ] {
        let error = other.refused(kind, step, spec).await;
        assert_eq!(error.class, ErrorClass::NeedsHuman, "{kind}: {error}");
        assert!(error.message.contains("uid1"), "{kind}: {error}");
    }
    assert_eq!(other.mutations(), 0);
    other.undo_all().await;
    assert_eq!(other.mutations(), 0, "an undo touched what is not ours");
}

/// Proves that changed specs become differences by field, and that an apply removes them in place.
#[tokio::test]
async fn differences_are_found_and_mended() {
    let world = World::start().await;
    let mut build = world.build("uid1", "run1");
    let network = network(&mut build).await;
    identity(&mut build).await;
    let group = json!({
        "name": "test-control-plane", "description": "for a test", "vpc_id": network["vpc"],
        "rules": [{"direction": "egress", "protocol": "-1", "cidr": "0.0.0.0/0"}],
    });
    let mut node = role("test-node", "ec2.amazonaws.com", &["arn:aws:iam::aws:policy/AmazonEKS_CNI_Policy"]);
    node["inline_policies"] = json!({});
    let logs = json!({"name": "/aws/eks/test/cluster", "retention_days": 7, "tags": {"team": "platform"}});
    for (step, spec, fields) in [
        ("cluster.security_group", group, vec!["/rules"]),
        ("cluster.node_role", node, vec!["/managed_policies", "/inline_policies"]),
        ("cluster.logs", logs, vec!["/retention_days", "/tags"]),
    ] {
        build.respec(step, spec);
        let Observation::Present { differences, .. } = build.look(step).await else { panic!("{step} is not there") };
        let found: Vec<&str> = differences.iter().map(|difference| difference.field.as_str()).collect();
        assert_eq!(found, fields, "{step}");
        build.remake(step).await;
        let Observation::Present { differences, .. } = build.look(step).await else { panic!("{step} is not there") };
        assert_eq!(differences, vec![], "{step}");
    }
}

/// Proves that a change which takes cluster-wide access from whoever runs platflow is refused before anything is called,
/// naming what would be lost, and made once it is agreed to.
#[tokio::test]
async fn own_access_is_only_given_up_with_consent() {
    let world = World::start().await;
    let mut build = world.build("uid1", "run1");
    let network = network(&mut build).await;
    let identity = identity(&mut build).await;
    build.make("aws.eks_cluster", "cluster.cluster", cluster_spec(&network, &identity)).await;
    let policy = |name: &str| json!([{"arn": format!("arn:aws:eks::aws:cluster-access-policy/{name}")}]);
    let entry = |policies: Value, agreed: bool| json!({"cluster_name": "test", "principal_arn": "caller", "policies": policies, "may_lose_own_access": agreed});
    build.make("aws.access_entry", "cluster.caller", entry(policy("AmazonEKSClusterAdminPolicy"), false)).await;
    let before = build.mutations();
    build.respec("cluster.caller", entry(policy("AmazonEKSViewPolicy"), false));
    let error = build.refused_again("cluster.caller").await;
    assert_eq!((error.class, error.code.as_deref()), (ErrorClass::NeedsHuman, Some("OwnAccess")));
    assert!(error.message.contains("AmazonEKSClusterAdminPolicy"), "{error}");
    assert_eq!(build.mutations(), before, "nothing was called");
    build.respec("cluster.caller", entry(policy("AmazonEKSViewPolicy"), true));
    build.remake("cluster.caller").await;
    assert!(build.mutations() > before);
}

/// Proves that a creating reply lost on the wire makes nothing twice: every kind of creation loses its first reply, and
/// afterwards no two resources of one type carry the same step's tag.
#[tokio::test]
async fn lost_replies_make_nothing_twice() {
    let world = World::start().await;
    let creations = [
        "ec2:CreateVpc",
        "ec2:CreateSubnet",
        "ec2:CreateInternetGateway",
        "ec2:AllocateAddress",
        "ec2:CreateNatGateway",
        "ec2:CreateRouteTable",
        "ec2:CreateSecurityGroup",
        "ec2:CreateLaunchTemplate",
        "kms:CreateKey",
        "iam:CreateRole",
        "iam:CreateOpenIDConnectProvider",
        "logs:CreateLogGroup",
        "eks:CreateCluster",
        "eks:CreateNodegroup",
        "eks:CreateAddon",
        "eks:CreateAccessEntry",
    ];
    for creation in creations {
        world.server.control("faults", &json!({"rule": format!("{creation}=lose_reply*1")})).await;
    }
    let mut build = world.build("uid1", "run1");
    platform(&mut build).await;
    let rules = world.server.shown("faults").await;
    for rule in rules["rules"].as_array().unwrap() {
        assert!(rule["seen"].as_u64().unwrap() >= 1, "the fault was never met: {rule}");
    }
    let listing = world.server.shown("world").await;
    let mut seen = std::collections::BTreeSet::new();
    for resource in listing["resources"].as_array().unwrap() {
        let Some(step) = resource.pointer("/tags/platflow:step").and_then(Value::as_str) else { continue };
        let kind = text(resource, "/type");
        let launched = ["ec2:instance", "ec2:volume", "ec2:network-interface"].contains(&kind);
        assert!(launched || seen.insert((kind.to_owned(), step.to_owned())), "{kind} of {step} exists twice");
    }
    assert!(seen.len() >= 20, "the listing shows too little: {seen:?}");
}

/// Proves that a NAT gateway that AWS gave up on ends in a failure with its cause, and is undone like any other.
#[tokio::test]
async fn a_failed_nat_gateway_is_reported_and_undone() {
    let world = World::start().await;
    world.server.control("faults", &json!({"rule": "ec2:CreateNatGateway=nat_gateway_fails*1"})).await;
    let mut build = world.build("uid1", "run1");
    let vpc = build.make("aws.vpc", "vpc", json!({"name": "test", "cidr": "10.0.0.0/16"})).await;
    let gateway = json!({"name": "test", "vpc_id": vpc["vpc_id"]});
    build.make("aws.internet_gateway", "gateway", gateway).await;
    let zones = build.make("aws.lookups", "lookups", json!({"zone_count": 2})).await;
    let subnet = json!({
        "name": "test", "vpc_id": vpc["vpc_id"], "cidr": "10.0.0.0/24", "zone_id": text(&zones, "/zones/0/id"),
    });
    let subnet = build.make("aws.subnet", "subnet", subnet).await;
    let address = build.make("aws.elastic_ip", "address", json!({"name": "test"})).await;
    let nat = json!({"name": "test", "subnet_id": subnet["subnet_id"], "allocation_id": address["allocation_id"]});
    let error = build.refused("aws.nat_gateway", "nat", nat).await;
    assert_eq!(error.class, ErrorClass::Permanent, "{error}");
    assert_eq!(error.residue, Residue::Present, "{error}");
    build.undo_all().await;
}
