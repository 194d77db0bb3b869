//! Services: endpoints that follow ready pods, and load balancers; disruption budgets and quotas that follow what they count.

use serde_json::{Value, json};

use super::super::admission::quota;
use super::super::object::{self, condition_true, int, list, put_condition, text};
use super::super::selectors::{LabelSelector, plain_selector_matches};
use super::super::store::Key;
use super::{Look, all, garbage};

const CLEANUP: &str = "service.kubernetes.io/load-balancer-cleanup";

/// When the endpoints of a slice changed last.
const TRIGGERED: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// One look at a Service.
pub(crate) fn service(look: &mut Look<'_>, key: &Key) {
    let Some(service) = look.cluster.object(key) else {
        look.cluster.store.delete(&Key::core("endpoints", &key.namespace, &key.name));
        return;
    };
    let cluster = look.cluster.name();
    if object::deleting(&service) {
        look.outside.delete_load_balancer(&cluster, &key.namespace, &key.name);
        garbage::release(look, key, CLEANUP);
        return;
    }
    if text(&service, "/spec/type") == "LoadBalancer" && list(&service, "/status/loadBalancer/ingress").is_empty() {
        let host = look.outside.create_load_balancer(&cluster, &key.namespace, &key.name);
        look.cluster.change(key, |new| {
            if let Some(finalizers) = object::list_mut(new, &["metadata", "finalizers"]) {
                finalizers.push(json!(CLEANUP));
            }
            object::set(new, &["status", "loadBalancer", "ingress"], json!([{"hostname": host}]));
        });
    }
    endpoints(look, key, &service);
}

fn endpoints(look: &mut Look<'_>, key: &Key, service: &Value) {
    let Some(selector) = object::map(service, "/spec/selector") else { return };
    let publish = object::flag(service, "/spec/publishNotReadyAddresses");
    let (mut ready, mut waiting, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    for (pod, found) in all(look.cluster, "", "pods", Some(&key.namespace)) {
        let address = text(&found, "/status/podIP");
        if address.is_empty()
            || matches!(text(&found, "/status/phase"), "Succeeded" | "Failed")
            || !plain_selector_matches(Some(selector), object::map(&found, "/metadata/labels"))
        {
            continue;
        }
        let good = condition_true(&found, "Ready") || publish;
        let target = json!({"kind": "Pod", "namespace": key.namespace, "name": pod.name, "uid": object::uid(&found)});
        let mut end = json!({"addresses": [address], "conditions": {"ready": good, "serving": good, "terminating": object::deleting(&found)}, "nodeName": text(&found, "/spec/nodeName"), "targetRef": target});
        let home = look.cluster.object(&Key::core("nodes", "", text(&found, "/spec/nodeName")));
        if let Some(zone) = home.as_ref().and_then(|home| object::label(home, "topology.kubernetes.io/zone")) {
            object::set(&mut end, &["zone"], json!(zone));
        }
        rows.push(end);
        let row = json!({"ip": address, "nodeName": text(&found, "/spec/nodeName"), "targetRef": target});
        if good { ready.push(row) } else { waiting.push(row) }
    }
    let ports: Vec<Value> = list(service, "/spec/ports").iter().map(|port| json!({"name": text(port, "/name"), "port": port.get("targetPort").filter(|target| target.is_i64()).or_else(|| port.get("port")), "protocol": text(port, "/protocol")})).collect();
    let mut subset = json!({"ports": ports});
    for (field, found) in [("addresses", &ready), ("notReadyAddresses", &waiting)] {
        if !found.is_empty() {
            object::set(&mut subset, &[field], json!(found));
        }
    }
    let subsets = if ready.is_empty() && waiting.is_empty() { json!([]) } else { json!([subset]) };
    let own = Key::core("endpoints", &key.namespace, &key.name);
    look.cluster.make("endpoints", "", json!({"metadata": {"name": key.name, "namespace": key.namespace}}), look.now);
    look.cluster.change(&own, |new| object::set(new, &["subsets"], subsets));
    slice(look, key, service, &rows, &ports);
}

fn slice(look: &mut Look<'_>, key: &Key, service: &Value, rows: &[Value], ports: &[Value]) {
    let found = all(look.cluster, "discovery.k8s.io", "endpointslices", Some(&key.namespace))
        .into_iter()
        .find(|(_, slice)| object::label(slice, "kubernetes.io/service-name") == Some(&key.name))
        .map(|(slice, _)| slice);
    let own = match found {
        Some(own) => own,
        None => {
            let name = format!("{}-{}", key.name, look.cluster.new_suffix(5));
            let new = json!({
                "metadata": {"name": name, "generateName": format!("{}-", key.name), "namespace": key.namespace, "labels": {"kubernetes.io/service-name": key.name, "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"},
                    "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": key.name, "uid": object::uid(service), "controller": true, "blockOwnerDeletion": true}]},
                "addressType": "IPv4", "endpoints": null, "ports": null,
            });
            look.cluster.make("endpointslices", "discovery.k8s.io", new, look.now);
            Key::new("discovery.k8s.io", "endpointslices", &key.namespace, &name)
        }
    };
    let now = object::stamp(look.now);
    look.cluster.change(&own, |new| {
        // What is empty is written as null, and then there are no ports to speak of.
        let (ends, ports) = if rows.is_empty() { (Value::Null, Value::Null) } else { (json!(rows), json!(ports)) };
        let noted = object::annotation(new, TRIGGERED).is_some();
        if noted && new.get("endpoints") == Some(&ends) && new.get("ports") == Some(&ports) {
            return;
        }
        let generation = int(new, "/metadata/generation").map_or(1, |before| before + 1);
        object::set(new, &["metadata", "generation"], json!(generation));
        object::set(new, &["metadata", "annotations", TRIGGERED], json!(now));
        object::set(new, &["endpoints"], ends);
        object::set(new, &["ports"], ports);
    });
}

/// One look at a disruption budget.
pub(crate) fn budget(look: &mut Look<'_>, key: &Key) {
    let Some(budget) = look.cluster.object(key).filter(|found| !object::deleting(found)) else { return };
    let selector = LabelSelector::of_object(budget.pointer("/spec/selector").unwrap_or(&Value::Null));
    let pods: Vec<_> = all(look.cluster, "", "pods", Some(&key.namespace))
        .into_iter()
        .filter(|(_, pod)| selector.selects(pod))
        .collect();
    let expected = i64::try_from(pods.len()).unwrap_or(0);
    let healthy =
        i64::try_from(pods.iter().filter(|(_, pod)| condition_true(pod, "Ready") && !object::deleting(pod)).count())
            .unwrap_or(0);
    let share = |value: &Value| match value {
        Value::String(text) => (text.trim_end_matches('%').parse::<i64>().unwrap_or(0) * expected + 99) / 100,
        other => other.as_i64().unwrap_or(0),
    };
    let desired = match (budget.pointer("/spec/minAvailable"), budget.pointer("/spec/maxUnavailable")) {
        (Some(least), _) => share(least),
        (None, Some(most)) => (expected - share(most)).max(0),
        (None, None) => 0,
    };
    let allowed = (healthy - desired).max(0);
    let now = object::stamp(look.now);
    look.cluster.change(key, |new| {
        let mut conditions = list(new, "/status/conditions").to_vec();
        let generation = int(new, "/metadata/generation").unwrap_or(1);
        let (status, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
        put_condition(&mut conditions, json!({"type": "DisruptionAllowed", "status": status, "reason": reason, "message": "", "observedGeneration": generation}), &now);
        object::set(new, &["status"], json!({"observedGeneration": generation, "disruptionsAllowed": allowed, "currentHealthy": healthy, "desiredHealthy": desired, "expectedPods": expected, "conditions": conditions}));
    });
}

/// One look at a quota: `used` comes down here, it went up at admission.
pub(crate) fn resource_quota(look: &mut Look<'_>, key: &Key) {
    let Some(found) = look.cluster.object(key).filter(|found| !object::deleting(found)) else { return };
    let hard = found.pointer("/spec/hard").cloned().unwrap_or_else(|| json!({}));
    let used = quota::usage(look.cluster, &key.namespace, &hard);
    look.cluster.change(key, |new| object::set(new, &["status"], json!({"hard": hard, "used": used})));
}
