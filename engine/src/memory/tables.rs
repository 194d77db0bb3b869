//! What the journal in memory keeps: runs with their events and rows, environments, the record.
//!
//! Plain data behind one lock; who may write is decided here, what is written is not looked at.

use crate::journal::{
    Batch, EncodedEvent, EnvironmentRow, JournalError, Lease, LoadedRun, LoadedStep, NewRun, Owner, RecordChange,
    RecordRow, RecordedStep, RunStatus, RunSummary, Sequence, StepRow, StoredEvent,
};
use crate::memory::Died;
use crate::name::{EnvironmentName, EnvironmentUid, RunId, StepName};
use crate::plan::Plan;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// An owner that is taken to live.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) owner: Owner,
    pub(super) since: Timestamp,
}

/// A run with everything about it.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    number: usize,
    pub(super) plan: Arc<Plan>,
    plan_digest: String,
    environment_uid: EnvironmentUid,
    destroy: bool,
    created_at: Timestamp,
    pub(super) status: RunStatus,
    pub(super) epoch: u64,
    pub(super) owner: Option<Owner>,
    pub(super) held: Option<Held>,
    pub(super) events: Vec<StoredEvent>,
    run_payload: Vec<u8>,
    steps: BTreeMap<StepName, StepRow>,
}

impl Stored {
    pub(super) fn head(&self) -> Sequence {
        self.events.len() as u64
    }

    /// Refuses everybody but the present owner.
    pub(super) fn owned_by(&self, lease: &Lease) -> Result<(), JournalError> {
        if self.epoch == lease.epoch && self.held.is_some() {
            return Ok(());
        }
        Err(JournalError::Stale { run: lease.run.clone(), ours: lease.epoch, current: self.epoch })
    }

    fn event(&self, sequence: Option<Sequence>) -> Option<StoredEvent> {
        let at = usize::try_from(sequence?.checked_sub(1)?).ok()?;
        self.events.get(at).cloned()
    }

    fn loaded(&self, row: &StepRow) -> LoadedStep {
        LoadedStep {
            step: row.step.clone(),
            state: row.state.to_owned(),
            intent: self.event(row.intent),
            outcome: self.event(row.outcome),
            payload: row.payload.clone(),
        }
    }

    fn summary(&self, id: &RunId) -> RunSummary {
        RunSummary {
            id: id.clone(),
            workflow: self.plan.workflow.clone(),
            environment: self.plan.environment.clone(),
            environment_uid: self.environment_uid.clone(),
            status: self.status,
            destroy: self.destroy,
            created_at: self.created_at,
            owner: self.owner.clone(),
            owner_live: self.held.is_some(),
            head: self.head(),
        }
    }
}

/// A row of the record.
#[derive(Debug, Clone)]
enum Recorded {
    Explicit(Box<RecordedStep>),
    /// The state of the step in this run.
    Own(RunId),
}

/// Everything.
#[derive(Debug, Clone, Default)]
pub(super) struct Tables {
    pub(super) runs: HashMap<RunId, Stored>,
    pub(super) environments: BTreeMap<EnvironmentName, EnvironmentRow>,
    record: BTreeMap<(EnvironmentUid, StepName), Recorded>,
    pub(super) generations: BTreeMap<(EnvironmentUid, StepName), u32>,
    pub(super) forgotten: BTreeSet<(EnvironmentUid, StepName)>,
    pub(super) die_at: Option<Sequence>,
    pub(super) dead: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("run id {0} is taken")]
struct Taken(RunId);

impl Tables {
    pub(super) fn alive(&self, doing: &'static str) -> Result<(), JournalError> {
        if self.dead { Err(JournalError::Storage { doing, source: Box::new(Died) }) } else { Ok(()) }
    }

    pub(super) fn revive(&mut self) {
        self.dead = false;
        self.die_at = None;
        for stored in self.runs.values_mut() {
            stored.held = None;
        }
    }

    pub(super) fn run(&self, id: &RunId) -> Result<&Stored, JournalError> {
        self.runs.get(id).ok_or_else(|| JournalError::NotFound { what: "run", text: id.to_string() })
    }

    pub(super) fn run_mut(&mut self, id: &RunId) -> Result<&mut Stored, JournalError> {
        self.runs.get_mut(id).ok_or_else(|| JournalError::NotFound { what: "run", text: id.to_string() })
    }

    /// Takes an environment for a run unless another one holds it.
    pub(super) fn hold(&mut self, environment: &EnvironmentName, run: &RunId) -> Result<(), JournalError> {
        let holder = self.environments.get(environment).and_then(|row| row.held_by.clone());
        if let Some(holder) = holder.filter(|holder| holder != run) {
            let status = self.run(&holder)?.status;
            return Err(JournalError::EnvironmentHeld { environment: environment.clone(), run: holder, status });
        }
        if let Some(row) = self.environments.get_mut(environment) {
            row.held_by = Some(run.clone());
        }
        Ok(())
    }

    /// A run no longer holds what it held.
    pub(super) fn let_go(&mut self, run: &RunId) {
        for row in self.environments.values_mut() {
            if row.held_by.as_ref() == Some(run) {
                row.held_by = None;
            }
        }
    }

    pub(super) fn create(&mut self, new: NewRun, now: Timestamp) -> Result<Sequence, JournalError> {
        let name = new.plan.environment.clone();
        if let Some(row) = self.environments.get(&name) {
            let other = |recorded: String, wanted: String| JournalError::OtherTarget {
                environment: name.clone(),
                recorded,
                wanted,
            };
            if row.uid != new.environment_uid {
                return Err(other(format!("uid {}", row.uid), format!("uid {}", new.environment_uid)));
            }
            if row.target != new.target {
                return Err(other(row.target.to_string(), new.target.to_string()));
            }
        }
        if self.runs.contains_key(&new.id) {
            return Err(JournalError::Storage { doing: "written", source: Box::new(Taken(new.id)) });
        }
        self.hold(&name, &new.id)?;
        self.environments.entry(name.clone()).or_insert_with(|| EnvironmentRow {
            name,
            uid: new.environment_uid.clone(),
            target: new.target.clone(),
            held_by: Some(new.id.clone()),
            created_at: new.at,
        });
        let stored = Stored {
            number: self.runs.len(),
            plan: new.plan,
            plan_digest: new.plan_digest,
            environment_uid: new.environment_uid,
            destroy: new.destroy,
            created_at: new.at,
            status: RunStatus::Running,
            epoch: 1,
            owner: Some(new.owner.clone()),
            held: Some(Held { owner: new.owner, since: now }),
            events: Vec::new(),
            run_payload: Vec::new(),
            steps: BTreeMap::new(),
        };
        self.runs.insert(new.id.clone(), stored);
        self.write(&new.id, new.first, now)?;
        Ok(self.run(&new.id)?.head())
    }

    pub(super) fn write(&mut self, id: &RunId, batch: Batch, now: Timestamp) -> Result<(), JournalError> {
        let stored = self.run_mut(id)?;
        for event in batch.events {
            let sequence = stored.head() + 1;
            let kind = event.kind.to_owned();
            let EncodedEvent { step, payload, .. } = event;
            stored.events.push(StoredEvent { sequence, kind, step, payload, recorded_at: now });
        }
        for row in batch.steps {
            stored.steps.insert(row.step.clone(), row);
        }
        if let Some(status) = batch.status {
            stored.status = status;
        }
        if let Some(payload) = batch.run_payload {
            stored.run_payload = payload;
        }
        let uid = stored.environment_uid.clone();
        for change in batch.record {
            match change {
                RecordChange::Own { step } => self.put((uid.clone(), step), Recorded::Own(id.clone())),
                RecordChange::Put(row) => self.put((uid.clone(), row.step.clone()), Recorded::Explicit(row)),
                RecordChange::Gone { step, next_generation } => {
                    let key = (uid.clone(), step);
                    self.record.remove(&key);
                    self.forgotten.remove(&key);
                    self.generations.insert(key, next_generation);
                }
                RecordChange::Forgotten { step, next_generation } => {
                    let key = (uid.clone(), step);
                    self.record.remove(&key);
                    self.forgotten.insert(key.clone());
                    self.generations.insert(key, next_generation);
                }
            }
        }
        if batch.releases_environment {
            self.let_go(id);
        }
        Ok(())
    }

    fn put(&mut self, key: (EnvironmentUid, StepName), row: Recorded) {
        self.generations.remove(&key);
        self.forgotten.remove(&key);
        self.record.insert(key, row);
    }

    pub(super) fn record_rows(
        &self,
        environment: &EnvironmentUid,
        except: Option<&RunId>,
    ) -> Result<Vec<RecordRow>, JournalError> {
        let mut rows = Vec::new();
        for ((_, step), recorded) in self.record.iter().filter(|((uid, _), _)| uid == environment) {
            let row = match recorded {
                Recorded::Explicit(row) => RecordRow::Explicit(row.clone()),
                Recorded::Own(run) => self.own(run, step)?,
            };
            let run = match &row {
                RecordRow::Explicit(row) => &row.run,
                RecordRow::Own { run, .. } => run,
            };
            if except != Some(run) {
                rows.push(row);
            }
        }
        Ok(rows)
    }

    fn own(&self, run: &RunId, step: &StepName) -> Result<RecordRow, JournalError> {
        let stored = self.run(run)?;
        let planned = stored.plan.steps.iter().find(|planned| planned.name == *step);
        let row = stored.steps.get(step);
        let (Some(planned), Some(row)) = (planned, row) else {
            return Err(JournalError::Damaged(format!("the record of {step} is run {run}, which does not have it")));
        };
        let (planned, row) = (Box::new(planned.clone()), Box::new(stored.loaded(row)));
        Ok(RecordRow::Own { run: run.clone(), planned, row })
    }

    pub(super) fn load(&self, id: &RunId) -> Result<LoadedRun, JournalError> {
        let stored = self.run(id)?;
        Ok(LoadedRun {
            summary: stored.summary(id),
            plan: Plan::clone(&stored.plan),
            plan_digest: stored.plan_digest.clone(),
            run_payload: stored.run_payload.clone(),
            steps: stored.steps.values().map(|row| stored.loaded(row)).collect(),
        })
    }

    fn newest(&self) -> Vec<(&RunId, &Stored)> {
        let mut runs: Vec<_> = self.runs.iter().collect();
        runs.sort_by_key(|(_, stored)| std::cmp::Reverse(stored.number));
        runs
    }

    pub(super) fn list(
        &self,
        environment: Option<&EnvironmentName>,
        limit: usize,
    ) -> Result<Vec<RunSummary>, JournalError> {
        let wanted = |stored: &Stored| environment.is_none_or(|name| stored.plan.environment == *name);
        let runs = self.newest().into_iter().filter(|(_, stored)| wanted(stored)).take(limit);
        Ok(runs.map(|(id, stored)| stored.summary(id)).collect())
    }

    pub(super) fn find(&self, prefix: &str) -> Result<RunId, JournalError> {
        let fits: Vec<RunId> =
            self.newest().into_iter().map(|(id, _)| id.clone()).filter(|id| id.as_str().starts_with(prefix)).collect();
        match fits.as_slice() {
            [] => Err(JournalError::NotFound { what: "run", text: prefix.to_owned() }),
            [one] => Ok(one.clone()),
            several => match several.iter().find(|id| id.as_str() == prefix) {
                Some(exact) => Ok(exact.clone()),
                None => Err(JournalError::Ambiguous {
                    prefix: prefix.to_owned(),
                    matches: several.iter().take(10).cloned().collect(),
                }),
            },
        }
    }
}
