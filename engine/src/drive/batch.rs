//! Makes the atomic batch of events, rows and record changes: the fold and the journal are written from one place.
//!
//! It interprets events for the environment's record and nothing else.

use crate::event::{Effect, Event, Finding};
use crate::fold::{self, Changed, FoldError, Run};
use crate::graph::StepIndex;
use crate::journal::{Batch, RecordChange, RecordedStep};
use crate::state::{StepState, UndoMeaning};
use serde_json::Value;
use std::collections::BTreeSet;

/// Collects what one append writes.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    events: Vec<Event>,
    batch: Batch,
    steps: BTreeSet<StepIndex>,
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
        for index in &indices {
            self.steps.insert(*index);
            self.record(run, *index, &event);
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

    fn record(&mut self, run: &Run, index: StepIndex, event: &Event) {
        let Some(state) = run.at(index) else { return };
        let change = match event {
            Event::StepIntended { .. } | Event::StepNoted { .. } | Event::StepFound { .. } => {
                let prior = state.prior.as_ref().filter(|_| state.finding != Some(Finding::Missing));
                let outputs = state.outputs.clone().or_else(|| prior.map(|prior| prior.outputs.clone()));
                put(run, index, state, state.spec.clone(), outputs, false)
            }
            Event::StepVerified { .. } => put(run, index, state, state.spec.clone(), state.outputs.clone(), true),
            Event::StepUndone { .. } => match (state.undo_meaning(), &state.prior) {
                (UndoMeaning::Restore | UndoMeaning::Keep, Some(prior)) => {
                    put(run, index, state, Some(prior.spec.clone()), Some(prior.outputs.clone()), true)
                }
                (UndoMeaning::Restore | UndoMeaning::Keep, None) => None,
                (UndoMeaning::Remove, _) => run.graph.step(index).map(|step| RecordChange::Gone {
                    step: step.name.clone(),
                    next_generation: state.generation.saturating_add(1),
                }),
            },
            Event::StepForgotten { .. } => run
                .graph
                .step(index)
                .map(|step| RecordChange::Forgotten { step: step.name.clone(), next_generation: state.generation }),
            Event::StepKept { .. } => kept(run, index, state),
            _ => None,
        };
        self.batch.record.extend(change);
    }
}

/// Nothing was done to it: the record goes back to what it said, also where it said nothing. What was made or changed and
/// is kept stays as it is.
fn kept(run: &Run, index: StepIndex, state: &StepState) -> Option<RecordChange> {
    match &state.prior {
        Some(prior) if state.finding.is_none() => {
            put(run, index, state, Some(prior.spec.clone()), Some(prior.outputs.clone()), true)
        }
        None if state.effect == Some(Effect::Unchanged) => run
            .graph
            .step(index)
            .map(|step| RecordChange::Gone { step: step.name.clone(), next_generation: state.generation }),
        _ => None,
    }
}

fn put(
    run: &Run,
    index: StepIndex,
    state: &StepState,
    spec: Option<Value>,
    outputs: Option<Value>,
    settled: bool,
) -> Option<RecordChange> {
    let step = run.graph.step(index)?;
    Some(RecordChange::Put(Box::new(RecordedStep {
        step: step.name.clone(),
        kind: step.kind.clone(),
        spec: spec.unwrap_or(Value::Null),
        outputs,
        notes: state.notes.clone(),
        generation: state.generation,
        settled,
        needs: step.needs.clone(),
        undo_after: step.undo_after.clone(),
        undo: step.undo.clone(),
        run: run.id.clone(),
    })))
}
