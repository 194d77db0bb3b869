//! The one file that joins the ports: store, clients, catalog, clock, resolver.
//!
//! It decides nothing about steps or runs; it turns settings and a target into an engine that can drive.

use crate::failure::{CommandError, ExitCode};
use crate::settings::Settings;
use platflow_engine::journal::JournalError;
use platflow_state::{Store, StoreSettings};
use std::sync::Arc;

/// Opens the state file, making it if need be.
///
/// # Errors
/// Unreadable, newer or damaged files; see [`journal_error`].
pub fn open_store(settings: &Settings) -> Result<Arc<Store>, CommandError> {
    let file = settings.state_file();
    Store::open(&file, StoreSettings::default()).map_err(|error| {
        let mut failure = journal_error(error);
        failure.message = format!("{}: {}", file.display(), failure.message);
        failure
    })
}

/// A journal's refusal as a command's failure, with the way out.
#[must_use]
pub fn journal_error(error: JournalError) -> CommandError {
    let message = error.to_string();
    match error {
        JournalError::Owned { run, .. } => CommandError::new(ExitCode::Locked, message).with_remedy(format!(
            "wait for it, watch it with: platflow logs {run}\nor stop it with: platflow cancel {run}"
        )),
        JournalError::Stale { run, .. } => CommandError::new(ExitCode::Locked, message)
            .with_remedy(format!("this process stopped and changed nothing more; see: platflow status {run}")),
        JournalError::EnvironmentHeld { environment, run, .. } => CommandError::new(ExitCode::Stuck, message)
            .with_remedy(format!(
                "go on with it: platflow resume {run}\nor undo it: platflow rollback {run} --confirm {environment}"
            )),
        JournalError::OtherTarget { .. } | JournalError::NotFound { .. } | JournalError::Ambiguous { .. } => {
            let remedy = match &error {
                JournalError::Ambiguous { matches, .. } => {
                    let ids: Vec<&str> = matches.iter().map(|id| id.as_str()).collect();
                    format!("it may be one of: {}", ids.join(", "))
                }
                JournalError::NotFound { .. } => "see what there is with: platflow list".to_owned(),
                _ => "name another environment with --environment, or use the state file it was built with".to_owned(),
            };
            CommandError::usage(message).with_remedy(remedy)
        }
        JournalError::Newer { .. } => CommandError::usage(message).with_remedy("use the newer platflow that wrote it"),
        JournalError::Damaged(_) => CommandError::new(ExitCode::Internal, message)
            .with_remedy("the file was left as it is; restore it from a backup, or name another with --state"),
        JournalError::Storage { source, .. } => CommandError { source: Some(source), ..CommandError::new(ExitCode::Internal, message) }
            .with_remedy("check space and permissions of the state directory; what was acknowledged is safe"),
    }
}
