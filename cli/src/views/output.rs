//! The only writer of stdout. A reader that closed the pipe ends the command quietly.

use crate::failure::{CommandError, ExitCode};
use serde_json::Value;
use std::io::{ErrorKind, Write};

/// Writes bytes as they are.
///
/// # Errors
/// When stdout cannot be written to; a closed pipe is none.
pub(crate) fn bytes(data: &[u8]) -> Result<(), CommandError> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(data).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        // `platflow list | head` is no failure.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(CommandError::new(ExitCode::Internal, "stdout cannot be written to").caused_by(error)),
    }
}

/// Writes a line of text.
///
/// # Errors
/// See [`bytes`].
pub(crate) fn line(text: &str) -> Result<(), CommandError> {
    bytes(format!("{text}\n").as_bytes())
}

/// Writes one indented JSON document.
///
/// # Errors
/// See [`bytes`].
pub(crate) fn json(value: &Value) -> Result<(), CommandError> {
    line(&format!("{value:#}"))
}

/// Writes one JSON object on a line of its own.
///
/// # Errors
/// See [`bytes`].
pub(crate) fn json_line(value: &Value) -> Result<(), CommandError> {
    line(&value.to_string())
}

/// Writes a line to stderr; a closed stderr is ignored.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
