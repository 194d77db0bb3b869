//! Many objects as one: what a manifest holds, looked at, applied in order, and taken away in waves.
//!
//! Definitions are established before what they define is applied. Callers decide what else must be true.

use super::api::{Api, ObjectKey};
use super::documents;
use super::objects::{self, Removal, Standing, foreign, holding, items, replacement, text};
use super::rollout::{Rollout, rollout};
use crate::contract::{Made, Seen};
use futures::{StreamExt, TryStreamExt};
use platflow_engine::context::Context;
use platflow_engine::failure::{ErrorClass, Residue, StepError};
use platflow_engine::step::{Difference, Ownership, UndoProgress};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

const PARALLEL_READS: usize = 8;
const DEFINITION_POLL: Duration = Duration::from_secs(1);
const DEFINITION_BUDGET: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_secs(2);
const ROLLOUT_BUDGET: Duration = Duration::from_secs(15 * 60);
const REMOVAL_BUDGET: Duration = Duration::from_secs(10 * 60);

impl<O> Seen<O> {
    /// The same look with other outputs.
    pub(crate) fn map<P>(self, outputs_of: impl FnOnce(O) -> P) -> Seen<P> {
        match self {
            Self::Absent => Seen::Absent,
            Self::Present { outputs, ownership, differences } => {
                Seen::Present { outputs: outputs_of(outputs), ownership, differences }
            }
            Self::Changing { reason, poll_in } => Seen::Changing { reason, poll_in },
            Self::Unknown { reason } => Seen::Unknown { reason },
        }
    }
}

impl<O> Made<O> {
    /// The same progress with other outputs.
    pub(crate) fn map<P>(self, outputs_of: impl FnOnce(O) -> P) -> Made<P> {
        match self {
            Self::Done(outputs) => Made::Done(outputs_of(outputs)),
            Self::Waiting { reason, poll_in, budget } => Made::Waiting { reason, poll_in, budget },
        }
    }
}

/// An object that exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ObjectOutput {
    /// For example `apps/v1`.
    pub api_version: String,
    /// For example `Deployment`.
    pub kind: String,
    /// Absent for what lives in no namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

impl ObjectOutput {
    fn key(&self) -> ObjectKey {
        ObjectKey {
            api_version: self.api_version.clone(),
            kind: self.kind.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }
}

/// Uids on record, by object.
pub(crate) type Recorded = BTreeMap<ObjectKey, String>;

/// The uids of the objects on record.
pub(crate) fn recorded(outputs: Option<&[ObjectOutput]>) -> Recorded {
    outputs.unwrap_or_default().iter().map(|output| (output.key(), output.uid.clone())).collect()
}

/// The note of what is about to be applied.
const ANNOUNCED: &str = "objects";

/// All that may be there: the objects on record, and those that an attempt was about to apply. Uids of the latter are
/// unknown: their labels decide.
pub(crate) fn recorded_or_announced(
    outputs: Option<&[ObjectOutput]>,
    notes: &BTreeMap<String, Value>,
) -> Result<Recorded, StepError> {
    let mut all = Recorded::new();
    if let Some(note) = notes.get(ANNOUNCED) {
        let announced = Vec::<ObjectOutput>::deserialize(note)
            .map_err(|error| StepError::needs_human(format!("the note of what was applied cannot be read: {error}")))?;
        all.extend(recorded(Some(&announced)));
    }
    all.extend(recorded(outputs));
    Ok(all)
}

/// Objects in the order of their application.
#[derive(Debug)]
pub(crate) struct Bundle {
    items: Vec<(ObjectKey, Value)>,
}

/// How a bundle stands.
#[derive(Debug)]
pub(crate) struct Survey {
    standings: Vec<Option<Standing>>,
}

impl Bundle {
    /// Orders the objects and gives namespaced ones without a namespace the default one.
    pub(crate) async fn prepare(
        api: &Api<'_>,
        mut found: Vec<Value>,
        namespace: Option<&str>,
        replace: Option<(&str, &str)>,
    ) -> Result<Self, StepError> {
        if let Some((from, to)) = replace {
            found.iter_mut().for_each(|object| documents::replace_namespace(object, from, to));
        }
        found.sort_by_key(documents::rank);
        let defined: BTreeMap<(String, String), bool> = found.iter().flat_map(definitions).collect();
        let mut items = Vec::with_capacity(found.len());
        for mut object in found {
            let (api_version, kind) = (text(&object, "/apiVersion").to_owned(), text(&object, "/kind").to_owned());
            let namespaced = match defined.get(&(api_version.clone(), kind.clone())) {
                Some(namespaced) => Some(*namespaced),
                None => api.served(&api_version, &kind).await?.map(|served| served.namespaced),
            };
            let own = text(&object, "/metadata/namespace").to_owned();
            let place = match (namespaced, own.is_empty()) {
                (Some(false), _) => None,
                (_, false) => Some(own),
                (Some(true), true) => Some(namespace.unwrap_or("default").to_owned()),
                (None, true) => namespace.map(str::to_owned),
            };
            if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.remove("namespace");
                if let Some(place) = &place {
                    metadata.insert("namespace".to_owned(), place.clone().into());
                }
            }
            if let Some(object) = object.as_object_mut() {
                object.remove("status");
            }
            let name = text(&object, "/metadata/name").to_owned();
            items.push((ObjectKey { api_version, kind, namespace: place, name }, object));
        }
        Ok(Self { items })
    }

    /// The bundle and whatever else is on record: an edited manifest must not leave the old one's objects behind.
    pub(crate) fn with_recorded(mut self, recorded: &Recorded) -> Self {
        let missing = recorded.keys().filter(|key| self.items.iter().all(|(other, _)| other != *key));
        let mut more: Vec<(ObjectKey, Value)> =
            missing.map(|key| (key.clone(), json!({"apiVersion": key.api_version, "kind": key.kind}))).collect();
        // The record may be all there is: what is taken away in reverse must be in the order of application.
        more.sort_by_key(|(_, object)| documents::rank(object));
        self.items.append(&mut more);
        self
    }

    /// Notes what is about to be applied, before any of it is, so that an undo knows it whatever became of the source.
    pub(crate) async fn announce(&self, notes: &BTreeMap<String, Value>, context: &Context) -> Result<(), StepError> {
        let all: Vec<ObjectOutput> = self.items.iter().map(|(key, _)| output(key, "")).collect();
        let all = serde_json::to_value(&all).map_err(|error| {
            StepError::permanent(format!("the list of objects cannot be written: {error}")).leaving(Residue::None)
        })?;
        if notes.get(ANNOUNCED) == Some(&all) { Ok(()) } else { context.note(ANNOUNCED, all).await }
    }

    /// Looks at every object.
    pub(crate) async fn survey(&self, api: &Api<'_>, recorded: &Recorded) -> Result<Survey, StepError> {
        let looks: Vec<_> = self
            .items
            .iter()
            .map(|(key, object)| objects::stand(api, key, object, recorded.get(key).map(String::as_str)))
            .collect();
        let standings = futures::stream::iter(looks).buffered(PARALLEL_READS).try_collect().await?;
        Ok(Survey { standings })
    }

    fn outputs(&self, survey: &Survey) -> Vec<ObjectOutput> {
        let standing = self.items.iter().zip(&survey.standings);
        standing.filter_map(|((key, _), standing)| Some(output(key, standing.as_ref()?.uid()))).collect()
    }

    /// What the survey means. `wait`: rollouts count.
    pub(crate) fn seen(&self, survey: &Survey, wait: bool) -> Seen<Vec<ObjectOutput>> {
        if survey.standings.iter().all(Option::is_none) && !self.items.is_empty() {
            return Seen::Absent;
        }
        let outputs = self.outputs(survey);
        let mut differences = Vec::new();
        let mut pending = None;
        for ((key, _), standing) in self.items.iter().zip(&survey.standings) {
            let place = format!("/objects/{}/{}", key.kind, key.name);
            let Some(standing) = standing else {
                differences.push(difference(place, json!("present"), Value::Null));
                continue;
            };
            if let Ownership::Foreign(owner) = &standing.ownership {
                let ownership = Ownership::Foreign(format!("{key}: {owner}"));
                return Seen::Present { outputs, ownership, differences: Vec::new() };
            }
            if standing.is_leaving() {
                return Seen::Changing { reason: holding(key, &standing.stored), poll_in: POLL };
            }
            differences.extend(standing.differences.iter().cloned().map(|mut found| {
                found.field = format!("{place}{}", found.field);
                found
            }));
            match rollout(&standing.stored) {
                Rollout::Progressing(what) if wait => pending = pending.or(Some(what)),
                Rollout::Failed(what) if wait => differences.push(difference(place, json!("rolled out"), what.into())),
                _ => {}
            }
        }
        match pending {
            Some(reason) if differences.is_empty() => Seen::Changing { reason, poll_in: POLL },
            _ => Seen::Present { outputs, ownership: Ownership::Ours, differences },
        }
    }

    /// Applies what is missing or differs, in order. Nothing is sent when something cannot be.
    pub(crate) async fn apply(
        &self,
        api: &Api<'_>,
        recorded: &Recorded,
        wait: bool,
    ) -> Result<Made<Vec<ObjectOutput>>, StepError> {
        let survey = self.survey(api, recorded).await?;
        for ((key, _), standing) in self.items.iter().zip(&survey.standings) {
            let Some(standing) = standing else { continue };
            if let Ownership::Foreign(owner) = &standing.ownership {
                return Err(foreign(key, owner));
            }
            if let Some(fixed) = standing.differences.iter().find(|difference| difference.replace) {
                return Err(replacement(key, fixed));
            }
            if standing.is_leaving() {
                return Ok(waiting(holding(key, &standing.stored), POLL, REMOVAL_BUDGET));
            }
        }
        let mut outputs = Vec::with_capacity(self.items.len());
        let (mut defining, mut pending) = (None, None);
        let mut put = 0;
        for ((key, object), standing) in self.items.iter().zip(survey.standings) {
            let definition = key.kind == "CustomResourceDefinition";
            if !definition && let Some(reason) = defining.take() {
                return Ok(waiting(reason, DEFINITION_POLL, DEFINITION_BUDGET));
            }
            let stored = match standing {
                Some(standing) if standing.differences.is_empty() => standing.stored,
                standing => match objects::put(api, key, object, standing.as_ref()).await {
                    Ok(stored) => {
                        put += 1;
                        stored
                    }
                    // What was applied stays applied: the next look goes on from there, without another attempt.
                    Err(error) if put > 0 && is_passing(&error) => {
                        let reason = format!("{put} objects applied, then {}", error.message);
                        return Ok(waiting(reason, POLL, ROLLOUT_BUDGET));
                    }
                    Err(error) => return Err(error),
                },
            };
            outputs.push(output(key, text(&stored, "/metadata/uid")));
            match rollout(&stored) {
                Rollout::Progressing(what) if definition => defining = defining.or(Some(what)),
                Rollout::Progressing(what) if wait => pending = pending.or(Some(what)),
                Rollout::Failed(what) if wait || definition => {
                    return Err(StepError::permanent(format!("{what} (it was given up)"))
                        .leaving(Residue::Present)
                        .with_code("RolloutFailed")
                        .with_remedy("look at its pods and events, correct the cause, then retry the step"));
                }
                _ => {}
            }
        }
        if let Some(reason) = defining {
            return Ok(waiting(reason, DEFINITION_POLL, DEFINITION_BUDGET));
        }
        match pending {
            Some(reason) => Ok(waiting(reason, POLL, ROLLOUT_BUDGET)),
            None => Ok(Made::Done(outputs)),
        }
    }

    /// Takes our objects away in waves: what controllers must still finish first, definitions and namespaces last.
    pub(crate) async fn remove(&self, api: &Api<'_>, recorded: &Recorded) -> Result<UndoProgress, StepError> {
        let mut evidence = Vec::new();
        for wave in 0..=LAST_WAVE {
            let mut going = None;
            for (key, _) in self.items.iter().rev().filter(|(key, _)| wave_of(key) == wave) {
                let propagation = if is_workload(key) { "Foreground" } else { "Background" };
                match objects::remove(api, key, recorded.get(key).map(String::as_str), propagation).await? {
                    Removal::Gone(proof) => evidence.push(proof),
                    Removal::Going(reason) => going = going.or(Some(explained(api, key, reason).await?)),
                }
            }
            if let Some(reason) = going {
                return Ok(UndoProgress::Waiting { reason, poll_in: POLL, budget: REMOVAL_BUDGET });
            }
        }
        Ok(UndoProgress::Gone { evidence: evidence.join("; ") })
    }
}

/// A definition's own conditions never name the instance that holds it: look for it.
async fn explained(api: &Api<'_>, key: &ObjectKey, reason: String) -> Result<String, StepError> {
    if key.kind != "CustomResourceDefinition" {
        return Ok(reason);
    }
    let Some(stored) = api.get(key).await? else { return Ok(reason) };
    for ((api_version, kind), _) in definitions(&stored) {
        for instance in api.list(&api_version, &kind, None, "").await? {
            let finalizers: Vec<&str> =
                items(&instance, "/metadata/finalizers").iter().filter_map(Value::as_str).collect();
            if !finalizers.is_empty() {
                let place = format!("{}/{}", text(&instance, "/metadata/namespace"), text(&instance, "/metadata/name"));
                return Ok(format!("{reason}: {kind} {place} is held by finalizer {}", finalizers.join(", ")));
            }
        }
    }
    Ok(reason)
}

const LAST_WAVE: usize = 4;

fn wave_of(key: &ObjectKey) -> usize {
    match key.kind.as_str() {
        "Namespace" => 4,
        "CustomResourceDefinition" => 3,
        "APIService" | "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => 1,
        // Groups with a dot that are not Kubernetes' own are custom resources: their controllers must still be there.
        _ if key.api_version.contains('.') && !key.api_version.contains(".k8s.io/") => 0,
        _ => 2,
    }
}

fn is_workload(key: &ObjectKey) -> bool {
    matches!(key.kind.as_str(), "Deployment" | "StatefulSet" | "DaemonSet" | "Job" | "CronJob" | "ReplicaSet")
}

/// What a definition defines: (apiVersion, kind) and whether it lives in namespaces.
fn definitions(object: &Value) -> Vec<((String, String), bool)> {
    if text(object, "/kind") != "CustomResourceDefinition" {
        return Vec::new();
    }
    let (group, kind) = (text(object, "/spec/group"), text(object, "/spec/names/kind"));
    let namespaced = text(object, "/spec/scope") == "Namespaced";
    let versions = items(object, "/spec/versions").iter();
    versions.map(|version| ((format!("{group}/{}", text(version, "/name")), kind.to_owned()), namespaced)).collect()
}

fn output(key: &ObjectKey, uid: &str) -> ObjectOutput {
    ObjectOutput {
        api_version: key.api_version.clone(),
        kind: key.kind.clone(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        uid: uid.to_owned(),
    }
}

fn is_passing(error: &StepError) -> bool {
    matches!(error.class, ErrorClass::Transient | ErrorClass::Throttled)
}

fn difference(field: String, wanted: Value, found: Value) -> Difference {
    Difference { field, wanted, found, replace: false }
}

fn waiting<O>(reason: String, poll_in: Duration, budget: Duration) -> Made<O> {
    Made::Waiting { reason, poll_in, budget }
}
