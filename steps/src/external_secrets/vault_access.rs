//! Vault as these kinds and the smoke tests use it: a short session as platflow's own service account.

use crate::kubernetes::ClusterAccess;
use crate::vault::{LoginAs, Session, VaultPlace, Vaults};
use platflow_engine::context::Context;
use platflow_engine::failure::{ErrorClass, Residue, StepError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How to reach a configured Vault: the connection output of the vault module.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VaultConnection {
    /// Its namespace.
    pub namespace: String,
    /// Its StatefulSet.
    pub name: String,
    /// Its pods, by ordinal.
    pub pods: Vec<String>,
    /// PEM of the CA of its listeners.
    pub ca_certificate: String,
    /// Its address inside the cluster.
    pub address: String,
    /// Mount of the KV version 2 engine.
    pub kv_mount: String,
    /// Mount of the Kubernetes auth method.
    pub auth_mount: String,
}

impl VaultConnection {
    /// A session; `None` when Vault does not lead or refuses the login.
    pub(crate) async fn session(
        &self,
        vaults: &Vaults,
        cluster: &ClusterAccess,
        context: &Context,
    ) -> Result<Option<Session>, StepError> {
        let place = VaultPlace {
            cluster: cluster.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            pods: self.pods.clone(),
            ca_certificate: self.ca_certificate.clone(),
        };
        let login = LoginAs { mount: self.auth_mount.clone(), ..LoginAs::default() };
        vaults.session(&place, &context.environment_uid, &login).await
    }

    /// A session that must be there.
    pub(crate) async fn required_session(
        &self,
        vaults: &Vaults,
        cluster: &ClusterAccess,
        context: &Context,
    ) -> Result<Session, StepError> {
        self.session(vaults, cluster, context).await?.ok_or_else(|| {
            StepError::new(ErrorClass::Conflict, "Vault has no leader or refuses platflow's login")
                .leaving(Residue::None)
                .with_code("NoVaultSession")
                .with_remedy("unseal Vault (vault.unseal) and check vault.own_access, then resume")
        })
    }
}
