//! The one loop: take in reports, decide, append outcome and released intents together, spawn what is durable.
//!
//! It waits for reports, the disk, the earliest timer, or cancellation; a run that waits costs nothing.

mod reports;
mod surveying;
mod writing;

use crate::context::Context;
use crate::decide::{Action, Decider};
use crate::drive::attempt::{Attempt, Outcome};
use crate::drive::batch::Builder;
use crate::drive::guard::Guard;
use crate::drive::{DriveError, DriveOutcome, Engine};
use crate::event::{Direction, Ending, Event, ParkReason, Prior};
use crate::failure::{Residue, StepError};
use crate::fold::Run;
use crate::graph::StepIndex;
use crate::journal::{Lease, RecordedStep};
use crate::name::StepName;
use crate::plan::Resolved;
use crate::scope::{self, Part, Scope};
use crate::state::{Phase, UndoMeaning};
use crate::step::Known;
use crate::survey::Findings;
use jiff::Timestamp;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use surveying::Surveying;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use writing::Writing;

/// What a task tells the loop.
pub(super) enum Report {
    /// A verb came back.
    Done { index: StepIndex, outcome: Outcome },
    /// The search for what is left came back.
    Surveyed(Result<Findings, StepError>),
    /// A fact to be made durable in the middle of a verb.
    Record { event: Event, acknowledge: oneshot::Sender<()> },
}

/// What is to be spawned once its intent is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spawn {
    Forward(StepIndex),
    Backward(StepIndex, UndoMeaning),
}

struct Cycle<'a> {
    engine: &'a Engine,
    writing: Option<Writing<'a>>,
    lease: &'a Lease,
    run: &'a mut Run,
    decider: Decider,
    scope: Scope,
    guard: Arc<Guard>,
    reports: mpsc::UnboundedReceiver<Report>,
    tasks: JoinSet<()>,
    running: HashSet<StepIndex>,
    timers: BinaryHeap<Reverse<(Timestamp, StepIndex)>>,
    due: HashMap<StepIndex, Timestamp>,
    deadlines: HashMap<StepIndex, Timestamp>,
    uncertain_since: HashMap<StepIndex, Timestamp>,
    accepted_at: HashMap<StepIndex, Timestamp>,
    record: HashMap<StepName, RecordedStep>,
    generations: HashMap<StepName, u32>,
    stopping: CancellationToken,
    surveying: Surveying,
    builder: Builder,
    spawns: Vec<Spawn>,
    acknowledgements: Vec<oneshot::Sender<()>>,
}

fn decider(engine: &Engine, run: &Run) -> Decider {
    Decider::new(run, &|index| {
        run.graph
            .step(index)
            .and_then(|step| engine.catalog.description(&step.kind))
            .is_some_and(|description| description.holds_data)
    })
}

pub(super) async fn drive(
    engine: &Engine,
    lease: &Lease,
    run: &mut Run,
    cancel: CancellationToken,
) -> Result<DriveOutcome, DriveError> {
    if let Some(ending) = run.state.ending {
        engine.journal.release(lease).await?;
        return Ok(DriveOutcome::Finished(ending));
    }
    let uid = run.state.environment_uid.clone();
    let record = engine.journal.record_of_others(&uid, &run.id).await?;
    let generations = engine.journal.generations(&uid).await?.into_iter().collect();
    let record = record.into_iter().map(|row| (row.step.clone(), row)).collect();
    let (sender, reports) = mpsc::unbounded_channel();
    let guard = Arc::new(Guard {
        reports: sender,
        journal: Arc::clone(&engine.journal),
        lease: lease.clone(),
        noted: Mutex::default(),
    });
    // Counted from now, not from what an earlier owner's clock said: wall clocks differ and are set.
    let now = engine.clock.now();
    let uncertain = |index: &StepIndex| run.at(*index).is_some_and(|state| state.uncertain);
    let uncertain_since = run.graph.indices().filter(uncertain).map(|index| (index, now)).collect();
    let decider = decider(engine, run);
    let scope = Scope::of(&run.plan, &run.graph);
    let mut cycle = Cycle {
        engine,
        writing: None,
        lease,
        run,
        decider,
        scope,
        guard,
        reports,
        tasks: JoinSet::new(),
        running: HashSet::new(),
        timers: BinaryHeap::new(),
        due: HashMap::new(),
        deadlines: HashMap::new(),
        uncertain_since,
        accepted_at: HashMap::new(),
        record,
        generations,
        stopping: CancellationToken::new(),
        surveying: Surveying::default(),
        builder: Builder::default(),
        spawns: Vec::new(),
        acknowledgements: Vec::new(),
    };
    cycle.go(cancel).await
}

impl Cycle<'_> {
    async fn go(&mut self, cancel: CancellationToken) -> Result<DriveOutcome, DriveError> {
        loop {
            let mut end = None;
            if !self.stopping.is_cancelled() {
                self.wake()?;
                end = self.decide()?;
            }
            if let Some(end) = end {
                self.flush().await?;
                self.engine.journal.release(self.lease).await?;
                return Ok(end);
            }
            if self.hand_over()? && !self.stopping.is_cancelled() {
                continue;
            }
            if self.stopping.is_cancelled() && self.under_way() == 0 {
                return self.interrupted().await;
            }
            self.wait(&cancel).await?;
        }
    }

    /// Waits for the next thing to happen and takes in everything that has.
    async fn wait(&mut self, cancel: &CancellationToken) -> Result<(), DriveError> {
        let steps = self.timers.peek().map(|Reverse((at, _))| *at);
        let timer = steps.into_iter().chain(self.surveying.again_at()).min();
        let timer = timer.filter(|_| !self.stopping.is_cancelled());
        let clock = Arc::clone(&self.engine.clock);
        let sleep = async move {
            match timer {
                Some(at) => clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        // In this order, so that a seed of a simulation always tells the same story; none of them can starve another.
        tokio::select! {
            biased;
            () = cancel.cancelled(), if !self.stopping.is_cancelled() => self.stopping.cancel(),
            appended = writing::durable(&mut self.writing) => self.written(appended)?,
            report = self.reports.recv() => {
                if let Some(report) = report {
                    self.take(report)?;
                }
            }
            () = sleep => {}
        }
        while let Ok(report) = self.reports.try_recv() {
            self.take(report)?;
        }
        while self.tasks.try_join_next().is_some() {}
        Ok(())
    }

    async fn interrupted(&mut self) -> Result<DriveOutcome, DriveError> {
        let reason = ParkReason::Interrupted;
        let at = self.engine.clock.now();
        self.builder.apply(self.run, Event::RunParked { reason: reason.clone(), at })?;
        self.flush().await?;
        self.engine.journal.release(self.lease).await?;
        Ok(DriveOutcome::Parked(reason))
    }

    fn fact(&mut self, event: Event) -> Result<(), DriveError> {
        let indices = self.builder.apply(self.run, event)?;
        for index in indices {
            self.decider.changed(self.run, index);
        }
        Ok(())
    }

    /// Timers that are due: the verb is entered again, through a look.
    fn wake(&mut self) -> Result<(), DriveError> {
        let now = self.engine.clock.now();
        self.surveying.wake(now);
        while let Some(Reverse((at, index))) = self.timers.peek().copied() {
            if at > now {
                break;
            }
            self.timers.pop();
            if self.due.get(&index) != Some(&at) {
                continue;
            }
            self.due.remove(&index);
            let Some(state) = self.run.at(index) else { continue };
            match &state.phase {
                Phase::Failed { .. } => self.begin(index)?,
                Phase::UndoFailed { .. } => {
                    let meaning = state.undo_meaning();
                    self.begin_undo(index, meaning)?;
                }
                Phase::UndoWaiting { .. } | Phase::Undoing => {
                    let meaning = state.undo_meaning();
                    self.spawns.push(Spawn::Backward(index, meaning));
                }
                _ => self.spawns.push(Spawn::Forward(index)),
            }
        }
        Ok(())
    }

    fn timer(&mut self, index: StepIndex, at: Timestamp) {
        self.due.insert(index, at);
        self.timers.push(Reverse((at, index)));
    }

    fn decide(&mut self) -> Result<Option<DriveOutcome>, DriveError> {
        loop {
            if self.surveying.pending() {
                return Ok(None);
            }
            if let Some(reason) = self.surveying.refused() {
                return self.perform(Action::Park(reason));
            }
            let (under_way, bound) = (self.under_way(), self.engine.settings.max_in_flight);
            // One append carries half of what may be in flight: while it is written the loop makes up the other half, and
            // neither waits for the other.
            let left = bound.div_ceil(2).saturating_sub(self.spawns.len());
            let capacity = bound.saturating_sub(under_way).min(left);
            let actions = self.decider.next(self.run, capacity, under_way);
            if actions.is_empty() {
                return Ok(None);
            }
            for action in actions {
                if let Some(end) = self.perform(action)? {
                    return Ok(Some(end));
                }
            }
        }
    }

    fn perform(&mut self, action: Action) -> Result<Option<DriveOutcome>, DriveError> {
        let at = self.engine.clock.now();
        match action {
            Action::Begin(index) => self.begin(index)?,
            Action::Undo(index, meaning) => self.begin_undo(index, meaning)?,
            Action::Keep(index, reason) => {
                if let Some(step) = self.run.graph.step(index).map(|step| step.name.clone()) {
                    self.fact(Event::StepKept { step, reason })?;
                }
            }
            Action::Nothing(index) => {
                if let Some(step) = self.run.graph.step(index).map(|step| step.name.clone()) {
                    self.fact(Event::StepUndone { step, evidence: "what was tried left nothing".to_owned(), at })?;
                }
            }
            Action::GoneWith(index, with) => {
                if let Some(step) = self.run.graph.step(index).map(|step| step.name.clone()) {
                    self.fact(Event::StepUndone { step, evidence: format!("gone with {with}"), at })?;
                }
            }
            Action::TurnBack => {
                self.timers.clear();
                self.due.clear();
                self.deadlines.clear();
                let direction = Direction::backward("on-failure", false, Vec::new());
                self.fact(Event::DirectionSet { direction, at })?;
                self.decider = decider(self.engine, self.run);
            }
            Action::Finish(Ending::RolledBack) | Action::Park(ParkReason::RolledBackTo { .. })
                if self.survey_is_due() =>
            {
                self.surveying.begin(at);
            }
            Action::Finish(ending) => {
                self.fact(Event::RunFinished { ending, at })?;
                return Ok(Some(DriveOutcome::Finished(ending)));
            }
            Action::Park(reason) => {
                self.fact(Event::RunParked { reason: reason.clone(), at })?;
                return Ok(Some(DriveOutcome::Parked(reason)));
            }
        }
        Ok(None)
    }

    fn begin(&mut self, index: StepIndex) -> Result<(), DriveError> {
        let graph = Arc::clone(&self.run.graph);
        let (Some(planned), Some(state)) = (graph.step(index), self.run.at(index)) else { return Ok(()) };
        let at = self.engine.clock.now();
        let step = planned.name.clone();
        let recorded = self.record.get(&step);
        let resolved = match (&state.phase, &state.spec, self.scope.part(index), recorded) {
            (Phase::Pending, _, Part::Pass, _) => Ok(Resolved::Skip { reason: "it was not chosen".to_owned() }),
            // What is only looked at stays as it was made, whatever the runbook says by now.
            (Phase::Pending, _, Part::Look, Some(row)) => Ok(Resolved::Spec(row.spec.clone())),
            (Phase::Pending, _, Part::Look, None) => {
                match self.engine.resolver.resolve(&self.run.plan, planned, self.run) {
                    Ok(Resolved::Skip { reason }) => Ok(Resolved::Skip { reason }),
                    Ok(Resolved::Spec(_)) | Err(_) => {
                        return self.refuse(step.clone(), scope::missing(&step, &self.run.id), at);
                    }
                }
            }
            // What was under way when an owner vanished goes on from what was recorded.
            (Phase::Unknown, Some(spec), ..) | (_, Some(spec), Part::Look, _) => Ok(Resolved::Spec(spec.clone())),
            _ => self.engine.resolver.resolve(&self.run.plan, planned, self.run),
        };
        let spec = match resolved {
            Ok(Resolved::Spec(spec)) => spec,
            Ok(Resolved::Skip { reason }) if matches!(state.phase, Phase::Pending) => {
                return self.fact(Event::StepSkipped { step, reason });
            }
            Ok(Resolved::Skip { reason }) => {
                let error = StepError::permanent(format!("its condition turned false after it began: {reason}"));
                return self.refuse(step, error, at);
            }
            Err(error) => {
                let error = StepError::permanent(error.to_string()).leaving(Residue::None).with_code("Expression");
                return self.refuse(step, error, at);
            }
        };
        let prior = match state.attempt {
            0 => recorded
                .filter(|row| row.settled)
                .and_then(|row| Some(Prior { spec: row.spec.clone(), outputs: row.outputs.clone()? })),
            _ => state.prior.clone(),
        };
        let generation = match state.attempt {
            0 => recorded.map(|row| row.generation).or_else(|| self.generations.get(&step).copied()).unwrap_or(0),
            _ => state.generation,
        };
        if state.uncertain {
            self.uncertain_since.entry(index).or_insert(at);
        } else if state.attempt == 0 && recorded.is_some_and(|row| !row.settled) {
            // An earlier run may have died in the middle of this very step.
            self.uncertain_since.insert(index, at);
        }
        let attempt = state.attempt + 1;
        self.deadlines.remove(&index);
        self.fact(Event::StepIntended { step, attempt, generation, spec, prior, at })?;
        self.spawns.push(Spawn::Forward(index));
        Ok(())
    }

    fn refuse(&mut self, step: StepName, error: StepError, at: Timestamp) -> Result<(), DriveError> {
        self.fact(Event::StepFailed { step, error, retry_at: None, at })
    }

    fn begin_undo(&mut self, index: StepIndex, meaning: UndoMeaning) -> Result<(), DriveError> {
        let (Some(planned), Some(state)) = (self.run.graph.step(index), self.run.at(index)) else { return Ok(()) };
        let event = Event::UndoIntended {
            step: planned.name.clone(),
            attempt: state.undo_attempt + 1,
            at: self.engine.clock.now(),
        };
        self.deadlines.remove(&index);
        self.fact(event)?;
        self.spawns.push(Spawn::Backward(index, meaning));
        Ok(())
    }

    fn spawn(&mut self, spawn: Spawn) {
        let index = match spawn {
            Spawn::Forward(index) | Spawn::Backward(index, _) => index,
        };
        let Some(attempt) = self.attempt(index) else { return };
        self.running.insert(index);
        let reports = self.guard.reports.clone();
        self.tasks.spawn(async move {
            let outcome = match spawn {
                Spawn::Forward(_) => attempt.forward().await,
                Spawn::Backward(_, meaning) => attempt.backward(meaning).await,
            };
            // A loop that is gone is a crash: what the verb did is found again by looking.
            let _ = reports.send(Report::Done { index, outcome });
        });
    }

    fn attempt(&self, index: StepIndex) -> Option<Attempt> {
        let planned = self.run.graph.step(index)?;
        let state = self.run.at(index)?.clone();
        let description = self.engine.catalog.description(&planned.kind)?;
        let kind = self.engine.catalog.step(&planned.kind)?;
        let recorded = self.record.get(&planned.name);
        let mut notes = recorded.map(|row| row.notes.clone()).unwrap_or_default();
        notes.extend(state.notes.clone());
        let outputs = state
            .outputs
            .clone()
            .or_else(|| state.prior.as_ref().map(|prior| prior.outputs.clone()))
            .or_else(|| recorded.and_then(|row| row.outputs.clone()));
        let uncertain_since = self.uncertain_since.get(&index).copied();
        let known = Known {
            outputs,
            notes,
            uncertain: uncertain_since.is_some() || state.uncertain,
            intended_at: state.intended_at,
        };
        let virgin = state.attempt == 1 && !known.uncertain && matches!(state.phase, Phase::Intended);
        let context = Context {
            step: planned.name.clone(),
            run: self.run.id.clone(),
            environment: self.run.state.environment.clone(),
            environment_uid: self.run.state.environment_uid.clone(),
            attempt: state.attempt.max(1),
            generation: state.generation,
            clock: Arc::clone(&self.engine.clock),
            cancelled: self.stopping.clone(),
            guard: Arc::clone(&self.guard) as Arc<dyn crate::context::StepGuard>,
        };
        Some(Attempt {
            settle: description.settle,
            kind,
            known,
            virgin,
            uncertain_since,
            accepted_at: self.accepted_at.get(&index).copied(),
            deadline: self.deadlines.get(&index).copied(),
            context,
            guard: Arc::clone(&self.guard),
            only_looks: self.scope.part(index) == Part::Look,
            timeout: planned.timeout,
            state,
        })
    }
}
