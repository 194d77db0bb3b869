//! Drives a run: performs what `decide` decided, journals what came of it, and nothing else.
//!
//! One loop per run ([`Engine::drive`]); each verb of a step runs in a task of its own and reports back by channel. The
//! loop polls nothing: it waits for reports, timers and cancellation.

mod attempt;
pub(crate) mod batch;
mod cycle;
mod guard;
mod start;
mod undoing;

pub use start::StartRun;

use crate::clock::Clock;
use crate::event::{Direction, Ending, Event, ParkReason};
use crate::fold::{FoldError, Run};
use crate::journal::{Journal, JournalError, Lease, Sequence};
use crate::kind::Catalog;
use crate::plan::Resolve;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Sees every committed event, in order. Must not block.
pub trait Observer: Send + Sync + 'static {
    /// An event is durable.
    fn committed(&self, sequence: Sequence, event: &Event);
}

/// Sees nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn committed(&self, _sequence: Sequence, _event: &Event) {}
}

/// What can be set about driving.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The most steps in flight at once, counted until their commit is acknowledged: also the most that a crash can
    /// repeat.
    pub max_in_flight: usize,
    /// Version of the binary, journaled with the run.
    pub version: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_in_flight: 256, version: env!("CARGO_PKG_VERSION").to_owned() }
    }
}

/// Everything a drive needs.
#[derive(Clone)]
pub struct Engine {
    /// Durable facts.
    pub journal: Arc<dyn Journal>,
    /// What runs each kind.
    pub catalog: Catalog,
    /// Polls, budgets, settle windows.
    pub clock: Arc<dyn Clock>,
    /// Evaluates spec templates.
    pub resolver: Arc<dyn Resolve>,
    /// Live progress.
    pub observer: Arc<dyn Observer>,
    /// Bounds.
    pub settings: Settings,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Engine")
            .field("catalog", &self.catalog)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// How a drive came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DriveOutcome {
    /// The run ended.
    Finished(Ending),
    /// It stopped and waits; resumable.
    Parked(ParkReason),
}

/// Why a drive could not go on. Everything acknowledged is durable; the run is resumable.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// The journal refused or failed; a stale owner gets this and must stop.
    #[error("the journal refused")]
    Journal(#[from] JournalError),
    /// The journal's facts do not add up.
    #[error("the run cannot be folded")]
    Fold(#[from] FoldError),
    /// The plan names a kind that this binary does not have.
    #[error("no step kind {0} in this version of platflow")]
    UnknownKind(crate::name::KindName),
    /// The plan cannot be digested.
    #[error("the plan cannot be written as JSON")]
    Plan(#[source] serde_json::Error),
}

impl Engine {
    /// Takes over an unfinished (or, to roll it back, a finished) run and sets its direction if one is asked for.
    ///
    /// # Errors
    /// A live owner, an unknown run, damaged facts.
    pub async fn resume(
        &self,
        id: &crate::name::RunId,
        owner: &crate::journal::Owner,
        direction: Option<Direction>,
    ) -> Result<(Lease, Run), DriveError> {
        start::resume(self, id, owner, direction).await
    }

    /// Creates a run: its first facts, its lease, the hold on its environment.
    ///
    /// # Errors
    /// A held environment, another target, a plan that is no graph.
    pub async fn start(&self, new: StartRun) -> Result<(Lease, Run), DriveError> {
        start::start(self, new).await
    }

    /// Drives a run until it ends or parks. Cancelling the token stops at the next safe point; dropping the future is
    /// a crash, and as resumable as one. `run` is the fold and stays current.
    ///
    /// # Errors
    /// [`DriveError`]; the lease is not released then.
    pub async fn drive(
        &self,
        lease: &Lease,
        run: &mut Run,
        cancel: CancellationToken,
    ) -> Result<DriveOutcome, DriveError> {
        cycle::drive(self, lease, run, cancel).await
    }
}

/// Ends an unfinished run for good without touching the world: the environment's record keeps what exists.
///
/// # Errors
/// A live owner, an unknown or finished run.
pub async fn abandon(
    journal: &Arc<dyn Journal>,
    id: &crate::name::RunId,
    owner: &crate::journal::Owner,
    at: jiff::Timestamp,
) -> Result<(), DriveError> {
    start::abandon(journal, id, owner, at).await
}
