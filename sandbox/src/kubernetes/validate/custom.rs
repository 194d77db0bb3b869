//! Validation of custom resources by their structural schema, and by its CEL rules once the schema itself holds.

use serde_json::{Value, json};

use super::super::expressions;
use super::super::object::{self, flag, list, text};
use super::super::resources::Resource;
use super::super::status::Cause;

/// Checks an object of a custom resource.
pub(super) fn check(resource: &Resource, live: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
    let Some(schema) = resource.schema.as_deref() else { return };
    if text(new, "/kind") != resource.kind && !text(new, "/kind").is_empty() {
        causes.push(Cause::invalid("kind", &json!(text(new, "/kind")), &format!("must be {}", resource.kind)));
    }
    let mut found = Vec::new();
    value(schema, new, "", true, &mut found);
    // A value of the wrong shape would make a rule fail for the wrong reason: those are not asked then.
    let blocking = found.iter().any(|cause| {
        matches!(
            cause.reason,
            "FieldValueRequired" | "FieldValueTooLong" | "FieldValueTooMany" | "FieldValueTypeInvalid"
        )
    });
    if !blocking {
        rules(schema, live, new, "", &mut found);
    } else if has_rules(schema) {
        found.push(Cause::invalid("<nil>", &Value::Null, "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation"));
    }
    causes.append(&mut found);
}

fn has_rules(schema: &Value) -> bool {
    schema.get("x-kubernetes-validations").is_some()
        || object::map(schema, "/properties").into_iter().flatten().any(|(_, below)| has_rules(below))
        || schema.get("items").is_some_and(has_rules)
        || schema.get("additionalProperties").is_some_and(has_rules)
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn value(schema: &Value, given: &Value, path: &str, root: bool, found: &mut Vec<Cause>) {
    let (wanted, is) = (text(schema, "/type"), kind_of(given));
    if given.is_null() && flag(schema, "/nullable") {
        return;
    }
    let fits = wanted.is_empty()
        || wanted == is
        || wanted == "number" && is == "integer"
        || flag(schema, "/x-kubernetes-int-or-string") && matches!(is, "integer" | "string");
    if !fits {
        found.push(Cause {
            reason: "FieldValueTypeInvalid",
            field: path.to_owned(),
            message: format!("Invalid value: \"{is}\": {path} in body must be of type {wanted}: \"{is}\""),
        });
        return;
    }
    bounds(schema, given, path, found);
    match given {
        Value::Object(map) => {
            for name in list(schema, "/required").iter().filter_map(Value::as_str) {
                if !map.contains_key(name) {
                    found.push(Cause::required(join(path, name), ""));
                }
            }
            for (key, below) in map {
                if root && matches!(key.as_str(), "apiVersion" | "kind" | "metadata") {
                    continue;
                }
                let inner = schema
                    .get("properties")
                    .and_then(|all| all.get(key))
                    .or_else(|| schema.get("additionalProperties").filter(|more| more.is_object()));
                if let Some(inner) = inner {
                    value(inner, below, &join(path, key), false, found);
                }
            }
        }
        Value::Array(items) => {
            if let Some(inner) = schema.get("items") {
                for (at, item) in items.iter().enumerate() {
                    value(inner, item, &format!("{path}[{at}]"), false, found);
                }
            }
        }
        _ => {}
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn bounds(schema: &Value, given: &Value, path: &str, found: &mut Vec<Cause>) {
    let count = |name: &str| schema.get(name).and_then(Value::as_u64).and_then(|it| usize::try_from(it).ok());
    let number = |name: &str| schema.get(name).and_then(Value::as_f64);
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(given)
    {
        let texts: Vec<&str> = allowed.iter().filter_map(Value::as_str).collect();
        found.push(Cause::unsupported(path, given, &texts));
    }
    match given {
        Value::Number(_) => {
            let is = given.as_f64().unwrap_or(0.0);
            if let Some(most) = number("maximum").filter(|most| is > *most) {
                let why = format!("{path} in body should be less than or equal to {most}");
                found.push(Cause::invalid(path, given, &why));
            }
            if let Some(least) = number("minimum").filter(|least| is < *least) {
                let why = format!("{path} in body should be greater than or equal to {least}");
                found.push(Cause::invalid(path, given, &why));
            }
        }
        Value::String(text) => {
            let length = text.chars().count();
            if let Some(most) = count("maxLength").filter(|most| length > *most) {
                found.push(Cause::too_long(path, &format!("may not be more than {most} bytes")));
                return;
            }
            if let Some(least) = count("minLength").filter(|least| length < *least) {
                let why = format!("{path} in body should be at least {least} chars long");
                found.push(Cause::invalid(path, given, &why));
            }
            if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
                && !expressions::matches(text, pattern)
            {
                found.push(Cause::invalid(path, given, &format!("{path} in body should match '{pattern}'")));
            }
        }
        Value::Array(items) => {
            if let Some(most) = count("maxItems").filter(|most| items.len() > *most) {
                found.push(Cause::too_many(path, items.len(), most));
            }
            if let Some(least) = count("minItems").filter(|least| items.len() < *least) {
                let why = format!("{path} in body should have at least {least} items");
                found.push(Cause::invalid(path, &json!(items.len()), &why));
            }
        }
        _ => {}
    }
}

/// The CEL rules of a schema, and of everything below it that is there.
fn rules(schema: &Value, live: Option<&Value>, given: &Value, path: &str, found: &mut Vec<Cause>) {
    for rule in list(schema, "/x-kubernetes-validations") {
        let expression = text(rule, "/rule");
        // A rule about the change has nothing to say about a first value.
        if expression.contains("oldSelf") && live.is_none() {
            continue;
        }
        let mut names = vec![("self", given)];
        if let Some(live) = live {
            names.push(("oldSelf", live));
        }
        let why = match expressions::holds(expression, &names) {
            // A rule that only a real server can evaluate refuses nothing here.
            Ok(true) | Err(_) => continue,
            Ok(false) if text(rule, "/message").is_empty() => format!("failed rule: {expression}"),
            Ok(false) => text(rule, "/message").to_owned(),
        };
        found.push(match text(rule, "/reason") {
            "FieldValueForbidden" => Cause::forbidden(path, &why),
            "FieldValueRequired" => Cause::required(path, &why),
            "FieldValueDuplicate" => Cause::duplicate(path, given),
            _ => {
                Cause { reason: "FieldValueInvalid", field: path.to_owned(), message: format!("Invalid value: {why}") }
            }
        });
    }
    match given {
        Value::Object(map) => {
            for (key, below) in map {
                let inner = schema
                    .get("properties")
                    .and_then(|all| all.get(key))
                    .or_else(|| schema.get("additionalProperties").filter(|more| more.is_object()));
                if let Some(inner) = inner {
                    rules(inner, live.and_then(|live| live.get(key)), below, &join(path, key), found);
                }
            }
        }
        Value::Array(items) => {
            if let Some(inner) = schema.get("items") {
                // Which old item an item was is known only for keyed lists: rules about the change are left out.
                for (at, item) in items.iter().enumerate() {
                    rules(inner, None, item, &format!("{path}[{at}]"), found);
                }
            }
        }
        _ => {}
    }
}
