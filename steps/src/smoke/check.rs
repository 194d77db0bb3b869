//! The three verbs of a smoke check, once: leftovers away, check, evidence noted, everything removed and proven gone.

use crate::contract::{Made, Record, Seen, StepKind};
use crate::kubernetes::api::{Api, ObjectKey};
use crate::kubernetes::objects::{self, Removal, text};
use crate::kubernetes::{Clients, ClusterAccess};
use async_trait::async_trait;
use platflow_engine::context::Context;
use platflow_engine::failure::{Residue, StepError};
use platflow_engine::step::{Ownership, UndoProgress};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// What a check found.
pub(super) enum Finding {
    /// It holds; the evidence.
    Proved(Value),
    /// Not yet: why.
    NotYet(String),
    /// It does not hold.
    Broken(String),
}

/// What tells one check from another.
#[async_trait]
pub(super) trait Check: Send + Sync + 'static {
    type Spec: DeserializeOwned + JsonSchema + Send + Sync;
    const NAME: &'static str;
    const SUMMARY: &'static str;

    fn cluster(spec: &Self::Spec) -> &ClusterAccess;

    /// Whether it works in a namespace of its own.
    fn wants_namespace(_spec: &Self::Spec) -> bool {
        false
    }

    /// Checks. It is called again until it proves or breaks; `namespace` exists if it was wanted.
    async fn check(&self, api: &Api<'_>, spec: &Self::Spec, namespace: &str) -> Result<Finding, StepError>;

    /// Removes what it made outside its namespace.
    async fn clean(&self, _api: &Api<'_>, _spec: &Self::Spec) -> Result<(), StepError> {
        Ok(())
    }
}

/// What was proven.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(super) struct SmokeOutputs {
    /// The run that proved it.
    pub run: String,
    /// When, on the engine's clock.
    pub at: String,
    /// What was seen.
    pub evidence: Value,
}

/// See the file.
pub(super) struct SmokeKind<C> {
    clients: Arc<Clients>,
    check: C,
}

const POLL: Duration = Duration::from_secs(2);
const BUDGET: Duration = Duration::from_secs(5 * 60);

impl<C: Check> SmokeKind<C> {
    pub(super) fn new(clients: Arc<Clients>, check: C) -> Self {
        Self { clients, check }
    }

    /// Brings up the throw-away namespace of this run; a reason while it is not there.
    async fn prepare(&self, api: &Api<'_>, key: &ObjectKey) -> Result<Option<String>, StepError> {
        let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": key.name, "labels": labels}});
        if let Some(standing) = objects::stand(api, key, &namespace, None).await? {
            if let Ownership::Foreign(owner) = &standing.ownership {
                return Err(objects::foreign(key, owner));
            }
            let run = text(&standing.stored, "/metadata/annotations/platflow.io~1run");
            if standing.is_leaving() || run != api.context.run.as_str() {
                return Ok(match objects::remove(api, key, None, "Background").await? {
                    Removal::Going(reason) => Some(format!("left over from an earlier attempt: {reason}")),
                    Removal::Gone(_) => Some("the leftovers of an earlier run are gone".to_owned()),
                });
            }
        } else {
            objects::put(api, key, &namespace, None).await?;
        }
        // Pods are refused until the controllers have made the default service account.
        let account = ObjectKey::namespaced("v1", "ServiceAccount", &key.name, "default");
        Ok(api.get(&account).await?.is_none().then(|| format!("{account} has not been made yet")))
    }

    /// Removes everything; a reason while something is left.
    async fn clean(&self, api: &Api<'_>, spec: &C::Spec, key: &ObjectKey) -> Result<Option<String>, StepError> {
        self.check.clean(api, spec).await?;
        if !C::wants_namespace(spec) {
            return Ok(None);
        }
        match objects::remove(api, key, None, "Background").await? {
            Removal::Going(reason) => Ok(Some(reason)),
            Removal::Gone(_) => Ok(None),
        }
    }
}

fn throw_away(context: &Context) -> ObjectKey {
    let short: String = context.token("smoke").chars().take(8).collect();
    ObjectKey::global("v1", "Namespace", &format!("platflow-smoke-{short}"))
}

/// Evidence is noted under the run: a crash between proof and clean-up does not repeat the proof.
fn note_key(context: &Context) -> String {
    format!("evidence/{}", context.run)
}

fn waiting<O>(reason: String) -> Made<O> {
    Made::Waiting { reason, poll_in: POLL, budget: BUDGET }
}

#[async_trait]
impl<C: Check> StepKind for SmokeKind<C> {
    type Spec = C::Spec;
    type Outputs = SmokeOutputs;

    const NAME: &'static str = C::NAME;
    const SUMMARY: &'static str = C::SUMMARY;
    const EXPECTED: Duration = Duration::from_secs(10);

    async fn observe(
        &self,
        _spec: &C::Spec,
        record: &Record<SmokeOutputs>,
        context: &Context,
    ) -> Result<Seen<SmokeOutputs>, StepError> {
        Ok(match &record.outputs {
            Some(outputs) if outputs.run == context.run.as_str() => {
                Seen::Present { outputs: outputs.clone(), ownership: Ownership::Ours, differences: Vec::new() }
            }
            _ => Seen::Absent,
        })
    }

    async fn apply(
        &self,
        spec: &C::Spec,
        _seen: &Seen<SmokeOutputs>,
        record: &Record<SmokeOutputs>,
        context: &Context,
    ) -> Result<Made<SmokeOutputs>, StepError> {
        let api = Api::new(&self.clients, C::cluster(spec), context)?;
        let key = throw_away(context);
        let noted = record.notes.get(&note_key(context)).and_then(|note| SmokeOutputs::deserialize(note).ok());
        let outputs = match noted {
            Some(outputs) => outputs,
            None => {
                if C::wants_namespace(spec)
                    && let Some(reason) = self.prepare(&api, &key).await?
                {
                    return Ok(waiting(reason));
                }
                let evidence = match self.check.check(&api, spec, &key.name).await? {
                    Finding::Proved(evidence) => evidence,
                    Finding::NotYet(reason) => return Ok(waiting(reason)),
                    Finding::Broken(what) => {
                        return Err(StepError::permanent(what).leaving(Residue::Unknown).with_code("SmokeTestFailed"));
                    }
                };
                let outputs = SmokeOutputs { run: context.run.to_string(), at: context.now().to_string(), evidence };
                let note = serde_json::to_value(&outputs).unwrap_or_default();
                context.note(&note_key(context), note).await?;
                outputs
            }
        };
        Ok(match self.clean(&api, spec, &key).await? {
            Some(reason) => waiting(reason),
            None => Made::Done(outputs),
        })
    }

    async fn undo(
        &self,
        spec: &C::Spec,
        record: &Record<SmokeOutputs>,
        context: &Context,
    ) -> Result<UndoProgress, StepError> {
        // A check that is done has already removed everything and proven it.
        if record.outputs.as_ref().is_some_and(|outputs| outputs.run == context.run.as_str()) && !record.uncertain {
            return Ok(UndoProgress::Gone { evidence: "the check removed what it made when it was done".to_owned() });
        }
        let api = Api::new(&self.clients, C::cluster(spec), context)?;
        Ok(match self.clean(&api, spec, &throw_away(context)).await? {
            Some(reason) => UndoProgress::Waiting { reason, poll_in: POLL, budget: BUDGET },
            None => UndoProgress::Gone { evidence: "nothing of the check is left".to_owned() },
        })
    }
}
