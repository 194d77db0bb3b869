//! Roles and bindings: nobody gives to others what they do not hold themselves.

use serde_json::Value;

use super::super::auth::{self, Wish};
use super::super::object::{self, list, text};
use super::super::resources::Resource;
use super::super::status::Refusal;
use super::super::verbs::Call;

/// Refuses a role, or a binding to one, that would give more than its writer has.
pub(crate) fn check(
    call: &Call<'_>,
    resource: &Resource,
    namespace: &str,
    live: Option<&Value>,
    new: &Value,
) -> Result<(), Refusal> {
    if resource.group != "rbac.authorization.k8s.io" {
        return Ok(());
    }
    let binding = resource.plural.ends_with("bindings");
    if live.is_some_and(|live| live.get("rules") == new.get("rules") && live.get("subjects") == new.get("subjects")) {
        return Ok(());
    }
    let target =
        if binding { format!("{}s", text(new, "/roleRef/kind").to_lowercase()) } else { resource.plural.clone() };
    let wish = Wish {
        verb: if binding { "bind" } else { "escalate" }.to_owned(),
        group: resource.group.clone(),
        resource: target,
        namespace: namespace.to_owned(),
        name: if binding { text(new, "/roleRef/name") } else { object::name(new) }.to_owned(),
        path: None,
    };
    if auth::allowed(call.cluster, &call.user, &wish).is_some() {
        return Ok(());
    }
    let rules = if binding { auth::rules_of(call.cluster, new, namespace) } else { list(new, "/rules").to_vec() };
    let missing = auth::not_held(call.cluster, &call.user, namespace, &rules);
    if missing.is_empty() {
        return Ok(());
    }
    let groups: Vec<String> = call.user.groups.iter().map(|group| format!("\"{group}\"")).collect();
    let why = format!(
        "user \"{}\" (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
        call.user.name,
        groups.join(" "),
        missing.iter().map(shown).collect::<Vec<_>>().join("\n")
    );
    Err(Refusal::forbidden(resource, object::name(new), &why))
}

fn shown(rule: &Value) -> String {
    let parts: Vec<String> = [
        ("APIGroups", "/apiGroups"),
        ("Resources", "/resources"),
        ("ResourceNames", "/resourceNames"),
        ("NonResourceURLs", "/nonResourceURLs"),
        ("Verbs", "/verbs"),
    ]
    .into_iter()
    .filter(|(_, pointer)| !list(rule, pointer).is_empty())
    .map(|(name, pointer)| {
        let texts: Vec<String> = list(rule, pointer).iter().map(ToString::to_string).collect();
        format!("{name}:[{}]", texts.join(" "))
    })
    .collect();
    format!("{{{}}}", parts.join(", "))
}
