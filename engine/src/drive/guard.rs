//! The engine's side of a step's context: durable notes through the loop, the lease straight from the journal.

use crate::context::StepGuard;
use crate::drive::cycle::Report;
use crate::event::{Event, Finding, Notes};
use crate::failure::{ErrorClass, StepError};
use crate::journal::{Journal, Lease};
use crate::name::StepName;
use async_trait::async_trait;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

pub(super) struct Guard {
    pub(super) reports: mpsc::UnboundedSender<Report>,
    pub(super) journal: Arc<dyn Journal>,
    pub(super) lease: Lease,
    /// What steps noted while this drive lives, for the look that follows in the same attempt.
    pub(super) noted: Mutex<HashMap<StepName, Notes>>,
}

fn gone() -> StepError {
    StepError::new(ErrorClass::Transient, "the engine stopped before the note was durable").with_code("Stopped")
}

impl Guard {
    async fn journal(&self, event: Event) -> Result<(), StepError> {
        let (acknowledge, acknowledged) = oneshot::channel();
        self.reports.send(Report::Record { event, acknowledge }).map_err(|_| gone())?;
        acknowledged.await.map_err(|_| gone())
    }

    /// What a step noted so far.
    pub(super) fn noted(&self, step: &StepName) -> Notes {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner).get(step).cloned().unwrap_or_default()
    }

    /// Makes durable what the look before the first mutation found.
    pub(super) async fn found(&self, step: &StepName, finding: Finding) -> Result<(), StepError> {
        self.journal(Event::StepFound { step: step.clone(), finding }).await
    }
}

#[async_trait]
impl StepGuard for Guard {
    async fn note(&self, step: &StepName, key: &str, value: Value) -> Result<(), StepError> {
        self.journal(Event::StepNoted { step: step.clone(), key: key.to_owned(), value: value.clone() }).await?;
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        noted.entry(step.clone()).or_default().insert(key.to_owned(), value);
        Ok(())
    }

    fn lease_left(&self) -> Result<Duration, StepError> {
        self.journal.lease_left(&self.lease).map_err(|error| {
            StepError::new(ErrorClass::Transient, format!("no call may be made: {error}")).with_code("Stopped")
        })
    }
}
