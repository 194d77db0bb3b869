//! Sets of fields as server-side apply keeps them (`fieldsV1`): built from values, compared, joined, removed from values.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::lists::{ListKind, Place, item_key};

/// A tree of fields. Keys are spelled as in `fieldsV1` (`f:name`, `k:{...}`, `v:...`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Fields {
    /// Whether the path of this node itself is in the set.
    pub(crate) member: bool,
    /// What lies below.
    pub(crate) children: BTreeMap<String, Fields>,
}

impl Fields {
    fn leaf() -> Self {
        Self { member: true, children: BTreeMap::new() }
    }

    /// Whether nothing is in the set.
    pub(crate) fn is_empty(&self) -> bool {
        !self.member && self.children.values().all(Self::is_empty)
    }

    /// Reads `fieldsV1`.
    pub(crate) fn of_json(value: &Value) -> Self {
        let mut root = Self::read(value);
        root.member = false;
        root
    }

    fn read(value: &Value) -> Self {
        let Some(map) = value.as_object() else { return Self::leaf() };
        if map.is_empty() {
            return Self::leaf();
        }
        let mut node = Self { member: map.contains_key("."), children: BTreeMap::new() };
        for (key, below) in map.iter().filter(|(key, _)| key.as_str() != ".") {
            node.children.insert(key.clone(), Self::read(below));
        }
        node
    }

    /// Writes `fieldsV1`.
    pub(crate) fn json(&self) -> Value {
        let mut map = Map::new();
        for (key, below) in self.children.iter().filter(|(_, below)| !below.is_empty()) {
            let mut value = below.json();
            if below.member
                && !below.children.values().all(Self::is_empty)
                && let Value::Object(inner) = &mut value
            {
                inner.insert(".".to_owned(), Value::Object(Map::new()));
            }
            map.insert(key.clone(), value);
        }
        Value::Object(map)
    }

    /// The fields that a value names, as an applied configuration owns them.
    pub(crate) fn of_applied(value: &Value, place: &Place<'_>) -> Self {
        let mut node = Self::default();
        match value {
            Value::Object(map) if !map.is_empty() && !place.atomic_map() => {
                for (key, below) in map {
                    node.children.insert(format!("f:{key}"), Self::of_applied(below, &place.field(key)));
                }
            }
            Value::Array(items) if !items.is_empty() => match place.list_kind() {
                ListKind::Atomic => node.member = true,
                kind => {
                    for item in items {
                        if let Some(key) = element(item, &kind) {
                            let mut below = if matches!(kind, ListKind::Set) {
                                Self::default()
                            } else {
                                Self::of_applied(item, &place.item())
                            };
                            below.member = true;
                            node.children.insert(key, below);
                        }
                    }
                }
            },
            _ => node.member = true,
        }
        node
    }

    /// The fields that an update added or changed.
    pub(crate) fn of_update(before: Option<&Value>, after: &Value, place: &Place<'_>) -> Self {
        if before == Some(after) {
            return Self::default();
        }
        let mut node = Self::default();
        match after {
            Value::Object(map) if map.is_empty() && place.always_there() => {}
            Value::Object(map) if !map.is_empty() && !place.atomic_map() => {
                let old = before.and_then(Value::as_object);
                node.member = before.is_none() && !place.path().is_empty() && !place.always_there();
                for (key, below) in map {
                    let child = Self::of_update(old.and_then(|old| old.get(key)), below, &place.field(key));
                    if !child.is_empty() {
                        node.children.insert(format!("f:{key}"), child);
                    }
                }
            }
            Value::Array(items) if !items.is_empty() && place.list_kind() != ListKind::Atomic => {
                let kind = place.list_kind();
                let old = before.and_then(Value::as_array);
                node.member = before.is_none() && !has_typed_default_list(place);
                for item in items {
                    let Some(key) = element(item, &kind) else { continue };
                    let was = old.and_then(|old| old.iter().find(|each| element(each, &kind).as_ref() == Some(&key)));
                    let mut child = if matches!(kind, ListKind::Set) {
                        Self::default()
                    } else {
                        Self::of_update(was, item, &place.item())
                    };
                    child.member = was.is_none();
                    if !child.is_empty() {
                        node.children.insert(key, child);
                    }
                }
            }
            _ => node.member = true,
        }
        node
    }

    /// The union.
    pub(crate) fn join(&mut self, other: &Self) {
        self.member |= other.member;
        for (key, below) in &other.children {
            self.children.entry(key.clone()).or_default().join(below);
        }
    }

    /// What is in this set and not in the other.
    pub(crate) fn minus(&self, other: &Self) -> Self {
        let mut node = Self { member: self.member && !other.member, children: BTreeMap::new() };
        for (key, below) in &self.children {
            let left = other.children.get(key).map_or_else(|| below.clone(), |theirs| below.minus(theirs));
            if !left.is_empty() {
                node.children.insert(key.clone(), left);
            }
        }
        node
    }

    /// What is in both sets.
    pub(crate) fn both(&self, other: &Self) -> Self {
        let mut node = Self { member: self.member && other.member, children: BTreeMap::new() };
        for (key, below) in &self.children {
            if let Some(theirs) = other.children.get(key) {
                let common = below.both(theirs);
                if !common.is_empty() {
                    node.children.insert(key.clone(), common);
                }
            }
        }
        node
    }

    /// Drops the parts of the set that a value no longer has.
    pub(crate) fn keep_present(&mut self, value: &Value, place: &Place<'_>) {
        self.children.retain(|key, below| match lookup(value, key, place) {
            Some((inner, place)) => {
                below.keep_present(inner, &place);
                !below.is_empty()
            }
            None => false,
        });
    }

    /// Removes a top-level path of plain fields.
    pub(crate) fn remove(&mut self, path: &[&str]) {
        match path {
            [] => {}
            [only] => {
                self.children.remove(&format!("f:{only}"));
            }
            [first, rest @ ..] => {
                let key = format!("f:{first}");
                if let Some(below) = self.children.get_mut(&key) {
                    below.remove(rest);
                    if below.is_empty() {
                        self.children.remove(&key);
                    }
                }
            }
        }
    }

    /// Removes the set's members from a value where nobody keeps them; a container that becomes empty by it goes too.
    pub(crate) fn prune(&self, value: &mut Value, keep: &Self, place: &Place<'_>) {
        let nothing = Self::default();
        for (key, below) in &self.children {
            let kept = keep.children.get(key).unwrap_or(&nothing);
            if below.member && kept.is_empty() {
                take_out(value, key, place);
                continue;
            }
            let Some((inner, inner_place)) = lookup_mut(value, key, place) else { continue };
            below.prune(inner, kept, &inner_place);
            let empty = match inner {
                Value::Object(map) => map.is_empty(),
                Value::Array(items) => items.is_empty(),
                _ => false,
            };
            if empty && kept.is_empty() {
                take_out(value, key, place);
            }
        }
    }

    /// All paths, as messages show them.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.collect("", &mut found);
        found
    }

    fn collect(&self, prefix: &str, into: &mut Vec<String>) {
        if self.member && !prefix.is_empty() {
            into.push(prefix.to_owned());
        }
        for (key, below) in &self.children {
            below.collect(&format!("{prefix}{}", shown(key)), into);
        }
    }
}

/// Empty typed objects have their containers as null, which counts as present.
fn has_typed_default_list(place: &Place<'_>) -> bool {
    matches!(place.name(), "containers")
}

fn shown(key: &str) -> String {
    if let Some(name) = key.strip_prefix("f:") {
        return format!(".{name}");
    }
    if let Some(keys) = key.strip_prefix("k:") {
        let parsed: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
        let parts: Vec<String> = parsed.iter().map(|(name, value)| format!("{name}={value}")).collect();
        return format!("[{}]", parts.join(","));
    }
    format!("[={}]", key.strip_prefix("v:").unwrap_or(key))
}

/// The `fieldsV1` key of a list item.
pub(crate) fn element(item: &Value, kind: &ListKind) -> Option<String> {
    match kind {
        ListKind::Atomic => None,
        ListKind::Set => Some(format!("v:{item}")),
        ListKind::Keyed(keys) => {
            let map: Map<String, Value> = item_key(item, keys)?.into_iter().collect();
            Some(format!("k:{}", Value::Object(map)))
        }
    }
}

fn lookup<'v, 'p>(value: &'v Value, key: &str, place: &Place<'p>) -> Option<(&'v Value, Place<'p>)> {
    if let Some(name) = key.strip_prefix("f:") {
        return Some((value.get(name)?, place.field(name)));
    }
    let kind = place.list_kind();
    let item = value.as_array()?.iter().find(|each| element(each, &kind).as_deref() == Some(key))?;
    Some((item, place.item()))
}

fn lookup_mut<'v, 'p>(value: &'v mut Value, key: &str, place: &Place<'p>) -> Option<(&'v mut Value, Place<'p>)> {
    if let Some(name) = key.strip_prefix("f:") {
        return Some((value.get_mut(name)?, place.field(name)));
    }
    let kind = place.list_kind();
    let item = value.as_array_mut()?.iter_mut().find(|each| element(each, &kind).as_deref() == Some(key))?;
    Some((item, place.item()))
}

fn take_out(value: &mut Value, key: &str, place: &Place<'_>) {
    if let Some(name) = key.strip_prefix("f:") {
        if let Some(map) = value.as_object_mut() {
            map.remove(name);
        }
        return;
    }
    let kind = place.list_kind();
    if let Some(items) = value.as_array_mut() {
        items.retain(|each| element(each, &kind).as_deref() != Some(key));
    }
}
