//! Which steps a repair acts on: what drifted in our own fields and resources, and what stands on what must be made again.
//!
//! Pure. Extras, strangers, replacements and data are no repair: they are for whoever looks at the findings.

use super::{Deviation, Drifted};
use platflow_engine::name::StepName;
use platflow_engine::plan::Plan;
use std::collections::BTreeSet;

/// What a repair would do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Repair {
    /// The steps to act on.
    pub(crate) chosen: BTreeSet<StepName>,
    /// Findings that a repair leaves alone, with why.
    pub(crate) left: Vec<String>,
}

fn reason(one: &Drifted, plan: &Plan) -> Option<&'static str> {
    let planned = |step: &StepName| plan.steps.iter().any(|other| other.name == *step);
    match &one.deviation {
        Deviation::Extra { .. } => Some("nobody's but its owner's: remove it with its own tools"),
        Deviation::Foreign { .. } => Some("it belongs to somebody else"),
        Deviation::Unhealthy { .. } => Some("it is as wanted; the cloud says what is wrong with it"),
        Deviation::Changed { replace: true, .. } => Some("only replacement would set it right"),
        Deviation::Changed { .. } | Deviation::Missing if !one.step.as_ref().is_some_and(planned) => {
            Some("its step is no longer in the runbook that was run last")
        }
        Deviation::Changed { .. } | Deviation::Missing => None,
    }
}

/// Chooses. What stands on something that is made again refers to it by ids that change.
pub(crate) fn repair(findings: &[Drifted], plan: &Plan) -> Repair {
    let mut repair = Repair::default();
    let mut again: Vec<StepName> = Vec::new();
    for one in findings {
        if let Some(reason) = reason(one, plan) {
            repair.left.push(format!("{} {} {}: {reason}", one.id, one.word(), one.subject()));
        } else if let Some(step) = &one.step {
            repair.chosen.insert(step.clone());
            if one.deviation == Deviation::Missing {
                again.push(step.clone());
            }
        }
    }
    let mut standing: BTreeSet<StepName> = BTreeSet::new();
    while let Some(step) = again.pop() {
        for other in plan.steps.iter().filter(|other| other.needs.contains(&step)) {
            if standing.insert(other.name.clone()) {
                again.push(other.name.clone());
            }
        }
    }
    repair.chosen.extend(standing);
    repair
}

#[cfg(test)]
mod tests {
    use super::*;
    use platflow_engine::model::generate;
    use platflow_engine::model::kinds::Habit;
    use serde_json::json;

    fn name(text: &str) -> StepName {
        StepName::new(text).expect("a name")
    }

    fn changed(step: &str, replace: bool) -> Drifted {
        let deviation = Deviation::Changed { field: "/size".to_owned(), recorded: json!(1), found: json!(2), replace };
        Drifted::of_step(&name(step), "model.plain", deviation)
    }

    /// Proves that a changed step is repaired alone, a missing one with all that stands on it, and that what is not ours to
    /// repair is named and left.
    #[test]
    fn a_repair_takes_what_drifted_and_what_stands_on_the_missing() {
        let step = |text: &str, needs: &[&str]| {
            let needs: Vec<StepName> = needs.iter().map(|need| name(need)).collect();
            generate::step(text, Habit::Plain, json!({}), &needs).expect("a step")
        };
        let steps = vec![step("a", &[]), step("b", &["a"]), step("c", &["b"]), step("d", &["a"]), step("e", &["d"])];
        let plan = generate::plan(steps).expect("a plan");
        assert_eq!(repair(&[changed("a", false)], &plan).chosen, [name("a")].into());
        let missing = Drifted::of_step(&name("b"), "model.plain", Deviation::Missing);
        let all = [
            missing,
            changed("e", false),
            changed("d", true),
            changed("gone", false),
            Drifted::extra("ec2:subnet", "subnet-1", "vpc-1", "nobody"),
        ];
        let repair = repair(&all, &plan);
        assert_eq!(repair.chosen, [name("b"), name("c"), name("e")].into());
        assert_eq!(repair.left.len(), 3, "{:?}", repair.left);
    }
}
