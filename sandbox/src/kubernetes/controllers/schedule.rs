//! The scheduler: finds a node with room whose taints the pod tolerates and whose labels it wants; waits for volumes.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::object::{self, list, put_condition, text};
use super::super::quantity::Quantity;
use super::super::store::Key;
use super::events::{Said, say};
use super::{Look, all};

/// What a pod asks of a node.
#[derive(Debug, Clone, Copy, Default)]
struct Need {
    cpu: i128,
    memory: i128,
}

fn amount(container: &Value, name: &str) -> i128 {
    Quantity::parse(text(container, &format!("/resources/requests/{name}"))).map_or(0, |quantity| quantity.milli)
}

fn need(pod: &Value) -> Need {
    let sum =
        |name: &str| {
            list(pod, "/spec/containers").iter().map(|container| amount(container, name)).sum::<i128>().max(
                list(pod, "/spec/initContainers").iter().map(|container| amount(container, name)).max().unwrap_or(0),
            )
        };
    Need { cpu: sum("cpu"), memory: sum("memory") }
}

/// Whether a pod tolerates a node's hard taints.
pub(crate) fn tolerates(pod: &Value, node: &Value, daemon: bool) -> bool {
    list(node, "/spec/taints").iter().filter(|taint| text(taint, "/effect") != "PreferNoSchedule").all(|taint| {
        let (key, value, effect) = (text(taint, "/key"), text(taint, "/value"), text(taint, "/effect"));
        if daemon && key.starts_with("node.kubernetes.io/") {
            return true;
        }
        list(pod, "/spec/tolerations").iter().any(|toleration| {
            let wanted = text(toleration, "/key");
            let matches_effect = text(toleration, "/effect").is_empty() || text(toleration, "/effect") == effect;
            let matches_key = if text(toleration, "/operator") == "Exists" {
                wanted.is_empty() || wanted == key
            } else {
                wanted == key && text(toleration, "/value") == value
            };
            matches_effect && matches_key
        })
    })
}

/// Whether a node has the labels that a pod wants.
pub(crate) fn selected(pod: &Value, node: &Value) -> bool {
    let labels = object::map(node, "/metadata/labels");
    let plain = object::map(pod, "/spec/nodeSelector").is_none_or(|wanted| {
        wanted.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
    });
    let terms =
        list(pod, "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms");
    plain
        && (terms.is_empty()
            || terms.iter().any(|term| {
                super::super::selectors::LabelSelector::of_object(
                    &json!({"matchExpressions": term.get("matchExpressions").cloned().unwrap_or_else(|| json!([]))}),
                )
                .matches(labels)
            }))
}

fn required_spread(look: &Look<'_>, pod: &Value, node: &Value, namespace: &str) -> bool {
    list(pod, "/spec/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution").iter().all(|term| {
        let topology = text(term, "/topologyKey");
        let domain = object::label(node, topology);
        let selector =
            super::super::selectors::LabelSelector::of_object(term.get("labelSelector").unwrap_or(&Value::Null));
        !all(look.cluster, "", "pods", Some(namespace)).iter().any(|(_, other)| {
            let home = home(look, other);
            !home.is_empty()
                && object::name(other) != object::name(pod)
                && selector.selects(other)
                && !finished(other)
                && look
                    .cluster
                    .object(&Key::core("nodes", "", &home))
                    .is_some_and(|there| object::label(&there, topology) == domain)
        })
    })
}

/// Where a pod runs, or the node it is reserved for while its volumes are being made: like the real scheduler, nobody
/// else is placed there as if it were free.
fn home(look: &Look<'_>, pod: &Value) -> String {
    let bound = text(pod, "/spec/nodeName");
    if !bound.is_empty() {
        return bound.to_owned();
    }
    claims(pod)
        .filter_map(|claim| look.cluster.object(&Key::core("persistentvolumeclaims", object::namespace(pod), claim)))
        .find_map(|claim| object::annotation(&claim, "volume.kubernetes.io/selected-node").map(str::to_owned))
        .unwrap_or_default()
}

fn finished(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

/// Room on a node for a pod; the CPU left, to prefer the emptier one.
fn room(look: &Look<'_>, node: &Value, pod: &Value, need: Need) -> Option<i128> {
    let free = |name: &str| {
        Quantity::parse(text(node, &format!("/status/allocatable/{name}"))).map_or(0, |quantity| quantity.milli)
    };
    let (mut cpu, mut memory, mut count) = (free("cpu"), free("memory"), free("pods") / 1_000);
    for (_, other) in all(look.cluster, "", "pods", None) {
        let itself = object::name(&other) == object::name(pod) && object::namespace(&other) == object::namespace(pod);
        if !itself && home(look, &other) == object::name(node) && !finished(&other) {
            let taken = self::need(&other);
            cpu -= taken.cpu;
            memory -= taken.memory;
            count -= 1;
        }
    }
    (cpu >= need.cpu && memory >= need.memory && count >= 1).then_some(cpu - need.cpu)
}

/// One try to place a pod.
pub(crate) fn look(look: &mut Look<'_>, key: &Key, pod: &Arc<Value>) {
    let need = need(pod);
    let mut reasons: Vec<(&str, usize)> = Vec::new();
    let mut best: Option<(i128, String)> = None;
    let nodes = all(look.cluster, "", "nodes", None);
    let zone = volume_zone(look, pod);
    for (_, node) in &nodes {
        let reason = if object::flag(node, "/spec/unschedulable") && !tolerates(pod, node, false) {
            "node(s) were unschedulable"
        } else if !tolerates(pod, node, false) {
            "node(s) had untolerated taint(s)"
        } else if !selected(pod, node) {
            "node(s) didn't match Pod's node affinity/selector"
        } else if zone.as_deref().is_some_and(|zone| object::label(node, "topology.kubernetes.io/zone") != Some(zone)) {
            "node(s) had volume node affinity conflict"
        } else if !required_spread(look, pod, node, &key.namespace) {
            "node(s) didn't match pod anti-affinity rules"
        } else if let Some(left) = room(look, node, pod, need) {
            if best.as_ref().is_none_or(|(most, _)| left > *most) {
                best = Some((left, object::name(node).to_owned()));
            }
            continue;
        } else {
            "Insufficient cpu or memory"
        };
        match reasons.iter_mut().find(|(each, _)| *each == reason) {
            Some((_, count)) => *count += 1,
            None => reasons.push((reason, 1)),
        }
    }
    let Some((_, node)) = best else {
        let message = if nodes.is_empty() {
            "no nodes available to schedule pods".to_owned()
        } else {
            format!(
                "0/{count} nodes are available: {}. no new claims to deallocate, preemption: 0/{count} nodes are available: {count} Preemption is not helpful for scheduling.",
                reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect::<Vec<_>>().join(", "),
                count = nodes.len()
            )
        };
        unschedulable(look, key, &message);
        return;
    };
    match claims_bound(look, pod, &node) {
        Ok(true) => bind(look, key, &node),
        Ok(false) => look.poll(key, 1_000),
        Err(message) => unschedulable(look, key, &message),
    }
}

fn bind(look: &mut Look<'_>, key: &Key, node: &str) {
    let now = object::stamp(look.now);
    let message = format!("Successfully assigned {}/{} to {node}", key.namespace, key.name);
    say(look, key, &Said { reason: "Scheduled", message: &message, component: "default-scheduler" });
    let home = look.cluster.object(&Key::core("nodes", "", node));
    look.cluster.change(key, |new| {
        object::set(new, &["spec", "nodeName"], json!(node));
        // A bound pod is told where it is.
        for label in ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"] {
            if let Some(value) = home.as_ref().and_then(|home| object::label(home, label)) {
                object::set(new, &["metadata", "labels", label], json!(value));
            }
        }
        if let Some(conditions) = object::list_mut(new, &["status", "conditions"]) {
            put_condition(conditions, json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null}), &now);
        }
    });
}

fn unschedulable(look: &mut Look<'_>, key: &Key, message: &str) {
    let now = object::stamp(look.now);
    look.cluster.change(key, |new| {
        let generation = object::int(new, "/metadata/generation").unwrap_or(1);
        if let Some(conditions) = object::list_mut(new, &["status", "conditions"]) {
            put_condition(conditions, json!({"type": "PodScheduled", "status": "False", "lastProbeTime": null, "reason": "Unschedulable", "message": message, "observedGeneration": generation}), &now);
        }
    });
}

fn claims(pod: &Value) -> impl Iterator<Item = &str> {
    list(pod, "/spec/volumes")
        .iter()
        .map(|volume| text(volume, "/persistentVolumeClaim/claimName"))
        .filter(|name| !name.is_empty())
}

fn volume_zone(look: &Look<'_>, pod: &Value) -> Option<String> {
    claims(pod).find_map(|claim| {
        let claim = look.cluster.object(&Key::core("persistentvolumeclaims", object::namespace(pod), claim))?;
        let volume = look.cluster.object(&Key::core("persistentvolumes", "", text(&claim, "/spec/volumeName")))?;
        list(&volume, "/spec/nodeAffinity/required/nodeSelectorTerms/0/matchExpressions")
            .first()
            .map(|expression| text(expression, "/values/0").to_owned())
    })
}

/// Whether all claims are bound; claims that wait for their first consumer are told the node.
fn claims_bound(look: &mut Look<'_>, pod: &Value, node: &str) -> Result<bool, String> {
    let mut bound = true;
    let names: Vec<String> = claims(pod).map(str::to_owned).collect();
    for name in names {
        let key = Key::core("persistentvolumeclaims", object::namespace(pod), &name);
        let Some(claim) = look.cluster.object(&key) else {
            return Err(format!("persistentvolumeclaim \"{name}\" not found"));
        };
        if object::deleting(&claim) {
            return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
        }
        if text(&claim, "/status/phase") == "Bound" {
            continue;
        }
        if text(&claim, "/spec/storageClassName").is_empty() {
            return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
        }
        bound = false;
        look.cluster.change(&key, |new| {
            object::set(new, &["metadata", "annotations", "volume.kubernetes.io/selected-node"], json!(node))
        });
    }
    Ok(bound)
}
