//! A run that died is taken up again on a file that was damaged at random since, with the real engine and kinds of the
//! model: it is refused, or what it does rests on durable intents, and nothing is made twice.
//!
//! A seed names a case wholly. Damage is to files at rest, found an hour later; reading alone is in `damage.rs`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking"
)]

use platflow_engine::clock::Clock;
use platflow_engine::destroy::Literal;
use platflow_engine::drive::{DriveOutcome, Engine, Settings, StartRun, Unobserved};
use platflow_engine::event::{Direction, Ending};
use platflow_engine::journal::{Journal, Owner};
use platflow_engine::model::clock::SimulatedClock;
use platflow_engine::model::generate;
use platflow_engine::model::kinds::{self, Habit};
use platflow_engine::model::remains::Remains;
use platflow_engine::model::sweep::Subject;
use platflow_engine::model::world::{Moment, World};
use platflow_engine::name::{EnvironmentUid, RunId, StepName};
use platflow_engine::plan::OnFailure;
use platflow_engine::step::UndoPlan;
use platflow_report::Sweep;
use platflow_state::{Store, StoreSettings, this_process};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const PAGE_BYTES: usize = 2_048;
/// Far above what any case takes.
const HANGS_AFTER: Duration = Duration::from_secs(120);
/// So many steps a plan has at most.
const STEPS: u32 = 6;

fn id() -> RunId {
    RunId::new("run").unwrap()
}

/// Somebody of this host who is known to be dead.
fn departed() -> Owner {
    let mut owner = this_process().unwrap();
    owner.process_started += 1;
    owner
}

/// The world of a case, and whichever file is its journal at the moment.
struct Case {
    subject: Subject,
    world: Arc<World>,
    journal: Arc<Mutex<PathBuf>>,
}

impl Case {
    fn new(seed: u64) -> Self {
        let mut subject = generate::subject(seed, STEPS).unwrap();
        subject.earlier = None;
        let world = Arc::new(World::new(Arc::new(SimulatedClock::default())));
        let journal: Arc<Mutex<PathBuf>> = Arc::default();
        let needs = subject.plan.steps.iter().map(|step| (step.name.clone(), step.needs.clone())).collect();
        let mut along: BTreeMap<StepName, Vec<StepName>> = BTreeMap::new();
        for step in &subject.plan.steps {
            if let UndoPlan::With { step: with } = &step.undo {
                along.entry(with.clone()).or_default().push(step.name.clone());
            }
        }
        let read = Arc::clone(&journal);
        let witness = move |context: &platflow_engine::context::Context| intended(&read.lock().unwrap(), &context.step);
        world.watch(needs, BTreeMap::new(), along, Arc::new(witness));
        Self { subject, world, journal }
    }

    fn engine(&self, path: &Path, store: &Arc<Store>) -> Engine {
        path.clone_into(&mut self.journal.lock().unwrap());
        let habits = self.subject.habits.iter().map(|(name, habit)| (name.clone(), *habit));
        let mut catalog = kinds::catalog(&self.world, habits, false);
        catalog.add_survey(Arc::new(Remains(Arc::clone(&self.world))));
        Engine {
            journal: Arc::clone(store) as Arc<dyn Journal>,
            catalog,
            clock: Arc::clone(&self.world.clock) as Arc<dyn Clock>,
            resolver: Arc::new(Literal),
            observer: Arc::new(Unobserved),
            settings: Settings::default(),
        }
    }

    /// Runs until it ends (true) or dies at a drawn call; the database and its log as they lie there then, the log moved into
    /// the database if `closed`.
    async fn died(&self, random: &mut StdRng, closed: bool) -> (bool, Vec<u8>, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let store = Store::open(&path, StoreSettings::default()).unwrap();
        let engine = self.engine(&path, &store);
        let new = StartRun {
            id: id(),
            plan: self.subject.plan.clone(),
            environment_uid: EnvironmentUid::new("model-uid").unwrap(),
            target: Value::Null,
            owner: departed(),
            on_failure: OnFailure::Park,
            destroy: None,
        };
        let moment = if random.random_bool(0.5) { Moment::Before } else { Moment::After };
        self.world.die_at(random.random_range(1..=u64::from(STEPS) + 2), moment);
        let (lease, mut run) = engine.start(new).await.unwrap();
        let ended = tokio::select! {
            biased;
            () = self.world.death.notified() => false,
            outcome = engine.drive(&lease, &mut run, CancellationToken::new()) => {
                assert_eq!(outcome.unwrap(), DriveOutcome::Finished(Ending::Done));
                true
            }
        };
        let log = path.with_extension("db-wal");
        let lying = |path: &Path| std::fs::read(path).unwrap_or_default();
        // Calls of the dead process that never end hold its store open: it is looked at from outside.
        let (log, database) = (lying(&log), lying(&path));
        if closed { (ended, folded(&database, &log), Vec::new()) } else { (ended, database, log) }
    }

    /// Takes the run up on this file; why not, if it was refused.
    async fn resumed(&self, path: &Path, direction: Option<Direction>) -> Result<(), String> {
        let store = Store::open(path, StoreSettings::default()).map_err(|refusal| format!("opening: {refusal:?}"))?;
        let engine = self.engine(path, &store);
        let before = self.world.calls();
        let taken = engine.resume(&id(), &this_process().unwrap(), direction).await;
        let (lease, mut run) = match taken {
            Ok(taken) => taken,
            Err(refusal) => {
                assert_eq!(self.world.calls(), before, "it was refused, and something was done: {refusal}");
                return Err(format!("taking over: {refusal:?}"));
            }
        };
        let driven = engine.drive(&lease, &mut run, CancellationToken::new());
        // The clock of the model does not wait for a real disk: only real time tells that nothing goes on.
        let outcome = tokio::time::timeout(HANGS_AFTER, driven).await.expect("it neither ends nor goes on");
        // A run that has ended is not driven again; one that stops for a human says so.
        if let Ok(DriveOutcome::Finished(ending)) = &outcome {
            let populated = self.world.populated();
            match ending {
                Ending::Done => {
                    assert_eq!(populated.len(), self.subject.plan.steps.len(), "done, but not all is there")
                }
                Ending::RolledBack => assert_eq!(populated, Vec::<StepName>::new(), "rolled back, but not gone"),
                Ending::Abandoned => {}
            }
        }
        outcome.map(|_| ()).map_err(|refusal| format!("driving: {refusal:?}"))
    }

    /// Nothing was done without an intent, and of everything there is at most one.
    fn check(&self) {
        assert_eq!(self.world.violations(), Vec::<String>::new());
        let mut seen: BTreeMap<StepName, usize> = BTreeMap::new();
        for (_, object) in self.world.objects() {
            *seen.entry(object.step).or_default() += 1;
        }
        assert!(seen.values().all(|count| *count == 1), "made twice: {seen:?}");
        for (step, count) in self.world.created() {
            let planned = self.subject.plan.steps.iter().find(|planned| planned.name == step).unwrap();
            // A secret that nobody heard is made again, in the place of the first.
            let habit = self.subject.habits.get(&planned.kind);
            assert!(count == 1 || habit == Some(&Habit::Secret), "{step} was made {count} times");
        }
    }
}

/// The database with all of its log moved into it, as the last process that closes it leaves it.
fn folded(database: &[u8], log: &[u8]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    std::fs::write(&path, database).unwrap();
    std::fs::write(folder.path().join("state.db-wal"), log).unwrap();
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(connection);
    std::fs::read(&path).unwrap()
}

/// The newest event of the step, notes and findings apart, is an intent that is still open. It is read from the file, row
/// by row: a journal that is damaged further back cannot be read as one.
fn intended(path: &Path, step: &StepName) -> bool {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = rusqlite::Connection::open_with_flags(path, flags).unwrap();
    let newest: String = connection
        .query_row(
            "SELECT kind FROM events NOT INDEXED
             WHERE step = ?1 AND kind NOT IN ('step-noted', 'step-found', 'step-applied') ORDER BY id DESC LIMIT 1",
            [step.as_str()],
            |row| row.get(0),
        )
        .unwrap_or_default();
    ["step-intended", "undo-intended", "step-waiting", "undo-waiting"].contains(&newest.as_str())
}

/// Bytes, bits and pages go bad, and files end too early.
fn damage(bytes: &mut Vec<u8>, random: &mut StdRng) {
    if bytes.is_empty() {
        return;
    }
    let (at, pages) = (random.random_range(0..bytes.len()), bytes.len().div_ceil(PAGE_BYTES));
    match random.random_range(0..10) {
        0 => bytes.truncate(at),
        1 => {
            let page = random.random_range(0..pages) * PAGE_BYTES;
            bytes.iter_mut().skip(page).take(PAGE_BYTES).for_each(|byte| *byte = 0);
        }
        2 => {
            let (one, other) = (random.random_range(0..pages) * PAGE_BYTES, random.random_range(0..pages) * PAGE_BYTES);
            for place in 0..PAGE_BYTES {
                if one.max(other) + place < bytes.len() {
                    bytes.swap(one + place, other + place);
                }
            }
        }
        3..6 => bytes[at] = random.random(),
        // Letters and digits into others: what still reads as text is what is hardest to notice.
        _ => {
            let text: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at].is_ascii_alphanumeric()).collect();
            if !text.is_empty() {
                bytes[text[random.random_range(0..text.len())]] = b'0' + random.random_range(0..10);
            }
        }
    }
}

/// Names the seed of a case that fails.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            platflow_report::told(format_args!("seed {}", self.0));
        }
    }
}

/// One seed: whether the run was taken up, and whether anything was damaged.
async fn one(seed: u64) -> (Result<(), String>, bool) {
    let mut random = StdRng::seed_from_u64(seed);
    let case = Case::new(seed);
    let closed = random.random_bool(0.6);
    let (ended, mut database, mut log) = case.died(&mut random, closed).await;
    case.world.heal();
    case.world.clock.pass(Duration::from_secs(3_600));
    // Every tenth is the control: without it, a file that is always refused would prove the same.
    let damaged = !seed.is_multiple_of(10);
    for _ in 0..if damaged { random.random_range(1..=3) } else { 0 } {
        damage(if log.is_empty() || random.random_bool(0.5) { &mut database } else { &mut log }, &mut random);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    std::fs::write(&path, database).unwrap();
    std::fs::write(folder.path().join("state.db-wal"), log).unwrap();
    // What has ended can only be taken back.
    let direction = (ended || random.random_bool(0.5)).then(|| Direction::backward("operator", true, Vec::new()));
    let taken = case.resumed(&path, direction).await;
    case.check();
    (taken, damaged)
}

/// Proves that of a run that died, on a file that was damaged at random since, `resume` is refused without a call, or makes
/// only calls with a durable intent, makes nothing twice and ends where it says; and that files without damage are taken up.
#[test]
fn a_damaged_file_is_never_acted_on_without_an_intent() {
    let cases = platflow_report::scaled(1_000, 20_000) as u64;
    let sweep = Sweep::begin("resumed on damaged files");
    let (mut taken_up, mut refused) = (0, 0);
    for seed in 0..cases {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let named = Named(seed);
        let (taken, damaged) = runtime.block_on(one(seed));
        drop(named);
        match taken {
            Ok(()) => taken_up += u64::from(damaged),
            Err(refusal) => {
                assert!(damaged, "seed {seed}: a sound file was refused: {refusal}");
                refused += 1;
            }
        }
    }
    sweep.end(
        cases,
        format_args!("0 to {}", cases - 1),
        format_args!("{refused} refused, {taken_up} damaged and taken up"),
    );
    assert!(refused > cases / 10 && taken_up > cases / 10, "{refused} refused, {taken_up} taken up");
}
