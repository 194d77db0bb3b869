//! What the engine and the runbook language know about a kind of step without running it.
//!
//! `steps/` publishes one [`KindDescription`] per kind; the language checks runbooks against the schemas, the engine
//! takes settle windows and expected durations from here.

use crate::name::KindName;
use crate::step::Step;
use crate::survey::Survey;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The default way to undo steps of a kind; a runbook may choose `keep`, or `with: <step>` where the kind allows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UndoDefault {
    /// By its own `undo`.
    Own,
    /// It cannot be undone.
    Impossible,
}

/// A kind of step as seen from outside.
#[derive(Debug, Clone)]
pub struct KindDescription {
    /// E.g. `aws.vpc`.
    pub name: KindName,
    /// One sentence for the reference.
    pub summary: &'static str,
    /// JSON Schema (2020-12) of the spec. `additionalProperties: false` on every object.
    pub spec_schema: Value,
    /// JSON Schema of the outputs.
    pub outputs_schema: Value,
    /// How its steps are undone unless the runbook says otherwise.
    pub undo: UndoDefault,
    /// How long after an uncertain call an absence may still be read lag. Zero where the call carries a token or the
    /// name is unique and reads are consistent.
    pub settle: Duration,
    /// Expected duration, for the critical path and the estimate.
    pub expected: Duration,
    /// Undoing it destroys data that cannot be rebuilt (a KMS key, Vault's storage): wants a confirmation.
    pub holds_data: bool,
}

/// All kinds, with what runs them.
#[derive(Clone, Default)]
pub struct Catalog {
    kinds: BTreeMap<KindName, (KindDescription, Arc<dyn Step>)>,
    surveys: Vec<Arc<dyn Survey>>,
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_set().entries(self.kinds.keys()).finish()
    }
}

impl Catalog {
    /// Adds a kind; a second kind of the same name replaces the first (tests use this to fake one).
    pub fn insert(&mut self, description: KindDescription, step: Arc<dyn Step>) {
        self.kinds.insert(description.name.clone(), (description, step));
    }

    /// The description of a kind.
    #[must_use]
    pub fn description(&self, kind: &KindName) -> Option<&KindDescription> {
        self.kinds.get(kind).map(|(description, _)| description)
    }

    /// What runs a kind.
    #[must_use]
    pub fn step(&self, kind: &KindName) -> Option<Arc<dyn Step>> {
        self.kinds.get(kind).map(|(_, step)| Arc::clone(step))
    }

    /// Adds a search for what is left; every family of kinds that leaves something brings its own.
    pub fn add_survey(&mut self, survey: Arc<dyn Survey>) {
        self.surveys.push(survey);
    }

    /// Every search that a rollback ends with.
    #[must_use]
    pub fn surveys(&self) -> &[Arc<dyn Survey>] {
        &self.surveys
    }

    /// All descriptions, by name.
    pub fn descriptions(&self) -> impl Iterator<Item = &KindDescription> {
        self.kinds.values().map(|(description, _)| description)
    }
}
