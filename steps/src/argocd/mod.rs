//! The `argocd.*` kinds: the installation, its admin password, a repository's credentials, and the root application.
//!
//! Nothing that platflow itself applies comes from the root application.

mod admin_password;
mod install;
mod repository;
mod root_app;

use crate::aws::residue::Honest;
use crate::contract;
use crate::kubernetes::Clients;
use crate::kubernetes::installation::Installation;
use crate::sealing::Keystore;
use platflow_engine::kind::Catalog;
use platflow_engine::name::InvalidName;
use std::sync::Arc;

/// The bundle that ships with the binary.
const EMBEDDED: &str = include_str!("../../manifests/argocd.yaml");

/// Adds all `argocd.*` kinds to the catalog.
///
/// # Errors
/// When a kind's name is malformed: a mistake in this crate.
pub fn register(catalog: &mut Catalog, clients: &Arc<Clients>, keystore: &Arc<Keystore>) -> Result<(), InvalidName> {
    let installation = Installation {
        clients: Arc::clone(clients),
        sources: Arc::default(),
        embedded: EMBEDDED,
        upstream_namespace: "argocd",
        versioned_by: "argocd-server",
    };
    contract::register(catalog, Honest(install::InstallKind(installation)))?;
    let (clients, keystore) = (Arc::clone(clients), Arc::clone(keystore));
    contract::register(catalog, Honest(repository::RepositoryKind(Arc::clone(&clients))))?;
    contract::register(catalog, Honest(root_app::RootAppKind(Arc::clone(&clients))))?;
    contract::register(catalog, Honest(admin_password::AdminPasswordKind { clients, keystore }))
}

/// The API version of applications and projects.
const ARGO: &str = "argoproj.io/v1alpha1";
