//! The Kubernetes objects of an installation: applied under one field manager, read, and deleted by uid.

use super::reach::kube_failure;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client, ResourceExt};
use platflow_engine::context::Context;
use platflow_engine::failure::{Residue, StepError};
use platflow_engine::step::Ownership;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Who owns the fields that platflow sets.
pub(super) const FIELD_MANAGER: &str = "platflow";
const UID_LABEL: &str = "platflow.io/environment-uid";
const STEP_LABEL: &str = "platflow.io/step";
const LABEL_LENGTH: usize = 63;

/// The labels on everything that a step makes.
pub(super) fn labels(name: &str, context: &Context) -> BTreeMap<String, String> {
    // A label holds 63 characters; the whole step name goes into an annotation where it matters.
    let step: String = context.step.as_str().chars().take(LABEL_LENGTH).collect();
    BTreeMap::from([
        ("app.kubernetes.io/name".to_owned(), "vault".to_owned()),
        ("app.kubernetes.io/instance".to_owned(), name.to_owned()),
        ("app.kubernetes.io/managed-by".to_owned(), "platflow".to_owned()),
        (UID_LABEL.to_owned(), context.environment_uid.as_str().to_owned()),
        (STEP_LABEL.to_owned(), step.trim_end_matches(['.', '-', '_']).to_owned()),
    ])
}

/// Selects what this environment made for an installation.
pub(super) fn selector(name: &str, context: &Context) -> String {
    format!("app.kubernetes.io/instance={name},{UID_LABEL}={}", context.environment_uid)
}

/// Whose an object is, by its labels.
pub(super) fn ownership<K: kube::Resource>(object: &K, context: &Context) -> Ownership {
    let labels = object.labels();
    match labels.get(UID_LABEL) {
        Some(uid) if uid == context.environment_uid.as_str() => Ownership::Ours,
        Some(uid) => Ownership::Foreign(format!(
            "environment uid {uid}, step {}",
            labels.get(STEP_LABEL).map_or("unknown", String::as_str)
        )),
        None => {
            let managers: Vec<&str> =
                object.managed_fields().iter().filter_map(|entry| entry.manager.as_deref()).collect();
            Ownership::Foreign(format!("no platflow label; field managers: {}", managers.join(", ")))
        }
    }
}

/// One object to be, or known by its manifest.
#[derive(Debug, Clone)]
pub(super) struct Manifest {
    pub(super) kind: &'static str,
    pub(super) plural: &'static str,
    pub(super) api_version: &'static str,
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    pub(super) body: Value,
}

impl Manifest {
    pub(super) fn api(&self, client: &Client) -> Api<DynamicObject> {
        let (group, version) = self.api_version.split_once('/').unwrap_or(("", self.api_version));
        let kind = GroupVersionKind::gvk(group, version, self.kind);
        let resource = ApiResource::from_gvk_with_plural(&kind, self.plural);
        match &self.namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        }
    }

    pub(super) fn title(&self) -> String {
        format!("{} {}", self.kind, self.name)
    }

    pub(super) async fn read(&self, client: &Client) -> Result<Option<DynamicObject>, StepError> {
        self.api(client).get_opt(&self.name).await.map_err(|error| kube_failure("reading", &self.title(), &error))
    }

    /// The whole object, as it is sent.
    pub(super) fn object(&self, labels: &BTreeMap<String, String>) -> Value {
        let mut object = self.body.clone();
        if let Some(object) = object.as_object_mut() {
            object.insert("apiVersion".into(), json!(self.api_version));
            object.insert("kind".into(), json!(self.kind));
            let mut metadata = json!({ "name": self.name, "labels": labels });
            if let (Some(metadata), Some(namespace)) = (metadata.as_object_mut(), &self.namespace) {
                metadata.insert("namespace".into(), json!(namespace));
            }
            object.insert("metadata".into(), metadata);
        }
        object
    }

    /// Server-side apply; refuses what is somebody else's.
    pub(super) async fn apply(&self, client: &Client, name: &str, context: &Context) -> Result<(), StepError> {
        if let Some(found) = self.read(client).await? {
            refuse_foreign(&self.title(), &found, context)?;
        }
        let call = context.begin(&format!("apply-{}-{}", self.plural, self.name))?;
        let object = self.object(&labels(name, context));
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let api = self.api(client);
        let patch = Patch::Apply(&object);
        bounded(call.timeout, &self.title(), api.patch(&self.name, &parameters, &patch)).await.map(drop)
    }

    /// Deletes exactly the object that was seen, if it is ours. True when it is gone already.
    pub(super) async fn delete(&self, client: &Client, context: &Context) -> Result<bool, StepError> {
        let Some(found) = self.read(client).await? else { return Ok(true) };
        if found.metadata.deletion_timestamp.is_some() {
            return Ok(false);
        }
        refuse_foreign(&self.title(), &found, context)?;
        let call = context.begin(&format!("delete-{}-{}", self.plural, self.name))?;
        let parameters = exactly(found.metadata.uid.clone());
        let api = self.api(client);
        gone(bounded(call.timeout, &self.title(), api.delete(&self.name, &parameters)).await)?;
        Ok(self.read(client).await?.is_none())
    }
}

/// Refuses to touch what is not ours, naming the owner.
pub(super) fn refuse_foreign<K: kube::Resource>(title: &str, found: &K, context: &Context) -> Result<(), StepError> {
    match ownership(found, context) {
        Ownership::Ours => Ok(()),
        Ownership::Foreign(owner) => Err(StepError::needs_human(format!("{title} is not ours: {owner}"))
            .with_code("Foreign")
            .leaving(Residue::None)),
    }
}

/// Deletion of one uid and no other, with its dependents.
pub(super) fn exactly(uid: Option<String>) -> DeleteParams {
    let parameters =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..DeleteParams::default() };
    parameters.preconditions(Preconditions { uid, resource_version: None })
}

/// A mutating call within its permit.
pub(super) async fn bounded<T>(
    timeout: std::time::Duration,
    what: &str,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, StepError> {
    match tokio::time::timeout(timeout, call).await {
        Ok(answer) => answer.map_err(|error| kube_failure("the change", what, &error)),
        Err(_) => Err(StepError::transient(format!("the change of {what} took longer than {}s", timeout.as_secs()))),
    }
}

/// A deletion's answer, where "not found" is success.
pub(super) fn gone<T>(answer: Result<T, StepError>) -> Result<(), StepError> {
    match answer {
        Err(error) if error.code.as_deref() != Some("NotFound") && error.code.as_deref() != Some("404") => Err(error),
        _ => Ok(()),
    }
}
