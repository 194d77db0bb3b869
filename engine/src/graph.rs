//! The validated graph of a plan: names to indices once, then plain counters.
//!
//! Execution uses compressed adjacency only; petgraph finds the path of a cycle, where there is one. Indices never leave
//! the process: everything durable is keyed by step name.

mod rows;

use crate::name::StepName;
use crate::plan::{Plan, PlannedStep};
use crate::step::UndoPlan;
use petgraph::graph::{DiGraph, NodeIndex};
use rows::Rows;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// A step's place in the graph of this process.
pub type StepIndex = u32;

/// Why a plan is no graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// Two steps of one name.
    #[error("step {0} is there twice")]
    Duplicate(StepName),
    /// A dependency on a step that does not exist.
    #[error("step {step} refers to {missing}, which does not exist")]
    Unknown {
        /// Who refers.
        step: StepName,
        /// To whom.
        missing: StepName,
    },
    /// A cycle, shown as its path; the first name is repeated at the end.
    #[error("the steps depend on each other in a circle: {}", path.iter().map(StepName::as_str).collect::<Vec<_>>().join(" -> "))]
    Cycle {
        /// The path.
        path: Vec<StepName>,
    },
}

/// The graph.
#[derive(Debug, Clone)]
pub struct Graph {
    plan: Arc<Plan>,
    index: HashMap<StepName, StepIndex>,
    needs: Rows,
    needed_by: Rows,
    undo_before: Rows,
    undo_after: Rows,
    taken_along: Rows,
    remaining: Vec<Duration>,
    backward: Vec<Duration>,
}

fn cycle_path(graph: &DiGraph<(), ()>, start: NodeIndex) -> Vec<NodeIndex> {
    // Walk inside the strongly connected component that holds `start`; the first repeated node closes the cycle.
    let component =
        petgraph::algo::tarjan_scc(graph).into_iter().find(|component| component.contains(&start)).unwrap_or_default();
    let mut path = vec![start];
    let mut at = start;
    loop {
        let Some(next) = graph.neighbors(at).find(|next| component.contains(next)) else { return path };
        if let Some(first) = path.iter().position(|seen| *seen == next) {
            let mut cycle = path.split_off(first);
            cycle.push(next);
            return cycle;
        }
        path.push(next);
        at = next;
    }
}

/// An order in which every step stands before what its row names. petgraph is asked only where there is none.
fn check_acyclic(edges: &Rows, inverted: &Rows, steps: &[PlannedStep]) -> Result<Vec<StepIndex>, GraphError> {
    let order = edges.order(inverted);
    if order.len() == steps.len() {
        return Ok(order);
    }
    let mut graph = DiGraph::<(), ()>::with_capacity(steps.len(), steps.len());
    for _ in steps {
        graph.add_node(());
    }
    for from in 0..u32::try_from(steps.len()).unwrap_or(u32::MAX) {
        for to in edges.row(from) {
            graph.add_edge(NodeIndex::new(from as usize), NodeIndex::new(*to as usize), ());
        }
    }
    let path = match petgraph::algo::toposort(&graph, None) {
        Ok(_) => Vec::new(),
        Err(cycle) => cycle_path(&graph, cycle.node_id()),
    };
    let names = path.iter().filter_map(|node| steps.get(node.index())).map(|step| step.name.clone()).collect();
    Err(GraphError::Cycle { path: names })
}

/// The rows of both, each sorted and without repetitions.
fn joined(one: &Rows, other: &Rows) -> Rows {
    let mut joined = Rows::with_room(one.len());
    for at in 0..u32::try_from(one.len()).unwrap_or(u32::MAX) {
        let mut row = [one.row(at), other.row(at)].concat();
        row.sort_unstable();
        row.dedup();
        row.into_iter().for_each(|target| joined.push(target));
        joined.end_row();
    }
    joined
}

fn longest(order: impl Iterator<Item = StepIndex>, next: &Rows, steps: &[PlannedStep]) -> Vec<Duration> {
    let mut length = vec![Duration::ZERO; steps.len()];
    for at in order {
        let beyond =
            next.row(at).iter().filter_map(|other| length.get(*other as usize)).max().copied().unwrap_or_default();
        let own = steps.get(at as usize).map(|step| step.expected).unwrap_or_default();
        if let Some(slot) = length.get_mut(at as usize) {
            *slot = beyond + own;
        }
    }
    length
}

impl Graph {
    /// Checks a plan and builds its graph.
    ///
    /// # Errors
    /// [`GraphError`] names the step, and a cycle by its path.
    pub fn new(plan: &Arc<Plan>) -> Result<Self, GraphError> {
        let steps = &plan.steps;
        let mut index = HashMap::with_capacity(steps.len());
        for (at, step) in steps.iter().enumerate() {
            if index.insert(step.name.clone(), u32::try_from(at).unwrap_or(u32::MAX)).is_some() {
                return Err(GraphError::Duplicate(step.name.clone()));
            }
        }
        let find = |step: &StepName, other: &StepName| {
            index.get(other).copied().ok_or_else(|| GraphError::Unknown { step: step.clone(), missing: other.clone() })
        };
        let (mut needs, mut extra) = (Rows::with_room(steps.len()), Rows::with_room(steps.len()));
        let mut along = Vec::new();
        for (at, step) in (0..).zip(steps) {
            for other in &step.needs {
                needs.push(find(&step.name, other)?);
            }
            needs.end_row();
            for other in &step.undo_after {
                extra.push(find(&step.name, other)?);
            }
            extra.end_row();
            if let UndoPlan::With { step: other } = &step.undo {
                along.push((find(&step.name, other)?, at));
            }
        }
        let needed_by = needs.inverted();
        let order = check_acyclic(&needs, &needed_by, steps)?;
        // Undo order: a step waits for everything that needs it, and for its teardown edges.
        let teardown = steps.iter().any(|step| !step.undo_after.is_empty());
        let waits = if teardown { joined(&needed_by, &extra) } else { needed_by.clone() };
        let undo_before = waits.inverted();
        // Without teardown edges it is the order of doing, backward.
        let undo_order =
            if teardown { check_acyclic(&waits, &undo_before, steps)? } else { order.iter().rev().copied().collect() };
        let remaining = longest(order.iter().copied(), &needed_by, steps);
        let backward = longest(undo_order.iter().copied(), &undo_before, steps);
        Ok(Self {
            plan: Arc::clone(plan),
            index,
            needs,
            needed_by,
            undo_before,
            undo_after: waits,
            taken_along: Rows::of_pairs(steps.len(), along.into_iter()),
            remaining,
            backward,
        })
    }

    /// Number of steps.
    #[must_use]
    pub fn len(&self) -> usize {
        self.plan.steps.len()
    }

    /// True for a plan without steps.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.plan.steps.is_empty()
    }

    /// Every index.
    pub fn indices(&self) -> impl Iterator<Item = StepIndex> + use<> {
        0..u32::try_from(self.plan.steps.len()).unwrap_or(u32::MAX)
    }

    /// The index of a name.
    #[must_use]
    pub fn find(&self, name: &StepName) -> Option<StepIndex> {
        self.index.get(name).copied()
    }

    /// A step.
    #[must_use]
    pub fn step(&self, index: StepIndex) -> Option<&PlannedStep> {
        self.plan.steps.get(index as usize)
    }

    /// What it needs.
    #[must_use]
    pub fn needs(&self, index: StepIndex) -> &[StepIndex] {
        self.needs.row(index)
    }

    /// What needs it.
    #[must_use]
    pub fn needed_by(&self, index: StepIndex) -> &[StepIndex] {
        self.needed_by.row(index)
    }

    /// What must be undone before it is: everything that needs it, and its teardown edges.
    #[must_use]
    pub fn undone_before(&self, index: StepIndex) -> &[StepIndex] {
        self.undo_after.row(index)
    }

    /// What its undo releases.
    #[must_use]
    pub fn undo_releases(&self, index: StepIndex) -> &[StepIndex] {
        self.undo_before.row(index)
    }

    /// True when `first` must be undone before `other` is.
    #[must_use]
    pub fn undone_earlier(&self, first: StepIndex, other: StepIndex) -> bool {
        let mut seen = vec![false; self.plan.steps.len()];
        let mut open = vec![first];
        while let Some(at) = open.pop() {
            for next in self.undo_releases(at) {
                if *next == other {
                    return true;
                }
                if let Some(flag) = seen.get_mut(*next as usize)
                    && !std::mem::replace(flag, true)
                {
                    open.push(*next);
                }
            }
        }
        false
    }

    /// Steps that are gone when this one is.
    #[must_use]
    pub fn taken_along(&self, index: StepIndex) -> &[StepIndex] {
        self.taken_along.row(index)
    }

    /// The expected length of the longest path from this step's start to the end of the run.
    #[must_use]
    pub fn remaining(&self, index: StepIndex) -> Duration {
        self.remaining.get(index as usize).copied().unwrap_or_default()
    }

    /// The same for undoing.
    #[must_use]
    pub fn remaining_backward(&self, index: StepIndex) -> Duration {
        self.backward.get(index as usize).copied().unwrap_or_default()
    }

    /// Steps by layer of execution, for display.
    #[must_use]
    pub fn layers(&self) -> BTreeMap<usize, Vec<StepIndex>> {
        let mut depth = vec![0_usize; self.plan.steps.len()];
        let mut left: Vec<usize> = self.indices().map(|at| self.needs(at).len()).collect();
        let mut ready: Vec<StepIndex> = self.indices().filter(|at| self.needs(*at).is_empty()).collect();
        let mut layers: BTreeMap<usize, Vec<StepIndex>> = BTreeMap::new();
        while let Some(at) = ready.pop() {
            let own = depth.get(at as usize).copied().unwrap_or(0);
            layers.entry(own).or_default().push(at);
            for next in self.needed_by(at) {
                let (Some(slot), Some(count)) = (depth.get_mut(*next as usize), left.get_mut(*next as usize)) else {
                    continue;
                };
                *slot = (*slot).max(own + 1);
                *count -= 1;
                if *count == 0 {
                    ready.push(*next);
                }
            }
        }
        for layer in layers.values_mut() {
            layer.sort_unstable();
        }
        layers
    }
}
