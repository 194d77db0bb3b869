//! The file itself: what is written reads back, whatever is altered is noticed, and a file that is not ours is refused
//! untouched.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod fixture;

use fixture::{EVENT_KINDS, STEP_STATES, event, loaded_row, new_run, note, row, run, step, uid};
use platflow_engine::journal::{Batch, Journal, JournalError};
use platflow_engine::secret::{SecretError, SecretStore};
use platflow_state::{Store, StoreSettings};
use proptest::prelude::*;
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

fn open(path: &Path) -> Arc<Store> {
    Store::open(path, StoreSettings::default()).unwrap()
}

const PAGE_BYTES: usize = 2_048;

fn executor() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

type Appended = Vec<(usize, Option<u8>, Vec<u8>)>;

fn batches() -> impl Strategy<Value = Vec<(Appended, bool)>> {
    let one = (0..EVENT_KINDS.len(), proptest::option::of(0..4_u8), proptest::collection::vec(any::<u8>(), 0..300));
    proptest::collection::vec((proptest::collection::vec(one, 0..6), proptest::bool::weighted(0.2)), 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Proves that any sequence of batches, with reopenings between them, reads back as it was written: every event with
    /// kind and payload, the last fold of every step, and an unbroken chain.
    #[test]
    fn whatever_is_written_reads_back(batches in batches()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        executor().block_on(async {
            let mut store = open(&path);
            let mut lease = store.create_run(new_run("r1", "aws-dev")).await.unwrap();
            let mut head = lease.head;
            let mut written: Vec<(&str, Vec<u8>)> = Vec::new();
            let mut folded = BTreeMap::new();
            for (appended, reopen) in batches {
                let mut batch = Batch::default();
                for (kind, about, payload) in appended {
                    let name = about.map(|number| format!("step.s{number}"));
                    batch.events.push(event(EVENT_KINDS[kind], name.as_deref(), payload.clone()));
                    if let Some(name) = name {
                        folded.insert(step(&name), loaded_row(&name, "intended", payload.clone()));
                        batch.steps.push(row(&name, "intended", payload.clone()));
                    }
                    written.push((EVENT_KINDS[kind], payload));
                }
                head = store.append(&lease, head, batch).await.unwrap();
                if reopen {
                    drop(store);
                    store = open(&path);
                    // The owner before died with its store: its lock is free, so nobody waits for its lease.
                    lease = store.acquire(&run("r1"), &fixture::owner()).await.unwrap();
                    assert_eq!(lease.head, head);
                }
            }
            let events = store.events(&run("r1"), 1, usize::MAX).await.unwrap();
            let read: Vec<_> = events.iter().map(|event| (event.kind.as_str(), event.payload.clone())).collect();
            assert_eq!(read, written);
            let loaded = store.load(&run("r1")).await.unwrap();
            assert_eq!(loaded.summary.head, head);
            assert_eq!(loaded.steps, folded.into_values().collect::<Vec<_>>());
            assert_eq!(store.verify(&run("r1")).await.unwrap(), head);
            store.check_file().await.unwrap();
        });
    }
}

/// Proves that every single alteration of the journal is noticed: each event × (deleted, payload, kind, step, time, hash,
/// renumbered), a cut tail with an adjusted head, an altered plan, an event moved to another run.
#[tokio::test]
async fn every_alteration_is_noticed() {
    const EVENTS: i64 = 6;
    let mut alterations: Vec<String> = (1..=EVENTS)
        .flat_map(|sequence| {
            [
                "DELETE FROM events WHERE",
                "UPDATE events SET payload = zeroblob(length(payload) + 1) WHERE",
                "UPDATE events SET kind = 'step-failed' WHERE",
                "UPDATE events SET step = 'network.other' WHERE",
                "UPDATE events SET recorded_at = recorded_at + 1 WHERE",
                "UPDATE events SET hash = zeroblob(32) WHERE",
                "UPDATE events SET id = id + 90 WHERE",
                "UPDATE events SET id = ((SELECT number FROM runs WHERE id = 'r2') << 32) + 50 WHERE",
            ]
            .map(|alter| format!("{alter} sequence = {sequence} AND run = (SELECT number FROM runs WHERE id = 'r1')"))
        })
        .collect();
    let of = "run = (SELECT number FROM runs WHERE id = 'r1')";
    alterations.push(format!(
        "DELETE FROM events WHERE sequence = {EVENTS} AND {of}; UPDATE runs SET head = head - 1 WHERE id = 'r1'"
    ));
    alterations
        .push(format!("DELETE FROM events WHERE sequence > 2 AND {of}; UPDATE runs SET head = 2 WHERE id = 'r1'"));
    alterations.push(format!("UPDATE plans SET body = zeroblob(length(body)) WHERE {of}"));
    alterations.push(format!("UPDATE plans SET sha256 = zeroblob(32) WHERE {of}"));
    alterations.push("UPDATE runs SET head = head + 1 WHERE id = 'r1'".to_owned());
    alterations.push("UPDATE runs SET head_hash = zeroblob(32) WHERE id = 'r1'".to_owned());
    for alteration in alterations {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let store = open(&path);
        let lease = store.create_run(new_run("r1", "aws-dev")).await.unwrap();
        store.create_run(new_run("r2", "aws-staging")).await.unwrap();
        // Two of them in one append: only the last of these has the chain's hash under it.
        for (head, events) in [(1, 1), (2, 2), (4, 1), (5, 1)] {
            let mut batch = note(&format!("note {head}"));
            batch.events = vec![event("step-noted", Some("network.vpc"), format!("note {head}")); events];
            store.append(&lease, head, batch).await.unwrap();
        }
        assert_eq!(store.verify(&run("r1")).await.unwrap(), 6);
        let by_hand = Connection::open(&path).unwrap();
        by_hand.pragma_update(None, "foreign_keys", false).unwrap();
        by_hand.execute_batch(&alteration).unwrap_or_else(|error| panic!("{alteration}: {error}"));
        assert!(by_hand.changes() > 0, "{alteration} altered nothing");
        // The plan is not read by `verify`: `load` checks it. Everything else, `verify` must see.
        let verified = match store.verify(&run("r1")).await {
            Ok(_) => store.load(&run("r1")).await.map(|loaded| loaded.summary.head),
            Err(error) => Err(error),
        };
        let Err(JournalError::Damaged(text)) = verified else { panic!("{alteration}: {verified:?}") };
        assert!(text.contains("r1"), "{alteration}: {text}");
    }
}

/// Proves that reading a stretch of events names the place of a gap, and that the stretch before it is still readable.
#[tokio::test]
async fn a_gap_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let store = open(&path);
    let lease = store.create_run(new_run("r1", "aws-dev")).await.unwrap();
    for head in 1..10 {
        store.append(&lease, head, note("x")).await.unwrap();
    }
    Connection::open(&path).unwrap().execute("DELETE FROM events WHERE sequence = 5", []).unwrap();
    assert_eq!(store.events(&run("r1"), 0, 4).await.unwrap().len(), 4);
    let error = store.events(&run("r1"), 0, 10).await.unwrap_err();
    assert!(matches!(&error, JournalError::Damaged(text) if text.contains("event 5 of run r1")), "{error}");
    let error = store.events(&run("r1"), 5, 2).await.unwrap_err();
    assert!(matches!(&error, JournalError::Damaged(text) if text.contains("event 5 of run r1")), "{error}");
}

/// Proves that an unknown kind of event or state of a step never reaches the file: the CHECKs refuse the batch whole.
#[tokio::test]
async fn the_schema_refuses_what_the_engine_does_not_know() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("state.db"));
    let lease = store.create_run(new_run("r1", "aws-dev")).await.unwrap();
    let batch =
        Batch { events: vec![event("step-noted", None, "x"), event("step-imagined", None, "x")], ..Batch::default() };
    assert!(matches!(store.append(&lease, 1, batch).await, Err(JournalError::Storage { .. })));
    let row = |state| row("a", state, "x");
    let batch =
        Batch { events: vec![event("step-noted", None, "x")], steps: vec![row("imagined")], ..Batch::default() };
    assert!(matches!(store.append(&lease, 1, batch).await, Err(JournalError::Storage { .. })));
    assert_eq!(store.append(&lease, 1, note("next")).await.unwrap(), 2);
    for state in STEP_STATES {
        store.append(&lease, 2, Batch { steps: vec![row(state)], ..Batch::default() }).await.unwrap();
    }
    for kind in EVENT_KINDS {
        let head = store.load(&run("r1")).await.unwrap().summary.head;
        store.append(&lease, head, Batch { events: vec![event(kind, None, "x")], ..Batch::default() }).await.unwrap();
    }
}

/// Proves that the file and its folder are for their owner's eyes only, WAL included.
#[tokio::test]
async fn file_and_folder_are_private() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b/state.db");
    let store = open(&path);
    store.create_run(new_run("r1", "aws-dev")).await.unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for (file, wanted) in [
        ("a", 0o700),
        ("a/b", 0o700),
        ("a/b/state.db", 0o600),
        ("a/b/state.db-wal", 0o600),
        ("a/b/owners", 0o700),
        ("a/b/owners/r1.1.lock", 0o600),
    ] {
        assert_eq!(mode(&folder.path().join(file)), wanted, "{file}");
    }
}

/// Proves that a newer schema, another application's database and a file that is no database are refused with the right
/// name, for writing and for reading, and that not one byte of them changes.
#[test]
fn a_file_that_is_not_ours_is_refused_untouched() {
    let folder = tempfile::tempdir().unwrap();
    let newer = folder.path().join("newer.db");
    drop(open(&newer));
    Connection::open(&newer).unwrap().pragma_update(None, "user_version", 1_000).unwrap();
    let foreign = folder.path().join("foreign.db");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE theirs (x); PRAGMA user_version = 1").unwrap();
    let text = folder.path().join("text.db");
    std::fs::write(&text, "this is not a database at all, it is a letter. ".repeat(100)).unwrap();
    for path in [&newer, &foreign, &text] {
        let before = std::fs::read(path).unwrap();
        for refused in
            [Store::open(path, StoreSettings::default()), Store::open_read_only(path, StoreSettings::default())]
        {
            let refused = refused.err().unwrap_or_else(|| panic!("{} was opened", path.display()));
            if path == &newer {
                assert!(matches!(refused, JournalError::Newer { found: 1_000, .. }), "{refused}");
            } else {
                assert!(matches!(refused, JournalError::Damaged(_)), "{refused:?}");
            }
        }
        assert_eq!(std::fs::read(path).unwrap(), before, "{}", path.display());
    }
}

/// Proves that pages overwritten with rubbish end in `Damaged`, never in a panic or in wrong facts: every page in turn.
#[test]
fn rubbish_pages_are_damage() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    executor().block_on(async {
        let store = open(&path);
        let lease = store.create_run(new_run("r1", "aws-dev")).await.unwrap();
        for head in 1..40 {
            store.append(&lease, head, note(&"x".repeat(400))).await.unwrap();
        }
    });
    let whole = std::fs::read(&path).unwrap();
    let pages = whole.len() / PAGE_BYTES;
    assert!(pages > 10, "{pages}");
    let mut noticed = 0;
    for page in 0..pages {
        let mut bytes = whole.clone();
        bytes[page * PAGE_BYTES..(page + 1) * PAGE_BYTES].fill(0xa5);
        std::fs::write(&path, &bytes).unwrap();
        let seen = executor().block_on(async {
            let store = Store::open(&path, StoreSettings::default())?;
            store.check_file().await?;
            store.load(&run("r1")).await?;
            store.verify(&run("r1")).await
        });
        match seen {
            Err(JournalError::Damaged(_)) => noticed += 1,
            other => panic!("page {page}: {other:?}"),
        }
    }
    assert_eq!(noticed, pages);
}

/// Proves that a store opened for reading reads, refuses to write, and creates nothing.
#[tokio::test]
async fn a_reader_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    assert!(matches!(Store::open_read_only(&path, StoreSettings::default()), Err(JournalError::Storage { .. })));
    assert!(!path.exists());
    let writer = open(&path);
    let lease = writer.create_run(new_run("r1", "aws-dev")).await.unwrap();
    let reader = Store::open_read_only(&path, StoreSettings::default()).unwrap();
    assert!(reader.list(None, 10).await.unwrap()[0].owner_live);
    writer.append(&lease, 1, note("x")).await.unwrap();
    assert_eq!(reader.events(&run("r1"), 0, 10).await.unwrap().len(), 2);
    assert!(matches!(reader.create_run(new_run("r2", "other")).await, Err(JournalError::Storage { .. })));
    assert!(matches!(reader.acquire(&run("r1"), &fixture::owner()).await, Err(JournalError::Storage { .. })));
}

/// Proves that while another process sits on the write lock the file still opens and reads, as `status` and `cancel` need
/// it, and that a write is refused as busy, not as a disk that failed.
#[tokio::test]
async fn a_write_lock_that_is_held_keeps_nobody_from_reading() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let first = open(&path);
    let lease = first.create_run(new_run("r1", "aws-dev")).await.unwrap();
    drop(first);
    let holder = Connection::open(&path).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let store = Store::open(&path, StoreSettings { busy_ms: 50, ..StoreSettings::default() }).unwrap();
    assert_eq!(store.load(&run("r1")).await.unwrap().summary.id, run("r1"));
    assert!(matches!(store.append(&lease, 1, note("x")).await, Err(JournalError::Busy)));
    holder.execute_batch("ROLLBACK").unwrap();
    store.append(&lease, 1, note("x")).await.unwrap();
}

/// Proves the secret store: the same bytes again are no conflict, other bytes are unless asked for, access is journaled,
/// and a removed secret leaves no copy of its bytes in the file or the WAL.
#[tokio::test]
async fn a_removed_secret_leaves_no_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let store = open(&path);
    let environment = uid("aws-dev");
    let sealed = b"-----BEGIN AGE ENCRYPTED FILE----- MARK-THAT-MUST-VANISH".repeat(200);
    store.put_secret(&environment, "vault/share-1", &sealed, false).await.unwrap();
    store.put_secret(&environment, "vault/share-1", &sealed, false).await.unwrap();
    let refused = store.put_secret(&environment, "vault/share-1", b"other", false).await.unwrap_err();
    assert!(matches!(refused, SecretError::Exists(_)), "{refused}");
    assert_eq!(store.get_secret(&environment, "vault/share-1").await.unwrap().unwrap().ciphertext, sealed);
    assert_eq!(store.get_secret(&uid("other"), "vault/share-1").await.unwrap(), None);
    store.put_secret(&environment, "argocd/admin-password", b"other", true).await.unwrap();
    let names: Vec<_> = store.list_secrets(&environment).await.unwrap().into_iter().map(|secret| secret.name).collect();
    assert_eq!(names, ["argocd/admin-password", "vault/share-1"]);
    store.record_access(&environment, "vault/share-1", "somebody").await.unwrap();
    let seen: (String, String) = Connection::open(&path)
        .unwrap()
        .query_row("SELECT name, who FROM secret_access", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    assert_eq!(seen, ("vault/share-1".to_owned(), "somebody".to_owned()));

    store.remove_secret(&environment, "vault/share-1").await.unwrap();
    store.remove_secret(&environment, "vault/share-1").await.unwrap();
    assert_eq!(store.get_secret(&environment, "vault/share-1").await.unwrap(), None);
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let file = file.unwrap().path();
        if file.is_file() {
            let bytes = std::fs::read(&file).unwrap();
            let found = bytes.windows(21).any(|window| window == b"MARK-THAT-MUST-VANISH");
            assert!(!found, "{} still holds the secret", file.display());
        }
    }
}
