//! Creating and changing objects: POST, PUT and the four kinds of PATCH all end in one commit with admission, defaults and ownership.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::admission;
use super::super::apply::{self, Writer};
use super::super::lists::Place as Walk;
use super::super::object::{self, list, text};
use super::super::patch as patches;
use super::super::quantity;
use super::super::resources::Resource;
use super::super::route::Place;
use super::super::schema;
use super::super::status::{Cause, Refusal};
use super::super::store::Key;
use super::super::{defaults, validate, versions};
use super::checks::{check_kind, check_manager, check_media, check_namespace, may_create};
use super::read::key;
use super::{Answer, Call, has_generation, shown};

/// How an object came to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// POST, PUT, plain patches.
    Update,
    /// Server-side apply: `managedFields` are already in the object.
    Apply,
}

/// POST.
pub(crate) fn create(call: &mut Call<'_>, resource: &Resource, place: &Place) -> Result<Answer, Refusal> {
    check_media(call, &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"])?;
    check_manager(call, "CreateOptions")?;
    let mut body = call.body()?;
    check_kind(call, resource, &mut body)?;
    schema::check_unknown(call, resource, &mut body, schema::From::Create)?;
    check_namespace(resource, place, &mut body)?;
    if object::name(&body).is_empty() && !text(&body, "/metadata/generateName").is_empty() {
        let name = format!("{}{}", text(&body, "/metadata/generateName"), call.cluster.new_suffix(5));
        object::set(&mut body, &["metadata", "name"], json!(name));
    }
    if !text(&body, "/metadata/resourceVersion").is_empty() {
        return Err(Refusal::bad_request("resourceVersion should not be set on objects to be created"));
    }
    if !body.pointer("/metadata").is_none_or(Value::is_object) {
        return Err(Refusal::bad_request("metadata must be an object"));
    }
    new_definition_hold(call, resource)?;
    commit(call, resource, place, None, body, Mode::Update, "")
        .map(|(_, object)| Answer::Object(201, shown(resource, &object)))
}

/// The first writes of a freshly established custom resource are held for two seconds.
fn new_definition_hold(call: &Call<'_>, resource: &Resource) -> Result<(), Refusal> {
    if !resource.custom || call.request.waited {
        return Ok(());
    }
    let key = Key::new("apiextensions.k8s.io", "customresourcedefinitions", "", &resource.qualified());
    let Some(crd) = call.cluster.object(&key) else { return Ok(()) };
    let since =
        object::condition(&crd, "Established").and_then(|condition| object::time_at(condition, "/lastTransitionTime"));
    match since {
        Some(since) if call.now.duration_since(since).as_millis() < 2_000 => Err(Refusal::later(2_000)),
        _ => Ok(()),
    }
}

/// PUT of the object or its status.
pub(crate) fn update(call: &mut Call<'_>, resource: &Resource, place: &Place, sub: &str) -> Result<Answer, Refusal> {
    check_media(call, &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"])?;
    check_manager(call, "UpdateOptions")?;
    let mut body = call.body()?;
    check_kind(call, resource, &mut body)?;
    schema::check_unknown(call, resource, &mut body, schema::From::Create)?;
    check_namespace(resource, place, &mut body)?;
    let name = place.name.clone().unwrap_or_default();
    if object::name(&body).is_empty() {
        return Err(Refusal::bad_request(
            "the name of the object (based on its metadata) was undeterminable: name must be provided",
        ));
    }
    if object::name(&body) != name {
        return Err(Refusal::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({name})",
            object::name(&body)
        )));
    }
    let live = call.cluster.object(&key(resource, place));
    let Some(live) = live else {
        if !resource.is("coordination.k8s.io", "leases") {
            return Err(Refusal::not_found(resource, &name));
        }
        return commit(call, resource, place, None, body, Mode::Update, "")
            .map(|(_, object)| Answer::Object(201, shown(resource, &object)));
    };
    let given = text(&body, "/metadata/resourceVersion").to_owned();
    if given.is_empty()
        && (resource.custom
            || resource.is("coordination.k8s.io", "leases")
            || resource.is("apiextensions.k8s.io", "customresourcedefinitions"))
    {
        let cause = Cause {
            reason: "FieldValueInvalid",
            field: "metadata.resourceVersion".to_owned(),
            message: if resource.custom {
                "Invalid value: 0: must be specified for an update".to_owned()
            } else {
                "Invalid value: \"\": must be specified for an update".to_owned()
            },
        };
        let kind = if resource.custom { &resource.plural } else { &resource.kind };
        return Err(Refusal::invalid(&resource.group, kind, &name, &[cause]));
    }
    check_version(resource, &live, &given)?;
    let uid = object::uid(&body);
    if !uid.is_empty() && uid != object::uid(&live) {
        return Err(Refusal::conflict(
            resource,
            &name,
            &format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", object::uid(&live)),
        ));
    }
    commit(call, resource, place, Some(live), body, Mode::Update, sub)
        .map(|(_, object)| Answer::Object(200, shown(resource, &object)))
}

fn check_version(resource: &Resource, live: &Value, given: &str) -> Result<(), Refusal> {
    if given.is_empty() || given == text(live, "/metadata/resourceVersion") {
        Ok(())
    } else {
        Err(Refusal::stale(resource, object::name(live)))
    }
}

/// PATCH of the object or its status.
pub(crate) fn patch(call: &mut Call<'_>, resource: &Resource, place: &Place, sub: &str) -> Result<Answer, Refusal> {
    let kind = call.request.content_type.clone().unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_owned();
    if kind == "application/apply-patch+yaml" {
        return apply_patch(call, resource, place, sub);
    }
    let plain = [
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/apply-patch+yaml",
        "application/apply-patch+cbor",
    ];
    let supported = if resource.custom {
        plain.to_vec()
    } else {
        vec![
            "application/json-patch+json",
            "application/merge-patch+json",
            "application/strategic-merge-patch+json",
            "application/apply-patch+yaml",
        ]
    };
    if !supported.contains(&kind.as_str()) && kind != "application/strategic-merge-patch+json" {
        let mut refusal = Refusal::new(415, Some("UnsupportedMediaType"), "415: Unsupported Media Type");
        refusal.details = Some(json!({}));
        return Err(refusal);
    }
    if !supported.contains(&kind.as_str()) {
        let shown: Vec<&str> = supported.into_iter().filter(|each| !each.ends_with("cbor")).collect();
        return Err(Refusal::new(
            415,
            Some("UnsupportedMediaType"),
            format!(
                "the body of the request was in an unknown format - accepted media types include: {}",
                shown.join(", ")
            ),
        ));
    }
    check_manager(call, "PatchOptions")?;
    let live = super::read::find(call, resource, place)?;
    let change: Value = serde_json::from_slice(&call.request.body)
        .map_err(|error| Refusal::bad_request(format!("error decoding patch: {error}")))?;
    let mut patched = shown(resource, &live);
    match kind.as_str() {
        "application/json-patch+json" => patches::json_patch(&mut patched, &change)?,
        "application/merge-patch+json" => patches::merge(&mut patched, &change),
        _ => patches::strategic(&mut patched, &change, &Walk::root(None, false))?,
    }
    if object::name(&patched) != object::name(&live) {
        return Err(Refusal::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            object::name(&patched),
            object::name(&live)
        )));
    }
    check_kind(call, resource, &mut patched)?;
    schema::check_unknown(call, resource, &mut patched, schema::From::Patch)?;
    let given = text(&patched, "/metadata/resourceVersion").to_owned();
    check_version(resource, &live, &given)?;
    commit(call, resource, place, Some(live), patched, Mode::Update, sub)
        .map(|(_, object)| Answer::Object(200, shown(resource, &object)))
}

fn apply_patch(call: &mut Call<'_>, resource: &Resource, place: &Place, sub: &str) -> Result<Answer, Refusal> {
    let manager = call.request.query("fieldManager").unwrap_or_default().to_owned();
    if manager.is_empty() {
        return Err(Refusal::invalid(
            "meta.k8s.io",
            "PatchOptions",
            "",
            &[Cause::required("fieldManager", "is required for apply patch")],
        ));
    }
    check_manager(call, "PatchOptions")?;
    let mut body = super::super::yaml::decode(&call.request.body)?;
    let name = place.name.clone().unwrap_or_default();
    if body.pointer("/metadata/managedFields").is_some_and(|value| !value.is_null()) {
        return Err(Refusal::bad_request("metadata.managedFields must be nil"));
    }
    if text(&body, "/kind").is_empty() || text(&body, "/apiVersion").is_empty() {
        return Err(Refusal::bad_request(format!(
            "invalid object type: /{}, Kind={}",
            text(&body, "/apiVersion"),
            text(&body, "/kind")
        )));
    }
    check_kind(call, resource, &mut body)?;
    let named = object::name(&body);
    if !named.is_empty() && named != name {
        return Err(Refusal::bad_request(format!(
            "the name of the object ({named}) does not match the name on the URL ({name})"
        )));
    }
    check_namespace(resource, place, &mut body)?;
    object::set(&mut body, &["metadata", "name"], json!(name));
    let live = call.cluster.object(&key(resource, place));
    if let Some(live) = &live {
        check_version(resource, live, text(&body, "/metadata/resourceVersion"))?;
    } else if !sub.is_empty() {
        return Err(Refusal::not_found(resource, &name));
    } else {
        may_create(call, resource, place)?;
    }
    schema::check_unknown(call, resource, &mut body, schema::From::Apply)?;
    if !resource.custom {
        quantity::canonicalise(&mut body, "").map_err(|bad| Refusal::new(500, None, format!("failed to create typed patch object: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$': {bad}")))?;
    }
    let keep_status = sub == "status";
    if !keep_status && resource.sub("status").is_some() {
        object::remove(&mut body, &["status"]);
    }
    for path in ["resourceVersion", "uid", "creationTimestamp", "generation", "selfLink"] {
        object::remove(&mut body, &["metadata", path]);
    }
    let now = object::stamp(call.now);
    let who = Writer { manager: &manager, api_version: &resource.api_version(), subresource: sub, now: &now };
    let walk = Walk::root(resource.schema.as_deref(), resource.custom).of_kind(&resource.kind);
    let live_shown = live.as_ref().map(|live| shown(resource, live));
    let applied = apply::apply(live_shown.as_ref(), &body, who, call.request.flag("force"), &walk)?;
    let created = live.is_none();
    commit(call, resource, place, live, applied.object, Mode::Apply, sub)
        .map(|(_, object)| Answer::Object(if created { 201 } else { 200 }, shown(resource, &object)))
}

/// Admission, defaults, validation, ownership, storage. Answers whether anything changed, and the object.
pub(crate) fn commit(
    call: &mut Call<'_>,
    resource: &Resource,
    place: &Place,
    live: Option<Arc<Value>>,
    mut new: Value,
    mode: Mode,
    sub: &str,
) -> Result<(bool, Arc<Value>), Refusal> {
    let dry_run = call.dry_run()?;
    versions::to_stored(resource, &mut new);
    let key = Key::new(
        &resource.group,
        &resource.plural,
        if resource.namespaced { place.namespace.as_deref().unwrap_or_default() } else { "" },
        object::name(&new),
    );
    if let Some(live) = &live {
        keep_immutable(resource, live, &mut new, sub);
    } else {
        fresh_metadata(call, resource, &mut new);
    }
    if !resource.custom {
        quantity::canonicalise(&mut new, "").map_err(|bad| Refusal::bad_request(format!("{} in version \"{}\" cannot be handled as a {}: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$': {bad}", resource.kind, resource.version, resource.kind)))?;
        apply::drop_empty(&mut new);
    }
    defaults::prepare(resource, live.as_deref(), &mut new);
    defaults::fill(&resource.group, &resource.plural, &mut new);
    if let Some(schema) = &resource.schema {
        schema::fill_defaults(schema, &mut new);
    }
    admission::mutate(call, resource, live.as_deref(), &mut new)?;
    validate::check(call.cluster, resource, live.as_deref(), &new, sub)?;
    if live.is_none() && call.cluster.store.get(&key).is_some() {
        admission::namespace(call, resource, &key.namespace, object::name(&new))?;
        return Err(exists(call, resource, &key));
    }
    admission::check(call, resource, &key, live.as_deref(), &new, sub)?;
    count_generation(resource, live.as_deref(), &mut new, sub);
    let now = object::stamp(call.now);
    let manager = call.manager();
    let walk = Walk::root(resource.schema.as_deref(), resource.custom).of_kind(&resource.kind);
    if mode == Mode::Update {
        let who = Writer { manager: &manager, api_version: &resource.api_version(), subresource: sub, now: &now };
        apply::record_update(live.as_deref(), &mut new, who, &walk);
    }
    defaults::generate(&resource.group, &resource.plural, &mut new);
    if let Some(live) = &live
        && apply::same(live, &new)
    {
        return Ok((false, Arc::clone(live)));
    }
    if dry_run {
        if live.is_none() {
            object::remove(&mut new, &["metadata", "resourceVersion"]);
        }
        return Ok((true, Arc::new(new)));
    }
    storable(&new)?;
    let held = key.is("", "namespaces") && !list(&new, "/spec/finalizers").is_empty();
    if live.is_some()
        && object::deleting(&new)
        && list(&new, "/metadata/finalizers").is_empty()
        && object::int(&new, "/metadata/deletionGracePeriodSeconds").unwrap_or(0) == 0
        && !held
    {
        // The write that takes the last finalizer off is the deletion: it is answered under the version from before.
        call.cluster.store.delete(&key);
        return Ok((true, Arc::new(new)));
    }
    let stored = call.cluster.store.put(key.clone(), new);
    admission::after(call, resource, &key, live.as_deref(), &stored);
    Ok((true, stored))
}

/// Most bytes of one message to the storage.
const MOST_STORED: usize = 2_097_152;

/// What the storage does not take is an error without a reason, however often it is tried.
fn storable(new: &Value) -> Result<(), Refusal> {
    let size = serde_json::to_vec(new).map_or(0, |bytes| bytes.len());
    if size <= MOST_STORED {
        return Ok(());
    }
    let text = format!(
        "rpc error: code = ResourceExhausted desc = trying to send message larger than max ({size} vs. {MOST_STORED})"
    );
    Err(Refusal::new(500, None, text))
}

fn exists(call: &Call<'_>, resource: &Resource, key: &Key) -> Refusal {
    let deleting = call.cluster.object(key).is_some_and(|object| object::deleting(&object));
    let mut refusal = Refusal::already_exists(resource, &key.name);
    if deleting {
        refusal.message = format!("object is being deleted: {}", refusal.message);
    }
    refusal
}

fn fresh_metadata(call: &mut Call<'_>, resource: &Resource, new: &mut Value) {
    for field in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "selfLink",
        "resourceVersion",
    ] {
        object::remove(new, &["metadata", field]);
    }
    let uid = call.cluster.new_uid();
    object::set(new, &["metadata", "uid"], json!(uid));
    object::set(new, &["metadata", "creationTimestamp"], json!(object::stamp(call.now)));
    if resource.custom || has_generation(&resource.group, &resource.plural) {
        object::set(new, &["metadata", "generation"], json!(1));
    }
}

/// What a write cannot change: identity, times, and the half of the object that is not addressed.
fn keep_immutable(resource: &Resource, live: &Value, new: &mut Value, sub: &str) {
    for field in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "resourceVersion",
        "generateName",
        "selfLink",
    ] {
        match live.pointer(&format!("/metadata/{field}")) {
            Some(value) => object::set(new, &["metadata", field], value.clone()),
            None => {
                object::remove(new, &["metadata", field]);
            }
        }
    }
    if sub == "status" {
        let status = new.get("status").cloned();
        let managed = new.pointer("/metadata/managedFields").cloned();
        let mut whole = shown(resource, live);
        if let Some(status) = status {
            object::set(&mut whole, &["status"], status);
        }
        if let Some(managed) = managed {
            object::set(&mut whole, &["metadata", "managedFields"], managed);
        }
        *new = whole;
    } else if resource.sub("status").is_some() {
        match live.get("status") {
            Some(status) => object::set(new, &["status"], status.clone()),
            None => {
                object::remove(new, &["status"]);
            }
        }
    }
}

fn count_generation(resource: &Resource, live: Option<&Value>, new: &mut Value, sub: &str) {
    let Some(live) = live.filter(|_| sub != "status") else { return };
    let Some(generation) = object::int(live, "/metadata/generation") else { return };
    let changed = if resource.custom {
        let plain = |object: &Value| {
            let mut copy = object.clone();
            object::remove(&mut copy, &["metadata"]);
            object::remove(&mut copy, &["status"]);
            copy
        };
        plain(&shown(resource, live)) != plain(&shown(resource, new))
    } else if live.get("spec").is_some() || new.get("spec").is_some() {
        live.get("spec") != new.get("spec")
    } else {
        live.get("webhooks") != new.get("webhooks")
    };
    if changed {
        object::set(new, &["metadata", "generation"], json!(generation + 1));
    }
}
