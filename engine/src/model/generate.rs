//! Plans made from a seed: the same seed, the same plan.

use crate::model::kinds::Habit;
use crate::model::sweep::Subject;
use crate::name::{EnvironmentName, InvalidName, KindName, StepName, WorkflowName};
use crate::plan::{OnFailure, Plan, PlannedStep};
use crate::step::UndoPlan;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// A step of the model.
///
/// # Errors
/// When a name is malformed.
pub fn step(name: &str, habit: Habit, spec: Value, needs: &[StepName]) -> Result<PlannedStep, InvalidName> {
    Ok(PlannedStep {
        name: StepName::new(name)?,
        kind: KindName::new(habit.kind())?,
        spec,
        when: None,
        needs: needs.to_vec(),
        undo_after: Vec::new(),
        undo: UndoPlan::Own,
        timeout: None,
        retry_for: None,
        expected: Duration::from_secs(1),
        description: None,
    })
}

/// A plan of these steps.
///
/// # Errors
/// Never, as the names in here are well-formed.
pub fn plan(mut steps: Vec<PlannedStep>) -> Result<Plan, InvalidName> {
    steps.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(Plan {
        workflow: WorkflowName::new("model")?,
        environment: EnvironmentName::new("model")?,
        parameters: BTreeMap::new(),
        steps,
        on_failure: OnFailure::Park,
        only: None,
    })
}

/// Every habit under its own kind name.
///
/// # Errors
/// Never, as the names in here are well-formed.
pub fn habits() -> Result<BTreeMap<KindName, Habit>, InvalidName> {
    Habit::ALL.into_iter().map(|habit| Ok((KindName::new(habit.kind())?, habit))).collect()
}

/// A plan of up to `most` steps with random dependencies and habits, on top of an environment in which an earlier run
/// built a part of it: some of that is as wanted, some differs, some has vanished.
///
/// # Errors
/// Never, as the names in here are well-formed.
pub fn subject(seed: u64, most: u32) -> Result<Subject, InvalidName> {
    let mut random = StdRng::seed_from_u64(seed);
    let count = random.random_range(1..=most.max(1));
    let (mut steps, mut earlier, mut vanished): (Vec<PlannedStep>, Vec<PlannedStep>, Vec<StepName>) =
        Default::default();
    let with_earlier = random.random_bool(0.5);
    for number in 0..count {
        let needs: Vec<StepName> =
            steps.iter().filter(|_| random.random_bool(0.3)).map(|step| step.name.clone()).collect();
        let habit = match random.random_range(0..6) {
            0 => Habit::Plain,
            1 => Habit::Slow,
            2 => Habit::Anonymous,
            3 => Habit::Token,
            4 => Habit::SlowToken,
            _ => Habit::Secret,
        };
        let mut made = step(&format!("group.step-{number}"), habit, json!({ "size": number, "zone": "a" }), &needs)?;
        if let Some(with) = needs.first().filter(|_| random.random_bool(0.2)) {
            made.undo = UndoPlan::With { step: with.clone() };
        }
        // Something earlier that must not go before this does, though this does not need it.
        if random.random_bool(0.2) && number > 0 {
            let other = random.random_range(0..steps.len());
            if let Some(other) = steps.get_mut(other).filter(|other| !needs.contains(&other.name)) {
                other.undo_after.push(made.name.clone());
            }
        }
        let built = needs.iter().all(|need| earlier.iter().any(|step| step.name == *need));
        if with_earlier && built && random.random_bool(0.6) {
            let mut before = made.clone();
            if random.random_bool(0.4) {
                before.spec = json!({ "size": 100 + number, "zone": "a" });
            } else if random.random_bool(0.2) {
                vanished.push(made.name.clone());
            }
            earlier.push(before);
        }
        steps.push(made);
    }
    // Nothing can stand on what has vanished.
    vanished.retain(|name| !earlier.iter().any(|step| step.needs.contains(name)));
    let earlier = if earlier.is_empty() { None } else { Some(plan(earlier)?) };
    Ok(Subject { plan: plan(steps)?, earlier, vanished, habits: habits()? })
}
