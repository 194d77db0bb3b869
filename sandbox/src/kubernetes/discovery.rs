//! Discovery, version and health: the documents that tell a client what the server serves.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::cluster::Cluster;
use super::model::KubeReply;
use super::object::{self, text};
use super::resources::Resource;
use super::route::Route;
use super::status::Refusal;
use super::store::Key;
use super::verbs::{Answer, Call};

const CHECKS: [&str; 36] = [
    "ping",
    "log",
    "informer-sync",
    "poststarthook/start-apiserver-admission-initializer",
    "poststarthook/generic-apiserver-start-informers",
    "poststarthook/priority-and-fairness-config-consumer",
    "poststarthook/priority-and-fairness-filter",
    "poststarthook/storage-object-count-tracker-hook",
    "poststarthook/start-apiextensions-informers",
    "poststarthook/start-apiextensions-controllers",
    "poststarthook/crd-informer-synced",
    "poststarthook/start-system-namespaces-controller",
    "poststarthook/peer-endpoint-reconciler-controller",
    "poststarthook/start-cluster-authentication-info-controller",
    "poststarthook/start-kube-apiserver-identity-lease-controller",
    "poststarthook/start-kube-apiserver-identity-lease-garbage-collector",
    "poststarthook/storage-readiness",
    "poststarthook/start-legacy-token-tracking-controller",
    "poststarthook/start-service-ip-repair-controllers",
    "poststarthook/rbac/bootstrap-roles",
    "poststarthook/scheduling/bootstrap-system-priority-classes",
    "poststarthook/priority-and-fairness-config-producer",
    "poststarthook/bootstrap-controller",
    "poststarthook/start-kubernetes-service-cidr-controller",
    "poststarthook/aggregator-reload-proxy-client-cert",
    "poststarthook/start-kube-aggregator-informers",
    "poststarthook/apiservice-status-local-available-controller",
    "poststarthook/apiservice-status-remote-available-controller",
    "poststarthook/apiservice-registration-controller",
    "poststarthook/apiservice-wait-for-first-sync",
    "poststarthook/apiservice-discovery-controller",
    "poststarthook/kube-apiserver-autoregistration",
    "autoregister-completion",
    "poststarthook/apiservice-openapi-controller",
    "poststarthook/apiservice-openapiv3-controller",
    "shutdown",
];

/// Answers everything that is not an object path.
pub(crate) fn answer(call: &mut Call<'_>, route: &Route) -> Result<Answer, Refusal> {
    let probe = matches!(route, Route::Health(..));
    if !probe && !matches!(call.request.method.as_str(), "GET" | "HEAD") {
        return Err(super::verbs::method_not_allowed());
    }
    let aggregated = call.request.accept.as_deref().and_then(aggregated_version);
    match route {
        Route::Version => Ok(Answer::Object(200, version(call.cluster))),
        Route::Health(kind, check) => Ok(Answer::Reply(health(call, kind, check.as_deref()))),
        Route::CoreVersions | Route::Groups => {
            let core = matches!(route, Route::CoreVersions);
            match aggregated {
                Some(Ok(version)) => Ok(Answer::Reply(aggregate(call, core, version))),
                Some(Err(())) => Err(Refusal::new(
                    406,
                    Some("NotAcceptable"),
                    "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf",
                )),
                None if core => Ok(Answer::Object(
                    200,
                    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": "127.0.0.1:443"}]}),
                )),
                None => Ok(Answer::Object(
                    200,
                    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups(call.cluster).iter().chain(&registered_groups(call.cluster)).map(|group| group_document(call.cluster, group)).collect::<Vec<_>>()}),
                )),
            }
        }
        Route::Group(group) => {
            if !groups(call.cluster).contains(group) && !registered_groups(call.cluster).contains(group) {
                return Err(Refusal::page_not_found());
            }
            let mut document = group_document(call.cluster, group);
            object::set(&mut document, &["kind"], json!("APIGroup"));
            object::set(&mut document, &["apiVersion"], json!("v1"));
            Ok(Answer::Object(200, document))
        }
        Route::Resources(group, version) => resources_document(call.cluster, group, version),
        Route::OpenApi(rest) => super::openapi::answer(call, rest),
        Route::Object(_) | Route::Unknown => Err(Refusal::page_not_found()),
    }
}

fn version(cluster: &Cluster) -> Value {
    let version = &cluster.identity.info.version;
    let (major, minor) = version.split_once('.').unwrap_or(("1", "36"));
    let git = format!("v{version}.2-eks-5d4a308");
    json!({
        "major": major, "minor": minor, "emulationMajor": major, "emulationMinor": minor, "minCompatibilityMajor": major, "minCompatibilityMinor": minor.parse::<u32>().map(|minor| minor.saturating_sub(1).to_string()).unwrap_or_default(),
        "gitVersion": git, "gitCommit": "5d4a308f6d9dd8b7a7d3b8c5b2ff4d3d8f2a0b6e", "gitTreeState": "clean", "buildDate": "2026-08-14T05:12:37Z", "goVersion": "go1.25.1", "compiler": "gc", "platform": "linux/amd64"
    })
}

fn health(call: &Call<'_>, kind: &str, check: Option<&str>) -> KubeReply {
    let (status, body) = match check {
        Some(check) if !CHECKS.contains(&check) => (404, "404 page not found\n".to_owned()),
        _ if call.request.query("verbose").is_some() => {
            (200, format!("{}\n{kind} check passed\n", CHECKS.map(|check| format!("[+]{check} ok")).join("\n")))
        }
        _ => (200, "ok".to_owned()),
    };
    KubeReply::Text {
        status,
        content_type: "text/plain; charset=utf-8".to_owned(),
        headers: vec![("x-content-type-options".to_owned(), "nosniff".to_owned())],
        body,
    }
}

/// The groups that are served, core left out.
fn groups(cluster: &Cluster) -> Vec<String> {
    let mut groups: Vec<String> = Vec::new();
    for resource in cluster.resources() {
        if !resource.group.is_empty() && !groups.contains(&resource.group) {
            groups.push(resource.group.clone());
        }
    }
    groups
}

/// Groups that an APIService registers with another server: their documents come from the front one.
fn registered_groups(cluster: &Cluster) -> Vec<String> {
    let mut found: Vec<String> = cluster
        .store
        .list("apiregistration.k8s.io", "apiservices", None)
        .filter(|(_, service)| service.pointer("/spec/service").is_some())
        .map(|(_, service)| text(service, "/spec/group").to_owned())
        .collect();
    found.dedup();
    found
}

fn versions(cluster: &Cluster, group: &str) -> Vec<String> {
    let mut versions: Vec<String> = cluster
        .store
        .list("apiregistration.k8s.io", "apiservices", None)
        .filter(|(_, service)| service.pointer("/spec/service").is_some() && text(service, "/spec/group") == group)
        .map(|(_, service)| text(service, "/spec/version").to_owned())
        .collect();
    for resource in cluster.resources().filter(|each| each.group == group) {
        if !versions.contains(&resource.version) {
            versions.push(resource.version.clone());
        }
    }
    versions.sort_by_key(|version| {
        (version.contains("alpha"), version.contains("beta"), std::cmp::Reverse(version.clone()))
    });
    versions
}

fn group_document(cluster: &Cluster, group: &str) -> Value {
    let versions: Vec<Value> = versions(cluster, group)
        .iter()
        .map(|version| json!({"groupVersion": format!("{group}/{version}"), "version": version}))
        .collect();
    let preferred = versions.first().cloned().unwrap_or_default();
    json!({"name": group, "versions": versions, "preferredVersion": preferred})
}

fn resources_document(cluster: &Cluster, group: &str, version: &str) -> Result<Answer, Refusal> {
    let mut served: Vec<&Resource> =
        cluster.resources().filter(|each| each.group == group && each.version == version).map(AsRef::as_ref).collect();
    if served.is_empty() {
        if api_service_is_down(cluster, group, version) {
            return Err(Refusal::text(503, "service unavailable\n"));
        }
        let known = group.is_empty() || super::resources::built_in().iter().any(|each| each.group == group);
        return Err(if known { Refusal::no_such_resource() } else { Refusal::page_not_found() });
    }
    served.sort_by(|a, b| a.plural.cmp(&b.plural));
    let mut list = Vec::new();
    for resource in served {
        let mut entry = json!({"name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced, "kind": resource.kind, "verbs": resource.verbs});
        if !resource.short.is_empty() {
            object::set(&mut entry, &["shortNames"], json!(resource.short));
        }
        if !resource.categories.is_empty() {
            object::set(&mut entry, &["categories"], json!(resource.categories));
        }
        if resource.verbs.contains(&"create") && resource.verbs.len() > 1 {
            object::set(
                &mut entry,
                &["storageVersionHash"],
                json!(storage_hash(&format!("{group}/{version}/{}", resource.kind))),
            );
        }
        list.push(entry);
        for sub in &resource.subs {
            let mut entry = json!({"name": format!("{}/{}", resource.plural, sub.name), "singularName": "", "namespaced": resource.namespaced, "kind": sub.kind, "verbs": sub.verbs});
            if let Some((group, version)) = &sub.gv {
                object::set(&mut entry, &["group"], json!(group));
                object::set(&mut entry, &["version"], json!(version));
            }
            list.push(entry);
        }
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let mut document = json!({"kind": "APIResourceList", "groupVersion": group_version, "resources": list});
    if !group.is_empty() {
        object::set(&mut document, &["apiVersion"], json!("v1"));
    }
    Ok(Answer::Object(200, document))
}

/// `Some(Ok(v))` for an aggregated document in a known version, `Some(Err)` if only unknown versions are asked for.
fn aggregated_version(accept: &str) -> Option<Result<&'static str, ()>> {
    let mut unknown = false;
    for part in accept.split(',') {
        let compact = part.replace(' ', "");
        if compact.contains("as=APIGroupDiscoveryList") {
            if compact.contains("v=v2beta1") {
                return Some(Ok("v2beta1"));
            }
            if compact.contains("v=v2") {
                return Some(Ok("v2"));
            }
            unknown = true;
        } else {
            return None;
        }
    }
    unknown.then_some(Err(()))
}

fn storage_hash(text: &str) -> String {
    use base64::Engine as _;
    let digest = Sha256::digest(text);
    base64::engine::general_purpose::STANDARD.encode(digest.get(..8).unwrap_or_default())
}

fn aggregate(call: &Call<'_>, core: bool, version: &str) -> KubeReply {
    let cluster = &*call.cluster;
    let names = if core { vec![String::new()] } else { groups(cluster) };
    let mut items: Vec<Value> = names.iter().map(|group| aggregated_group(cluster, group)).collect();
    if !core {
        items.extend(stale_groups(cluster));
    }
    let body = json!({"kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {}, "items": items});
    let etag = format!("\"{}\"", hex::encode_upper(Sha256::digest(body.to_string())));
    let common = vec![
        ("etag".to_owned(), etag.clone()),
        ("vary".to_owned(), "Accept".to_owned()),
        ("cache-control".to_owned(), "public".to_owned()),
    ];
    if call.request.if_none_match.as_deref() == Some(&etag) {
        return KubeReply::Text { status: 304, content_type: String::new(), headers: common, body: String::new() };
    }
    KubeReply::Text {
        status: 200,
        content_type: format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"),
        headers: common,
        body: body.to_string(),
    }
}

fn aggregated_group(cluster: &Cluster, group: &str) -> Value {
    let versions: Vec<Value> = versions(cluster, group)
        .iter()
        .map(|version| {
            let mut served: Vec<&Resource> = cluster.resources().filter(|each| each.group == group && each.version == *version).map(AsRef::as_ref).collect();
            served.sort_by(|a, b| a.plural.cmp(&b.plural));
            json!({"version": version, "resources": served.into_iter().map(aggregated_resource).collect::<Vec<_>>(), "freshness": "Current"})
        })
        .collect();
    let metadata = if group.is_empty() { json!({}) } else { json!({"name": group}) };
    json!({"metadata": metadata, "versions": versions})
}

fn aggregated_resource(resource: &Resource) -> Value {
    let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let own = if resource.custom { (resource.group.as_str(), resource.version.as_str()) } else { ("", "") };
    let mut entry = json!({"resource": resource.plural, "responseKind": kind(own.0, own.1, &resource.kind), "scope": if resource.namespaced { "Namespaced" } else { "Cluster" }, "singularResource": resource.singular, "verbs": resource.verbs});
    if !resource.short.is_empty() {
        object::set(&mut entry, &["shortNames"], json!(resource.short));
    }
    if !resource.categories.is_empty() {
        object::set(&mut entry, &["categories"], json!(resource.categories));
    }
    if !resource.subs.is_empty() {
        let subs: Vec<Value> = resource
            .subs
            .iter()
            .map(|sub| {
                let (group, version) =
                    sub.gv.as_ref().map_or(own, |(group, version)| (group.as_str(), version.as_str()));
                json!({"subresource": sub.name, "responseKind": kind(group, version, &sub.kind), "verbs": sub.verbs})
            })
            .collect();
        object::set(&mut entry, &["subresources"], json!(subs));
    }
    entry
}

fn stale_groups(cluster: &Cluster) -> Vec<Value> {
    cluster
        .store
        .list("apiregistration.k8s.io", "apiservices", None)
        .filter(|(_, service)| service.pointer("/spec/service").is_some() && !object::condition_true(service, "Available"))
        .map(|(_, service)| json!({"metadata": {"name": text(service, "/spec/group")}, "versions": [{"version": text(service, "/spec/version"), "freshness": "Stale"}]}))
        .collect()
}

/// Whether an aggregated API is registered for a group-version (none of them has a backend here).
pub(crate) fn api_service_is_down(cluster: &Cluster, group: &str, version: &str) -> bool {
    let key = Key::new("apiregistration.k8s.io", "apiservices", "", &format!("{version}.{group}"));
    cluster.store.get(&key).is_some_and(|service| service.pointer("/spec/service").is_some())
}
