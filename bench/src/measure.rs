//! What a process used: CPU time, bytes written, memory; and how long things took.
//!
//! From the kernel's own books (`/proc`, the process clock), read before and after the measured part.

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// The books at one moment.
#[derive(Debug)]
pub(crate) struct Reading {
    at: Instant,
    cpu: Duration,
    written: u64,
}

/// What one measured part came to.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// Steps that were done.
    pub(crate) steps: u64,
    /// Wall time.
    pub(crate) seconds: f64,
    /// CPU of all threads, microseconds per step.
    pub(crate) cpu_us: f64,
    /// Bytes given to the block layer, per step.
    pub(crate) written: f64,
    /// Growth of the state file and its log, bytes per step.
    pub(crate) file: f64,
    /// The most memory that the process ever had, bytes.
    pub(crate) peak: u64,
    /// The middle and the 99th of a hundred: gaps between steps of a chain, acknowledgements elsewhere; microseconds.
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

impl Figures {
    pub(crate) fn rate(&self) -> f64 {
        self.steps as f64 / self.seconds.max(1e-9)
    }
}

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// A number of a `name: number` file of `/proc/self`.
fn entry(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

/// The most memory that this process ever had, bytes.
pub(crate) fn peak() -> u64 {
    entry("status", "VmHWM") * 1_024
}

impl Reading {
    pub(crate) fn now() -> Self {
        Self { at: Instant::now(), cpu: cpu(), written: entry("io", "write_bytes") }
    }

    /// What was used since, for so many steps; `samples` are durations.
    pub(crate) fn since(&self, steps: u64, file_bytes: u64, mut samples: Vec<Duration>) -> Figures {
        let (seconds, used) = (self.at.elapsed().as_secs_f64(), cpu().saturating_sub(self.cpu));
        let per_step = |amount: f64| amount / (steps.max(1) as f64);
        samples.sort_unstable();
        let at = |share: f64| {
            let place = (samples.len() as f64 * share) as usize;
            samples.get(place.min(samples.len().saturating_sub(1))).map_or(0.0, |sample| sample.as_secs_f64() * 1e6)
        };
        Figures {
            steps,
            seconds,
            cpu_us: per_step(used.as_secs_f64() * 1e6),
            written: per_step(entry("io", "write_bytes").saturating_sub(self.written) as f64),
            file: per_step(file_bytes as f64),
            peak: peak(),
            p50_us: at(0.5),
            p99_us: at(0.99),
        }
    }
}

/// The size of a state file with its log.
pub(crate) fn file_bytes(path: &std::path::Path) -> u64 {
    let size = |path: &std::path::Path| std::fs::metadata(path).map(|metadata| metadata.len()).unwrap_or_default();
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    size(path) + size(std::path::Path::new(&log))
}
