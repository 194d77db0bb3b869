//! The one transition function: which event is legal in which state, and what it makes of it.
//!
//! An illegal event is an error, never a panic: on reading it means a damaged file, on writing a defect that must not
//! reach the journal.

use crate::event::{Direction, Effect, Ending, Event, Finding};
use crate::journal::Sequence;
use crate::name::StepName;
use crate::state::{OnRecord, Phase, RunState, StepState, Story, UndoMeaning};
use crate::survey::ResidueCertificate;
use jiff::Timestamp;

/// An event that cannot happen in the state it met.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event {event} is not possible for {subject} in state {state}")]
pub struct IllegalEvent {
    /// [`Event::kind`].
    pub event: &'static str,
    /// The step, or `the run`.
    pub subject: String,
    /// The state it met.
    pub state: String,
}

fn illegal(event: &Event, subject: &str, state: &str) -> IllegalEvent {
    IllegalEvent { event: event.kind(), subject: subject.to_owned(), state: state.to_owned() }
}

/// Makes the run from its first event.
///
/// # Errors
/// When the first event is another one.
pub fn start(event: &Event) -> Result<RunState, IllegalEvent> {
    let Event::RunStarted { environment, environment_uid, plan_digest, on_failure, version, at } = event else {
        return Err(illegal(event, "the run", "not started"));
    };
    Ok(RunState {
        environment: environment.clone(),
        environment_uid: environment_uid.clone(),
        plan_digest: plan_digest.clone(),
        on_failure: *on_failure,
        version: version.clone(),
        direction: Direction::Forward,
        parked: None,
        ending: None,
        was_done: false,
        destroy: false,
        epoch: 1,
        started_at: *at,
        ended_at: None,
        certificate: None,
    })
}

/// Sets the direction; a finished run can only be turned back, an undone one not at all.
fn turn(state: &mut RunState, direction: &Direction) -> bool {
    match state.ending {
        Some(Ending::RolledBack | Ending::Abandoned) => return false,
        Some(Ending::Done) if *direction == Direction::Forward => return false,
        Some(Ending::Done) => {
            state.ending = None;
            state.was_done = true;
        }
        // What is being taken down from the record has no way forward.
        None if state.destroy && *direction == Direction::Forward => return false,
        None => {}
    }
    state.direction = direction.clone();
    state.certificate = None;
    true
}

fn at_rest(state: &RunState) -> bool {
    state.ending.is_some() || state.parked.is_some()
}

fn may_end(state: &RunState, ending: Ending) -> bool {
    match ending {
        Ending::Done => !state.is_backward(),
        // Journals from before there were certificates have none; one that shows residue forbids the ending.
        Ending::RolledBack => {
            state.is_backward() && state.certificate.as_ref().is_none_or(ResidueCertificate::is_clean)
        }
        Ending::Abandoned => true,
    }
}

/// Applies a run-level event. Step events are legal only while the run is neither parked nor ended.
///
/// # Errors
/// [`IllegalEvent`].
pub fn run(state: &mut RunState, event: &Event) -> Result<(), IllegalEvent> {
    let refused = |state: &RunState| Err(illegal(event, "the run", state.status().as_str()));
    match event {
        Event::ResidueSurveyed { certificate } if state.is_backward() && !at_rest(state) => {
            state.certificate = Some(certificate.clone());
        }
        Event::RunStarted { .. } | Event::ResidueSurveyed { .. } => return refused(state),
        Event::StepRecorded { .. } => {
            if state.is_backward() || state.ending.is_some() {
                return refused(state);
            }
            state.destroy = true;
        }
        Event::OwnerChanged { epoch, .. } => {
            if *epoch <= state.epoch || matches!(state.ending, Some(Ending::RolledBack | Ending::Abandoned)) {
                return refused(state);
            }
            state.epoch = *epoch;
            state.certificate = None;
        }
        Event::DirectionSet { direction, .. } => {
            if !turn(state, direction) {
                return refused(state);
            }
        }
        Event::RunParked { reason, at } => {
            if state.ending.is_some() {
                return refused(state);
            }
            state.parked = Some(reason.clone());
            state.ended_at = Some(*at);
        }
        Event::RunResumed { .. } => {
            if state.ending.is_some() {
                return refused(state);
            }
            state.parked = None;
            state.ended_at = None;
            state.certificate = None;
        }
        Event::RunFinished { ending, at } => {
            if state.ending.is_some() || !may_end(state, *ending) {
                return refused(state);
            }
            state.parked = None;
            state.ending = Some(*ending);
            state.ended_at = Some(*at);
        }
        // Forgetting is done to a run that nobody drives: it may stand parked.
        Event::StepForgotten { .. } if state.ending.is_some() => return refused(state),
        Event::StepForgotten { .. } => {}
        Event::StepIntended { .. }
        | Event::StepNoted { .. }
        | Event::StepFound { .. }
        | Event::StepWaiting { .. }
        | Event::StepApplied { .. }
        | Event::StepVerified { .. }
        | Event::StepFailed { .. }
        | Event::StepSkipped { .. }
        | Event::UndoIntended { .. }
        | Event::UndoWaiting { .. }
        | Event::UndoFailed { .. }
        | Event::StepUndone { .. }
        | Event::StepKept { .. } => {
            if at_rest(state) {
                return refused(state);
            }
        }
    }
    Ok(())
}

/// What a new owner makes of a step: whatever was under way is unknown.
pub fn owner_changed(state: &mut StepState, at: Timestamp) -> bool {
    let next = match &state.phase {
        Phase::Intended | Phase::Waiting { .. } | Phase::Applied => Phase::Unknown,
        Phase::Undoing | Phase::UndoWaiting { .. } => Phase::UndoUnknown,
        Phase::Pending
        | Phase::Unknown
        | Phase::Verified
        | Phase::Failed { .. }
        | Phase::Skipped { .. }
        | Phase::UndoUnknown
        | Phase::UndoFailed { .. }
        | Phase::Undone { .. }
        | Phase::Kept { .. }
        | Phase::Forgotten { .. } => return false,
    };
    state.uncertain = true;
    state.changed_at = Some(at);
    state.phase = next;
    state.grounds.story = Story::Told;
    true
}

/// What a turn from backward to forward makes of a step: what was undone is made again, what was only found to be there is
/// looked for again, what was in the middle of its undo is unknown until a look.
pub fn turned_forward(state: &mut StepState) -> bool {
    let phase = match &state.phase {
        Phase::Undone { .. } if state.undo_meaning() == UndoMeaning::Remove => {
            // The generation that its tokens go on with is the record's.
            *state = StepState::default();
            return true;
        }
        Phase::Undone { .. } => {
            state.finding = None;
            state.effect = None;
            Phase::Pending
        }
        Phase::Kept { .. } if state.effect == Some(Effect::Unchanged) => {
            // It went off the record, and what it depends on may have been undone under it: what was true of it then
            // is to be looked at again.
            *state = StepState::default();
            return true;
        }
        Phase::Kept { .. } if state.effect.is_some() => Phase::Verified,
        Phase::Kept { .. } => Phase::Unknown,
        Phase::Undoing | Phase::UndoWaiting { .. } | Phase::UndoUnknown | Phase::UndoFailed { .. } => {
            state.uncertain = true;
            Phase::Unknown
        }
        Phase::Pending
        | Phase::Intended
        | Phase::Waiting { .. }
        | Phase::Applied
        | Phase::Unknown
        | Phase::Verified
        | Phase::Failed { .. }
        | Phase::Skipped { .. }
        | Phase::Forgotten { .. } => return false,
    };
    state.phase = phase;
    state.undo_attempt = 0;
    state.failing_since = None;
    state.failures = 0;
    state.grounds.story = Story::Told;
    true
}

fn under_way(phase: &Phase) -> bool {
    matches!(phase, Phase::Intended | Phase::Waiting { .. } | Phase::Applied)
}

fn undo_under_way(phase: &Phase) -> bool {
    matches!(phase, Phase::Undoing | Phase::UndoWaiting { .. })
}

fn may_be_undone(phase: &Phase) -> bool {
    matches!(
        phase,
        Phase::Verified
            | Phase::Failed { .. }
            | Phase::Unknown
            | Phase::Intended
            | Phase::Waiting { .. }
            | Phase::Applied
            | Phase::UndoUnknown
            | Phase::UndoFailed { .. }
    )
}

/// Applies a step event, which stands at `sequence` in the journal.
///
/// # Errors
/// [`IllegalEvent`].
pub fn step(name: &StepName, state: &mut StepState, event: &Event, sequence: Sequence) -> Result<(), IllegalEvent> {
    let fine = match event {
        Event::StepRecorded { .. } => matches!(state.phase, Phase::Pending),
        Event::StepIntended { .. } => {
            matches!(state.phase, Phase::Pending | Phase::Failed { .. } | Phase::Unknown | Phase::Forgotten { .. })
        }
        Event::StepNoted { .. } => under_way(&state.phase) || undo_under_way(&state.phase),
        Event::StepFound { .. }
        | Event::StepWaiting { .. }
        | Event::StepApplied { .. }
        | Event::StepVerified { .. } => under_way(&state.phase),
        Event::StepFailed { .. } => under_way(&state.phase) || matches!(state.phase, Phase::Pending),
        Event::StepSkipped { .. } => matches!(state.phase, Phase::Pending),
        Event::UndoIntended { .. } => may_be_undone(&state.phase),
        Event::UndoWaiting { .. } | Event::UndoFailed { .. } => undo_under_way(&state.phase),
        Event::StepUndone { .. } => undo_under_way(&state.phase) || may_be_undone(&state.phase),
        Event::StepKept { .. } => may_be_undone(&state.phase),
        Event::StepForgotten { .. } => !under_way(&state.phase) && !undo_under_way(&state.phase),
        Event::RunStarted { .. }
        | Event::OwnerChanged { .. }
        | Event::DirectionSet { .. }
        | Event::ResidueSurveyed { .. }
        | Event::RunParked { .. }
        | Event::RunResumed { .. }
        | Event::RunFinished { .. } => false,
    };
    if !fine {
        return Err(illegal(event, name.as_str(), state.phase.name()));
    }
    let story = story(state, event);
    advance(state, event);
    ground(state, event, sequence);
    state.grounds.story = story;
    state.on_record = on_record(state, event);
    Ok(())
}

/// How much there is to tell once the event is folded in.
fn story(state: &StepState, event: &Event) -> Story {
    match (state.grounds.story, &state.phase, event) {
        (Story::Untold, Phase::Pending, Event::StepIntended { .. })
        | (Story::Plain, Phase::Intended, Event::StepVerified { .. }) => Story::Plain,
        // The state is made anew, with more to it than an untold one has.
        _ => Story::Told,
    }
}

/// Takes note of where the larger parts of the state are written.
fn ground(state: &mut StepState, event: &Event, sequence: Sequence) {
    match event {
        Event::StepIntended { .. } => state.grounds.intent = sequence,
        Event::StepApplied { .. } | Event::StepVerified { .. } => state.grounds.outcome = sequence,
        Event::StepRecorded { .. } => {
            state.grounds.intent = sequence;
            state.grounds.outcome = sequence;
        }
        _ => {}
    }
}

/// What the record of the step is made of, now that the event is folded in.
fn on_record(state: &StepState, event: &Event) -> OnRecord {
    match event {
        Event::StepIntended { .. } | Event::StepNoted { .. } | Event::StepFound { .. } => OnRecord::Unsettled,
        Event::StepVerified { .. } => OnRecord::Settled,
        Event::StepForgotten { .. } => OnRecord::No,
        Event::StepUndone { .. } => match (state.undo_meaning(), &state.prior) {
            (UndoMeaning::Remove, _) => OnRecord::No,
            (UndoMeaning::Restore | UndoMeaning::Keep, Some(_)) => OnRecord::Restored,
            (UndoMeaning::Restore | UndoMeaning::Keep, None) => state.on_record,
        },
        // Nothing was done to it: the record goes back to what it said, also where it said nothing. What was made or
        // changed and is kept stays as it is.
        Event::StepKept { .. } => match &state.prior {
            Some(_) if state.finding.is_none() => OnRecord::Restored,
            None if state.effect == Some(Effect::Unchanged) => OnRecord::No,
            _ => state.on_record,
        },
        _ => state.on_record,
    }
}

fn advance(state: &mut StepState, event: &Event) {
    match event {
        Event::StepRecorded { generation, spec, outputs, .. } => {
            state.generation = *generation;
            state.spec = Some(spec.clone());
            state.outputs = Some(outputs.clone()).filter(|outputs| !outputs.is_null());
            state.recorded = true;
            state.phase = Phase::Verified;
        }
        Event::StepIntended { attempt, generation, spec, prior, at, .. } => {
            state.attempt = *attempt;
            state.generation = *generation;
            state.spec = Some(spec.clone());
            state.prior.clone_from(prior);
            state.intended_at = state.intended_at.or(Some(*at));
            state.changed_at = Some(*at);
            state.phase = Phase::Intended;
        }
        Event::StepNoted { key, value, .. } => {
            state.notes.insert(key.clone(), value.clone());
        }
        Event::StepFound { finding, .. } => {
            // What is recorded but gone must not be answered from the old resource's idempotency tokens.
            if *finding == Finding::Missing {
                state.generation = state.generation.saturating_add(1);
                state.broken = false;
            }
            state.finding = Some(finding.clone());
        }
        Event::StepWaiting { reason, poll_at, deadline, .. } => {
            state.phase = Phase::Waiting { reason: reason.clone(), poll_at: *poll_at, deadline: *deadline };
        }
        Event::StepApplied { outputs, .. } => {
            state.outputs = Some(outputs.clone());
            state.phase = Phase::Applied;
        }
        Event::StepVerified { outputs, effect, at, .. } => {
            state.outputs = Some(outputs.clone());
            state.effect = Some(*effect);
            state.uncertain = false;
            state.broken = false;
            state.failing_since = None;
            state.failures = 0;
            state.changed_at = Some(*at);
            state.phase = Phase::Verified;
        }
        Event::StepFailed { error, retry_at, at, .. } => {
            fail(state, error.residue, *at);
            // Whoever goes on after another failure still finds the broken thing there.
            state.broken |= error.terminal;
            state.phase = Phase::Failed { error: error.clone(), retry_at: *retry_at };
        }
        Event::StepSkipped { reason, .. } => state.phase = Phase::Skipped { reason: reason.clone() },
        Event::UndoIntended { .. }
        | Event::UndoWaiting { .. }
        | Event::UndoFailed { .. }
        | Event::StepUndone { .. }
        | Event::StepKept { .. }
        | Event::StepForgotten { .. } => advance_backward(state, event),
        Event::RunStarted { .. }
        | Event::OwnerChanged { .. }
        | Event::DirectionSet { .. }
        | Event::ResidueSurveyed { .. }
        | Event::RunParked { .. }
        | Event::RunResumed { .. }
        | Event::RunFinished { .. } => {}
    }
}

fn advance_backward(state: &mut StepState, event: &Event) {
    match event {
        Event::UndoFailed { error, retry_at, at, .. } => {
            fail(state, error.residue, *at);
            state.phase = Phase::UndoFailed { error: error.clone(), retry_at: *retry_at };
        }
        Event::UndoIntended { attempt, at, .. } => {
            if state.undo_attempt == 0 {
                state.failing_since = None;
                state.failures = 0;
            }
            state.undo_attempt = *attempt;
            state.changed_at = Some(*at);
            state.phase = Phase::Undoing;
        }
        Event::UndoWaiting { reason, poll_at, deadline, .. } => {
            state.phase = Phase::UndoWaiting { reason: reason.clone(), poll_at: *poll_at, deadline: *deadline };
        }
        Event::StepUndone { evidence, at, .. } => {
            state.uncertain = false;
            state.changed_at = Some(*at);
            state.phase = Phase::Undone { evidence: evidence.clone() };
        }
        Event::StepKept { reason, .. } => state.phase = Phase::Kept { reason: reason.clone() },
        Event::StepForgotten { by, at, .. } => {
            // What exists must not be answered from by the tokens of a new one.
            *state = StepState {
                generation: state.generation.saturating_add(1),
                changed_at: Some(*at),
                phase: Phase::Forgotten { by: by.clone() },
                ..StepState::default()
            };
        }
        Event::StepRecorded { .. }
        | Event::StepIntended { .. }
        | Event::StepNoted { .. }
        | Event::StepFound { .. }
        | Event::StepWaiting { .. }
        | Event::StepApplied { .. }
        | Event::StepVerified { .. }
        | Event::StepFailed { .. }
        | Event::StepSkipped { .. }
        | Event::RunStarted { .. }
        | Event::OwnerChanged { .. }
        | Event::DirectionSet { .. }
        | Event::ResidueSurveyed { .. }
        | Event::RunParked { .. }
        | Event::RunResumed { .. }
        | Event::RunFinished { .. } => {}
    }
}

fn fail(state: &mut StepState, residue: crate::failure::Residue, at: Timestamp) {
    state.failing_since = state.failing_since.or(Some(at));
    state.failures = state.failures.saturating_add(1);
    state.changed_at = Some(at);
    match residue {
        // Something present whose id nobody noted may still be missing from the next look.
        crate::failure::Residue::Unknown | crate::failure::Residue::Present => state.uncertain = true,
        // "None" speaks of the failed call only; an earlier uncertain one stays uncertain until a look settles it.
        crate::failure::Residue::None => {}
    }
}
