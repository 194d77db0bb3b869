//! Queries: runs, events with their chain, environments and their record. Plain functions over a connection's snapshot.

use crate::chain::{self, Hash, Link};
use crate::failure::{sqlite, storage};
use crate::lease::{Liveness, LockFolder, Ownership};
use crate::seal;
use jiff::Timestamp;
use platflow_engine::journal::{
    EnvironmentRow, JournalError, LoadedRun, RecordedStep, RunStatus, RunSummary, Sequence, StoredEvent,
};
use platflow_engine::name::{EnvironmentName, EnvironmentUid, InvalidName, RunId, StepName, WorkflowName};
use rusqlite::{Connection, OptionalExtension, Params, Row, params};

fn damaged(text: impl Into<String>) -> JournalError {
    JournalError::Damaged(text.into())
}

/// Parses a name that the store wrote itself.
pub(crate) fn name<T>(text: &str, parse: impl Fn(String) -> Result<T, InvalidName>) -> Result<T, JournalError> {
    parse(text.to_owned()).map_err(|error| damaged(error.to_string()))
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
pub(crate) fn load(connection: &Connection, locks: &LockFolder, run: &RunId) -> Result<LoadedRun, JournalError> {
    let failed = sqlite("read");
    let found = connection
        .query_row(&format!("{SUMMARY} WHERE r.id = ?1"), [run.as_str()], summary_row)
        .optional()
        .map_err(&failed)?;
    let summary = found.ok_or_else(|| not_found(run))?.finish(locks)?;
    let journal = Journaled::of(connection, run)?;
    journal.check_tail(connection)?;
    let (body, sha256): (Vec<u8>, Hash) = connection
        .query_row("SELECT body, sha256 FROM plans WHERE run = ?1", [journal.number], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .map_err(&failed)?;
    if chain::digest(&body) != sha256 {
        return Err(damaged(format!("the plan of run {run} was altered")));
    }
    let plan = serde_json::from_slice(&body)
        .map_err(|error| damaged(format!("the plan of run {run} cannot be read ({error})")))?;
    let run_payload: Vec<u8> = connection
        .query_row("SELECT payload FROM run_states WHERE run = ?1", [journal.number], |row| row.get(0))
        .map_err(&failed)?;
    let run_payload = seal::open(&[run.as_str()], run_payload)?;
    let steps = connection
        .prepare_cached("SELECT step, payload FROM step_states WHERE run = ?1 ORDER BY step")
        .and_then(|mut statement| {
            statement
                .query_map([journal.number], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))?
                .collect::<Result<Vec<(String, Vec<u8>)>, _>>()
        })
        .map_err(&failed)?;
    let steps = steps
        .into_iter()
        .map(|(step, payload)| {
            let payload = seal::open(&[run.as_str(), &step], payload)?;
            Ok((name(&step, StepName::new)?, payload))
        })
        .collect::<Result<_, JournalError>>()?;
    Ok(LoadedRun { summary, plan, plan_digest: journal.plan_digest, run_payload, steps })
}

/// The end of a run's journal as its row has it, and what its chain starts from.
struct Journaled<'a> {
    run: &'a RunId,
    number: i64,
    head: i64,
    head_hash: Hash,
    plan_digest: String,
    genesis: Hash,
}

impl<'a> Journaled<'a> {
    fn of(connection: &Connection, run: &'a RunId) -> Result<Self, JournalError> {
        let found: Option<(i64, i64, Hash, String, Hash)> = connection
            .prepare_cached(
                "SELECT r.number, r.head, r.head_hash, p.digest, p.sha256
                 FROM runs r JOIN plans p ON p.run = r.number WHERE r.id = ?1",
            )
            .and_then(|mut statement| {
                statement
                    .query_row([run.as_str()], |row| {
                        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
                    })
                    .optional()
            })
            .map_err(sqlite("read"))?;
        let (number, head, head_hash, plan_digest, plan_sha256) = found.ok_or_else(|| not_found(run))?;
        let genesis = chain::genesis(run.as_str(), &plan_digest, &plan_sha256);
        Ok(Self { run, number, head, head_hash, plan_digest, genesis })
    }

    /// The hash of one event as stored; of the genesis for sequence 0.
    fn stored_hash(&self, connection: &Connection, sequence: i64) -> Result<Option<Hash>, JournalError> {
        if sequence == 0 {
            return Ok(Some(self.genesis));
        }
        connection
            .prepare_cached("SELECT hash FROM events WHERE run = ?1 AND sequence = ?2")
            .and_then(|mut statement| statement.query_row(params![self.number, sequence], |row| row.get(0)).optional())
            .map_err(sqlite("read"))
    }

    /// The run's head must be the last event, with the hash that the last append wrote.
    fn check_tail(&self, connection: &Connection) -> Result<(), JournalError> {
        let last: i64 = connection
            .prepare_cached("SELECT coalesce(max(sequence), 0) FROM events WHERE run = ?1")
            .and_then(|mut statement| statement.query_row([self.number], |row| row.get(0)))
            .map_err(sqlite("read"))?;
        if last != self.head {
            return Err(damaged(format!(
                "the journal of run {} ends at event {last}, its head says {}",
                self.run, self.head
            )));
        }
        match self.stored_hash(connection, last)? {
            Some(hash) if hash == self.head_hash => {
                // The last link is recomputed: an altered last event is seen without reading the whole chain.
                self.chain_from(connection, (last - 1).max(0), 1).map(|_| ())
            }
            _ => Err(damaged(format!(
                "event {last} of run {} does not fit the run's head: the hash chain is broken",
                self.run
            ))),
        }
    }

    /// Reads and checks events after `after`.
    fn chain_from(&self, connection: &Connection, after: i64, limit: usize) -> Result<Vec<StoredEvent>, JournalError> {
        let failed = sqlite("read");
        if after >= self.head {
            return Ok(Vec::new());
        }
        let Some(mut hash) = self.stored_hash(connection, after)? else {
            return Err(damaged(format!("event {after} of run {} is missing", self.run)));
        };
        let mut statement = connection
            .prepare_cached(
                "SELECT sequence, kind, step, payload, recorded_at, hash FROM events
                 WHERE run = ?1 AND sequence > ?2 ORDER BY sequence LIMIT ?3",
            )
            .map_err(&failed)?;
        let mut rows =
            statement.query(params![self.number, after, i64::try_from(limit).unwrap_or(i64::MAX)]).map_err(&failed)?;
        let mut events = Vec::new();
        let mut expected = after;
        while let Some(row) = rows.next().map_err(&failed)? {
            expected += 1;
            let (event, stored) = self.link(row, expected, &hash)?;
            hash = stored;
            events.push(event);
        }
        if expected > self.head || (events.len() < limit && expected != self.head) {
            return Err(damaged(format!(
                "event {} of run {} is missing, the head says {}",
                expected + 1,
                self.run,
                self.head
            )));
        }
        if expected == self.head && hash != self.head_hash {
            return Err(damaged(format!(
                "event {expected} of run {} does not fit the run's head: the hash chain is broken",
                self.run
            )));
        }
        Ok(events)
    }

    fn link(&self, row: &Row<'_>, expected: i64, before: &Hash) -> Result<(StoredEvent, Hash), JournalError> {
        let failed = sqlite("read");
        let found: i64 = row.get(0).map_err(&failed)?;
        if found != expected {
            return Err(damaged(format!("event {expected} of run {} is missing, {found} follows", self.run)));
        }
        let kind: String = row.get(1).map_err(&failed)?;
        let step: Option<String> = row.get(2).map_err(&failed)?;
        let payload: Vec<u8> = row.get(3).map_err(&failed)?;
        let recorded_at: i64 = row.get(4).map_err(&failed)?;
        let stored: Hash = row.get(5).map_err(&failed)?;
        let link = Link { sequence: found, kind: &kind, step: step.as_deref(), payload: &payload, recorded_at };
        if chain::next(before, &link) != stored {
            return Err(damaged(format!("event {expected} of run {} was altered: the hash chain is broken", self.run)));
        }
        let event = StoredEvent { sequence: sequence(found)?, kind, payload, recorded_at: timestamp(recorded_at)? };
        Ok((event, stored))
    }
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
    const PAGE: usize = 1_000;
    let journal = Journaled::of(connection, run)?;
    journal.check_tail(connection)?;
    let mut at = 0;
    while at < journal.head {
        let page = journal.chain_from(connection, at, PAGE)?;
        at += i64::try_from(page.len()).unwrap_or(i64::MAX);
    }
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

/// The environment's record, by step.
pub(crate) fn record(connection: &Connection, uid: &EnvironmentUid) -> Result<Vec<RecordedStep>, JournalError> {
    let sql = "SELECT step, body FROM recorded_steps WHERE environment = ?1 ORDER BY step";
    recorded(connection, uid, sql, params![uid.as_str()])
}

/// The same without what one run wrote, which may be all of a large record.
pub(crate) fn record_of_others(
    connection: &Connection,
    uid: &EnvironmentUid,
    run: &RunId,
) -> Result<Vec<RecordedStep>, JournalError> {
    let sql = "SELECT step, body FROM recorded_steps WHERE environment = ?1 AND run <> ?2 ORDER BY step";
    recorded(connection, uid, sql, params![uid.as_str(), run.as_str()])
}

fn recorded(
    connection: &Connection,
    uid: &EnvironmentUid,
    sql: &str,
    wanted: impl Params,
) -> Result<Vec<RecordedStep>, JournalError> {
    let bodies = connection
        .prepare_cached(sql)
        .and_then(|mut statement| {
            statement
                .query_map(wanted, |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<Result<Vec<(String, Vec<u8>)>, _>>()
        })
        .map_err(sqlite("read"))?;
    bodies
        .into_iter()
        .map(|(step, body)| {
            let body = seal::open(&[uid.as_str(), &step], body)?;
            serde_json::from_slice(&body).map_err(|error| damaged(format!("a recorded step cannot be read ({error})")))
        })
        .collect()
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
