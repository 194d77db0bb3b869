//! Values against JSON Schemas as `schemars` writes them: `$ref`, `anyOf`, enums, closed objects. Not a general validator.

use crate::finding::{Finding, near};
use crate::source::{Source, Span};
use crate::template::{Piece, pieces, references};
use crate::yaml::{Node, NodeValue};
use serde_json::Value;
use std::collections::BTreeSet;

const MAX_REFERENCES: usize = 16;

/// A schema within its document, so that `$ref` can be followed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape<'a> {
    root: &'a Value,
    here: &'a Value,
}

/// Finds the shape of a step's output, for references inside specs.
pub(crate) trait Outputs {
    /// The outputs schema of a step by path name.
    fn shape_of(&self, step: &str) -> Option<Shape<'_>>;
}

impl<'a> Shape<'a> {
    /// The schema document itself.
    #[must_use]
    pub(crate) fn new(root: &'a Value) -> Self {
        Self { root, here: root }.followed()
    }

    fn at(&self, here: &'a Value) -> Self {
        Self { root: self.root, here }.followed()
    }

    fn followed(mut self) -> Self {
        for _ in 0..MAX_REFERENCES {
            let Some(Value::String(reference)) = self.here.get("$ref") else { break };
            match reference.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer)) {
                Some(found) => self.here = found,
                None => break,
            }
        }
        self
    }

    fn variants(&self) -> Option<Vec<Self>> {
        ["anyOf", "oneOf"]
            .iter()
            .find_map(|word| self.here.get(*word).and_then(Value::as_array))
            .map(|all| all.iter().map(|variant| self.at(variant)).collect())
    }

    fn parts(&self) -> Vec<Self> {
        self.here.get("allOf").and_then(Value::as_array).into_iter().flatten().map(|part| self.at(part)).collect()
    }

    /// The field of an object shape. `Err` holds the fields there are.
    ///
    /// # Errors
    /// When the shape is a closed object without that field.
    pub(crate) fn member(&self, name: &str) -> Result<Option<Self>, Vec<String>> {
        if let Some(variants) = self.variants() {
            let mut refused = Vec::new();
            for variant in variants.iter().filter(|variant| !variant.is_null()) {
                match variant.member(name) {
                    Ok(found) => return Ok(found),
                    Err(fields) => refused.extend(fields),
                }
            }
            return if refused.is_empty() { Ok(None) } else { Err(refused) };
        }
        if let Some(found) = self.here.get("properties").and_then(|all| all.get(name)) {
            return Ok(Some(self.at(found)));
        }
        for part in self.parts() {
            if let Ok(Some(found)) = part.member(name) {
                return Ok(Some(found));
            }
        }
        match self.here.get("additionalProperties") {
            Some(Value::Bool(true)) => Ok(None),
            Some(Value::Object(_)) => Ok(self.here.get("additionalProperties").map(|schema| self.at(schema))),
            _ => {
                let fields = self.fields();
                let open = fields.is_empty() && self.here.get("additionalProperties").is_none();
                let scalar = self.types().is_some_and(|types| !types.contains("object"));
                if open && !scalar { Ok(None) } else { Err(fields) }
            }
        }
    }

    /// The names of the properties.
    #[must_use]
    pub(crate) fn fields(&self) -> Vec<String> {
        let own =
            self.here.get("properties").and_then(Value::as_object).into_iter().flat_map(|all| all.keys().cloned());
        own.chain(self.parts().iter().flat_map(Self::fields)).collect()
    }

    fn is_null(&self) -> bool {
        self.here.get("type").and_then(Value::as_str) == Some("null")
    }

    /// The JSON types it allows; none when anything goes.
    fn types(&self) -> Option<BTreeSet<String>> {
        if let Some(variants) = self.variants() {
            return variants.iter().map(Self::types).try_fold(BTreeSet::new(), |mut all, some| {
                all.extend(some?);
                Some(all)
            });
        }
        if let Some(constant) = self.here.get("const") {
            return Some(BTreeSet::from([json_type(constant).to_owned()]));
        }
        match self.here.get("type") {
            Some(Value::String(one)) => Some(BTreeSet::from([one.clone()])),
            Some(Value::Array(many)) => Some(many.iter().filter_map(Value::as_str).map(str::to_owned).collect()),
            _ => {
                if let Some(values) = self.here.get("enum").and_then(Value::as_array) {
                    return Some(values.iter().map(|value| json_type(value).to_owned()).collect());
                }
                self.parts().iter().find_map(Self::types)
            }
        }
    }

    /// Its types in words, for messages and the reference.
    #[must_use]
    pub(crate) fn words(&self) -> String {
        let types = self.types().unwrap_or_default();
        let words: Vec<&str> = types.iter().filter(|name| *name != "null").map(|name| word(name)).collect();
        if words.is_empty() { "anything".to_owned() } else { words.join(" or ") }
    }
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn word(type_: &str) -> &str {
    match type_ {
        "array" => "a list",
        "object" => "a map",
        "integer" => "an integer",
        "number" => "a number",
        "boolean" => "a boolean",
        "string" => "a string",
        other => other,
    }
}

fn allows(wanted: &BTreeSet<String>, given: &str) -> bool {
    wanted.contains(given) || (given == "integer" && wanted.contains("number"))
}

/// Checks one spec.
pub(crate) struct Walk<'a> {
    /// Where the spec stands.
    pub(crate) source: &'a Source,
    /// The step's kind, for messages.
    pub(crate) kind: &'a str,
    /// Outputs of the other steps.
    pub(crate) outputs: &'a dyn Outputs,
}

impl std::fmt::Debug for Walk<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Walk").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Walk<'_> {
    /// Everything in `node` that does not fit. `what` names the node in messages; `at` is where missing fields are reported.
    #[must_use]
    pub(crate) fn check(&self, shape: Shape<'_>, node: &Node, what: &str, at: Span) -> Vec<Finding> {
        if let Some(variants) = shape.variants() {
            return self.check_variants(&variants, shape, node, what, at);
        }
        let mut found: Vec<Finding> = shape.parts().iter().flat_map(|part| self.check(*part, node, what, at)).collect();
        if let NodeValue::Text(text) = &node.value
            && text.contains("${")
        {
            found.extend(self.check_template(shape, node, text, what));
            return found;
        }
        if let Some(types) = shape.types() {
            let given = json_type(&shallow(node));
            if !allows(&types, given) {
                let message = format!("{what} must be {}, not {}", shape.words(), node.kind());
                found.push(Finding::error("wrong-type", self.source, node.span, message));
                return found;
            }
        }
        match &node.value {
            NodeValue::Map(_) => found.extend(self.check_object(shape, node, what, at)),
            NodeValue::List(items) => {
                if let Some(inner) = shape.here.get("items") {
                    let inner = shape.at(inner);
                    for item in items {
                        found.extend(self.check(inner, item, &format!("an entry of {what}"), item.span));
                    }
                }
            }
            NodeValue::Scalar(_) | NodeValue::Text(_) => found.extend(self.check_value(shape, node, what)),
        }
        found
    }

    fn check_variants(
        &self,
        variants: &[Shape<'_>],
        shape: Shape<'_>,
        node: &Node,
        what: &str,
        at: Span,
    ) -> Vec<Finding> {
        let results: Vec<(&Shape<'_>, Vec<Finding>)> =
            variants.iter().map(|variant| (variant, self.check(*variant, node, what, at))).collect();
        if results.iter().any(|(_, found)| found.is_empty()) {
            return Vec::new();
        }
        let given = json_type(&shallow(node));
        let mut fitting: Vec<Vec<Finding>> = results
            .iter()
            .filter(|(variant, _)| variant.types().is_none_or(|types| allows(&types, given)))
            .map(|(_, found)| found.clone())
            .collect();
        fitting.sort_by_key(Vec::len);
        if let [only] = fitting.as_slice() {
            return only.clone();
        }
        let choices = constants(variants);
        let message = if choices.is_empty() {
            format!("{what} must be {}, not {}", shape.words(), node.kind())
        } else {
            let value = shallow(node);
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            format!("{what} must be one of {}, not '{text}'", choices.join(", "))
        };
        if fitting.len() > 1 && choices.is_empty() && !matches!(node.value, NodeValue::Scalar(_) | NodeValue::Text(_)) {
            return fitting.swap_remove(0);
        }
        let hint = if let NodeValue::Text(text) = &node.value {
            near(text, choices.iter().map(String::as_str))
        } else {
            String::new()
        };
        vec![Finding::error("wrong-value", self.source, node.span, message).hint(hint)]
    }

    fn check_template(&self, shape: Shape<'_>, node: &Node, text: &str, what: &str) -> Option<Finding> {
        let wanted = shape.types()?;
        let pieces = pieces(text).ok()?;
        let [Piece::Expression(expression, _)] = pieces.as_slice() else {
            return (!wanted.contains("string")).then(|| {
                let message = format!("{what} must be {}, and this is text with an expression in it", shape.words());
                Finding::error("wrong-type", self.source, node.span, message)
                    .hint("write the whole value as one ${…} to keep its type")
            });
        };
        let (found, true) = references(expression) else { return None };
        let reference = found.first()?;
        let mut output = self.outputs.shape_of(&reference.step)?;
        for field in &reference.fields {
            output = output.member(field).ok()??;
        }
        let given = output.types()?;
        let fits = given.iter().any(|given| given != "null" && allows(&wanted, given));
        (!fits && !given.is_empty()).then(|| {
            let message = format!(
                "{what} must be {}, and '{}' of step '{}' is {}",
                shape.words(),
                reference.fields.join("."),
                reference.step,
                output.words()
            );
            Finding::error("wrong-type", self.source, node.span, message)
        })
    }

    fn check_object(&self, shape: Shape<'_>, node: &Node, what: &str, at: Span) -> Vec<Finding> {
        let NodeValue::Map(fields) = &node.value else { return Vec::new() };
        let mut found = Vec::new();
        let properties = shape.here.get("properties").and_then(Value::as_object);
        for (key, value) in fields {
            if key.text.contains("${") {
                continue;
            }
            if let Some(inner) = properties.and_then(|all| all.get(&key.text)) {
                found.extend(self.check(shape.at(inner), value, &format!("'{}'", key.text), key.span));
                continue;
            }
            match shape.here.get("additionalProperties") {
                Some(Value::Bool(false)) => {
                    let message = format!("{} has no field '{}'", self.owner(what), key.text);
                    let hint = near(&key.text, properties.into_iter().flat_map(|all| all.keys().map(String::as_str)));
                    found.push(Finding::error("unknown-field", self.source, key.span, message).hint(hint));
                }
                Some(inner @ Value::Object(_)) => {
                    found.extend(self.check(shape.at(inner), value, &format!("'{}'", key.text), key.span));
                }
                _ => {}
            }
        }
        for required in shape.here.get("required").and_then(Value::as_array).into_iter().flatten() {
            let Some(name) = required.as_str() else { continue };
            if !fields.iter().any(|(key, _)| key.text == name) {
                let message = format!("{} needs the field '{name}'", self.owner(what));
                let words = properties.and_then(|all| all.get(name)).map(|inner| shape.at(inner).words());
                let hint = format!("add '{name}: <{}>'", words.unwrap_or_default());
                found.push(Finding::error("missing-field", self.source, at, message).hint(hint));
            }
        }
        found
    }

    fn owner(&self, what: &str) -> String {
        if what == "spec" { format!("the spec of {}", self.kind) } else { what.to_owned() }
    }

    fn check_value(&self, shape: Shape<'_>, node: &Node, what: &str) -> Option<Finding> {
        let value = shallow(node);
        let choices = constants(&[shape]);
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        if !choices.is_empty() && !choices.contains(&text) {
            let message = format!("{what} must be one of {}, not '{text}'", choices.join(", "));
            let hint = near(&text, choices.iter().map(String::as_str));
            return Some(Finding::error("wrong-value", self.source, node.span, message).hint(hint));
        }
        let number = value.as_f64()?;
        let bound = |word: &str| shape.here.get(word).and_then(Value::as_f64);
        let refuse = |words: &str, limit: f64| {
            let message = format!("{what} must be {words} {limit}, not {number}");
            Some(Finding::error("wrong-value", self.source, node.span, message))
        };
        match (bound("minimum"), bound("maximum")) {
            (Some(limit), _) if number < limit => refuse("at least", limit),
            (_, Some(limit)) if number > limit => refuse("at most", limit),
            _ => None,
        }
    }
}

fn constants(shapes: &[Shape<'_>]) -> Vec<String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    shapes
        .iter()
        .flat_map(|shape| {
            let one = shape.here.get("const").into_iter();
            let many = shape.here.get("enum").and_then(Value::as_array).into_iter().flatten();
            one.chain(many).map(text).collect::<Vec<_>>()
        })
        .collect()
}

fn shallow(node: &Node) -> Value {
    match &node.value {
        NodeValue::Scalar(value) => value.clone(),
        NodeValue::Text(text) => Value::String(text.replace("$${", "${")),
        NodeValue::List(_) => Value::Array(Vec::new()),
        NodeValue::Map(_) => Value::Object(serde_json::Map::new()),
    }
}
