//! Admission: what changes or refuses a write after it was authorised and before it is stored. Each rule has a file of its own.

use serde_json::{Value, json};

use super::object;
use super::resources::Resource;
use super::status::Refusal;
use super::store::Key;
use super::verbs::Call;

/// Fills in what admission plugins add.
pub(crate) fn mutate(
    _call: &mut Call<'_>,
    _resource: &Resource,
    _live: Option<&Value>,
    _new: &mut Value,
) -> Result<(), Refusal> {
    Ok(())
}

/// Refuses what admission plugins refuse.
pub(crate) fn check(
    call: &mut Call<'_>,
    resource: &Resource,
    key: &Key,
    live: Option<&Value>,
    _new: &Value,
    _sub: &str,
) -> Result<(), Refusal> {
    if live.is_none() {
        namespace(call, resource, &key.namespace, &key.name)?;
    }
    Ok(())
}

/// Follows a stored write.
pub(crate) fn after(call: &mut Call<'_>, resource: &Resource, _key: &Key, _live: Option<&Value>, _stored: &Value) {
    if resource.is("apiextensions.k8s.io", "customresourcedefinitions") {
        call.cluster.refresh_definitions();
    }
}

/// Nothing is created in a namespace that is missing or on its way out.
pub(crate) fn namespace(call: &Call<'_>, resource: &Resource, namespace: &str, name: &str) -> Result<(), Refusal> {
    if namespace.is_empty() {
        return Ok(());
    }
    let Some(found) = call.cluster.object(&Key::core("namespaces", "", namespace)) else {
        let mut refusal = Refusal::new(404, Some("NotFound"), format!("namespaces \"{namespace}\" not found"));
        refusal.details = Some(json!({"name": namespace, "kind": "namespaces"}));
        return Err(refusal);
    };
    if object::deleting(&found) {
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        return Err(Refusal::forbidden(resource, name, &why).with_cause(
            "NamespaceTerminating",
            &format!("namespace {namespace} is being terminated"),
            Some("metadata.namespace"),
        ));
    }
    Ok(())
}
