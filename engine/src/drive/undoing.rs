//! One undo of a step: take away what this run made, or put back what it changed.

use crate::clock::after;
use crate::drive::attempt::{Attempt, Outcome, failed};
use crate::event::Finding;
use crate::failure::{ErrorClass, Residue, StepError};
use crate::state::UndoMeaning;
use crate::step::{Observation, Ownership, Progress, UndoProgress};
use serde_json::Value;
use std::time::Duration;

/// After a call of unknown outcome, an absence proves nothing for so long: reads lag behind, even where a token makes the
/// call itself safe to repeat.
const BELIEVED_AFTER: Duration = Duration::from_secs(60);
/// How long a restore may take.
const RESTORE_BUDGET: Duration = Duration::from_secs(45 * 60);

/// The spec that a changed step had before: the record's, or the present one with what was found put back.
fn former_spec(attempt: &Attempt) -> Option<Value> {
    if let Some(prior) = &attempt.state.prior {
        return Some(prior.spec.clone());
    }
    let mut spec = attempt.state.spec.clone()?;
    let Some(Finding::Differs { differences }) = &attempt.state.finding else { return Some(spec) };
    for difference in differences {
        if let Some(slot) = spec.pointer_mut(&difference.field) {
            *slot = difference.found.clone();
        }
    }
    Some(spec)
}

impl Attempt {
    /// Undoes the step.
    pub(super) async fn backward(self, meaning: UndoMeaning) -> Outcome {
        match meaning {
            UndoMeaning::Remove => self.remove().await,
            UndoMeaning::Restore => self.restore().await,
            UndoMeaning::Keep => Outcome::Undone { evidence: "it was there before and was not changed".to_owned() },
        }
    }

    async fn remove(self) -> Outcome {
        let Some(spec) = self.state.spec.clone() else {
            return Outcome::Undone { evidence: "no attempt was ever made".to_owned() };
        };
        if let Some(outcome) = self.doubt_absence_of(&spec).await {
            return outcome;
        }
        if !self.kind.spares_strangers()
            && let Some(outcome) = self.spare_strangers(&spec).await
        {
            return outcome;
        }
        match self.kind.undo(&spec, &self.known, &self.context).await {
            Ok(UndoProgress::Gone { evidence }) => Outcome::Undone { evidence },
            Ok(UndoProgress::Waiting { reason, poll_in, budget }) => self.wait(reason, poll_in, budget),
            Ok(UndoProgress::Blocked { owner, remedy }) => Outcome::Exhausted(
                StepError::needs_human(format!("{} cannot be removed: {owner} stands in the way", self.name()))
                    .leaving(Residue::Present)
                    .with_code("Blocked")
                    .with_remedy(remedy),
            ),
            Err(error) => failed(error),
        }
    }

    /// Nothing is taken away that a look says is somebody else's, whatever the kind's own undo would do. A look that tells
    /// nothing leaves the decision to the undo, which looks again by its own means.
    async fn spare_strangers(&self, spec: &Value) -> Option<Outcome> {
        let Ok(Observation::Present { ownership: Ownership::Foreign(owner), .. }) =
            self.kind.observe(spec, &self.known, &self.context).await
        else {
            return None;
        };
        let name = self.name();
        if self.known.outputs.is_none() && self.known.notes.is_empty() {
            let evidence = format!("what is there belongs to {owner}; nothing of this step exists");
            return Some(Outcome::Undone { evidence });
        }
        Some(Outcome::Exhausted(
            StepError::needs_human(format!("what {name} made is on record, but what is there belongs to {owner}"))
                .leaving(Residue::Unknown)
                .with_code("Foreign")
                .with_remedy(format!(
                    "it is left alone; keep it with --keep {name}, or strike it off the record with: platflow forget {} --step {name} --confirm {0}",
                    self.context.environment
                )),
        ))
    }

    /// Looks first where an earlier call may still show; what is there is undone, what is not may be late.
    async fn doubt_absence_of(&self, spec: &Value) -> Option<Outcome> {
        let now = self.context.now();
        let end = after(self.uncertain_since?, self.settle.max(BELIEVED_AFTER));
        if now >= end {
            return None;
        }
        match self.kind.observe(spec, &self.known, &self.context).await {
            Ok(Observation::Absent) => {
                let reason = "making sure that an earlier call left nothing".to_owned();
                let poll_at = after(now, Duration::from_secs(10)).min(end);
                Some(Outcome::Settling { reason, poll_at, end })
            }
            Ok(Observation::Unknown { reason }) => Some(failed(StepError::transient(reason))),
            Ok(Observation::Present { .. } | Observation::Changing { .. }) => None,
            // Broken as it is, it is there.
            Err(error) if error.terminal => None,
            // What nobody can look at, its undo decides about by its own means.
            Err(error) if error.class == ErrorClass::NeedsHuman => None,
            // A look that can never succeed (the manifest is another by now) must not keep the undo away for good; but its
            // own means are reads too, so it comes when an absence may be believed.
            Err(error) if error.class == ErrorClass::Permanent => {
                let reason = format!("it cannot be looked at ({}); waiting until reads are settled", error.message);
                Some(Outcome::Settling { reason, poll_at: end, end })
            }
            Err(error) => Some(failed(error)),
        }
    }

    async fn restore(self) -> Outcome {
        let Some(spec) = former_spec(&self) else {
            return Outcome::Undone { evidence: "no attempt was ever made".to_owned() };
        };
        let seen = match self.kind.observe(&spec, &self.known, &self.context).await {
            Ok(seen) => seen,
            Err(error) => return failed(error),
        };
        match &seen {
            Observation::Present { ownership: Ownership::Ours, differences, .. } if differences.is_empty() => {
                return Outcome::Undone { evidence: "it is again as it was before this run".to_owned() };
            }
            Observation::Present { ownership: Ownership::Foreign(owner), .. } => {
                return Outcome::Exhausted(
                    StepError::needs_human(format!("{} now belongs to {owner}", self.name())).with_code("Foreign"),
                );
            }
            Observation::Changing { reason, poll_in } => return self.wait(reason.clone(), *poll_in, RESTORE_BUDGET),
            Observation::Unknown { reason } => return failed(StepError::transient(reason.clone())),
            Observation::Present { .. } | Observation::Absent => {}
        }
        match self.kind.apply(&spec, &seen, &self.known, &self.context).await {
            Ok(Progress::Done { .. }) => self.wait(
                "putting it back, to be confirmed by a look".to_owned(),
                Duration::from_millis(500),
                RESTORE_BUDGET,
            ),
            Ok(Progress::Waiting { reason, poll_in, budget }) => self.wait(reason, poll_in, budget),
            Err(error) => failed(error),
        }
    }
}
