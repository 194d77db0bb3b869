//! The search for what is left in a cluster that stays: every kind that the API server lists, by our label.
//!
//! A cluster that was taken away is the account survey's; nothing in it is asked here. Reads only.

use super::clients::{Clients, ClusterAccess};
use super::objects::{STEP_LABEL, UID_LABEL, items, label_value, text};
use async_trait::async_trait;
use http::Request;
use kube::Client;
use platflow_engine::failure::StepError;
use platflow_engine::survey::{Findings, Remnant, Scope, ScopedStep, Survey};
use serde_json::Value;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// See the file.
pub(super) struct ClusterSurvey(pub(super) Arc<Clients>);

async fn read(client: &Client, path: &str) -> Result<Option<Value>, StepError> {
    let request = Request::get(path)
        .header(http::header::ACCEPT, "application/json")
        .body(Vec::new())
        .map_err(|error| StepError::permanent(format!("{path} is no path: {error}")))?;
    let answer = tokio::time::timeout(READ_TIMEOUT, client.request_text(request)).await;
    let answer = answer.map_err(|_| StepError::transient(format!("GET {path}: no answer within 30 s")))?;
    match answer {
        Ok(text) => serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| StepError::transient(format!("GET {path}: the answer cannot be read: {error}"))),
        // A kind whose definition is just going away.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(StepError::transient(format!("GET {path}: {error}"))),
    }
}

fn way_in_is_gone(scope: &Scope, access: &ClusterAccess) -> bool {
    scope.of_kind("aws.access_entry").any(|entry| {
        let cluster = entry.spec.as_ref().and_then(|spec| spec.get("cluster_name")).and_then(Value::as_str);
        entry.stays.is_none() && cluster == Some(access.name.as_str())
    })
}

/// True when the API server no longer knows us.
async fn is_shut(client: &Client) -> Result<bool, StepError> {
    let request = Request::get("/apis")
        .body(Vec::new())
        .map_err(|error| StepError::permanent(format!("/apis is no path: {error}")))?;
    match tokio::time::timeout(READ_TIMEOUT, client.request_text(request)).await {
        Ok(Err(kube::Error::Api(status))) => Ok(matches!(status.code, 401 | 403)),
        _ => Ok(false),
    }
}

/// The paths of all collections that can be listed, core first.
async fn collections(client: &Client) -> Result<BTreeSet<String>, StepError> {
    let mut roots = vec!["/api/v1".to_owned()];
    if let Some(groups) = read(client, "/apis").await? {
        let versions = items(&groups, "/groups").iter().map(|group| text(group, "/preferredVersion/groupVersion"));
        roots.extend(versions.filter(|version| !version.is_empty()).map(|version| format!("/apis/{version}")));
    }
    let mut found = BTreeSet::new();
    for root in roots {
        let Some(answer) = read(client, &root).await? else { continue };
        for resource in items(&answer, "/resources") {
            let name = text(resource, "/name");
            let listed = items(resource, "/verbs").iter().any(|verb| verb.as_str() == Some("list"));
            // Events fade by themselves; EndpointSlices and the like carry the labels of what they serve.
            if listed && !name.contains('/') && name != "events" {
                found.insert(format!("{root}/{name}"));
            }
        }
    }
    Ok(found)
}

/// The cluster that a step lives in, if it is one that stays.
fn access(scope: &Scope, step: &ScopedStep) -> Option<ClusterAccess> {
    let access = step.spec.as_ref()?.get("cluster")?;
    let access: ClusterAccess = serde_json::from_value(access.clone()).ok()?;
    let named = |cluster: &&ScopedStep| {
        let name = cluster.outputs.as_ref().and_then(|outputs| outputs.get("name"));
        name.and_then(Value::as_str) == Some(access.name.as_str())
    };
    // One that is no step of ours was there before, and is there after.
    let stays = scope.of_kind("aws.eks_cluster").find(named).is_none_or(|cluster| cluster.stays.is_some());
    stays.then_some(access)
}

#[async_trait]
impl Survey for ClusterSurvey {
    async fn survey(&self, scope: &Scope) -> Result<Findings, StepError> {
        let mut findings = Findings::default();
        let gone = scope.steps.iter().filter(|step| step.stays.is_none());
        let clusters: HashSet<ClusterAccess> = gone.filter_map(|step| access(scope, step)).collect();
        for access in clusters {
            let client = self.0.connect(&access)?;
            let label = format!("{UID_LABEL}={}", label_value(scope.environment_uid.as_str()));
            let filter = format!("cluster {}, label {label}", access.name);
            // Our way in went with the access entries; each object was proven gone before that.
            if way_in_is_gone(scope, &access) && is_shut(&client).await? {
                findings.not_made("GET /apis", filter, "our access to the cluster was itself undone");
                continue;
            }
            for path in collections(&client).await? {
                let selected = format!("{path}?labelSelector={}", label.replace('/', "%2F").replace('=', "%3D"));
                let Some(answer) = read(&client, &selected).await? else { continue };
                let objects = items(&answer, "/items");
                findings.search(format!("GET {path}"), filter.clone(), objects.len());
                for object in objects {
                    findings.remnant(remnant(scope, &path, object));
                }
            }
        }
        Ok(findings)
    }
}

fn remnant(scope: &Scope, path: &str, object: &Value) -> Remnant {
    let labels = object.pointer("/metadata/labels");
    let label = labels.and_then(|labels| labels.get(STEP_LABEL)).and_then(Value::as_str);
    // Labels hold long names cut; the step is the one whose name is cut the same way.
    let step = scope.steps.iter().find(|step| label == Some(label_value(step.name.as_str()).as_str()));
    let standing = scope.standing_of(step.map(|step| step.name.as_str()));
    let plural = path.rsplit('/').next().unwrap_or(path);
    let (namespace, name) = (text(object, "/metadata/namespace"), text(object, "/metadata/name"));
    let id = if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") };
    let maker = step
        .map_or_else(|| format!("label {}", label.unwrap_or("without a step")), |step| format!("step {}", step.name));
    Remnant { resource: format!("kubernetes:{plural}"), id, maker, standing }
}
