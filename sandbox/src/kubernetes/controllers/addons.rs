//! EKS add-ons as the workloads they install, and their health.

use jiff::Timestamp;
use serde_json::json;

use super::super::cluster::Cluster;
use super::super::model::AddonHealth;
use super::super::object::{self, int};
use super::super::store::Key;
use super::all;

const SYSTEM: &str = "kube-system";

/// The workloads of an add-on: resource, name, replicas (none for one per node), CPU, memory.
fn workloads(addon: &str) -> &'static [(&'static str, &'static str, Option<i64>, &'static str, &'static str)] {
    match addon {
        "vpc-cni" => &[("daemonsets", "aws-node", None, "50m", "64Mi")],
        "kube-proxy" => &[("daemonsets", "kube-proxy", None, "100m", "32Mi")],
        "eks-pod-identity-agent" => &[("daemonsets", "eks-pod-identity-agent", None, "25m", "32Mi")],
        "coredns" => &[("deployments", "coredns", Some(2), "100m", "70Mi")],
        "aws-ebs-csi-driver" => &[
            ("deployments", "ebs-csi-controller", Some(2), "60m", "240Mi"),
            ("daemonsets", "ebs-csi-node", None, "30m", "120Mi"),
        ],
        "metrics-server" => &[("deployments", "metrics-server", Some(2), "100m", "200Mi")],
        _ => &[],
    }
}

/// Installs the workloads.
pub(crate) fn install(cluster: &mut Cluster, addon: &str, now: Timestamp) {
    let version = cluster.identity.addons.get(addon).map(|each| each.version.clone()).unwrap_or_default();
    for (resource, name, replicas, cpu, memory) in workloads(addon) {
        let labels = json!({"app.kubernetes.io/name": name, "app.kubernetes.io/managed-by": "EKS", "app.kubernetes.io/version": version});
        let select = json!({"app.kubernetes.io/name": name});
        let network = resource == &"daemonsets";
        // The name that Services and network policies know the resolver by.
        let select = if *name == "coredns" { json!({"k8s-app": "kube-dns"}) } else { select };
        let mut pod = json!({
            "serviceAccountName": name, "priorityClassName": if network { "system-node-critical" } else { "system-cluster-critical" },
            "containers": [{"name": name, "image": format!("602401143452.dkr.ecr.{}.amazonaws.com/eks/{name}:{version}", cluster.identity.info.region), "resources": {"requests": {"cpu": cpu, "memory": memory}}}],
            "tolerations": if network { json!([{"operator": "Exists"}]) } else { json!([{"key": "CriticalAddonsOnly", "operator": "Exists"}, {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]) },
        });
        if network {
            object::set(&mut pod, &["hostNetwork"], json!(true));
        }
        let mut workload = json!({"metadata": {"name": name, "namespace": SYSTEM, "labels": labels}, "spec": {"selector": {"matchLabels": select}, "template": {"metadata": {"labels": select}, "spec": pod}}});
        if let Some(replicas) = replicas {
            object::set(&mut workload, &["spec", "replicas"], json!(replicas));
        }
        cluster.make("serviceaccounts", "", json!({"metadata": {"name": name, "namespace": SYSTEM}}), now);
        cluster.make(resource, "apps", workload, now);
    }
    if addon == "coredns" {
        let service = json!({"metadata": {"name": "kube-dns", "namespace": SYSTEM, "labels": {"k8s-app": "kube-dns"}}, "spec": {"clusterIP": "172.20.0.10", "clusterIPs": ["172.20.0.10"], "selector": {"k8s-app": "kube-dns"}, "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]}});
        cluster.make("services", "", service, now);
    }
    if addon == "aws-ebs-csi-driver" {
        cluster.make(
            "csidrivers",
            "storage.k8s.io",
            json!({"metadata": {"name": "ebs.csi.aws.com"}, "spec": {"attachRequired": true, "podInfoOnMount": false}}),
            now,
        );
        let wants_class = cluster
            .identity
            .addons
            .get(addon)
            .and_then(|each| each.configuration.as_ref())
            .is_some_and(|values| object::flag(values, "/defaultStorageClass/enabled"));
        if wants_class {
            let class = json!({"metadata": {"name": "ebs-csi-default-sc", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}, "provisioner": "ebs.csi.aws.com", "volumeBindingMode": "WaitForFirstConsumer", "allowVolumeExpansion": true});
            cluster.make("storageclasses", "storage.k8s.io", class, now);
        }
    }
    wake(cluster, now);
}

/// Removes the workloads.
pub(crate) fn uninstall(cluster: &mut Cluster, addon: &str, now: Timestamp) {
    for (resource, name, ..) in workloads(addon) {
        cluster.delete(&Key::new("apps", resource, SYSTEM, name), now);
        cluster.delete(&Key::core("serviceaccounts", SYSTEM, name), now);
    }
    if addon == "coredns" {
        cluster.delete(&Key::core("services", SYSTEM, "kube-dns"), now);
    }
    if addon == "aws-ebs-csi-driver" {
        cluster.delete(&Key::new("storage.k8s.io", "csidrivers", "", "ebs.csi.aws.com"), now);
    }
    wake(cluster, now);
}

/// Nodes wait for the network, claims for the volume driver.
fn wake(cluster: &mut Cluster, now: Timestamp) {
    for resource in ["nodes", "persistentvolumeclaims"] {
        for (key, _) in all(cluster, "", resource, None) {
            cluster.ask(key, now, 1_000);
        }
    }
}

/// Health as the workloads show it.
pub(crate) fn health(cluster: &Cluster, addon: &str) -> AddonHealth {
    for (resource, name, replicas, ..) in workloads(addon) {
        let Some(workload) = cluster.object(&Key::new("apps", resource, SYSTEM, name)) else {
            return AddonHealth::Degraded(format!("{name} is missing"));
        };
        let number = |pointer: &str| int(&workload, pointer).unwrap_or(0);
        match replicas {
            Some(wanted) if number("/status/availableReplicas") < *wanted => {
                return AddonHealth::Degraded(format!(
                    "The add-on is unhealthy because all deployments have all pods unscheduled: {name} has {} of {wanted} replicas available",
                    number("/status/availableReplicas")
                ));
            }
            None if number("/status/numberReady") < number("/status/desiredNumberScheduled") => {
                return AddonHealth::Degraded(format!(
                    "{name} is ready on {} of {} nodes",
                    number("/status/numberReady"),
                    number("/status/desiredNumberScheduled")
                ));
            }
            _ => {}
        }
    }
    AddonHealth::Healthy
}
