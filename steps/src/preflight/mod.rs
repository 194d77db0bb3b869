//! The preflight port: checks that only read, what they are told about a run that has not begun, and what they find.
//!
//! Checks that ask the account are in `aws::preflight`; those about the plan itself, the state file and the keys are the
//! command line's. Which findings stop a run is decided here, by severity; nothing here asks or prints anything.

mod address;
mod subject;

pub use address::Range;
pub use subject::{Pool, Subject, SubjectStep};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

/// What a check is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// Who calls, until when, by which clock.
    Identity,
    /// What the caller may do.
    Permission,
    /// What the account allows.
    Quota,
    /// Availability zones.
    Zone,
    /// Instance types and images.
    Instance,
    /// Kubernetes versions and how long they are supported.
    Version,
    /// Add-ons of EKS.
    Addon,
    /// Names that are taken, too long or malformed.
    Name,
    /// Address ranges and how much fits into them.
    Network,
    /// How the API server and the services are reached.
    Endpoint,
    /// Nodes against what is asked of them.
    Capacity,
    /// Volumes and their classes.
    Storage,
    /// Manifests that are installed.
    Manifest,
    /// Where secrets are kept.
    Key,
    /// What earlier runs left.
    Leftover,
    /// What production wants.
    Policy,
    /// What it costs.
    Cost,
    /// The state file and its disk.
    State,
    /// Who holds the environment.
    Lock,
}

impl Family {
    /// Its name, as in ids of its checks.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Permission => "permission",
            Self::Quota => "quota",
            Self::Zone => "zone",
            Self::Instance => "instance",
            Self::Version => "version",
            Self::Addon => "addon",
            Self::Name => "name",
            Self::Network => "network",
            Self::Endpoint => "endpoint",
            Self::Capacity => "capacity",
            Self::Storage => "storage",
            Self::Manifest => "manifest",
            Self::Key => "key",
            Self::Leftover => "leftover",
            Self::Policy => "policy",
            Self::Cost => "cost",
            Self::State => "state",
            Self::Lock => "lock",
        }
    }
}

/// What has to change when a check stops a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The runbook, its parameters or the settings: the same command can never work.
    Request,
    /// The world around it: somebody has to decide.
    World,
}

/// A check by its id.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// `family.name`: stable, for `--skip-preflight` and for the reference.
    pub id: &'static str,
    /// What it is about.
    pub family: Family,
    /// What holds when it finds nothing.
    pub title: &'static str,
    /// What has to change when it stops a run.
    pub cause: Cause,
}

impl Check {
    /// A check of the request itself.
    #[must_use]
    pub const fn of_request(id: &'static str, family: Family, title: &'static str) -> Self {
        Self { id, family, title, cause: Cause::Request }
    }

    /// A check of the world around it.
    #[must_use]
    pub const fn of_world(id: &'static str, family: Family, title: &'static str) -> Self {
        Self { id, family, title, cause: Cause::World }
    }

    /// It would fail: nothing is begun.
    #[must_use]
    pub fn blocker(
        &'static self,
        evidence: impl Into<String>,
        consequence: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        self.found(Severity::Blocker, evidence, consequence, remedy)
    }

    /// It would work, and somebody should know.
    #[must_use]
    pub fn warning(
        &'static self,
        evidence: impl Into<String>,
        consequence: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        self.found(Severity::Warning, evidence, consequence, remedy)
    }

    /// Worth a line.
    #[must_use]
    pub fn note(
        &'static self,
        evidence: impl Into<String>,
        consequence: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        self.found(Severity::Note, evidence, consequence, remedy)
    }

    fn found(
        &'static self,
        severity: Severity,
        evidence: impl Into<String>,
        consequence: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        Finding {
            check: self,
            severity,
            evidence: evidence.into(),
            consequence: consequence.into(),
            remedy: remedy.into(),
        }
    }
}

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The run would fail, or do what nobody wants: it does not begin.
    Blocker,
    /// The run can go on; somebody should know.
    Warning,
    /// For the record.
    Note,
}

impl Severity {
    /// In one word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Blocker => "blocker",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which check.
    pub check: &'static Check,
    /// How much it weighs.
    pub severity: Severity,
    /// What was seen.
    pub evidence: String,
    /// What would come of it.
    pub consequence: String,
    /// What to do about it.
    pub remedy: String,
}

/// A group of checks that share what they look at.
#[async_trait]
pub trait Examiner: Send + Sync {
    /// All checks that it may make.
    fn checks(&self) -> Vec<&'static Check>;

    /// Makes them. Reads only; what could not be looked at is a finding, too.
    async fn examine(&self, subject: &Subject) -> Vec<Finding>;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves that the family of an id is told by its beginning, in one spelling.
    #[test]
    fn families_are_spelled_as_they_are_written() {
        let family = Family::Addon;
        assert_eq!(serde_json::to_value(family).unwrap(), family.as_str());
        assert!(Severity::Blocker < Severity::Warning && Severity::Warning < Severity::Note);
    }
}
