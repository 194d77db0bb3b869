//! The `aws.*` kinds: network, identity, keys, EKS and its parts.
//!
//! One file per kind or small family over shared clients. Names and shapes of specs and outputs are the reference's;
//! when verbs are called is the engine's.

pub mod access_entry;
pub mod addon;
mod blockers;
mod clients;
mod cluster_remains;
mod documents;
mod ec2;
pub mod eks_cluster;
pub mod elastic_ip;
mod failure;
pub mod iam_role;
pub mod internet_gateway;
mod joining;
pub mod kms_key;
pub mod launch_template;
mod leftovers;
mod lists;
pub mod logs;
pub mod lookups;
pub mod nat_gateway;
pub mod node_group;
pub mod oidc_provider;
mod ownership;
mod preflight;
mod quotas;
pub(crate) mod residue;
pub mod route_table;
pub mod security_group;
mod signed;
pub mod subnet;
mod survey;
mod token;
mod volumes;
pub mod vpc;

pub use clients::{AwsClients, AwsError, AwsSettings, CallerIdentity, CredentialSource};
pub use failure::{AwsFailure, Reach};
pub use preflight::AccountExaminer;
pub use signed::{Endpoints, Service, Signed};
pub use survey::{Complaint, Extra, complaints, extras};
pub use token::TokenSource;
pub use volumes::{ClusterVolume, cluster_volumes};

use crate::contract;
use platflow_engine::kind::Catalog;
use platflow_engine::name::InvalidName;
use residue::Honest;
use std::sync::Arc;

/// Adds all `aws.*` kinds to the catalog.
///
/// # Errors
/// When a kind's name is malformed: a mistake in this crate.
pub fn register(catalog: &mut Catalog, clients: &Arc<AwsClients>) -> Result<(), InvalidName> {
    let aws = || Arc::clone(clients);
    contract::register(catalog, Honest(vpc::VpcKind(aws())))?;
    contract::register(catalog, Honest(subnet::SubnetKind(aws())))?;
    contract::register(catalog, Honest(internet_gateway::InternetGatewayKind(aws())))?;
    contract::register(catalog, Honest(elastic_ip::ElasticIpKind(aws())))?;
    contract::register(catalog, Honest(nat_gateway::NatGatewayKind(aws())))?;
    contract::register(catalog, Honest(route_table::RouteTableKind(aws())))?;
    contract::register(catalog, Honest(iam_role::IamRoleKind(aws())))?;
    contract::register(catalog, Honest(security_group::SecurityGroupKind(aws())))?;
    contract::register(catalog, Honest(kms_key::KmsKeyKind(aws())))?;
    contract::register(catalog, Honest(logs::LogGroupKind(aws())))?;
    contract::register(catalog, Honest(logs::EnvironmentHoldKind(aws())))?;
    contract::register(catalog, Honest(eks_cluster::EksClusterKind(aws())))?;
    contract::register(catalog, Honest(launch_template::LaunchTemplateKind(aws())))?;
    contract::register(catalog, Honest(node_group::NodeGroupKind(aws())))?;
    contract::register(catalog, Honest(lookups::LookupsKind(aws())))?;
    contract::register(catalog, Honest(oidc_provider::OidcProviderKind(aws())))?;
    contract::register(catalog, Honest(access_entry::AccessEntryKind(aws())))?;
    contract::register(catalog, Honest(addon::AddonKind(aws())))?;
    catalog.add_survey(Arc::new(survey::AccountSurvey(aws())));
    Ok(())
}
