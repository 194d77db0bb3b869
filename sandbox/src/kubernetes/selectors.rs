//! Label selectors (text and object form) and field selectors.

use serde_json::{Map, Value};

use super::object::{list, map, text};
use super::status::Refusal;

/// One requirement of a label selector.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Missing(String),
}

/// A parsed label selector; empty matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LabelSelector(Vec<Requirement>);

impl LabelSelector {
    /// Parses the query form: `a=b,c!=d,e in (f,g),!h`.
    pub(crate) fn parse(input: &str) -> Result<Self, Refusal> {
        let mut requirements = Vec::new();
        for part in split(input) {
            requirements.push(requirement(part.trim()).ok_or_else(|| {
                Refusal::bad_request(format!(
                    "unable to parse requirement: found '{}', expected: in, notin, =, ==, !=, gt, lt",
                    part.trim()
                ))
            })?);
        }
        Ok(Self(requirements))
    }

    /// Reads the object form (`matchLabels`, `matchExpressions`).
    pub(crate) fn of_object(selector: &Value) -> Self {
        let mut requirements = Vec::new();
        if let Some(labels) = map(selector, "/matchLabels") {
            for (key, value) in labels {
                requirements.push(Requirement::In(key.clone(), vec![value.as_str().unwrap_or_default().to_owned()]));
            }
        }
        for expression in list(selector, "/matchExpressions") {
            let key = text(expression, "/key").to_owned();
            let values = list(expression, "/values").iter().filter_map(Value::as_str).map(str::to_owned).collect();
            requirements.push(match text(expression, "/operator") {
                "In" => Requirement::In(key, values),
                "NotIn" => Requirement::NotIn(key, values),
                "Exists" => Requirement::Exists(key),
                _ => Requirement::Missing(key),
            });
        }
        Self(requirements)
    }

    /// Whether labels match.
    pub(crate) fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        let value = |key: &str| labels.and_then(|labels| labels.get(key)).and_then(Value::as_str);
        self.0.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => value(key).is_some_and(|found| values.iter().any(|each| each == found)),
            Requirement::NotIn(key, values) => value(key).is_none_or(|found| !values.iter().any(|each| each == found)),
            Requirement::Exists(key) => value(key).is_some(),
            Requirement::Missing(key) => value(key).is_none(),
        })
    }

    /// Whether an object's labels match.
    pub(crate) fn selects(&self, object: &Value) -> bool {
        self.matches(map(object, "/metadata/labels"))
    }

    /// Whether it has no requirement.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Whether a plain map selector (as of a Service) matches labels; an empty one matches nothing.
pub(crate) fn plain_selector_matches(
    selector: Option<&Map<String, Value>>,
    labels: Option<&Map<String, Value>>,
) -> bool {
    selector.is_some_and(|wanted| {
        !wanted.is_empty() && wanted.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
    })
}

fn split(input: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0_i32, 0_usize);
    for (at, letter) in input.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(input.get(start..at).unwrap_or_default());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(input.get(start..).unwrap_or_default());
    parts.retain(|part| !part.trim().is_empty());
    parts
}

fn requirement(part: &str) -> Option<Requirement> {
    let key_ok = |key: &str| {
        !key.is_empty() && key.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_./".contains(letter))
    };
    let own = |key: &str| key_ok(key.trim()).then(|| key.trim().to_owned());
    let set = |values: &str| -> Option<Vec<String>> {
        let inner = values.trim().strip_prefix('(')?.strip_suffix(')')?;
        Some(inner.split(',').map(|each| each.trim().to_owned()).collect())
    };
    if let Some(key) = part.strip_prefix('!') {
        return own(key).map(Requirement::Missing);
    }
    if let Some((key, values)) = part.split_once(" notin ") {
        return Some(Requirement::NotIn(own(key)?, set(values)?));
    }
    if let Some((key, values)) = part.split_once(" in ") {
        return Some(Requirement::In(own(key)?, set(values)?));
    }
    if let Some((key, value)) = part.split_once("!=") {
        return Some(Requirement::NotIn(own(key)?, vec![value.trim().to_owned()]));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        let value = value.trim();
        return key_ok_value(value).then_some(Requirement::In(own(key)?, vec![value.to_owned()]));
    }
    own(part).map(Requirement::Exists)
}

fn key_ok_value(value: &str) -> bool {
    value.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter))
}

/// A parsed field selector: paths with `=` or `!=`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FieldSelector(Vec<(String, String, bool)>);

impl FieldSelector {
    /// Parses the query form and checks the fields that a kind supports.
    pub(crate) fn parse(input: &str, supported: &[&str]) -> Result<Self, Refusal> {
        let mut terms = Vec::new();
        for part in input.split(',').filter(|part| !part.is_empty()) {
            let (path, value, equal) = if let Some((path, value)) = part.split_once("!=") {
                (path, value, false)
            } else if let Some((path, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
                (path, value, true)
            } else {
                return Err(Refusal::bad_request(format!("invalid selector: '{input}'; can't understand '{part}'")));
            };
            if !["metadata.name", "metadata.namespace"].contains(&path) && !supported.contains(&path) {
                return Err(Refusal::bad_request(format!("field label not supported: {path}")));
            }
            terms.push((path.to_owned(), value.to_owned(), equal));
        }
        Ok(Self(terms))
    }

    /// Whether an object matches.
    pub(crate) fn selects(&self, object: &Value) -> bool {
        self.0.iter().all(|(path, value, equal)| {
            let pointer = format!("/{}", path.replace('.', "/"));
            let found = match object.pointer(&pointer) {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Bool(flag)) => flag.to_string(),
                Some(Value::Number(number)) => number.to_string(),
                _ if path == "spec.unschedulable" => "false".to_owned(),
                _ => String::new(),
            };
            (found == *value) == *equal
        })
    }

    /// Whether it has no term.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The fields that a built-in kind can be selected by, beyond name and namespace.
pub(crate) fn selectable_fields(group: &str, plural: &str) -> &'static [&'static str] {
    match (group, plural) {
        ("", "pods") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        ("", "nodes") => &["spec.unschedulable"],
        ("", "namespaces") => &["status.phase"],
        ("", "secrets") => &["type"],
        ("", "events") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        ("batch", "jobs") => &["status.successful"],
        ("", "services") => &["spec.clusterIP", "spec.type"],
        ("apps", "replicasets") => &["status.replicas"],
        _ => &[],
    }
}
