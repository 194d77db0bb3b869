//! The Kubernetes auth method: configuration, roles, and logins checked by the cluster's token review.

use super::message::{Reviews, VaultReply, VaultRequest};
use super::model::{Servers, Token, later};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// A list given as JSON array or as comma-separated text.
pub(super) fn texts(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Some(Value::String(text)) => {
            text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}

/// Seconds as a number, or text such as `900`, `30s`, `15m`, `1h`.
pub(super) fn duration(value: Option<&Value>) -> Option<Duration> {
    let seconds = match value? {
        Value::Number(number) => number.as_u64()?,
        Value::String(text) => {
            let (digits, unit) = match text.strip_suffix(['s', 'm', 'h']) {
                Some(digits) => (digits, text.chars().last()),
                None => (text.as_str(), None),
            };
            let factor = match unit {
                Some('h') => 3600,
                Some('m') => 60,
                _ => 1,
            };
            digits.parse::<u64>().ok()?.checked_mul(factor)?
        }
        _ => return None,
    };
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

impl Servers {
    /// The auth mount that a path logs in to, if it is one.
    pub(super) fn login_mount(&self, storage_id: &str, path: &str) -> Option<String> {
        let mount = format!("{}/", path.strip_prefix("auth/")?.strip_suffix("/login")?);
        let auth = self.cluster_of(storage_id)?.auths.get(&mount)?;
        (auth.kind == "kubernetes").then_some(mount)
    }

    pub(super) fn kubernetes_login(
        &mut self,
        storage_id: &str,
        mount: &str,
        request: &VaultRequest,
        now: Timestamp,
        reviews: &dyn Reviews,
    ) -> VaultReply {
        let body = match request.json() {
            Ok(body) => body,
            Err(reply) => return reply,
        };
        let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
        let Some(auth) = self.cluster_of(storage_id).and_then(|cluster| cluster.auths.get(mount)) else {
            return VaultReply::missing();
        };
        if !request.writes() {
            return VaultReply::refuse(405, "unsupported operation");
        }
        let (name, jwt) = (text("role").to_owned(), text("jwt"));
        if name.is_empty() {
            return VaultReply::refuse(400, "missing role");
        }
        if jwt.is_empty() {
            return VaultReply::refuse(400, "missing jwt");
        }
        let Some(role) = auth.roles.get(&name).cloned() else {
            return VaultReply::refuse(400, &format!("invalid role name {name:?}"));
        };
        if auth.config.is_none() {
            return VaultReply::refuse(500, "could not load backend configuration");
        }
        let Some((namespace, account)) = reviews.token_review(jwt) else {
            return VaultReply::refuse(403, "permission denied");
        };
        let bound = |field: &str, value: &String| {
            let allowed = texts(role.get(field));
            allowed.iter().any(|item| item == "*" || item == value)
        };
        if !bound("bound_service_account_namespaces", &namespace) {
            return VaultReply::refuse(403, "namespace not authorized");
        }
        if !bound("bound_service_account_names", &account) {
            return VaultReply::refuse(403, "service account name not authorized");
        }
        let uid = account_uid(jwt).unwrap_or_default();
        let lasts = duration(role.get("token_ttl")).unwrap_or(Duration::from_secs(32 * 24 * 3600));
        let token = Token {
            accessor: self.uuid(),
            policies: texts(role.get("token_policies")),
            display_name: format!("{}{namespace}-{account}", mount.replace('/', "-")),
            path: format!("auth/{mount}login"),
            created_at: now,
            expires_at: Some(later(now, lasts)),
            parent: None,
            entity_id: super::routes::uuid_of(&format!("{mount} {uid}")),
            metadata: BTreeMap::from([
                ("role".to_owned(), name),
                ("service_account_name".to_owned(), account),
                ("service_account_namespace".to_owned(), namespace),
                ("service_account_secret_name".to_owned(), String::new()),
                ("service_account_uid".to_owned(), uid),
            ]),
        };
        self.issue(storage_id, token, now)
    }

    pub(super) fn auth_method(
        &mut self,
        storage_id: &str,
        path: &str,
        request: &VaultRequest,
        _now: Timestamp,
    ) -> VaultReply {
        let body = match request.json() {
            Ok(body) => body,
            Err(reply) => return reply,
        };
        let rest = path.strip_prefix("auth/").unwrap_or_default();
        let Some(id) = self.cluster_of(storage_id).map(|cluster| cluster.id.clone()) else {
            return VaultReply::missing();
        };
        let Some(cluster) = self.clusters.get_mut(&id) else { return VaultReply::missing() };
        let Some((mount, auth)) = cluster.auths.iter_mut().find(|(mount, _)| rest.starts_with(mount.as_str())) else {
            return VaultReply::refuse(404, &format!("no handler for route {path:?}. route entry not found."));
        };
        let parts: Vec<&str> = rest.strip_prefix(mount.as_str()).unwrap_or_default().split('/').collect();
        let reply = match (parts.as_slice(), request.method.as_str()) {
            (["config"], "GET") => auth.config.as_ref().map_or_else(VaultReply::missing, VaultReply::data),
            (["config"], _) if request.writes() => match config(&body) {
                Ok(config) => {
                    auth.config = Some(config);
                    VaultReply::empty()
                }
                Err(reply) => reply,
            },
            (["role"], _) if request.lists() => match auth.roles.keys().collect::<Vec<_>>() {
                names if names.is_empty() => VaultReply::missing(),
                names => VaultReply::data(&json!({ "keys": names })),
            },
            (["role", name], "GET") => auth.roles.get(*name).map_or_else(VaultReply::missing, VaultReply::data),
            (["role", name], "DELETE") => {
                auth.roles.remove(*name);
                VaultReply::empty()
            }
            (["role", name], _) if request.writes() => match role(&body, auth.roles.get(*name)) {
                Ok(role) => {
                    auth.roles.insert((*name).to_owned(), role);
                    VaultReply::empty()
                }
                Err(reply) => reply,
            },
            _ => VaultReply::refuse(405, "unsupported operation"),
        };
        if !matches!(request.method.as_str(), "GET" | "LIST" | "HEAD") {
            self.touch_cluster(&id);
        }
        reply
    }
}

/// The uid that the claims of a service account's token name; the review has checked the token.
fn account_uid(jwt: &str) -> Option<String> {
    let claims = URL_SAFE_NO_PAD.decode(jwt.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    claims.pointer("/kubernetes.io/serviceaccount/uid").and_then(Value::as_str).map(str::to_owned)
}

fn config(body: &Value) -> Result<Value, VaultReply> {
    let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
    if text("kubernetes_host").is_empty() {
        return Err(VaultReply::refuse(400, "no host provided"));
    }
    // The server runs in a pod: without an explicit CA it uses the mounted one, unless that is switched off.
    let no_local = body.get("disable_local_ca_jwt").and_then(Value::as_bool).unwrap_or_default();
    if no_local && text("kubernetes_ca_cert").is_empty() {
        return Err(VaultReply::refuse(400, "one of pem_keys or kubernetes_ca_cert must be set"));
    }
    Ok(json!({
        "kubernetes_host": text("kubernetes_host"), "kubernetes_ca_cert": text("kubernetes_ca_cert"),
        "disable_local_ca_jwt": no_local, "pem_keys": [], "issuer": text("issuer"),
        "disable_iss_validation": true, "token_reviewer_jwt_set": !text("token_reviewer_jwt").is_empty()
    }))
}

fn role(body: &Value, before: Option<&Value>) -> Result<Value, VaultReply> {
    let field = |name: &str, other: &str| {
        let given = body.get(name).or_else(|| body.get(other));
        given.or_else(|| before.and_then(|role| role.get(name))).cloned()
    };
    let names = texts(field("bound_service_account_names", "").as_ref());
    let namespaces = texts(field("bound_service_account_namespaces", "").as_ref());
    if names.is_empty() {
        return Err(VaultReply::refuse(400, "\"bound_service_account_names\" can not be empty"));
    }
    if namespaces.is_empty() {
        return Err(VaultReply::refuse(
            400,
            "\"bound_service_account_namespaces\" can not be empty if \"bound_service_account_namespace_selector\" is not \
             set",
        ));
    }
    let seconds = |name: &str, other: &str| duration(field(name, other).as_ref()).map_or(0, |ttl| ttl.as_secs());
    let mut role = json!({
        "bound_service_account_names": names, "bound_service_account_namespaces": namespaces,
        "bound_service_account_namespace_selector": "", "token_strictly_bind_ip": false,
        "token_policies": texts(field("token_policies", "policies").as_ref()),
        "token_ttl": seconds("token_ttl", "ttl"), "token_max_ttl": seconds("token_max_ttl", "max_ttl"),
        "token_bound_cidrs": [], "token_explicit_max_ttl": 0, "token_no_default_policy": false,
        "token_num_uses": 0, "token_period": 0, "token_type": "default", "alias_name_source": "serviceaccount_uid"
    });
    if let (Some(audience), Some(role)) = (field("audience", ""), role.as_object_mut()) {
        role.insert("audience".into(), audience);
    }
    Ok(role)
}
