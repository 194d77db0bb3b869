//! `platflow run`: build what is missing, change what differs, leave the rest.

use crate::arguments::{OnFailureArgument, Run};
use crate::connection::{self, Wanted};
use crate::execution::{self, Relay};
use crate::failure::{CommandError, ExitCode};
use crate::settings::Settings;
use crate::views::output;
use crate::{choice, identifiers, key_places, preflight, runbook, sandbox_host, wiring};
use platflow_engine::drive::StartRun;
use platflow_engine::journal::{EnvironmentRow, Journal, JournalError};
use platflow_engine::plan::OnFailure;
use platflow_state::Store;
use std::sync::Arc;

/// Compiles, connects, starts, drives.
///
/// # Errors
/// Everything that stops it before the first fact; later failures are the run's own and show in the exit code.
pub(crate) async fn execute(arguments: Run, settings: &Settings) -> Result<ExitCode, CommandError> {
    let on_failure = arguments.on_failure.map(|what| match what {
        OnFailureArgument::Park => OnFailure::Park,
        OnFailureArgument::Rollback => OnFailure::Rollback,
    });
    let descriptions = wiring::descriptions(settings).await?;
    let mut compiled = runbook::load(&arguments.workflow, &descriptions, settings, on_failure)?;
    let id = identifiers::run_id()?;
    runbook::refresh(&mut compiled.plan, &arguments.refresh, &id)?;
    if let Some(only) = choice::of(&compiled.plan, &arguments.only, &arguments.except)? {
        compiled.plan.only = Some(only);
    }
    let wanted = Wanted { account: arguments.workflow.account.clone(), region: arguments.workflow.region.clone() };
    let store = wiring::open_store(settings)?;
    let plan = &compiled.plan;
    let known = store.environment(&plan.environment).await.map_err(wiring::journal_error)?;
    let names = [plan.workflow.as_str(), plan.environment.as_str()];
    let warning = key_places::check(settings, known.as_ref(), names, plan.steps.iter())?;
    let (connection, row) = connection::connect(settings, &store, &compiled.plan.environment, &wanted).await?;
    if let Some(row) = &row {
        refuse_held(&store, row).await?;
    }
    if compiled.plan.only.is_some() {
        let record = match &row {
            Some(row) => store.record(&row.uid).await.map_err(wiring::journal_error)?,
            None => Vec::new(),
        };
        output::note(&choice::consequence(&compiled.plan, &record)?);
    }
    if let Some(warning) = warning {
        output::note(&warning);
    }
    preflight::before_run(settings, &store, &connection, &compiled.plan, row.as_ref(), &arguments.skip_preflight)
        .await?;
    for rule in &arguments.sandbox_fault {
        sandbox_host::fault(settings, rule).await?;
    }
    if let Some(profile) = &arguments.sandbox_faults {
        sandbox_host::faults(settings, profile).await?;
    }
    let relay = Arc::new(Relay::default());
    let engine = wiring::engine(settings, &store, &connection, relay.clone(), arguments.max_in_flight).await?;
    let target = connection
        .target
        .to_value()
        .map_err(|error| CommandError::new(ExitCode::Internal, "the target cannot be written").caused_by(error))?;
    let environment_uid = match row {
        Some(row) => row.uid,
        None => identifiers::environment_uid()?,
    };
    let on_failure = compiled.plan.on_failure;
    let new = StartRun {
        id,
        plan: compiled.plan,
        environment_uid,
        target,
        owner: wiring::this_process()?,
        on_failure,
        destroy: None,
    };
    let (lease, run) = engine.start(new).await.map_err(execution::drive_error)?;
    execution::drive(settings, &engine, &relay, &lease, run).await
}

/// An unfinished run holds its environment: another one is refused, with the ways out; only a live owner gives 7.
pub(crate) async fn refuse_held(store: &Arc<Store>, row: &EnvironmentRow) -> Result<(), CommandError> {
    let Some(holder) = &row.held_by else { return Ok(()) };
    let summary = store.load(holder).await.map_err(wiring::journal_error)?.summary;
    match summary.owner {
        Some(owner) if summary.owner_live => Err(wiring::journal_error(JournalError::Owned {
            run: holder.clone(),
            owner: Box::new(owner),
            since: summary.created_at,
        })),
        _ => Err(wiring::journal_error(JournalError::EnvironmentHeld {
            environment: row.name.clone(),
            run: holder.clone(),
            status: summary.status,
        })),
    }
}
