//! `platflow adopt`: take over an environment that another state file built.
//!
//! What carries the given uid on its tags becomes ours here, and the record is rebuilt by looking at it: a run under that
//! uid, in which everything that is there is found unchanged.

use crate::arguments::Adopt;
use crate::connection::{self, Wanted};
use crate::execution::{self, Relay};
use crate::failure::{CommandError, ExitCode};
use crate::settings::Settings;
use crate::views::output;
use crate::{identifiers, runbook, wiring};
use platflow_engine::drive::StartRun;
use platflow_engine::name::EnvironmentUid;
use platflow_engine::plan::OnFailure;
use std::sync::Arc;

/// Runs the runbook under the other uid.
///
/// # Errors
/// An environment that this state file already knows under another uid.
pub(crate) async fn execute(arguments: Adopt, settings: &Settings) -> Result<ExitCode, CommandError> {
    let uid = EnvironmentUid::new(&arguments.from).map_err(|error| CommandError::usage(error.to_string()))?;
    let descriptions = wiring::descriptions(settings).await?;
    let compiled = runbook::load(&arguments.workflow, &descriptions, settings, Some(OnFailure::Park))?;
    let wanted = Wanted { account: arguments.workflow.account, region: arguments.workflow.region };
    let store = wiring::open_store(settings)?;
    let (connection, row) = connection::connect(settings, &store, &compiled.plan.environment, &wanted).await?;
    if let Some(row) = row.filter(|row| row.uid != uid) {
        return Err(CommandError::usage(format!(
            "this state file already has an environment {} with uid {}; nothing was changed",
            row.name, row.uid
        ))
        .with_remedy("use another state directory (--state) for the one to be taken over"));
    }
    output::note("what carries that uid is taken over as it is; what the runbook wants and is missing will be built");
    let relay = Arc::new(Relay::default());
    let engine = wiring::engine(settings, &store, &connection, relay.clone(), None).await?;
    let target = connection
        .target
        .to_value()
        .map_err(|error| CommandError::new(ExitCode::Internal, "the target cannot be written").caused_by(error))?;
    let new = StartRun {
        id: identifiers::run_id()?,
        plan: compiled.plan,
        environment_uid: uid,
        target,
        owner: wiring::this_process()?,
        on_failure: OnFailure::Park,
        destroy: None,
    };
    let (lease, run) = engine.start(new).await.map_err(execution::drive_error)?;
    execution::drive(settings, &engine, &relay, &lease, run).await
}
