//! Who calls, and whether their policies allow it.

use super::acl;
use super::message::{VaultReply, VaultRequest};
use super::model::{Servers, Token, digest};
use jiff::Timestamp;
use std::collections::BTreeSet;

/// A valid token at work.
pub(super) struct Caller {
    pub(super) id: String,
    pub(super) token: Token,
}

impl Servers {
    pub(super) fn caller(
        &self,
        storage_id: &str,
        request: &VaultRequest,
        now: Timestamp,
    ) -> Result<Caller, VaultReply> {
        let denied = || VaultReply::refuse(403, "permission denied");
        let id = digest(request.token().ok_or_else(denied)?.as_bytes());
        let token = self.cluster_of(storage_id).and_then(|cluster| cluster.tokens.get(&id)).ok_or_else(denied)?;
        if token.expires_at.is_some_and(|at| at <= now) {
            return Err(denied());
        }
        Ok(Caller { id, token: token.clone() })
    }

    /// What a token may do on a path.
    pub(super) fn capabilities(&self, storage_id: &str, token: &Token, path: &str) -> BTreeSet<String> {
        if token.policies.iter().any(|policy| policy == "root") {
            return BTreeSet::from(["root".to_owned()]);
        }
        let Some(cluster) = self.cluster_of(storage_id) else { return BTreeSet::new() };
        let rules: Vec<acl::Rule> = token
            .policies
            .iter()
            .filter_map(|name| cluster.policies.get(name))
            .flat_map(super::model::Policy::rules)
            .collect();
        acl::capabilities(rules.iter(), path)
    }

    pub(super) fn allowed(
        &self,
        storage_id: &str,
        path: &str,
        request: &VaultRequest,
        caller: &Caller,
    ) -> Result<(), VaultReply> {
        // What a path is mounted on, everyone may ask who has a token.
        if path.starts_with("sys/internal/ui/mounts/") {
            return Ok(());
        }
        // A listing is asked for with a slash at the end, and policies are written that way.
        let asked = if request.lists() { format!("{path}/") } else { path.to_owned() };
        let mut held = self.capabilities(storage_id, &caller.token, &asked);
        if request.lists() {
            held.extend(self.capabilities(storage_id, &caller.token, path));
        }
        if held.contains("root") {
            return Ok(());
        }
        let wanted = match request.method.as_str() {
            _ if request.lists() => "list",
            "GET" | "HEAD" => "read",
            "DELETE" => "delete",
            "PATCH" => "patch",
            _ if self.creates(storage_id, path) => "create",
            _ => "update",
        };
        let sudo = !wants_sudo(path, request) || held.contains("sudo");
        if held.contains(wanted) && sudo && !held.contains("deny") {
            Ok(())
        } else {
            Err(VaultReply::refuse(403, "1 error occurred:\n\t* permission denied\n\n"))
        }
    }

    /// Only secrets and roles know whether they exist yet; everywhere else a write is an update.
    fn creates(&self, storage_id: &str, path: &str) -> bool {
        let Some(cluster) = self.cluster_of(storage_id) else { return false };
        if let Some((mount, name)) = path.strip_prefix("auth/").and_then(|rest| rest.split_once("/role/")) {
            return cluster.auths.get(&format!("{mount}/")).is_some_and(|auth| !auth.roles.contains_key(name));
        }
        let Some((mount, entry)) = cluster.mounts.iter().find(|(mount, _)| path.starts_with(mount.as_str())) else {
            return false;
        };
        let key = path.strip_prefix(mount.as_str()).unwrap_or_default();
        let key = key.strip_prefix("data/").unwrap_or(key);
        entry.kind == "kv" && !entry.secrets.contains_key(key)
    }
}

fn wants_sudo(path: &str, request: &VaultRequest) -> bool {
    let writes = request.writes() || request.method == "DELETE";
    matches!(path, "sys/seal" | "sys/step-down" | "sys/audit" | "sys/rotate" | "auth/token/create-orphan")
        || path.starts_with("sys/audit/")
        || (path.starts_with("sys/auth/") && writes)
}
