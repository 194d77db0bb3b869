//! Sealed secrets in two places: the state store, and a folder elsewhere for what cannot be made again.

use super::{Sealer, SealingError, private_folder, sync_folder, write_over};
use platflow_engine::failure::{ErrorClass, Residue, StepError};
use platflow_engine::name::EnvironmentUid;
use platflow_engine::secret::{SecretError, SecretStore};
use secrecy::{ExposeSecret, SecretString};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Which of the two places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The state store.
    Store,
    /// The second place.
    Second,
}

/// Why a secret could not be kept or had back.
#[derive(Debug, thiserror::Error)]
pub enum KeystoreError {
    /// Sealing or opening failed.
    #[error("a secret could not be sealed or opened")]
    Sealing(#[from] SealingError),
    /// The state store failed.
    #[error("the state store did not keep the secret {name}")]
    Store {
        /// Which secret.
        name: String,
        /// Why.
        #[source]
        source: SecretError,
    },
    /// The second place failed.
    #[error("the second place {path} did not keep the secret")]
    Second {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No second place is configured, and this secret cannot be made again.
    #[error("no second place for keys is configured")]
    NoSecondPlace,
    /// A name that would leave its folder.
    #[error("{0:?} is no name of a secret")]
    Name(String),
    /// What was read back is not what was written.
    #[error("the secret {name} read back from the {place:?} place is not what was written")]
    ReadBack {
        /// Which secret.
        name: String,
        /// Where.
        place: Place,
    },
}

impl KeystoreError {
    /// As a step's failure: nothing of a secret is in it.
    #[must_use]
    pub fn into_failure(self, residue: Residue) -> StepError {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(&self);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        let class = match &self {
            Self::Store { source: SecretError::Exists(_), .. } | Self::ReadBack { .. } => ErrorClass::NeedsHuman,
            Self::Store { .. } | Self::Second { .. } => ErrorClass::Transient,
            Self::Sealing(_) | Self::NoSecondPlace | Self::Name(_) => ErrorClass::Permanent,
        };
        let error = StepError::new(class, text).leaving(residue);
        match self {
            Self::NoSecondPlace => error.with_remedy(
                "name a folder on another disk or machine as the second place for keys, then resume the run",
            ),
            _ => error,
        }
    }
}

/// Sealed secrets of all environments of a state file.
pub struct Keystore {
    store: Arc<dyn SecretStore>,
    second: Option<PathBuf>,
    sealer: Sealer,
}

impl std::fmt::Debug for Keystore {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Keystore").field("second", &self.second).finish_non_exhaustive()
    }
}

impl Keystore {
    /// A keystore over the state store and, if configured, a second folder.
    #[must_use]
    pub fn new(store: Arc<dyn SecretStore>, second: Option<PathBuf>, sealer: Sealer) -> Self {
        Self { store, second, sealer }
    }

    /// The sealer it uses.
    #[must_use]
    pub fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    /// The second place: the one asked for, or the configured one.
    fn second(&self, other: Option<&Path>) -> Option<PathBuf> {
        other.map(Path::to_owned).or_else(|| self.second.clone())
    }

    /// Keeps a secret that can be made again (a rotated password) in the state store alone, replacing an earlier one.
    ///
    /// # Errors
    /// [`KeystoreError`].
    pub async fn put(
        &self,
        environment: &EnvironmentUid,
        name: &str,
        secret: &SecretString,
    ) -> Result<(), KeystoreError> {
        checked(name)?;
        self.write_store(environment, name, secret, true).await
    }

    /// Keeps a secret that cannot be made again in both places; returns once each was synced, read back and opened.
    /// Repeating it with the same secret is fine; another secret under the same name is refused.
    ///
    /// # Errors
    /// [`KeystoreError`]: the secret must then be held on to and tried again.
    pub async fn put_twice(
        &self,
        environment: &EnvironmentUid,
        name: &str,
        secret: &SecretString,
        second: Option<&Path>,
    ) -> Result<(), KeystoreError> {
        checked(name)?;
        let folder = self.second(second).ok_or(KeystoreError::NoSecondPlace)?;
        let path = file(&folder, environment, name);
        let held = match read_second(&path).await? {
            Some(found) => Some(self.sealer.open_sealed(&found)?),
            None => None,
        };
        if held.as_ref().is_some_and(|held| held.expose_secret() != secret.expose_secret()) {
            return Err(KeystoreError::ReadBack { name: name.to_owned(), place: Place::Second });
        }
        self.write_store(environment, name, secret, false).await?;
        if held.is_some() {
            return Ok(());
        }
        let ciphertext = self.sealer.seal(secret)?;
        write_second(&path, ciphertext).await?;
        let found = read_second(&path).await?.unwrap_or_default();
        if self.sealer.open_sealed(&found)?.expose_secret() != secret.expose_secret() {
            return Err(KeystoreError::ReadBack { name: name.to_owned(), place: Place::Second });
        }
        Ok(())
    }

    async fn write_store(
        &self,
        environment: &EnvironmentUid,
        name: &str,
        secret: &SecretString,
        overwrite: bool,
    ) -> Result<(), KeystoreError> {
        let failed = |source| KeystoreError::Store { name: name.to_owned(), source };
        let found = self.store.get_secret(environment, name).await.map_err(failed)?;
        if let Some(found) = &found
            && self.sealer.open_sealed(&found.ciphertext)?.expose_secret() == secret.expose_secret()
        {
            return Ok(());
        }
        let ciphertext = self.sealer.seal(secret)?;
        self.store.put_secret(environment, name, &ciphertext, overwrite).await.map_err(failed)?;
        let back = self.store.get_secret(environment, name).await.map_err(failed)?;
        let back = back.map(|back| back.ciphertext).unwrap_or_default();
        if self.sealer.open_sealed(&back)?.expose_secret() != secret.expose_secret() {
            return Err(KeystoreError::ReadBack { name: name.to_owned(), place: Place::Store });
        }
        Ok(())
    }

    /// Proves that both places keep, give back and forget a secret, before anything irreplaceable is made.
    ///
    /// # Errors
    /// [`KeystoreError`] says which place failed.
    pub async fn probe(&self, environment: &EnvironmentUid, second: Option<&Path>) -> Result<(), KeystoreError> {
        let name = format!("probe/{}", hex::encode(rand::random::<[u8; 8]>()));
        let content = SecretString::from(hex::encode(rand::random::<[u8; 32]>()));
        let written = self.put_twice(environment, &name, &content, second).await;
        let removed = self.remove(environment, &name, second).await;
        written.and(removed)
    }

    /// The secret of that name: from the state store, else from the second place.
    ///
    /// # Errors
    /// [`KeystoreError`].
    pub async fn get(
        &self,
        environment: &EnvironmentUid,
        name: &str,
        second: Option<&Path>,
    ) -> Result<Option<SecretString>, KeystoreError> {
        checked(name)?;
        let failed = |source| KeystoreError::Store { name: name.to_owned(), source };
        if let Some(found) = self.store.get_secret(environment, name).await.map_err(failed)? {
            return Ok(Some(self.sealer.open_sealed(&found.ciphertext)?));
        }
        let Some(folder) = self.second(second) else { return Ok(None) };
        match read_second(&file(&folder, environment, name)).await? {
            Some(found) => Ok(Some(self.sealer.open_sealed(&found)?)),
            None => Ok(None),
        }
    }

    /// Names of all secrets of an environment, in either place.
    ///
    /// # Errors
    /// [`KeystoreError`].
    pub async fn list(
        &self,
        environment: &EnvironmentUid,
        second: Option<&Path>,
    ) -> Result<BTreeSet<String>, KeystoreError> {
        let failed = |source| KeystoreError::Store { name: "*".into(), source };
        let stored = self.store.list_secrets(environment).await.map_err(failed)?;
        let mut names: BTreeSet<String> = stored.into_iter().map(|secret| secret.name).collect();
        if let Some(folder) = self.second(second) {
            names.extend(list_second(&folder.join(environment.as_str())).await?);
        }
        Ok(names)
    }

    /// Copies into the state store what only the second place holds of an environment, each opened first: after a state
    /// file was lost, both places hold again what cannot be made again. Gives the names of what was copied.
    ///
    /// # Errors
    /// [`KeystoreError`]; what was copied until then stays.
    pub async fn recover(
        &self,
        environment: &EnvironmentUid,
        second: Option<&Path>,
    ) -> Result<Vec<String>, KeystoreError> {
        let Some(folder) = self.second(second) else { return Ok(Vec::new()) };
        let mut recovered = Vec::new();
        for name in list_second(&folder.join(environment.as_str())).await? {
            let failed = |source| KeystoreError::Store { name: name.clone(), source };
            // A file of another shape is nobody's secret.
            if checked(&name).is_err() || self.store.get_secret(environment, &name).await.map_err(failed)?.is_some() {
                continue;
            }
            if let Some(sealed) = read_second(&file(&folder, environment, &name)).await? {
                let secret = self.sealer.open_sealed(&sealed)?;
                self.write_store(environment, &name, &secret, false).await?;
                recovered.push(name);
            }
        }
        Ok(recovered)
    }

    /// Forgets a secret in both places. Only for what is proven useless: a revoked token, keys of storage that is gone.
    ///
    /// # Errors
    /// [`KeystoreError`].
    pub async fn remove(
        &self,
        environment: &EnvironmentUid,
        name: &str,
        second: Option<&Path>,
    ) -> Result<(), KeystoreError> {
        checked(name)?;
        let failed = |source| KeystoreError::Store { name: name.to_owned(), source };
        if let Some(folder) = self.second(second) {
            remove_second(&file(&folder, environment, name)).await?;
        }
        self.store.remove_secret(environment, name).await.map_err(failed)
    }
}

fn checked(name: &str) -> Result<(), KeystoreError> {
    let part =
        |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if name.split('/').all(part) { Ok(()) } else { Err(KeystoreError::Name(name.to_owned())) }
}

/// `<folder>/<environment uid>/<name with _ for />.age`; `_` is in no name.
fn file(folder: &Path, environment: &EnvironmentUid, name: &str) -> PathBuf {
    folder.join(environment.as_str()).join(format!("{}.age", name.replace('/', "_")))
}

async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce(&Path) -> std::io::Result<T> + Send + 'static,
) -> Result<T, KeystoreError> {
    let owned = path.to_owned();
    let failed = |source| KeystoreError::Second { path: path.to_owned(), source };
    match tokio::task::spawn_blocking(move || work(&owned)).await {
        Ok(done) => done.map_err(failed),
        Err(error) => Err(failed(std::io::Error::other(error))),
    }
}

async fn write_second(path: &Path, ciphertext: Vec<u8>) -> Result<(), KeystoreError> {
    blocking(path, move |path| {
        private_folder(path.parent().unwrap_or_else(|| Path::new(".")))?;
        write_over(path, &ciphertext)
    })
    .await
}

async fn read_second(path: &Path) -> Result<Option<Vec<u8>>, KeystoreError> {
    blocking(path, |path| match std::fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    })
    .await
}

async fn remove_second(path: &Path) -> Result<(), KeystoreError> {
    blocking(path, |path| match std::fs::remove_file(path) {
        Ok(()) => sync_folder(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    })
    .await
}

async fn list_second(folder: &Path) -> Result<BTreeSet<String>, KeystoreError> {
    blocking(folder, |folder| {
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            Err(error) => return Err(error),
        };
        let mut names = BTreeSet::new();
        for entry in entries {
            let file = entry?.file_name();
            if let Some(name) = file.to_str().and_then(|file| file.strip_suffix(".age")) {
                names.insert(name.replace('_', "/"));
            }
        }
        Ok(names)
    })
    .await
}
