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
