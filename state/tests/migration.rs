//! Files of an earlier schema: they are carried forward with everything in them, and can be read before they are.
//!
//! The runs in them are written by today's store and moved into a file of the first schema, row by row: what that schema
//! cannot hold does not occur in them.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod fixture;

use fixture::{EVENT_KINDS, STEP_STATES, environment, event, finish, new_run, recorded, row, run, step, uid};
use platflow_engine::journal::{Batch, Journal, RecordChange, RunStatus, StoredEvent};
use platflow_state::{Store, StoreSettings};
use rusqlite::Connection;
use std::path::Path;

/// The schema that files were made with before there were certificates and forgotten steps.
const FIRST: &str = include_str!("../src/migrations/0001_initial.sql");
/// What the first schema does not know.
const NEW_EVENTS: [&str; 2] = ["step-forgotten", "residue-surveyed"];
const NEW_STATE: &str = "forgotten";

fn open(path: &Path) -> std::sync::Arc<Store> {
    Store::open(path, StoreSettings::default()).unwrap()
}

/// Two runs, one ended and one that goes on, with every kind of event and every state that the first schema knows.
async fn fill(store: &Store) {
    for (id, name, ends) in [("r1", "aws-dev", true), ("r2", "aws-staging", false)] {
        let lease = store.create_run(new_run(id, name)).await.unwrap();
        let kinds = EVENT_KINDS.iter().filter(|kind| !NEW_EVENTS.contains(kind));
        let states = STEP_STATES.iter().filter(|state| **state != NEW_STATE).enumerate();
        let mut head = lease.head;
        for kind in kinds {
            // Each in an append of its own: the first schema has the chain's hash under every event.
            let events = vec![event(kind, Some("network.vpc"), format!("{id} {kind}"))];
            head = store.append(&lease, head, Batch { events, ..Batch::default() }).await.unwrap();
        }
        let batch = Batch {
            steps: states.map(|(number, state)| row(&format!("step.s{number}"), state, *state)).collect(),
            record: vec![
                RecordChange::Put(Box::new(recorded("network.vpc", id, 3))),
                RecordChange::Gone { step: step("network.gone"), next_generation: 5 },
            ],
            ..Batch::default()
        };
        let head = store.append(&lease, head, batch).await.unwrap();
        if ends {
            store.append(&lease, head, finish(RunStatus::Done)).await.unwrap();
        }
        store.release(&lease).await.unwrap();
    }
}

/// The same rows in a file of the first schema.
fn as_first(today: &Path, first: &Path) {
    let connection = Connection::open(first).unwrap();
    connection.execute_batch(FIRST).unwrap();
    connection
        .execute_batch("PRAGMA foreign_keys = OFF; PRAGMA application_id = 0x70666c31; PRAGMA user_version = 1")
        .unwrap();
    connection.execute("ATTACH ?1 AS today", [today.to_str().unwrap()]).unwrap();
    let tables: Vec<String> = connection
        .prepare("SELECT name FROM main.sqlite_schema WHERE type = 'table'")
        .and_then(|mut statement| statement.query_map([], |row| row.get(0))?.collect())
        .unwrap();
    assert!(tables.len() >= 10, "{tables:?}");
    for table in tables {
        let columns = match table.as_str() {
            "events" => "NULL, run, sequence, kind, step, payload, recorded_at, hash",
            "step_states" => "NULL, run, step, state, payload",
            "recorded_steps" => {
                "NULL, environment, step, json_extract(CAST(body AS TEXT), '$.kind'),
                 json_extract(CAST(body AS TEXT), '$.settled'), run, body"
            }
            "plans" => "run, digest, body, sha256",
            _ => "*",
        };
        connection.execute(&format!("INSERT INTO main.{table} SELECT {columns} FROM today.{table}"), []).unwrap();
    }
}

/// Both runs, whole: what loading gives in words, and every event after its chain was checked.
async fn loaded(store: &Store) -> Vec<(String, Vec<StoredEvent>)> {
    let mut whole = Vec::new();
    for id in ["r1", "r2"] {
        let id = run(id);
        let (loaded, events) = (store.load(&id).await.unwrap(), store.events(&id, 0, 1_000).await.unwrap());
        whole.push((format!("{loaded:?}"), events));
    }
    whole
}

fn version(path: &Path) -> i64 {
    Connection::open(path).unwrap().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
}

/// Proves that a file of the first schema is read as it is without being changed, is carried forward by the first that
/// writes with every run, event, state, record and generation as it was and an unbroken chain, and then takes the facts that
/// the first schema refused.
#[tokio::test]
async fn a_file_of_the_first_schema_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (today, first) = (folder.path().join("today.db"), folder.path().join("first.db"));
    let store = open(&today);
    fill(&store).await;
    let wanted = loaded(&store).await;
    drop(store);
    as_first(&today, &first);
    let refused = Connection::open(&first).unwrap().execute("UPDATE events SET kind = 'residue-surveyed'", []);
    assert!(refused.is_err(), "the first schema does not know it, or this test proves nothing");

    let reader = Store::open_read_only(&first, StoreSettings::default()).unwrap();
    assert_eq!(loaded(&reader).await, wanted, "read before it is carried forward");
    drop(reader);
    assert_eq!(version(&first), 1, "reading changes nothing");

    let store = open(&first);
    assert_eq!(loaded(&store).await, wanted, "loading checks the chain of hashes from its beginning");
    let broken: i64 = Connection::open(&first)
        .unwrap()
        .query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(broken, 0, "every reference still leads somewhere");
    for name in ["aws-dev", "aws-staging"] {
        assert_eq!(store.record(&uid(name)).await.unwrap().len(), 1, "{name}");
        assert!(store.generations(&uid(name)).await.unwrap().contains(&(step("network.gone"), 5)), "{name}");
        assert!(store.forgotten(&uid(name)).await.unwrap().is_empty(), "nothing was forgotten in {name}");
    }
    assert_eq!(store.environment(&environment("aws-staging")).await.unwrap().unwrap().held_by, Some(run("r2")));

    let lease = store.create_run(new_run("r3", "aws-dev")).await.unwrap();
    let batch = Batch {
        events: NEW_EVENTS.iter().map(|kind| event(kind, Some("network.vpc"), *kind)).collect(),
        steps: vec![row("network.vpc", NEW_STATE, "by")],
        record: vec![RecordChange::Forgotten { step: step("network.vpc"), next_generation: 4 }],
        ..Batch::default()
    };
    store.append(&lease, lease.head, batch).await.unwrap();
    store.release(&lease).await.unwrap();
    drop(store);

    let store = open(&first);
    assert_eq!(loaded(&store).await, wanted, "and again after it was closed");
    assert_eq!(store.forgotten(&uid("aws-dev")).await.unwrap(), [step("network.vpc")]);
    assert!(store.record(&uid("aws-dev")).await.unwrap().is_empty(), "forgotten is off the record");
    assert!(store.generations(&uid("aws-dev")).await.unwrap().contains(&(step("network.vpc"), 4)));
}
