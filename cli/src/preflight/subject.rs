//! What the checks are told: the plan's specs as far as they are known before anything is built. Pure.
//!
//! A spec is evaluated as a whole where everything it refers to is on record, and part by part where it is not: what only
//! a step will know stays null.

use crate::connection::Connection;
use crate::failure::CommandError;
use crate::key_places;
use crate::target::Target;
use platflow_engine::graph::Graph;
use platflow_engine::journal::{EnvironmentRow, RecordedStep};
use platflow_engine::name::StepName;
use platflow_engine::plan::{OnFailure, OutputLookup, Plan, PlannedStep, Resolve, Resolved};
use platflow_steps::preflight::{Subject, SubjectStep};
use platflow_workflows::Resolver;
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// A run that finds everything built only looks.
const LOOKING: Duration = Duration::from_secs(10 * 60);

/// Outputs on record, by step.
struct Recorded<'a>(HashMap<&'a StepName, &'a RecordedStep>);

impl OutputLookup for Recorded<'_> {
    fn outputs(&self, step: &StepName) -> Option<&Value> {
        self.0.get(step)?.outputs.as_ref()
    }

    fn skipped(&self, _step: &StepName) -> bool {
        false
    }
}

/// Evaluates what can be evaluated; the rest is null, and its places are noted.
struct Parts<'a> {
    plan: &'a Plan,
    step: &'a PlannedStep,
    known: &'a Recorded<'a>,
    unknown: BTreeSet<String>,
}

impl Parts<'_> {
    fn of(&mut self, template: &Value, at: &str) -> Value {
        let probe = PlannedStep { spec: template.clone(), when: None, ..self.step.clone() };
        if let Ok(Resolved::Spec(spec)) = Resolver.resolve(self.plan, &probe, self.known) {
            return spec;
        }
        match template {
            Value::Object(fields) => {
                fields.iter().map(|(name, inner)| (name.clone(), self.of(inner, &format!("{at}/{name}")))).collect()
            }
            Value::Array(items) => {
                (0..).zip(items).map(|(index, inner): (usize, _)| self.of(inner, &format!("{at}/{index}"))).collect()
            }
            _ => {
                self.unknown.insert(at.to_owned());
                Value::Null
            }
        }
    }
}

fn is_skipped(plan: &Plan, step: &PlannedStep, known: &Recorded<'_>) -> bool {
    let probe = PlannedStep { spec: Value::Null, ..step.clone() };
    matches!(Resolver.resolve(plan, &probe, known), Ok(Resolved::Skip { .. }))
}

fn expected(plan: &Plan, known: &Recorded<'_>) -> Result<Duration, CommandError> {
    if plan.steps.iter().all(|step| known.outputs(&step.name).is_some()) {
        return Ok(LOOKING);
    }
    let graph = Graph::new(&Arc::new(plan.clone())).map_err(|error| CommandError::usage(error.to_string()))?;
    let all = graph.layers().into_values().flatten();
    Ok(all.map(|index| graph.remaining(index)).max().unwrap_or_default())
}

/// A plan as the checks are told of it.
///
/// # Errors
/// A plan that is no graph.
pub(super) fn of(
    plan: &Plan,
    record: &[RecordedStep],
    row: Option<&EnvironmentRow>,
    connection: &Connection,
) -> Result<Subject, CommandError> {
    let known = Recorded(record.iter().map(|step| (&step.step, step)).collect());
    let steps = plan.steps.iter().filter(|step| !is_skipped(plan, step, &known)).map(|step| {
        let mut parts = Parts { plan, step, known: &known, unknown: BTreeSet::new() };
        SubjectStep {
            name: step.name.to_string(),
            kind: step.kind.to_string(),
            spec: parts.of(&step.spec, ""),
            unknown: parts.unknown,
            outputs: known.outputs(&step.name).cloned(),
            needs: step.needs.iter().map(ToString::to_string).collect(),
        }
    });
    let names = [plan.workflow.as_str(), plan.environment.as_str()];
    Ok(Subject {
        workflow: plan.workflow.to_string(),
        environment: plan.environment.to_string(),
        environment_uid: row.map(|row| row.uid.to_string()),
        production: names.into_iter().any(key_places::is_production),
        sandbox: matches!(connection.target, Target::Sandbox { .. }),
        now: connection.clock.now(),
        expected: expected(plan, &known)?,
        on_failure: plan.on_failure,
        steps: steps.collect(),
    })
}

/// No run at all: what is left to check is the machine and the account.
pub(super) fn of_nothing(connection: Option<&Connection>) -> Subject {
    Subject {
        workflow: String::new(),
        environment: String::new(),
        environment_uid: None,
        production: false,
        sandbox: connection.is_none_or(|connection| matches!(connection.target, Target::Sandbox { .. })),
        now: connection.map_or(jiff::Timestamp::UNIX_EPOCH, |connection| connection.clock.now()),
        expected: Duration::ZERO,
        on_failure: OnFailure::Park,
        steps: Vec::new(),
    }
}
