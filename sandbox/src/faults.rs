//! Faults on demand: rules that match calls and say what goes wrong, and profiles that draw such faults from a seed.
//! Rules and profiles are data; the fronts act on what comes of them.

mod effect;
mod profile;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub use effect::{EFFECTS, Effect, Refused};
pub use profile::{BadProfile, PROFILES, Profile};

/// A rule: which calls, how often, and what goes wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Service, or `*`.
    pub service: String,
    /// Operation; a `*` at its end stands for any rest (`Describe*`).
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
    "{rule:?} is no fault rule: {reason}; it reads SERVICE:OPERATION[:CONTAINS][#NTH]=EFFECT[*TIMES] (a * at the end of OPERATION stands for any rest), with an effect of {EFFECTS}"
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
        let effect = Effect::parse(effect).map_err(|reason| bad(reason.0))?;
        Ok(Self { service, operation, contains, nth, times, effect, seen: 0 })
    }
}

impl Rule {
    fn fits(&self, call: &Called<'_>) -> bool {
        let operation = match self.operation.strip_suffix('*') {
            Some(begin) => call.operation.starts_with(begin),
            None => self.operation == call.operation,
        };
        operation && (self.service == "*" || self.service == call.service)
    }
}

/// A call as rules and profiles look at it.
#[derive(Debug, Clone, Copy)]
pub struct Called<'a> {
    /// Service, such as `ec2`, `kubernetes`, `vault`.
    pub service: &'a str,
    /// Operation, or HTTP method.
    pub operation: &'a str,
    /// Whether it changes something.
    pub mutates: bool,
}

/// The rules of a world in the order in which they were given, and the profile behind them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Faults {
    rules: Vec<Rule>,
    #[serde(default)]
    profile: Option<Profile>,
    /// Control planes that are away, by cluster, until when (simulated Unix milliseconds).
    #[serde(default)]
    outages: BTreeMap<String, i64>,
}

impl Faults {
    /// Adds a rule.
    pub fn add(&mut self, rule: Rule) {
        self.rules.push(rule);
    }

    /// Draws further faults from a profile from now on.
    pub fn follow(&mut self, profile: Profile) {
        self.profile = Some(profile);
    }

    /// Forgets all rules and the profile.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The profile, as it is written.
    #[must_use]
    pub fn profile(&self) -> Option<String> {
        self.profile.as_ref().map(ToString::to_string)
    }

    /// Counts a call with every rule it matches; answers the first effect that hits it, or what the profile draws for
    /// the resource that `resource` names.
    pub fn hit(
        &mut self,
        call: Called<'_>,
        parameters: impl FnOnce() -> String,
        resource: impl FnOnce() -> String,
    ) -> Option<Effect> {
        let mut effect = None;
        if self.rules.iter().any(|rule| rule.fits(&call)) {
            let parameters = parameters();
            for rule in self.rules.iter_mut().filter(|rule| rule.fits(&call)) {
                if !parameters.contains(&rule.contains) {
                    continue;
                }
                rule.seen += 1;
                let due = rule.seen >= rule.nth && rule.times.is_none_or(|times| rule.seen < rule.nth + times);
                if due && effect.is_none() {
                    effect = Some(rule.effect.clone());
                }
            }
        }
        effect.or_else(|| self.profile.as_mut()?.draw(call, &resource()))
    }

    /// A control plane goes away until a time.
    pub fn take_down(&mut self, cluster: &str, until_ms: i64) {
        self.outages.insert(cluster.to_owned(), until_ms);
    }

    /// Whether a control plane is away now.
    #[must_use]
    pub fn is_down(&self, cluster: &str, now_ms: i64) -> bool {
        self.outages.get(cluster).is_some_and(|until_ms| now_ms < *until_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(faults: &mut Faults, service: &str, operation: &str, text: &str) -> Option<Effect> {
        faults.hit(Called { service, operation, mutates: true }, || text.to_owned(), || text.to_owned())
    }

    /// A rule hits from its nth matching call on, as often as it says, and only calls that contain its text.
    #[test]
    fn rules_count_their_own_calls() {
        let mut faults = Faults::default();
        faults.add("eks:CreateNodegroup:data#2=error:ResourceLimitExceededException*1".parse().unwrap());
        let mut call = |text: &str| hit(&mut faults, "eks", "CreateNodegroup", text).is_some();
        assert_eq!([call("data"), call("apps"), call("data"), call("data")], [false, false, true, false]);
    }

    /// A `*` at the end of an operation stands for any rest, and for nothing else.
    #[test]
    fn operations_may_end_in_a_star() {
        let mut faults = Faults::default();
        faults.add("ec2:Describe*=read_lag:20".parse().unwrap());
        assert_eq!(hit(&mut faults, "ec2", "DescribeVpcs", ""), Some(Effect::ReadLag { lag_ms: 20_000 }));
        assert_eq!(hit(&mut faults, "ec2", "CreateVpc", ""), None);
        assert_eq!(hit(&mut faults, "eks", "DescribeCluster", ""), None);
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
            "eks:X=read_lag:long",
            "eks:X=throttle:3",
            "eks=lose_reply",
            "eks:X#a=lose_reply",
        ] {
            assert!(bad.parse::<Rule>().unwrap_err().to_string().contains("SERVICE:OPERATION"), "{bad}");
        }
        assert_eq!("*:*=throttle".parse::<Rule>().unwrap().times, None);
    }

    /// Every effect that the refusal of a bad rule names can be written in a rule.
    #[test]
    fn named_effects_can_be_written() {
        for effect in EFFECTS.split(", ") {
            let effect = effect.split('[').next().unwrap_or(effect).replace("CODE", "Some").replace("MS", "10");
            assert!(format!("ec2:X={effect}").parse::<Rule>().is_ok(), "{effect}");
        }
    }

    /// A control plane that was taken down comes back by itself.
    #[test]
    fn outages_end() {
        let mut faults = Faults::default();
        faults.take_down("a", 10);
        assert!(faults.is_down("a", 9) && !faults.is_down("a", 10) && !faults.is_down("b", 9));
    }
}
