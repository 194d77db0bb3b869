//! Whether a workload, job or definition is done with what it was asked for, told from its status.
//!
//! The status right after a write is the old one: nothing counts before `observedGeneration` has caught up.

use super::objects::{condition, number, text};
use serde_json::Value;

/// Where a rollout stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rollout {
    /// Done.
    Complete,
    /// On its way; what is missing.
    Progressing(String),
    /// Given up by its controller.
    Failed(String),
}

/// The rollout of one stored object; kinds without one are complete.
pub(crate) fn rollout(object: &Value) -> Rollout {
    let kind = text(object, "/kind");
    let workload = matches!(kind, "Deployment" | "StatefulSet" | "DaemonSet");
    if workload && number(object, "/status/observedGeneration") < number(object, "/metadata/generation") {
        return progressing(object, "its controller has not seen it yet");
    }
    match kind {
        "Deployment" => deployment(object),
        "StatefulSet" => stateful_set(object),
        "DaemonSet" => daemon_set(object),
        "Job" => job(object),
        "CustomResourceDefinition" => definition(object),
        "APIService" => api_service(object),
        _ => Rollout::Complete,
    }
}

fn name(object: &Value) -> String {
    format!("{} {}", text(object, "/kind"), text(object, "/metadata/name"))
}

fn progressing(object: &Value, what: &str) -> Rollout {
    Rollout::Progressing(format!("{}: {what}", name(object)))
}

fn count(object: &Value, pointer: &str) -> i64 {
    number(object, pointer).unwrap_or(0)
}

fn deployment(object: &Value) -> Rollout {
    if let Some(("False", "ProgressDeadlineExceeded", message)) = condition(object, "Progressing") {
        return Rollout::Failed(format!("{}: {message}", name(object)));
    }
    let wanted = number(object, "/spec/replicas").unwrap_or(1);
    let updated = count(object, "/status/updatedReplicas");
    let total = count(object, "/status/replicas");
    let available = count(object, "/status/availableReplicas");
    if updated == wanted && total == wanted && available == wanted {
        return Rollout::Complete;
    }
    let failure = match condition(object, "ReplicaFailure") {
        Some(("True", _, message)) => format!("; {message}"),
        _ => String::new(),
    };
    progressing(object, &format!("{available} of {wanted} replicas available, {updated} updated{failure}"))
}

fn stateful_set(object: &Value) -> Rollout {
    let wanted = number(object, "/spec/replicas").unwrap_or(1);
    let ready = count(object, "/status/readyReplicas");
    let updated = count(object, "/status/updatedReplicas");
    let on_delete = text(object, "/spec/updateStrategy/type") == "OnDelete";
    if ready == wanted && (on_delete || updated == wanted) {
        Rollout::Complete
    } else {
        progressing(object, &format!("{ready} of {wanted} replicas ready, {updated} updated"))
    }
}

fn daemon_set(object: &Value) -> Rollout {
    let wanted = count(object, "/status/desiredNumberScheduled");
    let updated = count(object, "/status/updatedNumberScheduled");
    let available = count(object, "/status/numberAvailable");
    if updated == wanted && available == wanted {
        Rollout::Complete
    } else {
        progressing(object, &format!("{available} of {wanted} pods available, {updated} updated"))
    }
}

fn job(object: &Value) -> Rollout {
    if let Some(("True", reason, message)) = condition(object, "Failed") {
        return Rollout::Failed(format!("{}: {reason}: {message}", name(object)));
    }
    if let Some(("True", _, _)) = condition(object, "Complete") {
        return Rollout::Complete;
    }
    let done = count(object, "/status/succeeded");
    progressing(object, &format!("{done} of {} completions", number(object, "/spec/completions").unwrap_or(1)))
}

fn definition(object: &Value) -> Rollout {
    if let Some(("False", reason, message)) = condition(object, "NamesAccepted")
        && reason != "Accepted"
    {
        return Rollout::Failed(format!("{}: {message}", name(object)));
    }
    match (condition(object, "NamesAccepted"), condition(object, "Established")) {
        (Some(("True", ..)), Some(("True", ..))) => Rollout::Complete,
        _ => progressing(object, "not established yet"),
    }
}

fn api_service(object: &Value) -> Rollout {
    match condition(object, "Available") {
        Some(("True", ..)) => Rollout::Complete,
        Some((_, _, message)) => progressing(object, message),
        None => progressing(object, "not available yet"),
    }
}
