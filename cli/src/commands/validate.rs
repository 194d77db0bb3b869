//! `platflow validate`: check a runbook whole, without looking at the cloud.

use crate::arguments::{OutputFormat, WorkflowArguments};
use crate::failure::{CommandError, ExitCode};
use crate::settings::Settings;
use crate::views::output;
use crate::{runbook, wiring};
use serde_json::json;

/// Compiles and says what it would be.
///
/// # Errors
/// Exit 2 with every finding.
pub(crate) async fn execute(arguments: &WorkflowArguments, settings: &Settings) -> Result<ExitCode, CommandError> {
    let catalog = wiring::descriptions(settings).await?;
    let compiled = runbook::load(arguments, &catalog, settings, None)?;
    let digest = compiled
        .plan
        .digest()
        .map_err(|error| CommandError::new(ExitCode::Internal, "the plan cannot be digested").caused_by(error))?;
    let plan = &compiled.plan;
    match settings.output {
        OutputFormat::Text => {
            if !compiled.warnings.list.is_empty() {
                output::note(&compiled.warnings.render(settings.terminal.colour, settings.terminal.width));
            }
            let short = digest.get(..12).unwrap_or(&digest);
            output::line(&format!(
                "{} is valid: {} steps in {} groups, environment {}, plan {short}",
                plan.workflow,
                plan.steps.len(),
                compiled.groups.len(),
                plan.environment,
            ))
        }
        OutputFormat::Json | OutputFormat::Jsonl => output::json(&json!({
            "schema_version": 1,
            "workflow": plan.workflow,
            "environment": plan.environment,
            "plan_digest": digest,
            "steps": plan.steps.iter().map(|step| json!({
                "name": step.name,
                "kind": step.kind,
                "needs": step.needs,
                "undo_after": step.undo_after,
                "undo": step.undo,
                "expected_seconds": step.expected.as_secs(),
            })).collect::<Vec<_>>(),
            "warnings": compiled.warnings,
        })),
    }?;
    Ok(ExitCode::Done)
}
