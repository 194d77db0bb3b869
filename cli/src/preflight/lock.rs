//! Who holds the environment in this state file: another run that has not ended, alive or not.

use async_trait::async_trait;
use platflow_engine::journal::{EnvironmentRow, Journal};
use platflow_state::Store;
use platflow_steps::preflight::{Check, Examiner, Family, Finding, Subject};
use std::sync::Arc;

static HELD: Check = Check::of_world("lock.environment", Family::Lock, "No other run holds the environment");
static PARKED: Check =
    Check::of_world("lock.unfinished", Family::Lock, "No run has waited for a day to be gone on with");

pub(super) static CHECKS: &[&Check] = &[&HELD, &PARKED];

/// Looks at the environment of the run.
pub(super) struct Holder {
    pub(super) store: Arc<Store>,
    pub(super) row: Option<EnvironmentRow>,
}

#[async_trait]
impl Examiner for Holder {
    fn checks(&self) -> Vec<&'static Check> {
        vec![&HELD]
    }

    async fn examine(&self, _subject: &Subject) -> Vec<Finding> {
        let Some(row) = &self.row else { return Vec::new() };
        let Some(run) = &row.held_by else { return Vec::new() };
        let Ok(loaded) = self.store.load(run).await else { return Vec::new() };
        let summary = loaded.summary;
        let status = summary.status.as_str();
        let (who, remedy) = match summary.owner.filter(|_| summary.owner_live) {
            Some(owner) => (
                format!(", owned by pid {} on {}", owner.pid, owner.host),
                format!("wait for it, watch it with: platflow logs {run}\nor stop it with: platflow cancel {run}"),
            ),
            None => (
                String::new(),
                format!(
                    "go on with it: platflow resume {run}\nor undo it: platflow rollback {run} --confirm {}",
                    row.name
                ),
            ),
        };
        vec![HELD.blocker(
            format!("environment {} is held by run {run} ({status}){who}", row.name),
            "two runs at once would undo each other's work: another one is refused",
            remedy,
        )]
    }
}

/// Looks at all environments.
pub(super) struct Parked {
    pub(super) store: Arc<Store>,
}

/// As many runs as anybody would want to read about.
const MOST: usize = 200;

#[async_trait]
impl Examiner for Parked {
    fn checks(&self) -> Vec<&'static Check> {
        vec![&PARKED]
    }

    async fn examine(&self, _subject: &Subject) -> Vec<Finding> {
        let Ok(runs) = self.store.list(None, MOST).await else { return Vec::new() };
        let waiting = runs.into_iter().filter(|run| !run.status.is_final() && !run.owner_live);
        waiting
            .map(|run| {
                PARKED.warning(
                    format!(
                        "run {} of environment {} is {} since {}",
                        run.id,
                        run.environment,
                        run.status.as_str(),
                        run.created_at
                    ),
                    "what it built costs, and the environment takes no other run",
                    format!("see what it waits for: platflow status {}", run.id),
                )
            })
            .collect()
    }
}
