//! What time does to resources: each pending transition, when it is due.

#![expect(
    clippy::indexing_slicing,
    reason = "reading a JSON value never panics, and every one that is written here is an object of our own making"
)]

use serde_json::{Value, json};

use super::state::{Link, State};
use super::{Call, ec2, eks, remains};

/// Runs the earliest transition that is due; answers when it was due, or nothing when none is.
pub fn fire(state: &mut State, now_ms: i64) -> Option<i64> {
    let (due_ms, record) = state.next_due().filter(|(due_ms, _)| *due_ms <= now_ms)?;
    let (kind, region, id, next) = (record.kind.clone(), record.region.clone(), record.id.clone(), record.next.clone());
    state.set_now(due_ms);
    if let Some(record) = state.get_mut(&kind, &region, &id) {
        record.due_ms = None;
    }
    let mut call = Call { state, now_ms: due_ms, region: &region, principal: "", operation: "", effect: None };
    match (kind.as_str(), next.as_str()) {
        ("ec2:vpc" | "ec2:subnet", _) => set(&mut call, &kind, &id, "state", &next),
        ("ec2:nat-gateway", _) => nat(&mut call, &id, &next),
        ("eks:cluster", "ACTIVE") => active(&mut call, &id),
        ("eks:cluster", "gone") => eks::cluster_gone(&mut call, &id),
        ("eks:nodegroup", "launch") => eks::launch(&mut call, &id),
        ("eks:nodegroup", "rescale") => eks::rescale(&mut call, &id),
        ("eks:nodegroup", "recovered") => eks::recover_nodes(&mut call, &id),
        ("eks:nodegroup", "settle") => eks::settle_nodes(&mut call, &id),
        ("eks:nodegroup", "gone") => eks::nodes_gone(&mut call, &id),
        ("eks:cluster" | "eks:nodegroup", "updated") => set(&mut call, &kind, &id, "status", "ACTIVE"),
        ("eks:addon", "installed") => {
            set(&mut call, &kind, &id, "status", "ACTIVE");
            addon(&mut call, &id, true);
        }
        ("eks:addon", "gone") => {
            addon(&mut call, &id, false);
            call.remove(&kind, &id);
        }
        ("eks:ended", next) => remains::mark_over(&mut call, &id, next),
        ("eks:update", _) => set(&mut call, &kind, &id, "status", &next),
        _ => {
            call.remove(&kind, &id);
        }
    }
    Some(due_ms)
}

fn set(call: &mut Call<'_>, kind: &str, id: &str, field: &str, value: &str) {
    if let Some(record) = call.get_mut(kind, id) {
        record.set(field, value);
    }
}

fn addon(call: &mut Call<'_>, id: &str, up: bool) {
    let Some(record) = call.get("eks:addon", id) else { return };
    let (cluster, addon) = (record.text("/clusterName").to_owned(), record.text("/addonName").to_owned());
    if up {
        call.state.links.push(Link::AddonUp { cluster, addon });
    } else if record.body["_preserve"] != json!(true) {
        call.state.links.push(Link::AddonGone { cluster, addon });
    }
}

fn nat(call: &mut Call<'_>, id: &str, next: &str) {
    let now_ms = call.now_ms;
    let Some(record) = call.get_mut("ec2:nat-gateway", id) else { return };
    if next == "forget" {
        call.remove("ec2:nat-gateway", id);
        return;
    }
    record.set("state", next);
    if next == "available" {
        return;
    }
    record.then(now_ms + 3_600_000, "forget");
    if next == "failed" {
        let (code, message) = (record.text("/_failure/code").to_owned(), record.text("/_failure/message").to_owned());
        record.set("failureCode", code);
        record.set("failureMessage", message);
        return;
    }
    let (eni, allocation) = (
        record.text("/natGatewayAddressSet/0/networkInterfaceId").to_owned(),
        record.text("/natGatewayAddressSet/0/allocationId").to_owned(),
    );
    call.remove("ec2:network-interface", &eni);
    if let Some(address) = call
        .get_mut("ec2:elastic-ip", &allocation)
        .filter(|address| address.text("/networkInterfaceId") == eni && !eni.is_empty())
    {
        for field in ["associationId", "networkInterfaceId", "privateIpAddress"] {
            address.set(field, Value::Null);
        }
    }
    ec2::blackhole(call, "natGatewayId", id);
}

fn active(call: &mut Call<'_>, name: &str) {
    let Some(record) = call.get_mut("eks:cluster", name) else { return };
    record.set("status", "ACTIVE");
    let issuer = record.text("/_issuer").to_owned();
    record.set("identity", json!({"oidc": {"issuer": issuer}}));
    let logs = record
        .body
        .pointer("/logging/clusterLogging")
        .and_then(Value::as_array)
        .is_some_and(|list| list.iter().any(|one| one["enabled"] == json!(true)));
    if logs {
        remains::make_log_group(call, name);
    }
    call.state.links.push(Link::ClusterUp(name.to_owned()));
    call.state.links.push(Link::Access(name.to_owned()));
}
