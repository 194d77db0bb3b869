//! What a preflight is told about a run that has not begun: its steps with their specs as far as they are known, and the
//! node pools among them. What is only known after a step was applied is null.

use jiff::Timestamp;
use platflow_engine::plan::OnFailure;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A run that has not begun.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The runbook.
    pub workflow: String,
    /// What it builds.
    pub environment: String,
    /// The environment's uid, once it has one.
    pub environment_uid: Option<String>,
    /// Whether it is production, by its name or the runbook's.
    pub production: bool,
    /// Whether the sandbox stands for the account.
    pub sandbox: bool,
    /// Now, on the engine's clock.
    pub now: Timestamp,
    /// How long it is expected to take, along the longest path.
    pub expected: Duration,
    /// What happens when a step fails for good.
    pub on_failure: OnFailure,
    /// Its steps that are not skipped, in the plan's order.
    pub steps: Vec<SubjectStep>,
}

/// A step of it.
#[derive(Debug, Clone)]
pub struct SubjectStep {
    /// Its path name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Its spec; null where it is known only later.
    pub spec: Value,
    /// JSON pointers to those parts of it.
    pub unknown: BTreeSet<String>,
    /// Its outputs on record: it was built before.
    pub outputs: Option<Value>,
    /// What must be verified before it.
    pub needs: Vec<String>,
}

impl SubjectStep {
    /// A text of its spec by JSON pointer.
    #[must_use]
    pub fn text(&self, pointer: &str) -> Option<&str> {
        self.spec.pointer(pointer).and_then(Value::as_str)
    }

    /// The texts of a list of its spec.
    #[must_use]
    pub fn texts(&self, pointer: &str) -> Vec<String> {
        let list = self.spec.pointer(pointer).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// A number of its spec.
    #[must_use]
    pub fn number(&self, pointer: &str) -> Option<i64> {
        self.spec.pointer(pointer).and_then(Value::as_i64)
    }

    /// Whether a field of its spec is given neither now nor later.
    #[must_use]
    pub fn lacks(&self, pointer: &str) -> bool {
        self.spec.pointer(pointer).is_none_or(Value::is_null) && !self.unknown.contains(pointer)
    }

    /// Whether a field of its spec is true.
    #[must_use]
    pub fn is(&self, pointer: &str) -> bool {
        self.spec.pointer(pointer).and_then(Value::as_bool).unwrap_or(false)
    }

    /// The part of its name before the last dot: the module that it came from.
    #[must_use]
    pub fn parent(&self) -> &str {
        self.name.rsplit_once('.').map_or("", |(parent, _)| parent)
    }
}

/// A group of nodes as it is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// The step.
    pub step: String,
    /// Its name.
    pub name: String,
    /// Types that it may run on.
    pub instance_types: Vec<String>,
    /// The kind of image, e.g. `AL2023_x86_64_STANDARD`.
    pub ami_type: String,
    /// Bought on the spot market.
    pub spot: bool,
    /// Fewest, wanted and most nodes.
    pub counts: (i64, i64, i64),
    /// Disk per node in GiB, where its launch template tells.
    pub disk_gib: Option<i64>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Key and effect of each taint.
    pub taints: Vec<(String, String)>,
    /// Whether it is on record already.
    pub built: bool,
}

impl Pool {
    /// Whether pods without tolerations are placed on it.
    #[must_use]
    pub fn takes_anything(&self) -> bool {
        self.taints.iter().all(|(_, effect)| effect == "PREFER_NO_SCHEDULE")
    }

    /// Wanted nodes, none if the number makes no sense.
    #[must_use]
    pub fn desired(&self) -> u64 {
        u64::try_from(self.counts.1).unwrap_or(0)
    }

    /// Most nodes.
    #[must_use]
    pub fn most(&self) -> u64 {
        u64::try_from(self.counts.2).unwrap_or(0)
    }
}

impl Subject {
    /// Steps of a kind.
    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a SubjectStep> {
        self.steps.iter().filter(move |step| step.kind == kind)
    }

    /// Whether there is a step of a kind.
    #[must_use]
    pub fn has(&self, kind: &str) -> bool {
        self.of_kind(kind).next().is_some()
    }

    /// Whether there is a step of a kind that is not on record yet.
    #[must_use]
    pub fn builds(&self, kind: &str) -> bool {
        self.of_kind(kind).any(|step| step.outputs.is_none())
    }

    /// The texts at `pointer` in the specs of a kind, each with its step.
    pub fn named<'a>(&'a self, kind: &'a str, pointer: &'a str) -> impl Iterator<Item = (&'a SubjectStep, &'a str)> {
        self.of_kind(kind).filter_map(move |step| Some((step, step.text(pointer)?)))
    }

    /// The groups of nodes.
    #[must_use]
    pub fn pools(&self) -> Vec<Pool> {
        self.of_kind("aws.node_group").map(|step| self.pool(step)).collect()
    }

    fn pool(&self, step: &SubjectStep) -> Pool {
        let beside = |template: &&SubjectStep| !step.parent().is_empty() && template.parent() == step.parent();
        let count = |field: &str| step.number(field).unwrap_or(0);
        let labels = step.spec.get("labels").and_then(Value::as_object);
        let taints = step.spec.get("taints").and_then(Value::as_array);
        let word = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        Pool {
            step: step.name.clone(),
            name: step.text("/name").unwrap_or(&step.name).to_owned(),
            instance_types: step.texts("/instance_types"),
            ami_type: step.text("/ami_type").unwrap_or_default().to_owned(),
            spot: step.text("/capacity") == Some("SPOT"),
            counts: (count("/min"), count("/desired"), count("/max")),
            disk_gib: self.of_kind("aws.launch_template").find(beside).and_then(|one| one.number("/disk_gib")),
            labels: labels
                .into_iter()
                .flatten()
                .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
                .collect(),
            taints: taints.into_iter().flatten().map(|taint| (word(taint, "key"), word(taint, "effect"))).collect(),
            built: step.outputs.is_some(),
        }
    }
}
