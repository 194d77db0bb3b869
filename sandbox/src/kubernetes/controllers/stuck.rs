//! Namespaces that do not go away: an object inside keeps a finalizer that nobody takes off, for a while or for good.

use jiff::Timestamp;
use serde_json::json;

use super::super::cluster::Cluster;
use super::super::object;
use super::super::store::Key;
use super::{Look, garbage};

/// The finalizer that holds.
const FINALIZER: &str = "sandbox.platflow/stuck";
/// When it is taken off, simulated Unix milliseconds.
const UNTIL: &str = "sandbox.platflow/stuck-until-ms";

/// Puts an object that holds a namespace.
pub(crate) fn hold(cluster: &mut Cluster, namespace: &str, until_ms: Option<i64>, now: Timestamp) {
    if cluster.object(&Key::core("namespaces", "", namespace)).is_none() {
        return;
    }
    let until = until_ms.map(|until_ms| until_ms.to_string()).unwrap_or_default();
    let object = json!({"metadata": {"name": "left-by-a-controller", "namespace": namespace, "finalizers": [FINALIZER], "annotations": {UNTIL: until}}});
    cluster.make("configmaps", "", object, now);
}

/// One look at a ConfigMap: its finalizer goes when its time has come.
pub(crate) fn look(look: &mut Look<'_>, key: &Key) {
    let Some(found) = look.cluster.object(key).filter(|found| object::deleting(found)) else { return };
    let Some(until_ms) = object::annotation(&found, UNTIL).and_then(|until| until.parse::<i64>().ok()) else { return };
    let left_ms = until_ms - look.now.as_millisecond();
    if left_ms > 0 {
        look.again(key, left_ms);
    } else {
        garbage::release(look, key, FINALIZER);
    }
}
