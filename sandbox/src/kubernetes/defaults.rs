//! The values that the server fills in where a body leaves them out, for the kinds whose defaults clients see.

use serde_json::{Value, json};

use super::object::{self, default_to, set, text};
use super::resources::Resource;

/// Resets what a writer may not set, before defaults.
pub(crate) fn prepare(resource: &Resource, live: Option<&Value>, new: &mut Value) {
    if live.is_none() && resource.sub("status").is_some() && !resource.is("", "namespaces") && !resource.is("", "nodes")
    {
        object::remove(new, &["status"]);
    }
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "namespaces") => {
            let name = object::name(new).to_owned();
            set(new, &["metadata", "labels", "kubernetes.io/metadata.name"], json!(name));
            if live.is_none() {
                set(new, &["spec"], json!({"finalizers": ["kubernetes"]}));
                set(new, &["status"], json!({"phase": "Active"}));
            } else if let Some(spec) = live.and_then(|live| live.get("spec")) {
                set(new, &["spec"], spec.clone());
            }
        }
        ("", "secrets") => encode_string_data(new),
        ("apiextensions.k8s.io", "customresourcedefinitions") if live.is_none() => {
            let stored: Vec<Value> = object::list(new, "/spec/versions")
                .iter()
                .filter(|version| object::flag(version, "/storage"))
                .filter_map(|version| version.get("name").cloned())
                .collect();
            set(
                new,
                &["status"],
                json!({"conditions": null, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": stored}),
            );
        }
        _ => {}
    }
}

fn encode_string_data(new: &mut Value) {
    use base64::Engine as _;
    let Some(Value::Object(plain)) = object::remove(new, &["stringData"]) else { return };
    for (key, value) in plain {
        let encoded = base64::engine::general_purpose::STANDARD.encode(value.as_str().unwrap_or_default());
        set(new, &["data", &key], json!(encoded));
    }
}

/// Fills in defaults.
pub(crate) fn fill(group: &str, plural: &str, new: &mut Value) {
    match (group, plural) {
        ("", "pods") => pod(new),
        ("", "services") => service(new),
        ("", "secrets") => default_to(new, &["type"], json!("Opaque")),
        ("", "persistentvolumeclaims") => {
            default_to(new, &["spec", "volumeMode"], json!("Filesystem"));
            default_to(new, &["status", "phase"], json!("Pending"));
        }
        ("", "persistentvolumes") => {
            default_to(new, &["spec", "volumeMode"], json!("Filesystem"));
            default_to(new, &["spec", "persistentVolumeReclaimPolicy"], json!("Retain"));
            default_to(new, &["status", "phase"], json!("Pending"));
        }
        ("", "limitranges") => limit_range(new),
        ("", "resourcequotas") => default_to(new, &["status"], json!({})),
        ("apps", "deployments") => deployment(new),
        ("apps", "replicasets") => {
            default_to(new, &["spec", "replicas"], json!(1));
            default_to(new, &["status", "replicas"], json!(0));
            template(new, &["spec", "template"]);
        }
        ("apps", "statefulsets") => stateful_set(new),
        ("apps", "daemonsets") => daemon_set(new),
        ("batch", "jobs") => job(new),
        ("batch", "cronjobs") => {
            for (field, value) in [
                ("concurrencyPolicy", json!("Allow")),
                ("suspend", json!(false)),
                ("successfulJobsHistoryLimit", json!(3)),
                ("failedJobsHistoryLimit", json!(1)),
            ] {
                default_to(new, &["spec", field], value);
            }
            template(new, &["spec", "jobTemplate", "spec", "template"]);
            default_to(new, &["status"], json!({}));
        }
        ("networking.k8s.io", "networkpolicies") => network_policy(new),
        ("networking.k8s.io", "ingresses") => default_to(new, &["status"], json!({"loadBalancer": {}})),
        ("policy", "poddisruptionbudgets") => default_to(
            new,
            &["status"],
            json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0}),
        ),
        ("storage.k8s.io", "storageclasses") => {
            default_to(new, &["reclaimPolicy"], json!("Delete"));
            default_to(new, &["volumeBindingMode"], json!("Immediate"));
        }
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => binding(new),
        ("admissionregistration.k8s.io", kind) => admission(kind, new),
        ("scheduling.k8s.io", "priorityclasses") => {
            default_to(new, &["preemptionPolicy"], json!("PreemptLowerPriority"))
        }
        ("apiextensions.k8s.io", "customresourcedefinitions") => definition(new),
        ("apiregistration.k8s.io", "apiservices") => {
            if new.pointer("/spec/service").is_some() {
                default_to(new, &["spec", "service", "port"], json!(443));
            }
            default_to(new, &["status"], json!({}));
        }
        _ => {}
    }
}

fn items<'a>(value: &'a mut Value, path: &[&str]) -> std::slice::IterMut<'a, Value> {
    let mut place = Some(value);
    for key in path {
        place = place.and_then(|inner| inner.get_mut(*key));
    }
    place.and_then(Value::as_array_mut).map_or_else(|| [].iter_mut(), |list| list.iter_mut())
}

fn pod(new: &mut Value) {
    if let Some(spec) = new.get_mut("spec") {
        pod_spec(spec);
        default_to(spec, &["enableServiceLinks"], json!(true));
        default_to(spec, &["preemptionPolicy"], json!("PreemptLowerPriority"));
        default_to(spec, &["priority"], json!(0));
    }
    let class = quality(new);
    default_to(new, &["status"], json!({"phase": "Pending"}));
    default_to(new, &["status", "phase"], json!("Pending"));
    default_to(new, &["status", "qosClass"], json!(class));
}

fn quality(pod: &Value) -> &'static str {
    let containers = object::list(pod, "/spec/containers");
    let any = containers.iter().any(|each| {
        object::map(each, "/resources/requests").is_some_and(|map| !map.is_empty())
            || object::map(each, "/resources/limits").is_some_and(|map| !map.is_empty())
    });
    if !any {
        return "BestEffort";
    }
    let guaranteed = containers.iter().all(|each| {
        ["cpu", "memory"].iter().all(|name| {
            let limit = each.pointer(&format!("/resources/limits/{name}"));
            limit.is_some()
                && each.pointer(&format!("/resources/requests/{name}")).is_none_or(|request| Some(request) == limit)
        })
    });
    if guaranteed { "Guaranteed" } else { "Burstable" }
}

/// Defaults of a pod template at a path.
fn template(new: &mut Value, path: &[&str]) {
    let mut place = Some(new);
    for key in path {
        place = place.and_then(|inner| inner.get_mut(*key));
    }
    if let Some(spec) = place.and_then(|template| template.get_mut("spec")) {
        pod_spec(spec);
    }
}

fn pod_spec(spec: &mut Value) {
    default_to(spec, &["restartPolicy"], json!("Always"));
    default_to(spec, &["terminationGracePeriodSeconds"], json!(30));
    default_to(spec, &["dnsPolicy"], json!("ClusterFirst"));
    default_to(spec, &["securityContext"], json!({}));
    default_to(spec, &["schedulerName"], json!("default-scheduler"));
    let account = text(spec, "/serviceAccountName").to_owned();
    if !account.is_empty() {
        default_to(spec, &["serviceAccount"], json!(account));
    }
    for kind in ["containers", "initContainers"] {
        for each in items(spec, &[kind]) {
            container(each);
        }
    }
    for volume in items(spec, &["volumes"]) {
        for source in ["secret", "configMap", "projected", "downwardAPI"] {
            if volume.get(source).is_some() {
                default_to(volume, &[source, "defaultMode"], json!(420));
            }
        }
    }
}

fn container(each: &mut Value) {
    let image = text(each, "/image").to_owned();
    let latest = image.ends_with(":latest")
        || !image.rsplit('/').next().unwrap_or_default().contains(':') && !image.contains('@');
    default_to(each, &["imagePullPolicy"], json!(if latest { "Always" } else { "IfNotPresent" }));
    default_to(each, &["terminationMessagePath"], json!("/dev/termination-log"));
    default_to(each, &["terminationMessagePolicy"], json!("File"));
    default_to(each, &["resources"], json!({}));
    if let Some(limits) = object::map(each, "/resources/limits").cloned() {
        for (name, value) in limits {
            default_to(each, &["resources", "requests", &name], value);
        }
    }
    for port in items(each, &["ports"]) {
        default_to(port, &["protocol"], json!("TCP"));
    }
    for variable in items(each, &["env"]) {
        if variable.pointer("/valueFrom/fieldRef").is_some() {
            default_to(variable, &["valueFrom", "fieldRef", "apiVersion"], json!("v1"));
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if each.get(probe).is_none() {
            continue;
        }
        for (field, value) in
            [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
        {
            default_to(each, &[probe, field], json!(value));
        }
        if each.pointer(&format!("/{probe}/httpGet")).is_some() {
            default_to(each, &[probe, "httpGet", "scheme"], json!("HTTP"));
            default_to(each, &[probe, "httpGet", "path"], json!("/"));
        }
    }
}

fn deployment(new: &mut Value) {
    default_to(new, &["spec", "replicas"], json!(1));
    default_to(new, &["spec", "strategy", "type"], json!("RollingUpdate"));
    if text(new, "/spec/strategy/type") == "RollingUpdate" {
        default_to(new, &["spec", "strategy", "rollingUpdate", "maxUnavailable"], json!("25%"));
        default_to(new, &["spec", "strategy", "rollingUpdate", "maxSurge"], json!("25%"));
    }
    default_to(new, &["spec", "revisionHistoryLimit"], json!(10));
    default_to(new, &["spec", "progressDeadlineSeconds"], json!(600));
    template(new, &["spec", "template"]);
    default_to(new, &["status"], json!({}));
}

fn stateful_set(new: &mut Value) {
    default_to(new, &["spec", "replicas"], json!(1));
    default_to(new, &["spec", "podManagementPolicy"], json!("OrderedReady"));
    default_to(new, &["spec", "updateStrategy", "type"], json!("RollingUpdate"));
    if text(new, "/spec/updateStrategy/type") == "RollingUpdate" {
        default_to(new, &["spec", "updateStrategy", "rollingUpdate", "partition"], json!(0));
    }
    default_to(new, &["spec", "revisionHistoryLimit"], json!(10));
    default_to(
        new,
        &["spec", "persistentVolumeClaimRetentionPolicy"],
        json!({"whenDeleted": "Retain", "whenScaled": "Retain"}),
    );
    for claim in items(new, &["spec", "volumeClaimTemplates"]) {
        default_to(claim, &["apiVersion"], json!("v1"));
        default_to(claim, &["kind"], json!("PersistentVolumeClaim"));
        default_to(claim, &["spec", "volumeMode"], json!("Filesystem"));
        default_to(claim, &["status", "phase"], json!("Pending"));
    }
    template(new, &["spec", "template"]);
    default_to(new, &["status"], json!({"replicas": 0, "availableReplicas": 0}));
}

fn daemon_set(new: &mut Value) {
    default_to(new, &["spec", "updateStrategy", "type"], json!("RollingUpdate"));
    if text(new, "/spec/updateStrategy/type") == "RollingUpdate" {
        default_to(new, &["spec", "updateStrategy", "rollingUpdate", "maxUnavailable"], json!(1));
        default_to(new, &["spec", "updateStrategy", "rollingUpdate", "maxSurge"], json!(0));
    }
    default_to(new, &["spec", "revisionHistoryLimit"], json!(10));
    template(new, &["spec", "template"]);
    default_to(
        new,
        &["status"],
        json!({"currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0}),
    );
}

fn job(new: &mut Value) {
    for (field, value) in [
        ("parallelism", json!(1)),
        ("completions", json!(1)),
        ("backoffLimit", json!(6)),
        ("completionMode", json!("NonIndexed")),
        ("suspend", json!(false)),
        ("podReplacementPolicy", json!("TerminatingOrFailed")),
        ("manualSelector", json!(false)),
    ] {
        default_to(new, &["spec", field], value);
    }
    template(new, &["spec", "template"]);
    default_to(new, &["status"], json!({}));
}

/// What the server generates for an object beside its defaults, and in nobody's name.
pub(crate) fn generate(group: &str, plural: &str, new: &mut Value) {
    if (group, plural) == ("apps", "daemonsets") {
        default_to(new, &["metadata", "annotations", "deprecated.daemonset.template.generation"], json!("1"));
    }
    if (group, plural) != ("batch", "jobs") {
        return;
    }
    let uid = object::uid(new).to_owned();
    let name = object::name(new).to_owned();
    if new.pointer("/spec/selector").is_none() {
        set(new, &["spec", "selector"], json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}));
        for (key, value) in [
            ("batch.kubernetes.io/controller-uid", &uid),
            ("batch.kubernetes.io/job-name", &name),
            ("controller-uid", &uid),
            ("job-name", &name),
        ] {
            set(new, &["spec", "template", "metadata", "labels", key], json!(value));
            set(new, &["metadata", "labels", key], json!(value));
        }
    }
}

fn service(new: &mut Value) {
    default_to(new, &["spec", "type"], json!("ClusterIP"));
    default_to(new, &["spec", "sessionAffinity"], json!("None"));
    if text(new, "/spec/type") != "ExternalName" {
        default_to(new, &["spec", "internalTrafficPolicy"], json!("Cluster"));
        default_to(new, &["spec", "ipFamilies"], json!(["IPv4"]));
        default_to(new, &["spec", "ipFamilyPolicy"], json!("SingleStack"));
    }
    if matches!(text(new, "/spec/type"), "LoadBalancer" | "NodePort") {
        default_to(new, &["spec", "externalTrafficPolicy"], json!("Cluster"));
    }
    if text(new, "/spec/type") == "LoadBalancer" {
        default_to(new, &["spec", "allocateLoadBalancerNodePorts"], json!(true));
    }
    for port in items(new, &["spec", "ports"]) {
        default_to(port, &["protocol"], json!("TCP"));
        let number = port.get("port").cloned().unwrap_or(Value::Null);
        default_to(port, &["targetPort"], number);
    }
    default_to(new, &["status"], json!({"loadBalancer": {}}));
}

fn limit_range(new: &mut Value) {
    for each in items(new, &["spec", "limits"]) {
        if text(each, "/type") != "Container" {
            continue;
        }
        for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
            if let Some(values) = object::map(each, &format!("/{from}")).cloned() {
                for (name, value) in values {
                    default_to(each, &[to, &name], value);
                }
            }
        }
    }
}

fn network_policy(new: &mut Value) {
    if new.pointer("/spec/policyTypes").is_none() {
        let mut kinds = vec![json!("Ingress")];
        if !object::list(new, "/spec/egress").is_empty() {
            kinds.push(json!("Egress"));
        }
        set(new, &["spec", "policyTypes"], Value::Array(kinds));
    }
    if let Some(spec) = new.get_mut("spec") {
        default_to(spec, &["podSelector"], json!({}));
        for direction in ["ingress", "egress"] {
            for rule in items(spec, &[direction]) {
                for port in items(rule, &["ports"]) {
                    default_to(port, &["protocol"], json!("TCP"));
                }
            }
        }
    }
}

fn binding(new: &mut Value) {
    default_to(new, &["roleRef", "apiGroup"], json!("rbac.authorization.k8s.io"));
    for subject in items(new, &["subjects"]) {
        if matches!(text(subject, "/kind"), "User" | "Group") {
            default_to(subject, &["apiGroup"], json!("rbac.authorization.k8s.io"));
        }
    }
}

fn definition(new: &mut Value) {
    let kind = text(new, "/spec/names/kind").to_owned();
    default_to(new, &["spec", "names", "singular"], json!(kind.to_lowercase()));
    default_to(new, &["spec", "names", "listKind"], json!(format!("{kind}List")));
    default_to(new, &["spec", "conversion"], json!({"strategy": "None"}));
}

fn webhooks(new: &mut Value, mutating: bool) {
    for hook in items(new, &["webhooks"]) {
        for (field, value) in [
            ("failurePolicy", json!("Fail")),
            ("matchPolicy", json!("Equivalent")),
            ("namespaceSelector", json!({})),
            ("objectSelector", json!({})),
            ("timeoutSeconds", json!(10)),
        ] {
            default_to(hook, &[field], value);
        }
        if mutating {
            default_to(hook, &["reinvocationPolicy"], json!("Never"));
        }
        if hook.pointer("/clientConfig/service").is_some() {
            default_to(hook, &["clientConfig", "service", "port"], json!(443));
        }
        for rule in items(hook, &["rules"]) {
            default_to(rule, &["scope"], json!("*"));
        }
    }
}

fn admission(kind: &str, new: &mut Value) {
    match kind {
        "validatingadmissionpolicies" => {
            default_to(new, &["spec", "failurePolicy"], json!("Fail"));
            admission_match(new, "matchConstraints");
            default_to(new, &["status"], json!({}));
        }
        "validatingadmissionpolicybindings" if new.pointer("/spec/matchResources").is_some() => {
            admission_match(new, "matchResources");
        }
        "validatingwebhookconfigurations" => webhooks(new, false),
        "mutatingwebhookconfigurations" => webhooks(new, true),
        _ => {}
    }
}

fn admission_match(new: &mut Value, field: &str) {
    for (name, value) in
        [("matchPolicy", json!("Equivalent")), ("namespaceSelector", json!({})), ("objectSelector", json!({}))]
    {
        default_to(new, &["spec", field, name], value);
    }
    for rule in items(new, &["spec", field, "resourceRules"]) {
        default_to(rule, &["scope"], json!("*"));
    }
}
