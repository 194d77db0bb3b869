//! IAM: roles with their policies, OIDC providers, instance profiles.

#![expect(
    clippy::indexing_slicing,
    reason = "reading a JSON value never panics, and every one that is written here is an object of our own making"
)]

use serde_json::{Value, json};

use super::wire::{Refusal, iso, items, need, text, texts};
use super::{Answer, Call, Record, instance_profiles, tag_list, tags_of, unknown};
use crate::faults::Effect;

const ROLE: &str = "iam:role";
const PROVIDER: &str = "iam:oidc-provider";

pub(super) fn dispatch(call: &mut Call<'_>, input: &Value) -> Answer {
    match call.operation {
        operation if operation.contains("OpenIDConnect") => providers(call, input),
        "CreateRole" => create_role(call, input),
        "SimulatePrincipalPolicy" => Ok(simulated(call, input)),
        "GetAccountSummary" => Ok(summary(call)),
        "ListRoles" => {
            let below = |role: &&Record| role.text("/Path").starts_with(text(input, "/PathPrefix"));
            Ok(json!({"Roles": call.all(ROLE).filter(below).map(shown).collect::<Vec<_>>(), "IsTruncated": false}))
        }
        "GetUser" => Ok(
            json!({"User": {"Arn": call.principal, "UserName": "platflow", "UserId": "AIDAPLATFLOW", "Path": "/", "CreateDate": iso(0)}}),
        ),
        "ListInstanceProfilesForRole" => {
            let name = role(call, input)?.id.clone();
            Ok(json!({"InstanceProfiles": instance_profiles::of_role(call, &name), "IsTruncated": false}))
        }
        operation if operation.ends_with("InstanceProfile") => instance_profiles::dispatch(call, input),
        "DeleteRole" => delete_role(call, input),
        "GetRole" => role(call, input).map(|role| json!({"Role": shown(role)})),
        "UpdateAssumeRolePolicy" => {
            let document = need(input, "PolicyDocument")?.to_owned();
            well_formed(&document)?;
            let role = role(call, input)?;
            role.set("AssumeRolePolicyDocument", encoded(&document));
            Ok(json!({}))
        }
        "UpdateRole" => {
            let words = text(input, "/Description").to_owned();
            role(call, input)?.set("Description", words);
            Ok(json!({}))
        }
        "TagRole" | "UntagRole" | "ListRoleTags" => {
            let add = call.operation == "TagRole";
            let list = call.operation == "ListRoleTags";
            let role = role(call, input)?;
            retag(role, input, add);
            Ok(if list {
                json!({"Tags": tag_list(&role.tags, "Key", "Value"), "IsTruncated": false})
            } else {
                json!({})
            })
        }
        _ => policies(call, input),
    }
}

/// What the caller's policies come to; nobody else's are simulated.
fn simulated(call: &Call<'_>, input: &Value) -> Value {
    let verdict = |action: String| {
        let (service, operation) = action.split_once(':').unwrap_or_default();
        let decision = if call.state.shape().denies(service, operation) { "explicitDeny" } else { "allowed" };
        json!({"EvalActionName": action, "EvalResourceName": "*", "EvalDecision": decision, "MatchedStatements": [], "MissingContextValues": []})
    };
    let results: Vec<Value> = texts(input, "/ActionNames").into_iter().map(verdict).collect();
    json!({"EvaluationResults": results, "IsTruncated": false})
}

/// Counts and quotas of the account, as far as they are simulated.
fn summary(call: &Call<'_>) -> Value {
    let roles = call.all(ROLE).count() as u64 + call.state.shape().other_roles;
    let entry = |name: &str, value: u64| json!({"key": name, "value": value});
    json!({"SummaryMap": [entry("Roles", roles), entry("RolesQuota", 1_000), entry("Users", 1), entry("UsersQuota", 5_000)]})
}

fn retag(record: &mut Record, input: &Value, add: bool) {
    if add {
        record.tags.extend(tags_of(&items(input, "/Tags"), "Key", "Value"));
    }
    for key in texts(input, "/TagKeys") {
        record.tags.remove(&key);
    }
}

pub(super) fn missing(what: &str, name: &str) -> Refusal {
    Refusal::new(404, "NoSuchEntity", format!("The {what} with name {name} cannot be found."))
}

fn encoded(document: &str) -> String {
    percent_encoding::utf8_percent_encode(document, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn role<'a>(call: &'a mut Call<'_>, input: &Value) -> Result<&'a mut Record, Refusal> {
    let name = need(input, "RoleName")?;
    call.get_mut(ROLE, name).ok_or_else(|| missing("role", name))
}

pub(super) fn shown(role: &Record) -> Value {
    let mut body = role.body.clone();
    if let Some(fields) = body.as_object_mut() {
        fields.insert("Tags".to_owned(), tag_list(&role.tags, "Key", "Value"));
    }
    body
}

fn well_formed(document: &str) -> Result<(), Refusal> {
    match serde_json::from_str::<Value>(document) {
        Ok(_) => Ok(()),
        Err(_) => Err(Refusal::bad("MalformedPolicyDocument", "This policy contains invalid Json")),
    }
}

fn create_role(call: &mut Call<'_>, input: &Value) -> Answer {
    let name = need(input, "RoleName")?.to_owned();
    let trust = need(input, "AssumeRolePolicyDocument")?.to_owned();
    well_formed(&trust)?;
    if call.get(ROLE, &name).is_some() {
        return Err(Refusal::new(409, "EntityAlreadyExists", format!("Role with name {name} already exists.")));
    }
    let path = Some(text(input, "/Path")).filter(|path| !path.is_empty()).unwrap_or("/");
    if !path.starts_with('/') || !path.ends_with('/') {
        let message = "The specified value for path is invalid. It must begin and end with / and contain only alphanumeric characters and/or / characters.";
        return Err(Refusal::bad("ValidationError", message));
    }
    let arn = format!("arn:aws:iam::{}:role{path}{name}", call.account());
    let id = format!("AROA{}", call.state.hex(17).to_uppercase());
    let mut body = json!({
        "Path": path, "RoleName": name, "RoleId": id, "Arn": arn, "CreateDate": iso(call.now_ms), "AssumeRolePolicyDocument": encoded(&trust),
        "Description": text(input, "/Description"), "MaxSessionDuration": 3600, "_attached": [], "_inline": {},
    });
    if let (Some(Effect::IamPropagation { lag_ms }), Some(fields)) = (call.effect, body.as_object_mut()) {
        fields.insert("_known_ms".to_owned(), json!(call.now_ms + lag_ms));
    }
    let record = call.record(ROLE, &name, body, tags_of(&items(input, "/Tags"), "Key", "Value"));
    let answer = json!({"Role": shown(&record)});
    call.state.put(record);
    Ok(answer)
}

fn delete_role(call: &mut Call<'_>, input: &Value) -> Answer {
    let role = role(call, input)?;
    if !items(&role.body, "/_attached").is_empty()
        || role.body["_inline"].as_object().is_some_and(|inline| !inline.is_empty())
    {
        return Err(Refusal::new(409, "DeleteConflict", "Cannot delete entity, must detach all policies first."));
    }
    let name = role.id.clone();
    if !instance_profiles::of_role(call, &name).is_empty() {
        return Err(Refusal::new(
            409,
            "DeleteConflict",
            "Cannot delete entity, must remove roles from instance profile first.",
        ));
    }
    call.remove(ROLE, &name);
    Ok(json!({}))
}

fn policies(call: &mut Call<'_>, input: &Value) -> Answer {
    let operation = call.operation.to_owned();
    let (arn, policy, document) =
        (text(input, "/PolicyArn"), text(input, "/PolicyName"), text(input, "/PolicyDocument"));
    if operation == "AttachRolePolicy" && !arn.starts_with("arn:aws:iam::") {
        return Err(Refusal::bad("InvalidInput", format!("ARN {arn} is not valid.")));
    }
    let role = role(call, input)?;
    let mut attached = texts(&role.body, "/_attached");
    let mut inline = role.body["_inline"].as_object().cloned().unwrap_or_default();
    let answer = match operation.as_str() {
        "AttachRolePolicy" => {
            if !attached.iter().any(|known| known == arn) {
                attached.push(arn.to_owned());
            }
            json!({})
        }
        "DetachRolePolicy" => {
            let before = attached.len();
            attached.retain(|known| known != arn);
            if attached.len() == before {
                return Err(Refusal::new(404, "NoSuchEntity", format!("Policy {arn} was not found.")));
            }
            json!({})
        }
        "PutRolePolicy" => {
            if serde_json::from_str::<Value>(document).is_err() {
                return Err(Refusal::bad("MalformedPolicyDocument", "Syntax errors in policy."));
            }
            inline.insert(policy.to_owned(), json!(document));
            json!({})
        }
        "DeleteRolePolicy" => {
            inline.remove(policy).ok_or_else(|| missing("role policy", policy))?;
            json!({})
        }
        "GetRolePolicy" => {
            let found = inline.get(policy).and_then(Value::as_str).ok_or_else(|| missing("role policy", policy))?;
            return Ok(json!({"RoleName": role.id, "PolicyName": policy, "PolicyDocument": encoded(found)}));
        }
        "ListRolePolicies" => {
            return Ok(json!({"PolicyNames": inline.keys().collect::<Vec<_>>(), "IsTruncated": false}));
        }
        "ListAttachedRolePolicies" => {
            let list: Vec<Value> =
                attached.iter().map(|arn| json!({"PolicyArn": arn, "PolicyName": arn.rsplit('/').next()})).collect();
            return Ok(json!({"AttachedPolicies": list, "IsTruncated": false}));
        }
        _ => return unknown(call),
    };
    role.set("_attached", attached);
    role.set("_inline", Value::Object(inline));
    Ok(answer)
}

fn providers(call: &mut Call<'_>, input: &Value) -> Answer {
    match call.operation {
        "CreateOpenIDConnectProvider" => return create_provider(call, input),
        "ListOpenIDConnectProviders" => {
            return Ok(
                json!({"OpenIDConnectProviderList": call.all(PROVIDER).map(|record| json!({"Arn": record.id})).collect::<Vec<_>>()}),
            );
        }
        _ => {}
    }
    let operation = call.operation.to_owned();
    let arn = need(input, "OpenIDConnectProviderArn")?;
    let client = text(input, "/ClientID");
    let Some(record) = call.get_mut(PROVIDER, arn) else {
        return Err(Refusal::new(404, "NoSuchEntity", format!("OpenIDConnect Provider not found for arn {arn}")));
    };
    let mut clients = texts(&record.body, "/ClientIDList");
    match operation.as_str() {
        "GetOpenIDConnectProvider" => return Ok(shown(record)),
        "AddClientIDToOpenIDConnectProvider" if !clients.iter().any(|known| known == client) => {
            clients.push(client.to_owned())
        }
        "AddClientIDToOpenIDConnectProvider" => {}
        "RemoveClientIDFromOpenIDConnectProvider" => clients.retain(|known| known != client),
        "TagOpenIDConnectProvider" => retag(record, input, true),
        "UntagOpenIDConnectProvider" => retag(record, input, false),
        "ListOpenIDConnectProviderTags" => {
            return Ok(json!({"Tags": tag_list(&record.tags, "Key", "Value"), "IsTruncated": false}));
        }
        "DeleteOpenIDConnectProvider" => {
            call.remove(PROVIDER, arn);
            return Ok(json!({}));
        }
        _ => return unknown(call),
    }
    record.set("ClientIDList", clients);
    Ok(json!({}))
}

fn create_provider(call: &mut Call<'_>, input: &Value) -> Answer {
    let url = need(input, "Url")?;
    let Some(bare) = url.strip_prefix("https://") else {
        return Err(Refusal::bad("ValidationError", "Invalid Open ID Connect Provider URL"));
    };
    let arn = format!("arn:aws:iam::{}:oidc-provider/{bare}", call.account());
    if call.get(PROVIDER, &arn).is_some() {
        return Err(Refusal::new(409, "EntityAlreadyExists", format!("Provider with url {url} already exists.")));
    }
    let body = json!({"Url": bare, "ClientIDList": texts(input, "/ClientIDList"), "ThumbprintList": texts(input, "/ThumbprintList"), "CreateDate": iso(call.now_ms)});
    let record = call.record(PROVIDER, &arn, body, tags_of(&items(input, "/Tags"), "Key", "Value"));
    call.state.put(record);
    Ok(json!({"OpenIDConnectProviderArn": arn}))
}
