//! Simulated Vault servers with integrated (Raft) storage: pure state, driven by requests and a clock passed in.
//!
//! A server process is a pod; what it stores belongs to its volume and survives the pod. Unsealing is honest: keys are
//! split by Shamir's scheme and the simulation keeps only a digest of the root key, so without a threshold of the right
//! shares a restarted server stays sealed. Tokens are kept as digests too: nothing in the persisted world is a secret.
//! Status codes follow the HTTP API (<https://developer.hashicorp.com/vault/api-docs/system>) as OpenBao 2.7 and Vault
//! answer it. Not modelled: replication between clusters, leases of dynamic secrets, plugins, namespaces.

mod access;
mod acl;
mod declared;
mod kubernetes_auth;
mod kv;
mod message;
mod model;
mod persist;
mod raft;
mod regain;
mod routes;
mod seal;
mod shamir;
mod stream;
mod system;
mod tokens;

#[cfg(test)]
mod tests;

pub use declared::declared_audits;
pub use message::{Reviews, VaultReply, VaultRequest};
pub use model::{ClusterSummary, Product, Servers, VaultPod};
pub use stream::{Answer, StreamError, TlsIdentity, VaultBackend, stream};
