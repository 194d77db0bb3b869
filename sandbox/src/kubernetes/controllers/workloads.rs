//! Deployments and ReplicaSets: roll-outs step by step, with the conditions that clients wait for.

use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::super::object::{self, condition_true, int, list, put_condition, text};
use super::super::selectors::LabelSelector;
use super::super::store::Key;
use super::{Look, all};

/// Pods that an owner controls.
pub(crate) fn pods_of(look: &Look<'_>, owner: &Value) -> Vec<(Key, Arc<Value>)> {
    let uid = object::uid(owner);
    all(look.cluster, "", "pods", Some(object::namespace(owner)))
        .into_iter()
        .filter(|(_, pod)| list(pod, "/metadata/ownerReferences").iter().any(|each| text(each, "/uid") == uid))
        .collect()
}

/// The owner reference of a controller.
pub(crate) fn owned_by(owner: &Value, api_version: &str, kind: &str) -> Value {
    json!([{"apiVersion": api_version, "kind": kind, "name": object::name(owner), "uid": object::uid(owner), "controller": true, "blockOwnerDeletion": true}])
}

/// A short name for a pod template.
pub(crate) fn template_hash(template: &Value) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    Sha256::digest(template.to_string())
        .iter()
        .take(10)
        .map(|byte| char::from(*LETTERS.get(usize::from(*byte) % LETTERS.len()).unwrap_or(&b'x')))
        .collect()
}

/// Makes a pod from a template as its owner's service account would: through admission. Answers the refusal.
pub(crate) fn make_pod(look: &mut Look<'_>, owner: &Value, mut pod: Value) -> Result<(), String> {
    object::set(&mut pod, &["metadata", "namespace"], json!(object::namespace(owner)));
    super::super::admission::pod_by_controller(look, pod)
}

fn percent(value: Option<&Value>, of: i64, up: bool) -> i64 {
    match value {
        Some(Value::Number(number)) => number.as_i64().unwrap_or(0),
        Some(Value::String(text)) => {
            let share = text.trim_end_matches('%').parse::<i64>().unwrap_or(25) * of;
            if up { (share + 99) / 100 } else { share / 100 }
        }
        _ => 0,
    }
}

/// One look at a Deployment.
pub(crate) fn deployment(look: &mut Look<'_>, key: &Key) {
    let Some(deployment) = look.cluster.object(key).filter(|found| !object::deleting(found)) else { return };
    let replicas = int(&deployment, "/spec/replicas").unwrap_or(1);
    let template = deployment.pointer("/spec/template").cloned().unwrap_or_default();
    let hash = template_hash(&template);
    let uid = object::uid(&deployment).to_owned();
    let sets: Vec<(Key, Arc<Value>)> = all(look.cluster, "apps", "replicasets", Some(&key.namespace))
        .into_iter()
        .filter(|(_, set)| list(set, "/metadata/ownerReferences").iter().any(|owner| text(owner, "/uid") == uid))
        .collect();
    let current_key = Key::new("apps", "replicasets", &key.namespace, &format!("{}-{hash}", key.name));
    let surge = percent(deployment.pointer("/spec/strategy/rollingUpdate/maxSurge"), replicas, true);
    let unavailable = percent(deployment.pointer("/spec/strategy/rollingUpdate/maxUnavailable"), replicas, false);
    let recreate = text(&deployment, "/spec/strategy/type") == "Recreate";
    if !sets.iter().any(|(set, _)| *set == current_key) {
        new_replica_set(look, &deployment, &hash, &sets, replicas + surge);
    }
    let old: Vec<&(Key, Arc<Value>)> = sets.iter().filter(|(set, _)| *set != current_key).collect();
    let size = |set: &Value| int(set, "/spec/replicas").unwrap_or(0);
    let ready = |set: &Value| int(set, "/status/readyReplicas").unwrap_or(0);
    let old_total: i64 = old.iter().map(|(_, set)| size(set)).sum();
    let old_live: i64 = old.iter().map(|(_, set)| int(set, "/status/replicas").unwrap_or(0)).sum();
    let Some(current) = look.cluster.object(&current_key) else { return };
    let target = if old_total == 0 && (!recreate || old_live == 0) {
        replicas
    } else if recreate {
        0
    } else {
        (replicas + surge - old_total).clamp(size(&current).min(replicas), replicas)
    };
    resize(look, &current_key, target, replicas, surge);
    let old_ready: i64 = old.iter().map(|(_, set)| ready(set)).sum();
    let mut spare = if recreate {
        old_total
    } else {
        ready(&current) + old_ready + (old_total - old_ready)
            - (replicas - unavailable)
            - (old_total - old_ready).min(0)
    };
    if !recreate {
        spare = (ready(&current) + old_total - (replicas - unavailable)).max(0);
    }
    for (set_key, set) in old {
        let take = spare.min(size(set)).max(0);
        spare -= take;
        resize(look, set_key, size(set) - take, replicas, surge);
    }
    report(look, key, &current_key, &deployment);
}

fn resize(look: &mut Look<'_>, key: &Key, replicas: i64, wanted: i64, surge: i64) {
    look.cluster.change(key, |set| {
        if int(set, "/spec/replicas") != Some(replicas) {
            object::set(set, &["spec", "replicas"], json!(replicas));
            let generation = int(set, "/metadata/generation").unwrap_or(1);
            object::set(set, &["metadata", "generation"], json!(generation + 1));
        }
        object::set(
            set,
            &["metadata", "annotations", "deployment.kubernetes.io/desired-replicas"],
            json!(wanted.to_string()),
        );
        object::set(
            set,
            &["metadata", "annotations", "deployment.kubernetes.io/max-replicas"],
            json!((wanted + surge).to_string()),
        );
    });
}

fn revision(object: &Value) -> i64 {
    object::annotation(object, "deployment.kubernetes.io/revision").and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn new_replica_set(look: &mut Look<'_>, deployment: &Value, hash: &str, sets: &[(Key, Arc<Value>)], most: i64) {
    let next = sets.iter().map(|(_, set)| revision(set)).max().unwrap_or(0) + 1;
    let mut template = deployment.pointer("/spec/template").cloned().unwrap_or_default();
    object::set(&mut template, &["metadata", "labels", "pod-template-hash"], json!(hash));
    let mut selector = deployment.pointer("/spec/selector").cloned().unwrap_or_default();
    object::set(&mut selector, &["matchLabels", "pod-template-hash"], json!(hash));
    let labels = template.pointer("/metadata/labels").cloned().unwrap_or_default();
    let set = json!({
        "metadata": {"name": format!("{}-{hash}", object::name(deployment)), "namespace": object::namespace(deployment), "labels": labels, "ownerReferences": owned_by(deployment, "apps/v1", "Deployment"),
            "annotations": {"deployment.kubernetes.io/desired-replicas": int(deployment, "/spec/replicas").unwrap_or(1).to_string(), "deployment.kubernetes.io/max-replicas": most.to_string(), "deployment.kubernetes.io/revision": next.to_string()}},
        "spec": {"replicas": 0, "selector": selector, "template": template},
    });
    look.cluster.make("replicasets", "apps", set, look.now);
}

#[expect(clippy::too_many_lines, reason = "the status of a Deployment, field by field")]
fn report(look: &mut Look<'_>, key: &Key, current_key: &Key, deployment: &Value) {
    let Some(current) = look.cluster.object(current_key) else { return };
    let number = |set: &Value, field: &str| int(set, &format!("/status/{field}")).unwrap_or(0);
    let uid = object::uid(deployment).to_owned();
    let sets: Vec<Arc<Value>> = all(look.cluster, "apps", "replicasets", Some(&key.namespace))
        .into_iter()
        .map(|(_, set)| set)
        .filter(|set| list(set, "/metadata/ownerReferences").iter().any(|owner| text(owner, "/uid") == uid))
        .collect();
    let sum = |field: &str| sets.iter().map(|set| number(set, field)).sum::<i64>();
    let (total, ready, available, updated) =
        (sum("replicas"), sum("readyReplicas"), sum("availableReplicas"), number(&current, "replicas"));
    let wanted = int(deployment, "/spec/replicas").unwrap_or(1);
    let least = wanted - percent(deployment.pointer("/spec/strategy/rollingUpdate/maxUnavailable"), wanted, false);
    let done = updated == wanted && total == wanted && available >= wanted;
    let name = object::name(&current).to_owned();
    let since = object::condition(deployment, "Progressing")
        .and_then(|found| object::time_at(found, "/lastUpdateTime"))
        .unwrap_or(look.now);
    let deadline = int(deployment, "/spec/progressDeadlineSeconds").unwrap_or(600);
    let late = !done
        && look.now.duration_since(since).as_secs() >= deadline
        && ready == number_before(deployment, "readyReplicas")
        && observed(deployment);
    let progressing = if done {
        ("True", "NewReplicaSetAvailable", format!("ReplicaSet \"{name}\" has successfully progressed."))
    } else if late {
        ("False", "ProgressDeadlineExceeded", format!("ReplicaSet \"{name}\" has timed out progressing."))
    } else if updated == 0 && object::condition(deployment, "Progressing").is_none() {
        ("True", "NewReplicaSetCreated", format!("Created new replica set \"{name}\""))
    } else {
        ("True", "ReplicaSetUpdated", format!("ReplicaSet \"{name}\" is progressing."))
    };
    let enough = available >= least;
    let failure = object::condition(&current, "ReplicaFailure").cloned();
    let (stamp, generation, revision) =
        (object::stamp(look.now), int(deployment, "/metadata/generation").unwrap_or(1), revision(&current));
    look.cluster.change(key, |new| {
        object::set(
            new,
            &["metadata", "annotations", "deployment.kubernetes.io/revision"],
            json!(revision.to_string()),
        );
        let conditions = new.pointer("/status/conditions").cloned().unwrap_or_else(|| json!([]));
        let mut status = json!({"observedGeneration": generation, "terminatingReplicas": 0, "conditions": conditions});
        for (field, value) in [
            ("replicas", total),
            ("updatedReplicas", updated),
            ("readyReplicas", ready),
            ("availableReplicas", available),
            ("unavailableReplicas", (wanted.max(total) - available).max(0)),
        ] {
            if value > 0 {
                object::set(&mut status, &[field], json!(value));
            }
        }
        if let Some(conditions) = object::list_mut(&mut status, &["conditions"]) {
            let available = if enough {
                ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.".to_owned())
            } else {
                ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.".to_owned())
            };
            set_condition(conditions, "Available", available, &stamp);
            set_condition(conditions, "Progressing", progressing, &stamp);
            conditions.retain(|each| text(each, "/type") != "ReplicaFailure");
            if let Some(failure) = failure {
                conditions.push(failure);
            }
        }
        object::set(new, &["status"], status);
    });
    if !done && !late {
        let left = deadline - look.now.duration_since(since).as_secs();
        look.again(key, left.clamp(1, 60) * 1_000);
    }
}

fn observed(deployment: &Value) -> bool {
    int(deployment, "/status/observedGeneration") == int(deployment, "/metadata/generation")
}

fn number_before(deployment: &Value, field: &str) -> i64 {
    int(deployment, &format!("/status/{field}")).unwrap_or(0)
}

fn set_condition(conditions: &mut Vec<Value>, kind: &str, (status, reason, message): (&str, &str, String), now: &str) {
    let same = conditions.iter().find(|each| text(each, "/type") == kind).filter(|each| {
        text(each, "/reason") == reason && text(each, "/status") == status && text(each, "/message") == message
    });
    let updated = same.map_or(now, |each| text(each, "/lastUpdateTime")).to_owned();
    put_condition(
        conditions,
        json!({"type": kind, "status": status, "reason": reason, "message": message, "lastUpdateTime": updated}),
        now,
    );
}

/// One look at a ReplicaSet.
pub(crate) fn replica_set(look: &mut Look<'_>, key: &Key) {
    let Some(set) = look.cluster.object(key).filter(|found| !object::deleting(found)) else { return };
    let wanted = usize::try_from(int(&set, "/spec/replicas").unwrap_or(1)).unwrap_or(0);
    let selector = LabelSelector::of_object(set.pointer("/spec/selector").unwrap_or(&Value::Null));
    let alive = |look: &Look<'_>| {
        pods_of(look, &set)
            .into_iter()
            .filter(|(_, pod)| {
                !object::deleting(pod)
                    && selector.selects(pod)
                    && !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
            })
            .collect::<Vec<_>>()
    };
    let pods = alive(look);
    let mut failure = None;
    for _ in pods.len()..wanted {
        let mut pod = set.pointer("/spec/template").cloned().unwrap_or_default();
        let name = format!("{}-{}", key.name, look.cluster.new_suffix(5));
        object::set(&mut pod, &["metadata", "name"], json!(name));
        object::set(&mut pod, &["metadata", "generateName"], json!(format!("{}-", key.name)));
        object::set(&mut pod, &["metadata", "ownerReferences"], owned_by(&set, "apps/v1", "ReplicaSet"));
        if let Err(error) = make_pod(look, &set, pod) {
            failure = Some(error);
            break;
        }
    }
    let mut doomed = pods;
    doomed.sort_by_key(|(_, pod)| (condition_true(pod, "Ready"), !text(pod, "/spec/nodeName").is_empty()));
    for (pod, _) in doomed.iter().take(doomed.len().saturating_sub(wanted)) {
        look.cluster.delete(pod, look.now);
    }
    let pods = alive(look);
    let ready = pods.iter().filter(|(_, pod)| condition_true(pod, "Ready")).count();
    let (stamp, count, failed) = (object::stamp(look.now), pods.len(), failure.is_some());
    look.cluster.change(key, |new| {
        let mut status = json!({"replicas": count, "observedGeneration": int(new, "/metadata/generation").unwrap_or(1), "terminatingReplicas": 0});
        for (field, value) in [("fullyLabeledReplicas", count), ("readyReplicas", ready), ("availableReplicas", ready)] {
            if value > 0 {
                object::set(&mut status, &[field], json!(value));
            }
        }
        if let Some(error) = failure {
            object::set(&mut status, &["conditions"], json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": error, "lastTransitionTime": stamp}]));
        }
        if new.get("status") != Some(&status) && !same_failure(new.get("status"), &status) {
            object::set(new, &["status"], status);
        }
    });
    if failed {
        look.again(key, 5_000);
    }
}

/// A failure that goes on is not written again for its time alone.
fn same_failure(old: Option<&Value>, new: &Value) -> bool {
    let plain = |status: &Value| {
        let mut copy = status.clone();
        if let Some(Value::Array(conditions)) = copy.get_mut("conditions") {
            for each in conditions {
                object::remove(each, &["lastTransitionTime"]);
            }
        }
        copy
    };
    old.is_some_and(|old| plain(old) == plain(new))
}
