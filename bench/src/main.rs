//! `platflow-bench`: what the engine and its store cost, beside raw SQLite that writes the same rows.
//!
//! Every measurement is a process of its own, so that memory and CPU are its own; floor and engine take turns, so that a
//! machine that is busy for a while is busy for both. Figures are medians; ratios are what counts.

mod commands;
mod figures;
mod floor;
mod listening;
mod measure;
mod nothing;
mod plans;
mod readings;
mod subject;
mod tables;

use clap::{Parser, Subcommand, ValueEnum};
use figures::Task;
use platflow_engine::drive::DriveError;
use platflow_engine::journal::JournalError;
use platflow_engine::name::InvalidName;

/// Why a measurement could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("a name is malformed")]
    Name(#[from] InvalidName),
    #[error("the engine refused")]
    Drive(#[from] DriveError),
    #[error("the store refused")]
    Journal(#[from] JournalError),
    #[error("SQLite refused")]
    Floor(#[from] rusqlite::Error),
    #[error("a file or a process failed")]
    Io(#[from] std::io::Error),
    #[error("a measurement cannot be read or written")]
    Json(#[from] serde_json::Error),
    #[error("the run ended otherwise than done: {0}")]
    Ended(String),
    #[error("the measuring process failed: {0}")]
    Child(String),
}

/// The tables there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Table {
    /// A chain: every step durable before the next.
    W1,
    /// A wide graph, 256 in flight.
    W2,
    /// A thousand runs of ten steps at once.
    W3,
    /// Killed in the middle, and resumed.
    W4,
    /// The binary: exec to the first step, and short commands.
    W5,
    /// Up to a million steps.
    W6,
    /// Reads of a file with a million events, alone and beside a writer.
    W7,
}

#[derive(Debug, Parser)]
#[command(about = "Measures the engine and the store beside raw SQLite. Build it with --release.")]
struct Arguments {
    /// The tables to measure; all of them if none is named.
    tables: Vec<Table>,
    /// How often everything is repeated; medians are shown.
    #[arg(long, default_value_t = 5)]
    repeat: usize,
    /// A folder on the disk to be measured; the system's temporary folder if none is named.
    #[arg(long)]
    folder: Option<std::path::PathBuf>,
    /// A tenth of the steps: to see that everything works.
    #[arg(long)]
    quick: bool,
    #[command(subcommand)]
    internal: Option<Internal>,
}

#[derive(Debug, Subcommand)]
enum Internal {
    /// One measurement in a process of its own.
    #[command(hide = true, name = "__one")]
    One {
        /// What, as JSON.
        task: String,
    },
}

fn main() -> std::process::ExitCode {
    let arguments = Arguments::parse();
    let outcome = match &arguments.internal {
        Some(Internal::One { task }) => one(task),
        None => tables::print(&arguments.tables, arguments.repeat.max(1), arguments.folder.as_deref(), arguments.quick),
    };
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            tell(&error);
            std::process::ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "the one place where the program says what went wrong")]
fn tell(error: &Failure) {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        eprintln!("{error}");
        cause = error.source();
    }
}

#[expect(clippy::print_stdout, reason = "the answer goes to the process that asked")]
fn one(task: &str) -> Result<(), Failure> {
    let task: Task = serde_json::from_str(task)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let answer = runtime.block_on(figures::measure(&task))?;
    println!("{}", serde_json::to_string(&answer)?);
    Ok(())
}
