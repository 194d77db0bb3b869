//! `Run = fold(events)`: the one truth about a run, kept incrementally and rebuilt from rows or from events.
//!
//! The rows written with each batch are this fold, cached; loading them and folding the events must come to the same.

use crate::event::{Direction, Event};
use crate::graph::{Graph, GraphError, StepIndex};
use crate::journal::{LoadedRun, Sequence, StepRow, StoredEvent};
use crate::name::{RunId, StepName};
use crate::plan::{OutputLookup, Plan};
use crate::state::{Phase, RunState, StepState, Story};
use crate::transition::{self, IllegalEvent};
use serde_json::Value;
use std::sync::Arc;

pub use record::{record_of, recorded};
pub use stored::{decode, encode};

mod record;
mod stored;

/// Why events or rows do not add up to a run.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    /// The plan is no graph.
    #[error("the plan of the run is not a graph")]
    Graph(#[from] GraphError),
    /// An event that cannot happen where it stands.
    #[error("the journal tells an impossible story")]
    Illegal(#[from] IllegalEvent),
    /// An event about a step that the plan does not have.
    #[error("the journal speaks of step {0}, which the plan does not have")]
    UnknownStep(StepName),
    /// An event or a row that is not the JSON it should be.
    #[error("{what} cannot be read")]
    Malformed {
        /// Which one.
        what: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A row that does not agree with itself, or with the events that it names.
    #[error("the row of step {step} says {said}")]
    Contradiction {
        /// The step.
        step: StepName,
        /// What it says, against what.
        said: String,
    },
    /// A journal without a first event.
    #[error("the journal is empty")]
    Empty,
}

/// A run.
#[derive(Debug, Clone)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// The pinned plan.
    pub plan: Arc<Plan>,
    /// Its graph.
    pub graph: Arc<Graph>,
    /// Run-level state.
    pub state: RunState,
    /// Last event folded in.
    pub head: Sequence,
    steps: Vec<StepState>,
}

/// What an event changed, for incremental decisions and for the rows to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// Run-level state only.
    Run,
    /// One step.
    Step(StepIndex),
    /// Every step listed (an owner vanished, or the run was turned forward again).
    Steps(Vec<StepIndex>),
}

impl Run {
    /// Makes a run of its first event.
    ///
    /// # Errors
    /// A plan that is no graph, or another first event.
    pub fn begin(id: RunId, plan: Arc<Plan>, first: &Event) -> Result<Self, FoldError> {
        let graph = Arc::new(Graph::new(&plan)?);
        let state = transition::start(first)?;
        let steps = vec![StepState::default(); graph.len()];
        Ok(Self { id, plan, graph, state, head: 1, steps })
    }

    /// Folds one more event in.
    ///
    /// # Errors
    /// When it cannot happen here; the run is unchanged then.
    pub fn apply(&mut self, event: &Event) -> Result<Changed, FoldError> {
        let was_backward = self.state.is_backward();
        transition::run(&mut self.state, event)?;
        let changed = if let Event::OwnerChanged { at, .. } = event {
            self.change_all(|step| transition::owner_changed(step, *at))
        } else if matches!(event, Event::DirectionSet { direction: Direction::Forward, .. }) && was_backward {
            self.change_all(transition::turned_forward)
        } else if let Some(name) = event.step() {
            let index = self.graph.find(name).ok_or_else(|| FoldError::UnknownStep(name.clone()))?;
            if let Some(step) = self.steps.get_mut(index as usize) {
                transition::step(name, step, event, self.head + 1)?;
            }
            Changed::Step(index)
        } else {
            Changed::Run
        };
        self.head += 1;
        Ok(changed)
    }

    fn change_all(&mut self, change: impl Fn(&mut StepState) -> bool) -> Changed {
        let mut all = Vec::new();
        for (at_index, step) in self.steps.iter_mut().enumerate() {
            if change(step) {
                all.push(u32::try_from(at_index).unwrap_or(u32::MAX));
            }
        }
        Changed::Steps(all)
    }

    /// Rebuilds a run from the store's cached fold.
    ///
    /// # Errors
    /// Rows that cannot be read or do not fit the plan.
    pub fn load(loaded: LoadedRun) -> Result<Self, FoldError> {
        let plan = Arc::new(loaded.plan);
        let graph = Arc::new(Graph::new(&plan)?);
        let state: RunState = serde_json::from_slice(&loaded.run_payload)
            .map_err(|source| FoldError::Malformed { what: "the folded state of the run".to_owned(), source })?;
        let mut steps = vec![StepState::default(); graph.len()];
        for row in &loaded.steps {
            let index = graph.find(&row.step).ok_or_else(|| FoldError::UnknownStep(row.step.clone()))?;
            let step = stored::state(row)?;
            if let Some(slot) = steps.get_mut(index as usize) {
                *slot = step;
            }
        }
        Ok(Self { id: loaded.summary.id, plan, graph, state, head: loaded.summary.head, steps })
    }

    /// Folds a whole journal, for verification.
    ///
    /// # Errors
    /// The first event that cannot be read or cannot happen.
    pub fn refold(id: RunId, plan: Arc<Plan>, events: &[StoredEvent]) -> Result<Self, FoldError> {
        let mut run: Option<Self> = None;
        for stored in events {
            let event = decode(stored)?;
            match &mut run {
                None => run = Some(Self::begin(id.clone(), Arc::clone(&plan), &event)?),
                Some(run) => {
                    run.apply(&event)?;
                }
            }
        }
        run.ok_or(FoldError::Empty)
    }

    /// A step's state.
    #[must_use]
    pub fn at(&self, index: StepIndex) -> Option<&StepState> {
        self.steps.get(index as usize)
    }

    /// A step's state by name.
    #[must_use]
    pub fn step(&self, name: &StepName) -> Option<&StepState> {
        self.graph.find(name).and_then(|index| self.at(index))
    }

    /// Every step with its state, in the plan's order.
    pub fn steps(&self) -> impl Iterator<Item = (&crate::plan::PlannedStep, &StepState)> {
        self.plan.steps.iter().zip(&self.steps)
    }

    /// The row of a step for the store.
    ///
    /// # Errors
    /// Only if its state cannot be written as JSON.
    pub fn row(&self, index: StepIndex) -> Result<Option<StepRow>, FoldError> {
        let (Some(step), Some(state)) = (self.graph.step(index), self.at(index)) else { return Ok(None) };
        let payload = match state.grounds.story {
            Story::Untold | Story::Plain => None,
            Story::Told => Some(stored::remainder(&step.name, state)?),
        };
        let place = |sequence: Sequence| (sequence > 0).then_some(sequence);
        Ok(Some(StepRow {
            step: step.name.clone(),
            state: state.phase.name(),
            intent: place(state.grounds.intent),
            outcome: place(state.grounds.outcome),
            payload,
        }))
    }

    /// The run-level row for the store.
    ///
    /// # Errors
    /// Only if it cannot be written as JSON.
    pub fn payload(&self) -> Result<Vec<u8>, FoldError> {
        serde_json::to_vec(&self.state)
            .map_err(|source| FoldError::Malformed { what: "the state of the run".to_owned(), source })
    }
}

impl OutputLookup for Run {
    fn outputs(&self, step: &StepName) -> Option<&Value> {
        self.step(step).and_then(|state| state.outputs.as_ref())
    }

    fn skipped(&self, step: &StepName) -> bool {
        self.step(step).is_some_and(|state| matches!(state.phase, Phase::Skipped { .. }))
    }
}
