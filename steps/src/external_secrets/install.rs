//! `external_secrets.install`: the operator, done when its webhook really answers.
//!
//! A ready Deployment does not mean a ready webhook: the proof is a dry-run create that passes through it.

use super::API;
use crate::contract::{Made, Record, Seen, StepKind};
use crate::kubernetes::api::{Api, ObjectKey};
use crate::kubernetes::failure::Meaning;
use crate::kubernetes::installation::Installation;
use crate::kubernetes::objects::{items, text};
use crate::kubernetes::{ClusterAccess, ObjectOutput, Source};
use async_trait::async_trait;
use platflow_engine::context::Context;
use platflow_engine::failure::StepError;
use platflow_engine::step::UndoProgress;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::Duration;

/// An installation of the External Secrets Operator.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct InstallSpec {
    /// The cluster.
    pub cluster: ClusterAccess,
    /// Its namespace; must exist.
    pub namespace: String,
    /// The manifest.
    pub source: Source,
    /// The version to report when the manifest's image tag does not tell.
    #[serde(default)]
    pub version: Option<String>,
}

/// What was installed.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(super) struct InstallOutputs {
    /// Its namespace.
    pub namespace: String,
    /// For example `v2.9.0`.
    pub version: String,
    /// Every object of the manifest.
    #[serde(default)]
    pub objects: Vec<ObjectOutput>,
}

/// See the file.
pub(super) struct InstallKind(pub(super) Installation);

const POLL: Duration = Duration::from_secs(2);
const BUDGET: Duration = Duration::from_secs(5 * 60);

/// What is missing until the webhook answers.
async fn webhook_missing(api: &Api<'_>, namespace: &str) -> Result<Option<String>, StepError> {
    for name in ["secretstore-validate", "externalsecret-validate"] {
        let key = ObjectKey::global("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", name);
        let Some(configuration) = api.get(&key).await? else { return Ok(Some(format!("{key} is missing"))) };
        if items(&configuration, "/webhooks").iter().any(|webhook| text(webhook, "/clientConfig/caBundle").is_empty()) {
            return Ok(Some(format!("{key} has no CA yet")));
        }
    }
    let key = ObjectKey::namespaced(API, "SecretStore", namespace, "platflow-webhook-probe");
    let store = json!({"apiVersion": API, "kind": "SecretStore",
        "metadata": {"name": key.name, "namespace": namespace},
        "spec": {"provider": {"vault": {"server": "https://vault.invalid:8200", "version": "v2", "path": "probe",
            "auth": {"kubernetes": {"mountPath": "kubernetes", "role": "probe",
                "serviceAccountRef": {"name": "default"}}}}}}});
    match api.create(&key, &store, None).await {
        Ok(_) => Ok(None),
        Err(failure) if matches!(failure.meaning, Meaning::Webhook | Meaning::NotServed | Meaning::Unavailable) => {
            Ok(Some(failure.error.message))
        }
        Err(failure) => Err(failure.into()),
    }
}

fn outputs(spec: &InstallSpec, version: &str, objects: Vec<ObjectOutput>) -> InstallOutputs {
    let version = spec.version.clone().unwrap_or_else(|| version.to_owned());
    InstallOutputs { namespace: spec.namespace.clone(), version, objects }
}

fn objects(record: &Record<InstallOutputs>) -> Option<&[ObjectOutput]> {
    record.outputs.as_ref().map(|outputs| outputs.objects.as_slice())
}

#[async_trait]
impl StepKind for InstallKind {
    type Spec = InstallSpec;
    type Outputs = InstallOutputs;

    /// Servers make some of these objects again while they are being taken away.
    const SPARES_STRANGERS: bool = true;
    const NAME: &'static str = "external_secrets.install";
    const SUMMARY: &'static str = "The External Secrets Operator, its webhook proven by a dry-run create.";
    const EXPECTED: Duration = Duration::from_secs(60);

    async fn observe(
        &self,
        spec: &InstallSpec,
        record: &Record<InstallOutputs>,
        context: &Context,
    ) -> Result<Seen<InstallOutputs>, StepError> {
        let ready = self.0.ready(&spec.cluster, &spec.namespace, &spec.source, objects(record), context).await?;
        let survey = ready.bundle.survey(&ready.api, &ready.recorded).await?;
        let seen = ready.bundle.seen(&survey, true).map(|found| outputs(spec, &ready.version, found));
        if let Seen::Present { differences, .. } = &seen
            && differences.is_empty()
            && let Some(reason) = webhook_missing(&ready.api, &spec.namespace).await?
        {
            return Ok(Seen::Changing { reason, poll_in: POLL });
        }
        Ok(seen)
    }

    async fn apply(
        &self,
        spec: &InstallSpec,
        _seen: &Seen<InstallOutputs>,
        record: &Record<InstallOutputs>,
        context: &Context,
    ) -> Result<Made<InstallOutputs>, StepError> {
        let ready = self.0.ready(&spec.cluster, &spec.namespace, &spec.source, objects(record), context).await?;
        if !spec.source.embedded {
            ready.bundle.announce(&record.notes, context).await?;
        }
        let made = ready.bundle.apply(&ready.api, &ready.recorded, true).await?;
        if matches!(made, Made::Done(_))
            && let Some(reason) = webhook_missing(&ready.api, &spec.namespace).await?
        {
            return Ok(Made::Waiting { reason, poll_in: POLL, budget: BUDGET });
        }
        Ok(made.map(|found| outputs(spec, &ready.version, found)))
    }

    async fn undo(
        &self,
        spec: &InstallSpec,
        record: &Record<InstallOutputs>,
        context: &Context,
    ) -> Result<UndoProgress, StepError> {
        let on_record = (objects(record), &record.notes);
        let ready = self.0.remains(&spec.cluster, &spec.namespace, &spec.source, on_record, context).await?;
        ready.bundle.remove(&ready.api, &ready.recorded).await
    }
}
