//! The environment's record: rows that are written out, and rows that are the state of a step in a run.

use super::{damaged, name, plan, steps};
use crate::failure::sqlite;
use crate::seal::{self, Sum};
use platflow_engine::journal::{JournalError, LoadedStep, RecordRow};
use platflow_engine::name::{EnvironmentUid, RunId, StepName};
use platflow_engine::plan::PlannedStep;
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::HashMap;

/// A row as stored.
struct Stored {
    step: String,
    run: String,
    body: Option<Vec<u8>>,
    sum: Option<Sum>,
}

/// The steps of a run that are on record, by name, with their rows.
type Of = HashMap<StepName, (PlannedStep, LoadedStep)>;

/// The record by step, without what the run `except` wrote, which may be all of a large record.
pub(crate) fn record(
    connection: &Connection,
    uid: &EnvironmentUid,
    except: Option<&RunId>,
) -> Result<Vec<RecordRow>, JournalError> {
    let sql = "SELECT step, run, body, sum FROM recorded_steps
        WHERE environment = ?1 AND (?2 IS NULL OR run <> ?2) ORDER BY step";
    let stored = connection
        .prepare_cached(sql)
        .and_then(|mut statement| {
            statement
                .query_map(params![uid.as_str(), except.map(RunId::as_str)], |row| {
                    Ok(Stored { step: row.get(0)?, run: row.get(1)?, body: row.get(2)?, sum: row.get(3)? })
                })?
                .collect::<Result<Vec<_>, _>>()
        })
        .map_err(sqlite("read"))?;
    let mut runs: HashMap<String, Of> = HashMap::new();
    let mut rows = Vec::with_capacity(stored.len());
    for row in stored {
        rows.push(match checked(uid, row)? {
            (_, _, Some(body)) => RecordRow::Explicit(
                serde_json::from_slice(&body)
                    .map_err(|error| damaged(format!("a recorded step cannot be read ({error})")))?,
            ),
            (step, run, None) => own(connection, &mut runs, &step, run)?,
        });
    }
    Ok(rows)
}

/// Step, run and body of a row whose sum is right.
fn checked(uid: &EnvironmentUid, row: Stored) -> Result<(String, String, Option<Vec<u8>>), JournalError> {
    let Stored { step, run, body, sum } = row;
    let body = match (sum, body) {
        (Some(sum), body) if seal::record(uid.as_str(), &step, &run, body.as_deref()) == sum => body,
        (Some(_), _) => return Err(seal::altered(&[uid.as_str(), &step])),
        // Of an earlier version: with the sum at its end, or without any.
        (None, body) => body.map(|body| seal::open(&[uid.as_str(), &step], body)).transpose()?,
    };
    Ok((step, run, body))
}

/// A row that is the state of the step in a run.
fn own(
    connection: &Connection,
    runs: &mut HashMap<String, Of>,
    step: &str,
    run: String,
) -> Result<RecordRow, JournalError> {
    let id = name(&run, RunId::new)?;
    let of = match runs.entry(run) {
        std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
        std::collections::hash_map::Entry::Vacant(entry) => entry.insert(of_run(connection, &id)?),
    };
    match of.remove(step) {
        Some((planned, row)) => Ok(RecordRow::Own { run: id, planned: Box::new(planned), row: Box::new(row) }),
        None => Err(damaged(format!("the record of {step} is its state in run {id}, which does not have it"))),
    }
}

fn of_run(connection: &Connection, run: &RunId) -> Result<Of, JournalError> {
    let number: Option<i64> = connection
        .prepare_cached("SELECT number FROM runs WHERE id = ?1")
        .and_then(|mut statement| statement.query_row([run.as_str()], |row| row.get(0)).optional())
        .map_err(sqlite("read"))?;
    let Some(number) = number else {
        return Err(damaged(format!("the record names run {run}, which is not there")));
    };
    let mut planned: HashMap<StepName, PlannedStep> =
        plan(connection, run, number)?.steps.into_iter().map(|step| (step.name.clone(), step)).collect();
    let rows = steps::all(connection, run, number)?;
    Ok(rows.into_iter().filter_map(|row| Some((row.step.clone(), (planned.remove(&row.step)?, row)))).collect())
}
