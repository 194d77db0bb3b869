//! The generated reference: step kinds as Markdown or JSON, the language as a JSON Schema.

use crate::arguments::{Reference, ReferenceTopic};
use crate::failure::{CommandError, ExitCode};
use crate::settings::Settings;
use crate::views::output;
use crate::wiring;

/// Prints it.
///
/// # Errors
/// When stdout is closed.
pub(crate) async fn execute(arguments: &Reference, settings: &Settings) -> Result<ExitCode, CommandError> {
    let catalog = wiring::descriptions(settings).await?;
    match arguments.what {
        ReferenceTopic::Steps => output::bytes(platflow_workflows::reference(&catalog).as_bytes())?,
        ReferenceTopic::Kinds => output::json(&platflow_workflows::kinds(&catalog))?,
        ReferenceTopic::Schema => output::json(&platflow_workflows::schema(&catalog))?,
    }
    Ok(ExitCode::Done)
}
