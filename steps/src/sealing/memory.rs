//! A secret store in memory, for tests.

use async_trait::async_trait;
use jiff::Timestamp;
use platflow_engine::name::EnvironmentUid;
use platflow_engine::secret::{SealedSecret, SecretError, SecretStore};
use std::collections::BTreeMap;
use std::sync::Mutex;

#[derive(Default)]
pub(crate) struct Memory(pub(crate) Mutex<BTreeMap<String, Vec<u8>>>);

#[async_trait]
impl SecretStore for Memory {
    async fn put_secret(&self, _: &EnvironmentUid, name: &str, bytes: &[u8], over: bool) -> Result<(), SecretError> {
        let mut held = self.0.lock().expect("lock");
        if !over && held.get(name).is_some_and(|found| found != bytes) {
            return Err(SecretError::Exists(name.into()));
        }
        held.insert(name.into(), bytes.to_vec());
        Ok(())
    }
    async fn get_secret(&self, _: &EnvironmentUid, name: &str) -> Result<Option<SealedSecret>, SecretError> {
        let found = self.0.lock().expect("lock").get(name).cloned();
        Ok(found.map(|ciphertext| SealedSecret { name: name.into(), ciphertext, created_at: Timestamp::UNIX_EPOCH }))
    }
    async fn list_secrets(&self, _: &EnvironmentUid) -> Result<Vec<SealedSecret>, SecretError> {
        let held = self.0.lock().expect("lock");
        let sealed = |(name, bytes): (&String, &Vec<u8>)| SealedSecret {
            name: name.clone(),
            ciphertext: bytes.clone(),
            created_at: Timestamp::UNIX_EPOCH,
        };
        Ok(held.iter().map(sealed).collect())
    }
    async fn remove_secret(&self, _: &EnvironmentUid, name: &str) -> Result<(), SecretError> {
        self.0.lock().expect("lock").remove(name);
        Ok(())
    }
    async fn record_access(&self, _: &EnvironmentUid, _: &str, _: &str) -> Result<(), SecretError> {
        Ok(())
    }
}
