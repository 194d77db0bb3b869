//! `platflow resume`: go on with a run that was interrupted, killed or parked, in the direction it had.

use crate::arguments::Resume;
use crate::connection::{self, Wanted};
use crate::execution::{self, Relay};
use crate::failure::{CommandError, ExitCode};
use crate::settings::Settings;
use crate::views::output;
use crate::wiring;
use platflow_engine::journal::{Journal, RunStatus};
use std::sync::Arc;

/// Takes the run over and drives it.
///
/// # Errors
/// A live owner (7), another target (2), an unknown run (2).
pub(crate) async fn execute(arguments: Resume, settings: &Settings) -> Result<ExitCode, CommandError> {
    let store = wiring::open_store(settings)?;
    let id = store.find(&arguments.run.run).await.map_err(wiring::journal_error)?;
    let summary = store.load(&id).await.map_err(wiring::journal_error)?.summary;
    match summary.status {
        RunStatus::Done | RunStatus::RolledBack | RunStatus::Abandoned => {
            output::note(&format!("run {id} is {}: there is nothing to resume", summary.status.as_str()));
            return Ok(ExitCode::Done);
        }
        RunStatus::Running | RunStatus::Parked | RunStatus::RollingBack => {}
    }
    let (connection, _) = connection::connect(settings, &store, &summary.environment, &Wanted::default()).await?;
    let relay = Arc::new(Relay::default());
    let engine = wiring::engine(settings, &store, &connection, relay.clone(), arguments.max_in_flight).await?;
    let owner = wiring::this_process()?;
    let (lease, run) = engine.resume(&id, &owner, None).await.map_err(execution::drive_error)?;
    execution::drive(settings, &engine, &relay, &lease, run).await
}
