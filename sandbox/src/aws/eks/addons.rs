//! Add-ons of clusters.

#![expect(
    clippy::indexing_slicing,
    reason = "reading a JSON value never panics, and every one that is written here is an object of our own making"
)]

use serde_json::{Value, json};

use super::super::state::Link;
use super::super::wire::{Refusal, epoch, need, text};
use super::super::{Answer, Call, unknown};
use crate::faults::Effect;

use super::{ADDON, catalog, cluster, in_use, invalid, not_found, shown, tag_map, update};

pub(super) fn dispatch(call: &mut Call<'_>, input: &Value) -> Answer {
    let cluster_name = need(input, "clusterName")?.to_owned();
    let version = cluster(call, &cluster_name)?.text("/version").to_owned();
    match call.operation {
        "CreateAddon" => return create(call, input, &cluster_name, &version),
        "ListAddons" => {
            return Ok(
                json!({"addons": call.all(ADDON).filter(|addon| addon.text("/clusterName") == cluster_name).map(|addon| addon.text("/addonName")).collect::<Vec<_>>()}),
            );
        }
        _ => {}
    }
    let name = need(input, "addonName")?.to_owned();
    let (operation, now_ms) = (call.operation.to_owned(), call.now_ms);
    let record = call
        .get_mut(ADDON, &format!("{cluster_name}/{name}"))
        .ok_or_else(|| not_found(format!("No addon: {name} found in cluster: {cluster_name}")))?;
    match operation.as_str() {
        "DescribeAddon" => Ok(json!({"addon": shown(record)})),
        "DeleteAddon" => {
            if record.text("/status") != "DELETING" {
                record.set("status", "DELETING");
                record.set("_preserve", text(input, "/preserve") == "true");
                record.then(now_ms + 30_000, "gone");
            }
            Ok(json!({"addon": shown(record)}))
        }
        "UpdateAddon" => {
            if !matches!(record.text("/status"), "ACTIVE" | "DEGRADED" | "UPDATE_FAILED" | "CREATE_FAILED") {
                return Err(in_use(format!(
                    "Addon {name} cannot be updated as it is currently in {} state",
                    record.text("/status")
                )));
            }
            for field in ["addonVersion", "configurationValues", "serviceAccountRoleArn"] {
                if let Some(new) = input.get(field) {
                    record.set(field, new.clone());
                }
            }
            record.set("status", "UPDATING");
            record.then(now_ms + 40_000, "installed");
            Ok(update(call, &cluster_name, "AddonUpdate", 40_000))
        }
        _ => unknown(call),
    }
}

fn create(call: &mut Call<'_>, input: &Value, cluster_name: &str, kubernetes: &str) -> Answer {
    let name = need(input, "addonName")?.to_owned();
    let id = format!("{cluster_name}/{name}");
    if call.get(ADDON, &id).is_some() {
        return Err(in_use("Addon already exists."));
    }
    if cluster(call, cluster_name)?.text("/status") == "CREATING" {
        return Err(Refusal::bad(
            "InvalidRequestException",
            format!("Cluster '{cluster_name}' is not in ACTIVE status"),
        ));
    }
    let Some(versions) = catalog::versions_of(&name, kubernetes) else {
        return Err(invalid(format!("Addon {name} specified is not supported in {kubernetes} kubernetes version")));
    };
    let version = match text(input, "/addonVersion") {
        "" => versions.first().cloned().unwrap_or_default(),
        other => other.to_owned(),
    };
    if !versions.contains(&version) {
        return Err(invalid(format!("Addon version specified is not supported: {version}")));
    }
    let configuration = text(input, "/configurationValues");
    if !configuration.is_empty() && serde_json::from_str::<Value>(configuration).is_err() {
        return Err(invalid("ConfigurationValue provided in request is not supported: not valid JSON"));
    }
    let mut body = json!({
        "addonName": name, "clusterName": cluster_name, "addonVersion": version, "addonArn": call.arn("eks", &format!("addon/{cluster_name}/{name}/{}", call.now_ms)),
        "createdAt": epoch(call.now_ms), "modifiedAt": epoch(call.now_ms), "status": "CREATING", "health": {"issues": []},
    });
    for field in ["configurationValues", "serviceAccountRoleArn"] {
        if let Some(given) = input.get(field) {
            body[field] = given.clone();
        }
    }
    if let Some(Effect::AddonDegraded { seconds }) = call.effect {
        body["_degraded_until_ms"] = json!(call.now_ms + 40_000 + seconds * 1_000);
    }
    let mut record = call.record(ADDON, &id, body, tag_map(input));
    record.then(call.now_ms + 40_000, "installed");
    let answer = json!({"addon": shown(&record)});
    call.state.put(record);
    call.state.links.push(Link::AddonUp { cluster: cluster_name.to_owned(), addon: name });
    Ok(answer)
}
