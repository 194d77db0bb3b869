//! The validated graph of a plan: names to indices once, then plain counters.
//!
//! petgraph finds cycles; execution uses compressed adjacency only. Indices never leave the process: everything durable
//! is keyed by step name.

use crate::name::StepName;
use crate::plan::{Plan, PlannedStep};
use crate::step::UndoPlan;
use petgraph::graph::{DiGraph, NodeIndex};
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

/// Adjacency in compressed rows.
#[derive(Debug, Clone, Default)]
struct Rows {
    offsets: Vec<u32>,
    targets: Vec<StepIndex>,
}

impl Rows {
    fn new(lists: &[Vec<StepIndex>]) -> Self {
        let mut rows = Self { offsets: Vec::with_capacity(lists.len() + 1), targets: Vec::new() };
        rows.offsets.push(0);
        for list in lists {
            rows.targets.extend_from_slice(list);
            rows.offsets.push(u32::try_from(rows.targets.len()).unwrap_or(u32::MAX));
        }
        rows
    }

    fn row(&self, index: StepIndex) -> &[StepIndex] {
        let at = index as usize;
        let (Some(from), Some(to)) = (self.offsets.get(at), self.offsets.get(at + 1)) else { return &[] };
        self.targets.get(*from as usize..*to as usize).unwrap_or(&[])
    }
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

fn check_acyclic(count: usize, edges: &[Vec<StepIndex>], steps: &[PlannedStep]) -> Result<Vec<StepIndex>, GraphError> {
    let mut graph = DiGraph::<(), ()>::with_capacity(count, count);
    for _ in 0..count {
        graph.add_node(());
    }
    for (from, list) in edges.iter().enumerate() {
        for to in list {
            graph.add_edge(NodeIndex::new(from), NodeIndex::new(*to as usize), ());
        }
    }
    match petgraph::algo::toposort(&graph, None) {
        Ok(order) => Ok(order.into_iter().map(|node| u32::try_from(node.index()).unwrap_or(u32::MAX)).collect()),
        Err(cycle) => {
            let path = cycle_path(&graph, cycle.node_id());
            let names = path.iter().filter_map(|node| steps.get(node.index())).map(|step| step.name.clone()).collect();
            Err(GraphError::Cycle { path: names })
        }
    }
}

fn invert(lists: &[Vec<StepIndex>]) -> Vec<Vec<StepIndex>> {
    let mut inverse = vec![Vec::new(); lists.len()];
    for (from, list) in lists.iter().enumerate() {
        for to in list {
            if let Some(row) = inverse.get_mut(*to as usize) {
                row.push(u32::try_from(from).unwrap_or(u32::MAX));
            }
        }
    }
    inverse
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
        let mut needs = Vec::with_capacity(steps.len());
        let mut undo_after = Vec::with_capacity(steps.len());
        let mut along = vec![Vec::new(); steps.len()];
        for (at, step) in steps.iter().enumerate() {
            let row: Result<Vec<_>, _> = step.needs.iter().map(|other| find(&step.name, other)).collect();
            needs.push(row?);
            let row: Result<Vec<_>, _> = step.undo_after.iter().map(|other| find(&step.name, other)).collect();
            undo_after.push(row?);
            if let UndoPlan::With { step: other } = &step.undo
                && let Some(row) = along.get_mut(find(&step.name, other)? as usize)
            {
                row.push(u32::try_from(at).unwrap_or(u32::MAX));
            }
        }
        let order = check_acyclic(steps.len(), &needs, steps)?;
        let needed_by = invert(&needs);
        // Undo order: a step waits for everything that needs it, and for its teardown edges.
        let mut waits: Vec<Vec<StepIndex>> = needed_by.clone();
        for (at, extra) in undo_after.iter().enumerate() {
            if let Some(row) = waits.get_mut(at) {
                row.extend(extra);
                row.sort_unstable();
                row.dedup();
            }
        }
        // Without teardown edges it is the order of doing, backward.
        let undo_order = if undo_after.iter().all(Vec::is_empty) {
            order.iter().rev().copied().collect()
        } else {
            check_acyclic(steps.len(), &waits, steps)?
        };
        let undo_before = invert(&waits);
        let (needs, needed_by) = (Rows::new(&needs), Rows::new(&needed_by));
        let (undo_after, undo_before) = (Rows::new(&waits), Rows::new(&undo_before));
        let remaining = longest(order.iter().copied(), &needed_by, steps);
        let backward = longest(undo_order.iter().copied(), &undo_before, steps);
        Ok(Self {
            plan: Arc::clone(plan),
            index,
            needs,
            needed_by,
            undo_before,
            undo_after,
            taken_along: Rows::new(&along),
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
