//! Managed node groups: their calls, what they come to, and their end. Machines are made in `machines`.

#![expect(
    clippy::indexing_slicing,
    reason = "reading a JSON value never panics, and every one that is written here is an object of our own making"
)]

use serde_json::{Value, json};

use super::super::ec2::INSTANCE_TYPES;
use super::super::state::Link;
use super::super::wire::{Refusal, epoch, items, need, number, text, texts};
use super::super::{Answer, Call, Record, unknown};
use super::{NODES, check_role, cluster, has_network, in_use, invalid, not_found, shown, tag_map, update};
use crate::faults::Effect;

fn key(cluster: &str, name: &str) -> String {
    format!("{cluster}/{name}")
}

pub(super) fn dispatch(call: &mut Call<'_>, input: &Value) -> Answer {
    let cluster_name = need(input, "clusterName")?.to_owned();
    cluster(call, &cluster_name)?;
    if call.operation == "CreateNodegroup" {
        return create(call, input, &cluster_name);
    }
    if call.operation == "ListNodegroups" {
        return Ok(
            json!({"nodegroups": call.all(NODES).filter(|group| group.text("/clusterName") == cluster_name).map(|group| group.text("/nodegroupName")).collect::<Vec<_>>()}),
        );
    }
    let id = key(&cluster_name, need(input, "nodegroupName")?);
    let (operation, now_ms) = (call.operation.to_owned(), call.now_ms);
    let group = call
        .get_mut(NODES, &id)
        .ok_or_else(|| not_found(format!("No node group found for name: {}.", text(input, "/nodegroupName"))))?;
    let idle = matches!(group.text("/status"), "ACTIVE" | "DEGRADED");
    match operation.as_str() {
        "DescribeNodegroup" => return Ok(json!({"nodegroup": shown(group)})),
        "DeleteNodegroup" => {
            if group.text("/status") != "DELETING" {
                group.set("status", "DELETING");
                group.then(now_ms + 180_000, "gone");
            }
            return Ok(json!({"nodegroup": shown(group)}));
        }
        _ if !idle => {
            return Err(in_use(format!("Nodegroup cannot be updated as it currently has an update in progress: {id}")));
        }
        "UpdateNodegroupConfig" => {
            if let Some(new) = input.get("updateConfig") {
                group.set("updateConfig", new.clone());
            }
            // What an update of the size leaves out stays as it is.
            let mut size = group.body["scalingConfig"].as_object().cloned().unwrap_or_default();
            size.extend(input.get("scalingConfig").and_then(Value::as_object).cloned().unwrap_or_default());
            group.set("scalingConfig", size);
            relabel(group, input);
        }
        "UpdateNodegroupVersion" => {
            for field in ["version", "releaseVersion", "launchTemplate"] {
                if let Some(new) = input.get(field) {
                    group.set(field, new.clone());
                }
            }
        }
        _ => return unknown(call),
    }
    group.set("status", "UPDATING");
    let configuration = operation == "UpdateNodegroupConfig";
    group.then(now_ms + if configuration { 30_000 } else { 60_000 }, if configuration { "rescale" } else { "updated" });
    Ok(update(call, &cluster_name, if configuration { "ConfigUpdate" } else { "VersionUpdate" }, 60_000))
}

fn relabel(group: &mut Record, input: &Value) {
    let mut labels = group.body["labels"].as_object().cloned().unwrap_or_default();
    labels.extend(input.pointer("/labels/addOrUpdateLabels").and_then(Value::as_object).cloned().unwrap_or_default());
    for name in texts(input, "/labels/removeLabels") {
        labels.remove(&name);
    }
    group.set("labels", Value::Object(labels));
    let mut taints = items(&group.body, "/taints");
    let same = |a: &Value, b: &Value| a["key"] == b["key"] && a["effect"] == b["effect"];
    let (gone, new) = (items(input, "/taints/removeTaints"), items(input, "/taints/addOrUpdateTaints"));
    taints.retain(|one| !gone.iter().chain(&new).any(|other| same(one, other)));
    taints.extend(new);
    group.set("taints", taints);
}

fn create(call: &mut Call<'_>, input: &Value, cluster_name: &str) -> Answer {
    let name = need(input, "nodegroupName")?.to_owned();
    let id = key(cluster_name, &name);
    if call.get(NODES, &id).is_some() {
        return Err(in_use(format!("NodeGroup already exists with name {name} and cluster name {cluster_name}")));
    }
    let owner = cluster(call, cluster_name)?;
    if !matches!(owner.text("/status"), "ACTIVE" | "UPDATING") {
        return Err(Refusal::bad(
            "InvalidRequestException",
            format!("Cluster '{cluster_name}' is not in ACTIVE status"),
        ));
    }
    let version = match text(input, "/version") {
        "" => owner.text("/version").to_owned(),
        other => other.to_owned(),
    };
    check_role(call, text(input, "/nodeRole"), "ec2.amazonaws.com")?;
    for subnet in texts(input, "/subnets") {
        call.get("ec2:subnet", &subnet).ok_or_else(|| invalid(format!("The subnet ID '{subnet}' does not exist")))?;
    }
    let types = texts(input, "/instanceTypes");
    let arch = if text(input, "/amiType").contains("ARM_64") { "arm64" } else { "x86_64" };
    for kind in &types {
        let Some((.., have, _)) = INSTANCE_TYPES.iter().find(|(known, ..)| known == kind) else {
            return Err(invalid(format!("The following supplied instance types do not exist: [{kind}]")));
        };
        if *have != arch {
            return Err(invalid(format!(
                "[{kind}] is not a valid instance type for requested amiType {}",
                text(input, "/amiType")
            )));
        }
    }
    let template = text(input, "/launchTemplate/id");
    if !template.is_empty() && call.get("ec2:launch-template", template).is_none() {
        return Err(invalid(format!("Launch template {template} does not exist")));
    }
    let scaling = &input["scalingConfig"];
    let (min, desired, max) =
        (number(scaling, "/minSize"), number(scaling, "/desiredSize"), number(scaling, "/maxSize"));
    if min > desired || desired > max {
        return Err(invalid("desired capacity must be between minimum and maximum size"));
    }
    let body = json!({
        "nodegroupName": name, "nodegroupArn": call.arn("eks", &format!("nodegroup/{cluster_name}/{name}/{}", call.now_ms)), "clusterName": cluster_name, "version": version,
        "releaseVersion": format!("{version}.0-20261101"), "createdAt": epoch(call.now_ms), "modifiedAt": epoch(call.now_ms), "status": "CREATING",
        "capacityType": input.get("capacityType").cloned().unwrap_or(json!("ON_DEMAND")), "scalingConfig": scaling,
        "instanceTypes": if types.is_empty() { vec!["t3.medium".to_owned()] } else { types }, "subnets": input["subnets"], "amiType": input.get("amiType").cloned().unwrap_or(json!("AL2023_x86_64_STANDARD")),
        "nodeRole": input["nodeRole"], "labels": input.get("labels").cloned().unwrap_or(json!({})), "taints": input.get("taints").cloned().unwrap_or(json!([])),
        "resources": {"autoScalingGroups": []}, "health": {"issues": []}, "updateConfig": input.get("updateConfig").cloned().unwrap_or(json!({"maxUnavailable": 1})),
        "launchTemplate": input.get("launchTemplate").cloned(), "diskSize": input.get("diskSize").cloned(), "_never_joins": matches!(call.effect, Some(Effect::NodeGroupNeverJoins)), "_no_capacity": matches!(call.effect, Some(Effect::NoCapacity)),
        "_short_ms": if let Some(Effect::ShortOfCapacity { seconds }) = call.effect { json!(seconds * 1_000) } else { Value::Null },
    });
    let mut record = call.record(NODES, &id, body, tag_map(input));
    record.then(call.now_ms + 60_000, "launch");
    let answer = json!({"nodegroup": shown(&record)});
    call.state.put(record);
    Ok(answer)
}

/// Fifteen minutes are all that EKS gives machines to join; with the network add-on there they need less.
pub(in super::super) fn settle(call: &mut Call<'_>, id: &str) {
    let Some(group) = call.get(NODES, id).cloned() else { return };
    let cni = has_network(call, group.text("/clusterName"));
    let ok = group.body["_joined"] == json!(true) && cni;
    let short_ms = group.body["_short_ms"].as_i64();
    let now_ms = call.now_ms;
    let Some(record) = call.get_mut(NODES, id) else { return };
    let spot = if group.text("/capacityType") == "SPOT" { "Spot Instances" } else { "On-Demand Instances" };
    let capacity = |which: &str| json!({"issues": [{"code": "AsgInstanceLaunchFailures", "message": format!("{which} {spot}. InsufficientInstanceCapacity - We currently do not have sufficient {} capacity in the Availability Zone you requested. Launching EC2 instance failed.", group.text("/instanceTypes/0")), "resourceIds": [group.text("/resources/autoScalingGroups/0/name")]}]});
    if group.body["_no_capacity"] == json!(true) {
        record.set("status", "CREATE_FAILED");
        record.set("health", capacity("Could not launch"));
    } else if !ok {
        let ids: Vec<&Value> =
            group.body["_nodes"].as_array().into_iter().flatten().map(|node| &node["instance"]).collect();
        record.set("status", "CREATE_FAILED");
        record.set("health", json!({"issues": [{"code": "NodeCreationFailure", "message": "Instances failed to join the kubernetes cluster", "resourceIds": ids}]}));
    } else if let Some(short_ms) = short_ms {
        record.set("status", "DEGRADED");
        record.set("health", capacity("Could not launch all"));
        record.then(now_ms + short_ms, "recovered");
    } else {
        record.set("status", "ACTIVE");
    }
}

/// The capacity that was short is there.
pub(in super::super) fn recover(call: &mut Call<'_>, id: &str) {
    if let Some(record) = call.get_mut(NODES, id) {
        record.set("status", "ACTIVE");
        record.set("health", json!({"issues": []}));
    }
}

/// The end of a deletion.
pub(in super::super) fn gone(call: &mut Call<'_>, id: &str) {
    let Some(group) = call.remove(NODES, id) else { return };
    for node in items(&group.body, "/_nodes") {
        super::super::remains::end_machine(call, text(&node, "/instance"));
        call.state.links.push(Link::NodeGone {
            cluster: group.text("/clusterName").to_owned(),
            node: text(&node, "/name").to_owned(),
        });
    }
    call.remove("autoscaling:group", group.text("/resources/autoScalingGroups/0/name"));
}
