//! CustomResourceDefinitions: names accepted, then established; on deletion their instances go first.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::object::{self, list, text};
use super::super::store::Key;
use super::{Look, all};

/// Holds a definition until its instances are gone.
pub(crate) const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

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
    let row = |kind: &str, good: bool, reason: &str, message: &str| json!({"type": kind, "status": if good { "True" } else { "False" }, "lastTransitionTime": now, "reason": reason, "message": message});
    if let Some((reason, field, taken)) = conflict(look, key, &crd) {
        if object::condition(&crd, "NamesAccepted").is_some_and(|condition| text(condition, "/reason") == reason) {
            return;
        }
        let message = format!("\"{taken}\" is already in use");
        let conditions = json!([
            row("NamesAccepted", false, reason, &message),
            row("Established", false, "NotAccepted", "not all names are accepted"),
        ]);
        let mut accepted = crd.pointer("/spec/names").cloned().unwrap_or_default();
        // What the other definition has is not this one's.
        object::remove(&mut accepted, &["singular"]);
        object::set(&mut accepted, &[field], json!(""));
        look.cluster.change(key, |new| {
            object::set(new, &["status", "acceptedNames"], accepted);
            object::set(new, &["status", "conditions"], conditions);
        });
        return;
    }
    // Names first; what serves the kind follows a moment later.
    let named = object::condition_true(&crd, "NamesAccepted");
    look.cluster.change(key, |new| {
        let names = new.pointer("/spec/names").cloned().unwrap_or_default();
        object::set(new, &["status", "acceptedNames"], names);
        let reason = if named { "InitialNamesAccepted" } else { "Installing" };
        let conditions = json!([
            row("NamesAccepted", true, "NoConflicts", "no conflicts found"),
            row("Established", named, reason, "the initial names have been accepted"),
        ]);
        object::set(new, &["status", "conditions"], conditions);
    });
    if !named {
        look.again(key, ESTABLISH_MS + latency(key, &crd));
    }
}

/// From accepted names to being served.
const ESTABLISH_MS: i64 = 30;

/// How many bytes of a definition take a millisecond more: its schema is read, checked and published at every step.
const BYTES_PER_MS: usize = 512;

/// How long the controllers of definitions take for one. Only big ones are slow.
pub(super) fn latency(key: &Key, definition: &Value) -> i64 {
    if !key.is("apiextensions.k8s.io", "customresourcedefinitions") {
        return 0;
    }
    let size = serde_json::to_vec(definition).map_or(0, |bytes| bytes.len());
    40 + i64::try_from(size.saturating_sub(65_536) / BYTES_PER_MS).unwrap_or(0)
}

/// A name that another definition of the group has: reason, field, name.
fn conflict(look: &Look<'_>, key: &Key, crd: &Value) -> Option<(&'static str, &'static str, String)> {
    let group = text(crd, "/spec/group");
    let names = [("PluralConflict", "plural"), ("ListKindConflict", "listKind"), ("KindConflict", "kind")];
    let others: Vec<Arc<Value>> = all(look.cluster, "apiextensions.k8s.io", "customresourcedefinitions", None)
        .into_iter()
        .filter(|(other, found)| other != key && text(found, "/spec/group") == group)
        .map(|(_, found)| found)
        .collect();
    names.into_iter().find_map(|(reason, field)| {
        let wanted = text(crd, &format!("/spec/names/{field}"));
        let taken = others.iter().any(|other| text(other, &format!("/status/acceptedNames/{field}")) == wanted);
        (taken && !wanted.is_empty()).then(|| (reason, field, wanted.to_owned()))
    })
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
        look.poll(key, 1_000);
    }
}
