//! Drift: what differs between an environment's record and the world, as findings that keep their id from check to check.
//!
//! [`look`] makes a check, [`formats`] writes one down; what is done about a finding is the command's.

pub(crate) mod fix;
pub(crate) mod formats;
pub(crate) mod look;

use jiff::Timestamp;
use platflow_engine::name::{EnvironmentName, StepName};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// What is not as it is on record.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub(crate) enum Deviation {
    /// A field of ours has another value.
    Changed {
        /// JSON pointer into the step's spec.
        field: String,
        /// What the step was built with.
        recorded: Value,
        /// What is there.
        found: Value,
        /// Only replacement would set it right.
        replace: bool,
    },
    /// It is on record and does not exist.
    Missing,
    /// What has its place belongs to somebody else.
    Foreign {
        /// To whom.
        owner: String,
    },
    /// It is there and as wanted, and the cloud says that something is wrong with it.
    Unhealthy {
        /// The cloud's code.
        code: String,
        /// The cloud's words.
        message: String,
    },
    /// Something in ours that no step made.
    Extra {
        /// What it is, e.g. `ec2:subnet`.
        resource: String,
        /// Its id or name.
        resource_id: String,
        /// What it is in.
        inside: String,
        /// Whose it is, as well as it tells.
        owner: String,
    },
}

/// One thing that drifted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Drifted {
    /// The same in every check that finds the same thing.
    pub(crate) id: String,
    /// The step; none for an extra.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) step: Option<StepName>,
    /// The step's kind, or the extra's.
    pub(crate) kind: String,
    /// What it is.
    #[serde(flatten)]
    pub(crate) deviation: Deviation,
}

impl Drifted {
    /// A finding about a step.
    pub(crate) fn of_step(step: &StepName, kind: &str, deviation: Deviation) -> Self {
        let subject = match &deviation {
            Deviation::Changed { field, .. } => format!("changed {field}"),
            Deviation::Missing => "missing".to_owned(),
            Deviation::Foreign { .. } => "foreign".to_owned(),
            Deviation::Unhealthy { code, .. } => format!("unhealthy {code}"),
            Deviation::Extra { resource_id, .. } => format!("extra {resource_id}"),
        };
        Self { id: id(&[step.as_str(), &subject]), step: Some(step.clone()), kind: kind.to_owned(), deviation }
    }

    /// Something that no step made.
    pub(crate) fn extra(resource: &str, resource_id: &str, inside: &str, owner: &str) -> Self {
        Self {
            id: id(&["extra", resource, resource_id]),
            step: None,
            kind: resource.to_owned(),
            deviation: Deviation::Extra {
                resource: resource.to_owned(),
                resource_id: resource_id.to_owned(),
                inside: inside.to_owned(),
                owner: owner.to_owned(),
            },
        }
    }

    /// What it is about: the step, or the resource.
    pub(crate) fn subject(&self) -> &str {
        match (&self.step, &self.deviation) {
            (Some(step), _) => step.as_str(),
            (None, Deviation::Extra { resource_id, .. }) => resource_id,
            (None, _) => &self.kind,
        }
    }

    /// One line about it.
    pub(crate) fn line(&self) -> String {
        match &self.deviation {
            Deviation::Changed { field, recorded, found, replace } => {
                let how = if *replace { "  (only replacement would set it right)" } else { "" };
                format!("{field}: recorded {recorded}, found {found}{how}")
            }
            Deviation::Missing => "it is on record and does not exist".to_owned(),
            Deviation::Foreign { owner } => format!("what is in its place belongs to {owner}"),
            Deviation::Unhealthy { code, message } => format!("{code}: {message}"),
            Deviation::Extra { inside, owner, .. } => format!("in {inside}, {owner}"),
        }
    }

    /// The word for it.
    pub(crate) fn word(&self) -> &'static str {
        match self.deviation {
            Deviation::Changed { .. } => "changed",
            Deviation::Missing => "missing",
            Deviation::Foreign { .. } => "foreign",
            Deviation::Unhealthy { .. } => "unhealthy",
            Deviation::Extra { .. } => "extra",
        }
    }
}

/// Eight hexadecimal digits that only depend on what the finding is about.
fn id(parts: &[&str]) -> String {
    let digest = Sha256::digest(parts.join("\n").as_bytes());
    digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// A step that could not be compared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Untold {
    /// Which.
    pub(crate) step: String,
    /// Why.
    pub(crate) reason: String,
}

/// One check of one environment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Check {
    /// Which.
    pub(crate) environment: EnvironmentName,
    /// When it began.
    pub(crate) checked_at: Timestamp,
    /// How many steps were compared.
    pub(crate) compared: usize,
    /// Steps that are made anew by every run, and have nothing to be compared with.
    pub(crate) passed_over: usize,
    /// What drifted.
    pub(crate) findings: Vec<Drifted>,
    /// What could not be told.
    pub(crate) untold: Vec<Untold>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves that a finding keeps its id while values move, and that different fields and steps have different ones.
    #[test]
    fn an_id_depends_on_what_it_is_about_alone() {
        let changed = |step: &str, field: &str, found: i64| {
            let step = StepName::new(step).expect("a name");
            let deviation =
                Deviation::Changed { field: field.to_owned(), recorded: 1.into(), found: found.into(), replace: false };
            Drifted::of_step(&step, "aws.node_group", deviation).id
        };
        assert_eq!(changed("a", "/min", 2), changed("a", "/min", 3));
        assert_ne!(changed("a", "/min", 2), changed("a", "/max", 2));
        assert_ne!(changed("a", "/min", 2), changed("b", "/min", 2));
    }
}
