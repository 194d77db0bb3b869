//! What all servers of an installation say about themselves, pod by pod, without a token.

use super::Vaults;
use super::place::VaultPlace;
use super::server::{Reply, VaultServer};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use platflow_engine::failure::StepError;
use serde_json::Value;

/// How a server answers that was killed in its init after it had written its keyring, before its seal's configuration.
const NO_SEAL: &str = "barrier reports initialized but no seal configuration found";

/// One server's own account of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SealStatus {
    pub(super) pod: String,
    pub(super) initialized: bool,
    pub(super) sealed: bool,
    pub(super) progress: u64,
    pub(super) cluster_id: Option<String>,
    pub(super) cluster_name: Option<String>,
}

/// What could be learned of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PodState {
    /// There is no such pod.
    Missing,
    /// Its container does not run yet.
    Starting(String),
    /// Its server answered.
    Answers(SealStatus),
    /// It runs, and no answer came.
    Silent(String),
}

/// Every pod's state, in ordinal order.
#[derive(Debug, Clone)]
pub(super) struct Survey {
    pub(super) pods: Vec<(String, PodState)>,
}

impl Survey {
    pub(super) fn statuses(&self) -> impl Iterator<Item = &SealStatus> {
        self.pods.iter().filter_map(|(_, state)| match state {
            PodState::Answers(status) => Some(status),
            _ => None,
        })
    }

    pub(super) fn all_missing(&self) -> bool {
        self.pods.iter().all(|(_, state)| matches!(state, PodState::Missing))
    }

    /// The first pod that could not be asked, and why.
    pub(super) fn unanswered(&self) -> Option<String> {
        self.pods.iter().find_map(|(pod, state)| match state {
            PodState::Answers(_) => None,
            PodState::Missing => Some(format!("pod {pod} is missing")),
            PodState::Starting(why) => Some(format!("pod {pod} does not run yet: {why}")),
            PodState::Silent(why) => Some(why.clone()),
        })
    }

    pub(super) fn initialized(&self) -> impl Iterator<Item = &SealStatus> {
        self.statuses().filter(|status| status.initialized)
    }

    /// Who the unsealed servers say they are.
    pub(super) fn identity(&self) -> Option<(String, String)> {
        self.statuses().find_map(|status| Some((status.cluster_id.clone()?, status.cluster_name.clone()?)))
    }
}

fn status_of(pod: &str, reply: &Reply) -> Option<SealStatus> {
    let member = |name: &str| reply.body.get(name);
    let text = |name: &str| member(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
    Some(SealStatus {
        pod: pod.to_owned(),
        initialized: member("initialized")?.as_bool()?,
        sealed: member("sealed")?.as_bool()?,
        progress: member("progress").and_then(Value::as_u64).unwrap_or_default(),
        cluster_id: text("cluster_id"),
        cluster_name: text("cluster_name"),
    })
}

/// Why a pod's container does not run, or nothing when it does.
pub(super) fn not_running(pod: &Pod) -> Option<String> {
    if pod.metadata.deletion_timestamp.is_some() {
        return Some("it is being deleted".into());
    }
    let status = pod.status.as_ref();
    let container = status.and_then(|status| status.container_statuses.as_ref()).and_then(|all| all.first());
    let state = container.and_then(|container| container.state.as_ref());
    if state.is_some_and(|state| state.running.is_some()) {
        return None;
    }
    let waiting = state.and_then(|state| state.waiting.as_ref());
    let condition = || {
        let conditions = status.and_then(|status| status.conditions.as_ref())?;
        let unmet = conditions.iter().find(|condition| condition.status == "False" && condition.message.is_some())?;
        unmet.message.clone()
    };
    let reason = waiting.and_then(|waiting| waiting.message.clone().or_else(|| waiting.reason.clone()));
    let phase = || status.and_then(|status| status.phase.clone()).unwrap_or_else(|| "no status yet".into());
    Some(reason.or_else(condition).unwrap_or_else(phase))
}

impl Vaults {
    /// Asks one server.
    pub(super) async fn seal_status(&self, server: &VaultServer) -> Result<SealStatus, StepError> {
        let reply = server.get("sys/seal-status").await?;
        if reply.status == 500 && reply.errors().contains(NO_SEAL) {
            // It holds a keyring that nobody will ever open: initialised, its keys lost.
            let (initialized, sealed, progress) = (true, true, 0);
            let (cluster_id, cluster_name) = (None, None);
            let pod = server.pod().to_owned();
            return Ok(SealStatus { pod, initialized, sealed, progress, cluster_id, cluster_name });
        }
        let reply = reply.success("reading the seal status")?;
        status_of(server.pod(), &reply)
            .ok_or_else(|| StepError::transient(format!("{} answered no seal status", server.pod())))
    }

    /// Asks every pod. Fails only when the API server itself cannot be asked.
    pub(super) async fn survey(&self, place: &VaultPlace) -> Result<Survey, StepError> {
        let looks = place.pods.iter().map(|pod| self.look(place, pod));
        let states = futures::future::try_join_all(looks).await?;
        Ok(Survey { pods: place.pods.iter().cloned().zip(states).collect() })
    }

    async fn look(&self, place: &VaultPlace, name: &str) -> Result<PodState, StepError> {
        let pods: Api<Pod> = Api::namespaced(self.reach.client(&place.cluster)?, &place.namespace);
        let pod = pods.get_opt(name).await.map_err(|error| super::reach::kube_failure("reading", name, &error))?;
        let Some(pod) = pod else { return Ok(PodState::Missing) };
        if let Some(why) = not_running(&pod) {
            return Ok(PodState::Starting(why));
        }
        let server = VaultServer::open(&self.reach, place, name).await?;
        Ok(match self.seal_status(&server).await {
            Ok(status) => PodState::Answers(status),
            Err(error) => PodState::Silent(error.message),
        })
    }
}
