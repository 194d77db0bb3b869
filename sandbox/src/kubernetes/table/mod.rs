//! Other shapes of an answer: the Table that kubectl prints, and metadata-only objects.

mod columns;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::object::{self, text};
use super::resources::Resource;

/// Shapes an answer as the Accept header asks.
pub(crate) fn transform(
    accept: Option<&str>,
    resource: &Resource,
    body: Value,
    include: Option<&str>,
    now: Timestamp,
) -> Value {
    let kind = text(&body, "/kind").to_owned();
    if kind == "Status" {
        return body;
    }
    for part in accept.unwrap_or_default().split(',') {
        let compact = part.replace(' ', "");
        if compact.contains("as=Table") && compact.contains("g=meta.k8s.io") {
            return table(resource, &body, include, now);
        }
        if compact.contains("as=PartialObjectMetadataList") || compact.contains("as=PartialObjectMetadata") {
            return partial_answer(&body);
        }
        if !compact.contains("as=") {
            break;
        }
    }
    body
}

fn partial_answer(body: &Value) -> Value {
    match body.get("items").and_then(Value::as_array) {
        Some(items) => {
            json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": body.get("metadata"), "items": items.iter().map(partial).collect::<Vec<_>>()})
        }
        None => partial(body),
    }
}

/// The metadata of an object as an object of its own.
pub(crate) fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object.get("metadata")})
}

/// A table for an object or a list.
pub(crate) fn table(resource: &Resource, body: &Value, include: Option<&str>, now: Timestamp) -> Value {
    let mut columns = vec![
        json!({"name": "Name", "type": "string", "format": "name", "description": "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names", "priority": 0}),
    ];
    for column in resource.columns.iter() {
        let mut shown = json!({"name": text(column, "/name"), "type": text(column, "/type"), "format": text(column, "/format"), "description": text(column, "/description"), "priority": object::int(column, "/priority").unwrap_or(0)});
        if text(column, "/description").is_empty() {
            object::set(
                &mut shown,
                &["description"],
                json!(format!("Custom resource definition column (in JSONPath format): {}", text(column, "/jsonPath"))),
            );
        }
        columns.push(shown);
    }
    if !resource.custom {
        for column in columns::of(resource) {
            columns.push(json!({"name": column.name, "type": column.kind, "format": "", "description": format!("{} of the {}", column.name, resource.kind), "priority": column.priority}));
        }
    } else if resource.columns.is_empty() {
        columns.push(json!({"name": "Age", "type": "date", "format": "", "description": "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata", "priority": 0}));
    }
    let items: Vec<&Value> =
        body.get("items").and_then(Value::as_array).map_or_else(|| vec![body], |items| items.iter().collect());
    let rows: Vec<Value> = items
        .into_iter()
        .map(|item| {
            let mut row = json!({"cells": cells(resource, item, now)});
            match include {
                Some("None") => object::set(&mut row, &["object"], Value::Null),
                Some("Object") => object::set(&mut row, &["object"], super::verbs::shown(resource, item)),
                _ => object::set(&mut row, &["object"], partial(item)),
            }
            row
        })
        .collect();
    let metadata = if body.get("items").is_some() {
        let mut metadata = body.get("metadata").cloned().unwrap_or_default();
        if text(&metadata, "/continue").is_empty() {
            object::remove(&mut metadata, &["continue"]);
        }
        metadata
    } else {
        json!({"resourceVersion": text(body, "/metadata/resourceVersion")})
    };
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": columns, "rows": rows})
}

fn cells(resource: &Resource, item: &Value, now: Timestamp) -> Vec<Value> {
    let mut cells = vec![json!(object::name(item))];
    if !resource.custom {
        cells.extend(columns::cells(resource, item, now));
        return cells;
    }
    let age = object::time_at(item, "/metadata/creationTimestamp")
        .map_or_else(|| "<unknown>".to_owned(), |since| age(now.duration_since(since).as_secs()));
    if resource.columns.is_empty() {
        cells.push(json!(text(item, "/metadata/creationTimestamp")));
        return cells;
    }
    for column in resource.columns.iter() {
        let pointer = text(column, "/jsonPath").replace('.', "/");
        cells.push(if text(column, "/type") == "date" {
            json!(age)
        } else {
            item.pointer(&pointer).cloned().unwrap_or(Value::Null)
        });
    }
    cells
}

/// A duration as kubectl shows ages.
fn age(seconds: i64) -> String {
    match seconds {
        ..0 => "<invalid>".to_owned(),
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}
