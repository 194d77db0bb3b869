//! How SQLite's and the file system's failures become the journal's: damage is told apart from a disk that failed.

use platflow_engine::journal::JournalError;
use platflow_engine::name::RunId;
use rusqlite::ErrorCode;

/// A run of that id exists: the caller chooses another. Source of the [`JournalError::Storage`] that `create_run` returns.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a run with the id {0} exists already")]
pub struct RunIdTaken(pub RunId);

/// The writer stopped after the disk failed a write: what the file holds is unknown until it is opened again.
#[derive(Debug, thiserror::Error)]
#[error("an earlier write failed ({0}); the file must be opened again before more is written")]
pub(crate) struct WriterStopped(pub(crate) String);

/// A write on a store that was opened for reading.
#[derive(Debug, thiserror::Error)]
#[error("the state file was opened for reading only")]
pub(crate) struct ReadOnly;

/// The thread that owns the connection is gone: the store is shutting down.
#[derive(Debug, thiserror::Error)]
#[error("the store is closed")]
pub(crate) struct Closed;

/// A commit failed for the whole group; told to each of its members.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the transaction was not committed: {0}")]
pub(crate) struct NotCommitted(pub(crate) String);

pub(crate) fn storage<E>(doing: &'static str, source: E) -> JournalError
where
    E: std::error::Error + Send + Sync + 'static,
{
    JournalError::Storage { doing, source: Box::new(source) }
}

/// Maps a failure of SQLite while `doing` (`opened`, `written`, `read`).
pub(crate) fn sqlite(doing: &'static str) -> impl Fn(rusqlite::Error) -> JournalError {
    move |error| match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => JournalError::Busy,
        Some(ErrorCode::NotADatabase) => JournalError::Damaged("it is not a SQLite database".to_owned()),
        Some(ErrorCode::DatabaseCorrupt) => {
            JournalError::Damaged(format!("its pages are corrupt ({error}); restore it from a backup"))
        }
        _ => match error {
            rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..) => {
                JournalError::Damaged(format!("a column holds a value of the wrong type ({error})"))
            }
            error => storage(doing, error),
        },
    }
}

/// True for failures after which the connection must not write again: the disk may have dropped what it was given.
pub(crate) fn is_fatal(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::SystemIoFailure | ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

/// True when another process holds the lock just now.
pub(crate) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}
