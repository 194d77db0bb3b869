//! The floor: the rows that the engine writes, with the same bytes, in a plain loop over rusqlite at the same durability.
//! No engine, no threads, no hash chain, no lease: nothing that is not a row.
//!
//! The rows come from a run of the engine on the side, so that both always write the same. A chain commits after every
//! batch, as it must; anything wider commits as many steps together as may be in flight.

use crate::Failure;
use crate::measure::{Figures, Reading, file_bytes};
use crate::plans::Shape;
use crate::subject::{self, Load, state_file};
use platflow_engine::journal::{Batch, RecordChange};
use rusqlite::{Connection, params};
use std::path::Path;
use std::time::{Duration, Instant};

/// As long as they are in a real file.
const RECORDED_AT: i64 = 1_790_000_000_000_000;
const SUM: [u8; 8] = [7; 8];

/// Measures the floor of a load.
pub(crate) async fn measured(place: &Path, load: Load) -> Result<Figures, Failure> {
    let (model, floor) = (place.join("model"), place.join("floor"));
    for folder in [&model, &floor] {
        std::fs::create_dir_all(folder)?;
    }
    let batches = subject::batches(&model, load).await?;
    // Its tables, its run and its plan, without any of its events.
    std::fs::copy(state_file(&model), state_file(&floor))?;
    let connection = open(&state_file(&floor))?;
    connection.execute_batch(
        "DELETE FROM events; DELETE FROM step_states; DELETE FROM recorded_steps; VACUUM;
         PRAGMA wal_checkpoint(TRUNCATE);",
    )?;
    let together = if load.shape == Shape::Chain && load.runs == 1 { 1 } else { load.in_flight };
    let empty = file_bytes(&state_file(&floor));
    let before = Reading::now();
    let samples = write(&connection, &batches, together)?;
    let grown = file_bytes(&state_file(&floor)).saturating_sub(empty);
    Ok(before.since((load.steps * load.runs) as u64, grown, samples))
}

fn open(path: &Path) -> Result<Connection, Failure> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 1_000)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Writes all, committing once `together` steps have come to their end; how long each commit took, with its writes.
fn write(connection: &Connection, batches: &[Batch], together: usize) -> Result<Vec<Duration>, Failure> {
    let mut samples = Vec::with_capacity(batches.len());
    let (mut sequence, mut steps, mut begun) = (0, 0, None);
    for (number, batch) in batches.iter().enumerate() {
        let since = match begun {
            Some(since) => since,
            None => {
                begun = Some(Instant::now());
                connection.execute_batch("BEGIN IMMEDIATE")?;
                begun.unwrap_or_else(Instant::now)
            }
        };
        sequence = rows(connection, batch, sequence)?;
        steps += batch.events.iter().filter(|event| event.kind == "step-verified").count();
        if steps >= together || together == 1 || number + 1 == batches.len() {
            connection.execute_batch("COMMIT")?;
            samples.push(since.elapsed());
            (steps, begun) = (0, None);
        }
    }
    Ok(samples)
}

/// Writes one batch after `sequence`; returns the new last one.
fn rows(connection: &Connection, batch: &Batch, mut sequence: i64) -> Result<i64, Failure> {
    let hash = [7_u8; 32];
    let last = sequence + i64::try_from(batch.events.len()).unwrap_or(i64::MAX);
    for event in &batch.events {
        sequence += 1;
        connection
            .prepare_cached(
                "INSERT INTO events (id, kind, step, payload, recorded_at, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                (1_i64 << 32) | sequence,
                event.kind,
                event.step.as_ref().map(|step| step.as_str()),
                event.payload,
                RECORDED_AT,
                (sequence == last).then_some(hash),
            ])?;
    }
    connection
        .prepare_cached("UPDATE runs SET head = ?1, head_hash = ?2 WHERE number = 1")?
        .execute(params![sequence, hash])?;
    for row in &batch.steps {
        let place = |event: Option<u64>| event.and_then(|event| i64::try_from(event).ok());
        connection
            .prepare_cached(
                "INSERT INTO step_states (run, step, state, intent, outcome, payload, sum) VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (run, step) DO UPDATE SET state = excluded.state, intent = excluded.intent,
                     outcome = excluded.outcome, payload = excluded.payload, sum = excluded.sum",
            )?
            .execute(params![row.step.as_str(), row.state, place(row.intent), place(row.outcome), row.payload, SUM])?;
    }
    for change in &batch.record {
        let RecordChange::Own { step } = change else { continue };
        connection
            .prepare_cached(
                "INSERT INTO recorded_steps (environment, step, run, body, sum) VALUES ('bench-0', ?1, 'bench-0', NULL, ?2)
                 ON CONFLICT (environment, step) DO UPDATE SET run = excluded.run, body = excluded.body, sum = excluded.sum",
            )?
            .execute(params![step.as_str(), SUM])?;
    }
    Ok(sequence)
}
