//! A run's journal: its end as the run's row has it, and its events, checked against gaps and against the chain.

use super::{damaged, name, not_found, sequence, timestamp};
use crate::chain::{self, Hash, Link};
use crate::failure::sqlite;
use crate::place;
use platflow_engine::journal::{JournalError, StoredEvent};
use platflow_engine::name::{RunId, StepName};
use rusqlite::types::FromSqlError;
use rusqlite::{Connection, OptionalExtension, Row, params};

/// The end of a run's journal as its row has it, and what its chain starts from.
pub(super) struct Journaled<'a> {
    pub(super) run: &'a RunId,
    pub(super) number: i64,
    pub(super) head: i64,
    pub(super) head_hash: Hash,
    pub(super) plan_digest: String,
    pub(super) genesis: Hash,
}

/// An event of the engine's from its columns.
fn stored_event(link: &Link<'_>) -> Result<StoredEvent, JournalError> {
    let step = link.step.map(|step| name(step, StepName::new)).transpose()?;
    Ok(StoredEvent {
        sequence: sequence(link.sequence)?,
        kind: link.kind.to_owned(),
        step,
        payload: link.payload.to_vec(),
        recorded_at: timestamp(link.recorded_at)?,
    })
}

impl<'a> Journaled<'a> {
    pub(super) fn of(connection: &Connection, run: &'a RunId) -> Result<Self, JournalError> {
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

    fn broken(&self, at: i64) -> JournalError {
        damaged(format!("event {at} of run {} does not fit the run's head: the hash chain is broken", self.run))
    }

    /// The run's head must be the last event, with the hash that the last append wrote.
    pub(super) fn check_tail(&self, connection: &Connection) -> Result<(), JournalError> {
        let (first, last) = place::range(self.number)?;
        let found: Option<(i64, Option<Hash>)> = connection
            .prepare_cached("SELECT id, hash FROM events WHERE id BETWEEN ?1 AND ?2 ORDER BY id DESC LIMIT 1")
            .and_then(|mut statement| {
                statement.query_row([first, last], |row| Ok((row.get(0)?, row.get(1)?))).optional()
            })
            .map_err(sqlite("read"))?;
        let (last, hash) = found.map_or((0, Some(self.genesis)), |(id, hash)| (place::sequence(id), hash));
        if last != self.head {
            return Err(damaged(format!(
                "the journal of run {} ends at event {last}, its head says {}",
                self.run, self.head
            )));
        }
        if hash != Some(self.head_hash) {
            return Err(self.broken(last));
        }
        // The last links are recomputed: an altered last event is seen without reading the whole chain.
        self.chain_from(connection, (last - 1).max(0), 1).map(|_| ())
    }

    /// The last place at or before `sequence` that has its hash written under it: events of one append share one.
    fn known_before(&self, connection: &Connection, sequence: i64) -> Result<(i64, Hash), JournalError> {
        let ((first, _), last) = (place::range(self.number)?, place::of(self.number, sequence)?);
        let found: Option<(i64, Hash)> = connection
            .prepare_cached(
                "SELECT id, hash FROM events WHERE id BETWEEN ?1 AND ?2 AND hash IS NOT NULL ORDER BY id DESC LIMIT 1",
            )
            .and_then(|mut statement| {
                statement.query_row([first, last], |row| Ok((row.get(0)?, row.get(1)?))).optional()
            })
            .map_err(sqlite("read"))?;
        Ok(found.map_or((0, self.genesis), |(id, hash)| (place::sequence(id), hash)))
    }

    /// Reads and checks events after `after`, see [`Self::walk`].
    pub(super) fn chain_from(
        &self,
        connection: &Connection,
        after: i64,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, JournalError> {
        let mut events = Vec::new();
        self.walk(connection, after, limit, &mut |link| {
            events.push(stored_event(link)?);
            Ok(())
        })?;
        Ok(events)
    }

    /// Checks events after `after`, from the last hash before them to the first one after them, and shows `limit` of them
    /// at most: each before the hash that covers it is reached, so that nothing may be done with them until this returns.
    pub(super) fn walk(
        &self,
        connection: &Connection,
        after: i64,
        limit: usize,
        show: &mut dyn FnMut(&Link<'_>) -> Result<(), JournalError>,
    ) -> Result<(), JournalError> {
        let failed = sqlite("read");
        if after >= self.head || limit == 0 {
            return Ok(());
        }
        let (mut at, mut hash) = self.known_before(connection, after)?;
        let mut statement = connection
            .prepare_cached(
                "SELECT id, kind, step, payload, recorded_at, hash FROM events WHERE id BETWEEN ?1 AND ?2 ORDER BY id",
            )
            .map_err(&failed)?;
        let (_, last) = place::range(self.number)?;
        let mut rows = statement.query(params![place::of(self.number, at)? + 1, last]).map_err(&failed)?;
        let (mut shown, mut ended) = (0, false);
        while let Some(row) = rows.next().map_err(&failed)? {
            at += 1;
            let (link, known) = self.link(row, at, &mut hash)?;
            if at > after && shown < limit {
                show(&link)?;
                shown += 1;
            }
            ended = known;
            if known && shown >= limit {
                break;
            }
        }
        if at > self.head || (shown < limit && at != self.head) {
            return Err(damaged(format!(
                "event {} of run {} is missing, the head says {}",
                at + 1,
                self.run,
                self.head
            )));
        }
        if (at == self.head && hash != self.head_hash) || !ended {
            return Err(self.broken(at));
        }
        Ok(())
    }

    /// Reads one event and carries the chain on over it; true when the chain so far is written under it, and is right.
    fn link<'r>(&self, row: &'r Row<'_>, expected: i64, hash: &mut Hash) -> Result<(Link<'r>, bool), JournalError> {
        let failed = sqlite("read");
        let column = |at| row.get_ref(at).map_err(&failed);
        let malformed = |error: FromSqlError| failed(error.into());
        let found = place::sequence(row.get(0).map_err(&failed)?);
        if found != expected {
            return Err(damaged(format!("event {expected} of run {} is missing, {found} follows", self.run)));
        }
        let kind = column(1)?.as_str().map_err(malformed)?;
        let step = column(2)?.as_str_or_null().map_err(malformed)?;
        let payload = column(3)?.as_blob().map_err(malformed)?;
        let recorded_at = column(4)?.as_i64().map_err(malformed)?;
        let stored: Option<Hash> = row.get(5).map_err(&failed)?;
        let link = Link { sequence: found, kind, step, payload, recorded_at };
        *hash = chain::next(hash, &link);
        if stored.is_some_and(|stored| stored != *hash) {
            return Err(damaged(format!("event {expected} of run {} was altered: the hash chain is broken", self.run)));
        }
        Ok((link, stored.is_some()))
    }
}
