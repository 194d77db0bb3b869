//! Instance profiles: what hangs a role on a machine, and keeps the role from being deleted.

use serde_json::{Value, json};

use super::wire::{Refusal, iso, need, text, texts};
use super::{Answer, Call, Record, unknown};

const PROFILE: &str = "iam:instance-profile";

pub(super) fn dispatch(call: &mut Call<'_>, input: &Value) -> Answer {
    let name = need(input, "InstanceProfileName")?.to_owned();
    if call.operation == "CreateInstanceProfile" {
        return create(call, &name);
    }
    let role = text(input, "/RoleName").to_owned();
    if call.operation == "AddRoleToInstanceProfile" && call.get("iam:role", &role).is_none() {
        return Err(super::iam::missing("role", &role));
    }
    let operation = call.operation.to_owned();
    let profile = call
        .get_mut(PROFILE, &name)
        .ok_or_else(|| Refusal::new(404, "NoSuchEntity", format!("Instance Profile {name} cannot be found.")))?;
    let roles = texts(&profile.body, "/_roles");
    match operation.as_str() {
        "GetInstanceProfile" => {
            let profile = profile.clone();
            return Ok(json!({"InstanceProfile": shown(call, &profile)}));
        }
        "AddRoleToInstanceProfile" if !roles.is_empty() => {
            let message = "Cannot exceed quota for InstanceSessionsPerInstanceProfile: 1";
            return Err(Refusal::new(409, "LimitExceeded", message));
        }
        "AddRoleToInstanceProfile" => profile.set("_roles", json!([role])),
        "RemoveRoleFromInstanceProfile" if !roles.contains(&role) => return Err(super::iam::missing("role", &role)),
        "RemoveRoleFromInstanceProfile" => profile.set("_roles", json!([])),
        "DeleteInstanceProfile" if !roles.is_empty() => {
            let message = "Cannot delete entity, must remove roles from instance profile first.";
            return Err(Refusal::new(409, "DeleteConflict", message));
        }
        "DeleteInstanceProfile" => drop(call.remove(PROFILE, &name)),
        _ => return unknown(call),
    }
    Ok(json!({}))
}

fn create(call: &mut Call<'_>, name: &str) -> Answer {
    if call.get(PROFILE, name).is_some() {
        let message = format!("Instance Profile {name} already exists.");
        return Err(Refusal::new(409, "EntityAlreadyExists", message));
    }
    let body = json!({
        "Path": "/", "InstanceProfileName": name, "InstanceProfileId": format!("AIPA{}", call.state.hex(17).to_uppercase()),
        "Arn": format!("arn:aws:iam::{}:instance-profile/{name}", call.account()), "CreateDate": iso(call.now_ms), "_roles": [],
    });
    let record = call.record(PROFILE, name, body, std::collections::BTreeMap::new());
    let answer = json!({"InstanceProfile": shown(call, &record)});
    call.state.put(record);
    Ok(answer)
}

/// The profiles that a role is in.
pub(super) fn of_role(call: &Call<'_>, role: &str) -> Vec<Value> {
    let has = |profile: &&Record| texts(&profile.body, "/_roles").iter().any(|one| one == role);
    call.all(PROFILE).filter(has).map(|profile| shown(call, profile)).collect()
}

fn shown(call: &Call<'_>, profile: &Record) -> Value {
    let mut body = profile.body.clone();
    let names = texts(&profile.body, "/_roles");
    let roles: Vec<Value> = names.iter().filter_map(|role| call.get("iam:role", role)).map(super::iam::shown).collect();
    if let Some(fields) = body.as_object_mut() {
        fields.insert("Roles".to_owned(), json!(roles));
    }
    body
}
