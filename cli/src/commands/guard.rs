//! The hidden verb that `core.exec` re-executes this binary with: a process that dies with the engine and takes the
//! command's whole group along.

use crate::arguments::Guard;
use crate::failure::ExitCode;

/// Runs the guard to its end.
#[must_use]
pub(crate) fn execute(arguments: &Guard) -> ExitCode {
    match platflow_steps::guard_process::guard_main(&arguments.arguments) {
        0 => ExitCode::Done,
        _ => ExitCode::Internal,
    }
}
