//! Child processes under a guard: nothing that a step started goes on when its engine is gone, or beside its own retry.
//!
//! The guard is this program again (`__guard`), in a process group of its own. It starts the command in another group,
//! holds an OS lock that the command's processes inherit, and ends the whole group when the engine's pipe closes, when
//! the time is up, or when the command itself has ended; also what left the group (`setsid`), as their subreaper. As
//! long as the lock is held, some process of an earlier attempt may still act, so nobody looks or starts again.
//!
//! What the command means is [`crate::core`]'s business; this file only runs and ends it.

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The answer is a line of its own that starts with this, so whatever else the program prints does not matter.
const ANSWER: &str = "platflow-guard: ";

/// The most of a command's stdout that is kept; the rest is read and dropped.
const STDOUT_BYTES: usize = 4 * 1024 * 1024;

/// The last bytes of stderr that are kept for the operator.
const STDERR_BYTES: usize = 16 * 1024;

/// How to start a guard.
#[derive(Debug, Clone)]
pub struct Launcher {
    /// This program.
    pub program: PathBuf,
    /// What makes it a guard, e.g. `["__guard"]`.
    pub arguments: Vec<String>,
}

/// One command to run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Where it runs.
    pub directory: Option<PathBuf>,
    /// Its whole environment.
    pub environment: BTreeMap<String, String>,
    /// What it reads.
    pub stdin: String,
    /// It is ended after this long in real time.
    pub timeout_ms: u64,
    /// How long it has between being asked (SIGTERM) and being made (SIGKILL) to end.
    pub grace_ms: u64,
    /// Held by the guard and by everything that the command started.
    pub lock: PathBuf,
}

/// What became of a command. When this is known, none of its processes runs any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Ended {
    /// It ended by itself.
    Exited {
        /// Exit code, or 128 + the signal that killed it.
        code: i32,
        /// What it wrote, at most 4 MiB.
        stdout: String,
        /// The end of what it complained.
        stderr: String,
    },
    /// Its time was up; its processes were killed.
    TimedOut {
        /// The end of what it complained.
        stderr: String,
    },
    /// The engine let go of it; its processes were killed.
    Abandoned,
    /// A process of an earlier attempt still runs: nothing was started.
    Busy,
    /// It could not be started.
    NotStarted {
        /// Why.
        reason: String,
    },
}

/// The guard itself failed: whether the command ran, and how far, is unknown.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The guard could not be started: nothing ran.
    #[error("the guard process could not be started")]
    Start(#[source] io::Error),
    /// The guard ended without an answer.
    #[error("the guard process ended without an answer")]
    NoAnswer,
    /// Talking to it failed.
    #[error("the guard process could not be talked to")]
    Pipe(#[source] io::Error),
}

/// True while a process of an earlier attempt may still run.
#[must_use]
pub fn is_busy(lock: &Path) -> bool {
    // Shared: two who look at the same moment do not take each other for a running command.
    File::open(lock).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Runs a command under a guard. `go_on` is asked twice a second; once it says no, the command is ended. So it is when
/// this future is dropped or this process dies.
///
/// # Errors
/// [`GuardError`]: only [`GuardError::Start`] means that nothing ran.
#[expect(clippy::disallowed_methods, reason = "this file owns child processes")]
pub async fn run(launcher: &Launcher, job: &Job, go_on: impl Fn() -> bool + Send) -> Result<Ended, GuardError> {
    let mut frame = serde_json::to_vec(job).map_err(|error| GuardError::Start(error.into()))?;
    frame.push(b'\n');
    let mut guard = tokio::process::Command::new(&launcher.program)
        .args(&launcher.arguments)
        .env_clear()
        // A group of its own: Ctrl-C at the terminal is the engine's to interpret.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(GuardError::Start)?;
    let (Some(mut input), Some(mut output)) = (guard.stdin.take(), guard.stdout.take()) else {
        return Err(GuardError::NoAnswer);
    };
    input.write_all(&frame).await.map_err(GuardError::Pipe)?;
    input.flush().await.map_err(GuardError::Pipe)?;
    let mut held = Some(input);
    let mut answer = Vec::new();
    let mut ticks = tokio::time::interval(Duration::from_millis(500));
    let mut buffer = vec![0; 64 * 1024];
    loop {
        tokio::select! {
            read = output.read(&mut buffer) => match read.map_err(GuardError::Pipe)? {
                0 => break,
                length => answer.extend_from_slice(buffer.get(..length).unwrap_or_default()),
            },
            _ = ticks.tick() => if held.is_some() && !go_on() {
                // The closed pipe is the order to end everything; the answer still comes.
                held = None;
            }
        }
    }
    let _ = guard.wait().await;
    drop(held);
    let text = String::from_utf8_lossy(&answer);
    text.lines()
        .rev()
        .find_map(|line| line.split_once(ANSWER))
        .and_then(|(_, json)| serde_json::from_str(json).ok())
        .ok_or(GuardError::NoAnswer)
}

/// The guard: reads one [`Job`] from stdin, runs it, answers on stdout. Stdin stays open as long as the engine lives.
/// Returns the exit code of the process.
#[must_use]
pub fn guard_main(_arguments: &[String]) -> u8 {
    let mut stdin = BufReader::new(io::stdin());
    let mut frame = String::new();
    let job = match stdin.read_line(&mut frame) {
        Ok(length) if length > 0 => serde_json::from_str::<Job>(&frame),
        // Nobody asked for anything: the engine died between starting us and speaking.
        _ => return 2,
    };
    let ended = match job {
        Ok(job) => guard(&job, stdin),
        Err(error) => Ended::NotStarted { reason: format!("the guard does not understand its job: {error}") },
    };
    let Ok(answer) = serde_json::to_string(&ended) else { return 1 };
    let mut stdout = io::stdout();
    // The engine may be gone: then nobody needs the answer.
    let _ = writeln!(stdout, "\n{ANSWER}{answer}").and_then(|()| stdout.flush());
    0
}

enum Event {
    /// The command's first process ended; it is not reaped yet, so its group's number cannot be reused.
    Ended,
    EngineGone,
}

fn guard(job: &Job, mut engine: impl BufRead + Send + 'static) -> Ended {
    let lock = match take_lock(&job.lock) {
        Ok(Some(lock)) => lock,
        Ok(None) => return Ended::Busy,
        Err(error) => return Ended::NotStarted { reason: format!("{}: {error}", job.lock.display()) },
    };
    // What leaves the group by daemonising becomes our child when its parent ends, and is found and ended too.
    if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
        return Ended::NotStarted { reason: format!("the guard could not become a subreaper: {error}") };
    }
    let mut child = match spawn(job) {
        Ok(child) => child,
        Err(reason) => return Ended::NotStarted { reason },
    };
    let group = Pid::from_child(&child);
    let input = job.stdin.clone();
    let writer = child.stdin.take().map(|mut pipe| std::thread::spawn(move || pipe.write_all(input.as_bytes())));
    let stdout = child.stdout.take().map(|pipe| std::thread::spawn(move || read_head(pipe)));
    let stderr = child.stderr.take().map(|pipe| std::thread::spawn(move || read_tail(pipe)));

    let (tell, events) = mpsc::channel();
    let gone = tell.clone();
    std::thread::spawn(move || {
        let mut rest = [0; 64];
        while matches!(engine.read(&mut rest), Ok(length) if length > 0) {}
        let _ = gone.send(Event::EngineGone);
    });
    std::thread::spawn(move || {
        let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while matches!(rustix::process::waitid(WaitId::Pid(group), ended), Err(rustix::io::Errno::INTR)) {}
        let _ = tell.send(Event::Ended);
    });

    let deadline = Instant::now() + Duration::from_millis(job.timeout_ms);
    let first = events.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    if !matches!(first, Ok(Event::Ended)) {
        let _ = rustix::process::kill_process_group(group, Signal::TERM);
        await_end(&events, Duration::from_millis(job.grace_ms));
    }
    let _ = rustix::process::kill_process_group(group, Signal::KILL);
    let status = child.wait();
    end_strays();
    drop(lock);
    // Nobody has the other ends of these pipes any more.
    drop(writer.map(std::thread::JoinHandle::join));
    let stdout = stdout.and_then(|thread| thread.join().ok()).unwrap_or_default();
    let stderr = stderr.and_then(|thread| thread.join().ok()).unwrap_or_default();
    match (first, status) {
        (Ok(Event::Ended), Ok(status)) => Ended::Exited { code: code(status), stdout, stderr },
        (Ok(Event::Ended), Err(error)) => {
            Ended::NotStarted { reason: format!("the command could not be waited for: {error}") }
        }
        (Ok(Event::EngineGone) | Err(RecvTimeoutError::Disconnected), _) => Ended::Abandoned,
        (Err(RecvTimeoutError::Timeout), _) => Ended::TimedOut { stderr },
    }
}

fn await_end(events: &mpsc::Receiver<Event>, grace: Duration) {
    let until = Instant::now() + grace;
    while let Ok(event) = events.recv_timeout(until.saturating_duration_since(Instant::now())) {
        if matches!(event, Event::Ended) {
            return;
        }
    }
}

fn code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

fn take_lock(path: &Path) -> io::Result<Option<File>> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    match lock.try_lock() {
        Ok(()) => {
            // Inherited by the command and all it starts: should this guard be killed, the lock outlives it as long as
            // any of them does.
            rustix::io::fcntl_setfd(&lock, rustix::io::FdFlags::empty())?;
            Ok(Some(lock))
        }
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[expect(clippy::disallowed_methods, reason = "this file owns child processes")]
fn spawn(job: &Job) -> Result<Child, String> {
    let (program, arguments) = job.command.split_first().ok_or("the command is empty")?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(&job.environment)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(directory) = &job.directory {
        command.current_dir(directory);
    }
    command.spawn().map_err(|error| format!("{program} could not be started: {error}"))
}

/// Ends and reaps everything that is left below this process.
fn end_strays() {
    loop {
        let children = children();
        if children.is_empty() {
            return;
        }
        for pid in children {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
            let _ = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED);
        }
    }
}

/// The children of this process, from `/proc` (the fields after the command's closing parenthesis: state, parent).
fn children() -> Vec<Pid> {
    let own = std::process::id();
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    processes
        .filter_map(|entry| {
            let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let parent: u32 = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()?;
            if parent == own { Pid::from_raw(pid) } else { None }
        })
        .collect()
}

/// Reads everything, keeps the beginning.
fn read_head(pipe: impl Read) -> String {
    let mut kept = Vec::new();
    let mut limited = pipe.take(STDOUT_BYTES as u64);
    let _ = limited.read_to_end(&mut kept);
    let _ = io::copy(&mut limited.into_inner(), &mut io::sink());
    String::from_utf8_lossy(&kept).into_owned()
}

/// Reads everything, keeps the end.
fn read_tail(mut pipe: impl Read) -> String {
    let mut kept = Vec::new();
    let mut buffer = [0; 8192];
    while let Ok(length) = pipe.read(&mut buffer) {
        if length == 0 {
            break;
        }
        kept.extend_from_slice(buffer.get(..length).unwrap_or_default());
        let surplus = kept.len().saturating_sub(STDERR_BYTES);
        kept.drain(..surplus);
    }
    String::from_utf8_lossy(&kept).into_owned()
}
