//! What two worlds built by different roads must have in common: every resource by type, name, step, tags and state, how
//! many of each, simulated steps and the files of programs. Ids, times and names that controllers make up differ.

use crate::rehearsal::moment::{Files, Things};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// Lines, and how often each.
pub(crate) type Picture = BTreeMap<String, usize>;

/// Types whose names are made up by the cloud or a controller.
const MADE_UP: [&str; 8] = [
    "ec2:instance",
    "ec2:volume",
    "ec2:network-interface",
    "iam:oidc-provider",
    "kubernetes:PersistentVolume",
    "kubernetes:Pod",
    "kubernetes:Node",
    "kubernetes:ReplicaSet",
];

/// Tags and labels whose values differ from run to run, or are made up by the cloud or a controller.
const MADE_UP_VALUES: [&str; 11] = [
    "platflow:run",
    "platflow:op",
    "aws:autoscaling:groupName",
    "controller-revision-hash",
    "pod-template-hash",
    "kubernetes.io/hostname",
    "node.k8s.amazonaws.com/createdAt",
    "node.k8s.amazonaws.com/instance_id",
    "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/zone",
    "statefulset.kubernetes.io/pod-name",
];

/// A tag or label; the `Name` of what has no name of its own holds its id.
fn label(key: &str, value: &Value, has_name: bool) -> String {
    let made_up = MADE_UP_VALUES.contains(&key) || key == "Name" && !has_name;
    match value.as_str() {
        Some(value) if !made_up => format!("{key}={value}"),
        _ => key.to_owned(),
    }
}

fn text<'a>(resource: &'a Value, field: &str) -> &'a str {
    resource.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// The picture of a world's listing.
pub(crate) fn of_world(listing: &Value) -> Picture {
    let mut picture = Picture::new();
    let resources = listing.get("resources").and_then(Value::as_array);
    for resource in
        resources.into_iter().flatten().filter(|resource| resource.get("system") != Some(&Value::Bool(true)))
    {
        let (kind, id, name) = (text(resource, "type"), text(resource, "id"), text(resource, "name"));
        let name = if name == id || MADE_UP.contains(&kind) { "*" } else { name };
        let tags = resource.get("tags").and_then(Value::as_object);
        let step =
            ["platflow:step", "platflow.io/step"].into_iter().find_map(|tag| tags?.get(tag)?.as_str()).unwrap_or("-");
        let labels: Vec<String> =
            tags.into_iter().flatten().map(|(key, value)| label(key, value, name != "*")).collect();
        let place =
            ["region", "cluster"].into_iter().map(|field| text(resource, field)).find(|place| !place.is_empty());
        let line = format!(
            "{kind} {name} in {}, step {step}, {}, tags {}",
            place.unwrap_or("-"),
            text(resource, "state"),
            labels.join(" ")
        );
        *picture.entry(line).or_insert(0) += 1;
    }
    picture
}

/// Adds what is outside of the sandbox.
pub(crate) fn add(picture: &mut Picture, things: &Things, files: &Files) {
    for (step, (kind, _)) in things {
        *picture.entry(format!("simulated {kind} of step {step}")).or_insert(0) += 1;
    }
    for (path, (_, content)) in files.0.iter().filter(|(path, _)| path.starts_with(Path::new("home"))) {
        let digest = Sha256::digest(content);
        let digest: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        *picture.entry(format!("file {}, {} bytes, {digest}", path.display(), content.len())).or_insert(0) += 1;
    }
}

/// Without keys whose deletion is scheduled: they count as gone.
pub(crate) fn without_pending(mut picture: Picture) -> Picture {
    picture.retain(|line, _| !(line.starts_with("kms:key ") && line.contains("PendingDeletion")));
    picture
}

/// The differences, most telling first: what is there and should not be, then what is missing.
pub(crate) fn differences(wanted: &Picture, found: &Picture) -> Vec<String> {
    let mut differences = Vec::new();
    for (line, count) in found {
        let expected = wanted.get(line).copied().unwrap_or(0);
        if *count > expected {
            differences.push(format!("{} too many: {line}", count - expected));
        }
    }
    for (line, count) in wanted {
        let present = found.get(line).copied().unwrap_or(0);
        if *count > present {
            differences.push(format!("{} missing: {line}", count - present));
        }
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn listing(ids: &[&str]) -> Value {
        let resources: Vec<Value> = ids
            .iter()
            .map(|id| json!({"type": "ec2:vpc", "id": id, "name": id, "region": "r", "tags": {"platflow:step": "vpc"}, "state": "available"}))
            .collect();
        json!({"resources": resources})
    }

    /// Ids do not matter, numbers do, and a difference names what differs.
    #[test]
    fn pictures_compare_by_structure() {
        let (one, other) = (of_world(&listing(&["vpc-1"])), of_world(&listing(&["vpc-2"])));
        assert_eq!(differences(&one, &other), Vec::<String>::new());
        let two = of_world(&listing(&["vpc-1", "vpc-2"]));
        assert_eq!(differences(&one, &two).len(), 1);
        assert!(differences(&one, &two)[0].starts_with("1 too many: ec2:vpc * in r, step vpc"));
        assert!(differences(&two, &one)[0].starts_with("1 missing"));
    }
}
