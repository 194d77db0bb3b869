//! Simulated AWS, Kubernetes and Vault endpoints over loopback HTTP, for the first minute without an account and for
//! honest crash tests. It knows nothing of the engine.

pub mod aws;
pub mod clock;
pub mod control;
pub mod counting;
mod disturbance;
pub mod embedded;
pub mod faults;
pub mod kubernetes;
pub mod links;
mod listeners;
pub mod persistence;
mod plant;
pub mod server;
pub mod vault;
pub mod virtual_time;
pub mod world;
