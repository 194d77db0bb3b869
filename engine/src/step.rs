//! The step port: observe, apply, undo. Everything platflow does with a resource is made of these three verbs.
//!
//! Specs and outputs are JSON here; the typed view, with its JSON Schema, is the implementor's (`steps/`). This file
//! decides nothing: when a verb is called, and what its answer means for the run, is `drive` and `decide`.

use crate::context::Context;
use crate::failure::StepError;
use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// One kind of step in the outside world.
#[async_trait]
pub trait Step: Send + Sync + 'static {
    /// Looks, changes nothing, is cheap. `known` is what the journal and the environment's record already hold.
    ///
    /// # Errors
    /// Only when looking itself failed; "it is not there" is [`Observation::Absent`].
    async fn observe(&self, spec: &Value, known: &Known, context: &Context) -> Result<Observation, StepError>;

    /// Makes it so, starting from `observed`, which is never older than this call's caller: adopts what is ours,
    /// refuses what is not (naming the owner), changes what differs.
    ///
    /// # Errors
    /// Class and residue; residue stays unknown unless the step looked.
    async fn apply(
        &self,
        spec: &Value,
        observed: &Observation,
        known: &Known,
        context: &Context,
    ) -> Result<Progress, StepError>;

    /// Takes it away. Copes with never ran, half ran and already gone, and ends with an observation.
    ///
    /// # Errors
    /// Class and residue; an owner that stands in the way is [`UndoProgress::Blocked`], not an error.
    async fn undo(&self, spec: &Value, known: &Known, context: &Context) -> Result<UndoProgress, StepError>;

    /// True for a step of many things whose undo tells ours from others' one by one: a single one of somebody else's is
    /// then left alone, and is no reason to leave all. False: a look that finds somebody else's stops the undo.
    fn spares_strangers(&self) -> bool {
        false
    }
}

/// What is known of a step before it is looked at: from this run's journal or the environment's record.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Known {
    /// Outputs on record, if it was ever applied.
    pub outputs: Option<Value>,
    /// Ids noted during an attempt (`context.note`), by key; they survive a crash between call and outcome.
    pub notes: BTreeMap<String, Value>,
    /// True when an intent was journaled and its outcome never was: the world may hold more than the journal says.
    pub uncertain: bool,
    /// When the step's first intent of this generation was journaled, if it was. A resource that is older than this
    /// was not made by it.
    pub intended_at: Option<Timestamp>,
}

/// Who owns what was seen. Ours means the ownership tags carry this environment's uid and this step's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ownership {
    /// Ours by tag, label or record.
    Ours,
    /// Somebody else's; the text names them as well as the world allows (tags, creator, field manager).
    Foreign(String),
}

/// One field that differs from the spec.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// JSON pointer into the spec, e.g. `/scaling/desired`.
    pub field: String,
    /// What the spec wants.
    pub wanted: Value,
    /// What is there.
    pub found: Value,
    /// True when the API cannot change it in place: only replacement would.
    pub replace: bool,
}

/// What a look at the world found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Observation {
    /// It is not there.
    Absent,
    /// It is there, settled.
    Present {
        /// Ids, ARNs, endpoints.
        outputs: Value,
        /// Whose it is.
        ownership: Ownership,
        /// Empty when it is as the spec wants it.
        differences: Vec<Difference>,
    },
    /// It is on its way from one state to another (CREATING, DELETING, rolling out).
    Changing {
        /// What it is doing, for the operator: state, cause, last event of the cloud.
        reason: String,
        /// Look again after this long.
        poll_in: Duration,
    },
    /// It could not be told; the engine asks again, bounded.
    Unknown {
        /// Why not.
        reason: String,
    },
}

/// How far `apply` came.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// The world accepted everything. The engine observes once more before it calls the step verified.
    Done {
        /// What exists now.
        outputs: Value,
    },
    /// The call was accepted, the world is still working. The engine journals this and re-enters through `observe`.
    Waiting {
        /// What it waits for, for the operator.
        reason: String,
        /// Look again after this long, on the engine's clock.
        poll_in: Duration,
        /// Give up (park, never guess) after this long from the first such wait of the attempt.
        budget: Duration,
    },
}

/// How far `undo` came.
#[derive(Debug, Clone, PartialEq)]
pub enum UndoProgress {
    /// Proven gone: `evidence` says which look proved it.
    Gone {
        /// Which calls looked, and what they answered.
        evidence: String,
    },
    /// Accepted, still going away.
    Waiting {
        /// What it waits for.
        reason: String,
        /// Look again after this long.
        poll_in: Duration,
        /// Give up (park) after this long from the first wait.
        budget: Duration,
    },
    /// Something that is not this step's stands in the way. Nothing was deleted that is not ours.
    Blocked {
        /// The owner: resource, requester, and the step that owns it if one does.
        owner: String,
        /// What the operator can do.
        remedy: String,
    },
}

/// How a step is taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "kebab-case")]
pub enum UndoPlan {
    /// By its own `undo`.
    Own,
    /// It is gone when that step's resource is proven gone.
    With {
        /// The step whose end takes this one along.
        step: crate::name::StepName,
    },
    /// It cannot be undone: a rollback stops there.
    Impossible,
    /// The runbook keeps it (`undo: keep`).
    Keep,
}
