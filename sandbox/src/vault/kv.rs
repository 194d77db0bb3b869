//! KV version 2: data with check-and-set, metadata, soft deletion and destruction of versions.

use super::message::{VaultReply, VaultRequest};
use super::model::{Mount, Product, Secret, Servers, Version};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const KEPT_VERSIONS: usize = 10;

impl Servers {
    pub(super) fn secrets(
        &mut self,
        storage_id: &str,
        path: &str,
        request: &VaultRequest,
        now: Timestamp,
    ) -> VaultReply {
        let body = match request.json() {
            Ok(body) => body,
            Err(reply) => return reply,
        };
        let product = self.product(storage_id);
        let Some(id) = self.cluster_of(storage_id).map(|cluster| cluster.id.clone()) else {
            return VaultReply::missing();
        };
        let Some(cluster) = self.clusters.get_mut(&id) else { return VaultReply::missing() };
        let with_slash = format!("{path}/");
        let found = cluster
            .mounts
            .iter_mut()
            .find(|(mount, entry)| entry.kind == "kv" && with_slash.starts_with(mount.as_str()));
        let Some((mount, entry)) = found else {
            return VaultReply::refuse(404, &format!("no handler for route {path:?}. route entry not found."));
        };
        let rest = path.strip_prefix(mount.as_str()).unwrap_or_default();
        let (section, key) = rest.split_once('/').unwrap_or((rest, ""));
        let reply = match section {
            "data" => data(entry, key, request, &body, now),
            "metadata" => metadata(entry, key, request, &body, now, product),
            "delete" | "undelete" | "destroy" if request.writes() => versions(entry, section, key, &body, now),
            _ => VaultReply::missing(),
        };
        if !matches!(request.method.as_str(), "GET" | "LIST" | "HEAD") {
            self.touch_cluster(&id);
        }
        reply
    }
}

fn describe(number: u64, version: &Version) -> Value {
    json!({
        "version": number, "created_time": version.created_at, "destroyed": version.destroyed,
        "deletion_time": version.deleted_at.map(|at| at.to_string()).unwrap_or_default(), "custom_metadata": null
    })
}

fn data(entry: &mut Mount, key: &str, request: &VaultRequest, body: &Value, now: Timestamp) -> VaultReply {
    match request.method.as_str() {
        "GET" => {
            let Some(secret) = entry.secrets.get(key) else { return VaultReply::missing() };
            let asked = request.query.get("version").and_then(|text| text.parse().ok()).filter(|number| *number > 0);
            let number = asked.unwrap_or(secret.current);
            let Some(version) = secret.versions.get(&number) else { return VaultReply::missing() };
            let readable = !version.destroyed && version.deleted_at.is_none();
            let content = version.data.as_ref().filter(|_| readable);
            let answer = json!({ "data": content, "metadata": describe(number, version) });
            let mut reply = VaultReply::data(&answer);
            reply.status = if readable { 200 } else { 404 };
            reply
        }
        "PUT" | "POST" => write(entry, key, body, now),
        "DELETE" => {
            if let Some(secret) = entry.secrets.get_mut(key) {
                let current = secret.current;
                if let Some(version) = secret.versions.get_mut(&current) {
                    version.deleted_at.get_or_insert(now);
                }
            }
            VaultReply::empty()
        }
        _ => VaultReply::refuse(405, "unsupported operation"),
    }
}

fn write(entry: &mut Mount, key: &str, body: &Value, now: Timestamp) -> VaultReply {
    if key.is_empty() {
        return VaultReply::refuse(404, "missing path");
    }
    let Some(content) = body.get("data").filter(|data| data.is_object()) else {
        return VaultReply::refuse(400, "no data provided");
    };
    let current = entry.secrets.get(key).map_or(0, |secret| secret.current);
    let required = entry.secrets.get(key).is_some_and(|secret| secret.cas_required);
    let cas = body.get("options").and_then(|options| options.get("cas")).and_then(Value::as_u64);
    match cas {
        Some(expected) if expected != current => {
            return VaultReply::refuse(400, "check-and-set parameter did not match the current version");
        }
        None if required => return VaultReply::refuse(400, "check-and-set parameter required for this call"),
        _ => {}
    }
    let secret = entry.secrets.entry(key.to_owned()).or_default();
    secret.current += 1;
    secret.created_at.get_or_insert(now);
    secret.updated_at = Some(now);
    let version = Version { data: Some(content.clone()), created_at: now, deleted_at: None, destroyed: false };
    let answer = describe(secret.current, &version);
    secret.versions.insert(secret.current, version);
    while secret.versions.len() > KEPT_VERSIONS {
        secret.versions.pop_first();
    }
    VaultReply::data(&answer)
}

fn metadata(
    entry: &mut Mount,
    key: &str,
    request: &VaultRequest,
    body: &Value,
    now: Timestamp,
    product: Product,
) -> VaultReply {
    if request.lists() {
        let prefix = if key.is_empty() { String::new() } else { format!("{}/", key.trim_end_matches('/')) };
        let names: BTreeSet<String> = entry
            .secrets
            .keys()
            .filter_map(|path| path.strip_prefix(&prefix))
            .map(|rest| rest.split_once('/').map_or_else(|| rest.to_owned(), |(folder, _)| format!("{folder}/")))
            .collect();
        return if names.is_empty() { VaultReply::missing() } else { VaultReply::data(&json!({ "keys": names })) };
    }
    match request.method.as_str() {
        "GET" => entry.secrets.get(key).map_or_else(VaultReply::missing, |secret| describe_secret(secret, product)),
        "DELETE" => {
            entry.secrets.remove(key);
            VaultReply::empty()
        }
        "PUT" | "POST" => {
            let secret = entry.secrets.entry(key.to_owned()).or_default();
            secret.created_at.get_or_insert(now);
            secret.updated_at = Some(now);
            secret.metadata_writes += 1;
            if let Some(required) = body.get("cas_required").and_then(Value::as_bool) {
                secret.cas_required = required;
            }
            if let Some(custom) = body.get("custom_metadata") {
                secret.custom = custom.clone();
            }
            VaultReply::empty()
        }
        _ => VaultReply::refuse(405, "unsupported operation"),
    }
}

fn describe_secret(secret: &Secret, product: Product) -> VaultReply {
    let versions: serde_json::Map<String, Value> = secret
        .versions
        .iter()
        .map(|(number, version)| {
            let mut described = describe(*number, version);
            if let Some(described) = described.as_object_mut() {
                described.remove("version");
                described.remove("custom_metadata");
            }
            (number.to_string(), described)
        })
        .collect();
    // It counts from the first version that was dropped to make room.
    let oldest = secret.versions.keys().next().copied().filter(|oldest| *oldest > 1).unwrap_or(0);
    let mut described = json!({
        "current_version": secret.current, "oldest_version": oldest,
        "created_time": secret.created_at, "updated_time": secret.updated_at, "cas_required": secret.cas_required,
        "custom_metadata": secret.custom, "delete_version_after": "0s", "max_versions": 0, "versions": versions
    });
    if let (Product::OpenBao, Some(described)) = (product, described.as_object_mut()) {
        described.insert("current_metadata_version".into(), json!(secret.metadata_writes));
        described.insert("metadata_cas_required".into(), json!(false));
    }
    VaultReply::data(&described)
}

/// A version as a number, or as the text of one: the command line sends texts.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

fn versions(entry: &mut Mount, what: &str, key: &str, body: &Value, now: Timestamp) -> VaultReply {
    let asked: Vec<u64> = body
        .get("versions")
        .and_then(Value::as_array)
        .map(|items| items.iter().filter_map(number).collect())
        .unwrap_or_default();
    if asked.is_empty() {
        return VaultReply::refuse(400, "no version number provided");
    }
    if let Some(secret) = entry.secrets.get_mut(key) {
        for number in asked {
            let Some(version) = secret.versions.get_mut(&number) else { continue };
            match what {
                "destroy" => {
                    version.destroyed = true;
                    version.data = None;
                }
                "undelete" => version.deleted_at = None,
                _ => version.deleted_at = Some(now),
            }
        }
    }
    VaultReply::empty()
}
