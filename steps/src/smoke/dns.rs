//! `smoke.dns`: a pod in a namespace of its own resolves the API server's service name through the cluster's DNS.

use super::check::{Check, Finding};
use super::pods;
use crate::kubernetes::ClusterAccess;
use crate::kubernetes::api::{Api, ObjectKey};
use crate::kubernetes::objects;
use crate::kubernetes::rollout::{Rollout, rollout};
use async_trait::async_trait;
use platflow_engine::failure::StepError;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

/// Where.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DnsSpec {
    /// The cluster.
    pub cluster: ClusterAccess,
}

/// See the file.
pub(super) struct Dns;

const WANTED: &str = "kubernetes.default.svc.cluster.local";

#[async_trait]
impl Check for Dns {
    type Spec = DnsSpec;
    const NAME: &'static str = "smoke.dns";
    const SUMMARY: &'static str = "Pods resolve names through the cluster's DNS.";

    fn cluster(spec: &DnsSpec) -> &ClusterAccess {
        &spec.cluster
    }

    fn wants_namespace(_spec: &DnsSpec) -> bool {
        true
    }

    async fn check(&self, api: &Api<'_>, _spec: &DnsSpec, namespace: &str) -> Result<Finding, StepError> {
        let key = ObjectKey::namespaced("batch/v1", "Job", namespace, "dns");
        let stored = match api.get(&key).await? {
            Some(stored) => stored,
            None => {
                let pod = pods::restricted(&["nslookup", WANTED], "10m");
                let job = json!({"apiVersion": "batch/v1", "kind": "Job",
                    "metadata": {"name": key.name, "namespace": namespace},
                    "spec": {"backoffLimit": 3, "template": {"spec": pod}}});
                objects::put(api, &key, &job, None).await?
            }
        };
        Ok(match rollout(&stored) {
            Rollout::Complete => Finding::Proved(json!({"resolved": WANTED, "by": "a pod in the cluster",
                "completed_at": objects::text(&stored, "/status/completionTime")})),
            Rollout::Progressing(reason) => Finding::NotYet(reason),
            Rollout::Failed(reason) => Finding::Broken(format!("{WANTED} does not resolve in a pod: {reason}")),
        })
    }
}
