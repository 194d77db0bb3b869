//! OpenAPI: the index of group-versions, and of each which requests it takes, as kubectl asks before it validates.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::cluster::Cluster;
use super::model::KubeReply;
use super::object;
use super::resources::Resource;
use super::status::Refusal;
use super::verbs::{Answer, Call};

/// Answers `/openapi/v3` and what is below it.
pub(crate) fn answer(call: &Call<'_>, rest: &str) -> Result<Answer, Refusal> {
    let mut paths = json!({});
    let mut seen: Vec<String> = Vec::new();
    for resource in call.cluster.resources() {
        let path = prefix(resource);
        if seen.contains(&path) {
            continue;
        }
        let kinds: Vec<String> = call
            .cluster
            .resources()
            .filter(|each| each.group == resource.group && each.version == resource.version)
            .map(|each| {
                format!("{}{}", each.kind, each.schema.as_ref().map(|schema| schema.to_string()).unwrap_or_default())
            })
            .collect();
        let digest = hex::encode_upper(Sha256::digest(kinds.join(",")));
        object::set(
            &mut paths,
            &[path.as_str()],
            json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={digest}")}),
        );
        seen.push(path);
    }
    let mut others: Vec<String> =
        [".well-known/openid-configuration", "api", "apis", "openid/v1/jwks", "version"].map(str::to_owned).to_vec();
    others.extend(
        seen.iter()
            .filter_map(|path| path.strip_prefix("apis/")?.split('/').next())
            .map(|group| format!("apis/{group}")),
    );
    for path in others.clone() {
        let digest = hex::encode_upper(Sha256::digest(&path));
        object::set(
            &mut paths,
            &[path.as_str()],
            json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={digest}")}),
        );
    }
    seen.extend(others);
    let text = |status: u16, content_type: &str, body: String| {
        let headers = vec![("cache-control".to_owned(), "no-cache, private".to_owned())];
        Ok(Answer::Reply(KubeReply::Text { status, content_type: content_type.to_owned(), headers, body }))
    };
    if rest.is_empty() {
        return text(200, "text/plain; charset=utf-8", json!({"paths": paths}).to_string());
    }
    if !seen.iter().any(|path| path == rest) {
        return text(404, "", String::new());
    }
    Ok(Answer::Object(200, document(call.cluster, rest)))
}

/// The document of a group-version: what clients look for in it is which parameters a patch of each kind takes. There are no schemas.
fn document(cluster: &Cluster, path: &str) -> Value {
    let mut paths = json!({});
    for resource in cluster.resources().filter(|each| prefix(each) == path && each.verbs.contains(&"patch")) {
        let scope = if resource.namespaced { "namespaces/{namespace}/" } else { "" };
        let place = format!("/{path}/{scope}{}/{{name}}", resource.plural);
        object::set(&mut paths, &[place.as_str()], json!({"patch": patch(resource)}));
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": format!("v{}.2", cluster.identity.info.version)},
        "paths": paths,
        "components": {"schemas": {}},
    })
}

fn patch(resource: &Resource) -> Value {
    let parameter =
        |name: &str, kind: &str| json!({"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": true}});
    json!({
        "operationId": format!("patch{}{}", resource.version, resource.kind),
        "x-kubernetes-action": "patch",
        "x-kubernetes-group-version-kind": {"group": resource.group, "version": resource.version, "kind": resource.kind},
        "parameters": [
            parameter("dryRun", "string"),
            parameter("fieldManager", "string"),
            parameter("fieldValidation", "string"),
            parameter("force", "boolean"),
        ],
        "responses": {"200": {"description": "OK"}, "201": {"description": "Created"}},
    })
}

/// Where the document of a resource's group-version lies.
fn prefix(resource: &Resource) -> String {
    if resource.group.is_empty() {
        format!("api/{}", resource.version)
    } else {
        format!("apis/{}/{}", resource.group, resource.version)
    }
}
