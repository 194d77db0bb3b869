//! `platflow destroy`: take down a whole environment, whichever runs built it. A run like any other, made from the record.

use crate::arguments::Destroy;
use crate::commands::rollback::{confirmation, tell_volumes};
use crate::connection::{self, Wanted};
use crate::execution::{self, Relay};
use crate::failure::{CommandError, ExitCode};
use crate::settings::Settings;
use crate::views::output;
use crate::{guests, identifiers, wiring};
use platflow_engine::destroy;
use platflow_engine::drive::StartRun;
use platflow_engine::event::Direction;
use platflow_engine::journal::{Journal, RecordedStep};
use platflow_engine::name::{EnvironmentName, StepName, WorkflowName};
use platflow_engine::plan::OnFailure;
use std::sync::Arc;

/// Makes a destroy run and drives it.
///
/// # Errors
/// No such environment (2), a missing confirmation (6), a run that holds it (6), a cluster with guests (6).
pub(crate) async fn execute(arguments: Destroy, settings: &Settings) -> Result<ExitCode, CommandError> {
    let environment =
        EnvironmentName::new(&arguments.environment).map_err(|error| CommandError::usage(error.to_string()))?;
    let store = wiring::open_store_for_the_way_out(settings)?;
    let Some(row) = store.environment(&environment).await.map_err(wiring::journal_error)? else {
        return Err(CommandError::usage(format!("this state file knows no environment {environment}"))
            .with_remedy("see what it knows with: platflow list"));
    };
    let record = store.record(&row.uid).await.map_err(wiring::journal_error)?;
    if record.is_empty() {
        output::note(&format!("nothing is on record for environment {environment}: there is nothing to destroy"));
        return Ok(ExitCode::Done);
    }
    let confirmed = confirmation(arguments.confirm.as_deref(), &environment)?;
    let keep: Result<Vec<StepName>, _> = arguments.keep.iter().map(StepName::new).collect();
    let keep = keep.map_err(|error| CommandError::usage(error.to_string()))?;
    if let Some(unknown) = keep.iter().find(|name| !record.iter().any(|row| row.step == **name)) {
        return Err(CommandError::usage(format!("--keep {unknown}: no such step is on record; nothing was touched"))
            .with_remedy(format!("see what is with: platflow forget {environment}")));
    }
    let wanted = Wanted { account: arguments.account.clone(), region: arguments.region.clone() };
    let (connection, _) = connection::connect(settings, &store, &environment, &wanted).await?;
    let workflow =
        WorkflowName::new(format!("destroy-{environment}")).map_err(|error| CommandError::usage(error.to_string()))?;
    let plan = destroy::plan(workflow, environment, &record, &wiring::descriptions(settings).await?);
    let stay = guests::staying(&plan, &keep);
    let goes = |step: &StepName| !stay.contains(step);
    guests::spare(&store, &connection, &row, &goes, &arguments.with_namespace).await?;
    let volumes = guests::volumes(&store, &connection, &row, &goes).await?;
    if !confirmed {
        return Err(unconfirmed(&arguments, &record, &volumes));
    }
    tell_volumes(&volumes);
    let relay = Arc::new(Relay::default());
    let engine = wiring::engine(settings, &store, &connection, relay.clone(), None).await?;
    let direction = Direction::backward("operator", true, keep);
    let new = StartRun {
        id: identifiers::run_id()?,
        plan,
        environment_uid: row.uid,
        target: row.target,
        owner: wiring::this_process()?,
        on_failure: OnFailure::Park,
        destroy: Some((record, direction)),
    };
    let (lease, run) = engine.start(new).await.map_err(execution::drive_error)?;
    execution::drive(settings, &engine, &relay, &lease, run).await
}

/// What would go, and the command that says so.
fn unconfirmed(arguments: &Destroy, record: &[RecordedStep], volumes: &[String]) -> CommandError {
    let environment = &arguments.environment;
    let mut again = format!("platflow destroy {environment} --confirm {environment}");
    again.extend(arguments.keep.iter().map(|step| format!(" --keep {step}")));
    again.extend(arguments.with_namespace.iter().map(|name| format!(" --with-namespace {name}")));
    let data = if volumes.is_empty() {
        String::new()
    } else {
        format!(", on volumes that others claimed:\n  {}\n", volumes.join("\n  "))
    };
    let end = if volumes.is_empty() { "; nothing was touched" } else { "nothing was touched" };
    CommandError::new(
        ExitCode::Stuck,
        format!("destroying {environment} takes down {} steps and the data in them{data}{end}", record.len()),
    )
    .with_remedy(format!("if that is what you want: {again}"))
}
