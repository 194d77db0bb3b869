//! What a run amounts to, as a function of the states of its steps: the exit code, and what is left where.

use crate::event::{Direction, Effect, Ending, ParkReason};
use crate::fold::Run;
use crate::name::StepName;
use crate::state::Phase;
use std::collections::BTreeMap;

/// Done, or a rollback or destroy that was asked for and is complete.
pub const DONE: u8 = 0;
/// Failed and rolled back completely.
pub const ROLLED_BACK: u8 = 4;
/// Failed, parked or abandoned by its process; resources remain; resumable.
pub const RESUMABLE: u8 = 5;
/// A human must decide.
pub const STUCK: u8 = 6;
/// Interrupted; resumable.
pub const INTERRUPTED: u8 = 130;

/// The exit code that a command about this run ends with.
#[must_use]
pub fn exit_code(run: &Run) -> u8 {
    match (run.state.ending, &run.state.parked) {
        (Some(Ending::Done | Ending::Abandoned), _) => DONE,
        (Some(Ending::RolledBack), _) => match &run.state.direction {
            Direction::Backward { cause, .. } if cause == "on-failure" => ROLLED_BACK,
            Direction::Backward { .. } | Direction::Forward => DONE,
        },
        (None, Some(ParkReason::NeedsHuman { .. })) => STUCK,
        (None, Some(ParkReason::RolledBackTo { .. })) => DONE,
        (None, Some(ParkReason::Interrupted)) => INTERRUPTED,
        (None, Some(ParkReason::StepFailed { .. } | ParkReason::Waiting { .. }) | None) => RESUMABLE,
    }
}

/// What a run did and left, step by step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many steps stand in each state, by its name.
    pub states: BTreeMap<&'static str, usize>,
    /// What this run created and has not taken away.
    pub created: Vec<StepName>,
    /// What it changed in place and has not put back.
    pub changed: Vec<StepName>,
    /// What was there and right.
    pub unchanged: Vec<StepName>,
    /// What it left in place on purpose.
    pub kept: Vec<StepName>,
    /// What the operator had struck off the record.
    pub forgotten: Vec<StepName>,
    /// What it undid.
    pub undone: Vec<StepName>,
    /// What failed, forward or backward.
    pub failed: Vec<StepName>,
    /// Where nobody knows what is there until somebody looks.
    pub unknown: Vec<StepName>,
}

/// See [`Summary`].
#[must_use]
pub fn summary(run: &Run) -> Summary {
    let mut summary = Summary::default();
    for (step, state) in run.steps() {
        *summary.states.entry(state.phase.name()).or_default() += 1;
        let list = match &state.phase {
            Phase::Pending | Phase::Skipped { .. } => continue,
            Phase::Verified => match state.effect {
                Some(Effect::Changed) => &mut summary.changed,
                Some(Effect::Unchanged) => &mut summary.unchanged,
                Some(Effect::Created) | None => &mut summary.created,
            },
            Phase::Failed { .. } | Phase::UndoFailed { .. } => &mut summary.failed,
            Phase::Undone { .. } => &mut summary.undone,
            Phase::Kept { .. } => &mut summary.kept,
            Phase::Forgotten { .. } => &mut summary.forgotten,
            Phase::Intended
            | Phase::Waiting { .. }
            | Phase::Applied
            | Phase::Unknown
            | Phase::Undoing
            | Phase::UndoWaiting { .. }
            | Phase::UndoUnknown => &mut summary.unknown,
        };
        list.push(step.name.clone());
    }
    summary
}
