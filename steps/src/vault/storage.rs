//! The volumes of an installation: the claims that its StatefulSet made, by uid, and the volumes behind them.

use super::objects::{bounded, exactly, gone, ownership};
use super::reach::kube_failure;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::ListParams;
use kube::{Api, Client};
use platflow_engine::context::Context;
use platflow_engine::failure::StepError;
use platflow_engine::step::Ownership;
use std::collections::BTreeMap;

/// The claim of a pod.
pub(super) fn claim_name(pod: &str) -> String {
    format!("data-{pod}")
}

/// The uid of each pod's claim, for the claims that exist and are ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Claims {
    pub(super) ours: BTreeMap<String, String>,
    /// Claims of the same name that somebody else made, with their owner.
    pub(super) foreign: BTreeMap<String, String>,
}

pub(super) async fn claims(
    client: &Client,
    namespace: &str,
    pods: &[String],
    context: &Context,
) -> Result<Claims, StepError> {
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let mut found = Claims::default();
    for pod in pods {
        let name = claim_name(pod);
        let claim = api.get_opt(&name).await.map_err(|error| kube_failure("reading", &name, &error))?;
        let Some(claim) = claim else { continue };
        match ownership(&claim, context) {
            Ownership::Ours => {
                found.ours.insert(pod.clone(), claim.metadata.uid.unwrap_or_default());
            }
            Ownership::Foreign(owner) => {
                found.foreign.insert(name, owner);
            }
        }
    }
    Ok(found)
}

/// Deletes one claim of exactly this uid; "not there" is fine.
pub(super) async fn delete_claim(
    client: &Client,
    namespace: &str,
    pod: &str,
    uid: &str,
    context: &Context,
) -> Result<(), StepError> {
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let name = claim_name(pod);
    let call = context.begin(&format!("delete-{name}"))?;
    let parameters = exactly(Some(uid.to_owned()));
    gone(bounded(call.timeout, &name, api.delete(&name, &parameters)).await)
}

/// Deletes a pod, so that its set makes it anew.
pub(super) async fn delete_pod(
    client: &Client,
    namespace: &str,
    pod: &str,
    context: &Context,
) -> Result<(), StepError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let found = api.get_opt(pod).await.map_err(|error| kube_failure("reading", pod, &error))?;
    let Some(found) = found.filter(|found| found.metadata.deletion_timestamp.is_none()) else { return Ok(()) };
    let call = context.begin(&format!("delete-pod-{pod}"))?;
    let parameters = exactly(found.metadata.uid);
    gone(bounded(call.timeout, pod, api.delete(pod, &parameters)).await)
}

/// A volume that was bound to one of the claims and still exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LeftVolume {
    pub(super) name: String,
    /// True when its reclaim policy keeps it.
    pub(super) retained: bool,
}

/// Volumes still bound, or released, from the claims of these pods.
pub(super) async fn volumes(client: &Client, namespace: &str, pods: &[String]) -> Result<Vec<LeftVolume>, StepError> {
    let api: Api<PersistentVolume> = Api::all(client.clone());
    let all = api
        .list(&ListParams::default())
        .await
        .map_err(|error| kube_failure("listing", "persistent volumes", &error))?;
    let names: Vec<String> = pods.iter().map(|pod| claim_name(pod)).collect();
    let mut left = Vec::new();
    for volume in all {
        let Some(spec) = volume.spec else { continue };
        let Some(claim) = spec.claim_ref else { continue };
        let bound =
            claim.namespace.as_deref() == Some(namespace) && claim.name.is_some_and(|name| names.contains(&name));
        if bound {
            let retained = spec.persistent_volume_reclaim_policy.as_deref() == Some("Retain");
            left.push(LeftVolume { name: volume.metadata.name.unwrap_or_default(), retained });
        }
    }
    Ok(left)
}
