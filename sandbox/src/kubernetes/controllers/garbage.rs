//! Garbage collection: dependents of owners that are gone, and the finalizers of foreground and orphan deletion.

use std::sync::Arc;

use serde_json::Value;

use super::super::cluster::Cluster;
use super::super::object::{self, list, text};
use super::super::store::Key;
use super::{Look, owner_key};

/// Keys of objects that name an owner by uid.
pub(crate) fn dependents(cluster: &Cluster, uid: &str) -> Vec<Key> {
    cluster
        .store
        .all()
        .filter(|(_, object)| list(object, "/metadata/ownerReferences").iter().any(|owner| text(owner, "/uid") == uid))
        .map(|(key, _)| key.clone())
        .collect()
}

/// One look at any object.
pub(crate) fn look(look: &mut Look<'_>, key: &Key) {
    let Some(current) = look.cluster.object(key) else { return };
    if object::deleting(&current) {
        finish(look, key, &current);
        return;
    }
    let owners = list(&current, "/metadata/ownerReferences");
    if owners.is_empty() {
        return;
    }
    let alive: Vec<Value> = owners.iter().filter(|owner| lives(look.cluster, owner, &key.namespace)).cloned().collect();
    if alive.is_empty() {
        look.cluster.delete(key, look.now);
    } else if alive.len() < owners.len() {
        look.cluster.change(key, |new| object::set(new, &["metadata", "ownerReferences"], Value::Array(alive)));
    }
}

fn lives(cluster: &Cluster, owner: &Value, namespace: &str) -> bool {
    let Some(key) = owner_key(cluster, owner, namespace) else { return true };
    cluster.store.get(&key).is_some_and(|found| object::uid(found) == text(owner, "/uid"))
}

fn has(object: &Value, finalizer: &str) -> bool {
    list(object, "/metadata/finalizers").iter().any(|each| each == finalizer)
}

fn finish(look: &mut Look<'_>, key: &Key, current: &Arc<Value>) {
    let uid = object::uid(current).to_owned();
    if has(current, "orphan") {
        for dependent in dependents(look.cluster, &uid) {
            look.cluster.change(&dependent, |new| {
                if let Some(owners) = object::list_mut(new, &["metadata", "ownerReferences"]) {
                    owners.retain(|owner| text(owner, "/uid") != uid);
                }
            });
        }
        release(look, key, "orphan");
    } else if has(current, "foregroundDeletion") {
        let left = dependents(look.cluster, &uid);
        for dependent in &left {
            if look.cluster.object(dependent).is_some_and(|object| !object::deleting(&object)) {
                look.cluster.delete(dependent, look.now);
            }
        }
        if dependents(look.cluster, &uid).is_empty() {
            release(look, key, "foregroundDeletion");
        } else {
            look.poll(key, 500);
        }
    }
}

/// Takes a finalizer off; the object goes when it was the last.
pub(crate) fn release(look: &mut Look<'_>, key: &Key, finalizer: &str) {
    look.cluster.change(key, |new| {
        if let Some(finalizers) = object::list_mut(new, &["metadata", "finalizers"]) {
            finalizers.retain(|each| each != finalizer);
        }
    });
    let gone = look.cluster.object(key).is_some_and(|object| {
        // A namespace is held by finalizers of its own, until it is empty.
        let held = key.is("", "namespaces") && !list(&object, "/spec/finalizers").is_empty();
        object::deleting(&object)
            && !held
            && list(&object, "/metadata/finalizers").is_empty()
            && object::int(&object, "/metadata/deletionGracePeriodSeconds").unwrap_or(0) == 0
    });
    if gone {
        look.cluster.store.delete(key);
    }
}
