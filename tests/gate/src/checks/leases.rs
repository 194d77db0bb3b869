//! Leases of the file: their clock, their end, their loss, and the death of an owner that is proven at once.

use super::files::open;
use super::fixture::{new_run, note, owner, run};
use super::{block_on, ensure, said};
use crate::battery::Case;
use platflow_engine::journal::{Journal, JournalError, Lease};
use platflow_state::{Store, StoreSettings};
use rusqlite::Connection;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Far above what a lease of these cases lasts.
const PATIENCE: Duration = Duration::from_secs(4);

struct Made {
    _folder: tempfile::TempDir,
    path: PathBuf,
    store: Arc<Store>,
    lease: Lease,
}

async fn made(settings: StoreSettings) -> Result<Made, String> {
    let folder = tempfile::tempdir().map_err(said)?;
    let path = folder.path().join("state.db");
    let store = Store::open(&path, settings).map_err(said)?;
    let lease = store.create_run(new_run("r1", "aws-dev")).await.map_err(said)?;
    Ok(Made { _folder: folder, path, store, lease })
}

fn short() -> StoreSettings {
    StoreSettings { lease_ms: 600, renew_ms: 50, ..StoreSettings::default() }
}

/// Waits for the store to say that a lease is gone.
fn gone(made: &Made, what: &str) -> Result<(), String> {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        if matches!(made.store.lease_left(&made.lease), Err(JournalError::Stale { .. })) {
            return Ok(());
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    Err(what.to_owned())
}

/// A deadline means something to other processes only on the clock that they share, which no operator can set.
async fn boot_clock() -> Result<(), String> {
    let made = made(StoreSettings::default()).await?;
    let until_ms: i64 = Connection::open(&made.path)
        .and_then(|file| file.query_row("SELECT lease_until_ms FROM runs", [], |row| row.get(0)))
        .map_err(said)?;
    let uptime = std::fs::read_to_string("/proc/uptime").map_err(said)?;
    let uptime: f64 = uptime.split(' ').next().and_then(|text| text.parse().ok()).ok_or("no uptime")?;
    let left_ms = until_ms as f64 - uptime * 1_000.0;
    ensure((0.0..=10_100.0).contains(&left_ms), || format!("a lease that lasts {left_ms} ms"))
}

async fn an_ended_lease_stays_ended() -> Result<(), String> {
    let made = made(short()).await?;
    // As if this process had been stopped for longer than its lease: the file says so, the process does not know.
    Connection::open(&made.path)
        .and_then(|file| {
            file.busy_timeout(PATIENCE)?;
            file.execute("UPDATE runs SET lease_until_ms = 1", [])
        })
        .map_err(said)?;
    gone(&made, "a lease was renewed after its end")
}

async fn a_lease_ends_by_itself() -> Result<(), String> {
    let made = made(short()).await?;
    let by_hand = Connection::open(&made.path).map_err(said)?;
    by_hand.busy_timeout(PATIENCE).map_err(said)?;
    // Nobody can renew while another process is in the middle of a write.
    by_hand.execute_batch("BEGIN IMMEDIATE").map_err(said)?;
    let ended = gone(&made, "a lease that could not be renewed goes on");
    by_hand.execute_batch("ROLLBACK").map_err(said)?;
    ended
}

async fn a_refused_append_loses_the_lease() -> Result<(), String> {
    let made = made(StoreSettings::default()).await?;
    Connection::open(&made.path)
        .and_then(|file| {
            file.busy_timeout(PATIENCE)?;
            file.execute("UPDATE runs SET epoch = epoch + 1", [])
        })
        .map_err(said)?;
    let refused = made.store.append(&made.lease, 1, note("late")).await;
    ensure(matches!(refused, Err(JournalError::Stale { .. })), || format!("a late append: {refused:?}"))?;
    let left = made.store.lease_left(&made.lease);
    ensure(left.is_err(), || format!("after a refused append a lease is still {left:?}"))
}

async fn death_is_proven_at_once() -> Result<(), String> {
    let made = made(StoreSettings::default()).await?;
    let refused = made.store.acquire(&run("r1"), &owner()).await.map(|_| ());
    ensure(matches!(refused, Err(JournalError::Owned { .. })), || format!("beside a live owner: {refused:?}"))?;
    let Made { _folder, path, store, .. } = made;
    drop(store);
    let next = open(&path)?;
    next.acquire(&run("r1"), &owner()).await.map(|_| ()).map_err(said)
}

/// The cases.
#[must_use]
pub fn cases() -> Vec<Case> {
    vec![
        Case::new("leases run on the boot clock", || block_on(boot_clock())),
        Case::new("an ended lease stays ended", || block_on(an_ended_lease_stays_ended())),
        Case::new("a lease ends by itself", || block_on(a_lease_ends_by_itself())),
        Case::new("a refused append loses the lease", || block_on(a_refused_append_loses_the_lease())),
        Case::new("death is proven at once", || block_on(death_is_proven_at_once())),
    ]
}
