//! The persistent volumes of a cluster: whose they are, how big, and what holds their bytes. They go with the cluster, so
//! whoever takes it down is told first. Reads only; decides nothing.

use super::clients::{Clients, ClusterAccess};
use super::guests::read;
use super::objects::{UID_LABEL, items, label_value, text};
use platflow_engine::failure::StepError;
use platflow_engine::name::EnvironmentUid;
use serde_json::Value;
use std::collections::BTreeSet;

/// A volume that a cluster knows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Volume {
    /// Namespace and claim, e.g. `platform-data/postgres`; nothing if no claim names it.
    pub claim: Option<String>,
    /// As Kubernetes writes it, e.g. `20Gi`.
    pub size: String,
    /// The volume's own id, e.g. that of the EBS volume.
    pub id: String,
    /// A step of this environment made the claim.
    pub ours: bool,
}

/// The id of whatever holds the bytes.
fn id(volume: &Value) -> &str {
    let known = ["/spec/csi/volumeHandle", "/spec/awsElasticBlockStore/volumeID", "/metadata/name"];
    known.iter().map(|path| text(volume, path)).find(|id| !id.is_empty()).unwrap_or("unknown")
}

/// Every persistent volume of a cluster.
///
/// # Errors
/// When the cluster does not answer, or does not let us look.
pub async fn volumes(
    clients: &Clients,
    access: &ClusterAccess,
    environment: &EnvironmentUid,
) -> Result<Vec<Volume>, StepError> {
    let client = clients.connect(access)?;
    let claims = read(&client, "/api/v1/persistentvolumeclaims").await?;
    let label = label_value(environment.as_str());
    let ours: BTreeSet<&str> = items(&claims, "/items")
        .iter()
        .filter(|claim| {
            let labels = claim.pointer("/metadata/labels");
            labels.and_then(|labels| labels.get(UID_LABEL)).and_then(Value::as_str) == Some(label.as_str())
        })
        .map(|claim| text(claim, "/metadata/uid"))
        .collect();
    let listed = read(&client, "/api/v1/persistentvolumes").await?;
    let mut found: Vec<Volume> = items(&listed, "/items")
        .iter()
        .map(|volume| {
            let (namespace, name) = (text(volume, "/spec/claimRef/namespace"), text(volume, "/spec/claimRef/name"));
            Volume {
                claim: (!name.is_empty()).then(|| format!("{namespace}/{name}")),
                size: text(volume, "/spec/capacity/storage").to_owned(),
                id: id(volume).to_owned(),
                ours: ours.contains(text(volume, "/spec/claimRef/uid")),
            }
        })
        .collect();
    found.sort_unstable();
    Ok(found)
}
