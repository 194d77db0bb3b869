//! `external_secrets.store`: a ClusterSecretStore that is Ready, which it is when Vault lets the operator in.
//!
//! The operator's role and policy are none of its business: `vault.own_access` writes them while the root token is there.

use super::API;
use super::vault_access::VaultConnection;
use crate::contract::{Made, Record, Seen, StepKind};
use crate::kubernetes::api::{Api, ObjectKey};
use crate::kubernetes::objects::{self, Removal, Standing, condition, foreign, holding, text};
use crate::kubernetes::{Clients, ClusterAccess};
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use platflow_engine::context::Context;
use platflow_engine::failure::StepError;
use platflow_engine::step::{Ownership, UndoProgress};
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
    /// The role that the operator logs in with: one of the readers of `vault.own_access`.
    #[serde(default = "operator")]
    pub role: String,
}

fn operator() -> String {
    OPERATOR.to_owned()
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
}

/// The operator's service account, and its role in Vault unless another is named.
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
            "auth": {"kubernetes": {"mountPath": vault.auth_mount, "role": spec.role,
                "serviceAccountRef": {"name": OPERATOR, "namespace": spec.namespace}}}}}}})
}

fn outputs(stored: &Value) -> StoreOutputs {
    StoreOutputs { name: text(stored, "/metadata/name").to_owned(), uid: text(stored, "/metadata/uid").to_owned() }
}

fn unready(stored: &Value) -> Option<String> {
    match condition(stored, "Ready") {
        Some(("True", ..)) => None,
        Some((_, reason, message)) => Some(format!(
            "the store is not ready: {reason} {message} (its role must be among the readers of vault.own_access)"
        )),
        None => Some("the operator has not looked at the store yet".to_owned()),
    }
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
    const SUMMARY: &'static str = "A ClusterSecretStore on Vault, Ready: the operator logs in there.";
    const EXPECTED: Duration = Duration::from_secs(10);

    async fn observe(
        &self,
        spec: &StoreSpec,
        record: &Record<StoreOutputs>,
        context: &Context,
    ) -> Result<Seen<StoreOutputs>, StepError> {
        let api = Api::new(&self.clients, &spec.cluster, context)?;
        let Some(standing) = self.stand(&api, spec, record).await? else { return Ok(Seen::Absent) };
        if standing.is_leaving() {
            return Ok(Seen::Changing { reason: holding(&key(spec), &standing.stored), poll_in: POLL });
        }
        if standing.ownership == Ownership::Ours
            && standing.differences.is_empty()
            && let Some(reason) = unready(&standing.stored)
        {
            return Ok(Seen::Changing { reason, poll_in: POLL });
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
        Ok(match objects::remove(&api, &key(spec), recorded, "Background").await? {
            Removal::Going(reason) => UndoProgress::Waiting { reason, poll_in: POLL, budget: BUDGET },
            Removal::Gone(evidence) => UndoProgress::Gone { evidence },
        })
    }
}
