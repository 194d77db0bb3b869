//! Clusters: their creation with a security group and interfaces of their own, updates one at a time, and deletion.

#![expect(
    clippy::indexing_slicing,
    reason = "reading a JSON value never panics, and every one that is written here is an object of our own making"
)]

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::ec2::{NewInterface, interface, take_group};
use super::super::state::Link;
use super::super::wire::{Refusal, epoch, items, need, text, texts};
use super::super::{Answer, Call, unknown};
use super::{
    ADDON, CLUSTER, ENTRY, NODES, UPDATE, bare, catalog, check_role, cluster, in_use, invalid, shown, tag_map, update,
};

pub(super) fn dispatch(call: &mut Call<'_>, input: &Value) -> Answer {
    match call.operation {
        "CreateCluster" => create(call, input),
        "DescribeCluster" => Ok(json!({"cluster": shown(cluster(call, need(input, "name")?)?)})),
        "ListClusters" => Ok(json!({"clusters": call.all(CLUSTER).map(|record| &record.id).collect::<Vec<_>>()})),
        "DeleteCluster" => delete(call, input),
        "UpdateClusterConfig" => configure(call, input),
        "UpdateClusterVersion" => upgrade(call, input),
        "AssociateEncryptionConfig" => encrypt(call, input),
        "DescribeUpdate" => {
            let id = need(input, "updateId")?;
            call.get(UPDATE, id)
                .map(|record| json!({"update": bare(record)}))
                .ok_or_else(|| super::not_found(format!("No update found for id: {id}")))
        }
        "ListUpdates" => Ok(
            json!({"updateIds": call.all(UPDATE).filter(|record| record.text("/_cluster") == text(input, "/name")).map(|record| &record.id).collect::<Vec<_>>()}),
        ),
        _ => unknown(call),
    }
}

fn create(call: &mut Call<'_>, input: &Value) -> Answer {
    let name = need(input, "name")?.to_owned();
    if call.get(CLUSTER, &name).is_some() {
        return Err(in_use(format!("Cluster already exists with name: {name}")));
    }
    let version = match text(input, "/version") {
        "" => catalog::DEFAULT_VERSION,
        other => other,
    };
    if !catalog::is_supported(version) {
        return Err(invalid(format!("unsupported Kubernetes version {version}")));
    }
    check_role(call, text(input, "/roleArn"), "eks.amazonaws.com")?;
    let subnets = texts(input, "/resourcesVpcConfig/subnetIds");
    let mut zones = std::collections::BTreeSet::new();
    let mut vpc = String::new();
    for subnet in &subnets {
        let found = call
            .get("ec2:subnet", subnet)
            .ok_or_else(|| invalid(format!("The subnet ID '{subnet}' does not exist")))?;
        vpc = found.text("/vpcId").to_owned();
        let zone = found.text("/availabilityZoneId").to_owned();
        if ["use1-az3", "usw1-az2", "cac1-az3"].contains(&zone.as_str()) {
            return Err(Refusal::bad(
                "UnsupportedAvailabilityZoneException",
                format!(
                    "Cannot create cluster '{name}' because {zone}, the targeted availability zone, does not currently have sufficient capacity to support the cluster."
                ),
            ));
        }
        zones.insert(zone);
    }
    if zones.len() < 2 {
        return Err(invalid("Subnets specified must be in at least two different AZs"));
    }
    for group in texts(input, "/resourcesVpcConfig/securityGroupIds") {
        call.get("ec2:security-group", &group)
            .ok_or_else(|| invalid(format!("The security group '{group}' does not exist")))?;
    }
    let record = body(call, input, &name, version, &vpc, &subnets);
    let answer = json!({"cluster": shown(&record)});
    call.state.put(record);
    bootstrap_access(call, input, &name);
    Ok(answer)
}

fn body(call: &mut Call<'_>, input: &Value, name: &str, version: &str, vpc: &str, subnets: &[String]) -> super::Record {
    let number: u32 = call.state.hex(8).bytes().map(u32::from).sum();
    let group = take_group(
        call,
        vpc,
        &format!("eks-cluster-sg-{name}-{number}"),
        "EKS created security group applied to ENI that is attached to EKS Control Plane master nodes, as well as any managed workloads.",
        BTreeMap::from([
            ("aws:eks:cluster-name".to_owned(), name.to_owned()),
            (format!("kubernetes.io/cluster/{name}"), "owned".to_owned()),
        ]),
    );
    let mut groups = texts(input, "/resourcesVpcConfig/securityGroupIds");
    groups.push(group.clone());
    let description = format!("Amazon EKS {name}");
    let interfaces: Vec<String> = subnets
        .iter()
        .take(4)
        .map(|subnet| {
            interface(
                call,
                NewInterface {
                    subnet,
                    description: &description,
                    kind: "interface",
                    groups: &groups,
                    instance: None,
                    tags: BTreeMap::new(),
                },
            )
            .0
        })
        .collect();
    let issuer = format!("https://oidc.eks.{}.amazonaws.com/id/{}", call.region, call.state.hex(32).to_uppercase());
    let vpc_config = &input["resourcesVpcConfig"];
    let flag = |name: &str, default: bool| vpc_config.get(name).and_then(Value::as_bool).unwrap_or(default);
    let cidrs = texts(vpc_config, "/publicAccessCidrs");
    let body = json!({
        "name": name, "arn": call.arn("eks", &format!("cluster/{name}")), "createdAt": epoch(call.now_ms), "version": version, "platformVersion": "eks.1", "roleArn": input["roleArn"],
        "resourcesVpcConfig": {
            "subnetIds": subnets, "securityGroupIds": texts(vpc_config, "/securityGroupIds"), "clusterSecurityGroupId": group, "vpcId": vpc,
            "endpointPublicAccess": flag("endpointPublicAccess", true), "endpointPrivateAccess": flag("endpointPrivateAccess", false),
            "publicAccessCidrs": if cidrs.is_empty() { vec!["0.0.0.0/0".to_owned()] } else { cidrs },
        },
        "kubernetesNetworkConfig": {"serviceIpv4Cidr": input.pointer("/kubernetesNetworkConfig/serviceIpv4Cidr").cloned().unwrap_or(json!("172.20.0.0/16")), "ipFamily": "ipv4"},
        "logging": input.get("logging").cloned().unwrap_or(json!({"clusterLogging": []})),
        "encryptionConfig": input.get("encryptionConfig").cloned().unwrap_or(json!([])),
        "accessConfig": {"authenticationMode": input.pointer("/accessConfig/authenticationMode").cloned().unwrap_or(json!("CONFIG_MAP"))},
        "upgradePolicy": input.get("upgradePolicy").cloned().unwrap_or(json!({"supportType": "EXTENDED"})),
        "deletionProtection": input.get("deletionProtection").cloned().unwrap_or(json!(false)),
        "health": {"issues": []}, "status": "CREATING", "_self_managed": input.get("bootstrapSelfManagedAddons") != Some(&json!(false)), "_issuer": issuer, "_interfaces": interfaces,
    });
    let mut record = call.record(CLUSTER, name, body, tag_map(input));
    record.then(call.now_ms + 9 * 60_000, "ACTIVE");
    record
}

fn bootstrap_access(call: &mut Call<'_>, input: &Value, name: &str) {
    if input.pointer("/accessConfig/bootstrapClusterCreatorAdminPermissions").and_then(Value::as_bool).unwrap_or(true) {
        let principal = call.principal.to_owned();
        let mut record = super::access::entry(call, name, &principal, &json!({}));
        record.system = true;
        record.set("_policies", json!([{"policyArn": "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy", "accessScope": {"type": "cluster", "namespaces": []}}]));
        call.state.put(record);
    }
}

/// One change at a time.
fn idle(call: &Call<'_>, name: &str) -> Result<(), Refusal> {
    match cluster(call, name)?.text("/status") {
        "ACTIVE" => Ok(()),
        other => Err(in_use(format!(
            "Cannot change cluster {name} because it currently has an update in progress ({other})"
        ))),
    }
}

fn busy(
    call: &mut Call<'_>,
    name: &str,
    kind: &str,
    duration_ms: i64,
    edit: impl FnOnce(&mut super::Record),
) -> Answer {
    let now_ms = call.now_ms;
    if let Some(record) = call.get_mut(CLUSTER, name) {
        edit(record);
        record.set("status", "UPDATING");
        record.then(now_ms + duration_ms, "updated");
    }
    Ok(update(call, name, kind, duration_ms))
}

/// What a configuration is changed in, one at a time, and what the update is called.
const CHANGES: [(&str, &str); 5] = [
    ("logging", "LoggingUpdate"),
    ("resourcesVpcConfig", "EndpointAccessUpdate"),
    ("accessConfig", "AccessConfigUpdate"),
    ("upgradePolicy", "UpgradePolicyUpdate"),
    ("deletionProtection", "DeletionProtectionUpdate"),
];

/// Whether a request asks for anything that is not so already.
fn changes(record: &super::Record, input: &Value) -> bool {
    CHANGES.iter().any(|(field, _)| match input.get(field) {
        Some(Value::Object(wanted)) => wanted.iter().any(|(name, value)| record.body[field][name] != *value),
        other => other.is_some(),
    })
}

/// The part of a request that is a change.
fn changed(input: &Value) -> String {
    CHANGES.iter().filter_map(|(field, _)| input.get(field)).map(Value::to_string).collect()
}

fn configure(call: &mut Call<'_>, input: &Value) -> Answer {
    let name = need(input, "name")?.to_owned();
    idle(call, &name)?;
    let kinds: Vec<&str> =
        CHANGES.iter().filter(|(field, _)| input.get(field).is_some()).map(|(_, kind)| *kind).collect();
    let [kind] = kinds.as_slice() else {
        return Err(invalid(if kinds.is_empty() {
            "No changes needed for the cluster"
        } else {
            "Only one type of update can be allowed."
        }));
    };
    if !changes(cluster(call, &name)?, input) {
        return Err(invalid(format!("Cluster is already at the desired configuration with {}", changed(input))));
    }
    busy(call, &name, kind, 60_000, |record| {
        for (field, _) in CHANGES {
            let changed = input.get(field).and_then(Value::as_object).cloned();
            if let (Some(changed), Some(have)) = (changed, record.body.get_mut(field).and_then(Value::as_object_mut)) {
                have.extend(changed);
            }
        }
        if let Some(on) = input.get("deletionProtection") {
            record.set("deletionProtection", on.clone());
        }
    })
}

fn upgrade(call: &mut Call<'_>, input: &Value) -> Answer {
    let name = need(input, "name")?.to_owned();
    let version = need(input, "version")?.to_owned();
    idle(call, &name)?;
    if !catalog::is_next(cluster(call, &name)?.text("/version"), &version) {
        return Err(invalid(format!("Unsupported Kubernetes minor version update to {version}")));
    }
    busy(call, &name, "VersionUpdate", 9 * 60_000, |record| record.set("version", version))
}

fn encrypt(call: &mut Call<'_>, input: &Value) -> Answer {
    let name = need(input, "clusterName")?.to_owned();
    idle(call, &name)?;
    if !items(&cluster(call, &name)?.body, "/encryptionConfig").is_empty() {
        return Err(invalid("Cluster already has encryption config"));
    }
    busy(call, &name, "AssociateEncryptionConfig", 120_000, |record| {
        record.set("encryptionConfig", input["encryptionConfig"].clone())
    })
}

fn delete(call: &mut Call<'_>, input: &Value) -> Answer {
    let name = need(input, "name")?.to_owned();
    let record = cluster(call, &name)?;
    if record.body["deletionProtection"] == json!(true) {
        return Err(Refusal::bad("InvalidRequestException", "Cannot delete cluster with deletion protection enabled"));
    }
    if call.all(NODES).any(|group| group.text("/clusterName") == name) {
        return Err(in_use("Cluster has nodegroups attached"));
    }
    if matches!(record.text("/status"), "CREATING" | "UPDATING") {
        return Err(in_use(format!("Cluster has an update in progress: {name}")));
    }
    let due_ms = call.now_ms + 3 * 60_000;
    if let Some(record) = call.get_mut(CLUSTER, &name)
        && record.text("/status") != "DELETING"
    {
        record.set("status", "DELETING");
        record.then(due_ms, "gone");
    }
    Ok(json!({"cluster": shown(cluster(call, &name)?)}))
}

/// The end of a deletion: what EKS made for the cluster goes with it.
pub(in super::super) fn gone(call: &mut Call<'_>, name: &str) {
    let Some(record) = call.remove(CLUSTER, name) else { return };
    for eni in texts(&record.body, "/_interfaces") {
        call.remove("ec2:network-interface", &eni);
    }
    let group = record.text("/resourcesVpcConfig/clusterSecurityGroupId");
    let logs = items(&record.body, "/logging/clusterLogging").iter().any(|one| one["enabled"] == json!(true));
    if logs {
        super::super::remains::cluster_ended(call, name);
    }
    if record.body["_forgets_group"] != json!(true) && !super::super::ec2::group_in_use(call, group) {
        call.remove("ec2:security-group", group);
    }
    for kind in [ADDON, ENTRY] {
        let inner: Vec<String> =
            call.all(kind).filter(|one| one.text("/clusterName") == name).map(|one| one.id.clone()).collect();
        for id in inner {
            call.remove(kind, &id);
        }
    }
    call.state.links.push(Link::ClusterGone(name.to_owned()));
}
