//! Rollbacks among other people's resources: nothing is taken away without proof that it is ours, and there are ways out.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use platflow_engine::drive::DriveOutcome;
use platflow_engine::event::{Direction, Ending, Event, ParkReason};
use platflow_engine::forget;
use platflow_engine::journal::{Journal, Owner};
use platflow_engine::model::generate::{self, step};
use platflow_engine::model::kinds::{self, Habit};
use platflow_engine::model::remains::Remains;
use platflow_engine::model::sweep::{Subject, backward};
use platflow_engine::model::trial::{End, Trial};
use platflow_engine::name::{RunId, StepName};
use platflow_engine::plan::{OnFailure, Plan, PlannedStep};
use platflow_engine::preview::{self, Fate};
use platflow_engine::state::{Phase, StepState};
use platflow_engine::status;
use platflow_engine::survey::Standing;
use platflow_report::Sweep;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;

/// How many random worlds are tried.
const WORLDS: u64 = 10_000;
const STRANGER: &str = "somebody-else";

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn id() -> RunId {
    RunId::new("run").unwrap()
}

fn name(text: &str) -> StepName {
    StepName::new(text).unwrap()
}

fn owner() -> Owner {
    Owner { host: "h".into(), pid: 9, process_started: 9, boot_id: "b".into(), user: "u".into() }
}

/// Objects of strangers, by step.
fn strangers(trial: &Trial) -> Vec<StepName> {
    let objects = trial.world.objects();
    objects.into_iter().filter(|(_, object)| object.owner == STRANGER).map(|(_, object)| object.step).collect()
}

fn ours(trial: &Trial) -> BTreeSet<StepName> {
    let objects = trial.world.objects();
    objects.into_iter().filter(|(_, object)| object.owner != STRANGER).map(|(_, object)| object.step).collect()
}

fn taken(trial: &Trial) -> Vec<String> {
    trial.world.violations().into_iter().filter(|text| text.contains(STRANGER)).collect()
}

/// Steps whose undo waits for a human because of what is there.
async fn stuck(trial: &Trial) -> Vec<StepName> {
    let run = trial.load(&id()).await.unwrap();
    let failed = |phase: &Phase| matches!(phase, Phase::UndoFailed { .. });
    run.steps().filter(|(_, state)| failed(&state.phase)).map(|(step, _)| step.name.clone()).collect()
}

/// The run as it stands, for whoever has to find out why.
async fn told(trial: &Trial) -> String {
    let run = trial.load(&id()).await.unwrap();
    let told = |(step, state): (&PlannedStep, &StepState)| {
        let PlannedStep { name, needs, undo, undo_after, .. } = step;
        format!("{name} needs {needs:?}, undo {undo:?} after {undo_after:?}: {:?}", state.phase)
    };
    run.steps().map(told).collect::<Vec<_>>().join("\n")
}

/// Builds as much as it can, among strangers from the start.
async fn built(subject: &Subject, random: &mut StdRng) -> Trial {
    let mut trial = Trial::new(&subject.habits, false).unwrap();
    if random.random_bool(0.5) {
        let habits = subject.habits.iter().map(|(name, habit)| (name.clone(), *habit));
        trial.engine.catalog = kinds::careless_catalog(&trial.world, habits);
        trial.engine.catalog.add_survey(Arc::new(Remains(Arc::clone(&trial.world))));
    }
    for step in &subject.plan.steps {
        if random.random_bool(0.05) {
            trial.world.squat(&step.name, STRANGER, &json!({}));
        }
    }
    let policy = if random.random_bool(0.3) { OnFailure::Rollback } else { OnFailure::Park };
    if random.random_bool(0.3) {
        trial.journal.die_at(random.random_range(2..40));
    }
    trial.run(&id(), &subject.plan, policy).await.unwrap();
    trial.world.heal();
    trial.journal.revive();
    trial
}

/// Strangers come in while nobody looks.
fn invade(trial: &Trial, plan: &Plan, random: &mut StdRng) {
    for step in &plan.steps {
        match random.random_range(0..10) {
            0 => trial.world.usurp(&step.name, STRANGER),
            1 => {
                trial.world.remove_behind_the_back(&step.name);
                trial.world.squat(&step.name, STRANGER, &step.spec);
            }
            _ => {}
        }
    }
}

async fn one_world(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut subject = generate::subject(seed, 8).unwrap();
    subject.earlier = None;
    let trial = built(&subject, &mut random).await;
    invade(&trial, &subject.plan, &mut random);
    let before = strangers(&trial);
    let mut keep: Vec<StepName> = Vec::new();
    // Each try names what stands in the way; the operator keeps that, and goes on.
    for _ in 0..=subject.plan.steps.len() {
        let Ok(run) = trial.load(&id()).await else { return };
        if run.state.ending == Some(Ending::RolledBack) {
            break;
        }
        let direction = Direction::backward("operator", true, keep.clone());
        let end = trial.resume(&id(), Some(direction)).await.unwrap();
        match end {
            End::Outcome(DriveOutcome::Finished(Ending::RolledBack)) => break,
            End::Outcome(DriveOutcome::Parked(ParkReason::NeedsHuman { steps, what })) => {
                assert_eq!(status::exit_code(&trial.load(&id()).await.unwrap()), status::STUCK, "seed {seed}");
                let more = stuck(&trial).await;
                if more.iter().any(|step| !keep.contains(step)) {
                    keep.extend(more);
                    continue;
                }
                // Everything on record is undone, and the search still found something of ours: it went with a resource that
                // somebody had put another one in the place of.
                assert!(!steps.is_empty(), "seed {seed}: stuck without a name: {what}");
                let journal: Arc<dyn Journal> = trial.journal.clone();
                forget::in_run(&journal, &id(), &owner(), &steps, trial.engine.clock.now()).await.unwrap();
                keep.extend(steps);
            }
            other => panic!("seed {seed}: ended as {other:?}\n{}", told(&trial).await),
        }
    }
    let run = trial.load(&id()).await.unwrap();
    assert_eq!(run.state.ending, Some(Ending::RolledBack), "seed {seed}: there is a way out");
    assert_eq!(taken(&trial), Vec::<String>::new(), "seed {seed}");
    assert_eq!(strangers(&trial), before, "seed {seed}: strangers are left alone\n{}", told(&trial).await);
    let mut stays: BTreeSet<StepName> = status::summary(&run).kept.into_iter().collect();
    stays.extend(trial.journal.forgotten(&trial.uid).await.unwrap());
    let left: Vec<StepName> = ours(&trial).into_iter().filter(|step| !stays.contains(step)).collect();
    assert_eq!(left, Vec::<StepName>::new(), "seed {seed}: of ours, only what was kept or forgotten is left");
    let certificate = run.state.certificate.unwrap();
    assert!(certificate.is_clean(), "seed {seed}: {certificate:?}");
}

/// Proves over 10,000 random worlds, built or half built among strangers, in half of which no kind looks whose a thing is
/// before it deletes it: nothing of a stranger is ever deleted, each rollback that meets one stops with exit 6 and the
/// steps' names, keeping or forgetting those is a way out, and what is left of ours in the end is what was kept or forgotten.
#[test]
fn nothing_of_a_stranger_is_ever_deleted() {
    let sweep = Sweep::begin("worlds among strangers, on model kinds");
    for seed in 0..WORLDS {
        block_on(one_world(seed));
    }
    sweep.end(WORLDS, format_args!("0 to {}", WORLDS - 1), "deletions without ownership: 0");
}

/// base <- middle <- top, and beside on its own, begun after middle stood only if it is told to need it.
fn plan(beside: &[StepName]) -> Plan {
    generate::plan(vec![
        step("base", Habit::Token, json!({}), &[]).unwrap(),
        step("middle", Habit::Plain, json!({}), &[name("base")]).unwrap(),
        step("top", Habit::Slow, json!({}), &[name("middle")]).unwrap(),
        step("beside", Habit::Anonymous, json!({}), beside).unwrap(),
    ])
    .unwrap()
}

fn trial() -> Trial {
    Trial::new(&generate::habits().unwrap(), false).unwrap()
}

/// Proves that a search which finds something of ours, though every step on record is undone, keeps the run from ending as
/// rolled back: it stops (6), naming it, with the certificate in the journal; once it is gone, resuming ends the run.
#[test]
fn residue_that_nobody_recorded_stops_the_end() {
    block_on(async {
        let trial = trial();
        trial.run(&id(), &plan(&[]), OnFailure::Park).await.unwrap();
        trial.world.squat(&name("never-planned"), trial.uid.as_str(), &json!({}));
        let end = trial.resume(&id(), Some(backward())).await.unwrap();
        let End::Outcome(DriveOutcome::Parked(ParkReason::NeedsHuman { steps, what })) = end else { panic!("{end:?}") };
        assert_eq!(steps, vec![name("never-planned")]);
        assert!(what.contains("never-planned"), "{what}");
        let run = trial.load(&id()).await.unwrap();
        let certificate = run.state.certificate.clone().unwrap();
        assert!(!certificate.is_clean() && certificate.looks > 1, "{certificate:?}");
        assert_eq!(status::exit_code(&run), status::STUCK);
        trial.world.remove_behind_the_back(&name("never-planned"));
        let end = trial.resume(&id(), None).await.unwrap();
        assert_eq!(end, End::Outcome(DriveOutcome::Finished(Ending::RolledBack)));
        assert!(trial.load(&id()).await.unwrap().state.certificate.unwrap().is_clean());
    });
}

/// Proves that going back to a step undoes what depends on it or came after it, keeps it and what it needs, leaves the run
/// resumable (exit 0), and that resuming builds the rest again, once.
#[test]
fn back_to_a_step_and_forward_again() {
    block_on(async {
        let trial = trial();
        let plan = plan(&[name("middle")]);
        trial.run(&id(), &plan, OnFailure::Park).await.unwrap();
        let built = trial.world.picture();
        let to = |step: &str| Direction::Backward {
            cause: "operator".to_owned(),
            confirmed: true,
            keep: Vec::new(),
            to: Some(name(step)),
        };
        let end = trial.resume(&id(), Some(to("middle"))).await.unwrap();
        assert_eq!(end, End::Outcome(DriveOutcome::Parked(ParkReason::RolledBackTo { step: name("middle") })));
        assert_eq!(trial.world.populated(), vec![name("base"), name("middle")]);
        let run = trial.load(&id()).await.unwrap();
        assert_eq!(status::exit_code(&run), status::DONE);
        let certificate = run.state.certificate.unwrap();
        let stay = |standing: &Standing| matches!(standing, Standing::Kept { .. });
        assert_eq!(certificate.remnants.iter().filter(|one| stay(&one.standing)).count(), 2);
        trial.world.forget_counts();
        let end = trial.resume(&id(), None).await.unwrap();
        assert_eq!(end, End::Outcome(DriveOutcome::Finished(Ending::Done)));
        assert_eq!(trial.world.picture(), built);
        assert!(trial.world.created().values().all(|count| *count == 1), "{:?}", trial.world.created());
        let end = trial.resume(&id(), Some(backward())).await.unwrap();
        assert_eq!(end, End::Outcome(DriveOutcome::Finished(Ending::RolledBack)));
        assert_eq!(trial.world.picture(), Vec::<String>::new());
    });
}

/// Proves that an owner who dies anywhere in a rollback to a step, or in the run forward after it, leaves both to be
/// finished by the next one, with the same result.
#[test]
fn a_crash_on_the_way_back_or_forth_changes_nothing() {
    for event in 1..40 {
        block_on(async {
            let trial = trial();
            trial.run(&id(), &plan(&[name("middle")]), OnFailure::Park).await.unwrap();
            let built = trial.world.picture();
            let head = trial.load(&id()).await.unwrap().head;
            trial.journal.die_at(head + event);
            let to = Some(name("middle"));
            let back = Direction::Backward { cause: "operator".into(), confirmed: true, keep: Vec::new(), to };
            let mut next = Some(back.clone());
            for _ in 0..4 {
                match trial.resume(&id(), next.clone()).await.unwrap() {
                    End::Died => {
                        trial.journal.revive();
                        let run = trial.load(&id()).await.unwrap();
                        // Dead before it turned: the operator asks again.
                        next =
                            (!run.state.is_backward() && run.state.ending == Some(Ending::Done)).then(|| back.clone());
                    }
                    End::Outcome(DriveOutcome::Parked(ParkReason::RolledBackTo { .. })) => next = None,
                    End::Outcome(DriveOutcome::Finished(Ending::Done)) => break,
                    other => panic!("event {event}: {other:?}"),
                }
            }
            assert_eq!(trial.world.picture(), built, "event {event}");
            assert_eq!(trial.world.violations(), Vec::<String>::new(), "event {event}");
        });
    }
}

/// Proves that a preview foretells exactly what the rollback then does, over generated plans, kept steps included.
#[test]
fn the_preview_comes_true() {
    for seed in 0..300 {
        block_on(async {
            let mut random = StdRng::seed_from_u64(seed);
            let subject = generate::subject(seed, 8).unwrap();
            let trial = subject.prepare(false).await.unwrap();
            trial.run(&id(), &subject.plan, OnFailure::Park).await.unwrap();
            let run = trial.load(&id()).await.unwrap();
            let names: Vec<StepName> = subject.plan.steps.iter().map(|step| step.name.clone()).collect();
            let keep: Vec<StepName> = names.iter().filter(|_| random.random_bool(0.15)).cloned().collect();
            let direction = Direction::backward("operator", true, keep);
            let preview = preview::preview(&run, direction.clone(), &|_| false).unwrap();
            assert_eq!(preview.refusal, None);
            trial.resume(&id(), Some(direction)).await.unwrap();
            let after = trial.load(&id()).await.unwrap();
            let kept: BTreeSet<StepName> = status::summary(&after).kept.into_iter().collect();
            let foreseen = |wanted: bool| -> BTreeSet<StepName> {
                let keeps = |fate: &Fate| matches!(fate, Fate::Keep { .. });
                preview.steps.iter().filter(|one| keeps(&one.fate) == wanted).map(|one| one.step.clone()).collect()
            };
            assert_eq!(foreseen(true), kept, "seed {seed}");
            let undone: BTreeSet<StepName> = status::summary(&after).undone.into_iter().collect();
            assert_eq!(foreseen(false), undone, "seed {seed}");
            let at = |step: &StepName| preview.steps.iter().find(|one| one.step == *step).map(|one| one.round);
            for one in preview.steps.iter().filter(|one| one.fate == Fate::Remove) {
                let index = run.graph.find(&one.step).unwrap();
                for before in run.graph.undone_before(index) {
                    let before = run.graph.step(*before).unwrap();
                    let along = preview
                        .steps
                        .iter()
                        .any(|other| other.step == before.name && matches!(other.fate, Fate::GoneWith { .. }));
                    assert!(along || at(&before.name) <= Some(one.round), "seed {seed}: {} first", before.name);
                }
            }
        });
    }
}

/// Proves that forgetting a step of a stuck rollback lets it end without touching the step's resource, that the journal
/// tells who forgot it, and that nothing that is forgotten is held against a later search.
#[test]
fn forgetting_is_a_way_out_that_touches_nothing() {
    block_on(async {
        let trial = trial();
        trial.run(&id(), &plan(&[]), OnFailure::Park).await.unwrap();
        trial.world.usurp(&name("top"), STRANGER);
        let end = trial.resume(&id(), Some(backward())).await.unwrap();
        assert!(matches!(end, End::Outcome(DriveOutcome::Parked(ParkReason::NeedsHuman { .. }))), "{end:?}");
        let calls = trial.world.calls();
        let journal: Arc<dyn Journal> = trial.journal.clone();
        let at = trial.engine.clock.now();
        forget::in_run(&journal, &id(), &owner(), &[name("top")], at).await.unwrap();
        assert_eq!(trial.world.calls(), calls, "nothing was called");
        assert_eq!(trial.journal.forgotten(&trial.uid).await.unwrap(), vec![name("top")]);
        let story = trial.journal.story(&id()).unwrap();
        assert!(story.iter().any(|event| matches!(event, Event::StepForgotten { by, .. } if by == "u on h")));
        let end = trial.resume(&id(), None).await.unwrap();
        assert_eq!(end, End::Outcome(DriveOutcome::Finished(Ending::RolledBack)));
        assert_eq!(trial.world.populated(), vec![name("top")]);
        // The stranger hands it back with our tags on it: a later search says that it stays, and why.
        trial.world.usurp(&name("top"), trial.uid.as_str());
        let second = RunId::new("second").unwrap();
        let other = generate::plan(vec![step("lone", Habit::Plain, json!({}), &[]).unwrap()]).unwrap();
        trial.run(&second, &other, OnFailure::Park).await.unwrap();
        let end = trial.resume(&second, Some(backward())).await.unwrap();
        assert_eq!(end, End::Outcome(DriveOutcome::Finished(Ending::RolledBack)));
        let certificate = trial.load(&second).await.unwrap().state.certificate.unwrap();
        assert!(
            certificate
                .remnants
                .iter()
                .any(|one| matches!(&one.standing, Standing::Kept { reason } if reason.contains("forgotten")))
        );
    });
}
