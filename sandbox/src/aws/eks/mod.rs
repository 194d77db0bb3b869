//! EKS: which operation is answered where, and tags by ARN.

mod access;
mod addons;
mod catalog;
mod clusters;
mod machines;
mod nodes;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::wire::{Refusal, need, text, texts};
use super::{Answer, Call, Record, unknown};

pub(super) use clusters::gone as cluster_gone;
pub(super) use machines::{launch, rescale};
pub(super) use nodes::{gone as nodes_gone, recover as recover_nodes, settle as settle_nodes};

pub(super) const CLUSTER: &str = "eks:cluster";
pub(super) const NODES: &str = "eks:nodegroup";
pub(super) const ADDON: &str = "eks:addon";
pub(super) const ENTRY: &str = "eks:access-entry";
pub(super) const UPDATE: &str = "eks:update";

/// Answers one EKS call.
pub(super) fn dispatch(call: &mut Call<'_>, input: &Value) -> Answer {
    let token = text(input, "/clientRequestToken").to_owned();
    match call.operation {
        "CreateCluster"
        | "CreateNodegroup"
        | "CreateAddon"
        | "CreateAccessEntry"
        | "UpdateClusterConfig"
        | "UpdateClusterVersion"
        | "AssociateEncryptionConfig"
        | "UpdateNodegroupConfig"
        | "UpdateNodegroupVersion"
        | "UpdateAddon"
        | "UpdateAccessEntry" => call.once(&token, input, "InvalidParameterException", |call| routed(call, input)),
        _ => routed(call, input),
    }
}

fn routed(call: &mut Call<'_>, input: &Value) -> Answer {
    match call.operation {
        "DescribeClusterVersions" => catalog::cluster_versions(call, input),
        "DescribeAddonVersions" => catalog::addon_versions(call, input),
        "DescribeAddonConfiguration" => catalog::addon_configuration(input),
        "ListAccessPolicies" => Ok(catalog::access_policies()),
        "TagResource" | "UntagResource" | "ListTagsForResource" => tags(call, input),
        operation if operation.contains("Nodegroup") => nodes::dispatch(call, input),
        operation if operation.contains("Addon") => addons::dispatch(call, input),
        operation if operation.contains("Access") => access::dispatch(call, input),
        operation
            if operation.contains("Cluster")
                || operation.contains("Update")
                || operation == "AssociateEncryptionConfig" =>
        {
            clusters::dispatch(call, input)
        }
        _ => unknown(call),
    }
}

fn not_found(message: impl Into<String>) -> Refusal {
    Refusal::new(404, "ResourceNotFoundException", message)
}

fn in_use(message: impl Into<String>) -> Refusal {
    Refusal::new(409, "ResourceInUseException", message)
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::bad("InvalidParameterException", message)
}

fn tag_map(input: &Value) -> BTreeMap<String, String> {
    let tags = input.get("tags").and_then(Value::as_object);
    tags.into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect()
}

/// Whether machines of a cluster have a network: from the add-on, or from what EKS installs when nobody forbids it.
fn has_network(call: &Call<'_>, name: &str) -> bool {
    let addon = format!("{name}/vpc-cni");
    call.get(ADDON, &addon).is_some()
        || call.get(CLUSTER, name).is_some_and(|record| record.body.get("_self_managed") == Some(&json!(true)))
}

/// The record's public body.
fn bare(record: &Record) -> Value {
    let mut body = record.body.clone();
    if let Some(fields) = body.as_object_mut() {
        fields.retain(|name, _| !name.starts_with('_'));
    }
    body
}

/// The record's public body with its tags.
fn shown(record: &Record) -> Value {
    let mut body = bare(record);
    if let Some(fields) = body.as_object_mut() {
        fields.insert("tags".to_owned(), json!(record.tags));
    }
    body
}

fn cluster<'a>(call: &'a Call<'_>, name: &str) -> Result<&'a Record, Refusal> {
    call.get(CLUSTER, name).ok_or_else(|| not_found(format!("No cluster found for name: {name}.")))
}

/// Whether other services have heard of a role yet.
fn is_known(role: &Record, now_ms: i64) -> bool {
    now_ms >= role.body.get("_known_ms").and_then(Value::as_i64).unwrap_or(role.created_ms + 8_000)
}

/// The role behind an ARN, once every region knows of it.
fn check_role(call: &Call<'_>, arn: &str, service: &str) -> Result<(), Refusal> {
    let name = arn.rsplit('/').next().unwrap_or_default();
    let Some(role) = call.state.get("iam:role", "global", name).filter(|role| role.text("/Arn") == arn) else {
        return Err(invalid(format!("The role with name {name} cannot be found. Role {arn} does not exist.")));
    };
    if !is_known(role, call.now_ms) {
        return Err(invalid(format!("Error in role params: role {arn} does not exist")));
    }
    if !role.text("/AssumeRolePolicyDocument").contains(&service.replace('.', "%2E")) {
        return Err(invalid(format!(
            "Role with arn: {arn}, could not be assumed because it does not exist or the trusted entity is not correct"
        )));
    }
    Ok(())
}

/// Notes one update of a cluster or a part of it.
fn update(call: &mut Call<'_>, cluster: &str, kind: &str, duration_ms: i64) -> Value {
    let id = call.state.uuid();
    let body = json!({"id": id, "type": kind, "status": "InProgress", "createdAt": super::wire::epoch(call.now_ms), "params": [], "errors": [], "_cluster": cluster});
    let mut record = call.record(UPDATE, &id, body, BTreeMap::new());
    record.system = true;
    record.then(call.now_ms + duration_ms, "Successful");
    let answer = json!({"update": bare(&record)});
    call.state.put(record);
    answer
}

fn tags(call: &mut Call<'_>, input: &Value) -> Answer {
    let arn = need(input, "resourceArn")?;
    let found = call.state.records().find(|record| {
        record.kind.starts_with("eks:")
            && ["/arn", "/nodegroupArn", "/addonArn", "/accessEntryArn"].iter().any(|name| record.text(name) == arn)
    });
    let Some((kind, id)) = found.map(|record| (record.kind.clone(), record.id.clone())) else {
        return Err(Refusal::new(404, "NotFoundException", format!("Resource {arn} not found")));
    };
    if tag_map(input).keys().any(|key| key.starts_with("aws:")) {
        return Err(Refusal::bad("BadRequestException", "Tag keys starting with 'aws:' are reserved for internal use"));
    }
    let (add, list) = (tag_map(input), call.operation == "ListTagsForResource");
    let Some(record) = call.get_mut(&kind, &id) else { return unknown(call) };
    record.tags.extend(add);
    let mut gone = texts(input, "/tagKeys");
    gone.extend(Some(text(input, "/tagKeys").to_owned()));
    for key in gone {
        record.tags.remove(&key);
    }
    Ok(if list { json!({"tags": record.tags}) } else { json!({}) })
}
