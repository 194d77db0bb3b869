//! The `kubernetes.*` kinds, and what the other kinds that live in a cluster share: clients, objects, failures.
//!
//! Endpoint and CA come from step outputs only; there is no kubeconfig here.

pub(crate) mod api;
mod api_reachable;
mod apply;
pub(crate) mod bundle;
mod clients;
mod clusterwide;
mod difference;
pub(crate) mod documents;
mod download;
#[cfg(test)]
mod download_tests;
pub(crate) mod failure;
mod guests;
mod held;
pub(crate) mod installation;
mod managed;
mod namespaced;
pub(crate) mod objects;
pub(crate) mod rollout;
#[cfg(test)]
mod rollout_tests;
mod single;
pub(crate) mod snapshot;
mod sources;
mod survey;
mod volumes;

pub use api::ObjectKey;
pub use bundle::ObjectOutput;
pub use clients::{BearerTokens, Clients, ClusterAccess};
pub use guests::guests;
pub use sources::Source;
pub use volumes::{Volume, volumes};

use crate::aws::residue::Honest;
use crate::contract;
use platflow_engine::kind::Catalog;
use platflow_engine::name::InvalidName;
use single::SingleKind;
use std::sync::Arc;

/// Adds all `kubernetes.*` kinds to the catalog.
///
/// # Errors
/// When a kind's name is malformed: a mistake in this crate.
pub fn register(catalog: &mut Catalog, clients: &Arc<Clients>) -> Result<(), InvalidName> {
    let shared = || Arc::clone(clients);
    contract::register(catalog, Honest(api_reachable::ApiReachableKind(shared())))?;
    contract::register(catalog, Honest(SingleKind::<clusterwide::Namespace>::new(shared())))?;
    contract::register(catalog, Honest(SingleKind::<clusterwide::StorageClass>::new(shared())))?;
    contract::register(catalog, Honest(SingleKind::<namespaced::ResourceQuota>::new(shared())))?;
    contract::register(catalog, Honest(SingleKind::<namespaced::LimitRange>::new(shared())))?;
    contract::register(catalog, Honest(SingleKind::<namespaced::NetworkPolicy>::new(shared())))?;
    catalog.add_survey(Arc::new(survey::ClusterSurvey(shared())));
    contract::register(catalog, Honest(apply::ApplyKind { clients: shared(), sources: Arc::default() }))?;
    Ok(())
}
