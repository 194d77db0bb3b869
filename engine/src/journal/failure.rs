//! Why a journal refuses or fails: what each command's exit code and remedy are chosen by. No text of a remedy is here.

use super::{Owner, RunStatus};
use crate::name::{EnvironmentName, RunId};
use jiff::Timestamp;

/// Taken over, or too late to renew: a machine that slept, a process that was stopped.
fn lost_lease(run: &RunId, ours: u64, current: u64) -> String {
    if ours == current {
        format!("the lease of run {run} ended before it was renewed: this process or its machine was held up")
    } else {
        format!("run {run} was taken over: epoch {ours} is behind {current}")
    }
}

/// Why the journal refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another live owner has the run.
    #[error("run {run} is owned by a live process: pid {pid} on {host}, since {since}", pid = .owner.pid, host = .owner.host)]
    Owned {
        /// The run.
        run: RunId,
        /// Its owner.
        owner: Box<Owner>,
        /// Since when.
        since: Timestamp,
    },
    /// This process no longer owns the run: its epoch is behind, or its lease ended (both epochs are the same then). It
    /// must stop.
    #[error("{}", lost_lease(.run, *.ours, *.current))]
    Stale {
        /// The run.
        run: RunId,
        /// Our epoch.
        ours: u64,
        /// The present epoch.
        current: u64,
    },
    /// Another unfinished run holds the environment.
    #[error("environment {environment} is held by run {run} ({status})", status = .status.as_str())]
    EnvironmentHeld {
        /// The environment.
        environment: EnvironmentName,
        /// The run that holds it.
        run: RunId,
        /// Its status.
        status: RunStatus,
    },
    /// The environment exists under another uid or target.
    #[error("environment {environment} is pinned to {recorded}, not {wanted}")]
    OtherTarget {
        /// The environment.
        environment: EnvironmentName,
        /// What is on record.
        recorded: String,
        /// What was asked for.
        wanted: String,
    },
    /// No such run or environment.
    #[error("no {what} matches {text:?}")]
    NotFound {
        /// `run`, `environment`.
        what: &'static str,
        /// What was asked for.
        text: String,
    },
    /// A prefix that fits several runs.
    #[error("{prefix:?} fits several runs")]
    Ambiguous {
        /// What was asked for.
        prefix: String,
        /// The runs it fits, newest first, at most ten.
        matches: Vec<RunId>,
    },
    /// The file was lost, altered or is from a newer version. Says what and where.
    #[error("the state file cannot be trusted: {0}")]
    Damaged(String),
    /// The file's schema is newer than this binary.
    #[error("the state file has schema {found}, this binary knows up to {known}")]
    Newer {
        /// Schema found.
        found: u32,
        /// Newest schema known.
        known: u32,
    },
    /// Another process kept the write lock for as long as this one was ready to wait.
    #[error("another process kept the state file busy: it may be stopped in the middle of a write")]
    Busy,
    /// The disk or the database failed; nothing of the batch was committed as far as is known.
    #[error("the state file could not be {doing}")]
    Storage {
        /// `opened`, `written`, `read`.
        doing: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
