//! `platflow reject`: say no to a step that waits for a human, and why. The run never goes on from there.

use crate::arguments::Reject;
use crate::commands::approve;
use crate::failure::{CommandError, ExitCode};
use crate::settings::Settings;

/// Rejects.
///
/// # Errors
/// As `approve`.
pub(crate) async fn execute(arguments: Reject, settings: &Settings) -> Result<ExitCode, CommandError> {
    approve::decide(arguments.into(), false, settings).await
}
