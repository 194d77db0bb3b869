//! How lists and maps of the built-in kinds are merged: associative by keys, sets, or atomic. Custom resources carry this in their schema.
//! The table is keyed by the last path elements; the published OpenAPI (`x-kubernetes-list-type`, `-map-keys`, `-map-type`) is its source.

use serde_json::Value;

use super::object::text;

/// How a list is merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ListKind {
    /// As one value.
    Atomic,
    /// Scalars, each at most once.
    Set,
    /// Objects identified by some of their fields.
    Keyed(Vec<String>),
}

/// Where in an object a walk stands: names of fields from the root, and the schema there for custom resources.
#[derive(Debug, Clone)]
pub(crate) struct Place<'a> {
    path: Vec<String>,
    schema: Option<&'a Value>,
    custom: bool,
    kind: &'a str,
}

impl<'a> Place<'a> {
    /// The root of an object.
    pub(crate) fn root(schema: Option<&'a Value>, custom: bool) -> Self {
        Self { path: Vec::new(), schema, custom, kind: "" }
    }

    /// The same for a named kind: a few lists are merged in one kind as they are in no other.
    pub(crate) fn of_kind(mut self, kind: &'a str) -> Self {
        self.kind = kind;
        self
    }

    /// One field down.
    pub(crate) fn field(&self, name: &str) -> Self {
        let schema = self.schema.and_then(|schema| {
            schema
                .get("properties")
                .and_then(|all| all.get(name))
                .or_else(|| schema.get("additionalProperties").filter(|each| each.is_object()))
        });
        let mut path = self.path.clone();
        path.push(name.to_owned());
        Self { path, schema, custom: self.custom, kind: self.kind }
    }

    /// Into a list item.
    pub(crate) fn item(&self) -> Self {
        let mut path = self.path.clone();
        path.push("[]".to_owned());
        Self { path, schema: self.schema.and_then(|schema| schema.get("items")), custom: self.custom, kind: self.kind }
    }

    fn last(&self) -> &str {
        self.path.last().map_or("", String::as_str)
    }

    fn above(&self, up: usize) -> &str {
        self.path.len().checked_sub(up + 1).and_then(|at| self.path.get(at)).map_or("", String::as_str)
    }

    fn in_metadata(&self) -> bool {
        self.path.first().is_some_and(|first| first == "metadata") || self.above(1) == "metadata"
    }

    /// The name of the field this place stands on.
    pub(crate) fn name(&self) -> &str {
        self.last()
    }

    /// Whether this is an object of a custom resource.
    pub(crate) fn custom(&self) -> bool {
        self.custom
    }

    /// The path from the root.
    pub(crate) fn path(&self) -> &[String] {
        &self.path
    }

    /// How a list at this place is merged.
    pub(crate) fn list_kind(&self) -> ListKind {
        let keyed = |keys: &[&str]| ListKind::Keyed(keys.iter().map(|key| (*key).to_owned()).collect());
        if self.in_metadata() {
            return match self.last() {
                "finalizers" => ListKind::Set,
                "ownerReferences" => keyed(&["uid"]),
                _ => ListKind::Atomic,
            };
        }
        if self.custom {
            return self.schema_list_kind();
        }
        match self.last() {
            "containers"
            | "initContainers"
            | "ephemeralContainers"
            | "env"
            | "volumes"
            | "imagePullSecrets"
            | "webhooks"
            | "matchConditions"
            | "resourceClaims"
            | "secrets"
            | "variables" => keyed(&["name"]),
            "volumeMounts" => keyed(&["mountPath"]),
            "volumeDevices" => keyed(&["devicePath"]),
            "hostAliases" | "podIPs" | "hostIPs" => keyed(&["ip"]),
            "topologySpreadConstraints" => keyed(&["topologyKey", "whenUnsatisfiable"]),
            "conditions" if self.kind == "Job" => ListKind::Atomic,
            "conditions" => keyed(&["type"]),
            "addresses" if self.above(1) == "status" => keyed(&["type"]),
            "finalizers" | "drivers_set" => ListKind::Set,
            "ports" if self.above(2).ends_with("ontainers") => keyed(&["containerPort", "protocol"]),
            "ports" if self.above(1) == "spec" && self.path.len() == 2 => keyed(&["port", "protocol"]),
            _ => ListKind::Atomic,
        }
    }

    fn schema_list_kind(&self) -> ListKind {
        let Some(schema) = self.schema else { return ListKind::Atomic };
        match text(schema, "/x-kubernetes-list-type") {
            "set" => ListKind::Set,
            "map" => ListKind::Keyed(
                schema
                    .get("x-kubernetes-list-map-keys")
                    .and_then(Value::as_array)
                    .map(|keys| keys.iter().filter_map(Value::as_str).map(str::to_owned).collect())
                    .unwrap_or_default(),
            ),
            _ => ListKind::Atomic,
        }
    }

    /// Whether a map at this place is one value.
    pub(crate) fn atomic_map(&self) -> bool {
        if self.in_metadata() {
            return false;
        }
        if self.custom {
            return self.schema.is_some_and(|schema| text(schema, "/x-kubernetes-map-type") == "atomic");
        }
        matches!(
            self.last(),
            "selector"
                | "nodeSelector"
                | "podSelector"
                | "namespaceSelector"
                | "objectSelector"
                | "labelSelector"
                | "fieldRef"
                | "resourceFieldRef"
                | "configMapKeyRef"
                | "secretKeyRef"
                | "roleRef"
                | "scopeSelector"
                | "nodeSelectorTerms"
                | "claimRef_"
        )
    }

    /// Whether an empty typed object has this map already, so that no update is seen to create it.
    pub(crate) fn always_there(&self) -> bool {
        let depth = self.path.len();
        match self.last() {
            "metadata" => depth == 1 || self.above(1) == "template" || self.above(1) == "jobTemplate",
            "spec" => !self.custom || depth != 1,
            "status" => !self.custom && depth == 1,
            "template" | "strategy" | "updateStrategy" | "jobTemplate" => !self.custom,
            "names" | "scaleTargetRef" | "resources" => !self.custom && depth == 2,
            _ => false,
        }
    }
}

/// The values of the key fields of a list item, with the defaults that the server fills in.
pub(crate) fn item_key(item: &Value, keys: &[String]) -> Option<Vec<(String, Value)>> {
    let mut found = Vec::new();
    for key in keys {
        let value = item.get(key).cloned().or_else(|| (key == "protocol").then(|| Value::String("TCP".to_owned())))?;
        found.push((key.clone(), value));
    }
    Some(found)
}
