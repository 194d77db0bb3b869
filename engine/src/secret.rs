//! The port for sealed secrets: the store keeps ciphertext under a name and journals who took what out and when.
//!
//! Nothing here seals or opens anything; a plaintext never crosses this port.

use crate::name::EnvironmentUid;
use async_trait::async_trait;
use jiff::Timestamp;

/// A sealed secret on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSecret {
    /// E.g. `vault/share-1`, `argocd/admin-password`.
    pub name: String,
    /// age ciphertext.
    pub ciphertext: Vec<u8>,
    /// When it was stored.
    pub created_at: Timestamp,
}

/// Why the secret store refused.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// A secret of that name exists with other bytes, and overwriting was not asked for.
    #[error("a secret named {0:?} is already on record")]
    Exists(String),
    /// The store itself failed.
    #[error("the secret store failed")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Durable storage for sealed secrets of one state file.
#[async_trait]
pub trait SecretStore: Send + Sync + 'static {
    /// Stores ciphertext durably (synced before it returns). Without `overwrite`, an existing secret of that name with
    /// other bytes is refused.
    ///
    /// # Errors
    /// [`SecretError::Exists`], or the store's own failure.
    async fn put_secret(
        &self,
        environment: &EnvironmentUid,
        name: &str,
        ciphertext: &[u8],
        overwrite: bool,
    ) -> Result<(), SecretError>;

    /// The secret of that name, if there is one.
    ///
    /// # Errors
    /// The store's own failure.
    async fn get_secret(&self, environment: &EnvironmentUid, name: &str) -> Result<Option<SealedSecret>, SecretError>;

    /// All secrets of an environment, by name.
    ///
    /// # Errors
    /// The store's own failure.
    async fn list_secrets(&self, environment: &EnvironmentUid) -> Result<Vec<SealedSecret>, SecretError>;

    /// Forgets a secret whose subject is proven gone (wiped virgin Vault storage, destroyed environment).
    ///
    /// # Errors
    /// The store's own failure.
    async fn remove_secret(&self, environment: &EnvironmentUid, name: &str) -> Result<(), SecretError>;

    /// Journals that `who` took the secret out.
    ///
    /// # Errors
    /// The store's own failure: then the secret must not be shown.
    async fn record_access(&self, environment: &EnvironmentUid, name: &str, who: &str) -> Result<(), SecretError>;
}
