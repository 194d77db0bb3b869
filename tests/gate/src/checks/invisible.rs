//! A kind that the model world has not: its creation is accepted, has no id and no token, and shows only after a while.

use super::{block_on, ensure, said};
use crate::battery::Case;
use async_trait::async_trait;
use jiff::Timestamp;
use platflow_engine::clock::{Clock, after};
use platflow_engine::context::Context;
use platflow_engine::drive::DriveOutcome;
use platflow_engine::event::Ending;
use platflow_engine::failure::StepError;
use platflow_engine::kind::{KindDescription, UndoDefault};
use platflow_engine::model::clock::SimulatedClock;
use platflow_engine::model::generate::{self, step};
use platflow_engine::model::kinds::Habit;
use platflow_engine::model::sweep::run_id;
use platflow_engine::model::trial::{End, Trial};
use platflow_engine::name::KindName;
use platflow_engine::plan::OnFailure;
use platflow_engine::step::{Known, Observation, Ownership, Progress, Step, UndoProgress};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long what was made does not show.
const HIDDEN: Duration = Duration::from_secs(40);
/// How long an absence is not believed after a call was accepted.
const SETTLE: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Hidden {
    clock: Arc<SimulatedClock>,
    made: Mutex<Vec<Timestamp>>,
}

impl Hidden {
    fn made(&self) -> Vec<Timestamp> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl Step for Hidden {
    async fn observe(&self, _spec: &Value, _known: &Known, _context: &Context) -> Result<Observation, StepError> {
        let shows = self.made().iter().any(|made| after(*made, HIDDEN) <= self.clock.now());
        if !shows {
            return Ok(Observation::Absent);
        }
        Ok(Observation::Present { outputs: json!({}), ownership: Ownership::Ours, differences: Vec::new() })
    }

    async fn apply(
        &self,
        _spec: &Value,
        _observed: &Observation,
        _known: &Known,
        context: &Context,
    ) -> Result<Progress, StepError> {
        context.begin("create")?;
        self.made.lock().unwrap_or_else(PoisonError::into_inner).push(self.clock.now());
        let (poll_in, budget) = (Duration::from_secs(5), Duration::from_secs(600));
        Ok(Progress::Waiting { reason: "accepted".to_owned(), poll_in, budget })
    }

    async fn undo(&self, _spec: &Value, _known: &Known, context: &Context) -> Result<UndoProgress, StepError> {
        context.begin("delete")?;
        self.made.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(UndoProgress::Gone { evidence: "deleted".to_owned() })
    }
}

async fn made_once() -> Result<(), String> {
    let mut trial = Trial::new(&generate::habits().map_err(said)?, false).map_err(said)?;
    let kind = Arc::new(Hidden { clock: Arc::clone(&trial.world.clock), made: Mutex::default() });
    let name = KindName::new("model.hidden").map_err(said)?;
    let description = KindDescription {
        name: name.clone(),
        summary: "a resource that shows late",
        spec_schema: json!({}),
        outputs_schema: json!({}),
        undo: UndoDefault::Own,
        settle: SETTLE,
        expected: HIDDEN,
        holds_data: false,
    };
    trial.engine.catalog.insert(description, Arc::clone(&kind) as Arc<dyn Step>);
    let mut only = step("only", Habit::Plain, json!({}), &[]).map_err(said)?;
    only.kind = name;
    let plan = generate::plan(vec![only]).map_err(said)?;
    let id = run_id().map_err(said)?;
    let end = trial.run(&id, &plan, OnFailure::Park).await.map_err(said)?;
    ensure(end == End::Outcome(DriveOutcome::Finished(Ending::Done)), || format!("it ended as {end:?}"))?;
    let made = kind.made().len();
    ensure(made == 1, || format!("what did not show yet was made {made} times"))
}

/// The cases.
#[must_use]
pub fn cases() -> Vec<Case> {
    vec![Case::new("what shows late is made once", || block_on(made_once()))]
}
