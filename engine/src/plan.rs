//! The compiled workflow that a run is pinned to: steps, dependencies, spec templates. Plain data with a digest.
//!
//! The runbook language makes plans, the store keeps them, the engine reads them. Expressions stay unevaluated in the
//! templates; the [`Resolve`] port evaluates them once everything they refer to is known.

use crate::name::{EnvironmentName, KindName, StepName, WorkflowName};
use crate::step::UndoPlan;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufWriter, Write};
use std::time::Duration;

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedStep {
    /// Path name; the part before the last dot is the module it came from.
    pub name: StepName,
    /// What runs it.
    pub kind: KindName,
    /// The spec with `${…}` expressions still in it.
    pub spec: Value,
    /// `when:` as an expression; false means skipped, with what depends on its outputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// Everything that must be verified (or skipped) before it starts: inferred and explicit, sorted, no duplicates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<StepName>,
    /// Extra teardown edges: these steps must be undone before this one is, though they do not depend on it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undo_after: Vec<StepName>,
    /// How it is undone.
    pub undo: UndoPlan,
    /// How long one attempt may take in all on the engine's clock before the run parks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Overrides how long retries of transient classes go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_for: Option<Duration>,
    /// Expected duration, for longest-path-first scheduling.
    pub expected: Duration,
    /// One line for the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// What to do when a step fails for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// Stop and wait for the operator, resumable. The default, and always so in production.
    Park,
    /// Undo what this run created, restore what it changed.
    Rollback,
}

/// A workflow compiled for one set of parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The runbook's name.
    pub workflow: WorkflowName,
    /// What it builds.
    pub environment: EnvironmentName,
    /// Checked parameter values, defaults filled in. No secrets.
    pub parameters: BTreeMap<String, Value>,
    /// Steps sorted by name.
    pub steps: Vec<PlannedStep>,
    /// What to do on failure unless the command line says otherwise.
    pub on_failure: OnFailure,
    /// Only these steps are acted on: what they need is looked at and left as it is, the rest is passed over. Without
    /// it, every step is acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<BTreeSet<StepName>>,
}

impl Plan {
    /// SHA-256 of the canonical JSON of the plan, in hex: what a run is pinned to.
    ///
    /// # Errors
    /// Only if a value cannot be written as JSON.
    pub fn digest(&self) -> Result<String, serde_json::Error> {
        let mut hashed = Hashed(Sha256::new());
        let mut pieces = BufWriter::with_capacity(PIECE, &mut hashed);
        serde_json::to_writer(&mut pieces, self)?;
        pieces.flush().map_err(serde_json::Error::io)?;
        drop(pieces);
        Ok(hex::encode(hashed.0.finalize()))
    }
}

/// A plan of a million steps is not to be in memory a second time, as text, only to be hashed.
const PIECE: usize = 8_192;

struct Hashed(Sha256);

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Outputs by step, as far as they are known.
pub trait OutputLookup: Sync {
    /// Outputs of a verified (or recorded) step.
    fn outputs(&self, step: &StepName) -> Option<&Value>;
    /// True when the step was skipped by its `when`.
    fn skipped(&self, step: &StepName) -> bool;
}

/// What a template came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Resolved {
    /// The spec, no expression left.
    Spec(Value),
    /// `when` was false.
    Skip {
        /// Why, for the operator.
        reason: String,
    },
}

/// An expression that could not be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{step}{field}: {message}")]
pub struct ResolveError {
    /// The step whose template it is.
    pub step: StepName,
    /// JSON pointer into its spec, or `when`.
    pub field: String,
    /// What is wrong with it, with the expression itself.
    pub message: String,
}

/// Evaluates spec templates. Implemented by the runbook language; pure.
pub trait Resolve: Send + Sync + 'static {
    /// Evaluates `step`'s `when` and spec.
    ///
    /// # Errors
    /// [`ResolveError`] names step, field and expression.
    fn resolve(&self, plan: &Plan, step: &PlannedStep, known: &dyn OutputLookup) -> Result<Resolved, ResolveError>;
}
