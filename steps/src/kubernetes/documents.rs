//! Manifests as text to objects as JSON: several documents, lists flattened, in the order they can be applied.
//!
//! Scalars are read as Kubernetes' own tools read them where YAML 1.2 differs (`0644` is octal). Nothing is sent here.

use super::objects::text;
use platflow_engine::failure::{Residue, StepError};
use saphyr::{Scalar, ScalarStyle, Yaml, YamlLoader};
use saphyr_parser::Parser;
use serde_json::{Map, Value};

const MAX_BYTES: usize = 32 << 20;
const MAX_DEPTH: usize = 100;

fn refused(what: impl std::fmt::Display) -> StepError {
    StepError::permanent(format!("the manifest cannot be read: {what}")).leaving(Residue::None)
}

/// All objects of a YAML text, in its order.
pub(crate) fn objects(yaml: &str) -> Result<Vec<Value>, StepError> {
    if yaml.len() > MAX_BYTES {
        return Err(refused(format!("it has {} bytes, more than {MAX_BYTES}", yaml.len())));
    }
    let mut loader = YamlLoader::<Yaml<'_>>::default();
    loader.early_parse(false);
    Parser::new_from_str(yaml).load(&mut loader, true).map_err(refused)?;
    if let Some(error) = loader.error() {
        return Err(refused(error));
    }
    let documents = loader.into_documents();
    let mut found = Vec::new();
    for (index, document) in documents.iter().enumerate() {
        flatten(json(document, 0)?, index + 1, &mut found)?;
    }
    Ok(found)
}

/// Flattens lists and checks that each object says what it is.
pub(crate) fn flatten(document: Value, position: usize, into: &mut Vec<Value>) -> Result<(), StepError> {
    if document.is_null() {
        return Ok(());
    }
    if text(&document, "/kind").ends_with("List")
        && let Some(items) = document.get("items").and_then(Value::as_array)
    {
        for item in items {
            flatten(item.clone(), position, into)?;
        }
        return Ok(());
    }
    for field in ["/apiVersion", "/kind", "/metadata/name"] {
        if text(&document, field).is_empty() {
            return Err(refused(format!(
                "object {position} has no {}",
                field.trim_start_matches('/').replace('/', ".")
            )));
        }
    }
    into.push(document);
    Ok(())
}

fn json(node: &Yaml<'_>, depth: usize) -> Result<Value, StepError> {
    if depth > MAX_DEPTH {
        return Err(refused(format!("it is nested more than {MAX_DEPTH} deep")));
    }
    match node {
        Yaml::Representation(raw, style, tag) => {
            if *style == ScalarStyle::Plain && tag.is_none() && is_octal(raw) {
                return i64::from_str_radix(raw, 8).map(Value::from).map_err(refused);
            }
            match Scalar::parse_from_cow_and_metadata(raw.clone(), *style, tag.as_ref()) {
                Some(scalar) => value(&scalar),
                None => Err(refused(format!("{raw:?} does not fit its tag"))),
            }
        }
        Yaml::Value(scalar) => value(scalar),
        Yaml::Sequence(items) => items.iter().map(|item| json(item, depth + 1)).collect(),
        Yaml::Mapping(fields) => {
            let mut map = Map::new();
            for (key, item) in fields {
                let key = match json(key, depth + 1)? {
                    Value::String(key) => key,
                    Value::Bool(_) | Value::Number(_) => raw_key(key),
                    other => return Err(refused(format!("{other} is not a key"))),
                };
                map.insert(key, json(item, depth + 1)?);
            }
            Ok(Value::Object(map))
        }
        Yaml::Tagged(_, inner) => json(inner, depth + 1),
        // An empty document.
        Yaml::BadValue => Ok(Value::Null),
        Yaml::Alias(_) => Err(refused("it holds an alias without an anchor")),
    }
}

fn raw_key(key: &Yaml<'_>) -> String {
    match key {
        Yaml::Representation(raw, ..) => raw.to_string(),
        _ => String::new(),
    }
}

fn is_octal(raw: &str) -> bool {
    raw.len() > 1 && raw.starts_with('0') && raw.bytes().all(|byte| byte.is_ascii_digit() && byte < b'8')
}

fn value(scalar: &Scalar<'_>) -> Result<Value, StepError> {
    Ok(match scalar {
        Scalar::Null => Value::Null,
        Scalar::Boolean(flag) => Value::Bool(*flag),
        Scalar::Integer(number) => Value::from(*number),
        Scalar::FloatingPoint(number) => serde_json::Number::from_f64(number.into_inner())
            .map(Value::Number)
            .ok_or_else(|| refused(format!("{number} is not a JSON number")))?,
        Scalar::String(text) => Value::String(text.to_string()),
    })
}

/// Puts `to` where the manifest names the namespace `from`: on objects, and in the subjects of bindings.
pub(crate) fn replace_namespace(object: &mut Value, from: &str, to: &str) {
    let swap = |value: Option<&mut Value>| {
        if let Some(value) = value
            && value.as_str() == Some(from)
        {
            *value = to.into();
        }
    };
    swap(object.pointer_mut("/metadata/namespace"));
    if let Some(subjects) = object.get_mut("subjects").and_then(Value::as_array_mut) {
        subjects.iter_mut().for_each(|subject| swap(subject.get_mut("namespace")));
    }
    if let Some(webhooks) = object.get_mut("webhooks").and_then(Value::as_array_mut) {
        webhooks.iter_mut().for_each(|webhook| swap(webhook.pointer_mut("/clientConfig/service/namespace")));
    }
    swap(object.pointer_mut("/spec/conversion/webhook/clientConfig/service/namespace"));
    if text(object, "/kind") == "APIService" {
        swap(object.pointer_mut("/spec/service/namespace"));
    }
}

/// The order in which kinds can be applied: what others need comes first.
pub(crate) fn rank(object: &Value) -> usize {
    const ORDER: &[&str] = &[
        "CustomResourceDefinition",
        "Namespace",
        "ResourceQuota",
        "LimitRange",
        "PriorityClass",
        "StorageClass",
        "NetworkPolicy",
        "ServiceAccount",
        "Secret",
        "ConfigMap",
        "ClusterRole",
        "ClusterRoleBinding",
        "Role",
        "RoleBinding",
        "PersistentVolume",
        "PersistentVolumeClaim",
        "Service",
        "PodDisruptionBudget",
        "Deployment",
        "StatefulSet",
        "DaemonSet",
        "Pod",
        "Job",
        "CronJob",
        "Ingress",
        "APIService",
        "MutatingWebhookConfiguration",
        "ValidatingWebhookConfiguration",
    ];
    let kind = text(object, "/kind");
    ORDER.iter().position(|known| *known == kind).unwrap_or(ORDER.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Proves that several documents, empty ones, comments, lists, octal numbers, quoted scalars and blocks come out
    /// as Kubernetes' tools read them.
    #[test]
    fn yaml_becomes_objects() {
        let block = "---\napiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Secret\n  metadata: {name: b}\n  mode: 0644\n  float: 1.5\n  none: ~\n  yes: true\n";
        let found = objects(block).unwrap();
        assert_eq!(
            found,
            [json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "b"}, "mode": 420, "float": 1.5,
                "none": null, "yes": true})]
        );
        let two = "# c\n---\n---\napiVersion: v1\nkind: A\nmetadata:\n  name: x\n---\napiVersion: v1\nkind: B\nmetadata:\n  name: 'y'\ndata:\n  mode: '0644'\n  t: |\n    one\n    two\n";
        let found = objects(two).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[1]["data"], json!({"mode": "0644", "t": "one\ntwo\n"}));
    }

    /// Proves that an object without a kind or name, a duplicate key and broken YAML are refused before anything is
    /// sent, with residue none.
    #[test]
    fn broken_manifests_are_refused() {
        for bad in [
            "kind: A\nmetadata: {name: x}",
            "apiVersion: v1\nkind: A",
            "a: [",
            "apiVersion: v1\nkind: A\nkind: B\nmetadata: {name: x}",
        ] {
            let error = objects(bad).unwrap_err();
            assert_eq!(error.residue, Residue::None, "{bad}");
        }
    }

    /// Proves that the namespace is replaced on objects, binding subjects and webhook services, and nowhere else.
    #[test]
    fn namespaces_are_replaced() {
        let mut binding = json!({"kind": "ClusterRoleBinding", "metadata": {"name": "argocd", "namespace": "argocd"},
            "subjects": [{"kind": "ServiceAccount", "name": "argocd", "namespace": "argocd"},
                {"kind": "ServiceAccount", "name": "x", "namespace": "other"}],
            "webhooks": [{"clientConfig": {"service": {"namespace": "argocd"}}}]});
        replace_namespace(&mut binding, "argocd", "platform-system");
        assert_eq!(
            binding,
            json!({"kind": "ClusterRoleBinding", "metadata": {"name": "argocd", "namespace": "platform-system"},
                "subjects": [{"kind": "ServiceAccount", "name": "argocd", "namespace": "platform-system"},
                    {"kind": "ServiceAccount", "name": "x", "namespace": "other"}],
                "webhooks": [{"clientConfig": {"service": {"namespace": "platform-system"}}}]})
        );
    }
}
