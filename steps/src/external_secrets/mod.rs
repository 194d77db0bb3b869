//! The `external_secrets.*` kinds: the operator, its store on Vault, and a canary that proves the way through both.

mod canary;
mod install;
mod store;
mod vault_access;

pub use vault_access::VaultConnection;

use crate::aws::residue::Honest;
use crate::contract;
use crate::kubernetes::Clients;
use crate::kubernetes::installation::Installation;
use crate::sealing::Keystore;
use crate::vault::Vaults;
use platflow_engine::kind::Catalog;
use platflow_engine::name::InvalidName;
use std::sync::Arc;

/// The bundle that ships with the binary.
const EMBEDDED: &str = include_str!("../../manifests/external-secrets.yaml");
/// The API version of stores and external secrets.
const API: &str = "external-secrets.io/v1";

/// Adds all `external_secrets.*` kinds to the catalog.
///
/// # Errors
/// When a kind's name is malformed: a mistake in this crate.
pub fn register(catalog: &mut Catalog, clients: &Arc<Clients>, keystore: &Arc<Keystore>) -> Result<(), InvalidName> {
    let installation = Installation {
        clients: Arc::clone(clients),
        sources: Arc::default(),
        embedded: EMBEDDED,
        upstream_namespace: "external-secrets",
        versioned_by: "external-secrets",
    };
    contract::register(catalog, Honest(install::InstallKind(installation)))?;
    contract::register(catalog, Honest(store::StoreKind { clients: Arc::clone(clients) }))?;
    let vaults = Vaults::new(Arc::clone(clients) as _, Arc::clone(keystore));
    contract::register(catalog, Honest(canary::CanaryKind { clients: Arc::clone(clients), vaults }))
}
