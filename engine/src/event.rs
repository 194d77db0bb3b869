//! The closed list of facts a run is made of. `fold(events)` is the only truth about a run.
//!
//! Adding a variant is a schema change: old files must still fold. Nothing secret is ever in an event.

use crate::failure::StepError;
use crate::name::{EnvironmentName, EnvironmentUid, StepName};
use crate::plan::OnFailure;
use crate::step::Difference;
use crate::survey::ResidueCertificate;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Where a run is headed. Set by the operator or by `on_failure`, never by a crash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "direction", rename_all = "kebab-case")]
pub enum Direction {
    /// Towards every step verified.
    Forward,
    /// Towards everything that this run created undone, and everything it changed restored.
    Backward {
        /// Who or what asked: `operator`, `on-failure`.
        cause: String,
        /// Undoing what holds data was confirmed by typing the environment's name.
        confirmed: bool,
        /// Steps to keep, with all that they depend on.
        keep: Vec<StepName>,
        /// Back to the end of this step only: what came after it, or depends on it, is undone; then the run can go
        /// forward again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<StepName>,
    },
}

impl Direction {
    /// Back to where the run began.
    #[must_use]
    pub fn backward(cause: &str, confirmed: bool, keep: Vec<StepName>) -> Self {
        Self::Backward { cause: cause.to_owned(), confirmed, keep, to: None }
    }
}

/// What the environment's record said about a step before this run touched it: what a rollback restores.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prior {
    /// The spec it was last verified with.
    pub spec: Value,
    /// Its outputs then.
    pub outputs: Value,
}

/// What a look before the first mutation found, where it is not simply "as recorded": decides what undo means.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "finding", rename_all = "kebab-case")]
pub enum Finding {
    /// The record says it exists, the world says it does not: this run creates it.
    Missing,
    /// It exists and differs: this run changes it; `found` values are what a rollback restores.
    Differs {
        /// Field by field.
        differences: Vec<Difference>,
    },
}

/// What a verified step did to the world, seen from the start of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// It was there and right: nothing to undo.
    Unchanged,
    /// This run created it.
    Created,
    /// This run changed it in place.
    Changed,
}

/// Why a run stopped and waits. Always resumable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "kebab-case")]
pub enum ParkReason {
    /// A step failed for good, or its retry budget is spent.
    StepFailed {
        /// Which.
        steps: Vec<StepName>,
    },
    /// Only a human can decide; exit 6.
    NeedsHuman {
        /// Which steps.
        steps: Vec<StepName>,
        /// What must be decided.
        what: String,
    },
    /// The operator stopped it (Ctrl-C, `cancel`); exit 130.
    Interrupted,
    /// A wait for an approval or another outside event.
    Waiting {
        /// Which steps.
        steps: Vec<StepName>,
    },
    /// What was asked for is undone, down to this step; a resume goes forward from it.
    RolledBackTo {
        /// The step that stands.
        step: StepName,
    },
}

/// How a run ended for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// Every step verified or skipped.
    Done,
    /// Everything undone, restored or kept by declaration; nothing unknown.
    RolledBack,
    /// Given up by the operator; the record keeps what exists.
    Abandoned,
}

/// One fact. Times are the engine clock's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The first event of every run.
    RunStarted {
        environment: EnvironmentName,
        environment_uid: EnvironmentUid,
        plan_digest: String,
        on_failure: OnFailure,
        /// Version of the binary that started it.
        version: String,
        at: Timestamp,
    },
    /// A destroy run begins from the record: this step exists, made by earlier runs.
    StepRecorded { step: StepName, generation: u32, spec: Value, outputs: Value },
    /// A new owner took the run. Every step that was intended or undoing becomes unknown.
    OwnerChanged { epoch: u64, owner: String, at: Timestamp },
    /// The operator or `on_failure` set the direction.
    DirectionSet { direction: Direction, at: Timestamp },
    /// Before the first call of an attempt.
    StepIntended {
        step: StepName,
        attempt: u32,
        generation: u32,
        /// The evaluated spec.
        spec: Value,
        /// The environment's record of it, if it had one before this run.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        prior: Option<Prior>,
        at: Timestamp,
    },
    /// An id learned in the middle of an attempt.
    StepNoted { step: StepName, key: String, value: Value },
    /// The look before a mutation of something recorded found it missing or different.
    StepFound { step: StepName, finding: Finding },
    /// A call was accepted; the world works on it. Re-entered through observe when due.
    StepWaiting { step: StepName, reason: String, poll_at: Timestamp, deadline: Timestamp },
    /// The world accepted everything, but a look does not confirm it yet.
    StepApplied { step: StepName, outputs: Value },
    /// Present without differences.
    StepVerified { step: StepName, outputs: Value, effect: Effect, at: Timestamp },
    /// An attempt failed. With `retry_at` the engine goes on by itself then; without it, this step waits for the operator.
    StepFailed { step: StepName, error: StepError, retry_at: Option<Timestamp>, at: Timestamp },
    /// `when` was false, or everything it needs was skipped.
    StepSkipped { step: StepName, reason: String },
    /// Before the first call of an undo attempt.
    UndoIntended { step: StepName, attempt: u32, at: Timestamp },
    /// A deletion was accepted and is under way.
    UndoWaiting { step: StepName, reason: String, poll_at: Timestamp, deadline: Timestamp },
    /// An undo attempt failed; like `StepFailed`.
    UndoFailed { step: StepName, error: StepError, retry_at: Option<Timestamp>, at: Timestamp },
    /// Proven gone, or restored.
    StepUndone { step: StepName, evidence: String, at: Timestamp },
    /// Left in place on purpose: adopted, unchanged, or declared `keep`.
    StepKept { step: StepName, reason: String },
    /// The operator had it struck off the record. The world was not touched: what exists goes on existing.
    StepForgotten { step: StepName, by: String, at: Timestamp },
    /// Everything is undone; a search that does not rely on the record came to this.
    ResidueSurveyed { certificate: ResidueCertificate },
    /// The run stopped and waits.
    RunParked { reason: ParkReason, at: Timestamp },
    /// The run goes on after a park.
    RunResumed { at: Timestamp },
    /// The last event of every run that ends.
    RunFinished { ending: Ending, at: Timestamp },
}

impl Event {
    /// The stable name used in the store and in JSON output.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::RunStarted { .. } => "run-started",
            Self::StepRecorded { .. } => "step-recorded",
            Self::OwnerChanged { .. } => "owner-changed",
            Self::DirectionSet { .. } => "direction-set",
            Self::StepIntended { .. } => "step-intended",
            Self::StepNoted { .. } => "step-noted",
            Self::StepFound { .. } => "step-found",
            Self::StepWaiting { .. } => "step-waiting",
            Self::StepApplied { .. } => "step-applied",
            Self::StepVerified { .. } => "step-verified",
            Self::StepFailed { .. } => "step-failed",
            Self::StepSkipped { .. } => "step-skipped",
            Self::UndoIntended { .. } => "undo-intended",
            Self::UndoWaiting { .. } => "undo-waiting",
            Self::UndoFailed { .. } => "undo-failed",
            Self::StepUndone { .. } => "step-undone",
            Self::StepKept { .. } => "step-kept",
            Self::StepForgotten { .. } => "step-forgotten",
            Self::ResidueSurveyed { .. } => "residue-surveyed",
            Self::RunParked { .. } => "run-parked",
            Self::RunResumed { .. } => "run-resumed",
            Self::RunFinished { .. } => "run-finished",
        }
    }

    /// The step it is about, if it is about one.
    #[must_use]
    pub fn step(&self) -> Option<&StepName> {
        match self {
            Self::StepRecorded { step, .. }
            | Self::StepIntended { step, .. }
            | Self::StepNoted { step, .. }
            | Self::StepFound { step, .. }
            | Self::StepWaiting { step, .. }
            | Self::StepApplied { step, .. }
            | Self::StepVerified { step, .. }
            | Self::StepFailed { step, .. }
            | Self::StepSkipped { step, .. }
            | Self::UndoIntended { step, .. }
            | Self::UndoWaiting { step, .. }
            | Self::UndoFailed { step, .. }
            | Self::StepUndone { step, .. }
            | Self::StepKept { step, .. }
            | Self::StepForgotten { step, .. } => Some(step),
            Self::RunStarted { .. }
            | Self::OwnerChanged { .. }
            | Self::DirectionSet { .. }
            | Self::ResidueSurveyed { .. }
            | Self::RunParked { .. }
            | Self::RunResumed { .. }
            | Self::RunFinished { .. } => None,
        }
    }
}

/// Notes of a step by key.
pub type Notes = BTreeMap<String, Value>;
