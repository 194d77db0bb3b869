//! What an environment is pinned to, and the comparison that comes before every first call.

use crate::failure::CommandError;
use platflow_engine::journal::EnvironmentRow;
use platflow_engine::name::EnvironmentName;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The world that an environment lives in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum Target {
    /// A world of the embedded sandbox.
    Sandbox {
        /// The world's id: another world, another id.
        world_id: String,
        /// Its simulated account.
        account: String,
        /// Its region.
        region: String,
    },
    /// A real account.
    Aws {
        /// `aws`, `aws-cn`, `aws-us-gov`.
        partition: String,
        /// Account id.
        account: String,
        /// Region.
        region: String,
    },
}

impl Target {
    /// The account.
    #[must_use]
    pub(crate) fn account(&self) -> &str {
        match self {
            Self::Sandbox { account, .. } | Self::Aws { account, .. } => account,
        }
    }

    /// The region.
    #[must_use]
    pub(crate) fn region(&self) -> &str {
        match self {
            Self::Sandbox { region, .. } | Self::Aws { region, .. } => region,
        }
    }

    /// As the store keeps it.
    ///
    /// # Errors
    /// Only if it cannot be written as JSON.
    pub(crate) fn to_value(&self) -> Result<Value, serde_json::Error> {
        serde_json::to_value(self)
    }

    /// What is on record for an environment.
    ///
    /// # Errors
    /// When the record is from a version that pinned something else.
    pub(crate) fn recorded(row: &EnvironmentRow) -> Result<Self, CommandError> {
        Self::deserialize(&row.target).map_err(|error| {
            CommandError::usage(format!("the target on record for environment {} cannot be read", row.name))
                .caused_by(error)
        })
    }

    /// For people.
    #[must_use]
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Sandbox { world_id, account, region } => {
                format!("sandbox world {world_id} (account {account}, region {region})")
            }
            Self::Aws { partition, account, region } => {
                format!("account {account}, region {region}, partition {partition}")
            }
        }
    }

    /// Refuses a target that is not the recorded one.
    ///
    /// # Errors
    /// Exit 2, naming both.
    pub(crate) fn must_equal(&self, wanted: &Self, environment: &EnvironmentName) -> Result<(), CommandError> {
        if self == wanted {
            return Ok(());
        }
        let remedy = match (self, wanted) {
            (Self::Sandbox { .. }, Self::Aws { .. }) => {
                "add --sandbox to work in that sandbox; to build it for real, name another environment with --environment,\n\
                 or forget the simulated one with: platflow sandbox reset"
            }
            (Self::Aws { .. }, Self::Sandbox { .. }) => {
                "leave out --sandbox to work in that account, or name another environment with --environment"
            }
            (Self::Sandbox { .. }, Self::Sandbox { .. }) => {
                "the world it was built in is another one; work in its state directory, or name another environment with --environment"
            }
            (Self::Aws { .. }, Self::Aws { .. }) => {
                "use credentials of that account and region, or name another environment with --environment"
            }
        };
        Err(CommandError::usage(format!(
            "environment {environment} lives in {}, not in {}; nothing was called",
            self.describe(),
            wanted.describe()
        ))
        .with_remedy(remedy))
    }
}
