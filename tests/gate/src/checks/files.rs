//! The file itself: alterations are noticed, files that are not ours are refused, removed secrets leave no bytes.

use super::fixture::{new_run, note, run, uid};
use super::{block_on, ensure, said};
use crate::battery::Case;
use platflow_engine::journal::{Journal, JournalError};
use platflow_engine::secret::{SecretError, SecretStore};
use platflow_state::{Store, StoreSettings};
use rusqlite::Connection;
use std::path::Path;
use std::sync::Arc;

const EVENTS: u64 = 6;

pub(super) fn open(path: &Path) -> Result<Arc<Store>, String> {
    Store::open(path, StoreSettings::default()).map_err(said)
}

fn alterations() -> Vec<String> {
    let of = "run = (SELECT number FROM runs WHERE id = 'r1')";
    let each = [
        "DELETE FROM events WHERE",
        "UPDATE events SET payload = zeroblob(length(payload) + 1) WHERE",
        "UPDATE events SET kind = 'step-failed' WHERE",
        "UPDATE events SET step = 'network.other' WHERE",
        "UPDATE events SET recorded_at = recorded_at + 1 WHERE",
        "UPDATE events SET hash = zeroblob(32) WHERE",
        "UPDATE events SET id = id + 90 WHERE",
    ];
    let mut all: Vec<String> =
        (1..=EVENTS).flat_map(|sequence| each.map(|alter| format!("{alter} sequence = {sequence} AND {of}"))).collect();
    all.push(format!(
        "DELETE FROM events WHERE sequence = {EVENTS} AND {of}; UPDATE runs SET head = head - 1 WHERE id = 'r1'"
    ));
    all.push(format!("UPDATE plans SET body = zeroblob(length(body)) WHERE {of}"));
    all.push(format!(
        "UPDATE plans SET body = CAST(replace(CAST(body AS TEXT), 'the network', 'the netwerk') AS BLOB) WHERE {of}"
    ));
    all.push(format!("UPDATE plans SET sha256 = zeroblob(32) WHERE {of}"));
    all.push("UPDATE runs SET head = head + 1 WHERE id = 'r1'".to_owned());
    all.push("UPDATE runs SET head_hash = zeroblob(32) WHERE id = 'r1'".to_owned());
    all
}

async fn noticed(alteration: &str) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(said)?;
    let path = folder.path().join("state.db");
    let store = open(&path)?;
    let lease = store.create_run(new_run("r1", "aws-dev")).await.map_err(said)?;
    for head in 1..EVENTS {
        store.append(&lease, head, note(&format!("note {head}"))).await.map_err(said)?;
    }
    ensure(store.verify(&run("r1")).await.map_err(said)? == EVENTS, || "a sound journal is short".to_owned())?;
    let by_hand = Connection::open(&path).map_err(said)?;
    by_hand.pragma_update(None, "foreign_keys", false).map_err(said)?;
    by_hand.execute_batch(alteration).map_err(said)?;
    let seen = match store.verify(&run("r1")).await {
        Ok(_) => store.load(&run("r1")).await.map(|loaded| loaded.summary.head),
        Err(error) => Err(error),
    };
    ensure(matches!(seen, Err(JournalError::Damaged(_))), || format!("{alteration}: {seen:?}"))
}

/// A whole plan of another run under the run's own digest: nothing but the chain knows that it is another.
async fn a_plan_is_bound() -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(said)?;
    let path = folder.path().join("state.db");
    let store = open(&path)?;
    store.create_run(new_run("r1", "aws-dev")).await.map_err(said)?;
    store.create_run(new_run("r2", "aws-staging")).await.map_err(said)?;
    let by_hand = Connection::open(&path).map_err(said)?;
    let exchange = "UPDATE plans SET (body, sha256) = (SELECT body, sha256 FROM plans WHERE run = 2) WHERE run = 1";
    by_hand.execute_batch(exchange).map_err(said)?;
    let seen = store.verify(&run("r1")).await;
    ensure(matches!(seen, Err(JournalError::Damaged(_))), || format!("another plan passes: {seen:?}"))
}

async fn refused() -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(said)?;
    let newer = folder.path().join("newer.db");
    drop(open(&newer)?);
    Connection::open(&newer).and_then(|file| file.pragma_update(None, "user_version", 1_000)).map_err(said)?;
    let opened = Store::open(&newer, StoreSettings::default()).map(|_| ());
    ensure(matches!(opened, Err(JournalError::Newer { .. })), || format!("a newer file: {opened:?}"))?;
    let foreign = folder.path().join("foreign.db");
    let theirs = "CREATE TABLE theirs (x); PRAGMA user_version = 1";
    Connection::open(&foreign).and_then(|file| file.execute_batch(theirs)).map_err(said)?;
    let opened = Store::open_read_only(&foreign, StoreSettings::default()).map(|_| ());
    ensure(matches!(opened, Err(JournalError::Damaged(_))), || format!("a foreign file: {opened:?}"))
}

async fn secrets() -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(said)?;
    let path = folder.path().join("state.db");
    let store = open(&path)?;
    let environment = uid("aws-dev");
    let sealed = b"SEALED-BYTES-THAT-MUST-VANISH".repeat(200);
    store.put_secret(&environment, "vault/share-1", &sealed, false).await.map_err(said)?;
    let other = store.put_secret(&environment, "vault/share-1", b"other", false).await;
    ensure(matches!(other, Err(SecretError::Exists(_))), || format!("another secret of one name: {other:?}"))?;
    store.put_secret(&environment, "argocd/admin", b"stays", false).await.map_err(said)?;
    store.remove_secret(&environment, "vault/share-1").await.map_err(said)?;
    for file in ["state.db", "state.db-wal"] {
        let bytes = std::fs::read(folder.path().join(file)).unwrap_or_default();
        let found = bytes.windows(29).any(|window| window == b"SEALED-BYTES-THAT-MUST-VANISH");
        ensure(!found, || format!("{file} still has the bytes of a removed secret"))?;
    }
    Ok(())
}

/// The cases.
#[must_use]
pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new("files that are not ours", || block_on(refused())),
        Case::new("removed secrets", || block_on(secrets())),
        Case::new("alterations", || block_on(a_plan_is_bound())),
    ];
    cases.extend(
        alterations().into_iter().map(|alteration| Case::new("alterations", move || block_on(noticed(&alteration)))),
    );
    cases
}
