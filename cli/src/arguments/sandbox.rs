//! The arguments of `platflow sandbox`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `sandbox`.
#[derive(Debug, Clone, Args)]
pub(crate) struct SandboxArguments {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: SandboxCommand,
}

/// What to do with the sandbox.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum SandboxCommand {
    /// Start it (or say that it runs)
    Start {
        /// Seed of a new world
        #[arg(long, value_name = "NUMBER")]
        seed: Option<u64>,
    },
    /// Stop it; the world is kept
    Stop,
    /// Is it running, since when, at which speed
    Status,
    /// Forget the world and start an empty one
    Reset,
    /// List every resource in it
    World,
    /// How many calls of each operation it has answered
    Counters,
    /// Make it misbehave
    Fault {
        /// E.g. 'ec2:CreateSubnet=error:InternalError'; none clears all rules
        #[arg(value_name = "RULE")]
        rule: Vec<String>,
    },
    /// Draw faults from a seed: calm, eventual, flaky, throttled or hostile
    Faults {
        /// E.g. 'hostile:7'; without a seed, 1
        #[arg(value_name = "PROFILE[:SEED]")]
        profile: String,
    },
    /// Leave behind what controllers and half-done deletions leave, e.g. csi_volume
    Leak {
        /// Which kind; an unknown one is refused with the list of all
        #[arg(value_name = "KIND")]
        kind: String,
    },
    /// Make a resource of somebody else, e.g. iam_role
    Foreign {
        /// Which kind; an unknown one is refused with the list of all
        #[arg(value_name = "KIND")]
        kind: String,
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Make its account differ from an ordinary one, or show how it does
    Account {
        /// Fields as a JSON object, e.g. '{"quotas": {"L-F678F1CE": 1}}'; an unknown one is refused with the list of all
        #[arg(value_name = "JSON")]
        fields: Option<String>,
    },
    /// Print the endpoints as shell exports, for any other tool
    Env,
    /// Serve in the foreground (internal)
    #[command(hide = true)]
    Serve {
        /// Where the world is kept
        #[arg(long, value_name = "DIR")]
        directory: PathBuf,
        /// Seed of a new world
        #[arg(long, value_name = "NUMBER")]
        seed: Option<u64>,
    },
}
