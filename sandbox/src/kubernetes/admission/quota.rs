//! ResourceQuota and LimitRange: what a namespace uses, what a new object adds, and the defaults of containers.

use serde_json::{Map, Value, json};

use super::super::cluster::Cluster;
use super::super::object::{self, list, text};
use super::super::quantity::Quantity;
use super::super::resources::Resource;
use super::super::status::Refusal;
use super::super::store::Key;

fn sum(pod: &Value, kind: &str, name: &str) -> Option<Quantity> {
    let mut total: Option<Quantity> = None;
    for container in list(pod, "/spec/containers") {
        let amount = Quantity::parse(text(container, &format!("/resources/{kind}/{name}")));
        if let Some(amount) = amount {
            total = Some(total.map_or(amount, |sum| sum.plus(amount)));
        }
    }
    total
}

/// What one object adds to a quota entry.
fn weight(group: &str, resource: &str, object: &Value, entry: &str) -> Option<Quantity> {
    let one = Some(Quantity::of_milli(1_000, false));
    let qualified = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
    if entry == format!("count/{qualified}") {
        return one;
    }
    match (group, resource) {
        ("", "pods") => match entry {
            _ if matches!(text(object, "/status/phase"), "Succeeded" | "Failed") => None,
            "pods" => one,
            "requests.cpu" | "cpu" => sum(object, "requests", "cpu"),
            "requests.memory" | "memory" => sum(object, "requests", "memory"),
            "limits.cpu" => sum(object, "limits", "cpu"),
            "limits.memory" => sum(object, "limits", "memory"),
            _ => None,
        },
        ("", "persistentvolumeclaims") if entry == "requests.storage" => {
            Quantity::parse(text(object, "/spec/resources/requests/storage"))
        }
        ("", "services") if entry == "services.loadbalancers" => {
            one.filter(|_| text(object, "/spec/type") == "LoadBalancer")
        }
        ("", "services") if entry == "services.nodeports" => {
            one.filter(|_| matches!(text(object, "/spec/type"), "NodePort" | "LoadBalancer"))
        }
        ("", _) if entry == resource => one,
        _ => None,
    }
}

/// What a namespace uses of each entry.
pub(crate) fn usage(cluster: &Cluster, namespace: &str, hard: &Value) -> Value {
    let mut used = Map::new();
    for entry in hard.as_object().into_iter().flatten().map(|(entry, _)| entry) {
        let mut total = Quantity::of_milli(0, false);
        for (key, object) in cluster.store.all().filter(|(key, _)| key.namespace == namespace) {
            if let Some(amount) = weight(&key.group, &key.resource, object, entry) {
                total = total.plus(amount);
            }
        }
        used.insert(entry.clone(), json!(total.canonical()));
    }
    Value::Object(used)
}

/// Refuses a new object that goes beyond a quota; a dry run is refused alike but takes nothing of it.
#[expect(clippy::too_many_lines, reason = "one pass over a quota in the order of the real admission plugin")]
pub(crate) fn check(
    cluster: &mut Cluster,
    resource: &Resource,
    namespace: &str,
    new: &Value,
    dry_run: bool,
) -> Result<(), Refusal> {
    let quotas: Vec<(Key, Value)> = cluster
        .store
        .list("", "resourcequotas", Some(namespace))
        .map(|(key, quota)| (key.clone(), (**quota).clone()))
        .collect();
    for (key, quota) in quotas {
        let hard = quota.pointer("/spec/hard").cloned().unwrap_or_default();
        if resource.is("", "pods") {
            let missing: Vec<&str> = ["limits.cpu", "limits.memory", "requests.cpu", "requests.memory"]
                .into_iter()
                .filter(|entry| hard.get(*entry).is_some())
                .filter(|entry| {
                    entry.split_once('.').is_some_and(|(kind, name)| {
                        list(new, "/spec/containers")
                            .iter()
                            .any(|container| container.pointer(&format!("/resources/{kind}/{name}")).is_none())
                    })
                })
                .collect();
            if !missing.is_empty() {
                let shown: Vec<String> = missing
                    .iter()
                    .map(|entry| {
                        format!(
                            "{entry} for: {}",
                            list(new, "/spec/containers")
                                .iter()
                                .map(|container| text(container, "/name"))
                                .collect::<Vec<_>>()
                                .join(",")
                        )
                    })
                    .collect();
                return Err(Refusal::forbidden(
                    resource,
                    object::name(new),
                    &format!("failed quota: {}: must specify {}", key.name, shown.join("; ")),
                ));
            }
        }
        let used = usage(cluster, namespace, &hard);
        let (mut requested, mut before, mut limited) = (Vec::new(), Vec::new(), Vec::new());
        let mut after = used.clone();
        for (entry, limit) in hard.as_object().into_iter().flatten() {
            let Some(extra) = weight(&resource.group, &resource.plural, new, entry) else { continue };
            let now = Quantity::parse(text(&used, &format!("/{}", entry.replace('/', "~1"))))
                .unwrap_or(Quantity::of_milli(0, false));
            let most = Quantity::parse(limit.as_str().unwrap_or_default()).unwrap_or(Quantity::of_milli(0, false));
            object::set(&mut after, &[entry], json!(now.plus(extra).canonical()));
            if now.milli + extra.milli > most.milli {
                requested.push(format!("{entry}={}", extra.canonical()));
                before.push(format!("{entry}={}", now.canonical()));
                limited.push(format!("{entry}={}", most.canonical()));
            }
        }
        if !requested.is_empty() {
            return Err(Refusal::forbidden(
                resource,
                object::name(new),
                &format!(
                    "exceeded quota: {}, requested: {}, used: {}, limited: {}",
                    key.name,
                    requested.join(","),
                    before.join(","),
                    limited.join(",")
                ),
            ));
        }
        if after != used && !dry_run {
            cluster.change(&key, |quota| object::set(quota, &["status"], json!({"hard": hard, "used": after})));
        }
    }
    Ok(())
}

/// Fills requests and limits of containers from the LimitRanges of a namespace.
pub(crate) fn fill_limits(cluster: &Cluster, namespace: &str, pod: &mut Value) {
    let ranges: Vec<Value> = cluster
        .store
        .list("", "limitranges", Some(namespace))
        .flat_map(|(_, range)| list(range, "/spec/limits").to_vec())
        .filter(|limit| text(limit, "/type") == "Container")
        .collect();
    for range in ranges {
        let mut notes = Vec::new();
        if let Some(Value::Array(containers)) = pod.pointer_mut("/spec/containers") {
            for container in containers {
                for (from, to, word) in [("default", "limits", "limit"), ("defaultRequest", "requests", "request")] {
                    let mut set = Vec::new();
                    for (name, value) in object::map(&range, &format!("/{from}")).cloned().unwrap_or_default() {
                        if container.pointer(&format!("/resources/{to}/{name}")).is_none() {
                            object::set(container, &["resources", to, &name], value);
                            set.push(name);
                        }
                    }
                    if !set.is_empty() {
                        notes.push((
                            word,
                            format!("{} {word} for container {}", set.join(", "), text(container, "/name")),
                        ));
                    }
                }
            }
        }
        if !notes.is_empty() {
            notes.sort_by_key(|(word, _)| std::cmp::Reverse(*word));
            let text = notes.into_iter().map(|(_, note)| note).collect::<Vec<_>>().join("; ");
            object::set(
                pod,
                &["metadata", "annotations", "kubernetes.io/limit-ranger"],
                json!(format!("LimitRanger plugin set: {text}")),
            );
        }
    }
}

/// Refuses a pod beyond the limits of a namespace.
pub(crate) fn check_limits(
    cluster: &Cluster,
    resource: &Resource,
    namespace: &str,
    pod: &Value,
) -> Result<(), Refusal> {
    let mut problems = Vec::new();
    for (_, range) in cluster.store.list("", "limitranges", Some(namespace)) {
        for limit in list(range, "/spec/limits").iter().filter(|limit| text(limit, "/type") == "Container") {
            for container in list(pod, "/spec/containers") {
                for (name, most) in object::map(limit, "/max").into_iter().flatten() {
                    let (Some(given), Some(most)) = (
                        Quantity::parse(text(container, &format!("/resources/limits/{name}"))),
                        Quantity::parse(most.as_str().unwrap_or_default()),
                    ) else {
                        continue;
                    };
                    if given.milli > most.milli {
                        problems.push(format!(
                            "maximum {name} usage per Container is {}, but limit is {}",
                            most.canonical(),
                            given.canonical()
                        ));
                    }
                }
                for (name, least) in object::map(limit, "/min").into_iter().flatten() {
                    let (Some(given), Some(least)) = (
                        Quantity::parse(text(container, &format!("/resources/requests/{name}"))),
                        Quantity::parse(least.as_str().unwrap_or_default()),
                    ) else {
                        continue;
                    };
                    if given.milli < least.milli {
                        problems.push(format!(
                            "minimum {name} usage per Container is {}, but request is {}",
                            least.canonical(),
                            given.canonical()
                        ));
                    }
                }
            }
        }
    }
    match problems.as_slice() {
        [] => Ok(()),
        [only] => Err(Refusal::forbidden(resource, object::name(pod), only)),
        many => Err(Refusal::forbidden(resource, object::name(pod), &format!("[{}]", many.join(", ")))),
    }
}
