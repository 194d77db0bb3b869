//! What has to hold of a body and its options before a write begins.

use serde_json::{Value, json};

use super::super::auth::{self, Wish};
use super::super::object::{self, text};
use super::super::resources::Resource;
use super::super::route::Place;
use super::super::status::{Cause, Refusal};
use super::Call;

/// An apply that would create wants the right to create, too.
pub(super) fn may_create(call: &Call<'_>, resource: &Resource, place: &Place) -> Result<(), Refusal> {
    let wish = Wish {
        verb: "create".to_owned(),
        group: resource.group.clone(),
        resource: resource.plural.clone(),
        namespace: place.namespace.clone().unwrap_or_default(),
        name: place.name.clone().unwrap_or_default(),
        path: None,
    };
    if auth::allowed(call.cluster, &call.user, &wish).is_some() {
        return Ok(());
    }
    Err(auth::refuse(&call.user, &wish))
}

/// Whether the body is of the kind that the path names; where it names none, it becomes one.
pub(super) fn check_kind(call: &mut Call<'_>, resource: &Resource, body: &mut Value) -> Result<(), Refusal> {
    if !body.is_object() {
        return Err(Refusal::bad_request(
            "couldn't get version/kind; json parse error: json: cannot unmarshal into Go value of type struct",
        ));
    }
    let (version, kind) = (text(body, "/apiVersion").to_owned(), text(body, "/kind").to_owned());
    if version.is_empty() && kind.is_empty() && !resource.custom {
        object::set(body, &["apiVersion"], json!(resource.api_version()));
        object::set(body, &["kind"], json!(resource.kind));
        return Ok(());
    }
    let wanted = if version.contains('/') { version.clone() } else { format!("/{version}") };
    if version.is_empty() || kind.is_empty() {
        return Err(Refusal::bad_request(format!("Object 'Kind' is missing in '{body}'")));
    }
    if resource.custom && version != resource.api_version() {
        // Nothing of a version without a schema is known.
        let fields = body.as_object().into_iter().flatten().map(|(field, _)| field);
        let unknown = fields.filter(|field| !matches!(field.as_str(), "apiVersion" | "kind" | "metadata"));
        call.warnings.extend(unknown.map(|field| format!("unknown field \"{field}\"")));
        return Err(Refusal::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({})",
            resource.api_version()
        )));
    }
    // Another kind of a custom resource is found out by validation.
    if version != resource.api_version() || kind != resource.kind && !resource.custom {
        return Err(Refusal::bad_request(format!(
            "{kind} in version \"{version}\" cannot be handled as a {}: no kind \"{kind}\" is registered for version \"{}\"",
            resource.kind,
            wanted.trim_start_matches('/')
        )));
    }
    Ok(())
}

/// Whether the body is of the namespace that the path names.
pub(super) fn check_namespace(resource: &Resource, place: &Place, body: &mut Value) -> Result<(), Refusal> {
    if !resource.namespaced {
        object::remove(body, &["metadata", "namespace"]);
        return Ok(());
    }
    let wanted = place.namespace.clone().unwrap_or_default();
    let given = object::namespace(body);
    if !given.is_empty() && given != wanted {
        return Err(Refusal::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    object::set(body, &["metadata", "namespace"], json!(wanted));
    Ok(())
}

/// Checks the options of a write.
pub(super) fn check_manager(call: &Call<'_>, options: &str) -> Result<(), Refusal> {
    let mut causes = Vec::new();
    if call.request.query("fieldManager").is_some_and(|manager| manager.len() > 128) {
        causes.push(Cause::too_long("fieldManager", "may not be more than 128 bytes"));
    }
    if let Some(mode) = call.request.query("fieldValidation")
        && !["", "Ignore", "Warn", "Strict"].contains(&mode)
    {
        causes.push(Cause::unsupported("fieldValidation", &json!(mode), &["", "Ignore", "Strict", "Warn"]));
    }
    if causes.is_empty() { Ok(()) } else { Err(Refusal::invalid("meta.k8s.io", options, "", &causes)) }
}

/// Whether the body is in a form that is read.
pub(super) fn check_media(call: &Call<'_>, accepted: &[&str]) -> Result<(), Refusal> {
    let kind = call.request.content_type.as_deref().unwrap_or("application/json");
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if kind.is_empty() || accepted.contains(&kind) {
        return Ok(());
    }
    Err(Refusal::new(
        415,
        Some("UnsupportedMediaType"),
        format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        ),
    ))
}
