//! The journal port: durable facts, leases with epochs, and the environment's record, behind one trait.
//!
//! The store keeps sequence, kind and payload and interprets nothing: every row it writes beside the events is made by
//! the engine and handed over in the same [`Batch`]. Implementations: `state` (SQLite) and `memory` (tests, rehearsal).

use crate::fold;
use crate::name::{EnvironmentName, EnvironmentUid, KindName, RunId, StepName, WorkflowName};
use crate::plan::{Plan, PlannedStep};
use crate::step::UndoPlan;
use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

mod failure;

pub use failure::JournalError;

/// The position of an event in its run's journal: gap-free from 1.
pub type Sequence = u64;

/// Who drives a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Host name.
    pub host: String,
    /// Process id on that host.
    pub pid: u32,
    /// Start time of that process in clock ticks since boot (`/proc/<pid>/stat` field 22), so a reused pid is told apart.
    pub process_started: u64,
    /// The host's boot id.
    pub boot_id: String,
    /// Operating-system user.
    pub user: String,
}

/// A lease on a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The run.
    pub run: RunId,
    /// Fences out every earlier owner.
    pub epoch: u64,
    /// The last sequence in the journal when the lease was granted.
    pub head: Sequence,
}

/// The status of a run as far as lists and locks need it; a function of the states of its steps, written with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunStatus {
    /// An owner drives it, or drove it and vanished.
    Running,
    /// It stopped and waits; resumable.
    Parked,
    /// Undo is under way.
    RollingBack,
    /// Every step verified or skipped.
    Done,
    /// Rolled back completely.
    RolledBack,
    /// Given up by the operator.
    Abandoned,
}

impl RunStatus {
    /// True when nothing more happens to the run: it no longer holds its environment.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::RolledBack | Self::Abandoned)
    }

    /// The stable text form, as in JSON and SQL.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Parked => "parked",
            Self::RollingBack => "rolling-back",
            Self::Done => "done",
            Self::RolledBack => "rolled-back",
            Self::Abandoned => "abandoned",
        }
    }
}

/// A run to be created, with the hold on its environment, in one transaction with its first batch.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// Chosen by the caller; refused if taken.
    pub id: RunId,
    /// Pinned plan, shared with the run: it may be large.
    pub plan: Arc<Plan>,
    /// [`Plan::digest`].
    pub plan_digest: String,
    /// The environment's uid; must be the recorded one if the environment exists.
    pub environment_uid: EnvironmentUid,
    /// What the environment is pinned to (world id, or partition + account + region …). Opaque to the store.
    pub target: Value,
    /// Who starts it.
    pub owner: Owner,
    /// A destroy run.
    pub destroy: bool,
    /// When.
    pub at: Timestamp,
    /// The first events and rows.
    pub first: Batch,
}

/// An event as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedEvent {
    /// [`crate::event::Event::kind`].
    pub kind: &'static str,
    /// The step it is about.
    pub step: Option<StepName>,
    /// JSON, without kind and step.
    pub payload: Vec<u8>,
}

/// The cached fold of one step: written in the same transaction as the events that changed it. What an event of the run
/// tells is not told again: the row says which one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepRow {
    /// The step.
    pub step: StepName,
    /// Name of its state, for lists (`pending`, `intended`, …).
    pub state: &'static str,
    /// The event that its spec comes from, if any does.
    pub intent: Option<Sequence>,
    /// The event that its outputs come from, if any does.
    pub outcome: Option<Sequence>,
    /// The rest of the folded state as JSON; nothing where it follows from these two events.
    pub payload: Option<Vec<u8>>,
}

/// The environment's record of one step: what exists because of platflow, across runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordedStep {
    /// The step.
    pub step: StepName,
    /// Its kind.
    pub kind: KindName,
    /// The spec it was last intended or verified with.
    pub spec: Value,
    /// Its outputs, if it was ever verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Value>,
    /// Ids noted while it was made.
    #[serde(default, skip_serializing_if = "crate::event::Notes::is_empty")]
    pub notes: crate::event::Notes,
    /// How often it was rebuilt after a proven end.
    pub generation: u32,
    /// False between an intent and its outcome: the world may or may not hold it.
    pub settled: bool,
    /// Dependencies, for a destroy without the runbook.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<StepName>,
    /// Extra teardown edges.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undo_after: Vec<StepName>,
    /// How it is undone.
    pub undo: UndoPlan,
    /// The run that wrote this row.
    pub run: RunId,
}

/// A change to the environment's record.
#[derive(Debug, Clone, PartialEq)]
pub enum RecordChange {
    /// From now on the folded state of the step in this run is its record.
    Own {
        /// The step.
        step: StepName,
    },
    /// Insert or replace.
    Put(Box<RecordedStep>),
    /// Proven gone; only its generation is remembered (tokens of a dead resource must not come back).
    Gone {
        /// The step.
        step: StepName,
        /// The generation that the next creation uses.
        next_generation: u32,
    },
    /// Struck off by the operator: nobody proved that it is gone, and what is left of it is not held against a rollback.
    Forgotten {
        /// The step.
        step: StepName,
        /// The generation that the next creation uses.
        next_generation: u32,
    },
}

/// One atomic append.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// New facts in order.
    pub events: Vec<EncodedEvent>,
    /// Changed step states.
    pub steps: Vec<StepRow>,
    /// Changed environment record.
    pub record: Vec<RecordChange>,
    /// The run's status after this batch, if it changed.
    pub status: Option<RunStatus>,
    /// The folded run-level state as JSON, if it changed.
    pub run_payload: Option<Vec<u8>>,
    /// A final status releases the environment's hold in the same transaction.
    pub releases_environment: bool,
}

/// An event read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Position.
    pub sequence: Sequence,
    /// Kind as stored.
    pub kind: String,
    /// The step it is about.
    pub step: Option<StepName>,
    /// JSON, without kind and step; whole in journals of earlier versions.
    pub payload: Vec<u8>,
    /// Real time at which it was committed.
    pub recorded_at: Timestamp,
}

/// One line of `list`.
#[derive(Debug, Clone, PartialEq)]
pub struct RunSummary {
    /// Its id.
    pub id: RunId,
    /// The runbook.
    pub workflow: WorkflowName,
    /// What it builds.
    pub environment: EnvironmentName,
    /// The environment's uid.
    pub environment_uid: EnvironmentUid,
    /// Its status.
    pub status: RunStatus,
    /// A destroy run.
    pub destroy: bool,
    /// When it was created.
    pub created_at: Timestamp,
    /// The last owner.
    pub owner: Option<Owner>,
    /// The owner is provably alive, or its lease still runs.
    pub owner_live: bool,
    /// The last event.
    pub head: Sequence,
}

/// A run read back for resuming or showing.
#[derive(Debug, Clone)]
pub struct LoadedRun {
    /// The summary row.
    pub summary: RunSummary,
    /// The pinned plan.
    pub plan: Plan,
    /// Its digest as recorded.
    pub plan_digest: String,
    /// Folded run-level state as written with the last batch.
    pub run_payload: Vec<u8>,
    /// Cached fold of every step that has left `pending`, by step.
    pub steps: Vec<LoadedStep>,
}

/// The row of a step read back, with the events that it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedStep {
    /// The step.
    pub step: StepName,
    /// Name of its state.
    pub state: String,
    /// The event that its spec comes from.
    pub intent: Option<StoredEvent>,
    /// The event that its outputs come from.
    pub outcome: Option<StoredEvent>,
    /// The rest of the folded state.
    pub payload: Option<Vec<u8>>,
}

/// A row of the environment's record.
#[derive(Debug, Clone, PartialEq)]
pub enum RecordRow {
    /// Written out.
    Explicit(Box<RecordedStep>),
    /// The folded state of a step in a run.
    Own {
        /// The run.
        run: RunId,
        /// The step as that run's plan has it.
        planned: Box<PlannedStep>,
        /// Its row.
        row: Box<LoadedStep>,
    },
}

/// An environment on record.
#[derive(Debug, Clone, PartialEq)]
pub struct EnvironmentRow {
    /// Its name.
    pub name: EnvironmentName,
    /// Its uid.
    pub uid: EnvironmentUid,
    /// What it is pinned to.
    pub target: Value,
    /// The unfinished run that holds it.
    pub held_by: Option<RunId>,
    /// When it was first seen.
    pub created_at: Timestamp,
}

/// Durable facts of runs.
#[async_trait]
pub trait Journal: Send + Sync + 'static {
    /// Creates a run with its first batch, its lease (epoch 1) and the hold on its environment, in one transaction.
    ///
    /// # Errors
    /// [`JournalError::EnvironmentHeld`], [`JournalError::OtherTarget`], or storage.
    async fn create_run(&self, new: NewRun) -> Result<Lease, JournalError>;

    /// Takes the lease of an unfinished run: at once when the owner is provably dead on this host, or its lease ended.
    ///
    /// # Errors
    /// [`JournalError::Owned`] names a live owner.
    async fn acquire(&self, run: &RunId, owner: &Owner) -> Result<Lease, JournalError>;

    /// How long the lease certainly lasts from now, in real time that counts suspend. Renewal happens in the background
    /// while the journal lives.
    ///
    /// # Errors
    /// [`JournalError::Stale`] when it is gone.
    fn lease_left(&self, lease: &Lease) -> Result<std::time::Duration, JournalError>;

    /// Gives the lease up, so that the next owner need not wait.
    ///
    /// # Errors
    /// Storage only; a lease already lost is no error.
    async fn release(&self, lease: &Lease) -> Result<(), JournalError>;

    /// Appends after `expected` (the last sequence this owner knows); returns the new last sequence once it is durable.
    ///
    /// # Errors
    /// [`JournalError::Stale`] for a stale epoch or sequence, or storage.
    async fn append(&self, lease: &Lease, expected: Sequence, batch: Batch) -> Result<Sequence, JournalError>;

    /// Reads a run with its cached fold, after checking that the fold's head is the journal's head.
    ///
    /// # Errors
    /// Not found, damaged, storage.
    async fn load(&self, run: &RunId) -> Result<LoadedRun, JournalError>;

    /// Events after `after`, at most `limit`.
    ///
    /// # Errors
    /// Not found, damaged (a gap or a broken hash chain), storage.
    async fn events(&self, run: &RunId, after: Sequence, limit: usize) -> Result<Vec<StoredEvent>, JournalError>;

    /// Runs, newest first; all environments if none is named.
    ///
    /// # Errors
    /// Storage.
    async fn list(&self, environment: Option<&EnvironmentName>, limit: usize) -> Result<Vec<RunSummary>, JournalError>;

    /// The one run whose id starts with `prefix`.
    ///
    /// # Errors
    /// [`JournalError::NotFound`], [`JournalError::Ambiguous`].
    async fn find(&self, prefix: &str) -> Result<RunId, JournalError>;

    /// An environment on record.
    ///
    /// # Errors
    /// Storage.
    async fn environment(&self, name: &EnvironmentName) -> Result<Option<EnvironmentRow>, JournalError>;

    /// The rows of the environment's record, by step; without those that the run `except` wrote, if one is named.
    ///
    /// # Errors
    /// Damaged, storage.
    async fn record_rows(
        &self,
        environment: &EnvironmentUid,
        except: Option<&RunId>,
    ) -> Result<Vec<RecordRow>, JournalError>;

    /// The environment's record, by step.
    ///
    /// # Errors
    /// Damaged, storage.
    async fn record(&self, environment: &EnvironmentUid) -> Result<Vec<RecordedStep>, JournalError> {
        self.record_rows(environment, None).await?.into_iter().map(fold::recorded).collect()
    }

    /// The same without what one run wrote: what was there before it, as far as it has not changed it.
    ///
    /// # Errors
    /// Damaged, storage.
    async fn record_of_others(
        &self,
        environment: &EnvironmentUid,
        run: &RunId,
    ) -> Result<Vec<RecordedStep>, JournalError> {
        self.record_rows(environment, Some(run)).await?.into_iter().map(fold::recorded).collect()
    }

    /// Generations of steps that are gone, by step.
    ///
    /// # Errors
    /// Storage.
    async fn generations(&self, environment: &EnvironmentUid) -> Result<Vec<(StepName, u32)>, JournalError>;

    /// Steps that were struck off the record and never built again, by name.
    ///
    /// # Errors
    /// Storage.
    async fn forgotten(&self, environment: &EnvironmentUid) -> Result<Vec<StepName>, JournalError>;
}
