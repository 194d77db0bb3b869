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
pub mod preflight;
pub mod sealing;
pub mod smoke;
mod trust;
pub mod vault;

/// Kinds that only read or ask: what is on record for their steps is an answer, nothing exists because of it.
const LEAVE_NOTHING: [&str; 3] = ["aws.lookups", "core.approval", "core.wait"];

/// Whether nothing exists in the world because a step of this kind was done.
#[must_use]
pub fn leaves_nothing(kind: &platflow_engine::name::KindName) -> bool {
    LEAVE_NOTHING.contains(&kind.as_str())
}
