//! Single stories in the model world: strangers, data, failures, takeovers, runs after runs.

use super::{block_on, ensure, said};
use crate::battery::Case;
use platflow_engine::drive::{self, DriveError, DriveOutcome};
use platflow_engine::event::{Direction, Ending, Event, ParkReason};
use platflow_engine::failure::ErrorClass;
use platflow_engine::journal::{Journal, JournalError, Owner};
use platflow_engine::model::generate::{self, step};
use platflow_engine::model::kinds::{self, Habit};
use platflow_engine::model::sweep::{Subject, backward};
use platflow_engine::model::trial::{End, Trial, TrialError};
use platflow_engine::model::world::Moment;
use platflow_engine::name::{RunId, StepName};
use platflow_engine::plan::{OnFailure, Plan};
use platflow_engine::step::UndoPlan;
use serde_json::json;
use std::sync::Arc;

const STRANGER: &str = "somebody-else";

fn id(text: &str) -> Result<RunId, String> {
    RunId::new(text).map_err(said)
}

fn name(text: &str) -> Result<StepName, String> {
    StepName::new(text).map_err(said)
}

fn owner(pid: u32) -> Owner {
    Owner { host: "model".into(), pid, process_started: 1, boot_id: "boot".into(), user: "nobody".into() }
}

/// A chain of every habit, and one step beside it.
fn plan() -> Result<Plan, String> {
    let mut steps: Vec<platflow_engine::plan::PlannedStep> = Vec::new();
    for (number, habit) in Habit::ALL.into_iter().enumerate() {
        let needs: Vec<_> = steps.last().map(|last| last.name.clone()).into_iter().collect();
        steps.push(step(&format!("chain-{number}"), habit, json!({ "size": number }), &needs).map_err(said)?);
    }
    steps.push(step("beside", Habit::Slow, json!({ "size": 9 }), &[]).map_err(said)?);
    generate::plan(steps).map_err(said)
}

fn trial() -> Result<Trial, String> {
    Trial::new(&generate::habits().map_err(said)?, false).map_err(said)
}

fn ended(end: &End, ending: Ending) -> Result<(), String> {
    ensure(*end == End::Outcome(DriveOutcome::Finished(ending)), || format!("it ended as {end:?}, not {ending:?}"))
}

async fn run(trial: &Trial, run: &str, plan: &Plan, policy: OnFailure) -> Result<End, String> {
    trial.run(&id(run)?, plan, policy).await.map_err(said)
}

async fn resume(trial: &Trial, run: &str, direction: Option<Direction>) -> Result<End, String> {
    trial.resume(&id(run)?, direction).await.map_err(said)
}

fn sound(trial: &Trial) -> Result<(), String> {
    let violations = trial.world.violations();
    ensure(violations.is_empty(), || violations.join("; "))
}

/// Everything stands once, as wanted.
fn whole(trial: &Trial, plan: &Plan) -> Result<(), String> {
    sound(trial)?;
    let mut names: Vec<StepName> = plan.steps.iter().map(|step| step.name.clone()).collect();
    names.sort();
    let populated = trial.world.populated();
    ensure(populated == names, || format!("there stand {populated:?}"))
}

/// A rollback leaves nothing, proves it by a search, and lets go of the environment.
async fn proven(trial: &Trial, run: &str) -> Result<(), String> {
    sound(trial)?;
    let left = trial.world.populated();
    ensure(left.is_empty(), || format!("{left:?} are left"))?;
    let state = trial.load(&id(run)?).await.map_err(said)?.state;
    ensure(state.certificate.is_some_and(|one| one.is_clean()), || "no search proves the rollback".to_owned())?;
    let rows = trial.journal.list(None, 10).await.map_err(said)?;
    let Some(row) = rows.iter().find(|row| row.id.as_str() == run) else { return Err("the run is gone".to_owned()) };
    let held = trial.journal.environment(&row.environment).await.map_err(said)?.and_then(|row| row.held_by);
    ensure(held.is_none() && row.status.is_final(), || format!("{:?}, held by {held:?}", row.status))
}

async fn around_and_again() -> Result<(), String> {
    let (plan, trial) = (plan()?, trial()?);
    ended(&run(&trial, "first", &plan, OnFailure::Park).await?, Ending::Done)?;
    whole(&trial, &plan)?;
    let calls = trial.world.calls();
    ended(&run(&trial, "second", &plan, OnFailure::Park).await?, Ending::Done)?;
    ensure(trial.world.calls() == calls, || "a second run changed something".to_owned())?;
    ended(&resume(&trial, "second", Some(backward())).await?, Ending::RolledBack)?;
    whole(&trial, &plan)?;
    let destroyed = trial.destroy(&id("destroy")?, &plan).await.map_err(said)?;
    ended(&destroyed, Ending::RolledBack)?;
    proven(&trial, "destroy").await?;
    // Whatever answers to an old token is gone: what is built again must not be taken for it.
    ended(&run(&trial, "third", &plan, OnFailure::Park).await?, Ending::Done)?;
    whole(&trial, &plan)?;
    ended(&resume(&trial, "third", Some(backward())).await?, Ending::RolledBack)?;
    proven(&trial, "third").await?;
    ended(&run(&trial, "fourth", &plan, OnFailure::Park).await?, Ending::Done)?;
    whole(&trial, &plan)
}

async fn data() -> Result<(), String> {
    let (plan, trial) = (plan()?, trial()?);
    ended(&run(&trial, "run", &plan, OnFailure::Park).await?, Ending::Done)?;
    let picture = trial.world.picture();
    let end = resume(&trial, "run", Some(Direction::backward("operator", false, Vec::new()))).await?;
    let asks = matches!(end, End::Outcome(DriveOutcome::Parked(ParkReason::NeedsHuman { .. })));
    ensure(asks && trial.world.picture() == picture, || format!("data is undone without being asked: {end:?}"))
}

async fn strangers() -> Result<(), String> {
    let (plan, trial) = (plan()?, trial()?);
    let Some(taken) = plan.steps.iter().find(|step| step.name.as_str() == "beside") else { return Ok(()) };
    trial.world.squat(&taken.name, STRANGER, &taken.spec);
    let before = trial.world.picture();
    let end = run(&trial, "run", &plan, OnFailure::Park).await?;
    let parked = matches!(end, End::Outcome(DriveOutcome::Parked(ParkReason::NeedsHuman { .. })));
    ensure(parked, || format!("a stranger's thing of the same name: {end:?}"))?;
    ended(&resume(&trial, "run", Some(backward())).await?, Ending::RolledBack)?;
    ensure(trial.world.picture() == before, || "the stranger's thing is not as it was".to_owned())?;
    sound(&trial)
}

/// Kinds that take away whatever they find: the engine alone spares what became somebody else's.
async fn usurped() -> Result<(), String> {
    let (plan, mut trial) = (plan()?, trial()?);
    let habits = generate::habits().map_err(said)?;
    trial.engine.catalog = kinds::careless_catalog(&trial.world, habits);
    ended(&run(&trial, "run", &plan, OnFailure::Park).await?, Ending::Done)?;
    trial.world.usurp(&name("beside")?, STRANGER);
    resume(&trial, "run", Some(backward())).await?;
    let stands = trial.world.objects().iter().any(|(_, object)| object.owner == STRANGER);
    ensure(stands, || "what became a stranger's was taken away".to_owned())
}

/// Something carries our tag that nobody has on record.
async fn unrecorded() -> Result<(), String> {
    let (plan, trial) = (plan()?, trial()?);
    ended(&run(&trial, "run", &plan, OnFailure::Park).await?, Ending::Done)?;
    trial.world.squat(&name("unheard-of")?, trial.uid.as_str(), &json!({}));
    let end = resume(&trial, "run", Some(backward())).await?;
    let parked = matches!(end, End::Outcome(DriveOutcome::Parked(ParkReason::NeedsHuman { .. })));
    ensure(parked, || format!("a search that finds something of ours: {end:?}"))
}

async fn turned_back() -> Result<(), String> {
    let (plan, trial) = (plan()?, trial()?);
    let fault = Subject::faults(&name("chain-3")?, 1).into_iter().find(|fault| fault.class == ErrorClass::Permanent);
    fault.into_iter().for_each(|fault| trial.world.fail(fault));
    ended(&run(&trial, "run", &plan, OnFailure::Rollback).await?, Ending::RolledBack)?;
    proven(&trial, "run").await
}

/// A run that died in the middle of a call, and was given up: the next one finds what that call left.
async fn abandoned(call: u64, moment: Moment) -> Result<(), String> {
    let (plan, trial) = (plan()?, trial()?);
    trial.world.die_at(call, moment);
    if run(&trial, "run", &plan, OnFailure::Park).await? != End::Died {
        return Ok(());
    }
    trial.world.heal();
    trial.journal.revive();
    let journal = Arc::clone(&trial.journal) as Arc<dyn Journal>;
    let at = trial.engine.clock.now();
    drive::abandon(&journal, &id("run")?, &owner(3), at).await.map_err(said)?;
    ended(&run(&trial, "next", &plan, OnFailure::Park).await?, Ending::Done)?;
    whole(&trial, &plan)
}

async fn broken(habit: Habit) -> Result<(), String> {
    let steps = [
        step("base", Habit::Token, json!({}), &[]).map_err(said)?,
        step("broken", habit, json!({}), &[name("base")?]).map_err(said)?,
    ];
    let (plan, trial) = (generate::plan(steps.to_vec()).map_err(said)?, trial()?);
    trial.world.break_next(&name("broken")?);
    let end = run(&trial, "run", &plan, OnFailure::Park).await?;
    let parked = matches!(end, End::Outcome(DriveOutcome::Parked(ParkReason::StepFailed { .. })));
    ensure(parked && trial.world.populated().len() == 2, || format!("something broken: {end:?}"))?;
    ended(&resume(&trial, "run", None).await?, Ending::Done)?;
    whole(&trial, &plan)?;
    ensure(trial.world.objects().iter().all(|(_, object)| !object.broken), || "it is still broken".to_owned())
}

/// An owner that is taken for dead while it works: it stops as stale, and nothing is made twice.
async fn fenced(takeover: u64) -> Result<(), String> {
    let (plan, trial) = (plan()?, Arc::new(trial()?));
    let run = id("run")?;
    let (old, planned, told) = (Arc::clone(&trial), plan.clone(), run.clone());
    let old = tokio::spawn(async move { old.run(&told, &planned, OnFailure::Park).await });
    while trial.world.calls() < takeover && !old.is_finished() {
        tokio::task::yield_now().await;
    }
    if trial.load(&run).await.map_err(said)?.state.ending.is_some() {
        return Ok(());
    }
    let refused = trial.engine.resume(&run, &owner(7), None).await.map(|_| ());
    let named = matches!(refused, Err(DriveError::Journal(JournalError::Owned { .. })));
    ensure(named, || format!("beside a live owner: {refused:?}"))?;
    trial.journal.presume_dead(&run);
    let end = trial.resume(&run, None).await.map_err(said)?;
    ended(&end, Ending::Done)?;
    let stale = old.await.map_err(said)?;
    let stopped = matches!(stale, Err(TrialError::Drive(DriveError::Journal(JournalError::Stale { .. }))));
    ensure(stopped, || format!("the owner before ended as {stale:?}"))?;
    // A secret that was told to the owner before is made again.
    let secret = platflow_engine::name::KindName::new(Habit::Secret.kind()).map_err(said)?;
    let told = |name: &StepName| plan.steps.iter().any(|step| step.name == *name && step.kind == secret);
    let twice: Vec<_> = trial.world.created().into_iter().filter(|(name, made)| *made > 1 && !told(name)).collect();
    ensure(twice.is_empty(), || format!("made more than once: {twice:?}"))?;
    whole(&trial, &plan)
}

/// What goes along with another is taken off the record by that one's end: nobody makes a call for it.
async fn along() -> Result<(), String> {
    let base = step("base", Habit::Plain, json!({}), &[]).map_err(said)?;
    let mut inside = step("inside", Habit::Plain, json!({}), std::slice::from_ref(&base.name)).map_err(said)?;
    inside.undo = UndoPlan::With { step: base.name.clone() };
    let (plan, trial) = (generate::plan(vec![base, inside]).map_err(said)?, trial()?);
    ended(&run(&trial, "run", &plan, OnFailure::Park).await?, Ending::Done)?;
    let calls = trial.world.calls();
    ended(&resume(&trial, "run", Some(backward())).await?, Ending::RolledBack)?;
    proven(&trial, "run").await?;
    let made = trial.world.calls() - calls;
    ensure(made == 1, || format!("{made} calls took away what one takes away"))?;
    let story = trial.journal.story(&id("run")?).map_err(said)?;
    let alone = |event: &Event| matches!(event, Event::UndoIntended { step, .. } if step.as_str() == "inside");
    ensure(!story.iter().any(alone), || "what goes along was undone by itself".to_owned())
}

/// The cases.
#[must_use]
pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new("runs after runs", || block_on(around_and_again())),
        Case::new("data is asked about", || block_on(data())),
        Case::new("strangers", || block_on(strangers())),
        Case::new("strangers", || block_on(usurped())),
        Case::new("a search ends a rollback", || block_on(unrecorded())),
        Case::new("what goes along", || block_on(along())),
        Case::new("a failure turns a run back", || block_on(turned_back())),
    ];
    let broken_habits = Habit::ALL.into_iter().filter(|habit| *habit != Habit::Secret);
    cases.extend(broken_habits.map(|habit| Case::new("broken things", move || block_on(broken(habit)))));
    cases.extend((1..=9).flat_map(|call| {
        [Moment::Before, Moment::After]
            .map(|moment| Case::new("abandoned runs", move || block_on(abandoned(call, moment))))
    }));
    cases.extend((1..=9).map(|call| Case::new("takeovers", move || block_on(fenced(call)))));
    cases
}
