//! One environment in the model world: its plans, its journal, and a process that can die and come back.

use crate::clock::Clock;
use crate::drive::{DriveError, DriveOutcome, Engine, Settings, StartRun, Unobserved};
use crate::event::{Direction, Event};
use crate::fold::{FoldError, Run};
use crate::graph::Graph;
use crate::journal::{Journal, JournalError, Lease, Owner, Sequence};
use crate::memory::{Died, MemoryJournal};
use crate::model::clock::SimulatedClock;
use crate::model::kinds::{self, Habit};
use crate::model::remains::Remains;
use crate::model::world::World;
use crate::name::{EnvironmentUid, InvalidName, KindName, RunId, StepName};
use crate::plan::{OnFailure, Plan};
use crate::step::UndoPlan;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// How a drive ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// By itself.
    Outcome(DriveOutcome),
    /// The process died.
    Died,
}

/// Why a trial could not be held.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// The engine refused.
    #[error("the engine refused")]
    Drive(#[from] DriveError),
    /// The journal refused.
    #[error("the journal refused")]
    Journal(#[from] JournalError),
    /// A name is malformed.
    #[error("a name is malformed")]
    Name(#[from] InvalidName),
    /// Nothing happens any more, and the run has not ended.
    #[error("the run neither ends nor goes on")]
    Stuck,
}

impl TrialError {
    /// The process died of it, and nothing is wrong.
    #[must_use]
    pub fn is_death(&self) -> bool {
        match self {
            Self::Drive(error) => is_death(error),
            Self::Journal(error) => is_dead(error),
            Self::Name(_) | Self::Stuck => false,
        }
    }
}

/// The most that may happen in one drive.
const LIMIT: u64 = 200_000;

/// A journal whose process can die, and that can be looked into afterwards.
pub trait MortalJournal: Journal + std::fmt::Debug {
    /// The process is dead now: nothing is written or read any more.
    fn die(&self);

    /// The process dies when the journal of any run reaches this sequence.
    fn die_at(&self, sequence: Sequence);

    /// Another process opens the journal.
    fn revive(&self);

    /// Every event of a run, decoded.
    ///
    /// # Errors
    /// Unknown run, or an event that cannot be read.
    fn story(&self, run: &RunId) -> Result<Vec<Event>, JournalError>;

    /// The newest durable event of a run that is wanted.
    ///
    /// # Errors
    /// Unknown run, or an event that cannot be read.
    fn newest(&self, run: &RunId, wanted: &dyn Fn(&Event) -> bool) -> Result<Option<Event>, JournalError>;

    /// Folds the whole journal of a run from its events alone.
    ///
    /// # Errors
    /// Unknown run, or events that do not add up.
    fn refold(&self, run: &RunId) -> Result<Run, JournalError>;
}

impl MortalJournal for MemoryJournal {
    fn die(&self) {
        Self::die(self);
    }

    fn die_at(&self, sequence: Sequence) {
        Self::die_at(self, sequence);
    }

    fn revive(&self) {
        Self::revive(self);
    }

    fn story(&self, run: &RunId) -> Result<Vec<Event>, JournalError> {
        Self::story(self, run)
    }

    fn newest(&self, run: &RunId, wanted: &dyn Fn(&Event) -> bool) -> Result<Option<Event>, JournalError> {
        Self::newest(self, run, wanted)
    }

    fn refold(&self, run: &RunId) -> Result<Run, JournalError> {
        Self::refold(self, run)
    }
}

/// One environment.
#[derive(Debug)]
pub struct Trial<J = MemoryJournal> {
    /// Its world.
    pub world: Arc<World>,
    /// Its journal.
    pub journal: Arc<J>,
    /// Drives it.
    pub engine: Engine,
    /// Its uid.
    pub uid: EnvironmentUid,
}

fn owner(pid: u32) -> Owner {
    Owner {
        host: "model".to_owned(),
        pid,
        process_started: u64::from(pid),
        boot_id: "boot".to_owned(),
        user: "nobody".to_owned(),
    }
}

/// True when the newest event of the step, notes and findings apart, is an intent that is still open.
fn intended(journal: &impl MortalJournal, run: &RunId, step: &StepName) -> bool {
    let newest = journal.newest(run, &|event| {
        event.step() == Some(step)
            && !matches!(event, Event::StepNoted { .. } | Event::StepFound { .. } | Event::StepApplied { .. })
    });
    matches!(
        newest,
        Ok(Some(
            Event::StepIntended { .. }
                | Event::UndoIntended { .. }
                | Event::StepWaiting { .. }
                | Event::UndoWaiting { .. }
        ))
    )
}

/// Whether an engine's failure is the death of its process.
fn is_death(error: &DriveError) -> bool {
    matches!(error, DriveError::Journal(error) if is_dead(error))
}

fn is_dead(error: &JournalError) -> bool {
    matches!(error, JournalError::Storage { source, .. } if source.is::<Died>())
}

impl Trial {
    /// An empty environment on a journal in memory whose kinds behave by `habits`; `twice` performs every apply and undo
    /// two times.
    ///
    /// # Errors
    /// Only if a name is malformed.
    pub fn new(habits: &BTreeMap<KindName, Habit>, twice: bool) -> Result<Self, TrialError> {
        let clock = Arc::new(SimulatedClock::default());
        let journal = Arc::new(MemoryJournal::new(Arc::clone(&clock) as Arc<dyn Clock>));
        Self::on(journal, clock, habits, twice)
    }
}

impl<J: MortalJournal> Trial<J> {
    /// An empty environment on any journal.
    ///
    /// # Errors
    /// Only if a name is malformed.
    pub fn on(
        journal: Arc<J>,
        clock: Arc<SimulatedClock>,
        habits: &BTreeMap<KindName, Habit>,
        twice: bool,
    ) -> Result<Self, TrialError> {
        let world = Arc::new(World::new(Arc::clone(&clock)));
        let mut catalog = kinds::catalog(&world, habits.iter().map(|(name, habit)| (name.clone(), *habit)), twice);
        catalog.add_survey(Arc::new(Remains(Arc::clone(&world))));
        let engine = Engine {
            journal: Arc::clone(&journal) as Arc<dyn Journal>,
            catalog,
            clock,
            resolver: Arc::new(crate::destroy::Literal),
            observer: Arc::new(Unobserved),
            settings: Settings::default(),
        };
        Ok(Self { world, journal, engine, uid: EnvironmentUid::new("model-uid")? })
    }

    /// Has the world watch the order of a plan and the intents of its run.
    ///
    /// # Errors
    /// A plan that is no graph.
    pub fn watch(&self, plan: &Plan) -> Result<(), TrialError> {
        let graph = Graph::new(&Arc::new(plan.clone())).map_err(|error| DriveError::from(FoldError::from(error)))?;
        let needs = plan.steps.iter().map(|step| (step.name.clone(), step.needs.clone())).collect();
        let mut before: BTreeMap<StepName, Vec<StepName>> = BTreeMap::new();
        let mut along: BTreeMap<StepName, Vec<StepName>> = BTreeMap::new();
        for step in &plan.steps {
            let after = step.undo_after.iter().filter(|other| !released_early(plan, &graph, other, &step.name));
            before.entry(step.name.clone()).or_default().extend(after.cloned());
            for need in step.needs.iter().filter(|need| !released_early(plan, &graph, &step.name, need)) {
                before.entry(need.clone()).or_default().push(step.name.clone());
            }
            if let UndoPlan::With { step: with } = &step.undo {
                along.entry(with.clone()).or_default().push(step.name.clone());
            }
        }
        let journal = Arc::clone(&self.journal);
        let witness = move |context: &crate::context::Context| intended(&*journal, &context.run, &context.step);
        self.world.watch(needs, before, along, Arc::new(witness));
        Ok(())
    }

    /// Drives what a lease was granted for, until the run or the process ends.
    ///
    /// # Errors
    /// The engine's refusals other than death; a run that neither ends nor goes on.
    pub async fn drive(&self, lease: &Lease, run: &mut Run, cancel: CancellationToken) -> Result<End, TrialError> {
        let outcome = tokio::select! {
            biased;
            () = self.world.death.notified() => {
                self.journal.die();
                return Ok(End::Died);
            }
            outcome = self.engine.drive(lease, run, cancel) => outcome,
            () = self.world.clock.stuck(LIMIT) => return Err(TrialError::Stuck),
        };
        match outcome {
            Ok(outcome) => Ok(End::Outcome(outcome)),
            Err(error) if is_death(&error) => Ok(End::Died),
            Err(error) => Err(error.into()),
        }
    }

    /// Starts a run and drives it.
    ///
    /// # Errors
    /// See [`Trial::drive`].
    pub async fn run(&self, id: &RunId, plan: &Plan, on_failure: OnFailure) -> Result<End, TrialError> {
        self.watch(plan)?;
        self.begin(id, plan, on_failure, None).await
    }

    /// Starts a destroy run of everything on record and drives it.
    ///
    /// # Errors
    /// See [`Trial::drive`].
    pub async fn destroy(&self, id: &RunId, like: &Plan) -> Result<End, TrialError> {
        let record = self.journal.record(&self.uid).await?;
        let plan = crate::destroy::plan(like.workflow.clone(), like.environment.clone(), &record, &self.engine.catalog);
        self.watch(&plan)?;
        let direction = Direction::backward("operator", true, Vec::new());
        self.begin(id, &plan, OnFailure::Park, Some((record, direction))).await
    }

    async fn begin(
        &self,
        id: &RunId,
        plan: &Plan,
        on_failure: OnFailure,
        destroy: Option<(Vec<crate::journal::RecordedStep>, Direction)>,
    ) -> Result<End, TrialError> {
        let new = StartRun {
            id: id.clone(),
            plan: plan.clone(),
            environment_uid: self.uid.clone(),
            target: Value::Null,
            owner: owner(1),
            on_failure,
            destroy,
        };
        match self.engine.start(new).await {
            Ok((lease, mut run)) => self.drive(&lease, &mut run, CancellationToken::new()).await,
            Err(error) if is_death(&error) => Ok(End::Died),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes a run over and drives it on, in another direction if one is given.
    ///
    /// # Errors
    /// See [`Trial::drive`].
    pub async fn resume(&self, id: &RunId, direction: Option<Direction>) -> Result<End, TrialError> {
        match self.engine.resume(id, &owner(2), direction).await {
            Ok((lease, mut run)) => self.drive(&lease, &mut run, CancellationToken::new()).await,
            Err(error) if is_death(&error) => Ok(End::Died),
            Err(error) => Err(error.into()),
        }
    }

    /// The run as the rows tell it.
    ///
    /// # Errors
    /// Unknown run, rows that do not add up.
    pub async fn load(&self, id: &RunId) -> Result<Run, TrialError> {
        Ok(Run::load(self.journal.load(id).await?).map_err(DriveError::from)?)
    }
}

/// What a step goes along with, and what that goes along with.
fn hosts(plan: &Plan, step: &StepName) -> Vec<StepName> {
    let host = |name: &StepName| {
        plan.steps.iter().find(|step| step.name == *name).and_then(|step| match &step.undo {
            UndoPlan::With { step } => Some(step.clone()),
            UndoPlan::Own | UndoPlan::Impossible | UndoPlan::Keep => None,
        })
    };
    std::iter::successors(host(step), host).take(plan.steps.len()).collect()
}

/// True when `other` is undone while `step`, which comes before it in the order of undoing, still stands and goes along
/// with it or with something later.
fn released_early(plan: &Plan, graph: &Graph, step: &StepName, other: &StepName) -> bool {
    let hosts = hosts(plan, step);
    match (hosts.last().and_then(|root| graph.find(root)), graph.find(other)) {
        (Some(root), Some(at)) => hosts.contains(other) || graph.undone_earlier(at, root),
        _ => false,
    }
}
