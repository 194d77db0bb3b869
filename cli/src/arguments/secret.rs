//! The arguments of `secret`. No effects.

use clap::{Args, Subcommand};

/// `secret`.
#[derive(Debug, Clone, Args)]
pub(crate) struct SecretArguments {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: SecretCommand,
}

/// What to do with secrets.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum SecretCommand {
    /// Names and dates, and who took which out; nothing secret
    List {
        /// Which environment
        #[arg(value_name = "ENVIRONMENT")]
        environment: String,
    },
    /// Open one and print it to stdout; who and when is kept in the access log
    Show {
        /// Which environment
        #[arg(value_name = "ENVIRONMENT")]
        environment: String,
        /// Which secret, e.g. argocd/admin-password
        #[arg(value_name = "NAME")]
        name: String,
    },
}
