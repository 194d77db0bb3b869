//! The folded state of a run and of its steps: what every event so far adds up to.
//!
//! Only `transition` changes these types; serialised, they are the cached fold that the store keeps beside the events.

use crate::event::{Direction, Effect, Ending, Finding, Notes, ParkReason, Prior};
use crate::failure::{Residue, StepError};
use crate::journal::{RunStatus, Sequence};
use crate::name::{EnvironmentName, EnvironmentUid};
use crate::plan::OnFailure;
use crate::survey::ResidueCertificate;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Where a step stands.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Phase {
    /// Nothing happened yet.
    #[default]
    Pending,
    /// An attempt is under way.
    Intended,
    /// The attempt waits for the world.
    Waiting {
        /// What for.
        reason: String,
        /// When to look again.
        poll_at: Timestamp,
        /// When to give up.
        deadline: Timestamp,
    },
    /// Accepted, not confirmed by a look yet.
    Applied,
    /// An owner vanished in the middle of an attempt: nothing is known until it was observed.
    Unknown,
    /// Present without differences.
    Verified,
    /// The last attempt failed.
    Failed {
        /// Why, and what it left.
        error: StepError,
        /// When the engine tries again by itself; without it, the operator decides.
        retry_at: Option<Timestamp>,
    },
    /// `when` was false, or what it needs was skipped.
    Skipped {
        /// Why.
        reason: String,
    },
    /// An undo attempt is under way.
    Undoing,
    /// The undo waits for the world.
    UndoWaiting {
        /// What for.
        reason: String,
        /// When to look again.
        poll_at: Timestamp,
        /// When to give up.
        deadline: Timestamp,
    },
    /// An owner vanished in the middle of an undo.
    UndoUnknown,
    /// The last undo attempt failed.
    UndoFailed {
        /// Why.
        error: StepError,
        /// When the engine tries again by itself.
        retry_at: Option<Timestamp>,
    },
    /// Proven gone, or restored.
    Undone {
        /// Which look proved it.
        evidence: String,
    },
    /// Left in place on purpose.
    Kept {
        /// Why.
        reason: String,
    },
    /// Struck off the record by the operator; nobody looked what became of it.
    Forgotten {
        /// Who asked for it.
        by: String,
    },
}

impl Phase {
    /// The stable name, as in lists and SQL.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Intended => "intended",
            Self::Waiting { .. } => "waiting",
            Self::Applied => "applied",
            Self::Unknown => "unknown",
            Self::Verified => "verified",
            Self::Failed { .. } => "failed",
            Self::Skipped { .. } => "skipped",
            Self::Undoing => "undoing",
            Self::UndoWaiting { .. } => "undo-waiting",
            Self::UndoUnknown => "undo-unknown",
            Self::UndoFailed { .. } => "undo-failed",
            Self::Undone { .. } => "undone",
            Self::Kept { .. } => "kept",
            Self::Forgotten { .. } => "forgotten",
        }
    }

    /// True when a forward run has nothing more to do for it.
    #[must_use]
    pub fn settles_forward(&self) -> bool {
        matches!(self, Self::Verified | Self::Skipped { .. })
    }

    /// True when a rollback has nothing more to do for it.
    #[must_use]
    pub fn settles_backward(&self) -> bool {
        matches!(
            self,
            Self::Pending | Self::Skipped { .. } | Self::Undone { .. } | Self::Kept { .. } | Self::Forgotten { .. }
        )
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn zero(count: &u32) -> bool {
    *count == 0
}

/// Where the larger parts of a step's state are written: they are not written twice. Where something stands is not what
/// it is, so any two of these are equal.
#[derive(Debug, Clone, Copy, Default)]
pub struct Grounds {
    /// The event that its spec and the record before this run come from; 0 if it has none.
    pub intent: Sequence,
    /// The event that its outputs come from; 0 if it has none.
    pub outcome: Sequence,
    /// How much more than these two events there is to tell.
    pub story: Story,
}

impl PartialEq for Grounds {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

/// Whether a step's state follows from two events alone: that of most steps of most runs does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Story {
    /// Nothing happened.
    #[default]
    Untold,
    /// It was intended once, and then perhaps verified at once.
    Plain,
    /// More than that: the state has to be written out.
    Told,
}

/// What the environment's record of a step is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnRecord {
    /// Nothing of this run: what earlier runs left on record stands, if anything does.
    #[default]
    No,
    /// Its state in this run, between an intent and its outcome.
    Unsettled,
    /// Its state in this run, verified.
    Settled,
    /// What was on record before this run, put back.
    Restored,
}

impl OnRecord {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
    fn is_no(&self) -> bool {
        *self == Self::No
    }

    /// True when the record of the step is read from its state in this run.
    #[must_use]
    pub fn is_own(self) -> bool {
        matches!(self, Self::Unsettled | Self::Settled)
    }
}

/// A step as the events made it. Most of it is empty most of the time, and is not written then.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct StepState {
    /// Where it stands.
    pub phase: Phase,
    /// Forward attempts of this run.
    #[serde(default, skip_serializing_if = "zero")]
    pub attempt: u32,
    /// Undo attempts of this run.
    #[serde(default, skip_serializing_if = "zero")]
    pub undo_attempt: u32,
    /// Part of its tokens.
    #[serde(default, skip_serializing_if = "zero")]
    pub generation: u32,
    /// The evaluated spec of the last intent, or of the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<Value>,
    /// The environment's record before this run touched it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prior: Option<Prior>,
    /// What the look before the first mutation found, where it was not as recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<Finding>,
    /// Ids noted in the middle of an attempt.
    #[serde(default, skip_serializing_if = "Notes::is_empty")]
    pub notes: Notes,
    /// Outputs, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Value>,
    /// What it did to the world, once verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<Effect>,
    /// First intent of this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intended_at: Option<Timestamp>,
    /// Last intent, verification, failure or end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<Timestamp>,
    /// A mutating call of an attempt may have had an effect that no look has confirmed or denied.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub uncertain: bool,
    /// When the current series of failures of one class began: budgets count from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<Timestamp>,
    /// Failures in that series.
    #[serde(default, skip_serializing_if = "zero")]
    pub failures: u32,
    /// Its last failure was that of something that will never be right: going on means removing that first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub broken: bool,
    /// It exists because earlier runs made it (a destroy run).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recorded: bool,
    /// What the environment's record of it is made of.
    #[serde(default, skip_serializing_if = "OnRecord::is_no")]
    pub on_record: OnRecord,
    /// Where spec, prior and outputs are written.
    #[serde(skip)]
    pub grounds: Grounds,
}

impl StepState {
    /// True when the world may hold something because of this run.
    #[must_use]
    pub fn touched(&self) -> bool {
        match &self.phase {
            Phase::Pending
            | Phase::Skipped { .. }
            | Phase::Undone { .. }
            | Phase::Kept { .. }
            | Phase::Forgotten { .. } => false,
            Phase::Failed { error, .. } => error.residue != Residue::None || self.uncertain || self.outputs.is_some(),
            Phase::Intended
            | Phase::Waiting { .. }
            | Phase::Applied
            | Phase::Unknown
            | Phase::Verified
            | Phase::Undoing
            | Phase::UndoWaiting { .. }
            | Phase::UndoUnknown
            | Phase::UndoFailed { .. } => true,
        }
    }

    /// The error shown for it, if its last attempt failed.
    #[must_use]
    pub fn error(&self) -> Option<&StepError> {
        match &self.phase {
            Phase::Failed { error, .. } | Phase::UndoFailed { error, .. } => Some(error),
            Phase::Pending
            | Phase::Intended
            | Phase::Waiting { .. }
            | Phase::Applied
            | Phase::Unknown
            | Phase::Verified
            | Phase::Skipped { .. }
            | Phase::Undoing
            | Phase::UndoWaiting { .. }
            | Phase::UndoUnknown
            | Phase::Undone { .. }
            | Phase::Kept { .. }
            | Phase::Forgotten { .. } => None,
        }
    }

    /// What undoing it means.
    #[must_use]
    pub fn undo_meaning(&self) -> UndoMeaning {
        if self.recorded {
            return UndoMeaning::Remove;
        }
        match (&self.finding, &self.prior, self.effect) {
            (Some(Finding::Missing), _, _) => UndoMeaning::Remove,
            (Some(Finding::Differs { .. }), _, _) => UndoMeaning::Restore,
            // Without a finding nothing recorded was ever mutated, and what was found right was never touched.
            (None, Some(_), _) | (None, None, Some(Effect::Unchanged)) => UndoMeaning::Keep,
            (None, None, Some(Effect::Created | Effect::Changed) | None) => UndoMeaning::Remove,
        }
    }
}

/// What undoing a step means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UndoMeaning {
    /// This run made it: take it away.
    Remove,
    /// This run changed it: put it back.
    Restore,
    /// It was there and right before: leave it.
    Keep,
}

/// The run itself as the events made it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    /// What it builds.
    pub environment: EnvironmentName,
    /// Its uid.
    pub environment_uid: EnvironmentUid,
    /// What it is pinned to.
    pub plan_digest: String,
    /// What happens when a step fails for good.
    pub on_failure: OnFailure,
    /// Version of the binary that started it.
    pub version: String,
    /// Where it is headed.
    pub direction: Direction,
    /// Why it stopped, if it did.
    pub parked: Option<ParkReason>,
    /// How it ended, if it did.
    pub ending: Option<Ending>,
    /// It had ended as done before it was rolled back.
    pub was_done: bool,
    /// Begun from the environment's record.
    pub destroy: bool,
    /// Epoch of the last owner.
    pub epoch: u64,
    /// When it started, on the engine's clock.
    pub started_at: Timestamp,
    /// When it ended or parked.
    pub ended_at: Option<Timestamp>,
    /// What the search after the last undo came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<ResidueCertificate>,
}

impl RunState {
    /// The status that lists and locks need.
    #[must_use]
    pub fn status(&self) -> RunStatus {
        match (self.ending, &self.parked, &self.direction) {
            (Some(Ending::Done), _, _) => RunStatus::Done,
            (Some(Ending::RolledBack), _, _) => RunStatus::RolledBack,
            (Some(Ending::Abandoned), _, _) => RunStatus::Abandoned,
            (None, Some(_), _) => RunStatus::Parked,
            (None, None, Direction::Forward) => RunStatus::Running,
            (None, None, Direction::Backward { .. }) => RunStatus::RollingBack,
        }
    }

    /// True while undoing.
    #[must_use]
    pub fn is_backward(&self) -> bool {
        matches!(self.direction, Direction::Backward { .. })
    }
}
