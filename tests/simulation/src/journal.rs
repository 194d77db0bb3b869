//! The real store on a simulated disk, as a journal whose process can die: killed, or with the power.
//!
//! It remembers what the store acknowledged, and finds whatever of it is missing when the store is opened again. Each
//! call of the store is waited for on the spot, so that its threads cannot change the order of anything: one seed, one
//! story. The locks of owners are real files beside; everything else of the store is on the disk.

mod owners;

use crate::disk::{Disk, Image, Survival};
use async_trait::async_trait;
use platflow_engine::event::Event;
use platflow_engine::fold::{self, Run};
use platflow_engine::journal::{
    Batch, EncodedEvent, EnvironmentRow, Journal, JournalError, Lease, LoadedRun, NewRun, Owner, RecordRow, RunSummary,
    Sequence, StoredEvent,
};
use platflow_engine::memory::Died;
use platflow_engine::model::trial::MortalJournal;
use platflow_engine::name::{EnvironmentName, EnvironmentUid, RunId, StepName};
use platflow_engine::secret::SecretStore;
use platflow_state::{Store, StoreSettings};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// One event that the store said was durable, or was asked to make durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    pub run: RunId,
    pub sequence: Sequence,
    pub kind: String,
    pub step: Option<StepName>,
    pub payload: Vec<u8>,
}

/// How the next process finds the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// As it was written: only the process died.
    Killed,
    /// As a power cut left it, drawn by a seed.
    PowerCut(u64),
}

/// The real store on a simulated disk.
#[derive(Debug)]
pub struct SimulatedStore {
    place: tempfile::TempDir,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    // Declared before the disk, on which its files are open.
    store: Option<Arc<Store>>,
    /// Stores of processes that live on after somebody else took their run over, by the epoch that they had.
    fenced: BTreeMap<(RunId, u64), Arc<Store>>,
    disk: Arc<Disk>,
    acknowledged: Vec<Fact>,
    /// What was submitted since and never acknowledged. A killed process may leave it for the next one to read, and a
    /// power cut may take it away again until something later is acknowledged; nothing is done about it before.
    unheard: Vec<Vec<Fact>>,
    die_at: Option<Sequence>,
    restart: Restart,
    lost: Vec<String>,
}

/// Waits for a future on this thread, whatever runtime it belongs to: the store answers from threads of its own.
///
/// # Panics
/// Never by itself.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// The settings of a store on this disk; its leases outlast any simulation, so that no renewal comes in between.
#[must_use]
pub fn settings(disk: &Disk) -> StoreSettings {
    StoreSettings {
        lease_ms: 86_400_000,
        renew_ms: 28_000_000,
        busy_ms: 2_000,
        // With two, it would be chance whose cache knows what, and how often the disk is read.
        readers: 1,
        vfs: Some(disk.vfs().to_owned()),
        ..StoreSettings::default()
    }
}

/// An owner of this host that is known to be dead once its lock is let go.
///
/// # Panics
/// When `/proc` cannot be read.
#[must_use]
pub fn departed() -> Owner {
    let mut owner = platflow_state::this_process().expect("/proc tells who we are");
    owner.process_started += 1;
    owner
}

fn died() -> JournalError {
    JournalError::Storage { doing: "written", source: Box::new(Died) }
}

fn facts(run: &RunId, after: Sequence, events: &[EncodedEvent]) -> Vec<Fact> {
    let fact = |(number, event): (u64, &EncodedEvent)| Fact {
        run: run.clone(),
        sequence: after + number,
        kind: event.kind.to_owned(),
        step: event.step.clone(),
        payload: event.payload.clone(),
    };
    (1..).zip(events).map(fact).collect()
}

/// What of the acknowledged facts a store lacks, and what it has that nobody ever submitted: of what was not
/// acknowledged, whole batches may be there, none without those before it.
#[must_use]
pub fn missing(store: &Store, acknowledged: &[Fact], unheard: &[Vec<Fact>]) -> Vec<String> {
    let mut runs: BTreeMap<&RunId, Vec<&Fact>> = BTreeMap::new();
    for fact in acknowledged {
        runs.entry(&fact.run).or_default().push(fact);
    }
    let mut problems = Vec::new();
    for (run, facts) in runs {
        let stored = match wait(store.events(run, 0, usize::MAX)) {
            Ok(stored) => stored,
            Err(error) => {
                problems.push(format!("{run} was acknowledged and cannot be read: {error}"));
                continue;
            }
        };
        let same = |stored: &StoredEvent, fact: &Fact| {
            (stored.sequence, &stored.kind, &stored.step, &stored.payload)
                == (fact.sequence, &fact.kind, &fact.step, &fact.payload)
        };
        if stored.len() < facts.len() || !stored.iter().zip(&facts).all(|(stored, fact)| same(stored, fact)) {
            problems.push(format!("{run}: {} facts were acknowledged, {} are there", facts.len(), stored.len()));
        }
        let mut more = stored.get(facts.len()..).unwrap_or_default();
        for batch in unheard.iter().filter(|batch| batch.first().is_some_and(|fact| fact.run == *run)) {
            let (there, rest) = more.split_at(batch.len().min(more.len()));
            if there.len() < batch.len() || !there.iter().zip(batch).all(|(stored, fact)| same(stored, fact)) {
                break;
            }
            more = rest;
        }
        if !more.is_empty() {
            problems.push(format!("{run} has {} facts that were not submitted so", more.len()));
        }
        if let Err(error) = wait(store.verify(run)) {
            problems.push(format!("{run}: {error}"));
        }
    }
    problems
}

impl SimulatedStore {
    /// A store on an empty disk.
    ///
    /// # Panics
    /// When it cannot be opened.
    #[must_use]
    pub fn new() -> Self {
        Self::on(|_| {})
    }

    /// The same, with every operation kept from the first on.
    ///
    /// # Panics
    /// When it cannot be opened.
    #[must_use]
    pub fn recorded() -> Self {
        Self::on(Disk::record)
    }

    fn on(prepare: impl FnOnce(&Disk)) -> Self {
        let place = tempfile::tempdir().expect("a folder for the locks");
        let path = place.path().join("state.db");
        let disk = Arc::new(Disk::holding(&Image::with_empty(&path.to_string_lossy())));
        prepare(&disk);
        let store = Store::open(&path, settings(&disk)).expect("an empty disk takes a store");
        let inner = Inner {
            store: Some(store),
            fenced: BTreeMap::new(),
            disk,
            acknowledged: Vec::new(),
            unheard: Vec::new(),
            die_at: None,
            restart: Restart::Killed,
            lost: Vec::new(),
        };
        Self { place, inner: Mutex::new(inner) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the store believes its file to be.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.place.path().join("state.db")
    }

    /// The disk as it is now.
    #[must_use]
    pub fn disk(&self) -> Arc<Disk> {
        Arc::clone(&self.inner().disk)
    }

    /// How the next process will find the disk.
    pub fn restart(&self, restart: Restart) {
        self.inner().restart = restart;
    }

    /// Whatever was acknowledged and is not there, and whatever could not be opened.
    #[must_use]
    pub fn lost(&self) -> Vec<String> {
        self.inner().lost.clone()
    }

    /// Every fact that was acknowledged so far, in that order.
    #[must_use]
    pub fn acknowledged(&self) -> Vec<Fact> {
        self.inner().acknowledged.clone()
    }

    /// Seals a secret in the store, for real: it is durable when this returns.
    ///
    /// # Errors
    /// The store's own.
    pub fn put_secret(&self, environment: &EnvironmentUid, name: &str, ciphertext: &[u8]) -> Result<(), String> {
        let store = self.store().map_err(|error| error.to_string())?;
        wait(store.put_secret(environment, name, ciphertext, false)).map_err(|error| error.to_string())
    }

    fn store(&self) -> Result<Arc<Store>, JournalError> {
        self.inner().store.clone().ok_or_else(died)
    }

    /// Asks the store, and waits. A disk that failed takes the process with it.
    fn ask<T>(&self, question: impl AsyncFnOnce(&Store) -> Result<T, JournalError>) -> Result<T, JournalError> {
        self.ask_of(self.store()?, question)
    }

    fn ask_of<T>(
        &self,
        store: Arc<Store>,
        question: impl AsyncFnOnce(&Store) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        let answer = wait(question(&store));
        drop(store);
        let disk = self.disk();
        match answer {
            Err(JournalError::Storage { .. } | JournalError::Damaged(_)) if disk.is_off() || disk.has_failed() => {
                self.end();
                Err(died())
            }
            other => other,
        }
    }

    /// Notes what is to be written, writes it, and notes whether that was acknowledged.
    fn write<T>(
        &self,
        lease: Option<&Lease>,
        submitted: Vec<Fact>,
        work: impl AsyncFnOnce(&Store) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        let head = submitted.last().map(|fact| fact.sequence);
        let store = self.store_of(lease)?;
        self.inner().unheard.push(submitted);
        let written = match self.ask_of(store, work) {
            Ok(written) => written,
            Err(error) => {
                let mut inner = self.inner();
                // Refused by a store that goes on: it was not even tried.
                if inner.store.is_some() {
                    inner.unheard.pop();
                }
                return Err(error);
            }
        };
        self.hear();
        let inner = self.inner();
        if inner.die_at.is_some_and(|end| head.is_some_and(|head| head >= end)) {
            drop(inner);
            self.end();
            return Err(died());
        }
        Ok(written)
    }

    /// Something was acknowledged, and with it all that came before.
    fn hear(&self) {
        let mut inner = self.inner();
        let heard = std::mem::take(&mut inner.unheard);
        inner.acknowledged.extend(heard.into_iter().flatten());
        inner.disk.mark(inner.acknowledged.len());
    }

    /// The process is gone: its files close without another word to the disk.
    fn end(&self) {
        let mut inner = self.inner();
        inner.disk.turn_off();
        let stores = (inner.store.take(), std::mem::take(&mut inner.fenced));
        drop(inner);
        drop(stores);
    }

    fn begin(&self) -> Result<(), String> {
        let mut inner = self.inner();
        inner.die_at = None;
        if let Restart::PowerCut(seed) = inner.restart {
            let mut survival = Survival::new(seed);
            inner.disk = Arc::new(Disk::holding(&inner.disk.cut(|operation| survival.of(operation))));
        }
        inner.disk.heal();
        inner.disk.turn_on();
        let store = Store::open(&self.path(), settings(&inner.disk)).map_err(|error| error.to_string())?;
        let problems = missing(&store, &inner.acknowledged, &inner.unheard);
        wait(store.check_file()).map_err(|error| error.to_string())?;
        inner.unheard.retain(|batch| {
            let there = |fact: &Fact| wait(store.events(&fact.run, fact.sequence - 1, 1)).unwrap_or_default();
            batch.first().is_some_and(|fact| !there(fact).is_empty())
        });
        inner.store = Some(store);
        if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
    }
}

impl Default for SimulatedStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MortalJournal for SimulatedStore {
    fn die(&self) {
        self.end();
    }

    fn die_at(&self, sequence: Sequence) {
        self.inner().die_at = Some(sequence);
    }

    fn revive(&self) {
        self.end();
        if let Err(problem) = self.begin() {
            self.inner().lost.push(problem);
        }
    }

    fn story(&self, run: &RunId) -> Result<Vec<Event>, JournalError> {
        let stored = self.ask(async |store| store.events(run, 0, usize::MAX).await)?;
        stored
            .iter()
            .map(|event| fold::decode(event).map_err(|error| JournalError::Damaged(error.to_string())))
            .collect()
    }

    fn newest(&self, run: &RunId, wanted: &dyn Fn(&Event) -> bool) -> Result<Option<Event>, JournalError> {
        let inner = self.inner();
        for fact in inner.acknowledged.iter().rev().filter(|fact| fact.run == *run) {
            let stored = StoredEvent {
                sequence: fact.sequence,
                kind: fact.kind.clone(),
                step: fact.step.clone(),
                payload: fact.payload.clone(),
                recorded_at: jiff::Timestamp::UNIX_EPOCH,
            };
            let event = fold::decode(&stored).map_err(|error| JournalError::Damaged(error.to_string()))?;
            if wanted(&event) {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    fn refold(&self, run: &RunId) -> Result<Run, JournalError> {
        let loaded = self.ask(async |store| store.load(run).await)?;
        let events = self.ask(async |store| store.events(run, 0, usize::MAX).await)?;
        Run::refold(run.clone(), Arc::new(loaded.plan), &events)
            .map_err(|error| JournalError::Damaged(error.to_string()))
    }
}

#[async_trait]
impl Journal for SimulatedStore {
    async fn create_run(&self, mut new: NewRun) -> Result<Lease, JournalError> {
        new.owner = departed();
        let submitted = facts(&new.id, 0, &new.first.events);
        self.write(None, submitted, async |store| store.create_run(new).await)
    }

    async fn acquire(&self, run: &RunId, _owner: &Owner) -> Result<Lease, JournalError> {
        let lease = self.ask(async |store| store.acquire(run, &departed()).await)?;
        // The lease is in the same log, and durable now.
        self.hear();
        Ok(lease)
    }

    fn lease_left(&self, lease: &Lease) -> Result<Duration, JournalError> {
        self.refuse_fenced(lease)?;
        self.store()?.lease_left(lease)
    }

    async fn release(&self, lease: &Lease) -> Result<(), JournalError> {
        self.ask_of(self.store_of(Some(lease))?, async |store| store.release(lease).await)
    }

    async fn append(&self, lease: &Lease, expected: Sequence, batch: Batch) -> Result<Sequence, JournalError> {
        let submitted = facts(&lease.run, expected, &batch.events);
        self.write(Some(lease), submitted, async |store| store.append(lease, expected, batch).await)
    }

    async fn load(&self, run: &RunId) -> Result<LoadedRun, JournalError> {
        self.ask(async |store| store.load(run).await)
    }

    async fn events(&self, run: &RunId, after: Sequence, limit: usize) -> Result<Vec<StoredEvent>, JournalError> {
        self.ask(async |store| store.events(run, after, limit).await)
    }

    async fn list(&self, environment: Option<&EnvironmentName>, limit: usize) -> Result<Vec<RunSummary>, JournalError> {
        self.ask(async |store| store.list(environment, limit).await)
    }

    async fn find(&self, prefix: &str) -> Result<RunId, JournalError> {
        self.ask(async |store| store.find(prefix).await)
    }

    async fn environment(&self, name: &EnvironmentName) -> Result<Option<EnvironmentRow>, JournalError> {
        self.ask(async |store| store.environment(name).await)
    }

    async fn record_rows(
        &self,
        environment: &EnvironmentUid,
        except: Option<&RunId>,
    ) -> Result<Vec<RecordRow>, JournalError> {
        self.ask(async |store| store.record_rows(environment, except).await)
    }

    async fn generations(&self, environment: &EnvironmentUid) -> Result<Vec<(StepName, u32)>, JournalError> {
        self.ask(async |store| store.generations(environment).await)
    }

    async fn forgotten(&self, environment: &EnvironmentUid) -> Result<Vec<StepName>, JournalError> {
        self.ask(async |store| store.forgotten(environment).await)
    }
}
