//! The crash sweep: every point at which a process can die, every way a step can fail, every action twice; then resume
//! or roll back, and compare the world with that of an undisturbed run.

use crate::drive::DriveOutcome;
use crate::event::{Direction, Ending};
use crate::failure::{ErrorClass, Residue};
use crate::journal::JournalError;
use crate::model::kinds::Habit;
use crate::model::trial::{End, MortalJournal, Trial, TrialError};
use crate::model::world::{Fault, Moment};
use crate::name::{KindName, RunId, StepName};
use crate::plan::{OnFailure, Plan};
use serde_json::Value;
use std::collections::BTreeMap;

/// What is swept.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The run under test.
    pub plan: Plan,
    /// What an earlier run of the same environment had built.
    pub earlier: Option<Plan>,
    /// What vanished behind the engine's back in between.
    pub vanished: Vec<StepName>,
    /// How the kinds of both plans behave.
    pub habits: BTreeMap<KindName, Habit>,
}

/// Where a process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// When the journal reaches this event.
    Event(u64),
    /// At this mutating call.
    Call(u64, Moment),
}

/// Where a run is headed after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// On to its end.
    Forward,
    /// Back to where it began.
    Backward,
}

/// Which trial went wrong, and how.
#[derive(Debug, thiserror::Error)]
#[error("{case}: {problem}")]
pub struct Broken {
    /// The case.
    pub case: String,
    /// What is wrong.
    pub problem: String,
}

/// What an undisturbed run shows.
#[derive(Debug, Clone)]
pub struct Undisturbed {
    /// The world before it.
    pub before: Vec<String>,
    /// The world after it.
    pub after: Vec<String>,
    /// Its events.
    pub events: u64,
    /// Its mutating calls.
    pub calls: u64,
}

/// The id of the run under test.
///
/// # Errors
/// Never: the name is well-formed.
pub fn run_id() -> Result<RunId, TrialError> {
    Ok(RunId::new("run")?)
}

/// The operator's rollback.
#[must_use]
pub fn backward() -> Direction {
    Direction::backward("operator", true, Vec::new())
}

impl Subject {
    /// An environment as the run under test finds it.
    ///
    /// # Errors
    /// When the earlier run does not end well.
    pub async fn prepare(&self, twice: bool) -> Result<Trial, TrialError> {
        self.prepare_on(Trial::new(&self.habits, twice)?).await
    }

    /// The same in an empty environment on any journal.
    ///
    /// # Errors
    /// When the earlier run does not end well.
    pub async fn prepare_on<J: MortalJournal>(&self, trial: Trial<J>) -> Result<Trial<J>, TrialError> {
        if let Some(earlier) = &self.earlier {
            let end = trial.run(&RunId::new("earlier")?, earlier, OnFailure::Park).await?;
            if end != End::Outcome(DriveOutcome::Finished(Ending::Done)) {
                return Err(TrialError::Stuck);
            }
        }
        for step in &self.vanished {
            trial.world.remove_behind_the_back(step);
        }
        trial.world.forget_counts();
        trial.watch(&self.plan)?;
        Ok(trial)
    }

    /// Runs it once without any trouble.
    ///
    /// # Errors
    /// When it does not end well even so.
    pub async fn undisturbed(&self, twice: bool) -> Result<Undisturbed, Broken> {
        let case = "undisturbed".to_owned();
        let broken = |problem: String| Broken { case: case.clone(), problem };
        let trial = self.prepare(twice).await.map_err(|error| broken(chain(&error)))?;
        let (before, calls) = (trial.world.picture(), trial.world.calls());
        let id = run_id().map_err(|error| broken(chain(&error)))?;
        let end = trial.run(&id, &self.plan, OnFailure::Park).await.map_err(|error| broken(chain(&error)))?;
        if end != End::Outcome(DriveOutcome::Finished(Ending::Done)) {
            return Err(broken(format!("ended as {end:?}")));
        }
        let events = trial.load(&id).await.map_err(|error| broken(chain(&error)))?.head;
        let undisturbed =
            Undisturbed { before, after: trial.world.picture(), events, calls: trial.world.calls() - calls };
        self.check(&trial, &id, Recovery::Forward, &undisturbed).await.map_err(broken)?;
        Ok(undisturbed)
    }

    /// Dies at `crash`, then recovers; with `again` the recovery dies as well, and is recovered from.
    ///
    /// # Errors
    /// When the world, the journal or the counts are not what they should be.
    pub async fn crash(
        &self,
        crash: Crash,
        recovery: Recovery,
        again: Option<Crash>,
        twice: bool,
        expected: &Undisturbed,
    ) -> Result<(), Broken> {
        let case = format!("crash at {crash:?}, {recovery:?}, then {again:?}, twice={twice}");
        self.crashed(crash, recovery, again, twice, expected).await.map_err(|problem| Broken { case, problem })
    }

    async fn crashed(
        &self,
        crash: Crash,
        recovery: Recovery,
        again: Option<Crash>,
        twice: bool,
        expected: &Undisturbed,
    ) -> Result<(), String> {
        let trial = self.prepare(twice).await.map_err(|error| chain(&error))?;
        let id = run_id().map_err(|error| chain(&error))?;
        arm(&trial, crash, 0);
        let end = trial.run(&id, &self.plan, OnFailure::Park).await.map_err(|error| chain(&error))?;
        if end != End::Died {
            return Err(format!("it did not die but ended as {end:?}"));
        }
        revive(&trial);
        let same = consistent(&trial, &id).await?;
        if !same {
            return Err("the rows are not the fold of the events after the first crash".to_owned());
        }
        if let Some(again) = again {
            let head = trial.load(&id).await.map_err(|error| chain(&error))?.head;
            arm(&trial, again, head);
            // It may also get through: then the second recovery finds a finished run.
            recover(&trial, &id, recovery).await?;
            revive(&trial);
            if !consistent(&trial, &id).await? {
                return Err("the rows are not the fold of the events after the second crash".to_owned());
            }
        }
        let end = recover(&trial, &id, recovery).await?;
        let wanted = match recovery {
            Recovery::Forward => Ending::Done,
            Recovery::Backward => Ending::RolledBack,
        };
        if end != End::Outcome(DriveOutcome::Finished(wanted)) {
            return Err(format!("recovery ended as {end:?}"));
        }
        self.check(&trial, &id, recovery, expected).await
    }

    /// A step fails; the run parks or rolls back by itself. Then the trouble is gone, and it is recovered.
    ///
    /// # Errors
    /// As for [`Subject::crash`].
    pub async fn fault(
        &self,
        fault: Fault,
        policy: OnFailure,
        recovery: Recovery,
        expected: &Undisturbed,
    ) -> Result<(), Broken> {
        let case = format!("{fault:?}, on failure {policy:?}, {recovery:?}");
        self.faulted(fault, policy, recovery, expected).await.map_err(|problem| Broken { case, problem })
    }

    async fn faulted(
        &self,
        fault: Fault,
        policy: OnFailure,
        recovery: Recovery,
        expected: &Undisturbed,
    ) -> Result<(), String> {
        let trial = self.prepare(false).await.map_err(|error| chain(&error))?;
        let id = run_id().map_err(|error| chain(&error))?;
        trial.world.fail(fault);
        let end = trial.run(&id, &self.plan, policy).await.map_err(|error| chain(&error))?;
        trial.world.heal();
        if !consistent(&trial, &id).await? {
            return Err("the rows are not the fold of the events".to_owned());
        }
        let recovery = match (&end, policy) {
            (End::Outcome(DriveOutcome::Finished(Ending::Done)), _) => Recovery::Forward,
            (End::Outcome(DriveOutcome::Finished(Ending::RolledBack)), OnFailure::Rollback) => Recovery::Backward,
            (End::Outcome(DriveOutcome::Parked(_)), OnFailure::Park) => {
                recover(&trial, &id, recovery).await?;
                recovery
            }
            // The undo of the very step that fails may fail as well: the operator goes on with it.
            (End::Outcome(DriveOutcome::Parked(_)), OnFailure::Rollback) => {
                recover(&trial, &id, Recovery::Backward).await?;
                Recovery::Backward
            }
            _ => return Err(format!("ended as {end:?}")),
        };
        self.check(&trial, &id, recovery, expected).await
    }

    /// The world, the record and the journal are what they should be.
    ///
    /// # Errors
    /// What is not, with the story of the run.
    pub async fn check<J: MortalJournal>(
        &self,
        trial: &Trial<J>,
        id: &RunId,
        recovery: Recovery,
        expected: &Undisturbed,
    ) -> Result<(), String> {
        self.judge(trial, id, recovery, expected).await.map_err(|problem| {
            let story = trial.journal.story(id).unwrap_or_default();
            let story: Vec<String> = story.iter().filter_map(|event| serde_json::to_string(event).ok()).collect();
            format!("{problem}\n{}", story.join("\n"))
        })
    }

    async fn judge<J: MortalJournal>(
        &self,
        trial: &Trial<J>,
        id: &RunId,
        recovery: Recovery,
        expected: &Undisturbed,
    ) -> Result<(), String> {
        let violations = trial.world.violations();
        if !violations.is_empty() {
            return Err(violations.join("; "));
        }
        let wanted = match recovery {
            Recovery::Forward => &expected.after,
            Recovery::Backward => &expected.before,
        };
        let picture = trial.world.picture();
        if picture != *wanted {
            return Err(format!("the world is {picture:#?}, not {wanted:#?}"));
        }
        for (step, created) in trial.world.created() {
            let habit = self.habit(&step);
            if created > 1 && habit != Some(Habit::Secret) {
                return Err(format!("{step} was made {created} times"));
            }
        }
        if !consistent(trial, id).await? {
            return Err("the rows are not the fold of the events".to_owned());
        }
        self.check_record(trial, recovery).await
    }

    async fn check_record<J: MortalJournal>(&self, trial: &Trial<J>, recovery: Recovery) -> Result<(), String> {
        let record = trial.journal.record(&trial.uid).await.map_err(|error| chain(&error))?;
        if let Some(row) = record.iter().find(|row| !row.settled) {
            return Err(format!("the record of {} is not settled", row.step));
        }
        let mut steps: Vec<StepName> = record.into_iter().map(|row| row.step).collect();
        steps.sort();
        let populated = trial.world.populated();
        let unrecorded: Vec<_> = populated.iter().filter(|step| !steps.contains(step)).collect();
        let gone: Vec<_> = steps.iter().filter(|step| !populated.contains(step)).collect();
        // What vanished behind the back may stay on record until a run makes it again.
        let excused = |step: &StepName| recovery == Recovery::Backward && self.vanished.contains(step);
        if !unrecorded.is_empty() || gone.iter().any(|step| !excused(step)) {
            return Err(format!("on record but gone: {gone:?}; there but not on record: {unrecorded:?}"));
        }
        Ok(())
    }

    fn habit(&self, step: &StepName) -> Option<Habit> {
        let planned = self.plan.steps.iter().find(|planned| planned.name == *step)?;
        self.habits.get(&planned.kind).copied()
    }

    /// Every class and residue that a step's call can fail with, landed or not; never a residue that lies.
    #[must_use]
    pub fn faults(step: &StepName, times: u32) -> Vec<Fault> {
        let classes = [
            ErrorClass::Transient,
            ErrorClass::Throttled,
            ErrorClass::Propagation,
            ErrorClass::Conflict,
            ErrorClass::Quota,
            ErrorClass::Permission,
            ErrorClass::Permanent,
            ErrorClass::NeedsHuman,
        ];
        let left =
            [(Residue::None, false), (Residue::Unknown, false), (Residue::Unknown, true), (Residue::Present, true)];
        let mut faults = Vec::new();
        for class in classes {
            for (residue, landed) in left {
                faults.push(Fault { step: step.clone(), call: None, class, residue, landed, times });
            }
        }
        faults
    }
}

/// A failure with its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// The process dies there; `head` is where its journal stands.
pub fn arm<J: MortalJournal>(trial: &Trial<J>, crash: Crash, head: u64) {
    match crash {
        Crash::Event(event) => trial.journal.die_at(head + event),
        Crash::Call(call, moment) => trial.world.die_at(call, moment),
    }
}

fn revive<J: MortalJournal>(trial: &Trial<J>) {
    trial.world.heal();
    trial.journal.revive();
}

/// Whether the rows of a run are the fold of its events; true when there is no such run.
///
/// # Errors
/// What cannot be read.
pub async fn consistent<J: MortalJournal>(trial: &Trial<J>, id: &RunId) -> Result<bool, String> {
    let stored = match trial.journal.refold(id) {
        Err(JournalError::NotFound { .. }) => return Ok(true),
        other => other.map_err(|error| chain(&error))?,
    };
    let loaded = trial.load(id).await.map_err(|error| chain(&error))?;
    let steps = |run: &crate::fold::Run| -> Vec<Value> {
        run.steps().filter_map(|(_, state)| serde_json::to_value(state).ok()).collect()
    };
    Ok(stored.state == loaded.state && stored.head == loaded.head && steps(&stored) == steps(&loaded))
}

/// What an operator would do: `resume`, or `rollback`; nothing when it has ended as wanted already.
///
/// # Errors
/// What the engine or the journal refuses.
pub async fn recover<J: MortalJournal>(trial: &Trial<J>, id: &RunId, recovery: Recovery) -> Result<End, String> {
    let run = match trial.load(id).await {
        Ok(run) => run,
        Err(error) if error.is_death() => return Ok(End::Died),
        Err(error) => return Err(chain(&error)),
    };
    let direction = match (run.state.ending, recovery) {
        (Some(Ending::Done), Recovery::Forward) | (Some(Ending::RolledBack), Recovery::Backward) => {
            return Ok(run.state.ending.map_or(End::Died, |ending| End::Outcome(DriveOutcome::Finished(ending))));
        }
        (_, Recovery::Forward) => None,
        (_, Recovery::Backward) if run.state.is_backward() => None,
        (_, Recovery::Backward) => Some(backward()),
    };
    trial.resume(id, direction).await.map_err(|error| chain(&error))
}
