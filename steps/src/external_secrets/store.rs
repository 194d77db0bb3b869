//! `external_secrets.store`: a policy and role in Vault for the operator, and a ClusterSecretStore that is Ready.

use super::API;
use super::vault_access::VaultConnection;
use crate::contract::{Made, Record, Seen, StepKind};
use crate::kubernetes::api::{Api, ObjectKey};
use crate::kubernetes::objects::{self, Removal, Standing, condition, foreign, holding, text};
use crate::kubernetes::{Clients, ClusterAccess};
use crate::vault::{Session, Vaults};
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use platflow_engine::context::Context;
use platflow_engine::failure::StepError;
use platflow_engine::step::{Difference, Ownership, UndoProgress};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// A store on Vault.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StoreSpec {
    /// The cluster.
    pub cluster: ClusterAccess,
    /// The operator's namespace.
    pub namespace: String,
    /// The store's name.
    pub name: String,
    /// The Vault behind it.
    pub vault: VaultConnection,
}

/// A store that is Ready.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(super) struct StoreOutputs {
    /// Its name.
    pub name: String,
    /// Its uid.
    #[serde(default)]
    pub uid: String,
}

/// See the file.
pub(super) struct StoreKind {
    pub(super) clients: Arc<Clients>,
    pub(super) vaults: Vaults,
}

/// Policy, role and service account of the operator. platflow's own policy lets it write exactly this prefix.
const OPERATOR: &str = "external-secrets";
const POLL: Duration = Duration::from_secs(2);
const BUDGET: Duration = Duration::from_secs(5 * 60);

fn key(spec: &StoreSpec) -> ObjectKey {
    ObjectKey::global(API, "ClusterSecretStore", &spec.name)
}

fn store(spec: &StoreSpec) -> Value {
    let vault = &spec.vault;
    json!({"apiVersion": API, "kind": "ClusterSecretStore", "metadata": {"name": spec.name},
        "spec": {"provider": {"vault": {"server": vault.address, "path": vault.kv_mount, "version": "v2",
            "caBundle": STANDARD.encode(&vault.ca_certificate),
            "auth": {"kubernetes": {"mountPath": vault.auth_mount, "role": OPERATOR,
                "serviceAccountRef": {"name": OPERATOR, "namespace": spec.namespace}}}}}}})
}

fn policy(spec: &StoreSpec) -> String {
    let kv = &spec.vault.kv_mount;
    format!(
        "path \"{kv}/data/*\" {{\n  capabilities = [\"read\"]\n}}\npath \"{kv}/metadata/*\" {{\n  capabilities = [\"read\", \"list\"]\n}}\n"
    )
}

fn policy_path() -> String {
    format!("sys/policies/acl/{OPERATOR}")
}

fn role_path(spec: &StoreSpec) -> String {
    format!("auth/{}/role/{OPERATOR}", spec.vault.auth_mount)
}

fn role(spec: &StoreSpec) -> Value {
    json!({"bound_service_account_names": [OPERATOR], "bound_service_account_namespaces": [spec.namespace],
        "token_policies": [OPERATOR], "token_ttl": 600})
}

fn outputs(stored: &Value) -> StoreOutputs {
    StoreOutputs { name: text(stored, "/metadata/name").to_owned(), uid: text(stored, "/metadata/uid").to_owned() }
}

fn unready(stored: &Value) -> Option<String> {
    match condition(stored, "Ready") {
        Some(("True", ..)) => None,
        Some((_, reason, message)) => Some(format!("the store is not ready: {reason} {message}")),
        None => Some("the operator has not looked at the store yet".to_owned()),
    }
}

/// What differs in Vault: policy, role.
async fn differences(session: &Session, spec: &StoreSpec) -> Result<Vec<Difference>, StepError> {
    let mut found = Vec::new();
    let mut differs = |field: &str, held: Value| {
        found.push(Difference { field: field.to_owned(), wanted: json!("as declared"), found: held, replace: false });
    };
    let reply = session.server.get(&policy_path()).await?;
    if reply.status == 404 {
        differs("/vault/policy", Value::Null);
    } else {
        let reply = reply.success("reading the operator's policy")?;
        if reply.text("/data/policy").map(str::trim) != Some(policy(spec).trim()) {
            differs("/vault/policy", json!("changed"));
        }
    }
    let reply = session.server.get(&role_path(spec)).await?;
    if reply.status == 404 {
        differs("/vault/role", Value::Null);
    } else {
        let reply = reply.success("reading the operator's role")?;
        let held = |field: &str| reply.body.pointer(&format!("/data/{field}")).cloned().unwrap_or(Value::Null);
        let wanted = role(spec);
        for field in ["bound_service_account_names", "bound_service_account_namespaces", "token_policies"] {
            if Some(&held(field)) != wanted.get(field) {
                differs(&format!("/vault/role/{field}"), held(field));
            }
        }
    }
    Ok(found)
}

async fn grant(session: &Session, spec: &StoreSpec, context: &Context) -> Result<(), StepError> {
    let wrong = differences(session, spec).await?;
    let concerns = |prefix: &str| wrong.iter().any(|difference| difference.field.starts_with(prefix));
    if concerns("/vault/policy") {
        let permit = context.begin("vault/policy")?;
        let body = json!({ "policy": policy(spec) });
        session.server.put(&policy_path(), &body, permit.timeout).await?.success("writing the operator's policy")?;
    }
    if concerns("/vault/role") {
        let permit = context.begin("vault/role")?;
        let reply = session.server.put(&role_path(spec), &role(spec), permit.timeout).await?;
        reply.success("writing the operator's role")?;
    }
    Ok(())
}

impl StoreKind {
    async fn stand(
        &self,
        api: &Api<'_>,
        spec: &StoreSpec,
        record: &Record<StoreOutputs>,
    ) -> Result<Option<Standing>, StepError> {
        let recorded = record.outputs.as_ref().map(|outputs| outputs.uid.as_str());
        objects::stand(api, &key(spec), &store(spec), recorded).await
    }
}

#[async_trait]
impl StepKind for StoreKind {
    type Spec = StoreSpec;
    type Outputs = StoreOutputs;

    const NAME: &'static str = "external_secrets.store";
    const SUMMARY: &'static str = "A ClusterSecretStore on Vault, with the operator's policy and role there.";
    const EXPECTED: Duration = Duration::from_secs(10);

    async fn observe(
        &self,
        spec: &StoreSpec,
        record: &Record<StoreOutputs>,
        context: &Context,
    ) -> Result<Seen<StoreOutputs>, StepError> {
        let api = Api::new(&self.clients, &spec.cluster, context)?;
        let Some(mut standing) = self.stand(&api, spec, record).await? else { return Ok(Seen::Absent) };
        if standing.is_leaving() {
            return Ok(Seen::Changing { reason: holding(&key(spec), &standing.stored), poll_in: POLL });
        }
        if standing.ownership == Ownership::Ours {
            let Some(session) = spec.vault.session(&self.vaults, &spec.cluster, context).await? else {
                return Ok(Seen::Unknown { reason: "Vault has no leader or refuses platflow's login".to_owned() });
            };
            let found = differences(&session, spec).await;
            session.close().await;
            standing.differences.extend(found?);
            if standing.differences.is_empty()
                && let Some(reason) = unready(&standing.stored)
            {
                return Ok(Seen::Changing { reason, poll_in: POLL });
            }
        }
        let Standing { stored, ownership, differences } = standing;
        Ok(Seen::Present { outputs: outputs(&stored), ownership, differences })
    }

    async fn apply(
        &self,
        spec: &StoreSpec,
        _seen: &Seen<StoreOutputs>,
        record: &Record<StoreOutputs>,
        context: &Context,
    ) -> Result<Made<StoreOutputs>, StepError> {
        let api = Api::new(&self.clients, &spec.cluster, context)?;
        let standing = self.stand(&api, spec, record).await?;
        if let Some(Standing { ownership: Ownership::Foreign(owner), .. }) = &standing {
            return Err(foreign(&key(spec), owner));
        }
        let session = spec.vault.required_session(&self.vaults, &spec.cluster, context).await?;
        let granted = grant(&session, spec, context).await;
        session.close().await;
        granted?;
        let stored = match standing {
            Some(standing) if standing.differences.is_empty() => standing.stored,
            standing => objects::put(&api, &key(spec), &store(spec), standing.as_ref()).await?,
        };
        Ok(match unready(&stored) {
            Some(reason) => Made::Waiting { reason, poll_in: POLL, budget: BUDGET },
            None => Made::Done(outputs(&stored)),
        })
    }

    async fn undo(
        &self,
        spec: &StoreSpec,
        record: &Record<StoreOutputs>,
        context: &Context,
    ) -> Result<UndoProgress, StepError> {
        let api = Api::new(&self.clients, &spec.cluster, context)?;
        let recorded = record.outputs.as_ref().map(|outputs| outputs.uid.as_str());
        let evidence = match objects::remove(&api, &key(spec), recorded, "Background").await? {
            Removal::Going(reason) => return Ok(UndoProgress::Waiting { reason, poll_in: POLL, budget: BUDGET }),
            Removal::Gone(evidence) => evidence,
        };
        let Ok(Some(session)) = spec.vault.session(&self.vaults, &spec.cluster, context).await else {
            let vault = "Vault is not reachable: the operator's policy and role end with its volumes";
            return Ok(UndoProgress::Gone { evidence: format!("{evidence}; {vault}") });
        };
        let mut outcome = Ok(());
        for path in [role_path(spec), policy_path()] {
            let permit = context.begin(&format!("vault/delete/{path}"))?;
            let reply = session.server.delete(&path, permit.timeout).await;
            outcome = outcome.and(reply.and_then(|reply| match reply.status {
                404 => Ok(()),
                _ => reply.success("deleting the operator's access").map(drop),
            }));
        }
        session.close().await;
        outcome?;
        Ok(UndoProgress::Gone { evidence: format!("{evidence}; the operator's role and policy were deleted in Vault") })
    }
}
