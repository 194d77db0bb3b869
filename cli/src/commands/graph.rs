//! `platflow graph`: the graph of a runbook in a notation that other tools draw.

use crate::arguments::{Graph, Notation};
use crate::failure::{CommandError, ExitCode};
use crate::settings::Settings;
use crate::views::output;
use crate::{runbook, wiring};
use platflow_engine::plan::Plan;

/// Prints the graph.
///
/// # Errors
/// Exit 2 for a runbook that does not compile.
pub(crate) async fn execute(arguments: &Graph, settings: &Settings) -> Result<ExitCode, CommandError> {
    let catalog = wiring::descriptions(settings).await?;
    let compiled = runbook::load(&arguments.workflow, &catalog, settings, None)?;
    let text = match arguments.notation {
        Notation::Text => layers(&compiled.plan)?,
        Notation::Dot => dot(&compiled.plan),
        Notation::Mermaid => mermaid(&compiled.plan),
    };
    output::bytes(text.as_bytes())?;
    Ok(ExitCode::Done)
}

fn layers(plan: &Plan) -> Result<String, CommandError> {
    let graph = platflow_engine::graph::Graph::new(&std::sync::Arc::new(plan.clone()))
        .map_err(|error| CommandError::usage(error.to_string()))?;
    let mut text = String::new();
    for (depth, steps) in graph.layers() {
        text.push_str(&format!("{depth}\n"));
        for step in steps.iter().filter_map(|index| graph.step(*index)) {
            text.push_str(&format!("  {:<40} {}\n", step.name, step.kind));
        }
    }
    Ok(text)
}

fn dot(plan: &Plan) -> String {
    let mut text = format!("digraph {:?} {{\n  rankdir=LR;\n  node [shape=box];\n", plan.workflow.as_str());
    for step in &plan.steps {
        text.push_str(&format!("  {:?} [label=\"{}\\n{}\"];\n", step.name.as_str(), step.name, step.kind));
        for need in &step.needs {
            text.push_str(&format!("  {:?} -> {:?};\n", need.as_str(), step.name.as_str()));
        }
    }
    text.push_str("}\n");
    text
}

fn mermaid(plan: &Plan) -> String {
    let id = |name: &str| name.replace(['.', '-'], "_");
    let mut text = "graph LR\n".to_owned();
    for step in &plan.steps {
        text.push_str(&format!("  {}[\"{}\"]\n", id(step.name.as_str()), step.name));
        for need in &step.needs {
            text.push_str(&format!("  {} --> {}\n", id(need.as_str()), id(step.name.as_str())));
        }
    }
    text
}
