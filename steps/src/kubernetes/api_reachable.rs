//! `kubernetes.api_reachable`: an ACTIVE cluster whose endpoint really answers us, and which cluster it is.
//!
//! DNS, TLS against the cluster's CA, readiness and authorisation are proven one after the other: a managed control
//! plane reports itself active before all of them hold.

use super::api::{Api, ObjectKey};
use super::clients::{Clients, ClusterAccess};
use super::failure::{Failure, Meaning};
use super::objects::text;
use crate::contract::{Made, Record, Seen, StepKind};
use async_trait::async_trait;
use platflow_engine::context::Context;
use platflow_engine::failure::{ErrorClass, Residue, StepError};
use platflow_engine::step::{Ownership, UndoProgress};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Which API server must answer.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ApiReachableSpec {
    /// The cluster.
    pub cluster: ClusterAccess,
    /// API groups (with their version, as in `apps/v1`) that must be served, too.
    #[serde(default)]
    pub groups: Vec<String>,
}

/// The server that answered.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(super) struct ApiReachableOutputs {
    /// For example `v1.36.2`.
    pub version: String,
    /// The uid of the namespace `kube-system`: which cluster this is.
    pub kube_system_uid: String,
}

/// See the file.
pub(super) struct ApiReachableKind(pub(super) Arc<Clients>);

const POLL: Duration = Duration::from_secs(2);
const BUDGET: Duration = Duration::from_secs(3 * 60);

enum Probe {
    Reached(ApiReachableOutputs),
    NotYet(StepError),
}

/// What passes by itself while a new endpoint and a new access entry spread.
fn passes(failure: &Failure) -> bool {
    matches!(
        failure.meaning,
        Meaning::NotConnected
            | Meaning::Interrupted
            | Meaning::Unavailable
            | Meaning::Unauthorized
            | Meaning::Forbidden
    )
}

impl ApiReachableKind {
    async fn probe(&self, spec: &ApiReachableSpec, context: &Context) -> Result<Probe, StepError> {
        let api = Api::new(&self.0, &spec.cluster, context)?;
        match self.reach(&api, spec).await {
            Ok(Some(outputs)) => Ok(Probe::Reached(outputs)),
            Ok(None) => Ok(Probe::NotYet(StepError::new(
                ErrorClass::Propagation,
                "the API server answers, but does not authorise this principal or serve all groups yet",
            ))),
            // `/readyz` answers 500 as plain text until the server is ready.
            Err(failure) if passes(&failure) || failure.meaning == Meaning::Malformed => {
                Ok(Probe::NotYet(failure.error))
            }
            Err(failure) => Err(failure.error.leaving(Residue::None)),
        }
    }

    async fn reach(&self, api: &Api<'_>, spec: &ApiReachableSpec) -> Result<Option<ApiReachableOutputs>, Failure> {
        api.text("/readyz").await?;
        let version = api.document("/version").await?;
        let wanted = json!({"verb": "*", "group": "*", "version": "*", "resource": "*"});
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": wanted}});
        let review = api.review("authorization.k8s.io/v1", "SelfSubjectAccessReview", &review).await?;
        if review.pointer("/status/allowed").and_then(Value::as_bool) != Some(true) {
            return Ok(None);
        }
        for group in &spec.groups {
            let root = if group.contains('/') { format!("/apis/{group}") } else { format!("/api/{group}") };
            match api.document(&root).await {
                Ok(_) => {}
                Err(failure) if matches!(failure.meaning, Meaning::NotServed | Meaning::NotFound) => return Ok(None),
                Err(failure) => return Err(failure),
            }
        }
        let system = api.get(&ObjectKey::global("v1", "Namespace", "kube-system")).await?;
        Ok(system.map(|system| ApiReachableOutputs {
            version: text(&version, "/gitVersion").to_owned(),
            kube_system_uid: text(&system, "/metadata/uid").to_owned(),
        }))
    }

    fn same(found: &ApiReachableOutputs, record: &Record<ApiReachableOutputs>) -> Result<(), StepError> {
        match &record.outputs {
            Some(known) if known.kube_system_uid != found.kube_system_uid => Err(StepError::needs_human(format!(
                "another cluster answers at this endpoint: its kube-system has uid {}, on record is {}",
                found.kube_system_uid, known.kube_system_uid
            ))
            .leaving(Residue::None)
            .with_code("OtherCluster")
            .with_remedy("check the account, the region and the endpoint")),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl StepKind for ApiReachableKind {
    type Spec = ApiReachableSpec;
    type Outputs = ApiReachableOutputs;

    const NAME: &'static str = "kubernetes.api_reachable";
    const SUMMARY: &'static str =
        "Proof that a cluster's API server answers and authorises us, and which cluster it is.";
    const EXPECTED: Duration = Duration::from_secs(20);

    async fn observe(
        &self,
        spec: &ApiReachableSpec,
        record: &Record<ApiReachableOutputs>,
        context: &Context,
    ) -> Result<Seen<ApiReachableOutputs>, StepError> {
        Ok(match self.probe(spec, context).await? {
            Probe::Reached(outputs) => {
                Self::same(&outputs, record)?;
                Seen::Present { outputs, ownership: Ownership::Ours, differences: Vec::new() }
            }
            Probe::NotYet(error) if record.outputs.is_some() => Seen::Unknown { reason: error.to_string() },
            Probe::NotYet(_) => Seen::Absent,
        })
    }

    async fn apply(
        &self,
        spec: &ApiReachableSpec,
        _seen: &Seen<ApiReachableOutputs>,
        record: &Record<ApiReachableOutputs>,
        context: &Context,
    ) -> Result<Made<ApiReachableOutputs>, StepError> {
        Ok(match self.probe(spec, context).await? {
            Probe::Reached(outputs) => {
                Self::same(&outputs, record)?;
                Made::Done(outputs)
            }
            Probe::NotYet(error) => Made::Waiting { reason: error.to_string(), poll_in: POLL, budget: BUDGET },
        })
    }

    async fn undo(
        &self,
        _spec: &ApiReachableSpec,
        _record: &Record<ApiReachableOutputs>,
        _context: &Context,
    ) -> Result<UndoProgress, StepError> {
        Ok(UndoProgress::Gone { evidence: "it only reads; it made nothing".to_owned() })
    }
}
