//! `platflow status`: one run, step by step, from the journal alone.

use crate::arguments::{OutputFormat, Status};
use crate::execution;
use crate::failure::{CommandError, ExitCode};
use crate::report;
use crate::settings::Settings;
use crate::views::output;
use crate::wiring;
use platflow_engine::fold::Run;
use platflow_engine::journal::Journal;
use serde_json::json;

/// Shows a run.
///
/// # Errors
/// When there is no such run, or its facts cannot be read.
pub(crate) async fn execute(arguments: Status, settings: &Settings) -> Result<ExitCode, CommandError> {
    let store = wiring::open_store(settings)?;
    let id = match arguments.run {
        Some(prefix) => store.find(&prefix).await.map_err(wiring::journal_error)?,
        None => {
            let newest = store.list(None, 1).await.map_err(wiring::journal_error)?;
            match newest.into_iter().next() {
                Some(run) => run.id,
                None => {
                    return Err(CommandError::usage("there are no runs yet")
                        .with_remedy("start one with: platflow run deploy-aws-dev --sandbox"));
                }
            }
        }
    };
    let loaded = store.load(&id).await.map_err(wiring::journal_error)?;
    let summary = loaded.summary.clone();
    let run = Run::load(loaded).map_err(|error| execution::drive_error(error.into()))?;
    match settings.output {
        OutputFormat::Text => {
            output::bytes(report::table(&run).as_bytes())?;
            if !summary.status.is_final() && run.state.parked.is_none() && !summary.owner_live {
                output::line(&format!("its owner is gone; go on with: platflow resume {id}"))?;
            }
        }
        OutputFormat::Json | OutputFormat::Jsonl => {
            let mut value = report::as_json(&run)?;
            if let Some(object) = value.as_object_mut() {
                object.insert("owner".to_owned(), json!(summary.owner));
                object.insert("owner_live".to_owned(), json!(summary.owner_live));
                object.insert("created_at".to_owned(), json!(summary.created_at.to_string()));
            }
            if settings.output == OutputFormat::Json { output::json(&value) } else { output::json_line(&value) }?;
        }
    }
    Ok(ExitCode::Done)
}
