//! Simulated AWS, Kubernetes and Vault endpoints over loopback HTTP, for the first minute without an account and for
//! honest crash tests. It knows nothing of the engine.

pub mod kubernetes;
pub mod vault;
