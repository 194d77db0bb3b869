//! `sys/` for callers with a token: mounts, auth methods, policies, audit devices, Raft, capabilities, seal.

use super::access::Caller;
use super::acl;
use super::message::{VaultReply, VaultRequest};
use super::model::{Cluster, Mount, Policy, Servers};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

impl Servers {
    pub(super) fn system(
        &mut self,
        storage_id: &str,
        rest: &[&str],
        request: &VaultRequest,
        caller: &Caller,
        now: Timestamp,
    ) -> VaultReply {
        let read = request.method == "GET";
        let write = request.writes();
        match rest {
            ["storage", "raft", "configuration"] if read => self.configuration(storage_id, now),
            ["storage", "raft", "autopilot", "state"] if read => self.autopilot(storage_id, now),
            ["storage", "raft", "remove-peer"] if write => self.remove_peer(storage_id, request, now),
            ["storage", "raft", "snapshot"] if read => self.snapshot(storage_id),
            ["seal"] if write => self.seal_now(storage_id, now),
            ["step-down"] if write => self.step_down(storage_id, now),
            ["capabilities-self"] if write => self.capabilities_self(storage_id, request, caller),
            ["mounts" | "auth" | "audit" | "policy" | "policies", ..] => {
                let Some(id) = self.cluster_of(storage_id).map(|cluster| cluster.id.clone()) else {
                    return VaultReply::missing();
                };
                let accessor = self.uuid();
                let body = match request.json() {
                    Ok(body) => body,
                    Err(reply) => return reply,
                };
                let Some(cluster) = self.clusters.get_mut(&id) else { return VaultReply::missing() };
                let reply = match rest {
                    ["mounts", path @ ..] => mounts(&mut cluster.mounts, path, request, &body, accessor, now),
                    ["auth", path @ ..] => mounts(&mut cluster.auths, path, request, &body, accessor, now),
                    ["audit", path @ ..] => audit(cluster, path, request, &body),
                    ["policy", name @ ..] => policies(cluster, name, request, &body, false),
                    ["policies", "acl", name @ ..] => policies(cluster, name, request, &body, true),
                    _ => VaultReply::missing(),
                };
                if !matches!(request.method.as_str(), "GET" | "LIST" | "HEAD") {
                    self.touch_cluster(&id);
                }
                reply
            }
            _ => VaultReply::refuse(404, &format!("no handler for route \"sys/{}\"", rest.join("/"))),
        }
    }

    /// The mounts every new cluster has.
    pub(super) fn mount_builtins(&mut self, id: &str, now: Timestamp) {
        let accessors: Vec<String> = (0..4).map(|_| self.uuid()).collect();
        let Some(cluster) = self.clusters.get_mut(id) else { return };
        for ((path, kind), accessor) in
            [("cubbyhole/", "cubbyhole"), ("identity/", "identity"), ("sys/", "system")].into_iter().zip(&accessors)
        {
            cluster.mounts.insert(path.to_owned(), new_mount(kind, accessor.clone(), now));
        }
        let accessor = accessors.last().cloned().unwrap_or_default();
        cluster.auths.insert("token/".to_owned(), new_mount("token", accessor, now));
    }

    fn snapshot(&self, storage_id: &str) -> VaultReply {
        // A real snapshot is an archive encrypted by the barrier; only that one comes, and of what, can be told.
        let cluster = self.cluster_of(storage_id).map(|cluster| cluster.id.clone());
        VaultReply { status: 200, body: format!("snapshot of {}\n", cluster.unwrap_or_default()).into_bytes() }
    }

    fn capabilities_self(&self, storage_id: &str, request: &VaultRequest, caller: &Caller) -> VaultReply {
        let body = match request.json() {
            Ok(body) => body,
            Err(reply) => return reply,
        };
        let paths = super::kubernetes_auth::texts(body.get("paths").or_else(|| body.get("path")));
        if paths.is_empty() {
            return VaultReply::refuse(400, "paths must be supplied");
        }
        let mut answer = Map::new();
        for path in &paths {
            let mut held: Vec<String> = self.capabilities(storage_id, &caller.token, path).into_iter().collect();
            if held.is_empty() {
                held.push("deny".into());
            }
            answer.insert(path.clone(), json!(held));
        }
        if let Some(first) = paths.first().and_then(|path| answer.get(path)).cloned() {
            answer.insert("capabilities".into(), first);
        }
        VaultReply::data(&Value::Object(answer))
    }
}

fn new_mount(kind: &str, accessor: String, now: Timestamp) -> Mount {
    Mount {
        kind: kind.to_owned(),
        description: String::new(),
        options: BTreeMap::new(),
        accessor: format!("{kind}_{}", accessor.get(..8).unwrap_or_default()),
        mounted_at: now,
        secrets: BTreeMap::new(),
        config: None,
        roles: BTreeMap::new(),
    }
}

fn describe(mount: &Mount) -> Value {
    json!({
        "type": mount.kind, "description": mount.description, "accessor": mount.accessor, "options": mount.options,
        "local": false, "seal_wrap": false, "external_entropy_access": false, "uuid": mount.accessor,
        "config": { "default_lease_ttl": 0, "max_lease_ttl": 0, "force_no_cache": false }
    })
}

fn mounts(
    table: &mut BTreeMap<String, Mount>,
    path: &[&str],
    request: &VaultRequest,
    body: &Value,
    accessor: String,
    now: Timestamp,
) -> VaultReply {
    if path.is_empty() && request.method == "GET" {
        let all: Map<String, Value> = table.iter().map(|(path, mount)| (path.clone(), describe(mount))).collect();
        return VaultReply::data(&Value::Object(all));
    }
    let key = format!("{}/", path.join("/"));
    match request.method.as_str() {
        "GET" => table.get(&key).map_or_else(
            || VaultReply::refuse(400, &format!("No secret engine mount at {key}")),
            |mount| VaultReply::data(&describe(mount)),
        ),
        "DELETE" => {
            table.remove(&key);
            VaultReply::empty()
        }
        "PUT" | "POST" => {
            let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
            if table.keys().any(|used| used.starts_with(&key) || key.starts_with(used.as_str())) {
                return VaultReply::refuse(400, &format!("path is already in use at {key}"));
            }
            let mut mount = match text("type") {
                "kv-v2" => {
                    let mut mount = new_mount("kv", accessor, now);
                    mount.options.insert("version".into(), "2".into());
                    mount
                }
                kind @ ("kv" | "kubernetes") => new_mount(kind, accessor, now),
                "" => return VaultReply::refuse(400, "backend type must be specified as a string"),
                other => return VaultReply::refuse(400, &format!("unknown backend type: {other:?}")),
            };
            if let Some(options) = body.get("options").and_then(Value::as_object) {
                let given = options.iter().filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
                mount.options.extend(given);
            }
            if mount.kind == "kv" && mount.options.get("version").is_none_or(|version| version != "2") {
                return VaultReply::refuse(400, "this server mounts version 2 of the kv engine only");
            }
            mount.description = text("description").to_owned();
            table.insert(key, mount);
            VaultReply::empty()
        }
        _ => VaultReply::refuse(405, "unsupported operation"),
    }
}

fn audit(cluster: &mut Cluster, path: &[&str], request: &VaultRequest, body: &Value) -> VaultReply {
    if path.is_empty() && request.method == "GET" {
        let all: Map<String, Value> =
            cluster.audits.iter().map(|(path, device)| (path.clone(), device.clone())).collect();
        return VaultReply::data(&Value::Object(all));
    }
    let key = format!("{}/", path.join("/"));
    match request.method.as_str() {
        "DELETE" => {
            cluster.audits.remove(&key);
            VaultReply::empty()
        }
        "PUT" | "POST" => {
            let kind = body.get("type").and_then(Value::as_str).unwrap_or_default();
            let options = body.get("options").cloned().unwrap_or_else(|| json!({}));
            let file = options.get("file_path").or_else(|| options.get("path")).and_then(Value::as_str);
            if kind != "file" {
                return VaultReply::refuse(400, &format!("unknown backend type: {kind:?}"));
            }
            if file.is_none_or(str::is_empty) {
                return VaultReply::refuse(400, "file_path is required");
            }
            if cluster.audits.contains_key(&key) {
                return VaultReply::refuse(400, &format!("path already in use: {key}"));
            }
            let device = json!({ "type": kind, "path": key, "description": "", "local": false, "options": options });
            cluster.audits.insert(key, device);
            VaultReply::empty()
        }
        _ => VaultReply::refuse(405, "unsupported operation"),
    }
}

fn policies(cluster: &mut Cluster, name: &[&str], request: &VaultRequest, body: &Value, acl_path: bool) -> VaultReply {
    let [name] = name else {
        let mut names: Vec<&str> = cluster.policies.keys().map(String::as_str).collect();
        names.push("root");
        return if name.is_empty() && (request.lists() || request.method == "GET") {
            VaultReply::data(&json!({ "keys": names, "policies": names }))
        } else {
            VaultReply::missing()
        };
    };
    match request.method.as_str() {
        "GET" => cluster.policies.get(*name).map_or_else(VaultReply::missing, |policy| {
            let field = if acl_path { "policy" } else { "rules" };
            VaultReply::data(&json!({ "name": name, field: policy.text }))
        }),
        "DELETE" if *name == "default" => VaultReply::refuse(400, "cannot delete default policy"),
        "DELETE" => {
            cluster.policies.remove(*name);
            VaultReply::empty()
        }
        "PUT" | "POST" if *name == "root" => VaultReply::refuse(400, "cannot update root policy"),
        "PUT" | "POST" => {
            let text = body.get("policy").and_then(Value::as_str).unwrap_or_default().to_owned();
            if text.is_empty() {
                return VaultReply::refuse(400, "'policy' parameter not supplied or empty");
            }
            if let Err(error) = acl::parse(&text) {
                return VaultReply::refuse(400, &format!("failed to parse policy: {error}"));
            }
            cluster.policies.insert((*name).to_owned(), Policy { text });
            VaultReply::empty()
        }
        _ => VaultReply::refuse(405, "unsupported operation"),
    }
}
