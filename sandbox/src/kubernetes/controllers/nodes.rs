//! Nodes: they join NotReady, become Ready once the network add-on is there, and take their pods with them when they leave.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::cluster::Cluster;
use super::super::model::NodeSeed;
use super::super::object::{self, text};
use super::super::store::Key;
use super::{Look, all};

/// A machine registers.
pub(crate) fn join(cluster: &mut Cluster, seed: &NodeSeed, now: Timestamp) {
    let mut labels = json!({
        "kubernetes.io/hostname": seed.name, "kubernetes.io/arch": seed.arch, "kubernetes.io/os": "linux", "beta.kubernetes.io/arch": seed.arch, "beta.kubernetes.io/os": "linux",
        "node.kubernetes.io/instance-type": seed.instance_type, "beta.kubernetes.io/instance-type": seed.instance_type,
        "topology.kubernetes.io/region": seed.region, "topology.kubernetes.io/zone": seed.zone, "failure-domain.beta.kubernetes.io/region": seed.region, "failure-domain.beta.kubernetes.io/zone": seed.zone,
        "eks.amazonaws.com/nodegroup": seed.pool, "eks.amazonaws.com/capacityType": "ON_DEMAND",
    });
    if seed.region.is_empty() {
        for key in ["topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"] {
            object::remove(&mut labels, &[key]);
        }
    }
    for (key, value) in &seed.labels {
        object::set(&mut labels, &[key], json!(value));
    }
    let mut taints: Vec<Value> = seed
        .taints
        .iter()
        .map(|taint| json!({"key": taint.key, "value": taint.value, "effect": taint.effect}))
        .collect();
    taints.push(json!({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}));
    let address = seed
        .name
        .strip_prefix("ip-")
        .and_then(|rest| rest.split('.').next())
        .map_or_else(|| "10.0.0.10".to_owned(), |dashed| dashed.replace('-', "."));
    let capacity = json!({"cpu": seed.cpu.to_string(), "memory": format!("{}Mi", seed.memory_mib), "pods": seed.pods.to_string(), "ephemeral-storage": "83873772Ki"});
    // What kubelet and system keep for themselves, as the EKS bootstrap reserves it.
    let reserved_mib = 255 + 11 * u64::from(seed.pods) + 100;
    let allocatable = json!({"cpu": format!("{}m", u64::from(seed.cpu) * 1_000 - 70), "memory": format!("{}Mi", seed.memory_mib.saturating_sub(reserved_mib)), "pods": seed.pods.to_string(), "ephemeral-storage": "76224326324"});
    let architecture = &seed.arch;
    let version = format!("v{}.2-eks-5d4a308", cluster.identity.info.version);
    let node = json!({
        "metadata": {"name": seed.name, "labels": labels, "annotations": {"node.alpha.kubernetes.io/ttl": "0", "volumes.kubernetes.io/controller-managed-attach-detach": "true"}},
        "spec": {"providerID": format!("aws:///{}/{}", seed.zone, seed.instance_id), "taints": taints},
        "status": {
            "capacity": capacity, "allocatable": allocatable,
            "addresses": [{"type": "InternalIP", "address": address}, {"type": "InternalDNS", "address": seed.name}, {"type": "Hostname", "address": seed.name}],
            "conditions": conditions(false, now),
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10_250}},
            "nodeInfo": {"architecture": architecture, "operatingSystem": "linux", "kubeletVersion": version, "kubeProxyVersion": version, "containerRuntimeVersion": "containerd://2.1.4", "osImage": "Amazon Linux 2023.9.20260810", "kernelVersion": "6.12.40-63.114.amzn2023", "bootID": seed.instance_id, "machineID": seed.instance_id, "systemUUID": seed.instance_id},
        },
    });
    cluster.make("nodes", "", node, now);
}

fn conditions(ready: bool, now: Timestamp) -> Value {
    let now = object::stamp(now);
    let row = |kind: &str, status: &str, reason: &str, message: &str| json!({"type": kind, "status": status, "reason": reason, "message": message, "lastHeartbeatTime": now, "lastTransitionTime": now});
    let ready = if ready {
        row("Ready", "True", "KubeletReady", "kubelet is posting ready status")
    } else {
        row(
            "Ready",
            "False",
            "KubeletNotReady",
            "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized",
        )
    };
    json!([
        row("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        row("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        row("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ready
    ])
}

/// A machine is gone.
pub(crate) fn leave(cluster: &mut Cluster, name: &str, now: Timestamp) {
    for (key, pod) in all(cluster, "", "pods", None) {
        if text(&pod, "/spec/nodeName") == name {
            super::super::verbs::delete::begin(cluster, &key, now, Some(0));
        }
    }
    cluster.store.delete(&Key::core("nodes", "", name));
}

/// Whether the network add-on's agent runs (or is about to, on a fresh node).
fn network_is_there(cluster: &Cluster) -> bool {
    cluster.has_addon("vpc-cni") || cluster.object(&Key::new("apps", "daemonsets", "kube-system", "aws-node")).is_some()
}

/// One look at a node: Ready follows the network, and the taints follow Ready and `unschedulable`.
pub(crate) fn look(look: &mut Look<'_>, key: &Key) {
    let Some(node) = look.cluster.object(key) else { return };
    let wanted = network_is_there(look.cluster);
    let ready = object::condition_true(&node, "Ready");
    let age = object::time_at(&node, "/metadata/creationTimestamp")
        .map_or(0, |since| look.now.duration_since(since).as_secs());
    if wanted && !ready && age < 8 {
        look.again(key, (8 - age) * 1_000);
    } else if wanted != ready {
        let now = look.now;
        look.cluster.change(key, |new| object::set(new, &["status", "conditions"], conditions(wanted, now)));
    }
    let ready = look.cluster.object(key).is_some_and(|node| object::condition_true(&node, "Ready"));
    let now = object::stamp(look.now);
    look.cluster.change(key, |new| {
        let cordoned = object::flag(new, "/spec/unschedulable");
        set_taint(new, "node.kubernetes.io/not-ready", !ready, None);
        set_taint(new, "node.kubernetes.io/unschedulable", cordoned, Some(&now));
    });
}

fn set_taint(node: &mut Value, key: &str, wanted: bool, since: Option<&str>) {
    let has = object::list(node, "/spec/taints").iter().any(|taint| text(taint, "/key") == key);
    if has == wanted {
        return;
    }
    if let Some(taints) = object::list_mut(node, &["spec", "taints"]) {
        if wanted {
            let mut taint = json!({"key": key, "effect": "NoSchedule"});
            if let Some(since) = since {
                object::set(&mut taint, &["timeAdded"], json!(since));
            }
            taints.push(taint);
        } else {
            taints.retain(|taint| text(taint, "/key") != key);
        }
        if taints.is_empty() {
            object::remove(node, &["spec", "taints"]);
        }
    }
}
