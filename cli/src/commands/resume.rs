//! `platflow resume`: go on with a run that was interrupted, killed or parked, in the direction it had.

use crate::arguments::Resume;
use crate::connection::{self, Wanted};
use crate::execution::{self, Relay};
use crate::failure::{CommandError, ExitCode};
use crate::settings::Settings;
use crate::views::output;
use crate::{key_places, wiring};
use platflow_engine::fold::Run;
use platflow_engine::journal::{Journal, RunStatus};
use std::sync::Arc;

/// Takes the run over and drives it.
///
/// # Errors
/// A live owner (7), another target (2), an unknown run (2).
pub(crate) async fn execute(arguments: Resume, settings: &Settings) -> Result<ExitCode, CommandError> {
    let store = wiring::open_store(settings)?;
    let id = store.find(&arguments.run.run).await.map_err(wiring::journal_error)?;
    let loaded = store.load(&id).await.map_err(wiring::journal_error)?;
    let summary = loaded.summary.clone();
    match summary.status {
        RunStatus::Done | RunStatus::RolledBack | RunStatus::Abandoned => {
            output::note(&format!("run {id} is {}: there is nothing to resume", summary.status.as_str()));
            return Ok(ExitCode::Done);
        }
        RunStatus::Running | RunStatus::Parked | RunStatus::RollingBack => {}
    }
    let run = Run::load(loaded).map_err(|error| execution::drive_error(error.into()))?;
    // The way back makes no keys, and is not refused for where they would go.
    if !run.state.is_backward() {
        let row = store.environment(&summary.environment).await.map_err(wiring::journal_error)?;
        let names = [summary.workflow.as_str(), summary.environment.as_str()];
        key_places::check(settings, row.as_ref(), names, run.steps().map(|(step, _)| step))?;
    }
    let (connection, _) = connection::connect(settings, &store, &summary.environment, &Wanted::default()).await?;
    let relay = Arc::new(Relay::default());
    let engine = wiring::engine(settings, &store, &connection, relay.clone(), arguments.max_in_flight).await?;
    let owner = wiring::this_process()?;
    let (lease, run) = engine.resume(&id, &owner, None).await.map_err(execution::drive_error)?;
    execution::drive(settings, &engine, &relay, &lease, run).await
}
