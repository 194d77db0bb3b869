//! Access entries and the policies associated with them.

use serde_json::{Value, json};

use super::super::state::Link;
use super::super::wire::{Refusal, epoch, items, need, text, texts};
use super::super::{Answer, Call, Record, unknown};
use super::{ENTRY, catalog, cluster, in_use, invalid, is_known, not_found, shown, tag_map};

/// A new entry.
pub(super) fn entry(call: &mut Call<'_>, cluster_name: &str, principal: &str, input: &Value) -> Record {
    let kind = match text(input, "/type") {
        "" => "STANDARD",
        other => other,
    };
    let username = match text(input, "/username") {
        "" => principal,
        other => other,
    };
    let arn = call.arn("eks", &format!("access-entry/{cluster_name}/{}", principal.replace("arn:aws:iam::", "")));
    let body = json!({
        "clusterName": cluster_name, "principalArn": principal, "kubernetesGroups": texts(input, "/kubernetesGroups"), "accessEntryArn": arn,
        "createdAt": epoch(call.now_ms), "modifiedAt": epoch(call.now_ms), "username": username, "type": kind, "_policies": [],
    });
    call.record(ENTRY, &format!("{cluster_name}/{principal}"), body, tag_map(input))
}

/// A role that EKS has not heard of yet is no principal.
fn check_principal(call: &Call<'_>, principal: &str) -> Result<(), Refusal> {
    let Some((_, name)) = principal.split_once(":role/") else { return Ok(()) };
    let role = call.state.get("iam:role", "global", name.rsplit('/').next().unwrap_or_default());
    if role.is_none_or(|role| is_known(role, call.now_ms)) {
        return Ok(());
    }
    Err(invalid("The specified principalArn is invalid: invalid principal."))
}

pub(super) fn dispatch(call: &mut Call<'_>, input: &Value) -> Answer {
    let cluster_name = need(input, "clusterName")?.to_owned();
    let mode = cluster(call, &cluster_name)?.text("/accessConfig/authenticationMode").to_owned();
    if mode == "CONFIG_MAP" {
        return Err(Refusal::bad(
            "InvalidRequestException",
            "The cluster's authentication mode must be set to one of [API, API_AND_CONFIG_MAP] to perform this operation.",
        ));
    }
    if call.operation == "ListAccessEntries" {
        return Ok(
            json!({"accessEntries": call.all(ENTRY).filter(|entry| entry.text("/clusterName") == cluster_name).map(|entry| entry.text("/principalArn")).collect::<Vec<_>>()}),
        );
    }
    let principal = need(input, "principalArn")?.to_owned();
    let id = format!("{cluster_name}/{principal}");
    if super::super::mutates(call.operation) {
        call.state.links.push(Link::Access(cluster_name.clone()));
    }
    if call.operation == "CreateAccessEntry" {
        if call.get(ENTRY, &id).is_some() {
            return Err(in_use("The specified access entry resource is already in use on this cluster."));
        }
        check_principal(call, &principal)?;
        let record = entry(call, &cluster_name, &principal, input);
        let answer = json!({"accessEntry": shown(&record)});
        call.state.put(record);
        return Ok(answer);
    }
    let (operation, now_ms) = (call.operation.to_owned(), call.now_ms);
    let record = call
        .get_mut(ENTRY, &id)
        .ok_or_else(|| not_found(format!("The specified principalArn could not be found: {principal}")))?;
    let policy = text(input, "/policyArn");
    let mut policies = items(&record.body, "/_policies");
    match operation.as_str() {
        "DescribeAccessEntry" => return Ok(json!({"accessEntry": shown(record)})),
        "DeleteAccessEntry" => {
            call.remove(ENTRY, &id);
            return Ok(json!({}));
        }
        "UpdateAccessEntry" => {
            record.set("kubernetesGroups", texts(input, "/kubernetesGroups"));
            return Ok(json!({"accessEntry": shown(record)}));
        }
        "ListAssociatedAccessPolicies" => {
            return Ok(
                json!({"clusterName": cluster_name, "principalArn": principal, "associatedAccessPolicies": policies}),
            );
        }
        "AssociateAccessPolicy" => {
            if !catalog::is_access_policy(policy) {
                return Err(invalid(format!("The policyArn {policy} is not valid")));
            }
            policies.retain(|one| text(one, "/policyArn") != policy);
            let scope = input.get("accessScope").cloned().unwrap_or(json!({"type": "cluster", "namespaces": []}));
            policies.push(json!({"policyArn": policy, "accessScope": scope, "associatedAt": epoch(now_ms), "modifiedAt": epoch(now_ms)}));
            record.set("_policies", policies.clone());
            return Ok(
                json!({"clusterName": cluster_name, "principalArn": principal, "associatedAccessPolicy": policies.last()}),
            );
        }
        "DisassociateAccessPolicy" => {
            policies.retain(|one| text(one, "/policyArn") != policy);
            record.set("_policies", policies);
            return Ok(json!({}));
        }
        _ => {}
    }
    unknown(call)
}
