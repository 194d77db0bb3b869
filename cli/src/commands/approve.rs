//! `platflow approve`: say yes to a step that waits for a human. The decision is kept beside the state file, durably and
//! once; the step makes it part of the journal (who, when, why) when the run is gone on with.

use crate::arguments::{Decide, OutputFormat};
use crate::commands::forget;
use crate::execution;
use crate::failure::{CommandError, ExitCode};
use crate::settings::Settings;
use crate::views::output;
use crate::wiring;
use platflow_engine::fold::Run;
use platflow_engine::journal::{Journal, RunSummary};
use platflow_engine::name::StepName;
use platflow_engine::plan::PlannedStep;
use platflow_engine::state::{Phase, StepState};
use platflow_steps::core::{ApprovalFolder, Decision};
use serde_json::{Value, json};

/// Approves.
///
/// # Errors
/// An unknown run or step (2), nothing that waits (2), a decision that was made already (6).
pub(crate) async fn execute(arguments: Decide, settings: &Settings) -> Result<ExitCode, CommandError> {
    decide(arguments, true, settings).await
}

/// Decides on the step that was named, or on the only one that waits.
///
/// # Errors
/// See [`execute`].
pub(super) async fn decide(arguments: Decide, approved: bool, settings: &Settings) -> Result<ExitCode, CommandError> {
    let store = wiring::open_store(settings)?;
    let id = store.find(&arguments.run.run).await.map_err(wiring::journal_error)?;
    let loaded = store.load(&id).await.map_err(wiring::journal_error)?;
    let summary = loaded.summary.clone();
    let run = Run::load(loaded).map_err(|error| execution::drive_error(error.into()))?;
    let approvals = wiring::approvals(settings);
    let step = choose(&run, &summary, arguments.step.as_deref(), &approvals)?;
    let by = wiring::this_process()?.user;
    refuse_stranger(&run, &step, &by)?;
    let Some(row) = store.environment(&summary.environment).await.map_err(wiring::journal_error)? else {
        return Err(CommandError::new(ExitCode::Internal, format!("run {id} has no environment on record")));
    };
    let at = forget::now(settings, &row).await?;
    let decision = Decision { approved, by, at, reason: arguments.reason };
    let kept = approvals.decide(&id, &step, &decision).map_err(|error| {
        CommandError::new(ExitCode::Internal, "the decision could not be kept; nothing was decided")
            .caused_by(error)
            .with_remedy("check space and permissions of the state directory")
    })?;
    if !kept {
        // Somebody else was faster: theirs stands.
        return Err(refuse_decided(&run, &step, &approvals));
    }
    tell(settings, &summary, &step, &decision)
}

fn tell(
    settings: &Settings,
    summary: &RunSummary,
    step: &StepName,
    decision: &Decision,
) -> Result<ExitCode, CommandError> {
    let id = &summary.id;
    let word = if decision.approved { "approved" } else { "rejected" };
    if settings.output == OutputFormat::Text {
        output::line(&format!("{step} of run {id} is {word} by {}", decision.by))?;
    } else {
        output::json(&json!({
            "schema_version": 1, "run": id, "step": step, "approved": decision.approved, "by": decision.by,
            "at": decision.at.to_string(), "reason": decision.reason,
        }))?;
    }
    output::note(&if summary.owner_live {
        format!("the process that drives run {id} sees it at its next look")
    } else if decision.approved {
        format!("go on with: platflow resume {id}")
    } else {
        format!("end the run with: platflow rollback {id}")
    });
    Ok(ExitCode::Done)
}

fn approval_steps(run: &Run) -> impl Iterator<Item = (&PlannedStep, &StepState)> {
    run.steps().filter(|(step, _)| step.kind.as_str() == "core.approval")
}

/// Whether the step was asked and has no answer that counts yet.
fn waits(state: &StepState) -> bool {
    match &state.phase {
        Phase::Waiting { .. } | Phase::Intended | Phase::Unknown => true,
        Phase::Failed { error, .. } => error.is_awaited() || error.code.as_deref() == Some("WaitExhausted"),
        _ => false,
    }
}

fn choose(
    run: &Run,
    summary: &RunSummary,
    named: Option<&str>,
    approvals: &ApprovalFolder,
) -> Result<StepName, CommandError> {
    let id = &run.id;
    if let Some(named) = named {
        let Some((step, state)) = approval_steps(run).find(|(step, _)| step.name.as_str() == named) else {
            let all: Vec<&str> = approval_steps(run).map(|(step, _)| step.name.as_str()).collect();
            let there = if all.is_empty() { "it has none".to_owned() } else { format!("it has: {}", all.join(", ")) };
            return Err(CommandError::usage(format!("run {id} has no approval step {named}; nothing was decided"))
                .with_remedy(there));
        };
        let decided = approvals.decided(id, &step.name).ok().flatten().is_some();
        return match state.phase {
            _ if decided => Err(refuse_decided(run, &step.name, approvals)),
            _ if waits(state) && !summary.status.is_final() => Ok(step.name.clone()),
            _ => Err(CommandError::usage(format!(
                "step {named} of run {id} is {} and waits for nobody; nothing was decided",
                state.phase.name()
            ))
            .with_remedy(format!("see: platflow status {id}"))),
        };
    }
    let open: Vec<&StepName> = approval_steps(run)
        .filter(|(_, state)| waits(state) && !summary.status.is_final())
        .map(|(step, _)| &step.name)
        .collect();
    let undecided: Vec<&&StepName> =
        open.iter().filter(|step| approvals.decided(id, step).ok().flatten().is_none()).collect();
    match (undecided.as_slice(), open.first()) {
        ([step], _) => Ok((**step).clone()),
        ([], Some(decided)) => Err(refuse_decided(run, decided, approvals)),
        ([], None) => Err(CommandError::usage(format!(
            "run {id} is {}: nothing in it waits for an approval",
            summary.status.as_str()
        ))
        .with_remedy(format!("see: platflow status {id}"))),
        (several, _) => {
            let names: Vec<&str> = several.iter().map(|step| step.as_str()).collect();
            Err(CommandError::usage(format!("several steps of run {id} wait for an approval; nothing was decided"))
                .with_remedy(format!("name one: {}", names.join(", "))))
        }
    }
}

/// The first decision stands; the next command follows from it.
fn refuse_decided(run: &Run, step: &StepName, approvals: &ApprovalFolder) -> CommandError {
    let id = &run.id;
    match approvals.decided(id, step) {
        Ok(Some(before)) => {
            let (word, next) = if before.approved {
                ("approved", format!("go on with: platflow resume {id}"))
            } else {
                ("rejected", format!("end the run with: platflow rollback {id}, and ask again with a new one"))
            };
            let why = before.reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
            CommandError::new(
                ExitCode::Stuck,
                format!("{step} of run {id} was {word} by {} at {}{why}: that stands", before.by, before.at),
            )
            .with_remedy(next)
        }
        Ok(None) => CommandError::new(ExitCode::Internal, format!("the decision on {step} of run {id} is gone")),
        Err(error) => {
            CommandError::new(ExitCode::Internal, format!("the decision on {step} of run {id} is unreadable"))
                .caused_by(error)
                .with_remedy("restore the state directory's folder approvals, or remove the file of this step from it")
        }
    }
}

/// A decision stands once it is made, so one that would not count is not taken.
fn refuse_stranger(run: &Run, step: &StepName, by: &str) -> Result<(), CommandError> {
    let spec = run.step(step).and_then(|state| state.spec.as_ref());
    let approvers = spec.and_then(|spec| spec.get("approvers")).and_then(Value::as_array);
    let names: Vec<&str> = approvers.into_iter().flatten().filter_map(Value::as_str).collect();
    if names.is_empty() || names.contains(&by) {
        return Ok(());
    }
    Err(CommandError::new(
        ExitCode::Stuck,
        format!("{by} is not among the approvers of {step} in run {}; nothing was decided", run.id),
    )
    .with_remedy(format!("one of these must decide: {}", names.join(", "))))
}
