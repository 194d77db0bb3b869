//! Admission: what changes or refuses a write after it was authorised and before it is stored. Each rule has a file of its own.

mod escalation;
pub(crate) mod pod_security;
mod policies;
pub(crate) mod quota;
mod webhooks;

use serde_json::{Value, json};

use super::cluster::Cluster;
use super::controllers::Look;
use super::object::{self, text};
use super::resources::{self, Resource};
use super::status::Refusal;
use super::store::Key;
use super::verbs::Call;

/// Fills in what admission plugins add.
pub(crate) fn mutate(
    call: &mut Call<'_>,
    resource: &Resource,
    live: Option<&Value>,
    new: &mut Value,
) -> Result<(), Refusal> {
    if live.is_some() {
        return Ok(());
    }
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "pods") => {
            let namespace = object::namespace(new).to_owned();
            namespace_check(call.cluster, resource, &namespace, object::name(new))?;
            admit_pod(call.cluster, resource, &namespace, new)?;
        }
        ("", "persistentvolumeclaims") => {
            super::controllers::storage::default_class(call.cluster, new);
            add_finalizer(new, "kubernetes.io/pvc-protection");
        }
        ("", "persistentvolumes") => add_finalizer(new, "kubernetes.io/pv-protection"),
        ("", "services") => assign_address(call.cluster, new),
        _ => {}
    }
    Ok(())
}

fn add_finalizer(new: &mut Value, finalizer: &str) {
    if let Some(finalizers) = object::list_mut(new, &["metadata", "finalizers"])
        && !finalizers.iter().any(|each| each == finalizer)
    {
        finalizers.push(json!(finalizer));
    }
}

fn assign_address(cluster: &mut Cluster, new: &mut Value) {
    if text(new, "/spec/type") == "ExternalName" {
        return;
    }
    if text(new, "/spec/clusterIP").is_empty() {
        let address = cluster.new_address("172.20");
        object::set(new, &["spec", "clusterIP"], json!(address));
    }
    let address = text(new, "/spec/clusterIP").to_owned();
    object::set(new, &["spec", "clusterIPs"], json!([address]));
    if matches!(text(new, "/spec/type"), "LoadBalancer" | "NodePort")
        && let Some(Value::Array(ports)) = new.pointer_mut("/spec/ports")
    {
        for port in ports {
            cluster.identity.counter += 1;
            object::default_to(port, &["nodePort"], json!(30_000 + cluster.identity.counter % 2_767));
        }
    }
}

/// Service account, token volume, priority, tolerations, limits.
fn admit_pod(cluster: &mut Cluster, resource: &Resource, namespace: &str, pod: &mut Value) -> Result<(), Refusal> {
    object::default_to(pod, &["spec", "serviceAccountName"], json!("default"));
    let account = text(pod, "/spec/serviceAccountName").to_owned();
    let Some(found) = cluster.object(&Key::core("serviceaccounts", namespace, &account)) else {
        return Err(Refusal::forbidden(
            resource,
            object::name(pod),
            &format!("error looking up service account {namespace}/{account}: serviceaccount \"{account}\" not found"),
        ));
    };
    object::set(pod, &["spec", "serviceAccount"], json!(account));
    let automount = pod
        .pointer("/spec/automountServiceAccountToken")
        .or_else(|| found.get("automountServiceAccountToken"))
        .and_then(Value::as_bool)
        .unwrap_or(true);
    if automount {
        mount_token(cluster, pod);
    }
    let class = text(pod, "/spec/priorityClassName").to_owned();
    if !class.is_empty() {
        let Some(found) = cluster.object(&Key::new("scheduling.k8s.io", "priorityclasses", "", &class)) else {
            return Err(Refusal::forbidden(
                resource,
                object::name(pod),
                &format!("no PriorityClass with name {class} was found"),
            ));
        };
        object::set(pod, &["spec", "priority"], found.get("value").cloned().unwrap_or(json!(0)));
    }
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        if let Some(tolerations) = object::list_mut(pod, &["spec", "tolerations"])
            && !tolerations.iter().any(|each| {
                text(each, "/key") == key || text(each, "/key").is_empty() && text(each, "/operator") == "Exists"
            })
        {
            tolerations
                .push(json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}));
        }
    }
    quota::fill_limits(cluster, namespace, pod);
    object::remove(pod, &["status", "qosClass"]);
    super::defaults::fill("", "pods", pod);
    Ok(())
}

fn mount_token(cluster: &mut Cluster, pod: &mut Value) {
    const PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
    let name = format!("kube-api-access-{}", cluster.new_suffix(5));
    let mut used = false;
    for kind in ["/spec/containers", "/spec/initContainers"] {
        if let Some(Value::Array(containers)) = pod.pointer_mut(kind) {
            for container in containers {
                if let Some(mounts) = object::list_mut(container, &["volumeMounts"])
                    && !mounts.iter().any(|mount| text(mount, "/mountPath") == PATH)
                {
                    mounts.push(json!({"name": name, "readOnly": true, "mountPath": PATH}));
                    used = true;
                }
            }
        }
    }
    if used && let Some(volumes) = object::list_mut(pod, &["spec", "volumes"]) {
        volumes.push(json!({"name": name, "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3_607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
        ]}}));
    }
}

/// Refuses what admission plugins refuse.
pub(crate) fn check(
    call: &mut Call<'_>,
    resource: &Resource,
    key: &Key,
    live: Option<&Value>,
    new: &Value,
    sub: &str,
) -> Result<(), Refusal> {
    if live.is_none() {
        namespace_check(call.cluster, resource, &key.namespace, &key.name)?;
    }
    if sub.is_empty() {
        escalation::check(call, resource, &key.namespace, live, new)?;
        security(call, resource, &key.namespace, live, new)?;
        policies::check(call, resource, key, live, new)?;
        webhooks::check(call, resource, key, live, new)?;
    }
    if live.is_some() {
        return Ok(());
    }
    if resource.is("", "pods") {
        quota::check_limits(call.cluster, resource, &key.namespace, new)?;
    }
    if key.namespace.is_empty() {
        return Ok(());
    }
    let dry_run = call.dry_run()?;
    quota::check(call.cluster, resource, &key.namespace, new, dry_run)
}

fn security(
    call: &mut Call<'_>,
    resource: &Resource,
    namespace: &str,
    live: Option<&Value>,
    new: &Value,
) -> Result<(), Refusal> {
    if resource.is("", "namespaces")
        && let Some(live) = live
    {
        call.warnings.extend(pod_security::of_existing(call.cluster, live, new));
        return Ok(());
    }
    let template = match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "pods") if live.is_none() => new.get("spec"),
        ("apps", _) | ("batch", "jobs") => new.pointer("/spec/template/spec"),
        _ => None,
    };
    let Some(spec) = template else { return Ok(()) };
    let pod = resource.is("", "pods");
    for mode in ["enforce", "warn"] {
        let own = pod_security::level(call.cluster, namespace, mode);
        // Where no level is set to warn about, it is the enforced one.
        let Some((level, version)) = own.or_else(|| pod_security::level(call.cluster, namespace, "enforce")) else {
            continue;
        };
        let found = pod_security::violations(spec, &level);
        if found.is_empty() {
            continue;
        }
        if mode == "enforce" && pod {
            return Err(Refusal::forbidden(
                resource,
                object::name(new),
                &format!("violates PodSecurity \"{level}:{version}\": {}", found.join(", ")),
            ));
        }
        if mode == "warn" {
            call.warnings.push(format!("would violate PodSecurity \"{level}:{version}\": {}", found.join(", ")));
        }
    }
    Ok(())
}

/// A pod that a controller makes goes through the same admission; the text of a refusal comes back.
pub(crate) fn pod_by_controller(look: &mut Look<'_>, mut pod: Value) -> Result<(), String> {
    let Some(resource) = resources::find_built_in("", "pods") else { return Err("pods are not served".to_owned()) };
    let namespace = object::namespace(&pod).to_owned();
    let refused = |refusal: Refusal| refusal.message;
    namespace_check(look.cluster, &resource, &namespace, object::name(&pod)).map_err(refused)?;
    super::defaults::fill("", "pods", &mut pod);
    admit_pod(look.cluster, &resource, &namespace, &mut pod).map_err(refused)?;
    if let Some((level, version)) = pod_security::level(look.cluster, &namespace, "enforce") {
        let found = pod.get("spec").map(|spec| pod_security::violations(spec, &level)).unwrap_or_default();
        if !found.is_empty() {
            return Err(format!(
                "pods \"{}\" is forbidden: violates PodSecurity \"{level}:{version}\": {}",
                object::name(&pod),
                found.join(", ")
            ));
        }
    }
    quota::check_limits(look.cluster, &resource, &namespace, &pod).map_err(refused)?;
    quota::check(look.cluster, &resource, &namespace, &pod, false).map_err(refused)?;
    look.cluster.make("pods", "", pod, look.now);
    Ok(())
}

/// Follows a stored write.
pub(crate) fn after(call: &mut Call<'_>, resource: &Resource, _key: &Key, _live: Option<&Value>, _stored: &Value) {
    if resource.is("apiextensions.k8s.io", "customresourcedefinitions") {
        call.cluster.refresh_definitions();
    }
}

/// Nothing is created in a namespace that is missing or on its way out.
pub(crate) fn namespace(call: &Call<'_>, resource: &Resource, namespace: &str, name: &str) -> Result<(), Refusal> {
    namespace_check(call.cluster, resource, namespace, name)
}

fn namespace_check(cluster: &Cluster, resource: &Resource, namespace: &str, name: &str) -> Result<(), Refusal> {
    if namespace.is_empty() {
        return Ok(());
    }
    let Some(found) = cluster.object(&Key::core("namespaces", "", namespace)) else {
        let mut refusal = Refusal::new(404, Some("NotFound"), format!("namespaces \"{namespace}\" not found"));
        refusal.details = Some(json!({"name": namespace, "kind": "namespaces"}));
        return Err(refusal);
    };
    if object::deleting(&found) {
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        return Err(Refusal::forbidden(resource, name, &why).with_cause(
            "NamespaceTerminating",
            &format!("namespace {namespace} is being terminated"),
            Some("metadata.namespace"),
        ));
    }
    Ok(())
}
