//! Namespaces: the default service account and the CA bundle of a new one, and the emptying of a deleted one.

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::super::object::{self, list, put_condition};
use super::super::store::Key;
use super::Look;

/// The controller waits this long after an event of a namespace before it acts.
const DELAY_MS: i64 = 5_000;

/// Times of objects have no fractions: on average, a deletion is half a second younger than it says.
const ROUNDING_MS: i64 = 500;

/// From deleting the content to counting what is left.
const COUNT_MS: i64 = 1_800;

/// One look at a namespace.
pub(crate) fn look(look: &mut Look<'_>, key: &Key) {
    let Some(namespace) = look.cluster.object(key) else { return };
    if !object::deleting(&namespace) {
        furnish(look, &key.name);
        return;
    }
    let Some(since) = object::time_at(&namespace, "/metadata/deletionTimestamp") else { return };
    let age = look.now.duration_since(since);
    if age < SignedDuration::from_millis(DELAY_MS + ROUNDING_MS) {
        let left = DELAY_MS + ROUNDING_MS - i64::try_from(age.as_millis()).unwrap_or(0);
        look.again(key, left.max(1));
        return;
    }
    empty(look, key);
}

fn furnish(look: &mut Look<'_>, name: &str) {
    let account = json!({"metadata": {"name": "default", "namespace": name}});
    look.cluster.make("serviceaccounts", "", account, look.now);
    let authority = look.cluster.identity.ca_certificate.clone();
    let bundle = json!({
        "metadata": {"name": "kube-root-ca.crt", "namespace": name, "annotations": {"kubernetes.io/description": "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters."}},
        "data": {"ca.crt": authority},
    });
    look.cluster.make("configmaps", "", bundle, look.now);
}

fn contents(look: &Look<'_>, name: &str) -> Vec<Key> {
    look.cluster.store.keys().filter(|each| each.namespace == name).cloned().collect()
}

fn empty(look: &mut Look<'_>, key: &Key) {
    let before = contents(look, &key.name);
    if before.iter().any(|each| each.is("", "pods")) {
        look.cluster.emptied_of_pods.entry(key.name.clone()).or_insert(None);
    }
    let mut begun = false;
    for each in &before {
        if look.cluster.object(each).is_some_and(|object| !object::deleting(&object)) {
            let grace = each.is("", "pods").then_some(30);
            super::super::verbs::delete::begin(look.cluster, each, look.now, grace);
            begun = true;
        }
    }
    let left = contents(look, &key.name);
    let broken = broken_apis(look);
    if begun && !left.is_empty() {
        look.again(key, COUNT_MS);
        return;
    }
    set_conditions(look, key, &left, &broken);
    if !left.is_empty() || !broken.is_empty() {
        look.poll(key, 2_000);
        return;
    }
    // After pods it waits for a part of their grace, although they may have gone at once.
    let due = look.now.checked_add(SignedDuration::from_millis(DELAY_MS)).unwrap_or(look.now);
    let until = look.cluster.emptied_of_pods.get_mut(&key.name).map(|until| *until.get_or_insert(due));
    match until.filter(|until| *until > look.now) {
        Some(until) => {
            let left = i64::try_from(until.duration_since(look.now).as_millis()).unwrap_or(DELAY_MS);
            look.again(key, left.max(1));
        }
        None => {
            look.cluster.emptied_of_pods.remove(&key.name);
            finish(look, key);
        }
    }
}

fn finish(look: &mut Look<'_>, key: &Key) {
    // The last finalizer goes together with the namespace, unless somebody else holds it too.
    let own = |namespace: &Value| list(namespace, "/spec/finalizers").iter().all(|each| each == "kubernetes");
    let done = look
        .cluster
        .object(key)
        .is_some_and(|namespace| own(&namespace) && list(&namespace, "/metadata/finalizers").is_empty());
    if done {
        look.cluster.store.delete(key);
        return;
    }
    look.cluster.change(key, |namespace| {
        if let Some(finalizers) = object::list_mut(namespace, &["spec", "finalizers"]) {
            finalizers.retain(|each| each != "kubernetes");
        }
    });
}

fn broken_apis(look: &Look<'_>) -> Vec<String> {
    look.cluster
        .store
        .list("apiregistration.k8s.io", "apiservices", None)
        .filter(|(_, service)| service.pointer("/spec/service").is_some())
        .map(|(_, service)| {
            format!("{}/{}", object::text(service, "/spec/group"), object::text(service, "/spec/version"))
        })
        .collect()
}

#[expect(clippy::too_many_lines, reason = "the five conditions of a namespace, one after the other")]
fn set_conditions(look: &mut Look<'_>, key: &Key, left: &[Key], broken: &[String]) {
    let mut by_kind: Vec<(String, usize)> = Vec::new();
    let mut by_finalizer: Vec<(String, usize)> = Vec::new();
    for each in left {
        let resource = if each.group.is_empty() {
            format!("{}.", each.resource)
        } else {
            format!("{}.{}", each.resource, each.group)
        };
        count(&mut by_kind, &resource);
        if let Some(object) = look.cluster.object(each) {
            for finalizer in list(&object, "/metadata/finalizers").iter().filter_map(Value::as_str) {
                count(&mut by_finalizer, finalizer);
            }
        }
    }
    let remaining = join(&by_kind, |name, number| format!("{name} has {number} resource instances"));
    let finalizers = join(&by_finalizer, |name, number| format!("{name} in {number} resource instances"));
    let row = |kind: &str, bad: bool, reason: &str, message: String| json!({"type": kind, "status": if bad { "True" } else { "False" }, "reason": reason, "message": message});
    let discovery = if broken.is_empty() {
        "All resources successfully discovered".to_owned()
    } else {
        format!(
            "Discovery failed for some groups, {} failing: unable to retrieve the complete list of server APIs: {}",
            broken.len(),
            broken
                .iter()
                .map(|each| format!("{each}: stale GroupVersion discovery: {each}"))
                .collect::<Vec<_>>()
                .join(", ")
        )
    };
    let rows = [
        row(
            "NamespaceDeletionDiscoveryFailure",
            !broken.is_empty(),
            if broken.is_empty() { "ResourcesDiscovered" } else { "DiscoveryFailed" },
            discovery,
        ),
        row(
            "NamespaceDeletionGroupVersionParsingFailure",
            false,
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed".to_owned(),
        ),
        row(
            "NamespaceDeletionContentFailure",
            false,
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization".to_owned(),
        ),
        row(
            "NamespaceContentRemaining",
            !by_kind.is_empty(),
            if by_kind.is_empty() { "ContentRemoved" } else { "SomeResourcesRemain" },
            if by_kind.is_empty() {
                "All content successfully removed".to_owned()
            } else {
                format!("Some resources are remaining: {remaining}")
            },
        ),
        row(
            "NamespaceFinalizersRemaining",
            !by_finalizer.is_empty(),
            if by_finalizer.is_empty() { "ContentHasNoFinalizers" } else { "SomeFinalizersRemain" },
            if by_finalizer.is_empty() {
                "All content-preserving finalizers finished".to_owned()
            } else {
                format!("Some content in the namespace has finalizers remaining: {finalizers}")
            },
        ),
    ];
    let now = object::stamp(look.now);
    look.cluster.change(key, |namespace| {
        if let Some(conditions) = object::list_mut(namespace, &["status", "conditions"]) {
            for row in rows {
                put_condition(conditions, row, &now);
            }
        }
    });
}

fn count(into: &mut Vec<(String, usize)>, name: &str) {
    match into.iter_mut().find(|(each, _)| each == name) {
        Some((_, number)) => *number += 1,
        None => into.push((name.to_owned(), 1)),
    }
}

fn join(counts: &[(String, usize)], show: impl Fn(&str, usize) -> String) -> String {
    counts.iter().map(|(name, number)| show(name, *number)).collect::<Vec<_>>().join(", ")
}
