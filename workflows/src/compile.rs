//! A runbook and its parameters become a plan. Everything is checked; nothing runs.

use crate::document::{Document, Undo, read};
use crate::evaluate;
use crate::expand::{Expanded, Expander};
use crate::finding::{Finding, Findings, Severity};
use crate::graph::cycle;
use crate::library::Library;
use crate::parameters::ParameterValues;
use crate::shape::{Outputs, Shape, Walk};
use crate::source::{Source, Span};
use crate::template::references;
use platflow_engine::kind::{Catalog, UndoDefault};
use platflow_engine::name::{EnvironmentName, KindName, StepName, WorkflowName};
use platflow_engine::plan::{OnFailure, Plan, PlannedStep};
use platflow_engine::step::UndoPlan;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What the command line may decide besides parameters.
#[derive(Debug, Clone, Default)]
pub struct CompileOptions {
    /// Another environment than the one the runbook names.
    pub environment: Option<String>,
    /// Another policy than the one the runbook names.
    pub on_failure: Option<OnFailure>,
}

/// A compiled runbook.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// What a run is pinned to.
    pub plan: Plan,
    /// Module instances and all their steps, for folded display.
    pub groups: BTreeMap<String, Vec<StepName>>,
    /// The runbook's `outputs:` as templates; `Resolver::evaluate` evaluates them.
    pub outputs: BTreeMap<String, Value>,
    /// The runbook's `description:`.
    pub description: Option<String>,
    /// Steps that a rehearsal executes instead of simulating them: `rehearse: run`.
    pub rehearsed_for_real: BTreeSet<StepName>,
    /// Findings that stop nothing.
    pub warnings: Findings,
}

struct Kinds<'a> {
    kinds: &'a BTreeMap<String, KindName>,
    catalog: &'a Catalog,
}

impl Outputs for Kinds<'_> {
    fn shape_of(&self, step: &str) -> Option<Shape<'_>> {
        let kind = self.kinds.get(step)?;
        self.catalog.description(kind).map(|description| Shape::new(&description.outputs_schema))
    }
}

/// Compiles a runbook for one set of parameters.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn compile(
    library: &Library,
    source: &Source,
    catalog: &Catalog,
    values: &ParameterValues,
    options: &CompileOptions,
) -> Result<Compiled, Findings> {
    let mut findings = Findings::default();
    let Some(document) = read(source, &mut findings) else { return Err(findings.sorted()) };
    if document.is_module {
        let message = format!("'{}' is a module, not a workflow", document.name.text);
        let finding = Finding::error("wrong-value", source, document.name.span, message);
        findings.push(finding.hint("modules are used by workflows: 'module: <name>' in a step"));
        return Err(findings.sorted());
    }
    let names = names(&document, options, &mut findings);
    let parameters = values.settle(source, &document.parameters, &mut findings);
    let environment = names.as_ref().map(|(_, environment)| environment.as_str()).unwrap_or_default();
    let scope = evaluate::Scope::from([
        ("params", json!(parameters)),
        ("env", json!({"name": environment, "workflow": document.name.text})),
    ]);
    let document = Arc::new(document);
    let mut expander = Expander::new(library, catalog, Arc::clone(&document), scope);
    expander.findings = findings;
    expander.declare(0, 0);
    expander.emit_all();
    let outputs = workflow_outputs(&mut expander, &document);
    check_specs(&mut expander);
    let steps = plan_steps(&mut expander);
    let rehearsed_for_real = rehearsed_for_real(&mut expander);
    check_cycles(&mut expander, &steps);
    unused(&mut expander, &document);
    let mut findings = std::mem::take(&mut expander.findings).sorted();
    if findings.has_errors() {
        findings.list.retain(|finding| finding.severity == Severity::Error);
        return Err(findings);
    }
    let Some((workflow, environment)) = names else { return Err(findings) };
    let plan = Plan {
        workflow,
        environment,
        parameters,
        steps,
        on_failure: options.on_failure.unwrap_or(document.on_failure),
        only: None,
    };
    Ok(Compiled {
        groups: groups(&expander),
        plan,
        outputs,
        description: document.description.clone(),
        rehearsed_for_real,
        warnings: findings,
    })
}

fn names(
    document: &Document,
    options: &CompileOptions,
    findings: &mut Findings,
) -> Option<(WorkflowName, EnvironmentName)> {
    let workflow = WorkflowName::new(&document.name.text).map_err(|error| {
        let finding = Finding::error("wrong-name", &document.source, document.name.span, error.to_string());
        findings.push(finding);
    });
    let environment = match (&options.environment, &document.environment) {
        (Some(name), _) => EnvironmentName::new(name).map_err(|error| {
            let source = Source::new("command line", format!("--environment {name}"));
            findings.push(Finding::error("wrong-name", &source, Span::of(14, name.len()), error.to_string()));
        }),
        (None, Some(word)) => EnvironmentName::new(&word.text).map_err(|error| {
            findings.push(Finding::error("wrong-name", &document.source, word.span, error.to_string()));
        }),
        (None, None) => {
            let message = format!("workflow '{}' names no environment", document.name.text);
            let finding = Finding::error("missing-field", &document.source, document.name.span, message);
            findings.push(finding.hint("add 'environment: <name>': what this workflow builds"));
            Err(())
        }
    };
    Some((workflow.ok()?, environment.ok()?))
}

fn workflow_outputs(expander: &mut Expander<'_>, document: &Document) -> BTreeMap<String, Value> {
    document
        .outputs
        .iter()
        .map(|(key, node)| (key.text.clone(), expander.fold(0, None, node, true).to_json()))
        .collect()
}

fn check_specs(expander: &mut Expander<'_>) {
    let kinds = Kinds { kinds: &expander.kinds, catalog: expander.catalog };
    let mut found = Vec::new();
    for step in &expander.steps {
        let never = step.when.as_deref() == Some("false");
        if let (false, Some(description)) = (never, expander.catalog.description(&step.kind)) {
            let walk = Walk { source: &step.source, kind: step.kind.as_str(), outputs: &kinds };
            found.extend(walk.check(Shape::new(&description.spec_schema), &step.spec, "spec", step.span));
        }
    }
    expander.findings.list.extend(found);
}

fn step_names(paths: &BTreeSet<String>) -> Vec<StepName> {
    paths.iter().filter_map(|path| StepName::new(path).ok()).collect()
}

fn referenced(step: &Expanded) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    texts(&step.spec.to_json(), &mut |text| collect(text, &mut all));
    if let Some(when) = &step.when {
        all.extend(references(when).0.into_iter().map(|reference| reference.step));
    }
    all
}

fn collect(text: &str, all: &mut BTreeSet<String>) {
    for piece in crate::template::pieces(text).unwrap_or_default() {
        if let crate::template::Piece::Expression(expression, _) = piece {
            all.extend(references(&expression).0.into_iter().map(|reference| reference.step));
        }
    }
}

/// Visits every text of a value, keys included.
pub(crate) fn texts(value: &Value, visit: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) => visit(text),
        Value::Array(items) => items.iter().for_each(|item| texts(item, visit)),
        Value::Object(fields) => fields.iter().for_each(|(key, field)| {
            visit(key);
            texts(field, visit);
        }),
        _ => {}
    }
}

fn plan_steps(expander: &mut Expander<'_>) -> Vec<PlannedStep> {
    let mut steps = Vec::new();
    let mut invalid = Vec::new();
    for step in &expander.steps {
        let name = match StepName::new(&step.path) {
            Ok(name) => name,
            Err(error) => {
                invalid.push(Finding::error("wrong-name", &step.source, step.span, error.to_string()));
                continue;
            }
        };
        let Some(description) = expander.catalog.description(&step.kind) else { continue };
        let mut needs = referenced(step);
        needs.extend(step.needs.iter().cloned());
        let with = step.undo_with.as_ref().and_then(|path| StepName::new(path).ok());
        let undo = match (&step.undo, with) {
            (Undo::Keep, _) => UndoPlan::Keep,
            (Undo::With(_), Some(step)) => UndoPlan::With { step },
            _ => match description.undo {
                UndoDefault::Own => UndoPlan::Own,
                UndoDefault::Impossible => UndoPlan::Impossible,
            },
        };
        steps.push(PlannedStep {
            name,
            kind: step.kind.clone(),
            spec: step.spec.to_json(),
            when: step.when.clone(),
            needs: step_names(&needs),
            undo_after: step_names(&step.undo_after),
            undo,
            timeout: step.timeout,
            retry_for: step.retry_for,
            expected: description.expected,
            description: step.description.clone(),
        });
    }
    expander.findings.list.extend(invalid);
    steps.sort_by(|a, b| a.name.cmp(&b.name));
    steps
}

/// Only programs and requests of the user's own are simulated, so only they can be executed instead.
fn rehearsed_for_real(expander: &mut Expander<'_>) -> BTreeSet<StepName> {
    let (mut found, mut wrong) = (BTreeSet::new(), Vec::new());
    for step in &expander.steps {
        let Some(word) = &step.rehearse else { continue };
        if !matches!(step.kind.as_str(), "core.exec" | "core.http") {
            let message = format!("a step of kind {} is always rehearsed in the sandbox", step.kind);
            let finding = Finding::error("unknown-field", &step.source, word.span, message);
            wrong.push(finding.hint("'rehearse: run' is for core.exec and core.http; leave it out"));
        } else if let Ok(name) = StepName::new(&step.path) {
            found.insert(name);
        }
    }
    expander.findings.list.extend(wrong);
    found
}

fn check_cycles(expander: &mut Expander<'_>, steps: &[PlannedStep]) {
    let mut needs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for step in steps {
        needs.insert(step.name.as_str(), step.needs.iter().map(StepName::as_str).collect());
    }
    if let Some(path) = cycle(&needs) {
        let message = format!("the steps depend on each other in a circle: {}", path.join(" → "));
        report_cycle(expander, &path, message, "remove one of these references or 'needs'");
        return;
    }
    // In the order of undoing, a step waits for everything that depends on it and for its undo_after.
    let mut waits: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for step in steps {
        waits.entry(step.name.as_str()).or_default().extend(step.undo_after.iter().map(StepName::as_str));
        for need in &step.needs {
            waits.entry(need.as_str()).or_default().push(step.name.as_str());
        }
    }
    if let Some(path) = cycle(&waits) {
        let message = format!("the steps wait for each other when they are undone: {}", path.join(" → "));
        report_cycle(expander, &path, message, "remove one of these 'undo_after'");
    }
}

fn report_cycle(expander: &mut Expander<'_>, path: &[&str], message: String, hint: &str) {
    let place = path
        .iter()
        .find_map(|name| expander.steps.iter().find(|step| step.path == *name))
        .map(|step| (step.source.clone(), step.span));
    if let Some((source, span)) = place {
        expander.error("cycle", &source, span, message, hint.to_owned());
    }
}

fn unused(expander: &mut Expander<'_>, document: &Document) {
    for declared in &document.parameters {
        let name = &declared.name.text;
        if !expander.used.contains(name) && !document.source.text().contains("${params}") {
            let message = format!("parameter '{name}' is never used");
            expander.findings.push(Finding::warning("unused", &document.source, declared.name.span, message));
        }
    }
}

fn groups(expander: &Expander<'_>) -> BTreeMap<String, Vec<StepName>> {
    expander
        .instances
        .iter()
        .filter(|instance| !instance.prefix.is_empty())
        .map(|instance| {
            let inside = format!("{}.", instance.prefix);
            let steps: BTreeSet<String> = expander
                .steps
                .iter()
                .filter(|step| step.path.starts_with(&inside))
                .map(|step| step.path.clone())
                .collect();
            (instance.prefix.clone(), step_names(&steps))
        })
        .collect()
}
