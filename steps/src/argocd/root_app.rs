//! `argocd.root_app`: the app of apps, done when it is synced, healthy and its operation succeeded since our apply.
//!
//! It is taken away in an order that keeps finalizers working: syncing off, children while the controller lives, root.

use super::ARGO;
use crate::contract::{Made, Record, Seen, StepKind};
use crate::kubernetes::api::{Api, ObjectKey};
use crate::kubernetes::objects::{self, Removal, Standing, foreign, holding, items, number, text};
use crate::kubernetes::{Clients, ClusterAccess};
use async_trait::async_trait;
use jiff::Timestamp;
use platflow_engine::context::Context;
use platflow_engine::failure::StepError;
use platflow_engine::step::{Ownership, UndoProgress};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// The root application.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RootAppSpec {
    /// The cluster.
    pub cluster: ClusterAccess,
    /// Argo CD's namespace.
    pub namespace: String,
    /// Its name.
    #[serde(default = "root")]
    pub name: String,
    /// The git repository. Without it the step is skipped, and its outputs say so.
    #[serde(default)]
    pub repo: Option<String>,
    /// Branch, tag or commit; `HEAD` when left out.
    #[serde(default)]
    pub revision: Option<String>,
    /// The folder of the children's manifests; the repository's root when left out.
    #[serde(default)]
    pub path: Option<String>,
    /// The Argo CD project.
    #[serde(default)]
    pub project: Option<String>,
}

fn root() -> String {
    "root".to_owned()
}

/// The root application that exists, or the reason why there is none.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(super) struct RootAppOutputs {
    /// Its name.
    pub name: String,
    /// True when no repository was named: there is no root application.
    #[serde(default)]
    pub skipped: bool,
    /// Its uid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

/// See the file.
pub(super) struct RootAppKind(pub(super) Arc<Clients>);

const POLL: Duration = Duration::from_secs(5);
const BUDGET: Duration = Duration::from_secs(15 * 60);

fn application(spec: &RootAppSpec, repo: &str) -> Value {
    json!({"apiVersion": ARGO, "kind": "Application", "metadata": {"name": spec.name, "namespace": spec.namespace},
    "spec": {
        "project": spec.project.as_deref().unwrap_or("default"),
        "source": {"repoURL": repo, "targetRevision": spec.revision.as_deref().unwrap_or("HEAD"),
            "path": spec.path.as_deref().unwrap_or(".")},
        "destination": {"server": "https://kubernetes.default.svc", "namespace": spec.namespace},
        "syncPolicy": {"automated": {"prune": false, "selfHeal": true}},
    }})
}

fn key(spec: &RootAppSpec) -> ObjectKey {
    ObjectKey::namespaced(ARGO, "Application", &spec.namespace, &spec.name)
}

fn skipped(spec: &RootAppSpec) -> RootAppOutputs {
    RootAppOutputs { name: spec.name.clone(), skipped: true, uid: None }
}

fn outputs(spec: &RootAppSpec, stored: &Value) -> RootAppOutputs {
    let uid = Some(text(stored, "/metadata/uid").to_owned());
    RootAppOutputs { name: spec.name.clone(), skipped: false, uid }
}

/// When our field manager last changed the object, by the server's clock.
fn applied_at(stored: &Value) -> Option<Timestamp> {
    let ours = items(stored, "/metadata/managedFields").iter().filter(|entry| text(entry, "/manager") == "platflow");
    ours.filter_map(|entry| text(entry, "/time").parse().ok()).max()
}

/// What is missing until the application is done.
fn unfinished(stored: &Value) -> Option<String> {
    let (sync, health) = (text(stored, "/status/sync/status"), text(stored, "/status/health/status"));
    let phase = text(stored, "/status/operationState/phase");
    let looked: Option<Timestamp> = text(stored, "/status/reconciledAt").parse().ok();
    // Times have whole seconds: a look in the second of the apply counts.
    let stale =
        matches!((looked, applied_at(stored)), (Some(looked), Some(applied)) if looked < applied) || looked.is_none();
    if sync == "Synced" && health == "Healthy" && phase == "Succeeded" && !stale {
        return None;
    }
    let or_unknown = |text: &str| if text.is_empty() { "unknown".to_owned() } else { text.to_owned() };
    let message = text(stored, "/status/operationState/message");
    let message = if message.is_empty() { String::new() } else { format!(": {message}") };
    Some(format!("sync {}, health {}, operation {}{message}", or_unknown(sync), or_unknown(health), or_unknown(phase)))
}

fn is_child(application: &Value, root: &str) -> bool {
    let tracking = application.pointer("/metadata/annotations/argocd.argoproj.io~1tracking-id").and_then(Value::as_str);
    let label = application.pointer("/metadata/labels/app.kubernetes.io~1instance").and_then(Value::as_str);
    text(application, "/metadata/name") != root
        && (label == Some(root) || tracking.is_some_and(|id| id.split(':').next() == Some(root)))
}

impl RootAppKind {
    async fn stand(
        &self,
        api: &Api<'_>,
        spec: &RootAppSpec,
        repo: &str,
        record: &Record<RootAppOutputs>,
    ) -> Result<Option<Standing>, StepError> {
        let recorded = record.outputs.as_ref().and_then(|outputs| outputs.uid.as_deref());
        objects::stand(api, &key(spec), &application(spec, repo), recorded).await
    }

    /// Children with finalizers need the controller: `None` when it lives or nobody needs it.
    async fn dead_controller(
        &self,
        api: &Api<'_>,
        spec: &RootAppSpec,
        children: &[Value],
    ) -> Result<Option<UndoProgress>, StepError> {
        let held = |child: &&Value| !items(child, "/metadata/finalizers").is_empty();
        let Some(child) = children.iter().find(held) else { return Ok(None) };
        let controller =
            ObjectKey::namespaced("apps/v1", "StatefulSet", &spec.namespace, "argocd-application-controller");
        let alive = api.get(&controller).await?.and_then(|set| number(&set, "/status/readyReplicas")).unwrap_or(0) > 0;
        Ok((!alive).then(|| UndoProgress::Blocked {
            owner: format!("Application {}, held by its finalizer", text(child, "/metadata/name")),
            remedy: "start argocd-application-controller again so that it can finish, or remove the finalizer by hand"
                .to_owned(),
        }))
    }
}

#[async_trait]
impl StepKind for RootAppKind {
    type Spec = RootAppSpec;
    type Outputs = RootAppOutputs;

    const NAME: &'static str = "argocd.root_app";
    const SUMMARY: &'static str = "The app-of-apps root application; skipped when no repository is named.";
    const EXPECTED: Duration = Duration::from_secs(60);

    async fn observe(
        &self,
        spec: &RootAppSpec,
        record: &Record<RootAppOutputs>,
        context: &Context,
    ) -> Result<Seen<RootAppOutputs>, StepError> {
        let Some(repo) = &spec.repo else {
            return Ok(Seen::Present { outputs: skipped(spec), ownership: Ownership::Ours, differences: Vec::new() });
        };
        let api = Api::new(&self.0, &spec.cluster, context)?;
        let Some(standing) = self.stand(&api, spec, repo, record).await? else { return Ok(Seen::Absent) };
        if standing.is_leaving() {
            return Ok(Seen::Changing { reason: holding(&key(spec), &standing.stored), poll_in: POLL });
        }
        if standing.ownership == Ownership::Ours
            && standing.differences.is_empty()
            && let Some(reason) = unfinished(&standing.stored)
        {
            return Ok(Seen::Changing { reason, poll_in: POLL });
        }
        let Standing { stored, ownership, differences } = standing;
        Ok(Seen::Present { outputs: outputs(spec, &stored), ownership, differences })
    }

    async fn apply(
        &self,
        spec: &RootAppSpec,
        _seen: &Seen<RootAppOutputs>,
        record: &Record<RootAppOutputs>,
        context: &Context,
    ) -> Result<Made<RootAppOutputs>, StepError> {
        let Some(repo) = &spec.repo else { return Ok(Made::Done(skipped(spec))) };
        let api = Api::new(&self.0, &spec.cluster, context)?;
        let standing = self.stand(&api, spec, repo, record).await?;
        if let Some(Standing { ownership: Ownership::Foreign(owner), .. }) = &standing {
            return Err(foreign(&key(spec), owner));
        }
        let stored = match standing {
            Some(standing) if standing.differences.is_empty() => standing.stored,
            standing => objects::put(&api, &key(spec), &application(spec, repo), standing.as_ref()).await?,
        };
        Ok(match unfinished(&stored) {
            Some(reason) => Made::Waiting { reason, poll_in: POLL, budget: BUDGET },
            None => Made::Done(outputs(spec, &stored)),
        })
    }

    async fn undo(
        &self,
        spec: &RootAppSpec,
        record: &Record<RootAppOutputs>,
        context: &Context,
    ) -> Result<UndoProgress, StepError> {
        let api = Api::new(&self.0, &spec.cluster, context)?;
        let recorded = record.outputs.as_ref().and_then(|outputs| outputs.uid.as_deref());
        let key = key(spec);
        let Some(stored) = api.get(&key).await? else {
            return Ok(UndoProgress::Gone { evidence: format!("GET {key}: 404") });
        };
        if let Ownership::Foreign(owner) = objects::ownership(&stored, recorded, context) {
            return Ok(UndoProgress::Gone {
                evidence: format!("{key} belongs to {owner}; nothing of this step exists"),
            });
        }
        if stored.pointer("/spec/syncPolicy/automated").is_some() {
            let permit = context.begin("stop-sync")?;
            api.merge(&key, &json!({"spec": {"syncPolicy": {"automated": null}}}), &permit).await?;
        }
        let all = api.list(ARGO, "Application", Some(&spec.namespace), "").await?;
        let children: Vec<Value> = all.into_iter().filter(|child| is_child(child, &spec.name)).collect();
        if let Some(blocked) = self.dead_controller(&api, spec, &children).await? {
            return Ok(blocked);
        }
        for child in &children {
            if text(child, "/metadata/deletionTimestamp").is_empty() {
                let name = text(child, "/metadata/name");
                let child_key = ObjectKey::namespaced(ARGO, "Application", &spec.namespace, name);
                let permit = context.begin(&format!("delete/{child_key}"))?;
                api.delete(&child_key, text(child, "/metadata/uid"), "Foreground", &permit).await?;
            }
        }
        if !children.is_empty() {
            let reason = format!("{} child applications are being deleted", children.len());
            return Ok(UndoProgress::Waiting { reason, poll_in: POLL, budget: BUDGET });
        }
        Ok(match objects::remove(&api, &key, recorded, "Foreground").await? {
            Removal::Gone(evidence) => UndoProgress::Gone { evidence },
            Removal::Going(reason) => UndoProgress::Waiting { reason, poll_in: POLL, budget: BUDGET },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves that an application is done only when synced, healthy, succeeded, and looked at since our last apply.
    #[test]
    fn done_needs_all_four() {
        let done = json!({"metadata": {"managedFields": [{"manager": "platflow", "time": "2026-01-01T00:00:10Z"}]},
            "status": {"sync": {"status": "Synced"}, "health": {"status": "Healthy"},
                "operationState": {"phase": "Succeeded"}, "reconciledAt": "2026-01-01T00:00:10Z"}});
        assert_eq!(unfinished(&done), None);
        let spoil = [
            ("/status/sync/status", "OutOfSync"),
            ("/status/health/status", "Degraded"),
            ("/status/operationState/phase", "Running"),
            ("/status/reconciledAt", "2026-01-01T00:00:09Z"),
            ("/status/reconciledAt", ""),
        ];
        for (pointer, value) in spoil {
            let mut other = done.clone();
            *other.pointer_mut(pointer).unwrap() = value.into();
            assert!(unfinished(&other).is_some(), "{pointer} {value}");
        }
    }

    /// Proves that children are told by label or tracking id, and that the root is not its own child.
    #[test]
    fn children_are_told_apart() {
        let by_label = json!({"metadata": {"name": "a", "labels": {"app.kubernetes.io/instance": "root"}}});
        let tracking = json!({"argocd.argoproj.io/tracking-id": "root:argoproj.io/Application:x/b"});
        let by_id = json!({"metadata": {"name": "b", "annotations": tracking}});
        let other = json!({"metadata": {"name": "c", "annotations": {"argocd.argoproj.io/tracking-id": "roots:x"}}});
        let itself = json!({"metadata": {"name": "root", "labels": {"app.kubernetes.io/instance": "root"}}});
        assert!(is_child(&by_label, "root") && is_child(&by_id, "root"));
        assert!(!is_child(&other, "root") && !is_child(&itself, "root"));
    }
}
