//! Pod Security: the baseline and restricted levels, enforced on pods and warned about on templates.

use serde_json::Value;

use super::super::cluster::Cluster;
use super::super::object::{self, flag, list, text};
use super::super::store::Key;

/// The level that a namespace sets for a mode, with the version it names.
pub(crate) fn level(cluster: &Cluster, namespace: &str, mode: &str) -> Option<(String, String)> {
    let found = cluster.object(&Key::core("namespaces", "", namespace))?;
    let level = object::label(&found, &format!("pod-security.kubernetes.io/{mode}"))?.to_owned();
    let version =
        object::label(&found, &format!("pod-security.kubernetes.io/{mode}-version")).unwrap_or("latest").to_owned();
    Some((level, version))
}

/// What is to be said when a namespace is to enforce more than its pods keep to.
pub(crate) fn of_existing(cluster: &Cluster, live: &Value, new: &Value) -> Vec<String> {
    const LABEL: &str = "pod-security.kubernetes.io/enforce";
    let Some(level) = object::label(new, LABEL).filter(|level| object::label(live, LABEL) != Some(*level)) else {
        return Vec::new();
    };
    let version = object::label(new, &format!("{LABEL}-version")).unwrap_or("latest");
    let mut groups: Vec<(String, Vec<&str>)> = Vec::new();
    for (key, pod) in cluster.store.list("", "pods", Some(object::name(new))) {
        let found = pod.get("spec").map(|spec| violations(spec, level)).unwrap_or_default();
        let reasons: Vec<&str> = found.iter().map(|each| each.split(" (").next().unwrap_or_default()).collect();
        if reasons.is_empty() {
            continue;
        }
        let reasons = reasons.join(", ");
        match groups.iter_mut().find(|(each, _)| *each == reasons) {
            Some((_, names)) => names.push(key.name.as_str()),
            None => groups.push((reasons, vec![key.name.as_str()])),
        }
    }
    if groups.is_empty() {
        return Vec::new();
    }
    let name = object::name(new);
    let mut lines = vec![format!(
        "existing pods in namespace \"{name}\" violate the new PodSecurity enforce level \"{level}:{version}\""
    )];
    lines.extend(groups.into_iter().map(|(reasons, names)| {
        let more = match names.len() {
            0 | 1 => String::new(),
            2 => " (and 1 other pod)".to_owned(),
            count => format!(" (and {} other pods)", count - 1),
        };
        format!("{}{more}: {reasons}", names.first().copied().unwrap_or_default())
    }));
    lines
}

fn quoted(names: &[&str]) -> String {
    let word = if names.len() == 1 { "container" } else { "containers" };
    format!("{word} {}", names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", "))
}

/// The violations of a pod spec against a level, as the message lists them.
pub(crate) fn violations(spec: &Value, level: &str) -> Vec<String> {
    let containers: Vec<&Value> = ["/initContainers", "/containers"].iter().flat_map(|kind| list(spec, kind)).collect();
    let naming = |bad: &dyn Fn(&Value) -> bool| {
        containers
            .iter()
            .filter(|container| bad(container))
            .map(|container| text(container, "/name"))
            .collect::<Vec<_>>()
    };
    let mut found = Vec::new();
    if level == "privileged" {
        return found;
    }
    let host: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .iter()
        .filter(|field| flag(spec, &format!("/{field}")))
        .map(|field| format!("{field}=true"))
        .collect();
    if !host.is_empty() {
        found.push(format!("host namespaces ({})", host.join(", ")));
    }
    let paths: Vec<String> = list(spec, "/volumes")
        .iter()
        .filter(|volume| volume.get("hostPath").is_some())
        .map(|volume| format!("\"{}\"", text(volume, "/name")))
        .collect();
    if !paths.is_empty() && level == "baseline" {
        found.push(format!(
            "hostPath volumes ({} {})",
            if paths.len() == 1 { "volume" } else { "volumes" },
            paths.join(", ")
        ));
    }
    let privileged = naming(&|container| flag(container, "/securityContext/privileged"));
    if !privileged.is_empty() {
        found.push(format!("privileged ({} must not set securityContext.privileged=true)", quoted(&privileged)));
    }
    let ports: Vec<String> = containers
        .iter()
        .flat_map(|container| list(container, "/ports"))
        .filter_map(|port| object::int(port, "/hostPort").filter(|port| *port != 0))
        .map(|port| port.to_string())
        .collect();
    if !ports.is_empty() {
        found.push(format!(
            "hostPort ({} uses {} {})",
            quoted(&naming(&|container| list(container, "/ports")
                .iter()
                .any(|port| object::int(port, "/hostPort").is_some()))),
            if ports.len() == 1 { "hostPort" } else { "hostPorts" },
            ports.join(", ")
        ));
    }
    if level == "restricted" {
        restricted(spec, &naming, &mut found);
    }
    found
}

/// Names the containers for which a test holds.
type Naming<'n, 'a> = &'n dyn Fn(&dyn Fn(&Value) -> bool) -> Vec<&'a str>;

fn restricted<'a>(spec: &Value, naming: Naming<'_, 'a>, found: &mut Vec<String>) {
    let escalating = naming(&|container| {
        container.pointer("/securityContext/allowPrivilegeEscalation") != Some(&Value::Bool(false))
    });
    if !escalating.is_empty() {
        found.push(format!(
            "allowPrivilegeEscalation != false ({} must set securityContext.allowPrivilegeEscalation=false)",
            quoted(&escalating)
        ));
    }
    let capable =
        naming(&|container| !list(container, "/securityContext/capabilities/drop").iter().any(|each| each == "ALL"));
    if !capable.is_empty() {
        found.push(format!(
            "unrestricted capabilities ({} must set securityContext.capabilities.drop=[\"ALL\"])",
            quoted(&capable)
        ));
    }
    let volumes: Vec<String> = list(spec, "/volumes")
        .iter()
        .filter(|volume| volume.get("hostPath").is_some())
        .map(|volume| format!("\"{}\"", text(volume, "/name")))
        .collect();
    if !volumes.is_empty() {
        found.push(format!(
            "restricted volume types ({} {} uses restricted volume type \"hostPath\")",
            if volumes.len() == 1 { "volume" } else { "volumes" },
            volumes.join(", ")
        ));
    }
    let pod_non_root = flag(spec, "/securityContext/runAsNonRoot");
    let root = naming(&|container| {
        container.pointer("/securityContext/runAsNonRoot").and_then(Value::as_bool) != Some(true) && !pod_non_root
            || container.pointer("/securityContext/runAsNonRoot") == Some(&Value::Bool(false))
    });
    if !root.is_empty() {
        found.push(format!(
            "runAsNonRoot != true (pod or {} must set securityContext.runAsNonRoot=true)",
            quoted(&root)
        ));
    }
    let pod_profile = matches!(text(spec, "/securityContext/seccompProfile/type"), "RuntimeDefault" | "Localhost");
    let open = naming(&|container| {
        !pod_profile
            && !matches!(text(container, "/securityContext/seccompProfile/type"), "RuntimeDefault" | "Localhost")
    });
    if !open.is_empty() {
        found.push(format!("seccompProfile (pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")", quoted(&open)));
    }
}
