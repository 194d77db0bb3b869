//! Events: what controllers and the scheduler say about the objects they work on. Each is said once; nobody acts on them.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::super::object;
use super::super::store::Key;
use super::Look;

/// What is said, and by whom.
pub(crate) struct Said<'a> {
    /// Machine reason.
    pub(crate) reason: &'a str,
    /// Text.
    pub(crate) message: &'a str,
    /// Who says it.
    pub(crate) component: &'a str,
}

/// Says something about an object, unless its namespace is on its way out.
pub(crate) fn say(look: &mut Look<'_>, about: &Key, said: &Said<'_>) {
    let Some(found) = look.cluster.object(about) else { return };
    let home = look.cluster.object(&Key::core("namespaces", "", &about.namespace));
    if home.is_none_or(|home| object::deleting(&home)) {
        return;
    }
    let Some(resource) = look.cluster.resource_of(&about.group, &about.resource) else { return };
    let digest = Sha256::digest(format!("{}|{}|{}", object::uid(&found), said.reason, said.message));
    let name = format!("{}.{}", about.name, hex::encode(digest.get(..8).unwrap_or_default()));
    let now = object::stamp(look.now);
    let mut event = json!({
        "metadata": {"name": name, "namespace": about.namespace},
        "involvedObject": {"kind": resource.kind, "namespace": about.namespace, "name": about.name, "uid": object::uid(&found), "apiVersion": resource.api_version(), "resourceVersion": object::text(&found, "/metadata/resourceVersion")},
        "reason": said.reason, "message": said.message, "type": "Normal", "reportingComponent": said.component,
    });
    let scheduler = said.component == "default-scheduler";
    // The scheduler writes events of the newer form.
    let form = if scheduler {
        json!({"action": "Binding", "eventTime": now, "reportingInstance": "default-scheduler-sandbox", "source": {}, "firstTimestamp": null, "lastTimestamp": null})
    } else {
        json!({"count": 1, "eventTime": null, "reportingInstance": "", "source": {"component": said.component}, "firstTimestamp": now, "lastTimestamp": now})
    };
    if let (Value::Object(event), Value::Object(form)) = (&mut event, form) {
        event.extend(form);
    }
    look.cluster.make("events", "", event, look.now);
}
