//! Validation of CustomResourceDefinitions: the name, and that every schema is structural.

use serde_json::{Value, json};

use super::super::object::{self, flag, list, text};
use super::super::status::Cause;

/// A definition.
pub(super) fn check(new: &Value, causes: &mut Vec<Cause>) {
    let wanted = format!("{}.{}", text(new, "/spec/names/plural"), text(new, "/spec/group"));
    if object::name(new) != wanted {
        causes.push(Cause::invalid(
            "metadata.name",
            &json!(object::name(new)),
            "must be spec.names.plural+\".\"+spec.group",
        ));
    }
    let versions = list(new, "/spec/versions");
    for (at, version) in versions.iter().enumerate() {
        // With one version alone the schema is named as that of the whole definition.
        let path = if versions.len() == 1 {
            "spec.validation.openAPIV3Schema".to_owned()
        } else {
            format!("spec.versions[{at}].schema.openAPIV3Schema")
        };
        match version.pointer("/schema/openAPIV3Schema") {
            Some(schema) => structural(schema, &path, "must not be empty at the root", causes),
            None => causes
                .push(Cause::required(format!("spec.versions[{at}].schema.openAPIV3Schema"), "schemas are required")),
        }
    }
}

fn structural(schema: &Value, path: &str, why: &str, causes: &mut Vec<Cause>) {
    let open = flag(schema, "/x-kubernetes-preserve-unknown-fields") || flag(schema, "/x-kubernetes-int-or-string");
    if text(schema, "/type").is_empty() && !open {
        causes.push(Cause::required(format!("{path}.type"), why));
    }
    for (name, below) in object::map(schema, "/properties").into_iter().flatten() {
        structural(
            below,
            &format!("{path}.properties[{name}]"),
            "must not be empty for specified object fields",
            causes,
        );
    }
    if let Some(items) = schema.get("items") {
        structural(items, &format!("{path}.items"), "must not be empty for specified array items", causes);
    }
    if let Some(more) = schema.get("additionalProperties").filter(|more| more.is_object()) {
        structural(
            more,
            &format!("{path}.additionalProperties"),
            "must not be empty for specified object fields",
            causes,
        );
    }
}
