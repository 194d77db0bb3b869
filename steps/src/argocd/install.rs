//! `argocd.install`: Argo CD in high availability, done when its workloads run and its first start has set a password.

use crate::contract::{Made, Record, Seen, StepKind};
use crate::kubernetes::api::{Api, ObjectKey};
use crate::kubernetes::installation::Installation;
use crate::kubernetes::objects::text;
use crate::kubernetes::{ClusterAccess, ObjectOutput, Source};
use async_trait::async_trait;
use platflow_engine::context::Context;
use platflow_engine::failure::StepError;
use platflow_engine::step::UndoProgress;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// An Argo CD installation.
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
    /// For example `v3.5.1`.
    pub version: String,
    /// The service of API and UI.
    pub server_service: String,
    /// Every object of the manifest.
    pub objects: Vec<ObjectOutput>,
}

/// See the file.
pub(super) struct InstallKind(pub(super) Installation);

const POLL: Duration = Duration::from_secs(2);
const BUDGET: Duration = Duration::from_secs(10 * 60);
const FIRST_START: &str = "argocd-server has not finished its first start: argocd-secret holds no admin password yet";

/// The server writes the admin password's hash at its first start.
async fn started(api: &Api<'_>, namespace: &str) -> Result<bool, StepError> {
    let secret = api.get(&ObjectKey::namespaced("v1", "Secret", namespace, "argocd-secret")).await?;
    Ok(secret.is_some_and(|secret| !text(&secret, "/data/admin.password").is_empty()))
}

fn outputs(spec: &InstallSpec, version: &str, objects: Vec<ObjectOutput>) -> InstallOutputs {
    InstallOutputs {
        namespace: spec.namespace.clone(),
        version: spec.version.clone().unwrap_or_else(|| version.to_owned()),
        server_service: "argocd-server".to_owned(),
        objects,
    }
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
    const NAME: &'static str = "argocd.install";
    const SUMMARY: &'static str = "Argo CD in high availability, from a pinned manifest.";
    const EXPECTED: Duration = Duration::from_secs(3 * 60);

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
            && !started(&ready.api, &spec.namespace).await?
        {
            return Ok(Seen::Changing { reason: FIRST_START.to_owned(), poll_in: POLL });
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
        if matches!(made, Made::Done(_)) && !started(&ready.api, &spec.namespace).await? {
            return Ok(Made::Waiting { reason: FIRST_START.to_owned(), poll_in: POLL, budget: BUDGET });
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
        let progress = ready.bundle.remove(&ready.api, &ready.recorded).await?;
        // What our installation made for itself; another's is not touched.
        if matches!(progress, UndoProgress::Gone { .. }) && record.outputs.is_some() {
            for name in ["argocd-initial-admin-secret", "argocd-redis"] {
                let key = ObjectKey::namespaced("v1", "Secret", &spec.namespace, name);
                if let Some(secret) = ready.api.get(&key).await? {
                    let permit = context.begin(&format!("delete/{key}"))?;
                    ready.api.delete(&key, text(&secret, "/metadata/uid"), "Background", &permit).await?;
                }
            }
        }
        Ok(progress)
    }
}
