//! Makes the atomic batch of events, rows and record changes: the fold and the journal are written from one place.
//!
//! It interprets events for the environment's record and nothing else.

use crate::event::{Effect, Event};
use crate::fold::{self, Changed, FoldError, Run};
use crate::graph::StepIndex;
use crate::journal::{Batch, RecordChange};
use crate::plan::PlannedStep;
use crate::state::{OnRecord, StepState, UndoMeaning};

/// Collects what one append writes.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    events: Vec<Event>,
    batch: Batch,
    steps: Vec<StepIndex>,
    run_changed: bool,
}

impl Builder {
    /// The first event, which made the run.
    pub(crate) fn first(&mut self, event: Event) -> Result<(), FoldError> {
        self.batch.events.push(fold::encode(&event)?);
        self.events.push(event);
        self.run_changed = true;
        Ok(())
    }

    /// Folds an event into the run and takes it into the batch; returns the steps it changed.
    pub(crate) fn apply(&mut self, run: &mut Run, event: Event) -> Result<Vec<StepIndex>, FoldError> {
        let named = event.step().and_then(|step| run.graph.find(step));
        let before = named.and_then(|index| run.at(index)).map(|state| state.on_record).unwrap_or_default();
        let changed = run.apply(&event)?;
        self.batch.events.push(fold::encode(&event)?);
        let indices = match changed {
            Changed::Run => {
                self.run_changed = true;
                Vec::new()
            }
            Changed::Step(index) => vec![index],
            Changed::Steps(indices) => {
                self.run_changed = true;
                indices
            }
        };
        if matches!(event, Event::StepRecorded { .. }) {
            self.run_changed = true;
        }
        self.steps.extend(&indices);
        if let Some(index) = named {
            self.record(run, index, before, &event);
        }
        self.events.push(event);
        Ok(indices)
    }

    /// True when there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The batch, with the rows of everything that changed, and its events.
    pub(crate) fn finish(mut self, run: &Run) -> Result<(Batch, Vec<Event>), FoldError> {
        self.steps.sort_unstable();
        self.steps.dedup();
        for index in &self.steps {
            if let Some(row) = run.row(*index)? {
                self.batch.steps.push(row);
            }
        }
        if self.run_changed {
            let status = run.state.status();
            self.batch.run_payload = Some(run.payload()?);
            self.batch.status = Some(status);
            self.batch.releases_environment = status.is_final();
        }
        Ok((self.batch, self.events))
    }

    fn record(&mut self, run: &Run, index: StepIndex, before: OnRecord, event: &Event) {
        let (Some(step), Some(state)) = (run.graph.step(index), run.at(index)) else { return };
        let name = || step.name.clone();
        let change = match (event, state.on_record) {
            (Event::StepForgotten { .. }, _) => {
                Some(RecordChange::Forgotten { step: name(), next_generation: state.generation })
            }
            (Event::StepUndone { .. }, OnRecord::No) if state.undo_meaning() == UndoMeaning::Remove => {
                let next_generation = state.generation.saturating_add(1);
                Some(RecordChange::Gone { step: name(), next_generation })
            }
            (Event::StepKept { .. }, OnRecord::No) if state.effect == Some(Effect::Unchanged) => {
                Some(RecordChange::Gone { step: name(), next_generation: state.generation })
            }
            (Event::StepUndone { .. } | Event::StepKept { .. }, OnRecord::Restored) => restored(run, step, state),
            // Another run may have had it meanwhile: whoever is about to touch the thing has its record again.
            (_, OnRecord::Unsettled) if before != OnRecord::Unsettled => Some(RecordChange::Own { step: name() }),
            (_, OnRecord::Settled) if !before.is_own() => Some(RecordChange::Own { step: name() }),
            _ => None,
        };
        self.batch.record.extend(change);
    }
}

/// What was on record before the run touched it.
fn restored(run: &Run, step: &PlannedStep, state: &StepState) -> Option<RecordChange> {
    let prior = state.prior.as_ref()?;
    let mut row = fold::record_of(&run.id, step, state);
    row.spec = prior.spec.clone();
    row.outputs = Some(prior.outputs.clone());
    row.settled = true;
    Some(RecordChange::Put(Box::new(row)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Direction;
    use crate::model::generate;
    use crate::model::kinds::Habit;
    use crate::name::{EnvironmentName, EnvironmentUid, RunId, StepName};
    use crate::plan::OnFailure;
    use jiff::Timestamp;
    use serde_json::json;
    use std::sync::Arc;

    /// What one event alone changes of the record.
    fn change(run: &mut Run, event: Event) -> Vec<RecordChange> {
        let mut builder = Builder::default();
        builder.apply(run, event).unwrap();
        builder.finish(run).unwrap().0.record
    }

    /// Proves when the record of a step becomes the state of this run: at the first intent, not again at its outcome, and
    /// again as soon as an undo is about to touch what another run may have had on record meanwhile.
    #[test]
    fn whoever_is_about_to_touch_a_thing_has_its_record() {
        let step = StepName::new("a").unwrap();
        let at = Timestamp::UNIX_EPOCH;
        let plan = generate::plan(vec![generate::step("a", Habit::ALL[0], json!({}), &[]).unwrap()]).unwrap();
        let first = Event::RunStarted {
            environment: EnvironmentName::new("e").unwrap(),
            environment_uid: EnvironmentUid::new("u").unwrap(),
            plan_digest: String::new(),
            on_failure: OnFailure::Park,
            version: String::new(),
            at,
        };
        let mut run = Run::begin(RunId::new("r").unwrap(), Arc::new(plan), &first).unwrap();
        let intended =
            Event::StepIntended { step: step.clone(), attempt: 1, generation: 0, spec: json!({}), prior: None, at };
        let verified = Event::StepVerified { step: step.clone(), outputs: json!({}), effect: Effect::Created, at };
        let backward = Event::DirectionSet { direction: Direction::backward("operator", true, Vec::new()), at };
        let undo = Event::UndoIntended { step: step.clone(), attempt: 1, at };
        let noted = |key: &str| Event::StepNoted { step: step.clone(), key: key.to_owned(), value: json!(1) };
        let undone = Event::StepUndone { step: step.clone(), evidence: String::new(), at };
        let own = vec![RecordChange::Own { step: step.clone() }];
        for (event, wanted) in [
            (intended, own.clone()),
            (verified, Vec::new()),
            (backward, Vec::new()),
            (undo, Vec::new()),
            (noted("one"), own),
            (noted("two"), Vec::new()),
            (undone, vec![RecordChange::Gone { step: step.clone(), next_generation: 1 }]),
        ] {
            let kind = event.kind();
            assert_eq!(change(&mut run, event), wanted, "{kind}");
        }
    }
}
