//! What an API server's refusal means: never the status code alone.
//!
//! A 403 has at least six meanings and a 409 five; two of each mean "wait". A 500 without a reason is a request that
//! can never succeed. Retrying is the engine's.

use kube::core::Status;
use platflow_engine::failure::{ErrorClass, Residue, StepError};
use std::error::Error;

/// What went wrong, told apart by reason, cause and wording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The object is not there.
    NotFound,
    /// The resource is not served (no such API group, CRD not established).
    NotServed,
    /// An object of that name exists.
    AlreadyExists,
    /// An object of that name is on its way out.
    BeingDeleted,
    /// Somebody wrote in between.
    StaleVersion,
    /// Another field manager owns a field.
    FieldConflict,
    /// The object is not the one that was meant (its uid differs).
    OtherObject,
    /// Its namespace is on its way out.
    NamespaceTerminating,
    /// The namespace's service account has not been made yet.
    ServiceAccountMissing,
    /// A resource quota is exhausted or wants requests and limits.
    Quota,
    /// A limit range refuses it.
    LimitRange,
    /// Pod Security refuses it.
    PodSecurity,
    /// Authorisation refuses it.
    Forbidden,
    /// The token is not accepted.
    Unauthorized,
    /// The object is invalid, or a field cannot be changed in place.
    Invalid,
    /// The request is malformed; also a 500 without a reason.
    Malformed,
    /// Asked for less.
    Throttled,
    /// An admission webhook did not answer.
    Webhook,
    /// A server hiccup.
    Unavailable,
    /// No connection was made: nothing was sent.
    NotConnected,
    /// The server is not the one that the CA vouches for.
    Untrusted,
    /// The connection broke, or no answer came in time.
    Interrupted,
    /// The answer could not be read.
    Unreadable,
    /// Failed before sending.
    Unsent,
}

impl Meaning {
    fn class(self) -> ErrorClass {
        match self {
            Self::NotServed | Self::ServiceAccountMissing => ErrorClass::Propagation,
            Self::BeingDeleted | Self::StaleVersion | Self::NamespaceTerminating | Self::AlreadyExists => {
                ErrorClass::Conflict
            }
            Self::Throttled => ErrorClass::Throttled,
            Self::Quota => ErrorClass::Quota,
            Self::Forbidden | Self::Unauthorized => ErrorClass::Permission,
            Self::FieldConflict | Self::OtherObject => ErrorClass::NeedsHuman,
            Self::Webhook | Self::Unavailable | Self::NotConnected | Self::Interrupted => ErrorClass::Transient,
            Self::NotFound
            | Self::LimitRange
            | Self::PodSecurity
            | Self::Invalid
            | Self::Malformed
            | Self::Untrusted
            | Self::Unreadable
            | Self::Unsent => ErrorClass::Permanent,
        }
    }

    /// What the refused request itself left: a request that was refused had no effect, one without an answer may have.
    fn residue(self) -> Residue {
        match self {
            Self::Unavailable | Self::Interrupted | Self::Unreadable => Residue::Unknown,
            _ => Residue::None,
        }
    }

    fn remedy(self) -> Option<&'static str> {
        match self {
            Self::Forbidden => Some("give this principal the right, for example by an access entry, then resume"),
            Self::Unauthorized => {
                Some("renew the AWS credentials, or give this principal an access entry, then resume")
            }
            Self::Quota => Some("raise the namespace's quota or ask for less, then resume"),
            Self::Untrusted => Some("check that the endpoint is the cluster's own and that no proxy intercepts TLS"),
            Self::NotConnected => Some("check DNS, the route and the endpoint's public access list, then resume"),
            _ => None,
        }
    }
}

/// A request that failed.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    /// What it means.
    pub(crate) meaning: Meaning,
    /// What the engine is told.
    pub(crate) error: StepError,
    /// The field that the server names, when it names one.
    pub(crate) field: Option<String>,
}

impl From<Failure> for StepError {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

impl Failure {
    fn new(what: &str, meaning: Meaning, code: Option<String>, text: &str) -> Self {
        let mut error = StepError::new(meaning.class(), format!("{what}: {}", text.trim())).leaving(meaning.residue());
        error.code = code;
        error.remedy = meaning.remedy().map(str::to_owned);
        Self { meaning, error, field: None }
    }

    /// No answer in time.
    pub(crate) fn timeout(what: &str, seconds: u64) -> Self {
        Self::new(what, Meaning::Interrupted, Some("Timeout".to_owned()), &format!("no answer within {seconds} s"))
    }

    /// An answer that is not JSON.
    pub(crate) fn unreadable(what: &str, error: &dyn std::fmt::Display) -> Self {
        Self::new(what, Meaning::Unreadable, None, &format!("the answer cannot be read: {error}"))
    }

    /// A failure of the client, told by its innermost cause.
    pub(crate) fn of(what: &str, error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::of_status(what, &status),
            kube::Error::Service(inner) => match inner.downcast::<StepError>() {
                Ok(unsent) => Self { meaning: Meaning::Unsent, error: *unsent, field: None },
                Err(inner) => Self::of_connection(what, inner.as_ref()),
            },
            other => Self::of_connection(what, &other),
        }
    }

    /// A refusal by the server.
    pub(crate) fn of_status(what: &str, status: &Status) -> Self {
        let causes = status.details.as_ref().map(|details| details.causes.as_slice()).unwrap_or_default();
        let code = if status.reason.is_empty() || status.reason.contains(' ') {
            status.code.to_string()
        } else {
            status.reason.clone()
        };
        let mut failure = Self::new(what, meaning_of(status), Some(code), &status.message);
        failure.field = causes.iter().map(|cause| cause.field.clone()).find(|field| !field.is_empty());
        failure
    }

    fn of_connection(what: &str, error: &(dyn Error + 'static)) -> Self {
        let mut texts: Vec<String> = Vec::new();
        let mut connecting = false;
        let mut next = Some(error);
        while let Some(error) = next {
            let text = error.to_string();
            connecting |= text.contains("client error (Connect)") || text.contains("tcp connect error");
            if texts.last().is_none_or(|last| !last.ends_with(&text)) {
                texts.push(text);
            }
            next = error.source();
        }
        let innermost = texts.pop().unwrap_or_default();
        let meaning = if innermost.contains("invalid peer certificate") {
            Meaning::Untrusted
        } else if connecting {
            Meaning::NotConnected
        } else {
            Meaning::Interrupted
        };
        Self::new(what, meaning, None, &innermost)
    }
}

/// The text body that the client could not decode as a Status.
const PLAIN_TEXT: &str = "Failed to parse error data";

fn meaning_of(status: &Status) -> Meaning {
    let message = status.message.as_str();
    let cause = |wanted: &str| {
        status.details.as_ref().is_some_and(|details| details.causes.iter().any(|cause| cause.reason == wanted))
    };
    match status.code {
        401 => Meaning::Unauthorized,
        403 => meaning_of_forbidden(message, cause("NamespaceTerminating")),
        404 if status.reason == PLAIN_TEXT
            || message.starts_with("the server could not find the requested resource") =>
        {
            Meaning::NotServed
        }
        404 => Meaning::NotFound,
        409 if message.starts_with("object is being deleted") => Meaning::BeingDeleted,
        409 if status.reason == "AlreadyExists" => Meaning::AlreadyExists,
        409 if cause("FieldManagerConflict") => Meaning::FieldConflict,
        409 if message.contains("UID in the precondition") => Meaning::OtherObject,
        409 => Meaning::StaleVersion,
        410 | 502..=504 => Meaning::Unavailable,
        422 => Meaning::Invalid,
        429 => Meaning::Throttled,
        500 if message.contains("failed calling webhook") => Meaning::Webhook,
        500 if status.reason.is_empty() => Meaning::Malformed,
        500 => Meaning::Unavailable,
        _ => Meaning::Malformed,
    }
}

fn meaning_of_forbidden(message: &str, terminating: bool) -> Meaning {
    if terminating || message.contains("because it is being terminated") {
        Meaning::NamespaceTerminating
    } else if message.contains("error looking up service account") {
        Meaning::ServiceAccountMissing
    } else if message.contains("exceeded quota:") || message.contains("failed quota:") {
        Meaning::Quota
    } else if message.contains("violates PodSecurity") {
        Meaning::PodSecurity
    } else if message.contains(" usage per ") || message.contains("limit to request ratio per ") {
        Meaning::LimitRange
    } else {
        Meaning::Forbidden
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn status(code: u16, reason: &str, message: &str, cause: &str) -> Status {
        let causes = if cause.is_empty() { json!([]) } else { json!([{"reason": cause, "field": "a"}]) };
        serde_json::from_value(json!({"kind": "Status", "code": code, "reason": reason, "message": message,
            "details": {"causes": causes}}))
        .unwrap()
    }

    type Case = (u16, &'static str, &'static str, &'static str, Meaning, ErrorClass);

    /// Code, reason, message, reason of the cause; meaning and class.
    const CASES: &[Case] = &[
        (
            403,
            "Forbidden",
            "configmaps \"new\" is forbidden: unable to create new content in namespace n because it is being terminated",
            "NamespaceTerminating",
            Meaning::NamespaceTerminating,
            ErrorClass::Conflict,
        ),
        (
            403,
            "Forbidden",
            "pods \"early\" is forbidden: error looking up service account n/default: serviceaccount \"default\" not found",
            "",
            Meaning::ServiceAccountMissing,
            ErrorClass::Propagation,
        ),
        (
            403,
            "Forbidden",
            "pods \"b\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2",
            "",
            Meaning::Quota,
            ErrorClass::Quota,
        ),
        (
            403,
            "Forbidden",
            "pods \"b\" is forbidden: failed quota: q: must specify requests.cpu for: main",
            "",
            Meaning::Quota,
            ErrorClass::Quota,
        ),
        (
            403,
            "Forbidden",
            "pods \"c\" is forbidden: minimum cpu usage per Container is 50m, but request is 10m",
            "",
            Meaning::LimitRange,
            ErrorClass::Permanent,
        ),
        (
            403,
            "Forbidden",
            "pods \"p\" is forbidden: violates PodSecurity \"restricted:latest\": privileged",
            "",
            Meaning::PodSecurity,
            ErrorClass::Permanent,
        ),
        (
            403,
            "Forbidden",
            "secrets is forbidden: User \"x\" cannot list resource \"secrets\"",
            "",
            Meaning::Forbidden,
            ErrorClass::Permission,
        ),
        (401, "Unauthorized", "Unauthorized", "", Meaning::Unauthorized, ErrorClass::Permission),
        (404, "NotFound", "configmaps \"c\" not found", "", Meaning::NotFound, ErrorClass::Permanent),
        (
            404,
            "NotFound",
            "the server could not find the requested resource",
            "",
            Meaning::NotServed,
            ErrorClass::Propagation,
        ),
        (404, PLAIN_TEXT, "404 page not found", "", Meaning::NotServed, ErrorClass::Propagation),
        (409, "AlreadyExists", "configmaps \"c\" already exists", "", Meaning::AlreadyExists, ErrorClass::Conflict),
        (
            409,
            "AlreadyExists",
            "object is being deleted: configmaps \"c\" already exists",
            "",
            Meaning::BeingDeleted,
            ErrorClass::Conflict,
        ),
        (
            409,
            "Conflict",
            "Apply failed with 1 conflict: conflict with \"alpha\": .data.a",
            "FieldManagerConflict",
            Meaning::FieldConflict,
            ErrorClass::NeedsHuman,
        ),
        (
            409,
            "Conflict",
            "Operation cannot be fulfilled on Pod \"c\": the UID in the precondition (0) does not match",
            "",
            Meaning::OtherObject,
            ErrorClass::NeedsHuman,
        ),
        (
            409,
            "Conflict",
            "Operation cannot be fulfilled on deployments.apps \"d\": the object has been modified",
            "",
            Meaning::StaleVersion,
            ErrorClass::Conflict,
        ),
        (
            422,
            "Invalid",
            "Job.batch \"good\" is invalid: spec.template: field is immutable",
            "FieldValueInvalid",
            Meaning::Invalid,
            ErrorClass::Permanent,
        ),
        (429, "TooManyRequests", "Cannot evict pod", "DisruptionBudget", Meaning::Throttled, ErrorClass::Throttled),
        (
            500,
            "",
            "failed to create typed patch object (/g; /v1, Kind=ConfigMap): .daat: field not declared in schema",
            "",
            Meaning::Malformed,
            ErrorClass::Permanent,
        ),
        (
            500,
            "InternalError",
            "Internal error occurred: failed calling webhook \"check.example.com\": failed to call webhook",
            "",
            Meaning::Webhook,
            ErrorClass::Transient,
        ),
        (
            500,
            "InternalError",
            "Internal error occurred: etcdserver: request timed out",
            "",
            Meaning::Unavailable,
            ErrorClass::Transient,
        ),
        (503, PLAIN_TEXT, "service unavailable", "", Meaning::Unavailable, ErrorClass::Transient),
        (
            504,
            "Timeout",
            "Timeout: Too large resource version",
            "ResourceVersionTooLarge",
            Meaning::Unavailable,
            ErrorClass::Transient,
        ),
    ];

    /// Proves the meaning, class and residue of the answers that a real API server (1.36) gave, wordings included:
    /// the two 403s and two 409s that mean "wait", and the 500 without a reason that must never be retried.
    #[test]
    fn refusals_are_told_apart() {
        for &(code, reason, message, cause, meaning, class) in CASES {
            let failure = Failure::of_status("x", &status(code, reason, message, cause));
            assert_eq!((failure.meaning, failure.error.class), (meaning, class), "{code} {message}");
            let lost = meaning == Meaning::Unavailable;
            assert_eq!(failure.error.residue == Residue::Unknown, lost, "{code} {message}");
            assert_eq!(failure.field.as_deref(), (!cause.is_empty()).then_some("a"));
        }
    }
}
