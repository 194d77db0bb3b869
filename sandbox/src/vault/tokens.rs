//! The token store: create, look up, renew, revoke; a token's children go with it.

use super::access::Caller;
use super::message::{VaultReply, VaultRequest};
use super::model::{Servers, Token, digest, later};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

const DEFAULT_TTL: Duration = Duration::from_secs(32 * 24 * 3600);

impl Servers {
    pub(super) fn token_store(
        &mut self,
        storage_id: &str,
        rest: &[&str],
        request: &VaultRequest,
        caller: &Caller,
        now: Timestamp,
    ) -> VaultReply {
        let body = match request.json() {
            Ok(body) => body,
            Err(reply) => return reply,
        };
        let named = || body.get("token").and_then(Value::as_str).map(|token| digest(token.as_bytes()));
        match (rest, request.method.as_str()) {
            (["lookup-self"], "GET") => describe(&caller.token, request.token().unwrap_or_default(), now),
            (["lookup"], _) if request.writes() => {
                let found = named().and_then(|id| self.cluster_of(storage_id)?.tokens.get(&id).cloned());
                let plain = body.get("token").and_then(Value::as_str).unwrap_or_default();
                found.map_or_else(|| VaultReply::refuse(403, "bad token"), |token| describe(&token, plain, now))
            }
            (["renew-self"], _) if request.writes() => {
                let lasts = super::kubernetes_auth::duration(body.get("increment")).unwrap_or(DEFAULT_TTL);
                let expires_at = caller.token.expires_at.map(|_| later(now, lasts));
                self.change_token(storage_id, &caller.id, |token| token.expires_at = expires_at);
                let renewed = Token { expires_at, ..caller.token.clone() };
                VaultReply::ok(&envelope(&renewed, request.token().unwrap_or_default(), now))
            }
            (["revoke-self"], _) if request.writes() => self.revoke(storage_id, &caller.id),
            (["revoke"], _) if request.writes() => match named() {
                Some(id) => self.revoke(storage_id, &id),
                None => VaultReply::refuse(400, "missing token ID"),
            },
            (["create" | "create-orphan"], _) if request.writes() => {
                self.create_token(storage_id, &body, caller, rest == ["create-orphan"], now)
            }
            _ => VaultReply::refuse(405, "unsupported operation"),
        }
    }

    fn create_token(
        &mut self,
        storage_id: &str,
        body: &Value,
        caller: &Caller,
        orphan: bool,
        now: Timestamp,
    ) -> VaultReply {
        let asked = super::kubernetes_auth::texts(body.get("policies"));
        let root = caller.token.policies.iter().any(|policy| policy == "root");
        if !root && asked.iter().any(|policy| !caller.token.policies.contains(policy)) {
            return VaultReply::refuse(400, "child policies must be subset of parent");
        }
        let policies = if asked.is_empty() { caller.token.policies.clone() } else { asked };
        let ttl = super::kubernetes_auth::duration(body.get("ttl"));
        let lasts = if policies.iter().any(|policy| policy == "root") { ttl } else { Some(ttl.unwrap_or(DEFAULT_TTL)) };
        let token = Token {
            accessor: self.uuid(),
            policies,
            display_name: match body.get("display_name").and_then(Value::as_str).unwrap_or_default() {
                "" => "token".to_owned(),
                name => format!("token-{name}"),
            },
            path: if orphan { "auth/token/create-orphan" } else { "auth/token/create" }.into(),
            created_at: now,
            expires_at: lasts.map(|lasts| later(now, lasts)),
            parent: (!orphan).then(|| caller.id.clone()),
            metadata: BTreeMap::new(),
            entity_id: String::new(),
        };
        self.issue(storage_id, token, now)
    }

    /// Stores a new token and answers with it, once.
    pub(super) fn issue(&mut self, storage_id: &str, mut token: Token, now: Timestamp) -> VaultReply {
        if !token.policies.iter().any(|policy| policy == "default" || policy == "root") {
            token.policies.push("default".into());
        }
        token.policies.sort_unstable();
        let plain = format!("s.{}", data_encoding::BASE64URL_NOPAD.encode(&self.random_bytes(18)));
        let reply = envelope(&token, &plain, now);
        let Some(id) = self.cluster_of(storage_id).map(|cluster| cluster.id.clone()) else {
            return VaultReply::missing();
        };
        if let Some(cluster) = self.clusters.get_mut(&id) {
            cluster.tokens.retain(|_, token| token.expires_at.is_none_or(|at| at > now));
            cluster.tokens.insert(digest(plain.as_bytes()), token);
        }
        self.touch_cluster(&id);
        VaultReply::ok(&reply)
    }

    fn change_token(&mut self, storage_id: &str, token: &str, change: impl FnOnce(&mut Token)) {
        let Some(id) = self.cluster_of(storage_id).map(|cluster| cluster.id.clone()) else { return };
        if let Some(found) = self.clusters.get_mut(&id).and_then(|cluster| cluster.tokens.get_mut(token)) {
            change(found);
        }
        self.touch_cluster(&id);
    }

    fn revoke(&mut self, storage_id: &str, token: &str) -> VaultReply {
        let Some(id) = self.cluster_of(storage_id).map(|cluster| cluster.id.clone()) else {
            return VaultReply::missing();
        };
        if let Some(cluster) = self.clusters.get_mut(&id) {
            let mut doomed = vec![token.to_owned()];
            while let Some(next) = doomed.pop() {
                cluster.tokens.remove(&next);
                let children = cluster.tokens.iter().filter(|(_, token)| token.parent.as_ref() == Some(&next));
                doomed.extend(children.map(|(child, _)| child.clone()).collect::<Vec<_>>());
            }
        }
        self.touch_cluster(&id);
        VaultReply::empty()
    }
}

/// A token as the call that makes or renews it answers.
fn envelope(token: &Token, plain: &str, now: Timestamp) -> Value {
    json!({
        "request_id": "", "lease_id": "", "renewable": false, "lease_duration": 0, "data": null, "warnings": null,
        "wrap_info": null,
        "auth": {
            "client_token": plain, "accessor": token.accessor, "policies": token.policies,
            "token_policies": token.policies, "metadata": metadata(token), "lease_duration": left(token, now),
            "renewable": true, "entity_id": token.entity_id, "token_type": "service", "orphan": token.parent.is_none(),
            "mfa_requirement": null, "num_uses": 0
        }
    })
}

fn left(token: &Token, now: Timestamp) -> i64 {
    token.expires_at.map_or(0, |at| at.as_second() - now.as_second())
}

fn metadata(token: &Token) -> Value {
    if token.metadata.is_empty() { Value::Null } else { json!(token.metadata) }
}

fn describe(token: &Token, plain: &str, now: Timestamp) -> VaultReply {
    let mut described = json!({
        "accessor": token.accessor, "creation_time": token.created_at.as_second(),
        "creation_ttl": token.expires_at.map_or(0, |at| at.as_second() - token.created_at.as_second()),
        "display_name": token.display_name, "entity_id": token.entity_id, "expire_time": token.expires_at,
        "explicit_max_ttl": 0, "id": plain, "meta": metadata(token), "num_uses": 0,
        "orphan": token.parent.is_none(), "path": token.path, "policies": token.policies,
        "ttl": left(token, now), "type": "service"
    });
    // What never expires has no lease, and says nothing of one.
    if let (Some(_), Some(described)) = (token.expires_at, described.as_object_mut()) {
        described.insert("renewable".into(), json!(true));
        described.insert("issue_time".into(), json!(token.created_at));
    }
    VaultReply::data(&described)
}
