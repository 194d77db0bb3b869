//! `kubernetes.resource_quota`, `kubernetes.limit_range` and `kubernetes.network_policy`: the guards of a namespace.

use super::api::ObjectKey;
use super::clients::ClusterAccess;
use super::single::Single;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// A quota.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ResourceQuotaSpec {
    /// The cluster.
    pub cluster: ClusterAccess,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Limits by resource, for example `requests.cpu: "20"`.
    pub hard: BTreeMap<String, Quantity>,
}

/// An amount: a number, or text such as `500m` or `64Gi`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Quantity {
    /// A whole number.
    Number(i64),
    /// With a unit.
    Text(String),
}

impl Quantity {
    fn json(&self) -> Value {
        match self {
            Self::Number(number) => Value::String(number.to_string()),
            Self::Text(text) => Value::String(text.clone()),
        }
    }
}

/// See the file.
pub(super) struct ResourceQuota;

impl Single for ResourceQuota {
    type Spec = ResourceQuotaSpec;
    const NAME: &'static str = "kubernetes.resource_quota";
    const SUMMARY: &'static str = "Upper limits on what a namespace may hold and request.";
    const FIELDS: &'static [(&'static str, &'static str)] = &[("/spec/hard", "/hard")];

    fn cluster(spec: &ResourceQuotaSpec) -> &ClusterAccess {
        &spec.cluster
    }

    fn key(spec: &ResourceQuotaSpec) -> ObjectKey {
        ObjectKey::namespaced("v1", "ResourceQuota", &spec.namespace, &spec.name)
    }

    fn object(spec: &ResourceQuotaSpec) -> Value {
        let hard: Map<String, Value> = spec.hard.iter().map(|(name, amount)| (name.clone(), amount.json())).collect();
        json!({"apiVersion": "v1", "kind": "ResourceQuota",
            "metadata": {"name": spec.name, "namespace": spec.namespace}, "spec": {"hard": hard}})
    }
}

/// A limit range.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitRangeSpec {
    /// The cluster.
    pub cluster: ClusterAccess,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Items as in the Kubernetes API: `type`, `default`, `defaultRequest`, `max`, `min`.
    pub limits: Vec<Map<String, Value>>,
}

/// See the file.
pub(super) struct LimitRange;

impl Single for LimitRange {
    type Spec = LimitRangeSpec;
    const NAME: &'static str = "kubernetes.limit_range";
    const SUMMARY: &'static str = "Default requests and limits of the containers of a namespace.";
    const FIELDS: &'static [(&'static str, &'static str)] = &[("/spec/limits", "/limits")];

    fn cluster(spec: &LimitRangeSpec) -> &ClusterAccess {
        &spec.cluster
    }

    fn key(spec: &LimitRangeSpec) -> ObjectKey {
        ObjectKey::namespaced("v1", "LimitRange", &spec.namespace, &spec.name)
    }

    fn object(spec: &LimitRangeSpec) -> Value {
        json!({"apiVersion": "v1", "kind": "LimitRange",
            "metadata": {"name": spec.name, "namespace": spec.namespace}, "spec": {"limits": spec.limits}})
    }
}

/// A network policy.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NetworkPolicySpec {
    /// The cluster.
    pub cluster: ClusterAccess,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The policy's `spec` as in the Kubernetes API.
    pub spec: Map<String, Value>,
}

/// See the file.
pub(super) struct NetworkPolicy;

impl Single for NetworkPolicy {
    type Spec = NetworkPolicySpec;
    const NAME: &'static str = "kubernetes.network_policy";
    const SUMMARY: &'static str = "Which connections the pods of a namespace may make and take.";
    const FIELDS: &'static [(&'static str, &'static str)] = &[];

    fn cluster(spec: &NetworkPolicySpec) -> &ClusterAccess {
        &spec.cluster
    }

    fn key(spec: &NetworkPolicySpec) -> ObjectKey {
        ObjectKey::namespaced("networking.k8s.io/v1", "NetworkPolicy", &spec.namespace, &spec.name)
    }

    fn object(spec: &NetworkPolicySpec) -> Value {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": spec.name, "namespace": spec.namespace}, "spec": spec.spec})
    }
}
