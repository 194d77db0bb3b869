//! The three patch languages: JSON merge patch (RFC 7396), JSON patch (RFC 6902) and strategic merge patch.

use serde_json::{Map, Value};

use super::fields::element;
use super::lists::{ListKind, Place};
use super::status::Refusal;

/// Applies a JSON merge patch.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(map) = target else { return };
    for (key, change) in changes {
        if change.is_null() {
            map.remove(key);
        } else {
            merge(map.entry(key.clone()).or_insert(Value::Null), change);
        }
    }
}

/// Applies a JSON patch.
pub(crate) fn json_patch(target: &mut Value, patch: &Value) -> Result<(), Refusal> {
    let Some(operations) = patch.as_array() else {
        return Err(Refusal::bad_request(
            "error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch",
        ));
    };
    for operation in operations {
        json_operation(target, operation)?;
    }
    Ok(())
}

fn unprocessable(message: &str) -> Refusal {
    Refusal::new(422, Some("Invalid"), message.to_owned())
}

fn json_operation(target: &mut Value, operation: &Value) -> Result<(), Refusal> {
    let field = |name: &str| operation.get(name).and_then(Value::as_str).unwrap_or_default();
    let value = || operation.get("value").cloned().unwrap_or(Value::Null);
    let path = field("path");
    match field("op") {
        "add" => put(target, path, value(), true),
        "replace" => put(target, path, value(), false),
        "remove" => take(target, path).map(|_| ()),
        "test" => match target.pointer(path) {
            Some(found) if *found == value() => Ok(()),
            None if value().is_null() => Ok(()),
            _ => Err(unprocessable(&format!(
                "the server rejected our request due to an error in our request (testing value {path} failed)"
            ))),
        },
        "copy" => {
            let found = target.pointer(field("from")).cloned().ok_or_else(|| missing(field("from")))?;
            put(target, path, found, true)
        }
        "move" => {
            let found = take(target, field("from"))?;
            put(target, path, found, true)
        }
        other => Err(Refusal::bad_request(format!("unexpected kind: {other}"))),
    }
}

fn missing(path: &str) -> Refusal {
    unprocessable(&format!("the server rejected our request due to an error in our request (missing path {path})"))
}

fn parts(path: &str) -> Option<(&str, String)> {
    let (parent, last) = path.rsplit_once('/')?;
    Some((parent, last.replace("~1", "/").replace("~0", "~")))
}

fn put(target: &mut Value, path: &str, value: Value, insert: bool) -> Result<(), Refusal> {
    let Some((parent, last)) = parts(path) else {
        *target = value;
        return Ok(());
    };
    match target.pointer_mut(parent) {
        Some(Value::Object(map)) if insert || map.contains_key(&last) => {
            map.insert(last, value);
            Ok(())
        }
        Some(Value::Array(items)) => {
            let at = if last == "-" { items.len() } else { last.parse().map_err(|_| missing(path))? };
            if insert && at <= items.len() {
                items.insert(at, value);
                Ok(())
            } else if let Some(item) = items.get_mut(at) {
                *item = value;
                Ok(())
            } else {
                Err(missing(path))
            }
        }
        _ => Err(missing(path)),
    }
}

fn take(target: &mut Value, path: &str) -> Result<Value, Refusal> {
    let (parent, last) = parts(path).ok_or_else(|| missing(path))?;
    let found = match target.pointer_mut(parent) {
        Some(Value::Object(map)) => map.remove(&last),
        Some(Value::Array(items)) => {
            last.parse::<usize>().ok().filter(|at| *at < items.len()).map(|at| items.remove(at))
        }
        _ => None,
    };
    found.ok_or_else(|| missing(path))
}

/// Applies a strategic merge patch.
pub(crate) fn strategic(target: &mut Value, patch: &Value, place: &Place<'_>) -> Result<(), Refusal> {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return Ok(());
    };
    match changes.get("$patch").and_then(Value::as_str) {
        Some("replace") => {
            let mut whole = changes.clone();
            whole.remove("$patch");
            *target = Value::Object(whole);
            return Ok(());
        }
        Some("delete") => {
            *target = Value::Object(Map::new());
            return Ok(());
        }
        _ => {}
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(map) = target else { return Ok(()) };
    for (key, change) in changes.iter().filter(|(key, _)| !key.starts_with('$')) {
        if change.is_null() {
            map.remove(key);
            continue;
        }
        let inner = place.field(key);
        let slot = map.entry(key.clone()).or_insert(Value::Null);
        match change {
            Value::Array(items) if patch_list_kind(&inner) != ListKind::Atomic => strategic_list(slot, items, &inner)?,
            Value::Object(_) => strategic(slot, change, &inner)?,
            _ => *slot = change.clone(),
        }
    }
    for (key, doomed) in
        changes.iter().filter_map(|(key, value)| Some((key.strip_prefix("$deleteFromPrimitiveList/")?, value)))
    {
        if let (Some(Value::Array(items)), Some(doomed)) = (map.get_mut(key), doomed.as_array()) {
            items.retain(|item| !doomed.contains(item));
        }
    }
    Ok(())
}

/// Ports of containers merge by `containerPort`, those of Services by `port`: unlike server-side apply, without the protocol.
fn patch_list_kind(place: &Place<'_>) -> ListKind {
    match place.list_kind() {
        ListKind::Keyed(keys) => ListKind::Keyed(keys.into_iter().take(1).collect()),
        other => other,
    }
}

fn strategic_list(target: &mut Value, patch: &[Value], place: &Place<'_>) -> Result<(), Refusal> {
    if !target.is_array() {
        *target = Value::Array(Vec::new());
    }
    let Value::Array(items) = target else { return Ok(()) };
    let kind = patch_list_kind(place);
    if let ListKind::Set = kind {
        // As with keyed entries, those of the patch come first.
        let mut merged = patch.to_vec();
        merged.extend(items.iter().filter(|item| !patch.contains(item)).cloned());
        *items = merged;
        return Ok(());
    }
    if patch.iter().any(|each| each.get("$patch").and_then(Value::as_str) == Some("replace")) {
        *items = patch.iter().filter(|each| each.get("$patch").is_none()).cloned().collect();
        return Ok(());
    }
    let mut fresh = Vec::new();
    for each in patch {
        let key = element(each, &kind).ok_or_else(|| no_key(each, &kind))?;
        let at = items.iter().position(|item| element(item, &kind).as_ref() == Some(&key));
        let directive = each.get("$patch").and_then(Value::as_str);
        match (at, directive) {
            (Some(at), Some("delete")) => {
                items.remove(at);
            }
            (None, Some("delete")) => {}
            (Some(at), _) => {
                if let Some(item) = items.get_mut(at) {
                    strategic(item, each, &place.item())?;
                }
            }
            (None, _) => fresh.push(each.clone()),
        }
    }
    // New entries come first: the server orders by the patch, then by what was there.
    fresh.append(items);
    *items = fresh;
    Ok(())
}

fn no_key(item: &Value, kind: &ListKind) -> Refusal {
    let key = if let ListKind::Keyed(keys) = kind { keys.first().cloned().unwrap_or_default() } else { String::new() };
    Refusal::new(500, None, format!("map: {} does not contain declared merge key: {key}", go_map(item)))
}

/// A map as Go prints it.
fn go_map(item: &Value) -> String {
    match item {
        Value::Object(map) => format!(
            "map[{}]",
            map.iter().map(|(key, value)| format!("{key}:{}", go_map(value))).collect::<Vec<_>>().join(" ")
        ),
        Value::Array(items) => format!("[{}]", items.iter().map(go_map).collect::<Vec<_>>().join(" ")),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
