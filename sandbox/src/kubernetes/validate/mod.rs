//! Validation of objects before they are stored: metadata here, kinds in files of their own. Only what clients of the sandbox can run into.

mod custom;
mod definition;
mod kinds;
mod workloads;

use serde_json::{Value, json};

use super::cluster::Cluster;
use super::object::{self, list, map, text};
use super::resources::Resource;
use super::status::{Cause, Refusal};

/// Checks an object before it is stored.
pub(crate) fn check(
    cluster: &Cluster,
    resource: &Resource,
    live: Option<&Value>,
    new: &Value,
    sub: &str,
) -> Result<(), Refusal> {
    let mut causes = Vec::new();
    if live.is_none() {
        name(resource, new, &mut causes);
    }
    metadata(live, new, &mut causes);
    if resource.custom {
        custom::check(resource, live, new, &mut causes);
    } else if sub != "status" {
        kind(cluster, resource, live, new, &mut causes);
    }
    if causes.is_empty() {
        Ok(())
    } else {
        // A custom resource may bring another kind than its own, and is named by it.
        let kind =
            Some(text(new, "/kind")).filter(|kind| resource.custom && !kind.is_empty()).unwrap_or(&resource.kind);
        Err(Refusal::invalid(&resource.group, kind, object::name(new), &causes))
    }
}

fn kind(cluster: &Cluster, resource: &Resource, live: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "configmaps") => kinds::config_map(live, new, causes),
        ("", "secrets") => kinds::secret(live, new, causes),
        ("", "services") => kinds::service(cluster, live, new, causes),
        ("", "namespaces") => kinds::namespace(new, causes),
        ("", "resourcequotas") => kinds::quota(new, causes),
        ("", "persistentvolumeclaims") => kinds::claim(live, new, causes),
        ("storage.k8s.io", "storageclasses") => kinds::storage_class(live, new, causes),
        ("networking.k8s.io", "networkpolicies") => kinds::network_policy(new, causes),
        ("", "pods") if live.is_none() => {
            if let Some(spec) = new.get("spec") {
                workloads::pod_spec(spec, "spec", &["Always", "OnFailure", "Never"], causes);
            }
        }
        ("apps", "deployments" | "replicasets" | "statefulsets" | "daemonsets") => {
            workloads::controller(resource, live, new, causes);
        }
        ("batch", "jobs") => workloads::job(live, new, causes),
        ("apiextensions.k8s.io", "customresourcedefinitions") => definition::check(new, causes),
        _ => {}
    }
}

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// Most bytes that all annotations of an object may have.
const MOST_ANNOTATIONS: usize = 262_144;

fn label_ok(text: &str) -> bool {
    let edge =
        |letter: Option<char>| letter.is_some_and(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit());
    edge(text.chars().next())
        && edge(text.chars().last())
        && text.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-')
}

/// Whether a text may be the name part of a label's key, or (if not empty) its value.
fn word_ok(text: &str) -> bool {
    let edge = |letter: Option<char>| letter.is_some_and(|letter| letter.is_ascii_alphanumeric());
    text.len() <= 63
        && edge(text.chars().next())
        && edge(text.chars().last())
        && text.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter))
}

fn name(resource: &Resource, new: &Value, causes: &mut Vec<Cause>) {
    let name = object::name(new);
    if name.is_empty() {
        causes.push(Cause::required("metadata.name", "name or generateName is required"));
        return;
    }
    let label = resource.is("", "namespaces") || resource.is("", "services");
    if resource.group == "rbac.authorization.k8s.io" {
        return;
    }
    if label && !label_ok(name) {
        causes.push(Cause::invalid("metadata.name", &json!(name), LABEL));
    } else if !label && !name.split('.').all(label_ok) {
        causes.push(Cause::invalid("metadata.name", &json!(name), SUBDOMAIN));
    }
    let most = if label { 63 } else { 253 };
    if name.len() > most {
        causes.push(Cause::invalid("metadata.name", &json!(name), &format!("must be no more than {most} bytes")));
    }
}

fn metadata(live: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
    for (key, value) in map(new, "/metadata/labels").into_iter().flatten() {
        let (prefix, word) = key.rsplit_once('/').map_or((None, key.as_str()), |(prefix, word)| (Some(prefix), word));
        if !word_ok(word) || prefix.is_some_and(|prefix| !prefix.split('.').all(label_ok)) {
            causes.push(Cause::invalid("metadata.labels", &json!(key), QUALIFIED));
        }
        let value = value.as_str().unwrap_or_default();
        if !value.is_empty() && !word_ok(value) {
            causes.push(Cause::invalid("metadata.labels", &json!(value), LABEL_VALUE));
        }
    }
    let size: usize = map(new, "/metadata/annotations")
        .into_iter()
        .flatten()
        .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len))
        .sum();
    if size > MOST_ANNOTATIONS {
        causes.push(Cause::too_long("metadata.annotations", &format!("may not be more than {MOST_ANNOTATIONS} bytes")));
    }
    for owner in list(new, "/metadata/ownerReferences") {
        for field in ["uid", "name", "kind", "apiVersion"] {
            if text(owner, &format!("/{field}")).is_empty() {
                causes.push(Cause::invalid(
                    format!("metadata.ownerReferences.{field}"),
                    &json!(""),
                    if field == "apiVersion" { "version must not be empty" } else { "must not be empty" },
                ));
            }
        }
    }
    if let Some(live) = live.filter(|live| object::deleting(live)) {
        let before = list(live, "/metadata/finalizers");
        let fresh: Vec<String> = list(new, "/metadata/finalizers")
            .iter()
            .filter(|each| !before.contains(each))
            .map(ToString::to_string)
            .collect();
        if !fresh.is_empty() {
            causes.push(Cause::forbidden(
                "metadata.finalizers",
                &format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    fresh.join(", ")
                ),
            ));
        }
    }
}

/// A field that may not change once it is set.
fn immutable(live: Option<&Value>, new: &Value, pointer: &str, field: &str, causes: &mut Vec<Cause>) {
    if let Some(live) = live
        && live.pointer(pointer) != new.pointer(pointer)
    {
        causes.push(Cause::invalid(field, new.pointer(pointer).unwrap_or(&Value::Null), "field is immutable"));
    }
}
