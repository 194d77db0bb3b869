//! The rows of steps, with the events that they name.

use super::journaled::stored_event;
use super::{damaged, name};
use crate::failure::sqlite;
use crate::place;
use crate::seal::{self, StateSum, Sum};
use platflow_engine::journal::{JournalError, LoadedStep, StoredEvent};
use platflow_engine::name::{RunId, StepName};
use rusqlite::{Connection, Row};

const STEPS: &str = "SELECT s.step, s.state, s.intent, s.outcome, s.payload, s.sum,
    i.kind, i.step, i.payload, i.recorded_at, o.kind, o.step, o.payload, o.recorded_at
    FROM step_states s
    LEFT JOIN events i ON i.id = ?2 + s.intent
    LEFT JOIN events o ON o.id = ?2 + s.outcome
    WHERE s.run = ?1";

/// A row as stored.
struct Stored {
    step: String,
    state: String,
    intent: Option<i64>,
    outcome: Option<i64>,
    payload: Option<Vec<u8>>,
    sum: Option<Sum>,
    intended: Option<Event>,
    outcome_event: Option<Event>,
}

/// An event as stored.
struct Event {
    kind: String,
    step: Option<String>,
    payload: Vec<u8>,
    recorded_at: i64,
}

impl Event {
    fn read(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<Self>> {
        let Some(kind) = row.get(at)? else { return Ok(None) };
        Ok(Some(Self { kind, step: row.get(at + 1)?, payload: row.get(at + 2)?, recorded_at: row.get(at + 3)? }))
    }
}

impl Stored {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            step: row.get(0)?,
            state: row.get(1)?,
            intent: row.get(2)?,
            outcome: row.get(3)?,
            payload: row.get(4)?,
            sum: row.get(5)?,
            intended: Event::read(row, 6)?,
            outcome_event: Event::read(row, 10)?,
        })
    }

    fn finish(self, run: &RunId) -> Result<LoadedStep, JournalError> {
        let told = StateSum {
            run: run.as_str(),
            step: &self.step,
            state: &self.state,
            intent: self.intent,
            outcome: self.outcome,
        };
        let payload = match (self.sum, self.payload) {
            (Some(sum), payload) if told.over(payload.as_deref()) == sum => payload,
            (Some(_), _) => return Err(seal::altered(&[run.as_str(), &self.step])),
            // Of an earlier version: with the sum at its end, or without any.
            (None, payload) => payload.map(|payload| seal::open(&[run.as_str(), &self.step], payload)).transpose()?,
        };
        let intent = named(run, &self.step, self.intent, self.intended)?;
        let outcome = named(run, &self.step, self.outcome, self.outcome_event)?;
        Ok(LoadedStep { step: name(&self.step, StepName::new)?, state: self.state, intent, outcome, payload })
    }
}

/// The event that a row names, which must be there and be about the same step.
fn named(
    run: &RunId,
    step: &str,
    sequence: Option<i64>,
    event: Option<Event>,
) -> Result<Option<StoredEvent>, JournalError> {
    let Some(sequence) = sequence else { return Ok(None) };
    match event {
        Some(event) if event.step.as_deref() == Some(step) => {
            stored_event(sequence, event.kind, event.step, event.payload, event.recorded_at).map(Some)
        }
        Some(_) => Err(damaged(format!("event {sequence} of run {run} is not about {step}, whose state names it"))),
        None => Err(damaged(format!("event {sequence} of run {run} is missing, which the state of {step} names"))),
    }
}

/// Every step of a run that has a row, by step.
pub(super) fn all(connection: &Connection, run: &RunId, number: i64) -> Result<Vec<LoadedStep>, JournalError> {
    let failed = sqlite("read");
    let mut statement = connection.prepare_cached(&format!("{STEPS} ORDER BY s.step")).map_err(&failed)?;
    let mut rows = statement.query([number, place::of(number, 0)?]).map_err(&failed)?;
    let mut steps = Vec::new();
    while let Some(row) = rows.next().map_err(&failed)? {
        steps.push(Stored::read(row).map_err(&failed)?.finish(run)?);
    }
    Ok(steps)
}
