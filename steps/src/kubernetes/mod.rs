//! The `kubernetes.*` kinds, and what the other kinds that live in a cluster share: clients, objects, failures.
//!
//! Endpoint and CA come from step outputs only; there is no kubeconfig here.

mod clients;

pub use clients::{BearerTokens, Clients, ClusterAccess};
