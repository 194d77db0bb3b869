//! From a name or path and parameters to a compiled runbook, with all findings shown at once.

use crate::arguments::{Pinned, WorkflowArguments};
use crate::failure::{CommandError, ExitCode};
use crate::settings::Settings;
use clap::ValueEnum;
use platflow_engine::kind::Catalog;
use platflow_engine::name::RunId;
use platflow_engine::plan::{OnFailure, Plan};
use platflow_workflows::{CompileOptions, Compiled, Findings, Library, ParameterValues, Source, compile};
use serde_json::json;

fn refused(findings: &Findings, settings: &Settings) -> CommandError {
    let count = findings.list.len();
    let text = findings.render(settings.terminal.colour, settings.terminal.width);
    let plural = if count == 1 { "one finding" } else { "several findings" };
    CommandError::usage(format!("the runbook or its parameters cannot be used ({plural}); nothing was changed\n{text}"))
}

/// The operator's runbooks beside the embedded ones.
#[must_use]
pub(crate) fn library(settings: &Settings) -> Library {
    Library::new().with_directory(settings.configuration_directory.clone())
}

/// Reads and compiles.
///
/// # Errors
/// Exit 2 with every finding.
pub(crate) fn load(
    arguments: &WorkflowArguments,
    catalog: &Catalog,
    settings: &Settings,
    on_failure: Option<OnFailure>,
) -> Result<Compiled, CommandError> {
    let library = library(settings);
    let source = library.find(&arguments.workflow).map_err(|error| {
        CommandError::usage(error.to_string())
            .with_remedy(format!("shipped runbooks: {}; or give the path of a file", library.workflows().join(", ")))
    })?;
    let mut values = ParameterValues::default();
    if let Some(path) = &arguments.parameters {
        let text = std::fs::read_to_string(path).map_err(|error| {
            CommandError::usage(format!("the parameter file {} cannot be read", path.display())).caused_by(error)
        })?;
        values.file(&Source::new(path.display().to_string(), text)).map_err(|findings| refused(&findings, settings))?;
    }
    for assignment in &arguments.set {
        values.set(assignment).map_err(|findings| refused(&findings, settings))?;
    }
    let options = CompileOptions { environment: arguments.environment.clone(), on_failure };
    compile(&library, &source, catalog, &values, &options).map_err(|findings| {
        if findings.list.is_empty() {
            CommandError::new(ExitCode::Internal, "the runbook was refused without a finding")
        } else {
            refused(&findings, settings)
        }
    })
}

/// Has the looked-up values of these names asked anew by the run `id`: they are pinned otherwise.
///
/// # Errors
/// Exit 2 for a runbook that looks nothing up.
pub(crate) fn refresh(plan: &mut Plan, names: &[Pinned], id: &RunId) -> Result<(), CommandError> {
    if names.is_empty() {
        return Ok(());
    }
    let words: Vec<String> =
        names.iter().filter_map(|name| Some(name.to_possible_value()?.get_name().to_owned())).collect();
    let mut asked = false;
    for step in plan.steps.iter_mut().filter(|step| step.kind.as_str() == "aws.lookups") {
        if let Some(spec) = step.spec.as_object_mut() {
            spec.insert("refresh".to_owned(), json!({"names": words, "run": id}));
            asked = true;
        }
    }
    if asked {
        return Ok(());
    }
    Err(CommandError::usage(format!(
        "--refresh: {} has no step of kind aws.lookups, nothing in it is pinned",
        plan.workflow
    ))
    .with_remedy("leave the option out"))
}
