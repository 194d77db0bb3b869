//! `smoke.pod_security_enforced`: a privileged pod is refused and a hardened one accepted, both by dry runs.

use super::check::{Check, Finding};
use super::pods;
use crate::kubernetes::ClusterAccess;
use crate::kubernetes::api::{Api, ObjectKey};
use crate::kubernetes::failure::Meaning;
use async_trait::async_trait;
use platflow_engine::failure::StepError;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

/// Where.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PodSecurityEnforcedSpec {
    /// The cluster.
    pub cluster: ClusterAccess,
    /// A namespace that enforces `baseline` or `restricted`.
    pub namespace: String,
}

/// See the file.
pub(super) struct PodSecurityEnforced;

#[async_trait]
impl Check for PodSecurityEnforced {
    type Spec = PodSecurityEnforcedSpec;
    const NAME: &'static str = "smoke.pod_security_enforced";
    const SUMMARY: &'static str = "A privileged pod is refused, a hardened one is not.";

    fn cluster(spec: &PodSecurityEnforcedSpec) -> &ClusterAccess {
        &spec.cluster
    }

    async fn check(&self, api: &Api<'_>, spec: &PodSecurityEnforcedSpec, _: &str) -> Result<Finding, StepError> {
        let namespace = spec.namespace.as_str();
        let key = ObjectKey::namespaced("v1", "Pod", namespace, "platflow-smoke-pod-security");
        let refusal = match api.create(&key, &pods::privileged(namespace, &key.name), None).await {
            Ok(_) => return Ok(Finding::Broken(format!("namespace {namespace} accepts a privileged pod"))),
            Err(failure) if failure.meaning == Meaning::PodSecurity => failure.error.message,
            Err(failure) if failure.meaning == Meaning::ServiceAccountMissing => {
                return Ok(Finding::NotYet(failure.error.message));
            }
            Err(failure) => return Err(failure.into()),
        };
        let hardened = pods::pod(namespace, &key.name, &pods::restricted(&["true"], "10m"));
        match api.create(&key, &hardened, None).await {
            Ok(_) => {}
            // A full quota refuses after Pod Security has accepted.
            Err(failure) if failure.meaning == Meaning::Quota => {}
            Err(failure) if failure.meaning == Meaning::PodSecurity => {
                return Ok(Finding::Broken(format!("namespace {namespace} refuses even a hardened pod")));
            }
            Err(failure) => return Err(failure.into()),
        }
        Ok(Finding::Proved(json!({"namespace": namespace, "refusal": refusal, "hardened_pod": "accepted"})))
    }
}
