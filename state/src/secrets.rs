//! Sealed secrets: ciphertext under a name, and the access log of who took which out and when. Nothing here can open one.

use crate::failure::sqlite;
use crate::read;
use crate::store::Store;
use crate::time;
use async_trait::async_trait;
use jiff::Timestamp;
use platflow_engine::journal::JournalError;
use platflow_engine::name::EnvironmentUid;
use platflow_engine::secret::{SealedSecret, SecretError, SecretStore};
use rusqlite::{Connection, OptionalExtension, params};

fn store(error: JournalError) -> SecretError {
    SecretError::Store(Box::new(error))
}

/// True when the secret is on record as asked; false when another of that name is in the way.
fn put(
    connection: &Connection,
    environment: &EnvironmentUid,
    name: &str,
    ciphertext: &[u8],
    overwrite: bool,
) -> Result<bool, JournalError> {
    let failed = sqlite("written");
    let present: Option<Vec<u8>> = connection
        .query_row(
            "SELECT ciphertext FROM secrets WHERE environment = ?1 AND name = ?2",
            params![environment.as_str(), name],
            |row| row.get(0),
        )
        .optional()
        .map_err(&failed)?;
    match present {
        Some(present) if present == ciphertext => return Ok(true),
        Some(_) if !overwrite => return Ok(false),
        _ => {}
    }
    connection
        .execute(
            "INSERT INTO secrets (environment, name, ciphertext, created_at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (environment, name) DO UPDATE SET ciphertext = excluded.ciphertext, created_at = excluded.created_at",
            params![environment.as_str(), name, ciphertext, time::wall_now().as_microsecond()],
        )
        .map_err(&failed)?;
    Ok(true)
}

fn select(
    connection: &Connection,
    environment: &EnvironmentUid,
    name: Option<&str>,
) -> Result<Vec<SealedSecret>, JournalError> {
    let rows = connection
        .prepare_cached(
            "SELECT name, ciphertext, created_at FROM secrets
             WHERE environment = ?1 AND (?2 IS NULL OR name = ?2) ORDER BY name",
        )
        .and_then(|mut statement| {
            statement
                .query_map(params![environment.as_str(), name], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect::<Result<Vec<(String, Vec<u8>, i64)>, _>>()
        })
        .map_err(sqlite("read"))?;
    rows.into_iter()
        .map(|(name, ciphertext, created_at)| {
            Ok(SealedSecret { name, ciphertext, created_at: read::timestamp(created_at)? })
        })
        .collect()
}

/// One line of the access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretAccess {
    /// Which secret was taken out.
    pub name: String,
    /// By whom: user and host.
    pub who: String,
    /// When.
    pub at: Timestamp,
}

impl Store {
    /// Who took which secret of an environment out, oldest first.
    ///
    /// # Errors
    /// Storage, or a damaged row.
    pub async fn secret_accesses(&self, environment: &EnvironmentUid) -> Result<Vec<SecretAccess>, JournalError> {
        let environment = environment.clone();
        self.read(move |connection| {
            let rows = connection
                .prepare_cached("SELECT name, who, at FROM secret_access WHERE environment = ?1 ORDER BY id")
                .and_then(|mut statement| {
                    statement
                        .query_map([environment.as_str()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                        .collect::<Result<Vec<(String, String, i64)>, _>>()
                })
                .map_err(sqlite("read"))?;
            rows.into_iter().map(|(name, who, at)| Ok(SecretAccess { name, who, at: read::timestamp(at)? })).collect()
        })
        .await
    }
}

#[async_trait]
impl SecretStore for Store {
    async fn put_secret(
        &self,
        environment: &EnvironmentUid,
        name: &str,
        ciphertext: &[u8],
        overwrite: bool,
    ) -> Result<(), SecretError> {
        let (environment, text, ciphertext) = (environment.clone(), name.to_owned(), ciphertext.to_vec());
        let stored = self
            .writer()
            .map_err(store)?
            .write(move |connection| put(connection, &environment, &text, &ciphertext, overwrite))
            .await
            .map_err(store)?;
        if stored { Ok(()) } else { Err(SecretError::Exists(name.to_owned())) }
    }

    async fn get_secret(&self, environment: &EnvironmentUid, name: &str) -> Result<Option<SealedSecret>, SecretError> {
        let (environment, name) = (environment.clone(), name.to_owned());
        let found = self.read(move |connection| select(connection, &environment, Some(&name))).await.map_err(store)?;
        Ok(found.into_iter().next())
    }

    async fn list_secrets(&self, environment: &EnvironmentUid) -> Result<Vec<SealedSecret>, SecretError> {
        let environment = environment.clone();
        self.read(move |connection| select(connection, &environment, None)).await.map_err(store)
    }

    async fn remove_secret(&self, environment: &EnvironmentUid, name: &str) -> Result<(), SecretError> {
        let (environment, name) = (environment.clone(), name.to_owned());
        let writer = self.writer().map_err(store)?;
        writer
            .write(move |connection| {
                connection
                    .execute(
                        "DELETE FROM secrets WHERE environment = ?1 AND name = ?2",
                        params![environment.as_str(), name],
                    )
                    .map_err(sqlite("written"))
            })
            .await
            .map_err(store)?;
        // `secure_delete` overwrote the page; the WAL still has its older image until it is emptied.
        writer.checkpoint().await;
        Ok(())
    }

    async fn record_access(&self, environment: &EnvironmentUid, name: &str, who: &str) -> Result<(), SecretError> {
        let (environment, name, who) = (environment.clone(), name.to_owned(), who.to_owned());
        self.writer()
            .map_err(store)?
            .write(move |connection| {
                connection
                    .execute(
                        "INSERT INTO secret_access (environment, name, who, at) VALUES (?1, ?2, ?3, ?4)",
                        params![environment.as_str(), name, who, time::wall_now().as_microsecond()],
                    )
                    .map_err(sqlite("written"))
            })
            .await
            .map_err(store)?;
        Ok(())
    }
}
