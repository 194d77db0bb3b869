//! Files damaged at random: bytes, whole pages and cut ends of the database and of its write-ahead log. It does not cover
//! single alterations of rows through SQL (`integrity.rs`), nor files that are damaged while a store has them open.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod fixture;

use fixture::{new_run, note, run};
use platflow_engine::journal::{Journal, JournalError};
use platflow_state::{Store, StoreSettings};
use proptest::prelude::*;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

const PAGE_BYTES: usize = 2_048;
/// Far above what any case takes: a case that is still at work then hangs.
const HANGS_AFTER: Duration = Duration::from_secs(60);

/// One alteration of the bytes of a file; places are taken modulo its length.
#[derive(Debug, Clone)]
enum Damage {
    Byte { at: usize, xor: u8 },
    ZeroedPage { at: usize },
    SwappedPages { one: usize, other: usize },
    CutTo { length: usize },
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => (any::<usize>(), 1..=u8::MAX).prop_map(|(at, xor)| Damage::Byte { at, xor }),
        1 => any::<usize>().prop_map(|at| Damage::ZeroedPage { at }),
        1 => (any::<usize>(), any::<usize>()).prop_map(|(one, other)| Damage::SwappedPages { one, other }),
        1 => any::<usize>().prop_map(|length| Damage::CutTo { length }),
    ]
}

fn apply(damage: &Damage, bytes: &mut Vec<u8>) {
    let (length, pages) = (bytes.len().max(1), (bytes.len() / PAGE_BYTES).max(1));
    match *damage {
        Damage::Byte { at, xor } => bytes.iter_mut().skip(at % length).take(1).for_each(|byte| *byte ^= xor),
        Damage::ZeroedPage { at } => {
            bytes.iter_mut().skip(at % pages * PAGE_BYTES).take(PAGE_BYTES).for_each(|byte| *byte = 0);
        }
        Damage::SwappedPages { one, other } => {
            for place in 0..PAGE_BYTES {
                let (one, other) = (one % pages * PAGE_BYTES + place, other % pages * PAGE_BYTES + place);
                if one.max(other) < bytes.len() {
                    bytes.swap(one, other);
                }
            }
        }
        Damage::CutTo { length: to } => bytes.truncate(to % length),
    }
}

fn executor() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A valid file and its log, and the payloads of its run: as a killed process leaves them, or, when `closed`, after the
/// last store closed and moved all of the log into the database, where no log hides the damage.
fn valid(closed: bool) -> (Vec<u8>, Vec<u8>, Vec<Vec<u8>>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    executor().block_on(async {
        let store = Store::open(&path, StoreSettings::default()).unwrap();
        let lease = store.create_run(new_run("r1", "aws-dev")).await.unwrap();
        for head in 1..30 {
            store.append(&lease, head, note(&format!("note {head}"))).await.unwrap();
        }
        let events = store.events(&run("r1"), 1, usize::MAX).await.unwrap();
        let log_path = folder.path().join("state.db-wal");
        let log = if closed { Vec::new() } else { std::fs::read(&log_path).unwrap() };
        if closed {
            drop(store);
            assert!(std::fs::metadata(&log_path).map_or(0, |log| log.len()) == 0, "closing left a log behind");
        }
        (std::fs::read(&path).unwrap(), log, events.into_iter().map(|event| event.payload).collect())
    })
}

/// Opens the file and reads everything that is checked: the payloads of the run, or the refusal.
fn read_checked(path: &Path) -> Result<Vec<Vec<u8>>, JournalError> {
    executor().block_on(async {
        let store = Store::open(path, StoreSettings::default())?;
        store.check_file().await?;
        store.load(&run("r1")).await?;
        store.verify(&run("r1")).await?;
        Ok(store.events(&run("r1"), 1, usize::MAX).await?.into_iter().map(|event| event.payload).collect())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Proves that a file damaged at random never panics or hangs the store: it is refused with a reason, or what it
    /// reads is a beginning of what was written (a log that ends in a torn frame ends there), never something else.
    #[test]
    fn damage_is_refused_or_harmless(
        closed: bool,
        in_database in proptest::collection::vec(damage(), 0..3),
        in_log in proptest::collection::vec(damage(), 0..3),
    ) {
        let (mut database, mut log, written) = valid(closed);
        in_database.iter().for_each(|damage| apply(damage, &mut database));
        in_log.iter().for_each(|damage| apply(damage, &mut log));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        std::fs::write(&path, database).unwrap();
        std::fs::write(folder.path().join("state.db-wal"), log).unwrap();
        let (sender, receiver) = mpsc::channel();
        let reader = std::thread::spawn(move || sender.send(read_checked(&path)));
        let outcome = receiver.recv_timeout(HANGS_AFTER);
        prop_assert!(outcome.is_ok(), "the store panicked or hangs: {outcome:?}");
        reader.join().unwrap().unwrap();
        let outcome = outcome.unwrap();
        if in_database.is_empty() && in_log.is_empty() {
            // The control: without it, a copy that is always refused would prove the same.
            prop_assert_eq!(outcome.as_ref().ok(), Some(&written));
        }
        match outcome {
            Ok(read) => prop_assert!(written.starts_with(&read), "read {} events that were not written", read.len()),
            Err(refusal) => prop_assert!(!refusal.to_string().is_empty()),
        }
    }
}
