//! What EKS, its agents and Auto Scaling leave behind: interfaces of the network add-on, log groups that come again,
//! groups of machines that outlive their node group.

use serde_json::{Value, json};

use super::ec2::{NewInterface, interface};
use super::wire::{epoch, items, text, texts};
use super::{Call, Record};

/// For so long after the end of a cluster its last log events may still arrive.
const LATE_EVENTS_MS: i64 = 300_000;
/// So long after a deletion they make the group again.
const LATE_BY_MS: i64 = 60_000;
/// Marks the end of a cluster.
const ENDED: &str = "eks:ended";

/// Notes that a cluster with control plane logs ended.
pub(super) fn cluster_ended(call: &mut Call<'_>, name: &str) {
    let mut record = call.record(ENDED, name, json!({}), std::collections::BTreeMap::new());
    record.system = true;
    record.then(call.now_ms + LATE_EVENTS_MS, "forget");
    call.state.put(record);
}

/// A log group was deleted: the last events of a cluster that just ended make it again, without tags or retention.
pub(super) fn late_events(call: &mut Call<'_>, group: &str) {
    let cluster = group.strip_prefix("/aws/eks/").and_then(|rest| rest.strip_suffix("/cluster")).unwrap_or_default();
    let due_ms = call.now_ms + LATE_BY_MS;
    // Only once: what is late has arrived then.
    if let Some(record) = call.get_mut(ENDED, cluster).filter(|record| record.next == "forget") {
        record.then(due_ms, "log");
    }
}

/// The end of the mark: late events arrive, or none did.
pub(super) fn mark_over(call: &mut Call<'_>, cluster: &str, next: &str) {
    call.remove(ENDED, cluster);
    if next == "log" {
        make_log_group(call, cluster);
    }
}

/// The control plane's log group, as EKS makes it: untagged.
pub(super) fn make_log_group(call: &mut Call<'_>, cluster: &str) -> String {
    let group = format!("/aws/eks/{cluster}/cluster");
    if call.get("logs:log-group", &group).is_none() {
        let arn = call.arn("logs", &format!("log-group:{group}"));
        let body = json!({"logGroupName": group, "creationTime": call.now_ms, "arn": format!("{arn}:*"), "logGroupArn": arn, "storedBytes": 0, "createdAt": epoch(call.now_ms)});
        let record = call.record("logs:log-group", &group, body, std::collections::BTreeMap::new());
        call.state.put(record);
    }
    group
}

/// The second interface that the network add-on attaches to a machine for its pods.
pub(super) fn pod_interface(call: &mut Call<'_>, instance: &str, subnet: &str, group: &str) -> String {
    let description = format!("aws-K8S-{instance}");
    let groups = [group.to_owned()];
    let tags = std::collections::BTreeMap::from([
        ("node.k8s.amazonaws.com/instance_id".to_owned(), instance.to_owned()),
        ("node.k8s.amazonaws.com/createdAt".to_owned(), super::wire::iso(call.now_ms)),
    ]);
    let new = NewInterface {
        subnet,
        description: &description,
        kind: "interface",
        groups: &groups,
        instance: Some(instance),
        tags,
    };
    interface(call, new).0
}

/// The machine of a pod interface is gone before its agent could detach it: it stays, available.
pub(super) fn abandon_interface(call: &mut Call<'_>, id: &str) {
    if let Some(record) = call.get_mut("ec2:network-interface", id) {
        record.set("status", "available");
        record.set("attachment", Value::Null);
    }
}

/// Ends an Auto Scaling group with its machines.
pub(super) fn end_scaling_group(call: &mut Call<'_>, name: &str) {
    let Some(group) = call.remove("autoscaling:group", name) else { return };
    for instance in items(&group.body, "/Instances") {
        end_machine(call, text(&instance, "/InstanceId"));
    }
}

/// Terminates a machine: its own interface and volume go with it, what the network add-on attached stays available.
pub(super) fn end_machine(call: &mut Call<'_>, id: &str) {
    let Some(machine) = call.remove("ec2:instance", id) else { return };
    call.remove("ec2:network-interface", machine.text("/_eni"));
    call.remove("ec2:volume", machine.text("/_volume"));
    for eni in texts(&machine.body, "/_pod_enis") {
        abandon_interface(call, &eni);
    }
}

/// What a failed launch looks like among the activities of an Auto Scaling group.
pub(super) fn failed_launch(group: &Record, now_ms: i64) -> Value {
    let spot = group.text("/capacityType") == "SPOT";
    let what = if spot { "Spot Instances" } else { "On-Demand Instances" };
    json!({
        "ActivityId": format!("{}-failed", group.id), "StatusCode": "Failed", "Progress": 100, "StartTime": super::wire::iso(now_ms),
        "Description": "Launching a new EC2 instance.  Status Reason: Could not launch",
        "StatusMessage": format!("Could not launch {what}. InsufficientInstanceCapacity - We currently do not have sufficient {} capacity in the Availability Zone you requested. Launching EC2 instance failed.", group.text("/instanceTypes/0")),
        "Cause": "desired capacity changed",
    })
}
