//! `sys/` for callers with a token: mounts, auth methods, policies, audit devices, Raft, capabilities, seal.

use super::access::Caller;
use super::acl;
use super::message::{VaultReply, VaultRequest};
use super::model::{Cluster, Mount, Policy, Product, Servers, Token};
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
            ["capabilities-self"] if write => self.capabilities_of(storage_id, request, &caller.token),
            ["capabilities"] if write => {
                let named = request.json().ok().and_then(|body| body.get("token")?.as_str().map(str::to_owned));
                let found = named.map(|token| super::model::digest(token.as_bytes()));
                let found = found.and_then(|id| self.cluster_of(storage_id)?.tokens.get(&id));
                match found {
                    Some(token) => self.capabilities_of(storage_id, request, token),
                    None => VaultReply::refuse(400, "invalid token"),
                }
            }
            ["internal", "ui", "mounts", path @ ..] if read => self.mount_of(storage_id, path),
            ["mounts" | "auth" | "audit" | "policy" | "policies", ..] => {
                let Some(id) = self.cluster_of(storage_id).map(|cluster| cluster.id.clone()) else {
                    return VaultReply::missing();
                };
                let accessor = self.uuid();
                let body = match request.json() {
                    Ok(body) => body,
                    Err(reply) => return reply,
                };
                let product = self.product(storage_id);
                let leader = self.active_of(storage_id, now).and_then(|leader| self.processes.get(&leader));
                let declared = leader.map(|leader| super::declared::devices(&leader.pod.audits)).unwrap_or_default();
                let Some(cluster) = self.clusters.get_mut(&id) else { return VaultReply::missing() };
                let make = Making { product, accessor, now };
                let reply = match rest {
                    ["mounts", path @ ..] => mounts(&mut cluster.mounts, path, request, &body, &make),
                    ["auth", path @ ..] => {
                        let reply = mounts(&mut cluster.auths, path, request, &body, &make);
                        forget_logins(cluster);
                        reply
                    }
                    ["audit", path @ ..] => audit(cluster, path, request, &body, product, declared),
                    ["policy", name @ ..] => policies(cluster, name, request, &body, &make, false),
                    ["policies", "acl", name @ ..] => policies(cluster, name, request, &body, &make, true),
                    _ => VaultReply::missing(),
                };
                if !matches!(request.method.as_str(), "GET" | "LIST" | "HEAD") {
                    self.touch_cluster(&id);
                }
                reply
            }
            _ => VaultReply::refuse(404, "1 error occurred:\n\t* unsupported path\n\n"),
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

    /// What a path lies on: how the command line learns whether a mount is of version 2.
    fn mount_of(&self, storage_id: &str, path: &[&str]) -> VaultReply {
        let path = format!("{}/", path.join("/"));
        let mounts = self.cluster_of(storage_id).map(|cluster| &cluster.mounts);
        let found = mounts.and_then(|mounts| mounts.iter().find(|(mount, _)| path.starts_with(mount.as_str())));
        let Some((mount, entry)) = found else {
            let text = "preflight capability check returned 403, please ensure client's policies grant access to path";
            return VaultReply::refuse(403, &format!("{text} {path:?}"));
        };
        let mut described = describe(entry, self.product(storage_id));
        if let Some(described) = described.as_object_mut() {
            described.insert("path".into(), json!(mount));
        }
        VaultReply::data(&described)
    }

    fn capabilities_of(&self, storage_id: &str, request: &VaultRequest, token: &Token) -> VaultReply {
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
            let mut held: Vec<String> = self.capabilities(storage_id, token, path).into_iter().collect();
            if held.is_empty() {
                held.push("deny".into());
            }
            answer.insert(path.clone(), json!(held));
        }
        if let [only] = paths.as_slice()
            && let Some(held) = answer.get(only).cloned()
        {
            answer.insert("capabilities".into(), held);
        }
        VaultReply::data_twice(&Value::Object(answer))
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

/// What a new entry of a table is made with.
struct Making {
    product: Product,
    accessor: String,
    now: Timestamp,
}

/// A login's token does not outlive the method that it came through.
fn forget_logins(cluster: &mut Cluster) {
    let auths = &cluster.auths;
    let stands = |path: &str| {
        path.strip_prefix("auth/").is_some_and(|rest| auths.keys().any(|mount| rest.starts_with(mount.as_str())))
    };
    cluster.tokens.retain(|_, token| stands(&token.path));
}

fn describe(mount: &Mount, product: Product) -> Value {
    let (description, headers) = match mount.kind.as_str() {
        "identity" => ("identity store", Some("Authorization")),
        "system" => ("system endpoints used for control, policy and debugging", Some("Accept")),
        "cubbyhole" => ("per-token private secret storage", None),
        "token" => ("token based credentials", None),
        _ => (mount.description.as_str(), None),
    };
    let mut config = json!({ "default_lease_ttl": 0, "max_lease_ttl": 0, "force_no_cache": false });
    if let Some(config) = config.as_object_mut() {
        if let Some(header) = headers {
            config.insert("passthrough_request_headers".into(), json!([header]));
        }
        if matches!(mount.kind.as_str(), "token" | "kubernetes") {
            config.insert("token_type".into(), json!(format!("default{}", token_type(&mount.kind))));
        }
    }
    let options = if mount.options.is_empty() { Value::Null } else { json!(mount.options) };
    let mut described = json!({
        "type": mount.kind, "description": description, "accessor": mount.accessor, "options": options,
        "local": mount.kind == "cubbyhole", "seal_wrap": mount.kind == "system", "external_entropy_access": false,
        "uuid": mount.accessor, "config": config, "plugin_version": "", "running_sha256": "",
        "running_plugin_version": product.plugin_version()
    });
    if let Some(described) = described.as_object_mut()
        && matches!(mount.kind.as_str(), "kv" | "kubernetes")
    {
        described.insert("deprecation_status".into(), json!("supported"));
    }
    described
}

fn token_type(kind: &str) -> &'static str {
    if kind == "token" { "-service" } else { "" }
}

fn mounts(
    table: &mut BTreeMap<String, Mount>,
    path: &[&str],
    request: &VaultRequest,
    body: &Value,
    make: &Making,
) -> VaultReply {
    if path.is_empty() && request.method == "GET" {
        let all: Map<String, Value> =
            table.iter().map(|(path, mount)| (path.clone(), describe(mount, make.product))).collect();
        return VaultReply::data_twice(&Value::Object(all));
    }
    let key = format!("{}/", path.join("/"));
    match request.method.as_str() {
        "GET" => table.get(&key).map_or_else(
            || VaultReply::refuse(400, &format!("No secret engine mount at {key}")),
            |mount| VaultReply::data_twice(&describe(mount, make.product)),
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
                    let mut mount = new_mount("kv", make.accessor.clone(), make.now);
                    mount.options.insert("version".into(), "2".into());
                    mount
                }
                kind @ ("kv" | "kubernetes") => new_mount(kind, make.accessor.clone(), make.now),
                "" => return VaultReply::refuse(400, "backend type must be specified as a string"),
                other => return VaultReply::refuse(400, &format!("plugin not found in the catalog: {other}")),
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

fn audit(
    cluster: &mut Cluster,
    path: &[&str],
    request: &VaultRequest,
    body: &Value,
    product: Product,
    declared: Map<String, Value>,
) -> VaultReply {
    if path.is_empty() && request.method == "GET" {
        let mut all = declared;
        all.extend(cluster.audits.iter().map(|(path, device)| (path.clone(), device.clone())));
        return VaultReply::data_twice(&Value::Object(all));
    }
    if product == Product::OpenBao && request.writes() {
        let text = "cannot enable audit device via API; use declarative, config-based audit device management instead";
        return VaultReply::refuse(400, text);
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

fn policies(
    cluster: &mut Cluster,
    name: &[&str],
    request: &VaultRequest,
    body: &Value,
    make: &Making,
    acl_path: bool,
) -> VaultReply {
    let [name] = name else {
        let mut names: Vec<&str> = cluster.policies.keys().map(String::as_str).collect();
        names.push("root");
        return if name.is_empty() && (request.lists() || request.method == "GET") {
            match acl_path {
                true => VaultReply::data(&json!({ "keys": names })),
                false => VaultReply::data_twice(&json!({ "keys": names, "policies": names })),
            }
        } else {
            VaultReply::missing()
        };
    };
    match request.method.as_str() {
        "GET" => cluster.policies.get(*name).map_or_else(VaultReply::missing, |policy| {
            let field = if acl_path { "policy" } else { "rules" };
            let mut described = json!({ "name": name, field: policy.text });
            if let (Product::OpenBao, Some(described)) = (make.product, described.as_object_mut()) {
                described.insert("version".into(), json!(policy.version));
                described.insert("modified".into(), json!(policy.modified));
                for never in
                    ["cas_required", "allow_wildcards_in_identity_templates", "allow_slashes_in_identity_templates"]
                {
                    described.insert(never.into(), json!(false));
                }
            }
            if acl_path { VaultReply::data(&described) } else { VaultReply::data_twice(&described) }
        }),
        "DELETE" if *name == "default" => VaultReply::refuse(400, "cannot delete default policy"),
        "DELETE" => {
            cluster.policies.remove(*name);
            VaultReply::empty()
        }
        "PUT" | "POST" if *name == "root" => VaultReply::refuse(400, "cannot update \"root\" policy"),
        "PUT" | "POST" => {
            let text = body.get("policy").and_then(Value::as_str).unwrap_or_default().to_owned();
            if text.is_empty() {
                return VaultReply::refuse(400, "'policy' parameter not supplied or empty");
            }
            if let Err(error) = acl::parse(&text) {
                return VaultReply::refuse(400, &format!("failed to parse policy: {error}"));
            }
            let version = cluster.policies.get(*name).map_or(0, |policy| policy.version) + 1;
            cluster.policies.insert((*name).to_owned(), Policy { text, version, modified: make.now });
            VaultReply::empty()
        }
        _ => VaultReply::refuse(405, "unsupported operation"),
    }
}
