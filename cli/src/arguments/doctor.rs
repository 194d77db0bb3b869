//! The arguments of `platflow doctor`.

use clap::Args;

/// `doctor`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Doctor {
    /// List every check that plan, run and doctor make, and make none
    #[arg(long)]
    pub(crate) list_checks: bool,
    /// Look at this AWS account as well
    #[arg(long, value_name = "ID", requires = "region")]
    pub(crate) account: Option<String>,
    /// In this region
    #[arg(long, value_name = "REGION")]
    pub(crate) region: Option<String>,
}
