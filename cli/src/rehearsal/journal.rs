//! The journal port of a rehearsal: the real store behind it, its commits counted, its process mortal.

use crate::rehearsal::recorder::Recorder;
use async_trait::async_trait;
use platflow_engine::journal::{
    Batch, EnvironmentRow, Journal, JournalError, Lease, LoadedRun, NewRun, Owner, RecordRow, RunSummary, Sequence,
    StoredEvent,
};
use platflow_engine::name::{EnvironmentName, EnvironmentUid, RunId, StepName};
use platflow_sandbox::embedded::Embedded;
use platflow_sandbox::virtual_time::VirtualTime;
use platflow_state::Store;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// After so many turns of the scheduler without a call, every call that could land has.
const SILENT_TURNS: u32 = 40;

/// Films the boundaries of a run.
pub(crate) struct Filming {
    pub(crate) embedded: Arc<Embedded>,
    pub(crate) recorder: Arc<Recorder>,
}

impl Filming {
    async fn boundary(&self, what: String) {
        let (world, now_ms) = self.embedded.look(|world, now_ms| (world.clone(), now_ms));
        self.recorder.boundary(what, world, now_ms);
        let before = self.recorder.changes();
        let (mut silent, mut seen) = (0, self.recorder.calls());
        while silent < SILENT_TURNS {
            tokio::task::yield_now().await;
            let calls = self.recorder.calls();
            silent = if calls == seen { silent + 1 } else { 0 };
            seen = calls;
        }
        if self.recorder.changes() != before {
            let (world, now_ms) = self.embedded.look(|world, now_ms| (world.clone(), now_ms));
            self.recorder.landed(world, now_ms);
        }
    }
}

/// See the file.
pub(crate) struct MortalJournal {
    pub(crate) store: Arc<Store>,
    pub(crate) time: Arc<VirtualTime>,
    pub(crate) filming: Option<Filming>,
    /// The process dies when it has committed so often: that is durable, and nobody hears of it.
    pub(crate) dies_after: Option<u64>,
    pub(crate) commits: AtomicU64,
    pub(crate) death: Notify,
}

fn describe(batch: &Batch) -> String {
    let mut words: Vec<String> = batch
        .events
        .iter()
        .map(|event| match &event.step {
            Some(step) => format!("{step} {}", event.kind),
            None => event.kind.to_owned(),
        })
        .collect();
    let more = words.len().saturating_sub(3);
    words.truncate(3);
    if more > 0 {
        words.push(format!("{more} more"));
    }
    words.join(", ")
}

impl MortalJournal {
    async fn committed(&self, what: String) {
        let commits = self.commits.fetch_add(1, Ordering::SeqCst) + 1;
        if self.dies_after == Some(commits) {
            self.death.notify_one();
            return std::future::pending().await;
        }
        if let Some(filming) = &self.filming {
            filming.boundary(what).await;
        }
    }

    async fn work<T>(&self, work: impl Future<Output = T>) -> T {
        let _busy = self.time.busy();
        work.await
    }
}

#[async_trait]
impl Journal for MortalJournal {
    async fn create_run(&self, new: NewRun) -> Result<Lease, JournalError> {
        let what = describe(&new.first);
        let lease = self.work(self.store.create_run(new)).await?;
        self.committed(what).await;
        Ok(lease)
    }

    async fn acquire(&self, run: &RunId, owner: &Owner) -> Result<Lease, JournalError> {
        self.work(self.store.acquire(run, owner)).await
    }

    fn lease_left(&self, lease: &Lease) -> Result<Duration, JournalError> {
        self.store.lease_left(lease)
    }

    async fn release(&self, lease: &Lease) -> Result<(), JournalError> {
        self.work(self.store.release(lease)).await
    }

    async fn append(&self, lease: &Lease, expected: Sequence, batch: Batch) -> Result<Sequence, JournalError> {
        let what = describe(&batch);
        if let Some(filming) = &self.filming {
            filming.recorder.before_commit(|| filming.embedded.look(|world, now_ms| (world.clone(), now_ms)));
        }
        let sequence = self.work(self.store.append(lease, expected, batch)).await?;
        self.committed(what).await;
        Ok(sequence)
    }

    async fn load(&self, run: &RunId) -> Result<LoadedRun, JournalError> {
        self.work(self.store.load(run)).await
    }

    async fn events(&self, run: &RunId, after: Sequence, limit: usize) -> Result<Vec<StoredEvent>, JournalError> {
        self.work(self.store.events(run, after, limit)).await
    }

    async fn list(&self, environment: Option<&EnvironmentName>, limit: usize) -> Result<Vec<RunSummary>, JournalError> {
        self.work(self.store.list(environment, limit)).await
    }

    async fn find(&self, prefix: &str) -> Result<RunId, JournalError> {
        self.work(self.store.find(prefix)).await
    }

    async fn environment(&self, name: &EnvironmentName) -> Result<Option<EnvironmentRow>, JournalError> {
        self.work(self.store.environment(name)).await
    }

    async fn record_rows(
        &self,
        environment: &EnvironmentUid,
        except: Option<&RunId>,
    ) -> Result<Vec<RecordRow>, JournalError> {
        self.work(self.store.record_rows(environment, except)).await
    }

    async fn forgotten(&self, environment: &EnvironmentUid) -> Result<Vec<StepName>, JournalError> {
        self.work(self.store.forgotten(environment)).await
    }

    async fn generations(&self, environment: &EnvironmentUid) -> Result<Vec<(StepName, u32)>, JournalError> {
        self.work(self.store.generations(environment)).await
    }
}
