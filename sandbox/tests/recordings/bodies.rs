//! Bodies that the recordings describe instead of giving them, because of their size: made again to the description.

use serde_json::{Map, Value, json};

/// The body that a description stands for.
pub(crate) fn described(text: &str) -> Value {
    let number = |after: &str| -> usize {
        let digits = text.split_once(after).map(|(_, rest)| rest).unwrap_or_default();
        let digits: String = digits.chars().take_while(|letter| letter.is_ascii_digit() || *letter == ',').collect();
        digits.replace(',', "").parse().unwrap_or(0)
    };
    if text.starts_with("ConfigMap with ") {
        let size = number("ConfigMap with ");
        return json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "big"}, "data": {"x": "x".repeat(size)}});
    }
    giant(text)
}

const NOTE: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The giant definition, in the forms that its scenario sends.
fn giant(text: &str) -> Value {
    if text.starts_with("annotation of that size") {
        return json!({"metadata": {"annotations": {NOTE: "x".repeat(371_344)}}});
    }
    let (fields, sentences) = match text {
        "one property more" => (701, 9),
        _ if text.starts_with("5,000 properties") => (5_000, 12),
        _ => (700, 9),
    };
    let properties: Map<String, Value> = (0..fields)
        .map(|at| {
            let description = format!("{at:04} {}", "about this field there is much to say. ".repeat(sentences));
            (format!("field{at:04}"), json!({"type": "string", "description": description}))
        })
        .collect();
    let mut body = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "giants.big.example.com"},
        "spec": {"group": "big.example.com", "scope": "Namespaced", "names": {"plural": "giants", "singular": "giant", "kind": "Giant", "listKind": "GiantList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}}}}]},
    });
    if text.contains("plus the annotation") {
        let copy = body.to_string();
        body["metadata"]["annotations"] = json!({NOTE: copy});
    }
    body
}
