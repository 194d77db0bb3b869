//! The `vault.*` kinds: three servers with Raft storage, initialised exactly once, unsealed, configured, and reached
//! without a stored token afterwards.
//!
//! Every call goes to one named pod through the cluster's port-forward, with TLS verified against the CA that
//! `vault.install` made: never to a Service, which would pick any pod. Nothing here decides when a verb runs.

mod certificates;
mod configure;
mod grants;
mod init;
mod install;
mod intent;
mod manifests;
mod objects;
mod own_access;
mod place;
mod reach;
mod server;
mod session;
mod storage;
mod survey;
mod tunnel;
mod unseal;

pub use configure::{Configure, ConfigureOutputs, ConfigureSpec};
pub use grants::Reader;
pub use init::{Init, InitOutputs, InitSpec};
pub use install::{Install, InstallOutputs, InstallSpec};
pub use own_access::{OwnAccess, OwnAccessOutputs, OwnAccessSpec};
pub use place::VaultPlace;
pub use reach::{Duplex, Reach};
pub use server::{Reply, VaultServer};
pub use session::{LoginAs, Session};
pub use unseal::{Unseal, UnsealOutputs, UnsealSpec};

use crate::contract;
use crate::sealing::Keystore;
use platflow_engine::kind::Catalog;
use platflow_engine::name::InvalidName;
use std::sync::Arc;

/// What every kind of this family works with.
#[derive(Clone)]
pub struct Vaults {
    pub(crate) reach: Arc<dyn Reach>,
    pub(crate) keystore: Arc<Keystore>,
}

impl std::fmt::Debug for Vaults {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Vaults").field("keystore", &self.keystore).finish_non_exhaustive()
    }
}

impl Vaults {
    /// Over the way to clusters and the keystore.
    #[must_use]
    pub fn new(reach: Arc<dyn Reach>, keystore: Arc<Keystore>) -> Self {
        Self { reach, keystore }
    }
}

/// Adds the `vault.*` kinds. `reach` is the same [`crate::kubernetes::Clients`] that the other cluster kinds use.
///
/// # Errors
/// When a kind's name is malformed: a mistake in this crate.
pub fn register(catalog: &mut Catalog, reach: Arc<dyn Reach>, keystore: Arc<Keystore>) -> Result<(), InvalidName> {
    let vaults = Vaults::new(reach, keystore);
    contract::register(catalog, Install::new(vaults.clone()))?;
    contract::register(catalog, Init::new(vaults.clone()))?;
    contract::register(catalog, Unseal::new(vaults.clone()))?;
    contract::register(catalog, Configure::new(vaults.clone()))?;
    contract::register(catalog, OwnAccess::new(vaults))
}

#[cfg(test)]
mod tests;
