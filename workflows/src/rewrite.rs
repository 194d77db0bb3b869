//! Expressions of one file become expressions over the whole plan: module inputs and outputs are put in, what is known
//! before the run is evaluated, and what is left refers to steps by path name only.

mod bind;
mod refer;

use self::bind::wrap;
use crate::evaluate;
use crate::expand::{Each, Expander};
use crate::finding::near;
use crate::source::{Source, Span};
use crate::template::{Piece, Token, TokenKind, escape, member, pieces, references, tokens};
use crate::yaml::{Key, Node, NodeValue};
use serde_json::Value;

/// Where an expression stands.
#[derive(Debug, Clone)]
pub(super) struct Place {
    source: Source,
    whole: Span,
    base: Option<usize>,
}

impl Place {
    fn new(source: &Source, span: Span, expression: &str) -> Self {
        let base = source.slice(span).find(expression).map(|at| span.start + at);
        Self { source: source.clone(), whole: span, base }
    }

    fn at(&self, start: usize, end: usize) -> Span {
        self.base.map_or(self.whole, |base| Span { start: base + start, end: base + end.max(start + 1) })
    }
}

/// An expression that was reported as wrong.
pub(super) struct Reported;

impl Expander<'_> {
    /// A node with compiled expressions. Wrong ones are reported and become `${null}`.
    pub(crate) fn fold(&mut self, instance: usize, each: Option<&Each>, node: &Node, steps: bool) -> Node {
        let value = match &node.value {
            NodeValue::Scalar(_) => return node.clone(),
            NodeValue::List(items) => {
                NodeValue::List(items.iter().map(|item| self.fold(instance, each, item, steps)).collect())
            }
            NodeValue::Map(fields) => NodeValue::Map(
                fields
                    .iter()
                    .map(|(key, value)| {
                        let text = Node { span: key.span, value: NodeValue::Text(key.text.clone()) };
                        let folded = match self.fold(instance, each, &text, steps).value {
                            NodeValue::Text(text) => text,
                            NodeValue::Scalar(value) => value.to_string(),
                            _ => key.text.clone(),
                        };
                        (Key { text: folded, span: key.span }, self.fold(instance, each, value, steps))
                    })
                    .collect(),
            ),
            NodeValue::Text(text) if text.contains("${") => return self.fold_text(instance, each, node, text, steps),
            NodeValue::Text(_) => return node.clone(),
        };
        Node { span: node.span, value }
    }

    fn fold_text(&mut self, instance: usize, each: Option<&Each>, node: &Node, text: &str, steps: bool) -> Node {
        let broken = Node { span: node.span, value: NodeValue::Text("${null}".to_owned()) };
        let Some(document) = self.document(instance) else { return broken };
        let Ok(parts) = pieces(text) else {
            let at = Place::new(&document.source, node.span, "${").at(0, 2);
            let hint = "write '}' at its end; a plain '${' is written '$${'".to_owned();
            self.error("expression", &document.source, at, "'${' is never closed".to_owned(), hint);
            return broken;
        };
        let mut compiled = Vec::new();
        for part in parts {
            compiled.push(match part {
                Piece::Text(plain) => Piece::Text(plain),
                Piece::Expression(expression, at) => {
                    let place = Place::new(&document.source, node.span, &expression);
                    match self.compile(instance, each, &expression, &place, steps) {
                        Ok(expression) => Piece::Expression(expression, at),
                        Err(Reported) => return broken,
                    }
                }
            });
        }
        let late =
            compiled.iter().any(|piece| matches!(piece, Piece::Expression(text, _) if !references(text).0.is_empty()));
        let template = join_pieces(&compiled);
        if late {
            return Node { span: node.span, value: NodeValue::Text(template) };
        }
        match evaluate::text(&template, &self.constants(each)) {
            Ok(value) => Node::from_json(&value, node.span),
            Err(message) => {
                let message = message.rsplit_once("}: ").map_or(message.as_str(), |(_, last)| last).to_owned();
                self.error(
                    "expression",
                    &document.source,
                    node.span,
                    format!("cannot be evaluated: {message}"),
                    String::new(),
                );
                broken
            }
        }
    }

    /// A `when:` as an expression.
    pub(crate) fn condition(&mut self, instance: usize, each: Option<&Each>, node: &Node) -> Option<String> {
        let folded = self.fold(instance, each, node, true);
        let wrong = match &folded.value {
            NodeValue::Scalar(Value::Bool(value)) => return Some(value.to_string()),
            NodeValue::Text(text) => match pieces(text).as_deref() {
                Ok([Piece::Expression(expression, _)]) => return Some(expression.clone()),
                _ => "text",
            },
            _ => folded.kind(),
        };
        let source = self.document(instance)?.source.clone();
        let hint = "write 'when: ${<expression>}'".to_owned();
        self.error("wrong-type", &source, node.span, format!("'when' must be true or false, not {wrong}"), hint);
        None
    }

    pub(super) fn compile(
        &mut self,
        instance: usize,
        each: Option<&Each>,
        text: &str,
        place: &Place,
        steps: bool,
    ) -> Result<String, Reported> {
        if let Err(error) = evaluate::check(text) {
            let hint = "expressions are CEL: params.x, steps.y.outputs.z, 'text', a + b, c ? d : e".to_owned();
            let message = format!("not an expression: {}", error.message);
            self.error("expression", &place.source, place.at(error.at, error.at + 1), message, hint);
            return Err(Reported);
        }
        let tokens = tokens(text);
        let mut out = String::new();
        let mut copied = 0;
        let mut at = 0;
        let mut failed = false;
        while let Some(token) = tokens.get(at) {
            let start = at;
            at += 1;
            let TokenKind::Word(word) = &token.kind else { continue };
            if start > 0 && tokens.get(start - 1).is_some_and(|before| before.kind == TokenKind::Mark('.')) {
                continue;
            }
            let mut cursor = start + 1;
            let replaced = match word.as_str() {
                "params" | "inputs" => self.value(instance, word, &tokens, start, &mut cursor, place),
                "each" => self.each(each, &tokens, start, &mut cursor, place),
                "env" => self.env(&tokens, start, &mut cursor, place),
                "steps" if steps => self.steps(instance, each, text, &tokens, start, &mut cursor, place),
                "steps" => {
                    let hint = "only parameters, inputs and literals can be used here".to_owned();
                    let span = place.at(token.start, token.end);
                    self.error("expression", &place.source, span, "this must be known before the run".to_owned(), hint);
                    Err(Reported)
                }
                _ => self.other(word, &tokens, start, place).map(|()| None),
            };
            match replaced {
                Ok(Some(replacement)) => {
                    out.push_str(text.get(copied..token.start).unwrap_or(""));
                    out.push_str(&replacement);
                    copied = cursor.checked_sub(1).and_then(|last| tokens.get(last)).map_or(token.end, |last| last.end);
                    at = cursor;
                }
                Ok(None) => at = cursor.max(at),
                Err(Reported) => failed = true,
            }
        }
        out.push_str(text.get(copied..).unwrap_or(""));
        if out.len() > evaluate::MAX_EXPRESSION {
            let message = "the expression grows too long once module inputs and outputs are put in".to_owned();
            self.error("expression", &place.source, place.whole, message, String::new());
            return Err(Reported);
        }
        if failed { Err(Reported) } else { Ok(out) }
    }

    pub(super) fn unknown(&mut self, place: &Place, token: &Token, message: String, hint: String) -> Reported {
        self.error("unknown-reference", &place.source, place.at(token.start, token.end), message, hint);
        Reported
    }

    fn value(
        &mut self,
        instance: usize,
        word: &str,
        tokens: &[Token],
        start: usize,
        cursor: &mut usize,
        place: &Place,
    ) -> Result<Option<String>, Reported> {
        let (Some(document), Some(token)) = (self.document(instance), tokens.get(start)) else { return Err(Reported) };
        let right = if document.is_module { "inputs" } else { "params" };
        if word != right {
            let what = if document.is_module {
                "a module sees 'inputs', not 'params'"
            } else {
                "a workflow sees 'params', not 'inputs'"
            };
            return Err(self.unknown(place, token, what.to_owned(), format!("write {right}.<name>")));
        }
        let Some(name) = member(tokens, cursor) else {
            return if document.is_module {
                Err(self.unknown(place, token, "name the input: inputs.<name>".to_owned(), String::new()))
            } else {
                Ok(None)
            };
        };
        if !document.parameters.iter().any(|declared| declared.name.text == name) {
            let what = if document.is_module { "input" } else { "parameter" };
            let hint = near(&name, document.parameters.iter().map(|declared| declared.name.text.as_str()));
            let named = tokens.get(start + 2).unwrap_or(token);
            return Err(self.unknown(place, named, format!("there is no {what} '{name}'"), hint));
        }
        if !document.is_module {
            self.used.insert(name);
            return Ok(None);
        }
        self.binding(instance, &name).map(|text| Some(wrap(&text))).ok_or(Reported)
    }

    fn each(
        &mut self,
        each: Option<&Each>,
        tokens: &[Token],
        start: usize,
        cursor: &mut usize,
        place: &Place,
    ) -> Result<Option<String>, Reported> {
        let Some(token) = tokens.get(start) else { return Err(Reported) };
        let Some(each) = each else {
            let hint = "add 'for_each:' to the step, or use a parameter".to_owned();
            return Err(self.unknown(place, token, "'each' exists only in a step with 'for_each'".to_owned(), hint));
        };
        match member(tokens, cursor).as_deref() {
            Some("key") => Ok(Some(evaluate::quote(&each.key))),
            Some("value") => Ok(Some(evaluate::literal(&each.value))),
            Some("index") => Ok(Some(each.index.to_string())),
            _ => Err(self.unknown(place, token, "'each' has key, value and index".to_owned(), String::new())),
        }
    }

    fn env(
        &mut self,
        tokens: &[Token],
        start: usize,
        cursor: &mut usize,
        place: &Place,
    ) -> Result<Option<String>, Reported> {
        let Some(token) = tokens.get(start) else { return Err(Reported) };
        let name = member(tokens, cursor);
        let value = name.as_deref().and_then(|name| self.scope.get("env").and_then(|env| env.get(name)));
        match value {
            Some(value) => Ok(Some(evaluate::literal(value))),
            None => {
                Err(self.unknown(place, token, "'env' has name and workflow".to_owned(), "write env.name".to_owned()))
            }
        }
    }

    fn other(&mut self, word: &str, tokens: &[Token], start: usize, place: &Place) -> Result<(), Reported> {
        let called = tokens.get(start + 1).is_some_and(|next| next.kind == TokenKind::Mark('('));
        let keyword = [
            "true", "false", "null", "in", "int", "uint", "double", "string", "bool", "bytes", "math", "lists",
            "strings",
        ];
        if called || keyword.contains(&word) || variables(tokens).contains(&word) {
            return Ok(());
        }
        // A prefix of a string literal such as r'…'.
        if tokens.get(start + 1).is_some_and(|next| matches!(next.kind, TokenKind::Quoted(_))) {
            return Ok(());
        }
        let Some(token) = tokens.get(start) else { return Ok(()) };
        let mut hint = near(word, ["params", "inputs", "steps", "env", "each"]);
        if hint.starts_with("there are") {
            hint = format!("text in an expression is quoted: '{word}'");
        }
        Err(self.unknown(place, token, format!("'{word}' is not known here"), hint))
    }
}

/// The variables of comprehensions: `list.map(x, …)`.
fn variables(tokens: &[Token]) -> Vec<&str> {
    tokens
        .windows(4)
        .filter_map(|window| match window {
            [
                Token { kind: TokenKind::Word(name), .. },
                Token { kind: TokenKind::Mark('('), .. },
                Token { kind: TokenKind::Word(variable), .. },
                Token { kind: TokenKind::Mark(','), .. },
            ] if ["all", "exists", "exists_one", "map", "filter"].contains(&name.as_str()) => Some(variable.as_str()),
            _ => None,
        })
        .collect()
}

fn join_pieces(pieces: &[Piece]) -> String {
    pieces
        .iter()
        .map(|piece| match piece {
            Piece::Text(plain) => escape(plain),
            Piece::Expression(expression, _) => format!("${{{expression}}}"),
        })
        .collect()
}
