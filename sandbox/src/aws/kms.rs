//! KMS: keys, aliases, rotation, and deletion that takes days.

#![expect(
    clippy::indexing_slicing,
    reason = "reading a JSON value never panics, and every one that is written here is an object of our own making"
)]

use serde_json::{Value, json};

use super::wire::{Refusal, epoch, items, need, number, text, texts};
use super::{Answer, Call, Record, tag_list, tags_of, unknown};

const KEY: &str = "kms:key";
const ALIAS: &str = "kms:alias";

pub(super) fn dispatch(call: &mut Call<'_>, input: &Value) -> Answer {
    match call.operation {
        "CreateKey" => create_key(call, input),
        "ListKeys" => Ok(
            json!({"Keys": call.all(KEY).map(|key| json!({"KeyId": key.id, "KeyArn": key.text("/Arn")})).collect::<Vec<_>>(), "Truncated": false}),
        ),
        "ListAliases" => {
            let wanted = text(input, "/KeyId").rsplit('/').next().unwrap_or_default();
            if !wanted.is_empty() && call.get(KEY, wanted).is_none() {
                return Err(missing("Key", wanted));
            }
            let found: Vec<&Value> = call
                .all(ALIAS)
                .filter(|alias| wanted.is_empty() || alias.text("/TargetKeyId") == wanted)
                .map(|alias| &alias.body)
                .collect();
            Ok(json!({"Aliases": found, "Truncated": false}))
        }
        "CreateAlias" | "UpdateAlias" => put_alias(call, input),
        "DeleteAlias" => {
            let name = need(input, "AliasName")?;
            call.remove(ALIAS, name).ok_or_else(|| missing("Alias", name))?;
            Ok(Value::Null)
        }
        _ => key_call(call, input),
    }
}

fn missing(what: &str, id: &str) -> Refusal {
    Refusal::bad("NotFoundException", format!("{what} '{id}' does not exist"))
}

fn resolve(call: &Call<'_>, id: &str) -> String {
    match id.find("alias/") {
        Some(at) => call
            .get(ALIAS, id.get(at..).unwrap_or_default())
            .map(|alias| alias.text("/TargetKeyId").to_owned())
            .unwrap_or_default(),
        None => id.rsplit('/').next().unwrap_or_default().to_owned(),
    }
}

fn create_key(call: &mut Call<'_>, input: &Value) -> Answer {
    let id = call.state.uuid();
    let policy = match text(input, "/Policy") {
        "" => default_policy(&call.account()),
        given => given.to_owned(),
    };
    let body = json!({
        "KeyId": id, "Arn": call.arn("kms", &format!("key/{id}")), "AWSAccountId": call.account(), "Description": text(input, "/Description"), "Enabled": true,
        "KeyState": "Enabled", "KeyUsage": "ENCRYPT_DECRYPT", "KeySpec": "SYMMETRIC_DEFAULT", "KeyManager": "CUSTOMER", "Origin": "AWS_KMS", "MultiRegion": false,
        "CreationDate": epoch(call.now_ms), "_rotation": false, "_policy": policy,
    });
    let record = call.record(KEY, &id, body, tags_of(&items(input, "/Tags"), "TagKey", "TagValue"));
    let answer = json!({"KeyMetadata": public(&record)});
    call.state.put(record);
    Ok(answer)
}

/// The policy of a key for which none was given: the account decides through IAM.
fn default_policy(account: &str) -> String {
    json!({
        "Version": "2012-10-17", "Id": "key-default-1",
        "Statement": [{"Sid": "Enable IAM User Permissions", "Effect": "Allow", "Principal": {"AWS": format!("arn:aws:iam::{account}:root")}, "Action": "kms:*", "Resource": "*"}],
    })
    .to_string()
}

fn public(key: &Record) -> Value {
    let mut body = key.body.clone();
    if let Some(fields) = body.as_object_mut() {
        fields.retain(|name, _| !name.starts_with('_'));
    }
    body
}

fn put_alias(call: &mut Call<'_>, input: &Value) -> Answer {
    let name = need(input, "AliasName")?.to_owned();
    let target = resolve(call, need(input, "TargetKeyId")?);
    if !name.starts_with("alias/") {
        return Err(Refusal::bad("ValidationException", "Alias must start with the prefix \"alias/\"."));
    }
    if name.starts_with("alias/aws/") {
        return Err(Refusal::bad("NotAuthorizedException", format!("{name} is reserved for AWS")));
    }
    let key = call.get(KEY, &target).ok_or_else(|| missing("Key", &target))?;
    if key.text("/KeyState") == "PendingDeletion" {
        return Err(pending(key));
    }
    let arn = call.arn("kms", &name);
    let known = call.get(ALIAS, &name).is_some();
    match (call.operation, known) {
        ("CreateAlias", true) => {
            return Err(Refusal::bad("AlreadyExistsException", format!("An alias with the name {arn} already exists")));
        }
        ("UpdateAlias", false) => return Err(missing("Alias", &arn)),
        _ => {}
    }
    let record = call.record(
        ALIAS,
        &name,
        json!({"AliasName": name, "AliasArn": arn, "TargetKeyId": target, "CreationDate": epoch(call.now_ms)}),
        std::collections::BTreeMap::new(),
    );
    call.state.put(record);
    Ok(Value::Null)
}

fn pending(key: &Record) -> Refusal {
    Refusal::bad("KMSInvalidStateException", format!("{} is pending deletion.", key.text("/Arn")))
}

fn key_call(call: &mut Call<'_>, input: &Value) -> Answer {
    let asked = need(input, "KeyId")?.to_owned();
    let id = resolve(call, &asked);
    let (operation, now_ms) = (call.operation.to_owned(), call.now_ms);
    let key = call.get_mut(KEY, &id).ok_or_else(|| missing("Key", &asked))?;
    let doomed = key.text("/KeyState") == "PendingDeletion";
    match operation.as_str() {
        "DescribeKey" => return Ok(json!({"KeyMetadata": public(key)})),
        "ListResourceTags" => {
            return Ok(json!({"Tags": tag_list(&key.tags, "TagKey", "TagValue"), "Truncated": false}));
        }
        "ListGrants" => return Ok(json!({"Grants": [], "Truncated": false})),
        "ListKeyPolicies" => return Ok(json!({"PolicyNames": ["default"], "Truncated": false})),
        "GetKeyPolicy" => return Ok(json!({"Policy": key.text("/_policy"), "PolicyName": "default"})),
        "GetKeyRotationStatus" => return Ok(json!({"KeyRotationEnabled": key.body["_rotation"], "KeyId": id})),
        "CancelKeyDeletion" if doomed => {
            key.set("KeyState", "Disabled");
            key.set("DeletionDate", Value::Null);
            key.due_ms = None;
            return Ok(json!({"KeyId": key.text("/Arn")}));
        }
        "CancelKeyDeletion" => {
            return Err(Refusal::bad(
                "KMSInvalidStateException",
                format!("{} is not pending deletion.", key.text("/Arn")),
            ));
        }
        _ if doomed => return Err(pending(key)),
        "ScheduleKeyDeletion" => {
            let days = number(input, "/PendingWindowInDays").unwrap_or(30);
            if !(7..=30).contains(&days) {
                return Err(Refusal::bad("ValidationException", "PendingWindowInDays must be between 7 and 30"));
            }
            let due_ms = now_ms + days * 86_400_000;
            key.set("KeyState", "PendingDeletion");
            key.set("Enabled", false);
            key.set("DeletionDate", epoch(due_ms));
            key.then(due_ms, "gone");
            return Ok(
                json!({"KeyId": key.text("/Arn"), "DeletionDate": epoch(due_ms), "KeyState": "PendingDeletion", "PendingWindowInDays": days}),
            );
        }
        "EnableKey" | "DisableKey" => {
            let on = operation == "EnableKey";
            key.set("KeyState", if on { "Enabled" } else { "Disabled" });
            key.set("Enabled", on);
        }
        "EnableKeyRotation" | "DisableKeyRotation" => key.set("_rotation", operation == "EnableKeyRotation"),
        "PutKeyPolicy" => key.set("_policy", text(input, "/Policy")),
        "UpdateKeyDescription" => key.set("Description", text(input, "/Description")),
        "TagResource" => key.tags.extend(tags_of(&items(input, "/Tags"), "TagKey", "TagValue")),
        "UntagResource" => {
            for name in texts(input, "/TagKeys") {
                key.tags.remove(&name);
            }
        }
        _ => return unknown(call),
    }
    Ok(Value::Null)
}
