//! Deployments and ReplicaSets: roll-outs step by step, with the conditions that clients wait for.

use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::super::object::{self, condition_true, int, list, text};
use super::super::selectors::LabelSelector;
use super::super::store::Key;
use super::events::{Said, say};
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
    let old: Vec<&(Key, Arc<Value>)> = sets.iter().filter(|(set, _)| *set != current_key).collect();
    let size = |set: &Value| int(set, "/spec/replicas").unwrap_or(0);
    let ready = |set: &Value| int(set, "/status/readyReplicas").unwrap_or(0);
    let old_total: i64 = old.iter().map(|(_, set)| size(set)).sum();
    let old_live: i64 = old.iter().map(|(_, set)| int(set, "/status/replicas").unwrap_or(0)).sum();
    let current = look.cluster.object(&current_key);
    let current_size = current.as_ref().map_or(0, |current| size(current));
    let target = if old_total == 0 && (!recreate || old_live == 0) {
        replicas
    } else if recreate {
        0
    } else {
        (replicas + surge - old_total).clamp(current_size.min(replicas), replicas)
    };
    let current = match current {
        Some(current) => current,
        None => {
            // It is made in the size that it is to have, and the Deployment says so before anything else happens.
            new_replica_set(look, &deployment, &hash, &sets, target, replicas + surge);
            let Some(current) = look.cluster.object(&current_key) else { return };
            announce(look, key, &current);
            if current_size != target {
                let message = format!("Scaled up replica set {} from 0 to {target}", current_key.name);
                let said = Said { reason: "ScalingReplicaSet", message: &message, component: "deployment-controller" };
                say(look, key, &said);
            }
            look.again(key, ANNOUNCED_MS);
            return;
        }
    };
    let Some(deployment) = look.cluster.object(key) else { return };
    if current_size != target {
        let verb = if current_size < target { "up" } else { "down" };
        let message = format!("Scaled {verb} replica set {} from {current_size} to {target}", current_key.name);
        say(look, key, &Said { reason: "ScalingReplicaSet", message: &message, component: "deployment-controller" });
    }
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
    // One that is empty is left as it is, with the numbers of its own time.
    for (set_key, set) in old.into_iter().filter(|(_, set)| size(set) > 0) {
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

/// From saying that there is a new ReplicaSet to the first status that counts it.
const ANNOUNCED_MS: i64 = 40;

/// The condition that a new ReplicaSet was made.
fn announce(look: &mut Look<'_>, key: &Key, current: &Value) {
    let (stamp, revision) = (object::stamp(look.now), revision(current));
    let message = format!("Created new replica set \"{}\"", object::name(current));
    look.cluster.change(key, |new| {
        object::set(
            new,
            &["metadata", "annotations", "deployment.kubernetes.io/revision"],
            json!(revision.to_string()),
        );
        if let Some(conditions) = object::list_mut(new, &["status", "conditions"]) {
            set_condition(conditions, "Progressing", ("True", "NewReplicaSetCreated", message), &stamp);
        }
    });
}

fn new_replica_set(
    look: &mut Look<'_>,
    deployment: &Value,
    hash: &str,
    sets: &[(Key, Arc<Value>)],
    target: i64,
    most: i64,
) {
    let next = sets.iter().map(|(_, set)| revision(set)).max().unwrap_or(0) + 1;
    let mut template = deployment.pointer("/spec/template").cloned().unwrap_or_default();
    object::set(&mut template, &["metadata", "labels", "pod-template-hash"], json!(hash));
    let mut selector = deployment.pointer("/spec/selector").cloned().unwrap_or_default();
    object::set(&mut selector, &["matchLabels", "pod-template-hash"], json!(hash));
    let labels = template.pointer("/metadata/labels").cloned().unwrap_or_default();
    let set = json!({
        "metadata": {"name": format!("{}-{hash}", object::name(deployment)), "namespace": object::namespace(deployment), "labels": labels, "ownerReferences": owned_by(deployment, "apps/v1", "Deployment"),
            "annotations": {"deployment.kubernetes.io/desired-replicas": int(deployment, "/spec/replicas").unwrap_or(1).to_string(), "deployment.kubernetes.io/max-replicas": most.to_string(), "deployment.kubernetes.io/revision": next.to_string()}},
        "spec": {"replicas": target, "selector": selector, "template": template},
    });
    look.cluster.make("replicasets", "apps", set, look.now);
}

/// What the status of a Deployment counts.
struct Counts {
    wanted: i64,
    /// Pods that the ReplicaSets are to have.
    sized: i64,
    total: i64,
    updated: i64,
    ready: i64,
    available: i64,
    terminating: i64,
}

fn counts(look: &Look<'_>, key: &Key, current: &Value, deployment: &Value) -> Counts {
    let number = |set: &Value, field: &str| int(set, &format!("/status/{field}")).unwrap_or(0);
    let uid = object::uid(deployment);
    let sets: Vec<Arc<Value>> = all(look.cluster, "apps", "replicasets", Some(&key.namespace))
        .into_iter()
        .map(|(_, set)| set)
        .filter(|set| list(set, "/metadata/ownerReferences").iter().any(|owner| text(owner, "/uid") == uid))
        .collect();
    let sum = |field: &str| sets.iter().map(|set| number(set, field)).sum::<i64>();
    Counts {
        wanted: int(deployment, "/spec/replicas").unwrap_or(1),
        sized: sets.iter().map(|set| int(set, "/spec/replicas").unwrap_or(0)).sum(),
        total: sum("replicas"),
        updated: number(current, "replicas"),
        ready: sum("readyReplicas"),
        available: sum("availableReplicas"),
        terminating: sum("terminatingReplicas"),
    }
}

fn report(look: &mut Look<'_>, key: &Key, current_key: &Key, deployment: &Value) {
    let Some(current) = look.cluster.object(current_key) else { return };
    let counts = counts(look, key, &current, deployment);
    let deadline = int(deployment, "/spec/progressDeadlineSeconds").unwrap_or(600);
    let (stamp, generation, revision) =
        (object::stamp(look.now), int(deployment, "/metadata/generation").unwrap_or(1), revision(&current));
    let mut conditions = list(deployment, "/status/conditions").to_vec();
    let least = counts.wanted
        - percent(deployment.pointer("/spec/strategy/rollingUpdate/maxUnavailable"), counts.wanted, false);
    let available = if counts.available >= least {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.".to_owned())
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.".to_owned())
    };
    set_condition(&mut conditions, "Available", available, &stamp);
    progress(&mut conditions, deployment, object::name(&current), &counts, look.now, deadline);
    conditions.retain(|each| text(each, "/type") != "ReplicaFailure");
    if let Some(mut failure) = object::condition(&current, "ReplicaFailure").cloned() {
        let since = text(&failure, "/lastTransitionTime").to_owned();
        object::set(&mut failure, &["lastUpdateTime"], json!(since));
        conditions.push(failure);
    }
    let due = conditions
        .iter()
        .find(|each| text(each, "/type") == "Progressing")
        .filter(|each| !matches!(text(each, "/reason"), "NewReplicaSetAvailable" | "ProgressDeadlineExceeded"))
        .and_then(|each| object::time_at(each, "/lastUpdateTime"))
        .map(|since| deadline + 1 - look.now.duration_since(since).as_secs());
    look.cluster.change(key, |new| {
        object::set(
            new,
            &["metadata", "annotations", "deployment.kubernetes.io/revision"],
            json!(revision.to_string()),
        );
        let mut status = json!({"observedGeneration": generation, "terminatingReplicas": counts.terminating, "conditions": conditions});
        for (field, value) in [
            ("replicas", counts.total),
            ("updatedReplicas", counts.updated),
            ("readyReplicas", counts.ready),
            ("availableReplicas", counts.available),
            ("unavailableReplicas", (counts.sized - counts.available).max(0)),
        ] {
            if value > 0 {
                object::set(&mut status, &[field], json!(value));
            }
        }
        object::set(new, &["status"], status);
    });
    if let Some(left) = due {
        look.again(key, left.clamp(1, 60) * 1_000);
    }
}

/// The Progressing condition: complete, a step further, or too long without one.
fn progress(
    conditions: &mut Vec<Value>,
    deployment: &Value,
    name: &str,
    counts: &Counts,
    now: jiff::Timestamp,
    deadline: i64,
) {
    let stamp = object::stamp(now);
    let before = |field: &str| int(deployment, &format!("/status/{field}")).unwrap_or(0);
    let current = conditions.iter().find(|each| text(each, "/type") == "Progressing").cloned();
    let reason = current.as_ref().map_or("", |current| text(current, "/reason")).to_owned();
    if counts.total == counts.updated && reason == "NewReplicaSetAvailable" {
        return;
    }
    let done = counts.updated == counts.wanted && counts.total == counts.wanted && counts.available >= counts.wanted;
    let further = counts.updated > before("updatedReplicas")
        || counts.total - counts.updated < before("replicas") - before("updatedReplicas")
        || counts.ready > before("readyReplicas")
        || counts.available > before("availableReplicas");
    if done {
        let message = format!("ReplicaSet \"{name}\" has successfully progressed.");
        set_condition(conditions, "Progressing", ("True", "NewReplicaSetAvailable", message), &stamp);
    } else if further {
        // Also where nothing else changes, the time of the last step does.
        let since = current
            .as_ref()
            .filter(|current| text(current, "/status") == "True")
            .map_or_else(|| stamp.clone(), |current| text(current, "/lastTransitionTime").to_owned());
        conditions.retain(|each| text(each, "/type") != "Progressing");
        let message = format!("ReplicaSet \"{name}\" is progressing.");
        conditions.push(json!({"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated", "message": message, "lastUpdateTime": stamp, "lastTransitionTime": since}));
    } else if current
        .as_ref()
        .and_then(|current| object::time_at(current, "/lastUpdateTime"))
        .is_some_and(|since| now.duration_since(since).as_secs() > deadline)
        && reason != "NewReplicaSetAvailable"
    {
        let message = format!("ReplicaSet \"{name}\" has timed out progressing.");
        set_condition(conditions, "Progressing", ("False", "ProgressDeadlineExceeded", message), &stamp);
    }
}

/// Sets a condition as its controller does: one that says the same stays as it is, a changed one comes last.
fn set_condition(conditions: &mut Vec<Value>, kind: &str, (status, reason, message): (&str, &str, String), now: &str) {
    let old = conditions.iter().find(|each| text(each, "/type") == kind).cloned();
    if old.as_ref().is_some_and(|old| text(old, "/status") == status && text(old, "/reason") == reason) {
        return;
    }
    let since = old
        .as_ref()
        .filter(|old| text(old, "/status") == status)
        .map_or_else(|| now.to_owned(), |old| text(old, "/lastTransitionTime").to_owned());
    conditions.retain(|each| text(each, "/type") != kind);
    conditions.push(json!({"type": kind, "status": status, "reason": reason, "message": message, "lastUpdateTime": now, "lastTransitionTime": since}));
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
        let message = format!("Created pod: {name}");
        say(look, key, &Said { reason: "SuccessfulCreate", message: &message, component: "replicaset-controller" });
    }
    let mut doomed = pods;
    doomed.sort_by_key(|(_, pod)| (condition_true(pod, "Ready"), !text(pod, "/spec/nodeName").is_empty()));
    for (pod, _) in doomed.iter().take(doomed.len().saturating_sub(wanted)) {
        look.cluster.delete(pod, look.now);
    }
    let pods = alive(look);
    let ready = pods.iter().filter(|(_, pod)| condition_true(pod, "Ready")).count();
    let going = pods_of(look, &set).iter().filter(|(_, pod)| object::deleting(pod)).count();
    let (stamp, count, failed) = (object::stamp(look.now), pods.len(), failure.is_some());
    look.cluster.change(key, |new| {
        let mut status = json!({"replicas": count, "observedGeneration": int(new, "/metadata/generation").unwrap_or(1), "terminatingReplicas": going});
        for (field, value) in [("fullyLabeledReplicas", count), ("readyReplicas", ready), ("availableReplicas", ready)] {
            if value > 0 {
                object::set(&mut status, &[field], json!(value));
            }
        }
        if let Some(error) = failure {
            // The text names a pod that will never be, another one at each try: the first of them stays.
            let before = object::condition(new, "ReplicaFailure").map(|old| text(old, "/message").to_owned());
            let error = before.unwrap_or(error);
            object::set(&mut status, &["conditions"], json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": error, "lastTransitionTime": stamp}]));
        }
        if new.get("status") != Some(&status) && !same_failure(new.get("status"), &status) {
            object::set(new, &["status"], status);
        }
    });
    if failed {
        look.poll(key, 5_000);
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
