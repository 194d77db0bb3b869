//! `smoke.argocd_healthy`: every workload of Argo CD runs in full, and its API serves applications.

use super::check::{Check, Finding};
use crate::kubernetes::ClusterAccess;
use crate::kubernetes::api::Api;
use crate::kubernetes::objects::{number, text};
use crate::kubernetes::rollout::{Rollout, rollout};
use async_trait::async_trait;
use platflow_engine::failure::StepError;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

/// Where.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ArgocdHealthySpec {
    /// The cluster.
    pub cluster: ClusterAccess,
    /// Argo CD's namespace.
    pub namespace: String,
}

/// See the file.
pub(super) struct ArgocdHealthy;

const SELECTOR: &str = "app.kubernetes.io/part-of=argocd";
/// Without these there is no Argo CD.
const ESSENTIAL: &[&str] = &["argocd-server", "argocd-repo-server", "argocd-application-controller"];

#[async_trait]
impl Check for ArgocdHealthy {
    type Spec = ArgocdHealthySpec;
    const NAME: &'static str = "smoke.argocd_healthy";
    const SUMMARY: &'static str = "Every workload of Argo CD runs in full.";

    fn cluster(spec: &ArgocdHealthySpec) -> &ClusterAccess {
        &spec.cluster
    }

    async fn check(&self, api: &Api<'_>, spec: &ArgocdHealthySpec, _: &str) -> Result<Finding, StepError> {
        let mut workloads: Vec<Value> = Vec::new();
        for kind in ["Deployment", "StatefulSet"] {
            for mut workload in api.list("apps/v1", kind, Some(&spec.namespace), SELECTOR).await? {
                // The items of a list do not repeat their kind.
                if let Some(workload) = workload.as_object_mut() {
                    workload.insert("kind".to_owned(), kind.into());
                }
                workloads.push(workload);
            }
        }
        let name = |workload: &Value| text(workload, "/metadata/name").to_owned();
        if let Some(missing) = ESSENTIAL.iter().find(|wanted| !workloads.iter().any(|found| name(found) == **wanted)) {
            return Ok(Finding::Broken(format!("{missing} does not exist in namespace {}", spec.namespace)));
        }
        let mut evidence = Vec::new();
        for workload in &workloads {
            match rollout(workload) {
                Rollout::Complete => {
                    evidence.push(json!({"name": name(workload), "replicas": number(workload, "/spec/replicas")}));
                }
                Rollout::Progressing(reason) => return Ok(Finding::NotYet(reason)),
                Rollout::Failed(reason) => return Ok(Finding::Broken(reason)),
            }
        }
        let applications = api.list(ARGO, "Application", Some(&spec.namespace), "").await?;
        Ok(Finding::Proved(json!({"workloads": evidence, "applications": applications.len()})))
    }
}

const ARGO: &str = "argoproj.io/v1alpha1";
