//! ValidatingAdmissionPolicies: CEL over the new object, where a binding names the policy and means to deny.

use serde_json::{Value, json};

use super::super::expressions;
use super::super::object::{self, list, text};
use super::super::resources::Resource;
use super::super::selectors::LabelSelector;
use super::super::status::Refusal;
use super::super::store::Key;
use super::super::verbs::Call;

const GROUP: &str = "admissionregistration.k8s.io";

/// How long a binding takes until it holds: servers hear of it through a watch, and compile it.
const HEARD_OF_MS: i128 = 1_800;

/// Evaluates the policies that match a write.
pub(crate) fn check(
    call: &mut Call<'_>,
    resource: &Resource,
    key: &Key,
    live: Option<&Value>,
    new: &Value,
) -> Result<(), Refusal> {
    if resource.group == GROUP {
        return Ok(());
    }
    let bindings: Vec<std::sync::Arc<Value>> = call
        .cluster
        .store
        .list(GROUP, "validatingadmissionpolicybindings", None)
        .map(|(_, binding)| std::sync::Arc::clone(binding))
        .collect();
    for binding in bindings {
        let name = text(&binding, "/spec/policyName");
        let Some(policy) = call.cluster.object(&Key::new(GROUP, "validatingadmissionpolicies", "", name)) else {
            continue;
        };
        let age = object::time_at(&binding, "/metadata/creationTimestamp")
            .map_or(0, |since| call.now.duration_since(since).as_millis());
        if age < HEARD_OF_MS
            || !matches(call, &policy, "/spec/matchConstraints", resource, key, live, new)
            || !matches(call, &binding, "/spec/matchResources", resource, key, live, new)
        {
            continue;
        }
        judge(call, &policy, &binding, resource, live, new)?;
    }
    Ok(())
}

fn judge(
    call: &mut Call<'_>,
    policy: &Value,
    binding: &Value,
    resource: &Resource,
    live: Option<&Value>,
    new: &Value,
) -> Result<(), Refusal> {
    let null = Value::Null;
    let names = [("object", new), ("oldObject", live.unwrap_or(&null))];
    for validation in list(policy, "/spec/validations") {
        let expression = text(validation, "/expression");
        // What only a real server can evaluate refuses nothing here.
        if expressions::holds(expression, &names).unwrap_or(true) {
            continue;
        }
        let said = text(validation, "/message");
        let said = if said.is_empty() { format!("failed expression: {expression}") } else { said.to_owned() };
        let message = format!(
            "ValidatingAdmissionPolicy '{}' with binding '{}' denied request: {said}",
            object::name(policy),
            object::name(binding)
        );
        let acts = |action: &str| list(binding, "/spec/validationActions").iter().any(|each| each == action);
        if acts("Warn") {
            call.warnings.push(format!(
                "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {said}",
                object::name(policy),
                object::name(binding)
            ));
        }
        if acts("Deny") {
            return Err(denied(resource, object::name(new), &message, text(validation, "/reason")));
        }
    }
    Ok(())
}

fn denied(resource: &Resource, name: &str, message: &str, reason: &str) -> Refusal {
    let mut refusal = Refusal::forbidden(resource, name, message);
    (refusal.code, refusal.reason) = match reason {
        "Forbidden" => (403, Some("Forbidden")),
        "Unauthorized" => (401, Some("Unauthorized")),
        "RequestEntityTooLarge" => (413, Some("RequestEntityTooLarge")),
        _ => (422, Some("Invalid")),
    };
    if let Some(details) = &mut refusal.details {
        object::set(details, &["causes"], json!([{"message": message}]));
    }
    refusal
}

fn matches(
    call: &Call<'_>,
    from: &Value,
    pointer: &str,
    resource: &Resource,
    key: &Key,
    live: Option<&Value>,
    new: &Value,
) -> bool {
    let Some(constraints) = from.pointer(pointer) else { return true };
    let operation = if live.is_none() { "CREATE" } else { "UPDATE" };
    let rules = list(constraints, "/resourceRules");
    let has = |rule: &Value, pointer: &str, wanted: &str| {
        list(rule, pointer).iter().any(|each| each == "*" || each == wanted)
    };
    let ruled = rules.is_empty()
        || rules.iter().any(|rule| {
            has(rule, "/operations", operation)
                && has(rule, "/apiGroups", &resource.group)
                && has(rule, "/apiVersions", &resource.version)
                && has(rule, "/resources", &resource.plural)
        });
    let selector = |name: &str| LabelSelector::of_object(constraints.get(name).unwrap_or(&Value::Null));
    ruled
        && (constraints.get("objectSelector").is_none() || selector("objectSelector").selects(new))
        && (key.namespace.is_empty()
            || constraints.get("namespaceSelector").is_none()
            || call
                .cluster
                .object(&Key::core("namespaces", "", &key.namespace))
                .is_some_and(|namespace| selector("namespaceSelector").selects(&namespace)))
}
