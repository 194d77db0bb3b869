//! What a rollback would do, before anything is done: the decider itself, run against a copy of the folded run.
//!
//! It looks at nothing but the journal. Every action it lists is one that the drive would perform, in an order it could
//! perform it; steps in the same round do not wait for each other.

use crate::clock::after;
use crate::decide::{Action, Decider};
use crate::event::{Direction, Event, ParkReason};
use crate::fold::{FoldError, Run};
use crate::graph::StepIndex;
use crate::name::{KindName, StepName};
use crate::state::UndoMeaning;
use jiff::Timestamp;
use serde::Serialize;
use std::time::Duration;

/// What would become of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Fate {
    /// Taken away.
    Remove,
    /// Put back as it was before the run.
    Restore,
    /// Gone when that step's resource is.
    GoneWith {
        /// That step.
        with: StepName,
    },
    /// Left in place.
    Keep {
        /// Why.
        reason: String,
    },
}

/// One line of the preview.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Foreseen {
    /// The step.
    pub step: StepName,
    /// Its kind.
    pub kind: KindName,
    /// From 1: steps of one round may be undone at the same time.
    pub round: usize,
    /// What would become of it.
    #[serde(flatten)]
    pub fate: Fate,
    /// Data that cannot be rebuilt would die with it.
    pub destroys_data: bool,
}

/// What a rollback would do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Preview {
    /// Step by step, in order.
    pub steps: Vec<Foreseen>,
    /// Why it would stop before it began: it wants a confirmation, or something cannot be undone.
    pub refusal: Option<ParkReason>,
}

impl Preview {
    /// True when the rollback would change something.
    #[must_use]
    pub fn changes_something(&self) -> bool {
        self.steps.iter().any(|step| !matches!(step.fate, Fate::Keep { .. }))
    }

    /// What would be taken away and holds data that cannot be rebuilt.
    pub fn data(&self) -> impl Iterator<Item = &Foreseen> {
        self.steps.iter().filter(|step| step.destroys_data)
    }
}

/// Foresees the rollback of `run` in `direction`. `holds_data` as for the decider.
///
/// # Errors
/// When the run has ended in a way that cannot be turned back.
pub fn preview(run: &Run, direction: Direction, holds_data: &dyn Fn(StepIndex) -> bool) -> Result<Preview, FoldError> {
    let mut run = run.clone();
    let at = run.state.ended_at.unwrap_or(run.state.started_at);
    run.apply(&Event::DirectionSet { direction, at })?;
    if run.state.parked.is_some() {
        run.apply(&Event::RunResumed { at })?;
    }
    let mut decider = Decider::new(&run, holds_data);
    let mut preview = Preview::default();
    for round in 1..=run.graph.len() + 2 {
        let actions = decider.next(&run, usize::MAX, 0);
        let mut moved = false;
        for action in actions {
            match action {
                Action::Park(reason @ ParkReason::NeedsHuman { .. }) if preview.refusal.is_none() && round == 1 => {
                    preview.refusal = Some(reason);
                    moved = true;
                }
                Action::Park(_) | Action::Finish(_) | Action::TurnBack | Action::Begin(_) => {}
                Action::Undo(index, meaning) => {
                    let fate = if meaning == UndoMeaning::Restore { Fate::Restore } else { Fate::Remove };
                    let data = fate == Fate::Remove && holds_data(index);
                    moved |= foresee(&mut preview, &mut run, &mut decider, (index, round, fate, data))?;
                }
                Action::Keep(index, reason) => {
                    moved |=
                        foresee(&mut preview, &mut run, &mut decider, (index, round, Fate::Keep { reason }, false))?;
                }
                Action::GoneWith(index, with) => {
                    let data = holds_data(index);
                    moved |=
                        foresee(&mut preview, &mut run, &mut decider, (index, round, Fate::GoneWith { with }, data))?;
                }
                Action::Nothing(index) => {
                    settle(&mut run, &mut decider, index, None)?;
                    moved = true;
                }
            }
        }
        if !moved {
            break;
        }
    }
    Ok(preview)
}

fn foresee(
    preview: &mut Preview,
    run: &mut Run,
    decider: &mut Decider,
    (index, round, fate, destroys_data): (StepIndex, usize, Fate, bool),
) -> Result<bool, FoldError> {
    let Some(step) = run.graph.step(index).cloned() else { return Ok(false) };
    let reason = if let Fate::Keep { reason } = &fate { Some(reason.clone()) } else { None };
    preview.steps.push(Foreseen { step: step.name, kind: step.kind, round, fate, destroys_data });
    settle(run, decider, index, reason)?;
    Ok(true)
}

/// The copy of the run takes the step as undone, or as kept.
fn settle(run: &mut Run, decider: &mut Decider, index: StepIndex, kept: Option<String>) -> Result<(), FoldError> {
    let Some(step) = run.graph.step(index).map(|step| step.name.clone()) else { return Ok(()) };
    let at: Timestamp = after(run.state.started_at, Duration::ZERO);
    run.apply(&match kept {
        Some(reason) => Event::StepKept { step, reason },
        None => Event::StepUndone { step, evidence: "foreseen".to_owned(), at },
    })?;
    decider.changed(run, index);
    Ok(())
}
