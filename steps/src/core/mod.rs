//! Steps that belong to no platform: run a program, send a request, ask a human, wait.
//!
//! What they need from outside (the guard program, the children's environment, the place where approvals are kept) comes
//! in [`CoreSettings`]; nothing here reads the environment or the clock of the machine.

mod answer;
mod approval;
mod exec;
mod http;
mod plain;
mod wait;

pub use approval::{Approval, ApprovalFolder, ApprovalRequest, ApprovalSource, ApproveSpec, Decision};
pub use exec::{Exec, ExecOutputs, ExecSpec, Protocol};
pub use http::{Http, HttpOutputs, HttpSpec, Request};
pub use wait::{UntilUrl, Wait, WaitOutputs, WaitSpec};

use crate::guard_process::Launcher;
use platflow_engine::failure::StepError;
use platflow_engine::kind::Catalog;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// The only variables that a child inherits.
const INHERITED: [&str; 3] = ["PATH", "HOME", "LANG"];

/// What the core kinds need from the program that they are part of.
#[derive(Clone)]
pub struct CoreSettings {
    /// How to start a guard: this program with `__guard`.
    pub guard: Launcher,
    /// Lock files of running commands, e.g. `<state>/guards`. Made at need.
    pub guard_folder: PathBuf,
    /// This program's environment; children get `PATH`, `HOME` and `LANG` of it, nothing else.
    pub inherited_environment: BTreeMap<String, String>,
    /// Further variables for every child: the sandbox's endpoints and dummy credentials. They win over the step's own.
    pub child_environment: BTreeMap<String, String>,
    /// Where approvals are decided.
    pub approvals: Arc<dyn ApprovalSource>,
}

impl std::fmt::Debug for CoreSettings {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("CoreSettings")
            .field("guard", &self.guard)
            .field("guard_folder", &self.guard_folder)
            .finish_non_exhaustive()
    }
}

impl CoreSettings {
    /// The whole environment of a child.
    fn environment(&self, of_step: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let inherited = INHERITED
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), self.inherited_environment.get(*name)?.clone())));
        inherited.chain(of_step.clone()).chain(self.child_environment.clone()).collect()
    }
}

/// Why the core kinds could not be added.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The HTTP client could not be built.
    #[error("the HTTP client of core.http could not be built")]
    Client(#[source] reqwest::Error),
    /// A kind's name is malformed.
    #[error("a kind could not be added")]
    Kind(#[source] platflow_engine::name::InvalidName),
}

/// Adds `core.exec`, `core.http`, `core.approval` and `core.wait`.
///
/// # Errors
/// [`RegisterError`].
pub fn register(catalog: &mut Catalog, settings: CoreSettings) -> Result<(), RegisterError> {
    let client = http::client().map_err(RegisterError::Client)?;
    let approvals = Arc::clone(&settings.approvals);
    crate::contract::register(catalog, Exec::new(settings)).map_err(RegisterError::Kind)?;
    crate::contract::register(catalog, Http::new(client.clone())).map_err(RegisterError::Kind)?;
    crate::contract::register(catalog, Approval::new(approvals)).map_err(RegisterError::Kind)?;
    crate::contract::register(catalog, Wait::new(client)).map_err(RegisterError::Kind)
}

/// A mistake in the spec: refused before anything happened.
fn refused(message: impl Into<String>) -> StepError {
    StepError::permanent(message).leaving(platflow_engine::failure::Residue::None)
}
