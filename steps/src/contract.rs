//! The typed view of the engine's step port: a spec type, an outputs type, three verbs.
//!
//! A kind implements [`StepKind`]; [`register`] publishes its JSON Schemas and wraps it into the engine's erased
//! [`Step`]. Retries, waiting and journaling are the engine's, never a kind's.

use async_trait::async_trait;
use platflow_engine::context::Context;
use platflow_engine::failure::{ErrorClass, Residue, StepError};
use platflow_engine::kind::{Catalog, KindDescription, UndoDefault};
use platflow_engine::name::KindName;
use platflow_engine::step::{Difference, Known, Observation, Ownership, Progress, Step, UndoProgress};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What a look found, typed.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen<O> {
    /// It is not there.
    Absent,
    /// It is there, settled.
    Present {
        /// Ids, ARNs, endpoints.
        outputs: O,
        /// Whose it is.
        ownership: Ownership,
        /// Empty when it is as wanted.
        differences: Vec<Difference>,
    },
    /// On its way; look again after `poll_in`.
    Changing {
        /// What it is doing.
        reason: String,
        /// Look again after this long, on the engine's clock.
        poll_in: Duration,
    },
    /// It could not be told.
    Unknown {
        /// Why not.
        reason: String,
    },
}

/// How far an apply came, typed.
#[derive(Debug, Clone, PartialEq)]
pub enum Made<O> {
    /// The world accepted everything.
    Done(O),
    /// Accepted, still working; see [`Progress::Waiting`].
    Waiting {
        /// What it waits for.
        reason: String,
        /// Look again after this long.
        poll_in: Duration,
        /// Give up after this long from the first wait.
        budget: Duration,
    },
}

/// What is on record, typed.
#[derive(Debug, Clone)]
pub struct Record<O> {
    /// Outputs on record, if the step was ever applied and they still have the present shape.
    pub outputs: Option<O>,
    /// Ids noted during an attempt, by key.
    pub notes: BTreeMap<String, Value>,
    /// An intent without an outcome: the world may hold more than the record.
    pub uncertain: bool,
    /// When the step's first intent of this generation was journaled.
    pub intended_at: Option<jiff::Timestamp>,
}

/// A kind of step.
#[async_trait]
pub trait StepKind: Send + Sync + 'static {
    /// What is wanted. Use `#[serde(deny_unknown_fields)]`; fields carry doc comments (they become the reference).
    type Spec: DeserializeOwned + JsonSchema + Send + Sync;
    /// What exists. No secrets.
    type Outputs: Serialize + DeserializeOwned + JsonSchema + Send + Sync;

    /// E.g. `aws.vpc`.
    const NAME: &'static str;
    /// One sentence for the reference.
    const SUMMARY: &'static str;
    /// How long after an uncertain call an absence may still be read lag (at least 60 s where a create has neither token nor unique name).
    const SETTLE: Duration = Duration::ZERO;
    /// See [`Step::spares_strangers`].
    const SPARES_STRANGERS: bool = false;
    /// Expected duration.
    const EXPECTED: Duration = Duration::from_secs(2);
    /// Undoing it destroys data that cannot be rebuilt.
    const HOLDS_DATA: bool = false;
    /// How it is undone by default.
    const UNDO: UndoDefault = UndoDefault::Own;

    /// See [`Step::observe`].
    async fn observe(
        &self,
        spec: &Self::Spec,
        record: &Record<Self::Outputs>,
        context: &Context,
    ) -> Result<Seen<Self::Outputs>, StepError>;

    /// See [`Step::apply`].
    async fn apply(
        &self,
        spec: &Self::Spec,
        seen: &Seen<Self::Outputs>,
        record: &Record<Self::Outputs>,
        context: &Context,
    ) -> Result<Made<Self::Outputs>, StepError>;

    /// See [`Step::undo`].
    async fn undo(
        &self,
        spec: &Self::Spec,
        record: &Record<Self::Outputs>,
        context: &Context,
    ) -> Result<UndoProgress, StepError>;
}

struct Erased<K>(K);

fn decode<T: DeserializeOwned>(what: &str, kind: &str, value: &Value) -> Result<T, StepError> {
    T::deserialize(value).map_err(|error| {
        StepError::permanent(format!("the {what} does not fit {kind}: {error}")).leaving(Residue::None)
    })
}

fn encode<T: Serialize>(kind: &str, value: &T) -> Result<Value, StepError> {
    serde_json::to_value(value).map_err(|error| {
        StepError::new(ErrorClass::Permanent, format!("the outputs of {kind} cannot be written as JSON: {error}"))
    })
}

fn typed_record<O: DeserializeOwned>(known: &Known) -> Record<O> {
    Record {
        outputs: known.outputs.as_ref().and_then(|value| O::deserialize(value).ok()),
        notes: known.notes.clone(),
        uncertain: known.uncertain,
        intended_at: known.intended_at,
    }
}

fn erase<K: StepKind>(seen: Seen<K::Outputs>) -> Result<Observation, StepError> {
    Ok(match seen {
        Seen::Absent => Observation::Absent,
        Seen::Present { outputs, ownership, differences } => {
            Observation::Present { outputs: encode(K::NAME, &outputs)?, ownership, differences }
        }
        Seen::Changing { reason, poll_in } => Observation::Changing { reason, poll_in },
        Seen::Unknown { reason } => Observation::Unknown { reason },
    })
}

fn restore<K: StepKind>(observation: &Observation) -> Result<Seen<K::Outputs>, StepError> {
    Ok(match observation {
        Observation::Absent => Seen::Absent,
        Observation::Present { outputs, ownership, differences } => Seen::Present {
            outputs: decode("observation", K::NAME, outputs)?,
            ownership: ownership.clone(),
            differences: differences.clone(),
        },
        Observation::Changing { reason, poll_in } => Seen::Changing { reason: reason.clone(), poll_in: *poll_in },
        Observation::Unknown { reason } => Seen::Unknown { reason: reason.clone() },
    })
}

#[async_trait]
impl<K: StepKind> Step for Erased<K> {
    fn spares_strangers(&self) -> bool {
        K::SPARES_STRANGERS
    }

    async fn observe(&self, spec: &Value, known: &Known, context: &Context) -> Result<Observation, StepError> {
        let spec = decode("spec", K::NAME, spec)?;
        erase::<K>(self.0.observe(&spec, &typed_record(known), context).await?)
    }

    async fn apply(
        &self,
        spec: &Value,
        observed: &Observation,
        known: &Known,
        context: &Context,
    ) -> Result<Progress, StepError> {
        let spec = decode("spec", K::NAME, spec)?;
        let seen = restore::<K>(observed)?;
        Ok(match self.0.apply(&spec, &seen, &typed_record(known), context).await? {
            Made::Done(outputs) => Progress::Done { outputs: encode(K::NAME, &outputs)? },
            Made::Waiting { reason, poll_in, budget } => Progress::Waiting { reason, poll_in, budget },
        })
    }

    async fn undo(&self, spec: &Value, known: &Known, context: &Context) -> Result<UndoProgress, StepError> {
        let spec = decode("spec", K::NAME, spec)?;
        self.0.undo(&spec, &typed_record(known), context).await
    }
}

/// Adds a kind to the catalog.
///
/// # Errors
/// When the kind's name is malformed: a mistake in this crate, reported instead of a panic.
pub fn register<K: StepKind>(catalog: &mut Catalog, kind: K) -> Result<(), platflow_engine::name::InvalidName> {
    let description = KindDescription {
        name: KindName::new(K::NAME)?,
        summary: K::SUMMARY,
        spec_schema: schemars::schema_for!(K::Spec).to_value(),
        outputs_schema: schemars::schema_for!(K::Outputs).to_value(),
        undo: K::UNDO,
        settle: K::SETTLE,
        expected: K::EXPECTED,
        holds_data: K::HOLDS_DATA,
    };
    catalog.insert(description, Arc::new(Erased(kind)));
    Ok(())
}
