//! `platflow rollback`: undo what a run created, restore what it changed, keep what it found.

use crate::arguments::Rollback;
use crate::connection::{self, Wanted};
use crate::execution::{self, Relay};
use crate::failure::{CommandError, ExitCode};
use crate::settings::Settings;
use crate::views::output;
use crate::wiring;
use platflow_engine::event::{Direction, Effect};
use platflow_engine::fold::Run;
use platflow_engine::journal::{Journal, RunStatus, RunSummary};
use platflow_engine::name::{EnvironmentName, StepName};
use platflow_state::Store;
use std::sync::Arc;

/// How many runs of an environment are looked through for newer changes.
const RUNS: usize = 1_000;

/// Takes the run over, turns it round and drives it.
///
/// # Errors
/// A newer run that changed the environment (6), a missing confirmation (6), a live owner (7).
pub(crate) async fn execute(arguments: Rollback, settings: &Settings) -> Result<ExitCode, CommandError> {
    let store = wiring::open_store(settings)?;
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
    refuse_newer(&store, &summary).await?;
    let confirmed = confirmation(arguments.confirm.as_deref(), &summary.environment)?;
    if summary.status == RunStatus::Done && !confirmed {
        let run = Run::load(loaded).map_err(|error| execution::drive_error(error.into()))?;
        refuse_unconfirmed(&run, &wiring::descriptions(settings).await?)?;
    }
    let keep: Result<Vec<StepName>, _> = arguments.keep.iter().map(StepName::new).collect();
    let keep = keep.map_err(|error| CommandError::usage(error.to_string()))?;
    let (connection, _) = connection::connect(settings, &store, &summary.environment, &Wanted::default()).await?;
    let relay = Arc::new(Relay::default());
    let engine = wiring::engine(settings, &store, &connection, relay.clone(), None).await?;
    let owner = wiring::this_process()?;
    let direction = Direction::Backward { cause: "operator".to_owned(), confirmed, keep };
    let (lease, run) = engine.resume(&id, &owner, Some(direction)).await.map_err(execution::drive_error)?;
    execution::drive(settings, &engine, &relay, &lease, run).await
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

/// What destroys data that cannot be rebuilt is listed before anything is touched.
fn refuse_unconfirmed(run: &Run, catalog: &platflow_engine::kind::Catalog) -> Result<(), CommandError> {
    let data: Vec<String> = run
        .steps()
        .filter(|(_, state)| state.touched())
        .filter(|(step, _)| catalog.description(&step.kind).is_some_and(|kind| kind.holds_data))
        .map(|(step, _)| format!("{} ({})", step.name, step.kind))
        .collect();
    if data.is_empty() {
        return Ok(());
    }
    let environment = &run.state.environment;
    Err(CommandError::new(
        ExitCode::Stuck,
        format!(
            "rolling back run {} destroys data that cannot be rebuilt: {}; nothing was touched",
            run.id,
            data.join(", ")
        ),
    )
    .with_remedy(format!("if that is what you want: platflow rollback {} --confirm {environment}", run.id)))
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
