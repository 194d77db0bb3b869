//! The columns that the server prints for each built-in kind, and how it fills them.

use std::collections::HashMap;
use std::sync::LazyLock;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::object::{self, condition_true, int, list, map, text};
use super::super::resources::Resource;
use super::age;

/// group | plural | columns after the name; a number is an integer, what follows `/` is shown by the wide form alone.
const TABLE: &str = "\
|pods|Ready Status Restarts Age / IP Node Nominated_Node Readiness_Gates
|namespaces|Status Age
|configmaps|Data Age
|secrets|Type Data Age
|serviceaccounts|Secrets Age
|services|Type Cluster-IP External-IP Port(s) Age / Selector
|nodes|Status Roles Age Version / Internal-IP External-IP OS-Image Kernel-Version Container-Runtime
|persistentvolumeclaims|Status Volume Capacity Access_Modes StorageClass VolumeAttributesClass Age / VolumeMode
|resourcequotas|Request Limit Age
apps|deployments|Ready Up-to-date Available Age / Containers Images Selector
apps|replicasets|#Desired #Current #Ready Age / Containers Images Selector
apps|statefulsets|Ready Age / Containers Images
apps|daemonsets|#Desired #Current #Ready #Up-to-date #Available Node_Selector Age / Containers Images Selector
batch|jobs|Status Completions Duration Age / Containers Images Selector
apiextensions.k8s.io|customresourcedefinitions|Created_At
storage.k8s.io|storageclasses|Provisioner ReclaimPolicy VolumeBindingMode AllowVolumeExpansion Age
networking.k8s.io|networkpolicies|Pod-Selector Age
policy|poddisruptionbudgets|Min_Available Max_Unavailable #Allowed_Disruptions Age";

/// One column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    /// Heading.
    pub(super) name: String,
    /// Type of its cells.
    pub(super) kind: &'static str,
    /// 1 for what only the wide form shows.
    pub(super) priority: i64,
}

fn columns(text: &str) -> Vec<Column> {
    let mut priority = 0;
    let mut found = Vec::new();
    for word in text.split(' ') {
        if word == "/" {
            priority = 1;
            continue;
        }
        let kind = if word.starts_with('#') {
            "integer"
        } else if word == "Created_At" {
            "date"
        } else {
            "string"
        };
        found.push(Column { name: word.trim_start_matches('#').replace('_', " "), kind, priority });
    }
    found
}

static COLUMNS: LazyLock<HashMap<(&'static str, &'static str), Vec<Column>>> = LazyLock::new(|| {
    TABLE
        .lines()
        .filter_map(|line| {
            let (group, rest) = line.split_once('|')?;
            let (plural, names) = rest.split_once('|')?;
            Some(((group, plural), columns(names)))
        })
        .collect()
});

/// The columns of a kind after its name.
pub(super) fn of(resource: &Resource) -> Vec<Column> {
    COLUMNS.get(&(resource.group.as_str(), resource.plural.as_str())).cloned().unwrap_or_else(|| columns("Age"))
}

/// The cells of an object, in the order of the columns of its kind.
pub(super) fn cells(resource: &Resource, item: &Value, now: Timestamp) -> Vec<Value> {
    let aged = object::time_at(item, "/metadata/creationTimestamp")
        .map_or_else(|| "<unknown>".to_owned(), |since| age(now.duration_since(since).as_secs()));
    of(resource).iter().map(|column| cell(resource, item, &column.name, &aged, now)).collect()
}

fn or_none(text: &str) -> Value {
    json!(if text.is_empty() { "<none>" } else { text })
}

fn joined(labels: Option<&serde_json::Map<String, Value>>) -> Value {
    let parts: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    or_none(&parts.join(","))
}

fn of_template(item: &Value, field: &str) -> Value {
    let containers = list(item, "/spec/template/spec/containers");
    let texts: Vec<&str> = containers.iter().map(|container| text(container, &format!("/{field}"))).collect();
    json!(texts.join(","))
}

fn number(item: &Value, pointer: &str) -> i64 {
    int(item, pointer).unwrap_or(0)
}

fn cell(resource: &Resource, item: &Value, name: &str, aged: &str, now: Timestamp) -> Value {
    match name {
        "Age" => return json!(aged),
        "Containers" => return of_template(item, "name"),
        "Images" => return of_template(item, "image"),
        "Selector" if resource.plural != "services" => return joined(map(item, "/spec/selector/matchLabels")),
        _ => {}
    }
    match resource.plural.as_str() {
        "pods" => pod(item, name),
        "namespaces" => json!(text(item, "/status/phase")),
        "configmaps" => json!(entries(item, "/data") + entries(item, "/binaryData")),
        "secrets" if name == "Type" => json!(text(item, "/type")),
        "secrets" => json!(entries(item, "/data")),
        "serviceaccounts" => json!(list(item, "/secrets").len()),
        "services" => service(item, name),
        "nodes" => node(item, name),
        "persistentvolumeclaims" => claim(item, name),
        "resourcequotas" => quota(item, name == "Limit"),
        "customresourcedefinitions" => json!(text(item, "/metadata/creationTimestamp")),
        "storageclasses" => storage_class(item, name),
        "networkpolicies" => joined(map(item, "/spec/podSelector/matchLabels")),
        "poddisruptionbudgets" => budget(item, name),
        "jobs" => job(item, name, now),
        _ => workload(item, name),
    }
}

fn entries(item: &Value, pointer: &str) -> usize {
    map(item, pointer).map_or(0, serde_json::Map::len)
}

fn pod(item: &Value, name: &str) -> Value {
    let statuses = list(item, "/status/containerStatuses");
    match name {
        "Ready" => {
            let ready = statuses.iter().filter(|status| object::flag(status, "/ready")).count();
            json!(format!("{ready}/{}", list(item, "/spec/containers").len()))
        }
        "Status" => {
            let waiting = statuses.iter().map(|status| text(status, "/state/waiting/reason"));
            let ended = statuses.iter().map(|status| text(status, "/state/terminated/reason"));
            let reason = waiting.chain(ended).find(|reason| !reason.is_empty());
            json!(match reason {
                _ if object::deleting(item) => "Terminating",
                Some(reason) => reason,
                None => text(item, "/status/phase"),
            })
        }
        "Restarts" => json!(statuses.iter().map(|status| number(status, "/restartCount")).sum::<i64>().to_string()),
        "IP" => or_none(text(item, "/status/podIP")),
        "Node" => or_none(text(item, "/spec/nodeName")),
        "Nominated Node" => or_none(text(item, "/status/nominatedNodeName")),
        _ => json!("<none>"),
    }
}

fn service(item: &Value, name: &str) -> Value {
    match name {
        "Type" => json!(text(item, "/spec/type")),
        "Cluster-IP" => or_none(text(item, "/spec/clusterIP")),
        "External-IP" => {
            let hosts: Vec<&str> = list(item, "/status/loadBalancer/ingress")
                .iter()
                .map(|entry| text(entry, "/hostname"))
                .filter(|host| !host.is_empty())
                .collect();
            match (text(item, "/spec/type"), hosts.is_empty()) {
                ("LoadBalancer", true) => json!("<pending>"),
                ("ExternalName", _) => json!(text(item, "/spec/externalName")),
                _ => or_none(&hosts.join(",")),
            }
        }
        "Port(s)" => {
            let ports: Vec<String> = list(item, "/spec/ports")
                .iter()
                .map(|port| {
                    let node = int(port, "/nodePort").map(|node| format!(":{node}")).unwrap_or_default();
                    format!("{}{node}/{}", number(port, "/port"), text(port, "/protocol"))
                })
                .collect();
            or_none(&ports.join(","))
        }
        _ => joined(map(item, "/spec/selector")),
    }
}

fn node(item: &Value, name: &str) -> Value {
    let address = |kind: &str| {
        let found = list(item, "/status/addresses").iter().find(|entry| text(entry, "/type") == kind);
        or_none(found.map_or("", |entry| text(entry, "/address")))
    };
    match name {
        "Status" => {
            let ready = if condition_true(item, "Ready") { "Ready" } else { "NotReady" };
            let cordoned = if object::flag(item, "/spec/unschedulable") { ",SchedulingDisabled" } else { "" };
            json!(format!("{ready}{cordoned}"))
        }
        "Version" => json!(text(item, "/status/nodeInfo/kubeletVersion")),
        "Internal-IP" => address("InternalIP"),
        "External-IP" => address("ExternalIP"),
        "OS-Image" => json!(text(item, "/status/nodeInfo/osImage")),
        "Kernel-Version" => json!(text(item, "/status/nodeInfo/kernelVersion")),
        "Container-Runtime" => json!(text(item, "/status/nodeInfo/containerRuntimeVersion")),
        _ => json!("<none>"),
    }
}

fn claim(item: &Value, name: &str) -> Value {
    match name {
        "Status" if object::deleting(item) => json!("Terminating"),
        "Status" => json!(text(item, "/status/phase")),
        "Volume" => json!(text(item, "/spec/volumeName")),
        "Capacity" => json!(text(item, "/status/capacity/storage")),
        "Access Modes" => {
            let short = |mode: &str| match mode {
                "ReadWriteOnce" => "RWO",
                "ReadOnlyMany" => "ROX",
                "ReadWriteMany" => "RWX",
                _ => "RWOP",
            };
            let modes: Vec<&str> =
                list(item, "/status/accessModes").iter().filter_map(Value::as_str).map(short).collect();
            json!(modes.join(","))
        }
        "StorageClass" => json!(text(item, "/spec/storageClassName")),
        "VolumeMode" => json!(text(item, "/spec/volumeMode")),
        _ => json!("<unset>"),
    }
}

fn quota(item: &Value, limits: bool) -> Value {
    let parts: Vec<String> = map(item, "/status/hard")
        .into_iter()
        .flatten()
        .filter(|(name, _)| name.starts_with("limits.") == limits)
        .map(|(name, hard)| {
            let used = map(item, "/status/used").and_then(|used| used.get(name)).and_then(Value::as_str);
            format!("{name}: {}/{}", used.unwrap_or("0"), hard.as_str().unwrap_or_default())
        })
        .collect();
    json!(parts.join(", "))
}

fn storage_class(item: &Value, name: &str) -> Value {
    match name {
        "Provisioner" => json!(text(item, "/provisioner")),
        "ReclaimPolicy" => json!(text(item, "/reclaimPolicy")),
        "VolumeBindingMode" => json!(text(item, "/volumeBindingMode")),
        _ => json!(object::flag(item, "/allowVolumeExpansion")),
    }
}

fn budget(item: &Value, name: &str) -> Value {
    let shown = |pointer: &str| match item.pointer(pointer) {
        Some(Value::String(text)) => json!(text),
        Some(other) => json!(other.to_string()),
        None => json!("N/A"),
    };
    match name {
        "Min Available" => shown("/spec/minAvailable"),
        "Max Unavailable" => shown("/spec/maxUnavailable"),
        _ => json!(number(item, "/status/disruptionsAllowed")),
    }
}

fn job(item: &Value, name: &str, now: Timestamp) -> Value {
    match name {
        "Status" => json!(if condition_true(item, "Complete") {
            "Complete"
        } else if condition_true(item, "Failed") {
            "Failed"
        } else if object::deleting(item) {
            "Terminating"
        } else {
            "Running"
        }),
        "Completions" => {
            json!(format!("{}/{}", number(item, "/status/succeeded"), int(item, "/spec/completions").unwrap_or(1)))
        }
        _ => {
            let Some(since) = object::time_at(item, "/status/startTime") else { return json!("") };
            let until = object::time_at(item, "/status/completionTime").unwrap_or(now);
            json!(age(until.duration_since(since).as_secs()))
        }
    }
}

fn workload(item: &Value, name: &str) -> Value {
    match name {
        "Ready" if item.pointer("/status/desiredNumberScheduled").is_some() => {
            json!(number(item, "/status/numberReady"))
        }
        "Ready" if list(item, "/metadata/ownerReferences").iter().any(|owner| text(owner, "/kind") == "Deployment") => {
            json!(number(item, "/status/readyReplicas"))
        }
        "Ready" => json!(format!("{}/{}", number(item, "/status/readyReplicas"), number(item, "/spec/replicas"))),
        "Up-to-date" if item.pointer("/status/desiredNumberScheduled").is_some() => {
            json!(number(item, "/status/updatedNumberScheduled"))
        }
        "Up-to-date" => json!(number(item, "/status/updatedReplicas")),
        "Available" if item.pointer("/status/desiredNumberScheduled").is_some() => {
            json!(number(item, "/status/numberAvailable"))
        }
        "Available" => json!(number(item, "/status/availableReplicas")),
        "Desired" if item.pointer("/status/desiredNumberScheduled").is_some() => {
            json!(number(item, "/status/desiredNumberScheduled"))
        }
        "Desired" => json!(number(item, "/spec/replicas")),
        "Current" if item.pointer("/status/desiredNumberScheduled").is_some() => {
            json!(number(item, "/status/currentNumberScheduled"))
        }
        "Current" => json!(number(item, "/status/replicas")),
        "Node Selector" => joined(map(item, "/spec/template/spec/nodeSelector")),
        _ => json!(""),
    }
}
