//! What comes back from tasks, made into facts and timers.

use super::{Cycle, Report};
use crate::clock::after;
use crate::drive::DriveError;
use crate::drive::attempt::Outcome;
use crate::event::Event;
use crate::failure::{Residue, StepError};
use crate::graph::StepIndex;
use crate::name::StepName;
use crate::retry;
use crate::state::Phase;
use jiff::Timestamp;
use serde_json::Value;
use std::time::Duration;

impl Cycle<'_> {
    pub(super) fn take(&mut self, report: Report) -> Result<(), DriveError> {
        match report {
            Report::Record { event, acknowledge } => {
                self.fact(event)?;
                self.acknowledgements.push(acknowledge);
                Ok(())
            }
            Report::Surveyed(findings) => self.surveyed(findings),
            Report::Done { index, outcome } => {
                self.running.remove(&index);
                self.outcome(index, outcome)
            }
        }
    }

    fn outcome(&mut self, index: StepIndex, outcome: Outcome) -> Result<(), DriveError> {
        let Some(step) = self.run.graph.step(index).map(|step| step.name.clone()) else { return Ok(()) };
        let at = self.engine.clock.now();
        match outcome {
            Outcome::Verified { outputs, effect } => {
                self.uncertain_since.remove(&index);
                self.fact(Event::StepVerified { step, outputs, effect, at })
            }
            Outcome::Undone { evidence } => {
                self.uncertain_since.remove(&index);
                self.fact(Event::StepUndone { step, evidence, at })
            }
            Outcome::Applied { outputs, poll_at, deadline } => self.applied(index, step, outputs, poll_at, deadline),
            Outcome::Waiting { reason, poll_at, deadline, accepted } => {
                self.deadlines.insert(index, deadline);
                if accepted {
                    self.accepted(index, at);
                }
                self.waiting(index, step, reason, poll_at, deadline)
            }
            Outcome::Settling { reason, poll_at, end } => self.waiting(index, step, reason, poll_at, end),
            Outcome::Failed(error) => self.failed(index, step, error, true),
            Outcome::Exhausted(error) => self.failed(index, step, error, false),
            Outcome::Stopped if self.stopping.is_cancelled() => Ok(()),
            Outcome::Stopped => {
                // A call was refused though nobody stops this drive: either the lease is gone, and so are we, or it was
                // too short for a moment.
                self.engine.journal.lease_left(self.lease)?;
                self.timer(index, after(at, Duration::from_secs(1)));
                Ok(())
            }
        }
    }

    /// From here on an absence is a fresh acceptance that does not show yet, not an old uncertainty.
    fn accepted(&mut self, index: StepIndex, at: Timestamp) {
        self.uncertain_since.remove(&index);
        self.accepted_at.insert(index, at);
    }

    fn applied(
        &mut self,
        index: StepIndex,
        step: StepName,
        outputs: Value,
        poll_at: Timestamp,
        deadline: Timestamp,
    ) -> Result<(), DriveError> {
        self.deadlines.insert(index, deadline);
        self.timer(index, poll_at);
        let known = self
            .run
            .at(index)
            .is_some_and(|state| matches!(state.phase, Phase::Applied) && state.outputs.as_ref() == Some(&outputs));
        if known { Ok(()) } else { self.fact(Event::StepApplied { step, outputs }) }
    }

    fn waiting(
        &mut self,
        index: StepIndex,
        step: StepName,
        reason: String,
        poll_at: Timestamp,
        deadline: Timestamp,
    ) -> Result<(), DriveError> {
        self.timer(index, poll_at);
        let Some(state) = self.run.at(index) else { return Ok(()) };
        let told = match &state.phase {
            Phase::Waiting { reason: told, .. } | Phase::UndoWaiting { reason: told, .. } => *told == reason,
            _ => false,
        };
        // The wait is durable with its deadline; every single poll need not be.
        if told {
            return Ok(());
        }
        let backward = matches!(state.phase, Phase::Undoing | Phase::UndoWaiting { .. });
        self.fact(if backward {
            Event::UndoWaiting { step, reason, poll_at, deadline }
        } else {
            Event::StepWaiting { step, reason, poll_at, deadline }
        })
    }

    fn failed(&mut self, index: StepIndex, step: StepName, error: StepError, again: bool) -> Result<(), DriveError> {
        let at = self.engine.clock.now();
        let Some(state) = self.run.at(index) else { return Ok(()) };
        let since = state.failing_since.unwrap_or(at);
        let retry_for = self.run.graph.step(index).and_then(|planned| planned.retry_for);
        let clock = &*self.engine.clock;
        let retry_at = if again { retry::next(&error, state.failures + 1, since, at, retry_for, clock) } else { None };
        if error.residue != Residue::None {
            self.uncertain_since.insert(index, at);
        }
        let backward = matches!(state.phase, Phase::Undoing | Phase::UndoWaiting { .. });
        self.fact(if backward {
            Event::UndoFailed { step, error, retry_at, at }
        } else {
            Event::StepFailed { step, error, retry_at, at }
        })?;
        if let Some(retry_at) = retry_at {
            self.timer(index, retry_at);
        }
        Ok(())
    }
}
