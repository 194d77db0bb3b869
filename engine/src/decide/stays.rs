//! What a rollback does not touch: what is kept, with all that it stands on, and what lies before the step it goes back to.
//!
//! Pure functions of the folded run: every owner that goes on with a rollback comes to the same.

use crate::event::Direction;
use crate::fold::Run;
use crate::graph::StepIndex;
use crate::name::StepName;
use crate::step::UndoPlan;

/// True for what a rollback to a step leaves alone: that step and what came before it. All false for a whole rollback.
///
/// After it came what was first intended once it stood, and whatever depends on something that goes. Both are on record
/// and stay as they are while the rollback is under way.
pub(super) fn left_alone(run: &Run) -> Vec<bool> {
    let target = match &run.state.direction {
        Direction::Backward { to: Some(to), .. } => run.graph.find(to),
        Direction::Backward { to: None, .. } | Direction::Forward => None,
    };
    let Some(target) = target else { return vec![false; run.graph.len()] };
    let stood = run.at(target).and_then(|state| state.changed_at);
    let mut under: Vec<bool> = vec![false; run.graph.len()];
    let mut open = vec![target];
    while let Some(at) = open.pop() {
        if let Some(flag) = under.get_mut(at as usize)
            && !std::mem::replace(flag, true)
        {
            open.extend(run.graph.needs(at));
        }
    }
    let mut goes: Vec<bool> = run
        .graph
        .indices()
        .zip(under)
        .map(|(index, under)| {
            let began = run.at(index).and_then(|state| state.intended_at);
            !under && began.is_some_and(|began| stood.is_none_or(|stood| began > stood))
        })
        .collect();
    let mut open: Vec<StepIndex> =
        run.graph.indices().filter(|index| goes.get(*index as usize) == Some(&true)).collect();
    open.push(target);
    while let Some(at) = open.pop() {
        for next in run.graph.needed_by(at) {
            if let Some(flag) = goes.get_mut(*next as usize)
                && !std::mem::replace(flag, true)
            {
                open.push(*next);
            }
        }
    }
    goes.into_iter().map(|goes| !goes).collect()
}

/// Everything that stays: declared or asked for, with all that it depends on, and what this run never changed.
pub(super) fn kept(run: &Run) -> Vec<Option<String>> {
    let mut kept: Vec<Option<String>> = vec![None; run.graph.len()];
    let asked: &[StepName] = match &run.state.direction {
        Direction::Backward { keep, .. } => keep,
        Direction::Forward => &[],
    };
    let mut open = Vec::new();
    for index in run.graph.indices() {
        let (Some(step), Some(state)) = (run.graph.step(index), run.at(index)) else { continue };
        let reason = if asked.contains(&step.name) {
            Some("the operator keeps it".to_owned())
        } else if step.undo == UndoPlan::Keep && state.touched() {
            Some("the runbook keeps it".to_owned())
        } else {
            None
        };
        if let Some(reason) = reason
            && let Some(slot) = kept.get_mut(index as usize)
        {
            *slot = Some(reason);
            open.push(index);
        }
    }
    while let Some(index) = open.pop() {
        let name = run.graph.step(index).map(|step| step.name.to_string()).unwrap_or_default();
        for need in run.graph.needs(index) {
            if let Some(slot) = kept.get_mut(*need as usize)
                && slot.is_none()
            {
                *slot = Some(format!("{name} is kept and depends on it"));
                open.push(*need);
            }
        }
    }
    kept
}
