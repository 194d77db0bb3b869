//! The binary as a whole: from exec to the first step of a small runbook, and the commands that people wait for.
//!
//! It needs `platflow` beside itself: `cargo build --release` makes both.

use crate::Failure;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Ten steps in a row that run a program which does nothing.
const STEPS: usize = 10;

/// One place with a sandbox of its own, stopped at the end.
pub(crate) struct Place {
    program: PathBuf,
    folder: tempfile::TempDir,
}

fn runbook() -> String {
    let mut text = "workflow: small\nenvironment: small\nsteps:\n".to_owned();
    for number in 0..STEPS {
        let needs = if number == 0 { String::new() } else { format!("    needs: [step-{}]\n", number - 1) };
        text.push_str(&format!(
            "  step-{number}:\n    kind: core.exec\n{needs}    spec: {{command: [\"true\"], protocol: plain, idempotent: true}}\n"
        ));
    }
    text
}

/// The binary that was built with this one.
///
/// # Errors
/// When it was not built.
pub(crate) fn program() -> Result<PathBuf, Failure> {
    let program = std::env::current_exe()?.with_file_name("platflow");
    if program.exists() {
        Ok(program)
    } else {
        Err(Failure::Child(format!("{} is not built: cargo build --release", program.display())))
    }
}

impl Place {
    /// With a sandbox that runs and a state file that does not exist yet.
    ///
    /// # Errors
    /// A sandbox that does not start.
    pub(crate) fn new(folder: &Path) -> Result<Self, Failure> {
        let place = Self { program: program()?, folder: tempfile::tempdir_in(folder)? };
        std::fs::write(place.folder.path().join("runbook.yaml"), runbook())?;
        place.timed(&["sandbox", "start"])?;
        Ok(place)
    }

    #[expect(clippy::disallowed_methods, reason = "this file owns the measured processes")]
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.folder.path())
            .env("PLATFLOW_STATE", self.folder.path().join("state"))
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// How long a command takes from exec to its end.
    ///
    /// # Errors
    /// One that fails.
    pub(crate) fn timed(&self, arguments: &[&str]) -> Result<Duration, Failure> {
        let begun = Instant::now();
        let output = self.command(arguments).output()?;
        let took = begun.elapsed();
        if output.status.success() {
            Ok(took)
        } else {
            Err(Failure::Child(format!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr))))
        }
    }

    /// How long a run takes from exec to the first durable intent of a step, as its output tells it.
    ///
    /// # Errors
    /// A run that fails.
    pub(crate) fn first_step(&self) -> Result<Duration, Failure> {
        let begun = Instant::now();
        let mut child = self.command(&["run", "./runbook.yaml", "--sandbox", "--output", "jsonl"]).spawn()?;
        let mut first = None;
        for line in child.stdout.take().map(BufReader::new).into_iter().flat_map(BufReader::lines) {
            if first.is_none() && line?.contains("step-intended") {
                first = Some(begun.elapsed());
            }
        }
        let output = child.wait_with_output()?;
        match first {
            Some(first) if output.status.success() => Ok(first),
            _ => Err(Failure::Child(format!("run: {}", String::from_utf8_lossy(&output.stderr)))),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A sandbox that cannot be stopped ends by itself when nobody asks it anything.
        let _ = self.timed(&["sandbox", "stop"]);
    }
}
