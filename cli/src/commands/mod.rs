//! One file per command; this one only hands over.

mod adopt;
mod approve;
mod cancel;
mod completions;
mod destroy;
mod doctor;
mod drift;
mod forget;
mod graph;
pub(crate) mod guard;
mod k8s_token;
mod kubeconfig;
mod list;
mod logs;
mod plan;
mod reference;
mod rehearse;
mod reject;
mod resume;
mod rollback;
mod run;
mod sandbox;
mod secret;
mod status;
mod validate;

use crate::arguments::{Command, ReportFormat};
use crate::failure::{CommandError, ExitCode};
use crate::settings::Settings;

/// Runs one command.
///
/// # Errors
/// The command's failure, to be printed once.
pub(crate) async fn execute(command: Command, settings: Settings) -> Result<ExitCode, CommandError> {
    if !matches!(command, Command::Drift(_)) {
        refuse_report(settings.report)?;
    }
    match command {
        Command::Run(arguments) => run::execute(arguments, &settings).await,
        Command::Resume(arguments) => resume::execute(arguments, &settings).await,
        Command::Rollback(arguments) => rollback::execute(arguments, &settings).await,
        Command::Destroy(arguments) => destroy::execute(arguments, &settings).await,
        Command::Cancel(arguments) => cancel::execute(arguments, &settings).await,
        Command::Approve(arguments) => approve::execute(arguments, &settings).await,
        Command::Reject(arguments) => reject::execute(arguments, &settings).await,
        Command::Status(arguments) => status::execute(arguments, &settings).await,
        Command::List(arguments) => list::execute(arguments, &settings).await,
        Command::Logs(arguments) => logs::execute(arguments, &settings).await,
        Command::Plan(arguments) => plan::execute(arguments, &settings).await,
        Command::Doctor(arguments) => doctor::execute(arguments, &settings).await,
        Command::Rehearse(arguments) => rehearse::execute(arguments, &settings).await,
        Command::Drift(arguments) => drift::execute(arguments, &settings).await,
        Command::Validate(arguments) => validate::execute(&arguments, &settings).await,
        Command::Graph(arguments) => graph::execute(&arguments, &settings).await,
        Command::Kubeconfig(arguments) => kubeconfig::execute(arguments, &settings).await,
        Command::K8sToken(arguments) => k8s_token::execute(arguments, &settings).await,
        Command::Secret(arguments) => secret::execute(arguments, &settings).await,
        Command::Forget(arguments) => forget::execute(arguments, &settings).await,
        Command::Adopt(arguments) => adopt::execute(arguments, &settings).await,
        Command::Sandbox(arguments) => sandbox::execute(arguments, &settings).await,
        Command::Completions(arguments) => completions::execute(&arguments),
        Command::Reference(arguments) => reference::execute(&arguments, &settings).await,
        Command::Guard(arguments) => Ok(guard::execute(&arguments)),
    }
}

/// Formats of reports are for commands that write one.
fn refuse_report(format: ReportFormat) -> Result<(), CommandError> {
    match format {
        ReportFormat::Text | ReportFormat::Json | ReportFormat::Jsonl => Ok(()),
        ReportFormat::Markdown | ReportFormat::Junit | ReportFormat::Sarif => {
            Err(CommandError::usage("this command writes text, json or jsonl; nothing was done")
                .with_remedy("markdown, junit and sarif are what `platflow drift` writes as well"))
        }
    }
}
