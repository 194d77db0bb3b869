//! What a command ends with when it cannot do what was asked: exit code, message, remedy. Printed once, at the edge.

use std::error::Error;

/// Exit codes are documented API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ExitCode {
    /// Done; no drift.
    Done = 0,
    /// A defect of platflow, or an environment that it cannot work in.
    Internal = 1,
    /// Usage, invalid runbook, another target.
    Usage = 2,
    /// Changes or drift found.
    Changes = 3,
    /// Failed and rolled back completely.
    RolledBack = 4,
    /// Failed or parked; resources remain; resumable.
    Parked = 5,
    /// A human must decide.
    Stuck = 6,
    /// Another live owner.
    Locked = 7,
    /// Interrupted; resumable.
    Interrupted = 130,
}

/// A command's failure.
#[derive(Debug)]
pub(crate) struct CommandError {
    /// What the process exits with.
    pub(crate) code: ExitCode,
    /// What happened: one or more lines.
    pub(crate) message: String,
    /// The next command, or what to change.
    pub(crate) remedy: Option<String>,
    /// Why, innermost last.
    pub(crate) source: Option<Box<dyn Error + Send + Sync>>,
}

impl CommandError {
    /// A failure with an exit code.
    pub(crate) fn new(code: ExitCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), remedy: None, source: None }
    }

    /// The user asked for something that cannot be.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(ExitCode::Usage, message)
    }

    /// The same with advice.
    pub(crate) fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// The same with its cause.
    pub(crate) fn caused_by(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The text for stderr: message, chain of causes, remedy.
    pub(crate) fn render(&self) -> String {
        let mut text = format!("error: {}", self.message);
        let mut source: Option<&dyn Error> = self.source.as_ref().map(|boxed| &**boxed as &dyn Error);
        while let Some(error) = source {
            text.push_str(&format!("\n  because {error}"));
            source = error.source();
        }
        if let Some(remedy) = &self.remedy {
            for (index, line) in remedy.lines().enumerate() {
                text.push_str(if index == 0 { "\n  help: " } else { "\n        " });
                text.push_str(line);
            }
        }
        text
    }
}
