//! Validation of pods, of what makes pods from a template, and of Jobs.

use serde_json::{Value, json};

use super::super::object::{self, int, list, map, text};
use super::super::quantity::Quantity;
use super::super::resources::Resource;
use super::super::selectors::LabelSelector;
use super::super::status::Cause;
use super::{LABEL, immutable, label_ok};

/// The spec of a pod, or of a template.
pub(super) fn pod_spec(spec: &Value, at: &str, policies: &[&str], causes: &mut Vec<Cause>) {
    if list(spec, "/containers").is_empty() {
        causes.push(Cause::required(format!("{at}.containers"), ""));
    }
    for kind in ["containers", "initContainers"] {
        let mut names: Vec<&str> = Vec::new();
        for (index, container) in list(spec, &format!("/{kind}")).iter().enumerate() {
            let field = format!("{at}.{kind}[{index}]");
            let name = text(container, "/name");
            if name.is_empty() {
                causes.push(Cause::required(format!("{field}.name"), ""));
            } else if !label_ok(name) {
                causes.push(Cause::invalid(format!("{field}.name"), &json!(name), LABEL));
            } else if names.contains(&name) {
                causes.push(Cause::duplicate(format!("{field}.name"), &json!(name)));
            }
            names.push(name);
            if text(container, "/image").is_empty() {
                causes.push(Cause::required(format!("{field}.image"), ""));
            }
            resources(container, &field, causes);
        }
    }
    let policy = text(spec, "/restartPolicy");
    if !policies.contains(&policy) {
        causes.push(Cause::unsupported(format!("{at}.restartPolicy"), &json!(policy), policies));
    }
}

fn resources(container: &Value, field: &str, causes: &mut Vec<Cause>) {
    for (name, asked) in map(container, "/resources/requests").into_iter().flatten() {
        let limit = text(container, &format!("/resources/limits/{name}"));
        let (Some(most), Some(given)) = (Quantity::parse(limit), asked.as_str().and_then(Quantity::parse)) else {
            continue;
        };
        if given.milli > most.milli {
            let why = format!("must be less than or equal to {name} limit of {limit}");
            causes.push(Cause::invalid(format!("{field}.resources.requests"), asked, &why));
        }
    }
}

/// A Deployment, ReplicaSet, StatefulSet or DaemonSet.
pub(super) fn controller(resource: &Resource, live: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
    if let Some(replicas) = int(new, "/spec/replicas").filter(|replicas| *replicas < 0) {
        causes.push(Cause::invalid("spec.replicas", &json!(replicas), "must be greater than or equal to 0"));
    }
    match new.pointer("/spec/selector") {
        None | Some(Value::Null) => causes.push(Cause::required("spec.selector", "")),
        Some(selector) => {
            let template = new.pointer("/spec/template").unwrap_or(&Value::Null);
            if !LabelSelector::of_object(selector).selects(template) {
                let labels = template.pointer("/metadata/labels").unwrap_or(&Value::Null);
                causes.push(Cause::invalid(
                    "spec.template.metadata.labels",
                    labels,
                    "`selector` does not match template `labels`",
                ));
            }
        }
    }
    if let Some(spec) = new.pointer("/spec/template/spec") {
        pod_spec(spec, "spec.template.spec", &["Always"], causes);
    }
    if resource.plural == "statefulsets" {
        stateful(live, new, causes);
    } else {
        immutable(live, new, "/spec/selector", "spec.selector", causes);
    }
}

/// What of a StatefulSet's spec may change.
fn stateful(live: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
    const FREE: [&str; 7] = [
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ];
    let Some(live) = live else { return };
    let fixed = |set: &Value| {
        let mut spec = set.get("spec").cloned().unwrap_or_default();
        for field in FREE {
            object::remove(&mut spec, &[field]);
        }
        spec
    };
    if fixed(live) != fixed(new) {
        causes.push(Cause::forbidden("spec", "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"));
    }
}

/// A Job: its template is what it was made with.
pub(super) fn job(live: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
    if let Some(spec) = new.pointer("/spec/template/spec") {
        pod_spec(spec, "spec.template.spec", &["OnFailure", "Never"], causes);
    }
    for field in ["selector", "completions", "completionMode", "template"] {
        // A suspended Job that never started may still get another template.
        let waiting =
            live.is_some_and(|live| object::flag(live, "/spec/suspend") && live.pointer("/status/startTime").is_none());
        if !(waiting && field == "template") {
            immutable(live, new, &format!("/spec/{field}"), &format!("spec.{field}"), causes);
        }
    }
}
