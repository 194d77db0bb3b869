//! The wire forms: Query parameters into a tree, trees into XML, and error bodies. It knows no operation.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

/// A refusal as AWS words it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// Error code.
    pub code: String,
    /// HTTP status.
    pub status: u16,
    /// Text.
    pub message: String,
}

impl Refusal {
    /// A refusal with a status.
    #[must_use]
    pub fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), status, message: message.into() }
    }

    /// A refusal with status 400.
    #[must_use]
    pub fn bad(code: &str, message: impl Into<String>) -> Self {
        Self::new(400, code, message)
    }
}

/// `A.1.B=x` as `{"A": [{"B": "x"}]}`; the `member` level of Query lists disappears.
#[must_use]
pub(super) fn tree<'a>(parameters: impl IntoIterator<Item = (&'a str, &'a str)>) -> Value {
    let mut root = json!({});
    for (name, value) in parameters {
        insert(&mut root, name, value);
    }
    lists(root)
}

fn insert(at: &mut Value, name: &str, value: &str) {
    if !at.is_object() {
        *at = json!({});
    }
    let Some(fields) = at.as_object_mut() else { return };
    match name.split_once('.') {
        Some((part, rest)) => insert(fields.entry(part.to_owned()).or_insert(Value::Null), rest, value),
        None => {
            fields.insert(name.to_owned(), json!(value));
        }
    }
}

fn lists(value: Value) -> Value {
    let Value::Object(fields) = value else { return value };
    if fields.len() == 1 && fields.contains_key("member") {
        return fields.into_iter().next().map_or(Value::Null, |(_, inner)| lists(inner));
    }
    let numbered: Option<Vec<(u32, &Value)>> =
        fields.iter().map(|(key, value)| Some((key.parse().ok()?, value))).collect();
    match numbered {
        Some(mut items) if !items.is_empty() => {
            items.sort_by_key(|(index, _)| *index);
            Value::Array(items.into_iter().map(|(_, value)| lists(value.clone())).collect())
        }
        _ => Value::Object(fields.into_iter().map(|(key, value)| (key, lists(value))).collect()),
    }
}

/// Writes the fields of a tree as XML; list items are called `item`, fields that begin with `_` are left out.
pub(super) fn xml(out: &mut String, fields: &Map<String, Value>, item: &str) {
    for (name, value) in fields {
        if !name.starts_with('_') && !value.is_null() {
            element(out, name, value, item);
        }
    }
}

fn element(out: &mut String, name: &str, value: &Value, item: &str) {
    // The only map of the Query protocol here: its items are entries.
    let item = if name == "SummaryMap" { "entry" } else { item };
    let _ = write!(out, "<{name}>");
    match value {
        Value::Object(fields) => xml(out, fields, item),
        Value::Array(items) => items.iter().for_each(|one| element(out, item, one, item)),
        Value::String(text) => out.push_str(&quick_xml::escape::escape(text.as_str())),
        Value::Null => {}
        other => {
            let _ = write!(out, "{other}");
        }
    }
    let _ = write!(out, "</{name}>");
}

/// A text of an input, by JSON pointer.
#[must_use]
pub(super) fn text<'a>(input: &'a Value, pointer: &str) -> &'a str {
    input.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A text of an input that has to be there.
///
/// # Errors
/// It is not.
pub(super) fn need<'a>(input: &'a Value, name: &str) -> Result<&'a str, Refusal> {
    match text(input, &format!("/{name}")) {
        "" => Err(Refusal::bad("MissingParameter", format!("The request must contain the parameter {name}"))),
        found => Ok(found),
    }
}

/// The items of a list of an input.
#[must_use]
pub(super) fn items(input: &Value, pointer: &str) -> Vec<Value> {
    input.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default()
}

/// The texts of a list of an input.
#[must_use]
pub(super) fn texts(input: &Value, pointer: &str) -> Vec<String> {
    items(input, pointer).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Simulated milliseconds as ISO 8601.
#[must_use]
pub(super) fn iso(ms: i64) -> String {
    crate::clock::timestamp(ms).strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string()
}

/// Simulated milliseconds as the JSON protocols write times: seconds.
#[must_use]
pub(super) fn epoch(ms: i64) -> Value {
    json!(ms.div_euclid(1000))
}

/// One page of a list by a numeric token: the items, and the token of the next page.
#[must_use]
pub(super) fn page(all: Vec<Value>, size: Option<usize>, token: &str) -> (Vec<Value>, Option<String>) {
    let from: usize = token.parse().unwrap_or(0);
    let size = size.unwrap_or(usize::MAX);
    let more = all.len() > from.saturating_add(size);
    let next = more.then(|| (from + size).to_string());
    (all.into_iter().skip(from).take(size).collect(), next)
}

/// A number of an input, as text or as number.
#[must_use]
pub(super) fn number(input: &Value, pointer: &str) -> Option<i64> {
    let value = input.pointer(pointer)?;
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}
