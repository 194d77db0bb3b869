//! Deleting: grace periods, preconditions, finalizers, propagation, collections.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::cluster::Cluster;
use super::super::controllers::CLEANUP;
use super::super::object::{self, list, text};
use super::super::resources::Resource;
use super::super::route::Place;
use super::super::status::Refusal;
use super::super::store::Key;
use super::read::{Selection, find, key};
use super::{Answer, Call, shown};

/// What became of a deletion.
pub(crate) enum Fate {
    /// Removed; the last state.
    Gone,
    /// Marked, waiting for finalizers or grace.
    Lingers,
}

/// Begins a deletion: marks what lingers, removes the rest.
pub(crate) fn begin(cluster: &mut Cluster, key: &Key, now: Timestamp, grace: Option<i64>) -> Fate {
    let Some(object) = cluster.object(key) else { return Fate::Gone };
    let pod = key.is("", "pods");
    let scheduled = pod
        && !text(&object, "/spec/nodeName").is_empty()
        && !matches!(text(&object, "/status/phase"), "Succeeded" | "Failed");
    let seconds = grace.or_else(|| object::int(&object, "/spec/terminationGracePeriodSeconds")).unwrap_or(30);
    let graceful = scheduled && seconds > 0;
    let finalizers = !list(&object, "/metadata/finalizers").is_empty()
        || key.is("", "namespaces") && !list(&object, "/spec/finalizers").is_empty();
    if !graceful && !finalizers {
        cluster.store.delete(key);
        return Fate::Gone;
    }
    let marked = object::deleting(&object);
    cluster.mark(key, |new| {
        if !marked {
            object::set(
                new,
                &["metadata", "deletionTimestamp"],
                json!(object::stamp(
                    now.checked_add(jiff::SignedDuration::from_secs(if graceful { seconds } else { 0 })).unwrap_or(now)
                )),
            );
            object::set(new, &["metadata", "deletionGracePeriodSeconds"], json!(if graceful { seconds } else { 0 }));
            let definition = key.is("apiextensions.k8s.io", "customresourcedefinitions");
            if let Some(generation) = object::int(new, "/metadata/generation").filter(|_| !definition) {
                object::set(new, &["metadata", "generation"], json!(generation + 1));
            }
            if key.is("", "namespaces") {
                object::remove(new, &["metadata", "deletionGracePeriodSeconds"]);
                object::set(new, &["status", "phase"], json!("Terminating"));
            } else if definition {
                mark_definition(new, now);
            }
        } else if graceful && object::int(new, "/metadata/deletionGracePeriodSeconds").is_some_and(|old| old > seconds)
        {
            object::set(new, &["metadata", "deletionGracePeriodSeconds"], json!(seconds));
        }
    });
    Fate::Lingers
}

/// A definition on its way out says so at once.
fn mark_definition(new: &mut Value, now: Timestamp) {
    object::remove(new, &["metadata", "deletionGracePeriodSeconds"]);
    let row = json!({"type": "Terminating", "status": "True", "reason": "InstanceDeletionPending", "message": "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon"});
    if let Some(conditions) = object::list_mut(new, &["status", "conditions"]) {
        object::put_condition(conditions, row, &object::stamp(now));
    }
}

struct Options {
    grace: Option<i64>,
    propagation: Option<String>,
    uid: Option<String>,
    version: Option<String>,
    dry_run: bool,
}

fn options(call: &Call<'_>) -> Result<Options, Refusal> {
    let body: Value = if call.request.body.is_empty() { Value::Null } else { call.body()? };
    let kind = text(&body, "/kind");
    if !kind.is_empty() && kind != "DeleteOptions" {
        return Err(Refusal::bad_request(format!(
            "no kind \"{kind}\" is registered for version \"{}\" in scheme \"pkg/runtime/scheme.go:111\"",
            text(&body, "/apiVersion")
        )));
    }
    let query = |name: &str| call.request.query(name).map(str::to_owned);
    if let Some(grace) = query("gracePeriodSeconds")
        && grace.parse::<i64>().is_err()
    {
        return Err(Refusal::bad_request(format!("strconv.ParseInt: parsing \"{grace}\": invalid syntax")));
    }
    let own = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let dry = list(&body, "/dryRun").iter().any(|each| each == "All");
    let propagation = own("/propagationPolicy").or_else(|| query("propagationPolicy"));
    if let Some(policy) = &propagation
        && !["Background", "Foreground", "Orphan"].contains(&policy.as_str())
    {
        let cause = super::super::status::Cause::unsupported(
            "propagationPolicy",
            &json!(policy),
            &["Foreground", "Background", "Orphan", "nil"],
        );
        return Err(Refusal::invalid("meta.k8s.io", "DeleteOptions", "", &[cause]));
    }
    Ok(Options {
        grace: object::int(&body, "/gracePeriodSeconds")
            .or_else(|| query("gracePeriodSeconds").and_then(|text| text.parse().ok())),
        propagation,
        uid: own("/preconditions/uid"),
        version: own("/preconditions/resourceVersion"),
        dry_run: dry || call.dry_run()?,
    })
}

/// Kinds whose DELETE answers the object even when it is gone at once.
fn answers_object(resource: &Resource) -> bool {
    resource.group.is_empty()
        && matches!(
            resource.plural.as_str(),
            "namespaces"
                | "pods"
                | "persistentvolumeclaims"
                | "persistentvolumes"
                | "serviceaccounts"
                | "services"
                | "resourcequotas"
        )
        || resource.is("storage.k8s.io", "storageclasses")
        || resource.is("apiextensions.k8s.io", "customresourcedefinitions")
}

/// DELETE of one object.
pub(crate) fn delete(call: &mut Call<'_>, resource: &Resource, place: &Place) -> Result<Answer, Refusal> {
    let options = options(call)?;
    let object = find(call, resource, place)?;
    check_preconditions(resource, &object, &options)?;
    let key = key(resource, place);
    if resource.is("batch", "jobs") && options.propagation.is_none() {
        call.warnings.push("child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning".to_owned());
    }
    let fate = remove_one(call, resource, &key, &options);
    let (status, body) = match fate {
        Fate::Lingers => {
            (200, call.cluster.object(&key).map_or_else(|| shown(resource, &object), |now| shown(resource, &now)))
        }
        Fate::Gone if answers_object(resource) => (200, shown(resource, &last_state(&object, call, resource))),
        Fate::Gone => {
            let mut details =
                json!({"name": object::name(&object), "kind": resource.plural, "uid": object::uid(&object)});
            if !resource.group.is_empty() {
                object::set(&mut details, &["group"], json!(resource.group));
            }
            (
                200,
                json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}),
            )
        }
    };
    Ok(Answer::Object(status, body))
}

/// An object as it was when it went: under the version of its deletion.
fn last_state(object: &Value, call: &Call<'_>, resource: &Resource) -> Value {
    let mut last = object.clone();
    object::set(&mut last, &["metadata", "resourceVersion"], json!(call.cluster.store.version().to_string()));
    if resource.is("", "pods") {
        if !object::deleting(object)
            && let Some(generation) = object::int(object, "/metadata/generation")
        {
            object::set(&mut last, &["metadata", "generation"], json!(generation + 1));
        }
        object::default_to(&mut last, &["metadata", "deletionTimestamp"], json!(object::stamp(call.now)));
        object::set(&mut last, &["metadata", "deletionGracePeriodSeconds"], json!(0));
        if text(object, "/spec/nodeName").is_empty() {
            // Marked and removed in one go, it was never stored under a version as it is shown.
            object::remove(&mut last, &["metadata", "resourceVersion"]);
        }
    }
    last
}

fn check_preconditions(resource: &Resource, object: &Value, options: &Options) -> Result<(), Refusal> {
    let name = object::name(object);
    if let Some(uid) = &options.uid
        && uid != object::uid(object)
    {
        let why = format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been deleted and then recreated",
            object::uid(object)
        );
        return Err(precondition(resource, name, &why));
    }
    let version = text(object, "/metadata/resourceVersion");
    if let Some(wanted) = &options.version
        && wanted != version
    {
        let why = format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({version}). The object might have been modified"
        );
        return Err(precondition(resource, name, &why));
    }
    Ok(())
}

/// The one conflict that names the kind where all others name the resource.
fn precondition(resource: &Resource, name: &str, why: &str) -> Refusal {
    let mut refusal = Refusal::conflict(resource, name, why);
    refusal.message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", resource.kind);
    if let Some(details) = &mut refusal.details {
        object::set(details, &["kind"], json!(resource.kind));
    }
    refusal
}

fn remove_one(call: &mut Call<'_>, resource: &Resource, key: &Key, options: &Options) -> Fate {
    if options.dry_run {
        let Some(object) = call.cluster.object(key) else { return Fate::Gone };
        let lingers = key.is("", "namespaces") || !list(&object, "/metadata/finalizers").is_empty();
        return if lingers { Fate::Lingers } else { Fate::Gone };
    }
    let job_default = resource.is("batch", "jobs") && options.propagation.is_none();
    let extra = match options.propagation.as_deref() {
        Some("Foreground") => Some("foregroundDeletion"),
        Some("Orphan") => Some("orphan"),
        None if job_default => Some("orphan"),
        _ => None,
    };
    // The server gives a definition the finalizer of its instances when it is to go, not before.
    let extra = match extra {
        None if resource.is("apiextensions.k8s.io", "customresourcedefinitions") => Some(CLEANUP),
        other => other,
    };
    if let Some(finalizer) = extra {
        call.cluster.mark(key, |new| {
            if let Some(finalizers) = object::list_mut(new, &["metadata", "finalizers"])
                && !finalizers.iter().any(|each| each == finalizer)
            {
                finalizers.push(json!(finalizer));
            }
        });
    }
    begin(call.cluster, key, call.now, options.grace)
}

/// DELETE of a collection.
pub(crate) fn delete_collection(call: &mut Call<'_>, resource: &Resource, place: &Place) -> Result<Answer, Refusal> {
    let options = options(call)?;
    let selection = Selection::of(call, resource)?;
    let found: Vec<(Key, std::sync::Arc<Value>)> = call
        .cluster
        .store
        .list(&resource.group, &resource.plural, place.namespace.as_deref())
        .filter(|(_, object)| selection.selects(object))
        .map(|(key, object)| (key.clone(), std::sync::Arc::clone(object)))
        .collect();
    let mut items = Vec::new();
    for (key, object) in found {
        let fate = remove_one(call, resource, &key, &options);
        let last = match fate {
            Fate::Lingers => call.cluster.object(&key).map_or_else(|| (*object).clone(), |now| (*now).clone()),
            Fate::Gone => (*object).clone(),
        };
        let mut last = last;
        if !resource.custom {
            object::remove(&mut last, &["kind"]);
            object::remove(&mut last, &["apiVersion"]);
        }
        items.push(last);
    }
    let version = call.cluster.store.version().to_string();
    Ok(Answer::Object(
        200,
        json!({"kind": format!("{}List", resource.kind), "apiVersion": resource.api_version(), "metadata": {"resourceVersion": version}, "items": items}),
    ))
}
