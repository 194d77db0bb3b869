//! Single objects: whose they are, how they differ, server-side apply of ours, and deletion proven by a 404.
//!
//! Ours means the labels `platflow.io/environment-uid` and `platflow.io/step`. Nothing here waits: callers poll.

use super::api::{Api, ObjectKey};
use super::difference;
use super::failure::{Failure, Meaning};
use super::held::held;
use super::managed;
use data_encoding::BASE32_NOPAD;
use platflow_engine::context::Context;
use platflow_engine::failure::{ErrorClass, Residue, StepError};
use platflow_engine::foreign;
use platflow_engine::step::{Difference, Ownership};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

pub(crate) const UID_LABEL: &str = "platflow.io/environment-uid";
pub(crate) const STEP_LABEL: &str = "platflow.io/step";
const ENVIRONMENT_ANNOTATION: &str = "platflow.io/environment";
const RUN_ANNOTATION: &str = "platflow.io/run";

/// The text at a JSON pointer, or "".
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The items at a JSON pointer; `null` and absent count as none (a fresh CRD's conditions are `null`).
pub(crate) fn items<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The whole number at a JSON pointer.
pub(crate) fn number(value: &Value, pointer: &str) -> Option<i64> {
    value.pointer(pointer).and_then(Value::as_i64)
}

/// The status, reason and message of a condition.
pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let found = items(object, "/status/conditions").iter().find(|condition| text(condition, "/type") == kind)?;
    Some((text(found, "/status"), text(found, "/reason"), text(found, "/message")))
}

/// A label value: at most 63 characters that end alphanumeric; longer names are cut and told apart by a hash.
pub(crate) fn label_value(text: &str) -> String {
    let fits = text.len() <= 63 && text.ends_with(|last: char| last.is_ascii_alphanumeric());
    if fits {
        return text.to_owned();
    }
    let hash = BASE32_NOPAD.encode(&Sha256::digest(text.as_bytes())).to_ascii_lowercase();
    let head: String = text.chars().take(46).collect();
    let tail: String = hash.chars().take(16).collect();
    format!("{head}-{tail}")
}

/// The labels of everything that a step owns.
pub(crate) fn labels(context: &Context) -> [(&'static str, String); 2] {
    [(UID_LABEL, label_value(context.environment_uid.as_str())), (STEP_LABEL, label_value(context.step.as_str()))]
}

fn members<'a>(object: &'a mut Value, path: &[&str]) -> Option<&'a mut Map<String, Value>> {
    let mut at = object;
    for part in path {
        let here = at.as_object_mut()?.entry(*part).or_insert_with(|| json!({}));
        if here.is_null() {
            *here = json!({});
        }
        at = here;
    }
    at.as_object_mut()
}

/// The object with our labels and annotations. The run is provenance: a later run leaves the first one's name.
pub(crate) fn dressed(object: &Value, stored: Option<&Value>, context: &Context) -> Value {
    let mut object = object.clone();
    if let Some(own) = members(&mut object, &["metadata", "labels"]) {
        own.extend(labels(context).map(|(label, value)| (label.to_owned(), value.into())));
    }
    let run = stored
        .and_then(|stored| stored.pointer("/metadata/annotations/platflow.io~1run"))
        .and_then(Value::as_str)
        .unwrap_or(context.run.as_str());
    if let Some(annotations) = members(&mut object, &["metadata", "annotations"]) {
        annotations.insert(STEP_LABEL.to_owned(), context.step.as_str().into());
        annotations.insert(ENVIRONMENT_ANNOTATION.to_owned(), context.environment.as_str().into());
        annotations.insert(RUN_ANNOTATION.to_owned(), run.into());
    }
    object
}

/// Whose a stored object is. `recorded`: the uid on our record, which proves it ours even when labels were lost.
pub(crate) fn ownership(stored: &Value, recorded: Option<&str>, context: &Context) -> Ownership {
    let label =
        |name: &str| stored.pointer("/metadata/labels").and_then(|labels| labels.get(name)).and_then(Value::as_str);
    let [(_, uid), (_, step)] = labels(context);
    let on_record = recorded.is_some_and(|recorded| recorded == text(stored, "/metadata/uid"));
    match label(UID_LABEL) {
        Some(found) if found == uid && (on_record || label(STEP_LABEL) == Some(step.as_str())) => Ownership::Ours,
        None if on_record => Ownership::Ours,
        Some(found) => Ownership::Foreign(foreign::environment(
            text(stored, "/metadata/annotations/platflow.io~1environment"),
            found,
            label(STEP_LABEL).unwrap_or("unknown"),
            text(stored, "/metadata/annotations/platflow.io~1run"),
        )),
        None => Ownership::Foreign(stranger(stored)),
    }
}

fn stranger(stored: &Value) -> String {
    let mut managers: Vec<&str> =
        items(stored, "/metadata/managedFields").iter().map(|entry| text(entry, "/manager")).collect();
    managers.sort_unstable();
    managers.dedup();
    let labels: Vec<String> = stored
        .pointer("/metadata/labels")
        .and_then(Value::as_object)
        .map(|labels| {
            labels.iter().take(6).map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or("?"))).collect()
        })
        .unwrap_or_default();
    let managers = if managers.is_empty() { "unknown".to_owned() } else { managers.join(", ") };
    let labels = if labels.is_empty() { "none".to_owned() } else { labels.join(", ") };
    format!("somebody else (field managers: {managers}; labels: {labels})")
}

/// The refusal to touch somebody else's object.
pub(crate) fn foreign(what: &dyn std::fmt::Display, owner: &str) -> StepError {
    foreign::refusal(what, owner)
}

/// One object as it stands.
#[derive(Debug)]
pub(crate) struct Standing {
    /// As stored.
    pub(crate) stored: Value,
    /// Whose it is.
    pub(crate) ownership: Ownership,
    /// What our apply would change.
    pub(crate) differences: Vec<Difference>,
}

impl Standing {
    /// Its uid.
    pub(crate) fn uid(&self) -> &str {
        text(&self.stored, "/metadata/uid")
    }

    /// Whether it is on its way out.
    pub(crate) fn is_leaving(&self) -> bool {
        !text(&self.stored, "/metadata/deletionTimestamp").is_empty()
    }
}

/// Looks at one object: a read, and a dry run where the read does not prove that it is as wanted.
pub(crate) async fn stand(
    api: &Api<'_>,
    key: &ObjectKey,
    wanted: &Value,
    recorded: Option<&str>,
) -> Result<Option<Standing>, StepError> {
    let Some(stored) = api.get(key).await? else { return Ok(None) };
    let ownership = ownership(&stored, recorded, api.context);
    let mut standing = Standing { stored, ownership, differences: Vec::new() };
    if standing.is_leaving() || standing.ownership != Ownership::Ours {
        return Ok(Some(standing));
    }
    let body = dressed(wanted, Some(&standing.stored), api.context);
    if managed::is_as_applied(&standing.stored, &body) {
        return Ok(Some(standing));
    }
    match api.dry_apply(key, &body).await {
        Ok(applied) => standing.differences = difference::differences(&standing.stored, &applied),
        Err(failure) if failure.meaning == Meaning::Invalid => {
            standing.differences = vec![fixed(&failure, &body, &standing.stored)]
        }
        Err(failure) => return Err(failure.into()),
    }
    Ok(Some(standing))
}

/// A field that the server refuses to change in place.
fn fixed(failure: &Failure, wanted: &Value, stored: &Value) -> Difference {
    let pointer = format!("/{}", failure.field.clone().unwrap_or_default().replace(['.', '['], "/").replace(']', ""));
    let at = |object: &Value| object.pointer(&pointer).cloned().unwrap_or(Value::Null);
    Difference { wanted: at(wanted), found: at(stored), field: pointer, replace: true }
}

/// What cannot be changed in place, as the error to report.
pub(crate) fn replacement(what: &dyn std::fmt::Display, difference: &Difference) -> StepError {
    StepError::new(
        ErrorClass::NeedsHuman,
        format!(
            "{what} cannot be changed in place: {} is {} and should be {}",
            difference.field, difference.found, difference.wanted
        ),
    )
    .leaving(Residue::Present)
    .with_code("ReplacementNeeded")
    .with_remedy("put the old value back, or destroy the step and build it again")
}

/// Applies one object of ours; force only when it is there and ours already.
pub(crate) async fn put(
    api: &Api<'_>,
    key: &ObjectKey,
    wanted: &Value,
    standing: Option<&Standing>,
) -> Result<Value, StepError> {
    let permit = api.context.begin(&format!("apply/{key}"))?;
    let body = dressed(wanted, standing.map(|standing| &standing.stored), api.context);
    Ok(api.apply(key, &body, standing.is_some(), &permit).await?)
}

/// Where the removal of one object stands.
#[derive(Debug)]
pub(crate) enum Removal {
    /// A GET answered 404, or the name belongs to somebody else: `evidence` says which.
    Gone(String),
    /// On its way.
    Going(String),
}

/// Deletes one object if it is ours, and looks whether it is gone.
pub(crate) async fn remove(
    api: &Api<'_>,
    key: &ObjectKey,
    recorded: Option<&str>,
    propagation: &str,
) -> Result<Removal, StepError> {
    let Some(stored) = api.get(key).await? else { return Ok(Removal::Gone(format!("GET {key}: 404"))) };
    if let Ownership::Foreign(owner) = ownership(&stored, recorded, api.context) {
        return Ok(Removal::Gone(format!("{key} belongs to {owner}; nothing of this step exists")));
    }
    if text(&stored, "/metadata/deletionTimestamp").is_empty() {
        let permit = api.context.begin(&format!("delete/{key}"))?;
        api.delete(key, text(&stored, "/metadata/uid"), propagation, &permit).await?;
    }
    match api.get(key).await? {
        Some(left) if text(&left, "/metadata/uid") == text(&stored, "/metadata/uid") => {
            Ok(Removal::Going(held(api, key, &left).await))
        }
        _ => Ok(Removal::Gone(format!("deleted {key}; GET: 404"))),
    }
}

/// Why an object that is being deleted is still there.
pub(crate) fn holding(key: &ObjectKey, left: &Value) -> String {
    let blockers: Vec<String> = [
        "NamespaceDeletionDiscoveryFailure",
        "NamespaceDeletionGroupVersionParsingFailure",
        "NamespaceDeletionContentFailure",
        "NamespaceContentRemaining",
        "NamespaceFinalizersRemaining",
        "Terminating",
    ]
    .iter()
    .filter_map(|kind| condition(left, kind))
    .filter(|(status, _, message)| *status == "True" && !message.is_empty())
    .map(|(_, _, message)| message.to_owned())
    .collect();
    let finalizers: Vec<&str> = items(left, "/metadata/finalizers").iter().filter_map(Value::as_str).collect();
    if !blockers.is_empty() {
        format!("{key} is being deleted: {}", blockers.join("; "))
    } else if finalizers.is_empty() {
        format!("{key} is being deleted")
    } else {
        format!("{key} is being deleted; it waits for finalizer {}", finalizers.join(", "))
    }
}
