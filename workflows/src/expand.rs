//! Modules and `for_each` become plain steps with path names. First all names are declared, then steps are emitted.

use crate::document::{Action, Document, StepDeclaration, Undo, Word};
use crate::evaluate;
use crate::finding::{Finding, Findings, near};
use crate::library::Library;
use crate::source::{Source, Span};
use crate::yaml::{Node, NodeValue};
use platflow_engine::kind::Catalog;
use platflow_engine::name::{KindName, StepName};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const MAX_MODULE_DEPTH: usize = 8;
const MAX_STEPS: usize = 5000;

/// One turn of a `for_each`.
#[derive(Debug, Clone)]
pub(crate) struct Each {
    pub(crate) key: String,
    pub(crate) value: Value,
    pub(crate) index: usize,
}

/// What a name stands for within one file.
#[derive(Debug, Clone)]
pub(crate) enum Local {
    /// One step: its path name.
    Step(String),
    /// One module instance: its index.
    Module(usize),
    /// A repeated step or module.
    Repeated(Vec<(String, Local)>),
}

/// How a module was called.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) parent: usize,
    pub(crate) declaration: usize,
    pub(crate) each: Option<Each>,
}

/// The workflow itself, or one use of a module.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) document: Arc<Document>,
    pub(crate) prefix: String,
    pub(crate) call: Option<Call>,
    pub(crate) locals: BTreeMap<String, Local>,
    pub(crate) bindings: BTreeMap<String, Option<String>>,
}

/// A step ready to be planned; texts hold compiled expressions.
#[derive(Debug)]
pub(crate) struct Expanded {
    pub(crate) path: String,
    pub(crate) source: Source,
    pub(crate) span: Span,
    pub(crate) kind: KindName,
    pub(crate) spec: Node,
    pub(crate) needs: BTreeSet<String>,
    pub(crate) when: Option<String>,
    pub(crate) undo: Undo,
    pub(crate) undo_with: Option<String>,
    pub(crate) undo_after: BTreeSet<String>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) retry_for: Option<Duration>,
    pub(crate) description: Option<String>,
    pub(crate) rehearse: Option<Word>,
}

/// What steps inherit from the module instance they are in.
#[derive(Debug, Clone, Default)]
struct Inherited {
    needs: BTreeSet<String>,
    when: Option<String>,
    undo_after: BTreeSet<String>,
    keep: bool,
}

pub(crate) struct Expander<'a> {
    pub(crate) library: &'a Library,
    pub(crate) catalog: &'a Catalog,
    pub(crate) findings: Findings,
    pub(crate) scope: evaluate::Scope,
    pub(crate) instances: Vec<Instance>,
    pub(crate) kinds: BTreeMap<String, KindName>,
    pub(crate) steps: Vec<Expanded>,
    late_needs: Vec<(String, String)>,
    late_undo_after: Vec<(String, String)>,
    pub(crate) used: BTreeSet<String>,
    pub(crate) depth: usize,
    modules: BTreeMap<String, Option<Arc<Document>>>,
}

impl<'a> Expander<'a> {
    pub(crate) fn new(
        library: &'a Library,
        catalog: &'a Catalog,
        document: Arc<Document>,
        scope: evaluate::Scope,
    ) -> Self {
        let root = Instance {
            document,
            prefix: String::new(),
            call: None,
            locals: BTreeMap::new(),
            bindings: BTreeMap::new(),
        };
        Self {
            library,
            catalog,
            findings: Findings::default(),
            scope,
            instances: vec![root],
            kinds: BTreeMap::new(),
            steps: Vec::new(),
            late_needs: Vec::new(),
            late_undo_after: Vec::new(),
            used: BTreeSet::new(),
            depth: 0,
            modules: BTreeMap::new(),
        }
    }

    pub(crate) fn document(&self, instance: usize) -> Option<Arc<Document>> {
        self.instances.get(instance).map(|found| Arc::clone(&found.document))
    }

    fn prefix(&self, instance: usize) -> String {
        self.instances.get(instance).map(|found| found.prefix.clone()).unwrap_or_default()
    }

    pub(crate) fn error(&mut self, code: &'static str, source: &Source, span: Span, message: String, hint: String) {
        self.findings.push(Finding::error(code, source, span, message).hint(hint));
    }

    /// First pass: every name of the instance, and of the modules it uses.
    pub(crate) fn declare(&mut self, instance: usize, level: usize) {
        let Some(document) = self.document(instance) else { return };
        let prefix = self.prefix(instance);
        for (at, declaration) in document.steps.iter().enumerate() {
            let path = join(&prefix, &declaration.name.text);
            let local = match &declaration.for_each {
                None => self.declare_one(instance, at, declaration, path, None, level),
                Some(over) => self.turns(instance, over).map(|turns| {
                    let all = turns.into_iter().filter_map(|each| {
                        let key = each.key.clone();
                        let path = join(&path, &key);
                        self.declare_one(instance, at, declaration, path, Some(each), level).map(|local| (key, local))
                    });
                    Local::Repeated(all.collect())
                }),
            };
            if let (Some(local), Some(found)) = (local, self.instances.get_mut(instance)) {
                found.locals.insert(declaration.name.text.clone(), local);
            }
        }
    }

    fn declare_one(
        &mut self,
        instance: usize,
        at: usize,
        declaration: &StepDeclaration,
        path: String,
        each: Option<Each>,
        level: usize,
    ) -> Option<Local> {
        let document = self.document(instance)?;
        if self.kinds.len() >= MAX_STEPS {
            let message = format!("more than {MAX_STEPS} steps");
            self.error("too-large", &document.source, declaration.name.span, message, String::new());
            return None;
        }
        match &declaration.action {
            Action::Kind(word) => {
                let kind = KindName::new(&word.text).ok();
                match kind.filter(|kind| self.catalog.description(kind).is_some()) {
                    Some(kind) => {
                        self.kinds.insert(path.clone(), kind);
                    }
                    None => {
                        let names: Vec<&str> = self.catalog.descriptions().map(|d| d.name.as_str()).collect();
                        let mut hint = near(&word.text, names.iter().copied());
                        if hint.is_empty() {
                            hint = "the reference of step kinds lists them all".to_owned();
                        }
                        let message = format!("there is no step kind '{}'", word.text);
                        self.error("unknown-kind", &document.source, word.span, message, hint);
                    }
                }
                Some(Local::Step(path))
            }
            Action::Module(word) => {
                if level >= MAX_MODULE_DEPTH {
                    let message =
                        format!("modules are nested deeper than {MAX_MODULE_DEPTH}; does '{}' use itself?", word.text);
                    self.error("module", &document.source, word.span, message, String::new());
                    return None;
                }
                let module = self.module(&document.source, &word.text, word.span)?;
                let child = self.instances.len();
                self.instances.push(Instance {
                    document: module,
                    prefix: path,
                    call: Some(Call { parent: instance, declaration: at, each }),
                    locals: BTreeMap::new(),
                    bindings: BTreeMap::new(),
                });
                self.declare(child, level + 1);
                Some(Local::Module(child))
            }
        }
    }

    fn module(&mut self, from: &Source, name: &str, span: Span) -> Option<Arc<Document>> {
        let key = if name.starts_with('.') { format!("{}:{name}", from.name()) } else { name.to_owned() };
        if let Some(known) = self.modules.get(&key) {
            return known.clone();
        }
        let read = match self.library.module(name, from) {
            Ok(source) => crate::document::read(&source, &mut self.findings).map(Arc::new),
            Err(error) => {
                let text = error.to_string();
                let (message, hint) =
                    text.split_once("; ").map_or((text.as_str(), ""), |(message, hint)| (message, hint));
                self.error("unknown-module", from, span, message.to_owned(), hint.to_owned());
                None
            }
        };
        let read = read.filter(|document| {
            if !document.is_module {
                let message = format!("'{name}' is a workflow, not a module");
                self.findings.push(Finding::error("unknown-module", from, span, message));
            }
            document.is_module
        });
        self.modules.insert(key, read.clone());
        read
    }

    fn turns(&mut self, instance: usize, over: &Node) -> Option<Vec<Each>> {
        let document = self.document(instance)?;
        let folded = self.fold(instance, None, over, false);
        let value = match &folded.value {
            NodeValue::List(_) | NodeValue::Map(_) => evaluate::template(&folded.to_json(), &self.scope, "").ok(),
            _ => None,
        };
        let turns: Vec<Each> = match value {
            Some(Value::Object(fields)) => {
                fields.into_iter().enumerate().map(|(index, (key, value))| Each { key, value, index }).collect()
            }
            Some(Value::Array(items)) => items
                .into_iter()
                .enumerate()
                .map(|(index, value)| {
                    let named = value.as_str().filter(|text| is_key(text)).map(str::to_owned);
                    Each { key: named.unwrap_or_else(|| index.to_string()), value, index }
                })
                .collect(),
            _ => {
                if folded.value != NodeValue::Text("${null}".to_owned()) {
                    let message = format!("'for_each' goes over a list or a map, not {}", folded.kind());
                    self.error("wrong-type", &document.source, over.span, message, String::new());
                }
                return None;
            }
        };
        let mut seen = BTreeSet::new();
        for each in &turns {
            if !is_key(&each.key) {
                let message = format!("'{}' cannot be part of a step name", each.key);
                let hint = "keys are lower-case letters, digits, '-' and '_'".to_owned();
                self.error("wrong-name", &document.source, over.span, message, hint);
                return None;
            }
            if !seen.insert(each.key.clone()) {
                let message = format!("'for_each' meets '{}' twice", each.key);
                self.error("wrong-value", &document.source, over.span, message, String::new());
                return None;
            }
        }
        Some(turns)
    }

    /// Second pass: the steps themselves.
    pub(crate) fn emit_all(&mut self) {
        self.emit(0, &Inherited::default());
        for (path, need) in std::mem::take(&mut self.late_needs) {
            if let Some(step) = self.steps.iter_mut().find(|step| step.path == path) {
                step.needs.insert(need);
            }
        }
        for (path, after) in std::mem::take(&mut self.late_undo_after) {
            if let Some(step) = self.steps.iter_mut().find(|step| step.path == path) {
                step.undo_after.insert(after);
            }
        }
    }

    fn emit(&mut self, instance: usize, inherited: &Inherited) {
        let Some(document) = self.document(instance) else { return };
        self.check_inputs(instance);
        for declaration in &document.steps {
            let Some(local) = self.instances.get(instance).and_then(|i| i.locals.get(&declaration.name.text)).cloned()
            else {
                continue;
            };
            match local {
                Local::Repeated(all) => {
                    let turns =
                        declaration.for_each.as_ref().and_then(|over| self.turns(instance, over)).unwrap_or_default();
                    for ((_, local), each) in all.into_iter().zip(turns) {
                        self.emit_one(instance, declaration, &local, Some(&each), inherited);
                    }
                }
                local => self.emit_one(instance, declaration, &local, None, inherited),
            }
        }
    }

    fn emit_one(
        &mut self,
        instance: usize,
        declaration: &StepDeclaration,
        local: &Local,
        each: Option<&Each>,
        inherited: &Inherited,
    ) {
        let Some(document) = self.document(instance) else { return };
        let mut passed = inherited.clone();
        for (inner, word) in &declaration.needs {
            let needed = self.named(instance, each, &word.text, word.span);
            match (inner, local) {
                (Some(inner), Local::Module(child)) => {
                    for path in self.named(*child, None, &inner.text, inner.span) {
                        self.late_needs.extend(needed.iter().map(|need| (path.clone(), need.clone())));
                    }
                }
                _ => passed.needs.extend(needed),
            }
        }
        if let Some(node) = &declaration.when {
            let own = self.condition(instance, each, node);
            passed.when = match (passed.when.take(), own) {
                (Some(outer), Some(inner)) => Some(format!("({outer}) && ({inner})")),
                (outer, inner) => inner.or(outer),
            };
        }
        for (inner, word) in &declaration.undo_after {
            let after = self.named(instance, each, &word.text, word.span);
            match (inner, local) {
                (Some(inner), Local::Module(child)) => {
                    for path in self.named(*child, None, &inner.text, inner.span) {
                        self.late_undo_after.extend(after.iter().map(|after| (path.clone(), after.clone())));
                    }
                }
                _ => passed.undo_after.extend(after),
            }
        }
        passed.keep |= matches!(declaration.undo, Undo::Keep);
        match local {
            Local::Module(child) => self.emit(*child, &passed),
            Local::Step(path) => {
                let Some(kind) = self.kinds.get(path).cloned() else {
                    // An unknown kind was reported; its expressions are still worth checking.
                    if let Some(body) = &declaration.body {
                        self.fold(instance, each, body, true);
                    }
                    return;
                };
                let empty = Node { span: declaration.name.span, value: NodeValue::Map(Vec::new()) };
                let spec = self.fold(instance, each, declaration.body.as_ref().unwrap_or(&empty), true);
                let undo_with = match &declaration.undo {
                    Undo::With(word) => self.undo_with(instance, each, word, path),
                    _ => None,
                };
                self.steps.push(Expanded {
                    path: path.clone(),
                    source: document.source.clone(),
                    span: declaration.name.span,
                    kind,
                    spec,
                    needs: passed.needs,
                    when: passed.when,
                    undo: if passed.keep { Undo::Keep } else { declaration.undo.clone() },
                    undo_with,
                    undo_after: passed.undo_after,
                    timeout: declaration.timeout,
                    retry_for: declaration.retry_for,
                    description: declaration.description.clone(),
                    rehearse: declaration.rehearse.clone(),
                });
            }
            Local::Repeated(_) => {}
        }
    }

    fn undo_with(&mut self, instance: usize, each: Option<&Each>, word: &Word, path: &str) -> Option<String> {
        let (name, span) = (&word.text, word.span);
        // Beside a repeated step, the turn with the same key is meant.
        let key = path.rsplit('.').next().unwrap_or("").to_owned();
        let found = self.named(instance, each, name, span);
        let same: Vec<&String> = found.iter().filter(|step| step.rsplit('.').next() == Some(key.as_str())).collect();
        match (found.as_slice(), same.as_slice()) {
            ([only], _) => Some(only.clone()),
            (_, [only]) => Some((*only).clone()),
            ([], _) => None,
            _ => {
                let source = self.document(instance)?.source.clone();
                let message = format!("'{name}' is more than one step");
                self.error(
                    "unknown-step",
                    &source,
                    span,
                    message,
                    "name the one whose end takes this step along".to_owned(),
                );
                None
            }
        }
    }

    /// All steps that a name in `needs`, `undo_after` or `undo.with` stands for.
    fn named(&mut self, instance: usize, each: Option<&Each>, name: &str, span: Span) -> Vec<String> {
        let text = Node { span, value: NodeValue::Text(name.to_owned()) };
        let NodeValue::Text(name) = self.fold(instance, each, &text, false).value else { return Vec::new() };
        if name == "${null}" {
            return Vec::new();
        }
        let name = name.as_str();
        match self.local(instance, name) {
            Some(local) => self.paths(&local),
            None => {
                let Some(document) = self.document(instance) else { return Vec::new() };
                let hint = self.near_local(instance, name);
                self.error("unknown-step", &document.source, span, format!("there is no step '{name}'"), hint);
                Vec::new()
            }
        }
    }

    pub(crate) fn near_local(&self, instance: usize, name: &str) -> String {
        let mut names: Vec<String> = Vec::new();
        if let Some(found) = self.instances.get(instance) {
            names.extend(found.document.steps.iter().map(|step| step.name.text.clone()));
        }
        if name.contains('.') {
            names.extend(self.kinds.keys().cloned());
        }
        near(name, names.iter().map(String::as_str))
    }

    /// The meaning of a name, dotted or not, within an instance.
    pub(crate) fn local(&self, instance: usize, name: &str) -> Option<Local> {
        let mut parts = name.split('.');
        let mut local = self.instances.get(instance)?.locals.get(parts.next()?)?.clone();
        for part in parts {
            local = match local {
                Local::Step(_) => return None,
                Local::Module(child) => self.instances.get(child)?.locals.get(part)?.clone(),
                Local::Repeated(all) => all.into_iter().find(|(key, _)| key == part)?.1,
            };
        }
        Some(local)
    }

    pub(crate) fn paths(&self, local: &Local) -> Vec<String> {
        match local {
            Local::Step(path) => vec![path.clone()],
            Local::Repeated(all) => all.iter().flat_map(|(_, local)| self.paths(local)).collect(),
            Local::Module(child) => {
                let locals = self.instances.get(*child).map(|found| &found.locals);
                locals.into_iter().flat_map(BTreeMap::values).flat_map(|local| self.paths(local)).collect()
            }
        }
    }

    /// The variables that are known before the run.
    pub(crate) fn constants(&self, each: Option<&Each>) -> evaluate::Scope {
        let mut scope = self.scope.clone();
        if let Some(each) = each {
            scope.insert("each", json!({"key": each.key, "value": each.value, "index": each.index}));
        }
        scope
    }
}

pub(crate) fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

fn is_key(text: &str) -> bool {
    !text.contains('.') && StepName::new(text).is_ok()
}
