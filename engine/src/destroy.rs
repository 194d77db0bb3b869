//! The plan of a destroy run: made from the environment's record alone, so that no runbook is needed to take down what
//! runbooks built.

use crate::journal::RecordedStep;
use crate::kind::Catalog;
use crate::name::{EnvironmentName, StepName, WorkflowName};
use crate::plan::{OnFailure, OutputLookup, Plan, PlannedStep, Resolve, ResolveError, Resolved};
use crate::step::UndoPlan;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A plan whose specs are the recorded ones. Edges to steps that are no longer on record are left out.
#[must_use]
pub fn plan(workflow: WorkflowName, environment: EnvironmentName, record: &[RecordedStep], catalog: &Catalog) -> Plan {
    let names: BTreeSet<&StepName> = record.iter().map(|step| &step.step).collect();
    let present = |list: &[StepName]| list.iter().filter(|name| names.contains(name)).cloned().collect::<Vec<_>>();
    let mut steps: Vec<PlannedStep> = record
        .iter()
        .map(|step| PlannedStep {
            name: step.step.clone(),
            kind: step.kind.clone(),
            spec: step.spec.clone(),
            when: None,
            needs: present(&step.needs),
            undo_after: present(&step.undo_after),
            undo: match &step.undo {
                UndoPlan::With { step } if !names.contains(step) => UndoPlan::Own,
                other => other.clone(),
            },
            timeout: None,
            retry_for: None,
            expected: catalog.description(&step.kind).map_or(Duration::from_secs(5), |kind| kind.expected),
            description: None,
        })
        .collect();
    steps.sort_by(|one, other| one.name.cmp(&other.name));
    Plan { workflow, environment, parameters: BTreeMap::new(), steps, on_failure: OnFailure::Park, only: None }
}

/// Resolves plans whose specs are literal: destroy runs, and tests of the engine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Literal;

impl Resolve for Literal {
    fn resolve(&self, _plan: &Plan, step: &PlannedStep, _known: &dyn OutputLookup) -> Result<Resolved, ResolveError> {
        Ok(Resolved::Spec(step.spec.clone()))
    }
}
