//! The controllers of a cluster on simulated time: a queue of keys to look at, and one function per kind that moves an object one step on.
//! They are level-triggered: everything they need to know is in the objects, so a restored world continues where it was.

pub(crate) mod addons;
pub(crate) mod bootstrap;
mod definitions;
mod events;
mod garbage;
mod namespaces;
pub(crate) mod nodes;
mod operators;
mod pods;
mod registrations;
mod schedule;
mod services;
mod stateful;
pub(crate) mod storage;
pub(crate) mod stuck;
mod workloads;

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::cluster::Cluster;
use super::model::Outside;
use super::object::{self, list, text};
use super::queue::{Beyond, Poll};
use super::store::{Change, ChangeKind, Key};

pub(crate) use bootstrap::bootstrap;
pub(crate) use definitions::CLEANUP;

/// One look at one object.
pub(crate) struct Look<'a> {
    /// The cluster.
    pub(crate) cluster: &'a mut Cluster,
    /// The world around it.
    pub(crate) outside: &'a mut dyn Outside,
    /// Simulated time of the look.
    pub(crate) now: Timestamp,
}

impl Look<'_> {
    /// Asks to look at a key again.
    pub(crate) fn again(&mut self, key: &Key, after_ms: i64) {
        self.cluster.ask(key.clone(), self.now, after_ms);
    }

    /// Asks to look at a key again and again until something in the cluster is otherwise. Only for a look that would find
    /// the same at any other time.
    pub(crate) fn poll(&mut self, key: &Key, every_ms: i64) {
        self.cluster.poll(key.clone(), self.now, every_ms, Beyond::Nothing);
    }
}

/// Most looks in one call: a bound against controllers that feed each other without end.
const MOST_LOOKS: usize = 200_000;

/// Lets the controllers work up to a time.
pub(crate) fn advance(cluster: &mut Cluster, now: Timestamp, outside: &mut dyn Outside) {
    settle(cluster, now);
    for _ in 0..MOST_LOOKS {
        let Some((at, key, poll)) = cluster.queue.pop(now) else { return };
        if let Some(poll) = poll.filter(|poll| still(cluster, poll, outside)) {
            cluster.queue.pass(key, at, now, poll);
            continue;
        }
        cluster.clock = at;
        let mut look = Look { cluster, outside, now: at };
        reconcile(&mut look, &key);
        settle(cluster, at);
    }
    tracing::warn!(cluster = cluster.name(), "controllers did not come to rest");
}

/// Whether nothing that a poll waits for has changed.
fn still(cluster: &Cluster, poll: &Poll, outside: &mut dyn Outside) -> bool {
    poll.seen == cluster.seen()
        && match &poll.beyond {
            Beyond::Nothing => true,
            Beyond::Ready(storage, ready) => outside.vault_pod_ready(storage) == *ready,
            Beyond::Heard(heard) => outside.vault_heard() == *heard,
        }
}

/// Turns changes into work.
pub(crate) fn settle(cluster: &mut Cluster, now: Timestamp) {
    for change in cluster.store.take_changed() {
        notice(cluster, &change, now);
    }
}

fn reconcile(look: &mut Look<'_>, key: &Key) {
    match (key.group.as_str(), key.resource.as_str()) {
        ("", "namespaces") => namespaces::look(look, key),
        ("apiextensions.k8s.io", "customresourcedefinitions") => definitions::look(look, key),
        ("", "nodes") => nodes::look(look, key),
        ("", "pods") => pods::look(look, key),
        ("", "persistentvolumeclaims") => storage::claim(look, key),
        ("", "persistentvolumes") => storage::volume(look, key),
        ("", "services") => services::service(look, key),
        ("", "resourcequotas") => services::resource_quota(look, key),
        ("", "configmaps") => stuck::look(look, key),
        ("", "secrets") => registrations::secret(look, key),
        ("apiregistration.k8s.io", "apiservices") => registrations::api_service(look, key),
        ("policy", "poddisruptionbudgets") => services::budget(look, key),
        ("apps", "deployments") => {
            workloads::deployment(look, key);
            operators::workload(look, key);
        }
        ("apps", "replicasets") => workloads::replica_set(look, key),
        ("apps", "statefulsets") => {
            stateful::stateful_set(look, key);
            operators::workload(look, key);
        }
        ("apps", "daemonsets") => stateful::daemon_set(look, key),
        ("batch", "jobs") => stateful::job(look, key),
        ("argoproj.io", "applications") => operators::application(look, key),
        ("external-secrets.io", "clustersecretstores" | "secretstores") => operators::store(look, key),
        // A webhook may be configured after its software came up, or before.
        ("admissionregistration.k8s.io", "validatingwebhookconfigurations") => operators::webhooks(look),
        ("external-secrets.io", "externalsecrets") => operators::external_secret(look, key),
        _ => {}
    }
    garbage::look(look, key);
}

fn notice(cluster: &mut Cluster, change: &Change, now: Timestamp) {
    let key = &change.key;
    if key.is("apiextensions.k8s.io", "customresourcedefinitions") {
        cluster.refresh_definitions();
    }
    let wait = latency(key).max(definitions::latency(key, &change.object));
    cluster.ask(key.clone(), now, wait);
    for owner in list(&change.object, "/metadata/ownerReferences") {
        if let Some(owner) = owner_key(cluster, owner, &key.namespace) {
            cluster.ask(owner, now, 50);
        }
    }
    related(cluster, key, now);
    if change.kind == ChangeKind::Deleted {
        for dependent in garbage::dependents(cluster, object::uid(&change.object)) {
            cluster.ask(dependent, now, 50);
        }
        if !key.namespace.is_empty()
            && cluster
                .object(&Key::core("namespaces", "", &key.namespace))
                .is_some_and(|namespace| object::deleting(&namespace))
        {
            cluster.ask(Key::core("namespaces", "", &key.namespace), now, 2_000);
        }
    }
}

/// What else has to be looked at when an object of some kind changes.
fn related(cluster: &mut Cluster, key: &Key, now: Timestamp) {
    let mut ask_all = |group: &str, resource: &str, namespace: Option<&str>, after_ms: i64| {
        for (each, _) in all(cluster, group, resource, namespace) {
            cluster.ask(each, now, after_ms);
        }
    };
    let own = Some(key.namespace.as_str());
    match (key.group.as_str(), key.resource.as_str()) {
        ("", "pods") => {
            ask_all("", "services", own, 100);
            ask_all("policy", "poddisruptionbudgets", own, 100);
            ask_all("", "resourcequotas", own, 500);
        }
        ("", "nodes") => {
            ask_all("apps", "daemonsets", None, 100);
            ask_all("", "pods", None, 200);
        }
        ("", "persistentvolumeclaims") => {
            ask_all("", "pods", own, 100);
            ask_all("", "persistentvolumes", None, 100);
            ask_all("apps", "statefulsets", own, 100);
            ask_all("", "resourcequotas", own, 500);
        }
        ("networking.k8s.io", "networkpolicies") => {
            ask_all("", "pods", None, 500);
            ask_all("", "resourcequotas", own, 500);
        }
        ("storage.k8s.io", "storageclasses") => ask_all("", "persistentvolumeclaims", None, 10_000),
        ("", "resourcequotas" | "events") => {}
        _ if !key.namespace.is_empty() => ask_all("", "resourcequotas", own, 500),
        _ => {}
    }
}

fn latency(key: &Key) -> i64 {
    match (key.group.as_str(), key.resource.as_str()) {
        ("", "namespaces") => 30,
        ("", "pods") => 60,
        _ => 40,
    }
}

/// The key of an owner reference.
pub(crate) fn owner_key(cluster: &Cluster, owner: &Value, namespace: &str) -> Option<Key> {
    let resource = cluster.resource_of_kind(text(owner, "/apiVersion"), text(owner, "/kind"))?;
    let namespace = if resource.namespaced { namespace } else { "" };
    Some(Key::new(&resource.group, &resource.plural, namespace, text(owner, "/name")))
}

/// Objects of a resource as a list that does not borrow the store.
pub(crate) fn all(cluster: &Cluster, group: &str, resource: &str, namespace: Option<&str>) -> Vec<(Key, Arc<Value>)> {
    cluster.store.list(group, resource, namespace).map(|(key, object)| (key.clone(), Arc::clone(object))).collect()
}
