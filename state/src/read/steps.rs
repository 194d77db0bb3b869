//! The rows of steps, with the events that they name.

use super::{damaged, name, sequence, timestamp};
use crate::chain::Link;
use crate::failure::sqlite;
use crate::place;
use crate::seal::{self, StateSum, Sum};
use platflow_engine::journal::{JournalError, LoadedStep, StoredEvent};
use platflow_engine::name::{RunId, StepName};
use rusqlite::types::FromSqlError;
use rusqlite::{Connection, Row};

const STEPS: &str = "SELECT s.step, s.state, s.intent, s.outcome, s.payload, s.sum,
    i.kind, i.step, i.payload, i.recorded_at, o.kind, o.step, o.payload, o.recorded_at
    FROM step_states s
    LEFT JOIN events i ON i.id = ?2 + s.intent
    LEFT JOIN events o ON o.id = ?2 + s.outcome
    WHERE s.run = ?1 ORDER BY s.step";
const ROWS: &str = "SELECT step, state, intent, outcome, payload, sum FROM step_states WHERE run = ?1 ORDER BY step";

/// A row whose sum is right.
pub(super) struct Stored {
    step: StepName,
    state: String,
    pub(super) intent: Option<i64>,
    pub(super) outcome: Option<i64>,
    payload: Option<Vec<u8>>,
}

impl Stored {
    fn read(row: &Row<'_>, run: &RunId) -> Result<Self, JournalError> {
        let failed = sqlite("read");
        let malformed = |error: FromSqlError| failed(error.into());
        let column = |at| row.get_ref(at).map_err(&failed);
        let (step, state) = (column(0)?.as_str().map_err(malformed)?, column(1)?.as_str().map_err(malformed)?);
        let intent: Option<i64> = row.get(2).map_err(&failed)?;
        let outcome: Option<i64> = row.get(3).map_err(&failed)?;
        let payload: Option<Vec<u8>> = row.get(4).map_err(&failed)?;
        let sum: Option<Sum> = row.get(5).map_err(&failed)?;
        let told = StateSum { run: run.as_str(), step, state, intent, outcome };
        let payload = match (sum, payload) {
            (Some(sum), payload) if told.over(payload.as_deref()) == sum => payload,
            (Some(_), _) => return Err(seal::altered(&[run.as_str(), step])),
            // Of an earlier version: with the sum at its end, or without any.
            (None, payload) => payload.map(|payload| seal::open(&[run.as_str(), step], payload)).transpose()?,
        };
        Ok(Self { step: name(step, StepName::new)?, state: state.to_owned(), intent, outcome, payload })
    }

    /// The event that this row names, which must be about the same step.
    pub(super) fn named(&self, run: &RunId, event: &Link<'_>) -> Result<StoredEvent, JournalError> {
        if event.step != Some(self.step.as_str()) {
            return Err(damaged(format!(
                "event {} of run {run} is not about {}, whose state names it",
                event.sequence, self.step
            )));
        }
        Ok(StoredEvent {
            sequence: sequence(event.sequence)?,
            kind: event.kind.to_owned(),
            step: Some(self.step.clone()),
            payload: event.payload.to_vec(),
            recorded_at: timestamp(event.recorded_at)?,
        })
    }

    /// With the events that it names, all of which must be there.
    pub(super) fn with(
        self,
        run: &RunId,
        intent: Option<StoredEvent>,
        outcome: Option<StoredEvent>,
    ) -> Result<LoadedStep, JournalError> {
        for (wanted, found) in [(self.intent, &intent), (self.outcome, &outcome)] {
            if let (Some(wanted), None) = (wanted, found) {
                return Err(damaged(format!(
                    "event {wanted} of run {run} is missing, which the state of {} names",
                    self.step
                )));
            }
        }
        Ok(LoadedStep { step: self.step, state: self.state, intent, outcome, payload: self.payload })
    }
}

/// The event whose columns begin at `at`, if the row names one and it is there.
fn joined<'r>(row: &'r Row<'_>, named: Option<i64>, at: usize) -> Result<Option<Link<'r>>, JournalError> {
    let failed = sqlite("read");
    let malformed = |error: FromSqlError| failed(error.into());
    let column = |at| row.get_ref(at).map_err(&failed);
    let (Some(sequence), Some(kind)) = (named, column(at)?.as_str_or_null().map_err(malformed)?) else {
        return Ok(None);
    };
    Ok(Some(Link {
        sequence,
        kind,
        step: column(at + 1)?.as_str_or_null().map_err(malformed)?,
        payload: column(at + 2)?.as_blob().map_err(malformed)?,
        recorded_at: column(at + 3)?.as_i64().map_err(malformed)?,
    }))
}

/// Every step of a run that has a row, by step.
pub(super) fn all(connection: &Connection, run: &RunId, number: i64) -> Result<Vec<LoadedStep>, JournalError> {
    let failed = sqlite("read");
    let mut statement = connection.prepare_cached(STEPS).map_err(&failed)?;
    let mut rows = statement.query([number, place::of(number, 0)?]).map_err(&failed)?;
    let mut steps = Vec::new();
    while let Some(row) = rows.next().map_err(&failed)? {
        let stored = Stored::read(row, run)?;
        let named = |event: Option<Link<'_>>| event.map(|event| stored.named(run, &event)).transpose();
        let intent = named(joined(row, stored.intent, 6)?)?;
        let outcome = named(joined(row, stored.outcome, 10)?)?;
        steps.push(stored.with(run, intent, outcome)?);
    }
    Ok(steps)
}

/// The same without the events that they name.
pub(super) fn rows(connection: &Connection, run: &RunId, number: i64) -> Result<Vec<Stored>, JournalError> {
    let failed = sqlite("read");
    let mut statement = connection.prepare_cached(ROWS).map_err(&failed)?;
    let mut rows = statement.query([number]).map_err(&failed)?;
    let mut steps = Vec::new();
    while let Some(row) = rows.next().map_err(&failed)? {
        steps.push(Stored::read(row, run)?);
    }
    Ok(steps)
}
