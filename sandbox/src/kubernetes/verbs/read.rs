//! Reading: get and list, with selectors, pages and resource versions.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::super::object;
use super::super::resources::Resource;
use super::super::route::Place;
use super::super::selectors::{FieldSelector, LabelSelector, selectable_fields};
use super::super::status::{Cause, Refusal};
use super::super::store::Key;
use super::{Answer, Call, shown};

/// GET of one object.
pub(crate) fn get(call: &mut Call<'_>, resource: &Resource, place: &Place) -> Result<Answer, Refusal> {
    wait_for_version(call, "get")?;
    let object = find(call, resource, place)?;
    Ok(Answer::Object(200, shown(resource, &object)))
}

/// The object that a path names.
pub(crate) fn find(call: &Call<'_>, resource: &Resource, place: &Place) -> Result<std::sync::Arc<Value>, Refusal> {
    let name = place.name.as_deref().unwrap_or_default();
    call.cluster.object(&key(resource, place)).ok_or_else(|| Refusal::not_found(resource, name))
}

/// The storage key of a path.
pub(crate) fn key(resource: &Resource, place: &Place) -> Key {
    let namespace = if resource.namespaced { place.namespace.as_deref().unwrap_or_default() } else { "" };
    Key::new(&resource.group, &resource.plural, namespace, place.name.as_deref().unwrap_or_default())
}

/// Label and field selector of a request.
pub(crate) struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Selection {
    /// Reads the query.
    pub(crate) fn of(call: &Call<'_>, resource: &Resource) -> Result<Self, Refusal> {
        Ok(Self {
            labels: call.request.query("labelSelector").map(LabelSelector::parse).transpose()?.unwrap_or_default(),
            fields: call
                .request
                .query("fieldSelector")
                .map(|text| FieldSelector::parse(text, selectable_fields(&resource.group, &resource.plural)))
                .transpose()?
                .unwrap_or_default(),
        })
    }

    /// Whether an object is selected.
    pub(crate) fn selects(&self, object: &Value) -> bool {
        self.labels.selects(object) && self.fields.selects(object)
    }

    fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }
}

/// Holds or refuses a read from the future.
pub(crate) fn wait_for_version(call: &Call<'_>, verb: &str) -> Result<(), Refusal> {
    let Some(wanted) = call.request.query("resourceVersion").filter(|text| !text.is_empty()) else { return Ok(()) };
    let Ok(version) = wanted.parse::<u64>() else {
        let text = format!(
            "resourceVersion: Invalid value: \"{wanted}\": strconv.ParseUint: parsing \"{wanted}\": invalid syntax"
        );
        return Err(if verb == "watch" {
            Refusal::new(500, None, text)
        } else {
            Refusal::bad_request(format!("invalid resource version: {text}"))
        });
    };
    let current = call.cluster.store.version();
    if version <= current || verb == "watch" {
        return Ok(());
    }
    if !call.request.waited {
        return Err(Refusal::later(3_000));
    }
    Err(Refusal::new(
        504,
        Some("Timeout"),
        format!("Timeout: Too large resource version: {version}, current: {current}"),
    )
    .with_cause("ResourceVersionTooLarge", "Too large resource version", None)
    .with_retry_after(1))
}

/// Checks the combination of list parameters.
pub(crate) fn check_options(call: &Call<'_>, watch: bool) -> Result<(), Refusal> {
    let request = call.request;
    let version = request.query("resourceVersion").filter(|text| !text.is_empty());
    let rule = request.query("resourceVersionMatch").filter(|text| !text.is_empty());
    let initial = request.query("sendInitialEvents").is_some();
    let on_field = |text: &str| Cause::forbidden("resourceVersionMatch", text);
    let mut causes = Vec::new();
    if watch {
        if rule.is_some() && !initial {
            causes.push(on_field("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"));
        }
        if initial && rule != Some("NotOlderThan") {
            causes.push(if rule.is_none() {
                on_field("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
            } else {
                Cause::unsupported("resourceVersionMatch", &json!(rule), &["NotOlderThan"])
            });
        }
    } else {
        if rule.is_some() && version.is_none() {
            causes.push(on_field("resourceVersionMatch is forbidden unless resourceVersion is provided"));
        }
        if rule.is_some() && request.query("continue").is_some_and(|token| !token.is_empty()) {
            causes.push(on_field("resourceVersionMatch is forbidden when continue is provided"));
        }
        if let Some(rule) = rule
            && rule != "Exact"
            && rule != "NotOlderThan"
        {
            causes.push(Cause::unsupported("resourceVersionMatch", &json!(rule), &["Exact", "NotOlderThan", ""]));
        }
        if rule == Some("Exact") && version == Some("0") {
            causes.push(on_field("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""));
        }
        if initial {
            causes.push(Cause::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
        }
    }
    if causes.is_empty() { Ok(()) } else { Err(Refusal::invalid("meta.k8s.io", "ListOptions", "", &causes)) }
}

struct Token {
    version: u64,
    after: Key,
}

fn token(call: &Call<'_>) -> Result<Option<Token>, Refusal> {
    let Some(text) = call.request.query("continue").filter(|text| !text.is_empty()) else { return Ok(None) };
    if call.request.query("resourceVersion").is_some_and(|version| !version.is_empty()) {
        return Err(Refusal::bad_request("specifying resource version is not allowed when using continue"));
    }
    let broken = || {
        Refusal::bad_request("invalid continue token: continue key is not valid: illegal base64 data at input byte 0")
    };
    let json: Value = URL_SAFE_NO_PAD
        .decode(text.trim_end_matches('='))
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .ok_or_else(broken)?;
    // -1 stands for the newest: the way on from a list that is no longer consistent.
    let newest = json.get("rv").and_then(Value::as_i64) == Some(-1);
    let version = if newest { Some(call.cluster.store.version()) } else { json.get("rv").and_then(Value::as_u64) };
    let version = version.ok_or_else(broken)?;
    let after = json.get("start").and_then(Value::as_str).and_then(Key::parse).ok_or_else(broken)?;
    Ok(Some(Token { version, after }))
}

fn make_token(version: i64, after: &Key) -> String {
    URL_SAFE_NO_PAD.encode(json!({"v": "meta.k8s.io/v1", "rv": version, "start": after.path()}).to_string())
}

fn expired(after: &Key) -> Refusal {
    let mut refusal = Refusal::new(
        410,
        Some("Expired"),
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    );
    refusal.details = Some(json!({"$continue": make_token(-1, after)}));
    refusal
}

/// GET of a collection.
pub(crate) fn list(call: &mut Call<'_>, resource: &Resource, place: &Place) -> Result<Answer, Refusal> {
    check_options(call, false)?;
    let limit = match call.request.query("limit") {
        None | Some("") => 0,
        Some(text) => text
            .parse::<i64>()
            .map_err(|_| Refusal::bad_request(format!("strconv.ParseInt: parsing \"{text}\": invalid syntax")))?,
    };
    // From the cache everything comes at once.
    let limit = if call.request.query("resourceVersion") == Some("0") { 0 } else { limit };
    wait_for_version(call, "list")?;
    let selection = Selection::of(call, resource)?;
    let token = token(call)?;
    let exact = call.request.query("resourceVersionMatch") == Some("Exact")
        || limit > 0
            && call.request.query("resourceVersion").is_some_and(|version| !matches!(version, "" | "0"))
            && call.request.query("resourceVersionMatch").is_none();
    let current = call.cluster.store.version();
    let version = match (&token, exact) {
        (Some(token), _) => token.version,
        (None, true) => call.request.query("resourceVersion").and_then(|text| text.parse().ok()).unwrap_or(current),
        (None, false) => current,
    };
    let namespace = place.namespace.as_deref();
    let Some(objects) = call.cluster.store.at(version, &resource.group, &resource.plural, namespace) else {
        return Err(match &token {
            Some(token) => expired(&token.after),
            None => Refusal::new(410, Some("Expired"), "The resourceVersion for the provided list is too old."),
        });
    };
    let mut items = Vec::new();
    let mut last = None;
    let mut remaining = 0_usize;
    for (key, object) in objects
        .iter()
        .filter(|(key, object)| token.as_ref().is_none_or(|token| **key > token.after) && selection.selects(object))
    {
        if limit > 0 && items.len() >= usize::try_from(limit).unwrap_or(usize::MAX) {
            remaining += 1;
            continue;
        }
        items.push(list_item(resource, object));
        last = Some(key.clone());
    }
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if resource.custom {
        object::set(&mut metadata, &["continue"], json!(""));
    }
    if let Some(last) = last.filter(|_| remaining > 0) {
        object::set(&mut metadata, &["continue"], json!(make_token(i64::try_from(version).unwrap_or(-1), &last)));
        if selection.is_empty() {
            object::set(&mut metadata, &["remainingItemCount"], json!(remaining));
        }
    }
    Ok(Answer::Object(
        200,
        json!({"kind": format!("{}List", resource.kind), "apiVersion": resource.api_version(), "metadata": metadata, "items": items}),
    ))
}

/// Items of built-in lists carry no kind of their own; those of custom resources do.
fn list_item(resource: &Resource, object: &Value) -> Value {
    let mut item = object.clone();
    if resource.custom {
        return shown(resource, &item);
    }
    object::remove(&mut item, &["kind"]);
    object::remove(&mut item, &["apiVersion"]);
    item
}
