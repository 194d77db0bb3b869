//! How events and folded states look in the store: nothing is written twice.
//!
//! An event's kind and step stand in columns of their own, so its payload leaves them out. A folded state leaves out what
//! the events tell that it names. What earlier versions wrote in full is read as well.

use super::FoldError;
use crate::event::{Effect, Event, Prior};
use crate::journal::{EncodedEvent, LoadedStep, StoredEvent};
use crate::name::StepName;
use crate::state::{Grounds, StepState, Story};
use crate::transition;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

/// How the events of earlier versions begin, which were written in full.
const WHOLE: &[u8] = b"{\"event\":";
/// Most events fit into so many bytes.
const ROOM: usize = 256;

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
    let mut payload = Vec::with_capacity(ROOM);
    serde_json::to_writer(&mut payload, event)
        .map_err(|source| malformed(format!("a new event {}", event.kind()))(source))?;
    // Names need no escapes in JSON, so this is every event.
    if let Some(told) = told_by_columns(&payload, event) {
        payload.drain(1..told);
    }
    Ok(EncodedEvent { kind: event.kind(), step: event.step().cloned(), payload })
}

/// Where the part of an event's JSON ends that its columns say.
fn told_by_columns(whole: &[u8], event: &Event) -> Option<usize> {
    let mut rest = whole.strip_prefix(b"{\"event\":\"")?.strip_prefix(event.kind().as_bytes())?.strip_prefix(b"\"")?;
    if let Some(step) = event.step() {
        rest = rest.strip_prefix(b",\"step\":\"")?.strip_prefix(step.as_str().as_bytes())?.strip_prefix(b"\"")?;
    }
    Some(whole.len() - rest.strip_prefix(b",").unwrap_or(rest).len())
}

/// What the columns of an intent leave to be told. This and the next are most of every journal: they are read straight
/// into place, where an event of any kind is first taken apart to see of which.
#[derive(Deserialize)]
struct Intended {
    attempt: u32,
    generation: u32,
    spec: Value,
    #[serde(default)]
    prior: Option<Prior>,
    at: Timestamp,
}

/// The same of a verification.
#[derive(Deserialize)]
struct Verified {
    outputs: Value,
    effect: Effect,
    at: Timestamp,
}

/// Reads an event back.
///
/// # Errors
/// When it is not an event of this version.
pub fn decode(stored: &StoredEvent) -> Result<Event, FoldError> {
    let failed = |source| malformed(format!("event {}", stored.sequence))(source);
    let payload = stored.payload.as_slice();
    match (stored.kind.as_str(), &stored.step) {
        _ if payload.starts_with(WHOLE) => serde_json::from_slice(payload).map_err(failed),
        ("step-intended", Some(step)) => {
            let Intended { attempt, generation, spec, prior, at } = serde_json::from_slice(payload).map_err(failed)?;
            Ok(Event::StepIntended { step: step.clone(), attempt, generation, spec, prior, at })
        }
        ("step-verified", Some(step)) => {
            let Verified { outputs, effect, at } = serde_json::from_slice(payload).map_err(failed)?;
            Ok(Event::StepVerified { step: step.clone(), outputs, effect, at })
        }
        (kind, step) => of_any_kind(kind, step.as_ref(), payload).map_err(failed),
    }
}

/// Puts back what the columns say, and reads the whole.
fn of_any_kind(kind: &str, step: Option<&StepName>, payload: &[u8]) -> Result<Event, serde_json::Error> {
    let [b'{', rest @ ..] = payload else { return serde_json::from_slice(payload) };
    let mut whole = head(kind, step.map(StepName::as_str)).into_bytes();
    if rest != b"}" {
        whole.push(b',');
    }
    whole.extend_from_slice(rest);
    serde_json::from_slice(&whole)
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Proves that an event comes back as it was written, that its payload does not repeat its columns, and that the short
    /// way of reading the two commonest kinds comes to the same as the way that any kind is read.
    #[test]
    fn the_short_way_of_reading_is_the_long_one() {
        let (step, at) = (StepName::new("network.vpc").unwrap(), Timestamp::UNIX_EPOCH);
        let prior = Some(Prior { spec: json!({"cidr": "10.0.0.0/8"}), outputs: json!({"id": "vpc-1"}) });
        let spec = json!({"event": "step-verified", "step": "other"});
        let intended = |prior| Event::StepIntended {
            step: step.clone(),
            attempt: 2,
            generation: 1,
            spec: spec.clone(),
            prior,
            at,
        };
        let outputs = json!({"id": "vpc-1"});
        let verified = Event::StepVerified { step: step.clone(), outputs, effect: Effect::Changed, at };
        let undone = Event::StepUndone { step: step.clone(), evidence: "gone".to_owned(), at };
        for event in [intended(None), intended(prior), verified, undone, Event::RunResumed { at }] {
            let EncodedEvent { kind, step, payload } = encode(&event).unwrap();
            let text = String::from_utf8(payload.clone()).unwrap();
            assert!(!text.starts_with("{\"event\"") && !text.contains("network.vpc"), "{text}");
            assert_eq!(of_any_kind(kind, step.as_ref(), &payload).unwrap(), event);
            let stored = StoredEvent { sequence: 1, kind: kind.to_owned(), step, payload, recorded_at: at };
            assert_eq!(decode(&stored).unwrap(), event);
        }
    }

    /// Proves that an event which lacks a part is refused, whichever way it is read.
    #[test]
    fn an_event_that_lacks_a_part_is_refused() {
        let step = Some(StepName::new("a").unwrap());
        for (kind, payload) in [("step-intended", r#"{"attempt":1}"#), ("step-verified", "{}"), ("step-undone", "{}")] {
            let payload = payload.as_bytes().to_vec();
            let recorded_at = Timestamp::UNIX_EPOCH;
            let stored = StoredEvent { sequence: 7, kind: kind.to_owned(), step: step.clone(), payload, recorded_at };
            assert!(matches!(decode(&stored), Err(FoldError::Malformed { .. })), "{kind}");
        }
    }
}
