//! Who may log in to Vault and read what: a policy, and the role of the Kubernetes auth method that gives it to one
//! service account.
//!
//! Grants are written while the root token is still there, and only then. What can write a policy and bind it to a role
//! can give itself everything, so platflow's own login may look at grants and never change one.

use super::session::Session;
use platflow_engine::context::Context;
use platflow_engine::failure::{Residue, StepError};
use platflow_engine::step::Difference;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Seconds that a login lasts.
const TOKEN_SECONDS: u64 = 600;

/// A workload that reads the secrets of the KV engine with its service account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reader {
    /// Name of its role and of its policy in Vault: small letters, digits, `-` and `_`.
    pub name: String,
    /// The namespace of its service account.
    pub namespace: String,
    /// Its service account; called like the role unless set.
    #[serde(default)]
    pub service_account: Option<String>,
}

/// A policy, and who gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Grant {
    /// Where differences are shown.
    pub(super) place: String,
    pub(super) policy: String,
    pub(super) rules: String,
    pub(super) role: String,
    pub(super) service_account: String,
    pub(super) namespace: String,
}

/// One `path` block.
pub(super) fn rule(path: &str, capabilities: &[&str]) -> String {
    let held: Vec<String> = capabilities.iter().map(|capability| format!("\"{capability}\"")).collect();
    format!("path \"{path}\" {{\n  capabilities = [{}]\n}}\n", held.join(", "))
}

fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
    !name.is_empty() && name.bytes().all(plain)
}

impl Reader {
    /// What it gets on `kv_mount`. `own` names platflow's role and policy, which no reader may stand in for.
    pub(super) fn grant(&self, kv_mount: &str, own: [&str; 2]) -> Result<Grant, StepError> {
        // The name goes into paths and policies: a wildcard in it would mean more than it says.
        if !is_plain(&self.name) {
            let text = format!("{:?} is no name for a reader: small letters, digits, - and _ are", self.name);
            return Err(StepError::permanent(text).leaving(Residue::None));
        }
        if own.contains(&self.name.as_str()) || ["root", "default"].contains(&self.name.as_str()) {
            let text = format!("a reader cannot be called {}: that name is taken in Vault", self.name);
            return Err(StepError::permanent(text).leaving(Residue::None));
        }
        let rules = [
            rule(&format!("{kv_mount}/data/*"), &["read"]),
            rule(&format!("{kv_mount}/metadata/*"), &["read", "list"]),
        ];
        Ok(Grant {
            place: format!("/readers/{}", self.name),
            policy: self.name.clone(),
            rules: rules.concat(),
            role: self.name.clone(),
            service_account: self.service_account.clone().unwrap_or_else(|| self.name.clone()),
            namespace: self.namespace.clone(),
        })
    }
}

impl Grant {
    pub(super) fn policy_path(&self) -> String {
        format!("sys/policies/acl/{}", self.policy)
    }

    pub(super) fn role_path(&self, auth_mount: &str) -> String {
        format!("auth/{auth_mount}/role/{}", self.role)
    }

    fn role_body(&self) -> Value {
        json!({
            "bound_service_account_names": [self.service_account],
            "bound_service_account_namespaces": [self.namespace],
            "token_policies": [self.policy],
            "token_ttl": TOKEN_SECONDS,
            "token_max_ttl": TOKEN_SECONDS,
        })
    }

    /// What differs in Vault, for a session that may read it.
    pub(super) async fn differences(&self, session: &Session, auth_mount: &str) -> Result<Vec<Difference>, StepError> {
        let mut found = Vec::new();
        let mut differs = |field: &str, wanted: Value, held: Value| {
            let field = format!("{}/{field}", self.place);
            found.push(Difference { field, wanted, found: held, replace: false });
        };
        let what = format!("reading the policy {}", self.policy);
        let policy = session.server.get(&self.policy_path()).await?;
        if policy.status == 404 {
            differs("policy", json!("as declared"), Value::Null);
        } else if policy.success(&what)?.text("/data/policy").map(str::trim) != Some(self.rules.trim()) {
            differs("policy", json!("as declared"), json!("changed"));
        }
        let role = session.server.get(&self.role_path(auth_mount)).await?;
        if role.status == 404 {
            differs("role", json!("as declared"), Value::Null);
            return Ok(found);
        }
        let role = role.success(&format!("reading the role {}", self.role))?;
        let wanted = self.role_body();
        for member in ["bound_service_account_names", "bound_service_account_namespaces", "token_policies"] {
            let held = role.body.pointer(&format!("/data/{member}")).cloned().unwrap_or(Value::Null);
            let wanted = wanted.get(member).cloned().unwrap_or(Value::Null);
            if held != wanted {
                differs(&format!("role/{member}"), wanted, held);
            }
        }
        Ok(found)
    }

    /// The commands that write it, for a human with a root token.
    pub(super) fn by_hand(&self, auth_mount: &str) -> String {
        format!(
            "vault policy write {} - <<'END'\n{}END\nvault write {} bound_service_account_names={} \
             bound_service_account_namespaces={} token_policies={} token_ttl={TOKEN_SECONDS} \
             token_max_ttl={TOKEN_SECONDS}\n",
            self.policy,
            self.rules,
            self.role_path(auth_mount),
            self.service_account,
            self.namespace,
            self.policy,
        )
    }

    /// Writes the policy, then the role that gives it away.
    pub(super) async fn write(&self, root: &Session, auth_mount: &str, context: &Context) -> Result<(), StepError> {
        let permit = context.begin(&format!("write-policy/{}", self.policy))?;
        let body = json!({ "policy": self.rules });
        let reply = root.server.put(&self.policy_path(), &body, permit.timeout).await?;
        reply.success(&format!("writing the policy {}", self.policy))?;
        let permit = context.begin(&format!("write-role/{}", self.role))?;
        let reply = root.server.put(&self.role_path(auth_mount), &self.role_body(), permit.timeout).await?;
        reply.success(&format!("writing the role {}", self.role)).map(drop)
    }
}
