//! YAML bodies as the API server reads them: JSON first, then YAML with the old boolean words.

use saphyr::{LoadableYamlNode as _, Scalar, Yaml};
use serde_json::{Map, Number, Value};

use super::status::Refusal;

/// Reads a YAML (or JSON) body.
pub(crate) fn decode(bytes: &[u8]) -> Result<Value, Refusal> {
    if let Ok(value) = serde_json::from_slice(bytes) {
        return Ok(value);
    }
    let broken = |what: String| {
        Refusal::bad_request(format!("error decoding YAML: error converting YAML to JSON: yaml: {what}"))
    };
    let text = std::str::from_utf8(bytes).map_err(|_| broken("control characters are not allowed".to_owned()))?;
    let documents = Yaml::load_from_str(text).map_err(|error| broken(error.to_string()))?;
    documents.first().map_or(Ok(Value::Null), |document| Ok(convert(document)))
}

fn convert(node: &Yaml<'_>) -> Value {
    match node {
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Value(Scalar::Boolean(flag)) => Value::Bool(*flag),
        Yaml::Value(Scalar::Integer(number)) => Value::from(*number),
        Yaml::Value(Scalar::FloatingPoint(number)) => {
            Number::from_f64(number.into_inner()).map_or(Value::Null, Value::Number)
        }
        // saphyr speaks YAML 1.2; the server's reader takes the words of 1.1 when they are plain scalars.
        Yaml::Value(Scalar::String(text)) => Value::String(text.to_string()),
        Yaml::Sequence(items) => Value::Array(items.iter().map(convert).collect()),
        Yaml::Mapping(map) => {
            Value::Object(map.iter().map(|(key, value)| (key_text(key), convert(value))).collect::<Map<_, _>>())
        }
        Yaml::Tagged(_, inner) => convert(inner),
        Yaml::Representation(text, _, _) => Value::String(text.to_string()),
        _ => Value::Null,
    }
}

fn key_text(key: &Yaml<'_>) -> String {
    match convert(key) {
        Value::String(text) if matches!(text.as_str(), "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON") => {
            "true".to_owned()
        }
        Value::String(text) if matches!(text.as_str(), "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF") => {
            "false".to_owned()
        }
        Value::String(text) => text,
        other => other.to_string(),
    }
}

/// Writes a document as the server does: keys in order, nothing on one line that can be on many.
pub(crate) fn encode(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => write_map(map, 0, &mut text),
        Value::Array(items) if !items.is_empty() => write_list(items, 0, &mut text),
        other => {
            text.push_str(&scalar(other));
            text.push('\n');
        }
    }
    text
}

fn write_map(map: &Map<String, Value>, depth: usize, text: &mut String) {
    let mut keys: Vec<&String> = map.keys().collect();
    keys.sort();
    for key in keys {
        let Some(value) = map.get(key) else { continue };
        text.push_str(&"  ".repeat(depth));
        text.push_str(&scalar(&Value::String(key.clone())));
        text.push(':');
        write_below(value, depth, text);
    }
}

fn write_below(value: &Value, depth: usize, text: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            text.push('\n');
            write_map(map, depth + 1, text);
        }
        // A list stands at the depth of its key.
        Value::Array(items) if !items.is_empty() => {
            text.push('\n');
            write_list(items, depth, text);
        }
        other => {
            text.push(' ');
            text.push_str(&scalar(other));
            text.push('\n');
        }
    }
}

fn write_list(items: &[Value], depth: usize, text: &mut String) {
    for item in items {
        text.push_str(&"  ".repeat(depth));
        text.push('-');
        let mut inner = String::new();
        match item {
            Value::Object(map) if !map.is_empty() => write_map(map, depth + 1, &mut inner),
            Value::Array(items) if !items.is_empty() => write_list(items, depth + 1, &mut inner),
            other => inner = format!("{}\n", scalar(other)),
        }
        // The first line of what is in an item follows the dash.
        text.push(' ');
        text.push_str(inner.trim_start_matches(' '));
    }
}

fn scalar(value: &Value) -> String {
    let Value::String(text) = value else { return value.to_string() };
    let word = |letter: char| letter.is_ascii_alphanumeric() || "-_./".contains(letter);
    let plain = text.starts_with(|letter: char| letter.is_ascii_alphanumeric() || letter == '/')
        && text.parse::<f64>().is_err()
        && text.parse::<jiff::civil::Date>().is_err()
        && text.chars().all(word)
        && !matches!(
            text.to_lowercase().as_str(),
            "true" | "false" | "yes" | "no" | "on" | "off" | "null" | "y" | "n" | "~"
        );
    if plain { text.clone() } else { value.to_string() }
}
