//! What is filled in for objects that stand for something else: APIServices for another server, token Secrets for an account.

use serde_json::json;

use super::super::auth;
use super::super::object::{self, annotation, put_condition, text};
use super::super::store::Key;
use super::Look;

/// A token Secret of the old kind is good for as long as it is there; ten years will do.
const FOR_GOOD_S: i64 = 315_360_000;

/// One look at an APIService: no other server runs here, so none that names a Service is ever available.
pub(crate) fn api_service(look: &mut Look<'_>, key: &Key) {
    let Some(found) = look.cluster.object(key) else { return };
    if found.pointer("/spec/service").is_none() {
        return;
    }
    let (namespace, name) = (text(&found, "/spec/service/namespace"), text(&found, "/spec/service/name"));
    let there = look.cluster.object(&Key::core("services", namespace, name)).is_some();
    let (reason, message) = if there {
        ("MissingEndpoints", format!("endpoints for service/{name} in \"{namespace}\" have no addresses"))
    } else {
        ("ServiceNotFound", format!("service/{name} in \"{namespace}\" is not present"))
    };
    let now = object::stamp(look.now);
    let row = json!({"type": "Available", "status": "False", "reason": reason, "message": message});
    look.cluster.change(key, |new| {
        if let Some(conditions) = object::list_mut(new, &["status", "conditions"]) {
            put_condition(conditions, row, &now);
        }
    });
}

/// One look at a Secret: one of the account-token type is given its token.
pub(crate) fn secret(look: &mut Look<'_>, key: &Key) {
    use base64::Engine as _;
    let Some(found) = look.cluster.object(key) else { return };
    let filled = object::map(&found, "/data").is_some_and(|data| data.contains_key("token"));
    if text(&found, "/type") != "kubernetes.io/service-account-token" || filled {
        return;
    }
    let Some(name) = annotation(&found, "kubernetes.io/service-account.name") else { return };
    let Some(account) = look.cluster.object(&Key::core("serviceaccounts", &key.namespace, name)) else { return };
    let audiences = ["https://kubernetes.default.svc".to_owned()];
    let uid = object::uid(&account).to_owned();
    let token = auth::mint(look.cluster, &key.namespace, name, &uid, &audiences, look.now, FOR_GOOD_S);
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let data = json!({"ca.crt": encode(&look.cluster.identity.ca_certificate), "namespace": encode(&key.namespace), "token": encode(&token)});
    look.cluster.change(key, |new| {
        object::set(new, &["data"], data);
        object::set(new, &["metadata", "annotations", "kubernetes.io/service-account.uid"], json!(uid));
    });
}
