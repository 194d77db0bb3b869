//! What the schema of a kind says about a body: unknown fields, and for custom resources types, defaults and rules of the structural schema.
//! Built-in kinds are held against the generated types of `k8s-openapi`: what a round trip loses is unknown.

mod order;

use std::collections::BTreeSet;

use k8s_openapi::api;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::object::{self, flag, text};
use super::resources::Resource;
use super::status::{Cause, Refusal};
use super::verbs::Call;

/// The write that brings a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// POST or PUT.
    Create,
    /// A plain patch.
    Patch,
    /// Server-side apply.
    Apply,
}

fn lost<T: DeserializeOwned + Serialize>(body: &Value) -> Result<Vec<String>, String> {
    let typed: T = serde_json::from_value(body.clone()).map_err(|error| error.to_string())?;
    let back = serde_json::to_value(&typed).map_err(|error| error.to_string())?;
    let mut found = Vec::new();
    difference(body, &back, "", &mut found);
    Ok(found)
}

fn difference(body: &Value, back: &Value, path: &str, found: &mut Vec<String>) {
    match (body, back) {
        (Value::Object(body), Value::Object(back)) => {
            for (key, value) in body {
                let here = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match back.get(key) {
                    Some(below) => difference(value, below, &here, found),
                    None if value.is_null() => {}
                    None => found.push(here),
                }
            }
        }
        (Value::Array(body), Value::Array(back)) => {
            for (at, (value, below)) in body.iter().zip(back).enumerate() {
                difference(value, below, &format!("{path}[{at}]"), found);
            }
        }
        _ => {}
    }
}

fn builtin_unknown(resource: &Resource, body: &Value) -> Result<Vec<String>, String> {
    macro_rules! by_kind {
        ($($group:literal, $plural:literal => $kind:ty;)*) => {
            match (resource.group.as_str(), resource.plural.as_str()) {
                $(($group, $plural) => lost::<$kind>(body),)*
                _ => Ok(Vec::new()),
            }
        };
    }
    by_kind! {
        "", "configmaps" => api::core::v1::ConfigMap;
        "", "endpoints" => api::core::v1::Endpoints;
        "", "limitranges" => api::core::v1::LimitRange;
        "", "namespaces" => api::core::v1::Namespace;
        "", "nodes" => api::core::v1::Node;
        "", "persistentvolumeclaims" => api::core::v1::PersistentVolumeClaim;
        "", "persistentvolumes" => api::core::v1::PersistentVolume;
        "", "pods" => api::core::v1::Pod;
        "", "resourcequotas" => api::core::v1::ResourceQuota;
        "", "secrets" => api::core::v1::Secret;
        "", "serviceaccounts" => api::core::v1::ServiceAccount;
        "", "services" => api::core::v1::Service;
        "apps", "daemonsets" => api::apps::v1::DaemonSet;
        "apps", "deployments" => api::apps::v1::Deployment;
        "apps", "replicasets" => api::apps::v1::ReplicaSet;
        "apps", "statefulsets" => api::apps::v1::StatefulSet;
        "batch", "cronjobs" => api::batch::v1::CronJob;
        "batch", "jobs" => api::batch::v1::Job;
        "coordination.k8s.io", "leases" => api::coordination::v1::Lease;
        "networking.k8s.io", "ingresses" => api::networking::v1::Ingress;
        "networking.k8s.io", "networkpolicies" => api::networking::v1::NetworkPolicy;
        "policy", "poddisruptionbudgets" => api::policy::v1::PodDisruptionBudget;
        "rbac.authorization.k8s.io", "clusterrolebindings" => api::rbac::v1::ClusterRoleBinding;
        "rbac.authorization.k8s.io", "clusterroles" => api::rbac::v1::ClusterRole;
        "rbac.authorization.k8s.io", "rolebindings" => api::rbac::v1::RoleBinding;
        "rbac.authorization.k8s.io", "roles" => api::rbac::v1::Role;
        "storage.k8s.io", "storageclasses" => api::storage::v1::StorageClass;
        "scheduling.k8s.io", "priorityclasses" => api::scheduling::v1::PriorityClass;
    }
}

/// Refuses, warns about or ignores fields that the kind does not have, and drops them.
pub(crate) fn check_unknown(
    call: &mut Call<'_>,
    resource: &Resource,
    body: &mut Value,
    from: From,
) -> Result<(), Refusal> {
    let mut unknown = match &resource.schema {
        Some(schema) => {
            let mut found = Vec::new();
            prune(schema, body, "", true, &mut found);
            found
        }
        None => {
            let mut tidy = body.clone();
            let quantities = super::quantity::canonicalise(&mut tidy, "");
            match (builtin_unknown(resource, &tidy), quantities) {
                (Ok(unknown), _) => unknown,
                (Err(_), Err(_)) => Vec::new(),
                (Err(error), Ok(())) => return Err(undecodable(call, resource, from, &error)),
            }
        }
    };
    let order = order::paths(&call.request.body);
    let mut seen = BTreeSet::new();
    let twice: Vec<&String> = order.iter().filter(|path| !seen.insert(*path)).collect();
    if unknown.is_empty() && (twice.is_empty() || from == From::Apply) {
        return Ok(());
    }
    for path in &unknown {
        drop_path(body, path);
    }
    unknown.sort_by_key(|path| order.iter().position(|each| each == path));
    if from == From::Apply {
        return Err(undeclared(resource, body, &unknown));
    }
    let texts: Vec<String> = unknown
        .iter()
        .map(|path| format!("unknown field \"{path}\""))
        .chain(twice.iter().map(|path| format!("duplicate field \"{path}\"")))
        .collect();
    match call.request.query("fieldValidation").unwrap_or("Warn") {
        "Ignore" => Ok(()),
        "Strict" if from == From::Patch => {
            Err(bad_patch(call, &format!("strict decoding error: {}", texts.join(", "))))
        }
        "Strict" => Err(Refusal::bad_request(format!(
            "{} in version \"{}\" cannot be handled as a {}: strict decoding error: {}",
            resource.kind,
            resource.version,
            resource.kind,
            texts.join(", ")
        ))),
        _ => {
            call.warnings.extend(texts);
            Ok(())
        }
    }
}

/// Server-side apply of fields that the kind does not have.
fn undeclared(resource: &Resource, body: &Value, unknown: &[String]) -> Refusal {
    let version = if resource.group.is_empty() { format!("/{}", resource.version) } else { resource.api_version() };
    let lines: Vec<String> = unknown.iter().map(|path| format!(".{path}: field not declared in schema")).collect();
    let what = match lines.as_slice() {
        [only] => only.clone(),
        many => format!("errors:\n{}", many.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")),
    };
    Refusal::new(
        500,
        None,
        format!(
            "failed to create typed patch object (/{}; {version}, Kind={}): {what}",
            object::name(body),
            resource.kind
        ),
    )
}

/// A patch whose outcome is no object of the kind: the refusal is about the patch and names no object.
fn bad_patch(call: &Call<'_>, why: &str) -> Refusal {
    let cause = Cause {
        reason: "FieldValueInvalid",
        field: "patch".to_owned(),
        message: format!("Invalid value: \"{}\": {why}", String::from_utf8_lossy(&call.request.body)),
    };
    Refusal::invalid("", "", "", &[cause])
}

fn undecodable(call: &Call<'_>, resource: &Resource, from: From, error: &str) -> Refusal {
    if from == From::Apply {
        return Refusal::new(500, None, format!("failed to create typed patch object: {error}"));
    }
    if from == From::Patch {
        return bad_patch(call, error);
    }
    Refusal::bad_request(format!(
        "{} in version \"{}\" cannot be handled as a {}: json: {error}",
        resource.kind, resource.version, resource.kind
    ))
}

fn drop_path(body: &mut Value, path: &str) {
    let pointer = format!("/{}", path.replace('[', ".").replace(']', "").replace('.', "/"));
    let Some((parent, last)) = pointer.rsplit_once('/') else { return };
    if let Some(Value::Object(map)) = body.pointer_mut(parent) {
        map.remove(last);
    }
}

/// Drops what a structural schema does not name.
fn prune(schema: &Value, value: &mut Value, path: &str, root: bool, found: &mut Vec<String>) {
    if flag(schema, "/x-kubernetes-preserve-unknown-fields") {
        return;
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    match value {
        Value::Object(map) => {
            if let Some(more) = schema.get("additionalProperties") {
                if more.is_object() {
                    for (key, below) in map.iter_mut() {
                        prune(more, below, format!("{path}.{key}").trim_start_matches('.'), false, found);
                    }
                }
                return;
            }
            if properties.is_none()
                && !root
                && !flag(schema, "/x-kubernetes-embedded-resource")
                && text(schema, "/type") != "object"
            {
                return;
            }
            let mut gone = Vec::new();
            for (key, below) in map.iter_mut() {
                if root && matches!(key.as_str(), "apiVersion" | "kind" | "metadata") {
                    continue;
                }
                let here = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match properties.and_then(|properties| properties.get(key)) {
                    Some(inner) => prune(inner, below, &here, false, found),
                    None => gone.push((key.clone(), here)),
                }
            }
            for (key, here) in gone {
                map.remove(&key);
                found.push(here);
            }
        }
        Value::Array(items) => {
            if let Some(inner) = schema.get("items") {
                for (at, item) in items.iter_mut().enumerate() {
                    prune(inner, item, &format!("{path}[{at}]"), false, found);
                }
            }
        }
        _ => {}
    }
}

/// Fills in the defaults of a structural schema.
pub(crate) fn fill_defaults(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
                for (key, inner) in properties {
                    if !map.contains_key(key)
                        && let Some(default) = inner.get("default")
                    {
                        map.insert(key.clone(), default.clone());
                    }
                    if let Some(below) = map.get_mut(key) {
                        fill_defaults(inner, below);
                    }
                }
            }
            if let Some(more) = schema.get("additionalProperties").filter(|more| more.is_object()) {
                for below in map.values_mut() {
                    fill_defaults(more, below);
                }
            }
        }
        Value::Array(items) => {
            if let Some(inner) = schema.get("items") {
                for item in items {
                    fill_defaults(inner, item);
                }
            }
        }
        _ => {}
    }
}
