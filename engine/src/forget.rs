//! Striking steps off the environment's record, on the operator's word: the world is not touched, the journal tells who.
//!
//! What exists goes on existing with our tags on it; a later run finds it again by looking. A rollback no longer tries to
//! take it away, and no longer counts it as left behind.

use crate::destroy;
use crate::drive::{DriveError, batch};
use crate::event::{Ending, Event};
use crate::fold::Run;
use crate::journal::{Journal, JournalError, NewRun, Owner, RecordedStep};
use crate::kind::Catalog;
use crate::name::{EnvironmentName, EnvironmentUid, RunId, StepName, WorkflowName};
use crate::plan::OnFailure;
use jiff::Timestamp;
use serde_json::Value;
use std::sync::Arc;

/// A run that does nothing but strike steps off.
#[derive(Debug, Clone)]
pub struct Forgetting {
    /// Its id.
    pub id: RunId,
    /// Its name in lists.
    pub workflow: WorkflowName,
    /// The environment.
    pub environment: EnvironmentName,
    /// Its uid.
    pub environment_uid: EnvironmentUid,
    /// What the environment is pinned to.
    pub target: Value,
    /// Who asks for it.
    pub owner: Owner,
    /// Version of the binary.
    pub version: String,
    /// The rows to be struck off.
    pub record: Vec<RecordedStep>,
}

fn by(owner: &Owner) -> String {
    format!("{} on {}", owner.user, owner.host)
}

/// Strikes rows off in a run of its own: for an environment that no unfinished run holds.
///
/// # Errors
/// A held environment, another target, storage.
pub async fn from_record(
    journal: &Arc<dyn Journal>,
    catalog: &Catalog,
    new: Forgetting,
    at: Timestamp,
) -> Result<(), DriveError> {
    let plan = Arc::new(destroy::plan(new.workflow, new.environment.clone(), &new.record, catalog));
    let digest = plan.digest().map_err(DriveError::Plan)?;
    let first = Event::RunStarted {
        environment: new.environment,
        environment_uid: new.environment_uid.clone(),
        plan_digest: digest.clone(),
        on_failure: OnFailure::Park,
        version: new.version,
        at,
    };
    let mut run = Run::begin(new.id.clone(), Arc::clone(&plan), &first)?;
    let mut builder = batch::Builder::default();
    builder.first(first)?;
    for row in new.record {
        let RecordedStep { step, generation, spec, outputs, .. } = row;
        let outputs = outputs.unwrap_or(Value::Null);
        builder.apply(&mut run, Event::StepRecorded { step: step.clone(), generation, spec, outputs })?;
        builder.apply(&mut run, Event::StepForgotten { step, by: by(&new.owner), at })?;
    }
    builder.apply(&mut run, Event::RunFinished { ending: Ending::Done, at })?;
    let (first, _) = builder.finish(&run)?;
    let lease = journal
        .create_run(NewRun {
            id: new.id,
            plan,
            plan_digest: digest,
            environment_uid: new.environment_uid,
            target: new.target,
            owner: new.owner,
            destroy: false,
            at,
            first,
        })
        .await?;
    journal.release(&lease).await?;
    Ok(())
}

/// Strikes steps off in the middle of an unfinished run that nobody drives: it stays parked, and goes on without them.
///
/// # Errors
/// A live owner; a step that the run does not have.
pub async fn in_run(
    journal: &Arc<dyn Journal>,
    id: &RunId,
    owner: &Owner,
    steps: &[StepName],
    at: Timestamp,
) -> Result<(), DriveError> {
    let lease = journal.acquire(id, owner).await?;
    let struck = async {
        let mut run = Run::load(journal.load(id).await?)?;
        if run.head != lease.head {
            let lost = format!("run {id} has {} events, its lease says {}", run.head, lease.head);
            return Err(DriveError::Journal(JournalError::Damaged(lost)));
        }
        let mut builder = batch::Builder::default();
        let name = format!("pid {} on {} ({})", owner.pid, owner.host, owner.user);
        builder.apply(&mut run, Event::OwnerChanged { epoch: lease.epoch, owner: name, at })?;
        for step in steps {
            builder.apply(&mut run, Event::StepForgotten { step: step.clone(), by: by(owner), at })?;
        }
        let (batch, _) = builder.finish(&run)?;
        journal.append(&lease, lease.head, batch).await?;
        Ok(())
    }
    .await;
    journal.release(&lease).await?;
    struck
}
