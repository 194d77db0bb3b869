//! Evaluates the templates of a plan once what they refer to is known. Pure.

use crate::compile::texts;
use crate::evaluate::{self, Scope};
use crate::template::{Piece, Reference, pieces, references};
use platflow_engine::name::StepName;
use platflow_engine::plan::{OutputLookup, Plan, PlannedStep, Resolve, ResolveError, Resolved};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// The language's side of the engine's resolve port.
#[derive(Debug, Clone, Copy, Default)]
pub struct Resolver;

impl Resolver {
    /// Evaluates a template (a workflow's output, say) against known outputs.
    ///
    /// # Errors
    /// What could not be evaluated, in one line.
    pub fn evaluate(plan: &Plan, template: &Value, known: &dyn OutputLookup) -> Result<Value, String> {
        let scope = scope(plan, &referenced(template, None), known)?;
        evaluate::template(template, &scope, "").map_err(|(field, message)| format!("{field}: {message}"))
    }
}

impl Resolve for Resolver {
    fn resolve(&self, plan: &Plan, step: &PlannedStep, known: &dyn OutputLookup) -> Result<Resolved, ResolveError> {
        let fail =
            |field: &str, message: String| ResolveError { step: step.name.clone(), field: field.to_owned(), message };
        if let Some(when) = &step.when {
            let wanted = referenced(&Value::Null, Some(when));
            let skipped = skipped(&wanted, known);
            if !wanted.is_empty() && skipped.len() == names(&wanted).len() {
                return Ok(skip(&skipped));
            }
            let scope = scope(plan, &wanted, known).map_err(|message| fail("when", message))?;
            match evaluate::expression(when, &scope) {
                Ok(Value::Bool(true)) => {}
                Ok(Value::Bool(false)) => {
                    return Ok(Resolved::Skip { reason: format!("its condition is false: {when}") });
                }
                Ok(other) => return Err(fail("when", format!("${{{when}}} is {other}, neither true nor false"))),
                Err(message) => return Err(fail("when", format!("${{{when}}}: {message}"))),
            }
        }
        let wanted = referenced(&step.spec, None);
        let skipped = skipped(&wanted, known);
        if !wanted.is_empty() && skipped.len() == names(&wanted).len() {
            return Ok(skip(&skipped));
        }
        let scope = scope(plan, &wanted, known).map_err(|message| fail("", message))?;
        evaluate::template(&step.spec, &scope, "").map(Resolved::Spec).map_err(|(field, message)| fail(&field, message))
    }
}

fn skip(steps: &BTreeSet<String>) -> Resolved {
    let names: Vec<&str> = steps.iter().map(String::as_str).collect();
    Resolved::Skip { reason: format!("all it refers to was skipped: {}", names.join(", ")) }
}

fn names(wanted: &BTreeSet<Reference>) -> BTreeSet<&str> {
    wanted.iter().map(|reference| reference.step.as_str()).collect()
}

fn referenced(template: &Value, expression: Option<&str>) -> BTreeSet<Reference> {
    let mut all: BTreeSet<Reference> =
        expression.map(|text| references(text).0).unwrap_or_default().into_iter().collect();
    texts(template, &mut |text| {
        if text.contains("${") {
            for piece in pieces(text).unwrap_or_default() {
                if let Piece::Expression(expression, _) = piece {
                    all.extend(references(&expression).0);
                }
            }
        }
    });
    all
}

fn skipped(wanted: &BTreeSet<Reference>, known: &dyn OutputLookup) -> BTreeSet<String> {
    wanted
        .iter()
        .filter(|reference| StepName::new(&reference.step).is_ok_and(|name| known.skipped(&name)))
        .map(|reference| reference.step.clone())
        .collect()
}

fn scope(plan: &Plan, wanted: &BTreeSet<Reference>, known: &dyn OutputLookup) -> Result<Scope, String> {
    let mut steps = Map::new();
    for reference in wanted {
        let name = StepName::new(&reference.step).map_err(|error| error.to_string())?;
        let outputs = match known.outputs(&name) {
            Some(outputs) => outputs.clone(),
            None if known.skipped(&name) => {
                // Every output of a skipped step that is asked for reads as null.
                let fields = wanted.iter().filter(|other| other.step == reference.step);
                Value::Object(
                    fields.filter_map(|other| other.fields.first()).map(|field| (field.clone(), Value::Null)).collect(),
                )
            }
            None => return Err(format!("the outputs of step '{name}' are not known yet")),
        };
        steps.insert(reference.step.clone(), json!({ "outputs": outputs }));
    }
    Ok(Scope::from([
        ("params", json!(plan.parameters)),
        ("env", json!({"name": plan.environment, "workflow": plan.workflow})),
        ("steps", Value::Object(steps)),
    ]))
}
