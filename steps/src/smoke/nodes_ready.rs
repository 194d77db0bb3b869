//! `smoke.nodes_ready`: every pool has its nodes, Ready, of the right architecture, labelled and tainted.

use super::check::{Check, Finding};
use crate::kubernetes::ClusterAccess;
use crate::kubernetes::api::Api;
use crate::kubernetes::objects::{condition, items, text};
use async_trait::async_trait;
use platflow_engine::failure::StepError;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Which pools.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NodesReadySpec {
    /// The cluster.
    pub cluster: ClusterAccess,
    /// The pools and what their nodes must be.
    pub pools: Vec<Pool>,
}

/// A pool.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Pool {
    /// The node group's name.
    pub name: String,
    /// How many nodes at least.
    pub desired: u32,
    /// `amd64` or `arm64`.
    #[serde(default)]
    pub arch: Option<String>,
    /// Labels that every node carries.
    #[serde(default)]
    pub labels: Option<BTreeMap<String, String>>,
    /// Taints that every node carries.
    #[serde(default)]
    pub taints: Option<Vec<Taint>>,
}

/// A taint.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Taint {
    /// Its key.
    pub key: String,
    /// Its value.
    #[serde(default)]
    pub value: Option<String>,
    /// `NoSchedule`, `NoExecute` or `PreferNoSchedule`; the node group API's spelling (`NO_SCHEDULE`) is understood.
    pub effect: String,
}

/// See the file.
pub(super) struct NodesReady;

fn camel(effect: &str) -> String {
    match effect {
        "NO_SCHEDULE" => "NoSchedule".to_owned(),
        "NO_EXECUTE" => "NoExecute".to_owned(),
        "PREFER_NO_SCHEDULE" => "PreferNoSchedule".to_owned(),
        other => other.to_owned(),
    }
}

/// What a node of the pool lacks.
fn wrong(node: &Value, pool: &Pool) -> Option<String> {
    let name = text(node, "/metadata/name");
    let label = |key: &str| node.pointer("/metadata/labels").and_then(|labels| labels.get(key)).and_then(Value::as_str);
    if let Some(arch) = &pool.arch
        && label("kubernetes.io/arch") != Some(arch)
    {
        return Some(format!("node {name} is {}, not {arch}", label("kubernetes.io/arch").unwrap_or("unknown")));
    }
    if let Some((key, value)) = pool.labels.iter().flatten().find(|(key, value)| label(key) != Some(value.as_str())) {
        return Some(format!("node {name} lacks the label {key}={value}"));
    }
    let has = |taint: &Taint| {
        items(node, "/spec/taints").iter().any(|found| {
            text(found, "/key") == taint.key
                && text(found, "/value") == taint.value.as_deref().unwrap_or_default()
                && text(found, "/effect") == camel(&taint.effect)
        })
    };
    let missing = pool.taints.iter().flatten().find(|taint| !has(taint))?;
    Some(format!("node {name} lacks the taint {}:{}", missing.key, camel(&missing.effect)))
}

fn judge(nodes: &[Value], pools: &[Pool]) -> Finding {
    let mut evidence = Vec::new();
    for pool in pools {
        let group = |node: &&Value| {
            node.pointer("/metadata/labels/eks.amazonaws.com~1nodegroup").and_then(Value::as_str) == Some(&pool.name)
        };
        let ready: Vec<&Value> = nodes
            .iter()
            .filter(group)
            .filter(|node| condition(node, "Ready").is_some_and(|(status, ..)| status == "True"))
            .collect();
        if ready.len() < pool.desired as usize {
            return Finding::NotYet(format!("pool {}: {} of {} nodes are ready", pool.name, ready.len(), pool.desired));
        }
        if let Some(what) = ready.iter().find_map(|node| wrong(node, pool)) {
            return Finding::Broken(format!("pool {}: {what}", pool.name));
        }
        let names: Vec<&str> = ready.iter().map(|node| text(node, "/metadata/name")).collect();
        evidence.push(json!({"pool": pool.name, "ready": names}));
    }
    Finding::Proved(json!({ "pools": evidence }))
}

#[async_trait]
impl Check for NodesReady {
    type Spec = NodesReadySpec;
    const NAME: &'static str = "smoke.nodes_ready";
    const SUMMARY: &'static str = "Every node pool has its nodes, ready and as declared.";

    fn cluster(spec: &NodesReadySpec) -> &ClusterAccess {
        &spec.cluster
    }

    async fn check(&self, api: &Api<'_>, spec: &NodesReadySpec, _namespace: &str) -> Result<Finding, StepError> {
        Ok(judge(&api.list("v1", "Node", None, "").await?, &spec.pools))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves that a missing or unready node waits, that a wrong architecture, label or taint breaks the check, and
    /// that nodes of other pools never count.
    #[test]
    fn pools_are_judged() {
        let node = |group: &str, ready: &str| {
            json!({"metadata": {"name": "n", "labels": {"eks.amazonaws.com/nodegroup": group,
                "kubernetes.io/arch": "arm64", "role": "data"}},
                "spec": {"taints": [{"key": "dedicated", "value": "data", "effect": "NoSchedule"}]},
                "status": {"conditions": [{"type": "Ready", "status": ready}]}})
        };
        let pools = |arch: &str, role: &str, effect: &str| -> Vec<Pool> {
            let taints = json!([{"key": "dedicated", "value": "data", "effect": effect}]);
            serde_json::from_value(
                json!([{"name": "data", "desired": 1, "arch": arch, "labels": {"role": role}, "taints": taints}]),
            )
            .unwrap()
        };
        let good = pools("arm64", "data", "NO_SCHEDULE");
        assert!(matches!(judge(&[node("data", "True")], &good), Finding::Proved(_)));
        assert!(matches!(judge(&[node("data", "False"), node("apps", "True")], &good), Finding::NotYet(_)));
        for bad in [
            pools("amd64", "data", "NO_SCHEDULE"),
            pools("arm64", "x", "NO_SCHEDULE"),
            pools("arm64", "data", "NO_EXECUTE"),
        ] {
            assert!(matches!(judge(&[node("data", "True")], &bad), Finding::Broken(_)));
        }
    }
}
