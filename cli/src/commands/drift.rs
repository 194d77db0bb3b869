//! `platflow drift`: compare what is on record with the world, and, if asked to, set right what drifted in our own.
//!
//! A check reads only. A repair is a run like any other: journaled, resumable, and it can be rolled back.

use crate::arguments::{Drift, OutputFormat, ReportFormat, WorkflowArguments};
use crate::commands::run::refuse_held;
use crate::connection::{self, Connection, Wanted};
use crate::drift::fix::{self, Repair};
use crate::drift::{Check, Deviation, Drifted, formats, look};
use crate::execution::{self, Relay};
use crate::failure::{CommandError, ExitCode};
use crate::looking::Looker;
use crate::settings::Settings;
use crate::views::output;
use crate::{identifiers, key_places, runbook, wiring};
use platflow_engine::drive::{DriveOutcome, StartRun};
use platflow_engine::journal::{EnvironmentRow, Journal, RunStatus};
use platflow_engine::kind::Catalog;
use platflow_engine::name::EnvironmentName;
use platflow_engine::plan::{OnFailure, Plan};
use platflow_state::Store;
use std::sync::Arc;

/// How many runs are looked through for the plan that a repair goes by.
const RECENT_RUNS: usize = 1_000;

/// Looks, prints, and repairs if asked to.
///
/// # Errors
/// No such environment (2), another target (2), a run that holds the environment (6, for a repair). Exit 3 when something
/// drifted, 1 when nothing did but something could not be told.
pub(crate) async fn execute(arguments: Drift, settings: &Settings) -> Result<ExitCode, CommandError> {
    let store = wiring::open_store(settings)?;
    let environment = environment_of(&arguments.subject, settings, &store).await?;
    let wanted = Wanted { account: arguments.account.clone(), region: arguments.region.clone() };
    let (connection, row) = connection::connect(settings, &store, &environment, &wanted).await?;
    let row = row.ok_or_else(|| unknown(&environment))?;
    if arguments.fix {
        refuse_held(&store, &row).await?;
    }
    let check = made(settings, &connection, &store, &row).await?;
    show(settings, &check)?;
    if !arguments.fix || check.findings.is_empty() {
        return Ok(code(&check));
    }
    let plan = last_plan(&store, &row).await?;
    let repair = fix::repair(&check.findings, &plan);
    for left in &repair.left {
        output::note(&format!("left as it is: {left}"));
    }
    if repair.chosen.is_empty() {
        output::note("nothing of this is for a repair");
        return Ok(code(&check));
    }
    permitted(&arguments, &row, &plan, &check, &wiring::descriptions(settings).await?)?;
    let ended = run(settings, &store, &connection, &row, plan, repair).await?;
    if ended != ExitCode::Done {
        return Ok(ended);
    }
    let after = made(settings, &connection, &store, &row).await?;
    output::note(&format!("checked again: {} findings are left", after.findings.len()));
    for one in &after.findings {
        output::note(&format!("{}  {} {}: {}", one.id, one.word(), one.subject(), one.line()));
    }
    Ok(code(&after))
}

/// An environment on record, or that which a runbook builds.
async fn environment_of(
    subject: &str,
    settings: &Settings,
    store: &Arc<Store>,
) -> Result<EnvironmentName, CommandError> {
    if let Ok(name) = EnvironmentName::new(subject)
        && store.environment(&name).await.map_err(wiring::journal_error)?.is_some()
    {
        return Ok(name);
    }
    if runbook::library(settings).find(subject).is_err() {
        return Err(CommandError::usage(format!("{subject} is no environment on record and no runbook"))
            .with_remedy("see what there is with: platflow list"));
    }
    let arguments = WorkflowArguments { workflow: subject.to_owned(), ..WorkflowArguments::default() };
    let descriptions = wiring::descriptions(settings).await?;
    Ok(runbook::load(&arguments, &descriptions, settings, None)?.plan.environment)
}

fn unknown(environment: &EnvironmentName) -> CommandError {
    CommandError::usage(format!("this state file knows no environment {environment}: there is nothing to compare with"))
        .with_remedy("see what it knows with: platflow list")
}

async fn made(
    settings: &Settings,
    connection: &Connection,
    store: &Arc<Store>,
    row: &EnvironmentRow,
) -> Result<Check, CommandError> {
    let record = store.record(&row.uid).await.map_err(wiring::journal_error)?;
    let engine = wiring::engine_for_one_look(settings, store, connection, &row.uid).await?;
    let looker =
        Looker { engine: &engine, environment: row.name.clone(), uid: row.uid.clone(), run: identifiers::run_id()? };
    Ok(look::check(&looker, connection, row, &record).await)
}

fn code(check: &Check) -> ExitCode {
    match (check.findings.is_empty(), check.untold.is_empty()) {
        (false, _) => ExitCode::Changes,
        (true, true) => ExitCode::Done,
        // Nobody is told that all is well by a check that could not look.
        (true, false) => ExitCode::Internal,
    }
}

fn show(settings: &Settings, check: &Check) -> Result<(), CommandError> {
    match settings.report {
        ReportFormat::Text => {
            output::bytes(formats::text(check).as_bytes())?;
            if !check.findings.is_empty() {
                output::note(&format!("set right what is ours with: platflow drift {} --fix", check.environment));
            }
            Ok(())
        }
        ReportFormat::Json => output::json(&formats::json(check)),
        ReportFormat::Jsonl => output::json_line(&formats::json(check)),
        ReportFormat::Markdown => output::bytes(formats::markdown(check).as_bytes()),
        ReportFormat::Junit => output::bytes(formats::junit(check).as_bytes()),
        ReportFormat::Sarif => output::json(&formats::sarif(check)),
    }
}

/// The plan of the newest run that was done: what the environment is meant to be.
async fn last_plan(store: &Arc<Store>, row: &EnvironmentRow) -> Result<Plan, CommandError> {
    let runs = store.list(Some(&row.name), RECENT_RUNS).await.map_err(wiring::journal_error)?;
    let done = runs.iter().find(|run| run.status == RunStatus::Done && !run.destroy && run.environment_uid == row.uid);
    let Some(done) = done else {
        return Err(CommandError::new(
            ExitCode::Stuck,
            format!("no run of environment {} was ever done: there is no runbook to repair it by", row.name),
        )
        .with_remedy("run the runbook that describes it: platflow run <workflow>"));
    };
    Ok(store.load(&done.id).await.map_err(wiring::journal_error)?.plan)
}

/// Production is changed with an approval only, and what held data is not replaced by something empty without a word.
fn permitted(
    arguments: &Drift,
    row: &EnvironmentRow,
    plan: &Plan,
    check: &Check,
    catalog: &Catalog,
) -> Result<(), CommandError> {
    if [plan.workflow.as_str(), row.name.as_str()].into_iter().any(key_places::is_production) {
        return Err(CommandError::new(
            ExitCode::Stuck,
            format!("{} is production, and a repair has no approval; nothing was changed", row.name),
        )
        .with_remedy(format!("run the runbook, which stops at its approval: platflow run {}", plan.workflow)));
    }
    let holds_data = |kind: &str| catalog.descriptions().any(|one| one.name.as_str() == kind && one.holds_data);
    let lost: Vec<&str> = check
        .findings
        .iter()
        .filter(|one| one.deviation == Deviation::Missing && holds_data(&one.kind))
        .map(Drifted::subject)
        .collect();
    if lost.is_empty() || arguments.confirm.as_deref() == Some(row.name.as_str()) {
        return Ok(());
    }
    Err(CommandError::new(
        ExitCode::Stuck,
        format!(
            "what held data is missing ({}), and a repair would make it anew, empty; nothing was changed",
            lost.join(", ")
        ),
    )
    .with_remedy(format!(
        "restore it by its own means, or, if it is to begin anew: platflow drift {0} --fix --confirm {0}",
        row.name
    )))
}

async fn run(
    settings: &Settings,
    store: &Arc<Store>,
    connection: &Connection,
    row: &EnvironmentRow,
    mut plan: Plan,
    repair: Repair,
) -> Result<ExitCode, CommandError> {
    let names: Vec<&str> = repair.chosen.iter().map(|step| step.as_str()).collect();
    output::note(&format!("repairing {} steps: {}", names.len(), names.join(", ")));
    plan.only = Some(repair.chosen);
    plan.on_failure = OnFailure::Park;
    let relay = Arc::new(Relay::default());
    let engine = wiring::engine(settings, store, connection, relay.clone(), None).await?;
    let new = StartRun {
        id: identifiers::run_id()?,
        plan,
        environment_uid: row.uid.clone(),
        target: row.target.clone(),
        owner: wiring::this_process()?,
        on_failure: OnFailure::Park,
        destroy: None,
    };
    let (lease, run) = engine.start(new).await.map_err(execution::drive_error)?;
    // stdout is the check's: what the repair does is told on stderr, or not at all.
    let output = if settings.report == ReportFormat::Text { OutputFormat::Text } else { OutputFormat::Json };
    let shown = Settings { output, ..settings.clone() };
    let (run, outcome) = execution::carry_out(&shown, &engine, &relay, &lease, run).await?;
    if let DriveOutcome::Parked(reason) = &outcome {
        execution::tell_parked(&run, reason);
    }
    Ok(execution::exit_code(&run, &outcome))
}
