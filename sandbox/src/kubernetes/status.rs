//! Errors of the API as the wire shows them: `Status` objects with reason, details and causes, and the few plain-text ones.

use serde_json::{Value, json};

use super::model::KubeReply;
use super::resources::Resource;

/// A refusal: everything that becomes an error answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refusal {
    /// HTTP status.
    pub(crate) code: u16,
    /// Machine reason; some real errors have none.
    pub(crate) reason: Option<&'static str>,
    /// Text.
    pub(crate) message: String,
    /// `details`.
    pub(crate) details: Option<Value>,
    /// Seconds after which to try again, as header and detail.
    pub(crate) retry_after: Option<u32>,
    /// Plain text instead of a Status.
    pub(crate) plain: bool,
    /// Hold the request this long instead (milliseconds of simulated time).
    pub(crate) later_ms: Option<i64>,
}

/// One cause of an invalid object.
#[derive(Debug, Clone)]
pub(crate) struct Cause {
    /// Machine reason, such as `FieldValueRequired`.
    pub(crate) reason: &'static str,
    /// Field path.
    pub(crate) field: String,
    /// Text without the field.
    pub(crate) message: String,
}

impl Cause {
    /// A missing value.
    pub(crate) fn required(field: impl Into<String>, detail: &str) -> Self {
        let message = if detail.is_empty() { "Required value".to_owned() } else { format!("Required value: {detail}") };
        Self { reason: "FieldValueRequired", field: field.into(), message }
    }

    /// A bad value, shown as JSON.
    pub(crate) fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        Self { reason: "FieldValueInvalid", field: field.into(), message: format!("Invalid value: {value}: {detail}") }
    }

    /// Something that may not be there or change.
    pub(crate) fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self { reason: "FieldValueForbidden", field: field.into(), message: format!("Forbidden: {detail}") }
    }

    /// A value outside of a closed list.
    pub(crate) fn unsupported(field: impl Into<String>, value: &Value, supported: &[&str]) -> Self {
        let all = supported.iter().map(|each| format!("\"{each}\"")).collect::<Vec<_>>().join(", ");
        Self {
            reason: "FieldValueNotSupported",
            field: field.into(),
            message: format!("Unsupported value: {value}: supported values: {all}"),
        }
    }

    /// The second of its name.
    pub(crate) fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self { reason: "FieldValueDuplicate", field: field.into(), message: format!("Duplicate value: {value}") }
    }

    /// More items than there may be.
    pub(crate) fn too_many(field: impl Into<String>, count: usize, most: usize) -> Self {
        Self {
            reason: "FieldValueTooMany",
            field: field.into(),
            message: format!("Too many: {count}: must have at most {most} items"),
        }
    }

    /// Too long.
    pub(crate) fn too_long(field: impl Into<String>, detail: &str) -> Self {
        Self { reason: "FieldValueTooLong", field: field.into(), message: format!("Too long: {detail}") }
    }

    fn json(&self) -> Value {
        json!({"reason": self.reason, "message": self.message, "field": self.field})
    }
}

impl Refusal {
    /// A Status with code, reason and text.
    pub(crate) fn new(code: u16, reason: Option<&'static str>, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None, retry_after: None, plain: false, later_ms: None }
    }

    /// A plain text answer.
    pub(crate) fn text(code: u16, message: &str) -> Self {
        Self { plain: true, ..Self::new(code, None, message) }
    }

    /// The server holds the request.
    pub(crate) fn later(after_ms: i64) -> Self {
        Self { later_ms: Some(after_ms), ..Self::new(0, None, "") }
    }

    /// `404 page not found` as plain text: outside of any served group-version.
    pub(crate) fn page_not_found() -> Self {
        Self::text(404, "404 page not found\n")
    }

    /// 404 as Status for an unknown path inside a served group-version.
    pub(crate) fn no_such_resource() -> Self {
        let mut refusal = Self::new(404, Some("NotFound"), "the server could not find the requested resource");
        refusal.details = Some(json!({}));
        refusal
    }

    /// 404 for an object.
    pub(crate) fn not_found(resource: &Resource, name: &str) -> Self {
        Self::about(404, "NotFound", resource, name, format!("{} \"{name}\" not found", resource.qualified()))
    }

    /// 409 for an object that is there already.
    pub(crate) fn already_exists(resource: &Resource, name: &str) -> Self {
        Self::about(409, "AlreadyExists", resource, name, format!("{} \"{name}\" already exists", resource.qualified()))
    }

    /// 409 with any text.
    pub(crate) fn conflict(resource: &Resource, name: &str, why: &str) -> Self {
        Self::about(
            409,
            "Conflict",
            resource,
            name,
            format!("Operation cannot be fulfilled on {} \"{name}\": {why}", resource.qualified()),
        )
    }

    /// 409 for a stale resourceVersion.
    pub(crate) fn stale(resource: &Resource, name: &str) -> Self {
        Self::conflict(
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 403 from admission.
    pub(crate) fn forbidden(resource: &Resource, name: &str, why: &str) -> Self {
        let message = if name.is_empty() {
            format!("{} is forbidden: {why}", resource.qualified())
        } else {
            format!("{} \"{name}\" is forbidden: {why}", resource.qualified())
        };
        Self::about(403, "Forbidden", resource, name, message)
    }

    /// 400.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, Some("BadRequest"), message)
    }

    /// 422 about an object.
    pub(crate) fn invalid(group: &str, kind: &str, name: &str, causes: &[Cause]) -> Self {
        let subject = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let mut texts: Vec<String> = Vec::new();
        for cause in causes {
            let text = if cause.field.is_empty() || cause.field == "<nil>" {
                format!("<nil>: {}", cause.message)
            } else {
                format!("{}: {}", cause.field, cause.message)
            };
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let joined = if let [only] = texts.as_slice() { only.clone() } else { format!("[{}]", texts.join(", ")) };
        let mut refusal = Self::new(422, Some("Invalid"), format!("{subject} \"{name}\" is invalid: {joined}"));
        let mut details = json!({"causes": causes.iter().map(Cause::json).collect::<Vec<_>>()});
        if let Value::Object(map) = &mut details {
            if !kind.is_empty() {
                map.insert("kind".to_owned(), Value::String(kind.to_owned()));
            }
            if !name.is_empty() {
                map.insert("name".to_owned(), Value::String(name.to_owned()));
            }
            if !group.is_empty() {
                map.insert("group".to_owned(), Value::String(group.to_owned()));
            }
        }
        refusal.details = Some(details);
        refusal
    }

    /// Attaches a cause to the details.
    pub(crate) fn with_cause(mut self, reason: &str, message: &str, field: Option<&str>) -> Self {
        let mut cause = json!({"reason": reason, "message": message});
        if let (Value::Object(map), Some(field)) = (&mut cause, field) {
            map.insert("field".to_owned(), Value::String(field.to_owned()));
        }
        let details = self.details.get_or_insert_with(|| json!({}));
        if let Some(list) = super::object::list_mut(details, &["causes"]) {
            list.push(cause);
        }
        self
    }

    /// Attaches the one cause of an internal error: a message alone.
    pub(crate) fn with_cause_message(mut self, message: &str) -> Self {
        self.details = Some(json!({"causes": [{"message": message}]}));
        self
    }

    /// Asks to come back after some seconds.
    pub(crate) fn with_retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        super::object::set(self.details.get_or_insert_with(|| json!({})), &["retryAfterSeconds"], json!(seconds));
        self
    }

    fn about(code: u16, reason: &'static str, resource: &Resource, name: &str, message: String) -> Self {
        let mut details = json!({"kind": resource.plural});
        if let Value::Object(map) = &mut details {
            if !name.is_empty() {
                map.insert("name".to_owned(), Value::String(name.to_owned()));
            }
            if !resource.group.is_empty() {
                map.insert("group".to_owned(), Value::String(resource.group.clone()));
            }
        }
        let mut refusal = Self::new(code, Some(reason), message);
        refusal.details = Some(details);
        refusal
    }

    /// The Status object.
    pub(crate) fn status(&self) -> Value {
        let mut status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": self.message, "code": self.code});
        if let Value::Object(map) = &mut status {
            if let Some(reason) = self.reason {
                map.insert("reason".to_owned(), Value::String(reason.to_owned()));
            }
            match &self.details {
                Some(Value::Object(details)) if details.contains_key("$continue") => {
                    let token = details.get("$continue").cloned().unwrap_or_default();
                    map.insert("metadata".to_owned(), json!({"continue": token}));
                }
                Some(details) => {
                    map.insert("details".to_owned(), details.clone());
                }
                None => {}
            }
        }
        status
    }

    /// The whole answer.
    pub(crate) fn reply(self) -> KubeReply {
        if let Some(after_ms) = self.later_ms {
            return KubeReply::Later { after_ms };
        }
        let headers: Vec<(String, String)> =
            self.retry_after.map(|seconds| ("retry-after".to_owned(), seconds.to_string())).into_iter().collect();
        if self.plain {
            return KubeReply::Text {
                status: self.code,
                content_type: "text/plain; charset=utf-8".to_owned(),
                headers,
                body: self.message,
            };
        }
        KubeReply::Json { status: self.code, headers, body: self.status() }
    }
}
