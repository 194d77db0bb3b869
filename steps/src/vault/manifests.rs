//! The objects of an installation, in the order in which they are applied.

use super::install::InstallSpec;
use super::objects::{Manifest, labels};
use platflow_engine::context::Context;
use serde_json::{Value, json};

const NON_ROOT_USER: u32 = 100;
const NON_ROOT_GROUP: u32 = 1000;

pub(super) fn pods(spec: &InstallSpec) -> Vec<String> {
    (0..spec.replicas).map(|ordinal| format!("{}-{ordinal}", spec.name)).collect()
}

pub(super) fn tls_secret_name(spec: &InstallSpec) -> String {
    format!("{}-tls", spec.name)
}

fn openbao(spec: &InstallSpec) -> bool {
    spec.image.contains("openbao")
}

/// The servers' configuration. TLS on the listener; Raft's own port is always mutually authenticated by Vault itself.
pub(super) fn configuration(spec: &InstallSpec) -> String {
    let mut text = String::from(
        r#"ui = false
disable_mlock = true

storage "raft" {
  path = "/vault/data"
}

listener "tcp" {
  address         = "[::]:8200"
  cluster_address = "[::]:8201"
  tls_cert_file   = "/vault/tls/tls.crt"
  tls_key_file    = "/vault/tls/tls.key"
  tls_min_version = "tls12"
}
"#,
    );
    if openbao(spec) {
        // OpenBao refuses audit devices by API; Vault refuses them here. They must be the same on every server.
        text.push_str(
            r#"
audit "file" "stdout" {
  options {
    file_path = "stdout"
  }
}
"#,
        );
    }
    text
}

fn manifest(
    spec: &InstallSpec,
    (api_version, kind, plural): (&'static str, &'static str, &'static str),
    name: String,
    body: Value,
) -> Manifest {
    Manifest { kind, plural, api_version, namespace: Some(spec.namespace.clone()), name, body }
}

/// Everything but the TLS secret, which is made once and never applied over.
pub(super) fn all(spec: &InstallSpec, context: &Context) -> Vec<Manifest> {
    let name = &spec.name;
    let selector = json!({ "app.kubernetes.io/name": "vault", "app.kubernetes.io/instance": name });
    let ports = json!([
        { "name": "https", "port": 8200, "targetPort": 8200, "protocol": "TCP" },
        { "name": "https-internal", "port": 8201, "targetPort": 8201, "protocol": "TCP" }
    ]);
    vec![
        manifest(spec, ("v1", "ServiceAccount", "serviceaccounts"), name.clone(), json!({})),
        Manifest {
            kind: "ClusterRoleBinding",
            plural: "clusterrolebindings",
            api_version: "rbac.authorization.k8s.io/v1",
            namespace: None,
            name: format!("{}-{name}-auth-delegator", spec.namespace),
            body: json!({
                "roleRef": {
                    "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:auth-delegator"
                },
                "subjects": [{ "kind": "ServiceAccount", "name": name, "namespace": spec.namespace }]
            }),
        },
        manifest(
            spec,
            ("v1", "ConfigMap", "configmaps"),
            format!("{name}-config"),
            json!({ "data": { "vault.hcl": configuration(spec) } }),
        ),
        manifest(
            spec,
            ("v1", "Service", "services"),
            format!("{name}-internal"),
            json!({ "spec": {
                "clusterIP": "None", "publishNotReadyAddresses": true, "selector": selector, "ports": ports
            } }),
        ),
        // Ready means unsealed; a standby forwards to the active server.
        manifest(
            spec,
            ("v1", "Service", "services"),
            name.clone(),
            json!({ "spec": { "selector": selector, "ports": ports } }),
        ),
        manifest(
            spec,
            ("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
            name.clone(),
            json!({ "spec": { "maxUnavailable": 1, "selector": { "matchLabels": selector } } }),
        ),
        stateful_set(spec, context, &selector),
    ]
}

/// The set alone: what `observe` compares and `undo` deletes first.
pub(super) fn stateful_set(spec: &InstallSpec, context: &Context, selector: &Value) -> Manifest {
    let name = &spec.name;
    let body = json!({ "spec": {
        "serviceName": format!("{name}-internal"),
        "replicas": spec.replicas,
        // All at once: a server that waits for the one before it to be ready would wait for it to be unsealed.
        "podManagementPolicy": "Parallel",
        "updateStrategy": { "type": "OnDelete" },
        "selector": { "matchLabels": selector },
        "template": {
            "metadata": { "labels": labels(name, context) },
            "spec": pod_spec(spec, selector)
        },
        "volumeClaimTemplates": [{
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": { "name": "data", "labels": labels(name, context) },
            "spec": claim_spec(spec)
        }]
    } });
    manifest(spec, ("apps/v1", "StatefulSet", "statefulsets"), name.clone(), body)
}

fn claim_spec(spec: &InstallSpec) -> Value {
    let mut claim = json!({
        "accessModes": ["ReadWriteOnce"],
        "resources": { "requests": { "storage": format!("{}Gi", spec.storage_gib) } }
    });
    if let (Some(class), Some(claim)) = (&spec.storage_class, claim.as_object_mut()) {
        claim.insert("storageClassName".into(), json!(class));
    }
    claim
}

fn pod_spec(spec: &InstallSpec, selector: &Value) -> Value {
    let name = &spec.name;
    let own = format!("https://$(POD_NAME).{name}-internal.{}.svc", spec.namespace);
    let binary = if openbao(spec) { "bao" } else { "vault" };
    json!({
        "serviceAccountName": name,
        "terminationGracePeriodSeconds": 10,
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": NON_ROOT_USER, "runAsGroup": NON_ROOT_GROUP,
            "fsGroup": NON_ROOT_GROUP, "seccompProfile": { "type": "RuntimeDefault" }
        },
        "affinity": { "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [
            { "labelSelector": { "matchLabels": selector }, "topologyKey": "kubernetes.io/hostname" }
        ] } },
        "containers": [{
            "name": "vault",
            "image": spec.image,
            "args": [binary, "server", "-config=/vault/config/vault.hcl"],
            "env": [
                { "name": "POD_NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
                { "name": "VAULT_RAFT_NODE_ID", "value": "$(POD_NAME)" },
                { "name": "VAULT_API_ADDR", "value": format!("{own}:8200") },
                { "name": "VAULT_CLUSTER_ADDR", "value": format!("{own}:8201") },
                { "name": "VAULT_CACERT", "value": "/vault/tls/ca.crt" },
                { "name": "SKIP_CHOWN", "value": "true" },
                { "name": "SKIP_SETCAP", "value": "true" }
            ],
            "ports": [
                { "name": "https", "containerPort": 8200, "protocol": "TCP" },
                { "name": "https-internal", "containerPort": 8201, "protocol": "TCP" }
            ],
            "readinessProbe": {
                "httpGet": { "path": "/v1/sys/health?standbyok=true", "port": 8200, "scheme": "HTTPS" },
                "periodSeconds": 5, "failureThreshold": 2
            },
            "resources": {
                "requests": { "cpu": "100m", "memory": "256Mi" },
                "limits": { "cpu": "1", "memory": "512Mi" }
            },
            "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] }
            },
            "volumeMounts": [
                { "name": "data", "mountPath": "/vault/data" },
                { "name": "config", "mountPath": "/vault/config", "readOnly": true },
                { "name": "tls", "mountPath": "/vault/tls", "readOnly": true }
            ]
        }],
        "volumes": [
            { "name": "config", "configMap": { "name": format!("{name}-config") } },
            { "name": "tls", "secret": { "secretName": tls_secret_name(spec), "defaultMode": 288 } }
        ]
    })
}
