//! Which steps `--only` and `--except` leave to act on, and what that means for the others.
//!
//! Pure. The engine keeps to the choice; here it is checked and told before anything begins.

use crate::failure::CommandError;
use platflow_engine::graph::Graph;
use platflow_engine::journal::RecordedStep;
use platflow_engine::name::StepName;
use platflow_engine::plan::Plan;
use platflow_engine::scope::{Part, Scope};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A step by its name, or every step of a module by the module's.
fn named<'a>(plan: &'a Plan, text: &str) -> Vec<&'a StepName> {
    let inside = |name: &StepName| name.as_str().strip_prefix(text).is_some_and(|rest| rest.starts_with(['.', '[']));
    plan.steps.iter().map(|step| &step.name).filter(|name| name.as_str() == text || inside(name)).collect()
}

/// The steps to act on; nothing when neither option was given.
///
/// # Errors
/// Exit 2 for a name that is neither a step nor a module of the runbook.
pub(crate) fn of(plan: &Plan, only: &[String], except: &[String]) -> Result<Option<BTreeSet<StepName>>, CommandError> {
    if only.is_empty() && except.is_empty() {
        return Ok(None);
    }
    let mut meant: BTreeSet<StepName> = BTreeSet::new();
    for text in only.iter().chain(except) {
        let found = named(plan, text);
        if found.is_empty() {
            return Err(CommandError::usage(format!("{} has neither a step nor a module {text}", plan.workflow))
                .with_remedy(format!("see its steps with: platflow graph {}", plan.workflow)));
        }
        meant.extend(found.into_iter().cloned());
    }
    if except.is_empty() {
        return Ok(Some(meant));
    }
    Ok(Some(plan.steps.iter().map(|step| step.name.clone()).filter(|name| !meant.contains(name)).collect()))
}

/// Steps that may be left out by a condition, their own or that of something they need: these need not be on record.
fn conditional(plan: &Plan) -> BTreeSet<&StepName> {
    let mut found: BTreeSet<&StepName> = BTreeSet::new();
    loop {
        let more = plan
            .steps
            .iter()
            .filter(|step| !found.contains(&step.name))
            .filter(|step| step.when.is_some() || step.needs.iter().any(|need| found.contains(need)));
        let more: Vec<&StepName> = more.map(|step| &step.name).collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

/// What a choice means, in words.
///
/// # Errors
/// Exit 2 when something chosen needs what is neither chosen nor on record.
pub(crate) fn consequence(plan: &Plan, record: &[RecordedStep]) -> Result<String, CommandError> {
    let Some(only) = &plan.only else { return Ok(String::new()) };
    let graph = Graph::new(&Arc::new(plan.clone())).map_err(|error| CommandError::usage(error.to_string()))?;
    let scope = Scope::of(plan, &graph);
    let of_part = |part: Part| {
        let indices = graph.indices().filter(|index| scope.part(*index) == part);
        indices.filter_map(|index| graph.step(index)).map(|step| &step.name).collect::<BTreeSet<&StepName>>()
    };
    let (looked_at, passed) = (of_part(Part::Look), of_part(Part::Pass).len());
    let conditional = conditional(plan);
    let unbuilt: Vec<&str> = looked_at
        .iter()
        .filter(|name| !record.iter().any(|row| row.step == ***name) && !conditional.contains(**name))
        .map(|name| name.as_str())
        .collect();
    if !unbuilt.is_empty() {
        return Err(CommandError::usage(format!(
            "what was chosen needs steps that are neither chosen nor built: {}; nothing was done",
            unbuilt.join(", ")
        ))
        .with_remedy("choose them as well, or run the whole runbook first"));
    }
    let behind: Vec<&str> = plan
        .steps
        .iter()
        .filter(|step| !only.contains(&step.name) && step.needs.iter().any(|need| only.contains(need)))
        .map(|step| step.name.as_str())
        .collect();
    let mut text =
        format!("acting on {} steps; looking at {} that they need; passing over {passed}", only.len(), looked_at.len());
    if !behind.is_empty() {
        text.push_str(&format!(
            "\nif ids change, these are left behind until the next whole run: {}",
            behind.join(", ")
        ));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use platflow_engine::model::generate;
    use platflow_engine::model::kinds::Habit;
    use serde_json::json;

    fn plan() -> Plan {
        let step = |text: &str, needs: &[&str]| {
            let needs: Vec<StepName> = needs.iter().map(|need| StepName::new(*need).expect("a name")).collect();
            generate::step(text, Habit::Plain, json!({}), &needs).expect("a step")
        };
        generate::plan(vec![
            step("network.vpc", &[]),
            step("network.subnet", &["network.vpc"]),
            step("networking", &[]),
            step("cluster", &["network.subnet"]),
        ])
        .expect("a plan")
    }

    fn texts(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// Proves that a module means its steps and no other whose name begins alike, that the options are each other's
    /// opposite, and that a wrong name is refused.
    #[test]
    fn modules_steps_and_their_opposite() {
        let names = |only: &[&str], except: &[&str]| {
            let chosen = of(&plan(), &texts(only), &texts(except)).expect("names of the plan");
            chosen.map(|names| names.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(names(&[], &[]), None);
        assert_eq!(names(&["network"], &[]), Some(texts(&["network.subnet", "network.vpc"])));
        assert_eq!(names(&[], &["network"]), Some(texts(&["cluster", "networking"])));
        assert_eq!(names(&["cluster"], &[]), Some(texts(&["cluster"])));
        assert!(of(&plan(), &texts(&["net"]), &[]).is_err());
    }

    /// Proves that what is chosen cannot stand on what was never built, and that the rest is counted and named.
    #[test]
    fn a_choice_tells_what_it_leaves_behind() {
        let mut plan = plan();
        plan.only = of(&plan, &texts(&["network.subnet"]), &[]).expect("a step");
        assert!(consequence(&plan, &[]).is_err());
        plan.only = of(&plan, &texts(&["network"]), &[]).expect("a module");
        let text = consequence(&plan, &[]).expect("nothing is needed");
        assert!(text.starts_with("acting on 2 steps; looking at 0 that they need; passing over 2"), "{text}");
        assert!(text.ends_with("the next whole run: cluster"), "{text}");
    }
}
