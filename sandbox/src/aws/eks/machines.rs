//! The machines of node groups: launched with interfaces and volumes, and as many as the group wants.

#![expect(
    clippy::indexing_slicing,
    reason = "reading a JSON value never panics, and every one that is written here is an object of our own making"
)]

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::ec2::{NewInterface, has_way_out, interface, volume_body};
use super::super::state::Link;
use super::super::wire::{iso, items, number, text, texts};
use super::super::{Call, Record, remains, tags_of};
use super::{NODES, has_network};

/// Machines come up.
pub(in super::super) fn launch(call: &mut Call<'_>, id: &str) {
    let Some(group) = call.get(NODES, id).cloned() else { return };
    let suffix = call.state.uuid();
    let asg = format!("eks-{}-{suffix}", group.text("/nodegroupName"));
    let broke = group.body["_no_capacity"] == json!(true);
    let count = if broke { 0 } else { number(&group.body, "/scalingConfig/desiredSize").unwrap_or(1) };
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
        "Instances": instances(&nodes), "CreatedTime": iso(call.now_ms),
        "VPCZoneIdentifier": subnets.join(","), "_failed": if broke { json!([remains::failed_launch(&group, call.now_ms)]) } else { json!([]) },
    });
    let tags = BTreeMap::from([
        ("eks:cluster-name".to_owned(), group.text("/clusterName").to_owned()),
        ("eks:nodegroup-name".to_owned(), group.text("/nodegroupName").to_owned()),
    ]);
    let mut record = call.record("autoscaling:group", &asg, body, tags);
    record.system = true;
    call.state.put(record);
    let cni = has_network(call, group.text("/clusterName"));
    let joins = group.body["_never_joins"] != json!(true) && subnets.iter().all(|subnet| has_way_out(call, subnet));
    let now_ms = call.now_ms;
    if let Some(record) = call.get_mut(NODES, id) {
        record.set("resources", json!({"autoScalingGroups": [{"name": asg}]}));
        record.set("_nodes", nodes);
        record.set("_joined", joins);
        record.then(now_ms + if joins && cni && !broke { 120_000 } else { 14 * 60_000 }, "settle");
    }
    if joins && !broke {
        call.state.links.push(Link::NodesUp {
            cluster: group.text("/clusterName").to_owned(),
            group: group.text("/nodegroupName").to_owned(),
        });
    }
}

/// The private DNS name of a machine.
fn node_name(region: &str, address: &str) -> String {
    let domain = if region == "us-east-1" { "ec2.internal".to_owned() } else { format!("{region}.compute.internal") };
    format!("ip-{}.{domain}", address.replace('.', "-"))
}

/// What the network add-on attaches to a machine, if it is installed.
fn pod_interfaces(call: &mut Call<'_>, cluster: &str, id: &str, subnet: &str, group: &str) -> Vec<String> {
    let agent = has_network(call, cluster);
    if agent { vec![remains::pod_interface(call, id, subnet, group)] } else { Vec::new() }
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
    let pod_enis = pod_interfaces(call, &cluster_name, &id, subnet, &security);
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
    let name = node_name(call.region, &address);
    let body = json!({
        "instanceId": id, "instanceType": kind, "imageId": "ami-00000000000000001", "instanceState": {"code": 16, "name": "running"}, "privateDnsName": name, "privateIpAddress": address,
        "subnetId": subnet, "vpcId": vpc, "placement": {"availabilityZone": zone}, "launchTime": iso(call.now_ms), "groupSet": [{"groupId": security}], "_eni": eni, "_volume": volume, "_pod_enis": pod_enis,
    });
    let mut record = call.record("ec2:instance", &id, body, tags);
    record.system = true;
    call.state.put(record);
    if let Some(record) = call.get_mut("ec2:network-interface", &eni) {
        record.system = true;
    }
    json!({"instance": id, "name": name, "zone": zone})
}

/// The group has as many machines as it wants: the newest go first, new ones spread over its subnets.
pub(in super::super) fn rescale(call: &mut Call<'_>, id: &str) {
    let Some(group) = call.get(NODES, id).cloned() else { return };
    let wanted = number(&group.body, "/scalingConfig/desiredSize").and_then(|count| usize::try_from(count).ok());
    let mut nodes = items(&group.body, "/_nodes");
    let wanted = wanted.unwrap_or(nodes.len());
    let cluster_name = group.text("/clusterName").to_owned();
    let asg = group.text("/resources/autoScalingGroups/0/name").to_owned();
    for gone in nodes.drain(wanted.min(nodes.len())..) {
        remains::end_machine(call, text(&gone, "/instance"));
        let node = text(&gone, "/name").to_owned();
        call.state.links.push(Link::NodeGone { cluster: cluster_name.clone(), node });
    }
    let subnets = texts(&group.body, "/subnets");
    for subnet in subnets.iter().cycle().skip(nodes.len()).take(wanted - nodes.len()) {
        let node = machine(call, &group, subnet, &asg);
        nodes.push(node);
    }
    if let Some(record) = call.get_mut("autoscaling:group", &asg) {
        record.set("Instances", instances(&nodes));
        record.set("DesiredCapacity", wanted);
        for (field, name) in [("MinSize", "minSize"), ("MaxSize", "maxSize")] {
            record.set(field, group.body["scalingConfig"][name].clone());
        }
    }
    let due_ms = call.now_ms + 30_000;
    if let Some(record) = call.get_mut(NODES, id) {
        record.set("_nodes", nodes);
        record.then(due_ms, "updated");
    }
    if group.body["_joined"] == json!(true) {
        call.state.links.push(Link::NodesUp { cluster: cluster_name, group: group.text("/nodegroupName").to_owned() });
    }
}

fn instances(nodes: &[Value]) -> Value {
    let row = |node: &Value| json!({"InstanceId": node["instance"], "AvailabilityZone": node["zone"], "LifecycleState": "InService", "HealthStatus": "Healthy", "ProtectedFromScaleIn": false});
    nodes.iter().map(row).collect()
}
