//! What each kind of step means in the outside world.
//!
//! One file per kind or small family; [`contract`] is the typed view of the engine's step port.

pub mod argocd;
pub mod aws;
pub mod contract;
pub mod core;
pub mod external_secrets;
pub mod guard_process;
pub mod kubernetes;
pub mod sealing;
pub mod smoke;
mod trust;
pub mod vault;
