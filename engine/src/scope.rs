//! Which steps a run acts on when its plan names some, which it only looks at, and which it passes over.
//!
//! Pure function of the plan: every owner that goes on with the run comes to the same. Whether a choice makes sense is
//! told before the run begins, by whoever made the plan, from the same parts.

use crate::failure::{Residue, StepError};
use crate::graph::{Graph, StepIndex};
use crate::name::{RunId, StepName};
use crate::plan::Plan;

/// What a run does with a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Makes it so.
    Act,
    /// Something acted on needs it: looks, takes its outputs, and leaves it as it is.
    Look,
    /// Nothing acted on needs it.
    Pass,
}

/// The part of every step of a plan.
#[derive(Debug)]
pub struct Scope(Option<Vec<Part>>);

impl Scope {
    /// Of a plan and its graph.
    #[must_use]
    pub fn of(plan: &Plan, graph: &Graph) -> Self {
        let Some(only) = &plan.only else { return Self(None) };
        let mut parts = vec![Part::Pass; graph.len()];
        let mut open: Vec<StepIndex> = Vec::new();
        for index in only.iter().filter_map(|name| graph.find(name)) {
            if let Some(part) = parts.get_mut(index as usize) {
                *part = Part::Act;
            }
            open.extend(graph.needs(index));
        }
        while let Some(index) = open.pop() {
            if let Some(part) = parts.get_mut(index as usize)
                && *part == Part::Pass
            {
                *part = Part::Look;
                open.extend(graph.needs(index));
            }
        }
        Self(Some(parts))
    }

    /// What is done with a step.
    #[must_use]
    pub fn part(&self, index: StepIndex) -> Part {
        match &self.0 {
            None => Part::Act,
            Some(parts) => parts.get(index as usize).copied().unwrap_or(Part::Pass),
        }
    }
}

/// What is needed is not there, and was not chosen to be made. A run keeps to its choice, so going on with it does not help.
pub(crate) fn missing(step: &StepName, run: &RunId) -> StepError {
    StepError::needs_human(format!(
        "{step} does not exist, is needed, and is not among the steps that this run acts on"
    ))
    .leaving(Residue::None)
    .with_code("NotChosen")
    .with_remedy(format!(
        "take this run back with: platflow rollback {run}\nthen choose it as well (--only {step}), or run the whole runbook"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::generate;
    use crate::model::kinds::Habit;
    use serde_json::json;
    use std::sync::Arc;

    /// Proves that a chosen step is acted on, all it stands on looked at, even when a chosen one lies in between, and
    /// everything else passed over.
    #[test]
    fn what_is_needed_is_looked_at_and_the_rest_passed_over() {
        let name = |text: &str| StepName::new(text).unwrap();
        let step = |text: &str, needs: &[&str]| {
            let needs: Vec<StepName> = needs.iter().map(|need| name(need)).collect();
            generate::step(text, Habit::Plain, json!({}), &needs).unwrap()
        };
        let steps = vec![
            step("a", &[]),
            step("b", &["a"]),
            step("c", &["b"]),
            step("d", &["c"]),
            step("e", &["b"]),
            step("f", &[]),
        ];
        let mut plan = generate::plan(steps).unwrap();
        let graph = Graph::new(&Arc::new(plan.clone())).unwrap();
        let parts = |plan: &Plan| -> Vec<Part> {
            let scope = Scope::of(plan, &graph);
            graph.indices().map(|index| scope.part(index)).collect()
        };
        assert_eq!(parts(&plan), [Part::Act; 6]);
        plan.only = Some([name("b"), name("d")].into());
        assert_eq!(parts(&plan), [Part::Look, Part::Act, Part::Look, Part::Act, Part::Pass, Part::Pass]);
        plan.only = Some([].into());
        assert_eq!(parts(&plan), [Part::Pass; 6]);
    }
}
