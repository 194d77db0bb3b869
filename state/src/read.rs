//! Queries: runs, events with their chain, environments and their record. Plain functions over a connection's snapshot.

use crate::chain::{self, Hash};
use crate::failure::{sqlite, storage};
use crate::lease::{Liveness, LockFolder, Ownership};
use crate::{pack, seal};
use jiff::Timestamp;
use platflow_engine::journal::{EnvironmentRow, JournalError, LoadedRun, RunStatus, RunSummary, Sequence, StoredEvent};
use platflow_engine::name::{EnvironmentName, EnvironmentUid, InvalidName, RunId, StepName, WorkflowName};
use platflow_engine::plan::Plan;
use rusqlite::{Connection, OptionalExtension, Row, params};

mod journaled;
mod record;
mod steps;
mod takeover;

use journaled::Journaled;
pub(crate) use record::record;
pub(crate) use takeover::{Ready, chained};

fn damaged(text: impl Into<String>) -> JournalError {
    JournalError::Damaged(text.into())
}

/// Parses a name that the store wrote itself.
pub(crate) fn name<'t, T>(text: &'t str, parse: impl Fn(&'t str) -> Result<T, InvalidName>) -> Result<T, JournalError> {
    parse(text).map_err(|error| damaged(error.to_string()))
}

pub(crate) fn timestamp(microsecond: i64) -> Result<Timestamp, JournalError> {
    Timestamp::from_microsecond(microsecond).map_err(|error| damaged(format!("a time is out of range ({error})")))
}

pub(crate) fn status(text: &str) -> Result<RunStatus, JournalError> {
    [
        RunStatus::Running,
        RunStatus::Parked,
        RunStatus::RollingBack,
        RunStatus::Done,
        RunStatus::RolledBack,
        RunStatus::Abandoned,
    ]
    .into_iter()
    .find(|status| status.as_str() == text)
    .ok_or_else(|| damaged(format!("{text:?} is not the status of a run")))
}

fn sequence(value: i64) -> Result<Sequence, JournalError> {
    u64::try_from(value).map_err(|_| damaged(format!("{value} is not a sequence")))
}

fn not_found(run: &RunId) -> JournalError {
    JournalError::NotFound { what: "run", text: run.to_string() }
}

struct SummaryRow {
    id: String,
    workflow: String,
    environment: String,
    uid: String,
    status: String,
    destroy: bool,
    created_at: i64,
    head: i64,
    ownership: Ownership,
}

const SUMMARY: &str = "SELECT r.id, r.workflow, r.environment, e.uid, r.status, r.destroy, r.created_at, r.head,
    r.epoch, r.owner, r.owned_since, r.lease_boot, r.lease_until_ms
    FROM runs r JOIN environments e ON e.name = r.environment";

fn summary_row(row: &Row<'_>) -> rusqlite::Result<SummaryRow> {
    Ok(SummaryRow {
        id: row.get(0)?,
        workflow: row.get(1)?,
        environment: row.get(2)?,
        uid: row.get(3)?,
        status: row.get(4)?,
        destroy: row.get(5)?,
        created_at: row.get(6)?,
        head: row.get(7)?,
        ownership: Ownership::from_row(row, 8)?,
    })
}

impl SummaryRow {
    fn finish(self, locks: &LockFolder) -> Result<RunSummary, JournalError> {
        let live = self.ownership.liveness(&self.id, locks)?;
        Ok(RunSummary {
            id: name(&self.id, RunId::new)?,
            workflow: name(&self.workflow, WorkflowName::new)?,
            environment: name(&self.environment, EnvironmentName::new)?,
            environment_uid: name(&self.uid, EnvironmentUid::new)?,
            status: status(&self.status)?,
            destroy: self.destroy,
            created_at: timestamp(self.created_at)?,
            owner: self.ownership.owner,
            owner_live: live != Liveness::Free,
            head: sequence(self.head)?,
        })
    }
}

/// Runs, newest first.
pub(crate) fn list(
    connection: &Connection,
    locks: &LockFolder,
    environment: Option<&EnvironmentName>,
    limit: usize,
) -> Result<Vec<RunSummary>, JournalError> {
    let failed = sqlite("read");
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = connection
        .prepare_cached(&format!("{SUMMARY} WHERE ?1 IS NULL OR r.environment = ?1 ORDER BY r.number DESC LIMIT ?2"))
        .and_then(|mut statement| {
            statement
                .query_map(params![environment.map(EnvironmentName::as_str), limit], summary_row)?
                .collect::<Result<Vec<_>, _>>()
        })
        .map_err(&failed)?;
    rows.into_iter().map(|row| row.finish(locks)).collect()
}

/// The one run that `prefix` means.
pub(crate) fn find(connection: &Connection, prefix: &str) -> Result<RunId, JournalError> {
    let ids = connection
        .prepare_cached(
            "SELECT id FROM runs WHERE substr(id, 1, length(?1)) = ?1 ORDER BY id = ?1 DESC, number DESC LIMIT 10",
        )
        .and_then(|mut statement| {
            statement.query_map([prefix], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()
        })
        .map_err(sqlite("read"))?;
    let mut matches = ids.iter().map(|id| name(id, RunId::new)).collect::<Result<Vec<_>, _>>()?;
    match matches.first() {
        None => Err(JournalError::NotFound { what: "run", text: prefix.to_owned() }),
        Some(first) if matches.len() == 1 || first.as_str() == prefix => Ok(matches.swap_remove(0)),
        Some(_) => Err(JournalError::Ambiguous { prefix: prefix.to_owned(), matches }),
    }
}

/// A run with its cached fold, after checking that the fold's head is the journal's head.
/// What was read for a takeover is not read again, if it is still what the run is.
pub(crate) fn load(
    connection: &Connection,
    locks: &LockFolder,
    run: &RunId,
    ready: Option<Ready>,
) -> Result<LoadedRun, JournalError> {
    let failed = sqlite("read");
    let found = connection
        .query_row(&format!("{SUMMARY} WHERE r.id = ?1"), [run.as_str()], summary_row)
        .optional()
        .map_err(&failed)?;
    let summary = found.ok_or_else(|| not_found(run))?.finish(locks)?;
    let journal = Journaled::of(connection, run)?;
    journal.check_tail(connection)?;
    if let Some(Ready { chained, plan }) = ready.filter(|ready| ready.chained.is_of(&journal)) {
        let takeover::Chained { run_payload, steps, .. } = chained;
        return Ok(LoadedRun { summary, plan, plan_digest: journal.plan_digest, run_payload, steps });
    }
    let plan = plan(connection, run, journal.number)?;
    let run_payload = run_payload(connection, run, journal.number)?;
    let steps = steps::all(connection, run, journal.number)?;
    Ok(LoadedRun { summary, plan, plan_digest: journal.plan_digest, run_payload, steps })
}

/// The folded state of the run itself.
fn run_payload(connection: &Connection, run: &RunId, number: i64) -> Result<Vec<u8>, JournalError> {
    let payload: Vec<u8> = connection
        .query_row("SELECT payload FROM run_states WHERE run = ?1", [number], |row| row.get(0))
        .map_err(sqlite("read"))?;
    seal::open(&[run.as_str()], payload)
}

/// The plan that a run is pinned to.
pub(crate) fn pinned_plan(connection: &Connection, run: &RunId) -> Result<Plan, JournalError> {
    let journal = Journaled::of(connection, run)?;
    plan(connection, run, journal.number)
}

/// The plan that a run is pinned to, as it was written.
fn plan(connection: &Connection, run: &RunId, number: i64) -> Result<Plan, JournalError> {
    let (body, unpacked, sha256): (Vec<u8>, Option<i64>, Hash) = connection
        .prepare_cached("SELECT body, unpacked, sha256 FROM plans WHERE run = ?1")
        .and_then(|mut statement| statement.query_row([number], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))))
        .map_err(sqlite("read"))?;
    let body = pack::unpack(body, unpacked)
        .ok_or_else(|| damaged(format!("the plan of run {run} was altered: it cannot be unpacked")))?;
    if chain::digest(&body) != sha256 {
        return Err(damaged(format!("the plan of run {run} was altered")));
    }
    serde_json::from_slice(&body).map_err(|error| damaged(format!("the plan of run {run} cannot be read ({error})")))
}

/// Events after `after`, checked against gaps and the chain.
pub(crate) fn events(
    connection: &Connection,
    run: &RunId,
    after: Sequence,
    limit: usize,
) -> Result<Vec<StoredEvent>, JournalError> {
    let after = i64::try_from(after).map_err(|error| storage("read", error))?;
    Journaled::of(connection, run)?.chain_from(connection, after, limit)
}

/// Refolds the hashes of a run's whole chain; returns how many events it has.
pub(crate) fn verify(connection: &Connection, run: &RunId) -> Result<Sequence, JournalError> {
    let journal = Journaled::of(connection, run)?;
    journal.check_tail(connection)?;
    journal.walk(connection, 0, usize::MAX, &mut |_| Ok(()))?;
    sequence(journal.head)
}

/// Lets SQLite check the whole file.
pub(crate) fn check_file(connection: &Connection) -> Result<(), JournalError> {
    let failed = sqlite("read");
    let answer: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(&failed)?;
    if answer != "ok" {
        return Err(damaged(answer));
    }
    let orphan: Option<String> =
        connection.query_row("PRAGMA foreign_key_check", [], |row| row.get(0)).optional().map_err(&failed)?;
    match orphan {
        None => Ok(()),
        Some(table) => Err(damaged(format!("table {table} refers to rows that are gone"))),
    }
}

/// The same but for the CHECKs of rows, which are most of its time: for a takeover, which reads rows that have a chain or a
/// sum.
pub(crate) fn check_structure(connection: &Connection) -> Result<(), JournalError> {
    let ignore =
        |checks: bool| connection.pragma_update(None, "ignore_check_constraints", checks).map_err(sqlite("read"));
    ignore(true)?;
    let outcome = check_file(connection);
    ignore(false)?;
    outcome
}

/// An environment on record.
pub(crate) fn environment(
    connection: &Connection,
    wanted: &EnvironmentName,
) -> Result<Option<EnvironmentRow>, JournalError> {
    let found: Option<(String, String, Option<String>, i64)> = connection
        .query_row(
            "SELECT uid, target, held_by, created_at FROM environments WHERE name = ?1",
            [wanted.as_str()],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
        )
        .optional()
        .map_err(sqlite("read"))?;
    let Some((uid, target, held_by, created_at)) = found else { return Ok(None) };
    Ok(Some(EnvironmentRow {
        name: wanted.clone(),
        uid: name(&uid, EnvironmentUid::new)?,
        target: serde_json::from_str(&target)
            .map_err(|error| damaged(format!("the target of environment {wanted} is not JSON ({error})")))?,
        held_by: held_by.map(|run| name(&run, RunId::new)).transpose()?,
        created_at: timestamp(created_at)?,
    }))
}

/// Generations of steps that are gone, by step.
pub(crate) fn generations(connection: &Connection, uid: &EnvironmentUid) -> Result<Vec<(StepName, u32)>, JournalError> {
    let rows = connection
        .prepare_cached("SELECT step, next_generation FROM generations WHERE environment = ?1 ORDER BY step")
        .and_then(|mut statement| {
            statement
                .query_map([uid.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<Result<Vec<(String, u32)>, _>>()
        })
        .map_err(sqlite("read"))?;
    rows.into_iter().map(|(step, generation)| Ok((name(&step, StepName::new)?, generation))).collect()
}

pub(crate) fn forgotten(connection: &Connection, uid: &EnvironmentUid) -> Result<Vec<StepName>, JournalError> {
    let rows = connection
        .prepare_cached("SELECT step FROM forgotten_steps WHERE environment = ?1 ORDER BY step")
        .and_then(|mut statement| {
            statement.query_map([uid.as_str()], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()
        })
        .map_err(sqlite("read"))?;
    rows.into_iter().map(|step| name(&step, StepName::new)).collect()
}
