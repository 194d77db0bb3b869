//! YAML text to a tree that knows where every node stands. No anchors, no tags, no duplicate keys, bounded depth.

use crate::finding::Finding;
use crate::source::{Source, Span};
use saphyr::Scalar;
use saphyr_parser::{Event, Parser};
use serde_json::Value;

const MAX_DEPTH: usize = 64;
const MAX_BYTES: usize = 4 << 20;

/// A node and its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    /// Where it stands.
    pub(crate) span: Span,
    /// What it is.
    pub(crate) value: NodeValue,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum NodeValue {
    /// A scalar other than a string: null, bool or number.
    Scalar(Value),
    /// A string, with expressions still in it.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping in the order of the file.
    Map(Vec<(Key, Node)>),
}

/// A mapping key and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    /// The key.
    pub(crate) text: String,
    /// Where it stands.
    pub(crate) span: Span,
}

impl Node {
    /// A node made from a value; every part of it stands at `span`.
    #[must_use]
    pub(crate) fn from_json(value: &Value, span: Span) -> Self {
        let value = match value {
            Value::String(text) => NodeValue::Text(escape(text)),
            Value::Array(items) => NodeValue::List(items.iter().map(|item| Self::from_json(item, span)).collect()),
            Value::Object(fields) => NodeValue::Map(
                fields
                    .iter()
                    .map(|(key, value)| (Key { text: escape(key), span }, Self::from_json(value, span)))
                    .collect(),
            ),
            other => NodeValue::Scalar(other.clone()),
        };
        Self { span, value }
    }

    /// The node as JSON, strings as they stand.
    #[must_use]
    pub(crate) fn to_json(&self) -> Value {
        match &self.value {
            NodeValue::Scalar(value) => value.clone(),
            NodeValue::Text(text) => Value::String(text.clone()),
            NodeValue::List(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            NodeValue::Map(fields) => {
                Value::Object(fields.iter().map(|(key, value)| (key.text.clone(), value.to_json())).collect())
            }
        }
    }

    /// What it is, in words.
    #[must_use]
    pub(crate) fn kind(&self) -> &'static str {
        match &self.value {
            NodeValue::Scalar(value) => json_kind(value),
            NodeValue::Text(_) => "a string",
            NodeValue::List(_) => "a list",
            NodeValue::Map(_) => "a map",
        }
    }
}

/// What a JSON value is, in words.
#[must_use]
pub(crate) fn json_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a number",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

/// Protects `${` in a text that is a value, not a template.
fn escape(text: &str) -> String {
    text.replace("${", "$${")
}

enum Frame {
    List(Span, Vec<Node>),
    Map(Span, Vec<(Key, Node)>, Option<Key>),
}

struct Builder<'a> {
    source: &'a Source,
    offsets: Option<Vec<usize>>,
    frames: Vec<Frame>,
    root: Option<Node>,
    findings: Vec<Finding>,
    documents: usize,
}

/// Parses one document.
///
/// # Errors
/// Syntax errors, duplicate keys, anchors, tags and excessive depth, each with its place.
pub(crate) fn parse(source: &Source) -> Result<Node, Vec<Finding>> {
    if source.text().len() > MAX_BYTES {
        return Err(vec![Finding::error("yaml", source, Span::default(), "the file is larger than 4 MiB")]);
    }
    let offsets = (!source.text().is_ascii()).then(|| source.text().char_indices().map(|(at, _)| at).collect());
    let mut builder = Builder { source, offsets, frames: Vec::new(), root: None, findings: Vec::new(), documents: 0 };
    let mut parser = Parser::new_from_str(source.text());
    while let Some(event) = parser.next_event() {
        match event {
            Ok((event, span)) => {
                let span = Span { start: builder.byte(span.start.index()), end: builder.byte(span.end.index()) };
                if let Err(finding) = builder.event(event, span) {
                    builder.findings.push(*finding);
                    return Err(builder.findings);
                }
            }
            Err(error) => {
                let at = builder.byte(error.marker().index());
                let finding =
                    Finding::error("yaml", source, Span::of(at, 1), format!("not valid YAML: {}", error.info()));
                builder.findings.push(finding.hint("check the indentation and quotes around this place"));
                return Err(builder.findings);
            }
        }
    }
    if !builder.findings.is_empty() {
        return Err(builder.findings);
    }
    builder.root.ok_or_else(|| vec![Finding::error("yaml", source, Span::default(), "the file is empty")])
}

impl Builder<'_> {
    fn byte(&self, character: usize) -> usize {
        match &self.offsets {
            None => character.min(self.source.text().len()),
            Some(offsets) => offsets.get(character).copied().unwrap_or(self.source.text().len()),
        }
    }

    fn refuse(&self, span: Span, message: &str, hint: &str) -> Box<Finding> {
        Box::new(Finding::error("yaml", self.source, span, message).hint(hint))
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Box<Finding>> {
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(self.refuse(span, "a file holds one document", "split it into one file per document"));
                }
            }
            Event::Alias(_) => return Err(self.anchor(span)),
            Event::Scalar(text, style, anchor, tag) => {
                self.plain(span, anchor, tag.is_some())?;
                let node = self.scalar(&text, style, span);
                self.put(node)?;
            }
            Event::SequenceStart(anchor, tag) => {
                self.plain(span, anchor, tag.is_some())?;
                self.open(Frame::List(span, Vec::new()), span)?;
            }
            Event::MappingStart(anchor, tag) => {
                self.plain(span, anchor, tag.is_some())?;
                self.open(Frame::Map(span, Vec::new(), None), span)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let end = span.end;
                let node = match self.frames.pop() {
                    Some(Frame::List(start, items)) => {
                        Node { span: Span { start: start.start, end }, value: NodeValue::List(items) }
                    }
                    Some(Frame::Map(start, fields, _)) => {
                        Node { span: Span { start: start.start, end }, value: NodeValue::Map(fields) }
                    }
                    None => return Err(self.refuse(span, "unbalanced collection", "")),
                };
                self.put(node)?;
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn anchor(&self, span: Span) -> Box<Finding> {
        self.refuse(
            span,
            "anchors and aliases are not part of the runbook language",
            "use a parameter or a module instead",
        )
    }

    fn plain(&self, span: Span, anchor: usize, tagged: bool) -> Result<(), Box<Finding>> {
        if anchor != 0 {
            return Err(self.anchor(span));
        }
        if tagged {
            return Err(self.refuse(
                span,
                "YAML tags are not part of the runbook language",
                "quote the value to make it a string",
            ));
        }
        Ok(())
    }

    fn open(&mut self, frame: Frame, span: Span) -> Result<(), Box<Finding>> {
        if self.frames.len() >= MAX_DEPTH {
            return Err(self.refuse(span, "nested deeper than 64 levels", "flatten it"));
        }
        if let Some(Frame::Map(_, _, None)) = self.frames.last() {
            return Err(self.refuse(span, "a key must be a plain word", "quote the key if it begins with '{' or '['"));
        }
        self.frames.push(frame);
        Ok(())
    }

    fn scalar(&self, text: &str, style: saphyr_parser::ScalarStyle, span: Span) -> Node {
        let as_key = matches!(self.frames.last(), Some(Frame::Map(_, _, None)));
        if as_key || style != saphyr_parser::ScalarStyle::Plain {
            return Node { span, value: NodeValue::Text(text.to_owned()) };
        }
        let value = match Scalar::parse_from_cow(text.into()) {
            _ if text.is_empty() => NodeValue::Scalar(Value::Null),
            Scalar::Null => NodeValue::Scalar(Value::Null),
            Scalar::Boolean(value) => NodeValue::Scalar(Value::Bool(value)),
            Scalar::Integer(value) => NodeValue::Scalar(Value::from(value)),
            Scalar::FloatingPoint(value) => match serde_json::Number::from_f64(value.into_inner()) {
                Some(number) => NodeValue::Scalar(Value::Number(number)),
                None => NodeValue::Text(text.to_owned()),
            },
            Scalar::String(text) => NodeValue::Text(text.into_owned()),
        };
        Node { span, value }
    }

    fn put(&mut self, node: Node) -> Result<(), Box<Finding>> {
        let refusal = match self.frames.last_mut() {
            None => {
                self.root = Some(node);
                None
            }
            Some(Frame::List(_, items)) => {
                items.push(node);
                None
            }
            Some(Frame::Map(_, fields, pending)) => match pending.take() {
                Some(key) => {
                    fields.push((key, node));
                    None
                }
                None => match node.value {
                    NodeValue::Text(text) => {
                        let first = fields.iter().find(|(key, _)| key.text == text).map(|(key, _)| key.span.start);
                        *pending = Some(Key { text: text.clone(), span: node.span });
                        first.map(|first| (text, node.span, first))
                    }
                    _ => return Err(self.refuse(node.span, "a key must be a plain word", "")),
                },
            },
        };
        if let Some((text, span, first)) = refusal {
            let (line, _) = self.source.position(first);
            let finding = Finding::error("duplicate-key", self.source, span, format!("'{text}' is given twice"));
            self.findings.push(finding.hint(format!("the first one is in line {line}; remove one of them")));
        }
        Ok(())
    }
}
