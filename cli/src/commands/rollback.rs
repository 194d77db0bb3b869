//! `platflow rollback`: undo what a run created, restore what it changed, keep what it found.

use crate::arguments::Rollback;
use crate::connection::{self, Wanted};
use crate::execution::{self, Relay};
use crate::failure::{CommandError, ExitCode};
use crate::guests;
use crate::settings::Settings;
use crate::views::{foreseen, output};
use crate::wiring;
use platflow_engine::event::{Direction, Effect};
use platflow_engine::fold::Run;
use platflow_engine::journal::{Journal, RunStatus, RunSummary};
use platflow_engine::name::{EnvironmentName, StepName};
use platflow_engine::preview::{self, Fate, Preview};
use platflow_state::Store;
use std::sync::Arc;

/// How many runs of an environment are looked through for newer changes.
const RUNS: usize = 1_000;

/// Takes the run over, turns it round and drives it.
///
/// # Errors
/// A newer run that changed the environment (6), a missing confirmation (6), a cluster with guests (6), a live owner (7).
pub(crate) async fn execute(arguments: Rollback, settings: &Settings) -> Result<ExitCode, CommandError> {
    let store = wiring::open_store_for_the_way_out(settings)?;
    let id = store.find(&arguments.run.run).await.map_err(wiring::journal_error)?;
    let loaded = store.load(&id).await.map_err(wiring::journal_error)?;
    let summary = loaded.summary.clone();
    match summary.status {
        RunStatus::RolledBack | RunStatus::Abandoned => {
            output::note(&format!("run {id} is {}: there is nothing to roll back", summary.status.as_str()));
            return Ok(ExitCode::Done);
        }
        RunStatus::Running | RunStatus::Parked | RunStatus::RollingBack | RunStatus::Done => {}
    }
    let run = Run::load(loaded).map_err(|error| execution::drive_error(error.into()))?;
    let direction = direction(&arguments, &run)?;
    let catalog = wiring::descriptions(settings).await?;
    let holds_data = |index| {
        let kind = run.graph.step(index).and_then(|step| catalog.description(&step.kind));
        kind.is_some_and(|kind| kind.holds_data)
    };
    let preview =
        preview::preview(&run, direction.clone(), &holds_data).map_err(|error| execution::drive_error(error.into()))?;
    refuse_newer(&store, &summary).await?;
    if arguments.plan {
        foreseen::show(settings.output, &run, &preview)?;
        return Ok(if preview.changes_something() { ExitCode::Changes } else { ExitCode::Done });
    }
    let (connection, row) = connection::connect(settings, &store, &summary.environment, &Wanted::default()).await?;
    let mut volumes = Vec::new();
    if let Some(row) = row {
        let goes = |step: &StepName| {
            preview.steps.iter().any(|one| one.step == *step && !matches!(one.fate, Fate::Keep { .. } | Fate::Restore))
        };
        guests::spare(&store, &connection, &row, &goes, &arguments.with_namespace).await?;
        volumes = guests::volumes(&store, &connection, &row, &goes).await?;
    }
    if arguments.confirm.is_none() {
        refuse_unconfirmed(&run, summary.status, &preview, &volumes, &arguments)?;
    }
    tell_volumes(&volumes);
    let relay = Arc::new(Relay::default());
    let engine = wiring::engine(settings, &store, &connection, relay.clone(), None).await?;
    let owner = wiring::this_process()?;
    let (lease, run) = engine.resume(&id, &owner, Some(direction)).await.map_err(execution::drive_error)?;
    execution::drive(settings, &engine, &relay, &lease, run).await
}

/// A step of the run, by its exact name.
///
/// # Errors
/// Exit 2 with the names that come near.
fn step_of(run: &Run, option: &str, text: &str) -> Result<StepName, CommandError> {
    let name = StepName::new(text).map_err(|error| CommandError::usage(error.to_string()))?;
    if run.step(&name).is_some() {
        return Ok(name);
    }
    let near: Vec<&str> =
        run.plan.steps.iter().map(|step| step.name.as_str()).filter(|known| known.contains(text)).take(8).collect();
    let remedy = if near.is_empty() {
        format!("see its steps with: platflow status {}", run.id)
    } else {
        format!("it may be one of: {}", near.join(", "))
    };
    Err(CommandError::usage(format!("{option} {text}: run {} has no such step; nothing was touched", run.id))
        .with_remedy(remedy))
}

fn direction(arguments: &Rollback, run: &Run) -> Result<Direction, CommandError> {
    let confirmed = confirmation(arguments.confirm.as_deref(), &run.state.environment)?;
    let keep: Result<Vec<StepName>, _> = arguments.keep.iter().map(|name| step_of(run, "--keep", name)).collect();
    let to = arguments.to.as_deref().map(|name| step_of(run, "--to", name)).transpose()?;
    if let Some(step) = &to {
        let state = run.step(step).map_or("unknown", |state| state.phase.name());
        if run.state.destroy {
            return Err(CommandError::usage("a destroy run cannot be rolled back to a step; nothing was touched")
                .with_remedy("keep steps with --keep"));
        }
        if state != "verified" {
            return Err(CommandError::usage(format!(
                "--to {step}: the step is {state}, there is nothing to go back to; nothing was touched"
            ))
            .with_remedy(format!("name a step that is verified: platflow status {}", run.id)));
        }
    }
    Ok(Direction::Backward { cause: "operator".to_owned(), confirmed, keep: keep?, to })
}

/// `--confirm` must be the environment's own name.
///
/// # Errors
/// Exit 2 for another name.
pub(crate) fn confirmation(given: Option<&str>, environment: &EnvironmentName) -> Result<bool, CommandError> {
    match given {
        None => Ok(false),
        Some(name) if name == environment.as_str() => Ok(true),
        Some(name) => {
            Err(CommandError::usage(format!("--confirm {name} is not the name of environment {environment}"))
                .with_remedy("nothing was touched"))
        }
    }
}

/// What goes although somebody's data is on it, once it was agreed to.
pub(crate) fn tell_volumes(volumes: &[String]) {
    for volume in volumes {
        output::note(&format!("goes with its data: {volume}"));
    }
}

/// What destroys data that cannot be rebuilt is listed before anything is touched. What only an unfinished run made held
/// nobody's data yet; volumes that others claimed hold theirs whatever became of the run.
fn refuse_unconfirmed(
    run: &Run,
    status: RunStatus,
    preview: &Preview,
    volumes: &[String],
    arguments: &Rollback,
) -> Result<(), CommandError> {
    let mut data: Vec<String> = volumes.to_vec();
    if status == RunStatus::Done {
        data.extend(preview.data().map(|step| format!("{} ({})", step.step, step.kind)));
    }
    if data.is_empty() {
        return Ok(());
    }
    let environment = &run.state.environment;
    let mut again = format!("platflow rollback {}", run.id);
    again.extend(arguments.keep.iter().map(|step| format!(" --keep {step}")));
    again.extend(arguments.with_namespace.iter().map(|name| format!(" --with-namespace {name}")));
    again.extend(arguments.to.iter().map(|step| format!(" --to {step}")));
    Err(CommandError::new(
        ExitCode::Stuck,
        format!(
            "rolling back run {} destroys data that cannot be rebuilt:\n  {}\nnothing was touched",
            run.id,
            data.join("\n  ")
        ),
    )
    .with_remedy(format!(
        "if that is what you want: {again} --confirm {environment}\nsee all of it first: {again} --plan"
    )))
}

/// A run is not rolled back under the feet of a newer one that changed the same environment.
async fn refuse_newer(store: &Arc<Store>, summary: &RunSummary) -> Result<(), CommandError> {
    let runs = store.list(Some(&summary.environment), RUNS).await.map_err(wiring::journal_error)?;
    for newer in runs.iter().take_while(|run| run.id != summary.id) {
        if newer.status == RunStatus::RolledBack {
            continue;
        }
        let loaded = store.load(&newer.id).await.map_err(wiring::journal_error)?;
        let run = Run::load(loaded).map_err(|error| execution::drive_error(error.into()))?;
        let changed = run.steps().any(|(step, state)| {
            let smoke = step.kind.as_str().starts_with("smoke.");
            !smoke && matches!(state.effect, Some(Effect::Created | Effect::Changed))
        });
        if changed {
            return Err(CommandError::new(
                ExitCode::Stuck,
                format!("run {} changed environment {} after run {}", newer.id, summary.environment, summary.id),
            )
            .with_remedy(format!(
                "roll that one back first: platflow rollback {}\nor take the whole environment down: platflow destroy {} --confirm {}",
                newer.id, summary.environment, summary.environment
            )));
        }
    }
    Ok(())
}
