//! Server-side apply: merging an applied configuration into a live object, ownership of fields, conflicts, and the bookkeeping of other writes.

use serde_json::{Value, json};

use super::fields::{Fields, element};
use super::lists::{ListKind, Place};
use super::object::{list, remove, set, text};
use super::status::Refusal;

/// One entry of `managedFields`.
#[derive(Debug, Clone)]
struct Manager {
    name: String,
    operation: String,
    api_version: String,
    subresource: String,
    time: Option<String>,
    fields: Fields,
}

impl Manager {
    fn read(entry: &Value) -> Self {
        Self {
            name: text(entry, "/manager").to_owned(),
            operation: text(entry, "/operation").to_owned(),
            api_version: text(entry, "/apiVersion").to_owned(),
            subresource: text(entry, "/subresource").to_owned(),
            time: entry.get("time").and_then(Value::as_str).map(str::to_owned),
            fields: Fields::of_json(entry.get("fieldsV1").unwrap_or(&Value::Null)),
        }
    }

    fn json(&self) -> Value {
        let mut entry = json!({"manager": self.name, "operation": self.operation, "apiVersion": self.api_version, "fieldsType": "FieldsV1", "fieldsV1": self.fields.json()});
        if let Value::Object(map) = &mut entry {
            if !self.subresource.is_empty() {
                map.insert("subresource".to_owned(), json!(self.subresource));
            }
            if let Some(time) = &self.time {
                map.insert("time".to_owned(), json!(time));
            }
        }
        entry
    }

    fn is(&self, who: &Writer<'_>, operation: &str) -> bool {
        self.name == who.manager
            && self.operation == operation
            && self.subresource == who.subresource
            && self.api_version == who.api_version
    }

    fn described(&self) -> String {
        let mut shown = format!("\"{}\"", self.name);
        if !self.subresource.is_empty() {
            shown.push_str(&format!(" with subresource \"{}\"", self.subresource));
        }
        if self.operation == "Update" {
            shown.push_str(&format!(" using {}", self.api_version));
        }
        shown
    }
}

/// Who writes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Writer<'a> {
    /// Field manager.
    pub(crate) manager: &'a str,
    /// Version of the body.
    pub(crate) api_version: &'a str,
    /// Subresource, empty for the object.
    pub(crate) subresource: &'a str,
    /// Time of the write.
    pub(crate) now: &'a str,
}

fn managers(object: &Value) -> Vec<Manager> {
    list(object, "/metadata/managedFields").iter().map(Manager::read).collect()
}

fn write_managers(object: &mut Value, mut all: Vec<Manager>) {
    all.retain(|each| !each.fields.is_empty());
    all.sort_by(|a, b| {
        (a.operation.as_str(), a.time.as_deref(), a.name.as_str()).cmp(&(
            b.operation.as_str(),
            b.time.as_deref(),
            b.name.as_str(),
        ))
    });
    let entries: Vec<Value> = all.iter().map(Manager::json).collect();
    if entries.is_empty() {
        remove(object, &["metadata", "managedFields"]);
    } else {
        set(object, &["metadata", "managedFields"], Value::Array(entries));
    }
}

/// Fields that nobody owns: identity and what the server sets.
const SYSTEM: [&[&str]; 11] = [
    &["apiVersion"],
    &["kind"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "generateName"],
    &["metadata", "uid"],
    &["metadata", "resourceVersion"],
    &["metadata", "generation"],
    &["metadata", "creationTimestamp"],
    &["metadata", "deletionTimestamp"],
    &["metadata", "managedFields"],
];

fn strip_system(fields: &mut Fields) {
    for path in SYSTEM {
        fields.remove(path);
    }
    fields.remove(&["metadata", "selfLink"]);
    fields.remove(&["metadata", "deletionGracePeriodSeconds"]);
    if let Some(metadata) = fields.children.get("f:metadata")
        && metadata.children.is_empty()
    {
        fields.children.remove("f:metadata");
    }
}

/// Merges an applied configuration into what is there: maps by key, associative lists by their keys, sets as unions, all else replaced.
pub(crate) fn overlay(live: Option<&Value>, applied: &Value, place: &Place<'_>) -> Value {
    match (live, applied) {
        (Some(Value::Object(old)), Value::Object(new)) if !place.atomic_map() => {
            let mut merged = old.clone();
            for (key, value) in new {
                let below = overlay(old.get(key), value, &place.field(key));
                merged.insert(key.clone(), below);
            }
            Value::Object(merged)
        }
        (Some(Value::Array(old)), Value::Array(new)) => match place.list_kind() {
            ListKind::Atomic => applied.clone(),
            kind => Value::Array(overlay_list(old, new, &kind, place)),
        },
        _ => applied.clone(),
    }
}

fn overlay_list(old: &[Value], new: &[Value], kind: &ListKind, place: &Place<'_>) -> Vec<Value> {
    let key_of = |item: &Value| element(item, kind);
    let mut merged: Vec<Value> = Vec::new();
    let mut left: Vec<&Value> = new.iter().collect();
    for item in old {
        let key = key_of(item);
        match left.iter().position(|each| key_of(each) == key && key.is_some()) {
            Some(at) => {
                let applied = left.remove(at);
                merged.push(if matches!(kind, ListKind::Set) {
                    item.clone()
                } else {
                    overlay(Some(item), applied, &place.item())
                });
            }
            None => merged.push(item.clone()),
        }
    }
    merged.extend(left.into_iter().cloned());
    merged
}

/// The result of an apply, before defaulting and admission.
pub(crate) struct Applied {
    /// The merged object with its new `managedFields`.
    pub(crate) object: Value,
}

/// Applies a configuration for a manager.
pub(crate) fn apply(
    live: Option<&Value>,
    applied: &Value,
    who: Writer<'_>,
    force: bool,
    place: &Place<'_>,
) -> Result<Applied, Refusal> {
    let mut fresh = Fields::of_applied(applied, place);
    strip_system(&mut fresh);
    fresh.member = false;
    let mut all = live.map(managers).unwrap_or_default();
    let before = all.iter().position(|each| each.is(&who, "Apply")).map(|at| all.remove(at));
    let mut merged = overlay(live, applied, place);
    if let Some(live) = live {
        take_over(&mut all, live, &merged, &fresh, force, place)?;
    }
    if let Some(before) = &before {
        let mut keep = fresh.clone();
        for other in &all {
            keep.join(&other.fields);
        }
        before.fields.minus(&fresh).prune(&mut merged, &keep, place);
    }
    let time = match &before {
        Some(old) if old.fields == fresh && live.is_some_and(|live| same_but_managers(live, &merged)) => {
            old.time.clone()
        }
        _ => Some(who.now.to_owned()),
    };
    all.push(Manager {
        name: who.manager.to_owned(),
        operation: "Apply".to_owned(),
        api_version: who.api_version.to_owned(),
        subresource: who.subresource.to_owned(),
        time,
        fields: fresh,
    });
    write_managers(&mut merged, all);
    Ok(Applied { object: merged })
}

fn same_but_managers(a: &Value, b: &Value) -> bool {
    let metadata = |object: &Value| object.get("metadata").cloned().unwrap_or_default();
    same_members(a, b, &["metadata"]) && same_members(&metadata(a), &metadata(b), &["managedFields"])
}

/// Finds the fields that others own and this apply would change; takes them over, or refuses.
fn take_over(
    all: &mut [Manager],
    live: &Value,
    merged: &Value,
    fresh: &Fields,
    force: bool,
    place: &Place<'_>,
) -> Result<(), Refusal> {
    let mut changed = Fields::of_update(Some(live), merged, place);
    strip_system(&mut changed);
    let wanted = leaves(fresh).both(&changed);
    let mut conflicts: Vec<(String, Vec<String>)> = Vec::new();
    for other in all.iter_mut() {
        let clash = other.fields.both(&wanted);
        if clash.is_empty() {
            continue;
        }
        if force {
            other.fields = other.fields.minus(&clash);
        } else {
            conflicts.push((other.described(), clash.paths()));
        }
    }
    if conflicts.is_empty() { Ok(()) } else { Err(conflict(&conflicts)) }
}

/// Only members without members below: a list item's own key never conflicts.
fn leaves(fields: &Fields) -> Fields {
    let mut node = Fields { member: fields.member && fields.children.is_empty(), ..Fields::default() };
    for (key, below) in &fields.children {
        node.children.insert(key.clone(), leaves(below));
    }
    node
}

fn conflict(conflicts: &[(String, Vec<String>)]) -> Refusal {
    let total: usize = conflicts.iter().map(|(_, paths)| paths.len()).sum();
    let word = if total == 1 { "conflict" } else { "conflicts" };
    let mut message = format!("Apply failed with {total} {word}: ");
    if let [(who, paths)] = conflicts
        && let [path] = paths.as_slice()
    {
        message.push_str(&format!("conflict with {who}: {path}"));
    } else {
        let parts: Vec<String> = conflicts
            .iter()
            .map(|(who, paths)| {
                format!(
                    "conflicts with {who}:\n{}",
                    paths.iter().map(|path| format!("- {path}")).collect::<Vec<_>>().join("\n")
                )
            })
            .collect();
        message.push_str(&parts.join("\n"));
    }
    let mut refusal = Refusal::new(409, Some("Conflict"), message);
    for (who, paths) in conflicts {
        for path in paths {
            refusal = refusal.with_cause("FieldManagerConflict", &format!("conflict with {who}"), Some(path));
        }
    }
    refusal
}

/// Records an ordinary write: what it changed belongs to its manager, and no longer to those whose value it replaced.
pub(crate) fn record_update(before: Option<&Value>, object: &mut Value, who: Writer<'_>, place: &Place<'_>) {
    let mut changed = Fields::of_update(before, object, place);
    strip_system(&mut changed);
    if who.subresource.is_empty() && !place.custom() {
        // The server's own first values belong to nobody.
        changed.remove(&["status"]);
        if text(object, "/kind") == "Namespace" {
            changed.remove(&["spec"]);
        }
    }
    let mut all = managers(before.unwrap_or(object));
    for each in &mut all {
        each.fields = each.fields.minus(&leaves(&changed));
        each.fields.keep_present(object, place);
    }
    if !changed.is_empty() {
        match all.iter_mut().find(|each| each.is(&who, "Update")) {
            Some(own) => {
                own.fields.join(&changed);
                own.time = Some(who.now.to_owned());
            }
            None => all.push(Manager {
                name: who.manager.to_owned(),
                operation: "Update".to_owned(),
                api_version: who.api_version.to_owned(),
                subresource: who.subresource.to_owned(),
                time: Some(who.now.to_owned()),
                fields: changed,
            }),
        }
    }
    write_managers(object, all);
}

/// Whether two states of one object are the same but for bookkeeping (times of managers, resourceVersion).
pub(crate) fn same(a: &Value, b: &Value) -> bool {
    let entries = |object: &Value| {
        let mut stripped: Vec<String> = list(object, "/metadata/managedFields")
            .iter()
            .map(|entry| {
                let mut entry = entry.clone();
                remove(&mut entry, &["time"]);
                entry.to_string()
            })
            .collect();
        stripped.sort();
        stripped
    };
    let metadata = |object: &Value| object.get("metadata").cloned().unwrap_or_default();
    same_members(a, b, &["apiVersion", "kind", "metadata"])
        && same_members(&metadata(a), &metadata(b), &["resourceVersion", "managedFields"])
        && entries(a) == entries(b)
}

/// Whether two maps have the same members but for some: these may differ, or be in one alone.
fn same_members(a: &Value, b: &Value, but: &[&str]) -> bool {
    let (Value::Object(a), Value::Object(b)) = (a, b) else { return a == b };
    let of = |map: &'_ serde_json::Map<String, Value>| map.keys().filter(|key| !but.contains(&key.as_str())).count();
    of(a) == of(b) && a.iter().all(|(key, value)| but.contains(&key.as_str()) || b.get(key) == Some(value))
}

/// Drops maps and lists that an object of a built-in kind never shows empty.
pub(crate) fn drop_empty(value: &mut Value) {
    let Value::Object(map) = value else {
        if let Value::Array(items) = value {
            for item in items {
                drop_empty(item);
            }
        }
        return;
    };
    const MAPS: [&str; 12] = [
        "labels",
        "annotations",
        "data",
        "binaryData",
        "matchLabels",
        "nodeSelector",
        "limits",
        "requests",
        "hard",
        "stringData",
        "parameters",
        "default",
    ];
    for (key, below) in map.iter_mut() {
        if !matches!(key.as_str(), "managedFields" | "data" | "annotations" | "labels" | "openAPIV3Schema") {
            drop_empty(below);
        }
    }
    map.retain(|key, below| match below {
        Value::Null => key == "conditions",
        Value::Object(inner) => !(inner.is_empty() && MAPS.contains(&key.as_str())),
        Value::Array(items) => !items.is_empty() || matches!(key.as_str(), "rules" | "conditions" | "storedVersions"),
        _ => true,
    });
}
