//! Compares what the server stores with what it would store after our apply: only real changes differ.
//!
//! Both sides went through the same defaulting, so a default the server fills in is never a difference.

use platflow_engine::step::Difference;
use serde_json::{Map, Value};

/// What the server changes on its own with every write.
const BOOKKEEPING: &[&str] =
    &["managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink"];

/// The differences between the stored object and the one that our apply would leave. Values of secrets are not shown.
pub(super) fn differences(stored: &Value, applied: &Value) -> Vec<Difference> {
    let secret = stored.get("kind").and_then(Value::as_str) == Some("Secret");
    let mut found = Vec::new();
    compare(&without_bookkeeping(applied), &without_bookkeeping(stored), "", &mut found);
    if secret {
        for difference in &mut found {
            if difference.field.starts_with("/data") || difference.field.starts_with("/stringData") {
                difference.wanted = hidden(&difference.wanted);
                difference.found = hidden(&difference.found);
            }
        }
    }
    found
}

fn hidden(value: &Value) -> Value {
    if value.is_null() { Value::Null } else { Value::String("(not shown)".to_owned()) }
}

fn without_bookkeeping(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(object) = object.as_object_mut() {
        object.remove("status");
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.retain(|field, _| !BOOKKEEPING.contains(&field.as_str()));
        }
    }
    object
}

fn compare(wanted: &Value, found: &Value, at: &str, into: &mut Vec<Difference>) {
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(found)) => compare_members(wanted, found, at, into),
        (Value::Array(wanted), Value::Array(found)) if wanted.len() == found.len() => {
            for (index, (wanted, found)) in wanted.iter().zip(found).enumerate() {
                compare(wanted, found, &format!("{at}/{index}"), into);
            }
        }
        _ if wanted != found => {
            into.push(Difference { field: at.to_owned(), wanted: wanted.clone(), found: found.clone(), replace: false })
        }
        _ => {}
    }
}

fn compare_members(wanted: &Map<String, Value>, found: &Map<String, Value>, at: &str, into: &mut Vec<Difference>) {
    let fields = wanted.keys().chain(found.keys().filter(|field| !wanted.contains_key(*field)));
    for field in fields {
        let pointer = format!("{at}/{}", field.replace('~', "~0").replace('/', "~1"));
        let (wanted, found) = (wanted.get(field).unwrap_or(&Value::Null), found.get(field).unwrap_or(&Value::Null));
        compare(wanted, found, &pointer, into);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Proves that bookkeeping and status never differ, that a changed, missing and surplus field each differ at their
    /// JSON pointer, and that a secret's values stay hidden.
    #[test]
    fn only_real_changes_differ() {
        let stored = json!({"kind": "Secret", "metadata": {"name": "a", "generation": 1, "uid": "u"}, "status": {"x": 1},
            "data": {"p": "b2xk"}, "spec": {"a/b": [1, 2], "gone": true}});
        let applied = json!({"kind": "Secret", "metadata": {"name": "a", "generation": 2, "uid": "v"},
            "data": {"p": "bmV3"}, "spec": {"a/b": [1, 3], "new": 1}});
        let found = differences(&stored, &applied);
        let pointers: Vec<&str> = found.iter().map(|difference| difference.field.as_str()).collect();
        assert_eq!(pointers, ["/data/p", "/spec/a~1b/1", "/spec/new", "/spec/gone"]);
        assert!(!format!("{found:?}").contains("bmV3") && !format!("{found:?}").contains("b2xk"));
        assert!(differences(&stored, &stored).is_empty());
    }
}
