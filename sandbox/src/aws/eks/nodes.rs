//! Managed node groups: Auto Scaling groups, machines with interfaces and volumes, and what makes them fail to join.

#![expect(
    clippy::indexing_slicing,
    reason = "reading a JSON value never panics, and every one that is written here is an object of our own making"
)]

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::ec2::{INSTANCE_TYPES, NewInterface, has_way_out, interface, volume_body};
use super::super::state::Link;
use super::super::wire::{Refusal, epoch, iso, items, need, number, text, texts};
use super::super::{Answer, Call, Record, tags_of, unknown};
use super::{ADDON, NODES, check_role, cluster, in_use, invalid, not_found, shown, tag_map, update};
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
            for field in ["scalingConfig", "updateConfig", "taints"] {
                if let Some(new) = input.get(field).filter(|_| field != "taints") {
                    group.set(field, new.clone());
                }
            }
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
    group.then(now_ms + 60_000, "updated");
    let kind = if operation == "UpdateNodegroupConfig" { "ConfigUpdate" } else { "VersionUpdate" };
    Ok(update(call, &cluster_name, kind, 60_000))
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
        "launchTemplate": input.get("launchTemplate").cloned(), "diskSize": input.get("diskSize").cloned(), "_never_joins": matches!(call.effect, Some(Effect::NodeGroupNeverJoins)),
    });
    let mut record = call.record(NODES, &id, body, tag_map(input));
    record.then(call.now_ms + 60_000, "launch");
    let answer = json!({"nodegroup": shown(&record)});
    call.state.put(record);
    Ok(answer)
}

/// Machines come up.
pub(in super::super) fn launch(call: &mut Call<'_>, id: &str) {
    let Some(group) = call.get(NODES, id).cloned() else { return };
    let suffix = call.state.uuid();
    let asg = format!("eks-{}-{suffix}", group.text("/nodegroupName"));
    let count = number(&group.body, "/scalingConfig/desiredSize").unwrap_or(1);
    let subnets = texts(&group.body, "/subnets");
    let nodes: Vec<Value> = subnets
        .iter()
        .cycle()
        .take(usize::try_from(count).unwrap_or(0))
        .map(|subnet| machine(call, &group, subnet, &asg))
        .collect();
    let arn = call.arn("autoscaling", &format!("autoScalingGroup:{suffix}:autoScalingGroupName/{asg}"));
    let body = json!({
        "AutoScalingGroupName": asg, "AutoScalingGroupARN": arn, "MinSize": group.body["scalingConfig"]["minSize"], "MaxSize": group.body["scalingConfig"]["maxSize"], "DesiredCapacity": count,
        "Instances": nodes.iter().map(|node| json!({"InstanceId": node["instance"], "LifecycleState": "InService", "HealthStatus": "Healthy"})).collect::<Vec<_>>(), "CreatedTime": iso(call.now_ms),
    });
    let tags = BTreeMap::from([
        ("eks:cluster-name".to_owned(), group.text("/clusterName").to_owned()),
        ("eks:nodegroup-name".to_owned(), group.text("/nodegroupName").to_owned()),
    ]);
    let mut record = call.record("autoscaling:group", &asg, body, tags);
    record.system = true;
    call.state.put(record);
    let cni = call
        .all(ADDON)
        .any(|addon| addon.text("/clusterName") == group.text("/clusterName") && addon.text("/addonName") == "vpc-cni");
    let joins = group.body["_never_joins"] != json!(true) && subnets.iter().all(|subnet| has_way_out(call, subnet));
    let now_ms = call.now_ms;
    if let Some(record) = call.get_mut(NODES, id) {
        record.set("resources", json!({"autoScalingGroups": [{"name": asg}]}));
        record.set("_nodes", nodes);
        record.set("_joined", joins);
        record.then(now_ms + if joins && cni { 120_000 } else { 14 * 60_000 }, "settle");
    }
    if joins {
        call.state.links.push(Link::NodesUp {
            cluster: group.text("/clusterName").to_owned(),
            group: group.text("/nodegroupName").to_owned(),
        });
    }
}

fn machine(call: &mut Call<'_>, group: &Record, subnet: &str, asg: &str) -> Value {
    let id = call.id("i");
    let cluster_name = group.text("/clusterName").to_owned();
    let security = call
        .get(super::CLUSTER, &cluster_name)
        .map(|record| record.text("/resourcesVpcConfig/clusterSecurityGroupId").to_owned())
        .unwrap_or_default();
    let kind = group.text("/instanceTypes/0").to_owned();
    let template = call
        .get("ec2:launch-template", group.text("/launchTemplate/id"))
        .and_then(|record| items(&record.body, "/_versions").pop())
        .unwrap_or(Value::Null);
    let specified = |resource: &str| -> BTreeMap<String, String> {
        items(&template, "/launchTemplateData/tagSpecificationSet")
            .iter()
            .filter(|one| text(one, "/resourceType") == resource)
            .flat_map(|one| tags_of(&items(one, "/tagSet"), "key", "value"))
            .collect()
    };
    let mut tags = specified("instance");
    tags.extend([
        ("eks:cluster-name".to_owned(), cluster_name.clone()),
        ("eks:nodegroup-name".to_owned(), group.text("/nodegroupName").to_owned()),
        (format!("kubernetes.io/cluster/{cluster_name}"), "owned".to_owned()),
        ("aws:autoscaling:groupName".to_owned(), asg.to_owned()),
    ]);
    let (eni, address) = interface(
        call,
        NewInterface {
            subnet,
            description: "",
            kind: "interface",
            groups: std::slice::from_ref(&security),
            instance: Some(&id),
            tags: specified("network-interface"),
        },
    );
    let place = call.get("ec2:subnet", subnet);
    let (zone, vpc) = place
        .map(|record| (record.text("/availabilityZone").to_owned(), record.text("/vpcId").to_owned()))
        .unwrap_or_default();
    let volume = call.id("vol");
    let gib = number(&template, "/launchTemplateData/blockDeviceMappingSet/0/ebs/volumeSize")
        .or(number(&group.body, "/diskSize"))
        .unwrap_or(20);
    let mut disk = volume_body(&volume, u64::try_from(gib).unwrap_or(20), &zone, call.now_ms);
    disk["status"] = json!("in-use");
    disk["attachmentSet"] = json!([{"instanceId": id, "device": "/dev/xvda", "status": "attached", "volumeId": volume, "deleteOnTermination": true}]);
    let mut record = call.record("ec2:volume", &volume, disk, specified("volume"));
    record.system = true;
    call.state.put(record);
    let name = format!(
        "ip-{}.{}",
        address.replace('.', "-"),
        if call.region == "us-east-1" {
            "ec2.internal".to_owned()
        } else {
            format!("{}.compute.internal", call.region)
        }
    );
    let body = json!({
        "instanceId": id, "instanceType": kind, "imageId": "ami-00000000000000001", "instanceState": {"code": 16, "name": "running"}, "privateDnsName": name, "privateIpAddress": address,
        "subnetId": subnet, "vpcId": vpc, "placement": {"availabilityZone": zone}, "launchTime": iso(call.now_ms), "groupSet": [{"groupId": security}], "_eni": eni, "_volume": volume,
    });
    let mut record = call.record("ec2:instance", &id, body, tags);
    record.system = true;
    call.state.put(record);
    if let Some(record) = call.get_mut("ec2:network-interface", &eni) {
        record.system = true;
    }
    json!({"instance": id, "name": name, "zone": zone, "eni": eni, "volume": volume})
}

/// Fifteen minutes are all that EKS gives machines to join; with the network add-on there they need less.
pub(in super::super) fn settle(call: &mut Call<'_>, id: &str) {
    let Some(group) = call.get(NODES, id).cloned() else { return };
    let cni = call
        .all(ADDON)
        .any(|addon| addon.text("/clusterName") == group.text("/clusterName") && addon.text("/addonName") == "vpc-cni");
    let ok = group.body["_joined"] == json!(true) && cni;
    if let Some(record) = call.get_mut(NODES, id) {
        record.set("status", if ok { "ACTIVE" } else { "CREATE_FAILED" });
        if !ok {
            let ids: Vec<&Value> =
                group.body["_nodes"].as_array().into_iter().flatten().map(|node| &node["instance"]).collect();
            record.set("health", json!({"issues": [{"code": "NodeCreationFailure", "message": "Instances failed to join the kubernetes cluster", "resourceIds": ids}]}));
        }
    }
}

/// The end of a deletion.
pub(in super::super) fn gone(call: &mut Call<'_>, id: &str) {
    let Some(group) = call.remove(NODES, id) else { return };
    for node in items(&group.body, "/_nodes") {
        for (kind, field) in
            [("ec2:instance", "/instance"), ("ec2:network-interface", "/eni"), ("ec2:volume", "/volume")]
        {
            call.remove(kind, text(&node, field));
        }
        call.state.links.push(Link::NodeGone {
            cluster: group.text("/clusterName").to_owned(),
            node: text(&node, "/name").to_owned(),
        });
    }
    call.remove("autoscaling:group", group.text("/resources/autoScalingGroups/0/name"));
}
