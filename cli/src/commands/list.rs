//! `platflow list`: runs, newest first.

use crate::arguments::{List, OutputFormat};
use crate::failure::{CommandError, ExitCode};
use crate::settings::Settings;
use crate::views::{output, time};
use crate::wiring;
use platflow_engine::journal::{Journal, RunSummary};
use platflow_engine::name::EnvironmentName;
use serde_json::{Value, json};

/// Lists runs.
///
/// # Errors
/// When the state file cannot be read.
pub(crate) async fn execute(arguments: List, settings: &Settings) -> Result<ExitCode, CommandError> {
    let store = wiring::open_store(settings)?;
    let environment = arguments
        .environment
        .map(EnvironmentName::new)
        .transpose()
        .map_err(|error| CommandError::usage(error.to_string()))?;
    let runs = store.list(environment.as_ref(), arguments.limit).await.map_err(wiring::journal_error)?;
    match settings.output {
        OutputFormat::Json => {
            let runs: Vec<Value> = runs.iter().map(as_json).collect();
            output::json(&json!({"schema_version": 1, "runs": runs}))?;
        }
        OutputFormat::Jsonl => {
            for run in &runs {
                output::json_line(&as_json(run))?;
            }
        }
        OutputFormat::Text if runs.is_empty() => output::line("no runs yet")?,
        OutputFormat::Text => {
            output::line(&format!(
                "{:<10} {:<28} {:<18} {:<20} {}",
                "RUN", "WORKFLOW", "ENVIRONMENT", "STATUS", "STARTED"
            ))?;
            for run in &runs {
                output::line(&format!(
                    "{:<10} {:<28} {:<18} {:<20} {}",
                    run.id,
                    run.workflow,
                    run.environment,
                    shown_status(run),
                    time::short(run.created_at)
                ))?;
            }
        }
    }
    Ok(ExitCode::Done)
}

/// The status for people: a run whose owner vanished is not "running".
fn shown_status(run: &RunSummary) -> String {
    if run.status.is_final() || run.owner_live || run.status == platflow_engine::journal::RunStatus::Parked {
        run.status.as_str().to_owned()
    } else {
        format!("{} (owner gone)", run.status.as_str())
    }
}

/// A run as one JSON object.
#[must_use]
pub(crate) fn as_json(run: &RunSummary) -> Value {
    json!({
        "id": run.id,
        "workflow": run.workflow,
        "environment": run.environment,
        "environment_uid": run.environment_uid,
        "status": run.status,
        "destroy": run.destroy,
        "created_at": run.created_at.to_string(),
        "owner": run.owner,
        "owner_live": run.owner_live,
        "events": run.head,
    })
}
