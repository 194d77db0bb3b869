//! StatefulSets, DaemonSets and Jobs.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::object::{self, condition_true, int, list, put_condition, text};
use super::super::store::Key;
use super::workloads::{make_pod, owned_by, pods_of, template_hash};
use super::{Look, all, schedule};

/// One look at a StatefulSet.
pub(crate) fn stateful_set(look: &mut Look<'_>, key: &Key) {
    let Some(set) = look.cluster.object(key).filter(|found| !object::deleting(found)) else { return };
    let wanted = int(&set, "/spec/replicas").unwrap_or(1);
    let template = set.pointer("/spec/template").cloned().unwrap_or_default();
    let revision = format!("{}-{}", key.name, template_hash(&template));
    let parallel = text(&set, "/spec/podManagementPolicy") == "Parallel";
    let pods = pods_of(look, &set);
    let ordinal = |name: &str| name.strip_prefix(&format!("{}-", key.name)).and_then(|rest| rest.parse::<i64>().ok());
    let mut failed = false;
    for index in 0..wanted {
        let name = format!("{}-{index}", key.name);
        match pods.iter().find(|(pod, _)| pod.name == name) {
            // A pod that waits for a node may have lost its claim: it is made anew.
            Some((_, pod)) if text(pod, "/spec/nodeName").is_empty() => {
                make_claims(look, &set, &name);
                if !parallel {
                    break;
                }
            }
            Some((_, pod)) if !condition_true(pod, "Ready") && !parallel => break,
            Some(_) => {}
            None => {
                make_claims(look, &set, &name);
                failed |= make_pod(look, &set, member(&set, &template, &name, index, &revision)).is_err();
                if !parallel {
                    break;
                }
            }
        }
    }
    let mut extra: Vec<&(Key, Arc<Value>)> = pods
        .iter()
        .filter(|(pod, found)| ordinal(&pod.name).is_some_and(|index| index >= wanted) && !object::deleting(found))
        .collect();
    extra.sort_by_key(|(pod, _)| std::cmp::Reverse(ordinal(&pod.name)));
    for (pod, _) in extra.into_iter().take(if parallel { usize::MAX } else { 1 }) {
        look.cluster.delete(pod, look.now);
    }
    roll(look, &set, &pods, &revision);
    report_stateful(look, key, &set, &revision);
    if failed {
        look.poll(key, 5_000);
    }
}

/// Replaces the highest pod of an old revision once all others are ready.
fn roll(look: &mut Look<'_>, set: &Value, pods: &[(Key, Arc<Value>)], revision: &str) {
    if text(set, "/spec/updateStrategy/type") != "RollingUpdate" || pods.iter().any(|(_, pod)| object::deleting(pod)) {
        return;
    }
    let mut old: Vec<&(Key, Arc<Value>)> =
        pods.iter().filter(|(_, pod)| object::label(pod, "controller-revision-hash") != Some(revision)).collect();
    old.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    let fresh_ready = pods
        .iter()
        .filter(|(_, pod)| object::label(pod, "controller-revision-hash") == Some(revision))
        .all(|(_, pod)| condition_true(pod, "Ready"));
    if let Some((last, _)) = old.last().filter(|_| fresh_ready) {
        look.cluster.delete(last, look.now);
    }
}

fn member(set: &Value, template: &Value, name: &str, index: i64, revision: &str) -> Value {
    let mut pod = template.clone();
    object::set(&mut pod, &["metadata", "name"], json!(name));
    object::set(&mut pod, &["metadata", "generateName"], json!(format!("{}-", object::name(set))));
    object::set(&mut pod, &["metadata", "ownerReferences"], owned_by(set, "apps/v1", "StatefulSet"));
    for (key, value) in [
        ("controller-revision-hash", revision.to_owned()),
        ("statefulset.kubernetes.io/pod-name", name.to_owned()),
        ("apps.kubernetes.io/pod-index", index.to_string()),
    ] {
        object::set(&mut pod, &["metadata", "labels", key], json!(value));
    }
    object::set(&mut pod, &["spec", "hostname"], json!(name));
    object::set(&mut pod, &["spec", "subdomain"], json!(text(set, "/spec/serviceName")));
    for claim in list(set, "/spec/volumeClaimTemplates") {
        let volume = object::name(claim).to_owned();
        if let Some(volumes) = object::list_mut(&mut pod, &["spec", "volumes"]) {
            volumes.retain(|each| text(each, "/name") != volume);
            volumes.push(json!({"name": volume, "persistentVolumeClaim": {"claimName": format!("{volume}-{name}")}}));
        }
    }
    pod
}

fn make_claims(look: &mut Look<'_>, set: &Value, pod: &str) {
    for template in list(set, "/spec/volumeClaimTemplates") {
        let mut claim = template.clone();
        let name = format!("{}-{pod}", object::name(template));
        object::set(&mut claim, &["metadata", "name"], json!(name));
        object::set(&mut claim, &["metadata", "namespace"], json!(object::namespace(set)));
        object::set(&mut claim, &["metadata", "finalizers"], json!(["kubernetes.io/pvc-protection"]));
        if let Some(labels) = set.pointer("/spec/selector/matchLabels").and_then(Value::as_object) {
            for (key, value) in labels {
                object::default_to(&mut claim, &["metadata", "labels", key], value.clone());
            }
        }
        object::remove(&mut claim, &["status"]);
        super::storage::default_class(look.cluster, &mut claim);
        look.cluster.make("persistentvolumeclaims", "", claim, look.now);
    }
}

fn report_stateful(look: &mut Look<'_>, key: &Key, set: &Value, revision: &str) {
    let pods = pods_of(look, set);
    let count = pods.len();
    let ready = pods.iter().filter(|(_, pod)| condition_true(pod, "Ready")).count();
    let updated =
        pods.iter().filter(|(_, pod)| object::label(pod, "controller-revision-hash") == Some(revision)).count();
    look.cluster.change(key, |new| {
        let generation = int(new, "/metadata/generation").unwrap_or(1);
        let wanted = usize::try_from(int(new, "/spec/replicas").unwrap_or(1)).unwrap_or(0);
        let before = text(new, "/status/currentRevision").to_owned();
        let current = if before.is_empty() || updated >= wanted && ready >= wanted { revision.to_owned() } else { before };
        let mut status = json!({"observedGeneration": generation, "replicas": count, "availableReplicas": ready, "currentRevision": current, "updateRevision": revision, "collisionCount": 0});
        for (field, value) in [("readyReplicas", ready), ("currentReplicas", if current == revision { updated } else { count - updated }), ("updatedReplicas", updated)] {
            if value > 0 {
                object::set(&mut status, &[field], json!(value));
            }
        }
        object::set(new, &["status"], status);
    });
}

/// One look at a DaemonSet.
pub(crate) fn daemon_set(look: &mut Look<'_>, key: &Key) {
    let Some(set) = look.cluster.object(key).filter(|found| !object::deleting(found)) else { return };
    let template = set.pointer("/spec/template").cloned().unwrap_or_default();
    let hash = template_hash(&template);
    let pods = pods_of(look, &set);
    let mut wanted = 0_i64;
    for (node, found) in all(look.cluster, "", "nodes", None) {
        let fits = schedule::tolerates(&template, &found, true) && schedule::selected(&template, &found);
        let here = pods.iter().find(|(_, pod)| text(pod, "/spec/nodeName") == node.name);
        if !fits {
            if let Some((pod, _)) = here {
                look.cluster.delete(pod, look.now);
            }
            continue;
        }
        wanted += 1;
        match here {
            None => {
                let mut pod = template.clone();
                let name = format!("{}-{}", key.name, look.cluster.new_suffix(5));
                object::set(&mut pod, &["metadata", "name"], json!(name));
                object::set(&mut pod, &["metadata", "generateName"], json!(format!("{}-", key.name)));
                object::set(&mut pod, &["metadata", "ownerReferences"], owned_by(&set, "apps/v1", "DaemonSet"));
                object::set(&mut pod, &["metadata", "labels", "controller-revision-hash"], json!(hash));
                object::set(&mut pod, &["spec", "nodeName"], json!(node.name));
                if make_pod(look, &set, pod).is_err() {
                    look.poll(key, 5_000);
                }
            }
            Some((pod, found))
                if object::label(found, "controller-revision-hash") != Some(&hash) && !object::deleting(found) =>
            {
                look.cluster.delete(pod, look.now)
            }
            Some(_) => {}
        }
    }
    let pods = pods_of(look, &set);
    let ready = i64::try_from(pods.iter().filter(|(_, pod)| condition_true(pod, "Ready")).count()).unwrap_or(0);
    let current = i64::try_from(pods.len()).unwrap_or(0);
    look.cluster.change(key, |new| {
        let mut status = json!({"currentNumberScheduled": current, "numberMisscheduled": 0, "desiredNumberScheduled": wanted, "numberReady": ready, "observedGeneration": int(new, "/metadata/generation").unwrap_or(1)});
        for (field, value) in [("updatedNumberScheduled", current), ("numberAvailable", ready), ("numberUnavailable", wanted - ready)] {
            if value > 0 {
                object::set(&mut status, &[field], json!(value));
            }
        }
        object::set(new, &["status"], status);
    });
}

/// One look at a Job.
pub(crate) fn job(look: &mut Look<'_>, key: &Key) {
    let Some(job) = look.cluster.object(key).filter(|found| !object::deleting(found)) else { return };
    if condition_true(&job, "Complete") || condition_true(&job, "Failed") || object::flag(&job, "/spec/suspend") {
        return;
    }
    let pods = pods_of(look, &job);
    let phase = |wanted: &str| {
        i64::try_from(pods.iter().filter(|(_, pod)| text(pod, "/status/phase") == wanted).count()).unwrap_or(0)
    };
    let (succeeded, failed) = (phase("Succeeded"), phase("Failed"));
    let active = i64::try_from(pods.len()).unwrap_or(0) - succeeded - failed;
    let completions = int(&job, "/spec/completions").unwrap_or(1);
    let limit = int(&job, "/spec/backoffLimit").unwrap_or(6);
    let stamp = object::stamp(look.now);
    let good = succeeded >= completions;
    let bad = failed > limit;
    let announced = condition_true(&job, "SuccessCriteriaMet") || condition_true(&job, "FailureTarget");
    if !good && !bad {
        let wanted = int(&job, "/spec/parallelism").unwrap_or(1).min(completions - succeeded);
        for _ in active..wanted {
            let mut pod = job.pointer("/spec/template").cloned().unwrap_or_default();
            let name = format!("{}-{}", key.name, look.cluster.new_suffix(5));
            object::set(&mut pod, &["metadata", "name"], json!(name));
            object::set(&mut pod, &["metadata", "generateName"], json!(format!("{}-", key.name)));
            object::set(&mut pod, &["metadata", "ownerReferences"], owned_by(&job, "batch/v1", "Job"));
            if make_pod(look, &job, pod).is_err() {
                look.poll(key, 5_000);
            }
        }
    }
    let active = if good || bad {
        0
    } else {
        active.max(int(&job, "/spec/parallelism").unwrap_or(1).min(completions - succeeded))
    };
    look.cluster.change(key, |new| {
        object::default_to(new, &["status", "startTime"], json!(stamp));
        let mut status = json!({"startTime": text(new, "/status/startTime"), "ready": 0, "terminating": 0, "uncountedTerminatedPods": {}});
        for (field, value) in [("active", active), ("succeeded", succeeded), ("failed", failed)] {
            if value > 0 {
                object::set(&mut status, &[field], json!(value));
            }
        }
        let mut conditions = list(new, "/status/conditions").to_vec();
        let mut add = |kind: &str, reason: &str, message: &str| put_condition(&mut conditions, json!({"type": kind, "status": "True", "lastProbeTime": stamp, "reason": reason, "message": message}), &stamp);
        if good {
            add("SuccessCriteriaMet", "CompletionsReached", "Reached expected number of succeeded pods");
            if announced {
                add("Complete", "CompletionsReached", "Reached expected number of succeeded pods");
                object::set(&mut status, &["completionTime"], json!(stamp));
            }
        } else if bad {
            add("FailureTarget", "BackoffLimitExceeded", "Job has reached the specified backoff limit");
            if announced {
                add("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit");
            }
        }
        if !conditions.is_empty() {
            object::set(&mut status, &["conditions"], Value::Array(conditions));
        }
        object::set(new, &["status"], status);
    });
    if good || bad {
        look.again(key, 50);
    }
}
