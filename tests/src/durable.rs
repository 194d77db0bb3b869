//! What the state file holds, asked of the file itself: the hash chain of a run, the pages, the facts that were told.

use crate::TestEnvironment;
use platflow_engine::name::RunId;
use platflow_state::{Store, StoreSettings};
use serde_json::Value;

/// Verifies every page of the file and the chain of a run; returns how many events it has.
///
/// # Panics
/// When the file is damaged.
#[track_caller]
#[must_use]
pub fn verified_events(place: &TestEnvironment, run: &str) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let store = Store::open_read_only(&place.state().join("state.db"), StoreSettings::default())
            .unwrap_or_else(|error| panic!("the state file cannot be read: {error}"));
        store.check_file().await.unwrap_or_else(|error| panic!("the state file is damaged: {error}"));
        let run: RunId = run.parse().unwrap_or_else(|_| panic!("{run} is no run id"));
        store.verify(&run).await.unwrap_or_else(|error| panic!("the journal is damaged: {error}"))
    })
}

/// The journal of a run as `logs` prints it, without the time of recording: what `run --output jsonl` printed.
#[must_use]
pub fn journal(place: &TestEnvironment, run: &str) -> Vec<Value> {
    let logs = place.run(&["logs", run, "--output", "jsonl"]).expect_code(0);
    logs.stdout.lines().filter_map(told).collect()
}

/// Proves that every fact which was printed is in the journal, unchanged and at its place.
///
/// # Panics
/// When one is missing.
#[track_caller]
pub fn assert_nothing_told_is_lost(place: &TestEnvironment, run: &str, stdout: &str, when: &str) {
    let journal = journal(place, run);
    for event in stdout.lines().filter_map(told) {
        assert!(journal.contains(&event), "{when}: this was told and is not in the journal: {event}");
    }
}

/// A line of JSON; the last one of a killed process may be torn, and was not told then.
fn told(line: &str) -> Option<Value> {
    let mut value: Value = serde_json::from_str(line).ok()?;
    value.as_object_mut()?.remove("recorded_at");
    Some(value)
}
