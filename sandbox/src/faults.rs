//! Faults on demand: rules that match calls and say what goes wrong. The rules are data; the fronts act on them.

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
    /// The call does its work, and the connection breaks before the reply.
    LoseReply,
    /// The connection breaks before anything happens.
    CutBefore,
    /// The reply comes this much later, in real milliseconds.
    Delay {
        /// Real milliseconds.
        delay_ms: u64,
    },
    /// The machines of the node group never join.
    NodeGroupNeverJoins,
    /// The NAT gateway ends as failed.
    NatGatewayFails,
}

/// A rule: which calls, how often, and what goes wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Service, or `*`.
    pub service: String,
    /// Operation, or `*`.
    pub operation: String,
    /// Only calls whose parameters contain this text.
    #[serde(default)]
    pub contains: String,
    /// The first matching call that it hits; 1 is the first.
    #[serde(default = "first")]
    pub nth: u64,
    /// How many calls it hits; nothing means every one from there on.
    #[serde(default)]
    pub times: Option<u64>,
    /// What goes wrong.
    pub effect: Effect,
    /// Matching calls so far.
    #[serde(default)]
    pub seen: u64,
}

fn first() -> u64 {
    1
}

/// A rule that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{rule:?} is no fault rule: {reason}; it reads SERVICE:OPERATION[:CONTAINS][#NTH]=EFFECT[*TIMES], with an effect of error:CODE[:STATUS], throttle, lose_reply, cut_before, delay:MS, node_group_never_joins, nat_gateway_fails"
)]
pub struct BadRule {
    rule: String,
    reason: String,
}

impl std::str::FromStr for Rule {
    type Err = BadRule;

    fn from_str(rule: &str) -> Result<Self, BadRule> {
        let bad = |reason: &str| BadRule { rule: rule.to_owned(), reason: reason.to_owned() };
        let (calls, effect) = rule.split_once('=').ok_or_else(|| bad("it has no ="))?;
        let (effect, times) = match effect.rsplit_once('*') {
            Some((effect, times)) => (effect, Some(times.parse().map_err(|_| bad("TIMES is not a number"))?)),
            None => (effect, None),
        };
        let (calls, nth) = match calls.rsplit_once('#') {
            Some((calls, nth)) => (calls, nth.parse().map_err(|_| bad("NTH is not a number"))?),
            None => (calls, 1),
        };
        let mut parts = calls.splitn(3, ':');
        let service = parts.next().unwrap_or_default().to_owned();
        let operation =
            parts.next().filter(|name| !name.is_empty()).ok_or_else(|| bad("it names no operation"))?.to_owned();
        let contains = parts.next().unwrap_or_default().to_owned();
        let mut words = effect.split(':');
        let (name, first, second) = (words.next().unwrap_or_default(), words.next(), words.next());
        let effect = match (name, first) {
            ("error", Some(code)) => {
                let status = match second {
                    Some(status) => status
                        .parse()
                        .ok()
                        .filter(|status| (400..600).contains(status))
                        .ok_or_else(|| bad("STATUS is not an HTTP error status"))?,
                    None => usual_status(code),
                };
                Effect::Error {
                    code: code.to_owned(),
                    status,
                    message: "The sandbox was told to refuse this call.".to_owned(),
                }
            }
            ("throttle", None) => Effect::Error {
                code: if service == "ec2" { "RequestLimitExceeded" } else { "ThrottlingException" }.to_owned(),
                status: if service == "ec2" { 503 } else { 400 },
                message: "Rate exceeded".to_owned(),
            },
            ("lose_reply", None) => Effect::LoseReply,
            ("cut_before", None) => Effect::CutBefore,
            ("delay", Some(ms)) => {
                Effect::Delay { delay_ms: ms.parse().map_err(|_| bad("the delay is not a number"))? }
            }
            ("node_group_never_joins", None) => Effect::NodeGroupNeverJoins,
            ("nat_gateway_fails", None) => Effect::NatGatewayFails,
            _ => return Err(bad("the effect is unknown")),
        };
        Ok(Self { service, operation, contains, nth, times, effect, seen: 0 })
    }
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

/// The rules of a world, in the order in which they were given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Faults {
    rules: Vec<Rule>,
}

impl Faults {
    /// Adds a rule.
    pub fn add(&mut self, rule: Rule) {
        self.rules.push(rule);
    }

    /// Forgets all rules.
    pub fn clear(&mut self) {
        self.rules.clear();
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Counts a call with every rule it matches; answers the first effect that hits it.
    pub fn hit(&mut self, service: &str, operation: &str, parameters: impl FnOnce() -> String) -> Option<Effect> {
        let fits = |rule: &Rule| {
            (rule.service == "*" || rule.service == service) && (rule.operation == "*" || rule.operation == operation)
        };
        if !self.rules.iter().any(fits) {
            return None;
        }
        let parameters = parameters();
        let mut effect = None;
        for rule in self.rules.iter_mut().filter(|rule| fits(rule)) {
            if !parameters.contains(&rule.contains) {
                continue;
            }
            rule.seen += 1;
            let due = rule.seen >= rule.nth && rule.times.is_none_or(|times| rule.seen < rule.nth + times);
            if due && effect.is_none() {
                effect = Some(rule.effect.clone());
            }
        }
        effect
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rule hits from its nth matching call on, as often as it says, and only calls that contain its text.
    #[test]
    fn rules_count_their_own_calls() {
        let mut faults = Faults::default();
        faults.add("eks:CreateNodegroup:data#2=error:ResourceLimitExceededException*1".parse().unwrap());
        let mut call = |text: &str| faults.hit("eks", "CreateNodegroup", || text.to_owned()).is_some();
        assert_eq!([call("data"), call("apps"), call("data"), call("data")], [false, false, true, false]);
    }

    /// What cannot be read is refused with the form that can.
    #[test]
    fn bad_rules_are_refused() {
        for bad in [
            "",
            "eks",
            "eks:X",
            "eks:X=",
            "eks:X=error",
            "eks:X=error:A:200",
            "eks:X=delay:soon",
            "eks=lose_reply",
            "eks:X#a=lose_reply",
        ] {
            assert!(bad.parse::<Rule>().unwrap_err().to_string().contains("SERVICE:OPERATION"), "{bad}");
        }
        assert_eq!("*:*=throttle".parse::<Rule>().unwrap().times, None);
    }
}
