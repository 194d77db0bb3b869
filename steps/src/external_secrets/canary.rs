//! `external_secrets.canary`: a value written to Vault arrives in a Secret; then all of it is removed and proven gone.

use super::API;
use super::vault_access::VaultConnection;
use crate::contract::{Made, Record, Seen, StepKind};
use crate::kubernetes::api::{Api, ObjectKey};
use crate::kubernetes::objects::{self, Removal, condition, text};
use crate::kubernetes::{Clients, ClusterAccess};
use crate::vault::Vaults;
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

/// The way to prove.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CanarySpec {
    /// The cluster.
    pub cluster: ClusterAccess,
    /// The namespace of the canary.
    pub namespace: String,
    /// The ClusterSecretStore.
    pub store: String,
    /// The Vault behind it.
    pub vault: VaultConnection,
}

/// The proof.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(super) struct CanaryOutputs {
    /// True: the value arrived and everything was removed again.
    pub proved: bool,
}

/// See the file.
pub(super) struct CanaryKind {
    pub(super) clients: Arc<Clients>,
    pub(super) vaults: Vaults,
}

const POLL: Duration = Duration::from_secs(2);
const BUDGET: Duration = Duration::from_secs(5 * 60);
const PROVED: &str = "proved";

struct Canary {
    external: ObjectKey,
    secret: ObjectKey,
    path: String,
    /// Not a secret: it exists to be compared.
    value: String,
}

fn canary(spec: &CanarySpec, context: &Context) -> Canary {
    let value = context.token("canary");
    let short: String = value.chars().take(8).collect();
    let name = format!("platflow-canary-{short}");
    Canary {
        external: ObjectKey::namespaced(API, "ExternalSecret", &spec.namespace, &name),
        secret: ObjectKey::namespaced("v1", "Secret", &spec.namespace, &name),
        path: format!("platflow/canary-{short}"),
        value,
    }
}

fn external_secret(spec: &CanarySpec, canary: &Canary) -> Value {
    json!({"apiVersion": API, "kind": "ExternalSecret",
        "metadata": {"name": canary.external.name, "namespace": spec.namespace},
        "spec": {"refreshInterval": "1h", "secretStoreRef": {"kind": "ClusterSecretStore", "name": spec.store},
            "target": {"name": canary.secret.name, "creationPolicy": "Owner"},
            "data": [{"secretKey": "value", "remoteRef": {"key": canary.path, "property": "value"}}]}})
}

impl CanaryKind {
    /// Whether the value arrived; a reason when it has not.
    async fn arrive(&self, api: &Api<'_>, spec: &CanarySpec, canary: &Canary) -> Result<Option<String>, StepError> {
        let external = api.get(&canary.external).await?;
        if external.is_none() {
            let session = spec.vault.required_session(&self.vaults, &spec.cluster, api.context).await?;
            let written = async {
                let permit = api.context.begin("vault/canary")?;
                let path = format!("{}/data/{}", spec.vault.kv_mount, canary.path);
                let body = json!({"data": {"value": canary.value}});
                session.server.put(&path, &body, permit.timeout).await?.success("writing the canary to Vault").map(drop)
            }
            .await;
            session.close().await;
            written?;
            objects::put(api, &canary.external, &external_secret(spec, canary), None).await?;
        }
        let Some(secret) = api.get(&canary.secret).await? else {
            let told = external.as_ref().and_then(|external| condition(external, "Ready"));
            let told = told.map(|(_, reason, message)| format!(": {reason} {message}")).unwrap_or_default();
            return Ok(Some(format!("the canary has not arrived yet{told}")));
        };
        let found = STANDARD.decode(text(&secret, "/data/value")).unwrap_or_default();
        let arrived = found == canary.value.as_bytes();
        Ok((!arrived).then(|| "the canary's Secret does not hold the value that was written yet".to_owned()))
    }

    /// Removes everything; a reason while something is left.
    async fn clean(&self, api: &Api<'_>, spec: &CanarySpec, canary: &Canary) -> Result<Option<String>, StepError> {
        if let Removal::Going(reason) = objects::remove(api, &canary.external, None, "Foreground").await? {
            return Ok(Some(reason));
        }
        // The operator owns the Secret: it goes with the ExternalSecret.
        if api.get(&canary.secret).await?.is_some() {
            return Ok(Some(format!("{} is being deleted", canary.secret)));
        }
        let Some(session) = spec.vault.session(&self.vaults, &spec.cluster, api.context).await? else {
            return Ok(Some("Vault has no leader or refuses platflow's login".to_owned()));
        };
        let removed = async {
            let permit = api.context.begin("vault/delete-canary")?;
            let path = format!("{}/metadata/{}", spec.vault.kv_mount, canary.path);
            let reply = session.server.delete(&path, permit.timeout).await?;
            if reply.status == 404 { Ok(()) } else { reply.success("deleting the canary in Vault").map(drop) }
        }
        .await;
        session.close().await;
        removed.map(|()| None)
    }
}

#[async_trait]
impl StepKind for CanaryKind {
    type Spec = CanarySpec;
    type Outputs = CanaryOutputs;

    const NAME: &'static str = "external_secrets.canary";
    const SUMMARY: &'static str = "Proof that a value written to Vault arrives in a Secret.";
    const EXPECTED: Duration = Duration::from_secs(10);

    async fn observe(
        &self,
        _spec: &CanarySpec,
        record: &Record<CanaryOutputs>,
        _context: &Context,
    ) -> Result<Seen<CanaryOutputs>, StepError> {
        // The proof is an event, not a thing: once on record it stays true.
        Ok(match &record.outputs {
            Some(outputs) => {
                Seen::Present { outputs: outputs.clone(), ownership: Ownership::Ours, differences: Vec::new() }
            }
            None => Seen::Absent,
        })
    }

    async fn apply(
        &self,
        spec: &CanarySpec,
        _seen: &Seen<CanaryOutputs>,
        record: &Record<CanaryOutputs>,
        context: &Context,
    ) -> Result<Made<CanaryOutputs>, StepError> {
        let api = Api::new(&self.clients, &spec.cluster, context)?;
        let canary = canary(spec, context);
        if !record.notes.contains_key(PROVED) {
            if let Some(reason) = self.arrive(&api, spec, &canary).await? {
                return Ok(Made::Waiting { reason, poll_in: POLL, budget: BUDGET });
            }
            context.note(PROVED, json!(true)).await?;
        }
        Ok(match self.clean(&api, spec, &canary).await? {
            Some(reason) => Made::Waiting { reason, poll_in: POLL, budget: BUDGET },
            None => Made::Done(CanaryOutputs { proved: true }),
        })
    }

    async fn undo(
        &self,
        spec: &CanarySpec,
        record: &Record<CanaryOutputs>,
        context: &Context,
    ) -> Result<UndoProgress, StepError> {
        if record.outputs.is_some() {
            return Ok(UndoProgress::Gone { evidence: "the canary removed itself when it was done".to_owned() });
        }
        let api = Api::new(&self.clients, &spec.cluster, context)?;
        Ok(match self.clean(&api, spec, &canary(spec, context)).await? {
            Some(reason) => UndoProgress::Waiting { reason, poll_in: POLL, budget: BUDGET },
            None => UndoProgress::Gone { evidence: "ExternalSecret, Secret and Vault entry are gone (404)".to_owned() },
        })
    }
}
