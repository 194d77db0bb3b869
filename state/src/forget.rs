//! Forgetting what lived in a world that is gone: the record of an environment, never its runs or their events.

use crate::failure::sqlite;
use crate::read;
use crate::store::Store;
use platflow_engine::journal::{EnvironmentRow, JournalError};
use platflow_engine::name::{EnvironmentName, EnvironmentUid, RunId};
use rusqlite::params;
use serde_json::Value;

impl Store {
    /// Every environment on record, by name.
    ///
    /// # Errors
    /// Storage, or a damaged row.
    pub async fn environments(&self) -> Result<Vec<EnvironmentRow>, JournalError> {
        self.read(|connection| {
            let rows = connection
                .prepare_cached("SELECT name, uid, target, held_by, created_at FROM environments ORDER BY name")
                .and_then(|mut statement| {
                    statement
                        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))?
                        .collect::<Result<Vec<(String, String, String, Option<String>, i64)>, _>>()
                })
                .map_err(sqlite("read"))?;
            rows.into_iter()
                .map(|(name, uid, target, held_by, created_at)| {
                    Ok(EnvironmentRow {
                        name: read::name(&name, EnvironmentName::new)?,
                        uid: read::name(&uid, EnvironmentUid::new)?,
                        target: serde_json::from_str(&target).map_err(|error| {
                            JournalError::Damaged(format!("the target of environment {name}: {error}"))
                        })?,
                        held_by: held_by.map(|run| read::name(&run, RunId::new)).transpose()?,
                        created_at: read::timestamp(created_at)?,
                    })
                })
                .collect()
        })
        .await
    }

    /// Forgets what is on record for an environment and pins it to another target: the world that it lived in is gone.
    /// Its finished runs stay to be read; the caller has ended the unfinished ones.
    ///
    /// # Errors
    /// Storage.
    pub async fn forget_environment(&self, uid: &EnvironmentUid, target: &Value) -> Result<(), JournalError> {
        let (uid, target) = (uid.clone(), target.to_string());
        let writer = self.writer()?;
        writer
            .write(move |connection| {
                for table in ["recorded_steps", "generations", "forgotten_steps", "secrets"] {
                    connection
                        .execute(&format!("DELETE FROM {table} WHERE environment = ?1"), [uid.as_str()])
                        .map_err(sqlite("written"))?;
                }
                connection
                    .execute("UPDATE environments SET target = ?1 WHERE uid = ?2", params![target, uid.as_str()])
                    .map_err(sqlite("written"))
            })
            .await?;
        // Removed secrets must not live on in the WAL.
        writer.checkpoint().await;
        Ok(())
    }
}
