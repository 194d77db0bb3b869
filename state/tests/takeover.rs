//! What a takeover reads on the way, in one pass over the chain, beside what a load reads by itself.
//!
//! That damage is refused is shown in `damaged_resume.rs`, on files that were damaged at random.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests fail by panicking")]

mod fixture;

use fixture::{event, new_run, owner, row, run, step};
use platflow_engine::journal::{Batch, Journal, JournalError, Lease, LoadedRun, NewRun, StepRow};
use platflow_engine::plan::{Plan, PlannedStep};
use platflow_state::{Store, StoreSettings};
use rusqlite::{Connection, params};
use std::path::Path;

const STEPS: u64 = 40;

fn named(name: &str, state: &'static str, intent: Option<u64>, outcome: Option<u64>, payload: Option<&str>) -> StepRow {
    let payload = payload.map(|payload| payload.as_bytes().to_vec());
    StepRow { step: step(name), state, intent, outcome, payload }
}

/// A run whose steps ended in every way that rows tell: named by two events, by one, by one for both, written out, and all
/// of that beside events that no row names.
async fn fill(store: &Store) -> Lease {
    let lease = store.create_run(new_run("r1", "aws-dev")).await.unwrap();
    let mut head = lease.head;
    for number in 0..STEPS {
        let name = format!("step.s{number:02}");
        let about = |kind, text: &str| event(kind, Some(&name), format!("{{\"of\":\"{name} {text}\"}}"));
        let (intent, outcome) = (head + 1, head + 3);
        let steps = vec![match number % 4 {
            0 => named(&name, "verified", Some(intent), Some(outcome), None),
            1 => named(&name, "intended", Some(intent), None, None),
            2 => named(&name, "verified", Some(outcome), Some(outcome), Some("{\"told\":true}")),
            _ => row(&name, "failed", "{\"told\":\"whole\"}"),
        }];
        let events = vec![about("step-intended", "i"), about("step-noted", "n"), about("step-verified", "v")];
        head = store.append(&lease, head, Batch { events, steps, ..Batch::default() }).await.unwrap();
    }
    store.release(&lease).await.unwrap();
    Lease { head, ..lease }
}

#[track_caller]
fn assert_same(one: &LoadedRun, other: &LoadedRun) {
    assert_eq!(one.steps, other.steps);
    assert_eq!((&one.plan, &one.plan_digest, &one.run_payload), (&other.plan, &other.plan_digest, &other.run_payload));
    assert_eq!(one.summary.head, other.summary.head);
}

/// As somebody reads it who takes nothing over.
async fn read_alone(path: &Path) -> LoadedRun {
    let reader = Store::open_read_only(path, StoreSettings::default()).unwrap();
    reader.load(&run("r1")).await.unwrap()
}

/// Proves that a run which was taken over loads as it does for everybody else, the second time too, and that what the takeover
/// read is not used any more once something was appended.
#[tokio::test]
async fn a_run_taken_over_loads_as_for_everybody() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let store = Store::open(&path, StoreSettings::default()).unwrap();
    let filled = fill(&store).await;
    let alone = read_alone(&path).await;
    assert_eq!(alone.steps.len(), usize::try_from(STEPS).unwrap());
    assert!(alone.steps.iter().any(|step| step.intent.is_some() && step.outcome.is_some()));

    let lease = store.acquire(&run("r1"), &owner()).await.unwrap();
    assert_eq!(lease.head, filled.head);
    for _ in 0..2 {
        assert_same(&store.load(&run("r1")).await.unwrap(), &alone);
    }
    store.release(&lease).await.unwrap();

    let lease = store.acquire(&run("r1"), &owner()).await.unwrap();
    let more = Batch {
        events: vec![event("step-failed", Some("step.s01"), "{}")],
        steps: vec![row("step.s01", "failed", "{\"later\":1}")],
        ..Batch::default()
    };
    store.append(&lease, lease.head, more).await.unwrap();
    let loaded = store.load(&run("r1")).await.unwrap();
    assert_eq!(loaded.summary.head, filled.head + 1);
    assert_same(&loaded, &read_alone(&path).await);
}

/// A run with a plan that is packed in the file, and how its row was when it was written.
async fn packed(path: &Path) -> (std::sync::Arc<Store>, NewRun, i64) {
    let store = Store::open(path, StoreSettings::default()).unwrap();
    let mut new = new_run("r1", "aws-dev");
    let mut large = Plan::clone(&new.plan);
    let planned = large.steps[0].clone();
    large.steps =
        (0..2_000).map(|number| PlannedStep { name: step(&format!("s{number}")), ..planned.clone() }).collect();
    new.plan_digest = large.digest().unwrap();
    new.plan = large.into();
    let lease = store.create_run(new.clone()).await.unwrap();
    store.release(&lease).await.unwrap();
    let file = Connection::open(path).unwrap();
    let (length, kept) = file
        .query_row("SELECT unpacked, length(body) FROM plans", [], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)))
        .unwrap();
    assert!(kept * 4 < length, "{kept} of {length}");
    (store, new, length)
}

/// Proves that a large plan takes a fraction of its JSON in the file and comes back whole, for a reader and for a takeover,
/// and that an altered block or length is refused.
#[tokio::test]
async fn a_packed_plan_comes_back_or_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let (store, new, length) = packed(&path).await;
    assert_eq!(read_alone(&path).await.plan, *new.plan);
    let lease = store.acquire(&run("r1"), &owner()).await.unwrap();
    assert_eq!(store.load(&run("r1")).await.unwrap().plan, *new.plan);
    store.release(&lease).await.unwrap();
    for alteration in [
        "UPDATE plans SET unpacked = unpacked + 1".to_owned(),
        format!("UPDATE plans SET unpacked = {}", i64::MAX),
        "UPDATE plans SET unpacked = NULL".to_owned(),
        "UPDATE plans SET body = substr(body, 1, length(body) - 1)".to_owned(),
        "UPDATE plans SET body = CAST(substr(body, 1, 40) || x'01' || substr(body, 42) AS BLOB)".to_owned(),
        "UPDATE plans SET body = zeroblob(length(body))".to_owned(),
    ] {
        let file = Connection::open(&path).unwrap();
        let before: Vec<u8> = file.query_row("SELECT body FROM plans", [], |row| row.get(0)).unwrap();
        assert_eq!(file.execute(&alteration, []).unwrap(), 1, "{alteration}");
        let refused = store.acquire(&run("r1"), &owner()).await;
        assert!(matches!(refused, Err(JournalError::Damaged(_))), "{alteration}: {refused:?}");
        assert!(store.load(&run("r1")).await.is_err(), "{alteration}");
        file.execute("UPDATE plans SET body = ?1, unpacked = ?2", params![before, length]).unwrap();
    }
    store.load(&run("r1")).await.unwrap();
}

/// Proves that a takeover refuses a run of which any event was altered or is gone, also one that no row names, and one whose
/// row was altered, and that it leaves the run as it was.
#[tokio::test]
async fn a_takeover_refuses_what_was_altered() {
    for alteration in [
        "UPDATE events SET payload = x'7b7d' WHERE kind = 'step-noted' AND sequence = 30",
        "UPDATE events SET step = 'step.s00' WHERE sequence = 31",
        "UPDATE events SET kind = 'step-found' WHERE kind = 'step-noted' AND sequence = 30",
        "UPDATE events SET recorded_at = recorded_at + 1 WHERE sequence = 2",
        "UPDATE events SET payload = CAST(CAST(payload AS TEXT) || ' ' AS BLOB) WHERE sequence = 2",
        "DELETE FROM events WHERE sequence = 33",
        "DELETE FROM events WHERE sequence = (SELECT max(sequence) FROM events)",
        "UPDATE step_states SET intent = intent + 3 WHERE step = 'step.s04'",
        "UPDATE step_states SET state = 'verified' WHERE step = 'step.s01'",
        "UPDATE step_states SET outcome = NULL WHERE step = 'step.s04'",
        "UPDATE plans SET body = CAST(CAST(body AS TEXT) || ' ' AS BLOB)",
        "UPDATE plans SET digest = 'another'",
        "UPDATE runs SET head = head - 1",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let store = Store::open(&path, StoreSettings::default()).unwrap();
        fill(&store).await;
        let file = Connection::open(&path).unwrap();
        file.execute_batch("PRAGMA ignore_check_constraints = ON").unwrap();
        assert_eq!(file.execute(alteration, []).unwrap(), 1, "{alteration}");
        let epoch =
            |file: &Connection| -> i64 { file.query_row("SELECT epoch FROM runs", [], |row| row.get(0)).unwrap() };
        let before = epoch(&file);
        let refused = store.acquire(&run("r1"), &owner()).await;
        assert!(matches!(refused, Err(JournalError::Damaged(_))), "{alteration}: {refused:?}");
        assert_eq!(epoch(&file), before, "{alteration}");
    }
}
