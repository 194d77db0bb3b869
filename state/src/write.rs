//! What the writer thread does inside a transaction: create, acquire, append, release. Plain functions over a connection.

use crate::chain::{self, Hash, Link};
use crate::failure::{RunIdTaken, sqlite, storage};
use crate::lease::{Liveness, LockFolder, Ownership};
use crate::settings::StoreSettings;
use crate::time;
use crate::{pack, place, seal};
use platflow_engine::journal::{
    Batch, EncodedEvent, JournalError, Lease, NewRun, Owner, RecordChange, RunStatus, Sequence, StepRow,
};
use platflow_engine::name::{EnvironmentName, RunId, StepName};
use rusqlite::{CachedStatement, Connection, OptionalExtension, Params, params};
use std::fs::File;

/// A lease as granted inside a transaction: real once that is committed.
pub(crate) struct Granted {
    pub(crate) lease: Lease,
    pub(crate) until_ms: i64,
    pub(crate) lock: File,
}

/// What an attempt to acquire came to.
pub(crate) enum Acquired {
    Granted(Granted),
    /// The owner is on another machine: watch whether this ownership stays unchanged for a whole lease.
    Watch(Ownership),
}

fn execute(connection: &Connection, sql: &str, parameters: impl Params) -> Result<usize, JournalError> {
    connection.prepare_cached(sql).and_then(|mut statement| statement.execute(parameters)).map_err(sqlite("written"))
}

/// For what is written row by row: looked up once, not once per row.
fn prepared<'a>(connection: &'a Connection, sql: &str) -> Result<CachedStatement<'a>, JournalError> {
    connection.prepare_cached(sql).map_err(sqlite("written"))
}

fn integer(value: u64) -> Result<i64, JournalError> {
    i64::try_from(value).map_err(|error| storage("written", error))
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, JournalError> {
    serde_json::to_vec(value).map_err(|error| storage("written", error))
}

fn text(value: &impl serde::Serialize) -> Result<String, JournalError> {
    serde_json::to_string(value).map_err(|error| storage("written", error))
}

/// See [`platflow_engine::journal::Journal::create_run`].
pub(crate) fn create_run(
    connection: &Connection,
    new: &NewRun,
    locks: &LockFolder,
    settings: &StoreSettings,
) -> Result<Granted, JournalError> {
    hold_environment(connection, new)?;
    let taken: Option<i64> = prepared(connection, "SELECT number FROM runs WHERE id = ?1")?
        .query_row([new.id.as_str()], |row| row.get(0))
        .optional()
        .map_err(sqlite("written"))?;
    if taken.is_some() {
        return Err(storage("written", RunIdTaken(new.id.clone())));
    }
    let plan = json(&*new.plan)?;
    let plan_sha256 = chain::digest(&plan);
    let (plan, unpacked) = pack::pack(plan);
    let head_hash = chain::genesis(new.id.as_str(), &new.plan_digest, &plan_sha256);
    let boot = crate::identity::boot_id().map_err(|error| storage("written", error))?;
    let until_ms = time::boot_now_ms().saturating_add(settings.lease());
    let lock = locks.lock(new.id.as_str(), 1)?;
    execute(
        connection,
        "INSERT INTO runs (id, workflow, environment, destroy, status, created_at, head, head_hash, epoch, owner,
                           owned_since, lease_boot, lease_until_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, ?7, 1, ?8, ?9, ?10, ?11)",
        params![
            new.id.as_str(),
            new.plan.workflow.as_str(),
            new.plan.environment.as_str(),
            new.destroy,
            RunStatus::Running.as_str(),
            new.at.as_microsecond(),
            head_hash,
            text(&new.owner)?,
            time::wall_now().as_microsecond(),
            boot,
            until_ms,
        ],
    )?;
    let number = connection.last_insert_rowid();
    execute(
        connection,
        "INSERT INTO plans (run, digest, body, unpacked, sha256) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![number, new.plan_digest, plan, unpacked, plan_sha256],
    )?;
    execute(connection, "INSERT INTO run_states (run, payload) VALUES (?1, ?2)", params![number, Vec::<u8>::new()])?;
    let head = apply_batch(connection, &new.id, number, 0, head_hash, &new.first)?;
    Ok(Granted { lease: Lease { run: new.id.clone(), epoch: 1, head }, until_ms, lock })
}

fn hold_environment(connection: &Connection, new: &NewRun) -> Result<(), JournalError> {
    let name = &new.plan.environment;
    let found: Option<(String, String, Option<String>)> =
        prepared(connection, "SELECT uid, target, held_by FROM environments WHERE name = ?1")?
            .query_row([name.as_str()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()
            .map_err(sqlite("written"))?;
    let Some((uid, target, held_by)) = found else {
        execute(
            connection,
            "INSERT INTO environments (name, uid, target, held_by, created_at) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                name.as_str(),
                new.environment_uid.as_str(),
                text(&new.target)?,
                new.id.as_str(),
                new.at.as_microsecond()
            ],
        )?;
        return Ok(());
    };
    let other =
        |recorded: String, wanted: String| JournalError::OtherTarget { environment: name.clone(), recorded, wanted };
    if uid != new.environment_uid.as_str() {
        return Err(other(format!("uid {uid}"), format!("uid {}", new.environment_uid)));
    }
    let recorded: serde_json::Value = serde_json::from_str(&target)
        .map_err(|error| JournalError::Damaged(format!("the target of environment {name} is not JSON ({error})")))?;
    if recorded != new.target {
        return Err(other(recorded.to_string(), new.target.to_string()));
    }
    take_hold(connection, name, &new.id, held_by)
}

/// Takes the environment for `run` unless another run holds it.
fn take_hold(
    connection: &Connection,
    name: &EnvironmentName,
    run: &RunId,
    held_by: Option<String>,
) -> Result<(), JournalError> {
    if let Some(holder) = held_by {
        if holder == run.as_str() {
            return Ok(());
        }
        let status: String = connection
            .query_row("SELECT status FROM runs WHERE id = ?1", [&holder], |row| row.get(0))
            .map_err(sqlite("written"))?;
        return Err(JournalError::EnvironmentHeld {
            environment: name.clone(),
            run: crate::read::name(&holder, RunId::new)?,
            status: crate::read::status(&status)?,
        });
    }
    execute(connection, "UPDATE environments SET held_by = ?1 WHERE name = ?2", params![run.as_str(), name.as_str()])?;
    Ok(())
}

/// See [`platflow_engine::journal::Journal::acquire`]. `watched` is an ownership that did not change for a whole lease.
pub(crate) fn acquire(
    connection: &Connection,
    run: &RunId,
    owner: &Owner,
    watched: Option<&Ownership>,
    locks: &LockFolder,
    settings: &StoreSettings,
) -> Result<Acquired, JournalError> {
    let failed = sqlite("written");
    let found = connection
        .query_row(
            "SELECT r.number, r.head, r.environment, e.held_by, r.epoch, r.owner, r.owned_since, r.lease_boot, r.lease_until_ms
             FROM runs r JOIN environments e ON e.name = r.environment WHERE r.id = ?1",
            [run.as_str()],
            |row| {
                let head: i64 = row.get(1)?;
                Ok((head, row.get::<_, String>(2)?, row.get::<_, Option<String>>(3)?, Ownership::from_row(row, 4)?))
            },
        )
        .optional()
        .map_err(&failed)?;
    let Some((head, environment, held_by, ownership)) = found else {
        return Err(JournalError::NotFound { what: "run", text: run.to_string() });
    };
    let unchanged = watched.is_some_and(|seen| seen.epoch == ownership.epoch && seen.until_ms == ownership.until_ms);
    match ownership.liveness(run.as_str(), locks)? {
        Liveness::Free => {}
        Liveness::Elsewhere if unchanged => {}
        Liveness::Elsewhere if watched.is_none() => return Ok(Acquired::Watch(ownership)),
        Liveness::Live | Liveness::Elsewhere => return Err(owned(run, ownership)?),
    }
    // A finished run that is taken up again (to roll it back) holds its environment again.
    take_hold(connection, &crate::read::name(&environment, EnvironmentName::new)?, run, held_by)?;
    let epoch = ownership.epoch + 1;
    let lock = locks.lock(run.as_str(), epoch)?;
    let boot = crate::identity::boot_id().map_err(|error| storage("written", error))?;
    let until_ms = time::boot_now_ms().saturating_add(settings.lease());
    execute(
        connection,
        "UPDATE runs SET epoch = ?1, owner = ?2, owned_since = ?3, lease_boot = ?4, lease_until_ms = ?5 WHERE id = ?6",
        params![integer(epoch)?, text(owner)?, time::wall_now().as_microsecond(), boot, until_ms, run.as_str()],
    )?;
    let head = u64::try_from(head).map_err(|error| storage("read", error))?;
    Ok(Acquired::Granted(Granted { lease: Lease { run: run.clone(), epoch, head }, until_ms, lock }))
}

fn owned(run: &RunId, ownership: Ownership) -> Result<JournalError, JournalError> {
    let since = crate::read::timestamp(ownership.since)?;
    Ok(match ownership.owner {
        Some(owner) => JournalError::Owned { run: run.clone(), owner: Box::new(owner), since },
        None => JournalError::Damaged(format!("run {run} is leased but names no owner")),
    })
}

/// See [`platflow_engine::journal::Journal::append`].
pub(crate) fn append(
    connection: &Connection,
    lease: &Lease,
    expected: Sequence,
    batch: &Batch,
) -> Result<Sequence, JournalError> {
    let found: Option<(i64, i64, i64, Hash, bool)> = connection
        .prepare_cached("SELECT number, epoch, head, head_hash, owner IS NOT NULL FROM runs WHERE id = ?1")
        .and_then(|mut statement| {
            statement
                .query_row([lease.run.as_str()], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
                })
                .optional()
        })
        .map_err(sqlite("written"))?;
    let Some((number, epoch, head, head_hash, owned)) = found else {
        return Err(JournalError::NotFound { what: "run", text: lease.run.to_string() });
    };
    let current = u64::try_from(epoch).unwrap_or_default();
    if current != lease.epoch || !owned || head != integer(expected)? {
        return Err(JournalError::Stale { run: lease.run.clone(), ours: lease.epoch, current });
    }
    apply_batch(connection, &lease.run, number, head, head_hash, batch)
}

/// Writes a batch after `head`; returns the new last sequence.
fn apply_batch(
    connection: &Connection,
    run: &RunId,
    number: i64,
    head: i64,
    head_hash: Hash,
    batch: &Batch,
) -> Result<Sequence, JournalError> {
    let (sequence, hash) = append_events(connection, number, (head, head_hash), &batch.events)?;
    execute(
        connection,
        "UPDATE runs SET head = ?1, head_hash = ?2, status = coalesce(?3, status) WHERE number = ?4",
        params![sequence, hash, batch.status.map(RunStatus::as_str), number],
    )?;
    let mut states = prepared(connection, PUT_STATE)?;
    for row in &batch.steps {
        put_state(&mut states, run, number, row)?;
    }
    if let Some(payload) = &batch.run_payload {
        let sealed = seal::seal(&[run.as_str()], payload);
        execute(connection, "UPDATE run_states SET payload = ?1 WHERE run = ?2", params![sealed, number])?;
    }
    if !batch.record.is_empty() {
        apply_record(connection, run, number, &batch.record)?;
    }
    if batch.releases_environment {
        execute(connection, "UPDATE environments SET held_by = NULL WHERE held_by = ?1", [run.as_str()])?;
    }
    u64::try_from(sequence).map_err(|error| storage("written", error))
}

/// Writes events after the end of the chain; returns its new end, which the last of them carries.
fn append_events(
    connection: &Connection,
    number: i64,
    (mut sequence, mut hash): (i64, Hash),
    events: &[EncodedEvent],
) -> Result<(i64, Hash), JournalError> {
    let recorded_at = time::wall_now().as_microsecond();
    let last = sequence.saturating_add(i64::try_from(events.len()).map_err(|error| storage("written", error))?);
    let mut insert = prepared(
        connection,
        "INSERT INTO events (id, kind, step, payload, recorded_at, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    for event in events {
        sequence += 1;
        let step = event.step.as_ref().map(|step| step.as_str());
        hash = chain::next(&hash, &Link { sequence, kind: event.kind, step, payload: &event.payload, recorded_at });
        let end = (sequence == last).then_some(hash);
        insert
            .execute(params![place::of(number, sequence)?, event.kind, step, event.payload, recorded_at, end])
            .map_err(sqlite("written"))?;
    }
    Ok((sequence, hash))
}

const PUT_STATE: &str =
    "INSERT INTO step_states (run, step, state, intent, outcome, payload, sum) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
     ON CONFLICT (run, step) DO UPDATE SET state = excluded.state, intent = excluded.intent,
         outcome = excluded.outcome, payload = excluded.payload, sum = excluded.sum";

fn put_state(statement: &mut CachedStatement<'_>, run: &RunId, number: i64, row: &StepRow) -> Result<(), JournalError> {
    let place = |sequence: Option<Sequence>| sequence.map(integer).transpose();
    let (intent, outcome) = (place(row.intent)?, place(row.outcome)?);
    let told = seal::StateSum { run: run.as_str(), step: row.step.as_str(), state: row.state, intent, outcome };
    let sealed =
        params![number, row.step.as_str(), row.state, intent, outcome, row.payload, told.over(row.payload.as_deref()),];
    statement.execute(sealed).map(|_| ()).map_err(sqlite("written"))
}

fn apply_record(
    connection: &Connection,
    run: &RunId,
    number: i64,
    changes: &[RecordChange],
) -> Result<(), JournalError> {
    let uid: String = connection
        .prepare_cached("SELECT e.uid FROM runs r JOIN environments e ON e.name = r.environment WHERE r.number = ?1")
        .and_then(|mut statement| statement.query_row([number], |row| row.get(0)))
        .map_err(sqlite("written"))?;
    let mut record = Record::of(connection, &uid)?;
    for change in changes {
        match change {
            RecordChange::Own { step } => record.put(step, run, None)?,
            RecordChange::Put(step) => record.put(&step.step, &step.run, Some(&json(step)?))?,
            RecordChange::Gone { step, next_generation } => {
                record.strike(step, *next_generation)?;
                record.remember(step)?;
            }
            RecordChange::Forgotten { step, next_generation } => {
                record.strike(step, *next_generation)?;
                record.forget(step, number)?;
            }
        }
    }
    Ok(())
}

/// The record of an environment while an append changes it.
struct Record<'a> {
    connection: &'a Connection,
    uid: &'a str,
    put: CachedStatement<'a>,
    /// Some step of it is remembered by its generation alone.
    any_gone: bool,
    /// Some step of it is struck off.
    any_forgotten: bool,
}

impl<'a> Record<'a> {
    fn of(connection: &'a Connection, uid: &'a str) -> Result<Self, JournalError> {
        let any = |sql: &str| {
            let mut statement = prepared(connection, sql)?;
            statement.query_row([uid], |row| row.get(0)).map_err(sqlite("written"))
        };
        Ok(Self {
            connection,
            uid,
            put: prepared(
                connection,
                "INSERT INTO recorded_steps (environment, step, run, body, sum) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (environment, step) DO UPDATE SET run = excluded.run, body = excluded.body, sum = excluded.sum",
            )?,
            any_gone: any("SELECT EXISTS (SELECT 1 FROM generations WHERE environment = ?1)")?,
            any_forgotten: any("SELECT EXISTS (SELECT 1 FROM forgotten_steps WHERE environment = ?1)")?,
        })
    }

    /// Writes a row: the state of the step in a run, or a body of its own.
    fn put(&mut self, step: &StepName, run: &RunId, body: Option<&[u8]>) -> Result<(), JournalError> {
        let sum = seal::record(self.uid, step.as_str(), run.as_str(), body);
        self.put.execute(params![self.uid, step.as_str(), run.as_str(), body, sum]).map_err(sqlite("written"))?;
        if self.any_gone {
            execute(
                self.connection,
                "DELETE FROM generations WHERE environment = ?1 AND step = ?2",
                params![self.uid, step.as_str()],
            )?;
        }
        self.remember(step)
    }

    /// Takes a step off the record; its next creation uses `next_generation`.
    fn strike(&mut self, step: &StepName, next_generation: u32) -> Result<(), JournalError> {
        execute(
            self.connection,
            "DELETE FROM recorded_steps WHERE environment = ?1 AND step = ?2",
            params![self.uid, step.as_str()],
        )?;
        execute(
            self.connection,
            "INSERT INTO generations (environment, step, next_generation) VALUES (?1, ?2, ?3)
             ON CONFLICT (environment, step) DO UPDATE SET next_generation = excluded.next_generation",
            params![self.uid, step.as_str(), next_generation],
        )?;
        self.any_gone = true;
        Ok(())
    }

    fn forget(&mut self, step: &StepName, number: i64) -> Result<(), JournalError> {
        execute(
            self.connection,
            "INSERT INTO forgotten_steps (environment, step, run) VALUES (?1, ?2, ?3)
             ON CONFLICT (environment, step) DO UPDATE SET run = excluded.run",
            params![self.uid, step.as_str(), number],
        )?;
        self.any_forgotten = true;
        Ok(())
    }

    /// What was built again, or proven gone, is no longer forgotten.
    fn remember(&self, step: &StepName) -> Result<(), JournalError> {
        if self.any_forgotten {
            execute(
                self.connection,
                "DELETE FROM forgotten_steps WHERE environment = ?1 AND step = ?2",
                params![self.uid, step.as_str()],
            )?;
        }
        Ok(())
    }
}

/// See [`platflow_engine::journal::Journal::release`].
pub(crate) fn release(connection: &Connection, lease: &Lease) -> Result<(), JournalError> {
    let released = execute(
        connection,
        "UPDATE runs SET owner = NULL, owned_since = NULL, lease_boot = NULL, lease_until_ms = NULL
         WHERE id = ?1 AND epoch = ?2",
        params![lease.run.as_str(), integer(lease.epoch)?],
    )?;
    if released == 1 {
        // Taken up again and left as finished as it was: it needs its environment no longer.
        execute(
            connection,
            "UPDATE environments SET held_by = NULL
             WHERE held_by = ?1 AND (SELECT status FROM runs WHERE id = ?1) IN ('done', 'rolled-back', 'abandoned')",
            [lease.run.as_str()],
        )?;
    }
    Ok(())
}
