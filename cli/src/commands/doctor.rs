//! `platflow doctor`: make every check that needs no runbook, and list those that there are.
//!
//! It opens the state file for reading only and changes nothing anywhere.

use crate::arguments::{Doctor, OutputFormat};
use crate::connection::{self, Connection, Wanted};
use crate::failure::{CommandError, ExitCode};
use crate::preflight;
use crate::settings::Settings;
use crate::views::output;
use crate::wiring;
use platflow_state::{Store, StoreSettings};
use serde_json::{Value, json};
use std::sync::Arc;

/// Checks and prints. Exit 6 when something would stop a run.
///
/// # Errors
/// A state file that cannot be opened; an account that cannot be reached.
pub(crate) async fn execute(arguments: Doctor, settings: &Settings) -> Result<ExitCode, CommandError> {
    if arguments.list_checks {
        return list(settings);
    }
    let store = existing(settings)?;
    let connection = target(&arguments, settings).await?;
    let report = preflight::of_machine(settings, store.as_ref(), connection.as_ref()).await;
    match settings.output {
        OutputFormat::Text => {
            report.print()?;
            if connection.is_none() {
                output::note("no account was looked at: add --sandbox, or --account and --region");
            }
        }
        OutputFormat::Json | OutputFormat::Jsonl => {
            output::json(&json!({"schema_version": 1, "preflight": report.to_json()}))?;
        }
    }
    Ok(if report.blocks() { ExitCode::Stuck } else { ExitCode::Done })
}

/// The state file, if there is one.
fn existing(settings: &Settings) -> Result<Option<Arc<Store>>, CommandError> {
    let file = settings.state_file();
    if !file.exists() {
        return Ok(None);
    }
    Store::open_read_only(&file, StoreSettings::default()).map(Some).map_err(|error| {
        let mut failure = wiring::journal_error(error);
        failure.message = format!("{}: {}", file.display(), failure.message);
        failure
    })
}

async fn target(arguments: &Doctor, settings: &Settings) -> Result<Option<Connection>, CommandError> {
    if !settings.sandbox && arguments.account.is_none() && arguments.region.is_none() {
        return Ok(None);
    }
    let wanted = Wanted { account: arguments.account.clone(), region: arguments.region.clone() };
    connection::to_account(settings, &wanted).await.map(Some)
}

fn list(settings: &Settings) -> Result<ExitCode, CommandError> {
    let checks = preflight::all_checks();
    if settings.output != OutputFormat::Text {
        let all: Vec<Value> = checks
            .iter()
            .map(|check| json!({"id": check.id, "family": check.family.as_str(), "title": check.title, "cause": check.cause}))
            .collect();
        output::json(&json!({"schema_version": 1, "checks": all}))?;
        return Ok(ExitCode::Done);
    }
    for check in &checks {
        output::line(&format!("{:<34} {}", check.id, check.title))?;
    }
    output::note(&format!("{} checks", checks.len()));
    Ok(ExitCode::Done)
}
