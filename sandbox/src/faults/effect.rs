//! What can go wrong with a call, how it is written in a rule, and in which service's words it refuses.

use serde::{Deserialize, Serialize};

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Effect {
    /// The call is refused, and nothing happens.
    Error {
        /// Error code.
        code: String,
        /// HTTP status.
        status: u16,
        /// Text.
        message: String,
    },
    /// Refused for too many calls, in the code of the service; nothing happens.
    Throttle,
    /// The service fails, in its own code; nothing happens, which the caller cannot know.
    ServerError,
    /// The caller's session is over, in the code of the service; nothing happens.
    ExpiredToken,
    /// The call does its work, and the connection breaks before the reply.
    LoseReply,
    /// The connection breaks before anything happens.
    CutBefore,
    /// The request arrives twice; the second reply is the one that is seen.
    Duplicate,
    /// The reply comes this much later, in real milliseconds.
    Delay {
        /// Real milliseconds.
        delay_ms: u64,
    },
    /// A read that shows the world as it was so long ago, in simulated milliseconds.
    ReadLag {
        /// Simulated milliseconds.
        lag_ms: i64,
    },
    /// The role that the call makes is unknown to other services for so long, in simulated milliseconds.
    IamPropagation {
        /// Simulated milliseconds.
        lag_ms: i64,
    },
    /// The machines of the node group never join.
    NodeGroupNeverJoins,
    /// No machine of the node group can be launched: it ends as CREATE_FAILED.
    NoCapacity,
    /// The node group comes up DEGRADED for lack of capacity, and is ACTIVE after so many simulated seconds.
    ShortOfCapacity {
        /// Simulated seconds.
        seconds: i64,
    },
    /// The add-on is DEGRADED for so many simulated seconds.
    AddonDegraded {
        /// Simulated seconds.
        seconds: i64,
    },
    /// The NAT gateway ends as failed.
    NatGatewayFails,
    /// The API server goes away, with this call, for so many simulated seconds.
    ApiServerRestarts {
        /// Simulated seconds.
        seconds: i64,
    },
    /// Something in the namespace that the call deletes keeps its finalizer for so many simulated seconds; 0 is for good.
    StuckFinalizer {
        /// Simulated seconds.
        seconds: i64,
    },
    /// The pod that the call reached is killed right after its reply.
    PodRestarts,
}

/// The effects as they are written in rules.
pub const EFFECTS: &str = "error:CODE[:STATUS], throttle, server_error, expired_token, lose_reply, cut_before, duplicate, delay:MS, read_lag[:SECONDS], iam_propagation[:SECONDS], node_group_never_joins, no_capacity, short_of_capacity[:SECONDS], addon_degraded[:SECONDS], nat_gateway_fails, api_server_restarts[:SECONDS], stuck_finalizer[:SECONDS], pod_restarts";

/// A refusal in the words of a service: code, HTTP status and text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Error code.
    pub code: String,
    /// HTTP status.
    pub status: u16,
    /// Text.
    pub message: String,
}

/// Why an effect cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unreadable(pub(super) &'static str);

impl Effect {
    /// Reads an effect as rules write it.
    pub(super) fn parse(text: &str) -> Result<Self, Unreadable> {
        let mut words = text.split(':');
        let (name, first, second) = (words.next().unwrap_or_default(), words.next(), words.next());
        let seconds = |usual: i64| match first {
            None => Ok(usual),
            Some(word) => word
                .parse::<i64>()
                .ok()
                .filter(|seconds| (0..=86_400).contains(seconds))
                .ok_or(Unreadable("SECONDS is not a number of seconds")),
        };
        Ok(match name {
            "error" => refusal(first.ok_or(Unreadable("error names no CODE"))?, second)?,
            "delay" => Self::Delay {
                delay_ms: first.and_then(|ms| ms.parse().ok()).ok_or(Unreadable("the delay is not a number"))?,
            },
            "read_lag" => Self::ReadLag { lag_ms: seconds(30)? * 1_000 },
            "iam_propagation" => Self::IamPropagation { lag_ms: seconds(30)? * 1_000 },
            "short_of_capacity" => Self::ShortOfCapacity { seconds: seconds(300)? },
            "addon_degraded" => Self::AddonDegraded { seconds: seconds(300)? },
            "api_server_restarts" => Self::ApiServerRestarts { seconds: seconds(20)? },
            "stuck_finalizer" => Self::StuckFinalizer { seconds: seconds(60)? },
            _ if first.is_some() => return Err(Unreadable("the effect is unknown, or takes no argument")),
            "throttle" => Self::Throttle,
            "server_error" => Self::ServerError,
            "expired_token" => Self::ExpiredToken,
            "lose_reply" => Self::LoseReply,
            "cut_before" => Self::CutBefore,
            "duplicate" => Self::Duplicate,
            "node_group_never_joins" => Self::NodeGroupNeverJoins,
            "no_capacity" => Self::NoCapacity,
            "nat_gateway_fails" => Self::NatGatewayFails,
            "pod_restarts" => Self::PodRestarts,
            _ => return Err(Unreadable("the effect is unknown")),
        })
    }
}

fn refusal(code: &str, status: Option<&str>) -> Result<Effect, Unreadable> {
    let status = match status {
        Some(status) => status
            .parse()
            .ok()
            .filter(|status| (400..600).contains(status))
            .ok_or(Unreadable("STATUS is not an HTTP error status"))?,
        None => usual_status(code),
    };
    Ok(Effect::Error { code: code.to_owned(), status, message: "The sandbox was told to refuse this call.".to_owned() })
}

fn usual_status(code: &str) -> u16 {
    match code {
        "ServerException" | "InternalError" | "InternalFailure" => 500,
        "ServiceUnavailableException" | "Unavailable" => 503,
        "ResourceNotFoundException" => 404,
        "ResourceInUseException" => 409,
        _ if code.starts_with("AccessDenied") || code == "UnauthorizedOperation" => 403,
        _ => 400,
    }
}

impl Effect {
    /// The refusal that the effect means at a service, if it is one. Codes and statuses are those of the services'
    /// API models; the Kubernetes ones those of its API server.
    #[must_use]
    pub fn refusal(&self, service: &str) -> Option<Refused> {
        let (code, status, message) = match self {
            Self::Error { code, status, message } => (code.as_str(), *status, message.as_str()),
            Self::Throttle => throttled(service),
            Self::ServerError => broken(service),
            Self::ExpiredToken => expired(service),
            _ => return None,
        };
        Some(Refused { code: code.to_owned(), status, message: message.to_owned() })
    }

    /// Whether a caller has to try again because of it.
    #[must_use]
    pub(super) fn disturbs(&self) -> bool {
        !matches!(self, Self::Delay { .. } | Self::ReadLag { .. } | Self::IamPropagation { .. })
    }
}

fn throttled(service: &str) -> (&'static str, u16, &'static str) {
    match service {
        "ec2" => ("RequestLimitExceeded", 503, "Request limit exceeded."),
        "eks" => ("ThrottlingException", 429, "Rate exceeded"),
        "iam" | "sts" | "elasticloadbalancing" | "autoscaling" => ("Throttling", 400, "Rate exceeded"),
        "servicequotas" => ("TooManyRequestsException", 400, "Rate exceeded"),
        "tagging" => ("ThrottledException", 400, "Rate exceeded"),
        "kubernetes" => ("TooManyRequests", 429, "the server has received too many requests, please try again later"),
        "vault" => ("", 429, "request path \"sys\": rate limit quota exceeded"),
        _ => ("ThrottlingException", 400, "Rate exceeded"),
    }
}

fn broken(service: &str) -> (&'static str, u16, &'static str) {
    match service {
        "ec2" => ("InternalError", 500, "An internal error has occurred"),
        "eks" => ("ServerException", 500, "Internal Failure"),
        "iam" => ("ServiceFailure", 500, "The request processing has failed because of an unknown error"),
        "kms" => ("KMSInternalException", 500, "The request was rejected because an internal exception occurred"),
        "logs" => ("ServiceUnavailableException", 500, "The service cannot complete the request."),
        "servicequotas" => ("ServiceException", 500, "Something went wrong"),
        "tagging" => ("InternalServiceException", 500, "The request processing failed because of an unknown error"),
        "kubernetes" => ("InternalError", 500, "Internal error occurred: etcdserver: leader changed"),
        "vault" => ("", 500, "internal error"),
        _ => ("InternalFailure", 500, "An internal failure has occurred"),
    }
}

fn expired(service: &str) -> (&'static str, u16, &'static str) {
    match service {
        "ec2" => ("RequestExpired", 400, "Request has expired."),
        "kubernetes" => ("Unauthorized", 401, "Unauthorized"),
        "vault" => ("", 403, "permission denied"),
        "iam" | "sts" | "elasticloadbalancing" | "autoscaling" => {
            ("ExpiredToken", 403, "The security token included in the request is expired")
        }
        _ => ("ExpiredTokenException", 403, "The security token included in the request is expired"),
    }
}
