//! Why a namespace that is being deleted is still there, down to the object and the finalizer: the API server tells how
//! many objects of which resource are left, and which finalizers, but never the object.

use super::api::{Api, ObjectKey};
use super::objects::{condition, holding, items, text};
use serde_json::Value;

/// So many objects are named.
const NAMED: usize = 5;

/// What `holding` says, and the objects that hold a namespace. Reads only; what cannot be read is left out.
pub(crate) async fn held(api: &Api<'_>, key: &ObjectKey, left: &Value) -> String {
    let reason = holding(key, left);
    let stuck = condition(left, "NamespaceFinalizersRemaining").is_some_and(|(status, _, _)| status == "True");
    let remaining = condition(left, "NamespaceContentRemaining").map(|(_, _, message)| message).unwrap_or_default();
    if key.kind != "Namespace" || !stuck {
        return reason;
    }
    let mut named = Vec::new();
    for resource in resources(remaining) {
        named.extend(holders(api, &key.name, &resource).await);
    }
    let more = named.len().saturating_sub(NAMED);
    named.truncate(NAMED);
    if named.is_empty() {
        return reason;
    }
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!(
        "{reason}: {}{more}; if the controller that sets it is gone for good, take the finalizer off by hand",
        named.join(", ")
    )
}

/// A resource as the condition writes it: `configmaps.` or `applications.argoproj.io`.
#[derive(Debug, PartialEq, Eq)]
struct Resource {
    plural: String,
    group: String,
}

fn resources(message: &str) -> Vec<Resource> {
    let list = message.strip_prefix("Some resources are remaining: ").unwrap_or_default();
    let one = |part: &str| {
        let (plural, group) = part.split_once(" has ")?.0.split_once('.')?;
        Some(Resource { plural: plural.to_owned(), group: group.to_owned() })
    };
    list.split(", ").filter_map(one).collect()
}

async fn holders(api: &Api<'_>, namespace: &str, resource: &Resource) -> Vec<String> {
    let Resource { plural, group } = resource;
    let root = if group.is_empty() {
        "/api/v1".to_owned()
    } else {
        let Ok(served) = api.document(&format!("/apis/{group}")).await else { return Vec::new() };
        format!("/apis/{}", text(&served, "/preferredVersion/groupVersion"))
    };
    let Ok(listed) = api.document(&format!("{root}/namespaces/{namespace}/{plural}")).await else { return Vec::new() };
    let holder = |object: &Value| {
        let finalizers: Vec<&str> = items(object, "/metadata/finalizers").iter().filter_map(Value::as_str).collect();
        let name = text(object, "/metadata/name");
        (!finalizers.is_empty())
            .then(|| format!("{plural} {namespace}/{name} is held by finalizer {}", finalizers.join(", ")))
    };
    items(&listed, "/items").iter().filter_map(holder).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves that the words of a real API server are read: core resources end with a dot, others carry their group.
    #[test]
    fn what_is_left_is_read_from_the_condition() {
        let message = "Some resources are remaining: configmaps. has 1 resource instances, applications.argoproj.io has 2 resource instances";
        let resource = |plural: &str, group: &str| Resource { plural: plural.to_owned(), group: group.to_owned() };
        assert_eq!(resources(message), [resource("configmaps", ""), resource("applications", "argoproj.io")]);
        assert_eq!(resources("All content successfully removed"), []);
    }
}
