//! How a run comes under a drive: created with its first facts, or taken over.

use crate::drive::{DriveError, Engine, batch};
use crate::event::{Direction, Ending, Event, ParkReason};
use crate::fold::Run;
use crate::journal::{Journal, JournalError, Lease, NewRun, Owner, RecordedStep};
use crate::name::{EnvironmentUid, RunId};
use crate::plan::{OnFailure, Plan};
use serde_json::Value;
use std::sync::Arc;

/// A run to be started.
#[derive(Debug, Clone)]
pub struct StartRun {
    /// Its id.
    pub id: RunId,
    /// The pinned plan.
    pub plan: Plan,
    /// The environment's uid.
    pub environment_uid: EnvironmentUid,
    /// What the environment is pinned to.
    pub target: Value,
    /// Who starts it.
    pub owner: Owner,
    /// What happens when a step fails for good.
    pub on_failure: OnFailure,
    /// A destroy run: what exists, and the direction (backward, confirmed or not).
    pub destroy: Option<(Vec<RecordedStep>, Direction)>,
}

pub(super) async fn start(engine: &Engine, new: StartRun) -> Result<(Lease, Run), DriveError> {
    let digest = new.plan.digest().map_err(DriveError::Plan)?;
    for step in &new.plan.steps {
        if engine.catalog.description(&step.kind).is_none() {
            return Err(DriveError::UnknownKind(step.kind.clone()));
        }
    }
    let at = engine.clock.now();
    let first = Event::RunStarted {
        environment: new.plan.environment.clone(),
        environment_uid: new.environment_uid.clone(),
        plan_digest: digest.clone(),
        on_failure: new.on_failure,
        version: engine.settings.version.clone(),
        at,
    };
    let plan = Arc::new(new.plan);
    let mut run = Run::begin(new.id.clone(), Arc::clone(&plan), &first)?;
    let mut builder = batch::Builder::default();
    builder.first(first)?;
    let destroy = new.destroy.is_some();
    if let Some((record, direction)) = new.destroy {
        for step in record {
            let event = Event::StepRecorded {
                step: step.step,
                generation: step.generation,
                spec: step.spec,
                outputs: step.outputs.unwrap_or(Value::Null),
            };
            builder.apply(&mut run, event)?;
        }
        builder.apply(&mut run, Event::DirectionSet { direction, at })?;
    }
    let (batch, events) = builder.finish(&run)?;
    let lease = engine
        .journal
        .create_run(NewRun {
            id: new.id,
            plan,
            plan_digest: digest,
            environment_uid: new.environment_uid,
            target: new.target,
            owner: new.owner,
            destroy,
            at,
            first: batch,
        })
        .await?;
    tell(engine, &events, 1);
    Ok((lease, run))
}

pub(super) fn tell(engine: &Engine, events: &[Event], first: u64) {
    for (sequence, event) in (first..).zip(events) {
        engine.observer.committed(sequence, event);
    }
}

/// A lease that must not outlive a failed takeover.
async fn give_back<T>(
    journal: &Arc<dyn Journal>,
    lease: &Lease,
    result: Result<T, DriveError>,
) -> Result<T, DriveError> {
    if result.is_err() {
        // The takeover failed for another reason, which is what the caller is told.
        let _ = journal.release(lease).await;
    }
    result
}

pub(super) async fn resume(
    engine: &Engine,
    id: &RunId,
    owner: &Owner,
    direction: Option<Direction>,
) -> Result<(Lease, Run), DriveError> {
    let lease = engine.journal.acquire(id, owner).await?;
    let taken = take_over(engine, id, owner, direction, &lease).await;
    let run = give_back(&engine.journal, &lease, taken).await?;
    Ok((lease, run))
}

async fn take_over(
    engine: &Engine,
    id: &RunId,
    owner: &Owner,
    direction: Option<Direction>,
    lease: &Lease,
) -> Result<Run, DriveError> {
    let mut run = Run::load(engine.journal.load(id).await?)?;
    if run.head != lease.head {
        return Err(DriveError::Journal(JournalError::Damaged(format!(
            "run {id} has {} events, its lease says {}",
            run.head, lease.head
        ))));
    }
    for step in &run.plan.steps {
        if engine.catalog.description(&step.kind).is_none() {
            return Err(DriveError::UnknownKind(step.kind.clone()));
        }
    }
    let at = engine.clock.now();
    let mut builder = batch::Builder::default();
    let owner = format!("pid {} on {} ({})", owner.pid, owner.host, owner.user);
    builder.apply(&mut run, Event::OwnerChanged { epoch: lease.epoch, owner, at })?;
    // What was rolled back to a step has nothing left to do backward: resuming it goes forward again.
    let rolled_back_to = matches!(run.state.parked, Some(ParkReason::RolledBackTo { .. }));
    if let Some(direction) = direction.or_else(|| rolled_back_to.then_some(Direction::Forward)) {
        builder.apply(&mut run, Event::DirectionSet { direction, at })?;
    }
    if run.state.parked.is_some() {
        builder.apply(&mut run, Event::RunResumed { at })?;
    }
    let (batch, events) = builder.finish(&run)?;
    engine.journal.append(lease, lease.head, batch).await?;
    tell(engine, &events, lease.head + 1);
    Ok(run)
}

/// Ends a run for good without touching the world: the record keeps what exists.
pub(super) async fn abandon(
    engine_journal: &Arc<dyn Journal>,
    id: &RunId,
    owner: &Owner,
    at: jiff::Timestamp,
) -> Result<(), DriveError> {
    let lease = engine_journal.acquire(id, owner).await?;
    let ended = async {
        let mut run = Run::load(engine_journal.load(id).await?)?;
        let mut builder = batch::Builder::default();
        let name = format!("pid {} on {} ({})", owner.pid, owner.host, owner.user);
        builder.apply(&mut run, Event::OwnerChanged { epoch: lease.epoch, owner: name, at })?;
        builder.apply(&mut run, Event::RunFinished { ending: Ending::Abandoned, at })?;
        let (batch, _) = builder.finish(&run)?;
        engine_journal.append(&lease, lease.head, batch).await?;
        Ok(())
    }
    .await;
    engine_journal.release(&lease).await?;
    ended
}
