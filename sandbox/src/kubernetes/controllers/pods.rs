//! The kubelet's part of a pod's life: image pull, running, ready, completed, confirmed deletion; and what makes a Vault pod special.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::model::VaultPod;
use super::super::network;
use super::super::object::{self, annotation, label, list, put_condition, text};
use super::super::queue::Beyond;
use super::super::selectors::plain_selector_matches;
use super::super::store::Key;
use super::Look;
use super::schedule;

/// Simulated time from scheduling to running: image pull and start.
const START_S: i64 = 4;
/// From running to ready.
const READY_S: i64 = 3;
/// From a deletion to its confirmation: containers that heed the signal.
const STOP_MS: i64 = 300;

/// From the confirmation to being gone.
const GONE_MS: i64 = 60;

/// How often the probe of a Vault pod runs.
const PROBE_MS: i64 = 5_000;

/// One look at a pod.
pub(crate) fn look(look: &mut Look<'_>, key: &Key) {
    let Some(pod) = look.cluster.object(key) else {
        stop_vault(look, key);
        return;
    };
    let phase = text(&pod, "/status/phase");
    if object::deleting(&pod) {
        stop(look, key, &pod);
    } else if text(&pod, "/spec/nodeName").is_empty() {
        schedule::look(look, key, &pod);
    } else if phase == "Pending" {
        start(look, key, &pod);
    } else if phase == "Running" {
        run(look, key, &pod);
    }
}

/// A pod ends: its kubelet stops the containers, confirms with a grace of 0, and then it is gone.
fn stop(look: &mut Look<'_>, key: &Key, pod: &Value) {
    let grace = object::int(pod, "/metadata/deletionGracePeriodSeconds").unwrap_or(0);
    let begun = object::time_at(pod, "/metadata/deletionTimestamp")
        .and_then(|ends| ends.checked_sub(jiff::SignedDuration::from_secs(grace)).ok());
    let age = begun.map_or(STOP_MS, |begun| i64::try_from(look.now.duration_since(begun).as_millis()).unwrap_or(0));
    let runs = matches!(text(pod, "/status/phase"), "Running" | "Pending") && grace > 0;
    // Times have no fractions: a pod that was marked in this second may be as old as a second, or new.
    if runs && age < 1_000 + STOP_MS {
        look.again(key, (1_000 + STOP_MS - age).max(1));
        return;
    }
    if runs {
        let now = object::stamp(look.now);
        look.cluster.change(key, |new| {
            object::set(new, &["metadata", "deletionTimestamp"], json!(now));
            object::set(new, &["metadata", "deletionGracePeriodSeconds"], json!(0));
        });
        look.again(key, GONE_MS);
        return;
    }
    if list(pod, "/metadata/finalizers").is_empty() {
        stop_vault(look, key);
        look.cluster.store.delete(key);
    }
}

fn behaviour(pod: &Value) -> &str {
    annotation(pod, "sandbox.platflow/behaviour").or_else(|| annotation(pod, "fake/behaviour")).unwrap_or_default()
}

fn seconds_since(look: &Look<'_>, pod: &Value, condition: &str) -> i64 {
    object::condition(pod, condition)
        .and_then(|found| object::time_at(found, "/lastTransitionTime"))
        .map_or(0, |since| look.now.duration_since(since).as_secs())
}

fn start(look: &mut Look<'_>, key: &Key, pod: &Arc<Value>) {
    if object::condition(pod, "PodScheduled").is_none() {
        let now = object::stamp(look.now);
        look.cluster.change(key, |new| set_conditions(new, &[("PodScheduled", true, "")], &now));
    }
    let Some(pod) = look.cluster.object(key) else { return };
    let age = seconds_since(look, &pod, "PodScheduled");
    if age < START_S {
        look.again(key, (START_S - age) * 1_000);
        return;
    }
    if let Some(missing) = missing_volume(look, &pod) {
        let now = object::stamp(look.now);
        look.cluster.change(key, |new| {
            let statuses = container_statuses(
                new,
                &json!({"waiting": {"reason": "ContainerCreating", "message": missing}}),
                false,
                false,
            );
            object::set(new, &["status", "containerStatuses"], statuses);
            set_conditions(
                new,
                &[("ContainersReady", false, "ContainersNotReady"), ("Ready", false, "ContainersNotReady")],
                &now,
            );
        });
        look.poll(key, 2_000);
        return;
    }
    let address = look.cluster.new_address("10.0");
    let host = look
        .cluster
        .object(&Key::core("nodes", "", text(&pod, "/spec/nodeName")))
        .map(|node| text(&node, "/status/addresses/0/address").to_owned())
        .unwrap_or_default();
    let now = object::stamp(look.now);
    look.cluster.change(key, |new| {
        object::set(new, &["status", "phase"], json!("Running"));
        object::set(new, &["status", "startTime"], json!(now));
        object::set(new, &["status", "podIP"], json!(address));
        object::set(new, &["status", "podIPs"], json!([{"ip": address}]));
        object::set(new, &["status", "hostIP"], json!(host));
        object::set(new, &["status", "hostIPs"], json!([{"ip": host}]));
        let statuses = container_statuses(new, &json!({"running": {"startedAt": now}}), false, true);
        object::set(new, &["status", "containerStatuses"], statuses);
        set_conditions(
            new,
            &[
                ("PodReadyToStartContainers", true, ""),
                ("Initialized", true, ""),
                ("Ready", false, "ContainersNotReady"),
                ("ContainersReady", false, "ContainersNotReady"),
                ("PodScheduled", true, ""),
            ],
            &now,
        );
    });
    if let Some(pod) = look.cluster.object(key) {
        start_vault(look, key, &pod);
    }
}

fn missing_volume(look: &Look<'_>, pod: &Value) -> Option<String> {
    let namespace = object::namespace(pod);
    for volume in list(pod, "/spec/volumes") {
        for (kind, name, optional) in [
            ("secrets", text(volume, "/secret/secretName"), object::flag(volume, "/secret/optional")),
            ("configmaps", text(volume, "/configMap/name"), object::flag(volume, "/configMap/optional")),
        ] {
            if !name.is_empty() && !optional && look.cluster.object(&Key::core(kind, namespace, name)).is_none() {
                return Some(format!(
                    "MountVolume.SetUp failed for volume \"{}\" : {} \"{name}\" not found",
                    text(volume, "/name"),
                    kind.trim_end_matches('s')
                ));
            }
        }
    }
    None
}

fn container_statuses(pod: &Value, state: &Value, ready: bool, started: bool) -> Value {
    let rows: Vec<Value> = list(pod, "/spec/containers")
        .iter()
        .map(|container| {
            let (name, image) = (text(container, "/name"), text(container, "/image"));
            json!({"name": name, "image": image, "imageID": "", "ready": ready, "started": started, "restartCount": 0, "state": state, "lastState": {}})
        })
        .collect();
    Value::Array(rows)
}

fn set_conditions(pod: &mut Value, rows: &[(&str, bool, &str)], now: &str) {
    let generation = object::int(pod, "/metadata/generation").unwrap_or(1);
    if let Some(conditions) = object::list_mut(pod, &["status", "conditions"]) {
        for (kind, good, reason) in rows {
            let mut row = json!({"type": kind, "status": if *good { "True" } else { "False" }, "lastProbeTime": null, "observedGeneration": generation});
            if !reason.is_empty() {
                object::set(&mut row, &["reason"], json!(reason));
            }
            put_condition(conditions, row, now);
        }
    }
}

fn run(look: &mut Look<'_>, key: &Key, pod: &Arc<Value>) {
    let age = object::time_at(pod, "/status/startTime").map_or(0, |since| look.now.duration_since(since).as_secs());
    if age < READY_S {
        look.again(key, (READY_S - age) * 1_000);
        return;
    }
    let job = list(pod, "/metadata/ownerReferences").iter().any(|owner| text(owner, "/kind") == "Job")
        || text(pod, "/spec/restartPolicy") == "Never" && behaviour(pod) == "succeed";
    if job {
        complete(look, key, behaviour(pod) != "fail");
        return;
    }
    let storage = vault_of(look, key, pod).map(|vault| vault.storage_id);
    let ready = match &storage {
        Some(storage) => look.outside.vault_pod_ready(storage),
        None => behaviour(pod) != "never-ready" && network::lacks(look.cluster, pod).is_none(),
    };
    if !ready && storage.is_none() && behaviour(pod) != "never-ready" {
        look.poll(key, PROBE_MS);
    }
    let now = object::stamp(look.now);
    let was = object::condition_true(pod, "Ready");
    if was != ready {
        let reason = if ready { "" } else { "ContainersNotReady" };
        look.cluster.change(key, |new| {
            let started = text(new, "/status/startTime").to_owned();
            let statuses = container_statuses(new, &json!({"running": {"startedAt": started}}), ready, true);
            object::set(new, &["status", "containerStatuses"], statuses);
            set_conditions(new, &[("ContainersReady", ready, reason), ("Ready", ready, reason)], &now);
        });
    }
    if let Some(storage) = storage {
        // The processes of a restored world are told again; starting what runs changes nothing.
        if !look.cluster.vault_pods.contains_key(&key.path()) {
            start_vault(look, key, pod);
        }
        look.cluster.poll(key.clone(), look.now, PROBE_MS, Beyond::Ready(storage, ready));
    }
}

fn complete(look: &mut Look<'_>, key: &Key, good: bool) {
    let now = object::stamp(look.now);
    look.cluster.change(key, |new| {
        object::set(new, &["status", "phase"], json!(if good { "Succeeded" } else { "Failed" }));
        let state = json!({"terminated": {"exitCode": i32::from(!good), "reason": if good { "Completed" } else { "Error" }, "finishedAt": now}});
        let statuses = container_statuses(new, &state, false, false);
        object::set(new, &["status", "containerStatuses"], statuses);
        set_conditions(new, &[("PodReadyToStartContainers", false, ""), ("Ready", false, "PodCompleted"), ("ContainersReady", false, "PodCompleted")], &now);
    });
}

/// The Vault that runs in a pod: by label or image, and only under a StatefulSet.
fn vault_of(look: &Look<'_>, key: &Key, pod: &Value) -> Option<VaultPod> {
    let owner = list(pod, "/metadata/ownerReferences").iter().find(|owner| text(owner, "/kind") == "StatefulSet")?;
    let labelled = label(pod, "app.kubernetes.io/name").is_some_and(|name| matches!(name, "vault" | "openbao"));
    let pictured = list(pod, "/spec/containers").iter().any(|container| {
        let image = text(container, "/image").split(['@', ':']).next().unwrap_or_default();
        matches!(image.rsplit('/').next(), Some("vault" | "openbao" | "vault-enterprise"))
    });
    if !labelled && !pictured {
        return None;
    }
    let set = text(owner, "/name").to_owned();
    let ordinal = key.name.strip_prefix(&format!("{set}-"))?.parse().ok()?;
    let volume = list(pod, "/spec/volumes")
        .iter()
        .map(|volume| text(volume, "/persistentVolumeClaim/claimName"))
        .find(|claim| !claim.is_empty());
    let storage_id = volume
        .and_then(|claim| look.cluster.object(&Key::core("persistentvolumeclaims", &key.namespace, claim)))
        .and_then(|claim| look.cluster.object(&Key::core("persistentvolumes", "", text(&claim, "/spec/volumeName"))))
        .map(|found| text(&found, "/spec/csi/volumeHandle").to_owned())
        .filter(|handle| !handle.is_empty())
        .unwrap_or_else(|| object::uid(pod).to_owned());
    let (certificate, private) = tls_of(look, key, pod);
    let services = look
        .cluster
        .store
        .list("", "services", Some(&key.namespace))
        .filter(|(_, service)| {
            plain_selector_matches(object::map(service, "/spec/selector"), object::map(pod, "/metadata/labels"))
        })
        .map(|(service, _)| service.name.clone())
        .collect();
    Some(VaultPod {
        cluster: look.cluster.name(),
        namespace: key.namespace.clone(),
        stateful_set: set,
        ordinal,
        pod_uid: object::uid(pod).to_owned(),
        storage_id,
        certificate,
        key: private,
        services,
        image: text(list(pod, "/spec/containers").first()?, "/image").to_owned(),
        configuration: configuration_of(look, key, pod),
    })
}

/// Everything that the mounted ConfigMaps say.
fn configuration_of(look: &Look<'_>, key: &Key, pod: &Value) -> String {
    list(pod, "/spec/volumes")
        .iter()
        .map(|volume| text(volume, "/configMap/name"))
        .filter_map(|name| look.cluster.object(&Key::core("configmaps", &key.namespace, name)))
        .filter_map(|map| object::map(&map, "/data").cloned())
        .flat_map(|data| data.into_iter().filter_map(|(_, value)| value.as_str().map(str::to_owned)))
        .collect()
}

fn tls_of(look: &Look<'_>, key: &Key, pod: &Value) -> (Option<String>, Option<String>) {
    use base64::Engine as _;
    for volume in list(pod, "/spec/volumes") {
        let name = text(volume, "/secret/secretName");
        let Some(secret) = look.cluster.object(&Key::core("secrets", &key.namespace, name)) else { continue };
        let pem = |entry: &str| {
            let encoded = object::map(&secret, "/data").and_then(|data| data.get(entry)).and_then(Value::as_str)?;
            String::from_utf8(base64::engine::general_purpose::STANDARD.decode(encoded).ok()?).ok()
        };
        if let (Some(certificate), Some(private)) = (pem("tls.crt"), pem("tls.key")) {
            return (Some(certificate), Some(private));
        }
    }
    (None, None)
}

fn start_vault(look: &mut Look<'_>, key: &Key, pod: &Value) {
    if let Some(vault) = vault_of(look, key, pod) {
        look.outside.vault_pod_started(&vault);
        look.cluster.vault_pods.insert(key.path(), vault.storage_id);
    }
}

fn stop_vault(look: &mut Look<'_>, key: &Key) {
    if let Some(storage) = look.cluster.vault_pods.remove(&key.path()) {
        look.outside.vault_pod_stopped(&storage);
    }
}
