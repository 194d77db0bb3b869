//! The journal in memory: the contract of the port without a disk, for tests and rehearsals.
//!
//! It keeps everything the file keeps and can die at any event: appends stop in the middle of a batch, as they would if
//! every fact were its own transaction. Owners die when they are said to, not by the clock.

mod tables;

use crate::clock::Clock;
use crate::drive::batch::Builder;
use crate::event::Event;
use crate::fold::{self, Run};
use crate::journal::{
    Batch, EnvironmentRow, Journal, JournalError, Lease, LoadedRun, NewRun, Owner, RecordRow, RunSummary, Sequence,
    StoredEvent,
};
use crate::name::{EnvironmentName, EnvironmentUid, RunId, StepName};
use async_trait::async_trait;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tables::{Held, Stored, Tables};

/// How long a lease of this journal always has left while its owner lives.
const LEASE: Duration = Duration::from_secs(10);

/// The process that used this journal is dead, as far as the journal is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the process died here")]
pub struct Died;

/// A journal in memory.
pub struct MemoryJournal {
    clock: Arc<dyn Clock>,
    tables: Mutex<Tables>,
}

impl std::fmt::Debug for MemoryJournal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("MemoryJournal").field("tables", &*self.tables()).finish_non_exhaustive()
    }
}

fn died(doing: &'static str) -> JournalError {
    JournalError::Storage { doing, source: Box::new(Died) }
}

fn defect(error: impl std::error::Error + Send + Sync + 'static) -> JournalError {
    JournalError::Storage { doing: "written", source: Box::new(error) }
}

impl MemoryJournal {
    /// An empty journal; events are stamped with this clock.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, tables: Mutex::new(Tables::default()) }
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An independent copy of everything, with every owner dead: what another process finds.
    #[must_use]
    pub fn copy(&self) -> Self {
        let mut tables = self.tables().clone();
        tables.revive();
        Self { clock: Arc::clone(&self.clock), tables: Mutex::new(tables) }
    }

    /// From now on the process dies the moment the journal of any run reaches `sequence`: that event is durable, nothing
    /// after it is, and nobody hears of it.
    pub fn die_at(&self, sequence: Sequence) {
        self.tables().die_at = Some(sequence);
    }

    /// The process is dead now: nothing is written or read, and no lease lasts.
    pub fn die(&self) {
        self.tables().dead = true;
    }

    /// True once the process is dead.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.tables().dead
    }

    /// Another process opens the journal: it works again, and every earlier owner is known to be dead.
    pub fn revive(&self) {
        self.tables().revive();
    }

    /// The owner of a run is taken for dead, whether it is or not: the next `acquire` succeeds.
    pub fn presume_dead(&self, run: &RunId) {
        if let Some(stored) = self.tables().runs.get_mut(run) {
            stored.held = None;
        }
    }

    /// Every event of a run, decoded.
    ///
    /// # Errors
    /// Unknown run, or an event that cannot be read.
    pub fn story(&self, run: &RunId) -> Result<Vec<Event>, JournalError> {
        let tables = self.tables();
        let stored = tables.run(run)?;
        stored.events.iter().map(|event| fold::decode(event).map_err(defect)).collect()
    }

    /// The newest event of a run that is wanted. It reads from the end: what is asked for is rarely far back, and a story
    /// read from its beginning at every call would make a sweep quadratic.
    ///
    /// # Errors
    /// Unknown run, or an event that cannot be read.
    pub fn newest(&self, run: &RunId, wanted: impl Fn(&Event) -> bool) -> Result<Option<Event>, JournalError> {
        let tables = self.tables();
        for stored in tables.run(run)?.events.iter().rev() {
            let event = fold::decode(stored).map_err(defect)?;
            if wanted(&event) {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// Folds the whole journal of a run from its events alone.
    ///
    /// # Errors
    /// Unknown run, or events that do not add up.
    pub fn refold(&self, run: &RunId) -> Result<Run, JournalError> {
        let tables = self.tables();
        let stored = tables.run(run)?;
        Run::refold(run.clone(), Arc::clone(&stored.plan), &stored.events).map_err(defect)
    }
}

/// The batch that would have been written if the process had died after its first `count` events.
fn prefix(id: &RunId, stored: &Stored, batch: &Batch, count: usize, clock: &dyn Clock) -> Result<Batch, JournalError> {
    let mut run = Run::refold(id.clone(), Arc::clone(&stored.plan), &stored.events).map_err(defect)?;
    let mut builder = Builder::default();
    for event in batch.events.iter().take(count) {
        let event = StoredEvent {
            sequence: run.head + 1,
            kind: event.kind.to_owned(),
            step: event.step.clone(),
            payload: event.payload.clone(),
            recorded_at: clock.now(),
        };
        let event = fold::decode(&event).map_err(defect)?;
        builder.apply(&mut run, event).map_err(defect)?;
    }
    Ok(builder.finish(&run).map_err(defect)?.0)
}

#[async_trait]
impl Journal for MemoryJournal {
    async fn create_run(&self, new: NewRun) -> Result<Lease, JournalError> {
        let mut tables = self.tables();
        tables.alive("written")?;
        let id = new.id.clone();
        let head = tables.create(new, self.clock.now())?;
        // The first batch is what makes the run: it is there whole or not at all.
        if tables.die_at.is_some_and(|end| head >= end) {
            tables.dead = true;
            return Err(died("written"));
        }
        Ok(Lease { run: id, epoch: 1, head })
    }

    async fn acquire(&self, run: &RunId, owner: &Owner) -> Result<Lease, JournalError> {
        let mut tables = self.tables();
        tables.alive("written")?;
        let stored = tables.run(run)?;
        if let Some(held) = &stored.held {
            return Err(JournalError::Owned {
                run: run.clone(),
                owner: Box::new(held.owner.clone()),
                since: held.since,
            });
        }
        let environment = stored.plan.environment.clone();
        tables.hold(&environment, run)?;
        let since = self.clock.now();
        let stored = tables.run_mut(run)?;
        stored.epoch += 1;
        stored.owner = Some(owner.clone());
        stored.held = Some(Held { owner: owner.clone(), since });
        Ok(Lease { run: run.clone(), epoch: stored.epoch, head: stored.head() })
    }

    fn lease_left(&self, lease: &Lease) -> Result<Duration, JournalError> {
        let tables = self.tables();
        tables.alive("read")?;
        let stored = tables.run(&lease.run)?;
        stored.owned_by(lease)?;
        Ok(LEASE)
    }

    async fn release(&self, lease: &Lease) -> Result<(), JournalError> {
        let mut tables = self.tables();
        tables.alive("written")?;
        let stored = tables.run_mut(&lease.run)?;
        if stored.owned_by(lease).is_err() {
            return Ok(());
        }
        stored.held = None;
        if stored.status.is_final() {
            tables.let_go(&lease.run);
        }
        Ok(())
    }

    async fn append(&self, lease: &Lease, expected: Sequence, batch: Batch) -> Result<Sequence, JournalError> {
        let mut tables = self.tables();
        tables.alive("written")?;
        let die_at = tables.die_at;
        let stored = tables.run(&lease.run)?;
        stored.owned_by(lease)?;
        let head = stored.head();
        if head != expected {
            return Err(JournalError::Stale { run: lease.run.clone(), ours: lease.epoch, current: stored.epoch });
        }
        let end = head + batch.events.len() as u64;
        let now = self.clock.now();
        let Some(last) = die_at.filter(|last| end >= *last) else {
            tables.write(&lease.run, batch, now)?;
            return Ok(end);
        };
        if last > head {
            let count = usize::try_from(last - head).unwrap_or(usize::MAX);
            let part = prefix(&lease.run, stored, &batch, count, &*self.clock)?;
            tables.write(&lease.run, part, now)?;
        }
        tables.dead = true;
        Err(died("written"))
    }

    async fn load(&self, run: &RunId) -> Result<LoadedRun, JournalError> {
        let tables = self.tables();
        tables.alive("read")?;
        tables.load(run)
    }

    async fn events(&self, run: &RunId, after: Sequence, limit: usize) -> Result<Vec<StoredEvent>, JournalError> {
        let tables = self.tables();
        tables.alive("read")?;
        let stored = tables.run(run)?;
        Ok(stored.events.iter().filter(|event| event.sequence > after).take(limit).cloned().collect())
    }

    async fn list(&self, environment: Option<&EnvironmentName>, limit: usize) -> Result<Vec<RunSummary>, JournalError> {
        let tables = self.tables();
        tables.alive("read")?;
        tables.list(environment, limit)
    }

    async fn find(&self, prefix: &str) -> Result<RunId, JournalError> {
        let tables = self.tables();
        tables.alive("read")?;
        tables.find(prefix)
    }

    async fn environment(&self, name: &EnvironmentName) -> Result<Option<EnvironmentRow>, JournalError> {
        let tables = self.tables();
        tables.alive("read")?;
        Ok(tables.environments.get(name).cloned())
    }

    async fn record_rows(
        &self,
        environment: &EnvironmentUid,
        except: Option<&RunId>,
    ) -> Result<Vec<RecordRow>, JournalError> {
        let tables = self.tables();
        tables.alive("read")?;
        tables.record_rows(environment, except)
    }

    async fn generations(&self, environment: &EnvironmentUid) -> Result<Vec<(StepName, u32)>, JournalError> {
        let tables = self.tables();
        tables.alive("read")?;
        let rows = tables.generations.iter().filter(|((uid, _), _)| uid == environment);
        Ok(rows.map(|((_, step), generation)| (step.clone(), *generation)).collect())
    }

    async fn forgotten(&self, environment: &EnvironmentUid) -> Result<Vec<StepName>, JournalError> {
        let tables = self.tables();
        tables.alive("read")?;
        let rows = tables.forgotten.iter().filter(|(uid, _)| uid == environment);
        Ok(rows.map(|(_, step)| step.clone()).collect())
    }
}
