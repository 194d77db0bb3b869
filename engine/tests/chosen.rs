//! A run that acts on chosen steps only: those come to be as wanted, everything else stays exactly as it was, also when the
//! process dies on the way or the run is taken back.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use platflow_engine::drive::DriveOutcome;
use platflow_engine::event::{Ending, Finding, ParkReason};
use platflow_engine::fold::Run;
use platflow_engine::model::generate;
use platflow_engine::model::sweep::{Subject, backward};
use platflow_engine::model::trial::{End, Trial};
use platflow_engine::name::{RunId, StepName};
use platflow_engine::plan::{OnFailure, Plan};
use platflow_report::told;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const SEEDS: u64 = 400;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn id() -> RunId {
    RunId::new("run").unwrap()
}

/// The objects of the world by step: number and spec.
fn picture(trial: &Trial) -> BTreeMap<StepName, (u64, Value)> {
    let alive = trial.world.populated();
    let objects = trial.world.objects().into_iter().filter(|(_, object)| object.gone_at.is_none());
    objects
        .filter(|(_, object)| alive.contains(&object.step))
        .map(|(number, object)| (object.step, (number, object.spec)))
        .collect()
}

/// What is drawn from a seed: an environment, and which of its steps are chosen.
struct Draw {
    subject: Subject,
    drifted: Vec<StepName>,
    chosen: BTreeSet<StepName>,
}

fn draw(seed: u64) -> Draw {
    let mut subject = generate::subject(seed, 7).unwrap();
    let mut random = StdRng::seed_from_u64(seed ^ 0x0c40_5e17);
    let earlier = subject.earlier.iter().flat_map(|plan| &plan.steps);
    let standing = earlier.map(|step| step.name.clone()).filter(|name| !subject.vanished.contains(name));
    let drifted = standing.filter(|_| random.random_bool(0.3)).collect();
    let chosen: BTreeSet<StepName> =
        subject.plan.steps.iter().map(|step| step.name.clone()).filter(|_| random.random_bool(0.4)).collect();
    subject.plan.only = Some(chosen.clone());
    Draw { subject, drifted, chosen }
}

async fn prepared(draw: &Draw) -> Trial {
    let trial = draw.subject.prepare(false).await.unwrap();
    for step in &draw.drifted {
        trial.world.change_behind_the_back(step, &json!({ "size": 7_000, "zone": "a" }));
    }
    trial
}

/// What chosen steps stand on, and is not chosen itself.
fn stood_on(plan: &Plan, chosen: &BTreeSet<StepName>) -> BTreeSet<StepName> {
    let mut found = BTreeSet::new();
    let mut open: Vec<&StepName> = chosen.iter().collect();
    while let Some(name) = open.pop() {
        for need in plan.steps.iter().filter(|step| step.name == *name).flat_map(|step| &step.needs) {
            if !chosen.contains(need) && found.insert(need.clone()) {
                open.push(need);
            }
        }
    }
    found
}

/// True when the end is the right one, given what stood before; what was not chosen is as it was.
fn check(draw: &Draw, trial: &Trial, before: &BTreeMap<StepName, (u64, Value)>, end: &End, case: &str) -> bool {
    let after = picture(trial);
    let missing = stood_on(&draw.subject.plan, &draw.chosen).iter().any(|step| !before.contains_key(step));
    match end {
        End::Outcome(DriveOutcome::Finished(Ending::Done)) => assert!(!missing, "{case}: done without what it needs"),
        End::Outcome(DriveOutcome::Parked(ParkReason::NeedsHuman { .. })) => assert!(missing, "{case}: {end:?}"),
        other => panic!("{case}: {other:?}"),
    }
    for (name, object) in before.iter().filter(|(name, _)| !draw.chosen.contains(*name)) {
        assert_eq!(after.get(name), Some(object), "{case}: {name} was not chosen");
    }
    for step in &draw.subject.plan.steps {
        let spec = after.get(&step.name).map(|(_, spec)| spec);
        if draw.chosen.contains(&step.name) {
            assert!(missing || spec == Some(&step.spec), "{case}: {} is {spec:?}", step.name);
        } else {
            assert_eq!(spec.is_some(), before.contains_key(&step.name), "{case}: {} was not chosen", step.name);
        }
    }
    assert_eq!(trial.world.violations(), Vec::<String>::new(), "{case}");
    missing
}

/// What a run that is taken back leaves: what stood before, and what it changed as it is on record, which is as an earlier
/// run made it and not as others left it.
fn taken_back(draw: &Draw, before: BTreeMap<StepName, (u64, Value)>, run: &Run) -> BTreeMap<StepName, Value> {
    let recorded = |name: &StepName| {
        let earlier = draw.subject.earlier.iter().flat_map(|plan| &plan.steps);
        earlier.into_iter().find(|step| step.name == *name).map(|step| step.spec.clone())
    };
    let changed =
        |name: &StepName| run.step(name).is_some_and(|state| matches!(state.finding, Some(Finding::Differs { .. })));
    before
        .into_iter()
        .map(|(name, (_, spec))| {
            let spec = recorded(&name).filter(|_| changed(&name)).unwrap_or(spec);
            (name, spec)
        })
        .collect()
}

/// Proves over 400 random environments, with parts missing, changed or drifted and random choices, that a run acts on what
/// was chosen and on nothing else; that a death at any of its events changes nothing about that; and that taking it back
/// leaves the world as it was.
#[test]
fn a_run_acts_on_the_chosen_steps_alone() {
    let (mut runs, mut parked, mut deaths) = (0_u64, 0_u64, 0_u64);
    for seed in 0..SEEDS {
        block_on(async {
            let draw = draw(seed);
            let trial = prepared(&draw).await;
            let before = picture(&trial);
            let end = trial.run(&id(), &draw.subject.plan, OnFailure::Park).await.unwrap();
            runs += 1;
            parked += u64::from(check(&draw, &trial, &before, &end, &format!("seed {seed}")));
            let run = trial.load(&id()).await.unwrap();
            let back = trial.resume(&id(), Some(backward())).await.unwrap();
            assert_eq!(back, End::Outcome(DriveOutcome::Finished(Ending::RolledBack)), "seed {seed}");
            let specs: BTreeMap<StepName, Value> =
                picture(&trial).into_iter().map(|(name, (_, spec))| (name, spec)).collect();
            assert_eq!(specs, taken_back(&draw, before, &run), "seed {seed}: taken back");
            for at in 1..run.head {
                let trial = prepared(&draw).await;
                let before = picture(&trial);
                trial.journal.die_at(at);
                let mut end = trial.run(&id(), &draw.subject.plan, OnFailure::Park).await.unwrap();
                trial.journal.revive();
                if end == End::Died && at > 1 {
                    end = trial.resume(&id(), None).await.unwrap();
                    deaths += 1;
                    check(&draw, &trial, &before, &end, &format!("seed {seed}, died at {at}"));
                }
            }
        });
    }
    assert!(parked > 20 && parked < runs, "{parked} of {runs} lacked something");
    told(format_args!(
        "{runs} runs over chosen steps, {parked} of which lacked what they need; {deaths} deaths on the way"
    ));
}
