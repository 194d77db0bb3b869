//! What an AWS answer means for a step: error code and message become class × residue.
//!
//! Classification is by our own table, never by an SDK's retry classifier: those count `LimitExceededException` as
//! throttling, which for IAM and KMS is a quota. Nothing here retries.

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::display::DisplayErrorContext;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use platflow_engine::context::Call;
use platflow_engine::failure::{ErrorClass, Residue, StepError};
use std::future::Future;
use std::time::Duration;

/// How far a failed call came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// It never left this machine.
    NotSent,
    /// It may have arrived, the answer did not.
    Unanswered,
    /// The service answered.
    Answered,
}

/// A failed call to AWS.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{call} failed: {message}")]
pub struct AwsFailure {
    /// The API action.
    pub call: String,
    /// The service's error code; empty when there is none.
    pub code: String,
    /// The service's message, or the transport's.
    pub message: String,
    /// The HTTP status of the answer; 0 without one.
    pub status: u16,
    /// How far the call came.
    pub reach: Reach,
}

/// Reads may take this long before they count as unanswered.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(30);

const THROTTLES: [&str; 7] = [
    "RequestLimitExceeded",
    "EC2ThrottledException",
    "TooManyRequestsException",
    "SlowDown",
    "PriorRequestNotComplete",
    "BandwidthLimitExceeded",
    "RequestThrottled",
];

const REFUSALS: [&str; 12] = [
    "UnauthorizedOperation",
    "AuthFailure",
    "OptInRequired",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "SignatureDoesNotMatch",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "IncompleteSignature",
    "InvalidSignatureException",
    "RequestExpired",
    "Blocked",
];

const CONFLICTS: [&str; 14] = [
    "ResourceInUseException",
    "ResourceInUse",
    "DependencyViolation",
    "IncorrectState",
    "IncorrectInstanceState",
    "DeleteConflict",
    "DeleteConflictException",
    "OperationAbortedException",
    "ConcurrentModification",
    "ConcurrentModificationException",
    "InvalidIPAddress.InUse",
    "KMSInvalidStateException",
    "DependencyTimeoutException",
    "InvalidSubnet.Conflict",
];

/// Texts of a validation error that mean "the role is not visible everywhere yet".
const PROPAGATION_TEXTS: [&str; 9] = [
    "invalid principal.",
    "does not exist",
    "error in role params",
    "could not be assumed",
    "cannot be assumed",
    "doesn't have the amazon eks managed policies",
    "iam role's policy must include",
    "invalid principal in policy",
    "is not authorized to perform: iam:passrole on resource that does not exist",
];

impl AwsFailure {
    /// A call that never left this machine.
    pub(super) fn not_sent(call: &str, message: impl Into<String>) -> Self {
        Self::without_answer(call, message, Reach::NotSent)
    }

    /// A call whose answer never came.
    pub(super) fn unanswered(call: &str, message: impl Into<String>) -> Self {
        Self::without_answer(call, message, Reach::Unanswered)
    }

    fn without_answer(call: &str, message: impl Into<String>, reach: Reach) -> Self {
        Self { call: call.to_owned(), code: String::new(), message: message.into(), status: 0, reach }
    }

    /// A failure from one of the SDK clients.
    pub(super) fn from_sdk<E>(call: &str, error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        match error {
            SdkError::ServiceError(answered) => Self {
                call: call.to_owned(),
                code: answered.err().code().unwrap_or_default().to_owned(),
                message: answered.err().message().unwrap_or("the service gave no message").to_owned(),
                status: answered.raw().status().as_u16(),
                reach: Reach::Answered,
            },
            SdkError::ConstructionFailure(_) => Self::not_sent(call, DisplayErrorContext(error).to_string()),
            SdkError::DispatchFailure(failure) if failure.is_user() => {
                Self::not_sent(call, DisplayErrorContext(error).to_string())
            }
            _ => Self::unanswered(call, DisplayErrorContext(error).to_string()),
        }
    }

    /// True for one of these codes.
    pub(super) fn is(&self, codes: &[&str]) -> bool {
        codes.contains(&self.code.as_str())
    }

    /// The thing asked for does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        let code = self.code.as_str();
        code.ends_with(".NotFound")
            || code.ends_with("NotFoundException")
            || code.ends_with(".NotFoundException")
            || code.starts_with("NoSuchEntity")
            || (code == "ClientException" && self.message.contains("No cluster found"))
            || code == "InvalidNetworkInterfaceID.NotFound"
            || ["NatGatewayNotFound", "LoadBalancerNotFound", "TargetGroupNotFound"].contains(&code)
    }

    /// A name is taken, or the thing was already made.
    #[must_use]
    pub fn is_already_there(&self) -> bool {
        let code = self.code.as_str();
        code.ends_with("AlreadyExists")
            || code.ends_with("AlreadyExistsException")
            || code.ends_with(".Duplicate")
            || (code == "ResourceInUseException" && self.message.to_lowercase().contains("already"))
    }

    /// Class and residue by code, message and status: the whole retry policy for AWS calls. The residue is that of this
    /// one call; the step's is for its caller to say.
    #[must_use]
    pub fn classify(&self) -> (ErrorClass, Residue) {
        match self.reach {
            Reach::NotSent => return (ErrorClass::Transient, Residue::None),
            Reach::Unanswered => return (ErrorClass::Transient, Residue::Unknown),
            Reach::Answered => {}
        }
        let code = self.code.as_str();
        if code.starts_with("Throttl") || THROTTLES.contains(&code) || self.status == 429 {
            return (ErrorClass::Throttled, Residue::None);
        }
        if code.starts_with("AccessDenied") || code.starts_with("ExpiredToken") || REFUSALS.contains(&code) {
            return (ErrorClass::Permission, Residue::None);
        }
        if code.ends_with("LimitExceeded") || code.ends_with("LimitExceededException") || code == "LimitExceededFault" {
            return (ErrorClass::Quota, Residue::None);
        }
        if code == "IdempotentParameterMismatch" || code == "InvalidIdempotencyToken" {
            return (ErrorClass::NeedsHuman, Residue::Unknown);
        }
        self.classify_state(code)
    }

    fn classify_state(&self, code: &str) -> (ErrorClass, Residue) {
        if code == "ResourcePropagationDelayException" || self.status == 428 || self.names_propagation() {
            return (ErrorClass::Propagation, Residue::None);
        }
        if self.is_already_there() {
            return (ErrorClass::Conflict, Residue::Unknown);
        }
        if CONFLICTS.contains(&code) || (code == "InvalidRequestException" && self.names_other_work()) {
            return (ErrorClass::Conflict, Residue::None);
        }
        if self.is_not_found() {
            return (ErrorClass::Propagation, Residue::None);
        }
        if self.status >= 500 || matches!(code, "ServerException" | "InternalError" | "InternalFailure") {
            return (ErrorClass::Transient, Residue::Unknown);
        }
        if code.is_empty() {
            return (ErrorClass::Permanent, Residue::Unknown);
        }
        (ErrorClass::Permanent, Residue::None)
    }

    /// IAM says yes before all of AWS has heard of a role; only the text of the validation error tells.
    fn names_propagation(&self) -> bool {
        let about_roles = matches!(
            self.code.as_str(),
            "InvalidParameterException" | "MalformedPolicyDocument" | "MalformedPolicyDocumentException"
        );
        let message = self.message.to_lowercase();
        about_roles && PROPAGATION_TEXTS.iter().any(|text| message.contains(text))
    }

    fn names_other_work(&self) -> bool {
        let message = self.message.to_lowercase();
        ["in progress", "updating", "being updated", "currently", "while"].iter().any(|text| message.contains(text))
    }

    fn remedy(&self, class: ErrorClass) -> Option<String> {
        match class {
            ErrorClass::Permission if self.code.starts_with("ExpiredToken") => {
                Some("renew the AWS credentials (for example aws sso login), then resume".to_owned())
            }
            ErrorClass::Permission => Some(format!("allow {} for these credentials, then resume", self.call)),
            ErrorClass::Quota => {
                Some("raise the quota (Service Quotas) or free what is not needed, then resume".into())
            }
            _ => None,
        }
    }
}

impl From<AwsFailure> for StepError {
    fn from(failure: AwsFailure) -> Self {
        let (class, residue) = failure.classify();
        let mut error = Self::new(class, failure.to_string()).leaving(residue);
        if !failure.code.is_empty() {
            error = error.with_code(&failure.code);
        }
        match failure.remedy(class) {
            Some(remedy) => error.with_remedy(remedy),
            None => error,
        }
    }
}

/// Awaits a reading SDK call.
pub(super) async fn look<T, E>(
    call: &str,
    sending: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
) -> Result<T, AwsFailure>
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    answered(call, READ_TIMEOUT, sending).await
}

/// Awaits a mutating SDK call, for no longer than its permit allows.
pub(super) async fn change<T, E>(
    call: &str,
    permit: &Call,
    sending: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
) -> Result<T, AwsFailure>
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    answered(call, permit.timeout, sending).await
}

async fn answered<T, E>(
    call: &str,
    timeout: Duration,
    sending: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
) -> Result<T, AwsFailure>
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    match tokio::time::timeout(timeout, sending).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(AwsFailure::from_sdk(call, &error)),
        Err(_) => Err(AwsFailure::unanswered(call, format!("no answer within {} s", timeout.as_secs()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(code: &str, message: &str, status: u16) -> (ErrorClass, Residue) {
        AwsFailure { call: "Call".into(), code: code.into(), message: message.into(), status, reach: Reach::Answered }
            .classify()
    }

    /// Proves the classification table against the codes of the API references, the SDK's own trap
    /// (`LimitExceededException` is a quota) included.
    #[test]
    fn codes_have_their_class() {
        use ErrorClass::{Conflict, NeedsHuman, Permanent, Permission, Propagation, Quota, Throttled, Transient};
        let table = [
            ("ThrottlingException", "", 400, Throttled),
            ("RequestLimitExceeded", "", 503, Throttled),
            ("EC2ThrottledException", "", 503, Throttled),
            ("Whatever", "", 429, Throttled),
            ("LimitExceededException", "", 400, Quota),
            ("LimitExceeded", "", 409, Quota),
            ("VpcLimitExceeded", "", 400, Quota),
            ("AddressLimitExceeded", "", 400, Quota),
            ("ResourceLimitExceededException", "", 400, Quota),
            ("AccessDeniedException", "", 403, Permission),
            ("UnauthorizedOperation", "", 403, Permission),
            ("ExpiredTokenException", "", 403, Permission),
            ("ResourcePropagationDelayException", "", 428, Propagation),
            ("InvalidParameterException", "The role x does not exist.", 400, Propagation),
            ("InvalidParameterException", "Error in role params", 400, Propagation),
            (
                "InvalidParameterException",
                "The specified principalArn is invalid: invalid principal.",
                400,
                Propagation,
            ),
            ("InvalidParameterException", "The CIDR is malformed", 400, Permanent),
            ("InvalidVpcID.NotFound", "", 400, Propagation),
            ("ResourceInUseException", "update in progress", 409, Conflict),
            ("DependencyViolation", "", 400, Conflict),
            ("IncorrectState", "", 400, Conflict),
            ("InvalidRequestException", "cluster is currently updating", 400, Conflict),
            ("InvalidRequestException", "malformed", 400, Permanent),
            ("UnsupportedAvailabilityZoneException", "", 400, Permanent),
            ("ServerException", "", 500, Transient),
            ("ServiceUnavailableException", "", 503, Transient),
            ("IdempotentParameterMismatch", "", 400, NeedsHuman),
        ];
        for (code, message, status, class) in table {
            assert_eq!(answered(code, message, status).0, class, "{code} {message}");
        }
    }

    /// Proves that nothing is claimed about a call whose answer is missing or a server error, and that a provable
    /// refusal is not feared.
    #[test]
    fn residue_is_claimed_only_for_refusals() {
        assert_eq!(AwsFailure::unanswered("C", "reset").classify(), (ErrorClass::Transient, Residue::Unknown));
        assert_eq!(AwsFailure::not_sent("C", "refused").classify(), (ErrorClass::Transient, Residue::None));
        assert_eq!(answered("InternalError", "", 500).1, Residue::Unknown);
        assert_eq!(answered("", "404 page", 404).1, Residue::Unknown);
        assert_eq!(answered("EntityAlreadyExists", "", 409), (ErrorClass::Conflict, Residue::Unknown));
        for code in ["VpcLimitExceeded", "AccessDenied", "InvalidParameterValue", "Throttling"] {
            assert_eq!(answered(code, "", 400).1, Residue::None, "{code}");
        }
    }
}
