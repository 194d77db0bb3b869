//! The words shared by the Kubernetes front: requests and replies, what a cluster is made from, and the port to the rest of the world.
//! It holds no behaviour beyond small constructors.

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::watch::Subscription;

/// What an EKS cluster hands to the Kubernetes front when its control plane comes up.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewCluster {
    /// Cluster name, the key of every other call.
    pub name: String,
    /// ARN of the EKS cluster.
    pub arn: String,
    /// Minor version, such as `1.36`.
    pub version: String,
    /// OIDC issuer of the service account tokens.
    pub oidc_issuer: String,
    /// Account that owns the cluster.
    pub account: String,
    /// Region of the cluster.
    pub region: String,
    /// Addresses of the control plane's interfaces in the VPC.
    #[serde(default)]
    pub control_plane: Vec<String>,
}

/// One machine that joins a cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeSeed {
    /// Node name (the private DNS name of the instance).
    pub name: String,
    /// EC2 instance id.
    pub instance_id: String,
    /// EC2 instance type.
    pub instance_type: String,
    /// Managed node group.
    pub pool: String,
    /// Availability zone.
    pub zone: String,
    /// Region.
    pub region: String,
    /// `amd64` or `arm64`.
    pub arch: String,
    /// Labels of the node group.
    pub labels: BTreeMap<String, String>,
    /// Taints of the node group.
    pub taints: Vec<Taint>,
    /// Virtual CPUs.
    pub cpu: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Most pods the node takes.
    pub pods: u32,
}

/// A taint in Kubernetes spelling (`NoSchedule`, `NoExecute`, `PreferNoSchedule`).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Taint {
    /// Taint key.
    pub key: String,
    /// Taint value.
    pub value: String,
    /// Effect as Kubernetes spells it.
    pub effect: String,
}

/// What an IAM principal may do in a cluster (an EKS access entry with its policies).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AccessGrant {
    /// IAM principal.
    pub principal_arn: String,
    /// Kubernetes user name.
    pub username: String,
    /// Kubernetes groups.
    pub groups: Vec<String>,
    /// ARNs of associated EKS access policies.
    pub policies: Vec<String>,
}

/// Health of an add-on as its workload shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddonHealth {
    /// All its pods are as wanted.
    Healthy,
    /// Something is missing; the text says what.
    Degraded(String),
}

/// A Vault pod that runs (and is not ready before its Vault says so).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultPod {
    /// Cluster name.
    pub cluster: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// StatefulSet that owns it.
    pub stateful_set: String,
    /// Its ordinal.
    pub ordinal: u32,
    /// Uid of the pod.
    pub pod_uid: String,
    /// What holds its data: the volume behind its claim (or the pod's uid without one).
    pub storage_id: String,
    /// Listener certificate (PEM) from the mounted TLS Secret.
    pub certificate: Option<String>,
    /// Listener key (PEM) from the mounted TLS Secret.
    pub key: Option<String>,
    /// Services whose selector matches the pod.
    pub services: Vec<String>,
    /// Image of its server.
    pub image: String,
    /// The server's configuration, from the mounted ConfigMaps.
    pub configuration: String,
}

/// What a cluster does to the world outside of Kubernetes, and asks of it.
pub trait Outside {
    /// Creates a block volume for a claim and returns its id.
    fn create_volume(&mut self, cluster: &str, namespace: &str, claim: &str, size_gib: u64, zone: &str) -> String;
    /// Deletes a volume.
    fn delete_volume(&mut self, volume: &str);
    /// Creates a load balancer for a Service and returns its DNS name.
    fn create_load_balancer(&mut self, cluster: &str, namespace: &str, service: &str) -> String;
    /// Deletes the load balancer of a Service.
    fn delete_load_balancer(&mut self, cluster: &str, namespace: &str, service: &str);
    /// A Vault pod runs.
    fn vault_pod_started(&mut self, pod: &VaultPod);
    /// A Vault pod ended; its storage stays.
    fn vault_pod_stopped(&mut self, storage_id: &str);
    /// Whether the Vault on this storage is initialised and unsealed.
    fn vault_pod_ready(&mut self, storage_id: &str) -> bool;
    /// Grows whenever a Vault is asked for anything or one comes or goes, but for the reads below.
    fn vault_heard(&mut self) -> u64 {
        0
    }
    /// Reads a secret of the Vault behind a Service, logging in with a service account token.
    ///
    /// # Errors
    /// The text that Vault or the network would answer.
    fn vault_read(&mut self, read: &VaultRead) -> Result<Value, String>;
    /// The IAM principal that signed a presigned bearer token for this cluster (signed header `x-k8s-aws-id`), if the signature is good.
    fn principal_of(&mut self, cluster: &str, token: &str) -> Option<String>;
}

/// One read that External Secrets makes in a Vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultRead {
    /// Cluster in which the reader runs.
    pub cluster: String,
    /// Namespace of the Vault Service, from the store's address.
    pub namespace: String,
    /// Name of the Vault Service.
    pub service: String,
    /// Path of the auth mount.
    pub auth_mount: String,
    /// Role to log in with.
    pub role: String,
    /// Service account token to log in with.
    pub token: String,
    /// KV mount; empty when only the login is to be tried.
    pub mount: String,
    /// Key below the mount.
    pub key: String,
}

/// Who sends a request, as far as the connection tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Caller {
    /// No credentials.
    #[default]
    Anonymous,
    /// An `Authorization: Bearer` token, not verified yet.
    Bearer(String),
    /// A user known by other means (a client certificate).
    User {
        /// User name.
        name: String,
        /// Groups.
        groups: Vec<String>,
    },
}

/// One HTTP request to the API server of a cluster.
#[derive(Debug, Clone, Default)]
pub struct KubeRequest {
    /// HTTP method.
    pub method: String,
    /// Path, percent-decoded per segment by the router.
    pub path: String,
    /// Query parameters, decoded, in order.
    pub query: Vec<(String, String)>,
    /// Content-Type header.
    pub content_type: Option<String>,
    /// Accept header.
    pub accept: Option<String>,
    /// If-None-Match header.
    pub if_none_match: Option<String>,
    /// User-Agent header: names the field manager when the request does not.
    pub user_agent: Option<String>,
    /// Body.
    pub body: Bytes,
    /// Who asks.
    pub caller: Caller,
    /// Real time, for the expiry of signatures.
    pub wall: Timestamp,
    /// True when a reply of [`KubeReply::Later`] has been waited for.
    pub waited: bool,
}

impl KubeRequest {
    /// First value of a query parameter.
    #[must_use]
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether a query parameter is set to a true value.
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.query(name), Some("true" | "1" | ""))
    }
}

/// The answer to one request.
#[derive(Debug)]
pub enum KubeReply {
    /// A JSON document.
    Json {
        /// HTTP status.
        status: u16,
        /// Further headers.
        headers: Vec<(String, String)>,
        /// The document.
        body: Value,
    },
    /// Anything else.
    Text {
        /// HTTP status.
        status: u16,
        /// Content-Type.
        content_type: String,
        /// Further headers.
        headers: Vec<(String, String)>,
        /// The text.
        body: String,
    },
    /// A stream of watch events: poll it with `Clusters::poll_watch`.
    Watch(Box<Subscription>),
    /// The connection becomes a port-forward to a running pod.
    Upgrade(PortForward),
    /// The connection breaks without a reply.
    Broken,
    /// The server holds the request this long (simulated time), then handles it again with `waited` set.
    Later {
        /// Milliseconds of simulated time.
        after_ms: i64,
    },
}

/// A port-forward to accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortForward {
    /// Cluster name.
    pub cluster: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// Pod name.
    pub pod: String,
    /// Ports named in the request, in order (may be empty: SPDY-style clients name them later).
    pub ports: Vec<u16>,
}
