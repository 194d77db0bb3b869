//! Validating webhooks: one whose backing workload is not ready, or without a CA bundle, cannot be called.

use serde_json::Value;

use super::super::network;
use super::super::object::{self, condition_true, list, map, text};
use super::super::resources::Resource;
use super::super::selectors::{LabelSelector, plain_selector_matches};
use super::super::status::Refusal;
use super::super::store::Key;
use super::super::verbs::Call;

/// Calls the webhooks that match a write.
pub(crate) fn check(
    call: &mut Call<'_>,
    resource: &Resource,
    key: &Key,
    live: Option<&Value>,
    new: &Value,
) -> Result<(), Refusal> {
    if resource.group == "admissionregistration.k8s.io" {
        return Ok(());
    }
    let operation = if live.is_none() { "CREATE" } else { "UPDATE" };
    let configurations: Vec<std::sync::Arc<Value>> =
        ["validatingwebhookconfigurations", "mutatingwebhookconfigurations"]
            .iter()
            .flat_map(|kind| call.cluster.store.list("admissionregistration.k8s.io", kind, None))
            .map(|(_, found)| std::sync::Arc::clone(found))
            .collect();
    for configuration in configurations {
        for hook in list(&configuration, "/webhooks") {
            if !matches(call, hook, resource, key, new, operation) {
                continue;
            }
            let Err(why) = reach(call, hook) else { continue };
            if text(hook, "/failurePolicy") == "Ignore" {
                continue;
            }
            let (name, service) = (text(hook, "/name"), text(hook, "/clientConfig/service/name"));
            let (namespace, path) =
                (text(hook, "/clientConfig/service/namespace"), text(hook, "/clientConfig/service/path"));
            let address = match text(hook, "/clientConfig/url") {
                "" => format!(
                    "https://{service}.{namespace}.svc:{}{path}",
                    object::int(hook, "/clientConfig/service/port").unwrap_or(443)
                ),
                own => own.to_owned(),
            };
            let url = format!("{address}?timeout={}s", object::int(hook, "/timeoutSeconds").unwrap_or(10));
            let message = format!("failed calling webhook \"{name}\": failed to call webhook: Post \"{url}\": {why}");
            return Err(Refusal::new(500, Some("InternalError"), format!("Internal error occurred: {message}"))
                .with_cause_message(&message));
        }
    }
    Ok(())
}

fn matches(call: &Call<'_>, hook: &Value, resource: &Resource, key: &Key, new: &Value, operation: &str) -> bool {
    let has = |rule: &Value, pointer: &str, wanted: &str| {
        list(rule, pointer).iter().any(|each| each == "*" || each == wanted)
    };
    let ruled = list(hook, "/rules").iter().any(|rule| {
        has(rule, "/operations", operation)
            && has(rule, "/apiGroups", &resource.group)
            && has(rule, "/apiVersions", &resource.version)
            && has(rule, "/resources", &resource.plural)
    });
    if !ruled || !LabelSelector::of_object(hook.get("objectSelector").unwrap_or(&Value::Null)).selects(new) {
        return false;
    }
    let selector = LabelSelector::of_object(hook.get("namespaceSelector").unwrap_or(&Value::Null));
    key.namespace.is_empty()
        || call
            .cluster
            .object(&Key::core("namespaces", "", &key.namespace))
            .is_some_and(|namespace| selector.selects(&namespace))
}

/// Whether a webhook answers: its Service has a ready pod and the bundle verifies it.
fn reach(call: &Call<'_>, hook: &Value) -> Result<(), String> {
    let (name, namespace) = (text(hook, "/clientConfig/service/name"), text(hook, "/clientConfig/service/namespace"));
    if name.is_empty() {
        // Nothing of the sandbox serves a webhook outside of the cluster.
        let address = url::Url::parse(text(hook, "/clientConfig/url")).ok();
        let (host, port) = address
            .as_ref()
            .map_or(("", 443), |url| (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or(443)));
        return Err(format!("dial tcp {host}:{port}: connect: connection refused"));
    }
    let Some(service) = call.cluster.object(&Key::core("services", namespace, name)) else {
        return Err(format!("service \"{name}\" not found"));
    };
    let selector = map(&service, "/spec/selector");
    let ready = call
        .cluster
        .store
        .list("", "pods", Some(namespace))
        .map(|(_, pod)| pod)
        .find(|pod| condition_true(pod, "Ready") && plain_selector_matches(selector, map(pod, "/metadata/labels")));
    let Some(pod) = ready else {
        return Err(format!("no endpoints available for service \"{name}\""));
    };
    let wanted = object::int(hook, "/clientConfig/service/port").unwrap_or(443);
    let port = list(&service, "/spec/ports").iter().find(|port| object::int(port, "/port") == Some(wanted));
    let target = port.and_then(|port| port.get("targetPort")).and_then(|target| match target {
        Value::String(name) => list(pod, "/spec/containers")
            .iter()
            .flat_map(|container| list(container, "/ports"))
            .find(|port| text(port, "/name") == name)
            .and_then(|port| object::int(port, "/containerPort")),
        number => number.as_i64(),
    });
    network::from_api(call.cluster, pod, u16::try_from(target.unwrap_or(wanted)).unwrap_or(443))?;
    if text(hook, "/clientConfig/caBundle").is_empty() {
        return Err("tls: failed to verify certificate: x509: certificate signed by unknown authority".to_owned());
    }
    Ok(())
}
