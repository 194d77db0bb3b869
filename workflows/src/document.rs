//! A runbook or module as written: fields, steps, parameters, each with its place. Knows no kinds and no values.

use crate::finding::{Finding, Findings, near};
use crate::source::{Source, Span};
use crate::yaml::{Key, Node, NodeValue, parse};
use platflow_engine::plan::OnFailure;
use std::time::Duration;

/// A word and its place.
pub(crate) type Word = Key;

/// A file of the language.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    /// Where it came from.
    pub(crate) source: Source,
    /// True for a module.
    pub(crate) is_module: bool,
    /// `workflow:` or `module:`.
    pub(crate) name: Word,
    /// One paragraph for the operator.
    pub(crate) description: Option<String>,
    /// `environment:`; workflows only.
    pub(crate) environment: Option<Word>,
    /// `on_failure:`; workflows only.
    pub(crate) on_failure: OnFailure,
    /// `parameters:` or `inputs:`.
    pub(crate) parameters: Vec<Declaration>,
    /// The steps, in the order of the file.
    pub(crate) steps: Vec<StepDeclaration>,
    /// `outputs:`.
    pub(crate) outputs: Vec<(Word, Node)>,
}

/// The types of parameters and inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    /// Text.
    String,
    /// A whole number.
    Integer,
    /// Any number.
    Number,
    /// true or false.
    Boolean,
    /// A list.
    List,
    /// A map.
    Map,
    /// Anything; module inputs only need it for what passes through.
    Any,
}

/// The names of the types.
pub(crate) const TYPES: [(&str, Type); 7] = [
    ("string", Type::String),
    ("integer", Type::Integer),
    ("number", Type::Number),
    ("boolean", Type::Boolean),
    ("list", Type::List),
    ("map", Type::Map),
    ("any", Type::Any),
];

/// A declared parameter or input.
#[derive(Debug, Clone)]
pub(crate) struct Declaration {
    /// Its name.
    pub(crate) name: Word,
    /// Its type.
    pub(crate) type_: Type,
    /// Its default; without one it is required.
    pub(crate) default: Option<Node>,
    /// One line for the operator.
    pub(crate) description: Option<String>,
    /// The values it may have.
    pub(crate) choices: Option<Vec<Node>>,
    /// A regular expression that a string must match.
    pub(crate) pattern: Option<Word>,
    /// The smallest number.
    pub(crate) minimum: Option<f64>,
    /// The largest number.
    pub(crate) maximum: Option<f64>,
}

/// What a step runs.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    /// One step of a kind.
    Kind(Word),
    /// All steps of a module.
    Module(Word),
}

/// `undo:` of a step.
#[derive(Debug, Clone)]
pub(crate) enum Undo {
    /// The kind's own.
    Own,
    /// Not at all.
    Keep,
    /// With another step's resource.
    With(Word),
}

/// A step as written.
#[derive(Debug, Clone)]
pub(crate) struct StepDeclaration {
    /// Its name within the file.
    pub(crate) name: Word,
    /// What it runs.
    pub(crate) action: Action,
    /// `spec:` of a kind, `with:` of a module.
    pub(crate) body: Option<Node>,
    /// Extra dependencies. On a module instance, the key names one of its steps; none means all.
    pub(crate) needs: Vec<(Option<Word>, Word)>,
    /// The condition.
    pub(crate) when: Option<Node>,
    /// What it is repeated over.
    pub(crate) for_each: Option<Node>,
    /// How long transient failures are retried.
    pub(crate) retry_for: Option<Duration>,
    /// How long an attempt may take in all.
    pub(crate) timeout: Option<Duration>,
    /// How it is undone.
    pub(crate) undo: Undo,
    /// What must be undone before it. On a module instance, the key names one of its steps; none means all.
    pub(crate) undo_after: Vec<(Option<Word>, Word)>,
    /// One line for the operator.
    pub(crate) description: Option<String>,
    /// `rehearse: run`, with where it says so.
    pub(crate) rehearse: Option<Word>,
}

/// Reads a file. Whatever can be read is, so that later checks still find what they can.
pub(crate) fn read(source: &Source, findings: &mut Findings) -> Option<Document> {
    let root = match parse(source) {
        Ok(root) => root,
        Err(list) => {
            findings.list.extend(list);
            return None;
        }
    };
    let mut reader = Reader { source, findings };
    let fields = reader.map(&root, "a runbook")?;
    let is_module = fields.iter().any(|(key, _)| key.text == "module");
    let known: &[&str] = if is_module {
        &["module", "description", "inputs", "steps", "outputs"]
    } else {
        &["workflow", "description", "environment", "on_failure", "parameters", "steps", "outputs"]
    };
    reader.known(fields, known, if is_module { "a module" } else { "a workflow" });
    let title = if is_module { "module" } else { "workflow" };
    let Some(name) = reader.word(fields, title) else {
        if field(fields, title).is_none() {
            let finding =
                Finding::error("missing-field", source, Span::of(root.span.start, 1), "'workflow' is missing");
            reader
                .findings
                .push(finding.hint("begin the file with 'workflow: <name>', or 'module: <name>' for a module"));
        }
        return None;
    };
    let parameters = reader.declarations(field(fields, if is_module { "inputs" } else { "parameters" }));
    let steps = reader.steps(field(fields, "steps"));
    if steps.is_empty() && field(fields, "steps").is_none() {
        let finding = Finding::error("missing-field", source, name.span, format!("'{}' has no steps", name.text));
        reader.findings.push(finding.hint("add 'steps:' with at least one step"));
    }
    let outputs = match field(fields, "outputs").map(|node| reader.map(node, "'outputs'")) {
        Some(Some(outputs)) => outputs.to_vec(),
        _ => Vec::new(),
    };
    Some(Document {
        source: source.clone(),
        is_module,
        description: reader.text(fields, "description"),
        environment: reader.word(fields, "environment"),
        on_failure: reader.on_failure(fields),
        name,
        parameters,
        steps,
        outputs,
    })
}

/// The field of a mapping.
#[must_use]
pub(crate) fn field<'a>(fields: &'a [(Key, Node)], name: &str) -> Option<&'a Node> {
    fields.iter().find(|(key, _)| key.text == name).map(|(_, node)| node)
}

struct Reader<'a> {
    source: &'a Source,
    findings: &'a mut Findings,
}

impl Reader<'_> {
    fn wrong(&mut self, node: &Node, what: &str, wanted: &str) {
        let message = format!("{what} must be {wanted}, not {}", node.kind());
        self.findings.push(Finding::error("wrong-type", self.source, node.span, message));
    }

    fn map<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n [(Key, Node)]> {
        match &node.value {
            NodeValue::Map(fields) => Some(fields),
            _ => {
                self.wrong(node, what, "a map");
                None
            }
        }
    }

    fn known(&mut self, fields: &[(Key, Node)], known: &[&str], what: &str) {
        for (key, _) in fields {
            if !known.contains(&key.text.as_str()) {
                let message = format!("{what} has no field '{}'", key.text);
                let hint = near(&key.text, known.iter().copied());
                self.findings.push(Finding::error("unknown-field", self.source, key.span, message).hint(hint));
            }
        }
    }

    fn as_text(&mut self, node: &Node, what: &str) -> Option<Word> {
        match &node.value {
            NodeValue::Text(text) => Some(Word { text: text.clone(), span: node.span }),
            NodeValue::Scalar(value) if value.is_number() => Some(Word { text: value.to_string(), span: node.span }),
            _ => {
                self.wrong(node, what, "a string");
                None
            }
        }
    }

    fn word(&mut self, fields: &[(Key, Node)], name: &str) -> Option<Word> {
        field(fields, name).and_then(|node| self.as_text(node, &format!("'{name}'")))
    }

    fn text(&mut self, fields: &[(Key, Node)], name: &str) -> Option<String> {
        self.word(fields, name).map(|word| word.text.trim().to_owned())
    }

    fn words(&mut self, fields: &[(Key, Node)], name: &str) -> Vec<Word> {
        let Some(node) = field(fields, name) else { return Vec::new() };
        match &node.value {
            NodeValue::List(items) => {
                items.iter().filter_map(|item| self.as_text(item, &format!("an entry of '{name}'"))).collect()
            }
            NodeValue::Text(_) => self.as_text(node, name).into_iter().collect(),
            _ => {
                self.wrong(node, &format!("'{name}'"), "a list of step names");
                Vec::new()
            }
        }
    }

    fn on_failure(&mut self, fields: &[(Key, Node)]) -> OnFailure {
        match self.word(fields, "on_failure") {
            None => OnFailure::Park,
            Some(word) => match word.text.as_str() {
                "park" => OnFailure::Park,
                "rollback" => OnFailure::Rollback,
                other => {
                    let message = format!("'on_failure' cannot be '{other}'");
                    let finding = Finding::error("wrong-value", self.source, word.span, message);
                    self.findings.push(finding.hint(near(other, ["park", "rollback"])));
                    OnFailure::Park
                }
            },
        }
    }

    fn duration(&mut self, node: &Node, what: &str) -> Option<Duration> {
        let word = self.as_text(node, what)?;
        let parsed = duration(&word.text);
        if parsed.is_none() {
            let message = format!("{what} is not a duration: '{}'", word.text);
            let finding = Finding::error("wrong-value", self.source, word.span, message);
            self.findings.push(finding.hint("write a number and a unit, e.g. 90s, 10m, 1h30m"));
        }
        parsed
    }

    fn declarations(&mut self, node: Option<&Node>) -> Vec<Declaration> {
        let Some(fields) = node.and_then(|node| self.map(node, "the parameters")) else { return Vec::new() };
        let fields: Vec<(Key, Node)> = fields.to_vec();
        fields.iter().filter_map(|(key, node)| self.declaration(key, node)).collect()
    }

    fn declaration(&mut self, key: &Key, node: &Node) -> Option<Declaration> {
        let fields = self.map(node, &format!("parameter '{}'", key.text))?;
        let known = ["type", "default", "description", "enum", "pattern", "minimum", "maximum"];
        self.known(fields, &known, "a parameter");
        let mut type_ = Type::String;
        match self.word(fields, "type") {
            None => {
                let message = format!("parameter '{}' has no type", key.text);
                let finding = Finding::error("missing-field", self.source, key.span, message);
                self.findings.push(finding.hint("add 'type: string' (or integer, number, boolean, list, map)"));
            }
            Some(word) => match TYPES.iter().find(|(name, _)| *name == word.text) {
                Some((_, found)) => type_ = *found,
                None => {
                    let message = format!("there is no type '{}'", word.text);
                    let hint = near(&word.text, TYPES.iter().map(|(name, _)| *name));
                    self.findings.push(Finding::error("wrong-value", self.source, word.span, message).hint(hint));
                }
            },
        }
        let choices = match field(fields, "enum").map(|node| (&node.value, node)) {
            None => None,
            Some((NodeValue::List(items), _)) => Some(items.clone()),
            Some((_, node)) => {
                self.wrong(node, "'enum'", "a list");
                None
            }
        };
        Some(Declaration {
            name: key.clone(),
            type_,
            default: field(fields, "default").cloned(),
            description: self.text(fields, "description"),
            choices,
            pattern: self.word(fields, "pattern"),
            minimum: self.bound(fields, "minimum"),
            maximum: self.bound(fields, "maximum"),
        })
    }

    fn bound(&mut self, fields: &[(Key, Node)], name: &str) -> Option<f64> {
        let node = field(fields, name)?;
        let value = if let NodeValue::Scalar(value) = &node.value { value.as_f64() } else { None };
        if value.is_none() {
            self.wrong(node, &format!("'{name}'"), "a number");
        }
        value
    }

    fn steps(&mut self, node: Option<&Node>) -> Vec<StepDeclaration> {
        let Some(fields) = node.and_then(|node| self.map(node, "'steps'")) else { return Vec::new() };
        fields.iter().filter_map(|(key, node)| self.step(key, node)).collect()
    }

    fn step(&mut self, key: &Key, node: &Node) -> Option<StepDeclaration> {
        if key.text.contains('.') || platflow_engine::name::StepName::new(&key.text).is_err() {
            let message = format!("'{}' is not a step name", key.text);
            let finding = Finding::error("wrong-name", self.source, key.span, message);
            self.findings.push(finding.hint("use lower-case letters, digits, '-' and '_'"));
            return None;
        }
        let fields = self.map(node, &format!("step '{}'", key.text))?;
        let known = [
            "kind",
            "module",
            "spec",
            "with",
            "needs",
            "when",
            "for_each",
            "retry",
            "timeout",
            "undo",
            "rollback",
            "undo_after",
            "description",
            "rehearse",
        ];
        self.known(fields, &known, "a step");
        let (kind, module) = (self.word(fields, "kind"), self.word(fields, "module"));
        let action = match (kind, module) {
            (Some(kind), None) => Action::Kind(kind),
            (None, Some(module)) => Action::Module(module),
            (first, _) => {
                let (span, message) = match first {
                    Some(kind) => (kind.span, format!("step '{}' has both a kind and a module", key.text)),
                    None => (key.span, format!("step '{}' has neither a kind nor a module", key.text)),
                };
                let finding = Finding::error("missing-field", self.source, span, message);
                self.findings.push(finding.hint("give it one of 'kind: <step kind>' and 'module: <module>'"));
                return None;
            }
        };
        let is_module = matches!(action, Action::Module(_));
        let (wanted, other) = if is_module { ("with", "spec") } else { ("spec", "with") };
        if let Some((key, _)) = fields.iter().find(|(key, _)| key.text == other) {
            let what = if is_module { "a module instance" } else { "a step of a kind" };
            let message = format!("{what} has no field '{other}'");
            let finding = Finding::error("unknown-field", self.source, key.span, message);
            self.findings.push(finding.hint(format!("write '{wanted}:' instead")));
        }
        let body = field(fields, wanted).cloned();
        if let Some(body) = &body {
            self.map(body, &format!("'{wanted}'"))?;
        }
        Some(StepDeclaration {
            name: key.clone(),
            action,
            body,
            needs: self.edges(fields, "needs", is_module),
            when: field(fields, "when").cloned(),
            for_each: field(fields, "for_each").cloned(),
            retry_for: self.retry(fields),
            timeout: field(fields, "timeout").and_then(|node| self.duration(node, "'timeout'")),
            undo: self.undo(fields, is_module),
            undo_after: self.edges(fields, "undo_after", is_module),
            description: self.text(fields, "description"),
            rehearse: self.rehearse(fields, is_module),
        })
    }

    fn rehearse(&mut self, fields: &[(Key, Node)], is_module: bool) -> Option<Word> {
        let word = self.word(fields, "rehearse")?;
        if is_module || word.text != "run" {
            let of = if is_module { " of a module instance" } else { "" };
            let message = format!("'rehearse'{of} cannot be '{}'", word.text);
            let finding = Finding::error("wrong-value", self.source, word.span, message);
            self.findings.push(finding.hint(near(&word.text, ["run"])));
        }
        Some(word)
    }

    fn retry(&mut self, fields: &[(Key, Node)]) -> Option<Duration> {
        let node = field(fields, "retry")?;
        let inner = self.map(node, "'retry'")?;
        self.known(inner, &["for"], "'retry'");
        field(inner, "for").and_then(|node| self.duration(node, "'retry.for'"))
    }

    fn undo(&mut self, fields: &[(Key, Node)], is_module: bool) -> Undo {
        let Some((key, node)) = fields.iter().find(|(key, _)| key.text == "undo" || key.text == "rollback") else {
            return Undo::Own;
        };
        match &node.value {
            NodeValue::Text(text) if text == "undo" => Undo::Own,
            NodeValue::Text(text) if text == "keep" => Undo::Keep,
            NodeValue::Map(inner) if !is_module => {
                self.known(inner, &["with"], &format!("'{}'", key.text));
                self.word(inner, "with").map_or(Undo::Own, Undo::With)
            }
            _ => {
                let message = format!("'{}' must be 'undo', 'keep' or '{{with: <step>}}'", key.text);
                self.findings.push(Finding::error("wrong-value", self.source, node.span, message));
                Undo::Own
            }
        }
    }

    /// A list of step names; on a module instance also a map from its steps to such lists.
    fn edges(&mut self, fields: &[(Key, Node)], name: &str, is_module: bool) -> Vec<(Option<Word>, Word)> {
        match field(fields, name) {
            Some(Node { value: NodeValue::Map(inner), .. }) if is_module => inner
                .iter()
                .flat_map(|(key, _)| {
                    self.words(inner, &key.text).into_iter().map(move |word| (Some(key.clone()), word))
                })
                .collect(),
            _ => self.words(fields, name).into_iter().map(|word| (None, word)).collect(),
        }
    }
}

/// Reads `90s`, `10m`, `1h30m`.
#[must_use]
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut digits = String::new();
    for character in text.chars() {
        if character.is_ascii_digit() {
            digits.push(character);
            continue;
        }
        let seconds = match character {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return None,
        };
        let amount: u64 = std::mem::take(&mut digits).parse().ok()?;
        total = total.checked_add(Duration::from_secs(amount.checked_mul(seconds)?))?;
    }
    (digits.is_empty() && total > Duration::ZERO).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves that durations need a unit and combine.
    #[test]
    fn durations() {
        assert_eq!(duration("1h30m"), Some(Duration::from_secs(5400)));
        for bad in ["", "10", "m", "1x", "99999999999999999999s", "0s"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}
