//! The world's documents: one per storage (with its process) and per cluster, handed out when changed, taken back at
//! start. Shares given so far and plaintext tokens are in none of them.

use super::model::{Cluster, Process, Servers, Storage};
use serde_json::{Value, json};

impl Servers {
    /// Every document that changed since the last call: key and content, or nothing when it is gone. Keys are relative:
    /// the world prefixes them.
    pub fn take_dirty(&mut self) -> Vec<(String, Option<Value>)> {
        std::mem::take(&mut self.dirty)
            .into_iter()
            .map(|key| {
                let document = self.document(&key);
                (key, document)
            })
            .collect()
    }

    /// See [`crate::world::World::forget_changes`].
    pub(crate) fn forget_changes(&mut self) {
        self.dirty.clear();
    }

    fn document(&self, key: &str) -> Option<Value> {
        match key.split_once('/') {
            Some(("storage", id)) => {
                let storage = self.storages.get(id)?;
                Some(json!({ "storage": storage, "process": self.processes.get(id) }))
            }
            Some(("cluster", id)) => self.clusters.get(id).and_then(|cluster| serde_json::to_value(cluster).ok()),
            _ => Some(json!(self.random.to_string())),
        }
    }

    /// Takes documents back, as [`Self::take_dirty`] gave them.
    ///
    /// # Errors
    /// When a document is not what this version writes.
    pub fn restore(documents: impl IntoIterator<Item = (String, Value)>) -> Result<Self, serde_json::Error> {
        let mut servers = Self::default();
        for (key, document) in documents {
            match key.split_once('/') {
                Some(("storage", id)) => {
                    let member = |name: &str| document.get(name).cloned().unwrap_or_default();
                    let storage: Storage = serde_json::from_value(member("storage"))?;
                    servers.storages.insert(id.to_owned(), storage);
                    if let Some(process) = serde_json::from_value::<Option<Process>>(member("process"))? {
                        servers.processes.insert(id.to_owned(), process);
                    }
                }
                Some(("cluster", id)) => {
                    let cluster: Cluster = serde_json::from_value(document)?;
                    servers.clusters.insert(id.to_owned(), cluster);
                }
                _ => {
                    let text: String = serde_json::from_value(document)?;
                    servers.random = text.parse().map_err(serde::de::Error::custom)?;
                }
            }
        }
        Ok(servers)
    }
}
