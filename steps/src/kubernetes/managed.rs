//! Proves from a stored object alone that our apply would change nothing, so that a look needs no dry run of it.
//!
//! Two things must hold: every value that we would apply is stored, and the field manager entry of ours names no field
//! that we would no longer apply (the server would remove it). Anything that cannot be proven here is for a dry run: a
//! quantity written in another way, an item that the server put in order, a key that it filled in.
//! <https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management>

use super::api::MANAGER;
use super::objects::{items, text};
use serde_json::{Map, Value};

/// Whether applying `wanted` would leave `stored` as it is.
pub(super) fn is_as_applied(stored: &Value, wanted: &Value) -> bool {
    let ours = items(stored, "/metadata/managedFields").iter().filter(|entry| {
        text(entry, "/manager") == MANAGER
            && text(entry, "/operation") == "Apply"
            && text(entry, "/subresource").is_empty()
    });
    let mut entries = ours.filter_map(|entry| entry.get("fieldsV1"));
    let (Some(fields), None) = (entries.next(), entries.next()) else { return false };
    holds(stored, wanted) && covers(wanted, fields)
}

/// Whether everything in `wanted` is in `stored`. Lists must be alike item by item.
fn holds(stored: &Value, wanted: &Value) -> bool {
    match (stored, wanted) {
        (Value::Object(stored), Value::Object(wanted)) => {
            wanted.iter().all(|(name, wanted)| stored.get(name).is_some_and(|stored| holds(stored, wanted)))
        }
        (Value::Array(stored), Value::Array(wanted)) => {
            stored.len() == wanted.len() && stored.iter().zip(wanted).all(|(stored, wanted)| holds(stored, wanted))
        }
        (stored, wanted) => stored == wanted,
    }
}

/// Whether every field that the entry names is in `wanted`.
fn covers(wanted: &Value, fields: &Value) -> bool {
    let Some(fields) = fields.as_object() else { return false };
    fields.iter().all(|(name, below)| match name.split_once(':') {
        None => name == ".",
        Some(("f", field)) => wanted.get(field).is_some_and(|wanted| covers(wanted, below)),
        Some(("k", keys)) => item(wanted, keys).is_some_and(|wanted| covers(wanted, below)),
        Some(("v", value)) => wanted
            .as_array()
            .zip(serde_json::from_str::<Value>(value).ok())
            .is_some_and(|(wanted, value)| wanted.contains(&value)),
        Some(("i", index)) => index
            .parse()
            .ok()
            .and_then(|index: usize| wanted.as_array()?.get(index))
            .is_some_and(|wanted| covers(wanted, below)),
        Some(_) => false,
    })
}

/// The item of a list that has these keys. A key that we leave to the server's default is not held against it.
fn item<'a>(wanted: &'a Value, keys: &str) -> Option<&'a Value> {
    let keys: Map<String, Value> = serde_json::from_str(keys).ok()?;
    let fits = |item: &&Value| keys.iter().all(|(key, value)| item.get(key).is_none_or(|found| found == value));
    let mut fitting = wanted.as_array()?.iter().filter(fits);
    match (fitting.next(), fitting.next()) {
        (Some(item), None) => Some(item),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn wanted() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "a", "labels": {"app": "a"}, "finalizers": ["x/y"]},
            "spec": {"ports": [{"port": 80, "name": "web"}, {"port": 81, "name": "more"}], "type": "ClusterIP"},
        })
    }

    /// As a server stores it: defaults, others' fields, and bookkeeping added.
    fn stored() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "a", "labels": {"app": "a", "by": "others"}, "finalizers": ["x/y"], "uid": "u",
                "managedFields": [
                    {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:metadata": {"f:labels": {"f:by": {}}}}},
                    {"manager": "platflow", "operation": "Apply", "fieldsV1": {
                        "f:metadata": {"f:labels": {"f:app": {}}, "f:finalizers": {"v:\"x/y\"": {}}},
                        "f:spec": {"f:type": {}, "f:ports": {
                            "k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}, "f:name": {}},
                            "k:{\"port\":81,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}, "f:name": {}}}}}}]},
            "spec": {"ports": [{"port": 80, "name": "web", "protocol": "TCP"}, {"port": 81, "name": "more", "protocol": "TCP"}],
                "type": "ClusterIP", "clusterIP": "172.20.0.9"},
        })
    }

    /// Proves that defaults and fields of others need no dry run, and that whatever an apply might change does: a value that
    /// differs or is gone, an item more or less, a field of ours that we want no longer, another manager in our place.
    #[test]
    fn only_what_is_proven_goes_without_a_dry_run() {
        assert!(is_as_applied(&stored(), &wanted()));
        let changes: [(&str, Value); 6] = [
            ("/metadata/labels/app", json!("b")),
            ("/spec/type", Value::Null),
            ("/spec/ports", json!([{"port": 80, "name": "web"}])),
            ("/spec/ports/1/name", json!("other")),
            ("/metadata/managedFields/1/manager", json!("somebody")),
            ("/metadata/managedFields/1/operation", json!("Update")),
        ];
        for (pointer, value) in changes {
            let mut stored = stored();
            *stored.pointer_mut(pointer).expect("a field") = value;
            assert!(!is_as_applied(&stored, &wanted()), "{pointer}");
        }
        for (pointer, name) in
            [("/spec", "type"), ("/metadata", "labels"), ("/metadata", "finalizers"), ("/spec/ports/0", "name")]
        {
            let mut wanted = wanted();
            wanted.pointer_mut(pointer).and_then(Value::as_object_mut).expect("an object").remove(name);
            assert!(!is_as_applied(&stored(), &wanted), "{pointer}/{name} is no longer wanted");
        }
    }
}
