//! `smoke.quota_enforced`: a pod that asks for more than the quota is refused, by a dry run that stores nothing.

use super::check::{Check, Finding};
use super::pods;
use crate::kubernetes::ClusterAccess;
use crate::kubernetes::api::{Api, ObjectKey};
use crate::kubernetes::failure::Meaning;
use crate::kubernetes::objects::{self, text};
use async_trait::async_trait;
use platflow_engine::failure::StepError;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

/// Whose quota.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct QuotaEnforcedSpec {
    /// The cluster.
    pub cluster: ClusterAccess,
    /// The namespace whose quota is tried; without it one is made in a throw-away namespace.
    #[serde(default)]
    pub namespace: Option<String>,
}

/// See the file.
pub(super) struct QuotaEnforced;

/// More than any quota of CPU allows.
const EXCESS: &str = "100000";

#[async_trait]
impl Check for QuotaEnforced {
    type Spec = QuotaEnforcedSpec;
    const NAME: &'static str = "smoke.quota_enforced";
    const SUMMARY: &'static str = "A pod beyond the quota is refused.";

    fn cluster(spec: &QuotaEnforcedSpec) -> &ClusterAccess {
        &spec.cluster
    }

    fn wants_namespace(spec: &QuotaEnforcedSpec) -> bool {
        spec.namespace.is_none()
    }

    async fn check(&self, api: &Api<'_>, spec: &QuotaEnforcedSpec, throw_away: &str) -> Result<Finding, StepError> {
        let namespace = spec.namespace.as_deref().unwrap_or(throw_away);
        let mut quotas = api.list("v1", "ResourceQuota", Some(namespace), "").await?;
        if quotas.is_empty() && spec.namespace.is_none() {
            let key = ObjectKey::namespaced("v1", "ResourceQuota", namespace, "smoke");
            let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota",
                "metadata": {"name": key.name, "namespace": namespace}, "spec": {"hard": {"requests.cpu": "1"}}});
            quotas.push(objects::put(api, &key, &quota, None).await?);
        }
        let limits_cpu = |quota: &&Value| {
            ["requests.cpu", "limits.cpu", "cpu"]
                .iter()
                .any(|name| quota.pointer("/spec/hard").is_some_and(|hard| hard.get(*name).is_some()))
        };
        let Some(quota) = quotas.iter().find(limits_cpu) else {
            return Ok(Finding::Broken(format!("namespace {namespace} has no quota of CPU")));
        };
        // Admission counts only against a quota whose use the controller has computed.
        if quota.pointer("/status/hard").is_none() {
            return Ok(Finding::NotYet(format!("quota {} has not been counted yet", text(quota, "/metadata/name"))));
        }
        let key = ObjectKey::namespaced("v1", "Pod", namespace, "platflow-smoke-quota");
        let pod = pods::pod(namespace, &key.name, &pods::restricted(&["true"], EXCESS));
        Ok(match api.create(&key, &pod, None).await {
            Ok(_) => Finding::Broken(format!("namespace {namespace} accepts a pod that asks for {EXCESS} CPUs")),
            Err(failure) if failure.meaning == Meaning::Quota => {
                Finding::Proved(json!({"namespace": namespace, "quota": text(quota, "/metadata/name"),
                    "refusal": failure.error.message}))
            }
            Err(failure) if failure.meaning == Meaning::ServiceAccountMissing => Finding::NotYet(failure.error.message),
            Err(failure) => return Err(failure.into()),
        })
    }
}
