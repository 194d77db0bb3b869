//! What a rollback leaves: declared keeps with what they depend on, what cannot be undone, and the exit codes of it all.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use async_trait::async_trait;
use platflow_engine::context::Context;
use platflow_engine::drive::DriveOutcome;
use platflow_engine::event::{Direction, Ending, ParkReason};
use platflow_engine::failure::{ErrorClass, Residue, StepError};
use platflow_engine::graph::{Graph, GraphError};
use platflow_engine::model::generate::{self, step};
use platflow_engine::model::kinds::Habit;
use platflow_engine::model::sweep::backward;
use platflow_engine::model::trial::{End, Trial};
use platflow_engine::model::world::{Fault, Moment};
use platflow_engine::name::{KindName, RunId, StepName};
use platflow_engine::plan::{OnFailure, Plan};
use platflow_engine::status;
use platflow_engine::step::{Known, Observation, Progress, Step, UndoPlan, UndoProgress};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn id() -> RunId {
    RunId::new("run").unwrap()
}

fn name(text: &str) -> StepName {
    StepName::new(text).unwrap()
}

/// base <- middle <- top, and beside on its own.
fn plan(middle: UndoPlan) -> Plan {
    let mut second = step("middle", Habit::Plain, json!({}), &[name("base")]).unwrap();
    second.undo = middle;
    generate::plan(vec![
        step("base", Habit::Token, json!({}), &[]).unwrap(),
        second,
        step("top", Habit::Slow, json!({}), &[name("middle")]).unwrap(),
        step("beside", Habit::Anonymous, json!({}), &[]).unwrap(),
    ])
    .unwrap()
}

fn trial() -> Trial {
    Trial::new(&generate::habits().unwrap(), false).unwrap()
}

/// Proves that a kept step stays with all it depends on, the rest goes, and the rollback counts as complete.
#[test]
fn a_kept_step_keeps_what_it_stands_on() {
    block_on(async {
        let trial = trial();
        trial.run(&id(), &plan(UndoPlan::Keep), OnFailure::Park).await.unwrap();
        let end = trial.resume(&id(), Some(backward())).await.unwrap();
        assert_eq!(end, End::Outcome(DriveOutcome::Finished(Ending::RolledBack)));
        assert_eq!(trial.world.populated(), vec![name("base"), name("middle")]);
        let run = trial.load(&id()).await.unwrap();
        assert_eq!(status::exit_code(&run), status::DONE);
        assert_eq!(status::summary(&run).kept, vec![name("base"), name("middle")]);
    });
}

/// Proves that what a run only found to be there is looked for again once a rollback to an earlier step took away what it
/// depends on: what was true of it then may have gone along.
#[test]
fn what_was_only_found_is_looked_for_again_after_a_rollback() {
    block_on(async {
        let trial = trial();
        let plan = plan(UndoPlan::Own);
        trial.run(&id(), &plan, OnFailure::Park).await.unwrap();
        trial.world.remove_behind_the_back(&name("middle"));
        let second = RunId::new("second").unwrap();
        trial.run(&second, &plan, OnFailure::Park).await.unwrap();
        let back = Direction::Backward {
            cause: "operator".to_owned(),
            confirmed: true,
            keep: Vec::new(),
            to: Some(name("base")),
        };
        trial.resume(&second, Some(back)).await.unwrap();
        assert!(!trial.world.populated().contains(&name("middle")), "this run made it again");
        assert!(trial.world.populated().contains(&name("top")), "this run found it");
        trial.world.remove_behind_the_back(&name("top"));
        let end = trial.resume(&second, Some(Direction::Forward)).await.unwrap();
        assert_eq!(end, End::Outcome(DriveOutcome::Finished(Ending::Done)));
        for step in ["base", "middle", "top", "beside"] {
            assert!(trial.world.populated().contains(&name(step)), "{step}");
        }
    });
}

/// Proves that a step that cannot be undone stops the rollback before it began (6), naming the step.
#[test]
fn what_cannot_be_undone_stops_a_rollback() {
    block_on(async {
        let trial = trial();
        trial.run(&id(), &plan(UndoPlan::Impossible), OnFailure::Park).await.unwrap();
        let before = trial.world.picture();
        let end = trial.resume(&id(), Some(backward())).await.unwrap();
        let End::Outcome(DriveOutcome::Parked(ParkReason::NeedsHuman { steps, .. })) = end else { panic!("{end:?}") };
        assert_eq!(steps, vec![name("middle")]);
        assert_eq!(trial.world.picture(), before);
        assert_eq!(status::exit_code(&trial.load(&id()).await.unwrap()), status::STUCK);
    });
}

/// Proves that a step declared to go with another is gone with it, without an undo call of its own.
#[test]
fn what_goes_along_is_gone_with_it() {
    block_on(async {
        let trial = trial();
        trial.run(&id(), &plan(UndoPlan::With { step: name("base") }), OnFailure::Park).await.unwrap();
        let calls = trial.world.calls();
        let end = trial.resume(&id(), Some(backward())).await.unwrap();
        assert_eq!(end, End::Outcome(DriveOutcome::Finished(Ending::RolledBack)));
        assert_eq!(trial.world.picture(), Vec::<String>::new());
        assert_eq!(trial.world.calls() - calls, 3, "top, beside and base are deleted; middle goes with base");
        assert_eq!(trial.world.violations(), Vec::<String>::new());
    });
}

/// Proves the exit codes of a step that fails for good: parked is 5 and leaves the rest in place, rolled back is 4 and
/// leaves nothing.
#[test]
fn a_lasting_failure_parks_or_rolls_back() {
    block_on(async {
        for (policy, code, left) in
            [(OnFailure::Park, status::RESUMABLE, 3), (OnFailure::Rollback, status::ROLLED_BACK, 0)]
        {
            let trial = trial();
            trial.world.fail(Fault {
                step: name("top"),
                call: Some("create"),
                class: ErrorClass::Permanent,
                residue: Residue::None,
                landed: false,
                times: u32::MAX,
            });
            trial.run(&id(), &plan(UndoPlan::Own), policy).await.unwrap();
            let run = trial.load(&id()).await.unwrap();
            assert_eq!(status::exit_code(&run), code, "{policy:?}");
            assert_eq!(trial.world.populated().len(), left, "{policy:?}");
        }
    });
}

/// Proves that a cycle is refused with its path, and an unknown need with both names.
#[test]
fn what_is_no_graph_is_refused() {
    let mut circle = plan(UndoPlan::Own);
    for step in &mut circle.steps {
        if step.name == name("base") {
            step.needs = vec![name("top")];
        }
    }
    let Err(GraphError::Cycle { path }) = Graph::new(&Arc::new(circle)) else { panic!("a cycle is no graph") };
    assert_eq!(path.first(), path.last());
    assert_eq!(path.len(), 4);
    let mut unknown = plan(UndoPlan::Own);
    for step in &mut unknown.steps {
        if step.name == name("base") {
            step.needs = vec![name("nothing")];
        }
    }
    assert!(
        matches!(Graph::new(&Arc::new(unknown)), Err(GraphError::Unknown { missing, .. }) if missing == name("nothing"))
    );
}

/// A step, what it needs, what it goes along with, and what it must be undone after.
type Tied = (&'static str, &'static [&'static str], Option<&'static str>, &'static [&'static str]);

fn tied(steps: &[Tied]) -> Plan {
    let names = |names: &[&str]| names.iter().map(|text| name(text)).collect::<Vec<_>>();
    let steps = steps.iter().map(|(own, needs, with, after)| {
        let mut made = step(own, Habit::Plain, json!({}), &names(needs)).unwrap();
        made.undo = with.map_or(UndoPlan::Own, |with| UndoPlan::With { step: name(with) });
        made.undo_after = names(after);
        made
    });
    generate::plan(steps.collect()).unwrap()
}

/// Proves that steps which go along with others are all gone in the end, in order, also where one goes along with another
/// that itself goes along, and where their hosts would wait for each other in a circle.
#[test]
fn going_along_never_holds_a_rollback_up() {
    let chain = tied(&[
        ("ground", &[], None, &["leaf"]),
        ("branch", &["ground"], Some("ground"), &[]),
        ("leaf", &["branch"], Some("branch"), &[]),
    ]);
    let circle = tied(&[
        ("a", &[], None, &[]),
        ("b", &[], None, &[]),
        ("c", &[], None, &[]),
        ("with-a", &["a", "b"], Some("a"), &[]),
        ("with-c", &["c", "with-a"], Some("c"), &[]),
        ("with-b", &["b", "c"], Some("b"), &[]),
    ]);
    for plan in [chain, circle] {
        block_on(async {
            let trial = trial();
            trial.run(&id(), &plan, OnFailure::Park).await.unwrap();
            let end = trial.resume(&id(), Some(backward())).await.unwrap();
            assert_eq!(end, End::Outcome(DriveOutcome::Finished(Ending::RolledBack)));
            assert_eq!(trial.world.populated(), Vec::<StepName>::new());
            assert_eq!(trial.world.violations(), Vec::<String>::new());
        });
    }
}

/// A kind that cannot be looked at any more, as one whose pinned manifest is another by now.
struct Unlookable {
    inner: Arc<dyn Step>,
    shut: Arc<AtomicBool>,
}

#[async_trait]
impl Step for Unlookable {
    async fn observe(&self, spec: &Value, known: &Known, context: &Context) -> Result<Observation, StepError> {
        if self.shut.load(Ordering::SeqCst) {
            return Err(StepError::permanent("it is another by now"));
        }
        self.inner.observe(spec, known, context).await
    }
    async fn apply(
        &self,
        spec: &Value,
        seen: &Observation,
        known: &Known,
        context: &Context,
    ) -> Result<Progress, StepError> {
        self.inner.apply(spec, seen, known, context).await
    }
    async fn undo(&self, spec: &Value, known: &Known, context: &Context) -> Result<UndoProgress, StepError> {
        self.inner.undo(spec, known, context).await
    }
}

/// Proves that a rollback takes away what an interrupted call made although no look at it can succeed any more: not at once,
/// as reads may be late, but when an absence may be believed.
#[test]
fn what_can_never_be_looked_at_again_is_undone_all_the_same() {
    for habit in [Habit::Token, Habit::Slow, Habit::Plain] {
        block_on(async {
            let mut trial = trial();
            let plan = generate::plan(vec![step("only", habit, json!({}), &[]).unwrap()]).unwrap();
            let kind = KindName::new(habit.kind()).unwrap();
            let (inner, shut) = (trial.engine.catalog.step(&kind).unwrap(), Arc::new(AtomicBool::new(false)));
            let description = trial.engine.catalog.description(&kind).unwrap().clone();
            trial.engine.catalog.insert(description, Arc::new(Unlookable { inner, shut: Arc::clone(&shut) }));
            trial.world.die_at(1, Moment::After);
            assert_eq!(trial.run(&id(), &plan, OnFailure::Park).await.unwrap(), End::Died, "{habit:?}");
            assert_eq!(trial.world.populated(), vec![name("only")], "{habit:?}");
            trial.world.heal();
            trial.journal.revive();
            shut.store(true, Ordering::SeqCst);
            let died = trial.engine.clock.now();
            let end = trial.resume(&id(), Some(backward())).await.unwrap();
            assert_eq!(end, End::Outcome(DriveOutcome::Finished(Ending::RolledBack)), "{habit:?}");
            assert_eq!(trial.world.populated(), Vec::<StepName>::new(), "{habit:?}");
            let waited = trial.engine.clock.now().duration_since(died).as_secs();
            assert!(waited >= 60, "{habit:?}: reads may be late by more than {waited} s");
        });
    }
}
