//! One forward look-and-apply of a step: observe, and only then, if the look says so, apply and look again.
//!
//! Pure of bookkeeping: what it found and did goes back to the loop as an [`Outcome`].

use crate::clock::after;
use crate::context::Context;
use crate::drive::guard::Guard;
use crate::event::{Effect, Finding};
use crate::failure::{ErrorClass, Residue, StepError};
use crate::foreign;
use crate::name::StepName;
use crate::scope;
use crate::state::{Phase, StepState};
use crate::step::{Difference, Known, Observation, Ownership, Progress, Step, UndoProgress};
use jiff::Timestamp;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// How long a wait whose step names no budget may take.
const DEFAULT_BUDGET: Duration = Duration::from_secs(30 * 60);
/// How long an accepted change may take to show in a look.
const CONFIRMATION: Duration = Duration::from_secs(180);

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    /// Present without differences.
    Verified { outputs: Value, effect: Effect },
    /// Accepted, but a look does not confirm it yet.
    Applied { outputs: Value, poll_at: Timestamp, deadline: Timestamp },
    /// The world works on it; `accepted` when this very attempt made the call.
    Waiting { reason: String, poll_at: Timestamp, deadline: Timestamp, accepted: bool },
    /// An absence is not believed yet: an earlier call may still show.
    Settling { reason: String, poll_at: Timestamp, end: Timestamp },
    /// Failed; the retry schedule decides.
    Failed(StepError),
    /// Failed, and trying again by itself would be a guess.
    Exhausted(StepError),
    /// Proven gone, or restored.
    Undone { evidence: String },
    /// The engine is stopping; nothing is to be journaled.
    Stopped,
}

/// What a verb needs, taken from the fold when it was spawned.
pub(super) struct Attempt {
    /// How long the step may take in all, if its plan says so.
    pub(super) timeout: Option<Duration>,
    pub(super) kind: Arc<dyn Step>,
    pub(super) settle: Duration,
    pub(super) state: StepState,
    pub(super) known: Known,
    /// This run has never made a mutating call for the step.
    pub(super) virgin: bool,
    /// Since when an absence may be read lag.
    pub(super) uncertain_since: Option<Timestamp>,
    /// When a call of this owner was last accepted for the step.
    pub(super) accepted_at: Option<Timestamp>,
    /// The end of the wait that this look belongs to.
    pub(super) deadline: Option<Timestamp>,
    pub(super) context: Context,
    pub(super) guard: Arc<Guard>,
    /// It was not chosen, and something chosen needs it.
    pub(super) only_looks: bool,
}

pub(super) fn failed(error: StepError) -> Outcome {
    if error.code.as_deref() == Some("Stopped") { Outcome::Stopped } else { Outcome::Failed(error) }
}

impl Attempt {
    pub(super) fn name(&self) -> &StepName {
        &self.context.step
    }

    fn spec(&self) -> &Value {
        self.state.spec.as_ref().unwrap_or(&Value::Null)
    }

    /// The deadline of a wait: the one it already has, the step's own timeout, or what the step asks for.
    pub(super) fn until(&self, budget: Duration) -> Timestamp {
        if let Some(deadline) = self.deadline {
            return deadline;
        }
        let own = self.timeout.and_then(|timeout| Some(after(self.state.changed_at?, self.context.patience(timeout))));
        own.unwrap_or_else(|| after(self.context.now(), self.context.patience(budget)))
    }

    /// A wait, unless its time is up.
    pub(super) fn wait(&self, reason: String, poll_in: Duration, budget: Duration) -> Outcome {
        let now = self.context.now();
        let deadline = self.until(budget);
        if now >= deadline {
            let error = StepError::transient(format!("gave up waiting: {reason}"))
                .leaving(Residue::Present)
                .with_code("WaitExhausted")
                .with_remedy("resume waits again; see what the cloud says about it first");
            return Outcome::Exhausted(error);
        }
        let poll_at = after(now, poll_in.max(Duration::from_millis(100))).min(deadline);
        Outcome::Waiting { reason, poll_at, deadline, accepted: false }
    }

    fn effect(&self) -> Effect {
        match (&self.state.finding, &self.state.prior) {
            (Some(Finding::Missing), _) => Effect::Created,
            (Some(Finding::Differs { .. }), _) => Effect::Changed,
            (None, Some(_)) => Effect::Unchanged,
            (None, None) if self.virgin => Effect::Unchanged,
            (None, None) => Effect::Created,
        }
    }

    /// Looks, and acts on what it saw.
    pub(super) async fn forward(mut self) -> Outcome {
        let seen = match self.kind.observe(self.spec(), &self.known, &self.context).await {
            Ok(seen) => seen,
            Err(error) if error.terminal && self.may_clear_away() => return self.clear_away().await,
            Err(error) => return failed(self.look_failed(error)),
        };
        match &seen {
            Observation::Absent if self.only_looks => {
                return Outcome::Exhausted(scope::missing(self.name(), &self.context.run));
            }
            Observation::Present { outputs, ownership: Ownership::Ours, .. } if self.only_looks => {
                return Outcome::Verified { outputs: outputs.clone(), effect: Effect::Unchanged };
            }
            Observation::Present { outputs, ownership: Ownership::Ours, differences } if differences.is_empty() => {
                return Outcome::Verified { outputs: outputs.clone(), effect: self.effect() };
            }
            Observation::Present { ownership: Ownership::Foreign(owner), .. } => {
                return Outcome::Exhausted(foreign(owner, &self.context));
            }
            Observation::Present { differences, .. } => {
                if let Some(difference) = differences.iter().find(|difference| difference.replace) {
                    return Outcome::Exhausted(replacement(self.name(), difference));
                }
                let finding = Finding::Differs { differences: differences.clone() };
                if let Err(error) = self.note_finding(finding, self.virgin || self.state.prior.is_some()).await {
                    return failed(error);
                }
            }
            Observation::Changing { reason, poll_in } => {
                return self.wait(reason.clone(), *poll_in, DEFAULT_BUDGET);
            }
            Observation::Unknown { reason } => {
                let error = StepError::transient(format!("it could not be told what is there: {reason}"));
                return failed(self.look_failed(error));
            }
            Observation::Absent => {
                if let Some(outcome) = self.doubt_absence() {
                    return outcome;
                }
                let counts = self.state.prior.is_some() || self.state.broken;
                if let Err(error) = self.note_finding(Finding::Missing, counts).await {
                    return failed(error);
                }
            }
        }
        self.apply(&seen).await
    }

    /// Something broken may be removed without asking when it never worked, and an operator has seen how it failed and
    /// went on all the same: nothing can depend on it.
    fn may_clear_away(&self) -> bool {
        self.state.broken
            && !self.only_looks
            && self.state.prior.is_none()
            && self.state.effect.is_none()
            && !matches!(self.state.finding, Some(Finding::Differs { .. }))
    }

    /// Removes what failed for good; the look that finds it gone raises the generation, and with it every token.
    async fn clear_away(self) -> Outcome {
        match self.kind.undo(self.spec(), &self.known, &self.context).await {
            Ok(UndoProgress::Gone { .. }) => {
                let reason = "what failed is removed; it is built again".to_owned();
                self.wait(reason, Duration::from_millis(500), DEFAULT_BUDGET)
            }
            Ok(UndoProgress::Waiting { reason, poll_in, budget }) => {
                self.wait(format!("removing what failed, to build it again: {reason}"), poll_in, budget)
            }
            Ok(UndoProgress::Blocked { owner, remedy }) => Outcome::Exhausted(
                StepError::needs_human(format!("what failed cannot be removed: {owner} stands in the way"))
                    .leaving(Residue::Present)
                    .with_code("Blocked")
                    .with_remedy(remedy),
            ),
            Err(error) => failed(error),
        }
    }

    /// An absence that may be read lag, or an acceptance that does not show yet.
    fn doubt_absence(&self) -> Option<Outcome> {
        let now = self.context.now();
        if let Some(since) = self.uncertain_since {
            let end = after(since, self.settle);
            if now < end {
                let poll_in = (self.settle / 4).clamp(Duration::from_secs(1), Duration::from_secs(15));
                let reason = "making sure that an earlier call left nothing before it is repeated".to_owned();
                return Some(Outcome::Settling { reason, poll_at: after(now, poll_in).min(end), end });
            }
        }
        if matches!(self.state.phase, Phase::Applied) {
            let outputs = self.state.outputs.clone().unwrap_or(Value::Null);
            return Some(self.unconfirmed(outputs));
        }
        // A call was accepted; what it makes may take a moment to be seen.
        // Kinds without a settle window make calls that may be repeated: tokens, unique names, state-setting.
        let visible = after(self.accepted_at?, self.settle);
        (now < visible).then(|| self.wait("accepted, not visible yet".to_owned(), Duration::from_secs(5), CONFIRMATION))
    }

    async fn note_finding(&mut self, finding: Finding, wanted: bool) -> Result<(), StepError> {
        // What was broken is missed anew each time it was removed: each time its tokens must change.
        if !wanted || (self.state.finding.is_some() && !self.state.broken) {
            return Ok(());
        }
        self.guard.found(&self.context.step, finding.clone()).await?;
        if finding == Finding::Missing {
            self.context.generation = self.context.generation.saturating_add(1);
            // What is built again has the time that building takes, whatever its predecessor took.
            self.deadline = None;
            self.state.broken = false;
        }
        self.state.finding = Some(finding);
        Ok(())
    }

    fn look_failed(&self, mut error: StepError) -> StepError {
        // Looking changes nothing: what is left is what was left before.
        if error.terminal {
            return error;
        }
        error.residue = match (self.virgin, &self.state.phase) {
            (true, Phase::Intended) => Residue::None,
            (_, Phase::Waiting { .. } | Phase::Applied) => Residue::Present,
            _ => Residue::Unknown,
        };
        error
    }

    async fn apply(mut self, seen: &Observation) -> Outcome {
        self.virgin = false;
        let outputs = match self.kind.apply(self.spec(), seen, &self.known, &self.context).await {
            Ok(Progress::Done { outputs }) => outputs,
            Ok(Progress::Waiting { reason, poll_in, budget }) => return accepted(self.wait(reason, poll_in, budget)),
            Err(error) => return failed(error),
        };
        self.known.outputs = Some(outputs.clone());
        self.known.notes.extend(self.guard.noted(self.name()));
        match self.kind.observe(self.spec(), &self.known, &self.context).await {
            Ok(Observation::Present { outputs, ownership: Ownership::Ours, differences }) if differences.is_empty() => {
                Outcome::Verified { outputs, effect: self.effect() }
            }
            Ok(Observation::Changing { reason, poll_in }) => accepted(self.wait(reason, poll_in, DEFAULT_BUDGET)),
            Ok(_) | Err(_) => self.unconfirmed(outputs),
        }
    }

    fn unconfirmed(&self, outputs: Value) -> Outcome {
        let now = self.context.now();
        let deadline =
            self.deadline.unwrap_or_else(|| after(now, self.context.patience(CONFIRMATION.max(self.settle))));
        if now >= deadline {
            let error = StepError::new(ErrorClass::Propagation, "applied, but a look never confirmed it")
                .leaving(Residue::Present)
                .with_code("NotConfirmed");
            return Outcome::Exhausted(error);
        }
        Outcome::Applied { outputs, poll_at: after(now, Duration::from_secs(3)).min(deadline), deadline }
    }
}

fn accepted(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Waiting { reason, poll_at, deadline, .. } => {
            Outcome::Waiting { reason, poll_at, deadline, accepted: true }
        }
        other => other,
    }
}

/// A step of this very environment was renamed in the runbook: there is nothing to take over.
fn ways_out(owner: &str, context: &Context) -> String {
    match foreign::named(owner) {
        Some((_, uid)) if uid == context.environment_uid => format!(
            "it is another step of environment {}: give the step its old name in the runbook again, and run that",
            context.environment
        ),
        _ => foreign::ways_out(owner),
    }
}

fn foreign(owner: &str, context: &Context) -> StepError {
    StepError::needs_human(format!("what {} wants exists already and belongs to {owner}", context.step))
        .leaving(Residue::None)
        .with_code("Foreign")
        .with_remedy(ways_out(owner, context))
}

fn replacement(step: &StepName, difference: &Difference) -> StepError {
    StepError::needs_human(format!(
        "{step} differs in {} (wanted {}, found {}), which cannot be changed in place",
        difference.field, difference.wanted, difference.found
    ))
    .leaving(Residue::Present)
    .with_code("ReplacementNeeded")
    .with_remedy("set the parameter back, or roll the step back and run again")
}
