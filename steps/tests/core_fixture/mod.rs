//! What the tests of the core kinds share: a context whose notes, lease and clock the test holds in its hands.

#![expect(dead_code, clippy::unwrap_used, reason = "a fixture for tests; each file uses its own part of it")]

use async_trait::async_trait;
use jiff::Timestamp;
use platflow_engine::clock::{Clock, after};
use platflow_engine::context::{Context, StepGuard};
use platflow_engine::failure::StepError;
use platflow_engine::kind::Catalog;
use platflow_engine::name::{EnvironmentName, EnvironmentUid, KindName, RunId, StepName};
use platflow_engine::step::{Known, Step};
use platflow_steps::core::{ApprovalFolder, CoreSettings};
use platflow_steps::guard_process::Launcher;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The engine's side of a context, held by the test.
pub(crate) struct Held {
    pub(crate) notes: Mutex<BTreeMap<String, Value>>,
    pub(crate) lease: Mutex<Option<Duration>>,
    pub(crate) now: Mutex<Timestamp>,
}

#[async_trait]
impl StepGuard for Held {
    async fn note(&self, _step: &StepName, key: &str, value: Value) -> Result<(), StepError> {
        self.notes.lock().unwrap().insert(key.to_owned(), value);
        Ok(())
    }

    fn lease_left(&self) -> Result<Duration, StepError> {
        self.lease.lock().unwrap().ok_or_else(|| StepError::transient("the lease is gone").with_code("Stale"))
    }
}

#[async_trait]
impl Clock for Held {
    fn now(&self) -> Timestamp {
        *self.now.lock().unwrap()
    }

    async fn sleep_until(&self, _deadline: Timestamp) {}
}

impl Held {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            notes: Mutex::default(),
            lease: Mutex::new(Some(Duration::from_secs(10))),
            now: Mutex::new("2026-05-04T10:00:00Z".parse().unwrap()),
        })
    }

    pub(crate) fn pass(&self, duration: Duration) {
        let mut now = self.now.lock().unwrap();
        *now = after(*now, duration);
    }

    pub(crate) fn context(self: &Arc<Self>, attempt: u32) -> Context {
        Context {
            step: StepName::new("a.step").unwrap(),
            run: RunId::new("r1").unwrap(),
            environment: EnvironmentName::new("aws-dev").unwrap(),
            environment_uid: EnvironmentUid::new("uid1").unwrap(),
            attempt,
            generation: 0,
            clock: Arc::clone(self) as Arc<dyn Clock>,
            cancelled: Default::default(),
            guard: Arc::clone(self) as Arc<dyn StepGuard>,
        }
    }

    /// What the engine knows of the step: its notes, and outputs if the test says so.
    pub(crate) fn known(&self, outputs: Option<Value>) -> Known {
        Known { outputs, notes: self.notes.lock().unwrap().clone(), uncertain: true, intended_at: None }
    }
}

/// This test binary as the guard: its test `played_by_the_guard`.
pub(crate) fn launcher() -> Launcher {
    let arguments = ["--exact", "--ignored", "--nocapture", "--quiet", "played_by_the_guard"];
    Launcher { program: std::env::current_exe().unwrap(), arguments: arguments.map(str::to_owned).to_vec() }
}

pub(crate) fn settings(folder: &Path) -> CoreSettings {
    let map = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>()
    };
    CoreSettings {
        guard: launcher(),
        guard_folder: folder.join("guards"),
        inherited_environment: map(&[
            ("PATH", "/usr/local/bin:/usr/bin:/bin"),
            ("HOME", "/nowhere"),
            ("LANG", "C.UTF-8"),
            ("AWS_SECRET_ACCESS_KEY", "must-not-arrive"),
        ]),
        child_environment: map(&[("AWS_ENDPOINT_URL", "http://127.0.0.1:1")]),
        approvals: Arc::new(ApprovalFolder(folder.join("approvals"))),
    }
}

/// A kind as the engine gets it.
pub(crate) fn step(kind: &str, settings: CoreSettings) -> Arc<dyn Step> {
    let mut catalog = Catalog::default();
    platflow_steps::core::register(&mut catalog, settings).unwrap();
    catalog.step(&KindName::new(kind).unwrap()).unwrap()
}

/// Waits for a condition of the real world; fails after half a minute.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(30), "never: {what}");
        tokio::task::yield_now().await;
        std::thread::yield_now();
    }
}
