//! The JSON Schema of the language, for editors: completion and red lines while a runbook is written.

use crate::document::TYPES;
use platflow_engine::kind::Catalog;
use serde_json::{Map, Value, json};

/// The schema of runbooks and modules, with the specs of all kinds.
#[must_use]
pub fn schema(catalog: &Catalog) -> Value {
    let mut definitions = Map::new();
    let mut rules = Vec::new();
    for description in catalog.descriptions() {
        let name = description.name.as_str();
        definitions.insert(name.to_owned(), embedded(&description.spec_schema, name));
        rules.push(json!({
            "if": {"properties": {"kind": {"const": name}}, "required": ["kind"]},
            "then": {"properties": {"spec": {"$ref": format!("#/$defs/{}", pointer(name))}}}
        }));
    }
    let kinds: Vec<&str> = catalog.descriptions().map(|description| description.name.as_str()).collect();
    definitions.insert("step".to_owned(), step(&kinds, rules));
    definitions.insert("parameter".to_owned(), parameter());
    definitions.insert("duration".to_owned(), json!({"type": "string", "pattern": "^([0-9]+[smhd])+$"}));
    definitions.insert(
        "steps".to_owned(),
        json!({
            "type": "object",
            "propertyNames": {"pattern": "^[a-z0-9][a-z0-9_-]*$"},
            "additionalProperties": {"$ref": "#/$defs/step"}
        }),
    );
    let parameters = json!({"type": "object", "additionalProperties": {"$ref": "#/$defs/parameter"}});
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "platflow runbook or module",
        "type": "object",
        "oneOf": [
            {
                "required": ["workflow", "steps"],
                "additionalProperties": false,
                "properties": {
                    "workflow": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]*$"},
                    "description": {"type": "string"},
                    "environment": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]*$"},
                    "on_failure": {"enum": ["park", "rollback"]},
                    "parameters": parameters,
                    "steps": {"$ref": "#/$defs/steps"},
                    "outputs": {"type": "object"}
                }
            },
            {
                "required": ["module", "steps"],
                "additionalProperties": false,
                "properties": {
                    "module": {"type": "string"},
                    "description": {"type": "string"},
                    "inputs": parameters,
                    "steps": {"$ref": "#/$defs/steps"},
                    "outputs": {"type": "object"}
                }
            }
        ],
        "$defs": definitions
    })
}

fn step(kinds: &[&str], rules: Vec<Value>) -> Value {
    let names = json!({"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]});
    let edges = json!({"oneOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}},
        {"type": "object", "additionalProperties": names}
    ]});
    let undo = json!({"oneOf": [
        {"enum": ["undo", "keep"]},
        {"type": "object", "required": ["with"], "additionalProperties": false, "properties": {"with": {"type": "string"}}}
    ]});
    json!({
        "type": "object",
        "additionalProperties": false,
        "oneOf": [{"required": ["kind"]}, {"required": ["module"]}],
        "properties": {
            "kind": {"enum": kinds},
            "module": {"type": "string"},
            "spec": {"type": "object"},
            "with": {"type": "object"},
            "needs": edges,
            "when": {"oneOf": [{"type": "boolean"}, {"type": "string"}]},
            "for_each": {"oneOf": [{"type": "string"}, {"type": "array"}, {"type": "object"}]},
            "retry": {"type": "object", "additionalProperties": false, "properties": {"for": {"$ref": "#/$defs/duration"}}},
            "timeout": {"$ref": "#/$defs/duration"},
            "undo": undo,
            "rollback": undo,
            "undo_after": edges,
            "description": {"type": "string"},
            "rehearse": {"const": "run"}
        },
        "allOf": rules
    })
}

fn parameter() -> Value {
    let types: Vec<&str> = TYPES.iter().map(|(name, _)| *name).collect();
    json!({
        "type": "object",
        "required": ["type"],
        "additionalProperties": false,
        "properties": {
            "type": {"enum": types},
            "default": {},
            "description": {"type": "string"},
            "enum": {"type": "array"},
            "pattern": {"type": "string"},
            "minimum": {"type": "number"},
            "maximum": {"type": "number"}
        }
    })
}

/// A kind's schema as a definition: every scalar may be an expression, and its own `$defs` are reached from here.
fn embedded(schema: &Value, name: &str) -> Value {
    let mut schema = schema.clone();
    if let Some(fields) = schema.as_object_mut() {
        fields.remove("$schema");
    }
    rewrite(&mut schema, &pointer(name));
    schema
}

fn rewrite(schema: &mut Value, name: &str) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(|item| rewrite(item, name)),
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get_mut("$ref") {
                *reference = reference.replace("#/$defs/", &format!("#/$defs/{name}/$defs/"));
            }
            for (_, inner) in fields.iter_mut() {
                rewrite(inner, name);
            }
            if let Some(Value::Object(properties)) = fields.get_mut("properties") {
                for property in properties.values_mut() {
                    *property = json!({"anyOf": [property.take(), {"type": "string", "pattern": "\\$\\{"}]});
                }
            }
        }
        _ => {}
    }
}

fn pointer(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
