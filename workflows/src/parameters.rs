//! Parameter values: typed reading of `--set`, parameter files and defaults, checked against their declarations.

use crate::document::{Declaration, Type};
use crate::evaluate;
use crate::finding::{Finding, Findings, near};
use crate::source::{Source, Span};
use crate::yaml::{Node, NodeValue, parse};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Values from the command line and from parameter files, not yet checked. Later ones win.
#[derive(Debug, Clone, Default)]
pub struct ParameterValues {
    given: Vec<Given>,
}

#[derive(Debug, Clone)]
struct Given {
    source: Source,
    name: String,
    name_span: Span,
    value: Raw,
    value_span: Span,
}

#[derive(Debug, Clone)]
enum Raw {
    /// From the command line: read by the declared type.
    Text(String),
    /// From a file: has a type already.
    Node(Node),
}

impl ParameterValues {
    /// Takes `name=value` from the command line.
    ///
    /// # Errors
    /// When there is no `=`.
    pub fn set(&mut self, assignment: &str) -> Result<(), Findings> {
        let source = Source::new("command line", format!("--set {assignment}"));
        let Some((name, value)) = assignment.split_once('=') else {
            let finding = Finding::error(
                "parameter",
                &source,
                Span::of(6, assignment.len()),
                "a parameter is set with 'name=value'",
            );
            return Err(Findings { list: vec![finding.hint(format!("write --set {assignment}=<value>"))] });
        };
        self.given.push(Given {
            source,
            name: name.trim().to_owned(),
            name_span: Span::of(6, name.len()),
            value: Raw::Text(value.to_owned()),
            value_span: Span::of(7 + name.len(), value.len()),
        });
        Ok(())
    }

    /// Takes a parameter file: a YAML (or JSON) map from names to values.
    ///
    /// # Errors
    /// When it is not such a map.
    pub fn file(&mut self, source: &Source) -> Result<(), Findings> {
        let root = parse(source).map_err(|list| Findings { list })?;
        let NodeValue::Map(fields) = root.value else {
            let message = format!("a parameter file is a map from names to values, not {}", root.kind());
            return Err(Findings { list: vec![Finding::error("parameter", source, root.span, message)] });
        };
        for (key, node) in fields {
            self.given.push(Given {
                source: source.clone(),
                name: key.text,
                name_span: key.span,
                value_span: node.span,
                value: Raw::Node(node),
            });
        }
        Ok(())
    }

    /// Checks everything against the declarations and fills in defaults. `owner` is where the declarations stand.
    pub(crate) fn settle(
        &self,
        owner: &Source,
        declared: &[Declaration],
        findings: &mut Findings,
    ) -> BTreeMap<String, Value> {
        let mut values = BTreeMap::new();
        for declaration in declared {
            if let Some(default) = &declaration.default {
                let value = default.to_json();
                if let Some((message, hint)) = refuse(declaration, &value) {
                    let message = format!("the default of '{}' {message}", declaration.name.text);
                    findings.push(Finding::error("parameter", owner, default.span, message).hint(hint));
                }
                values.insert(declaration.name.text.clone(), value);
            }
        }
        for given in &self.given {
            let Some(declaration) = declared.iter().find(|d| d.name.text == given.name) else {
                let message = format!("there is no parameter '{}'", given.name);
                let hint = near(&given.name, declared.iter().map(|d| d.name.text.as_str()));
                findings.push(Finding::error("unknown-parameter", &given.source, given.name_span, message).hint(hint));
                continue;
            };
            let value = match &given.value {
                Raw::Text(text) => typed(declaration.type_, text),
                Raw::Node(node) => Ok(node.to_json()),
            };
            let refusal = match &value {
                Ok(value) => refuse(declaration, value),
                Err(message) => Some((message.clone(), String::new())),
            };
            if let Some((message, hint)) = refusal {
                let message = format!("parameter '{}' {message}", given.name);
                findings.push(Finding::error("parameter", &given.source, given.value_span, message).hint(hint));
            }
            values.insert(given.name.clone(), value.unwrap_or(Value::Null));
        }
        for declaration in declared {
            let name = &declaration.name.text;
            if !values.contains_key(name) {
                let message = format!("parameter '{name}' is required and was not given");
                let finding = Finding::error("missing-parameter", owner, declaration.name.span, message);
                findings.push(finding.hint(format!("add --set {name}=<{}>", type_name(declaration.type_))));
                values.insert(name.clone(), placeholder(declaration.type_));
            }
        }
        values
    }
}

fn placeholder(type_: Type) -> Value {
    match type_ {
        Type::String => json!(""),
        Type::Integer | Type::Number => json!(0),
        Type::Boolean => json!(false),
        Type::List => json!([]),
        Type::Map => json!({}),
        Type::Any => Value::Null,
    }
}

/// The name of a type.
#[must_use]
pub(crate) fn type_name(type_: Type) -> &'static str {
    crate::document::TYPES.iter().find(|(_, found)| *found == type_).map_or("any", |(name, _)| name)
}

fn typed(type_: Type, text: &str) -> Result<Value, String> {
    let wrong = || format!("must be {}, not '{text}'", article(type_));
    match type_ {
        Type::String => Ok(Value::String(text.to_owned())),
        Type::Integer => text.trim().parse::<i64>().map(Value::from).map_err(|_| wrong()),
        Type::Number => {
            let number: f64 = text.trim().parse().map_err(|_| wrong())?;
            serde_json::Number::from_f64(number).map(Value::Number).ok_or_else(wrong)
        }
        Type::Boolean => match text.trim() {
            "true" | "yes" | "on" => Ok(Value::Bool(true)),
            "false" | "no" | "off" => Ok(Value::Bool(false)),
            _ => Err(format!("{}; write true or false", wrong())),
        },
        Type::List | Type::Map | Type::Any => {
            let source = Source::new("value", text);
            let value = parse(&source).map(|node| node.to_json()).map_err(|_| wrong())?;
            match (type_, value) {
                (Type::List, Value::String(_)) => {
                    Ok(Value::Array(text.split(',').map(|item| Value::String(item.trim().to_owned())).collect()))
                }
                (_, value) => Ok(value),
            }
        }
    }
}

fn article(type_: Type) -> &'static str {
    match type_ {
        Type::String => "a string",
        Type::Integer => "an integer",
        Type::Number => "a number",
        Type::Boolean => "a boolean",
        Type::List => "a list",
        Type::Map => "a map",
        Type::Any => "a value",
    }
}

/// Why a value does not fit a declaration: the end of a sentence, and a hint. Null fits when the default is null.
pub(crate) fn refuse(declaration: &Declaration, value: &Value) -> Option<(String, String)> {
    let null_default = matches!(&declaration.default, Some(node) if node.value == NodeValue::Scalar(Value::Null));
    if value.is_null() && null_default {
        return None;
    }
    let fits = match declaration.type_ {
        Type::String => value.is_string(),
        Type::Integer => value.is_i64() || value.is_u64(),
        Type::Number => value.is_number(),
        Type::Boolean => value.is_boolean(),
        Type::List => value.is_array(),
        Type::Map => value.is_object(),
        Type::Any => true,
    };
    if !fits {
        let kind = crate::yaml::json_kind(value);
        return Some((format!("must be {}, not {kind}", article(declaration.type_)), String::new()));
    }
    if let Some(choices) = &declaration.choices {
        let choices: Vec<Value> = choices.iter().map(Node::to_json).collect();
        if !choices.contains(value) {
            let names: Vec<String> =
                choices.iter().map(|c| c.as_str().map_or_else(|| c.to_string(), str::to_owned)).collect();
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let hint = near(&text, names.iter().map(String::as_str));
            return Some((format!("must be one of {}, not {value}", names.join(", ")), hint));
        }
    }
    if let (Some(pattern), Some(text)) = (&declaration.pattern, value.as_str()) {
        let test = format!("{}.matches({})", evaluate::quote(text), evaluate::quote(&pattern.text));
        match evaluate::expression(&test, &evaluate::Scope::new()) {
            Ok(Value::Bool(true)) => {}
            Ok(_) => {
                return Some((
                    format!("must match the pattern {}, and '{text}' does not", pattern.text),
                    String::new(),
                ));
            }
            Err(_) => {
                return Some((
                    format!("has a pattern that is not a regular expression: {}", pattern.text),
                    String::new(),
                ));
            }
        }
    }
    let number = value.as_f64();
    match (number, declaration.minimum, declaration.maximum) {
        (Some(number), Some(minimum), _) if number < minimum => {
            Some((format!("must be at least {minimum}, not {number}"), String::new()))
        }
        (Some(number), _, Some(maximum)) if number > maximum => {
            Some((format!("must be at most {maximum}, not {number}"), String::new()))
        }
        _ => None,
    }
}
