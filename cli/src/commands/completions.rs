//! `platflow completions`: a completion script for a shell, made from the command line's own definition.

use crate::arguments::{Arguments, Completions};
use crate::failure::{CommandError, ExitCode};
use crate::views::output;
use clap::CommandFactory;

/// Prints the script.
///
/// # Errors
/// When stdout is closed.
pub(crate) fn execute(arguments: &Completions) -> Result<ExitCode, CommandError> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "platflow", &mut script);
    output::bytes(&script)?;
    Ok(ExitCode::Done)
}
