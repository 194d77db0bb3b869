//! Looking at steps without a run: what `observe` is told, and a context that refuses every mutation before it is sent.
//!
//! Used by `plan` and `drift`, which decide what an answer means.

use async_trait::async_trait;
use platflow_engine::context::{Context, StepGuard};
use platflow_engine::drive::Engine;
use platflow_engine::failure::{Residue, StepError};
use platflow_engine::journal::RecordedStep;
use platflow_engine::name::{EnvironmentName, EnvironmentUid, RunId, StepName};
use platflow_engine::step::Known;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Refuses every mutation: `begin` of a context over it fails before anything is sent.
struct ReadOnly;

#[async_trait]
impl StepGuard for ReadOnly {
    /// A look has no journal; nothing that is noted outlives it.
    async fn note(&self, _step: &StepName, _key: &str, _value: Value) -> Result<(), StepError> {
        Ok(())
    }
    fn lease_left(&self) -> Result<Duration, StepError> {
        Err(StepError::permanent("a look changes nothing").leaving(Residue::None))
    }
}

/// Who looks, and at which environment.
pub(crate) struct Looker<'a> {
    /// Its kinds and its clock.
    pub(crate) engine: &'a Engine,
    /// The environment.
    pub(crate) environment: EnvironmentName,
    /// Its uid, or the one that it would get.
    pub(crate) uid: EnvironmentUid,
    /// The id of no run on record.
    pub(crate) run: RunId,
}

impl Looker<'_> {
    /// What is known of a step before it is looked at.
    pub(crate) fn known(recorded: Option<&RecordedStep>) -> Known {
        Known {
            outputs: recorded.and_then(|row| row.outputs.clone()),
            notes: recorded.map(|row| row.notes.clone()).unwrap_or_default(),
            uncertain: recorded.is_some_and(|row| !row.settled),
            intended_at: None,
        }
    }

    /// The context of a look at a step.
    pub(crate) fn context(&self, step: &StepName, recorded: Option<&RecordedStep>) -> Context {
        Context {
            step: step.clone(),
            run: self.run.clone(),
            environment: self.environment.clone(),
            environment_uid: self.uid.clone(),
            attempt: 1,
            generation: recorded.map_or(0, |row| row.generation),
            clock: Arc::clone(&self.engine.clock),
            cancelled: CancellationToken::new(),
            guard: Arc::new(ReadOnly),
        }
    }
}
