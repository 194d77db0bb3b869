//! Stands in for the engine in tests of the AWS kinds: records, notes, a scaled clock, and loops over the three verbs.

mod server;

use platflow_engine::clock::{Clock, ScaledClock, after};
use platflow_engine::context::{Context, StepGuard};
use platflow_engine::failure::{ErrorClass, StepError};
use platflow_engine::kind::Catalog;
use platflow_engine::name::{EnvironmentName, EnvironmentUid, KindName, RunId, StepName};
use platflow_engine::step::{Known, Observation, Ownership, Progress, Step, UndoProgress};
use platflow_steps::aws::{self, AwsClients, AwsSettings};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How many seconds of simulated time pass in one real second.
const SPEED: f64 = 600.0;

/// Keeps notes and counts the calls that were begun.
#[derive(Default)]
struct Guard {
    notes: Mutex<BTreeMap<String, BTreeMap<String, Value>>>,
    begun: AtomicUsize,
}

#[async_trait::async_trait]
impl StepGuard for Guard {
    async fn note(&self, step: &StepName, key: &str, value: Value) -> Result<(), StepError> {
        self.notes.lock().unwrap().entry(step.to_string()).or_default().insert(key.to_owned(), value);
        Ok(())
    }

    fn lease_left(&self) -> Result<Duration, StepError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        Ok(Duration::from_secs(60))
    }
}

/// A simulated account and the kinds that work on it.
pub(crate) struct World {
    catalog: Catalog,
    clock: Arc<dyn Clock>,
    pub(crate) server: server::Running,
}

impl World {
    /// An empty account.
    pub(crate) async fn start() -> Self {
        let server = server::start(SPEED).await;
        let mut settings = AwsSettings::sandbox(&server.endpoint, "us-east-1");
        settings.address_url = Some(format!("{}/checkip", server.control));
        let clients = AwsClients::connect(settings).await.unwrap();
        let mut catalog = Catalog::default();
        aws::register(&mut catalog, &clients).unwrap();
        let origin = "2026-11-22T00:00:00Z".parse().unwrap();
        Self { catalog, clock: Arc::new(ScaledClock::scaled(origin, SPEED)), server }
    }

    /// A run of an environment.
    pub(crate) fn build(&self, uid: &str, run: &str) -> Build<'_> {
        Build { world: self, uid: uid.to_owned(), run: run.to_owned(), guard: Arc::default(), made: Vec::new() }
    }
}

struct Made {
    step: String,
    kind: String,
    spec: Value,
    known: Known,
}

/// One run: what it made, in order.
pub(crate) struct Build<'a> {
    world: &'a World,
    uid: String,
    run: String,
    guard: Arc<Guard>,
    made: Vec<Made>,
}

impl Build<'_> {
    fn context(&self, step: &str) -> Context {
        Context {
            step: StepName::new(step).unwrap(),
            run: RunId::new(&self.run).unwrap(),
            environment: EnvironmentName::new("test").unwrap(),
            environment_uid: EnvironmentUid::new(&self.uid).unwrap(),
            attempt: 1,
            generation: 0,
            clock: Arc::clone(&self.world.clock),
            cancelled: CancellationToken::new(),
            guard: Arc::clone(&self.guard) as Arc<dyn StepGuard>,
        }
    }

    fn runs(&self, kind: &str) -> Arc<dyn Step> {
        self.world.catalog.step(&KindName::new(kind).unwrap()).unwrap_or_else(|| panic!("no kind {kind}"))
    }

    fn index(&self, step: &str) -> usize {
        self.made.iter().position(|made| made.step == step).unwrap_or_else(|| panic!("no step {step}"))
    }

    /// What the journal holds of a step now.
    fn known(&self, index: usize) -> Known {
        let made = &self.made[index];
        let mut known = made.known.clone();
        known.notes = self.guard.notes.lock().unwrap().get(&made.step).cloned().unwrap_or_default();
        known
    }

    /// Mutating calls begun so far.
    pub(crate) fn mutations(&self) -> usize {
        self.guard.begun.load(Ordering::SeqCst)
    }

    pub(crate) fn steps(&self) -> Vec<String> {
        self.made.iter().map(|made| made.step.clone()).collect()
    }

    pub(crate) fn kind(&self, step: &str) -> &str {
        &self.made[self.index(step)].kind
    }

    pub(crate) fn outputs(&self, step: &str) -> &Value {
        self.made[self.index(step)].known.outputs.as_ref().unwrap()
    }

    /// Another spec for a step that exists.
    pub(crate) fn respec(&mut self, step: &str, spec: Value) {
        let index = self.index(step);
        self.made[index].spec = spec;
    }

    /// Forgets outputs and notes, as if the reply to the creating call had been lost.
    pub(crate) fn forget(&mut self, step: &str) {
        let index = self.index(step);
        let intended_at = Some(self.world.clock.now());
        self.made[index].known = Known { uncertain: true, intended_at, ..Known::default() };
        self.guard.notes.lock().unwrap().remove(step);
    }

    /// Looks at a step.
    pub(crate) async fn look(&self, step: &str) -> Observation {
        let index = self.index(step);
        let made = &self.made[index];
        self.runs(&made.kind).observe(&made.spec, &self.known(index), &self.context(step)).await.unwrap()
    }

    async fn pause(&self, poll_in: Duration) {
        self.world.clock.sleep_until(after(self.world.clock.now(), poll_in)).await;
    }

    /// Makes a new step and returns its outputs.
    pub(crate) async fn make(&mut self, kind: &str, step: &str, spec: Value) -> Value {
        let known = Known { intended_at: Some(self.world.clock.now()), ..Known::default() };
        self.made.push(Made { step: step.to_owned(), kind: kind.to_owned(), spec, known });
        self.remake(step).await
    }

    /// Drives a step until a look shows it as wanted; returns its outputs.
    pub(crate) async fn remake(&mut self, step: &str) -> Value {
        let index = self.index(step);
        let outputs = self.drive(index).await.unwrap_or_else(|error| panic!("{step}: {error} ({error:?})"));
        self.made[index].known.outputs = Some(outputs.clone());
        self.made[index].known.uncertain = false;
        outputs
    }

    /// A step that must be refused; returns the error. The step stays on the list, for the undo.
    pub(crate) async fn refused(&mut self, kind: &str, step: &str, spec: Value) -> StepError {
        let known = Known { intended_at: Some(self.world.clock.now()), ..Known::default() };
        self.made.push(Made { step: step.to_owned(), kind: kind.to_owned(), spec, known });
        self.drive(self.made.len() - 1).await.expect_err("it was not refused")
    }

    /// Drives a step again that is expected to be refused.
    pub(crate) async fn refused_again(&self, step: &str) -> StepError {
        self.drive(self.index(step)).await.expect_err("the change was to be refused")
    }

    async fn drive(&self, index: usize) -> Result<Value, StepError> {
        let made = &self.made[index];
        let (step, context) = (self.runs(&made.kind), self.context(&made.step));
        let deadline = after(self.world.clock.now(), Duration::from_secs(3 * 3600));
        let mut known = self.known(index);
        loop {
            assert!(self.world.clock.now() < deadline, "{} does not settle", made.step);
            let seen = step.observe(&made.spec, &known, &context).await?;
            match &seen {
                Observation::Present { outputs, ownership: Ownership::Ours, differences } if differences.is_empty() => {
                    return Ok(outputs.clone());
                }
                Observation::Changing { poll_in, .. } => {
                    self.pause(*poll_in).await;
                    continue;
                }
                Observation::Unknown { .. } => {
                    self.pause(Duration::from_secs(5)).await;
                    continue;
                }
                _ => {}
            }
            match step.apply(&made.spec, &seen, &known, &context).await {
                Ok(Progress::Done { outputs }) => {
                    known = self.known(index);
                    known.outputs = Some(outputs);
                }
                Ok(Progress::Waiting { poll_in, .. }) => {
                    known = self.known(index);
                    self.pause(poll_in).await;
                }
                Err(error) if is_retried(&error) => self.pause(Duration::from_secs(5)).await,
                Err(error) => return Err(error),
            }
        }
    }

    /// Looks at everything again; nothing may have to be done.
    pub(crate) async fn repeat_all(&mut self) {
        for step in self.steps() {
            let before = self.outputs(&step).clone();
            assert_eq!(self.remake(&step).await, before, "{step} changed");
        }
    }

    /// Undoes everything in reverse order.
    pub(crate) async fn undo_all(&mut self) {
        for index in (0..self.made.len()).rev() {
            self.undo(index).await;
            self.made[index].known.outputs =
                self.made[index].known.outputs.take().filter(|_| self.made[index].kind == "aws.lookups");
            let step = self.made[index].step.clone();
            self.guard.notes.lock().unwrap().remove(&step);
        }
    }

    async fn undo(&self, index: usize) {
        let made = &self.made[index];
        let (step, context) = (self.runs(&made.kind), self.context(&made.step));
        let deadline = after(self.world.clock.now(), Duration::from_secs(3 * 3600));
        loop {
            assert!(self.world.clock.now() < deadline, "{} does not go away", made.step);
            match step.undo(&made.spec, &self.known(index), &context).await {
                Ok(UndoProgress::Gone { evidence }) => {
                    assert!(!evidence.is_empty(), "{}", made.step);
                    return;
                }
                Ok(UndoProgress::Waiting { poll_in, .. }) => self.pause(poll_in).await,
                Ok(UndoProgress::Blocked { owner, .. }) => panic!("{} is blocked: {owner}", made.step),
                Err(error) if is_retried(&error) => self.pause(Duration::from_secs(5)).await,
                Err(error) => panic!("{} is not undone: {error} ({error:?})", made.step),
            }
        }
    }
}

fn is_retried(error: &StepError) -> bool {
    matches!(
        error.class,
        ErrorClass::Transient | ErrorClass::Throttled | ErrorClass::Propagation | ErrorClass::Conflict
    )
}
