//! `platflow forget`: strike an environment, or single steps of it, off the record. The cloud is not touched and not asked.
//!
//! What exists goes on existing, and paid for; its tags still name the environment, so a later run finds it again.

use crate::arguments::Forget;
use crate::commands::rollback::confirmation;
use crate::execution;
use crate::failure::{CommandError, ExitCode};
use crate::settings::Settings;
use crate::target::Target;
use crate::views::output;
use crate::{identifiers, report, sandbox_host, wiring};
use jiff::Timestamp;
use platflow_engine::clock::{Clock, ScaledClock};
use platflow_engine::drive;
use platflow_engine::fold::Run;
use platflow_engine::forget::{self, Forgetting};
use platflow_engine::journal::{EnvironmentRow, Journal, RecordedStep};
use platflow_engine::name::{EnvironmentName, RunId, StepName, WorkflowName};
use platflow_engine::state::Phase;
use platflow_state::Store;
use std::sync::Arc;

/// Strikes off what was named, in the journal of the run that holds the environment, or in a run of its own.
///
/// # Errors
/// No such environment or step (2), a missing confirmation (6), a live owner (7).
pub(crate) async fn execute(arguments: Forget, settings: &Settings) -> Result<ExitCode, CommandError> {
    let environment =
        EnvironmentName::new(&arguments.environment).map_err(|error| CommandError::usage(error.to_string()))?;
    let steps: Result<Vec<StepName>, _> = arguments.step.iter().map(StepName::new).collect();
    let steps = steps.map_err(|error| CommandError::usage(error.to_string()))?;
    let confirmed = confirmation(arguments.confirm.as_deref(), &environment)?;
    let store = wiring::open_store(settings)?;
    let Some(row) = store.environment(&environment).await.map_err(wiring::journal_error)? else {
        return Err(CommandError::usage(format!("this state file knows no environment {environment}"))
            .with_remedy("see what it knows with: platflow list"));
    };
    let record = store.record(&row.uid).await.map_err(wiring::journal_error)?;
    match &row.held_by {
        Some(holder) if !steps.is_empty() => in_run(settings, &store, &row, holder, &record, (&steps, confirmed)).await,
        holder => {
            let chosen = choose(&environment, record, &steps)?;
            let listed: Vec<String> = chosen.iter().map(in_words).collect();
            if chosen.is_empty() && holder.is_none() {
                output::note(&format!(
                    "nothing is on record for environment {environment}: there is nothing to forget"
                ));
                return Ok(ExitCode::Done);
            }
            if !confirmed {
                return Err(unconfirmed(&environment, &steps, &listed, holder.as_ref()));
            }
            let at = now(settings, &row).await?;
            if let Some(holder) = holder {
                let journal: Arc<dyn Journal> = store.clone();
                let owner = wiring::this_process()?;
                drive::abandon(&journal, holder, &owner, at).await.map_err(execution::drive_error)?;
                output::note(&format!("run {holder} is abandoned"));
            }
            from_record(settings, &store, row, chosen, at).await?;
            told(&environment, &listed)
        }
    }
}

pub(super) fn in_words(row: &RecordedStep) -> String {
    let id = row.outputs.as_ref().and_then(report::id_in).unwrap_or("no id on record");
    format!("{} ({}) {id}", row.step, row.kind)
}

/// The rows of the steps named, or all.
fn choose(
    environment: &EnvironmentName,
    record: Vec<RecordedStep>,
    steps: &[StepName],
) -> Result<Vec<RecordedStep>, CommandError> {
    if let Some(unknown) = steps.iter().find(|name| !record.iter().any(|row| row.step == **name)) {
        return Err(CommandError::usage(format!("no step {unknown} is on record for environment {environment}"))
            .with_remedy(format!("see what is with: platflow forget {environment}")));
    }
    Ok(record.into_iter().filter(|row| steps.is_empty() || steps.contains(&row.step)).collect())
}

fn unconfirmed(
    environment: &EnvironmentName,
    steps: &[StepName],
    listed: &[String],
    holder: Option<&RunId>,
) -> CommandError {
    let named: String = steps.iter().map(|step| format!(" --step {step}")).collect();
    let run = match holder {
        Some(run) if steps.is_empty() => format!(", and end run {run}, which holds it, for good"),
        _ => String::new(),
    };
    CommandError::new(
        ExitCode::Stuck,
        format!(
            "this would strike {} step(s) of {environment} off the record{run}; what exists goes on existing, and platflow would no longer take it away:\n  {}\nnothing was touched",
            listed.len(),
            listed.join("\n  ")
        ),
    )
    .with_remedy(format!("if that is what you want: platflow forget {environment}{named} --confirm {environment}"))
}

fn told(environment: &EnvironmentName, listed: &[String]) -> Result<ExitCode, CommandError> {
    for line in listed {
        output::line(&format!("forgotten: {line}"))?;
    }
    output::note(&format!("{} step(s) of {environment} are off the record; the cloud was not touched", listed.len()));
    Ok(ExitCode::Done)
}

/// Facts of a run are told in the time of the world that it lives in.
pub(super) async fn now(settings: &Settings, row: &EnvironmentRow) -> Result<Timestamp, CommandError> {
    match Target::recorded(row)? {
        Target::Sandbox { .. } => {
            let sandbox = sandbox_host::ensure(settings, None).await?;
            Ok(sandbox_host::clock(&sandbox).await?.now())
        }
        Target::Aws { .. } => Ok(ScaledClock::real().now()),
    }
}

/// In the run that holds the environment: it goes on without the steps.
async fn in_run(
    settings: &Settings,
    store: &Arc<Store>,
    row: &EnvironmentRow,
    holder: &RunId,
    record: &[RecordedStep],
    (steps, confirmed): (&[StepName], bool),
) -> Result<ExitCode, CommandError> {
    let loaded = store.load(holder).await.map_err(wiring::journal_error)?;
    let run = Run::load(loaded).map_err(|error| execution::drive_error(error.into()))?;
    let mut listed = Vec::new();
    for step in steps {
        let known = run.step(step).filter(|state| !matches!(state.phase, Phase::Pending | Phase::Skipped { .. }));
        match (known, record.iter().find(|row| row.step == *step)) {
            (Some(_), Some(row)) => listed.push(in_words(row)),
            (Some(state), None) => listed.push(format!("{step}, {} in run {holder}", state.phase.name())),
            (None, Some(_)) => {
                return Err(CommandError::new(
                    ExitCode::Stuck,
                    format!("run {holder} holds environment {} and has nothing to do with step {step}", row.name),
                )
                .with_remedy(format!("end that run first: platflow resume {holder}, or platflow rollback {holder}")));
            }
            (None, None) => {
                return Err(CommandError::usage(format!("no step {step} is on record for environment {}", row.name))
                    .with_remedy(format!("see what is with: platflow status {holder}")));
            }
        }
    }
    if !confirmed {
        return Err(unconfirmed(&row.name, steps, &listed, Some(holder)));
    }
    let (journal, at) = (store.clone() as Arc<dyn Journal>, now(settings, row).await?);
    let owner = wiring::this_process()?;
    forget::in_run(&journal, holder, &owner, steps, at).await.map_err(execution::drive_error)?;
    told(&row.name, &listed)?;
    output::note(&format!("go on with: platflow resume {holder}"));
    Ok(ExitCode::Done)
}

pub(super) async fn from_record(
    settings: &Settings,
    store: &Arc<Store>,
    row: EnvironmentRow,
    record: Vec<RecordedStep>,
    at: Timestamp,
) -> Result<(), CommandError> {
    if record.is_empty() {
        return Ok(());
    }
    let workflow =
        WorkflowName::new(format!("forget-{}", row.name)).map_err(|error| CommandError::usage(error.to_string()))?;
    let new = Forgetting {
        id: identifiers::run_id()?,
        workflow,
        environment: row.name,
        environment_uid: row.uid,
        target: row.target,
        owner: wiring::this_process()?,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        record,
    };
    let journal: Arc<dyn Journal> = store.clone();
    let catalog = wiring::descriptions(settings).await?;
    forget::from_record(&journal, &catalog, new, at).await.map_err(execution::drive_error)
}
