//! Validation of objects: names, required fields, immutable fields.

use serde_json::{Value, json};

use super::cluster::Cluster;
use super::object;
use super::resources::Resource;
use super::status::{Cause, Refusal};

/// Checks an object before it is stored.
pub(crate) fn check(
    _cluster: &Cluster,
    resource: &Resource,
    live: Option<&Value>,
    new: &Value,
    _sub: &str,
) -> Result<(), Refusal> {
    let mut causes = Vec::new();
    if live.is_none() {
        name(resource, new, &mut causes);
    }
    if causes.is_empty() {
        Ok(())
    } else {
        Err(Refusal::invalid(&resource.group, &resource.kind, object::name(new), &causes))
    }
}

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

fn label_ok(text: &str) -> bool {
    let edge =
        |letter: Option<char>| letter.is_some_and(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit());
    edge(text.chars().next())
        && edge(text.chars().last())
        && text.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-')
}

fn name(resource: &Resource, new: &Value, causes: &mut Vec<Cause>) {
    let name = object::name(new);
    if name.is_empty() {
        causes.push(Cause::required("metadata.name", "name or generateName is required"));
        return;
    }
    let label = resource.is("", "namespaces") || resource.is("", "services");
    if resource.group == "rbac.authorization.k8s.io" {
        return;
    }
    if label && !label_ok(name) {
        causes.push(Cause::invalid("metadata.name", &json!(name), LABEL));
    } else if !label && !name.split('.').all(label_ok) {
        causes.push(Cause::invalid("metadata.name", &json!(name), SUBDOMAIN));
    }
    let most = if label { 63 } else { 253 };
    if name.len() > most {
        causes.push(Cause::invalid("metadata.name", &json!(name), &format!("must be no more than {most} bytes")));
    }
}
