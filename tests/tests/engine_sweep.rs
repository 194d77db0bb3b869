//! The crash sweep of the engine over the graph of `deploy-aws-dev` itself, on model steps.
//!
//! The graph comes from the real binary (`validate`), so names, dependencies, teardown edges and ways of undoing are those
//! of the shipped runbook; what the steps do is a model whose world counts every creation. In CI every crash is tried,
//! failures and both together are drawn by a seed; under `nightly` each cut meets the failure of each step. No case is
//! excluded by hand.

use platflow_engine::model::combined::Trouble;
use platflow_engine::model::sweep::{Broken, Crash, Recovery, Subject, Undisturbed};
use platflow_engine::model::world::{Fault, Moment};
use platflow_engine::name::StepName;
use platflow_engine::plan::OnFailure;
use platflow_report::Sweep;
use platflow_simulation::shipped;
use platflow_tests::TestEnvironment;
use platflow_tests::scale::scale;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use std::sync::atomic::{AtomicUsize, Ordering};

const WAYS: [(OnFailure, Recovery); 3] = [
    (OnFailure::Park, Recovery::Forward),
    (OnFailure::Park, Recovery::Backward),
    (OnFailure::Rollback, Recovery::Backward),
];

/// A case is named by what it is; the seed only chooses which are tried.
const SEED: u64 = 2026;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

/// The shipped graph as the binary tells it.
fn graph() -> Value {
    TestEnvironment::new().run(&["validate", "deploy-aws-dev", "--output", "json"]).expect_code(0).json()
}

/// Proves that the graph which the simulations run on, without building any step kind, is the one that is shipped.
#[test]
fn the_simulated_graph_is_the_shipped_one() {
    let known = shipped::known(&graph());
    if known != shipped::fixture() {
        let text = serde_json::to_string_pretty(&known).expect("JSON");
        panic!("tests/simulation/src/deploy-aws-dev.json is of another day; it should be\n{text}");
    }
}

/// One case of any sort.
#[derive(Debug, Clone)]
enum Case {
    Crash(Crash, Recovery, bool),
    Failure(Fault, OnFailure, Recovery),
    Both(Trouble),
}

/// Tries every case, on all processors, and stops at the first that breaks.
fn try_all(subject: &Subject, expected: &Undisturbed, cases: &[Case]) {
    let next = AtomicUsize::new(0);
    let worker = || {
        block_on(async {
            while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(broken) = try_one(subject, expected, case).await {
                    next.store(cases.len(), Ordering::Relaxed);
                    panic!("{broken}");
                }
            }
        });
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(worker);
        }
    });
}

async fn try_one(subject: &Subject, expected: &Undisturbed, case: &Case) -> Result<(), Broken> {
    match case.clone() {
        Case::Crash(crash, recovery, twice) => subject.crash(crash, recovery, None, twice, expected).await,
        Case::Failure(fault, policy, recovery) => subject.fault(fault, policy, recovery, expected).await,
        Case::Both(trouble) => subject.trouble(&trouble, expected).await,
    }
}

/// Every point at which a process can die.
fn crashes(expected: &Undisturbed) -> Vec<Crash> {
    let calls =
        (1..=expected.calls).flat_map(|call| [Crash::Call(call, Moment::Before), Crash::Call(call, Moment::After)]);
    (2..=expected.events).map(Crash::Event).chain(calls).collect()
}

fn faults(subject: &Subject) -> Vec<Fault> {
    let every = |step: &StepName| [1, u32::MAX].into_iter().flat_map(|times| Subject::faults(step, times)).collect();
    subject.plan.steps.iter().flat_map(|step| -> Vec<Fault> { every(&step.name) }).collect()
}

/// A part of the cases, drawn by the seed; all of them where so many are asked for.
fn draw(mut cases: Vec<Case>, most: usize) -> Vec<Case> {
    cases.shuffle(&mut StdRng::seed_from_u64(SEED));
    cases.truncate(most);
    cases
}

fn sweep(what: &str, earlier: bool, twice: bool, cases: impl FnOnce(&Subject, &Undisturbed) -> (Vec<Case>, usize)) {
    let sweep = Sweep::begin(format!("the shipped graph on model steps, {what}"));
    let subject = shipped::subject(&graph(), earlier);
    let expected = block_on(subject.undisturbed(twice)).unwrap_or_else(|broken| panic!("{broken}"));
    let (all, most) = cases(&subject, &expected);
    let total = all.len();
    let chosen = draw(all, most);
    try_all(&subject, &expected, &chosen);
    sweep.end(chosen.len(), SEED, format_args!("of {total} there are"));
}

fn both_ways(crashes: &[Crash], twice: bool) -> Vec<Case> {
    let ways = [Recovery::Forward, Recovery::Backward];
    crashes.iter().flat_map(|crash| ways.map(|way| Case::Crash(*crash, way, twice))).collect()
}

/// Proves that wherever the journal is cut, and before or after whichever call the process dies, the run ends in the
/// undisturbed world when resumed and in the first one when rolled back, and nothing is made twice.
#[test]
fn the_shipped_graph_survives_every_crash() {
    sweep("crashes", false, false, |_, expected| (both_ways(&crashes(expected), false), usize::MAX));
}

/// Proves the same when every action is done two times.
#[test]
fn the_shipped_graph_survives_crashes_amid_repetition() {
    sweep("crashes with every action twice", false, true, |_, expected| {
        (both_ways(&crashes(expected), true), scale().of(250, usize::MAX))
    });
}

/// Proves the same for a second run, on top of what an earlier one built: rolled back, the world is as that left it.
#[test]
fn a_second_run_of_the_shipped_graph_survives_crashes() {
    sweep("crashes of a second run", true, false, |_, expected| {
        (both_ways(&crashes(expected), false), scale().of(250, usize::MAX))
    });
}

/// Proves that every step fails in every class and residue, for a moment or for good.
#[test]
fn the_shipped_graph_survives_every_failure() {
    sweep("failures", false, false, |subject, _| {
        let with_ways = |fault: Fault| WAYS.map(|(policy, way)| Case::Failure(fault.clone(), policy, way));
        (faults(subject).into_iter().flat_map(with_ways).collect(), scale().of(600, usize::MAX))
    });
}

/// Proves that a crash and a failure together are survived: each cut of the journal with the failure of each step, resumed
/// and rolled back, its actions done once and twice. The class of the failure and what it leaves are drawn by the seed.
#[test]
fn the_shipped_graph_survives_crashes_amid_failures() {
    sweep("crashes amid failures", false, false, |subject, expected| {
        let mut random = StdRng::seed_from_u64(SEED);
        let mut all = Vec::new();
        // A failing run writes more events than an undisturbed one: the cuts go on past its end.
        for event in 2..=expected.events + 20 {
            for step in &subject.plan.steps {
                let times = if random.random_bool(0.5) { 1 } else { u32::MAX };
                for (policy, recovery) in WAYS {
                    let fault = Subject::faults(&step.name, times).choose(&mut random).cloned().expect("a fault");
                    let crash = Crash::Event(event);
                    all.push(Case::Both(Trouble { crash, fault, policy, recovery, twice: random.random_bool(0.5) }));
                }
            }
        }
        (all, scale().of(1_500, usize::MAX))
    });
}
