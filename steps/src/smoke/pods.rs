//! Pods as the checks ask for them: one that every Pod Security level accepts, and one that only `privileged` does.

use serde_json::{Value, json};

/// Small, and on every node's architecture.
pub(super) const IMAGE: &str = "public.ecr.aws/docker/library/busybox:1.37";

/// The spec of a pod that runs a command and asks for this much CPU.
pub(super) fn restricted(command: &[&str], cpu: &str) -> Value {
    json!({
        "restartPolicy": "Never",
        "automountServiceAccountToken": false,
        "securityContext": {"runAsNonRoot": true, "runAsUser": 65534, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{
            "name": "check", "image": IMAGE, "command": command,
            "resources": {"requests": {"cpu": cpu, "memory": "16Mi"}, "limits": {"cpu": cpu, "memory": "32Mi"}},
            "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]}},
        }],
    })
}

/// A pod with this spec.
pub(super) fn pod(namespace: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "spec": spec})
}

/// The same pod, privileged.
pub(super) fn privileged(namespace: &str, name: &str) -> Value {
    let mut spec = restricted(&["true"], "10m");
    if let Some(context) = spec.pointer_mut("/containers/0/securityContext") {
        *context = json!({"privileged": true});
    }
    pod(namespace, name, &spec)
}
