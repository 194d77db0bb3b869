//! One measurement: what is asked of the process that makes it, how it is started, and what it answers.

use crate::Failure;
use crate::measure::{Figures, peak};
use crate::plans::Shape;
use crate::subject::{self, Load, effects_file};
use crate::{floor, readings};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Who does the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Who {
    Engine,
    Floor,
    /// The engine, killed at its n-th step.
    Dying(u64),
    /// The engine, resuming what died.
    Resuming,
    /// Reads of a filled file; `true` beside a writer.
    Reading(bool),
}

/// A measurement to be made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) who: Who,
    pub(crate) shape: Shape,
    pub(crate) steps: usize,
    pub(crate) runs: usize,
    pub(crate) in_flight: usize,
    pub(crate) place: PathBuf,
    /// The machine's clock when this process was started, for what begins with it; nanoseconds since boot.
    pub(crate) started: u64,
}

impl Task {
    pub(crate) fn load(&self) -> Load {
        Load { shape: self.shape, steps: self.steps, runs: self.runs, in_flight: self.in_flight }
    }
}

/// Nanoseconds since boot, the same for all processes.
fn since_boot() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or_default()
}

/// Makes the measurement in this process. A resumption answers with the milliseconds to its first new step as `p50_us`,
/// in microseconds, and with its whole time as `seconds`.
pub(crate) async fn measure(task: &Task) -> Result<Figures, Failure> {
    let load = task.load();
    match task.who {
        Who::Engine => subject::measured(&task.place, load).await,
        Who::Reading(beside) => readings::measured(&task.place, load, beside).await,
        Who::Floor => floor::measured(&task.place, load).await,
        Who::Dying(steps) => {
            subject::until_death(&task.place, load, steps).await?;
            Err(Failure::Ended("it was to be killed and was not".to_owned()))
        }
        Who::Resuming => {
            let (here, now) = (Instant::now(), since_boot());
            let before = Duration::from_nanos(now.saturating_sub(task.started));
            let (first, end) = subject::resumed(&task.place, load).await?;
            let until = |at: Instant| (before + at.duration_since(here)).as_secs_f64();
            Ok(Figures {
                seconds: until(end),
                p50_us: first.map_or(0.0, |first| until(first) * 1e6),
                peak: peak(),
                ..Figures::default()
            })
        }
    }
}

/// Makes it in a process of its own.
#[expect(clippy::disallowed_methods, reason = "this file owns the measuring processes")]
pub(crate) fn asked(task: &Task) -> Result<Figures, Failure> {
    std::fs::create_dir_all(&task.place)?;
    let task = Task { started: since_boot(), ..task.clone() };
    let child = Command::new(std::env::current_exe()?)
        .arg("__one")
        .arg(serde_json::to_string(&task)?)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()?;
    if !child.status.success() {
        return Err(Failure::Child(format!("{}: {}", child.status, String::from_utf8_lossy(&child.stderr).trim())));
    }
    Ok(serde_json::from_slice(&child.stdout)?)
}

/// Has it killed; an error if it was not.
pub(crate) fn killed(task: &Task) -> Result<(), Failure> {
    match asked(task) {
        Err(Failure::Child(why)) if why.contains("signal: 9") => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(Failure::Child("it was to be killed and was not".to_owned())),
    }
}

/// Steps that were done more than once, and steps that were never done.
pub(crate) fn repeats(place: &Path, steps: usize) -> Result<(usize, usize), Failure> {
    let lines = std::fs::read_to_string(effects_file(place))?;
    let all = lines.lines().count();
    let different: BTreeSet<&str> = lines.lines().collect();
    Ok((all - different.len(), steps.saturating_sub(different.len())))
}
