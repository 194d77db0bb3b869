//! Resources that can only be created and are never stored: access and token reviews, bindings.

use serde_json::{Value, json};

use super::super::auth::{self, User, Wish};
use super::super::object::{self, list, text};
use super::super::resources::Resource;
use super::super::route::Place;
use super::super::status::{Cause, Refusal};
use super::{Answer, Call};

/// Answers a create of a review.
pub(crate) fn answer(call: &mut Call<'_>, resource: &Resource, place: &Place) -> Result<Answer, Refusal> {
    let mut body = call.body()?;
    let asked = body.get("spec").cloned();
    let status = match resource.plural.as_str() {
        "tokenreviews" => token_review(call, &body),
        "selfsubjectreviews" => json!({"userInfo": user_info(&call.user.clone())}),
        "selfsubjectrulesreviews" => rules_review(call, &body)?,
        "selfsubjectaccessreviews" => {
            let user = call.user.clone();
            access_review(call, &body, &user, resource)?
        }
        "subjectaccessreviews" | "localsubjectaccessreviews" => {
            let user = User {
                name: text(&body, "/spec/user").to_owned(),
                groups: list(&body, "/spec/groups").iter().filter_map(Value::as_str).map(str::to_owned).collect(),
                ..User::default()
            };
            access_review(call, &body, &user, resource)?
        }
        _ => return Err(super::method_not_allowed()),
    };
    object::set(&mut body, &["kind"], json!(resource.kind));
    object::set(&mut body, &["apiVersion"], json!(resource.api_version()));
    object::default_to(&mut body, &["metadata"], json!({}));
    if let Some(namespace) = &place.namespace {
        object::set(&mut body, &["metadata", "namespace"], json!(namespace));
    }
    if resource.plural == "selfsubjectrulesreviews" {
        object::set(&mut body, &["spec"], json!({}));
    } else {
        super::own_fields(call, resource, asked.as_ref(), "", &mut body);
    }
    if resource.plural == "selfsubjectreviews" {
        object::set(&mut body, &["metadata", "creationTimestamp"], json!(object::stamp(call.now)));
    }
    object::set(&mut body, &["status"], status);
    Ok(Answer::Object(201, body))
}

fn user_info(user: &User) -> Value {
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        object::set(&mut info, &["uid"], json!(user.uid));
        // Names the token; the next one has another.
        object::set(
            &mut info,
            &["extra"],
            json!({"authentication.kubernetes.io/credential-id": [format!("JTI={}", user.uid)]}),
        );
    }
    info
}

fn token_review(call: &mut Call<'_>, body: &Value) -> Value {
    let token = text(body, "/spec/token");
    match auth::of_token(call.cluster, token, call.request.wall, call.now, call.outside) {
        Some(user) => {
            let audiences = auth::service_account_claims(call.cluster, token)
                .and_then(|claims| claims.get("aud").cloned())
                .unwrap_or_else(|| json!(["https://kubernetes.default.svc"]));
            json!({"authenticated": true, "user": user_info(&user), "audiences": audiences})
        }
        None => json!({"user": {}, "error": "invalid bearer token"}),
    }
}

fn access_review(call: &mut Call<'_>, body: &Value, user: &User, resource: &Resource) -> Result<Value, Refusal> {
    let spec = |path: &str| text(body, &format!("/spec/resourceAttributes/{path}")).to_owned();
    let has_resource = body.pointer("/spec/resourceAttributes").is_some();
    let has_path = body.pointer("/spec/nonResourceAttributes").is_some();
    if has_resource == has_path {
        let cause = if has_resource {
            Cause::invalid(
                "spec.nonResourceAttributes",
                body.pointer("/spec/nonResourceAttributes").unwrap_or(&Value::Null),
                "cannot be specified in combination with resourceAttributes",
            )
        } else {
            Cause::invalid(
                "spec.resourceAttributes",
                &Value::Null,
                "exactly one of nonResourceAttributes or resourceAttributes must be specified",
            )
        };
        return Err(Refusal::invalid(&resource.group, "", "", &[cause]));
    }
    let sub = spec("subresource");
    let wish = if has_path {
        Wish {
            verb: text(body, "/spec/nonResourceAttributes/verb").to_owned(),
            path: Some(text(body, "/spec/nonResourceAttributes/path").to_owned()),
            ..Wish::default()
        }
    } else {
        Wish {
            verb: spec("verb"),
            group: spec("group"),
            resource: if sub.is_empty() { spec("resource") } else { format!("{}/{sub}", spec("resource")) },
            namespace: spec("namespace"),
            name: spec("name"),
            path: None,
        }
    };
    let found = auth::allowed(call.cluster, user, &wish);
    let mut status = json!({"allowed": found.is_some()});
    if let Some(reason) = found.filter(|reason| !reason.is_empty()) {
        object::set(&mut status, &["reason"], json!(reason));
    }
    Ok(status)
}

fn rules_review(call: &mut Call<'_>, body: &Value) -> Result<Value, Refusal> {
    let namespace = text(body, "/spec/namespace");
    if namespace.is_empty() {
        return Err(Refusal::bad_request("no namespace on request"));
    }
    let (paths, resources): (Vec<Value>, Vec<Value>) = auth::all_rules(call.cluster, &call.user, namespace)
        .into_iter()
        .partition(|rule| rule.get("nonResourceURLs").is_some());
    Ok(json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false}))
}
