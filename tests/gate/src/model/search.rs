//! Visits every state of the model that can be reached: is each safe, and does a way lead from each to an end?
//!
//! Breadth first, so that the way to a violation is a shortest one.

use super::{Action, Rules, State};
use std::collections::{HashMap, HashSet, VecDeque};

/// What a search of every reachable state came to.
#[derive(Debug)]
pub struct Explored {
    pub states: usize,
    pub transitions: usize,
    /// The first violation, with the shortest way to it.
    pub violation: Option<(&'static str, Vec<Action>)>,
    /// States from which no way leads to an end.
    pub hopeless: usize,
}

/// Visits every state that can be reached.
#[must_use]
pub fn explore(first: State, rules: Rules) -> Explored {
    let mut number: HashMap<State, usize> = HashMap::from([(first, 0)]);
    let mut way: Vec<Option<(usize, Action)>> = vec![None];
    let mut into: Vec<Vec<usize>> = vec![Vec::new()];
    let mut open = VecDeque::from([first]);
    let (mut transitions, mut violation, mut ends) = (0, None, Vec::new());
    while let Some(state) = open.pop_front() {
        let at = number.get(&state).copied().unwrap_or_default();
        if let Some(what) = state.violation() {
            let back = |place: &usize| way.get(*place).copied().flatten().map(|(before, _)| before);
            let mut actions: Vec<Action> = std::iter::successors(Some(at), back)
                .filter_map(|place| way.get(place).copied().flatten().map(|(_, action)| action))
                .collect();
            actions.reverse();
            violation = Some((what, actions));
            break;
        }
        if state.is_final() {
            ends.push(at);
        }
        for action in state.actions(rules) {
            let Some(next) = state.after(action, rules) else { continue };
            transitions += 1;
            let fresh = number.len();
            let to = *number.entry(next).or_insert(fresh);
            if to == fresh {
                way.push(Some((at, action)));
                into.push(Vec::new());
                open.push_back(next);
            }
            if let Some(from) = into.get_mut(to) {
                from.push(at);
            }
        }
    }
    let mut hopeful: HashSet<usize> = ends.iter().copied().collect();
    while let Some(at) = ends.pop() {
        ends.extend(into.get(at).into_iter().flatten().copied().filter(|from| hopeful.insert(*from)));
    }
    Explored { states: number.len(), transitions, violation, hopeless: number.len() - hopeful.len() }
}
