//! Launch templates and their versions.

#![expect(
    clippy::indexing_slicing,
    reason = "reading a JSON value never panics, and every one that is written here is an object of our own making"
)]

use serde_json::{Map, Value, json};

use super::super::wire::{Refusal, iso, items, need, number, text, texts};
use super::super::{Answer, Call};
use super::{existing, shown, specified};

const NOT_FOUND: &str = "InvalidLaunchTemplateId.NotFound";

/// Request names as answer names: the first letter small, and lists called sets.
fn answered(value: &Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .map(|(name, value)| {
                    let mut letters = name.chars();
                    let small: String =
                        letters.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(letters).collect();
                    let name = if value.is_array() && !small.ends_with('s') { format!("{small}Set") } else { small };
                    (name, answered(value))
                })
                .collect::<Map<_, _>>(),
        ),
        Value::Array(list) => Value::Array(list.iter().map(answered).collect()),
        other => other.clone(),
    }
}

fn version(call: &Call<'_>, id: &str, name: &str, number: usize, data: &Value, default: bool) -> Value {
    json!({"launchTemplateId": id, "launchTemplateName": name, "versionNumber": number, "defaultVersion": default, "createTime": iso(call.now_ms), "createdBy": call.principal, "launchTemplateData": answered(data)})
}

pub(super) fn create(call: &mut Call<'_>, input: &Value) -> Answer {
    let name = need(input, "LaunchTemplateName")?.to_owned();
    if call.all("ec2:launch-template").any(|record| record.text("/launchTemplateName") == name) {
        return Err(Refusal::bad(
            "InvalidLaunchTemplateName.AlreadyExistsException",
            "Launch template name already in use.",
        ));
    }
    let id = call.id("lt");
    let first = version(call, &id, &name, 1, &input["LaunchTemplateData"], true);
    let body = json!({"launchTemplateId": id, "launchTemplateName": name, "createTime": iso(call.now_ms), "createdBy": call.principal, "defaultVersionNumber": 1, "latestVersionNumber": 1, "_versions": [first]});
    let record = call.record("ec2:launch-template", &id, body, specified(input, "launch-template"));
    let answer = json!({"launchTemplate": shown(&record.body, &record.tags)});
    call.state.put(record);
    Ok(answer)
}

fn named(call: &Call<'_>, input: &Value) -> Result<String, Refusal> {
    let name = text(input, "/LaunchTemplateName");
    if name.is_empty() {
        return Ok(need(input, "LaunchTemplateId")?.to_owned());
    }
    call.all("ec2:launch-template")
        .find(|record| record.text("/launchTemplateName") == name)
        .map(|record| record.id.clone())
        .ok_or_else(|| {
            Refusal::bad(
                "InvalidLaunchTemplateName.NotFoundException",
                format!("The launch template {name} does not exist"),
            )
        })
}

fn not_found(wanted: &str) -> Refusal {
    Refusal::bad("InvalidLaunchTemplateId.VersionNotFound", format!("Could not find launch template version {wanted}"))
}

/// The parameters of the version that a new one is based on; those given for the new one take their place.
/// <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateLaunchTemplateVersion.html>, `SourceVersion`.
fn source(input: &Value, body: &Value) -> Result<Map<String, Value>, Refusal> {
    let wanted = text(input, "/SourceVersion");
    if wanted.is_empty() {
        return Ok(Map::new());
    }
    let version = items(body, "/_versions").into_iter().find(|one| is_version(one, wanted, body));
    let version = version.ok_or_else(|| not_found(wanted))?;
    Ok(version["launchTemplateData"].as_object().cloned().unwrap_or_default())
}

/// Whether a version is the one that `$Latest`, `$Default` or a number means.
fn is_version(one: &Value, wanted: &str, body: &Value) -> bool {
    match wanted {
        "$Latest" => one["versionNumber"] == body["latestVersionNumber"],
        "$Default" => one["versionNumber"] == body["defaultVersionNumber"],
        number => one["versionNumber"].as_i64() == number.parse().ok(),
    }
}

pub(super) fn create_version(call: &mut Call<'_>, input: &Value) -> Answer {
    let id = named(call, input)?;
    let record = existing(call, "ec2:launch-template", &id, NOT_FOUND)?;
    let name = record.text("/launchTemplateName").to_owned();
    let count = items(&record.body, "/_versions").len() + 1;
    let source = source(input, &record.body)?;
    let mut new = version(call, &id, &name, count, &input["LaunchTemplateData"], false);
    if let Some(data) = new.get_mut("launchTemplateData").and_then(Value::as_object_mut) {
        for (field, value) in source {
            data.entry(field).or_insert(value);
        }
    }
    let record = existing(call, "ec2:launch-template", &id, NOT_FOUND)?;
    record.set("latestVersionNumber", count);
    if let Some(list) = record.body.get_mut("_versions").and_then(Value::as_array_mut) {
        list.push(new.clone());
    }
    Ok(json!({"launchTemplateVersion": new}))
}

pub(super) fn modify(call: &mut Call<'_>, input: &Value) -> Answer {
    let id = named(call, input)?;
    let wanted = number(input, "/SetDefaultVersion").unwrap_or(0);
    let record = existing(call, "ec2:launch-template", &id, NOT_FOUND)?;
    if wanted < 1 || wanted > number(&record.body, "/latestVersionNumber").unwrap_or(0) {
        return Err(not_found(&wanted.to_string()));
    }
    record.set("defaultVersionNumber", wanted);
    for one in record.body.get_mut("_versions").and_then(Value::as_array_mut).into_iter().flatten() {
        one["defaultVersion"] = json!(one["versionNumber"] == json!(wanted));
    }
    Ok(json!({"launchTemplate": shown(&record.body, &record.tags)}))
}

pub(super) fn delete(call: &mut Call<'_>, input: &Value) -> Answer {
    let id = named(call, input)?;
    existing(call, "ec2:launch-template", &id, NOT_FOUND)?;
    let gone = call.remove("ec2:launch-template", &id);
    Ok(json!({"launchTemplate": gone.map(|record| shown(&record.body, &record.tags))}))
}

pub(super) fn versions(call: &mut Call<'_>, input: &Value) -> Answer {
    let id = named(call, input)?;
    let body = existing(call, "ec2:launch-template", &id, NOT_FOUND)?.body.clone();
    let wanted = texts(input, "/LaunchTemplateVersion");
    let fits = |one: &Value| wanted.is_empty() || wanted.iter().any(|wanted| is_version(one, wanted, &body));
    let found: Vec<Value> = items(&body, "/_versions").into_iter().filter(|one| fits(one)).collect();
    if found.is_empty() {
        return Err(not_found(&wanted.join(", ")));
    }
    Ok(json!({"launchTemplateVersionSet": found}))
}
