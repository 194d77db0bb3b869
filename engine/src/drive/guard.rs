//! The engine's side of a step's context: durable notes through the loop, the lease straight from the journal.

use crate::context::StepGuard;
use crate::drive::cycle::Report;
use crate::event::{Event, Finding};
use crate::failure::{ErrorClass, StepError};
use crate::journal::{Journal, Lease};
use crate::name::StepName;
use async_trait::async_trait;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

pub(super) struct Guard {
    pub(super) reports: mpsc::UnboundedSender<Report>,
    pub(super) journal: Arc<dyn Journal>,
    pub(super) lease: Lease,
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

    /// Makes durable what the look before the first mutation found.
    pub(super) async fn found(&self, step: &StepName, finding: Finding) -> Result<(), StepError> {
        self.journal(Event::StepFound { step: step.clone(), finding }).await
    }
}

#[async_trait]
impl StepGuard for Guard {
    async fn note(&self, step: &StepName, key: &str, value: Value) -> Result<(), StepError> {
        self.journal(Event::StepNoted { step: step.clone(), key: key.to_owned(), value }).await
    }

    fn lease_left(&self) -> Result<Duration, StepError> {
        self.journal.lease_left(&self.lease).map_err(|error| {
            StepError::new(ErrorClass::Transient, format!("no call may be made: {error}")).with_code("Stopped")
        })
    }
}
