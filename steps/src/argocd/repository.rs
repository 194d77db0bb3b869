//! `argocd.repository`: the credentials with which Argo CD reads a private repository, as Argo CD keeps them: a labelled
//! Secret in its namespace.
//!
//! They are read from a file of the operator's at the moment they are needed: no plan, journal, output, difference or error
//! ever holds them.

use crate::contract::{Made, Record, Seen, StepKind};
use crate::kubernetes::api::{Api, ObjectKey};
use crate::kubernetes::objects::{self, Removal, Standing, foreign, holding, text};
use crate::kubernetes::{Clients, ClusterAccess};
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use platflow_engine::context::Context;
use platflow_engine::failure::{Residue, StepError};
use platflow_engine::step::{Difference, Ownership, UndoProgress};
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// A private repository.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RepositorySpec {
    /// The cluster.
    pub cluster: ClusterAccess,
    /// Argo CD's namespace.
    pub namespace: String,
    /// The Secret's name.
    #[serde(default = "usual_name")]
    pub name: String,
    /// The repository, exactly as the application names it.
    pub url: String,
    /// How to log in there.
    pub credentials: GitCredentials,
}

/// How to log in to a git server: a user with a password or token, or a key.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GitCredentials {
    /// The user of a password; `git` when left out, which suits the tokens of most hosts.
    #[serde(default)]
    pub username: Option<String>,
    /// Absolute path of a file on this machine that holds the password or token.
    #[serde(default)]
    pub password_file: Option<String>,
    /// Absolute path of a file on this machine that holds a private SSH key.
    #[serde(default)]
    pub ssh_private_key_file: Option<String>,
}

/// Credentials that are in place.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(super) struct RepositoryOutputs {
    /// The Secret's name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// See the file.
pub(super) struct RepositoryKind(pub(super) Arc<Clients>);

const TYPE_LABEL: &str = "argocd.argoproj.io/secret-type";
const POLL: Duration = Duration::from_secs(2);
const BUDGET: Duration = Duration::from_secs(2 * 60);

fn usual_name() -> String {
    "platflow-root-repository".to_owned()
}

fn key(spec: &RepositorySpec) -> ObjectKey {
    ObjectKey::namespaced("v1", "Secret", &spec.namespace, &spec.name)
}

/// The secret entry of the Secret: its name in Argo CD's words, and the file that holds it.
fn source(credentials: &GitCredentials) -> Result<(&'static str, &str), StepError> {
    match (&credentials.password_file, &credentials.ssh_private_key_file) {
        (Some(file), None) => Ok(("password", file)),
        (None, Some(file)) if credentials.username.is_none() => Ok(("sshPrivateKey", file)),
        _ => Err(StepError::permanent("the credentials of the git repository name no single way to log in")
            .leaving(Residue::None)
            .with_code("Credentials")
            .with_remedy("give either password_file (with username, if it is not git) or ssh_private_key_file")),
    }
}

fn read(file: &str) -> Result<SecretString, StepError> {
    let refuse = |why: String| {
        StepError::needs_human(format!("the git credentials cannot be read from {file}: {why}"))
            .leaving(Residue::None)
            .with_code("Credentials")
            .with_remedy("put the password, token or key there, readable to this user, then resume")
    };
    if !std::path::Path::new(file).is_absolute() {
        return Err(refuse("the path is not absolute, and a resume may run elsewhere".to_owned()));
    }
    let content = SecretString::from(std::fs::read_to_string(file).map_err(|error| refuse(error.to_string()))?);
    if content.expose_secret().trim().is_empty() {
        return Err(refuse("the file is empty".to_owned()));
    }
    Ok(content)
}

/// A password ends where its line ends; a key keeps its last line break, which OpenSSH insists on.
fn encoded(entry: &str, content: &SecretString) -> String {
    let content = content.expose_secret();
    if entry == "password" { STANDARD.encode(content.trim_end_matches(['\r', '\n'])) } else { STANDARD.encode(content) }
}

/// What is wanted beside the secret entry.
fn plain(spec: &RepositorySpec) -> Vec<(&'static str, String)> {
    let mut entries = vec![("type", "git".to_owned()), ("url", spec.url.clone())];
    if spec.credentials.password_file.is_some() {
        entries.push(("username", spec.credentials.username.clone().unwrap_or_else(|| "git".to_owned())));
    }
    entries
}

fn object(spec: &RepositorySpec, entry: &str, content: &SecretString) -> Value {
    let mut data = serde_json::Map::new();
    for (name, value) in plain(spec) {
        data.insert(name.to_owned(), STANDARD.encode(value).into());
    }
    data.insert(entry.to_owned(), encoded(entry, content).into());
    json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": data,
        "metadata": {"name": spec.name, "namespace": spec.namespace, "labels": {TYPE_LABEL: "repository"}}})
}

fn difference(field: &str, wanted: &str, found: &str) -> Difference {
    Difference { field: field.to_owned(), wanted: wanted.into(), found: found.into(), replace: false }
}

/// How what is stored differs; the secret entry is compared, never shown. Without the file it cannot be compared, and what
/// is there is left.
fn differences(spec: &RepositorySpec, stored: &Value) -> Result<Vec<Difference>, StepError> {
    let mut found = Vec::new();
    let label = stored.pointer("/metadata/labels").and_then(|labels| labels.get(TYPE_LABEL)).and_then(Value::as_str);
    if label != Some("repository") {
        found.push(difference("/type", "repository", label.unwrap_or("none")));
    }
    for (name, wanted) in plain(spec) {
        let value = STANDARD.decode(text(stored, &format!("/data/{name}"))).unwrap_or_default();
        let value = String::from_utf8_lossy(&value);
        if value != wanted {
            found.push(difference(&format!("/{name}"), &wanted, &value));
        }
    }
    let (entry, file) = source(&spec.credentials)?;
    let there = text(stored, &format!("/data/{entry}"));
    match read(file) {
        Ok(content) if encoded(entry, &content) == there => {}
        Err(_) if !there.is_empty() => {}
        Ok(_) | Err(_) => found.push(difference("/credentials", "what the file holds", "something else")),
    }
    Ok(found)
}

fn outputs(spec: &RepositorySpec, stored: &Value) -> RepositoryOutputs {
    RepositoryOutputs { name: spec.name.clone(), uid: text(stored, "/metadata/uid").to_owned() }
}

fn recorded(record: &Record<RepositoryOutputs>) -> Option<&str> {
    record.outputs.as_ref().map(|outputs| outputs.uid.as_str())
}

#[async_trait]
impl StepKind for RepositoryKind {
    type Spec = RepositorySpec;
    type Outputs = RepositoryOutputs;

    const NAME: &'static str = "argocd.repository";
    const SUMMARY: &'static str = "The credentials with which Argo CD reads a private git repository.";

    async fn observe(
        &self,
        spec: &RepositorySpec,
        record: &Record<RepositoryOutputs>,
        context: &Context,
    ) -> Result<Seen<RepositoryOutputs>, StepError> {
        let api = Api::new(&self.0, &spec.cluster, context)?;
        let Some(stored) = api.get(&key(spec)).await? else { return Ok(Seen::Absent) };
        if !text(&stored, "/metadata/deletionTimestamp").is_empty() {
            return Ok(Seen::Changing { reason: holding(&key(spec), &stored), poll_in: POLL });
        }
        let ownership = objects::ownership(&stored, recorded(record), context);
        let differences = if ownership == Ownership::Ours { differences(spec, &stored)? } else { Vec::new() };
        Ok(Seen::Present { outputs: outputs(spec, &stored), ownership, differences })
    }

    async fn apply(
        &self,
        spec: &RepositorySpec,
        _seen: &Seen<RepositoryOutputs>,
        record: &Record<RepositoryOutputs>,
        context: &Context,
    ) -> Result<Made<RepositoryOutputs>, StepError> {
        let (entry, file) = source(&spec.credentials)?;
        let content = read(file)?;
        let api = Api::new(&self.0, &spec.cluster, context)?;
        let standing = match api.get(&key(spec)).await? {
            None => None,
            Some(stored) => {
                let ownership = objects::ownership(&stored, recorded(record), context);
                if let Ownership::Foreign(owner) = &ownership {
                    return Err(foreign(&key(spec), owner));
                }
                Some(Standing { stored, ownership, differences: Vec::new() })
            }
        };
        let stored = objects::put(&api, &key(spec), &object(spec, entry, &content), standing.as_ref()).await?;
        Ok(Made::Done(outputs(spec, &stored)))
    }

    async fn undo(
        &self,
        spec: &RepositorySpec,
        record: &Record<RepositoryOutputs>,
        context: &Context,
    ) -> Result<UndoProgress, StepError> {
        let api = Api::new(&self.0, &spec.cluster, context)?;
        Ok(match objects::remove(&api, &key(spec), recorded(record), "Background").await? {
            Removal::Gone(evidence) => UndoProgress::Gone { evidence },
            Removal::Going(reason) => UndoProgress::Waiting { reason, poll_in: POLL, budget: BUDGET },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(credentials: Value) -> RepositorySpec {
        serde_json::from_value(json!({
            "cluster": {"name": "c", "endpoint": "https://c", "certificate_authority_data": ""},
            "namespace": "argocd", "url": "https://git.example/root.git", "credentials": credentials,
        }))
        .unwrap()
    }

    /// Proves that a changed token is noticed, that a missing file is not taken for a change, and that no difference ever
    /// shows what the file or the Secret holds.
    #[test]
    fn differences_compare_and_never_show() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "s3cr3t-one\n").unwrap();
        let spec = spec(json!({"password_file": file}));
        let (entry, path) = source(&spec.credentials).unwrap();
        let stored = object(&spec, entry, &read(path).unwrap());
        assert_eq!(differences(&spec, &stored).unwrap(), Vec::new());
        std::fs::write(&file, "s3cr3t-two\n").unwrap();
        let found = differences(&spec, &stored).unwrap();
        assert_eq!(found.len(), 1);
        assert!(!format!("{found:?}").contains("s3cr3t"), "{found:?}");
        std::fs::remove_file(&file).unwrap();
        assert_eq!(differences(&spec, &stored).unwrap(), Vec::new());
        let error = read(path).unwrap_err();
        assert!(error.message.contains("token") && error.residue == Residue::None, "{error}");
    }

    /// Proves that anything but exactly one way to log in is refused with what to do.
    #[test]
    fn one_way_to_log_in_is_wanted() {
        for bad in [
            json!({}),
            json!({"username": "git"}),
            json!({"password_file": "/a", "ssh_private_key_file": "/b"}),
            json!({"username": "me", "ssh_private_key_file": "/b"}),
        ] {
            let refused = source(&spec(bad.clone()).credentials).unwrap_err();
            assert!(refused.remedy.is_some_and(|remedy| remedy.contains("ssh_private_key_file")), "{bad}");
        }
        assert!(read("relative/token").unwrap_err().message.contains("not absolute"));
    }
}
