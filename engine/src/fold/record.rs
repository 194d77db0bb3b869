//! The environment's record of a step, read from the folded state of the step in the run that touched it last.

use super::{FoldError, stored};
use crate::event::Finding;
use crate::journal::{JournalError, RecordRow, RecordedStep};
use crate::name::RunId;
use crate::plan::PlannedStep;
use crate::state::{OnRecord, StepState};
use serde_json::Value;

/// What is on record of a step whose record is its state in this run.
#[must_use]
pub fn record_of(run: &RunId, planned: &PlannedStep, state: &StepState) -> RecordedStep {
    // What it had before is still true of it, unless it was found to be gone.
    let prior = state.prior.as_ref().filter(|_| state.finding != Some(Finding::Missing));
    let outputs = state.outputs.clone().or_else(|| prior.map(|prior| prior.outputs.clone()));
    RecordedStep {
        step: planned.name.clone(),
        kind: planned.kind.clone(),
        spec: state.spec.clone().unwrap_or(Value::Null),
        outputs,
        notes: state.notes.clone(),
        generation: state.generation,
        settled: state.on_record == OnRecord::Settled,
        needs: planned.needs.clone(),
        undo_after: planned.undo_after.clone(),
        undo: planned.undo.clone(),
        run: run.clone(),
    }
}

/// Reads a row of the record.
///
/// # Errors
/// [`JournalError::Damaged`] where a state cannot be read.
pub fn recorded(row: RecordRow) -> Result<RecordedStep, JournalError> {
    match row {
        RecordRow::Explicit(step) => Ok(*step),
        RecordRow::Own { run, planned, row } => {
            let damaged = |error: FoldError| {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
                JournalError::Damaged(format!("what is on record of {} in run {run}: {error}{cause}", row.step))
            };
            let state = stored::state(&row).map_err(damaged)?;
            Ok(record_of(&run, &planned, &state))
        }
    }
}
