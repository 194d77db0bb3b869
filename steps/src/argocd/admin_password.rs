//! `argocd.admin_password`: a new admin password, sealed before the server learns it; the initial one is removed.
//!
//! The password is in no output, log or object. A mark beside its hash proves that the sealed one is the one in force.

use crate::contract::{Made, Record, Seen, StepKind};
use crate::kubernetes::api::{Api, ObjectKey};
use crate::kubernetes::objects::{UID_LABEL, foreign, label_value, text};
use crate::kubernetes::{Clients, ClusterAccess};
use crate::sealing::Keystore;
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use platflow_engine::context::Context;
use platflow_engine::failure::{Residue, StepError};
use platflow_engine::step::{Difference, Ownership, UndoProgress};
use rand::RngExt;
use rand::distr::Alphanumeric;
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;

/// Whose password.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AdminPasswordSpec {
    /// The cluster.
    pub cluster: ClusterAccess,
    /// Argo CD's namespace.
    pub namespace: String,
}

/// Where the password is.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(super) struct AdminPasswordOutputs {
    /// The name under which it is sealed: `platflow secret show <name>`.
    pub secret_name: String,
    /// The user it belongs to.
    pub user: String,
}

/// See the file.
pub(super) struct AdminPasswordKind {
    pub(super) clients: Arc<Clients>,
    pub(super) keystore: Arc<Keystore>,
}

const SEALED_AS: &str = "argocd/admin-password";
const MARK: &str = "platflow.io/admin-password";
const LENGTH: usize = 24;
/// Argo CD's own cost.
const BCRYPT_COST: u32 = 10;
const POLL: Duration = Duration::from_secs(2);
const BUDGET: Duration = Duration::from_secs(5 * 60);

fn secret(namespace: &str) -> ObjectKey {
    ObjectKey::namespaced("v1", "Secret", namespace, "argocd-secret")
}

fn initial(namespace: &str) -> ObjectKey {
    ObjectKey::namespaced("v1", "Secret", namespace, "argocd-initial-admin-secret")
}

/// Proves that a password belongs to a hash without another bcrypt; the password's 142 random bits keep it safe.
fn mark(hash: &str, password: &SecretString) -> String {
    let mut digest = Sha256::new();
    digest.update(hash.as_bytes());
    digest.update([0]);
    digest.update(password.expose_secret().as_bytes());
    hex::encode(digest.finalize())
}

fn outputs() -> AdminPasswordOutputs {
    AdminPasswordOutputs { secret_name: SEALED_AS.to_owned(), user: "admin".to_owned() }
}

fn difference(field: &str, wanted: &str, found: &str) -> Difference {
    Difference { field: field.to_owned(), wanted: wanted.into(), found: found.into(), replace: false }
}

fn owned(stored: &Value, context: &Context) -> Ownership {
    let uid = stored.pointer("/metadata/labels").and_then(|labels| labels.get(UID_LABEL)).and_then(Value::as_str);
    if uid == Some(label_value(context.environment_uid.as_str()).as_str()) {
        Ownership::Ours
    } else {
        Ownership::Foreign(format!("another installation of Argo CD (environment uid {})", uid.unwrap_or("none")))
    }
}

impl AdminPasswordKind {
    async fn rotate(&self, api: &Api<'_>, namespace: &str, context: &Context) -> Result<(), StepError> {
        let text: String = rand::rng().sample_iter(Alphanumeric).take(LENGTH).map(char::from).collect();
        let password = SecretString::from(text);
        let hashing = password.clone();
        let hash = tokio::task::spawn_blocking(move || bcrypt::hash(hashing.expose_secret(), BCRYPT_COST))
            .await
            .map_err(|error| StepError::transient(format!("hashing the admin password was interrupted: {error}")))?
            .map_err(|error| StepError::permanent(format!("the admin password cannot be hashed: {error}")))?;
        let sealed = self.keystore.put(&context.environment_uid, SEALED_AS, &password).await;
        sealed.map_err(|error| error.into_failure(Residue::Unknown))?;
        let permit = context.begin("rotate/argocd-secret")?;
        let body = json!({
            "metadata": {"annotations": {MARK: mark(&hash, &password)}},
            "data": {
                "admin.password": STANDARD.encode(&hash),
                "admin.passwordMtime": STANDARD.encode(context.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
            },
        });
        api.merge(&secret(namespace), &body, &permit).await?;
        Ok(())
    }
}

#[async_trait]
impl StepKind for AdminPasswordKind {
    type Spec = AdminPasswordSpec;
    type Outputs = AdminPasswordOutputs;

    const NAME: &'static str = "argocd.admin_password";
    const SUMMARY: &'static str = "Argo CD's admin password, rotated and sealed.";

    async fn observe(
        &self,
        spec: &AdminPasswordSpec,
        _record: &Record<AdminPasswordOutputs>,
        context: &Context,
    ) -> Result<Seen<AdminPasswordOutputs>, StepError> {
        let api = Api::new(&self.clients, &spec.cluster, context)?;
        let Some(stored) = api.get(&secret(&spec.namespace)).await? else { return Ok(Seen::Absent) };
        let found = stored.pointer("/metadata/annotations").and_then(|notes| notes.get(MARK)).and_then(Value::as_str);
        let Some(found) = found else { return Ok(Seen::Absent) };
        let hash = STANDARD.decode(text(&stored, "/data/admin.password")).unwrap_or_default();
        let hash = String::from_utf8_lossy(&hash).into_owned();
        let mut differences = Vec::new();
        let sealed = self.keystore.get(&context.environment_uid, SEALED_AS, None).await;
        match sealed.map_err(|error| error.into_failure(Residue::Unknown))? {
            Some(sealed) if mark(&hash, &sealed) == found => {}
            Some(_) => differences.push(difference("/password", "the sealed one", "changed since")),
            None => differences.push(difference("/password", "sealed", "not on record")),
        }
        if api.get(&initial(&spec.namespace)).await?.is_some() {
            differences.push(difference("/initial_secret", "removed", "present"));
        }
        Ok(Seen::Present { outputs: outputs(), ownership: owned(&stored, context), differences })
    }

    async fn apply(
        &self,
        spec: &AdminPasswordSpec,
        seen: &Seen<AdminPasswordOutputs>,
        _record: &Record<AdminPasswordOutputs>,
        context: &Context,
    ) -> Result<Made<AdminPasswordOutputs>, StepError> {
        let api = Api::new(&self.clients, &spec.cluster, context)?;
        let key = secret(&spec.namespace);
        let stored = api.get(&key).await?.filter(|stored| !text(stored, "/data/admin.password").is_empty());
        let Some(stored) = stored else {
            let reason = format!("{key} holds no admin password yet");
            return Ok(Made::Waiting { reason, poll_in: POLL, budget: BUDGET });
        };
        if let Ownership::Foreign(owner) = owned(&stored, context) {
            return Err(foreign(&key, &owner));
        }
        let settled = match seen {
            Seen::Present { differences, .. } => differences.iter().all(|difference| difference.field != "/password"),
            _ => false,
        };
        if !settled {
            self.rotate(&api, &spec.namespace, context).await?;
        }
        let key = initial(&spec.namespace);
        if let Some(initial) = api.get(&key).await? {
            let permit = context.begin(&format!("delete/{key}"))?;
            api.delete(&key, text(&initial, "/metadata/uid"), "Background", &permit).await?;
        }
        Ok(Made::Done(outputs()))
    }

    async fn undo(
        &self,
        _spec: &AdminPasswordSpec,
        _record: &Record<AdminPasswordOutputs>,
        context: &Context,
    ) -> Result<UndoProgress, StepError> {
        let removed = self.keystore.remove(&context.environment_uid, SEALED_AS, None).await;
        removed.map_err(|error| error.into_failure(Residue::Unknown))?;
        Ok(UndoProgress::Gone { evidence: "the sealed password is forgotten; its hash goes with Argo CD".to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves that the mark tells the sealed password from any other, and the hash in force from an earlier one.
    #[test]
    fn the_mark_binds_password_and_hash() {
        let (one, two) = (SecretString::from("one"), SecretString::from("two"));
        assert_eq!(mark("h", &one), mark("h", &one));
        assert_ne!(mark("h", &one), mark("h", &two));
        assert_ne!(mark("h", &one), mark("i", &one));
    }
}
