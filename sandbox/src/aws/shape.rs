//! How an account differs from an ordinary one, set from outside: what its policies deny, its quotas, what a region offers,
//! who calls and how late it is there. It changes answers, and is changed by no call.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// See the file. Everything is ordinary by default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shape {
    /// Actions that the caller's policies deny, e.g. `ec2:CreateVpc`; a `*` at the end stands for any rest.
    pub denied: BTreeSet<String>,
    /// Values of quotas by code.
    pub quotas: BTreeMap<String, f64>,
    /// States of zones by id, where they are not `available`.
    pub zones: BTreeMap<String, String>,
    /// The zones, by id, in which a type is offered, where those are not all.
    pub offered: BTreeMap<String, BTreeSet<String>>,
    /// Types that are of a previous generation.
    pub previous: BTreeSet<String>,
    /// Types that are not sold on the spot market.
    pub unsold: BTreeSet<String>,
    /// Types for which the spot market has no price.
    pub unpriced: BTreeSet<String>,
    /// Regions that are not enabled.
    pub disabled_regions: BTreeSet<String>,
    /// ARN of the caller, where it is another one.
    pub caller: Option<String>,
    /// By how many seconds the clock of AWS is ahead of this machine's.
    pub ahead_seconds: i64,
    /// How many roles the account has beside those that are simulated.
    pub other_roles: u64,
    /// Kubernetes versions whose standard support ends at another time (Unix seconds).
    pub standard_until: BTreeMap<String, i64>,
    /// Add-ons that are not offered.
    pub no_addons: BTreeSet<String>,
    /// Architectures of add-ons, where those are not all.
    pub addon_architectures: BTreeMap<String, BTreeSet<String>>,
    /// The address that callers seem to come from, where it is not their own.
    pub caller_address: Option<String>,
}

impl Shape {
    /// Whether the caller's policies deny an action.
    #[must_use]
    pub fn denies(&self, service: &str, operation: &str) -> bool {
        let action = format!("{service}:{operation}");
        self.denied.iter().any(|denied| match denied.strip_suffix('*') {
            Some(begin) => action.starts_with(begin),
            None => *denied == action,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `*` at the end of a denied action stands for any rest, and for nothing else.
    #[test]
    fn denials_may_end_in_a_star() {
        let shape =
            Shape { denied: BTreeSet::from(["ec2:Create*".to_owned(), "iam:PassRole".to_owned()]), ..Shape::default() };
        assert!(shape.denies("ec2", "CreateVpc") && shape.denies("iam", "PassRole"));
        assert!(!shape.denies("ec2", "DescribeVpcs") && !shape.denies("iam", "PassRoles"));
    }
}
