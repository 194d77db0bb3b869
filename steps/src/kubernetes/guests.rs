//! What others put into a cluster: namespaces that are neither the cluster's own nor of the environment. They would go
//! with the cluster, so whoever takes it down is asked about them first. Reads only; decides nothing.

use super::clients::{Clients, ClusterAccess};
use super::objects::{UID_LABEL, items, label_value, text};
use http::Request;
use platflow_engine::failure::StepError;
use platflow_engine::name::EnvironmentUid;
use serde_json::Value;
use std::time::Duration;

const READ_TIMEOUT: Duration = Duration::from_secs(15);

/// Namespaces that every cluster has, or that EKS makes.
fn is_system(name: &str) -> bool {
    name == "default" || name.starts_with("kube-") || name.starts_with("amazon-")
}

fn is_ours(namespace: &Value, uid: &str) -> bool {
    let label = namespace.pointer("/metadata/labels").and_then(|labels| labels.get(UID_LABEL)).and_then(Value::as_str);
    label == Some(uid)
}

/// One answer of the API server.
pub(super) async fn read(client: &kube::Client, path: &str) -> Result<Value, StepError> {
    let request = Request::get(path)
        .body(Vec::new())
        .map_err(|error| StepError::permanent(format!("{path} is no path: {error}")))?;
    let answer = tokio::time::timeout(READ_TIMEOUT, client.request::<Value>(request)).await;
    answer
        .map_err(|_| StepError::transient(format!("GET {path}: no answer within {} s", READ_TIMEOUT.as_secs())))?
        .map_err(|error| StepError::transient(format!("GET {path}: {error}")))
}

/// The namespaces of a cluster that the environment `uid` did not make, in the order of their names.
///
/// # Errors
/// When the cluster does not answer, or does not let us look.
pub async fn guests(clients: &Clients, access: &ClusterAccess, uid: &EnvironmentUid) -> Result<Vec<String>, StepError> {
    let client = clients.connect(access)?;
    let listed = read(&client, "/api/v1/namespaces").await?;
    let uid = label_value(uid.as_str());
    let mut names: Vec<String> = items(&listed, "/items")
        .iter()
        .filter(|namespace| !is_ours(namespace, &uid))
        .map(|namespace| text(namespace, "/metadata/name").to_owned())
        .filter(|name| !is_system(name))
        .collect();
    names.sort_unstable();
    Ok(names)
}
