//! Copies of a live state file, taken beside its writer: each is the file as some commit left it.
//!
//! It reads with a connection of its own and writes nothing but the copy.

use crate::failure::sqlite;
use crate::file;
use crate::settings::StoreSettings;
use platflow_engine::journal::JournalError;
use rusqlite::Connection;
use rusqlite::backup::Backup;
use std::path::Path;
use std::time::Duration;

/// How many pages are copied in one go: all of any file that a rehearsal makes.
const PAGES: i32 = 100_000;

/// Copies one state file, again and again.
#[derive(Debug)]
pub struct Copier {
    connection: Connection,
}

impl Copier {
    /// Of an existing state file.
    ///
    /// # Errors
    /// It cannot be read, or is none of ours.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        Ok(Self { connection: file::open_reader(path, &StoreSettings::default())? })
    }

    /// A number that changes with every commit that another connection made.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn version(&self) -> Result<i64, JournalError> {
        self.connection.pragma_query_value(None, "data_version", |row| row.get(0)).map_err(sqlite("read"))
    }

    /// Writes a copy to a path where nothing is yet. Blocks for as long as the copying takes.
    ///
    /// # Errors
    /// The file cannot be read, or the copy not be written.
    pub fn copy_to(&self, path: &Path) -> Result<(), JournalError> {
        let mut copy = Connection::open(path).map_err(sqlite("written"))?;
        // Nobody needs the copy after a power cut.
        copy.pragma_update(None, "synchronous", "OFF").map_err(sqlite("written"))?;
        let backup = Backup::new(&self.connection, &mut copy).map_err(sqlite("read"))?;
        backup.run_to_completion(PAGES, Duration::from_millis(1), None).map_err(sqlite("written"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A copy of a file that is being written opens as a state file of its own, and the version tells whether anything was
    /// committed since.
    #[test]
    fn a_copy_is_a_state_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let writer = file::open_writer(&path, &StoreSettings::default()).unwrap();
        let copier = Copier::open(&path).unwrap();
        let first = copier.version().unwrap();
        assert_eq!(copier.version().unwrap(), first);
        writer.execute_batch("CREATE TABLE probe (id INTEGER) STRICT").unwrap();
        assert_ne!(copier.version().unwrap(), first);
        let copy = folder.path().join("copy.db");
        copier.copy_to(&copy).unwrap();
        let again = file::open_writer(&copy, &StoreSettings::default()).unwrap();
        let tables: i64 =
            again.query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'probe'", [], |row| row.get(0)).unwrap();
        assert_eq!(tables, 1);
    }
}
