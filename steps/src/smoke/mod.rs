//! The `smoke.*` kinds: each checks one promise of the platform, keeps its evidence and removes what it made.
//!
//! They are run again by every run: a proof of an earlier run proves nothing about now.

mod argocd_healthy;
mod check;
mod dns;
mod nodes_ready;
mod pod_security_enforced;
mod pods;
mod quota_enforced;
mod vault_write_read;

use crate::aws::residue::Honest;
use crate::contract;
use crate::kubernetes::Clients;
use crate::sealing::Keystore;
use crate::vault::Vaults;
use check::SmokeKind;
use platflow_engine::kind::Catalog;
use platflow_engine::name::InvalidName;
use std::sync::Arc;

/// Adds all `smoke.*` kinds to the catalog.
///
/// # Errors
/// When a kind's name is malformed: a mistake in this crate.
pub fn register(catalog: &mut Catalog, clients: &Arc<Clients>, keystore: &Arc<Keystore>) -> Result<(), InvalidName> {
    let shared = || Arc::clone(clients);
    let vaults = Vaults::new(shared(), Arc::clone(keystore));
    contract::register(catalog, Honest(SmokeKind::new(shared(), nodes_ready::NodesReady)))?;
    contract::register(catalog, Honest(SmokeKind::new(shared(), dns::Dns)))?;
    contract::register(catalog, Honest(SmokeKind::new(shared(), quota_enforced::QuotaEnforced)))?;
    contract::register(catalog, Honest(SmokeKind::new(shared(), pod_security_enforced::PodSecurityEnforced)))?;
    contract::register(catalog, Honest(SmokeKind::new(shared(), argocd_healthy::ArgocdHealthy)))?;
    contract::register(catalog, Honest(SmokeKind::new(shared(), vault_write_read::VaultWriteRead { vaults })))
}
