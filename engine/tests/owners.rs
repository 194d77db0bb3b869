//! Two owners of one run, cancellation, and what holds data: the rules about who may go on, and when.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use platflow_engine::clock::Clock;
use platflow_engine::drive::{DriveError, DriveOutcome};
use platflow_engine::event::{Direction, Ending, ParkReason};
use platflow_engine::journal::{Journal, JournalError, Owner};
use platflow_engine::model::generate::{self, step};
use platflow_engine::model::kinds::Habit;
use platflow_engine::model::sweep::backward;
use platflow_engine::model::trial::{End, Trial, TrialError};
use platflow_engine::name::RunId;
use platflow_engine::plan::{OnFailure, Plan};
use platflow_engine::status;
use serde_json::json;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn id() -> RunId {
    RunId::new("run").unwrap()
}

fn owner(pid: u32) -> Owner {
    Owner { host: "model".into(), pid, process_started: 1, boot_id: "boot".into(), user: "nobody".into() }
}

/// A chain of every habit, and one step beside it.
fn every_habit() -> Plan {
    let mut steps = Vec::new();
    for (number, habit) in Habit::ALL.into_iter().enumerate() {
        let needs: Vec<_> =
            steps.last().map(|last: &platflow_engine::plan::PlannedStep| last.name.clone()).into_iter().collect();
        steps.push(step(&format!("chain-{number}"), habit, json!({ "size": number }), &needs).unwrap());
    }
    steps.push(step("beside", Habit::Slow, json!({ "size": 9 }), &[]).unwrap());
    generate::plan(steps).unwrap()
}

fn trial() -> Trial {
    Trial::new(&generate::habits().unwrap(), false).unwrap()
}

async fn world_of(plan: &Plan) -> (Vec<String>, u64) {
    let trial = trial();
    let end = trial.run(&id(), plan, OnFailure::Park).await.unwrap();
    assert_eq!(end, End::Outcome(DriveOutcome::Finished(Ending::Done)));
    (trial.world.picture(), trial.world.calls())
}

/// Proves that an owner who is taken for dead while it works is fenced out: it stops as stale, every call it made had a
/// durable intent, and the new owner ends in the undisturbed world with nothing made twice, wherever the takeover falls.
#[test]
fn a_fenced_owner_stops_and_the_new_one_finishes() {
    block_on(async {
        let plan = every_habit();
        let (picture, calls) = world_of(&plan).await;
        for takeover in 1..=calls {
            let trial = Arc::new(trial());
            let old = Arc::clone(&trial);
            let planned = plan.clone();
            let old = tokio::spawn(async move { old.run(&id(), &planned, OnFailure::Park).await });
            while trial.world.calls() < takeover && !old.is_finished() {
                tokio::task::yield_now().await;
            }
            if trial.load(&id()).await.unwrap().state.ending.is_some() {
                continue;
            }
            trial.journal.presume_dead(&id());
            let end = trial.resume(&id(), None).await.unwrap();
            assert_eq!(end, End::Outcome(DriveOutcome::Finished(Ending::Done)), "takeover at call {takeover}");
            let stale = old.await.unwrap();
            assert!(
                matches!(stale, Err(TrialError::Drive(DriveError::Journal(JournalError::Stale { .. })))),
                "takeover at call {takeover}: {stale:?}"
            );
            assert_eq!(trial.world.picture(), picture, "takeover at call {takeover}");
            assert_eq!(trial.world.violations(), Vec::<String>::new(), "takeover at call {takeover}");
        }
    });
}

/// Proves that a live owner is named to whoever wants the run.
#[test]
fn a_live_owner_is_named() {
    block_on(async {
        let plan = every_habit();
        let trial = Arc::new(trial());
        let first = Arc::clone(&trial);
        let first = tokio::spawn(async move { first.run(&id(), &plan, OnFailure::Park).await });
        while trial.world.calls() < 2 {
            tokio::task::yield_now().await;
        }
        let refused = trial.engine.resume(&id(), &owner(7), None).await;
        assert!(matches!(refused, Err(DriveError::Journal(JournalError::Owned { owner, .. })) if owner.pid == 1));
        assert_eq!(first.await.unwrap().unwrap(), End::Outcome(DriveOutcome::Finished(Ending::Done)));
    });
}

/// Proves that a cancelled drive parks as interrupted (130) at any call, starts nothing new, and ends right when resumed.
#[test]
fn cancellation_parks_and_resumes() {
    block_on(async {
        let plan = every_habit();
        let (picture, calls) = world_of(&plan).await;
        for at in 0..calls {
            let trial = Arc::new(trial());
            trial.watch(&plan).unwrap();
            let cancel = CancellationToken::new();
            let new = platflow_engine::drive::StartRun {
                id: id(),
                plan: plan.clone(),
                environment_uid: trial.uid.clone(),
                target: serde_json::Value::Null,
                owner: owner(1),
                on_failure: OnFailure::Park,
                destroy: None,
            };
            let (lease, mut run) = trial.engine.start(new).await.unwrap();
            let (driving, token) = (Arc::clone(&trial), cancel.clone());
            let drive = tokio::spawn(async move { driving.drive(&lease, &mut run, token).await });
            while trial.world.calls() < at && !drive.is_finished() {
                tokio::task::yield_now().await;
            }
            cancel.cancel();
            let end = drive.await.unwrap().unwrap();
            let run = trial.load(&id()).await.unwrap();
            match end {
                End::Outcome(DriveOutcome::Parked(ParkReason::Interrupted)) => {
                    assert_eq!(status::exit_code(&run), status::INTERRUPTED);
                    let end = trial.resume(&id(), None).await.unwrap();
                    assert_eq!(end, End::Outcome(DriveOutcome::Finished(Ending::Done)), "cancelled at {at}");
                }
                other => assert_eq!(other, End::Outcome(DriveOutcome::Finished(Ending::Done)), "cancelled at {at}"),
            }
            assert_eq!(status::exit_code(&trial.load(&id()).await.unwrap()), status::DONE);
            assert_eq!(trial.world.picture(), picture, "cancelled at {at}");
            assert!(trial.world.created().values().all(|made| *made == 1), "cancelled at {at}");
            assert_eq!(trial.world.violations(), Vec::<String>::new());
        }
    });
}

/// Proves that undoing a finished run stops before what holds data until it is confirmed (6), and that nothing was
/// touched by then; once confirmed, the world is empty (0).
#[test]
fn data_is_undone_only_when_confirmed() {
    block_on(async {
        let plan = every_habit();
        let trial = trial();
        trial.run(&id(), &plan, OnFailure::Park).await.unwrap();
        let (picture, calls) = (trial.world.picture(), trial.world.calls());
        let unconfirmed = Direction::backward("operator", false, Vec::new());
        let end = trial.resume(&id(), Some(unconfirmed)).await.unwrap();
        assert!(matches!(end, End::Outcome(DriveOutcome::Parked(ParkReason::NeedsHuman { .. }))), "{end:?}");
        assert_eq!(status::exit_code(&trial.load(&id()).await.unwrap()), status::STUCK);
        assert_eq!((trial.world.picture(), trial.world.calls()), (picture, calls));
        let end = trial.resume(&id(), Some(backward())).await.unwrap();
        assert_eq!(end, End::Outcome(DriveOutcome::Finished(Ending::RolledBack)));
        assert_eq!(status::exit_code(&trial.load(&id()).await.unwrap()), status::DONE);
        assert_eq!(trial.world.picture(), Vec::<String>::new());
        assert_eq!(trial.journal.record(&trial.uid).await.unwrap(), Vec::new());
        assert!(trial.engine.clock.now() > platflow_engine::model::clock::SimulatedClock::default().now());
    });
}

/// Proves that what belongs to somebody else is neither changed nor removed: the run stops for a human, naming them.
#[test]
fn what_is_foreign_is_refused() {
    block_on(async {
        let plan = every_habit();
        let trial = trial();
        let taken = plan.steps.iter().find(|step| step.name.as_str() == "beside").unwrap();
        trial.world.squat(&taken.name, "somebody-else", &taken.spec);
        let before = trial.world.picture();
        let end = trial.run(&id(), &plan, OnFailure::Park).await.unwrap();
        let End::Outcome(DriveOutcome::Parked(ParkReason::NeedsHuman { steps, what })) = end else {
            panic!("{end:?}");
        };
        assert_eq!(steps, vec![taken.name.clone()]);
        assert!(what.contains("somebody-else"), "{what}");
        let end = trial.resume(&id(), Some(backward())).await.unwrap();
        assert_eq!(end, End::Outcome(DriveOutcome::Finished(Ending::RolledBack)));
        assert_eq!(trial.world.picture(), before);
    });
}
