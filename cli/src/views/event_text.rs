//! One line of text per journaled event: the same words in live progress, plain lines and `logs`.

use crate::views::residue;
use platflow_engine::event::{Effect, Ending, Event, Finding, ParkReason};
use platflow_engine::name::StepName;

/// Describes an event for people.
#[must_use]
pub(crate) fn describe(event: &Event) -> String {
    match event {
        Event::RunStarted { environment, plan_digest, .. } => {
            format!("run started for {environment}, plan {}", plan_digest.get(..12).unwrap_or(plan_digest))
        }
        Event::StepRecorded { step, .. } => format!("{step}: on record"),
        Event::OwnerChanged { epoch, owner, .. } => format!("taken over by {owner} (epoch {epoch})"),
        Event::DirectionSet { direction, .. } => match direction {
            platflow_engine::event::Direction::Forward => "direction: forward".to_owned(),
            platflow_engine::event::Direction::Backward { cause, to: None, .. } => {
                format!("direction: rollback ({cause})")
            }
            platflow_engine::event::Direction::Backward { cause, to: Some(step), .. } => {
                format!("direction: rollback to {step} ({cause})")
            }
        },
        Event::StepIntended { step, attempt, .. } if *attempt > 1 => format!("{step}: attempt {attempt}"),
        Event::StepIntended { step, .. } => format!("{step}: started"),
        Event::StepNoted { step, key, value } => format!("{step}: noted {key} = {value}"),
        Event::StepFound { step, finding } => match finding {
            Finding::Missing => format!("{step}: on record but missing"),
            Finding::Differs { differences } => format!("{step}: differs in {} field(s)", differences.len()),
        },
        Event::StepWaiting { step, reason, .. } => format!("{step}: waiting: {reason}"),
        Event::StepApplied { step, .. } => format!("{step}: applied, not confirmed yet"),
        Event::StepVerified { step, effect, .. } => format!("{step}: verified ({})", effect_word(*effect)),
        Event::StepFailed { step, error, .. } if error.is_awaited() => format!("{step}: {}", error.message),
        Event::StepFailed { step, error, retry_at, .. } => {
            failure(step, "failed", &error.to_string(), retry_at.is_some())
        }
        Event::StepSkipped { step, reason } => format!("{step}: skipped: {reason}"),
        Event::UndoIntended { step, .. } => format!("{step}: undoing"),
        Event::UndoWaiting { step, reason, .. } => format!("{step}: undoing, waiting: {reason}"),
        Event::UndoFailed { step, error, retry_at, .. } => {
            failure(step, "undo failed", &error.to_string(), retry_at.is_some())
        }
        Event::StepUndone { step, evidence, .. } => format!("{step}: undone: {evidence}"),
        Event::StepKept { step, reason } => format!("{step}: kept: {reason}"),
        Event::StepForgotten { step, by, .. } => format!("{step}: struck off the record by {by}; nothing was touched"),
        Event::ResidueSurveyed { certificate } => residue::headline(certificate),
        Event::RunParked { reason, .. } => format!("run parked: {}", park_reason(reason)),
        Event::RunResumed { .. } => "run resumed".to_owned(),
        Event::RunFinished { ending, .. } => match ending {
            Ending::Done => "run done".to_owned(),
            Ending::RolledBack => "run rolled back".to_owned(),
            Ending::Abandoned => "run abandoned".to_owned(),
        },
    }
}

/// What a step that was done wants the operator to know.
#[must_use]
pub(crate) fn warnings(event: &Event) -> Vec<String> {
    let Event::StepVerified { step, outputs, .. } = event else { return Vec::new() };
    let told = outputs.get("warnings").and_then(serde_json::Value::as_array).into_iter().flatten();
    told.filter_map(serde_json::Value::as_str).map(|warning| format!("warning: {step}: {warning}")).collect()
}

fn failure(step: &StepName, what: &str, error: &str, again: bool) -> String {
    let suffix = if again { ", will try again" } else { "" };
    format!("{step}: {what}: {error}{suffix}")
}

/// The word for what a verified step did.
#[must_use]
pub(crate) fn effect_word(effect: Effect) -> &'static str {
    match effect {
        Effect::Unchanged => "unchanged",
        Effect::Created => "created",
        Effect::Changed => "changed",
    }
}

/// Why a run stopped, for people.
#[must_use]
pub(crate) fn park_reason(reason: &ParkReason) -> String {
    match reason {
        ParkReason::StepFailed { steps } => format!("{} failed", join(steps)),
        ParkReason::NeedsHuman { what, .. } => what.clone(),
        ParkReason::RolledBackTo { step } => format!("rolled back to {step}"),
        ParkReason::Interrupted => "interrupted".to_owned(),
        ParkReason::Waiting { steps } => format!("{} waits for a decision", join(steps)),
    }
}

fn join(steps: &[StepName]) -> String {
    steps.iter().map(StepName::as_str).collect::<Vec<_>>().join(", ")
}
