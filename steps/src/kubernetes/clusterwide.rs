//! `kubernetes.namespace` and `kubernetes.storage_class`.
//!
//! Deleting a namespace takes everything in it along; what blocks that is named by the namespace's own conditions.

use super::api::ObjectKey;
use super::clients::ClusterAccess;
use super::single::Single;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// A namespace.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NamespaceSpec {
    /// The cluster.
    pub cluster: ClusterAccess,
    /// Its name.
    pub name: String,
    /// Further labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Pod Security levels.
    #[serde(default)]
    pub pod_security: Option<PodSecurity>,
}

/// Pod Security levels: `privileged`, `baseline` or `restricted`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PodSecurity {
    /// What is refused.
    pub enforce: Level,
    /// What is audited.
    #[serde(default)]
    pub audit: Option<Level>,
    /// What is warned of.
    #[serde(default)]
    pub warn: Option<Level>,
}

/// A Pod Security level.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Level {
    /// Anything goes.
    Privileged,
    /// No known privilege escalation.
    Baseline,
    /// Hardened.
    Restricted,
}

impl Level {
    fn text(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }
}

/// See the file.
pub(super) struct Namespace;

impl Single for Namespace {
    type Spec = NamespaceSpec;
    const NAME: &'static str = "kubernetes.namespace";
    const SUMMARY: &'static str = "A namespace with its labels and Pod Security levels.";
    const REMOVAL: Duration = Duration::from_secs(15 * 60);
    const FIELDS: &'static [(&'static str, &'static str)] =
        &[("/metadata/labels/pod-security.kubernetes.io~1", "/pod_security/"), ("/metadata/labels", "/labels")];

    fn cluster(spec: &NamespaceSpec) -> &ClusterAccess {
        &spec.cluster
    }

    fn key(spec: &NamespaceSpec) -> ObjectKey {
        ObjectKey::global("v1", "Namespace", &spec.name)
    }

    fn object(spec: &NamespaceSpec) -> Value {
        let mut labels: Map<String, Value> =
            spec.labels.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
        if let Some(levels) = &spec.pod_security {
            let modes = [("enforce", Some(levels.enforce)), ("audit", levels.audit), ("warn", levels.warn)];
            for (mode, level) in modes {
                if let Some(level) = level {
                    labels.insert(format!("pod-security.kubernetes.io/{mode}"), level.text().into());
                }
            }
        }
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": spec.name, "labels": labels}})
    }
}

/// A storage class.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StorageClassSpec {
    /// The cluster.
    pub cluster: ClusterAccess,
    /// Its name.
    pub name: String,
    /// For example `ebs.csi.aws.com`. Cannot be changed in place.
    pub provisioner: String,
    /// The provisioner's parameters. Cannot be changed in place.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// Whether claims that name no class get this one.
    #[serde(default)]
    pub default: bool,
    /// `WaitForFirstConsumer` (as when left out) or `Immediate`.
    #[serde(default)]
    pub volume_binding_mode: Option<String>,
    /// `Delete` (as when left out) or `Retain`.
    #[serde(default)]
    pub reclaim_policy: Option<String>,
    /// Whether volumes may grow.
    #[serde(default = "yes")]
    pub allow_expansion: bool,
}

fn yes() -> bool {
    true
}

/// See the file.
pub(super) struct StorageClass;

impl Single for StorageClass {
    type Spec = StorageClassSpec;
    const NAME: &'static str = "kubernetes.storage_class";
    const SUMMARY: &'static str = "A storage class, by choice the default one.";
    const FIELDS: &'static [(&'static str, &'static str)] = &[
        ("/metadata/annotations/storageclass.kubernetes.io~1is-default-class", "/default"),
        ("/volumeBindingMode", "/volume_binding_mode"),
        ("/reclaimPolicy", "/reclaim_policy"),
        ("/allowVolumeExpansion", "/allow_expansion"),
    ];

    fn cluster(spec: &StorageClassSpec) -> &ClusterAccess {
        &spec.cluster
    }

    fn key(spec: &StorageClassSpec) -> ObjectKey {
        ObjectKey::global("storage.k8s.io/v1", "StorageClass", &spec.name)
    }

    fn object(spec: &StorageClassSpec) -> Value {
        let default = if spec.default { "true" } else { "false" };
        let mut class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
            "metadata": {"name": spec.name,
                "annotations": {"storageclass.kubernetes.io/is-default-class": default}},
            "provisioner": spec.provisioner,
            "volumeBindingMode": spec.volume_binding_mode.as_deref().unwrap_or("WaitForFirstConsumer"),
            "reclaimPolicy": spec.reclaim_policy.as_deref().unwrap_or("Delete"),
            "allowVolumeExpansion": spec.allow_expansion});
        if let Some(class) = class.as_object_mut().filter(|_| !spec.parameters.is_empty()) {
            class.insert("parameters".to_owned(), json!(spec.parameters));
        }
        class
    }
}
