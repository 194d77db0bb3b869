//! Leases: who may append to a run, how death is proven, how a held lease stays alive.
//!
//! Three things together: the epoch in the run's row (fences every earlier owner out of the journal), a deadline on the
//! boot-time clock (bounds how long a silent owner blocks others), and an OS lock on a file per run and epoch (proves on
//! this kernel, at once, that an owner is dead). A lock file belongs to one epoch: a stopped owner that still holds the
//! lock of an older epoch proves nothing about the present one.

use crate::failure::{sqlite, storage};
use crate::file;
use crate::identity;
use crate::time;
use platflow_engine::journal::{JournalError, Lease, Owner};
use platflow_engine::name::RunId;
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The lock files of one state file.
#[derive(Debug, Clone)]
pub(crate) struct LockFolder(PathBuf);

impl LockFolder {
    pub(crate) fn beside(state: &Path) -> Self {
        Self(file::folder_of(state).join("owners"))
    }

    fn path(&self, run: &str, epoch: u64) -> PathBuf {
        self.0.join(format!("{run}.{epoch}.lock"))
    }

    /// Takes the OS lock of one epoch; it is held until the file is dropped or the process dies, however it dies.
    pub(crate) fn lock(&self, run: &str, epoch: u64) -> Result<File, JournalError> {
        let written = |error: io::Error| storage("written", error);
        file::make_folder(&self.0).map_err(written)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(self.path(run, epoch))
            .map_err(written)?;
        match lock.try_lock() {
            Ok(()) => Ok(lock),
            Err(TryLockError::WouldBlock) => Err(written(io::Error::new(
                io::ErrorKind::WouldBlock,
                format!(
                    "the lock of run {run}, epoch {epoch}, is held by another process though its journal does not say so"
                ),
            ))),
            Err(TryLockError::Error(error)) => Err(written(error)),
        }
    }

    /// Whether some process holds the lock; `None` when the file is not there to tell. Shared, so that two who look at
    /// the same moment do not take each other for the owner.
    fn is_held(&self, run: &str, epoch: u64) -> Option<bool> {
        let lock = File::open(self.path(run, epoch)).ok()?;
        match lock.try_lock_shared() {
            Ok(()) => Some(false),
            Err(TryLockError::WouldBlock) => Some(true),
            Err(TryLockError::Error(_)) => None,
        }
    }

    pub(crate) fn forget(&self, run: &str, epoch: u64) {
        // A leftover file is harmless: nobody looks at the lock of a past epoch.
        let _ = std::fs::remove_file(self.path(run, epoch));
    }
}

/// What is known about the owner in a run's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Liveness {
    /// Nobody owns it, the owner is proven dead, or its lease ended: it can be taken.
    Free,
    /// The owner lives, or must be taken to live.
    Live,
    /// The owner is of another host and another boot: its deadline means nothing here. Only watching tells.
    Elsewhere,
}

/// The owner columns of a run.
#[derive(Debug, Clone)]
pub(crate) struct Ownership {
    pub(crate) epoch: u64,
    pub(crate) owner: Option<Owner>,
    pub(crate) since: i64,
    pub(crate) boot: String,
    pub(crate) until_ms: i64,
}

impl Ownership {
    /// Reads `epoch, owner, owned_since, lease_boot, lease_until_ms` from `first` on.
    pub(crate) fn from_row(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<Self> {
        let owner: Option<String> = row.get(first + 1)?;
        let owner = match owner {
            None => None,
            Some(text) => Some(serde_json::from_str(&text).map_err(|error| {
                rusqlite::Error::FromSqlConversionFailure(first + 1, rusqlite::types::Type::Text, Box::new(error))
            })?),
        };
        Ok(Self {
            epoch: u64::try_from(row.get::<_, i64>(first)?).unwrap_or_default(),
            owner,
            since: row.get::<_, Option<i64>>(first + 2)?.unwrap_or_default(),
            boot: row.get::<_, Option<String>>(first + 3)?.unwrap_or_default(),
            until_ms: row.get::<_, Option<i64>>(first + 4)?.unwrap_or_default(),
        })
    }

    /// Whether the owner lives, as far as this host can tell now.
    pub(crate) fn liveness(&self, run: &str, locks: &LockFolder) -> Result<Liveness, JournalError> {
        let Some(owner) = &self.owner else { return Ok(Liveness::Free) };
        let boot = identity::boot_id().map_err(|error| storage("read", error))?;
        if self.boot != boot {
            // Same host, other boot: the owner died with that boot.
            return Ok(if owner.host == identity::host() { Liveness::Free } else { Liveness::Elsewhere });
        }
        // One kernel: its lock table is the proof, across containers too, where a pid would prove nothing.
        let dead = match locks.is_held(run, self.epoch) {
            Some(held) => !held,
            None => owner.host == identity::host() && identity::is_gone(owner),
        };
        Ok(if dead || time::boot_now_ms() >= self.until_ms { Liveness::Free } else { Liveness::Live })
    }
}

struct Held {
    epoch: u64,
    until_ms: i64,
    lost_to: Option<u64>,
    _lock: File,
}

/// The leases that this store holds, with their OS locks.
#[derive(Default)]
pub(crate) struct HeldLeases(Mutex<HashMap<RunId, Held>>);

impl HeldLeases {
    fn all(&self) -> MutexGuard<'_, HashMap<RunId, Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn insert(&self, run: &RunId, epoch: u64, until_ms: i64, lock: File) {
        self.all().insert(run.clone(), Held { epoch, until_ms, lost_to: None, _lock: lock });
    }

    /// Lets go of the lock of this very epoch.
    pub(crate) fn remove(&self, lease: &Lease) {
        let mut all = self.all();
        if all.get(&lease.run).is_some_and(|held| held.epoch == lease.epoch) {
            all.remove(&lease.run);
        }
    }

    /// Notes that an append or a renewal met a newer epoch.
    pub(crate) fn lost(&self, run: &RunId, epoch: u64, current: u64) {
        if let Some(held) = self.all().get_mut(run).filter(|held| held.epoch == epoch) {
            held.lost_to = Some(current);
        }
    }

    /// What certainly remains. The deadline was computed before the write that made it known to others, so it never lies
    /// behind theirs.
    pub(crate) fn left(&self, lease: &Lease) -> Result<Duration, JournalError> {
        let stale = |current| JournalError::Stale { run: lease.run.clone(), ours: lease.epoch, current };
        let all = self.all();
        let held = all.get(&lease.run).ok_or_else(|| stale(lease.epoch))?;
        if held.epoch != lease.epoch {
            return Err(stale(held.epoch));
        }
        if let Some(current) = held.lost_to {
            return Err(stale(current));
        }
        match u64::try_from(held.until_ms - time::boot_now_ms()) {
            Ok(left) if left > 0 => Ok(Duration::from_millis(left)),
            _ => Err(stale(lease.epoch)),
        }
    }

    pub(crate) fn renewable(&self) -> Vec<(RunId, u64)> {
        let now = time::boot_now_ms();
        self.all()
            .iter()
            .filter(|(_, held)| held.lost_to.is_none() && held.until_ms > now)
            .map(|(run, held)| (run.clone(), held.epoch))
            .collect()
    }

    pub(crate) fn renewed(&self, run: &RunId, epoch: u64, until_ms: i64) {
        if let Some(held) = self.all().get_mut(run).filter(|held| held.epoch == epoch) {
            held.until_ms = until_ms;
        }
    }
}

/// The outcome of renewing one lease.
pub(crate) enum Renewal {
    Renewed,
    /// Taken over, released, or ended before the renewal came: an ended lease is never revived, its owner acquires anew.
    Lost {
        current: u64,
    },
}

/// Extends one lease inside a transaction.
pub(crate) fn renew(connection: &Connection, run: &RunId, epoch: u64, until_ms: i64) -> Result<Renewal, JournalError> {
    let failed = sqlite("written");
    let changed = connection
        .prepare_cached(
            "UPDATE runs SET lease_until_ms = ?1
             WHERE id = ?2 AND epoch = ?3 AND owner IS NOT NULL AND lease_until_ms > ?4",
        )
        .and_then(|mut statement| {
            statement.execute(params![
                until_ms,
                run.as_str(),
                i64::try_from(epoch).unwrap_or(i64::MAX),
                time::boot_now_ms()
            ])
        })
        .map_err(&failed)?;
    if changed == 1 {
        return Ok(Renewal::Renewed);
    }
    let current: Option<i64> = connection
        .prepare_cached("SELECT epoch FROM runs WHERE id = ?1")
        .and_then(|mut statement| statement.query_row([run.as_str()], |row| row.get(0)).optional())
        .map_err(&failed)?;
    Ok(Renewal::Lost { current: current.and_then(|epoch| u64::try_from(epoch).ok()).unwrap_or(epoch) })
}
