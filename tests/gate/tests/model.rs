//! The explicit-state model: every state of it is safe and can end, each of its rules is needed, owners that were taken
//! over write and call nothing, and the journals of real runs are among those that it allows.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use platflow_engine::drive::DriveOutcome;
use platflow_engine::event::{Ending, Event};
use platflow_engine::model::generate::{self, step};
use platflow_engine::model::kinds::Habit;
use platflow_engine::model::sweep::{self, Crash, Recovery};
use platflow_engine::model::trial::{End, Trial};
use platflow_engine::model::world::Moment;
use platflow_engine::plan::{OnFailure, Plan};
use platflow_gate::model::search::explore;
use platflow_gate::model::trace::{Fact, accepts};
use platflow_gate::model::{Action, Call, OWNERS, Phase, Rules, State};
use platflow_report::Sweep;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::json;

/// What the interleavings are drawn by.
const SEED: u64 = 2026;

/// Proves exhaustively for two owners, three steps and two crashes (and, apart from them, owners taken over alive): nothing
/// is made twice, forgotten, or left without what it needs, and every state can reach an end.
#[test]
fn every_state_is_safe_and_can_end() {
    for (crashes, takeovers) in [(2, 0), (1, 1), (0, 1), (2, 1)] {
        let sweep = Sweep::begin(format!("states of the model with {crashes} crashes and {takeovers} takeovers"));
        let explored = explore(State::first(crashes, takeovers), Rules::ALL);
        sweep.end(explored.states, "none, explored whole", format_args!("{} transitions", explored.transitions));
        assert_eq!(explored.violation, None);
        assert_eq!(explored.hopeless, 0, "states from which nothing leads to an end");
    }
}

/// Proves that the model is sharp: without any one of its rules something goes wrong, and it says how.
#[test]
fn each_rule_is_needed() {
    for (what, rules) in [
        ("fence", Rules { fence: false, ..Rules::ALL }),
        ("lease", Rules { lease: false, ..Rules::ALL }),
        ("intent", Rules { intent: false, ..Rules::ALL }),
        ("settle", Rules { settle: false, ..Rules::ALL }),
        ("unknown", Rules { unknown: false, ..Rules::ALL }),
        ("order", Rules { order: false, ..Rules::ALL }),
    ] {
        let explored = explore(State::first(2, 1), rules);
        let Some((problem, way)) = explored.violation else { panic!("nothing goes wrong without {what}") };
        platflow_report::told(format_args!("the model without {what}: {problem} after {} actions", way.len()));
    }
}

/// Proves over at least 100,000 interleavings of an owner that is taken over while it lives: it writes no fact and makes no
/// call afterwards, and no call is made whose intent was not journaled before.
#[test]
fn an_owner_that_was_taken_over_writes_and_calls_nothing() {
    let sweep = Sweep::begin("interleavings of the model with a takeover from the living");
    let mut random = StdRng::seed_from_u64(SEED);
    let (mut taken_over, mut facts, mut calls, mut unjournaled, mut met) = (0_u64, 0, 0, 0, 0_u64);
    while taken_over < 100_000 {
        let mut state = State::first(1, 2);
        let mut counted = false;
        for _ in 0..60 {
            let actions = state.actions(Rules::ALL);
            // Takeovers of the living are rare among all that can happen: they are drawn more often than their share.
            let takeover = actions.iter().find(|action| matches!(action, Action::TakeOver(_)));
            let action = match takeover {
                Some(takeover) if random.random_bool(0.1) => *takeover,
                _ => match actions.choose(&mut random) {
                    Some(action) => *action,
                    None => break,
                },
            };
            if let Some(owner) = action.owner().filter(|owner| state.is_stale(*owner)) {
                met += 1;
                facts += u64::from(action.is_fact());
                calls += u64::from(matches!(action, Action::Call(..)));
                assert!(owner < OWNERS);
            }
            let before = state;
            state = state.after(action, Rules::ALL).unwrap();
            if let Action::Call(_, step) = action {
                let intent = match state.wire[step] {
                    Some(Call::Delete) => Phase::Undoing,
                    Some(Call::Create) | None => Phase::Intended,
                };
                unjournaled += u64::from(before.phase[step] != intent);
            }
            assert_eq!(state.violation(), None);
            counted |= (0..OWNERS).any(|owner| state.is_stale(owner));
        }
        taken_over += u64::from(counted);
    }
    let counted = format!(
        "the owners before tried {met} things after it: {facts} facts, {calls} calls; {unjournaled} calls without an intent"
    );
    sweep.end(taken_over, SEED, counted);
    assert_eq!((facts, calls, unjournaled), (0, 0, 0));
    assert!(met > 10_000, "the owners before were hardly alive");
}

/// Three steps, the second and third on the first.
fn plan(habits: [Habit; 3]) -> Plan {
    let base = step("step-0", habits[0], json!({}), &[]).unwrap();
    let needs = [base.name.clone()];
    let second = step("step-1", habits[1], json!({}), &needs).unwrap();
    let third = step("step-2", habits[2], json!({}), &needs).unwrap();
    generate::plan(vec![base, second, third]).unwrap()
}

/// What a real journal shows, in the words of the model; what the model does not tell apart is left out.
fn facts(story: &[Event]) -> Vec<Fact> {
    let number = |event: &Event| -> usize {
        event.step().and_then(|step| step.as_str().strip_prefix("step-")).unwrap().parse().unwrap()
    };
    story
        .iter()
        .filter_map(|event| match event {
            Event::StepIntended { .. } => Some(Fact::Intend(number(event))),
            Event::StepVerified { .. } => Some(Fact::Verify(number(event))),
            Event::UndoIntended { .. } => Some(Fact::UndoIntend(number(event))),
            Event::StepUndone { .. } => Some(Fact::Undone(number(event))),
            Event::OwnerChanged { .. } => Some(Fact::TakeOver),
            Event::DirectionSet { .. } => Some(Fact::TurnBack),
            Event::RunFinished { .. } => Some(Fact::Finish),
            _ => None,
        })
        .collect()
}

async fn story(plan: &Plan, crash: Option<Crash>, recovery: Recovery) -> Option<Vec<Event>> {
    let trial = Trial::new(&generate::habits().unwrap(), false).unwrap();
    let id = sweep::run_id().unwrap();
    if let Some(crash) = crash {
        sweep::arm(&trial, crash, 0);
    }
    let end = trial.run(&id, plan, OnFailure::Park).await.unwrap();
    if crash.is_some() && end != End::Died {
        return None;
    }
    trial.world.heal();
    trial.journal.revive();
    if crash.is_some() {
        let end = sweep::recover(&trial, &id, recovery).await.unwrap();
        assert!(matches!(end, End::Outcome(DriveOutcome::Finished(Ending::Done | Ending::RolledBack))), "{end:?}");
    }
    Some(trial.journal.story(&id).unwrap())
}

/// Proves that the model is one of the real engine: the journals of undisturbed, crashed, resumed and rolled-back runs are
/// accepted, and the same journals with any two neighbouring facts of one step exchanged, or an intent left out, are not.
#[tokio::test]
async fn the_journals_of_real_runs_are_accepted() {
    let sweep = Sweep::begin("journals of real runs held against the model");
    let (mut accepted, mut rejected) = (0, 0);
    for habits in [
        [Habit::Plain, Habit::Plain, Habit::Plain],
        [Habit::Slow, Habit::Anonymous, Habit::Token],
        [Habit::Token, Habit::SlowToken, Habit::Plain],
        [Habit::SlowToken, Habit::Secret, Habit::Slow],
        [Habit::Anonymous, Habit::Anonymous, Habit::Secret],
    ] {
        let plan = plan(habits);
        let calls = (1..=8).flat_map(|call| [Moment::Before, Moment::After].map(|moment| Crash::Call(call, moment)));
        let crashes: Vec<Option<Crash>> =
            std::iter::once(None).chain((2..30).map(Crash::Event).chain(calls).map(Some)).collect();
        for crash in crashes {
            for recovery in [Recovery::Forward, Recovery::Backward] {
                let Some(story) = story(&plan, crash, recovery).await else { continue };
                let facts = facts(&story);
                if let Err(at) = accepts(&facts) {
                    panic!("{habits:?}, {crash:?}, {recovery:?}: fact {at} of {facts:?} cannot be");
                }
                accepted += 1;
                for (at, fact) in facts.iter().enumerate() {
                    if matches!(fact, Fact::Intend(_) | Fact::UndoIntend(_))
                        && matches!(
                            facts.get(at + 1..).and_then(|rest| rest.iter().find(|other| same(fact, other))),
                            Some(Fact::Verify(_) | Fact::Undone(_))
                        )
                    {
                        let mut wrong = facts.clone();
                        wrong.remove(at);
                        assert!(accepts(&wrong).is_err(), "without its intent {at}: {facts:?}");
                        rejected += 1;
                    }
                }
            }
        }
    }
    sweep.end(accepted, "none", format_args!("accepted; {rejected} wrong ones rejected"));
    assert!(accepted > 100 && rejected > 100);
}

/// Facts of one step.
fn same(one: &Fact, other: &Fact) -> bool {
    let step = |fact: &Fact| match fact {
        Fact::Intend(step) | Fact::Verify(step) | Fact::UndoIntend(step) | Fact::Undone(step) => Some(*step),
        Fact::TakeOver | Fact::TurnBack | Fact::Finish => None,
    };
    step(one).is_some() && step(one) == step(other)
}
