//! What a step may use while it works: its identity, tokens, durable notes, the clock, and the permit for each
//! mutating call.
//!
//! A step reaches no ambient authority: no wall clock, no randomness, no sleep of its own.

use crate::clock::Clock;
use crate::failure::{ErrorClass, Residue, StepError};
use crate::name::{EnvironmentName, EnvironmentUid, RunId, StepName};
use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The engine's side of a context: durable notes and the lease check.
#[async_trait]
pub trait StepGuard: Send + Sync {
    /// Makes a fact about the running attempt durable; returns once it is.
    ///
    /// # Errors
    /// When the journal refuses (stale owner, disk full): the step must stop.
    async fn note(&self, step: &StepName, key: &str, value: Value) -> Result<(), StepError>;

    /// How long the owner's lease certainly lasts from now, in real time; an error when it may be gone.
    ///
    /// # Errors
    /// When this process no longer owns the run.
    fn lease_left(&self) -> Result<Duration, StepError>;
}

/// Permission for one mutating call, with what the call needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The idempotency token of this call: the same for every attempt and owner of one generation. 52 base32
    /// characters (EC2 allows 64 ASCII).
    pub token: String,
    /// The longest the call may take in real time; always shorter than what is left of the lease.
    pub timeout: Duration,
}

/// The longest a single mutating call may take, whatever the lease says.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Handed to every verb of a step. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// The step at work.
    pub step: StepName,
    /// The run it belongs to.
    pub run: RunId,
    /// The environment's name.
    pub environment: EnvironmentName,
    /// The environment's uid, part of every ownership tag and token.
    pub environment_uid: EnvironmentUid,
    /// Which attempt of this run, from 1.
    pub attempt: u32,
    /// How often the step was rebuilt after a proven end.
    pub generation: u32,
    /// Polls and budgets run on this clock.
    pub clock: Arc<dyn Clock>,
    /// Cancelled when the engine stops at the next safe point; long reads watch it.
    pub cancelled: CancellationToken,
    /// Journal and lease.
    pub guard: Arc<dyn StepGuard>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Context")
            .field("step", &self.step)
            .field("run", &self.run)
            .field("attempt", &self.attempt)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

impl Context {
    /// The token of one named call: `hash(environment uid, step, call name, generation)` as 52 base32 characters.
    #[must_use]
    pub fn token(&self, call: &str) -> String {
        token(&self.environment_uid, &self.step, call, self.generation)
    }

    /// Asks for permission to make one mutating call, right before making it.
    ///
    /// # Errors
    /// When this process may no longer own the run, or is stopping: nothing was sent (residue of this call: none).
    pub fn begin(&self, call: &str) -> Result<Call, StepError> {
        if self.cancelled.is_cancelled() {
            return Err(StepError::new(ErrorClass::Transient, format!("stopped before {call}"))
                .leaving(Residue::Unknown)
                .with_code("Stopped"));
        }
        let left = self.guard.lease_left()?;
        // A quarter of the lease stays as margin: the call must have ended, or been given up, while we still own it.
        let timeout = left.mul_f64(0.75).min(CALL_TIMEOUT);
        Ok(Call { token: self.token(call), timeout })
    }

    /// Makes an id durable before the next call; returns once it is.
    ///
    /// # Errors
    /// When the journal refuses: the step must return the error at once.
    pub async fn note(&self, key: &str, value: Value) -> Result<(), StepError> {
        self.guard.note(&self.step, key, value).await
    }

    /// Now, on the engine's clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// See [`Clock::patience`].
    pub(crate) fn patience(&self, budget: Duration) -> Duration {
        self.clock.patience(budget)
    }
}

/// See [`Context::token`].
#[must_use]
pub fn token(environment: &EnvironmentUid, step: &StepName, call: &str, generation: u32) -> String {
    let mut hash = Sha256::new();
    for part in [environment.as_str(), step.as_str(), call] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.update(generation.to_le_bytes());
    data_encoding::BASE32_NOPAD.encode(&hash.finalize()).to_ascii_lowercase()
}
