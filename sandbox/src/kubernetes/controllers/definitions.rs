//! CustomResourceDefinitions: names accepted, then established; on deletion their instances go first.

use serde_json::{Value, json};

use super::super::object::{self, list, text};
use super::super::store::Key;
use super::Look;

const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// One look at a definition.
pub(crate) fn look(look: &mut Look<'_>, key: &Key) {
    let Some(crd) = look.cluster.object(key) else { return };
    if object::deleting(&crd) {
        clean_up(look, key, &crd);
        return;
    }
    if object::condition_true(&crd, "Established") {
        return;
    }
    let now = object::stamp(look.now);
    look.cluster.change(key, |new| {
        let names = new.pointer("/spec/names").cloned().unwrap_or_default();
        object::set(new, &["status", "acceptedNames"], names);
        let conditions = json!([
            {"type": "NamesAccepted", "status": "True", "lastTransitionTime": now, "reason": "NoConflicts", "message": "no conflicts found"},
            {"type": "Established", "status": "True", "lastTransitionTime": now, "reason": "InitialNamesAccepted", "message": "the initial names have been accepted"},
        ]);
        object::set(new, &["status", "conditions"], conditions);
        if let Some(finalizers) = object::list_mut(new, &["metadata", "finalizers"])
            && finalizers.is_empty()
        {
            finalizers.push(json!(CLEANUP));
        }
    });
}

fn clean_up(look: &mut Look<'_>, key: &Key, crd: &Value) {
    let (group, plural) = (text(crd, "/spec/group").to_owned(), text(crd, "/spec/names/plural").to_owned());
    let instances: Vec<Key> = look.cluster.store.list(&group, &plural, None).map(|(key, _)| key.clone()).collect();
    for instance in &instances {
        if look.cluster.object(instance).is_some_and(|object| !object::deleting(&object)) {
            look.cluster.delete(instance, look.now);
        }
    }
    let left = look.cluster.store.list(&group, &plural, None).count();
    let now = object::stamp(look.now);
    let (status, reason, message) = if left == 0 {
        ("False", "InstanceDeletionCompleted", "removed all instances")
    } else {
        ("True", "InstanceDeletionInProgress", "CustomResource deletion is in progress")
    };
    look.cluster.change(key, |new| {
        if let Some(conditions) = object::list_mut(new, &["status", "conditions"]) {
            object::put_condition(
                conditions,
                json!({"type": "Terminating", "status": status, "reason": reason, "message": message}),
                &now,
            );
        }
        if left == 0
            && let Some(finalizers) = object::list_mut(new, &["metadata", "finalizers"])
        {
            finalizers.retain(|each| each != CLEANUP);
        }
    });
    let gone = look.cluster.object(key).is_some_and(|crd| list(&crd, "/metadata/finalizers").is_empty());
    if gone {
        look.cluster.store.delete(key);
        look.cluster.refresh_definitions();
    } else if left > 0 {
        look.again(key, 1_000);
    }
}
