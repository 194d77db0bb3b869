//! `smoke.vault_write_read`: a value written to Vault is read back, and removed again.

use super::check::{Check, Finding};
use crate::external_secrets::VaultConnection;
use crate::kubernetes::ClusterAccess;
use crate::kubernetes::api::Api;
use crate::vault::{Session, Vaults};
use async_trait::async_trait;
use platflow_engine::context::Context;
use platflow_engine::failure::StepError;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

/// Which Vault.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct VaultWriteReadSpec {
    /// The cluster.
    pub cluster: ClusterAccess,
    /// The Vault.
    pub vault: VaultConnection,
}

/// See the file.
pub(super) struct VaultWriteRead {
    pub(super) vaults: Vaults,
}

fn path(context: &Context) -> String {
    let short: String = context.token("smoke").chars().take(8).collect();
    format!("platflow/smoke-{short}")
}

async fn write_and_read(session: &Session, spec: &VaultWriteReadSpec, context: &Context) -> Result<Finding, StepError> {
    let data = format!("{}/data/{}", spec.vault.kv_mount, path(context));
    let value = format!("{}/{}", context.run, context.token("value"));
    let permit = context.begin("vault/write")?;
    let body = json!({"data": {"value": value}});
    session.server.put(&data, &body, permit.timeout).await?.success("writing to Vault")?;
    let reply = session.server.get(&data).await?.success("reading from Vault")?;
    Ok(match reply.text("/data/data/value") {
        Some(found) if found == value => Finding::Proved(json!({"path": data, "version":
            reply.body.pointer("/data/metadata/version"), "server": session.server.pod()})),
        _ => Finding::Broken(format!("Vault does not give back what was written to {data}")),
    })
}

#[async_trait]
impl Check for VaultWriteRead {
    type Spec = VaultWriteReadSpec;
    const NAME: &'static str = "smoke.vault_write_read";
    const SUMMARY: &'static str = "Vault gives back what was written.";

    fn cluster(spec: &VaultWriteReadSpec) -> &ClusterAccess {
        &spec.cluster
    }

    async fn check(&self, api: &Api<'_>, spec: &VaultWriteReadSpec, _: &str) -> Result<Finding, StepError> {
        let session = spec.vault.required_session(&self.vaults, &spec.cluster, api.context).await?;
        let found = write_and_read(&session, spec, api.context).await;
        session.close().await;
        found
    }

    async fn clean(&self, api: &Api<'_>, spec: &VaultWriteReadSpec) -> Result<(), StepError> {
        let session = spec.vault.required_session(&self.vaults, &spec.cluster, api.context).await?;
        let removed = async {
            let metadata = format!("{}/metadata/{}", spec.vault.kv_mount, path(api.context));
            let permit = api.context.begin("vault/delete")?;
            let reply = session.server.delete(&metadata, permit.timeout).await?;
            if reply.status != 404 {
                reply.success("deleting from Vault")?;
            }
            match session.server.get(&metadata).await?.status {
                404 => Ok(()),
                status => Err(StepError::transient(format!("{metadata} is still there after its deletion ({status})"))),
            }
        }
        .await;
        session.close().await;
        removed
    }
}
