//! Giving an environment's name to another uid: the state file that knew the uid is lost, this one takes it over.

use crate::failure::sqlite;
use crate::store::Store;
use platflow_engine::journal::JournalError;
use platflow_engine::name::{EnvironmentName, EnvironmentUid};
use rusqlite::params;

impl Store {
    /// From now on the environment is known under `uid`. What is on record under the earlier uid, or held by a run, stays
    /// as it is: then nothing changes, and the answer is false.
    ///
    /// # Errors
    /// Storage; a uid that another environment of this file has.
    pub async fn adopt_environment(&self, name: &EnvironmentName, uid: &EnvironmentUid) -> Result<bool, JournalError> {
        let (name, uid) = (name.clone(), uid.clone());
        self.writer()?
            .write(move |connection| {
                const FREE: &str = "SELECT uid FROM environments e WHERE name = ?1 AND held_by IS NULL
                    AND NOT EXISTS (SELECT 1 FROM recorded_steps r WHERE r.environment = e.uid)";
                // Generations and struck-off steps are the earlier uid's: tokens are made of the uid, so none of them
                // means anything under another one.
                for table in ["generations", "forgotten_steps"] {
                    connection
                        .execute(&format!("DELETE FROM {table} WHERE environment = ({FREE})"), [name.as_str()])
                        .map_err(sqlite("written"))?;
                }
                let changed = connection
                    .execute(
                        &format!("UPDATE environments SET uid = ?2 WHERE name = ?1 AND uid = ({FREE})"),
                        params![name.as_str(), uid.as_str()],
                    )
                    .map_err(sqlite("written"))?;
                Ok(changed > 0)
            })
            .await
    }
}
