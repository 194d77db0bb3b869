//! The arguments of `drift`. No effects.

use clap::Args;

/// `drift`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Drift {
    /// An environment, or the runbook that builds it
    #[arg(value_name = "ENVIRONMENT|WORKFLOW")]
    pub(crate) subject: String,
    /// Run what drifted in our own fields and resources, and only that; extras are never touched
    #[arg(long)]
    pub(crate) fix: bool,
    /// Type the environment's name to agree that what held data and is gone is made anew, empty
    #[arg(long, value_name = "ENVIRONMENT", requires = "fix")]
    pub(crate) confirm: Option<String>,
    /// The AWS account that this must be
    #[arg(long, value_name = "ID")]
    pub(crate) account: Option<String>,
    /// The AWS region that this must be
    #[arg(long, value_name = "REGION")]
    pub(crate) region: Option<String>,
}
