//! What a rollback would do, for people and as JSON.

use crate::arguments::OutputFormat;
use crate::failure::CommandError;
use crate::report;
use crate::views::{event_text, output};
use platflow_engine::fold::Run;
use platflow_engine::name::StepName;
use platflow_engine::preview::{Fate, Preview};
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn id<'a>(run: &'a Run, step: &StepName) -> Option<&'a str> {
    run.step(step).and_then(|state| state.outputs.as_ref()).and_then(report::id_in)
}

/// Prints it.
///
/// # Errors
/// When stdout is gone.
pub(crate) fn show(format: OutputFormat, run: &Run, preview: &Preview) -> Result<(), CommandError> {
    if format == OutputFormat::Text { text(run, preview) } else { output::json(&as_json(run, preview)?) }
}

fn as_json(run: &Run, preview: &Preview) -> Result<Value, CommandError> {
    let mut steps = Vec::new();
    for step in &preview.steps {
        let mut value = serde_json::to_value(step).map_err(|error| {
            CommandError::new(crate::failure::ExitCode::Internal, "the plan cannot be written").caused_by(error)
        })?;
        if let Some(fields) = value.as_object_mut() {
            fields.insert("id".to_owned(), json!(id(run, &step.step)));
        }
        steps.push(value);
    }
    Ok(json!({
        "schema_version": 1,
        "run": run.id,
        "environment": run.state.environment,
        "steps": steps,
        "stops_because": preview.refusal.as_ref().map(event_text::park_reason),
    }))
}

fn text(run: &Run, preview: &Preview) -> Result<(), CommandError> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for step in &preview.steps {
        let (word, why) = match &step.fate {
            Fate::Remove => ("remove", String::new()),
            Fate::Restore => ("restore", String::new()),
            Fate::GoneWith { with } => ("remove", format!("  gone with {with}")),
            Fate::Keep { reason } => ("keep", format!("  {reason}")),
        };
        *counts.entry(word).or_default() += 1;
        let data = if step.destroys_data { "  DATA that cannot be rebuilt" } else { "" };
        output::line(&format!(
            "{:>3}  {word:<8} {:<42} {:<26} {}{why}{data}",
            step.round,
            step.step,
            step.kind,
            id(run, &step.step).unwrap_or("-")
        ))?;
    }
    let counted: Vec<String> = counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
    let counted = if counted.is_empty() { "nothing to undo".to_owned() } else { counted.join(", ") };
    output::line(&format!("run {} of {}: {counted}; nothing was changed", run.id, run.state.environment))?;
    if let Some(reason) = &preview.refusal {
        output::line(&format!("it would stop before it began: {}", event_text::park_reason(reason)))?;
    }
    output::line("the numbers are rounds: steps of one round do not wait for each other")
}
