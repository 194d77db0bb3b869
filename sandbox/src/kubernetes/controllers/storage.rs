//! Claims and volumes: default class, binding through the EBS driver, protection, reclaim.

use serde_json::{Value, json};

use super::super::cluster::Cluster;
use super::super::object::{self, annotation, list, text};
use super::super::quantity::Quantity;
use super::super::store::Key;
use super::events::{Said, say};
use super::{Look, all, garbage};

const DRIVERS: [&str; 2] = ["ebs.csi.aws.com", "kubernetes.io/aws-ebs"];

/// Names the default class in a claim that names none.
pub(crate) fn default_class(cluster: &Cluster, claim: &mut Value) {
    if claim.pointer("/spec/storageClassName").is_some() {
        return;
    }
    let mut classes: Vec<_> = all(cluster, "storage.k8s.io", "storageclasses", None)
        .into_iter()
        .filter(|(_, class)| annotation(class, "storageclass.kubernetes.io/is-default-class") == Some("true"))
        .collect();
    classes.sort_by_key(|(_, class)| std::cmp::Reverse(text(class, "/metadata/creationTimestamp").to_owned()));
    if let Some((class, _)) = classes.first() {
        object::set(claim, &["spec", "storageClassName"], json!(class.name));
    }
}

/// One look at a claim.
pub(crate) fn claim(look: &mut Look<'_>, key: &Key) {
    let Some(claim) = look.cluster.object(key) else { return };
    if object::deleting(&claim) {
        let used = all(look.cluster, "", "pods", Some(&key.namespace)).iter().any(|(_, pod)| {
            // Like the real protection, a pod without a node does not hold a claim back.
            !text(pod, "/spec/nodeName").is_empty()
                && list(pod, "/spec/volumes")
                    .iter()
                    .any(|volume| text(volume, "/persistentVolumeClaim/claimName") == key.name)
        });
        if used {
            look.poll(key, 2_000)
        } else {
            garbage::release(look, key, "kubernetes.io/pvc-protection")
        }
        return;
    }
    if text(&claim, "/status/phase") == "Bound" {
        return;
    }
    let mut named = (*claim).clone();
    default_class(look.cluster, &mut named);
    look.cluster.write(key, named);
    let Some(claim) = look.cluster.object(key) else { return };
    let Some(class) =
        look.cluster.object(&Key::new("storage.k8s.io", "storageclasses", "", text(&claim, "/spec/storageClassName")))
    else {
        return;
    };
    let node = annotation(&claim, "volume.kubernetes.io/selected-node").map(str::to_owned);
    let waits = text(&class, "/volumeBindingMode") == "WaitForFirstConsumer";
    if waits && node.is_none() {
        let message = "waiting for first consumer to be created before binding";
        say(look, key, &Said { reason: "WaitForFirstConsumer", message, component: "persistentvolume-controller" });
    }
    let driver = look.cluster.has_addon("aws-ebs-csi-driver") && DRIVERS.contains(&text(&class, "/provisioner"));
    if !driver || waits && node.is_none() {
        return;
    }
    let zone = node
        .and_then(|node| look.cluster.object(&Key::core("nodes", "", &node)))
        .or_else(|| all(look.cluster, "", "nodes", None).into_iter().next().map(|(_, node)| node))
        .and_then(|node| object::label(&node, "topology.kubernetes.io/zone").map(str::to_owned));
    if let Some(zone) = zone {
        provision(look, key, &claim, &class, &zone);
    }
}

fn provision(look: &mut Look<'_>, key: &Key, claim: &Value, class: &Value, zone: &str) {
    let size = text(claim, "/spec/resources/requests/storage").to_owned();
    let gib = Quantity::parse(&size)
        .map_or(1, |quantity| u64::try_from((quantity.milli / 1_000 + (1 << 30) - 1) >> 30).unwrap_or(1))
        .max(1);
    let cluster = look.cluster.name();
    let handle = look.outside.create_volume(&cluster, &key.namespace, &key.name, gib, zone);
    let name = format!("pvc-{}", object::uid(claim));
    let modes = claim.pointer("/spec/accessModes").cloned().unwrap_or_else(|| json!(["ReadWriteOnce"]));
    let volume = json!({
        "metadata": {"name": name, "annotations": {"pv.kubernetes.io/provisioned-by": "ebs.csi.aws.com"}, "finalizers": ["kubernetes.io/pv-protection", "external-provisioner.volume.kubernetes.io/finalizer"]},
        "spec": {
            "capacity": {"storage": format!("{gib}Gi")}, "accessModes": modes, "persistentVolumeReclaimPolicy": text(class, "/reclaimPolicy"), "storageClassName": object::name(class),
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": key.namespace, "name": key.name, "uid": object::uid(claim)},
            "csi": {"driver": "ebs.csi.aws.com", "volumeHandle": handle, "fsType": "ext4"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In", "values": [zone]}]}]}},
        },
        "status": {"phase": "Bound"},
    });
    look.cluster.make("persistentvolumes", "", volume, look.now);
    look.cluster.change(key, |new| {
        object::set(new, &["spec", "volumeName"], json!(name));
        object::set(new, &["metadata", "annotations", "pv.kubernetes.io/bind-completed"], json!("yes"));
        object::set(
            new,
            &["status"],
            json!({"phase": "Bound", "accessModes": modes, "capacity": {"storage": format!("{gib}Gi")}}),
        );
    });
}

/// One look at a volume: it follows its claim.
pub(crate) fn volume(look: &mut Look<'_>, key: &Key) {
    let Some(volume) = look.cluster.object(key) else { return };
    let claim = Key::core(
        "persistentvolumeclaims",
        text(&volume, "/spec/claimRef/namespace"),
        text(&volume, "/spec/claimRef/name"),
    );
    let lives =
        look.cluster.object(&claim).is_some_and(|found| object::uid(&found) == text(&volume, "/spec/claimRef/uid"));
    if lives || text(&volume, "/spec/claimRef/name").is_empty() {
        return;
    }
    if text(&volume, "/spec/persistentVolumeReclaimPolicy") != "Delete" {
        look.cluster.change(key, |new| object::set(new, &["status", "phase"], json!("Released")));
        return;
    }
    look.outside.delete_volume(text(&volume, "/spec/csi/volumeHandle"));
    look.cluster.store.delete(key);
}
