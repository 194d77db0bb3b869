//! The preflight of a run: which checks there are, what they are told, and whether what they find lets the run begin.
//!
//! Checks of the account are the steps'; those of the plan itself, the keys and the state file are in the files beside
//! this one. They belong to the commands that begin something: the engine knows none of them.

mod capacity;
mod cost;
mod key;
mod lock;
mod manifest;
mod name;
mod network;
mod policy;
mod report;
mod state;
mod storage;
mod subject;

pub(crate) use report::Report;

use crate::connection::Connection;
use crate::failure::CommandError;
use crate::settings::Settings;
use crate::views::output;
use crate::wiring;
use futures::future::join_all;
use platflow_engine::journal::{EnvironmentRow, Journal, RecordedStep};
use platflow_engine::plan::Plan;
use platflow_state::Store;
use platflow_steps::aws::AccountExaminer;
use platflow_steps::preflight::{Check, Examiner, Finding, Severity, Subject};
use std::sync::Arc;

/// Checks that look at nothing but the subject.
struct Pure {
    checks: &'static [&'static Check],
    examine: fn(&Subject) -> Vec<Finding>,
}

#[async_trait::async_trait]
impl Examiner for Pure {
    fn checks(&self) -> Vec<&'static Check> {
        self.checks.to_vec()
    }

    async fn examine(&self, subject: &Subject) -> Vec<Finding> {
        (self.examine)(subject)
    }
}

fn pure() -> Vec<Box<dyn Examiner>> {
    let all = [
        Pure { checks: network::CHECKS, examine: network::examine },
        Pure { checks: name::CHECKS, examine: name::examine },
        Pure { checks: capacity::CHECKS, examine: capacity::examine },
        Pure { checks: storage::CHECKS, examine: storage::examine },
        Pure { checks: policy::CHECKS, examine: policy::examine },
        Pure { checks: manifest::CHECKS, examine: manifest::examine },
    ];
    all.into_iter().map(|one| Box::new(one) as Box<dyn Examiner>).collect()
}

/// Checks of a run that is about to begin.
fn examiners(
    settings: &Settings,
    connection: &Connection,
    store: &Arc<Store>,
    row: Option<&EnvironmentRow>,
) -> Vec<Box<dyn Examiner>> {
    let mut all = pure();
    all.push(Box::new(AccountExaminer(Arc::clone(&connection.aws))));
    all.push(Box::new(cost::Ceiling { dollars: settings.cost_ceiling }));
    all.push(Box::new(key::Keys {
        settings: settings.clone(),
        store: Some((Arc::clone(store), row.map(|row| row.uid.clone()))),
    }));
    all.push(Box::new(state::Place { settings: settings.clone() }));
    all.push(Box::new(lock::Holder { store: Arc::clone(store), row: row.cloned() }));
    all
}

/// Every check, in the order of families and ids: those of runs, and those that only the doctor makes.
pub(crate) fn all_checks() -> Vec<&'static Check> {
    let mut all: Vec<&'static Check> = pure().iter().flat_map(|examiner| examiner.checks()).collect();
    all.extend(AccountExaminer::all());
    for others in [cost::CHECKS, key::CHECKS, state::CHECKS, lock::CHECKS] {
        all.extend(others);
    }
    all.sort_by_key(|check| (check.family, check.id));
    all
}

async fn made(examiners: &[Box<dyn Examiner>], subject: &Subject) -> Report {
    let checks: usize = examiners.iter().map(|examiner| examiner.checks().len()).sum();
    let findings = join_all(examiners.iter().map(|examiner| examiner.examine(subject))).await.concat();
    Report::new(checks, findings)
}

/// Makes every check for a plan. Nothing is changed anywhere.
///
/// # Errors
/// When the state file cannot be read.
pub(crate) async fn of_plan(
    settings: &Settings,
    store: &Arc<Store>,
    connection: &Connection,
    plan: &Plan,
    row: Option<&EnvironmentRow>,
) -> Result<Report, CommandError> {
    let record: Vec<RecordedStep> = match row {
        Some(row) => store.record(&row.uid).await.map_err(wiring::journal_error)?,
        None => Vec::new(),
    };
    let subject = subject::of(plan, &record, row, connection)?;
    Ok(made(&examiners(settings, connection, store, row), &subject).await)
}

/// Makes the checks before the first fact of a run, tells what is worth telling, and refuses what would fail.
///
/// # Errors
/// Exit 2 when the request has to change, 6 when somebody has to decide; nothing was changed. Exit 2 for a skipped check
/// that does not exist.
pub(crate) async fn before_run(
    settings: &Settings,
    store: &Arc<Store>,
    connection: &Connection,
    plan: &Plan,
    row: Option<&EnvironmentRow>,
    skipped: &[String],
) -> Result<(), CommandError> {
    let known = all_checks();
    if let Some(unknown) = skipped.iter().find(|id| !known.iter().any(|check| check.id == *id)) {
        return Err(CommandError::usage(format!("--skip-preflight: there is no check {unknown}; nothing was changed"))
            .with_remedy("see which there are: platflow doctor --list-checks"));
    }
    let report = of_plan(settings, store, connection, plan, row).await?;
    for finding in report.of(Severity::Warning) {
        output::note(&format!("warning: {} ({})", finding.evidence, finding.check.id));
    }
    report.permit(skipped)
}

/// Makes the checks that need no runbook: the state file, the keys, and the account when one is named.
pub(crate) async fn of_machine(
    settings: &Settings,
    store: Option<&Arc<Store>>,
    connection: Option<&Connection>,
) -> Report {
    let mut all: Vec<Box<dyn Examiner>> = vec![
        Box::new(state::Place { settings: settings.clone() }),
        Box::new(key::Keys { settings: settings.clone(), store: None }),
    ];
    if let Some(store) = store {
        all.push(Box::new(state::Contents { store: Arc::clone(store) }));
        all.push(Box::new(lock::Parked { store: Arc::clone(store) }));
    }
    if let Some(connection) = connection {
        all.push(Box::new(AccountExaminer(Arc::clone(&connection.aws))));
    }
    made(&all, &subject::of_nothing(connection)).await
}
