//! The sandbox's world as `platflow sandbox world --output json` prints it, and what tests ask of it.

use serde_json::Value;
use std::collections::BTreeMap;

/// One resource of the world.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// E.g. `ec2:vpc`.
    pub kind: String,
    /// The world's own id.
    pub id: String,
    /// Its name, if it has one.
    pub name: String,
    /// Tags or labels.
    pub tags: BTreeMap<String, String>,
    /// Its state, if it has one.
    pub state: String,
    /// Made by the cloud or a controller, not by a caller.
    pub system: bool,
}

/// All resources.
#[derive(Debug, Clone, PartialEq)]
pub struct World {
    /// As listed.
    pub resources: Vec<Resource>,
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

impl World {
    /// From the command's JSON.
    #[must_use]
    pub fn new(json: &Value) -> Self {
        let resources = json["resources"].as_array().map(Vec::as_slice).unwrap_or_default();
        let resources = resources
            .iter()
            .map(|resource| Resource {
                kind: text(&resource["type"]),
                id: text(&resource["id"]),
                name: text(&resource["name"]),
                tags: resource["tags"]
                    .as_object()
                    .map(|tags| tags.iter().map(|(key, value)| (key.clone(), text(value))).collect())
                    .unwrap_or_default(),
                state: text(&resource["state"]),
                system: resource["system"] == true,
            })
            .collect();
        Self { resources }
    }

    /// Resources that a caller made.
    pub fn made(&self) -> impl Iterator<Item = &Resource> {
        self.resources.iter().filter(|resource| !resource.system)
    }

    /// How many resources of a type a caller made.
    #[must_use]
    pub fn count(&self, kind: &str) -> usize {
        self.made().filter(|resource| resource.kind == kind).count()
    }

    /// What must be equal in two worlds that were built by different roads: type, name, step tag and state, counted.
    /// Ids, times and generated names differ.
    #[must_use]
    pub fn shape(&self) -> BTreeMap<String, usize> {
        let mut shape = BTreeMap::new();
        for resource in self.made() {
            let step = resource.tags.get("platflow:step").or_else(|| resource.tags.get("platflow.io/step"));
            let name = if generated(resource) { "*" } else { resource.name.as_str() };
            let line = format!("{} {} {} {}", resource.kind, name, step.map_or("-", String::as_str), resource.state);
            *shape.entry(line).or_insert(0) += 1;
        }
        shape
    }
}

/// Names that controllers and servers make up.
fn generated(resource: &Resource) -> bool {
    resource.name == resource.id
        || [
            "ec2:instance",
            "ec2:volume",
            "ec2:network-interface",
            "iam:oidc-provider",
            "kubernetes:PersistentVolume",
            "kubernetes:Pod",
            "kubernetes:Node",
            "kubernetes:ReplicaSet",
            // A storage that is initialised anew, because the reply to its init was lost, has another one.
            "vault:cluster",
        ]
        .contains(&resource.kind.as_str())
}
