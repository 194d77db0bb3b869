//! Where a Vault installation is: the members that every spec of the family shares.

use crate::kubernetes::ClusterAccess;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Cluster, namespace, pods and CA of a Vault installation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VaultPlace {
    /// How to reach the cluster.
    pub cluster: ClusterAccess,
    /// The namespace it runs in.
    pub namespace: String,
    /// The StatefulSet's name.
    pub name: String,
    /// Its pods, by ordinal.
    pub pods: Vec<String>,
    /// PEM of the CA that signed the servers' certificate.
    pub ca_certificate: String,
}

impl VaultPlace {
    /// A pod's own DNS name, by the headless service.
    pub(super) fn host(&self, pod: &str) -> String {
        format!("{pod}.{}-internal.{}.svc", self.name, self.namespace)
    }

    /// A pod's API address inside the cluster.
    pub(super) fn api_address(&self, pod: &str) -> String {
        format!("https://{}:8200", self.host(pod))
    }
}

/// Gives a spec with the shared members its place.
macro_rules! placed {
    ($spec:ty) => {
        impl $spec {
            pub(super) fn place(&self) -> super::place::VaultPlace {
                super::place::VaultPlace {
                    cluster: self.cluster.clone(),
                    namespace: self.namespace.clone(),
                    name: self.name.clone(),
                    pods: self.pods.clone(),
                    ca_certificate: self.ca_certificate.clone(),
                }
            }
        }
    };
}
pub(super) use placed;
