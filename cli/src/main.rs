//! The `platflow` binary: parse, run one command, print its failure once, exit with its code.

mod arguments;
mod choice;
mod cluster;
mod commands;
mod connection;
mod cost;
mod drift;
mod execution;
mod failure;
mod guests;
mod identifiers;
mod key_places;
mod looking;
mod preflight;
mod privacy;
mod rehearsal;
mod report;
mod runbook;
mod sandbox_host;
mod settings;
mod signals;
mod target;
mod views;
mod wiring;

use crate::arguments::Arguments;
use crate::failure::{CommandError, ExitCode};
use crate::settings::Settings;
use clap::Parser;
use std::io::Write;
use tracing_subscriber::EnvFilter;

fn main() -> std::process::ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are data for stdout and no failure; everything else is usage, exit 2.
            let code = if error.use_stderr() { ExitCode::Usage } else { ExitCode::Done };
            let _ = error.print();
            return std::process::ExitCode::from(code as u8);
        }
    };
    let code = match start(arguments) {
        Ok(code) => code,
        Err(error) => {
            // A closed stderr must not turn the documented exit code into a panic.
            let _ = writeln!(std::io::stderr(), "{}", error.render());
            error.code
        }
    };
    std::process::ExitCode::from(code as u8)
}

fn start(arguments: Arguments) -> Result<ExitCode, CommandError> {
    if let arguments::Command::Guard(guard) = &arguments.command {
        return Ok(commands::guard::execute(guard));
    }
    let settings = Settings::resolve(&arguments.global)?;
    log_to_stderr(&settings);
    privacy::forbid_core_dumps();
    // One TLS provider for the whole process, before the first client is built.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        return Err(CommandError::new(ExitCode::Internal, "another TLS provider was installed first"));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| {
        CommandError::new(ExitCode::Internal, "the asynchronous runtime could not be started").caused_by(error)
    })?;
    let result = runtime.block_on(commands::execute(arguments.command, settings));
    // A step that hangs in a blocking call must not keep an interrupted process alive: what it does is journaled.
    runtime.shutdown_background();
    result
}

fn log_to_stderr(settings: &Settings) {
    let level = match settings.verbose {
        // A failed call is told by the step that met it, with what it means; its client's own words only repeat it.
        0 => "error,kube_client=off",
        1 => "platflow=info,platflow_engine=info,platflow_steps=info,platflow_state=info,warn",
        _ => "platflow=debug,platflow_engine=debug,platflow_steps=debug,platflow_state=debug,info",
    };
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(level))
        .with_writer(std::io::stderr)
        .with_ansi(settings.terminal.colour)
        .init();
}
