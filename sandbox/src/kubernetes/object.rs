//! Small readers and writers on Kubernetes objects as JSON. Nothing here knows a kind.

use jiff::Timestamp;
use serde_json::{Map, Value};

/// The text at a JSON pointer, or an empty one.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The integer at a JSON pointer.
pub(crate) fn int(value: &Value, pointer: &str) -> Option<i64> {
    value.pointer(pointer).and_then(Value::as_i64)
}

/// The boolean at a JSON pointer; absent is false.
pub(crate) fn flag(value: &Value, pointer: &str) -> bool {
    value.pointer(pointer).and_then(Value::as_bool).unwrap_or(false)
}

/// The list at a JSON pointer; absent is empty.
pub(crate) fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The map at a JSON pointer.
pub(crate) fn map<'a>(value: &'a Value, pointer: &str) -> Option<&'a Map<String, Value>> {
    value.pointer(pointer).and_then(Value::as_object)
}

/// Name of an object.
pub(crate) fn name(value: &Value) -> &str {
    text(value, "/metadata/name")
}

/// Namespace of an object.
pub(crate) fn namespace(value: &Value) -> &str {
    text(value, "/metadata/namespace")
}

/// Uid of an object.
pub(crate) fn uid(value: &Value) -> &str {
    text(value, "/metadata/uid")
}

/// A label of an object.
pub(crate) fn label<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    map(value, "/metadata/labels").and_then(|labels| labels.get(key)).and_then(Value::as_str)
}

/// An annotation of an object.
pub(crate) fn annotation<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    map(value, "/metadata/annotations").and_then(|all| all.get(key)).and_then(Value::as_str)
}

/// Whether deletion has begun.
pub(crate) fn deleting(value: &Value) -> bool {
    value.pointer("/metadata/deletionTimestamp").is_some()
}

/// The map at a key, made if it is absent or something else.
pub(crate) fn child<'a>(value: &'a mut Value, key: &str) -> &'a mut Value {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map.entry(key.to_owned()).or_insert_with(|| Value::Object(Map::new())),
        other => other,
    }
}

/// Sets the value at a path of plain keys, making the maps on the way.
pub(crate) fn set(value: &mut Value, path: &[&str], new: Value) {
    let Some((last, parents)) = path.split_last() else {
        *value = new;
        return;
    };
    let mut place = value;
    for key in parents {
        place = child(place, key);
    }
    if !place.is_object() {
        *place = Value::Object(Map::new());
    }
    if let Value::Object(map) = place {
        map.insert((*last).to_owned(), new);
    }
}

/// Sets the value at a path only where nothing is.
pub(crate) fn default_to(value: &mut Value, path: &[&str], new: Value) {
    let pointer =
        format!("/{}", path.iter().map(|key| key.replace('~', "~0").replace('/', "~1")).collect::<Vec<_>>().join("/"));
    if value.pointer(&pointer).is_none_or(Value::is_null) {
        set(value, path, new);
    }
}

/// Removes the value at a path of plain keys.
pub(crate) fn remove(value: &mut Value, path: &[&str]) -> Option<Value> {
    let (last, parents) = path.split_last()?;
    let mut place = value;
    for key in parents {
        place = place.get_mut(key)?;
    }
    place.as_object_mut()?.remove(*last)
}

/// A list for in-place change at a path, made if absent.
pub(crate) fn list_mut<'a>(value: &'a mut Value, path: &[&str]) -> Option<&'a mut Vec<Value>> {
    let mut place = value;
    let (last, parents) = path.split_last()?;
    for key in parents {
        place = child(place, key);
    }
    let place = child(place, last);
    if !place.is_array() {
        *place = Value::Array(Vec::new());
    }
    place.as_array_mut()
}

/// Time as Kubernetes writes it: whole seconds, `Z`.
pub(crate) fn stamp(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Reads a time of an object.
pub(crate) fn time_at(value: &Value, pointer: &str) -> Option<Timestamp> {
    text(value, pointer).parse().ok()
}

/// Finds a condition by type.
pub(crate) fn condition<'a>(value: &'a Value, kind: &str) -> Option<&'a Value> {
    list(value, "/status/conditions").iter().find(|each| text(each, "/type") == kind)
}

/// Whether a condition is `True`.
pub(crate) fn condition_true(value: &Value, kind: &str) -> bool {
    condition(value, kind).is_some_and(|each| text(each, "/status") == "True")
}

/// Puts a condition into a list, keeping its transition time while the status stays.
pub(crate) fn put_condition(conditions: &mut Vec<Value>, mut new: Value, now: &str) {
    let kind = text(&new, "/type").to_owned();
    let old = conditions.iter_mut().find(|each| text(each, "/type") == kind);
    match old {
        Some(old) => {
            let since = if text(old, "/status") == text(&new, "/status") {
                text(old, "/lastTransitionTime").to_owned()
            } else {
                now.to_owned()
            };
            set(&mut new, &["lastTransitionTime"], Value::String(since));
            *old = new;
        }
        None => {
            set(&mut new, &["lastTransitionTime"], Value::String(now.to_owned()));
            conditions.push(new);
        }
    }
}
