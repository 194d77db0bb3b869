//! How events and folded states look in the store: nothing is written twice.
//!
//! An event's kind and step stand in columns of their own, so its payload leaves them out. A folded state leaves out what
//! the events tell that it names. What earlier versions wrote in full is read as well.

use super::FoldError;
use crate::event::Event;
use crate::journal::{EncodedEvent, LoadedStep, StoredEvent};
use crate::name::StepName;
use crate::state::{Grounds, StepState, Story};
use crate::transition;
use serde_json::Value;

fn malformed(what: impl Into<String>) -> impl FnOnce(serde_json::Error) -> FoldError {
    let what = what.into();
    move |source| FoldError::Malformed { what, source }
}

/// The beginning of an event's JSON: what the columns say.
fn head(kind: &str, step: Option<&str>) -> String {
    match step {
        Some(step) => format!("{{\"event\":\"{kind}\",\"step\":\"{step}\""),
        None => format!("{{\"event\":\"{kind}\""),
    }
}

/// Writes an event for the store.
///
/// # Errors
/// Only if it cannot be written as JSON.
pub fn encode(event: &Event) -> Result<EncodedEvent, FoldError> {
    let whole = serde_json::to_vec(event).map_err(malformed(format!("a new event {}", event.kind())))?;
    let head = head(event.kind(), event.step().map(StepName::as_str));
    let payload = match whole.strip_prefix(head.as_bytes()) {
        // Names need no escapes in JSON, so this is every event.
        Some([b',', rest @ ..]) => [b"{", rest].concat(),
        Some(rest) => [b"{", rest].concat(),
        None => whole,
    };
    Ok(EncodedEvent { kind: event.kind(), step: event.step().cloned(), payload })
}

/// Reads an event back.
///
/// # Errors
/// When it is not an event of this version.
pub fn decode(stored: &StoredEvent) -> Result<Event, FoldError> {
    let failed = malformed(format!("event {}", stored.sequence));
    let rest = match stored.payload.as_slice() {
        whole if whole.starts_with(b"{\"event\":") => return serde_json::from_slice(whole).map_err(failed),
        [b'{', rest @ ..] => rest,
        other => return serde_json::from_slice(other).map_err(failed),
    };
    let mut whole = head(&stored.kind, stored.step.as_ref().map(StepName::as_str)).into_bytes();
    if rest != b"}" {
        whole.push(b',');
    }
    whole.extend_from_slice(rest);
    serde_json::from_slice(&whole).map_err(failed)
}

/// What is left to be written of a folded state beside the events that it names.
pub(super) fn remainder(step: &StepName, state: &StepState) -> Result<Vec<u8>, FoldError> {
    let failed = malformed(format!("the state of step {step}"));
    let Grounds { intent, outcome, .. } = state.grounds;
    if intent == 0 && outcome == 0 {
        return serde_json::to_vec(state).map_err(failed);
    }
    let mut rest = state.clone();
    if intent > 0 {
        rest.spec = None;
        rest.prior = None;
    }
    if outcome > 0 {
        rest.outputs = None;
    }
    serde_json::to_vec(&rest).map_err(failed)
}

/// The folded state of a step from its row.
pub(super) fn state(row: &LoadedStep) -> Result<StepState, FoldError> {
    let mut state = match &row.payload {
        None => plain(row)?,
        Some(payload) => told(row, payload)?,
    };
    let sequence = |event: &Option<StoredEvent>| event.as_ref().map_or(0, |event| event.sequence);
    state.grounds.intent = sequence(&row.intent);
    state.grounds.outcome = sequence(&row.outcome);
    if state.phase.name() != row.state {
        return Err(contradiction(row, format!("{}, its events say {}", row.state, state.phase.name())));
    }
    Ok(state)
}

fn contradiction(row: &LoadedStep, said: String) -> FoldError {
    FoldError::Contradiction { step: row.step.clone(), said }
}

/// A state that follows from two events.
fn plain(row: &LoadedStep) -> Result<StepState, FoldError> {
    let mut state = StepState::default();
    for stored in row.intent.iter().chain(&row.outcome) {
        transition::step(&row.step, &mut state, &decode(stored)?, stored.sequence)?;
    }
    Ok(state)
}

/// A state that was written out, but for what the events tell.
fn told(row: &LoadedStep, payload: &[u8]) -> Result<StepState, FoldError> {
    let failed = malformed(format!("the folded state of step {}", row.step));
    let mut state: StepState = serde_json::from_slice(payload).map_err(failed)?;
    let outputs = |outputs: Value| Some(outputs).filter(|outputs| !outputs.is_null());
    for stored in row.intent.iter().chain(&row.outcome) {
        match decode(stored)? {
            Event::StepIntended { spec, prior, .. } => {
                state.spec = Some(spec);
                state.prior = prior;
            }
            Event::StepApplied { outputs, .. } | Event::StepVerified { outputs, .. } => state.outputs = Some(outputs),
            Event::StepRecorded { spec, outputs: known, .. } => {
                // The same event for both, where nothing came after it.
                state.spec.get_or_insert(spec);
                if row.outcome.as_ref().is_some_and(|outcome| outcome.sequence == stored.sequence) {
                    state.outputs = outputs(known);
                }
            }
            other => {
                let said = format!("that it comes from event {}, which is {}", stored.sequence, other.kind());
                return Err(contradiction(row, said));
            }
        }
    }
    state.grounds.story = Story::Told;
    Ok(state)
}
