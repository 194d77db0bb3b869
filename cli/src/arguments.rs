//! The command line as typed structs. No effects: nothing here reads the environment, a file or the clock.

mod doctor;
mod drift;
mod sandbox;
mod secret;

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

pub(crate) use doctor::Doctor;
pub(crate) use drift::Drift;
pub(crate) use sandbox::{SandboxArguments, SandboxCommand};
pub(crate) use secret::{SecretArguments, SecretCommand};

/// platflow runs provisioning runbooks that survive any crash: it journals every fact, looks before it acts again, and
/// takes back what it made.
#[derive(Debug, Parser)]
#[command(name = "platflow", version, propagate_version = true, max_term_width = 110, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    /// Options of every command.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Directory of the state file (default: the XDG state directory, or PLATFLOW_STATE)
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    pub(crate) state: Option<PathBuf>,
    /// What stdout gets: text for people, one JSON object, or a JSON line per event; drift checks also come as Markdown,
    /// JUnit and SARIF
    #[arg(long, global = true, value_enum, value_name = "FORMAT", help_heading = "Global options")]
    pub(crate) output: Option<ReportFormat>,
    /// Use the embedded sandbox instead of AWS; it is started when it is not running
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) sandbox: bool,
    /// Simulated seconds per real second, when this command starts the sandbox
    #[arg(long, global = true, value_name = "FACTOR", help_heading = "Global options")]
    pub(crate) speed: Option<f64>,
    /// More detail on stderr (-v info, -vv debug)
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    pub(crate) verbose: u8,
}

/// What stdout gets, with the formats that only reports have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    /// For people.
    Text,
    /// One JSON object with `schema_version`.
    Json,
    /// A JSON object per line, as things happen.
    Jsonl,
    /// A Markdown section, for a pull request.
    Markdown,
    /// A JUnit test report.
    Junit,
    /// SARIF 2.1.0, for code scanning.
    Sarif,
}

/// What stdout gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputFormat {
    /// For people.
    Text,
    /// One JSON object with `schema_version`.
    Json,
    /// A JSON object per line, as things happen.
    Jsonl,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a runbook: build what is missing, change what differs, leave the rest
    Run(Run),
    /// Go on with a run that was interrupted, killed or parked
    Resume(Resume),
    /// Undo what a run created and restore what it changed
    Rollback(Rollback),
    /// Take down a whole environment, whichever runs built it
    Destroy(Destroy),
    /// Ask the process that owns a run to stop at the next safe point
    Cancel(RunReference),
    /// Agree to a step that waits for a human
    Approve(Decide),
    /// Refuse a step that waits for a human; the run never goes on from there
    Reject(Reject),
    /// Show one run, or the newest one
    Status(Status),
    /// List runs, newest first
    List(List),
    /// Print the journal of a run
    Logs(Logs),
    /// Look, change nothing, and show what a run would create, adopt, change or leave
    Plan(Plan),
    /// Compare what is on record with the world (exit 3 when something drifted), and repair what is ours
    Drift(Drift),
    /// Check the state file, the keys and the account, and change nothing (exit 6 if something would stop a run)
    Doctor(Doctor),
    /// Crash and fail a runbook everywhere, in a private sandbox (exit 0 only without violations, else 5)
    Rehearse(Rehearse),
    /// Check a runbook without looking at the cloud
    Validate(WorkflowArguments),
    /// Print the graph of a runbook
    Graph(Graph),
    /// Print a kubeconfig for an environment's cluster
    Kubeconfig(Kubeconfig),
    /// Print a bearer token for an EKS cluster (a kubeconfig exec plugin)
    K8sToken(K8sToken),
    /// List sealed secrets and who took which out, or take one out
    Secret(SecretArguments),
    /// Take over an environment that another state file built, rebuilding its record from tags
    Adopt(Adopt),
    /// Strike an environment, or one of its steps, off the record without touching the cloud
    Forget(Forget),
    /// Start, stop and look into the embedded sandbox
    Sandbox(SandboxArguments),
    /// Print a completion script for a shell
    Completions(Completions),
    /// Print the generated reference (step kinds as Markdown or JSON, or the JSON Schema of the language)
    #[command(hide = true)]
    Reference(Reference),
    /// Runs a child process in a group that dies with the engine (internal)
    #[command(name = "__guard", hide = true)]
    Guard(Guard),
}

/// Which runbook, with which parameters, against what.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct WorkflowArguments {
    /// Name of an embedded runbook, or path of a file
    #[arg(value_name = "WORKFLOW")]
    pub(crate) workflow: String,
    /// Set a parameter
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub(crate) set: Vec<String>,
    /// Read parameters from a YAML file
    #[arg(long, value_name = "FILE")]
    pub(crate) parameters: Option<PathBuf>,
    /// Build this environment instead of the one that the runbook names
    #[arg(long, value_name = "NAME")]
    pub(crate) environment: Option<String>,
    /// The AWS account that this must be (wanted by the first real run of an environment)
    #[arg(long, value_name = "ID")]
    pub(crate) account: Option<String>,
    /// The AWS region that this must be (wanted by the first real run of an environment)
    #[arg(long, value_name = "REGION")]
    pub(crate) region: Option<String>,
}

/// `rehearse`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Rehearse {
    /// Which runbook.
    #[command(flatten)]
    pub(crate) workflow: WorkflowArguments,
    /// Stop after this long, e.g. 60s or 10m: every journal boundary once, then what was covered least (default: every case)
    #[arg(long, value_name = "DURATION", value_parser = budget)]
    pub(crate) budget: Option<Duration>,
    /// Stop after so many cases, in the order of a budget: the same cases on every machine
    #[arg(long, value_name = "COUNT")]
    pub(crate) cases: Option<usize>,
    /// Show one case step by step, by the seed that a violation was printed with
    #[arg(long, value_name = "SEED", conflicts_with_all = ["budget", "cases"])]
    pub(crate) replay: Option<String>,
    /// How many cases are rehearsed at once (default: one per processor)
    #[arg(long, value_name = "COUNT")]
    pub(crate) workers: Option<usize>,
}

fn budget(text: &str) -> Result<Duration, String> {
    let length: Option<jiff::SignedDuration> = text.parse().ok();
    let length = length.and_then(|length| Duration::try_from(length).ok()).filter(|length| !length.is_zero());
    length.ok_or_else(|| format!("{text:?} is no length of time: write 60s, 10m or 1h"))
}

/// `plan`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Plan {
    /// Which runbook.
    #[command(flatten)]
    pub(crate) workflow: WorkflowArguments,
    /// Show what would change if a pinned value were asked anew
    #[arg(long, value_enum, value_name = "NAME")]
    pub(crate) refresh: Vec<Pinned>,
}

/// A value that was looked up once and stays pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Pinned {
    /// The Kubernetes version, with the add-on versions that go with it.
    KubernetesVersion,
    /// The add-on versions.
    AddonVersions,
    /// The zones.
    Zones,
    /// Who may reach the API server, when it is this machine alone.
    PublicAccessCidrs,
}

/// `run`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Run {
    /// Which runbook.
    #[command(flatten)]
    pub(crate) workflow: WorkflowArguments,
    /// Ask a pinned value anew: otherwise it moves only by parameter
    #[arg(long, value_enum, value_name = "NAME")]
    pub(crate) refresh: Vec<Pinned>,
    /// Act on this step or module alone: what it needs is looked at and left as it is, the rest is passed over
    #[arg(long, value_name = "STEP")]
    pub(crate) only: Vec<String>,
    /// Act on everything but this step or module
    #[arg(long, value_name = "STEP", conflicts_with = "only")]
    pub(crate) except: Vec<String>,
    /// What happens when a step fails for good
    #[arg(long, value_enum, value_name = "WHAT")]
    pub(crate) on_failure: Option<OnFailureArgument>,
    /// Make the sandbox misbehave, e.g. 'eks:CreateNodegroup:data=error:ResourceLimitExceededException'
    #[arg(long, value_name = "RULE", requires = "sandbox")]
    pub(crate) sandbox_fault: Vec<String>,
    /// Draw faults from a seed: calm, eventual, flaky, throttled or hostile
    #[arg(long, value_name = "PROFILE[:SEED]", requires = "sandbox")]
    pub(crate) sandbox_faults: Option<String>,
    /// How many steps may be under way at once
    #[arg(long, value_name = "COUNT")]
    pub(crate) max_in_flight: Option<usize>,
    /// Begin although this check found what would make the run fail
    #[arg(long, value_name = "CHECK")]
    pub(crate) skip_preflight: Vec<String>,
}

/// What happens when a step fails for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnFailureArgument {
    /// Stop and wait for the operator.
    Park,
    /// Undo what this run created.
    Rollback,
}

/// A run by id or unique prefix.
#[derive(Debug, Clone, Args)]
pub(crate) struct RunReference {
    /// Run id, or any unique prefix of it
    #[arg(value_name = "RUN")]
    pub(crate) run: String,
}

/// `resume`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Resume {
    /// Which run.
    #[command(flatten)]
    pub(crate) run: RunReference,
    /// How many steps may be under way at once
    #[arg(long, value_name = "COUNT")]
    pub(crate) max_in_flight: Option<usize>,
}

/// `rollback`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Rollback {
    /// Which run.
    #[command(flatten)]
    pub(crate) run: RunReference,
    /// Type the environment's name to agree that data which cannot be rebuilt is destroyed
    #[arg(long, value_name = "ENVIRONMENT")]
    pub(crate) confirm: Option<String>,
    /// Keep this step, and all that it depends on
    #[arg(long, value_name = "STEP")]
    pub(crate) keep: Vec<String>,
    /// Let this namespace, which others made in the cluster, go with the cluster (else it stops the command)
    #[arg(long, value_name = "NAMESPACE")]
    pub(crate) with_namespace: Vec<String>,
    /// Undo only what came after this step or depends on it; the run can be resumed from there
    #[arg(long, value_name = "STEP")]
    pub(crate) to: Option<String>,
    /// Change nothing: show what would be undone and kept, in which order, and what data would die (exit 3 if anything)
    #[arg(long)]
    pub(crate) plan: bool,
}

/// `destroy`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Destroy {
    /// Which environment
    #[arg(value_name = "ENVIRONMENT")]
    pub(crate) environment: String,
    /// Type the environment's name again
    #[arg(long, value_name = "ENVIRONMENT")]
    pub(crate) confirm: Option<String>,
    /// Keep this step, and all that it depends on
    #[arg(long, value_name = "STEP")]
    pub(crate) keep: Vec<String>,
    /// Let this namespace, which others made in the cluster, go with the cluster (else it stops the command)
    #[arg(long, value_name = "NAMESPACE")]
    pub(crate) with_namespace: Vec<String>,
    /// The AWS account that this must be
    #[arg(long, value_name = "ID")]
    pub(crate) account: Option<String>,
    /// The AWS region that this must be
    #[arg(long, value_name = "REGION")]
    pub(crate) region: Option<String>,
}

/// `approve`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Decide {
    /// Which run.
    #[command(flatten)]
    pub(crate) run: RunReference,
    /// Which step (default: the one that waits)
    #[arg(value_name = "STEP")]
    pub(crate) step: Option<String>,
    /// Why; it is journaled with who and when
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

/// `reject`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Reject {
    /// Which run.
    #[command(flatten)]
    pub(crate) run: RunReference,
    /// Which step (default: the one that waits)
    #[arg(value_name = "STEP")]
    pub(crate) step: Option<String>,
    /// Why; it is journaled with who and when
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
}

impl From<Reject> for Decide {
    fn from(Reject { run, step, reason }: Reject) -> Self {
        Self { run, step, reason: Some(reason) }
    }
}

/// `status`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Status {
    /// Run id or unique prefix (default: the newest run)
    #[arg(value_name = "RUN")]
    pub(crate) run: Option<String>,
}

/// `list`.
#[derive(Debug, Clone, Args)]
pub(crate) struct List {
    /// Only runs of this environment
    #[arg(long, value_name = "NAME")]
    pub(crate) environment: Option<String>,
    /// At most this many
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    pub(crate) limit: usize,
}

/// `logs`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Logs {
    /// Which run.
    #[command(flatten)]
    pub(crate) run: RunReference,
    /// Only this step
    #[arg(long, value_name = "STEP")]
    pub(crate) step: Option<String>,
    /// Only events after this sequence number
    #[arg(long, value_name = "SEQUENCE", default_value_t = 0)]
    pub(crate) after: u64,
}

/// `graph`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Graph {
    /// Which runbook.
    #[command(flatten)]
    pub(crate) workflow: WorkflowArguments,
    /// In which notation
    #[arg(long, value_enum, default_value = "text", value_name = "NOTATION")]
    pub(crate) notation: Notation,
}

/// Notation of a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Notation {
    /// Indented text in order of execution.
    Text,
    /// Graphviz.
    Dot,
    /// Mermaid, as in Markdown.
    Mermaid,
}

/// `kubeconfig`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Kubeconfig {
    /// Which environment
    #[arg(value_name = "ENVIRONMENT")]
    pub(crate) environment: String,
}

/// `k8s-token`.
#[derive(Debug, Clone, Args)]
pub(crate) struct K8sToken {
    /// Which environment's cluster
    #[arg(long, value_name = "ENVIRONMENT")]
    pub(crate) environment: String,
}

/// `adopt`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Adopt {
    /// Which environment
    #[arg(value_name = "ENVIRONMENT")]
    pub(crate) environment: String,
    /// The environment uid on the tags of what is to be taken over
    #[arg(long, value_name = "UID")]
    pub(crate) from: String,
    /// The runbook that describes it (default: that of its newest run here, else the shipped one that builds it)
    #[arg(long, value_name = "WORKFLOW")]
    pub(crate) workflow: Option<String>,
    /// Set a parameter of the runbook
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub(crate) set: Vec<String>,
    /// Read parameters from a YAML file
    #[arg(long, value_name = "FILE")]
    pub(crate) parameters: Option<PathBuf>,
    /// The AWS account that this must be (wanted when this state file does not know the environment)
    #[arg(long, value_name = "ID")]
    pub(crate) account: Option<String>,
    /// The AWS region that this must be (wanted when this state file does not know the environment)
    #[arg(long, value_name = "REGION")]
    pub(crate) region: Option<String>,
}

/// `forget`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Forget {
    /// Which environment
    #[arg(value_name = "ENVIRONMENT")]
    pub(crate) environment: String,
    /// Only this step
    #[arg(long, value_name = "STEP")]
    pub(crate) step: Vec<String>,
    /// Type the environment's name again
    #[arg(long, value_name = "ENVIRONMENT")]
    pub(crate) confirm: Option<String>,
}

/// `completions`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Completions {
    /// For which shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}

/// `reference`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Reference {
    /// What to print
    #[arg(value_enum, value_name = "WHAT")]
    pub(crate) what: ReferenceTopic,
}

/// What the generated reference covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReferenceTopic {
    /// Step kinds as Markdown.
    Steps,
    /// JSON Schema of the runbook language.
    Schema,
    /// Every kind with the schemas of its fields and outputs, as JSON.
    Kinds,
}

/// `__guard`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Guard {
    /// What to run and how.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) arguments: Vec<String>,
}
