//! The real store, with an ear on its appends: how long each took, and what was in it.

use async_trait::async_trait;
use platflow_engine::journal::{
    Batch, EnvironmentRow, Journal, JournalError, Lease, LoadedRun, NewRun, Owner, RecordRow, RunSummary, Sequence,
    StoredEvent,
};
use platflow_engine::name::{EnvironmentName, EnvironmentUid, RunId, StepName};
use platflow_state::Store;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub(crate) struct Listening {
    store: Arc<Store>,
    took: Mutex<Vec<Duration>>,
    heard: Option<Mutex<Vec<Batch>>>,
}

impl Listening {
    /// With `keep`, every batch is remembered.
    pub(crate) fn to(store: Arc<Store>, keep: bool) -> Self {
        Self { store, took: Mutex::default(), heard: keep.then(Mutex::default) }
    }

    pub(crate) fn took(&self) -> Vec<Duration> {
        self.took.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn heard(&self) -> Vec<Batch> {
        let heard = self.heard.as_ref().map(|heard| heard.lock().unwrap_or_else(PoisonError::into_inner).clone());
        heard.unwrap_or_default()
    }
}

#[async_trait]
impl Journal for Listening {
    async fn append(&self, lease: &Lease, expected: Sequence, batch: Batch) -> Result<Sequence, JournalError> {
        if let Some(heard) = &self.heard {
            heard.lock().unwrap_or_else(PoisonError::into_inner).push(batch.clone());
        }
        let begun = Instant::now();
        let written = self.store.append(lease, expected, batch).await;
        self.took.lock().unwrap_or_else(PoisonError::into_inner).push(begun.elapsed());
        written
    }

    async fn create_run(&self, new: NewRun) -> Result<Lease, JournalError> {
        self.store.create_run(new).await
    }

    async fn acquire(&self, run: &RunId, owner: &Owner) -> Result<Lease, JournalError> {
        self.store.acquire(run, owner).await
    }

    fn lease_left(&self, lease: &Lease) -> Result<Duration, JournalError> {
        self.store.lease_left(lease)
    }

    async fn release(&self, lease: &Lease) -> Result<(), JournalError> {
        self.store.release(lease).await
    }

    async fn load(&self, run: &RunId) -> Result<LoadedRun, JournalError> {
        self.store.load(run).await
    }

    async fn events(&self, run: &RunId, after: Sequence, limit: usize) -> Result<Vec<StoredEvent>, JournalError> {
        self.store.events(run, after, limit).await
    }

    async fn list(&self, environment: Option<&EnvironmentName>, limit: usize) -> Result<Vec<RunSummary>, JournalError> {
        self.store.list(environment, limit).await
    }

    async fn find(&self, prefix: &str) -> Result<RunId, JournalError> {
        self.store.find(prefix).await
    }

    async fn environment(&self, name: &EnvironmentName) -> Result<Option<EnvironmentRow>, JournalError> {
        self.store.environment(name).await
    }

    async fn record_rows(
        &self,
        environment: &EnvironmentUid,
        except: Option<&RunId>,
    ) -> Result<Vec<RecordRow>, JournalError> {
        self.store.record_rows(environment, except).await
    }

    async fn generations(&self, environment: &EnvironmentUid) -> Result<Vec<(StepName, u32)>, JournalError> {
        self.store.generations(environment).await
    }

    async fn forgotten(&self, environment: &EnvironmentUid) -> Result<Vec<StepName>, JournalError> {
        self.store.forgotten(environment).await
    }
}
