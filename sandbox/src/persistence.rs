//! The world on disk: documents by key in SQLite, written before the reply of the call that changed them. The file system
//! is not forced: the world survives the death of its process, not of the machine.

use std::path::Path;

use rusqlite::{Connection, params};
use serde_json::Value;

/// Why the world could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum PersistenceError {
    /// SQLite refused.
    #[error("the sandbox's world cannot be read or written")]
    Database(#[from] rusqlite::Error),
    /// A document is damaged.
    #[error("the sandbox's world holds a damaged document")]
    Document(#[from] serde_json::Error),
}

/// The file.
#[derive(Debug)]
pub struct Persistence {
    connection: Connection,
}

impl Persistence {
    /// Opens or makes the file.
    ///
    /// # Errors
    /// It is no database, or cannot be written.
    pub fn open(file: &Path) -> Result<Self, PersistenceError> {
        let connection = Connection::open(file)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS documents (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID",
        )?;
        Ok(Self { connection })
    }

    /// All documents.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn load(&self) -> Result<Vec<(String, Value)>, PersistenceError> {
        let mut statement = self.connection.prepare("SELECT key, value FROM documents ORDER BY key")?;
        let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
        rows.map(|row| {
            let (key, value) = row?;
            Ok((key, serde_json::from_str(&value)?))
        })
        .collect()
    }

    /// Writes what changed, all or nothing.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&mut self, changes: &[(String, Option<Value>)]) -> Result<(), PersistenceError> {
        if changes.is_empty() {
            return Ok(());
        }
        let transaction = self.connection.transaction()?;
        {
            let mut put = transaction.prepare_cached("INSERT INTO documents (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value")?;
            let mut remove = transaction.prepare_cached("DELETE FROM documents WHERE key = ?1")?;
            for (key, value) in changes {
                match value {
                    Some(value) => put.execute(params![key, value.to_string()])?,
                    None => remove.execute([key])?,
                };
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// Forgets everything.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn clear(&mut self) -> Result<(), PersistenceError> {
        self.connection.execute("DELETE FROM documents", [])?;
        Ok(())
    }
}
