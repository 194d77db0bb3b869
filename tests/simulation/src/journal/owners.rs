//! More than one living owner: a process whose lease ended while it was held up, and the one that takes its run over.
//!
//! Each has a store of its own on the same disk, with connections, threads and locks of its own.

use super::{SimulatedStore, died, settings};
use platflow_engine::journal::{JournalError, Lease};
use platflow_engine::name::RunId;
use platflow_state::Store;
use rusqlite::{Connection, OpenFlags};
use std::sync::Arc;

impl SimulatedStore {
    /// The lease of a run ends under its owner, who lives on with the store that he has; whoever comes next opens another.
    ///
    /// # Panics
    /// When the file cannot be opened once more.
    pub fn end_lease(&self, run: &RunId, epoch: u64) {
        let mut inner = self.inner();
        let Some(store) = inner.store.take() else { return };
        inner.fenced.insert((run.clone(), epoch), store);
        // No owner of the simulation waits for real time: the end of the lease is written where all read it.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
        let by_hand = Connection::open_with_flags_and_vfs(self.path(), flags, inner.disk.vfs()).expect("it opens");
        by_hand.pragma_update(None, "synchronous", "FULL").expect("it is durable");
        by_hand.execute("UPDATE runs SET lease_until_ms = 0 WHERE id = ?1", [run.as_str()]).expect("the lease ends");
        drop(by_hand);
        inner.store = Some(Store::open(&self.path(), settings(&inner.disk)).expect("it opens for another process"));
    }

    pub(super) fn store_of(&self, lease: Option<&Lease>) -> Result<Arc<Store>, JournalError> {
        let inner = self.inner();
        let fenced = lease.and_then(|lease| inner.fenced.get(&(lease.run.clone(), lease.epoch)));
        fenced.or(inner.store.as_ref()).cloned().ok_or_else(died)
    }

    /// What an owner knows by his own clock: his lease is over no later than others find it to be.
    pub(super) fn refuse_fenced(&self, lease: &Lease) -> Result<(), JournalError> {
        if self.inner().fenced.contains_key(&(lease.run.clone(), lease.epoch)) {
            return Err(JournalError::Stale { run: lease.run.clone(), ours: lease.epoch, current: lease.epoch });
        }
        Ok(())
    }
}
