//! The survey port: a search for what is left of an environment, made by other calls than those that took it away.
//!
//! A rollback or destroy ends only with a [`ResidueCertificate`] on which nothing of ours is left. Where to search, and by
//! which calls, is the implementors' (`steps/`); what follows from the answers is `drive`'s. Nothing here changes the world.

use crate::event::Notes;
use crate::failure::StepError;
use crate::fold::Run;
use crate::journal::{Journal, JournalError, RecordedStep};
use crate::name::{EnvironmentName, EnvironmentUid, KindName, RunId, StepName};
use crate::state::Phase;
use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Searches one part of the world (a cloud account, a cluster) for what is left.
#[async_trait]
pub trait Survey: Send + Sync + 'static {
    /// Makes every search anew; reads only. It does not trust the record that something is gone, only that something is
    /// meant to stay.
    ///
    /// # Errors
    /// When a search could not be made: then nothing is proven.
    async fn survey(&self, scope: &Scope) -> Result<Findings, StepError>;
}

/// What a survey is told: whose remains to look for, where they were, and what is meant to stay.
#[derive(Debug, Clone, PartialEq)]
pub struct Scope {
    /// The environment.
    pub environment: EnvironmentName,
    /// Its uid, on the tags of everything that is ours.
    pub environment_uid: EnvironmentUid,
    /// The run that takes it away.
    pub run: RunId,
    /// When the environment was first seen: what is older was not made because of it.
    pub since: Option<Timestamp>,
    /// Every step of the run, and every other one on record.
    pub steps: Vec<ScopedStep>,
}

/// A step as a survey needs it.
#[derive(Debug, Clone, PartialEq)]
pub struct ScopedStep {
    /// Its name, on the tags of its resource.
    pub name: StepName,
    /// Its kind.
    pub kind: KindName,
    /// The spec it was made with, if it ever was.
    pub spec: Option<Value>,
    /// Its outputs, if it had any.
    pub outputs: Option<Value>,
    /// Ids noted while it was made.
    pub notes: Notes,
    /// Why its resource is meant to stay; without it, the resource must be gone.
    pub stays: Option<String>,
}

impl Scope {
    /// A step by name.
    #[must_use]
    pub fn step(&self, name: &str) -> Option<&ScopedStep> {
        self.steps.iter().find(|step| step.name.as_str() == name)
    }

    /// Steps of a kind.
    pub fn of_kind(&self, kind: &str) -> impl Iterator<Item = &ScopedStep> {
        self.steps.iter().filter(move |step| step.kind.as_str() == kind)
    }

    /// What is to be said of something that carries our uid and this step's name.
    #[must_use]
    pub fn standing_of(&self, step: Option<&str>) -> Standing {
        match step.and_then(|step| self.step(step)).and_then(|step| step.stays.clone()) {
            Some(reason) => Standing::Kept { reason },
            None => Standing::Left,
        }
    }
}

/// One search that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Search {
    /// The call, e.g. `ec2:DescribeNetworkInterfaces`.
    pub call: String,
    /// Where it looked, in words: the filter of the call.
    pub filter: String,
    /// How many things it showed.
    pub found: usize,
    /// Why the search could not be made any more, if so: it then proves nothing, and says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_made: Option<String>,
}

/// Why something that was found is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "standing", rename_all = "kebab-case")]
pub enum Standing {
    /// Of ours, and meant to be gone: the rollback is not complete.
    Left,
    /// Of ours, and meant to stay.
    Kept {
        /// By which declaration.
        reason: String,
    },
    /// Of ours, and going away by itself on a date.
    Expiring {
        /// When.
        on: String,
    },
    /// It has the name of something of ours, but belongs to somebody else.
    Foreign {
        /// To whom.
        owner: String,
    },
}

/// Something that a survey found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remnant {
    /// Its type in the words of its cloud, e.g. `ec2:volume`.
    pub resource: String,
    /// Its id or ARN.
    pub id: String,
    /// Which step it carries the name of, or who made it.
    pub maker: String,
    /// Why it is there.
    #[serde(flatten)]
    pub standing: Standing,
}

/// What a survey came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Every search, also those that found nothing: they are the proof.
    pub searches: Vec<Search>,
    /// What was found.
    pub remnants: Vec<Remnant>,
}

impl Findings {
    /// Adds what another survey, or another search, found; the same thing found twice is one remnant.
    pub fn add(&mut self, other: Self) {
        self.searches.extend(other.searches);
        for remnant in other.remnants {
            self.remnant(remnant);
        }
    }

    /// Adds a search.
    pub fn search(&mut self, call: impl Into<String>, filter: impl Into<String>, found: usize) {
        self.searches.push(Search { call: call.into(), filter: filter.into(), found, not_made: None });
    }

    /// Adds a search that cannot be made any more, because what it takes was itself undone.
    pub fn not_made(&mut self, call: impl Into<String>, filter: impl Into<String>, reason: impl Into<String>) {
        let (call, filter) = (call.into(), filter.into());
        self.searches.push(Search { call, filter, found: 0, not_made: Some(reason.into()) });
    }

    /// Adds something found, once.
    pub fn remnant(&mut self, remnant: Remnant) {
        if !self.remnants.iter().any(|known| known.resource == remnant.resource && known.id == remnant.id) {
            self.remnants.push(remnant);
        }
    }
}

/// The proof that ends a rollback: what was searched, by which calls, when, and what was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResidueCertificate {
    /// When the last look was made, on the engine's clock.
    pub at: Timestamp,
    /// How many looks it took: indexes lag, and some things drain for minutes.
    pub looks: u32,
    /// Every search of the last look.
    pub searches: Vec<Search>,
    /// Everything that the last look found.
    pub remnants: Vec<Remnant>,
}

impl ResidueCertificate {
    /// What should be gone and is not.
    pub fn left(&self) -> impl Iterator<Item = &Remnant> {
        self.remnants.iter().filter(|remnant| remnant.standing == Standing::Left)
    }

    /// True when nothing of ours is left but what was declared to stay or goes by itself.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.left().next().is_none()
    }
}

/// Everything that the searches need to know, from the run and from what the journal holds now.
///
/// # Errors
/// When the journal cannot be read.
pub async fn scope(journal: &Arc<dyn Journal>, run: &Run) -> Result<Scope, JournalError> {
    let uid = run.state.environment_uid.clone();
    let record: BTreeMap<StepName, RecordedStep> =
        journal.record(&uid).await?.into_iter().map(|row| (row.step.clone(), row)).collect();
    let forgotten: BTreeSet<StepName> = journal.forgotten(&uid).await?.into_iter().collect();
    let since = journal.environment(&run.state.environment).await?.map(|row| row.created_at);
    let forgot = |name: &StepName| forgotten.contains(name).then(|| "the operator had it forgotten".to_owned());
    let on_record = |row: &RecordedStep| format!("it is on record, by run {}", row.run);
    let mut steps: Vec<ScopedStep> = run
        .steps()
        .map(|(step, state)| {
            let recorded = record.get(&step.name);
            let stays = match &state.phase {
                Phase::Kept { reason } => Some(reason.clone()),
                _ => recorded.map(on_record).or_else(|| forgot(&step.name)),
            };
            let mut notes = recorded.map(|row| row.notes.clone()).unwrap_or_default();
            notes.extend(state.notes.clone());
            ScopedStep {
                name: step.name.clone(),
                kind: step.kind.clone(),
                spec: state.spec.clone().or_else(|| recorded.map(|row| row.spec.clone())),
                outputs: state.outputs.clone().or_else(|| recorded.and_then(|row| row.outputs.clone())),
                notes,
                stays,
            }
        })
        .collect();
    for (name, row) in record {
        if run.step(&name).is_none() {
            let stays = Some(on_record(&row));
            let RecordedStep { step: name, kind, spec, outputs, notes, .. } = row;
            steps.push(ScopedStep { name, kind, spec: Some(spec), outputs, notes, stays });
        }
    }
    for name in &forgotten {
        if !steps.iter().any(|step| step.name == *name)
            && let Ok(kind) = KindName::new("forgotten.step")
        {
            let (name, stays) = (name.clone(), forgot(name));
            steps.push(ScopedStep { name, kind, spec: None, outputs: None, notes: Notes::new(), stays });
        }
    }
    let (environment, run) = (run.state.environment.clone(), run.id.clone());
    Ok(Scope { environment, environment_uid: uid, run, since, steps })
}
