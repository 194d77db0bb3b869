//! The engine against a small interpreter written from the design alone: random graphs with failures, the same state of
//! every step, the same things in the world. Order in time, crashes and waits are the matter of other tests.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests fail by panicking")]

use platflow_engine::drive::DriveOutcome;
use platflow_engine::event::{Ending, ParkReason};
use platflow_engine::failure::{ErrorClass, Residue};
use platflow_engine::model::generate::{self, step};
use platflow_engine::model::kinds::Habit;
use platflow_engine::model::sweep::{backward, run_id};
use platflow_engine::model::trial::{End, Trial};
use platflow_engine::model::world::Fault;
use platflow_engine::name::StepName;
use platflow_engine::plan::{OnFailure, Plan, PlannedStep};
use platflow_engine::step::UndoPlan;
use platflow_report::Sweep;
use platflow_simulation::{scale, workers};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// What becomes of the calls of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Works,
    /// Its first call fails, with or without effect; any further one works.
    Stumbles {
        landed: bool,
    },
    /// Its first call fails for good, with or without effect.
    Fails {
        landed: bool,
    },
    /// The runbook keeps it.
    Kept,
}

/// A case: a plan, what becomes of its steps, and what happens on failure.
struct Case {
    plan: Plan,
    fates: BTreeMap<StepName, Fate>,
    policy: OnFailure,
}

fn case(seed: u64) -> Case {
    let mut random = StdRng::seed_from_u64(seed);
    let mut steps: Vec<PlannedStep> = Vec::new();
    let mut fates = BTreeMap::new();
    for number in 0..random.random_range(1..=12) {
        let needs: Vec<StepName> =
            steps.iter().filter(|_| random.random_bool(0.25)).map(|step| step.name.clone()).collect();
        let habit = *Habit::ALL.choose(&mut random).unwrap();
        let mut made = step(&format!("step-{number:02}"), habit, json!({ "size": number }), &needs).unwrap();
        let landed = random.random_bool(0.5);
        let fate = match random.random_range(0..12) {
            0 | 1 => Fate::Stumbles { landed },
            2 => Fate::Fails { landed },
            3 => Fate::Kept,
            _ => Fate::Works,
        };
        if fate == Fate::Kept {
            made.undo = UndoPlan::Keep;
        }
        fates.insert(made.name.clone(), fate);
        steps.push(made);
    }
    let policy = if random.random_bool(0.5) { OnFailure::Park } else { OnFailure::Rollback };
    Case { plan: generate::plan(steps).unwrap(), fates, policy }
}

/// What the design says must come of a case.
#[derive(Debug, PartialEq, Eq)]
struct Expected {
    outcome: Outcome,
    /// Steps whose state is told exactly; of the others a rollback may have begun any.
    states: BTreeMap<StepName, &'static str>,
    world: BTreeSet<StepName>,
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    Parked(Vec<StepName>),
    RolledBack,
}

impl Case {
    /// Step by step, as long as anything can be done: what all it needs is verified is done.
    fn forward(&self) -> BTreeMap<StepName, &'static str> {
        let mut states: BTreeMap<StepName, &'static str> = BTreeMap::new();
        loop {
            let ready = self.plan.steps.iter().find(|step| {
                let verified = |need: &StepName| states.get(need) == Some(&"verified");
                !states.contains_key(&step.name) && step.needs.iter().all(verified)
            });
            let Some(step) = ready else { break };
            let failed = matches!(self.fates[&step.name], Fate::Fails { .. });
            states.insert(step.name.clone(), if failed { "failed" } else { "verified" });
        }
        for step in &self.plan.steps {
            states.entry(step.name.clone()).or_insert("pending");
        }
        states
    }

    fn of(states: &BTreeMap<StepName, &'static str>, wanted: &str) -> Vec<StepName> {
        states.iter().filter(|(_, state)| **state == wanted).map(|(name, _)| name.clone()).collect()
    }

    /// What is kept, with all that it stands on.
    fn kept(&self, made: &BTreeSet<StepName>) -> BTreeSet<StepName> {
        let mut open: Vec<&StepName> = made.iter().filter(|name| self.fates[*name] == Fate::Kept).collect();
        let mut kept = BTreeSet::new();
        while let Some(name) = open.pop() {
            if kept.insert(name.clone()) {
                open.extend(&self.plan.steps.iter().find(|step| step.name == *name).unwrap().needs);
            }
        }
        kept
    }

    /// At its first rest: done, or parked.
    fn rest(&self) -> Expected {
        let states = self.forward();
        let failed = Self::of(&states, "failed");
        let landed = |name: &&StepName| self.fates[*name] == Fate::Fails { landed: true };
        let world = states
            .iter()
            .filter(|(name, state)| **state == "verified" || landed(name) && **state == "failed")
            .map(|(name, _)| name.clone())
            .collect();
        let outcome = if failed.is_empty() { Outcome::Done } else { Outcome::Parked(failed) };
        Expected { outcome, states, world }
    }

    /// After everything was made, and a rollback was asked for.
    fn back(&self) -> Expected {
        let all: BTreeSet<StepName> = self.fates.keys().cloned().collect();
        let world = self.kept(&all);
        let state = |name: &StepName| if world.contains(name) { "kept" } else { "undone" };
        let states = all.iter().map(|name| (name.clone(), state(name))).collect();
        Expected { outcome: Outcome::RolledBack, states, world }
    }

    fn prepare(&self, trial: &Trial) {
        for (step, fate) in &self.fates {
            let (class, landed) = match *fate {
                Fate::Stumbles { landed } => (ErrorClass::Transient, landed),
                Fate::Fails { landed } => (ErrorClass::Permanent, landed),
                Fate::Works | Fate::Kept => continue,
            };
            let fault = Fault { step: step.clone(), call: None, class, residue: Residue::Unknown, landed, times: 1 };
            trial.world.fail(fault);
        }
    }
}

async fn seen(trial: &Trial, end: End) -> Result<Expected, String> {
    let outcome = match end {
        End::Outcome(DriveOutcome::Finished(Ending::Done)) => Outcome::Done,
        End::Outcome(DriveOutcome::Finished(Ending::RolledBack)) => Outcome::RolledBack,
        End::Outcome(DriveOutcome::Parked(ParkReason::StepFailed { steps })) => Outcome::Parked(steps),
        other => return Err(format!("it ended as {other:?}")),
    };
    let run = trial.load(&run_id().unwrap()).await.map_err(|error| error.to_string())?;
    let states = run.steps().map(|(step, state)| (step.name.clone(), state.phase.name())).collect();
    Ok(Expected { outcome, states, world: trial.world.populated().into_iter().collect() })
}

fn equal(when: &str, seen: &Expected, wanted: &Expected) -> Result<(), String> {
    if seen == wanted { Ok(()) } else { Err(format!("{when}: {seen:#?}, the reference says {wanted:#?}")) }
}

async fn compare(case: &Case) -> Result<(), String> {
    let trial = Trial::new(&generate::habits().unwrap(), false).unwrap();
    let id = run_id().unwrap();
    case.prepare(&trial);
    let end = trial.run(&id, &case.plan, case.policy).await.map_err(|error| error.to_string())?;
    let first = seen(&trial, end).await?;
    let rest = case.rest();
    if case.policy == OnFailure::Rollback && rest.outcome != Outcome::Done {
        // When it turns back depends on time; that nothing but what is kept is left does not.
        let made = first.states.iter().filter(|(_, state)| **state == "kept").map(|(name, _)| name.clone()).collect();
        let stands = case.kept(&made);
        if first.outcome != Outcome::RolledBack || first.world != stands {
            return Err(format!("it turned back to {first:#?}, not to {stands:?}"));
        }
        let pending = |name: &StepName| rest.states[name] == "pending";
        let begun = first.states.iter().find(|(name, state)| **state != "pending" && pending(name));
        return begun.map_or(Ok(()), |begun| Err(format!("{begun:?} was begun before what it needs")));
    }
    equal("at rest", &first, &rest)?;
    if first.outcome != Outcome::Done {
        // What would fail later, too, is repaired by now.
        trial.world.heal();
        let end = trial.resume(&id, None).await.map_err(|error| error.to_string())?;
        let all: BTreeSet<StepName> = case.fates.keys().cloned().collect();
        let states = all.iter().map(|name| (name.clone(), "verified")).collect();
        equal("resumed", &seen(&trial, end).await?, &Expected { outcome: Outcome::Done, states, world: all })?;
    }
    let end = trial.resume(&id, Some(backward())).await.map_err(|error| error.to_string())?;
    equal("rolled back", &seen(&trial, end).await?, &case.back())
}

/// Proves on thousands of random graphs that engine and reference come to the same: every state of every step, and the very
/// set of things in the world, at rest, resumed, and rolled back.
#[test]
fn engine_and_reference_come_to_the_same() {
    let sweep = Sweep::begin("random graphs, engine against reference");
    let seeds: Vec<u64> = match scale::replay() {
        Some(seed) => vec![seed],
        None => (0..scale::of(4_000, 100_000) as u64).collect(),
    };
    workers::judge(
        &seeds,
        || tokio::runtime::Builder::new_current_thread().build().unwrap(),
        |runtime, seed| {
            runtime
                .block_on(compare(&case(*seed)))
                .map_err(|problem| format!("seed {seed}: {:?}: {problem}", case(*seed).fates))
        },
    );
    sweep.end(seeds.len(), platflow_report::seeds(&seeds), "all the same");
}
