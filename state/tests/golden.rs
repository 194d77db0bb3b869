//! Files as released versions left them (`golden/`, made by `golden/make`): today's store opens each, with all in it as it
//! was, and takes up what had not ended.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use platflow_engine::clock::Clock;
use platflow_engine::destroy::Literal;
use platflow_engine::drive::{DriveOutcome, Engine, Settings, Unobserved};
use platflow_engine::event::Ending;
use platflow_engine::fold::Run;
use platflow_engine::journal::{Journal, JournalError, RunStatus};
use platflow_engine::model::clock::SimulatedClock;
use platflow_engine::model::generate;
use platflow_engine::model::kinds;
use platflow_engine::model::world::World;
use platflow_engine::name::{EnvironmentName, EnvironmentUid, RunId};
use platflow_engine::secret::SecretStore;
use platflow_state::{Store, StoreSettings, this_process};
use rusqlite::Connection;
use rusqlite::types::Value as Column;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

const RUNS: [(&str, RunStatus); 6] = [
    ("done", RunStatus::Done),
    ("parked", RunStatus::Parked),
    ("rolled-back", RunStatus::RolledBack),
    ("crashed", RunStatus::Running),
    ("rolling-back", RunStatus::RollingBack),
    ("abandoned", RunStatus::Abandoned),
];

/// Leases of another host are watched for as long as a lease lasts.
fn settings() -> StoreSettings {
    StoreSettings { lease_ms: 900, renew_ms: 100, ..StoreSettings::default() }
}

/// A copy of each golden file, oldest schema first.
fn files(folder: &Path) -> Vec<PathBuf> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    (1..)
        .map_while(|schema| {
            let name = format!("schema-{schema}.db");
            let copy = folder.join(&name);
            std::fs::copy(golden.join(&name), &copy).ok().map(|_| copy)
        })
        .collect()
}

fn schema(path: &Path) -> u32 {
    Connection::open(path).unwrap().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
}

/// Every row of a table, in its order.
fn rows(path: &Path, columns: &str, table: &str) -> Vec<Vec<Column>> {
    let file = Connection::open(path).unwrap();
    let mut statement = file.prepare(&format!("SELECT {columns} FROM {table} ORDER BY 1, 2")).unwrap();
    let count = statement.column_count();
    let rows = statement.query_map([], |row| (0..count).map(|column| row.get(column)).collect()).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

/// What no migration may touch.
fn facts(path: &Path) -> Vec<Vec<Vec<Column>>> {
    [
        ("run, sequence, kind, step, payload, recorded_at, hash", "events"),
        ("number, id, status, head, head_hash, epoch, owner", "runs"),
        ("run, step, state, payload", "step_states"),
        ("environment, step, run, body", "recorded_steps"),
        ("environment, name, ciphertext, created_at", "secrets"),
        ("name, uid, target, held_by", "environments"),
        ("run, digest, body, sha256", "plans"),
    ]
    .map(|(columns, table)| rows(path, columns, table))
    .into()
}

/// Every step as folded. Before schema 3 its row did not say what the record is made of: that was written out.
fn steps(run: &Run, schema: u32) -> Vec<serde_json::Value> {
    let mut steps: Vec<_> = run.steps().map(|(_, state)| serde_json::to_value(state).unwrap()).collect();
    for step in steps.iter_mut().filter(|_| schema < 3) {
        step.as_object_mut().unwrap().remove("on_record");
    }
    steps
}

/// Every run loads, folds from its events to the same, and has its chain of hashes whole.
async fn whole(store: &Store, schema: u32) {
    store.check_file().await.unwrap();
    assert_eq!(store.list(None, 100).await.unwrap().len(), RUNS.len());
    for (name, status) in RUNS {
        let id = RunId::new(name).unwrap();
        let loaded = store.load(&id).await.unwrap();
        assert_eq!(loaded.summary.status, status, "{name}");
        let held = !status.is_final();
        let row = store.environment(&EnvironmentName::new(name).unwrap()).await.unwrap().unwrap();
        assert_eq!(row.held_by.is_some(), held, "{name}");
        let events = store.events(&id, 0, usize::MAX).await.unwrap();
        assert_eq!(store.verify(&id).await.unwrap(), loaded.summary.head, "{name}");
        let folded = Run::refold(id, Arc::new(loaded.plan.clone()), &events).unwrap();
        let cached = Run::load(loaded).unwrap();
        assert_eq!((&folded.state, steps(&folded, schema)), (&cached.state, steps(&cached, schema)), "{name}");
        assert_eq!(folded.state.status(), status, "{name}");
    }
    let secrets = store.list_secrets(&EnvironmentUid::new("uid-done").unwrap()).await.unwrap();
    let sealed: Vec<_> = secrets.iter().map(|one| String::from_utf8_lossy(&one.ciphertext)).collect();
    assert_eq!(sealed, ["sealed vault/share-1", "sealed vault/share-2"]);
}

/// The world that the runs built is gone: what is in doubt is looked for, not found, and made again, or is gone already.
async fn takes_up(store: &Arc<Store>, name: &str, wanted: Ending) {
    let clock = Arc::new(SimulatedClock::default());
    let world = Arc::new(World::new(Arc::clone(&clock)));
    let engine = Engine {
        journal: Arc::clone(store) as Arc<dyn Journal>,
        catalog: kinds::catalog(&world, generate::habits().unwrap(), false),
        clock: clock as Arc<dyn Clock>,
        resolver: Arc::new(Literal),
        observer: Arc::new(Unobserved),
        settings: Settings::default(),
    };
    let id = RunId::new(name).unwrap();
    let (lease, mut run) = engine.resume(&id, &this_process().unwrap(), None).await.unwrap();
    let outcome = engine.drive(&lease, &mut run, CancellationToken::new()).await.unwrap();
    assert_eq!(outcome, DriveOutcome::Finished(wanted), "{name}");
    assert_eq!(store.verify(&id).await.unwrap(), run.head, "{name}");
}

/// Proves that the file of every schema so far, written by the version that had it, is carried forward with every event,
/// hash, row and secret as it was, and that its crashed, parked and rolling-back runs are brought to their ends.
#[tokio::test]
async fn files_of_released_versions_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let files = files(folder.path());
    assert!(files.len() >= 2, "a golden file is missing");
    for (number, path) in files.iter().enumerate() {
        assert_eq!(schema(path) as usize, number + 1, "{}", path.display());
        let before = facts(path);
        let reader = Store::open_read_only(path, settings()).unwrap();
        whole(&reader, number as u32 + 1).await;
        drop(reader);
        let store = Store::open(path, settings()).unwrap();
        whole(&store, number as u32 + 1).await;
        drop(store);
        assert_eq!(schema(path) as usize, files.len(), "the newest schema has no golden file, or was not reached");
        assert!(facts(path) == before, "{}: carrying it forward changed facts", path.display());
        let store = Store::open(path, settings()).unwrap();
        for (name, ending) in
            [("crashed", Ending::Done), ("parked", Ending::Done), ("rolling-back", Ending::RolledBack)]
        {
            takes_up(&store, name, ending).await;
        }
    }
}

/// Proves that a file of a version to come is refused by its number, for writing and for reading, and not changed.
#[tokio::test]
async fn a_file_of_a_version_to_come_is_refused_untouched() {
    let folder = tempfile::tempdir().unwrap();
    let files = files(folder.path());
    for path in &files {
        let next = files.len() as u32 + 1;
        Connection::open(path).unwrap().pragma_update(None, "user_version", next).unwrap();
        let before = std::fs::read(path).unwrap();
        for refused in [Store::open(path, settings()), Store::open_read_only(path, settings())] {
            let refused = refused.err().unwrap();
            assert!(matches!(refused, JournalError::Newer { found, .. } if found == next), "{refused}");
        }
        assert!(std::fs::read(path).unwrap() == before, "{}", path.display());
    }
}
