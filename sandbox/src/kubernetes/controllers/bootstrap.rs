//! What a fresh control plane has: system namespaces, bootstrap roles, priority classes, the API service.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::cluster::Cluster;

const RBAC: &str = "rbac.authorization.k8s.io";

/// Fills an empty cluster.
pub(crate) fn bootstrap(cluster: &mut Cluster, now: Timestamp) {
    for name in ["default", "kube-node-lease", "kube-public", "kube-system"] {
        let namespace = json!({"metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
        cluster.make("namespaces", "", namespace, now);
    }
    for (name, value) in [("system-node-critical", 2_000_001_000_i64), ("system-cluster-critical", 2_000_000_000)] {
        cluster.make(
            "priorityclasses",
            "scheduling.k8s.io",
            json!({"metadata": {"name": name}, "value": value, "description": "Used for system critical pods."}),
            now,
        );
    }
    roles(cluster, now);
    let service = json!({"metadata": {"name": "kubernetes", "namespace": "default", "labels": {"component": "apiserver", "provider": "kubernetes"}}, "spec": {"clusterIP": "172.20.0.1", "clusterIPs": ["172.20.0.1"], "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 443}]}});
    cluster.make("services", "", service, now);
    // EKS still ships the old class, without the default annotation since 1.30.
    let class = json!({"metadata": {"name": "gp2"}, "provisioner": "kubernetes.io/aws-ebs", "parameters": {"fsType": "ext4", "type": "gp2"}, "reclaimPolicy": "Delete", "volumeBindingMode": "WaitForFirstConsumer"});
    cluster.make("storageclasses", "storage.k8s.io", class, now);
}

fn roles(cluster: &mut Cluster, now: Timestamp) {
    let bootstrapping = json!({"kubernetes.io/bootstrapping": "rbac-defaults"});
    let workloads = [
        "pods",
        "services",
        "endpoints",
        "configmaps",
        "persistentvolumeclaims",
        "serviceaccounts",
        "deployments",
        "statefulsets",
        "daemonsets",
        "replicasets",
        "jobs",
        "cronjobs",
        "ingresses",
        "networkpolicies",
        "poddisruptionbudgets",
        "horizontalpodautoscalers",
        "events",
        "limitranges",
        "resourcequotas",
        "namespaces",
    ];
    let groups = ["", "apps", "batch", "networking.k8s.io", "policy", "autoscaling"];
    let read = json!(["get", "list", "watch"]);
    let all = json!(["*"]);
    let rules: [(&str, Value); 9] = [
        (
            "cluster-admin",
            json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}, {"nonResourceURLs": ["*"], "verbs": ["*"]}]),
        ),
        (
            "admin",
            json!([{"apiGroups": groups, "resources": workloads, "verbs": all}, {"apiGroups": [""], "resources": ["secrets"], "verbs": all}, {"apiGroups": [RBAC], "resources": ["roles", "rolebindings"], "verbs": all}]),
        ),
        (
            "edit",
            json!([{"apiGroups": groups, "resources": workloads, "verbs": all}, {"apiGroups": [""], "resources": ["secrets"], "verbs": all}]),
        ),
        ("view", json!([{"apiGroups": groups, "resources": workloads, "verbs": read}])),
        (
            "system:auth-delegator",
            json!([{"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}, {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]}]),
        ),
        (
            "system:basic-user",
            json!([{"apiGroups": ["authorization.k8s.io"], "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"], "verbs": ["create"]}, {"apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"], "verbs": ["create"]}]),
        ),
        (
            "system:public-info-viewer",
            json!([{"nonResourceURLs": ["/healthz", "/livez", "/readyz", "/version", "/version/"], "verbs": ["get"]}]),
        ),
        (
            "system:service-account-issuer-discovery",
            json!([{"nonResourceURLs": ["/.well-known/openid-configuration", "/.well-known/openid-configuration/", "/openid/v1/jwks", "/openid/v1/jwks/"], "verbs": ["get"]}]),
        ),
        (
            "system:discovery",
            json!([{"nonResourceURLs": ["/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz", "/version", "/version/"], "verbs": ["get"]}]),
        ),
    ];
    for (name, rules) in rules {
        cluster.make(
            "clusterroles",
            RBAC,
            json!({"metadata": {"name": name, "labels": bootstrapping}, "rules": rules}),
            now,
        );
    }
    for (name, role, kind, subject) in [
        ("cluster-admin", "cluster-admin", "Group", "system:masters"),
        ("system:basic-user", "system:basic-user", "Group", "system:authenticated"),
        ("system:discovery", "system:discovery", "Group", "system:authenticated"),
        ("system:public-info-viewer", "system:public-info-viewer", "Group", "system:authenticated"),
        (
            "system:service-account-issuer-discovery",
            "system:service-account-issuer-discovery",
            "Group",
            "system:serviceaccounts",
        ),
    ] {
        let binding = json!({"metadata": {"name": name, "labels": bootstrapping}, "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role}, "subjects": [{"kind": kind, "name": subject}]});
        cluster.make("clusterrolebindings", RBAC, binding, now);
    }
}
