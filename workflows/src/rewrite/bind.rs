//! What a module is given and gives back, as expressions over the whole plan.

use crate::document::field;
use crate::evaluate;
use crate::expand::{Each, Expander};
use crate::finding::near;
use crate::parameters::refuse;
use crate::template::{Piece, pieces, references, tokens};
use crate::yaml::{Node, NodeValue};

const MAX_SUBSTITUTIONS: usize = 32;

impl Expander<'_> {
    pub(super) fn nested(&mut self, instance: usize, each: Option<&Each>, node: &Node) -> Option<String> {
        if self.depth >= MAX_SUBSTITUTIONS {
            let source = self.document(instance)?.source.clone();
            let message = "inputs and outputs of modules refer to each other in a circle".to_owned();
            self.error("cycle", &source, node.span, message, String::new());
            return None;
        }
        self.depth += 1;
        let folded = self.fold(instance, each, node, true);
        self.depth -= 1;
        (folded.value != NodeValue::Text("${null}".to_owned())).then(|| as_expression(&folded))
    }

    /// A module's input as an expression over the whole plan.
    pub(crate) fn binding(&mut self, instance: usize, name: &str) -> Option<String> {
        let found = self.instances.get(instance)?;
        if let Some(known) = found.bindings.get(name) {
            return known.clone();
        }
        let (document, call) = (std::sync::Arc::clone(&found.document), found.call.clone()?);
        let parent = self.document(call.parent)?;
        let given = match parent.steps.get(call.declaration).and_then(|step| step.body.as_ref()) {
            Some(Node { value: NodeValue::Map(fields), .. }) => field(fields, name).cloned(),
            _ => None,
        };
        let text = match given {
            Some(node) => self.nested(call.parent, call.each.as_ref(), &node),
            None => {
                let declared = document.parameters.iter().find(|declared| declared.name.text == name)?;
                declared.default.as_ref().map(|default| evaluate::literal(&default.to_json()))
            }
        };
        if let Some(found) = self.instances.get_mut(instance) {
            found.bindings.insert(name.to_owned(), text.clone());
        }
        text
    }

    /// Checks what a module was given against the inputs it declares.
    pub(crate) fn check_inputs(&mut self, instance: usize) {
        let Some((document, call)) = self
            .instances
            .get(instance)
            .and_then(|found| Some((std::sync::Arc::clone(&found.document), found.call.clone()?)))
        else {
            return;
        };
        let Some(parent) = self.document(call.parent) else { return };
        let Some(declaration) = parent.steps.get(call.declaration) else { return };
        let given = match &declaration.body {
            Some(Node { value: NodeValue::Map(fields), .. }) => fields.clone(),
            _ => Vec::new(),
        };
        let module = &document.name.text;
        for (key, node) in &given {
            let Some(declared) = document.parameters.iter().find(|declared| declared.name.text == key.text) else {
                let hint = near(&key.text, document.parameters.iter().map(|declared| declared.name.text.as_str()));
                self.error(
                    "unknown-field",
                    &parent.source,
                    key.span,
                    format!("module '{module}' has no input '{}'", key.text),
                    hint,
                );
                continue;
            };
            let folded = self.fold(call.parent, call.each.as_ref(), node, true);
            let late = folded.to_json().to_string().contains("${");
            if let (false, Some((message, hint))) = (late, refuse(declared, &folded.to_json())) {
                self.error("wrong-type", &parent.source, node.span, format!("input '{}' {message}", key.text), hint);
                // Said once, here; inside the module it counts as unknown.
                if let Some(found) = self.instances.get_mut(instance) {
                    found.bindings.insert(key.text.clone(), None);
                }
            }
        }
        for declared in &document.parameters {
            let name = &declared.name.text;
            if declared.default.is_none() && field(&given, name).is_none() {
                let message = format!("module '{module}' needs the input '{name}'");
                let hint = format!("add '{name}: <{}>' under 'with:'", crate::parameters::type_name(declared.type_));
                self.error("missing-field", &parent.source, declaration.name.span, message, hint);
            }
        }
    }
}

pub(super) fn wrap(expression: &str) -> String {
    let (_, whole) = references(expression);
    let listed = expression.starts_with('[') || expression.starts_with('{') || expression.starts_with('"');
    if whole || (listed && tokens(expression).len() == 1) { expression.to_owned() } else { format!("({expression})") }
}

/// A folded node as one CEL expression.
fn as_expression(node: &Node) -> String {
    match &node.value {
        NodeValue::Scalar(value) => evaluate::literal(value),
        NodeValue::Text(text) => text_expression(text),
        NodeValue::List(items) => format!("[{}]", items.iter().map(as_expression).collect::<Vec<_>>().join(", ")),
        NodeValue::Map(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|(key, value)| format!("{}: {}", text_expression(&key.text), as_expression(value)))
                .collect();
            format!("{{{}}}", fields.join(", "))
        }
    }
}

fn text_expression(text: &str) -> String {
    let Ok(parts) = pieces(text) else { return evaluate::quote(text) };
    if let [Piece::Expression(only, _)] = parts.as_slice() {
        return only.clone();
    }
    let parts: Vec<String> = parts
        .iter()
        .map(|piece| match piece {
            Piece::Text(plain) => evaluate::quote(plain),
            Piece::Expression(expression, _) => format!("string({expression})"),
        })
        .collect();
    parts.join(" + ")
}
