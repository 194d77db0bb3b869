//! The store: one writer thread, a few readers, the leases it holds; behind the engine's journal port.

use crate::failure::{Closed, ReadOnly, storage};
use crate::file;
use crate::lease::{HeldLeases, LockFolder};
use crate::read::{self, Ready};
use crate::reader::Readers;
use crate::renewal::Renewer;
use crate::settings::StoreSettings;
use crate::time;
use crate::write::{self, Acquired, Granted};
use crate::writer::Writer;
use async_trait::async_trait;
use platflow_engine::journal::{
    Batch, EnvironmentRow, Journal, JournalError, Lease, LoadedRun, NewRun, Owner, RecordRow, RunSummary, Sequence,
    StoredEvent,
};
use platflow_engine::name::{EnvironmentName, EnvironmentUid, RunId, StepName};
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Files up to this size are checked whole before a run is taken over; a deployment has one or two megabytes.
const CHECKED_BYTES: u64 = 8 << 20;

/// One open state file.
pub struct Store {
    readers: Option<Readers>,
    writing: Option<Writing>,
    held: Arc<HeldLeases>,
    locks: LockFolder,
    path: PathBuf,
    settings: StoreSettings,
    /// What was read to take a run over, for the load that follows.
    ready: Mutex<Option<Ready>>,
}

struct Writing {
    // Declared in the order in which they must end: the renewer uses the writer.
    renewer: Renewer,
    writer: Option<Writer>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Store").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the state file for reading and writing; makes it (0600, its folder 0700) and migrates it as needed.
    ///
    /// # Errors
    /// [`JournalError::Newer`] and [`JournalError::Damaged`] for a file that must not be touched, storage for the rest
    /// (a network file system, durability that SQLite refuses).
    pub fn open(path: &Path, settings: StoreSettings) -> Result<Arc<Self>, JournalError> {
        let connection = file::open_writer(path, &settings)?;
        let readers = Readers::start(path, &settings)?;
        let (writer, thread) = Writer::start(connection, &settings)?;
        let held = Arc::new(HeldLeases::default());
        let renewer = Renewer::start(writer.clone(), Arc::clone(&held), &settings)?;
        let writing = Some(Writing { renewer, writer: Some(writer), thread: Some(thread) });
        let (locks, path) = (LockFolder::beside(path), path.to_owned());
        Ok(Arc::new(Self { readers: Some(readers), writing, held, locks, path, settings, ready: Mutex::default() }))
    }

    /// Opens an existing state file for reading: nothing is created, migrated or written.
    ///
    /// # Errors
    /// As [`Store::open`]; a file that is not there is a storage error.
    pub fn open_read_only(path: &Path, settings: StoreSettings) -> Result<Arc<Self>, JournalError> {
        let readers = Readers::start(path, &settings)?;
        let held = Arc::new(HeldLeases::default());
        let (locks, path) = (LockFolder::beside(path), path.to_owned());
        let (writing, ready) = (None, Mutex::default());
        Ok(Arc::new(Self { readers: Some(readers), writing, held, locks, path, settings, ready }))
    }

    /// Gives the space that was kept back beside the file to a disk that is full, so that stopping and undoing can still
    /// be recorded. True when it was needed and there was some. It is kept back again by whoever opens the file for other
    /// work once there is room.
    pub fn spend_reserve(&self) -> bool {
        self.settings.vfs.is_none() && crate::reserve::spend(&self.path)
    }

    /// Refolds the hashes of a run's whole chain; returns how many events it has.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] names run and sequence.
    pub async fn verify(&self, run: &RunId) -> Result<Sequence, JournalError> {
        let run = run.clone();
        self.read(move |connection| read::verify(connection, &run)).await
    }

    /// Lets SQLite check every page, index and reference of the file.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] with the first thing found.
    pub async fn check_file(&self) -> Result<(), JournalError> {
        self.read(read::check_file).await
    }

    /// A run is taken up from its folded rows and the events that they name: its chain is checked first. Where that costs
    /// next to nothing, so is the whole file: rows that a bad page or index hides would read as steps never begun.
    /// The run is read on the way, side by side with all that, as far as there are readers.
    async fn check_before_takeover(&self, run: &RunId) -> Result<Option<Ready>, JournalError> {
        if self.settings.vfs.is_some() {
            return Ok(None);
        }
        let log = self.path.with_extension("db-wal");
        let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
        let small = bytes(&self.path) + bytes(&log) <= CHECKED_BYTES;
        let (of_chain, of_plan) = (run.clone(), run.clone());
        let (chained, plan, whole) = tokio::join!(
            self.read(move |connection| read::chained(connection, &of_chain)),
            self.read(move |connection| read::pinned_plan(connection, &of_plan)),
            async { if small { self.read(read::check_structure).await } else { Ok(()) } },
        );
        whole?;
        Ok(Some(Ready { chained: chained?, plan: plan? }))
    }

    fn ready(&self) -> MutexGuard<'_, Option<Ready>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `query` on one snapshot of the file.
    pub(crate) async fn read<T, F>(&self, query: F) -> Result<T, JournalError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, JournalError> + Send + 'static,
    {
        match &self.readers {
            Some(readers) => readers.read(query).await,
            None => Err(storage("read", Closed)),
        }
    }

    pub(crate) fn writer(&self) -> Result<&Writer, JournalError> {
        self.writing.as_ref().and_then(|writing| writing.writer.as_ref()).ok_or_else(|| storage("written", ReadOnly))
    }

    fn grant(&self, granted: Granted) -> Lease {
        let Granted { lease, until_ms, lock } = granted;
        self.held.insert(&lease.run, lease.epoch, until_ms, lock);
        lease
    }

    async fn try_acquire(
        &self,
        run: &RunId,
        owner: &Owner,
        watched: Option<crate::lease::Ownership>,
    ) -> Result<Acquired, JournalError> {
        let (run, owner, locks, settings) = (run.clone(), owner.clone(), self.locks.clone(), self.settings.clone());
        self.writer()?
            .write(move |connection| write::acquire(connection, &run, &owner, watched.as_ref(), &locks, &settings))
            .await
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.readers = None;
        if let Some(writing) = &mut self.writing {
            writing.renewer.join();
            writing.writer = None;
            if let Some(thread) = writing.thread.take() {
                let _ = thread.join();
            }
        }
    }
}

#[async_trait]
impl Journal for Store {
    async fn create_run(&self, new: NewRun) -> Result<Lease, JournalError> {
        let (locks, settings) = (self.locks.clone(), self.settings.clone());
        let granted =
            self.writer()?.write(move |connection| write::create_run(connection, &new, &locks, &settings)).await?;
        Ok(self.grant(granted))
    }

    async fn acquire(&self, run: &RunId, owner: &Owner) -> Result<Lease, JournalError> {
        let ready = self.check_before_takeover(run).await?;
        let mut acquired = self.try_acquire(run, owner, None).await?;
        if let Acquired::Watch(seen) = acquired {
            time::pause(Duration::from_millis(self.settings.lease_ms)).await;
            acquired = self.try_acquire(run, owner, Some(seen)).await?;
        }
        match acquired {
            Acquired::Granted(granted) => {
                // The lock file of the epoch before serves nobody any more.
                self.locks.forget(run.as_str(), granted.lease.epoch - 1);
                *self.ready() = ready;
                Ok(self.grant(granted))
            }
            // Only the first look asks to be watched.
            Acquired::Watch(_) => Err(JournalError::NotFound { what: "run", text: run.to_string() }),
        }
    }

    fn lease_left(&self, lease: &Lease) -> Result<Duration, JournalError> {
        self.held.left(lease)
    }

    async fn release(&self, lease: &Lease) -> Result<(), JournalError> {
        let released = lease.clone();
        let outcome = self.writer()?.write(move |connection| write::release(connection, &released)).await;
        self.held.remove(lease);
        self.ready().take_if(|ready| *ready.chained.run() == lease.run);
        self.locks.forget(lease.run.as_str(), lease.epoch);
        outcome
    }

    async fn append(&self, lease: &Lease, expected: Sequence, batch: Batch) -> Result<Sequence, JournalError> {
        let (run, epoch) = (lease.run.clone(), lease.epoch);
        let lease = lease.clone();
        let outcome = self.writer()?.write(move |connection| write::append(connection, &lease, expected, &batch)).await;
        if let Err(JournalError::Stale { current, .. }) = &outcome {
            self.held.lost(&run, epoch, *current);
        }
        outcome
    }

    async fn load(&self, run: &RunId) -> Result<LoadedRun, JournalError> {
        let (run, locks) = (run.clone(), self.locks.clone());
        let ready = self.ready().take_if(|ready| *ready.chained.run() == run);
        self.read(move |connection| read::load(connection, &locks, &run, ready)).await
    }

    async fn events(&self, run: &RunId, after: Sequence, limit: usize) -> Result<Vec<StoredEvent>, JournalError> {
        let run = run.clone();
        self.read(move |connection| read::events(connection, &run, after, limit)).await
    }

    async fn list(&self, environment: Option<&EnvironmentName>, limit: usize) -> Result<Vec<RunSummary>, JournalError> {
        let (environment, locks) = (environment.cloned(), self.locks.clone());
        self.read(move |connection| read::list(connection, &locks, environment.as_ref(), limit)).await
    }

    async fn find(&self, prefix: &str) -> Result<RunId, JournalError> {
        let prefix = prefix.to_owned();
        self.read(move |connection| read::find(connection, &prefix)).await
    }

    async fn environment(&self, name: &EnvironmentName) -> Result<Option<EnvironmentRow>, JournalError> {
        let name = name.clone();
        self.read(move |connection| read::environment(connection, &name)).await
    }

    async fn record_rows(
        &self,
        environment: &EnvironmentUid,
        except: Option<&RunId>,
    ) -> Result<Vec<RecordRow>, JournalError> {
        let (environment, except) = (environment.clone(), except.cloned());
        self.read(move |connection| read::record(connection, &environment, except.as_ref())).await
    }

    async fn generations(&self, environment: &EnvironmentUid) -> Result<Vec<(StepName, u32)>, JournalError> {
        let environment = environment.clone();
        self.read(move |connection| read::generations(connection, &environment)).await
    }

    async fn forgotten(&self, environment: &EnvironmentUid) -> Result<Vec<StepName>, JournalError> {
        let environment = environment.clone();
        self.read(move |connection| read::forgotten(connection, &environment)).await
    }
}
