//! Resolved settings: the one place that reads environment variables and asks what stdout is.
//!
//! Everything after this file works on values, not on the process's surroundings.

use crate::arguments::{Global, OutputFormat, ReportFormat};
use crate::failure::{CommandError, ExitCode};
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// The highest speed at which the waits of a deployment still are longer than its calls.
const HIGHEST_SPEED: f64 = 600.0;

/// The shortest lease that can be set.
const SHORTEST_LEASE_MS: u64 = 500;
/// The longest one.
const LONGEST_LEASE_MS: u64 = 600_000;

/// What every command works with.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Directory of the state file, the owners' locks and the sandbox's world.
    pub(crate) state_directory: PathBuf,
    /// `$XDG_CONFIG_HOME/platflow`.
    pub(crate) configuration_directory: PathBuf,
    /// The age identity: a file, or a command that prints one.
    pub(crate) identity: Identity,
    /// Further age recipients.
    pub(crate) recipients: Vec<String>,
    /// Where secrets that cannot be made again are kept a second time.
    pub(crate) second_key_store: PathBuf,
    /// That place was named, not assumed.
    pub(crate) second_key_store_named: bool,
    /// How long a lease lasts without renewal, in milliseconds; nothing for the store's default.
    pub(crate) lease_ms: Option<u64>,
    /// The most that a run may cost by the month, in US dollars.
    pub(crate) cost_ceiling: Option<f64>,
    /// What stdout gets.
    pub(crate) output: OutputFormat,
    /// The same for a command that writes a report.
    pub(crate) report: ReportFormat,
    /// Animate on stderr, and colour: only on a terminal, never with `NO_COLOR`.
    pub(crate) terminal: Terminal,
    /// `--sandbox` was given.
    pub(crate) sandbox: bool,
    /// `--speed`, or the default.
    pub(crate) speed: Option<f64>,
    /// `-v` count.
    pub(crate) verbose: u8,
    /// This binary.
    pub(crate) program: PathBuf,
    /// `PATH`, `HOME` and `LANG`, for the children of `core.exec`.
    pub(crate) inherited_environment: BTreeMap<String, String>,
}

/// Where the age identity comes from.
#[derive(Debug, Clone)]
pub(crate) enum Identity {
    /// A file, made at first need.
    File(PathBuf),
    /// A command whose stdout is the identity.
    Command(String),
}

/// What the terminal can do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terminal {
    /// stderr is a terminal: live progress.
    pub(crate) live: bool,
    /// Colour on stdout and stderr.
    pub(crate) colour: bool,
    /// Width of reports in columns.
    pub(crate) width: usize,
}

#[expect(clippy::disallowed_methods, reason = "settings own the environment")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn home() -> Result<PathBuf, CommandError> {
    variable("HOME").map(PathBuf::from).ok_or_else(|| {
        CommandError::usage("HOME is not set, so there is no place for the state file")
            .with_remedy("name one with --state DIR or PLATFLOW_STATE=DIR")
    })
}

fn xdg(name: &str, fallback: &[&str]) -> Result<PathBuf, CommandError> {
    if let Some(value) = variable(name) {
        let path = PathBuf::from(value);
        if path.is_absolute() {
            return Ok(path.join("platflow"));
        }
    }
    let mut path = home()?;
    path.extend(fallback);
    Ok(path.join("platflow"))
}

fn absolute(path: &Path) -> Result<PathBuf, CommandError> {
    std::path::absolute(path).map_err(|error| {
        CommandError::usage(format!("the path {} cannot be made absolute", path.display())).caused_by(error)
    })
}

/// Reads `PLATFLOW_LEASE_MS`. Each mutating call must end before its lease does, so a lease that is shorter than a call
/// takes would stop every run; one of hours would keep a run from everybody else when its host is gone.
fn lease_of(text: &str) -> Result<u64, CommandError> {
    match text.parse() {
        Ok(lease_ms) if (SHORTEST_LEASE_MS..=LONGEST_LEASE_MS).contains(&lease_ms) => Ok(lease_ms),
        _ => Err(CommandError::usage(format!("PLATFLOW_LEASE_MS={text} is no usable length of a lease")).with_remedy(
            format!("give whole milliseconds from {SHORTEST_LEASE_MS} to {LONGEST_LEASE_MS}; 10000 unless set"),
        )),
    }
}

/// What a command writes that knows no reports; whoever asks it for one is refused before it begins.
fn plain(report: ReportFormat) -> OutputFormat {
    match report {
        ReportFormat::Text | ReportFormat::Markdown | ReportFormat::Junit | ReportFormat::Sarif => OutputFormat::Text,
        ReportFormat::Json => OutputFormat::Json,
        ReportFormat::Jsonl => OutputFormat::Jsonl,
    }
}

/// Reads `PLATFLOW_COST_CEILING`: one that cannot be read must not let anything pass.
fn ceiling_of(text: &str) -> Result<f64, CommandError> {
    text.parse().ok().filter(|dollars: &f64| dollars.is_finite() && *dollars >= 0.0).ok_or_else(|| {
        CommandError::usage(format!("PLATFLOW_COST_CEILING={text} is no sum"))
            .with_remedy("give US dollars by the month, e.g. 800")
    })
}

impl Settings {
    /// Reads the surroundings once.
    ///
    /// # Errors
    /// When there is no usable place for state, or a value makes no sense.
    pub(crate) fn resolve(global: &Global) -> Result<Self, CommandError> {
        let state_directory = match (&global.state, variable("PLATFLOW_STATE")) {
            (Some(path), _) => absolute(path)?,
            (None, Some(path)) => absolute(Path::new(&path))?,
            (None, None) => xdg("XDG_STATE_HOME", &[".local", "state"])?,
        };
        if let Some(speed) = global.speed
            && !(speed.is_finite() && speed > 0.0)
        {
            return Err(CommandError::usage(format!("--speed {speed} is not a positive number"))
                .with_remedy("1 is real time; 40 (the default) shows a whole deployment in about half a minute"));
        }
        if let Some(speed) = global.speed.filter(|speed| *speed > HIGHEST_SPEED) {
            return Err(CommandError::usage(format!("--speed {speed} is more than {HIGHEST_SPEED}")).with_remedy(
                "beyond it the calls themselves take longer, in simulated time, than the cloud they wait for",
            ));
        }
        let configuration_directory = match xdg("XDG_CONFIG_HOME", &[".config"]) {
            Ok(path) => path,
            Err(_) => state_directory.join("config"),
        };
        let identity = match variable("PLATFLOW_IDENTITY") {
            Some(command) if command.starts_with('!') => Identity::Command(command.trim_start_matches('!').to_owned()),
            Some(path) => Identity::File(absolute(Path::new(&path))?),
            None => Identity::File(configuration_directory.join("identity.txt")),
        };
        let named = variable("PLATFLOW_SECOND_KEY_STORE").map(|path| absolute(Path::new(&path))).transpose()?;
        let second_key_store_named = named.is_some();
        let second_key_store = named.unwrap_or_else(|| configuration_directory.join("keys"));
        let recipients = variable("PLATFLOW_RECIPIENTS")
            .map(|text| text.split([',', ' ']).filter(|part| !part.is_empty()).map(str::to_owned).collect())
            .unwrap_or_default();
        let lease_ms = variable("PLATFLOW_LEASE_MS").map(|text| lease_of(&text)).transpose()?;
        let report = global.output.unwrap_or(ReportFormat::Text);
        let cost_ceiling = variable("PLATFLOW_COST_CEILING").map(|text| ceiling_of(&text)).transpose()?;
        let live = std::io::stderr().is_terminal() && variable("TERM").is_none_or(|term| term != "dumb");
        let colour = live && variable("NO_COLOR").is_none();
        let width = variable("COLUMNS").and_then(|text| text.parse().ok()).unwrap_or(100).clamp(40, 200);
        let program = std::env::current_exe().map_err(|error| {
            CommandError::new(ExitCode::Internal, "the path of this program cannot be read").caused_by(error)
        })?;
        Ok(Self {
            state_directory,
            configuration_directory,
            identity,
            recipients,
            second_key_store,
            second_key_store_named,
            lease_ms,
            output: plain(report),
            report,
            cost_ceiling,
            terminal: Terminal { live, colour, width },
            sandbox: global.sandbox,
            speed: global.speed,
            verbose: global.verbose,
            program,
            inherited_environment: ["PATH", "HOME", "LANG"]
                .into_iter()
                .filter_map(|name| Some((name.to_owned(), variable(name)?)))
                .collect(),
        })
    }

    /// The state file.
    #[must_use]
    pub(crate) fn state_file(&self) -> PathBuf {
        self.state_directory.join("state.db")
    }

    /// The sandbox's world lives beside the state file.
    #[must_use]
    pub(crate) fn sandbox_directory(&self) -> PathBuf {
        self.state_directory.join("sandbox")
    }
}
