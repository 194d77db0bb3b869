//! What came up broken and will never be right: the run parks and says so; gone on with, it is removed and built again.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use platflow_engine::drive::DriveOutcome;
use platflow_engine::event::{Ending, ParkReason};
use platflow_engine::model::generate::{self, step};
use platflow_engine::model::kinds::Habit;
use platflow_engine::model::sweep::backward;
use platflow_engine::model::trial::{End, Trial};
use platflow_engine::model::world::Moment;
use platflow_engine::name::{RunId, StepName};
use platflow_engine::plan::{OnFailure, Plan};
use serde_json::json;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn id() -> RunId {
    RunId::new("run").unwrap()
}

fn name(text: &str) -> StepName {
    StepName::new(text).unwrap()
}

fn done() -> End {
    End::Outcome(DriveOutcome::Finished(Ending::Done))
}

fn parked() -> End {
    End::Outcome(DriveOutcome::Parked(ParkReason::StepFailed { steps: vec![name("broken")] }))
}

/// base <- broken <- top; a secret that is told once cannot be broken without being lost, so it is not among the habits.
fn plan(habit: Habit) -> Plan {
    generate::plan(vec![
        step("base", Habit::Token, json!({}), &[]).unwrap(),
        step("broken", habit, json!({}), &[name("base")]).unwrap(),
        step("top", Habit::Plain, json!({}), &[name("broken")]).unwrap(),
    ])
    .unwrap()
}

const HABITS: [Habit; 5] = [Habit::Plain, Habit::Slow, Habit::Anonymous, Habit::Token, Habit::SlowToken];

/// A run whose middle step came up broken `times` in a row, parked.
async fn broken(habit: Habit, times: usize) -> Trial {
    let trial = Trial::new(&generate::habits().unwrap(), false).unwrap();
    for _ in 0..times {
        trial.world.break_next(&name("broken"));
    }
    let end = trial.run(&id(), &plan(habit), OnFailure::Park).await.unwrap();
    assert_eq!(end, parked(), "{habit:?}: nothing is removed before an operator has seen it");
    assert_eq!(trial.world.populated(), vec![name("base"), name("broken")], "{habit:?}");
    trial
}

fn assert_whole(trial: &Trial, habit: Habit, builds: u32, when: &str) {
    assert_eq!(trial.world.populated(), ["base", "broken", "top"].map(name), "{habit:?} {when}");
    assert_eq!(trial.world.violations(), Vec::<String>::new(), "{habit:?} {when}");
    assert_eq!(trial.world.created().get(&name("broken")), Some(&builds), "{habit:?} {when}");
}

/// Proves that each resume removes what is broken and builds it again, as often as it takes, and never answers from the
/// tokens of what it removed.
#[test]
fn a_resume_builds_what_is_broken_again() {
    for habit in HABITS {
        block_on(async {
            let trial = broken(habit, 3).await;
            assert_eq!(trial.resume(&id(), None).await.unwrap(), parked(), "{habit:?}");
            assert_eq!(trial.resume(&id(), None).await.unwrap(), parked(), "{habit:?}");
            assert_eq!(trial.resume(&id(), None).await.unwrap(), done(), "{habit:?}");
            assert_whole(&trial, habit, 4, "after three broken ones");
        });
    }
}

/// Proves that rolling back takes away what is broken as it takes away anything else, at once and by policy.
#[test]
fn a_rollback_takes_away_what_is_broken() {
    for habit in HABITS {
        block_on(async {
            let trial = broken(habit, 1).await;
            let end = trial.resume(&id(), Some(backward())).await.unwrap();
            assert_eq!(end, End::Outcome(DriveOutcome::Finished(Ending::RolledBack)), "{habit:?}");
            assert_eq!(trial.world.populated(), Vec::<StepName>::new(), "{habit:?}");

            let trial = Trial::new(&generate::habits().unwrap(), false).unwrap();
            trial.world.break_next(&name("broken"));
            let end = trial.run(&id(), &plan(habit), OnFailure::Rollback).await.unwrap();
            assert_eq!(end, End::Outcome(DriveOutcome::Finished(Ending::RolledBack)), "{habit:?}");
            assert_eq!(trial.world.populated(), Vec::<StepName>::new(), "{habit:?}");
        });
    }
}

/// Proves that the rebuilding may die at each of its events and around each of its calls: resumed, it ends in the whole
/// world with one rebuild; rolled back, in the empty one.
#[test]
fn a_crash_amid_the_rebuilding_is_recovered_from() {
    for habit in HABITS {
        for point in 1..=30_u64 {
            for kill in [Kill::Event, Kill::Call(Moment::Before), Kill::Call(Moment::After)] {
                for forward in [true, false] {
                    block_on(crash(habit, point, kill, forward));
                }
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Kill {
    Event,
    Call(Moment),
}

async fn crash(habit: Habit, point: u64, kill: Kill, forward: bool) {
    let when = format!("died at {kill:?} {point}, forward {forward}");
    let trial = broken(habit, 1).await;
    match kill {
        Kill::Event => trial.journal.die_at(trial.load(&id()).await.unwrap().head + point),
        Kill::Call(moment) => trial.world.die_at(point, moment),
    }
    let end = trial.resume(&id(), None).await.unwrap();
    trial.journal.revive();
    trial.world.heal();
    if end != End::Died {
        assert_eq!(end, done(), "{habit:?} {when}");
        return assert_whole(&trial, habit, 2, &when);
    }
    if forward {
        assert_eq!(trial.resume(&id(), None).await.unwrap(), done(), "{habit:?} {when}");
        assert_whole(&trial, habit, 2, &when);
    } else {
        let end = trial.resume(&id(), Some(backward())).await.unwrap();
        assert_eq!(end, End::Outcome(DriveOutcome::Finished(Ending::RolledBack)), "{habit:?} {when}");
        assert_eq!(trial.world.populated(), Vec::<StepName>::new(), "{habit:?} {when}");
    }
}
